//! From exposures and outcomes to a verdict that an experiment's owner can trust.
//!
//! ```text
//!  plan (TOML) ─┐
//!  log (Parquet)┴─▶ log ──▶ units ──▶ verdict ──▶ report
//!  table of units ────────────┘  ▲        ▲
//!                               sums    methods
//! ```
//!
//! [`plan`] is what the owner declared; [`log`] reads exposures and outcomes in one pass; [`units`] makes
//! one row a unit and adds rows up; [`methods`] holds the statistics, pure functions of such sums;
//! [`verdict`] asks whether the data can be trusted, judges each metric in its role, and says so in
//! plain words; [`report`] draws it; [`sql`] writes the statement by which a warehouse makes the same
//! units. [`shown`] looks at the lists themselves, and at what other policies would have earned. Before it
//! all, [`sizing`] finds how many units are needed; after it, [`archive`] keeps what was decided and
//! [`past`] asks how well offline metrics foretold it. [`panel`] is for changes that could not be
//! randomised by unit. [`simulate`] makes logs whose truth is known.

pub mod analyze;
pub mod archive;
pub mod log;
pub mod methods;
pub mod panel;
pub mod past;
pub mod plan;

pub mod report;
pub mod shown;
pub mod simulate;
pub mod sizing;
pub mod sql;
pub mod units;
pub mod verdict;

pub use analyze::{AnalyzeError, Options, from_log, from_units};
pub use plan::{Plan, PlanError};
pub use verdict::{Analysis, Look, Looks};
