//! Least squares with the covariances that experiments need: for regression-adjusted effects,
//! difference-in-differences and as a reference.

use serde::{Deserialize, Serialize};

use super::effect::Effect;
use super::error::{MethodError, check_count, check_finite, check_lengths};
use super::matrix::{Square, dot};
use super::moments::{count, length};

/// How the covariance of the coefficients is estimated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Covariance<'a> {
    /// Equal, independent errors: `s² (XᵀX)⁻¹`.
    Classical,
    /// White (1980): any variance, independent rows; too small for few rows.
    Hc0,
    /// [`Covariance::Hc0`] times `n / (n − k)`.
    Hc1,
    /// Residuals over `1 − h`: unbiased for equal variances. For a difference of means it is Welch's.
    Hc2,
    /// Residuals over `(1 − h)²`: errs on the safe side.
    Hc3,
    /// Rows of one cluster (numbers 0, 1, …) may depend on each other in any way. CR1:
    /// `G/(G−1) · (n−1)/(n−k)`. Wants 40 clusters or more; t with G − 1 degrees of freedom.
    Clustered(&'a [usize]),
}

/// A regression: rows of `k` regressors, the constant among them if wanted.
#[derive(Debug, Clone, Copy)]
pub struct Regression<'a> {
    /// Number of regressors.
    pub k: usize,
    /// Regressors, row after row.
    pub x: &'a [f64],
    /// Outcomes.
    pub y: &'a [f64],
}

/// Coefficients with their covariance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fit {
    /// One a regressor.
    pub coefficients: Vec<f64>,
    /// Covariance by rows.
    pub covariance: Vec<f64>,
    /// Residual degrees of freedom, or clusters − 1.
    pub df: f64,
    /// Outcome less fit, a row.
    pub residuals: Vec<f64>,
}

impl Fit {
    /// One coefficient as an effect with its t distribution.
    ///
    /// # Errors
    /// No such coefficient varies.
    pub fn effect(&self, coefficient: usize) -> Result<Effect, MethodError> {
        let k = self.coefficients.len();
        check_count("regressors", coefficient as u64 + 1, k as u64)?;
        let variance = self.covariance[coefficient * k + coefficient];
        Effect::new(
            self.coefficients[coefficient],
            variance.max(0.0).sqrt(),
            Some(self.df),
        )
    }
}

impl Regression<'_> {
    /// Ordinary least squares. O(n k²).
    ///
    /// # Errors
    /// Lengths that do not fit, numbers that are not finite, no more rows than regressors, linearly
    /// dependent regressors, fewer than two clusters.
    pub fn fit(&self, covariance: Covariance<'_>) -> Result<Fit, MethodError> {
        self.check()?;
        let bread = gram(self.rows(), self.k).inverse("a regression")?;
        let mut moment = vec![0.0; self.k];
        for (row, &y) in self.rows().zip(self.y) {
            for (m, x) in moment.iter_mut().zip(row) {
                *m += x * y;
            }
        }
        let coefficients = bread.times(&moment);
        let residuals: Vec<f64> = self
            .rows()
            .zip(self.y)
            .map(|(row, y)| y - dot(row, &coefficients))
            .collect();
        sandwich(self.rows(), &bread, coefficients, residuals, covariance)
    }

    /// Two-stage least squares with one regressor replaced by an instrument: `instruments` are the
    /// rows of [`Regression::x`] with the endogenous column swapped for its instrument (exactly
    /// identified). Covariances of the same kinds, from the structural residuals.
    ///
    /// # Errors
    /// As [`Regression::fit`]; an instrument unrelated to the regressor.
    pub fn fit_with_instruments(
        &self,
        instruments: &[f64],
        covariance: Covariance<'_>,
    ) -> Result<Fit, MethodError> {
        self.check()?;
        check_lengths(
            "instruments and regressors",
            instruments.len(),
            self.x.len(),
        )?;
        for &z in instruments {
            check_finite("an instrument", z)?;
        }
        // First stage: project every regressor on the instruments.
        let k = self.k;
        let rows = || instruments.chunks_exact(k);
        let inverse = gram(rows(), k).inverse("the instruments")?;
        let mut projected = vec![0.0; self.x.len()];
        for column in 0..k {
            let mut moment = vec![0.0; k];
            for (z, x) in rows().zip(self.rows()) {
                for (m, z) in moment.iter_mut().zip(z) {
                    *m += z * x[column];
                }
            }
            let coefficients = inverse.times(&moment);
            for (z, out) in rows().zip(projected.chunks_exact_mut(k)) {
                out[column] = dot(z, &coefficients);
            }
        }
        // Second stage, with residuals of the regressors as they are.
        let bread = gram(projected.chunks_exact(k), k).inverse("the second stage")?;
        let mut moment = vec![0.0; k];
        for (row, &y) in projected.chunks_exact(k).zip(self.y) {
            for (m, x) in moment.iter_mut().zip(row) {
                *m += x * y;
            }
        }
        let coefficients = bread.times(&moment);
        let residuals: Vec<f64> = self
            .rows()
            .zip(self.y)
            .map(|(row, y)| y - dot(row, &coefficients))
            .collect();
        sandwich(
            projected.chunks_exact(k),
            &bread,
            coefficients,
            residuals,
            covariance,
        )
    }

    fn rows(&self) -> std::slice::ChunksExact<'_, f64> {
        self.x.chunks_exact(self.k)
    }

    fn check(&self) -> Result<(), MethodError> {
        check_count("regressors", 1, self.k as u64)?;
        check_lengths(
            "regressors and outcomes times their number",
            self.x.len(),
            self.y.len() * self.k,
        )?;
        check_count(
            "rows of a regression",
            self.k as u64 + 1,
            self.y.len() as u64,
        )?;
        for &v in self.x.iter().chain(self.y) {
            check_finite("a value of a regression", v)?;
        }
        Ok(())
    }
}

fn gram<'a>(rows: impl Iterator<Item = &'a [f64]>, k: usize) -> Square {
    let mut gram = Square::zero(k);
    for row in rows {
        gram.add_outer(row, 1.0);
    }
    gram
}

fn sandwich<'a>(
    rows: impl Iterator<Item = &'a [f64]> + Clone,
    bread: &Square,
    coefficients: Vec<f64>,
    residuals: Vec<f64>,
    covariance: Covariance<'_>,
) -> Result<Fit, MethodError> {
    let (n, k) = (residuals.len(), coefficients.len());
    let mut df = length(n - k);
    let covariance = match covariance {
        Covariance::Classical => {
            let s2 = dot(&residuals, &residuals) / df;
            bread.cells.iter().map(|c| c * s2).collect()
        }
        Covariance::Clustered(clusters) => {
            check_lengths("rows and clusters", n, clusters.len())?;
            let groups = clusters.iter().max().map_or(0, |m| m + 1);
            check_count("clusters", 2, groups as u64)?;
            let mut scores = vec![vec![0.0; k]; groups];
            for ((row, e), &g) in rows.zip(&residuals).zip(clusters) {
                for (s, x) in scores[g].iter_mut().zip(row) {
                    *s += x * e;
                }
            }
            let mut meat = Square::zero(k);
            for score in &scores {
                meat.add_outer(score, 1.0);
            }
            df = count(groups as u64 - 1);
            let scale = length(groups) / df * length(n - 1) / length(n - k);
            let sandwich = bread.product(&meat).product(bread);
            sandwich.cells.iter().map(|c| c * scale).collect()
        }
        robust => {
            let mut meat = Square::zero(k);
            for (row, e) in rows.zip(&residuals) {
                let leverage = 1.0 - bread.quadratic(row);
                let divisor = match robust {
                    Covariance::Hc2 => leverage,
                    Covariance::Hc3 => leverage * leverage,
                    _ => 1.0,
                };
                // A row that alone determines a coefficient fits exactly and says nothing.
                if divisor > 1e-12 {
                    meat.add_outer(row, e * e / divisor);
                }
            }
            let scale = if robust == Covariance::Hc1 {
                length(n) / df
            } else {
                1.0
            };
            let sandwich = bread.product(&meat).product(bread);
            sandwich.cells.iter().map(|c| c * scale).collect()
        }
    };
    Ok(Fit {
        coefficients,
        covariance,
        df,
        residuals,
    })
}
