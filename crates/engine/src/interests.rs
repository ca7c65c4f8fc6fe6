//! Several tastes of one listener: what speaks for items in groups of items alike, each folded in on its own.
//!
//! A listener of jazz and of lullabies has a vector between the two, near to neither. Retrieving from a vector
//! for each interest, an item as good as it is to its best one, is the reading of Weston, Weiss and Yee,
//! "Nonlinear latent factorization by embedding multiple user interests" (RecSys 2013). Here the interests
//! come from the listener's own evidence: spherical k-means (Dhillon and Modha 2001) over the directions of
//! its items, weighted by how much each counts, with the greedy, deterministic form of the seeding of
//! k-means++ (Arthur and Vassilvitskii 2007). Each group is then folded in exactly as a whole profile is.
//!
//! A pure function of the evidence and the version: an excluded event shapes no interest, and neither the
//! order of arrival nor the number of threads matters.

use std::sync::{Arc, Mutex, PoisonError};

use refrain_als::FoldInScratch;
use refrain_kernels::Metric;
use refrain_taste::Taste;

use crate::query::is_zero;
use crate::solve::{FoldError, solve};
use crate::version::Version;

/// Different items that make an interest; fewer are an accident.
const LEAST_ITEMS: usize = 3;

/// Rounds of assigning and averaging; more change little, and none once nothing moves.
const ROUNDS: usize = 16;

/// One taste of a listener.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Interest {
    /// What speaks for it: positive evidence, by ordinal.
    positive: Vec<(u32, f32)>,
    /// Folded in from it and all evidence against items.
    pub(crate) vector: Vec<f32>,
}

impl Interest {
    /// All that its vector is folded in from.
    pub(crate) fn evidence(&self, taste: &Taste) -> Vec<(u32, f32)> {
        let against = taste
            .evidence
            .iter()
            .filter(|(_, strength)| *strength < 0.0);
        let mut evidence: Vec<_> = against.chain(&self.positive).copied().collect();
        evidence.sort_unstable_by_key(|&(ordinal, _)| ordinal);
        evidence
    }
}

/// At most `most` interests, the strongest first. None where the evidence does not make at least two: the
/// profile as a whole is its one interest then. O(rounds · items · most · dim + a fold-in each).
pub(crate) fn interests(
    version: &Version,
    taste: &Taste,
    most: usize,
    scratch: &mut FoldInScratch,
) -> Result<Vec<Interest>, FoldError> {
    let points = Points::new(version, taste);
    let count = most.min(points.len() / LEAST_ITEMS);
    if count < 2 {
        return Ok(Vec::new());
    }
    let groups = points.groups(count);
    if groups.len() < 2 {
        return Ok(Vec::new());
    }
    let mut interests = Vec::with_capacity(groups.len());
    for group in groups {
        let positive: Vec<(u32, f32)> = group.iter().map(|&at| points.evidence[at]).collect();
        let mut interest = Interest {
            positive,
            vector: Vec::new(),
        };
        interest.vector = solve(version, &interest.evidence(taste), scratch)?;
        if !is_zero(&interest.vector) {
            interests.push(interest);
        }
    }
    Ok(interests)
}

/// The interest that an item is nearest to.
pub(crate) fn best<'a>(
    interests: &'a [Interest],
    metric: Metric,
    item: &[f32],
) -> Option<&'a Interest> {
    let score = |interest: &Interest| {
        let kernels = refrain_kernels::Kernels::active();
        kernels.score(metric, &interest.vector, item)
    };
    // The first of the best: `max_by` takes the last.
    let scored = interests
        .iter()
        .rev()
        .map(|interest| (interest, score(interest)));
    scored
        .max_by(|(_, a), (_, b)| a.total_cmp(b))
        .map(|(interest, _)| interest)
}

/// The items that speak for a taste, as weighted directions.
struct Points {
    evidence: Vec<(u32, f32)>,
    /// One row of `dim` values of unit length each.
    directions: Vec<f64>,
    dim: usize,
}

impl Points {
    /// Items without a direction say nothing about one, and are left out.
    fn new(version: &Version, taste: &Taste) -> Self {
        let mut points = Self {
            evidence: Vec::new(),
            directions: Vec::new(),
            dim: version.index().dim(),
        };
        for &(ordinal, strength) in &taste.evidence {
            let Some(vector) = version.vector(ordinal).filter(|_| strength > 0.0) else {
                continue;
            };
            let mut direction: Vec<f64> = vector.iter().map(|&value| f64::from(value)).collect();
            if normalize(&mut direction) {
                points.evidence.push((ordinal, strength));
                points.directions.extend(direction);
            }
        }
        points
    }

    fn len(&self) -> usize {
        self.evidence.len()
    }

    fn direction(&self, at: usize) -> &[f64] {
        &self.directions[at * self.dim..(at + 1) * self.dim]
    }

    fn weight(&self, at: usize) -> f64 {
        f64::from(self.evidence[at].1)
    }

    /// Positions of the points of each group, the heaviest group first, ties by its first item. Groups of
    /// less than [`LEAST_ITEMS`] are spread over the others.
    fn groups(&self, count: usize) -> Vec<Vec<usize>> {
        let mut centres = self.seeds(count);
        let mut groups = self.assigned(&centres);
        for _ in 0..ROUNDS {
            centres = self.centres(&groups);
            let moved = self.assigned(&centres);
            if moved == groups {
                break;
            }
            groups = moved;
        }
        // Each time with fewer groups, until every point is in one that is large enough.
        loop {
            let before = groups.len();
            groups.retain(|group| group.len() >= LEAST_ITEMS);
            if groups.len() == before || groups.is_empty() {
                break;
            }
            groups = self.assigned(&self.centres(&groups));
        }
        let weight = |group: &[usize]| group.iter().map(|&at| self.weight(at)).sum::<f64>();
        groups.sort_by(|a, b| weight(b).total_cmp(&weight(a)).then_with(|| a.cmp(b)));
        groups
    }

    /// The heaviest point, then again and again the one whose weight times distance to all so far is largest.
    fn seeds(&self, count: usize) -> Vec<Vec<f64>> {
        let mut seeds: Vec<Vec<f64>> = Vec::with_capacity(count);
        let mut distance = vec![1.0_f64; self.len()];
        while seeds.len() < count {
            let mut furthest = (0, 0.0);
            for (at, &distance) in distance.iter().enumerate() {
                let by = self.weight(at) * distance;
                if by > furthest.1 {
                    furthest = (at, by);
                }
            }
            if furthest.1 == 0.0 {
                break;
            }
            let seed = self.direction(furthest.0).to_vec();
            for (at, distance) in distance.iter_mut().enumerate() {
                let to_seed = 1.0 - dot(self.direction(at), &seed);
                // Rounding must not make a point a seed twice.
                let to_seed = if to_seed < 1e-9 { 0.0 } else { to_seed };
                *distance = distance.min(to_seed);
            }
            seeds.push(seed);
        }
        seeds
    }

    /// Every point with its nearest centre, ties to the first; centres without a point are gone.
    fn assigned(&self, centres: &[Vec<f64>]) -> Vec<Vec<usize>> {
        let mut groups = vec![Vec::new(); centres.len()];
        for at in 0..self.len() {
            let mut nearest = (0, f64::NEG_INFINITY);
            for (centre, values) in centres.iter().enumerate() {
                let cosine = dot(self.direction(at), values);
                if cosine > nearest.1 {
                    nearest = (centre, cosine);
                }
            }
            groups[nearest.0].push(at);
        }
        groups.retain(|group| !group.is_empty());
        groups
    }

    /// The direction of the weighted sum of each group; that of its first point where the sum has none.
    fn centres(&self, groups: &[Vec<usize>]) -> Vec<Vec<f64>> {
        let centre = |group: &Vec<usize>| {
            let mut sum = vec![0.0; self.dim];
            for &at in group {
                let weight = self.weight(at);
                for (sum, value) in sum.iter_mut().zip(self.direction(at)) {
                    *sum += weight * value;
                }
            }
            if !normalize(&mut sum) {
                sum.copy_from_slice(self.direction(group[0]));
            }
            sum
        };
        groups.iter().map(centre).collect()
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Scales to unit length; false for what has no direction.
fn normalize(values: &mut [f64]) -> bool {
    let norm = dot(values, values).sqrt();
    if norm > 0.0 && norm.is_finite() {
        values.iter_mut().for_each(|value| *value /= norm);
        return true;
    }
    false
}

/// The interests asked for last: a variant asks for the same number every time. They follow from what they
/// are kept beside, so a copy does without and all are equal.
#[derive(Debug, Default)]
pub(crate) struct Kept(Mutex<Option<Asked>>);

type Asked = (usize, Arc<[Interest]>);

impl Kept {
    pub(crate) fn get_or(
        &self,
        most: usize,
        solve: impl FnOnce() -> Result<Vec<Interest>, FoldError>,
    ) -> Result<Arc<[Interest]>, FoldError> {
        let lock = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = lock().clone();
        if let Some((_, interests)) = kept.filter(|(asked, _)| *asked == most) {
            return Ok(interests);
        }
        // Not under the lock: who else asks meanwhile solves the same.
        let interests: Arc<[Interest]> = solve()?.into();
        *lock() = Some((most, Arc::clone(&interests)));
        Ok(interests)
    }
}

impl Clone for Kept {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl PartialEq for Kept {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}
