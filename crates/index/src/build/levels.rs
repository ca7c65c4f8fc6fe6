//! Which items are on which layer, and where the graph is entered.

use std::cmp::Reverse;

use refrain_kernels::Metric;

use super::{BuildParams, Coded, copies::Copies};
use crate::{layout::MAX_LAYERS, pool::Ranked, walk::count};

/// The items of the upper layers.
pub(super) struct Nav {
    /// Highest top layer first, then by ordinal: layer `l` is a prefix.
    pub(super) items: Vec<u32>,
    /// Length of that prefix for layers 1, 2, …
    pub(super) counts: [u32; MAX_LAYERS],
}

/// Draws the top layer of every item: each layer keeps one in `m` of the one below, in
/// expectation (section 4.1 of the paper, `mL = 1 / ln m`). A draw depends on seed and ordinal
/// alone, and is made of integers, for logarithms differ between machines. Copies stay below.
pub(super) fn draw(n: usize, params: &BuildParams, copies: &Copies) -> Nav {
    given(n, copies, |ordinal| level(params, ordinal))
}

/// As [`draw`], by levels that are known.
pub(super) fn given(n: usize, copies: &Copies, level: impl Fn(u32) -> usize) -> Nav {
    let mut items: Vec<(Reverse<usize>, u32)> = (0..count(n))
        .filter(|ordinal| !copies.contains(*ordinal))
        .map(|ordinal| (Reverse(level(ordinal)), ordinal))
        .filter(|(Reverse(level), _)| *level > 0)
        .collect();
    items.sort_unstable();
    let mut counts = [0; MAX_LAYERS];
    for (layer, above) in (1..).zip(&mut counts) {
        *above = count(items.partition_point(|(Reverse(level), _)| *level >= layer));
    }
    Nav {
        items: items.into_iter().map(|(_, ordinal)| ordinal).collect(),
        counts,
    }
}

/// The item that everything must be reachable from: of inner product the one with the largest
/// norm, where answers are; else the first of the top layer.
pub(super) fn entry(nav_items: &[u32], metric: Metric, coded: &Coded) -> u32 {
    match metric {
        Metric::InnerProduct => {
            let norms = coded.inverse_norms.iter().zip(0..);
            norms
                .map(|(inverse, item)| Ranked::new(-inverse, item))
                .min()
                .map_or(0, Ranked::position)
        }
        Metric::Cosine | Metric::L2 => nav_items.first().copied().unwrap_or(0),
    }
}

/// The top layer that an item draws.
pub(super) fn level(params: &BuildParams, ordinal: u32) -> usize {
    let bar = u64::MAX / u64::from(count(params.m));
    let mut draw = params.seed;
    (0..MAX_LAYERS)
        .take_while(|_| {
            draw = hash(draw, ordinal);
            draw < bar
        })
        .count()
}

/// SplitMix64's output function over seed and ordinal.
pub(super) fn hash(seed: u64, ordinal: u32) -> u64 {
    let mut z = seed ^ (u64::from(ordinal) + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_shrink_by_m() {
        let params = BuildParams {
            m: 16,
            seed: 5,
            ..BuildParams::default()
        };
        let none = Copies::none(100_000);
        let nav = draw(100_000, &params, &none);
        assert!((5_500..7_000).contains(&nav.counts[0]), "{:?}", nav.counts);
        assert!((300..500).contains(&nav.counts[1]), "{:?}", nav.counts);
        assert_eq!(nav.items.len(), nav.counts[0] as usize);
        assert!(nav.items[nav.counts[1] as usize..].is_sorted());
        let other = draw(100_000, &BuildParams { seed: 6, ..params }, &none);
        assert_ne!(nav.items, other.items);
    }
}
