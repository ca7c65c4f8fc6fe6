//! What opening a version costs, and its first answers: time and memory, with the files in memory and without.
//!
//! ```console
//! $ cargo run --release -p refrain-engine --example opening -- BUNDLE [map|populate|copy]
//! ```
//!
//! Prints one line of JSON. What of the files is in memory beforehand is the caller's business:
//! `benches/opening.py` runs it with and without.

#![expect(clippy::print_stdout, reason = "its output is the measurement")]

use std::path::Path;
use std::time::Instant;

use refrain_bundle::SectionFile;
use refrain_bundle::bundle::INDEX_FILE;
use refrain_engine::{OpenMode, Scratch, Similar, SimilarTo, Version, similar};
use refrain_index::Index;

const QUERIES: u32 = 10_000;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (bundle, mode) = match &args[..] {
        [bundle] => (bundle, "map"),
        [bundle, mode] => (bundle, mode.as_str()),
        _ => panic!("BUNDLE [map|populate|copy]"),
    };
    let mode = match mode {
        "map" => OpenMode::Map,
        "populate" => OpenMode::Populate,
        "copy" => OpenMode::Copy,
        other => panic!("{other} is not map, populate or copy"),
    };
    let start = Instant::now();
    let file = SectionFile::open(&Path::new(bundle).join(INDEX_FILE), mode).expect("an index file");
    let index = Index::open(&|name| file.section(name)).expect("an index");
    let index_us = start.elapsed().as_secs_f64() * 1e6;
    drop((index, file));
    let (mut rss, mut us) = (vec![resident()], Vec::new());
    let start = Instant::now();
    let version = Version::open(Path::new(bundle), mode).expect("a bundle");
    let mut step = |since: Instant| {
        us.push(since.elapsed().as_secs_f64() * 1e6);
        rss.push(resident());
    };
    step(start);
    let mut scratch = Scratch::default();
    let items = version.items().len();
    let mut ask = |query: u32| {
        // Far apart: no query brings the memory of the next one.
        let item = u64::from(query) * 2_654_435_761 % u64::from(items);
        let item = version.items().id(u32::try_from(item).unwrap_or(0));
        let request = Similar::new(SimilarTo::Item(item.expect("an item")), 10);
        similar(&version, &request, &mut scratch).expect("a known item");
    };
    // The first, the next hundred, and all after.
    for range in [0..1, 1..101, 101..QUERIES] {
        let start = Instant::now();
        range.for_each(&mut ask);
        step(start);
    }
    let document = serde_json::json!({
        "items": items,
        "index_open_us": index_us,
        "open_us": us[0],
        "first_us": us[1],
        "next_100_us_each": us[2] / 100.0,
        "rest_us_each": us[3] / f64::from(QUERIES - 101),
        "rss_mb": rss,
    });
    println!("{document}");
}

/// Megabytes of this process in memory.
fn resident() -> f64 {
    let status = fs_err::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.trim().split(' ').next()?.parse::<f64>().ok());
    kilobytes.map_or(f64::NAN, |kilobytes| kilobytes / 1024.0)
}
