//! Training: alternating half-steps over items and users.

use crate::align::rotation;
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
    /// Factors to start from that do not fit the data.
    #[error("{what} has {got} values where {expected} are due")]
    Shape {
        /// Which.
        what: &'static str,
        /// How many there are.
        got: usize,
        /// How many there must be.
        expected: usize,
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
    let mut trainer = Trainer::new(data, hyper, threads)?;
    while trainer.iteration() < hyper.iterations {
        trainer.step(progress)?;
    }
    Ok(trainer.into_factors())
}

/// A training run that can be watched, stopped and taken up again between its iterations.
///
/// All that an iteration needs of those before it are the user factors, so they and the number of
/// iterations are a checkpoint: a [`resumed`](Trainer::resume) run ends in the same bytes.
#[derive(Debug)]
pub struct Trainer {
    hyper: Hyper,
    by_user: Interactions,
    by_item: Interactions,
    factors: Factors,
    iteration: usize,
    moved: f64,
    pool: rayon::ThreadPool,
}

impl Trainer {
    /// A run before its first iteration, from seeded user factors. `hyper.iterations` only scales
    /// what progress reports: how often to [`step`](Trainer::step) is the caller's choice.
    ///
    /// # Errors
    /// Hyper-parameters out of range, or no interactions.
    pub fn new(data: &Interactions, hyper: &Hyper, threads: usize) -> Result<Self, TrainError> {
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
        Ok(Self {
            hyper: *hyper,
            by_item: by_user.transposed(),
            by_user,
            factors: Factors {
                rank,
                users: initial_factors(users, rank, hyper.seed),
                items: vec![0.0; items * rank],
            },
            iteration: 0,
            moved: f64::INFINITY,
            pool,
        })
    }

    /// Takes up a run after `iteration` iterations, with the user factors it then had
    /// ([`Factors::users`]).
    ///
    /// # Errors
    /// Factors of another shape.
    pub fn resume(&mut self, iteration: usize, users: Vec<f32>) -> Result<(), TrainError> {
        self.check("user factors", users.len(), self.factors.users.len())?;
        self.factors.users = users;
        self.iteration = iteration;
        Ok(())
    }

    /// Starts from the item factors of an earlier model instead: the users are solved against them.
    /// The row of a new item is zero.
    ///
    /// # Errors
    /// Factors of another shape, or a system that cannot be solved.
    pub fn warm_start(&mut self, items: Vec<f32>) -> Result<(), TrainError> {
        self.check("item factors", items.len(), self.factors.items.len())?;
        self.factors.items = items;
        self.solve_users(&Counter::new(&(), 0, 1))
    }

    /// Turns the item factors so that they lie as near as possible to `reference`, rows of an earlier
    /// model and zeros for new items, and solves the users against them.
    ///
    /// Scores are unchanged but for rounding; what was stored of the earlier model stays meaningful.
    /// False, and nothing changed, when fewer items are shared than there are dimensions.
    ///
    /// # Errors
    /// A reference of another shape, or a system that cannot be solved.
    pub fn align(&mut self, reference: &[f32]) -> Result<bool, TrainError> {
        let turned = self.turn(reference)?;
        if turned {
            self.solve_users(&Counter::new(&(), 0, 1))?;
        }
        Ok(turned)
    }

    fn turn(&mut self, reference: &[f32]) -> Result<bool, TrainError> {
        self.check("reference", reference.len(), self.factors.items.len())?;
        let Some(rotation) = rotation(&self.factors.items, reference, self.hyper.rank) else {
            return Ok(false);
        };
        self.pool
            .install(|| rotation.apply(&mut self.factors.items));
        Ok(true)
    }

    /// Solves all items against the users, then all users against the items.
    ///
    /// # Errors
    /// A system that cannot be solved.
    pub fn step(&mut self, progress: &dyn Progress) -> Result<(), TrainError> {
        self.pass(None, progress)
    }

    /// A [`step`](Trainer::step) and an [`align`](Trainer::align) in one: the items are turned before the
    /// users are solved against them, which is then done once instead of twice. Where nothing can be
    /// aligned, it is a step.
    ///
    /// # Errors
    /// A reference of another shape, or a system that cannot be solved.
    pub fn step_aligned(
        &mut self,
        reference: &[f32],
        progress: &dyn Progress,
    ) -> Result<(), TrainError> {
        self.pass(Some(reference), progress)
    }

    fn pass(
        &mut self,
        reference: Option<&[f32]>,
        progress: &dyn Progress,
    ) -> Result<(), TrainError> {
        let rows = u64::from(self.by_user.users()) + u64::from(self.by_item.users());
        let done = self.iteration as u64 * rows;
        let total = self.hyper.iterations.max(self.iteration + 1) as u64 * rows;
        let counter = Counter::new(progress, done, total);
        self.iteration += 1;
        let Factors { users, items, .. } = &mut self.factors;
        let solved = self
            .pool
            .install(|| half_step(&self.by_item, &self.hyper, users, items, &counter));
        solved.map_err(|row| TrainError::Unsolvable {
            side: "item",
            row,
            iteration: self.iteration,
        })?;
        if let Some(reference) = reference {
            self.turn(reference)?;
        }
        self.solve_users(&counter)
    }

    /// How far the users were moved when they were last solved: the norm of the difference over that of
    /// the outcome. Infinite before the first time. It depends on nothing that a checkpoint does not hold.
    #[must_use]
    pub fn moved(&self) -> f64 {
        self.moved
    }

    /// Finished iterations.
    #[must_use]
    pub fn iteration(&self) -> usize {
        self.iteration
    }

    /// The factors so far.
    #[must_use]
    pub fn factors(&self) -> &Factors {
        &self.factors
    }

    /// The factors.
    #[must_use]
    pub fn into_factors(self) -> Factors {
        self.factors
    }

    fn solve_users(&mut self, counter: &Counter<'_>) -> Result<(), TrainError> {
        let Factors { users, items, .. } = &mut self.factors;
        let solved = self
            .pool
            .install(|| half_step(&self.by_user, &self.hyper, items, users, counter));
        self.moved = solved.map_err(|row| TrainError::Unsolvable {
            side: "user",
            row,
            iteration: self.iteration,
        })?;
        Ok(())
    }

    fn check(&self, what: &'static str, got: usize, expected: usize) -> Result<(), TrainError> {
        if got == expected {
            return Ok(());
        }
        Err(TrainError::Shape {
            what,
            got,
            expected,
        })
    }
}

/// Solves every row of one side against the fixed other side; returns how far that moved them, the norm of
/// the difference over that of the outcome. The error is the lowest unsolvable row, whichever thread met
/// one first.
fn half_step(
    confidences: &Interactions,
    hyper: &Hyper,
    fixed: &[f32],
    solved: &mut [f32],
    counter: &Counter<'_>,
) -> Result<f64, usize> {
    let rank = hyper.rank;
    let side = Side::new(hyper, fixed.len() / rank, gram_in_pool(fixed, rank));
    let rotated = side.rotate(fixed);
    let fixed = Fixed {
        factors: fixed,
        rotated: rotated.as_deref(),
    };
    let solve_block = |(scratch, before): &mut (Scratch, Vec<f32>),
                       (block, rows): (usize, &mut [f32])| {
        let first = block * BLOCK_ROWS;
        let mut done = Block::default();
        for (out, row) in rows.chunks_exact_mut(rank).zip(first..) {
            // Rows are counted by a u32, so this one fits.
            let (others, values) = confidences.user(u32::try_from(row).unwrap_or(u32::MAX));
            let observations = others
                .iter()
                .zip(values)
                .map(|(&other, &confidence)| Observation {
                    other,
                    confidence,
                    preferred: true,
                });
            before.clear();
            before.extend_from_slice(out);
            if side.solve(fixed, observations, scratch, out).is_err() {
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
    let blocks: Vec<Block> = solved
        .par_chunks_mut(BLOCK_ROWS * rank)
        .enumerate()
        .map_init(Default::default, solve_block)
        .collect();
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

/// Solved rows of all threads.
struct Counter<'a> {
    done: AtomicU64,
    total: u64,
    progress: &'a dyn Progress,
}

impl<'a> Counter<'a> {
    fn new(progress: &'a dyn Progress, done: u64, total: u64) -> Self {
        Self {
            done: AtomicU64::new(done),
            total,
            progress,
        }
    }

    fn add(&self, rows: usize) {
        let done = self.done.fetch_add(rows as u64, Ordering::Relaxed) + rows as u64;
        self.progress.advance(done, self.total);
    }
}
