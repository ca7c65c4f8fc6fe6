//! New items from their first listens.
//!
//! An item's vector is the least-squares answer of training with everything else held fast: the vectors
//! of its listeners, and through the users' Gram matrix those of everybody else, who did not listen. A
//! listener's vector is in turn folded in from what they have heard of the base, which is the same for
//! every run and for every order of deltas.

use std::collections::BTreeMap;
use std::io;

use rayon::ThreadPoolBuildError;
use rayon::prelude::*;
use refrain_als::{FoldIn, FoldInError, FoldInScratch, Hyper, MAX_STRENGTH};
use refrain_engine::Version;

use super::{Drafts, FreshenReport};
use crate::ingest::{SortedLog, for_each_user};

/// Listens that cannot be folded in.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FoldError {
    /// The version was made from bare vectors.
    #[error("version {version} has no model to fold listens in with: give vectors")]
    NoModel {
        /// The version.
        version: String,
    },
    /// The version was built before items could be folded in.
    #[error(
        "version {version} does not hold its users' Gram matrix: build it again, or give vectors"
    )]
    NoUserGram {
        /// The version.
        version: String,
    },
    /// Hyper-parameters that this program does not know.
    #[error("hyper-parameters of version {version}: {source}")]
    Hyper {
        /// The version.
        version: String,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// The model cannot fold in: the version is damaged.
    #[error(transparent)]
    FoldIn(#[from] FoldInError),
    /// Listens that were put into a file cannot be read again.
    #[error("cannot read listens from a temporary file: {0}")]
    Read(#[from] io::Error),
    /// No threads.
    #[error("cannot start threads: {0}")]
    Threads(#[from] ThreadPoolBuildError),
}

/// Drafts every item of the log that nobody knows yet. O(listens of their listeners · rank² + items ·
/// rank³).
pub(super) fn first_listens(
    version: &Version,
    log: &SortedLog,
    threads: usize,
    drafts: &mut Drafts<'_>,
    report: &mut FreshenReport,
) -> Result<(), FoldError> {
    let name = || version.id().to_owned();
    let items = version.items();
    let base = version.bundle().items();
    // New to the version, and not placed by a vector either.
    let new: Vec<bool> = log
        .items()
        .iter()
        .map(|id| items.ordinal(id).is_none() && drafts.begun(id).is_none())
        .collect();
    let in_base: Vec<Option<u32>> = log.items().iter().map(|id| base.ordinal(id)).collect();
    // Plays of each new item by listener, and of each of those listeners by item of the base.
    let mut heard: BTreeMap<u32, BTreeMap<u32, f64>> = BTreeMap::new();
    let mut tastes: BTreeMap<u32, BTreeMap<u32, f64>> = BTreeMap::new();
    for_each_user(log.listens()?, &mut Vec::new(), |user, listens| {
        for listen in listens.iter().filter(|listen| new[listen.item as usize]) {
            let of_item = heard.entry(listen.item).or_default();
            *of_item.entry(user).or_default() += f64::from(listen.count);
            tastes.entry(user).or_default();
        }
        if let Some(taste) = tastes.get_mut(&user) {
            for listen in listens {
                if let Some(ordinal) = in_base[listen.item as usize] {
                    *taste.entry(ordinal).or_default() += f64::from(listen.count);
                }
            }
        }
        Ok::<(), io::Error>(())
    })?;
    if heard.is_empty() {
        return Ok(());
    }
    let model = version
        .bundle()
        .model()
        .ok_or_else(|| FoldError::NoModel { version: name() })?;
    let user_gram = model
        .user_gram()
        .ok_or_else(|| FoldError::NoUserGram { version: name() })?;
    let hyper: Hyper =
        serde_json::from_value(model.hyper().clone()).map_err(|source| FoldError::Hyper {
            version: name(),
            source,
        })?;
    let rank = model.rank();
    let factors = model.factors();
    let users_side = FoldIn::new(rank, base.len() as usize, model.gram().to_vec(), &hyper)?;
    let users = usize::try_from(version.manifest().users).unwrap_or(usize::MAX);
    let items_side = FoldIn::new(rank, users, user_gram.to_vec(), &hyper)?;
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()?;
    let solved: Result<BTreeMap<u32, Vec<f32>>, FoldInError> = pool.install(|| {
        tastes
            .par_iter()
            .map_init(FoldInScratch::default, |scratch, (&user, taste)| {
                let evidence: Vec<(u32, f32)> = taste
                    .iter()
                    .map(|(&item, &plays)| (item, strength(plays)))
                    .collect();
                let mut vector = Vec::new();
                users_side.solve(factors, &evidence, scratch, &mut vector)?;
                Ok((user, vector))
            })
            .collect()
    });
    let solved = solved?;
    let folded: Result<Vec<(u32, Vec<f32>)>, FoldInError> = pool.install(|| {
        heard
            .par_iter()
            .map_init(FoldInScratch::default, |scratch, (&item, listeners)| {
                let (mut rows, mut strengths) = (Vec::new(), Vec::new());
                for (user, &plays) in listeners {
                    // Who has heard nothing that is known has no direction to give.
                    let vector = solved
                        .get(user)
                        .filter(|vector| vector.iter().any(|&x| x != 0.0));
                    if let Some(vector) = vector {
                        rows.extend_from_slice(vector);
                        strengths.push(strength(plays));
                    }
                }
                let mut vector = Vec::new();
                if !strengths.is_empty() {
                    items_side.solve_rows(&rows, &strengths, scratch, &mut vector)?;
                }
                Ok((item, vector))
            })
            .collect()
    });
    for (item, vector) in folded? {
        let id = log.items().get(item).unwrap_or_default();
        if vector.iter().all(|&value| value == 0.0) {
            report.without_listeners.push(id.to_owned());
            continue;
        }
        let listeners = heard.get(&item).map_or(0, BTreeMap::len);
        let draft = drafts.put(id);
        draft.place(version, &vector);
        #[expect(
            clippy::cast_precision_loss,
            reason = "listeners are fewer than 2^24, or rounded"
        )]
        let popularity = listeners as f32;
        draft.popularity = popularity;
        if let Some(described) = log.described().get(id) {
            draft.take(described);
        }
        report.new_folded += 1;
    }
    Ok(())
}

/// Plays as a strength that fold-in takes.
fn strength(plays: f64) -> f32 {
    #[expect(clippy::cast_possible_truncation, reason = "rounds to nearest")]
    let strength = plays as f32;
    strength.min(MAX_STRENGTH)
}
