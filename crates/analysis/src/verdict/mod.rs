//! From sums to a verdict, with its reasons in plain language.
//!
//! `quality` asks first whether the data can be trusted; if not, the verdict is INVALID and effects
//! are not even computed into the document. `estimate` compares arms, `monitor` says how many
//! standard errors are enough at this look, `judge` holds one against the other, `rule` decides over all
//! metrics, and `say` puts it so that an owner can repeat it. [`document::Analysis`] is the one result; the report is a view
//! of it.

mod account;
pub mod document;
mod estimate;
mod judge;
mod monitor;
mod quality;
mod rule;
mod say;
mod series;
mod staleness;
mod vitals;
pub mod words;

use std::collections::BTreeMap;

pub use document::Analysis;
pub(crate) use judge::{levels, role_name};
pub use monitor::{Look, LookMetric, Looks, LooksError};

use crate::log::RowCounts;
use crate::log::scan::Words;
use crate::log::symbols::Class;
use crate::plan::Plan;
use crate::units::Statistics;

/// Everything that a verdict is made from.
pub(crate) struct Evidence<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) statistics: &'a Statistics,
    pub(crate) words: &'a Words,
    /// What exposures say beside unit and time; none of a table of units.
    pub(crate) classes: &'a [Class],
    pub(crate) cutoff_us: i64,
    /// When the analysis is made, where that is known.
    pub(crate) now_us: Option<i64>,
    /// Rows that writers dropped, by arm.
    pub(crate) dropped: BTreeMap<String, u64>,
    /// Requests that failed and left no exposure, by arm.
    pub(crate) failed: BTreeMap<String, u64>,
    pub(crate) input: Input,
    /// Looks made before this one.
    pub(crate) looks: &'a Looks,
    /// Count this as the last look, whatever the information.
    pub(crate) last: bool,
    /// Variances for quantile metrics, by metric and arm: indicator sums clustered by unit.
    pub(crate) quantiles: &'a crate::units::QuantileSums,
}

/// Where the units came from.
#[derive(Debug, Clone, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Input {
    /// A log of exposures and outcomes.
    Log {
        /// Files of exposures, outcomes, covariates.
        files: [usize; 3],
        /// What became of their rows.
        rows: RowCounts,
        /// Bytes of records that waited in temporary files.
        spilled_bytes: u64,
    },
    /// A table of units that a warehouse made.
    Units {
        /// Its rows.
        rows: u64,
    },
}

/// The verdict and the look that it took.
pub(crate) fn reach(evidence: &Evidence<'_>) -> (Analysis, Look) {
    judge::reach(evidence)
}
