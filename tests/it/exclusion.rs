//! An exclusion holds for the very next request, exactly, and its undo is exact.

use refrain::v1::exclusion_scope::Scope;
use refrain::v1::recommend_request::Subject;
use refrain::v1::{
    AppendEventsRequest, Consistency, CreateExclusionRequest, DeleteExclusionRequest, Event,
    EventKind, Exclusion, ExclusionEffect, ExclusionScope, GetProfileRequest, RecommendRequest,
    RecommendResponse, SeenPolicy,
};

use crate::support::{Catalogue, Server};

/// Scores as bits: equal here means equal to the last digit.
fn exact(answer: &RecommendResponse) -> Vec<(String, u32)> {
    answer
        .results
        .iter()
        .map(|r| (r.item_id.clone(), r.score.to_bits()))
        .collect()
}

fn listen(item: &str, second: i64, context: &str) -> Event {
    Event {
        // Derived from what happened, so that twins with the same listens have the same events.
        event_id: format!("{context}-{second}"),
        item_id: item.into(),
        event_time: Some(prost_types::Timestamp {
            seconds: 1_700_000_000 + second,
            nanos: 0,
        }),
        kind: EventKind::Play.into(),
        context: context.into(),
        ..Event::default()
    }
}

async fn popular(server: &Server, n: u32) -> Vec<String> {
    let request = RecommendRequest {
        subject: Some(Subject::UserId("nobody".into())),
        page_size: Some(n),
        ..RecommendRequest::default()
    };
    let answer = server
        .recommendations()
        .await
        .recommend(request)
        .await
        .expect("popular items");
    answer
        .into_inner()
        .results
        .into_iter()
        .map(|r| r.item_id)
        .collect()
}

async fn append(server: &Server, user: &str, events: Vec<Event>) -> u64 {
    let request = AppendEventsRequest {
        user_id: user.into(),
        events,
    };
    let done = server
        .taste()
        .await
        .append_events(request)
        .await
        .expect("appended");
    done.into_inner().profile_revision
}

async fn vector(server: &Server, user: &str) -> Vec<u32> {
    let request = GetProfileRequest {
        user_id: user.into(),
        include_vector: true,
        ..GetProfileRequest::default()
    };
    let profile = server
        .taste()
        .await
        .get_profile(request)
        .await
        .expect("profile")
        .into_inner();
    let vector = profile.vector.expect("a listener with events has a vector");
    vector.values.into_iter().map(f32::to_bits).collect()
}

async fn ask(server: &Server, user: &str, seen: SeenPolicy, revision: u64) -> RecommendResponse {
    let request = RecommendRequest {
        subject: Some(Subject::UserId(user.into())),
        page_size: Some(50),
        seen_policy: seen.into(),
        consistency: Some(Consistency {
            min_profile_revision: revision,
            ..Consistency::default()
        }),
        ..RecommendRequest::default()
    };
    server
        .recommendations()
        .await
        .recommend(request)
        .await
        .expect("recommended")
        .into_inner()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_excluded_context_counts_as_if_it_had_never_been_heard() {
    let home = Catalogue::shared().store();
    let server = Server::start(home.path());
    let items = popular(&server, 60).await;
    let day: Vec<Event> = items[..20]
        .iter()
        .zip(0..)
        .map(|(item, i)| listen(item, i, "morning"))
        .collect();
    // Some of the tracks of the night are also heard by day: those listens still count.
    let night: Vec<Event> = items[15..60]
        .iter()
        .zip(100..)
        .map(|(item, i)| listen(item, i, "sleep"))
        .collect();

    append(
        &server,
        "parent",
        day.iter().chain(&night).cloned().collect(),
    )
    .await;
    append(&server, "twin", day).await;
    let twin = vector(&server, "twin").await;
    let before_vector = vector(&server, "parent").await;
    let before = ask(&server, "parent", SeenPolicy::Allow, 0).await;
    let before_default = ask(&server, "parent", SeenPolicy::Unspecified, 0).await;
    assert_ne!(
        before_vector, twin,
        "the night shapes the profile before it is excluded"
    );

    let made = server
        .taste()
        .await
        .create_exclusion(CreateExclusionRequest {
            user_id: "parent".into(),
            exclusion: Some(Exclusion {
                scope: Some(ExclusionScope {
                    scope: Some(Scope::Context("sleep".into())),
                }),
                ..Exclusion::default()
            }),
        })
        .await
        .expect("created")
        .into_inner();
    let rule = made.exclusion.expect("rule").rule_id;

    // The very next request, and every one after it. The experiment may give the twins different
    // variants, so both are asked for the same one.
    let excluded = ask(&server, "parent", SeenPolicy::Allow, made.profile_revision).await;
    assert_eq!(vector(&server, "parent").await, twin, "equal bit for bit");
    assert_eq!(excluded.profile.as_ref().expect("use").events_excluded, 45);
    assert_eq!(
        plain(&server, "parent").await,
        plain(&server, "twin").await,
        "equal bit for bit"
    );
    assert_ne!(exact(&excluded), exact(&before));

    // Hearing is a fact, not a taste: what was heard in the night still does not come back by default.
    let default = ask(&server, "parent", SeenPolicy::Unspecified, 0).await;
    assert!(default.results.iter().all(|r| !items.contains(&r.item_id)));

    let undo = DeleteExclusionRequest {
        user_id: "parent".into(),
        rule_id: rule,
        ..DeleteExclusionRequest::default()
    };
    server
        .taste()
        .await
        .delete_exclusion(undo)
        .await
        .expect("deleted");
    assert_eq!(
        vector(&server, "parent").await,
        before_vector,
        "the undo is exact"
    );
    assert_eq!(
        exact(&ask(&server, "parent", SeenPolicy::Allow, 0).await),
        exact(&before)
    );
    let after = ask(&server, "parent", SeenPolicy::Unspecified, 0).await;
    assert_eq!(exact(&after), exact(&before_default));
    assert_eq!(server.terminate(), Some(0));
}

async fn plain(server: &Server, user: &str) -> Vec<(String, u32)> {
    let request = RecommendRequest {
        subject: Some(Subject::UserId(user.into())),
        page_size: Some(50),
        seen_policy: SeenPolicy::Allow.into(),
        ranking: Some(refrain::v1::Ranking {
            variant_override: "plain".into(),
            ..refrain::v1::Ranking::default()
        }),
        ..RecommendRequest::default()
    };
    let answer = server
        .recommendations()
        .await
        .recommend(request)
        .await
        .expect("recommended");
    let answer = answer.into_inner();
    assert!(answer.forced, "an overridden variant is marked");
    exact(&answer)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_must_not_be_served_is_not_served_on_any_path() {
    let home = Catalogue::shared().store();
    let server = Server::start(home.path());
    let items = popular(&server, 30).await;
    let events = items[..10]
        .iter()
        .zip(0..)
        .map(|(item, i)| listen(item, i, "day"))
        .collect();
    append(&server, "blocker", events).await;
    let first = ask(&server, "blocker", SeenPolicy::Allow, 0).await;
    let unwanted: Vec<String> = first
        .results
        .iter()
        .take(5)
        .map(|r| r.item_id.clone())
        .chain(items[..2].to_vec())
        .collect();
    for user in ["blocker", "stranger"] {
        for item in &unwanted {
            server
                .taste()
                .await
                .create_exclusion(CreateExclusionRequest {
                    user_id: user.into(),
                    exclusion: Some(Exclusion {
                        scope: Some(ExclusionScope {
                            scope: Some(Scope::ItemId(item.clone())),
                        }),
                        effect: ExclusionEffect::Serve.into(),
                        ..Exclusion::default()
                    }),
                })
                .await
                .expect("created");
        }
        // The graph, exact search, and for the stranger, who has no events, the popularity fallback.
        for exact in [false, true] {
            let request = RecommendRequest {
                subject: Some(Subject::UserId(user.into())),
                page_size: Some(100),
                seen_policy: SeenPolicy::Allow.into(),
                search: Some(refrain::v1::SearchParams {
                    exact,
                    ..Default::default()
                }),
                ..RecommendRequest::default()
            };
            let answer = server
                .recommendations()
                .await
                .recommend(request)
                .await
                .expect("recommended");
            let answer = answer.into_inner();
            assert_eq!(answer.results.len(), 100);
            assert!(
                answer
                    .results
                    .iter()
                    .all(|r| !unwanted.contains(&r.item_id)),
                "{user}"
            );
        }
    }
}
