//! What is answered.

use refrain::v1;
use refrain::v1::experiment_service_client::ExperimentServiceClient;
use refrain::v1::recommend_request::Subject;
use refrain::v1::recommendation_service_client::RecommendationServiceClient;
use refrain::v1::similar_request::Query;
use refrain::v1::taste_profile_service_client::TasteProfileServiceClient;

use crate::fixture::{ITEMS, World, item, play, vector};

fn ids(results: &[v1::Result]) -> Vec<&str> {
    results
        .iter()
        .map(|result| result.item_id.as_str())
        .collect()
}

#[tokio::test]
async fn similar_is_exact_search_in_order() {
    let world = World::new();
    let version = world.publish(1);
    let server = world.serve().await;
    let mut client = RecommendationServiceClient::new(server.channel.clone());
    let query = vector(9, 9);
    let answer = client
        .similar(v1::SimilarRequest {
            query: Some(Query::Vector(v1::Vector {
                values: query.clone(),
                ..Default::default()
            })),
            page_size: Some(10),
            ..Default::default()
        })
        .await
        .expect("an answer")
        .into_inner();
    // Item 0 is blocked; of 200 items at this width the graph finds the true ten.
    let mut expected: Vec<(f32, usize)> = (1..ITEMS)
        .map(|at| {
            (
                vector(1, at).iter().zip(&query).map(|(a, b)| a * b).sum(),
                at,
            )
        })
        .collect();
    expected.sort_by(|a, b| b.0.total_cmp(&a.0));
    let expected: Vec<String> = expected[..10].iter().map(|&(_, at)| item(at)).collect();
    assert_eq!(ids(&answer.results), expected);
    assert_eq!(answer.results[0].title, "a title");
    assert_eq!(answer.served_by.expect("told").version, version);
    server.stop().await.expect("drains");
}

#[tokio::test]
async fn an_exclusion_holds_at_the_next_request_and_its_undo_is_exact() {
    let world = World::new();
    world.publish(1);
    let server = world.serve().await;
    let mut taste = TasteProfileServiceClient::new(server.channel.clone());
    let mut client = RecommendationServiceClient::new(server.channel.clone());
    let events = |contexts: &[&str]| {
        let all = (1..9).map(|at| play(at, at as i64, if at % 2 == 0 { "sleep" } else { "day" }));
        let kept = all.filter(|event| contexts.contains(&event.context.as_str()));
        kept.collect::<Vec<_>>()
    };
    for (user, contexts) in [("u", &["sleep", "day"][..]), ("day-only", &["day"][..])] {
        let request = v1::AppendEventsRequest {
            user_id: user.into(),
            events: events(contexts),
        };
        let again = request.clone();
        let first = taste
            .append_events(request)
            .await
            .expect("taken")
            .into_inner();
        assert_eq!((first.profile_revision, first.duplicates), (1, 0));
        let second = taste
            .append_events(again)
            .await
            .expect("taken")
            .into_inner();
        assert_eq!(
            (second.profile_revision, second.appended),
            (1, 0),
            "an append is idempotent"
        );
        assert_eq!(first.event_ids, second.event_ids);
    }
    let mut ask = async |user: &str, revision| {
        let request = v1::RecommendRequest {
            subject: Some(Subject::UserId(user.into())),
            page_size: Some(10),
            seen_policy: v1::SeenPolicy::Allow.into(),
            ranking: Some(v1::Ranking {
                variant_override: "plain".into(),
                ..Default::default()
            }),
            consistency: Some(v1::Consistency {
                min_profile_revision: revision,
                ..v1::Consistency::default()
            }),
            ..Default::default()
        };
        client
            .recommend(request)
            .await
            .expect("an answer")
            .into_inner()
    };
    let before = ask("u", 1).await;
    assert!(before.forced && !before.exposure_id.is_empty());
    let scope = v1::exclusion_scope::Scope::Context("sleep".into());
    let created = taste
        .create_exclusion(v1::CreateExclusionRequest {
            user_id: "u".into(),
            exclusion: Some(v1::Exclusion {
                scope: Some(v1::ExclusionScope { scope: Some(scope) }),
                ..Default::default()
            }),
        })
        .await
        .expect("made")
        .into_inner();
    let excluded = ask("u", created.profile_revision).await;
    assert_ne!(excluded.results, before.results);
    assert_eq!(
        excluded.results,
        ask("day-only", 1).await.results,
        "bit for bit as if never heard"
    );
    assert_eq!(excluded.profile.expect("read").events_excluded, 4);

    let rule_id = created.exclusion.expect("the rule").rule_id;
    let profile = taste
        .get_profile(v1::GetProfileRequest {
            user_id: "u".into(),
            max_events: Some(3),
            include_vector: true,
            ..Default::default()
        })
        .await
        .expect("a profile")
        .into_inner();
    assert_eq!(
        (profile.events, profile.events_excluded, profile.exclusions),
        (8, 4, 1)
    );
    let newest: Vec<_> = profile
        .newest_events
        .iter()
        .map(|e| (e.weight, e.rule_id.as_str()))
        .collect();
    assert_eq!(
        newest,
        [(0.0, rule_id.as_str()), (1.0, ""), (0.0, rule_id.as_str())]
    );
    assert!(profile.vector.is_some());

    let gone = v1::DeleteExclusionRequest {
        user_id: "u".into(),
        rule_id,
        allow_missing: false,
    };
    let deleted = taste
        .delete_exclusion(gone)
        .await
        .expect("gone")
        .into_inner();
    assert_eq!(
        ask("u", deleted.profile_revision).await.results,
        before.results
    );
    server.stop().await.expect("drains");
}

#[tokio::test]
async fn exclusions_are_listed_in_pages() {
    let world = World::new();
    world.publish(1);
    let server = world.serve().await;
    let mut taste = TasteProfileServiceClient::new(server.channel.clone());
    for at in 0..5 {
        let scope = v1::exclusion_scope::Scope::ItemId(item(at));
        let exclusion = v1::Exclusion {
            rule_id: format!("rule-{at}"),
            scope: Some(v1::ExclusionScope { scope: Some(scope) }),
            ..Default::default()
        };
        let request = v1::CreateExclusionRequest {
            user_id: "u".into(),
            exclusion: Some(exclusion),
        };
        taste.create_exclusion(request).await.expect("made");
    }
    let (mut found, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = v1::ListExclusionsRequest {
            user_id: "u".into(),
            page_size: Some(2),
            page_token,
        };
        let page = taste
            .list_exclusions(request)
            .await
            .expect("a page")
            .into_inner();
        assert!(page.exclusions.len() <= 2);
        found.extend(page.exclusions.into_iter().map(|rule| rule.rule_id));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(found, ["rule-0", "rule-1", "rule-2", "rule-3", "rule-4"]);
    server.stop().await.expect("drains");
}

#[tokio::test]
async fn unknown_listeners_and_seeds_are_told() {
    let world = World::new();
    world.publish(1);
    let server = world.serve().await;
    let mut client = RecommendationServiceClient::new(server.channel.clone());
    let request = v1::RecommendRequest {
        subject: Some(Subject::UserId("nobody".into())),
        page_size: Some(5),
        ..Default::default()
    };
    let answer = client
        .recommend(request)
        .await
        .expect("an answer")
        .into_inner();
    assert_eq!(answer.results.len(), 5);
    assert!(
        answer
            .degraded
            .contains(&v1::DegradedReason::FallbackUsed.into())
    );
    assert!(
        !ids(&answer.results).contains(&"item-000"),
        "a blocked item is never shown"
    );

    let seed = |id: &str| v1::Seed {
        seed: Some(v1::seed::Seed::ItemId(id.into())),
        weight: None,
    };
    let seeds = v1::Seeds {
        positive: vec![seed("item-007"), seed("who?")],
        ..Default::default()
    };
    let request = v1::RecommendRequest {
        subject: Some(Subject::Seeds(seeds)),
        page_size: Some(5),
        ..Default::default()
    };
    let answer = client
        .recommend(request)
        .await
        .expect("an answer")
        .into_inner();
    assert_eq!(answer.unresolved_seeds, ["who?"]);
    assert_eq!(answer.results.len(), 5);
    assert!(
        !ids(&answer.results).contains(&"item-007"),
        "a seed does not come back"
    );
    let served_by = answer.served_by.expect("told");
    assert_eq!(
        (served_by.experiment.as_str(), served_by.variant.as_str()),
        ("", "plain")
    );
    server.stop().await.expect("drains");
}

#[tokio::test]
async fn variants_are_compared_on_one_version() {
    let world = World::new();
    let version = world.publish(1);
    let server = world.serve().await;
    let mut client = ExperimentServiceClient::new(server.channel.clone());
    let inline = v1::InlineProfile {
        events: (1..5).map(|at| play(at, 0, "")).collect(),
    };
    let request = v1::RecommendRequest {
        subject: Some(Subject::Profile(inline)),
        page_size: Some(10),
        ..Default::default()
    };
    let variants = vec!["plain".to_owned(), "balanced".to_owned()];
    let request = v1::CompareVariantsRequest {
        request: Some(request),
        variants,
    };
    let answer = client
        .compare_variants(request)
        .await
        .expect("an answer")
        .into_inner();
    assert_eq!(answer.served_by.expect("told").version, version);
    assert_eq!(answer.variants.len(), 2);
    assert_eq!(
        (answer.variants[0].overlap, answer.variants[0].results.len()),
        (1.0, 10)
    );
    assert!((answer.variants[0].rank_biased_overlap - 1.0).abs() < 1e-12);
    assert!(
        answer.variants[1].distinct_artists >= 5,
        "two of an artist at most"
    );
    let missing = v1::DegradedReason::FeatureMissing.into();
    assert!(
        answer.variants[1].degraded.contains(&missing),
        "no item has a release time"
    );
    server.stop().await.expect("drains");
}
