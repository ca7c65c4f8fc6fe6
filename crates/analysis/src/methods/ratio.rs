//! Ratio metrics: clicks per impression, minutes per session, with units as the independent rows.

use super::effect::{ArmEstimate, Comparison};
use super::error::MethodError;
use super::moments::{PairSummary, count};

/// One arm's ratio `R = Σy / Σd` with the delta method's variance
/// `(s_y²/m_d² + s_d² m_y²/m_d⁴ − 2 s_yd m_y/m_d³) / n` (Deng, Knoblich, Lu 2018).
///
/// # Errors
/// A mean denominator that is not above 0.
pub fn arm(pair: &PairSummary) -> Result<ArmEstimate, MethodError> {
    let (y, d) = (pair.numerator, pair.denominator);
    let mean_d = super::error::check_positive("the mean denominator of a ratio", d.mean)?;
    let ratio = y.mean / mean_d;
    // The same formula as the variance of the linearised y − R d, which cannot go below zero.
    let linearised = y.variance + ratio * (ratio * d.variance - 2.0 * pair.covariance);
    Ok(ArmEstimate {
        n: y.n,
        value: ratio,
        variance: linearised.max(0.0) / (mean_d * mean_d) / count(y.n.max(1)),
    })
}

/// Difference of two ratios.
///
/// Assumes that *units* are independent, however many events each has, and that the mean denominator
/// is many standard errors from 0. A per-event test of the same data rejects far too often. Where the
/// treatment changes the denominator, the ratio may move without anybody clicking more: look at both
/// parts, too.
///
/// # Errors
/// As [`arm`] and [`Comparison::new`].
pub fn compare(control: &PairSummary, treatment: &PairSummary) -> Result<Comparison, MethodError> {
    Comparison::new(arm(control)?, arm(treatment)?)
}
