//! Publishing: a bundle becomes a version of a store, whole or not at all.

use std::io::{self, Read, Write};
use std::path::Path;

use super::{Local, STAGING, Staging, VERSIONS};
use crate::bundle::{Bundle, VerifyError};
use crate::corruption::{Corruption, Mismatch};
use crate::digest::{FileDigest, Hasher};
use crate::durable;
use crate::manifest::{MANIFEST, Manifest};
use crate::section::OpenMode;
use crate::store::{PublishError, Published};

impl Local {
    pub(in crate::store) fn publish(
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
            let _lock = self.lock()?;
            self.record("publish", &manifest.version, None, actor)?;
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
        let staging = Staging::create(&self.root, &manifest.version)?;
        for (name, stated) in &manifest.files {
            observe(Step::CopyFile)?;
            copy(&bundle.join(name), &staging.path.join(name), Some(stated))?;
        }
        observe(Step::CopyManifest)?;
        copy(&bundle.join(MANIFEST), &staging.path.join(MANIFEST), None)?;
        durable::sync_dir(&staging.path)?;
        observe(Step::Verify)?;
        if Manifest::read(&staging.path)? != *manifest {
            return Err(PublishError::Changed {
                path: bundle.to_owned(),
            });
        }
        verify(&staging.path)?;
        observe(Step::MakeReadOnly)?;
        for name in manifest.files.keys().map(String::as_str).chain([MANIFEST]) {
            let file = staging.path.join(name);
            let mut permissions = fs_err::metadata(&file)?.permissions();
            permissions.set_readonly(true);
            fs_err::set_permissions(&file, permissions)?;
        }
        observe(Step::Rename)?;
        // A published directory is never empty, so a rename onto it fails.
        match fs_err::rename(&staging.path, path) {
            Err(_) if path.is_dir() => return Ok(!self.holds(manifest, path)?),
            renamed => renamed?,
        }
        observe(Step::SyncVersions)?;
        durable::sync_dir(&self.root.join(VERSIONS))?;
        Ok(true)
    }
}

/// What a publication is about to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) enum Step {
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

pub(in crate::store) fn verify(path: &Path) -> Result<(), PublishError> {
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
