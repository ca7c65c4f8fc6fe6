//! Encouragement, segments, novelty, quantiles, interleaving, offline against online: reference numbers.

use proptest::prelude::*;
use refrain_analysis::methods::effect::{ConfidenceSet, Effect};
use refrain_analysis::methods::interleaving::{self, Sessions};
use refrain_analysis::methods::moments::{PairSummary, Summary, Tally};
use refrain_analysis::methods::offline_online::{Experiment, agreement};
use refrain_analysis::methods::quantile::{self, Histogram};
use refrain_analysis::methods::{iv, novelty, segments};

use crate::support::{SplitMix, close};

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
    let mended = segments::stratified(&strata, &[300, 100]).expect("valid");
    close(mended.delta, -0.125, 1e-12);
    close(
        mended.se,
        0.05 * (0.75f64.powi(2) + 0.25f64.powi(2)).sqrt(),
        1e-12,
    );
    assert!(segments::stratified(&strata, &[0, 0]).is_err());
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
    close(
        novelty::average(&daily[..7]).expect("valid").delta,
        0.562857,
        5e-7,
    );
    close(
        novelty::average(&daily[7..]).expect("valid").delta,
        0.292857,
        5e-7,
    );
    let change = novelty::change(&daily[..7], &daily[7..]).expect("valid");
    close(change.delta, -0.270000, 5e-7);
    close(change.se, 0.026726, 5e-7);
}

#[test]
fn a_paired_change_uses_the_covariance() {
    let rows = |lift: f64| -> Vec<(f64, f64)> {
        let mut random = SplitMix::new(3);
        (0..500)
            .map(|_| {
                let level = 10.0 * random.uniform();
                (level + random.uniform() + lift, level + random.uniform())
            })
            .collect()
    };
    let (c, t) = (pairs(&rows(0.0)), pairs(&rows(1.0)));
    let paired = novelty::paired_change(&c, &t).expect("valid");
    close(paired.delta, -1.0, 1e-9);
    assert!(paired.se < 0.04, "{paired:?}");
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

    let mut histogram = Histogram::default();
    for v in &sorted {
        histogram.add(*v).expect("positive");
    }
    let binned = histogram.quantile(0.99, 1.0, 0.95).expect("valid");
    assert!((binned.value / found.value - 1.0).abs() <= Histogram::RESOLUTION);
    assert!((binned.low / found.low - 1.0).abs() <= Histogram::RESOLUTION);
    assert!(histogram.add(-1.0).is_err() && histogram.add(f64::NAN).is_err());
    assert!(quantile::independent(&[2.0, 1.0], 0.5, 0.95).is_err());
    let comparison = quantile::compare(&found, &clustered).expect("valid");
    close(comparison.normal().delta, 0.0, 1e-9);
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

proptest! {
    /// A histogram never misplaces a rank by more than its resolution, and merging is counting.
    #[test]
    fn histogram_ranks(values in prop::collection::vec(0.0f64..1e9, 2..200), cut in 0usize..200) {
        let cut = cut.min(values.len());
        let (mut a, mut b) = (Histogram::default(), Histogram::default());
        for v in &values[..cut] { a.add(*v).expect("fits"); }
        for v in &values[cut..] { b.add(*v).expect("fits"); }
        b.merge(&a);
        let mut sorted = values.clone();
        sorted.sort_by(f64::total_cmp);
        for (rank, v) in (1..).zip(&sorted) {
            let got = b.at_rank(rank).expect("within");
            prop_assert!((got - v).abs() <= Histogram::RESOLUTION * v, "{got} {v}");
        }
        prop_assert_eq!(b.at_rank(values.len() as u64 + 1), None);
    }
}
