//! What an answer costs on a version of 100,000 items of 64 dimensions, by path.

#[path = "../tests/it/fixture.rs"]
#[expect(dead_code, reason = "shared with the tests, which use the rest")]
mod fixture;

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use refrain_als::Hyper;
use refrain_engine::{
    Request, Scratch, Similar, SimilarTo, Subject, TasteCache, Version, fold_in, recommend, similar,
};
use refrain_kernels::Metric;
use refrain_ranking::{DEFAULT_TOML, Variants};
use refrain_taste::{Profile, Weights};

use fixture::{Blueprint, NOW_US, NewItem, Random, id, play};

const ITEMS: u32 = 100_000;
const DIM: usize = 64;

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(50);
    targets = answers
}
criterion_main!(benches);

fn answers(c: &mut Criterion) {
    let version = scenes().open();
    let variants = Variants::from_toml(DEFAULT_TOML).expect("valid");
    let weights = Weights::default();
    let mut scratch = Scratch::default();
    let profiles: Vec<Profile> = (0..64).map(|user| listener(user, 100)).collect();
    let mut turn = 0;
    let mut next = || {
        turn = (turn + 1) % profiles.len();
        turn
    };

    c.bench_function("fold_in, 100 events", |b| {
        b.iter(|| fold_in(&version, &profiles[next()], NOW_US, &weights, &mut scratch));
    });
    let cache = TasteCache::new(64 << 20, weights);
    for variant in variants.iter() {
        let name = &variant.name;
        c.bench_function(
            &format!("recommend, {name}, k = 20, fold-in each time"),
            |b| {
                b.iter(|| {
                    let profile = &profiles[next()];
                    let request = Request::new(Subject::Profile { profile }, 20, NOW_US);
                    recommend(&version, &request, variant, &weights, &mut scratch)
                });
            },
        );
        c.bench_function(&format!("recommend, {name}, k = 20, taste cached"), |b| {
            b.iter(|| {
                let user = next();
                let name = USERS[user];
                let profile = &profiles[user];
                let solved = cache
                    .get_or_solve(&version, name, profile, NOW_US, &mut scratch)
                    .expect("sound factors");
                let request = Request::new(Subject::Solved(&solved), 20, NOW_US);
                recommend(&version, &request, variant, &weights, &mut scratch)
            });
        });
    }
    let queries: Vec<Vec<f32>> = (0..64).map(|i| vector(&version, i * 997)).collect();
    c.bench_function("similar to a vector, k = 10", |b| {
        b.iter(|| {
            let request = Similar::new(SimilarTo::Vector(&queries[next()]), 10);
            similar(&version, black_box(&request), &mut scratch)
        });
    });
    c.bench_function("similar to a vector, k = 10, exact", |b| {
        b.iter(|| {
            let mut request = Similar::new(SimilarTo::Vector(&queries[next()]), 10);
            request.exact = true;
            similar(&version, black_box(&request), &mut scratch)
        });
    });
}

static USERS: [&str; 64] = {
    let mut names = [""; 64];
    let digits = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_";
    let mut i = 0;
    while i < 64 {
        names[i] = digits.split_at(i).1.split_at(1).0;
        i += 1;
    }
    names
};

fn vector(version: &Version, ordinal: u32) -> Vec<f32> {
    version.index().vector(ordinal).expect("an item")
}

/// Listens to tracks of three scenes.
fn listener(user: u64, events: i64) -> Profile {
    let mut random = Random(user);
    let scenes = [random.below(200), random.below(200), random.below(200)];
    let events = (0..events)
        .map(|n| {
            let scene = scenes[random.below(3) as usize];
            play(
                n,
                &id(random.below(ITEMS / 200) * 200 + scene),
                "a playlist",
            )
        })
        .collect();
    Profile::new(1, events, Vec::new())
}

/// Items scattered around 200 scenes, with artists of 25 tracks and release times; a model whose
/// factors are the vectors.
fn scenes() -> Blueprint {
    let mut random = Random(1);
    let mut unit = || random.below(20_001) as f32 / 10_000.0 - 1.0;
    let centres: Vec<f32> = (0..200 * DIM).map(|_| unit()).collect();
    let vectors: Vec<f32> = (0..ITEMS as usize)
        .flat_map(|i| centres[i % 200 * DIM..][..DIM].to_vec())
        .map(|centre| 0.1 * (centre + 0.7 * unit()))
        .collect();
    let items = (0..ITEMS)
        .map(|i| NewItem {
            artist: Some(format!("artist {}", i % 200 + i / 5000 * 200)),
            release_time: Some(NOW_US / 1_000_000 - i64::from(i % 3650) * 86_400),
            popularity: (ITEMS / (i + 1)) as f32,
            ..NewItem::default()
        })
        .collect();
    let hyper = Hyper {
        rank: DIM,
        ..Hyper::default()
    };
    let (metric, golden_error) = (Metric::InnerProduct, 0.0);
    let model = Some((hyper, vectors.clone()));
    Blueprint {
        metric,
        dim: DIM,
        vectors,
        items,
        model,
        golden_error,
    }
}
