//! Turning factors to lie near those of an earlier model.
//!
//! A factorisation is known up to an orthogonal matrix, so two trainings of one log give vectors that
//! score alike and mean nothing to one another. The orthogonal Procrustes problem
//! `min |A R − B|_F over RᵀR = I` is solved by the orthogonal polar factor of `AᵀB` (Schönemann,
//! "A generalized solution of the orthogonal Procrustes problem", Psychometrika 1966), found by Newton's
//! iteration `X ← (X + X⁻ᵀ) / 2` (Higham, "Functions of Matrices", §8.3) in double precision.

use rayon::prelude::*;
use refrain_kernels::{Kernels, Metric};

use crate::gram::cross_in_pool;
use crate::parent::ParentRows;

/// Rows turned at a time by a thread.
const BLOCK: usize = 64;

/// Newton steps taken at most; the scaled iteration needs about ten.
const MAX_STEPS: usize = 100;

/// An orthogonal matrix.
#[derive(Debug, Clone, PartialEq)]
pub struct Rotation {
    rank: usize,
    /// Row-major `rank * rank`: row `j` has what makes value `j` of a turned row.
    transposed: Vec<f32>,
}

/// The rotation that brings the rows of `from`, row-major with `rank` values a row, nearest to those of `to`. Rows that
/// are zero in either, or that `to` does not know, do not count. In the current pool,
/// the same at any number of threads. `O(rows rank² + rank³)`.
///
/// None when the shared rows do not span all dimensions, or something is not finite: then no rotation
/// is nearest.
#[must_use]
pub fn rotation(from: &[f32], to: ParentRows<'_>, rank: usize) -> Option<Rotation> {
    if rank == 0 || from.len() != to.len() * rank {
        return None;
    }
    let product = cross_in_pool(from, to, rank);
    polar(product, rank).map(|matrix| Rotation::new(&matrix, rank))
}

impl Rotation {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "rounding to f32 is the point"
    )]
    fn new(matrix: &[f64], rank: usize) -> Self {
        let columns = (0..rank).flat_map(|j| matrix.iter().skip(j).step_by(rank));
        Self {
            rank,
            transposed: columns.map(|&value| value as f32).collect(),
        }
    }

    /// Multiplies every row by the rotation, in place, in the current pool.
    pub fn apply(&self, rows: &mut [f32]) {
        let (rank, kernels) = (self.rank, Kernels::active());
        rows.par_chunks_mut(BLOCK * rank).for_each_init(
            || vec![0.0; rank],
            |before, rows| {
                for row in rows.chunks_exact_mut(rank) {
                    before.copy_from_slice(row);
                    kernels.score_rows(Metric::InnerProduct, before, &self.transposed, rank, row);
                }
            },
        );
    }
}

/// The orthogonal polar factor of a matrix that is not singular.
fn polar(mut x: Vec<f64>, order: usize) -> Option<Vec<f64>> {
    let norm = |matrix: &[f64]| matrix.iter().map(|value| value * value).sum::<f64>().sqrt();
    let size = norm(&x);
    if !(size > 0.0 && size.is_finite()) {
        return None;
    }
    for value in &mut x {
        *value /= size;
    }
    for _ in 0..MAX_STEPS {
        let inverse = inverse(&x, order)?;
        // Scaling by norms brings the singular values near 1 in a few steps.
        let scale = (norm(&inverse) / norm(&x)).sqrt();
        let mut change = 0.0;
        let next: Vec<f64> = (0..order * order)
            .map(|at| {
                let (row, column) = (at / order, at % order);
                0.5 * (scale * x[at] + inverse[column * order + row] / scale)
            })
            .collect();
        for (new, old) in next.iter().zip(&x) {
            change += (new - old) * (new - old);
        }
        x = next;
        if !change.is_finite() {
            return None;
        }
        if change.sqrt() < 1e-13 * order as f64 {
            return Some(x);
        }
    }
    None
}

/// Gauss and Jordan with partial pivoting. None where a pivot is lost to rounding.
fn inverse(matrix: &[f64], order: usize) -> Option<Vec<f64>> {
    let mut a = matrix.to_vec();
    let mut inverse = vec![0.0; order * order];
    inverse
        .iter_mut()
        .step_by(order + 1)
        .for_each(|value| *value = 1.0);
    let largest = matrix
        .iter()
        .fold(0.0_f64, |max, value| max.max(value.abs()));
    for column in 0..order {
        let pivot = (column..order).max_by(|&i, &j| {
            let size = |row: usize| a[row * order + column].abs();
            size(i).total_cmp(&size(j)).then(j.cmp(&i))
        })?;
        let value = a[pivot * order + column];
        if !(value.abs() > largest * f64::EPSILON * order as f64 && value.is_finite()) {
            return None;
        }
        // Before this column `a` is eliminated and stays; of `inverse` any value may be left, for rows were exchanged.
        for (matrix, from) in [(&mut a, column), (&mut inverse, 0)] {
            for at in from..order {
                matrix.swap(column * order + at, pivot * order + at);
                matrix[column * order + at] /= value;
            }
        }
        let pivot_row = |matrix: &[f64]| matrix[column * order..][..order].to_vec();
        let (a_pivot, inverse_pivot) = (pivot_row(&a), pivot_row(&inverse));
        let rows = a
            .chunks_exact_mut(order)
            .zip(inverse.chunks_exact_mut(order));
        for (_, (a, inverse)) in rows.enumerate().filter(|&(row, _)| row != column) {
            let factor = a[column];
            subtract(&mut a[column..], factor, &a_pivot[column..]);
            subtract(inverse, factor, &inverse_pivot);
        }
    }
    Some(inverse)
}

/// `row -= factor other`.
fn subtract(row: &mut [f64], factor: f64, other: &[f64]) {
    for (value, other) in row.iter_mut().zip(other) {
        *value -= factor * other;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::initial_factors;

    #[test]
    fn finds_the_rotation_that_was_applied_and_passes_over_new_rows() {
        for rank in [1, 2, 5, 16, 64] {
            let mut original = initial_factors(300, rank, 3);
            // Any square matrix has a polar factor: take that of noise as the hidden rotation.
            let noise = initial_factors(rank, rank, 9);
            let matrix = polar(noise.iter().map(|&v| f64::from(v)).collect(), rank).unwrap();
            let hidden = Rotation::new(&matrix, rank);
            let mut turned = original.clone();
            hidden.apply(&mut turned);
            // New items: unknown to the one, nonsense to the other; or the other way round.
            original[..3 * rank].fill(0.0);
            turned[..3 * rank].fill(7.0);
            original[3 * rank..5 * rank].fill(9.0);
            let known = |row| !(3..5).contains(&row);
            let places: Vec<_> = (0..300)
                .map(|row| Some(row).filter(|row| known(*row)))
                .collect();
            let known = ParentRows::new(&places, &turned);
            let found = rotation(&original, known, rank).unwrap();
            found.apply(&mut original);
            for (a, b) in original[5 * rank..].iter().zip(&turned[5 * rank..]) {
                assert!((a - b).abs() < 1e-6, "{a} is not {b} at rank {rank}");
            }
        }
    }

    #[test]
    fn refuses_what_has_no_nearest_rotation() {
        let rotation = |from: &[f32], to: &[f32]| {
            let places: Vec<_> = (0..2).take(to.len() / 2).map(Some).collect();
            rotation(from, ParentRows::new(&places, to), 2)
        };
        assert!(rotation(&[], &[]).is_none());
        assert!(rotation(&[1.0, 2.0], &[1.0, 2.0]).is_none());
        assert!(rotation(&[1.0, 0.0, 0.0, 1.0], &[1.0, 0.0]).is_none());
        assert!(rotation(&[f32::NAN; 4], &[1.0, 0.0, 0.0, 1.0]).is_none());
        assert!(rotation(&[0.0; 4], &[1.0, 0.0, 0.0, 1.0]).is_none());
        assert!(rotation(&[1.0, 0.0, 0.0, 1.0], &[0.0, 1.0, 1.0, 0.0]).is_some());
    }
}
