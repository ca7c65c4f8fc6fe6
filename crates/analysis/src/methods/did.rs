//! Difference-in-differences: a change that cannot be randomised by user (a market, a catalogue, a
//! feature of the whole service), judged by how treated units moved against untreated ones.

mod permutation;

use serde::{Deserialize, Serialize};

use super::effect::{Comparison, Effect};
use super::error::{MethodError, check_count, check_finite, check_lengths};
use super::linear::{Covariance, Regression};
use super::mean;
use super::moments::{Summary, count, length};

pub use permutation::{MOST_EXACT_SPLITS, Permutation};

/// Up to this many units the permutation test is the default.
pub const FEW_UNITS: usize = 20;

/// A balanced panel: every unit observed in every period, one common start.
#[derive(Debug, Clone, PartialEq)]
pub struct Panel {
    outcomes: Vec<Vec<f64>>,
    treated: Vec<bool>,
    first_post: usize,
}

impl Panel {
    /// `outcomes[unit][period]`; `adoption[unit]` is the first treated period, `None` for never.
    ///
    /// # Errors
    /// Rows of different lengths, numbers that are not finite, no treated or no untreated unit, no
    /// period before or after. *Staggered adoption*: with different starts, two-way fixed effects
    /// compare late with early adopters and are biased (Goodman-Bacon 2021), so this is refused.
    pub fn new(outcomes: Vec<Vec<f64>>, adoption: &[Option<usize>]) -> Result<Self, MethodError> {
        check_lengths("units and their adoption", outcomes.len(), adoption.len())?;
        let mut starts = adoption.iter().flatten();
        let first_post = *starts.next().ok_or(MethodError::TooFew {
            what: "treated units",
            needed: 1,
            got: 0,
        })?;
        if starts.any(|&s| s != first_post) {
            return Err(MethodError::NotApplicable {
                reason: "units adopted at different times: two-way fixed effects would compare late \
                         with early adopters and be biased; analyse each wave against units never \
                         treated",
            });
        }
        let treated: Vec<bool> = adoption.iter().map(Option::is_some).collect();
        let untreated = treated.iter().filter(|t| !**t).count();
        check_count("untreated units", 1, untreated as u64)?;
        check_count("units", 3, treated.len() as u64)?;
        let periods = outcomes[0].len();
        check_count("periods before the change", 1, first_post as u64)?;
        check_count("periods", first_post as u64 + 1, periods as u64)?;
        for row in &outcomes {
            check_lengths("periods of two units", row.len(), periods)?;
            for &y in row {
                check_finite("an outcome", y)?;
            }
        }
        Ok(Self {
            outcomes,
            treated,
            first_post,
        })
    }

    fn periods(&self) -> usize {
        self.outcomes[0].len()
    }

    /// Change of each unit: mean after less mean before.
    fn changes(&self) -> Vec<f64> {
        self.outcomes
            .iter()
            .map(|row| average(&row[self.first_post..]) - average(&row[..self.first_post]))
            .collect()
    }

    fn split(&self, values: &[f64]) -> [Vec<f64>; 2] {
        let pick = |treated: bool| {
            let of = self.treated.iter().zip(values);
            of.filter(|(t, _)| **t == treated)
                .map(|(_, v)| *v)
                .collect()
        };
        [pick(false), pick(true)]
    }

    /// The effect and its error by every accepted way.
    ///
    /// Assumes parallel trends: without the change, treated and untreated units would have moved
    /// alike. Look at [`Report::pre_trend`] and [`Report::placebo`] before believing it; neither can
    /// prove it.
    ///
    /// # Errors
    /// No spread of changes within the groups.
    pub fn analyse(&self) -> Result<Report, MethodError> {
        let changes = self.changes();
        let [untreated, treated] = self.split(&changes);
        let delta = average(&treated) - average(&untreated);
        let (naive, clustered) = self.pooled_regression()?;
        let (two_way, clustered_two_way) = self.two_way(delta)?;
        let permutation = permutation::test(&changes, &self.treated);
        let unit_changes = if untreated.len() > 1 && treated.len() > 1 {
            Some(UnitChanges::new(&untreated, &treated)?)
        } else {
            None
        };
        let recommended =
            if self.treated.len() <= FEW_UNITS && permutation.smallest_two_sided <= 0.05 {
                Recommended::Permutation
            } else {
                Recommended::Clustered
            };
        Ok(Report {
            delta,
            naive,
            two_way,
            clustered,
            clustered_two_way,
            unit_changes,
            permutation,
            recommended,
            pre_trend: self.gaps()[..self.first_post].to_vec(),
            placebo: self.placebo(),
        })
    }

    /// Mean of treated less mean of untreated units, a period.
    #[must_use]
    pub fn gaps(&self) -> Vec<f64> {
        (0..self.periods())
            .map(|t| {
                let values: Vec<f64> = self.outcomes.iter().map(|row| row[t]).collect();
                let [untreated, treated] = self.split(&values);
                average(&treated) - average(&untreated)
            })
            .collect()
    }

    /// The same analysis with a made-up start in the middle of the time before: should find nothing.
    fn placebo(&self) -> Option<Permutation> {
        if self.first_post < 2 {
            return None;
        }
        let before = Self {
            outcomes: self
                .outcomes
                .iter()
                .map(|row| row[..self.first_post].to_vec())
                .collect(),
            treated: self.treated.clone(),
            first_post: self.first_post / 2,
        };
        Some(permutation::test(&before.changes(), &before.treated))
    }

    /// `y ~ treated + post + treated·post`: classical and clustered by unit.
    fn pooled_regression(&self) -> Result<(Effect, Effect), MethodError> {
        let (mut x, mut y, mut clusters) = (Vec::new(), Vec::new(), Vec::new());
        for (unit, row) in self.outcomes.iter().enumerate() {
            for (period, &value) in row.iter().enumerate() {
                let treated = f64::from(u8::from(self.treated[unit]));
                let post = f64::from(u8::from(period >= self.first_post));
                x.extend([1.0, treated, post, treated * post]);
                y.push(value);
                clusters.push(unit);
            }
        }
        let regression = Regression { k: 4, x: &x, y: &y };
        Ok((
            regression.fit(Covariance::Classical)?.effect(3)?,
            regression
                .fit(Covariance::Clustered(&clusters))?
                .effect(3)?,
        ))
    }

    /// Unit and period fixed effects by demeaning twice: classical and clustered, the dummies counted
    /// as regressors in both.
    fn two_way(&self, delta: f64) -> Result<(Effect, Effect), MethodError> {
        let (units, periods) = (self.outcomes.len(), self.periods());
        let exposure: Vec<Vec<f64>> = self
            .treated
            .iter()
            .map(|&t| {
                (0..periods)
                    .map(|p| f64::from(u8::from(t && p >= self.first_post)))
                    .collect()
            })
            .collect();
        let x = demean_twice(&exposure);
        let y = demean_twice(&self.outcomes);
        let (mut spread, mut rss, mut meat) = (0.0, 0.0, 0.0);
        for (x, y) in x.iter().zip(&y) {
            let mut score = 0.0;
            for (x, y) in x.iter().zip(y) {
                let residual = y - delta * x;
                spread += x * x;
                rss += residual * residual;
                score += x * residual;
            }
            meat += score * score;
        }
        let n = length(units * periods);
        let k = length(units + periods);
        let df = n - k;
        if df < 1.0 {
            return Err(MethodError::TooFew {
                what: "observations of a two-way panel",
                needed: (units + periods) as u64 + 1,
                got: (units * periods) as u64,
            });
        }
        let groups = length(units);
        let scale = groups / (groups - 1.0) * (n - 1.0) / df;
        Ok((
            Effect::new(delta, (rss / df / spread).sqrt(), Some(df))?,
            Effect::new(delta, (scale * meat).sqrt() / spread, Some(groups - 1.0))?,
        ))
    }
}

/// Difference-in-differences with the errors of every accepted method. Naive errors are there to show
/// how far off they are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The effect: change of the treated less change of the untreated.
    pub delta: f64,
    /// Ordinary least squares on all rows as if independent: wrong in either direction.
    pub naive: Effect,
    /// Two-way fixed effects with errors taken as independent: far too small where outcomes are
    /// autocorrelated (Bertrand, Duflo, Mullainathan 2004).
    pub two_way: Effect,
    /// Clustered by unit (CR1, four regressors counted), t with units − 1 degrees of freedom.
    pub clustered: Effect,
    /// The same with unit and period dummies counted as regressors: larger.
    pub clustered_two_way: Effect,
    /// One change a unit, compared as two samples: safe, weak. `None` with a single unit in a group.
    pub unit_changes: Option<UnitChanges>,
    /// Exact or sampled permutation of which units were treated.
    pub permutation: Permutation,
    /// Which p-value to report.
    pub recommended: Recommended,
    /// Treated less untreated in each period before: parallel trends look flat.
    pub pre_trend: Vec<f64>,
    /// Permutation test of a made-up start before the real one; `None` with fewer than two periods
    /// before.
    pub placebo: Option<Permutation>,
}

/// Which of a [`Report`]'s tests to report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Recommended {
    /// Few units, and enough of them to reach 5 %.
    Permutation,
    /// Many units, or too few for any permutation to reach 5 % (say so before running).
    Clustered,
}

/// One change a unit, compared between the groups.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct UnitChanges {
    /// Student's t, equal variances.
    pub pooled: Effect,
    /// Welch's t.
    pub welch: Effect,
}

impl UnitChanges {
    fn new(untreated: &[f64], treated: &[f64]) -> Result<Self, MethodError> {
        let (c, t) = (Summary::of(untreated)?, Summary::of(treated)?);
        let comparison = mean::compare(&c, &t)?;
        let (a, b) = (count(c.n), count(t.n));
        let variance = ((a - 1.0) * c.variance + (b - 1.0) * t.variance) / (a + b - 2.0);
        let delta = comparison.normal().delta;
        Ok(Self {
            pooled: Effect::new(
                delta,
                (variance * (1.0 / a + 1.0 / b)).sqrt(),
                Some(a + b - 2.0),
            )?,
            welch: comparison.welch(),
        })
    }
}

/// Difference-in-differences of four independent samples (repeated cross-sections, or a panel of which
/// only the cells' summaries are known): `(t₁ − t₀) − (c₁ − c₀)`, variances added. For the same units
/// measured twice, compare their changes instead: far more precise.
///
/// # Errors
/// As [`Comparison::new`], for each group.
pub fn of_cells(control: [&Summary; 2], treated: [&Summary; 2]) -> Result<Effect, MethodError> {
    let change = |cells: [&Summary; 2]| -> Result<Effect, MethodError> {
        let change: Comparison = mean::compare(cells[0], cells[1])?;
        Ok(change.normal())
    };
    let (c, t) = (change(control)?, change(treated)?);
    Effect::new(t.delta - c.delta, t.se.hypot(c.se), None)
}

fn average(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / length(values.len())
}

fn demean_twice(table: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let periods = table[0].len();
    let columns: Vec<f64> = (0..periods)
        .map(|t| table.iter().map(|row| row[t]).sum::<f64>() / length(table.len()))
        .collect();
    let grand = average(&columns);
    table
        .iter()
        .map(|row| {
            let mean = average(row);
            row.iter()
                .zip(&columns)
                .map(|(v, column)| v - mean - column + grand)
                .collect()
        })
        .collect()
}
