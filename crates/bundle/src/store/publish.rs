//! Publishing: a bundle becomes a version of a store, whole or not at all.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::{Label, STAGING, Store, StoreError, VERSIONS, audit};
use crate::bundle::{Bundle, OpenError, VerifyError};
use crate::corruption::{Corruption, Mismatch};
use crate::digest::{FileDigest, Hasher};
use crate::durable;
use crate::manifest::{MANIFEST, Manifest, ManifestError};
use crate::section::OpenMode;

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

impl Store {
    /// Publishes the bundle at `bundle` and, with `label`, points that label at it.
    ///
    /// Copies to `staging/`, syncs, reads back and verifies all of it, makes the files read-only,
    /// renames into `versions/`, moves the label and appends to the audit log. With `expect` the label
    /// moves only if it has that etag (empty: only if there is no such label); without, only if no one
    /// moved it since this call began. Publishing what is there already copies nothing.
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
        self.publish_observed(bundle, label, expect, actor, &mut |_| Ok(()))
    }

    /// [`publish`](Self::publish), telling `observe` what comes next; its error stops it there.
    pub(super) fn publish_observed(
        &self,
        bundle: &Path,
        label: Option<&str>,
        expect: Option<&str>,
        actor: &str,
        observe: &mut dyn FnMut(Step) -> io::Result<()>,
    ) -> Result<Published, PublishError> {
        let manifest = Manifest::read(bundle)?;
        observe(Step::Prepare)?;
        durable::create_dir(&self.root)?;
        for dir in [VERSIONS, STAGING] {
            durable::create_dir(&self.root.join(dir))?;
        }
        let expect = match (label, expect) {
            (None, _) => None,
            (Some(_), Some(etag)) => Some(etag.to_owned()),
            (Some(label), None) => Some(self.etag(label)?),
        };
        let path = self.version_path(&manifest.version);
        let new = !self.holds(&manifest, &path)?;
        let new = new && self.add_version(bundle, &manifest, &path, observe)?;
        if new {
            observe(Step::RecordVersion)?;
            self.record(&manifest.version, actor)?;
        }
        let label = match label {
            None => None,
            Some(name) => {
                observe(Step::MoveLabel)?;
                let moved = self.set_label(name, &manifest.version, expect.as_deref(), actor);
                let version = manifest.version.clone();
                Some(moved.map_err(|source| PublishError::Label { version, source })?)
            }
        };
        Ok(Published {
            version: manifest.version,
            path,
            new,
            label,
        })
    }

    /// Whether the store has this very bundle already, undamaged.
    fn holds(&self, manifest: &Manifest, path: &Path) -> Result<bool, PublishError> {
        if !path.is_dir() {
            return Ok(false);
        }
        if Manifest::read(path)? != *manifest {
            let (version, path) = (manifest.version.clone(), path.to_owned());
            return Err(PublishError::DifferentContent { version, path });
        }
        verify(path)?;
        Ok(true)
    }

    /// Copies a bundle in; `false` when another publisher of the same bundle was faster.
    fn add_version(
        &self,
        bundle: &Path,
        manifest: &Manifest,
        path: &Path,
        observe: &mut dyn FnMut(Step) -> io::Result<()>,
    ) -> Result<bool, PublishError> {
        let staging = Staging::create(&self.root.join(STAGING), &manifest.version)?;
        for (name, stated) in &manifest.files {
            observe(Step::CopyFile)?;
            copy(&bundle.join(name), &staging.0.join(name), Some(stated))?;
        }
        observe(Step::CopyManifest)?;
        copy(&bundle.join(MANIFEST), &staging.0.join(MANIFEST), None)?;
        durable::sync_dir(&staging.0)?;
        observe(Step::Verify)?;
        if Manifest::read(&staging.0)? != *manifest {
            return Err(PublishError::Changed {
                path: bundle.to_owned(),
            });
        }
        verify(&staging.0)?;
        observe(Step::MakeReadOnly)?;
        for name in manifest.files.keys().map(String::as_str).chain([MANIFEST]) {
            let file = staging.0.join(name);
            let mut permissions = fs_err::metadata(&file)?.permissions();
            permissions.set_readonly(true);
            fs_err::set_permissions(&file, permissions)?;
        }
        observe(Step::Rename)?;
        // A published directory is never empty, so a rename onto it fails.
        match fs_err::rename(&staging.0, path) {
            Err(_) if path.is_dir() => return Ok(!self.holds(manifest, path)?),
            renamed => renamed?,
        }
        observe(Step::SyncVersions)?;
        durable::sync_dir(&self.root.join(VERSIONS))?;
        Ok(true)
    }

    fn record(&self, version: &str, actor: &str) -> Result<(), PublishError> {
        let _lock = self.lock()?;
        let time = Timestamp::now();
        let line = audit::Line {
            time,
            action: "publish",
            actor,
            version,
            label: None,
            from: None,
        };
        Ok(audit::append(&self.root, &line)?)
    }
}

/// What a publication is about to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Prepare,
    CopyFile,
    CopyManifest,
    Verify,
    MakeReadOnly,
    Rename,
    SyncVersions,
    RecordVersion,
    MoveLabel,
}

/// A directory that is removed unless it was renamed away.
struct Staging(PathBuf);

impl Staging {
    fn create(dir: &Path, version: &str) -> io::Result<Self> {
        let path = dir.join(durable::unique_name(version));
        fs_err::create_dir(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // After the rename there is nothing at the name, and nothing to remove.
        let _ = fs_err::remove_dir_all(&self.0);
    }
}

fn verify(path: &Path) -> Result<(), PublishError> {
    match Bundle::open(path, OpenMode::Map)?.verify() {
        Ok(_) => Ok(()),
        Err(VerifyError::Corrupt(corruption)) => Err(corruption.into()),
        Err(VerifyError::Io(error)) => Err(error.into()),
    }
}

/// Copies a file, syncs the copy, and names the source when it is not what its manifest states.
fn copy(from: &Path, to: &Path, stated: Option<&FileDigest>) -> Result<(), PublishError> {
    let mut source = fs_err::File::open(from)?;
    let mut target = fs_err::File::options()
        .write(true)
        .create_new(true)
        .open(to)?;
    let mut hasher = Hasher::default();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let n = source.read(&mut buffer)?;
        let Some(read) = buffer.get(..n).filter(|read| !read.is_empty()) else {
            break;
        };
        hasher.update(read);
        target.write_all(read)?;
    }
    target.sync_all()?;
    let got = hasher.finish();
    match stated.filter(|stated| **stated != got) {
        None => Ok(()),
        Some(stated) => {
            let mismatch = if stated.bytes == got.bytes {
                let (expected, got) = (stated.digest.to_string(), got.digest.to_string());
                Mismatch::Digest { expected, got }
            } else {
                Mismatch::Length {
                    expected: stated.bytes,
                    got: got.bytes,
                }
            };
            let (file, section) = (from.to_owned(), "file".to_owned());
            Err(Corruption {
                file,
                section,
                offset: 0,
                mismatch,
            }
            .into())
        }
    }
}
