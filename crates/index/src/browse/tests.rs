//! Pages against exact search.

use proptest::prelude::*;

use super::*;
use crate::{BuildParams, OrdinalSet, Scratch, made};

fn index(metric: Metric, n: usize, dim: usize, seed: u64) -> (Index, Vec<f32>) {
    let mut state = seed | 1;
    let mut draw = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        f32::from(u16::try_from(state >> 48).expect("sixteen bits")) / 32_768.0 - 1.0
    };
    let vectors: Vec<f32> = (0..n * dim).map(|_| draw()).collect();
    let params = BuildParams {
        metric,
        m: 6,
        ef_construction: Some(40),
        threads: 1,
        ..BuildParams::default()
    };
    (made::index(&vectors, dim, &params), vectors)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn pages_hold_everything_allowed_once(
        metric in prop::sample::select(Metric::ALL.to_vec()),
        seed in 1_u64..1_000,
        page in 1_usize..60,
        step in 1_u32..7,
    ) {
        let n = 400;
        let (index, vectors) = index(metric, n, 8, seed);
        let excluded: OrdinalSet = (0..count(n)).filter(|item| item % 7 < step).collect();
        let exclude = [&excluded];
        let filter = Filter { exclude: &exclude, allow: None };
        let mut browse = index.browse(&vectors[..8], 20, filter).expect("fits");
        let (mut seen, mut hits) = (Vec::new(), Vec::new());
        loop {
            browse.page(page, &mut hits);
            prop_assert!(hits.windows(2).all(|pair| pair[0].score >= pair[1].score));
            seen.extend(hits.iter().map(|hit| hit.ordinal));
            if hits.len() < page {
                break;
            }
        }
        let mut sorted = seen.clone();
        sorted.sort_unstable();
        let allowed: Vec<u32> = (0..count(n)).filter(|item| item % 7 >= step).collect();
        prop_assert_eq!(sorted, allowed);
    }
}

#[test]
fn a_wide_walk_pages_in_the_exact_order() {
    for metric in Metric::ALL {
        let (index, vectors) = index(metric, 500, 8, 9);
        let query = &vectors[8..16];
        let mut exact = Vec::new();
        let filter = Filter::default();
        index
            .search_exact(query, 60, &filter, &mut Scratch::new(), &mut exact)
            .expect("fits");
        let mut browse = index.browse(query, 500, filter).expect("fits");
        let (mut all, mut hits) = (Vec::new(), Vec::new());
        for _ in 0..3 {
            browse.page(20, &mut hits);
            all.extend_from_slice(&hits);
        }
        assert_eq!(all, exact, "{metric}");
    }
}

#[test]
fn a_query_that_does_not_fit_is_refused() {
    let (index, _) = index(Metric::L2, 10, 8, 1);
    assert!(index.browse(&[0.0; 7], 10, Filter::default()).is_err());
    assert!(index.browse(&[f32::NAN; 8], 10, Filter::default()).is_err());
}
