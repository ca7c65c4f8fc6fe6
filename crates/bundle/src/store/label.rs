//! Labels: names that point at a version and move.

use std::path::Path;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::StoreError;
use crate::digest::Digest;
use crate::manifest::is_version_id;
use crate::time;

/// A label as it was when read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    /// Its name: `stable`, `canary`.
    pub name: String,
    /// The version it points at.
    pub version: String,
    /// Where `Store::rollback` would move it.
    pub previous: Option<String>,
    /// Changes whenever the label moves; a compare-and-set names the one it knows.
    pub etag: String,
    /// When it moved last.
    pub update_time: Timestamp,
    /// Who moved it.
    pub actor: String,
}

/// Where a label is and was, once it points at `version`.
pub(super) fn forward(current: Option<&LabelFile>, version: &str) -> (String, Vec<String>) {
    let mut history = current.map_or_else(Vec::new, |current| {
        let mut history = current.history.clone();
        history.push(current.version.clone());
        history
    });
    history.drain(..history.len().saturating_sub(MAX_HISTORY));
    (version.to_owned(), history)
}

/// Where a label is and was, once it has gone back.
pub(super) fn back(
    store: &Path,
    name: &str,
    current: Option<&LabelFile>,
) -> Result<(String, Vec<String>), StoreError> {
    let Some(current) = current else {
        let (store, label) = (store.to_owned(), name.to_owned());
        return Err(StoreError::NoLabel { store, label });
    };
    let mut history = current.history.clone();
    let Some(previous) = history.pop() else {
        let (label, version) = (name.to_owned(), current.version.clone());
        return Err(StoreError::NoPrevious { label, version });
    };
    Ok((previous, history))
}

/// Versions that a label remembers; rollback can go back as many times.
const MAX_HISTORY: usize = 32;
pub(super) const MAX_LABEL_BYTES: u64 = 64 << 10;
const LABEL_FORMAT: u32 = 1;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct LabelFile {
    format: u32,
    pub(super) version: String,
    /// Where it was before, latest last.
    pub(super) history: Vec<String>,
    pub(super) generation: u64,
    #[serde(with = "time::text")]
    pub(super) update_time: Timestamp,
    actor: String,
}

impl LabelFile {
    /// The label as it is after it has moved.
    pub(super) fn next(
        current: Option<&Self>,
        version: String,
        history: Vec<String>,
        actor: &str,
    ) -> Self {
        Self {
            format: LABEL_FORMAT,
            version,
            history,
            // Makes the etag differ even when a label returns to where it was.
            generation: current.map_or(1, |file| file.generation.saturating_add(1)),
            update_time: Timestamp::now(),
            actor: actor.to_owned(),
        }
    }

    pub(super) fn parse(path: &Path, bytes: &[u8]) -> Result<Self, StoreError> {
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

    pub(super) fn to_bytes(&self, path: &Path) -> Result<Vec<u8>, StoreError> {
        let mut bytes =
            serde_json::to_vec_pretty(self).map_err(|source| StoreError::LabelFile {
                file: path.to_owned(),
                source,
            })?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    pub(super) fn into_label(mut self, name: &str, etag: String) -> Label {
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

pub(super) fn etag_of(bytes: &[u8]) -> String {
    Digest::of(bytes).short(16)
}

/// 1 to 64 of a-z, 0-9, '_', '-', starting with a letter: names that cannot leave the directory.
pub(super) fn is_label(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name
            .bytes()
            .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-'))
}
