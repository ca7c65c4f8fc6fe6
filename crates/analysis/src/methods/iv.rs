//! Encouragement designs: assignment is random, uptake is not. The effect of *uptake* on those whom the
//! encouragement moved (Angrist, Imbens, Rubin 1996). Here: the variant assigned against the variant
//! actually served.

use serde::{Deserialize, Serialize};

use super::effect::{ConfidenceSet, Effect};
use super::error::{MethodError, check_count, check_open_unit};
use super::moments::{PairSummary, count};
use super::special::normal_upper_quantile;

/// Below this first-stage F the estimate and its standard error are not to be trusted.
pub const WEAK_F: f64 = 10.0;

/// Local average treatment effect and all that must be read beside it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Encouragement {
    /// Effect of being assigned, on the outcome: the metric to decide on.
    pub intention_to_treat: Effect,
    /// Effect of being assigned, on uptake.
    pub first_stage: Effect,
    /// `ITT / first stage`, with the heteroskedasticity-robust standard error of two-stage least
    /// squares (no small-sample factor).
    pub late: Effect,
    /// Standard error of the same ratio by the delta method, variances over n − 1.
    pub se_delta_method: f64,
    /// Intercept of the second stage.
    pub intercept: f64,
    /// Robust first-stage F (no small-sample factor).
    pub f: f64,
    /// `f` below [`WEAK_F`].
    pub weak: bool,
    /// Anderson–Rubin set: right however weak the instrument, hence sometimes unbounded.
    pub anderson_rubin: ConfidenceSet,
}

/// Compares the encouraged arm with the control arm; in each, `numerator` is the outcome and
/// `denominator` the uptake (0/1 or a dose).
///
/// `LATE = (E[y|1] − E[y|0]) / (E[d|1] − E[d|0])`. Assumes that assignment works through uptake alone
/// (exclusion), that nobody does the opposite of the encouragement (monotonicity), and that the
/// encouragement moves somebody (relevance; look at `f`). It is the effect on *those moved*, not on
/// everybody. Decide on the intention to treat; this is context.
///
/// # Errors
/// Fewer than two units in an arm, no variance, identical uptake in both arms, a confidence outside
/// 0..1.
pub fn encouragement(
    control: &PairSummary,
    encouraged: &PairSummary,
    confidence: f64,
) -> Result<Encouragement, MethodError> {
    check_open_unit("a confidence level", confidence)?;
    for arm in [control, encouraged] {
        check_count("units of an arm", 2, arm.numerator.n)?;
    }
    let sampling = |per_unit: &dyn Fn(&PairSummary) -> f64| {
        per_unit(control) / count(control.numerator.n)
            + per_unit(encouraged) / count(encouraged.numerator.n)
    };
    let v_y = sampling(&|a| a.numerator.variance);
    let v_d = sampling(&|a| a.denominator.variance);
    let v_yd = sampling(&|a| a.covariance);
    let effect_y = encouraged.numerator.mean - control.numerator.mean;
    let effect_d = encouraged.denominator.mean - control.denominator.mean;
    if effect_d == 0.0 {
        return Err(MethodError::NotApplicable {
            reason: "the encouragement moved nobody: uptake is the same in both arms",
        });
    }
    let late = effect_y / effect_d;
    // Variance of the structural residual y − late · d, an arm, over n instead of n − 1.
    let residual = |a: &PairSummary| {
        a.numerator.variance + late * (late * a.denominator.variance - 2.0 * a.covariance)
    };
    let biased = |per_unit: &dyn Fn(&PairSummary) -> f64| {
        sampling(&|a| per_unit(a) * count(a.numerator.n - 1) / count(a.numerator.n))
    };
    let robust = biased(&residual).max(0.0).sqrt() / effect_d.abs();
    let f = effect_d * effect_d / biased(&|a| a.denominator.variance);
    let n_control = count(control.numerator.n);
    let n = n_control + count(encouraged.numerator.n);
    let overall = |c: f64, e: f64| (c * n_control + e * (n - n_control)) / n;
    let z = normal_upper_quantile(0.5 * (1.0 - confidence));
    Ok(Encouragement {
        intention_to_treat: Effect::new(effect_y, v_y.sqrt(), None)?,
        first_stage: Effect::new(effect_d, v_d.sqrt(), None)?,
        late: Effect::new(late, robust, None)?,
        se_delta_method: sampling(&residual).max(0.0).sqrt() / effect_d.abs(),
        intercept: overall(control.numerator.mean, encouraged.numerator.mean)
            - late * overall(control.denominator.mean, encouraged.denominator.mean),
        f,
        weak: f < WEAK_F,
        // (δ_y − b δ_d)² ≤ z² (V_y − 2 b V_yd + b² V_d)
        anderson_rubin: ConfidenceSet::of_quadratic(
            effect_d * effect_d - z * z * v_d,
            -2.0 * (effect_y * effect_d - z * z * v_yd),
            effect_y * effect_y - z * z * v_y,
        ),
    })
}
