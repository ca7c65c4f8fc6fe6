//! The embedded store: limits, concurrency, refusals, import, shutdown.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier, mpsc};

use refrain_taste::{
    Action, CompactOptions, Effect, Event, EventKind, ImportReport, MAX_RULES_PER_USER, Profile,
    ProfileStore, RedbStore, Rule, Scope, StoreError, StoreOptions, Write,
};
use tempfile::TempDir;

fn open(options: &StoreOptions) -> (TempDir, RedbStore) {
    let directory = tempfile::tempdir().unwrap();
    let store = RedbStore::open(&directory.path().join("profiles.redb"), options).unwrap();
    (directory, store)
}

fn event(id: &str, time_us: i64) -> Event {
    Event {
        event_id: id.to_owned(),
        item: "i1".to_owned(),
        time_us,
        kind: EventKind::Play,
        played_ms: None,
        context: None,
        session: None,
        count: 1,
    }
}

fn append(user: &str, events: Vec<Event>) -> Write {
    Write::Append {
        user: user.to_owned(),
        events,
    }
}

fn rule(id: &str) -> Rule {
    Rule {
        rule_id: id.to_owned(),
        scope: Scope::Context("sleep".to_owned()),
        strength: 1.0,
        effect: Effect::Learn,
        action: Action::Exclude,
        create_time_us: 5,
        expire_time_us: None,
        note: String::new(),
    }
}

fn create(user: &str, rule: Rule) -> Write {
    Write::CreateRule {
        user: user.to_owned(),
        rule,
    }
}

#[test]
fn every_field_out_of_its_limits_is_named() {
    let (_directory, store) = open(&StoreOptions::default());
    let long = "x".repeat(129);
    let bad_event = |change: &dyn Fn(&mut Event)| {
        let mut bad = event("e1", 0);
        change(&mut bad);
        append("u", vec![event("e0", 0), bad])
    };
    let bad_rule = |change: &dyn Fn(&mut Rule)| {
        let mut bad = rule("r");
        change(&mut bad);
        create("u", bad)
    };
    let window = |start_us, end_us| Scope::Window { start_us, end_us };
    let delete = |rule_id: &str| Write::DeleteRule {
        user: "u".to_owned(),
        rule_id: rule_id.to_owned(),
        allow_missing: true,
    };
    let cases: Vec<(Write, &str)> = vec![
        (
            append("", vec![event("e", 0)]),
            "user_id: must not be empty",
        ),
        (
            append(&long, vec![event("e", 0)]),
            "user_id: has 129 bytes, at most 128 are allowed",
        ),
        (append("u", vec![]), "events: must not be empty"),
        (
            append("u", (0..1_001).map(|n| event(&n.to_string(), 0)).collect()),
            "events: holds 1001 elements, at most 1000 are allowed",
        ),
        (
            bad_event(&|e| e.event_id.clear()),
            "events[1].event_id: must not be empty",
        ),
        (
            bad_event(&|e| e.item = long.clone()),
            "events[1].item_id: has 129 bytes",
        ),
        (
            bad_event(&|e| e.context = Some(String::new())),
            "events[1].context: must not be empty",
        ),
        (
            bad_event(&|e| e.session = Some(long.clone())),
            "events[1].session_id: has 129 bytes",
        ),
        (
            bad_event(&|e| e.time_us = i64::MAX),
            "events[1].event_time: 9223372036854775807 is outside",
        ),
        (
            bad_event(&|e| e.played_ms = Some(-1)),
            "events[1].played_ms: -1 is outside 0 to",
        ),
        (
            bad_event(&|e| e.count = 0),
            "events[1].count: 0 is outside 1 to 1000000000",
        ),
        (
            bad_event(&|e| e.count = 1_000_000_001),
            "events[1].count: 1000000001 is outside",
        ),
        (
            bad_rule(&|r| r.rule_id.clear()),
            "exclusion.rule_id: must not be empty",
        ),
        (
            bad_rule(&|r| r.scope = Scope::Tag(String::new())),
            "exclusion.scope.tag: must not be empty",
        ),
        (
            bad_rule(&|r| r.scope = Scope::Item(long.clone())),
            "exclusion.scope.item_id: has 129",
        ),
        (
            bad_rule(&|r| r.scope = window(Some(3), Some(3))),
            "exclusion.scope.window: must end after",
        ),
        (
            bad_rule(&|r| r.scope = window(Some(i64::MIN), None)),
            "exclusion.scope.window.start_time: -9223372036854775808 is outside",
        ),
        (
            bad_rule(&|r| r.strength = f32::NAN),
            "exclusion.strength: NaN is not a number from 0 to 1",
        ),
        (
            bad_rule(&|r| r.strength = -0.1),
            "exclusion.strength: -0.1 is not a number from 0 to 1",
        ),
        (
            bad_rule(&|r| r.strength = 1.5),
            "exclusion.strength: 1.5 is not a number from 0 to 1",
        ),
        (
            bad_rule(&|r| (r.strength, r.effect) = (0.5, Effect::Both)),
            "exclusion.strength: 0.5 is not 1",
        ),
        (
            bad_rule(&|r| (r.strength, r.action) = (0.5, Action::Include)),
            "exclusion.strength: 0.5 is not 1",
        ),
        (
            bad_rule(&|r| r.expire_time_us = Some(5)),
            "exclusion.expire_time: must be after",
        ),
        (
            bad_rule(&|r| r.note = "x".repeat(257)),
            "exclusion.note: has 257 bytes",
        ),
        (delete(""), "rule_id: must not be empty"),
    ];
    for (write, complaint) in cases {
        let error = store.write(write.clone()).unwrap_err();
        assert!(
            matches!(error, StoreError::Invalid(_)),
            "{write:?}: {error:?}"
        );
        assert!(
            error.to_string().starts_with(complaint),
            "{complaint} / {error}"
        );
    }
    assert_eq!(store.profile("u").unwrap().revision, 0, "nothing was taken");
    assert!(matches!(store.profile(""), Err(StoreError::Invalid(_))));
    assert!(matches!(store.profile(&long), Err(StoreError::Invalid(_))));
}

#[test]
fn ids_of_any_utf8_are_kept_apart() {
    let (directory, store) = open(&StoreOptions::default());
    let users = ["\0", "\0\0", "a", "a\0", &"é".repeat(64), "\u{10ffff}"];
    for user in users {
        for id in users {
            store.write(append(user, vec![event(id, 3)])).unwrap();
        }
    }
    drop(store);
    let path = directory.path().join("profiles.redb");
    let store = RedbStore::open(&path, &StoreOptions::default()).unwrap();
    for user in users {
        let profile = store.profile(user).unwrap();
        let ids: Vec<&str> = profile
            .events
            .iter()
            .map(|event| event.event_id.as_str())
            .collect();
        assert_eq!(ids, users);
        assert_eq!(profile.revision, 6);
    }
}

#[test]
fn exclude_and_undo_is_the_identity() {
    let (_directory, store) = open(&StoreOptions::default());
    store
        .write(append("u", vec![event("e1", 1), event("e2", 2)]))
        .unwrap();
    let before = store.profile("u").unwrap();
    store.write(create("u", rule("r"))).unwrap();
    assert_eq!(store.profile("u").unwrap().rules.len(), 1);
    let undo = Write::DeleteRule {
        user: "u".to_owned(),
        rule_id: "r".to_owned(),
        allow_missing: false,
    };
    assert_eq!(store.write(undo).unwrap().revision, 3);
    let after = store.profile("u").unwrap();
    assert_eq!(
        (&after.events, &after.rules),
        (&before.events, &before.rules)
    );
}

#[test]
fn a_retried_rule_keeps_its_first_creation_time() {
    let (_directory, store) = open(&StoreOptions::default());
    store.write(create("u", rule("r"))).unwrap();
    let again = store
        .write(create(
            "u",
            Rule {
                create_time_us: 9,
                ..rule("r")
            },
        ))
        .unwrap();
    assert_eq!((again.revision, again.rule), (1, Some(rule("r"))));
}

#[test]
fn a_profile_takes_no_more_rules_than_allowed() {
    let (_directory, store) = open(&StoreOptions::default());
    let (outcome, outcomes) = mpsc::channel();
    for n in 0..MAX_RULES_PER_USER {
        let outcome = outcome.clone();
        let done = move |result: Result<_, _>| outcome.send(result.is_ok()).unwrap();
        store.submit(create("u", rule(&format!("r{n}"))), Box::new(done));
    }
    drop(outcome);
    assert!(outcomes.iter().all(|made| made));
    let error = store.write(create("u", rule("one more"))).unwrap_err();
    assert!(
        matches!(
            error,
            StoreError::TooManyRules {
                limit: MAX_RULES_PER_USER
            }
        ),
        "{error}"
    );
    store.write(create("another", rule("r"))).unwrap();
    assert_eq!(
        store.profile("u").unwrap().rules.len(),
        MAX_RULES_PER_USER as usize
    );
}

/// Readers hammer a profile while it is written; whoever has seen an acknowledgement never reads
/// anything older.
#[test]
fn reads_are_never_older_than_acknowledged_writes() {
    const WRITES: u64 = 300;
    let (_directory, store) = open(&StoreOptions::default());
    let acknowledged = AtomicU64::new(0);
    let finished = AtomicBool::new(false);
    let ready = Barrier::new(3);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                ready.wait();
                while !finished.load(Ordering::Acquire) {
                    let least = acknowledged.load(Ordering::Acquire);
                    let profile = store.profile("u").unwrap();
                    assert!(profile.revision >= least, "{} < {least}", profile.revision);
                    assert_eq!(profile.events.len() as u64, profile.revision);
                }
            });
        }
        ready.wait();
        for n in 0..WRITES {
            let receipt = store
                .write(append("u", vec![event(&n.to_string(), 0)]))
                .unwrap();
            acknowledged.store(receipt.revision, Ordering::Release);
            assert_eq!(store.profile("u").unwrap().revision, n + 1);
        }
        finished.store(true, Ordering::Release);
    });
}

#[test]
fn a_full_queue_refuses_and_recovers() {
    let options = StoreOptions {
        max_waiting: 1_001,
        ..StoreOptions::default()
    };
    let (_directory, store) = open(&options);
    // The first write's completion holds the writer until it is told to go on.
    let (release, held) = mpsc::channel::<()>();
    let (entered, inside) = mpsc::channel();
    let hold = move |_| {
        entered.send(()).unwrap();
        held.recv().unwrap();
    };
    store.submit(append("u", vec![event("first", 0)]), Box::new(hold));
    inside.recv().unwrap();

    let (outcome, outcomes) = mpsc::channel();
    for n in 0..3 {
        let events = (0..499).map(|m| event(&format!("{n}-{m}"), 0)).collect();
        let outcome = outcome.clone();
        let done = move |result: Result<_, _>| outcome.send((n, result.map(|_| ()))).unwrap();
        store.submit(append("u", events), Box::new(done));
    }
    drop(outcome);
    let (refused, result) = outcomes.recv().unwrap();
    assert_eq!(refused, 2, "two of 500 fit into 1,001");
    assert!(matches!(result, Err(StoreError::Busy)));
    release.send(()).unwrap();
    assert!(outcomes.iter().all(|(_, result)| result.is_ok()));
    store
        .write(append(
            "u",
            (0..1_000).map(|n| event(&n.to_string(), 0)).collect(),
        ))
        .unwrap();
    assert_eq!(
        store.profile("u").unwrap().events.len(),
        1 + 2 * 499 + 1_000
    );
}

#[test]
fn a_completion_that_panics_harms_nobody() {
    let (_directory, store) = open(&StoreOptions::default());
    let panics = |_| std::panic::resume_unwind(Box::new("a careless completion"));
    store.submit(append("u", vec![event("e1", 0)]), Box::new(panics));
    store.write(append("u", vec![event("e2", 0)])).unwrap();
    assert_eq!(store.profile("u").unwrap().revision, 2);
}

#[test]
fn dropping_the_store_makes_durable_what_waits() {
    let (directory, store) = open(&StoreOptions::default());
    let acknowledged = Arc::new(AtomicU64::new(0));
    for n in 0..200 {
        let acknowledged = Arc::clone(&acknowledged);
        let done = move |result: Result<_, _>| {
            acknowledged.fetch_add(u64::from(result.is_ok()), Ordering::Relaxed);
        };
        store.submit(append("u", vec![event(&n.to_string(), 0)]), Box::new(done));
    }
    drop(store);
    assert_eq!(acknowledged.load(Ordering::Relaxed), 200);
    let path = directory.path().join("profiles.redb");
    let store = RedbStore::open(&path, &StoreOptions::default()).unwrap();
    assert_eq!(store.profile("u").unwrap().revision, 200);
}

#[test]
fn the_last_reference_may_go_inside_a_completion() {
    let (directory, store) = open(&StoreOptions::default());
    let store = Arc::new(store);
    let (gone, wait) = mpsc::channel();
    let last = Arc::clone(&store);
    let done = move |result: Result<_, _>| {
        drop(last);
        gone.send(result.is_ok()).unwrap();
    };
    store.submit(append("u", vec![event("e", 0)]), Box::new(done));
    drop(store);
    assert!(wait.recv().unwrap());
    drop(directory);
}

#[test]
fn a_full_profile_keeps_the_events_that_serving_rules_know_their_items_by() {
    let options = StoreOptions {
        max_events_per_user: 32,
        ..StoreOptions::default()
    };
    let (_directory, store) = open(&options);
    let banned = Event {
        context: Some("banned".to_owned()),
        ..event("first", 0)
    };
    store.write(append("u", vec![banned])).unwrap();
    let never_shown = Rule {
        scope: Scope::Context("banned".to_owned()),
        effect: Effect::Serve,
        ..rule("r")
    };
    store.write(create("u", never_shown)).unwrap();
    for n in 1..200 {
        store
            .write(append("u", vec![event(&format!("e{n}"), n)]))
            .unwrap();
    }
    let profile = store.profile("u").unwrap();
    assert!(profile.events.len() <= 32);
    assert!(profile.events.iter().any(|event| event.event_id == "first"));
    assert!(!profile.events.iter().any(|event| event.event_id == "e1"));
}

#[test]
fn an_import_is_many_appends_and_can_be_repeated() {
    let options = StoreOptions {
        max_events_per_user: 16,
        ..StoreOptions::default()
    };
    let (_directory, store) = open(&options);
    let log = || {
        (0..6_000u32).map(|user| {
            let events = (0..10).map(|n| event(&format!("e{n}"), n)).collect();
            (format!("u{user}"), events)
        })
    };
    store.profile("u7").unwrap();
    let first = store.import(log()).unwrap();
    let expected = ImportReport {
        users: 6_000,
        appended: 60_000,
        transactions: 2,
        ..first
    };
    assert_eq!(first, expected);
    assert_eq!((first.duplicates, first.dropped), (0, 0));
    assert_eq!(
        store.profile("u7").unwrap().events.len(),
        10,
        "not what was cached before"
    );
    let again = store.import(log()).unwrap();
    assert_eq!((again.appended, again.duplicates), (0, 60_000));
    assert_eq!(store.profile("u7").unwrap().revision, 1);

    let full = (0..100)
        .map(|n| event(&format!("late{n}"), 100 + n))
        .collect();
    let report = store.import([("u7".to_owned(), full)]).unwrap();
    assert_eq!(report.dropped, 10 + 100 - 15);
    assert_eq!(store.profile("u7").unwrap().events.len(), 15);

    let mut other = event("e3", 99);
    other.item = "i2".to_owned();
    let bad = [
        ("new".to_owned(), vec![event("e", 0)]),
        ("u8".to_owned(), vec![other]),
    ];
    let error = store.import(bad).unwrap_err();
    assert_eq!((error.position, error.user.as_str()), (1, "u8"));
    assert!(matches!(
        error.source,
        StoreError::EventConflict { position: 0, .. }
    ));
    assert_eq!(
        store.profile("new").unwrap().revision,
        0,
        "a transaction is taken or not"
    );
}

fn erase(user: &str) -> Write {
    Write::Erase {
        user: user.to_owned(),
    }
}

#[test]
fn what_is_erased_is_gone_from_the_file_once_it_is_compacted() {
    let (directory, store) = open(&StoreOptions::default());
    let path = directory.path().join("profiles.redb");
    let secret = Event {
        item: "a-very-secret-item".to_owned(),
        ..event("a-very-secret-event", 1)
    };
    store
        .write(append("a-very-secret-user", vec![secret]))
        .unwrap();
    store
        .write(create("a-very-secret-user", rule("r")))
        .unwrap();
    store.write(append("other", vec![event("e", 1)])).unwrap();
    store.write(create("other", rule("r"))).unwrap();
    let erased = store.write(erase("a-very-secret-user")).unwrap().erased;
    let erased = erased.unwrap();
    assert_eq!((erased.revision, erased.events, erased.rules), (2, 1, 1));
    assert_eq!(
        store
            .residue("a-very-secret-user", erased.revision)
            .unwrap(),
        0
    );
    assert_eq!(
        *store.profile("a-very-secret-user").unwrap(),
        Profile::default()
    );
    assert!(
        RedbStore::compact(&path, &CompactOptions::default()).is_err(),
        "it is open"
    );
    let other = store.profile("other").unwrap();
    drop(store);

    let report = RedbStore::compact(&path, &CompactOptions::default()).unwrap();
    assert_eq!(
        (report.users, report.events, report.rules, report.dropped),
        (1, 1, 1, 0)
    );
    let bytes = fs_err::read(&path).unwrap();
    assert!(!bytes.windows(13).any(|at| at == b"a-very-secret"));
    assert_eq!(report.bytes_after, bytes.len() as u64);
    let store = RedbStore::open(&path, &StoreOptions::default()).unwrap();
    assert_eq!(*store.profile("other").unwrap(), *other);
    // The floor is kept: no revision comes again.
    let again = store.write(append("a-very-secret-user", vec![event("e", 1)]));
    assert_eq!(again.unwrap().revision, 3);
}

#[test]
fn compaction_drops_old_events_but_not_what_serving_rules_need() {
    let (directory, store) = open(&StoreOptions::default());
    let path = directory.path().join("profiles.redb");
    let banned = Event {
        context: Some("banned".to_owned()),
        ..event("witness", 1)
    };
    let events = vec![banned, event("old", 2), event("new", 100)];
    store.write(append("u", events)).unwrap();
    let never_shown = Rule {
        scope: Scope::Context("banned".to_owned()),
        effect: Effect::Serve,
        ..rule("r")
    };
    store.write(create("u", never_shown)).unwrap();
    store.write(append("v", vec![event("new", 100)])).unwrap();
    drop(store);
    let options = CompactOptions {
        drop_before_us: Some(50),
    };
    assert_eq!(RedbStore::compact(&path, &options).unwrap().dropped, 1);
    let store = RedbStore::open(&path, &StoreOptions::default()).unwrap();
    let profile = store.profile("u").unwrap();
    let ids: Vec<&str> = profile
        .events
        .iter()
        .map(|event| event.event_id.as_str())
        .collect();
    assert_eq!(ids, ["witness", "new"]);
    assert_eq!(profile.revision, 3, "it has changed");
    assert_eq!(store.profile("v").unwrap().revision, 1, "it has not");
}

#[test]
fn a_million_plays_of_one_context_end_in_a_bounded_profile() {
    let options = StoreOptions {
        max_events_per_user: 2_000,
        ..StoreOptions::default()
    };
    let (_directory, store) = open(&options);
    // A count stands for so many plays: what a client that plays a loop for years should send.
    let many = Event {
        count: 1_000_000,
        ..event("loop", 1)
    };
    store.write(append("u", vec![many])).unwrap();
    let mut dropped = 0;
    for chunk in 0..10 {
        let events = (0..1_000)
            .map(|n| event(&format!("{chunk}-{n}"), 2 + chunk))
            .collect();
        dropped += store.write(append("u", events)).unwrap().dropped;
    }
    let kept = store.profile("u").unwrap().events.len();
    assert!(kept <= 2_000);
    assert_eq!(kept + dropped as usize, 10_001);
}
