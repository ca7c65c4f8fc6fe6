//! What was acknowledged survives SIGKILL at any moment.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use refrain::v1::recommend_request::Subject;
use refrain::v1::{
    AppendEventsRequest, Event, EventKind, GetProfileRequest, Outcome, RecommendRequest,
    ReportOutcomesRequest,
};

use crate::logged::{Logged, accounts};
use crate::support::{Catalogue, Server, arg};

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

/// What clients of a server that is killed know of it.
#[derive(Default)]
struct Heard {
    /// Ids of the exposures that were answered.
    exposures: BTreeSet<String>,
    /// Requests whose outcome was acknowledged.
    outcomes: BTreeSet<String>,
}

/// Asks, and reports what came of every third answer, until the server is gone.
async fn listen_until_it_dies(server: &Server, name: String, heard: Arc<Mutex<Heard>>) {
    let (mut ask, mut feedback) = (server.recommendations().await, server.feedback().await);
    let listening = async move {
        for n in 0.. {
            let (request_id, unit) = (format!("{name}-{n}"), format!("user-{n}"));
            let request = RecommendRequest {
                request_id: request_id.clone(),
                subject: Some(Subject::UserId(unit.clone())),
                page_size: Some(5),
                ..RecommendRequest::default()
            };
            let Ok(answer) = ask.recommend(request).await else {
                return;
            };
            let exposure_id = answer.into_inner().exposure_id;
            let heard = || heard.lock().expect("not poisoned");
            heard().exposures.insert(exposure_id.clone());
            if n % 3 != 0 {
                continue;
            }
            let outcome = Outcome {
                unit_id: unit,
                request_id: request_id.clone(),
                exposure_id,
                event: "play".to_owned(),
                value: 1.0,
                ..Outcome::default()
            };
            let report = ReportOutcomesRequest {
                outcomes: vec![outcome],
            };
            if feedback.report_outcomes(report).await.is_err() {
                return;
            }
            heard().outcomes.insert(request_id);
        }
    };
    tokio::spawn(listening);
}

/// `REFRAIN_KILLS=100 cargo test -p refrain --test it killed_under_traffic` for as many.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_killed_under_traffic_logs_what_it_said_and_counts_what_it_lost() {
    let kills = std::env::var("REFRAIN_KILLS").ok();
    let kills: u64 = kills.and_then(|text| text.parse().ok()).unwrap_or(KILLS);
    let home = Catalogue::shared().store();
    let (log, config) = (home.path().join("log"), home.path().join("refrain.toml"));
    let text = format!(
        "[exposures]\npath = {:?}\nflush_interval_ms = 20\nroll_bytes = 65536\n",
        arg(&log)
    );
    fs_err::write(&config, text).expect("writable");
    let start = || {
        let profiles = home.path().join("profiles.redb");
        Server::start_in(home.path(), &profiles, &["--config", arg(&config)])
    };
    let heard = Arc::new(Mutex::new(Heard::default()));
    let mut said_to_be_written = 0;
    for kill in 0..kills {
        let server = start();
        for client in 0..WRITERS {
            let name = format!("{kill}-{client}");
            listen_until_it_dies(&server, name, Arc::clone(&heard)).await;
        }
        // Different moments between two flushes, the same in every run of the test.
        tokio::time::sleep(Duration::from_millis(60 + kill * 37 % 400)).await;
        said_to_be_written += server.metric("refrain_log_rows_written_total").await;
        server.kill();
    }
    // The next server brings in order what the last one left.
    assert_eq!(start().terminate(), Some(0));

    let heard = heard.lock().expect("not poisoned");
    let in_flight = kills * WRITERS as u64;
    let many = |n: usize| u64::try_from(n).expect("small");
    let mut rows_in_all = 0;
    for (table, heard_of) in [
        ("exposures", heard.exposures.len()),
        ("outcomes", heard.outcomes.len()),
    ] {
        let places = Logged::read(&log, table).places();
        rows_in_all += many(places.len());
        let distinct: BTreeSet<_> = places.iter().collect();
        assert_eq!(distinct.len(), places.len(), "{table}: a row twice");
        let (mut attempted, mut lost) = (0, 0);
        let accounts = accounts(&log, table);
        assert_eq!(many(accounts.len()), kills + 1, "{table}");
        for (writer, account) in &accounts {
            let found = many(places.iter().filter(|(by, _)| by == writer).count());
            assert_eq!(account.written, found, "{table}: {writer}");
            assert_eq!(account.attempted, account.written + account.lost);
            (attempted, lost) = (attempted + account.attempted, lost + account.lost);
        }
        let crashed = accounts.values().filter(|account| account.crashed).count();
        assert_eq!(many(crashed), kills, "{table}");
        // What was under way when the server died may have been counted, and nobody heard.
        let truth = many(heard_of)..=many(heard_of) + in_flight;
        assert!(
            truth.contains(&attempted),
            "{table}: {attempted} attempted, {heard_of} heard of"
        );
        println!("{table}: {heard_of} heard of, {attempted} attempted, {lost} lost");
    }
    assert!(
        rows_in_all >= said_to_be_written,
        "{rows_in_all} rows, {said_to_be_written} said to be written"
    );

    let exposures = Logged::read(&log, "exposures").exposure_ids();
    let ids: BTreeSet<_> = exposures.iter().cloned().collect();
    assert_eq!(ids.len(), exposures.len(), "an exposure twice");
    let missing = heard.exposures.difference(&ids).count();
    let lost: u64 = accounts(&log, "exposures").values().map(|a| a.lost).sum();
    assert!(many(missing) <= lost, "{missing} missing, {lost} lost");
    let unheard = ids.difference(&heard.exposures).count();
    assert!(
        many(unheard) <= in_flight,
        "{unheard} rows nobody asked for"
    );
    assert!(heard.exposures.len() > 20 && heard.outcomes.len() > 5);

    // What was acknowledged as durable is there.
    let outcomes = Logged::read(&log, "outcomes").texts("request_id");
    let found: BTreeSet<_> = outcomes.iter().cloned().collect();
    assert_eq!(found.len(), outcomes.len(), "an outcome twice");
    let lost: Vec<_> = heard.outcomes.difference(&found).collect();
    assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
}
