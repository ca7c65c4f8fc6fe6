//! How vectors are coded: sixteen bits a value, in two bytes that lie apart.
//!
//! Each item has a *step*, the smallest of a geometric ladder ([`ladder`]) with which its largest
//! value still fits. A value is held as `step · (high + low / 256)`: the walk reads the high bytes
//! alone, one cache line up to 64 dimensions; what it found is scored again with both.
//!
//! Steps of its own for each item keep the precision relative to the item's length. Under inner
//! product lengths differ a hundredfold, and with one step for all the small items lose theirs.
//! The step is named by one byte, so that the names of a million items stay in the cache.

use refrain_kernels::{Kernels, Lines, Metric, codes::BLOCK};

/// Rungs of the ladder of steps.
pub(crate) const RUNGS: usize = 256;

/// Rungs to a halving of the step, at most: an item's step is then no more than 4.5 % wider than it
/// would need.
const RUNGS_A_HALVING: f64 = 16.0;

/// Largest magnitude of the high byte of a value as coded; -128 never occurs.
const REACH: f32 = 127.0;

/// Low bytes to one step of the high byte.
pub(crate) const PARTS: f32 = 256.0;

/// Bytes of a row of high bytes: whole blocks of the kernels, and whole cache lines when longer
/// than one block, so that no row touches a line more than it needs.
pub(crate) fn stride(dim: usize) -> usize {
    if dim <= BLOCK {
        BLOCK
    } else {
        dim.next_multiple_of(2 * BLOCK)
    }
}

/// The ladder on which a value of magnitude `largest` fits the first rung, and items whose largest
/// value is `smallest` still have a rung of their own: the wider the range, the coarser the rungs,
/// so that one item a million times as long as all others does not blur them.
pub(crate) fn ladder(largest: f32, smallest: f32) -> [f32; RUNGS] {
    let top = f64::from(largest) / f64::from(REACH) * 1.000_001;
    let halvings = (f64::from(largest) / f64::from(smallest)).log2();
    let finest = (RUNGS - 1) as f64 / halvings;
    // Not a number, where there is nothing but zeros.
    let rungs = if finest.is_finite() && finest > 0.0 {
        finest.min(RUNGS_A_HALVING)
    } else {
        RUNGS_A_HALVING
    };
    let mut rung = 0.0;
    std::array::from_fn(|_| {
        let step = top * (-rung / rungs).exp2();
        rung += 1.0;
        // A step that vanishes would divide by zero.
        narrow(step).max(f32::MIN_POSITIVE)
    })
}

/// The narrowest rung with which `largest` fits.
pub(crate) fn rung(steps: &[f32; RUNGS], largest: f32) -> u8 {
    // Steps fall, so the rungs that are wide enough come first.
    let enough = steps.partition_point(|step| step * REACH >= largest);
    u8::try_from(enough.saturating_sub(1)).unwrap_or(u8::MAX)
}

/// Codes `values` with a step: high bytes and low bytes.
pub(crate) fn encode(values: &[f32], step: f32, high: &mut [i8], low: &mut [i8]) {
    let scale = PARTS / step;
    for ((value, high), low) in values.iter().zip(high).zip(low) {
        let whole = nearest((value * scale).clamp(-REACH * PARTS, REACH * PARTS));
        #[expect(clippy::cast_possible_truncation, reason = "clamped to 16 bits first")]
        let whole = whole as i32;
        // To the nearest, so that the high byte alone errs to neither side.
        let nearest = (whole + 128) >> 8;
        #[expect(
            clippy::cast_possible_truncation,
            reason = "at most 127 and 128 in magnitude"
        )]
        let (coarse, fine) = (nearest as i8, (whole - (nearest << 8)) as i8);
        (*high, *low) = (coarse, fine);
    }
}

/// The nearest whole number, the even one of two, of a magnitude up to 2^22: `round_ties_even` is a
/// call of a library on older machines.
#[inline(always)]
pub(crate) fn nearest(value: f32) -> f32 {
    /// From here on a step of `f32` is one.
    const WHOLE: f32 = 12_582_912.0;
    (value + WHOLE) - WHOLE
}

/// The nearest whole number, the even one of two, of a magnitude below 2^15; 0 of what was an `f32` that is no number, which has
/// no bits so low. Without a conversion, which a compiler takes one at a time: 784 values took a microsecond.
#[inline(always)]
fn nearest_whole(value: f64) -> i16 {
    /// From here on a step of `f64` is one, and the lowest bits are those of the number.
    const WHOLE: f64 = 6_755_399_441_055_744.0;
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the lowest bits, on purpose"
    )]
    let lowest = (value + WHOLE).to_bits() as u16;
    lowest.cast_signed()
}

/// What high and low bytes stand for.
#[inline(always)]
pub(crate) fn decode(high: &[i8], low: &[i8], step: f32, out: &mut [f32]) {
    let scale = step / PARTS;
    for ((high, low), out) in high.iter().zip(low).zip(out) {
        *out = (i32::from(*high) * 256 + i32::from(*low)) as f32 * scale;
    }
}

/// A query in the integers the walk scores with: `query ≈ factor · values`.
#[derive(Clone, Debug, Default)]
pub(crate) struct CodeQuery {
    /// As long as a row of codes.
    pub(crate) values: Lines<i16>,
    pub(crate) factor: f32,
}

impl CodeQuery {
    /// Takes on `query`, padded to `stride`.
    pub(crate) fn set(&mut self, query: &[f32], stride: usize) {
        let (largest, sum) = extent(query);
        self.values.resize(stride);
        let (values, rest) = self.values.split_at_mut(query.len());
        rest.fill(0);
        // Overflow to infinity is possible only with values no catalogue has; it scores nothing.
        if largest == 0.0 || !largest.is_finite() {
            self.factor = 0.0;
            values.fill(0);
            return;
        }
        let reach = refrain_kernels::codes::largest(sum / f64::from(largest));
        let scale = f64::from(reach) / f64::from(largest);
        self.factor = narrow(1.0 / scale);
        for (whole, value) in values.iter_mut().zip(query) {
            *whole = nearest_whole(f64::from(*value) * scale);
        }
    }
}

/// The largest magnitude and the sum of all, in eight lanes: one would wait for itself.
fn extent(values: &[f32]) -> (f32, f64) {
    let (parts, rest) = values.as_chunks::<8>();
    let (mut largest, mut sums) = ([0.0_f32; 8], [0.0_f64; 8]);
    for part in parts {
        for ((largest, sum), value) in largest.iter_mut().zip(&mut sums).zip(part) {
            let value = value.abs();
            *largest = if value > *largest { value } else { *largest };
            *sum += f64::from(value);
        }
    }
    let rest = rest.iter().map(|value| value.abs());
    (
        largest.into_iter().chain(rest.clone()).fold(0.0, f32::max),
        sums.into_iter().chain(rest.map(f64::from)).sum(),
    )
}

/// Writes the products of `row` with the rows of a projection.
pub(crate) fn project(projection: &[f32], row: &[f32], out: &mut [f32]) {
    let kernels = Kernels::active();
    let components = projection.chunks_exact(row.len().max(1));
    for (out, component) in out.iter_mut().zip(components) {
        *out = kernels.dot(component, row);
    }
}

/// The widest magnitude of the coded values.
pub(crate) fn magnitude(values: &[f32]) -> f32 {
    values
        .iter()
        .fold(0.0, |largest, value| largest.max(value.abs()))
}

/// The centre: the mean for l2, where only differences count; else zeros.
pub(crate) fn centre(metric: Metric, vectors: &[f32], dim: usize) -> Vec<f32> {
    let mut sums = vec![0.0_f64; dim];
    if metric == Metric::L2 {
        for row in vectors.chunks_exact(dim) {
            for (sum, value) in sums.iter_mut().zip(row) {
                *sum += f64::from(*value);
            }
        }
    }
    let n = (vectors.len() / dim).max(1) as f64;
    sums.into_iter().map(|sum| narrow(sum / n)).collect()
}

#[expect(clippy::cast_possible_truncation, reason = "rounds to nearest")]
pub(crate) fn narrow(value: f64) -> f32 {
    value as f32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn values_come_back_within_half_a_part(
            values in prop::collection::vec(-1e3_f32..1e3, 1..40), scale in -20_i32..20,
        ) {
            let values: Vec<f32> = values.iter().map(|v| v * 2_f32.powi(scale)).collect();
            let largest = magnitude(&values);
            let steps = ladder(largest * 3.0, largest);
            let step = steps[usize::from(rung(&steps, largest))];
            prop_assert!(step * REACH >= largest);
            prop_assert!(step * REACH <= largest * 1.05);
            let (mut high, mut low) = (vec![0; values.len()], vec![0; values.len()]);
            encode(&values, step, &mut high, &mut low);
            let mut back = vec![0.0; values.len()];
            decode(&high, &low, step, &mut back);
            for (value, back) in values.iter().zip(&back) {
                prop_assert!((value - back).abs() <= step / PARTS * 0.51, "{value} {back} {step}");
            }
            prop_assert!(high.iter().all(|high| *high > i8::MIN));
        }

        #[test]
        fn a_query_keeps_fifteen_bits(values in prop::collection::vec(-1e3_f32..1e3, 1..300)) {
            let mut query = CodeQuery::default();
            query.set(&values, stride(values.len()));
            let largest = magnitude(&values);
            for (value, whole) in values.iter().zip(&*query.values) {
                let back = f32::from(*whole) * query.factor;
                prop_assert!((value - back).abs() <= largest / 25_000.0);
            }
            let sum: i64 = query.values.iter().map(|value| i64::from(value.abs()) * 128).sum();
            prop_assert!(sum <= i64::from(i32::MAX));
        }
    }

    #[test]
    fn whole_numbers_are_the_nearest() {
        for (value, whole) in [
            (0.4, 0),
            (-0.4, 0),
            (0.5, 0),
            (1.5, 2),
            (-1.5, -2),
            (32_639.2, 32_639),
            (-32_639.2, -32_639),
            (f64::from(f32::NAN), 0),
            (f64::from(f32::from_bits(0xffff_ffff)) * 3.0, 0),
        ] {
            assert_eq!(nearest_whole(value), whole, "{value}");
        }
    }

    #[test]
    fn nothing_is_coded_as_nothing() {
        let steps = ladder(0.0, f32::INFINITY);
        assert!(steps.iter().all(|step| *step > 0.0));
        let (mut high, mut low) = ([1], [1]);
        encode(&[0.0], steps[0], &mut high, &mut low);
        assert_eq!((high, low), ([0], [0]));
    }

    #[test]
    fn a_giant_does_not_blur_the_others() {
        let steps = ladder(1e18, 0.25);
        let step = steps[usize::from(rung(&steps, 0.25))];
        assert!((0.25..0.35).contains(&(step * REACH)), "{step}");
        assert!(steps[0] * REACH >= 1e18);
    }

    #[test]
    fn rows_are_whole_lines() {
        assert_eq!(
            [1, 32, 33, 64, 65, 100, 784].map(stride),
            [32, 32, 64, 64, 128, 128, 832]
        );
    }
}
