//! How good a bundle is: what it recommends to listeners, as a server would, against what they went on
//! to hear.
//!
//! Every listener's profile is their history with their exclusions; the bundle's own engine answers, with
//! the whole catalogue to choose from and what was heard left out. What was heard later and is new to the
//! listener is the truth. Beside the bundle stand popularity, chance and, where there is one, the
//! champion: the version that it would replace, asked for the same listeners and judged by the same truth.

mod cases;
mod segments;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io;

use refrain_engine::{Request, RequestError, Scratch, Seen, Subject, Version, fold_in};
use refrain_ranking::Variant;
use refrain_taste::Weights;
use serde::{Deserialize, Serialize};

use self::cases::Cases;
pub use self::segments::Segment;
use self::segments::{Plan, Share};
use super::bootstrap::{Paired, paired};
use super::metrics::{Catalogue, Quality, Scores, judge, mean};
use super::{LIST_LENGTH, hash};
use crate::ingest::{Exclusions, SortedLog, UserListens};

/// Answers over which the index is compared with exact search.
const RECALL_AT: usize = 10;

/// Listeners for whom that is done, at most.
const RECALL_USERS: usize = 4_096;

/// What to judge by.
#[expect(missing_debug_implementations, reason = "most of it is elsewhere")]
#[derive(Clone, Copy)]
pub struct Listening<'a> {
    /// What the profiles are made of; with its labels, if there are exclusions that ask for them.
    pub history: &'a UserListens,
    /// What came later.
    pub later: &'a SortedLog,
    /// What listeners excluded.
    pub exclusions: &'a Exclusions,
}

/// How to judge.
#[derive(Debug, Clone, PartialEq)]
pub struct OfflineOptions {
    /// Judge a seeded sample of this many listeners when there are more.
    pub max_users: usize,
    /// Seed of that sample, of chance, and of the bootstrap.
    pub seed: u64,
    /// Resamples of the bootstrap.
    pub resamples: usize,
    /// Threads; 0 means one a core. The result does not depend on it.
    pub threads: usize,
    /// The instant of the requests, microseconds since 1970 UTC: decides how fresh items are.
    pub now_us: i64,
}

/// How a bundle did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OfflineReport {
    /// What was judged, in words.
    pub protocol: String,
    /// The version.
    pub version: String,
    /// The version it is compared with.
    pub champion_version: Option<String>,
    /// Sizes.
    pub counts: OfflineCounts,
    /// The bundle.
    pub model: Quality,
    /// The most listened-to items for everybody.
    pub popularity: Quality,
    /// Items drawn by lot.
    pub chance: Quality,
    /// The champion, judged likewise.
    pub champion: Option<Quality>,
    /// The bundle's metrics against the champion's, by name.
    pub against_champion: BTreeMap<String, Paired>,
    /// The same for parts of the listeners and of what they heard.
    pub segments: Vec<Segment>,
    /// Recall@10 of the index against exact search, with each listener's exclusions and heard items.
    pub index_recall: IndexRecall,
    /// Mean number of listeners, in the history, of what is recommended: how far it leans on the popular.
    pub popularity_of_recommended: f64,
    /// The same for what listeners really heard.
    pub popularity_of_heard: f64,
    /// The same for what the champion recommends.
    pub popularity_of_champion: Option<f64>,
    /// Mean share of the first 20 that bundle and champion have in common.
    pub overlap_with_champion: Option<f64>,
    /// Recommended items that are blocked or that a rule of the listener forbids: must be 0.
    pub forbidden_shown: usize,
}

/// Sizes in an [`OfflineReport`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OfflineCounts {
    /// Listeners judged.
    pub users: usize,
    /// Listeners who heard something new later; more than judged if a sample was taken.
    pub users_eligible: usize,
    /// Listeners of the later log without a history.
    pub users_unknown: usize,
    /// Listeners who heard nothing new that any of the versions could have recommended.
    pub users_without_truth: usize,
    /// Held-out (listener, item) pairs that are asked for, of all eligible listeners.
    pub pairs: usize,
    /// Pairs of items that no version knows: nothing could have found them.
    pub pairs_unknown: usize,
}

/// What the index finds of the exact answer.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct IndexRecall {
    /// Listeners asked for.
    pub queries: usize,
    /// Mean share of the exact ten found.
    pub mean: f64,
    /// Lower end of a one-sided 95 % interval.
    pub lower_95: f64,
}

/// Why a bundle cannot be judged.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OfflineError {
    /// Nobody has anything to be judged by.
    #[error(
        "nobody heard anything later that is new to them and known to the bundle: {users} listeners \
         came later, {unknown} of them without a history"
    )]
    Nobody {
        /// Listeners of the later log.
        users: usize,
        /// Those without a history.
        unknown: usize,
    },
    /// More items than can be counted.
    #[error("more different items than a dictionary holds")]
    TooManyItems,
    /// Listens that were put into a file cannot be read again.
    #[error("cannot read listens from a temporary file: {0}")]
    Read(#[from] io::Error),
    /// A request was refused: the bundle is damaged.
    #[error("a request was refused: {0}")]
    Request(#[from] RequestError),
    /// A profile cannot be folded in: the bundle is damaged.
    #[error("a profile cannot be folded in: {0}")]
    Fold(#[from] refrain_engine::FoldError),
    /// No threads.
    #[error("cannot start threads: {0}")]
    Threads(#[from] rayon::ThreadPoolBuildError),
}

/// Judges `version`, under `variant`, beside popularity, chance and the champion.
///
/// `O(listeners × what a request costs)`, the requests in parallel.
///
/// # Errors
/// See [`OfflineError`].
pub fn evaluate_offline(
    version: &Version,
    champion: Option<&Version>,
    variant: &Variant,
    listening: Listening<'_>,
    options: &OfflineOptions,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<OfflineReport, OfflineError> {
    let cases = Cases::new(version, champion, listening, options)?;
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(options.threads)
        .build()?;
    let (ours, theirs) = pool.install(|| {
        let ours = cases.ask(version, variant, options, true, progress)?;
        let theirs = champion
            .map(|champion| cases.ask(champion, variant, options, false, &|_, _| {}))
            .transpose()?;
        Ok::<_, OfflineError>((ours, theirs))
    })?;
    let listeners = cases.listeners();
    let vectors = vectors(version);
    let catalogue = Catalogue {
        size: version.items().len() as usize,
        listeners: &listeners,
        users: listening.history.log().users().len(),
        vectors: Some((&vectors, version.index().dim())),
    };
    let quality = |lists: &[Vec<u32>]| {
        let scores = cases.scores(lists, Share::All);
        Quality::new(&mean(&present(&scores)), lists, LIST_LENGTH, &catalogue)
    };
    let popular = cases.popular(version);
    let chance = cases.chance(version, options.seed);
    let champion_catalogue = champion.map(|champion| Catalogue {
        size: champion.items().len() as usize,
        vectors: None,
        ..catalogue
    });
    let champion_quality = theirs
        .as_ref()
        .zip(champion_catalogue)
        .map(|(theirs, catalogue)| {
            let scores = cases.scores(&theirs.lists, Share::All);
            Quality::new(
                &mean(&present(&scores)),
                &theirs.lists,
                LIST_LENGTH,
                &catalogue,
            )
        });
    let plan = Plan::new(&cases, version);
    let segments = plan.judge(
        &cases,
        &ours.lists,
        &popular,
        theirs.as_ref().map(|theirs| &*theirs.lists),
        options,
    );
    let against = |theirs: &Asked| compare(&cases, &ours.lists, &theirs.lists, Share::All, options);
    let popularity_of = |lists: &[Vec<u32>]| mean_over(lists.iter().flatten(), &listeners);
    Ok(OfflineReport {
        protocol: protocol(&cases, listening, variant, options),
        version: version.id().to_owned(),
        champion_version: champion.map(|champion| champion.id().to_owned()),
        counts: cases.counts,
        model: quality(&ours.lists),
        popularity: quality(&popular),
        chance: quality(&chance),
        champion: champion_quality,
        against_champion: theirs.as_ref().map(against).unwrap_or_default(),
        segments,
        index_recall: recall(&ours.found),
        popularity_of_recommended: popularity_of(&ours.lists),
        popularity_of_heard: mean_over(cases.truths(), &listeners),
        popularity_of_champion: theirs.as_ref().map(|theirs| popularity_of(&theirs.lists)),
        overlap_with_champion: theirs
            .as_ref()
            .map(|theirs| overlap(&ours.lists, &theirs.lists)),
        forbidden_shown: ours.forbidden,
    })
}

/// Every item's vector: the factors of the bundle's model where it has one, else as the index holds them.
fn vectors(version: &Version) -> Cow<'_, [f32]> {
    match version.bundle().model() {
        Some(model) => Cow::Borrowed(model.factors()),
        None => {
            let ordinals = 0..version.bundle().items().len();
            ordinals
                .filter_map(|ordinal| version.index().vector(ordinal))
                .flatten()
                .collect()
        }
    }
}

/// One figure of a list's scores.
type Metric = fn(&Scores) -> f64;

/// The metrics that versions are compared by.
const COMPARED: [(&str, Metric); 4] = [
    ("recall_at_20", |scores| scores.recall),
    ("ndcg_at_20", |scores| scores.ndcg),
    ("map_at_20", |scores| scores.average_precision),
    ("mrr_at_20", |scores| scores.reciprocal_rank),
];

/// Both versions by each metric, over the cases that a share of the truth leaves something to.
fn compare(
    cases: &Cases<'_>,
    ours: &[Vec<u32>],
    theirs: &[Vec<u32>],
    share: Share<'_>,
    options: &OfflineOptions,
) -> BTreeMap<String, Paired> {
    let (ours, theirs) = (cases.scores(ours, share), cases.scores(theirs, share));
    let (ours, theirs) = (present(&ours), present(&theirs));
    COMPARED
        .iter()
        .filter_map(|(name, of)| {
            let values = |scores: &[Scores]| scores.iter().map(of).collect::<Vec<f64>>();
            let found = paired(
                &values(&ours),
                &values(&theirs),
                options.resamples,
                options.seed,
            )?;
            Some(((*name).to_owned(), found))
        })
        .collect()
}

/// What a version answered.
struct Asked {
    /// Joint ordinals, best first, one list a case.
    lists: Vec<Vec<u32>>,
    /// Share of the exact answer found, for the cases asked so.
    found: Vec<f64>,
    forbidden: usize,
}

impl Cases<'_> {
    /// Asks a version for every case; also how much of the exact answer it finds, where `exactly`.
    fn ask(
        &self,
        version: &Version,
        variant: &Variant,
        options: &OfflineOptions,
        exactly: bool,
        progress: &(dyn Fn(usize, usize) + Sync),
    ) -> Result<Asked, OfflineError> {
        use rayon::prelude::*;
        let weights = Weights::default();
        let total = self.cases.len();
        let step = total.div_ceil(RECALL_USERS).max(1);
        let done = std::sync::atomic::AtomicUsize::new(0);
        let answers: Vec<(Vec<u32>, Option<f64>, usize)> = self
            .cases
            .par_iter()
            .enumerate()
            .map_init(Scratch::default, |scratch, (at, case)| {
                let profile = self.profile(case)?;
                let solved = fold_in(version, &profile, options.now_us, &weights, scratch)?;
                let request = Request {
                    seen: Seen::Exclude,
                    ..Request::new(Subject::Solved(&solved), LIST_LENGTH, options.now_us)
                };
                let mut ask = |request: &Request<'_>| {
                    let answer =
                        refrain_engine::recommend(version, request, variant, &weights, scratch)?;
                    let items = answer.items.iter().map(|item| item.ordinal);
                    Ok::<_, RequestError>(items.collect::<Vec<u32>>())
                };
                let list = ask(&request)?;
                let found = (exactly && at % step == 0)
                    .then(|| {
                        let exact = ask(&Request {
                            exact: true,
                            ..request
                        })?;
                        Ok::<_, RequestError>(share_found(&list, &exact))
                    })
                    .transpose()?
                    .flatten();
                let forbidden = list
                    .iter()
                    .filter(|item| {
                        version.items().blocked(**item)
                            || solved.taste.forbidden.binary_search(item).is_ok()
                    })
                    .count();
                let list = list.iter().map(|&item| self.joint(version, item)).collect();
                let done = 1 + done.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                progress(done, total);
                Ok((list, found, forbidden))
            })
            .collect::<Result<_, OfflineError>>()?;
        let forbidden = answers.iter().map(|answer| answer.2).sum();
        let found = answers.iter().filter_map(|answer| answer.1).collect();
        let lists = answers.into_iter().map(|answer| answer.0).collect();
        Ok(Asked {
            lists,
            found,
            forbidden,
        })
    }
}

/// How many of the exact first ten are among the first ten; none when there is no exact answer.
fn share_found(list: &[u32], exact: &[u32]) -> Option<f64> {
    let exact = &exact[..exact.len().min(RECALL_AT)];
    let list = &list[..list.len().min(RECALL_AT)];
    let found = exact.iter().filter(|item| list.contains(item)).count();
    (!exact.is_empty()).then(|| found as f64 / exact.len() as f64)
}

/// The mean, and the lower end of a one-sided 95 % interval: normal, or where every query found all,
/// Clopper and Pearson's for as many trials as there were queries.
fn recall(found: &[f64]) -> IndexRecall {
    let n = found.len().max(1) as f64;
    let mean = found.iter().sum::<f64>() / n;
    let variance = found
        .iter()
        .map(|share| (share - mean).powi(2))
        .sum::<f64>()
        / n;
    let lower_95 = if variance > 0.0 {
        mean - 1.645 * (variance / n).sqrt()
    } else {
        mean * 0.05f64.powf(1.0 / n)
    };
    IndexRecall {
        queries: found.len(),
        mean,
        lower_95,
    }
}

/// Scores of those who have any.
fn present(scores: &[Option<Scores>]) -> Vec<Scores> {
    scores.iter().copied().flatten().collect()
}

fn mean_over<'a>(items: impl Iterator<Item = &'a u32>, values: &[u32]) -> f64 {
    let (mut sum, mut count) = (0.0, 0usize);
    for &item in items {
        sum += f64::from(values.get(item as usize).copied().unwrap_or_default());
        count += 1;
    }
    sum / count.max(1) as f64
}

fn overlap(ours: &[Vec<u32>], theirs: &[Vec<u32>]) -> f64 {
    let shared: f64 = ours
        .iter()
        .zip(theirs)
        .map(|(a, b)| {
            let both = a.iter().filter(|item| b.contains(item)).count();
            both as f64 / a.len().max(b.len()).max(1) as f64
        })
        .sum();
    shared / ours.len().max(1) as f64
}

fn protocol(
    cases: &Cases<'_>,
    listening: Listening<'_>,
    variant: &Variant,
    options: &OfflineOptions,
) -> String {
    let counts = cases.counts;
    let sampled = if counts.users < counts.users_eligible {
        format!(
            "a sample (seed {}) of {} of {} listeners",
            options.seed, counts.users, counts.users_eligible
        )
    } else {
        format!(
            "all {} listeners who heard something new",
            counts.users_eligible
        )
    };
    format!(
        "profiles of {} listens with {} exclusion rules, judged by {} later listens; variant {:?}, the whole \
         catalogue ranked, heard items left out; {sampled}; paired bootstrap with {} resamples, seed {}",
        listening.history.log().len(),
        listening.exclusions.len(),
        listening.later.len(),
        variant.name,
        options.resamples,
        options.seed
    )
}

/// Judges one list by the truth that a share leaves.
fn judge_share(list: &[u32], truth: &[u32], share: Share<'_>) -> Option<Scores> {
    let gains: Vec<(u32, f64)> = truth
        .iter()
        .filter(|item| share.has_item(**item))
        .map(|&item| (item, 1.0))
        .collect();
    judge(list, &gains, LIST_LENGTH)
}

/// A uniform draw below `n` for a place.
fn draw(seed: u64, a: u32, b: u32, n: usize) -> usize {
    ((hash(seed, a, b) >> 32) as usize * n) >> 32
}

#[cfg(test)]
mod tests;
