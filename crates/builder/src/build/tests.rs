use proptest::prelude::*;
use refrain_bundle::Bundle;
use refrain_index::{Filter, Scratch};

use super::*;
use crate::Dictionary;
use crate::ingest::Attributes;
use crate::model::{ModelCounts, ModelInfo as TrainedInfo};

/// Values in -1..1 from a small generator of its own, so that they never change.
fn values(n: usize, mut state: u64) -> Vec<f32> {
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..n).map(|_| next()).collect()
}

fn options(metric: Metric, threads: usize) -> BuildOptions {
    let time = source_date_epoch("1795376700").unwrap();
    BuildOptions {
        metric,
        threads,
        ef_construction: Some(64),
        ..BuildOptions::new(time)
    }
}

fn vector_set(rows: usize, dim: usize) -> VectorSet {
    let ids = (0..rows).map(|row| format!("track-{row}")).collect();
    VectorSet {
        dim,
        values: values(rows * dim, 7),
        ids,
    }
}

fn model(items: usize, users: usize, rank: usize) -> Model {
    let dictionary =
        |kind: &str, n: usize| -> Dictionary { (0..n).map(|i| format!("{kind}{i}")).collect() };
    let attributes = |i: usize| Attributes {
        title: format!("Title {i}"),
        artist: if i.is_multiple_of(3) {
            String::new()
        } else {
            format!("artist {}", i % 7)
        },
        tags: vec![format!("tag {}", i % 5), "all".into()],
        release_time_s: Some(i as i64),
        duration_ms: None,
        blocked: i == 4,
    };
    Model {
        info: TrainedInfo {
            rank,
            hyper: json!({ "rank": rank }),
            command: "refrain train".into(),
            seed: 1,
            watermark_us: Some(1_700_000_000_000_000),
            exclusion_watermark_us: Some(1_700_000_001_000_000),
            counts: ModelCounts::default(),
            report: json!({ "recall_at_20": 0.5 }),
            calibration: None,
        },
        items: dictionary("item", items),
        users: dictionary("user", users),
        item_factors: values(items * rank, 3),
        user_factors: values(users * rank, 5),
        item_listeners: (0..items).map(|i| u32::try_from(i % 10).unwrap()).collect(),
        item_plays: vec![1.0; items],
        attributes: (0..items).map(attributes).collect(),
        held_out: Vec::new(),
    }
}

fn open(dir: &Path) -> (Bundle, Index) {
    let bundle = Bundle::open(dir, OpenMode::Map).unwrap();
    bundle.verify().unwrap();
    let index = Index::open(&|name| bundle.index_sections().section(name)).unwrap();
    index.check().unwrap();
    (bundle, index)
}

#[test]
fn a_model_becomes_a_bundle_that_agrees_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let model = model(700, 300, 8);
    for metric in [Metric::InnerProduct, Metric::Cosine] {
        let out = dir.path().join(metric.as_str());
        let manifest = build(Source::Model(&model), &out, &options(metric, 2), &()).unwrap();
        let (bundle, index) = open(&out);
        assert_eq!(*bundle.manifest(), manifest);
        assert_eq!(
            (manifest.items, manifest.users, manifest.dim),
            (700, 300, 8)
        );
        assert_eq!(manifest.metric, metric.as_str());
        assert_eq!(manifest.data_watermark.unwrap().as_second(), 1_700_000_000);
        let excluded_until = manifest.exclusion_watermark.unwrap();
        assert_eq!(excluded_until.as_second(), 1_700_000_001);

        let items = bundle.items();
        assert_eq!(items.ordinal("item42"), Some(42));
        assert_eq!(items.title(42), "Title 42");
        assert_eq!(items.artist(42), None);
        assert_eq!(items.artist_name(items.artist(43).unwrap()), "artist 1");
        assert!(items.blocked(4) && !items.blocked(5));
        assert_eq!(items.popularity(19), 9.0);
        assert_eq!(items.by_popularity().next(), Some(9));

        let folded = bundle.model().unwrap();
        assert_eq!(folded.gram(), refrain_als::gram(&model.item_factors, 8, 1));
        // Fold-in solves against what training learned; the index holds a coded copy of it.
        assert_eq!(folded.factors(), model.item_factors);
        assert_eq!(*folded.hyper(), model.info.hyper);

        assert!(bundle.golden().len() >= 150);
        let mut scratch = Scratch::default();
        let mut hits = Vec::new();
        for (query, ordinals, scores) in bundle.golden().iter() {
            index
                .search_exact(query, 10, &Filter::default(), &mut scratch, &mut hits)
                .unwrap();
            assert_eq!(
                hits.iter().map(|hit| hit.ordinal).collect::<Vec<_>>(),
                ordinals
            );
            assert_eq!(hits.iter().map(|hit| hit.score).collect::<Vec<_>>(), scores);
        }
    }
}

#[test]
fn threads_do_not_change_a_byte() {
    let dir = tempfile::tempdir().unwrap();
    let set = vector_set(1500, 12);
    let manifests: Vec<Vec<u8>> = [1, 2, 3]
        .map(|threads| {
            let out = dir.path().join(threads.to_string());
            build(
                Source::Vectors(&set),
                &out,
                &options(Metric::L2, threads),
                &(),
            )
            .unwrap();
            open(&out);
            fs_err::read(out.join("manifest.json")).unwrap()
        })
        .into();
    // The manifest has the digest of every other file.
    assert_eq!(manifests[0], manifests[1]);
    assert_eq!(manifests[0], manifests[2]);
}

#[test]
fn evaluation_agrees_with_exact_search_at_a_pool_of_everything() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("b");
    build(
        Source::Vectors(&vector_set(400, 6)),
        &out,
        &options(Metric::Cosine, 1),
        &(),
    )
    .unwrap();
    let (bundle, _) = open(&out);
    let evaluation = evaluate_index(&bundle, 10, &[10, 400], 1).unwrap();
    assert_eq!(evaluation.pool_sizes.len(), 2);
    assert_eq!(evaluation.pool_sizes[1].recall, 1.0);
    assert!(evaluation.pool_sizes[0].recall <= 1.0);
    let default = evaluate_index(&bundle, 5, &[], 1).unwrap();
    assert_eq!(
        default.pool_sizes[0].ef_search,
        bundle.manifest().index.ef_search
    );
    assert!(default.pool_sizes[0].ef_search >= 64);
}

#[test]
fn small_and_degenerate_inputs() {
    let dir = tempfile::tempdir().unwrap();
    for rows in [1, 2, 3, 11] {
        let out = dir.path().join(rows.to_string());
        build(
            Source::Vectors(&vector_set(rows, 4)),
            &out,
            &options(Metric::L2, 1),
            &(),
        )
        .unwrap();
        let (bundle, _) = open(&out);
        assert_eq!(bundle.golden().k(), rows.min(10));
    }
    let none = dir.path().join("none");
    let built = build(
        Source::Vectors(&vector_set(0, 4)),
        &none,
        &options(Metric::L2, 1),
        &(),
    );
    assert!(matches!(built, Err(BuildError::NoItems)));

    let same = VectorSet {
        values: vec![0.5; 300 * 4],
        ..vector_set(300, 4)
    };
    build(
        Source::Vectors(&same),
        &dir.path().join("same"),
        &options(Metric::L2, 1),
        &(),
    )
    .unwrap();
    let (bundle, _) = open(&dir.path().join("same"));
    assert_eq!(
        bundle.manifest().index.recall_at_10,
        Some(1.0),
        "equals count as found"
    );

    let mut nan = vector_set(20, 4);
    nan.values[5] = f32::NAN;
    let built = build(Source::Vectors(&nan), &none, &options(Metric::L2, 1), &());
    assert!(matches!(built, Err(BuildError::Index(_))));
    let mut twice = vector_set(20, 4);
    twice.ids[7] = "track-3".into();
    let error = build(Source::Vectors(&twice), &none, &options(Metric::L2, 1), &()).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("\"track-3\" occurs twice: as number 3 and as number 7")
    );
    let mut short = model(10, 5, 2);
    short.item_listeners.pop();
    let error = build(Source::Model(&short), &none, &options(Metric::L2, 1), &()).unwrap_err();
    assert!(
        matches!(
            error,
            BuildError::Inconsistent {
                expected: 10,
                got: 9,
                ..
            }
        ),
        "{error}"
    );

    let left: Vec<String> = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with('.') || name == "none")
        .collect();
    assert!(left.is_empty(), "a failed build leaves nothing: {left:?}");

    let again = build(
        Source::Vectors(&same),
        &dir.path().join("same"),
        &options(Metric::L2, 1),
        &(),
    );
    assert!(matches!(
        again,
        Err(BuildError::Seal(SealError::Exists { .. }))
    ));
}

proptest! {
    #[test]
    fn samples_are_distinct_rows_that_ask(rows in 0usize..40, seed: u64) {
        let mut data = values(rows * 3, 11);
        for row in data.chunks_exact_mut(3).step_by(4) {
            row.fill(0.0);
        }
        let queries = Queries::sample(&data, 3, seed, 7);
        prop_assert_eq!(queries.calibration_len() + queries.held_out_len(), rows - rows.div_ceil(4));
        let mut found: Vec<Vec<u32>> =
            queries.golden().chunks_exact(3).map(|row| row.iter().map(|v| v.to_bits()).collect()).collect();
        found.sort();
        found.dedup();
        prop_assert_eq!(found.len(), rows - rows.div_ceil(4));
    }
}

#[test]
fn a_build_starts_from_an_earlier_one() {
    let home = tempfile::tempdir().unwrap();
    let (first, second, third) = (
        home.path().join("first"),
        home.path().join("second"),
        home.path().join("third"),
    );
    let mut set = vector_set(2_000, 16);
    let mut options = options(Metric::Cosine, 2);
    build(Source::Vectors(&set), &first, &options, &()).unwrap();
    // A tenth is gone, as much is new, the rest is elsewhere in the list.
    set.values = set.values.split_off(200 * 16);
    set.ids = set.ids.split_off(200);
    set.values.extend(values(200 * 16, 99));
    set.ids.extend((0..200).map(|new| format!("new-{new}")));
    options.reuse = earlier(&first);
    let manifest = build(Source::Vectors(&set), &second, &options, &()).unwrap();
    let (bundle, _) = open(&first);
    let reuse = &manifest.report["index"]["reuse"];
    assert_eq!(reuse["version"], bundle.version());
    assert_eq!(reuse["refused"], false, "{reuse}");
    let linked = reuse["linked"].as_u64().unwrap();
    assert!((200..300).contains(&linked), "{reuse}");
    let (bundle, index) = open(&second);
    index.check().unwrap();
    assert_eq!(bundle.items().id(1_999), Some("new-199"));
    // The same again gives the same bytes; another dimension is refused and leaves nothing.
    let again = build(Source::Vectors(&set), &third, &options, &()).unwrap();
    assert_eq!(again.version, manifest.version);
    // However long the line, what is measured against is its last bundle that was linked in full.
    let full = json!(Manifest::read(&first).unwrap().version);
    assert_eq!(reuse["reference"]["version"], full);
    options.reuse = earlier(&second);
    let fourth = home.path().join("fourth");
    let next = build(Source::Vectors(&set), &fourth, &options, &()).unwrap();
    let reuse = &next.report["index"]["reuse"];
    assert_eq!(reuse["version"], json!(manifest.version));
    assert_eq!(reuse["reference"]["version"], full);
    options.reuse = earlier(&first);
    let other = vector_set(100, 8);
    let refused = home.path().join("refused");
    let error = build(Source::Vectors(&other), &refused, &options, &()).unwrap_err();
    assert!(error.to_string().contains("dimensions"), "{error}");
    assert!(!refused.exists());
    let error = Earlier::open(&home.path().join("nowhere")).unwrap_err();
    assert!(matches!(error, BuildError::Reuse { .. }), "{error}");
}

fn earlier(dir: &Path) -> Option<Arc<Earlier>> {
    Some(Arc::new(Earlier::open(dir).unwrap()))
}

#[test]
fn a_graph_that_finds_too_little_is_not_reused() {
    let home = tempfile::tempdir().unwrap();
    let (first, second, full) = (
        home.path().join("first"),
        home.path().join("second"),
        home.path().join("full"),
    );
    let set = vector_set(3_000, 16);
    let mut options = options(Metric::Cosine, 2);
    options.m = 3;
    options.ef_construction = Some(3);
    // The earlier one is so small that it finds everything.
    let small = vector_set(200, 16);
    let manifest = build(Source::Vectors(&small), &first, &options, &()).unwrap();
    assert!(manifest.index.recall_at_10 > Some(0.99));
    options.reuse = earlier(&first);
    let manifest = build(Source::Vectors(&set), &second, &options, &()).unwrap();
    assert_eq!(manifest.report["index"]["reuse"]["refused"], true);
    options.reuse = None;
    let plain = build(Source::Vectors(&set), &full, &options, &()).unwrap();
    assert_eq!(manifest.files[INDEX_FILE], plain.files[INDEX_FILE]);
}
