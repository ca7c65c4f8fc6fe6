//! Field validation: one error type that names the field, one home for the common checks.

use std::fmt;

/// Longest id (user, event, item, rule, context, session, artist, tag), in bytes of UTF-8.
pub const MAX_ID_BYTES: usize = 128;

/// Earliest time that is accepted: 0001-01-01T00:00:00Z, in microseconds of Unix time.
pub const MIN_TIME_US: i64 = -62_135_596_800_000_000;

/// Latest time that is accepted: the last microsecond of the year 9999.
pub const MAX_TIME_US: i64 = 253_402_300_799_999_999;

/// A field of a write that cannot be accepted.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct InvalidField {
    /// Path of the field, in the names of the wire contract: `events[3].item_id`.
    pub field: String,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What is wrong with a field.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Problem {
    /// It must not be empty.
    Empty,
    /// It has more bytes than allowed.
    TooLong {
        /// Its length in bytes.
        bytes: usize,
        /// The most that is allowed.
        limit: usize,
    },
    /// It holds more elements than allowed.
    TooMany {
        /// How many it holds.
        count: usize,
        /// The most that is allowed.
        limit: usize,
    },
    /// A number outside its range.
    OutOfRange {
        /// The number.
        value: i64,
        /// The smallest allowed.
        min: i64,
        /// The largest allowed.
        max: i64,
    },
    /// A strength that is not a number from 0 to 1.
    NotAStrength {
        /// The value.
        value: f32,
    },
    /// A strength other than 1 where only effect LEARN with action EXCLUDE knows one.
    MustBeOne {
        /// The value.
        value: f32,
    },
    /// A window that does not end after it starts.
    EmptyWindow {
        /// First instant inside, in microseconds of Unix time.
        start_us: i64,
        /// First instant after.
        end_us: i64,
    },
    /// A rule that ends before it is made.
    ExpiresBeforeCreation {
        /// When it is made, in microseconds of Unix time.
        create_time_us: i64,
        /// When it ends.
        expire_time_us: i64,
    },
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => write!(f, "must not be empty"),
            Self::TooLong { bytes, limit } => {
                write!(f, "has {bytes} bytes, at most {limit} are allowed")
            }
            Self::TooMany { count, limit } => {
                write!(f, "holds {count} elements, at most {limit} are allowed")
            }
            Self::OutOfRange { value, min, max } => {
                write!(f, "{value} is outside {min} to {max}")
            }
            Self::NotAStrength { value } => write!(f, "{value} is not a number from 0 to 1"),
            Self::MustBeOne { value } => write!(
                f,
                "{value} is not 1, and only action EXCLUDE with effect LEARN knows other strengths"
            ),
            Self::EmptyWindow { start_us, end_us } => write!(
                f,
                "must end after it starts, but starts at {start_us} and ends at {end_us} µs"
            ),
            Self::ExpiresBeforeCreation {
                create_time_us,
                expire_time_us,
            } => write!(
                f,
                "must be after the creation at {create_time_us} µs, but is {expire_time_us} µs"
            ),
        }
    }
}

/// Where a checked value sits: rendered only when a check fails, so that checking allocates nothing.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Place {
    /// A field of the write itself.
    Write,
    /// A field of the event at this position.
    Event(usize),
    /// A field of the rule.
    Rule,
}

impl Place {
    pub(crate) fn error(self, field: &str, problem: Problem) -> InvalidField {
        let field = match self {
            Self::Write => field.to_owned(),
            Self::Event(at) => format!("events[{at}].{field}"),
            Self::Rule => format!("exclusion.{field}"),
        };
        InvalidField { field, problem }
    }

    pub(crate) fn id(self, field: &str, id: &str) -> Result<(), InvalidField> {
        if id.is_empty() {
            return Err(self.error(field, Problem::Empty));
        }
        self.at_most(field, id, MAX_ID_BYTES)
    }

    pub(crate) fn at_most(self, field: &str, text: &str, limit: usize) -> Result<(), InvalidField> {
        if text.len() > limit {
            let problem = Problem::TooLong {
                bytes: text.len(),
                limit,
            };
            return Err(self.error(field, problem));
        }
        Ok(())
    }

    pub(crate) fn range(
        self,
        field: &str,
        value: i64,
        min: i64,
        max: i64,
    ) -> Result<(), InvalidField> {
        if !(min..=max).contains(&value) {
            return Err(self.error(field, Problem::OutOfRange { value, min, max }));
        }
        Ok(())
    }

    pub(crate) fn time(self, field: &str, time_us: i64) -> Result<(), InvalidField> {
        self.range(field, time_us, MIN_TIME_US, MAX_TIME_US)
    }
}
