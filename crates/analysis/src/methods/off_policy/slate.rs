//! Off-policy values of whole slates: lists of items of which any may be rewarded.

use serde::{Deserialize, Serialize};

use super::super::effect::{Effect, Interval};
use super::super::error::{MethodError, check_count, check_finite, check_lengths, check_open_unit};
use super::super::moments::Summary;
use super::{Method, Terms, bootstrap};

/// One logged slate; one entry a position.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Slate {
    /// Reward of each position (click, minutes).
    pub rewards: Vec<f64>,
    /// Probability of the item at its position *given the items above it*, under the logging policy.
    /// Their product is the probability of the slate.
    pub logged: Vec<f64>,
    /// The same under the target policy.
    pub target: Vec<f64>,
    /// Probability of the item at its position over all slates, under the logging policy. Only for
    /// [`SlateMethod::Independent`]; may be empty otherwise.
    pub logged_marginal: Vec<f64>,
    /// The same under the target policy.
    pub target_marginal: Vec<f64>,
}

/// What a position's reward may depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SlateMethod {
    /// On the whole slate: no assumption, weights too wild beyond a few positions.
    Standard,
    /// On its own item and position alone (Li, Abbasi-Yadkori, Kveton et al. 2018): steady; wrong where
    /// neighbours compete.
    Independent,
    /// On the items above it, too, as for somebody who reads from the top (reward interaction; McInerney,
    /// Brost, Chandar et al. 2020).
    Cascade,
}

/// Mean reward of a slate under the target policy: inverse propensity scoring with the weights that
/// `method` needs.
///
/// # Errors
/// Fewer than two slates, lengths that differ, logged probabilities outside (0, 1], target ones outside
/// 0..=1, rewards that are not finite, a log without any randomisation.
pub fn slate_value(slates: &[Slate], method: SlateMethod) -> Result<Effect, MethodError> {
    effect(&values(slates, method)?)
}

/// The same with the percentile interval of resampled users: `users` says whose each slate is.
///
/// # Errors
/// As [`slate_value`]; lengths that differ.
pub fn slate_value_by_user(
    slates: &[Slate],
    users: &[u64],
    method: SlateMethod,
    confidence: f64,
) -> Result<(Effect, Interval), MethodError> {
    check_lengths("slates and users", slates.len(), users.len())?;
    check_open_unit("a confidence level", confidence)?;
    let values = values(slates, method)?;
    let terms: Vec<Terms> = values
        .iter()
        .map(|&base| Terms {
            base,
            weight: 0.0,
            residual: 0.0,
        })
        .collect();
    let (interval, _) = bootstrap::interval(users.iter().copied(), &terms, Method::Ips, confidence);
    Ok((effect(&values)?, interval))
}

fn effect(values: &[f64]) -> Result<Effect, MethodError> {
    let summary = Summary::of(values)?;
    Ok(Effect {
        delta: summary.mean,
        se: (summary.variance / super::super::moments::count(summary.n)).sqrt(),
        df: None,
    })
}

/// What each slate adds to the mean.
fn values(slates: &[Slate], method: SlateMethod) -> Result<Vec<f64>, MethodError> {
    check_count("slates", 2, slates.len() as u64)?;
    let mut values = Vec::with_capacity(slates.len());
    let mut randomised = false;
    for slate in slates {
        let (logged, target) = match method {
            SlateMethod::Independent => (&slate.logged_marginal, &slate.target_marginal),
            _ => (&slate.logged, &slate.target),
        };
        check_lengths(
            "rewards and logged probabilities",
            slate.rewards.len(),
            logged.len(),
        )?;
        check_lengths(
            "rewards and target probabilities",
            slate.rewards.len(),
            target.len(),
        )?;
        for ((&l, &t), &r) in logged.iter().zip(target).zip(&slate.rewards) {
            check_finite("a reward", r)?;
            for (p, valid) in [(l, l > 0.0 && l <= 1.0), (t, (0.0..=1.0).contains(&t))] {
                if !valid {
                    return Err(MethodError::OutOfRange {
                        what: "a probability of a slate",
                        value: p,
                        range: "from 0 to 1, and above 0 where logged",
                    });
                }
            }
            randomised |= l < 1.0;
        }
        let ratios = logged.iter().zip(target).map(|(l, t)| t / l);
        values.push(match method {
            SlateMethod::Standard => ratios.product::<f64>() * slate.rewards.iter().sum::<f64>(),
            SlateMethod::Independent => ratios.zip(&slate.rewards).map(|(w, r)| w * r).sum(),
            SlateMethod::Cascade => {
                let mut weight = 1.0;
                let mut sum = 0.0;
                for (ratio, r) in ratios.zip(&slate.rewards) {
                    weight *= ratio;
                    sum += weight * r;
                }
                sum
            }
        });
    }
    if !randomised {
        return Err(MethodError::NotApplicable {
            reason: "the slates were not sampled (every item had probability 1): nothing can be said \
                     about another policy",
        });
    }
    Ok(values)
}
