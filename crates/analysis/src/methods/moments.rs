//! Sufficient statistics of an arm: counts, means and co-moments of a unit's columns.

use serde::{Deserialize, Serialize};

use super::double::{Double, two_product};
use super::error::{MethodError, check_count, check_finite};
use super::exact_sum::ExactSum;

/// Values above this are refused: their squares, summed, could leave the range of f64.
pub const LARGEST_VALUE: f64 = 1e145;

/// The running sums and sums of products of `k` columns, one row a unit: `[y]` for a mean, `[y, d]`
/// for a ratio, then covariates.
///
/// Nothing is rounded before [`Tally::moments`], so adding rows and merging tallies commute: any
/// number of threads and any order of files give the same bits. Memory about
/// `550 · k (k + 3) / 2` bytes.
#[derive(Debug, Clone)]
pub struct Tally {
    n: u64,
    sums: Vec<ExactSum>,
    /// Upper triangle by rows: (0,0), (0,1) … (1,1) …
    products: Vec<ExactSum>,
}

impl Tally {
    /// An empty tally of `columns` columns.
    #[must_use]
    pub fn new(columns: usize) -> Self {
        Self {
            n: 0,
            sums: vec![ExactSum::default(); columns],
            products: vec![ExactSum::default(); packed_len(columns)],
        }
    }

    /// Adds one unit. O(k²).
    ///
    /// # Errors
    /// A row of another length, or a value that is not finite or beyond [`LARGEST_VALUE`]; the tally
    /// is then unchanged.
    pub fn push(&mut self, row: &[f64]) -> Result<(), MethodError> {
        if row.len() != self.sums.len() {
            return Err(MethodError::Mismatch {
                what: "columns of a row and of the tally",
                left: row.len(),
                right: self.sums.len(),
            });
        }
        for &v in row {
            check_finite("a unit's value", v)?;
            if v.abs() > LARGEST_VALUE {
                return Err(MethodError::OutOfRange {
                    what: "a unit's value",
                    value: v,
                    range: "within ±1e145",
                });
            }
        }
        self.n += 1;
        let mut products = self.products.iter_mut();
        for (i, &a) in row.iter().enumerate() {
            self.sums[i].add(a);
            for (&b, sum) in row[i..].iter().zip(&mut products) {
                let (product, error) = two_product(a, b);
                sum.add(product);
                sum.add(error);
            }
        }
        Ok(())
    }

    /// Adds all units of another tally. O(k²).
    ///
    /// # Errors
    /// Another number of columns.
    pub fn merge(&mut self, other: &Self) -> Result<(), MethodError> {
        if self.sums.len() != other.sums.len() {
            return Err(MethodError::Mismatch {
                what: "columns of two tallies",
                left: self.sums.len(),
                right: other.sums.len(),
            });
        }
        self.n += other.n;
        let mine = self.sums.iter_mut().chain(&mut self.products);
        for (a, b) in mine.zip(other.sums.iter().chain(&other.products)) {
            a.merge(b);
        }
        Ok(())
    }

    /// Number of units.
    #[must_use]
    pub fn n(&self) -> u64 {
        self.n
    }

    /// Sum of a column; panics like an index if there is no such column.
    #[must_use]
    pub fn sum(&self, column: usize) -> f64 {
        self.sums[column].value().value()
    }

    /// Means and centred sums of products, each rounded once.
    #[must_use]
    pub fn moments(&self) -> Moments {
        let k = self.sums.len();
        let sums: Vec<Double> = self.sums.iter().map(ExactSum::value).collect();
        let n = count(self.n.max(1));
        let mut cross = Vec::with_capacity(self.products.len());
        for i in 0..k {
            for j in i..k {
                let product = self.products[packed_index(k, i, j)].value();
                let centred = product.minus(sums[i].times(sums[j]).over(n)).value();
                cross.push(if i == j { centred.max(0.0) } else { centred });
            }
        }
        Moments {
            n: self.n,
            means: sums.iter().map(|s| s.over(n).value()).collect(),
            cross,
        }
    }
}

/// Count, means and centred sums of products of `k` columns.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Moments {
    /// Units.
    pub n: u64,
    /// One mean a column.
    pub means: Vec<f64>,
    /// Σ (aᵢ − ā)(bᵢ − b̄), upper triangle by rows.
    pub cross: Vec<f64>,
}

impl Moments {
    /// Number of columns.
    #[must_use]
    pub fn columns(&self) -> usize {
        self.means.len()
    }

    /// Mean of a column; panics like an index if there is no such column.
    #[must_use]
    pub fn mean(&self, column: usize) -> f64 {
        self.means[column]
    }

    /// Covariance of two columns over `n − 1`; 0 for fewer than two units.
    #[must_use]
    pub fn covariance(&self, a: usize, b: usize) -> f64 {
        let (i, j) = if a <= b { (a, b) } else { (b, a) };
        match self.n {
            0 | 1 => 0.0,
            n => self.cross[packed_index(self.columns(), i, j)] / count(n - 1),
        }
    }

    /// Variance of a column over `n − 1`; 0 for fewer than two units.
    #[must_use]
    pub fn variance(&self, column: usize) -> f64 {
        self.covariance(column, column)
    }

    /// What a mean needs of one column.
    #[must_use]
    pub fn summary(&self, column: usize) -> Summary {
        Summary {
            n: self.n,
            mean: self.mean(column),
            variance: self.variance(column),
        }
    }

    /// What a ratio needs of two columns.
    #[must_use]
    pub fn pair(&self, numerator: usize, denominator: usize) -> PairSummary {
        PairSummary {
            numerator: self.summary(numerator),
            denominator: self.summary(denominator),
            covariance: self.covariance(numerator, denominator),
        }
    }

    /// Both sets of units together (Chan, Golub, LeVeque 1979). Rounds; where bits must not depend on
    /// the order, merge [`Tally`]s instead.
    ///
    /// # Errors
    /// Another number of columns.
    pub fn merged(&self, other: &Self) -> Result<Self, MethodError> {
        let k = self.columns();
        if k != other.columns() {
            return Err(MethodError::Mismatch {
                what: "columns of two sets of moments",
                left: k,
                right: other.columns(),
            });
        }
        if self.n == 0 || other.n == 0 {
            return Ok(if self.n == 0 { other } else { self }.clone());
        }
        let n = self.n + other.n;
        let share = count(other.n) / count(n);
        let difference: Vec<f64> = (0..k).map(|i| other.means[i] - self.means[i]).collect();
        let mut cross = Vec::with_capacity(self.cross.len());
        for i in 0..k {
            for j in i..k {
                let at = packed_index(k, i, j);
                let between = difference[i] * difference[j] * count(self.n) * share;
                cross.push(self.cross[at] + other.cross[at] + between);
            }
        }
        Ok(Self {
            n,
            means: (0..k)
                .map(|i| self.means[i] + difference[i] * share)
                .collect(),
            cross,
        })
    }
}

/// Count, mean and variance (over `n − 1`) of one quantity over units.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Units.
    pub n: u64,
    /// Mean over units.
    pub mean: f64,
    /// Sample variance, over `n − 1`.
    pub variance: f64,
}

impl Summary {
    /// Of no values at all: every estimator refuses it for its number.
    #[must_use]
    pub fn none() -> Self {
        Self {
            n: 0,
            mean: 0.0,
            variance: 0.0,
        }
    }

    /// From a count, a sum and a sum of squares.
    ///
    /// # Errors
    /// Fewer than two units, numbers that are not finite, or a sum of squares below `sum² / n`.
    pub fn from_sums(n: u64, sum: f64, sum_of_squares: f64) -> Result<Self, MethodError> {
        check_count("units of an arm", 2, n)?;
        check_finite("a sum", sum)?;
        check_finite("a sum of squares", sum_of_squares)?;
        let (p, e) = two_product(sum, sum);
        let square = Double::new(p, e).over(count(n));
        let centred = Double::from(sum_of_squares).minus(square).value();
        // What rounding of the inputs can make of a true zero.
        if centred < -1e-12 * sum_of_squares.abs() {
            return Err(MethodError::OutOfRange {
                what: "a sum of squares",
                value: sum_of_squares,
                range: "at least the square of the sum over n",
            });
        }
        Ok(Self {
            n,
            mean: sum / count(n),
            variance: centred.max(0.0) / count(n - 1),
        })
    }

    /// Of values held in memory.
    ///
    /// # Errors
    /// As [`Tally::push`].
    pub fn of(values: &[f64]) -> Result<Self, MethodError> {
        let mut tally = Tally::new(1);
        for &v in values {
            tally.push(&[v])?;
        }
        Ok(tally.moments().summary(0))
    }
}

/// Summaries of two quantities of the same units, and their covariance (over `n − 1`).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PairSummary {
    /// The numerator, or first quantity.
    pub numerator: Summary,
    /// The denominator, or second quantity.
    pub denominator: Summary,
    /// Their covariance over `n − 1`.
    pub covariance: f64,
}

/// A count as a number. Exact below 2^53, which no experiment reaches.
#[expect(clippy::cast_precision_loss, reason = "exact below 2^53")]
pub(crate) fn count(n: u64) -> f64 {
    n as f64
}

/// A length as a number.
pub(crate) fn length(n: usize) -> f64 {
    count(n as u64)
}

fn packed_len(k: usize) -> usize {
    k * (k + 1) / 2
}

/// Place of (i, j), i ≤ j, in an upper triangle of order `k` by rows.
fn packed_index(k: usize, i: usize, j: usize) -> usize {
    i * k - i * i.saturating_sub(1) / 2 + (j - i)
}
