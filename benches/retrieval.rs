//! What one answer is made of, apart: walk, exact scan, exclusions, fold-in. `cargo bench --bench
//! retrieval`. Recall belongs to a figure of speed: `refrain bench` and `benches/serve.py` report both.

#![allow(
    missing_docs,
    reason = "criterion's macro makes undocumented functions"
)]

use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};
use refrain_als::{FoldIn, FoldInScratch, Hyper, gram};
use refrain_index::{BuildParams, Filter, Index, OrdinalSet, Scratch, SearchParams, build};
use refrain_kernels::Metric;

const ITEMS: usize = 50_000;
const DIM: usize = 64;
const CENTRES: usize = 500;

/// Items around centres, norms falling with rank: the shape of factors, made from a fixed seed.
fn catalogue() -> Vec<f32> {
    let mut state = 7_u64;
    let mut unit = move || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        ((state >> 40) as f32) / ((1_u64 << 24) as f32) - 0.5
    };
    let centres: Vec<f32> = (0..CENTRES * DIM).map(|_| unit()).collect();
    (0..ITEMS)
        .flat_map(|item| {
            let norm = 3.0 / ((item + 10) as f32).powf(0.2);
            let centre = item % CENTRES * DIM;
            (0..DIM)
                .map(|d| norm * (centres[centre + d] + 0.6 * unit()))
                .collect::<Vec<f32>>()
        })
        .collect()
}

fn open(vectors: &[f32]) -> Index {
    let params = BuildParams {
        metric: Metric::InnerProduct,
        ..BuildParams::default()
    };
    let sections = build(vectors, DIM, &params, &())
        .expect("built")
        .into_sections();
    let section = |name: &str| {
        sections
            .iter()
            .find(|s| s.name == name)
            .map(|s| s.bytes.clone())
    };
    Index::open(&section).expect("opened")
}

fn search(c: &mut Criterion) {
    let vectors = catalogue();
    let index = open(&vectors);
    let query: Vec<f32> = (0..DIM)
        .map(|d| vectors[d] + vectors[7 * DIM + d] - 0.5 * vectors[99 * DIM + d])
        .collect();
    let (mut scratch, mut out) = (Scratch::new(), Vec::new());
    let mut group = c.benchmark_group("search");
    for ef_search in [32, 64, 128] {
        group.bench_function(BenchmarkId::new("walk", ef_search), |b| {
            let params = SearchParams {
                ef_search,
                ..SearchParams::default()
            };
            b.iter(|| {
                index
                    .search(&query, 10, &params, &mut scratch, &mut out)
                    .expect("found")
            });
        });
    }
    index
        .search_exact(&query, 10_000, &Filter::default(), &mut scratch, &mut out)
        .expect("found");
    let nearest: Vec<u32> = out.iter().map(|h| h.ordinal).collect();
    for excluded in [10, 1_000, 10_000] {
        let set: OrdinalSet = nearest[..excluded].iter().copied().collect();
        let sets = [&set];
        let filter = Filter {
            exclude: &sets,
            ..Filter::default()
        };
        group.bench_function(BenchmarkId::new("nearest_excluded", excluded), |b| {
            let params = SearchParams {
                filter,
                ..SearchParams::default()
            };
            b.iter(|| {
                index
                    .search(&query, 10, &params, &mut scratch, &mut out)
                    .expect("found")
            });
        });
    }
    group.bench_function("exact", |b| {
        b.iter(|| {
            index
                .search_exact(&query, 10, &Filter::default(), &mut scratch, &mut out)
                .expect("found")
        });
    });
    group.finish();
}

fn fold_in(c: &mut Criterion) {
    let factors = catalogue();
    let hyper = Hyper {
        rank: DIM,
        ..Hyper::default()
    };
    let fold_in = FoldIn::new(DIM, ITEMS, gram(&factors, DIM, 1), &hyper).expect("valid");
    let mut group = c.benchmark_group("fold_in");
    for events in [10, 100, 500] {
        let evidence: Vec<(u32, f32)> = (0..events).map(|i| (i * 97, 1.0 + i as f32)).collect();
        let mut out = Vec::new();
        group.bench_function(BenchmarkId::from_parameter(events), |b| {
            b.iter_batched_ref(
                FoldInScratch::default,
                |scratch| {
                    fold_in
                        .solve(&factors, &evidence, scratch, &mut out)
                        .expect("solved")
                },
                BatchSize::NumIterations(1_000),
            );
        });
    }
    group.finish();
}

criterion_group!(benches, search, fold_in);
criterion_main!(benches);
