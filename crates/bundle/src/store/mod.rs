//! Where versions live and which of them a name points at: a local directory, or an object store.
//!
//! A store holds *versions* (published bundles, which never change), *labels* (names that point at one and
//! move), *deltas* (numbered additions to a version, which never change) and an audit log. `local` and
//! `remote` say how either kind lays them out.
//!
//! What holds for both, at any moment and wherever a publisher dies:
//! - a label points at a whole version: one that was read back and verified before the label moved;
//! - a label moves by compare-and-set, so of two publishers one wins and the other is told;
//! - a delta has its number alone, follows the one before it, and was read back and verified;
//! - every change is in the audit log, or its caller was told that it is not;
//! - what a publisher left behind is invisible, and [`Store::collect`] removes it.
//!
//! Any number of readers, without locks. Retries of a lost race are the caller's.

mod collect;
mod deltas;
mod label;
mod local;
mod objects;
mod remote;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;

pub use self::collect::{Collected, Keep};
pub use self::deltas::{DeltaPublished, PublishDeltaError};
pub use self::label::Label;
pub use self::objects::{Listed, Object, ObjectError, Objects, Tag, When};

use self::local::Local;
use self::remote::Remote;
use crate::bundle::OpenError;
use crate::corruption::Corruption;
use crate::manifest::{Manifest, ManifestError};
use crate::{section, time};

/// A store of versions.
#[derive(Debug, Clone)]
pub struct Store {
    place: Place,
}

#[derive(Debug, Clone)]
enum Place {
    Local(Local),
    Remote(Remote),
}

/// A published version.
#[derive(Debug, Clone, PartialEq)]
pub struct VersionInfo {
    /// Its manifest.
    pub manifest: Manifest,
    /// Where it is, for people: a directory, or a URL.
    pub path: PathBuf,
    /// Bytes of all its files.
    pub bytes: u64,
}

/// What a publication did.
#[derive(Debug, Clone, PartialEq)]
pub struct Published {
    /// The version.
    pub version: String,
    /// Its directory in the store.
    pub path: PathBuf,
    /// Whether its bytes are new to the store; `false` when it was published before.
    pub new: bool,
    /// The label as it is now, when one was asked for.
    pub label: Option<Label>,
}

/// A bundle was not published. The store is as it was, but when [`PublishError::Label`] says so the
/// version is there and only the label is not.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The system refused: the message has the path.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The bundle's manifest cannot be read.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The copy does not open.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The copy does not verify: the bundle, or the disk, is damaged.
    #[error(transparent)]
    Corrupt(#[from] Corruption),
    /// A version of that id is there and is another.
    #[error("{}: holds another bundle under the id {version}", path.display())]
    DifferentContent {
        /// The version.
        version: String,
        /// Its directory in the store.
        path: PathBuf,
    },
    /// The bundle changed while it was copied.
    #[error("{}: the bundle changed while it was copied", path.display())]
    Changed {
        /// The bundle's directory.
        path: PathBuf,
    },
    /// The object store refused, failed, or did not answer in time. Publishing again goes on from there.
    #[error(transparent)]
    Objects(#[from] ObjectError),
    /// The store refused before anything was copied.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The version is published, but its label was not moved.
    #[error("{version} is published but not labelled: {source}")]
    Label {
        /// The version.
        version: String,
        /// Why.
        source: StoreError,
    },
}

/// An operation on a store failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The system refused: the message has the path.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A URL of a kind that is not served.
    #[error(
        "{url:?}: stores of scheme {scheme:?} are not supported, only s3://, gs://, az://, \
         file:///absolute/path or a plain path"
    )]
    Scheme {
        /// The URL.
        url: String,
        /// Its scheme.
        scheme: String,
    },
    /// An object store that cannot be used as it is named or configured.
    #[error("{url}: {reason}")]
    Unusable {
        /// The URL, or the setting.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A `file:` URL that does not name an absolute path of this machine.
    #[error("{url:?}: a file URL looks like file:///absolute/path")]
    BadUrl {
        /// The URL.
        url: String,
    },
    /// The directory is not there (any more).
    #[error("{}: no such store", path.display())]
    NoStore {
        /// The store's directory.
        path: PathBuf,
    },
    /// No such version.
    #[error("{}: no version {version:?}", store.display())]
    NoVersion {
        /// The store's directory.
        store: PathBuf,
        /// The version.
        version: String,
    },
    /// No such label.
    #[error("{}: no label {label:?}", store.display())]
    NoLabel {
        /// The store's directory.
        store: PathBuf,
        /// The label.
        label: String,
    },
    /// A label name that is not allowed.
    #[error("{label:?}: a label is 1 to 64 of a-z, 0-9, '_', '-', starting with a letter")]
    BadLabel {
        /// The label.
        label: String,
    },
    /// The label has no earlier version to go back to.
    #[error("label {label:?} is at {version} and has no previous version")]
    NoPrevious {
        /// The label.
        label: String,
        /// Where it is.
        version: String,
    },
    /// Someone else moved the label first.
    #[error(
        "label {label:?} was moved by someone else: expected etag {expected:?}, found {found:?}"
    )]
    Conflict {
        /// The label.
        label: String,
        /// The etag that the caller knew; empty for "no such label".
        expected: String,
        /// The etag as it is; empty for "no such label".
        found: String,
    },
    /// A label's file cannot be understood.
    #[error("{}: {source}", file.display())]
    LabelFile {
        /// The file.
        file: PathBuf,
        /// What is wrong, and where.
        source: serde_json::Error,
    },
    /// A published version's manifest cannot be read.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// A published version is damaged.
    #[error(transparent)]
    Corrupt(#[from] Corruption),
    /// A delta cannot be opened.
    #[error(transparent)]
    Delta(section::OpenError),
    /// A delta lies where another belongs.
    #[error("{}: is delta number {number} of {version} and lies in the place of another", path.display())]
    Misplaced {
        /// The file.
        path: PathBuf,
        /// The version that it is of.
        version: String,
        /// Its number.
        number: u64,
    },
    /// An object that was read from an object store is not what it must be.
    #[error("{}: {source}", key.display())]
    Object {
        /// The object.
        key: PathBuf,
        /// What is wrong with it.
        source: Box<Self>,
    },
    /// A manifest lies under the name of another version.
    #[error("{}: is the manifest of {found}", file.display())]
    WrongVersion {
        /// The file.
        file: PathBuf,
        /// The version that it is of.
        found: String,
    },
    /// What was written is not there any more.
    #[error("{}: was written and is gone: someone removes objects of this store", key.display())]
    Vanished {
        /// The object.
        key: PathBuf,
    },
    /// The object store refused, failed, or did not answer in time.
    #[error(transparent)]
    Objects(#[from] ObjectError),
    /// The label moved, but the audit log could not be written: the change is in force.
    #[error("label {label:?} now points at {version}, but the audit log was not written: {source}")]
    NotRecorded {
        /// The label.
        label: String,
        /// Where it points now.
        version: String,
        /// Why.
        source: io::Error,
    },
}

impl Store {
    /// The store at `url`: `file:///absolute/path`, or a plain path. Makes no directory and needs
    /// none yet: the first publication creates them. Object stores are opened by whoever may talk to a
    /// network, and come in by [`Store::remote`].
    ///
    /// # Errors
    /// [`StoreError::Scheme`] for `s3://` and the like, [`StoreError::BadUrl`].
    pub fn open(url: &str) -> Result<Self, StoreError> {
        let bad_url = || StoreError::BadUrl {
            url: url.to_owned(),
        };
        let root = match url.split_once("://") {
            None if url.is_empty() => return Err(bad_url()),
            None => PathBuf::from(url),
            Some(("file", path)) if path.starts_with('/') => {
                percent_decode(path).ok_or_else(bad_url)?
            }
            Some(("file", _)) => return Err(bad_url()),
            Some((scheme, _)) => {
                return Err(StoreError::Scheme {
                    url: url.to_owned(),
                    scheme: scheme.to_owned(),
                });
            }
        };
        Ok(Self {
            place: Place::Local(Local::at(root)),
        })
    }

    /// The store in an object store. What is read of it is kept in the directory `cache`, which any
    /// number of processes may share and anyone may remove while no one reads.
    pub fn remote(objects: Arc<dyn Objects>, cache: PathBuf) -> Self {
        Self {
            place: Place::Remote(Remote::new(objects, cache)),
        }
    }

    /// Where it is, for people: a directory, or a URL.
    pub fn location(&self) -> &Path {
        match &self.place {
            Place::Local(local) => local.root(),
            Place::Remote(remote) => Path::new(remote.url()),
        }
    }

    /// Publishes the bundle at `bundle` and, with `label`, points that label at it.
    ///
    /// Copies, reads back and verifies all of it, lets it become a version, moves the label and appends
    /// to the audit log. With `expect` the label moves only if it has that etag (empty: only if there is
    /// no such label); without, only if no one moved it since this call began. Publishing what is there
    /// already copies nothing.
    ///
    /// # Errors
    /// See [`PublishError`]. Of two publishers to one label one gets [`StoreError::Conflict`].
    pub fn publish(
        &self,
        bundle: &Path,
        label: Option<&str>,
        expect: Option<&str>,
        actor: &str,
    ) -> Result<Published, PublishError> {
        match &self.place {
            Place::Local(local) => local.publish(bundle, label, expect, actor),
            Place::Remote(remote) => remote.publish(bundle, label, expect, actor),
        }
    }

    /// The directory of a published version on this machine; one in an object store is downloaded to the
    /// cache first, and compared with its manifest.
    ///
    /// # Errors
    /// [`StoreError::NoVersion`]; [`StoreError::NoStore`] when the store has vanished.
    pub fn path(&self, version: &str) -> Result<PathBuf, StoreError> {
        match &self.place {
            Place::Local(local) => local.path(version),
            Place::Remote(remote) => remote.path(version),
        }
    }

    /// The manifest of a published version. Reads nothing else.
    ///
    /// # Errors
    /// [`StoreError::NoVersion`], [`StoreError::Manifest`].
    pub fn manifest(&self, version: &str) -> Result<Manifest, StoreError> {
        match &self.place {
            Place::Local(local) => Ok(Manifest::read(&local.path(version)?)?),
            Place::Remote(remote) => remote.manifest(version),
        }
    }

    /// All published versions, oldest first. A version whose manifest is damaged is an error.
    ///
    /// # Errors
    /// [`StoreError::NoStore`], [`StoreError::Manifest`].
    pub fn versions(&self) -> Result<Vec<VersionInfo>, StoreError> {
        match &self.place {
            Place::Local(local) => local.versions(),
            Place::Remote(remote) => remote.versions(),
        }
    }

    /// The label of that name; `None` when there is none.
    ///
    /// # Errors
    /// [`StoreError`] when the store has vanished or the label's file is damaged.
    pub fn label(&self, name: &str) -> Result<Option<Label>, StoreError> {
        match &self.place {
            Place::Local(local) => local.label(name),
            Place::Remote(remote) => remote.label(name),
        }
    }

    /// All labels, by name.
    ///
    /// # Errors
    /// As [`label`](Self::label).
    pub fn labels(&self) -> Result<Vec<Label>, StoreError> {
        match &self.place {
            Place::Local(local) => local.labels(),
            Place::Remote(remote) => remote.labels(),
        }
    }

    /// Points a label at a published version, durably and atomically. With `etag`, only if the label
    /// still has it; an empty one means that there must be no such label yet. Moving a label to where
    /// it is changes nothing.
    ///
    /// # Errors
    /// [`StoreError::Conflict`], [`StoreError::NoVersion`], [`StoreError::BadLabel`]; after
    /// [`StoreError::NotRecorded`] the label has moved.
    pub fn set_label(
        &self,
        name: &str,
        version: &str,
        etag: Option<&str>,
        actor: &str,
    ) -> Result<Label, StoreError> {
        match &self.place {
            Place::Local(local) => local.set_label(name, version, etag, actor),
            Place::Remote(remote) => remote.set_label(name, version, etag, actor),
        }
    }

    /// Moves a label back to where it was before; again, to where it was before that, and so on.
    ///
    /// # Errors
    /// [`StoreError::NoLabel`], [`StoreError::NoPrevious`], and those of [`set_label`](Self::set_label).
    pub fn rollback(
        &self,
        name: &str,
        etag: Option<&str>,
        actor: &str,
    ) -> Result<Label, StoreError> {
        match &self.place {
            Place::Local(local) => local.rollback(name, etag, actor),
            Place::Remote(remote) => remote.rollback(name, etag, actor),
        }
    }

    /// Removes from the cache what is not of these versions; says which versions went. A local store has
    /// no cache.
    ///
    /// # Errors
    /// The system refused.
    pub fn trim_cache(&self, keep: &[&str]) -> Result<Vec<String>, StoreError> {
        match &self.place {
            Place::Local(_) => Ok(Vec::new()),
            Place::Remote(remote) => remote.trim_cache(keep),
        }
    }
}

/// One change, as the audit log has it.
#[derive(Debug, Serialize)]
struct AuditLine<'a> {
    #[serde(with = "time::text")]
    time: Timestamp,
    /// `publish`, `set_label`, `rollback`, `freshen`, `collect`.
    action: &'a str,
    actor: &'a str,
    version: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    label: Option<&'a str>,
    /// Where the label was.
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    delta: Option<u64>,
}

impl<'a> AuditLine<'a> {
    fn new(time: Timestamp, action: &'a str, actor: &'a str, version: &'a str) -> Self {
        Self {
            time,
            action,
            actor,
            version,
            label: None,
            from: None,
            delta: None,
        }
    }
}

fn info_of(manifest: Manifest, path: PathBuf) -> VersionInfo {
    let bytes = manifest.files.values().map(|file| file.bytes).sum();
    VersionInfo {
        manifest,
        path,
        bytes,
    }
}

/// Opens and verifies the bundle in a directory.
fn local_verify(path: &Path) -> Result<(), PublishError> {
    local::verify(path)
}

/// `%20` and its like in the path of a URL.
fn percent_decode(path: &str) -> Option<PathBuf> {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if byte == b'%' {
            let (hex, tail) = rest.split_first_chunk::<2>()?;
            bytes.push(u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok()?);
            rest = tail;
        } else {
            bytes.push(byte);
        }
    }
    let path = String::from_utf8(bytes).ok()?;
    (!path.contains('\0')).then(|| PathBuf::from(path))
}

#[cfg(test)]
mod url_tests {
    use super::*;

    #[test]
    fn urls() {
        let location = |url: &str| Store::open(url).unwrap().location().to_owned();
        assert_eq!(location("file:///a/b%20c"), Path::new("/a/b c"));
        assert_eq!(location("a/b"), Path::new("a/b"));
        for url in ["file://host/a", "", "file:///%zz", "file:///%00"] {
            assert!(
                matches!(Store::open(url), Err(StoreError::BadUrl { .. })),
                "{url}"
            );
        }
        let error = Store::open("s3://bucket/x").unwrap_err();
        assert!(
            matches!(&error, StoreError::Scheme { scheme, .. } if scheme == "s3"),
            "{error}"
        );
    }

    #[test]
    fn a_store_that_is_not_there_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let gone = dir.path().join("gone");
        let store = Store::open(gone.to_str().unwrap()).unwrap();
        let names_it = |error: StoreError| {
            assert!(
                matches!(&error, StoreError::NoStore { path } if *path == gone),
                "{error}"
            );
        };
        names_it(store.versions().unwrap_err());
        names_it(store.labels().unwrap_err());
        names_it(store.label("stable").unwrap_err());
        names_it(store.path("v20261122T194500Z-1a2b3c4d").unwrap_err());
        names_it(
            store
                .set_label("stable", "v20261122T194500Z-1a2b3c4d", None, "me")
                .unwrap_err(),
        );
        names_it(store.rollback("stable", None, "me").unwrap_err());
    }
}
