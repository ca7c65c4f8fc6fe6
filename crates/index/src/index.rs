//! An index over sections of bytes: opened in constant time, read in place.

use bytes::Bytes;
use refrain_kernels::Metric;

use crate::layout::{
    Graph, HEADER, Header, LINKS, MAGIC, MAX_DIM, MAX_ITEMS, MAX_LAYERS, MAX_M, MIN_M, NAV_ITEMS,
    NAV_LINKS, VECTORS, VERSION,
};

/// A built index, viewed where its bytes lie (a mapped file, usually).
///
/// Opening checks the header and the length of every section and nothing else, so it takes
/// constant time. A damaged section can make an answer wrong, but never out of range, endless or
/// a panic; [`Index::check`] finds the damage and names its place.
#[derive(Clone, Debug)]
pub struct Index {
    header: Header,
    metric: Metric,
    vectors: Bytes,
    links: Bytes,
    nav_items: Bytes,
    nav_links: Bytes,
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
        let words = |name: &'static str, count: u64| {
            let bytes = get(name)?;
            let (expected, actual) = (count * 4, bytes.len() as u64);
            if expected != actual {
                return Err(OpenError::WrongLength {
                    section: name,
                    expected,
                    actual,
                });
            }
            match bytemuck::try_cast_slice::<u8, u32>(&bytes) {
                Ok(_) => Ok(bytes),
                Err(_) => Err(OpenError::Misaligned { section: name }),
            }
        };
        Ok(Self {
            metric,
            vectors: words(VECTORS, header.n * u64::from(header.dim))?,
            links: words(LINKS, header.n * u64::from(header.m) * 2)?,
            nav_items: words(NAV_ITEMS, u64::from(header.counts[0]))?,
            nav_links: words(NAV_LINKS, header.nav_rows() * u64::from(header.m))?,
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

    /// The vector of an item, as stored: normalised for cosine.
    pub fn vector(&self, ordinal: u32) -> Option<&[f32]> {
        let start = (ordinal as usize).checked_mul(self.dim())?;
        self.vectors().get(start..start + self.dim())
    }

    /// All vectors, row-major.
    pub fn vectors(&self) -> &[f32] {
        bytemuck::cast_slice(&self.vectors)
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
        if self.codes != 0 {
            return Err(bad("codes", 48, self.codes.into()));
        }
        if self.layers as usize > MAX_LAYERS {
            return Err(bad("layers", 52, self.layers.into()));
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
