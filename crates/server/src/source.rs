//! Versions from a bundle store, for the watcher.

use std::sync::Arc;

use arc_swap::ArcSwap;
use refrain_bundle::bundle::OpenError as BundleOpenError;
use refrain_bundle::manifest::{Manifest, ManifestError};
use refrain_bundle::section::OpenError as SectionOpenError;
use refrain_bundle::{Store, StoreError, VerifyError as BundleVerifyError};
use refrain_engine::{OpenError, OpenMode, Policy, VerifyError, Version};

use crate::memory;
use crate::versions::{Mapped, Pointer, Refused, Source};

/// A store, and how much of it may be mapped.
#[derive(Debug)]
pub(crate) struct BundleSource {
    pub(crate) store: Arc<Store>,
    /// 0: what memory there is.
    pub(crate) max_mapped_bytes: u64,
    pub(crate) mode: OpenMode,
    /// What versions are made ready for.
    pub(crate) policy: Arc<ArcSwap<Policy>>,
}

impl Source for BundleSource {
    type Version = Version;

    fn label(&self, name: &str) -> Result<Option<Pointer>, String> {
        let label = self.store.label(name).map_err(|error| error.to_string())?;
        Ok(label.map(|label| Pointer {
            version: label.version,
            etag: label.etag,
        }))
    }

    fn bytes(&self, version: &str) -> Result<u64, Refused> {
        Ok(manifest_bytes(
            &self.store.manifest(version).map_err(missing)?,
        ))
    }

    fn load(&self, version: &str) -> Result<Version, Refused> {
        let path = self.store.path(version).map_err(missing)?;
        let loaded = Version::open(&path, self.mode).map_err(|error| Refused {
            transient: is_io(&error),
            message: error.to_string(),
        })?;
        loaded.verify().map_err(|error| Refused {
            transient: matches!(error, VerifyError::Bundle(BundleVerifyError::Io(_))),
            message: error.to_string(),
        })?;
        let warmth = loaded.warm().map_err(|error| Refused {
            transient: false,
            message: error.to_string(),
        })?;
        tracing::info!(
            version,
            queries = warmth.queries,
            recall = warmth.recall,
            "warmed"
        );
        // Before it answers: what was taken down must not be seen in between.
        if let Some(fresh) = self.freshen(&loaded)? {
            return Ok(fresh);
        }
        self.policy.load().prepare(&loaded);
        Ok(loaded)
    }

    fn freshen(&self, version: &Version) -> Result<Option<Version>, Refused> {
        let files = self
            .store
            .deltas(version.id(), version.delta())
            .map_err(missing)?;
        if files.is_empty() {
            return Ok(None);
        }
        let fresh = version.with_deltas(&files).map_err(|error| Refused {
            transient: true,
            message: error.to_string(),
        })?;
        self.policy.load().prepare(&fresh);
        Ok(Some(fresh))
    }

    fn in_use(&self, versions: &[&str]) {
        match self.store.trim_cache(versions) {
            Ok(removed) if removed.is_empty() => {}
            Ok(removed) => tracing::info!(?removed, "versions left the cache"),
            Err(error) => tracing::warn!(%error, "the cache cannot be trimmed"),
        }
    }

    fn room(&self) -> Option<u64> {
        match self.max_mapped_bytes {
            0 => memory::available(),
            most => Some(most),
        }
    }
}

impl Mapped for Version {
    fn id(&self) -> &str {
        Self::id(self)
    }

    fn items(&self) -> u64 {
        u64::from(Self::items(self).len())
    }

    fn bytes(&self) -> u64 {
        manifest_bytes(self.manifest()).saturating_add(self.delta_bytes())
    }

    fn delta(&self) -> u64 {
        Self::delta(self)
    }
}

fn manifest_bytes(manifest: &Manifest) -> u64 {
    manifest
        .files
        .values()
        .fold(0, |sum, file| sum.saturating_add(file.bytes))
}

/// A version that the label names and the store does not have may be on its way.
fn missing(error: StoreError) -> Refused {
    Refused {
        message: error.to_string(),
        transient: true,
    }
}

/// Whether the system refused to read, rather than what was read being wrong.
fn is_io(error: &OpenError) -> bool {
    matches!(
        error,
        OpenError::Bundle(
            BundleOpenError::Manifest(ManifestError::Io(_))
                | BundleOpenError::Section(SectionOpenError::Io(_))
        )
    )
}
