//! A table of units: what it says when it is right, and where it is wrong.

use std::path::PathBuf;
use std::sync::Arc;

use arrow_array::{
    ArrayRef, BooleanArray, Float64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;
use refrain_analysis::simulate::START_US;
use refrain_analysis::verdict::document::{Check, Status};
use refrain_analysis::{Analysis, Options, Plan};
use tempfile::TempDir;

const DAY_US: i64 = 86_400_000_000;
const UNITS: usize = 600;
const ROWS_PER_GROUP: usize = 250;

const PLAN: &str = r#"
[experiment.blend]
epoch = 1
segments = ["surface"]
design = { method = "gst", max_units = 600 }
[[experiment.blend.arm]]
name = "control"
weight = 1
[[experiment.blend.arm]]
name = "blend03"
weight = 1
[[experiment.blend.metric]]
name = "minutes"
role = "success"
window = "closed(0d,7d)"
missing = "exclude"
mde_rel = 0.05
covariate = "before"
[[experiment.blend.metric]]
name = "saved"
type = "proportion"
role = "guardrail"
window = "closed(0d,7d)"
margin = 0.1
[[experiment.blend.metric]]
name = "per_play"
event = "minutes"
type = "ratio"
denominator = "play"
role = "scan"
window = "closed(0d,7d)"
[[experiment.blend.metric]]
name = "latency_p95"
type = "quantile(0.95)"
direction = "down"
role = "scan"
window = "closed(0d,1d)"
"#;

/// The columns of a sound table. Units are dealt out in turn and came one an hour; the first third of them
/// each play twice as long as they did before, plus one in the treatment.
fn columns() -> Vec<(&'static str, ArrayRef)> {
    let rows = || 0..UNITS;
    let text =
        |of: &dyn Fn(usize) -> String| Arc::new(StringArray::from_iter_values(rows().map(of)));
    let numbers = |of: &dyn Fn(usize) -> f64| -> ArrayRef {
        Arc::new(Float64Array::from_iter_values(rows().map(of)))
    };
    let instants = |of: &dyn Fn(usize) -> i64| -> ArrayRef {
        Arc::new(TimestampMicrosecondArray::from_iter_values(rows().map(of)).with_timezone("UTC"))
    };
    let never: ArrayRef = Arc::new(BooleanArray::from(vec![false; UNITS]));
    vec![
        ("unit_id", text(&|at| format!("u{at}"))),
        ("arm", text(&|at| ["control", "blend03"][at % 2].to_owned())),
        (
            "first_ts",
            instants(&|at| START_US + i64::try_from(at).expect("small") * 3_600_000_000),
        ),
        ("cutoff", instants(&|_| START_US + 40 * DAY_US)),
        ("weights", text(&|_| "0.5 0.5".to_owned())),
        ("index_version", text(&|_| "v1".to_owned())),
        (
            "segment_0",
            text(&|at| ["home", "radio"][at % 3 % 2].to_owned()),
        ),
        ("multi_arm", never.clone()),
        ("bot", never),
        ("m0_y", numbers(&minutes)),
        ("m0_x", numbers(&before)),
        ("m1_y", numbers(&|at| f64::from(u8::from(at % 5 < 2)))),
        ("m2_y", numbers(&minutes)),
        ("m2_d", numbers(&|at| 1.0 + (at / 2 % 4) as f64)),
    ]
}

fn before(at: usize) -> f64 {
    10.0 + (at * 7 % 13) as f64
}

fn minutes(at: usize) -> f64 {
    2.0 * before(at) + (at % 2) as f64 + (at * 11 % 17) as f64 / 10.0
}

fn with(name: &str, column: ArrayRef) -> Vec<(&'static str, ArrayRef)> {
    let mut columns = columns();
    let place = columns.iter_mut().find(|(known, _)| *known == name);
    place.expect("a column").1 = column;
    columns
}

struct Table {
    _folder: TempDir,
    path: PathBuf,
}

fn table(columns: Vec<(&'static str, ArrayRef)>) -> Table {
    let folder = tempfile::tempdir().expect("temporary folder");
    let path = folder.path().join("units.parquet");
    let batch = RecordBatch::try_from_iter(columns).expect("same length");
    let file = fs_err::File::create(&path)
        .expect("writable")
        .into_parts()
        .0;
    let groups = WriterProperties::builder()
        .set_max_row_group_row_count(Some(ROWS_PER_GROUP))
        .build();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(groups)).expect("writer");
    writer.write(&batch).expect("written");
    writer.close().expect("closed");
    Table {
        _folder: folder,
        path,
    }
}

fn read(table: &Table, options: &Options) -> Result<Analysis, String> {
    let plan = Plan::from_toml(PLAN, None).expect("valid plan");
    refrain_analysis::from_units(&table.path, &plan, options)
        .map(|(analysis, _)| analysis)
        .map_err(|error| error.to_string())
}

fn error(columns: Vec<(&'static str, ArrayRef)>) -> String {
    read(&table(columns), &Options::default()).expect_err("refused")
}

/// What follows `PATH, ` or `PATH: `.
fn says(columns: Vec<(&'static str, ArrayRef)>, what: &str) {
    let error = error(columns);
    assert!(
        error.contains("units.parquet") && error.contains(what),
        "no {what:?} in {error}"
    );
}

#[test]
fn a_sound_table_is_analysed_at_any_memory() {
    let table = table(columns());
    let analysis = read(&table, &Options::default()).expect("sound");
    assert_eq!(analysis.observed.units, [300, 300]);
    assert_eq!(analysis.verdict.recommendation, "SHIP");
    let minutes_by_hand = |arm: usize| {
        (0..UNITS)
            .filter(|at| at % 2 == arm)
            .map(minutes)
            .sum::<f64>()
            / 300.0
    };
    let arms = &analysis.metrics[0].arms;
    for (arm, found) in arms.iter().enumerate() {
        // Adjusted by the covariate, which has another mean in each arm.
        let raw = minutes_by_hand(arm);
        assert!((found.value.expect("shown") - raw).abs() < 1.0, "{found:?}");
    }
    let found = &analysis.metrics[0].comparisons[0];
    let raw = minutes_by_hand(1) - minutes_by_hand(0);
    assert!((found.unadjusted.expect("raw") - raw).abs() < 1e-9);
    // What moves the minutes beside the covariate is the arm, and a little that is not.
    assert!((found.delta - 1.0).abs() < 0.1, "{found:?}");
    assert_eq!(analysis.metrics[2].arms[0].units, 300);
    // A quantile needs the log: it is left out, and nothing is missing.
    assert_eq!(analysis.metrics[3].arms[0].units, 0);
    let about = |check: &Check| check.id.ends_with("latency_p95");
    assert!(!analysis.quality.iter().any(about));
    let mut options = Options::default();
    options.read.memory_bytes = 0;
    let spilled = read(&table, &options).expect("sound");
    assert_eq!(
        serde_json::to_string(&analysis).expect("JSON"),
        serde_json::to_string(&spilled).expect("JSON")
    );
}

/// A metric of role quality is asked of a table, too: by its means, and not at all where it needs the events.
#[test]
fn a_quality_metric_is_held_to_be_the_same() {
    let text = PLAN
        .replace("role = \"guardrail\"", "role = \"quality\"")
        .replace("margin = 0.1\n", "")
        .replace(
            "direction = \"down\"\nrole = \"scan\"",
            "direction = \"down\"\nrole = \"quality\"",
        );
    let plan = Plan::from_toml(&text, None).expect("valid plan");
    let found = |columns| {
        let table = table(columns);
        let (analysis, _) =
            refrain_analysis::from_units(&table.path, &plan, &Options::default()).expect("sound");
        let of = |id: &str| {
            let mut checks = analysis.quality.iter();
            let check = checks.find(|check| check.id == id).expect("asked");
            (check.status, check.finding.clone())
        };
        let hidden = analysis.verdict.effects_hidden.is_some();
        (of("same:saved"), of("same:latency_p95"), hidden)
    };
    let (saved, latency, hidden) = found(columns());
    assert_eq!((saved.0, hidden), (Status::Pass, false), "{}", saved.1);
    let not_there = "a table of units does not hold it".to_owned();
    assert_eq!(latency, (Status::Skipped, not_there));
    let all = Float64Array::from_iter_values((0..UNITS).map(|at| (at % 2) as f64));
    let (saved, _, hidden) = found(with("m1_y", Arc::new(all)));
    assert_eq!((saved.0, hidden), (Status::Fail, true), "{}", saved.1);
}

#[test]
fn a_missing_column_is_named() {
    for name in ["unit_id", "cutoff", "segment_0", "m0_y", "m0_x", "m2_d"] {
        let mut columns = columns();
        columns.retain(|(known, _)| *known != name);
        says(columns, &format!("column `{name}` is missing; it has "));
    }
}

#[test]
fn a_wrong_type_is_named() {
    let words: ArrayRef = Arc::new(StringArray::from(vec!["7"; UNITS]));
    for (name, wanted) in [
        ("m0_y", "a number"),
        ("bot", "a boolean"),
        ("first_ts", "a timestamp"),
    ] {
        let says_it = format!("column `{name}` is Utf8, must be {wanted}");
        says(with(name, words.clone()), &says_it);
    }
    let numbers: ArrayRef = Arc::new(Float64Array::from(vec![7.0; UNITS]));
    says(
        with("arm", numbers),
        "column `arm` is Float64, must be text",
    );
}

#[test]
fn a_null_is_named_where_something_must_be() {
    let nulled = |name: &str, row: usize| {
        let text: Vec<Option<String>> = (0..UNITS)
            .map(|at| {
                (at != row).then(|| match name {
                    "arm" => "control".to_owned(),
                    _ => format!("u{at}"),
                })
            })
            .collect();
        with(name, Arc::new(StringArray::from(text)))
    };
    says(
        nulled("unit_id", 252),
        "row group 1, row 3: `unit_id` is null",
    );
    says(
        nulled("arm", 501),
        "row group 2, row 2: `arm` names arm ``, which the plan does not have",
    );
    let mut empty: Vec<String> = (0..UNITS).map(|at| format!("u{at}")).collect();
    empty[0] = String::new();
    says(
        with("unit_id", Arc::new(StringArray::from(empty))),
        "row group 0, row 1: `unit_id` is empty",
    );
    for name in ["first_ts", "cutoff"] {
        let mut times = vec![Some(START_US); UNITS];
        times[255] = None;
        let times = TimestampMicrosecondArray::from(times).with_timezone("UTC");
        says(
            with(name, Arc::new(times)),
            &format!("row group 1, row 6: `{name}` is null"),
        );
    }
}

#[test]
fn a_null_value_is_nothing_that_happened() {
    let some = |keep: &dyn Fn(usize) -> bool| -> ArrayRef {
        Arc::new(Float64Array::from_iter(
            (0..UNITS).map(|at| keep(at).then(|| minutes(at))),
        ))
    };
    // Left out where the metric says so, and counted.
    let analysis = read(
        &table(with("m0_y", some(&|at| at % 10 > 1))),
        &Options::default(),
    );
    let arms = &analysis.expect("sound").metrics[0].arms;
    assert_eq!((arms[0].units, arms[0].missing), (240, 60));
    // From one arm alone: the arm decides who has a value.
    let analysis = read(
        &table(with("m0_y", some(&|at| at % 2 == 0 || at % 10 > 1))),
        &Options::default(),
    );
    let analysis = analysis.expect("read");
    assert_eq!(analysis.verdict.recommendation, "INVALID");
    assert!(
        analysis
            .verdict
            .headline
            .contains("missing values of minutes"),
        "{}",
        analysis.verdict.headline
    );
    // A proportion counts it as 0.
    let no_saves = Float64Array::from_iter((0..UNITS).map(|at| (at % 5 < 2).then_some(1.0)));
    let analysis = read(
        &table(with("m1_y", Arc::new(no_saves))),
        &Options::default(),
    );
    let saved = &analysis.expect("sound").metrics[1].arms[0];
    assert_eq!(saved.value, Some(0.4));
}

#[test]
fn what_is_no_number_is_an_error_with_its_place() {
    for (value, word) in [(f64::NAN, "NaN"), (f64::INFINITY, "inf"), (-1e200, "-1")] {
        for name in ["m0_y", "m0_x", "m2_d"] {
            let mut values = vec![2.0; UNITS];
            values[599] = value;
            says(
                with(name, Arc::new(Float64Array::from(values))),
                &format!("row group 2, row 100: `{name}` is {word}"),
            );
        }
    }
    let mut values = vec![1.0; UNITS];
    values[300] = 0.5;
    says(
        with("m1_y", Arc::new(Float64Array::from(values))),
        "row group 1, row 51: `m1_y` is 0.5",
    );
}

#[test]
fn a_unit_twice_is_refused_wherever_it_stands() {
    for (first, again, place) in [
        (
            0,
            1,
            "row group 0, row 2: `unit_id` is the unit of row group 0, row 1 again",
        ),
        (
            3,
            599,
            "row group 2, row 100: `unit_id` is the unit of row group 0, row 4 again",
        ),
    ] {
        let mut ids: Vec<String> = (0..UNITS).map(|at| format!("u{at}")).collect();
        ids[again] = ids[first].clone();
        let table = table(with("unit_id", Arc::new(StringArray::from(ids))));
        for memory_bytes in [0, usize::MAX] {
            let mut options = Options::default();
            options.read.memory_bytes = memory_bytes;
            let error = read(&table, &options).expect_err("refused");
            assert!(error.contains(place), "{error}");
        }
    }
}

#[test]
fn an_unknown_arm_is_named() {
    let arms: Vec<&str> = (0..UNITS)
        .map(|at| if at == 410 { "mystery" } else { "control" })
        .collect();
    says(
        with("arm", Arc::new(StringArray::from(arms))),
        "row group 1, row 161: `arm` names arm `mystery`, which the plan does not have",
    );
}

#[test]
fn a_table_is_as_of_one_instant() {
    let mut times = vec![START_US + 40 * DAY_US; UNITS];
    times[250] += 1_000_000;
    let times = TimestampMicrosecondArray::from(times).with_timezone("UTC");
    says(
        with("cutoff", Arc::new(times)),
        "row group 1, row 1: `cutoff` is 2026-02-14 00:00:01 UTC, but 2026-02-14 00:00:00 UTC",
    );
    let table = table(columns());
    let mut options = Options::default();
    options.read.until_us = Some(START_US + 40 * DAY_US);
    read(&table, &options).expect("its own instant");
    options.read.until_us = Some(START_US + 30 * DAY_US);
    let error = read(&table, &options).expect_err("refused");
    assert!(
        error.contains("as of 2026-02-14 00:00:00 UTC, not 2026-02-04 00:00:00 UTC"),
        "{error}"
    );
}

#[test]
fn a_file_that_is_none_is_named() {
    let sound = table(columns());
    let bytes = fs_err::read(&sound.path).expect("there");
    // Cut short, empty, damaged, gone.
    fs_err::write(&sound.path, &bytes[..bytes.len() / 2]).expect("cut");
    let error = read(&sound, &Options::default()).expect_err("refused");
    assert!(error.contains("units.parquet, footer"), "{error}");
    fs_err::write(&sound.path, []).expect("emptied");
    let error = read(&sound, &Options::default()).expect_err("refused");
    assert!(error.contains("units.parquet, footer"), "{error}");
    let mut damaged = bytes.clone();
    for byte in &mut damaged[16..bytes.len() / 3] {
        *byte ^= 0x5a;
    }
    fs_err::write(&sound.path, damaged).expect("damaged");
    let error = read(&sound, &Options::default()).expect_err("refused");
    assert!(error.contains("units.parquet, row group 0"), "{error}");
    fs_err::remove_file(&sound.path).expect("removed");
    let error = read(&sound, &Options::default()).expect_err("refused");
    assert!(error.contains("units.parquet"), "{error}");
    // Whole, and without a row.
    let none = columns()
        .into_iter()
        .map(|(name, column)| (name, column.slice(0, 0)))
        .collect();
    says(none, "the table has no units");
}
