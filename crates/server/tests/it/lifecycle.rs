//! Starting, swapping, draining.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use refrain::v1;
use refrain::v1::index_service_client::IndexServiceClient;
use refrain::v1::recommendation_service_client::RecommendationServiceClient;
use refrain::v1::similar_request::Query;
use refrain_server::{App, StartError};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tonic::Code;
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::fixture::{Running, World, vector};

async fn serving(channel: &Channel) -> v1::Serving {
    let answer = IndexServiceClient::new(channel.clone())
        .get_serving(v1::GetServingRequest {})
        .await;
    answer.expect("an answer").into_inner().serving.remove(0)
}

/// Asks until `done`; the test runner's own limit ends what never comes.
async fn until(channel: &Channel, done: impl Fn(&v1::Serving) -> bool) -> v1::Serving {
    loop {
        let now = serving(channel).await;
        if done(&now) {
            return now;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn health(channel: &Channel, service: &str) -> ServingStatus {
    let request = HealthCheckRequest {
        service: service.into(),
    };
    let answer = HealthClient::new(channel.clone())
        .check(request)
        .await
        .expect("an answer");
    answer.into_inner().status()
}

fn nearest(seed: u64) -> v1::SimilarRequest {
    let vector = v1::Vector {
        values: vector(seed, 7),
        ..Default::default()
    };
    v1::SimilarRequest {
        query: Some(Query::Vector(vector)),
        page_size: Some(10),
        ..Default::default()
    }
}

async fn page(server: &Running, path: &str) -> String {
    let mut stream = tokio::net::TcpStream::connect(server.admin)
        .await
        .expect("connects");
    let request = format!("GET {path} HTTP/1.1\r\nHost: refrain\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut text = String::new();
    stream.read_to_string(&mut text).await.expect("an answer");
    text
}

#[tokio::test]
async fn a_first_version_is_waited_for() {
    let world = World::new();
    fs_err::create_dir(world.dir.path().join("store")).expect("an empty store");
    let server = world.serve().await;
    assert_eq!(health(&server.channel, "").await, ServingStatus::NotServing);
    assert!(page(&server, "/readyz").await.starts_with("HTTP/1.1 503"));
    let mut client = RecommendationServiceClient::new(server.channel.clone());
    let status = client.similar(nearest(1)).await.expect_err("nothing yet");
    assert_eq!(status.code(), Code::Unavailable);

    let version = world.publish(1);
    until(&server.channel, |now| now.version == version).await;
    client.similar(nearest(1)).await.expect("an answer");
    // The health service and the metrics are told right after the swap.
    while health(&server.channel, "stable").await != ServingStatus::Serving {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert_eq!(health(&server.channel, "").await, ServingStatus::Serving);
    assert!(page(&server, "/readyz").await.starts_with("HTTP/1.1 200"));
    let info = format!("refrain_index_info{{label=\"stable\",version=\"{version}\"}} 1");
    let mut metrics = page(&server, "/metrics").await;
    while !metrics.contains(&info) {
        tokio::time::sleep(Duration::from_millis(2)).await;
        metrics = page(&server, "/metrics").await;
    }
    assert!(
        metrics.contains("refrain_requests_total{method=\"Similar\",code=\"UNAVAILABLE\"} 1"),
        "{metrics}"
    );
    server.stop().await.expect("drains");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn swaps_drop_no_request_and_mix_no_versions() {
    let world = World::new();
    let (first, second) = (world.publish(1), world.publish(2));
    let server = world.serve().await;
    let mut client = RecommendationServiceClient::new(server.channel.clone());
    let mut expected = Vec::new();
    let mut index = IndexServiceClient::new(server.channel.clone());
    let mut point = async |version: &str| {
        let request = v1::SetLabelRequest {
            label: "stable".into(),
            version: version.into(),
            etag: String::new(),
        };
        index.set_label(request).await.expect("moved");
        until(&server.channel, |now| now.version == version).await;
    };
    for version in [&first, &second] {
        point(version).await;
        let answer = client
            .similar(nearest(1))
            .await
            .expect("an answer")
            .into_inner();
        expected.push((version.clone(), answer.results));
    }
    assert_ne!(expected[0].1, expected[1].1);
    let (expected, stop) = (Arc::new(expected), Arc::new(AtomicBool::new(false)));
    let askers: Vec<_> = (0..8)
        .map(|_| {
            let (mut client, expected, stop) = (client.clone(), expected.clone(), stop.clone());
            tokio::spawn(async move {
                let mut asked = 0;
                while !stop.load(Ordering::Relaxed) {
                    let answer = client
                        .similar(nearest(1))
                        .await
                        .expect("no request is dropped");
                    let answer = answer.into_inner();
                    let version = answer.served_by.expect("told").version;
                    let whole = expected
                        .iter()
                        .any(|(id, list)| *id == version && *list == answer.results);
                    assert!(whole, "an answer that is not wholly of {version}");
                    asked += 1;
                }
                asked
            })
        })
        .collect();
    for _ in 0..10 {
        point(&first).await;
        point(&second).await;
    }
    let rolled_back = IndexServiceClient::new(server.channel.clone())
        .rollback(v1::RollbackRequest::default())
        .await
        .expect("rolled back")
        .into_inner();
    assert_eq!(rolled_back.label.expect("the label").version, first);
    let now = until(&server.channel, |now| now.version == first).await;
    assert_eq!(now.resident, [first, second], "both stay mapped");
    stop.store(true, Ordering::Relaxed);
    for asker in askers {
        assert!(asker.await.expect("no panic") > 0);
    }
    server.stop().await.expect("drains");
}

#[tokio::test]
async fn a_corrupt_version_is_refused_and_the_old_one_goes_on() {
    let world = World::new();
    let first = world.publish(1);
    let server = world.serve().await;
    world
        .store()
        .set_label("stable", &first, None, "a test")
        .expect("stays");
    let second = world.publish(2);
    until(&server.channel, |now| now.version == second).await;
    let third = {
        // Damaged before the server sees it: the label moves only then.
        let before = world
            .store()
            .label("stable")
            .expect("readable")
            .expect("there");
        let third = world.publish(3);
        world
            .store()
            .set_label("stable", &before.version, None, "a test")
            .expect("back");
        third
    };
    until(&server.channel, |now| now.version == second).await;
    drop(server.stop().await);

    flip_a_byte(&world.store().path(&third).expect("there").join("index.rfs"));
    let server = world.serve().await;
    world
        .store()
        .set_label("stable", &third, None, "a test")
        .expect("moved");
    let now = until(&server.channel, |now| {
        now.wanted == third && !now.refusal.is_empty()
    })
    .await;
    assert_eq!(now.version, second);
    assert!(now.refusal.contains("index.rfs"), "{}", now.refusal);
    let mut client = RecommendationServiceClient::new(server.channel.clone());
    let answer = client
        .similar(nearest(1))
        .await
        .expect("an answer")
        .into_inner();
    assert_eq!(answer.served_by.expect("told").version, second);
    server.stop().await.expect("drains");

    let error = App::start(world.config())
        .await
        .expect_err("refused at the start");
    assert!(
        matches!(&error, StartError::Version { version, .. } if *version == third),
        "{error}"
    );
}

#[tokio::test]
async fn a_store_that_vanishes_stops_nothing() {
    let world = World::new();
    let version = world.publish(1);
    let server = world.serve().await;
    let store = world.dir.path().join("store");
    fs_err::rename(&store, world.dir.path().join("elsewhere")).expect("moved away");
    let mut index = IndexServiceClient::new(server.channel.clone());
    let status = index
        .list_versions(v1::ListVersionsRequest::default())
        .await
        .expect_err("away");
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    let mut client = RecommendationServiceClient::new(server.channel.clone());
    let answer = client
        .similar(nearest(1))
        .await
        .expect("an answer")
        .into_inner();
    assert_eq!(answer.served_by.expect("told").version, version);
    server.stop().await.expect("drains");
}

#[tokio::test]
async fn what_keeps_a_server_from_starting_is_told() {
    let world = World::new();
    let error = App::start(world.config())
        .await
        .expect_err("no store")
        .to_string();
    assert!(
        error.contains("no such store") && error.contains("publish a version"),
        "{error}"
    );

    world.publish(1);
    let mut config = world.config();
    config.store.url = None;
    let error = App::start(config).await.expect_err("no store").to_string();
    assert!(error.contains("store.url is not set"), "{error}");

    let taken = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let mut config = world.config();
    config.server.listen = taken.local_addr().expect("bound");
    let error = App::start(config)
        .await
        .expect_err("a port in use")
        .to_string();
    assert!(
        error.contains("server.listen") && error.contains("another program has the port"),
        "{error}"
    );

    let server = world.serve().await;
    let error = App::start(world.config())
        .await
        .expect_err("one process")
        .to_string();
    assert!(
        error.contains("profiles.path") && error.contains("in use"),
        "{error}"
    );
    server.stop().await.expect("drains");
}

#[tokio::test]
async fn a_drain_ends_even_while_health_is_watched() {
    let world = World::new();
    world.publish(1);
    let server = world.serve().await;
    let request = HealthCheckRequest {
        service: String::new(),
    };
    let mut watch = HealthClient::new(server.channel.clone())
        .watch(request)
        .await
        .expect("a stream")
        .into_inner();
    let first = watch.message().await.expect("open").expect("a status");
    assert_eq!(first.status(), ServingStatus::Serving);
    let stopping = tokio::spawn(server.stop());
    let second = watch.message().await.expect("open").expect("a status");
    assert_eq!(second.status(), ServingStatus::NotServing);
    stopping.await.expect("no panic").expect("drains");
}

fn flip_a_byte(path: &std::path::Path) {
    let mut bytes = fs_err::read(path).expect("readable");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs_err::remove_file(path).expect("removed");
    fs_err::write(path, bytes).expect("written");
}
