//! Quantiles such as the 99th percentile of latency, with honest errors where a unit has many events.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::effect::{ArmEstimate, Comparison};
use super::error::{MethodError, check_count, check_finite, check_lengths, check_open_unit};
use super::moments::{Tally, count};
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

fn estimate(
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

/// `⌈n ν⌉`, guarded against `0.99 · 1000` being a little more than 990.
fn rank_of(nu: f64, n: u64) -> u64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "clamped to 1..=n"
    )]
    let rank = (count(n) * nu - 1e-9).ceil().clamp(1.0, count(n)) as u64;
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
    estimate(nu, sorted.len() as u64, 1.0, confidence, 0.0, |rank| {
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
    let inflation = inflation(&tally, nu, plain.n)?;
    estimate(nu, plain.n, inflation, confidence, 0.0, |rank| {
        sorted[usize::try_from(rank - 1).unwrap_or(usize::MAX)]
    })
}

/// The spread of ranks from a tally over units of (events up to the quantile, events): for callers that
/// make a second pass over a log too large to sort.
///
/// # Errors
/// Fewer than two units.
pub fn inflation(units: &Tally, nu: f64, events: u64) -> Result<f64, MethodError> {
    check_count("units", 2, units.n())?;
    check_open_unit("a quantile", nu)?;
    let share = ratio::arm(&units.moments().pair(0, 1))?;
    Ok(share.variance / (nu * (1.0 - nu) / count(events)))
}

/// Difference of two quantiles.
///
/// # Errors
/// Different quantiles; no spread in either arm.
pub fn compare(control: &Quantile, treatment: &Quantile) -> Result<Comparison, MethodError> {
    if control.nu != treatment.nu {
        return Err(MethodError::NotApplicable {
            reason: "two different quantiles cannot be compared",
        });
    }
    let arm = |q: &Quantile| ArmEstimate {
        n: q.n,
        value: q.value,
        variance: q.se * q.se,
    };
    Comparison::new(arm(control), arm(treatment))
}

/// Mantissa bits that name a bin.
const BIN_BITS: u32 = 8;

/// Counts in bins of equal relative width, for logs too large to sort. Mergeable in any order. Memory
/// grows with the number of distinct bins: 256 a power of two.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Histogram {
    bins: BTreeMap<u64, u64>,
    n: u64,
}

impl Histogram {
    /// Largest relative error of a value reported for its bin: half a bin.
    pub const RESOLUTION: f64 = 1.0 / 512.0;

    /// Counts one value. O(log bins).
    ///
    /// # Errors
    /// A value that is negative or not finite.
    pub fn add(&mut self, value: f64) -> Result<(), MethodError> {
        check_finite("an event's value", value)?;
        if value < 0.0 {
            return Err(MethodError::OutOfRange {
                what: "an event's value",
                value,
                range: "0 or more in a histogram",
            });
        }
        // Positive floats are ordered like their bits, so leading bits are a logarithmic bin.
        *self
            .bins
            .entry(value.abs().to_bits() >> (52 - BIN_BITS))
            .or_default() += 1;
        self.n += 1;
        Ok(())
    }

    /// Adds all counts of another histogram.
    pub fn merge(&mut self, other: &Self) {
        for (&bin, &c) in &other.bins {
            *self.bins.entry(bin).or_default() += c;
        }
        self.n += other.n;
    }

    /// Values counted.
    #[must_use]
    pub fn n(&self) -> u64 {
        self.n
    }

    /// The value of a rank from 1, to within [`Histogram::RESOLUTION`]; `None` beyond the last.
    #[must_use]
    pub fn at_rank(&self, rank: u64) -> Option<f64> {
        let mut seen = 0;
        let bin = self.bins.iter().find(|(_, c)| {
            seen += *c;
            seen >= rank
        })?;
        let edge = |bin: u64| f64::from_bits(bin << (52 - BIN_BITS));
        if *bin.0 == 0 {
            return Some(0.0);
        }
        Some(0.5 * (edge(*bin.0) + edge(bin.0 + 1)))
    }

    /// Quantile with its interval; `inflation` from [`inflation`], 1 for independent events.
    ///
    /// # Errors
    /// As [`independent`].
    pub fn quantile(
        &self,
        nu: f64,
        inflation: f64,
        confidence: f64,
    ) -> Result<Quantile, MethodError> {
        estimate(
            nu,
            self.n,
            inflation,
            confidence,
            Self::RESOLUTION,
            |rank| self.at_rank(rank).unwrap_or(f64::NAN),
        )
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
