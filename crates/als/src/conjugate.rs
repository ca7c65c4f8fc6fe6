//! A row's normal equations by conjugate gradients, from what is already known of the row.
//!
//! In the basis `Q` of the eigenvectors of `YᵀY` the part of the matrix that all rows share is diagonal:
//! with `ỹ = Qᵀ y`, `x̃ = Qᵀ x`
//!
//! ```text
//! (Λ + Σ c ỹ ỹᵀ) x̃ = Σ c ỹ,    Λ = w0 QᵀYᵀYQ + λ_u I
//! ```
//!
//! so a step costs two passes over the row's observations, `2 n d` multiply-adds, and nothing in `d²`. It is
//! preconditioned by the diagonal as it typically is: `Λ` and, for the observations, their confidence times
//! the mean square of the rows that are observed, which takes one pass a half-step instead of one a row.
//! Scores do not change when both sides are turned by the same `Q`: the trainer turns them in place and
//! never turns back.
//!
//! Conjugate gradients for this problem: Takács, Pilászy and Tikk, "Applications of the conjugate gradient
//! method for implicit feedback collaborative filtering" (RecSys 2011). They multiply by `YᵀY` in every
//! step and take a fixed number of steps.

use crate::eigen::eigen;
use rayon::prelude::*;
use refrain_kernels::{Kernels, Metric, prefetch};

/// Steps a row takes at most. A pass over all rows improves what the next starts from, so an unfinished row
/// is not lost.
const MAX_STEPS: usize = 8;

/// A row is done when its squared error, in the norm of the preconditioned residual, is this small a share
/// of the right-hand side's.
const TOLERANCE: f32 = 3e-5;

/// Observed rows that are asked for at a time.
const AHEAD: usize = 16;

/// Rows turned at a time by a thread.
const BLOCK: usize = 64;

/// The shared part of one half-step's systems.
#[derive(Debug)]
pub(crate) struct Conjugate {
    kernels: Kernels,
    rank: usize,
    /// `w0` times the eigenvalues of the Gram matrix.
    shared: Vec<f32>,
    /// What an observation of confidence 1 adds to the diagonal, on average.
    typical: Vec<f32>,
    /// Row-major, row `k` is an eigenvector.
    vectors: Vec<f32>,
}

/// Working memory of one thread.
#[derive(Debug, Default)]
pub(crate) struct ConjugateScratch {
    weights: Vec<f32>,
    diagonal: Vec<f32>,
    inverse: Vec<f32>,
    residual: Vec<f32>,
    conditioned: Vec<f32>,
    direction: Vec<f32>,
    image: Vec<f32>,
}

impl Conjugate {
    /// For `gram`, row-major `rank * rank`, and `w0`. None if its eigenvectors cannot be found. `O(rank³)`.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "rounding to f32 is the point"
    )]
    pub(crate) fn new(
        kernels: Kernels,
        gram: &[f32],
        rank: usize,
        unobserved_weight: f32,
    ) -> Option<Self> {
        let found = eigen(gram, rank)?;
        let weight = f64::from(unobserved_weight);
        Some(Self {
            kernels,
            rank,
            shared: found
                .values
                .iter()
                .map(|&value| (weight * value.max(0.0)) as f32)
                .collect(),
            typical: vec![0.0; rank],
            vectors: found.vectors.iter().map(|&value| value as f32).collect(),
        })
    }

    /// Turns rows into the eigenvectors' basis, in place and in the current pool. `O(rows rank²)`.
    pub(crate) fn turn(&self, rows: &mut [f32]) {
        let rank = self.rank;
        rows.par_chunks_mut(BLOCK * rank).for_each_init(
            || vec![0.0; rank],
            |before, rows| {
                for row in rows.chunks_exact_mut(rank) {
                    before.copy_from_slice(row);
                    self.kernels
                        .score_rows(Metric::InnerProduct, before, &self.vectors, rank, row);
                }
            },
        );
    }

    /// Learns what an observation typically adds to the diagonal: the mean square of the turned rows, each
    /// counted `weight` times. One pass over the rows.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "rounding to f32 is the point"
    )]
    pub(crate) fn observe(&mut self, rows: &[f32], weight: impl Fn(u32) -> f32) {
        let mut squares = vec![0.0_f64; self.rank];
        let mut total = 0.0;
        for (row, at) in rows.chunks_exact(self.rank).zip(0..) {
            let weight = f64::from(weight(at));
            total += weight;
            for (sum, value) in squares.iter_mut().zip(row) {
                *sum += weight * f64::from(value * value);
            }
        }
        for (typical, sum) in self.typical.iter_mut().zip(squares) {
            *typical = if total > 0.0 {
                (sum / total) as f32
            } else {
                0.0
            };
        }
    }

    /// Improves `row`, `rank` values, towards the solution for the observed rows `others` of `fixed` with
    /// their `confidences`, all preferred, and the regularisation `ridge`. Fixed and row are
    /// [turned](Self::turn). Without observations the row becomes zero.
    ///
    /// False, and `row` unspecified, if it does not come out finite.
    pub(crate) fn improve(
        &self,
        fixed: &[f32],
        others: &[u32],
        confidences: &[f32],
        ridge: f32,
        scratch: &mut ConjugateScratch,
        row: &mut [f32],
    ) -> bool {
        if others.is_empty() {
            row.fill(0.0);
            return true;
        }
        let (kernels, rank) = (self.kernels, self.rank);
        scratch.resize(rank, others.len());
        let ConjugateScratch {
            weights,
            diagonal,
            inverse,
            residual,
            conditioned,
            direction,
            image,
        } = scratch;
        let total: f32 = confidences.iter().sum();
        for (at, &shared) in self.shared.iter().enumerate() {
            diagonal[at] = shared + ridge;
            inverse[at] = (diagonal[at] + total * self.typical[at]).recip();
        }
        // The right-hand side, for its size alone.
        image.fill(0.0);
        self.add_first(confidences, fixed, others, image);
        multiply(image, inverse, conditioned);
        let goal = TOLERANCE * kernels.dot(image, conditioned);
        // b − A x = Σ c (1 − ỹ x) ỹ − Λ x.
        kernels.score_ids(Metric::InnerProduct, row, fixed, rank, others, weights);
        for (weight, confidence) in weights.iter_mut().zip(confidences) {
            *weight = confidence * (1.0 - *weight);
        }
        for ((residual, value), x) in residual.iter_mut().zip(&*diagonal).zip(&*row) {
            *residual = -value * x;
        }
        kernels.add_ids(weights, fixed, rank, others, residual);
        multiply(residual, inverse, conditioned);
        direction.copy_from_slice(conditioned);
        let mut error = kernels.dot(residual, conditioned);
        for _ in 0..MAX_STEPS {
            if error <= goal {
                break;
            }
            kernels.score_ids(
                Metric::InnerProduct,
                direction,
                fixed,
                rank,
                others,
                weights,
            );
            for (weight, confidence) in weights.iter_mut().zip(confidences) {
                *weight *= confidence;
            }
            multiply(diagonal, direction, image);
            kernels.add_ids(weights, fixed, rank, others, image);
            let step = error / kernels.dot(direction, image);
            kernels.axpy(step, direction, row);
            kernels.axpy(-step, image, residual);
            multiply(residual, inverse, conditioned);
            let left = kernels.dot(residual, conditioned);
            let keep = left / error;
            for (direction, conditioned) in direction.iter_mut().zip(&*conditioned) {
                *direction = conditioned + keep * *direction;
            }
            error = left;
        }
        row.iter().all(|value| value.is_finite())
    }

    /// [`Kernels::add_ids`] of rows that were not looked at lately: they lie anywhere, so those of the next
    /// block are asked for while one is added.
    fn add_first(&self, weights: &[f32], rows: &[f32], ids: &[u32], out: &mut [f32]) {
        let ask = |ids: &[u32]| {
            for &id in ids {
                prefetch(&rows[id as usize * self.rank..][..self.rank]);
            }
        };
        let (first, mut ahead) = ids.split_at(ids.len().min(AHEAD));
        ask(first);
        for (weights, ids) in weights.chunks(AHEAD).zip(ids.chunks(AHEAD)) {
            let (next, rest) = ahead.split_at(ahead.len().min(AHEAD));
            ask(next);
            ahead = rest;
            self.kernels.add_ids(weights, rows, self.rank, ids, out);
        }
    }
}

impl ConjugateScratch {
    fn resize(&mut self, rank: usize, observed: usize) {
        self.weights.resize(observed, 0.0);
        for vector in [
            &mut self.diagonal,
            &mut self.inverse,
            &mut self.residual,
            &mut self.conditioned,
            &mut self.direction,
            &mut self.image,
        ] {
            vector.resize(rank, 0.0);
        }
    }
}

/// `out = a ∘ b`.
fn multiply(a: &[f32], b: &[f32], out: &mut [f32]) {
    for ((out, a), b) in out.iter_mut().zip(a).zip(b) {
        *out = a * b;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gram::gram;
    use crate::hyper::Hyper;
    use crate::normal::{Fixed, Observation, Scratch, Side};
    use crate::random::initial_factors;

    const OTHERS: usize = 200;

    /// Turned factors of the other side, and their system.
    fn system(hyper: &Hyper) -> (Vec<f32>, Conjugate) {
        let rank = hyper.rank;
        let mut fixed: Vec<f32> = initial_factors(OTHERS, rank, 4)
            .iter()
            .map(|value| value * 10.0)
            .collect();
        let gram = gram(&fixed, rank, 1);
        let mut system =
            Conjugate::new(Kernels::active(), &gram, rank, hyper.unobserved_weight).unwrap();
        system.turn(&mut fixed);
        system.observe(&fixed, |_| 1.0);
        (fixed, system)
    }

    /// From nothing, and from any other place, a few calls lead to the exact solution, as near as the tolerance
    /// lets them: half a percent in the norm of the system.
    #[test]
    fn leads_to_the_exact_solution() {
        for rank in [1, 3, 21, 64] {
            let hyper = Hyper {
                rank,
                ..Hyper::default()
            };
            let (fixed, system) = system(&hyper);
            let side = Side::new(&hyper, OTHERS, gram(&fixed, rank, 1));
            for observed in [1, 2, 5, 30, 100] {
                let others: Vec<u32> = (0..observed).map(|at| at * 2 % 199).collect();
                let confidences: Vec<f32> = others.iter().map(|at| 0.5 + (at % 5) as f32).collect();
                let observations = others
                    .iter()
                    .zip(&confidences)
                    .map(|(&other, &confidence)| Observation {
                        other,
                        confidence,
                        preferred: true,
                    });
                let whole = Fixed {
                    factors: &fixed,
                    rotated: None,
                };
                let mut exact = vec![0.0; rank];
                side.solve(whole, observations, &mut Scratch::default(), &mut exact)
                    .unwrap();
                let ridge = hyper.ridge(others.len(), OTHERS);
                let mut scratch = ConjugateScratch::default();
                for start in [0.0, 3.0] {
                    let mut row = vec![start; rank];
                    for _ in 0..4 {
                        assert!(system.improve(
                            &fixed,
                            &others,
                            &confidences,
                            ridge,
                            &mut scratch,
                            &mut row
                        ));
                    }
                    let norm = |values: &[f32]| values.iter().map(|x| x * x).sum::<f32>().sqrt();
                    let apart: Vec<f32> = row.iter().zip(&exact).map(|(x, y)| x - y).collect();
                    assert!(
                        norm(&apart) < 0.05 * norm(&exact),
                        "rank {rank}, {observed} observed, from {start}: {row:?}, exact {exact:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn nothing_observed_is_zero_and_what_is_not_finite_is_refused() {
        let hyper = Hyper {
            rank: 8,
            ..Hyper::default()
        };
        let (mut fixed, system) = system(&hyper);
        let mut scratch = ConjugateScratch::default();
        let mut row = vec![5.0; 8];
        assert!(system.improve(&fixed, &[], &[], 1.0, &mut scratch, &mut row));
        assert_eq!(row, [0.0; 8]);
        fixed[8] = f32::NAN;
        assert!(!system.improve(&fixed, &[1, 2], &[1.0; 2], 1.0, &mut scratch, &mut row));
        assert!(Conjugate::new(Kernels::active(), &[f32::NAN; 64], 8, 1.0).is_none());
    }
}
