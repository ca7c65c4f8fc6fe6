//! Vectors for tracks that nobody has heard yet, from their artist and tags.
//!
//! The factors of tracks with listeners are explained as a sum: one vector common to all, one of the
//! artist, one of each tag; a ridge regression, solved for all dimensions at once by conjugate gradients. A
//! cold track is the sum of its parts. The ridge is the one that predicts held-out tracks best, and the
//! report says how well: the share of the factors' variance around their mean that is explained.

use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};

use crate::evaluation::hash;
use crate::ingest::Attributes;

/// Ridges tried.
const RIDGES: [f64; 5] = [0.3, 1.0, 3.0, 10.0, 30.0];
/// One track in so many is held out to choose among them.
const HELD_OUT: u64 = 8;
/// Steps of the solver.
const STEPS: usize = 40;
/// A track's factors count fully from about so many listeners.
const TRUSTED: f64 = 5.0;

/// How cold tracks were given vectors.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ColdReport {
    /// Tracks that got a vector.
    pub items: usize,
    /// The ridge chosen.
    pub ridge: f64,
    /// Share of the variance of held-out tracks' factors that their artist and tags explain; below 0 where
    /// they mislead.
    pub explained: f64,
}

/// Tracks with factors, to learn from.
pub(super) struct Known<'a> {
    pub(super) attributes: &'a [Attributes],
    pub(super) listeners: &'a [u32],
    pub(super) factors: &'a [f32],
    pub(super) rank: usize,
}

/// Predicts a vector for each of `cold`, row-major. None if nothing can be learned: no track has an artist
/// or tag.
pub(super) fn predict(
    known: &Known<'_>,
    cold: &[&Attributes],
    seed: u64,
) -> Option<(Vec<f32>, ColdReport)> {
    let mut features = Features::default();
    let rows: Vec<Vec<u32>> = known
        .attributes
        .iter()
        .map(|item| features.learn(item))
        .collect();
    if features.numbers.is_empty() {
        return None;
    }
    let weights: Vec<f64> = known
        .listeners
        .iter()
        .map(|&count| f64::from(count) / (f64::from(count) + TRUSTED))
        .collect();
    let held =
        |at: usize| hash(seed, u32::try_from(at).unwrap_or(u32::MAX), 6).is_multiple_of(HELD_OUT);
    let training: Vec<f64> = weights
        .iter()
        .enumerate()
        .map(|(at, &w)| if held(at) { 0.0 } else { w })
        .collect();
    let testing: Vec<f64> = weights
        .iter()
        .enumerate()
        .map(|(at, &w)| if held(at) { w } else { 0.0 })
        .collect();
    let problem = |weights, ridge| Problem {
        rows: &rows,
        weights,
        factors: known.factors,
        rank: known.rank,
        features: features.len(),
        ridge,
    };
    let (ridge, explained) = RIDGES
        .iter()
        .map(|&ridge| {
            let parts = problem(&training, ridge).solve();
            (ridge, explained(&problem(&testing, ridge), &parts))
        })
        .max_by(|a, b| a.1.total_cmp(&b.1))?;
    let parts = problem(&weights, ridge).solve();
    let mut vectors = Vec::with_capacity(cold.len() * known.rank);
    for item in cold {
        let sum = sum_of(&features.known(item), &parts, known.rank);
        #[expect(
            clippy::cast_possible_truncation,
            reason = "rounding to f32 is the point"
        )]
        vectors.extend(sum.iter().map(|&value| value as f32));
    }
    let report = ColdReport {
        items: cold.len(),
        ridge,
        explained,
    };
    Some((vectors, report))
}

/// Numbers of artists and tags; 0 is what all tracks have in common.
#[derive(Default)]
struct Features {
    numbers: FxHashMap<(bool, String), u32>,
}

impl Features {
    fn len(&self) -> usize {
        self.numbers.len() + 1
    }

    fn names(item: &Attributes) -> impl Iterator<Item = (bool, String)> {
        let artist = Some(&item.artist).filter(|artist| !artist.is_empty());
        let artist = artist.map(|artist| (true, artist.clone()));
        artist
            .into_iter()
            .chain(item.tags.iter().map(|tag| (false, tag.clone())))
    }

    fn learn(&mut self, item: &Attributes) -> Vec<u32> {
        let mut row = vec![0];
        for name in Self::names(item) {
            let next = u32::try_from(self.numbers.len() + 1).unwrap_or(u32::MAX);
            row.push(*self.numbers.entry(name).or_insert(next));
        }
        row.sort_unstable();
        row.dedup();
        row
    }

    fn known(&self, item: &Attributes) -> Vec<u32> {
        let mut row = vec![0];
        row.extend(Self::names(item).filter_map(|name| self.numbers.get(&name).copied()));
        row.sort_unstable();
        row.dedup();
        row
    }
}

/// A weighted ridge regression of factors on features.
struct Problem<'a> {
    rows: &'a [Vec<u32>],
    weights: &'a [f64],
    factors: &'a [f32],
    rank: usize,
    features: usize,
    ridge: f64,
}

impl Problem<'_> {
    /// Conjugate gradients on the normal equations, every dimension with step sizes of its own.
    fn solve(&self) -> Vec<f64> {
        let (n, d) = (self.features, self.rank);
        let mut x = vec![0.0; n * d];
        let mut residual = self.right_side();
        let mut direction = residual.clone();
        let squares = |matrix: &[f64], other: &[f64]| {
            let mut sums = vec![0.0; d];
            for (a, b) in matrix.chunks_exact(d).zip(other.chunks_exact(d)) {
                for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
                    *sum += a * b;
                }
            }
            sums
        };
        let mut size = squares(&residual, &residual);
        let first = size.clone();
        for _ in 0..STEPS {
            let image = self.apply(&direction);
            let curvature = squares(&direction, &image);
            let ratio = |a: f64, b: f64| if b > 0.0 { a / b } else { 0.0 };
            let steps: Vec<f64> = size
                .iter()
                .zip(&curvature)
                .map(|(&a, &b)| ratio(a, b))
                .collect();
            for (at, value) in x.iter_mut().enumerate() {
                *value += steps[at % d] * direction[at];
            }
            for (at, value) in residual.iter_mut().enumerate() {
                *value -= steps[at % d] * image[at];
            }
            let next = squares(&residual, &residual);
            if next
                .iter()
                .zip(&first)
                .all(|(now, first)| *now <= 1e-10 * first)
            {
                break;
            }
            let turns: Vec<f64> = next.iter().zip(&size).map(|(&a, &b)| ratio(a, b)).collect();
            for (at, value) in direction.iter_mut().enumerate() {
                *value = residual[at] + turns[at % d] * *value;
            }
            size = next;
        }
        x
    }

    fn right_side(&self) -> Vec<f64> {
        let mut out = vec![0.0; self.features * self.rank];
        for ((row, &weight), factors) in self
            .rows
            .iter()
            .zip(self.weights)
            .zip(self.factors.chunks_exact(self.rank))
        {
            for &feature in row {
                let part = &mut out[feature as usize * self.rank..][..self.rank];
                for (sum, &value) in part.iter_mut().zip(factors) {
                    *sum += weight * f64::from(value);
                }
            }
        }
        out
    }

    fn apply(&self, parts: &[f64]) -> Vec<f64> {
        let mut out: Vec<f64> = parts.iter().map(|value| self.ridge * value).collect();
        for (row, &weight) in self.rows.iter().zip(self.weights) {
            if weight == 0.0 {
                continue;
            }
            let sum = sum_of(row, parts, self.rank);
            for &feature in row {
                let part = &mut out[feature as usize * self.rank..][..self.rank];
                for (out, sum) in part.iter_mut().zip(&sum) {
                    *out += weight * sum;
                }
            }
        }
        out
    }
}

fn sum_of(row: &[u32], parts: &[f64], rank: usize) -> Vec<f64> {
    let mut sum = vec![0.0; rank];
    for &feature in row {
        for (sum, value) in sum
            .iter_mut()
            .zip(&parts[feature as usize * rank..][..rank])
        {
            *sum += value;
        }
    }
    sum
}

/// One minus what is left of the weighted variance around the mean.
fn explained(problem: &Problem<'_>, parts: &[f64]) -> f64 {
    let d = problem.rank;
    let rows = || {
        problem
            .rows
            .iter()
            .zip(problem.weights)
            .zip(problem.factors.chunks_exact(d))
    };
    let total: f64 = problem.weights.iter().sum();
    let mut mean = vec![0.0; d];
    for ((_, &weight), factors) in rows() {
        for (mean, &value) in mean.iter_mut().zip(factors) {
            *mean += weight * f64::from(value) / total.max(f64::MIN_POSITIVE);
        }
    }
    let (mut left, mut all) = (0.0, 0.0);
    for ((row, &weight), factors) in rows() {
        let said = sum_of(row, parts, d);
        for ((&value, said), mean) in factors.iter().zip(&said).zip(&mean) {
            left += weight * (f64::from(value) - said).powi(2);
            all += weight * (f64::from(value) - mean).powi(2);
        }
    }
    if all > 0.0 { 1.0 - left / all } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(artist: &str, tags: &[&str]) -> Attributes {
        Attributes {
            artist: artist.to_owned(),
            tags: tags.iter().map(|&tag| tag.to_owned()).collect(),
            ..Attributes::default()
        }
    }

    /// Factors that are sums of an artist's and a tag's vector and a little noise.
    #[test]
    fn a_cold_track_is_the_sum_of_its_parts() {
        let value = |kind: u32, number: u32, axis: u32| {
            (hash(u64::from(kind), number, axis) >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        };
        let vector = |artist: u32, tag: u32, noise: u32| -> Vec<f32> {
            (0..6)
                .map(|axis| {
                    value(1, artist, axis)
                        + 0.5 * value(2, tag, axis)
                        + 0.05 * value(3, noise, axis)
                })
                .collect()
        };
        let made: Vec<(u32, u32)> = (0..400).map(|at| (at % 20, at * 7 % 9)).collect();
        let attributes: Vec<Attributes> = made
            .iter()
            .map(|(artist, tag)| item(&format!("a{artist}"), &[&format!("t{tag}")]))
            .collect();
        let factors: Vec<f32> = (0u32..)
            .zip(&made)
            .flat_map(|(at, &(a, t))| vector(a, t, at))
            .collect();
        let known = Known {
            attributes: &attributes,
            listeners: &[50; 400],
            factors: &factors,
            rank: 6,
        };
        let cold = [
            item("a3", &["t5"]),
            item("a3", &[]),
            item("nobody", &["unheard"]),
        ];
        let cold: Vec<&Attributes> = cold.iter().collect();
        let (vectors, report) = predict(&known, &cold, 1).unwrap();
        assert!(report.explained > 0.95, "{report:?}");
        for (said, truth) in vectors.iter().zip(vector(3, 5, 9_999)) {
            assert!((said - truth).abs() < 0.15, "{said} {truth}");
        }
        // Nothing known: what all have in common, which is near the mean.
        assert!(
            vectors[12..].iter().all(|value| value.abs() < 0.4),
            "{vectors:?}"
        );
        assert_eq!(predict(&known, &cold, 1).unwrap().0, vectors);
    }

    #[test]
    fn noise_is_not_explained_and_nothing_gives_nothing() {
        let attributes: Vec<Attributes> = (0..200)
            .map(|at| item(&format!("a{}", at % 40), &[]))
            .collect();
        let factors: Vec<f32> = (0..800)
            .map(|at| (hash(5, at, 0) >> 40) as f32 / (1u64 << 23) as f32 - 1.0)
            .collect();
        let known = Known {
            attributes: &attributes,
            listeners: &[9; 200],
            factors: &factors,
            rank: 4,
        };
        let (_, report) = predict(&known, &[], 1).unwrap();
        assert!(report.explained < 0.1, "{report:?}");
        let blank = vec![Attributes::default(); 200];
        let known = Known {
            attributes: &blank,
            ..known
        };
        assert!(predict(&known, &[], 1).is_none());
    }
}
