//! One row's normal equations: which way they are solved, and the direct way.
//!
//! Rows of few observations are solved in the space of their observations ([`Dual`]). For the others
//! the `d * d` matrix is assembled from blocks of observations and factorised: `n d²/2 + d³/6`
//! multiply-adds. Where single precision loses a pivot to rounding, the same is done in double.

use crate::cholesky::{Workspace, factor, substitute};
use crate::dual::{Dual, DualScratch};
use crate::hyper::Hyper;
use crate::interactions::Interactions;
use crate::rotated::Rotated;
use refrain_kernels::{Kernels, prefetch};

/// Observations added to the matrix at a time: at rank 64 they and the matrix fit the first-level
/// cache together.
const BLOCK: usize = 32;

/// What all rows of one side share: the fixed factors of the other side and `w0` times their Gram matrix.
#[derive(Debug, Clone)]
pub(crate) struct Side {
    kernels: Kernels,
    hyper: Hyper,
    /// Number of rows of the other side.
    others: usize,
    /// `w0 YᵀY`, row-major `rank * rank`.
    base: Vec<f32>,
    /// Absent where only the direct way can be trusted.
    dual: Option<Dual>,
}

/// One observation: a row of the other side, the confidence in it, and whether its preference is 1.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Observation {
    pub(crate) other: u32,
    pub(crate) confidence: f32,
    pub(crate) preferred: bool,
}

/// The rows of the other side.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fixed<'a> {
    /// Row-major, `rank` values a row.
    pub(crate) factors: &'a [f32],
    /// Some of them by [`Side::rotate`], where many rows are to be solved. Answers do not depend on it.
    pub(crate) rotated: Option<&'a Rotated>,
}

/// The system could not be solved, not even in double precision.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Unsolvable;

/// Working memory of one thread.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    observations: Vec<Observation>,
    dual: DualScratch,
    matrix: Vec<f32>,
    /// A block's factor rows, and the same times their confidences.
    rows: Vec<f32>,
    weighted: Vec<f32>,
    workspace: Workspace,
    wide_matrix: Vec<f64>,
    wide_solution: Vec<f64>,
}

impl Side {
    /// `gram` is row-major `rank * rank` over `others` rows. `O(rank³)`.
    pub(crate) fn new(hyper: &Hyper, others: usize, mut gram: Vec<f32>) -> Self {
        for value in &mut gram {
            *value *= hyper.unobserved_weight;
        }
        let kernels = Kernels::active();
        let ridge = |observed| hyper.ridge(observed, others);
        Self {
            kernels,
            hyper: *hyper,
            others,
            dual: Dual::new(kernels, &gram, hyper.rank, ridge),
            base: gram,
        }
    }

    /// What [`Fixed::rotated`] takes, of rows that are observed often in what is solved by the space of
    /// observations, in at most `bytes`; computed in the current pool. `O(pairs + rotated rank²)`.
    pub(crate) fn rotate(
        &self,
        factors: &[f32],
        pairs: &Interactions,
        bytes: usize,
    ) -> Option<Rotated> {
        let dual = self.dual.as_ref()?;
        let rank = self.hyper.rank;
        let mut uses = vec![0u32; self.others];
        for row in 0..pairs.users() {
            let others = pairs.user(row).0;
            if dual.covers(others.len()) {
                others.iter().for_each(|&other| uses[other as usize] += 1);
            }
        }
        let rotate = |other: u32, out: &mut [f32]| {
            dual.rotate(&factors[other as usize * rank..][..rank], out);
        };
        Some(Rotated::of_most_used(&uses, rank, bytes, rotate))
    }

    /// Solves for one row into `out` (`rank` values). Every observation must lie within `fixed`.
    /// No observations give the zero vector.
    pub(crate) fn solve(
        &self,
        fixed: Fixed<'_>,
        observations: impl Iterator<Item = Observation>,
        scratch: &mut Scratch,
        out: &mut [f32],
    ) -> Result<(), Unsolvable> {
        let mut collected = std::mem::take(&mut scratch.observations);
        collected.clear();
        collected.extend(observations);
        let result = self.solve_collected(fixed, &collected, scratch, out);
        scratch.observations = collected;
        result
    }

    fn solve_collected(
        &self,
        Fixed { factors, rotated }: Fixed<'_>,
        observations: &[Observation],
        scratch: &mut Scratch,
        out: &mut [f32],
    ) -> Result<(), Unsolvable> {
        if observations.is_empty() {
            out.fill(0.0);
            return Ok(());
        }
        let dual = self
            .dual
            .as_ref()
            .filter(|dual| dual.covers(observations.len()));
        if dual
            .is_some_and(|dual| dual.solve(factors, rotated, observations, &mut scratch.dual, out))
        {
            return Ok(());
        }
        let ridge = self.hyper.ridge(observations.len(), self.others);
        if self.solve_direct(factors, observations, ridge, scratch, out) {
            return Ok(());
        }
        self.solve_double(factors, observations, ridge, scratch, out)
    }

    fn solve_direct(
        &self,
        factors: &[f32],
        observations: &[Observation],
        ridge: f32,
        scratch: &mut Scratch,
        out: &mut [f32],
    ) -> bool {
        let rank = self.hyper.rank;
        let row_of =
            |observation: &Observation| &factors[observation.other as usize * rank..][..rank];
        let Scratch {
            matrix,
            rows,
            weighted,
            workspace,
            ..
        } = scratch;
        matrix.clear();
        matrix.extend_from_slice(&self.base);
        out.fill(0.0);
        let ask = |block: Option<&[Observation]>| {
            for observation in block.unwrap_or_default() {
                prefetch(row_of(observation));
            }
        };
        let blocks = observations.chunks(BLOCK);
        let mut ahead = blocks.clone();
        ask(ahead.next());
        for block in blocks {
            // While this one is added, the next comes.
            ask(ahead.next());
            rows.clear();
            weighted.clear();
            for observation in block {
                let row = row_of(observation);
                rows.extend_from_slice(row);
                weighted.extend(row.iter().map(|y| observation.confidence * y));
                if observation.preferred {
                    self.kernels.axpy(observation.confidence, row, out);
                }
            }
            self.kernels.rank_update(rank, 0, weighted, rows, matrix);
        }
        for value in matrix.iter_mut().step_by(rank + 1) {
            *value += ridge;
        }
        if !factor(self.kernels, matrix, rank, workspace) {
            return false;
        }
        substitute(self.kernels, matrix, out);
        out.iter().all(|x| x.is_finite())
    }

    /// The plain algorithm in double precision: rare, so kept short rather than fast.
    fn solve_double(
        &self,
        factors: &[f32],
        observations: &[Observation],
        ridge: f32,
        scratch: &mut Scratch,
        out: &mut [f32],
    ) -> Result<(), Unsolvable> {
        let rank = self.hyper.rank;
        let Scratch {
            wide_matrix: a,
            wide_solution: x,
            ..
        } = scratch;
        self.assemble_wide(factors, observations, ridge, a);
        x.clear();
        x.resize(rank, 0.0);
        for observation in observations.iter().filter(|seen| seen.preferred) {
            let row = &factors[observation.other as usize * rank..][..rank];
            for (sum, &y) in x.iter_mut().zip(row) {
                *sum += f64::from(observation.confidence) * f64::from(y);
            }
        }
        if !solve_wide(a, x) {
            return Err(Unsolvable);
        }
        for (narrow, &wide) in out.iter_mut().zip(x.iter()) {
            #[expect(
                clippy::cast_possible_truncation,
                reason = "rounding to f32 is the point"
            )]
            let value = wide as f32;
            *narrow = value;
        }
        if out.iter().all(|x| x.is_finite()) {
            Ok(())
        } else {
            Err(Unsolvable)
        }
    }

    /// The upper triangle of a row's matrix in double precision.
    fn assemble_wide(
        &self,
        factors: &[f32],
        observations: &[Observation],
        ridge: f32,
        a: &mut Vec<f64>,
    ) {
        let rank = self.hyper.rank;
        a.clear();
        a.extend(self.base.iter().map(|&v| f64::from(v)));
        for &Observation {
            other, confidence, ..
        } in observations
        {
            let row = &factors[other as usize * rank..][..rank];
            for i in 0..rank {
                let weighted = f64::from(confidence) * f64::from(row[i]);
                for j in i..rank {
                    a[i * rank + j] += weighted * f64::from(row[j]);
                }
            }
        }
        for j in 0..rank {
            a[j * rank + j] += f64::from(ridge);
        }
    }

    /// How much of `target · x` each observation brings, where `x` is the solution for the row: with
    /// `w = A⁻¹ target`, that is `c (y · w)` of a preferred one. Hu, Koren and Volinsky, "Collaborative
    /// filtering for implicit feedback datasets" (2008), §5. In double precision, `O(n rank² + rank³)`.
    pub(crate) fn contributions(
        &self,
        factors: &[f32],
        observations: &[Observation],
        target: &[f32],
    ) -> Result<Vec<f64>, Unsolvable> {
        let rank = self.hyper.rank;
        let ridge = self.hyper.ridge(observations.len(), self.others);
        let mut a = Vec::new();
        self.assemble_wide(factors, observations, ridge, &mut a);
        let mut w: Vec<f64> = target.iter().map(|&value| f64::from(value)).collect();
        if !solve_wide(&mut a, &mut w) || w.iter().any(|value| !value.is_finite()) {
            return Err(Unsolvable);
        }
        let along = |observation: &Observation| -> f64 {
            let row = &factors[observation.other as usize * rank..][..rank];
            row.iter().zip(&w).map(|(&y, w)| f64::from(y) * w).sum()
        };
        Ok(observations
            .iter()
            .map(|seen| match seen.preferred {
                true => f64::from(seen.confidence) * along(seen),
                false => 0.0,
            })
            .collect())
    }
}

/// Solves `A x = b` in place of `b` by Cholesky, `A` given by its upper triangle, which is overwritten.
/// False if a pivot is not positive.
fn solve_wide(a: &mut [f64], x: &mut [f64]) -> bool {
    let rank = x.len();
    for j in 0..rank {
        let pivot = a[j * rank + j];
        if !(pivot > 0.0 && pivot.is_finite()) {
            return false;
        }
        let inverse = pivot.sqrt().recip();
        for k in j..rank {
            a[j * rank + k] *= inverse;
        }
        x[j] *= a[j * rank + j].recip();
        for i in j + 1..rank {
            let head = a[j * rank + i];
            x[i] -= head * x[j];
            for k in i..rank {
                a[i * rank + k] -= head * a[j * rank + k];
            }
        }
    }
    for j in (0..rank).rev() {
        for k in j + 1..rank {
            x[j] -= a[j * rank + k] * x[k];
        }
        x[j] /= a[j * rank + j];
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gram::gram;
    use crate::random::initial_factors;

    /// One system both ways, on both sides of the number where the way changes by itself; and with
    /// the rows rotated beforehand the bits of rows rotated on the way.
    #[test]
    fn both_ways_agree_at_every_number_of_observations() {
        for rank in [3, 8, 21, 64] {
            let hyper = Hyper {
                rank,
                ..Hyper::default()
            };
            let factors = initial_factors(200, rank, 4)
                .iter()
                .map(|value| value * 10.0)
                .collect::<Vec<_>>();
            let side = Side::new(&hyper, 200, gram(&factors, rank, 1));
            let direct = Side {
                dual: None,
                ..side.clone()
            };
            let dual = side.dual.as_ref().expect("well-conditioned");
            let rotated = Rotated::all(200, rank, |row, out| {
                dual.rotate(&factors[row as usize * rank..][..rank], out);
            });
            let mut scratch = Scratch::default();
            let mut ways = [0; 2];
            for observed in 1..=rank + 2 {
                let observations = (0..).take(observed).map(|at| Observation {
                    other: at * 3,
                    confidence: 0.5 + (at % 5) as f32,
                    preferred: at % 4 != 1,
                });
                let mut solve = |side: &Side, rotated| {
                    let mut out = vec![f32::NAN; rank];
                    let fixed = Fixed {
                        factors: &factors,
                        rotated,
                    };
                    side.solve(fixed, observations.clone(), &mut scratch, &mut out)
                        .expect("well-conditioned");
                    out
                };
                let here = solve(&side, None);
                assert_eq!(here, solve(&side, Some(&rotated)), "{observed} of {rank}");
                let there = solve(&direct, None);
                for (x, y) in here.iter().zip(&there) {
                    let error = (x - y).abs();
                    assert!(error < 2e-6, "{error} with {observed} at rank {rank}");
                }
                ways[usize::from(dual.covers(observed))] += 1;
            }
            assert!(ways.iter().all(|&count| count > 0), "rank {rank}: {ways:?}");
        }
    }
}
