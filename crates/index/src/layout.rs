//! The sections an index is made of, and the header that says how long each must be.
//!
//! Inside the index an item is known by its *place*. Under inner product the longest vectors come
//! first, so that no item further on can score better than a bound; else items that are near each
//! other lie near each other. [`ORDINALS`] and [`PLACES`] lead from one numbering to the other.
//!
//! | section | content |
//! |---|---|
//! | [`HEADER`] | [`Header`], 256 bytes |
//! | [`STEPS`] | `f32[256]`: the steps of [`crate::codes`], from the widest to the narrowest |
//! | [`CENTRE`] | `f32[dim]`: what is taken off every vector before it is coded; zeros but for l2 |
//! | [`CODES`] | `i8[n × stride]`, by place: the high bytes of the coded values, zeros after `dim` |
//! | [`SCALES`] | `u8[n]`, by place: position of the item's step in [`STEPS`] |
//! | [`SQUARES`] | `f32[n]`, by place, l2 only: squared length of what the high bytes stand for |
//! | [`PROJECTION`] | `f32[width × dim]`, where `width > 0`: rows of the projection that is walked |
//! | [`SKETCHES`] | `i8[n × stride of width]`, by place, where `width > 0`: high bytes of the projected values |
//! | [`SKETCH_SCALES`] | `u8[n]`, by place, where `width > 0`: position of the sketch's step in [`STEPS`] |
//! | [`NIBBLES`] | `i8[n × 64]`, by place, where vectors are walked by [`crate::nibbles`]: two codes a byte |
//! | [`TERMS`] | `f32[n × 2]`, by place, there: step of the nibbles, squared length (l2, else 0) |
//! | [`LENGTHS`] | `f32[⌈n / 64⌉]`, by place, ip only: length of the longest of each 64 items; falls |
//! | [`LINKS`] | `u32[n × 2m]`: the base layer, one row of places an item, [`EMPTY`] after the last |
//! | [`NAV_ITEMS`] | `u32[counts[0]]`: places of the items of layer 1, highest top layer first: the items of layer `l` are the first `counts[l - 1]` |
//! | [`NAV_LINKS`] | `u32[(counts[0] + counts[1] + …) × m]`: layers 1, 2, … one after another, rows of positions in [`NAV_ITEMS`] |
//! | [`REMAINDERS`] | `i8[n × dim]`, by place: the low bytes of the coded values |
//! | [`ORDINALS`] | `u32[n]`: place to ordinal |
//! | [`PLACES`] | `u32[n]`: ordinal to place |
//!
//! Everything is little-endian and used in place.

use bytemuck::{Pod, Zeroable};
use refrain_kernels::{Metric, prefetch};

use crate::{codes, heads, nibbles};

#[cfg(target_endian = "big")]
compile_error!("sections are little-endian and used in place: big-endian machines are not served");

/// Name of the header section.
pub(crate) const HEADER: &str = "index.header";
/// Name of the section of steps.
pub(crate) const STEPS: &str = "index.steps";
/// Name of the section of the centre.
pub(crate) const CENTRE: &str = "index.centre";
/// Name of the section of codes.
pub(crate) const CODES: &str = "index.codes";
/// Name of the section of scales.
pub(crate) const SCALES: &str = "index.scales";
/// Name of the section of squared lengths.
pub(crate) const SQUARES: &str = "index.squares";
/// Name of the section of the projection.
pub(crate) const PROJECTION: &str = "index.projection";
/// Name of the section of sketches.
pub(crate) const SKETCHES: &str = "index.sketches";
/// Name of the section of the scales of sketches.
pub(crate) const SKETCH_SCALES: &str = "index.sketch_scales";
/// Name of the section of nibbles.
pub(crate) const NIBBLES: &str = "index.nibbles";
/// Name of the section of the terms of nibbles.
pub(crate) const TERMS: &str = "index.terms";
/// Name of the section of lengths.
pub(crate) const LENGTHS: &str = "index.lengths";
/// Name of the section of remainders.
pub(crate) const REMAINDERS: &str = "index.remainders";
/// Name of the section of ordinals.
pub(crate) const ORDINALS: &str = "index.ordinals";
/// Name of the section of places.
pub(crate) const PLACES: &str = "index.places";
/// Name of the section of base-layer links.
pub(crate) const LINKS: &str = "index.links";
/// Name of the section of upper-layer items.
pub(crate) const NAV_ITEMS: &str = "index.nav_items";
/// Name of the section of upper-layer links.
pub(crate) const NAV_LINKS: &str = "index.nav_links";

/// Items to one entry of [`LENGTHS`].
pub(crate) const RUN: usize = 64;

/// An unused slot of a row of links.
pub(crate) const EMPTY: u32 = u32::MAX;

/// Layers above the base at most; a level drawn higher is held here.
pub(crate) const MAX_LAYERS: usize = 16;

/// Most items in one index: ordinals leave a bit for the search's own marks.
pub const MAX_ITEMS: usize = (1 << 31) - 1;
/// Largest dimension.
pub const MAX_DIM: usize = 1 << 15;
/// Smallest `m`.
pub const MIN_M: usize = 2;
/// Largest `m`.
pub const MAX_M: usize = 256;

/// First bytes of a header section.
pub(crate) const MAGIC: [u8; 8] = *b"\x89RFIDX\r\n";
/// Version of this layout.
pub(crate) const VERSION: u32 = 3;

/// The fixed part: everything the lengths of the other sections follow from.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct Header {
    pub(crate) magic: [u8; 8],
    pub(crate) version: u32,
    /// Position in `Metric::ALL`.
    pub(crate) metric: u32,
    pub(crate) n: u64,
    pub(crate) seed: u64,
    pub(crate) dim: u32,
    pub(crate) m: u32,
    pub(crate) ef_construction: u32,
    /// Place the base layer is entered at when there is no layer above, and that every item can
    /// be reached from.
    pub(crate) entry: u32,
    /// Bytes from one row of codes to the next: `dim` rounded up, see [`crate::codes::stride`].
    pub(crate) stride: u32,
    pub(crate) layers: u32,
    /// Items of layers 1, 2, …; 0 past the last.
    pub(crate) counts: [u32; MAX_LAYERS],
    /// Longest difference between a vector (less the centre) and what its high bytes stand for,
    /// in steps of the item.
    pub(crate) coarse_error: f32,
    /// Root mean square, over the items, of the difference between a vector and what all its
    /// bytes stand for, relative to the length of the vector: what was lost by coding.
    pub(crate) loss: f32,
    /// Dimensions of the sketch that is walked; 0: all dimensions are.
    pub(crate) width: u32,
    /// Of inner product: the longest vectors that a search scores first, see [`crate::heads`]; else 0.
    pub(crate) heads: [u32; heads::WIDTHS],
    /// Written as 0, not read.
    pub(crate) reserved: [u32; 31 - heads::WIDTHS],
}

/// Bytes that an index of so many items will take, all sections together: exact but for the layers
/// above the base, which are drawn, and of long vectors the width of the sketch, taken at its
/// widest.
pub fn expected_bytes(n: usize, dim: usize, m: usize, metric: Metric) -> u64 {
    let [items, d, links] = [n, dim, m].map(|count| count as u64);
    let width = sketch_width(dim) as u64;
    // Each layer has one in m of the one below.
    let above = items / links.max(2);
    let rows = items / links.saturating_sub(1).max(1);
    let sketch = match sketch_width(dim) {
        0 => 0,
        width => codes::stride(width) as u64 + 1,
    };
    let mut an_item = codes::stride(dim) as u64 + d + 1 + sketch + 2 * links * 4 + 2 * 4;
    if nibbles::are_walked(metric, dim) {
        an_item += (nibbles::stride(dim) + 4 * nibbles::TERMS) as u64;
    }
    let mut once = size_of::<Header>() as u64 + 4 * (codes::RUNGS as u64 + d + width * d);
    match metric {
        Metric::L2 => an_item += 4,
        Metric::InnerProduct => once += 4 * items.div_ceil(RUN as u64),
        Metric::Cosine => {}
    }
    once + items * an_item + above * 4 + rows * links * 4
}

/// Components that vectors of a dimension are walked by at most; 0: all dimensions are.
pub(crate) fn sketch_width(dim: usize) -> usize {
    if dim <= WHOLE { 0 } else { WHOLE }
}

/// Dimensions up to which vectors are walked whole, and the most components of longer ones.
pub(crate) const WHOLE: usize = 128;

impl Header {
    /// Rows of all layers above the base.
    pub(crate) fn nav_rows(&self) -> u64 {
        self.counts.iter().map(|count| u64::from(*count)).sum()
    }
}

/// A view of the graph: the rows of each layer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Graph<'a> {
    pub(crate) n: usize,
    pub(crate) m: usize,
    pub(crate) links: &'a [u32],
    pub(crate) nav_items: &'a [u32],
    pub(crate) nav_links: &'a [u32],
    pub(crate) counts: &'a [u32; MAX_LAYERS],
    pub(crate) layers: usize,
    pub(crate) entry: u32,
}

impl<'a> Graph<'a> {
    /// The base layer: positions are places.
    pub(crate) fn base(&self) -> Layer<'a> {
        Layer {
            links: self.links,
            degree: 2 * self.m,
            len: self.n,
            items: None,
        }
    }

    /// Layer `number` (1 or higher) above the base; its first `counts[number - 1]` nodes.
    pub(crate) fn above(&self, number: usize) -> Layer<'a> {
        let before: usize = self.counts[..number - 1]
            .iter()
            .map(|count| *count as usize)
            .sum();
        let len = self.counts[number - 1] as usize;
        Layer {
            links: &self.nav_links[before * self.m..(before + len) * self.m],
            degree: self.m,
            len,
            items: Some(&self.nav_items[..len]),
        }
    }
}

/// The links of one row so far, by a few bits of each: nearly always these tell at once that another is new.
#[derive(Debug, Default)]
pub(crate) struct RowSet([u64; 4]);

impl RowSet {
    /// Whether a link is new to the `row` that all before were inserted with; it is a member from now on.
    pub(crate) fn insert(&mut self, link: u32, row: &[u32]) -> bool {
        let (word, bit) = (&mut self.0[link as usize / 64 % 4], 1 << (link % 64));
        let known = *word & bit != 0;
        *word |= bit;
        !known || !row.contains(&link)
    }
}

/// One layer: rows of positions within the layer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layer<'a> {
    pub(crate) links: &'a [u32],
    pub(crate) degree: usize,
    pub(crate) len: usize,
    /// Position to place; `None` on the base layer, where they are the same.
    pub(crate) items: Option<&'a [u32]>,
}

impl<'a> Layer<'a> {
    /// The links of a node of this layer, unused slots included.
    #[inline]
    pub(crate) fn row(&self, position: u32) -> &'a [u32] {
        let start = position as usize * self.degree;
        &self.links[start..start + self.degree]
    }

    /// Asks for the row that a search breadth first comes to soon, from the nodes it met and how many of them it is
    /// done with: rows lie anywhere, and it would wait for each.
    #[inline]
    pub(crate) fn ask_ahead(&self, met: &[u32], done: usize) {
        const AHEAD: usize = 8;
        if let Some(&soon) = met.get(done + AHEAD) {
            prefetch(self.row(soon));
        }
    }

    /// The place at a position.
    #[inline]
    pub(crate) fn item(&self, position: u32) -> u32 {
        self.items
            .map_or(position, |items| items[position as usize])
    }
}
