//! A sum of f64 without rounding, so that it does not depend on the order of its terms.

use super::double::Double;

/// Bits of one limb that carry value; the other half of the i64 collects carries.
const LIMB_BITS: u32 = 32;
const LIMB_MASK: u128 = (1 << LIMB_BITS) - 1;
/// Exponents 1..=2046 land in limbs 0..=63; a shifted 53-bit significand reaches two limbs further,
/// and one more takes the carries.
const LIMBS: usize = 67;
/// Additions of less than 2^32 that an i64 limb takes without overflow, with room to spare.
const MAX_PENDING: u32 = 1 << 29;
/// Weight of the lowest bit of limb 0 is 2^-1075.
const LOWEST_EXPONENT: i32 = -1075;

/// A fixed-point register wide enough for every finite f64 (the small superaccumulator of Neal,
/// arXiv:1505.05571). Adding and merging are exact, hence commutative and associative: any split of
/// the terms over threads, files or machines gives the same bits. 550 bytes.
#[derive(Debug, Clone)]
pub(super) struct ExactSum {
    limbs: [i64; LIMBS],
    pending: u32,
}

impl Default for ExactSum {
    fn default() -> Self {
        Self {
            limbs: [0; LIMBS],
            pending: 0,
        }
    }
}

impl ExactSum {
    /// Adds a finite number. O(1).
    pub(super) fn add(&mut self, value: f64) {
        debug_assert!(value.is_finite());
        let bits = value.to_bits();
        let exponent = (bits >> 52) & 0x7ff;
        let fraction = bits & ((1 << 52) - 1);
        // Subnormals have no hidden bit and the exponent of the smallest normal number.
        let (significand, exponent) = match exponent {
            0 => (fraction, 1),
            _ => (fraction | (1 << 52), exponent),
        };
        if significand == 0 {
            return;
        }
        if self.pending == MAX_PENDING {
            self.carry();
        }
        self.pending += 1;
        let wide = u128::from(significand) << (exponent % 32);
        let first = usize::try_from(exponent / 32).unwrap_or(0);
        let sign = if value < 0.0 { -1 } else { 1 };
        for (i, limb) in self.limbs[first..first + 3].iter_mut().enumerate() {
            let part = (wide >> (LIMB_BITS * u32::try_from(i).unwrap_or(0))) & LIMB_MASK;
            *limb += sign * i64::try_from(part).unwrap_or(0);
        }
    }

    /// Adds another sum. O(1).
    pub(super) fn merge(&mut self, other: &Self) {
        if self.pending.saturating_add(other.pending) >= MAX_PENDING {
            self.carry();
        }
        let mut other = other.clone();
        if self.pending.saturating_add(other.pending) >= MAX_PENDING {
            other.carry();
        }
        for (a, b) in self.limbs.iter_mut().zip(&other.limbs) {
            *a += b;
        }
        self.pending = self.pending.saturating_add(other.pending);
    }

    /// The sum, correct to about 96 bits.
    pub(super) fn value(&self) -> Double {
        let mut sum = self.clone();
        sum.carry();
        let negative = sum.limbs[LIMBS - 1] < 0;
        if negative {
            for limb in &mut sum.limbs {
                *limb = -*limb;
            }
            sum.carry();
        }
        let Some(top) = sum.limbs.iter().rposition(|&l| l != 0) else {
            return Double::ZERO;
        };
        let low = top.saturating_sub(3);
        let mut wide: u128 = 0;
        for &limb in sum.limbs[low..=top].iter().rev() {
            wide = (wide << LIMB_BITS) | u128::try_from(limb).unwrap_or(0);
        }
        let sticky = sum.limbs[..low].iter().any(|&l| l != 0);
        wide |= u128::from(sticky);
        #[expect(
            clippy::cast_precision_loss,
            reason = "rounded on purpose: the rest is `lo`"
        )]
        let hi = wide as f64;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "hi is a whole number from 0 to 2^128, which the cast saturates; the difference is below 2^76"
        )]
        let lo = wide.wrapping_sub(hi as u128).cast_signed() as f64;
        let exponent = LOWEST_EXPONENT + 32 * i32::try_from(low).unwrap_or(0);
        let sign = if negative { -1.0 } else { 1.0 };
        Double::new(
            sign * libm::ldexp(hi, exponent),
            sign * libm::ldexp(lo, exponent),
        )
    }

    /// Brings every limb but the last into 0..2^32: the one canonical form of a value.
    fn carry(&mut self) {
        let mut carry = 0;
        let last = LIMBS - 1;
        for limb in &mut self.limbs[..last] {
            let sum = *limb + carry;
            carry = sum >> LIMB_BITS;
            *limb = sum & 0xffff_ffff;
        }
        self.limbs[last] += carry;
        self.pending = 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn keeps_what_rounding_loses() {
        let mut sum = ExactSum::default();
        for v in [1e300, 1.0, -1e300, 1e-300, 5e-324, -1.0] {
            sum.add(v);
        }
        assert_eq!(sum.value().hi, 1e-300);
        assert_eq!(ExactSum::default().value().value(), 0.0);
    }

    proptest! {
        #[test]
        fn order_and_partition_do_not_show(values in prop::collection::vec(prop::num::f64::NORMAL | prop::num::f64::SUBNORMAL | prop::num::f64::ZERO, 0..60), cut in 0usize..60) {
            // Kept where nothing overflows.
            let values: Vec<f64> = values.iter().map(|v| v * 1e-10).collect();
            let cut = cut.min(values.len());
            let mut forward = ExactSum::default();
            values.iter().for_each(|&v| forward.add(v));
            let (mut a, mut b) = (ExactSum::default(), ExactSum::default());
            values[..cut].iter().rev().for_each(|&v| a.add(v));
            values[cut..].iter().rev().for_each(|&v| b.add(v));
            b.merge(&a);
            prop_assert_eq!(forward.value(), b.value());
        }

        #[test]
        fn small_integers_sum_as_integers(values in prop::collection::vec(-1_000_000_000_000i64..1_000_000_000_000, 0..50)) {
            let mut sum = ExactSum::default();
            #[expect(clippy::cast_precision_loss, reason = "below 2^53")]
            for &v in &values { sum.add(v as f64); }
            #[expect(clippy::cast_precision_loss, reason = "below 2^53")]
            let expected = values.iter().sum::<i64>() as f64;
            prop_assert_eq!(sum.value().value(), expected);
        }

        #[test]
        fn one_number_comes_back(v in prop::num::f64::NORMAL | prop::num::f64::SUBNORMAL) {
            let mut sum = ExactSum::default();
            sum.add(v);
            prop_assert_eq!(sum.value().value(), v);
        }
    }
}
