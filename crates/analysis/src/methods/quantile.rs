//! Quantiles such as the 99th percentile of latency, with honest errors where a unit has many events.

use serde::{Deserialize, Serialize};

use super::effect::ArmEstimate;
use super::error::{MethodError, check_count, check_finite, check_lengths, check_open_unit};
use super::moments::{Moments, Tally, count};
use super::ratio;
use super::special::normal_upper_quantile;

/// A quantile with its rank interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Quantile {
    /// Which: 0.99 for the 99th percentile.
    pub nu: f64,
    /// Events.
    pub n: u64,
    /// The order statistic of rank `⌈n ν⌉`.
    pub value: f64,
    /// Lower end of the interval: an order statistic.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// Ranks of both ends, from 1.
    pub ranks: (u64, u64),
    /// `(high − low) / (2 z)`.
    pub se: f64,
    /// Variance of "share of events up to the quantile" over that of independent events: 1 without
    /// clusters.
    pub inflation: f64,
    /// Largest relative error of `value`, `low` and `high` that comes from binning; 0 for exact input.
    pub resolution: f64,
}

/// Ranks `n (ν ∓ z √(f ν (1 − ν) / n))`, outwards to whole ranks.
fn ranks(nu: f64, n: u64, inflation: f64, z: f64) -> (u64, u64) {
    let centre = count(n) * nu;
    let half = z * (count(n) * nu * (1.0 - nu) * inflation).sqrt();
    let whole = |rank: f64| {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "clamped to 1..=n"
        )]
        let rank = rank.clamp(1.0, count(n)) as u64;
        rank
    };
    (
        whole((centre - half).floor()),
        whole((centre + half).ceil()),
    )
}

/// Quantile of `n` events of which the one of each rank (from 1) is known, to within the relative error
/// `resolution`: for events that were counted in bins. `inflation` from [`inflation`], 1 for independent
/// events; else as [`independent`].
///
/// # Errors
/// Fewer than two events, levels outside 0..1.
pub fn of_ranks(
    nu: f64,
    n: u64,
    inflation: f64,
    confidence: f64,
    resolution: f64,
    at_rank: impl Fn(u64) -> f64,
) -> Result<Quantile, MethodError> {
    check_open_unit("a quantile", nu)?;
    check_open_unit("a confidence level", confidence)?;
    check_count("events", 2, n)?;
    let z = normal_upper_quantile(0.5 * (1.0 - confidence));
    let ranks = ranks(nu, n, inflation, z);
    let (low, high) = (at_rank(ranks.0), at_rank(ranks.1));
    Ok(Quantile {
        nu,
        n,
        value: at_rank(rank_of(nu, n)),
        low,
        high,
        ranks,
        se: (high - low) / (2.0 * z),
        inflation,
        resolution,
    })
}

/// The rank of a quantile: `⌈n ν⌉`, guarded against `0.99 · 1000` being a little more than 990.
#[must_use]
pub fn rank_of(nu: f64, n: u64) -> u64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "clamped to 1..=n"
    )]
    let rank = (count(n) * nu - 1e-9).ceil().clamp(1.0, count(n.max(1))) as u64;
    rank
}

/// Quantile of independent events, `sorted` ascending.
///
/// The interval is that of ranks (Conover 1999, §3.2): no assumption on the distribution, only that
/// events are independent. `se` assumes a smooth density around the quantile, and wants
/// `n (1 − ν)` of ten or more.
///
/// # Errors
/// Fewer than two events, values unsorted or not finite, levels outside 0..1.
pub fn independent(sorted: &[f64], nu: f64, confidence: f64) -> Result<Quantile, MethodError> {
    check_sorted(sorted.iter().copied())?;
    of_ranks(nu, sorted.len() as u64, 1.0, confidence, 0.0, |rank| {
        sorted[usize::try_from(rank - 1).unwrap_or(usize::MAX)]
    })
}

/// Quantile of events that come in units: `units[i]` is the unit (0, 1, …) of the i-th smallest event.
///
/// Ranks are spread by `Var_cluster(Ī) / (ν (1 − ν) / n)`, `I = 1{y ≤ q}`, where Ī over units is a ratio
/// metric whose variance the delta method gives (Deng, Knoblich, Lu 2018, §4.2). Units must be
/// independent.
///
/// # Errors
/// As [`independent`]; fewer than two units.
pub fn clustered(
    sorted: &[f64],
    units: &[usize],
    nu: f64,
    confidence: f64,
) -> Result<Quantile, MethodError> {
    check_lengths("events and their units", sorted.len(), units.len())?;
    let plain = independent(sorted, nu, confidence)?;
    let number = units.iter().max().map_or(0, |m| m + 1);
    let mut counts = vec![[0.0; 2]; number];
    for (&value, &unit) in sorted.iter().zip(units) {
        counts[unit][0] += if value <= plain.value { 1.0 } else { 0.0 };
        counts[unit][1] += 1.0;
    }
    let mut tally = Tally::new(2);
    for row in counts.iter().filter(|row| row[1] > 0.0) {
        tally.push(row)?;
    }
    let inflation = inflation(&tally.moments(), nu, plain.n)?;
    of_ranks(nu, plain.n, inflation, confidence, 0.0, |rank| {
        sorted[usize::try_from(rank - 1).unwrap_or(usize::MAX)]
    })
}

/// The spread of ranks from the moments over units of `[events up to the quantile, events]`: for callers
/// that make a second pass over a log too large to sort.
///
/// # Errors
/// Fewer than two units.
pub fn inflation(units: &Moments, nu: f64, events: u64) -> Result<f64, MethodError> {
    check_count("units", 2, units.n)?;
    check_open_unit("a quantile", nu)?;
    let share = ratio::arm(&units.pair(0, 1))?;
    Ok(share.variance / (nu * (1.0 - nu) / count(events)))
}

/// One arm's quantile over the values of so many units, for [`super::effect::Comparison::new`]: units are
/// what is independent, however many events they have.
#[must_use]
pub fn arm(quantile: &Quantile, units: u64) -> ArmEstimate {
    ArmEstimate {
        n: units,
        value: quantile.value,
        variance: quantile.se * quantile.se,
    }
}

fn check_sorted(values: impl Iterator<Item = f64>) -> Result<(), MethodError> {
    let mut last = f64::NEG_INFINITY;
    for v in values {
        check_finite("an event's value", v)?;
        if v < last {
            return Err(MethodError::OutOfRange {
                what: "an event's value",
                value: v,
                range: "sorted ascending",
            });
        }
        last = v;
    }
    Ok(())
}
