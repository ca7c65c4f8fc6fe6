//! AVX-512: sixteen lanes a register, two registers a row, four rows at a time.
#![expect(
    clippy::needless_range_loop,
    reason = "registers are numbered: loops unroll"
)]

use std::arch::x86_64::*;

use crate::{
    LANES, PREFETCH_AHEAD, PREFETCH_LINES,
    avx2::{add_quarters, fold_quarter},
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

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
fn sum<const L2: bool>(a: &[f32], b: &[f32]) -> f32 {
    // SAFETY: the table's contract: `b` is as long as `a`.
    let [quarter] = unsafe { quarters::<L2, 1>(a, [b.as_ptr()]) };
    fold_quarter(quarter)
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
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
        let quarters = unsafe { quarters::<L2, 4>(query, quad.map(row)) };
        store_four::<L2>(add_quarters(quarters), &mut out[at * 4..]);
    }
    for (&id, out) in rest.iter().zip(&mut out[quads.len() * 4..]) {
        // SAFETY: as above.
        let [quarter] = unsafe { quarters::<L2, 1>(query, [row(id)]) };
        *out = signed::<L2>(fold_quarter(quarter));
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
fn score_rows<const L2: bool>(query: &[f32], rows: &[f32], out: &mut [f32]) {
    let dim = query.len();
    let row = |at: usize| rows.as_ptr().wrapping_add(at * dim);
    let whole = out.len() / 4 * 4;
    for at in (0..whole).step_by(4) {
        // SAFETY: the table's contract: `rows` holds `out.len()` rows of `dim`.
        let quarters =
            unsafe { quarters::<L2, 4>(query, [row(at), row(at + 1), row(at + 2), row(at + 3)]) };
        store_four::<L2>(add_quarters(quarters), &mut out[at..]);
    }
    for (at, out) in out.iter_mut().enumerate().skip(whole) {
        // SAFETY: as above.
        let [quarter] = unsafe { quarters::<L2, 1>(query, [row(at)]) };
        *out = signed::<L2>(fold_quarter(quarter));
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
fn axpy(alpha: f32, x: &[f32], y: &mut [f32]) {
    let len = x.len();
    let factor = _mm512_set1_ps(alpha);
    let mut at = 0;
    while at < len {
        let mask = tail_mask(len - at);
        // SAFETY: the mask lets only the values in `at..len` be read and written, and both slices
        // are `len` long (the table's contract).
        unsafe {
            let sum = _mm512_fmadd_ps(
                factor,
                _mm512_maskz_loadu_ps(mask, x.as_ptr().add(at)),
                _mm512_maskz_loadu_ps(mask, y.as_ptr().add(at)),
            );
            _mm512_mask_storeu_ps(y.as_mut_ptr().add(at), mask, sum);
        }
        at += 16;
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
fn add_ids(weights: &[f32], rows: &[f32], ids: &[u32], out: &mut [f32]) {
    let dim = out.len();
    let mut at = 0;
    while at < dim {
        // SAFETY: the table's contract: every id is a whole row of `rows`; columns up to `dim` are left.
        at += unsafe {
            match dim - at {
                64.. => add_strip::<4>(weights, rows, ids, at, out),
                32.. => add_strip::<2>(weights, rows, ids, at, out),
                _ => add_strip::<1>(weights, rows, ids, at, out),
            }
        };
    }
}

/// `16 R` columns of a weighted sum of rows from column `at` on, fewer at the end. Returns `16 R`.
///
/// # Safety
/// Every id is a whole row of `out.len()` values in `rows`, `weights` has one value an id, and column
/// `at + 16 (R - 1)` is before `out.len()`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
unsafe fn add_strip<const R: usize>(
    weights: &[f32],
    rows: &[f32],
    ids: &[u32],
    at: usize,
    out: &mut [f32],
) -> usize {
    let dim = out.len();
    let mut masks = [0; R];
    let mut sums = [_mm512_setzero_ps(); R];
    // SAFETY: the masks let only columns before `dim` be read and written; rows are inside `rows` by the
    // contract.
    unsafe {
        let place = out.as_mut_ptr().add(at);
        for r in 0..R {
            masks[r] = tail_mask(dim - at - r * 16);
            sums[r] = _mm512_maskz_loadu_ps(masks[r], place.add(r * 16));
        }
        for (&weight, &id) in weights.iter().zip(ids) {
            let row = rows.as_ptr().add(id as usize * dim + at);
            let factor = _mm512_set1_ps(weight);
            for r in 0..R {
                let values = _mm512_maskz_loadu_ps(masks[r], row.add(r * 16));
                sums[r] = _mm512_fmadd_ps(factor, values, sums[r]);
            }
        }
        for r in 0..R {
            _mm512_mask_storeu_ps(place.add(r * 16), masks[r], sums[r]);
        }
    }
    R * 16
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
fn rank_update(dim: usize, first: usize, left: &[f32], right: &[f32], upper: &mut [f32]) {
    let rows = upper.len() / dim;
    let mut at = 0;
    while at < rows {
        let below = &mut upper[at * dim..];
        // SAFETY: the table's contract: `left` and `right` are as long and of whole rows, and row
        // `first + at` of the matrix exists; `below` holds as many rows as each arm takes.
        at += unsafe {
            match rows - at {
                8.. => strip::<8>(dim, first + at, left, right, below),
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
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
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
            if dim - j > 16 {
                tile::<R, 2>(dim, i, j, left, right, rows);
                j += 32;
            } else {
                tile::<R, 1>(dim, i, j, left, right, rows);
                j += 16;
            }
        }
    }
    R
}

/// `R` rows by `C` registers of a rank update: loaded once, stored once.
///
/// # Safety
/// As for [`strip`], and column `j + 16 (C - 1)` is before `dim`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
unsafe fn tile<const R: usize, const C: usize>(
    dim: usize,
    i: usize,
    j: usize,
    left: &[f32],
    right: &[f32],
    rows: &mut [f32],
) {
    let rows = rows.as_mut_ptr();
    let mut masks = [0; C];
    let mut sums = [[_mm512_setzero_ps(); C]; R];
    for c in 0..C {
        masks[c] = tail_mask(dim - j - c * 16);
        for r in 0..R {
            // SAFETY: the mask lets only columns before `dim` be read.
            sums[r][c] = unsafe { _mm512_maskz_loadu_ps(masks[c], rows.add(r * dim + j + c * 16)) };
        }
    }
    for at in (0..left.len()).step_by(dim) {
        let mut line = [_mm512_setzero_ps(); C];
        // SAFETY: `at` starts a row of `left` and `right`; `i + R <= dim`, and the masks let only
        // columns before `dim` be read.
        unsafe {
            for c in 0..C {
                line[c] = _mm512_maskz_loadu_ps(masks[c], right.as_ptr().add(at + j + c * 16));
            }
            for r in 0..R {
                let factor = _mm512_set1_ps(*left.as_ptr().add(at + i + r));
                for c in 0..C {
                    sums[r][c] = _mm512_fmadd_ps(factor, line[c], sums[r][c]);
                }
            }
        }
    }
    for r in 0..R {
        for c in 0..C {
            // SAFETY: the mask lets only columns before `dim` be written.
            unsafe {
                _mm512_mask_storeu_ps(rows.add(r * dim + j + c * 16), masks[c], sums[r][c]);
            }
        }
    }
}

/// The canonical lanes of `N` rows folded from 32 to 4.
///
/// # Safety
/// Each of `rows` points to `query.len()` readable values.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
unsafe fn quarters<const L2: bool, const N: usize>(
    query: &[f32],
    rows: [*const f32; N],
) -> [__m128; N] {
    let dim = query.len();
    let query = query.as_ptr();
    let mut low = [_mm512_setzero_ps(); N];
    let mut high = [_mm512_setzero_ps(); N];
    let mut at = 0;
    while at + LANES <= dim {
        // SAFETY: `at + 32 <= dim` values of the query and of each row may be read.
        unsafe {
            let q_low = _mm512_loadu_ps(query.add(at));
            let q_high = _mm512_loadu_ps(query.add(at + 16));
            for n in 0..N {
                let row = rows[n].add(at);
                low[n] = step::<L2>(q_low, _mm512_loadu_ps(row), low[n]);
                high[n] = step::<L2>(q_high, _mm512_loadu_ps(row.add(16)), high[n]);
            }
        }
        at += LANES;
    }
    if at < dim {
        let mask_low = tail_mask(dim - at);
        let mask_high = tail_mask((dim - at).saturating_sub(16));
        let next = (at + 16).min(dim);
        // SAFETY: the masks let only values before `dim` be read.
        unsafe {
            let q_low = _mm512_maskz_loadu_ps(mask_low, query.add(at));
            let q_high = _mm512_maskz_loadu_ps(mask_high, query.add(next));
            for n in 0..N {
                let row_low = _mm512_maskz_loadu_ps(mask_low, rows[n].add(at));
                let row_high = _mm512_maskz_loadu_ps(mask_high, rows[n].add(next));
                low[n] = step::<L2>(q_low, row_low, low[n]);
                high[n] = step::<L2>(q_high, row_high, high[n]);
            }
        }
    }
    let mut out = [_mm_setzero_ps(); N];
    for n in 0..N {
        let sixteen = _mm512_add_ps(low[n], high[n]);
        let eight = _mm256_add_ps(
            _mm512_castps512_ps256(sixteen),
            _mm512_extractf32x8_ps::<1>(sixteen),
        );
        out[n] = _mm_add_ps(
            _mm256_castps256_ps128(eight),
            _mm256_extractf128_ps::<1>(eight),
        );
    }
    out
}

#[inline]
#[target_feature(enable = "avx512f")]
fn step<const L2: bool>(query: __m512, row: __m512, sum: __m512) -> __m512 {
    if L2 {
        let difference = _mm512_sub_ps(query, row);
        _mm512_fmadd_ps(difference, difference, sum)
    } else {
        _mm512_fmadd_ps(query, row, sum)
    }
}

/// The mask of the first `left` (at most 16) lanes.
#[inline(always)]
fn tail_mask(left: usize) -> __mmask16 {
    if left >= 16 { !0 } else { (1 << left) - 1 }
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
