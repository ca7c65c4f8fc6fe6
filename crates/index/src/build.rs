//! Building an index: batches of items are linked in parallel against what is already there, so
//! that the outcome does not depend on the number of threads.

mod coded;
mod copies;
mod insert;
mod levels;
mod pages;
mod probe;
mod project;
mod prune;
mod reorder;
mod repair;
mod reuse;
mod saved;
mod shape;

pub use saved::{Checkpoints, Saved, Saving};

use bytes::Bytes;
use coded::Coded;
use pages::Pages;
use refrain_kernels::Metric;

use crate::{
    heads,
    index::Index,
    layout::{
        CENTRE, CODES, EMPTY, Graph, HEADER, Header, LENGTHS, LINKS, MAGIC, MAX_DIM, MAX_ITEMS,
        MAX_LAYERS, MAX_M, MIN_M, NAV_ITEMS, NAV_LINKS, NIBBLES, ORDINALS, PLACES, PROJECTION,
        REMAINDERS, SCALES, SKETCH_SCALES, SKETCHES, SQUARES, STEPS, TERMS, VERSION,
    },
    search::not_finite,
    walk,
};

/// How an index is to be built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuildParams {
    /// What will be searched by.
    pub metric: Metric,
    /// Links a node has at most on upper layers, 2 to 256; the base layer has twice as many.
    pub m: usize,
    /// Width of the beam that looks for a new node's neighbours. Wider builds a better graph,
    /// slower; less than `m` is taken as `m`. `None`: [`BuildParams::suited_beam`].
    pub ef_construction: Option<usize>,
    /// Seed of the layers drawn. The same vectors, parameters and seed give the same bytes.
    pub seed: u64,
    /// Threads to build with, at least 1. Does not change the outcome.
    pub threads: usize,
}

impl Default for BuildParams {
    fn default() -> Self {
        Self {
            metric: Metric::InnerProduct,
            m: 16,
            ef_construction: None,
            seed: 0,
            threads: std::thread::available_parallelism().map_or(1, usize::from),
        }
    }
}

/// Widths of the beam by inner product for each doubling of the items from [`FEW`] on. The first and the last were
/// measured; between them lies the fifth root of the number of items.
const BEAMS: [usize; 6] = [40, 46, 53, 61, 70, 80];

/// Items up to twice of which the narrowest of [`BEAMS`] does.
const FEW: usize = 31_250;

impl BuildParams {
    /// The width of the beam that suits so many items.
    ///
    /// By inner product 40 for some ten thousand, and 80 from a million on: of fewer items a narrower beam sees as large
    /// a part, and what a wider one adds costs searches more than it finds them. Of 20,000 and 50,000 generated tracks
    /// (64 values) 40 gives 0.010 to 0.014 more recall@10 at an `ef_search` of 10 than 80, as much at 32 and up to 0.003
    /// less at 64, all with 4 to 8 % fewer vectors scored, in half the time. The other metrics take 80 at any number:
    /// of the same tracks 40 finds 0.02 to 0.04 less by `l2`, and cosine was not measured.
    pub fn suited_beam(metric: Metric, items: usize) -> usize {
        let widest = BEAMS.len() - 1;
        BEAMS[match metric {
            Metric::InnerProduct => ((items / FEW).max(1).ilog2() as usize).min(widest),
            Metric::Cosine | Metric::L2 => widest,
        }]
    }

    /// The beam that `items` are linked with.
    pub(crate) fn beam(&self, items: usize) -> usize {
        let suited = || Self::suited_beam(self.metric, items);
        self.ef_construction.unwrap_or_else(suited)
    }
}

/// Told how far a build has come.
pub trait Progress: Sync {
    /// `done` of `total` items are linked. Called from one thread at a time, `done` never falling.
    fn advance(&self, done: u64, total: u64);
}

/// Nobody is told.
impl Progress for () {
    fn advance(&self, _done: u64, _total: u64) {}
}

/// Why an index cannot be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The dimension is zero or too large.
    #[error("dimension {dim} is not between 1 and {MAX_DIM}")]
    Dimension {
        /// What was asked for.
        dim: usize,
    },
    /// The values do not fill whole rows.
    #[error("{values} values do not make whole rows of {dim}")]
    Ragged {
        /// Values given.
        values: usize,
        /// Length of a row.
        dim: usize,
    },
    /// There are more items than ordinals.
    #[error("{items} items are more than the {MAX_ITEMS} an index can hold")]
    TooMany {
        /// Rows given.
        items: usize,
    },
    /// A value is NaN or infinite.
    #[error("{what} {ordinal} is not finite at dimension {dimension}")]
    NotFinite {
        /// An item or a user.
        what: &'static str,
        /// Its row.
        ordinal: usize,
        /// First position that is not a finite number.
        dimension: usize,
    },
    /// A parameter is out of its range.
    #[error("{parameter} is {value}, expected {expected}")]
    Parameter {
        /// Which.
        parameter: &'static str,
        /// Its value.
        value: usize,
        /// What it may be.
        expected: &'static str,
    },
    /// The index to start from is of another kind.
    #[error("{what} of the index to start from: {parent}, expected {given}")]
    Parent {
        /// What differs.
        what: &'static str,
        /// What the parent has.
        parent: String,
        /// What is asked for.
        given: String,
    },
    /// The threads could not be started.
    #[error("cannot start {threads} threads to build with")]
    Threads {
        /// How many were asked for.
        threads: usize,
        /// Why.
        source: rayon::ThreadPoolBuildError,
    },
    /// The state of the build cannot be kept.
    #[error("cannot keep a checkpoint: {source}")]
    Checkpoint {
        /// Why.
        source: std::io::Error,
    },
    /// There is not enough memory for a copy of the vectors and the links.
    #[error("no memory to build an index of {items} items in")]
    Memory {
        /// Rows given.
        items: usize,
        /// Why.
        source: std::io::Error,
    },
}

/// Links `vectors` (`n × dim`, row-major) into an index.
///
/// Every item can be reached from the entry of the graph. Takes about
/// O(n · ef_construction · m · dim) time; holds a copy of the vectors and the links.
///
/// # Errors
/// [`BuildError`]; nothing is built then.
pub fn build(
    vectors: &[f32],
    dim: usize,
    params: &BuildParams,
    progress: &dyn Progress,
) -> Result<BuiltIndex, BuildError> {
    build_resumable(vectors, dim, params, Hints::default(), progress, &())
}

/// As [`build`], starting from the graph of an index of mostly the same items, most of which hardly
/// moved: they keep their links, and only the others are linked anew. What comes out is not what
/// [`build`] gives, but as good a graph, and a function of the same arguments and the parent.
///
/// Takes about O(n · dim) and [`build`]'s time for the items that are new or moved. With other
/// `m` than the parent's everything is linked anew.
///
/// # Errors
/// As [`build`], and [`BuildError::Parent`] when the parent holds other vectors than these can be.
pub fn build_from(
    parent: &Parent<'_>,
    vectors: &[f32],
    dim: usize,
    params: &BuildParams,
    progress: &dyn Progress,
) -> Result<BuiltIndex, BuildError> {
    let hints = Hints {
        parent: Some(*parent),
        ..Hints::default()
    };
    build_resumable(vectors, dim, params, hints, progress, &())
}

/// As [`build`], or as [`build_from`] where there is a parent, with links for the users there are, going on
/// from what `checkpoints` loads and saving to them. What comes out is the same, however often it was
/// interrupted.
///
/// # Errors
/// As those, and [`BuildError::Checkpoint`].
pub fn build_resumable(
    vectors: &[f32],
    dim: usize,
    params: &BuildParams,
    hints: Hints<'_>,
    progress: &dyn Progress,
    checkpoints: &dyn Checkpoints,
) -> Result<BuiltIndex, BuildError> {
    assemble(vectors, dim, params, hints, (progress, checkpoints))
}

/// What is known beside the items.
#[derive(Clone, Copy, Debug, Default)]
pub struct Hints<'a> {
    /// An index to start from, see [`build_from`].
    pub parent: Option<Parent<'a>>,
    /// Vectors of some of those who will ask, `users × dim`, row-major. Under inner product the graph gets links for
    /// the answers of the first [`Hints::most_users`]. The other metrics need none.
    pub users: &'a [f32],
}

impl Hints<'_> {
    /// How many users are asked, at most, about so many items.
    pub const fn most_users(items: usize) -> usize {
        items / (2 * shape::SHARE)
    }
}

/// An index that another one starts from.
#[derive(Clone, Copy, Debug)]
pub struct Parent<'a> {
    /// The index.
    pub index: &'a Index,
    /// Of each item of the new index its ordinal in the parent, `None` where the parent has not
    /// got it; of several items that name the same, the first has it.
    pub origin: &'a [Option<u32>],
}

fn assemble(
    vectors: &[f32],
    dim: usize,
    params: &BuildParams,
    Hints { parent, users }: Hints<'_>,
    (progress, checkpoints): (&dyn Progress, &dyn Checkpoints),
) -> Result<BuiltIndex, BuildError> {
    let n = validate(vectors, dim, params)?;
    if let Some(parent) = &parent {
        parent.validate(n, dim, params)?;
    }
    check_rows(users, dim, "user")?;
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(params.threads)
        .thread_name(|thread| format!("index-build-{thread}"))
        .build()
        .map_err(|source| BuildError::Threads {
            threads: params.threads,
            source,
        })?;
    let memory = |source| BuildError::Memory { items: n, source };
    let mut coded = pool
        .install(|| Coded::new(params.metric, dim, vectors))
        .map_err(memory)?;
    let copies = pool.install(|| copies::Copies::find(&coded));
    let draft = pool.install(|| match &parent {
        Some(parent) if parent.index.params().m == params.m => {
            reuse::begin(parent, vectors, &coded, &copies, params)
        }
        _ => {
            let nav = levels::draw(n, params, &copies);
            Ok(Begun {
                draft: Draft::new(n, params, &coded, &copies, nav)?,
                order: (0..walk::count(n))
                    .filter(|item| !copies.contains(*item))
                    .collect(),
                start: insert::Start::default(),
            })
        }
    });
    let Begun {
        mut draft,
        order: linked,
        start,
    } = draft.map_err(memory)?;
    draft.linked = linked.len();
    let linked = pool.install(|| {
        let linked = insert::order(linked, params.seed, &coded);
        let told = (progress, checkpoints);
        insert::insert(&mut draft, &coded, &linked, start, params, told)?;
        copies.chain(&mut draft);
        draft.repaired = repair::connect(&mut draft, &coded);
        Ok::<_, BuildError>(linked)
    })?;
    let (ordinals, places) = pool
        .install(|| {
            let order = reorder::order(&draft, &coded);
            reorder::apply(order, &mut draft, &mut coded)
        })
        .map_err(memory)?;
    if params.metric == Metric::InnerProduct {
        let queries = shape::Queries::draw((users, dim), &linked, &places, params.seed);
        draft.shaped = pool.install(|| shape::shape(&mut draft, &coded, &queries));
        // Links gave way.
        draft.repaired += repair::connect(&mut draft, &coded);
    }
    pool.install(|| coded.add_nibbles()).map_err(memory)?;
    let stats = draft.stats(&coded);
    Ok(BuiltIndex {
        header: draft.header(dim, params, &coded),
        draft,
        coded,
        ordinals,
        places,
        stats,
    })
}

/// A graph to which items are yet to be linked.
struct Begun {
    draft: Draft,
    order: Vec<u32>,
    start: insert::Start,
}

impl Parent<'_> {
    fn validate(&self, n: usize, dim: usize, params: &BuildParams) -> Result<(), BuildError> {
        let differs = |what, parent: String, given: String| {
            Err(BuildError::Parent {
                what,
                parent,
                given,
            })
        };
        let (index, origin) = (self.index, self.origin.len());
        if index.dim() != dim {
            return differs("dimensions", index.dim().to_string(), dim.to_string());
        }
        if index.metric() != params.metric {
            let (parent, given) = (index.metric().to_string(), params.metric.to_string());
            return differs("metric", parent, given);
        }
        if origin != n {
            return differs("origins of items", origin.to_string(), n.to_string());
        }
        Ok(())
    }
}

/// A built index, in memory.
#[derive(Debug)]
pub struct BuiltIndex {
    header: Header,
    draft: Draft,
    coded: Coded,
    /// Place to ordinal.
    ordinals: Vec<u32>,
    /// Ordinal to place.
    places: Vec<u32>,
    stats: BuildStats,
}

/// One part of an index, to be stored under its name and given back to `Index::open`.
#[derive(Clone, Debug)]
pub struct Section {
    /// Its name.
    pub name: &'static str,
    /// Its content.
    pub bytes: Bytes,
    /// Read by every search: worth aligning to large pages.
    pub hot: bool,
}

/// What came of a build.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BuildStats {
    /// Items.
    pub items: usize,
    /// Layers above the base.
    pub layers: usize,
    /// Links an item has on the base layer, on average.
    pub mean_degree: f64,
    /// Items equal to another, which hang behind it.
    pub copies: usize,
    /// Items that were linked: all but copies and those that kept the links of a parent.
    pub linked: usize,
    /// Items that no path led to after linking, and that were attached.
    pub repaired: usize,
    /// Links that were entered because answers lacked them; under inner product only.
    pub shaped: usize,
    /// Root mean square over the items of what coding lost of a vector, relative to its length.
    pub coding_loss: f32,
}

impl BuiltIndex {
    /// The sections, ready to be stored or opened; nothing is copied.
    pub fn into_sections(self) -> Vec<Section> {
        let Self {
            header,
            draft,
            coded,
            ordinals,
            places,
            ..
        } = self;
        let section = |name, bytes, hot| Section { name, bytes, hot };
        let header = Bytes::copy_from_slice(bytemuck::bytes_of(&header));
        let (projection, sketches, sketch_scales) = match coded.sketch {
            None => (Vec::new(), Bytes::new(), Vec::new()),
            Some(sketch) => (
                sketch.projection,
                Bytes::from_owner(sketch.codes),
                sketch.scales,
            ),
        };
        let (nibbles, terms) = match coded.nibbles {
            None => (Bytes::new(), owned(Vec::<f32>::new())),
            Some(nibbles) => (
                Bytes::from_owner(nibbles.rows),
                Bytes::from_owner(nibbles.terms),
            ),
        };
        // In the order of use, what every search reads first.
        vec![
            section(HEADER, header, false),
            section(STEPS, owned(coded.steps.to_vec()), false),
            section(CENTRE, owned(coded.centre), false),
            section(CODES, Bytes::from_owner(coded.codes), true),
            section(LINKS, Bytes::from_owner(draft.links), true),
            section(SCALES, Bytes::from(coded.scales), true),
            section(SQUARES, owned(coded.squares), false),
            section(LENGTHS, owned(coded.lengths), false),
            section(NAV_ITEMS, owned(draft.nav_items), false),
            section(NAV_LINKS, owned(draft.nav_links), false),
            section(PROJECTION, owned(projection), false),
            section(SKETCHES, sketches, true),
            section(SKETCH_SCALES, Bytes::from(sketch_scales), true),
            section(NIBBLES, nibbles, true),
            section(TERMS, terms, true),
            section(REMAINDERS, Bytes::from_owner(coded.remainders), true),
            section(ORDINALS, owned(ordinals), false),
            section(PLACES, owned(places), false),
        ]
    }

    /// What came of the build.
    pub fn stats(&self) -> BuildStats {
        self.stats
    }
}

/// Numbers as the bytes of a section.
fn owned<T: bytemuck::Pod + Send>(numbers: Vec<T>) -> Bytes {
    Bytes::from_owner(Plain(numbers))
}

/// Numbers seen as bytes.
struct Plain<T>(Vec<T>);

impl<T: bytemuck::Pod> AsRef<[u8]> for Plain<T> {
    fn as_ref(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }
}

/// The graph while it grows. Rows are filled from the front, [`EMPTY`] after.
#[derive(Debug)]
struct Draft {
    n: usize,
    m: usize,
    links: Pages<u32>,
    nav_items: Vec<u32>,
    nav_links: Vec<u32>,
    counts: [u32; MAX_LAYERS],
    layers: usize,
    /// Of each item: its position in `nav_items`, or [`EMPTY`].
    nav_position: Vec<u32>,
    entry: u32,
    repaired: usize,
    shaped: usize,
    copies: usize,
    linked: usize,
}

impl Draft {
    fn new(
        n: usize,
        params: &BuildParams,
        coded: &Coded,
        copies: &copies::Copies,
        nav: levels::Nav,
    ) -> std::io::Result<Self> {
        let rows: usize = nav.counts.iter().map(|count| *count as usize).sum();
        let mut nav_position = vec![EMPTY; n];
        for (position, item) in (0..).zip(&nav.items) {
            nav_position[*item as usize] = position;
        }
        Ok(Self {
            n,
            m: params.m,
            links: Pages::filled(n * params.m * 2, EMPTY)?,
            nav_links: vec![EMPTY; rows * params.m],
            layers: nav.counts.iter().filter(|count| **count > 0).count(),
            counts: nav.counts,
            entry: levels::entry(&nav.items, params.metric, coded),
            nav_items: nav.items,
            nav_position,
            repaired: 0,
            shaped: 0,
            copies: copies.len(),
            linked: 0,
        })
    }

    fn graph(&self) -> Graph<'_> {
        Graph {
            n: self.n,
            m: self.m,
            links: &self.links,
            nav_items: &self.nav_items,
            nav_links: &self.nav_links,
            counts: &self.counts,
            layers: self.layers,
            entry: self.entry,
        }
    }

    /// The row of a position of a layer, 0 being the base.
    fn row_mut(&mut self, layer: usize, position: u32) -> &mut [u32] {
        if layer == 0 {
            let degree = 2 * self.m;
            return &mut self.links[position as usize * degree..][..degree];
        }
        let before: usize = self.counts[..layer - 1]
            .iter()
            .map(|count| *count as usize)
            .sum();
        &mut self.nav_links[(before + position as usize) * self.m..][..self.m]
    }

    fn stats(&self, coded: &Coded) -> BuildStats {
        let links = self.links.iter().filter(|link| **link != EMPTY).count();
        #[expect(clippy::cast_precision_loss, reason = "an average for people")]
        let mean_degree = links as f64 / self.n.max(1) as f64;
        BuildStats {
            items: self.n,
            layers: self.layers,
            mean_degree,
            copies: self.copies,
            linked: self.linked,
            repaired: self.repaired,
            shaped: self.shaped,
            coding_loss: coded.loss,
        }
    }

    fn header(&self, dim: usize, params: &BuildParams, coded: &Coded) -> Header {
        let position = Metric::ALL
            .iter()
            .position(|metric| *metric == params.metric);
        // Validated: all of these are far below 2^32.
        let small = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
        Header {
            magic: MAGIC,
            version: VERSION,
            metric: small(position.unwrap_or(0)),
            n: self.n as u64,
            seed: params.seed,
            dim: small(dim),
            m: small(params.m),
            ef_construction: small(params.beam(self.n)),
            entry: self.entry,
            stride: small(coded.stride),
            layers: small(self.layers),
            counts: self.counts,
            coarse_error: coded.coarse_error,
            loss: coded.loss,
            width: small(coded.sketch.as_ref().map_or(0, |sketch| sketch.width)),
            heads: heads::Heads::new(&coded.lengths, self.n).0,
            reserved: [0; 31 - heads::WIDTHS],
        }
    }
}

fn validate(vectors: &[f32], dim: usize, params: &BuildParams) -> Result<usize, BuildError> {
    if dim == 0 || dim > MAX_DIM {
        return Err(BuildError::Dimension { dim });
    }
    check_rows(vectors, dim, "item")?;
    let items = vectors.len() / dim;
    if items > MAX_ITEMS {
        return Err(BuildError::TooMany { items });
    }
    let check = |parameter, value, valid, expected| match valid {
        true => Ok(()),
        false => Err(BuildError::Parameter {
            parameter,
            value,
            expected,
        }),
    };
    let (m, ef, threads) = (params.m, params.beam(items), params.threads);
    check("m", m, (MIN_M..=MAX_M).contains(&m), "2 to 256")?;
    check(
        "ef_construction",
        ef,
        (1..=65_536).contains(&ef),
        "1 to 65536",
    )?;
    check(
        "threads",
        threads,
        (1..=1024).contains(&threads),
        "1 to 1024",
    )?;
    Ok(items)
}

/// Whether `vectors` are whole rows of finite numbers.
fn check_rows(vectors: &[f32], dim: usize, what: &'static str) -> Result<(), BuildError> {
    if !vectors.len().is_multiple_of(dim) {
        return Err(BuildError::Ragged {
            values: vectors.len(),
            dim,
        });
    }
    for (ordinal, row) in vectors.chunks_exact(dim).enumerate() {
        if let Some(dimension) = not_finite(row) {
            return Err(BuildError::NotFinite {
                what,
                ordinal,
                dimension,
            });
        }
    }
    Ok(())
}
