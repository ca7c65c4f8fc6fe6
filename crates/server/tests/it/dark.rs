//! What is computed in the dark, what is drawn, and why variants differ.

use arrow_array::Array as _;
use prost::Message as _;
use refrain::v1;
use refrain::v1::experiment_service_client::ExperimentServiceClient;
use refrain::v1::recommend_request::Subject;
use refrain::v1::recommendation_service_client::RecommendationServiceClient;
use refrain_ranking::Variants;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::exposures::{read, recommend, texts};
use crate::fixture::{Running, World, vector};

const VARIANTS: &str = "
[variant.plain]
score = 'similarity'
[variant.balanced]
score = 'similarity + 0.5 * popularity'
max_per_artist = 1
[variant.curious]
score = 'similarity'
[variant.curious.exploration]
temperature = 0.3
";

pub(crate) fn ask(n: u64, variant: &str) -> v1::RecommendRequest {
    v1::RecommendRequest {
        request_id: format!("request {n}"),
        subject: Some(Subject::Vector(v1::Vector {
            values: vector(77, usize::try_from(n).expect("small")),
            ..Default::default()
        })),
        page_size: Some(10),
        ranking: Some(v1::Ranking {
            variant_override: variant.to_owned(),
            ..Default::default()
        }),
        ..Default::default()
    }
}

pub(crate) async fn metrics(server: &Running) -> String {
    let mut stream = tokio::net::TcpStream::connect(server.admin)
        .await
        .expect("connects");
    let request = "GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await.expect("sends");
    let mut text = String::new();
    stream.read_to_string(&mut text).await.expect("reads");
    text
}

/// The same requests to a server that computes every answer in the dark as well and to one that does
/// not: the same bytes; and what was computed is counted.
#[tokio::test]
async fn the_dark_changes_no_byte_of_an_answer() {
    let mut bytes = Vec::new();
    for share_bp in [0, 10_000] {
        let world = World::new();
        world.publish(1);
        let mut config = world.config();
        config.variants = Variants::from_toml(VARIANTS).expect("valid");
        config.shadow.variant = Some("balanced".to_owned());
        config.shadow.share_bp = share_bp;
        // On a machine that others use, the dark has its turn late.
        config.shadow.timeout_ms = 60_000;
        let server = Running::start(config).await;
        let mut client = RecommendationServiceClient::new(server.channel.clone());
        let mut answers = Vec::new();
        for n in 0..30 {
            let answer = client.recommend(ask(n, "plain")).await.expect("an answer");
            answers.push(answer.into_inner().encode_to_vec());
        }
        bytes.push(answers);
        let compared = "refrain_shadow_total{outcome=\"compared\"} 30";
        let dark = share_bp > 0;
        for _ in 0..6_000 {
            if !dark || metrics(&server).await.contains(compared) {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        let text = metrics(&server).await;
        assert_eq!(text.contains(compared), dark, "{text}");
        assert_eq!(text.contains("refrain_shadow_overlap_count 30"), dark);
        // The lists differ, or the comparison would have nothing to find.
        assert_eq!(
            text.contains("refrain_shadow_overlap_bucket{le=\"0.9\"} 0"),
            !dark
        );
        server.stop().await.expect("drains");
    }
    assert_eq!(bytes[0], bytes[1]);
}

/// A shadow experiment on a server that has no time for it: each of its requests has a row that says so.
#[tokio::test]
async fn a_list_that_was_not_computed_is_a_row_without_values() {
    let world = World::new();
    world.publish(1);
    let log = world.dir.path().join("log");
    let mut config = world.config();
    config.variants = Variants::from_toml(VARIANTS).expect("valid");
    let experiments = "
[layer.l]
epoch = 1
[surface.default]
layer = 'l'
variant = 'plain'
[experiment.dark]
kind = 'shadow'
layer = 'l'
epoch = 1
allocation_bp = 10000
[[experiment.dark.arm]]
name = 'balanced'
variant = 'balanced'
";
    config.experiments = refrain_experiments::Config::from_toml(experiments).expect("valid");
    config.exposures.path = Some(log.clone());
    config.shadow.threads = 0;
    let server = Running::start(config).await;
    let mut client = RecommendationServiceClient::new(server.channel.clone());
    for n in 0..20 {
        let request = recommend(&format!("u{n}"), &format!("r{n}"));
        client.recommend(request).await.expect("an answer");
    }
    server.stop().await.expect("drains");
    let rows = read(&log, "shadow");
    let errors = texts(&rows, "error");
    assert_eq!(errors, vec!["dropped: closed"; 20]);
    assert_eq!(texts(&rows, "arm"), vec!["balanced"; 20]);
    for batch in &rows {
        for column in ["overlap", "rbo", "latency_us", "ids_hash"] {
            let column = batch.column_by_name(column).expect("there");
            assert_eq!(column.null_count(), batch.num_rows());
        }
    }
}

#[tokio::test]
async fn the_same_request_id_draws_the_same_list_and_another_another() {
    let world = World::new();
    world.publish(1);
    let mut config = world.config();
    config.variants = Variants::from_toml(VARIANTS).expect("valid");
    let server = Running::start(config).await;
    let mut client = RecommendationServiceClient::new(server.channel.clone());
    let mut lists = Vec::new();
    for id in ["a", "a", "b", "", ""] {
        let request = v1::RecommendRequest {
            request_id: id.to_owned(),
            ..ask(1, "curious")
        };
        let answer = client
            .recommend(request)
            .await
            .expect("an answer")
            .into_inner();
        let ids: Vec<_> = answer.results.into_iter().map(|r| r.item_id).collect();
        lists.push(ids);
    }
    assert_eq!(lists[0], lists[1]);
    assert_ne!(lists[0], lists[2]);
    assert_ne!(lists[3], lists[4]);
    server.stop().await.expect("drains");
}

#[tokio::test]
async fn a_comparison_says_what_moved_and_why() {
    let world = World::new();
    world.publish(1);
    let mut config = world.config();
    config.variants = Variants::from_toml(VARIANTS).expect("valid");
    let server = Running::start(config).await;
    let mut client = ExperimentServiceClient::new(server.channel.clone());
    let answer = client
        .compare_variants(v1::CompareVariantsRequest {
            request: Some(ask(3, "")),
            variants: vec!["plain".to_owned(), "balanced".to_owned()],
        })
        .await
        .expect("an answer")
        .into_inner();
    let [plain, other] = answer.variants.as_slice() else {
        panic!("{answer:?}");
    };
    assert_eq!((plain.overlap, plain.moves.len()), (1.0, 0));
    assert!(other.overlap < 1.0 && !other.moves.is_empty());
    let place = |list: &v1::VariantResult, id: &str| {
        let at = list.results.iter().position(|r| r.item_id == id);
        at.map_or(0, |at| u32::try_from(at + 1).expect("small"))
    };
    for step in &other.moves {
        assert_eq!(step.from, place(plain, &step.item_id));
        assert_eq!(step.to, place(other, &step.item_id));
        assert_ne!(step.reason(), v1::MoveReason::Unspecified);
    }
    let by_score = |step: &&v1::Move| step.feature == "popularity" && step.change > 0.0;
    assert!(
        other.moves.iter().filter(by_score).count() > 0,
        "{:?}",
        other.moves
    );
    let counted: u32 = other.artists.iter().map(|group| group.items).sum();
    assert_eq!((counted, other.distinct_artists), (10, 10));
    // This version knows no scenes.
    assert!(other.scenes.is_empty());
    server.stop().await.expect("drains");
}
