//! What is read of an object store lies in a local directory, laid out as a local store is.
//!
//! Everything there was compared with its manifest before it got its name, and nothing there is ever
//! changed; it may be removed at any time when no one reads it. Any number of processes may share it.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use super::*;

impl Remote {
    /// The directory of a version, downloaded when it is not there yet.
    pub(in crate::store) fn path(&self, version: &str) -> Result<PathBuf, StoreError> {
        // Also where it is cached: a version that was collected must not come back to life here.
        let manifest = self.manifest(version)?;
        let dir = self.cache.join("versions").join(version);
        if dir.is_dir() {
            if Manifest::read(&dir)? == manifest && is_complete(&dir, &manifest) {
                return Ok(dir);
            }
            // Cut short by a full disk, or by hand. What is mapped of it stays mapped.
            fs_err::remove_dir_all(&dir)?;
        }
        for name in ["versions", "staging"] {
            durable::create_dir(&self.cache.join(name))?;
        }
        let staging = self
            .cache
            .join("staging")
            .join(durable::unique_name(version));
        fs_err::create_dir(&staging)?;
        let staging = Removed(staging);
        for (name, stated) in &manifest.files {
            let key = format!("versions/{version}/{name}");
            self.download(&key, &staging.0.join(name), stated)?;
        }
        let bytes = manifest
            .to_bytes()
            .map_err(|source| StoreError::LabelFile {
                file: dir.join(MANIFEST),
                source,
            })?;
        durable::replace_with(&staging.0.join(MANIFEST), &bytes)?;
        durable::sync_dir(&staging.0)?;
        match fs_err::rename(&staging.0, &dir) {
            // Another process was faster.
            Err(_) if is_complete(&dir, &manifest) => {}
            renamed => renamed?,
        }
        durable::sync_dir(&self.cache.join("versions"))?;
        Ok(dir)
    }

    fn download(&self, key: &str, to: &Path, stated: &FileDigest) -> Result<(), StoreError> {
        let mut file = fs_err::File::options()
            .write(true)
            .create_new(true)
            .open(to)?;
        let mut hasher = Hasher::default();
        self.objects.read(key, &mut |piece| {
            hasher.update(piece);
            file.write_all(piece)
        })?;
        file.sync_all()?;
        Ok(is_stated(&self.full(key), stated, hasher.finish())?)
    }

    pub(in crate::store) fn deltas(
        &self,
        version: &str,
        after: u64,
    ) -> Result<Vec<DeltaFile>, StoreError> {
        let mut files = Vec::new();
        for number in after + 1.. {
            match self.delta(version, number)? {
                Some(file) => files.push(file),
                None => break,
            }
        }
        Ok(files)
    }

    /// One delta, verified; `None` when there is none of that number (yet).
    pub(super) fn delta(
        &self,
        version: &str,
        number: u64,
    ) -> Result<Option<DeltaFile>, StoreError> {
        if !is_version_id(version) {
            return Err(self.no_version(version));
        }
        let name = format!("deltas/{version}/{}", file_name(number));
        let path = self.cache.join(&name);
        if path.is_file()
            && let Ok(file) = open_verified(&path, version, number)
        {
            return Ok(Some(file));
        }
        let dir = durable::parent(&path);
        let staged = Removed(dir.join(durable::unique_name("delta")));
        // Asked for at every look of a server, and mostly not there: no file until there are bytes.
        let mut file = None;
        let create = || {
            durable::create_dir(dir)?;
            fs_err::File::options()
                .write(true)
                .create_new(true)
                .open(&staged.0)
        };
        let there = self.objects.read(&name, &mut |piece| {
            match &mut file {
                Some(file) => file,
                none => none.insert(create()?),
            }
            .write_all(piece)
        })?;
        if !there {
            return Ok(None);
        }
        match file {
            Some(file) => file.sync_all()?,
            // An empty object: damaged, as the reader will say.
            None => drop(create()?),
        }
        // Before it gets its name; errors name the object, not a file that is gone.
        open_verified(&staged.0, version, number).map_err(|error| StoreError::Object {
            key: self.full(&name),
            source: Box::new(error),
        })?;
        fs_err::rename(&staged.0, &path)?;
        durable::sync_dir(dir)?;
        Ok(Some(open_verified(&path, version, number)?))
    }

    /// Removes cached versions that are not in `keep`, and their deltas.
    pub(in crate::store) fn trim_cache(&self, keep: &[&str]) -> Result<Vec<String>, StoreError> {
        let mut removed = Vec::new();
        for kind in ["versions", "deltas"] {
            let dir = self.cache.join(kind);
            let Ok(entries) = fs_err::read_dir(&dir) else {
                continue;
            };
            for entry in entries {
                let Ok(id) = entry?.file_name().into_string() else {
                    continue;
                };
                if is_version_id(&id) && !keep.contains(&id.as_str()) {
                    fs_err::remove_dir_all(dir.join(&id))?;
                    removed.push(id);
                }
            }
        }
        removed.sort_unstable();
        removed.dedup();
        Ok(removed)
    }
}

/// Whether all files are there in their length. Their bytes are verified by whoever opens them.
fn is_complete(dir: &Path, manifest: &Manifest) -> bool {
    let length = |name: &str| fs_err::metadata(dir.join(name)).map(|metadata| metadata.len());
    manifest
        .files
        .iter()
        .all(|(name, stated)| length(name).is_ok_and(|bytes| bytes == stated.bytes))
}

/// A file or directory that is removed unless it was renamed away.
struct Removed(PathBuf);

impl Drop for Removed {
    fn drop(&mut self) {
        let _ = fs_err::remove_file(&self.0).or_else(|_| fs_err::remove_dir_all(&self.0));
    }
}
