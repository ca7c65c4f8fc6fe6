//! Made input, and what every test asks of an index.

use bytes::Bytes;
use refrain_index::{
    BuildParams, Filter, Hit, Index, OpenError, Scratch, SearchParams, Section, build,
};
use refrain_kernels::{Metric, oracle};

/// Deterministic values in -1..1.
pub(crate) fn values(seed: u64, len: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x2545_F491_4F6C_DD1D) | 1;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            f32::from(u16::try_from(state >> 48).expect("sixteen bits")) / 32_768.0 - 1.0
        })
        .collect()
}

/// Factors with a heavy tail of norms, as ALS learns them.
pub(crate) fn factors(seed: u64, n: usize, dim: usize) -> Vec<f32> {
    let mut out = values(seed, n * dim);
    for (row, scale) in out.chunks_exact_mut(dim).zip(values(seed + 1, n)) {
        let factor = (2.0 * scale).exp();
        row.iter_mut().for_each(|value| *value *= factor);
    }
    out
}

pub(crate) fn params(metric: Metric) -> BuildParams {
    BuildParams {
        metric,
        m: 6,
        ef_construction: Some(40),
        seed: 7,
        threads: 2,
    }
}

pub(crate) fn sections(vectors: &[f32], dim: usize, params: &BuildParams) -> Vec<Section> {
    build(vectors, dim, params, &())
        .expect("valid input")
        .into_sections()
}

pub(crate) fn open(sections: &[Section]) -> Result<Index, OpenError> {
    Index::open(&|name| {
        sections
            .iter()
            .find(|s| s.name == name)
            .map(|s| s.bytes.clone())
    })
}

pub(crate) fn index(vectors: &[f32], dim: usize, params: &BuildParams) -> Index {
    let index = open(&sections(vectors, dim, params)).expect("just built");
    index.check().expect("sound");
    index
}

pub(crate) fn search(
    index: &Index,
    query: &[f32],
    k: usize,
    ef: usize,
    filter: Filter<'_>,
) -> Vec<Hit> {
    let mut hits = Vec::new();
    let search = SearchParams {
        ef_search: ef,
        filter,
        deadline: None,
        debias: None,
        cap: None,
    };
    index
        .search(query, k, &search, &mut Scratch::new(), &mut hits)
        .expect("a fitting query");
    hits
}

/// The vectors as the index holds them, by ordinal.
pub(crate) fn rows(index: &Index) -> Vec<f32> {
    let ordinals = 0..u32::try_from(index.len()).expect("few");
    ordinals
        .flat_map(|ordinal| index.vector(ordinal).expect("an item"))
        .collect()
}

/// The best of `rows`, which come from [`rows`]: of unit length already for cosine, but for what
/// coding lost, and as they are is how an index scores them.
pub(crate) fn best(metric: Metric, query: &[f32], rows: &[f32], dim: usize, k: usize) -> Vec<u32> {
    let metric = match metric {
        Metric::Cosine => Metric::InnerProduct,
        other => other,
    };
    oracle::top_k(metric, query, rows, dim, k)
}

pub(crate) fn ordinals(hits: &[Hit]) -> Vec<u32> {
    hits.iter().map(|hit| hit.ordinal).collect()
}

pub(crate) fn exact(index: &Index, query: &[f32], k: usize, filter: Filter<'_>) -> Vec<Hit> {
    let mut hits = Vec::new();
    let stats = index.search_exact(query, k, &filter, &mut Scratch::new(), &mut hits);
    assert!(stats.expect("a fitting query").exact);
    hits
}

/// By the graph alone.
pub(crate) fn graph(index: &Index, query: &[f32], k: usize, ef: usize) -> Vec<Hit> {
    let mut hits = Vec::new();
    let search = SearchParams {
        ef_search: ef,
        ..SearchParams::default()
    };
    index
        .search_graph(query, k, &search, &mut Scratch::new(), &mut hits)
        .expect("a fitting query");
    hits
}

/// Best first, ties by ordinal, none twice.
pub(crate) fn in_order(hits: &[Hit]) -> bool {
    hits.is_sorted_by(|a, b| a.score > b.score || (a.score == b.score && a.ordinal < b.ordinal))
}

/// Bytes that are aligned as a mapped section is.
pub(crate) fn aligned(bytes: &[u8]) -> Bytes {
    struct Words(Vec<u64>, usize);
    impl AsRef<[u8]> for Words {
        fn as_ref(&self) -> &[u8] {
            &bytemuck::cast_slice(&self.0)[..self.1]
        }
    }
    let mut words = vec![0_u64; bytes.len().div_ceil(8)];
    bytemuck::cast_slice_mut(&mut words)[..bytes.len()].copy_from_slice(bytes);
    Bytes::from_owner(Words(words, bytes.len()))
}
