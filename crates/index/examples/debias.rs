//! Popularity taken out of inner products: what the walk finds of it and costs, beside taking it out afterwards.
//!
//! ```console
//! $ cargo run --release -p refrain-index --example debias -- BASE.npy QUERIES.npy [EF]
//! ```
//!
//! Recall@10 against exact search by the new score, for some powers. *Afterwards* is what can be done without
//! it: search by inner product for as many as the walk keeps, then put them in the new order.

#![expect(clippy::print_stdout, reason = "its output is the measurement")]

use std::time::Instant;

mod common;

use common::{npy, opened};
use refrain_index::{BuildParams, Debias, Hit, Index, Scratch, SearchParams, build};
use refrain_kernels::Metric;

const K: usize = 10;
const QUERIES: usize = 1_000;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [base, queries, rest @ ..] = &args[..] else {
        panic!("BASE.npy QUERIES.npy [EF]");
    };
    let ef = rest.first().map_or(96, |ef| ef.parse().expect("a width"));
    let ((base, dim), (mut queries, width)) = (npy(base), npy(queries));
    assert_eq!(dim, width, "queries have another dimension");
    queries.truncate(QUERIES * dim);
    let params = BuildParams {
        metric: Metric::InnerProduct,
        ..BuildParams::default()
    };
    let index = opened(build(&base, dim, &params, &()).expect("valid"));
    println!("{} x {dim}, ef {ef}, 10 best", index.len());
    println!("beta  made ms  recall  us/query  afterwards: recall  us/query");
    for beta in [0.0, 0.25, 0.5, 0.75, 1.0] {
        let start = Instant::now();
        let debias = Debias::new(&index, beta).expect("by inner product");
        let made = start.elapsed();
        let weighted = SearchParams {
            ef_search: ef,
            debias: Some(&debias),
            ..SearchParams::default()
        };
        let plain = SearchParams {
            debias: None,
            ..weighted
        };
        let mut scratch = Scratch::new();
        let mut hits = Vec::new();
        let (mut found, mut after) = (0, 0);
        for query in queries.chunks_exact(dim) {
            index
                .search_exact_by(query, K, &weighted, &mut scratch, &mut hits)
                .expect("fits");
            let truth: Vec<u32> = hits.iter().map(|hit| hit.ordinal).collect();
            index
                .search_graph(query, K, &weighted, &mut scratch, &mut hits)
                .expect("fits");
            found += hits
                .iter()
                .filter(|hit| truth.contains(&hit.ordinal))
                .count();
            afterwards(&index, query, beta, ef, &plain, &mut scratch, &mut hits);
            after += hits
                .iter()
                .filter(|hit| truth.contains(&hit.ordinal))
                .count();
        }
        let asked = queries.len() / dim * K;
        let time = |run: &mut dyn FnMut(&[f32])| {
            let round = |run: &mut dyn FnMut(&[f32])| {
                let start = Instant::now();
                queries.chunks_exact(dim).for_each(&mut *run);
                start.elapsed().as_secs_f64() * 1e6 / (queries.len() / dim) as f64
            };
            (0..5).map(|_| round(run)).fold(f64::INFINITY, f64::min)
        };
        let walk = time(&mut |query| {
            index
                .search_graph(query, K, &weighted, &mut scratch, &mut hits)
                .expect("fits");
        });
        let reordered =
            time(&mut |query| afterwards(&index, query, beta, ef, &plain, &mut scratch, &mut hits));
        println!(
            "{beta:4.2}  {:7.0}  {:6.4}  {walk:8.1}  {:18.4}  {reordered:8.1}",
            made.as_secs_f64() * 1e3,
            found as f64 / asked as f64,
            after as f64 / asked as f64,
        );
    }
}

/// The `ef` best by inner product, in the new order, cut to the best.
fn afterwards(
    index: &Index,
    query: &[f32],
    beta: f64,
    ef: usize,
    params: &SearchParams<'_>,
    scratch: &mut Scratch,
    hits: &mut Vec<Hit>,
) {
    index
        .search_graph(query, ef, params, scratch, hits)
        .expect("fits");
    for hit in hits.iter_mut() {
        let vector = index.vector(hit.ordinal).expect("an item");
        hit.score *= Debias::weight(&vector, beta);
    }
    hits.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.ordinal.cmp(&b.ordinal)));
    hits.truncate(K);
}
