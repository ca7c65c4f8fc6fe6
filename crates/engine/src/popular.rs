//! What is answered when there is nothing to search with: the items that the variant pinned, then the
//! most popular ones.

use refrain_ranking::{Variant, popularity};
use rustc_hash::{FxHashMap, FxHashSet};

use crate::answer::{Scored, Source};
use crate::filter::Allowed;
use crate::version::Version;

/// Puts `k` allowed items into `out`, at most `cap` of one artist: the pinned ones in the order of the
/// variant, then by popularity. Stops at the `k`-th: O(k + items skipped).
pub(crate) fn popular(
    version: &Version,
    variant: &Variant,
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
    let pinned = variant.pinned.iter().filter_map(|id| items.ordinal(id));
    let mut there: FxHashSet<u32> = FxHashSet::default();
    let all = pinned.map(|ordinal| (ordinal, Source::Pinned)).chain(
        items
            .by_popularity()
            .map(|ordinal| (ordinal, Source::Popular)),
    );
    out.clear();
    for (ordinal, source) in all {
        if out.len() == k {
            break;
        }
        // Only pinned items can come twice.
        let again = !variant.pinned.is_empty() && !there.insert(ordinal);
        if !again && allowed.contains(ordinal) && within_cap(ordinal) {
            let score = popularity(items.popularity(ordinal), most);
            out.push(Scored::new(ordinal, score, 0.0, source));
        }
    }
}
