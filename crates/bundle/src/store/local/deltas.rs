//! Deltas as files, one after another.

use std::path::{Path, PathBuf};

use super::{DELTAS, Local, STAGING, Staging};
use crate::delta::DeltaFile;
use crate::durable;
use crate::store::StoreError;
use crate::store::deltas::{DeltaPublished, PublishDeltaError, checked, file_name, open_verified};

impl Local {
    pub(in crate::store) fn deltas(
        &self,
        version: &str,
        after: u64,
    ) -> Result<Vec<DeltaFile>, StoreError> {
        self.path(version)?;
        let mut files = Vec::new();
        for number in after + 1.. {
            let path = self.delta_path(version, number);
            if !path.is_file() {
                break;
            }
            files.push(open_verified(&path, version, number)?);
        }
        Ok(files)
    }

    pub(in crate::store) fn delta_count(&self, version: &str) -> Result<u64, StoreError> {
        let dir = self.root.join(DELTAS).join(version);
        let names = super::names_in(&dir)?;
        let numbers = names
            .iter()
            .filter_map(|name| crate::store::deltas::number_of(name));
        Ok(numbers.max().unwrap_or(0))
    }

    pub(in crate::store) fn publish_delta(
        &self,
        file: &Path,
        actor: &str,
    ) -> Result<DeltaPublished, PublishDeltaError> {
        let delta = checked(file)?;
        let (version, number) = (&delta.info().version, delta.info().number);
        self.path(version)?;
        for dir in [DELTAS, STAGING] {
            durable::create_dir(&self.root.join(dir))?;
        }
        let dir = self.root.join(DELTAS).join(version);
        durable::create_dir(&dir)?;
        let staging = Staging::create(&self.root, version)?;
        let staged = staging.path.join(file_name(number));
        fs_err::copy(file, &staged)?;
        fs_err::File::open(&staged)?.sync_all()?;
        // What was written, not what was meant: read back before it counts.
        let copy = open_verified(&staged, version, number)?;
        if copy.digest() != delta.digest() {
            return Err(PublishDeltaError::Changed {
                path: file.to_owned(),
            });
        }
        let mut permissions = fs_err::metadata(&staged)?.permissions();
        permissions.set_readonly(true);
        fs_err::set_permissions(&staged, permissions)?;

        let path = self.delta_path(version, number);
        let _lock = self.lock()?;
        // Collection may have been here since.
        self.path(version)?;
        if path.is_file() {
            if open_verified(&path, version, number)?.digest() == delta.digest() {
                return Ok(DeltaPublished::of(&delta, false));
            }
            return Err(PublishDeltaError::Taken {
                version: version.clone(),
                number,
            });
        }
        let before = match number {
            1 => None,
            _ => {
                let path = self.delta_path(version, number - 1);
                Some(open_verified(&path, version, number - 1)?.digest())
            }
        };
        if before != delta.info().parent {
            return Err(PublishDeltaError::Taken {
                version: version.clone(),
                number: number - 1,
            });
        }
        fs_err::rename(&staged, &path)?;
        durable::sync_dir(&dir)?;
        self.record("freshen", version, Some(number), actor)?;
        Ok(DeltaPublished::of(&delta, true))
    }

    fn delta_path(&self, version: &str, number: u64) -> PathBuf {
        let dir = self.root.join(DELTAS).join(version);
        dir.join(file_name(number))
    }
}
