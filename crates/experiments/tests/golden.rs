//! Ten thousand assignments on file, which every implementation reproduces: `clients/golden`.
//!
//! One configuration follows a journal, the other draws by itself in the order of the file.
//!
//! `UPDATE_GOLDEN=1 cargo test -p refrain-experiments --test golden` writes them anew. That is a
//! break of every running experiment: the hash, the draw and the journal are fixed for ever.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use jiff::Timestamp;
use refrain_experiments::{Action, Config, Experiments, Journal, arms_digest};

const VARIANTS: &[&str] = &["plain", "balanced", "bold", "frozen"];

fn file(name: &str) -> PathBuf {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    root.join("../../clients/golden").join(name)
}

/// A history in which every action happens: b's units rest while nordic draws, rank-blend grows and
/// shrinks, draft is stepped back.
fn history(config: &Config) -> String {
    let mut journal = Journal::default();
    let mut text = String::new();
    let mut hour = 0;
    let mut act = |action: Action| {
        hour += 1;
        let time = Timestamp::from_second(1_790_000_000 + 3_600 * hour).expect("in range");
        let line = journal.append(action, time, "golden", "a \"reason\", élodie", "");
        text += &line.expect("fits");
    };
    let allocate = |name: &str, layer: &str, layer_epoch, epoch, bp| Action::Allocate {
        experiment: name.to_owned(),
        epoch,
        arms_digest: config
            .experiment(name)
            .map_or_else(String::new, arms_digest),
        layer: layer.to_owned(),
        layer_epoch,
        bp,
        seed: format!("seed of {name}"),
        waived: Vec::new(),
    };
    let ramp = |name: &str, from_bp, to_bp, seed: &str| Action::Ramp {
        experiment: name.to_owned(),
        from_bp,
        to_bp,
        seed: seed.to_owned(),
    };
    let cooldown_until = Timestamp::from_second(1_790_000_000 + 86_400).ok();
    act(allocate("rank-blend", "ranking", 1, 1, 1_000));
    act(allocate("gone", "ranking", 1, 1, 2_000));
    act(ramp("rank-blend", 1_000, 4_500, "more"));
    act(Action::Stop {
        experiment: "gone".to_owned(),
        cooldown_until,
    });
    act(allocate("nordic", "ranking", 1, 1, 1_500));
    act(ramp("rank-blend", 4_500, 4_000, ""));
    act(Action::Epoch {
        experiment: "nordic".to_owned(),
        epoch: 2,
        arms_digest: config
            .experiment("nordic")
            .map_or_else(String::new, arms_digest),
        waived: Vec::new(),
    });
    act(allocate("draft", "diversity", 7, 1, 7_000));
    act(allocate("resting", "diversity", 7, 1, 1_000));
    act(Action::StepBack {
        experiment: "draft".to_owned(),
        from_bp: 7_000,
        to_bp: 6_000,
        guardrail: "error_rate".to_owned(),
        version: "v1".to_owned(),
    });
    text
}

fn assignments(all: &Experiments, rows: usize) -> String {
    let mut text =
        "surface,unit,country,bucket,reason,experiment,arm,grid,variant,holdout,dark\n".to_owned();
    for i in 0..rows {
        let surface = ["home", "radio", "search", "elsewhere"][i % 4];
        let country = ["SE", "DE", "NO"][i / 4 % 3];
        let unit = match i % 10 {
            9 => format!("élodie {i}"),
            _ => format!("u{i}"),
        };
        let attributes = HashMap::from([
            ("country".to_owned(), country.to_owned()),
            ("app_version".to_owned(), format!("9.{}", i % 20)),
        ]);
        let a = all.assign_with(surface, &unit, &attributes);
        let dark: Vec<_> = all
            .shadows(surface, &unit, &attributes)
            .map(|s| s.arm)
            .collect();
        let _ = writeln!(
            text,
            "{surface},{unit},{country},{},{},{},{},{},{},{},{}",
            a.bucket,
            a.reason.as_str(),
            a.experiment.unwrap_or_default(),
            a.arm.unwrap_or_default(),
            a.grid,
            a.variant,
            a.holdout.map_or("", |group| group.as_str()),
            dark.join("+")
        );
    }
    text
}

fn read(name: &str) -> String {
    fs_err::read_to_string(file(name)).unwrap_or_default()
}

/// Writes files anew, where that is asked for; then they are as given.
fn are_on_file(files: &[(&str, &str)]) {
    for (name, text) in files {
        if std::env::var_os("UPDATE_GOLDEN").is_some_and(|value| value == "1") {
            fs_err::write(file(name), text).expect("writable");
        }
        let on_file = read(name);
        for (is, was) in text.lines().zip(on_file.lines()) {
            assert_eq!(is, was, "{name}");
        }
        assert_eq!(text.len(), on_file.len(), "{name}");
    }
}

#[test]
fn assignments_are_those_on_file() {
    let config = Config::from_toml(&read("experiments.toml")).expect("well-formed");
    let history = history(&config);
    let journal = Journal::parse(&history).expect("verifies");
    let all = Experiments::with_ledger(&config, VARIANTS, journal.ledger()).expect("valid");
    let rows = assignments(&all, 10_000);
    are_on_file(&[("journal.jsonl", &history), ("assignments.csv", &rows)]);
    for reason in [
        "SPLIT",
        "DEFAULT",
        "FORCED",
        "HOLDOUT",
        "TARGETING",
        "PAUSED",
    ] {
        assert!(rows.contains(reason), "no row is {reason}");
    }
}

#[test]
fn assignments_without_a_journal_are_those_on_file() {
    let config = Config::from_toml(&read("drawn.toml")).expect("well-formed");
    let all = Experiments::new(&config, VARIANTS).expect("valid");
    let rows = assignments(&all, 2_000);
    are_on_file(&[("drawn.csv", &rows)]);
    // All of them have units, also the last, which draws from what the others left.
    for name in ["first", "second", "third", "draft"] {
        assert!(rows.contains(&format!(",SPLIT,{name},")), "{name}");
    }
}
