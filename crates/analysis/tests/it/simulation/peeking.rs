//! Sequential frameworks side by side, fixed-power designs, metrics measured repeatedly.

#![expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "small counts"
)]

use refrain_analysis::methods::always_valid::{ConfidenceSequence, msprt};
use refrain_analysis::methods::effect::Effect;
use refrain_analysis::methods::fixed_power::Rule;
use refrain_analysis::methods::longitudinal::{self, Components, Units};
use refrain_analysis::methods::mean;
use refrain_analysis::methods::moments::Tally;
use refrain_analysis::methods::sequential::{GroupSequential, Spending, bonferroni_bound};

use super::{Rate, normal, repetitions};
use crate::support::{SplitMix, close};

/// 500 a arm, variance 1 known, one-sided 5 %: the score statistic is a Brownian motion.
#[test]
fn frameworks_for_peeking() {
    const NAIVE: f64 = 1.644_853_626_951_472;
    // looks; null rates of GST, naive, Bonferroni, CS, mSPRT; power of GST, Bonferroni, CS, mSPRT.
    let table = [
        (
            14_u32,
            [0.049, 0.192, 0.020, 0.011, 0.013],
            [0.922, 0.760, 0.722, 0.729],
        ),
        (
            28,
            [0.050, 0.236, 0.014, 0.011, 0.015],
            [0.916, 0.689, 0.724, 0.733],
        ),
        (
            56,
            [0.048, 0.276, 0.010, 0.013, 0.017],
            [0.919, 0.618, 0.735, 0.745],
        ),
    ];
    let sequence = ConfidenceSequence::one_sided(0.05, 1000).expect("valid");
    let mut random = SplitMix::new(6);
    for (looks, null, power) in table {
        let fractions: Vec<f64> = (1..=looks)
            .map(|k| f64::from(k) / f64::from(looks))
            .collect();
        let test = GroupSequential::planned(0.05, Spending::Power(2.0), &fractions).expect("valid");
        let gst: Vec<f64> = test.looks().iter().map(|l| l.z).collect();
        let bonferroni = bonferroni_bound(0.05, u64::from(looks)).expect("valid");
        for (true_effect, expected) in [(0.0, &null[..]), (0.2, &power[..])] {
            let mut rates: [Rate; 5] = Default::default();
            for _ in 0..repetitions(20_000, 2_000) {
                let drift = true_effect * 250f64.sqrt();
                let (mut score, mut last) = (0.0, 0.0);
                let mut crossed = [false; 5];
                for (&t, &bound) in fractions.iter().zip(&gst) {
                    let dt: f64 = t - last;
                    score += drift * dt + dt.sqrt() * normal(&mut random);
                    last = t;
                    let z = score / t.sqrt();
                    let se = (2.0 / (500.0 * t)).sqrt();
                    let effect = Effect::new(z * se, se, None).expect("valid");
                    #[expect(
                        clippy::cast_possible_truncation,
                        clippy::cast_sign_loss,
                        reason = "1..=1000"
                    )]
                    let units = (1000.0 * t).round() as u64;
                    crossed[0] |= z >= bound;
                    crossed[1] |= z >= NAIVE;
                    crossed[2] |= z >= bonferroni;
                    crossed[3] |= z >= sequence.multiplier(units);
                    crossed[4] |= z > 0.0 && msprt(&effect, 0.2).expect("valid").ln_e > 10f64.ln();
                }
                for (rate, crossed) in rates.iter_mut().zip(crossed) {
                    rate.add(crossed);
                }
            }
            let names = ["GST", "naive", "Bonferroni", "CS", "mSPRT"];
            let of_interest: Vec<usize> = if true_effect == 0.0 {
                vec![0, 1, 2, 3, 4]
            } else {
                vec![0, 2, 3, 4]
            };
            for (&i, &e) in of_interest.iter().zip(expected) {
                let name = format!("{} {looks} looks effect {true_effect}", names[i]);
                rates[i].near(&name, e, 0.012);
            }
        }
    }
}

/// Batches of 50 an arm, deviations 1.4 and 1.0, planned effect 0.2, at most 60 batches.
#[test]
fn stopping_on_precision_costs_nothing() {
    let rule = Rule::Power {
        effect: 0.2,
        alpha: 0.05,
        power: 0.8,
    };
    let mut random = SplitMix::new(9);
    let repetitions = repetitions(4_000, 500);
    for (true_effect, rejection) in [(0.0, 0.052), (0.2, 0.820)] {
        let (mut rejected, mut covered) = (Rate::default(), Rate::default());
        let (mut error, mut units) = (0.0, 0.0);
        for _ in 0..repetitions {
            let (mut control, mut treatment) = (Tally::new(1), Tally::new(1));
            let mut batches = 0;
            let effect = loop {
                for _ in 0..50 {
                    control.push(&[1.4 * normal(&mut random)]).expect("finite");
                    treatment
                        .push(&[true_effect + normal(&mut random)])
                        .expect("finite");
                }
                batches += 1;
                let effect = mean::compare(
                    &control.moments().summary(0),
                    &treatment.moments().summary(0),
                )
                .expect("valid")
                .normal();
                if batches == 60 || rule.look(effect.se, batches).expect("valid").stop {
                    break effect;
                }
            };
            rejected.add(effect.p_two_sided() < 0.05);
            covered.add(effect.interval(0.95).expect("valid").contains(true_effect));
            error += effect.delta - true_effect;
            units += f64::from(u32::try_from(batches * 50).expect("small"));
        }
        rejected.near(&format!("rejection at {true_effect}"), rejection, 0.012);
        covered.near(&format!("coverage at {true_effect}"), 0.95, 0.012);
        let runs = f64::from(repetitions);
        close(error / runs, 0.0, 0.001 + 3.0 * 0.0714 / runs.sqrt());
        close(units / runs, 605.0, 8.0);
    }
}

/// The same batches by an owner who stops as soon as it is significant.
#[test]
fn stopping_on_significance_misleads() {
    let mut random = SplitMix::new(90);
    let repetitions = repetitions(4_000, 500);
    let mut run = |true_effect: f64| {
        let (mut control, mut treatment) = (Tally::new(1), Tally::new(1));
        for _ in 0..60 {
            for _ in 0..50 {
                control.push(&[1.4 * normal(&mut random)]).expect("finite");
                treatment
                    .push(&[true_effect + normal(&mut random)])
                    .expect("finite");
            }
            let effect = mean::compare(
                &control.moments().summary(0),
                &treatment.moments().summary(0),
            )
            .expect("valid")
            .normal();
            if effect.p_two_sided() < 0.05 {
                return (true, effect.delta);
            }
        }
        (false, 0.0)
    };
    let mut rejected = Rate::default();
    for _ in 0..repetitions {
        rejected.add(run(0.0).0);
    }
    rejected.like("stopping on significance", 0.33, 4_000);
    let error: f64 = (0..repetitions).map(|_| run(0.2).1 - 0.2).sum();
    let runs = f64::from(repetitions);
    // Estimates at the stop have a deviation of about 0.15.
    let more = if super::full() {
        0.0
    } else {
        3.0 * 0.15 / runs.sqrt()
    };
    eprintln!(
        "bias of stopping on significance: {:+.4}, expected +0.091",
        error / runs
    );
    close(error / runs, 0.091, 0.006 + more);
}

/// 600 users entering over seven days, fourteen daily looks, correlation within users 0.5, one-sided
/// 5 %, `t²` spending, no effect.
#[test]
fn measuring_again_and_again() {
    const USERS: usize = 600;
    const DAYS: usize = 14;
    let mut random = SplitMix::new(10);
    let truth = Components {
        between: 0.5,
        within: 0.5,
    };
    let mut rates: [Rate; 6] = Default::default();
    for _ in 0..repetitions(3_000, 250) {
        let levels: Vec<f64> = (0..USERS)
            .map(|_| 0.5f64.sqrt() * normal(&mut random))
            .collect();
        let mut values: Vec<Vec<f64>> = vec![Vec::new(); USERS];
        let mut tests: Vec<GroupSequential> = (0..5)
            .map(|_| GroupSequential::new(0.05, Spending::Power(2.0)).expect("valid"))
            .collect();
        let mut crossed = [false; 6];
        // At the end each entry day's users have their own number of measurements.
        let final_weight: f64 = (0..USERS)
            .map(|u| truth.weight((DAYS - entry(u)) as u64))
            .sum();
        for day in 0..DAYS {
            for user in 0..USERS {
                if entry(user) <= day {
                    let noise = 0.5f64.sqrt() * normal(&mut random);
                    values[user].push(levels[user] + noise);
                }
            }
            // Every measurement as if it were a unit; users by their mean so far; complete users only;
            // users by their sum so far.
            let pair = || [Tally::new(1), Tally::new(1)];
            let (mut measured, mut entered, mut complete, mut summed) =
                (pair(), pair(), pair(), pair());
            let mut units = [Units::default(), Units::default()];
            for (user, values) in values.iter().enumerate().filter(|(_, v)| !v.is_empty()) {
                let arm = user / 7 % 2;
                for v in values {
                    measured[arm].push(&[*v]).expect("finite");
                }
                entered[arm].push(&[average(values)]).expect("finite");
                summed[arm]
                    .push(&[values.iter().sum::<f64>()])
                    .expect("finite");
                if values.len() >= 7 {
                    complete[arm]
                        .push(&[average(&values[..7])])
                        .expect("finite");
                }
                units[arm].add_measurements(values).expect("finite");
            }
            let total: usize = (0..USERS).map(|u| DAYS - entry(u)).sum();
            let counts = |t: &[Tally; 2]| (t[0].n() + t[1].n()) as usize;
            for (i, (tallies, all)) in [
                (&measured, total),
                (&entered, USERS),
                (&complete, USERS),
                (&summed, USERS),
            ]
            .into_iter()
            .enumerate()
            {
                if tallies[0].n() < 2 || tallies[1].n() < 2 {
                    continue;
                }
                let z = mean::compare(
                    &tallies[0].moments().summary(0),
                    &tallies[1].moments().summary(0),
                )
                .expect("valid")
                .normal()
                .z();
                let bound = tests[i].look(share(counts(tallies), all)).expect("valid").z;
                crossed[i] |= z >= bound;
                // As if each day were the only one.
                crossed[5] |= i == 1 && z >= 1.644_853_626_951_472;
            }
            // On the first day nobody was measured twice, and what is between users cannot be told from
            // what is within.
            let Ok(found) = longitudinal::analyse(&units[0], &units[1], DAYS as u64) else {
                assert_eq!(day, 0);
                continue;
            };
            let entered = counts(&entered) as f64;
            let t = found.share * entered * truth.weight(DAYS as u64) / final_weight;
            let bound = tests[4].look(t.min(1.0)).expect("valid").z;
            crossed[4] |= found.comparison.normal().z() >= bound;
        }
        for (rate, crossed) in rates.iter_mut().zip(crossed) {
            rate.add(crossed);
        }
    }
    rates[0].near("measurements as units", 0.239, 0.03);
    rates[1].near("means to date by users", 0.080, 0.015);
    rates[2].near("closed window", 0.054, 0.008);
    rates[3].near("sums to date by users", 0.060, 0.012);
    // Components are estimated at every look, and the error is that of units as clusters.
    rates[4].between("generalised least squares", 0.042, 0.058);
    rates[5].near("means to date by users, not corrected", 0.195, 0.02);
}

/// As the verdict uses it: units enter over four weeks, each is measured on seven days of a skewed,
/// autocorrelated metric whose first day differs from the others; the design ends when all are.
#[test]
fn the_model_may_be_wrong_and_the_level_holds() {
    const USERS: usize = 800;
    const DAYS: usize = 7;
    const ENTRY: usize = 28;
    let mut random = SplitMix::new(110);
    let mut crossed = Rate::default();
    for _ in 0..repetitions(3_000, 250) {
        let mut test = GroupSequential::new(0.05, Spending::Power(2.0)).expect("valid");
        let lives: Vec<Vec<f64>> = (0..USERS)
            .map(|_| {
                let level = (0.8 * normal(&mut random)).exp();
                let mut noise = normal(&mut random);
                (0..DAYS)
                    .map(|day| {
                        noise = 0.6 * noise + 0.8 * normal(&mut random);
                        let first = if day == 0 { 2.0 } else { 1.0 };
                        first * level * noise.exp()
                    })
                    .collect()
            })
            .collect();
        let mut hit = false;
        for today in (4..ENTRY + DAYS).step_by(3).chain([ENTRY + DAYS]) {
            let mut units = [Units::default(), Units::default()];
            let mut entered = 0;
            for (user, life) in lives.iter().enumerate() {
                let age = today.saturating_sub(user % ENTRY).min(DAYS);
                if age > 0 {
                    entered += 1;
                    units[user / ENTRY % 2]
                        .add_measurements(&life[..age])
                        .expect("finite");
                }
            }
            let found =
                longitudinal::analyse(&units[0], &units[1], DAYS as u64).expect("measured twice");
            let t = found.share * share(entered, USERS);
            assert!(
                t <= 1.0 + 1e-9 && (today < ENTRY + DAYS || t > 1.0 - 1e-9),
                "{t}"
            );
            let bound = test.look(t.min(1.0)).expect("valid").z;
            hit |= found.comparison.normal().z() >= bound;
        }
        crossed.add(hit);
    }
    crossed.near("wrong model", 0.05, 0.012);
}

#[test]
fn a_class_of_units_is_its_units() {
    let lives = [
        [1.0, 2.0, 4.0],
        [0.5, 0.0, 3.0],
        [2.0, 2.5, 2.0],
        [7.0, 1.0, 0.0],
    ];
    let (mut one_by_one, mut tally) = (Units::default(), Tally::new(2));
    for life in &lives {
        one_by_one.add_measurements(life).expect("finite");
        let mean = average(life);
        let within = life.iter().map(|v| (v - mean).powi(2)).sum();
        tally.push(&[mean, within]).expect("finite");
    }
    let mut by_class = Units::default();
    by_class
        .add_class(3, &tally.moments())
        .expect("two columns");
    let components = Units::components(&[&one_by_one]).expect("measured twice");
    let same = Units::components(&[&by_class]).expect("measured twice");
    close(components.between, same.between, 1e-12);
    close(components.within, same.within, 1e-12);
    // All units measured alike: the weighted mean is the mean, its robust error that of the means.
    let arm = by_class.arm(&components);
    let means = tally.moments().summary(0);
    close(arm.value, means.mean, 1e-12);
    close(arm.variance, means.variance / 4.0, 1e-12);
    assert!(by_class.add_class(3, &Tally::new(1).moments()).is_err());
}

#[test]
fn information_of_a_unit() {
    let components = Components {
        between: 0.5,
        within: 0.5,
    };
    close(components.weight(1), 1.0, 1e-15);
    // More measurements help until only the spread between units is left.
    assert!((1.999..2.0).contains(&components.weight(1_000_000)));
}

fn entry(user: usize) -> usize {
    user % 7
}

fn average(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

fn share(part: usize, all: usize) -> f64 {
    part as f64 / all as f64
}
