//! Group-sequential bounds against independent high-resolution ones, and their properties.

use refrain_analysis::methods::effect::Effect;
use refrain_analysis::methods::sequential::{
    GroupSequential, LARGEST_BOUND, Spending, bonferroni_bound, inflation, stopping_probabilities,
};

use crate::support::close;

fn even(looks: u32) -> Vec<f64> {
    (1..=looks)
        .map(|k| f64::from(k) / f64::from(looks))
        .collect()
}

#[track_caller]
fn check(alpha: f64, spending: Spending, fractions: &[f64], expected: &[f64]) {
    let test = GroupSequential::planned(alpha, spending, fractions).expect("valid");
    for (look, z) in test.looks().iter().zip(expected) {
        close(look.z, *z, 1e-5);
    }
    assert_eq!(test.looks().len(), expected.len());
}

#[test]
fn bounds_of_the_reference_table() {
    use Spending::{OBrienFleming, Pocock, Power};
    let t2 = Power(2.0);
    check(
        0.025,
        OBrienFleming,
        &even(4),
        &[4.332634, 2.963132, 2.359044, 2.014090],
    );
    check(
        0.05,
        OBrienFleming,
        &even(4),
        &[3.749552, 2.539943, 2.016070, 1.720177],
    );
    check(
        0.025,
        OBrienFleming,
        &even(5),
        &[4.876885, 3.357012, 2.680280, 2.289817, 2.031032],
    );
    check(
        0.025,
        Pocock,
        &even(5),
        &[2.437977, 2.426814, 2.410194, 2.396649, 2.386000],
    );
    check(
        0.025,
        Pocock,
        &even(4),
        &[2.368328, 2.367524, 2.358168, 2.350036],
    );
    check(
        0.05,
        t2,
        &even(4),
        &[2.734369, 2.301870, 2.010185, 1.769190],
    );
    check(
        0.025,
        t2,
        &even(4),
        &[2.955167, 2.559350, 2.300855, 2.091967],
    );
    check(
        0.05,
        t2,
        &even(5),
        &[2.878162, 2.470228, 2.200954, 1.981820, 1.790237],
    );
    check(
        0.025,
        OBrienFleming,
        &[0.1, 0.35, 0.55, 0.9, 1.0],
        &[6.991352, 3.612789, 2.812588, 2.112199, 2.059746],
    );
    check(
        0.05,
        t2,
        &even(14),
        &[
            3.475341, 3.146318, 2.944354, 2.786668, 2.653835, 2.537387, 2.432690, 2.336873,
            2.248017, 2.164765, 2.086112, 2.011298, 1.939726, 1.870919,
        ],
    );
}

#[test]
fn the_level_is_spent_to_the_last_digit_at_any_spacing() {
    for fractions in [
        even(1),
        even(200),
        vec![1e-4, 2e-4, 0.5, 0.5005, 0.999, 1.0],
        vec![0.9, 1.0],
    ] {
        let test = GroupSequential::planned(0.05, Spending::Power(2.0), &fractions).expect("valid");
        let looks: Vec<(f64, f64)> = test.looks().iter().map(|l| (l.t, l.z)).collect();
        let spent: f64 = stopping_probabilities(&looks, 0.0)
            .expect("valid")
            .iter()
            .sum();
        close(spent, 0.05, 1e-10);
        close(test.looks().last().expect("some").spent, 0.05, 0.0);
    }
}

#[test]
fn bounds_do_not_depend_on_looks_to_come() {
    let all = GroupSequential::planned(0.025, Spending::Pocock, &even(10)).expect("valid");
    let first = GroupSequential::planned(0.025, Spending::Pocock, &even(10)[..4]).expect("valid");
    assert_eq!(all.looks()[..4], *first.looks());
}

#[test]
fn repeated_and_late_looks_spend_nothing() {
    let mut test = GroupSequential::new(0.05, Spending::default()).expect("valid");
    let a = test.look(0.5).expect("valid");
    assert_eq!(test.look(0.5).expect("valid"), a);
    assert_eq!(test.look(0.3).expect("valid"), a);
    let end = test.look(1.2).expect("valid");
    assert!(end.overrun && end.spent == 0.05);
    let again = test.look(2.0).expect("valid");
    assert_eq!(again.z, end.z);
    assert!(test.look(f64::NAN).is_err() && test.look(0.0).is_err());

    let mut cut_short = GroupSequential::new(0.05, Spending::default()).expect("valid");
    cut_short.look(0.3).expect("valid");
    let last = cut_short.final_look(0.6).expect("valid");
    assert_eq!(last.spent, 0.05);
    let looks: Vec<(f64, f64)> = cut_short.looks().iter().map(|l| (l.t, l.z)).collect();
    close(
        stopping_probabilities(&looks, 0.0)
            .expect("valid")
            .iter()
            .sum(),
        0.05,
        1e-10,
    );

    let mut early = GroupSequential::new(0.025, Spending::OBrienFleming).expect("valid");
    assert_eq!(early.look(0.01).expect("valid").z, LARGEST_BOUND);
}

#[test]
fn a_single_look_is_the_ordinary_test() {
    let mut test = GroupSequential::new(0.05, Spending::default()).expect("valid");
    close(test.look(1.0).expect("valid").z, 1.6448536269514722, 1e-12);
    let effect = Effect::new(0.3, 0.1, None).expect("valid");
    let stop = test.at_stop(&effect, 0.95).expect("valid");
    close(stop.median_unbiased, 0.3, 1e-10);
    let ordinary = effect.interval(0.95).expect("valid");
    close(stop.interval.low, ordinary.low, 1e-9);
    close(stop.interval.high, ordinary.high, 1e-9);
    close(stop.p_one_sided, effect.p_above(0.0), 1e-12);
    close(
        inflation(0.05, Spending::default(), &[1.0], 0.8).expect("valid"),
        1.0,
        1e-10,
    );
}

/// Jennison and Turnbull (2000), table 2.9 (Pocock) gives 1.202 for four looks with constant bounds;
/// spending functions come near.
#[test]
fn inflation_is_of_the_known_size() {
    let pocock = inflation(0.025, Spending::Pocock, &even(4), 0.8).expect("valid");
    assert!((1.19..1.21).contains(&pocock), "{pocock}");
    let obf = inflation(0.025, Spending::OBrienFleming, &even(4), 0.8).expect("valid");
    assert!((1.01..1.03).contains(&obf), "{obf}");
}

#[test]
fn an_estimate_after_an_early_stop_is_pulled_towards_zero() {
    let mut test = GroupSequential::new(0.025, Spending::Pocock).expect("valid");
    test.look(0.25).expect("valid");
    test.look(0.5).expect("valid");
    let effect = Effect::new(2.4, 1.0, None).expect("valid");
    let stop = test.at_stop(&effect, 0.95).expect("valid");
    assert!(
        stop.median_unbiased < 2.4 && stop.median_unbiased > 1.5,
        "{stop:?}"
    );
    assert!(
        stop.p_one_sided <= 0.025 && stop.interval.low > 0.0,
        "{stop:?}"
    );
}

#[test]
fn bonferroni_splits_evenly() {
    close(
        bonferroni_bound(0.05, 14).expect("valid"),
        2.690109527,
        1e-8,
    );
    assert!(bonferroni_bound(0.05, 0).is_err());
}
