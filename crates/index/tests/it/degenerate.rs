//! Input at the edge of what there is.

use refrain_index::{Filter, Index};
use refrain_kernels::{Metric, oracle};

use crate::common::{best, exact, graph, in_order, index, ordinals, params, rows, search, values};

const DIM: usize = 5;

fn graph_reaches_all(index: &Index, query: &[f32], what: &str) {
    let hits = graph(index, query, index.len(), index.len());
    assert_eq!(hits.len(), index.len(), "{what}: all can be reached");
    assert!(in_order(&hits), "{what}");
}

#[test]
fn small_and_degenerate_catalogues() {
    let mut giant = values(11, 400 * DIM);
    giant[..DIM].iter_mut().for_each(|value| *value *= 1e18);
    let cases: Vec<(&str, Vec<f32>)> = vec![
        ("none", vec![]),
        ("one", values(9, DIM)),
        ("one zero", vec![0.0; DIM]),
        ("two", values(10, 2 * DIM)),
        ("two equal", values(10, DIM).repeat(2)),
        ("three", values(10, 3 * DIM)),
        ("all equal", values(12, DIM).repeat(2000)),
        ("all zero", vec![0.0; 1200 * DIM]),
        ("one giant", giant),
        (
            "largest",
            [vec![f32::MAX; DIM], vec![f32::MIN; DIM]].concat(),
        ),
        ("smallest", vec![f32::from_bits(1); 10 * DIM]),
        (
            "some zero",
            [vec![0.0; 600 * DIM], values(13, 600 * DIM)].concat(),
        ),
    ];
    for metric in Metric::ALL {
        for (name, vectors) in &cases {
            let n = vectors.len() / DIM;
            let index = index(vectors, DIM, &params(metric));
            assert_eq!((index.len(), index.dim(), index.metric()), (n, DIM, metric));
            let query = values(14, DIM);
            for (k, ef) in [(0, 10), (1, 1), (3, 10), (10, 2), (5000, 10)] {
                let hits = search(&index, &query, k, ef, Filter::default());
                assert_eq!(hits.len(), k.min(n), "{name} {metric} k {k}");
                assert!(in_order(&hits), "{name} {metric} k {k}");
            }
            graph_reaches_all(&index, &query, &format!("{name} {metric}"));
            assert_eq!(
                exact(&index, &query, n + 1, Filter::default()).len(),
                n,
                "{name} {metric}"
            );
        }
    }
}

/// Ten thousand equal vectors, and as many that are not: all can be reached, and nobody's links or
/// searches grow with the number of equals.
#[test]
fn equals_cost_no_more_than_others() {
    let n = 10_000;
    for metric in Metric::ALL {
        let one = values(21, DIM);
        let equal = index(&one.repeat(n), DIM, &params(metric));
        let query = values(22, DIM);
        graph_reaches_all(&equal, &query, "equal");
        let hits = search(&equal, &query, 10, 10, Filter::default());
        assert!(
            hits.iter().all(|hit| hit.score == hits[0].score),
            "{metric}"
        );

        let others = values(23, 400 * DIM);
        let mixed = index(&[others, one.repeat(n)].concat(), DIM, &params(metric));
        graph_reaches_all(&mixed, &query, "mixed");
        // The equals do not hide the others: those nearest to the query are found at little width.
        let found = graph(&mixed, &query, 10, 64);
        let best = exact(&mixed, &query, 10, Filter::default());
        let right = found
            .iter()
            .filter(|hit| hit.score >= best[9].score)
            .count();
        assert!(right >= 9, "{metric}: {right}");
    }
}

#[test]
fn zeros_score_nothing_by_cosine() {
    let vectors = [vec![0.0; 3 * DIM], values(30, 200 * DIM)].concat();
    let index = index(&vectors, DIM, &params(Metric::Cosine));
    for zero in 0..3 {
        assert_eq!(index.vector(zero), Some(vec![0.0; DIM]));
    }
    let query = values(31, DIM);
    let hits = exact(&index, &query, 203, Filter::default());
    for hit in hits.iter().filter(|hit| hit.ordinal < 3) {
        assert_eq!(hit.score, 0.0);
    }
    // The zero query scores 0 with all, and ordinals decide.
    let hits = search(&index, &[0.0; DIM], 5, 5, Filter::default());
    assert_eq!(ordinals(&hits).len(), 5);
    assert!(hits.iter().all(|hit| hit.score == 0.0));
}

/// A vector that is longer than all others by orders of magnitude takes nothing from the others'
/// precision: they still come in their order behind it.
#[test]
fn one_huge_vector_does_not_blur_the_others() {
    for scale in [1e3_f32, 1e6] {
        let mut vectors = values(40, 500 * DIM);
        vectors[..DIM].iter_mut().for_each(|value| *value *= scale);
        for metric in Metric::ALL {
            // It pulls the centre of l2 towards itself, by its share of the items.
            if metric == Metric::L2 && scale > 1e3 {
                continue;
            }
            let index = index(&vectors, DIM, &params(metric));
            let stored = rows(&index);
            for query in values(41, DIM * 8).chunks_exact(DIM) {
                let hits = exact(&index, query, 20, Filter::default());
                assert_eq!(ordinals(&hits), best(metric, query, &stored, DIM, 20));
                let truth = oracle::top_k(metric, query, &vectors, DIM, 20);
                let common = truth.iter().filter(|o| ordinals(&hits).contains(o));
                assert!(common.count() >= 19, "{metric} at {scale}");
            }
        }
    }
}

/// Lengths over nine orders of magnitude, as a heavy tail has them: each vector keeps its
/// precision relative to its own length.
#[test]
fn heavy_tails_keep_their_precision() {
    let n = 600;
    let mut vectors = values(50, n * DIM);
    for (row, exponent) in vectors.chunks_exact_mut(DIM).zip(values(51, n)) {
        let scale = 10_f32.powf(2.0 * exponent);
        row.iter_mut().for_each(|value| *value *= scale);
    }
    for metric in [Metric::InnerProduct, Metric::Cosine] {
        let index = index(&vectors, DIM, &params(metric));
        assert!(
            index.coding_loss() < 1e-4,
            "{metric} {}",
            index.coding_loss()
        );
        for (row, ordinal) in vectors.chunks_exact(DIM).zip(0..) {
            let stored = index.vector(ordinal).expect("an item");
            let cosine = oracle::cosine(row, &stored);
            assert!(cosine > 1.0 - 1e-6, "{metric} {ordinal}: {cosine}");
        }
    }
}
