//! How a log is read, and what became of its rows.

use std::collections::BTreeMap;
use std::path::PathBuf;

/// How a log is read.
#[derive(Debug, Clone)]
pub struct ReadOptions {
    /// Threads, at least 1.
    pub threads: usize,
    /// Bytes of records held in memory; more goes to temporary files.
    pub memory_bytes: usize,
    /// Where temporary files go.
    pub temp_folder: PathBuf,
    /// Rows at or after this instant (microseconds) are not read: as if it were then.
    pub until_us: Option<i64>,
    /// What to do with an outcome or covariate whose value is null, NaN or infinite: count and drop
    /// it, or fail and say where it is.
    pub drop_bad_values: bool,
}

impl Default for ReadOptions {
    fn default() -> Self {
        Self {
            threads: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            memory_bytes: 768 << 20,
            temp_folder: std::env::temp_dir(),
            until_us: None,
            drop_bad_values: false,
        }
    }
}

/// What became of the rows of a log.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct RowCounts {
    /// Rows of the exposure files.
    pub exposures: u64,
    /// Of them, of this experiment epoch and to be analysed.
    pub analysed: u64,
    /// Of other experiments or none.
    pub other_experiments: u64,
    /// Of this experiment in another epoch.
    pub other_epochs: u64,
    /// Of a holdout's sides, but held out by another holdout.
    pub held_elsewhere: u64,
    /// Forced by an allow-list: never analysed.
    pub forced: u64,
    /// Logged for another reason than a random split, by reason.
    pub other_reasons: BTreeMap<String, u64>,
    /// At or after the cut-off.
    pub after_cutoff: u64,
    /// Rows of the outcome files.
    pub outcomes: u64,
    /// Of events that no metric uses.
    pub other_events: u64,
    /// Of events that a metric uses, but without the exposure and the item that an interleaved list
    /// credits.
    pub uncredited: u64,
    /// Rows of the covariate files.
    pub covariates: u64,
    /// Values that are no number, dropped because that was asked for.
    pub bad_values: u64,
}

impl RowCounts {
    pub(super) fn merge(&mut self, other: Self) {
        self.exposures += other.exposures;
        self.analysed += other.analysed;
        self.other_experiments += other.other_experiments;
        self.other_epochs += other.other_epochs;
        self.held_elsewhere += other.held_elsewhere;
        self.forced += other.forced;
        self.after_cutoff += other.after_cutoff;
        self.outcomes += other.outcomes;
        self.other_events += other.other_events;
        self.uncredited += other.uncredited;
        self.covariates += other.covariates;
        self.bad_values += other.bad_values;
        for (reason, count) in other.other_reasons {
            *self.other_reasons.entry(reason).or_insert(0) += count;
        }
    }
}
