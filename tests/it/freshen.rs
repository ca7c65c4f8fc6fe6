//! New items and takedowns reach running servers in seconds, without a swap, on every path.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use refrain::v1::recommend_request::Subject;
use refrain::v1::similar_request::Query;
use refrain::v1::{
    GetServingRequest, InlineProfile, RecommendRequest, Result as Item, ResultSource, SearchParams,
    SimilarRequest,
};

use crate::support::{Catalogue, Server, arg, binary, ok, run, stderr, until};

/// Listens of a new item by everyone who heard `like`, beside all that they heard otherwise.
pub(crate) fn first_listens(log: &Path, like: &str, new: &str, out: &Path) {
    let text = fs_err::read_to_string(log).expect("the generated log");
    let mut lines = text.lines();
    let mut more = format!("{}\n", lines.next().expect("a header"));
    for line in lines {
        let own = format!(",{like},");
        more += line;
        more.push('\n');
        if line.contains(&own) {
            more += &line.replace(&own, &format!(",{new},"));
            more.push('\n');
        }
    }
    fs_err::write(out, more).expect("written");
}

pub(crate) fn document(out: &str) -> serde_json::Value {
    serde_json::from_str(out).expect("one JSON document")
}

async fn similar(server: &Server, id: &str, k: u32, exact: bool) -> (u64, Vec<Item>) {
    let request = SimilarRequest {
        query: Some(Query::ItemId(id.to_owned())),
        page_size: Some(k),
        search: Some(SearchParams {
            exact,
            ..SearchParams::default()
        }),
        ..SimilarRequest::default()
    };
    let answer = server.recommendations().await.similar(request).await;
    let answer = answer.expect("an answer").into_inner();
    (answer.served_by.expect("said").delta, answer.results)
}

/// What a listener without events gets: the popularity fallback.
async fn popular(server: &Server, k: u32) -> Vec<Item> {
    let request = RecommendRequest {
        subject: Some(Subject::Profile(InlineProfile::default())),
        page_size: Some(k),
        ..RecommendRequest::default()
    };
    let answer = server.recommendations().await.recommend(request).await;
    answer.expect("an answer").into_inner().results
}

fn ids(items: &[Item]) -> Vec<&str> {
    items.iter().map(|item| &*item.item_id).collect()
}

async fn serving(server: &Server) -> (String, u64, String, Option<i64>) {
    let answer = server.index().await.get_serving(GetServingRequest {}).await;
    let answer = answer.expect("an answer").into_inner();
    let label = answer.serving.into_iter().next().expect("a label");
    let since = label.since.map(|since| since.seconds);
    (label.version, label.delta, label.delta_refusal, since)
}

#[tokio::test]
async fn new_items_and_takedowns_reach_running_servers() {
    let catalogue = Catalogue::shared();
    let home = catalogue.store();
    let store = home.path().join("store");
    let replicas = [
        Server::start(home.path()),
        Server::start_in(home.path(), &home.path().join("other.redb"), &[]),
    ];
    let before = popular(&replicas[0], 20).await;
    let (like, gone) = (before[0].item_id.clone(), before[1].item_id.clone());
    // Each has begun at a time of its own.
    let mut begun = Vec::new();
    for server in &replicas {
        let (version, delta, _, since) = serving(server).await;
        assert_eq!(delta, 0);
        begun.push((version, since));
    }

    let listens = home.path().join("fresh.csv");
    first_listens(&catalogue.listens(), &like, "brand-new", &listens);
    let attributes = home.path().join("attributes.csv");
    let text = format!("item_id,title,artist\nbrand-new,A Debut,The Newcomers\n{like},Renamed,\n");
    fs_err::write(&attributes, text).expect("written");
    let freshen = || {
        document(&ok([
            "freshen",
            "--json",
            "--store",
            arg(&store),
            "--listens",
            arg(&listens),
            "--items",
            arg(&attributes),
            "--remove-item",
            &gone,
            "--remove-item",
            "nobody-knows",
        ]))
    };
    let report = freshen();
    assert_eq!(report["published"], true, "{report}");
    let counts = ["delta", "new", "new_folded_in", "changed", "removed"].map(|key| &report[key]);
    assert_eq!(counts.map(|count| count.as_u64()), [Some(1); 5], "{report}");
    assert_eq!(report["unknown"][0], "nobody-knows");

    for (server, begun) in replicas.iter().zip(&begun) {
        until("delta 1", || async { serving(server).await.1 == 1 }).await;
        let (version, _, refusal, since) = serving(server).await;
        assert_eq!((&version, since), (&begun.0, begun.1), "no swap");
        assert_eq!(refusal, "");
    }
    for exact in [false, true] {
        let (delta, near) = similar(&replicas[0], "brand-new", 50, exact).await;
        assert_eq!(delta, 1, "served_by names it");
        // Heard by the same listeners: next to each other.
        assert!(ids(&near)[..3].contains(&like.as_str()), "{:?}", ids(&near));
        assert!(!ids(&near).contains(&gone.as_str()));
        let renamed = near.iter().find(|item| item.item_id == like).expect("near");
        assert_eq!(
            (&*renamed.title, renamed.source()),
            ("Renamed", ResultSource::Delta)
        );
        let (_, back) = similar(&replicas[0], &like, 20, exact).await;
        let new = back
            .iter()
            .find(|item| item.item_id == "brand-new")
            .expect("near");
        assert_eq!((&*new.title, &*new.artist), ("A Debut", "The Newcomers"));
        let distinct: BTreeSet<&str> = ids(&back).into_iter().collect();
        assert_eq!(distinct.len(), 20, "nothing twice");
        assert_eq!(
            similar(&replicas[1], &like, 20, exact).await.1,
            back,
            "replicas agree"
        );
    }
    let now = popular(&replicas[0], 20).await;
    assert!(
        !ids(&now).contains(&gone.as_str()) && now.len() == 20,
        "{:?}",
        ids(&now)
    );
    // As popular as the one that it is like.
    assert!(ids(&now)[..3].contains(&"brand-new"), "{:?}", ids(&now));
    assert_eq!(popular(&replicas[1], 20).await, now);

    // The same again says nothing new; what was taken down comes back only when asked for.
    let again = freshen();
    assert_eq!(
        (&again["published"], &again["delta"]),
        (&false.into(), &1.into()),
        "{again}"
    );
    let returns = home.path().join("returns.txt");
    fs_err::write(&returns, format!("{gone}\n")).expect("written");
    ok([
        "freshen",
        "--store",
        arg(&store),
        "--restore",
        arg(&returns),
    ]);
    until("delta 2", || async { serving(&replicas[0]).await.1 == 2 }).await;
    assert!(ids(&popular(&replicas[0], 20).await).contains(&gone.as_str()));
    let listed = document(&ok(["versions", "--json", "--store", arg(&store)]));
    assert_eq!(listed["versions"][0]["delta"], 2);
}

/// A damaged delta is refused and said; what served goes on. A server that starts has all deltas.
#[tokio::test]
async fn a_damaged_delta_changes_nothing() {
    let catalogue = Catalogue::shared();
    let home = catalogue.store();
    let store = home.path().join("store");
    let server = Server::start(home.path());
    let (version, ..) = serving(&server).await;
    let top = popular(&server, 2).await;
    ok([
        "freshen",
        "--store",
        arg(&store),
        "--remove-item",
        &top[0].item_id,
    ]);
    until("delta 1", || async { serving(&server).await.1 == 1 }).await;
    let dir = store.join("deltas").join(version);
    let mut bytes = fs_err::read(dir.join("00000001.rfs")).expect("there");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs_err::write(dir.join("00000002.rfs"), bytes).expect("written");
    until("a refusal", || async {
        serving(&server).await.2.contains("00000002.rfs")
    })
    .await;
    assert_eq!(serving(&server).await.1, 1);
    fs_err::remove_file(dir.join("00000002.rfs")).expect("removed");
    until("all is well", || async {
        serving(&server).await.2.is_empty()
    })
    .await;
    server.kill();
    let server = Server::start(home.path());
    assert_eq!(serving(&server).await.1, 1, "from the first answer on");
    assert_ne!(popular(&server, 1).await[0].item_id, top[0].item_id);
}

/// SIGKILL at moments all along: the store is whole, and the next run completes it.
#[test]
fn a_killed_freshen_leaves_no_half() {
    let catalogue = Catalogue::shared();
    let home = catalogue.store();
    let store = home.path().join("store");
    let top: Vec<String> = {
        let dir = catalogue.listens();
        let text = fs_err::read_to_string(dir).expect("the generated log");
        let item = |line: &str| line.split(',').nth(1).map(str::to_owned);
        let all: BTreeSet<String> = text.lines().skip(1).filter_map(item).collect();
        all.into_iter().take(12).collect()
    };
    let mut published = 0;
    for (n, id) in (0_u64..).zip(&top) {
        let mut child = Command::new(binary())
            .args(["freshen", "--store", arg(&store), "--remove-item", id])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the binary starts");
        std::thread::sleep(Duration::from_millis(3 * n * n));
        drop(child.kill());
        child.wait().expect("ended");
        let list = document(&ok(["versions", "--json", "--store", arg(&store)]));
        let there = list["versions"][0]["delta"].as_u64().expect("a number");
        assert!(
            (published..=published + 1).contains(&there),
            "{there} after {published}"
        );
        let args = [
            "freshen",
            "--json",
            "--store",
            arg(&store),
            "--remove-item",
            id,
        ];
        let out = run(args);
        assert!(out.status.success(), "{}", stderr(&out));
        let report = document(&String::from_utf8(out.stdout).expect("UTF-8"));
        published += 1;
        assert_eq!(report["delta"].as_u64(), Some(published), "{report}");
    }
    let staging = store.join("staging");
    ok(["gc", "--store", arg(&store)]);
    assert!(staging.is_dir());
    ok(["verify", "stable", "--store", arg(&store)]);
}
