//! What an analysis can be asked for, by the command line: every flag, every ending, every input.

use std::path::Path;
use std::sync::Arc;

use arrow_array::cast::AsArray as _;
use arrow_array::types::{Float64Type, TimestampMicrosecondType};
use arrow_array::{
    Array as _, ArrayRef, BooleanArray, FixedSizeBinaryArray, Float64Array, RecordBatch,
    StringArray, TimestampMicrosecondArray,
};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value;

use crate::experiments::Rehearsal;
use crate::support::{Ran, arg, document, fails, ok, run};

/// `experiment VERB` on the rehearsal, with more arguments.
fn call(rehearsal: &Rehearsal, verb: &str, more: &[&str]) -> Ran {
    let subject = rehearsal.subject();
    let subject: Vec<&str> = subject.iter().map(String::as_str).collect();
    run(&[&["experiment", verb][..], &subject, more].concat())
}

/// The document of such a call, which ends with `code`.
fn found(rehearsal: &Rehearsal, verb: &str, more: &[&str], code: i32) -> Value {
    let ran = call(rehearsal, verb, &[more, &["--json"]].concat());
    assert_eq!(ran.code, Some(code), "{verb} {more:?}: {}", ran.stderr);
    serde_json::from_str(&ran.stdout).expect("one document")
}

/// Changes the plan of a rehearsal.
fn edit(rehearsal: &Rehearsal, from: &str, to: &str) {
    let path = rehearsal.at("log/plan.toml");
    let text = fs_err::read_to_string(&path).expect("a plan");
    assert!(text.contains(from), "no {from:?} in {text}");
    fs_err::write(&path, text.replacen(from, to, 1)).expect("written");
}

fn rows(path: &Path) -> Vec<RecordBatch> {
    let file = fs_err::File::open(path).expect("there").into_parts().0;
    ParquetRecordBatchReaderBuilder::try_new(file)
        .and_then(ParquetRecordBatchReaderBuilder::build)
        .expect("readable")
        .map(|batch| batch.expect("readable"))
        .collect()
}

fn write(path: &Path, batches: &[RecordBatch]) {
    let file = fs_err::File::create(path).expect("writable").into_parts().0;
    let mut writer = ArrowWriter::try_new(file, batches[0].schema(), None).expect("writer");
    for batch in batches {
        writer.write(batch).expect("written");
    }
    writer.close().expect("closed");
}

#[test]
fn a_watch_looks_on_until_it_is_told_or_knows() {
    let rehearsal = Rehearsal::new(&[]);
    let looks = rehearsal.at("looks.json");
    let watch = |more: &[&str]| -> Vec<String> {
        let flags = ["--looks", arg(&looks), "--watch", "--every", "1s"];
        let all = [&flags[..], more].concat();
        all.into_iter().map(str::to_owned).collect()
    };
    let go = |more: &[&str]| {
        let flags = watch(more);
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        found(&rehearsal, "readout", &flags, 0)
    };
    // Nothing to find, and too early to end: the given number of looks, all at the same data.
    let early = go(&["--until", "2026-01-16", "--max-looks", "3"]);
    assert_eq!(early["looks"], 3);
    let verdict = &early["analysis"]["verdict"];
    assert_eq!(verdict["recommendation"], "KEEP_RUNNING", "{verdict}");
    let kept = || -> Value {
        let text = fs_err::read(&looks).expect("looks");
        serde_json::from_slice(&text).expect("a document")
    };
    let number = |kept: &Value| kept["looks"].as_array().map(Vec::len);
    assert_eq!(number(&kept()), Some(1), "a look at the same data is one");
    assert_eq!(early["look"], kept()["looks"][0]);
    // The whole log is the end: one look is enough, whatever the number.
    let late = go(&["--max-looks", "3"]);
    assert_eq!(late["looks"], 1);
    assert_ne!(
        late["analysis"]["verdict"]["recommendation"],
        "KEEP_RUNNING"
    );
    assert_eq!(number(&kept()), Some(2));
    let [config, plan, flag, log] = rehearsal.subject();
    fails(
        &["experiment", "readout", &config, &plan, &flag, &log],
        2,
        &["--looks"],
    );
}

#[test]
fn the_last_look_spends_what_is_left() {
    let rehearsal = Rehearsal::new(&[]);
    let until = ["--until", "2026-01-20"];
    let early = found(&rehearsal, "analyze", &until, 0);
    assert_eq!(early["verdict"]["recommendation"], "KEEP_RUNNING");
    let last = found(
        &rehearsal,
        "analyze",
        &[&until[..], &["--last"]].concat(),
        0,
    );
    assert_eq!(last["verdict"]["recommendation"], "NO_SHIP");
    let bound = |document: &Value| {
        let bound = &document["metrics"][0]["comparisons"][0]["bound"];
        bound.as_f64().expect("judged")
    };
    // As if it were the only look there ever was: 5 % one-sided.
    assert!(bound(&last) < bound(&early));
    assert!((bound(&last) - 1.644_854).abs() < 5e-3, "{}", bound(&last));
}

/// The page is written whatever it says.
#[test]
fn report_and_readout_end_as_the_verdict_does() {
    let page = |rehearsal: &Rehearsal, code: i32, word: &str| {
        let (out, also, looks) = (
            rehearsal.at("report.html"),
            rehearsal.at("also.html"),
            rehearsal.at("looks.json"),
        );
        let report = found(rehearsal, "report", &["--out", arg(&out)], code);
        assert_eq!(report["recommendation"], word);
        let made = call(rehearsal, "analyze", &["--report", arg(&also)]);
        assert_eq!(made.code, Some(code), "{}", made.stderr);
        assert!(made.stderr.contains("report in "), "{}", made.stderr);
        let page = fs_err::read_to_string(&out).expect("a page");
        assert!(page.contains(&word.replace('_', " ")));
        assert_eq!(page, fs_err::read_to_string(&also).expect("a page"));
        let looked = found(rehearsal, "readout", &["--looks", arg(&looks)], code);
        assert_eq!(looked["analysis"]["verdict"]["recommendation"], word);
    };
    page(&Rehearsal::new(&["--lose-treatment", "0.9"]), 3, "INVALID");
    page(&Rehearsal::new(&["--lift", "-0.3"]), 4, "STOP_HARM");
    page(&Rehearsal::new(&["--lift", "0.3"]), 0, "SHIP");
}

/// What an invalid experiment prints does not depend on what the treatment did.
#[test]
fn an_invalid_experiment_prints_no_effect() {
    let prints = |lift: &str, slowdown: &str| {
        let rehearsal = Rehearsal::new(&[
            "--lose-treatment",
            "0.9",
            "--lift",
            lift,
            "--slowdown",
            slowdown,
        ]);
        let ran = call(&rehearsal, "analyze", &[]);
        assert_eq!(ran.code, Some(3), "{}", ran.stderr);
        assert!(ran.stdout.contains("INVALID"), "{}", ran.stdout);
        ran.stdout
    };
    assert_eq!(prints("0", "0"), prints("0.5", "0.5"));
}

#[test]
fn an_answer_that_fell_back_and_an_event_that_takes_up() {
    let rehearsal = Rehearsal::new(&["--fallback", "0.4", "--lift", "0.3"]);
    let uptake = |document: &Value| document["metrics"][0]["comparisons"][0]["uptake"].clone();
    let served = uptake(&rehearsal.analyse(0));
    let share = served["treatment"].as_f64().expect("a share");
    assert!((share - 0.6).abs() < 0.05, "{served}");
    assert_eq!(served["control"], 0.0);
    edit(
        &rehearsal,
        "segments = [\"surface\"]",
        "segments = [\"surface\"]\nuptake = \"save\"",
    );
    let event = uptake(&rehearsal.analyse(0));
    assert!(
        event["of"].as_str().is_some_and(|of| of.contains("`save`")),
        "{event}"
    );
    assert!(event["control"].as_f64() > Some(0.3), "{event}");
}

#[test]
fn an_open_metric_is_judged_before_the_first_unit_is_complete() {
    let rehearsal = Rehearsal::new(&["--lift", "0.2"]);
    let closed = "window = \"closed(0d,7d)\"\nmissing = \"zero\"\nmde_rel = 0.05\ncovariate = \"minutes_before\"";
    edit(&rehearsal, closed, "window = \"open(14d)\"\nmde_rel = 0.05");
    let open = found(&rehearsal, "analyze", &["--until", "2026-01-11"], 0);
    let metric = &open["metrics"][0];
    assert_eq!(metric["descriptive"], false);
    let judged = &metric["comparisons"][0];
    let test = judged["test"].as_str().expect("a test");
    assert!(test.contains("generalised least squares"), "{judged}");
    assert!(judged["bound"].is_number() && judged["information"].as_f64() < Some(0.5));
    // Without an end it is only described.
    edit(&rehearsal, "window = \"open(14d)\"", "window = \"open\"");
    let open = found(&rehearsal, "analyze", &["--until", "2026-01-11"], 0);
    assert_eq!(open["metrics"][0]["descriptive"], true);
    assert_eq!(open["metrics"][0]["comparisons"][0]["bound"], Value::Null);
}

#[test]
fn bad_values_fail_or_are_dropped() {
    let rehearsal = Rehearsal::new(&[]);
    let path = rehearsal.at("log/outcomes/simulated-0.parquet");
    let mut whole = rows(&path);
    let first = whole[0].clone();
    let place = first.schema().index_of("value").expect("a column");
    let mut values = first
        .column(place)
        .as_primitive::<Float64Type>()
        .values()
        .to_vec();
    values[0] = f64::NAN;
    let mut columns = first.columns().to_vec();
    columns[place] = Arc::new(Float64Array::from(values));
    whole[0] = RecordBatch::try_new(first.schema(), columns).expect("same shape");
    write(&path, &whole);
    let [config, plan, flag, log] = rehearsal.subject();
    fails(
        &["experiment", "analyze", &config, &plan, &flag, &log],
        2,
        &["simulated-0.parquet, row group 0, row 1: `value` is NaN"],
    );
    let dropped = found(&rehearsal, "analyze", &["--bad-values", "drop"], 0);
    assert_eq!(dropped["data"]["input"]["log"]["rows"]["bad_values"], 1);
}

#[test]
fn another_policy_is_valued_and_a_wrong_one_refused() {
    let rehearsal = Rehearsal::new(&["--lists", "drawn", "--visits", "0.1"]);
    let (mut ids, mut items, mut chances) = (Vec::new(), Vec::new(), Vec::new());
    let mut seen = std::collections::BTreeSet::new();
    for batch in rows(&rehearsal.at("log/exposures/simulated-0.parquet")) {
        let column = |name: &str| batch.column_by_name(name).expect("there").clone();
        let (exposures, lists) = (column("exposure_id"), column("items"));
        let (exposures, lists) = (exposures.as_fixed_size_binary(), lists.as_list::<i32>());
        for row in 0..batch.num_rows() {
            // Some rows are there twice, as of retries.
            if !seen.insert(exposures.value(row).to_vec()) {
                continue;
            }
            let list = lists.value(row);
            let list = list.as_struct();
            let names = list.column_by_name("item").expect("there");
            let drawn = list.column_by_name("propensity").expect("there");
            for at in 0..list.len() {
                ids.push(exposures.value(row).to_vec());
                items.push(names.as_string::<i32>().value(at).to_owned());
                chances.push(drawn.as_primitive::<Float64Type>().value(at));
            }
        }
    }
    let target = rehearsal.at("target.parquet");
    let save = |chances: Vec<f64>| {
        let ids = FixedSizeBinaryArray::try_from_iter(ids.iter()).expect("16 bytes each");
        let columns: [(&str, ArrayRef); 3] = [
            ("exposure_id", Arc::new(ids)),
            ("item", Arc::new(StringArray::from(items.clone()))),
            ("probability", Arc::new(Float64Array::from(chances))),
        ];
        write(
            &target,
            &[RecordBatch::try_from_iter(columns).expect("same length")],
        );
    };
    // The policy that drew them: its value is what was earned.
    save(chances.clone());
    let same = found(&rehearsal, "analyze", &["--off-policy", arg(&target)], 0);
    let metrics = same["off_policy"]["metrics"].as_array().expect("metrics");
    let chosen = metrics.iter().find(|metric| metric["metric"] == "chosen");
    let chosen = chosen.expect("an event");
    let logged = chosen["logged"].as_f64().expect("answers");
    let values = chosen["values"].as_array().expect("estimates");
    // IPS, clipped, SNIPS, cascade.
    assert_eq!(values.len(), 4, "{chosen}");
    for value in values {
        let value = value["value"].as_f64().expect("a number");
        assert!((value - logged).abs() < 1e-9 * logged, "{chosen}");
    }
    let mut wrong = chances;
    wrong[2] = 1.5;
    save(wrong);
    let [config, plan, flag, log] = rehearsal.subject();
    let subject = ["experiment", "analyze", &config, &plan, &flag, &log];
    fails(
        &[&subject[..], &["--off-policy", arg(&target)]].concat(),
        2,
        &["target.parquet, row group 0, row 3: `probability` is 1.5"],
    );
}

#[test]
fn a_table_of_units_is_analysed_like_a_log() {
    let rehearsal = Rehearsal::new(&[]);
    let [_, plan, _, log] = rehearsal.subject();
    // Every dialect, for people and for programs.
    for dialect in ["spark", "bigquery", "trino", "duckdb"] {
        let asked = ["experiment", "sql", "--config", &plan, "--dialect", dialect];
        let text = ok(&asked);
        assert!(text.starts_with("-- Units of experiment blend, epoch 1"));
        assert_eq!(
            document(&asked)["sql"].as_str().map(str::trim_end),
            Some(text.trim_end())
        );
        for part in ["FROM exposures", "FROM outcomes", "unit_covariates", "m0_x"] {
            assert!(text.contains(part), "no {part} in {text}");
        }
        let more = [
            "--outcome-ids",
            "--until",
            "2026-01-20",
            "--exposures",
            "logs.shown",
        ];
        let text = ok(&[&asked[..], &more].concat());
        assert!(
            text.contains("outcome_id") && text.contains("FROM logs.shown"),
            "{text}"
        );
        assert!(text.contains("2026-01-20 00:00:00.000000"), "{text}");
    }
    fails(
        &[
            "experiment",
            "sql",
            "--config",
            &plan,
            "--dialect",
            "duckdb",
            "--until",
            "soon",
        ],
        2,
        &["`soon`"],
    );

    // One row a unit: those whom the log exposes, with what they did in their first week left out.
    let mut units: std::collections::BTreeMap<String, (String, i64)> = Default::default();
    let mut cutoff = 0;
    for batch in rows(
        Path::new(&log)
            .join("exposures/simulated-0.parquet")
            .as_path(),
    ) {
        let column = |name: &str| batch.column_by_name(name).expect("there").clone();
        let (ids, arms, times) = (column("unit_id"), column("variant"), column("ts"));
        let times = times.as_primitive::<TimestampMicrosecondType>();
        for row in 0..batch.num_rows() {
            let ts = times.value(row);
            let arm = arms.as_string::<i32>().value(row);
            let known = units
                .entry(ids.as_string::<i32>().value(row).to_owned())
                .or_insert((arm.to_owned(), ts));
            known.1 = known.1.min(ts);
            cutoff = cutoff.max(ts);
        }
    }
    let n = units.len();
    let instants = |times: Vec<i64>| -> ArrayRef {
        Arc::new(TimestampMicrosecondArray::from(times).with_timezone("UTC"))
    };
    let names = |text: Vec<&str>| -> ArrayRef { Arc::new(StringArray::from(text)) };
    let numbers = |step: usize| -> ArrayRef {
        Arc::new(Float64Array::from_iter_values((0..n).map(|at| {
            f64::from(u32::try_from(at * step % 13).expect("small"))
        })))
    };
    let flags: ArrayRef = Arc::new(BooleanArray::from(vec![false; n]));
    let saved: ArrayRef = Arc::new(Float64Array::from_iter_values(
        (0..n).map(|at| f64::from(u8::from(at % 3 == 0))),
    ));
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("unit_id", names(units.keys().map(String::as_str).collect())),
        (
            "arm",
            names(units.values().map(|unit| unit.0.as_str()).collect()),
        ),
        (
            "first_ts",
            instants(units.values().map(|unit| unit.1).collect()),
        ),
        ("cutoff", instants(vec![cutoff; n])),
        ("weights", names(vec!["0.5 0.5"; n])),
        ("index_version", names(vec!["v1"; n])),
        ("segment_0", names(vec!["home"; n])),
        ("multi_arm", flags.clone()),
        ("bot", flags),
        ("m0_y", numbers(5)),
        ("m0_x", numbers(5)),
        ("m1_y", saved),
        ("m2_y", numbers(7)),
        ("m2_d", numbers(1)),
    ];
    let table = rehearsal.at("units.parquet");
    let save = |columns: Vec<(&str, ArrayRef)>| {
        write(
            &table,
            &[RecordBatch::try_from_iter(columns).expect("same length")],
        );
    };
    save(columns.clone());
    let asked = [
        "experiment",
        "analyze",
        "--config",
        &plan,
        "--units",
        arg(&table),
    ];
    let from_table = document(&asked);
    assert_eq!(from_table["data"]["input"]["units"]["rows"], n);
    assert_eq!(
        from_table["observed"]["units"],
        rehearsal.analyse(0)["observed"]["units"]
    );
    assert_eq!(
        from_table["metrics"][3]["arms"][0]["units"], 0,
        "a quantile needs the log"
    );
    // With the log it would be asked twice.
    let both = run(&[&asked[..], &["--log", &log]].concat());
    assert_eq!(both.code, Some(2), "{}", both.stderr);
    let mut twice = columns.clone();
    let mut ids: Vec<&str> = units.keys().map(String::as_str).collect();
    ids[6] = ids[2];
    twice[0].1 = names(ids);
    save(twice);
    fails(
        &asked,
        2,
        &[
            "units.parquet, row group 0, row 7: `unit_id`",
            "row group 0, row 3 again",
        ],
    );
    save(
        columns
            .into_iter()
            .filter(|(name, _)| *name != "m1_y")
            .collect(),
    );
    fails(
        &asked,
        2,
        &["column `m1_y` is missing", "refrain experiment sql"],
    );
}

#[test]
fn a_shadow_has_no_verdict() {
    let rehearsal = Rehearsal::new(&[]);
    edit(&rehearsal, "kind = \"ab\"", "kind = \"shadow\"");
    let [config, plan, flag, log] = rehearsal.subject();
    fails(
        &["experiment", "analyze", &config, &plan, &flag, &log],
        2,
        &[
            "experiment `blend` is of kind \"shadow\"",
            "`ab` experiment",
        ],
    );
}

#[test]
fn a_change_by_market_is_analysed_by_its_panel() {
    let home = tempfile::tempdir().expect("temporary folder");
    let (panel, page) = (
        home.path().join("markets.csv"),
        home.path().join("north.html"),
    );
    // Eight markets, ten weeks; half of them gain 2 from week 6 on, or what `change` says.
    let save = |change: &dyn Fn(u32, u32) -> f64| {
        let mut text = "unit,period,value,treated_from\n".to_owned();
        for unit in 0..8 {
            for period in 1..=10 {
                let noise = f64::from((unit * 7 + period * 11) % 5) / 10.0;
                let start = if unit < 4 { "6" } else { "" };
                let value = 20.0
                    + f64::from(unit)
                    + f64::from(period) / 2.0
                    + noise
                    + if unit < 4 { change(unit, period) } else { 0.0 };
                text.push_str(&format!("m{unit},{period},{value},{start}\n"));
            }
        }
        fs_err::write(&panel, text).expect("written");
    };
    let asked = ["experiment", "did", arg(&panel)];
    save(&|_, period| if period >= 6 { 2.0 } else { 0.0 });
    let found = document(
        &[
            &asked[..],
            &["--title", "North & south", "--out", arg(&page)],
        ]
        .concat(),
    );
    let delta = found["report"]["delta"].as_f64().expect("an effect");
    assert!((delta - 2.0).abs() < 0.2, "{found}");
    assert!(
        fs_err::read_to_string(&page)
            .expect("a page")
            .contains("North &amp; south")
    );
    let text = ok(&asked);
    assert!(
        text.contains("permutation") && text.contains("clustered by unit"),
        "{text}"
    );
    // They moved apart before the start, too.
    save(&|unit, period| f64::from(period) * (1.0 + f64::from(unit) / 10.0));
    let apart = run(&asked);
    assert_eq!(apart.code, Some(3), "{}{}", apart.stdout, apart.stderr);
    fs_err::write(&panel, "unit,period,value\nm0,1,x\n").expect("written");
    fails(&asked, 2, &["markets.csv"]);
}
