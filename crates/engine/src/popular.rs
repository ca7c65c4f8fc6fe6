//! The most popular allowed items: what is answered when there is nothing to search with.

use refrain_ranking::popularity;
use rustc_hash::FxHashMap;

use crate::answer::{Scored, Source};
use crate::filter::Allowed;
use crate::version::Version;

/// Puts the `k` most popular allowed items into `out`, at most `cap` of one artist. Stops at the
/// `k`-th: O(k + items skipped).
pub(crate) fn popular(
    version: &Version,
    allowed: &Allowed<'_>,
    k: usize,
    cap: Option<u32>,
    out: &mut Vec<Scored>,
) {
    let items = version.items();
    let most = items.max_popularity();
    let mut taken: FxHashMap<u32, u32> = FxHashMap::default();
    let mut within_cap = |ordinal: u32| {
        let (Some(cap), Some(artist)) = (cap, items.artist(ordinal)) else {
            return true;
        };
        let count = taken.entry(artist).or_insert(0);
        *count += 1;
        *count <= cap
    };
    out.clear();
    out.extend(
        items
            .by_popularity()
            .filter(|&ordinal| allowed.contains(ordinal) && within_cap(ordinal))
            .take(k)
            .map(|ordinal| Scored {
                ordinal,
                score: popularity(items.popularity(ordinal), most),
                similarity: 0.0,
                source: Source::Popular,
            }),
    );
}
