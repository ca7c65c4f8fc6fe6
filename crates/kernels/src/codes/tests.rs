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
        rows in 1_usize..9,
        seed in prop::collection::vec(any::<u8>(), 32..64),
        extreme in any::<bool>(),
        start in 0_usize..5,
        ids in prop::collection::vec(0_u32..9, 0..23),
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
        }
    }
}

proptest! {
    #[test]
    fn every_level_sums_nibbles_exactly(
        dim in 1_usize..700,
        rows in 1_usize..9,
        seed in prop::collection::vec(any::<u8>(), 32..64),
        extreme in any::<bool>(),
        start in 0_usize..5,
        ids in prop::collection::vec(0_u32..9, 0..23),
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
