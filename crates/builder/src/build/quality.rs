//! How much of the exact answer the index finds, and which `ef_search` to search with.

use rayon::prelude::*;
use refrain_bundle::Bundle;
use refrain_bundle::manifest::RecallPoint;
use refrain_index::{BatchError, Filter, Hit, Index, Scratch, SearchParams};
use serde::Serialize;

/// Answers that recall is measured over.
pub(super) const K: usize = 10;
/// What the default `ef_search` must find, at the lower end of a 95 % interval.
pub(super) const TARGET_RECALL: f64 = 0.97;

/// Golden queries kept in a bundle.
const GOLDEN: usize = 256;
/// Queries that choose `ef_search`, and as many others that measure it.
const HALF: usize = 1024;
/// The pool sizes tried, smallest first.
const POOL_SIZES: [u32; 16] = [
    10, 16, 24, 32, 48, 64, 80, 96, 128, 160, 192, 256, 384, 512, 768, 1024,
];
/// The smallest default: less saves little and is fragile under filters.
const LEAST_DEFAULT: u32 = 64;
/// Where a wider pool is no longer tried: the recall that a request may aim at.
const FULL_RECALL: f64 = 0.995;

/// Queries drawn from users (or items): some to choose `ef_search`, others to measure it, and none of
/// these to shape the graph by.
#[derive(Debug)]
pub(super) struct Queries {
    values: Vec<f32>,
    shaping: Vec<f32>,
    dim: usize,
}

impl Queries {
    /// A seeded sample without replacement of the rows that ask for something: not all zero. After those that
    /// measure, at most `shaping` to shape the graph by.
    pub(super) fn sample(rows: &[f32], dim: usize, seed: u64, shaping: usize) -> Self {
        // To stop within a row would be to look at one value at a time.
        let asks = |row: &[f32]| {
            let (finite, some) = row.iter().fold((true, false), |(finite, some), value| {
                (finite & value.is_finite(), some | (*value != 0.0))
            });
            finite && some
        };
        let mut order: Vec<(u64, usize)> = rows
            .chunks_exact(dim)
            .enumerate()
            .filter(|(_, row)| asks(row))
            .map(|(at, _)| (mix(seed, at as u64), at))
            .collect();
        let wanted = order.len().min((2 * HALF).saturating_add(shaping));
        if wanted < order.len() {
            order.select_nth_unstable(wanted);
        }
        order.truncate(wanted);
        order.sort_unstable();
        let row = |at: usize| rows.get(at * dim..(at + 1) * dim).unwrap_or_default();
        let mut values: Vec<f32> = order.iter().flat_map(|&(_, at)| row(at)).copied().collect();
        let shaping = values.split_off(values.len().min(2 * HALF * dim));
        Self {
            values,
            shaping,
            dim,
        }
    }

    /// Those that the graph may be shaped by.
    pub(super) fn shaping(&self) -> &[f32] {
        &self.shaping
    }

    pub(super) fn golden(&self) -> &[f32] {
        self.rows(0, self.len().min(GOLDEN))
    }

    pub(super) fn calibration_len(&self) -> usize {
        self.len().div_ceil(2)
    }

    pub(super) fn held_out_len(&self) -> usize {
        self.len() - self.calibration_len()
    }

    fn calibration(&self) -> &[f32] {
        self.rows(0, self.calibration_len())
    }

    fn held_out(&self) -> &[f32] {
        self.rows(self.calibration_len(), self.len())
    }

    fn len(&self) -> usize {
        self.values.len() / self.dim
    }

    fn rows(&self, from: usize, to: usize) -> &[f32] {
        self.values
            .get(from * self.dim..to * self.dim)
            .unwrap_or_default()
    }
}

/// Mean recall over queries, with how sure we are of it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Recall {
    pub(super) mean: f64,
    /// Lower end of a one-sided 95 % interval (normal approximation).
    pub(super) lower_95: f64,
}

/// What calibration found.
#[derive(Debug)]
pub(super) struct Calibration {
    pub(super) ef_search: u32,
    /// On the held-out half; `None` when there is none.
    pub(super) recall: Option<Recall>,
    pub(super) points: Vec<RecallPoint>,
    pub(super) golden: Answers,
}

/// Exact answers, row after row of `k`.
#[derive(Debug)]
pub(super) struct Answers {
    pub(super) k: u32,
    pub(super) ordinals: Vec<u32>,
    pub(super) scores: Vec<f32>,
}

/// Tries the pool sizes, so that a recall can be asked for; chooses as default the smallest, from
/// [`LEAST_DEFAULT`] on, whose recall is surely at the target, and measures that one on queries that
/// had no say in the choice. `asked` is what the index answered already. Runs in the caller's pool.
pub(super) fn calibrate(
    index: &Index,
    queries: &Queries,
    asked: Option<Asked>,
) -> Result<Calibration, BatchError> {
    let (known, truth) = match asked {
        Some(Asked { found, truth }) => (Some(found), truth),
        None => (None, index.search_exact_batch(queries.calibration(), K)?),
    };
    let mut points = Vec::new();
    let mut chosen = None;
    for ef_search in POOL_SIZES {
        let found = match known {
            Some(found) if found.ef_search == ef_search => found,
            _ => recall(index, queries.calibration(), &truth, ef_search)?,
        };
        points.push(RecallPoint {
            ef_search,
            recall: found.recall.mean,
        });
        if ef_search >= LEAST_DEFAULT && found.recall.lower_95 >= TARGET_RECALL {
            chosen = chosen.or(Some(ef_search));
            if found.recall.lower_95 >= FULL_RECALL {
                break;
            }
        }
    }
    let widest = points.last().map_or(LEAST_DEFAULT, |point| point.ef_search);
    let ef_search = chosen.unwrap_or(widest);
    let held_out = index.search_exact_batch(queries.held_out(), K)?;
    let measured = recall(index, queries.held_out(), &held_out, ef_search)?.recall;
    // The halves follow one another, so their answers are those of the first queries of all.
    let golden = answers(index, truth.iter().chain(&held_out).take(GOLDEN));
    let recall = Some(measured).filter(|_| !held_out.is_empty());
    Ok(Calibration {
        ef_search,
        recall,
        points,
        golden,
    })
}

/// What an index answered to the queries that choose `ef_search`.
pub(super) struct Asked {
    found: Found,
    truth: Truth,
}

impl Asked {
    /// Asks them at one pool size; `None` when there are no queries.
    pub(super) fn at(
        index: &Index,
        queries: &Queries,
        ef_search: u32,
    ) -> Result<Option<Self>, BatchError> {
        if queries.len() == 0 {
            return Ok(None);
        }
        let truth = index.search_exact_batch(queries.calibration(), K)?;
        let found = recall(index, queries.calibration(), &truth, ef_search)?;
        Ok(Some(Self { found, truth }))
    }

    pub(super) fn recall(&self) -> Recall {
        self.found.recall
    }
}

/// How an index answers at one pool size.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct PoolSize {
    /// The pool size.
    pub ef_search: u32,
    /// Mean share of the exact answer found, 0 to 1.
    pub recall: f64,
    /// Lower end of its one-sided 95 % interval.
    pub recall_lower_95: f64,
    /// Mean vectors scored a query.
    pub distance_comps: f64,
    /// Mean nodes expanded a query.
    pub hops: f64,
}

/// Recall of a bundle's index against exact search.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct IndexEvaluation {
    /// Answers compared: `k`, or fewer when there are fewer items.
    pub k: usize,
    /// Queries asked: the bundle's golden ones.
    pub queries: usize,
    /// What the bundle searches with unless told otherwise.
    pub default_ef_search: u32,
    /// One entry a pool size, in the order asked.
    pub pool_sizes: Vec<PoolSize>,
}

/// An index could not be evaluated.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EvaluateError {
    /// The bundle's index does not open.
    #[error("{}: {source}", file.display())]
    Open {
        /// The index's file.
        file: std::path::PathBuf,
        /// Why.
        source: refrain_index::OpenError,
    },
    /// A query was refused.
    #[error("a golden query was refused: {0}")]
    Search(#[from] BatchError),
    /// The bundle has no golden queries to ask.
    #[error("{}: the bundle has no golden queries", bundle.display())]
    NoQueries {
        /// The bundle.
        bundle: std::path::PathBuf,
    },
    /// No threads.
    #[error("cannot start threads: {0}")]
    Threads(#[from] rayon::ThreadPoolBuildError),
}

/// Asks the bundle's golden queries at each pool size (the bundle's default when `ef_search` is
/// empty) and compares with exact search, on `threads` threads (0 for one a core).
///
/// # Errors
/// See [`EvaluateError`].
pub fn evaluate_index(
    bundle: &Bundle,
    k: usize,
    ef_search: &[u32],
    threads: usize,
) -> Result<IndexEvaluation, EvaluateError> {
    let file = bundle.index_sections();
    let index = Index::open(&|name| file.section(name)).map_err(|source| EvaluateError::Open {
        file: file.path().to_owned(),
        source,
    })?;
    let golden = bundle.golden();
    if golden.is_empty() {
        return Err(EvaluateError::NoQueries {
            bundle: bundle.dir().to_owned(),
        });
    }
    let default_ef_search = bundle.manifest().index.ef_search;
    let sizes = if ef_search.is_empty() {
        &[default_ef_search]
    } else {
        ef_search
    };
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()?;
    let measure = || -> Result<Vec<Found>, BatchError> {
        let truth = index.search_exact_batch(golden.queries(), k)?;
        sizes
            .iter()
            .map(|&ef| recall(&index, golden.queries(), &truth, ef))
            .collect()
    };
    let pool_sizes = pool.install(measure)?;
    Ok(IndexEvaluation {
        k: k.min(index.len()),
        queries: golden.len(),
        default_ef_search,
        pool_sizes: pool_sizes.iter().map(Found::summary).collect(),
    })
}

/// How an index answered at one pool size.
#[derive(Clone, Copy)]
struct Found {
    ef_search: u32,
    recall: Recall,
    distance_comps: f64,
    hops: f64,
}

impl Found {
    fn summary(&self) -> PoolSize {
        PoolSize {
            ef_search: self.ef_search,
            recall: self.recall.mean,
            recall_lower_95: self.recall.lower_95,
            distance_comps: self.distance_comps,
            hops: self.hops,
        }
    }
}

/// The exact answer to each query.
type Truth = Vec<Vec<Hit>>;

/// Recall of the walk. Items that score as well as the last exact one count as found, whichever of
/// equals the walk meets first.
fn recall(
    index: &Index,
    queries: &[f32],
    truth: &[Vec<Hit>],
    ef_search: u32,
) -> Result<Found, BatchError> {
    let params = SearchParams {
        ef_search: ef_search as usize,
        filter: Filter::default(),
        deadline: None,
        debias: None,
        cap: None,
    };
    let asked: Vec<(f64, f64, f64)> = queries
        .par_chunks_exact(index.dim())
        .zip(truth)
        .enumerate()
        .map_init(
            || (Scratch::default(), Vec::new()),
            |(scratch, hits), (at, (query, truth))| {
                let stats = index
                    .search(query, truth.len(), &params, scratch, hits)
                    .map_err(|source| BatchError::Query { query: at, source })?;
                let last = truth.last().map_or(f32::INFINITY, |hit| hit.score);
                let found = hits.iter().filter(|hit| hit.score >= last).count();
                let share = found.min(truth.len()) as f64 / truth.len().max(1) as f64;
                Ok((
                    share,
                    f64::from(stats.distance_comps),
                    f64::from(stats.hops),
                ))
            },
        )
        .collect::<Result<_, BatchError>>()?;
    // Summed in the order of the queries: the same at any thread count.
    let n = asked.len().max(1) as f64;
    let mean = |of: fn(&(f64, f64, f64)) -> f64| asked.iter().map(of).sum::<f64>() / n;
    let share = mean(|asked| asked.0);
    let variance = asked
        .iter()
        .map(|asked| (asked.0 - share).powi(2))
        .sum::<f64>()
        / n;
    Ok(Found {
        ef_search,
        recall: Recall {
            mean: digits(share),
            lower_95: digits(share - 1.645 * (variance / n).sqrt()),
        },
        distance_comps: mean(|asked| asked.1),
        hops: mean(|asked| asked.2),
    })
}

/// As many digits as a sample can tell; so few come back from JSON as they were.
fn digits(share: f64) -> f64 {
    (share * 1e6).round() / 1e6
}

fn answers<'a>(index: &Index, truth: impl Iterator<Item = &'a Vec<Hit>>) -> Answers {
    let k = u32::try_from(K.min(index.len())).unwrap_or_default();
    let (ordinals, scores) = truth.flatten().map(|hit| (hit.ordinal, hit.score)).unzip();
    Answers {
        k,
        ordinals,
        scores,
    }
}

/// The finaliser of splitmix64 (Steele, Lea and Flood, OOPSLA 2014) over seed and row.
fn mix(seed: u64, row: u64) -> u64 {
    let mut x = seed ^ row.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn who_shapes_the_graph_does_not_measure_it() {
        let data: Vec<f32> = (0..9_000).map(|at| 1.0 + at as f32).collect();
        let rows = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<HashSet<u32>>();
        let queries = Queries::sample(&data, 3, 7, 500);
        let asked = queries.calibration_len() + queries.held_out_len();
        assert_eq!((asked, queries.shaping.len()), (2_048, 500 * 3));
        let fewer = Queries::sample(&data, 3, 7, 0);
        assert_eq!(rows(queries.golden()), rows(fewer.golden()));
        let all = Queries::sample(&data, 3, 7, usize::MAX);
        assert_eq!(all.shaping.len(), (3_000 - 2_048) * 3);
        let measuring = rows(&queries.values);
        assert_eq!(measuring.len(), 2_048 * 3);
        assert!(measuring.is_disjoint(&rows(&queries.shaping)));
    }
}
