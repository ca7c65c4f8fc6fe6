//! A real experiment (90,189 players of a mobile game) through the whole tool, with the answers that are
//! known, and the sample-ratio alarm that most published analyses of it miss.

use std::path::Path;
use std::sync::Arc;

use arrow_array::builder::{FixedSizeBinaryBuilder, TimestampMicrosecondBuilder};
use arrow_array::{ArrayRef, Float64Array, RecordBatch, StringArray, UInt32Array};
use parquet::arrow::ArrowWriter;
use refrain_analysis::simulate::START_US;
use refrain_analysis::verdict::document::Status;
use refrain_analysis::{Options, Plan};

use crate::support::{check, comparison};

const PLAN: &str = r#"
[experiment.gate]
epoch = 1
question = "Should the first gate be at level 40 instead of 30?"
decision = "Move the gate to level 40, or leave it"
owner = "game team"
design = { method = "fixed", max_units = 90000, alpha = 0.05 }
[[experiment.gate.arm]]
name = "gate_30"
weight = 1
[[experiment.gate.arm]]
name = "gate_40"
weight = 1
[[experiment.gate.metric]]
name = "retention_7"
type = "proportion"
role = "success"
window = "closed(0d,8d)"
[[experiment.gate.metric]]
name = "retention_1"
type = "proportion"
role = "scan"
window = "closed(0d,8d)"
[[experiment.gate.metric]]
name = "rounds"
role = "scan"
window = "closed(0d,8d)"
missing = "zero"
[[experiment.gate.metric]]
name = "rounds_capped"
event = "rounds"
role = "scan"
window = "closed(0d,8d)"
missing = "zero"
cap = 3000.0
"#;

#[test]
fn cookie_cats() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../../shared/datasets/cookie-cats/cookie_cats.csv.gz");
    if !source.exists() {
        println!("SKIPPED: {} is not there", source.display());
        return;
    }
    let folder = tempfile::tempdir().expect("temporary folder");
    write_log(&source, folder.path());
    let analyze = |text: &str| {
        let plan = Plan::from_toml(text, None).expect("valid plan");
        refrain_analysis::from_log(folder.path(), &plan, &Options::default(), &|_, _| ())
            .expect("analysed")
            .0
    };
    let analysis = analyze(PLAN);
    assert_eq!(analysis.observed.units, [44_700, 45_489]);
    // The mismatch is told even at the stricter level at which it does not yet invalidate.
    let srm = check(&analysis, "srm");
    assert_eq!(srm.status, Status::Warn);
    assert!(
        srm.finding.contains("chi-square 6.90") && srm.finding.contains("p = 0.0086"),
        "{}",
        srm.finding
    );
    assert!(
        analysis
            .verdict
            .reasons
            .iter()
            .any(|reason| reason.starts_with("Note, sample ratio"))
    );

    let week = comparison(&analysis, "retention_7");
    assert!((week.delta + 0.008_20).abs() < 5e-6, "{}", week.delta);
    assert!((week.z + 3.16).abs() < 0.01, "{}", week.z);
    let day = comparison(&analysis, "retention_1");
    assert!(
        (day.delta + 0.005_91).abs() < 5e-6 && (day.z + 1.78).abs() < 0.01,
        "{day:?}"
    );
    assert_eq!(analysis.verdict.recommendation, "STOP_HARM");
    assert_eq!(analysis.verdict.arms[0].harmed, ["retention_7"]);

    // One player with 49,854 rounds moves the mean; a cap fixed beforehand does not let them.
    let (plain, capped) = (
        comparison(&analysis, "rounds"),
        comparison(&analysis, "rounds_capped"),
    );
    assert!(
        (plain.delta - capped.delta).abs() > 0.5,
        "{} {}",
        plain.delta,
        capped.delta
    );
    assert!(capped.se < 0.95 * plain.se, "{} {}", capped.se, plain.se);

    let strict = analyze(&PLAN.replace("alpha = 0.05 }", "alpha = 0.05, alpha_srm = 0.01 }"));
    assert_eq!(strict.verdict.recommendation, "INVALID");
    assert!(
        strict
            .metrics
            .iter()
            .all(|metric| metric.comparisons.is_empty())
    );
}

fn write_log(source: &Path, folder: &Path) {
    let file = flate2::read::GzDecoder::new(fs_err::File::open(source).expect("there"));
    let mut rows = csv::Reader::from_reader(file);
    let mut units = Vec::new();
    let mut arms = Vec::new();
    let mut outcomes: Vec<(String, &str, f64)> = Vec::new();
    for row in rows.records() {
        let row = row.expect("a row");
        let unit = row[0].to_owned();
        arms.push(row[1].to_owned());
        let rounds: f64 = row[2].parse().expect("a number");
        outcomes.push((unit.clone(), "rounds", rounds));
        for (at, event) in [(3, "retention_1"), (4, "retention_7")] {
            if row[at].eq_ignore_ascii_case("true") {
                outcomes.push((unit.clone(), event, 1.0));
            }
        }
        units.push(unit);
    }
    let times = |n: usize, at: i64| {
        let mut times = TimestampMicrosecondBuilder::new().with_timezone("UTC");
        times.append_slice(&vec![at; n]);
        Arc::new(times.finish()) as ArrayRef
    };
    let mut ids = FixedSizeBinaryBuilder::new(16);
    for at in 0..units.len() as u128 {
        ids.append_value(at.to_le_bytes()).expect("16 bytes");
    }
    let n = units.len();
    let same = |text: &'static str| Arc::new(StringArray::from(vec![text; n])) as ArrayRef;
    write(
        &folder.join("exposures"),
        RecordBatch::try_from_iter([
            ("exposure_id", Arc::new(ids.finish()) as ArrayRef),
            ("ts", times(n, START_US)),
            ("unit_id", Arc::new(StringArray::from(units))),
            ("experiment", same("gate")),
            ("exp_epoch", Arc::new(UInt32Array::from(vec![1; n]))),
            ("variant", Arc::new(StringArray::from(arms))),
            ("reason", same("SPLIT")),
        ])
        .expect("columns"),
    );
    let n = outcomes.len();
    write(
        &folder.join("outcomes"),
        RecordBatch::try_from_iter([
            // The last outcome closes the window of all units.
            ("ts", times(n, START_US + 86_400_000_000)),
            (
                "unit_id",
                Arc::new(StringArray::from_iter_values(
                    outcomes.iter().map(|o| o.0.as_str()),
                )) as ArrayRef,
            ),
            (
                "event",
                Arc::new(StringArray::from_iter_values(outcomes.iter().map(|o| o.1))),
            ),
            (
                "value",
                Arc::new(Float64Array::from_iter_values(outcomes.iter().map(|o| o.2))),
            ),
        ])
        .expect("columns"),
    );
    // An event long after says that the data goes on: the windows are over.
    write(
        &folder.join("outcomes/later"),
        RecordBatch::try_from_iter([
            ("ts", times(1, START_US + 9 * 86_400_000_000)),
            (
                "unit_id",
                Arc::new(StringArray::from(vec!["0"])) as ArrayRef,
            ),
            ("event", Arc::new(StringArray::from(vec!["rounds"]))),
            ("value", Arc::new(Float64Array::from(vec![0.0]))),
        ])
        .expect("columns"),
    );
}

fn write(folder: &Path, batch: RecordBatch) {
    fs_err::create_dir_all(folder).expect("made");
    let file = fs_err::File::create(folder.join("0.parquet"))
        .expect("made")
        .into_parts()
        .0;
    let mut writer = ArrowWriter::try_new(file, batch.schema(), None).expect("writer");
    writer.write(&batch).expect("written");
    writer.close().expect("closed");
}
