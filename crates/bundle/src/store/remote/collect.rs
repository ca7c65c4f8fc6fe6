//! Collection in an object store: the manifest goes first, the labels are read once more, then the rest.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::store::collect::{Collected, Keep, judge};
use crate::store::objects::Listed;

impl Remote {
    pub(in crate::store) fn collect(
        &self,
        keep: Keep,
        dry_run: bool,
        actor: &str,
    ) -> Result<Collected, StoreError> {
        let now = Timestamp::now();
        let mut by_version: BTreeMap<String, Vec<Listed>> = BTreeMap::new();
        for prefix in ["versions/", "deltas/"] {
            for object in self.objects.list(prefix)? {
                let id = object.key[prefix.len()..]
                    .split('/')
                    .next()
                    .unwrap_or_default();
                if is_version_id(id) {
                    by_version.entry(id.to_owned()).or_default().push(object);
                }
            }
        }
        let manifest_of = |id: &str| format!("versions/{id}/{MANIFEST}");
        let mut versions = BTreeMap::new();
        let mut collected = Collected::default();
        let mut leavings = Vec::new();
        for (id, objects) in &by_version {
            if let Some(manifest) = objects.iter().find(|o| o.key == manifest_of(id)) {
                versions.insert(id.clone(), manifest.modified);
                continue;
            }
            // Someone may be at it still: only what nobody has touched for as long as is kept.
            let touched = objects.iter().map(|object| object.modified).max();
            if touched.is_none_or(|at| now.duration_since(at) >= keep.younger_than) {
                leavings.push(id.clone());
            }
        }
        let (kept, doomed) = judge(&versions, &self.label_files()?, keep, now);
        collected.kept = kept;
        let bytes = |id: &str| -> u64 {
            by_version
                .get(id)
                .map_or(0, |objects| objects.iter().map(|object| object.bytes).sum())
        };
        for id in leavings {
            collected.bytes += bytes(&id);
            if !dry_run {
                self.remove(by_version.get(&id))?;
            }
            collected.leavings.push(id);
        }
        for id in doomed {
            if !dry_run && !self.unpublish(&id, by_version.get(&id), actor)? {
                collected.kept.insert(id, "a label moved to it meanwhile");
                continue;
            }
            collected.bytes += bytes(&id);
            collected.versions.push(id);
        }
        Ok(collected)
    }

    /// Takes a version away unless a label has moved to it.
    fn unpublish(
        &self,
        id: &str,
        objects: Option<&Vec<Listed>>,
        actor: &str,
    ) -> Result<bool, StoreError> {
        let key = format!("versions/{id}/{MANIFEST}");
        let Some(manifest) = self.objects.get(&key, MAX_MANIFEST_BYTES)? else {
            return Ok(true);
        };
        self.objects.delete(&key)?;
        let wanted: BTreeSet<String> = self
            .label_files()?
            .into_iter()
            .flat_map(|label| {
                label
                    .history
                    .last()
                    .cloned()
                    .into_iter()
                    .chain([label.version])
            })
            .collect();
        if wanted.contains(id) {
            match self.objects.put(&key, &manifest.bytes, When::Absent) {
                // Published again meanwhile, by the same bytes.
                Ok(()) | Err(ObjectError::Condition { .. }) => return Ok(false),
                Err(error) => return Err(error.into()),
            }
        }
        self.record(AuditLine::new(Timestamp::now(), "collect", actor, id))?;
        self.remove(objects)?;
        Ok(true)
    }

    fn remove(&self, objects: Option<&Vec<Listed>>) -> Result<(), StoreError> {
        for object in objects.into_iter().flatten() {
            self.objects.delete(&object.key)?;
        }
        Ok(())
    }

    fn label_files(&self) -> Result<Vec<LabelFile>, StoreError> {
        let mut labels = Vec::new();
        for name in self.label_names()? {
            labels.extend(self.read_label(&name)?.map(|(file, ..)| file));
        }
        Ok(labels)
    }
}
