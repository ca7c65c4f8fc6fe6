//! Versions from a bundle store, for the watcher.

use std::sync::Arc;

use refrain_bundle::bundle::OpenError as BundleOpenError;
use refrain_bundle::manifest::{Manifest, ManifestError};
use refrain_bundle::section::OpenError as SectionOpenError;
use refrain_bundle::{Store, StoreError, VerifyError as BundleVerifyError};
use refrain_engine::{OpenError, OpenMode, VerifyError, Version};

use crate::memory;
use crate::versions::{Mapped, Pointer, Refused, Source};

/// A store, and how much of it may be mapped.
#[derive(Debug)]
pub(crate) struct BundleSource {
    pub(crate) store: Arc<Store>,
    /// 0: what memory there is.
    pub(crate) max_mapped_bytes: u64,
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
        let path = self.store.path(version).map_err(missing)?;
        let manifest = Manifest::read(&path).map_err(|error| Refused {
            transient: matches!(error, ManifestError::Io(_)),
            message: error.to_string(),
        })?;
        Ok(manifest_bytes(&manifest))
    }

    fn load(&self, version: &str) -> Result<Version, Refused> {
        let path = self.store.path(version).map_err(missing)?;
        let loaded = Version::open(&path, OpenMode::Map).map_err(|error| Refused {
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
        Ok(loaded)
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
        manifest_bytes(self.manifest())
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
