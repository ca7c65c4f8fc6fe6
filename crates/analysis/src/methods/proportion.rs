//! Difference of two shares.

use serde::{Deserialize, Serialize};

use super::effect::{ArmEstimate, Comparison, Interval};
use super::error::{MethodError, check_open_unit};
use super::moments::{Summary, count};
use super::special::normal_upper_quantile;

/// Units that did, of all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// Units that did.
    pub successes: u64,
    /// All units.
    pub n: u64,
}

impl Share {
    /// From a summary of a 0/1 column.
    ///
    /// # Errors
    /// A mean outside 0..=1.
    pub fn from_summary(summary: &Summary) -> Result<Self, MethodError> {
        if !(0.0..=1.0).contains(&summary.mean) {
            return Err(MethodError::OutOfRange {
                what: "the mean of a yes-or-no metric",
                value: summary.mean,
                range: "from 0 to 1",
            });
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a rounded share of n"
        )]
        let successes = (summary.mean * count(summary.n)).round() as u64;
        Ok(Self {
            successes,
            n: summary.n,
        })
    }

    /// The share.
    #[must_use]
    pub fn rate(&self) -> f64 {
        count(self.successes) / count(self.n.max(1))
    }
}

/// Difference of shares, each with variance `p (1 − p) / n` (unpooled, so that test and interval
/// agree).
///
/// Normal theory: wants ten or more successes and failures in each arm; with fewer, read
/// [`wilson`] intervals of the arms. One 0/1 outcome a unit; clicks per impression are
/// [`super::ratio`].
///
/// # Errors
/// More successes than units, or as [`Comparison::new`].
pub fn compare(control: Share, treatment: Share) -> Result<Comparison, MethodError> {
    let arm = |share: Share| {
        if share.successes > share.n {
            return Err(MethodError::OutOfRange {
                what: "successes",
                value: count(share.successes),
                range: "at most the number of units",
            });
        }
        let p = share.rate();
        Ok(ArmEstimate {
            n: share.n,
            value: p,
            variance: p * (1.0 - p) / count(share.n.max(1)),
        })
    };
    Comparison::new(arm(control)?, arm(treatment)?)
}

/// Interval of a single share that stays inside 0..1 and holds its level for few successes
/// (Wilson 1927).
///
/// # Errors
/// No units, or a confidence outside 0..1.
pub fn wilson(share: Share, confidence: f64) -> Result<Interval, MethodError> {
    super::error::check_count("units", 1, share.n)?;
    check_open_unit("a confidence level", confidence)?;
    let z = normal_upper_quantile(0.5 * (1.0 - confidence));
    let n = count(share.n);
    let p = share.rate();
    let scale = 1.0 + z * z / n;
    let centre = (p + z * z / (2.0 * n)) / scale;
    let half = z / scale * (p * (1.0 - p) / n + z * z / (4.0 * n * n)).sqrt();
    Ok(Interval {
        low: (centre - half).max(0.0),
        high: (centre + half).min(1.0),
    })
}
