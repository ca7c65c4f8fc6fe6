//! Distribution functions: known values, round trips, far tails.

use proptest::prelude::*;
use refrain_analysis::methods::special::*;

#[track_caller]
fn relative(got: f64, expected: f64, tolerance: f64) {
    assert!(
        ((got - expected) / expected).abs() <= tolerance,
        "got {got:e}, expected {expected:e}"
    );
}

/// Values computed to 30 digits with mpmath.
#[test]
fn known_values() {
    relative(normal_upper_quantile(0.025), 1.959_963_984_540_054_2, 1e-15);
    relative(normal_sf(normal_upper_quantile(1e-300)), 1e-300, 1e-12);
    relative(normal_sf(10.0), 7.619_853_024_160_526e-24, 1e-14);
    relative(normal_sf(37.0), 5.725_571_222_524_577e-300, 1e-13);
    relative(t_two_sided(2.0, 3.0), 0.139_325_968_558_842_5, 1e-13);
    relative(chi_square_sf(22.774_369, 1.0), 1.821_793_3e-6, 1e-6);
    relative(chi_square_sf(1400.0, 2.0), libm::exp(-700.0), 1e-12);
    relative(f_sf(4.0, 1.0, 7.0), t_two_sided(2.0, 7.0), 1e-14);
    relative(binomial_cdf(3, 10, 0.5), 176.0 / 1024.0, 1e-14);
    relative(binomial_mass(5, 10, 0.5), 252.0 / 1024.0, 1e-14);
    relative(fair_coin_two_sided(5, 20), 0.041_389_465_332_031_25, 1e-13);
    relative(fair_coin_two_sided(10, 20), 1.0, 0.0);
}

/// At huge parameters differences of ln Γ would be left with no digits.
#[test]
fn a_hundred_million_degrees_of_freedom_are_the_normal_distribution() {
    for t in [0.1, 1.0, 2.0, 5.0, 8.0] {
        relative(t_two_sided(t, 1e12), normal_two_sided(t), 2e-9);
        // Continuous where the method changes.
        relative(
            t_two_sided(t, 1e7 * (1.0 + 1e-9)),
            t_two_sided(t, 1e7),
            1e-8,
        );
    }
    // A half of a symmetric binomial, less half of the middle.
    let n = 100_000_000;
    relative(
        binomial_cdf(n / 2, n, 0.5),
        0.5 + 0.5 * binomial_mass(n / 2, n, 0.5),
        1e-11,
    );
}

proptest! {
    #[test]
    fn normal_round_trips(x in -8.0f64..37.0) {
        let back = if x < 0.0 { normal_quantile(normal_cdf(x)) } else { normal_upper_quantile(normal_sf(x)) };
        prop_assert!((back - x).abs() < 1e-13 * x.abs().max(1.0) * 10.0, "{x} came back as {back}");
    }

    #[test]
    fn t_round_trips(p in 1e-12f64..0.5, df in 1.0f64..1e6) {
        let t = t_upper_quantile(p, df);
        prop_assert!((t_sf(t, df) / p - 1.0).abs() < 1e-9, "{p} {df} {t}");
    }

    #[test]
    fn chi_square_and_f_round_trip(p in 1e-12f64..0.999, df in 1.0f64..1e4, df2 in 1.0f64..1e4) {
        let x = chi_square_upper_quantile(p, df);
        prop_assert!((chi_square_sf(x, df) / p - 1.0).abs() < 1e-8, "{p} {df} {x}");
        let f = f_upper_quantile(p, df, df2);
        prop_assert!((f_sf(f, df, df2) / p - 1.0).abs() < 1e-8, "{p} {df} {df2} {f}");
    }

    #[test]
    fn both_tails_of_the_incomplete_beta_sum_to_one(a in 0.5f64..1e5, b in 0.5f64..1e5, at in -6.0f64..6.0) {
        let mean = a / (a + b);
        let sd = (mean * (1.0 - mean) / (a + b + 1.0)).sqrt();
        let x = (mean + at * sd).clamp(1e-9, 1.0 - 1e-9);
        let sum = incomplete_beta(a, b, x, 1.0 - x) + incomplete_beta(b, a, 1.0 - x, x);
        prop_assert!((sum - 1.0).abs() < 1e-9);
    }

    #[test]
    fn binomial_distribution_is_the_sum_of_its_masses(n in 1u64..60, k in 0u64..60, p in 0.01f64..0.99) {
        let k = k.min(n);
        let sum: f64 = (0..=k).map(|i| binomial_mass(i, n, p)).sum();
        prop_assert!((binomial_cdf(k, n, p) - sum).abs() < 1e-12);
    }
}
