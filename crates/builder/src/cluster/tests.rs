#![expect(
    clippy::cast_possible_truncation,
    reason = "small numbers, and rounding to f32 is the point"
)]

use proptest::prelude::*;

use super::*;
use crate::generate::rng::Rng;

/// Points of `super_groups` groups of `groups` groups: the inner ones 8 apart, the outer ones 60, standard
/// deviation 1, in `dim` dimensions. Returns the vectors and the inner group of each.
fn nested(each: usize, dim: usize, seed: u64) -> (Vec<f32>, Vec<u32>) {
    let mut rng = Rng::new(seed, 9);
    let mut normal = move || (0..12).map(|_| rng.unit()).sum::<f64>() - 6.0;
    let centres: Vec<Vec<f64>> = (0..9)
        .map(|group| {
            let angle = |part: usize| part as f64 * std::f64::consts::TAU / 3.0;
            let mut centre = vec![0.0; dim];
            centre[0] = 60.0 * angle(group / 3).cos() + 8.0 * angle(group % 3).cos();
            centre[1] = 60.0 * angle(group / 3).sin();
            centre[2] = 8.0 * angle(group % 3).sin();
            centre
        })
        .collect();
    let (mut vectors, mut of) = (Vec::new(), Vec::new());
    for at in 0..9 * each {
        let group = at % 9;
        vectors.extend(centres[group].iter().map(|x| (x + normal()) as f32));
        of.push(group as u32);
    }
    (vectors, of)
}

fn names(n: usize) -> Vec<String> {
    (0..n).map(|at| format!("i{at}")).collect()
}

fn tracks<'a>(ids: &'a [String], dim: usize, vectors: &'a [f32]) -> Tracks<'a> {
    let ids = ids.iter().map(String::as_str).collect();
    Tracks::new(ids, dim, vectors, Nearness::Position)
}

fn run(tracks: &Tracks<'_>, options: &ClusterOptions) -> Result<Hierarchy, ClusterError> {
    cluster(tracks, options, &|_, _| ()).map(|(found, _)| found)
}

/// The adjusted Rand index of two partitions (Hubert and Arabie 1985): 1 when they are the same, 0 on
/// average when they have nothing to do with one another.
fn adjusted_rand(a: &[u32], b: &[u32]) -> f64 {
    let pairs = |n: u64| (n * n.saturating_sub(1)) as f64 / 2.0;
    let mut both = std::collections::BTreeMap::new();
    let (mut of_a, mut of_b) = (both.clone(), both.clone());
    for (&x, &y) in a.iter().zip(b) {
        *both.entry((x, y)).or_insert(0u64) += 1;
        *of_a.entry((x, 0)).or_insert(0) += 1;
        *of_b.entry((y, 0)).or_insert(0) += 1;
    }
    let sum = |counts: &std::collections::BTreeMap<(u32, u32), u64>| -> f64 {
        counts.values().map(|&count| pairs(count)).sum()
    };
    let (index, a_pairs, b_pairs) = (sum(&both), sum(&of_a), sum(&of_b));
    let expected = a_pairs * b_pairs / pairs(a.len() as u64);
    let largest = (a_pairs + b_pairs) / 2.0;
    (index - expected) / (largest - expected)
}

fn scenes_of(found: &Hierarchy) -> Vec<u32> {
    found.of.iter().map(|of| of.expect("placed")).collect()
}

#[test]
fn the_adjusted_rand_index_is_that_of_its_definition() {
    assert_eq!(adjusted_rand(&[0, 0, 1, 1], &[7, 7, 3, 3]), 1.0);
    // A published example: (2 - 1.6) / (4.5 - 1.6) of 6 points, by hand from the contingency table.
    let got = adjusted_rand(&[0, 0, 0, 1, 1, 1], &[0, 0, 1, 1, 2, 2]);
    assert!((got - (2.0 - 1.2) / (4.5 - 1.2)).abs() < 1e-12, "{got}");
}

/// The stated measure: three groups of three Gaussians each are found, and the tree says the same.
#[test]
fn nested_groups_are_found_and_the_rules_reproduce_them() {
    for (seed, dim) in [(1, 3), (2, 8), (3, 32)] {
        let (vectors, truth) = nested(150, dim, seed);
        let ids = names(truth.len());
        let tracks = tracks(&ids, dim, &vectors);
        // Groups of 150 are small enough, and groups of 450 are not.
        let options = ClusterOptions {
            threshold: 200,
            seed,
            ..ClusterOptions::default()
        };
        let (found, root) = cluster(&tracks, &options, &|_, _| ()).unwrap();
        let rand = adjusted_rand(&scenes_of(&found), &truth);
        assert!(rand >= 0.95, "adjusted Rand {rand} in {dim} dimensions");
        assert!(found.fidelity >= 0.95, "{} reproduced", found.fidelity);
        let root = root.expect("falls apart");
        assert_eq!((root.parts, found.scenes.len()), (3, 12), "{root:?}");
        let paths: Vec<&str> = found
            .scenes
            .iter()
            .map(|scene| scene.path.as_str())
            .collect();
        for path in ["1", "2", "3", "1.1", "3.3"] {
            assert!(paths.contains(&path), "{paths:?}");
        }
        // Points that were not there go where their group went.
        let (fresh, of_fresh) = nested(40, dim, seed + 100);
        let ids = names(of_fresh.len());
        let placed = place(&tracks_of(&ids, dim, &fresh), &found.rules, 2).unwrap();
        let placed: Vec<u32> = placed.into_iter().map(|of| of.expect("placed")).collect();
        let rand = adjusted_rand(&placed, &of_fresh);
        assert!(rand >= 0.95, "adjusted Rand {rand} of later points");
        // Same seed, same scenes.
        for threads in [1, 2, 5] {
            let options = ClusterOptions { threads, ..options };
            assert_eq!(run(&tracks, &options).unwrap(), found, "{threads} threads");
        }
    }
}

fn tracks_of<'a>(ids: &'a [String], dim: usize, vectors: &'a [f32]) -> Tracks<'a> {
    tracks(ids, dim, vectors)
}

/// A cloud has no scenes, however large: nothing is split that does not fall apart.
#[test]
fn a_cloud_is_one_scene_and_can_be_split_all_the_same() {
    let mut rng = Rng::new(4, 4);
    let vectors: Vec<f32> = (0..3_000 * 6)
        .map(|_| ((0..12).map(|_| rng.unit()).sum::<f64>() - 6.0) as f32)
        .collect();
    let ids = names(3_000);
    let tracks = tracks(&ids, 6, &vectors);
    let options = ClusterOptions {
        min_gain: 0.03,
        ..ClusterOptions::default()
    };
    let found = run(&tracks, &options).unwrap();
    assert_eq!(found.scenes.len(), 1, "{:?}", found.scenes);
    assert!(
        found.scenes[0].whole.contains("no split"),
        "{:?}",
        found.scenes
    );
    assert_eq!((found.scenes[0].items, found.fidelity), (3_000, 1.0));
    assert_eq!(found.rules.scene(&[1.0; 6]), Some(0));
    let forced = ClusterOptions {
        min_gain: -2.0,
        max_levels: 2,
        ..options
    };
    assert!(run(&tracks, &forced).unwrap().scenes.len() > 2);
}

#[test]
fn none_one_and_all_alike() {
    let options = ClusterOptions {
        threshold: 1,
        min_items: 1,
        ..ClusterOptions::default()
    };
    assert!(matches!(
        run(&tracks(&[], 2, &[]), &options),
        Err(ClusterError::Empty)
    ));
    let one = run(&tracks(&names(1), 2, &[1.0, 2.0]), &options).unwrap();
    assert_eq!((one.scenes.len(), &*one.of), (1, &[Some(0)][..]));
    let alike = run(&tracks(&names(300), 2, &[0.3; 600]), &options).unwrap();
    assert_eq!(alike.scenes.len(), 1);
    assert_eq!(alike.scenes[0].whole, "all vectors are alike");
    // What was never learned has no direction, and no scene.
    let zero = run(&tracks(&names(2), 2, &[0.0, 0.0, 1.0, 0.0]), &options).unwrap();
    assert_eq!(zero.of, [None, Some(0)]);
    let zeros = run(&tracks(&names(2), 2, &[0.0; 4]), &options).unwrap();
    assert_eq!((zeros.of, zeros.scenes.len()), (vec![None, None], 0));
    // Two places, many times each.
    let two: Vec<f32> = (0..200).flat_map(|at| [f32::from(at % 2u8), 1.0]).collect();
    let two = run(&tracks(&names(200), 2, &two), &options).unwrap();
    assert_eq!(
        (two.scenes.len(), two.fidelity),
        (2, 1.0),
        "{:?}",
        two.scenes
    );
}

#[test]
fn what_cannot_be_clustered_is_named() {
    let options = ClusterOptions::default();
    let ids = names(2);
    let bad = run(&tracks(&ids, 2, &[0.0, 1.0, 2.0, f32::NAN]), &options).unwrap_err();
    assert_eq!(
        bad.to_string(),
        "item 1 (\"i1\"): value 1 of its vector is not finite"
    );
    let wide = vec![1.0; 513];
    let wide = run(&tracks(&names(1), 513, &wide), &options).unwrap_err();
    assert!(wide.to_string().contains("at most 512"), "{wide}");
    let spoil = |spoil: &dyn Fn(&mut ClusterOptions), name: &str| {
        let mut options = ClusterOptions::default();
        spoil(&mut options);
        let error = run(&tracks(&ids, 1, &[1.0, 2.0]), &options).unwrap_err();
        assert!(error.to_string().starts_with(name), "{error}");
    };
    spoil(&|o| o.threshold = 0, "--threshold");
    spoil(&|o| o.min_items = 0, "--min-items");
    spoil(&|o| o.max_parts = 1, "--max-parts");
    spoil(&|o| o.max_levels = 9, "--max-levels");
    spoil(&|o| o.restarts = 0, "--restarts");
    spoil(&|o| o.min_gain = f64::NAN, "--min-gain");
    let rules = SceneRules {
        dim: 3,
        ..SceneRules::default()
    };
    assert!(matches!(
        place(&tracks(&ids, 1, &[1.0, 2.0]), &rules, 1),
        Err(ClusterError::Rules { rules: 3, dim: 1 })
    ));
}

/// Directions: what points alike is one scene, however long it is, and tags say which.
#[test]
fn popular_and_obscure_tracks_of_a_kind_are_one_scene_with_its_tags() {
    let kinds = ["calm", "loud", "odd"];
    let mut rng = Rng::new(8, 1);
    let mut model = Model {
        info: crate::model::ModelInfo {
            rank: 3,
            hyper: serde_json::Value::Null,
            command: String::new(),
            seed: 0,
            watermark_us: None,
            exclusion_watermark_us: None,
            counts: crate::model::ModelCounts::default(),
            report: serde_json::Value::Null,
            calibration: None,
        },
        items: names(900).iter().map(String::as_str).collect(),
        users: crate::Dictionary::new(),
        item_factors: Vec::new(),
        user_factors: Vec::new(),
        item_listeners: vec![0; 900],
        item_plays: vec![0.0; 900],
        attributes: Vec::new(),
        held_out: Vec::new(),
    };
    for at in 0..900 {
        let kind = at % 3;
        let length = 0.01 + 50.0 * rng.unit();
        for axis in 0..3 {
            let along = f64::from(u8::from(axis == kind)) + 0.1 * (rng.unit() - 0.5);
            model.item_factors.push((along * length) as f32);
        }
        model.attributes.push(crate::ingest::Attributes {
            artist: format!("{} artist {}", kinds[kind], rng.below(40)),
            tags: vec!["music".to_owned(), kinds[kind].to_owned()],
            ..crate::ingest::Attributes::default()
        });
    }
    let tracks = Tracks::of_model(&model);
    assert_eq!(tracks.tags(4), [0, 2]);
    let options = ClusterOptions {
        threshold: 400,
        ..ClusterOptions::default()
    };
    let found = run(&tracks, &options).unwrap();
    assert_eq!(found.scenes.len(), 3, "{:?}", found.scenes);
    for (at, of) in found.of.iter().enumerate() {
        let scene = &found.scenes[of.expect("placed") as usize];
        assert_eq!(scene.label, kinds[at % 3]);
        assert!(
            scene
                .artists
                .iter()
                .all(|one| one.name.starts_with(kinds[at % 3]))
        );
        assert!(scene.tags[0].share > 0.99 && scene.tags[0].share_of_rest < 0.01);
    }
}

#[test]
fn a_file_of_scenes_comes_back_and_bad_ones_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("scenes.parquet");
    let (vectors, _) = nested(60, 3, 5);
    let ids = names(vectors.len() / 3);
    let tracks = tracks(&ids, 3, &vectors);
    let options = ClusterOptions {
        threshold: 100,
        ..ClusterOptions::default()
    };
    let found = run(&tracks, &options).unwrap();
    let of = |of: fn(&Scene) -> &String| found.scenes.iter().map(of).cloned().collect::<Vec<_>>();
    let (paths, labels) = (of(|scene| &scene.path), of(|scene| &scene.label));
    let mut holes = found.of.clone();
    holes[7] = None;
    write_scene_file(&path, &tracks.ids, &holes, &paths, &labels, &found.rules).unwrap();
    let read = SceneFile::read(&path).unwrap();
    assert_eq!(
        (&read.paths, &read.labels, &read.rules),
        (&paths, &labels, &found.rules)
    );
    assert_eq!(read.of_items(tracks.ids.iter().copied()), holes);
    assert_eq!(read.of_items(["i0", "unknown"].into_iter())[1], None);
    // Twice the same bytes.
    let bytes = fs_err::read(&path).unwrap();
    write_scene_file(&path, &tracks.ids, &holes, &paths, &labels, &found.rules).unwrap();
    assert_eq!(fs_err::read(&path).unwrap(), bytes);

    let twice = ["a", "b", "a"];
    write_scene_file(&path, &twice, &[Some(0); 3], &paths, &labels, &found.rules).unwrap();
    let error = SceneFile::read(&path).unwrap_err().to_string();
    assert!(
        error.ends_with("row 3: item \"a\" has a scene already"),
        "{error}"
    );
    let long = "x".repeat(129);
    write_scene_file(
        &path,
        &["a", &long],
        &[Some(0); 2],
        &paths,
        &labels,
        &found.rules,
    )
    .unwrap();
    let error = SceneFile::read(&path).unwrap_err().to_string();
    assert!(error.contains("row 2: an id has 1 to 128 bytes"), "{error}");
    fs_err::write(&path, b"item_id,scene\n").unwrap();
    assert!(
        SceneFile::read(&path)
            .unwrap_err()
            .to_string()
            .contains("scenes.parquet")
    );
}

/// What another program wrote: numbers as scenes, no rules.
#[test]
fn scenes_from_elsewhere_are_read() {
    use arrow_array::{Int32Array, RecordBatch, StringArray};
    use std::sync::Arc;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.parquet");
    let write = |columns: Vec<(&str, arrow_array::ArrayRef)>| {
        let batch = RecordBatch::try_from_iter_with_nullable(
            columns
                .into_iter()
                .map(|(name, column)| (name, column, true)),
        )
        .unwrap();
        let file = fs_err::File::create(&path).unwrap().into_parts().0;
        let mut writer = parquet::arrow::ArrowWriter::try_new(file, batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        SceneFile::read(&path).map_err(|error| error.to_string())
    };
    let ids = || Arc::new(StringArray::from(vec!["a", "b", "c"])) as arrow_array::ArrayRef;
    let scenes = Arc::new(Int32Array::from(vec![Some(7), None, Some(3)]));
    let read = write(vec![("ITEM_ID", ids()), ("scene", scenes)]).unwrap();
    assert_eq!(read.paths, ["7", "3"]);
    assert_eq!(
        read.of_items(["a", "b", "c"].into_iter()),
        [Some(0), None, Some(1)]
    );
    assert!(read.rules.thresholds.is_empty());
    let error = write(vec![("id", ids())]).unwrap_err();
    assert!(error.contains("no column \"item_id\""), "{error}");
    let empty = Arc::new(StringArray::from(vec!["x", "", "y"]));
    let error = write(vec![("item_id", ids()), ("scene", empty)]).unwrap_err();
    assert!(
        error.contains("row 2: a scene has 1 to 1024 bytes"),
        "{error}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever the vectors: every item that has a direction has one scene without parts, sizes add up,
    /// the rules are sound.
    #[test]
    fn a_hierarchy_is_one(
        values in prop::collection::vec(
            prop_oneof![4 => -2.0f32..2.0, 1 => Just(0.0), 1 => Just(1e30), 1 => Just(-1e-30)], 0..400),
        dim in 1usize..5,
        by in prop::sample::select(vec![Nearness::Direction, Nearness::Position]),
        threshold in 1usize..20,
        min_items in 1usize..4,
        seed in any::<u64>(),
    ) {
        let n = values.len() / dim;
        prop_assume!(n > 0);
        let ids = names(n);
        let tracks = tracks(&ids, dim, &values[..n * dim]);
        let options = ClusterOptions {
            threshold, min_items, seed, by: Some(by), min_gain: -2.0, threads: 2,
            ..ClusterOptions::default()
        };
        let found = run(&tracks, &options).unwrap();
        let mut items = vec![0u64; found.scenes.len()];
        for (row, of) in tracks.vectors.chunks_exact(dim).zip(&found.of) {
            prop_assert_eq!(of.is_none(), row.iter().all(|&x| x == 0.0));
            let mut at = *of;
            while let Some(scene) = at {
                items[scene as usize] += 1;
                at = found.scenes[scene as usize].parent;
                prop_assert!(at.is_none_or(|parent| parent < scene));
            }
        }
        for (scene, items) in found.scenes.iter().zip(items) {
            prop_assert_eq!(scene.items, items);
            prop_assert_eq!(scene.whole.is_empty(), scene.split.is_some());
        }
        prop_assert_eq!(found.rules.problem(u32::try_from(found.scenes.len()).unwrap()), None);
    }
}
