//! From records to units, and from units to sums.
//!
//! `fold` turns all records of a unit into one `UnitRow`: its arm and first exposure, what the
//! policies say about it, and a value for each metric. [`statistics::Statistics`] adds rows up; sums
//! are exact, so they merge in any order to the same bits. `table` reads the same rows from a
//! Parquet table that a warehouse made.

pub(crate) mod fold;
pub(crate) mod histogram;
pub mod statistics;
pub(crate) mod table;

pub use statistics::Statistics;
pub use table::UnitsError;

use std::collections::BTreeMap;

use crate::log::symbols::Class;
use crate::methods::interleaving::Sessions;
use crate::methods::moments::Moments;

/// By quantile metric and arm: each unit's values at or below the arm's quantile, and all its values.
pub(crate) type QuantileSums = BTreeMap<(u16, u16), Moments>;

/// A unit of an experiment, as the analysis sees it.
#[derive(Debug, Clone)]
pub(crate) struct UnitRow {
    /// What its first exposure said.
    pub(crate) class: Class,
    /// First exposure, microseconds since 1970 UTC.
    pub(crate) first_us: i64,
    /// Seen in more than one arm.
    pub(crate) multi_arm: bool,
    /// A bot by flag or by rate.
    pub(crate) bot: bool,
    /// One a metric.
    pub(crate) values: Vec<Value>,
    /// Distinct exposures in which each arm was served, and all of them.
    pub(crate) served: (Vec<u32>, u32),
    /// Age at which the unit first took up what its arm offers.
    pub(crate) uptake_us: Option<i64>,
    /// Of an interleaved experiment: sessions by metric, and whose item came first.
    pub(crate) sessions: Vec<Sessions>,
    pub(crate) first_picks: [u64; 2],
}

/// A unit's value of a metric.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Value {
    /// Its window is not over.
    Immature,
    /// Its window is over and nothing happened, and the metric does not say that this is 0.
    Missing,
    /// Numerator, denominator (0 unless a ratio), and the covariate where there is one.
    Known { y: f64, d: f64, x: Option<f64> },
    /// Of a metric measured every day: days so far, their mean and their sum of squares about it.
    Daily { days: u16, mean: f64, within: f64 },
}
