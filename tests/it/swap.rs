//! Versions change under load without an error and without a mixed answer.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use refrain::v1::recommend_request::Subject;
use refrain::v1::similar_request::Query;
use refrain::v1::{
    GetServingRequest, RecommendRequest, RollbackRequest, Seed, Seeds, SimilarRequest,
    SimilarResponse, Vector, seed,
};
use tokio::sync::oneshot;
use tokio_stream::StreamExt as _;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

use crate::support::{Server, arg, ok, publish, until};

const DIM: usize = 16;
const ITEMS: usize = 400;
const IN_FLIGHT: usize = 64;
const VERSIONS: usize = 10;

/// A version whose every item id begins with its own name, so that an answer shows where it came from.
fn tiny_version(home: &Path, n: usize) -> PathBuf {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(n as u64 + 1);
    let mut values = Vec::with_capacity(ITEMS * DIM * 4);
    for _ in 0..ITEMS * DIM {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let unit = (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5;
        values.extend_from_slice(&unit.to_le_bytes());
    }
    let mut header =
        format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({ITEMS}, {DIM}), }}");
    while (10 + header.len() + 1) % 64 != 0 {
        header.push(' ');
    }
    header.push('\n');
    let mut npy = b"\x93NUMPY\x01\x00".to_vec();
    npy.extend_from_slice(&u16::try_from(header.len()).expect("short").to_le_bytes());
    npy.extend_from_slice(header.as_bytes());
    npy.extend_from_slice(&values);
    let vectors = home.join(format!("vectors-{n}.npy"));
    fs_err::write(&vectors, npy).expect("written");
    let ids = home.join(format!("ids-{n}.txt"));
    let lines: Vec<String> = (0..ITEMS).map(|i| format!("v{n}-{i}")).collect();
    fs_err::write(&ids, lines.join("\n")).expect("written");
    let bundle = home.join(format!("bundle-{n}"));
    ok([
        "build",
        "--vectors",
        arg(&vectors),
        "--ids",
        arg(&ids),
        "--metric",
        "cosine",
        "--out",
        arg(&bundle),
    ]);
    bundle
}

/// Prefixes of the ids in an answer: one, or it was mixed.
fn sources(ids: impl Iterator<Item = String>) -> BTreeSet<String> {
    ids.map(|id| id.split('-').next().expect("prefix").to_owned())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_publishes_and_rollbacks_cost_no_request() {
    let home = tempfile::tempdir().expect("temporary folder");
    let store = home.path().join("store");
    let bundles: Vec<PathBuf> = (0..VERSIONS)
        .map(|n| tiny_version(home.path(), n))
        .collect();
    publish(&bundles[0], &store);
    let server = Server::start(home.path());
    let stop = Arc::new(AtomicBool::new(false));
    let answered = Arc::new(AtomicU64::new(0));
    let mut load = Vec::new();
    let channel = server.channel().await;
    for task in 0..IN_FLIGHT {
        let mut client =
            refrain::v1::recommendation_service_client::RecommendationServiceClient::new(
                channel.clone(),
            );
        let (stop, answered) = (stop.clone(), answered.clone());
        load.push(tokio::spawn(async move {
            let vector = Vector {
                values: vec![0.25; DIM],
                ..Vector::default()
            };
            let mut seen = BTreeSet::new();
            while !stop.load(Ordering::Relaxed) {
                let (ids, version) = if task % 2 == 0 {
                    let request = SimilarRequest {
                        query: Some(Query::Vector(vector.clone())),
                        page_size: Some(10),
                        ..SimilarRequest::default()
                    };
                    let a = client
                        .similar(request)
                        .await
                        .expect("no request fails")
                        .into_inner();
                    (a.results, a.served_by)
                } else {
                    let seed = Seed {
                        seed: Some(seed::Seed::Vector(vector.clone())),
                        weight: None,
                    };
                    let request = RecommendRequest {
                        subject: Some(Subject::Seeds(Seeds {
                            positive: vec![seed],
                            ..Seeds::default()
                        })),
                        page_size: Some(10),
                        ..RecommendRequest::default()
                    };
                    let a = client
                        .recommend(request)
                        .await
                        .expect("no request fails")
                        .into_inner();
                    (a.results, a.served_by)
                };
                assert_eq!(ids.len(), 10);
                let from = sources(ids.into_iter().map(|r| r.item_id));
                assert_eq!(from.len(), 1, "an answer mixes versions: {from:?}");
                let version = version.expect("served_by").version;
                seen.insert((version, from.into_iter().next().expect("one")));
                answered.fetch_add(1, Ordering::Relaxed);
            }
            seen
        }));
    }

    let mut index = server.index().await;
    let serving = |index: &mut refrain::v1::index_service_client::IndexServiceClient<_>| {
        let mut index = index.clone();
        async move {
            let now = index
                .get_serving(GetServingRequest {})
                .await
                .expect("serving")
                .into_inner();
            now.serving[0].version.clone()
        }
    };
    let mut moves = 0;
    for bundle in bundles.iter().skip(1).chain(&bundles[..1]) {
        let before = serving(&mut index).await;
        publish(bundle, &store);
        until("the published version serves", || async {
            serving(&mut index.clone()).await != before
        })
        .await;
        let published = serving(&mut index).await;
        index
            .rollback(RollbackRequest::default())
            .await
            .expect("rolled back");
        until("the version before serves", || async {
            serving(&mut index.clone()).await == before
        })
        .await;
        // Forward again, so that the next publish is a move.
        publish(bundle, &store);
        until("the published version serves again", || async {
            serving(&mut index.clone()).await == published
        })
        .await;
        moves += 2;
    }
    assert!(moves >= 20);
    // Load goes on after the last move.
    let at = answered.load(Ordering::Relaxed);
    until("answers from the last version", || async {
        answered.load(Ordering::Relaxed) > at + 100
    })
    .await;
    stop.store(true, Ordering::Relaxed);

    let mut seen = BTreeSet::new();
    for task in load {
        seen.extend(
            task.await
                .expect("no request failed and no answer was mixed"),
        );
    }
    // One version, one set of ids: `served_by` tells the truth.
    let versions: BTreeSet<_> = seen.iter().map(|(v, _)| v).collect();
    assert_eq!(versions.len(), seen.len(), "{seen:?}");
    assert_eq!(versions.len(), VERSIONS, "every version answered: {seen:?}");
    assert_eq!(server.terminate(), Some(0));
}

/// Asks, and sends what it asks only when it is told: until then the server has a request that it began and
/// cannot finish.
async fn ask_late(
    channel: Channel,
    message: oneshot::Receiver<SimilarRequest>,
) -> Result<Response<SimilarResponse>, Status> {
    let mut client = Grpc::new(channel);
    client.ready().await.expect("connected");
    // On the wire, a stream of one message is what a single one is.
    let message = tokio_stream::once(message).then(|sent| async { sent.await.expect("sent") });
    let path = PathAndQuery::from_static("/refrain.v1.RecommendationService/Similar");
    client
        .client_streaming(Request::new(message), path, ProstCodec::default())
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_server_finishes_what_it_began() {
    let home = tempfile::tempdir().expect("temporary folder");
    publish(&tiny_version(home.path(), 0), &home.path().join("store"));
    let server = Server::start(home.path());
    let channel = server.channel().await;
    let (messages, answers): (Vec<_>, Vec<_>) = (0..IN_FLIGHT)
        .map(|_| {
            let (message, late) = oneshot::channel();
            (message, tokio::spawn(ask_late(channel.clone(), late)))
        })
        .unzip();
    until("every request has begun", || async {
        server.metric("refrain_requests_in_flight").await == IN_FLIGHT as u64
    })
    .await;
    server.signal();
    until("the server takes no more", || async {
        let connected = tokio::net::TcpStream::connect(server.listen()).await;
        connected.is_err()
    })
    .await;
    for message in messages {
        let request = SimilarRequest {
            query: Some(Query::ItemId("v0-1".into())),
            page_size: Some(10),
            ..SimilarRequest::default()
        };
        message.send(request).expect("somebody waits");
    }
    for answer in answers {
        let answer = answer.await.expect("no panic");
        let answer = answer.expect("nothing begun is dropped").into_inner();
        assert_eq!(answer.results.len(), 10);
    }
    assert_eq!(server.ended(), Some(0));
}
