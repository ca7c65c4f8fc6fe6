//! The contract of profile stores: writes, receipts, errors.

use std::error::Error;
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
/// * The revision of a listener grows by exactly one with every write that changes their profile.
/// * Writes of one caller, submitted one after the other, take effect in that order.
pub trait ProfileStore: Send + Sync {
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
}

impl Write {
    /// The listener whose profile it changes.
    pub fn user(&self) -> &str {
        match self {
            Self::Append { user, .. }
            | Self::CreateRule { user, .. }
            | Self::DeleteRule { user, .. } => user,
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
        }
    }
}

/// A write is durable.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Receipt {
    /// Revision of the profile that holds the write.
    pub revision: u64,
    /// Events that were new.
    pub appended: u32,
    /// Events that were there already.
    pub duplicates: u32,
    /// Oldest events that had to go because the profile is full.
    pub dropped: u32,
    /// The rule as stored, after its creation.
    pub rule: Option<Rule>,
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
