use std::path::PathBuf;

use proptest::prelude::*;

use super::*;

const VERSION: &str = "v20261122T194500Z-1a2b3c4d";

fn item<'a>(id: &'a str, tags: &'a [&'a str]) -> Item<'a> {
    Item {
        id,
        title: "Refrain",
        artist: Some("The Band"),
        tags,
        release_time: Some(1_700_000_000),
        popularity: 3.0,
        duration_ms: Some(1_000),
        blocked: false,
    }
}

fn example<'a>(items: &'a [Item<'a>], tombstones: &'a [&'a str]) -> NewDelta<'a> {
    NewDelta {
        version: VERSION,
        number: 1,
        parent: None,
        dim: 2,
        items,
        vectors: &[1.0, 2.0, 3.0, 4.0],
        factors: Some((1, &[5.0, 6.0])),
        tombstones,
        command: "refrain freshen",
    }
}

/// Writes the example and returns its bytes and a directory that lives as long as they are needed.
fn written() -> (tempfile::TempDir, PathBuf, Vec<u8>) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("00000001.rfs");
    let items = [item("a", &["calm", "loud"]), item("ü", &[])];
    write_delta(&path, &example(&items, &["gone", "too"])).unwrap();
    let bytes = fs_err::read(&path).unwrap();
    (dir, path, bytes)
}

fn read(path: &Path) -> Result<DeltaFile, String> {
    let delta = DeltaFile::open(path).map_err(|error| error.to_string())?;
    delta.verify().map_err(|error| error.to_string())?;
    Ok(delta)
}

#[test]
fn what_was_written_is_read() {
    let (_dir, path, bytes) = written();
    let delta = read(&path).unwrap();
    assert_eq!(delta.info().number, 1);
    assert_eq!(delta.info().version, VERSION);
    assert_eq!(delta.vectors(), [1.0, 2.0, 3.0, 4.0]);
    assert_eq!(delta.factors(), Some(&[5.0, 6.0][..]));
    assert_eq!(delta.items().id(1), Some("ü"));
    assert_eq!(delta.items().title(0), "Refrain");
    assert_eq!(delta.tombstones().collect::<Vec<_>>(), ["gone", "too"]);
    assert_eq!(delta.digest(), Digest::of(&bytes));
    let (_other, _, again) = written();
    assert_eq!(bytes, again, "the bytes are a function of what is in it");
}

#[test]
fn what_breaks_a_rule_is_not_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("d");
    let items = [item("a", &[]), item("b", &[])];
    let good = example(&items, &["gone"]);
    let twice = [item("a", &[]), item("a", &[])];
    let nan = [f32::NAN; 4];
    let bad = [
        NewDelta {
            version: "v1",
            ..good
        },
        NewDelta { number: 0, ..good },
        NewDelta { number: 2, ..good },
        NewDelta {
            parent: Some(Digest::of(b"")),
            ..good
        },
        NewDelta { dim: 3, ..good },
        NewDelta {
            vectors: &nan,
            ..good
        },
        NewDelta {
            factors: Some((2, &[1.0])),
            ..good
        },
        NewDelta {
            tombstones: &["a"],
            ..good
        },
        NewDelta {
            tombstones: &["x", "x"],
            ..good
        },
        NewDelta {
            tombstones: &[""],
            ..good
        },
        NewDelta {
            items: &twice,
            ..good
        },
    ];
    for delta in bad {
        assert!(write_delta(&path, &delta).is_err(), "{delta:?}");
        assert!(!path.exists());
    }
    write_delta(&path, &good).unwrap();
}

/// Every truncation, and thousands of flipped bits: an error that names the file, never a panic, and
/// never a delta that passes for whole but is another.
#[test]
fn every_truncation_is_refused() {
    let (_dir, path, bytes) = written();
    for len in (0..bytes.len()).rev() {
        fs_err::OpenOptions::new()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(len as u64)
            .unwrap();
        let error = read(&path).expect_err("a truncated delta is none");
        assert!(error.contains("00000001.rfs"), "cut to {len}: {error}");
    }
}

#[test]
fn flipped_bits_are_found() {
    let (_dir, path, bytes) = written();
    let whole = read(&path).unwrap();
    let (mut found, mut harmless) = (0, 0);
    // A prime step: thousands of places, in every section and between them.
    for at in (0..bytes.len()).step_by(7) {
        let bit = at % 8;
        let mut damaged = bytes.clone();
        damaged[at] ^= 1 << bit;
        let place = path.with_file_name("damaged.rfs");
        fs_err::write(&place, &damaged).unwrap();
        match read(&place) {
            Err(_) => found += 1,
            Ok(delta) => {
                // Only what no one reads may differ.
                assert_eq!(delta.vectors(), whole.vectors(), "byte {at}");
                assert_eq!(delta.info(), whole.info(), "byte {at}");
                harmless += 1;
            }
        }
    }
    assert!(found > 1_000, "{found} found, {harmless} harmless");
    assert_eq!(harmless, 0, "padding is checked, too");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Whole pieces overwritten: with checksums that are right, too, where the checksums are hit.
    #[test]
    fn overwritten_pieces_are_errors_or_harmless(
        at in any::<prop::sample::Index>(),
        piece in prop::collection::vec(any::<u8>(), 1..200),
    ) {
        let (_dir, path, mut bytes) = written();
        let at = at.index(bytes.len());
        let len = piece.len().min(bytes.len() - at);
        bytes[at..at + len].copy_from_slice(&piece[..len]);
        let place = path.with_file_name("damaged.rfs");
        fs_err::write(&place, &bytes).unwrap();
        if let Ok(delta) = DeltaFile::open(&place) {
            let _ = delta.verify();
            // Unverified views are total, too.
            let _ = delta.tombstones().count();
            for ordinal in 0..delta.items().len().min(9) {
                let _ = (delta.items().id(ordinal), delta.items().tags(ordinal).count());
            }
        }
    }
}
