//! The multi-metric rule, planned sizes, and policies by segment.

use refrain_analysis::methods::decision::{
    Bounds, Direction, Inputs, Margin, Recommendation, RiskPlan, Role, decide, judge,
};
use refrain_analysis::methods::effect::{Effect, critical};
use refrain_analysis::methods::mean;
use refrain_analysis::methods::moments::{Summary, Tally};
use refrain_analysis::methods::policy::{Segment, by_segment, learns};
use refrain_analysis::methods::power::Target;

use super::{Rate, normal, repetitions};
use crate::support::SplitMix;

/// Two success metrics and three guardrails, independent, planned for their power.
#[test]
fn the_rule_keeps_both_risks() {
    let plan = RiskPlan {
        alpha: 0.05,
        beta: 0.2,
        alpha_deterioration: 0.0,
        alpha_quality: 0.0,
        treatments: 1,
        successes: 2,
        guardrails: 3,
        scanned: 5,
        checks: 1,
    };
    let levels = plan.levels().expect("valid");
    let bounds = Bounds {
        success: critical(levels.success, None),
        guardrail: critical(levels.guardrail, None),
        deterioration: f64::INFINITY,
    };
    let inputs = Inputs {
        quality_failed: false,
        information: 1.0,
        achieved_power: None,
        planned_power: levels.power,
    };
    let mut random = SplitMix::new(7);
    // Power a metric; which success metrics work; whether one guardrail is at its margin; shipped.
    for (name, power, works, at_margin, expected) in [
        ("both work", levels.power, [true, true], false, 0.854),
        ("one works", levels.power, [true, false], false, 0.816),
        ("none works", levels.power, [false, false], false, 0.043),
        (
            "a guardrail at its margin",
            levels.power,
            [true, true],
            true,
            0.045,
        ),
        (
            "one works, beta not corrected",
            0.8,
            [true, false],
            false,
            0.412,
        ),
    ] {
        let reach = critical(1.0 - power, None);
        let success = bounds.success + reach;
        let margin = bounds.guardrail + reach;
        let mut shipped = Rate::default();
        for _ in 0..repetitions(200_000, 20_000) {
            let mut judged = Vec::new();
            for works in works {
                let delta = normal(&mut random) + if works { success } else { 0.0 };
                let effect = Effect::new(delta, 1.0, None).expect("valid");
                judged.push(
                    judge(Role::Success, Direction::Up, &effect, 1.0, &bounds).expect("valid"),
                );
            }
            let role = Role::Guardrail(Some(Margin::Absolute(margin)));
            for guardrail in 0..3 {
                let harm = if at_margin && guardrail == 0 {
                    margin
                } else {
                    0.0
                };
                let effect = Effect::new(normal(&mut random) - harm, 1.0, None).expect("valid");
                judged.push(judge(role, Direction::Up, &effect, 1.0, &bounds).expect("valid"));
            }
            shipped.add(decide(&judged, &inputs) == Recommendation::Ship);
        }
        shipped.near(name, expected, 0.002);
    }
}

#[test]
fn the_planned_size_has_the_planned_power() {
    let units = Target::new(1.0, 0.5, 0.025, 0.8)
        .units([0.5, 0.5])
        .expect("valid");
    let mut random = SplitMix::new(80);
    let mut found = Rate::default();
    for _ in 0..repetitions(20_000, 3_000) {
        let arm = |random: &mut SplitMix, n: u64, shift: f64| {
            let mut tally = Tally::new(1);
            for _ in 0..n {
                tally.push(&[shift + normal(random)]).expect("finite");
            }
            tally.moments().summary(0)
        };
        let control = arm(&mut random, units.control, 0.0);
        let treatment = arm(&mut random, units.treatment, 0.5);
        let effect = mean::compare(&control, &treatment).expect("valid").normal();
        found.add(effect.p_above(0.0) < 0.025);
    }
    found.near("power", 0.8, 0.01);
}

/// Half the users gain 0.5 by the treatment, half lose 0.5: no single arm is good for all.
#[test]
fn a_policy_by_segment_is_valued_honestly() {
    let mut random = SplitMix::new(12);
    let (mut covered, mut better) = (Rate::default(), Rate::default());
    for run in 0..repetitions(500, 150) {
        let mut tallies = vec![Tally::new(1); 8];
        for unit in 0..1600_u64 {
            let (segment, arm) = (unit / 2 % 2, unit % 2);
            let effect = match (segment, arm) {
                (0, 1) => 0.5,
                (1, 1) => -0.5,
                _ => 0.0,
            };
            let half = u64::from(learns(random.next(), u64::from(run)));
            let at = usize::try_from(segment * 4 + arm * 2 + half).expect("small");
            tallies[at]
                .push(&[1.0 + effect + normal(&mut random)])
                .expect("finite");
        }
        let summary = |at: usize| tallies[at].moments().summary(0);
        let segments: Vec<Segment> = (0..2)
            .map(|s| Segment {
                name: format!("s{s}"),
                evaluate: vec![summary(s * 4), summary(s * 4 + 2)],
                learn: vec![summary(s * 4 + 1), summary(s * 4 + 3)],
            })
            .collect();
        let policy = by_segment(&segments, 20, 0.95).expect("valid");
        let truth: f64 = policy
            .choices
            .iter()
            .zip([0.5, -0.5])
            .map(|(c, e)| 0.5 * (1.0 + if c.arm == 1 { e } else { 0.0 }))
            .sum();
        covered.add(policy.interval.contains(truth));
        better.add(truth > 1.0 + 1e-9);
    }
    assert!(covered.value() >= 0.93, "covers in {}", covered.value());
    assert!(better.value() >= 0.99, "better in {}", better.value());
}

#[test]
fn a_segment_too_small_to_choose_takes_the_best_single_arm() {
    let arm = |n, mean| Summary {
        n,
        mean,
        variance: 1.0,
    };
    let segment = |name: &str, learn: [Summary; 2]| Segment {
        name: name.into(),
        learn: learn.to_vec(),
        evaluate: vec![arm(50, 1.0), arm(50, 2.0)],
    };
    let big = segment("big", [arm(500, 1.0), arm(500, 2.0)]);
    let small = segment("small", [arm(5, 9.0), arm(5, 0.0)]);
    let policy = by_segment(&[big, small], 20, 0.95).expect("valid");
    assert!(policy.choices[1].fell_back && policy.choices[1].arm == 1);
    assert_eq!((policy.gain.delta, policy.gain.se), (0.0, 0.0));
    assert!(by_segment(&[], 20, 0.95).is_err());
}
