//! Codes with AVX2: sixteen codes widened and multiplied at a time, four rows folded together.

use std::arch::x86_64::*;

use super::{BLOCK, NIBBLES, Simd, Task, WIDE, check_sorted, sealed::Sealed};

/// AVX2 and FMA.
#[derive(Clone, Copy, Debug)]
pub(super) struct Avx2(());

impl Sealed for Avx2 {}

/// # Safety
/// The machine has AVX2 and FMA.
#[target_feature(enable = "avx2,fma,bmi1,bmi2,popcnt,lzcnt")]
pub(super) unsafe fn run<T: Task>(task: T) -> T::Output {
    task.run(Avx2(()))
}

/// As [`run`], never inlined.
///
/// # Safety
/// As of [`run`].
#[inline(never)]
#[target_feature(enable = "avx2,fma,bmi1,bmi2,popcnt,lzcnt")]
unsafe fn apart<T: Task>(task: T) -> T::Output {
    task.run(Avx2(()))
}

impl Simd for Avx2 {
    #[inline(always)]
    fn apart<T: Task>(self, task: T) -> T::Output {
        // SAFETY: a value of `Avx2` is only made where the machine has it.
        unsafe { apart(task) }
    }

    #[inline(always)]
    unsafe fn sums<const R: usize>(
        self,
        blocks: usize,
        query: *const i16,
        rows: [*const i8; R],
    ) -> [i32; R] {
        // SAFETY: a value of `Avx2` is only made where the machine has it; pointers by the
        // caller's contract.
        unsafe {
            let mut sums = [_mm256_setzero_si256(); R];
            for block in 0..blocks {
                let at = block * BLOCK;
                let low = _mm256_loadu_si256(query.add(at).cast());
                let high = _mm256_loadu_si256(query.add(at + 16).cast());
                for r in 0..R {
                    let codes = rows[r].add(at);
                    let a = _mm256_cvtepi8_epi16(_mm_loadu_si128(codes.cast()));
                    let b = _mm256_cvtepi8_epi16(_mm_loadu_si128(codes.add(16).cast()));
                    let pairs =
                        _mm256_add_epi32(_mm256_madd_epi16(low, a), _mm256_madd_epi16(high, b));
                    sums[r] = _mm256_add_epi32(sums[r], pairs);
                }
            }
            fold_all(sums)
        }
    }

    #[inline(always)]
    fn not_below(self, scores: &[f32; WIDE], bar: f32) -> u32 {
        // SAFETY: a value of `Avx2` is only made where the machine has it; sixteen scores are two registers.
        unsafe {
            let bar = _mm256_set1_ps(bar);
            let low = _mm256_loadu_ps(scores.as_ptr());
            let high = _mm256_loadu_ps(scores.as_ptr().add(8));
            let low = _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_NLT_UQ>(low, bar));
            let high = _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_NLT_UQ>(high, bar));
            (high << 8 | low).cast_unsigned()
        }
    }

    #[inline(always)]
    fn greatest<const V: usize>(self, rows: &[[f32; WIDE]], stride: usize) -> [[f32; WIDE]; V] {
        assert!(stride > 0, "the same rows again and again");
        // SAFETY: a value of `Avx2` is only made where the machine has it; a row is two registers.
        unsafe {
            let mut greatest = [[_mm256_set1_ps(f32::NEG_INFINITY); 2]; V];
            for at in (0..rows.len()).step_by(stride) {
                for (v, row) in rows.get(at..at + V).unwrap_or_default().iter().enumerate() {
                    let [low, high] = &mut greatest[v];
                    // Of what is not a number and another it takes the second.
                    *low = _mm256_max_ps(_mm256_loadu_ps(row.as_ptr()), *low);
                    *high = _mm256_max_ps(_mm256_loadu_ps(row.as_ptr().add(8)), *high);
                }
            }
            let mut out = [[0.0; WIDE]; V];
            for v in 0..V {
                let [low, high] = greatest[v];
                _mm256_storeu_ps(out[v].as_mut_ptr(), low);
                _mm256_storeu_ps(out[v].as_mut_ptr().add(8), high);
            }
            out
        }
    }

    #[inline(always)]
    fn insert(self, sorted: &mut [u64], limit: usize, item: u64) -> usize {
        check_sorted(sorted, limit);
        // SAFETY: a value of `Avx2` is only made where the machine has it.
        unsafe { insert(sorted, limit, item) }
    }

    #[inline(always)]
    unsafe fn nibble_sums<const R: usize>(
        self,
        blocks: usize,
        query: *const i8,
        rows: [*const i8; R],
    ) -> [i32; R] {
        // SAFETY: a value of `Avx2` is only made where the machine has it; pointers by the
        // caller's contract.
        unsafe { nibble_sums(blocks, query, rows) }
    }
}

/// Blocks whose products are summed in sixteen bits: each adds four of at most 15 · 127.
const NARROW: usize = 4;

/// [`Simd::nibble_sums`] with AVX2.
///
/// # Safety
/// The machine has AVX2, and as there.
#[inline(always)]
pub(super) unsafe fn nibble_sums<const R: usize>(
    blocks: usize,
    query: *const i8,
    rows: [*const i8; R],
) -> [i32; R] {
    // SAFETY: the caller's contract.
    unsafe {
        let low_half = _mm256_set1_epi8(15);
        let ones = _mm256_set1_epi16(1);
        let mut sums = [_mm256_setzero_si256(); R];
        let mut first = 0;
        while first < blocks {
            let end = blocks.min(first + NARROW);
            let mut narrow = [_mm256_setzero_si256(); R];
            for block in first..end {
                let low = _mm256_loadu_si256(query.add(block * NIBBLES).cast());
                let high = _mm256_loadu_si256(query.add(block * NIBBLES + BLOCK).cast());
                for r in 0..R {
                    let bytes = _mm256_loadu_si256(rows[r].add(block * BLOCK).cast());
                    let a = _mm256_and_si256(bytes, low_half);
                    let b = _mm256_and_si256(_mm256_srli_epi16::<4>(bytes), low_half);
                    let pairs = _mm256_add_epi16(
                        _mm256_maddubs_epi16(a, low),
                        _mm256_maddubs_epi16(b, high),
                    );
                    narrow[r] = _mm256_add_epi16(narrow[r], pairs);
                }
            }
            for r in 0..R {
                sums[r] = _mm256_add_epi32(sums[r], _mm256_madd_epi16(narrow[r], ones));
            }
            first = end;
        }
        fold_all(sums)
    }
}

/// Values of 64 bits in a register.
const LANES: usize = 4;

/// Registers that [`Simd::insert`] goes through whole, as with AVX-512: what takes the loop from the end 18, 24 and 32 ns in
/// 16, 32 and 64 places takes 10, 16 and 26.
const THROUGH: usize = 16;

/// [`Simd::insert`] as with AVX-512, four values at a time.
#[inline(never)]
#[target_feature(enable = "avx2,fma,bmi1,bmi2,popcnt,lzcnt")]
fn insert(sorted: &mut [u64], limit: usize, item: u64) -> usize {
    // There is only a comparison of signed integers: with the top bit turned over it is that of unsigned ones.
    let turn = _mm256_set1_epi64x(i64::MIN);
    let items = _mm256_set1_epi64x(item.cast_signed());
    let turned = _mm256_xor_si256(items, turn);
    let less = |values| _mm256_cmpgt_epi64(turned, _mm256_xor_si256(values, turn));
    // The last value comes first.
    let rotated = |values| _mm256_permute4x64_epi64::<0b10_01_00_11>(values);
    // Of what is at each place before, the first comes from the register before.
    let first_of = |others, earlier| _mm256_blend_epi32::<0b11>(others, earlier);
    // What is less stays; the first that is not becomes the item, all others what is before them.
    let moved = |here, here_less, before, before_less| {
        let moved = _mm256_blendv_epi8(before, items, before_less);
        _mm256_blendv_epi8(moved, here, here_less)
    };
    // Places from the limit on stand for nothing: all bits.
    let ones = _mm256_set1_epi64x(-1);
    let cut = |at: usize, values| {
        let kept = limit.saturating_sub(at * LANES).min(LANES);
        let kept = _mm256_set1_epi64x(kept.cast_signed() as i64);
        let within = _mm256_cmpgt_epi64(kept, _mm256_set_epi64x(3, 2, 1, 0));
        _mm256_or_si256(values, _mm256_xor_si256(within, ones))
    };
    let (chunks, _) = sorted.as_chunks_mut::<LANES>();
    // SAFETY: a chunk is a register.
    let load = |chunk: &[u64; LANES]| unsafe { _mm256_loadu_si256(chunk.as_ptr().cast()) };
    let store = |chunk: &mut [u64; LANES], values| {
        // SAFETY: a chunk is a register.
        unsafe { _mm256_storeu_si256(chunk.as_mut_ptr().cast(), values) };
    };
    let zeros = _mm256_setzero_si256();
    if chunks.len() <= THROUGH {
        // Before the first is what is less than anything.
        let (mut earlier, mut earlier_less, mut smaller) = (zeros, ones, zeros);
        for (at, chunk) in chunks.iter_mut().enumerate() {
            let here = load(chunk);
            let here_less = less(here);
            let (shifted, shifted_less) = (rotated(here), rotated(here_less));
            let before = first_of(shifted, earlier);
            let before_less = first_of(shifted_less, earlier_less);
            let mut after = moved(here, here_less, before, before_less);
            if (at + 1) * LANES > limit {
                after = cut(at, after);
            }
            store(chunk, after);
            smaller = _mm256_sub_epi64(smaller, here_less);
            (earlier, earlier_less) = (shifted, shifted_less);
        }
        let high = _mm256_extracti128_si256::<1>(smaller);
        let two = _mm_add_epi64(_mm256_castsi256_si128(smaller), high);
        let smaller = _mm_cvtsi128_si64(two) + _mm_extract_epi64::<1>(two);
        return usize::try_from(smaller).unwrap_or_default(); // never: as many as there are places at most
    }
    let mut at = chunks.len() - 1;
    let mut here = load(&chunks[at]);
    loop {
        let earlier = at.checked_sub(1).map_or(zeros, |at| load(&chunks[at]));
        let before = first_of(rotated(here), rotated(earlier));
        let here_less = less(here);
        let after = cut(at, moved(here, here_less, before, less(before)));
        store(&mut chunks[at], after);
        let smaller = _mm256_movemask_pd(_mm256_castsi256_pd(here_less));
        // The lowest of them is less, and so are all before; or there is none.
        if smaller & 1 != 0 || at == 0 {
            return at * LANES + smaller.count_ones() as usize;
        }
        (here, at) = (earlier, at - 1);
    }
}

/// The sum of each register.
///
/// # Safety
/// The machine has AVX2.
#[inline(always)]
pub(super) unsafe fn fold_all<const R: usize>(sums: [__m256i; R]) -> [i32; R] {
    let mut out = [0; R];
    // SAFETY: the caller's contract; `out` has room for four where there are four.
    unsafe {
        if R == 4 {
            let folded = fold_four([sums[0], sums[1], sums[2], sums[3]]);
            _mm_storeu_si128(out.as_mut_ptr().cast(), folded);
        } else {
            for r in 0..R {
                out[r] = fold(sums[r]);
            }
        }
    }
    out
}

/// The sums of four registers, in order.
///
/// # Safety
/// The machine has AVX2.
#[inline(always)]
unsafe fn fold_four([a, b, c, d]: [__m256i; 4]) -> __m128i {
    // SAFETY: the caller's contract.
    unsafe {
        let ab = _mm256_hadd_epi32(a, b);
        let cd = _mm256_hadd_epi32(c, d);
        let abcd = _mm256_hadd_epi32(ab, cd);
        _mm_add_epi32(
            _mm256_castsi256_si128(abcd),
            _mm256_extracti128_si256::<1>(abcd),
        )
    }
}

/// The sum of a register.
///
/// # Safety
/// The machine has AVX2.
#[inline(always)]
unsafe fn fold(sums: __m256i) -> i32 {
    // SAFETY: the caller's contract.
    unsafe {
        let half = _mm_add_epi32(
            _mm256_castsi256_si128(sums),
            _mm256_extracti128_si256::<1>(sums),
        );
        let quarter = _mm_add_epi32(half, _mm_shuffle_epi32::<0b00_00_11_10>(half));
        let eighth = _mm_add_epi32(quarter, _mm_shuffle_epi32::<0b00_00_00_01>(quarter));
        _mm_cvtsi128_si32(eighth)
    }
}
