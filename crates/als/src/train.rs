//! Training: alternating half-steps over items and users.

use crate::align::rotation;
use crate::half_step::{improve, solve, solve_new};
use crate::hyper::{Hyper, HyperError};
use crate::interactions::{Interactions, Meaning};
use crate::parent::{ParentFactors, ParentRows};
use crate::progress::{Counter, Progress};
use crate::random::initial_factors;

/// Trained factors, row-major, `rank` values a row.
#[derive(Debug, Clone, Default, PartialEq)]
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
    #[error("{what}: {got} where {expected} are due")]
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

/// Trains factors by `hyper.iterations` passes, each improving all users, of which the first knows nothing
/// yet, and then all items, and [finishes](Trainer::finish) them: every user row is the exact fold-in of
/// that user's interactions against the returned item factors. The result does not depend on `threads` (0: one a core). Progress
/// counts rows.
///
/// Time `O(iterations (n d + (users + items) d²) / threads)` for `n` interactions at rank `d`, and at the
/// end at most `O((n d² + users d³) / threads)`; memory: the factors, and beside the
/// data at most as much as a pair's user and strength take, or what is left of 12 bytes a pair if that is more.
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
    trainer.finish(None, progress)
}

/// What the first pass does to the users before it improves the items.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FirstPass {
    /// Nothing: there are no items to improve them by.
    Leave,
    /// Solves those who are new to the parent.
    SolveNew,
    /// Improves all.
    Improve,
}

/// A training run that can be watched, stopped and taken up again between its iterations.
///
/// All that an iteration needs of those before it are their factors, so these and the number of
/// iterations are a checkpoint: a [`resumed`](Trainer::resume) run ends in the same bytes.
#[derive(Debug)]
pub struct Trainer<'a> {
    hyper: Hyper,
    by_user: &'a Interactions,
    /// The same by item, from the first step on.
    by_item: Option<Interactions>,
    meaning: Meaning,
    factors: Factors,
    iteration: usize,
    first_pass: FirstPass,
    moved: f64,
    pool: rayon::ThreadPool,
}

impl<'a> Trainer<'a> {
    /// A run before its first iteration, from seeded user factors. `hyper.iterations` only scales
    /// what progress reports: how often to [`step`](Trainer::step) is the caller's choice.
    ///
    /// # Errors
    /// Hyper-parameters out of range, or no interactions.
    pub fn new(data: &'a Interactions, hyper: &Hyper, threads: usize) -> Result<Self, TrainError> {
        Self::with_factors(data, hyper, threads, |users, items| {
            let seeded = initial_factors(users, hyper.rank, hyper.seed);
            [seeded, vec![0.0; items * hyper.rank]]
        })
    }

    /// A run that starts from the factors of a parent instead; the row of who is new is zero.
    ///
    /// The users of a model are solved exactly against its items, so that the first pass has nothing to improve them
    /// by. It solves those who are new, and goes on with the items: what the others have heard since reaches the
    /// items then, and what that changes reaches the users in the next pass, or when the factors are finished.
    ///
    /// # Errors
    /// Those of [`new`](Self::new), and sides of other numbers of rows.
    pub fn warm(
        data: &'a Interactions,
        hyper: &Hyper,
        threads: usize,
        parent: &ParentFactors<'_>,
    ) -> Result<Self, TrainError> {
        let ParentFactors { users, items } = parent;
        check("users of the parent", users.len(), data.users() as usize)?;
        check("items of the parent", items.len(), data.items() as usize)?;
        let rank = hyper.rank;
        let mut warm = Self::with_factors(data, hyper, threads, |_, _| {
            [users.in_pool(rank), items.in_pool(rank)]
        })?;
        warm.first_pass = FirstPass::SolveNew;
        Ok(warm)
    }

    /// The same, where listens were taken away that the parent may have learned from: what its users owe to them is not to
    /// reach the items, so the first pass improves all users before.
    #[must_use]
    pub fn forgetting(mut self) -> Self {
        if self.first_pass == FirstPass::SolveNew {
            self.first_pass = FirstPass::Improve;
        }
        self
    }

    /// `first` makes the factors of so many users and items, in the pool.
    fn with_factors(
        data: &'a Interactions,
        hyper: &Hyper,
        threads: usize,
        first: impl FnOnce(usize, usize) -> [Vec<f32>; 2] + Send,
    ) -> Result<Self, TrainError> {
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
        let [users, items] = pool.install(|| first(users, items));
        Ok(Self {
            hyper: *hyper,
            by_user: data,
            by_item: None,
            meaning: Meaning::new(data, hyper),
            factors: Factors { rank, users, items },
            iteration: 0,
            first_pass: FirstPass::Leave,
            moved: f64::INFINITY,
            pool,
        })
    }

    /// Takes up a run after `iteration` iterations, with the [`factors`](Self::factors) it then had.
    ///
    /// # Errors
    /// Factors of another shape.
    pub fn resume(
        &mut self,
        iteration: usize,
        users: Vec<f32>,
        items: Vec<f32>,
    ) -> Result<(), TrainError> {
        check("user factors", users.len(), self.factors.users.len())?;
        check("item factors", items.len(), self.factors.items.len())?;
        self.factors.users = users;
        self.factors.items = items;
        self.iteration = iteration;
        Ok(())
    }

    /// Improves all users against the items, then all items against the users, each row from where it was.
    /// The first pass leaves the users as they are: from nothing there are no items to improve them by, and those of a
    /// parent need no improvement by its items. Only who is new to it is solved (but see [`forgetting`](Self::forgetting)).
    /// Both sides are turned on the way, alike: only products of a user and an item mean anything until
    /// the factors are [finished](Self::finish).
    ///
    /// # Errors
    /// A system that cannot be solved.
    pub fn step(&mut self, progress: &dyn Progress) -> Result<(), TrainError> {
        let first = self.iteration == 0;
        let counter = self.counter(progress, self.hyper.iterations.max(self.iteration + 1));
        self.iteration += 1;
        let unsolvable = |side, row| TrainError::Unsolvable {
            side,
            row,
            iteration: self.iteration,
        };
        let (hyper, Factors { users, items, .. }) = (&self.hyper, &mut self.factors);
        let by_item = &*self
            .by_item
            .get_or_insert_with(|| self.pool.install(|| self.by_user.transposed()));
        let by_item = self.meaning.of(by_item);
        let by_user = self.meaning.of(self.by_user);
        self.moved = self.pool.install(|| {
            let first_pass = first.then_some(self.first_pass);
            match first_pass {
                Some(FirstPass::Leave) => Ok(()),
                Some(FirstPass::SolveNew) => solve_new(by_user, hyper, items, users),
                // Near already: not counted, so that a pass is a pass to a progress bar.
                Some(FirstPass::Improve) => {
                    let uncounted = Counter::new(&(), 0, 1);
                    improve(by_user, by_item, hyper, items, users, &uncounted).map(|_| ())
                }
                None => improve(by_user, by_item, hyper, items, users, &counter).map(|_| ()),
            }
            .map_err(|row| unsolvable("user", row))?;
            improve(by_item, by_user, hyper, users, items, &counter)
                .map_err(|row| unsolvable("item", row))
        })?;
        Ok(())
    }

    /// The factors as a model has them: the users solved exactly against the items, which are first turned
    /// to lie as near as possible to `reference`, if given: those of a parent.
    /// Scores do not change by that, and what was stored of the parent stays meaningful.
    /// Items stay as they are when fewer are shared than there are dimensions.
    ///
    /// # Errors
    /// A reference of another shape, or a system that cannot be solved.
    pub fn finish(
        mut self,
        reference: Option<ParentRows<'_>>,
        progress: &dyn Progress,
    ) -> Result<Factors, TrainError> {
        let mut factors = std::mem::take(&mut self.factors);
        self.by_item = None;
        self.settle(&mut factors, reference, progress)?;
        Ok(factors)
    }

    /// As [`finish`](Self::finish) without a reference, of a run that goes on as if it had not been asked.
    ///
    /// # Errors
    /// A system that cannot be solved.
    pub fn finished(&self) -> Result<Factors, TrainError> {
        let mut factors = self.factors.clone();
        self.settle(&mut factors, None, &())?;
        Ok(factors)
    }

    /// How far the last pass moved the items: the norm of the difference over that of the outcome. Infinite before the first time, and no number after a pass in which single precision failed
    /// a row. It depends on nothing that a checkpoint does not hold.
    #[must_use]
    pub fn moved(&self) -> f64 {
        self.moved
    }

    /// Finished iterations.
    #[must_use]
    pub fn iteration(&self) -> usize {
        self.iteration
    }

    /// The factors so far, as [`resume`](Self::resume) takes them.
    #[must_use]
    pub fn factors(&self) -> &Factors {
        &self.factors
    }

    fn settle(
        &self,
        factors: &mut Factors,
        reference: Option<ParentRows<'_>>,
        progress: &dyn Progress,
    ) -> Result<(), TrainError> {
        let Factors { rank, users, items } = factors;
        if let Some(reference) = reference {
            check("reference rows", reference.len(), items.len() / *rank)?;
            self.pool.install(|| {
                if let Some(rotation) = rotation(items, reference, *rank) {
                    rotation.apply(items);
                }
            });
        }
        let counter = self.counter(progress, self.iteration);
        let solved = self.pool.install(|| {
            solve(
                self.meaning.of(self.by_user),
                &self.hyper,
                items,
                users,
                &counter,
            )
        });
        match solved {
            Ok(_) => Ok(()),
            Err(row) => Err(TrainError::Unsolvable {
                side: "user",
                row,
                iteration: self.iteration,
            }),
        }
    }

    /// Of a run of `iterations` iterations: the users of the first are those that end it.
    fn counter<'b>(&self, progress: &'b dyn Progress, iterations: usize) -> Counter<'b> {
        let users = u64::from(self.by_user.users());
        let rows = users + u64::from(self.by_user.items());
        Counter::new(
            progress,
            (self.iteration as u64 * rows).saturating_sub(users),
            iterations as u64 * rows,
        )
    }
}

fn check(what: &'static str, got: usize, expected: usize) -> Result<(), TrainError> {
    if got == expected {
        return Ok(());
    }
    Err(TrainError::Shape {
        what,
        got,
        expected,
    })
}
