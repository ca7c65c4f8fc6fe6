//! SIGKILL at random moments under load, on the real binary: nothing acknowledged is lost, nothing is there
//! twice.
//!
//! ```console
//! $ cargo build --release && cargo run --release -p refrain --example durability -- 600 [FOLDER] [SEED]
//! ```
//!
//! Writers append events and make and delete rules over gRPC, each repeating what was not acknowledged until
//! it is, while the server is killed every 1 to 4 seconds, now and then while it still recovers. After every
//! start the revisions of all listeners are read: none may have gone back. In the end all profiles are
//! exported and compared, record for record, with what was acknowledged. The folder's disk is the one that is
//! tested. `tests/it/crash.rs` is the short form in the suite; full disks and torn pages are tested there and
//! in `refrain-taste`.

#![allow(clippy::print_stdout, reason = "its output is the finding")]

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use refrain::v1::exclusion_scope::Scope;
use refrain::v1::export_profile_response::Part;
use refrain::v1::taste_profile_service_client::TasteProfileServiceClient;
use refrain::v1::{
    AppendEventsRequest, CreateExclusionRequest, DeleteExclusionRequest, Event, EventKind,
    Exclusion, ExclusionEffect, ExclusionScope, ExportProfileRequest, GetProfileRequest,
};
use tokio::sync::watch;
use tonic::Code;
use tonic::transport::Channel;

const WRITERS: u64 = 16;
/// Writes after which a writer takes another listener.
const WRITES_A_LISTENER: u64 = 800;

/// What was acknowledged of one listener.
#[derive(Debug, Default, Clone)]
struct Ledger {
    user: String,
    revision: u64,
    events: BTreeSet<String>,
    rules: BTreeSet<String>,
}

/// What writers are told.
#[derive(Debug, Default, Clone)]
struct Told {
    /// Where the server is, or was.
    address: String,
    stop: bool,
}

fn main() {
    let mut args = std::env::args().skip(1);
    let seconds: u64 = args
        .next()
        .map_or(600, |text| text.parse().expect("seconds"));
    let folder = args.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let seed = args.next().map_or(1, |text| text.parse().expect("a seed"));
    let home = tempfile::tempdir_in(folder).expect("a folder");
    prepare(home.path());
    let runtime = tokio::runtime::Runtime::new().expect("threads");
    runtime.block_on(torture(home.path(), Duration::from_secs(seconds), seed));
}

async fn torture(home: &Path, length: Duration, seed: u64) {
    let mut random = Random(seed);
    let began = Instant::now();
    let ledgers = Arc::new(Mutex::new(Vec::<Ledger>::new()));
    let (tell, told) = watch::channel(Told::default());
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        writers.spawn(write(
            writer,
            told.clone(),
            Arc::clone(&ledgers),
            Random(seed + 1 + writer),
        ));
    }
    let (mut kills, mut during_start) = (0_u32, 0_u32);
    let mut recovery = Duration::ZERO;
    while began.elapsed() < length {
        let starting = Instant::now();
        let mut server = Server::spawn(home);
        if random.below(5) == 0 {
            // Even before it is ready: what recovers may be killed as well.
            tokio::time::sleep(Duration::from_millis(random.below(150))).await;
            server.kill();
            during_start += 1;
            continue;
        }
        let address = server.ready();
        recovery = recovery.max(starting.elapsed());
        check_revisions(&address, &ledgers).await;
        tell.send_modify(|told| told.address = address);
        tokio::time::sleep(Duration::from_millis(1_000 + random.below(3_000))).await;
        server.kill();
        kills += 1;
    }
    let mut server = Server::spawn(home);
    let address = server.ready();
    // Every writer gets acknowledged what it is at, and ends.
    tell.send_replace(Told {
        address: address.clone(),
        stop: true,
    });
    let mut failures = 0;
    while let Some(writer) = writers.join_next().await {
        failures += writer.expect("no writer fails");
    }
    let ledgers = ledgers.lock().expect("not poisoned").clone();
    let (events, rules) = compare(&address, &ledgers).await;
    server.kill();
    println!(
        "{} s, {kills} kills under load and {during_start} while starting; longest start {recovery:.1?}",
        began.elapsed().as_secs()
    );
    println!(
        "{} listeners, {} writes acknowledged, {failures} attempts failed and were repeated",
        ledgers.len(),
        ledgers.iter().map(|ledger| ledger.revision).sum::<u64>()
    );
    println!(
        "{events} events and {rules} rules are there as acknowledged: none lost, none twice, no revision went back"
    );
}

/// Writes until told to stop; how many attempts failed.
async fn write(
    writer: u64,
    told: watch::Receiver<Told>,
    ledgers: Arc<Mutex<Vec<Ledger>>>,
    mut random: Random,
) -> u64 {
    let mut failures = 0;
    for listener in 0.. {
        let mut ledger = Ledger {
            user: format!("w{writer}-{listener}"),
            ..Ledger::default()
        };
        let place = {
            let mut all = ledgers.lock().expect("not poisoned");
            all.push(ledger.clone());
            all.len() - 1
        };
        for n in 0..WRITES_A_LISTENER {
            if told.borrow().stop {
                return failures;
            }
            let write = Write::draw(&ledger, n, &mut random);
            // Repeated until it is known to be done: idempotent by its ids.
            let revision = loop {
                let address = told.borrow().address.clone();
                match write.attempt(&address, &ledger.user).await {
                    Some(revision) => break revision,
                    None => failures += 1,
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            };
            assert_eq!(revision, n + 1, "{}: one revision a write", ledger.user);
            write.note(&mut ledger, revision);
            ledgers.lock().expect("not poisoned")[place] = ledger.clone();
        }
    }
    failures
}

/// One write.
enum Write {
    Append(Vec<String>),
    Create(String),
    Delete(String),
}

impl Write {
    fn draw(ledger: &Ledger, n: u64, random: &mut Random) -> Self {
        match random.below(10) {
            0..2 => Self::Create(format!("r{n}")),
            2 if !ledger.rules.is_empty() => {
                let at = random.below(ledger.rules.len() as u64);
                let at = usize::try_from(at).expect("small");
                Self::Delete(ledger.rules.iter().nth(at).expect("there").clone())
            }
            _ => Self::Append(
                (0..=random.below(4))
                    .map(|half| format!("e{n}-{half}"))
                    .collect(),
            ),
        }
    }

    /// The revision that acknowledged it; `None` where nothing did.
    async fn attempt(&self, address: &str, user: &str) -> Option<u64> {
        let mut taste = connect(address).await?;
        let user_id = user.to_owned();
        let done = match self {
            Self::Append(ids) => {
                let events = ids.iter().map(|id| event(id)).collect();
                let done = taste.append_events(AppendEventsRequest { user_id, events });
                done.await.map(|done| done.into_inner().profile_revision)
            }
            Self::Create(id) => {
                let request = CreateExclusionRequest {
                    user_id,
                    exclusion: Some(Exclusion {
                        rule_id: id.clone(),
                        scope: Some(ExclusionScope {
                            scope: Some(Scope::Context(id.clone())),
                        }),
                        effect: ExclusionEffect::Both.into(),
                        ..Exclusion::default()
                    }),
                };
                let made = taste.create_exclusion(request).await;
                made.map(|made| made.into_inner().profile_revision)
            }
            Self::Delete(id) => {
                let request = DeleteExclusionRequest {
                    user_id,
                    rule_id: id.clone(),
                    allow_missing: true,
                };
                let gone = taste.delete_exclusion(request).await;
                gone.map(|gone| gone.into_inner().profile_revision)
            }
        };
        match done {
            Ok(revision) => Some(revision),
            Err(status) => {
                let broken = [
                    Code::Unavailable,
                    Code::Unknown,
                    Code::Cancelled,
                    Code::Internal,
                ];
                let transport = status.code() != Code::Internal || status.message().contains("h2");
                assert!(broken.contains(&status.code()) && transport, "{status:?}");
                None
            }
        }
    }

    fn note(self, ledger: &mut Ledger, revision: u64) {
        ledger.revision = revision;
        match self {
            Self::Append(ids) => ledger.events.extend(ids),
            Self::Create(id) => drop(ledger.rules.insert(id)),
            Self::Delete(id) => drop(ledger.rules.remove(&id)),
        }
    }
}

fn event(id: &str) -> Event {
    Event {
        event_id: id.to_owned(),
        item_id: format!("item {id}"),
        event_time: Some(prost_types::Timestamp {
            seconds: 1_700_000_000,
            nanos: 0,
        }),
        kind: EventKind::Play.into(),
        context: "a context".into(),
        ..Event::default()
    }
}

/// One connection for all, made anew for another address.
async fn connect(address: &str) -> Option<TasteProfileServiceClient<Channel>> {
    static OPEN: Mutex<Option<(String, Channel)>> = Mutex::new(None);
    let open = OPEN.lock().expect("not poisoned").clone();
    if let Some((_, channel)) = open.filter(|(of, _)| of == address) {
        return Some(TasteProfileServiceClient::new(channel));
    }
    // No address yet is no connection.
    let channel = Channel::from_shared(address.to_owned()).ok()?;
    let channel = channel.connect().await.ok()?;
    *OPEN.lock().expect("not poisoned") = Some((address.to_owned(), channel.clone()));
    Some(TasteProfileServiceClient::new(channel))
}

/// No listener may have less than was acknowledged.
async fn check_revisions(address: &str, ledgers: &Mutex<Vec<Ledger>>) {
    // What is acknowledged while this runs is not yet asked for.
    let known = ledgers.lock().expect("not poisoned").clone();
    let mut taste = connect(address).await.expect("ready");
    for ledger in known {
        let request = GetProfileRequest {
            user_id: ledger.user.clone(),
            ..GetProfileRequest::default()
        };
        let there = taste.get_profile(request).await.expect("read").into_inner();
        assert!(
            there.profile_revision >= ledger.revision,
            "{}: revision {} was acknowledged, {} is there",
            ledger.user,
            ledger.revision,
            there.profile_revision
        );
    }
}

/// Exports all and compares; how many events and rules there are.
async fn compare(address: &str, ledgers: &[Ledger]) -> (usize, usize) {
    let mut taste = connect(address).await.expect("ready");
    let (mut events, mut rules) = (0, 0);
    for ledger in ledgers {
        let request = ExportProfileRequest {
            user_id: ledger.user.clone(),
            ..ExportProfileRequest::default()
        };
        let parts = taste.export_profile(request).await.expect("exported");
        let mut parts = parts.into_inner();
        let (mut here, mut made, mut whole) = (BTreeSet::new(), BTreeSet::new(), false);
        while let Some(part) = parts.message().await.expect("read") {
            match part.part.expect("a part") {
                Part::Header(header) => {
                    assert_eq!(header.profile_revision, ledger.revision, "{}", ledger.user);
                }
                Part::Events(part) => {
                    for event in part.events {
                        let id = event.event_id;
                        assert!(here.insert(id.clone()), "{} has {id} twice", ledger.user);
                    }
                }
                Part::Exclusions(part) => {
                    for rule in part.exclusions {
                        let id = rule.rule_id;
                        assert!(made.insert(id.clone()), "{} has {id} twice", ledger.user);
                    }
                }
                Part::Footer(_) => whole = true,
            }
        }
        assert!(whole, "{}: an export without an end", ledger.user);
        assert_eq!(here, ledger.events, "{}", ledger.user);
        assert_eq!(made, ledger.rules, "{}", ledger.user);
        events += here.len();
        rules += made.len();
    }
    (events, rules)
}

/// A small generated version to serve.
fn prepare(home: &Path) {
    let at = |name: &str| home.join(name).display().to_string();
    run(&["generate", "--preset", "small", "--out", &at("log")]);
    run(&[
        "train",
        "--listens",
        &at("log/listens.csv"),
        "--out",
        &at("model"),
    ]);
    run(&["build", "--model", &at("model"), "--out", &at("bundle")]);
    run(&[
        "publish",
        &at("bundle"),
        "--store",
        &at("store"),
        "--label",
        "stable",
    ]);
}

fn binary() -> PathBuf {
    let here = std::env::current_exe().expect("own path");
    let folder = here.ancestors().nth(2).expect("target folder");
    std::env::var_os("REFRAIN_BIN").map_or_else(|| folder.join("refrain"), PathBuf::from)
}

fn run(args: &[&str]) {
    let done = Command::new(binary())
        .args(args)
        .stderr(Stdio::null())
        .stdout(Stdio::null())
        .status();
    assert!(
        done.expect("cargo build --release first").success(),
        "{args:?}"
    );
}

struct Server(Child);

impl Server {
    fn spawn(home: &Path) -> Self {
        let at = |name: &str| home.join(name).display().to_string();
        let process = Command::new(binary())
            .args([
                "serve",
                "--store",
                &at("store"),
                "--profiles",
                &at("profiles.redb"),
            ])
            .args([
                "--listen",
                "127.0.0.1:0",
                "--admin-listen",
                "127.0.0.1:0",
                "--json",
            ])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        Self(process.expect("starts"))
    }

    /// Its address, once it is ready.
    fn ready(&mut self) -> String {
        let mut line = String::new();
        let stdout = self.0.stdout.take().expect("piped");
        BufReader::new(stdout)
            .read_line(&mut line)
            .expect("readable");
        let ready: serde_json::Value = serde_json::from_str(&line).expect("it starts");
        format!("http://{}", ready["listen"].as_str().expect("listen"))
    }

    fn kill(&mut self) {
        self.0.kill().expect("killed");
        self.0.wait().expect("ended");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Already ended, but for a failure.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// SplitMix64 (Steele, Lea and Flood, 2014).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}
