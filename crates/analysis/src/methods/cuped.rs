//! CUPED: variance reduction by pre-exposure covariates (Deng, Xu, Kohavi, Walker 2013).

use serde::{Deserialize, Serialize};

use super::effect::{ArmEstimate, Comparison, Effect};
use super::error::{MethodError, check_count, check_positive};
use super::matrix::{Square, dot};
use super::moments::{Moments, count};
use super::{mean, ratio};

/// Below this two-sided p-value of the balance test an adjustment is refused.
pub const BALANCE_ALPHA: f64 = 1e-3;

/// An adjusted comparison, and what the adjustment did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Adjusted {
    /// The adjusted arms.
    pub comparison: Comparison,
    /// The same without the covariates.
    pub raw: Comparison,
    /// One coefficient a covariate.
    pub theta: Vec<f64>,
    /// `1 − (se adjusted / se raw)²`: 0.5 means that half the units would do.
    pub variance_reduction: f64,
    /// Two-sided p-values of "the covariate has the same mean in both arms".
    pub balance_p: Vec<f64>,
}

/// Difference of means of column 0, adjusted for all other columns.
///
/// `θ = Var(x)⁻¹ Cov(x, y)` over both arms put together, `y' = y − θ (x − x̄)`; x̄ is over both arms, so
/// the arms' levels stay on the metric's scale.
///
/// Covariates must be known *before* a unit's first exposure. A unit without history gets 0 and a
/// further column that marks it. A covariate that does not vary in either arm is left out (θ 0). Not
/// worth it where the covariate explains under a few per cent; harmless then.
///
/// # Errors
/// [`MethodError::CovariateMoved`] if a covariate differs between the arms at [`BALANCE_ALPHA`];
/// linearly dependent covariates; as [`Comparison::new`].
pub fn compare(control: &Moments, treatment: &Moments) -> Result<Adjusted, MethodError> {
    let raw = mean::compare(&control.summary(0), &treatment.summary(0))?;
    let covariates: Vec<usize> = (1..control.columns()).collect();
    let linear = |m: &Moments| Linear {
        value: m.mean(0),
        variance: m.variance(0),
        covariances: covariates.iter().map(|&j| m.covariance(0, j)).collect(),
    };
    let pooled = control.merged(treatment)?;
    let pooled_covariances: Vec<f64> = covariates
        .iter()
        .map(|&j| pooled.covariance(0, j))
        .collect();
    adjust(
        [control, treatment],
        [linear(control), linear(treatment)],
        raw,
        &covariates,
        &pooled,
        &pooled_covariances,
    )
}

/// Difference of ratios of column 0 over column 1, adjusted for all other columns.
///
/// Each arm's units are linearised, `z = (y − R d) / m_d` with the arm's own R and m_d, whose variance
/// is the delta method's; θ is the pooled regression of `(y − R_c d) / m_d` (control's R, pooled m_d)
/// on the covariates.
///
/// # Errors
/// As [`compare`] and [`ratio::compare`].
pub fn compare_ratio(control: &Moments, treatment: &Moments) -> Result<Adjusted, MethodError> {
    check_count("columns of a ratio", 2, control.columns() as u64)?;
    let raw = ratio::compare(&control.pair(0, 1), &treatment.pair(0, 1))?;
    let covariates: Vec<usize> = (2..control.columns()).collect();
    let linear = |m: &Moments, arm: &ArmEstimate| {
        let d = m.mean(1);
        Linear {
            value: arm.value,
            variance: arm.variance * count(m.n),
            covariances: covariates
                .iter()
                .map(|&j| (m.covariance(0, j) - arm.value * m.covariance(1, j)) / d)
                .collect(),
        }
    };
    let pooled = control.merged(treatment)?;
    let d = check_positive("the mean denominator of a ratio", pooled.mean(1))?;
    let r = raw.control.value;
    let pooled_covariances: Vec<f64> = covariates
        .iter()
        .map(|&j| (pooled.covariance(0, j) - r * pooled.covariance(1, j)) / d)
        .collect();
    adjust(
        [control, treatment],
        [
            linear(control, &raw.control),
            linear(treatment, &raw.treatment),
        ],
        raw,
        &covariates,
        &pooled,
        &pooled_covariances,
    )
}

/// A unit-level quantity whose mean is the estimate: its variance, and its covariances with the
/// covariates.
struct Linear {
    value: f64,
    variance: f64,
    covariances: Vec<f64>,
}

fn adjust(
    arms: [&Moments; 2],
    linear: [Linear; 2],
    raw: Comparison,
    covariates: &[usize],
    pooled: &Moments,
    pooled_covariances: &[f64],
) -> Result<Adjusted, MethodError> {
    let mut balance_p = Vec::with_capacity(covariates.len());
    let mut used = Vec::new();
    for (at, &j) in covariates.iter().enumerate() {
        let varies = arms.iter().any(|m| m.variance(j) > 0.0);
        if varies {
            let p = mean::compare(&arms[0].summary(j), &arms[1].summary(j))?
                .effect()
                .p_two_sided();
            if p < BALANCE_ALPHA {
                return Err(MethodError::CovariateMoved { p });
            }
            balance_p.push(p);
            used.push(at);
        } else if arms[0].mean(j) == arms[1].mean(j) {
            balance_p.push(1.0);
        } else {
            return Err(MethodError::CovariateMoved { p: 0.0 });
        }
    }
    let mut system = Square::zero(used.len());
    for (row, &a) in used.iter().enumerate() {
        for (column, &b) in used.iter().enumerate() {
            *system.at_mut(row, column) = pooled.covariance(covariates[a], covariates[b]);
        }
    }
    let right: Vec<f64> = used.iter().map(|&a| pooled_covariances[a]).collect();
    let solved = system.inverse("the covariates")?.times(&right);
    let mut theta = vec![0.0; covariates.len()];
    for (&at, t) in used.iter().zip(solved) {
        theta[at] = t;
    }
    let adjusted = |m: &Moments, l: &Linear| {
        let mut shift = 0.0;
        let mut within = 0.0;
        for (&j, t) in covariates.iter().zip(&theta) {
            shift += t * (m.mean(j) - pooled.mean(j));
            for (&k, u) in covariates.iter().zip(&theta) {
                within += t * u * m.covariance(j, k);
            }
        }
        let variance = l.variance - 2.0 * dot(&theta, &l.covariances) + within;
        ArmEstimate {
            n: m.n,
            value: l.value - shift,
            variance: variance.max(0.0) / count(m.n),
        }
    };
    let comparison = Comparison::new(adjusted(arms[0], &linear[0]), adjusted(arms[1], &linear[1]))?;
    let Effect { se, .. } = comparison.normal();
    let ratio = se / raw.normal().se;
    Ok(Adjusted {
        comparison,
        raw,
        theta,
        variance_reduction: 1.0 - ratio * ratio,
        balance_p,
    })
}
