use refrain_bundle::OpenMode;
use refrain_ranking::Variants;

use super::*;
use crate::build::{BuildOptions, Source, build};
use crate::ingest::{Items, Log, Room, sorted};
use crate::train::{EvaluationPlan, TrainOptions, train};

/// Users of four groups that keep to the 30 items of their group; `later` selects rows after a moment.
fn log(later: bool) -> Log {
    let mut log = Log {
        time_us: Some(Vec::new()),
        ..Log::default()
    };
    for user in 0..120u32 {
        for at in 0..16u32 {
            if (at >= 12) != later {
                continue;
            }
            let item = (user % 4) * 30 + u32::try_from(hash(3, user, at) % 30).unwrap();
            log.user
                .push(log.users.insert(&format!("u{user}")).unwrap());
            log.item
                .push(log.items.insert(&format!("i{item}")).unwrap());
            log.count.push(1.0);
            let time = i64::from(at) * 1_000_000 + i64::from(user);
            log.time_us.as_mut().unwrap().push(time);
        }
    }
    log
}

fn by_user(log: &Log) -> UserListens {
    sorted(log).by_user().unwrap()
}

fn bundle(dir: &std::path::Path, name: &str, shuffle: bool) -> Version {
    let options = TrainOptions {
        evaluation: EvaluationPlan::Skip,
        hyper: refrain_als::Hyper {
            rank: 8,
            ..refrain_als::Hyper::default()
        },
        ..TrainOptions::default()
    };
    let (mut model, _) = train(
        sorted(&log(false)),
        &Items::default(),
        &options,
        &|_, _, _| {},
    )
    .unwrap();
    if shuffle {
        // Every item has the vector of one of another group.
        model.item_factors.rotate_left(8 * 31);
    }
    let create_time = jiff::Timestamp::from_second(1_795_376_700).unwrap();
    let out = dir.join(name);
    build(
        Source::Model(&model),
        &out,
        &BuildOptions::new(create_time),
        &(),
    )
    .unwrap();
    Version::open(&out, OpenMode::Map).unwrap()
}

fn plain() -> Variant {
    let variants = Variants::from_toml(refrain_ranking::DEFAULT_TOML).unwrap();
    variants
        .get(refrain_ranking::DEFAULT_VARIANT)
        .unwrap()
        .clone()
}

fn options(threads: usize) -> OfflineOptions {
    OfflineOptions {
        max_users: 1_000,
        seed: 5,
        resamples: 200,
        threads,
        now_us: 20_000_000,
    }
}

#[test]
fn a_good_version_beats_its_shuffled_self_popularity_and_chance() {
    let dir = tempfile::tempdir().unwrap();
    let (good, bad) = (
        bundle(dir.path(), "good", false),
        bundle(dir.path(), "bad", true),
    );
    let (history, later) = (by_user(&log(false)), sorted(&log(true)));
    let listening = Listening {
        history: &history,
        later: &later,
        exclusions: &Exclusions::default(),
    };
    let judge = |version, champion, threads| {
        evaluate_offline(
            version,
            champion,
            &plain(),
            listening,
            &options(threads),
            &|_, _| {},
        )
        .unwrap()
    };
    let report = judge(&good, Some(&bad), 1);
    assert_eq!(report, judge(&good, Some(&bad), 3));
    assert!(
        report.model.recall_at_20 > 2.0 * report.popularity.recall_at_20,
        "{report:?}"
    );
    assert!(report.model.recall_at_20 > 2.0 * report.chance.recall_at_20);
    assert!(report.model.mrr_at_20 > 0.0 && report.model.hit_rate_at_20 > 0.9);
    assert!(report.model.intra_list_distance_at_20.is_some());
    let recall = report.against_champion["recall_at_20"];
    assert!(recall.low_95 > 0.0, "{recall:?}");
    assert_eq!(recall.ours, report.model.recall_at_20);
    let worse = judge(&bad, Some(&good), 1).against_champion["recall_at_20"];
    assert!(worse.high_95 < 0.0);
    let same = judge(&good, Some(&good), 1);
    assert_eq!(same.against_champion["ndcg_at_20"].difference, 0.0);
    assert_eq!(same.overlap_with_champion, Some(1.0));
    assert!(report.index_recall.mean > 0.95);
    assert!(report.index_recall.lower_95 < report.index_recall.mean);
    let names: Vec<_> = report
        .segments
        .iter()
        .map(|segment| segment.name.as_str())
        .collect();
    assert!(
        names.iter().any(|name| name.starts_with("items: niche")),
        "{names:?}"
    );
    assert!(
        names.iter().any(|name| name.starts_with("users: light")),
        "{names:?}"
    );
    assert_eq!(report.forbidden_shown, 0);
}

/// Scenes go the whole way: found in a model, written to a file, built into a bundle, capped by a variant,
/// judged apart, and given to an item that was not there.
#[test]
fn scenes_reach_ranking_evaluation_and_new_items() {
    use crate::cluster::{ClusterOptions, SceneFile, Tracks, cluster, write_scene_file};
    use refrain_engine::Subject;
    let dir = tempfile::tempdir().unwrap();
    let options_of_training = TrainOptions {
        evaluation: EvaluationPlan::Skip,
        hyper: refrain_als::Hyper {
            rank: 8,
            ..refrain_als::Hyper::default()
        },
        ..TrainOptions::default()
    };
    let (model, _) = train(
        sorted(&log(false)),
        &Items::default(),
        &options_of_training,
        &|_, _, _| {},
    )
    .unwrap();
    let tracks = Tracks::of_model(&model);
    let clustering = ClusterOptions {
        threshold: 40,
        min_items: 10,
        ..ClusterOptions::default()
    };
    let (found, _) = cluster(&tracks, &clustering, &|_, _| ()).unwrap();
    assert_eq!(found.scenes.len(), 4, "{:?}", found.scenes);
    let paths: Vec<String> = found
        .scenes
        .iter()
        .map(|scene| scene.path.clone())
        .collect();
    let labels = vec!["a group".to_owned(); 4];
    let file = dir.path().join("scenes.parquet");
    write_scene_file(&file, &tracks.ids, &found.of, &paths, &labels, &found.rules).unwrap();
    let scenes = SceneFile::read(&file).unwrap();

    let mut options_of_build =
        BuildOptions::new(jiff::Timestamp::from_second(1_795_376_700).unwrap());
    let mut seal = |name: &str, scenes: SceneFile| {
        options_of_build.scenes = Some(std::sync::Arc::new(scenes));
        let out = dir.path().join(name);
        build(Source::Model(&model), &out, &options_of_build, &()).map(|_| out)
    };
    // Scenes of other items, and of other vectors.
    let other = SceneFile {
        of: std::iter::once(("elsewhere".to_owned(), 0)).collect(),
        ..scenes.clone()
    };
    let error = seal("other", other).unwrap_err().to_string();
    assert!(error.contains("none of their 1 items is there"), "{error}");
    let mut wide = scenes.clone();
    wide.rules.dim = 9;
    let error = seal("wide", wide).unwrap_err().to_string();
    assert!(error.contains("vectors of 9 values"), "{error}");
    assert!(!dir.path().join("wide").exists());

    let version = Version::open(&seal("good", scenes).unwrap(), OpenMode::Map).unwrap();
    version.verify().unwrap();
    let group = |id: &str| id[1..].parse::<u32>().unwrap() / 30;
    let mut scene_of = BTreeMap::new();
    for item in 0..version.items().len() {
        let scene = version.scene(item).unwrap();
        let of = *scene_of
            .entry(group(version.items().id(item).unwrap()))
            .or_insert(scene);
        assert_eq!(of, scene, "a group is a scene");
    }
    assert_eq!(scene_of.len(), 4);

    let capped = Variants::from_toml("[variant.v]\nscore = 'similarity'\nmax_per_scene = 3\n");
    let capped = capped.unwrap().get("v").unwrap().clone();
    let query = version.index().vector(0).unwrap();
    let request = Request::new(Subject::Vector(&query), 12, 20_000_000);
    let mut scratch = Scratch::default();
    let weights = Weights::default();
    let answer =
        refrain_engine::recommend(&version, &request, &capped, &weights, &mut scratch).unwrap();
    let mut shown = BTreeMap::new();
    for item in &answer.items {
        *shown.entry(version.scene(item.ordinal)).or_insert(0) += 1;
    }
    assert!(
        shown.len() == 4 && shown.values().all(|&count| count == 3),
        "{shown:?}"
    );

    let (history, later) = (by_user(&log(false)), sorted(&log(true)));
    let listening = Listening {
        history: &history,
        later: &later,
        exclusions: &Exclusions::default(),
    };
    let report =
        evaluate_offline(&version, None, &plain(), listening, &options(1), &|_, _| {}).unwrap();
    let of_scenes: Vec<_> = report
        .segments
        .iter()
        .filter(|segment| segment.name.starts_with("items: scene "))
        .collect();
    assert_eq!(of_scenes.len(), 4, "{:?}", report.segments);
    assert!(
        of_scenes
            .iter()
            .all(|segment| segment.name.ends_with("(a group)"))
    );
    // Listeners keep to their group: each is judged by one scene.
    let users: usize = of_scenes.iter().map(|segment| segment.users).sum();
    assert_eq!(users, report.counts.users);

    // An item heard by the listeners of group 2 is of their scene.
    let mut fresh = log(false);
    let new = fresh.items.insert("new").unwrap();
    for user in (0..120).filter(|user| user % 4 == 2) {
        fresh
            .user
            .push(fresh.users.ordinal(&format!("u{user}")).unwrap());
        fresh.item.push(new);
        fresh.count.push(1.0);
        fresh.time_us.as_mut().unwrap().push(1);
    }
    let out = dir.path().join("delta");
    let what = crate::freshen::Fresh {
        listens: Some(&sorted(&fresh)),
        ..crate::freshen::Fresh::default()
    };
    crate::freshen::freshen(&version, what, &out, 1).unwrap();
    let delta = refrain_bundle::DeltaFile::open(&out).unwrap();
    delta.verify().unwrap();
    let now = version.with_deltas(&[delta]).unwrap();
    let ordinal = now.items().ordinal("new").unwrap();
    assert_eq!(now.scene(ordinal), Some(scene_of[&2]));
    assert_eq!(version.scene(ordinal), None);
}

#[test]
fn what_a_listener_excluded_neither_shapes_nor_counts() {
    let dir = tempfile::tempdir().unwrap();
    let version = bundle(dir.path(), "good", false);
    let (history, later) = (by_user(&log(false)), sorted(&log(true)));
    let file = dir.path().join("rules.csv");
    let mut rules = "user,scope,value\n".to_owned();
    // Half of the listeners exclude everything they heard.
    for user in 0..60 {
        for item in 0..120 {
            rules += &format!("u{user},item,i{item}\n");
        }
    }
    fs_err::write(&file, rules).unwrap();
    let read = crate::ingest::ReadOptions::default();
    let (exclusions, _) = crate::ingest::read_exclusions(&[file], &read, &|_, _| {}).unwrap();
    let judge = |exclusions: &Exclusions| {
        let listening = Listening {
            history: &history,
            later: &later,
            exclusions,
        };
        evaluate_offline(&version, None, &plain(), listening, &options(2), &|_, _| {}).unwrap()
    };
    let (without, with) = (judge(&Exclusions::default()), judge(&exclusions));
    // They are answered by popularity, which knows no groups.
    assert!(with.model.recall_at_20 < 0.8 * without.model.recall_at_20);
    assert_eq!(with.counts, without.counts);
}

/// Plays of one day that are told one by one, in another order and out of files are the same profile.
#[test]
fn it_is_the_same_wherever_the_listens_are() {
    let dir = tempfile::tempdir().unwrap();
    let version = bundle(dir.path(), "good", false);
    let judge = |history: &UserListens, later: &SortedLog| {
        let listening = Listening {
            history,
            later,
            exclusions: &Exclusions::default(),
        };
        evaluate_offline(&version, None, &plain(), listening, &options(2), &|_, _| {}).unwrap()
    };
    let report = judge(&by_user(&log(false)), &sorted(&log(true)));
    let little = Room {
        bytes: 100,
        dir: dir.path().to_owned(),
    };
    let out_of_files = |later| SortedLog::of(&log(later), &little).unwrap();
    assert_eq!(
        judge(&out_of_files(false).by_user().unwrap(), &out_of_files(true)),
        report
    );

    let mut reversed = log(false);
    reversed.user.reverse();
    reversed.item.reverse();
    reversed.time_us.as_mut().unwrap().reverse();
    assert_eq!(judge(&by_user(&reversed), &sorted(&log(true))), report);

    // Who hears an item twice is one listener.
    let mut twice = log(false);
    twice.user.extend_from_within(..);
    twice.item.extend_from_within(..);
    twice.count.extend_from_within(..);
    twice.time_us.as_mut().unwrap().extend_from_within(..);
    let repeated = judge(&by_user(&twice), &sorted(&log(true)));
    let of_listeners = |report: &OfflineReport| {
        let heard = report.popularity_of_heard;
        (report.popularity, report.counts, heard)
    };
    assert_eq!(of_listeners(&repeated), of_listeners(&report));
}

#[test]
fn nobody_to_judge_by_is_an_error_that_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let version = bundle(dir.path(), "good", false);
    let listening = Listening {
        history: &by_user(&log(false)),
        later: &sorted(&log(false)),
        exclusions: &Exclusions::default(),
    };
    let error = evaluate_offline(&version, None, &plain(), listening, &options(1), &|_, _| {})
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("120 listeners came later, 0 of them"),
        "{error}"
    );
}
