//! Runs the binary and reads what it says.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;

use serde_json::Value;
use tempfile::TempDir;

/// The binary, without the settings of whoever runs the tests.
pub(crate) fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_refrain"));
    for name in [
        "REFRAIN_STORE",
        "REFRAIN_ADDR",
        "REFRAIN_SIMD",
        "SOURCE_DATE_EPOCH",
        "RUST_LOG",
    ] {
        command.env_remove(name);
    }
    command.stdin(Stdio::null());
    command
}

/// What a run left.
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).expect("UTF-8"),
            stderr: String::from_utf8(output.stderr).expect("UTF-8"),
        }
    }
}

/// Runs to the end.
pub(crate) fn run(args: &[&str]) -> Ran {
    let ran = Ran::from(command().args(args).output().expect("the binary starts"));
    assert!(!ran.stderr.contains("panicked"), "{args:?}: {}", ran.stderr);
    ran
}

/// Runs to the end, which is 0; standard output.
pub(crate) fn ok(args: &[&str]) -> String {
    let ran = run(args);
    assert_eq!(ran.code, Some(0), "{args:?}: {}", ran.stderr);
    ran.stdout
}

/// Runs with `--json`, which ends with 0 and prints one document and nothing else.
pub(crate) fn document(args: &[&str]) -> Value {
    let stdout = ok(&[args, &["--json"]].concat());
    serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{args:?}: {error}: {stdout}"))
}

/// Runs to an end that is `code`, and says all of `words` on standard error; with `--json` the same is
/// in one document on standard output.
pub(crate) fn fails(args: &[&str], code: i32, words: &[&str]) {
    let ran = run(args);
    assert_eq!(
        ran.code,
        Some(code),
        "{args:?}: {}{}",
        ran.stdout,
        ran.stderr
    );
    for word in words {
        assert!(
            ran.stderr.contains(word),
            "{args:?}: no {word:?} in {}",
            ran.stderr
        );
    }
    let ran = run(&[args, &["--json"]].concat());
    assert_eq!(ran.code, Some(code), "{args:?} --json: {}", ran.stderr);
    let document: Value = serde_json::from_str(&ran.stdout)
        .unwrap_or_else(|error| panic!("{args:?}: {error}: {}", ran.stdout));
    assert_eq!(document["error"]["exit"], code, "{args:?}: {document}");
    assert!(
        document["error"]["message"].is_string(),
        "{args:?}: {document}"
    );
}

/// A path as an argument.
pub(crate) fn arg(path: &Path) -> &str {
    path.to_str().expect("UTF-8 path")
}

/// A generated log, its model and its bundle: made once, never changed.
pub(crate) struct Made {
    home: TempDir,
}

impl Made {
    pub(crate) fn shared() -> &'static Self {
        static SHARED: OnceLock<Made> = OnceLock::new();
        SHARED.get_or_init(|| {
            let made = Self {
                home: tempfile::tempdir().expect("temporary folder"),
            };
            ok(&[
                "generate",
                "--preset",
                "small",
                "--out",
                arg(&made.at("log")),
            ]);
            ok(&[
                "train",
                "--listens",
                arg(&made.at("log/listens.csv")),
                "--items",
                arg(&made.at("log/items.csv")),
                "--rank",
                "16",
                "--iterations",
                "4",
                "--out",
                arg(&made.at("model")),
            ]);
            ok(&[
                "build",
                "--model",
                arg(&made.at("model")),
                "--out",
                arg(&made.at("bundle")),
            ]);
            made
        })
    }

    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// A copy of the bundle that may be damaged.
    pub(crate) fn copy_of_bundle(&self, to: &Path) {
        fs_err::create_dir(to).expect("new folder");
        for entry in self.at("bundle").read_dir().expect("bundle") {
            let entry = entry.expect("entry");
            let bytes = fs_err::read(entry.path()).expect("file");
            fs_err::write(to.join(entry.file_name()), bytes).expect("copy");
        }
    }
}

/// A running `refrain serve`; killed when dropped.
pub(crate) struct Server {
    process: Child,
    pub(crate) addr: String,
    _home: TempDir,
}

impl Server {
    /// Serves the shared bundle on a free port.
    pub(crate) fn start() -> Self {
        Self::of(&Made::shared().at("bundle"))
    }

    /// Serves a bundle on a free port.
    pub(crate) fn of(bundle: &Path) -> Self {
        let home = tempfile::tempdir().expect("temporary folder");
        let store = home.path().join("store");
        ok(&["publish", arg(bundle), "--store", arg(&store)]);
        let mut process = command()
            .args(["serve", "--store", arg(&store), "--json"])
            .args(["--profiles", arg(&home.path().join("profiles.redb"))])
            .args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the binary starts");
        let mut line = String::new();
        let stdout = process.stdout.take().expect("piped");
        BufReader::new(stdout).read_line(&mut line).expect("a line");
        let ready: Value = serde_json::from_str(&line).expect("one document in one line");
        let addr = format!("http://{}", ready["listen"].as_str().expect("listen"));
        assert!(
            ready["version"].is_string() && ready["admin"].is_string(),
            "{ready}"
        );
        Self {
            process,
            addr,
            _home: home,
        }
    }

    /// Ends it as an orchestrator does.
    pub(crate) fn terminate(mut self) -> Option<i32> {
        let pid = self.process.id().to_string();
        let sent = Command::new("kill")
            .args(["-TERM", &pid])
            .status()
            .expect("kill runs");
        assert!(sent.success());
        self.process.wait().expect("ended").code()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Already ended where the test ended it.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}
