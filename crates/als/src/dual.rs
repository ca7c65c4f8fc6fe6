//! A row's normal equations in the space of its observations.
//!
//! `n` observations change the shared matrix `B = w0 YᵀY + λ_u I` by a matrix of rank `n`, so by
//! Woodbury's identity a system of order `n` can take the place of one of order `d`. In the basis `Q` of
//! the Gram matrix' eigenvectors `B` is diagonal, whatever `λ_u`: with `ỹ = Qᵀ y` and
//! `v_i = √c_i B^{-1/2} ỹ_i` the rows of `V`,
//!
//! ```text
//! x = Q B^{-1/2} Vᵀ t,    (I + V Vᵀ) t = √c p
//! ```
//!
//! where `p` is the preference, 1 or 0. No eigenvalue of `I + V Vᵀ` is below 1. About
//! `n² d / 2 + n³ / 6` multiply-adds, and `n d²` to rotate the observations, which training does
//! once for all of a half-step's rows.

use crate::cholesky::{Workspace, factor, substitute};
use crate::eigen::{Eigen, eigen};
use crate::normal::Observation;
use crate::rotated::Rotated;
use refrain_kernels::{Kernels, Metric};

/// Systems with a larger entry on the diagonal are left to the direct path: the relative error of `t`
/// grows with that entry, and this leaves it some four digits.
const MAX_DIAGONAL: f32 = 1024.0;

/// The Gram matrix' eigenbasis, and what follows from it for rows of few observations.
#[derive(Debug, Clone)]
pub(crate) struct Dual {
    kernels: Kernels,
    rank: usize,
    /// Most observations of a row solved here.
    limit: usize,
    /// `Qᵀ`, row-major: row `k` is an eigenvector.
    vectors: Vec<f32>,
    /// `Q`, row-major.
    transposed: Vec<f32>,
    /// For 1 to `limit` observations the diagonal of `B^{-1/2}`, a row each.
    scales: Vec<f32>,
}

/// Working memory of one thread.
#[derive(Debug, Default)]
pub(crate) struct DualScratch {
    rotated: Vec<f32>,
    lines: Vec<f32>,
    matrix: Vec<f32>,
    solution: Vec<f32>,
    mixture: Vec<f32>,
    workspace: Workspace,
}

impl Dual {
    /// For `base`, row-major `rank * rank`, and the regularisation of a row by its number of
    /// observations, which must not fall as that grows. `O(rank³)`.
    ///
    /// None where this path could not be trusted: `base` is not positive semidefinite up to rounding
    /// or not finite, or the regularisation drowns in the rounding of its largest eigenvalue.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "rounding to f32 is the point"
    )]
    pub(crate) fn new(
        kernels: Kernels,
        base: &[f32],
        rank: usize,
        ridge: impl Fn(usize) -> f32,
    ) -> Option<Self> {
        let limit = limit(rank);
        let Eigen { values, vectors } = eigen(base, rank)?;
        let largest = values.iter().fold(0.0_f64, |max, &value| max.max(value));
        let smallest = values.iter().fold(0.0_f64, |min, &value| min.min(value));
        let noise = rank as f64 * f64::from(f32::EPSILON) * largest;
        let weakest = f64::from(ridge(1));
        if smallest < -noise || weakest <= noise || !ridge(limit).is_finite() {
            return None;
        }
        let scales = (1..=limit)
            .flat_map(|observed| {
                let ridge = f64::from(ridge(observed));
                values
                    .iter()
                    .map(move |value| (value.max(0.0) + ridge).sqrt().recip() as f32)
            })
            .collect();
        Some(Self {
            kernels,
            rank,
            limit,
            transposed: (0..rank * rank)
                .map(|at| vectors[at % rank * rank + at / rank] as f32)
                .collect(),
            vectors: vectors.into_iter().map(|value| value as f32).collect(),
            scales,
        })
    }

    /// Whether a row of `observed` observations, at least one, is to be solved here.
    pub(crate) fn covers(&self, observed: usize) -> bool {
        (1..=self.limit).contains(&observed)
    }

    /// `Qᵀ y` of one factor row.
    pub(crate) fn rotate(&self, row: &[f32], out: &mut [f32]) {
        let rank = self.rank;
        self.kernels
            .score_rows(Metric::InnerProduct, row, &self.vectors, rank, out);
    }

    /// Solves for one row into `out`. `rotated` are rows of the other side by [`rotate`](Dual::rotate); the
    /// observed `factors` that are not there are rotated here, to the same bits.
    ///
    /// False, and `out` unspecified, if the system is too ill-conditioned for single precision.
    pub(crate) fn solve(
        &self,
        factors: &[f32],
        rotated: Option<&Rotated>,
        observations: &[Observation],
        scratch: &mut DualScratch,
        out: &mut [f32],
    ) -> bool {
        let (rank, order) = (self.rank, observations.len());
        let DualScratch {
            rotated: own,
            lines,
            matrix,
            solution,
            mixture,
            workspace,
        } = scratch;
        let scale = &self.scales[(order - 1) * rank..][..rank];
        lines.clear();
        solution.clear();
        own.resize(rank, 0.0);
        for observation in observations {
            let at = observation.other as usize * rank;
            let row = match rotated.and_then(|rotated| rotated.get(observation.other)) {
                Some(row) => row,
                None => {
                    self.rotate(&factors[at..][..rank], own);
                    &*own
                }
            };
            let root = observation.confidence.sqrt();
            lines.extend(row.iter().zip(scale).map(|(y, s)| root * (y * s)));
            solution.push(if observation.preferred { root } else { 0.0 });
        }
        // Only the upper triangle matters: what is left of an earlier row below it does not.
        matrix.resize(order * order, 0.0);
        for (i, (line, row)) in lines
            .chunks_exact(rank)
            .zip(matrix.chunks_exact_mut(order))
            .enumerate()
        {
            let others = &lines[i * rank..];
            self.kernels
                .score_rows(Metric::InnerProduct, line, others, rank, &mut row[i..]);
            row[i] += 1.0;
            // What is not a number does not fit either.
            let fits = row[i] <= MAX_DIAGONAL;
            if !fits {
                return false;
            }
        }
        if !factor(self.kernels, matrix, order, workspace) {
            return false;
        }
        substitute(self.kernels, matrix, solution);
        mixture.clear();
        mixture.resize(rank, 0.0);
        for (line, &weight) in lines.chunks_exact(rank).zip(&*solution) {
            self.kernels.axpy(weight, line, mixture);
        }
        for (value, s) in mixture.iter_mut().zip(scale) {
            *value *= s;
        }
        self.kernels
            .score_rows(Metric::InnerProduct, mixture, &self.transposed, rank, out);
        out.iter().all(|x| x.is_finite())
    }
}

/// Most observations of a row for which this path is taken: three eighths of the rank, at most 48.
///
/// A compromise, for both uses must share one for a trained row to equal its fold-in. By measurement
/// the direct path overtakes a fold-in, which also has to rotate, at some 26 observations of rank 64 and
/// 20 to 30 of ranks 128 and 256 (48 at rank 128: 47 against 24 µs); training gains up to half the
/// rank and beyond, but has ever fewer rows to gain from.
fn limit(rank: usize) -> usize {
    (rank * 3 / 8).min(48)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn diagonal(values: &[f32]) -> Vec<f32> {
        let rank = values.len();
        let mut matrix = vec![0.0; rank * rank];
        for (value, &given) in matrix.iter_mut().step_by(rank + 1).zip(values) {
            *value = given;
        }
        matrix
    }

    #[test]
    fn stands_back_where_it_cannot_be_trusted() {
        let trusted = |values: &[f32], ridge: f32| {
            Dual::new(
                Kernels::active(),
                &diagonal(values),
                values.len(),
                move |_| ridge,
            )
            .is_some()
        };
        assert!(trusted(&[3.0, 0.0, 1.0], 0.1));
        assert!(trusted(&[3.0, -1e-8, 1.0], 0.1));
        assert!(!trusted(&[3.0, -1e-3, 1.0], 0.1));
        assert!(!trusted(&[3.0, f32::INFINITY, 1.0], 0.1));
        assert!(!trusted(&[1e9, 0.0, 1.0], 0.1));
        assert!(!trusted(&[3.0, 0.0, 1.0], 0.0));
        assert!(!trusted(&[3.0, 0.0, 1.0], f32::INFINITY));
    }

    #[test]
    fn refuses_an_ill_conditioned_system_and_what_is_not_a_number() {
        let base = diagonal(&[1.0; 8]);
        let dual = Dual::new(Kernels::active(), &base, 8, |_| 1.0).expect("well-conditioned");
        let solved = |factor: f32, confidence: f32| {
            let observation = Observation {
                other: 0,
                confidence,
                preferred: true,
            };
            let mut out = [0.0; 8];
            dual.solve(
                &[factor; 8],
                None,
                &[observation],
                &mut DualScratch::default(),
                &mut out,
            )
        };
        // 1 + confidence · 8 factor² / 2 on the diagonal.
        assert!(solved(1.0, 255.0));
        assert!(!solved(1.0, 256.5));
        assert!(!solved(f32::NAN, 1.0));
        assert!(!solved(f32::INFINITY, 1.0));
    }
}
