//! What it costs to open and to verify a bundle of a million items of 64 dimensions.
//!
//! `cargo bench -p refrain-bundle`. The index's sections have their real sizes but hold numbers, not
//! a graph: neither opening nor verifying a bundle looks into them. Everything is in the page cache;
//! opening reads a manifest, four headers and tables, and a few pages of items either way.

use std::path::Path;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use refrain_bundle::bundle::{
    BundleWriter, Draft, GOLDEN_FILE, INDEX_FILE, ITEMS_FILE, MODEL_FILE, NewModel, write_golden,
    write_model,
};
use refrain_bundle::manifest::{IndexInfo, ModelInfo};
use refrain_bundle::{Bundle, Item, OpenMode, write_items, write_sections};

const ITEMS: u32 = 1_000_000;
const DIM: u32 = 64;

criterion_group!(benches, bundle);
criterion_main!(benches);

fn bundle(criterion: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("bundle");
    write(&path);
    let open = || Bundle::open(&path, OpenMode::Map).expect("the bundle opens");

    let mut group = criterion.benchmark_group("bundle 1M x 64");
    group.bench_function("open", |bencher| bencher.iter(open));
    let bundle = open();
    group.bench_function("look an id up", |bencher| {
        let mut at = 0u32;
        bencher.iter(|| {
            at = at.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            bundle.items().ordinal(&id(at % ITEMS))
        });
    });
    let bytes = bundle
        .manifest()
        .files
        .values()
        .map(|file| file.bytes)
        .sum();
    group.throughput(Throughput::Bytes(bytes)).sample_size(10);
    group.bench_function("verify", |bencher| {
        bencher.iter(|| bundle.verify().expect("the bundle verifies"));
    });
    let index = bundle.index_sections();
    group.throughput(Throughput::Bytes(index.file_len()));
    group.bench_function("verify index.rfs", |bencher| {
        bencher.iter(|| index.verify().expect("the index verifies"));
    });
}

fn id(ordinal: u32) -> String {
    format!("spotify:track:{ordinal:022}")
}

fn write(path: &Path) {
    let writer = BundleWriter::create(path).expect("a place for the bundle");
    let values = |n: u32| -> Vec<u8> {
        (0..n)
            .flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes())
            .collect()
    };
    let (vectors, links) = (values(ITEMS * DIM), values(ITEMS * 32));
    writer
        .add(INDEX_FILE, |path| {
            write_sections(
                path,
                &[("links", &links, true), ("vectors", &vectors, true)],
            )
        })
        .expect("index");
    let ids: Vec<String> = (0..ITEMS).map(id).collect();
    let artists: Vec<String> = (0..ITEMS / 10).map(|i| format!("artist {i}")).collect();
    let items: Vec<Item<'_>> = ids
        .iter()
        .enumerate()
        .map(|(i, id)| Item {
            id,
            title: "a title of some length",
            artist: artists.get(i / 10).map(String::as_str),
            tags: &["rock", "night"],
            ..Item::default()
        })
        .collect();
    writer
        .add(ITEMS_FILE, |path| write_items(path, &items))
        .expect("items");
    let queries = vec![1.0; 256 * DIM as usize];
    writer
        .add(GOLDEN_FILE, |path| {
            write_golden(path, DIM, 10, &queries, &[0; 2560], &[1.0; 2560])
        })
        .expect("golden queries");
    let gram = vec![0.0; (DIM * DIM) as usize];
    let factors = vec![0.0; (ITEMS * DIM) as usize];
    let hyper = serde_json::Value::Null;
    let model = NewModel {
        rank: DIM,
        items: ITEMS,
        gram: &gram,
        factors: &factors,
        user_gram: None,
        hyper: &hyper,
    };
    writer
        .add(MODEL_FILE, |path| write_model(path, &model))
        .expect("model");
    let index = IndexInfo {
        m: 16,
        ef_construction: 200,
        ef_search: 64,
        recall_at_10: None,
        calibration: Vec::new(),
    };
    let draft = Draft {
        parent: None,
        create_time: jiff::Timestamp::UNIX_EPOCH,
        items: ITEMS,
        users: 0,
        dim: DIM,
        metric: "ip".into(),
        data_watermark: None,
        exclusion_watermark: None,
        index,
        model: Some(ModelInfo { rank: DIM, hyper }),
        command: "bench".into(),
        seed: 0,
        report: serde_json::Value::Null,
    };
    writer.seal(draft).expect("sealed");
}
