//! The store on PostgreSQL: the same conformance suite, and what only a shared store has to do.
//!
//! Needs a server: `REFRAIN_TEST_POSTGRES` is a URL of an empty database that the tests may fill, as
//! `tests/postgres/with_server.sh` sets it. Without it these tests are skipped, and say so.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use postgres::NoTls;
use refrain_taste::{
    Action, Effect, Event, EventKind, OpenPostgresError, PostgresOptions, PostgresStore,
    ProfileStore, Rule, Scope, StoreError, Write,
};

use crate::conformance::{MAX_EVENTS, run};

/// A schema of its own in the test database, or a database of its own; dropped with the value.
struct Place {
    database: String,
    schema: String,
    /// Where the database was made, and its name, if it is its own.
    own: Option<(String, String)>,
}

impl Place {
    fn new() -> Option<Self> {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let Ok(database) = std::env::var("REFRAIN_TEST_POSTGRES") else {
            eprintln!("skipped: REFRAIN_TEST_POSTGRES names no PostgreSQL server");
            return None;
        };
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let schema = format!("t{}_{number}", std::process::id());
        let place = Self {
            database,
            schema,
            own: None,
        };
        place.run(&format!("CREATE SCHEMA {}", place.schema));
        Some(place)
    }

    /// In a database of its own: others' connections are not for a test to end.
    fn apart() -> Option<Self> {
        let place = Self::new()?;
        let name = format!("apart_{}", place.schema);
        place.run(&format!("CREATE DATABASE {name}"));
        let (server, options) = match place.database.split_once('?') {
            Some((server, options)) => (server, format!("?{options}")),
            None => (&*place.database, String::new()),
        };
        let (server, _) = server.rsplit_once('/').unwrap();
        let apart = Self {
            database: format!("{server}/{name}{options}"),
            schema: place.schema.clone(),
            own: Some((place.database.clone(), name)),
        };
        apart.run(&format!("CREATE SCHEMA {}", apart.schema));
        Some(apart)
    }

    fn run(&self, sql: &str) {
        let mut client = postgres::Client::connect(&self.database, NoTls).unwrap();
        client.batch_execute(sql).unwrap();
    }

    fn url(&self) -> String {
        let sign = if self.database.contains('?') {
            '&'
        } else {
            '?'
        };
        format!(
            "{}{sign}options=-csearch_path%3D{}",
            self.database, self.schema
        )
    }

    fn open(&self) -> PostgresStore {
        self.open_with(&PostgresOptions::default())
    }

    fn open_with(&self, options: &PostgresOptions) -> PostgresStore {
        let store = PostgresStore::open(&self.url(), options).unwrap();
        heard(&store);
        store
    }

    /// Ends all connections of the stores of this place's database, as a restart of the server does.
    fn disconnect(&self) {
        self.run(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
             WHERE application_name = 'refrain' AND datname = current_database() AND pid <> pg_backend_pid()",
        );
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let (database, sql) = match &self.own {
            Some((server, name)) => (server, format!("DROP DATABASE {name} WITH (FORCE)")),
            None => (
                &self.database,
                format!("DROP SCHEMA {} CASCADE", self.schema),
            ),
        };
        if let Ok(mut client) = postgres::Client::connect(database, NoTls) {
            drop(client.batch_execute(&sql));
        }
    }
}

fn heard(store: &PostgresStore) {
    until("the store listens", || store.is_listening());
}

fn until(what: &str, there: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !there() {
        assert!(Instant::now() < deadline, "not within 30 s: {what}");
        std::thread::park_timeout(Duration::from_millis(2));
    }
}

fn append(user: &str, id: &str) -> Write {
    Write::Append {
        user: user.to_owned(),
        events: vec![Event {
            event_id: id.to_owned(),
            item: "i".to_owned(),
            time_us: 1,
            kind: EventKind::Play,
            played_ms: None,
            context: None,
            session: None,
            count: 1,
        }],
    }
}

fn create(user: &str, id: &str) -> Write {
    Write::CreateRule {
        user: user.to_owned(),
        rule: Rule {
            rule_id: id.to_owned(),
            scope: Scope::Item("i".to_owned()),
            strength: 1.0,
            effect: Effect::Both,
            action: Action::Exclude,
            create_time_us: 1,
            expire_time_us: None,
            note: String::new(),
        },
    }
}

#[test]
fn postgres_store_conforms() {
    if std::env::var_os("REFRAIN_TEST_POSTGRES").is_none() {
        eprintln!("skipped: REFRAIN_TEST_POSTGRES names no PostgreSQL server");
        return;
    }
    let options = PostgresOptions {
        max_events_per_user: MAX_EVENTS,
        ..PostgresOptions::default()
    };
    run(
        40,
        || Place::new().unwrap(),
        |place| PostgresStore::open(&place.url(), &options).unwrap(),
    );
}

/// One replica writes, the other reads at once what was acknowledged, by its revision.
#[test]
fn a_write_is_read_on_the_other_replica_by_its_revision() {
    let Some(place) = Place::new() else { return };
    let (here, there) = (place.open(), place.open());
    for n in 0..300u64 {
        let write = match n % 3 {
            0 => create("u", &n.to_string()),
            _ => append("u", &n.to_string()),
        };
        let (writer, reader) = if n % 2 == 0 {
            (&here, &there)
        } else {
            (&there, &here)
        };
        let revision = writer.write(write).unwrap().revision;
        assert_eq!(revision, n + 1);
        let profile = reader.profile_since("u", revision).unwrap();
        assert_eq!(profile.revision, revision, "stale");
        assert_eq!(
            (profile.events.len() + profile.rules.len()) as u64,
            revision
        );
    }
    // Without the revision: as soon as the news is there. News that comes after a read takes what was
    // kept away once more, so it is there to stay only after the last of it.
    let revision = here.write(append("u", "last")).unwrap().revision;
    until("the news", || {
        let read = there.profile("u").unwrap().revision;
        let kept = there.cached("u").map(|profile| profile.revision);
        (read, kept) == (revision, Some(revision))
    });
}

#[test]
fn with_always_check_no_read_is_behind_even_without_a_revision() {
    let Some(place) = Place::new() else { return };
    let options = PostgresOptions {
        always_check: true,
        ..PostgresOptions::default()
    };
    let (here, there) = (place.open(), place.open_with(&options));
    for n in 0..200u64 {
        let revision = here.write(append("u", &n.to_string())).unwrap().revision;
        assert_eq!(there.profile("u").unwrap().revision, revision, "stale");
        assert!(there.cached("u").is_none());
    }
}

/// Two replicas write to the same listeners at once: no revision is given twice, nothing is lost.
#[test]
fn writers_of_two_replicas_take_turns() {
    const WRITES: u64 = 60;
    let Some(place) = Place::new() else { return };
    let stores = [place.open(), place.open()];
    let revisions = std::sync::Mutex::new(std::collections::BTreeSet::new());
    std::thread::scope(|scope| {
        for (replica, store) in stores.iter().enumerate() {
            for writer in 0..2 {
                let revisions = &revisions;
                scope.spawn(move || {
                    for n in 0..WRITES {
                        let user = format!("u{}", n % 3);
                        let id = format!("{replica}-{writer}-{n}");
                        let receipt = store.write(append(&user, &id)).unwrap();
                        let fresh = revisions.lock().unwrap().insert((user, receipt.revision));
                        assert!(fresh, "a revision was given twice");
                    }
                });
            }
        }
    });
    let total: u64 = (0..3)
        .map(|user| stores[0].profile_since(&format!("u{user}"), 80).unwrap())
        .map(|profile| {
            assert_eq!(profile.events.len() as u64, profile.revision);
            profile.revision
        })
        .sum();
    assert_eq!(total, 4 * WRITES);
}

/// Connections end under load, as when the server restarts: writes that were acknowledged stay, each once;
/// others fail clearly and can be repeated; afterwards everything goes on by itself.
#[test]
fn a_restart_under_load_loses_and_repeats_nothing() {
    const WRITERS: u64 = 3;
    let Some(place) = Place::apart() else { return };
    let store = place.open();
    let acknowledged = AtomicU64::new(0);
    let stop = AtomicBool::new(false);
    let failures = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (store, stop, acknowledged, failures) = (&store, &stop, &acknowledged, &failures);
            scope.spawn(move || {
                let mut n = 0;
                while !stop.load(Ordering::Acquire) {
                    let write = append("u", &format!("{writer}-{n}"));
                    match store.write(write) {
                        Ok(receipt) => {
                            assert!(receipt.appended + receipt.duplicates == 1);
                            n += 1;
                            acknowledged.fetch_add(1, Ordering::AcqRel);
                        }
                        // Repeated until it is known.
                        Err(StoreError::Io { path, .. }) => {
                            assert!(!path.display().to_string().contains('@'), "{path:?}");
                            failures.fetch_add(1, Ordering::AcqRel);
                        }
                        Err(other) => panic!("{other:?}"),
                    }
                    let profile = store.profile("u");
                    if let Err(error) = profile {
                        assert!(matches!(error, StoreError::Io { .. }), "{error:?}");
                    }
                }
            });
        }
        for round in 1..=5 {
            until("progress", || {
                acknowledged.load(Ordering::Acquire) >= round * 30
            });
            place.disconnect();
        }
        let so_far = acknowledged.load(Ordering::Acquire);
        until("progress after the last one", || {
            acknowledged.load(Ordering::Acquire) > so_far + 10
        });
        stop.store(true, Ordering::Release);
    });
    heard(&store);
    let profile = store.profile("u").unwrap();
    assert_eq!(
        profile.events.len() as u64,
        acknowledged.load(Ordering::Acquire)
    );
    assert_eq!(
        profile.revision,
        profile.events.len() as u64,
        "one revision a write"
    );
    // A replica that was cut off does not answer from memory that may be old.
    let other = place.open();
    other.write(append("u", "other")).unwrap();
    until("news", || {
        store.profile("u").unwrap().revision == profile.revision + 1
    });
}

#[test]
fn an_erasure_reaches_the_other_replica() {
    let Some(place) = Place::new() else { return };
    let (here, there) = (place.open(), place.open());
    let forgotten = Arc::new(std::sync::Mutex::new(Vec::new()));
    let heard_of = Arc::clone(&forgotten);
    there.on_erasure(move |user| heard_of.lock().unwrap().push(user.to_owned()));
    here.write(append("u\0", "e")).unwrap();
    here.write(create("u\0", "r")).unwrap();
    assert_eq!(there.profile_since("u\0", 2).unwrap().revision, 2);
    let erase = Write::Erase {
        user: "u\0".to_owned(),
    };
    let erased = here.write(erase).unwrap().erased.unwrap();
    assert_eq!((erased.revision, erased.events, erased.rules), (2, 1, 1));
    assert_eq!(here.residue("u\0", erased.revision).unwrap(), 0);
    until("the news", || !forgotten.lock().unwrap().is_empty());
    assert_eq!(*forgotten.lock().unwrap(), ["u\0"]);
    assert_eq!(there.profile("u\0").unwrap().revision, 0);
    assert!(there.last_known("u\0").is_none());
    // Begun anew, above what the erased one had.
    let receipt = there.write(append("u\0", "e")).unwrap();
    assert_eq!((receipt.revision, receipt.appended), (3, 1));
}

#[test]
fn tables_of_a_later_version_and_bad_urls_are_refused() {
    let Some(place) = Place::new() else { return };
    drop(place.open());
    place.run(&format!(
        "UPDATE {}.refrain_schema SET version = 99",
        place.schema
    ));
    let error = PostgresStore::open(&place.url(), &PostgresOptions::default()).unwrap_err();
    assert!(
        matches!(error, OpenPostgresError::Version { version: 99, .. }),
        "{error:?}"
    );
    for url in ["postgres://[", "postgres://u:secret@127.0.0.1:1/nowhere"] {
        let options = PostgresOptions {
            timeout: Duration::from_millis(500),
            ..PostgresOptions::default()
        };
        let error = PostgresStore::open(url, &options).unwrap_err();
        assert!(
            !format!("{error} {error:?}").contains("secret"),
            "{error:?}"
        );
    }
}

#[test]
fn a_damaged_record_is_an_error_for_its_listener_alone() {
    let Some(place) = Place::new() else { return };
    let store = place.open();
    for user in ["u", "v"] {
        store.write(append(user, "e")).unwrap();
    }
    place.run(&format!(
        "UPDATE {}.refrain_event SET record = '\\x00'::bytea WHERE user_id = 'u'::bytea",
        place.schema
    ));
    let other = place.open();
    let error = other.profile("u").unwrap_err();
    assert!(
        matches!(&error, StoreError::Corrupt { key, .. } if key == "u/e"),
        "{error:?}"
    );
    assert_eq!(other.profile("v").unwrap().revision, 1);
    // Erasing it works all the same.
    let erase = Write::Erase {
        user: "u".to_owned(),
    };
    other.write(erase).unwrap();
    assert_eq!(other.residue("u", u64::MAX).unwrap(), 0);
}
