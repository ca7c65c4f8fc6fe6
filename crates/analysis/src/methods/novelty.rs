//! Does the effect wear off? Effect by time since a unit's first exposure.

use serde::{Deserialize, Serialize};

use super::effect::Effect;
use super::error::{MethodError, check_count, check_lengths};
use super::matrix::Square;

/// A line through estimates.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Trend {
    /// At 0: of a novelty curve, the effect on the first day.
    pub intercept: Effect,
    /// Change for each unit; of a novelty curve, of ln(1 + day): clearly below 0 for a positive effect
    /// is novelty, above it learning.
    pub slope: Effect,
}

/// Weighted least squares of the daily effect on `ln(1 + day)`, day 0 = the first, taking each day's
/// standard error as known and days as independent.
///
/// Only units old enough to have lived through *all* days belong in it; otherwise early and late days
/// are different people. Days of one unit are correlated, so the slope's error is approximate: decide
/// on the change from one week to the next, each unit's own.
///
/// # Errors
/// Fewer than three days, different lengths.
pub fn trend(days: &[u32], effects: &[Effect]) -> Result<Trend, MethodError> {
    check_count("days", 3, days.len() as u64)?;
    let at: Vec<f64> = days
        .iter()
        .map(|day| libm::log1p(f64::from(*day)))
        .collect();
    line(&at, effects)
}

/// Weighted least squares of independent estimates on `at`, their standard errors taken as known: the
/// errors of the line are exact for normal estimates, and do not ask whether a line fits.
///
/// # Errors
/// Fewer than two estimates, different lengths, all at one place.
pub fn line(at: &[f64], effects: &[Effect]) -> Result<Trend, MethodError> {
    check_count("estimates", 2, at.len() as u64)?;
    check_lengths("places and estimates", at.len(), effects.len())?;
    let mut gram = Square::zero(2);
    let mut moment = [0.0; 2];
    for (&x, effect) in at.iter().zip(effects) {
        let row = [1.0, x];
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
