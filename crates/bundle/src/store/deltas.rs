//! Deltas of published versions: what all kinds of stores keep to.

use std::io;
use std::path::{Path, PathBuf};

use super::{Store, StoreError};
use crate::corruption::Corruption;
use crate::delta::DeltaFile;
use crate::digest::Digest;
use crate::section::OpenError;

/// What publishing a delta did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeltaPublished {
    /// The version that it adds to.
    pub version: String,
    /// Its number.
    pub number: u64,
    /// Its digest.
    pub digest: Digest,
    /// Length of its file.
    pub bytes: u64,
    /// Whether it is new to the store; `false` when these very bytes were there already.
    pub new: bool,
}

impl DeltaPublished {
    pub(super) fn of(delta: &DeltaFile, new: bool) -> Self {
        Self {
            version: delta.info().version.clone(),
            number: delta.info().number,
            digest: delta.digest(),
            bytes: delta.bytes(),
            new,
        }
    }
}

/// A delta was not published, unless [`PublishDeltaError::Store`] says that only its record is missing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PublishDeltaError {
    /// The system refused: the message has the path.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The file is no delta, or damaged.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The file is damaged.
    #[error(transparent)]
    Corrupt(#[from] Corruption),
    /// Someone else published a delta of that number first, or another one before it.
    #[error("another delta number {number} of {version} was published first")]
    Taken {
        /// The version.
        version: String,
        /// The number that is taken.
        number: u64,
    },
    /// The file changed while it was copied.
    #[error("{}: the delta changed while it was copied", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// The store refused.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Store {
    /// The deltas of a version after number `after`, in order, read whole and verified. Usually none or
    /// one; all of them for `after` 0.
    ///
    /// # Errors
    /// [`StoreError::NoVersion`]; [`StoreError::Corrupt`] and [`StoreError::Delta`] name the file.
    pub fn deltas(&self, version: &str, after: u64) -> Result<Vec<DeltaFile>, StoreError> {
        match &self.place {
            super::Place::Local(local) => local.deltas(version, after),
            super::Place::Remote(remote) => remote.deltas(version, after),
        }
    }

    /// The number of the newest delta of a version; 0 when it has none. Reads no delta.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn delta_count(&self, version: &str) -> Result<u64, StoreError> {
        match &self.place {
            super::Place::Local(local) => local.delta_count(version),
            super::Place::Remote(remote) => remote.delta_count(version),
        }
    }

    /// Publishes the delta in `file` as the next one of its version: verified, copied, read back, and
    /// then given its name, which no other delta can have. Publishing the same bytes again changes
    /// nothing.
    ///
    /// # Errors
    /// [`PublishDeltaError::Taken`] when another was faster: make it anew on top of that one.
    pub fn publish_delta(
        &self,
        file: &Path,
        actor: &str,
    ) -> Result<DeltaPublished, PublishDeltaError> {
        match &self.place {
            super::Place::Local(local) => local.publish_delta(file, actor),
            super::Place::Remote(remote) => remote.publish_delta(file, actor),
        }
    }
}

/// The name of a delta's file: sorts as its number does.
pub(super) fn file_name(number: u64) -> String {
    format!("{number:08}.rfs")
}

pub(super) fn number_of(name: &str) -> Option<u64> {
    let number = name.strip_suffix(".rfs")?.parse().ok()?;
    (file_name(number) == name).then_some(number)
}

/// A delta about to be published, verified.
pub(super) fn checked(file: &Path) -> Result<DeltaFile, PublishDeltaError> {
    let delta = DeltaFile::open(file)?;
    delta.verify()?;
    Ok(delta)
}

/// A published delta, verified, and in its own place.
pub(super) fn open_verified(
    path: &Path,
    version: &str,
    number: u64,
) -> Result<DeltaFile, StoreError> {
    let delta = DeltaFile::open(path).map_err(StoreError::Delta)?;
    delta.verify()?;
    let info = delta.info();
    if info.version != version || info.number != number {
        return Err(StoreError::Misplaced {
            path: path.to_owned(),
            version: info.version.clone(),
            number: info.number,
        });
    }
    Ok(delta)
}
