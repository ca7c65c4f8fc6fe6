//! Searching an index: which way of answering is cheapest, and the guarantee that it is complete.

use refrain_kernels::{
    Kernels, Metric,
    codes::{BLOCK, Simd, Task},
};

use crate::{
    cap::Cap,
    codes::CodeQuery,
    deadline::Deadline,
    debias::Debias,
    exact,
    filter::{Filter, OrdinalSet},
    front::Head,
    heads::Heads,
    index::Index,
    nibbles::NibbleQuery,
    pool::Ranked,
    scratch::Scratch,
    space::{Scores, Space},
    walk::{self, End, Limits, Spent, count},
};

/// How a search is to be done.
#[derive(Clone, Copy, Debug)]
pub struct SearchParams<'a> {
    /// Width of the beam: candidates kept while walking. Larger finds more and takes longer;
    /// less than `k` is taken as `k`. 50 to 100 reaches recall@10 of 0.95 on most catalogues. Where the
    /// filter shuts out just what is nearest, `d` more than chance would, the walk widens to `ef_search · √(1 + d / k)`.
    pub ef_search: usize,
    /// Which items may come back.
    pub filter: Filter<'a>,
    /// When to stop and return what was found, flagged as truncated.
    pub deadline: Option<Deadline>,
    /// Scores by inner product with less of popularity in them; made for this index.
    pub debias: Option<&'a Debias>,
    /// At most so many items of a group.
    pub cap: Option<Cap<'a>>,
}

impl Default for SearchParams<'_> {
    fn default() -> Self {
        Self {
            ef_search: 100,
            filter: Filter::default(),
            deadline: None,
            debias: None,
            cap: None,
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
    /// What scores are to be weighted with was made for another index.
    #[error("the de-biasing is of {actual} items, the index has {expected}")]
    WrongDebias {
        /// Items of the index.
        expected: usize,
        /// Items it was made for.
        actual: usize,
    },
}

/// What scoring a vector met on a walk costs, in vectors read one after another: its memory is
/// scattered, and visited set and pool are kept.
///
/// Measured by `examples/costs.rs` with AVX2 on two virtual cores, cosine, `m` 16, `ef` 50; best of 40
/// short runs each. *Scored* is the part of `ef · m` vectors that a walk did score; *gathered* is the
/// cost of a vector of an allow-list of a third, a tenth and a hundredth of the items.
///
/// | n | dim | scan, ns a vector | walk | scored | gathered |
/// |---|---|---|---|---|---|
/// | 2,500 | 64 | 6.9 | 4.1 | 0.67 | 4.6, 5.6, 13.1 |
/// | 20,000 | 64 | 7.8 | 3.1 | 1.04 | 3.2, 3.8, 5.0 |
/// | 100,000 | 64 | 7.6 | 3.7 | 1.25 | 3.3, 4.2, 2.8 |
/// | 200,000 | 64 | 6.6 | 4.2 | 1.40 | 3.3, 4.6, 6.2 |
/// | 20,000 | 128 | 10.7 | 3.0 | 0.97 | 3.0, 3.4, 4.3 |
/// | 50,000 | 128 | 6.5 | 5.1 | 1.04 | 2.9, 4.4, 6.0 |
/// | 20,000 | 768 | 131.4 | 0.6 | 0.78 | 3.3, 0.7, 0.9 |
///
/// With AVX-512 and what a search does now: 2.3 to 3.7 ns a vector of 64 or 128 dimensions, the walk 3.2 to 5.3, gathered 3.1 to 5.
///
/// An exact answer that cost a little more than the walk is no loss of recall. Where a sketch is
/// walked a scan reads all dimensions, and the walk is cheaper than this says.
const WALK_COST: usize = 4;

impl Index {
    /// The `k` best items for a query, best first, ties by ordinal.
    ///
    /// Returns exactly `min(k, allowed items)`, or as many as fit the cap, unless the deadline passes first: excluded items
    /// route the walk without coming back, and where the walk is predicted to cost more than
    /// scoring all that is allowed, or has come to, or came up short, the allowed items are
    /// scored exactly. Under inner product up to `96 · ef` of the longest vectors are scored first (twice as many under a
    /// filter), as many as are likely to be in answers. Takes O(ef · m · dim) for a walk, O((d + ef · √(1 + d / k)) · m · dim) where `d` of what is
    /// nearest is shut out, and O(n · dim) at most beyond that; allocates nothing once the index has
    /// been searched, and `scratch` and `out` have met a search of this size.
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
        self.refuse(query, params)?;
        let k = k.min(self.len());
        let ef = self.width(k, params);
        if k == 0 {
            return Ok(SearchStats {
                exact: true,
                ..SearchStats::default()
            });
        }
        let costs = self.predict(ef, params);
        if costs.exact <= costs.walk {
            return Ok(self.exact(query, k, params, scratch, out));
        }
        let budgets = (costs.exact, costs.walk);
        let (end, spent) = self.walk(query, k, ef, params, budgets, scratch, out);
        if end == End::Budget || (end == End::Converged && out.len() < k) {
            let mut stats = self.exact(query, k, params, scratch, out);
            stats.hops += spent.hops;
            stats.distance_comps = stats.distance_comps.saturating_add(spent.distance_comps);
            return Ok(stats);
        }
        Ok(stats(end, spent))
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
        self.refuse(query, params)?;
        let k = k.min(self.len());
        let ef = self.width(k, params);
        let (end, spent) = self.walk(query, k, ef, params, (usize::MAX, 0), scratch, out);
        Ok(stats(end, spent))
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
        let params = SearchParams {
            filter: *filter,
            ..SearchParams::default()
        };
        self.search_exact_by(query, k, &params, scratch, out)
    }

    /// As [`Index::search_exact`] with all that `params` say but the width: past the deadline it returns
    /// what it has found by then, flagged as truncated.
    ///
    /// # Errors
    /// As [`Index::search`].
    pub fn search_exact_by(
        &self,
        query: &[f32],
        k: usize,
        params: &SearchParams<'_>,
        scratch: &mut Scratch,
        out: &mut Vec<Hit>,
    ) -> Result<SearchStats, SearchError> {
        out.clear();
        self.refuse(query, params)?;
        Ok(self.exact(query, k.min(self.len()), params, scratch, out))
    }

    fn exact(
        &self,
        query: &[f32],
        k: usize,
        params: &SearchParams<'_>,
        scratch: &mut Scratch,
        out: &mut Vec<Hit>,
    ) -> SearchStats {
        out.clear();
        let space = self.searched().debiased(params.debias);
        space.unit(query, &mut scratch.query);
        scratch.coded.set(&scratch.query, space.rows.stride());
        scratch.results.reset(k);
        let (end, spent) = Kernels::active().run(exact::Scan {
            space,
            ordinals: self.ordinals(),
            places: self.places(),
            filter: &params.filter,
            cap: params.cap,
            deadline: params.deadline,
            scratch,
        });
        out.extend(scratch.results.items().iter().map(hit));
        stats(end, spent)
    }

    /// As [`Index::search_exact`] of each of some queries, which all fit, into `results` of a scratch each.
    pub(crate) fn exact_together<'a>(
        &self,
        queries: impl Iterator<Item = &'a [f32]>,
        k: usize,
        scratches: &mut [Scratch],
    ) {
        let space = self.space();
        let mut asked = 0;
        for (query, scratch) in queries.zip(&mut *scratches) {
            space.unit(query, &mut scratch.query);
            scratch.coded.set(&scratch.query, space.rows.stride());
            scratch.results.reset(k);
            asked += 1;
        }
        Kernels::active().run(exact::ScanTogether {
            space,
            ordinals: self.ordinals(),
            scratches: &mut scratches[..asked],
        });
    }

    /// Down the layers, the beam on the base layer, and what it found scored by all bytes.
    #[expect(clippy::too_many_arguments, reason = "one call in three places")]
    fn walk(
        &self,
        query: &[f32],
        k: usize,
        ef: usize,
        params: &SearchParams<'_>,
        (budget, scan_budget): (usize, usize),
        scratch: &mut Scratch,
        out: &mut Vec<Hit>,
    ) -> (End, Spent) {
        if self.is_empty() {
            return (End::Converged, Spent::default());
        }
        let space = self.searched().debiased(params.debias);
        space.unit(query, &mut scratch.query);
        match space.nibbles {
            Some(_) => scratch.nibbles.set(&scratch.query, space.metric),
            None => space.code_for_walk(&scratch.query, &mut scratch.row, &mut scratch.coded),
        }
        // Lent to the scorer, while the rest of the memory is the walk's.
        let coded = std::mem::take(&mut scratch.coded);
        let nibbles = std::mem::take(&mut scratch.nibbles);
        let answer = Kernels::active().run(Walk {
            index: self,
            space,
            k,
            ef,
            params,
            budget,
            scan_budget,
            coded: &coded,
            nibbles: &nibbles,
            scratch,
        });
        (scratch.coded, scratch.nibbles) = (coded, nibbles);
        out.extend(scratch.results.items().iter().map(hit));
        answer
    }

    /// How many candidates a walk keeps; `k` is at most the number of items.
    fn width(&self, k: usize, params: &SearchParams<'_>) -> usize {
        let least = params.cap.map_or(k, |cap| cap.width(k));
        params.ef_search.max(least).min(self.len())
    }

    fn predict(&self, ef: usize, params: &SearchParams<'_>) -> Costs {
        let (n, filter) = (self.len(), &params.filter);
        let listed = filter.allow.map(OrdinalSet::len);
        let heads = params.debias.map_or(self.heads(), |debias| debias.heads);
        let head = match self.metric() {
            Metric::InnerProduct => head(heads, n, ef, spare(ef, params).is_some()),
            Metric::Cosine | Metric::L2 => 0,
        };
        let costs = Costs::predict(n, self.params().m, ef, filter.expected(n), listed);
        Costs {
            walk: costs.walk.saturating_add(head),
            ..costs
        }
    }

    fn refuse(&self, query: &[f32], params: &SearchParams<'_>) -> Result<(), SearchError> {
        let (expected, of) = (self.len(), params.debias.map(Debias::len));
        if let Some(actual) = of.filter(|actual| *actual != expected) {
            return Err(SearchError::WrongDebias { expected, actual });
        }
        self.refuse_bad(query)
    }

    pub(crate) fn refuse_bad(&self, query: &[f32]) -> Result<(), SearchError> {
        if query.len() != self.dim() {
            let (expected, actual) = (self.dim(), query.len());
            return Err(SearchError::WrongDimension { expected, actual });
        }
        match not_finite(query) {
            Some(dimension) => Err(SearchError::NotFinite { dimension }),
            None => Ok(()),
        }
    }
}

/// The first position that is not a finite number.
pub(crate) fn not_finite(row: &[f32]) -> Option<usize> {
    // To stop within a row would be to look at one value at a time.
    match row.iter().fold(true, |all, value| all & value.is_finite()) {
        true => None,
        false => row.iter().position(|value| !value.is_finite()),
    }
}

/// A walk, to be compiled for each instruction set.
struct Walk<'a> {
    index: &'a Index,
    space: Space<'a>,
    k: usize,
    ef: usize,
    params: &'a SearchParams<'a>,
    budget: usize,
    /// Items that may be scanned, where that makes the answer exact, instead of walking.
    scan_budget: usize,
    coded: &'a CodeQuery,
    nibbles: &'a NibbleQuery,
    scratch: &'a mut Scratch,
}

impl Task for Walk<'_> {
    type Output = (End, Spent);

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> (End, Spent) {
        let (space, coded) = (self.space, self.coded);
        match (
            space.nibble_walker(self.nibbles),
            space.walked_rows().stride() / BLOCK,
        ) {
            (Some(scorer), _) => self.go(simd, scorer),
            (None, 2) => self.go(simd, space.walker::<2>(coded)),
            (None, 4) => self.go(simd, space.walker::<4>(coded)),
            (None, _) => self.go(simd, space.walker::<0>(coded)),
        }
    }
}

impl Walk<'_> {
    /// Ends with the best `k` in `scratch.results`, by all bytes, as ordinals.
    #[inline(always)]
    fn go<S: Simd>(self, simd: S, scorer: impl Scores) -> (End, Spent) {
        let Self {
            index,
            space,
            k,
            ef,
            params,
            budget,
            scan_budget,
            coded,
            nibbles: _,
            scratch,
        } = self;
        let Scratch {
            visited,
            pool,
            results,
            frontier,
            block,
            head: memory,
            sample,
            query,
            whole,
            row,
            ..
        } = scratch;
        let graph = index.graph();
        let mut spent = Spent::default();
        let spare = spare(ef, params);
        visited.reset(index.len());
        pool.reset(ef + spare.unwrap_or(0));
        let admit = walk::Admit {
            filter: &params.filter,
            ordinals: index.ordinals(),
            cap: params.cap,
        };
        let open = spare.is_some();
        let mut is_complete = false;
        let scan = exact::Reach {
            space: &space,
            bound: exact::Bound::new(&space, query, coded),
            k: k + spare.unwrap_or(0),
        };
        let mut seeds = [graph.entry; 2];
        let mut seeds = &mut seeds[..];
        frontier.clear();
        if space.lengths.is_empty() {
            let mut position = 0;
            for number in (1..=graph.layers).rev() {
                let layer = graph.above(number);
                position = walk::greedy(simd, &layer, &scorer, position, block, &mut spent);
            }
            // Everything can be reached from the entry, whatever the layers above have come to.
            let descended = graph.nav_items.get(position as usize).copied();
            seeds[1] = descended.unwrap_or(graph.entry);
        } else {
            // The longest vectors are in most answers: they are where the walk begins, and where
            // the bound is near, all that can be in the answer.
            let (reached, complete) = simd.apart(Head {
                reach: scan,
                scorer: &scorer,
                first: head(space.heads, space.len(), ef, open),
                deadline: params.deadline,
                budget: scan_budget,
                admit: (!open).then_some(admit),
                pool,
                frontier,
                block,
                memory,
                spent: &mut spent,
            });
            is_complete = complete;
            if !complete {
                visited.mark(reached);
            }
            seeds = &mut [];
        }
        let base = graph.base();
        let end = if is_complete {
            End::Complete
        } else if open {
            simd.apart(walk::Beam {
                layer: &base,
                scorer: &scorer,
                seeds,
                deadline: params.deadline,
                pool,
                marks: visited.marks(index.len()),
                block,
                spent: &mut spent,
            })
        } else {
            let limits = Limits {
                k,
                deadline: params.deadline,
                budget: count(budget),
                scan: (budget < usize::MAX).then_some(scan),
            };
            walk::beam_filtered(
                simd,
                &base,
                &scorer,
                seeds,
                admit,
                limits,
                (
                    &mut *pool,
                    frontier,
                    visited.marks(index.len()),
                    &mut **block,
                    sample,
                ),
                &mut spent,
            )
        };
        if open && !params.filter.is_open() {
            pool.retain(|place| admit.allows(place));
        }
        results.reset(k);
        exact::refine(
            simd,
            &exact::Reach { k, ..scan },
            (index.ordinals(), params.cap),
            (query, whole),
            pool,
            results,
            (row, block),
        );
        (end, spent)
    }
}

/// Of the longest vectors, how many are scored before a walk by inner product. Where it asks about each item (not
/// `open`), more: what may not come back is often what is longest, and the best of the rest lie deeper.
#[inline(always)]
fn head(heads: Heads, n: usize, ef: usize, open: bool) -> usize {
    heads.at(if open { ef } else { 2 * ef }, n)
}

/// Places that a walk keeps beside `ef` for what may not come back, where that is no more than half of `ef`: it is walked
/// over as if it might, and left out at the end; `None` where each item is to be asked about. A walk that asks keeps
/// what it goes along and what may come back in two places, and takes half as long again.
///
/// 100,000 × 64, the nearest ten excluded, at a recall of 0.95 (`examples/exclusions.rs`): 33 us asked about, 24 left out
/// at the end.
fn spare(ef: usize, params: &SearchParams<'_>) -> Option<usize> {
    let excluded = params.filter.excluded_at_most()?;
    (params.cap.is_none() && excluded <= ef / 2).then_some(excluded)
}

/// How a search is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// Along the graph.
    Walk,
    /// By scoring everything that is allowed.
    Scan,
}

/// How an index of `n` items searches where `allowed` of them may come back, `listed` where they
/// are an allow-list. Under inner product a scan ends early, and a walk begins with the longest vectors, as many as their
/// lengths say, or may turn out to have been a scan: see [`SearchStats::exact`].
pub fn strategy(n: usize, m: usize, ef_search: usize, allowed: usize, listed: bool) -> Strategy {
    let costs = Costs::predict(n, m, ef_search, allowed, listed.then_some(allowed));
    if costs.exact <= costs.walk {
        Strategy::Scan
    } else {
        Strategy::Walk
    }
}

/// Costs of the two ways of answering, in vectors read one after another.
struct Costs {
    exact: usize,
    walk: usize,
}

impl Costs {
    fn predict(n: usize, m: usize, ef: usize, allowed: usize, listed: Option<usize>) -> Self {
        let exact = match listed {
            Some(listed) if exact::gathers(n, listed) => listed * exact::GATHER_COST,
            _ if exact::asks(n, allowed) => exact::asking(n, allowed),
            _ => n,
        };
        // About half of the links of an expanded node have been met before.
        let scored = ef.saturating_mul(m);
        let walk = scored.saturating_mul(WALK_COST).saturating_mul(n) / allowed.max(1);
        Self { exact, walk }
    }
}

fn stats(end: End, spent: Spent) -> SearchStats {
    SearchStats {
        hops: spent.hops,
        distance_comps: spent.distance_comps,
        exact: end == End::Complete,
        truncated: end == End::Deadline,
    }
}

pub(crate) fn hit(item: &Ranked) -> Hit {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BuildParams, made};

    /// By inner product, the longest vectors first: a tenth of all are long enough to be likely in an answer. The walk
    /// alone would be cheaper than a scan, with these before it it is not.
    #[test]
    fn what_is_scored_before_a_walk_is_part_of_its_cost() {
        let (n, dim) = (4_000_u16, 4);
        let vectors: Vec<f32> = (0..n)
            .flat_map(|item| {
                let angle = f32::from(item) * 2.399_963;
                let length = if item % 10 == 0 { 1.0 } else { 0.6 };
                let (sin, cos) = angle.sin_cos();
                [
                    sin * length,
                    cos * length,
                    length * 0.1,
                    -sin * 0.1 * length,
                ]
            })
            .collect();
        let index = made::index(&vectors, dim, &BuildParams::default());
        let (ef, m) = (60, index.params().m);
        let n = index.len();
        let before = head(index.heads(), n, ef, true);
        let walk = ef * m * WALK_COST;
        assert!(walk < n && n <= walk + before, "{walk} + {before}, {n}");
        // Along it all are short: no bound ends the scan, or the walk before it has begun.
        let query = [0.0, 0.0, 0.0, 1.0];
        let params = SearchParams {
            ef_search: ef,
            ..SearchParams::default()
        };
        assert_eq!(strategy(n, m, ef, n, false), Strategy::Walk);
        let (mut scratch, mut hits) = (Scratch::new(), Vec::new());
        let stats = index
            .search(&query, 10, &params, &mut scratch, &mut hits)
            .expect("fits");
        let scored = stats.distance_comps as usize;
        assert!(stats.exact && stats.hops == 0 && scored == n, "{stats:?}");
        let narrow = SearchParams {
            ef_search: 20,
            ..params
        };
        let stats = index
            .search(&query, 10, &narrow, &mut scratch, &mut hits)
            .expect("fits");
        assert!(stats.hops > 0, "{stats:?}");
    }
}
