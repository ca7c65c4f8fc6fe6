//! The longest vectors, which lie first: what a search by inner product scores before it walks.
//!
//! How many they are is told by [`crate::heads`]. They are scored in a run, side by side where that is faster
//! ([`Panels`]): a step to begin with, then all others before one of them is kept. So it can be told what score it takes to
//! be among the best of them: where each had to be better only than those before it, some three hundred of three thousand were
//! put among the best 64 on the way.

use std::{cmp::Reverse, collections::BinaryHeap};

use refrain_kernels::{
    Kernels, Lines,
    codes::{CodeRows, Panels, Simd, Task, WIDE},
};

use crate::{
    deadline::Deadline,
    exact::{Reach, STEP, past},
    layout::RUN,
    pool::{Pool, Ranked},
    scratch::{Block, not_below},
    space::{Scores, Space},
    walk::{Admit, Spent, count},
};

/// Rows that are kept side by side: 512 KiB of 64 dimensions, and of no more than 128 is walked.
const FRONT: usize = 8192;

/// Items that are scored before any is kept.
const PIECE: usize = 4096;

/// The first of the rows that are walked, side by side; none where that is not faster.
pub(crate) fn panels(space: &Space<'_>) -> Panels {
    struct Beside<'a>(CodeRows<'a>);

    impl Task for Beside<'_> {
        type Output = Panels;

        fn run<S: Simd>(self, _simd: S) -> Panels {
            let mut panels = Panels::default();
            if S::PANELS {
                panels.set(self.0, 0..FRONT);
            }
            panels
        }
    }

    Kernels::active().run(Beside(space.walked_rows()))
}

/// The first places scanned, under inner product. Fills the pool (and the frontier, of a filtered walk) from them; tells how
/// many were scanned, and whether no item after them can be among the best `k`.
pub(crate) struct Head<'a, Sc> {
    pub(crate) reach: Reach<'a>,
    pub(crate) scorer: &'a Sc,
    /// Items that are scanned in any case, if no fewer tell the answer.
    pub(crate) first: usize,
    /// Past it no more are scanned; the walk then says so.
    pub(crate) deadline: Option<Deadline>,
    /// Items that may be scanned, if then the answer is complete.
    pub(crate) budget: usize,
    /// Which may come back, if not all.
    pub(crate) admit: Option<Admit<'a>>,
    pub(crate) pool: &'a mut Pool,
    pub(crate) frontier: &'a mut BinaryHeap<Reverse<Ranked>>,
    pub(crate) block: &'a mut Block,
    pub(crate) memory: &'a mut Memory,
    pub(crate) spent: &'a mut Spent,
}

impl<Sc: Scores> Task for Head<'_, Sc> {
    type Output = (usize, bool);

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> (usize, bool) {
        let Self {
            reach,
            scorer,
            first,
            deadline,
            budget,
            admit,
            pool,
            frontier,
            block,
            memory,
            spent,
        } = self;
        let space = reach.space;
        let n = space.len();
        let first = first.min(n);
        let scores = &mut *memory.scores;
        let best = &mut memory.best;
        let mut at = 0;
        let mut end = STEP.min(first);
        loop {
            while at < end {
                // Where few are wanted, the first step tells enough.
                let in_steps = at == 0 || admit.is_some() || pool.capacity() <= WIDE;
                let len = (end - at).min(if in_steps { STEP } else { PIECE });
                for from in (0..len).step_by(STEP) {
                    let part = STEP.min(len - from);
                    let steps = &mut block.steps[..part];
                    scorer.steps(at + from, steps);
                    scorer.score_run(simd, at + from, steps, &mut scores[from..from + part]);
                }
                spent.scored(len);
                let floor = match admit {
                    // Whatever is not allowed counts for nothing.
                    Some(_) => f32::NEG_INFINITY,
                    None if at == 0 => floor(simd, &scores[..len], pool.capacity()),
                    None => {
                        let wanted = (pool.capacity(), pool.bar_score());
                        higher_floor(simd, &scores[..len], wanted, best)
                    }
                };
                let mut bar = pool.bar_score().max(floor);
                for from in (0..len).step_by(WIDE) {
                    for slot in not_below(simd, &scores[..], from..len, bar) {
                        let score = scores[slot];
                        if score < bar {
                            continue;
                        }
                        let item = Ranked::new(score, count(at + slot));
                        match admit {
                            None => pool.insert(simd, item),
                            Some(admit) => {
                                frontier.push(Reverse(item));
                                admit.offer(simd, pool, item);
                            }
                        }
                        bar = bar.max(pool.bar_score());
                    }
                }
                at += len;
            }
            // No bound holds for what was dropped by less than all bytes: from a sketch, or from a full group.
            let capped = admit.is_some_and(|admit| admit.cap.is_some());
            let is_bound = !space.is_abridged() && !capped;
            let least = reach.least(pool);
            if is_bound && !reach.goes_on(least, at) {
                return (at, true);
            }
            let may_complete = is_bound && !reach.goes_on(least, budget);
            if (!may_complete && first <= at) || past(deadline) {
                return (at, false);
            }
            if may_complete {
                end = (at + STEP).min(n);
                let mut runs = (at / RUN + 1..end.div_ceil(RUN)).map(|run| run * RUN);
                let none = runs.find(|place| !reach.goes_on(least, *place));
                end = none.unwrap_or(end);
            } else {
                end = first;
            }
        }
    }
}

/// What the scan of a head needs, kept between searches.
#[derive(Debug)]
pub(crate) struct Memory {
    /// Of a piece; some more, so that its last slots are compared with as many after them.
    scores: Lines<f32>,
    /// Of each of some groups.
    best: Vec<[f32; WIDE]>,
}

impl Default for Memory {
    fn default() -> Self {
        let mut scores = Lines::new();
        scores.resize(PIECE + WIDE);
        Self {
            scores,
            best: Vec::new(),
        }
    }
}

/// A score that at least so many of these reach, told without sorting: the least of the best of as many groups or a few
/// more. Minus infinity for more than 64, and where not all groups have a number. With it a pool of ten takes half as many newcomers from its first
/// 256, for what is below it does not have to get in before it is driven out again.
#[inline(always)]
fn floor(simd: impl Simd, scores: &[f32], wanted: usize) -> f32 {
    match wanted {
        0..=16 => least_best::<1>(simd, scores),
        17..=32 => least_best::<2>(simd, scores),
        33..=64 => least_best::<4>(simd, scores),
        _ => f32::NEG_INFINITY,
    }
}

/// Of `16 V` groups, whose members lie that far apart.
#[inline(always)]
fn least_best<const V: usize>(simd: impl Simd, scores: &[f32]) -> f32 {
    let best = simd.greatest::<V>(scores.as_chunks().0, V);
    let least = |best: &[f32; WIDE]| best.iter().copied().fold(f32::INFINITY, f32::min);
    best.iter().map(least).fold(f32::INFINITY, f32::min)
}

/// As [`floor`], but of a higher score: there are at least twice as many groups, and about the `wanted`-th of their best, as
/// near as halving tells, is reached by few more than are wanted (89 for 64). `below` is a score that so many reach already,
/// among these or elsewhere. Minus infinity for up to sixteen, where it would cost more than it saves, where these are fewer than
/// two to a group, and where no higher one is found.
#[inline(always)]
fn higher_floor(
    simd: impl Simd,
    scores: &[f32],
    (wanted, below): (usize, f32),
    best: &mut Vec<[f32; WIDE]>,
) -> f32 {
    const AT_A_TIME: usize = 4;
    let groups = wanted.saturating_mul(2).checked_next_power_of_two();
    let groups = groups.filter(|groups| WIDE < wanted && *groups <= scores.len() / 2);
    let Some(groups) = groups.filter(|_| below.is_finite()) else {
        return f32::NEG_INFINITY;
    };
    let (rows, _) = scores.as_chunks::<WIDE>();
    let stride = groups / WIDE;
    best.clear();
    for first in (0..stride).step_by(AT_A_TIME) {
        best.extend(simd.greatest::<AT_A_TIME>(&rows[first..], stride));
    }
    let reach = |bar: f32| -> usize {
        let mut reached = 0;
        for best in &*best {
            reached += simd.not_below(best, bar).count_ones() as usize;
        }
        reached
    };
    let [top] = simd.greatest::<1>(best, 1);
    let (mut low, mut high) = (below, top.into_iter().fold(f32::NEG_INFINITY, f32::max));
    if reach(low) < wanted {
        return f32::NEG_INFINITY;
    }
    for _ in 0..HALVINGS {
        let middle = f32::midpoint(low, high);
        match reach(middle) >= wanted {
            true => low = middle,
            false => high = middle,
        }
    }
    low
}

/// After which what is left between is a thousandth.
const HALVINGS: usize = 10;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use refrain_kernels::codes::Scalar;

    use super::*;

    proptest! {
        #[test]
        fn as_many_as_are_wanted_reach_the_floor(
            scores in prop::collection::vec(
                prop_oneof![8 => -10_i16..10, 1 => Just(i16::MIN), 1 => Just(i16::MAX)], 0..600),
            wanted in prop_oneof![8 => 0_usize..80, 1 => Just(usize::MAX)],
        ) {
            let score = |value: &i16| match *value {
                i16::MIN => f32::NAN,
                i16::MAX => f32::INFINITY,
                value => f32::from(value),
            };
            let scores: Vec<f32> = scores.iter().map(score).collect();
            let numbers = scores.iter().filter(|score| !score.is_nan()).count();
            let wanted_above = |below: f32| (wanted, below);
            for floor in [
                floor(Scalar, &scores, wanted),
                higher_floor(Scalar, &scores, wanted_above(-11.0), &mut vec![[9.0; WIDE]]),
                higher_floor(Scalar, &scores, wanted_above(3.0), &mut Vec::new()),
            ] {
                let reach = scores.iter().filter(|score| **score >= floor).count();
                prop_assert!(reach >= wanted.min(numbers), "{floor}: {reach} of {wanted}");
                prop_assert!(!floor.is_nan());
            }
        }
    }

    #[test]
    fn a_floor_leaves_out_most() {
        let scores: Vec<f32> = (0_u16..3072)
            .map(|at| f32::from(at.wrapping_mul(1549) % 3072))
            .collect();
        let reach = |scores: &[f32], floor: f32| scores.iter().filter(|s| **s >= floor).count();
        for (wanted, most) in [(10, 80), (16, 80), (32, 130), (64, 210)] {
            let few = &scores[..256];
            let reach = reach(few, floor(Scalar, few, wanted));
            assert!((wanted..most).contains(&reach), "{wanted}: {reach}");
        }
        let higher = |of: usize, wanted: usize, below: f32| {
            higher_floor(Scalar, &scores[..of], (wanted, below), &mut Vec::new())
        };
        for (wanted, most) in [(17, 30), (64, 115), (128, 240), (256, 500)] {
            let reach = reach(&scores, higher(3072, wanted, 0.0));
            assert!((wanted..most).contains(&reach), "{wanted}: {reach}");
        }
        // Not for so few, so many, of so few, where nothing is known, or where too few are higher.
        for (of, wanted, below) in [
            (3072, 16, 0.0),
            (3072, 1025, 0.0),
            (255, 64, 0.0),
            (3072, 64, f32::NEG_INFINITY),
            (3072, 64, 3050.0),
        ] {
            assert_eq!(higher(of, wanted, below), f32::NEG_INFINITY, "{wanted}");
        }
    }
}
