//! Which units were treated might have been otherwise: the effect against those of all other splits.

use serde::{Deserialize, Serialize};

use super::super::moments::{count, length};
use super::super::random::SplitMix;

/// Up to this many splits, all are looked at; above, as many are drawn.
pub const MOST_EXACT_SPLITS: u64 = 200_000;

/// Seed of the drawn splits: fixed, so that a report can be reproduced.
const SEED: u64 = 0x7265_6672_6169_6e21;

/// Fisher's exact test of "no effect on any unit".
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Permutation {
    /// The effect.
    pub delta: f64,
    /// Share of splits with an effect at least as large.
    pub p_one_sided: f64,
    /// Share of splits with an effect at least as large in size.
    pub p_two_sided: f64,
    /// Splits looked at.
    pub splits: u64,
    /// Whether these were all there are.
    pub exact: bool,
    /// The smallest two-sided p-value that any data could give with so many units: above the level,
    /// the test cannot reject, and that is known before the experiment.
    pub smallest_two_sided: f64,
}

/// Compares the mean of treated and untreated `values` with all splits of the same sizes.
pub(super) fn test(values: &[f64], treated: &[bool]) -> Permutation {
    let chosen = treated.iter().filter(|t| **t).count();
    let total: f64 = values.iter().sum();
    let effect = |sum: f64| sum / length(chosen) - (total - sum) / length(values.len() - chosen);
    let sum_of = |picked: &[usize]| picked.iter().map(|&i| values[i]).sum::<f64>();
    let actual: Vec<usize> = (0..values.len()).filter(|&i| treated[i]).collect();
    let delta = effect(sum_of(&actual));
    // Splits that tie with the actual one must count whatever order they were summed in.
    let scale: f64 = values.iter().map(|v| v.abs()).sum();
    let slack = 1e-12 * scale;
    let (mut larger, mut more_extreme, mut splits) = (0_u64, 0_u64, 0_u64);
    let mut look = |picked: &[usize]| {
        let other = effect(sum_of(picked));
        splits += 1;
        larger += u64::from(other >= delta - slack);
        more_extreme += u64::from(other.abs() >= delta.abs() - slack);
    };
    let all = combinations(values.len(), chosen);
    let exact = all <= MOST_EXACT_SPLITS;
    if exact {
        let mut picked: Vec<usize> = (0..chosen).collect();
        loop {
            look(&picked);
            if !next(&mut picked, values.len()) {
                break;
            }
        }
    } else {
        // The actual split is one of those that might have been.
        look(&actual);
        let mut random = SplitMix::new(SEED);
        let mut order: Vec<usize> = (0..values.len()).collect();
        for _ in 1..MOST_EXACT_SPLITS {
            for i in 0..chosen {
                let j = i + random.below(values.len() - i);
                order.swap(i, j);
            }
            look(&order[..chosen]);
        }
    }
    let share = |hits: u64| count(hits) / count(splits);
    // Equal groups: each split's mirror image has the same size of effect.
    let mirrored = if chosen * 2 == values.len() { 2 } else { 1 };
    Permutation {
        delta,
        p_one_sided: share(larger),
        p_two_sided: share(more_extreme),
        splits,
        exact,
        smallest_two_sided: count(mirrored) / count(all),
    }
}

/// n over k, saturating.
fn combinations(n: usize, k: usize) -> u64 {
    let (n, k) = (n as u128, k.min(n - k) as u128);
    let mut result: u128 = 1;
    for i in 0..k {
        result = result * (n - i) / (i + 1);
        if result > u128::from(u64::MAX) {
            return u64::MAX;
        }
    }
    u64::try_from(result).unwrap_or(u64::MAX)
}

/// The next combination in lexicographic order.
fn next(picked: &mut [usize], n: usize) -> bool {
    let k = picked.len();
    let Some(i) = (0..k).rev().find(|&i| picked[i] < n - k + i) else {
        return false;
    };
    picked[i] += 1;
    for j in i + 1..k {
        picked[j] = picked[j - 1] + 1;
    }
    true
}
