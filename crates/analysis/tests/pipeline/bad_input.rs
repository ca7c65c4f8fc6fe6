//! Every log that can be wrong says where, or names the policy that dealt with it.

use std::sync::Arc;

use arrow_array::cast::AsArray as _;
use arrow_array::types::TimestampMicrosecondType;
use arrow_array::{
    Array as _, Float64Array, StringArray, TimestampMicrosecondArray, TimestampNanosecondArray,
};
use proptest::prelude::*;
use refrain_analysis::simulate::World;
use refrain_analysis::verdict::document::Status;
use refrain_analysis::{Analysis, Options, report};

use crate::support::{Case, FIXED, check, comparison, rewrite, table, with_column, without_column};

fn world() -> World {
    let mut world = World::new(20, 300);
    world.rows_per_group = 400;
    world
}

fn error(case: &Case) -> String {
    refrain_analysis::from_log(
        case.folder.path(),
        &case.plan,
        &Options::default(),
        &|_, _| (),
    )
    .expect_err("refused")
    .to_string()
}

#[test]
fn a_missing_column_is_named_with_its_file() {
    let case = Case::new(&world(), FIXED);
    rewrite(&table(&case, "exposures"), |_, batch| {
        without_column(&batch, "exposure_id")
    });
    let error = error(&case);
    assert!(
        error.contains("exposures/simulated-0.parquet")
            && error.contains("`exposure_id` is missing"),
        "{error}"
    );
    assert!(error.contains("unit_id"), "says what is there: {error}");
}

#[test]
fn a_wrong_type_is_named() {
    let case = Case::new(&world(), FIXED);
    rewrite(&table(&case, "outcomes"), |_, batch| {
        let text = StringArray::from_iter_values((0..batch.num_rows()).map(|row| row.to_string()));
        with_column(&batch, "value", Arc::new(text))
    });
    let error = error(&case);
    assert!(
        error.contains("`value` is Utf8, must be a number"),
        "{error}"
    );
}

#[test]
fn a_file_cut_short_is_named() {
    let case = Case::new(&world(), FIXED);
    let path = table(&case, "outcomes");
    let bytes = fs_err::read(&path).expect("there");
    fs_err::write(&path, &bytes[..bytes.len() / 2]).expect("cut");
    let error = error(&case);
    assert!(
        error.contains("outcomes/simulated-0.parquet, footer"),
        "{error}"
    );
}

#[test]
fn a_damaged_page_is_named_with_its_row_group() {
    let case = Case::new(&world(), FIXED);
    let path = table(&case, "exposures");
    let mut bytes = fs_err::read(&path).expect("there");
    // Inside the data pages: the first half of the file, past the magic number.
    let end = bytes.len() / 2;
    for byte in &mut bytes[64..end] {
        *byte ^= 0x5a;
    }
    fs_err::write(&path, &bytes).expect("damaged");
    let error = error(&case);
    assert!(
        error.contains("exposures/simulated-0.parquet, row group 0"),
        "{error}"
    );
}

#[test]
fn nan_is_an_error_with_its_place_or_dropped_and_counted() {
    let case = Case::new(&world(), FIXED);
    rewrite(&table(&case, "outcomes"), |group, batch| {
        let mut values = batch
            .column_by_name("value")
            .expect("there")
            .as_primitive::<arrow_array::types::Float64Type>()
            .values()
            .to_vec();
        if group == 1 {
            values[2] = f64::NAN;
        }
        with_column(&batch, "value", Arc::new(Float64Array::from(values)))
    });
    let message = error(&case);
    assert!(
        message.contains("row group 1, row 3: `value` is NaN"),
        "{message}"
    );
    let mut options = Options::default();
    options.read.drop_bad_values = true;
    let analysis = case.look(&options).0;
    let policy = analysis
        .data
        .policies
        .iter()
        .find(|p| p.about == "values that are no number")
        .expect("stated");
    assert_eq!(policy.applied, 1);
}

#[test]
fn an_arm_that_the_plan_does_not_have_is_named() {
    let case = Case::new(&world(), FIXED);
    rewrite(&table(&case, "exposures"), |_, batch| {
        let arms: Vec<&str> = (0..batch.num_rows()).map(|_| "mystery").collect();
        with_column(&batch, "variant", Arc::new(StringArray::from(arms)))
    });
    let error = error(&case);
    assert!(
        error.contains("row group 0, row 1: `variant` names arm `mystery`"),
        "{error}"
    );
}

#[test]
fn another_epoch_is_not_this_one() {
    let mut case = Case::new(&world(), FIXED);
    case.plan.epoch = 7;
    let error = error(&case);
    assert!(
        error.contains("epoch 7") && error.contains("`blend` epoch 1"),
        "{error}"
    );
}

#[test]
fn an_empty_folder_says_what_it_lacks() {
    let case = Case::new(&world(), FIXED);
    fs_err::remove_dir_all(case.folder.path().join("exposures")).expect("removed");
    assert!(error(&case).contains("no exposure files"));
}

#[test]
fn instants_count_whatever_the_zone_or_unit() {
    let case = Case::new(&world(), FIXED);
    let before = facts(&case.analyze());
    rewrite(&table(&case, "exposures"), |_, batch| {
        let times = batch
            .column_by_name("ts")
            .expect("there")
            .as_primitive::<TimestampMicrosecondType>();
        let nanos: Vec<i64> = times.values().iter().map(|us| us * 1000).collect();
        let zoned = TimestampNanosecondArray::from(nanos).with_timezone("+09:00");
        with_column(&batch, "ts", Arc::new(zoned))
    });
    assert_eq!(facts(&case.analyze()), before);
}

#[test]
fn seconds_taken_for_microseconds_are_noticed() {
    let case = Case::new(&world(), FIXED);
    rewrite(&table(&case, "exposures"), |_, batch| {
        let times = batch
            .column_by_name("ts")
            .expect("there")
            .as_primitive::<TimestampMicrosecondType>();
        let wrong: Vec<i64> = times.values().iter().map(|us| us / 1_000_000).collect();
        let wrong = TimestampMicrosecondArray::from(wrong).with_timezone("UTC");
        with_column(&batch, "ts", Arc::new(wrong))
    });
    assert!(error(&case).contains("wrong unit of time?"));
}

#[test]
fn outcomes_before_exposure_are_left_out_and_counted() {
    let case = Case::new(&world(), FIXED);
    let before = facts(&case.analyze());
    let mut extra = None;
    rewrite(&table(&case, "outcomes"), |group, batch| {
        if group == 0 {
            extra = Some(batch.num_rows());
            let times = batch
                .column_by_name("ts")
                .expect("there")
                .as_primitive::<TimestampMicrosecondType>();
            let early: Vec<i64> = times
                .values()
                .iter()
                .map(|us| us - 40 * 86_400_000_000)
                .collect();
            let early = TimestampMicrosecondArray::from(early).with_timezone("UTC");
            return with_column(&batch, "ts", Arc::new(early));
        }
        batch
    });
    let analysis = case.analyze();
    assert_eq!(
        analysis.data.leftovers.outcomes_before_exposure,
        extra.expect("a group") as u64
    );
    assert_ne!(facts(&analysis), before);
}

fn facts(analysis: &Analysis) -> String {
    let metrics = serde_json::to_string(&analysis.metrics).expect("JSON");
    format!("{:?} {metrics}", analysis.observed.units)
}

#[test]
fn an_arm_without_units_is_invalid_and_says_so() {
    let mut world = world();
    world.faults.lose_treatment = 1.0;
    let mut case = Case::new(&world, FIXED);
    case.plan.arms.push(refrain_analysis::plan::Arm {
        name: "third".to_owned(),
        share: 0.3,
        ..refrain_analysis::plan::Arm::default()
    });
    let analysis = case.analyze();
    assert_eq!(analysis.verdict.recommendation, "INVALID");
    assert!(
        analysis.verdict.reasons[0].contains("`third` has no units"),
        "{:?}",
        analysis.verdict.reasons
    );
}

#[test]
fn nothing_that_varies_is_said_not_divided_by() {
    let case = Case::new(&world(), FIXED);
    rewrite(&table(&case, "outcomes"), |_, batch| {
        let events: Vec<&str> = (0..batch.num_rows()).map(|_| "nothing").collect();
        with_column(&batch, "event", Arc::new(StringArray::from(events)))
    });
    let analysis = case.analyze();
    assert_eq!(analysis.verdict.recommendation, "INVALID");
    assert!(
        analysis
            .quality
            .iter()
            .any(|c| c.id == "instrumentation:minutes_week1")
    );
}

#[test]
fn one_unit_is_too_few_and_no_panic() {
    let mut world = world();
    world.units = 1;
    let analysis = Case::new(&world, FIXED).analyze();
    assert_eq!(analysis.verdict.recommendation, "INVALID");
    world.units = 6;
    let few = Case::new(&world, FIXED);
    let analysis = few.analyze();
    assert!(serde_json::to_string(&analysis).expect("JSON").len() > 1000);
}

#[test]
fn other_experiments_in_the_log_are_left_alone() {
    let case = Case::new(&world(), FIXED);
    let before = case.analyze();
    rewrite(&table(&case, "exposures"), |group, batch| {
        if group == 0 {
            let names: Vec<&str> = (0..batch.num_rows()).map(|_| "").collect();
            return with_column(&batch, "experiment", Arc::new(StringArray::from(names)));
        }
        batch
    });
    let after = case.analyze();
    assert!(after.observed.units.iter().sum::<u64>() < before.observed.units.iter().sum::<u64>());
    let _ = comparison(&before, "minutes_week1");
}

/// A column of text with nothing in its first row.
fn first_null(batch: &arrow_array::RecordBatch, name: &str) -> StringArray {
    let whole = batch.column_by_name(name).expect("there");
    let whole = whole.as_string::<i32>();
    StringArray::from_iter((0..whole.len()).map(|row| (row > 0).then(|| whole.value(row))))
}

#[test]
fn a_unit_that_is_null_or_empty_is_named() {
    for name in ["exposures", "outcomes", "covariates"] {
        let case = Case::new(&world(), FIXED);
        rewrite(&table(&case, name), |_, batch| {
            with_column(&batch, "unit_id", Arc::new(first_null(&batch, "unit_id")))
        });
        let message = error(&case);
        let place = format!("{name}/simulated-0.parquet, row group 0, row 1: `unit_id` is null");
        assert!(message.contains(&place), "{message}");
        rewrite(&table(&case, name), |_, batch| {
            let empty = StringArray::from_iter_values(
                batch
                    .column_by_name("unit_id")
                    .expect("there")
                    .as_string::<i32>()
                    .iter()
                    .map(Option::unwrap_or_default),
            );
            with_column(&batch, "unit_id", Arc::new(empty))
        });
        let message = error(&case);
        assert!(message.contains("row 1: `unit_id` is empty"), "{message}");
    }
}

#[test]
fn a_value_that_is_null_or_infinite_is_named_or_dropped_and_counted() {
    for name in ["outcomes", "covariates"] {
        for (value, says) in [
            (None, "`value` is null"),
            (Some(f64::INFINITY), "`value` is inf"),
            (Some(f64::NEG_INFINITY), "`value` is -inf"),
            (Some(-3e200), "`value` is -3e200, beyond 1e100"),
        ] {
            let case = Case::new(&world(), FIXED);
            let mut groups = 0;
            rewrite(&table(&case, name), |_, batch| {
                groups += 1;
                let mut values: Vec<Option<f64>> = batch
                    .column_by_name("value")
                    .expect("there")
                    .as_primitive::<arrow_array::types::Float64Type>()
                    .iter()
                    .collect();
                values[0] = value;
                // Whatever the event, it is one that a metric asks for.
                let batch = if name == "outcomes" {
                    let events = vec!["listen_minutes"; batch.num_rows()];
                    with_column(&batch, "event", Arc::new(StringArray::from(events)))
                } else {
                    batch
                };
                with_column(&batch, "value", Arc::new(Float64Array::from(values)))
            });
            let message = error(&case);
            let place = format!("{name}/simulated-0.parquet, row group 0, row 1: {says}");
            assert!(message.contains(&place), "{place}: {message}");
            let mut options = Options::default();
            options.read.drop_bad_values = true;
            let policies = case.look(&options).0.data.policies;
            let dropped = policies
                .iter()
                .find(|policy| policy.about == "values that are no number")
                .expect("stated");
            assert_eq!(dropped.applied, groups, "{name}: {says}");
        }
    }
}

#[test]
fn a_metric_that_is_the_same_for_everybody_is_said_not_divided_by() {
    for covariate in [true, false] {
        let mut case = Case::new(&world(), FIXED);
        let success = &mut case.plan.metrics[0];
        // Whoever listens, listens longer than that.
        success.cap = Some(1e-9);
        if !covariate {
            success.covariate = None;
        }
        rewrite(&table(&case, "outcomes"), |_, batch| {
            let ones = Float64Array::from(vec![1.0; batch.num_rows()]);
            with_column(&batch, "value", Arc::new(ones))
        });
        let analysis = case.analyze();
        let success = &analysis.metrics[0];
        assert!(success.comparisons.is_empty(), "{:?}", success.comparisons);
        assert!(
            success
                .notes
                .iter()
                .any(|note| note.contains("does not vary")),
            "{:?}",
            success.notes
        );
        // The design's one look was made, and this metric speaks for nothing.
        assert_eq!(analysis.verdict.recommendation, "NO_SHIP");
        assert!(
            analysis
                .verdict
                .reasons
                .iter()
                .any(|reason| reason.contains("Not judged yet, minutes_week1")),
            "{:?}",
            analysis.verdict.reasons
        );
        let page = report::html(&analysis, "refrain experiment report");
        assert!(page.contains("does not vary") && !page.contains("NaN"));
    }
}

#[test]
fn wrong_covariates_are_named() {
    let case = Case::new(&world(), FIXED);
    let path = table(&case, "covariates");
    let whole = fs_err::read(&path).expect("there");
    for name in ["unit_id", "as_of", "name", "value"] {
        rewrite(&path, |_, batch| without_column(&batch, name));
        let message = error(&case);
        assert!(
            message.contains("covariates/simulated-0.parquet")
                && message.contains(&format!("`{name}` is missing")),
            "{message}"
        );
        fs_err::write(&path, &whole).expect("restored");
    }
    rewrite(&path, |_, batch| {
        let days = vec!["yesterday"; batch.num_rows()];
        with_column(&batch, "as_of", Arc::new(StringArray::from(days)))
    });
    let message = error(&case);
    assert!(
        message.contains("`as_of` is Utf8, must be a timestamp"),
        "{message}"
    );
    fs_err::write(&path, &whole[..whole.len() / 2]).expect("cut");
    let message = error(&case);
    assert!(
        message.contains("covariates/simulated-0.parquet, footer"),
        "{message}"
    );
}

#[test]
fn a_covariate_from_the_first_exposure_on_is_not_used_and_counted() {
    let case = Case::new(&world(), FIXED);
    let before = case.analyze();
    assert!(comparison(&before, "minutes_week1").covariate.is_some());
    // It was measured a day before: then, and an hour later.
    for later_us in [86_400_000_000, 90_000_000_000] {
        let case = Case::new(&world(), FIXED);
        rewrite(&table(&case, "covariates"), |_, batch| {
            let times = batch
                .column_by_name("as_of")
                .expect("there")
                .as_primitive::<TimestampMicrosecondType>();
            let late: Vec<i64> = times.values().iter().map(|us| us + later_us).collect();
            let late = TimestampMicrosecondArray::from(late).with_timezone("UTC");
            with_column(&batch, "as_of", Arc::new(late))
        });
        let analysis = case.analyze();
        assert_eq!(analysis.data.leftovers.late_covariates, 300);
        let policy = analysis
            .data
            .policies
            .iter()
            .find(|policy| policy.about == "late covariates")
            .expect("stated");
        assert_eq!(policy.applied, 300);
        assert_eq!(
            check(&analysis, "balance:minutes_before").status,
            Status::Skipped
        );
        let found = comparison(&analysis, "minutes_week1");
        let covariate = found.covariate.as_ref().expect("declared");
        assert!(!covariate.used && covariate.variance_reduction == 0.0);
        let why = "no unit has it from before its first exposure";
        assert_eq!(covariate.reason.as_deref(), Some(why));
        // What there is without it is what there was before it was used.
        let raw = comparison(&before, "minutes_week1").unadjusted;
        assert!((found.delta - raw.expect("adjusted")).abs() < 1e-9);
        let page = report::html(&analysis, "refrain experiment report");
        assert!(
            page.contains("Measured at or after first exposure: not used.</td><td class=\"n\">300")
        );
        assert!(page.contains("covariate minutes_before not used: no unit has it"));
    }
}

/// Why a covariate was left aside is told, whatever the reason; where it helps there is none.
#[test]
fn a_covariate_that_is_not_used_says_why() {
    let told = |change: &dyn Fn(usize, &str, f64) -> f64| {
        let case = Case::new(&world(), FIXED);
        let arms = std::cell::RefCell::new(std::collections::BTreeMap::new());
        rewrite(&table(&case, "exposures"), |_, batch| {
            let text = |name: &str| {
                let column = batch.column_by_name(name).expect("there");
                column.as_string::<i32>().clone()
            };
            let (units, variants) = (text("unit_id"), text("variant"));
            for row in 0..batch.num_rows() {
                arms.borrow_mut()
                    .insert(units.value(row).to_owned(), variants.value(row).to_owned());
            }
            batch
        });
        rewrite(&table(&case, "covariates"), |_, batch| {
            let units = batch.column_by_name("unit_id").expect("there");
            let units = units.as_string::<i32>();
            let values = batch.column_by_name("value").expect("there");
            let values = values.as_primitive::<arrow_array::types::Float64Type>();
            let arms = arms.borrow();
            let changed = (0..batch.num_rows()).map(|row| {
                let arm = arms.get(units.value(row)).map_or("", String::as_str);
                change(row, arm, values.value(row))
            });
            with_column(
                &batch,
                "value",
                Arc::new(Float64Array::from_iter_values(changed)),
            )
        });
        let analysis = case.analyze();
        let success = analysis.metrics.into_iter().next().expect("one");
        success
            .comparisons
            .into_iter()
            .next()
            .and_then(|found| found.covariate)
    };
    let used = told(&|_, _, value| value).expect("compared");
    assert!(used.used && used.reason.is_none() && used.variance_reduction > 0.1);
    let same = told(&|_, _, _| 7.0).expect("compared");
    assert!(!same.used);
    assert_eq!(
        same.reason.as_deref(),
        Some("it is the same for every unit")
    );
    // What the arms differ in is a failed check, and nothing is shown.
    let moved = told(&|_, arm, value| {
        if arm == "control" {
            value
        } else {
            value + 500.0
        }
    });
    assert_eq!(moved.map(|covariate| covariate.used), None);
}

#[test]
fn units_in_two_arms_are_counted_in_the_report() {
    let mut world = world();
    world.faults.switchers = 0.1;
    let mut case = Case::new(&world, FIXED);
    // By hand: units with exposures in both arms.
    let mut arms = std::collections::BTreeMap::<String, std::collections::BTreeSet<String>>::new();
    rewrite(&table(&case, "exposures"), |_, batch| {
        let text = |name: &str| {
            let column = batch.column_by_name(name).expect("there");
            column.as_string::<i32>().clone()
        };
        let (units, variants) = (text("unit_id"), text("variant"));
        for row in 0..batch.num_rows() {
            let of = arms.entry(units.value(row).to_owned()).or_default();
            of.insert(variants.value(row).to_owned());
        }
        batch
    });
    let several = arms.values().filter(|arms| arms.len() > 1).count();
    assert!(several > 5, "{several}");
    let row = format!("{several} of 300 units");
    let policy = format!(
        "Left out of every arm; counted in the sample ratio by their first exposure.</td><td class=\"n\">{several}<"
    );
    for (tolerated, status, word) in [
        (1.0, Status::Warn, "! note"),
        (0.001, Status::Fail, "✕ failed"),
    ] {
        case.plan.policy.max_multi_arm = tolerated;
        let analysis = case.analyze();
        let found = check(&analysis, "multi_arm");
        assert_eq!(found.status, status, "{}", found.finding);
        assert!(found.finding.starts_with(&row), "{}", found.finding);
        let counted: u64 = analysis.metrics[0].arms.iter().map(|arm| arm.units).sum();
        assert_eq!(counted, 300 - several as u64);
        let page = report::html(&analysis, "refrain experiment report");
        let told = page
            .split("<b>Units in several arms</b>")
            .nth(1)
            .expect("a row");
        assert!(
            told.split("</tr>")
                .next()
                .is_some_and(|row| row.contains(word)),
            "{told}"
        );
        assert!(page.contains(&row) && page.contains(&policy));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    /// Whatever a disk or a writer does to a file, the answer is an error with its name or a result.
    #[test]
    fn any_damage_is_an_error_or_a_result(flips in proptest::collection::vec((0.0..1.0_f64, 0..8_u8), 1..6), cut in 0.0..1.2_f64) {
        thread_local! {
            static WHOLE: (Case, Vec<u8>) = {
                let case = Case::new(&world(), FIXED);
                let bytes = fs_err::read(table(&case, "exposures")).expect("there");
                (case, bytes)
            };
        }
        WHOLE.with(|(case, whole)| {
            let mut bytes = whole.clone();
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "a place in a small file")]
            let place = |share: f64| ((share * whole.len() as f64) as usize).min(whole.len());
            for (at, bit) in flips {
                let at = place(at).min(bytes.len() - 1);
                bytes[at] ^= 1 << bit;
            }
            bytes.truncate(place(cut));
            fs_err::write(table(case, "exposures"), &bytes).expect("written");
            let result = refrain_analysis::from_log(case.folder.path(), &case.plan, &Options::default(), &|_, _| ());
            if let Err(error) = result {
                let text = error.to_string();
                assert!(text.contains("exposures/simulated-0.parquet") || text.contains("no exposure of"), "{text}");
            }
        });
    }
}

/// Who assigns makes no difference to what is read of it; a row without a random arm is not read.
#[test]
fn arms_that_came_with_the_request_are_analysed_and_defaults_are_not() {
    let of = |reason: &'static str| {
        let case = Case::new(&world(), FIXED);
        rewrite(&table(&case, "exposures"), |_, batch| {
            let reasons = StringArray::from(vec![reason; batch.num_rows()]);
            with_column(&batch, "reason", Arc::new(reasons))
        });
        case
    };
    let (drawn, given) = (of("SPLIT").analyze(), of("EXTERNAL").analyze());
    assert_eq!(drawn.observed.units, given.observed.units);
    assert!(drawn.observed.units.iter().all(|&units| units > 100));
    assert_eq!(drawn.verdict.recommendation, given.verdict.recommendation);
    let none = error(&of("DEFAULT"));
    assert!(none.contains("no exposure"), "{none}");
}
