//! The contract of profile stores: writes, receipts, errors.

use std::error::Error;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::{Arc, mpsc};

use crate::event::Event;
use crate::invalid::{InvalidField, Place, Problem};
use crate::profile::Profile;
use crate::rule::Rule;

/// Most events in one [`Write::Append`].
pub const MAX_EVENTS_PER_APPEND: usize = 1_000;

/// Most rules that one listener may have.
pub const MAX_RULES_PER_USER: u32 = 10_000;

/// Called once with the outcome of a write.
pub type Done = Box<dyn FnOnce(Result<Receipt, StoreError>) + Send>;

/// Keeps profiles durably.
///
/// What every store guarantees, and the conformance suite checks:
///
/// * A write is acknowledged after it is durable; what was acknowledged survives a crash.
/// * [`profile`](Self::profile) called after an acknowledgement shows the write (read-your-writes).
/// * A write happens entirely or not at all, and an identical retry changes nothing: events by
///   `event_id`, rules by `rule_id`; the same id with other content is a conflict.
/// * The revision of a listener grows by exactly one with every write that changes their profile, and a
///   profile begun anew after an erasure starts above all that the erased one had.
/// * Writes to one listener, submitted one after the other, take effect in that order.
pub trait ProfileStore: std::fmt::Debug + Send + Sync {
    /// The profile of a listener; empty with revision 0 for one never written.
    ///
    /// # Errors
    /// The user id is out of its limits, or the store cannot be read.
    fn profile(&self, user: &str) -> Result<Arc<Profile>, StoreError>;

    /// Hands a write over; `done` is called once when it is durable or has failed, on a thread of
    /// the store or, when it is refused at once, on the caller's. It must not block.
    fn submit(&self, write: Write, done: Done);

    /// A listener's profile if it is at hand in memory: never waits, never reads a file. As fresh
    /// as [`profile`](Self::profile). `None` says nothing about the listener.
    fn cached(&self, _user: &str) -> Option<Arc<Profile>> {
        None
    }

    /// A listener's profile of at least a revision if there is one by now; else the newest. A store
    /// whose memory may lag behind writes made elsewhere looks past it.
    ///
    /// # Errors
    /// As [`profile`](Self::profile).
    fn profile_since(&self, user: &str, _revision: u64) -> Result<Arc<Profile>, StoreError> {
        self.profile(user)
    }

    /// What was last read of a listener, however long ago: for a caller who accepts that while the store
    /// cannot be read. `None`: nothing is remembered.
    fn last_known(&self, user: &str) -> Option<Arc<Profile>> {
        self.cached(user)
    }

    /// How many records of a listener are stored, whatever they hold, as long as there is no profile of a later
    /// revision than `erased`: read past every cache, at one moment. What an erasure is checked with, which ended the
    /// profile at that revision; what was begun anew since is no part of it.
    ///
    /// # Errors
    /// As [`profile`](Self::profile).
    fn residue(&self, user: &str, erased: u64) -> Result<u64, StoreError>;

    /// Visits every listener's profile in the order of their ids, until `visit` breaks. Each is whole;
    /// together they are no snapshot.
    ///
    /// # Errors
    /// The store cannot be read.
    fn for_each(
        &self,
        visit: &mut dyn FnMut(&str, &Profile) -> ControlFlow<()>,
    ) -> Result<(), StoreError>;

    /// Writes and waits until it is durable.
    ///
    /// # Errors
    /// As handed to `done` by [`submit`](Self::submit).
    fn write(&self, write: Write) -> Result<Receipt, StoreError> {
        let (outcome, wait) = mpsc::sync_channel(1);
        self.submit(
            write,
            Box::new(move |result| {
                // The receiver below waits, so the send cannot fail.
                let _ = outcome.send(result);
            }),
        );
        wait.recv().unwrap_or(Err(StoreError::Closed))
    }
}

/// A change of one listener's profile.
#[derive(Debug, Clone, PartialEq)]
pub enum Write {
    /// Adds events, all or none.
    Append {
        /// The listener.
        user: String,
        /// 1 to [`MAX_EVENTS_PER_APPEND`].
        events: Vec<Event>,
    },
    /// Adds a rule. A retry may carry another creation time: the first one stays.
    CreateRule {
        /// The listener.
        user: String,
        /// The rule.
        rule: Rule,
    },
    /// Takes a rule back.
    DeleteRule {
        /// The listener.
        user: String,
        /// The rule.
        rule_id: String,
        /// Whether it is fine that there is no such rule.
        allow_missing: bool,
    },
    /// Removes every event and rule of a listener, for good. No other write ever destroys a rule or,
    /// but for the cap on their number, an event.
    Erase {
        /// The listener.
        user: String,
    },
}

impl Write {
    /// The listener whose profile it changes.
    pub fn user(&self) -> &str {
        match self {
            Self::Append { user, .. }
            | Self::CreateRule { user, .. }
            | Self::DeleteRule { user, .. }
            | Self::Erase { user } => user,
        }
    }

    /// Checks every field against its limits.
    ///
    /// # Errors
    /// The first field that is out of its limits.
    pub fn validate(&self) -> Result<(), InvalidField> {
        let place = Place::Write;
        place.id("user_id", self.user())?;
        match self {
            Self::Append { events, .. } => {
                let (count, limit) = (events.len(), MAX_EVENTS_PER_APPEND);
                if count == 0 {
                    return Err(place.error("events", Problem::Empty));
                }
                if count > limit {
                    return Err(place.error("events", Problem::TooMany { count, limit }));
                }
                events
                    .iter()
                    .enumerate()
                    .try_for_each(|(at, event)| event.validate(at))
            }
            Self::CreateRule { rule, .. } => rule.validate(),
            Self::DeleteRule { rule_id, .. } => place.id("rule_id", rule_id),
            Self::Erase { .. } => Ok(()),
        }
    }
}

/// A write is durable.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Receipt {
    /// Revision of the profile that holds the write; 0 after an erasure.
    pub revision: u64,
    /// Events that were new.
    pub appended: u32,
    /// Events that were there already.
    pub duplicates: u32,
    /// Oldest events that had to go because the profile is full.
    pub dropped: u32,
    /// The rule as stored, after its creation.
    pub rule: Option<Rule>,
    /// What was there, after an erasure.
    pub erased: Option<Erased>,
}

/// What an erasure removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Erased {
    /// Revision that the profile had; 0: there was none.
    pub revision: u64,
    /// Events that it had.
    pub events: u32,
    /// Rules that it had.
    pub rules: u32,
}

/// Why a profile was not read or a write not made.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// A field is out of its limits.
    #[error(transparent)]
    Invalid(#[from] InvalidField),
    /// The listener has another event of this id. Nothing of the append was taken.
    #[error("events[{position}]: event {event_id:?} exists with other content")]
    EventConflict {
        /// The id.
        event_id: String,
        /// Position in the append.
        position: usize,
    },
    /// The listener has another rule of this id.
    #[error("rule {rule_id:?} exists with other content")]
    RuleConflict {
        /// The id.
        rule_id: String,
    },
    /// The listener has no such rule.
    #[error("there is no rule {rule_id:?}")]
    NoSuchRule {
        /// The id.
        rule_id: String,
    },
    /// The listener has as many rules as allowed.
    #[error("the profile holds {limit} rules, the most that is allowed")]
    TooManyRules {
        /// The most that is allowed.
        limit: u32,
    },
    /// More writes wait than the store takes on; try again later.
    #[error("too many writes are waiting")]
    Busy,
    /// The disk is full. The write is not acknowledged; reads go on.
    #[error("{path}: no space left for profiles")]
    Full {
        /// The store.
        path: PathBuf,
        /// What the storage said.
        source: Arc<dyn Error + Send + Sync>,
    },
    /// The storage failed. A write is not acknowledged, but may have become durable.
    #[error("{path}: profile storage failed")]
    Io {
        /// The store.
        path: PathBuf,
        /// What the storage said.
        source: Arc<dyn Error + Send + Sync>,
    },
    /// A stored record is damaged.
    #[error("{path}: {table} record {key:?} is damaged")]
    Corrupt {
        /// The store.
        path: PathBuf,
        /// Kind of the record.
        table: &'static str,
        /// Listener, and event or rule.
        key: String,
        /// What is wrong with it.
        source: Arc<dyn Error + Send + Sync>,
    },
    /// The store is shut down.
    #[error("the profile store is shut down")]
    Closed,
}

/// An error and its causes in one line.
pub(crate) fn told(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text += ": ";
        text += &cause.to_string();
        source = cause.source();
    }
    text
}
