//! AVX2 with FMA: eight lanes a register, four registers a row, two rows at a time.
#![expect(
    clippy::needless_range_loop,
    reason = "registers are numbered: loops unroll"
)]

use std::arch::x86_64::*;

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

#[target_feature(enable = "avx2,fma")]
fn sum<const L2: bool>(a: &[f32], b: &[f32]) -> f32 {
    // SAFETY: the table's contract: `b` is as long as `a`.
    let [quarter] = unsafe { quarters::<L2, 1>(a, [b.as_ptr()]) };
    fold_quarter(quarter)
}

#[target_feature(enable = "avx2,fma")]
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
    let (quads, rest) = ids.as_chunks::<4>();
    for (at, quad) in quads.iter().enumerate() {
        let ahead = (at * 4 + PREFETCH_AHEAD).min(ids.len());
        request(&ids[ahead..(ahead + 4).min(ids.len())]);
        // SAFETY: the table's contract: every id is a whole row of `rows`.
        let sums = unsafe { four_rows::<L2>(query, quad.map(row)) };
        store_four::<L2>(sums, &mut out[at * 4..]);
    }
    for (&id, out) in rest.iter().zip(&mut out[quads.len() * 4..]) {
        // SAFETY: as above.
        let [quarter] = unsafe { quarters::<L2, 1>(query, [row(id)]) };
        *out = signed::<L2>(fold_quarter(quarter));
    }
}

#[target_feature(enable = "avx2,fma")]
fn score_rows<const L2: bool>(query: &[f32], rows: &[f32], out: &mut [f32]) {
    let dim = query.len();
    let row = |at: usize| rows.as_ptr().wrapping_add(at * dim);
    let whole = out.len() / 4 * 4;
    for at in (0..whole).step_by(4) {
        // SAFETY: the table's contract: `rows` holds `out.len()` rows of `dim`.
        let sums =
            unsafe { four_rows::<L2>(query, [row(at), row(at + 1), row(at + 2), row(at + 3)]) };
        store_four::<L2>(sums, &mut out[at..]);
    }
    for (at, out) in out.iter_mut().enumerate().skip(whole) {
        // SAFETY: as above.
        let [quarter] = unsafe { quarters::<L2, 1>(query, [row(at)]) };
        *out = signed::<L2>(fold_quarter(quarter));
    }
}

#[target_feature(enable = "avx2,fma")]
fn axpy(alpha: f32, x: &[f32], y: &mut [f32]) {
    let factor = _mm256_set1_ps(alpha);
    let (x_blocks, x_tail) = x.as_chunks::<8>();
    let (y_blocks, y_tail) = y.as_chunks_mut::<8>();
    for (x, y) in x_blocks.iter().zip(y_blocks) {
        // SAFETY: both are arrays of eight.
        unsafe {
            let sum = _mm256_fmadd_ps(
                factor,
                _mm256_loadu_ps(x.as_ptr()),
                _mm256_loadu_ps(y.as_ptr()),
            );
            _mm256_storeu_ps(y.as_mut_ptr(), sum);
        }
    }
    for (x, y) in x_tail.iter().zip(y_tail) {
        *y = alpha.mul_add(*x, *y);
    }
}

#[target_feature(enable = "avx2,fma")]
fn add_ids(weights: &[f32], rows: &[f32], ids: &[u32], out: &mut [f32]) {
    let dim = out.len();
    let mut at = 0;
    while at < dim {
        // SAFETY: the table's contract: every id is a whole row of `rows`; columns up to `dim` are left.
        at += unsafe {
            match dim - at {
                64.. => add_strip::<8>(weights, rows, ids, at, out),
                32.. => add_strip::<4>(weights, rows, ids, at, out),
                _ => add_strip::<1>(weights, rows, ids, at, out),
            }
        };
    }
}

/// `8 R` columns of a weighted sum of rows from column `at` on, fewer at the end. Returns `8 R`.
///
/// # Safety
/// Every id is a whole row of `out.len()` values in `rows`, `weights` has one value an id, and column
/// `at + 8 (R - 1)` is before `out.len()`.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn add_strip<const R: usize>(
    weights: &[f32],
    rows: &[f32],
    ids: &[u32],
    at: usize,
    out: &mut [f32],
) -> usize {
    let dim = out.len();
    let mask = tail_mask(dim - at - (R - 1) * 8);
    let mut sums = [_mm256_setzero_ps(); R];
    // SAFETY: all registers but the last are whole by the contract; the mask lets only columns before
    // `dim` of it be read and written. Rows are inside `rows` by the contract.
    unsafe {
        let place = out.as_mut_ptr().add(at);
        for r in 0..R {
            sums[r] = match r + 1 == R {
                true => _mm256_maskload_ps(place.add(r * 8), mask),
                false => _mm256_loadu_ps(place.add(r * 8)),
            };
        }
        for (&weight, &id) in weights.iter().zip(ids) {
            let row = rows.as_ptr().add(id as usize * dim + at);
            let factor = _mm256_set1_ps(weight);
            for r in 0..R {
                let values = match r + 1 == R {
                    true => _mm256_maskload_ps(row.add(r * 8), mask),
                    false => _mm256_loadu_ps(row.add(r * 8)),
                };
                sums[r] = _mm256_fmadd_ps(factor, values, sums[r]);
            }
        }
        for r in 0..R {
            match r + 1 == R {
                true => _mm256_maskstore_ps(place.add(r * 8), mask, sums[r]),
                false => _mm256_storeu_ps(place.add(r * 8), sums[r]),
            }
        }
    }
    R * 8
}

#[target_feature(enable = "avx2,fma")]
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

/// Rows `i..i + R` of a rank update, in tiles of two registers a row. Returns `R`.
///
/// # Safety
/// `left` and `right` are as long, in whole rows of `dim`; `rows` starts with row `i` of the matrix
/// and holds `R` rows of `dim`; `i + R <= dim`.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn strip<const R: usize>(
    dim: usize,
    i: usize,
    left: &[f32],
    right: &[f32],
    rows: &mut [f32],
) -> usize {
    let mut j = i;
    while j < dim {
        // SAFETY: handed on; the second register of a pair starts before `dim`.
        unsafe {
            if dim - j > 8 {
                tile::<R, 2>(dim, i, j, left, right, rows);
                j += 16;
            } else {
                tile::<R, 1>(dim, i, j, left, right, rows);
                j += 8;
            }
        }
    }
    R
}

/// `R` rows by `C` registers of a rank update: loaded once, stored once.
///
/// # Safety
/// As for [`strip`], and column `j + 8 (C - 1)` is before `dim`.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn tile<const R: usize, const C: usize>(
    dim: usize,
    i: usize,
    j: usize,
    left: &[f32],
    right: &[f32],
    rows: &mut [f32],
) {
    let rows = rows.as_mut_ptr();
    let mut masks = [_mm256_setzero_si256(); C];
    let mut sums = [[_mm256_setzero_ps(); C]; R];
    for c in 0..C {
        masks[c] = tail_mask(dim - j - c * 8);
        for r in 0..R {
            // SAFETY: the mask lets only columns before `dim` be read.
            sums[r][c] = unsafe { _mm256_maskload_ps(rows.add(r * dim + j + c * 8), masks[c]) };
        }
    }
    for at in (0..left.len()).step_by(dim) {
        let mut line = [_mm256_setzero_ps(); C];
        // SAFETY: `at` starts a row of `left` and `right`; `i + R <= dim`, and the masks let only
        // columns before `dim` be read.
        unsafe {
            for c in 0..C {
                line[c] = _mm256_maskload_ps(right.as_ptr().add(at + j + c * 8), masks[c]);
            }
            for r in 0..R {
                let factor = _mm256_set1_ps(*left.as_ptr().add(at + i + r));
                for c in 0..C {
                    sums[r][c] = _mm256_fmadd_ps(factor, line[c], sums[r][c]);
                }
            }
        }
    }
    for r in 0..R {
        for c in 0..C {
            // SAFETY: the mask lets only columns before `dim` be written.
            unsafe {
                _mm256_maskstore_ps(rows.add(r * dim + j + c * 8), masks[c], sums[r][c]);
            }
        }
    }
}

/// Four rows in two pairs: sixteen registers hold two rows' sums, not four.
///
/// # Safety
/// Each of `rows` points to `query.len()` readable values.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn four_rows<const L2: bool>(query: &[f32], rows: [*const f32; 4]) -> __m128 {
    // SAFETY: handed on.
    unsafe {
        let [a, b] = quarters::<L2, 2>(query, [rows[0], rows[1]]);
        let [c, d] = quarters::<L2, 2>(query, [rows[2], rows[3]]);
        add_quarters([a, b, c, d])
    }
}

/// The canonical lanes of `N` rows folded from 32 to 4.
///
/// # Safety
/// Each of `rows` points to `query.len()` readable values.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn quarters<const L2: bool, const N: usize>(
    query: &[f32],
    rows: [*const f32; N],
) -> [__m128; N] {
    let dim = query.len();
    let query = query.as_ptr();
    let mut sums = [[_mm256_setzero_ps(); 4]; N];
    let mut at = 0;
    while at + LANES <= dim {
        for part in 0..4 {
            // SAFETY: `at + 32 <= dim` values of the query and of each row may be read.
            unsafe {
                let q = _mm256_loadu_ps(query.add(at + part * 8));
                for n in 0..N {
                    let row = _mm256_loadu_ps(rows[n].add(at + part * 8));
                    sums[n][part] = step::<L2>(q, row, sums[n][part]);
                }
            }
        }
        at += LANES;
    }
    if at < dim {
        for part in 0..4 {
            let start = (at + part * 8).min(dim);
            let mask = tail_mask(dim - start);
            // SAFETY: the mask lets only values before `dim` be read.
            unsafe {
                let q = _mm256_maskload_ps(query.add(start), mask);
                for n in 0..N {
                    let row = _mm256_maskload_ps(rows[n].add(start), mask);
                    sums[n][part] = step::<L2>(q, row, sums[n][part]);
                }
            }
        }
    }
    let mut out = [_mm_setzero_ps(); N];
    for n in 0..N {
        let [a, b, c, d] = sums[n];
        let eight = _mm256_add_ps(_mm256_add_ps(a, c), _mm256_add_ps(b, d));
        out[n] = _mm_add_ps(
            _mm256_castps256_ps128(eight),
            _mm256_extractf128_ps::<1>(eight),
        );
    }
    out
}

/// Folds the last four lanes of one row.
#[inline]
#[target_feature(enable = "avx2")]
pub(crate) fn fold_quarter(lanes: __m128) -> f32 {
    let two = _mm_add_ps(lanes, _mm_movehl_ps(lanes, lanes));
    _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
}

/// Folds the last four lanes of four rows at once, by a transposition.
#[inline]
#[target_feature(enable = "avx2")]
pub(crate) fn add_quarters([a, b, c, d]: [__m128; 4]) -> __m128 {
    let ab = _mm_add_ps(_mm_unpacklo_ps(a, b), _mm_unpackhi_ps(a, b));
    let cd = _mm_add_ps(_mm_unpacklo_ps(c, d), _mm_unpackhi_ps(c, d));
    _mm_add_ps(_mm_movelh_ps(ab, cd), _mm_movehl_ps(cd, ab))
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn step<const L2: bool>(query: __m256, row: __m256, sum: __m256) -> __m256 {
    if L2 {
        let difference = _mm256_sub_ps(query, row);
        _mm256_fmadd_ps(difference, difference, sum)
    } else {
        _mm256_fmadd_ps(query, row, sum)
    }
}

/// The mask of the first `left` (at most 8) lanes.
#[inline]
#[target_feature(enable = "avx2")]
fn tail_mask(left: usize) -> __m256i {
    static WINDOW: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];
    let window = &WINDOW[8 - left.min(8)..][..8];
    // SAFETY: `window` has eight values.
    unsafe { _mm256_loadu_si256(window.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2")]
fn store_four<const L2: bool>(sums: __m128, out: &mut [f32]) {
    let scores = if L2 {
        _mm_xor_ps(sums, _mm_set1_ps(-0.0))
    } else {
        sums
    };
    let out = &mut out[..4];
    // SAFETY: `out` has four places.
    unsafe { _mm_storeu_ps(out.as_mut_ptr(), scores) }
}

#[inline(always)]
fn signed<const L2: bool>(sum: f32) -> f32 {
    if L2 { -sum } else { sum }
}
