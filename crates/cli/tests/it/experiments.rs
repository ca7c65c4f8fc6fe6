//! An experiment from its size to the archive, by the command line: documents, files and exit codes.

use std::path::PathBuf;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::{arg, document, fails, ok, run};

/// A simulated log in a folder of its own.
pub(crate) struct Rehearsal {
    home: TempDir,
}

impl Rehearsal {
    pub(crate) fn new(faults: &[&str]) -> Self {
        let rehearsal = Self {
            home: tempfile::tempdir().expect("temporary folder"),
        };
        let log = rehearsal.at("log");
        let made = [
            "experiment",
            "simulate",
            "--units",
            "2500",
            "--out",
            arg(&log),
        ];
        ok(&[&made[..], faults].concat());
        rehearsal
    }

    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// Arguments of an analysis, after `experiment VERB`.
    pub(crate) fn subject(&self) -> [String; 4] {
        let log = self.at("log");
        let plan = log.join("plan.toml");
        [
            "--config".to_owned(),
            arg(&plan).to_owned(),
            "--log".to_owned(),
            arg(&log).to_owned(),
        ]
    }

    pub(crate) fn analyse(&self, code: i32) -> Value {
        let subject = self.subject();
        let mut args = vec!["experiment", "analyze", "--json"];
        args.extend(subject.iter().map(String::as_str));
        let ran = run(&args);
        assert_eq!(ran.code, Some(code), "{}", ran.stderr);
        serde_json::from_str(&ran.stdout).expect("a document")
    }
}

const CLOSING: &str = r#"
[variant.plain]
score = "similarity"
[layer.ranking]
epoch = 1
[surface.default]
layer = "ranking"
variant = "plain"
[experiment.blend]
kind = "ab"
layer = "ranking"
epoch = 1
allocation_bp = 10000
[[experiment.blend.arm]]
name = "control"
variant = "plain"
[[experiment.blend.arm]]
name = "blend03"
variant = "plain"
"#;

#[test]
fn an_intake_is_closed_with_the_units_of_the_log() {
    let rehearsal = Rehearsal::new(&[]);
    let (file, log) = (rehearsal.at("refrain.toml"), rehearsal.at("log"));
    fs_err::write(&file, CLOSING).expect("written");
    let units = rehearsal.at("blend.units");
    let write = |name: &'static str| {
        let (file, log, out) = (
            arg(&file).to_owned(),
            arg(&log).to_owned(),
            arg(&units).to_owned(),
        );
        [
            "experiment",
            "units",
            &file,
            name,
            "--log",
            &log,
            "--out",
            &out,
        ]
        .map(str::to_owned)
    };
    let args = write("blend");
    let told = document(&args.each_ref().map(String::as_str));
    assert_eq!((&told["units"], &told["epoch"]), (&2500.into(), &1.into()));
    let text = fs_err::read_to_string(&units).expect("written");
    let listed: Vec<&str> = text.lines().collect();
    assert!(listed.len() == 2500 && listed.is_sorted());

    // Named in the file, it is checked with it.
    let closed = CLOSING.replace("allocation_bp", "admitted = \"blend.units\"\nallocation_bp");
    fs_err::write(&file, &closed).expect("written");
    // It lacks owner, question and metrics, so it is not ready to start.
    let check = || -> Value {
        let ran = run(&["experiment", "check", arg(&file), "--json"]);
        assert_eq!(ran.code, Some(3), "{}", ran.stderr);
        serde_json::from_str(&ran.stdout).expect("a document")
    };
    assert_eq!(check()["experiments"][0]["admitted_units"], 2500);
    fs_err::write(&units, "u1\nu\u{e9}\n".as_bytes()).expect("written");
    assert_eq!(check()["experiments"][0]["admitted_units"], 2);
    fs_err::write(&units, b"u1\nu\xff\n").expect("written");
    let at = ["experiment", "check", arg(&file)];
    fails(
        &at,
        3,
        &[":13:", "experiment.blend.admitted", "line 2", "utf-8"],
    );
    fs_err::remove_file(&units).expect("there");
    fails(&at, 3, &[":13:", "blend.units"]);

    // Another epoch has nobody yet; an experiment that is not declared is named.
    fs_err::write(
        &file,
        CLOSING.replace(
            "kind = \"ab\"\nlayer = \"ranking\"\nepoch = 1",
            "kind = \"ab\"\nlayer = \"ranking\"\nepoch = 2",
        ),
    )
    .expect("written");
    assert_eq!(document(&args.each_ref().map(String::as_str))["units"], 0);
    let args = write("bland");
    fails(
        &args.each_ref().map(String::as_str),
        1,
        &["`bland` is not declared"],
    );
}

#[test]
fn from_size_to_archive() {
    let rehearsal = Rehearsal::new(&["--lift", "0.1"]);
    let analysis = rehearsal.analyse(0);
    assert_eq!(analysis["verdict"]["recommendation"], "SHIP");
    let file = rehearsal.at("analysis.json");
    fs_err::write(&file, analysis.to_string()).expect("written");
    let [_, plan, ..] = rehearsal.subject();

    // Size: a document, a page, and a no when there is not the time.
    let page = rehearsal.at("size.html");
    let sizing = [
        "experiment",
        "plan",
        "--config",
        &plan,
        "--from",
        arg(&file),
    ];
    let traffic = [
        "--units-per-day",
        "1000",
        "--allocation",
        "0.5",
        "--out",
        arg(&page),
    ];
    let size = document(&[&sizing[..], &traffic].concat());
    let units = size["units"].as_u64().expect("a number");
    let days = size["duration"]["intake_days"].as_f64().expect("a number");
    assert_eq!(size["hungriest"], "minutes_week1");
    assert!(
        (days * 500.0 - units as f64).abs() < 1e-6 * units as f64,
        "{size}"
    );
    let html = fs_err::read_to_string(&page).expect("a page");
    assert!(html.contains("<svg") && html.contains("minutes_week1") && !html.contains("http"));
    let late = run(&[&sizing[..], &["--units-per-day", "1000", "--days", "2"]].concat());
    assert_eq!(late.code, Some(3), "{}", late.stderr);
    fails(
        &[
            "experiment",
            "plan",
            "--config",
            &plan,
            "--baseline",
            "minutes_week1=68,106",
        ],
        2,
        &["saved", "latency_p95"],
    );
    fails(
        &[
            "experiment",
            "plan",
            "--config",
            &plan,
            "--baseline",
            "minuets=68,106",
        ],
        2,
        &["minuets", "minutes_week1"],
    );
    fails(
        &[
            "experiment",
            "plan",
            "--config",
            &plan,
            "--baseline",
            "minutes_week1=68",
        ],
        2,
        &["standard deviation"],
    );

    // Report, looks, readout.
    let subject = rehearsal.subject();
    let subject: Vec<&str> = subject.iter().map(String::as_str).collect();
    let (report, looks) = (rehearsal.at("report.html"), rehearsal.at("looks.json"));
    let with = |verb: &str, more: &[&str]| -> Vec<String> {
        let all = [&["experiment", verb][..], &subject, more].concat();
        all.into_iter().map(str::to_owned).collect()
    };
    let call = |args: &[String]| run(&args.iter().map(String::as_str).collect::<Vec<_>>());
    let made = call(&with("report", &["--out", arg(&report)]));
    assert_eq!(made.code, Some(0), "{}", made.stderr);
    assert!(
        fs_err::read_to_string(&report)
            .expect("a page")
            .contains("SHIP")
    );
    for until in ["2026-01-16", "2026-02-20"] {
        let looked = call(&with(
            "readout",
            &["--looks", arg(&looks), "--until", until],
        ));
        assert!(
            matches!(looked.code, Some(0 | 4)),
            "{until}: {}",
            looked.stderr
        );
    }
    let back = call(&with(
        "readout",
        &["--looks", arg(&looks), "--until", "2026-01-10"],
    ));
    assert_eq!(back.code, Some(2), "a look back: {}", back.stderr);

    // Archive, and what it says of offline metrics.
    let archive = rehearsal.at("archive.jsonl");
    for at in 1..=5 {
        let mut past = analysis.clone();
        past["plan"]["experiment"] = format!("e{at}").into();
        for metric in past["metrics"].as_array_mut().expect("metrics") {
            let effect = &mut metric["comparisons"][0]["delta"];
            *effect = (effect.as_f64().expect("a number") * f64::from(at)).into();
        }
        fs_err::write(&file, past.to_string()).expect("written");
        let offline = format!("ndcg={},0.0005", 0.001 * f64::from(at));
        let entry = [
            "experiment",
            "archive",
            arg(&file),
            "--to",
            arg(&archive),
            "--by",
            "maria",
        ];
        if at == 1 {
            let keep = [&entry[..], &["--decision", "keep"]].concat();
            fails(&keep, 2, &["SHIP", "say why"]);
        }
        ok(&[&entry[..], &["--decision", "ship", "--offline", &offline]].concat());
    }
    // The page tells what was decided, once it was.
    let (decided, page_of_none) = (rehearsal.at("decided.jsonl"), rehearsal.at("none.html"));
    fs_err::write(&file, analysis.to_string()).expect("written");
    let entry = ["experiment", "archive", arg(&file), "--to", arg(&decided)];
    let why = "too <dear> to run";
    let no = ["--by", "maria", "--decision", "keep", "--reason", why];
    let told = |archive: &PathBuf| {
        let flags = ["--archive", arg(archive), "--out", arg(&report)];
        let made = call(&with("report", &flags));
        assert_eq!(made.code, Some(0), "{}", made.stderr);
        fs_err::read_to_string(&report).expect("a page")
    };
    assert!(
        told(&archive).contains("This is a recommendation"),
        "of others"
    );
    ok(&[&entry[..], &no].concat());
    let page = told(&decided);
    assert!(page.contains("<b>Decided: keep.</b> By maria, "), "{page}");
    assert!(
        page.contains("was SHIP. Too &lt;dear&gt; to run."),
        "{page}"
    );
    fails(
        &[
            &["experiment", "report"][..],
            &subject,
            &["--archive", arg(&report), "--out", arg(&page_of_none)],
        ]
        .concat(),
        2,
        &["no sound archive", "line 1"],
    );
    let page = rehearsal.at("foretold.html");
    let asked = [
        "experiment",
        "offline-online",
        arg(&archive),
        "--out",
        arg(&page),
    ];
    let found = document(&asked);
    let pairs = found["pairs"].as_array().expect("pairs");
    assert_eq!(pairs.len(), 4, "{found}");
    assert!(pairs.iter().all(|pair| {
        let r = pair["agreement"]["pearson"]["value"]
            .as_f64()
            .expect("a number");
        (r.abs() - 1.0).abs() < 1e-9
    }));
    assert!(
        fs_err::read_to_string(&page)
            .expect("a page")
            .contains("<svg")
    );
    let none = run(&[
        "experiment",
        "offline-online",
        arg(&archive),
        "--online",
        "skips",
    ]);
    assert_eq!(none.code, Some(3), "{}", none.stderr);
    let text = fs_err::read_to_string(&archive).expect("an archive");
    fs_err::write(&archive, text.replacen("maria", "mario", 1)).expect("written");
    fails(
        &["experiment", "offline-online", arg(&archive)],
        2,
        &["line 2"],
    );
}

#[test]
fn faults_harm_and_bad_input_have_their_exit_codes() {
    let harm = Rehearsal::new(&["--lift", "-0.3"]).analyse(4);
    assert_eq!(harm["verdict"]["recommendation"], "STOP_HARM");

    let lost = Rehearsal::new(&["--lose-treatment", "0.9"]);
    let invalid = lost.analyse(3);
    assert_eq!(invalid["verdict"]["recommendation"], "INVALID");
    for metric in invalid["metrics"].as_array().expect("metrics") {
        assert_eq!(
            metric["comparisons"].as_array().map(Vec::len),
            Some(0),
            "{metric}"
        );
    }
    // Nothing of a hidden effect can size another experiment.
    let file = lost.at("invalid.json");
    fs_err::write(&file, invalid.to_string()).expect("written");
    let [_, plan, ..] = lost.subject();
    fails(
        &[
            "experiment",
            "plan",
            "--config",
            &plan,
            "--from",
            arg(&file),
        ],
        2,
        &["no values"],
    );

    // A Parquet file cut short: which file is said, and nothing is written.
    let exposures = lost.at("log/exposures/simulated-0.parquet");
    let bytes = fs_err::read(&exposures).expect("a file");
    fs_err::write(&exposures, &bytes[..bytes.len() / 2]).expect("written");
    let [config, plan, flag, log] = lost.subject();
    let report = lost.at("report.html");
    fails(
        &[
            "experiment",
            "report",
            &config,
            &plan,
            &flag,
            &log,
            "--out",
            arg(&report),
        ],
        2,
        &["simulated-0.parquet"],
    );
    assert!(!report.exists());
}

const WEIGHED: &str = r#"
[assignment]
journal = "experiments.jsonl"
[layer.ranking]
epoch = 1
[surface.default]
layer = "ranking"
variant = "plain"
[experiment.weighed]
kind = "ab"
layer = "ranking"
epoch = 1
owner = "team-home"
question = "q"
decision = "d"
allocation_bp = 1000
design = { method = "gst", alpha = 0.05, power = 0.8, max_units = 20000 }
[[experiment.weighed.arm]]
name = "control"
variant = "plain"
[[experiment.weighed.arm]]
name = "balanced"
variant = "balanced"
[[experiment.weighed.metric]]
name = "listen_minutes"
role = "success"
type = "ratio(play)"
direction = "up"
window = "closed(7d,14d)"
mde_rel = 0.02
"#;

/// What an experiment does not know of its traffic and its events keeps it from starting, until somebody
/// says that it may, which the journal then says for ever.
#[test]
fn what_was_not_looked_at_keeps_an_experiment_from_starting() {
    let rehearsal = Rehearsal::new(&[]);
    // The log of a replay, laid out as a server lays it out.
    let replay = rehearsal.at("replay");
    let day = replay.join("outcomes/2026-01-01");
    fs_err::create_dir_all(&day).expect("new folders");
    for file in fs_err::read_dir(rehearsal.at("log/outcomes")).expect("a folder") {
        let file = file.expect("an entry");
        fs_err::copy(file.path(), day.join(file.file_name())).expect("copied");
    }
    let config = rehearsal.at("refrain.toml");
    let write = |text: &str| fs_err::write(&config, text).expect("written");
    write(WEIGHED);
    let allocate = ["experiment", "allocate", arg(&config), "weighed"];
    let with = |more: &[&'static str]| -> Vec<String> {
        let all = allocate.iter().copied().chain(more.iter().copied());
        all.map(str::to_owned).collect()
    };
    let refused = |args: &[String], words: &[&str]| {
        fails(
            &args.iter().map(String::as_str).collect::<Vec<_>>(),
            3,
            words,
        );
    };
    refused(
        &with(&[]),
        &[
            "20000 units are needed, and how many will come is not said",
            "was not looked at: listen_minutes, play",
        ],
    );
    let traffic = ["--units-per-day", "40000", "--days", "28"];
    refused(
        &with(&traffic),
        &["was not looked at", "--events-unknown-ok"],
    );
    refused(
        &with(&["--events-unknown-ok"]),
        &["how many will come is not said", "--traffic-unknown-ok"],
    );
    let mut seen = with(&traffic);
    seen.extend(["--events".to_owned(), arg(&replay).to_owned()]);
    let short = ["--units-per-day", "1000", "--events", arg(&replay)];
    refused(
        &[with(&[]), short.map(str::to_owned).to_vec()].concat(),
        &["20000 units are needed, 1400 are to be expected"],
    );
    // Numerator and denominator alike must arrive.
    for (was, is, unseen) in [
        ("name = \"listen_minutes\"", "name = \"skips\"", "skips"),
        ("ratio(play)", "ratio(sessions)", "sessions"),
    ] {
        write(&WEIGHED.replace(was, is));
        refused(
            &seen,
            &[&format!("no outcome `{unseen}` arrived"), "ReportOutcomes"],
        );
    }
    assert!(!rehearsal.at("experiments.jsonl").exists());

    // Everything known: nothing is waived.
    write(WEIGHED);
    let entries = |args: &[String]| {
        ok(&args.iter().map(String::as_str).collect::<Vec<_>>());
        let journal = document(&["experiment", "journal", arg(&config)]);
        journal["entries"].as_array().expect("entries").clone()
    };
    assert_eq!(entries(&seen)[0]["waived"], Value::Null);
    // A new epoch is looked at as well, and says what it went without.
    write(&WEIGHED.replace("epoch = 1\nowner", "epoch = 2\nowner"));
    refused(&with(&[]), &["is not said"]);
    let waivers = ["--traffic-unknown-ok", "--events-unknown-ok"];
    let last = entries(&with(&waivers)).pop().expect("two");
    assert_eq!(last["action"], "epoch");
    assert_eq!(
        last["waived"],
        serde_json::json!(["traffic_unknown", "events_unknown"])
    );
}
