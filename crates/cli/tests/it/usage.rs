//! What is asked wrongly is told so, with exit 2, before anything is done.

use crate::support::{arg, command, fails, ok, run};

const COMMANDS: [&str; 28] = [
    "demo",
    "generate",
    "train",
    "tune",
    "import",
    "plan",
    "build",
    "evaluate",
    "verify",
    "inspect",
    "publish",
    "versions",
    "promote",
    "rollback",
    "freshen",
    "gc",
    "serve",
    "config",
    "health",
    "recommend",
    "similar",
    "exclude",
    "explain",
    "profile",
    "compare",
    "experiment",
    "batch",
    "bench",
];

#[test]
fn every_command_has_help_with_examples() {
    let top = ok(&["--help"]);
    for name in COMMANDS {
        assert!(
            top.contains(&format!("\n  {name} ")),
            "{name} is not listed"
        );
        let help = ok(&[name, "--help"]);
        assert!(
            help.contains("Examples:") && help.contains(&format!("refrain {name}")),
            "{help}"
        );
    }
    for nested in [
        ["profile", "show"],
        ["profile", "append"],
        ["profile", "import"],
        ["experiment", "assign"],
        ["experiment", "check"],
        ["experiment", "plan"],
        ["experiment", "analyze"],
        ["experiment", "offline-online"],
    ] {
        let help = ok(&[nested[0], nested[1], "--help"]);
        assert!(help.contains("Examples:"), "{help}");
    }
}

#[test]
fn wrong_usage_is_exit_2() {
    for args in [
        &["no-such-command"][..],
        &["train"],
        &["build", "--out", "x"],
        &["build", "--model", "m", "--vectors", "v", "--out", "x"],
        &[
            "build",
            "--vectors",
            "v",
            "--metric",
            "manhattan",
            "--out",
            "x",
        ],
        &["plan"],
        &["plan", "--items", "5"],
        &["plan", "--items", "5", "--dim", "0"],
        &["versions"],
        &["recommend"],
        &["recommend", "alice", "--seed", "x"],
        &["recommend", "alice", "-k", "0"],
        &["recommend", "alice", "-k", "1001"],
        &["recommend", "--vector", "1,NaN"],
        &["recommend", "--seed", "x=-1"],
        &["recommend", "alice", "--addr", "ftp://x"],
        &["recommend", "alice", "--addr", "http://"],
        &["recommend", "alice", "--timeout", "0s"],
        &["similar"],
        &["exclude", "alice"],
        &["exclude", "alice", "--undo", "r", "--list"],
        &["exclude", "alice", "--item", "x", "--context", "y"],
        &["exclude", "alice", "--item", "x", "--expires", "whenever"],
        &["profile", "append", "alice"],
        &[
            "profile",
            "append",
            "alice",
            "--item",
            "a",
            "--item",
            "b",
            "--event-id",
            "e",
        ],
        &["profile", "append", "alice", "--item", "a", "--count", "0"],
        &["serve"],
        &["generate", "--preset", "no-such-preset", "--out", "x"],
        &["evaluate", "b", "--held-out", "f"],
        &["evaluate", "b", "--min-recall", "1.5"],
        &["train", "--listens", "f", "--out", "m", "--rank", "0"],
        &[
            "train",
            "--listens",
            "f",
            "--out",
            "m",
            "--hold-out-share",
            "1",
        ],
        &["versions", "--store", "ftp://bucket/store"],
        &["versions", "--store", "file://relative"],
    ] {
        fails(args, 2, &[]);
    }
}

#[test]
fn a_wrong_mapping_is_named() {
    let home = tempfile::tempdir().expect("temporary folder");
    let out = home.path().join("m");
    let args = |map| ["train", "--listens", "f", "--out", arg(&out), "--map", map];
    fails(&args("user"), 2, &["--map user", "FIELD=COLUMN"]);
    fails(&args("listener=1"), 2, &["listener"]);
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let output = command()
        .arg("config")
        .stdout(writer)
        .output()
        .expect("the binary starts");
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(output.stderr, b"");
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_standard_output_is_a_failure() {
    let full = fs_err::OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .expect("/dev/full");
    let output = command()
        .arg("config")
        .stdout(full.into_file())
        .output()
        .expect("the binary starts");
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).expect("UTF-8");
    assert!(said.contains("cannot write standard output"), "{said}");
}

#[test]
fn the_printed_configuration_is_one() {
    let home = tempfile::tempdir().expect("temporary folder");
    let file = home.path().join("refrain.toml");
    fs_err::write(&file, ok(&["config"])).expect("written");
    let said = ok(&["experiment", "check", arg(&file)]);
    assert!(said.contains("plain") && said.contains("holds"), "{said}");

    let broken = home.path().join("broken.toml");
    fs_err::write(&broken, "[variant.x]\nscore = \"similarity +\"\n").expect("written");
    fails(&["experiment", "check", arg(&broken)], 3, &["broken.toml"]);
    fails(
        &["serve", "--store", "s", "--config", arg(&broken)],
        1,
        &["broken.toml"],
    );
    let nowhere = home.path().join("nowhere.toml");
    fails(
        &["experiment", "check", arg(&nowhere)],
        1,
        &["nowhere.toml"],
    );
}

#[test]
fn help_and_version_go_to_standard_output() {
    for flag in ["--help", "--version"] {
        let ran = run(&[flag]);
        assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""));
        assert!(!ran.stdout.is_empty());
    }
}
