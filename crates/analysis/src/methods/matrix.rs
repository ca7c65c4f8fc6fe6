//! Small dense symmetric systems: normal equations of a handful of columns.

use super::error::MethodError;

/// A square matrix by rows.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Square {
    pub(super) order: usize,
    pub(super) cells: Vec<f64>,
}

impl Square {
    pub(super) fn zero(order: usize) -> Self {
        Self {
            order,
            cells: vec![0.0; order * order],
        }
    }

    pub(super) fn at(&self, i: usize, j: usize) -> f64 {
        self.cells[i * self.order + j]
    }

    pub(super) fn at_mut(&mut self, i: usize, j: usize) -> &mut f64 {
        &mut self.cells[i * self.order + j]
    }

    /// Adds `weight · v vᵀ`.
    pub(super) fn add_outer(&mut self, v: &[f64], weight: f64) {
        for (i, &a) in v.iter().enumerate() {
            for (j, &b) in v.iter().enumerate() {
                *self.at_mut(i, j) += weight * a * b;
            }
        }
    }

    pub(super) fn times(&self, v: &[f64]) -> Vec<f64> {
        (0..self.order)
            .map(|i| dot(&self.cells[i * self.order..(i + 1) * self.order], v))
            .collect()
    }

    pub(super) fn product(&self, other: &Self) -> Self {
        let mut out = Self::zero(self.order);
        for i in 0..self.order {
            for k in 0..self.order {
                let a = self.at(i, k);
                for j in 0..self.order {
                    *out.at_mut(i, j) += a * other.at(k, j);
                }
            }
        }
        out
    }

    /// `vᵀ M v`.
    pub(super) fn quadratic(&self, v: &[f64]) -> f64 {
        dot(&self.times(v), v)
    }

    /// The inverse of a symmetric positive definite matrix by Cholesky, columns scaled to unit
    /// diagonal first. A pivot below 1e-10 of its column's length counts as linear dependence.
    pub(super) fn inverse(&self, what: &'static str) -> Result<Self, MethodError> {
        let n = self.order;
        let singular = MethodError::Singular { what };
        let scale: Vec<f64> = (0..n).map(|i| self.at(i, i).sqrt()).collect();
        if scale.iter().any(|s| !(*s > 0.0 && s.is_finite())) {
            return Err(singular);
        }
        let mut lower = Self::zero(n);
        for i in 0..n {
            for j in 0..=i {
                let inner: f64 = (0..j).map(|k| lower.at(i, k) * lower.at(j, k)).sum();
                let rest = self.at(i, j) / (scale[i] * scale[j]) - inner;
                if i == j {
                    if rest.is_nan() || rest <= 1e-10 {
                        return Err(singular);
                    }
                    *lower.at_mut(i, i) = rest.sqrt();
                } else {
                    *lower.at_mut(i, j) = rest / lower.at(j, j);
                }
            }
        }
        let mut out = Self::zero(n);
        for column in 0..n {
            let mut x = vec![0.0; n];
            for i in column..n {
                let unit = if i == column { 1.0 } else { 0.0 };
                let inner: f64 = (column..i).map(|k| lower.at(i, k) * x[k]).sum();
                x[i] = (unit - inner) / lower.at(i, i);
            }
            for i in (0..n).rev() {
                let inner: f64 = (i + 1..n).map(|k| lower.at(k, i) * x[k]).sum();
                x[i] = (x[i] - inner) / lower.at(i, i);
            }
            for i in 0..n {
                *out.at_mut(i, column) = x[i] / (scale[i] * scale[column]);
            }
        }
        Ok(out)
    }
}

pub(super) fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}
