//! What an index promises, against the naive oracle.

use std::time::Instant;

use bytes::Bytes;
use proptest::prelude::*;
use refrain_index::{
    BuildError, BuildParams, Filter, Hit, Index, OpenError, OrdinalSet, Scratch, SearchError,
    SearchParams, Section, build,
};
use refrain_kernels::{Metric, oracle};

/// Deterministic values in -1..1.
fn values(seed: u64, len: usize) -> Vec<f32> {
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
fn factors(seed: u64, n: usize, dim: usize) -> Vec<f32> {
    let mut out = values(seed, n * dim);
    for (row, scale) in out.chunks_exact_mut(dim).zip(values(seed + 1, n)) {
        let factor = (2.0 * scale).exp();
        row.iter_mut().for_each(|value| *value *= factor);
    }
    out
}

fn params(metric: Metric) -> BuildParams {
    BuildParams {
        metric,
        m: 6,
        ef_construction: 40,
        seed: 7,
        threads: 2,
    }
}

fn sections(vectors: &[f32], dim: usize, params: &BuildParams) -> Vec<Section> {
    build(vectors, dim, params, &())
        .expect("valid input")
        .into_sections()
}

fn open(sections: &[Section]) -> Result<Index, OpenError> {
    Index::open(&|name| {
        sections
            .iter()
            .find(|s| s.name == name)
            .map(|s| s.bytes.clone())
    })
}

fn index(vectors: &[f32], dim: usize, params: &BuildParams) -> Index {
    let index = open(&sections(vectors, dim, params)).expect("just built");
    index.check().expect("sound");
    index
}

fn search(index: &Index, query: &[f32], k: usize, ef: usize, filter: Filter<'_>) -> Vec<Hit> {
    let mut hits = Vec::new();
    let search = SearchParams {
        ef_search: ef,
        filter,
        deadline: None,
    };
    index
        .search(query, k, &search, &mut Scratch::new(), &mut hits)
        .expect("a fitting query");
    hits
}

fn ordinals(hits: &[Hit]) -> Vec<u32> {
    hits.iter().map(|hit| hit.ordinal).collect()
}

fn exact(index: &Index, query: &[f32], k: usize, filter: Filter<'_>) -> Vec<Hit> {
    let mut hits = Vec::new();
    let stats = index.search_exact(query, k, &filter, &mut Scratch::new(), &mut hits);
    assert!(stats.expect("a fitting query").exact);
    hits
}

#[test]
fn exact_search_is_the_oracle() {
    let (n, dim) = (700, 20);
    let vectors = factors(1, n, dim);
    for metric in Metric::ALL {
        let index = index(&vectors, dim, &params(metric));
        for query in values(2, dim * 20).chunks_exact(dim) {
            let expected = oracle::top_k(metric, query, &vectors, dim, 12);
            assert_eq!(
                ordinals(&exact(&index, query, 12, Filter::default())),
                expected
            );
        }
    }
}

#[test]
fn the_graph_at_full_width_is_exact() {
    let (n, dim) = (1500, 12);
    let vectors = factors(3, n, dim);
    let everything = SearchParams {
        ef_search: n,
        ..SearchParams::default()
    };
    for metric in Metric::ALL {
        let index = index(&vectors, dim, &params(metric));
        for query in values(4, dim * 10).chunks_exact(dim) {
            let mut hits = Vec::new();
            let stats = index
                .search_graph(query, 40, &everything, &mut Scratch::new(), &mut hits)
                .expect("fits");
            assert!(!stats.exact && stats.hops > 0);
            assert_eq!(
                hits,
                exact(&index, query, 40, Filter::default()),
                "{metric}"
            );
        }
    }
}

#[test]
fn the_graph_finds_nearly_all_at_the_default_width() {
    let (n, dim) = (6000, 16);
    let vectors = factors(5, n, dim);
    for metric in Metric::ALL {
        let params = BuildParams {
            m: 16,
            ef_construction: 100,
            ..params(metric)
        };
        let index = index(&vectors, dim, &params);
        let mut found = 0;
        let mut hits = Vec::new();
        let mut scratch = Scratch::new();
        for query in values(6, dim * 100).chunks_exact(dim) {
            let defaults = SearchParams::default();
            index
                .search_graph(query, 10, &defaults, &mut scratch, &mut hits)
                .expect("fits");
            let best = ordinals(&exact(&index, query, 10, Filter::default()));
            found += hits
                .iter()
                .filter(|hit| best.contains(&hit.ordinal))
                .count();
        }
        assert!(found >= 970, "{metric}: {found} of 1000");
    }
}

#[test]
fn threads_do_not_change_a_byte() {
    let (n, dim) = (2500, 9);
    let vectors = factors(8, n, dim);
    for metric in Metric::ALL {
        let bytes = |threads| -> Vec<Bytes> {
            let params = BuildParams {
                threads,
                ..params(metric)
            };
            sections(&vectors, dim, &params)
                .into_iter()
                .map(|s| s.bytes)
                .collect()
        };
        let one = bytes(1);
        assert_eq!(one, bytes(2));
        assert_eq!(one, bytes(7));
    }
}

#[test]
fn small_and_degenerate_catalogues() {
    let dim = 5;
    let mut giant = values(11, 400 * dim);
    giant[..dim].iter_mut().for_each(|value| *value *= 1e18);
    let cases: Vec<(&str, Vec<f32>)> = vec![
        ("none", vec![]),
        ("one", values(9, dim)),
        ("two", values(10, 2 * dim)),
        ("all equal", values(12, dim).repeat(2000)),
        ("all zero", vec![0.0; 1200 * dim]),
        ("one giant", giant),
        (
            "some zero",
            [vec![0.0; 600 * dim], values(13, 600 * dim)].concat(),
        ),
    ];
    for metric in Metric::ALL {
        for (name, vectors) in &cases {
            let n = vectors.len() / dim;
            let index = index(vectors, dim, &params(metric));
            assert_eq!((index.len(), index.dim(), index.metric()), (n, dim, metric));
            let query = values(14, dim);
            for (k, ef) in [(0, 10), (1, 1), (3, 10), (10, 2), (5000, 10)] {
                let hits = search(&index, &query, k, ef, Filter::default());
                assert_eq!(hits.len(), k.min(n), "{name} {metric} k {k}");
                assert!(hits.is_sorted_by(
                    |a, b| a.score > b.score || (a.score == b.score && a.ordinal < b.ordinal)
                ));
            }
            let all = SearchParams {
                ef_search: n,
                ..SearchParams::default()
            };
            let mut hits = Vec::new();
            index
                .search_graph(&query, n, &all, &mut Scratch::new(), &mut hits)
                .expect("fits");
            assert_eq!(hits.len(), n, "{name} {metric}: all can be reached");
        }
    }
}

#[test]
fn bad_queries_are_refused() {
    let index = index(&values(15, 30), 3, &params(Metric::L2));
    let mut hits = vec![Hit {
        ordinal: 1,
        score: 1.0,
    }];
    let mut run = |query: &[f32]| {
        index.search(
            query,
            3,
            &SearchParams::default(),
            &mut Scratch::new(),
            &mut hits,
        )
    };
    let wrong = SearchError::WrongDimension {
        expected: 3,
        actual: 2,
    };
    assert_eq!(run(&[1.0, 2.0]), Err(wrong));
    assert_eq!(
        run(&[1.0, f32::NAN, 0.0]),
        Err(SearchError::NotFinite { dimension: 1 })
    );
    assert_eq!(
        run(&[1.0, 0.0, f32::INFINITY]),
        Err(SearchError::NotFinite { dimension: 2 })
    );
    assert!(run(&[f32::MAX; 3]).is_ok());
    assert!(hits.iter().all(|hit| hit.ordinal < 10));
}

#[test]
fn bad_input_builds_nothing() {
    let ok = params(Metric::L2);
    let run = |vectors: &[f32], dim, params: &BuildParams| build(vectors, dim, params, &());
    assert!(matches!(
        run(&[], 0, &ok),
        Err(BuildError::Dimension { dim: 0 })
    ));
    assert!(matches!(
        run(&[0.0; 7], 2, &ok),
        Err(BuildError::Ragged { values: 7, dim: 2 })
    ));
    assert!(matches!(
        run(&[0.0, 1.0, f32::NAN, 1.0], 2, &ok),
        Err(BuildError::NotFinite {
            ordinal: 1,
            dimension: 0
        })
    ));
    for bad in [
        BuildParams { m: 1, ..ok.clone() },
        BuildParams {
            ef_construction: 0,
            ..ok.clone()
        },
        BuildParams {
            threads: 0,
            ..ok.clone()
        },
    ] {
        assert!(matches!(
            run(&[0.0; 4], 2, &bad),
            Err(BuildError::Parameter { .. })
        ));
    }
}

#[test]
fn a_deadline_that_has_passed_is_said() {
    let dim = 8;
    let vectors = factors(16, 8000, dim);
    let index = index(&vectors, dim, &params(Metric::InnerProduct));
    let past = SearchParams {
        ef_search: 20,
        deadline: Some(Instant::now()),
        ..Default::default()
    };
    let mut hits = Vec::new();
    let query = &values(17, dim);
    let stats = index
        .search(query, 10, &past, &mut Scratch::new(), &mut hits)
        .expect("fits");
    assert!(stats.truncated && !stats.exact);
    assert!(hits.len() <= 10);
}

fn filtered_index() -> &'static (Vec<f32>, Index) {
    static SHARED: std::sync::OnceLock<(Vec<f32>, Index)> = std::sync::OnceLock::new();
    SHARED.get_or_init(|| {
        let vectors = factors(18, 5000, 8);
        let index = index(&vectors, 8, &params(Metric::InnerProduct));
        (vectors, index)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_filter_is_kept_and_filled(
        seed in 100_u64..200,
        k in 1_usize..60,
        ef in 1_usize..120,
        excluded in prop::collection::vec(0_u32..5200, 0..400),
        allowed in prop::option::of(prop::collection::vec(0_u32..5200, 0..3000)),
    ) {
        let (_, index) = filtered_index();
        let query = values(seed, 8);
        let excluded: OrdinalSet = excluded.into_iter().collect();
        let allowed: Option<OrdinalSet> = allowed.map(|ids| ids.into_iter().collect());
        let exclude = [&excluded];
        let filter = Filter { exclude: &exclude, allow: allowed.as_ref() };
        let passing = (0..5000).filter(|id| filter.allows(*id)).count();
        let hits = search(index, &query, k, ef, filter);
        prop_assert_eq!(hits.len(), k.min(passing));
        prop_assert!(hits.iter().all(|hit| filter.allows(hit.ordinal) && hit.ordinal < 5000));
        let everything = search(index, &query, k, 5000, filter);
        prop_assert_eq!(everything, exact(index, &query, k, filter));
    }

    #[test]
    fn excluding_the_best_leaves_the_next(
        seed in 300_u64..400, top in prop::sample::select(vec![1_usize, 10, 100, 1000, 4990, 5000]),
    ) {
        let (_, index) = filtered_index();
        let query = values(seed, 8);
        let best = exact(index, &query, top, Filter::default());
        let heard: OrdinalSet = ordinals(&best).into_iter().collect();
        let exclude = [&heard];
        let filter = Filter { exclude: &exclude, allow: None };
        let hits = search(index, &query, 20, 64, filter);
        let expected = exact(index, &query, 20, filter);
        prop_assert_eq!(hits.len(), 20.min(5000 - top));
        prop_assert!(hits.iter().all(|hit| !heard.contains(hit.ordinal)));
        let common = hits.iter().filter(|hit| expected.contains(hit)).count();
        prop_assert!(common * 10 >= expected.len() * 7, "{} of {}", common, expected.len());
    }

    #[test]
    fn damage_is_never_more_than_a_wrong_answer(
        flips in prop::collection::vec((any::<prop::sample::Index>(), 0_u8..8), 1..6),
        section in 0_usize..5,
        cut in prop::option::of(any::<prop::sample::Index>()),
        seed in 500_u64..600,
    ) {
        static SOUND: std::sync::OnceLock<Vec<Section>> = std::sync::OnceLock::new();
        let sound = SOUND.get_or_init(|| {
            sections(&factors(20, 900, 8), 8, &params(Metric::InnerProduct))
        });
        let mut damaged = sound.clone();
        // Words, so that the copy is aligned as a mapped section is.
        let mut words: Vec<u32> = bytemuck::allocation::pod_collect_to_vec(&sound[section].bytes[..]);
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut words);
        for (at, bit) in flips {
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
        }
        let len = cut.map_or(bytes.len(), |cut| cut.index(bytes.len()));
        struct Words(Vec<u32>);
        impl AsRef<[u8]> for Words {
            fn as_ref(&self) -> &[u8] {
                bytemuck::cast_slice(&self.0)
            }
        }
        damaged[section].bytes = Bytes::from_owner(Words(words)).slice(..len);
        if let Ok(index) = open(&damaged) {
            prop_assert_eq!(len, sound[section].bytes.len());
            let _ = index.check();
            let heard: OrdinalSet = (0..200).collect();
            let exclude = [&heard];
            let mut hits = Vec::new();
            let query = values(seed, index.dim());
            for filter in [Filter::default(), Filter { exclude: &exclude, allow: None }] {
                let search = SearchParams { ef_search: 30, filter, deadline: None };
                let mut scratch = Scratch::new();
                for run in [Index::search, Index::search_graph] {
                    run(&index, &query, 10, &search, &mut scratch, &mut hits).expect("fits");
                    prop_assert!(hits.iter().all(|hit| (hit.ordinal as usize) < index.len()));
                }
            }
        }
    }
}
