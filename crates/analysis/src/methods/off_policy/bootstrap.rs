//! Resampling of users.

use std::collections::BTreeMap;

use super::super::effect::Interval;
use super::super::moments::length;
use super::super::random::SplitMix;
use super::{Method, Terms};

/// Resampled logs.
pub const RESAMPLES: usize = 1000;
const SEED: u64 = 0x6f70_655f_7631_0001;

/// What a user's rows add up to: all that an estimate needs of them.
#[derive(Debug, Clone, Copy, Default)]
struct User {
    rows: f64,
    base: f64,
    weights: f64,
    sum: f64,
}

/// Percentile interval and deviation of the estimate over resampled users; `of` says whose each term is.
pub(super) fn interval(
    of: impl Iterator<Item = u64>,
    terms: &[Terms],
    method: Method,
    confidence: f64,
) -> (Interval, f64) {
    let mut users: BTreeMap<u64, User> = BTreeMap::new();
    for (user, t) in of.zip(terms) {
        let user = users.entry(user).or_default();
        user.rows += 1.0;
        user.base += t.base;
        user.weights += t.weight;
        user.sum += t.weight * t.residual;
    }
    let users: Vec<User> = users.into_values().collect();
    let mut random = SplitMix::new(SEED);
    let mut values: Vec<f64> = (0..RESAMPLES)
        .map(|_| {
            let mut total = User::default();
            for _ in 0..users.len() {
                let user = users[random.below(users.len())];
                total.rows += user.rows;
                total.base += user.base;
                total.weights += user.weights;
                total.sum += user.sum;
            }
            let correction = if !method.normalises() {
                total.sum / total.rows
            } else if total.weights > 0.0 {
                total.sum / total.weights
            } else {
                0.0
            };
            total.base / total.rows + correction
        })
        .collect();
    values.sort_by(f64::total_cmp);
    let n = length(values.len());
    let mean = values.iter().sum::<f64>() / n;
    let variance = values.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / (n - 1.0);
    let half = 0.5 * (1.0 - confidence);
    let at = |share: f64| {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a share of a small length"
        )]
        let rank = (share * (n - 1.0)).round() as usize;
        values[rank.min(values.len() - 1)]
    };
    (
        Interval {
            low: at(half),
            high: at(1.0 - half),
        },
        variance.sqrt(),
    )
}
