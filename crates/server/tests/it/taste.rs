//! Profiles: previewed, explained, exported, erased; events and requests in bulk.

use refrain::v1;
use refrain::v1::exclusion_scope::Scope;
use refrain::v1::export_profile_response::Part;
use refrain::v1::index_service_client::IndexServiceClient;
use refrain::v1::recommend_request::Subject;
use refrain::v1::recommendation_service_client::RecommendationServiceClient;
use refrain::v1::stream_events_response::Outcome;
use refrain::v1::stream_recommend_request::Message as Asked;
use refrain::v1::stream_recommend_response::Message as Told;
use refrain::v1::taste_profile_service_client::TasteProfileServiceClient;
use tonic::Code;
use tonic::transport::Channel;

use crate::fixture::{World, item, play};

type Taste = TasteProfileServiceClient<Channel>;

async fn append(taste: &mut Taste, user: &str, events: Vec<v1::Event>) -> u64 {
    let request = v1::AppendEventsRequest {
        user_id: user.into(),
        events,
    };
    let done = taste.append_events(request).await.expect("taken");
    done.into_inner().profile_revision
}

fn exclusion(scope: Scope, effect: v1::ExclusionEffect) -> v1::Exclusion {
    v1::Exclusion {
        scope: Some(v1::ExclusionScope { scope: Some(scope) }),
        effect: effect.into(),
        ..Default::default()
    }
}

fn for_user(user: &str) -> v1::RecommendRequest {
    v1::RecommendRequest {
        subject: Some(Subject::UserId(user.into())),
        page_size: Some(10),
        ranking: Some(v1::Ranking {
            variant_override: "plain".into(),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn bits(results: &[v1::Result]) -> Vec<(String, u32)> {
    let bits = |result: &v1::Result| (result.item_id.clone(), result.score.to_bits());
    results.iter().map(bits).collect()
}

#[tokio::test]
async fn of_a_private_event_nothing_remains() {
    let world = World::new();
    world.publish(1);
    let server = world.serve().await;
    let mut taste = TasteProfileServiceClient::new(server.channel.clone());
    let private = |at| v1::Event {
        event_id: "a-secret".into(),
        private: true,
        ..play(at, 1, "secret-context")
    };
    let request = v1::AppendEventsRequest {
        user_id: "u".into(),
        events: vec![play(1, 0, "day"), private(2)],
    };
    let done = taste.append_events(request).await.expect("taken");
    let done = done.into_inner();
    assert_eq!((done.appended, done.private_skipped), (1, 1));
    assert_eq!(done.event_ids.len(), 2);
    assert!(done.event_ids[1].is_empty());
    let request = v1::AppendEventsRequest {
        user_id: "u".into(),
        events: vec![private(3)],
    };
    let only = taste.append_events(request).await.expect("taken");
    let only = only.into_inner();
    assert_eq!(
        (only.profile_revision, only.appended, only.private_skipped),
        (1, 0, 1)
    );
    // It is checked like any other.
    let request = v1::AppendEventsRequest {
        user_id: "u".into(),
        events: vec![v1::Event {
            item_id: String::new(),
            ..private(3)
        }],
    };
    let refused = taste.append_events(request).await.expect_err("no item");
    assert_eq!(refused.code(), Code::InvalidArgument);
    server.stop().await.expect("drains");
    let file = fs_err::read(world.dir.path().join("profiles.redb")).expect("the store");
    let holds = |text: &str| file.windows(text.len()).any(|at| at == text.as_bytes());
    assert!(holds("day") && !holds("a-secret") && !holds("secret-context"));
}

#[tokio::test]
async fn a_preview_tells_what_would_happen_and_changes_nothing() {
    let world = World::new();
    world.publish(1);
    let server = world.serve().await;
    let mut taste = TasteProfileServiceClient::new(server.channel.clone());
    let mut client = RecommendationServiceClient::new(server.channel.clone());
    let events = (1..9).map(|at| v1::Event {
        played_ms: Some(120_000),
        ..play(at, at as i64, if at > 5 { "sleep" } else { "day" })
    });
    append(&mut taste, "u", events.collect()).await;
    let rule = exclusion(Scope::Context("sleep".into()), v1::ExclusionEffect::Both);
    let ask = v1::PreviewExclusionRequest {
        user_id: "u".into(),
        exclusion: Some(rule.clone()),
        page_size: Some(10),
        ..Default::default()
    };
    let preview = taste.preview_exclusion(ask.clone()).await.expect("told");
    let preview = preview.into_inner();
    assert_eq!((preview.events_changed, preview.events_excluded), (3, 3));
    assert!((preview.minutes - 6.0).abs() < 1e-9, "{}", preview.minutes);
    assert_eq!((preview.items_forbidden, preview.items_released), (3, 0));
    assert!(preview.overlap <= 1.0);
    let named = v1::RecommendRequest {
        ranking: None,
        ..for_user("u")
    };
    let before = client.recommend(named.clone()).await.expect("answered");
    assert_eq!(bits(&before.into_inner().results), bits(&preview.before));
    let profile = taste.get_profile(v1::GetProfileRequest {
        user_id: "u".into(),
        ..Default::default()
    });
    let profile = profile.await.expect("told").into_inner();
    assert_eq!((profile.profile_revision, profile.exclusions), (1, 0));

    let made = v1::CreateExclusionRequest {
        user_id: "u".into(),
        exclusion: Some(v1::Exclusion {
            rule_id: "r".into(),
            ..rule.clone()
        }),
    };
    taste.create_exclusion(made).await.expect("made");
    let after = client.recommend(named).await.expect("answered");
    assert_eq!(bits(&after.into_inner().results), bits(&preview.after));
    assert_ne!(bits(&preview.before), bits(&preview.after));

    // A rule that is there is no preview, and one that is wrong is refused as when it is made.
    let again = v1::PreviewExclusionRequest {
        exclusion: Some(v1::Exclusion {
            rule_id: "r".into(),
            ..rule.clone()
        }),
        ..ask.clone()
    };
    let refused = taste.preview_exclusion(again).await.expect_err("there");
    assert_eq!(refused.code(), Code::AlreadyExists);
    let wrong = v1::PreviewExclusionRequest {
        exclusion: Some(v1::Exclusion {
            strength: Some(f32::NAN),
            ..rule
        }),
        ..ask
    };
    let refused = taste.preview_exclusion(wrong).await.expect_err("NaN");
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().contains("exclusion.strength"));
    server.stop().await.expect("drains");
}

#[tokio::test]
async fn scores_are_split_over_events_and_absences_have_reasons() {
    let world = World::new();
    world.publish(1);
    let server = world.serve().await;
    let mut taste = TasteProfileServiceClient::new(server.channel.clone());
    let mut client = RecommendationServiceClient::new(server.channel.clone());
    let mut events: Vec<v1::Event> = (1..7).map(|at| play(at, at as i64, "day")).collect();
    events.push(play(1, 50, "sleep"));
    append(&mut taste, "u", events).await;
    for (id, scope, effect) in [
        (
            "learn",
            Scope::Context("sleep".into()),
            v1::ExclusionEffect::Learn,
        ),
        ("serve", Scope::ItemId(item(30)), v1::ExclusionEffect::Serve),
    ] {
        let request = v1::CreateExclusionRequest {
            user_id: "u".into(),
            exclusion: Some(v1::Exclusion {
                rule_id: id.into(),
                ..exclusion(scope, effect)
            }),
        };
        taste.create_exclusion(request).await.expect("made");
    }
    let list = client.recommend(for_user("u")).await.expect("answered");
    let list = list.into_inner().results;
    let mut why = async |item_id: String, request: v1::RecommendRequest| {
        let request = v1::ExplainRequest {
            request: Some(request),
            item_id,
            max_contributions: Some(100),
        };
        client
            .explain(request)
            .await
            .map(tonic::Response::into_inner)
    };
    for (at, result) in (1..).zip(&list) {
        let told = why(result.item_id.clone(), for_user("u"))
            .await
            .expect("told");
        assert_eq!(told.outcome(), v1::ExplainOutcome::Shown);
        assert_eq!((told.position, told.score), (Some(at), Some(result.score)));
        // Six listens count; the one in the excluded context brings nothing.
        assert_eq!(told.contributions_total, 6);
        let sum: f64 = told.contributions.iter().map(|one| one.contribution).sum();
        assert!((sum - told.explained).abs() < 1e-12);
        assert!(
            (sum - f64::from(result.similarity)).abs() < 1e-5,
            "{sum} {result:?}"
        );
        let causes = told
            .contributions
            .iter()
            .filter_map(|one| one.event.as_ref());
        assert!(
            causes
                .map(|event| &event.context)
                .all(|context| context == "day")
        );
    }
    let shown: Vec<&str> = list.iter().map(|result| result.item_id.as_str()).collect();
    let elsewhere = (40..200).map(item).find(|id| !shown.contains(&id.as_str()));
    let filtered = v1::RecommendRequest {
        filter: v1::Filter {
            exclude_artists: ["artist 5"].into(),
            ..Default::default()
        }
        .into(),
        ..for_user("u")
    };
    for (id, request, outcome, rule) in [
        (item(0), for_user("u"), v1::ExplainOutcome::Blocked, ""),
        (
            item(30),
            for_user("u"),
            v1::ExplainOutcome::Excluded,
            "serve",
        ),
        (item(3), for_user("u"), v1::ExplainOutcome::Heard, ""),
        (item(125), filtered, v1::ExplainOutcome::Filtered, ""),
        (
            "no such".to_owned(),
            for_user("u"),
            v1::ExplainOutcome::Unknown,
            "",
        ),
        (
            item(199),
            for_user("nobody"),
            v1::ExplainOutcome::Fallback,
            "",
        ),
        (
            elsewhere.expect("200 items"),
            for_user("u"),
            v1::ExplainOutcome::Outranked,
            "",
        ),
    ] {
        let told = why(id.clone(), request).await.expect("told");
        assert_eq!(told.outcome(), outcome, "{id}");
        assert_eq!(told.position, None);
        assert_eq!(
            told.rule.map_or_else(String::new, |rule| rule.rule_id),
            rule,
            "{id}"
        );
    }
    let nobody = v1::RecommendRequest {
        subject: None,
        ..for_user("u")
    };
    let refused = why(item(1), nobody).await.expect_err("no listener");
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().contains("request.subject"), "{refused:?}");
    server.stop().await.expect("drains");
}

#[tokio::test]
async fn a_profile_is_exported_whole_and_erased_without_a_trace() {
    let world = World::new();
    world.publish(1);
    let server = world.serve().await;
    let mut taste = TasteProfileServiceClient::new(server.channel.clone());
    let events: Vec<v1::Event> = (0..1_200)
        .map(|at| play(at % 200, at as i64, "day"))
        .collect();
    append(&mut taste, "u", events[..600].to_vec()).await;
    append(&mut taste, "u", events[600..].to_vec()).await;
    let request = v1::CreateExclusionRequest {
        user_id: "u".into(),
        exclusion: Some(exclusion(
            Scope::Tag("a tag".into()),
            v1::ExclusionEffect::Learn,
        )),
    };
    taste.create_exclusion(request).await.expect("made");

    let ask = v1::ExportProfileRequest {
        user_id: "u".into(),
        min_profile_revision: 3,
    };
    let parts = taste.export_profile(ask).await.expect("exported");
    let mut parts = parts.into_inner();
    let (mut exported, mut rules, mut checksum, mut whole) = (Vec::new(), 0, 0, false);
    while let Some(part) = parts.message().await.expect("a part") {
        assert!(!whole, "the footer comes last");
        let encoded = prost::Message::encode_to_vec(&part);
        match part.part.expect("a part") {
            Part::Header(header) => {
                assert_eq!((header.events, header.exclusions), (1_200, 1));
                assert_eq!(header.profile_revision, 3);
            }
            Part::Events(part) => exported.extend(part.events),
            Part::Exclusions(part) => rules += part.exclusions.len(),
            Part::Footer(footer) => {
                whole = true;
                assert_eq!(footer.checksum, checksum);
            }
        }
        checksum = crc32c::crc32c_append(checksum, &encoded);
    }
    assert!(whole);
    assert_eq!(rules, 1);
    for event in &mut exported {
        event.event_id.clear();
        event.count = None;
    }
    assert_eq!(exported, events);

    let everyone = taste
        .export_exclusions(v1::ExportExclusionsRequest {})
        .await;
    let mut everyone = everyone.expect("exported").into_inner();
    let mut found = Vec::new();
    while let Some(part) = everyone.message().await.expect("a part") {
        assert!(part.watermark.is_some());
        found.extend(part.listeners);
    }
    assert_eq!(found.len(), 1);
    assert_eq!(
        (found[0].user_id.as_str(), found[0].exclusions.len()),
        ("u", 1)
    );

    let mut erase = async |allow_missing| {
        let request = v1::DeleteProfileRequest {
            user_id: "u".into(),
            allow_missing,
        };
        let answer = taste.delete_profile(request).await;
        answer.map(tonic::Response::into_inner)
    };
    let erased = erase(false).await.expect("erased");
    assert!(erased.existed && erased.erase_time.is_some());
    assert_eq!((erased.events_erased, erased.exclusions_erased), (1_200, 1));
    assert_eq!((erased.last_revision, erased.residual_records), (3, 0));
    assert_eq!(erase(false).await.expect_err("gone").code(), Code::NotFound);
    assert!(!erase(true).await.expect("fine").existed);
    let mut client = RecommendationServiceClient::new(server.channel.clone());
    let cold = client.recommend(for_user("u")).await.expect("answered");
    let cold = cold.into_inner();
    let tier = cold.profile.expect("read").tier();
    assert_eq!(tier, v1::ProfileTier::Cold);
    assert_eq!(cold.degraded, [v1::DegradedReason::FallbackUsed as i32]);
    // Begun anew: never a revision that was there before.
    assert_eq!(append(&mut taste, "u", events[..1].to_vec()).await, 4);
    server.stop().await.expect("drains");
}

#[tokio::test]
async fn events_come_by_stream_and_a_bad_request_fails_alone() {
    let world = World::new();
    world.publish(1);
    let server = world.serve().await;
    let mut taste = TasteProfileServiceClient::new(server.channel.clone());
    let request = |n: usize| v1::StreamEventsRequest {
        key: format!("k{n}"),
        user_id: format!("u{}", n % 3),
        events: match n {
            13 => Vec::new(),
            14 => vec![v1::Event::default()],
            _ => vec![play(n % 200, n as i64, "day")],
        },
    };
    let requests = tokio_stream::iter((0..300).map(request).collect::<Vec<_>>());
    let answers = taste.stream_events(requests).await.expect("open");
    let mut answers = answers.into_inner();
    let (mut appended, mut failed) = (0, Vec::new());
    while let Some(answer) = answers.message().await.expect("an answer") {
        match answer.outcome.expect("an outcome") {
            Outcome::Appended(done) => appended += done.appended,
            Outcome::Failure(failure) => {
                assert_eq!(failure.code, i32::from(Code::InvalidArgument));
                assert!(!failure.details.is_empty());
                failed.push(answer.key);
            }
        }
    }
    failed.sort();
    assert_eq!((appended, failed), (298, vec!["k13".into(), "k14".into()]));
    for user in ["u0", "u1", "u2"] {
        let profile = taste.get_profile(v1::GetProfileRequest {
            user_id: user.into(),
            ..Default::default()
        });
        let profile = profile.await.expect("told").into_inner();
        assert_eq!(
            profile.profile_revision, profile.events,
            "one revision a request"
        );
    }
    server.stop().await.expect("drains");
}

#[tokio::test]
async fn a_bulk_stream_keeps_its_version_and_answers_as_recommend_does() {
    let world = World::new();
    let first = world.publish(1);
    let server = world.serve().await;
    let mut taste = TasteProfileServiceClient::new(server.channel.clone());
    let mut client = RecommendationServiceClient::new(server.channel.clone());
    for user in 0..5 {
        let events = (1..8).map(|at| play(at * (user + 1), at as i64, "day"));
        append(&mut taste, &format!("u{user}"), events.collect()).await;
    }
    let mut expected = Vec::new();
    for user in 0..5 {
        let answer = client.recommend(for_user(&format!("u{user}"))).await;
        expected.push(bits(&answer.expect("answered").into_inner().results));
    }
    let (ask, asked) = tokio::sync::mpsc::channel(8);
    let send = async |message: Asked| {
        let message = Some(message);
        ask.send(v1::StreamRecommendRequest { message })
            .await
            .expect("open");
    };
    send(Asked::Open(v1::StreamOpen::default())).await;
    let requests = tokio_stream::wrappers::ReceiverStream::new(asked);
    let answers = client.stream_recommend(requests).await.expect("open");
    let mut answers = answers.into_inner();
    let ready = answers
        .message()
        .await
        .expect("told")
        .and_then(|told| told.message);
    let Some(Told::Ready(ready)) = ready else {
        panic!("{ready:?}")
    };
    assert_eq!(ready.version, first);
    // Another version takes over while the stream is open.
    let second = world.publish(2);
    let mut index = IndexServiceClient::new(server.channel.clone());
    loop {
        let serving = index.get_serving(v1::GetServingRequest::default()).await;
        let serving = format!("{:?}", serving.expect("told"));
        if serving.contains(&second) {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let item_of = |key: &str, request| {
        Asked::Item(v1::StreamItem {
            key: key.into(),
            request: Some(request),
        })
    };
    for user in 0..5 {
        send(item_of(&format!("u{user}"), for_user(&format!("u{user}")))).await;
    }
    send(item_of(
        "bad",
        v1::RecommendRequest {
            page_size: Some(0),
            ..for_user("u0")
        },
    ))
    .await;
    send(item_of(
        "other",
        v1::RecommendRequest {
            index: Some(v1::IndexSelector::default()),
            ..for_user("u0")
        },
    ))
    .await;
    drop(ask);
    let (mut results, mut failures) = (0, Vec::new());
    while let Some(told) = answers.message().await.expect("told") {
        match told.message.expect("a message") {
            Told::Result(result) => {
                let response = result.response.expect("a response");
                assert_eq!(response.served_by.expect("told").version, first);
                assert!(response.exposure_id.is_empty());
                let user: usize = result.key[1..].parse().expect("a user");
                assert_eq!(bits(&response.results), expected[user]);
                results += 1;
            }
            Told::Failure(failure) => {
                let why = failure.failure.expect("why");
                assert_eq!(why.code, i32::from(Code::InvalidArgument), "{why:?}");
                assert!(why.message.starts_with("request."), "{why:?}");
                failures.push(failure.key);
            }
            other => panic!("{other:?}"),
        }
    }
    failures.sort();
    assert_eq!((results, failures), (5, vec!["bad".into(), "other".into()]));
    // A stream must begin with what it is about.
    let wrong = tokio_stream::iter([v1::StreamRecommendRequest { message: None }]);
    let mut wrong = client
        .stream_recommend(wrong)
        .await
        .expect("open")
        .into_inner();
    let refused = wrong.message().await.expect_err("not open");
    assert_eq!(refused.code(), Code::InvalidArgument);
    server.stop().await.expect("drains");
}

/// A stream that stays open does not hold up a server that stops, and is told.
#[tokio::test]
async fn an_open_stream_is_told_that_the_server_stops() {
    let world = World::new();
    world.publish(1);
    let server = world.serve().await;
    let mut client = RecommendationServiceClient::new(server.channel.clone());
    let (ask, asked) = tokio::sync::mpsc::channel(8);
    let open = Some(Asked::Open(v1::StreamOpen::default()));
    ask.send(v1::StreamRecommendRequest { message: open })
        .await
        .expect("open");
    let requests = tokio_stream::wrappers::ReceiverStream::new(asked);
    let answers = client.stream_recommend(requests).await.expect("open");
    let mut answers = answers.into_inner();
    answers.message().await.expect("ready");
    let stopping = tokio::spawn(server.stop());
    let told = answers
        .message()
        .await
        .expect("told")
        .and_then(|told| told.message);
    assert!(matches!(told, Some(Told::Draining(_))), "{told:?}");
    assert!(answers.message().await.expect("the end").is_none());
    drop((ask, answers, client));
    stopping.await.expect("no panic").expect("drains");
}
