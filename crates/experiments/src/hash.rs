//! MurmurHash3 x64-128 (Appleby 2011) and multiply-shift buckets.
//!
//! The hash is fixed for ever: logged assignments must be reproducible from any language. Keys are
//! bytes as sent, with no Unicode normalisation.

/// The low 64 bits of MurmurHash3 x64-128 of `key` with seed 0.
#[must_use]
pub fn hash64(key: &[u8]) -> u64 {
    KeyPrefix::EMPTY.hash64(key)
}

/// All 128 bits of MurmurHash3 x64-128 of `key` with seed 0, the low half in the low bits.
#[must_use]
pub fn hash128(key: &[u8]) -> u128 {
    let [low, high] = KeyPrefix::EMPTY.finish(key);
    (u128::from(high) << 64) | u128::from(low)
}

/// The bucket of a hash: `hash * buckets / 2^64`, in `0..buckets` (0 for no buckets).
///
/// Unlike a remainder, this keeps the order of hashes: `bucket(h, 10_000) == bucket(h, 1_000_000) /
/// 100`, so splitting buckets finer never moves a unit to another coarse one.
#[must_use]
#[expect(
    clippy::cast_possible_truncation,
    reason = "less than buckets, which is a u32"
)]
pub fn bucket(hash: u64, buckets: u32) -> u32 {
    ((u128::from(hash) * u128::from(buckets)) >> 64) as u32
}

/// A key's fixed beginning with its whole blocks already mixed in, so that hashing many keys with
/// one beginning neither joins strings nor repeats work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyPrefix {
    state: State,
    /// The last bytes, which do not fill a block; zeros behind them.
    tail: [u8; BLOCK],
    tail_len: usize,
    len: u64,
}

impl KeyPrefix {
    /// The empty beginning.
    pub const EMPTY: Self = Self {
        state: State { h1: 0, h2: 0 },
        tail: [0; BLOCK],
        tail_len: 0,
        len: 0,
    };

    /// Mixes in the beginning of a key. O(length).
    #[must_use]
    pub fn new(prefix: &[u8]) -> Self {
        let (blocks, rest) = prefix.as_chunks::<BLOCK>();
        let mut state = Self::EMPTY.state;
        for block in blocks {
            state.mix(block);
        }
        Self {
            state,
            tail: padded(rest, &[]),
            tail_len: rest.len(),
            len: prefix.len() as u64,
        }
    }

    /// [`hash64`] of this beginning followed by `rest`. O(length of `rest`), allocates nothing.
    #[must_use]
    pub fn hash64(&self, rest: &[u8]) -> u64 {
        self.finish(rest)[0]
    }

    fn finish(&self, rest: &[u8]) -> [u64; 2] {
        let len = self.len.wrapping_add(rest.len() as u64);
        let mut state = self.state;
        let (tail, _) = self.tail.split_at(self.tail_len);
        let Some((fill, rest)) = rest.split_at_checked(BLOCK - tail.len()) else {
            return state.finish(&padded(tail, rest), len);
        };
        state.mix(&padded(tail, fill));
        let (blocks, rest) = rest.as_chunks::<BLOCK>();
        for block in blocks {
            state.mix(block);
        }
        state.finish(&padded(rest, &[]), len)
    }
}

const BLOCK: usize = 16;
const C1: u64 = 0x87c3_7b91_1142_53d5;
const C2: u64 = 0x4cf5_ad43_2745_937f;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct State {
    h1: u64,
    h2: u64,
}

impl State {
    fn mix(&mut self, block: &[u8; BLOCK]) {
        let [k1, k2] = words(block);
        self.h1 = (self.h1 ^ scramble_low(k1))
            .rotate_left(27)
            .wrapping_add(self.h2);
        self.h1 = self.h1.wrapping_mul(5).wrapping_add(0x52dc_e729);
        self.h2 = (self.h2 ^ scramble_high(k2))
            .rotate_left(31)
            .wrapping_add(self.h1);
        self.h2 = self.h2.wrapping_mul(5).wrapping_add(0x3849_5ab5);
    }

    /// `tail` is the last, incomplete block, padded with zeros: a zero word scrambles to zero and
    /// leaves the state alone, which is what the definition asks for where there are no bytes.
    fn finish(self, tail: &[u8; BLOCK], len: u64) -> [u64; 2] {
        let [k1, k2] = words(tail);
        let mut h1 = self.h1 ^ scramble_low(k1) ^ len;
        let mut h2 = self.h2 ^ scramble_high(k2) ^ len;
        h1 = h1.wrapping_add(h2);
        h2 = h2.wrapping_add(h1);
        h1 = avalanche(h1);
        h2 = avalanche(h2);
        h1 = h1.wrapping_add(h2);
        h2 = h2.wrapping_add(h1);
        [h1, h2]
    }
}

fn scramble_low(k: u64) -> u64 {
    k.wrapping_mul(C1).rotate_left(31).wrapping_mul(C2)
}

fn scramble_high(k: u64) -> u64 {
    k.wrapping_mul(C2).rotate_left(33).wrapping_mul(C1)
}

fn avalanche(mut k: u64) -> u64 {
    k = (k ^ (k >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    k = (k ^ (k >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    k ^ (k >> 33)
}

fn words(block: &[u8; BLOCK]) -> [u64; 2] {
    let block = u128::from_le_bytes(*block);
    #[expect(clippy::cast_possible_truncation, reason = "takes the low half")]
    [block as u64, (block >> 64) as u64]
}

/// `head` and `tail` joined, zeros behind; together at most a block.
fn padded(head: &[u8], tail: &[u8]) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    if let Some((first, rest)) = block.split_at_mut_checked(head.len())
        && let Some((second, _)) = rest.split_at_mut_checked(tail.len())
    {
        first.copy_from_slice(head);
        second.copy_from_slice(tail);
    }
    block
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// unit, layer hash, bucket of 1M and of 10k, arm hash, grid: names `ranking` and `rank-blend`,
    /// epoch 1. Computed with the reference implementation, not with this one.
    const VECTORS: [(&str, u64, u32, u32, u64, u32); 5] = [
        (
            "u1",
            13_455_888_550_578_269_404,
            729_445,
            7294,
            489_857_473_915_000_697,
            26_555,
        ),
        (
            "u2",
            3_738_333_877_770_571_106,
            202_655,
            2026,
            13_001_557_281_017_147_472,
            704_815,
        ),
        (
            "u3",
            3_082_807_806_092_128_413,
            167_119,
            1671,
            465_725_212_624_018_308,
            25_247,
        ),
        (
            "roug",
            5_806_619_127_780_210_158,
            314_777,
            3147,
            7_237_049_069_613_092_177,
            392_321,
        ),
        (
            "élodie",
            8_362_012_400_667_207_877,
            453_305,
            4533,
            114_671_187_897_740_581,
            6216,
        ),
    ];

    #[test]
    fn reproduces_the_published_vectors() {
        for (unit, layer, million, ten_thousand, arm, grid) in VECTORS {
            let h = hash64(format!("L:ranking:1|{unit}").as_bytes());
            assert_eq!(h, layer, "{unit}");
            assert_eq!(bucket(h, 1_000_000), million, "{unit}");
            assert_eq!(bucket(h, 10_000), ten_thousand, "{unit}");
            let h = hash64(format!("E:rank-blend:1|{unit}").as_bytes());
            assert_eq!(h, arm, "{unit}");
            assert_eq!(bucket(h, 1_000_000), grid, "{unit}");
        }
    }

    /// Another program's documented assignment, which uses the same hash: its low 64 bits, shifted
    /// right by 4, modulo 1,000,000.
    #[test]
    fn agrees_with_a_foreign_vector() {
        assert_eq!(
            (hash64(b"MegaSalt-confidence-test|roug") >> 4) % 1_000_000,
            567_493
        );
    }

    #[test]
    fn uniform_over_percentiles() {
        let mut cells = [0_u32; 100];
        for h in layer_hashes("ranking") {
            cells[bucket(h, 100) as usize] += 1;
        }
        let statistic: f64 = cells
            .iter()
            .map(|&n| (f64::from(n) - 1000.0).powi(2) / 1000.0)
            .sum();
        assert!((statistic - 78.7).abs() < 1e-9, "{statistic}");
        assert_p(statistic, 99, 0.934_068);
    }

    #[test]
    fn layers_are_independent() {
        let mut cells = [[0.0; 4]; 4];
        for (a, b) in layer_hashes("ranking").zip(layer_hashes("diversity")) {
            cells[bucket(a, 4) as usize][bucket(b, 4) as usize] += 1.0;
        }
        let statistic = chi_square(&cells);
        assert!((statistic - 13.980_821).abs() < 1e-6, "{statistic}");
        assert_p(statistic, 9, 0.123_009);
    }

    /// A single pair that passes proves little: over 1,000 pairs of layers, and 1,000 of layer and
    /// experiment, p-values must be uniform.
    #[test]
    fn a_thousand_pairs_of_salts_are_independent() {
        let units: Vec<String> = (0..10_000).map(|i| format!("u{i}")).collect();
        for other in ["L:other", "E:experiment"] {
            let mut values: Vec<f64> = (0..1_000)
                .map(|pair| {
                    let salts = [format!("L:layer{pair}:1|"), format!("{other}{pair}:1|")];
                    let [one, two] = salts.map(|salt| KeyPrefix::new(salt.as_bytes()));
                    let mut cells = [[0.0; 4]; 4];
                    for unit in &units {
                        let cell =
                            |key: &KeyPrefix| bucket(key.hash64(unit.as_bytes()), 4) as usize;
                        cells[cell(&one)][cell(&two)] += 1.0;
                    }
                    chi_square_p(chi_square(&cells), 9)
                })
                .collect();
            values.sort_by(f64::total_cmp);
            let p = kolmogorov_smirnov_p(&values);
            println!("1000 pairs of a layer and {other}: p of uniform p-values {p:.3}");
            assert!(p > 0.01, "{p}");
        }
    }

    #[test]
    fn ramp_and_arms_have_the_documented_counts() {
        let arms = (0..100_000).map(|i| hash64(format!("E:rank-blend:1|u{i}").as_bytes()));
        let units: Vec<_> = layer_hashes("ranking").zip(arms).collect();
        let within = |bp: u32| units.iter().filter(move |(l, _)| bucket(*l, 10_000) < bp);
        assert_eq!(within(1000).count(), 9_956);
        assert_eq!(within(2000).count(), 19_864);
        let upper = within(1000)
            .filter(|(_, a)| bucket(*a, 1_000_000) >= 500_000)
            .count();
        assert_eq!(upper, 5_017);

        let mut cells = [[0.0; 2]; 2];
        for (layer, arm) in within(1000) {
            cells[usize::from(bucket(*layer, 10_000) >= 500)]
                [usize::from(bucket(*arm, 1_000_000) >= 500_000)] += 1.0;
        }
        let statistic = chi_square(&cells);
        assert!((statistic - 0.013_463).abs() < 1e-6, "{statistic}");
        assert_p(statistic, 1, 0.907_629);
    }

    proptest! {
        #[test]
        fn a_prefix_changes_nothing(key: Vec<u8>, at: prop::sample::Index) {
            let at = at.index(key.len() + 1);
            let (prefix, rest) = key.split_at(at);
            prop_assert_eq!(KeyPrefix::new(prefix).hash64(rest), hash64(&key));
        }

        #[test]
        fn refining_never_moves(h: u64) {
            prop_assert_eq!(bucket(h, 10_000), bucket(h, 1_000_000) / 100);
            prop_assert!(bucket(h, 10_000) < 10_000);
        }
    }

    fn layer_hashes(layer: &str) -> impl Iterator<Item = u64> {
        let prefix = KeyPrefix::new(format!("L:{layer}:1|").as_bytes());
        (0..100_000).map(move |i| prefix.hash64(format!("u{i}").as_bytes()))
    }

    fn assert_p(statistic: f64, df: u32, expected: f64) {
        let p = chi_square_p(statistic, df);
        assert!((p - expected).abs() < 1e-6, "{p} is not {expected}");
    }

    /// The upper tail of chi-square with an odd number of degrees of freedom, in closed form
    /// (Abramowitz and Stegun, 26.4.4).
    fn chi_square_p(statistic: f64, df: u32) -> f64 {
        assert!(df % 2 == 1);
        let root = statistic.sqrt();
        let density = (-statistic / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt();
        let (mut term, mut sum) = (root, 0.0);
        for k in (1..df).step_by(2) {
            sum += term;
            term *= statistic / f64::from(k + 2);
        }
        libm::erfc(root * std::f64::consts::FRAC_1_SQRT_2) + 2.0 * density * sum
    }

    /// The p-value of sorted values being uniform, asymptotically.
    fn kolmogorov_smirnov_p(sorted: &[f64]) -> f64 {
        let n = sorted.len() as f64;
        let distance = sorted
            .iter()
            .enumerate()
            .map(|(i, p)| (p - i as f64 / n).max((i + 1) as f64 / n - p))
            .fold(0.0, f64::max);
        let x = distance * n.sqrt();
        let terms = (1..=100_i32).map(|k| {
            let sign = if k % 2 == 1 { 1.0 } else { -1.0 };
            sign * (-2.0 * f64::from(k * k) * x * x).exp()
        });
        (2.0 * terms.sum::<f64>()).clamp(0.0, 1.0)
    }

    /// Pearson's statistic of independence of rows and columns.
    fn chi_square<const N: usize>(cells: &[[f64; N]; N]) -> f64 {
        let rows = cells.map(|row| row.iter().sum::<f64>());
        let columns: [f64; N] = std::array::from_fn(|c| cells.iter().map(|row| row[c]).sum());
        let total: f64 = rows.iter().sum();
        let mut statistic = 0.0;
        for (row, &row_sum) in cells.iter().zip(&rows) {
            for (n, column_sum) in row.iter().zip(columns) {
                let expected = row_sum * column_sum / total;
                statistic += (n - expected).powi(2) / expected;
            }
        }
        statistic
    }
}
