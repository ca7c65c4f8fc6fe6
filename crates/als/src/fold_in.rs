//! Solving the vector of a user whom training never saw, or has seen differently.

use crate::hyper::{Hyper, HyperError};
use crate::interactions::MAX_STRENGTH;
use crate::normal::{Fixed, Observation, Scratch, Side};

/// Solves user vectors against fixed item factors. Cheap to share between threads; each brings its own
/// [`FoldInScratch`].
#[derive(Debug, Clone)]
pub struct FoldIn {
    hyper: Hyper,
    items: usize,
    side: Side,
}

/// Reusable working memory of [`FoldIn::solve`], which does not allocate once this is warm.
#[derive(Debug, Default)]
pub struct FoldInScratch(Scratch);

/// Why a vector cannot be solved. `position` counts from 0 in the evidence.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum FoldInError {
    /// A hyper-parameter is out of range.
    #[error(transparent)]
    Hyper(#[from] HyperError),
    /// The Gram matrix does not have `rank * rank` values.
    #[error("the gram matrix has {len} values, but rank {rank} needs rank * rank")]
    GramLength {
        /// Number of values given.
        len: usize,
        /// The rank.
        rank: usize,
    },
    /// The Gram matrix has a value that is not finite.
    #[error("the gram matrix has a value that is not finite at {position}")]
    GramValue {
        /// Its place, row-major.
        position: usize,
    },
    /// The item factors do not have `items * rank` values.
    #[error("the item factors have {len} values, but {items} items of rank {rank} are expected")]
    FactorsLength {
        /// Number of values given.
        len: usize,
        /// Number of items expected.
        items: usize,
        /// The rank.
        rank: usize,
    },
    /// Evidence about an item that is not there.
    #[error("evidence {position}: item {item} is out of range, there are {items} items")]
    Item {
        /// Which piece of evidence.
        position: usize,
        /// Its item.
        item: u32,
        /// Number of items.
        items: usize,
    },
    /// Evidence that is not strictly ascending by item.
    #[error("evidence {position}: item {item} does not come after the one before it")]
    Order {
        /// Which piece of evidence.
        position: usize,
        /// Its item.
        item: u32,
    },
    /// A strength that is not finite or exceeds [`MAX_STRENGTH`] either way.
    #[error("evidence {position}: strength {strength} is not between -1e9 and 1e9")]
    Strength {
        /// Which piece of evidence.
        position: usize,
        /// Its strength.
        strength: f32,
    },
    /// The system is singular, or its solution not finite, even in double precision.
    ///
    /// In exact arithmetic this cannot happen: the system is a sum of positive semidefinite matrices
    /// and a positive multiple of the identity. It takes item factors that are not finite, or a
    /// regularisation some sixteen orders of magnitude below the confidences.
    #[error(
        "the normal equations cannot be solved: factors not finite or regularization too small"
    )]
    Unsolvable,
}

impl FoldIn {
    /// `gram` is [`gram`](crate::gram()) of the `items * rank` item factors; `hyper` must be that of
    /// training for a fold-in to reproduce the trained vectors.
    ///
    /// # Errors
    /// Hyper-parameters out of range, or a Gram matrix of the wrong size or not finite.
    pub fn new(
        rank: usize,
        items: usize,
        gram: Vec<f32>,
        hyper: &Hyper,
    ) -> Result<Self, FoldInError> {
        let hyper = Hyper { rank, ..*hyper };
        hyper.validate()?;
        if gram.len() != rank * rank {
            return Err(FoldInError::GramLength {
                len: gram.len(),
                rank,
            });
        }
        if let Some(position) = gram.iter().position(|value| !value.is_finite()) {
            return Err(FoldInError::GramValue { position });
        }
        Ok(Self {
            hyper,
            items,
            side: Side::new(&hyper, items, gram),
        })
    }

    /// Number of dimensions.
    #[must_use]
    pub fn rank(&self) -> usize {
        self.hyper.rank
    }

    /// Solves the user vector for `evidence` into `out` (`rank` values), exactly.
    ///
    /// `evidence` is `(item, strength)`, strictly ascending by item. A positive strength means
    /// preference 1 with confidence `c(strength)`, a negative one preference 0 with confidence
    /// `c(|strength|)`; 0 says nothing and is skipped. Without evidence the vector is zero.
    ///
    /// `O(n rank² + rank³)`; no allocation once `scratch` and `out` have been used at this rank.
    ///
    /// # Errors
    /// Evidence that is out of range, out of order or not finite; factors of the wrong size or not
    /// finite. `out` is then unspecified.
    pub fn solve(
        &self,
        factors: &[f32],
        evidence: &[(u32, f32)],
        scratch: &mut FoldInScratch,
        out: &mut Vec<f32>,
    ) -> Result<(), FoldInError> {
        self.check(factors, evidence)?;
        self.solve_checked(factors, evidence.iter().copied(), scratch, out)
    }

    /// [`solve`](Self::solve) where the factors do not lie in one array: `rows` holds one row of `rank`
    /// values a strength, in the order of the evidence. The same rows in the same order give the same
    /// bits. So a user is folded in who listened to items that are newer than the factors, and, with the
    /// users' Gram matrix, an item from the vectors of its first listeners.
    ///
    /// # Errors
    /// As [`solve`](Self::solve).
    pub fn solve_rows(
        &self,
        rows: &[f32],
        strengths: &[f32],
        scratch: &mut FoldInScratch,
        out: &mut Vec<f32>,
    ) -> Result<(), FoldInError> {
        self.check_rows(rows, strengths)?;
        self.solve_checked(rows, (0..).zip(strengths.iter().copied()), scratch, out)
    }

    /// Splits `target · x` over the evidence, where `x` is what [`solve_rows`](Self::solve_rows) gives for
    /// it: one number a strength, which add up to the product but for rounding. Negative evidence brings
    /// 0 itself; what it does is to pull the shares of the others. `target` has `rank` values.
    ///
    /// Hu, Koren and Volinsky (2008), §5. `O(n rank² + rank³)` in double precision; allocates.
    ///
    /// # Errors
    /// As [`solve`](Self::solve).
    pub fn contributions(
        &self,
        rows: &[f32],
        strengths: &[f32],
        target: &[f32],
    ) -> Result<Vec<f64>, FoldInError> {
        self.check_rows(rows, strengths)?;
        if target.len() != self.hyper.rank {
            let (len, rank) = (target.len(), self.hyper.rank);
            return Err(FoldInError::FactorsLength {
                len,
                items: 1,
                rank,
            });
        }
        let evidence = (0..).zip(strengths.iter().copied());
        let observations: Vec<Observation> = self.observations(evidence).collect();
        let shares = self.side.contributions(rows, &observations, target);
        let mut shares = shares.map_err(|_| FoldInError::Unsolvable)?.into_iter();
        let share = |&strength: &f32| match strength {
            0.0 => 0.0,
            _ => shares.next().unwrap_or_default(),
        };
        Ok(strengths.iter().map(share).collect())
    }

    fn check(&self, factors: &[f32], evidence: &[(u32, f32)]) -> Result<(), FoldInError> {
        let (items, rank) = (self.items, self.hyper.rank);
        if factors.len() != items * rank {
            return Err(FoldInError::FactorsLength {
                len: factors.len(),
                items,
                rank,
            });
        }
        for (position, &(item, strength)) in evidence.iter().enumerate() {
            if item as usize >= items {
                return Err(FoldInError::Item {
                    position,
                    item,
                    items,
                });
            }
            if position > 0 && evidence[position - 1].0 >= item {
                return Err(FoldInError::Order { position, item });
            }
            if !strength.is_finite() || strength.abs() > MAX_STRENGTH {
                return Err(FoldInError::Strength { position, strength });
            }
        }
        Ok(())
    }

    fn check_rows(&self, rows: &[f32], strengths: &[f32]) -> Result<(), FoldInError> {
        let rank = self.hyper.rank;
        if rows.len() != strengths.len() * rank {
            return Err(FoldInError::FactorsLength {
                len: rows.len(),
                items: strengths.len(),
                rank,
            });
        }
        for (position, &strength) in strengths.iter().enumerate() {
            if !strength.is_finite() || strength.abs() > MAX_STRENGTH {
                return Err(FoldInError::Strength { position, strength });
            }
        }
        Ok(())
    }

    /// Evidence within the factors, strengths within their range.
    fn solve_checked(
        &self,
        factors: &[f32],
        evidence: impl Iterator<Item = (u32, f32)>,
        scratch: &mut FoldInScratch,
        out: &mut Vec<f32>,
    ) -> Result<(), FoldInError> {
        let fixed = Fixed {
            factors,
            rotated: None,
        };
        out.clear();
        out.resize(self.hyper.rank, 0.0);
        self.side
            .solve(fixed, self.observations(evidence), &mut scratch.0, out)
            .map_err(|_| FoldInError::Unsolvable)
    }

    fn observations(
        &self,
        evidence: impl Iterator<Item = (u32, f32)>,
    ) -> impl Iterator<Item = Observation> {
        evidence
            .filter(|(_, strength)| *strength != 0.0)
            .map(|(other, strength)| Observation {
                other,
                confidence: self.hyper.confidence(strength.abs()),
                preferred: strength > 0.0,
            })
    }
}
