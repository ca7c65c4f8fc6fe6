//! What ordering a list of candidates costs.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use refrain_ranking::{Candidate, DEFAULT_TOML, Feature, RankScratch, Variants, rank};

criterion_group!(benches, ranking);
criterion_main!(benches);

fn ranking(c: &mut Criterion) {
    let variants = Variants::from_toml(DEFAULT_TOML).expect("valid");
    // A permutation of 0..500: candidates in no order.
    let candidates: Vec<Candidate> = (0..500)
        .map(|i| Candidate {
            ordinal: i,
            similarity: (i * 211 % 500) as f32 / 500.0,
            artist: Some(i * 7 % 90),
        })
        .collect();
    let feature = |feature: Feature, candidate: &Candidate| match feature {
        Feature::Similarity => candidate.similarity,
        _ => candidate.ordinal as f32 / 500.0,
    };
    let (mut scratch, mut out) = (RankScratch::default(), Vec::new());
    for variant in variants.iter() {
        c.bench_function(
            &format!("rank 500 candidates, {}, k = 20", variant.name),
            |b| {
                b.iter(|| {
                    let cap = variant.max_per_artist;
                    let candidates = black_box(&candidates);
                    rank(
                        &variant.score,
                        candidates,
                        &feature,
                        20,
                        cap,
                        &mut scratch,
                        &mut out,
                    );
                });
            },
        );
    }
}
