//! Levels of the single tests, judgements in each role, and the rule.

use proptest::prelude::*;
use refrain_analysis::methods::decision::{
    Bounds, Direction, Inputs, Judgement, Margin, Recommendation, RiskPlan, Role, decide, judge,
};
use refrain_analysis::methods::effect::{Comparison, Interval, critical};
use refrain_analysis::methods::mean;
use refrain_analysis::methods::moments::Summary;

use crate::support::{close, gen42, moments};

fn plan(successes: u64, guardrails: u64) -> RiskPlan {
    RiskPlan {
        alpha: 0.05,
        beta: 0.2,
        alpha_deterioration: 0.0,
        alpha_quality: 0.0,
        treatments: 1,
        successes,
        guardrails,
        scanned: successes + guardrails,
        checks: 3,
    }
}

#[test]
fn both_error_corrections() {
    for (guardrails, power) in [(3, 0.95), (5, 0.966667), (10, 0.981818)] {
        close(
            plan(1, guardrails).levels().expect("valid").power,
            power,
            5e-7,
        );
    }
    let levels = RiskPlan {
        alpha_deterioration: 0.01,
        alpha_quality: 0.001,
        ..plan(2, 3)
    }
    .levels()
    .expect("valid");
    close(levels.success, 0.025, 1e-15);
    close(levels.guardrail, 0.05, 1e-15);
    close(levels.power, 0.95275, 1e-12);
    close(levels.deterioration, 0.002, 1e-15);
    let two_arms = RiskPlan {
        treatments: 2,
        ..plan(2, 3)
    }
    .levels()
    .expect("valid");
    close(two_arms.success, 0.0125, 1e-15);
    close(two_arms.guardrail, 0.025, 1e-15);
    assert!(
        RiskPlan {
            alpha_deterioration: 0.2,
            ..plan(1, 1)
        }
        .levels()
        .is_err()
    );
    assert!(plan(0, 0).levels().is_err());
}

const FIXED: Bounds = Bounds {
    success: 1.6448536269514722,
    guardrail: 1.6448536269514722,
    deterioration: 2.3263478740408408,
};

fn gbstats() -> Comparison {
    let c = Summary::from_sums(3407, 1396.87, 52377.9767).expect("valid");
    let t = Summary::from_sums(3461, 2422.7, 134_698.29).expect("valid");
    mean::compare(&c, &t).expect("valid")
}

#[test]
fn non_inferiority_references() {
    let comparison = gbstats();
    let role = Role::Guardrail(Some(Margin::Relative(0.1)));
    let up = judge(
        role,
        Direction::Up,
        &comparison.effect(),
        comparison.control.value,
        &FIXED,
    )
    .expect("valid");
    close(up.margin.expect("has one"), 0.041, 5e-7);
    close(up.p, 0.003993824, 5e-10);
    close(up.interval.low, 0.084749191, 5e-10);
    assert_eq!(up.noninferior, Some(true));
    let down = judge(
        role,
        Direction::Down,
        &comparison.effect(),
        comparison.control.value,
        &FIXED,
    )
    .expect("valid");
    close(down.p, 0.977003308, 5e-10);
    assert_eq!(down.noninferior, Some(false));

    let [c, t] = gen42();
    let [c, t] = [moments(&c, &[0]), moments(&t, &[0])];
    let comparison = mean::compare(&c.summary(0), &t.summary(0)).expect("valid");
    let role = Role::Guardrail(Some(Margin::Relative(0.02)));
    let judged = judge(
        role,
        Direction::Up,
        &comparison.normal(),
        comparison.control.value,
        &FIXED,
    )
    .expect("valid");
    close(judged.z_margin.expect("has one"), 4.015659, 5e-7);
    close(judged.p, 2.963996e-5, 5e-12);
    close(comparison.normal().flipped().p_above(0.0), 0.999215, 5e-7);
}

fn judged(role: Role, superior: bool, noninferior: Option<bool>, deteriorated: bool) -> Judgement {
    Judgement {
        role,
        superior,
        noninferior,
        deteriorated,
        z: 0.0,
        z_margin: None,
        margin: None,
        p: 0.5,
        interval: Interval {
            low: 0.0,
            high: 0.0,
        },
    }
}

const GUARD: Role = Role::Guardrail(Some(Margin::Absolute(1.0)));

fn inputs(information: f64) -> Inputs {
    Inputs {
        quality_failed: false,
        information,
        achieved_power: Some(0.97),
        planned_power: 0.95,
    }
}

#[test]
fn the_rule() {
    let win = judged(Role::Success, true, None, false);
    let no_win = judged(Role::Success, false, None, false);
    let safe = judged(GUARD, false, Some(true), false);
    let unsafe_ = judged(GUARD, false, Some(false), false);
    let unproven = judged(Role::Guardrail(None), false, None, false);
    let harmed = judged(Role::Scan, false, None, true);
    use Recommendation::*;
    for (metrics, information, expected) in [
        (vec![win, no_win, safe], 0.5, Ship),
        (vec![win, safe, unproven], 1.0, Ship),
        (vec![no_win, safe], 0.5, KeepRunning),
        (vec![win, unsafe_], 0.5, KeepRunning),
        (vec![win, safe, unsafe_], 1.0, NoShipPowered),
        (vec![no_win, safe], 1.0, NoShipPowered),
        (vec![win, safe, harmed], 0.5, StopHarm),
        (vec![safe], 1.0, Ship),
        (vec![unproven], 1.0, NoShipPowered),
        (vec![], 1.0, NoShipPowered),
    ] {
        assert_eq!(
            decide(&metrics, &inputs(information)),
            expected,
            "{metrics:?}"
        );
    }
    let failed = Inputs {
        quality_failed: true,
        ..inputs(1.0)
    };
    assert_eq!(decide(&[win, safe, harmed], &failed), Invalid);
    let weak = Inputs {
        achieved_power: Some(0.5),
        ..inputs(1.0)
    };
    assert_eq!(decide(&[no_win], &weak), NoShipInconclusive);
}

proptest! {
    /// Turning both the metric and its direction changes nothing but the interval's sign.
    #[test]
    fn directions_mirror(delta in -5.0f64..5.0, se in 0.01f64..3.0, level in 0.1f64..10.0, kind in 0usize..3) {
        let role = [Role::Success, Role::Guardrail(Some(Margin::Relative(0.05))), Role::Scan][kind];
        let effect = refrain_analysis::methods::effect::Effect::new(delta, se, None).expect("valid");
        let bounds = Bounds { success: critical(0.05, None), guardrail: critical(0.05, None), deterioration: critical(0.01, None) };
        let up = judge(role, Direction::Up, &effect, level, &bounds).expect("valid");
        let down = judge(role, Direction::Down, &effect.flipped(), -level, &bounds).expect("valid");
        prop_assert_eq!((up.superior, up.noninferior, up.deteriorated, up.p), (down.superior, down.noninferior, down.deteriorated, down.p));
        prop_assert!(!(up.superior && up.deteriorated));
        // What is superior is non-inferior.
        if kind == 1 && up.z >= bounds.guardrail { prop_assert_eq!(up.noninferior, Some(true)); }
    }
}
