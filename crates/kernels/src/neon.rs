//! NEON: four lanes a register, eight registers a row, two rows at a time.
#![expect(
    clippy::needless_range_loop,
    reason = "registers are numbered: loops unroll"
)]

use std::arch::aarch64::*;

use crate::{
    LANES, PREFETCH_AHEAD, PREFETCH_LINES,
    kernels::{Table, prefetch_line},
};

pub(crate) static TABLE: Table = Table {
    dot: sum::<false>,
    l2_squared: sum::<true>,
    dot_ids: score_ids::<false>,
    l2_ids: score_ids::<true>,
    dot_rows: score_rows::<false>,
    l2_rows: score_rows::<true>,
    axpy,
    add_ids,
    rank_update,
};

/// Registers that hold the canonical lanes.
const PARTS: usize = LANES / 4;

#[target_feature(enable = "neon")]
fn sum<const L2: bool>(a: &[f32], b: &[f32]) -> f32 {
    // SAFETY: the table's contract: `b` is as long as `a`.
    let [sum] = unsafe { sums::<L2, 1>(a, [b.as_ptr()]) };
    sum
}

#[target_feature(enable = "neon")]
fn score_ids<const L2: bool>(query: &[f32], rows: &[f32], ids: &[u32], out: &mut [f32]) {
    let dim = query.len();
    let row = |id: u32| rows.as_ptr().wrapping_add(id as usize * dim);
    let lines = (dim * 4).div_ceil(64).min(PREFETCH_LINES);
    let request = |ids: &[u32]| {
        for &id in ids {
            let start = row(id).cast::<u8>();
            for line in 0..lines {
                prefetch_line(start.wrapping_add(line * 64));
            }
        }
    };
    request(&ids[..ids.len().min(PREFETCH_AHEAD)]);
    let (pairs, rest) = ids.as_chunks::<2>();
    for (at, pair) in pairs.iter().enumerate() {
        let ahead = (at * 2 + PREFETCH_AHEAD).min(ids.len());
        request(&ids[ahead..(ahead + 2).min(ids.len())]);
        // SAFETY: the table's contract: every id is a whole row of `rows`.
        let [a, b] = unsafe { sums::<L2, 2>(query, pair.map(row)) };
        out[at * 2] = signed::<L2>(a);
        out[at * 2 + 1] = signed::<L2>(b);
    }
    for (&id, out) in rest.iter().zip(&mut out[pairs.len() * 2..]) {
        // SAFETY: as above.
        let [sum] = unsafe { sums::<L2, 1>(query, [row(id)]) };
        *out = signed::<L2>(sum);
    }
}

#[target_feature(enable = "neon")]
fn score_rows<const L2: bool>(query: &[f32], rows: &[f32], out: &mut [f32]) {
    let dim = query.len();
    let row = |at: usize| rows.as_ptr().wrapping_add(at * dim);
    let whole = out.len() / 2 * 2;
    for at in (0..whole).step_by(2) {
        // SAFETY: the table's contract: `rows` holds `out.len()` rows of `dim`.
        let [a, b] = unsafe { sums::<L2, 2>(query, [row(at), row(at + 1)]) };
        out[at] = signed::<L2>(a);
        out[at + 1] = signed::<L2>(b);
    }
    for (at, out) in out.iter_mut().enumerate().skip(whole) {
        // SAFETY: as above.
        let [sum] = unsafe { sums::<L2, 1>(query, [row(at)]) };
        *out = signed::<L2>(sum);
    }
}

#[target_feature(enable = "neon")]
fn axpy(alpha: f32, x: &[f32], y: &mut [f32]) {
    let factor = vdupq_n_f32(alpha);
    let (x_blocks, x_tail) = x.as_chunks::<4>();
    let (y_blocks, y_tail) = y.as_chunks_mut::<4>();
    for (x, y) in x_blocks.iter().zip(y_blocks) {
        // SAFETY: both are arrays of four.
        unsafe {
            let sum = vfmaq_f32(vld1q_f32(y.as_ptr()), factor, vld1q_f32(x.as_ptr()));
            vst1q_f32(y.as_mut_ptr(), sum);
        }
    }
    for (x, y) in x_tail.iter().zip(y_tail) {
        *y = alpha.mul_add(*x, *y);
    }
}

#[target_feature(enable = "neon")]
fn add_ids(weights: &[f32], rows: &[f32], ids: &[u32], out: &mut [f32]) {
    let dim = out.len();
    let mut at = 0;
    while at + 4 <= dim {
        // SAFETY: the table's contract: every id is a whole row of `rows`; as many columns are left.
        at += unsafe {
            match dim - at {
                64.. => add_strip::<16>(weights, rows, ids, at, out),
                16.. => add_strip::<4>(weights, rows, ids, at, out),
                _ => add_strip::<1>(weights, rows, ids, at, out),
            }
        };
    }
    for (&weight, &id) in weights.iter().zip(ids) {
        let row = &rows[id as usize * dim..][..dim];
        for column in at..dim {
            out[column] = weight.mul_add(row[column], out[column]);
        }
    }
}

/// `4 R` columns of a weighted sum of rows from column `at` on. Returns `4 R`.
///
/// # Safety
/// Every id is a whole row of `out.len()` values in `rows`, and `at + 4 R <= out.len()`.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn add_strip<const R: usize>(
    weights: &[f32],
    rows: &[f32],
    ids: &[u32],
    at: usize,
    out: &mut [f32],
) -> usize {
    let dim = out.len();
    let mut sums = [vdupq_n_f32(0.0); R];
    // SAFETY: `4 R` columns from `at` on are there, in `out` and in every row.
    unsafe {
        let place = out.as_mut_ptr().add(at);
        for r in 0..R {
            sums[r] = vld1q_f32(place.add(r * 4));
        }
        for (&weight, &id) in weights.iter().zip(ids) {
            let row = rows.as_ptr().add(id as usize * dim + at);
            let factor = vdupq_n_f32(weight);
            for r in 0..R {
                sums[r] = vfmaq_f32(sums[r], factor, vld1q_f32(row.add(r * 4)));
            }
        }
        for r in 0..R {
            vst1q_f32(place.add(r * 4), sums[r]);
        }
    }
    R * 4
}

#[target_feature(enable = "neon")]
fn rank_update(dim: usize, first: usize, left: &[f32], right: &[f32], upper: &mut [f32]) {
    let rows = upper.len() / dim;
    let mut at = 0;
    while at < rows {
        let below = &mut upper[at * dim..];
        // SAFETY: the table's contract: `left` and `right` are as long and of whole rows, and row
        // `first + at` of the matrix exists; `below` holds as many rows as each arm takes.
        at += unsafe {
            match rows - at {
                4.. => strip::<4>(dim, first + at, left, right, below),
                2.. => strip::<2>(dim, first + at, left, right, below),
                _ => strip::<1>(dim, first + at, left, right, below),
            }
        };
    }
}

/// Rows `i..i + R` of a rank update: tiles of four registers a row, then single columns. Returns `R`.
///
/// # Safety
/// `left` and `right` are as long, in whole rows of `dim`; `rows` starts with row `i` of the matrix
/// and holds `R` rows of `dim`; `i + R <= dim`.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn strip<const R: usize>(
    dim: usize,
    i: usize,
    left: &[f32],
    right: &[f32],
    rows: &mut [f32],
) -> usize {
    let mut j = i;
    while j + 16 <= dim {
        // SAFETY: handed on; sixteen columns are left.
        unsafe { tile::<R, 4>(dim, i, j, left, right, rows) };
        j += 16;
    }
    while j + 4 <= dim {
        // SAFETY: handed on; four columns are left.
        unsafe { tile::<R, 1>(dim, i, j, left, right, rows) };
        j += 4;
    }
    for (left, right) in left.chunks_exact(dim).zip(right.chunks_exact(dim)) {
        for (r, row) in rows.chunks_exact_mut(dim).take(R).enumerate() {
            for column in j..dim {
                row[column] = left[i + r].mul_add(right[column], row[column]);
            }
        }
    }
    R
}

/// `R` rows by `C` registers of a rank update: loaded once, stored once.
///
/// # Safety
/// As for [`strip`], and `j + 4 C <= dim`.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn tile<const R: usize, const C: usize>(
    dim: usize,
    i: usize,
    j: usize,
    left: &[f32],
    right: &[f32],
    rows: &mut [f32],
) {
    let rows = rows.as_mut_ptr();
    let mut sums = [[vdupq_n_f32(0.0); C]; R];
    for r in 0..R {
        for c in 0..C {
            // SAFETY: row `r` is there, and so are its columns up to `j + 4 C`.
            sums[r][c] = unsafe { vld1q_f32(rows.add(r * dim + j + c * 4)) };
        }
    }
    for at in (0..left.len()).step_by(dim) {
        let mut line = [vdupq_n_f32(0.0); C];
        // SAFETY: `at` starts a row of `left` and `right`; `i + R <= dim` and `j + 4 C <= dim`.
        unsafe {
            for c in 0..C {
                line[c] = vld1q_f32(right.as_ptr().add(at + j + c * 4));
            }
            for r in 0..R {
                let factor = vdupq_n_f32(*left.as_ptr().add(at + i + r));
                for c in 0..C {
                    sums[r][c] = vfmaq_f32(sums[r][c], factor, line[c]);
                }
            }
        }
    }
    for r in 0..R {
        for c in 0..C {
            // SAFETY: as for the loads.
            unsafe { vst1q_f32(rows.add(r * dim + j + c * 4), sums[r][c]) };
        }
    }
}

/// The sums of `N` rows.
///
/// # Safety
/// Each of `rows` points to `query.len()` readable values.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn sums<const L2: bool, const N: usize>(query: &[f32], rows: [*const f32; N]) -> [f32; N] {
    let dim = query.len();
    let mut lanes = [[vdupq_n_f32(0.0); PARTS]; N];
    let mut at = 0;
    while at + LANES <= dim {
        for part in 0..PARTS {
            // SAFETY: `at + 32 <= dim` values of the query and of each row may be read.
            unsafe {
                let q = vld1q_f32(query.as_ptr().add(at + part * 4));
                for n in 0..N {
                    let row = vld1q_f32(rows[n].add(at + part * 4));
                    lanes[n][part] = step::<L2>(q, row, lanes[n][part]);
                }
            }
        }
        at += LANES;
    }
    if at < dim {
        // NEON has no masked load: the tail goes through zeroed blocks.
        let mut q = [0.0_f32; LANES];
        q[..dim - at].copy_from_slice(&query[at..]);
        for n in 0..N {
            let mut block = [0.0_f32; LANES];
            // SAFETY: `dim - at` values are left in the row, and fit in the block.
            unsafe {
                std::ptr::copy_nonoverlapping(rows[n].add(at), block.as_mut_ptr(), dim - at);
            }
            for part in 0..PARTS {
                // SAFETY: both blocks hold 32 values, and `part * 4 + 4 <= 32`.
                let (q, row) = unsafe {
                    (
                        vld1q_f32(q.as_ptr().add(part * 4)),
                        vld1q_f32(block.as_ptr().add(part * 4)),
                    )
                };
                lanes[n][part] = step::<L2>(q, row, lanes[n][part]);
            }
        }
    }
    lanes.map(|lanes| fold(lanes))
}

/// Folds 32 lanes by halves.
#[inline]
#[target_feature(enable = "neon")]
fn fold(lanes: [float32x4_t; PARTS]) -> f32 {
    let [a, b, c, d, e, f, g, h] = lanes;
    let sixteen = [
        vaddq_f32(a, e),
        vaddq_f32(b, f),
        vaddq_f32(c, g),
        vaddq_f32(d, h),
    ];
    let eight = [
        vaddq_f32(sixteen[0], sixteen[2]),
        vaddq_f32(sixteen[1], sixteen[3]),
    ];
    let four = vaddq_f32(eight[0], eight[1]);
    let two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
    vget_lane_f32::<0>(two) + vget_lane_f32::<1>(two)
}

#[inline]
#[target_feature(enable = "neon")]
fn step<const L2: bool>(query: float32x4_t, row: float32x4_t, sum: float32x4_t) -> float32x4_t {
    if L2 {
        let difference = vsubq_f32(query, row);
        vfmaq_f32(sum, difference, difference)
    } else {
        vfmaq_f32(sum, query, row)
    }
}

#[inline(always)]
fn signed<const L2: bool>(sum: f32) -> f32 {
    if L2 { -sum } else { sum }
}
