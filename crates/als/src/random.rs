//! The initial factors: small Gaussian-like values from a generator of our own, so that a seed means
//! the same factors for as long as this file stands.

/// `rows * rank` values of mean 0 and variance `0.01 / rank`, so that the first predictions are near 0
/// and no two rows alike (the initialisation of Rendle et al. 2021, §4).
///
/// Each value is a sum of four uniforms: near enough to a Gaussian, without a logarithm or a cosine
/// whose last bit differs between platforms.
#[expect(
    clippy::cast_possible_truncation,
    reason = "rounding to f32 is the point"
)]
pub(crate) fn initial_factors(rows: usize, rank: usize, seed: u64) -> Vec<f32> {
    // A sum of four uniforms on [0, 1) has mean 2 and variance 1/3.
    let scale = 0.1 * (3.0 / rank as f64).sqrt();
    let mut state = seed;
    (0..rows * rank)
        .map(|_| {
            let bits = split_mix(&mut state);
            let sum: u64 = (0..4).map(|lane| (bits >> (16 * lane)) & 0xffff).sum();
            ((sum as f64 / 65536.0 - 2.0) * scale) as f32
        })
        .collect()
}

/// SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn split_mix_reproduces_its_reference_stream() {
        // First outputs of the reference implementation for seed 1234567.
        let mut state = 1_234_567;
        assert_eq!(split_mix(&mut state), 6_457_827_717_110_365_317);
        assert_eq!(split_mix(&mut state), 3_203_168_211_198_807_973);
    }

    #[test]
    fn initial_factors_have_the_promised_moments() {
        let values = initial_factors(10_000, 16, 7);
        let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / values.len() as f64;
        let variance =
            values.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>() / values.len() as f64;
        assert!(mean.abs() < 3e-4, "mean {mean}");
        assert!(
            (variance * 16.0 / 0.01 - 1.0).abs() < 0.02,
            "variance {variance}"
        );
        assert_ne!(values, initial_factors(10_000, 16, 8));
    }
}
