//! A store in a local directory.
//!
//! ```text
//! STORE/versions/<id>/               published bundles; files read-only, never changed
//! STORE/labels/<name>.json           labels: the only files that are replaced, atomically
//! STORE/deltas/<id>/<number>.rfs     deltas of a version, numbered from 1; read-only, never changed
//! STORE/staging/                     what is on its way in; who works on it holds a lock on it
//! STORE/audit.jsonl                  one line for every change
//! STORE/lock                         held (OS file lock) while labels, versions or deltas change
//! ```

mod audit;
mod collect;
mod deltas;
mod label;
mod publish;

use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::{StoreError, VersionInfo, info_of};
use crate::durable;
use crate::manifest::{Manifest, is_version_id};

#[cfg(test)]
use self::publish::Step;
pub(super) use self::publish::verify;

/// A store in a local directory.
#[derive(Debug, Clone)]
pub(super) struct Local {
    root: PathBuf,
}

impl Local {
    /// The store at `root`, which need not be there yet.
    pub(super) fn at(root: PathBuf) -> Self {
        Self { root }
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn path(&self, version: &str) -> Result<PathBuf, StoreError> {
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

    pub(super) fn versions(&self) -> Result<Vec<VersionInfo>, StoreError> {
        self.require()?;
        let mut versions = Vec::new();
        for id in names_in(&self.root.join(VERSIONS))? {
            if is_version_id(&id) {
                let path = self.version_path(&id);
                versions.push(info_of(Manifest::read(&path)?, path));
            }
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

    /// The lock of this store, until dropped. The system drops it, too, when the process dies.
    fn lock(&self) -> Result<fs_err::File, StoreError> {
        self.require()?;
        let path = self.root.join(LOCK);
        let file = fs_err::File::options()
            .create(true)
            .append(true)
            .open(&path)?;
        file.file().lock().map_err(|error| {
            io::Error::new(
                error.kind(),
                format!("cannot lock {}: {error}", path.display()),
            )
        })?;
        Ok(file)
    }

    /// Appends to the audit log what happened to a version. The caller holds the lock.
    fn record(
        &self,
        action: &'static str,
        version: &str,
        delta: Option<u64>,
        actor: &str,
    ) -> io::Result<()> {
        let line = super::AuditLine {
            delta,
            ..super::AuditLine::new(Timestamp::now(), action, actor, version)
        };
        audit::append(&self.root, &line)
    }
}

/// A directory of ours in `staging/`, locked while it is worked on, removed unless it was renamed away.
struct Staging {
    path: PathBuf,
    _lock: fs_err::File,
}

impl Staging {
    fn create(root: &Path, stem: &str) -> io::Result<Self> {
        let path = root.join(STAGING).join(durable::unique_name(stem));
        fs_err::create_dir(&path)?;
        let lock = fs_err::File::open(&path)?;
        // A file system without locks is no reason not to publish: collection looks at the age, too.
        let _ = lock.file().lock_shared();
        Ok(Self { path, _lock: lock })
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // After the rename there is nothing at the name, and nothing to remove.
        let _ = fs_err::remove_dir_all(&self.path);
    }
}

const VERSIONS: &str = "versions";
const LABELS: &str = "labels";
const DELTAS: &str = "deltas";
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

#[cfg(test)]
mod tests;
