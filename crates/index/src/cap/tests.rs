use std::collections::BTreeMap;

use proptest::prelude::*;
use refrain_kernels::Metric;

use super::*;
use crate::{
    BuildParams, Delta, DeltaScratch, Filter, Hit, Index, OrdinalSet, Scratch, SearchParams, made,
};

/// Groups of their own: `None` where the number is 0.
#[derive(Debug)]
struct Given(Vec<u32>);

impl Groups for Given {
    fn group(&self, ordinal: u32) -> Option<u32> {
        self.0
            .get(ordinal as usize)
            .copied()
            .filter(|group| *group > 0)
    }
}

fn index(vectors: &[f32], metric: Metric) -> Index {
    let params = BuildParams {
        metric,
        ..BuildParams::default()
    };
    made::index(vectors, 3, &params)
}

/// All items, best first, those of full groups passed over.
fn by_hand(mut all: Vec<Hit>, k: usize, cap: Cap<'_>) -> Vec<Hit> {
    all.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.ordinal.cmp(&b.ordinal)));
    let mut taken: BTreeMap<u32, u32> = BTreeMap::new();
    all.retain(|hit| {
        let Some(group) = cap.groups.group(hit.ordinal) else {
            return true;
        };
        let taken = taken.entry(group).or_default();
        *taken += 1;
        *taken <= cap.most
    });
    all.truncate(k);
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Exact search, the walk with its exact search behind it, and a delta: each gives as many as there can be,
    /// and the best.
    #[test]
    fn the_best_that_fit_are_found(
        rows in prop::collection::vec((prop::array::uniform3(-9_i8..10), 0_u32..9), 1..200),
        query in prop::array::uniform3(-9_i8..10),
        most in 1_u32..4,
        k in 1_usize..20,
        excluded in prop::collection::vec(0_u32..200, 0..30),
        metric in prop::sample::select(Metric::ALL.to_vec()),
    ) {
        let vectors: Vec<f32> = rows.iter().flat_map(|(row, _)| row.map(f32::from)).collect();
        let query = query.map(f32::from);
        let groups = Given(rows.iter().map(|(_, group)| *group).collect());
        let cap = Cap { most, groups: &groups };
        let exclude: OrdinalSet = excluded.into_iter().collect();
        let params = SearchParams {
            ef_search: 200,
            filter: Filter { exclude: &[&exclude], allow: None },
            cap: Some(cap),
            ..SearchParams::default()
        };
        let index = index(&vectors, metric);
        let (mut scratch, mut hits) = (Scratch::new(), Vec::new());
        // All by the same scores, uncapped.
        let open = SearchParams { cap: None, ..params };
        index.search_exact_by(&query, rows.len(), &open, &mut scratch, &mut hits).expect("fits");
        let expected = by_hand(hits.clone(), k, cap);
        index.search_exact_by(&query, k, &params, &mut scratch, &mut hits).expect("fits");
        prop_assert_eq!(&hits, &expected);
        index.search(&query, k, &params, &mut scratch, &mut hits).expect("fits");
        prop_assert_eq!(&hits, &expected);
        // A narrow one finds fewer of the best, and never too many of a group, nor too few in all.
        let narrow = SearchParams { ef_search: 1, ..params };
        index.search(&query, k, &narrow, &mut scratch, &mut hits).expect("fits");
        prop_assert_eq!(hits.len(), expected.len());
        prop_assert_eq!(&by_hand(hits.clone(), k, cap), &hits);

        let mut rows = vectors.clone();
        rows.chunks_exact_mut(3).for_each(|row| Delta::unit(metric, row));
        let ordinals = 0..u32::try_from(groups.0.len()).expect("small");
        let delta = Delta::new(metric, 3, ordinals.collect(), rows).expect("valid");
        let mut memory = DeltaScratch::default();
        delta.search(&query, groups.0.len(), &open, None, &mut memory, &mut hits).expect("fits");
        let expected = by_hand(hits.clone(), k, cap);
        delta.search(&query, k, &params, None, &mut memory, &mut hits).expect("fits");
        prop_assert_eq!(&hits, &expected);
    }

    /// Base and delta apart, each capped, joined: as all together.
    #[test]
    fn joined_as_if_together(
        scores in prop::collection::vec((-9_i8..10, 0_u32..5, any::<bool>()), 0..80),
        most in 1_u32..4,
        k in 0_usize..20,
    ) {
        let groups = Given(scores.iter().map(|(_, group, _)| *group).collect());
        let cap = Cap { most, groups: &groups };
        let side = |wanted: bool| -> Vec<Hit> {
            let hits = (0_u32..).zip(&scores).filter(|(_, (_, _, base))| *base == wanted);
            hits.map(|(ordinal, (score, _, _))| Hit { ordinal, score: f32::from(*score) }).collect()
        };
        let (base, delta) = (side(true), side(false));
        let expected = by_hand([base.clone(), delta.clone()].concat(), k, cap);
        let mut hits = by_hand(base, k, cap);
        let more = by_hand(delta, k, cap);
        crate::merge_capped(&mut hits, &more, k, Some(cap));
        prop_assert_eq!(hits, expected);
    }
}
