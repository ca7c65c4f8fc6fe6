//! A graph that is kept instead of built anew: what it saves, and what it costs in recall.
//!
//! ```console
//! $ cargo run --release -p refrain-index --example upkeep -- [METRIC BASE.npy QUERIES.npy] [CYCLES]
//! ```
//!
//! Without files, on generated factors. First a twentieth of the items move (to between where they
//! were and another item) and all others tremble; then CYCLES times (100) one item in a hundred is
//! replaced by another. Each time `build_from` the previous index is compared with a full build,
//! by recall@10 of the graph alone.

#![expect(clippy::print_stdout, reason = "its output is the measurement")]

use std::time::{Duration, Instant};

mod common;

use common::{npy, opened};
use refrain_index::{
    BuildParams, Filter, Hit, Index, Parent, Scratch, SearchParams, build, build_from,
};
use refrain_kernels::Metric;

const K: usize = 10;
const EF: [usize; 2] = [32, 64];
const QUERIES: usize = 1_000;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (set, cycles) = match &args[..] {
        [metric, base, queries, rest @ ..] => (Set::read(metric, base, queries), rest.first()),
        rest => (Set::generated(), rest.first()),
    };
    let cycles = cycles.map_or(100, |cycles| cycles.parse().expect("a number of cycles"));
    moved(&set);
    churn(&set, cycles);
}

struct Set {
    metric: Metric,
    dim: usize,
    base: Vec<f32>,
    queries: Vec<f32>,
}

impl Set {
    fn read(metric: &str, base: &str, queries: &str) -> Self {
        let ((base, dim), (mut queries, width)) = (npy(base), npy(queries));
        assert_eq!(dim, width, "queries have another dimension");
        queries.truncate(QUERIES * dim);
        let metric = metric.parse().expect("ip, cosine or l2");
        Self {
            metric,
            dim,
            base,
            queries,
        }
    }

    fn generated() -> Self {
        let (items, dim, centres) = (50_000, 64, 500);
        let mut draw = Draw(7);
        let middle: Vec<f32> = (0..centres * dim).map(|_| draw.unit()).collect();
        let mut vector = |item: usize, spread: f32| -> Vec<f32> {
            let norm = 3.0 / ((item + 10) as f32).powf(0.2);
            let centre = (item % centres) * dim;
            let row = middle[centre..centre + dim].iter();
            row.map(|value| norm * (value + spread * draw.unit()))
                .collect()
        };
        let base = (0..items).flat_map(|item| vector(item, 0.6)).collect();
        let queries = (0..QUERIES).flat_map(|item| vector(item, 1.0)).collect();
        Self {
            metric: Metric::InnerProduct,
            dim,
            base,
            queries,
        }
    }

    fn params(&self) -> BuildParams {
        BuildParams {
            metric: self.metric,
            ..BuildParams::default()
        }
    }
}

fn moved(set: &Set) {
    let items = set.base.len() / set.dim;
    println!(
        "{items} x {} by {}, ef {EF:?}, recall@{K} of the graph",
        set.dim, set.metric
    );
    let (parent, _) = full(set, &set.base);
    let mut draw = Draw(11);
    let origin: Vec<Option<u32>> = (0..).take(items).map(Some).collect();
    for tremble in [0.0, 0.1, 0.3] {
        let mut vectors = set.base.clone();
        for item in 0..items {
            let other = draw.below(items);
            let far = item % 20 == 0;
            for d in 0..set.dim {
                let (own, other) = (set.base[item * set.dim + d], set.base[other * set.dim + d]);
                let value = if far {
                    0.5 * (own + other)
                } else {
                    own + tremble * 0.2 * (other - own)
                };
                vectors[item * set.dim + d] = value;
            }
        }
        let begun = Instant::now();
        let from = Parent {
            index: &parent,
            origin: &origin,
        };
        let built = build_from(&from, &vectors, set.dim, &set.params(), &()).expect("built");
        let linked = built.stats().linked;
        let (kept, kept_took) = (opened(built), begun.elapsed());
        let (fresh, fresh_took) = full(set, &vectors);
        let stale = recalls(&parent, set, &fresh);
        println!(
            "1 in 20 moved, others by {tremble}: {linked} linked, {} s, full {} s, {:.1} times as fast; \
             recall {:.4?}, full {:.4?} (nothing relinked {stale:.4?})",
            seconds(kept_took),
            seconds(fresh_took),
            fresh_took.as_secs_f64() / kept_took.as_secs_f64(),
            recalls(&kept, set, &kept),
            recalls(&fresh, set, &fresh),
        );
    }
}

fn churn(set: &Set, cycles: usize) {
    let all = set.base.len() / set.dim;
    let live = all * 4 / 5;
    let each = live / 100;
    // Items by their row in the set: the first ones live, the others wait.
    let mut rows: Vec<usize> = (0..live).collect();
    let mut waiting: std::collections::VecDeque<usize> = (live..all).collect();
    let gather = |rows: &[usize]| -> Vec<f32> {
        let row = |row: &usize| &set.base[row * set.dim..][..set.dim];
        rows.iter().flat_map(row).copied().collect()
    };
    let (mut index, _) = full(set, &gather(&rows));
    println!(
        "{live} live, {each} replaced a cycle: recall after it, of a full build, linked, took"
    );
    let mut draw = Draw(13);
    for cycle in 1..=cycles {
        let mut origin: Vec<Option<u32>> = (0..).take(live).map(Some).collect();
        for _ in 0..each {
            let at = draw.below(live);
            let new = waiting.pop_front().expect("some wait");
            waiting.push_back(std::mem::replace(&mut rows[at], new));
            origin[at] = None;
        }
        let vectors = gather(&rows);
        let begun = Instant::now();
        let from = Parent {
            index: &index,
            origin: &origin,
        };
        let built = build_from(&from, &vectors, set.dim, &set.params(), &()).expect("built");
        let (linked, repaired) = (built.stats().linked, built.stats().repaired);
        index = opened(built);
        let took = begun.elapsed();
        if cycle % 10 == 0 || cycle == 1 {
            let (fresh, fresh_took) = full(set, &vectors);
            println!(
                "{cycle:>4} {:.4?} {:.4?} {linked} {repaired} {} s of {} s",
                recalls(&index, set, &index),
                recalls(&fresh, set, &fresh),
                seconds(took),
                seconds(fresh_took)
            );
        }
    }
}

fn full(set: &Set, vectors: &[f32]) -> (Index, Duration) {
    let begun = Instant::now();
    let built = build(vectors, set.dim, &set.params(), &()).expect("built");
    (opened(built), begun.elapsed())
}

/// What the graph of an index finds of the exact answers of another of the same ordinals.
fn recalls(index: &Index, set: &Set, truth: &Index) -> [f64; EF.len()] {
    let (mut scratch, mut hits, mut exact) = (Scratch::new(), Vec::new(), Vec::new());
    let mut found = [0; EF.len()];
    let mut sought = 0;
    for query in set.queries.chunks_exact(set.dim) {
        truth
            .search_exact(query, K, &Filter::default(), &mut scratch, &mut exact)
            .expect("searched");
        sought += exact.len();
        for (ef_search, found) in EF.into_iter().zip(&mut found) {
            let params = SearchParams {
                ef_search,
                ..SearchParams::default()
            };
            index
                .search_graph(query, K, &params, &mut scratch, &mut hits)
                .expect("searched");
            let is_found = |hit: &&Hit| exact.iter().any(|other| other.ordinal == hit.ordinal);
            *found += hits.iter().filter(is_found).count();
        }
    }
    found.map(|found| found as f64 / sought as f64)
}

fn seconds(took: Duration) -> String {
    format!("{:.2}", took.as_secs_f64())
}

struct Draw(u64);

impl Draw {
    fn next(&mut self) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % n as u64).unwrap_or(0)
    }

    fn unit(&mut self) -> f32 {
        self.next() as f32 / (1_u64 << 31) as f32 - 0.5
    }
}
