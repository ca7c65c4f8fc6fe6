//! What every profile store must do: random operations against a model, with restarts between.
//!
//! `run` takes any way to make a place and to open a store there, so that each implementation passes the
//! same suite.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::mpsc;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::TestRunner;
use refrain_taste::{
    Effect, Erased, Event, EventKind, Profile, ProfileStore, Receipt, RedbStore, Rule, Scope,
    StoreError, StoreOptions, Write,
};

use crate::random;

/// Events a profile of the suite may hold: few, so that profiles overflow.
pub(crate) const MAX_EVENTS: u32 = 32;

#[test]
fn redb_store_conforms() {
    let options = StoreOptions {
        max_events_per_user: MAX_EVENTS,
        ..StoreOptions::default()
    };
    let place = || tempfile::tempdir().unwrap();
    run(200, place, |directory| {
        RedbStore::open(&directory.path().join("profiles"), &options).unwrap()
    });
}

/// Runs `cases` random sequences on stores that `open` makes of, or finds in, a new place.
pub(crate) fn run<P, S: ProfileStore>(
    cases: u32,
    new_place: impl Fn() -> P,
    open: impl Fn(&P) -> S,
) {
    let config = ProptestConfig {
        cases,
        failure_persistence: None,
        max_shrink_iters: 500,
        ..ProptestConfig::default()
    };
    TestRunner::new(config)
        .run(&vec(operation(), 1..25), |operations| {
            let place = new_place();
            let mut store = Some(open(&place));
            let mut model = Model::default();
            for operation in operations {
                match operation {
                    Operation::Reopen => {
                        drop(store.take());
                        store = Some(open(&place));
                    }
                    Operation::Writes(writes) => check_writes(&store, &mut model, writes)?,
                }
                for user in USERS {
                    let found = store.as_ref().unwrap().profile(user).unwrap();
                    prop_assert_eq!(&*found, &model.profile(user), "profile of {}", user);
                }
            }
            // What a visit of all finds, and what is there of each, is what the model has.
            let store = store.as_ref().unwrap();
            let mut visited = Vec::new();
            store
                .for_each(&mut |user, profile| {
                    visited.push((user.to_owned(), profile.clone()));
                    ControlFlow::Continue(())
                })
                .unwrap();
            let mut expected: Vec<(String, Profile)> = Vec::new();
            for user in USERS {
                let profile = model.profile(user);
                let records = profile.events.len() + profile.rules.len();
                let there = profile.revision > 0;
                let residue = records as u64 + u64::from(there);
                prop_assert_eq!(
                    store.residue(user, u64::MAX).unwrap(),
                    residue,
                    "residue of {}",
                    user
                );
                // Nothing that began after an erasure belongs to what was erased.
                let erased = profile.revision.saturating_sub(1);
                prop_assert_eq!(
                    store.residue(user, erased).unwrap(),
                    0,
                    "begun after {}",
                    erased
                );
                if there {
                    expected.push((user.to_owned(), profile));
                }
            }
            prop_assert_eq!(visited, expected);
            Ok(())
        })
        .unwrap();
}

/// Submits writes at once, so that they may share a transaction, and compares every outcome.
fn check_writes<S: ProfileStore>(
    store: &Option<S>,
    model: &mut Model,
    writes: Vec<Write>,
) -> Result<(), TestCaseError> {
    let store = store.as_ref().unwrap();
    let (outcome, outcomes) = mpsc::channel();
    for (n, write) in writes.iter().enumerate() {
        let outcome = outcome.clone();
        let done = move |result| outcome.send((n, result)).unwrap();
        store.submit(write.clone(), Box::new(done));
    }
    drop(outcome);
    let found: BTreeMap<usize, Result<Receipt, StoreError>> = outcomes.iter().collect();
    prop_assert_eq!(found.len(), writes.len());
    for ((_, found), write) in found.into_iter().zip(writes) {
        let expected = model.write(&write);
        prop_assert_eq!(
            found.map_err(|error| error.to_string()),
            expected,
            "{:?}",
            write
        );
    }
    Ok(())
}

const USERS: [&str; 3] = ["u", "u\0", "é"];

#[derive(Debug, Clone)]
enum Operation {
    Reopen,
    Writes(Vec<Write>),
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        1 => Just(Operation::Reopen),
        12 => vec(write(), 1..5).prop_map(Operation::Writes),
    ]
}

fn write() -> impl Strategy<Value = Write> {
    let user = || proptest::sample::select(&USERS).prop_map(str::to_owned);
    // Ids come from few, so that retries and conflicts happen; the content is a function of the id
    // but for a rare twist.
    let event = (0..90u8, proptest::bool::weighted(0.02)).prop_map(|(n, twisted)| Event {
        event_id: format!("{n}"),
        item: format!("i{}", n % 8),
        time_us: i64::from(n / 2) * if twisted { -1 } else { 1 },
        kind: EventKind::ALL[usize::from(n) % 7],
        played_ms: (n % 3 == 0).then_some(i64::from(n)),
        context: (n % 4 == 0).then(|| "c".repeat(usize::from(n) % 128 + 1)),
        session: (n % 5 == 0).then(|| "\u{1f3b5}".to_owned()),
        count: 1 + u32::from(n),
    });
    let rule = (0..6u8, random::scope(), any::<Index>(), 0..100i64).prop_map(
        |(n, scope, effect, create_time_us)| Rule {
            rule_id: format!("r{n}"),
            // Most often one scope an id, so that retries happen.
            scope: match n {
                0..4 => Scope::Tag(format!("t{n}")),
                _ => scope,
            },
            strength: 1.0,
            effect: [Effect::Learn, Effect::Both][effect.index(2)],
            action: refrain_taste::Action::Exclude,
            create_time_us,
            expire_time_us: None,
            note: "note".repeat(usize::from(n)),
        },
    );
    prop_oneof![
        1 => user().prop_map(|user| Write::Erase { user }),
        12 => (user(), vec(event, 0..12)).prop_map(|(user, events)| Write::Append { user, events }),
        4 => (user(), rule).prop_map(|(user, rule)| Write::CreateRule { user, rule }),
        4 => (user(), 0..6u8, any::<bool>()).prop_map(|(user, n, allow_missing)| {
            Write::DeleteRule { user, rule_id: format!("r{n}"), allow_missing }
        }),
    ]
}

/// Profiles as maps; outcomes as receipts or the text of the error.
#[derive(Default)]
struct Model {
    users: BTreeMap<String, User>,
    /// The largest revision of an erased profile.
    floor: u64,
}

#[derive(Default)]
struct User {
    revision: u64,
    floor: u64,
    events: BTreeMap<String, Event>,
    rules: BTreeMap<String, Rule>,
}

impl Model {
    fn profile(&self, user: &str) -> Profile {
        self.users.get(user).map_or_else(Profile::default, |user| {
            let events: BTreeSet<Event> = user.events.values().cloned().collect();
            let mut rules: Vec<Rule> = user.rules.values().cloned().collect();
            rules.sort_by_key(|rule| (rule.create_time_us, rule.rule_id.clone()));
            Profile {
                revision: user.revision,
                events: events.into_iter().collect(),
                rules,
            }
        })
    }

    fn write(&mut self, write: &Write) -> Result<Receipt, String> {
        let user = self.users.entry(write.user().to_owned()).or_default();
        user.floor = self.floor;
        match write {
            Write::Erase { .. } => {
                let erased = Erased {
                    revision: user.revision,
                    events: u32::try_from(user.events.len()).unwrap(),
                    rules: u32::try_from(user.rules.len()).unwrap(),
                };
                self.floor = self.floor.max(user.revision);
                *user = User::default();
                Ok(Receipt {
                    erased: Some(erased),
                    ..Receipt::default()
                })
            }
            Write::Append { events, .. } => user.append(events),
            Write::CreateRule { rule, .. } => user.create_rule(rule),
            Write::DeleteRule {
                rule_id,
                allow_missing,
                ..
            } => {
                if user.rules.remove(rule_id).is_some() {
                    user.advance();
                } else if !allow_missing {
                    return Err(format!("there is no rule {rule_id:?}"));
                }
                Ok(Receipt {
                    revision: user.revision,
                    ..Receipt::default()
                })
            }
        }
    }
}

/// Whether a rule forbids to show what it knows by this event only.
fn is_witness(rule: &Rule, event: &Event) -> bool {
    rule.effect != Effect::Learn
        && match &rule.scope {
            Scope::Context(context) => event.context.as_ref() == Some(context),
            Scope::Session(session) => event.session.as_ref() == Some(session),
            Scope::Window { start_us, end_us } => {
                event.time_us >= start_us.unwrap_or(i64::MIN)
                    && end_us.is_none_or(|end_us| event.time_us < end_us)
            }
            Scope::Item(_) | Scope::Artist(_) | Scope::Tag(_) => false,
        }
}

impl User {
    fn advance(&mut self) {
        self.revision = match self.revision {
            0 => self.floor + 1,
            revision => revision + 1,
        };
    }

    fn append(&mut self, events: &[Event]) -> Result<Receipt, String> {
        if events.is_empty() {
            return Err("events: must not be empty".to_owned());
        }
        let mut receipt = Receipt::default();
        let mut after = self.events.clone();
        for (position, event) in events.iter().enumerate() {
            match after.insert(event.event_id.clone(), event.clone()) {
                None => receipt.appended += 1,
                Some(earlier) if earlier == *event => receipt.duplicates += 1,
                Some(_) => {
                    let id = &event.event_id;
                    return Err(format!(
                        "events[{position}]: event {id:?} exists with other content"
                    ));
                }
            }
        }
        if after.len() > MAX_EVENTS as usize {
            // 15/16 of the most remain: 30 of 32.
            while after.len() > 30 {
                let first = after.values().min_by_key(|event| {
                    let said = !matches!(
                        event.kind,
                        EventKind::Play | EventKind::Complete | EventKind::Skip
                    );
                    let unlike = event.kind == EventKind::Unlike;
                    let witness = self.rules.values().any(|rule| is_witness(rule, event));
                    (witness, said, event.time_us, unlike, event.event_id.clone())
                });
                let first = first.unwrap().event_id.clone();
                after.remove(&first);
                receipt.dropped += 1;
            }
        }
        self.events = after;
        if receipt.appended > 0 {
            self.advance();
        }
        receipt.revision = self.revision;
        Ok(receipt)
    }

    fn create_rule(&mut self, rule: &Rule) -> Result<Receipt, String> {
        let revision = self.revision;
        if let Some(stored) = self.rules.get(&rule.rule_id) {
            let retried = Rule {
                create_time_us: stored.create_time_us,
                ..rule.clone()
            };
            if retried != *stored {
                return Err(format!("rule {:?} exists with other content", rule.rule_id));
            }
            let rule = Some(stored.clone());
            return Ok(Receipt {
                revision,
                rule,
                ..Receipt::default()
            });
        }
        self.rules.insert(rule.rule_id.clone(), rule.clone());
        self.advance();
        let rule = Some(rule.clone());
        Ok(Receipt {
            revision: self.revision,
            rule,
            ..Receipt::default()
        })
    }
}
