//! Random numbers that are a pure function of a seed and a name, so that the same request draws the
//! same list on every replica, in whatever order candidates arrive.

/// The output function of SplitMix64 (Steele, Lea and Flood 2014) at `seed` and `name`.
pub(crate) fn mix(seed: u64, name: u64) -> u64 {
    let step = |mut z: u64| {
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    // Twice, so that names of one seed and seeds of one name are equally unrelated.
    step(step(seed.wrapping_add(0x9e37_79b9_7f4a_7c15)) ^ name.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

/// Uniform in the open interval 0 to 1: the middles of 2^52 equal cells.
pub(crate) fn uniform(seed: u64, name: u64) -> f64 {
    ((mix(seed, name) >> 12) as f64 + 0.5) / (1_u64 << 52) as f64
}

/// Standard Gumbel: `-ln(-ln(u))`. By `libm`, whose bits do not depend on the system.
pub(crate) fn gumbel(seed: u64, name: u64) -> f64 {
    -libm::log(-libm::log(uniform(seed, name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// First two moments of the uniform and the Gumbel distribution, within 5 standard errors.
    #[test]
    fn moments_are_those_of_the_distributions() {
        let n = 100_000_u32;
        let mean = |f: &dyn Fn(u64) -> f64| (0..n).map(|i| f(i.into())).sum::<f64>() / f64::from(n);
        let root = f64::from(n).sqrt();
        let u = mean(&|i| uniform(7, i));
        assert!((u - 0.5).abs() < 5.0 * 0.288_675 / root, "{u}");
        let by_seed = mean(&|i| uniform(i, 7));
        assert!((by_seed - 0.5).abs() < 5.0 * 0.288_675 / root, "{by_seed}");
        // Euler's constant and pi squared over six.
        let g = mean(&|i| gumbel(7, i));
        assert!((g - 0.577_216).abs() < 5.0 * 1.282_55 / root, "{g}");
        let variance = mean(&|i| (gumbel(7, i) - 0.577_216).powi(2));
        assert!(
            (variance - 1.644_934).abs() < 5.0 * 3.44 / root,
            "{variance}"
        );
        assert!((0..n).all(|i| gumbel(i.into(), 3).is_finite()));
    }
}
