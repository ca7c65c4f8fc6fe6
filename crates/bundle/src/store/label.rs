//! Labels: names that point at a version and move.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{LABELS, LOCK, Store, StoreError, VERSIONS, audit, names_in};
use crate::digest::Digest;
use crate::manifest::is_version_id;
use crate::{durable, time};

/// A label as it was when read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    /// Its name: `stable`, `canary`.
    pub name: String,
    /// The version it points at.
    pub version: String,
    /// Where [`Store::rollback`] would move it.
    pub previous: Option<String>,
    /// Changes whenever the label moves; a compare-and-set names the one it knows.
    pub etag: String,
    /// When it moved last.
    pub update_time: Timestamp,
    /// Who moved it.
    pub actor: String,
}

impl Store {
    /// The label of that name; `None` when there is none.
    ///
    /// # Errors
    /// [`StoreError`] when the store has vanished or the label's file is damaged.
    pub fn label(&self, name: &str) -> Result<Option<Label>, StoreError> {
        self.require()?;
        Ok(self
            .read_label(name)?
            .map(|(file, etag)| file.into_label(name, etag)))
    }

    /// All labels, by name.
    ///
    /// # Errors
    /// As [`label`](Self::label).
    pub fn labels(&self) -> Result<Vec<Label>, StoreError> {
        self.require()?;
        let mut labels = Vec::new();
        for file in names_in(&self.root.join(LABELS))? {
            let Some(name) = file.strip_suffix(".json").filter(|name| is_label(name)) else {
                continue;
            };
            labels.extend(self.label(name)?);
        }
        Ok(labels)
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
        self.path(version)?;
        self.move_label(name, etag, "set_label", actor, |current| {
            let mut history = current.map_or_else(Vec::new, |current| {
                let mut history = current.history.clone();
                history.push(current.version.clone());
                history
            });
            history.drain(..history.len().saturating_sub(MAX_HISTORY));
            Ok((version.to_owned(), history))
        })
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
        self.require()?;
        self.move_label(name, etag, "rollback", actor, |current| {
            let Some(current) = current else {
                let (store, label) = (self.root.clone(), name.to_owned());
                return Err(StoreError::NoLabel { store, label });
            };
            let mut history = current.history.clone();
            let Some(previous) = history.pop() else {
                let (label, version) = (name.to_owned(), current.version.clone());
                return Err(StoreError::NoPrevious { label, version });
            };
            self.path(&previous)?;
            Ok((previous, history))
        })
    }

    /// The etag of a label, empty when there is none: what a compare-and-set compares.
    pub(super) fn etag(&self, name: &str) -> Result<String, StoreError> {
        Ok(self
            .read_label(name)?
            .map_or_else(String::new, |(_, etag)| etag))
    }

    /// Under the lock: compares the etag, asks `next` for version and history, replaces the file and
    /// appends to the audit log.
    fn move_label(
        &self,
        name: &str,
        etag: Option<&str>,
        action: &'static str,
        actor: &str,
        next: impl FnOnce(Option<&LabelFile>) -> Result<(String, Vec<String>), StoreError>,
    ) -> Result<Label, StoreError> {
        let path = self.label_path(name)?;
        let _lock = self.lock()?;
        let current = self.read_label(name)?;
        let found = current.as_ref().map_or("", |(_, etag)| etag);
        if let Some(expected) = etag.filter(|&expected| expected != found) {
            return Err(StoreError::Conflict {
                label: name.to_owned(),
                expected: expected.to_owned(),
                found: found.to_owned(),
            });
        }
        let (version, history) = next(current.as_ref().map(|(file, _)| file))?;
        if let Some((file, etag)) = current.clone()
            && file.version == version
        {
            return Ok(file.into_label(name, etag));
        }
        let from = current.as_ref().map(|(file, _)| file.version.as_str());
        let file = LabelFile {
            format: LABEL_FORMAT,
            version,
            history,
            // Makes the etag differ even when a label returns to where it was.
            generation: current
                .as_ref()
                .map_or(1, |(file, _)| file.generation.saturating_add(1)),
            update_time: Timestamp::now(),
            actor: actor.to_owned(),
        };
        let bytes = file.to_bytes(&path)?;
        durable::create_dir(durable::parent(&path))?;
        // Whoever renamed the version into its place may have died before syncing that: a label never
        // outlives what it points at.
        durable::sync_dir(&self.root.join(VERSIONS))?;
        durable::replace_with(&path, &bytes)?;
        let line = audit::Line {
            time: file.update_time,
            action,
            actor,
            version: &file.version,
            label: Some(name),
            from,
        };
        audit::append(&self.root, &line).map_err(|source| StoreError::NotRecorded {
            label: name.to_owned(),
            version: file.version.clone(),
            source,
        })?;
        Ok(file.into_label(name, etag_of(&bytes)))
    }

    fn label_path(&self, name: &str) -> Result<PathBuf, StoreError> {
        if !is_label(name) {
            return Err(StoreError::BadLabel {
                label: name.to_owned(),
            });
        }
        Ok(self.root.join(LABELS).join(format!("{name}.json")))
    }

    fn read_label(&self, name: &str) -> Result<Option<(LabelFile, String)>, StoreError> {
        let path = self.label_path(name)?;
        let file = match fs_err::File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        let mut bytes = Vec::new();
        file.take(MAX_LABEL_BYTES).read_to_end(&mut bytes)?;
        Ok(Some((LabelFile::parse(&path, &bytes)?, etag_of(&bytes))))
    }

    /// The lock of this store, until dropped. The system drops it, too, when the process dies.
    pub(super) fn lock(&self) -> Result<fs_err::File, StoreError> {
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
}

/// Versions that a label remembers; rollback can go back as many times.
const MAX_HISTORY: usize = 32;
const MAX_LABEL_BYTES: u64 = 64 << 10;
const LABEL_FORMAT: u32 = 1;

#[derive(Debug, Clone, Serialize, Deserialize)]
struct LabelFile {
    format: u32,
    version: String,
    /// Where it was before, latest last.
    history: Vec<String>,
    generation: u64,
    #[serde(with = "time::text")]
    update_time: Timestamp,
    actor: String,
}

impl LabelFile {
    fn parse(path: &Path, bytes: &[u8]) -> Result<Self, StoreError> {
        let broken = |source| StoreError::LabelFile {
            file: path.to_owned(),
            source,
        };
        let file: Self = serde_json::from_slice(bytes).map_err(broken)?;
        let known = file.format == LABEL_FORMAT;
        let ids = file
            .history
            .iter()
            .chain([&file.version])
            .all(|id| is_version_id(id));
        if known && ids {
            return Ok(file);
        }
        let rule = if known {
            "a version id is malformed"
        } else {
            "format is not supported"
        };
        Err(broken(serde::de::Error::custom(rule)))
    }

    fn to_bytes(&self, path: &Path) -> Result<Vec<u8>, StoreError> {
        let mut bytes =
            serde_json::to_vec_pretty(self).map_err(|source| StoreError::LabelFile {
                file: path.to_owned(),
                source,
            })?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    fn into_label(mut self, name: &str, etag: String) -> Label {
        Label {
            name: name.to_owned(),
            version: self.version,
            previous: self.history.pop(),
            etag,
            update_time: self.update_time,
            actor: self.actor,
        }
    }
}

fn etag_of(bytes: &[u8]) -> String {
    Digest::of(bytes).short(16)
}

/// 1 to 64 of a-z, 0-9, '_', '-', starting with a letter: names that cannot leave the directory.
fn is_label(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name
            .bytes()
            .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-'))
}
