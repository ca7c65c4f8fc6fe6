//! Which arm for whom: a policy by segment learned from randomised data, and valued on data that it has
//! not seen.

use serde::{Deserialize, Serialize};

use super::effect::{Effect, Interval};
use super::error::{MethodError, check_count, check_lengths, check_open_unit};
use super::moments::{Summary, count};
use super::random::mix;

/// Which half of an honest split a unit belongs to, by a hash of its (already hashed) id: stable over
/// runs, independent of arm and segment if the seed is not that of the assignment.
#[must_use]
pub fn learns(unit_hash: u64, seed: u64) -> bool {
    mix(unit_hash ^ mix(seed)).is_multiple_of(2)
}

/// One segment: the outcome of every arm among learning and among evaluation units.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Segment {
    /// Name.
    pub name: String,
    /// A summary an arm, of the learning half.
    pub learn: Vec<Summary>,
    /// A summary an arm, of the evaluation half.
    pub evaluate: Vec<Summary>,
}

/// What the policy does with one segment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Choice {
    /// Segment.
    pub name: String,
    /// Arm chosen, by number.
    pub arm: usize,
    /// Too few learning units: the best single arm was taken.
    pub fell_back: bool,
}

/// A policy with its value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Policy {
    /// One a segment.
    pub choices: Vec<Choice>,
    /// The arm that is best over everybody, as learned.
    pub best_single_arm: usize,
    /// Mean outcome if everybody were served by the policy.
    pub value: Effect,
    /// Its interval.
    pub interval: Interval,
    /// Mean outcome if everybody were served by the best single arm.
    pub single_value: Effect,
    /// Policy less best single arm.
    pub gain: Effect,
}

/// Learns the best arm of each segment from one half and values the policy on the other.
///
/// Value: segments' means of the chosen arm, weighted by the segments' share of evaluation units: the
/// doubly robust estimate when the outcome model is the mean of segment and arm, and the propensity
/// its share (Athey, Wager 2021; here with finitely many segments). Because learning and evaluation
/// units are different people, the value carries no optimism from having chosen the maximum.
/// `least_units`: fewest learning units an arm for a segment to choose on its own.
///
/// Segments must be known before exposure. With many small segments, most choices are noise: raise
/// `least_units`, or merge segments.
///
/// # Errors
/// No segments, fewer than two arms, different numbers of arms, a chosen arm without two evaluation
/// units in a segment.
pub fn by_segment(
    segments: &[Segment],
    least_units: u64,
    confidence: f64,
) -> Result<Policy, MethodError> {
    check_open_unit("a confidence level", confidence)?;
    check_count("segments", 1, segments.len() as u64)?;
    let arms = segments[0].learn.len();
    check_count("arms", 2, arms as u64)?;
    for segment in segments {
        check_lengths("arms of two segments", segment.learn.len(), arms)?;
        check_lengths("arms of both halves", segment.evaluate.len(), arms)?;
    }
    let best_single_arm = best((0..arms).map(|arm| {
        let weight = |s: &Segment| count(s.learn.iter().map(|a| a.n).sum());
        segments
            .iter()
            .map(|s| weight(s) * s.learn[arm].mean)
            .sum::<f64>()
    }));
    let choices: Vec<Choice> = segments
        .iter()
        .map(|segment| {
            let fell_back = segment.learn.iter().any(|a| a.n < least_units.max(1));
            Choice {
                name: segment.name.clone(),
                arm: if fell_back {
                    best_single_arm
                } else {
                    best(segment.learn.iter().map(|a| a.mean))
                },
                fell_back,
            }
        })
        .collect();
    let total = count(segments.iter().flat_map(|s| &s.evaluate).map(|a| a.n).sum());
    let (mut value, mut single, mut gain) = (Sum::default(), Sum::default(), Sum::default());
    for (segment, choice) in segments.iter().zip(&choices) {
        let share = count(segment.evaluate.iter().map(|a| a.n).sum()) / total;
        if share == 0.0 {
            continue;
        }
        let chosen = &segment.evaluate[choice.arm];
        let reference = &segment.evaluate[best_single_arm];
        check_count("evaluation units of a chosen arm", 2, chosen.n)?;
        check_count("evaluation units of the best single arm", 2, reference.n)?;
        let variance = |s: &Summary| s.variance / count(s.n);
        value.add(share, chosen.mean, variance(chosen));
        single.add(share, reference.mean, variance(reference));
        if choice.arm != best_single_arm {
            gain.add(
                share,
                chosen.mean - reference.mean,
                variance(chosen) + variance(reference),
            );
        }
    }
    // Segments' shares are estimated, too.
    let spread = |of: &Sum| {
        let mut spread = 0.0;
        for (segment, choice) in segments.iter().zip(&choices) {
            let share = count(segment.evaluate.iter().map(|a| a.n).sum()) / total;
            let mean = segment.evaluate[choice.arm].mean;
            spread += share * (mean - of.mean) * (mean - of.mean);
        }
        spread / total
    };
    let value_effect = Effect::new(value.mean, (value.variance + spread(&value)).sqrt(), None)?;
    Ok(Policy {
        best_single_arm,
        interval: value_effect.interval(confidence)?,
        value: value_effect,
        single_value: Effect::new(single.mean, single.variance.sqrt(), None)?,
        // The same policy everywhere: no gain, and nothing uncertain about it.
        gain: Effect {
            delta: gain.mean,
            se: gain.variance.sqrt(),
            df: None,
        },
        choices,
    })
}

#[derive(Default)]
struct Sum {
    mean: f64,
    variance: f64,
}

impl Sum {
    fn add(&mut self, share: f64, mean: f64, variance: f64) {
        self.mean += share * mean;
        self.variance += share * share * variance;
    }
}

/// Place of the largest value, the first of equals.
fn best(values: impl Iterator<Item = f64>) -> usize {
    let mut best = (0, f64::NEG_INFINITY);
    for (i, v) in values.enumerate() {
        if v > best.1 {
            best = (i, v);
        }
    }
    best.0
}
