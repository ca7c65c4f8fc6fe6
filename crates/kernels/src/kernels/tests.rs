//! Every available level against the scalar definition (bit for bit), the naive oracle and
//! simsimd (within the error of f32 sums).

use proptest::prelude::*;

use super::*;
use crate::{oracle, portable};

fn levels() -> Vec<Kernels> {
    Level::available()
        .into_iter()
        .filter_map(Kernels::for_level)
        .collect()
}

fn scalar() -> Kernels {
    Kernels::for_level(Level::Scalar).expect("always there")
}

/// Deterministic values in -1..1 (a splitmix64 stream).
fn values(seed: u64, len: usize) -> Vec<f32> {
    let mut state = seed;
    (0..len)
        .map(|_| {
            state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            let bits = u16::try_from((z ^ (z >> 31)) >> 48).expect("sixteen bits");
            f32::from(bits) / 32_768.0 - 1.0
        })
        .collect()
}

/// The bound of a recursive sum of `terms` in f32 on `magnitude = Σ |term|`.
fn tolerance(terms: usize, magnitude: f64) -> f64 {
    (f64::from(u32::try_from(terms).expect("small")) + 8.0) * f64::from(f32::EPSILON) * magnitude
        + 1e-30
}

fn same_bits(a: f32, b: f32) -> bool {
    a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan())
}

#[test]
fn every_dimension_at_every_start_is_the_same_at_every_level() {
    let reference = scalar();
    for dim in 1..=300 {
        let start = dim % 17;
        let a = &values(dim as u64, dim + start)[start..];
        let b = &values(1_000 + dim as u64, dim + start)[start..];
        let dot = reference.dot(a, b);
        let l2 = reference.l2_squared(a, b);
        let magnitude: f64 = a
            .iter()
            .zip(b)
            .map(|(a, b)| (f64::from(*a) * f64::from(*b)).abs())
            .sum();
        assert!((f64::from(dot) - oracle::dot(a, b)).abs() <= tolerance(dim, magnitude));
        let exact = oracle::l2_squared(a, b);
        assert!((f64::from(l2) - exact).abs() <= tolerance(dim, exact));
        assert!((portable::dot(a, b).expect("equal") - oracle::dot(a, b)).abs() <= 1e-12);
        assert!((portable::l2_squared(a, b).expect("equal") - exact).abs() <= 1e-12);
        for kernels in levels() {
            assert!(same_bits(kernels.dot(a, b), dot), "dot {dim} {kernels:?}");
            assert!(
                same_bits(kernels.l2_squared(a, b), l2),
                "l2 {dim} {kernels:?}"
            );
        }
    }
}

#[test]
fn batches_agree_with_pairs() {
    for dim in [1, 3, 16, 31, 32, 33, 64, 65, 96, 128, 300] {
        let count = 37_usize;
        let rows = values(7, count * dim);
        let query = values(8, dim);
        let ids: Vec<u32> = (0..37).map(|i| i * 11 % 37).chain([0, 0, 36]).collect();
        for kernels in levels() {
            for metric in Metric::ALL {
                let pair = |id: usize| kernels.score(metric, &query, &rows[id * dim..][..dim]);
                for taken in 0..ids.len() {
                    let mut out = vec![f32::NAN; taken];
                    kernels.score_ids(metric, &query, &rows, dim, &ids[..taken], &mut out);
                    for (id, score) in ids.iter().zip(&out) {
                        assert!(
                            same_bits(*score, pair(*id as usize)),
                            "{kernels:?} {metric}"
                        );
                    }
                }
                let mut out = vec![f32::NAN; count];
                kernels.score_rows(metric, &query, &rows, dim, &mut out);
                for (id, score) in out.iter().enumerate() {
                    assert!(same_bits(*score, pair(id)), "{kernels:?} {metric}");
                }
            }
        }
    }
}

#[test]
fn updates_touch_what_they_should() {
    for dim in 0..=70 {
        let x = values(3, dim);
        for kernels in levels() {
            let mut line = values(5, dim);
            let before = line.clone();
            kernels.axpy(0.37, &x, &mut line);
            for i in 0..dim {
                assert_eq!(
                    line[i].to_bits(),
                    0.37_f32.mul_add(x[i], before[i]).to_bits()
                );
            }
        }
    }
}

/// Every strip and remainder of every level, ids in any order and more than once.
#[test]
fn sums_of_rows_are_chains_of_fused_multiply_adds() {
    for dim in (0..=70).chain([100, 127, 128, 129, 200]) {
        let rows = values(6, 9 * dim);
        let before = values(7, dim);
        for ids in [&[][..], &[4], &[8, 0, 3, 3, 7, 1, 8]] {
            let weights = values(8, ids.len());
            for kernels in levels() {
                let mut sums = before.clone();
                kernels.add_ids(&weights, &rows, dim, ids, &mut sums);
                for column in 0..dim {
                    let expected = ids
                        .iter()
                        .zip(&weights)
                        .fold(before[column], |sum, (&id, weight)| {
                            weight.mul_add(rows[id as usize * dim + column], sum)
                        });
                    assert_eq!(
                        sums[column].to_bits(),
                        expected.to_bits(),
                        "{kernels:?} dim {dim} at {column}"
                    );
                }
            }
        }
    }
}

/// Every tile and remainder of every level, at every first row, against the formula.
#[test]
fn rank_updates_are_chains_of_fused_multiply_adds() {
    for dim in (1..=37).chain([64, 65, 100]) {
        let before = values(3, dim * dim);
        for count in [0, 1, 2, 5] {
            let left = values(4, count * dim);
            let right = values(5, count * dim);
            for first in (0..=dim).step_by(1 + dim / 7) {
                for last in [dim, (first + 3).min(dim)] {
                    let expected = |i: usize, j: usize| {
                        (0..count).fold(before[i * dim + j], |sum, p| {
                            left[p * dim + i].mul_add(right[p * dim + j], sum)
                        })
                    };
                    for kernels in levels() {
                        let mut matrix = before.clone();
                        let upper = &mut matrix[first * dim..last * dim];
                        kernels.rank_update(dim, first, &left, &right, upper);
                        for i in 0..dim {
                            for j in if i < first || i >= last { 0 } else { i }..dim {
                                let expected = if (first..last).contains(&i) {
                                    expected(i, j)
                                } else {
                                    before[i * dim + j]
                                };
                                assert_eq!(
                                    matrix[i * dim + j].to_bits(),
                                    expected.to_bits(),
                                    "{kernels:?} dim {dim} rows {first}..{last} at {i},{j}"
                                );
                            }
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn a_wrong_id_is_refused_before_anything_is_read() {
    let caught = std::panic::catch_unwind(|| {
        scalar().score_ids(Metric::L2, &[0.0; 4], &[0.0; 8], 4, &[2], &mut [0.0]);
    });
    assert!(caught.is_err());
    let caught = std::panic::catch_unwind(|| {
        scalar().add_ids(&[1.0], &[0.0; 8], 4, &[2], &mut [0.0; 4]);
    });
    assert!(caught.is_err());
}

#[test]
fn unlike_lengths_have_no_portable_answer() {
    assert_eq!(portable::dot(&[1.0], &[1.0, 2.0]), None);
    assert_eq!(portable::cosine(&[0.0, 0.0], &[1.0, 2.0]), Some(0.0));
}

#[test]
fn the_oracle_ranks_by_score_then_ordinal() {
    let rows = [1.0, 0.0, 0.0, 1.0, 1.0, 0.0];
    assert_eq!(
        oracle::top_k(Metric::InnerProduct, &[1.0, 0.0], &rows, 2, 2),
        [0, 2]
    );
    assert_eq!(
        oracle::top_k(Metric::L2, &[0.0, 1.0], &rows, 2, 9),
        [1, 0, 2]
    );
}

/// Any float at all, extremes more often than by chance.
fn any_value() -> impl Strategy<Value = f32> {
    prop_oneof![
        4 => -1.0_f32..1.0,
        1 => any::<f32>(),
        1 => prop_oneof![
            Just(0.0),
            Just(-0.0),
            Just(f32::MAX),
            Just(f32::MIN),
            Just(f32::MIN_POSITIVE),
            Just(1e-45),
            Just(-1e-45),
            Just(f32::INFINITY),
            Just(f32::NEG_INFINITY),
            Just(f32::NAN),
        ],
    ]
}

proptest! {
    #[test]
    fn extremes_are_the_same_at_every_level(
        pairs in prop::collection::vec((any_value(), any_value()), 1..200),
    ) {
        let (a, b): (Vec<f32>, Vec<f32>) = pairs.into_iter().unzip();
        let reference = scalar();
        for kernels in levels() {
            prop_assert!(same_bits(kernels.dot(&a, &b), reference.dot(&a, &b)));
            prop_assert!(same_bits(kernels.l2_squared(&a, &b), reference.l2_squared(&a, &b)));
            let dim = a.len();
            let mut out = [0.0; 5];
            let mut expected = [0.0; 5];
            let rows = b.repeat(5);
            kernels.score_ids(Metric::L2, &a, &rows, dim, &[4, 3, 2, 1, 0], &mut out);
            reference.score_ids(Metric::L2, &a, &rows, dim, &[4, 3, 2, 1, 0], &mut expected);
            for (out, expected) in out.iter().zip(&expected) {
                prop_assert!(same_bits(*out, *expected));
            }
        }
    }
}
