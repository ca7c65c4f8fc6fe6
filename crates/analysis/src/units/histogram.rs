//! Counts of values in cells of equal relative width, for quantiles of more values than memory holds.

use rustc_hash::FxHashMap;

use crate::methods::quantile::rank_of;

/// Bits of the mantissa that a cell does not tell apart.
const SHIFT: u32 = 40;

/// A histogram whose cells are at most 2^-12 of their value wide, so a quantile read from it is
/// within 2^-13 (0.012 %) of the exact one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Histogram {
    cells: FxHashMap<i64, u64>,
    n: u64,
}

/// Largest relative error of a value read from a histogram.
pub(crate) const RELATIVE_ERROR: f64 = 1.0 / 8192.0;

impl Histogram {
    pub(crate) fn add(&mut self, value: f64) {
        *self.cells.entry(cell(value)).or_insert(0) += 1;
        self.n += 1;
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        for (&cell, &count) in &other.cells {
            *self.cells.entry(cell).or_insert(0) += count;
        }
        self.n += other.n;
    }

    pub(crate) fn n(&self) -> u64 {
        self.n
    }

    /// The same in order, to be asked for ranks.
    pub(crate) fn sorted(&self) -> Ranks {
        let mut cells: Vec<(i64, u64)> = self.cells.iter().map(|(&c, &n)| (c, n)).collect();
        cells.sort_unstable();
        let mut upto = 0;
        Ranks {
            cells: cells
                .into_iter()
                .map(|(cell, count)| {
                    upto += count;
                    (middle(cell), upto)
                })
                .collect(),
            n: self.n,
        }
    }
}

/// Values in order.
pub(crate) struct Ranks {
    /// Middle of a cell, and values up to and in it.
    cells: Vec<(f64, u64)>,
    n: u64,
}

impl Ranks {
    pub(crate) fn n(&self) -> u64 {
        self.n
    }

    /// The value of a rank from 1, the largest beyond it; NaN without values.
    pub(crate) fn at_rank(&self, rank: u64) -> f64 {
        let at = self.cells.partition_point(|(_, upto)| *upto < rank);
        let cell = self.cells.get(at).or(self.cells.last());
        cell.map_or(f64::NAN, |(value, _)| *value)
    }

    /// The value below which a share of all values lies.
    pub(crate) fn quantile(&self, share: f64) -> f64 {
        self.at_rank(rank_of(share, self.n))
    }
}

/// Cells are ordered like the values in them.
fn cell(value: f64) -> i64 {
    let bits = value.to_bits().cast_signed();
    let ordered = bits ^ (((bits >> 63).cast_unsigned() >> 1).cast_signed());
    ordered >> SHIFT
}

fn middle(cell: i64) -> f64 {
    let value = |ordered: i64| {
        let bits = ordered ^ (((ordered >> 63).cast_unsigned() >> 1).cast_signed());
        f64::from_bits(bits.cast_unsigned())
    };
    let (low, high) = (value(cell << SHIFT), value((cell + 1) << SHIFT));
    // Whole numbers up to 4096 have a cell of their own, whose lower end they are.
    if low == low.trunc() && low.abs() < 4096.0 {
        low
    } else {
        f64::midpoint(low, high)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_keep_their_order_and_come_back_within_the_bound() {
        let mut values: Vec<f64> = vec![
            -5e9, -3.25, -0.5, 0.0, 1e-9, 0.1, 1.0, 17.0, 4095.0, 123_456.7, 9e17,
        ];
        values.extend((1..2_000).map(|i| f64::from(i) * 0.37));
        values.sort_by(f64::total_cmp);
        let mut cells: Vec<i64> = values.iter().map(|v| cell(*v)).collect();
        assert!(cells.is_sorted());
        cells.dedup();
        for value in values {
            let back = middle(cell(value));
            assert!(
                (back - value).abs() <= RELATIVE_ERROR * value.abs() * 2.0,
                "{value} {back}"
            );
        }
        assert_eq!(middle(cell(17.0)), 17.0);
        let mut h = Histogram::default();
        h.add(2.0);
        h.add(2.0);
        let mut other = Histogram::default();
        other.add(1.0);
        h.merge(&other);
        assert_eq!(h.n(), 3);
        let ranks = h.sorted();
        let of = [1, 2, 3, 4].map(|rank| ranks.at_rank(rank));
        assert_eq!(of, [1.0, 2.0, 2.0, 2.0]);
        assert_eq!(
            (ranks.quantile(1.0 / 3.0), ranks.quantile(0.34)),
            (1.0, 2.0)
        );
        assert!(Histogram::default().sorted().at_rank(1).is_nan());
    }

    proptest::proptest! {
        /// A rank is never misplaced by more than the resolution, and merging is counting.
        #[test]
        fn ranks_are_those_of_the_values(values in proptest::collection::vec(-1e9f64..1e9, 1..200), cut in 0usize..200) {
            let cut = cut.min(values.len());
            let (mut a, mut b) = (Histogram::default(), Histogram::default());
            values[..cut].iter().for_each(|v| a.add(*v));
            values[cut..].iter().for_each(|v| b.add(*v));
            b.merge(&a);
            let mut sorted = values;
            sorted.sort_by(f64::total_cmp);
            let ranks = b.sorted();
            for (rank, v) in (1..).zip(&sorted) {
                let got = ranks.at_rank(rank);
                proptest::prop_assert!((got - v).abs() <= 2.0 * RELATIVE_ERROR * v.abs(), "{got} {v}");
            }
        }
    }
}
