//! The projection that long vectors are walked by: their principal components.
//!
//! A walk reads every vector it meets, and of a long one that is many cache lines. The components
//! that hold most of the variance fit one or two; what the walk found is scored again by all
//! dimensions (after Tepper et al., *LeanVec*, 2024, of which this is the linear in-distribution
//! form). Computed by subspace iteration in f64, in one order: the same on any machine.

use rayon::prelude::*;
use refrain_kernels::{Kernels, Metric};

use super::{coded::prepare, levels::hash};
use crate::{codes::narrow, layout::WHOLE, walk::count};

/// Components that are tried, fewest first, with the part of the variance they must hold; the last
/// is taken whatever it holds.
const WIDTHS: [(usize, f64); 2] = [(64, 0.8), (WHOLE, 0.0)];

/// Rows the covariance is estimated from, at most.
const SAMPLE: usize = 16_384;

/// More directions than asked for: they make the iteration converge.
const SPARE: usize = 16;

/// Rounds of the iteration: components are needed to a few digits only.
const ROUNDS: usize = 10;

/// The rows of the projection, `width × dim`, orthonormal; `None` where vectors are short, or too
/// few to tell.
pub(super) fn principal(
    metric: Metric,
    dim: usize,
    vectors: &[f32],
    centre: &[f32],
) -> Option<Vec<f32>> {
    let n = vectors.len() / dim;
    if dim <= WHOLE || n < 4 * dim.min(1024) {
        return None;
    }
    let covariance = covariance(metric, dim, vectors, centre);
    let widest = WIDTHS[WIDTHS.len() - 1].0;
    let basis = iterate(&covariance, dim, (widest + SPARE).min(dim));
    let total: f64 = (0..dim).map(|at| covariance[at * dim + at]).sum();
    let held = |width: usize| -> f64 { basis.iter().take(width).map(|(value, _)| value).sum() };
    let enough = |(width, part): &&(usize, f64)| held(*width) >= part * total;
    let (width, _) = WIDTHS.iter().find(enough)?;
    let rows = basis.iter().take(*width);
    Some(
        rows.flat_map(|(_, row)| row.iter().map(|value| narrow(*value)))
            .collect(),
    )
}

/// `Σ x xᵀ` over a sample, `dim × dim`, symmetric.
fn covariance(metric: Metric, dim: usize, vectors: &[f32], centre: &[f32]) -> Vec<f64> {
    let n = vectors.len() / dim;
    let every = n.div_ceil(SAMPLE);
    let mut sample = Vec::with_capacity(n.min(SAMPLE) * dim);
    let mut row = Vec::new();
    for source in vectors.chunks_exact(dim).step_by(every) {
        prepare(metric, source, centre, &mut row);
        sample.extend_from_slice(&row);
    }
    // Under inner product the mean counts; for the others it is not in the way.
    let kernels = Kernels::active();
    let rows: Vec<Vec<f32>> = (0..dim)
        .into_par_iter()
        .step_by(8)
        .map(|first| {
            let mut upper = vec![0.0; 8.min(dim - first) * dim];
            for part in sample.chunks(dim * 1024) {
                kernels.rank_update(dim, first, part, part, &mut upper);
            }
            upper
        })
        .collect();
    let mut out = vec![0.0; dim * dim];
    for (at, row) in rows
        .iter()
        .flat_map(|rows| rows.chunks_exact(dim))
        .enumerate()
    {
        for to in at..dim {
            let value = f64::from(row[to]);
            out[at * dim + to] = value;
            out[to * dim + at] = value;
        }
    }
    out
}

/// The leading eigenvectors with their eigenvalues, largest first.
fn iterate(matrix: &[f64], dim: usize, width: usize) -> Vec<(f64, Vec<f64>)> {
    let start = |at: usize, of: usize| {
        let draw = hash(count(of) as u64, count(at)) >> 11;
        draw as f64 / (1_u64 << 53) as f64 - 0.5
    };
    let mut basis: Vec<Vec<f64>> = (0..width)
        .map(|of| (0..dim).map(|at| start(at, of)).collect())
        .collect();
    orthonormal(&mut basis);
    for _ in 0..ROUNDS {
        basis = basis
            .par_iter()
            .map(|column| product(matrix, dim, column))
            .collect();
        orthonormal(&mut basis);
    }
    let mut values: Vec<(f64, Vec<f64>)> = basis
        .into_par_iter()
        .map(|column| (dot(&product(matrix, dim, &column), &column), column))
        .collect();
    values.sort_by(|a, b| b.0.total_cmp(&a.0));
    values
}

fn product(matrix: &[f64], dim: usize, column: &[f64]) -> Vec<f64> {
    matrix
        .chunks_exact(dim)
        .map(|row| dot(row, column))
        .collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    // Four sums, in one order: a single one would wait for itself.
    let (a_parts, a_rest) = a.as_chunks::<4>();
    let (b_parts, b_rest) = b.as_chunks::<4>();
    let mut sums = [0.0; 4];
    for (a, b) in a_parts.iter().zip(b_parts) {
        for (sum, (a, b)) in sums.iter_mut().zip(a.iter().zip(b)) {
            *sum += a * b;
        }
    }
    let rest: f64 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    (sums[0] + sums[1]) + (sums[2] + sums[3]) + rest
}

/// Gram and Schmidt, twice for each: once leaves rounding behind. A direction that is a
/// combination of those before it becomes zero.
fn orthonormal(basis: &mut [Vec<f64>]) {
    for at in 0..basis.len() {
        let (before, rest) = basis.split_at_mut(at);
        let own = &mut rest[0];
        let length = dot(own, own).sqrt();
        for _ in 0..2 {
            for other in &*before {
                let part = dot(own, other);
                own.iter_mut()
                    .zip(other)
                    .for_each(|(own, other)| *own -= part * other);
            }
        }
        let left = dot(own, own).sqrt();
        let scale = if left > length * 1e-12 {
            left.recip()
        } else {
            0.0
        };
        own.iter_mut().for_each(|value| *value *= scale);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn components_hold_what_varies() {
        let (n, dim, rank) = (4_000, 160, 6);
        let draw = |seed: u64, at: usize| (hash(seed, count(at)) >> 40) as f32 / 8_388_608.0 - 1.0;
        let vectors: Vec<f32> = (0..n)
            .flat_map(|item| {
                (0..dim).map(move |at| {
                    let signal: f32 = (0..rank)
                        .map(|r| draw(r as u64, at) * draw(100 + r as u64, item))
                        .sum();
                    signal + 0.01 * draw(7, item * dim + at)
                })
            })
            .collect();
        let rows = principal(Metric::InnerProduct, dim, &vectors, &vec![0.0; dim]).expect("long");
        assert_eq!(rows.len(), 64 * dim);
        let rows: Vec<&[f32]> = rows.chunks_exact(dim).collect();
        for (at, a) in rows.iter().take(rank).enumerate() {
            for (bt, b) in rows.iter().take(rank).enumerate() {
                let product: f32 = a.iter().zip(*b).map(|(a, b)| a * b).sum();
                let expected = if at == bt { 1.0 } else { 0.0 };
                assert!((product - expected).abs() < 1e-4, "{at} {bt} {product}");
            }
        }
        for vector in vectors.chunks_exact(dim).take(50) {
            let square: f32 = vector.iter().map(|v| v * v).sum();
            let held: f32 = rows
                .iter()
                .take(rank)
                .map(|row| {
                    row.iter()
                        .zip(vector)
                        .map(|(r, v)| r * v)
                        .sum::<f32>()
                        .powi(2)
                })
                .sum();
            assert!(held > 0.98 * square, "{held} of {square}");
        }
    }

    #[test]
    fn short_vectors_are_walked_whole() {
        assert!(principal(Metric::L2, 128, &vec![1.0; 128 * 600], &[0.0; 128]).is_none());
    }
}
