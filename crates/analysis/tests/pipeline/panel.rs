//! A panel from its file to its effect, and panels that are wrong.

use std::path::PathBuf;
use std::sync::Arc;

use arrow_array::{Date32Array, Float64Array, RecordBatch, StringArray};
use parquet::arrow::ArrowWriter;
use refrain_analysis::panel::{self, Differences};
use refrain_analysis::report;
use tempfile::TempDir;

/// E14 of the reference numbers.
const VALUES: [[f64; 6]; 6] = [
    [10.0, 11.0, 12.0, 15.0, 16.0, 17.0],
    [20.0, 20.0, 21.0, 24.0, 25.0, 25.0],
    [15.0, 16.0, 16.0, 19.0, 18.0, 20.0],
    [12.0, 13.0, 13.0, 14.0, 15.0, 15.0],
    [18.0, 18.0, 19.0, 20.0, 20.0, 21.0],
    [14.0, 15.0, 16.0, 16.0, 17.0, 18.0],
];

fn csv() -> String {
    let mut text = "period,unit,note,value,treated_from\n".to_owned();
    for (unit, values) in VALUES.iter().enumerate() {
        for (period, value) in values.iter().enumerate() {
            let start = if unit < 3 { "10" } else { "" };
            // Periods as numbers: 7, 8, 9, 10, … sort as such and not as text.
            text.push_str(&format!("{},m{unit},x,{value},{start}\n", period + 7));
        }
    }
    text
}

fn file(text: &str) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("temporary folder");
    let path = folder.path().join("markets.csv");
    fs_err::write(&path, text).expect("written");
    (folder, path)
}

fn is_the_reference(found: &Differences) {
    let close = |a: f64, b: f64| assert!((a - b).abs() < 5e-7, "{a} {b}");
    close(found.report.delta, 2.222_222_222);
    close(found.report.clustered.se, 0.453_042);
    close(found.report.permutation.p_two_sided, 0.10);
    assert_eq!(found.treated, ["m0", "m1", "m2"]);
    assert_eq!(found.periods.len(), 6);
    close(found.treated_means[0], 15.0);
    assert!(
        found
            .warnings
            .iter()
            .any(|w| w.contains("no permutation can give a p below"))
    );
}

#[test]
fn the_panel_of_the_page_is_read() {
    let page = format!("{}/../../docs/analysis.md", env!("CARGO_MANIFEST_DIR"));
    let page = fs_err::read_to_string(page).expect("the page");
    let (_, block) = page.split_once("```csv\n").expect("a panel");
    let (text, _) = block.split_once("```").expect("its end");
    let (_folder, path) = file(text);
    let found = panel::analyze(&path).expect("sound");
    assert_eq!(found.treated, ["coast", "north"]);
    // (64.9 - 61.0 + 57.2 - 54.55) / 2 - (58.9 - 58.2 + 50.1 - 50.0) / 2.
    assert!(
        (found.report.delta - 2.875).abs() < 1e-9,
        "{}",
        found.report.delta
    );
}

#[test]
fn csv_and_parquet_give_the_reference() {
    let (_folder, path) = file(&csv());
    let found = panel::analyze(&path).expect("sound");
    is_the_reference(&found);
    assert_eq!(
        (found.periods[0].as_str(), found.treated_from.as_str()),
        ("7", "10")
    );
    let page = report::panel_html(
        &found,
        "A <new> catalogue",
        "refrain experiment did markets.csv",
    );
    assert!(page.contains("A &lt;new&gt; catalogue") && page.contains("Parallel trends"));

    let folder = tempfile::tempdir().expect("temporary folder");
    let path = folder.path().join("markets.parquet");
    let rows = || (0..6).flat_map(|unit| (0..6).map(move |period| (unit, period)));
    let batch = RecordBatch::try_from_iter([
        (
            "unit",
            Arc::new(StringArray::from_iter_values(
                rows().map(|(unit, _)| format!("m{unit}")),
            )) as arrow_array::ArrayRef,
        ),
        (
            "period",
            Arc::new(Date32Array::from_iter_values(rows().map(|(_, period)| {
                20_000 + i32::try_from(period).expect("small")
            }))),
        ),
        (
            "value",
            Arc::new(Float64Array::from_iter_values(
                rows().map(|(unit, period): (usize, usize)| VALUES[unit][period]),
            )),
        ),
        (
            "treated_from",
            Arc::new(Date32Array::from_iter(
                rows().map(|(unit, _)| (unit < 3).then_some(20_003)),
            )),
        ),
    ])
    .expect("same length");
    let to = fs_err::File::create(&path)
        .expect("writable")
        .into_parts()
        .0;
    let mut writer = ArrowWriter::try_new(to, batch.schema(), None).expect("writer");
    writer.write(&batch).expect("written");
    writer.close().expect("closed");
    let found = panel::analyze(&path).expect("sound");
    is_the_reference(&found);
    assert_eq!(found.treated_from, "2024-10-07");
    let bytes = fs_err::read(&path).expect("there");
    fs_err::write(&path, &bytes[..bytes.len() / 2]).expect("cut");
    let error = panel::analyze(&path).expect_err("cut short").to_string();
    assert!(error.contains("markets.parquet"), "{error}");
}

#[test]
fn every_wrong_panel_is_named_with_its_place() {
    let whole = csv();
    for (from, to, says) in [
        (
            "period,",
            "time,",
            "column `period` is missing; it has time, unit",
        ),
        (
            "7,m0,x,10,10",
            "7,m0,x,ten,10",
            "row 1: `value` `ten` is no number",
        ),
        ("8,m0,x,11,10", "8,m0,x,NaN,10", "row 2: `value` is NaN"),
        (
            "8,m0,x,11,10",
            "7,m0,x,11,10",
            "row 2: `period` 7 of unit `m0` is there twice",
        ),
        ("8,m0,x,11,10\n", "", "unit `m0` has no value in period 8"),
        (
            "8,m0,x,11,10",
            "8,m0,x,11,11",
            "row 2: `treated_from` is 11 here and 10 in an earlier row",
        ),
        ("8,m0,x,11,10", "eight,m0,x,11,10", "is no date"),
        ("8,m0,x,11,10", "8,,x,11,10", "row 2: `unit` is empty"),
        ("8,m0,x,11,10", "8,m0,x", "markets.csv"),
    ] {
        let text = whole.replace(from, to);
        assert_ne!(text, whole, "{from}");
        let (_folder, path) = file(&text);
        let error = panel::analyze(&path).expect_err(to).to_string();
        assert!(error.contains(says), "{to}: {error}");
    }
    // Waves.
    let staggered = whole
        .replace(",m1,x,20,10", ",m1,x,20,11")
        .replace(",m1,x,21,10", ",m1,x,21,11");
    let staggered = staggered
        .replace(",m1,x,24,10", ",m1,x,24,11")
        .replace(",m1,x,25,10", ",m1,x,25,11");
    let (_folder, path) = file(&staggered);
    let error = panel::analyze(&path).expect_err("staggered").to_string();
    assert!(error.contains("adopted at different times"), "{error}");
    let nobody = whole.replace(",10\n", ",\n");
    let (_folder, path) = file(&nobody);
    let error = panel::analyze(&path)
        .expect_err("nobody is treated")
        .to_string();
    assert!(error.contains("treated units"), "{error}");
}
