//! Recall, NDCG, MAP and coverage of ranked lists.

use rustc_hash::FxHashSet;
use serde::{Deserialize, Serialize};

/// Means over users, 0 to 1, larger is better. Named for lists of
/// [`LIST_LENGTH`](super::LIST_LENGTH) = 20.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Quality {
    /// Share of a user's held-out items that are in the list.
    pub recall_at_20: f64,
    /// Normalised discounted cumulative gain: a hit at rank `r` (from 1) counts `1 / log2(r + 1)`; the
    /// ideal list has all of its `min(held out, k)` hits in front.
    pub ndcg_at_20: f64,
    /// Mean average precision, the precisions at the hits divided by `min(held out, k)`.
    pub map_at_20: f64,
    /// Share of the catalogue that is in anybody's list.
    pub coverage_at_20: f64,
}

/// Judges `lists[i]` (distinct items, best first, cut to `k`) against `tests[i]`, one user's held-out
/// (user, item) pairs, sorted by item. `catalogue` is the number of items that could have been
/// recommended. Users without held-out pairs do not count.
#[must_use]
pub fn measure(lists: &[Vec<u32>], tests: &[&[(u32, u32)]], k: usize, catalogue: usize) -> Quality {
    let discounts: Vec<f64> = (0..k)
        .map(|rank| 1.0 / (rank as f64 + 2.0).log2())
        .collect();
    let mut sums = [0.0; 3];
    let mut users = 0usize;
    let mut recommended = FxHashSet::<u32>::default();
    for (list, test) in lists.iter().zip(tests) {
        let list = &list[..list.len().min(k)];
        recommended.extend(list);
        if test.is_empty() {
            continue;
        }
        users += 1;
        let (mut hits, mut gain, mut precisions) = (0usize, 0.0, 0.0);
        for (rank, (item, discount)) in list.iter().zip(&discounts).enumerate() {
            if test.binary_search_by_key(item, |pair| pair.1).is_ok() {
                hits += 1;
                gain += discount;
                precisions += hits as f64 / (rank + 1) as f64;
            }
        }
        let possible = test.len().min(k);
        sums[0] += hits as f64 / test.len() as f64;
        sums[1] += gain
            / discounts[..possible]
                .iter()
                .sum::<f64>()
                .max(f64::MIN_POSITIVE);
        sums[2] += precisions / possible.max(1) as f64;
    }
    let [recall, ndcg, map] = sums.map(|sum| sum / users.max(1) as f64);
    Quality {
        recall_at_20: recall,
        ndcg_at_20: ndcg,
        map_at_20: map,
        coverage_at_20: recommended.len() as f64 / catalogue.max(1) as f64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(user: u32, items: &[u32]) -> Vec<(u32, u32)> {
        items.iter().map(|&item| (user, item)).collect()
    }

    /// Worked by hand: hits at ranks 1 and 3 of a list of 4, three items held out.
    #[test]
    fn equals_the_hand_worked_example() {
        let (first, second) = (pairs(0, &[3, 5, 9]), pairs(1, &[2]));
        let quality = measure(&[vec![5, 1, 9, 4], vec![1, 2]], &[&first, &second], 4, 10);
        let l3 = 1.0 / 3f64.log2();
        let ideal = 1.0 + l3 + 0.5;
        let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-12, "{a} {b}");
        close(quality.recall_at_20, (2.0 / 3.0 + 1.0) / 2.0);
        close(quality.ndcg_at_20, (1.5 / ideal + l3) / 2.0);
        close(quality.map_at_20, ((1.0 + 2.0 / 3.0) / 3.0 + 0.5) / 2.0);
        close(quality.coverage_at_20, 0.5);
    }

    #[test]
    fn the_ideal_is_cut_at_the_list_length() {
        let test = pairs(0, &[1, 2, 3, 4, 5]);
        let quality = measure(&[vec![2, 4]], &[&test], 2, 5);
        assert!((quality.ndcg_at_20 - 1.0).abs() < 1e-12);
        assert!((quality.map_at_20 - 1.0).abs() < 1e-12);
        assert!((quality.recall_at_20 - 0.4).abs() < 1e-12);
    }

    #[test]
    fn nothing_to_judge_is_zero_not_a_division_by_it() {
        for quality in [measure(&[], &[], 20, 0), measure(&[vec![]], &[&[]], 20, 3)] {
            assert_eq!(
                quality.recall_at_20 + quality.ndcg_at_20 + quality.map_at_20,
                0.0
            );
            assert_eq!(quality.coverage_at_20, 0.0);
        }
    }
}
