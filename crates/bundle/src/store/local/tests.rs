use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Barrier;
use std::{env, io, thread};

use super::*;
use crate::bundle::Bundle;
use crate::bundle::tests::sealed;
use crate::manifest::{MANIFEST, Manifest};
use crate::section::OpenMode;
use crate::store::{Label, PublishError, Published};

struct Fixture {
    dir: tempfile::TempDir,
    store: Local,
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Local::at(dir.path().join("store"));
        Self { dir, store }
    }

    /// A sealed bundle outside the store; another for another seed.
    fn bundle(&self, seed: u64) -> (PathBuf, String) {
        let path = self.dir.path().join(format!("bundle-{seed}"));
        let version = sealed(&path, seed).version;
        (path, version)
    }

    /// Publishes a bundle as `stable`.
    fn published(&self, seed: u64) -> (String, Label) {
        let (bundle, version) = self.bundle(seed);
        let published = self
            .store
            .publish(&bundle, Some("stable"), None, "me")
            .unwrap();
        (version, published.label.unwrap())
    }

    fn actions(&self) -> Vec<String> {
        let text = fs_err::read_to_string(self.store.root().join("audit.jsonl")).unwrap();
        let action = |line: &str| {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            line["action"].as_str().unwrap().to_owned()
        };
        text.lines().map(action).collect()
    }
}

/// What must hold at any time: every label points at a version that verifies, and everything under
/// `versions/` does.
fn assert_whole(store: &Local) {
    for label in store.labels().unwrap() {
        store.path(&label.version).unwrap();
    }
    for version in store.versions().unwrap() {
        Bundle::open(&version.path, OpenMode::Map)
            .unwrap()
            .verify()
            .unwrap();
    }
}

#[test]
fn publish_label_and_roll_back() {
    let fixture = Fixture::new();
    let store = &fixture.store;
    let (first, label) = fixture.published(1);
    assert_eq!(
        (&*label.version, label.previous.as_deref()),
        (&*first, None)
    );
    let (second, label) = fixture.published(2);
    assert_eq!(
        (&*label.version, label.previous.as_deref()),
        (&*second, Some(&*first))
    );
    let (third, label) = fixture.published(3);
    assert_eq!(store.label("stable").unwrap().unwrap(), label);
    let versions: Vec<String> = store
        .versions()
        .unwrap()
        .into_iter()
        .map(|v| v.manifest.version)
        .collect();
    let all: BTreeSet<&String> = [&first, &second, &third].into();
    assert_eq!(versions.iter().collect::<BTreeSet<_>>(), all);
    assert!(versions.is_sorted());

    assert_eq!(
        store.rollback("stable", None, "me").unwrap().version,
        second
    );
    let label = store.rollback("stable", None, "me").unwrap();
    assert_eq!((&*label.version, label.previous), (&*first, None));
    let error = store.rollback("stable", None, "me").unwrap_err();
    assert!(
        matches!(&error, StoreError::NoPrevious { version, .. } if *version == first),
        "{error}"
    );
    let error = store.rollback("canary", None, "me").unwrap_err();
    assert!(
        matches!(&error, StoreError::NoLabel { label, .. } if label == "canary"),
        "{error}"
    );
    let expected = [["publish", "set_label"]; 3].concat();
    assert_eq!(
        fixture.actions(),
        [&expected[..], &["rollback", "rollback"]].concat()
    );
    assert_whole(store);
}

#[test]
fn publishing_again_changes_nothing() {
    let fixture = Fixture::new();
    let (bundle, _) = fixture.bundle(1);
    let publish = || {
        fixture
            .store
            .publish(&bundle, Some("stable"), None, "me")
            .unwrap()
    };
    let first = publish();
    let again = publish();
    assert!(first.new && !again.new);
    assert_eq!(first.label, again.label);
    assert_eq!(fixture.actions(), ["publish", "set_label"]);
}

#[test]
fn published_files_are_read_only() {
    let fixture = Fixture::new();
    let (version, _) = fixture.published(1);
    let dir = fixture.store.path(&version).unwrap();
    let mut files = 0;
    for entry in fs_err::read_dir(dir).unwrap() {
        assert!(entry.unwrap().metadata().unwrap().permissions().readonly());
        files += 1;
    }
    assert_eq!(files, 5);
}

#[test]
fn compare_and_set() {
    let fixture = Fixture::new();
    let store = &fixture.store;
    let (first, stable) = fixture.published(1);
    let (second, _) = fixture.published(2);
    let conflict = |result: Result<Label, StoreError>| {
        let error = result.unwrap_err();
        assert!(matches!(error, StoreError::Conflict { .. }), "{error}");
    };
    conflict(store.set_label("stable", &first, Some(&stable.etag), "me"));
    conflict(store.set_label("stable", &first, Some(""), "me"));
    conflict(store.rollback("stable", Some(&stable.etag), "me"));
    conflict(store.set_label("canary", &first, Some("0123"), "me"));
    let canary = store.set_label("canary", &first, Some(""), "me").unwrap();
    let moved = store
        .set_label("canary", &second, Some(&canary.etag), "me")
        .unwrap();
    let back = store.set_label("canary", &first, None, "me").unwrap();
    assert_eq!(
        BTreeSet::from([canary.etag, moved.etag, back.etag]).len(),
        3
    );

    let (bundle, _) = fixture.bundle(3);
    let error = store
        .publish(&bundle, Some("stable"), Some(&stable.etag), "me")
        .unwrap_err();
    assert!(
        matches!(
            &error,
            PublishError::Label {
                source: StoreError::Conflict { .. },
                ..
            }
        ),
        "{error}"
    );
    assert_eq!(store.label("stable").unwrap().unwrap().version, second);
}

#[test]
fn of_two_publishers_one_wins() {
    let fixture = Fixture::new();
    fixture.published(0);
    let bundles = [fixture.bundle(1), fixture.bundle(2)];
    let both_have_copied = Barrier::new(2);
    let results: Vec<Result<Published, PublishError>> = thread::scope(|scope| {
        let publish = |(bundle, _): &'_ (PathBuf, String)| {
            let bundle = bundle.clone();
            let (store, barrier) = (&fixture.store, &both_have_copied);
            scope.spawn(move || {
                store.publish_observed(&bundle, Some("stable"), None, "me", &mut |step| {
                    if step == Step::MoveLabel {
                        barrier.wait();
                    }
                    Ok(())
                })
            })
        };
        let threads: Vec<_> = bundles.iter().map(publish).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    let winner = results.iter().flatten().next().unwrap().version.clone();
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
    let error = results.into_iter().find_map(Result::err).unwrap();
    assert!(
        matches!(
            &error,
            PublishError::Label {
                source: StoreError::Conflict { .. },
                ..
            }
        ),
        "{error}"
    );
    assert_eq!(
        fixture.store.label("stable").unwrap().unwrap().version,
        winner
    );
    assert_whole(&fixture.store);
}

#[test]
fn two_publishers_of_one_bundle_agree() {
    let fixture = Fixture::new();
    let (bundle, version) = fixture.bundle(1);
    let before_rename = Barrier::new(2);
    let new: Vec<bool> = thread::scope(|scope| {
        let publish = |_| {
            scope.spawn(|| {
                let mut observe = |step| {
                    if step == Step::Rename {
                        before_rename.wait();
                    }
                    Ok(())
                };
                fixture
                    .store
                    .publish_observed(&bundle, None, None, "me", &mut observe)
                    .unwrap()
                    .new
            })
        };
        let threads: Vec<_> = [1, 2].map(publish).into();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    assert_eq!(new.iter().filter(|&&new| new).count(), 1);
    assert_eq!(
        fixture.store.versions().unwrap()[0].manifest.version,
        version
    );
    assert_whole(&fixture.store);
}

/// How often a publication of the example bundle calls its observer.
fn steps_of(fixture: &Fixture, bundle: &Path) -> usize {
    let mut steps = 0;
    let scratch = Local::at(fixture.dir.path().join("scratch"));
    let mut observe = |_| {
        steps += 1;
        Ok(())
    };
    scratch
        .publish_observed(bundle, Some("stable"), None, "me", &mut observe)
        .unwrap();
    steps
}

#[test]
fn a_failure_at_any_step_leaves_nothing_behind_and_can_be_repeated() {
    let fixture = Fixture::new();
    let store = &fixture.store;
    let (first, _) = fixture.published(1);
    let steps = steps_of(&fixture, &fixture.bundle(2).0);
    assert!(steps >= 12, "{steps}");
    for fail_at in 0..steps {
        let (bundle, version) = fixture.bundle(10 + fail_at as u64);
        let mut step = 0;
        let mut full = |_| {
            step += 1;
            if step > fail_at {
                Err(io::ErrorKind::StorageFull.into())
            } else {
                Ok(())
            }
        };
        let error = store.publish_observed(&bundle, Some("stable"), None, "me", &mut full);
        let error = error.unwrap_err();
        assert!(
            matches!(error, PublishError::Io(_)),
            "step {fail_at}: {error}"
        );
        assert_eq!(store.label("stable").unwrap().unwrap().version, first);
        assert!(
            names_in(&store.root().join(STAGING)).unwrap().is_empty(),
            "step {fail_at}"
        );
        assert_whole(store);
        let published = store.publish(&bundle, Some("stable"), None, "me").unwrap();
        assert_eq!(published.label.unwrap().version, version);
        store.rollback("stable", None, "me").unwrap();
    }
}

/// The child of [`a_kill_at_any_step_leaves_whole_versions`]: publishes and dies at the given step.
#[test]
fn crash_child() {
    let (Ok(at), Ok(store), Ok(bundle)) = (
        env::var("REFRAIN_TEST_CRASH_AT"),
        env::var("REFRAIN_TEST_STORE"),
        env::var("REFRAIN_TEST_BUNDLE"),
    ) else {
        return; // run as a test of its own, there is nothing to do
    };
    let at: usize = at.parse().unwrap();
    let mut step = 0;
    let mut die = |_| {
        step += 1;
        if step > at {
            std::process::abort();
        }
        Ok(())
    };
    let store = Local::at(store.into());
    let bundle = Path::new(&bundle);
    store
        .publish_observed(bundle, Some("stable"), None, "child", &mut die)
        .unwrap();
}

#[test]
fn a_kill_at_any_step_leaves_whole_versions() {
    let fixture = Fixture::new();
    let store = &fixture.store;
    let (first, _) = fixture.published(1);
    for crash_at in 0..steps_of(&fixture, &fixture.bundle(2).0) {
        let (bundle, version) = fixture.bundle(10 + crash_at as u64);
        let child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "store::local::tests::crash_child", "--quiet"])
            .env("REFRAIN_TEST_CRASH_AT", crash_at.to_string())
            .env("REFRAIN_TEST_STORE", store.root())
            .env("REFRAIN_TEST_BUNDLE", &bundle)
            .output()
            .unwrap();
        assert!(
            !child.status.success(),
            "step {crash_at}: the child did not die"
        );
        assert_eq!(
            store.label("stable").unwrap().unwrap().version,
            first,
            "step {crash_at}"
        );
        assert_whole(store);
        let published = store.publish(&bundle, Some("stable"), None, "me").unwrap();
        assert_eq!(published.label.unwrap().version, version);
        store.rollback("stable", None, "me").unwrap();
    }
}

#[test]
fn a_damaged_bundle_is_not_published() {
    let fixture = Fixture::new();
    let store = &fixture.store;
    let (bundle, version) = fixture.bundle(1);
    for name in ["items.rfs", "golden.rfs", "model.rfs", "index.rfs"] {
        let path = bundle.join(name);
        let good = fs_err::read(&path).unwrap();
        let mut bytes = good.clone();
        let last = bytes.len() - 30;
        bytes[last] ^= 1;
        fs_err::write(&path, &bytes).unwrap();
        let error = store
            .publish(&bundle, Some("stable"), None, "me")
            .unwrap_err();
        assert!(matches!(error, PublishError::Corrupt(_)), "{error}");
        assert!(
            error.to_string().contains(path.to_str().unwrap()),
            "{error}"
        );
        fs_err::write(&path, &bytes[..last]).unwrap();
        let error = store
            .publish(&bundle, Some("stable"), None, "me")
            .unwrap_err()
            .to_string();
        assert!(error.contains("length mismatch"), "{error}");
        fs_err::remove_file(&path).unwrap();
        let error = store
            .publish(&bundle, Some("stable"), None, "me")
            .unwrap_err()
            .to_string();
        assert!(error.contains(path.to_str().unwrap()), "{error}");
        fs_err::write(&path, &good).unwrap();
        assert_eq!(store.versions().unwrap(), []);
        assert_eq!(store.label("stable").unwrap(), None);
    }
    assert_eq!(
        store.publish(&bundle, None, None, "me").unwrap().version,
        version
    );
    // The same id for other content: refused.
    let mut manifest = Manifest::read(&bundle).unwrap();
    manifest.seed = 2;
    let other = manifest.to_bytes().unwrap();
    fs_err::write(bundle.join(MANIFEST), other).unwrap();
    let error = store.publish(&bundle, None, None, "me").unwrap_err();
    assert!(
        matches!(error, PublishError::DifferentContent { .. }),
        "{error}"
    );
}

#[test]
fn bad_names_and_damaged_labels() {
    let fixture = Fixture::new();
    let store = &fixture.store;
    let (version, _) = fixture.published(1);
    for bad in ["", "../x", "Stable", "a/b", "a.json", &"a".repeat(65)] {
        let error = store.set_label(bad, &version, None, "me").unwrap_err();
        assert!(
            matches!(error, StoreError::BadLabel { .. }),
            "{bad}: {error}"
        );
    }
    for bad in ["", "..", "stable", "v20261122T194500Z-1a2b3c4d"] {
        let error = store.set_label("stable", bad, None, "me").unwrap_err();
        assert!(
            matches!(error, StoreError::NoVersion { .. }),
            "{bad}: {error}"
        );
    }
    let file = store.root().join("labels/stable.json");
    let good = fs_err::read_to_string(&file).unwrap();
    let bads = [
        good[..good.len() / 2].to_owned(),
        good.replace("\"format\": 1", "\"format\": 9"),
        good.replace(&version, "../../elsewhere"),
        String::new(),
    ];
    for bad in bads {
        fs_err::write(&file, bad).unwrap();
        let error = store.label("stable").unwrap_err();
        assert!(matches!(error, StoreError::LabelFile { .. }), "{error}");
        assert!(error.to_string().contains("stable.json"), "{error}");
    }
}

#[test]
fn a_store_that_vanishes_is_named() {
    let fixture = Fixture::new();
    let (version, _) = fixture.published(1);
    let (bundle, _) = fixture.bundle(2);
    let root = fixture.store.root().to_owned();
    let mut vanish = |step| match step {
        Step::Verify => fs_err::rename(&root, root.with_extension("gone")),
        _ => Ok(()),
    };
    let error = fixture
        .store
        .publish_observed(&bundle, Some("stable"), None, "me", &mut vanish);
    let error = error.unwrap_err().to_string();
    assert!(error.contains(root.to_str().unwrap()), "{error}");
    let error = fixture.store.path(&version).unwrap_err();
    assert!(matches!(error, StoreError::NoStore { .. }), "{error}");
}
