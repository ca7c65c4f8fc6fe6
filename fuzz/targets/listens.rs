//! Listening logs, item attributes and lists of ids: delimited text, compressed or not, and Parquet.

#![no_main]

use libfuzzer_sys::fuzz_target;
use refrain_builder::ingest::{ReadOptions, read_ids, read_items, read_listens};

fuzz_target!(|input: &[u8]| {
    let [tolerant, bytes @ ..] = input else {
        return;
    };
    let mut options = ReadOptions::default();
    options.max_bad_rows = u64::from(*tolerant);
    options.max_line_bytes = 1 << 12;
    let paths = [refrain_fuzz::file("log", bytes)];
    if let Ok(log) = read_listens(&paths, &options, &|_, _| {}) {
        for listen in log.listens() {
            assert!(listen.count.is_finite() && listen.count > 0.0);
        }
    }
    let _ = read_items(&paths, &options, &|_, _| {});
    let _ = read_ids(&paths, &options, &|_, _| {});
});
