//! One half-step of training: all rows of one side against the other, in parallel.

use crate::conjugate::{Conjugate, ConjugateScratch};
use crate::gram::gram_in_pool;
use crate::hyper::Hyper;
use crate::interactions::Confidences;
use crate::normal::{Fixed, Observation, Scratch, Side};
use crate::progress::Counter;
use refrain_kernels::Kernels;
use std::sync::{Mutex, PoisonError};

/// Rows a thread takes at a time: enough to amortise the hand-over …
const BLOCK_ROWS: usize = 64;

/// … unless they have as many pairs before: the most popular items often come one after another, and
/// together have a good part of all pairs.
const BLOCK_PAIRS: usize = 4096;

/// Improves every row of one side towards its solution against the fixed other side, from where it is.
/// Both sides are turned on the way, alike. `confidences` are those of the improved side by its rows,
/// `transposed` the same by the fixed side's.
///
/// Returns how far the rows were moved: the norm of the difference over that of the outcome. The error is
/// the lowest unsolvable row. Where single precision failed a row, all are solved exactly, and how far they
/// moved may be no number: nobody takes that for an arrival.
pub(crate) fn improve(
    confidences: Confidences<'_>,
    transposed: Confidences<'_>,
    hyper: &Hyper,
    fixed: &mut [f32],
    improved: &mut [f32],
    counter: &Counter<'_>,
) -> Result<f64, usize> {
    let rank = hyper.rank;
    let gram = gram_in_pool(fixed, rank);
    let Some(mut system) = Conjugate::new(Kernels::active(), &gram, rank, hyper.unobserved_weight)
    else {
        return solve(confidences, hyper, fixed, improved, counter);
    };
    system.turn(fixed);
    system.turn(improved);
    system.observe(fixed, |row| transposed.row(row).1.sum());
    let others = fixed.len() / rank;
    let fixed = &*fixed;
    let blocks = blocks(confidences, improved, rank);
    let moved = for_all_rows(
        rank,
        blocks,
        counter,
        |(scratch, values): &mut (ConjugateScratch, Vec<f32>), row, out| {
            let (observed, confidences) = confidences.row(row);
            values.clear();
            values.extend(confidences);
            let ridge = hyper.ridge(observed.len(), others);
            system.improve(fixed, observed, values, ridge, scratch, out)
        },
    );
    // Single precision and a few steps were not enough somewhere. The rows were told of already.
    moved.or_else(|_| {
        let untold = Counter::new(&(), 0, 1);
        solve(confidences, hyper, fixed, improved, &untold)
    })
}

/// Solves every row of one side against the fixed other side, exactly; returns as [`improve`]. Rotated rows
/// of the fixed side are kept in as much memory as is left of three words a pair, which a step of training
/// has, too.
pub(crate) fn solve(
    confidences: Confidences<'_>,
    hyper: &Hyper,
    fixed: &[f32],
    solved: &mut [f32],
    counter: &Counter<'_>,
) -> Result<f64, usize> {
    let rank = hyper.rank;
    let side = Side::new(hyper, fixed.len() / rank, gram_in_pool(fixed, rank));
    let pairs = confidences.pairs;
    let spare = (pairs.len() * 3 * size_of::<u32>()).saturating_sub(pairs.pair_bytes());
    let rotated = side.rotate(fixed, pairs, spare);
    let fixed = Fixed {
        factors: fixed,
        rotated: rotated.as_ref(),
    };
    let blocks = blocks(confidences, solved, rank);
    for_all_rows(rank, blocks, counter, |scratch: &mut Scratch, row, out| {
        side.solve(fixed, observations(confidences, row), scratch, out)
            .is_ok()
    })
}

/// Solves, exactly, the rows of one side that are zero, against the fixed other side, and leaves all others as they are,
/// but for those of which nothing is observed: they become zero. The error is the lowest unsolvable row.
pub(crate) fn solve_new(
    confidences: Confidences<'_>,
    hyper: &Hyper,
    fixed: &[f32],
    rows: &mut [f32],
) -> Result<(), usize> {
    let rank = hyper.rank;
    let stays = |number: u32, row: &[f32]| {
        let is_known = row.iter().any(|&value| value != 0.0);
        is_known && !confidences.row(number).0.is_empty()
    };
    if (0..)
        .zip(rows.chunks_exact(rank))
        .all(|(number, row)| stays(number, row))
    {
        return Ok(());
    }
    let side = Side::new(hyper, fixed.len() / rank, gram_in_pool(fixed, rank));
    let fixed = Fixed {
        factors: fixed,
        rotated: None,
    };
    let blocks = blocks(confidences, rows, rank);
    let untold = Counter::new(&(), 0, 1);
    let solved = for_all_rows(rank, blocks, &untold, |scratch: &mut Scratch, row, out| {
        stays(row, out)
            || side
                .solve(fixed, observations(confidences, row), scratch, out)
                .is_ok()
    });
    solved.map(|_| ())
}

/// What is observed of a row.
fn observations(confidences: Confidences<'_>, row: u32) -> impl Iterator<Item = Observation> {
    let (others, values) = confidences.row(row);
    let pairs = others.iter().zip(values);
    pairs.map(|(&other, confidence)| Observation {
        other,
        confidence,
        preferred: true,
    })
}

/// Rows that a thread takes at a time, and the first one's number.
type Rows<'a> = (usize, &'a mut [f32]);

/// Cuts the rows of a side into what is about as much work each. It depends on the data only.
fn blocks<'a>(confidences: Confidences<'_>, mut rows: &'a mut [f32], rank: usize) -> Vec<Rows<'a>> {
    let mut blocks = Vec::new();
    let mut first = 0;
    while !rows.is_empty() {
        let (mut len, mut pairs) = (0, 0);
        while len < BLOCK_ROWS && pairs < BLOCK_PAIRS && len * rank < rows.len() {
            // Rows are counted by a u32, so this one fits.
            let row = u32::try_from(first + len).unwrap_or(u32::MAX);
            pairs += confidences.row(row).0.len();
            len += 1;
        }
        let (block, rest) = rows.split_at_mut(len * rank);
        blocks.push((first, block));
        first += len;
        rows = rest;
    }
    blocks
}

/// Puts `one` to every row, which it overwrites; returns how far that moved them. The error is the lowest
/// row for which it is false, whichever thread met one first.
fn for_all_rows<S: Default>(
    rank: usize,
    rows: Vec<Rows<'_>>,
    counter: &Counter<'_>,
    one: impl Fn(&mut S, u32, &mut [f32]) -> bool + Sync,
) -> Result<f64, usize> {
    let block = |(scratch, before): &mut (S, Vec<f32>), (first, rows): Rows<'_>| {
        let mut done = Block::default();
        for (out, row) in rows.chunks_exact_mut(rank).zip(first..) {
            before.clear();
            before.extend_from_slice(out);
            // Rows are counted by a u32, so this one fits.
            if !one(scratch, u32::try_from(row).unwrap_or(u32::MAX), out) {
                done.failed = Some(row);
                break;
            }
            for (&old, &new) in before.iter().zip(&*out) {
                done.moved += (f64::from(new) - f64::from(old)).powi(2);
                done.norm += f64::from(new).powi(2);
            }
        }
        counter.add(rows.len() / rank);
        done
    };
    // Each thread takes the next block when it is done with one: halves, as an iterator cuts them, are
    // of unlike weight.
    let queue = Mutex::new(rows.into_iter().enumerate());
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
    let by_thread = rayon::broadcast(|_| {
        let mut scratch = Default::default();
        let blocks = std::iter::from_fn(next);
        let done = blocks.map(|(at, rows)| (at, block(&mut scratch, rows)));
        done.collect::<Vec<(usize, Block)>>()
    });
    let mut blocks: Vec<(usize, Block)> = by_thread.into_iter().flatten().collect();
    blocks.sort_unstable_by_key(|&(at, _)| at);
    let blocks: Vec<Block> = blocks.into_iter().map(|(_, block)| block).collect();
    if let Some(row) = blocks.iter().find_map(|block| block.failed) {
        return Err(row);
    }
    // Summed in order, so that it does not depend on the threads.
    let moved: f64 = blocks.iter().map(|block| block.moved).sum();
    let norm: f64 = blocks.iter().map(|block| block.norm).sum();
    Ok(if norm > 0.0 {
        (moved / norm).sqrt()
    } else {
        0.0
    })
}

/// What came of a block of rows.
#[derive(Debug, Clone, Copy, Default)]
struct Block {
    /// The first row that could not be solved.
    failed: Option<usize>,
    /// Squared norm of the difference.
    moved: f64,
    /// Squared norm of the outcome.
    norm: f64,
}
