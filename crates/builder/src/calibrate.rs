//! From scores to confidence: a monotone map fitted on held-out listens.
//!
//! For each judged listener the items that the model ranks first are pairs of a score and whether the
//! item was among their held-out listens. Half of the listeners, by a seeded hash, fit the map; the other
//! half say how far it can be trusted.
//!
//! Isotonic regression by pooling adjacent violators (Barlow et al., "Statistical Inference under Order
//! Restrictions", 1972, §1.2) where there are enough listens; Platt's sigmoid ("Probabilistic outputs for
//! support vector machines", 1999, with his smoothed targets) where there are few.

use refrain_als::{Factors, Interactions};
use refrain_bundle::bundle::{Calibration, MAX_KNOTS};
use refrain_kernels::{Kernels, Metric};

use crate::evaluation::{by_user, hash, rank_by_factors};

/// Items a listener that pairs are made of.
const PAIRS_PER_USER: usize = 100;
/// Listens in the fitting half from which the isotonic map is trusted.
const ENOUGH_LISTENS: usize = 300;
/// Points of a tabulated sigmoid.
const TABLE: usize = 64;
/// Bins of equal size in the reliability plot.
const BINS: usize = 15;

/// A score, and whether it came to a listen.
type Pair = (f32, bool);

/// Fits a map on `held_out`: (user, item) pairs, sorted, of users and items that `factors` were learned
/// for from `train`. At most `max_users` listeners are asked, chosen by `seed`. Runs in the current pool.
///
/// None when too little was held out to say anything: fewer than two listeners, or no listen found.
#[must_use]
pub fn fit(
    train: &Interactions,
    held_out: &[(u32, u32)],
    factors: &Factors,
    event: &str,
    max_users: usize,
    seed: u64,
) -> Option<Calibration> {
    let listeners = crate::evaluation::listeners(train);
    let mut tests = by_user(held_out);
    tests.sort_by_cached_key(|pairs| (hash(seed, pairs[0].0, 3), pairs[0].0));
    tests.truncate(max_users);
    let users: Vec<u32> = tests.iter().map(|pairs| pairs[0].0).collect();
    let lists = rank_by_factors(factors, train, &listeners, &users, PAIRS_PER_USER);
    let kernels = Kernels::active();
    let rank = factors.rank;
    let (mut fitting, mut judging) = (Vec::new(), Vec::new());
    let mut counts = (0u64, 0u64);
    for ((list, test), &user) in lists.iter().zip(&tests).zip(&users) {
        let half = if hash(seed, user, 4) & 1 == 0 {
            counts.0 += 1;
            &mut fitting
        } else {
            counts.1 += 1;
            &mut judging
        };
        let query = &factors.users[user as usize * rank..][..rank];
        half.extend(list.iter().map(|&item| {
            let vector = &factors.items[item as usize * rank..][..rank];
            let mut score = [0.0];
            kernels.score_rows(Metric::InnerProduct, query, vector, rank, &mut score);
            let heard = test.binary_search_by_key(&item, |pair| pair.1).is_ok();
            (score[0], heard)
        }));
    }
    let listens = fitting.iter().filter(|pair| pair.1).count();
    if listens == 0 || judging.is_empty() {
        return None;
    }
    let (method, knots) = if listens >= ENOUGH_LISTENS {
        ("isotonic", isotonic(&mut fitting))
    } else {
        ("platt", platt(&fitting))
    };
    let mut map = Calibration {
        method: method.to_owned(),
        event: event.to_owned(),
        knots,
        users: counts,
        ece: 0.0,
        ece_of_rate: 0.0,
        brier: 0.0,
        reliability: Vec::new(),
    };
    let rate = listens as f64 / fitting.len() as f64;
    let said: Vec<(f64, bool)> = judging
        .iter()
        .map(|&(score, heard)| (f64::from(map.confidence(score)), heard))
        .collect();
    map.reliability = reliability(&said, BINS);
    map.ece = expected_error(&map.reliability);
    // The same bins, of pairs ordered by score, with one probability for all.
    map.ece_of_rate = {
        let observed = map.reliability.iter().map(|bin| (rate, bin.1, bin.2));
        expected_error(&observed.collect::<Vec<_>>())
    };
    map.brier = said
        .iter()
        .map(|&(p, heard)| (p - f64::from(u8::from(heard))).powi(2))
        .sum::<f64>()
        / said.len() as f64;
    Some(map)
}

/// Bins of equal size by what was said: mean said, share that happened, number. Equal probabilities stay
/// together, so there may be fewer bins.
#[must_use]
pub fn reliability(said: &[(f64, bool)], bins: usize) -> Vec<(f64, f64, u64)> {
    let mut sorted = said.to_vec();
    sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
    let size = sorted.len().div_ceil(bins.max(1)).max(1);
    let mut out = Vec::new();
    let mut start = 0;
    while start < sorted.len() {
        let mut end = (start + size).min(sorted.len());
        while end < sorted.len() && sorted[end].0 == sorted[end - 1].0 {
            end += 1;
        }
        let bin = &sorted[start..end];
        let n = bin.len() as f64;
        let mean = bin.iter().map(|pair| pair.0).sum::<f64>() / n;
        let happened = bin.iter().filter(|pair| pair.1).count();
        out.push((mean, happened as f64 / n, bin.len() as u64));
        start = end;
    }
    out
}

/// Expected calibration error: the distance of said and happened, weighted by the size of the bins.
#[must_use]
pub fn expected_error(bins: &[(f64, f64, u64)]) -> f64 {
    let total: u64 = bins.iter().map(|bin| bin.2).sum();
    bins.iter()
        .map(|&(said, happened, count)| (said - happened).abs() * count as f64)
        .sum::<f64>()
        / total.max(1) as f64
}

/// The non-falling step function nearest to the pairs in squares, as knots at the middle of its steps.
#[expect(
    clippy::cast_possible_truncation,
    reason = "rounding to f32 is the point"
)]
fn isotonic(pairs: &mut [Pair]) -> Vec<(f32, f32)> {
    pairs.sort_by(|a, b| a.0.total_cmp(&b.0));
    // Equal scores are one observation; then blocks of (sum of scores, listens, pairs).
    let mut blocks: Vec<(f64, f64, f64)> = Vec::new();
    for group in pairs.chunk_by(|a, b| a.0 == b.0) {
        let n = group.len() as f64;
        let heard = group.iter().filter(|pair| pair.1).count() as f64;
        blocks.push((f64::from(group[0].0) * n, heard, n));
        while let [.., before, last] = blocks.as_slice() {
            if before.1 / before.2 < last.1 / last.2 {
                break;
            }
            let merged = (before.0 + last.0, before.1 + last.1, before.2 + last.2);
            blocks.truncate(blocks.len() - 2);
            blocks.push(merged);
        }
    }
    let step = blocks.len().div_ceil(MAX_KNOTS).max(1);
    let last = blocks.len().saturating_sub(1);
    let mut knots: Vec<(f32, f32)> = blocks
        .iter()
        .enumerate()
        .filter(|(at, _)| at % step == 0 || *at == last)
        .map(|(_, block)| ((block.0 / block.2) as f32, (block.1 / block.2) as f32))
        .collect();
    knots.truncate(MAX_KNOTS);
    knots.dedup_by(|a, b| a.0 <= b.0);
    knots
}

/// Platt's sigmoid by Newton's method (Lin, Lin and Weng, 2007), tabulated.
#[expect(
    clippy::cast_possible_truncation,
    reason = "rounding to f32 is the point"
)]
fn platt(pairs: &[Pair]) -> Vec<(f32, f32)> {
    let heard = pairs.iter().filter(|pair| pair.1).count() as f64;
    let others = pairs.len() as f64 - heard;
    let (low, high) = (1.0 / (others + 2.0), (heard + 1.0) / (heard + 2.0));
    let scores = || pairs.iter().map(|pair| f64::from(pair.0));
    let (least, most) = scores().fold((f64::MAX, f64::MIN), |range, score| {
        (range.0.min(score), range.1.max(score))
    });
    let width = (most - least).max(f64::MIN_POSITIVE);
    let unit = |score: f64| (score - least) / width;
    // p = 1 / (1 + exp(-(a x + b))), x from 0 to 1.
    let (mut a, mut b) = (0.0, ((heard + 1.0) / (others + 1.0)).ln());
    let loss = |a: f64, b: f64| -> f64 {
        pairs
            .iter()
            .map(|&(score, heard)| {
                let (z, t) = (
                    a * unit(f64::from(score)) + b,
                    if heard { high } else { low },
                );
                z.max(0.0) - z * t + (-z.abs()).exp().ln_1p()
            })
            .sum()
    };
    let mut before = loss(a, b);
    for _ in 0..100 {
        let (mut ga, mut gb, mut haa, mut hab, mut hbb) = (0.0, 0.0, 1e-9, 0.0, 1e-9);
        for &(score, heard) in pairs {
            let x = unit(f64::from(score));
            let p = 1.0 / (1.0 + (-(a * x + b)).exp());
            let (error, weight) = (p - if heard { high } else { low }, p * (1.0 - p));
            ga += error * x;
            gb += error;
            haa += weight * x * x;
            hab += weight * x;
            hbb += weight;
        }
        let determinant = haa * hbb - hab * hab;
        let (da, db) = if determinant > 0.0 {
            (
                (hbb * ga - hab * gb) / determinant,
                (haa * gb - hab * ga) / determinant,
            )
        } else {
            (ga, gb)
        };
        let mut step = 1.0;
        let mut after = loss(a - da, b - db);
        while after > before && step > 1e-8 {
            step *= 0.5;
            after = loss(a - step * da, b - step * db);
        }
        if before - after < 1e-10 * before.abs() {
            break;
        }
        (a, b, before) = (a - step * da, b - step * db, after);
    }
    // A map that falls would turn the order around: no slope is the nearest that does not.
    let a = a.max(0.0);
    let mut knots: Vec<(f32, f32)> = (0..TABLE)
        .map(|at| {
            let x = at as f64 / (TABLE - 1) as f64;
            let p = 1.0 / (1.0 + (-(a * x + b)).exp());
            ((least + x * width) as f32, p as f32)
        })
        .collect();
    knots.dedup_by(|a, b| a.0 <= b.0);
    knots
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_expected_error_equals_the_worked_example() {
        // p = .1 .1 .6 .6 .9 and y = 0 0 1 0 1, bins split at .4 and .8.
        let bins = [(0.1, 0.0, 2), (0.6, 0.5, 2), (0.9, 1.0, 1)];
        assert!((expected_error(&bins) - 0.1).abs() < 1e-12);
        let said = [
            (0.9, true),
            (0.1, false),
            (0.6, true),
            (0.1, false),
            (0.6, false),
        ];
        let found = reliability(&said, 3);
        for (bin, expected) in found.iter().zip(bins) {
            assert!(
                (bin.0 - expected.0).abs() < 1e-12 && bin.1 == expected.1 && bin.2 == expected.2
            );
        }
        assert_eq!(found.len(), 3);
        assert_eq!(expected_error(&[]), 0.0);
    }

    #[test]
    fn pooling_gives_the_nearest_non_falling_steps() {
        let mut pairs = [
            (0.1, false),
            (0.2, true),
            (0.3, false),
            (0.4, false),
            (0.5, true),
            (0.6, true),
        ];
        let knots = isotonic(&mut pairs);
        // 0 | 1 0 0 pooled to a third | 1 1 pooled.
        let expected = [(0.1, 0.0), (0.3, 1.0 / 3.0), (0.55, 1.0)];
        assert_eq!(knots.len(), 3, "{knots:?}");
        for (knot, expected) in knots.iter().zip(expected) {
            assert!((knot.0 - expected.0).abs() < 1e-6 && (knot.1 - expected.1).abs() < 1e-6);
        }
    }

    /// Listens drawn with a known probability of the score: both ways find it again.
    #[test]
    fn both_ways_recover_the_probability_that_made_the_listens() {
        let uniform = |at: u32, lane| (hash(9, at, lane) >> 11) as f64 / (1u64 << 53) as f64;
        let truth = |x: f64| 1.0 / (1.0 + (-(4.0 * x - 3.0)).exp());
        let pairs: Vec<Pair> = (0..20_000)
            .map(|at| {
                let x = uniform(at, 0);
                #[expect(clippy::cast_possible_truncation, reason = "a test's score")]
                let score = x as f32;
                (score, uniform(at, 1) < truth(x))
            })
            .collect();
        for knots in [platt(&pairs), isotonic(&mut pairs.clone())] {
            let map = Calibration {
                method: String::new(),
                event: String::new(),
                knots,
                users: (0, 0),
                ece: 0.0,
                ece_of_rate: 0.0,
                brier: 0.0,
                reliability: Vec::new(),
            };
            for x in [0.1f32, 0.3, 0.5, 0.7, 0.9] {
                let (said, true_p) = (map.confidence(x), truth(f64::from(x)));
                assert!(
                    (f64::from(said) - true_p).abs() < 0.05,
                    "{x}: {said} {true_p}"
                );
            }
        }
    }

    #[test]
    fn held_out_listeners_judge_what_the_others_fitted() {
        // 60 listeners, one dimension: the first items of everybody are heard more often.
        let mut rows: Vec<_> = (0..60).map(|user| (user, 40 + user % 10, 1.0)).collect();
        rows.extend((0..40).map(|item| (59, item, 1.0)));
        let train = Interactions::from_triplets(60, 50, rows).unwrap();
        let factors = Factors {
            rank: 1,
            users: vec![1.0; 60],
            items: (0..50u8).map(|item| 1.0 - f32::from(item) / 50.0).collect(),
        };
        let held_out: Vec<(u32, u32)> = (0..59)
            .flat_map(|user| {
                (0..40)
                    .filter(move |&item| hash(2, user, item) % 40 > u64::from(item))
                    .map(move |item| (user, item))
            })
            .collect();
        let map = fit(&train, &held_out, &factors, "a listen", 1_000, 7).unwrap();
        assert_eq!(map.method, "isotonic");
        assert!(map.ece < 0.06 && map.ece < 0.5 * map.ece_of_rate, "{map:?}");
        assert!(map.confidence(0.95) > map.confidence(0.3) + 0.3);
        assert_eq!(
            map,
            fit(&train, &held_out, &factors, "a listen", 1_000, 7).unwrap()
        );
        assert_eq!(fit(&train, &[], &factors, "a listen", 1_000, 7), None);
    }
}
