//! Difference of two means.

use super::effect::{ArmEstimate, Comparison};
use super::error::MethodError;
use super::moments::{Summary, count};

/// One arm's mean: variance `s² / n`, s² over `n − 1`.
#[must_use]
pub fn arm(summary: &Summary) -> ArmEstimate {
    ArmEstimate {
        n: summary.n,
        value: summary.mean,
        variance: summary.variance / count(summary.n.max(1)),
    }
}

/// Difference of means of independent units.
///
/// `δ = m_t − m_c`, `V = s_c²/n_c + s_t²/n_t` (unequal variances; Welch 1947).
///
/// Assumes units independent of each other and the mean near normal (hundreds of units; more with
/// heavy tails). Not for events of which a unit has many: use [`super::ratio`]; not for quantities
/// measured again at every look: use closed windows.
///
/// # Errors
/// As [`Comparison::new`].
pub fn compare(control: &Summary, treatment: &Summary) -> Result<Comparison, MethodError> {
    Comparison::new(arm(control), arm(treatment))
}
