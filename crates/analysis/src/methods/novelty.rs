//! Does the effect wear off? Effect by time since a unit's first exposure.

use serde::{Deserialize, Serialize};

use super::effect::Effect;
use super::error::{MethodError, check_count, check_lengths};
use super::matrix::Square;
use super::moments::{PairSummary, count};

/// A trend of the effect over the days since first exposure.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Trend {
    /// Effect on the first day.
    pub intercept: Effect,
    /// Change of the effect for each unit of ln(1 + day). Clearly below 0 for a positive effect:
    /// novelty; above: learning.
    pub slope: Effect,
}

/// Weighted least squares of the daily effect on `ln(1 + day)`, day 0 = the first, taking each day's
/// standard error as known and days as independent.
///
/// Only units old enough to have lived through *all* days belong in it; otherwise early and late days
/// are different people. Days of one unit are correlated, so the slope's error is approximate: decide
/// on [`paired_change`].
///
/// # Errors
/// Fewer than three days, different lengths.
pub fn trend(days: &[u32], effects: &[Effect]) -> Result<Trend, MethodError> {
    check_count("days", 3, days.len() as u64)?;
    check_lengths("days and effects", days.len(), effects.len())?;
    let mut gram = Square::zero(2);
    let mut moment = [0.0; 2];
    for (&day, effect) in days.iter().zip(effects) {
        let row = [1.0, libm::log1p(f64::from(day))];
        let weight = 1.0 / (effect.se * effect.se);
        gram.add_outer(&row, weight);
        for (m, x) in moment.iter_mut().zip(row) {
            *m += weight * x * effect.delta;
        }
    }
    let covariance = gram.inverse("the days")?;
    let fit = covariance.times(&moment);
    let effect = |i: usize| Effect::new(fit[i], covariance.at(i, i).sqrt(), None);
    Ok(Trend {
        intercept: effect(0)?,
        slope: effect(1)?,
    })
}

/// Plain average of several days' effects, days taken as independent: for display beside [`trend`].
///
/// # Errors
/// No days.
pub fn average(effects: &[Effect]) -> Result<Effect, MethodError> {
    check_count("days", 1, effects.len() as u64)?;
    let n = count(effects.len() as u64);
    let delta = effects.iter().map(|e| e.delta).sum::<f64>() / n;
    let variance: f64 = effects.iter().map(|e| e.se * e.se).sum();
    Effect::new(delta, variance.sqrt() / n, None)
}

/// Difference of two averages of disjoint sets of days (late less early), days taken as independent.
///
/// # Errors
/// As [`average`].
pub fn change(early: &[Effect], late: &[Effect]) -> Result<Effect, MethodError> {
    let (early, late) = (average(early)?, average(late)?);
    Effect::new(late.delta - early.delta, early.se.hypot(late.se), None)
}

/// By how much the effect in a late window differs from that in an early one, paired by unit: in each
/// arm, `numerator` is a unit's value in the early window, `denominator` in the late one. Uses the
/// covariance of both, which [`change`] has to ignore.
///
/// # Errors
/// As [`super::effect::Comparison::new`].
pub fn paired_change(
    control: &PairSummary,
    treatment: &PairSummary,
) -> Result<Effect, MethodError> {
    let difference = |arm: &PairSummary| super::moments::Summary {
        n: arm.numerator.n,
        mean: arm.denominator.mean - arm.numerator.mean,
        variance: (arm.numerator.variance + arm.denominator.variance - 2.0 * arm.covariance)
            .max(0.0),
    };
    let comparison = super::mean::compare(&difference(control), &difference(treatment))?;
    Ok(comparison.effect())
}
