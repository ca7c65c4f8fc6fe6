use refrain_als::{Hyper, Interactions, train};
use refrain_bundle::DeltaFile;
use refrain_engine::OpenMode;
use refrain_kernels::Metric;

use super::*;
use crate::Dictionary;
use crate::build::{BuildOptions, Source, build};
use crate::ingest::{Log, sorted};
use crate::model::{Model, ModelCounts, ModelInfo};

const USERS: u32 = 240;
const ITEMS: u32 = 120;
const RANK: usize = 12;

/// Listens of four scenes: a listener hears mostly items of their own.
fn listens() -> Vec<(u32, u32)> {
    let mut state = 9_u64;
    let mut below = |bound: u32| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        u32::try_from((state >> 33) % u64::from(bound)).unwrap()
    };
    (0..USERS)
        .flat_map(|user| (0..20).map(move |_| user))
        .map(|user| (user, (below(10) * below(3) * 4 + user % 4) % ITEMS))
        .collect()
}

fn version(dir: &Path, metric: Metric) -> Version {
    let triplets: Vec<_> = listens()
        .into_iter()
        .map(|(user, item)| (user, item, 1.0))
        .collect();
    let data = Interactions::from_triplets(USERS, ITEMS, triplets).unwrap();
    let hyper = Hyper {
        rank: RANK,
        iterations: 6,
        ..Hyper::default()
    };
    let factors = train(&data, &hyper, 1, &()).unwrap();
    let names =
        |kind: &str, n: u32| -> Dictionary { (0..n).map(|i| format!("{kind}{i}")).collect() };
    let model = Model {
        info: ModelInfo {
            rank: RANK,
            hyper: serde_json::to_value(hyper).unwrap(),
            command: "refrain train".into(),
            seed: 1,
            watermark_us: None,
            exclusion_watermark_us: None,
            counts: ModelCounts::default(),
            report: serde_json::Value::Null,
            calibration: None,
        },
        items: names("i", ITEMS),
        users: names("u", USERS),
        item_factors: factors.items,
        user_factors: factors.users,
        item_listeners: vec![3; ITEMS as usize],
        item_plays: vec![1.0; ITEMS as usize],
        attributes: vec![Attributes::default(); ITEMS as usize],
        held_out: Vec::new(),
    };
    let options = BuildOptions {
        metric,
        threads: 2,
        ..BuildOptions::new(jiff::Timestamp::UNIX_EPOCH)
    };
    build(Source::Model(&model), dir, &options, &()).unwrap();
    Version::open(dir, OpenMode::Map).unwrap()
}

/// The training listens, and `new` heard by exactly those who heard item `like`.
fn log(like: u32, new: &str) -> Log {
    let mut log = Log::default();
    let mut add = |user: u32, item: &str| {
        log.user
            .push(log.users.insert(&format!("u{user}")).unwrap());
        log.item.push(log.items.insert(item).unwrap());
        log.count.push(1.0);
    };
    for (user, item) in listens() {
        add(user, &format!("i{item}"));
        if item == like {
            add(user, new);
        }
    }
    log
}

fn apply(version: &Version, path: &Path) -> Version {
    let file = DeltaFile::open(path).unwrap();
    file.verify().unwrap();
    version.with_deltas(&[file]).unwrap()
}

#[test]
fn a_new_item_lands_where_its_listeners_are() {
    for metric in [Metric::InnerProduct, Metric::Cosine] {
        let dir = tempfile::tempdir().unwrap();
        let base = version(&dir.path().join("bundle"), metric);
        let like = 5;
        let log = sorted(&log(like, "new"));
        let fresh = Fresh {
            listens: Some(&log),
            ..Fresh::default()
        };
        let out = dir.path().join("1");
        let report = freshen(&base, fresh, &out, 1).unwrap();
        assert_eq!((report.new_folded, report.changed), (1, 0));
        // The same bytes at any number of threads.
        let other = dir.path().join("1-again");
        freshen(&base, fresh, &other, 3).unwrap();
        assert_eq!(fs_err::read(&out).unwrap(), fs_err::read(&other).unwrap());

        let now = apply(&base, &out);
        let ordinal = now.items().ordinal("new").unwrap();
        assert_eq!(ordinal, ITEMS);
        let (ours, theirs) = (now.factor(ordinal).unwrap(), now.factor(like).unwrap());
        let (ours, theirs) = (&*ours, &*theirs);
        let dot = |a: &[f32], b: &[f32]| -> f32 { a.iter().zip(b).map(|(x, y)| x * y).sum() };
        // Training gave the one it is like nearly this vector.
        let cosine = dot(ours, theirs) / (dot(ours, ours) * dot(theirs, theirs)).sqrt();
        assert!(cosine > 0.9, "{metric}: {cosine}");
        let norms = (dot(ours, ours) / dot(theirs, theirs)).sqrt();
        assert!((0.6..1.7).contains(&norms), "{metric}: {norms}");
        assert!(now.items().popularity(ordinal) >= 1.0);

        // Again, with the delta applied: there is nothing to say.
        let report = freshen(&now, fresh, &dir.path().join("2"), 1).unwrap();
        assert_eq!(report.delta, None);
        assert!(!dir.path().join("2").exists());
    }
}

#[test]
fn only_what_changes_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let base = version(&dir.path().join("bundle"), Metric::Cosine);
    let mut items = Items::default();
    items.entry("i3").unwrap().title = "Renamed".into();
    items.entry("i4").unwrap();
    items.entry("nowhere").unwrap().title = "Lost".into();
    let set = VectorSet {
        dim: RANK,
        values: [vec![2.0; RANK], vec![0.5; RANK]].concat(),
        ids: vec!["a".into(), "i7".into()],
    };
    let remove = ["i8", "i8", "i3", "nobody"].map(str::to_owned);
    let fresh = Fresh {
        vectors: Some(&set),
        items: Some(&items),
        remove: &remove,
        ..Fresh::default()
    };
    let out = dir.path().join("1");
    let report = freshen(&base, fresh, &out, 1).unwrap();
    assert_eq!(
        (report.new_given, report.changed, report.removed),
        (1, 2, 2)
    );
    assert_eq!((report.unchanged, report.unknown.len()), (1, 1));
    assert_eq!(report.without_vector, ["nowhere"]);
    let file = DeltaFile::open(&out).unwrap();
    assert_eq!((file.info().items, file.info().tombstones), (3, 1));
    let now = apply(&base, &out);
    let blocked = |version: &Version, id: &str| {
        version
            .items()
            .blocked(version.items().ordinal(id).unwrap())
    };
    assert_eq!(
        ["i3", "i8", "i7"].map(|id| blocked(&now, id)),
        [true, true, false]
    );
    assert_eq!(now.items().title(3), "Renamed");
    // Of unit length where it is searched, as it was given where listeners are folded in.
    let norm: f32 = now.vector(7).unwrap().iter().map(|x| x * x).sum();
    assert!((norm - 1.0).abs() < 1e-5);
    assert_eq!(now.factor(7).unwrap(), vec![0.5; RANK]);
    assert_eq!(
        freshen(&now, fresh, &dir.path().join("2"), 1)
            .unwrap()
            .delta,
        None
    );

    // A later change of attributes does not bring back what was taken down; only asking does.
    let mut again = Items::default();
    again.entry("i8").unwrap().title = "Still gone".into();
    let later = dir.path().join("3");
    freshen(
        &now,
        Fresh {
            items: Some(&again),
            ..Fresh::default()
        },
        &later,
        1,
    )
    .unwrap();
    let later = apply(&now, &later);
    assert!(blocked(&later, "i8"));
    let restore = ["i8".to_owned(), "i9".to_owned()];
    let back = dir.path().join("4");
    let report = freshen(
        &later,
        Fresh {
            restore: &restore,
            ..Fresh::default()
        },
        &back,
        1,
    )
    .unwrap();
    assert_eq!((report.restored, report.changed), (1, 0));
    assert!(!blocked(&apply(&later, &back), "i8"));
}

#[test]
fn what_cannot_be_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let base = version(&dir.path().join("bundle"), Metric::InnerProduct);
    let out = dir.path().join("1");
    let refused = |fresh: Fresh<'_>| {
        let error = freshen(&base, fresh, &out, 1).unwrap_err();
        assert!(!out.exists());
        error.to_string()
    };
    let set = |dim: usize, value: f32| VectorSet {
        dim,
        values: vec![value; dim],
        ids: vec!["a".into()],
    };
    let wide = set(RANK + 1, 1.0);
    assert!(
        refused(Fresh {
            vectors: Some(&wide),
            ..Fresh::default()
        })
        .contains("13 values")
    );
    let zero = set(RANK, 0.0);
    assert!(
        refused(Fresh {
            vectors: Some(&zero),
            ..Fresh::default()
        })
        .contains("zero")
    );
    let both = ["i1".to_owned()];
    let fresh = Fresh {
        remove: &both,
        restore: &both,
        ..Fresh::default()
    };
    assert!(refused(fresh).contains("both"));
    // Whoever has heard nothing known says nothing about where an item belongs.
    let mut log = Log::default();
    log.user.push(log.users.insert("stranger").unwrap());
    log.item.push(log.items.insert("new").unwrap());
    log.count.push(1.0);
    let log = sorted(&log);
    let fresh = Fresh {
        listens: Some(&log),
        ..Fresh::default()
    };
    let report = freshen(&base, fresh, &out, 1).unwrap();
    assert_eq!((report.delta, report.without_listeners.len()), (None, 1));
}
