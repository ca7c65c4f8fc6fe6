//! What the logs of exposures and outcomes say after SIGKILL at any moment.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use refrain::v1::recommend_request::Subject;
use refrain::v1::{Outcome, RecommendRequest, ReportOutcomesRequest};

use crate::logged::{Logged, accounts};
use crate::support::{Catalogue, Server, arg};

const WRITERS: usize = 8;
const KILLS: u64 = 6;

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
