//! Full-catalogue lists: by factors and by popularity.

use rayon::prelude::*;
use refrain_als::{Factors, Interactions};
use refrain_kernels::{Kernels, Metric};

/// Users scored against a tile of items while it is in the cache.
const USERS_PER_BATCH: usize = 32;

/// Items of a tile: 64 KiB of factors at rank 64.
const ITEMS_PER_TILE: usize = 256;

/// For each of `users` the `k` items with the largest inner product, best first, ties by ordinal. Items
/// the user has in `train`, and items without `listeners`, are left out.
///
/// Runs in the current rayon pool. `O(users × items × rank)`.
#[must_use]
pub fn rank_by_factors(
    factors: &Factors,
    train: &Interactions,
    listeners: &[u32],
    users: &[u32],
    k: usize,
) -> Vec<Vec<u32>> {
    let rank = factors.rank;
    let kernels = Kernels::active();
    users
        .par_chunks(USERS_PER_BATCH)
        .flat_map_iter(|batch| {
            let mut best: Vec<Best> = batch.iter().map(|_| Best::new(k)).collect();
            let mut scores = [0.0; ITEMS_PER_TILE];
            for (tile, first) in factors
                .items
                .chunks(ITEMS_PER_TILE * rank)
                .zip((0..).step_by(ITEMS_PER_TILE))
            {
                let scores = &mut scores[..tile.len() / rank];
                for (best, &user) in best.iter_mut().zip(batch) {
                    let query = &factors.users[user as usize * rank..][..rank];
                    kernels.score_rows(Metric::InnerProduct, query, tile, rank, scores);
                    let seen = train.user(user).0;
                    for (&score, item) in scores.iter().zip(first..) {
                        if score > best.threshold
                            && listeners[item as usize] > 0
                            && seen.binary_search(&item).is_err()
                        {
                            best.insert(score, item);
                        }
                    }
                }
            }
            best.into_iter().map(Best::into_items)
        })
        .collect()
}

/// For each of `users` the `k` items with the most `listeners`, ties by ordinal, without items the user
/// has in `train` and items nobody has.
#[must_use]
pub fn rank_by_popularity(
    train: &Interactions,
    listeners: &[u32],
    users: &[u32],
    k: usize,
) -> Vec<Vec<u32>> {
    let mut popular: Vec<u32> = (0..)
        .zip(listeners)
        .filter(|&(_, &count)| count > 0)
        .map(|(item, _)| item)
        .collect();
    popular.sort_by_key(|&item| std::cmp::Reverse(listeners[item as usize]));
    let list = |&user: &u32| {
        let seen = train.user(user).0;
        popular
            .iter()
            .copied()
            .filter(|item| seen.binary_search(item).is_err())
            .take(k)
            .collect()
    };
    users.iter().map(list).collect()
}

/// The best `k` of scores offered in ascending order of their items.
struct Best {
    k: usize,
    /// Best first.
    entries: Vec<(f32, u32)>,
    /// What a score has to exceed to get in. Equal scores stay out: the smaller ordinal came first.
    threshold: f32,
}

impl Best {
    fn new(k: usize) -> Self {
        Self {
            k,
            entries: Vec::with_capacity(k + 1),
            threshold: f32::NEG_INFINITY,
        }
    }

    fn insert(&mut self, score: f32, item: u32) {
        let place = self.entries.partition_point(|entry| entry.0 >= score);
        self.entries.insert(place, (score, item));
        self.entries.truncate(self.k);
        if let (true, Some(last)) = (self.entries.len() == self.k, self.entries.last()) {
            self.threshold = last.0;
        }
    }

    fn into_items(self) -> Vec<u32> {
        self.entries.into_iter().map(|entry| entry.1).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::listeners;
    use super::*;

    /// A log over two tiles of items, the last item never heard.
    fn log() -> (Interactions, Factors) {
        let (users, items, rank) = (70u32, 300u32, 5usize);
        let pairs =
            (0..users).flat_map(|u| (0..9).map(move |n| (u, (u * 13 + n * n * 7) % 299, 1.0)));
        let train = Interactions::from_triplets(users, items, pairs.collect()).unwrap();
        // Coarse values, so that many scores tie.
        let coarse = |n: u32| -> Vec<f32> {
            let values = 0..n * u32::try_from(rank).unwrap();
            values
                .map(|i| f32::from(u8::try_from((i * 37 + i / 7) % 5).unwrap()) - 2.0)
                .collect()
        };
        (
            train,
            Factors {
                rank,
                users: coarse(users),
                items: coarse(items),
            },
        )
    }

    #[test]
    fn equals_a_full_sort() {
        let (train, factors) = log();
        let listeners = listeners(&train);
        let users: Vec<u32> = (0..70).rev().collect();
        let ranked = rank_by_factors(&factors, &train, &listeners, &users, 20);
        let popular = rank_by_popularity(&train, &listeners, &users, 20);
        for (index, &user) in users.iter().enumerate() {
            let seen = train.user(user).0;
            let allowed: Vec<u32> = (0..300)
                .filter(|item| !seen.contains(item) && listeners[*item as usize] > 0)
                .collect();
            let row = |rows: &[f32], i: u32| rows[i as usize * 5..][..5].to_vec();
            let score = |item: u32| -> f32 {
                row(&factors.users, user)
                    .iter()
                    .zip(row(&factors.items, item))
                    .map(|(a, b)| a * b)
                    .sum()
            };
            let mut naive = allowed.clone();
            naive.sort_by(|&a, &b| score(b).total_cmp(&score(a)).then(a.cmp(&b)));
            assert_eq!(ranked[index], naive[..20], "user {user}");
            let mut naive = allowed;
            naive.sort_by_key(|&item| (u32::MAX - listeners[item as usize], item));
            assert_eq!(popular[index], naive[..20], "user {user}");
        }
    }

    #[test]
    fn a_short_catalogue_gives_a_short_list() {
        let train = Interactions::from_triplets(1, 3, vec![(0, 0, 1.0)]).unwrap();
        let factors = Factors {
            rank: 1,
            users: vec![1.0],
            items: vec![1.0; 3],
        };
        assert_eq!(
            rank_by_factors(&factors, &train, &[1, 1, 0], &[0], 20),
            [vec![1]]
        );
        assert_eq!(rank_by_popularity(&train, &[1, 1, 0], &[0], 20), [vec![1]]);
    }
}
