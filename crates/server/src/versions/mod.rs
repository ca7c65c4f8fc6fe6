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
//!
//! # Deltas
//! Every look also asks for deltas of each mapped version, the one before included, so that a takedown
//! holds for whoever pins it and after a rollback. The version with one more delta takes the place of
//! the one without; the base is shared, and no swap happens. A delta that is refused changes nothing
//! and is tried again at every look; the refusal is told once.

mod watcher;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::watch;

use crate::refusal::{Precondition, Refusal, Resource, Unavailable};
pub(crate) use watcher::Watcher;

/// A version as far as this module needs to know it.
pub(crate) trait Mapped: Send + Sync + 'static {
    /// Version id.
    fn id(&self) -> &str;
    /// Items in it.
    fn items(&self) -> u64;
    /// Bytes of its files.
    fn bytes(&self) -> u64;
    /// Number of the last delta applied to it; 0 is the base alone.
    fn delta(&self) -> u64;
}

/// Where labels and versions come from.
pub(crate) trait Source: Send + 'static {
    /// What it loads.
    type Version: Mapped;

    /// Where a label points; `None` when there is no such label.
    fn label(&self, name: &str) -> Result<Option<Pointer>, String>;

    /// Bytes that loading the version will map.
    fn bytes(&self, version: &str) -> Result<u64, Refused>;

    /// Opens, verifies and warms a version, and applies the deltas that it has.
    fn load(&self, version: &str) -> Result<Self::Version, Refused>;

    /// The version with the deltas that have come since; `None` when there are none.
    fn freshen(&self, version: &Self::Version) -> Result<Option<Self::Version>, Refused>;

    /// Tells which versions are in use: what is kept of others may go.
    fn in_use(&self, versions: &[&str]);

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
    /// Why no further delta is applied to what serves.
    pub(crate) delta_refusal: Option<String>,
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
            delta_refusal: self.delta_refusal.clone(),
        }
    }
}
