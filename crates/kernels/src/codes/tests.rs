//! Every available level against the definition, to the last bit.

use proptest::prelude::*;

use super::*;

struct Score<'a> {
    query: &'a [i16],
    rows: CodeRows<'a>,
    ids: &'a [u32],
}

impl Task for Score<'_> {
    type Output = Vec<i32>;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> Vec<i32> {
        let (quads, rest) = self.ids.as_chunks::<4>();
        let mut out = Vec::new();
        for quad in quads {
            out.extend(match self.rows.stride() / BLOCK {
                2 => simd.dots::<2, 4>(self.query, self.rows, *quad),
                _ => simd.dots::<0, 4>(self.query, self.rows, *quad),
            });
        }
        for id in rest {
            out.extend(simd.dots::<0, 1>(self.query, self.rows, [*id]));
        }
        out
    }
}

/// All rows from the first on, one after another.
struct Run<'a> {
    query: &'a [i16],
    rows: CodeRows<'a>,
}

impl Task for Run<'_> {
    type Output = Vec<i32>;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> Vec<i32> {
        let Self { query, rows } = self;
        let wide = rows.len() / WIDE * WIDE;
        let whole = rows.len() / 4 * 4;
        let mut out = Vec::new();
        for first in (0..wide).step_by(WIDE) {
            out.extend(match rows.stride() / BLOCK {
                2 => simd.run_dots_wide::<2>(query, rows, first),
                _ => simd.run_dots_wide::<0>(query, rows, first),
            });
        }
        for first in (wide..whole).step_by(4) {
            out.extend(match rows.stride() / BLOCK {
                2 => simd.run_dots::<2, 4>(query, rows, first),
                _ => simd.run_dots::<0, 4>(query, rows, first),
            });
        }
        for at in whole..rows.len() {
            out.extend(simd.run_dots::<0, 1>(query, rows, at));
        }
        out
    }
}

/// Rows of a range, side by side; those of a part of it from the start of a group on.
struct Beside<'a> {
    query: &'a [i16],
    panels: &'a Panels,
    first: usize,
    len: usize,
}

impl Task for Beside<'_> {
    type Output = Vec<i32>;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> Vec<i32> {
        let mut sums = vec![0; self.len];
        simd.panel_dots(self.query, self.panels, self.first, &mut sums);
        sums
    }
}

struct Greatest<'a>(&'a [[f32; WIDE]], usize);

impl Task for Greatest<'_> {
    type Output = [[f32; WIDE]; 3];

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> Self::Output {
        simd.greatest(self.0, self.1)
    }
}

struct NibbleScore<'a> {
    query: &'a NibbleValues,
    rows: CodeRows<'a>,
    ids: &'a [u32],
}

impl Task for NibbleScore<'_> {
    type Output = Vec<i32>;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> Vec<i32> {
        let (quads, rest) = self.ids.as_chunks::<4>();
        let mut out = Vec::new();
        for quad in quads {
            out.extend(match self.rows.stride() / BLOCK {
                2 => simd.nibble_dots::<2, 4>(self.query, self.rows, *quad),
                _ => simd.nibble_dots::<0, 4>(self.query, self.rows, *quad),
            });
        }
        for id in rest {
            out.extend(simd.nibble_dots::<0, 1>(self.query, self.rows, [*id]));
        }
        out
    }
}

fn naive(query: &[i16], row: &[i8]) -> i64 {
    query
        .iter()
        .zip(row)
        .map(|(q, c)| i64::from(*q) * i64::from(*c))
        .sum()
}

fn levels() -> impl Iterator<Item = Kernels> {
    Level::available()
        .into_iter()
        .filter_map(Kernels::for_level)
}

proptest! {
    #[test]
    fn every_level_returns_the_exact_integers(
        blocks in 1_usize..12,
        rows in 1_usize..35,
        seed in prop::collection::vec(any::<u8>(), 32..64),
        extreme in any::<bool>(),
        start in 0_usize..5,
        ids in prop::collection::vec(0_u32..40, 0..40),
    ) {
        let stride = blocks * BLOCK;
        let byte = |at: usize| seed[at % seed.len()].wrapping_mul(31).wrapping_add(seed[at / 7 % seed.len()]);
        let bound = i32::from(largest(stride as f64));
        let query: Vec<i16> = (0..stride).map(|at| {
            let value = if extreme { [bound, -bound][at % 2] } else { i32::from(byte(at)) * bound / 255 };
            i16::try_from(value).expect("within the bound")
        }).collect();
        // Unaligned on purpose.
        let codes: Vec<i8> = (0..start + rows * stride).map(|at| {
            if extreme { [-128, 127][at % 2] } else { byte(at * 3).cast_signed() }
        }).collect();
        let codes = &codes[start..];
        let rows = CodeRows::new(codes, stride);
        let exact: Vec<i64> = codes.chunks_exact(stride).map(|row| naive(&query, row)).collect();
        for kernels in levels() {
            let picked = kernels.run(Score { query: &query, rows, ids: &ids });
            for (sum, id) in picked.iter().zip(&ids) {
                let at = (*id as usize).min(exact.len() - 1);
                prop_assert_eq!(i64::from(*sum), exact[at], "{:?}", kernels);
            }
            let all = kernels.run(Run { query: &query, rows });
            let all: Vec<i64> = all.into_iter().map(i64::from).collect();
            prop_assert_eq!(&all, &exact, "{:?}", kernels);
            let mut panels = Panels::default();
            for from in [0, 1, rows.len() / 2] {
                // Beyond the last row there are none.
                panels.set(rows, from..rows.len() + from);
                for first in (from..rows.len()).step_by(WIDE) {
                    for len in [rows.len() - first, (rows.len() - first) / 2] {
                        prop_assert!(panels.hold(first, len) && !panels.hold(first, rows.len() - first + 1));
                        let sums = kernels.run(Beside { query: &query, panels: &panels, first, len });
                        let sums: Vec<i64> = sums.into_iter().map(i64::from).collect();
                        prop_assert_eq!(&sums[..], &exact[first..][..len], "{:?}", kernels);
                    }
                }
                prop_assert!(!panels.hold(from + 1, 0) && !panels.hold(usize::MAX, 1));
            }
        }
    }
}

/// As many rows as there are, from the second on: four, or many.
struct PastTheEnd {
    wide: bool,
}

impl Task for PastTheEnd {
    type Output = i32;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> i32 {
        let codes = [0; WIDE * BLOCK];
        let of = |rows: usize| CodeRows::new(&codes[..rows * BLOCK], BLOCK);
        match self.wide {
            false => simd.run_dots::<0, 4>(&[0; BLOCK], of(4), 1)[0],
            true => simd.run_dots_wide::<0>(&[0; BLOCK], of(WIDE), 1)[0],
        }
    }
}

#[test]
fn a_run_ends_at_the_last_row() {
    for kernels in levels() {
        for wide in [false, true] {
            let caught = std::panic::catch_unwind(|| kernels.run(PastTheEnd { wide }));
            let panic = caught.expect_err("there is no such row");
            assert_eq!(panic.downcast_ref(), Some(&"rows past the last"));
        }
    }
}

proptest! {
    #[test]
    fn every_level_sums_nibbles_exactly(
        dim in 1_usize..700,
        rows in 1_usize..35,
        seed in prop::collection::vec(any::<u8>(), 32..64),
        extreme in any::<bool>(),
        start in 0_usize..5,
        ids in prop::collection::vec(0_u32..40, 0..40),
    ) {
        let byte = |at: usize| seed[at % seed.len()].wrapping_mul(31).wrapping_add(seed[at / 7 % seed.len()]);
        let values: Vec<i8> = (0..dim).map(|at| {
            if extreme { [127, -127][at / 256 % 2] } else { byte(at).cast_signed().max(-127) }
        }).collect();
        let mut query = NibbleValues::default();
        query.set(values.iter().copied());
        prop_assert_eq!(query.sum(), values.iter().map(|value| i32::from(*value)).sum::<i32>());
        let stride = dim.div_ceil(NIBBLES) * BLOCK;
        let codes: Vec<Vec<u8>> = (0..rows).map(|row| (0..dim).map(|at| {
            if extreme { 15 } else { byte(at * 3 + row) & 15 }
        }).collect()).collect();
        // Unaligned on purpose.
        let mut packed = vec![0; start + rows * stride];
        for (codes, row) in codes.iter().zip(packed[start..].chunks_exact_mut(stride)) {
            for (at, code) in codes.iter().enumerate() {
                put_nibble(row, at, *code);
            }
        }
        let exact: Vec<i64> = codes.iter().map(|codes| {
            values.iter().zip(codes).map(|(value, code)| i64::from(*value) * i64::from(*code)).sum()
        }).collect();
        let packed = CodeRows::new(&packed[start..], stride);
        for kernels in levels() {
            let picked = kernels.run(NibbleScore { query: &query, rows: packed, ids: &ids });
            for (sum, id) in picked.iter().zip(&ids) {
                let at = (*id as usize).min(exact.len() - 1);
                prop_assert_eq!(i64::from(*sum), exact[at], "{:?}", kernels);
            }
        }
    }
}

/// Items put one after another into what keeps the first `limit` of them.
struct Insert<'a> {
    limit: usize,
    items: &'a [u64],
}

impl Task for Insert<'_> {
    type Output = (Vec<u64>, Vec<usize>);

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> Self::Output {
        let mut sorted = vec![u64::MAX; self.limit.next_multiple_of(SORTED)];
        let mut places = Vec::new();
        for item in self.items {
            places.push(simd.insert(&mut sorted, self.limit, *item));
        }
        (sorted, places)
    }
}

struct NotBelow<'a>(&'a [f32; WIDE], f32);

impl Task for NotBelow<'_> {
    type Output = u32;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> u32 {
        simd.not_below(self.0, self.1)
    }
}

struct Unseen<'a> {
    links: &'a [u32],
    stamps: &'a [u8],
    current: u8,
    room: usize,
}

impl Task for Unseen<'_> {
    type Output = (Vec<u32>, Vec<u8>);

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> Self::Output {
        let (mut stamps, mut new) = (self.stamps.to_vec(), vec![0; self.room]);
        let count = simd.unseen(self.links, &mut stamps, self.current, &mut new);
        new.truncate(count);
        (new, stamps)
    }
}

/// A task as a function of its own.
struct Apart<T>(T);

impl<T: Task> Task for Apart<T> {
    type Output = T::Output;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> T::Output {
        simd.apart(self.0)
    }
}

proptest! {
    #[test]
    fn every_level_tells_what_is_unseen(
        stamps in prop::collection::vec(prop_oneof![Just(0_u8), Just(7), Just(255)], 0..150),
        picks in prop::collection::vec(any::<u32>(), 0..100),
        stray in prop::option::weighted(0.5, (0_usize..100, prop_oneof![0_u32..5, Just(1 << 31), Just(u32::MAX)])),
        current in prop::sample::select(vec![7_u8, 255]),
        more_room in 0_usize..3,
    ) {
        // No link twice, and one, perhaps, that is none: in the slack, beyond it, or negative for whom takes it so.
        let len = stamps.len().saturating_sub(SLACK);
        let mut links: Vec<u32> = (0..u32::try_from(len).expect("short")).collect();
        for (at, pick) in picks.iter().enumerate().take(len) {
            links.swap(at, at + *pick as usize % (len - at));
        }
        links.truncate(picks.len());
        if let Some((at, beyond)) = stray {
            links.insert(at.min(links.len()), beyond.saturating_add(u32::try_from(len).expect("short")));
        }
        let known = links.iter().take_while(|link| (**link as usize) < len);
        let new: Vec<u32> = known.clone().copied().filter(|link| stamps[*link as usize] != current).collect();
        let mut after = stamps.clone();
        known.for_each(|link| after[*link as usize] = current);
        let room = links.len().next_multiple_of(WIDE) + more_room * WIDE;
        for kernels in levels() {
            let unseen = Unseen { links: &links, stamps: &stamps, current, room };
            let expected = (new.clone(), after.clone());
            prop_assert_eq!(kernels.run(Apart(unseen)), expected, "{:?}", kernels);
        }
    }

    #[test]
    fn every_level_keeps_the_least(
        limit in prop_oneof![0_usize..80, 110_usize..150],
        items in prop::collection::vec(prop_oneof![any::<u64>(), 0_u64..9, u64::MAX - 9..u64::MAX], 0..250),
    ) {
        let mut kept: Vec<u64> = Vec::new();
        let places: Vec<usize> = items.iter().map(|item| {
            let at = kept.partition_point(|other| other < item);
            kept.insert(at, *item);
            kept.truncate(limit);
            at
        }).collect();
        kept.resize(limit.next_multiple_of(SORTED), u64::MAX);
        for kernels in levels() {
            let (sorted, at) = kernels.run(Insert { limit, items: &items });
            prop_assert_eq!(&sorted, &kept, "{:?}", kernels);
            prop_assert_eq!(&at, &places, "{:?}", kernels);
        }
    }

    #[test]
    fn every_level_tells_the_greatest(
        rows in prop::collection::vec(prop::array::uniform16(prop_oneof![-9_i8..9, Just(i8::MIN), Just(i8::MAX)]), 0..40),
        stride in 1_usize..12,
    ) {
        let number = |value: i8| match value {
            i8::MIN => f32::NAN,
            i8::MAX => f32::INFINITY,
            value => f32::from(value),
        };
        let rows: Vec<[f32; WIDE]> = rows.into_iter().map(|row| row.map(number)).collect();
        let mut expected = [[f32::NEG_INFINITY; WIDE]; 3];
        for at in (0..rows.len()).step_by(stride).filter(|at| at + 3 <= rows.len()) {
            for (expected, row) in expected.iter_mut().zip(&rows[at..]) {
                for (expected, value) in expected.iter_mut().zip(row) {
                    *expected = expected.max(*value);
                }
            }
        }
        for kernels in levels() {
            prop_assert_eq!(kernels.run(Greatest(&rows, stride)), expected, "{:?}", kernels);
        }
    }

    #[test]
    fn every_level_tells_what_is_not_below(
        scores in prop::collection::vec(prop_oneof![-2_i8..3, Just(i8::MIN)], WIDE),
        bar in -2_i8..3,
        open in any::<bool>(),
    ) {
        let number = |value: i8| if value == i8::MIN { f32::NAN } else { f32::from(value) };
        let scores: Vec<f32> = scores.into_iter().map(number).collect();
        let scores = scores.first_chunk().expect("as many");
        let bar = if open { f32::NEG_INFINITY } else { f32::from(bar) };
        let expected: u32 = (0..WIDE).map(|at| u32::from(scores[at].is_nan() || scores[at] >= bar) << at).sum();
        for kernels in levels() {
            prop_assert_eq!(kernels.run(NotBelow(scores, bar)), expected, "{:?}", kernels);
        }
    }
}

#[test]
#[should_panic(expected = "no whole registers")]
fn what_is_no_whole_register_is_refused() {
    Scalar.insert(&mut [1; 9], 9, 0);
}

#[test]
#[should_panic(expected = "a limit elsewhere")]
fn a_limit_far_from_the_end_is_refused() {
    Scalar.insert(&mut [1; 16], 8, 0);
}

#[test]
#[should_panic(expected = "no room for all links")]
fn links_without_room_are_refused() {
    Scalar.unseen(&[0; 17], &mut [0; 20], 1, &mut [0; WIDE]);
}

#[test]
#[should_panic(expected = "a query of another length")]
fn a_short_query_is_refused() {
    let codes = vec![0; 64];
    let rows = CodeRows::new(&codes, 64);
    Scalar.dots::<0, 1>(&[0; 32], rows, [0]);
}

#[test]
#[should_panic(expected = "ids, but no rows")]
fn no_rows_cannot_be_scored() {
    Scalar.dots::<0, 1>(&[0; 32], CodeRows::new(&[], 32), [0]);
}

#[test]
#[should_panic(expected = "not side by side")]
fn rows_that_panels_do_not_hold_cannot_be_scored() {
    let codes = [1; 3 * BLOCK];
    let mut panels = Panels::default();
    panels.set(CodeRows::new(&codes, BLOCK), 0..3);
    Scalar.panel_dots(&[1; BLOCK], &panels, 0, &mut [0; 4]);
}
