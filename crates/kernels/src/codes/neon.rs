//! Codes with NEON: eight codes widened and multiplied at a time.

use std::arch::aarch64::*;

use super::{BLOCK, NIBBLES, Simd, Task, sealed::Sealed};

/// NEON.
#[derive(Clone, Copy, Debug)]
pub(super) struct Neon(());

impl Sealed for Neon {}

/// # Safety
/// The machine has NEON.
#[target_feature(enable = "neon")]
pub(super) unsafe fn run<T: Task>(task: T) -> T::Output {
    task.run(Neon(()))
}

/// As [`run`], never inlined.
///
/// # Safety
/// As of [`run`].
#[inline(never)]
#[target_feature(enable = "neon")]
unsafe fn apart<T: Task>(task: T) -> T::Output {
    task.run(Neon(()))
}

impl Simd for Neon {
    #[inline(always)]
    fn apart<T: Task>(self, task: T) -> T::Output {
        // SAFETY: a value of `Neon` is only made where the machine has it.
        unsafe { apart(task) }
    }

    #[inline(always)]
    unsafe fn sums<const R: usize>(
        self,
        blocks: usize,
        query: *const i16,
        rows: [*const i8; R],
    ) -> [i32; R] {
        // SAFETY: a value of `Neon` is only made where the machine has it; pointers by the
        // caller's contract.
        unsafe {
            let mut sums = [vdupq_n_s32(0); R];
            for at in (0..blocks * BLOCK).step_by(8) {
                let query = vld1q_s16(query.add(at));
                for r in 0..R {
                    let codes = vmovl_s8(vld1_s8(rows[r].add(at)));
                    sums[r] = vmlal_s16(sums[r], vget_low_s16(query), vget_low_s16(codes));
                    sums[r] = vmlal_high_s16(sums[r], query, codes);
                }
            }
            // A loop, not a closure: that would be compiled without the instruction set.
            let mut out = [0; R];
            for r in 0..R {
                out[r] = vaddvq_s32(sums[r]);
            }
            out
        }
    }

    #[inline(always)]
    unsafe fn nibble_sums<const R: usize>(
        self,
        blocks: usize,
        query: *const i8,
        rows: [*const i8; R],
    ) -> [i32; R] {
        // SAFETY: a value of `Neon` is only made where the machine has it; pointers by the
        // caller's contract.
        unsafe {
            let low_half = vdupq_n_u8(15);
            let mut sums = [vdupq_n_s32(0); R];
            for block in 0..blocks {
                for half in (0..BLOCK).step_by(16) {
                    let low = vld1q_s8(query.add(block * NIBBLES + half));
                    let high = vld1q_s8(query.add(block * NIBBLES + BLOCK + half));
                    for r in 0..R {
                        let bytes = vld1q_u8(rows[r].add(block * BLOCK + half).cast());
                        let a = vreinterpretq_s8_u8(vandq_u8(bytes, low_half));
                        let b = vreinterpretq_s8_u8(vshrq_n_u8::<4>(bytes));
                        // Four products of at most 15 · 127 to a sum: sixteen bits hold them.
                        let mut pairs = vmull_s8(vget_low_s8(a), vget_low_s8(low));
                        pairs = vmlal_high_s8(pairs, a, low);
                        pairs = vmlal_s8(pairs, vget_low_s8(b), vget_low_s8(high));
                        pairs = vmlal_high_s8(pairs, b, high);
                        sums[r] = vpadalq_s16(sums[r], pairs);
                    }
                }
            }
            // A loop, not a closure: that would be compiled without the instruction set.
            let mut out = [0; R];
            for r in 0..R {
                out[r] = vaddvq_s32(sums[r]);
            }
            out
        }
    }
}
