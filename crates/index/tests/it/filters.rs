//! A filter is kept, and filled.

use proptest::prelude::*;
use refrain_index::{Filter, Index, OrdinalSet};
use refrain_kernels::Metric;

use crate::common::{exact, factors, index, ordinals, params, search, values};

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
}
