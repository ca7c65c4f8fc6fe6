//! Object stores (`s3://`, `gs://`, `az://`) for [`refrain_bundle::Store`], by the `object_store` crate.
//!
//! The crates below the server are synchronous and know no network; `object_store` takes an async
//! runtime, HTTP and TLS. So this crate stands at the edge, and the command line and the server open
//! stores through [`open_store`]. It owns a small runtime and hands every call to it, so a caller may be
//! a plain thread or a thread for blocking work of another runtime.
//!
//! # Time
//! Nothing moves more than 16 MiB in one request, and every request has a timeout and bounded retries
//! with growing pauses; a call that has not ended some seconds after that is given up. `Options` has
//! the figures, `REFRAIN_STORE_TIMEOUT` (seconds, of one request) changes them.
//!
//! # Credentials
//! Come from the environment, as usual: `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_REGION`,
//! `AWS_ENDPOINT`, `AWS_ALLOW_HTTP` and so on, web identity and instance metadata;
//! `GOOGLE_SERVICE_ACCOUNT` or application default credentials; `AZURE_STORAGE_ACCOUNT_NAME`,
//! `AZURE_STORAGE_ACCOUNT_KEY` and so on. None is ever logged.

mod objects;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use refrain_bundle::{Digest, Store, StoreError};

pub use objects::Cloud;

/// How an object store is talked to.
#[derive(Clone, PartialEq, Eq)]
pub struct Options {
    /// For one request: 16 MiB at most.
    pub request_timeout: Duration,
    /// How often a request that fails is repeated.
    pub max_retries: usize,
    /// Settings beside those of the environment, by the names that they have there, in lower case:
    /// `aws_endpoint`.
    pub settings: Vec<(String, String)>,
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Settings may be secrets.
        f.debug_struct("Options")
            .field("request_timeout", &self.request_timeout)
            .field("max_retries", &self.max_retries)
            .finish_non_exhaustive()
    }
}

impl Default for Options {
    /// 30 seconds and 5 retries.
    fn default() -> Self {
        Self {
            request_timeout: Duration::from_secs(30),
            max_retries: 5,
            settings: Vec::new(),
        }
    }
}

impl Options {
    /// The defaults, with what `REFRAIN_STORE_TIMEOUT` says: seconds, 1 to 600.
    ///
    /// # Errors
    /// It says something else.
    pub fn from_env() -> Result<Self, StoreError> {
        let Some(value) = std::env::var_os(TIMEOUT) else {
            return Ok(Self::default());
        };
        let value = value.to_string_lossy();
        let seconds = value
            .parse()
            .ok()
            .filter(|seconds| (1..=600).contains(seconds));
        let seconds = seconds.ok_or_else(|| StoreError::Unusable {
            url: format!("{TIMEOUT}={value}"),
            reason: "expected 1 to 600 seconds".to_owned(),
        })?;
        Ok(Self {
            request_timeout: Duration::from_secs(seconds),
            ..Self::default()
        })
    }
}

const TIMEOUT: &str = "REFRAIN_STORE_TIMEOUT";

/// Opens the store at `url`: `file:///absolute/path` or a plain path, `s3://bucket/prefix`,
/// `gs://bucket/prefix`, `az://container/prefix`. Talks to no one yet.
///
/// What is read of an object store is kept in `cache`, else in `$REFRAIN_CACHE`, else in a directory of
/// its own in the user's cache directory.
///
/// # Errors
/// A URL of another kind, or settings in the environment that cannot be.
pub fn open_store(url: &str, cache: Option<&Path>) -> Result<Store, StoreError> {
    match Store::open(url) {
        Err(StoreError::Scheme { scheme, .. }) if SCHEMES.contains(&scheme.as_str()) => {
            let cloud = Cloud::open(url, &Options::from_env()?)?;
            let cache = cache.map_or_else(|| default_cache(url), Path::to_owned);
            Ok(Store::remote(Arc::new(cloud), cache))
        }
        store => store,
    }
}

const SCHEMES: [&str; 8] = ["s3", "s3a", "gs", "az", "azure", "adl", "abfs", "abfss"];

fn default_cache(url: &str) -> PathBuf {
    let of = |name: &str| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    let base = of("REFRAIN_CACHE")
        .or_else(|| Some(of("XDG_CACHE_HOME")?.join("refrain")))
        .or_else(|| Some(of("HOME")?.join(".cache/refrain")));
    // Two stores never share a directory: version ids are theirs alone.
    base.unwrap_or_else(|| std::env::temp_dir().join("refrain-cache"))
        .join(Digest::of(url.trim_end_matches('/').as_bytes()).short(16))
}
