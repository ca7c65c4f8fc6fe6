//! What goes wrong outside: broken files, a store that vanishes, a port in use, a full disk.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use refrain::v1::recommend_request::Subject;
use refrain::v1::similar_request::Query;
use refrain::v1::{
    AppendEventsRequest, DegradedReason, Event, EventKind, GetProfileRequest, GetServingRequest,
    Outcome, RecommendRequest, ReportOutcomesRequest, ResultSource, Seed, Seeds, SetLabelRequest,
    SimilarRequest, Vector, seed,
};
use tokio::task::JoinHandle;
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::logged::{Account, Logged, accounts};
use crate::support::{Catalogue, Server, arg, binary, ok, publish, run, stderr, terminate, until};

fn copy_folder(from: &Path, to: &Path) {
    fs_err::create_dir_all(to).expect("folder");
    for entry in from.read_dir().expect("readable") {
        let entry = entry.expect("entry");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("type").is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            fs_err::copy(entry.path(), &target).expect("copied");
            make_writable(&target);
        }
    }
}

/// Published files are read-only; a fault of the disk does not ask.
fn make_writable(path: &Path) {
    let mut permissions = path.metadata().expect("metadata").permissions();
    #[expect(
        clippy::permissions_set_readonly_false,
        reason = "a file of this test, soon to be deleted"
    )]
    permissions.set_readonly(false);
    fs_err::set_permissions(path, permissions).expect("writable");
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = folder
        .read_dir()
        .expect("readable")
        .map(|e| e.expect("entry").path())
        .collect();
    found.sort();
    found
}

#[test]
fn a_broken_bundle_is_found_named_and_not_published() {
    let home = tempfile::tempdir().expect("temporary folder");
    let whole = Catalogue::shared().bundle();
    ok(["verify", arg(&whole)]);
    let store = home.path().join("store");
    for file in files(&whole) {
        let name = file
            .file_name()
            .expect("name")
            .to_str()
            .expect("UTF-8")
            .to_owned();
        let bytes = fs_err::read(&file).expect("read");
        for (how, broken) in [
            ("truncated", bytes[..bytes.len() * 2 / 3].to_vec()),
            ("flipped", {
                let mut b = bytes.clone();
                let at = b.len() / 2;
                b[at] ^= 0x10;
                b
            }),
            ("empty", Vec::new()),
        ] {
            let copy = home.path().join(format!("{name}-{how}"));
            copy_folder(&whole, &copy);
            fs_err::write(copy.join(&name), broken).expect("broken");
            let out = run(["verify", arg(&copy)]);
            assert_eq!(out.status.code(), Some(3), "{name} {how}: {}", stderr(&out));
            assert!(
                stderr(&out).contains(&name),
                "{name} {how}: {}",
                stderr(&out)
            );
            let out = run([
                "publish",
                arg(&copy),
                "--store",
                arg(&store),
                "--label",
                "stable",
            ]);
            assert!(!out.status.success(), "{name} {how} was published");
        }
    }
    let listed: serde_json::Value =
        serde_json::from_str(&ok(["versions", "--store", arg(&store), "--json"])).expect("JSON");
    assert_eq!(
        listed["versions"].as_array().map(Vec::len),
        Some(0),
        "{listed}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_rots_in_the_store_is_refused_and_the_old_one_goes_on() {
    let home = Catalogue::shared().store();
    let server = Server::start(home.path());
    let mut index = server.index().await;
    let good = index
        .get_serving(GetServingRequest {})
        .await
        .expect("serving")
        .into_inner()
        .serving[0]
        .version
        .clone();

    // Another version that was whole when it was published, and then lost a bit on the disk.
    let other = home.path().join("other");
    let model = Catalogue::shared().model();
    ok([
        "build",
        "--model",
        arg(&model),
        "--seed",
        "7",
        "--out",
        arg(&other),
    ]);
    let published = ok([
        "publish",
        arg(&other),
        "--store",
        arg(&home.path().join("store")),
        "--label",
        "candidate",
        "--json",
    ]);
    let published: serde_json::Value = serde_json::from_str(&published).expect("JSON");
    let rotten = published["version"].as_str().expect("version").to_owned();
    let file = home
        .path()
        .join("store/versions")
        .join(&rotten)
        .join("index.rfs");
    let mut bytes = fs_err::read(&file).expect("read");
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    make_writable(&file);
    fs_err::write(&file, bytes).expect("rot");

    // The label may move, for only reading all of it finds the bit; whoever loads it reads all of it.
    let label = SetLabelRequest {
        label: "stable".into(),
        version: rotten.clone(),
        ..SetLabelRequest::default()
    };
    index.set_label(label).await.expect("moved");
    let serving = || {
        let mut index = index.clone();
        async move {
            let now = index.get_serving(GetServingRequest {}).await;
            now.expect("serving").into_inner().serving[0].clone()
        }
    };
    until("the refusal", || async {
        !serving().await.refusal.is_empty()
    })
    .await;
    let now = serving().await;
    assert_eq!((now.wanted, now.version), (rotten, good.clone()));
    assert!(now.refusal.contains("index.rfs"), "{}", now.refusal);
    assert!(now.refusal.contains("offset"), "{}", now.refusal);

    let request = RecommendRequest {
        subject: Some(Subject::UserId("nobody".into())),
        ..RecommendRequest::default()
    };
    let answer = server
        .recommendations()
        .await
        .recommend(request)
        .await
        .expect("the old version answers");
    assert_eq!(
        answer.into_inner().served_by.expect("served_by").version,
        good
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_vanishes_does_not_stop_the_server() {
    let home = Catalogue::shared().store();
    let server = Server::start(home.path());
    let (store, away) = (home.path().join("store"), home.path().join("away"));
    fs_err::rename(&store, &away).expect("moved away");

    let out = run(["versions", "--store", arg(&store)]);
    assert_eq!(out.status.code(), Some(1));
    assert!(stderr(&out).contains(arg(&store)), "{}", stderr(&out));

    let ask = RecommendRequest {
        subject: Some(Subject::UserId("nobody".into())),
        ..RecommendRequest::default()
    };
    let mut client = server.recommendations().await;
    for _ in 0..50 {
        client
            .recommend(ask.clone())
            .await
            .expect("answers without its store");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut index = server.index().await;
    let error = index.set_label(SetLabelRequest {
        label: "stable".into(),
        version: "any".into(),
        ..SetLabelRequest::default()
    });
    assert!(error.await.is_err());

    fs_err::rename(&away, &store).expect("moved back");
    assert_eq!(server.terminate(), Some(0));
}

#[test]
fn a_port_in_use_and_a_missing_store_are_said_before_anything_starts() {
    let home = Catalogue::shared().store();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("address").to_string();
    let profiles = home.path().join("p.redb");
    let store = home.path().join("store");
    let out = run([
        "serve",
        "--store",
        arg(&store),
        "--profiles",
        arg(&profiles),
        "--listen",
        &address,
    ]);
    assert_eq!(out.status.code(), Some(1));
    assert!(stderr(&out).contains(&address), "{}", stderr(&out));

    let nowhere = home.path().join("nowhere");
    let out = run([
        "serve",
        "--store",
        arg(&nowhere),
        "--profiles",
        arg(&profiles),
        "--listen",
        "127.0.0.1:0",
    ]);
    assert_eq!(out.status.code(), Some(1));
    assert!(stderr(&out).contains(arg(&nowhere)), "{}", stderr(&out));
}

#[tokio::test]
async fn a_server_that_is_stopped_while_it_starts_ends_in_order() {
    let home = Catalogue::shared().store();
    // A database that takes the connection and says nothing: the start waits.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await;
    let silent = silent.expect("a free port");
    let database = silent.local_addr().expect("address");
    let starting = Command::new(binary())
        .args(["serve", "--store", arg(&home.path().join("store"))])
        .args([
            "--profiles",
            &format!("postgres://nobody:nothing@{database}/none"),
        ])
        .args(["--listen", "127.0.0.1:0", "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let asked = tokio::time::timeout(Duration::from_secs(30), silent.accept()).await;
    let _waiting = asked.expect("in time").expect("it connects");
    terminate(&starting);
    let out = starting.wait_with_output().expect("ended");
    let said = stderr(&out);
    assert_eq!(out.status.code(), Some(0), "{said}");
    assert!(said.contains("stopped before it served"), "{said}");
    assert!(out.stdout.is_empty(), "said to be ready: {:?}", out.stdout);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_requests_name_the_field() {
    let home = Catalogue::shared().store();
    let server = Server::start(home.path());
    let mut client = server.recommendations().await;
    let of = |subject| RecommendRequest {
        subject: Some(subject),
        ..RecommendRequest::default()
    };
    let user = || Subject::UserId("someone".into());
    let vector = |values: Vec<f32>| {
        Subject::Vector(Vector {
            values,
            ..Vector::default()
        })
    };
    let dim = 64;
    let cases = [
        (RecommendRequest::default(), "subject"),
        (
            RecommendRequest {
                page_size: Some(0),
                ..of(user())
            },
            "page_size",
        ),
        (
            RecommendRequest {
                page_size: Some(1001),
                ..of(user())
            },
            "page_size",
        ),
        (of(Subject::UserId(String::new())), "user_id"),
        (of(Subject::UserId("x".repeat(129))), "user_id"),
        (of(vector(vec![0.5; 3])), "vector.values"),
        (of(vector(vec![f32::NAN; dim])), "vector.values"),
        (of(vector(vec![f32::INFINITY; dim])), "vector.values"),
        (of(Subject::Seeds(Seeds::default())), "seeds"),
        (
            of(Subject::Seeds(Seeds {
                positive: vec![Seed {
                    seed: Some(seed::Seed::ItemId("a".into())),
                    weight: Some(-1.0),
                }],
                ..Seeds::default()
            })),
            "seeds.positive[0].weight",
        ),
        (
            RecommendRequest {
                filter: refrain::v1::Filter {
                    exclude_item_ids: vec!["x"; 10_001].into(),
                    ..Default::default()
                }
                .into(),
                ..of(user())
            },
            "filter.exclude_item_ids",
        ),
        (
            RecommendRequest {
                search: Some(refrain::v1::SearchParams {
                    ef_search: Some(0),
                    ..Default::default()
                }),
                ..of(user())
            },
            "search.ef_search",
        ),
    ];
    for (request, field) in cases {
        let status = client.recommend(request).await.expect_err(field);
        assert_eq!(status.code(), Code::InvalidArgument, "{field}: {status:?}");
        let details = status
            .get_details_bad_request()
            .expect("BadRequest details");
        assert!(
            details
                .field_violations
                .iter()
                .any(|v| v.field.starts_with(field)),
            "{field}: {details:?}"
        );
    }

    let status = client
        .recommend(RecommendRequest {
            index: Some(refrain::v1::IndexSelector {
                target: Some(refrain::v1::index_selector::Target::Version(
                    "v-none".into(),
                )),
            }),
            ..of(user())
        })
        .await
        .expect_err("a version that is not resident");
    assert_eq!(status.code(), Code::FailedPrecondition);

    let status = client
        .similar(SimilarRequest {
            query: Some(Query::ItemId("no such item".into())),
            ..SimilarRequest::default()
        })
        .await
        .expect_err("unknown item");
    assert_eq!(status.code(), Code::NotFound);

    // More than the largest message is refused before it is read whole.
    let status = client
        .recommend(of(vector(vec![0.5; 2 << 20])))
        .await
        .expect_err("8 MiB");
    assert!(
        matches!(
            status.code(),
            Code::OutOfRange | Code::ResourceExhausted | Code::InvalidArgument
        ),
        "{status:?}"
    );

    // And what is merely unknown is answered.
    let answer = client
        .recommend(of(user()))
        .await
        .expect("popular")
        .into_inner();
    assert!(
        answer
            .degraded
            .contains(&DegradedReason::FallbackUsed.into())
    );
    assert!(
        answer
            .results
            .iter()
            .all(|r| r.source() == ResultSource::Popular)
    );
    let seeds = Seeds {
        positive: vec![
            Seed {
                seed: Some(seed::Seed::ItemId("no such item".into())),
                weight: None,
            },
            Seed {
                seed: Some(seed::Seed::ItemId(answer.results[0].item_id.clone())),
                weight: None,
            },
        ],
        ..Seeds::default()
    };
    let answer = client
        .recommend(of(Subject::Seeds(seeds)))
        .await
        .expect("answered")
        .into_inner();
    assert_eq!(answer.unresolved_seeds, ["no such item"]);
    assert_eq!(answer.results.len(), 20);
}

/// A file system of its own that is soon full. None where this user may not mount one.
struct SmallDisk {
    at: tempfile::TempDir,
}

impl SmallDisk {
    fn new(size: &str) -> Option<SmallDisk> {
        let at = tempfile::tempdir().expect("temporary folder");
        let mounted = Command::new("mount")
            .args([
                "-t",
                "tmpfs",
                "-o",
                &format!("size={size}"),
                "tmpfs",
                arg(at.path()),
            ])
            .output()
            .is_ok_and(|o| o.status.success());
        if !mounted {
            eprintln!("skipped: this user may not mount a small file system");
        }
        mounted.then_some(SmallDisk { at })
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a server that is just ending may still hold a file.
        drop(
            Command::new("umount")
                .args(["-l", arg(self.at.path())])
                .status(),
        );
    }
}

#[test]
fn a_full_disk_leaves_no_half_version() {
    let Some(disk) = SmallDisk::new("256k") else {
        return;
    };
    let store = disk.at.path().join("store");
    let bundle = Catalogue::shared().bundle();
    let out = run([
        "publish",
        arg(&bundle),
        "--store",
        arg(&store),
        "--label",
        "stable",
    ]);
    assert_eq!(out.status.code(), Some(1), "{}", stderr(&out));
    assert!(
        stderr(&out).contains(arg(disk.at.path())),
        "{}",
        stderr(&out)
    );
    let versions = store.join("versions");
    assert!(
        !versions.exists() || files(&versions).is_empty(),
        "a half version is visible"
    );
    assert!(
        !store.join("labels/stable.json").exists(),
        "a label points at nothing"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_under_the_profiles_refuses_writes_and_loses_none() {
    let Some(disk) = SmallDisk::new("6m") else {
        return;
    };
    let home = Catalogue::shared().store();
    let profiles = disk.at.path().join("profiles.redb");
    let server = Server::start_in(home.path(), &profiles, &[]);
    let mut taste = server.taste().await;
    let mut acknowledged = 0;
    let refused = loop {
        assert!(acknowledged < 2_000, "the disk never filled up");
        let events = (0..100)
            .map(|i| Event {
                event_id: format!("{acknowledged}-{i}"),
                item_id: format!("{}-{i}", "long".repeat(25)),
                kind: EventKind::Play.into(),
                event_time: Some(prost_types::Timestamp {
                    seconds: 1_700_000_000 + i,
                    nanos: 0,
                }),
                ..Event::default()
            })
            .collect();
        let request = AppendEventsRequest {
            user_id: format!("user-{acknowledged}"),
            events,
        };
        match taste.append_events(request).await {
            Ok(_) => acknowledged += 1,
            Err(status) => break status,
        }
    };
    assert!(
        matches!(refused.code(), Code::Unavailable | Code::ResourceExhausted),
        "{refused:?}"
    );
    assert!(acknowledged > 0);
    // Reads go on, and everything acknowledged is there.
    for n in 0..acknowledged {
        let request = GetProfileRequest {
            user_id: format!("user-{n}"),
            ..GetProfileRequest::default()
        };
        let profile = taste
            .get_profile(request)
            .await
            .expect("readable")
            .into_inner();
        assert_eq!(profile.events, 100, "user-{n}");
    }
    let ask = RecommendRequest {
        subject: Some(Subject::UserId("user-0".into())),
        ..RecommendRequest::default()
    };
    server
        .recommendations()
        .await
        .recommend(ask)
        .await
        .expect("answers");
    server.kill();
    // And after a crash on the full disk as well.
    let server = Server::start_in(home.path(), &profiles, &[]);
    let mut taste = server.taste().await;
    for n in 0..acknowledged {
        let request = GetProfileRequest {
            user_id: format!("user-{n}"),
            ..GetProfileRequest::default()
        };
        let profile = taste
            .get_profile(request)
            .await
            .expect("readable")
            .into_inner();
        assert_eq!(profile.events, 100, "user-{n}");
    }
}

/// Writes until nothing more goes on the disk.
fn fill(disk: &SmallDisk) {
    let mut filler = fs_err::OpenOptions::new()
        .create(true)
        .append(true)
        .open(disk.at.path().join("filler"))
        .expect("a file");
    let full = loop {
        if let Err(error) = filler.write_all(&[7; 4_096]) {
            break error;
        }
    };
    assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
}

/// Asks until it is told to stop; how often it was answered, and what failed.
async fn ask_on(
    server: &Server,
    who: usize,
    stop: Arc<AtomicBool>,
) -> JoinHandle<(u64, Vec<Code>)> {
    let mut client = server.recommendations().await;
    tokio::spawn(async move {
        let (mut answered, mut failed) = (0, Vec::new());
        while !stop.load(Ordering::Relaxed) {
            let ask = RecommendRequest {
                request_id: format!("{who}-{answered}"),
                subject: Some(Subject::UserId(format!("user-{answered}"))),
                page_size: Some(5),
                ..RecommendRequest::default()
            };
            match client.recommend(ask).await {
                Ok(_) => answered += 1,
                Err(status) => failed.push(status.code()),
            }
            tokio::time::sleep(Duration::from_millis(4)).await;
        }
        (answered, failed)
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_under_the_log_fails_no_request_and_counts_what_it_took_no_room_for() {
    let Some(disk) = SmallDisk::new("1m") else {
        return;
    };
    let home = Catalogue::shared().store();
    let (log, config) = (disk.at.path().join("log"), home.path().join("refrain.toml"));
    let text = format!(
        "[exposures]\npath = {:?}\nflush_interval_ms = 100\nroll_bytes = 131072\n",
        arg(&log)
    );
    fs_err::write(&config, text).expect("writable");
    let profiles = home.path().join("profiles.redb");
    let server = Server::start_in(home.path(), &profiles, &["--config", arg(&config)]);
    let stop = Arc::new(AtomicBool::new(false));
    let mut asking = Vec::new();
    for who in 0..3 {
        asking.push(ask_on(&server, who, Arc::clone(&stop)).await);
    }
    let (written, dropped) = (
        "refrain_log_rows_written_total",
        "refrain_log_rows_dropped_total",
    );
    until("rows on disk", || async {
        server.metric(written).await > 0
    })
    .await;

    // A file that was just closed may have left room: filled up again, until rows have been dropped.
    until("rows are dropped", || async {
        fill(&disk);
        server.metric(dropped).await > 100
    })
    .await;
    let outcome = |name: &str| ReportOutcomesRequest {
        outcomes: vec![Outcome {
            unit_id: "user-1".to_owned(),
            request_id: name.to_owned(),
            event: "play".to_owned(),
            ..Outcome::default()
        }],
    };
    let mut feedback = server.feedback().await;
    let mut reported = 0;
    let refused = loop {
        fill(&disk);
        match feedback
            .report_outcomes(outcome(&format!("r{reported}")))
            .await
        {
            Ok(_) => reported += 1,
            Err(status) => break status,
        }
        assert!(reported < 100, "the disk never filled up");
    };
    assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
    let details = refused.get_error_details();
    let retry = details.retry_info().and_then(|info| info.retry_delay);
    assert!(retry.is_some(), "{details:?}");

    // With room again the log goes on by itself, and takes what it had refused.
    fs_err::remove_file(disk.at.path().join("filler")).expect("removable");
    let before = server.metric(written).await;
    until("rows are written again", || async {
        server.metric(written).await > before
    })
    .await;
    let again = feedback
        .report_outcomes(outcome(&format!("r{reported}")))
        .await
        .expect("there is room")
        .into_inner();
    assert_eq!((again.accepted, again.duplicates), (1, 0));
    reported += 1;
    stop.store(true, Ordering::Relaxed);
    let mut served = 0;
    for asking in asking {
        let (answered, failed) = asking.await.expect("no panic");
        assert!(failed.is_empty(), "for a row of the log: {failed:?}");
        served += answered;
    }
    until("all is written or dropped", || async {
        // The outcome that was refused has been dropped as well.
        server.metric(written).await + server.metric(dropped).await == served + reported + 1
    })
    .await;
    let dropped = server.metric(dropped).await;
    assert_eq!(server.terminate(), Some(0));

    let exposures = Logged::read(&log, "exposures");
    let rows = u64::try_from(exposures.places().len()).expect("small");
    let account: Vec<_> = accounts(&log, "exposures").into_values().collect();
    let expected = Account {
        attempted: served,
        written: rows,
        lost: dropped - 1,
        crashed: false,
    };
    assert_eq!(account, [expected]);
    assert_eq!(exposures.dropped, dropped - 1, "named by arm in the files");
    let outcomes = Logged::read(&log, "outcomes").texts("request_id");
    assert_eq!(outcomes.len() as u64, reported);
    println!("{served} served, {rows} rows, {dropped} dropped");
}

#[test]
fn publishing_again_changes_nothing_and_labels_are_compared_before_they_move() {
    let home = tempfile::tempdir().expect("temporary folder");
    let store = home.path().join("store");
    let bundle = Catalogue::shared().bundle();
    publish(&bundle, &store);
    publish(&bundle, &store);
    let listed: serde_json::Value =
        serde_json::from_str(&ok(["versions", "--store", arg(&store), "--json"])).expect("JSON");
    assert_eq!(
        listed["versions"].as_array().map(Vec::len),
        Some(1),
        "{listed}"
    );
    let out = run(["rollback", "--store", arg(&store), "--label", "stable"]);
    assert_eq!(
        out.status.code(),
        Some(1),
        "there is no version before: {}",
        stderr(&out)
    );
    let out = run([
        "promote",
        "v-none",
        "--store",
        arg(&store),
        "--label",
        "stable",
    ]);
    assert_eq!(out.status.code(), Some(1));
    assert!(stderr(&out).contains("v-none"), "{}", stderr(&out));
}
