//! The reference's numbers through the whole tool: logs whose units have exactly the moments that the
//! numbers were made from.

use std::path::Path;
use std::sync::Arc;

use arrow_array::builder::{FixedSizeBinaryBuilder, TimestampMicrosecondBuilder};
use arrow_array::{ArrayRef, Float64Array, RecordBatch, StringArray, UInt32Array};
use parquet::arrow::ArrowWriter;
use refrain_analysis::methods::effect::ConfidenceSet;
use refrain_analysis::methods::{multiplicity, segments};
use refrain_analysis::simulate::{START_US, World};
use refrain_analysis::{Analysis, Options, Plan, report};
use tempfile::TempDir;

use crate::support::{Case, comparison};

const DAY_US: i64 = 86_400_000_000;

/// Units with their segment, and what they did on which day of their life.
#[derive(Default)]
struct Log {
    units: Vec<(String, &'static str, String)>,
    happened: Vec<(String, i64, f64)>,
}

impl Log {
    fn add(&mut self, arm: usize, segment: &str, days: &[f64]) {
        let id = format!("u{}", self.units.len());
        for (day, value) in (0..).zip(days) {
            self.happened
                .push((id.clone(), START_US + day * DAY_US + 1_000_000, *value));
        }
        self.units
            .push((id, ["control", "other"][arm], segment.to_owned()));
    }

    /// `n` units with this mean and variance (over n − 1).
    fn spread(&mut self, arm: usize, segment: &str, n: u32, mean: f64, variance: f64) {
        let away = (variance * f64::from(n - 1) / f64::from(n / 2 * 2)).sqrt();
        for at in 0..n {
            let value = match at {
                at if n % 2 == 1 && at == n - 1 => mean,
                at if at % 2 == 0 => mean + away,
                _ => mean - away,
            };
            self.add(arm, segment, &[value]);
        }
    }

    fn analyze(&self, plan: &str) -> Analysis {
        let folder = self.write();
        let plan = Plan::from_toml(plan, None).expect("valid plan");
        let mut options = Options::default();
        options.read.until_us = Some(START_US + 20 * DAY_US);
        refrain_analysis::from_log(folder.path(), &plan, &options, &|_, _| ())
            .expect("analysed")
            .0
    }

    fn write(&self) -> TempDir {
        let folder = tempfile::tempdir().expect("temporary folder");
        let n = self.units.len();
        let mut ids = FixedSizeBinaryBuilder::new(16);
        for at in 0..n as u128 {
            ids.append_value(at.to_le_bytes()).expect("16 bytes");
        }
        let text = |of: &dyn Fn(usize) -> String| {
            Arc::new(StringArray::from_iter_values((0..n).map(of))) as ArrayRef
        };
        write(
            &folder.path().join("exposures"),
            vec![
                ("exposure_id", Arc::new(ids.finish())),
                ("ts", times((0..n).map(|_| START_US))),
                ("unit_id", text(&|at| self.units[at].0.clone())),
                ("experiment", text(&|_| "e".to_owned())),
                ("exp_epoch", Arc::new(UInt32Array::from(vec![1; n]))),
                ("variant", text(&|at| self.units[at].1.to_owned())),
                ("reason", text(&|_| "SPLIT".to_owned())),
                ("surface", text(&|at| self.units[at].2.clone())),
            ],
        );
        let happened = &self.happened;
        let units = happened.iter().map(|row| row.0.as_str());
        let values = happened.iter().map(|row| row.2);
        write(
            &folder.path().join("outcomes"),
            vec![
                ("ts", times(happened.iter().map(|row| row.1))),
                ("unit_id", Arc::new(StringArray::from_iter_values(units))),
                (
                    "event",
                    Arc::new(StringArray::from(vec!["x"; happened.len()])),
                ),
                ("value", Arc::new(Float64Array::from_iter_values(values))),
            ],
        );
        folder
    }
}

fn times(of: impl Iterator<Item = i64>) -> ArrayRef {
    let mut times = TimestampMicrosecondBuilder::new().with_timezone("UTC");
    of.for_each(|at| times.append_value(at));
    Arc::new(times.finish())
}

fn write(folder: &Path, columns: Vec<(&str, ArrayRef)>) {
    let batch = RecordBatch::try_from_iter(columns).expect("columns");
    fs_err::create_dir_all(folder).expect("made");
    let file = fs_err::File::create(folder.join("0.parquet")).expect("made");
    let mut writer =
        ArrowWriter::try_new(file.into_parts().0, batch.schema(), None).expect("writer");
    writer.write(&batch).expect("written");
    writer.close().expect("closed");
}

fn plan(design: &str, experiment: &str, metric: &str) -> String {
    format!(
        "[experiment.e]\nepoch = 1\ndesign = {design}\n{experiment}\n\
         [[experiment.e.arm]]\nname = \"control\"\nweight = 1\n[[experiment.e.arm]]\nname = \"other\"\nweight = 1\n\
         [[experiment.e.metric]]\nname = \"x\"\nwindow = \"closed(0d,14d)\"\n{metric}\n"
    )
}

const ONCE: &str = "{ method = \"fixed\", max_units = 10, alpha = 0.025 }";
const SUCCESS: &str = "role = \"success\"";

#[track_caller]
fn close(got: f64, expected: f64, tolerance: f64) {
    assert!(
        (got - expected).abs() <= tolerance,
        "got {got}, expected {expected} within {tolerance:e}"
    );
}

fn first_case() -> Log {
    let mut log = Log::default();
    for (arm, n, sum, squares) in [
        (0, 3407_u32, 1396.87, 52_377.976_7),
        (1, 3461, 2422.7, 134_698.29),
    ] {
        let count = f64::from(n);
        let variance = (squares - sum * sum / count) / (count - 1.0);
        log.spread(arm, "home", n, sum / count, variance);
    }
    log
}

/// E1, whose control is close to zero: both intervals of the lift are told.
#[test]
fn difference_and_lift() {
    let analysis = first_case().analyze(&plan(ONCE, "", SUCCESS));
    let found = comparison(&analysis, "x");
    close(found.delta, 0.290000, 5e-7);
    close(found.se, 0.124783632, 5e-9);
    close(found.z, 2.324023, 5e-7);
    close(found.interval.low, 0.045428576, 5e-9);
    close(found.interval.high, 0.534571424, 5e-9);
    let relative = found.relative.as_ref().expect("not 0");
    close(relative.lift, 0.707317073, 5e-9);
    close(relative.delta_method.low, -0.0353, 5e-4);
    close(relative.delta_method.high, 1.4499, 5e-4);
    let ConfidenceSet::Interval(fieller) = relative.fieller else {
        panic!("not an interval: {relative:?}")
    };
    close(fieller.low, 0.094169463, 5e-8);
    close(fieller.high, 1.708403369, 5e-8);
    assert_eq!(relative.method, "Fieller");
    let page = report::html(&analysis, "refrain experiment report");
    assert!(
        page.contains("+9.42 % to +171 %<br>Fieller<br>−3.51 % to +145 %<br>delta method"),
        "both are shown"
    );
    assert!(
        page.contains("difference of means, z"),
        "the test is named in the row"
    );
}

/// E5: the mixture at what matters, in one direction.
#[test]
fn mixture_sprt() {
    let design = "{ method = \"msprt\", alpha = 0.05 }";
    let analysis = first_case().analyze(&plan(design, "", "role = \"success\"\nmde = 0.2"));
    let found = comparison(&analysis, "x");
    // Half the two-sided 0.270434878.
    close(found.p_all_looks.expect("always valid"), 0.135217439, 5e-9);
    assert_eq!(found.outcome, "no_evidence");
    // At the bound of 10 = 1/(2 α) the likelihood ratio is 10.
    let (v, tau, z) = (found.se * found.se, 0.2_f64, found.bound.expect("judged"));
    let ratio = (v / (v + tau * tau)).sqrt() * (tau * tau * z * z / (2.0 * (v + tau * tau))).exp();
    close(ratio, 10.0, 1e-9);
    let page = report::html(&analysis, "refrain experiment report");
    assert!(page.contains("all looks 0.1352") && page.contains("mixture SPRT"));
}

/// E11: one event a unit, so clusters change nothing.
#[test]
fn quantile_of_latency() {
    let mut log = Log::default();
    for i in 1..=1000 {
        for arm in 0..2 {
            let value = -10.0 * (1.0 - (f64::from(i) - 0.5) / 1000.0).ln();
            log.add(arm, "home", &[value]);
        }
    }
    let metric = "role = \"scan\"\ntype = \"quantile(0.99)\"\ndirection = \"down\"";
    let analysis = log.analyze(&plan(ONCE, "kind = \"rollout\"", metric));
    let arm = &analysis.metrics[0].arms[0];
    // Values are kept to 0.012 %.
    close(arm.value.expect("shown"), 45.563800, 0.006);
    close(arm.se.expect("shown"), 4.105784, 0.004);
}

/// E12.
#[test]
fn effects_by_segment() {
    let mut log = Log::default();
    for (segment, effect, se) in [
        ("a", 0.8, 0.2_f64),
        ("b", 0.2, 0.25),
        ("c", 0.5, 0.3),
        ("d", -0.1, 0.2),
    ] {
        for arm in 0..2 {
            let mean = if arm == 1 { effect } else { 0.0 };
            log.spread(arm, segment, 40, 5.0 + mean, se * se * 20.0);
        }
    }
    let declared = log.analyze(&plan(ONCE, "segments = [\"surface\"]", SUCCESS));
    let found = &comparison(&declared, "x").segments[0];
    close(found.pooled.expect("four"), 0.340489913, 1e-8);
    close(found.pooled_se.expect("four"), 0.113878443, 5e-9);
    close(found.q.expect("four"), 10.728026, 5e-6);
    close(found.heterogeneity_p.expect("four"), 0.013291229, 5e-9);
    close(found.i_squared.expect("four"), 0.720359, 5e-7);
    close(found.tau_squared.expect("four"), 0.138050, 5e-7);
    assert!(found.confirmatory && !found.simpson);
    let p: Vec<f64> = found.values.iter().map(|v| v.p).collect();
    let (holm, bh) = (multiplicity::holm(&p), multiplicity::benjamini_hochberg(&p));
    let hommel = multiplicity::hommel(&p);
    for (at, value) in found.values.iter().enumerate() {
        assert_eq!(value.value, ["a", "b", "c", "d"][at]);
        assert_eq!((value.p_holm, value.p_bh), (holm[at], bh[at]));
        assert_eq!(value.p_hommel, hommel[at]);
    }
    assert!(holm[0] < 0.01 && holm[1] > 0.2, "{holm:?}");
    let effects: Vec<_> = found
        .values
        .iter()
        .map(|v| {
            refrain_analysis::methods::effect::Effect::new(v.delta, v.se, None).expect("valid")
        })
        .collect();
    let shrunk = segments::heterogeneity(&effects).expect("four").shrunk;
    for (value, expected) in found.values.iter().zip(shrunk) {
        let got = value.shrunk.expect("four");
        assert_eq!((got.delta, got.se), (expected.delta, expected.se));
    }
    let page = report::html(&declared, "refrain experiment report");
    assert!(page.contains("declared: p by Holm") && page.contains("(p = 0.0133, 72.0 %"));

    // The same column, not declared: drawn in.
    let explored = log.analyze(&plan(ONCE, "explore = [\"surface\"]", SUCCESS));
    assert!(!comparison(&explored, "x").segments[0].confirmatory);
    let page = report::html(&explored, "refrain experiment report");
    assert!(page.contains("explored: drawn towards the average"));
    let drawn = comparison(&explored, "x").segments[0].values[0]
        .shrunk
        .expect("four");
    assert!(drawn.delta < 0.8 && page.contains(&report::signed(drawn.delta, 0.2)));
}

/// The arms have other shares of the segments: everything together says the opposite of each part.
#[test]
fn simpsons_paradox_by_segment_is_named() {
    let mut log = Log::default();
    for (segment, arm, n, mean) in [
        // As far apart as chance still allows: further, and it is the sample ratio that is named.
        ("home", 0, 170, 10.0),
        ("home", 1, 230, 9.8),
        ("radio", 0, 230, 2.0),
        ("radio", 1, 170, 1.8),
    ] {
        log.spread(arm, segment, n, mean, 1.0);
    }
    let analysis = log.analyze(&plan(ONCE, "segments = [\"surface\"]", SUCCESS));
    let found = comparison(&analysis, "x");
    close(found.delta, 1.0, 1e-9);
    assert!(found.segments[0].simpson);
    let told = |reason: &String| reason.contains("in every value of `surface` (Simpson's paradox)");
    assert!(
        analysis.verdict.reasons.iter().any(told),
        "{:?}",
        analysis.verdict
    );
    let page = report::html(&analysis, "refrain experiment report");
    assert!(page.contains("the effect points the other way than in every value: Simpson"));
}

/// E13: the daily effects, each with a standard error of 0.05 and independent of the others.
#[test]
fn novelty_by_age() {
    const EFFECTS: [f64; 14] = [
        0.9, 0.72, 0.6, 0.5, 0.45, 0.4, 0.37, 0.33, 0.31, 0.3, 0.29, 0.28, 0.27, 0.27,
    ];
    let n = 32_u32;
    let away = 0.05 * (f64::from(n - 1) / 2.0).sqrt();
    let mut log = Log::default();
    for arm in 0..2 {
        for unit in 0..n {
            let days: Vec<f64> = (1_u32..)
                .zip(EFFECTS)
                .map(|(column, effect)| {
                    // Rows of a Hadamard matrix: columns are balanced and orthogonal.
                    let sign = if ((unit % 16) & column).count_ones() % 2 == 0 {
                        1.0
                    } else {
                        -1.0
                    };
                    5.0 + sign * away + if arm == 1 { effect } else { 0.0 }
                })
                .collect();
            log.add(arm, "home", &days);
        }
    }
    let analysis = log.analyze(&plan(ONCE, "", SUCCESS));
    let novelty = comparison(&analysis, "x")
        .by_age
        .as_ref()
        .expect("old enough");
    assert_eq!(novelty.days.len(), 14);
    for (day, effect) in novelty.days.iter().zip(EFFECTS) {
        close(day.delta, effect, 1e-12);
        close(day.se, 0.05, 1e-12);
    }
    close(novelty.intercept.expect("all days"), 0.869391, 5e-7);
    close(novelty.slope.expect("all days"), -0.245382, 5e-7);
    close(novelty.slope_se.expect("all days"), 0.017914, 5e-7);
    let of = |name: &str| {
        let period = novelty.periods.iter().find(|p| p.period == name);
        period.expect("there").delta
    };
    close(of("day 1"), 0.9, 1e-12);
    close(of("week 1"), 0.562857, 5e-7);
    close(of("week 2"), 0.292857, 5e-7);
    close(
        novelty.week_two_minus_one.expect("two weeks"),
        -0.270000,
        5e-7,
    );
    close(
        novelty.week_two_minus_one_se.expect("two weeks"),
        0.026726,
        5e-7,
    );
}

/// A ramp with changed weights while listening halves is no novelty.
#[test]
fn a_ramp_is_no_novelty() {
    let mut world = World::new(9, 8_000);
    world.faults.ramp = true;
    let analysis = Case::new(&world, r#"{ method = "gst", max_units = 8000 }"#).analyze();
    let novelty = comparison(&analysis, "minutes_week1")
        .by_age
        .as_ref()
        .expect("old enough");
    for period in &novelty.periods {
        assert!(period.delta.abs() < 3.0 * period.se, "{period:?}");
    }
    let (slope, se) = novelty.slope.zip(novelty.slope_se).expect("all days");
    assert!(slope.abs() < 3.0 * se, "{slope} {se}");
}

/// Half of the units gain by the treatment, half lose, by a column of the log.
fn by_surface(effects: [f64; 2], seed: u64) -> Log {
    let mut log = Log::default();
    // Splitmix64.
    let mut state = seed;
    let mut uniform = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    };
    for unit in 0..1600 {
        let (segment, arm) = (unit / 2 % 2, unit % 2);
        // Variance 1.
        let noise = (0..12).map(|_| uniform()).sum::<f64>() - 6.0;
        let effect = if arm == 1 { effects[segment] } else { 0.0 };
        log.add(arm, ["home", "radio"][segment], &[10.0 + effect + noise]);
    }
    log
}

#[test]
fn a_policy_by_segment_is_learned_and_valued_on_others() {
    let text = plan(ONCE, "segments = [\"surface\"]", SUCCESS);
    let analysis = by_surface([0.5, -0.5], 2).analyze(&text);
    let [policy] = &analysis.metrics[0].policies[..] else {
        panic!("{:?}", analysis.metrics[0].policies)
    };
    let chosen: Vec<_> = policy
        .choices
        .iter()
        .map(|c| (c.value.as_str(), c.arm.as_str()))
        .collect();
    assert_eq!(chosen, [("home", "other"), ("radio", "control")]);
    assert!(policy.choices.iter().all(|c| !c.fell_back));
    assert_eq!(policy.units.iter().sum::<u64>(), 1600);
    assert!(policy.units[0].abs_diff(800) < 100, "{:?}", policy.units);
    assert!(policy.interval.contains(10.25), "{policy:?}");
    assert!(
        policy.gain_interval.contains(0.25) && policy.gain_interval.low > 0.0,
        "{policy:?}"
    );
    assert_eq!(policy.words, "evidence that choosing by segment is better");
    let page = report::html(&analysis, "refrain experiment report");
    assert!(
        page.contains("Another arm for each segment?")
            && page.contains("home → other; radio → control")
    );
    // The whole is still the sum of its halves.
    let found = &comparison(&analysis, "x").segments[0];
    assert_eq!(found.values.iter().map(|v| v.units[0]).sum::<u64>(), 800);

    // Less is better: the same, mirrored.
    let down = format!("{SUCCESS}\ndirection = \"down\"");
    let mirrored =
        by_surface([0.5, -0.5], 2).analyze(&plan(ONCE, "segments = [\"surface\"]", &down));
    let policy = &mirrored.metrics[0].policies[0];
    assert_eq!(policy.choices[0].arm, "control");
    assert!(
        policy.gain < 0.0 && policy.gain_interval.high < 0.0,
        "{policy:?}"
    );
    assert_eq!(policy.words, "evidence that choosing by segment is better");
}

#[test]
fn without_a_difference_no_policy_by_segment_is_found() {
    let text = plan(ONCE, "segments = [\"surface\"]", SUCCESS);
    for seed in 2..6 {
        let analysis = by_surface([0.0, 0.0], seed).analyze(&text);
        let policy = &analysis.metrics[0].policies[0];
        assert_ne!(
            policy.words, "evidence that choosing by segment is better",
            "{policy:?}"
        );
        assert!(policy.gain.abs() <= 3.0 * policy.gain_se, "{policy:?}");
        assert!((policy.value - 10.0).abs() < 3.0 * policy.se, "{policy:?}");
    }
    // A design that hides effects hides who would get what.
    let hidden = plan(
        "{ method = \"fixed\", max_units = 5000 }",
        "segments = [\"surface\"]",
        SUCCESS,
    );
    let analysis = by_surface([0.5, -0.5], 2).analyze(&hidden);
    assert!(analysis.verdict.effects_hidden.is_some());
    assert!(analysis.metrics[0].policies.is_empty());
    assert!(!report::html(&analysis, "again").contains("Another arm for each segment"));
}
