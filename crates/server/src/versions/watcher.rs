//! The thread that compares labels with what is served, and acts on the difference.

use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::sync::watch;

use super::{Label, Mapped as _, Message, Pointer, Refused, Serving, Source, Table, Versions};
use crate::metrics::Metrics;

/// First pause before a refused version is tried again; doubles up to [`LONGEST_RETRY`].
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LONGEST_RETRY: Duration = Duration::from_secs(60);

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
                delta_refusal: None,
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
        if !self.blind {
            self.freshen();
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

    /// Applies what deltas have come to every mapped version.
    fn freshen(&mut self) {
        let table = self.versions.table();
        let mut seen: Vec<&str> = Vec::new();
        for version in table.resident() {
            if seen.contains(&version.id()) {
                continue;
            }
            seen.push(version.id());
            match self.source.freshen(version) {
                Ok(None) => self.renew(version.id(), None, None),
                Ok(Some(fresh)) => {
                    tracing::info!(
                        version = fresh.id(),
                        delta = fresh.delta(),
                        items = fresh.items(),
                        "freshened"
                    );
                    self.renew(version.id(), Some(&Arc::new(fresh)), None);
                }
                Err(refused) => self.renew(version.id(), None, Some(refused.message)),
            }
        }
    }

    /// Puts a version with more deltas in the place of the one with fewer, wherever that is.
    fn renew(&mut self, id: &str, fresh: Option<&Arc<S::Version>>, refusal: Option<String>) {
        for index in 0..self.states.len() {
            let table = self.versions.table();
            let Some(label) = table.labels.get(index) else {
                continue;
            };
            let serves = label
                .serving
                .as_ref()
                .is_some_and(|serving| serving.version.id() == id);
            let previous = label
                .previous
                .as_ref()
                .is_some_and(|version| version.id() == id);
            let told = !serves || label.delta_refusal == refusal;
            if told && (fresh.is_none() || !(serves || previous)) {
                continue;
            }
            if serves
                && !told
                && let Some(reason) = &refusal
            {
                self.metrics.index.delta_refused(&label.name);
                tracing::error!(
                    label = label.name,
                    version = id,
                    reason,
                    "a delta is refused; what served before goes on"
                );
            }
            if serves && let Some(fresh) = fresh {
                self.metrics
                    .index
                    .freshened(&label.name, fresh.delta(), fresh.items());
            }
            let refusal = refusal.clone();
            self.replace(index, |label| {
                if serves {
                    label.delta_refusal = refusal;
                }
                let Some(fresh) = fresh else { return };
                if let Some(serving) = label.serving.as_mut().filter(|_| serves) {
                    serving.version = Arc::clone(fresh);
                }
                if previous {
                    label.previous = Some(Arc::clone(fresh));
                }
            });
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
            label.delta_refusal = None;
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
        let in_use: Vec<&str> = table.resident().map(|version| version.id()).collect();
        self.source.in_use(&in_use);
        if let Some(label) = table.labels.get(index) {
            self.metrics.index.swapped(
                &label.name,
                from.as_deref(),
                to.id(),
                to.delta(),
                to.items(),
            );
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
mod tests;
