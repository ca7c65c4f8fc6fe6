//! Full-catalogue lists: by factors and by popularity.

use rayon::prelude::*;
use refrain_als::{Factors, Interactions};
use refrain_kernels::{Kernels, Metric};

/// Users scored against a tile of items while it is in the cache, at most.
const USERS_PER_BATCH: usize = 128;

/// Batches for each thread, at least, where there are users enough: some are done sooner than others.
const BATCHES_PER_THREAD: usize = 8;

/// Items of a tile: 64 KiB of factors at rank 64.
const ITEMS_PER_TILE: usize = 256;

/// For each of `users` the `k` items with the largest inner product, best first, ties by ordinal. Items
/// the user has in `train`, and items without `listeners`, are left out.
///
/// Items are scored by falling length: no product is larger than that of the lengths, so a list is done when none that
/// is left can get in. Learned vectors are long where items are popular, and few are.
///
/// Runs in the current rayon pool. `O(users × items × rank)` at most, and the factors of a tile a thread.
#[must_use]
pub fn rank_by_factors(
    factors: &Factors,
    train: &Interactions,
    listeners: &[u32],
    users: &[u32],
    k: usize,
) -> Vec<Vec<u32>> {
    rank_by_tiles(factors, train, listeners, users, k, ITEMS_PER_TILE)
}

fn rank_by_tiles(
    factors: &Factors,
    train: &Interactions,
    listeners: &[u32],
    users: &[u32],
    k: usize,
    items_per_tile: usize,
) -> Vec<Vec<u32>> {
    let rank = factors.rank;
    let item_row = |item: u32| &factors.items[item as usize * rank..][..rank];
    let user_row = |user: u32| &factors.users[user as usize * rank..][..rank];
    let length = |row: &[f32]| {
        row.iter()
            .map(|v| f64::from(*v).powi(2))
            .sum::<f64>()
            .sqrt()
    };
    let heard = (0..).zip(listeners).filter(|&(_, &count)| count > 0);
    let mut items: Vec<(f64, u32)> = heard
        .map(|(item, _)| (length(item_row(item)), item))
        .collect();
    items.par_sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    // A product comes out larger than it is by no more than its rounding.
    let slack = 1.0 + (rank + 8) as f64 * f64::from(f32::EPSILON);
    let threads = rayon::current_num_threads();
    let batch = users.len().div_ceil(BATCHES_PER_THREAD * threads);
    let kernels = Kernels::active();
    users
        .par_chunks(batch.clamp(1, USERS_PER_BATCH))
        .flat_map_iter(|batch| {
            let mut best: Vec<Best> = batch.iter().map(|_| Best::new(k)).collect();
            let mut open: Vec<(usize, f64)> = (0..batch.len())
                .map(|at| (at, length(user_row(batch[at]))))
                .collect();
            let mut scores = vec![0.0; items_per_tile];
            let mut rows = Vec::with_capacity(items_per_tile * rank);
            for tile in items.chunks(items_per_tile) {
                let most = tile[0].0 * slack;
                open.retain(|&(at, length)| length * most >= f64::from(best[at].threshold));
                if open.is_empty() {
                    break;
                }
                rows.clear();
                for &(_, item) in tile {
                    rows.extend_from_slice(item_row(item));
                }
                let scores = &mut scores[..tile.len()];
                for &(at, _) in &open {
                    kernels.score_rows(
                        Metric::InnerProduct,
                        user_row(batch[at]),
                        &rows,
                        rank,
                        scores,
                    );
                    let (best, seen) = (&mut best[at], train.user(batch[at]).0);
                    for (&score, &(_, item)) in scores.iter().zip(tile) {
                        if score >= best.threshold && seen.binary_search(&item).is_err() {
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

/// The best `k` of the scores of items, which are offered in any order; of equal scores the smaller ordinal is better.
struct Best {
    k: usize,
    /// Best first.
    entries: Vec<(f32, u32)>,
    /// A smaller score does not get in.
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
        let better = |entry: &(f32, u32)| entry.0 > score || (entry.0 == score && entry.1 < item);
        let place = self.entries.partition_point(better);
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
        // Few are long, and not the first; halves are exact, so scores still tie.
        let mut popular = factors.clone();
        for (item, row) in (0i32..).zip(popular.items.chunks_exact_mut(popular.rank)) {
            let shorter = 0.5_f32.powi((item * 11 % 300) / 60);
            row.iter_mut().for_each(|value| *value *= shorter);
        }
        for factors in [factors, popular] {
            for (k, items_per_tile) in [(20, ITEMS_PER_TILE), (20, 7), (3, 7), (1, 1), (90, 7)] {
                check(&train, &factors, k, items_per_tile);
            }
        }
    }

    fn check(train: &Interactions, factors: &Factors, k: usize, items_per_tile: usize) {
        let listeners = listeners(train);
        let users: Vec<u32> = (0..70).rev().collect();
        let ranked = rank_by_tiles(factors, train, &listeners, &users, k, items_per_tile);
        let popular = rank_by_popularity(train, &listeners, &users, k);
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
            assert_eq!(ranked[index], naive[..k], "user {user}");
            let mut naive = allowed;
            naive.sort_by_key(|&item| (u32::MAX - listeners[item as usize], item));
            assert_eq!(popular[index], naive[..k], "user {user}");
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
