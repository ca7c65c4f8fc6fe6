//! What making a list of candidates costs, by shape.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use refrain_ranking::{Candidate, Feature, RankScratch, Resemblance, Shape, Variants, rank};

criterion_group!(benches, ranking);
criterion_main!(benches);

const VARIANTS: &str = "
[variant.similarity]
score = 'similarity'
[variant.blend-cap]
score = 'similarity + 0.15 * popularity + 0.1 * freshness'
max_per_artist = 2
[variant.explore]
score = 'similarity + 0.15 * popularity + 0.1 * freshness'
max_per_artist = 2
[variant.explore.exploration]
temperature = 0.05
[variant.mmr]
score = 'similarity + 0.15 * popularity + 0.1 * freshness'
max_per_artist = 2
mmr_lambda = 0.7
[variant.mmr-explore]
score = 'similarity + 0.15 * popularity + 0.1 * freshness'
max_per_artist = 2
mmr_lambda = 0.7
[variant.mmr-explore.exploration]
temperature = 0.05
";

/// 64 dimensions, multiplied out as any compiler does it: what the kernels do in the engine.
struct Vectors {
    all: Vec<[f32; 64]>,
    rows: Vec<[f32; 64]>,
}

impl Resemblance for Vectors {
    fn prepare(&mut self, ordinals: &mut dyn Iterator<Item = u32>) {
        self.rows.clear();
        self.rows
            .extend(ordinals.map(|ordinal| self.all[ordinal as usize]));
    }

    fn cosines(&mut self, of: usize, out: &mut [f32]) {
        let query = self.rows[of];
        for (out, row) in out.iter_mut().zip(&self.rows) {
            let mut lanes = [0.0_f32; 16];
            for (a, b) in query.chunks_exact(16).zip(row.chunks_exact(16)) {
                for ((lane, a), b) in lanes.iter_mut().zip(a).zip(b) {
                    *lane += a * b;
                }
            }
            *out = lanes.iter().sum();
        }
    }
}

fn ranking(c: &mut Criterion) {
    let variants = Variants::from_toml(VARIANTS).expect("valid");
    // A permutation of 0..500: candidates in no order.
    let candidates: Vec<Candidate> = (0..500)
        .map(|i| Candidate {
            ordinal: i,
            similarity: (i * 211 % 500) as f32 / 500.0,
            artist: Some(i * 7 % 90),
            scene: None,
            model: None,
        })
        .collect();
    let feature = |feature: Feature, candidate: &Candidate| match feature {
        Feature::Similarity => candidate.similarity,
        _ => candidate.ordinal as f32 / 500.0,
    };
    let all = (0..500_usize)
        .map(|i| std::array::from_fn(|d| ((i * 31 + d * 17) % 101) as f32 / 404.0 - 0.125))
        .collect();
    let mut vectors = Vectors {
        all,
        rows: Vec::new(),
    };
    let (mut scratch, mut out) = (RankScratch::default(), Vec::new());
    for count in [200, 500] {
        for variant in variants.iter() {
            let mut seed = 0;
            let name = format!("rank {count} candidates, {}, k = 20", variant.name);
            c.bench_function(&name, |b| {
                b.iter(|| {
                    seed += 1;
                    let shape = Shape {
                        k: 20,
                        caps: variant.caps,
                        mmr: variant.mmr,
                        exploration: variant.exploration,
                        seed,
                    };
                    rank(
                        &variant.score,
                        black_box(&candidates[..count]),
                        &feature,
                        &shape,
                        &mut vectors,
                        &mut scratch,
                        &mut out,
                    );
                });
            });
        }
    }
}
