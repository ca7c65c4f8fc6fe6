//! Collection in a directory: versions step aside under the lock, and are removed outside of it.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;

use super::{DELTAS, LABELS, Local, STAGING, VERSIONS, names_in};
use crate::durable;
use crate::manifest::is_version_id;
use crate::store::StoreError;
use crate::store::collect::{Collected, Keep, judge};

impl Local {
    pub(in crate::store) fn collect(
        &self,
        keep: Keep,
        dry_run: bool,
        actor: &str,
    ) -> Result<Collected, StoreError> {
        let mut collected = Collected::default();
        self.leavings(&mut collected, dry_run)?;
        let lock = self.lock()?;
        let mut versions = BTreeMap::new();
        for id in names_in(&self.root.join(VERSIONS))? {
            if is_version_id(&id) {
                let since = fs_err::metadata(self.version_path(&id))?.modified()?;
                versions.insert(
                    id,
                    Timestamp::try_from(since).unwrap_or(Timestamp::UNIX_EPOCH),
                );
            }
        }
        let mut labels = Vec::new();
        for file in names_in(&self.root.join(LABELS))? {
            let name = file.strip_suffix(".json").unwrap_or_default();
            if crate::store::label::is_label(name) {
                labels.extend(self.read_label(name)?.map(|(file, _)| file));
            }
        }
        let (kept, doomed) = judge(&versions, &labels, keep, Timestamp::now());
        collected.kept = kept;
        // Deltas whose version is gone: a collection before this one died in between.
        let mut aside = Vec::new();
        for id in names_in(&self.root.join(DELTAS))? {
            if is_version_id(&id) && !versions.contains_key(&id) {
                aside.push(self.root.join(DELTAS).join(id));
            }
        }
        for version in &doomed {
            aside.push(self.version_path(version));
            aside.push(self.root.join(DELTAS).join(version));
        }
        aside.retain(|path| path.is_dir());
        for path in &aside {
            collected.bytes += bytes_under(path)?;
        }
        if !dry_run {
            durable::create_dir(&self.root.join(STAGING))?;
            let mut removed = Vec::new();
            for path in &aside {
                let name = path
                    .file_name()
                    .map_or_else(String::new, |n| n.to_string_lossy().into());
                let to = self.root.join(STAGING).join(durable::unique_name(&name));
                fs_err::rename(path, &to)?;
                removed.push(to);
            }
            for dir in [VERSIONS, DELTAS] {
                let dir = self.root.join(dir);
                if dir.is_dir() {
                    durable::sync_dir(&dir)?;
                }
            }
            for version in &doomed {
                self.record("collect", version, None, actor)?;
            }
            // From here on they are no versions, whatever happens: nobody needs to wait.
            drop(lock);
            for path in removed {
                remove(&path)?;
            }
        }
        collected.versions = doomed;
        Ok(collected)
    }

    /// What is in `staging/` and no one works on.
    fn leavings(&self, collected: &mut Collected, dry_run: bool) -> Result<(), StoreError> {
        self.require()?;
        for name in names_in(&self.root.join(STAGING))? {
            let path = self.root.join(STAGING).join(&name);
            if !is_dead(&path) {
                continue;
            }
            collected.bytes += bytes_under(&path)?;
            collected.leavings.push(name);
            if !dry_run {
                remove(&path)?;
            }
        }
        Ok(())
    }
}

/// Between making a directory and locking it lies no more than this.
const LOCKED_WITHIN: Duration = Duration::from_secs(60);

/// Whether nobody holds the lock of a staging directory, which the system drops when a process dies.
fn is_dead(path: &Path) -> bool {
    let Ok(dir) = fs_err::File::open(path) else {
        return false;
    };
    let modified = dir.metadata().and_then(|metadata| metadata.modified());
    let young = modified.is_ok_and(|at| {
        SystemTime::now()
            .duration_since(at)
            .is_ok_and(|age| age < LOCKED_WITHIN)
    });
    !young && dir.file().try_lock().is_ok()
}

fn remove(path: &Path) -> Result<(), StoreError> {
    match fs_err::remove_dir_all(path) {
        // Another collection was faster.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        removed => Ok(removed?),
    }
}

fn bytes_under(path: &Path) -> Result<u64, StoreError> {
    let mut bytes = 0;
    for name in names_in(path)? {
        bytes += fs_err::metadata(path.join(name))?.len();
    }
    Ok(bytes)
}
