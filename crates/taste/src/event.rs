//! Events: what a listener did with an item.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::invalid::{InvalidField, Place};

/// Largest [`Event::count`].
pub const MAX_COUNT: u32 = 1_000_000_000;

/// Largest [`Event::played_ms`]: a hundred years.
pub const MAX_PLAYED_MS: i64 = 100 * 366 * 86_400_000;

/// What happened in an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EventKind {
    /// The item was played, for how long is not known.
    Play,
    /// The item was played to its end.
    Complete,
    /// The item was skipped: weak evidence against it.
    Skip,
    /// The listener likes the item.
    Like,
    /// A like was taken back: likes of the item at or before this time stop counting.
    Unlike,
    /// The item was saved to a collection.
    Save,
    /// The listener does not want the item: evidence against it. Only a rule of effect SERVE
    /// forbids showing it.
    Hide,
}

impl EventKind {
    /// All kinds.
    pub const ALL: [Self; 7] = [
        Self::Play,
        Self::Complete,
        Self::Skip,
        Self::Like,
        Self::Unlike,
        Self::Save,
        Self::Hide,
    ];

    /// Name in files and configuration: `play`, `complete`, …
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Play => "play",
            Self::Complete => "complete",
            Self::Skip => "skip",
            Self::Like => "like",
            Self::Unlike => "unlike",
            Self::Save => "save",
            Self::Hide => "hide",
        }
    }

    /// Whether the listener said so, rather than merely listened. What was said outlives listens
    /// when a profile is full.
    pub const fn is_explicit(self) -> bool {
        match self {
            Self::Like | Self::Unlike | Self::Save | Self::Hide => true,
            Self::Play | Self::Complete | Self::Skip => false,
        }
    }
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for EventKind {
    type Err = UnknownKind;

    fn from_str(text: &str) -> Result<Self, UnknownKind> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or_else(|| UnknownKind {
                text: text.chars().take(32).collect(),
            })
    }
}

/// A text that names no kind of event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no kind of event: play, complete, skip, like, unlike, save or hide")]
pub struct UnknownKind {
    /// Beginning of the text.
    pub text: String,
}

/// One event of a listener. Append-only; unique by `event_id` within the listener.
///
/// The order of the fields is the canonical order of events: time, then id; the rest only makes it
/// total for profiles that no store has checked.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Event {
    /// When it happened, in microseconds of Unix time.
    pub time_us: i64,
    /// Makes an append idempotent. 1 to [`MAX_ID_BYTES`](crate::MAX_ID_BYTES) bytes.
    pub event_id: String,
    /// The item. Need not be known to any version yet.
    pub item: String,
    /// What happened.
    pub kind: EventKind,
    /// How long it played, in milliseconds, 0 to [`MAX_PLAYED_MS`].
    pub played_ms: Option<i64>,
    /// The playlist, album or station in which it was heard.
    pub context: Option<String>,
    /// The listening session.
    pub session: Option<String>,
    /// How many such events this one stands for, 1 to [`MAX_COUNT`].
    pub count: u32,
}

impl Event {
    /// Checks every field against its limits. `at` is the position in the append, for the path in
    /// the error.
    ///
    /// # Errors
    /// The first field that is out of its limits.
    pub fn validate(&self, at: usize) -> Result<(), InvalidField> {
        let place = Place::Event(at);
        place.id("event_id", &self.event_id)?;
        place.id("item_id", &self.item)?;
        place.time("event_time", self.time_us)?;
        if let Some(played_ms) = self.played_ms {
            place.range("played_ms", played_ms, 0, MAX_PLAYED_MS)?;
        }
        if let Some(context) = &self.context {
            place.id("context", context)?;
        }
        if let Some(session) = &self.session {
            place.id("session_id", session)?;
        }
        place.range("count", i64::from(self.count), 1, i64::from(MAX_COUNT))
    }
}
