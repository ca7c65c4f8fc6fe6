//! Random numbers that are the same on every machine and for ever.
//!
//! xoshiro256** (Blackman, Vigna 2021, "Scrambled Linear Pseudorandom Number Generators", §5),
//! seeded by splitmix64 as its authors advise. Only integer operations, and floats by division by
//! a power of two, so that no library or instruction set can change a generated log.

/// A stream of random numbers.
#[derive(Debug, Clone)]
pub(crate) struct Rng([u64; 4]);

impl Rng {
    /// The stream of a seed. Streams with different `purpose` are independent, so that drawing
    /// more of one thing does not move another.
    pub(crate) fn new(seed: u64, purpose: u64) -> Self {
        let mut state = seed ^ purpose.wrapping_mul(0xd1b5_4a32_d192_ed03);
        let mut split_mix = || {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        };
        Self([split_mix(), split_mix(), split_mix(), split_mix()])
    }

    pub(crate) fn next(&mut self) -> u64 {
        let [a, b, c, d] = &mut self.0;
        let result = b.wrapping_mul(5).rotate_left(7).wrapping_mul(9);
        let shifted = *b << 17;
        *c ^= *a;
        *d ^= *b;
        *b ^= *c;
        *a ^= *d;
        *c ^= shifted;
        *d = d.rotate_left(45);
        result
    }

    /// Uniform in `0..bound`; `bound` must not be 0. The bias of the product method is below
    /// 2^-32 for the bounds here (Lemire 2019, §3).
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the upper half of a product with a u32"
    )]
    pub(crate) fn below(&mut self, bound: u32) -> u32 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u32
    }

    /// Uniform in `low..=high`.
    pub(crate) fn between(&mut self, low: u32, high: u32) -> u32 {
        low + self.below(high.saturating_sub(low).saturating_add(1))
    }

    /// Uniform in `[0, 1)`, a multiple of 2^-53.
    #[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
    pub(crate) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    pub(crate) fn chance(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    pub(crate) fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        let length = u32::try_from(from.len()).unwrap_or(u32::MAX);
        &from[self.below(length) as usize]
    }

    /// A random order (Fisher, Yates).
    pub(crate) fn shuffle<T>(&mut self, values: &mut [T]) {
        for end in (1..values.len()).rev() {
            let bound = u32::try_from(end + 1).unwrap_or(u32::MAX);
            values.swap(end, self.below(bound) as usize);
        }
    }
}

/// Draws ranks `0..n` with probability proportional to `1 / (rank + 1)^exponent` (Zipf), by
/// inversion of cumulated weights. O(log n) a draw.
#[derive(Debug, Clone)]
pub(crate) struct Zipf {
    cumulated: Vec<f64>,
}

impl Zipf {
    /// `half_powers` is twice the exponent: powers are products and square roots, which IEEE 754
    /// rounds the same everywhere, unlike `powf`.
    pub(crate) fn new(n: usize, half_powers: u32) -> Self {
        let mut total = 0.0;
        let cumulated = (1..=n).map(|rank| {
            #[expect(clippy::cast_precision_loss, reason = "ranks are far below 2^53")]
            let root = (rank as f64).sqrt();
            total += 1.0 / (0..half_powers).fold(1.0, |power, _| power * root);
            total
        });
        Self {
            cumulated: cumulated.collect(),
        }
    }

    pub(crate) fn draw(&self, rng: &mut Rng) -> usize {
        let Some(&total) = self.cumulated.last() else {
            return 0;
        };
        let at = rng.unit() * total;
        self.cumulated
            .partition_point(|&cumulated| cumulated <= at)
            .min(self.cumulated.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_never_changes() {
        let mut rng = Rng::new(1, 0);
        let first: Vec<u64> = (0..4).map(|_| rng.next()).collect();
        // Computed apart from this code, from the definitions of both generators.
        assert_eq!(
            first,
            [
                0xb3f2af6d0fc710c5,
                0x853b559647364cea,
                0x92f89756082a4514,
                0x642e1c7bc266a3a7
            ]
        );
    }

    #[test]
    fn draws_stay_in_range_and_spread() {
        let mut rng = Rng::new(7, 3);
        let mut seen = [0u32; 10];
        for _ in 0..10_000 {
            seen[rng.below(10) as usize] += 1;
            assert!((3..=5).contains(&rng.between(3, 5)));
            assert!((0.0..1.0).contains(&rng.unit()));
        }
        // Six standard deviations around 1000.
        assert!(
            seen.iter().all(|count| (820..1180).contains(count)),
            "{seen:?}"
        );
    }

    #[test]
    fn zipf_follows_its_law() {
        let zipf = Zipf::new(1000, 2);
        let mut rng = Rng::new(1, 1);
        let mut seen = vec![0u32; 1000];
        for _ in 0..100_000 {
            seen[zipf.draw(&mut rng)] += 1;
        }
        let ratio = f64::from(seen[0]) / f64::from(seen[9]);
        assert!((8.5..11.8).contains(&ratio), "{ratio}");
    }
}
