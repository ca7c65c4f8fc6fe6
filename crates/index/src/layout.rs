//! The sections an index is made of, and the header that says how long each must be.
//!
//! | section | content |
//! |---|---|
//! | [`HEADER`] | [`Header`], 160 bytes |
//! | [`VECTORS`] | `f32[n × dim]`, row-major, normalised for cosine |
//! | [`LINKS`] | `u32[n × 2m]`: the base layer, one row of ordinals an item, [`EMPTY`] after the last |
//! | [`NAV_ITEMS`] | `u32[counts[0]]`: ordinals of the items of layer 1, highest top layer first, then by ordinal: the items of layer `l` are the first `counts[l - 1]` |
//! | [`NAV_LINKS`] | `u32[(counts[0] + counts[1] + …) × m]`: layers 1, 2, … one after another, rows of positions in [`NAV_ITEMS`] |
//!
//! Everything is little-endian and used in place. Codes (quantised vectors) will be a section of
//! their own, announced in [`Header::codes`].

use bytemuck::{Pod, Zeroable};

#[cfg(target_endian = "big")]
compile_error!("sections are little-endian and used in place: big-endian machines are not served");

/// Name of the header section.
pub(crate) const HEADER: &str = "index.header";
/// Name of the section of vectors.
pub(crate) const VECTORS: &str = "index.vectors";
/// Name of the section of base-layer links.
pub(crate) const LINKS: &str = "index.links";
/// Name of the section of upper-layer items.
pub(crate) const NAV_ITEMS: &str = "index.nav_items";
/// Name of the section of upper-layer links.
pub(crate) const NAV_LINKS: &str = "index.nav_links";

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
pub(crate) const VERSION: u32 = 1;

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
    /// Ordinal the base layer is entered at when there is no layer above, and that every item can
    /// be reached from.
    pub(crate) entry: u32,
    /// Kind of codes; 0: none, the vectors themselves steer the walk.
    pub(crate) codes: u32,
    pub(crate) layers: u32,
    /// Items of layers 1, 2, …; 0 past the last.
    pub(crate) counts: [u32; MAX_LAYERS],
    /// Written as 0, not read.
    pub(crate) reserved: [u32; 10],
}

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
    /// The base layer: positions are ordinals.
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

/// One layer: rows of positions within the layer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layer<'a> {
    pub(crate) links: &'a [u32],
    pub(crate) degree: usize,
    pub(crate) len: usize,
    /// Position to ordinal; `None` on the base layer, where they are the same.
    pub(crate) items: Option<&'a [u32]>,
}

impl<'a> Layer<'a> {
    /// The links of a node of this layer, unused slots included.
    #[inline]
    pub(crate) fn row(&self, position: u32) -> &'a [u32] {
        let start = position as usize * self.degree;
        &self.links[start..start + self.degree]
    }

    /// The ordinal at a position.
    #[inline]
    pub(crate) fn item(&self, position: u32) -> u32 {
        self.items
            .map_or(position, |items| items[position as usize])
    }
}
