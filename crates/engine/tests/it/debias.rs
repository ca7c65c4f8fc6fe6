//! Popularity taken out of similarities: another search, not another order of what the old one found.

use refrain_engine::{Answer, Request, Seen, Subject, Version};
use refrain_kernels::{Kernels, Metric};
use refrain_ranking::Variant;

use crate::fixture::{ITEMS, NOW_US, answer, music, music_version, ordinals, plain, variant};

fn debiased(beta: f64) -> Variant {
    variant(&format!("score = 'similarity'\ndebias = {beta}"))
}

fn ask<'a>(query: &'a [f32], k: usize) -> Request<'a> {
    let mut request = Request::new(Subject::Vector(query), k, NOW_US);
    request.seen = Seen::Allow;
    request
}

fn length(vector: &[f32]) -> f64 {
    let squares = vector.iter().map(|value| f64::from(*value).powi(2));
    squares.sum::<f64>().sqrt()
}

/// Every item that is not blocked by `q·x / |x|^β`, best first.
fn by_hand(version: &Version, query: &[f32], beta: f64, k: usize) -> Vec<(u32, f64)> {
    let mut scored: Vec<(u32, f64)> = (0..ITEMS)
        .filter(|&ordinal| !version.items().blocked(ordinal))
        .map(|ordinal| {
            let vector = version.vector(ordinal).expect("an item");
            let product = f64::from(Kernels::active().dot(query, &vector));
            (ordinal, product / length(&vector).powf(beta))
        })
        .collect();
    scored.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    scored.truncate(k);
    scored
}

fn agrees(answer: &Answer, expected: &[(u32, f64)], what: &str) {
    assert_eq!(answer.items.len(), expected.len(), "{what}");
    for (item, (ordinal, score)) in answer.items.iter().zip(expected) {
        let near = (f64::from(item.score) - score).abs() <= 1e-5 * score.abs().max(1e-3);
        assert!(near, "{what}: {item:?} instead of {ordinal} at {score}");
        assert_eq!(item.score.to_bits(), item.similarity.to_bits(), "{what}");
    }
}

#[test]
fn the_nearest_by_the_new_similarity_are_found() {
    let version = music_version();
    // Who never was listened to has no direction.
    let vectors = (0..ITEMS).filter_map(|ordinal| Some((ordinal, version.vector(ordinal)?)));
    let heard = vectors.filter(|(_, vector)| length(vector) > 0.0);
    for (of, query) in heard.skip(5).step_by(60).take(3) {
        for beta in [0.25, 0.5, 1.0] {
            for k in [1, 10, 50] {
                let expected = by_hand(version, &query, beta, k);
                let mut request = ask(&query, k);
                request.ef_search = Some(400);
                for exact in [false, true] {
                    request.exact = exact;
                    let found = answer(version, &request, &debiased(beta));
                    agrees(&found, &expected, &format!("{of}, {beta}, {k}, {exact}"));
                }
            }
        }
    }
}

/// What is heard by many gives way, the more the greater the power.
#[test]
fn less_heard_items_come_forward() {
    let version = music_version();
    let items = version.items();
    let heard_by = |beta: f64| -> f32 {
        let queries = (0..40).map(|at| version.vector(at * 9 + 1).expect("an item"));
        let lists =
            queries.map(|query| ordinals(&answer(version, &ask(&query, 10), &debiased(beta))));
        let shown: Vec<u32> = lists.flatten().collect();
        shown.iter().map(|&item| items.popularity(item)).sum()
    };
    let (all, some, none) = (heard_by(0.0), heard_by(0.5), heard_by(1.0));
    assert!(all > some && some > none, "{all} {some} {none}");
}

/// No length is in a cosine or in what l2 compares: nothing changes there, and nothing fails.
#[test]
fn other_metrics_have_nothing_to_take_out() {
    for metric in [Metric::Cosine, Metric::L2] {
        let mut blueprint = music().clone();
        blueprint.metric = metric;
        let version = blueprint.open();
        let query = version.vector(12).expect("an item").into_owned();
        let request = ask(&query, 20);
        let (with, without) = (debiased(0.5), plain());
        assert_eq!(
            answer(&version, &request, &with),
            answer(&version, &request, &without)
        );
    }
}
