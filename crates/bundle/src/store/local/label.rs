//! Labels as files that are replaced, under the lock of the store.

use std::io::{self, Read};
use std::path::PathBuf;

use super::{LABELS, Local, VERSIONS, audit, names_in};
use crate::durable;
use crate::store::label::{LabelFile, MAX_LABEL_BYTES, back, etag_of, forward, is_label};
use crate::store::{AuditLine, Label, StoreError};

impl Local {
    pub(in crate::store) fn label(&self, name: &str) -> Result<Option<Label>, StoreError> {
        self.require()?;
        Ok(self
            .read_label(name)?
            .map(|(file, etag)| file.into_label(name, etag)))
    }

    pub(in crate::store) fn labels(&self) -> Result<Vec<Label>, StoreError> {
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

    pub(in crate::store) fn set_label(
        &self,
        name: &str,
        version: &str,
        etag: Option<&str>,
        actor: &str,
    ) -> Result<Label, StoreError> {
        self.move_label(name, etag, "set_label", actor, |current| {
            // Under the lock: collection cannot take it away in between.
            self.path(version)?;
            Ok(forward(current, version))
        })
    }

    pub(in crate::store) fn rollback(
        &self,
        name: &str,
        etag: Option<&str>,
        actor: &str,
    ) -> Result<Label, StoreError> {
        self.require()?;
        self.move_label(name, etag, "rollback", actor, |current| {
            let (previous, history) = back(&self.root, name, current)?;
            self.path(&previous)?;
            Ok((previous, history))
        })
    }

    pub(super) fn etag(&self, name: &str) -> Result<String, StoreError> {
        Ok(self
            .read_label(name)?
            .map_or_else(String::new, |(_, etag)| etag))
    }

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
        let file = LabelFile::next(
            current.as_ref().map(|(file, _)| file),
            version,
            history,
            actor,
        );
        let bytes = file.to_bytes(&path)?;
        durable::create_dir(durable::parent(&path))?;
        // Whoever renamed the version into its place may have died before syncing that: a label never
        // outlives what it points at.
        durable::sync_dir(&self.root.join(VERSIONS))?;
        durable::replace_with(&path, &bytes)?;
        let line = AuditLine {
            label: Some(name),
            from,
            ..AuditLine::new(file.update_time, action, actor, &file.version)
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

    pub(super) fn read_label(&self, name: &str) -> Result<Option<(LabelFile, String)>, StoreError> {
        let path = self.label_path(name)?;
        let file = match fs_err::File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        let mut bytes = Vec::new();
        file.take(MAX_LABEL_BYTES).read_to_end(&mut bytes)?;
        Ok(Some((LabelFile::parse(&path, &bytes)?, etag_of(&bytes))))
    }
}
