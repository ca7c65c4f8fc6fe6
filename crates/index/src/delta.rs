//! A delta: a few vectors beside an index, scored all, and the order in which both answer as one.
//!
//! A base index never changes. What is new or changed since it was built lies here, under ordinals
//! of its own or of the items that it replaces; whoever searches excludes the replaced ones from the
//! base and joins the two answers by [`merge`]. The scan costs `O(rows · dim)`: at 64 dimensions some
//! 10 µs for 1,000 rows. Above some 20,000 rows it is worth a graph of its own, which would be built
//! in [`Delta::new`] and asked in [`Delta::search`]; callers would not notice.

use refrain_kernels::{Kernels, Metric};

use crate::cap::Cap;
use crate::debias::Debias;
use crate::filter::Filter;
use crate::search::{Hit, SearchError, SearchParams, SearchStats, normalise, not_finite};

/// Rows scored at a time: few enough for their scores to stay in the first-level cache.
const BLOCK: usize = 256;

/// Vectors and the ordinals that they answer under. Immutable.
#[derive(Clone, Debug)]
pub struct Delta {
    metric: Metric,
    dim: usize,
    /// Ascending, distinct.
    ordinals: Vec<u32>,
    /// Row-major, in the order of the ordinals; of unit length for cosine.
    vectors: Vec<f32>,
}

/// Working memory of [`Delta::search`], which does not allocate once this is warm.
#[derive(Debug, Default)]
pub struct DeltaScratch {
    query: Vec<f32>,
    scores: Vec<f32>,
    hits: Vec<Hit>,
    groups: Vec<u32>,
}

/// Vectors that make no delta.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DeltaError {
    /// The number of values is not that of the rows.
    #[error("{rows} rows of {dim} values are {} values, not {values}", rows * dim)]
    Length {
        /// Rows.
        rows: usize,
        /// Values of a row.
        dim: usize,
        /// Values given.
        values: usize,
    },
    /// Ordinals that do not ascend, or the largest `u32`, which is none.
    #[error("row {row}: its ordinal does not come after the one before it")]
    Order {
        /// Which row, from 0.
        row: usize,
    },
    /// NaN or an infinity.
    #[error("row {row} is not finite")]
    NotFinite {
        /// Which row, from 0.
        row: usize,
    },
}

impl Delta {
    /// A delta of `ordinals.len()` rows of `dim` values, given as the index keeps its own: of unit
    /// length for cosine (see [`Delta::unit`]).
    ///
    /// # Errors
    /// [`DeltaError`] names the row.
    pub fn new(
        metric: Metric,
        dim: usize,
        ordinals: Vec<u32>,
        vectors: Vec<f32>,
    ) -> Result<Self, DeltaError> {
        if ordinals.len().checked_mul(dim) != Some(vectors.len()) {
            let (rows, values) = (ordinals.len(), vectors.len());
            return Err(DeltaError::Length { rows, dim, values });
        }
        let mut before = None;
        for (row, &ordinal) in ordinals.iter().enumerate() {
            if before.is_some_and(|before| before >= ordinal) || ordinal == u32::MAX {
                return Err(DeltaError::Order { row });
            }
            before = Some(ordinal);
        }
        if let Some(at) = not_finite(&vectors) {
            return Err(DeltaError::NotFinite {
                row: at / dim.max(1),
            });
        }
        Ok(Self {
            metric,
            dim,
            ordinals,
            vectors,
        })
    }

    /// A vector as an index by `metric` keeps it: of unit length for cosine, else as it is.
    pub fn unit(metric: Metric, vector: &mut [f32]) {
        if metric == Metric::Cosine {
            normalise(vector);
        }
    }

    /// Rows.
    pub fn len(&self) -> usize {
        self.ordinals.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ordinals.is_empty()
    }

    /// The vector under an ordinal, as it is kept. O(log rows).
    pub fn vector(&self, ordinal: u32) -> Option<&[f32]> {
        self.row(self.ordinals.binary_search(&ordinal).ok()?)
    }

    /// What scores are to be multiplied by, by row, where popularity is taken out of the base with the
    /// same `beta` (see [`Debias`]). O(rows · dim).
    pub fn weights(&self, beta: f64) -> Vec<f32> {
        let rows = self.vectors.chunks_exact(self.dim.max(1));
        rows.map(|row| Debias::weight(row, beta)).collect()
    }

    /// The `k` best allowed rows, best first, ties by ordinal. Scores every row, or, where fewer are
    /// on the allow-list, those. Of `params`, filter and cap matter; `weights`, if any, are those of
    /// [`Delta::weights`].
    ///
    /// # Errors
    /// [`SearchError`] when the query does not fit, or the weights are not as many as the rows; `out` is
    /// then empty.
    pub fn search(
        &self,
        query: &[f32],
        k: usize,
        params: &SearchParams<'_>,
        weights: Option<&[f32]>,
        scratch: &mut DeltaScratch,
        out: &mut Vec<Hit>,
    ) -> Result<SearchStats, SearchError> {
        out.clear();
        let filter = &params.filter;
        if let Some(weights) = weights.filter(|weights| weights.len() != self.len()) {
            return Err(SearchError::WrongDebias {
                expected: self.len(),
                actual: weights.len(),
            });
        }
        if query.len() != self.dim {
            let (expected, actual) = (self.dim, query.len());
            return Err(SearchError::WrongDimension { expected, actual });
        }
        if let Some(dimension) = not_finite(query) {
            return Err(SearchError::NotFinite { dimension });
        }
        let DeltaScratch {
            query: unit,
            scores,
            hits,
            groups,
        } = scratch;
        unit.clear();
        unit.extend_from_slice(query);
        Self::unit(self.metric, unit);
        hits.clear();
        let scored = match filter.allow {
            Some(allow) if allow.len() < self.len() / 4 => {
                let kernels = Kernels::active();
                for ordinal in allow.iter().filter(|&ordinal| filter.allows(ordinal)) {
                    let Ok(at) = self.ordinals.binary_search(&ordinal) else {
                        continue;
                    };
                    if let Some(row) = self.row(at) {
                        let score = kernels.score(self.metric, unit, row);
                        let weight = weights.map_or(1.0, |weights| weights[at]);
                        hits.push(Hit {
                            ordinal,
                            score: plain(score * weight),
                        });
                    }
                }
                hits.len()
            }
            _ => {
                self.scan(unit, filter, weights, scores, hits);
                self.len()
            }
        };
        if k == 0 {
            hits.clear();
        } else if hits.len() > k && params.cap.is_none() {
            hits.select_nth_unstable_by(k - 1, before);
            hits.truncate(k);
        }
        hits.sort_unstable_by(before);
        if let Some(cap) = params.cap {
            keep_to(hits, k, cap, groups);
        }
        out.extend_from_slice(hits);
        Ok(SearchStats {
            distance_comps: u32::try_from(scored).unwrap_or(u32::MAX),
            exact: true,
            ..SearchStats::default()
        })
    }

    fn scan(
        &self,
        query: &[f32],
        filter: &Filter<'_>,
        weights: Option<&[f32]>,
        scores: &mut Vec<f32>,
        hits: &mut Vec<Hit>,
    ) {
        let kernels = Kernels::active();
        let open = filter.is_open();
        let rows = self.vectors.chunks(BLOCK * self.dim.max(1));
        for (block, (ordinals, rows)) in self.ordinals.chunks(BLOCK).zip(rows).enumerate() {
            scores.clear();
            scores.resize(ordinals.len(), 0.0);
            kernels.score_rows(self.metric, query, rows, self.dim, scores);
            if let Some(weights) = weights {
                let weights = &weights[block * BLOCK..];
                for (score, weight) in scores.iter_mut().zip(weights) {
                    *score *= weight;
                }
            }
            let scored = ordinals.iter().zip(scores.iter());
            hits.extend(
                scored
                    .filter(|&(&ordinal, _)| open || filter.allows(ordinal))
                    .map(|(&ordinal, &score)| Hit {
                        ordinal,
                        score: plain(score),
                    }),
            );
        }
    }

    fn row(&self, row: usize) -> Option<&[f32]> {
        self.vectors.get(row * self.dim..(row + 1) * self.dim)
    }
}

/// Joins two answers to one query, each best first and ties by ordinal, into the `k` best of both.
/// O(k); allocates only to grow `hits`.
pub fn merge(hits: &mut Vec<Hit>, more: &[Hit], k: usize) {
    // How many of each are among the best k.
    let (mut ours, mut theirs) = (0, 0);
    while ours + theirs < k {
        match (hits.get(ours), more.get(theirs)) {
            (Some(a), Some(b)) if before(b, a).is_lt() => theirs += 1,
            (Some(_), _) => ours += 1,
            (None, Some(_)) => theirs += 1,
            (None, None) => break,
        }
    }
    hits.truncate(ours);
    hits.extend_from_slice(&more[..theirs]);
    // From the back, so that nothing is overwritten before it has moved.
    let mut at = ours + theirs;
    while theirs > 0 {
        at -= 1;
        if ours > 0 && before(&more[theirs - 1], &hits[ours - 1]).is_lt() {
            ours -= 1;
            hits[at] = hits[ours];
        } else {
            theirs -= 1;
            hits[at] = more[theirs];
        }
    }
}

/// As [`merge`], of two answers that each keep to a cap: what both come to together.
pub fn merge_capped(hits: &mut Vec<Hit>, more: &[Hit], k: usize, cap: Option<Cap<'_>>) {
    let Some(cap) = cap else {
        return merge(hits, more, k);
    };
    merge(hits, more, usize::MAX);
    keep_to(hits, k, cap, &mut Vec::new());
}

/// Passes over those of full groups, and ends with `k`. O(hits · k); `groups` is memory.
fn keep_to(hits: &mut Vec<Hit>, k: usize, cap: Cap<'_>, groups: &mut Vec<u32>) {
    groups.clear();
    let mut kept: usize = 0;
    for at in 0..hits.len() {
        if kept == k {
            break;
        }
        if let Some(group) = cap.groups.group(hits[at].ordinal) {
            let taken = groups.iter().filter(|other| **other == group).count();
            if taken >= cap.most() as usize {
                continue;
            }
            groups.push(group);
        }
        hits[kept] = hits[at];
        kept += 1;
    }
    hits.truncate(kept);
}

/// The order of answers: better scores first, ties by ordinal.
fn before(a: &Hit, b: &Hit) -> std::cmp::Ordering {
    b.score
        .total_cmp(&a.score)
        .then_with(|| a.ordinal.cmp(&b.ordinal))
}

/// A score as an index gives it: NaN (an overflow met its opposite) is the worst, -0 is 0.
fn plain(score: f32) -> f32 {
    if score.is_nan() {
        f32::NEG_INFINITY
    } else {
        score + 0.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::OrdinalSet;

    fn hit(score: i8, ordinal: u32) -> Hit {
        Hit {
            ordinal,
            score: f32::from(score),
        }
    }

    proptest! {
        #[test]
        fn merging_is_sorting_together(
            ours in prop::collection::vec((-3_i8..3, 0_u32..50), 0..20),
            theirs in prop::collection::vec((-3_i8..3, 50_u32..99), 0..20),
            k in 0_usize..45,
        ) {
            let sorted = |hits: &[(i8, u32)]| {
                let mut hits: Vec<Hit> = hits.iter().map(|&(s, o)| hit(s, o)).collect();
                hits.sort_by(before);
                hits.dedup_by_key(|hit| hit.ordinal);
                hits
            };
            let (mut ours, theirs) = (sorted(&ours), sorted(&theirs));
            let mut expected = ours.clone();
            expected.extend_from_slice(&theirs);
            expected.sort_by(before);
            expected.truncate(k);
            merge(&mut ours, &theirs, k);
            prop_assert_eq!(ours, expected);
        }

        /// The scan, with any filter, against scoring one by one.
        #[test]
        fn a_scan_finds_the_best(
            rows in prop::collection::vec(prop::array::uniform3(-2_i8..3), 0..40),
            query in prop::array::uniform3(-2_i8..3),
            excluded in prop::collection::vec(0_u32..120, 0..30),
            allowed in prop::option::of(prop::collection::vec(0_u32..120, 0..30)),
            k in 0_usize..12,
            metric in prop::sample::select(Metric::ALL.to_vec()),
            beta in prop::option::of(0.0..1.0_f64),
        ) {
            let query: Vec<f32> = query.iter().map(|&value| f32::from(value)).collect();
            let mut vectors = Vec::new();
            for row in &rows {
                let mut row: Vec<f32> = row.iter().map(|&value| f32::from(value)).collect();
                Delta::unit(metric, &mut row);
                vectors.extend(row);
            }
            let ordinals: Vec<u32> = (0..).take(rows.len()).map(|row| row * 3).collect();
            let delta = Delta::new(metric, 3, ordinals.clone(), vectors.clone()).unwrap();
            let exclude: OrdinalSet = excluded.into_iter().collect();
            let allow: Option<OrdinalSet> = allowed.map(|allowed| allowed.into_iter().collect());
            let filter = Filter { exclude: &[&exclude], allow: allow.as_ref() };
            let mut unit = query.clone();
            Delta::unit(metric, &mut unit);
            let mut expected: Vec<Hit> = ordinals
                .iter()
                .zip(vectors.chunks(3))
                .filter(|&(&ordinal, _)| filter.allows(ordinal))
                .map(|(&ordinal, row)| {
                    let weight = beta.map_or(1.0, |beta| Debias::weight(row, beta));
                    Hit {
                        ordinal,
                        score: plain(Kernels::active().score(metric, &unit, row) * weight),
                    }
                })
                .collect();
            expected.sort_by(before);
            expected.truncate(k);
            let mut out = Vec::new();
            let weights = beta.map(|beta| delta.weights(beta));
            let mut scratch = DeltaScratch::default();
            let params = SearchParams { filter, ..SearchParams::default() };
            delta.search(&query, k, &params, weights.as_deref(), &mut scratch, &mut out).unwrap();
            prop_assert_eq!(out, expected);
        }
    }

    #[test]
    fn what_is_no_delta_is_refused() {
        let new = |ordinals: &[u32], values: &[f32]| {
            Delta::new(Metric::L2, 2, ordinals.to_vec(), values.to_vec()).unwrap_err()
        };
        assert!(matches!(new(&[1], &[0.0]), DeltaError::Length { .. }));
        assert_eq!(new(&[2, 2], &[0.0; 4]), DeltaError::Order { row: 1 });
        assert_eq!(new(&[u32::MAX], &[0.0; 2]), DeltaError::Order { row: 0 });
        let values = [0.0, 0.0, 0.0, f32::NAN];
        assert_eq!(new(&[0, 1], &values), DeltaError::NotFinite { row: 1 });
    }
}
