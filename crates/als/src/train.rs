//! Training: alternating half-steps over items and users.

use crate::gram::gram_in_pool;
use crate::hyper::{Hyper, HyperError};
use crate::interactions::Interactions;
use crate::normal::{Fixed, Observation, Scratch, Side};
use crate::random::initial_factors;
use rayon::prelude::*;
use std::sync::atomic::{AtomicU64, Ordering};

/// Rows a thread takes at a time: enough to amortise the hand-over, few enough to balance the load.
const BLOCK_ROWS: usize = 64;

/// Told how far a long job is.
pub trait Progress: Sync {
    /// `done` of `total` units of work are finished. Called from several threads; the last call has
    /// `done == total`, earlier ones may arrive out of order.
    fn advance(&self, done: u64, total: u64);
}

/// No one is told.
impl Progress for () {
    fn advance(&self, _done: u64, _total: u64) {}
}

/// Trained factors, row-major, `rank` values a row.
#[derive(Debug, Clone, PartialEq)]
pub struct Factors {
    /// Number of dimensions.
    pub rank: usize,
    /// `users * rank` values; zero for a user without interactions.
    pub users: Vec<f32>,
    /// `items * rank` values; zero for an item without interactions.
    pub items: Vec<f32>,
}

/// Why training stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// A hyper-parameter is out of range.
    #[error(transparent)]
    Hyper(#[from] HyperError),
    /// There is nothing to learn from.
    #[error("there are no interactions to train on")]
    Empty,
    /// The factors would not fit the address space.
    #[error("{rows} rows of rank {rank} do not fit in memory")]
    TooLarge {
        /// Rows of the larger side.
        rows: u32,
        /// The rank.
        rank: usize,
    },
    /// A row's system is singular, or its solution not finite, even in double precision.
    ///
    /// In exact arithmetic this cannot happen: the system is a sum of positive semidefinite matrices
    /// and a positive multiple of the identity. It takes hyper-parameters some sixteen orders of
    /// magnitude apart.
    #[error(
        "the normal equations of {side} {row} cannot be solved in iteration {iteration}: \
         raise the regularization or lower alpha"
    )]
    Unsolvable {
        /// "user" or "item".
        side: &'static str,
        /// The lowest such row of the half-step.
        row: usize,
        /// The iteration, from 1.
        iteration: usize,
    },
    /// The threads could not be started.
    #[error("cannot start {threads} threads")]
    Threads {
        /// Number of threads asked for.
        threads: usize,
        /// What the pool said.
        source: rayon::ThreadPoolBuildError,
    },
}

/// Trains factors by `hyper.iterations` passes, each solving all items and then all users.
///
/// Starts from seeded user factors and ends with the users' half-step: every user row is the exact
/// fold-in of that user's interactions against the returned item factors. The result does not depend
/// on `threads` (0: one a core). Progress counts solved rows.
///
/// Time at most `O(iterations (n d² + (users + items) d³) / threads)` for `n` interactions at rank `d`,
/// far less where most rows are short; memory: the factors, one more copy of the larger side, and three
/// compressed matrices (the data and the confidences both ways).
///
/// # Errors
/// Hyper-parameters out of range, no interactions, or a system that cannot be solved.
pub fn train(
    data: &Interactions,
    hyper: &Hyper,
    threads: usize,
    progress: &dyn Progress,
) -> Result<Factors, TrainError> {
    hyper.validate()?;
    if data.is_empty() {
        return Err(TrainError::Empty);
    }
    let rank = hyper.rank;
    let (users, items) = (data.users() as usize, data.items() as usize);
    if users
        .max(items)
        .checked_mul(rank * size_of::<f32>())
        .is_none_or(|bytes| bytes > isize::MAX as usize)
    {
        return Err(TrainError::TooLarge {
            rows: data.users().max(data.items()),
            rank,
        });
    }
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()
        .map_err(|source| TrainError::Threads { threads, source })?;
    let by_user = data.map_strengths(|strength| hyper.confidence(strength));
    let by_item = by_user.transposed();
    let counter = Counter {
        done: AtomicU64::new(0),
        total: hyper.iterations as u64 * (users + items) as u64,
        progress,
    };
    let mut factors = Factors {
        rank,
        users: initial_factors(users, rank, hyper.seed),
        items: vec![0.0; items * rank],
    };
    pool.install(|| {
        for iteration in 1..=hyper.iterations {
            half_step(
                &by_item,
                hyper,
                &factors.users,
                &mut factors.items,
                &counter,
            )
            .map_err(|row| TrainError::Unsolvable {
                side: "item",
                row,
                iteration,
            })?;
            half_step(
                &by_user,
                hyper,
                &factors.items,
                &mut factors.users,
                &counter,
            )
            .map_err(|row| TrainError::Unsolvable {
                side: "user",
                row,
                iteration,
            })?;
        }
        Ok(factors)
    })
}

/// Solves every row of one side against the fixed other side. The error is the lowest unsolvable row,
/// whichever thread met one first.
fn half_step(
    confidences: &Interactions,
    hyper: &Hyper,
    fixed: &[f32],
    solved: &mut [f32],
    counter: &Counter<'_>,
) -> Result<(), usize> {
    let rank = hyper.rank;
    let side = Side::new(hyper, fixed.len() / rank, gram_in_pool(fixed, rank));
    let rotated = side.rotate(fixed);
    let fixed = Fixed {
        factors: fixed,
        rotated: rotated.as_deref(),
    };
    let failed = solved
        .par_chunks_mut(BLOCK_ROWS * rank)
        .enumerate()
        .map_init(Scratch::default, |scratch, (block, rows)| {
            let first = block * BLOCK_ROWS;
            let failed = rows
                .chunks_exact_mut(rank)
                .zip(first..)
                .find_map(|(out, row)| {
                    // Rows are counted by a u32, so this one fits.
                    let (others, values) = confidences.user(u32::try_from(row).ok()?);
                    let observations =
                        others
                            .iter()
                            .zip(values)
                            .map(|(&other, &confidence)| Observation {
                                other,
                                confidence,
                                preferred: true,
                            });
                    side.solve(fixed, observations, scratch, out)
                        .err()
                        .map(|_| row)
                });
            counter.add(rows.len() / rank);
            failed
        })
        .flatten()
        .min();
    failed.map_or(Ok(()), Err)
}

/// Solved rows of all threads.
struct Counter<'a> {
    done: AtomicU64,
    total: u64,
    progress: &'a dyn Progress,
}

impl Counter<'_> {
    fn add(&self, rows: usize) {
        let done = self.done.fetch_add(rows as u64, Ordering::Relaxed) + rows as u64;
        self.progress.advance(done, self.total);
    }
}
