//! The store over an object store that is a map, fails where it is told to, and is used by several.

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::Mutex;

use super::*;
use crate::bundle::Bundle;
use crate::bundle::tests::sealed;
use crate::delta::{NewDelta, write_delta};
use crate::items::Item;
use crate::section::OpenMode;
use crate::store::collect::Keep;
use crate::store::objects::{Listed, Object};

/// When a call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// Every call from this one on: the publisher, or its network, is gone.
    DeadFrom(usize),
    /// Likewise, but this one call still has its effect.
    DeadAfter(usize),
    /// This write reaches the store, and its answer does not come back.
    Lost(usize),
}

/// What happens between two calls of a publisher.
type Meanwhile = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct Memory {
    objects: BTreeMap<String, (Vec<u8>, u64)>,
    writes: u64,
    now: Timestamp,
}

/// A view of a [`Memory`] that one process has.
struct View {
    memory: Arc<Mutex<Memory>>,
    calls: Mutex<usize>,
    fault: Option<Fault>,
    /// Runs before the call whose description contains the text.
    meanwhile: Mutex<Option<(String, Meanwhile)>>,
}

impl std::fmt::Debug for View {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a map")
    }
}

impl View {
    fn call<T>(
        &self,
        action: &'static str,
        key: &str,
        run: impl FnOnce(&mut Memory) -> Result<T, ObjectError>,
    ) -> Result<T, ObjectError> {
        let due = self
            .meanwhile
            .lock()
            .unwrap()
            .take_if(|(at, _)| format!("{action} {key}").contains(at.as_str()));
        if let Some((_, run)) = due {
            run();
        }
        let mut calls = self.calls.lock().unwrap();
        *calls += 1;
        let failed = || ObjectError::Failed {
            key: key.to_owned(),
            action,
            reason: "the network is down".to_owned(),
        };
        let (runs, fails) = match self.fault {
            None => (true, false),
            Some(Fault::DeadFrom(at)) => (*calls <= at, *calls > at),
            Some(Fault::DeadAfter(at)) => (*calls <= at + 1, *calls > at),
            Some(Fault::Lost(at)) => (true, *calls == at + 1 && action == "write"),
        };
        let done = if runs {
            Some(run(&mut self.memory.lock().unwrap()))
        } else {
            None
        };
        match done {
            Some(done) if !fails => done,
            _ => Err(failed()),
        }
    }
}

impl Objects for View {
    fn url(&self) -> &str {
        "mem://bucket"
    }

    fn get(&self, key: &str, limit: u64) -> Result<Option<Object>, ObjectError> {
        self.call("read", key, |memory| {
            let Some((bytes, write)) = memory.objects.get(key) else {
                return Ok(None);
            };
            if bytes.len() as u64 > limit {
                let key = key.to_owned();
                return Err(ObjectError::TooLong { key, limit });
            }
            Ok(Some(Object {
                bytes: bytes.clone(),
                tag: tag(*write),
            }))
        })
    }

    fn read(
        &self,
        key: &str,
        sink: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<bool, ObjectError> {
        self.call("read", key, |memory| {
            let Some((bytes, _)) = memory.objects.get(key) else {
                return Ok(false);
            };
            for piece in bytes.chunks(1000) {
                sink(piece)?;
            }
            Ok(true)
        })
    }

    fn put(&self, key: &str, bytes: &[u8], when: When<'_>) -> Result<(), ObjectError> {
        self.call("write", key, |memory| {
            let now = memory.objects.get(key).map(|(_, write)| tag(*write));
            let holds = match when {
                When::Absent => now.is_none(),
                When::Is(tag) => now.as_ref() == Some(tag),
            };
            if !holds {
                return Err(ObjectError::Condition {
                    key: key.to_owned(),
                });
            }
            memory.write(key, bytes.to_vec());
            Ok(())
        })
    }

    fn upload(&self, key: &str, source: &mut dyn Read) -> Result<(), ObjectError> {
        let mut bytes = Vec::new();
        source.read_to_end(&mut bytes)?;
        self.call("write", key, |memory| {
            memory.write(key, bytes);
            Ok(())
        })
    }

    fn list(&self, prefix: &str) -> Result<Vec<Listed>, ObjectError> {
        self.call("list", prefix, |memory| {
            let under = memory.objects.range(prefix.to_owned()..);
            let under = under.take_while(|(key, _)| key.starts_with(prefix));
            Ok(under
                .map(|(key, (bytes, _))| Listed {
                    key: key.clone(),
                    bytes: bytes.len() as u64,
                    modified: memory.now,
                })
                .collect())
        })
    }

    fn delete(&self, key: &str) -> Result<(), ObjectError> {
        self.call("remove", key, |memory| {
            memory.objects.remove(key);
            Ok(())
        })
    }
}

impl Memory {
    fn write(&mut self, key: &str, bytes: Vec<u8>) {
        self.writes += 1;
        self.objects.insert(key.to_owned(), (bytes, self.writes));
    }
}

fn tag(write: u64) -> Tag {
    Tag {
        e_tag: Some(write.to_string()),
        version: None,
    }
}

struct Fixture {
    dir: tempfile::TempDir,
    memory: Arc<Mutex<Memory>>,
}

impl Fixture {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            memory: Arc::default(),
        }
    }

    fn store(&self, fault: Option<Fault>) -> (Remote, Arc<View>) {
        let view = Arc::new(View {
            memory: Arc::clone(&self.memory),
            calls: Mutex::new(0),
            fault,
            meanwhile: Mutex::new(None),
        });
        let cache = self.dir.path().join("cache");
        (
            Remote::new(Arc::clone(&view) as Arc<dyn Objects>, cache),
            view,
        )
    }

    fn bundle(&self, seed: u64) -> PathBuf {
        let path = self.dir.path().join(format!("bundle-{seed}"));
        if !path.exists() {
            sealed(&path, seed);
        }
        path
    }

    fn publish(&self, seed: u64, fault: Option<Fault>) -> Result<Published, PublishError> {
        let (store, _) = self.store(fault);
        store.publish(&self.bundle(seed), Some("stable"), None, "me")
    }

    /// A delta on a version that holds one new item.
    fn delta(&self, version: &str, number: u64, parent: Option<&DeltaFile>, id: &str) -> PathBuf {
        let path = self.dir.path().join(format!("delta-{number}-{id}"));
        let _ = fs_err::remove_file(&path);
        let items = [Item {
            id,
            ..Item::default()
        }];
        let delta = NewDelta {
            version,
            number,
            parent: parent.map(DeltaFile::digest),
            dim: 1,
            items: &items,
            vectors: &[1.0],
            factors: None,
            tombstones: &[],
            command: "a test",
        };
        write_delta(&path, &delta).unwrap();
        path
    }

    /// What must hold at any time: labels point at versions, and versions are whole, seen by someone
    /// who has cached nothing.
    fn assert_whole(&self) {
        let (mut store, _) = self.store(None);
        let cache = tempfile::tempdir().unwrap();
        store.cache = cache.path().to_owned();
        for label in store.labels().unwrap() {
            store.path(&label.version).unwrap();
        }
        for info in store.versions().unwrap() {
            let id = &info.manifest.version;
            let path = store.path(id).unwrap();
            Bundle::open(&path, OpenMode::Map)
                .unwrap()
                .verify()
                .unwrap();
            let deltas = store.deltas(id, 0).unwrap();
            assert_eq!(deltas.len() as u64, store.delta_count(id).unwrap(), "a gap");
            for pair in deltas.windows(2) {
                assert_eq!(pair[1].info().parent, Some(pair[0].digest()));
            }
        }
    }
}

#[test]
fn publish_label_roll_back_and_read() {
    let fixture = Fixture::new();
    let first = fixture.publish(1, None).unwrap();
    let again = fixture.publish(1, None).unwrap();
    assert!(first.new && !again.new);
    assert_eq!(first.label, again.label);
    let second = fixture.publish(2, None).unwrap();
    let (store, _) = fixture.store(None);
    assert_eq!(
        second.label.as_ref().unwrap().previous.as_ref(),
        Some(&first.version)
    );
    assert_eq!(store.versions().unwrap().len(), 2);
    assert_eq!(
        second.path,
        Path::new(&format!("mem://bucket/versions/{}", second.version))
    );
    let path = store.path(&first.version).unwrap();
    assert_eq!(store.path(&first.version).unwrap(), path, "cached");
    assert_eq!(Manifest::read(&path).unwrap().version, first.version);
    let back = store.rollback("stable", None, "me").unwrap();
    assert_eq!(back.version, first.version);
    assert!(matches!(
        store.rollback("stable", None, "me").unwrap_err(),
        StoreError::NoPrevious { .. }
    ));
    let stale = second.label.unwrap().etag;
    let error = store
        .set_label("stable", &second.version, Some(&stale), "me")
        .unwrap_err();
    assert!(matches!(error, StoreError::Conflict { .. }), "{error}");
    let error = store
        .set_label("stable", "v20261122T194500Z-1a2b3c4d", None, "me")
        .unwrap_err();
    assert!(matches!(error, StoreError::NoVersion { .. }), "{error}");
    let (listed, _) = fixture.store(None);
    assert_eq!(listed.objects.list("audit/").unwrap().len(), 5);
    fixture.assert_whole();
}

/// Kills the publisher before, in and after every one of its calls; then publishes again.
#[test]
fn a_death_at_any_call_leaves_whole_versions_and_can_be_repeated() {
    let calls = {
        let fixture = Fixture::new();
        fixture.publish(0, None).unwrap();
        let (store, view) = fixture.store(None);
        store
            .publish(&fixture.bundle(1), Some("stable"), None, "me")
            .unwrap();
        *view.calls.lock().unwrap()
    };
    assert!(calls > 15, "{calls}");
    for at in 0..calls {
        let fixture = Fixture::new();
        let first = fixture.publish(0, None).unwrap().version;
        for (seed, fault) in [(1, Fault::DeadFrom(at)), (2, Fault::DeadAfter(at))] {
            let result = fixture.publish(seed, Some(fault));
            assert!(result.is_err(), "{fault:?}");
            fixture.assert_whole();
            let (store, _) = fixture.store(None);
            let label = store.label("stable").unwrap().unwrap();
            let version = Manifest::read(&fixture.bundle(seed)).unwrap().version;
            assert!(
                [&first, &version].contains(&&label.version),
                "{fault:?}: {label:?}"
            );
            let published = fixture.publish(seed, None).unwrap();
            assert_eq!(published.label.unwrap().version, version, "{fault:?}");
            let back = store.set_label("stable", &first, None, "me").unwrap();
            assert_eq!(back.version, first);
        }
    }
}

/// A write that took effect although its answer was lost is a success, not a conflict with oneself.
#[test]
fn a_lost_answer_is_no_conflict() {
    for at in 0..24 {
        let fixture = Fixture::new();
        fixture.publish(0, None).unwrap();
        let result = fixture.publish(1, Some(Fault::Lost(at)));
        fixture.assert_whole();
        let (store, _) = fixture.store(None);
        let version = Manifest::read(&fixture.bundle(1)).unwrap().version;
        match result {
            Ok(published) => assert_eq!(published.label.unwrap().version, version),
            // Uploads are not taken on trust, and the audit log must not miss a line unsaid.
            Err(PublishError::Objects(_)) => {}
            Err(PublishError::Label { source, .. }) => {
                assert!(
                    matches!(source, StoreError::NotRecorded { .. }),
                    "{at}: {source}"
                );
            }
            Err(error) => panic!("{at}: {error}"),
        }
        assert_eq!(
            fixture.publish(1, None).unwrap().label.unwrap().version,
            version
        );
        assert_eq!(store.label("stable").unwrap().unwrap().version, version);
    }
}

#[test]
fn of_two_publishers_one_wins_and_the_other_is_told() {
    let fixture = Arc::new(Fixture::new());
    fixture.publish(0, None).unwrap();
    let (store, view) = fixture.store(None);
    let other = Arc::clone(&fixture);
    // The other one is through while this one has written its manifest and not yet its label.
    *view.meanwhile.lock().unwrap() = Some((
        "write labels/".to_owned(),
        Box::new(move || drop(other.publish(2, None).unwrap())),
    ));
    let error = store
        .publish(&fixture.bundle(1), Some("stable"), None, "me")
        .unwrap_err();
    assert!(
        matches!(
            &error,
            PublishError::Label {
                source: StoreError::Conflict { .. },
                ..
            }
        ),
        "{error}"
    );
    let winner = Manifest::read(&fixture.bundle(2)).unwrap().version;
    assert_eq!(store.label("stable").unwrap().unwrap().version, winner);
    fixture.assert_whole();
}

#[test]
fn a_damaged_upload_is_found_before_it_is_a_version() {
    let fixture = Fixture::new();
    let bundle = fixture.bundle(1);
    let version = Manifest::read(&bundle).unwrap().version;
    let key = format!("versions/{version}/items.rfs");
    let (store, view) = fixture.store(None);
    let damage = {
        let (memory, key) = (Arc::clone(&fixture.memory), key.clone());
        move || memory.lock().unwrap().objects.get_mut(&key).unwrap().0[100] ^= 1
    };
    // On the way: what is read back differs.
    *view.meanwhile.lock().unwrap() = Some((format!("read {key}"), Box::new(damage.clone())));
    let error = store.publish(&bundle, None, None, "me").unwrap_err();
    assert!(matches!(error, PublishError::Corrupt(_)), "{error}");
    assert!(error.to_string().contains(&key), "{error}");
    assert_eq!(store.versions().unwrap(), []);
    // What is there has the right length and is damaged: replaced, not trusted.
    assert!(fixture.memory.lock().unwrap().objects.contains_key(&key));
    store.publish(&bundle, None, None, "me").unwrap();
    fixture.assert_whole();
}

#[test]
fn deltas_have_their_number_alone() {
    let fixture = Fixture::new();
    let version = fixture.publish(1, None).unwrap().version;
    let (store, _) = fixture.store(None);
    let first = fixture.delta(&version, 1, None, "x");
    assert!(store.publish_delta(&first, "me").unwrap().new);
    assert!(
        !store.publish_delta(&first, "me").unwrap().new,
        "the same again"
    );
    let other = fixture.delta(&version, 1, None, "y");
    let taken = |error| matches!(error, PublishDeltaError::Taken { .. });
    assert!(taken(store.publish_delta(&other, "me").unwrap_err()));
    let files = store.deltas(&version, 0).unwrap();
    assert_eq!(files.len(), 1);
    // A second one on another first, and one that leaves a gap.
    let stranger = checked(&other).unwrap();
    let wrong = fixture.delta(&version, 2, Some(&stranger), "z");
    assert!(taken(store.publish_delta(&wrong, "me").unwrap_err()));
    let gap = fixture.delta(&version, 3, Some(&files[0]), "z");
    assert!(taken(store.publish_delta(&gap, "me").unwrap_err()));
    let second = fixture.delta(&version, 2, Some(&files[0]), "z");
    store.publish_delta(&second, "me").unwrap();
    assert_eq!(store.deltas(&version, 1).unwrap().len(), 1);
    fixture.assert_whole();
}

#[test]
fn a_death_while_a_delta_is_published_leaves_no_half_of_it() {
    let fixture = Fixture::new();
    let version = fixture.publish(1, None).unwrap().version;
    let (store, _) = fixture.store(None);
    let mut before: Option<DeltaFile> = None;
    let mut number = 0;
    for at in 0..5 {
        for fault in [Fault::DeadFrom(at), Fault::DeadAfter(at), Fault::Lost(at)] {
            number += 1;
            let id = format!("i{number}");
            let delta = fixture.delta(&version, number, before.as_ref(), &id);
            let (failing, _) = fixture.store(Some(fault));
            let _ = failing.publish_delta(&delta, "me");
            fixture.assert_whole();
            store.publish_delta(&delta, "me").unwrap();
            before = store.deltas(&version, number - 1).unwrap().pop();
            assert!(before.is_some(), "{fault:?}");
        }
    }
}

#[test]
fn damaged_objects_are_named() {
    let fixture = Fixture::new();
    let version = fixture.publish(1, None).unwrap().version;
    let (store, _) = fixture.store(None);
    store
        .publish_delta(&fixture.delta(&version, 1, None, "x"), "me")
        .unwrap();
    let keys: Vec<String> = {
        let memory = fixture.memory.lock().unwrap();
        memory
            .objects
            .keys()
            .filter(|key| !key.starts_with("audit/"))
            .cloned()
            .collect()
    };
    for key in keys {
        let good = fixture.memory.lock().unwrap().objects[&key].clone();
        let mut bad = good.0.clone();
        let middle = bad.len() / 2;
        bad[middle] ^= 0x40;
        for bad in [bad, good.0[..middle].to_vec(), Vec::new()] {
            fixture
                .memory
                .lock()
                .unwrap()
                .objects
                .insert(key.clone(), (bad, good.1));
            let (mut store, _) = fixture.store(None);
            let cache = tempfile::tempdir().unwrap();
            store.cache = cache.path().to_owned();
            let error = match key.split('/').next() {
                Some("labels") => store.label("stable").unwrap_err(),
                Some("deltas") => store.deltas(&version, 0).unwrap_err(),
                _ => store.path(&version).unwrap_err(),
            };
            assert!(error.to_string().contains(&key), "{key}: {error}");
            let left = cache.path().join("versions");
            assert_eq!(left.read_dir().map_or(0, Iterator::count), 0, "{key}");
        }
        fixture.memory.lock().unwrap().objects.insert(key, good);
    }
    fixture.assert_whole();
}

#[test]
fn collection_keeps_what_labels_need() {
    let fixture = Fixture::new();
    let versions: Vec<String> = (1..=5)
        .map(|seed| fixture.publish(seed, None).unwrap().version)
        .collect();
    // A publisher that died, and one delta of a version that goes.
    fixture.publish(6, Some(Fault::DeadAfter(8))).unwrap_err();
    let (store, view) = fixture.store(None);
    store
        .publish_delta(&fixture.delta(&versions[0], 1, None, "x"), "me")
        .unwrap();
    let keep = Keep {
        newest: 0,
        ..Keep::default()
    };
    fixture.memory.lock().unwrap().now = Timestamp::now();
    let none = store.collect(keep, false, "me").unwrap();
    assert!(
        none.versions.is_empty() && none.leavings.is_empty(),
        "all of it is young: {none:?}"
    );
    fixture.memory.lock().unwrap().now = Timestamp::UNIX_EPOCH;
    let would = store.collect(keep, true, "me").unwrap();
    // The two that the label needs are the last two published.
    let mut gone: Vec<String> = versions[..3].to_vec();
    gone.sort();
    assert_eq!(would.versions, gone);
    assert_eq!(would.leavings.len(), 1);
    assert_eq!(
        store.versions().unwrap().len(),
        5,
        "a dry run removes nothing"
    );

    // While the first one goes, someone points a label at it.
    let (other, _) = fixture.store(None);
    let wanted = gone[0].clone();
    let promote = move || drop(other.set_label("canary", &wanted, None, "me").unwrap());
    *view.meanwhile.lock().unwrap() = Some((
        format!("remove versions/{}/{MANIFEST}", gone[0]),
        Box::new(promote),
    ));
    let did = store.collect(keep, false, "me").unwrap();
    assert_eq!(did.leavings, would.leavings);
    assert!(!did.versions.contains(&gone[0]), "{did:?}");
    assert_eq!(store.versions().unwrap().len(), 3);
    fixture.assert_whole();
    let left: Vec<String> = fixture
        .memory
        .lock()
        .unwrap()
        .objects
        .keys()
        .cloned()
        .collect();
    for id in &gone[1..] {
        assert!(
            !left
                .iter()
                .any(|key| key.contains(id.as_str()) && !key.starts_with("audit/"))
        );
    }
}

/// The label moves after collection has looked at the labels and taken the manifest: it goes back.
#[test]
fn a_label_that_moves_to_what_is_collected_goes_back() {
    let fixture = Fixture::new();
    let first = fixture.publish(1, None).unwrap().version;
    let (store, view) = fixture.store(None);
    store.publish(&fixture.bundle(2), None, None, "me").unwrap();
    let second = Manifest::read(&fixture.bundle(2)).unwrap().version;
    let (other, _) = fixture.store(None);
    let key = format!("versions/{second}/{MANIFEST}");
    let take = move || other.objects.delete(&key).unwrap();
    *view.meanwhile.lock().unwrap() = Some(("write labels/".to_owned(), Box::new(take)));
    let error = store.set_label("stable", &second, None, "me").unwrap_err();
    assert!(matches!(error, StoreError::NoVersion { .. }), "{error}");
    let (clean, _) = fixture.store(None);
    assert_eq!(clean.label("stable").unwrap().unwrap().version, first);
    fixture.assert_whole();
}

#[test]
fn the_cache_is_mended_and_trimmed() {
    let fixture = Fixture::new();
    let versions = [1, 2].map(|seed| fixture.publish(seed, None).unwrap().version);
    let (store, _) = fixture.store(None);
    let path = store.path(&versions[0]).unwrap();
    store.path(&versions[1]).unwrap();
    // Cut short, as a full disk leaves a file.
    let file = path.join("items.rfs");
    let bytes = fs_err::read(&file).unwrap();
    fs_err::write(&file, &bytes[..9]).unwrap();
    store.path(&versions[0]).unwrap();
    assert_eq!(fs_err::read(&file).unwrap(), bytes);
    assert_eq!(
        store.trim_cache(&[&versions[1]]).unwrap(),
        [versions[0].clone()]
    );
    assert!(!path.exists());
    store.path(&versions[0]).unwrap();
}
