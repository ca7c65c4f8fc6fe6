//! Rows of codes side by side, as [`Simd::panel_dots`](super::Simd::panel_dots) reads them.
//!
//! One after another, each row's products end up spread over a register, and to add them up takes as long as the
//! products do. Side by side, a register holds four values of each of [`WIDE`] rows: every row has a lane
//! of its own, and nothing is left to be added up.

use std::ops::Range;

use super::{BLOCK, CodeRows, WIDE};
use crate::Lines;

/// Values of a row that lie together.
pub(super) const FOUR: usize = 4;

/// What codes are held with, each 128 more: the multiply-add of bytes takes one side without a sign.
const BIAS: u32 = 0x8080_8080;

/// Some consecutive rows, side by side: groups of [`WIDE`], and of each group four values of its first row, of its second,
/// …, then the next four. Codes are held with 128 added; the last group is filled with rows of zeros.
#[derive(Clone, Debug, Default)]
pub struct Panels {
    codes: Lines<u8>,
    stride: usize,
    held: Range<usize>,
}

impl Panels {
    /// No rows.
    pub const EMPTY: &'static Self = &Self {
        codes: Lines::new(),
        stride: BLOCK,
        held: 0..0,
    };

    /// Takes on a range of `rows`, as far as there are any; keeps its memory. O(range · stride).
    pub fn set(&mut self, rows: CodeRows<'_>, range: Range<usize>) {
        let end = range.end.min(rows.len());
        self.held = range.start.min(end)..end;
        self.stride = rows.stride();
        let size = self.stride * WIDE;
        let groups = self.held.len().div_ceil(WIDE);
        self.codes.resize(groups * size);
        for (number, group) in self.codes.chunks_exact_mut(size).enumerate() {
            let (registers, _) = group.as_chunks_mut::<{ FOUR * WIDE }>();
            for lane in 0..WIDE {
                let at = self.held.start + number * WIDE + lane;
                let row = rows.row(u32::try_from(at).unwrap_or(u32::MAX));
                let row = row.filter(|_| at < end).unwrap_or_default();
                let (fours, _) = row.as_chunks::<FOUR>();
                for (place, register) in registers.iter_mut().enumerate() {
                    let four = fours.get(place).copied().unwrap_or_default();
                    let held = u32::from_le_bytes(four.map(i8::cast_unsigned)) ^ BIAS;
                    register[lane * FOUR..][..FOUR].copy_from_slice(&held.to_le_bytes());
                }
            }
        }
    }

    /// Whether `len` rows from `first` on are held, `first` among them, and that is where a group begins.
    #[inline(always)]
    pub fn hold(&self, first: usize, len: usize) -> bool {
        let Range { start, end } = self.held;
        start <= first && first < end && len <= end - first && (first - start).is_multiple_of(WIDE)
    }

    /// The groups from row `first` on that `len` rows are in, one after another.
    ///
    /// # Panics
    /// When they are not [held](Self::hold), or `stride` is another than that of the rows.
    #[inline(always)]
    pub(super) fn groups(&self, stride: usize, first: usize, len: usize) -> &[u8] {
        assert!(self.hold(first, len), "rows that are not side by side");
        assert_eq!(stride, self.stride, "a query of another length");
        let from = (first - self.held.start) * stride;
        &self.codes[from..from + len.next_multiple_of(WIDE) * stride]
    }
}

/// [`Simd::panel_sums`](super::Simd::panel_sums) in plain Rust: the definition.
pub(super) fn sums(query: &[i16], groups: &[u8], sums: &mut [[i32; WIDE]]) {
    for (sums, group) in sums.iter_mut().zip(groups.chunks_exact(query.len() * WIDE)) {
        *sums = [0; WIDE];
        let (registers, _) = group.as_chunks::<{ FOUR * WIDE }>();
        for (query, register) in query.as_chunks::<FOUR>().0.iter().zip(registers) {
            for (sum, codes) in sums.iter_mut().zip(register.as_chunks::<FOUR>().0) {
                for (value, code) in query.iter().zip(codes) {
                    let product = i32::from(*value) * (i32::from(*code) - 128);
                    *sum = sum.wrapping_add(product);
                }
            }
        }
    }
}
