//! What clients get wrong, or mean ill with, about profiles.

use refrain::v1;
use refrain::v1::exclusion_scope::Scope;
use refrain::v1::recommend_request::Subject;
use refrain::v1::recommendation_service_client::RecommendationServiceClient;
use refrain::v1::taste_profile_service_client::TasteProfileServiceClient;
use tonic::Code;
use tonic::transport::Channel;

use crate::fixture::{World, item, play};

type Taste = TasteProfileServiceClient<Channel>;

async fn append(taste: &mut Taste, user: &str, events: Vec<v1::Event>) -> v1::AppendEventsResponse {
    let user_id = user.to_owned();
    let done = taste.append_events(v1::AppendEventsRequest { user_id, events });
    done.await.expect("appended").into_inner()
}

fn rule(id: &str, scope: Scope) -> v1::Exclusion {
    v1::Exclusion {
        rule_id: id.to_owned(),
        scope: Some(v1::ExclusionScope { scope: Some(scope) }),
        effect: v1::ExclusionEffect::Both.into(),
        ..v1::Exclusion::default()
    }
}

fn create(user: &str, exclusion: v1::Exclusion) -> v1::CreateExclusionRequest {
    v1::CreateExclusionRequest {
        user_id: user.to_owned(),
        exclusion: Some(exclusion),
    }
}

fn for_user(user: &str) -> v1::RecommendRequest {
    v1::RecommendRequest {
        subject: Some(Subject::UserId(user.to_owned())),
        page_size: Some(10),
        ..v1::RecommendRequest::default()
    }
}

async fn profile(taste: &mut Taste, user: &str) -> v1::GetProfileResponse {
    let request = v1::GetProfileRequest {
        user_id: user.to_owned(),
        include_vector: true,
        max_events: Some(1_000),
        ..v1::GetProfileRequest::default()
    };
    taste.get_profile(request).await.expect("read").into_inner()
}

/// Clocks that are years ahead or behind change nothing: what was heard counts, in whatever order it came.
#[tokio::test]
async fn clocks_that_are_wrong_change_no_taste() {
    let world = World::new();
    world.publish(1);
    let server = world.serve().await;
    let mut taste = Taste::new(server.channel.clone());
    // The years 1, 1970, 2286 and 9999.
    let seconds = [-62_135_596_800, 0, 9_999_999_999, 253_402_300_799];
    for (user, shift) in [("skewed", true), ("right", false)] {
        let events = seconds.iter().zip(1..).map(|(&at, item)| {
            let mut event = play(item, item as i64, "day");
            if shift {
                event.event_time = Some(prost_types::Timestamp {
                    seconds: at,
                    nanos: 999_999_999,
                });
            }
            event
        });
        append(&mut taste, user, events.collect()).await;
    }
    let (skewed, right) = (
        profile(&mut taste, "skewed").await,
        profile(&mut taste, "right").await,
    );
    assert_eq!((skewed.events, skewed.items), (4, 4));
    assert!(skewed.vector.is_some());
    assert_eq!(skewed.vector, right.vector);
    // Out of what a timestamp may be: refused whole, with the place.
    for (seconds, nanos) in [(253_402_300_800, 0), (0, 1_000_000_000), (i64::MIN, 0)] {
        let mut late = play(5, 5, "day");
        late.event_time = Some(prost_types::Timestamp { seconds, nanos });
        let request = v1::AppendEventsRequest {
            user_id: "skewed".to_owned(),
            events: vec![play(6, 6, "day"), late],
        };
        let refused = taste
            .append_events(request)
            .await
            .expect_err("no such time");
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert!(
            refused.message().starts_with("events[1].event_time"),
            "{refused:?}"
        );
    }
    assert_eq!(profile(&mut taste, "skewed").await.events, 4);
    server.stop().await.expect("drains");
}

/// The rule after the last one is refused as a quota, and all others hold.
#[tokio::test]
async fn ten_thousand_rules_hold_and_one_more_is_refused() {
    let world = World::new();
    world.publish(1);
    let server = world.serve().await;
    let taste = Taste::new(server.channel.clone());
    let mut making = tokio::task::JoinSet::new();
    for lane in 0..100 {
        let mut taste = taste.clone();
        making.spawn(async move {
            for n in 0..100 {
                let id = format!("r{lane}-{n}");
                // All items but the first few, and many that no version knows.
                let scope = Scope::ItemId(item(lane * 100 + n + 3));
                let made = taste.create_exclusion(create("u", rule(&id, scope)));
                made.await.expect("made");
            }
        });
    }
    while let Some(lane) = making.join_next().await {
        lane.expect("no panic");
    }
    let mut taste = taste;
    let one_more = rule("one more", Scope::Artist("anybody".into()));
    let refused = taste.create_exclusion(create("u", one_more.clone())).await;
    let refused = refused.expect_err("full");
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused:?}");
    // One that is there is no new one; and one less makes room.
    let again = rule("r0-0", Scope::ItemId(item(3)));
    let again = taste.create_exclusion(create("u", again)).await;
    assert_eq!(again.expect("there").into_inner().profile_revision, 10_000);
    let delete = v1::DeleteExclusionRequest {
        user_id: "u".into(),
        rule_id: "r99-99".into(),
        allow_missing: false,
    };
    taste.delete_exclusion(delete).await.expect("deleted");
    taste
        .create_exclusion(create("u", one_more))
        .await
        .expect("there is room");
    // What no rule names is left, and one of that is blocked for everybody.
    let mut client = RecommendationServiceClient::new(server.channel.clone());
    let answer = client.recommend(for_user("u")).await;
    let answer = answer.expect("answered").into_inner();
    let degraded: Vec<_> = answer.degraded().collect();
    assert!(
        degraded.contains(&v1::DegradedReason::FewerThanAsked),
        "{degraded:?}"
    );
    assert_eq!(answer.profile.expect("read").revision, 10_002);
    let shown: Vec<String> = answer
        .results
        .into_iter()
        .map(|shown| shown.item_id)
        .collect();
    assert_eq!(shown, [item(1), item(2)]);
    server.stop().await.expect("drains");
}

/// Ids are bytes to us: whatever UTF-8 holds comes back as it was, and no two are taken for one.
#[tokio::test]
async fn ids_of_every_byte_come_back_as_they_were() {
    let world = World::new();
    world.publish(1);
    let server = world.serve().await;
    let mut taste = Taste::new(server.channel.clone());
    let control: String = (0_u8..0x20).map(char::from).collect();
    // Every lead byte and every continuation byte of UTF-8 is in one of these.
    let ascii: String = (0x20_u8..0x80).map(char::from).collect();
    let two: String = (0x80_u32..0x800)
        .step_by(0x21)
        .filter_map(char::from_u32)
        .collect();
    let wide = "\u{800}\u{d7ff}\u{e000}\u{ffff}\u{10000}\u{10ffff}\u{202e}\u{0301}".to_owned();
    let mut users = vec![
        control,
        ascii,
        "../../etc/passwd".into(),
        "a\0".into(),
        "a".into(),
        wide,
    ];
    users.extend(
        two.chars()
            .collect::<Vec<_>>()
            .chunks(60)
            .map(|part| part.iter().collect()),
    );
    for user in &users {
        let events = users.iter().zip(0..).map(|(id, n)| v1::Event {
            event_id: id.clone(),
            item_id: id.clone(),
            context: id.clone(),
            session_id: id.clone(),
            ..play(1, n, "")
        });
        let done = append(&mut taste, user, events.collect()).await;
        assert_eq!(
            (done.profile_revision, done.appended as usize),
            (1, users.len())
        );
        for id in &users {
            let scope = Scope::Context(id.clone());
            let made = taste.create_exclusion(create(user, rule(id, scope))).await;
            made.expect("made");
        }
    }
    for user in &users {
        let kept = profile(&mut taste, user).await;
        let mut ids: Vec<String> = kept
            .newest_events
            .into_iter()
            .map(|kept| {
                let event = kept.event.expect("an event");
                assert_eq!(event.event_id, event.item_id);
                assert_eq!(event.event_id, event.context);
                assert_eq!(event.event_id, event.session_id);
                event.event_id
            })
            .collect();
        ids.reverse();
        assert_eq!(ids, users);
        assert_eq!(kept.exclusions as usize, users.len());
        assert_eq!(kept.events_excluded, users.len() as u64);
    }
    // What is too long is refused by its bytes, not its characters.
    let long = "é".repeat(65);
    let request = v1::AppendEventsRequest {
        user_id: long,
        events: vec![play(1, 1, "")],
    };
    let refused = taste.append_events(request).await.expect_err("too long");
    assert_eq!(refused.code(), Code::InvalidArgument);
    server.stop().await.expect("drains");
}

/// A listener is erased again and again while others write, read and ask for them: everything is answered,
/// revisions never come again, and in the end nothing is left.
#[tokio::test(flavor = "multi_thread")]
async fn a_listener_erased_amid_requests_leaves_nothing() {
    let world = World::new();
    world.publish(1);
    let server = world.serve().await;
    let taste = Taste::new(server.channel.clone());
    let mut work = tokio::task::JoinSet::new();
    for lane in 0..4 {
        let mut taste = taste.clone();
        let mut client = RecommendationServiceClient::new(server.channel.clone());
        work.spawn(async move {
            let mut last = 0;
            for n in 0..60 {
                let event = v1::Event {
                    event_id: format!("{lane}-{n}"),
                    ..play(1 + n % 30, n as i64, "day")
                };
                let done = append(&mut taste, "u", vec![event]).await;
                assert!(done.profile_revision > last, "{last} came again");
                last = done.profile_revision;
                let scope = Scope::Context("night".into());
                let id = format!("{lane}-{n}");
                let made = taste.create_exclusion(create("u", rule(&id, scope))).await;
                let revision = made.expect("made").into_inner().profile_revision;
                assert!(revision > last, "{last} came again");
                last = revision;
                let ask = v1::RecommendRequest {
                    consistency: Some(v1::Consistency {
                        min_profile_revision: last,
                        ..v1::Consistency::default()
                    }),
                    ..for_user("u")
                };
                // Erased since, what the revision stands for is gone: that it does not come is an answer.
                match client.recommend(ask).await {
                    Ok(answer) => assert_eq!(answer.into_inner().results.len(), 10),
                    Err(status) => assert_eq!(status.code(), Code::Unavailable, "{status:?}"),
                }
                let plain = client.recommend(for_user("u")).await.expect("answered");
                assert_eq!(plain.into_inner().results.len(), 10);
            }
        });
    }
    let erase = || v1::DeleteProfileRequest {
        user_id: "u".into(),
        allow_missing: true,
    };
    let mut eraser = taste.clone();
    while !work.is_empty() {
        let gone = eraser.delete_profile(erase()).await.expect("erased");
        assert_eq!(gone.into_inner().residual_records, 0);
        if let Ok(Some(done)) =
            tokio::time::timeout(std::time::Duration::from_millis(3), work.join_next()).await
        {
            done.expect("no panic");
        }
    }
    eraser.delete_profile(erase()).await.expect("erased");
    let left = profile(&mut eraser, "u").await;
    assert_eq!(
        (left.profile_revision, left.events, left.exclusions),
        (0, 0, 0)
    );
    server.stop().await.expect("drains");
}

/// A context of a million plays is one rule away from never having been.
#[tokio::test]
async fn a_context_of_a_million_plays_is_excluded_at_once() {
    let world = World::new();
    world.publish(1);
    let server = world.serve().await;
    let mut taste = Taste::new(server.channel.clone());
    let day: Vec<v1::Event> = (1..20).map(|n| play(n, n as i64, "day")).collect();
    append(&mut taste, "never", day.clone()).await;
    append(&mut taste, "u", day).await;
    // A thousand events of a thousand plays each.
    let night = (0..1_000).map(|n| v1::Event {
        event_id: format!("night {n}"),
        count: Some(1_000),
        ..play(20 + n % 40, n as i64, "night")
    });
    append(&mut taste, "u", night.collect()).await;
    let before = profile(&mut taste, "u").await;
    let scope = Scope::Context("night".into());
    taste
        .create_exclusion(create("u", rule("r", scope)))
        .await
        .expect("made");
    let (after, never) = (
        profile(&mut taste, "u").await,
        profile(&mut taste, "never").await,
    );
    assert_ne!(before.vector, never.vector);
    assert_eq!(after.vector, never.vector, "bit for bit");
    assert_eq!(after.events_excluded, 1_000);
    server.stop().await.expect("drains");
}
