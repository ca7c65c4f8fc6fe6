//! Codes in plain Rust: the definition.

use super::{BLOCK, NIBBLES, SLACK, Simd, Task, check_room, sealed::Sealed};

/// Plain Rust, on any machine.
#[derive(Clone, Copy, Debug)]
pub struct Scalar;

impl Sealed for Scalar {}

impl Simd for Scalar {
    #[inline(never)]
    fn apart<T: Task>(self, task: T) -> T::Output {
        task.run(self)
    }

    #[inline(always)]
    unsafe fn sums<const R: usize>(
        self,
        blocks: usize,
        query: *const i16,
        rows: [*const i8; R],
    ) -> [i32; R] {
        rows.map(|row| {
            // SAFETY: the caller's contract.
            let (query, row) = unsafe {
                (
                    std::slice::from_raw_parts(query, blocks * BLOCK),
                    std::slice::from_raw_parts(row, blocks * BLOCK),
                )
            };
            let products = query.iter().zip(row);
            products.fold(0, |sum: i32, (q, c)| {
                sum.wrapping_add(i32::from(*q) * i32::from(*c))
            })
        })
    }

    #[inline(always)]
    unsafe fn nibble_sums<const R: usize>(
        self,
        blocks: usize,
        query: *const i8,
        rows: [*const i8; R],
    ) -> [i32; R] {
        rows.map(|row| {
            // SAFETY: the caller's contract.
            let (query, row) = unsafe {
                (
                    std::slice::from_raw_parts(query, blocks * NIBBLES),
                    std::slice::from_raw_parts(row, blocks * BLOCK),
                )
            };
            let blocks = query.chunks_exact(NIBBLES).zip(row.chunks_exact(BLOCK));
            blocks.fold(0, |sum, (query, row)| {
                let (low, high) = query.split_at(BLOCK);
                let bytes = row.iter().map(|byte| byte.cast_unsigned());
                let products = low.iter().zip(high).zip(bytes).map(|((low, high), byte)| {
                    i32::from(*low) * i32::from(byte & 15) + i32::from(*high) * i32::from(byte >> 4)
                });
                sum + products.sum::<i32>()
            })
        })
    }
}

/// [`Simd::unseen`] in plain Rust.
///
/// Not inlined: within a walk the loop would keep nothing in registers.
#[inline(never)]
pub(super) fn unseen(links: &[u32], stamps: &mut [u8], current: u8, new: &mut [u32]) -> usize {
    check_room(links, new);
    let len = stamps.len().saturating_sub(SLACK);
    let stamps = &mut stamps[..len];
    let mut count = 0;
    for &link in links {
        let at = link as usize;
        if at >= stamps.len() {
            break;
        }
        new[count] = link;
        count += usize::from(stamps[at] != current);
        stamps[at] = current;
    }
    count
}
