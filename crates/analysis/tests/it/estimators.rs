//! Means, shares, lifts, ratios, CUPED: the reference numbers, and what must hold for any data.

use proptest::prelude::*;
use refrain_analysis::methods::effect::ConfidenceSet;
use refrain_analysis::methods::moments::{Summary, Tally};
use refrain_analysis::methods::proportion::{self, Share};
use refrain_analysis::methods::{MethodError, cuped, mean, multiplicity, ratio};

use crate::support::{close, gen42, moments, t12};

fn gbstats() -> (Summary, Summary) {
    (
        Summary::from_sums(3407, 1396.87, 52377.9767).expect("valid"),
        Summary::from_sums(3461, 2422.7, 134_698.29).expect("valid"),
    )
}

#[test]
fn mean_difference_of_summaries() {
    let (c, t) = gbstats();
    let comparison = mean::compare(&c, &t).expect("valid");
    let z = comparison.effect();
    close(z.delta, 0.290000, 5e-7);
    close(z.se, 0.124783632, 5e-10);
    close(z.z(), 2.324023, 5e-7);
    close(z.p_two_sided(), 0.020124274, 5e-10);
    let welch = comparison.welch();
    close(welch.df.expect("has df"), 5841.742032, 5e-7);
    close(welch.p_two_sided(), 0.020158403, 5e-10);
    let ci = z.interval(0.95).expect("valid");
    close(ci.low, 0.045428576, 5e-10);
    close(ci.high, 0.534571424, 5e-10);
}

#[test]
fn relative_lift_with_fieller() {
    let (c, t) = gbstats();
    let relative = mean::compare(&c, &t)
        .and_then(|c| c.relative(0.95))
        .expect("valid");
    close(relative.lift.delta, 0.707317073, 5e-10);
    close(relative.lift.se, 0.378794362, 5e-10);
    close(relative.delta_method.low, -0.0353, 5e-4);
    close(relative.delta_method.high, 1.4499, 5e-4);
    let ConfidenceSet::Interval(fieller) = relative.fieller else {
        panic!("not an interval: {relative:?}")
    };
    close(fieller.low, 0.094169463, 5e-9);
    close(fieller.high, 1.708403369, 5e-9);
    assert!(relative.denominator_is_weak);
}

#[test]
fn fieller_says_when_the_data_say_nothing() {
    let noise = Summary {
        n: 100,
        mean: 0.01,
        variance: 1.0,
    };
    let relative = mean::compare(&noise, &noise)
        .and_then(|c| c.relative(0.95))
        .expect("valid");
    assert_eq!(relative.fieller, ConfidenceSet::Everything);
    let strong = Summary {
        n: 100,
        mean: 5.0,
        variance: 1.0,
    };
    let relative = mean::compare(&noise, &strong)
        .and_then(|c| c.relative(0.95))
        .expect("valid");
    assert!(
        matches!(relative.fieller, ConfidenceSet::Outside(_)),
        "{relative:?}"
    );
}

#[test]
fn mean_difference_of_the_generated_table() {
    let [c, t] = gen42();
    let [c, t] = [moments(&c, &[0]), moments(&t, &[0])];
    let comparison = mean::compare(&c.summary(0), &t.summary(0)).expect("valid");
    let z = comparison.normal();
    close(z.delta, 0.362000, 1e-12);
    close(z.se, 0.114511715, 5e-10);
    close(z.z(), 3.161249, 5e-7);
    close(z.p_two_sided(), 0.001570944, 5e-10);
    close(comparison.welch().p_two_sided(), 0.001594498, 5e-10);
    close(comparison.welch().df.expect("df"), 1997.987434, 5e-7);
}

#[test]
fn shares_of_the_library_readme() {
    let arms = [(40, 100), (50, 100), (10, 50), (20, 60)];
    let arms = arms.map(|(successes, n)| Share { successes, n });
    let effects: Vec<_> = arms[1..]
        .iter()
        .map(|&t| proportion::compare(arms[0], t).expect("valid").normal())
        .collect();
    let p: Vec<f64> = effects.iter().map(|e| e.p_two_sided()).collect();
    for (p, expected) in p.iter().zip([0.153127451, 0.007526315, 0.393481769]) {
        close(*p, expected, 5e-10);
    }
    for (p, expected) in multiplicity::bonferroni(&p)
        .iter()
        .zip([0.459382353, 0.022578945, 1.0])
    {
        close(*p, expected, 5e-10);
    }
    let ci = effects[1].interval(0.95).expect("valid");
    close(ci.low, -0.346670274, 5e-10);
    close(ci.high, -0.053329726, 5e-10);
    let ci = effects[1].interval(1.0 - 0.05 / 3.0).expect("valid");
    close(ci.low, -0.379149044, 5e-10);
    close(ci.high, -0.020850956, 5e-10);
}

#[test]
fn ratio_by_delta_method() {
    let [c, t] = t12();
    let [c, t] = [moments(&c, &[0, 1]), moments(&t, &[0, 1])];
    let comparison = ratio::compare(&c.pair(0, 1), &t.pair(0, 1)).expect("valid");
    close(comparison.control.value, 0.171428571, 5e-10);
    close(comparison.treatment.value, 0.235849057, 5e-10);
    close(comparison.control.variance, 0.000342079689, 5e-13);
    close(comparison.treatment.variance, 0.000360814505, 5e-13);
    let effect = comparison.normal();
    close(effect.delta, 0.064420485, 5e-10);
    close(effect.se, 0.026512152, 5e-10);
    close(effect.z(), 2.429847, 5e-7);
    close(effect.p_two_sided(), 0.015105178, 5e-10);

    let [c, t] = gen42();
    let [c, t] = [moments(&c, &[0, 1]), moments(&t, &[0, 1])];
    let comparison = ratio::compare(&c.pair(0, 1), &t.pair(0, 1)).expect("valid");
    close(comparison.control.value, 0.333993309, 5e-10);
    close(comparison.treatment.value, 0.359493671, 5e-10);
    let effect = comparison.normal();
    close(effect.delta, 0.025500362, 5e-10);
    close(effect.se, 0.010078373, 5e-10);
    close(effect.z(), 2.530206, 5e-7);
}

#[test]
fn cuped_on_both_tables() {
    let [c, t] = t12();
    let adjusted = cuped::compare(&moments(&c, &[0, 2]), &moments(&t, &[0, 2])).expect("valid");
    close(adjusted.theta[0], 1.242857143, 5e-10);
    let effect = adjusted.comparison.normal();
    close(effect.delta, 1.166666667, 5e-10);
    close(effect.se, 0.398708232, 5e-10);
    close(adjusted.raw.normal().se, 1.400396769, 5e-10);
    close(effect.p_two_sided(), 0.003432226, 5e-10);
    close(adjusted.variance_reduction, 0.918940, 5e-7);

    let [c, t] = gen42();
    let adjusted = cuped::compare(&moments(&c, &[0, 2]), &moments(&t, &[0, 2])).expect("valid");
    close(adjusted.theta[0], 1.012041999, 5e-10);
    let effect = adjusted.comparison.normal();
    close(effect.delta, 0.279012556, 5e-10);
    close(effect.se, 0.050885805, 5e-10);
    close(effect.z(), 5.483112, 5e-7);
    close(adjusted.variance_reduction, 0.802533, 5e-7);
}

#[test]
fn cuped_of_a_ratio_without_covariates_is_the_ratio() {
    let [c, t] = gen42();
    let plain = cuped::compare_ratio(&moments(&c, &[0, 1]), &moments(&t, &[0, 1])).expect("valid");
    assert_eq!(plain.comparison, plain.raw);
    let adjusted =
        cuped::compare_ratio(&moments(&c, &[0, 1, 2]), &moments(&t, &[0, 1, 2])).expect("valid");
    assert_eq!(adjusted.raw, plain.raw);
    assert!(adjusted.variance_reduction > 0.2, "{adjusted:?}");
}

#[test]
fn a_covariate_that_the_treatment_moved_is_refused() {
    let [c, mut t] = gen42();
    for row in &mut t {
        row[2] += 1.0;
    }
    let refused = cuped::compare(&moments(&c, &[0, 2]), &moments(&t, &[0, 2]));
    assert!(
        matches!(refused, Err(MethodError::CovariateMoved { .. })),
        "{refused:?}"
    );
}

#[test]
fn bad_input_is_an_error_in_words() {
    let constant = Summary::of(&[1.0, 1.0, 1.0]).expect("valid");
    let error = mean::compare(&constant, &constant).expect_err("no variance");
    assert_eq!(
        error.to_string(),
        "the metric does not vary, so its error cannot be estimated"
    );
    let one = Summary::of(&[1.0]).expect("valid");
    let error = mean::compare(&one, &constant).expect_err("one unit");
    assert_eq!(
        error.to_string(),
        "units of the control arm: needs at least 2, got 1"
    );
    let mut tally = Tally::new(1);
    assert!(tally.push(&[f64::NAN]).is_err());
    assert!(tally.push(&[1e200]).is_err());
    assert!(tally.push(&[1.0, 2.0]).is_err());
    assert_eq!(tally.n(), 0);
    assert!(Summary::from_sums(10, 100.0, 1.0).is_err());
}

#[test]
fn exploratory_corrections() {
    let p = [6.3342e-5, 0.423710797, 0.095580705, 0.617075077];
    let check = |got: Vec<f64>, expected: [f64; 4]| {
        for (g, e) in got.iter().zip(expected) {
            close(*g, e, 2e-8);
        }
    };
    check(
        multiplicity::holm(&p),
        [0.00025337, 0.847421594, 0.286742114, 0.847421594],
    );
    check(
        multiplicity::benjamini_hochberg(&p),
        [0.00025337, 0.56494773, 0.191161409, 0.617075077],
    );
    check(
        multiplicity::hommel(&p),
        [0.00025337, 0.617075077, 0.286742114, 0.617075077],
    );
}

proptest! {
    /// A constant shared by all values must not cost digits.
    #[test]
    fn variance_survives_a_huge_mean(values in prop::collection::vec(-1000i32..1000, 2..50), shift in 0u32..40) {
        let shift = f64::from(shift).exp2();
        let plain: Vec<f64> = values.iter().map(|&v| f64::from(v)).collect();
        let moved: Vec<f64> = plain.iter().map(|v| v + shift).collect();
        let (a, b) = (Summary::of(&plain).expect("ok"), Summary::of(&moved).expect("ok"));
        prop_assert!((a.variance - b.variance).abs() <= 1e-12 * a.variance, "{} {}", a.variance, b.variance);
    }

    #[test]
    fn tallies_merge_to_the_same_bits(rows in prop::collection::vec((-1e6f64..1e6, 0.0f64..100.0, prop::num::f64::NORMAL), 1..60), cuts in prop::collection::vec(0usize..4, 60)) {
        let rows: Vec<[f64; 3]> = rows.into_iter().map(|(a, b, c)| [a, b, c % 1e9]).collect();
        let mut whole = Tally::new(3);
        let mut parts: Vec<Tally> = (0..4).map(|_| Tally::new(3)).collect();
        for (row, &cut) in rows.iter().zip(&cuts) {
            whole.push(row).expect("finite");
            parts[cut].push(row).expect("finite");
        }
        let mut merged = Tally::new(3);
        for part in parts.iter().rev() {
            merged.merge(part).expect("same columns");
        }
        prop_assert_eq!(whole.moments(), merged.moments());
    }

    #[test]
    fn moments_merge_to_rounding(rows in prop::collection::vec((-100.0f64..100.0, 0.0f64..10.0), 2..60), cut in 0usize..60) {
        let cut = cut.min(rows.len());
        let tally = |rows: &[(f64, f64)]| {
            let mut t = Tally::new(2);
            rows.iter().for_each(|&(a, b)| t.push(&[a, b]).expect("finite"));
            t.moments()
        };
        let whole = tally(&rows);
        let merged = tally(&rows[..cut]).merged(&tally(&rows[cut..])).expect("same columns");
        for (a, b) in whole.cross.iter().zip(&merged.cross) {
            prop_assert!((a - b).abs() < 1e-8, "{a} {b}");
        }
    }

    #[test]
    fn hommel_lies_between_its_neighbours(p in prop::collection::vec(0.0f64..1.0, 1..12)) {
        let hommel = multiplicity::hommel(&p);
        let holm = multiplicity::holm(&p);
        for ((p, hommel), holm) in p.iter().zip(&hommel).zip(&holm) {
            prop_assert!(*hommel >= *p && *hommel <= holm + 1e-12);
        }
    }
}
