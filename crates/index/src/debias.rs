//! Less of popularity in an inner product: each score divided by a power of the item's length.

use refrain_kernels::{Lines, Metric};

use crate::{heads::Heads, index::Index, layout::RUN};

/// What the scores of an index are multiplied by: `|x|^-β` for an item of vector `x`, so that the score of a
/// query `q` is `q·x · |x|^-β`.
///
/// Factors learned from listens grow with popularity, mostly in length: `β` takes as much of that out as is
/// wanted, from 0 (the inner product as it is) to 1 (the query's length times the cosine). Walk, bounds and
/// final scores all use it, so a search finds the best by the new score, not the best of the old one put in
/// another order. Four bytes an item; made once for an index and a `β`.
#[derive(Debug, Clone, PartialEq)]
pub struct Debias {
    beta: f64,
    /// By place.
    pub(crate) weights: Vec<f32>,
    /// As the section of lengths: the most that `|x| · |x|^-β` comes to from each run of items on; falling.
    pub(crate) lengths: Vec<f32>,
    /// The heads that belong to them.
    pub(crate) heads: Heads,
    /// The largest weighted step of an item.
    pub(crate) widest: f32,
}

/// Why an index cannot be de-biased so.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum DebiasError {
    /// Not a number from 0 to 1.
    #[error("{beta} is not in 0 to 1")]
    Beta {
        /// What was given.
        beta: f64,
    },
    /// Only an inner product has lengths in it.
    #[error("an index by {metric} has no lengths in its scores")]
    Metric {
        /// What the index is searched by.
        metric: Metric,
    },
}

impl Debias {
    /// For an index by inner product, `beta` from 0 to 1. Decodes every vector: O(n · dim).
    ///
    /// # Errors
    /// [`DebiasError`] for another metric or `beta`.
    pub fn new(index: &Index, beta: f64) -> Result<Self, DebiasError> {
        let metric = index.metric();
        if metric != Metric::InnerProduct {
            return Err(DebiasError::Metric { metric });
        }
        if !(0.0..=1.0).contains(&beta) {
            return Err(DebiasError::Beta { beta });
        }
        let space = index.space();
        let mut row = Lines::new();
        let mut weights = Vec::with_capacity(index.len());
        let mut lengths = vec![0.0_f32; index.len().div_ceil(RUN)];
        let mut widest = 0.0_f32;
        for place in 0..crate::walk::count(index.len()) {
            space.decode(place, &mut row);
            let length = length(&row);
            let weight = power(length, beta);
            let run = &mut lengths[place as usize / RUN];
            // Rounded up: it bounds what an item can score.
            #[expect(clippy::cast_possible_truncation, reason = "a bound, widened")]
            let scored = (length * f64::from(weight)) as f32 * (1.0 + 1e-6);
            *run = run.max(scored);
            widest = widest.max(space.step(place) * weight);
            weights.push(weight);
        }
        // Places are in the order of the lengths before coding: what follows may be a little longer.
        for at in (1..lengths.len()).rev() {
            lengths[at - 1] = lengths[at - 1].max(lengths[at]);
        }
        Ok(Self {
            beta,
            heads: Heads::new(&lengths, index.len()),
            weights,
            lengths,
            widest,
        })
    }

    /// The power that scores are divided by.
    pub fn beta(&self) -> f64 {
        self.beta
    }

    /// How many items it knows: those of the index it was made for.
    pub fn len(&self) -> usize {
        self.weights.len()
    }

    /// Whether it was made for an index without items.
    pub fn is_empty(&self) -> bool {
        self.weights.is_empty()
    }

    /// What the score of an item of this vector is multiplied by.
    pub fn weight(vector: &[f32], beta: f64) -> f32 {
        power(length(vector), beta)
    }
}

fn length(vector: &[f32]) -> f64 {
    let squares = vector.iter().map(|value| f64::from(*value).powi(2));
    squares.sum::<f64>().sqrt()
}

/// `length^-beta`; 0 for a vector of no length, which scores 0 anyway. The same on every machine.
fn power(length: f64, beta: f64) -> f32 {
    if length == 0.0 {
        return 0.0;
    }
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a positive number of at most 1e45"
    )]
    let weight = libm::exp(-beta * libm::log(length)) as f32;
    weight.min(f32::MAX)
}

#[cfg(test)]
mod tests;
