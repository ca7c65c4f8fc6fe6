//! What an index will take and find, before it is built: bytes by the layout, time and recall by
//! building two samples and drawing the line on.

use std::time::Instant;

use refrain_index::{
    BuildParams, Filter, Hit, Index, Scratch, SearchError, SearchParams, Strategy, build,
    expected_bytes, strategy,
};
use serde::Serialize;

/// Items of the two samples, where there are that many.
const SAMPLES: [usize; 2] = [8_000, 32_000];
/// Queries that recall is measured by.
const QUERIES: usize = 256;
/// Answers compared.
const K: usize = 10;
/// Pool sizes that are told.
const POOL_SIZES: [usize; 4] = [32, 64, 128, 256];
/// Shares of the catalogue that a filter lets through, in thousandths.
const SHARES: [usize; 5] = [1000, 500, 100, 10, 1];

/// What is to be expected of an index.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Plan {
    /// Items of the whole.
    pub items: usize,
    /// Values of a vector.
    pub dim: usize,
    /// Bytes of the index on disk. The bundle has ids and attributes besides, and `4 · dim` bytes
    /// an item for the factors when it comes from a model.
    pub index_bytes: u64,
    /// The same for one item.
    pub bytes_per_item: f64,
    /// Seconds the graph takes to build, on this machine with the threads given.
    pub build_seconds: Option<f64>,
    /// Recall@10 by pool size.
    pub recall: Vec<Expected>,
    /// Items of the samples that were built; the last is everything where the catalogue is small.
    pub samples: Vec<usize>,
    /// How searches are answered when a filter lets only a part through.
    pub strategies: Vec<Filtered>,
}

/// Recall at a pool size.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Expected {
    /// The pool size.
    pub ef_search: usize,
    /// Mean share of the exact top 10 found, 0 to 1.
    pub recall_at_10: f64,
}

/// What runs under a filter.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Filtered {
    /// Share of the items that may come back.
    pub allowed: f64,
    /// Given by an allow-list (else by what is excluded).
    pub listed: bool,
    /// Whether the graph is walked at `ef_search` 64; else all that is allowed is scored.
    pub walk: bool,
}

/// A plan could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// A sample was not built.
    #[error(transparent)]
    Build(#[from] refrain_index::BuildError),
    /// A sample does not open.
    #[error("a sample does not open after building: {0}")]
    Open(#[from] refrain_index::OpenError),
    /// A query was refused.
    #[error("a query was refused: {0}")]
    Search(#[from] SearchError),
}

/// Of an index that nothing is known of but its size.
pub fn by_size(items: usize, dim: usize, params: &BuildParams) -> Plan {
    let index_bytes = expected_bytes(items, dim, params.m, params.metric);
    let filtered = |share: usize, listed| {
        let allowed = items * share / 1000;
        let way = strategy(items, params.m, 64, allowed, listed);
        Filtered {
            allowed: share as f64 / 1000.0,
            listed,
            walk: way == Strategy::Walk,
        }
    };
    let strategies = SHARES.iter().map(|share| filtered(*share, false));
    let listed = SHARES.iter().skip(1).map(|share| filtered(*share, true));
    Plan {
        items,
        dim,
        index_bytes,
        bytes_per_item: index_bytes as f64 / items.max(1) as f64,
        build_seconds: None,
        recall: Vec::new(),
        samples: Vec::new(),
        strategies: strategies.chain(listed).collect(),
    }
}

/// Of an index of `vectors` (rows of `dim`), asked for by rows of `askers`: by building samples.
/// `step` is told how many of how many samples are done.
///
/// # Errors
/// See [`PlanError`].
pub fn by_samples(
    vectors: &[f32],
    askers: &[f32],
    dim: usize,
    params: &BuildParams,
    step: &dyn Fn(usize, usize),
) -> Result<Plan, PlanError> {
    let items = vectors.len() / dim.max(1);
    let mut plan = by_size(items, dim, params);
    let queries = spread(askers, dim, QUERIES);
    let mut sizes: Vec<usize> = SAMPLES.iter().map(|size| (*size).min(items)).collect();
    sizes.dedup();
    // A catalogue that is hardly larger than a sample is its own.
    if let Some(last) = sizes.last_mut()
        && items <= *last * 2
    {
        *last = items;
    }
    let mut measured = Vec::new();
    for (at, size) in sizes.iter().enumerate() {
        step(at, sizes.len());
        measured.push(Measured::of(
            &spread(vectors, dim, *size),
            &queries,
            dim,
            params,
        )?);
    }
    step(sizes.len(), sizes.len());
    plan.samples = sizes;
    let line = |of: &dyn Fn(&Measured) -> f64| -> Option<f64> {
        let (first, last) = (measured.first()?, measured.last()?);
        Some(power(
            (first.items, of(first)),
            (last.items, of(last)),
            items,
        ))
    };
    plan.build_seconds = line(&|sample| sample.seconds);
    let pools = POOL_SIZES.iter().enumerate();
    plan.recall = pools
        .filter_map(|(at, ef_search)| {
            let missed = line(&|sample| sample.missed.get(at).copied().unwrap_or(0.0))?;
            Some(Expected {
                ef_search: *ef_search,
                recall_at_10: (1.0 - missed).clamp(0.0, 1.0),
            })
        })
        .collect();
    Ok(plan)
}

/// A built sample.
struct Measured {
    items: usize,
    seconds: f64,
    /// Share of the exact answer not found, by pool size.
    missed: Vec<f64>,
}

impl Measured {
    fn of(
        vectors: &[f32],
        queries: &[f32],
        dim: usize,
        params: &BuildParams,
    ) -> Result<Self, PlanError> {
        let begun = Instant::now();
        let sections = build(vectors, dim, params, &())?.into_sections();
        let seconds = begun.elapsed().as_secs_f64();
        let index = Index::open(&|name| {
            let found = sections.iter().find(|section| section.name == name);
            found.map(|section| section.bytes.clone())
        })?;
        let (mut scratch, mut exact, mut hits) = (Scratch::new(), Vec::new(), Vec::new());
        let mut found = [0_usize; POOL_SIZES.len()];
        let mut sought = 0_usize;
        for query in queries.chunks_exact(dim) {
            index.search_exact(query, K, &Filter::default(), &mut scratch, &mut exact)?;
            sought += exact.len();
            let last = exact.last().map_or(f32::INFINITY, |hit| hit.score);
            for (ef_search, found) in POOL_SIZES.into_iter().zip(&mut found) {
                let params = SearchParams {
                    ef_search,
                    ..SearchParams::default()
                };
                index.search(query, K, &params, &mut scratch, &mut hits)?;
                let as_good = |hit: &&Hit| hit.score >= last;
                *found += hits.iter().filter(as_good).count().min(exact.len());
            }
        }
        let missed = found.map(|found| 1.0 - found as f64 / sought.max(1) as f64);
        Ok(Self {
            items: vectors.len() / dim.max(1),
            seconds,
            missed: missed.to_vec(),
        })
    }
}

/// The value at `n` of the power of the number of items that goes through two points; where they
/// are one, or one is zero, the larger of the two.
fn power((n0, y0): (usize, f64), (n1, y1): (usize, f64), n: usize) -> f64 {
    if n0 == n1 || n0 == 0 || y0 <= 0.0 || y1 <= 0.0 || n == n1 {
        return if n == n1 { y1 } else { y0.max(y1) };
    }
    let exponent = (y1 / y0).ln() / (n1 as f64 / n0 as f64).ln();
    // What grows must not be taken to shrink for a stroke of luck in a sample.
    y1 * (n as f64 / n1 as f64).powf(exponent.clamp(0.0, 2.0))
}

/// Rows taken at even distances.
fn spread(rows: &[f32], dim: usize, wanted: usize) -> Vec<f32> {
    let all = rows.len() / dim.max(1);
    let wanted = wanted.min(all);
    (0..wanted)
        .flat_map(|at| {
            let row = at * all / wanted.max(1);
            rows.get(row * dim..(row + 1) * dim).unwrap_or_default()
        })
        .copied()
        .collect()
}

#[cfg(test)]
mod tests {
    use refrain_kernels::Metric;

    use super::*;

    fn params() -> BuildParams {
        BuildParams {
            metric: Metric::Cosine,
            threads: 2,
            ..BuildParams::default()
        }
    }

    #[test]
    fn a_line_through_two_points() {
        assert!((power((10, 2.0), (100, 20.0), 1000) - 200.0).abs() < 1e-9);
        assert!((power((10, 2.0), (100, 1.0), 1000) - 1.0).abs() < 1e-9);
        assert_eq!(power((10, 0.0), (100, 0.1), 1000), 0.1);
        assert_eq!(power((10, 3.0), (100, 4.0), 100), 4.0);
    }

    #[test]
    fn small_catalogues_are_scanned_and_large_ones_walked() {
        let way = |items, at: usize| by_size(items, 64, &params()).strategies[at];
        assert!(!way(2_000, 0).walk);
        assert!(way(1_000_000, 0).walk);
        let rare = by_size(1_000_000, 64, &params());
        let rare = rare.strategies.last().copied();
        assert!(rare.is_some_and(|rare| rare.listed && rare.allowed == 0.001 && !rare.walk));
    }

    #[test]
    fn samples_tell_time_and_recall() {
        let (n, dim) = (9_000, 8);
        let mut state = 1_u32;
        let vectors: Vec<f32> = (0..n * dim)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 16) as f32 / 32_768.0 - 1.0
            })
            .collect();
        let plan = by_samples(&vectors, &vectors, dim, &params(), &|_, _| {}).expect("planned");
        assert_eq!(plan.samples, [8_000, 9_000]);
        assert!(plan.build_seconds > Some(0.0));
        assert!(plan.recall.is_sorted_by_key(|point| point.ef_search));
        assert!(plan.recall.iter().all(|point| point.recall_at_10 > 0.9));
        let nothing = by_samples(&[], &[], dim, &params(), &|_, _| {}).expect("planned");
        assert_eq!(nothing.items, 0);
    }
}
