//! Distances at every instruction-set level of this machine, beside the library that serves as the
//! portable path: `cargo bench --bench kernels`.

#![allow(
    missing_docs,
    reason = "criterion's macro makes undocumented functions"
)]
#![expect(clippy::cast_possible_truncation, reason = "small numbers of a bench")]

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use refrain_kernels::{Kernels, Level, Metric, portable};

const ROWS: usize = 4096;

fn values(n: usize) -> Vec<f32> {
    let mut state = 42_u64;
    (0..n)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            ((state >> 40) as f32) / ((1_u64 << 24) as f32) - 0.5
        })
        .collect()
}

/// 32 scattered rows a call: what one step of a graph walk asks for.
fn score_ids(c: &mut Criterion) {
    for dim in [64, 128, 784] {
        let mut group = c.benchmark_group(format!("score_ids/{dim}"));
        let (rows, query) = (values(ROWS * dim), values(dim));
        let ids: Vec<u32> = (0..32).map(|i| i * 1_031 % ROWS as u32).collect();
        let mut out = vec![0.0; ids.len()];
        group.throughput(Throughput::Elements(ids.len() as u64));
        for level in Level::available() {
            let kernels = Kernels::for_level(level).expect("available");
            group.bench_function(BenchmarkId::from_parameter(level), |b| {
                b.iter(|| {
                    kernels.score_ids(Metric::InnerProduct, &query, &rows, dim, &ids, &mut out);
                });
            });
        }
        group.bench_function("simsimd", |b| {
            b.iter(|| {
                for (&id, out) in ids.iter().zip(&mut out) {
                    let at = id as usize * dim;
                    *out =
                        portable::dot(&query, &rows[at..at + dim]).expect("equal lengths") as f32;
                }
            });
        });
        group.finish();
    }
}

criterion_group!(benches, score_ids);
criterion_main!(benches);
