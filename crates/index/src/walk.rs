//! The walks over one layer of the graph: greedy, beam, and beam under a filter.
//!
//! All of them read links and positions from a file that may be damaged, so no position is used
//! before it is known to be inside its layer, and every loop ends by the visited set or by strict
//! improvement, whatever the links say.

use std::{cmp::Reverse, time::Instant};

use refrain_kernels::{Kernels, Metric, prefetch};

use crate::{
    filter::Filter,
    layout::Layer,
    pool::{Pool, Ranked},
    scratch::{Block, Scratch, Visited},
};

/// How a node scores against what is searched for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scorer<'a> {
    pub(crate) kernels: Kernels,
    pub(crate) metric: Metric,
    pub(crate) query: &'a [f32],
    pub(crate) vectors: &'a [f32],
}

/// What a walk has spent.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Spent {
    pub(crate) hops: u32,
    pub(crate) distance_comps: u32,
}

/// How a walk ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Nothing better could be found from what it had.
    Converged,
    /// The deadline passed.
    Deadline,
    /// It spent its budget.
    Budget,
}

/// What a filtered walk may spend.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) deadline: Option<Instant>,
    /// Vectors scored.
    pub(crate) budget: u32,
}

/// Hops between two looks at the clock.
const HOPS_A_LOOK: u32 = 8;

impl Scorer<'_> {
    /// Scores `block.positions` of a layer into `block.scores`, leaving out positions whose
    /// ordinal is out of range.
    pub(crate) fn score(&self, layer: &Layer<'_>, block: &mut Block, spent: &mut Spent) {
        let Block {
            positions,
            ordinals,
            scores,
        } = block;
        let dim = self.query.len();
        let ids: &[u32] = match layer.items {
            None => positions,
            Some(items) => {
                let n = self.vectors.len() / dim;
                positions.retain(|position| {
                    items
                        .get(*position as usize)
                        .is_some_and(|ordinal| (*ordinal as usize) < n)
                });
                ordinals.clear();
                ordinals.extend(positions.iter().map(|position| items[*position as usize]));
                ordinals
            }
        };
        scores.clear();
        scores.resize(ids.len(), 0.0);
        self.kernels
            .score_ids(self.metric, self.query, self.vectors, dim, ids, scores);
        spent.distance_comps += count(ids.len());
    }
}

/// From `start`, to the neighbour that is better than all, until none is. Returns where it stands.
pub(crate) fn greedy(
    layer: &Layer<'_>,
    scorer: &Scorer<'_>,
    start: u32,
    block: &mut Block,
    spent: &mut Spent,
) -> u32 {
    block.positions.clear();
    block.positions.push(start);
    scorer.score(layer, block, spent);
    let Some(score) = block.scores.first() else {
        return start;
    };
    let mut best = Ranked::new(*score, start);
    loop {
        spent.hops += 1;
        block.positions.clear();
        let row = layer.row(best.position());
        block
            .positions
            .extend(row.iter().filter(|link| (**link as usize) < layer.len));
        scorer.score(layer, block, spent);
        let next = ranked(block).min().unwrap_or(Ranked::WORST);
        if next >= best {
            return best.position();
        }
        best = next;
    }
}

/// Best-first search with a pool (its capacity is `ef`); the pool holds the result.
///
/// Starts from what is in the pool and from `seeds`.
pub(crate) fn beam(
    layer: &Layer<'_>,
    scorer: &Scorer<'_>,
    seeds: &[u32],
    deadline: Option<Instant>,
    (pool, visited, block): (&mut Pool, &mut Visited, &mut Block),
    spent: &mut Spent,
) -> End {
    visit(layer, seeds, visited, block);
    scorer.score(layer, block, spent);
    ranked(block).for_each(|item| pool.insert(item));
    while let Some(node) = pool.expand() {
        if late(deadline, spent.hops) {
            return End::Deadline;
        }
        spent.hops += 1;
        visit(layer, layer.row(node), visited, block);
        scorer.score(layer, block, spent);
        for item in ranked(block) {
            if item < pool.bar() {
                // Most that get in are expanded in the end.
                prefetch(layer.row(item.position()));
                pool.insert(item);
            }
        }
    }
    End::Converged
}

/// Best-first search of the base layer for items that pass a filter: others route, but do not
/// count. `scratch.results` (its capacity is `ef`) holds what was found; the walk goes on until it
/// is full of allowed items better than all that is left, or the limits are met.
pub(crate) fn beam_filtered(
    layer: &Layer<'_>,
    scorer: &Scorer<'_>,
    seeds: &[u32],
    filter: &Filter<'_>,
    limits: Limits,
    scratch: &mut Scratch,
    spent: &mut Spent,
) -> End {
    let Scratch {
        visited,
        results,
        frontier,
        block,
        ..
    } = scratch;
    frontier.clear();
    visit(layer, seeds, visited, block);
    loop {
        scorer.score(layer, block, spent);
        for item in ranked(block) {
            if item < results.bar() {
                frontier.push(Reverse(item));
                if filter.allows(item.position()) {
                    results.insert(item);
                }
            }
        }
        let Some(Reverse(next)) = frontier.pop() else {
            return End::Converged;
        };
        if next >= results.bar() {
            return End::Converged;
        }
        if late(limits.deadline, spent.hops) {
            return End::Deadline;
        }
        if spent.distance_comps > limits.budget {
            return End::Budget;
        }
        spent.hops += 1;
        visit(layer, layer.row(next.position()), visited, block);
    }
}

/// Puts what is new among `links` into the block.
///
/// Whether a link is new is as good as random, and a branch on it would be mispredicted half of
/// the time: every link is written, and the end moves on past the new ones only.
#[inline]
fn visit(layer: &Layer<'_>, links: &[u32], visited: &mut Visited, block: &mut Block) {
    let positions = &mut block.positions;
    positions.resize(links.len(), 0);
    let mut new = 0;
    for &link in links {
        positions[new] = link;
        new += usize::from((link as usize) < layer.len && visited.insert(link));
    }
    positions.truncate(new);
}

/// The positions of a scored block with their scores.
pub(crate) fn ranked(block: &Block) -> impl Iterator<Item = Ranked> + '_ {
    block
        .positions
        .iter()
        .zip(&block.scores)
        .map(|(at, score)| Ranked::new(*score, *at))
}

#[inline]
fn late(deadline: Option<Instant>, hops: u32) -> bool {
    hops.is_multiple_of(HOPS_A_LOOK) && deadline.is_some_and(|at| Instant::now() >= at)
}

/// Lengths here are below 2^31 (`MAX_ITEMS`).
pub(crate) fn count(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}
