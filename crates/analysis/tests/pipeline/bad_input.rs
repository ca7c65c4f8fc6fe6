//! Every log that can be wrong says where, or names the policy that dealt with it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::cast::AsArray as _;
use arrow_array::types::TimestampMicrosecondType;
use arrow_array::{ArrayRef, Float64Array, RecordBatch, StringArray, TimestampNanosecondArray};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use proptest::prelude::*;
use refrain_analysis::simulate::World;
use refrain_analysis::{Analysis, Options};

use crate::support::{Case, FIXED, comparison};

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

fn table(case: &Case, name: &str) -> PathBuf {
    case.folder.path().join(name).join("simulated-0.parquet")
}

/// Rewrites a table, batch by batch of `rows` rows, one row group each.
fn rewrite(path: &Path, mut change: impl FnMut(usize, RecordBatch) -> RecordBatch) {
    let file = fs_err::File::open(path).expect("there").into_parts().0;
    let reader = ParquetRecordBatchReaderBuilder::try_new(file)
        .and_then(|builder| builder.with_batch_size(400).build())
        .expect("readable");
    let batches: Vec<RecordBatch> = reader
        .enumerate()
        .map(|(at, batch)| change(at, batch.expect("readable")))
        .collect();
    let file = fs_err::File::create(path).expect("writable").into_parts().0;
    let mut writer = ArrowWriter::try_new(file, batches[0].schema(), None).expect("writer");
    for batch in batches {
        writer.write(&batch).expect("written");
        writer.flush().expect("written");
    }
    writer.close().expect("closed");
}

fn with_column(batch: &RecordBatch, name: &str, column: ArrayRef) -> RecordBatch {
    RecordBatch::try_from_iter(
        batch
            .schema()
            .fields()
            .iter()
            .enumerate()
            .map(|(at, field)| {
                let of = if field.name() == name {
                    column.clone()
                } else {
                    batch.column(at).clone()
                };
                (field.name().clone(), of)
            }),
    )
    .expect("same length")
}

fn without_column(batch: &RecordBatch, name: &str) -> RecordBatch {
    RecordBatch::try_from_iter(
        batch
            .schema()
            .fields()
            .iter()
            .enumerate()
            .filter(|(_, field)| field.name() != name)
            .map(|(at, field)| (field.name().clone(), batch.column(at).clone())),
    )
    .expect("same length")
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
        let wrong = arrow_array::TimestampMicrosecondArray::from(wrong).with_timezone("UTC");
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
            let early = arrow_array::TimestampMicrosecondArray::from(early).with_timezone("UTC");
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
