//! What would another policy have earned? From a log of truly randomised choices with their
//! probabilities.
//!
//! Only rows whose choice was drawn with a known probability above 0 may enter: exploration slots,
//! sampled slates. A deterministic log has no such rows; treating its choices as drawn with
//! probability 1 would answer another question, and is refused.

mod bootstrap;
mod slate;

use serde::{Deserialize, Serialize};

use super::effect::{Effect, Interval};
use super::error::{MethodError, check_count, check_finite, check_open_unit};
use super::moments::length;

pub use bootstrap::RESAMPLES;
pub use slate::{Slate, SlateMethod, slate_value, slate_value_by_user};

/// One logged choice.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Probability that the logging policy chose what it chose, above 0.
    pub logged: f64,
    /// Probability that the target policy would choose it.
    pub target: f64,
    /// What came of it.
    pub reward: f64,
    /// A model's prediction of the reward of the choice; 0 without a model.
    pub predicted: f64,
    /// The model's prediction averaged over the target policy's choices; 0 without a model.
    pub predicted_target: f64,
    /// Who: rows of one user are resampled together.
    pub user: u64,
}

impl Row {
    fn weight(&self) -> f64 {
        self.target / self.logged
    }
}

/// An estimator of the target policy's mean reward.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// Inverse propensity scoring (Horvitz, Thompson 1952): unbiased; wild where weights are large.
    Ips,
    /// Weights cut at this value (Ionides 2008): less wild, biased downwards for positive rewards.
    Clipped(f64),
    /// Self-normalised (Hájek; Swaminathan, Joachims 2015): the usual choice without a model.
    Snips,
    /// The model alone: as good as the model.
    Direct,
    /// Doubly robust (Dudík, Langford, Li 2011): unbiased if either probabilities or model are right;
    /// the usual choice with a model.
    DoublyRobust,
    /// Doubly robust with weights normalised to mean 1.
    SelfNormalisedDoublyRobust,
    /// Doubly robust with weights `λ w / (w² + λ)` (Su, Dimakopoulou, Krishnamurthy, Dudík 2020).
    Shrunk(f64),
    /// Doubly robust where the weight is at most τ, the model elsewhere (Wang, Agarwal, Dudík 2017).
    Switch(f64),
}

/// Whether the log supports the question at all.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Diagnostics {
    /// Rows.
    pub rows: u64,
    /// `(Σ w)² / Σ w²`: as many rows from the target policy itself would tell as much.
    pub effective_rows: f64,
    /// Mean weight: 1 if the logged probabilities are true.
    pub mean_weight: f64,
    /// z of `mean_weight` against 1.
    pub mean_weight_z: f64,
    /// Largest weight.
    pub max_weight: f64,
    /// Share of rows that the target policy would never choose: they only help normalising.
    pub unsupported: f64,
}

/// An estimate with both errors.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Value {
    /// Mean reward of the target policy, with the standard error of independent rows.
    pub value: Effect,
    /// Percentile interval of resampled users.
    pub interval: Interval,
    /// Standard deviation of the resampled values.
    pub bootstrap_se: f64,
    /// The log's fitness.
    pub diagnostics: Diagnostics,
}

/// |z| of the mean weight from which on logged probabilities are not believed.
pub const WEIGHT_ALARM: f64 = 3.0;

/// Estimates the target policy's value; the interval by resampling users with a fixed seed. O(rows ·
/// [`RESAMPLES`]) at most.
///
/// # Errors
/// Fewer than two rows; probabilities outside their ranges; numbers that are not finite; a log without
/// any randomisation; a mean weight that is not 1 ([`WEIGHT_ALARM`]): the logged probabilities are
/// wrong, or the target policy chooses what the log never tried.
pub fn value(rows: &[Row], method: Method, confidence: f64) -> Result<Value, MethodError> {
    check_open_unit("a confidence level", confidence)?;
    let diagnostics = diagnose(rows)?;
    if rows.iter().all(|r| r.logged >= 1.0) {
        return Err(MethodError::NotApplicable {
            reason: "the log was not randomised (every choice had probability 1): nothing can be \
                     said about another policy; log exploration slots with their probabilities",
        });
    }
    if diagnostics.mean_weight_z.abs() >= WEIGHT_ALARM {
        return Err(MethodError::NotApplicable {
            reason: "the mean importance weight is not 1: the logged probabilities are wrong, or the \
                     target policy chooses what the log never tried",
        });
    }
    let terms: Vec<Terms> = rows.iter().map(|r| method.terms(r)).collect();
    let point = method.combine(terms.iter().copied());
    let n = length(rows.len());
    let se = if method.normalises() {
        // Linearised ratio of Σ w r over Σ w (Owen 2013, §9.2).
        let mean_weight = mean_of(&terms, |t| t.weight);
        let residual = method.normalised_residual(&terms);
        let base = mean_of(&terms, |t| t.base);
        let squares: f64 = terms
            .iter()
            .map(|t| {
                let d = t.base - base + t.weight * (t.residual - residual) / mean_weight;
                d * d
            })
            .sum();
        squares.sqrt() / n
    } else {
        let squares: f64 = terms
            .iter()
            .map(|t| {
                let d = t.base + t.weight * t.residual - point;
                d * d
            })
            .sum();
        (squares / (n - 1.0) / n).sqrt()
    };
    let (interval, bootstrap_se) =
        bootstrap::interval(rows.iter().map(|r| r.user), &terms, method, confidence);
    Ok(Value {
        // No error can be estimated where the model says the same of every row.
        value: Effect {
            delta: point,
            se,
            df: None,
        },
        interval,
        bootstrap_se,
        diagnostics,
    })
}

/// The λ of [`Method::Shrunk`] that promises the least mean squared error on these rows: the variance of
/// the estimate plus the square of the bias that the shrinking brings, `mean((w − w_λ)(r − q))` (Su,
/// Dimakopoulou, Krishnamurthy, Dudík 2020, model selection by direct estimates), over 30 values of λ from
/// `0.01 w²` of the weight that one in 20 is below to `100 w²` of the one that one in 20 is above, evenly by
/// their logarithm. Chosen on the rows that it is used on, so its errors are a little too small.
///
/// # Errors
/// As [`diagnose`].
pub fn shrinkage(rows: &[Row]) -> Result<f64, MethodError> {
    diagnose(rows)?;
    let mut weights: Vec<f64> = rows.iter().map(Row::weight).filter(|w| *w > 0.0).collect();
    weights.sort_by(f64::total_cmp);
    let [Some(low), Some(high)] = [0.05, 0.95].map(|share| {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a share of a length"
        )]
        let rank = (share * (length(weights.len()) - 1.0)).max(0.0) as usize;
        weights.get(rank)
    }) else {
        // No weight at all: nothing to shrink.
        return Ok(1.0);
    };
    let (from, to) = ((0.01 * low * low).ln(), (100.0 * high * high).ln());
    let n = length(rows.len());
    let mut best = (f64::INFINITY, 1.0);
    for step in 0..SHRINKAGES {
        let lambda = (from + (to - from) * f64::from(step) / f64::from(SHRINKAGES - 1)).exp();
        let method = Method::Shrunk(lambda);
        let (mut bias, mut terms) = (0.0, Vec::with_capacity(rows.len()));
        for row in rows {
            let t = method.terms(row);
            terms.push(t.base + t.weight * t.residual);
            bias += (row.weight() - t.weight) * t.residual / n;
        }
        let mean = terms.iter().sum::<f64>() / n;
        let squares: f64 = terms.iter().map(|t| (t - mean) * (t - mean)).sum();
        let error = squares / (n - 1.0) / n + bias * bias;
        if error < best.0 {
            best = (error, lambda);
        }
    }
    Ok(best.1)
}

/// Values of λ that [`shrinkage`] tries.
const SHRINKAGES: u32 = 30;

/// Weights of the log, without an estimate.
///
/// # Errors
/// As [`value`], but for the refusals.
pub fn diagnose(rows: &[Row]) -> Result<Diagnostics, MethodError> {
    check_count("logged choices", 2, rows.len() as u64)?;
    for row in rows {
        if !(row.logged > 0.0 && row.logged <= 1.0) {
            return Err(MethodError::OutOfRange {
                what: "a logged probability",
                value: row.logged,
                range: "above 0, at most 1",
            });
        }
        if !(0.0..=1.0).contains(&row.target) {
            return Err(MethodError::OutOfRange {
                what: "a target probability",
                value: row.target,
                range: "from 0 to 1",
            });
        }
        check_finite("a reward", row.reward)?;
        check_finite("a prediction", row.predicted)?;
        check_finite("a prediction", row.predicted_target)?;
    }
    let n = length(rows.len());
    let sum: f64 = rows.iter().map(Row::weight).sum();
    let squares: f64 = rows.iter().map(|r| r.weight() * r.weight()).sum();
    let mean = sum / n;
    let spread: f64 = rows
        .iter()
        .map(|r| (r.weight() - mean) * (r.weight() - mean))
        .sum();
    let se = (spread / (n - 1.0) / n).sqrt();
    Ok(Diagnostics {
        rows: rows.len() as u64,
        effective_rows: if squares > 0.0 {
            sum * sum / squares
        } else {
            0.0
        },
        mean_weight: mean,
        mean_weight_z: if se > 0.0 {
            (mean - 1.0) / se
        } else if mean == 1.0 {
            0.0
        } else {
            f64::MAX.copysign(mean - 1.0)
        },
        max_weight: rows.iter().map(Row::weight).fold(0.0, f64::max),
        unsupported: length(rows.iter().filter(|r| r.target == 0.0).count()) / n,
    })
}

/// A row's part in an estimate: `base + weight · residual`.
#[derive(Debug, Clone, Copy)]
struct Terms {
    base: f64,
    weight: f64,
    residual: f64,
}

fn mean_of(terms: &[Terms], part: impl Fn(&Terms) -> f64) -> f64 {
    terms.iter().map(part).sum::<f64>() / length(terms.len())
}

impl Method {
    fn terms(self, row: &Row) -> Terms {
        let w = row.weight();
        let robust = |weight: f64| Terms {
            base: row.predicted_target,
            weight,
            residual: row.reward - row.predicted,
        };
        let plain = |weight: f64| Terms {
            base: 0.0,
            weight,
            residual: row.reward,
        };
        match self {
            Self::Ips | Self::Snips => plain(w),
            Self::Clipped(most) => plain(w.min(most)),
            Self::Direct => robust(0.0),
            Self::DoublyRobust | Self::SelfNormalisedDoublyRobust => robust(w),
            Self::Shrunk(lambda) => robust(lambda * w / (w * w + lambda)),
            Self::Switch(tau) => robust(if w <= tau { w } else { 0.0 }),
        }
    }

    fn normalises(self) -> bool {
        matches!(self, Self::Snips | Self::SelfNormalisedDoublyRobust)
    }

    fn normalised_residual(self, terms: &[Terms]) -> f64 {
        let weights: f64 = terms.iter().map(|t| t.weight).sum();
        let sum: f64 = terms.iter().map(|t| t.weight * t.residual).sum();
        if weights > 0.0 { sum / weights } else { 0.0 }
    }

    fn combine(self, terms: impl Iterator<Item = Terms>) -> f64 {
        let (mut n, mut base, mut weights, mut sum) = (0.0, 0.0, 0.0, 0.0);
        for t in terms {
            n += 1.0;
            base += t.base;
            weights += t.weight;
            sum += t.weight * t.residual;
        }
        if n == 0.0 {
            return 0.0;
        }
        let correction = match self.normalises() {
            true if weights > 0.0 => sum / weights,
            true => 0.0,
            false => sum / n,
        };
        base / n + correction
    }
}
