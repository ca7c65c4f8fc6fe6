//! How many units, how much power, how small an effect.

use serde::{Deserialize, Serialize};

use super::error::{MethodError, check_finite, check_open_unit, check_positive};
use super::moments::count;
use super::special::{normal_cdf, normal_upper_quantile};

/// What a metric's sample size depends on.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Target {
    /// Variance of a unit's value. A share p: `p (1 − p)`. A ratio: variance of the linearised
    /// `(y − R d) / m_d`.
    pub variance: f64,
    /// The effect to detect (or the margin of a guardrail), in units of the metric; its sign does not
    /// matter.
    pub effect: f64,
    /// Share of the variance that covariates take away, 0 to below 1.
    pub variance_reduction: f64,
    /// One-sided level of the metric's test ([`super::decision::Levels`]); for a two-sided test, half
    /// of its level.
    pub alpha: f64,
    /// Power of the metric's test ([`super::decision::Levels::power`]).
    pub power: f64,
    /// Factor on the number of units for looking early ([`super::sequential::inflation`]); 1 for a
    /// single look.
    pub inflation: f64,
}

impl Target {
    /// A target with a single look and without covariates.
    #[must_use]
    pub fn new(variance: f64, effect: f64, alpha: f64, power: f64) -> Self {
        Self {
            variance,
            effect,
            variance_reduction: 0.0,
            alpha,
            power,
            inflation: 1.0,
        }
    }

    /// Units an arm: the total
    /// `(1/q_c + 1/q_t) (z_{1−α} + z_{power})² σ² (1 − ρ) / effect²` times the inflation, times the
    /// arm's share, each rounded up. `shares`: of the control and the treatment among all units
    /// counted, above 0; they are scaled to sum to 1.
    ///
    /// # Errors
    /// Numbers outside their ranges.
    pub fn units(&self, shares: [f64; 2]) -> Result<Units, MethodError> {
        self.check()?;
        let [q_c, q_t] = normalised(shares)?;
        check_positive("the size of the effect to detect", self.effect.abs())?;
        let z = normal_upper_quantile(self.alpha) + normal_upper_quantile(1.0 - self.power);
        let total = (1.0 / q_c + 1.0 / q_t) * z * z * self.residual_variance() * self.inflation
            / (self.effect * self.effect);
        let whole = |units: f64| {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "saturates: more units than there are people is an answer"
            )]
            let units = units.ceil().max(2.0) as u64;
            units
        };
        Ok(Units {
            control: whole(total * q_c),
            treatment: whole(total * q_t),
        })
    }

    /// Power with so many units.
    ///
    /// # Errors
    /// Numbers outside their ranges.
    pub fn power_at(&self, units: &Units) -> Result<f64, MethodError> {
        self.check()?;
        check_finite("the effect to detect", self.effect)?;
        let z = self.effect.abs() / self.se_at(units)?;
        Ok(normal_cdf(z - normal_upper_quantile(self.alpha)))
    }

    /// The smallest effect detected with the target's power by so many units.
    ///
    /// # Errors
    /// Numbers outside their ranges.
    pub fn minimum_detectable(&self, units: &Units) -> Result<f64, MethodError> {
        self.check()?;
        let z = normal_upper_quantile(self.alpha) + normal_upper_quantile(1.0 - self.power);
        Ok(z * self.se_at(units)?)
    }

    /// Expected standard error, already as if the inflation's share of units were lost.
    fn se_at(&self, units: &Units) -> Result<f64, MethodError> {
        let n_c = check_positive("units of the control", count(units.control))?;
        let n_t = check_positive("units of the treatment", count(units.treatment))?;
        Ok((self.residual_variance() * self.inflation * (1.0 / n_c + 1.0 / n_t)).sqrt())
    }

    fn residual_variance(&self) -> f64 {
        self.variance * (1.0 - self.variance_reduction)
    }

    fn check(&self) -> Result<(), MethodError> {
        check_positive("the variance of the metric", self.variance)?;
        check_open_unit("a level", self.alpha)?;
        check_open_unit("power", self.power)?;
        check_positive("the inflation", self.inflation)?;
        if !(0.0..1.0).contains(&self.variance_reduction) {
            return Err(MethodError::OutOfRange {
                what: "the share of variance taken away by covariates",
                value: self.variance_reduction,
                range: "from 0 to below 1",
            });
        }
        Ok(())
    }
}

/// Units of both arms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Units {
    /// Units of the control.
    pub control: u64,
    /// Units of the treatment.
    pub treatment: u64,
}

impl Units {
    /// Both arms together.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.control.saturating_add(self.treatment)
    }

    /// Enough for both this and another metric.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        Self {
            control: self.control.max(other.control),
            treatment: self.treatment.max(other.treatment),
        }
    }
}

/// A point of the curve that a planner shows.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct CurvePoint {
    /// Units of both arms at this point.
    pub units: Units,
    /// The smallest effect detected by them.
    pub minimum_detectable: f64,
    /// Power for the target's own effect.
    pub power: f64,
}

/// Smallest detectable effect and power for rising numbers of units of both arms (weeks of traffic,
/// shares of allocation).
///
/// # Errors
/// As [`Target::units`]; a total below 2.
pub fn curve(
    target: &Target,
    shares: [f64; 2],
    totals: &[u64],
) -> Result<Vec<CurvePoint>, MethodError> {
    let [q_c, _] = normalised(shares)?;
    totals
        .iter()
        .map(|&total| {
            super::error::check_count("units of both arms", 2, total)?;
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a share of total"
            )]
            let control = ((count(total) * q_c).round() as u64).clamp(1, total - 1);
            let units = Units {
                control,
                treatment: total - control,
            };
            Ok(CurvePoint {
                units,
                minimum_detectable: target.minimum_detectable(&units)?,
                power: target.power_at(&units)?,
            })
        })
        .collect()
}

fn normalised(shares: [f64; 2]) -> Result<[f64; 2], MethodError> {
    let [c, t] = shares;
    check_positive("the control's share", c)?;
    check_positive("the treatment's share", t)?;
    Ok([c / (c + t), t / (c + t)])
}
