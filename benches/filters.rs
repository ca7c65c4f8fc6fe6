//! Sets of ordinals: making them, asking them, combining them. `cargo bench --bench filters`.

#![allow(
    missing_docs,
    reason = "criterion's macro makes undocumented functions"
)]

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use refrain_index::{Filter, OrdinalSet};

/// Items of the catalogue that sets are taken from.
const ITEMS: u32 = 1_000_000;

/// `count` ordinals in no order, some of them twice.
fn unsorted(count: usize) -> Vec<u32> {
    let mut state = 42_u64;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        u32::try_from(state >> 33).unwrap_or(0) % ITEMS
    };
    (0..count).map(|_| next()).collect()
}

fn construction(c: &mut Criterion) {
    let mut group = c.benchmark_group("set_from");
    for count in [10, 1_000, 100_000, 1_000_000] {
        let mut ids = unsorted(count);
        group.throughput(Throughput::Elements(count as u64));
        group.bench_function(BenchmarkId::new("unsorted", count), |b| {
            b.iter(|| OrdinalSet::from_ordinals(&ids));
        });
        ids.sort_unstable();
        group.bench_function(BenchmarkId::new("sorted", count), |b| {
            b.iter(|| OrdinalSet::from_ordinals(&ids));
        });
    }
    group.finish();
}

/// A thousand questions, one after another and 64 at a time.
fn membership(c: &mut Criterion) {
    let asked = unsorted(1_024);
    let mut group = c.benchmark_group("set_holds");
    group.throughput(Throughput::Elements(asked.len() as u64));
    for count in [10, 1_000, 100_000, 1_000_000] {
        let set = OrdinalSet::from_ordinals(&unsorted(count));
        let exclude = [&set];
        let filter = Filter {
            exclude: &exclude,
            allow: None,
        };
        group.bench_function(BenchmarkId::new("each", count), |b| {
            b.iter(|| asked.iter().filter(|one| filter.allows(**one)).count());
        });
        group.bench_function(BenchmarkId::new("masks", count), |b| {
            let of = |chunk: &[u32]| filter.mask(chunk).count_ones();
            b.iter(|| asked.chunks(64).map(of).sum::<u32>());
        });
    }
    group.finish();
}

fn combination(c: &mut Criterion) {
    let (many, few) = (unsorted(300_000), unsorted(1_000));
    let (many, few) = (
        OrdinalSet::from_ordinals(&many),
        OrdinalSet::from_ordinals(&few),
    );
    let mut group = c.benchmark_group("set_and");
    for (name, one, other) in [("bitmaps", &many, &many), ("table_bitmap", &few, &many)] {
        group.bench_function(name, |b| {
            b.iter(|| {
                let mut both = one.clone();
                both.intersect_with(other);
                both.len()
            });
        });
    }
    group.finish();
}

criterion_group!(benches, construction, membership, combination);
criterion_main!(benches);
