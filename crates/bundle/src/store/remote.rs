//! A store in an object store, with a local cache of what is read.
//!
//! ```text
//! versions/<id>/<file>            as in a bundle; manifest.json is written last, and only if absent
//! labels/<name>.json              replaced only over the state that was read (If-Match)
//! deltas/<id>/<number>.rfs        written only if absent
//! audit/<time>-<unique>.json      one object for every change: object stores cannot append
//! ```
//!
//! There is no lock and no rename, so order and conditions do the work. A version exists from the moment
//! its manifest does, which is after all of its files were read back and compared. A label moves by one
//! conditional write after that. A delta takes its number by one conditional write. A publisher that
//! dies leaves files without a manifest, which no one sees, which the next publication of the same
//! bundle uses, and which collection removes.
//!
//! Collection takes the manifest first and looks at the labels once more before it removes files, and
//! whoever moves a label looks for the manifest once more after: of the two one sees the other.

mod cache;
mod collect;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;

use super::deltas::{
    DeltaPublished, PublishDeltaError, checked, file_name, number_of, open_verified,
};
use super::label::{LabelFile, MAX_LABEL_BYTES, back, etag_of, forward, is_label};
use super::objects::{ObjectError, Objects, Tag, When};
use super::{AuditLine, Label, PublishError, Published, StoreError, VersionInfo, info_of};
use crate::corruption::{Corruption, Mismatch};
use crate::delta::DeltaFile;
use crate::digest::{FileDigest, Hasher};
use crate::durable;
use crate::manifest::{MANIFEST, MAX_MANIFEST_BYTES, Manifest, is_version_id};

/// A store in an object store.
#[derive(Debug, Clone)]
pub(super) struct Remote {
    objects: Arc<dyn Objects>,
    cache: PathBuf,
}

impl Remote {
    pub(super) fn new(objects: Arc<dyn Objects>, cache: PathBuf) -> Self {
        Self { objects, cache }
    }

    pub(super) fn url(&self) -> &str {
        self.objects.url()
    }

    pub(super) fn publish(
        &self,
        bundle: &Path,
        label: Option<&str>,
        expect: Option<&str>,
        actor: &str,
    ) -> Result<Published, PublishError> {
        let manifest = Manifest::read(bundle)?;
        super::local_verify(bundle)?;
        let expect = match (label, expect) {
            (None, _) => None,
            (Some(_), Some(etag)) => Some(etag.to_owned()),
            (Some(label), None) => Some(self.etag(label)?),
        };
        let new = self.add_version(bundle, &manifest)?;
        if new {
            self.record(AuditLine::new(
                Timestamp::now(),
                "publish",
                actor,
                &manifest.version,
            ))?;
        }
        let label = match label {
            None => None,
            Some(name) => {
                let moved = self.set_label(name, &manifest.version, expect.as_deref(), actor);
                let version = manifest.version.clone();
                Some(moved.map_err(|source| PublishError::Label { version, source })?)
            }
        };
        Ok(Published {
            path: self.place(&manifest.version),
            version: manifest.version,
            new,
            label,
        })
    }

    /// Uploads a bundle; `false` when the very same is there already.
    fn add_version(&self, bundle: &Path, manifest: &Manifest) -> Result<bool, PublishError> {
        let there = self.manifest_if_any(&manifest.version)?;
        if let Some(there) = &there
            && there != manifest
        {
            return Err(self.different(manifest));
        }
        let prefix = format!("versions/{}/", manifest.version);
        let present = self.objects.list(&prefix)?;
        for (name, stated) in &manifest.files {
            let key = format!("{prefix}{name}");
            // What a publisher before us has brought here need not travel again; it is read back like
            // all the rest.
            let found = present
                .iter()
                .any(|o| o.key == key && o.bytes == stated.bytes);
            if found && self.compare(&key, stated)?.is_ok() {
                continue;
            }
            self.objects
                .upload(&key, &mut fs_err::File::open(bundle.join(name))?)?;
            self.compare(&key, stated)??;
        }
        if there.is_some() {
            return Ok(false);
        }
        let bytes = fs_err::read(bundle.join(MANIFEST))?;
        if Manifest::parse(&bundle.join(MANIFEST), &bytes)? != *manifest {
            return Err(PublishError::Changed {
                path: bundle.to_owned(),
            });
        }
        let wrote = self
            .objects
            .put(&format!("{prefix}{MANIFEST}"), &bytes, When::Absent);
        let (wrote, failure) = match wrote {
            Ok(()) => (true, None),
            Err(ObjectError::Condition { .. }) => (false, None),
            // It may have been written all the same.
            Err(error) => (true, Some(error)),
        };
        match (self.manifest_if_any(&manifest.version)?, failure) {
            (Some(there), _) if there == *manifest => Ok(wrote),
            (Some(_), _) => Err(self.different(manifest)),
            (None, Some(error)) => Err(error.into()),
            (None, None) => Err(StoreError::Vanished {
                key: self.full(&format!("{prefix}{MANIFEST}")),
            }
            .into()),
        }
    }

    fn different(&self, manifest: &Manifest) -> PublishError {
        PublishError::DifferentContent {
            version: manifest.version.clone(),
            path: self.place(&manifest.version),
        }
    }

    /// Reads an object back and compares it with what the manifest states.
    fn compare(
        &self,
        key: &str,
        stated: &FileDigest,
    ) -> Result<Result<(), Corruption>, ObjectError> {
        let mut hasher = Hasher::default();
        self.objects.read(key, &mut |piece| {
            hasher.update(piece);
            Ok(())
        })?;
        Ok(is_stated(&self.full(key), stated, hasher.finish()))
    }

    pub(super) fn manifest(&self, version: &str) -> Result<Manifest, StoreError> {
        self.manifest_if_any(version)?
            .ok_or_else(|| self.no_version(version))
    }

    fn manifest_if_any(&self, version: &str) -> Result<Option<Manifest>, StoreError> {
        if !is_version_id(version) {
            return Ok(None);
        }
        let key = format!("versions/{version}/{MANIFEST}");
        let Some(object) = self.objects.get(&key, MAX_MANIFEST_BYTES)? else {
            return Ok(None);
        };
        let manifest = Manifest::parse(&self.full(&key), &object.bytes)?;
        if manifest.version != version {
            return Err(StoreError::WrongVersion {
                file: self.full(&key),
                found: manifest.version,
            });
        }
        Ok(Some(manifest))
    }

    pub(super) fn versions(&self) -> Result<Vec<VersionInfo>, StoreError> {
        let mut versions = Vec::new();
        for object in self.objects.list("versions/")? {
            let id = object.key.strip_prefix("versions/");
            let id = id.and_then(|rest| rest.strip_suffix(MANIFEST)?.strip_suffix('/'));
            if let Some(id) = id.filter(|id| is_version_id(id))
                // Collected since.
                && let Some(manifest) = self.manifest_if_any(id)?
            {
                versions.push(info_of(manifest, self.place(id)));
            }
        }
        Ok(versions)
    }

    pub(super) fn label(&self, name: &str) -> Result<Option<Label>, StoreError> {
        Ok(self
            .read_label(name)?
            .map(|(file, etag, _)| file.into_label(name, etag)))
    }

    pub(super) fn labels(&self) -> Result<Vec<Label>, StoreError> {
        let mut labels = Vec::new();
        for name in self.label_names()? {
            labels.extend(self.label(&name)?);
        }
        Ok(labels)
    }

    fn label_names(&self) -> Result<Vec<String>, StoreError> {
        let objects = self.objects.list("labels/")?;
        let name = |key: &str| -> Option<String> {
            let name = key.strip_prefix("labels/")?.strip_suffix(".json")?;
            is_label(name).then(|| name.to_owned())
        };
        Ok(objects
            .iter()
            .filter_map(|object| name(&object.key))
            .collect())
    }

    pub(super) fn set_label(
        &self,
        name: &str,
        version: &str,
        etag: Option<&str>,
        actor: &str,
    ) -> Result<Label, StoreError> {
        self.manifest(version)?;
        self.move_label(name, etag, "set_label", actor, |current| {
            Ok(forward(current, version))
        })
    }

    pub(super) fn rollback(
        &self,
        name: &str,
        etag: Option<&str>,
        actor: &str,
    ) -> Result<Label, StoreError> {
        self.move_label(name, etag, "rollback", actor, |current| {
            let (previous, history) = back(Path::new(self.url()), name, current)?;
            self.manifest(&previous)?;
            Ok((previous, history))
        })
    }

    fn etag(&self, name: &str) -> Result<String, StoreError> {
        Ok(self
            .read_label(name)?
            .map_or_else(String::new, |(_, etag, _)| etag))
    }

    /// Reads the label, asks `next` for version and history, and writes over what was read. Where no
    /// etag is expected and someone else was faster, it starts over.
    fn move_label(
        &self,
        name: &str,
        etag: Option<&str>,
        action: &'static str,
        actor: &str,
        next: impl Fn(Option<&LabelFile>) -> Result<(String, Vec<String>), StoreError>,
    ) -> Result<Label, StoreError> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            let current = self.read_label(name)?;
            let found = current.as_ref().map_or("", |(_, etag, _)| etag);
            if let Some(expected) = etag.filter(|&expected| expected != found) {
                return Err(conflict(name, expected, found));
            }
            let before = current.as_ref().map(|(file, ..)| file);
            let (version, history) = next(before)?;
            if let Some((file, etag, _)) = &current
                && file.version == version
            {
                return Ok(file.clone().into_label(name, etag.clone()));
            }
            let file = LabelFile::next(before, version, history, actor);
            let tag = current.as_ref().map(|(_, _, tag)| tag);
            if !self.write_label(name, &file, tag)? {
                if etag.is_none() && attempt < MOVE_ATTEMPTS {
                    continue;
                }
                return Err(conflict(name, found, &self.etag(name)?));
            }
            if self.manifest_if_any(&file.version)?.is_none() {
                return self.undo(name, &file, before);
            }
            let line = AuditLine {
                label: Some(name),
                from: before.map(|file| &*file.version),
                ..AuditLine::new(file.update_time, action, actor, &file.version)
            };
            self.record(line).map_err(|error| StoreError::NotRecorded {
                label: name.to_owned(),
                version: file.version.clone(),
                source: io::Error::other(error),
            })?;
            let etag = etag_of(&file.to_bytes(&self.label_key(name)?)?);
            return Ok(file.into_label(name, etag));
        }
    }

    /// Whether the label is now what was to be written.
    fn write_label(
        &self,
        name: &str,
        file: &LabelFile,
        over: Option<&Tag>,
    ) -> Result<bool, StoreError> {
        let key = self.label_key(name)?;
        let bytes = file.to_bytes(&key)?;
        let key = format!("labels/{name}.json");
        match self
            .objects
            .put(&key, &bytes, over.map_or(When::Absent, When::Is))
        {
            Ok(()) => Ok(true),
            // Ours may have been written by a try whose answer was lost: look who holds the label.
            Err(error) => {
                let now = self.objects.get(&key, MAX_LABEL_BYTES)?;
                match error {
                    _ if now.is_some_and(|object| object.bytes == bytes) => Ok(true),
                    ObjectError::Condition { .. } => Ok(false),
                    error => Err(error.into()),
                }
            }
        }
    }

    /// Collection took the version while its label moved: the label goes back.
    fn undo(
        &self,
        name: &str,
        file: &LabelFile,
        before: Option<&LabelFile>,
    ) -> Result<Label, StoreError> {
        let gone = Err(self.no_version(&file.version));
        let Some((now, _, tag)) = self.read_label(name)? else {
            return gone;
        };
        if now.version != file.version || now.generation != file.generation {
            return gone;
        }
        match before {
            None => self.objects.delete(&format!("labels/{name}.json"))?,
            Some(before) => {
                let (version, history) = (before.version.clone(), before.history.clone());
                let restored = LabelFile::next(Some(&now), version, history, "undo");
                self.write_label(name, &restored, Some(&tag))?;
            }
        }
        gone
    }

    fn read_label(&self, name: &str) -> Result<Option<(LabelFile, String, Tag)>, StoreError> {
        let path = self.label_key(name)?;
        let object = self
            .objects
            .get(&format!("labels/{name}.json"), MAX_LABEL_BYTES)?;
        object
            .map(|object| {
                let file = LabelFile::parse(&path, &object.bytes)?;
                Ok((file, etag_of(&object.bytes), object.tag))
            })
            .transpose()
    }

    fn label_key(&self, name: &str) -> Result<PathBuf, StoreError> {
        if !is_label(name) {
            return Err(StoreError::BadLabel {
                label: name.to_owned(),
            });
        }
        Ok(self.full(&format!("labels/{name}.json")))
    }

    pub(super) fn delta_count(&self, version: &str) -> Result<u64, StoreError> {
        let prefix = format!("deltas/{version}/");
        let objects = self.objects.list(&prefix)?;
        let numbers = objects
            .iter()
            .filter_map(|object| number_of(object.key.strip_prefix(&prefix)?));
        Ok(numbers.max().unwrap_or(0))
    }

    pub(super) fn publish_delta(
        &self,
        file: &Path,
        actor: &str,
    ) -> Result<DeltaPublished, PublishDeltaError> {
        let delta = checked(file)?;
        let (version, number) = (delta.info().version.clone(), delta.info().number);
        self.manifest(&version)?;
        let taken = |number| {
            let version = version.clone();
            Err(PublishDeltaError::Taken { version, number })
        };
        if number > 1 {
            let before = self.delta(&version, number - 1)?;
            if before.map(|before| before.digest()) != delta.info().parent {
                return taken(number - 1);
            }
        }
        let bytes = fs_err::read(file)?;
        if FileDigest::of(&bytes).digest != delta.digest() {
            return Err(PublishDeltaError::Changed {
                path: file.to_owned(),
            });
        }
        let key = format!("deltas/{version}/{}", file_name(number));
        let (new, failure) = match self.objects.put(&key, &bytes, When::Absent) {
            Ok(()) => (true, None),
            Err(ObjectError::Condition { .. }) => (false, None),
            Err(error) => (true, Some(error)),
        };
        // Read back, whoever wrote it.
        let there = self.objects.get(&key, bytes.len() as u64 + 1);
        match (there, failure) {
            (Ok(Some(there)), _) if there.bytes == bytes => {}
            (_, Some(error)) => return Err(StoreError::from(error).into()),
            (Ok(Some(_)) | Err(ObjectError::TooLong { .. }), None) => return taken(number),
            (Ok(None), None) => {
                let key = self.full(&key);
                return Err(StoreError::Vanished { key }.into());
            }
            (Err(error), None) => return Err(StoreError::from(error).into()),
        }
        if new {
            let line = AuditLine {
                delta: Some(number),
                ..AuditLine::new(Timestamp::now(), "freshen", actor, &version)
            };
            self.record(line).map_err(StoreError::from)?;
        }
        Ok(DeltaPublished::of(&delta, new))
    }

    fn record(&self, line: AuditLine<'_>) -> Result<(), ObjectError> {
        let text = serde_json::to_vec(&line).map_err(io::Error::from)?;
        // Sorts by time; the rest keeps two of one moment apart.
        let name = durable::unique_name("");
        let key = format!("audit/{}-{}.json", line.time, name.trim_start_matches('.'));
        self.objects.put(&key.replace(':', ""), &text, When::Absent)
    }

    fn no_version(&self, version: &str) -> StoreError {
        StoreError::NoVersion {
            store: PathBuf::from(self.url()),
            version: version.to_owned(),
        }
    }

    /// Where a version is, for people.
    fn place(&self, version: &str) -> PathBuf {
        self.full(&format!("versions/{version}"))
    }

    fn full(&self, key: &str) -> PathBuf {
        PathBuf::from(format!("{}/{key}", self.url()))
    }
}

/// How often a move of a label without an expected etag starts over.
const MOVE_ATTEMPTS: u32 = 8;

fn conflict(label: &str, expected: &str, found: &str) -> StoreError {
    StoreError::Conflict {
        label: label.to_owned(),
        expected: expected.to_owned(),
        found: found.to_owned(),
    }
}

fn is_stated(file: &Path, stated: &FileDigest, got: FileDigest) -> Result<(), Corruption> {
    if *stated == got {
        return Ok(());
    }
    let mismatch = if stated.bytes == got.bytes {
        let (expected, got) = (stated.digest.to_string(), got.digest.to_string());
        Mismatch::Digest { expected, got }
    } else {
        Mismatch::Length {
            expected: stated.bytes,
            got: got.bytes,
        }
    };
    Err(Corruption {
        file: file.to_owned(),
        section: "file".to_owned(),
        offset: 0,
        mismatch,
    })
}

#[cfg(test)]
mod tests;
