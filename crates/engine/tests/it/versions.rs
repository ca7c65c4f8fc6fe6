//! Opening, verifying and warming a version, and refusing what is not one.

use refrain_engine::{OpenMode, Version, WarmError};

use crate::fixture::{Blueprint, ITEMS, id, music};

#[test]
fn a_sound_version_opens_verifies_and_warms() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = music().write(dir.path()).expect("a bundle");
    for mode in [OpenMode::Map, OpenMode::Populate, OpenMode::Copy] {
        let version = Version::open(&path, mode).expect("opens");
        version.verify().expect("sound");
        let warmth = version.warm().expect("answers as expected");
        assert_eq!(warmth.queries, 5);
        assert!(warmth.recall > 0.89, "{warmth:?}");
        assert_eq!(version.id(), version.manifest().version);
        assert_eq!(
            (version.items().len(), version.index().len()),
            (ITEMS, ITEMS as usize)
        );
        assert_eq!(version.items().ordinal(&id(7)), Some(7));
        assert!(version.has_model());
    }
}

#[test]
fn other_golden_answers_are_refused() {
    let version = Blueprint {
        golden_error: 1e-3,
        ..music().clone()
    }
    .open();
    let refused = version.warm();
    assert!(
        matches!(refused, Err(WarmError::OtherScores { query: 0 })),
        "{refused:?}"
    );
}

#[test]
fn damage_is_found_with_its_place() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = music().write(dir.path()).expect("a bundle");
    for name in ["index.rfs", "items.rfs", "model.rfs", "golden.rfs"] {
        let file = path.join(name);
        let sound = fs_err::read(&file).expect("readable");
        let mut damaged = sound.clone();
        let middle = damaged.len() / 2;
        damaged[middle] ^= 0x10;
        replace(&file, &damaged);
        // What is checked on opening may refuse it already; what is opened must not verify.
        if let Ok(version) = Version::open(&path, OpenMode::Map) {
            let error = version.verify().expect_err(name).to_string();
            assert!(error.contains(name), "{error}");
        }
        replace(&file, &sound[..middle]);
        let error = Version::open(&path, OpenMode::Map)
            .expect_err(name)
            .to_string();
        assert!(error.contains(name), "{error}");
        replace(&file, &sound);
    }
    Version::open(&path, OpenMode::Map)
        .expect("sound again")
        .verify()
        .expect("sound again");
    let error = Version::open(&dir.path().join("nothing"), OpenMode::Map).expect_err("not there");
    assert!(error.to_string().contains("nothing"), "{error}");
}

/// Puts another file in the place of one that may be mapped, which must not change under the map.
fn replace(file: &std::path::Path, bytes: &[u8]) {
    fs_err::remove_file(file).expect("there");
    fs_err::write(file, bytes).expect("writable");
}
