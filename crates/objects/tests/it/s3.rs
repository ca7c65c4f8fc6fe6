use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use refrain_bundle::bundle::{
    BundleWriter, Draft, GOLDEN_FILE, INDEX_FILE, ITEMS_FILE, write_golden,
};
use refrain_bundle::manifest::IndexInfo;
use refrain_bundle::{
    Bundle, Item, Keep, Manifest, NewDelta, OpenMode, PublishError, Store, StoreError, write_delta,
    write_items, write_sections,
};
use refrain_objects::{Cloud, Options};

use crate::proxy::{Proxy, Weather};

const BUCKET: &str = "refrain-test";

/// Where the S3 server is; `None`, said aloud, when nobody started one.
fn server() -> Option<String> {
    let address = std::env::var("REFRAIN_TEST_S3").ok();
    if address.is_none() {
        eprintln!("skipped: no S3 server; tests/s3/run.py starts one and runs this");
    }
    address
}

/// A prefix of the bucket that no other test uses.
fn prefix() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let next = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("s3://{BUCKET}/{}/{next}", std::process::id())
}

/// A store at `url` through `endpoint`, with a cache of its own.
fn store(url: &str, endpoint: &str, cache: &Path) -> Store {
    let setting = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let options = Options {
        request_timeout: Duration::from_secs(1),
        max_retries: 2,
        settings: vec![
            setting("aws_endpoint", endpoint),
            setting("aws_allow_http", "true"),
            setting("aws_access_key_id", "test"),
            setting("aws_secret_access_key", "test"),
            setting("aws_region", "us-east-1"),
        ],
    };
    let cloud = Cloud::open(url, &options).expect("a usable URL");
    Store::remote(Arc::new(cloud), cache.to_owned())
}

/// A bundle whose index has so many bytes.
fn bundle(dir: &Path, seed: u8, bytes: usize) -> PathBuf {
    let target = dir.join(format!("bundle-{seed}"));
    let writer = BundleWriter::create(&target).expect("a new directory");
    let index = vec![seed; bytes];
    writer
        .add(INDEX_FILE, |path| {
            write_sections(path, &[("vectors", &index, true)])
        })
        .expect("written");
    let items = [
        Item {
            id: "a",
            ..Item::default()
        },
        Item {
            id: "b",
            ..Item::default()
        },
    ];
    writer
        .add(ITEMS_FILE, |path| write_items(path, &items))
        .expect("written");
    writer
        .add(GOLDEN_FILE, |path| {
            write_golden(path, 1, 2, &[1.0], &[1, 0], &[2.0, 1.0])
        })
        .expect("written");
    let draft = Draft {
        parent: None,
        create_time: jiff::Timestamp::from_second(1_790_000_000 + i64::from(seed)).expect("a time"),
        items: 2,
        users: 0,
        dim: 1,
        metric: "ip".into(),
        data_watermark: None,
        exclusion_watermark: None,
        index: IndexInfo {
            m: 16,
            ef_construction: 200,
            ef_search: 64,
            recall_at_10: None,
            calibration: Vec::new(),
        },
        model: None,
        command: "a test".into(),
        seed: seed.into(),
        report: "".into(),
    };
    writer.seal(draft).expect("sealed");
    target
}

/// Read by someone who has nothing cached: labels point at versions, versions are whole.
fn assert_whole(url: &str, endpoint: &str) {
    let cache = tempfile::tempdir().expect("a directory");
    let store = store(url, endpoint, cache.path());
    for label in store.labels().expect("listed") {
        store
            .path(&label.version)
            .expect("labels point at versions");
    }
    for info in store.versions().expect("listed") {
        let path = store.path(&info.manifest.version).expect("downloads");
        Bundle::open(&path, OpenMode::Map)
            .expect("opens")
            .verify()
            .expect("verifies");
        store.deltas(&info.manifest.version, 0).expect("whole");
    }
}

#[test]
fn the_life_of_a_version() {
    let Some(server) = server() else { return };
    let (endpoint, url) = (format!("http://{server}"), prefix());
    let dir = tempfile::tempdir().expect("a directory");
    let store = store(&url, &endpoint, &dir.path().join("cache"));
    assert_eq!(store.versions().expect("an empty store"), []);
    assert_eq!(store.label("stable").expect("no label"), None);
    // Several pieces of 16 MiB, the last one short.
    let first = bundle(dir.path(), 1, (40 << 20) + 17);
    let published = store
        .publish(&first, Some("stable"), None, "me")
        .expect("published");
    assert!(published.new);
    let again = store
        .publish(&first, Some("stable"), None, "me")
        .expect("there already");
    assert!(!again.new);
    let path = store.path(&published.version).expect("downloads");
    let read = |path: &Path| fs_read(&path.join(INDEX_FILE));
    assert_eq!(read(&path), read(&first));

    let second = bundle(dir.path(), 2, 100);
    let second = store
        .publish(&second, Some("stable"), None, "me")
        .expect("published")
        .version;
    let back = store.rollback("stable", None, "me").expect("back");
    assert_eq!((&back.version, back.previous), (&published.version, None));
    let stale = store
        .set_label("stable", &second, Some("0123"), "me")
        .expect_err("stale");
    assert!(matches!(stale, StoreError::Conflict { .. }), "{stale}");
    let moved = store
        .set_label("stable", &second, Some(&back.etag), "me")
        .expect("moved");
    assert_eq!(moved.version, second);

    let delta = dir.path().join("delta");
    let items = [Item {
        id: "new",
        ..Item::default()
    }];
    let new = NewDelta {
        version: &second,
        number: 1,
        parent: None,
        dim: 1,
        items: &items,
        vectors: &[1.0],
        factors: None,
        tombstones: &["a"],
        command: "a test",
    };
    write_delta(&delta, &new).expect("written");
    assert!(store.publish_delta(&delta, "me").expect("published").new);
    assert!(!store.publish_delta(&delta, "me").expect("the same").new);
    assert_eq!(store.deltas(&second, 0).expect("whole").len(), 1);
    assert_eq!(store.delta_count(&second).expect("counted"), 1);
    assert_whole(&url, &endpoint);

    let keep = Keep {
        newest: 0,
        younger_than: jiff::SignedDuration::ZERO,
    };
    let third = bundle(dir.path(), 3, 100);
    let third = store
        .publish(&third, None, None, "me")
        .expect("published")
        .version;
    let gone = store.collect(keep, false, "me").expect("collected");
    assert_eq!(gone.versions, [third]);
    assert_eq!(store.versions().expect("listed").len(), 2);
    assert_whole(&url, &endpoint);
}

#[test]
fn of_publishers_at_once_one_wins() {
    let Some(server) = server() else { return };
    let (endpoint, url) = (format!("http://{server}"), prefix());
    let dir = tempfile::tempdir().expect("a directory");
    let bundles: Vec<PathBuf> = (1..=4).map(|seed| bundle(dir.path(), seed, 1000)).collect();
    let results: Vec<Result<String, PublishError>> = thread::scope(|scope| {
        let publish = |bundle: &PathBuf| {
            let (bundle, url, endpoint) = (bundle.clone(), url.clone(), endpoint.clone());
            let cache = dir.path().join("cache");
            scope.spawn(move || {
                // Whoever comes first makes the label.
                let store = store(&url, &endpoint, &cache);
                let published = store.publish(&bundle, Some("stable"), Some(""), "me")?;
                Ok(published.version)
            })
        };
        let threads: Vec<_> = bundles.iter().map(publish).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("no panic"))
            .collect()
    });
    let winners: Vec<&String> = results.iter().flatten().collect();
    assert_eq!(winners.len(), 1, "{results:?}");
    for error in results.iter().filter_map(|result| result.as_ref().err()) {
        let told = matches!(
            error,
            PublishError::Label {
                source: StoreError::Conflict { .. },
                ..
            }
        );
        assert!(told, "{error}");
    }
    let store = store(&url, &endpoint, &dir.path().join("cache"));
    assert_eq!(
        &store.label("stable").expect("read").expect("there").version,
        winners[0]
    );
    assert_eq!(store.versions().expect("listed").len(), 4);
    assert_whole(&url, &endpoint);
}

#[test]
fn a_network_that_fails_or_stalls_ends_with_an_error_and_no_half() {
    let Some(server) = server() else { return };
    let (endpoint, url) = (format!("http://{server}"), prefix());
    let proxy = Proxy::to(&server);
    let dir = tempfile::tempdir().expect("a directory");
    let cache = dir.path().join("cache");
    let through = store(&url, &proxy.url(), &cache);
    let first = bundle(dir.path(), 1, 5000);
    let first = through
        .publish(&first, Some("stable"), None, "me")
        .expect("fair")
        .version;
    let next = bundle(dir.path(), 2, 5000);
    for weather in [Weather::Down, Weather::Stalled, Weather::Cut, Weather::Busy] {
        proxy.set(weather);
        let error = through
            .publish(&next, Some("stable"), None, "me")
            .expect_err("no network");
        assert!(error.to_string().contains(BUCKET), "{weather:?}: {error}");
        through.label("stable").expect_err("no network");
        let direct = store(&url, &endpoint, &cache);
        assert_eq!(
            direct
                .label("stable")
                .expect("read")
                .expect("there")
                .version,
            first
        );
        assert_whole(&url, &endpoint);
        proxy.set(Weather::Fair);
        assert_eq!(
            through
                .label("stable")
                .expect("read")
                .expect("there")
                .version,
            first
        );
    }
    // Storms pass over a publication at every stage of it: some way or other it ends, and what there
    // is, is whole; repeated in fair weather it completes.
    for (seed, storm) in (10..).zip([Weather::Down, Weather::Stalled, Weather::Cut, Weather::Busy])
    {
        let bundle = bundle(dir.path(), seed, 5000);
        let storming = thread::scope(|scope| {
            let publisher = scope.spawn(|| through.publish(&bundle, Some("stable"), None, "me"));
            thread::sleep(Duration::from_millis(u64::from(seed - 9) * 15));
            proxy.set(storm);
            let result = publisher.join().expect("no panic");
            proxy.set(Weather::Fair);
            result
        });
        assert_whole(&url, &endpoint);
        let version = Manifest::read(&bundle).expect("a manifest").version;
        let direct = store(&url, &endpoint, &cache);
        let label = direct.label("stable").expect("read").expect("there");
        if storming.is_ok() {
            assert_eq!(label.version, version);
        }
        let published = through
            .publish(&bundle, Some("stable"), None, "me")
            .expect("fair");
        assert_eq!(published.label.expect("labelled").version, version);
    }
    // Now and then an answer of 503: retried, and nobody notices.
    proxy.set(Weather::Patchy);
    let last = bundle(dir.path(), 3, 5000);
    through
        .publish(&last, Some("stable"), None, "me")
        .expect("retried");
    assert_whole(&url, &endpoint);
}

#[test]
fn what_is_no_store_is_named() {
    let open = |url: &str| {
        refrain_objects::open_store(url, None)
            .expect_err("no store")
            .to_string()
    };
    assert!(open("ftp://host/x").contains("ftp"));
    assert!(open("s3://").contains("s3://"));
    let local = refrain_objects::open_store("file:///tmp/x", None).expect("a directory");
    assert_eq!(local.location(), Path::new("/tmp/x"));
    // Credentials are not in what is printed.
    let options = Options {
        settings: vec![
            ("aws_access_key_id".into(), "me".into()),
            ("aws_secret_access_key".into(), "hush".into()),
            ("aws_region".into(), "eu".into()),
        ],
        ..Options::default()
    };
    let cloud = Cloud::open("s3://bucket/x", &options).expect("usable");
    assert!(!format!("{cloud:?} {options:?}").contains("hush"));
}

fn fs_read(path: &Path) -> Vec<u8> {
    fs_err::read(path).expect("readable")
}
