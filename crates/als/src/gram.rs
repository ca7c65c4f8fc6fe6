//! `YᵀY`, and `AᵀB`.

use rayon::prelude::*;
use refrain_kernels::Kernels;

use crate::parent::ParentRows;

/// Partial sums taken at most, so that memory stays bounded for any number of rows.
const MAX_PARTS: usize = 64;

/// Rows of a partial sum at least.
const MIN_ROWS: usize = 512;

/// Rows added at a time: they stay in the first-level cache while the matrix passes by.
const BLOCK_ROWS: usize = 32;

/// The Gram matrix `YᵀY` of row-major `factors` (`n * rank`), row-major `rank * rank`, both triangles.
/// The same bits at any number of threads. An incomplete last row is left out. `O(n rank²)`.
///
/// `threads` = 0 means one a core. If the thread pool cannot be made, the calling thread does the work.
#[must_use]
pub fn gram(factors: &[f32], rank: usize, threads: usize) -> Vec<f32> {
    match rayon::ThreadPoolBuilder::new().num_threads(threads).build() {
        Ok(pool) => pool.install(|| gram_in_pool(factors, rank)),
        Err(_) => sum(
            &part_bounds(factors, rank)
                .map(|rows| partial(rows, rank))
                .collect::<Vec<_>>(),
            rank,
        ),
    }
}

/// As [`gram`], in the current pool.
pub(crate) fn gram_in_pool(factors: &[f32], rank: usize) -> Vec<f32> {
    let parts: Vec<&[f32]> = part_bounds(factors, rank).collect();
    let parts: Vec<Vec<f32>> = parts
        .into_par_iter()
        .map(|rows| partial(rows, rank))
        .collect();
    sum(&parts, rank)
}

/// `AᵀB` of two sides of as many rows of `rank` values, those that `b_rows` does not know being zero, row-major `rank * rank`, in
/// the current pool. The same bits at any number of threads. `O(n rank²)`.
pub(crate) fn cross_in_pool(a: &[f32], b_rows: ParentRows<'_>, rank: usize) -> Vec<f64> {
    let parts: Vec<&[f32]> = part_bounds(a, rank).collect();
    let rows = parts.first().map_or(0, |part| part.len() / rank);
    // The kernel makes upper triangles, so that of `BᵀA` is the lower one.
    let of_part = |(number, a): (usize, &[f32])| {
        let kernels = Kernels::active();
        let mut sums = [vec![0.0; rank * rank], vec![0.0; rank * rank]];
        let mut block = vec![0.0; BLOCK_ROWS * rank];
        for (a, first) in a
            .chunks(block.len())
            .zip((number * rows..).step_by(BLOCK_ROWS))
        {
            let b = &mut block[..a.len()];
            b.fill(0.0);
            b_rows.write(first, b, rank);
            kernels.rank_update(rank, 0, a, b, &mut sums[0]);
            kernels.rank_update(rank, 0, b, a, &mut sums[1]);
        }
        sums
    };
    let parts: Vec<[Vec<f32>; 2]> = parts.into_par_iter().enumerate().map(of_part).collect();
    let mut product = vec![0.0; rank * rank];
    for [upper, lower] in &parts {
        for i in 0..rank {
            for j in 0..rank {
                let value = if i <= j {
                    upper[i * rank + j]
                } else {
                    lower[j * rank + i]
                };
                product[i * rank + j] += f64::from(value);
            }
        }
    }
    product
}

/// Cuts the whole rows into parts that depend on their number only.
fn part_bounds(factors: &[f32], rank: usize) -> std::slice::Chunks<'_, f32> {
    let rows = factors.len().checked_div(rank).unwrap_or(0);
    factors[..rows * rank].chunks(rows.div_ceil(MAX_PARTS).max(MIN_ROWS) * rank.max(1))
}

/// The upper triangle of `YᵀY`.
fn partial(rows: &[f32], rank: usize) -> Vec<f32> {
    let kernels = Kernels::active();
    let mut sum = vec![0.0; rank * rank];
    for rows in rows.chunks(BLOCK_ROWS * rank) {
        kernels.rank_update(rank, 0, rows, rows, &mut sum);
    }
    sum
}

/// Adds the parts in their order and mirrors the upper triangle.
#[expect(
    clippy::cast_possible_truncation,
    reason = "rounding to f32 is the point"
)]
fn sum(parts: &[Vec<f32>], rank: usize) -> Vec<f32> {
    let mut gram = vec![0.0; rank * rank];
    for i in 0..rank {
        for j in i..rank {
            let value: f64 = parts.iter().map(|part| f64::from(part[i * rank + j])).sum();
            gram[i * rank + j] = value as f32;
            gram[j * rank + i] = value as f32;
        }
    }
    gram
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::initial_factors;

    #[test]
    fn equals_the_naive_sum_and_does_not_depend_on_threads() {
        for (rows, rank) in [(0, 3), (1, 1), (7, 5), (513, 8), (40_000, 12)] {
            let mut factors = initial_factors(rows, rank, 3);
            let one = gram(&factors, rank, 1);
            factors.extend(std::iter::repeat_n(1.0, rank - 1));
            for threads in [2, 3, 8] {
                assert_eq!(one, gram(&factors, rank, threads));
            }
            for i in 0..rank {
                for j in 0..rank {
                    let naive: f64 = factors
                        .chunks_exact(rank)
                        .map(|row| f64::from(row[i]) * f64::from(row[j]))
                        .sum();
                    let error = (naive - f64::from(one[i * rank + j])).abs();
                    assert!(
                        error <= 1e-5 * (1.0 + naive.abs()),
                        "{rows}x{rank} {i},{j}: {error}"
                    );
                }
            }
        }
    }
}
