//! Flags by OFREP are what `Assign` says, and a changed file takes effect without a restart.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use refrain::v1;
use refrain::v1::experiment_service_client::ExperimentServiceClient;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::fixture::{Running, World};

const TEXT: &str = r#"
[assignment]
reload_interval_ms = 10
[variant.plain]
score = "similarity"
[variant.bold]
score = "similarity"
[attribute.country]
type = "string"
[layer.ranking]
epoch = 1
[layer.ranking.params.alpha]
default = 0.0
min = 0.0
max = 1.0
[layer.ranking.params.title]
default = "For you"
[surface.default]
layer = "ranking"
variant = "plain"
[experiment.blend]
kind = "ab"
layer = "ranking"
epoch = 1
allocation_bp = 5000
targeting = 'country == "SE"'
[[experiment.blend.arm]]
name = "control"
variant = "plain"
[[experiment.blend.arm]]
name = "bold"
variant = "bold"
params = { alpha = 0.3 }
"#;

/// What the servers of this process say from now on, if it is an error.
fn said() -> Arc<Mutex<Vec<u8>>> {
    struct Listener(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Listener {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0
                .lock()
                .expect("not poisoned")
                .extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    let said = Arc::new(Mutex::new(Vec::new()));
    let writer = Arc::clone(&said);
    tracing_subscriber::fmt()
        .with_max_level(tracing::Level::ERROR)
        .with_ansi(false)
        .with_writer(move || Listener(Arc::clone(&writer)))
        .init();
    said
}

/// Status, headers and body.
async fn post(server: &Running, path: &str, headers: &str, body: &str) -> (u16, String, Value) {
    let mut stream = tokio::net::TcpStream::connect(server.admin)
        .await
        .expect("connects");
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n{headers}\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.expect("sends");
    let mut text = String::new();
    stream.read_to_string(&mut text).await.expect("reads");
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).expect("a status");
    let body = serde_json::from_str(body).unwrap_or(Value::Null);
    (status.parse().expect("a number"), head.to_owned(), body)
}

fn context(unit: &str) -> String {
    format!(r#"{{"context":{{"targetingKey":"{unit}","country":"SE"}}}}"#)
}

#[tokio::test]
async fn flags_are_what_assign_says() {
    let world = World::new();
    world.publish(1);
    let server = world.serve_text(TEXT).await;
    let mut client = ExperimentServiceClient::new(server.channel.clone());
    let mut arms = std::collections::BTreeMap::new();
    for n in 0..200 {
        let unit = format!("u{n}");
        let path = "/ofrep/v1/evaluate/flags/ranking.alpha";
        let (status, _, flag) = post(&server, path, "", &context(&unit)).await;
        assert_eq!(status, 200, "{flag}");
        let request = v1::AssignRequest {
            unit_id: unit,
            attributes: [("country".to_owned(), "SE".to_owned())].into(),
            ..v1::AssignRequest::default()
        };
        let assigned = client.assign(request).await.expect("assigns").into_inner();
        let assignment = assigned.assignment.expect("is there");
        let arm = if assignment.arm.is_empty() {
            "default"
        } else {
            &assignment.arm
        };
        assert_eq!(flag["variant"], arm);
        assert_eq!(flag["value"], if arm == "bold" { 0.3 } else { 0.0 });
        assert_eq!(
            flag["reason"],
            if arm == "default" { "STATIC" } else { "SPLIT" }
        );
        assert_eq!(flag["metadata"]["digest"], assigned.config_digest);
        *arms.entry(arm.to_owned()).or_insert(0) += 1;
    }
    assert!(
        arms.len() == 3 && arms.values().all(|&n| n > 20),
        "{arms:?}"
    );

    let (status, _, flag) = post(
        &server,
        "/ofrep/v1/evaluate/flags/ranking.beta",
        "",
        &context("u1"),
    )
    .await;
    assert_eq!(
        (status, &flag["errorCode"]),
        (404, &"FLAG_NOT_FOUND".into())
    );
    assert_eq!(flag["key"], "ranking.beta");
    let (status, _, flag) = post(&server, "/ofrep/v1/evaluate/flags/ranking.alpha", "", "{}").await;
    assert_eq!(
        (status, &flag["errorCode"]),
        (400, &"TARGETING_KEY_MISSING".into())
    );
    server.stop().await.expect("stops");
}

#[tokio::test]
async fn all_flags_have_a_tag_that_changes_with_what_they_say() {
    let world = World::new();
    world.publish(1);
    let server = world.serve_text(TEXT).await;
    let path = "/ofrep/v1/evaluate/flags";
    let (status, head, flags) = post(&server, path, "", &context("u1")).await;
    assert_eq!(status, 200);
    let keys: Vec<&str> = flags["flags"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|flag| flag["key"].as_str())
        .collect();
    assert_eq!(keys, ["ranking.alpha", "ranking.title"]);
    let tag = head
        .lines()
        .find_map(|line| line.strip_prefix("etag: "))
        .expect("a tag")
        .to_owned();
    let known = format!("if-none-match: {tag}\r\n");
    assert_eq!(post(&server, path, &known, &context("u1")).await.0, 304);

    // A change of the file is in force within moments; then the tag is another.
    let file = world.dir.path().join("refrain.toml");
    let changed = TEXT.replace("For you", "Made for you");
    fs_err::write(&file, &changed).expect("writable");
    let fresh = async || loop {
        let (status, _, flags) = post(&server, path, &known, &context("u1")).await;
        if status == 200 {
            return flags;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    let flags = tokio::time::timeout(Duration::from_secs(20), fresh())
        .await
        .expect("is reloaded");
    assert_eq!(flags["flags"][1]["value"], "Made for you");

    // One that is refused changes nothing; the metrics say so, and the log why and where.
    let said = said();
    fs_err::write(
        &file,
        changed.replace("allocation_bp = 5000", "allocation_bp = 50000"),
    )
    .expect("writable");
    let refused = async || {
        while !crate::dark::metrics(&server)
            .await
            .contains("refrain_policy_current 0")
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), refused())
        .await
        .expect("is looked at");
    let at = TEXT
        .lines()
        .position(|line| line.starts_with("allocation_bp"));
    let place = format!(
        "refrain.toml:{}: experiment.blend.allocation_bp",
        at.expect("there") + 1
    );
    // The log comes after the metrics, and a whole line at once.
    let logged = async || {
        loop {
            let text = said.lock().expect("not poisoned").clone();
            if !text.is_empty() {
                return text;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let text = tokio::time::timeout(Duration::from_secs(20), logged())
        .await
        .expect("is told");
    let text = String::from_utf8_lossy(&text);
    let refused = text.lines().find(|line| line.contains("is refused"));
    assert!(
        refused.is_some_and(|line| line.contains(&place)),
        "no {place} in {text}"
    );
    let (status, _, flags) = post(&server, path, "", &context("u1")).await;
    assert_eq!(
        (status, &flags["flags"][1]["value"]),
        (200, &"Made for you".into())
    );
    server.stop().await.expect("stops");
}

#[tokio::test]
async fn what_is_in_force_can_be_listed() {
    let world = World::new();
    world.publish(1);
    let text = format!(
        "{TEXT}{}",
        r#"
[layer.dark]
epoch = 4
[experiment.shade]
kind = "shadow"
layer = "dark"
epoch = 2
allocation_bp = 300
paused = true
[[experiment.shade.arm]]
name = "bold"
variant = "bold"
"#
    );
    let server = world.serve_text(&text).await;
    let mut client = ExperimentServiceClient::new(server.channel.clone());
    let all = client
        .list_experiments(v1::ListExperimentsRequest::default())
        .await
        .expect("an answer")
        .into_inner();
    assert!(all.enabled && all.config_digest.len() == 64);
    let layers = all.layers.iter();
    let layers: Vec<_> = layers.map(|l| (&*l.name, l.epoch, l.free_bp)).collect();
    assert_eq!(layers, [("dark", 4, 10_000), ("ranking", 1, 5_000)]);
    let [blend, shade] = all.experiments.as_slice() else {
        panic!("{all:?}");
    };
    assert_eq!(
        (&*blend.name, &*blend.kind, blend.allocation_bp),
        ("blend", "ab", 5_000)
    );
    assert!(blend.targeted && !blend.paused);
    let arms: Vec<_> = blend
        .arms
        .iter()
        .map(|a| (&*a.name, a.probability))
        .collect();
    assert_eq!(arms, [("control", 0.5), ("bold", 0.5)]);
    assert_eq!(
        (&*shade.layer, shade.epoch, shade.paused),
        ("dark", 2, true)
    );

    let mut of = async |layer: &str| {
        let layer = layer.to_owned();
        let request = v1::ListExperimentsRequest { layer };
        client.list_experiments(request).await
    };
    let dark = of("dark").await.expect("an answer").into_inner();
    assert_eq!((dark.experiments.len(), dark.layers.len()), (1, 1));
    let unknown = of("no").await.expect_err("no such layer");
    assert_eq!(unknown.code(), tonic::Code::NotFound);
    server.stop().await.expect("stops");
}
