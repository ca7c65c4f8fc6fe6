//! The walks over one layer of the graph: greedy, beam, and beam under a filter.
//!
//! All of them read links and positions from a file that may be damaged, so no position is used
//! before it is known to be inside its layer, and every loop ends by the visited set or by strict
//! improvement, whatever the links say.

use std::{cmp::Reverse, collections::BinaryHeap};

use refrain_kernels::{
    codes::{Scalar, Simd, Task, WIDE},
    prefetch,
};

use crate::{
    cap::Cap,
    deadline::Deadline,
    detour::Detour,
    exact::Reach,
    filter::Filter,
    layout::Layer,
    pool::{Pool, Ranked},
    scratch::{Block, Marks, not_below},
    space::Scores,
};

/// What a walk has spent.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Spent {
    pub(crate) hops: u32,
    pub(crate) distance_comps: u32,
}

impl Spent {
    #[inline(always)]
    pub(crate) fn scored(&mut self, vectors: usize) {
        self.distance_comps = self.distance_comps.saturating_add(count(vectors));
    }
}

/// How a walk ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Nothing better could be found from what it had.
    Converged,
    /// Everything that can be in the answer was scored.
    Complete,
    /// The deadline passed.
    Deadline,
    /// It spent its budget.
    Budget,
}

/// What a filtered walk may spend.
#[derive(Clone, Copy)]
pub(crate) struct Limits<'a> {
    /// How many are wanted.
    pub(crate) k: usize,
    pub(crate) deadline: Option<Deadline>,
    /// Vectors scored.
    pub(crate) budget: u32,
    /// What may be done instead.
    pub(crate) scan: Option<Reach<'a>>,
}

/// Items from which on what a walk reads lies beyond the nearer caches: to ask for it earlier was worth 5 % of 500,000 and cost as
/// much of 41,000 (two virtual cores with two megabytes each). Nothing was measured between 60,000 and there.
const FAR: usize = 100_000;

/// Hops between two looks at the clock.
const HOPS_A_LOOK: u32 = 8;

/// Scores the first `count` positions of a block, which are of the base layer.
#[inline(always)]
pub(crate) fn score<S: Simd>(
    simd: S,
    scorer: &impl Scores,
    block: &mut Block,
    count: usize,
    spent: &mut Spent,
) {
    let places = &block.positions[..count];
    for place in places {
        scorer.prefetch(*place);
    }
    scorer.score(simd, places, &mut block.scores);
    spent.scored(count);
}

/// Scores the first positions of a block, which are of a layer above the base.
#[inline(always)]
fn score_above<S: Simd>(
    simd: S,
    items: &[u32],
    scorer: &impl Scores,
    block: &mut Block,
    count: usize,
    spent: &mut Spent,
) {
    let n = scorer.len();
    for at in 0..count {
        // A damaged file may hold any place; the kernels take those past the end as the last.
        let position = (block.positions[at] as usize).min(items.len() - 1);
        let place = items[position];
        block.places[at] = if (place as usize) < n { place } else { 0 };
        scorer.prefetch(place);
    }
    scorer.score(simd, &block.places[..count], &mut block.scores);
    spent.scored(count);
}

/// From `start`, to the neighbour that is better than all, until none is, on a layer above the
/// base. Returns where it stands.
#[inline(always)]
pub(crate) fn greedy<S: Simd>(
    simd: S,
    layer: &Layer<'_>,
    scorer: &impl Scores,
    start: u32,
    block: &mut Block,
    spent: &mut Spent,
) -> u32 {
    let items = layer.items.unwrap_or_default();
    if items.is_empty() || scorer.len() == 0 {
        return start;
    }
    block.positions[0] = start;
    score_above(simd, items, scorer, block, 1, spent);
    let mut best = Ranked::new(block.scores[0], start);
    loop {
        spent.hops += 1;
        let mut count = 0;
        for &link in layer.row(best.position()) {
            if link as usize >= layer.len {
                break;
            }
            block.positions[count] = link;
            count += 1;
        }
        score_above(simd, items, scorer, block, count, spent);
        let next = ranked(block, count).min().unwrap_or(Ranked::WORST);
        if next >= best {
            return best.position();
        }
        best = next;
    }
}

/// Best-first search of any layer with a pool (its capacity is `ef`); the pool holds the result.
///
/// Starts from what is in the pool and from `seeds`.
pub(crate) struct Beam<'a, Sc> {
    pub(crate) layer: &'a Layer<'a>,
    pub(crate) scorer: &'a Sc,
    pub(crate) seeds: &'a [u32],
    pub(crate) deadline: Option<Deadline>,
    pub(crate) pool: &'a mut Pool,
    pub(crate) marks: Marks<'a>,
    pub(crate) block: &'a mut Block,
    pub(crate) spent: &'a mut Spent,
}

impl<Sc: Scores> Task for Beam<'_, Sc> {
    type Output = End;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> End {
        let Self {
            layer,
            scorer,
            seeds,
            deadline,
            pool,
            mut marks,
            block,
            spent,
        } = self;
        let is_far = layer.items.is_none() && layer.len >= FAR;
        let mut foreseen = None;
        // Seeds may be alike, the links of a row are not.
        let mut count = marks.unseen(Scalar, seeds, &mut block.positions);
        loop {
            match layer.items {
                None => score(simd, scorer, block, count, spent),
                Some(items) => score_above(simd, items, scorer, block, count, spent),
            }
            let mut bar = pool.bar_score();
            for first in (0..count).step_by(WIDE) {
                for slot in not_below(simd, &block.scores, first..count, bar) {
                    let (position, score) = (block.positions[slot], block.scores[slot]);
                    if score >= bar {
                        // Most that get in are expanded in the end.
                        prefetch(layer.row(position));
                        pool.insert(simd, Ranked::new(score, position));
                        bar = pool.bar_score();
                    }
                }
            }
            let Some(node) = pool.expand() else {
                return End::Converged;
            };
            if late(deadline, spent.hops) {
                return End::Deadline;
            }
            spent.hops += 1;
            let links = layer.row(node);
            if is_far && foreseen != Some(node) {
                for &link in links {
                    marks.prefetch(link);
                    scorer.prefetch(link);
                }
            }
            // While these are scored, the memory of those after them comes near.
            if layer.items.is_none() {
                foreseen = pool.next();
                for &link in foreseen.map_or(&[][..], |next| layer.row(next)) {
                    if is_far {
                        marks.prefetch(link);
                    }
                    scorer.prefetch(link);
                }
            }
            count = marks.unseen(simd, links, &mut block.positions);
        }
    }
}

/// Which places may come back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Admit<'a> {
    pub(crate) filter: &'a Filter<'a>,
    /// Place to ordinal.
    pub(crate) ordinals: &'a [u32],
    pub(crate) cap: Option<Cap<'a>>,
}

impl Admit<'_> {
    #[inline(always)]
    pub(crate) fn allows(&self, place: u32) -> bool {
        let ordinal = self.ordinals.get(place as usize);
        ordinal.is_some_and(|ordinal| self.filter.allows(*ordinal))
    }

    /// Takes into the pool what may come back.
    #[inline(always)]
    pub(crate) fn keep(&self, simd: impl Simd, pool: &mut Pool, item: Ranked, ordinal: u32) {
        match self.cap {
            None => pool.insert(simd, item),
            Some(cap) => pool.insert_capped(item, cap.groups.group(ordinal), cap.walked()),
        }
    }

    /// As [`Admit::keep`], if it may come back.
    #[inline(always)]
    pub(crate) fn offer(&self, simd: impl Simd, pool: &mut Pool, item: Ranked) {
        let ordinal = self.ordinals.get(item.position() as usize);
        if let Some(ordinal) = ordinal.filter(|ordinal| self.filter.allows(**ordinal)) {
            self.keep(simd, pool, item, *ordinal);
        }
    }

    /// Which of up to 64 places may: bit `i` for the `i`-th. Asked together, the memory of all comes in
    /// parallel. `ordinals` has room for them.
    #[inline(always)]
    fn mask(&self, places: &[u32], ordinals: &mut [u32]) -> u64 {
        let ordinals = &mut ordinals[..places.len()];
        let mut inside = 0;
        for (at, (place, ordinal)) in places.iter().zip(&mut *ordinals).enumerate() {
            let found = self.ordinals.get(*place as usize);
            inside |= u64::from(found.is_some()) << at;
            *ordinal = found.copied().unwrap_or(u32::MAX);
        }
        inside & self.filter.mask(ordinals)
    }
}

/// Best-first search of the base layer for items that pass a filter: others route, but do not
/// count. The pool (its capacity is `ef`, and grows on a [`Detour`]) holds what was found; the walk
/// goes on until it is full of allowed items better than all that is left, or the limits are met.
#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "inlined into its one caller")]
pub(crate) fn beam_filtered<S: Simd>(
    simd: S,
    layer: &Layer<'_>,
    scorer: &impl Scores,
    seeds: &[u32],
    admit: Admit<'_>,
    limits: Limits<'_>,
    (found, frontier, mut marks, block, sample): (
        &mut Pool,
        &mut BinaryHeap<Reverse<Ranked>>,
        Marks<'_>,
        &mut Block,
        &mut Vec<f32>,
    ),
    spent: &mut Spent,
) -> End {
    let n = scorer.len();
    let widths = (found.capacity(), limits.k);
    let mut detour = Detour::new(widths, (admit.filter.expected(n), n), limits.scan);
    sample.clear();
    let mut count = marks.unseen(Scalar, seeds, &mut block.positions);
    loop {
        score(simd, scorer, block, count, spent);
        let bar = found.bar();
        let mut better = 0;
        for at in 0..count {
            let (place, score) = (block.positions[at], block.scores[at]);
            let item = Ranked::new(score, place);
            if item < bar {
                // Most that get in are expanded in the end.
                prefetch(layer.row(place));
                frontier.push(Reverse(item));
                (block.positions[better], block.scores[better]) = (place, score);
                better += 1;
            }
        }
        for first in (0..better).step_by(64) {
            let places = &block.positions[first..better.min(first + 64)];
            let mut allowed = admit.mask(places, &mut block.places);
            while allowed != 0 {
                let bit = allowed.trailing_zeros() as usize;
                let at = first + bit;
                let item = Ranked::new(block.scores[at], block.positions[at]);
                admit.keep(simd, found, item, block.places[bit]);
                allowed &= allowed - 1;
            }
        }
        let Some(Reverse(next)) = frontier.pop() else {
            return End::Converged;
        };
        if next >= found.bar() {
            return End::Converged;
        }
        if late(limits.deadline, spent.hops) {
            return End::Deadline;
        }
        if spent.distance_comps > limits.budget
            || detour.is_longer(simd, scorer, found, (sample, block), spent)
        {
            return End::Budget;
        }
        spent.hops += 1;
        found.widen(detour.pass(admit.allows(next.position())));
        // While these are scored, the memory of those after them comes near.
        if let Some(Reverse(after)) = frontier.peek() {
            for &link in layer.row(after.position()) {
                scorer.prefetch(link);
            }
        }
        count = marks.unseen(simd, layer.row(next.position()), &mut block.positions);
    }
}

/// The first positions of a scored block with their scores.
#[inline(always)]
pub(crate) fn ranked(block: &Block, count: usize) -> impl Iterator<Item = Ranked> + '_ {
    block.positions[..count]
        .iter()
        .zip(&block.scores)
        .map(|(at, score)| Ranked::new(*score, *at))
}

#[inline]
fn late(deadline: Option<Deadline>, hops: u32) -> bool {
    hops.is_multiple_of(HOPS_A_LOOK) && deadline.is_some_and(Deadline::has_passed)
}

/// Lengths here are below 2^31 (`MAX_ITEMS`).
#[inline(always)]
pub(crate) fn count(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}
