//! Runs the `refrain` binary as its users do, and keeps a server process on a leash.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use refrain::v1::feedback_service_client::FeedbackServiceClient;
use refrain::v1::index_service_client::IndexServiceClient;
use refrain::v1::recommendation_service_client::RecommendationServiceClient;
use refrain::v1::taste_profile_service_client::TasteProfileServiceClient;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tonic::transport::Channel;

/// The binary of this build. Cargo builds it for `--workspace`; for a narrower call it is built here.
pub(crate) fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        if let Some(given) = std::env::var_os("REFRAIN_BIN") {
            return given.into();
        }
        // target/<profile>/deps/it-<hash> -> target/<profile>/refrain
        let here = std::env::current_exe().expect("own path");
        let folder = here.parent().and_then(Path::parent).expect("target folder");
        let mut build = Command::new(env!("CARGO"));
        // The very selection of `cargo test --workspace`: another one would unify features anew and rebuild.
        build.args(["build", "--quiet", "--workspace", "--bins", "--tests"]);
        if folder.ends_with("release") {
            build.arg("--release");
        }
        let target = folder.parent().expect("target folder");
        build
            .env("CARGO_TARGET_DIR", target)
            .current_dir(env!("CARGO_MANIFEST_DIR"));
        assert!(
            build.status().expect("cargo runs").success(),
            "the binary does not build"
        );
        folder.join("refrain")
    })
}

/// Runs the binary to its end.
pub(crate) fn run<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Output {
    Command::new(binary())
        .args(args)
        .env_remove("REFRAIN_STORE")
        .env_remove("REFRAIN_ADDR")
        .stdin(Stdio::null())
        .output()
        .expect("the binary starts")
}

/// Runs the binary, which must succeed; its standard output.
pub(crate) fn ok<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> String {
    let out = run(args);
    assert!(
        out.status.success(),
        "exit {:?}: {}",
        out.status.code(),
        stderr(&out)
    );
    String::from_utf8(out.stdout).expect("UTF-8")
}

/// What a run said to people.
pub(crate) fn stderr(out: &Output) -> String {
    String::from_utf8_lossy(&out.stderr).into_owned()
}

/// Path as an argument.
pub(crate) fn arg(path: &Path) -> &str {
    path.to_str().expect("UTF-8 path")
}

/// A small generated catalogue: log, model, bundle. Made once a test process and never changed.
pub(crate) struct Catalogue {
    home: TempDir,
}

impl Catalogue {
    pub(crate) fn shared() -> &'static Catalogue {
        static SHARED: OnceLock<Catalogue> = OnceLock::new();
        SHARED.get_or_init(|| {
            let home = tempfile::tempdir().expect("temporary folder");
            let at = |name: &str| home.path().join(name);
            ok(["generate", "--preset", "small", "--out", arg(&at("log"))]);
            ok([
                "train",
                "--listens",
                arg(&at("log/listens.csv")),
                "--items",
                arg(&at("log/items.csv")),
                "--out",
                arg(&at("model")),
            ]);
            ok([
                "build",
                "--model",
                arg(&at("model")),
                "--out",
                arg(&at("bundle")),
            ]);
            Catalogue { home }
        })
    }

    pub(crate) fn bundle(&self) -> PathBuf {
        self.home.path().join("bundle")
    }

    pub(crate) fn listens(&self) -> PathBuf {
        self.home.path().join("log/listens.csv")
    }

    pub(crate) fn model(&self) -> PathBuf {
        self.home.path().join("model")
    }

    /// A new folder with a store that serves the bundle as `stable`.
    pub(crate) fn store(&self) -> TempDir {
        let home = tempfile::tempdir().expect("temporary folder");
        publish(&self.bundle(), &home.path().join("store"));
        home
    }
}

/// Publishes as `stable`.
pub(crate) fn publish(bundle: &Path, store: &Path) {
    ok([
        "publish",
        arg(bundle),
        "--store",
        arg(store),
        "--label",
        "stable",
    ]);
}

/// A server process.
pub(crate) struct Server {
    process: Child,
    address: String,
    admin: String,
}

impl Server {
    /// Starts `refrain serve` on free ports, with the store and the profiles of `home`, and waits until
    /// it says that it is ready.
    pub(crate) fn start(home: &Path) -> Server {
        Self::start_in(home, &home.join("profiles.redb"), &[])
    }

    pub(crate) fn start_in(home: &Path, profiles: &Path, more: &[&str]) -> Server {
        let mut process = Command::new(binary())
            .args([
                "serve",
                "--store",
                arg(&home.join("store")),
                "--profiles",
                arg(profiles),
            ])
            .args([
                "--listen",
                "127.0.0.1:0",
                "--admin-listen",
                "127.0.0.1:0",
                "--json",
            ])
            .args(more)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let mut line = String::new();
        let stdout = process.stdout.take().expect("piped");
        BufReader::new(stdout)
            .read_line(&mut line)
            .expect("readable");
        if line.is_empty() {
            let out = process.wait_with_output().expect("ended");
            panic!("the server did not start: {}", stderr(&out));
        }
        // Nobody may block on a full pipe: the log is read on, and thrown away.
        let log = process.stderr.take().expect("piped");
        std::thread::spawn(move || BufReader::new(log).lines().count());
        let ready: serde_json::Value = serde_json::from_str(&line).expect("one JSON document");
        let address = format!("http://{}", ready["listen"].as_str().expect("listen"));
        let admin = ready["admin"].as_str().expect("admin").to_owned();
        Server {
            process,
            address,
            admin,
        }
    }

    /// Host and port of the gRPC listener.
    pub(crate) fn listen(&self) -> &str {
        self.address.trim_start_matches("http://")
    }

    pub(crate) async fn channel(&self) -> Channel {
        Channel::from_shared(self.address.clone())
            .expect("address")
            .connect()
            .await
            .expect("the server accepts")
    }

    pub(crate) async fn recommendations(&self) -> RecommendationServiceClient<Channel> {
        RecommendationServiceClient::new(self.channel().await)
    }

    pub(crate) async fn taste(&self) -> TasteProfileServiceClient<Channel> {
        TasteProfileServiceClient::new(self.channel().await)
    }

    pub(crate) async fn index(&self) -> IndexServiceClient<Channel> {
        IndexServiceClient::new(self.channel().await)
    }

    pub(crate) async fn feedback(&self) -> FeedbackServiceClient<Channel> {
        FeedbackServiceClient::new(self.channel().await)
    }

    /// A counter or gauge without labels, as the admin listener tells it now.
    pub(crate) async fn metric(&self, name: &str) -> u64 {
        let connected = tokio::net::TcpStream::connect(&self.admin).await;
        let mut stream = connected.expect("the admin listener accepts");
        let ask = b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
        stream.write_all(ask).await.expect("sends");
        let mut text = String::new();
        stream.read_to_string(&mut text).await.expect("answers");
        let mut lines = text.lines().filter_map(|line| line.split_once(' '));
        let (_, value) = lines
            .find(|(found, _)| *found == name)
            .unwrap_or_else(|| panic!("no {name} in {text}"));
        value.parse().expect("a whole number")
    }

    /// SIGKILL: no drain, no flush.
    pub(crate) fn kill(mut self) {
        self.process.kill().expect("killed");
        self.process.wait().expect("ended");
    }

    /// SIGTERM, and the exit code.
    pub(crate) fn terminate(self) -> Option<i32> {
        self.signal();
        self.ended()
    }

    /// Waits for its end, and gives the exit code.
    pub(crate) fn ended(mut self) -> Option<i32> {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            if let Some(status) = self.process.try_wait().expect("waited") {
                return status.code();
            }
            assert!(
                Instant::now() < deadline,
                "the server does not end after SIGTERM"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn signal(&self) {
        terminate(&self.process);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Already ended where the test ended it.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// SIGTERM.
pub(crate) fn terminate(process: &Child) {
    let pid = process.id().to_string();
    let sent = Command::new("kill").args(["-TERM", &pid]).status();
    assert!(sent.expect("kill runs").success());
}

/// Waits for something that another process brings about; `what` names it when it does not come.
pub(crate) async fn until<F>(what: &str, mut there: impl FnMut() -> F)
where
    F: Future<Output = bool>,
{
    let deadline = Instant::now() + Duration::from_secs(30);
    while !there().await {
        assert!(Instant::now() < deadline, "not within 30 s: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
