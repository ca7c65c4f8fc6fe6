//! A base and its deltas answer as one version that was built from all of it.

use std::path::Path;
use std::sync::Arc;

use refrain_bundle::{DeltaFile, Item, NewDelta, write_delta};
use refrain_engine::{
    Answer, DeltaError, Fallback, ItemFilter, NameList, Outcome, Request, Scratch, Similar,
    SimilarTo, Source, Subject, Version, explain, fold_in, recommend, similar,
};
use refrain_index::Delta;
use refrain_kernels::Metric;
use refrain_taste::{Profile, Weights};

use crate::fixture::*;

/// What a delta says, on the way to a file and into a blueprint.
#[derive(Clone, Default)]
struct Change {
    upserts: Vec<(u32, NewItem, Vec<f32>)>,
    tombstones: Vec<u32>,
}

/// Three deltas on [`music`]: new items, changed ones, the same again, takedowns, a return.
fn changes(dim: usize) -> Vec<Change> {
    let mut random = Random(11);
    let mut vector = |scale: f32| -> Vec<f32> {
        (0..dim)
            .map(|_| (random.below(2001) as f32 / 1000.0 - 1.0) * scale)
            .collect()
    };
    let item = |artist: &str, tag: &str, popularity: f32| NewItem {
        artist: Some(artist.to_owned()),
        tags: vec![tag.to_owned(), "scene 1".to_owned()],
        release_time: Some(NOW_US / 1_000_000),
        popularity,
        blocked: false,
    };
    let mut first = Change::default();
    for new in 0..60 {
        let artist = if new % 2 == 0 { "artist 0" } else { "debut" };
        first.upserts.push((
            ITEMS + new,
            item(artist, "fresh", 900.0 - new as f32),
            vector(0.4),
        ));
    }
    for old in [3, 9, 30] {
        first
            .upserts
            .push((old, item("debut", "mood 1", 5_000.0), vector(0.5)));
    }
    first.tombstones = vec![1, 2, 57];
    let mut second = Change::default();
    second
        .upserts
        .push((9, item("artist 1", "fresh", 1.0), vector(0.5)));
    second
        .upserts
        .push((ITEMS + 60, item("artist 1", "later", 2.0), vector(0.6)));
    second.tombstones = vec![ITEMS + 1, 3, 399];
    let mut third = Change::default();
    // Back again, and one that is blocked as it comes.
    third
        .upserts
        .push((2, item("artist 2", "fresh", 3.0), vector(0.5)));
    let blocked = NewItem {
        blocked: true,
        ..item("artist 2", "fresh", 9_999.0)
    };
    third.upserts.push((ITEMS + 61, blocked, vector(0.5)));
    vec![first, second, third]
}

/// The same in one blueprint, as though it had been built like that.
fn rebuilt(base: &Blueprint, changes: &[Change]) -> Blueprint {
    let mut all = base.clone();
    let dim = all.dim;
    for change in changes {
        for (ordinal, item, vector) in &change.upserts {
            let at = *ordinal as usize;
            if at == all.items.len() {
                all.items.push(item.clone());
                all.vectors.extend_from_slice(vector);
            } else {
                all.items[at] = item.clone();
                all.vectors[at * dim..][..dim].copy_from_slice(vector);
            }
        }
        for &ordinal in &change.tombstones {
            all.items[ordinal as usize].blocked = true;
        }
    }
    if let Some((_, factors)) = &mut all.model {
        factors.clone_from(&all.vectors);
    }
    all
}

fn write(dir: &Path, version: &Version, metric: Metric, changes: &[Change]) -> Vec<DeltaFile> {
    let mut parent = None;
    let mut files = Vec::new();
    for (number, change) in (1..).zip(changes) {
        let ids: Vec<String> = change.upserts.iter().map(|(o, ..)| id(*o)).collect();
        let tags: Vec<Vec<&str>> = change
            .upserts
            .iter()
            .map(|(_, item, _)| item.tags.iter().map(String::as_str).collect())
            .collect();
        let rows = change.upserts.iter().zip(&ids).zip(&tags);
        let items: Vec<Item<'_>> = rows
            .map(|(((_, item, _), id), tags)| Item {
                id,
                title: "a title",
                artist: item.artist.as_deref(),
                tags,
                release_time: item.release_time,
                popularity: item.popularity,
                duration_ms: None,
                blocked: item.blocked,
            })
            .collect();
        let mut vectors = Vec::new();
        for (.., vector) in &change.upserts {
            let mut vector = vector.clone();
            Delta::unit(metric, &mut vector);
            vectors.extend(vector);
        }
        let raw: Vec<f32> = change
            .upserts
            .iter()
            .flat_map(|(.., v)| v.clone())
            .collect();
        let dim = version.manifest().dim;
        let own = version.bundle().model().is_some();
        let gone: Vec<String> = change.tombstones.iter().map(|&o| id(o)).collect();
        let gone: Vec<&str> = gone.iter().map(String::as_str).collect();
        let path = dir.join(format!("{number:08}.rfs"));
        let delta = NewDelta {
            version: version.id(),
            number,
            parent,
            dim,
            items: &items,
            vectors: &vectors,
            factors: own.then_some((dim, raw.as_slice())),
            tombstones: &gone,
            command: "a test",
        };
        write_delta(&path, &delta).expect("written");
        let file = DeltaFile::open(&path).expect("opens");
        file.verify().expect("whole");
        parent = Some(file.digest());
        files.push(file);
    }
    files
}

struct Pair {
    fresh: Version,
    rebuilt: Version,
}

impl Pair {
    /// `music` under a metric: with deltas one by one, all at once, and built anew.
    fn new(metric: Metric) -> Self {
        let mut base = music().clone();
        base.metric = metric;
        let changes = changes(base.dim);
        let version = base.open();
        let dir = tempfile::tempdir().expect("a directory");
        let files = write(dir.path(), &version, metric, &changes);
        let mut fresh = version.with_deltas(&files).expect("in order");
        let mut one_by_one = version.with_deltas(&[]).expect("nothing");
        for file in &files {
            one_by_one = one_by_one
                .with_deltas(std::slice::from_ref(file))
                .expect("in order");
        }
        assert_eq!((fresh.delta(), one_by_one.delta()), (3, 3));
        assert_eq!(version.delta(), 0, "the version before stays as it was");
        let query = vec![0.3; base.dim];
        let request = Similar {
            exact: true,
            ..Similar::new(SimilarTo::Vector(&query), 200)
        };
        let ask = |version: &Version| similar(version, &request, &mut Scratch::default());
        assert_eq!(
            ask(&fresh),
            ask(&one_by_one),
            "how deltas came does not matter"
        );
        std::mem::swap(&mut fresh, &mut one_by_one);
        Self {
            fresh,
            rebuilt: rebuilt(&base, &changes).open(),
        }
    }

    /// The same items and scores from both; what is of a delta says so.
    fn agree(&self, what: &str, ask: impl Fn(&Version) -> Answer) {
        let (ours, theirs) = (ask(&self.fresh), ask(&self.rebuilt));
        // A delta holds vectors as they were given, an index as they were coded: scores differ by what
        // coding lost, and so may the order of what scores alike.
        let near = |a: f32, b: f32| (a - b).abs() <= 1e-3 * a.abs().max(b.abs()).max(1.0);
        assert_eq!(ours.items.len(), theirs.items.len(), "{what}");
        for (a, b) in ours.items.iter().zip(&theirs.items) {
            assert!(near(a.score, b.score), "{what}: {a:?} {b:?}");
        }
        for (list, other) in [(&ours, &theirs), (&theirs, &ours)] {
            let last = other.items.last().map(|item| item.score);
            for item in &list.items {
                let twin = other.items.iter().find(|twin| twin.ordinal == item.ordinal);
                let score = twin.map(|twin| twin.score).or(last).expect("as many items");
                assert!(near(item.score, score), "{what}: {item:?} {score}");
            }
        }
        assert_eq!(ours.degraded, theirs.degraded, "{what}");
        for item in &ours.items {
            assert!(
                !self.fresh.items().blocked(item.ordinal),
                "{what}: {item:?}"
            );
            let of_delta = self.fresh.is_of_delta(item.ordinal);
            let named = item.source == Source::Delta;
            assert_eq!(
                of_delta && item.source != Source::Popular,
                named,
                "{what}: {item:?}"
            );
        }
    }
}

#[test]
fn base_and_deltas_answer_as_a_version_built_from_all_of_it() {
    for metric in Metric::ALL {
        let pair = Pair::new(metric);
        let items = pair.fresh.items();
        assert_eq!(items.len(), pair.rebuilt.items().len());
        for ordinal in 0..items.len() {
            let other = pair.rebuilt.items();
            assert_eq!(items.id(ordinal), other.id(ordinal));
            assert_eq!(items.ordinal(&id(ordinal)), Some(ordinal));
            assert_eq!(items.blocked(ordinal), other.blocked(ordinal), "{ordinal}");
            assert_eq!(items.popularity(ordinal), other.popularity(ordinal));
            assert_eq!(items.release_time(ordinal), other.release_time(ordinal));
            let artist = |items: refrain_engine::VersionItems<'_>| {
                items
                    .artist(ordinal)
                    .map(|artist| items.artist_name(artist).to_owned())
            };
            assert_eq!(artist(items), artist(other));
            let vector = |version: &Version| version.vector(ordinal).expect("an item").into_owned();
            let (ours, theirs) = (vector(&pair.fresh), vector(&pair.rebuilt));
            let largest = ours
                .iter()
                .fold(0.0_f32, |most, value| most.max(value.abs()));
            for (a, b) in ours.iter().zip(&theirs) {
                assert!(
                    (a - b).abs() <= 1e-4 * largest.max(1.0),
                    "{ordinal}: {a} {b}"
                );
            }
        }
        let by_popularity = |version: &Version| version.items().by_popularity().collect::<Vec<_>>();
        assert_eq!(by_popularity(&pair.fresh), by_popularity(&pair.rebuilt));

        for k in [1, 7, 50, 460] {
            for of in [0, 9, ITEMS + 3] {
                pair.agree("similar", |version| {
                    let name = id(of);
                    let request = Similar {
                        exact: true,
                        ..Similar::new(SimilarTo::Item(&name), k)
                    };
                    similar(version, &request, &mut Scratch::default()).expect("known")
                });
            }
        }
        let list = |names: &[&str]| names.iter().collect::<NameList>();
        let (artists, some_tags) = (list(&["debut", "artist 1"]), list(&["fresh", "mood 1"]));
        // So many names that a version remembers what they are to it, and no other version.
        let absent = (0..200).map(|n| format!("absent {n}"));
        let few = ["item 3", "item 9", "item 405"].map(str::to_owned);
        let (scene, items) = (list(&["scene 1"]), few.into_iter().chain(absent).collect());
        let filters = [
            ItemFilter {
                exclude_artists: artists,
                ..ItemFilter::default()
            },
            ItemFilter {
                any_tags: some_tags,
                ..ItemFilter::default()
            },
            ItemFilter {
                not_tags: scene,
                ..ItemFilter::default()
            },
            ItemFilter {
                allow_items: items,
                ..ItemFilter::default()
            },
        ];
        let query: Vec<f32> = pair.rebuilt.vector(ITEMS + 5).expect("an item").to_vec();
        let weights = Weights::default();
        for filter in filters.map(Arc::new) {
            let filter = Some(&filter);
            for lines in [
                "score = 'similarity'",
                "score = 'similarity'\nmax_per_artist = 1",
                "score = 'similarity + popularity'",
                "score = 'similarity'\ndebias = 0.7",
            ] {
                let variant = variant(lines);
                pair.agree(lines, |version| {
                    let request = Request {
                        filter,
                        exact: true,
                        ..Request::new(Subject::Vector(&query), 30, NOW_US)
                    };
                    let scratch = &mut Scratch::default();
                    recommend(version, &request, &variant, &weights, scratch).expect("valid")
                });
            }
            pair.agree("popularity", |version| {
                let nobody = Profile::default();
                let subject = Subject::Profile { profile: &nobody };
                let request = Request {
                    filter,
                    fallback: Fallback::Popular,
                    ..Request::new(subject, 100, NOW_US)
                };
                let scratch = &mut Scratch::default();
                recommend(version, &request, &plain(), &weights, scratch).expect("valid")
            });
        }
    }
}

/// By the graph, too: what a delta changed or took down is not found where the base has it.
#[test]
fn the_graph_gives_no_masked_row() {
    let pair = Pair::new(Metric::InnerProduct);
    let old = music_version().vector(9).expect("an item").to_vec();
    let request = Similar::new(SimilarTo::Vector(&old), 100);
    let answer = similar(&pair.fresh, &request, &mut Scratch::default()).expect("valid");
    let mut seen = std::collections::BTreeSet::new();
    for item in &answer.items {
        assert!(seen.insert(item.ordinal), "twice: {item:?}");
        let vector = pair.fresh.vector(item.ordinal).expect("an item");
        let score: f64 = old
            .iter()
            .zip(vector.iter())
            .map(|(a, b)| f64::from(*a) * f64::from(*b))
            .sum();
        assert!(
            (score - f64::from(item.score)).abs() < 1e-4,
            "{item:?}: {score}"
        );
    }
    assert_eq!(answer.items.len(), 100);
}

/// An event of an item that no version knew shapes the taste from the delta on.
#[test]
fn unknown_items_become_known() {
    let pair = Pair::new(Metric::InnerProduct);
    let profile = Profile::new(
        1,
        vec![play(0, "item 400", "here"), play(1, "item 8", "here")],
        Vec::new(),
    );
    let scratch = &mut Scratch::default();
    let weights = Weights::default();
    let fold = |version: &Version, scratch: &mut Scratch| {
        fold_in(version, &profile, NOW_US, &weights, scratch).expect("folds")
    };
    let before = fold(music_version(), scratch);
    let after = fold(&pair.fresh, scratch);
    assert_eq!(
        (before.taste.events_unknown, after.taste.events_unknown),
        (1, 0)
    );
    assert_ne!(before.vector, after.vector);
    assert_eq!(after.delta(), 3);
    // Solved for another delta: refused, not answered wrongly.
    let request = Request::new(Subject::Solved(&before), 5, NOW_US);
    let refused = recommend(&pair.fresh, &request, &plain(), &weights, scratch);
    assert!(refused.is_err());
}

/// The shares add up to the similarity, whether an item or an event's item is of the base or of a delta.
#[test]
fn explanations_know_items_of_deltas() {
    for metric in [Metric::InnerProduct, Metric::Cosine] {
        let pair = Pair::new(metric);
        let profile = Profile::new(
            1,
            vec![play(0, "item 400", "here"), play(1, "item 8", "here")],
            Vec::new(),
        );
        let nobody = Profile::default();
        let request = Request::new(Subject::Profile { profile: &nobody }, 5, NOW_US);
        let weights = Weights::default();
        let scratch = &mut Scratch::default();
        for item in [402, 12] {
            let item = id(item);
            let version = &pair.fresh;
            let mut explained = |lines: &str| {
                let variant = variant(lines);
                let found = explain(
                    version, &profile, &item, &request, &variant, &weights, scratch,
                );
                found.expect("explained")
            };
            // The shares are of the similarity that the item was found by.
            let debiased = explained("score = 'similarity'\ndebias = 0.5");
            let (_, similarity) = debiased.score.expect("searched with");
            let gap = (debiased.explained - f64::from(similarity)).abs();
            assert!(gap < 1e-3, "{metric} {item}: {debiased:?}");
            let found = explained("score = 'similarity'");
            let mut events: Vec<usize> = found.contributions.iter().map(|one| one.event).collect();
            events.sort_unstable();
            assert_eq!(events, [0, 1], "{metric} {item}");
            let (_, similarity) = found.score.expect("searched with");
            let gap = (found.explained - f64::from(similarity)).abs();
            assert!(gap < 1e-3, "{metric} {item}: {found:?}");
        }
        for (item, outcome) in [
            (401, Outcome::Blocked),
            (400, Outcome::Heard),
            (999, Outcome::Unknown),
        ] {
            let item = id(item);
            let found = explain(
                &pair.fresh,
                &profile,
                &item,
                &request,
                &plain(),
                &weights,
                scratch,
            );
            assert_eq!(
                found.expect("explained").outcome,
                outcome,
                "{metric} {item}"
            );
        }
    }
}

#[test]
fn deltas_come_in_order_or_not_at_all() {
    let version = music().open();
    let dir = tempfile::tempdir().expect("a directory");
    let files = write(dir.path(), &version, Metric::InnerProduct, &changes(16));
    let error = version.with_deltas(&files[1..]).unwrap_err();
    assert!(
        matches!(
            error,
            DeltaError::OutOfOrder {
                expected: 1,
                found: 2,
                ..
            }
        ),
        "{error}"
    );
    let first = version.with_deltas(&files[..1]).expect("in order");
    let error = first.with_deltas(&files[..1]).unwrap_err();
    assert!(
        matches!(error, DeltaError::OutOfOrder { expected: 2, .. }),
        "{error}"
    );

    // Another number 1: its successor does not fit.
    let other = dir.path().join("other");
    fs_err::create_dir(&other).expect("a directory");
    let mut less = changes(16);
    less[0].tombstones.clear();
    let others = write(&other, &version, Metric::InnerProduct, &less);
    let error = first.with_deltas(&others[1..2]).unwrap_err();
    assert!(
        matches!(error, DeltaError::OtherParent { before: 1, .. }),
        "{error}"
    );
}
