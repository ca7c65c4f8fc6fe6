//! One row's normal equations: assembled by rank-one updates, solved by Cholesky.
//!
//! Cost for `n` observations at rank `d`: `n d²/2` multiply-adds for the updates and `d³/6` for the
//! factorisation. At `d` = 64 an observation costs 2,080 multiply-adds and the factorisation as much as
//! 21 observations; both work on 16 KiB that stay in the first-level cache.

use crate::hyper::Hyper;
use refrain_kernels::Kernels;

/// Rows of the factor eliminated together: each pass over the trailing matrix then does four
/// multiply-adds for every load and store, instead of one.
const PANEL: usize = 4;

/// What all rows of one side share: the fixed factors of the other side and `w0` times their Gram matrix.
#[derive(Debug, Clone)]
pub(crate) struct Side {
    kernels: Kernels,
    hyper: Hyper,
    /// Number of rows of the other side.
    others: usize,
    /// `w0 YᵀY`, row-major `rank * rank`.
    base: Vec<f32>,
}

/// One observation: a row of the other side, the confidence in it, and whether its preference is 1.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Observation {
    pub(crate) other: u32,
    pub(crate) confidence: f32,
    pub(crate) preferred: bool,
}

/// The system could not be solved, not even in double precision.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Unsolvable;

/// Working memory of one thread.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    matrix: Vec<f32>,
    diagonal: Vec<f32>,
    wide_matrix: Vec<f64>,
    wide_solution: Vec<f64>,
}

impl Side {
    /// `gram` is row-major `rank * rank` over `others` rows.
    pub(crate) fn new(hyper: &Hyper, others: usize, mut gram: Vec<f32>) -> Self {
        for value in &mut gram {
            *value *= hyper.unobserved_weight;
        }
        Self {
            kernels: Kernels::active(),
            hyper: *hyper,
            others,
            base: gram,
        }
    }

    /// Solves for one row into `out` (`rank` values). `factors` are the other side's rows;
    /// every observation must lie within them. No observations give the zero vector.
    ///
    /// Solved in single precision. Where that loses a pivot to rounding (confidences many orders of
    /// magnitude above the regularisation), the same system is solved again in double precision.
    pub(crate) fn solve(
        &self,
        factors: &[f32],
        observations: impl ExactSizeIterator<Item = Observation> + Clone,
        scratch: &mut Scratch,
        out: &mut [f32],
    ) -> Result<(), Unsolvable> {
        if observations.len() == 0 {
            out.fill(0.0);
            return Ok(());
        }
        let ridge = self.hyper.ridge(observations.len(), self.others);
        if self.solve_single(factors, observations.clone(), ridge, scratch, out) {
            return Ok(());
        }
        self.solve_double(factors, observations, ridge, scratch, out)
    }

    fn solve_single(
        &self,
        factors: &[f32],
        observations: impl Iterator<Item = Observation>,
        ridge: f32,
        scratch: &mut Scratch,
        out: &mut [f32],
    ) -> bool {
        let rank = self.hyper.rank;
        let Scratch {
            matrix, diagonal, ..
        } = scratch;
        matrix.clear();
        matrix.extend_from_slice(&self.base);
        out.fill(0.0);
        for Observation {
            other,
            confidence,
            preferred,
        } in observations
        {
            let row = &factors[other as usize * rank..][..rank];
            self.kernels.rank_one(confidence, row, matrix);
            if preferred {
                self.kernels.axpy(confidence, row, out);
            }
        }
        diagonal.clear();
        for j in 0..rank {
            matrix[j * rank + j] += ridge;
            diagonal.push(matrix[j * rank + j]);
        }
        if !factor(matrix, diagonal) {
            return false;
        }
        self.substitute(matrix, out);
        out.iter().all(|x| x.is_finite())
    }

    /// Solves `Uᵀ U x = b` in place of `b`.
    fn substitute(&self, upper: &[f32], x: &mut [f32]) {
        let rank = x.len();
        for j in 0..rank {
            let (head, tail) = x.split_at_mut(j + 1);
            let row = &upper[j * rank + j..(j + 1) * rank];
            head[j] /= row[0];
            self.kernels.axpy(-head[j], &row[1..], tail);
        }
        for j in (0..rank).rev() {
            let (head, tail) = x.split_at_mut(j + 1);
            let row = &upper[j * rank + j..(j + 1) * rank];
            head[j] = (head[j] - self.kernels.dot(&row[1..], tail)) / row[0];
        }
    }

    /// The plain algorithm in double precision: rare, so kept short rather than fast.
    fn solve_double(
        &self,
        factors: &[f32],
        observations: impl Iterator<Item = Observation>,
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
        a.clear();
        a.extend(self.base.iter().map(|&v| f64::from(v)));
        x.clear();
        x.resize(rank, 0.0);
        for Observation {
            other,
            confidence,
            preferred,
        } in observations
        {
            let row = &factors[other as usize * rank..][..rank];
            for i in 0..rank {
                let weighted = f64::from(confidence) * f64::from(row[i]);
                for j in i..rank {
                    a[i * rank + j] += weighted * f64::from(row[j]);
                }
                if preferred {
                    x[i] += weighted;
                }
            }
        }
        for j in 0..rank {
            a[j * rank + j] += f64::from(ridge);
        }
        for j in 0..rank {
            let pivot = a[j * rank + j];
            if !(pivot > 0.0 && pivot.is_finite()) {
                return Err(Unsolvable);
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
}

/// Overwrites the upper triangle of a symmetric row-major matrix with `U`, where `A = Uᵀ U`; the
/// strictly lower triangle is scratch. `diagonal` is a copy of the diagonal of `A`.
///
/// False if a pivot is not clearly positive: below `rank` units of rounding of its diagonal entry
/// the rest of the factor would be noise.
fn factor(matrix: &mut [f32], diagonal: &[f32]) -> bool {
    let rank = diagonal.len();
    let tolerance = rank as f32 * f32::EPSILON;
    for start in (0..rank).step_by(PANEL) {
        let end = (start + PANEL).min(rank);
        for j in start..end {
            let (head, below) = matrix.split_at_mut((j + 1) * rank);
            let row = &mut head[j * rank..];
            let pivot = row[j];
            if !(pivot > tolerance * diagonal[j] && pivot.is_finite()) {
                return false;
            }
            let inverse = pivot.sqrt().recip();
            for value in &mut row[j..] {
                *value *= inverse;
            }
            for i in j + 1..end {
                let target = &mut below[(i - j - 1) * rank..][..rank];
                let head = row[i];
                for (t, &r) in target[i..].iter_mut().zip(&row[i..]) {
                    *t -= head * r;
                }
            }
        }
        // Empty unless the panel is a full one.
        let (panel, trailing) = matrix.split_at_mut(end * rank);
        let mut rows = panel[start * rank..].chunks_exact(rank);
        let (Some(r0), Some(r1), Some(r2), Some(r3)) =
            (rows.next(), rows.next(), rows.next(), rows.next())
        else {
            continue;
        };
        for (target, i) in trailing.chunks_exact_mut(rank).zip(end..) {
            eliminate(target, [r0, r1, r2, r3], i);
        }
    }
    true
}

/// `target[k] -= Σ_p rows[p][i] rows[p][k]` for `k ≥ i`. Starts at a multiple of eight at or below `i`,
/// for whole vectors: what it spoils lies left of the diagonal.
#[inline]
fn eliminate(target: &mut [f32], rows: [&[f32]; PANEL], i: usize) {
    let [h0, h1, h2, h3] = rows.map(|row| row[i]);
    let from = i & !7;
    let target = &mut target[from..];
    let [r0, r1, r2, r3] = rows.map(|row| &row[from..][..target.len()]);
    for (k, t) in target.iter_mut().enumerate() {
        *t -= (h0 * r0[k] + h1 * r1[k]) + (h2 * r2[k] + h3 * r3[k]);
    }
}
