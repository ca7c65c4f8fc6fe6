//! The watcher against a store that is a map.

use std::collections::BTreeMap;
use std::sync::Mutex;

use super::*;
use crate::refusal::{Precondition, Refusal, Resource, Unavailable};
use crate::versions::{Mapped, Wanted};

#[derive(Debug)]
struct Fake {
    id: String,
    delta: u64,
}

impl Mapped for Fake {
    fn id(&self) -> &str {
        &self.id
    }
    fn items(&self) -> u64 {
        10
    }
    fn bytes(&self) -> u64 {
        100
    }
    fn delta(&self) -> u64 {
        self.delta
    }
}

#[derive(Default)]
struct World {
    labels: BTreeMap<String, Pointer>,
    refused: BTreeMap<String, Refused>,
    away: bool,
    room: Option<u64>,
    loads: Vec<String>,
    moves: u32,
    /// Deltas of each version, and why the next one is refused.
    deltas: BTreeMap<String, u64>,
    refused_delta: Option<String>,
    in_use: Vec<String>,
}

#[derive(Clone, Default)]
struct FakeStore(Arc<Mutex<World>>);

impl FakeStore {
    fn world<T>(&self, change: impl FnOnce(&mut World) -> T) -> T {
        change(&mut self.0.lock().unwrap())
    }

    fn point(&self, label: &str, version: &str) {
        self.world(|world| {
            world.moves += 1;
            let pointer = Pointer {
                version: version.into(),
                etag: world.moves.to_string(),
            };
            world.labels.insert(label.into(), pointer);
        });
    }

    fn loads(&self) -> Vec<String> {
        self.world(|world| world.loads.clone())
    }
}

impl Source for FakeStore {
    type Version = Fake;

    fn label(&self, name: &str) -> Result<Option<Pointer>, String> {
        self.world(|world| {
            if world.away {
                Err("no such directory".into())
            } else {
                Ok(world.labels.get(name).cloned())
            }
        })
    }
    fn bytes(&self, _: &str) -> Result<u64, Refused> {
        Ok(100)
    }
    fn load(&self, version: &str) -> Result<Fake, Refused> {
        self.world(|world| {
            world.loads.push(version.into());
            match world.refused.get(version) {
                Some(refused) => Err(refused.clone()),
                None => Ok(Fake {
                    id: version.into(),
                    delta: world.deltas.get(version).copied().unwrap_or(0),
                }),
            }
        })
    }
    fn freshen(&self, version: &Fake) -> Result<Option<Fake>, Refused> {
        self.world(|world| {
            if let Some(message) = world.refused_delta.clone() {
                return Err(Refused {
                    message,
                    transient: true,
                });
            }
            let last = world.deltas.get(&version.id).copied().unwrap_or(0);
            Ok((last > version.delta).then(|| Fake {
                id: version.id.clone(),
                delta: last,
            }))
        })
    }
    fn in_use(&self, versions: &[&str]) {
        self.world(|world| world.in_use = versions.iter().map(|id| (*id).to_owned()).collect());
    }
    fn room(&self) -> Option<u64> {
        self.world(|world| world.room)
    }
}

fn watch(labels: &[&str]) -> (FakeStore, Watcher<FakeStore>, Arc<Versions<Fake>>) {
    let store = FakeStore::default();
    let labels: Vec<String> = labels.iter().map(|&label| label.to_owned()).collect();
    let metrics = Arc::new(Metrics::new("scalar"));
    let (watcher, versions) =
        Watcher::new(store.clone(), &labels, Duration::from_millis(500), metrics);
    (store, watcher, versions)
}

fn served(versions: &Versions<Fake>, wanted: Wanted<'_>) -> String {
    versions.select(wanted).expect("a version").id.clone()
}

fn resident(versions: &Versions<Fake>) -> Vec<String> {
    versions
        .table()
        .resident()
        .map(|version| version.id.clone())
        .collect()
}

#[test]
fn a_label_that_appears_is_picked_up() {
    let (store, mut watcher, versions) = watch(&["stable"]);
    watcher.look();
    let refusal = versions.select(Wanted::Default).expect_err("nothing yet");
    assert!(
        matches!(
            refusal,
            Refusal::Unavailable {
                reason: Unavailable::NoVersion,
                ..
            }
        ),
        "{refusal:?}"
    );
    store.point("stable", "v1");
    watcher.look();
    assert_eq!(served(&versions, Wanted::Default), "v1");
    assert_eq!(served(&versions, Wanted::Label("stable")), "v1");
    assert_eq!(served(&versions, Wanted::Version("v1")), "v1");
    assert!(matches!(
        versions.select(Wanted::Label("canary")),
        Err(Refusal::NotFound {
            kind: Resource::Label,
            ..
        })
    ));
    assert!(matches!(
        versions.select(Wanted::Version("v2")),
        Err(Refusal::Precondition {
            reason: Precondition::VersionNotResident,
            ..
        })
    ));
}

#[test]
fn a_rollback_loads_nothing() {
    let (store, mut watcher, versions) = watch(&["stable"]);
    for version in ["v1", "v2", "v1", "v2"] {
        store.point("stable", version);
        watcher.look();
        assert_eq!(served(&versions, Wanted::Default), version);
    }
    assert_eq!(store.loads(), ["v1", "v2"]);
    store.point("stable", "v3");
    watcher.look();
    assert_eq!(
        resident(&versions),
        ["v3", "v2"],
        "two versions stay, the oldest goes"
    );
    assert!(versions.select(Wanted::Version("v1")).is_err());
}

#[test]
fn a_request_keeps_its_version_until_it_is_done() {
    let (store, mut watcher, versions) = watch(&["stable"]);
    store.point("stable", "v1");
    watcher.look();
    let held = versions.select(Wanted::Default).expect("v1");
    for version in ["v2", "v3"] {
        store.point("stable", version);
        watcher.look();
    }
    assert_eq!(held.id, "v1");
    assert_eq!(
        watcher.retired.len(),
        1,
        "the watcher waits for the request"
    );
    drop(held);
    watcher.look();
    assert!(watcher.retired.is_empty());
}

#[test]
fn a_refused_version_changes_nothing_until_the_label_moves() {
    let (store, mut watcher, versions) = watch(&["stable"]);
    store.point("stable", "v1");
    watcher.look();
    let refused = Refused {
        message: "checksum mismatch in index.rfs".into(),
        transient: false,
    };
    store.world(|world| world.refused.insert("v2".into(), refused));
    store.point("stable", "v2");
    for _ in 0..3 {
        watcher.look();
    }
    assert_eq!(served(&versions, Wanted::Default), "v1");
    let table = versions.table();
    assert_eq!(table.labels[0].wanted, "v2");
    assert_eq!(
        table.labels[0].refusal.as_deref(),
        Some("checksum mismatch in index.rfs")
    );
    assert_eq!(
        store.loads(),
        ["v1", "v2"],
        "a corrupt version is tried once"
    );
    store.point("stable", "v1");
    watcher.look();
    assert_eq!(versions.table().labels[0].refusal, None);
}

#[test]
fn what_may_pass_is_tried_again_ever_more_rarely() {
    let (store, mut watcher, versions) = watch(&["stable"]);
    let refused = Refused {
        message: "cannot be read".into(),
        transient: true,
    };
    store.world(|world| world.refused.insert("v1".into(), refused));
    store.point("stable", "v1");
    let start = Instant::now();
    let mut tries = Vec::new();
    for second in 0..=200 {
        let before = store.loads().len();
        watcher.look_at(start + Duration::from_secs(second));
        if store.loads().len() > before {
            tries.push(second);
        }
    }
    assert_eq!(tries, [0, 1, 3, 7, 15, 31, 63, 123, 183]);
    store.world(|world| world.refused.clear());
    watcher.look_at(start + Duration::from_secs(300));
    assert_eq!(served(&versions, Wanted::Default), "v1");
}

#[test]
fn a_store_that_vanishes_stops_nothing() {
    let (store, mut watcher, versions) = watch(&["stable"]);
    store.point("stable", "v1");
    watcher.look();
    store.world(|world| world.away = true);
    watcher.look();
    assert_eq!(served(&versions, Wanted::Default), "v1");
    store.world(|world| {
        world.away = false;
        world.labels.clear();
    });
    watcher.look();
    assert_eq!(
        served(&versions, Wanted::Default),
        "v1",
        "a label that is gone stops nothing"
    );
    store.point("stable", "v2");
    watcher.look();
    assert_eq!(served(&versions, Wanted::Default), "v2");
}

#[test]
fn short_memory_takes_the_earlier_version_first_and_then_refuses() {
    let (store, mut watcher, versions) = watch(&["stable"]);
    store.world(|world| world.room = Some(200));
    for version in ["v1", "v2", "v3"] {
        store.point("stable", version);
        watcher.look();
    }
    assert_eq!(
        resident(&versions),
        ["v3", "v2"],
        "v1 made room for v3, then v2 stayed as the one before"
    );
    store.world(|world| world.room = Some(199));
    store.point("stable", "v4");
    watcher.look();
    assert_eq!(served(&versions, Wanted::Default), "v3");
    let refusal = versions.table().labels[0].refusal.clone().expect("refused");
    assert!(refusal.contains("needs 100 bytes"), "{refusal}");
}

#[test]
fn labels_share_what_they_both_point_at() {
    let (store, mut watcher, versions) = watch(&["stable", "canary"]);
    store.point("stable", "v1");
    store.point("canary", "v1");
    watcher.look();
    assert_eq!(store.loads(), ["v1"]);
    store.point("canary", "v2");
    watcher.look();
    assert_eq!(served(&versions, Wanted::Label("canary")), "v2");
    assert_eq!(served(&versions, Wanted::Default), "v1");
    assert_eq!(
        Table::bytes(versions.table().resident()),
        200,
        "shared versions count once"
    );
}

#[test]
fn every_change_is_told() {
    let (store, mut watcher, versions) = watch(&["stable"]);
    let mut changes = versions.changes();
    assert!(!changes.has_changed().expect("open"));
    store.point("stable", "v1");
    watcher.look();
    assert!(changes.has_changed().expect("open"));
    changes.mark_unchanged();
    watcher.look();
    assert!(
        !changes.has_changed().expect("open"),
        "a look that finds nothing new changes nothing"
    );
}

#[test]
fn it_runs_until_stopped() {
    let (store, watcher, versions) = watch(&["stable"]);
    store.point("stable", "v1");
    versions.wake();
    versions.stop();
    watcher.run();
    assert_eq!(served(&versions, Wanted::Default), "v1");
}

#[test]
fn deltas_are_picked_up_without_a_swap() {
    let (store, mut watcher, versions) = watch(&["stable", "canary"]);
    store.point("stable", "v1");
    store.point("canary", "v1");
    watcher.look();
    store.point("stable", "v2");
    watcher.look();
    let delta = |wanted: Wanted<'_>| versions.select(wanted).expect("a version").delta;
    let since = || {
        versions.table().labels[0]
            .serving
            .as_ref()
            .expect("serves")
            .since_us
    };
    let (loads, began) = (store.loads(), since());
    let held = versions.select(Wanted::Default).expect("a version");

    store.world(|world| {
        world.deltas.insert("v2".into(), 2);
        world.deltas.insert("v1".into(), 1);
    });
    watcher.look();
    assert_eq!(delta(Wanted::Default), 2);
    assert_eq!(
        held.delta, 0,
        "a request finishes on the delta that it began with"
    );
    // The version before, too: pinned, served by another label, or rolled back to.
    assert_eq!(
        (delta(Wanted::Version("v1")), delta(Wanted::Label("canary"))),
        (1, 1)
    );
    assert_eq!((store.loads(), since()), (loads, began), "no swap");
    store.point("stable", "v1");
    watcher.look();
    assert_eq!(
        (
            served(&versions, Wanted::Default).as_str(),
            delta(Wanted::Default)
        ),
        ("v1", 1)
    );
    assert_eq!(
        versions.table().labels[0]
            .previous
            .as_ref()
            .expect("kept")
            .delta,
        2
    );
    let in_use = store.world(|world| world.in_use.clone());
    assert!(in_use.contains(&"v1".to_owned()) && in_use.contains(&"v2".to_owned()));
}

#[test]
fn a_refused_delta_changes_nothing_and_says_why() {
    let (store, mut watcher, versions) = watch(&["stable"]);
    store.point("stable", "v1");
    watcher.look();
    let refusal = || versions.table().labels[0].delta_refusal.clone();
    store.world(|world| world.refused_delta = Some("damaged".into()));
    watcher.look();
    assert_eq!(refusal().as_deref(), Some("damaged"));
    assert_eq!(served(&versions, Wanted::Default), "v1");
    store.world(|world| {
        world.refused_delta = None;
        world.deltas.insert("v1".into(), 1);
    });
    watcher.look();
    assert_eq!(refusal(), None);
    assert_eq!(
        versions.select(Wanted::Default).expect("a version").delta,
        1
    );
}
