//! Opening what is not, or no longer, or not yet a profile store.

use std::path::Path;

use proptest::prelude::*;
use refrain_taste::{
    Event, EventKind, OpenStoreError, ProfileStore, RedbStore, StoreError, StoreOptions, Write,
};

fn open(path: &Path) -> Result<RedbStore, OpenStoreError> {
    RedbStore::open(path, &StoreOptions::default())
}

fn append(store: &RedbStore, user: &str, id: &str) {
    store.write(write(user, id)).unwrap();
}

fn write(user: &str, id: &str) -> Write {
    let event = Event {
        event_id: id.to_owned(),
        item: "i1".to_owned(),
        time_us: 0,
        kind: EventKind::Play,
        played_ms: None,
        context: None,
        session: None,
        count: 1,
    };
    Write::Append {
        user: user.to_owned(),
        events: vec![event],
    }
}

#[test]
fn one_process_at_a_time() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("profiles.redb");
    let first = open(&path).unwrap();
    let error = open(&path).unwrap_err();
    assert!(matches!(error, OpenStoreError::Locked { .. }), "{error:?}");
    assert!(error.to_string().contains("profiles.redb"), "{error}");
    append(&first, "u", "e");
    drop(first);
    assert_eq!(open(&path).unwrap().profile("u").unwrap().revision, 1);
}

#[test]
fn other_files_are_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("notes.txt");
    for content in [b"x".repeat(10), b"some notes\n".repeat(1_000)] {
        fs_err::write(&path, &content).unwrap();
        let error = open(&path).unwrap_err();
        assert!(
            matches!(error, OpenStoreError::NotAStore { .. }),
            "{error:?}"
        );
        assert_eq!(fs_err::read(&path).unwrap(), content);
    }
}

#[test]
fn other_databases_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("other.redb");
    let table: redb::TableDefinition<'_, &str, u64> = redb::TableDefinition::new("users");
    let database = redb::Database::create(&path).unwrap();
    let write = database.begin_write().unwrap();
    write.open_table(table).unwrap().insert("u", 1).unwrap();
    write.commit().unwrap();
    drop(database);
    let error = open(&path).unwrap_err();
    assert!(
        matches!(error, OpenStoreError::NotAStore { .. }),
        "{error:?}"
    );
}

#[test]
fn a_later_format_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("profiles.redb");
    drop(open(&path).unwrap());
    let database = redb::Database::open(&path).unwrap();
    let table: redb::TableDefinition<'_, &str, u64> =
        redb::TableDefinition::new("refrain.profiles.format");
    let write = database.begin_write().unwrap();
    write
        .open_table(table)
        .unwrap()
        .insert("format", 2)
        .unwrap();
    write.commit().unwrap();
    drop(database);
    let error = open(&path).unwrap_err();
    assert!(
        matches!(error, OpenStoreError::Format { format: 2, .. }),
        "{error:?}"
    );
}

#[test]
fn a_place_where_nothing_can_be_made() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("no/such/profiles.redb");
    assert!(matches!(open(&missing), Err(OpenStoreError::Io { path, .. }) if path == missing));
    assert!(matches!(
        open(directory.path()),
        Err(OpenStoreError::Io { .. })
    ));
    let file = directory.path().join("file");
    fs_err::write(&file, "x").unwrap();
    assert!(matches!(
        open(&file.join("profiles.redb")),
        Err(OpenStoreError::Io { .. })
    ));
}

#[test]
fn an_empty_file_and_the_remains_of_a_creation_are_no_obstacle() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("profiles.redb");
    fs_err::write(&path, "").unwrap();
    // What a crash leaves: the file has its size, the pages are not written.
    fs_err::write(directory.path().join("profiles.redb.creating"), [0; 8_192]).unwrap();
    append(&open(&path).unwrap(), "u", "e");
    assert_eq!(open(&path).unwrap().profile("u").unwrap().revision, 1);
    assert_eq!(fs_err::read_dir(directory.path()).unwrap().count(), 1);
}

#[test]
fn options_have_bounds() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("profiles.redb");
    let good = StoreOptions::default();
    for bad in [
        StoreOptions {
            max_waiting: 1_000,
            ..good.clone()
        },
        StoreOptions {
            max_batch: 0,
            ..good.clone()
        },
        StoreOptions {
            max_events_per_user: 0,
            ..good.clone()
        },
        StoreOptions {
            max_events_per_user: 1_000_001,
            ..good
        },
    ] {
        let error = RedbStore::open(&path, &bad).unwrap_err();
        assert!(matches!(error, OpenStoreError::Option(_)), "{error:?}");
    }
    assert!(!path.exists());
}

#[test]
fn a_damaged_record_is_named_and_harms_no_other_listener() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("profiles.redb");
    let store = open(&path).unwrap();
    for user in ["u1", "u2"] {
        append(&store, user, "e1");
    }
    drop(store);
    let database = redb::Database::open(&path).unwrap();
    let table: redb::TableDefinition<'_, (&str, &str), &[u8]> =
        redb::TableDefinition::new("events");
    let write = database.begin_write().unwrap();
    write
        .open_table(table)
        .unwrap()
        .insert(("u1", "e1"), &[1u8, 9][..])
        .unwrap();
    write.commit().unwrap();
    drop(database);

    let store = open(&path).unwrap();
    let error = store.profile("u1").unwrap_err();
    assert!(matches!(&error, StoreError::Corrupt { table: "event", key, .. } if key == "u1/e1"));
    assert_eq!(store.profile("u2").unwrap().revision, 1);
    append(&store, "u2", "e2");
    assert_eq!(store.profile("u2").unwrap().revision, 2);
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 150,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// A file cut or flipped anywhere opens or does not, but nothing panics, and a profile that is
    /// read is a profile that was written.
    #[test]
    fn damaged_files_never_panic(
        cut in proptest::option::weighted(0.3, any::<proptest::sample::Index>()),
        flips in proptest::collection::vec((any::<proptest::sample::Index>(), 0..8u8), 1..20),
        near_start in any::<bool>(),
    ) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("profiles.redb");
        let store = open(&path).unwrap();
        for n in 0..5 {
            append(&store, "u", &format!("e{n}"));
        }
        let written = store.profile("u").unwrap();
        drop(store);
        let mut bytes = fs_err::read(&path).unwrap();
        for (at, bit) in flips {
            let range = if near_start { 512.min(bytes.len()) } else { bytes.len() };
            bytes[at.index(range)] ^= 1 << bit;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()).max(1));
        }
        fs_err::write(&path, &bytes).unwrap();
        if let Ok(store) = open(&path)
            && let Ok(profile) = store.profile("u")
        {
            prop_assert!(profile.revision <= written.revision);
            prop_assert!(profile.events.iter().all(|event| written.events.contains(event)));
            // Whether it still takes writes is open; what it says about them is not.
            if store.write(write("u", "new")).is_ok() {
                let after = store.profile("u");
                prop_assert!(after.is_ok_and(|after| after.revision == profile.revision + 1));
            }
        }
    }
}
