use std::path::Path;

use super::*;
use crate::items::{Item, write_items};
use crate::manifest::tests::resealed;
use crate::manifest::{IndexInfo, ModelInfo};
use crate::section::write_sections;

/// A small whole bundle at `dir`; another seed gives other bytes.
pub(crate) fn sealed(dir: &Path, seed: u64) -> Manifest {
    let writer = BundleWriter::create(dir).unwrap();
    writer
        .add(INDEX_FILE, |path| {
            write_sections(path, &[("vectors", &seed.to_le_bytes(), true)])
        })
        .unwrap();
    let items = ["a", "b"].map(|id| Item {
        id,
        ..Item::default()
    });
    writer
        .add(ITEMS_FILE, |path| write_items(path, &items))
        .unwrap();
    writer
        .add(GOLDEN_FILE, |path| {
            write_golden(path, 1, 2, &[1.0], &[1, 0], &[2.0, 1.0])
        })
        .unwrap();
    let hyper = serde_json::json!({ "rank": 1 });
    let model = NewModel {
        rank: 1,
        items: 2,
        gram: &[5.0],
        factors: &[1.0, 2.0],
        user_gram: None,
        hyper: &hyper,
    };
    writer
        .add(MODEL_FILE, |path| write_model(path, &model))
        .unwrap();
    writer.seal(Draft { seed, ..draft() }).unwrap()
}

fn draft() -> Draft {
    Draft {
        parent: None,
        create_time: "2026-11-22T19:45:00.5Z".parse().unwrap(),
        items: 2,
        users: 1,
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
        model: Some(ModelInfo {
            rank: 1,
            hyper: serde_json::Value::Null,
        }),
        command: "test".into(),
        seed: 0,
        report: serde_json::Value::Null,
    }
}

#[test]
fn sealed_opened_verified() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("b");
    let manifest = sealed(&path, 1);
    assert!(manifest.version.starts_with("v20261122T194500Z-"));
    let bundle = Bundle::open(&path, OpenMode::Map).unwrap();
    assert_eq!(*bundle.manifest(), manifest);
    assert_eq!(bundle.items().ordinal("b"), Some(1));
    let golden: Vec<_> = bundle.golden().iter().collect();
    assert_eq!(golden, [(&[1.0][..], &[1, 0][..], &[2.0, 1.0][..])]);
    let model = bundle.model().unwrap();
    assert_eq!(
        (model.gram(), model.factors(), model.rank()),
        (&[5.0][..], &[1.0, 2.0][..], 1)
    );
    assert_eq!(bundle.verify().unwrap().files, 4);
    // The same input is the same bundle; another is another.
    assert_eq!(sealed(&dir.path().join("c"), 1), manifest);
    assert_ne!(sealed(&dir.path().join("d"), 2).version, manifest.version);
}

#[test]
fn an_unsealed_bundle_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("b");
    let writer = BundleWriter::create(&path).unwrap();
    writer
        .add(INDEX_FILE, |path| write_sections(path, &[]))
        .unwrap();
    let bad = writer
        .add("../x", |path| write_sections(path, &[]))
        .unwrap_err();
    assert!(matches!(bad, SealError::BadName { .. }));
    drop(writer);
    assert_eq!(fs_err::read_dir(dir.path()).unwrap().count(), 0);

    let writer = BundleWriter::create(&path).unwrap();
    let refused = writer
        .seal(Draft {
            metric: "dot".into(),
            ..draft()
        })
        .unwrap_err();
    assert!(matches!(refused, SealError::Manifest(_)), "{refused}");
    assert_eq!(fs_err::read_dir(dir.path()).unwrap().count(), 0);

    sealed(&path, 1);
    assert!(matches!(
        BundleWriter::create(&path),
        Err(SealError::Exists { .. })
    ));
}

/// Every byte of every file, flipped: the manifest may then still say the same (white space in it is
/// free), all others are found and named, and nothing panics.
#[test]
fn every_flip_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("b");
    let manifest = sealed(&path, 1);
    for name in manifest.files.keys() {
        let file = path.join(name);
        let good = fs_err::read(&file).unwrap();
        // Header and table in steps, as the section file's own tests have every byte of them.
        let positions = (0..8192).step_by(61).chain((8192..good.len()).step_by(3));
        for at in positions {
            let mut bytes = good.clone();
            bytes[at] ^= 1 << (at % 8);
            replace(&file, &bytes);
            let error = match Bundle::open(&path, OpenMode::Map) {
                Err(error) => error.to_string(),
                Ok(bundle) => bundle.verify().unwrap_err().to_string(),
            };
            assert!(
                error.starts_with(file.to_str().unwrap()),
                "{name} {at}: {error}"
            );
        }
        replace(&file, &good);
    }
    let file = path.join("manifest.json");
    let good = fs_err::read(&file).unwrap();
    for at in 0..good.len() {
        let mut bytes = good.clone();
        bytes[at] ^= 1 << (at % 7);
        replace(&file, &bytes);
        let error = Bundle::open(&path, OpenMode::Map).unwrap_err().to_string();
        assert!(error.starts_with(file.to_str().unwrap()), "{at}: {error}");
    }
}

#[test]
fn parts_must_be_there_and_agree() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("b");
    sealed(&path, 1);
    let text = fs_err::read_to_string(path.join("manifest.json")).unwrap();
    let says = |from: &str, to: &str, expect: &str| {
        assert!(text.contains(from), "{from}");
        replace(
            &path.join("manifest.json"),
            resealed(&text.replace(from, to)).as_bytes(),
        );
        let error = Bundle::open(&path, OpenMode::Map).unwrap_err().to_string();
        assert!(error.contains(expect), "{error:?} does not say {expect:?}");
    };
    says("\"items\": 2", "\"items\": 3", "items.rfs: params");
    says("\"dim\": 1", "\"dim\": 2", "golden.rfs: params");
    says("\"rank\": 1", "\"rank\": 2", "model.rfs: params");
    says("\"index.rfs\"", "\"other.rfs\"", "other.rfs");
    says(
        "\"format\": 1",
        "\"format\": 2",
        "bundle format 2 is not supported",
    );
    replace(&path.join("manifest.json"), text.as_bytes());
    fs_err::rename(path.join("golden.rfs"), path.join("gone")).unwrap();
    let error = Bundle::open(&path, OpenMode::Map).unwrap_err().to_string();
    assert!(error.contains("golden.rfs"), "{error}");
    let error = Bundle::open(&dir.path().join("none"), OpenMode::Map)
        .unwrap_err()
        .to_string();
    assert!(error.contains("none"), "{error}");
}

/// A new inode, so that maps of the old bytes keep them.
fn replace(path: &Path, bytes: &[u8]) {
    let _ = fs_err::remove_file(path);
    fs_err::write(path, bytes).unwrap();
}
