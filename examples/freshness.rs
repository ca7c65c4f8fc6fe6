//! Freshening measured on the real binary: how soon a delta is seen, what it costs, what it finds.
//!
//! ```console
//! $ cargo build --release && cargo run --release -p refrain --example freshness -- 1000000
//! ```
//!
//! Publishes generated vectors to two stores, serves both, and freshens one by 1,000 new tracks and 1,000
//! takedowns. Requests alternate between the two servers, so both see the same machine.

#![allow(clippy::print_stdout, reason = "its output is the measurement")]

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use refrain::v1::index_service_client::IndexServiceClient;
use refrain::v1::recommendation_service_client::RecommendationServiceClient;
use refrain::v1::similar_request::Query;
use refrain::v1::{GetServingRequest, SearchParams, SimilarRequest, Vector};
use tonic::transport::Channel;

const DIM: usize = 64;
const NEW: usize = 1_000;
const GONE: usize = 1_000;
const K: u32 = 10;
const REQUESTS: usize = 4_000;
const JUDGED: usize = 300;

fn main() {
    let items: usize = std::env::args()
        .nth(1)
        .map_or(100_000, |n| n.parse().expect("a number"));
    let home = tempfile::tempdir().expect("a directory");
    let mut random = Random(7);
    let centres: Vec<f32> = (0..200 * DIM).map(|_| random.normal()).collect();
    let mut point = |spread: f32| -> Vec<f32> {
        let centre = random.below(200) * DIM;
        (0..DIM)
            .map(|at| centres[centre + at] + spread * random.normal())
            .collect()
    };
    let old: Vec<f32> = (0..items).flat_map(|_| point(0.6)).collect();
    let new: Vec<f32> = (0..NEW).flat_map(|_| point(0.6)).collect();
    let queries: Vec<Vec<f32>> = (0..REQUESTS).map(|_| point(0.8)).collect();
    write(home.path(), "old", &old, "t");
    write(home.path(), "new", &new, "n");
    let gone: Vec<String> = (0..GONE)
        .map(|at| format!("t{}", at * (items / GONE)))
        .collect();
    let at = |name: &str| home.path().join(name).display().to_string();
    fs_err::write(at("gone.txt"), gone.join("\n")).expect("written");
    run(&[
        "build",
        "--vectors",
        &at("old.npy"),
        "--ids",
        &at("old.txt"),
        "--out",
        &at("bundle"),
    ]);
    for store in ["fresh", "base"] {
        run(&["publish", &at("bundle"), "--store", &at(store)]);
    }
    let servers = ["fresh", "base"].map(|store| Server::start(home.path(), store));
    let runtime = tokio::runtime::Runtime::new().expect("threads");
    runtime.block_on(async {
        let mut clients = Vec::new();
        for server in &servers {
            clients.push(RecommendationServiceClient::new(server.channel().await));
        }
        let before = alternate(&mut clients, &queries).await;
        let began = Instant::now();
        run(&[
            "freshen", "--vectors", &at("new.npy"), "--ids", &at("new.txt"), "--remove", &at("gone.txt"),
            "--store", &at("fresh"),
        ]);
        let (took, ended) = (began.elapsed(), Instant::now());
        let mut index = IndexServiceClient::new(servers[0].channel().await);
        loop {
            let serving = index.get_serving(GetServingRequest {}).await.expect("answers");
            if serving.into_inner().serving[0].delta == 1 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let visible = ended.elapsed();
        let after = alternate(&mut clients, &queries).await;
        let near_new: Vec<Vec<f32>> = new.chunks(DIM).take(JUDGED).map(<[f32]>::to_vec).collect();
        let old_queries = &queries[..JUDGED];
        let base = recall(&mut clients[1], old_queries, &[]).await;
        let over_old = recall(&mut clients[0], old_queries, &gone).await;
        let over_new = recall(&mut clients[0], &near_new, &gone).await;
        println!("{items} x {DIM}, {NEW} new, {GONE} taken down, Similar by vector, k {K}, 1 connection");
        println!("freshen took {took:?}; visible on the running server {visible:?} after its end");
        println!("recall@{K}: base {base:.4}; with delta, old queries {over_old:.4}, at new items {over_new:.4}");
        for (name, [fresh, base]) in [("before", before), ("after", after)] {
            println!(
                "{name}: freshened p50 {:?} p99 {:?}; beside it p50 {:?} p99 {:?}; ratio of p99 {:.3}",
                fresh.0, fresh.1, base.0, base.1,
                fresh.1.as_secs_f64() / base.1.as_secs_f64()
            );
        }
    });
}

/// Median and 99th percentile of both servers, asked in turns.
async fn alternate(
    clients: &mut [RecommendationServiceClient<Channel>],
    queries: &[Vec<f32>],
) -> [(Duration, Duration); 2] {
    let mut times = [Vec::new(), Vec::new()];
    for (at, query) in queries.iter().enumerate() {
        for turn in 0..2 {
            let which = (at + turn) % 2;
            let began = Instant::now();
            ask(&mut clients[which], query, false).await;
            times[which].push(began.elapsed());
        }
    }
    times.map(|mut times| {
        times.sort_unstable();
        (times[times.len() / 2], times[times.len() * 99 / 100])
    })
}

/// Share of the exact answer that the graph and the delta find; nothing taken down may be in either.
async fn recall(
    client: &mut RecommendationServiceClient<Channel>,
    queries: &[Vec<f32>],
    gone: &[String],
) -> f64 {
    let mut found = 0;
    for query in queries {
        let exact = ask(client, query, true).await;
        let got = ask(client, query, false).await;
        assert!(
            exact.iter().chain(&got).all(|id| !gone.contains(id)),
            "a takedown was shown"
        );
        found += got.iter().filter(|id| exact.contains(id)).count();
    }
    found as f64 / (queries.len() * K as usize) as f64
}

async fn ask(
    client: &mut RecommendationServiceClient<Channel>,
    query: &[f32],
    exact: bool,
) -> Vec<String> {
    let request = SimilarRequest {
        query: Some(Query::Vector(Vector {
            values: query.to_vec(),
            ..Vector::default()
        })),
        page_size: Some(K),
        search: Some(SearchParams {
            exact,
            ..SearchParams::default()
        }),
        ..SimilarRequest::default()
    };
    let answer = client
        .similar(request)
        .await
        .expect("an answer")
        .into_inner();
    answer
        .results
        .into_iter()
        .map(|result| result.item_id)
        .collect()
}

/// A matrix as .npy, and its ids.
fn write(home: &Path, name: &str, values: &[f32], prefix: &str) {
    let rows = values.len() / DIM;
    let mut header =
        format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {DIM}), }}");
    while (10 + header.len() + 1) % 64 != 0 {
        header.push(' ');
    }
    header.push('\n');
    let mut npy = b"\x93NUMPY\x01\x00".to_vec();
    npy.extend_from_slice(&u16::try_from(header.len()).expect("short").to_le_bytes());
    npy.extend_from_slice(header.as_bytes());
    npy.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    fs_err::write(home.join(format!("{name}.npy")), npy).expect("written");
    let ids: Vec<String> = (0..rows).map(|row| format!("{prefix}{row}")).collect();
    fs_err::write(home.join(format!("{name}.txt")), ids.join("\n")).expect("written");
}

fn binary() -> PathBuf {
    let here = std::env::current_exe().expect("own path");
    let folder = here.parent().and_then(Path::parent).expect("target folder");
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

struct Server(Child, String);

impl Server {
    fn start(home: &Path, store: &str) -> Self {
        let at = |name: &str| home.join(name).display().to_string();
        let mut process = Command::new(binary())
            .args([
                "serve",
                "--store",
                &at(store),
                "--profiles",
                &at(&format!("{store}.redb")),
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
            .spawn()
            .expect("starts");
        let mut line = String::new();
        let stdout = process.stdout.take().expect("piped");
        BufReader::new(stdout)
            .read_line(&mut line)
            .expect("readable");
        let ready: serde_json::Value = serde_json::from_str(&line).expect("one JSON document");
        Self(
            process,
            format!("http://{}", ready["listen"].as_str().expect("listen")),
        )
    }

    async fn channel(&self) -> Channel {
        Channel::from_shared(self.1.clone())
            .expect("address")
            .connect()
            .await
            .expect("accepts")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).expect("below a usize")
    }

    /// About normal: the sum of uniform values.
    fn normal(&mut self) -> f32 {
        (0..6)
            .map(|_| (self.next() >> 40) as f32 / (1u64 << 24) as f32 - 0.5)
            .sum::<f32>()
            * 1.4
    }
}
