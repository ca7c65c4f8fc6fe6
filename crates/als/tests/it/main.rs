//! Training and fold-in against a naive double-precision solver.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod fold_in;
mod oracle;
mod training;

use refrain_als::{Confidence, Hyper, Interactions};

/// A small log with structure: users and items belong to groups, and play mostly within them.
fn grouped_log(users: u32, items: u32, seed: u64) -> Interactions {
    let mut state = seed;
    let mut next = |below: u32| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        u32::try_from((state >> 33) % u64::from(below)).unwrap()
    };
    let mut triplets = Vec::new();
    for user in 0..users {
        for _ in 0..3 + next(20) {
            let item = if next(5) == 0 {
                next(items)
            } else {
                (next(items / 4) * 4 + user % 4) % items
            };
            triplets.push((user, item, (1 + next(30)) as f32));
        }
    }
    Interactions::from_triplets(users, items, triplets).unwrap()
}

fn small_hyper() -> Hyper {
    Hyper {
        rank: 6,
        iterations: 3,
        alpha: 1.5,
        confidence: Confidence::Log,
        unobserved_weight: 0.2,
        regularization: 0.05,
        frequency_exponent: 0.8,
        seed: 11,
    }
}
