//! Damaged sections: refused, or answered wrongly at worst.

use refrain_index::{Filter, Index, OrdinalSet, Scratch, SearchParams, Section};
use refrain_kernels::Metric;

use crate::common::{aligned, factors, open, params, sections, values};

/// A small index: enough items for links, layers and filters, between 65 and 128 dimensions
/// for nibbles, and above for sketches.
fn sound(metric: Metric, dim: usize) -> Vec<Section> {
    let n = if dim > 128 { 4 * dim } else { 300 };
    sections(&factors(60, n, dim), dim, &params(metric))
}

fn replaced(sound: &[Section], at: usize, bytes: &[u8]) -> Vec<Section> {
    let mut damaged = sound.to_vec();
    damaged[at].bytes = aligned(bytes);
    damaged
}

/// Every way of searching. Anything may come back but a panic, an endless loop, an ordinal past the
/// end, or one that the filter rules out.
fn exercise(index: &Index, seed: u64, scratch: &mut Scratch) {
    let query = values(seed, index.dim());
    let heard: OrdinalSet = (0..100).collect();
    let few: OrdinalSet = (0..60).map(|i| i * 7 % 311).collect();
    let exclude = [&heard];
    let filters = [
        Filter::default(),
        Filter {
            exclude: &exclude,
            ..Filter::default()
        },
        Filter {
            allow: Some(&few),
            ..Filter::default()
        },
    ];
    let mut hits = Vec::new();
    for filter in filters {
        let search = SearchParams {
            ef_search: 24,
            filter,
            deadline: None,
            debias: None,
            cap: None,
        };
        for run in [Index::search, Index::search_graph] {
            run(index, &query, 10, &search, scratch, &mut hits).expect("fits");
            assert!(hits.len() <= 10);
            for hit in &hits {
                assert!((hit.ordinal as usize) < index.len());
                assert!(filter.allows(hit.ordinal));
            }
        }
        index
            .search_exact(&query, 10, &filter, scratch, &mut hits)
            .expect("fits");
        assert!(hits.iter().all(|hit| (hit.ordinal as usize) < index.len()));
    }
    for ordinal in [0, 1, u32::try_from(index.len()).expect("few"), u32::MAX] {
        let _ = index.vector(ordinal);
    }
}

#[test]
fn every_truncation_is_refused() {
    for metric in Metric::ALL {
        let sound = sound(metric, 6);
        open(&sound).expect("whole");
        for (at, section) in sound.iter().enumerate() {
            for len in 0..section.bytes.len() {
                let error = open(&replaced(&sound, at, &section.bytes[..len]))
                    .expect_err("a section is cut short")
                    .to_string();
                assert!(error.contains(section.name), "{len} bytes: {error}");
            }
            let longer = [&section.bytes[..], &[0; 4]].concat();
            open(&replaced(&sound, at, &longer)).expect_err("a section is too long");
            let mut without = sound.clone();
            without.remove(at);
            let error = open(&without)
                .expect_err("a section is missing")
                .to_string();
            assert_eq!(error, format!("section {} is missing", section.name));
        }
    }
}

/// 10,000 flips, the same number in each section so that small ones are met as well: one at a time
/// in most, several in some.
#[test]
fn ten_thousand_flips_are_never_more_than_wrong_answers() {
    let mut scratch = Scratch::new();
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut below = |bound: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state >> 33).expect("31 bits") % bound
    };
    for (metric, dim) in [
        (Metric::InnerProduct, 8),
        (Metric::Cosine, 132),
        (Metric::L2, 70),
    ] {
        let sound = sound(metric, dim);
        let targets: Vec<usize> = (0..sound.len())
            .filter(|at| !sound[*at].bytes.is_empty())
            .collect();
        let (mut opened, mut found) = (0, 0);
        for round in 0..3334 {
            let at = targets[round % targets.len()];
            let mut bytes = sound[at].bytes.to_vec();
            for _ in 0..1 + (round % 5) / 4 * below(20) {
                let byte = below(bytes.len());
                bytes[byte] ^= 1 << below(8);
            }
            let Ok(index) = open(&replaced(&sound, at, &bytes)) else {
                continue;
            };
            opened += 1;
            found += usize::from(index.check().is_err());
            exercise(&index, 600 + round as u64 % 7, &mut scratch);
        }
        assert!(opened > 2000 && found > 500, "{metric}: {opened}, {found}");
    }
}

/// Damage that changes the structure, each kind made on purpose, is found and its section named.
#[test]
fn check_finds_what_breaks_the_structure() {
    let sound = sound(Metric::InnerProduct, 8);
    let place = |name: &str| {
        sound
            .iter()
            .position(|s| s.name == name)
            .expect("a section")
    };
    let word = |name: &str, at: usize, value: u32| {
        let section = place(name);
        let mut bytes = sound[section].bytes.to_vec();
        bytes[at * 4..][..4].copy_from_slice(&value.to_le_bytes());
        replaced(&sound, section, &bytes)
    };
    let words =
        |name: &str| -> Vec<u32> { bytemuck::pod_collect_to_vec(&sound[place(name)].bytes[..]) };
    let degree = 12;
    let links = words("index.links");
    let first = links[0];
    let ordinals = words("index.ordinals");
    let cases = [
        ("index.links", word("index.links", 0, 300)),
        ("index.links", word("index.links", 0, u32::MAX - 1)),
        ("index.links", word("index.links", 5 * degree, 5)),
        ("index.links", word("index.links", 1, first)),
        ("index.links", word("index.links", 0, u32::MAX)),
        ("index.nav_items", word("index.nav_items", 0, 300)),
        (
            "index.nav_items",
            word("index.nav_items", 1, words("index.nav_items")[0]),
        ),
        ("index.nav_links", word("index.nav_links", 0, 0)),
        ("index.nav_links", word("index.nav_links", 0, 299)),
        ("index.ordinals", word("index.ordinals", 3, 300)),
        ("index.ordinals", word("index.ordinals", 3, ordinals[4])),
        ("index.ordinals", word("index.places", 3, 300)),
        (
            "index.ordinals",
            word("index.places", 3, words("index.places")[4]),
        ),
    ];
    for (case, (section, damaged)) in cases.iter().enumerate() {
        let index = open(damaged).expect("lengths are right");
        let error = index.check().expect_err("damaged");
        assert_eq!(error.section, *section, "case {case}: {error}");
    }

    // An item that nothing links to.
    let victim = 250;
    let mut cut = links.clone();
    for row in cut.chunks_mut(degree) {
        // Whoever comes after the link moves up, so that the row stays without holes.
        if let Some(at) = row.iter().position(|link| *link == victim) {
            row.copy_within(at + 1.., at);
            row[degree - 1] = u32::MAX;
        }
    }
    let damaged = replaced(&sound, place("index.links"), bytemuck::cast_slice(&cut));
    let error = open(&damaged).expect("lengths are right").check();
    let error = error.expect_err("unreachable").to_string();
    assert!(error.contains("cannot be reached"), "{error}");

    // Codes that none writes: -128, and something after the last dimension.
    for (offset, code) in [(0, 0x80_u8), (8, 1)] {
        let at = place("index.codes");
        let mut bytes = sound[at].bytes.to_vec();
        bytes[offset] = code;
        let error = open(&replaced(&sound, at, &bytes))
            .expect("lengths are right")
            .check();
        assert_eq!(error.expect_err("no such code").section, "index.codes");
    }
}

#[test]
fn check_finds_a_term_that_is_no_number() {
    let sound = sound(Metric::L2, 70);
    let at = sound.iter().position(|s| s.name == "index.terms");
    let at = at.expect("walked by nibbles");
    let mut bytes = sound[at].bytes.to_vec();
    bytes[12..16].copy_from_slice(&f32::NAN.to_le_bytes());
    let index = open(&replaced(&sound, at, &bytes)).expect("lengths are right");
    let error = index.check().expect_err("no number");
    assert_eq!((error.section, error.offset), ("index.terms", 12));
}

/// Any flip among ordinals and places parts the two, and is found.
#[test]
fn no_flip_of_the_numbering_stays_hidden() {
    let sound = sound(Metric::L2, 4);
    for (at, section) in sound.iter().enumerate() {
        if !["index.ordinals", "index.places"].contains(&section.name) {
            continue;
        }
        for bit in (0..section.bytes.len() * 8).step_by(5) {
            let mut bytes = section.bytes.to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let index = open(&replaced(&sound, at, &bytes)).expect("lengths are right");
            index.check().expect_err("one leads elsewhere");
        }
    }
}
