use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::section::{OpenMode, SectionSpec, SectionWriter, WriteError};

fn open(path: &Path) -> Items {
    Items::open(&SectionFile::open(path, OpenMode::Map).unwrap()).unwrap()
}

fn written(items: &[Item<'_>]) -> (tempfile::TempDir, Items) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("items.rfs");
    write_items(&path, items).unwrap();
    let items = open(&path);
    (dir, items)
}

#[derive(Debug, Clone)]
struct Record {
    title: String,
    artist: Option<String>,
    tags: Vec<String>,
    release_time: Option<i64>,
    popularity: f32,
    duration_ms: Option<u32>,
    blocked: bool,
}

fn record() -> impl Strategy<Value = Record> {
    let artist = prop::option::of("[ab]{1,2}");
    let tags = prop::collection::vec("[xyz]{1,2}", 0..4);
    let times = prop::option::of(-10i64..10);
    (
        ".{0,5}",
        artist,
        tags,
        times,
        0u8..5,
        prop::option::of(0u32..9),
        any::<bool>(),
    )
        .prop_map(
            |(title, artist, tags, release_time, popularity, duration_ms, blocked)| Record {
                title,
                artist,
                tags,
                release_time,
                popularity: f32::from(popularity),
                duration_ms,
                blocked,
            },
        )
}

proptest! {
    #[test]
    fn agrees_with_the_records(records in prop::collection::vec(record(), 0..60)) {
        let ids: Vec<String> = (0..records.len()).map(|i| format!("id{i}")).collect();
        let tags: Vec<Vec<&str>> =
            records.iter().map(|r| r.tags.iter().map(String::as_str).collect()).collect();
        let list: Vec<Item<'_>> = records.iter().zip(&ids).zip(&tags).map(|((r, id), tags)| Item {
            id,
            title: &r.title,
            artist: r.artist.as_deref(),
            tags,
            release_time: r.release_time,
            popularity: r.popularity,
            duration_ms: r.duration_ms,
            blocked: r.blocked,
        }).collect();
        let (_dir, items) = written(&list);
        items.check().unwrap();
        prop_assert_eq!(items.len() as usize, records.len());
        for (ordinal, (r, id)) in (0u32..).zip(records.iter().zip(&ids)) {
            prop_assert_eq!(items.id(ordinal), Some(&**id));
            prop_assert_eq!(items.ordinal(id), Some(ordinal));
            prop_assert_eq!(items.title(ordinal), &r.title);
            prop_assert_eq!(items.artist(ordinal).map(|a| items.artist_name(a)), r.artist.as_deref());
            prop_assert_eq!(items.release_time(ordinal), r.release_time);
            prop_assert_eq!(items.duration_ms(ordinal), r.duration_ms);
            prop_assert_eq!(items.popularity(ordinal), r.popularity);
            prop_assert_eq!(items.blocked(ordinal), r.blocked);
            let mut got: Vec<&str> = items.tags(ordinal).map(|tag| items.tag_name(tag)).collect();
            let mut expected: Vec<&str> = r.tags.iter().map(String::as_str).collect();
            got.sort_unstable();
            expected.sort_unstable();
            expected.dedup();
            prop_assert_eq!(got, expected);
        }
        for name in ["a", "b", "ab", "zz"] {
            let expected: Vec<u32> = (0u32..).zip(&records)
                .filter(|(_, r)| r.artist.as_deref() == Some(name)).map(|(i, _)| i).collect();
            let artist = items.artist_ordinal(name);
            prop_assert_eq!(artist.is_some(), !expected.is_empty());
            let got: Vec<u32> = artist.into_iter().flat_map(|a| items.items_of_artist(a)).collect();
            prop_assert_eq!(got, expected);
        }
        for name in ["x", "xy", "q"] {
            let expected: Vec<u32> = (0u32..).zip(&records)
                .filter(|(_, r)| r.tags.iter().any(|tag| tag == name)).map(|(i, _)| i).collect();
            let tag = items.tag_ordinal(name);
            let got: Vec<u32> = tag.into_iter().flat_map(|t| items.items_with_tag(t)).collect();
            prop_assert_eq!(got, expected);
        }
        let mut expected: Vec<u32> = (0u32..).zip(&records).map(|(i, _)| i).collect();
        expected.sort_by(|&a, &b| records[b as usize].popularity.total_cmp(&records[a as usize].popularity));
        prop_assert_eq!(items.by_popularity().collect::<Vec<_>>(), expected);
        let most = records.iter().map(|r| r.popularity).fold(0.0, f32::max);
        prop_assert_eq!(items.max_popularity(), most);
    }

    /// Damaged bytes behind a right header: every accessor stays total and in range.
    #[test]
    fn damaged_sections_give_nothing_out_of_range(
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..40),
        probe in "id[0-9]{1,2}",
    ) {
        let ids: Vec<String> = (0..30).map(|i| format!("id{i}")).collect();
        let list: Vec<Item<'_>> = ids.iter().map(|id| Item {
            id, title: "t", artist: Some("a"), tags: &["x", "y"], popularity: 1.0, ..Item::default()
        }).collect();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("items.rfs");
        write_items(&path, &list).unwrap();
        let mut bytes = fs_err::read(&path).unwrap();
        // Everything between the table and the checksums.
        let body = 8192..bytes.len();
        for (at, value) in flips {
            bytes[body.start + at.index(body.len())] = value;
        }
        fs_err::remove_file(&path).unwrap();
        fs_err::write(&path, &bytes).unwrap();
        let file = SectionFile::open(&path, OpenMode::Map).unwrap();
        let Ok(items) = Items::open(&file) else { return Ok(()) };
        let n = items.len();
        prop_assert!(items.ordinal(&probe).is_none_or(|ordinal| ordinal < n));
        for ordinal in (0..n).chain([n, u32::MAX]) {
            let _ = (items.id(ordinal), items.title(ordinal), items.blocked(ordinal));
            prop_assert!(items.artist(ordinal).is_none_or(|artist| artist < items.artists()));
            prop_assert!(items.popularity(ordinal).is_finite() && items.popularity(ordinal) >= 0.0);
            prop_assert!(items.tags(ordinal).all(|tag| tag < items.tag_count()));
            prop_assert!(items.items_of_artist(ordinal).all(|item| item < n));
            prop_assert!(items.items_with_tag(ordinal).all(|item| item < n));
        }
        prop_assert!(items.by_popularity().all(|item| item < n));
        let _ = items.check();
    }
}

#[test]
fn bad_items_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("items.rfs");
    let long = "x".repeat(MAX_TEXT_BYTES + 1);
    let good = Item {
        id: "good",
        ..Item::default()
    };
    let says = |item: Item<'_>, expect: &str| {
        let error = write_items(&path, &[good, item]).unwrap_err();
        assert!(
            matches!(error, WriteError::BadValue { at: 1, .. }),
            "{error}"
        );
        assert!(error.to_string().contains(expect), "{error}");
        assert!(!path.exists());
    };
    says(Item { id: "", ..good }, "1 to 128");
    says(
        Item {
            id: &long[..129],
            ..good
        },
        "1 to 128",
    );
    says(
        Item {
            title: &long,
            ..good
        },
        "title",
    );
    says(
        Item {
            artist: Some(""),
            ..good
        },
        "artist",
    );
    says(
        Item {
            tags: &["a", &long],
            ..good
        },
        "tags",
    );
    says(
        Item {
            tags: &["t"; MAX_TAGS + 1],
            ..good
        },
        "tags",
    );
    says(
        Item {
            popularity: f32::NAN,
            ..good
        },
        "popularity",
    );
    says(
        Item {
            popularity: -1.0,
            ..good
        },
        "popularity",
    );
    says(
        Item {
            duration_ms: Some(u32::MAX),
            ..good
        },
        "stand for none",
    );
    let twice = write_items(&path, &[good, good]).unwrap_err();
    assert!(matches!(
        twice,
        WriteError::Duplicate {
            first: 0,
            second: 1,
            ..
        }
    ));
    write_items(
        &path,
        &[Item {
            id: &long[..128],
            ..good
        }],
    )
    .unwrap();
}

#[test]
fn check_finds_what_a_writer_got_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("items.rfs");
    let by_x = Item {
        artist: Some("x"),
        ..Item::default()
    };
    let items = [
        Item {
            id: "a",
            tags: &["t"],
            ..by_x
        },
        Item { id: "b", ..by_x },
        Item {
            id: "c",
            ..Item::default()
        },
    ];
    write_items(&path, &items).unwrap();
    let file = SectionFile::open(&path, OpenMode::Map).unwrap();
    let damage = |name: &str, edit: &dyn Fn(&mut Vec<u8>)| {
        let copy = dir.path().join("copy.rfs");
        SectionWriter::write(&copy, |writer| {
            file.sections().try_for_each(|info| {
                let mut bytes = file.section(&info.name).unwrap().to_vec();
                if info.name == name {
                    edit(&mut bytes);
                }
                let spec = SectionSpec {
                    element_len: info.element_len,
                    ..SectionSpec::new(&info.name)
                };
                writer.add(spec, &bytes)
            })
        })
        .unwrap();
        open(&copy).check().map_err(|error| error.section)
    };
    assert_eq!(damage("none", &|_| ()), Ok(()));
    assert_eq!(
        damage("by_popularity", &|b| b[0] = 1),
        Err("by_popularity".into())
    );
    assert_eq!(
        damage("by_popularity", &|b| b.swap(0, 4)),
        Err("by_popularity".into())
    );
    assert_eq!(
        damage("ids.bytes", &|b| b[1] = b'z'),
        Err("ids.offsets".into())
    );
    assert_eq!(
        damage("ids.slots", &|b| b.fill(0)),
        Err("ids.offsets".into())
    );
    assert_eq!(
        damage("popularity", &|b| b[3] = 0xff),
        Err("popularity".into())
    );
    let says = |name, edit: &dyn Fn(&mut Vec<u8>), section: &str| {
        assert_eq!(damage(name, edit), Err(section.into()), "{name}");
    };
    says("artist", &|b| b[0] = 9, "artist_items.values");
    says("artist", &|b| b[8..].fill(0), "artist");
    says("artist_items.values", &|b| b[0] = 1, "artist_items.offsets");
    says("artist_items.values", &|b| b[4] = 2, "artist_items.values");
    says("tag_items.values", &|b| b[0] = 1, "tag_items.values");
}
