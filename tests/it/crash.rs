//! What was acknowledged survives SIGKILL at any moment.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use refrain::v1::{AppendEventsRequest, Event, EventKind, GetProfileRequest};

use crate::support::{Catalogue, Server};

const WRITERS: usize = 8;
const KILLS: u64 = 6;

/// Appends until the server is gone; every acknowledged event id goes into `acknowledged`.
async fn write_until_it_dies(
    mut taste: refrain::v1::taste_profile_service_client::TasteProfileServiceClient<
        tonic::transport::Channel,
    >,
    user: String,
    acknowledged: Arc<Mutex<BTreeSet<(String, String)>>>,
) {
    // As many as one page of a profile shows.
    for i in 0..1000 {
        let event_id = format!("event-{i}");
        let event = Event {
            event_id: event_id.clone(),
            item_id: format!("item-{i}"),
            kind: EventKind::Play.into(),
            event_time: Some(prost_types::Timestamp {
                seconds: 1_700_000_000 + i,
                nanos: 0,
            }),
            ..Event::default()
        };
        let request = AppendEventsRequest {
            user_id: user.clone(),
            events: vec![event],
        };
        if taste.append_events(request).await.is_err() {
            return;
        }
        acknowledged
            .lock()
            .expect("not poisoned")
            .insert((user.clone(), event_id));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_when_the_server_is_killed() {
    let home = Catalogue::shared().store();
    let acknowledged = Arc::new(Mutex::new(BTreeSet::new()));
    for round in 0..KILLS {
        let server = Server::start(home.path());
        let mut writers = Vec::new();
        for w in 0..WRITERS {
            let taste = server.taste().await;
            writers.push(tokio::spawn(write_until_it_dies(
                taste,
                format!("user-{round}-{w}"),
                acknowledged.clone(),
            )));
        }
        // Different moments of a commit, the same in every run of the test.
        tokio::time::sleep(Duration::from_millis(120 + 37 * round)).await;
        server.kill();
        for writer in writers {
            writer.await.expect("no panic");
        }
    }

    let server = Server::start(home.path());
    let mut taste = server.taste().await;
    let mut stored = BTreeSet::new();
    for (round, w) in (0..KILLS).flat_map(|round| (0..WRITERS).map(move |w| (round, w))) {
        let user = format!("user-{round}-{w}");
        let request = GetProfileRequest {
            user_id: user.clone(),
            max_events: Some(1000),
            ..GetProfileRequest::default()
        };
        let profile = taste
            .get_profile(request)
            .await
            .expect("profile")
            .into_inner();
        assert_eq!(
            profile.events,
            u64::try_from(profile.newest_events.len()).expect("small"),
            "all events of {user} fit one page in this test"
        );
        for e in profile.newest_events {
            let id = e.event.expect("event").event_id;
            assert!(
                stored.insert((user.clone(), id.clone())),
                "{user} has {id} twice"
            );
        }
    }
    let acknowledged = acknowledged.lock().expect("not poisoned");
    assert!(
        acknowledged.len() > 50,
        "only {} appends were acknowledged",
        acknowledged.len()
    );
    let lost: Vec<_> = acknowledged.difference(&stored).collect();
    assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
}
