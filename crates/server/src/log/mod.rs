//! The logs of exposures and outcomes: rolling Parquet, written off the request path.
//!
//! A row goes into a bounded queue; when that is full it is dropped and counted, by arm. One thread
//! takes rows out, appends them in checksummed frames to a *spool*, and turns the spool into a Parquet
//! file when it is large or old enough: written beside, synced, renamed. So every file that a reader
//! sees is whole, and a crash loses no more than what was not flushed yet. How many that were is known
//! after a restart: each attempt is counted in a small file that survives the process ([`attempts`]).
//!
//! ```text
//! LOG/.lock                                one server writes a log
//! LOG/exposures/2026-11-25/W-7.parquet     finished files, by day
//! LOG/exposures/.spool-W-8                 in progress, of writer W (a run of a server)
//! LOG/exposures/.attempts-W                how many rows W was asked to write
//! LOG/outcomes/…, LOG/shadow/…             the same for outcomes and comparisons in the dark
//! LOG/exposures/.removed-W                 files of W that were brought up and are not here any more
//! LOG/loss.jsonl                           one line a writer that ended: attempted, written, lost
//! ```
//!
//! Finished files may be copied to an object store ([`upload`]).

mod attempts;
mod columns;
mod exposure;
mod outcome;
mod queue;
mod recovery;
mod seen;
mod shadow;
mod spool;
mod upload;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arrow_array::RecordBatch;
use arrow_schema::{ArrowError, SchemaRef};
use refrain_bundle::store::Objects;
use refrain_experiments::record::{Exposure, Outcome, ShadowRecord};
use serde::Deserialize;

pub(crate) use exposure::Pending;
pub use seen::{seen_events, seen_units};
use upload::Uploader;
pub(crate) use writer::Log;

use crate::metrics::LogMetrics;

/// `[exposures]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct LogConfig {
    /// The directory of the logs; made when it does not exist. `None`: nothing is logged.
    pub path: Option<PathBuf>,
    /// How often rows are brought to disk, in milliseconds: 1 to 60,000. A crash loses at most this.
    pub flush_interval_ms: u64,
    /// Size at which a file is closed, in bytes: 4 KiB to 4 GiB.
    pub roll_bytes: u64,
    /// Age at which a file is closed, in seconds: 1 to 86,400.
    pub roll_seconds: u64,
    /// Rows that wait for the writer, 1 to 1,000,000; beyond, rows are dropped and counted.
    pub queue_rows: usize,
    /// Where finished files are copied to: `s3://`, `gs://` or `az://`, a bucket and a prefix.
    pub upload: Option<String>,
    /// Days after which a file that was copied is removed here, 0 to 3,650; 0 for never.
    pub keep_days: u32,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            path: None,
            flush_interval_ms: 1_000,
            roll_bytes: 64 << 20,
            roll_seconds: 300,
            queue_rows: 65_536,
            upload: None,
            keep_days: 0,
        }
    }
}

impl LogConfig {
    pub(crate) fn out_of_range(&self) -> Option<(&'static str, &'static str)> {
        [
            (
                (1..=60_000).contains(&self.flush_interval_ms),
                ("flush_interval_ms", "1 to 60000"),
            ),
            (
                (4 << 10..=4 << 30).contains(&self.roll_bytes),
                ("roll_bytes", "4096 to 4294967296"),
            ),
            (
                (1..=86_400).contains(&self.roll_seconds),
                ("roll_seconds", "1 to 86400"),
            ),
            (
                (1..=1_000_000).contains(&self.queue_rows),
                ("queue_rows", "1 to 1000000"),
            ),
            (
                self.keep_days <= 3_650 && (self.keep_days == 0 || self.upload.is_some()),
                ("keep_days", "0 to 3650, and 0 without `upload`"),
            ),
        ]
        .into_iter()
        .find_map(|(ok, complaint)| (!ok).then_some(complaint))
    }

    /// How long files stay that were copied.
    fn keep(&self) -> Option<Duration> {
        let day = Duration::from_secs(86_400);
        (self.keep_days > 0).then(|| day * self.keep_days)
    }

    fn flush_interval(&self) -> Duration {
        Duration::from_millis(self.flush_interval_ms)
    }
}

/// A kind of row.
pub(crate) trait Table: Send + Sized + 'static {
    /// Folder of its files.
    const FOLDER: &'static str;
    /// Name and number of its schema.
    const SCHEMA: &'static str;
    /// Its columns.
    fn schema() -> SchemaRef;
    /// Rows as columns.
    fn batch(rows: &[Self], writer: &str) -> Result<RecordBatch, ArrowError>;
    /// Gives the row its place in the writer's sequence.
    fn stamp(&mut self, seq: u64);
    /// Experiment and arm that miss it when it is dropped.
    fn arm(&self) -> (&str, &str);
    /// When it happened, in microseconds since 1970.
    fn ts_us(&self) -> i64;
}

/// Days since 1970 of a time.
fn day_of(ts_us: i64) -> i32 {
    i32::try_from(ts_us.div_euclid(86_400_000_000)).unwrap_or(0)
}

/// The logs, and the lock that keeps another server from them.
#[derive(Debug)]
pub(crate) struct Logs {
    pub(crate) exposures: Arc<Log<Exposure>>,
    pub(crate) outcomes: Arc<Log<Outcome>>,
    pub(crate) shadow: Arc<Log<ShadowRecord>>,
    upload: Option<Uploader>,
    _lock: fs_err::File,
}

impl Logs {
    /// Opens the logs in a directory and brings in order what a crash left there; finished files are
    /// copied to `objects`. Blocks, but does not wait for those.
    pub(crate) fn open(
        config: &LogConfig,
        path: &Path,
        objects: Option<Arc<dyn Objects>>,
        metrics: &LogMetrics,
    ) -> std::io::Result<Self> {
        fs_err::create_dir_all(path)?;
        let lock = fs_err::File::create(path.join(".lock"))?;
        if let Err(error) = lock.file().try_lock() {
            let message = format!(
                "{}: another server writes this log ({error})",
                path.display()
            );
            return Err(std::io::Error::other(message));
        }
        let exposures = Arc::new(Log::open(config, path, metrics)?);
        let outcomes = Arc::new(Log::open(config, path, metrics)?);
        let shadow = Arc::new(Log::open(config, path, metrics)?);
        let folders = vec![Exposure::FOLDER, Outcome::FOLDER, ShadowRecord::FOLDER];
        let upload = objects
            .map(|objects| Uploader::start(path, folders, objects, config.keep(), metrics))
            .transpose()?;
        Ok(Self {
            exposures,
            outcomes,
            shadow,
            upload,
            _lock: lock,
        })
    }

    /// Writes what waits, closes the files and brings them up, as far as that goes in a few seconds.
    /// Blocks.
    pub(crate) fn close(&self) {
        self.exposures.close();
        self.outcomes.close();
        self.shadow.close();
        if let Some(upload) = &self.upload {
            upload.close();
        }
    }
}

#[cfg(test)]
mod tests;
