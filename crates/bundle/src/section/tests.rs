use std::path::Path;

use proptest::prelude::*;
use xxhash_rust::xxh3::xxh3_64;

use super::layout::{HEADER_LEN, PREFIX_LEN, aligned};
use super::*;
use crate::corruption::{Corruption, Mismatch};

/// Three sections with gaps between them; the second spans three blocks.
fn example(path: &Path) -> Vec<u8> {
    let long: Vec<u8> = (0..(2 << 20) + 12).map(|i: u32| (i % 251) as u8).collect();
    write_sections(
        path,
        &[
            ("a", b"hello", false),
            ("b", &long, true),
            ("c", b"", false),
        ],
    )
    .unwrap();
    fs_err::read(path).unwrap()
}

fn small(path: &Path) -> Vec<u8> {
    write_sections(
        path,
        &[("a", b"hello", false), ("numbers", &[7; 400], true)],
    )
    .unwrap();
    fs_err::read(path).unwrap()
}

/// Opens `bytes` as a file, touches all that is reachable, and verifies.
fn judge(path: &Path, bytes: &[u8]) -> Result<(), String> {
    let _ = fs_err::remove_file(path);
    fs_err::write(path, bytes).unwrap();
    let file = SectionFile::open(path, OpenMode::Map).map_err(|error| error.to_string())?;
    for info in file.sections() {
        let section = file.section(&info.name).unwrap();
        assert_eq!(section.len() as u64, info.len);
        std::hint::black_box(section.iter().map(|&b| u64::from(b)).sum::<u64>());
    }
    file.verify().map_err(|error| error.to_string())
}

proptest! {
    /// In whatever pieces a section comes, the file is the same.
    #[test]
    fn a_section_in_pieces_is_that_section(
        lens in prop::collection::vec(prop_oneof![1_usize..9, 1_usize << 19..3 << 19], 0..6),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let len = lens.iter().sum::<usize>() / 4 * 4;
        let all: Vec<u8> = (0..=250).cycle().take(len).collect();
        let [whole, pieces] = ["whole", "pieces"].map(|name| dir.path().join(name));
        let spec = SectionSpec::new("long").of::<u32>();
        SectionWriter::write(&whole, |file| {
            file.add(spec, &all)?;
            file.add_array("next", &[1_u64])
        })
        .unwrap();
        let (mut lens, mut at) = (lens.iter(), 0);
        SectionWriter::write(&pieces, |file| {
            file.add_pieces(spec, |piece| {
                let end = lens.next().map_or(len, |more| (at + more).min(len));
                piece.extend_from_slice(&all[at..end]);
                at = end;
                Ok::<_, WriteError>(())
            })?;
            file.add_array("next", &[1_u64])
        })
        .unwrap();
        prop_assert!(fs_err::read(&whole).unwrap() == fs_err::read(&pieces).unwrap());
        SectionFile::open(&pieces, OpenMode::Map).unwrap().verify().unwrap();
    }
}

#[test]
fn what_was_written_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    let bytes = example(&path);
    for mode in [OpenMode::Map, OpenMode::Populate, OpenMode::Copy] {
        let file = SectionFile::open(&path, mode).unwrap();
        file.verify().unwrap();
        assert_eq!(&*file.section("a").unwrap(), b"hello");
        assert_eq!(file.section("b").unwrap()[251], 0);
        assert_eq!(&*file.section("c").unwrap(), b"");
        assert_eq!(file.section("d"), None);
        assert_eq!(file.section("checksums"), None);
        let infos: Vec<_> = file
            .sections()
            .map(|s| (s.name, s.offset, s.len, s.hot))
            .collect();
        let b: u64 = (2 << 20) + 12;
        let expected = [
            ("a".into(), 8192, 5, false),
            ("b".into(), 8256, b, true),
            ("c".into(), (8256 + b).next_multiple_of(64), 0, false),
        ];
        assert_eq!(infos, expected);
        assert_eq!(file.digest(), crate::Digest::of(&bytes));
        file.require_known(&["a", "b", "c"]).unwrap();
        let unknown = file.require_known(&["a", "b"]).unwrap_err();
        assert!(matches!(unknown, OpenError::UnknownSection { section, .. } if section == "c"));
    }
}

/// So a small index is not half gaps.
#[test]
fn only_a_long_hot_section_starts_on_a_huge_page() {
    let (page, long) = (2 << 20, 16 << 20);
    assert_eq!(aligned(8193, true, long), page);
    assert_eq!(aligned(page, true, long), page);
    assert_eq!(aligned(8193, true, long - 1), 8256);
    assert_eq!(aligned(8193, false, long), 8256);
}

#[test]
fn a_section_outlives_its_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    small(&path);
    let section = SectionFile::open(&path, OpenMode::Map)
        .unwrap()
        .section("numbers")
        .unwrap();
    small(&path); // replaced while mapped: a new inode
    fs_err::remove_file(&path).unwrap();
    assert_eq!(*section, [7; 400]);
}

#[test]
fn optional_sections_may_be_unknown() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    SectionWriter::write(&path, |writer| {
        writer.add(
            SectionSpec {
                optional: true,
                ..SectionSpec::new("new")
            },
            b"1",
        )
    })
    .unwrap();
    SectionFile::open(&path, OpenMode::Map)
        .unwrap()
        .require_known(&[])
        .unwrap();
}

#[test]
fn damage_is_named_with_section_and_offset() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    let good = example(&path);
    let b: usize = 8256;
    let check = |at: usize, section: &str, offset: u64| {
        let mut bytes = good.clone();
        bytes[at] ^= 0x10;
        fs_err::remove_file(&path).unwrap();
        fs_err::write(&path, &bytes).unwrap();
        let found: Corruption = match SectionFile::open(&path, OpenMode::Map) {
            Ok(file) => file.verify().unwrap_err(),
            Err(OpenError::Corrupt(corruption)) => corruption,
            Err(other) => panic!("{other}"),
        };
        assert_eq!(
            (&*found.section, found.offset, &*found.file),
            (section, offset, &*path)
        );
    };
    check(20, "header", 0);
    check(HEADER_LEN - 1, "header", 0);
    check(HEADER_LEN + 3, "table", HEADER_LEN as u64);
    check(PREFIX_LEN, "a", PREFIX_LEN as u64);
    check(PREFIX_LEN + 5, "padding", PREFIX_LEN as u64 + 5);
    check(b, "b", b as u64);
    check(b + (1 << 20), "b", b as u64 + (1 << 20));
    check(b + (2 << 20) + 11, "b", b as u64 + (2 << 20));
    check(good.len() - 1, "checksums", good.len() as u64 - 16);
}

/// Files that another version might write: changed, with checksums made right again.
#[test]
fn other_formats_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    let good = small(&path);
    let resealed = |edit: &dyn Fn(&mut [u8])| {
        let mut bytes = good.clone();
        edit(&mut bytes);
        let table = xxh3_64(&bytes[HEADER_LEN..PREFIX_LEN]);
        bytes[64..72].copy_from_slice(&table.to_le_bytes());
        let header = xxh3_64(&bytes[..HEADER_LEN - 8]);
        bytes[HEADER_LEN - 8..HEADER_LEN].copy_from_slice(&header.to_le_bytes());
        judge(&path, &bytes).unwrap_err()
    };
    let says = |edit: &dyn Fn(&mut [u8]), expect: &str| {
        let error = resealed(edit);
        assert!(error.contains(expect), "{error:?} does not say {expect:?}");
    };
    says(&|b| b[0] = 0, "not a section file");
    says(&|b| b[16] = 2, "section format 2 is not supported");
    says(&|b| b[20] ^= 0xff, "little-endian");
    says(&|b| b[24] = 4, "unknown features 0x4");
    says(&|b| b[48] = 65, "1 to 64 sections");
    says(&|b| b[48] = 2, "the checksums are the last section");
    says(&|b| b[HEADER_LEN] = b'A', "names are");
    says(&|b| b[HEADER_LEN + 32] = 0x80, "flags are known");
    says(&|b| b[HEADER_LEN + 36] = 0, "whole elements");
    says(&|b| b[HEADER_LEN + 36] = 3, "whole elements");
    says(&|b| b[HEADER_LEN + 40] = 1, "aligned");
    says(&|b| b[HEADER_LEN + 41] = 0, "overlap");
    says(&|b| b[HEADER_LEN + 55] = 0xff, "within the file");
    says(&|b| b[HEADER_LEN + 56] = 1, "in the order of the table");
    says(
        &|b| b[HEADER_LEN + 64..HEADER_LEN + 72].copy_from_slice(b"a\0\0\0\0\0\0\0"),
        "unique",
    );
}

#[test]
fn every_truncation_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    let good = small(&path);
    judge(&path, &good).unwrap();
    for len in (0..good.len()).rev() {
        let error = judge(&path, &good[..len]).unwrap_err();
        assert!(error.starts_with(path.to_str().unwrap()), "{len}: {error}");
    }
    let longer = [&good[..], &[0]].concat();
    assert!(
        judge(&path, &longer)
            .unwrap_err()
            .contains("length mismatch")
    );
}

#[test]
fn every_byte_of_a_small_file_is_covered() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    let good = small(&path);
    for at in 0..good.len() {
        let mut bytes = good.clone();
        bytes[at] ^= 1 << (at % 8);
        let error = judge(&path, &bytes).unwrap_err();
        assert!(error.starts_with(path.to_str().unwrap()), "{at}: {error}");
    }
}

proptest! {
    /// A writer that lies: the table says anything, all checksums are right. No panic, and every
    /// section that is handed out lies within the file.
    #[test]
    fn hostile_tables_give_no_ranges_outside(
        edits in prop::collection::vec((0..256usize, any::<u8>()), 0..12),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let mut bytes = small(&path);
        for (at, value) in edits {
            bytes[HEADER_LEN + at] = value;
        }
        let table = xxh3_64(&bytes[HEADER_LEN..PREFIX_LEN]);
        bytes[64..72].copy_from_slice(&table.to_le_bytes());
        let header = xxh3_64(&bytes[..HEADER_LEN - 8]);
        bytes[HEADER_LEN - 8..HEADER_LEN].copy_from_slice(&header.to_le_bytes());
        let _ = judge(&path, &bytes);
    }

    #[test]
    fn bursts_are_found(at in 0..9000usize, burst in prop::collection::vec(1..=255u8, 1..40)) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let mut bytes = small(&path);
        let at = at % bytes.len();
        for (byte, xor) in bytes[at..].iter_mut().zip(&burst) {
            *byte ^= xor;
        }
        prop_assert!(judge(&path, &bytes).is_err());
    }

    #[test]
    fn sections_round_trip(
        sections in prop::collection::btree_map(
            "[a-z][a-z0-9_.-]{0,31}".prop_filter("taken", |name| name != "checksums"),
            (prop::collection::vec(any::<u8>(), 0..300), any::<bool>()),
            0..8,
        ),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let list: Vec<(&str, &[u8], bool)> =
            sections.iter().map(|(name, (bytes, hot))| (&**name, &**bytes, *hot)).collect();
        let digest = write_sections(&path, &list).unwrap();
        prop_assert_eq!(digest, crate::FileDigest::of(&fs_err::read(&path).unwrap()));
        let file = SectionFile::open(&path, OpenMode::Map).unwrap();
        file.verify().unwrap();
        for (name, (bytes, _)) in &sections {
            prop_assert_eq!(&file.section(name).unwrap()[..], &bytes[..]);
        }
    }
}

#[test]
fn lengths_in_messages() {
    let corruption = Corruption {
        file: "x/index.rfs".into(),
        section: "vectors".into(),
        offset: 64,
        mismatch: Mismatch::Checksum {
            expected: 1,
            got: 2,
        },
    };
    let text =
        "x/index.rfs: vectors at offset 64: checksum mismatch: expected 0x00000001, got 0x00000002";
    assert_eq!(corruption.to_string(), text);
}
