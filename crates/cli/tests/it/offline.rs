//! The offline commands: tune, train from a parent and from checkpoints, gate, import, batch.

use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::{Made, arg, command, document, fails, ok, run};

/// The generated log in two parts, by line.
fn two_parts(home: &TempDir) -> (PathBuf, PathBuf) {
    let log = fs_err::read_to_string(Made::shared().at("log/listens.csv")).expect("the log");
    let (header, rows) = log.split_once('\n').expect("a header");
    let parts = (
        home.path().join("before.csv"),
        home.path().join("after.csv"),
    );
    let part = |later: bool| {
        let rows = rows
            .lines()
            .enumerate()
            .filter(|(at, _)| (at % 5 == 4) == later);
        let rows: Vec<&str> = rows.map(|(_, row)| row).collect();
        format!("{header}\n{}\n", rows.join("\n"))
    };
    fs_err::write(&parts.0, part(false)).expect("written");
    fs_err::write(&parts.1, part(true)).expect("written");
    parts
}

fn bytes(dir: &Path) -> Vec<u8> {
    fs_err::read(dir.join("model.rfs")).expect("a model")
}

#[test]
fn what_tune_finds_is_what_train_takes() {
    let home = tempfile::tempdir().expect("temporary folder");
    let (listens, hyper, model) = (
        Made::shared().at("log/listens.csv"),
        home.path().join("hyper.json"),
        home.path().join("model"),
    );
    let args = [
        "--trials",
        "4",
        "--rank",
        "8",
        "--max-iterations",
        "4",
        "--max-users",
        "200",
    ];
    let tuned = document(
        &[
            &["tune", "--listens", arg(&listens), "--out", arg(&hyper)],
            &args[..],
        ]
        .concat(),
    );
    assert_eq!(tuned["search"]["trials"].as_array().map(Vec::len), Some(4));
    assert!(
        tuned["protocol"]
            .as_str()
            .expect("words")
            .contains("seed 42"),
        "{tuned}"
    );
    assert!(tuned["test"]["model"]["recall_at_20"].is_f64());
    let trained = document(&[
        "train",
        "--listens",
        arg(&listens),
        "--hyper",
        arg(&hyper),
        "--hold-out",
        "none",
        "--out",
        arg(&model),
    ]);
    for field in [
        "rank",
        "iterations",
        "unobserved_weight",
        "regularization",
        "frequency_exponent",
    ] {
        assert_eq!(trained["hyper"][field], tuned["best"][field], "{field}");
    }
    let again = home.path().join("again");
    let both = [
        "train",
        "--listens",
        arg(&listens),
        "--hyper",
        arg(&hyper),
        "--rank",
        "8",
        "--out",
        arg(&again),
    ];
    fails(&both, 2, &["--hyper"]);
    fs_err::write(&hyper, "{\"rank\": 8}").expect("written");
    let bad = [
        "train",
        "--listens",
        arg(&listens),
        "--hyper",
        arg(&hyper),
        "--out",
        arg(&again),
    ];
    fails(&bad, 2, &["hyper.json", "missing field"]);
}

#[test]
fn a_killed_training_goes_on_to_the_same_bytes() {
    let home = tempfile::tempdir().expect("temporary folder");
    let listens = Made::shared().at("log/listens.csv");
    let train = |out: &Path, more: &[&str]| {
        let mut command = command();
        command.args([
            "train",
            "--listens",
            arg(&listens),
            "--rank",
            "24",
            "--iterations",
            "12",
        ]);
        command
            .args(["--hold-out", "none", "--out", arg(out)])
            .args(more);
        command
    };
    let whole = home.path().join("whole");
    assert!(
        train(&whole, &[])
            .output()
            .expect("it runs")
            .status
            .success()
    );
    let (model, checkpoints) = (home.path().join("model"), home.path().join("checkpoints"));
    let with = ["--checkpoints", arg(&checkpoints)];
    let mut killed = 0;
    for wait in [40, 80, 120, 160, 200] {
        let mut process = train(&model, &with)
            .stdout(std::process::Stdio::null())
            .spawn()
            .expect("it starts");
        std::thread::sleep(std::time::Duration::from_millis(wait));
        killed += u32::from(process.try_wait().expect("asked").is_none());
        drop(process.kill());
        drop(process.wait());
        if model.exists() {
            break;
        }
    }
    if !model.exists() {
        assert!(
            train(&model, &with)
                .output()
                .expect("it runs")
                .status
                .success()
        );
        assert!(
            !checkpoints.exists(),
            "checkpoints of a finished training are removed"
        );
    }
    assert!(killed > 0, "no run was stopped");
    assert!(bytes(&model) == bytes(&whole));
}

#[test]
fn a_parent_keeps_vectors_where_they_were() {
    let home = tempfile::tempdir().expect("temporary folder");
    let listens = Made::shared().at("log/listens.csv");
    let (child, other) = (home.path().join("child"), home.path().join("other"));
    let parent = Made::shared().at("model");
    let trained = document(&[
        "train",
        "--listens",
        arg(&listens),
        "--rank",
        "16",
        "--parent",
        arg(&parent),
        "--out",
        arg(&child),
    ]);
    // As many passes as it took, at most three.
    let passes = trained["hyper"]["iterations"].as_u64().expect("a number");
    assert!((1..=3).contains(&passes), "{passes} passes");
    assert!(
        trained["report"]["warm_items"].as_u64() > Some(100),
        "{trained}"
    );
    fails(
        &[
            "train",
            "--listens",
            arg(&listens),
            "--rank",
            "8",
            "--parent",
            arg(&parent),
            "--out",
            arg(&other),
        ],
        1,
        &["the parent has rank 16"],
    );
}

#[test]
fn the_baseline_is_a_model_and_ranks_what_is_popular() {
    let home = tempfile::tempdir().expect("temporary folder");
    let listens = Made::shared().at("log/listens.csv");
    let (model, bundle) = (home.path().join("model"), home.path().join("bundle"));
    let trained = document(&[
        "train",
        "--listens",
        arg(&listens),
        "--trainer",
        "popularity",
        "--out",
        arg(&model),
    ]);
    assert_eq!(
        trained["model"]["recall_at_20"],
        trained["popularity"]["recall_at_20"]
    );
    ok(&["build", "--model", arg(&model), "--out", arg(&bundle)]);
    let (before, after) = two_parts(&home);
    let judged = document(&[
        "evaluate",
        arg(&bundle),
        "--listens",
        arg(&before),
        "--held-out",
        arg(&after),
    ]);
    let ndcg = |who: &str| {
        judged["held_out"][who]["ndcg_at_20"]
            .as_f64()
            .expect("measured")
    };
    assert!(
        (ndcg("model") - ndcg("popularity")).abs() < 0.2 * ndcg("popularity"),
        "{judged}"
    );
}

/// What `evaluate` and `freshen` kept of a log is what they read the next time, and says the same.
#[test]
fn kept_listens_say_what_the_files_say() {
    let home = tempfile::tempdir().expect("temporary folder");
    let (before, after) = two_parts(&home);
    let (bundle, store) = (Made::shared().at("bundle"), home.path().join("store"));
    ok(&["publish", arg(&bundle), "--store", arg(&store)]);
    // Somebody plays something new with what others play.
    let mut log = fs_err::read_to_string(&before).expect("the log");
    let fresh: Vec<String> = log
        .lines()
        .skip(1)
        .step_by(40)
        .map(|row| {
            let mut fields: Vec<&str> = row.split(',').collect();
            fields[1] = "brand-new";
            fields.join(",")
        })
        .collect();
    log.push_str(&fresh.join("\n"));
    log.push('\n');
    let grown = home.path().join("grown.csv");
    fs_err::write(&grown, log).expect("written");
    let evaluate = [
        "evaluate",
        arg(&bundle),
        "--listens",
        arg(&before),
        "--held-out",
        arg(&after),
        "--max-users",
        "200",
    ];
    let freshen = [
        "freshen",
        "--store",
        arg(&store),
        "--listens",
        arg(&grown),
        "--dry-run",
    ];
    for (args, what) in [(&evaluate[..], "held_out"), (&freshen[..], "digest")] {
        let kept = home.path().join(args[0]);
        let with = [args, &["--keep-listens", arg(&kept), "--json"]].concat();
        let read = document(args);
        assert!(!read[what].is_null(), "{read}");
        for was_kept in [false, true] {
            let ran = run(&with);
            assert_eq!(ran.code, Some(0), "{}", ran.stderr);
            let found: Value = serde_json::from_str(&ran.stdout).expect("JSON");
            assert_eq!(found[what], read[what], "{args:?}");
            let none = ran.stderr.contains("\n0 of the rows were read before");
            assert_eq!(!none, was_kept, "{args:?}: {}", ran.stderr);
        }
        assert!(kept.read_dir().expect("made").count() > 0, "{args:?}");
    }
}

#[test]
fn the_gate_says_no_seals_it_and_can_be_forced_with_a_mark() {
    let home = tempfile::tempdir().expect("temporary folder");
    let (before, after) = two_parts(&home);
    let (bundle, gate) = (home.path().join("bundle"), home.path().join("gate.toml"));
    Made::shared().copy_of_bundle(&bundle);
    let html = home.path().join("report.html");
    let champion = Made::shared().at("bundle");
    let judged = [
        "evaluate",
        arg(&bundle),
        "--listens",
        arg(&before),
        "--held-out",
        arg(&after),
        "--champion",
        arg(&champion),
        "--max-users",
        "300",
        "--html",
        arg(&html),
    ];
    let with = |more: &[&str]| run(&[&judged[..], more, &["--json"]].concat());
    fs_err::write(&gate, ok(&["evaluate", "--print-gate"])).expect("written");
    let passed = with(&["--gate", arg(&gate)]);
    assert_eq!(passed.code, Some(0), "{}{}", passed.stdout, passed.stderr);
    assert!(
        fs_err::read_to_string(&html)
            .expect("a page")
            .contains("<svg")
    );

    fs_err::write(&gate, "[size]\nmax_bytes = 10\n").expect("written");
    let refused = with(&["--gate", arg(&gate)]);
    assert_eq!(refused.code, Some(3), "{}", refused.stdout);
    assert!(
        refused.stderr.contains("the gate says no: size"),
        "{}",
        refused.stderr
    );
    let store = home.path().join("store");
    let publish = ["publish", arg(&bundle), "--store", arg(&store)];
    fails(&publish, 3, &["the gate stopped"]);
    let forced = with(&["--gate", arg(&gate), "--force", "the disk is large"]);
    assert_eq!(forced.code, Some(0), "{}", forced.stderr);
    assert!(forced.stderr.contains("FORCED"), "{}", forced.stderr);
    let sealed = fs_err::read_to_string(bundle.join("manifest.json")).expect("a manifest");
    let sealed: Value = serde_json::from_str(&sealed).expect("JSON");
    assert_eq!(
        sealed["report"]["gate"]["forced"]["reason"],
        "the disk is large"
    );
    assert_eq!(sealed["report"]["gate"]["passed"], false);
    ok(&["verify", arg(&bundle)]);
    let published = run(&publish);
    assert_eq!(published.code, Some(0), "{}", published.stderr);
    assert!(published.stderr.contains("FORCED"), "{}", published.stderr);
    fs_err::write(&gate, "[recall]\nmin = 2\n").expect("written");
    fails(
        &["evaluate", arg(&bundle), "--gate", arg(&gate)],
        2,
        &["recall.min is 2"],
    );
}

#[test]
fn arrays_from_elsewhere_become_a_model_that_builds() {
    let home = tempfile::tempdir().expect("temporary folder");
    let at = |name: &str| home.path().join(name);
    let mut array = b"\x93NUMPY\x01\x00".to_vec();
    let header = "{'descr': '<f4', 'fortran_order': False, 'shape': (50, 4), }\n";
    array.extend(u16::try_from(header.len()).expect("short").to_le_bytes());
    array.extend(header.bytes());
    array.extend((0..200u8).flat_map(|at| (f32::from(at % 7) - 3.0).to_le_bytes()));
    fs_err::write(at("items.npy"), array).expect("written");
    let ids: Vec<String> = (0..50).map(|at| format!("track-{at}")).collect();
    fs_err::write(at("ids.txt"), ids.join("\n")).expect("written");
    let import = [
        "import",
        "--item-factors",
        arg(&at("items.npy")),
        "--item-ids",
        arg(&at("ids.txt")),
    ]
    .map(str::to_owned);
    let import: Vec<&str> = import.iter().map(String::as_str).collect();
    let model = at("model");
    let imported = document(&[&import[..], &["--out", arg(&model)]].concat());
    assert_eq!(
        (&imported["rank"], &imported["counts"]["items"]),
        (&4.into(), &50.into())
    );
    let bundle = at("bundle");
    ok(&["build", "--model", arg(&model), "--out", arg(&bundle)]);
    fs_err::write(at("ids.txt"), "one\n").expect("written");
    let other = at("other");
    fails(
        &[&import[..], &["--out", arg(&other)]].concat(),
        1,
        &["1 ids for 50 vectors"],
    );
    fails(
        &["import", "--spark", arg(home.path()), "--out", arg(&other)],
        1,
        &["itemFactors"],
    );
}
