//! How good a model's recommendations are on listens it has not seen.
//!
//! 1. [`split`](split()) takes listens away from the log by a stated [`HoldOut`] protocol.
//! 2. [`rank_by_factors`] and [`rank_by_popularity`] rank the full catalogue for each user, what the user
//!    already heard in training left out.
//! 3. [`measure`] judges the lists against what was held out: Recall, NDCG, MAP, MRR, hit rate, and how
//!    they spread over the catalogue.
//!
//! [`evaluate`] does 2 and 3 for a model and, under the same protocol, for the popularity baseline. The
//! catalogue is every item with a listener in the training part: held-out pairs of other items can be
//! ranked by neither, so they are dropped and counted.

mod bootstrap;
mod metrics;
pub mod offline;
#[cfg(test)]
mod published;
mod ranking;
mod split;

pub use bootstrap::{Paired, paired};
pub use metrics::{Catalogue, Quality, Scores, judge, mean, measure};
pub use ranking::{rank_by_factors, rank_by_popularity};
pub(crate) use split::mix as hash;
pub use split::{HoldOut, Split, SplitCounts, SplitError, split, without};
pub(crate) use split::{Part, Sorted};

use refrain_als::{Factors, Interactions};
use serde::{Deserialize, Serialize};

/// Length of the lists that are judged.
pub const LIST_LENGTH: usize = 20;

/// How to evaluate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EvaluateOptions {
    /// If more users have held-out listens, a seeded sample of this many is judged.
    pub max_users: usize,
    /// Seed of that sample.
    pub seed: u64,
    /// Threads; 0 means one a core. The result does not depend on it.
    pub threads: usize,
}

impl Default for EvaluateOptions {
    fn default() -> Self {
        Self {
            max_users: 20_000,
            seed: 42,
            threads: 0,
        }
    }
}

/// A model and the popularity baseline, judged on the same users, items and held-out listens.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Users judged.
    pub users: usize,
    /// Users with held-out listens; more than `users` if a sample was taken.
    pub users_eligible: usize,
    /// The model.
    pub model: Quality,
    /// The most listened-to items for everybody.
    pub popularity: Quality,
}

/// Why an evaluation is impossible.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EvaluateError {
    /// Nobody has held-out listens.
    #[error("no user has held-out listens of items that occur in training")]
    Nobody,
    /// The threads could not be started.
    #[error("cannot start {threads} threads")]
    Threads {
        /// Number of threads asked for.
        threads: usize,
        /// What the pool said.
        source: rayon::ThreadPoolBuildError,
    },
}

/// Judges `factors` and popularity on `held_out`: (user, item) pairs, sorted and distinct, of users and
/// items of `train`.
///
/// Time `O(users × items × rank)` at most, see [`rank_by_factors`]; the users are judged in parallel.
///
/// # Errors
/// No held-out pair, or threads that cannot be started.
pub fn evaluate(
    train: &Interactions,
    held_out: &[(u32, u32)],
    factors: &Factors,
    options: &EvaluateOptions,
) -> Result<Evaluation, EvaluateError> {
    let tests = by_user(held_out);
    let users_eligible = tests.len();
    if users_eligible == 0 {
        return Err(EvaluateError::Nobody);
    }
    let tests = sample(tests, options);
    let users: Vec<u32> = tests.iter().map(|pairs| pairs[0].0).collect();
    let listeners = listeners(train);
    let catalogue = Catalogue {
        size: listeners.iter().filter(|&&count| count > 0).count(),
        listeners: &listeners,
        users: train.users() as usize,
        vectors: Some((&factors.items, factors.rank)),
    };
    let threads = options.threads;
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()
        .map_err(|source| EvaluateError::Threads { threads, source })?;
    let ranked = pool.install(|| rank_by_factors(factors, train, &listeners, &users, LIST_LENGTH));
    let popular = rank_by_popularity(train, &listeners, &users, LIST_LENGTH);
    Ok(Evaluation {
        users: users.len(),
        users_eligible,
        model: measure(&ranked, &tests, LIST_LENGTH, &catalogue),
        popularity: measure(&popular, &tests, LIST_LENGTH, &catalogue),
    })
}

/// Distinct listeners of each item in training: what popularity means.
#[must_use]
pub fn listeners(train: &Interactions) -> Vec<u32> {
    let mut listeners = vec![0; train.items() as usize];
    for user in 0..train.users() {
        for &item in train.user(user).0 {
            listeners[item as usize] += 1;
        }
    }
    listeners
}

/// Sorted pairs, one slice a user.
#[must_use]
pub fn by_user(pairs: &[(u32, u32)]) -> Vec<&[(u32, u32)]> {
    pairs.chunk_by(|a, b| a.0 == b.0).collect()
}

/// The users whose seeded hashes are smallest, in their old order.
fn sample<'a>(
    mut tests: Vec<&'a [(u32, u32)]>,
    options: &EvaluateOptions,
) -> Vec<&'a [(u32, u32)]> {
    if tests.len() > options.max_users.max(1) {
        tests.sort_by_cached_key(|pairs| (split::mix(options.seed, pairs[0].0, 0), pairs[0].0));
        tests.truncate(options.max_users.max(1));
        tests.sort_unstable_by_key(|pairs| pairs[0].0);
    }
    tests
}
