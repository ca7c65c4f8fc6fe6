//! What is said of an index before it is built.

use refrain_index::{
    Filter, OrdinalSet, Scratch, SearchParams, Strategy, expected_bytes, strategy,
};
use refrain_kernels::Metric;

use crate::common::{factors, index, params, sections, values};

#[test]
fn bytes_are_as_expected() {
    for metric in Metric::ALL {
        for (n, dim) in [(0, 8), (1, 64), (3_000, 12), (2_000, 64), (700, 160)] {
            let params = params(metric);
            let sections = sections(&factors(3, n, dim), dim, &params);
            let actual: usize = sections.iter().map(|section| section.bytes.len()).sum();
            let expected = expected_bytes(n, dim, params.m, metric);
            // A sketch may be half as wide; the layers are drawn.
            let (low, high) = if dim > 128 { (0.7, 1.0) } else { (0.97, 1.03) };
            let ratio = actual as f64 / expected as f64;
            assert!(
                (low..=high).contains(&ratio) || n < 2,
                "{metric} {n} x {dim}: {actual} bytes, {expected} expected"
            );
        }
    }
}

#[test]
fn searches_go_the_way_that_is_predicted() {
    let (n, dim) = (4_000, 12);
    let params = params(Metric::Cosine);
    let index = index(&factors(1, n, dim), dim, &params);
    let query = values(5, dim);
    for (listed, ef_search) in [(None, 20), (None, 500), (Some(2), 20), (Some(100), 20)] {
        let allow: Option<OrdinalSet> = listed.map(|part| (0..4_000).step_by(part).collect());
        let allowed = allow.as_ref().map_or(n, OrdinalSet::len);
        let search = SearchParams {
            ef_search,
            filter: Filter {
                allow: allow.as_ref(),
                ..Filter::default()
            },
            deadline: None,
            debias: None,
            cap: None,
        };
        let mut hits = Vec::new();
        let stats = index
            .search(&query, 10, &search, &mut Scratch::new(), &mut hits)
            .expect("fits");
        let predicted = strategy(n, params.m, ef_search, allowed, allowed < n / 2);
        assert_eq!(
            stats.exact,
            predicted == Strategy::Scan,
            "{listed:?} {ef_search}"
        );
    }
}
