//! A filter is kept, and filled.

use proptest::prelude::*;
use refrain_index::{BuildParams, Filter, Hit, Index, OrdinalSet, Scratch, SearchParams};
use refrain_kernels::Metric;

use crate::common::{exact, factors, index, ordinals, params, search, values};

const DIM: usize = 16;
const ITEMS: usize = 20_000;
const QUERIES: usize = 60;

/// What a search for ten, of a width, finds where the `nearest` so many of each query are shut out, summed
/// over queries: how many of the true ten, how many answers were exact, and the vectors scored.
fn without_the_nearest(index: &Index, nearest: usize, ef: usize) -> (usize, usize, usize) {
    let mut scratch = Scratch::new();
    let (mut right, mut complete, mut scored) = (0, 0, 0);
    for query in values(77, QUERIES * DIM).chunks_exact(DIM) {
        let shut_out = exact(index, query, nearest, Filter::default());
        let shut_out: OrdinalSet = ordinals(&shut_out).into_iter().collect();
        let exclude = [&shut_out];
        let filter = Filter {
            exclude: &exclude,
            allow: None,
        };
        let params = SearchParams {
            ef_search: ef,
            filter,
            ..SearchParams::default()
        };
        let mut hits: Vec<Hit> = Vec::new();
        let stats = index.search(query, 10, &params, &mut scratch, &mut hits);
        let stats = stats.expect("a fitting query");
        // What may come back, instead of what may not: the same question (a filter that is open has a walk of its own).
        let n = u32::try_from(index.len()).expect("few");
        let rest: OrdinalSet = (0..n).filter(|one| !shut_out.contains(*one)).collect();
        let listed = Filter {
            exclude: &[],
            allow: Some(&rest),
        };
        if nearest > 0 {
            assert_eq!(hits, search(index, query, 10, ef, listed));
        }
        let truth = exact(index, query, 10, filter);
        right += hits.iter().filter(|hit| truth.contains(hit)).count();
        complete += usize::from(stats.exact);
        scored += stats.distance_comps as usize;
    }
    (right, complete, scored)
}

/// The more of the nearest are shut out, the wider the walk, so that it finds as large a share of what is
/// left; and where they are so many that scoring everything takes less, that is done, early.
#[test]
fn what_the_nearest_leave_is_found() {
    let vectors = values(5, ITEMS * DIM);
    for metric in [Metric::Cosine, Metric::L2] {
        let params = BuildParams {
            m: 12,
            ef_construction: Some(80),
            ..params(metric)
        };
        let index = index(&vectors, DIM, &params);
        let (right, complete, _) = without_the_nearest(&index, 0, 24);
        assert!(
            right > QUERIES * 8,
            "{metric:?}: {right} of nothing shut out"
        );
        assert_eq!(complete, 0, "{metric:?}");
        let (of_twenty, complete, _) = without_the_nearest(&index, 20, 24);
        // A walk that did not widen found 554 and 548, fewer than where nothing was shut out.
        assert!(of_twenty > right, "{metric:?}: {of_twenty}, {right}");
        assert!(complete * 10 < QUERIES, "{metric:?}: {complete}");
        let (of_many, complete, scored) = without_the_nearest(&index, 2_000, 24);
        assert_eq!((of_many, complete), (QUERIES * 10, QUERIES), "{metric:?}");
        assert!(scored < QUERIES * ITEMS * 3 / 2, "{metric:?}: {scored}");
    }
}

/// What is longest is what is nearest, so what is shut out: a search that asks about items begins with twice as many of
/// the longest as one that does not.
#[test]
fn what_the_longest_leave_is_found() {
    let mut vectors = values(6, ITEMS * DIM);
    for (row, rank) in vectors.chunks_exact_mut(DIM).zip(20_u16..) {
        let norm = row.iter().map(|value| value * value).sum::<f32>().sqrt();
        // Lengths fall with the eighth root of the rank.
        let length = f32::from(rank).recip().sqrt().sqrt().sqrt();
        row.iter_mut().for_each(|value| *value *= length / norm);
    }
    let params = BuildParams {
        m: 5,
        ef_construction: Some(20),
        ..params(Metric::InnerProduct)
    };
    let index = index(&vectors, DIM, &params);
    let found = [10, 16, 24].map(|ef| {
        let (right, complete, _) = without_the_nearest(&index, 20, ef);
        assert_eq!(complete, 0, "walked, at {ef}");
        right
    });
    // Begun with as many as where nothing is shut out, the walks found 1,387, fewer at each width.
    assert!(found.iter().sum::<usize>() > 1_420, "{found:?}");
}

fn filtered_index() -> &'static (Vec<f32>, Index) {
    static SHARED: std::sync::OnceLock<(Vec<f32>, Index)> = std::sync::OnceLock::new();
    SHARED.get_or_init(|| {
        let vectors = factors(18, 5000, 8);
        let index = index(&vectors, 8, &params(Metric::InnerProduct));
        (vectors, index)
    })
}

/// An answer that is said to be exact is, also where the few that may not come back are the best of all.
#[test]
fn what_is_said_to_be_exact_is() {
    let (_, index) = filtered_index();
    let (mut scratch, mut hits, mut said) = (Scratch::new(), Vec::new(), 0);
    for (seed, at) in (400_u64..1_000).zip(0_usize..) {
        let query = values(seed, 8);
        let (k, top) = (1 + at % 20, 1 + at % 31);
        let best = exact(index, &query, top, Filter::default());
        let heard: OrdinalSet = ordinals(&best).into_iter().collect();
        let params = SearchParams {
            ef_search: 64,
            filter: Filter {
                exclude: &[&heard],
                allow: None,
            },
            ..SearchParams::default()
        };
        let stats = index.search(&query, k, &params, &mut scratch, &mut hits);
        if stats.expect("valid").exact {
            said += 1;
            assert_eq!(hits, exact(index, &query, k, params.filter), "seed {seed}");
        }
    }
    assert!(said > 100, "said {said} times");
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
}
