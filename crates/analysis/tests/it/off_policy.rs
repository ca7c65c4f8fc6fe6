//! Off-policy values: the reference log, refusals, slates, and unbiasedness by simulation.

use refrain_analysis::methods::off_policy::{
    Method, Row, Slate, SlateMethod, diagnose, shrinkage, slate_value, slate_value_by_user, value,
};

use crate::support::{SplitMix, close};

fn log() -> Vec<Row> {
    let target = [0.2, 0.5, 0.3];
    let model = [0.4, 0.6, 0.5];
    let rows = [
        (0, 0.5, 1.),
        (1, 0.3, 0.),
        (2, 0.2, 1.),
        (0, 0.5, 0.),
        (1, 0.3, 1.),
        (0, 0.5, 0.),
        (2, 0.2, 0.),
        (1, 0.3, 1.),
    ];
    rows.iter()
        .zip(0..)
        .map(
            |(&(action, logged, reward), user): (&(usize, f64, f64), u64)| Row {
                logged,
                target: target[action],
                reward,
                predicted: model[action],
                predicted_target: 0.53,
                user,
            },
        )
        .collect()
}

#[test]
fn estimators_of_the_reference() {
    let log = log();
    let of = |method| value(&log, method, 0.95).expect("valid");
    let ips = of(Method::Ips);
    close(ips.value.delta, 0.654166667, 5e-10);
    close(ips.value.se, 0.284795771, 5e-10);
    let snips = of(Method::Snips);
    close(snips.value.delta, 0.568840580, 5e-10);
    close(snips.value.se, 0.194781160, 5e-10);
    close(of(Method::Direct).value.delta, 0.53, 1e-12);
    let robust = of(Method::DoublyRobust);
    close(robust.value.delta, 0.561666667, 5e-10);
    close(robust.value.se, 0.235836909, 5e-10);
    close(of(Method::Clipped(1.5)).value.delta, 0.6125, 1e-12);
    close(
        of(Method::SelfNormalisedDoublyRobust).value.delta,
        0.557536232,
        5e-10,
    );
    close(of(Method::Shrunk(1.5)).value.delta, 0.535574245, 5e-10);
    // Switching with every weight allowed is doubly robust, with none the model.
    close(of(Method::Switch(9.0)).value.delta, 0.561666667, 5e-10);
    close(of(Method::Switch(0.0)).value.delta, 0.53, 1e-12);
    let d = ips.diagnostics;
    close(d.effective_rows, 6.357536, 5e-7);
    close(d.mean_weight, 1.15, 1e-12);
    close(d.max_weight, 1.666667, 5e-7);
    assert!(ips.interval.contains(ips.value.delta));
    close(ips.bootstrap_se, ips.value.se, 0.05);
    assert_eq!(of(Method::Snips), snips, "the bootstrap is seeded");
}

#[test]
fn what_the_log_cannot_answer_is_refused() {
    let sure: Vec<Row> = log()
        .into_iter()
        .map(|r| Row {
            logged: 1.0,
            target: 1.0,
            ..r
        })
        .collect();
    let error = value(&sure, Method::Ips, 0.95).expect_err("deterministic");
    assert!(error.to_string().contains("not randomised"), "{error}");
    // Probabilities logged too small by half: every weight doubles.
    let wrong: Vec<Row> = (0..200)
        .flat_map(|_| log())
        .map(|r| Row {
            logged: r.logged * 0.5,
            ..r
        })
        .collect();
    let error = value(&wrong, Method::Snips, 0.95).expect_err("weights");
    assert!(error.to_string().contains("weight"), "{error}");
    assert!(diagnose(&wrong).expect("only numbers").mean_weight > 2.0);
    for bad in [
        Row {
            logged: 0.0,
            ..log()[0]
        },
        Row {
            target: 1.5,
            ..log()[0]
        },
        Row {
            reward: f64::NAN,
            ..log()[0]
        },
    ] {
        assert!(value(&[log()[1], bad], Method::Ips, 0.95).is_err());
    }
}

/// Rows of one user move together, so their interval must be wider than that of independent rows.
#[test]
fn users_are_resampled_whole() {
    let mut random = SplitMix::new(5);
    let mut rows = Vec::new();
    for user in 0..100 {
        let likes = f64::from(u8::from(random.uniform() < 0.5));
        for _ in 0..20 {
            rows.push(Row {
                logged: 0.5,
                target: 0.5,
                reward: likes,
                predicted: 0.0,
                predicted_target: 0.0,
                user,
            });
        }
    }
    let found = value(&rows, Method::Ips, 0.95).expect("valid");
    assert!(found.bootstrap_se > 3.0 * found.value.se, "{found:?}");
}

/// Two positions, two items each, a click on the second only if the first was item 0.
#[test]
fn slate_estimators_differ_where_their_assumptions_do() {
    let mut random = SplitMix::new(8);
    let mut slates = Vec::new();
    let target = 0.8; // probability of item 0 at either position
    for _ in 0..60_000 {
        let items = [random.next() % 2, random.next() % 2];
        let chance = |item: u64| if item == 0 { target } else { 1.0 - target };
        let second = if items[0] == 0 && items[1] == 0 {
            1.0
        } else {
            0.0
        };
        slates.push(Slate {
            rewards: vec![0.0, second],
            logged: vec![0.5, 0.5],
            target: items.map(chance).to_vec(),
            logged_marginal: vec![0.5, 0.5],
            target_marginal: items.map(chance).to_vec(),
        });
    }
    let truth = target * target;
    for method in [SlateMethod::Standard, SlateMethod::Cascade] {
        let found = slate_value(&slates, method).expect("valid");
        assert!(
            (found.delta - truth).abs() < 4.0 * found.se,
            "{method:?} {found:?}"
        );
    }
    let naive = slate_value(&slates, SlateMethod::Independent).expect("valid");
    close(naive.delta, target * 0.5, 4.0 * naive.se);
    let mut sure = slates[0].clone();
    sure.logged = vec![1.0, 1.0];
    assert!(slate_value(&[sure.clone(), sure], SlateMethod::Standard).is_err());
}

/// Heavy weights and a model that is somewhat wrong: the truth is known, and shrinking must pay over many logs.
#[test]
fn shrinking_loses_less_than_it_saves() {
    let mut random = SplitMix::new(11);
    // Actions: logging picks the first nearly always, the target the second.
    let (logging, target) = ([0.9, 0.07, 0.03], [0.1, 0.5, 0.4]);
    let (reward, model) = ([0.2, 0.5, 0.8], [0.25, 0.45, 0.7]);
    let sum = |of: &[f64; 3]| -> f64 { target.iter().zip(of).map(|(p, r)| p * r).sum() };
    let truth = sum(&reward);
    let mut errors = [0.0; 2];
    let logs = 300;
    for _ in 0..logs {
        let rows: Vec<Row> = (0..200)
            .map(|user| {
                let draw = random.uniform();
                let action = usize::from(draw >= 0.9) + usize::from(draw >= 0.97);
                Row {
                    logged: logging[action],
                    target: target[action],
                    reward: f64::from(u8::from(random.uniform() < reward[action])),
                    predicted: model[action],
                    predicted_target: sum(&model),
                    user,
                }
            })
            .collect();
        let lambda = shrinkage(&rows).expect("rows");
        for (error, method) in errors
            .iter_mut()
            .zip([Method::DoublyRobust, Method::Shrunk(lambda)])
        {
            // A log that happens to support the target badly is refused, and no loss to either.
            if let Ok(found) = value(&rows, method, 0.95) {
                *error += (found.value.delta - truth).powi(2);
            }
        }
    }
    assert!(errors[1] < 0.95 * errors[0], "{errors:?}");
}

#[test]
fn slates_of_one_user_are_resampled_together() {
    let mut random = SplitMix::new(12);
    let (mut slates, mut users) = (Vec::new(), Vec::new());
    for user in 0..100 {
        let likes = f64::from(u8::from(random.uniform() < 0.5));
        for _ in 0..20 {
            slates.push(Slate {
                rewards: vec![likes, 0.0],
                logged: vec![0.5, 0.5],
                target: vec![0.5, 0.5],
                logged_marginal: vec![0.5, 0.5],
                target_marginal: vec![0.5, 0.5],
            });
            users.push(user);
        }
    }
    for method in [SlateMethod::Cascade, SlateMethod::Independent] {
        let alone = slate_value(&slates, method).expect("valid");
        let (effect, interval) = slate_value_by_user(&slates, &users, method, 0.95).expect("valid");
        assert_eq!(effect, alone);
        assert!(interval.contains(effect.delta));
        let half = 0.5 * (interval.high - interval.low);
        assert!(half > 3.0 * 1.96 * alone.se, "{interval:?} {alone:?}");
    }
    assert!(slate_value_by_user(&slates, &users[1..], SlateMethod::Cascade, 0.95).is_err());
}
