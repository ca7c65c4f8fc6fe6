//! Rows of int8 codes scored against a query of i16: exact integers, the same at every level.
//!
//! The query keeps sixteen bits, so that only the rows lose precision. Products are summed in
//! pairs by multiply-add of i16, which every instruction set of [`Level`] has, so none needs a
//! correction or saturates.
//!
//! A whole search is compiled for each instruction set: [`Kernels::run`] enters a function with its
//! features enabled and hands the [`Task`] a value of [`Simd`], whose methods are inlined into the
//! task. Only code that is inlined (`#[inline(always)]`) gains by it: a closure or an iterator
//! adaptor between the task and a call of `Simd` is a function of its own, without the features.
//!
//! What else takes a search much of its time is here for the same reason: telling which of many scores may get into
//! what it keeps ([`Simd::not_below`]), and putting them there ([`Simd::insert`]).

use crate::{Kernels, Level, Lines, kernels::prefetch_line};

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;
mod panels;
mod scalar;
#[cfg(target_arch = "x86_64")]
mod vnni;

pub use panels::Panels;
pub use scalar::Scalar;

/// Bytes of a block; rows are whole blocks, padded with zeros.
pub const BLOCK: usize = 32;

/// Values that [`Simd::insert`] moves together.
pub const SORTED: usize = 8;

/// Stamps that are no link's, after those that are: they are read four at a time.
pub const SLACK: usize = 3;

/// Scores that are compared together.
pub const WIDE: usize = 16;

/// Codes of four bits in a block: its bytes hold the first half of them in their low nibbles, the
/// second half in their high ones.
pub const NIBBLES: usize = 2 * BLOCK;

/// A query for rows of nibbles: whole blocks of values of -127 to 127.
#[derive(Clone, Debug, Default)]
pub struct NibbleValues(Lines<i8>);

impl NibbleValues {
    /// Takes on `values`, padded with zeros to whole blocks; -128 becomes -127.
    pub fn set(&mut self, values: impl ExactSizeIterator<Item = i8>) {
        let len = values.len();
        self.0.resize(len.next_multiple_of(NIBBLES));
        let (taken, rest) = self.0.split_at_mut(len);
        for (taken, value) in taken.iter_mut().zip(values) {
            *taken = value.max(-i8::MAX);
        }
        rest.fill(0);
    }

    /// The sum of all values.
    pub fn sum(&self) -> i32 {
        self.0.iter().map(|value| i32::from(*value)).sum()
    }
}

/// Sets code `at` of a row of nibbles, which holds zero there so far, to `code` (0 to 15).
///
/// # Panics
/// When the row is too short.
pub fn put_nibble(row: &mut [i8], at: usize, code: u8) {
    let (block, within) = (at / NIBBLES, at % NIBBLES);
    let shift = if within < BLOCK { 0 } else { 4 };
    row[block * BLOCK + within % BLOCK] |= ((code & 15) << shift).cast_signed();
}

/// Rows of codes, one after another, each of a whole number of [`BLOCK`]s.
#[derive(Clone, Copy, Debug)]
pub struct CodeRows<'a> {
    codes: &'a [i8],
    stride: usize,
    rows: usize,
}

impl<'a> CodeRows<'a> {
    /// Views `codes` as rows of `stride` bytes.
    ///
    /// # Panics
    /// When `stride` is no multiple of [`BLOCK`] (or zero), or the codes are no whole rows.
    pub fn new(codes: &'a [i8], stride: usize) -> Self {
        assert!(
            stride > 0 && stride.is_multiple_of(BLOCK),
            "a stride of {stride} is no whole number of blocks"
        );
        assert!(codes.len().is_multiple_of(stride), "codes of broken rows");
        Self {
            codes,
            stride,
            rows: codes.len() / stride,
        }
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.rows
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Bytes of a row.
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// A row; `None` past the last.
    pub fn row(&self, id: u32) -> Option<&'a [i8]> {
        let start = (id as usize).checked_mul(self.stride)?;
        self.codes.get(start..start + self.stride)
    }

    /// Where rows start; an id past the last is taken as the last.
    ///
    /// # Panics
    /// When there is no row.
    #[inline(always)]
    fn starts<const R: usize>(&self, ids: [u32; R]) -> [*const i8; R] {
        assert!(!self.is_empty(), "ids, but no rows");
        let mut starts = [self.codes.as_ptr(); R];
        for r in 0..R {
            let id = (ids[r] as usize).min(self.rows - 1);
            starts[r] = self.codes.as_ptr().wrapping_add(id * self.stride);
        }
        starts
    }

    /// Where `R` rows start that lie one after another.
    ///
    /// # Panics
    /// When there are not that many from `first` on.
    #[inline(always)]
    fn starts_from<const R: usize>(&self, first: usize) -> [*const i8; R] {
        assert!(
            first <= self.rows && R <= self.rows - first,
            "rows past the last"
        );
        let mut starts = [self.codes.as_ptr(); R];
        let mut start = self.codes.as_ptr().wrapping_add(first * self.stride);
        for row in &mut starts {
            *row = start;
            start = start.wrapping_add(self.stride);
        }
        starts
    }

    /// Asks for the memory of a row. Any id will do. `B` as in [`Simd::dots`].
    #[inline(always)]
    pub fn prefetch<const B: usize>(&self, id: u32) {
        let start = self.codes.as_ptr().cast::<u8>();
        let start = start.wrapping_add((id as usize).wrapping_mul(self.stride));
        let stride = if B == 0 { self.stride } else { B * BLOCK };
        for line in 0..stride.div_ceil(64).min(crate::PREFETCH_LINES) {
            prefetch_line(start.wrapping_add(line * 64));
        }
    }
}

/// The operations of one instruction set; a value of it proves that this machine has it.
pub trait Simd: Copy + std::fmt::Debug + sealed::Sealed {
    /// Whether rows [side by side](Panels) are scored faster than one after another.
    const PANELS: bool = false;

    /// Runs a task as a function of its own: what is compiled around it takes none of its registers, nor it of theirs, and a
    /// change of the one leaves the speed of the other as it is.
    fn apart<T: Task>(self, task: T) -> T::Output;

    /// `Σ query[i] rows[r][i]` for each of `R` rows of `blocks` blocks.
    ///
    /// # Safety
    /// `query` points to `blocks * BLOCK` values and each of `rows` to as many.
    unsafe fn sums<const R: usize>(
        self,
        blocks: usize,
        query: *const i16,
        rows: [*const i8; R],
    ) -> [i32; R];

    /// As [`Simd::sums`], of many rows: four at a time, unless an instruction set knows better.
    ///
    /// # Safety
    /// As of [`Simd::sums`].
    #[inline(always)]
    unsafe fn wide_sums(
        self,
        blocks: usize,
        query: *const i16,
        rows: [*const i8; WIDE],
    ) -> [i32; WIDE] {
        let mut sums = [0; WIDE];
        let (rows, _) = rows.as_chunks::<4>();
        let (fours, _) = sums.as_chunks_mut::<4>();
        for (four, rows) in fours.iter_mut().zip(rows) {
            // SAFETY: by the caller's contract.
            *four = unsafe { self.sums(blocks, query, *rows) };
        }
        sums
    }

    /// As [`Simd::sums`], of rows of nibbles: `Σ query[i] code[i]` with codes of 0 to 15, see
    /// [`NIBBLES`].
    ///
    /// # Safety
    /// `query` points to `blocks * NIBBLES` values, none of them -128, and each of `rows` to
    /// `blocks * BLOCK` bytes.
    unsafe fn nibble_sums<const R: usize>(
        self,
        blocks: usize,
        query: *const i8,
        rows: [*const i8; R],
    ) -> [i32; R];

    /// As [`Simd::sums`], of rows side by side, [`WIDE`] to a group: see [`Panels`].
    ///
    /// # Safety
    /// `groups` points to `query.len() * WIDE` bytes for each of `sums`; the length of the query is a multiple of
    /// [`BLOCK`].
    #[inline(always)]
    unsafe fn panel_sums(self, query: &[i16], groups: *const u8, sums: &mut [[i32; WIDE]]) {
        let size = query.len() * WIDE;
        // SAFETY: the caller's contract.
        let groups = unsafe { std::slice::from_raw_parts(groups, size * sums.len()) };
        panels::sums(query, groups, sums);
    }

    /// Which of the scores are not less than `bar`, those that are no numbers among them: bit `i` for the `i`-th.
    #[inline(always)]
    fn not_below(self, scores: &[f32; WIDE], bar: f32) -> u32 {
        let mut mask = 0;
        for (at, score) in scores.iter().enumerate() {
            mask |= u32::from(*score >= bar || score.is_nan()) << at;
        }
        mask
    }

    /// The greatest of each of [`WIDE`] columns, of the first row and every `stride`-th after it; likewise of the second, and so
    /// on: `V` times. What is not a number is not the greatest; minus infinity where there is none. Ends with the rows, as
    /// soon as fewer than `V` are left.
    ///
    /// # Panics
    /// When `stride` is 0.
    #[inline(always)]
    fn greatest<const V: usize>(self, rows: &[[f32; WIDE]], stride: usize) -> [[f32; WIDE]; V] {
        assert!(stride > 0, "the same rows again and again");
        let mut greatest = [[f32::NEG_INFINITY; WIDE]; V];
        for at in (0..rows.len()).step_by(stride) {
            for (greatest, row) in greatest
                .iter_mut()
                .zip(rows.get(at..at + V).unwrap_or_default())
            {
                for lane in 0..WIDE {
                    greatest[lane] = if row[lane] > greatest[lane] {
                        row[lane]
                    } else {
                        greatest[lane]
                    };
                }
            }
        }
        greatest
    }

    /// Puts `item` where it belongs in `sorted`, which ascends, and returns its place. No more than `limit` values
    /// are kept: the one at that place gives way, and stands for nothing ([`u64::MAX`]) as all after it do already.
    ///
    /// # Panics
    /// When the values are not a multiple of [`SORTED`], or `limit` is not one of the last as many places or the
    /// end.
    #[inline(always)]
    fn insert(self, sorted: &mut [u64], limit: usize, item: u64) -> usize {
        check_sorted(sorted, limit);
        let at = sorted.partition_point(|other| *other < item);
        if at < limit {
            sorted.copy_within(at..limit - 1, at + 1);
            sorted[at] = item;
        }
        at
    }

    /// Puts those of `links` into `new` whose stamp is not `current`, which it is from then on, in their order; returns how many
    /// they are. Ends at the first link that is none: a link has a stamp, and [`SLACK`] of them after it. What is in `new`
    /// after them is of no use. A link that is there twice may be told twice: stamps are read before they are written. Links are
    /// below 2^31.
    ///
    /// Whether a link is new is as good as random, and a branch on it would be mispredicted half of the time: every
    /// link is written, and the end moves on past the new ones only.
    ///
    /// # Panics
    /// When there are more links than `new` has room for, which is a multiple of [`WIDE`].
    #[inline(always)]
    fn unseen(self, links: &[u32], stamps: &mut [u8], current: u8, new: &mut [u32]) -> usize {
        scalar::unseen(links, stamps, current, new)
    }

    /// Scores `R` rows: `Σ query[i] rows[ids[r]][i]` for each. An id past the last row counts as the
    /// last row: ids may come from a damaged file.
    ///
    /// `B` is the number of blocks of a row where that is known when compiling, or 0. The sums must
    /// fit an i32: see [`largest`].
    ///
    /// # Panics
    /// When the query is not as long as a row, `B` is wrong, or there are no rows.
    #[inline(always)]
    fn dots<const B: usize, const R: usize>(
        self,
        query: &[i16],
        rows: CodeRows<'_>,
        ids: [u32; R],
    ) -> [i32; R] {
        let blocks = blocks::<B>(query.len(), rows);
        let starts = rows.starts(ids);
        // SAFETY: `blocks` checked query and stride; `starts` stay within the rows.
        unsafe { self.sums(blocks, query.as_ptr(), starts) }
    }

    /// As [`Simd::dots`], of the `R` rows from `first` on.
    ///
    /// # Panics
    /// When the query is not as long as a row, `B` is wrong, or there are not that many rows.
    #[inline(always)]
    fn run_dots<const B: usize, const R: usize>(
        self,
        query: &[i16],
        rows: CodeRows<'_>,
        first: usize,
    ) -> [i32; R] {
        let blocks = blocks::<B>(query.len(), rows);
        let starts = rows.starts_from(first);
        // SAFETY: `blocks` checked query and stride; `starts_from` that all rows are there.
        unsafe { self.sums(blocks, query.as_ptr(), starts) }
    }

    /// As [`Simd::run_dots`], of [`WIDE`] rows.
    ///
    /// # Panics
    /// As [`Simd::run_dots`].
    #[inline(always)]
    fn run_dots_wide<const B: usize>(
        self,
        query: &[i16],
        rows: CodeRows<'_>,
        first: usize,
    ) -> [i32; WIDE] {
        let blocks = blocks::<B>(query.len(), rows);
        let starts = rows.starts_from(first);
        // SAFETY: `blocks` checked query and stride; `starts_from` that all rows are there.
        unsafe { self.wide_sums(blocks, query.as_ptr(), starts) }
    }

    /// As [`Simd::run_dots`], of as many rows as there are sums, which lie side by side. No value of the query is beyond what
    /// [`largest`] allows: each is two bytes with signs.
    ///
    /// # Panics
    /// When the query is not as long as a row, or the panels do not [hold](Panels::hold) those rows.
    #[inline(always)]
    fn panel_dots(self, query: &[i16], panels: &Panels, first: usize, sums: &mut [i32]) {
        let groups = panels.groups(query.len(), first, sums.len());
        let (whole, rest) = sums.as_chunks_mut::<WIDE>();
        // SAFETY: `groups` are of as many rows, rounded up to whole groups; strides are whole blocks.
        unsafe { self.panel_sums(query, groups.as_ptr(), whole) };
        if !rest.is_empty() {
            let mut last = [[0; WIDE]];
            let start = groups[whole.len() * WIDE * query.len()..].as_ptr();
            // SAFETY: as above; this group is the one beyond the whole ones.
            unsafe { self.panel_sums(query, start, &mut last) };
            rest.copy_from_slice(&last[0][..rest.len()]);
        }
    }

    /// As [`Simd::dots`], of rows of nibbles.
    ///
    /// # Panics
    /// When the query has not [`NIBBLES`] values to a block of a row, `B` is wrong, or there are no
    /// rows.
    #[inline(always)]
    fn nibble_dots<const B: usize, const R: usize>(
        self,
        query: &NibbleValues,
        rows: CodeRows<'_>,
        ids: [u32; R],
    ) -> [i32; R] {
        let blocks = blocks::<B>(query.0.len() / NIBBLES * BLOCK, rows);
        let starts = rows.starts(ids);
        // SAFETY: `blocks` checked query and stride, `NibbleValues` its values; `starts` stay within
        // the rows.
        unsafe { self.nibble_sums(blocks, query.0.as_ptr(), starts) }
    }
}

#[inline(always)]
fn blocks<const B: usize>(query: usize, rows: CodeRows<'_>) -> usize {
    assert_eq!(query, rows.stride, "a query of another length");
    if B == 0 {
        rows.stride / BLOCK
    } else {
        assert_eq!(rows.stride, B * BLOCK, "compiled for another stride");
        B
    }
}

#[inline(always)]
fn check_sorted(sorted: &[u64], limit: usize) {
    assert!(sorted.len().is_multiple_of(SORTED), "no whole registers");
    assert!(
        limit <= sorted.len() && sorted.len() - limit < SORTED,
        "a limit elsewhere than near the end"
    );
}

#[inline(always)]
fn check_room(links: &[u32], new: &[u32]) {
    assert!(
        links.len() <= new.len() && new.len().is_multiple_of(WIDE),
        "no room for all links"
    );
}

/// The largest magnitude a value of a query may have: in two bytes with signs, the high one is 127 then.
const LARGEST: i16 = 127 * 256 + 127;

/// The largest magnitude a value of a query may have, so that with `weight = Σ |query[i]| / max
/// |query[i]|` no sum over codes of at most 128 overflows.
pub fn largest(weight: f64) -> i16 {
    // A hundredth is left for what rounding adds.
    let bound = f64::from(i32::MAX) * 0.99 / 128.0 / weight.max(1.0);
    #[expect(clippy::cast_possible_truncation, reason = "within the range of i16")]
    let bound = bound.floor().min(f64::from(LARGEST)) as i16;
    bound
}

/// Work to be compiled for each instruction set.
pub trait Task {
    /// What it returns.
    type Output;

    /// Does the work. Mark the implementation `#[inline(always)]`, and all that is hot in it.
    fn run<S: Simd>(self, simd: S) -> Self::Output;
}

impl Kernels {
    /// Runs the task as compiled for this level.
    #[inline]
    pub fn run<T: Task>(&self, task: T) -> T::Output {
        match self.level() {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: a level is only in `Kernels` when the machine has it.
            Level::Avx2 => unsafe { avx2::run(task) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Level::Avx512 => unsafe { avx512::run(task) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Level::Avx512Vnni => unsafe { avx512::run_vnni(task) },
            #[cfg(target_arch = "aarch64")]
            // SAFETY: as above.
            Level::Neon => unsafe { neon::run(task) },
            _ => task.run(Scalar),
        }
    }
}

mod sealed {
    /// Instruction sets are this crate's to make.
    pub trait Sealed {}
}

#[cfg(test)]
mod tests;
