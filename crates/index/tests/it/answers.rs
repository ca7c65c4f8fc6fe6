//! Answers are those of the naive oracle.

use std::time::Instant;

use bytes::Bytes;
use refrain_index::{
    BuildError, BuildParams, Filter, Hints, Hit, Index, OrdinalSet, Scratch, SearchError,
    SearchParams, build, build_resumable,
};
use refrain_kernels::{Metric, oracle};

use crate::common::{
    best, exact, factors, graph, index, open, ordinals, params, rows, search, sections, values,
};

#[test]
fn exact_search_is_the_oracle() {
    let (n, dim) = (700, 20);
    let vectors = factors(1, n, dim);
    for metric in Metric::ALL {
        let index = index(&vectors, dim, &params(metric));
        let stored = rows(&index);
        let (mut found, mut asked) = (0, 0);
        for query in values(2, dim * 20).chunks_exact(dim) {
            let hits = exact(&index, query, 12, Filter::default());
            let hits = ordinals(&hits);
            assert_eq!(hits, best(metric, query, &stored, dim, 12), "{metric}");
            // What coding loses is too little to be seen in the answers.
            let truth = oracle::top_k(metric, query, &vectors, dim, 12);
            found += truth.iter().filter(|one| hits.contains(one)).count();
            asked += truth.len();
        }
        assert!(found * 200 >= asked * 199, "{metric}: {found} of {asked}");
    }
}

#[test]
fn what_coding_lost_is_stated() {
    let (n, dim) = (500, 24);
    let vectors = factors(60, n, dim);
    for metric in Metric::ALL {
        let built = build(&vectors, dim, &params(metric), &()).expect("valid");
        let index = index(&vectors, dim, &params(metric));
        assert_eq!(built.stats().coding_loss, index.coding_loss());
        let mut squares = 0.0;
        for (row, ordinal) in vectors.chunks_exact(dim).zip(0..) {
            let norm = row.iter().map(|value| value * value).sum::<f32>().sqrt();
            let unit: Vec<f32> = row.iter().map(|value| value / norm).collect();
            let row = if metric == Metric::Cosine { &unit } else { row };
            let stored = index.vector(ordinal).expect("an item");
            squares += oracle::l2_squared(row, &stored) / oracle::dot(row, row);
        }
        let loss = (squares / n as f64).sqrt();
        let stated = f64::from(index.coding_loss());
        assert!(stated < 1e-4, "{metric}: {stated}");
        // For l2 it is relative to the length from the centre, which is near zero here, not zero.
        let slack = if metric == Metric::L2 { 2.0 } else { 1.1 };
        assert!(
            loss < stated * slack && stated < loss * slack,
            "{metric}: {loss} {stated}"
        );
        let end = u32::try_from(n).expect("few");
        assert_eq!((index.vector(end), index.vector(u32::MAX)), (None, None));
    }
}

#[test]
fn the_graph_at_full_width_is_exact() {
    let (n, dim) = (1500, 12);
    let vectors = factors(3, n, dim);
    for metric in Metric::ALL {
        let index = index(&vectors, dim, &params(metric));
        for query in values(4, dim * 10).chunks_exact(dim) {
            let hits = graph(&index, query, 40, n);
            let complete = exact(&index, query, 40, Filter::default());
            assert_eq!(hits, complete, "{metric}");
        }
    }
}

/// Under inner product a scan of the longest vectors may be the whole answer, and only then is it
/// said to be exact without a filter.
#[test]
fn an_answer_that_is_said_to_be_exact_is() {
    let (n, dim) = (6000, 16);
    let mut vectors = values(70, n * dim);
    for (row, place) in vectors.chunks_exact_mut(dim).zip(1_u16..) {
        // Few are long: what Zipf's law makes of popularity.
        let scale = 30.0 / f32::from(place).powf(0.8);
        row.iter_mut().for_each(|value| *value *= scale);
    }
    let index = index(&vectors, dim, &params(Metric::InnerProduct));
    let mut said = 0;
    let mut scratch = Scratch::new();
    let mut hits = Vec::new();
    for query in values(71, dim * 60).chunks_exact(dim) {
        for run in [Index::search, Index::search_graph] {
            let search = SearchParams {
                ef_search: 32,
                ..SearchParams::default()
            };
            let stats = run(&index, query, 10, &search, &mut scratch, &mut hits).expect("fits");
            assert!(stats.exact || stats.hops > 0);
            if stats.exact {
                said += 1;
                assert_eq!(hits, exact(&index, query, 10, Filter::default()));
            }
        }
    }
    assert!(said > 0, "no scan of the longest was complete");
}

#[test]
fn the_graph_finds_nearly_all_at_the_default_width() {
    let (n, dim) = (6000, 16);
    let vectors = factors(5, n, dim);
    for metric in Metric::ALL {
        let params = BuildParams {
            m: 16,
            ef_construction: Some(100),
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

/// Vectors of 65 to 128 dimensions are walked by four bits a value: that must not show in what is found, and
/// scores are those of all bytes.
#[test]
fn what_is_walked_by_nibbles_is_found_nearly_all() {
    let (n, dim, rank) = (6000, 100, 12);
    let mixing = values(90, rank * dim);
    let mixed = |parts: &[f32]| -> Vec<f32> {
        let row = |parts: &[f32]| -> Vec<f32> {
            (0..dim)
                .map(|at| {
                    parts
                        .iter()
                        .zip(mixing[at..].iter().step_by(dim))
                        .map(|(a, b)| a * b)
                        .sum()
                })
                .collect()
        };
        parts.chunks_exact(rank).flat_map(row).collect()
    };
    let vectors = mixed(&factors(91, n, rank));
    for metric in [Metric::Cosine, Metric::L2] {
        let params = BuildParams {
            m: 16,
            ef_construction: Some(100),
            ..params(metric)
        };
        let index = index(&vectors, dim, &params);
        let (mut found, mut hits, mut scratch) = (0, Vec::new(), Scratch::new());
        for query in mixed(&values(92, rank * 100)).chunks_exact(dim) {
            let defaults = SearchParams::default();
            index
                .search_graph(query, 10, &defaults, &mut scratch, &mut hits)
                .expect("fits");
            let best = exact(&index, query, 10, Filter::default());
            found += hits.iter().filter(|hit| best.contains(hit)).count();
        }
        assert!(found >= 970, "{metric}: {found} of 1000");
    }
}

/// Eight genres that have nothing to do with each other, the longest vectors all of one. A narrow walk from those does not
/// come to the others; what is long enough to be in answers is scored first, of whatever genre.
#[test]
fn what_is_likely_to_be_in_answers_is_scored_first() {
    let dim = 16;
    let genre = |item: usize| if item < 300 { 0 } else { item % 8 };
    let length = |item: usize| match item {
        0..300 => 1.0,
        300..720 => 0.9,
        _ => 0.15,
    };
    let mut vectors = values(3, 4_000 * dim);
    for (item, row) in vectors.chunks_exact_mut(dim).enumerate() {
        for (at, value) in row.iter_mut().enumerate() {
            // Leaning one way, as the tracks of a genre do.
            let own = at / 2 == genre(item);
            *value = if own { 1.0 + *value / 2.0 } else { 0.0 };
        }
        let norm = row.iter().map(|value| value * value).sum::<f32>().sqrt();
        row.iter_mut()
            .for_each(|value| *value *= length(item) / norm);
    }
    let index = index(&vectors, dim, &params(Metric::InnerProduct));
    for wanted in 1..8 {
        let query: Vec<f32> = (0..dim)
            .map(|at| if at / 2 == wanted { 1.0 } else { 0.0 })
            .collect();
        let truth = exact(&index, &query, 10, Filter::default());
        let mut page = Vec::new();
        let mut browse = index.browse(&query, 16, Filter::default()).expect("fits");
        browse.page(10, &mut page);
        let last = truth.last().map_or(f32::INFINITY, |hit| hit.score);
        for found in [graph(&index, &query, 10, 16), page] {
            let as_good = found.iter().filter(|hit| hit.score >= last).count();
            // Scored by high bytes, near ties may change places.
            assert!(as_good >= 8, "genre {wanted}: {as_good} of 10");
        }
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
fn the_beam_of_a_build_grows_with_the_catalogue() {
    let beam = BuildParams::suited_beam;
    let by_product = [0, 40_981, 62_499, 62_500, 290_870, 1_000_000, 10_000_000];
    let beams = by_product.map(|items| beam(Metric::InnerProduct, items));
    assert_eq!(beams, [40, 40, 40, 46, 61, 80, 80]);
    assert_eq!(
        [Metric::Cosine, Metric::L2].map(|metric| beam(metric, 100)),
        [80; 2]
    );
    // What was asked for is what is said.
    let built_with = |ef_construction| {
        let params = BuildParams {
            ef_construction,
            ..params(Metric::InnerProduct)
        };
        index(&factors(1, 20, 3), 3, &params)
            .params()
            .ef_construction
    };
    assert_eq!([None, Some(7)].map(built_with), [40, 7]);
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
            what: "item",
            ordinal: 1,
            dimension: 0
        })
    ));
    let asked_by = |users: &[f32]| {
        let hints = Hints {
            users,
            ..Hints::default()
        };
        build_resumable(&[0.0; 4], 2, &ok, hints, &(), &())
    };
    assert!(matches!(
        asked_by(&[1.0]),
        Err(BuildError::Ragged { values: 1, dim: 2 })
    ));
    assert!(matches!(
        asked_by(&[1.0, f32::INFINITY]),
        Err(BuildError::NotFinite {
            what: "user",
            ordinal: 0,
            dimension: 1
        })
    ));
    for bad in [
        BuildParams { m: 1, ..ok.clone() },
        BuildParams {
            ef_construction: Some(0),
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
        deadline: Some(Instant::now().into()),
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

/// What exclusions leave, when that is little, is picked instead of all being read: the same answer as from a list of
/// what is allowed, and exact.
#[test]
fn what_many_exclusions_leave_is_found() {
    let (n, dim) = (5_000_u32, 9);
    for metric in Metric::ALL {
        let index = index(&factors(4, 5_000, dim), dim, &params(metric));
        let query = values(6, dim);
        for left in [0, 1, 7, 63, 64, 200] {
            let allowed = |ordinal: &u32| (ordinal * 37) % n < left;
            let allow: OrdinalSet = (0..n).filter(allowed).collect();
            let exclude: OrdinalSet = (0..n).filter(|ordinal| !allowed(ordinal)).collect();
            let listed = exact(
                &index,
                &query,
                20,
                Filter {
                    exclude: &[],
                    allow: Some(&allow),
                },
            );
            let exclude = [&exclude];
            let filter = Filter {
                exclude: &exclude,
                allow: None,
            };
            assert_eq!(exact(&index, &query, 20, filter), listed, "{metric} {left}");
            let searched = search(&index, &query, 20, 10, filter);
            assert_eq!(searched, listed, "{metric} {left}");
            assert_eq!(listed.len(), left.min(20) as usize);
        }
    }
}

/// Users of two genres each, between which no item is. What they ask for is linked where users are known of: a narrow
/// walk comes from one genre to the other.
#[test]
fn the_graph_is_shaped_by_who_asks() {
    let (dim, genres) = (24, 12);
    let mut vectors = values(3, 6_000 * dim);
    for (item, row) in vectors.chunks_exact_mut(dim).enumerate() {
        for (at, value) in row.iter_mut().enumerate() {
            let own = at / 2 == item % genres;
            *value = if own { 1.0 } else { 0.0 } + *value / 4.0;
        }
        let norm = row.iter().map(|value| value * value).sum::<f32>().sqrt();
        row.iter_mut().for_each(|value| *value /= norm);
    }
    let users = |seed, n: usize| -> Vec<f32> {
        let mut users = values(seed, n * dim);
        for (user, row) in users.chunks_exact_mut(dim).enumerate() {
            let (one, other) = (user % genres, (user + 1 + user / genres) % genres);
            for (at, value) in row.iter_mut().enumerate() {
                let own = at / 2 == one || at / 2 == other;
                *value = if own { 1.0 + *value / 8.0 } else { 0.0 };
            }
        }
        users
    };
    let found = |known: &[f32]| {
        let hints = Hints {
            users: known,
            ..Hints::default()
        };
        let params = BuildParams {
            m: 8,
            ..params(Metric::InnerProduct)
        };
        let built = build_resumable(&vectors, dim, &params, hints, &(), &()).expect("fits");
        assert!(built.stats().shaped > 0);
        let index = open(&built.into_sections()).expect("just built");
        index.check().expect("sound");
        let mut found = 0;
        for query in users(5, 120).chunks_exact(dim) {
            let best = ordinals(&exact(&index, query, 10, Filter::default()));
            let hits = graph(&index, query, 10, 12);
            found += hits
                .iter()
                .filter(|hit| best.contains(&hit.ordinal))
                .count();
        }
        found
    };
    let (known, unknown) = (found(&users(4, 1_500)), found(&[]));
    assert!(known > unknown + 120, "{known} of 1200, {unknown} unasked");
}
