//! Fixed-power designs: stop when the estimate is precise enough, then analyse as if nothing had been
//! looked at.
//!
//! Peeking at the *variance* is harmless, peeking at significance is not: sample mean and variance are
//! (for many units nearly) independent, so stopping on precision leaves estimate, interval and p-value
//! as they are. Effects must stay hidden until the stop. For outcomes whose variance follows their mean
//! (shares near 0 or 1, counts), independence is only approximate: fix the number of units instead.

use serde::{Deserialize, Serialize};

use super::error::{MethodError, check_count, check_open_unit, check_positive};
use super::special::normal_upper_quantile;

/// Looks before a stop is allowed: a first variance is too uncertain.
pub const FEWEST_BATCHES: u64 = 2;

/// When to stop.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// When a two-sided test of level `alpha` has power `power` for an effect of size `effect`:
    /// `effect / se ≥ z_{1−α/2} + z_{power}`.
    Power {
        /// Size of the effect in units of the metric, above 0.
        effect: f64,
        /// Two-sided level.
        alpha: f64,
        /// Power.
        power: f64,
    },
    /// When the interval of level 1 − `alpha` is at most this wide on each side:
    /// `z_{1−α/2} se ≤ half_width`.
    Width {
        /// Half width in units of the metric, above 0.
        half_width: f64,
        /// One minus the confidence.
        alpha: f64,
    },
}

/// What to do at a look.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Precise enough, and late enough.
    pub stop: bool,
    /// Precision reached over precision wanted, as a share of units: 1 is the end.
    pub information: f64,
}

impl Rule {
    /// The standard error at which to stop.
    ///
    /// # Errors
    /// Numbers outside their ranges.
    pub fn wanted_se(&self) -> Result<f64, MethodError> {
        match *self {
            Self::Power {
                effect,
                alpha,
                power,
            } => {
                check_positive("the effect to detect", effect)?;
                check_open_unit("a level", alpha)?;
                check_open_unit("power", power)?;
                let z = normal_upper_quantile(0.5 * alpha) + normal_upper_quantile(1.0 - power);
                Ok(effect / check_positive("the sum of both quantiles", z)?)
            }
            Self::Width { half_width, alpha } => {
                check_positive("the half width", half_width)?;
                check_open_unit("a level", alpha)?;
                Ok(half_width / normal_upper_quantile(0.5 * alpha))
            }
        }
    }

    /// Looks at the standard error, and at nothing else.
    ///
    /// # Errors
    /// As [`Rule::wanted_se`]; no batch, no variance.
    pub fn look(&self, se: f64, batches: u64) -> Result<Progress, MethodError> {
        check_count("batches", 1, batches)?;
        check_positive("a standard error", se)?;
        let wanted = self.wanted_se()?;
        let share = wanted / se;
        Ok(Progress {
            stop: batches >= FEWEST_BATCHES && se <= wanted,
            information: share * share,
        })
    }
}

/// The standard error to stop by: with the larger of planned and observed variance in each arm, so that a
/// variance that happens to look small does not end the experiment early. Variances are of the arms'
/// means.
#[must_use]
pub fn cautious_se(planned: [f64; 2], observed: [f64; 2]) -> f64 {
    (planned[0].max(observed[0]) + planned[1].max(observed[1])).sqrt()
}
