//! An index over sections of bytes: opened in constant time, read in place.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use refrain_kernels::{
    Lines, Metric,
    codes::{CodeRows, Panels},
};

use crate::{
    codes::{self, RUNGS},
    front,
    heads::Heads,
    layout::{
        CENTRE, CODES, Graph, HEADER, Header, LENGTHS, LINKS, MAGIC, MAX_DIM, MAX_ITEMS,
        MAX_LAYERS, MAX_M, MIN_M, NAV_ITEMS, NAV_LINKS, NIBBLES, ORDINALS, PLACES, PROJECTION,
        REMAINDERS, RUN, SCALES, SKETCH_SCALES, SKETCHES, SQUARES, STEPS, TERMS, VERSION,
    },
    nibbles::{self, Nibbles},
    space::{Sketch, Space},
};

/// A built index, viewed where its bytes lie (a mapped file, usually).
///
/// Opening checks the header and the length of every section and nothing else, so it takes
/// constant time. With AVX-512 VNNI the first search by inner product copies what is walked of the longest vectors, 1 MiB at
/// most, side by side. A damaged section can make an answer wrong, but never out of range, endless or
/// a panic; [`Index::check`] finds the damage and names its place.
#[derive(Clone, Debug)]
pub struct Index {
    header: Header,
    metric: Metric,
    steps: Box<[f32; RUNGS]>,
    /// The widest of them.
    widest: f32,
    centre: Bytes,
    codes: Bytes,
    scales: Bytes,
    squares: Bytes,
    lengths: Bytes,
    projection: Bytes,
    sketches: Bytes,
    sketch_scales: Bytes,
    nibbles: Bytes,
    terms: Bytes,
    remainders: Bytes,
    links: Bytes,
    nav_items: Bytes,
    nav_links: Bytes,
    ordinals: Bytes,
    places: Bytes,
    /// The first rows that are walked, side by side; made when a search first asks for them.
    front: Arc<OnceLock<Panels>>,
}

/// What an index was built with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexParams {
    /// Links a node has at most on upper layers; the base layer has twice as many.
    pub m: usize,
    /// Width of the beam while building.
    pub ef_construction: usize,
    /// Seed of the layers drawn.
    pub seed: u64,
}

/// Why sections are no index.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// A section is not there.
    #[error("section {section} is missing")]
    Missing {
        /// Its name.
        section: &'static str,
    },
    /// A section has another length than the header says.
    #[error("section {section} is {actual} bytes long, expected {expected}")]
    WrongLength {
        /// Its name.
        section: &'static str,
        /// Bytes the header asks for.
        expected: u64,
        /// Bytes there are.
        actual: u64,
    },
    /// A section does not start at a multiple of four bytes in memory.
    #[error("section {section} is not aligned to 4 bytes in memory")]
    Misaligned {
        /// Its name.
        section: &'static str,
    },
    /// The header does not begin as one does.
    #[error("section index.header is not that of an index: its first bytes are {found:02x?}")]
    NotAnIndex {
        /// What it begins with.
        found: [u8; 8],
    },
    /// The header is of a layout this version does not read.
    #[error("section index.header has layout version {found}, this program reads {VERSION}")]
    UnknownVersion {
        /// The version found.
        found: u32,
    },
    /// A step is no positive number.
    #[error("section index.steps, offset {offset}: step is {value}, expected a positive number")]
    BadStep {
        /// Where it is, in bytes from the start of the section.
        offset: usize,
        /// Its value.
        value: f32,
    },
    /// A field of the header has a value it cannot have.
    #[error("section index.header, offset {offset}: {field} is {value}, which cannot be")]
    BadField {
        /// Name of the field.
        field: &'static str,
        /// Where it is, in bytes from the start of the section.
        offset: usize,
        /// Its value.
        value: u64,
    },
}

impl Index {
    /// Opens an index from its sections, given by name. Reads the header only: O(1).
    ///
    /// # Errors
    /// [`OpenError`] when a section is missing, does not have the length the header implies, is
    /// not aligned to 4 bytes, or the header itself cannot be.
    pub fn open(section: &dyn Fn(&str) -> Option<Bytes>) -> Result<Self, OpenError> {
        let get = |name: &'static str| section(name).ok_or(OpenError::Missing { section: name });
        let bytes = get(HEADER)?;
        let header: Header = bytemuck::try_pod_read_unaligned(&bytes).map_err(|_| {
            let (expected, actual) = (size_of::<Header>() as u64, bytes.len() as u64);
            OpenError::WrongLength {
                section: HEADER,
                expected,
                actual,
            }
        })?;
        let metric = header.validate()?;
        let sized = |name: &'static str, expected: u64| {
            let bytes = get(name)?;
            let actual = bytes.len() as u64;
            if expected != actual {
                return Err(OpenError::WrongLength {
                    section: name,
                    expected,
                    actual,
                });
            }
            Ok(bytes)
        };
        let words = |name: &'static str, count: u64| {
            let bytes = sized(name, count * 4)?;
            match bytemuck::try_cast_slice::<u8, u32>(&bytes) {
                Ok(_) => Ok(bytes),
                Err(_) => Err(OpenError::Misaligned { section: name }),
            }
        };
        let (n, dim) = (header.n, u64::from(header.dim));
        let squares = if metric == Metric::L2 { n } else { 0 };
        let width = u64::from(header.width);
        let sketch = if width > 0 {
            n * codes::stride(header.width as usize) as u64
        } else {
            0
        };
        let nibbled = if nibbles::are_walked(metric, header.dim as usize) {
            n
        } else {
            0
        };
        let runs = if metric == Metric::InnerProduct {
            n.div_ceil(RUN as u64)
        } else {
            0
        };
        let steps: Vec<f32> = sized(STEPS, RUNGS as u64 * 4)?
            .as_chunks::<4>()
            .0
            .iter()
            .map(|bytes| f32::from_le_bytes(*bytes))
            .collect();
        if let Some(at) = steps
            .iter()
            .position(|step| !(step.is_finite() && *step > 0.0))
        {
            return Err(OpenError::BadStep {
                offset: at * 4,
                value: steps[at],
            });
        }
        Ok(Self {
            metric,
            widest: steps.iter().copied().fold(0.0, f32::max),
            steps: steps.try_into().unwrap_or_else(|_| Box::new([1.0; RUNGS])), // never: just checked
            centre: words(CENTRE, dim)?,
            codes: sized(CODES, n * u64::from(header.stride))?,
            scales: sized(SCALES, n)?,
            squares: words(SQUARES, squares)?,
            lengths: words(LENGTHS, runs)?,
            projection: words(PROJECTION, width * dim)?,
            sketches: sized(SKETCHES, sketch)?,
            sketch_scales: sized(SKETCH_SCALES, if width > 0 { n } else { 0 })?,
            nibbles: sized(
                NIBBLES,
                nibbled * nibbles::stride(header.dim as usize) as u64,
            )?,
            terms: words(TERMS, nibbled * nibbles::TERMS as u64)?,
            remainders: sized(REMAINDERS, n * dim)?,
            links: words(LINKS, n * u64::from(header.m) * 2)?,
            nav_items: words(NAV_ITEMS, u64::from(header.counts[0]))?,
            nav_links: words(NAV_LINKS, header.nav_rows() * u64::from(header.m))?,
            ordinals: words(ORDINALS, n)?,
            places: words(PLACES, n)?,
            front: Arc::default(),
            header,
        })
    }

    /// How many items there are.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "validated to be below 2^31"
    )]
    pub fn len(&self) -> usize {
        self.header.n as usize
    }

    /// Whether there are no items.
    pub fn is_empty(&self) -> bool {
        self.header.n == 0
    }

    /// Length of every vector.
    pub fn dim(&self) -> usize {
        self.header.dim as usize
    }

    /// What is searched by.
    pub fn metric(&self) -> Metric {
        self.metric
    }

    /// What the index was built with.
    pub fn params(&self) -> IndexParams {
        IndexParams {
            m: self.header.m as usize,
            ef_construction: self.header.ef_construction as usize,
            seed: self.header.seed,
        }
    }

    /// The vector of an item as stored: of unit length for cosine, and with the loss of coding
    /// ([`Index::coding_loss`]). `None` for an ordinal past the end. O(dim).
    pub fn vector(&self, ordinal: u32) -> Option<Vec<f32>> {
        let place = self.place(ordinal)?;
        let space = self.space();
        let mut out = Lines::new();
        space.decode(place, &mut out);
        for (value, centre) in out.iter_mut().zip(space.centre) {
            *value += centre;
        }
        Some(out.to_vec())
    }

    /// What coding lost: root mean square over the items of the error of a vector relative to its
    /// length.
    pub fn coding_loss(&self) -> f32 {
        self.header.loss
    }

    /// Where an item lies; `None` for an ordinal past the end, or in a damaged file.
    pub(crate) fn place(&self, ordinal: u32) -> Option<u32> {
        let places: &[u32] = bytemuck::cast_slice(&self.places);
        let place = places.get(ordinal as usize).copied();
        place.filter(|place| (*place as usize) < self.len())
    }

    /// Place to ordinal. Only for values below `len`.
    pub(crate) fn ordinals(&self) -> &[u32] {
        bytemuck::cast_slice(&self.ordinals)
    }

    /// Ordinal to place.
    pub(crate) fn places(&self) -> &[u32] {
        bytemuck::cast_slice(&self.places)
    }

    /// Of inner product: what a search scores before it walks.
    pub(crate) fn heads(&self) -> Heads {
        Heads(self.header.heads)
    }

    /// The items as a search reads them: the longest side by side, where that is faster.
    pub(crate) fn searched(&self) -> Space<'_> {
        let space = self.space();
        let panels = match self.metric {
            Metric::InnerProduct => self.front.get_or_init(|| front::panels(&space)),
            Metric::Cosine | Metric::L2 => Panels::EMPTY,
        };
        Space { panels, ..space }
    }

    /// The items as they are stored.
    pub(crate) fn space(&self) -> Space<'_> {
        Space {
            metric: self.metric,
            dim: self.dim(),
            rows: CodeRows::new(
                bytemuck::cast_slice(&self.codes),
                self.header.stride as usize,
            ),
            scales: &self.scales,
            steps: &self.steps,
            squares: bytemuck::cast_slice(&self.squares),
            lengths: bytemuck::cast_slice(&self.lengths),
            heads: self.heads(),
            weights: &[],
            widest: self.widest,
            centre: bytemuck::cast_slice(&self.centre),
            remainders: bytemuck::cast_slice(&self.remainders),
            coarse_error: self.header.coarse_error,
            nibbles: nibbles::are_walked(self.metric, self.dim()).then(|| Nibbles {
                rows: CodeRows::new(
                    bytemuck::cast_slice(&self.nibbles),
                    nibbles::stride(self.dim()),
                ),
                terms: bytemuck::cast_slice(&self.terms),
            }),
            sketch: (self.header.width > 0).then(|| Sketch {
                projection: bytemuck::cast_slice(&self.projection),
                rows: CodeRows::new(
                    bytemuck::cast_slice(&self.sketches),
                    codes::stride(self.header.width as usize),
                ),
                scales: &self.sketch_scales,
            }),
            panels: Panels::EMPTY,
        }
    }

    pub(crate) fn graph(&self) -> Graph<'_> {
        Graph {
            n: self.len(),
            m: self.header.m as usize,
            links: bytemuck::cast_slice(&self.links),
            nav_items: bytemuck::cast_slice(&self.nav_items),
            nav_links: bytemuck::cast_slice(&self.nav_links),
            counts: &self.header.counts,
            layers: self.header.layers as usize,
            entry: self.header.entry,
        }
    }
}

impl Header {
    /// Everything about the header that can be known without the other sections.
    fn validate(&self) -> Result<Metric, OpenError> {
        if self.magic != MAGIC {
            return Err(OpenError::NotAnIndex { found: self.magic });
        }
        if self.version != VERSION {
            return Err(OpenError::UnknownVersion {
                found: self.version,
            });
        }
        let metric = Metric::ALL.get(self.metric as usize).copied();
        let metric = metric.ok_or_else(|| bad("metric", 12, self.metric.into()))?;
        if self.n > MAX_ITEMS as u64 {
            return Err(bad("n", 16, self.n));
        }
        if self.dim == 0 || self.dim as usize > MAX_DIM {
            return Err(bad("dim", 32, self.dim.into()));
        }
        if !(MIN_M..=MAX_M).contains(&(self.m as usize)) {
            return Err(bad("m", 36, self.m.into()));
        }
        if self.n > 0 && u64::from(self.entry) >= self.n {
            return Err(bad("entry", 44, self.entry.into()));
        }
        if self.stride as usize != codes::stride(self.dim as usize) {
            return Err(bad("stride", 48, self.stride.into()));
        }
        if self.layers as usize > MAX_LAYERS {
            return Err(bad("layers", 52, self.layers.into()));
        }
        if self.width > self.dim {
            return Err(bad("width", 128, self.width.into()));
        }
        for (offset, field, value) in [
            (120, "coarse_error", self.coarse_error),
            (124, "loss", self.loss),
        ] {
            if !(value.is_finite() && value >= 0.0) {
                return Err(bad(field, offset, value.to_bits().into()));
            }
        }
        let mut above = self.n;
        for (layer, &count) in self.counts.iter().enumerate() {
            let used = layer < self.layers as usize;
            if u64::from(count) > above || (count > 0) != used {
                return Err(bad("counts", 56 + layer * 4, count.into()));
            }
            above = count.into();
        }
        Ok(metric)
    }
}

fn bad(field: &'static str, offset: usize, value: u64) -> OpenError {
    OpenError::BadField {
        field,
        offset,
        value,
    }
}
