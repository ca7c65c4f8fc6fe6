//! Searching base and deltas as one.

use refrain_index::{
    Deadline, Delta as Vectors, DeltaScratch, Filter, Hit, OrdinalSet, Scratch as IndexScratch,
    SearchError, SearchParams, SearchStats, merge,
};

use crate::version::Version;

/// Memory that searches use again.
#[derive(Debug, Default)]
pub(crate) struct SearchScratch {
    index: IndexScratch,
    delta: DeltaScratch,
    more: Vec<Hit>,
}

impl Version {
    /// The `k` best allowed items of base and deltas, best first, ties by ordinal. What deltas hold is
    /// scored exactly, and so is the answer when that of the base is.
    pub(crate) fn search(
        &self,
        query: &[f32],
        k: usize,
        params: &SearchParams<'_>,
        scratch: &mut SearchScratch,
        out: &mut Vec<Hit>,
    ) -> Result<SearchStats, SearchError> {
        let index = &mut scratch.index;
        match self.folded() {
            None => self.index().search(query, k, params, index, out),
            Some(delta) => {
                let exclude = with(params.filter.exclude, &delta.masked);
                let base = SearchParams {
                    filter: Filter {
                        exclude: &exclude,
                        ..params.filter
                    },
                    ..*params
                };
                let stats = self.index().search(query, k, &base, index, out)?;
                join(
                    &delta.vectors,
                    query,
                    k,
                    &params.filter,
                    stats,
                    scratch,
                    out,
                )
            }
        }
    }

    /// The same by scoring all that is allowed, until the deadline.
    pub(crate) fn search_exact_within(
        &self,
        query: &[f32],
        k: usize,
        filter: &Filter<'_>,
        deadline: Option<Deadline>,
        scratch: &mut SearchScratch,
        out: &mut Vec<Hit>,
    ) -> Result<SearchStats, SearchError> {
        let (base, index) = (self.index(), &mut scratch.index);
        match self.folded() {
            None => base.search_exact_within(query, k, filter, deadline, index, out),
            Some(delta) => {
                let exclude = with(filter.exclude, &delta.masked);
                let masked = Filter {
                    exclude: &exclude,
                    ..*filter
                };
                let stats = base.search_exact_within(query, k, &masked, deadline, index, out)?;
                join(&delta.vectors, query, k, filter, stats, scratch, out)
            }
        }
    }
}

/// Adds what the deltas answer.
fn join(
    delta: &Vectors,
    query: &[f32],
    k: usize,
    filter: &Filter<'_>,
    base: SearchStats,
    scratch: &mut SearchScratch,
    out: &mut Vec<Hit>,
) -> Result<SearchStats, SearchError> {
    let SearchScratch {
        delta: memory,
        more,
        ..
    } = scratch;
    let stats = delta.search(query, k, filter, memory, more)?;
    merge(out, more, k);
    Ok(joined(base, stats))
}

fn with<'a>(sets: &[&'a OrdinalSet], more: &'a OrdinalSet) -> Vec<&'a OrdinalSet> {
    let mut all = Vec::with_capacity(sets.len() + 1);
    all.extend_from_slice(sets);
    all.push(more);
    all
}

/// Two searches as one: exact when both were, truncated when either was.
pub(crate) fn joined(a: SearchStats, b: SearchStats) -> SearchStats {
    SearchStats {
        hops: a.hops.saturating_add(b.hops),
        distance_comps: a.distance_comps.saturating_add(b.distance_comps),
        exact: a.exact && b.exact,
        truncated: a.truncated || b.truncated,
    }
}
