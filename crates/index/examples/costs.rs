//! What the ways of answering cost a vector, for the constants that choose between them.
//!
//! ```console
//! $ cargo run --release -p refrain-index --example costs
//! ```
//!
//! Cosine, for under inner product a scan ends early. Best of many short runs each: a shared machine
//! only ever adds.

#![expect(clippy::print_stdout, reason = "its output is the measurement")]

use std::time::{Duration, Instant};

use refrain_index::{BuildParams, Filter, Index, OrdinalSet, Scratch, SearchParams, build};
use refrain_kernels::Metric;

const EF: usize = 50;
const K: usize = 10;
const QUERIES: usize = 24;
const ROUNDS: usize = 40;

fn main() {
    println!("| n | dim | scan, ns a vector | walk | scored | gathered: 1/3, 1/10, 1/100 |");
    println!("|---|---|---|---|---|---|");
    for (n, dim) in [
        (2_500, 64),
        (20_000, 64),
        (100_000, 64),
        (200_000, 64),
        (20_000, 128),
        (50_000, 128),
        (20_000, 768),
    ] {
        row(n, dim);
    }
}

fn row(n: usize, dim: usize) {
    let mut state = 7_u64;
    let mut unit = move || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1_u64 << 24) as f32 - 0.5
    };
    let middle: Vec<f32> = (0..n / 50 * dim).map(|_| unit()).collect();
    let mut vectors = Vec::with_capacity(n * dim);
    for item in 0..n {
        let start = item % (n / 50) * dim;
        vectors.extend((0..dim).map(|d| middle[start + d] + unit()));
    }
    let index = open(&vectors, dim);
    let queries: Vec<&[f32]> = vectors.chunks_exact(dim).step_by(n / QUERIES).collect();
    let (mut scratch, mut hits) = (Scratch::new(), Vec::new());
    let queries_len = queries.len() as f64;

    let scan = best(|| {
        for query in &queries {
            index
                .search_exact(query, K, &Filter::default(), &mut scratch, &mut hits)
                .expect("fits");
        }
    }) / (n as f64 * queries_len);
    let params = SearchParams {
        ef_search: EF,
        ..SearchParams::default()
    };
    let mut scored = 0.0;
    let walk = best(|| {
        scored = 0.0;
        for query in &queries {
            let stats = index
                .search_graph(query, K, &params, &mut scratch, &mut hits)
                .expect("fits");
            scored += f64::from(stats.distance_comps);
        }
    });
    let gathered = [3, 10, 100].map(|part| {
        let allow: OrdinalSet = (0..)
            .take(n)
            .filter(|at: &u32| at.is_multiple_of(part))
            .collect();
        let filter = Filter {
            allow: Some(&allow),
            ..Filter::default()
        };
        let took = best(|| {
            for query in &queries {
                index
                    .search_exact(query, K, &filter, &mut scratch, &mut hits)
                    .expect("fits");
            }
        });
        took / (allow.len() as f64 * queries_len) / scan
    });
    println!(
        "| {n} | {dim} | {:.1} | {:.1} | {:.2} | {:.1}, {:.1}, {:.1} |",
        scan * 1e9,
        walk / scored / scan,
        scored / queries_len / (EF * 16) as f64,
        gathered[0],
        gathered[1],
        gathered[2],
    );
}

/// Seconds of the fastest run.
fn best(mut run: impl FnMut()) -> f64 {
    let mut least = Duration::MAX;
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        run();
        least = least.min(begun.elapsed());
    }
    least.as_secs_f64()
}

fn open(vectors: &[f32], dim: usize) -> Index {
    let params = BuildParams {
        metric: Metric::Cosine,
        ..BuildParams::default()
    };
    let sections = build(vectors, dim, &params, &())
        .expect("built")
        .into_sections();
    let section = |name: &str| {
        let found = sections.iter().find(|section| section.name == name);
        found.map(|section| section.bytes.clone())
    };
    Index::open(&section).expect("opened")
}
