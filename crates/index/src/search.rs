//! Searching an index: which way of answering is cheapest, and the guarantee that it is complete.

use std::time::Instant;

use refrain_kernels::{Kernels, Metric};

use crate::{
    exact,
    filter::Filter,
    index::Index,
    scratch::Scratch,
    walk::{self, End, Limits, Scorer, Spent, count},
};

/// How a search is to be done.
#[derive(Clone, Copy, Debug)]
pub struct SearchParams<'a> {
    /// Width of the beam: candidates kept while walking. Larger finds more and takes longer;
    /// less than `k` is taken as `k`. 50 to 100 reaches recall@10 of 0.95 on most catalogues.
    pub ef_search: usize,
    /// Which items may come back.
    pub filter: Filter<'a>,
    /// When to stop and return what was found, flagged as truncated.
    pub deadline: Option<Instant>,
}

impl Default for SearchParams<'_> {
    fn default() -> Self {
        Self {
            ef_search: 100,
            filter: Filter::default(),
            deadline: None,
        }
    }
}

/// One item of an answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hit {
    /// The item.
    pub ordinal: u32,
    /// Larger is better: dot product, cosine, or negated squared distance.
    pub score: f32,
}

/// What a search did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SearchStats {
    /// Nodes whose links were followed, on all layers.
    pub hops: u32,
    /// Vectors scored.
    pub distance_comps: u32,
    /// The answer is exact: all allowed items were scored.
    pub exact: bool,
    /// The deadline cut the search short: better items, or more of them, may exist.
    pub truncated: bool,
}

/// Why a search was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SearchError {
    /// The query has another dimension than the index.
    #[error("query has {actual} dimensions, the index has {expected}")]
    WrongDimension {
        /// Dimension of the index.
        expected: usize,
        /// Length of the query.
        actual: usize,
    },
    /// The query holds NaN or an infinity.
    #[error("query is not finite at dimension {dimension}")]
    NotFinite {
        /// First position that is not a finite number.
        dimension: usize,
    },
}

/// What scoring a vector met on a walk costs, in vectors read one after another: its memory is
/// scattered, and visited set and pool are kept.
///
/// Measured with AVX-512 on a shared two-core machine, `m` 16, `ef` 50; best of 40 short runs each.
/// *Scored* is the part of `ef · m` vectors that a walk did score; *gathered* is the cost of a
/// vector of an allow-list of a third and of a tenth of the items.
///
/// | n | dim | scan, ns a vector | walk | scored | gathered |
/// |---|---|---|---|---|---|
/// | 2,439 | 64 | 5.2 | 3.7 | 0.90 | 2.0, 2.6 |
/// | 40,981 | 64 | 12.5 | 2.5 | 0.51 | 1.7, 1.0 |
/// | 100,000 | 64 | 14.7 | 2.1 | 1.23 | 1.2, 1.3 |
/// | 200,000 | 64 | 9.9 | 3.1 | 1.31 | 1.8, 2.0 |
/// | 1,219 | 128 | 8.0 | 2.7 | 0.85 | 1.7, 2.0 |
/// | 20,490 | 128 | 18.7 | 1.8 | 0.61 | 1.7, 0.8 |
/// | 50,000 | 128 | 22.8 | 2.3 | 1.40 | 1.4, 1.3 |
///
/// Taken high: an exact answer that cost a little more than the walk is no loss of recall.
const WALK_COST: usize = 3;

/// What scoring a vector picked from an allow-list costs, in the same unit; measured above. Taken
/// high, for small catalogues, where it decides.
const GATHER_COST: usize = 2;

impl Index {
    /// The `k` best items for a query, best first, ties by ordinal.
    ///
    /// Returns exactly `min(k, allowed items)`, unless the deadline passes first: excluded items
    /// route the walk without coming back, and where the walk is predicted to cost more than
    /// scoring all that is allowed, or has come to, or came up short, the allowed items are
    /// scored exactly. Takes O(ef · m · dim) for a walk and allocates nothing once `scratch` and
    /// `out` have met a search of this size.
    ///
    /// # Errors
    /// [`SearchError`] when the query does not fit; `out` is then empty.
    pub fn search(
        &self,
        query: &[f32],
        k: usize,
        params: &SearchParams<'_>,
        scratch: &mut Scratch,
        out: &mut Vec<Hit>,
    ) -> Result<SearchStats, SearchError> {
        out.clear();
        self.refuse_bad(query)?;
        let k = k.min(self.len());
        let ef = params.ef_search.clamp(k, self.len().max(k));
        if k == 0 {
            return Ok(SearchStats {
                exact: true,
                ..SearchStats::default()
            });
        }
        let costs = self.predict(ef, &params.filter);
        if costs.exact <= costs.walk {
            return self.search_exact_until(query, k, params, scratch, out);
        }
        let unit = self.unit_query(query, scratch);
        let scorer = self.scorer(&unit);
        let mut spent = Spent::default();
        let end = self.walk(&scorer, ef, params, costs.exact, scratch, &mut spent);
        put_back(unit, scratch);
        let found = if params.filter.is_open() {
            &scratch.pool
        } else {
            &scratch.results
        };
        out.extend(found.items().iter().take(k).map(hit));
        if end == End::Budget || (end == End::Converged && out.len() < k) {
            let mut stats = self.search_exact_until(query, k, params, scratch, out)?;
            stats.hops += spent.hops;
            stats.distance_comps = stats.distance_comps.saturating_add(spent.distance_comps);
            return Ok(stats);
        }
        Ok(SearchStats {
            hops: spent.hops,
            distance_comps: spent.distance_comps,
            exact: false,
            truncated: end == End::Deadline,
        })
    }

    /// As [`Index::search`] by the graph alone: never replaced by exact search, so it may return
    /// fewer. For measuring the graph.
    ///
    /// # Errors
    /// As [`Index::search`].
    pub fn search_graph(
        &self,
        query: &[f32],
        k: usize,
        params: &SearchParams<'_>,
        scratch: &mut Scratch,
        out: &mut Vec<Hit>,
    ) -> Result<SearchStats, SearchError> {
        out.clear();
        self.refuse_bad(query)?;
        let ef = params.ef_search.max(k).min(self.len());
        let unit = self.unit_query(query, scratch);
        let scorer = self.scorer(&unit);
        let mut spent = Spent::default();
        let end = self.walk(&scorer, ef, params, usize::MAX, scratch, &mut spent);
        put_back(unit, scratch);
        let found = if params.filter.is_open() {
            &scratch.pool
        } else {
            &scratch.results
        };
        out.extend(found.items().iter().take(k).map(hit));
        Ok(SearchStats {
            hops: spent.hops,
            distance_comps: spent.distance_comps,
            exact: false,
            truncated: end == End::Deadline,
        })
    }

    /// The `k` best allowed items by scoring all of them. O(n · dim).
    ///
    /// # Errors
    /// As [`Index::search`].
    pub fn search_exact(
        &self,
        query: &[f32],
        k: usize,
        filter: &Filter<'_>,
        scratch: &mut Scratch,
        out: &mut Vec<Hit>,
    ) -> Result<SearchStats, SearchError> {
        self.search_exact_within(query, k, filter, None, scratch, out)
    }

    /// As [`Index::search_exact`], but past the deadline it returns what it has found by then,
    /// flagged as truncated.
    ///
    /// # Errors
    /// As [`Index::search`].
    pub fn search_exact_within(
        &self,
        query: &[f32],
        k: usize,
        filter: &Filter<'_>,
        deadline: Option<Instant>,
        scratch: &mut Scratch,
        out: &mut Vec<Hit>,
    ) -> Result<SearchStats, SearchError> {
        self.refuse_bad(query)?;
        let params = SearchParams {
            ef_search: k,
            filter: *filter,
            deadline,
        };
        self.search_exact_until(query, k.min(self.len()), &params, scratch, out)
    }

    fn search_exact_until(
        &self,
        query: &[f32],
        k: usize,
        params: &SearchParams<'_>,
        scratch: &mut Scratch,
        out: &mut Vec<Hit>,
    ) -> Result<SearchStats, SearchError> {
        out.clear();
        let unit = self.unit_query(query, scratch);
        scratch.results.reset(k);
        let mut spent = Spent::default();
        let end = exact::scan(
            &self.scorer(&unit),
            &params.filter,
            params.deadline,
            scratch,
            &mut spent,
        );
        put_back(unit, scratch);
        out.extend(scratch.results.items().iter().map(hit));
        Ok(SearchStats {
            hops: 0,
            distance_comps: spent.distance_comps,
            exact: end == End::Converged,
            truncated: end == End::Deadline,
        })
    }

    /// Down the layers, then the beam on the base layer.
    fn walk(
        &self,
        scorer: &Scorer<'_>,
        ef: usize,
        params: &SearchParams<'_>,
        budget: usize,
        scratch: &mut Scratch,
        spent: &mut Spent,
    ) -> End {
        let graph = self.graph();
        scratch.visited.reset(self.len());
        scratch.pool.reset(ef);
        scratch.results.reset(ef);
        if graph.n == 0 {
            return End::Converged;
        }
        let mut position = 0;
        for number in (1..=graph.layers).rev() {
            let layer = graph.above(number);
            position = walk::greedy(&layer, scorer, position, &mut scratch.block, spent);
        }
        // Everything can be reached from the entry, whatever the layers above have come to.
        let descended = graph.nav_items.get(position as usize).copied();
        let seeds = [graph.entry, descended.unwrap_or(graph.entry)];
        let base = graph.base();
        if params.filter.is_open() {
            let Scratch {
                pool,
                visited,
                block,
                ..
            } = scratch;
            walk::beam(
                &base,
                scorer,
                &seeds,
                params.deadline,
                (pool, visited, block),
                spent,
            )
        } else {
            let limits = Limits {
                deadline: params.deadline,
                budget: count(budget),
            };
            walk::beam_filtered(
                &base,
                scorer,
                &seeds,
                &params.filter,
                limits,
                scratch,
                spent,
            )
        }
    }

    fn predict(&self, ef: usize, filter: &Filter<'_>) -> Costs {
        let n = self.len();
        let allowed = filter.expected(n);
        let exact = match filter.allow {
            Some(allow) if allow.len() < n / 2 => allowed * GATHER_COST,
            _ => n,
        };
        // About half of the links of an expanded node have been met before.
        let scored = ef.saturating_mul(self.params().m);
        let walk = scored.saturating_mul(WALK_COST).saturating_mul(n) / allowed.max(1);
        Costs { exact, walk }
    }

    fn scorer<'a>(&'a self, query: &'a [f32]) -> Scorer<'a> {
        Scorer {
            kernels: Kernels::active(),
            metric: self.metric(),
            query,
            vectors: self.vectors(),
        }
    }

    fn refuse_bad(&self, query: &[f32]) -> Result<(), SearchError> {
        if query.len() != self.dim() {
            let (expected, actual) = (self.dim(), query.len());
            return Err(SearchError::WrongDimension { expected, actual });
        }
        match query.iter().position(|value| !value.is_finite()) {
            Some(dimension) => Err(SearchError::NotFinite { dimension }),
            None => Ok(()),
        }
    }

    /// The query as it is scored, in memory lent by the scratch until [`put_back`].
    fn unit_query(&self, query: &[f32], scratch: &mut Scratch) -> Vec<f32> {
        let mut unit = std::mem::take(&mut scratch.query);
        unit.clear();
        unit.extend_from_slice(query);
        if self.metric() == Metric::Cosine {
            normalise(&mut unit);
        }
        unit
    }
}

/// Costs of the two ways of answering, in vectors read one after another.
struct Costs {
    exact: usize,
    walk: usize,
}

fn put_back(unit: Vec<f32>, scratch: &mut Scratch) {
    scratch.query = unit;
}

fn hit(item: &crate::pool::Ranked) -> Hit {
    Hit {
        ordinal: item.position(),
        score: item.score(),
    }
}

/// Scales to unit length; the zero vector stays, and so scores 0 with everything.
pub(crate) fn normalise(vector: &mut [f32]) {
    let square: f64 = vector.iter().map(|value| f64::from(*value).powi(2)).sum();
    if square > 0.0 {
        let scale = 1.0 / square.sqrt();
        for value in vector {
            #[expect(clippy::cast_possible_truncation, reason = "rounds to nearest")]
            let scaled = (f64::from(*value) * scale) as f32;
            *value = scaled;
        }
    }
}
