//! Searching base and deltas as one.

use refrain_index::{
    Cap, Deadline, DeltaScratch, Filter, Groups, Hit, Index, OrdinalSet, Scratch as IndexScratch,
    SearchError, SearchParams, SearchStats, merge_capped,
};

use crate::debiased::Debiased;
use crate::delta::VersionItems;
use crate::version::Version;

/// Memory that searches use again.
#[derive(Debug, Default)]
pub(crate) struct SearchScratch {
    index: IndexScratch,
    delta: DeltaScratch,
    more: Vec<Hit>,
}

/// How a version is to be searched.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Params<'a> {
    /// Width of the search along the graph.
    pub(crate) ef_search: usize,
    /// By scoring all that is allowed, until the deadline.
    pub(crate) exact: bool,
    pub(crate) filter: Filter<'a>,
    pub(crate) deadline: Option<Deadline>,
    pub(crate) debias: Option<&'a Debiased>,
    /// Most items of an artist.
    pub(crate) per_artist: Option<u32>,
}

impl Version {
    /// The `k` best allowed items of base and deltas, best first, ties by ordinal. What deltas hold is
    /// scored exactly, and so is the answer when that of the base is.
    pub(crate) fn search(
        &self,
        query: &[f32],
        k: usize,
        params: &Params<'_>,
        scratch: &mut SearchScratch,
        out: &mut Vec<Hit>,
    ) -> Result<SearchStats, SearchError> {
        let search = match params.exact {
            false => Index::search,
            true => Index::search_exact_by,
        };
        let (base, index) = (self.index(), &mut scratch.index);
        let items = self.items();
        let cap = params.per_artist.map(|most| Cap {
            most,
            groups: &items,
        });
        let mut of_base = SearchParams {
            ef_search: params.ef_search,
            filter: params.filter,
            deadline: params.deadline,
            debias: params.debias.map(|debiased| &*debiased.base),
            cap,
        };
        let Some(delta) = self.folded() else {
            return search(base, query, k, &of_base, index, out);
        };
        let exclude = with(params.filter.exclude, &delta.masked);
        of_base.filter.exclude = &exclude;
        let stats = search(base, query, k, &of_base, index, out)?;
        let of_delta = SearchParams {
            filter: params.filter,
            ..of_base
        };
        let weights = params.debias.and_then(|debiased| debiased.rows.as_deref());
        let SearchScratch {
            delta: memory,
            more,
            ..
        } = scratch;
        let rows = &delta.vectors;
        let of_delta = rows.search(query, k, &of_delta, weights, memory, more)?;
        merge_capped(out, more, k, cap);
        Ok(joined(stats, of_delta))
    }
}

/// Artists.
impl Groups for VersionItems<'_> {
    fn group(&self, ordinal: u32) -> Option<u32> {
        self.artist(ordinal)
    }
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
