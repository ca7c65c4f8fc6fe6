//! Two servers that share profiles on PostgreSQL.
//!
//! Needs a server, as `tests/postgres/with_server.sh` starts one; without it these tests are skipped, and
//! say so.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use refrain::v1::exclusion_scope::Scope;
use refrain::v1::recommend_request::Subject;
use refrain::v1::{
    AppendEventsRequest, Consistency, CreateExclusionRequest, DegradedReason,
    DeleteExclusionRequest, DeleteProfileRequest, Event, EventKind, Exclusion, ExclusionEffect,
    ExclusionScope, GetProfileRequest, RecommendRequest, RecommendResponse, SeenPolicy,
};
use tempfile::TempDir;
use tonic::{Code, Status};

use crate::support::{Catalogue, Server};

/// A database of its own.
struct Database {
    server: String,
    name: String,
}

impl Database {
    fn new(name: &str) -> Option<Self> {
        let Ok(server) = std::env::var("REFRAIN_TEST_POSTGRES") else {
            eprintln!("skipped: REFRAIN_TEST_POSTGRES names no PostgreSQL server");
            return None;
        };
        let name = format!("{name}_{}", std::process::id());
        let database = Self { server, name };
        database.admin(&format!("CREATE DATABASE {}", database.name));
        Some(database)
    }

    fn url(&self) -> String {
        let (server, _) = self.server.rsplit_once('/').expect("a database in the URL");
        format!("{server}/{}", self.name)
    }

    fn admin(&self, sql: &str) {
        let done = Command::new("psql")
            .args([&self.server, "-v", "ON_ERROR_STOP=1", "-qAt", "-c", sql])
            .status()
            .expect("psql runs");
        assert!(done.success(), "{sql}");
    }

    fn kick_out(&self) {
        let name = &self.name;
        self.admin(&format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
        ));
    }

    /// As if the server were gone: nobody gets in, and whoever is in is thrown out.
    fn away(&self, away: bool) {
        let name = &self.name;
        self.admin(&format!(
            "ALTER DATABASE {name} ALLOW_CONNECTIONS {}",
            !away
        ));
        if away {
            self.kick_out();
        }
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let sql = format!("DROP DATABASE {} WITH (FORCE)", self.name);
        drop(
            Command::new("psql")
                .args([&self.server, "-qc", &sql])
                .status(),
        );
    }
}

fn replicas(name: &str) -> Option<(Database, TempDir, Server, Server)> {
    let database = Database::new(name)?;
    let home = Catalogue::shared().store();
    let start = || Server::start_in(home.path(), database.url().as_ref(), &[]);
    let (a, b) = (start(), start());
    Some((database, home, a, b))
}

async fn append(server: &Server, user: &str, items: &[String]) -> Result<u64, Status> {
    let events = items.iter().zip(0..).map(|(item, second)| Event {
        event_id: format!("{item}-{second}"),
        item_id: item.clone(),
        event_time: Some(prost_types::Timestamp {
            seconds: 1_700_000_000 + second,
            nanos: 0,
        }),
        kind: EventKind::Play.into(),
        ..Event::default()
    });
    let request = AppendEventsRequest {
        user_id: user.into(),
        events: events.collect(),
    };
    let done = server.taste().await.append_events(request).await?;
    Ok(done.into_inner().profile_revision)
}

fn ban(user: &str, item: &str) -> CreateExclusionRequest {
    CreateExclusionRequest {
        user_id: user.into(),
        exclusion: Some(Exclusion {
            rule_id: format!("ban-{item}"),
            scope: Some(ExclusionScope {
                scope: Some(Scope::ItemId(item.into())),
            }),
            effect: ExclusionEffect::Both.into(),
            ..Exclusion::default()
        }),
    }
}

fn ask(user: &str, revision: u64, allow_stale: bool) -> RecommendRequest {
    RecommendRequest {
        subject: Some(Subject::UserId(user.into())),
        page_size: Some(10),
        seen_policy: SeenPolicy::Allow.into(),
        consistency: Some(Consistency {
            min_profile_revision: revision,
            allow_stale,
        }),
        ..RecommendRequest::default()
    }
}

fn holds(answer: &RecommendResponse, item: &str) -> bool {
    answer.results.iter().any(|result| result.item_id == item)
}

/// A rule made on one replica holds for the very next request to the other, which names its revision.
/// `REFRAIN_STALE_READS` says how many such requests, 300 by default.
#[tokio::test(flavor = "multi_thread")]
async fn a_rule_made_on_one_replica_holds_on_the_other_at_once() {
    let Some((_database, _home, a, b)) = replicas("stale") else {
        return;
    };
    let reads: u64 =
        std::env::var("REFRAIN_STALE_READS").map_or(300, |count| count.parse().expect("a number"));
    let popular = a
        .recommendations()
        .await
        .recommend(ask("nobody", 0, false))
        .await;
    let popular: Vec<String> = popular
        .expect("answered")
        .into_inner()
        .results
        .into_iter()
        .map(|result| result.item_id)
        .collect();
    append(&a, "u", &popular[..5]).await.expect("appended");
    let mut taste = [a.taste().await, b.taste().await];
    let mut recommend = [a.recommendations().await, b.recommendations().await];
    let first = recommend[1]
        .recommend(ask("u", 1, false))
        .await
        .expect("answered");
    let item = first.into_inner().results[0].item_id.clone();
    let mut stale = 0;
    for n in 0..reads {
        let (writer, reader) = if n % 2 == 0 { (0, 1) } else { (1, 0) };
        let banned = n % 4 < 2;
        let revision = if banned {
            let made = taste[writer].create_exclusion(ban("u", &item)).await;
            made.expect("made").into_inner().profile_revision
        } else {
            let request = DeleteExclusionRequest {
                user_id: "u".into(),
                rule_id: format!("ban-{item}"),
                allow_missing: true,
            };
            let gone = taste[writer].delete_exclusion(request).await;
            gone.expect("deleted").into_inner().profile_revision
        };
        let answer = recommend[reader].recommend(ask("u", revision, false)).await;
        let answer = answer.expect("answered").into_inner();
        let read = answer.profile.as_ref().expect("read").revision;
        assert!(read >= revision, "revision {read} instead of {revision}");
        stale += u64::from(holds(&answer, &item) == banned);
    }
    assert_eq!(stale, 0, "of {reads} reads");
    assert_eq!(a.terminate(), Some(0));
    assert_eq!(b.terminate(), Some(0));
}

/// While the store is away nothing is shown that a rule might forbid, unless the caller accepts what was
/// last read; afterwards everything goes on by itself.
#[tokio::test(flavor = "multi_thread")]
async fn without_the_store_rules_that_forbid_fail_closed() {
    let Some((database, _home, a, b)) = replicas("away") else {
        return;
    };
    let popular = a
        .recommendations()
        .await
        .recommend(ask("nobody", 0, false))
        .await;
    let popular = popular.expect("answered").into_inner().results;
    let items: Vec<String> = popular.into_iter().map(|result| result.item_id).collect();
    append(&a, "u", &items[..5]).await.expect("appended");
    let made = a.taste().await.create_exclusion(ban("u", &items[7])).await;
    let revision = made.expect("made").into_inner().profile_revision;
    let mut client = b.recommendations().await;
    client
        .recommend(ask("u", revision, false))
        .await
        .expect("answered");

    database.away(true);
    // The replica notices as soon as its connection ends; from then on nothing comes from its cache.
    let deadline = Instant::now() + Duration::from_secs(20);
    let refused = loop {
        match client.recommend(ask("u", 0, false)).await {
            Err(refused) => break refused,
            Ok(_) => assert!(Instant::now() < deadline, "never noticed"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
    let stale = client
        .recommend(ask("u", 0, true))
        .await
        .expect("as last read");
    let stale = stale.into_inner();
    assert!(
        stale
            .degraded
            .contains(&DegradedReason::ProfileUnavailable.into())
    );
    assert_eq!(stale.profile.as_ref().expect("read").revision, revision);
    assert!(!holds(&stale, &items[7]), "the rules that were read hold");
    let unknown = client.recommend(ask("never-read", 0, true)).await;
    assert_eq!(
        unknown.expect_err("nothing is known").code(),
        Code::Unavailable
    );
    let write = append(&b, "u", &items[8..9]).await;
    assert_eq!(write.expect_err("not durable").code(), Code::Unavailable);
    // What needs no profile is answered.
    let seeds = RecommendRequest {
        subject: Some(Subject::Seeds(refrain::v1::Seeds {
            positive: vec![refrain::v1::Seed {
                seed: Some(refrain::v1::seed::Seed::ItemId(items[0].clone())),
                weight: None,
            }],
            ..Default::default()
        })),
        ..RecommendRequest::default()
    };
    client.recommend(seeds).await.expect("needs no store");

    database.away(false);
    crate::support::until("the store is back", async || {
        append(&b, "u", &items[8..9]).await.is_ok()
    })
    .await;
    let answer = client.recommend(ask("u", revision + 1, false)).await;
    assert!(answer.expect("answered").into_inner().degraded.is_empty());
}

/// A PostgreSQL server that a test may stop. Gone with the value.
struct Own {
    held: Child,
    url: String,
    control: String,
}

impl Own {
    fn start() -> Option<Self> {
        if std::env::var_os("REFRAIN_TEST_POSTGRES").is_none() {
            eprintln!("skipped: REFRAIN_TEST_POSTGRES names no PostgreSQL server");
            return None;
        }
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/postgres/with_server.sh");
        let tell =
            "echo \"$REFRAIN_TEST_POSTGRES\"; echo \"$REFRAIN_TEST_POSTGRES_CTL\"; cat >/dev/null";
        let mut held = Command::new("bash")
            .args([script, "sh", "-c", tell])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("bash runs");
        let mut lines = BufReader::new(held.stdout.take().expect("piped")).lines();
        let mut line = || {
            lines
                .next()
                .expect("the server has started")
                .expect("a line")
        };
        let (url, control) = (line(), line());
        Some(Self { held, url, control })
    }

    /// `immediate` as a crash: it recovers from its log when it starts.
    fn control(&self, what: &str) {
        let mut words = self.control.split(' ');
        let done = Command::new(words.next().expect("a program"))
            .args(words)
            .args(what.split(' '))
            .current_dir("/")
            .status()
            .expect("pg_ctl runs");
        assert!(done.success(), "{what}");
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        drop(self.held.stdin.take());
        drop(self.held.wait());
    }
}

/// The database crashes under load, is away for a while, and comes back, three times: what was acknowledged is
/// there, each once; a request is refused as unavailable or answered, and everything goes on by itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_crashes_under_load_loses_nothing_that_was_acknowledged() {
    const WRITERS: usize = 3;
    let Some(database) = Own::start() else {
        return;
    };
    let home = Catalogue::shared().store();
    let server = Server::start_in(home.path(), database.url.as_ref(), &[]);
    let popular = server
        .recommendations()
        .await
        .recommend(ask("nobody", 0, false))
        .await;
    let popular = popular.expect("answered").into_inner().results;
    let items: Arc<Vec<String>> =
        Arc::new(popular.into_iter().map(|shown| shown.item_id).collect());

    let stop = Arc::new(AtomicBool::new(false));
    let acknowledged: Arc<[AtomicU64; WRITERS]> = Arc::default();
    let refused = Arc::new(AtomicU64::new(0));
    let mut writers = Vec::new();
    for writer in 0..WRITERS {
        let (stop, acknowledged, refused, items) = (
            Arc::clone(&stop),
            Arc::clone(&acknowledged),
            Arc::clone(&refused),
            Arc::clone(&items),
        );
        let (mut taste, mut recommend) = (server.taste().await, server.recommendations().await);
        writers.push(tokio::spawn(async move {
            let user = format!("crash-{writer}");
            let mut revision = 0;
            let mut n = 0;
            while !stop.load(Ordering::Acquire) {
                let event = Event {
                    event_id: format!("e{n}"),
                    item_id: items[n % items.len()].clone(),
                    event_time: Some(prost_types::Timestamp {
                        seconds: 1_700_000_000 + i64::try_from(n).expect("few"),
                        nanos: 0,
                    }),
                    kind: EventKind::Play.into(),
                    ..Event::default()
                };
                let request = AppendEventsRequest {
                    user_id: user.clone(),
                    events: vec![event],
                };
                match taste.append_events(request).await {
                    Ok(done) => {
                        revision = done.into_inner().profile_revision;
                        n += 1;
                        acknowledged[writer].store(n as u64, Ordering::Release);
                    }
                    // Repeated until it is known.
                    Err(status) => {
                        assert_eq!(status.code(), Code::Unavailable, "{status:?}");
                        refused.fetch_add(1, Ordering::AcqRel);
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                }
                match recommend.recommend(ask(&user, revision, false)).await {
                    Ok(answer) => {
                        let read = answer.into_inner().profile.expect("read").revision;
                        assert!(read >= revision, "revision {read} instead of {revision}");
                    }
                    Err(status) => assert_eq!(status.code(), Code::Unavailable, "{status:?}"),
                }
            }
        }));
    }
    let of_all = || -> Vec<u64> {
        acknowledged
            .iter()
            .map(|one| one.load(Ordering::Acquire))
            .collect()
    };
    for _ in 0..3 {
        let before = of_all();
        crate::support::until("every writer is heard again", async || {
            of_all()
                .iter()
                .zip(&before)
                .all(|(now, before)| *now >= before + 20)
        })
        .await;
        let away = refused.load(Ordering::Acquire);
        database.control("--mode immediate stop");
        crate::support::until("writes are refused meanwhile", async || {
            refused.load(Ordering::Acquire) > away
        })
        .await;
        database.control("start");
    }
    let before = of_all();
    crate::support::until("every writer is heard after the last crash", async || {
        of_all()
            .iter()
            .zip(&before)
            .all(|(now, before)| *now >= before + 20)
    })
    .await;
    stop.store(true, Ordering::Release);
    for writer in writers {
        writer.await.expect("no other refusal");
    }
    for (writer, acknowledged) in of_all().into_iter().enumerate() {
        let request = GetProfileRequest {
            user_id: format!("crash-{writer}"),
            ..GetProfileRequest::default()
        };
        let profile = server
            .taste()
            .await
            .get_profile(request)
            .await
            .expect("read");
        let profile = profile.into_inner();
        assert_eq!(profile.events, acknowledged, "of writer {writer}");
        assert_eq!(
            profile.profile_revision, acknowledged,
            "one revision a write"
        );
    }
    assert_eq!(server.terminate(), Some(0));
}

/// Erased on one replica, gone on the other.
#[tokio::test(flavor = "multi_thread")]
async fn an_erasure_holds_on_every_replica() {
    let Some((_database, _home, a, b)) = replicas("erase") else {
        return;
    };
    let items: Vec<String> = (0..3).map(|n| format!("x{n}")).collect();
    let revision = append(&a, "u", &items).await.expect("appended");
    let profile = |min_profile_revision| GetProfileRequest {
        user_id: "u".into(),
        min_profile_revision,
        ..GetProfileRequest::default()
    };
    let mut there = b.taste().await;
    let read = there.get_profile(profile(revision)).await.expect("read");
    assert_eq!(read.into_inner().events, 3);
    let request = DeleteProfileRequest {
        user_id: "u".into(),
        allow_missing: false,
    };
    let erased = a
        .taste()
        .await
        .delete_profile(request)
        .await
        .expect("erased");
    assert_eq!(erased.into_inner().residual_records, 0);
    crate::support::until("the news", async || {
        let read = b.taste().await.get_profile(profile(0)).await;
        read.expect("read").into_inner().events == 0
    })
    .await;
    assert_eq!(
        append(&b, "u", &items).await.expect("begun anew"),
        revision + 1
    );
}
