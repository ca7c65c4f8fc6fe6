//! Making a bundle.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;

use crate::digest::FileDigest;
use crate::durable;
use crate::manifest::{
    self, BUNDLE_FORMAT, IndexInfo, MANIFEST, Manifest, ModelInfo, is_file_name, version_id,
};
use crate::section::WriteError;

/// A bundle in the making: files go to a staging directory beside its place, which takes the name
/// when all is there. Dropped before that, it leaves nothing.
#[derive(Debug)]
pub struct BundleWriter {
    target: PathBuf,
    staging: PathBuf,
    files: Mutex<BTreeMap<String, FileDigest>>,
}

/// A manifest, but for what sealing finds out: version id and files. See [`Manifest`].
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "the fields are those of the manifest")]
pub struct Draft {
    pub parent: Option<String>,
    /// Cut to the second.
    pub create_time: Timestamp,
    pub items: u32,
    pub users: u64,
    pub dim: u32,
    pub metric: String,
    pub data_watermark: Option<Timestamp>,
    pub exclusion_watermark: Option<Timestamp>,
    pub index: IndexInfo,
    pub model: Option<ModelInfo>,
    pub command: String,
    pub seed: u64,
    pub report: serde_json::Value,
}

/// A bundle could not be made; nothing was left at its place.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// The system refused: the message has the path.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A file could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// Something is there already.
    #[error("{}: exists already; a bundle is never written over", path.display())]
    Exists {
        /// The bundle's place.
        path: PathBuf,
    },
    /// A file name that the format does not allow.
    #[error("{name:?} is not the name of a bundle's file")]
    BadName {
        /// The name.
        name: String,
    },
    /// The manifest does not serialize.
    #[error("cannot write the manifest of {}: {source}", path.display())]
    Json {
        /// The bundle's place.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// The manifest would not be read again.
    #[error(transparent)]
    Manifest(#[from] manifest::ManifestError),
}

impl BundleWriter {
    /// Starts a bundle that will be at `target`, which must not exist.
    ///
    /// # Errors
    /// See [`SealError`].
    pub fn create(target: &Path) -> Result<Self, SealError> {
        if fs_err::symlink_metadata(target).is_ok() {
            return Err(SealError::Exists {
                path: target.to_owned(),
            });
        }
        let name = target
            .file_name()
            .map(|name| name.to_string_lossy().into_owned());
        let name = name.ok_or_else(|| SealError::Exists {
            path: target.to_owned(),
        })?;
        let parent = durable::parent(target);
        durable::create_dir(parent)?;
        let staging = parent.join(durable::unique_name(&name));
        fs_err::create_dir(&staging)?;
        Ok(Self {
            target: target.to_owned(),
            staging,
            files: Mutex::default(),
        })
    }

    /// Writes a file of the bundle: `write` gets the path to write to and returns the file's digest,
    /// as [`write_sections`](crate::write_sections) and its like do. Threads may write one each.
    ///
    /// # Errors
    /// That of `write`, or [`SealError::BadName`].
    pub fn add(
        &self,
        name: &str,
        write: impl FnOnce(&Path) -> Result<FileDigest, WriteError>,
    ) -> Result<(), SealError> {
        if !is_file_name(name) {
            return Err(SealError::BadName {
                name: name.to_owned(),
            });
        }
        let digest = write(&self.staging.join(name))?;
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        files.insert(name.to_owned(), digest);
        Ok(())
    }

    /// Writes the manifest, syncs, and gives the directory its name.
    ///
    /// # Errors
    /// See [`SealError`]; nothing is left then.
    pub fn seal(self, draft: Draft) -> Result<Manifest, SealError> {
        let files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let files = files.clone();
        let create_time = Timestamp::from_second(draft.create_time.as_second());
        let create_time = create_time.unwrap_or(draft.create_time);
        let manifest = Manifest {
            format: BUNDLE_FORMAT,
            version: version_id(create_time, &files),
            parent: draft.parent,
            create_time,
            items: draft.items,
            users: draft.users,
            dim: draft.dim,
            metric: draft.metric,
            data_watermark: draft.data_watermark,
            exclusion_watermark: draft.exclusion_watermark,
            index: draft.index,
            model: draft.model,
            command: draft.command,
            seed: draft.seed,
            files,
            report: draft.report,
        };
        let bytes = manifest.to_bytes().map_err(|source| SealError::Json {
            path: self.target.clone(),
            source,
        })?;
        durable::replace_with(&self.staging.join(MANIFEST), &bytes)?;
        // What cannot be read again must not be sealed.
        Manifest::read(&self.staging)?;
        if fs_err::symlink_metadata(&self.target).is_ok() {
            return Err(SealError::Exists {
                path: self.target.clone(),
            });
        }
        fs_err::rename(&self.staging, &self.target)?;
        durable::sync_dir(durable::parent(&self.target))?;
        Ok(manifest)
    }
}

impl Drop for BundleWriter {
    fn drop(&mut self) {
        // After a rename there is nothing at the staging name, and nothing to remove.
        let _ = fs_err::remove_dir_all(&self.staging);
    }
}
