use crate::{grouped_log, oracle, small_hyper};
use proptest::prelude::*;
use refrain_als::{Confidence, FoldIn, FoldInError, FoldInScratch, Hyper, MAX_RANK, gram, train};

fn items(hyper: &Hyper) -> Vec<f32> {
    train(&grouped_log(60, 40, 5), hyper, 1, &()).unwrap().items
}

fn fold(hyper: &Hyper, factors: &[f32], evidence: &[(u32, f32)]) -> Result<Vec<f32>, FoldInError> {
    let count = factors.len() / hyper.rank;
    let fold_in = FoldIn::new(hyper.rank, count, gram(factors, hyper.rank, 1), hyper)?;
    let mut out = vec![f32::NAN; 3];
    fold_in.solve(factors, evidence, &mut FoldInScratch::default(), &mut out)?;
    Ok(out)
}

fn assert_close(hyper: &Hyper, factors: &[f32], evidence: &[(u32, f32)], tolerance: f64) {
    let solved = fold(hyper, factors, evidence).unwrap();
    let exact = oracle::solve(hyper, factors, evidence);
    let scale = exact.iter().fold(1e-3f64, |max, x| max.max(x.abs()));
    for (&x, &y) in solved.iter().zip(&exact) {
        let error = (f64::from(x) - y).abs() / scale;
        assert!(
            error <= tolerance,
            "{error} at rank {}: {solved:?} {exact:?}",
            hyper.rank
        );
    }
}

/// Every rank around the panels and vector lengths of the solver.
#[test]
fn equals_the_oracle_at_every_rank() {
    for rank in (1..=20).chain([31, 32, 33, 48, 64, 65, 100]) {
        let hyper = Hyper {
            rank,
            ..small_hyper()
        };
        let factors = items(&hyper);
        assert_close(
            &hyper,
            &factors,
            &[(0, 3.0), (4, 1.0), (17, -2.0), (39, 12.0)],
            1e-4,
        );
    }
}

/// Short histories are solved in another space than long ones: every length, across the change.
#[test]
fn equals_the_oracle_at_every_length() {
    for rank in [4, 8, 16, 24, 64] {
        let hyper = Hyper {
            rank,
            ..small_hyper()
        };
        let factors = train(&grouped_log(120, 90, 5), &hyper, 1, &())
            .unwrap()
            .items;
        for length in (1..=rank + 1).step_by(1 + rank / 64) {
            let evidence: Vec<_> = (0..90)
                .step_by(90 / (rank + 1).min(90))
                .take(length)
                .map(|item| {
                    (
                        item,
                        if item % 5 == 3 {
                            -2.0
                        } else {
                            1.0 + item as f32
                        },
                    )
                })
                .collect();
            assert_eq!(evidence.len(), length);
            assert_close(&hyper, &factors, &evidence, 1e-4);
        }
    }
}

#[test]
fn the_largest_rank_works_and_the_next_does_not() {
    let hyper = Hyper {
        rank: MAX_RANK,
        iterations: 1,
        ..small_hyper()
    };
    let factors = items(&hyper);
    assert!(
        fold(&hyper, &factors, &[(1, 1.0)])
            .unwrap()
            .iter()
            .all(|x| x.is_finite())
    );
    for rank in [0, MAX_RANK + 1] {
        assert!(matches!(
            FoldIn::new(rank, 0, vec![0.0; rank * rank], &hyper),
            Err(FoldInError::Hyper(_))
        ));
    }
}

#[test]
fn negative_evidence_lowers_the_score_of_its_item() {
    let hyper = small_hyper();
    let factors = items(&hyper);
    let score = |vector: &[f32]| -> f32 {
        factors[4 * 6..5 * 6]
            .iter()
            .zip(vector)
            .map(|(a, b)| a * b)
            .sum()
    };
    let liked = fold(&hyper, &factors, &[(0, 3.0), (8, 2.0)]).unwrap();
    let skipped = fold(&hyper, &factors, &[(0, 3.0), (4, -5.0), (8, 2.0)]).unwrap();
    assert!(score(&skipped) < score(&liked));
}

#[test]
fn no_evidence_and_zeros_give_what_they_say() {
    let hyper = small_hyper();
    let factors = items(&hyper);
    assert_eq!(fold(&hyper, &factors, &[]).unwrap(), [0.0; 6]);
    assert_eq!(fold(&hyper, &factors, &[(3, 0.0)]).unwrap(), [0.0; 6]);
    assert_eq!(
        fold(&hyper, &factors, &[(1, 2.0), (3, 0.0), (5, 1.0)]).unwrap(),
        fold(&hyper, &factors, &[(1, 2.0), (5, 1.0)]).unwrap(),
    );
}

/// A play count of a thousand million beside a weak regularisation loses its pivots in single
/// precision; the answer must come all the same, and be right.
#[test]
fn extreme_confidences_are_solved_in_double_precision() {
    let hyper = Hyper {
        confidence: Confidence::Linear,
        unobserved_weight: 0.0,
        regularization: 1e-3,
        frequency_exponent: 0.0,
        ..small_hyper()
    };
    let factors = items(&small_hyper());
    assert_close(
        &hyper,
        &factors,
        &[(0, 1e9), (4, 1e9), (8, 1e9), (9, 1.0)],
        1e-3,
    );
}

#[test]
fn refuses_bad_input_by_its_place() {
    let hyper = small_hyper();
    let factors = items(&hyper);
    let err = |evidence: &[(u32, f32)]| fold(&hyper, &factors, evidence).unwrap_err();
    assert_eq!(
        err(&[(0, 1.0), (40, 1.0)]),
        FoldInError::Item {
            position: 1,
            item: 40,
            items: 40
        }
    );
    assert_eq!(
        err(&[(3, 1.0), (3, 1.0)]),
        FoldInError::Order {
            position: 1,
            item: 3
        }
    );
    assert_eq!(
        err(&[(3, 1.0), (2, 1.0)]),
        FoldInError::Order {
            position: 1,
            item: 2
        }
    );
    for strength in [f32::NAN, f32::INFINITY, -2e9] {
        assert!(matches!(
            err(&[(3, strength)]),
            FoldInError::Strength { position: 0, .. }
        ));
    }
    let gram = gram(&factors, 6, 1);
    let fold_in = FoldIn::new(6, 40, gram.clone(), &hyper).unwrap();
    let solve = |factors: &[f32]| {
        fold_in.solve(
            factors,
            &[(1, 1.0)],
            &mut FoldInScratch::default(),
            &mut vec![],
        )
    };
    assert!(matches!(
        solve(&factors[1..]),
        Err(FoldInError::FactorsLength { .. })
    ));
    let mut broken = factors.clone();
    broken[8] = f32::NAN;
    assert_eq!(solve(&broken), Err(FoldInError::Unsolvable));
    assert!(matches!(
        FoldIn::new(6, 40, gram[1..].to_vec(), &hyper),
        Err(FoldInError::GramLength { len: 35, rank: 6 })
    ));
    let mut broken = gram;
    broken[7] = f32::INFINITY;
    assert_eq!(
        FoldIn::new(6, 40, broken, &hyper).unwrap_err(),
        FoldInError::GramValue { position: 7 }
    );
}

#[test]
fn a_warm_scratch_leaves_no_trace() {
    let hyper = small_hyper();
    let factors = items(&hyper);
    let fold_in = FoldIn::new(6, 40, gram(&factors, 6, 1), &hyper).unwrap();
    let (mut scratch, mut out) = (FoldInScratch::default(), Vec::new());
    fold_in
        .solve(&factors, &[(0, 9.0), (20, -1.0)], &mut scratch, &mut out)
        .unwrap();
    fold_in
        .solve(&factors, &[(7, 2.0)], &mut scratch, &mut out)
        .unwrap();
    assert_eq!(out, fold(&hyper, &factors, &[(7, 2.0)]).unwrap());
}

proptest! {
    #[test]
    fn equals_the_oracle(
        strengths in prop::collection::btree_map(0u32..40, -50.0f32..50.0, 0..40),
        linear in any::<bool>(),
        alpha in 0.1f32..5.0,
        unobserved_weight in 0.0f32..1.0,
        regularization in 0.01f32..1.0,
        frequency_exponent in 0.0f32..1.5,
        rank in prop::sample::select(vec![1usize, 6, 16, 32]),
    ) {
        let trained = Hyper { rank, ..small_hyper() };
        let hyper = Hyper {
            confidence: if linear { Confidence::Linear } else { Confidence::Log },
            alpha, unobserved_weight, regularization, frequency_exponent,
            ..trained
        };
        let evidence: Vec<_> = strengths.into_iter().filter(|(_, s)| *s != 0.0).collect();
        assert_close(&hyper, &items(&trained), &evidence, 1e-3);
    }

    /// Whatever bytes arrive as evidence: an answer that is finite, or an error.
    #[test]
    fn never_panics(evidence in prop::collection::vec((0u32..60, any::<f32>()), 0..12)) {
        let hyper = small_hyper();
        if let Ok(vector) = fold(&hyper, &items(&hyper), &evidence) {
            prop_assert!(vector.iter().all(|x| x.is_finite()));
        }
    }
}

#[test]
fn contributions_add_up_to_the_score() {
    for rank in [3, 16, 64] {
        let hyper = Hyper {
            rank,
            ..small_hyper()
        };
        let factors = items(&hyper);
        let fold_in = FoldIn::new(rank, factors.len() / rank, gram(&factors, rank, 1), &hyper)
            .expect("valid");
        for count in [1usize, 2, 7, 40] {
            let evidence: Vec<(u32, f32)> = (0..count)
                .map(|at| {
                    let strength = [3.0, 0.5, -2.0, 0.0, 11.0][at % 5];
                    (u32::try_from(at).expect("small"), strength)
                })
                .collect();
            let vector = fold(&hyper, &factors, &evidence).expect("solvable");
            let target = &factors[5 * rank..6 * rank];
            let strengths: Vec<f32> = evidence.iter().map(|&(_, strength)| strength).collect();
            let shares = fold_in
                .contributions(&factors[..count * rank], &strengths, target)
                .expect("solvable");
            assert_eq!(shares.len(), evidence.len());
            let score: f64 = vector
                .iter()
                .zip(target)
                .map(|(&x, &y)| f64::from(x) * f64::from(y))
                .sum();
            let sum: f64 = shares.iter().sum();
            assert!((sum - score).abs() < 1e-5, "{sum} {score}");
            for (&(_, strength), &share) in evidence.iter().zip(&shares) {
                assert!(strength > 0.0 || share == 0.0, "{strength} {share}");
            }
        }
        let short = fold_in.contributions(&[], &[], &factors[..rank - 1]);
        assert!(short.is_err());
    }
}
