//! Codes with AVX2: sixteen codes widened and multiplied at a time, four rows folded together.

use std::arch::x86_64::*;

use super::{BLOCK, Simd, Task, sealed::Sealed};

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

impl Simd for Avx2 {
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
            let mut out = [0; R];
            if R == 4 {
                let folded = fold_four([sums[0], sums[1], sums[2], sums[3]]);
                _mm_storeu_si128(out.as_mut_ptr().cast(), folded);
            } else {
                for r in 0..R {
                    out[r] = fold(sums[r]);
                }
            }
            out
        }
    }
}

/// The sums of four registers, in order.
///
/// # Safety
/// The machine has AVX2.
#[inline(always)]
pub(super) unsafe fn fold_four([a, b, c, d]: [__m256i; 4]) -> __m128i {
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
pub(super) unsafe fn fold(sums: __m256i) -> i32 {
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
