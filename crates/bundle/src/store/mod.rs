//! Where versions live and which of them a name points at: a store in a local directory.
//!
//! ```text
//! STORE/versions/<id>/     published bundles; files read-only, never changed
//! STORE/labels/<name>.json labels: the only files that are replaced, atomically
//! STORE/staging/           bundles on their way in; anything here may be removed when no one publishes
//! STORE/audit.jsonl        one line for every change of a label or publication
//! STORE/lock               held (OS file lock) while a label moves
//! ```
//!
//! [`Store::publish`] copies a bundle in, verifies the copy, gives it its name by one rename and
//! moves the label. A crash at any moment leaves every label pointing at a whole version: a label
//! moves only to a version whose directory has its final name, and a directory gets that name only
//! when complete, verified and synced.
//!
//! Concurrency: any number of readers, without locks. Writers of labels take the lock and compare
//! the label's etag, so of two publishers one wins and the other is told. Retries are the caller's.

mod audit;
mod label;
mod publish;

use std::io;
use std::path::{Path, PathBuf};

pub use self::label::Label;
pub use self::publish::{PublishError, Published};

use crate::corruption::Corruption;
use crate::manifest::{Manifest, ManifestError, is_version_id};

/// A store of versions in a local directory.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
}

/// A published version.
#[derive(Debug, Clone, PartialEq)]
pub struct VersionInfo {
    /// Its manifest.
    pub manifest: Manifest,
    /// Its directory.
    pub path: PathBuf,
    /// Bytes of all its files.
    pub bytes: u64,
}

/// An operation on a store failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The system refused: the message has the path.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A URL of a kind that this build does not serve.
    #[error(
        "{url:?}: stores of scheme {scheme:?} are not supported, only file:///absolute/path or a plain path"
    )]
    Scheme {
        /// The URL.
        url: String,
        /// Its scheme.
        scheme: String,
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
    /// none yet: the first publication creates them.
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
        Ok(Self { root })
    }

    /// The store's directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The directory of a published version.
    ///
    /// # Errors
    /// [`StoreError::NoVersion`]; [`StoreError::NoStore`] when the store has vanished.
    pub fn path(&self, version: &str) -> Result<PathBuf, StoreError> {
        let path = self.version_path(version);
        // The id becomes part of a path, so it must look like one before it is looked for.
        if is_version_id(version) && path.is_dir() {
            return Ok(path);
        }
        self.require()?;
        Err(StoreError::NoVersion {
            store: self.root.clone(),
            version: version.to_owned(),
        })
    }

    /// All published versions, oldest first. A version whose manifest is damaged is an error.
    ///
    /// # Errors
    /// [`StoreError::NoStore`], [`StoreError::Manifest`].
    pub fn versions(&self) -> Result<Vec<VersionInfo>, StoreError> {
        self.require()?;
        let mut versions = Vec::new();
        for id in names_in(&self.root.join(VERSIONS))? {
            if !is_version_id(&id) {
                continue;
            }
            let path = self.version_path(&id);
            let manifest = Manifest::read(&path)?;
            let bytes = manifest.files.values().map(|file| file.bytes).sum();
            versions.push(VersionInfo {
                manifest,
                path,
                bytes,
            });
        }
        Ok(versions)
    }

    fn version_path(&self, version: &str) -> PathBuf {
        self.root.join(VERSIONS).join(version)
    }

    /// Tells a store that is not there from an empty one.
    fn require(&self) -> Result<(), StoreError> {
        if self.root.is_dir() {
            return Ok(());
        }
        Err(StoreError::NoStore {
            path: self.root.clone(),
        })
    }
}

const VERSIONS: &str = "versions";
const LABELS: &str = "labels";
const STAGING: &str = "staging";
const LOCK: &str = "lock";

/// The names in a directory, sorted; none when it does not exist.
fn names_in(dir: &Path) -> io::Result<Vec<String>> {
    let entries = match fs_err::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut names = Vec::new();
    for entry in entries {
        // A name that is not UTF-8 is none of ours.
        names.extend(entry?.file_name().into_string());
    }
    names.sort_unstable();
    Ok(names)
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
        let root = |url: &str| Store::open(url).unwrap().root;
        assert_eq!(root("file:///a/b%20c"), Path::new("/a/b c"));
        assert_eq!(root("a/b"), Path::new("a/b"));
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

#[cfg(test)]
mod tests;
