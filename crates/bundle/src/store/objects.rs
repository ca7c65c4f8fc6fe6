//! What a store needs of an object store: seven blocking calls.
//!
//! The implementation over the network lives in a crate of its own, `refrain-objects`, because it takes
//! an async runtime, HTTP and TLS, none of which the crates below the server know.

use std::fmt;
use std::io::{self, Read};

use jiff::Timestamp;

/// A flat map from keys to immutable or atomically replaced objects, with strong consistency: what was
/// written is read by everyone from then on.
///
/// Every call ends: with an error where the store does not answer in time, after bounded retries.
pub trait Objects: fmt::Debug + Send + Sync {
    /// The URL that all keys are under, without a slash at its end.
    fn url(&self) -> &str;

    /// A whole object of at most `limit` bytes; `None` when there is none.
    ///
    /// # Errors
    /// [`ObjectError`].
    fn get(&self, key: &str, limit: u64) -> Result<Option<Object>, ObjectError>;

    /// Feeds an object to `sink` piece by piece; `false` when there is none.
    ///
    /// # Errors
    /// [`ObjectError`]; [`ObjectError::Io`] is the sink's.
    fn read(
        &self,
        key: &str,
        sink: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<bool, ObjectError>;

    /// Writes a small object at once, under a condition that the store itself checks.
    ///
    /// # Errors
    /// [`ObjectError::Condition`] when it does not hold; nothing is written then.
    fn put(&self, key: &str, bytes: &[u8], when: When<'_>) -> Result<(), ObjectError>;

    /// Writes an object of any length. It appears whole, or not at all.
    ///
    /// # Errors
    /// [`ObjectError`]; [`ObjectError::Io`] is the source's.
    fn upload(&self, key: &str, source: &mut dyn Read) -> Result<(), ObjectError>;

    /// All objects whose keys begin with `prefix`, which ends in a slash; by key.
    ///
    /// # Errors
    /// [`ObjectError`].
    fn list(&self, prefix: &str) -> Result<Vec<Listed>, ObjectError>;

    /// Removes an object; none is as good.
    ///
    /// # Errors
    /// [`ObjectError`].
    fn delete(&self, key: &str) -> Result<(), ObjectError>;
}

/// A small object, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// What [`When::Is`] compares.
    pub tag: Tag,
}

/// Names the state of an object as its store does.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tag {
    /// The entity tag.
    pub e_tag: Option<String>,
    /// The version or generation.
    pub version: Option<String>,
}

/// When to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When<'a> {
    /// Only where there is no object.
    Absent,
    /// Only over the object in this state.
    Is(&'a Tag),
}

/// An object as a listing has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its key.
    pub key: String,
    /// Its length.
    pub bytes: u64,
    /// When it was written.
    pub modified: Timestamp,
}

/// An object store did not do as asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ObjectError {
    /// The condition of a write does not hold: someone else wrote.
    #[error("{key}: was written by someone else")]
    Condition {
        /// The object.
        key: String,
    },
    /// Longer than what it should be can be.
    #[error("{key}: longer than {limit} bytes")]
    TooLong {
        /// The object.
        key: String,
        /// Most bytes.
        limit: u64,
    },
    /// The store refused, failed or did not answer in time, also when asked again.
    #[error("cannot {action} {key}: {reason}")]
    Failed {
        /// The object, or the prefix.
        key: String,
        /// `read`, `write`, `list`, `remove`.
        action: &'static str,
        /// What it said.
        reason: String,
    },
    /// Reading or writing on this side failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}
