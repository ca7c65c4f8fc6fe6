use proptest::prelude::*;
use refrain_kernels::{Kernels, Metric};

use super::*;
use crate::{BuildParams, Filter, Hit, OrdinalSet, Scratch, SearchError, SearchParams, made};

/// An index by `metric` of rows whose lengths differ by orders.
fn index(rows: &[[i8; 5]], metric: Metric) -> Index {
    let vectors: Vec<f32> = rows
        .iter()
        .zip((0_i32..7).cycle())
        .flat_map(|(row, at)| {
            let scale = 2.0_f32.powi(at - 3);
            row.map(|value| f32::from(value) * scale)
        })
        .collect();
    let params = BuildParams {
        metric,
        ..BuildParams::default()
    };
    made::index(&vectors, 5, &params)
}

/// All allowed items by `q·x · |x|^-β`, best first, ties by ordinal.
fn by_hand(index: &Index, query: &[f32], beta: f64, allow: Option<&OrdinalSet>) -> Vec<Hit> {
    let allowed = |ordinal: &u32| allow.is_none_or(|allow| allow.contains(*ordinal));
    let items = 0..u32::try_from(index.len()).expect("small");
    let mut hits: Vec<Hit> = items
        .filter(allowed)
        .map(|ordinal| {
            let vector = index.vector(ordinal).expect("is there");
            let dot = Kernels::active().dot(query, &vector);
            let score = dot * Debias::weight(&vector, beta) + 0.0;
            Hit { ordinal, score }
        })
        .collect();
    hits.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.ordinal.cmp(&b.ordinal)));
    hits
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Bounds and early ends hold for weighted scores: exact search is exact, and the walk of a graph of
    /// few nodes finds the same.
    #[test]
    fn the_best_are_found(
        rows in prop::collection::vec(prop::array::uniform5(-9_i8..10), 0..300),
        query in prop::array::uniform5(-9_i8..10),
        beta in 0.0..=1.0_f64,
        k in 1_usize..12,
        some in prop::option::of(prop::collection::vec(0_u32..300, 0..40)),
    ) {
        let index = index(&rows, Metric::InnerProduct);
        let query = query.map(f32::from);
        let debias = Debias::new(&index, beta).expect("by inner product");
        let allow: Option<OrdinalSet> = some.map(|some| {
            some.into_iter().filter(|at| (*at as usize) < rows.len()).collect()
        });
        let mut expected = by_hand(&index, &query, beta, allow.as_ref());
        expected.truncate(k);
        let params = SearchParams {
            ef_search: 300,
            filter: Filter { exclude: &[], allow: allow.as_ref() },
            debias: Some(&debias),
            ..SearchParams::default()
        };
        let (mut scratch, mut hits) = (Scratch::new(), Vec::new());
        index.search_exact_by(&query, k, &params, &mut scratch, &mut hits).expect("fits");
        prop_assert_eq!(&hits, &expected);
        index.search_graph(&query, k, &params, &mut scratch, &mut hits).expect("fits");
        prop_assert_eq!(&hits, &expected);
    }
}

#[test]
fn nothing_taken_out_is_the_inner_product() {
    let rows: Vec<[i8; 5]> = (0_i8..90).map(|at| [at, 3, -at, 7, 1]).collect();
    let index = index(&rows, Metric::InnerProduct);
    let debias = Debias::new(&index, 0.0).expect("by inner product");
    let (mut scratch, mut with, mut without) = (Scratch::new(), Vec::new(), Vec::new());
    let mut params = SearchParams::default();
    let query = [1.0, -2.0, 0.5, 0.0, 3.0];
    index
        .search(&query, 20, &params, &mut scratch, &mut without)
        .expect("fits");
    params.debias = Some(&debias);
    index
        .search(&query, 20, &params, &mut scratch, &mut with)
        .expect("fits");
    assert_eq!(with, without);
}

#[test]
fn what_cannot_be_is_refused() {
    let rows = [[1_i8, 2, 3, 4, 5]; 3];
    for metric in [Metric::Cosine, Metric::L2] {
        let refused = Debias::new(&index(&rows, metric), 0.5);
        assert_eq!(refused, Err(DebiasError::Metric { metric }));
    }
    let three = index(&rows, Metric::InnerProduct);
    for beta in [-0.1, 1.1, f64::INFINITY] {
        let refused = Debias::new(&three, beta);
        assert_eq!(refused, Err(DebiasError::Beta { beta }));
    }
    assert!(Debias::new(&three, f64::NAN).is_err());
    let four = index(&[[1_i8; 5]; 4], Metric::InnerProduct);
    let debias = Debias::new(&three, 0.5).expect("by inner product");
    let params = SearchParams {
        debias: Some(&debias),
        ..SearchParams::default()
    };
    let refused = four.search(&[0.0; 5], 1, &params, &mut Scratch::new(), &mut Vec::new());
    let (expected, actual) = (4, 3);
    assert_eq!(refused, Err(SearchError::WrongDebias { expected, actual }));
}
