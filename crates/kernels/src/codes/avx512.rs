//! Codes with AVX-512 BW: a block a register.

use std::arch::x86_64::*;

use super::{
    BLOCK, Simd, Task,
    avx2::{fold_all, nibble_sums},
    sealed::Sealed,
};

/// AVX-512 F, BW, DQ and VL.
#[derive(Clone, Copy, Debug)]
pub(super) struct Avx512(());

impl Sealed for Avx512 {}

/// # Safety
/// The machine has AVX-512 F, BW, DQ and VL, AVX2 and FMA.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,bmi1,bmi2,popcnt,lzcnt")]
pub(super) unsafe fn run<T: Task>(task: T) -> T::Output {
    task.run(Avx512(()))
}

impl Simd for Avx512 {
    #[inline(always)]
    unsafe fn sums<const R: usize>(
        self,
        blocks: usize,
        query: *const i16,
        rows: [*const i8; R],
    ) -> [i32; R] {
        // SAFETY: a value of `Avx512` is only made where the machine has it; pointers by the
        // caller's contract.
        unsafe {
            let mut sums = [_mm512_setzero_si512(); R];
            for block in 0..blocks {
                let at = block * BLOCK;
                let query = _mm512_loadu_si512(query.add(at).cast());
                for r in 0..R {
                    let codes = _mm256_loadu_si256(rows[r].add(at).cast());
                    let pairs = _mm512_madd_epi16(query, _mm512_cvtepi8_epi16(codes));
                    sums[r] = _mm512_add_epi32(sums[r], pairs);
                }
            }
            // Loops, not closures: those would be compiled without the instruction set.
            let mut halves = [_mm256_setzero_si256(); R];
            for r in 0..R {
                halves[r] = _mm256_add_epi32(
                    _mm512_castsi512_si256(sums[r]),
                    _mm512_extracti64x4_epi64::<1>(sums[r]),
                );
            }
            fold_all(halves)
        }
    }

    // A row of nibbles is a cache line: wider registers would stand half empty.
    #[inline(always)]
    unsafe fn nibble_sums<const R: usize>(
        self,
        blocks: usize,
        query: *const i8,
        rows: [*const i8; R],
    ) -> [i32; R] {
        // SAFETY: a machine with AVX-512 has AVX2; pointers by the caller's contract.
        unsafe { nibble_sums(blocks, query, rows) }
    }
}
