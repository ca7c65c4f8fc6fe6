//! What is refused, with which code and details.

use std::time::Duration;

use refrain::v1;
use refrain::v1::experiment_service_client::ExperimentServiceClient;
use refrain::v1::index_selector::Target;
use refrain::v1::index_service_client::IndexServiceClient;
use refrain::v1::recommend_request::Subject;
use refrain::v1::recommendation_service_client::RecommendationServiceClient;
use refrain::v1::similar_request::Query;
use refrain::v1::taste_profile_service_client::TasteProfileServiceClient;
use tonic::{Code, Request, Status};
use tonic_types::StatusExt as _;

use crate::fixture::{DIM, World, item, play};

fn user(id: &str) -> v1::RecommendRequest {
    v1::RecommendRequest {
        subject: Some(Subject::UserId(id.into())),
        ..Default::default()
    }
}

fn near(values: Vec<f32>) -> v1::RecommendRequest {
    let vector = v1::Vector {
        values,
        ..Default::default()
    };
    v1::RecommendRequest {
        subject: Some(Subject::Vector(vector)),
        ..Default::default()
    }
}

/// The fields that a refusal names.
fn fields(status: &Status) -> Vec<String> {
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    let details = status.get_error_details();
    let violations = &details.bad_request().expect("BadRequest").field_violations;
    violations
        .iter()
        .map(|violation| violation.field.clone())
        .collect()
}

fn reason(status: &Status) -> String {
    let details = status.get_error_details();
    let info = details.error_info().expect("ErrorInfo");
    assert_eq!(info.domain, "refrain");
    info.reason.clone()
}

#[tokio::test]
async fn wrong_fields_are_named() {
    let world = World::new();
    world.publish(1);
    let server = world.serve().await;
    let mut client = RecommendationServiceClient::new(server.channel.clone());
    let long = "x".repeat(129);
    let seed = |weight| v1::Seed {
        seed: Some(v1::seed::Seed::ItemId(item(1))),
        weight: Some(weight),
    };
    let seeds = |positive| v1::RecommendRequest {
        subject: Some(Subject::Seeds(v1::Seeds {
            positive,
            ..Default::default()
        })),
        ..Default::default()
    };
    let mut not_a_number = vec![0.0; DIM];
    not_a_number[3] = f32::NAN;
    let inline = |event| v1::RecommendRequest {
        subject: Some(Subject::Profile(v1::InlineProfile {
            events: vec![event],
        })),
        ..Default::default()
    };
    let filter = |filter: v1::Filter| v1::RecommendRequest {
        filter: filter.into(),
        ..user("u")
    };
    let search = |search| v1::RecommendRequest {
        search: Some(search),
        ..user("u")
    };
    for (request, field) in [
        (v1::RecommendRequest::default(), "subject"),
        (user(""), "user_id"),
        (user(&long), "user_id"),
        (
            v1::RecommendRequest {
                request_id: long.clone(),
                ..user("u")
            },
            "request_id",
        ),
        (
            v1::RecommendRequest {
                page_size: Some(0),
                ..user("u")
            },
            "page_size",
        ),
        (
            v1::RecommendRequest {
                page_size: Some(1_001),
                ..user("u")
            },
            "page_size",
        ),
        (
            v1::RecommendRequest {
                seen_policy: 9,
                ..user("u")
            },
            "seen_policy",
        ),
        (
            v1::RecommendRequest {
                fallback: -1,
                ..user("u")
            },
            "fallback",
        ),
        (near(vec![0.5; DIM - 1]), "vector.values"),
        (near(Vec::new()), "vector.values"),
        (near(not_a_number), "vector.values[3]"),
        (seeds(Vec::new()), "seeds"),
        (seeds(vec![seed(1.0); 257]), "seeds"),
        (
            seeds(vec![seed(1.0), seed(0.0)]),
            "seeds.positive[1].weight",
        ),
        (seeds(vec![seed(f32::INFINITY)]), "seeds.positive[0].weight"),
        (seeds(vec![v1::Seed::default()]), "seeds.positive[0].seed"),
        (
            inline(v1::Event {
                kind: 0,
                ..play(1, 0, "")
            }),
            "profile.events[0].kind",
        ),
        (
            inline(v1::Event {
                kind: 99,
                ..play(1, 0, "")
            }),
            "profile.events[0].kind",
        ),
        (
            inline(v1::Event {
                count: Some(0),
                ..play(1, 0, "")
            }),
            "profile.events[0].count",
        ),
        (
            inline(v1::Event {
                item_id: String::new(),
                ..play(1, 0, "")
            }),
            "profile.events[0].item_id",
        ),
        (
            filter(v1::Filter {
                not_tags: vec!["t"; 65].into(),
                ..Default::default()
            }),
            "filter.not_tags",
        ),
        (
            filter(v1::Filter {
                exclude_item_ids: [&long].into(),
                ..Default::default()
            }),
            "filter.exclude_item_ids[0]",
        ),
        (
            search(v1::SearchParams {
                ef_search: Some(0),
                ..Default::default()
            }),
            "search.ef_search",
        ),
        (
            search(v1::SearchParams {
                ef_search: Some(10_001),
                ..Default::default()
            }),
            "search.ef_search",
        ),
        (
            search(v1::SearchParams {
                recall: Some(1.5),
                ..Default::default()
            }),
            "search.recall",
        ),
        (
            search(v1::SearchParams {
                ef_search: Some(64),
                recall: Some(0.9),
                ..Default::default()
            }),
            "search.recall",
        ),
        (
            search(v1::SearchParams {
                time_budget: Some(prost_types::Duration {
                    seconds: -1,
                    nanos: 0,
                }),
                ..Default::default()
            }),
            "search.time_budget",
        ),
    ] {
        let status = client
            .recommend(request.clone())
            .await
            .expect_err("refused");
        assert_eq!(fields(&status), [field], "{request:?}");
        assert!(status.message().contains(field), "{status}");
    }
    server.stop().await.expect("drains");
}

#[tokio::test]
async fn fields_of_a_compared_request_are_named_within_it() {
    let world = World::new();
    world.publish(1);
    let server = world.serve().await;
    let mut client = ExperimentServiceClient::new(server.channel.clone());
    let compare = |request| v1::CompareVariantsRequest {
        request,
        variants: Vec::new(),
    };
    let status = client
        .compare_variants(compare(None))
        .await
        .expect_err("refused");
    assert_eq!(fields(&status), ["request"]);
    let status = client
        .compare_variants(compare(Some(near(vec![0.0; 3]))))
        .await
        .expect_err("refused");
    assert_eq!(fields(&status), ["request.vector.values"]);
    let unknown = v1::CompareVariantsRequest {
        request: Some(user("u")),
        variants: vec!["no such".into()],
    };
    let status = client.compare_variants(unknown).await.expect_err("refused");
    assert_eq!(status.code(), Code::NotFound);
    server.stop().await.expect("drains");
}

#[tokio::test]
async fn what_is_not_there_is_named() {
    let world = World::new();
    world.publish(1);
    let server = world.serve().await;
    let mut client = RecommendationServiceClient::new(server.channel.clone());
    let target = |target| {
        Some(v1::IndexSelector {
            target: Some(target),
        })
    };

    let similar = v1::SimilarRequest {
        query: Some(Query::ItemId("no such".into())),
        ..Default::default()
    };
    let status = client.similar(similar).await.expect_err("refused");
    assert_eq!(status.code(), Code::NotFound);
    let details = status.get_error_details();
    let resource = details.resource_info().expect("ResourceInfo");
    assert_eq!(
        (
            resource.resource_type.as_str(),
            resource.resource_name.as_str()
        ),
        ("item", "no such")
    );

    let request = v1::RecommendRequest {
        index: target(Target::Label("canary".into())),
        ..user("u")
    };
    let status = client.recommend(request).await.expect_err("refused");
    assert_eq!(status.code(), Code::NotFound);

    let request = v1::RecommendRequest {
        index: target(Target::Version("v0".into())),
        ..user("u")
    };
    let status = client.recommend(request).await.expect_err("refused");
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::FailedPrecondition, "VERSION_NOT_RESIDENT")
    );

    let vector = v1::Vector {
        values: vec![0.5; DIM],
        model_version: "v0".into(),
    };
    let request = v1::RecommendRequest {
        subject: Some(Subject::Vector(vector)),
        ..Default::default()
    };
    let status = client.recommend(request).await.expect_err("refused");
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::FailedPrecondition, "MODEL_VERSION_MISMATCH")
    );

    let mut taste = TasteProfileServiceClient::new(server.channel.clone());
    let rule = v1::DeleteExclusionRequest {
        user_id: "u".into(),
        rule_id: "no".into(),
        allow_missing: false,
    };
    let status = taste
        .delete_exclusion(rule.clone())
        .await
        .expect_err("refused");
    assert_eq!(status.code(), Code::NotFound);
    let rule = v1::DeleteExclusionRequest {
        allow_missing: true,
        ..rule
    };
    taste.delete_exclusion(rule).await.expect("idempotent");

    let mut index = IndexServiceClient::new(server.channel.clone());
    let status = index
        .rollback(v1::RollbackRequest::default())
        .await
        .expect_err("refused");
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::FailedPrecondition, "NO_PREVIOUS_VERSION")
    );
    server.stop().await.expect("drains");
}

#[tokio::test]
async fn the_same_id_with_other_content_is_refused() {
    let world = World::new();
    world.publish(1);
    let server = world.serve().await;
    let mut taste = TasteProfileServiceClient::new(server.channel.clone());
    let append = |at| v1::AppendEventsRequest {
        user_id: "u".into(),
        events: vec![v1::Event {
            event_id: "e".into(),
            ..play(at, 0, "")
        }],
    };
    taste.append_events(append(1)).await.expect("taken");
    let status = taste.append_events(append(2)).await.expect_err("refused");
    assert_eq!(status.code(), Code::AlreadyExists);
    assert_eq!(
        status
            .get_error_details()
            .resource_info()
            .expect("ResourceInfo")
            .resource_name,
        "e"
    );
    server.stop().await.expect("drains");
}

#[tokio::test]
async fn a_revision_that_does_not_come_is_unavailable() {
    let world = World::new();
    world.publish(1);
    let server = world.serve().await;
    let mut client = RecommendationServiceClient::new(server.channel.clone());
    let consistency = Some(v1::Consistency {
        min_profile_revision: 7,
        ..v1::Consistency::default()
    });
    let request = v1::RecommendRequest {
        consistency,
        ..user("u")
    };
    let status = client.recommend(request).await.expect_err("refused");
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::Unavailable, "REVISION_NOT_REACHED")
    );
    assert!(status.get_error_details().retry_info().is_some());
    server.stop().await.expect("drains");
}

#[tokio::test]
async fn deadlines_and_sizes_are_bounded() {
    let world = World::new();
    world.publish(1);
    let server = world.serve().await;
    let mut client = RecommendationServiceClient::new(server.channel.clone());
    let mut request = Request::new(user("u"));
    request.set_timeout(Duration::from_secs(31));
    let status = client.recommend(request).await.expect_err("refused");
    assert_eq!(fields(&status), ["grpc-timeout"]);

    let huge = near(vec![0.5; (4 << 20) / 4 + 1]);
    let status = client.recommend(huge).await.expect_err("refused");
    assert_eq!(fields(&status), ["request"], "{status}");

    let mut unknown = tonic::client::Grpc::new(server.channel.clone());
    unknown.ready().await.expect("connected");
    let path = http::uri::PathAndQuery::from_static("/refrain.v1.IndexService/Nothing");
    let codec = tonic_prost::ProstCodec::<v1::GetServingRequest, v1::GetServingResponse>::default();
    let answer = unknown
        .unary(Request::new(v1::GetServingRequest {}), path, codec)
        .await;
    let status = answer.expect_err("refused");
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::Unimplemented, "UNIMPLEMENTED")
    );
    server.stop().await.expect("drains");
}

/// Bytes that are no message of the kind are refused as the request's fault, with the field, and the server goes on.
#[tokio::test]
async fn bytes_that_are_no_message_are_refused() {
    let world = World::new();
    world.publish(1);
    let server = world.serve().await;
    let mut raw = tonic::client::Grpc::new(server.channel.clone());
    raw.ready().await.expect("connected");
    let path = http::uri::PathAndQuery::from_static("/refrain.v1.RecommendationService/Recommend");
    // On the wire they are field 1, where a text is due.
    let codec = tonic_prost::ProstCodec::<Vec<u8>, v1::RecommendResponse>::default();
    let answer = raw.unary(Request::new(vec![0xff, 0xfe]), path, codec).await;
    let status = answer.expect_err("refused");
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    assert_eq!(fields(&status), ["request"]);
    assert!(
        status.message().contains("RecommendRequest.request_id"),
        "{status}"
    );
    let mut client = RecommendationServiceClient::new(server.channel.clone());
    client.recommend(user("u")).await.expect("an answer");
    server.stop().await.expect("drains");
}
