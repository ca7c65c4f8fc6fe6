//! What ranked lists are worth, for one user and for all.
//!
//! The definitions are those of ranx and ir-measures, held by a test on worked figures: NDCG with linear
//! gains, its ideal cut at the list's length; average precision divided by `min(relevant, k)`; a user
//! without anything relevant does not count and is counted.

use serde::{Deserialize, Serialize};

/// Means over users, larger is better unless said otherwise. Named for lists of
/// [`LIST_LENGTH`](super::LIST_LENGTH) = 20.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Quality {
    /// Share of a user's held-out items that are in the list, 0 to 1.
    pub recall_at_20: f64,
    /// Normalised discounted cumulative gain: a hit at rank `r` (from 1) counts `1 / log2(r + 1)`; the
    /// ideal list has all of its `min(held out, k)` hits in front.
    pub ndcg_at_20: f64,
    /// Mean average precision, the precisions at the hits divided by `min(held out, k)`.
    pub map_at_20: f64,
    /// Mean of `1 / rank` of the first hit, 0 where there is none.
    #[serde(default)]
    pub mrr_at_20: f64,
    /// Share of users with at least one hit.
    #[serde(default)]
    pub hit_rate_at_20: f64,
    /// Share of the catalogue that is in anybody's list.
    pub coverage_at_20: f64,
    /// Gini coefficient of how often each item of the catalogue is recommended: 0 all alike, towards 1
    /// all lists the same. Smaller is more even.
    #[serde(default)]
    pub gini_at_20: f64,
    /// Entropy of the same in bits: `log2` of the number of items that are effectively recommended.
    #[serde(default)]
    pub entropy_bits_at_20: f64,
    /// Mean `-log2` of the share of users who have a recommended item in training.
    #[serde(default)]
    pub novelty_bits_at_20: f64,
    /// Mean `1 - cosine` over the pairs of a list, 0 to 2; absent without vectors.
    #[serde(default)]
    pub intra_list_distance_at_20: Option<f64>,
}

/// What could have been recommended: what [`measure`] compares lists with beside the held-out items.
#[derive(Debug, Clone, Copy)]
pub struct Catalogue<'a> {
    /// Number of items that could have been recommended.
    pub size: usize,
    /// Users who have each item in training, by ordinal.
    pub listeners: &'a [u32],
    /// Number of users in training.
    pub users: usize,
    /// Item vectors row by row, and how many values one has.
    pub vectors: Option<(&'a [f32], usize)>,
}

/// What one user's list is worth, each 0 to 1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Scores {
    /// Share of the relevant items that are in the list.
    pub recall: f64,
    /// Normalised discounted cumulative gain.
    pub ndcg: f64,
    /// Average precision.
    pub average_precision: f64,
    /// `1 / rank` of the first hit.
    pub reciprocal_rank: f64,
    /// 1 if anything was hit.
    pub hit: f64,
}

/// Judges a list (distinct items, best first, cut to `k`) by `gains`: the relevant items, ascending, each
/// with a gain above 0. None if nothing is relevant.
#[must_use]
pub fn judge(list: &[u32], gains: &[(u32, f64)], k: usize) -> Option<Scores> {
    if gains.is_empty() || k == 0 {
        return None;
    }
    let discount = |rank: usize| (rank as f64 + 2.0).log2().recip();
    let mut scores = Scores::default();
    let (mut hits, mut gain) = (0usize, 0.0);
    for (rank, item) in list.iter().take(k).enumerate() {
        let Ok(at) = gains.binary_search_by_key(item, |pair| pair.0) else {
            continue;
        };
        hits += 1;
        gain += gains[at].1 * discount(rank);
        scores.average_precision += hits as f64 / (rank + 1) as f64;
        if hits == 1 {
            scores.reciprocal_rank = 1.0 / (rank + 1) as f64;
            scores.hit = 1.0;
        }
    }
    let mut best: Vec<f64> = gains.iter().map(|pair| pair.1).collect();
    best.sort_by(|a, b| b.total_cmp(a));
    let ideal: f64 = best
        .iter()
        .take(k)
        .enumerate()
        .map(|(rank, gain)| gain * discount(rank))
        .sum();
    scores.recall = hits as f64 / gains.len() as f64;
    scores.ndcg = gain / ideal.max(f64::MIN_POSITIVE);
    scores.average_precision /= gains.len().min(k) as f64;
    Some(scores)
}

/// The mean of each score; zeros for nobody.
#[must_use]
pub fn mean(scores: &[Scores]) -> Scores {
    let of =
        |of: fn(&Scores) -> f64| scores.iter().map(of).sum::<f64>() / scores.len().max(1) as f64;
    Scores {
        recall: of(|scores| scores.recall),
        ndcg: of(|scores| scores.ndcg),
        average_precision: of(|scores| scores.average_precision),
        reciprocal_rank: of(|scores| scores.reciprocal_rank),
        hit: of(|scores| scores.hit),
    }
}

/// Judges `lists[i]` (distinct items, best first, cut to `k`) against `tests[i]`, one user's held-out
/// (user, item) pairs, sorted by item. Users without held-out pairs do not count.
#[must_use]
pub fn measure(
    lists: &[Vec<u32>],
    tests: &[&[(u32, u32)]],
    k: usize,
    catalogue: &Catalogue<'_>,
) -> Quality {
    let scores: Vec<Scores> = lists
        .iter()
        .zip(tests)
        .filter_map(|(list, test)| {
            let gains: Vec<(u32, f64)> = test.iter().map(|pair| (pair.1, 1.0)).collect();
            judge(list, &gains, k)
        })
        .collect();
    Quality::new(&mean(&scores), lists, k, catalogue)
}

impl Quality {
    /// Puts scores together with what only all lists together tell.
    #[must_use]
    pub fn new(scores: &Scores, lists: &[Vec<u32>], k: usize, catalogue: &Catalogue<'_>) -> Self {
        let spread = Spread::of(lists, k, catalogue);
        Self {
            recall_at_20: scores.recall,
            ndcg_at_20: scores.ndcg,
            map_at_20: scores.average_precision,
            mrr_at_20: scores.reciprocal_rank,
            hit_rate_at_20: scores.hit,
            coverage_at_20: spread.coverage,
            gini_at_20: spread.gini,
            entropy_bits_at_20: spread.entropy_bits,
            novelty_bits_at_20: spread.novelty_bits,
            intra_list_distance_at_20: spread.intra_list_distance,
        }
    }
}

/// How recommendations spread over the catalogue.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Spread {
    coverage: f64,
    gini: f64,
    entropy_bits: f64,
    novelty_bits: f64,
    intra_list_distance: Option<f64>,
}

impl Spread {
    fn of(lists: &[Vec<u32>], k: usize, catalogue: &Catalogue<'_>) -> Self {
        let lists = || lists.iter().map(|list| &list[..list.len().min(k)]);
        let mut times = vec![0u64; catalogue.listeners.len()];
        for &item in lists().flatten() {
            if let Some(times) = times.get_mut(item as usize) {
                *times += 1;
            }
        }
        let shown: u64 = times.iter().sum();
        if shown == 0 {
            return Self::default();
        }
        let mut counts: Vec<u64> = times.iter().copied().filter(|&count| count > 0).collect();
        counts.sort_unstable();
        let size = catalogue.size.max(counts.len());
        let total = shown as f64;
        let first = (size - counts.len()) as f64;
        // Those never shown come first and add nothing.
        let weighted: f64 = counts
            .iter()
            .enumerate()
            .map(|(at, &count)| {
                (2.0 * (first + at as f64 + 1.0) - size as f64 - 1.0) * count as f64
            })
            .sum();
        let entropy_bits = counts
            .iter()
            .map(|&count| count as f64 / total)
            .map(|share| -share * share.log2())
            .sum();
        let novelty: f64 = times
            .iter()
            .zip(catalogue.listeners)
            .filter(|(times, _)| **times > 0)
            .map(|(&times, &listeners)| {
                let share = f64::from(listeners.max(1)) / catalogue.users.max(1) as f64;
                -share.min(1.0).log2() * times as f64
            })
            .sum();
        Self {
            coverage: counts.len() as f64 / size as f64,
            gini: weighted / (size as f64 * total),
            entropy_bits,
            novelty_bits: novelty / total,
            intra_list_distance: catalogue
                .vectors
                .and_then(|(vectors, dim)| intra_list_distance(lists(), vectors, dim)),
        }
    }
}

/// Mean over lists of the mean `1 - cosine` of their pairs. With unit rows `u` the pairs' cosines sum to
/// `(|Σ u|² - n) / 2`, so a list costs one pass. A zero vector is at distance 1 from all.
fn intra_list_distance<'a>(
    lists: impl Iterator<Item = &'a [u32]>,
    vectors: &[f32],
    dim: usize,
) -> Option<f64> {
    let (mut sum, mut counted) = (0.0, 0usize);
    let mut total = vec![0.0f64; dim];
    for list in lists.filter(|list| list.len() > 1) {
        total.fill(0.0);
        let mut units = 0.0;
        for &item in list {
            let Some(row) = vectors.get(item as usize * dim..(item as usize + 1) * dim) else {
                continue;
            };
            let norm = row
                .iter()
                .map(|&v| f64::from(v).powi(2))
                .sum::<f64>()
                .sqrt();
            if norm > 0.0 {
                units += 1.0;
                for (total, &value) in total.iter_mut().zip(row) {
                    *total += f64::from(value) / norm;
                }
            }
        }
        let square: f64 = total.iter().map(|value| value * value).sum();
        let n = list.len() as f64;
        sum += 1.0 - (square - units) / (n * (n - 1.0));
        counted += 1;
    }
    (counted > 0).then(|| sum / counted as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(a: f64, b: f64) {
        assert!((a - b).abs() < 5e-7, "{a} is not {b}");
    }

    fn catalogue(size: usize, listeners: &[u32]) -> Catalogue<'_> {
        Catalogue {
            size,
            listeners,
            users: 4,
            vectors: None,
        }
    }

    /// Figures that ranx and ir-measures agree on: a = 0, b = 1, … e = 4, x = 10, y = 11, z = 12.
    #[test]
    fn equals_two_libraries_on_graded_gains() {
        let first = [(0, 3.0), (1, 2.0), (2, 1.0)];
        let second = [(3, 1.0), (4, 1.0)];
        let (run_1, run_2) = ([1, 10, 0, 11, 2], [10, 3, 11, 12, 4]);
        let at = |k: usize| {
            mean(&[
                judge(&run_1, &first, k).unwrap(),
                judge(&run_2, &second, k).unwrap(),
            ])
        };
        close(at(5).ndcg, 0.720_149);
        close(at(3).ndcg, 0.560_930);
        close(at(5).reciprocal_rank, 0.75);
        close(at(5).average_precision, 0.602_778);
        close(at(3).recall, 0.583_333);
        close(at(1).hit, 0.5);
        close(at(3).hit, 1.0);
        let exponential = |gains: &[(u32, f64)]| -> Vec<(u32, f64)> {
            gains
                .iter()
                .map(|&(item, g)| (item, g.exp2() - 1.0))
                .collect()
        };
        let scores = [
            judge(&run_1, &exponential(&first), 5).unwrap(),
            judge(&run_2, &exponential(&second), 5).unwrap(),
        ];
        close(mean(&scores).ndcg, 0.678_628);
        assert_eq!(judge(&run_1, &[], 5), None);
    }

    #[test]
    fn spread_equals_the_worked_example() {
        let lists = [vec![0, 1, 2], vec![0, 1, 3], vec![0, 4, 2]];
        let listeners = [4, 2, 2, 1, 1, 1];
        let spread = Spread::of(&lists, 3, &catalogue(6, &listeners));
        close(spread.coverage, 0.833_333);
        close(spread.gini, 0.351_852);
        close(spread.entropy_bits, 2.197_160);
        // 3 · 0 + 4 · 1 + 2 · 2 bits over nine places.
        close(spread.novelty_bits, 8.0 / 9.0);
        assert_eq!(spread.intra_list_distance, None);
    }

    #[test]
    fn intra_list_distance_is_the_mean_over_pairs() {
        let vectors = [1.0, 0.0, 0.0, 2.0, -3.0, 0.0, 0.0, 0.0];
        let distance = |list: &[u32]| intra_list_distance([list].into_iter(), &vectors, 2);
        close(distance(&[0, 1]).unwrap(), 1.0);
        close(distance(&[0, 2]).unwrap(), 2.0);
        close(distance(&[0, 1, 2]).unwrap(), (1.0 + 2.0 + 1.0) / 3.0);
        close(distance(&[0, 3]).unwrap(), 1.0);
        assert_eq!(distance(&[0]), None);
    }

    #[test]
    fn the_ideal_is_cut_at_the_list_length() {
        let test: Vec<(u32, u32)> = (1..=5).map(|item| (0, item)).collect();
        let quality = measure(&[vec![2, 4]], &[&test], 2, &catalogue(5, &[1; 6]));
        close(quality.ndcg_at_20, 1.0);
        close(quality.map_at_20, 1.0);
        close(quality.recall_at_20, 0.4);
    }

    #[test]
    fn nothing_to_judge_is_zero_not_a_division_by_it() {
        for quality in [
            measure(&[], &[], 20, &catalogue(0, &[])),
            measure(&[vec![]], &[&[]], 20, &catalogue(3, &[1; 3])),
        ] {
            assert_eq!(quality, Quality::default());
        }
    }
}
