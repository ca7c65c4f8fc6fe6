//! Encouragement, segments, novelty, quantiles, interleaving, offline against online: reference numbers.

use refrain_analysis::methods::effect::{ArmEstimate, Comparison, ConfidenceSet, Effect};
use refrain_analysis::methods::interleaving::{self, Sessions};
use refrain_analysis::methods::moments::{PairSummary, Summary, Tally};
use refrain_analysis::methods::offline_online::{Experiment, agreement};
use refrain_analysis::methods::{iv, novelty, quantile, segments};

use crate::support::close;

fn pairs(rows: &[(f64, f64)]) -> PairSummary {
    let mut tally = Tally::new(2);
    for &(y, d) in rows {
        tally.push(&[y, d]).expect("finite");
    }
    tally.moments().pair(0, 1)
}

fn effects(pairs: &[(f64, f64)]) -> Vec<Effect> {
    let effect = |&(delta, se)| Effect::new(delta, se, None).expect("valid");
    pairs.iter().map(effect).collect()
}

#[test]
fn encouragement() {
    let control = pairs(&[(2., 0.), (3., 0.), (6., 1.), (1., 0.), (2., 0.), (4., 0.)]);
    let encouraged = pairs(&[(7., 1.), (6., 1.), (3., 0.), (8., 1.), (2., 0.), (7., 1.)]);
    let found = iv::encouragement(&control, &encouraged, 0.95).expect("valid");
    close(found.intention_to_treat.delta, 2.5, 1e-12);
    close(found.first_stage.delta, 0.5, 1e-12);
    close(found.late.delta, 5.0, 1e-12);
    close(found.late.se, 1.036375, 5e-7);
    close(found.intercept, 2.166667, 5e-7);
    close(found.se_delta_method, 1.135292, 5e-7);
    close(found.f, 4.153846, 5e-7);
    assert!(found.weak);
    let ConfidenceSet::Outside(hole) = found.anderson_rubin else {
        panic!("should be unbounded: {found:?}")
    };
    close(hole.low, -8.855415, 5e-7);
    close(hole.high, 1.744118, 5e-7);
    assert!(found.anderson_rubin.contains(5.0) && !found.anderson_rubin.contains(0.0));
    assert!(iv::encouragement(&control, &control, 0.95).is_err());
}

#[test]
fn segments_of_the_reference() {
    let found = segments::heterogeneity(&effects(&[
        (0.8, 0.2),
        (0.2, 0.25),
        (0.5, 0.3),
        (-0.1, 0.2),
    ]))
    .expect("valid");
    close(found.pooled.delta, 0.340489913, 1e-9);
    close(found.pooled.se, 0.113878443, 5e-10);
    close(found.q, 10.728026, 5e-7);
    close(found.p, 0.013291229, 5e-10);
    close(found.i_squared, 0.720359, 5e-7);
    close(found.tau_squared, 0.138050, 5e-7);
    // Drawn in, never past the average, and the noisiest most.
    assert!(found.shrunk[0].delta < 0.8 && found.shrunk[0].delta > found.random_effects.delta);
    let same = segments::heterogeneity(&effects(&[(0.3, 0.1), (0.3, 0.2)])).expect("valid");
    close(same.tau_squared, 0.0, 0.0);
    close(same.shrunk[1].delta, 0.3, 1e-12);
    assert!(segments::heterogeneity(&effects(&[(0.3, 0.1)])).is_err());
}

#[test]
fn simpson_is_seen_and_stratification_mends_it() {
    let strata = effects(&[(-0.1, 0.05), (-0.2, 0.05)]);
    assert!(segments::is_simpson(0.3, &strata));
    assert!(!segments::is_simpson(-0.3, &strata));
    let stratum = |control, treatment| {
        let arm = |value| ArmEstimate {
            n: 100,
            value,
            variance: 0.00125,
        };
        Comparison::new(arm(control), arm(treatment)).expect("valid")
    };
    let strata = [stratum(2.0, 1.9), stratum(1.0, 0.8)];
    let mended = segments::stratified(&strata, &[300, 100]).expect("valid");
    close(mended.control.value, 1.75, 1e-12);
    let effect = mended.normal();
    close(effect.delta, -0.125, 1e-12);
    close(
        effect.se,
        0.05 * (0.75f64.powi(2) + 0.25f64.powi(2)).sqrt(),
        1e-12,
    );
    assert!(segments::stratified(&strata, &[0, 0]).is_err());
    assert!(segments::stratified(&strata, &[1]).is_err());
}

#[test]
fn novelty_of_the_reference() {
    let daily = [
        0.9, 0.72, 0.6, 0.5, 0.45, 0.4, 0.37, 0.33, 0.31, 0.3, 0.29, 0.28, 0.27, 0.27,
    ];
    let daily: Vec<Effect> = effects(&daily.map(|d| (d, 0.05)));
    let days: Vec<u32> = (0..14).collect();
    let trend = novelty::trend(&days, &daily).expect("valid");
    close(trend.intercept.delta, 0.869391, 5e-7);
    close(trend.slope.delta, -0.245382, 5e-7);
    close(trend.slope.se, 0.017914, 5e-7);
    close(trend.slope.z(), -13.697593, 5e-6);
}

#[test]
fn quantile_of_the_reference() {
    let sorted: Vec<f64> = (1..=1000)
        .map(|i| -10.0 * (1.0 - (f64::from(i) - 0.5) / 1000.0).ln())
        .collect();
    let found = quantile::independent(&sorted, 0.99, 0.95).expect("valid");
    assert_eq!(found.ranks, (983, 997));
    close(found.value, 45.563800, 5e-7);
    close(found.low, 40.455544, 5e-7);
    close(found.high, 56.549925, 2e-6);
    close(found.se, 4.105784, 1e-6);

    // Each unit's events are equal: a hundred events tell as much as one.
    let repeated: Vec<f64> = sorted.iter().flat_map(|v| [*v; 10]).collect();
    let units: Vec<usize> = (0..1000).flat_map(|u| [u; 10]).collect();
    let clustered = quantile::clustered(&repeated, &units, 0.99, 0.95).expect("valid");
    close(clustered.inflation, 10.0, 0.02);
    close(clustered.low, found.low, 0.7);
    close(clustered.high, found.high, 4.0);

    // As the tool has it: the values by rank, and the spread from sums over units.
    let mut tally = Tally::new(2);
    for v in &sorted {
        let below = if *v <= found.value { 1.0 } else { 0.0 };
        tally.push(&[below, 1.0]).expect("finite");
    }
    let inflation = quantile::inflation(&tally.moments(), 0.99, 1000).expect("units");
    close(inflation, 1000.0 / 999.0, 1e-9);
    let ranked = quantile::of_ranks(0.99, 1000, 1.0, 0.95, 0.0, |rank| {
        sorted[usize::try_from(rank - 1).expect("small")]
    });
    assert_eq!(ranked.expect("valid"), found);
    assert!(quantile::independent(&[2.0, 1.0], 0.5, 0.95).is_err());
    let arm = quantile::arm(&found, 400);
    assert_eq!((arm.n, arm.value), (400, found.value));
}

#[test]
fn interleaving_of_the_reference() {
    let found = interleaving::by_session(&Sessions {
        a: 540,
        b: 460,
        ties: 200,
    })
    .expect("valid");
    close(found.delta, 0.033333, 5e-7);
    close(found.p_sign, 0.012444146, 5e-10);
    close(found.z, 2.529822, 5e-7);
    close(found.p_z, 0.011412037, 1e-9);
    close(found.credit.delta, 0.066667, 5e-7);
    close(found.credit.se, 0.026293, 5e-7);
    let small = interleaving::by_session(&Sessions {
        a: 60,
        b: 40,
        ties: 20,
    })
    .expect("valid");
    close(small.delta, 0.083333, 5e-7);
    close(small.p_sign, 0.056887934, 5e-10);
    assert!(
        interleaving::by_session(&Sessions {
            a: 0,
            b: 0,
            ties: 9
        })
        .is_err()
    );
    let user = interleaving::by_user(&Summary {
        n: 100,
        mean: 0.2,
        variance: 1.0,
    })
    .expect("valid");
    close(user.z(), 2.0, 1e-12);
}

#[test]
fn offline_against_online_of_the_reference() {
    let offline = [0.010, 0.004, -0.006, 0.020, 0.001, 0.013, -0.002, 0.008];
    let online = [0.006, 0.001, -0.004, 0.009, 0.002, 0.004, -0.003, 0.007];
    let se = [0.002, 0.002, 0.003, 0.002, 0.002, 0.003, 0.002, 0.002];
    let archive: Vec<Experiment> = (0..8)
        .map(|i| Experiment {
            offline: offline[i],
            online: online[i],
            se: se[i],
        })
        .collect();
    let found = agreement(&archive, 0.95).expect("valid");
    close(found.pearson.value, 0.913782, 5e-7);
    close(found.pearson.p, 0.001500467, 5e-10);
    // The reference rounds the normal quantile to 1.96.
    close(found.pearson_interval.low, 0.587236, 2e-5);
    close(found.pearson_interval.high, 0.984511, 2e-6);
    close(found.spearman.value, 0.880952, 5e-7);
    close(found.spearman.p, 0.003850, 5e-7);
    close(found.kendall.value, 0.714286, 5e-7);
    close(found.kendall.p, 0.014137, 5e-7);
    close(found.weighted, 0.909468, 5e-7);
    close(found.slope, 0.510359, 5e-7);
    close(found.reliability, 0.757426, 5e-7);
    close(
        found.noise_corrected_raw.expect("some signal"),
        1.049959,
        5e-7,
    );
    assert_eq!(found.noise_corrected, Some(1.0));
    assert!(found.few && found.leave_one_out_rmse < found.leave_one_out_baseline);
    close(found.sign_agreement, 1.0, 1e-15);
    assert!(agreement(&archive[..3], 0.95).is_err());
}
