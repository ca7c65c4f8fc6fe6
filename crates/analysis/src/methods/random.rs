//! Seeded randomness for resampling: splitmix64 (Steele, Lea, Flood 2014).

/// A generator that is the same on every platform for ever.
#[derive(Debug, Clone)]
pub(super) struct SplitMix {
    state: u64,
}

impl SplitMix {
    pub(super) fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    pub(super) fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.state)
    }

    /// A number below `n` (0 for no numbers), by multiply-shift: bias below n / 2^64.
    pub(super) fn below(&mut self, n: usize) -> usize {
        let product = u128::from(self.next()) * (n as u128);
        usize::try_from(product >> 64).unwrap_or(0)
    }
}

/// The finaliser alone: a hash of a number.
pub(super) fn mix(z: u64) -> u64 {
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
