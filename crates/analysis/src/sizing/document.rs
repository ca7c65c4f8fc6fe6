//! The size of an experiment as a document.

use serde::Serialize;

use super::question::{Baseline, Traffic};
use crate::methods::decision::Levels;
use crate::plan::Design;

/// How large an experiment must be.
#[derive(Debug, Clone, Serialize)]
pub struct Size {
    /// Version of this document.
    pub schema: &'static str,
    /// The experiment.
    pub experiment: String,
    /// What it is to find out.
    pub question: String,
    /// Digest of the plan.
    pub digest: String,
    /// How looks are paid for.
    pub design: Design,
    /// Looks it is sized for.
    pub looks: u32,
    /// One-sided levels of the single tests, and the power that each needs.
    pub levels: Levels,
    /// Units of all arms together: `max_units` of the design.
    pub units: u64,
    /// By arm.
    pub arms: Vec<ArmUnits>,
    /// The metric that needs the most.
    pub hungriest: String,
    /// How long it takes, if the traffic is known.
    pub duration: Option<Duration>,
    /// Metrics that decide.
    pub metrics: Vec<MetricSize>,
    /// Metrics that were not sized, and why.
    pub left_out: Vec<LeftOut>,
}

/// Units of one arm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ArmUnits {
    /// The arm.
    pub arm: String,
    /// Its units.
    pub units: u64,
}

/// How long an experiment runs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Duration {
    /// The traffic it was computed from.
    pub traffic: Traffic,
    /// Days until the last unit has come.
    pub intake_days: f64,
    /// Days until the last unit's longest window is over and its outcomes have arrived.
    pub days: f64,
}

/// A metric that decides.
#[derive(Debug, Clone, Serialize)]
pub struct MetricSize {
    /// Its name.
    pub name: String,
    /// `success` or `guardrail`.
    pub role: &'static str,
    /// `superiority` or `non-inferiority`.
    pub test: &'static str,
    /// What is known of it.
    pub baseline: Baseline,
    /// One-sided level of its test.
    pub alpha: f64,
    /// Power of its test.
    pub power: f64,
    /// Factor on the number of units that the looks cost.
    pub inflation: f64,
    /// The effect to detect, or the margin to prove, in the metric's unit.
    pub effect: f64,
    /// Units of all arms that it needs.
    pub units: u64,
    /// Smallest effect (or margin) seen with the planned power by the units of the whole experiment.
    pub detectable: f64,
    /// Power for its own effect with the units of the whole experiment.
    pub achieved_power: f64,
    /// Over numbers of units.
    pub curve: Vec<Point>,
    /// Over weeks of intake, if the traffic is known.
    pub by_week: Vec<Point>,
    /// Over the share of the traffic, at the duration found, if the traffic is known.
    pub by_allocation: Vec<Point>,
}

/// A point of a curve.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Point {
    /// Where: units, weeks or a share.
    pub at: f64,
    /// Units of all arms there.
    pub units: u64,
    /// Smallest effect seen by them with the planned power.
    pub detectable: f64,
    /// Power for the metric's own effect.
    pub power: f64,
}

/// A metric that was not sized.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LeftOut {
    /// Its name.
    pub metric: String,
    /// Why.
    pub why: String,
}
