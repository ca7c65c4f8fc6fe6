//! Which version answers for which label, and how that changes while requests run.
//!
//! # How it works
//! A [`Watcher`] looks at the labels of the store, every poll interval and when it is woken (a label
//! was moved through this server). When a label points elsewhere than before, the watcher makes room,
//! loads the version (open, verify, warm) and then replaces the [`Table`], one pointer. Requests take
//! the version from the table once and keep it alive: they finish on the version they began with, and
//! one answer never mixes two.
//!
//! # What holds
//! - A version that is refused (it does not verify, does not fit, answers its golden queries otherwise
//!   than when it was built) changes nothing: the old one goes on, and `GetServing`, the metrics and
//!   the log say why. A refusal for lack of memory or a failed read is tried again, ever more rarely; a
//!   corrupt version is not until the label moves.
//! - A store that cannot be read changes nothing.
//! - The version before stays mapped, so a rollback to it loads nothing; when memory is short it goes
//!   first.
//! - Unmapping happens on the watcher's thread, never on a request's.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::sync::watch;

use crate::metrics::Metrics;
use crate::refusal::{Precondition, Refusal, Resource, Unavailable};

/// First pause before a refused version is tried again; doubles up to [`LONGEST_RETRY`].
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LONGEST_RETRY: Duration = Duration::from_secs(60);

/// A version as far as this module needs to know it.
pub(crate) trait Mapped: Send + Sync + 'static {
    /// Version id.
    fn id(&self) -> &str;
    /// Items in it.
    fn items(&self) -> u64;
    /// Bytes of its files.
    fn bytes(&self) -> u64;
}

/// Where labels and versions come from.
pub(crate) trait Source: Send + 'static {
    /// What it loads.
    type Version: Mapped;

    /// Where a label points; `None` when there is no such label.
    fn label(&self, name: &str) -> Result<Option<Pointer>, String>;

    /// Bytes that loading the version will map.
    fn bytes(&self, version: &str) -> Result<u64, Refused>;

    /// Opens, verifies and warms a version.
    fn load(&self, version: &str) -> Result<Self::Version, Refused>;

    /// Bytes that may be mapped in all, or `None` when nobody knows.
    fn room(&self) -> Option<u64>;
}

/// A label as the store has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pointer {
    pub(crate) version: String,
    pub(crate) etag: String,
}

/// Why a version does not get to answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) message: String,
    /// Whether the same version may be fine later.
    pub(crate) transient: bool,
}

/// What answers at one moment. Never changed, only replaced.
#[derive(Debug)]
pub(crate) struct Table<V> {
    /// The watched labels, in the order of the configuration; the first is the default.
    pub(crate) labels: Vec<Label<V>>,
}

/// State of one watched label.
#[derive(Debug)]
pub(crate) struct Label<V> {
    pub(crate) name: String,
    pub(crate) serving: Option<Serving<V>>,
    /// The one that served before, still mapped.
    pub(crate) previous: Option<Arc<V>>,
    /// Version that the label points at; empty when there is no such label.
    pub(crate) wanted: String,
    /// Why `wanted` does not serve.
    pub(crate) refusal: Option<String>,
}

/// A version that answers.
#[derive(Debug)]
pub(crate) struct Serving<V> {
    pub(crate) version: Arc<V>,
    pub(crate) since_us: i64,
}

/// Which version a request wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted<'a> {
    /// Whatever the default label points at.
    Default,
    Label(&'a str),
    Version(&'a str),
}

/// The current table, as requests see it.
#[derive(Debug)]
pub(crate) struct Versions<V> {
    table: ArcSwap<Table<V>>,
    /// Bumped with every new table.
    generation: watch::Sender<u64>,
    wake: mpsc::Sender<Message>,
    poll_interval: Duration,
}

enum Message {
    Look,
    Stop,
}

impl<V: Mapped> Versions<V> {
    /// The version that answers such a request.
    pub(crate) fn select(&self, wanted: Wanted<'_>) -> Result<Arc<V>, Refusal> {
        let table = self.table.load();
        let label = match wanted {
            Wanted::Version(id) => {
                return table
                    .resident()
                    .find(|version| version.id() == id)
                    .cloned()
                    .ok_or_else(|| Refusal::Precondition {
                        reason: Precondition::VersionNotResident,
                        subject: id.to_owned(),
                        message: format!("version {id:?} is not loaded by this server"),
                    });
            }
            Wanted::Default => table.labels.first(),
            Wanted::Label(name) => Some(
                table
                    .labels
                    .iter()
                    .find(|label| label.name == name)
                    .ok_or_else(|| Refusal::NotFound {
                        kind: Resource::Label,
                        name: name.to_owned(),
                    })?,
            ),
        };
        label
            .and_then(|label| label.serving.as_ref())
            .map(|serving| Arc::clone(&serving.version))
            .ok_or_else(|| {
                let message =
                    label.map_or_else(|| "no label is watched".to_owned(), Label::complaint);
                Refusal::unavailable(Unavailable::NoVersion, message, self.poll_interval)
            })
    }

    /// What answers now.
    pub(crate) fn table(&self) -> Arc<Table<V>> {
        self.table.load_full()
    }

    /// Tells of every new table.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.generation.subscribe()
    }

    /// Has the watcher look at the store now.
    pub(crate) fn wake(&self) {
        // The watcher is gone only when the server stops.
        let _ = self.wake.send(Message::Look);
    }

    /// Ends the watcher's thread after the load that it may be busy with.
    pub(crate) fn stop(&self) {
        let _ = self.wake.send(Message::Stop);
    }
}

impl<V: Mapped> Table<V> {
    /// Every mapped version; one that two labels share comes twice.
    pub(crate) fn resident(&self) -> impl Iterator<Item = &Arc<V>> {
        self.labels.iter().flat_map(|label| {
            label
                .serving
                .iter()
                .map(|serving| &serving.version)
                .chain(&label.previous)
        })
    }

    /// Bytes of the versions that `which` keeps, each counted once.
    fn bytes<'a>(versions: impl Iterator<Item = &'a Arc<V>>) -> u64 {
        let by_id: BTreeMap<&str, u64> = versions
            .map(|version| (version.id(), version.bytes()))
            .collect();
        by_id.values().sum()
    }
}

impl<V> Label<V> {
    /// Why nothing answers for it.
    pub(crate) fn complaint(&self) -> String {
        match &self.refusal {
            Some(refusal) => format!(
                "version {:?} of label {:?} is refused: {refusal}",
                self.wanted, self.name
            ),
            None if self.wanted.is_empty() => {
                format!(
                    "label {:?} points at no version yet: publish one",
                    self.name
                )
            }
            None => format!(
                "version {:?} of label {:?} is being loaded",
                self.wanted, self.name
            ),
        }
    }
}

impl<V> Clone for Serving<V> {
    fn clone(&self) -> Self {
        Self {
            version: Arc::clone(&self.version),
            since_us: self.since_us,
        }
    }
}

impl<V> Clone for Label<V> {
    fn clone(&self) -> Self {
        Self {
            name: self.name.clone(),
            serving: self.serving.clone(),
            previous: self.previous.clone(),
            wanted: self.wanted.clone(),
            refusal: self.refusal.clone(),
        }
    }
}

/// Watches the labels and replaces the table. Lives on one thread, which owns all changes.
pub(crate) struct Watcher<S: Source> {
    source: S,
    versions: Arc<Versions<S::Version>>,
    metrics: Arc<Metrics>,
    inbox: mpsc::Receiver<Message>,
    states: Vec<State>,
    /// Replaced versions that requests may still hold.
    retired: Vec<Arc<S::Version>>,
    /// Whether the last look failed, so that a store that is away is told once and not at every look.
    blind: bool,
}

/// What the watcher remembers of a label between looks.
#[derive(Debug, Default)]
struct State {
    /// The label as it was when it was last acted upon.
    seen: Option<Pointer>,
    /// When a refused version is tried again, and the pause after that.
    retry: Option<(Instant, Duration)>,
}

impl<S: Source> Watcher<S> {
    /// Watches `labels` of `source`. Nothing is loaded before the first [`look`](Self::look).
    pub(crate) fn new(
        source: S,
        labels: &[String],
        poll_interval: Duration,
        metrics: Arc<Metrics>,
    ) -> (Self, Arc<Versions<S::Version>>) {
        let (wake, inbox) = mpsc::channel();
        let labels = labels
            .iter()
            .map(|name| Label {
                name: name.clone(),
                serving: None,
                previous: None,
                wanted: String::new(),
                refusal: None,
            })
            .collect::<Vec<_>>();
        let states = labels.iter().map(|_| State::default()).collect();
        let versions = Arc::new(Versions {
            table: ArcSwap::from_pointee(Table { labels }),
            generation: watch::Sender::new(0),
            wake,
            poll_interval,
        });
        let watcher = Self {
            source,
            versions: Arc::clone(&versions),
            metrics,
            inbox,
            states,
            retired: Vec::new(),
            blind: false,
        };
        (watcher, versions)
    }

    /// Looks until it is stopped. Blocks: give it a thread.
    pub(crate) fn run(mut self) {
        loop {
            match self.inbox.recv_timeout(self.versions.poll_interval) {
                Ok(Message::Look) | Err(mpsc::RecvTimeoutError::Timeout) => self.look(),
                Ok(Message::Stop) | Err(mpsc::RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Compares every label with what is served and acts on the difference.
    pub(crate) fn look(&mut self) {
        self.look_at(Instant::now());
    }

    fn look_at(&mut self, now: Instant) {
        self.retired
            .retain(|version| Arc::strong_count(version) > 1);
        for index in 0..self.states.len() {
            let name = match self.versions.table.load().labels.get(index) {
                Some(label) => label.name.clone(),
                None => continue,
            };
            match self.source.label(&name) {
                Ok(pointer) => {
                    if std::mem::take(&mut self.blind) {
                        tracing::info!(label = name, "the version store can be read again");
                    }
                    self.act(index, &name, pointer, now);
                }
                Err(error) => {
                    self.metrics.index.poll_failed();
                    if !std::mem::replace(&mut self.blind, true) {
                        tracing::warn!(
                            label = name,
                            error,
                            "the version store cannot be read; what is mapped goes on answering"
                        );
                    }
                }
            }
        }
    }

    fn act(&mut self, index: usize, name: &str, pointer: Option<Pointer>, now: Instant) {
        let Some(state) = self.states.get_mut(index) else {
            return;
        };
        let due = state.retry.is_some_and(|(at, _)| at <= now);
        if state.seen == pointer && !due {
            return;
        }
        if state.seen != pointer {
            state.retry = None;
        }
        state.seen.clone_from(&pointer);
        let Some(Pointer {
            version: wanted, ..
        }) = pointer
        else {
            // A label that is gone stops nothing.
            tracing::warn!(label = name, "the store has no such label");
            return;
        };

        let table = self.versions.table();
        let serves = |label: &Label<S::Version>| {
            label
                .serving
                .as_ref()
                .is_some_and(|serving| serving.version.id() == wanted)
        };
        if table.labels.get(index).is_some_and(serves) {
            self.replace(index, |label| {
                label.wanted.clone_from(&wanted);
                label.refusal = None;
            });
            return;
        }
        if let Some(version) = table.resident().find(|version| version.id() == wanted) {
            self.swap(index, Arc::clone(version));
            return;
        }
        drop(table);

        self.replace(index, |label| {
            label.wanted.clone_from(&wanted);
            label.refusal = None;
        });
        let start = Instant::now();
        let loaded = self
            .make_room(&wanted)
            .and_then(|()| self.source.load(&wanted));
        match loaded {
            Ok(version) => {
                let took = start.elapsed();
                self.metrics.index.load.observe(took.as_secs_f64());
                tracing::info!(
                    label = name,
                    version = wanted,
                    took_ms = took.as_millis(),
                    "loaded"
                );
                self.swap(index, Arc::new(version));
            }
            Err(refused) => self.refuse(index, name, &wanted, refused, now),
        }
    }

    /// Lets a version answer for a label; the one before stays mapped.
    fn swap(&mut self, index: usize, version: Arc<S::Version>) {
        if let Some(state) = self.states.get_mut(index) {
            state.retry = None;
        }
        let to = Arc::clone(&version);
        let mut from = None;
        self.replace(index, |label| {
            label.wanted = version.id().to_owned();
            label.refusal = None;
            let before = label.serving.replace(Serving {
                version,
                since_us: crate::clock::now_us(),
            });
            from = before
                .as_ref()
                .map(|serving| serving.version.id().to_owned());
            if let Some(before) = before {
                label.previous = Some(before.version);
            }
        });
        let table = self.versions.table();
        if let Some(label) = table.labels.get(index) {
            self.metrics
                .index
                .swapped(&label.name, from.as_deref(), to.id(), to.items());
            tracing::info!(label = label.name, version = to.id(), from, "serves");
        }
    }

    fn refuse(&mut self, index: usize, name: &str, wanted: &str, refused: Refused, now: Instant) {
        self.metrics.index.refused(name);
        tracing::error!(
            label = name,
            version = wanted,
            reason = refused.message,
            "refused; what served before goes on"
        );
        if let Some(state) = self.states.get_mut(index) {
            state.retry = refused.transient.then(|| {
                let pause = state.retry.map_or(FIRST_RETRY, |(_, pause)| pause);
                (now + pause, (pause * 2).min(LONGEST_RETRY))
            });
        }
        self.replace(index, |label| label.refusal = Some(refused.message));
    }

    /// Checks that the version fits beside all that must stay, and gives up what need not stay.
    fn make_room(&mut self, wanted: &str) -> Result<(), Refused> {
        let Some(room) = self.source.room() else {
            return Ok(());
        };
        let need = self.source.bytes(wanted)?;
        let table = self.versions.table();
        if Table::bytes(table.resident()).saturating_add(need) <= room {
            return Ok(());
        }
        let serving = || {
            table
                .labels
                .iter()
                .flat_map(|label| &label.serving)
                .map(|s| &s.version)
        };
        let kept = Table::bytes(serving());
        if kept.saturating_add(need) > room {
            return Err(Refused {
                message: format!(
                    "it needs {need} bytes of memory beside the {kept} that serve, of {room} there are"
                ),
                transient: true,
            });
        }
        drop(table);
        tracing::warn!(
            version = wanted,
            "memory is short: earlier versions are unmapped, a rollback to them has to load them"
        );
        for other in 0..self.states.len() {
            self.replace(other, |label| label.previous = None);
        }
        Ok(())
    }

    /// Puts a new table in place of the old one, with one label changed.
    fn replace(&mut self, index: usize, change: impl FnOnce(&mut Label<S::Version>)) {
        let old = self.versions.table();
        let mut labels = old.labels.clone();
        if let Some(label) = labels.get_mut(index) {
            change(label);
        }
        let table = Arc::new(Table { labels });
        for version in old.resident() {
            let stays = table.resident().any(|kept| Arc::ptr_eq(kept, version));
            let known = self
                .retired
                .iter()
                .any(|retired| Arc::ptr_eq(retired, version));
            if !stays && !known {
                self.retired.push(Arc::clone(version));
            }
        }
        let mapped = Table::bytes(table.resident());
        self.metrics
            .index
            .mapped_bytes
            .set(i64::try_from(mapped).unwrap_or(i64::MAX));
        self.versions.table.store(table);
        self.versions
            .generation
            .send_modify(|generation| *generation += 1);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Mutex;

    use super::*;

    #[derive(Debug)]
    struct Fake {
        id: String,
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
    }

    #[derive(Default)]
    struct World {
        labels: BTreeMap<String, Pointer>,
        refused: BTreeMap<String, Refused>,
        away: bool,
        room: Option<u64>,
        loads: Vec<String>,
        moves: u32,
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
                    None => Ok(Fake { id: version.into() }),
                }
            })
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
}
