//! Codes with NEON: eight codes widened and multiplied at a time.

use std::arch::aarch64::*;

use super::{BLOCK, Simd, Task, sealed::Sealed};

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

impl Simd for Neon {
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
}
