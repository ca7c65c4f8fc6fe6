//! Sample size, power, smallest detectable effects, stopping on precision.

use refrain_analysis::methods::decision::RiskPlan;
use refrain_analysis::methods::fixed_power::{Rule, cautious_se};
use refrain_analysis::methods::power::{Target, Units, curve};
use refrain_analysis::methods::sequential::{Spending, inflation};

use crate::support::close;

const HALVES: [f64; 2] = [0.5, 0.5];

#[test]
fn sample_sizes_of_the_reference() {
    let playground = |power| {
        Target::new(0.5, 0.005, 0.1, power)
            .units(HALVES)
            .expect("valid")
            .total()
    };
    assert_eq!(playground(0.59), 182_190);
    assert_eq!(playground(0.8), 360_630);
    let share = Target::new(0.05 * 0.95, 0.05 * 0.05, 0.025, 0.8);
    let arm = share.units(HALVES).expect("valid").control;
    assert_eq!(arm, 119_303);
    let levels = RiskPlan {
        alpha: 0.05,
        beta: 0.2,
        alpha_deterioration: 0.0,
        alpha_quality: 0.0,
        treatments: 1,
        successes: 2,
        guardrails: 4,
        scanned: 6,
        checks: 1,
    }
    .levels()
    .expect("valid");
    close(levels.success, 0.025, 1e-15);
    close(levels.power, 0.96, 1e-12);
    let library = Target::new(0.25, 0.005, levels.success, levels.power);
    assert_eq!(library.units(HALVES).expect("valid").total(), 550_758);
}

#[test]
fn smallest_detectable_effect_of_the_generated_table() {
    // se 0.114511715 = √(σ² (1/1000 + 1/1000)).
    let variance = 0.114_511_715 * 0.114_511_715 * 500.0;
    let units = Units {
        control: 1000,
        treatment: 1000,
    };
    let target = Target::new(variance, 1.0, 0.025, 0.8);
    close(
        target.minimum_detectable(&units).expect("valid"),
        0.320814,
        5e-7,
    );
}

#[test]
fn size_power_and_smallest_effect_agree() {
    for (shares, reduction, factor) in [(HALVES, 0.0, 1.0), ([0.2, 0.8], 0.4, 1.1)] {
        let target = Target {
            variance_reduction: reduction,
            inflation: factor,
            ..Target::new(4.0, -0.05, 0.025, 0.9)
        };
        let units = target.units(shares).expect("valid");
        close(target.power_at(&units).expect("valid"), 0.9, 1e-4);
        close(
            target.minimum_detectable(&units).expect("valid"),
            0.05,
            1e-5,
        );
        let fewer = Units {
            control: units.control - 20,
            ..units
        };
        assert!(target.power_at(&fewer).expect("valid") < 0.9);
    }
    let half = Target {
        variance_reduction: 0.5,
        ..Target::new(1.0, 0.1, 0.025, 0.8)
    };
    let full = Target::new(1.0, 0.1, 0.025, 0.8);
    let [half, full] = [half, full].map(|t| t.units(HALVES).expect("valid").control);
    assert!(
        half.abs_diff(full / 2) <= 1,
        "halving the variance halves the units"
    );
    assert!(Target::new(0.0, 0.1, 0.025, 0.8).units(HALVES).is_err());
    assert!(Target::new(1.0, 0.0, 0.025, 0.8).units(HALVES).is_err());
    assert!(Target::new(1.0, 0.1, 0.025, 0.8).units([0.0, 1.0]).is_err());
}

#[test]
fn curves_rise() {
    let points = curve(
        &Target::new(1.0, 0.1, 0.025, 0.8),
        HALVES,
        &[100, 1000, 10_000],
    )
    .expect("valid");
    assert!(points.windows(2).all(|w| w[1].power > w[0].power));
    assert!(
        points
            .windows(2)
            .all(|w| w[1].minimum_detectable < w[0].minimum_detectable)
    );
}

/// A group-sequential test with the planner's number of units has the planned power.
#[test]
fn inflated_size_keeps_power_under_looks() {
    use refrain_analysis::methods::sequential::{GroupSequential, stopping_probabilities};
    let fractions: Vec<f64> = (1..=7).map(|k| f64::from(k) / 7.0).collect();
    let factor = inflation(0.025, Spending::default(), &fractions, 0.8).expect("valid");
    let target = Target {
        inflation: factor,
        ..Target::new(1.0, 0.1, 0.025, 0.8)
    };
    let units = target.units(HALVES).expect("valid");
    let n = f64::from(u32::try_from(units.control).expect("small"));
    let drift = 0.1 / (2.0 / n).sqrt();
    let test = GroupSequential::planned(0.025, Spending::default(), &fractions).expect("valid");
    let looks: Vec<(f64, f64)> = test.looks().iter().map(|l| (l.t, l.z)).collect();
    let power: f64 = stopping_probabilities(&looks, drift)
        .expect("valid")
        .iter()
        .sum();
    close(power, 0.8, 1e-3);
}

#[test]
fn stopping_on_precision() {
    let rule = Rule::Power {
        effect: 0.2,
        alpha: 0.05,
        power: 0.8,
    };
    close(0.2 / rule.wanted_se().expect("valid"), 2.801585, 5e-7);
    let wanted = rule.wanted_se().expect("valid");
    assert!(!rule.look(wanted * 1.01, 10).expect("valid").stop);
    assert!(rule.look(wanted * 0.99, 10).expect("valid").stop);
    assert!(
        !rule.look(wanted * 0.5, 1).expect("valid").stop,
        "never after a single batch"
    );
    close(
        rule.look(wanted * 2.0, 5).expect("valid").information,
        0.25,
        1e-12,
    );
    let width = Rule::Width {
        half_width: 0.196,
        alpha: 0.05,
    };
    close(width.wanted_se().expect("valid"), 0.1, 1e-5);
    close(cautious_se([0.01, 0.01], [0.03, 0.005]), 0.2, 1e-12);
    assert!(rule.look(0.0, 3).is_err());
}
