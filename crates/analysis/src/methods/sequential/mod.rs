//! Group-sequential testing: look as often as planned without fooling yourself.
//!
//! A one-sided test of level α whose bound at each look is the one that spends, together with the looks
//! before, what a *spending function* allows for the information seen so far (Lan, DeMets 1983). Looks
//! may come at any time; only those made are paid for. A two-sided test is two one-sided ones at α/2.
//!
//! Wants the final amount of information (usually the number of units) in advance. Without it, or with
//! a look after every unit, use [`super::always_valid`]. Not for metrics that grow within a unit from
//! look to look, unless the information is that of [`super::longitudinal`].

mod recursion;

use serde::{Deserialize, Serialize};

use super::effect::{Effect, Interval};
use super::error::{MethodError, check_count, check_finite, check_open_unit, check_positive};
use super::moments::count;
use super::root;
use super::special::{normal_sf, normal_upper_quantile};
use recursion::Walk;

/// Bounds are cut here: beyond it lies 6e-16, nothing anybody spends on purpose.
pub const LARGEST_BOUND: f64 = 8.0;
/// A look with less new information than this gets the bound of the look before.
pub const SMALLEST_STEP: f64 = 1e-5;

/// How much of α may be spent by information fraction t.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Spending {
    /// `α t^ρ` (Kim, DeMets 1987); ρ = 2 is the default of Spotify's library, ρ = 3 is near
    /// O'Brien–Fleming.
    Power(f64),
    /// `2 − 2 Φ(z_{α/2} / √t)`: hardly anything early, nearly the whole level at the end.
    OBrienFleming,
    /// `α ln(1 + (e − 1) t)`: about the same bound at every look.
    Pocock,
}

impl Default for Spending {
    fn default() -> Self {
        Self::Power(2.0)
    }
}

impl Spending {
    /// Level spent by information fraction `t`, clamped to 0..=1.
    #[must_use]
    pub fn spent(&self, alpha: f64, t: f64) -> f64 {
        if t >= 1.0 {
            return alpha;
        }
        if t <= 0.0 {
            return 0.0;
        }
        match *self {
            Self::Power(rho) => alpha * libm::pow(t, rho),
            Self::OBrienFleming => 2.0 * normal_sf(normal_upper_quantile(0.5 * alpha) / t.sqrt()),
            Self::Pocock => alpha * libm::log1p((std::f64::consts::E - 1.0) * t),
        }
    }
}

/// One look.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Look {
    /// Information fraction, 0..=1.
    pub t: f64,
    /// Reject if the z-statistic is at or above this.
    pub z: f64,
    /// `1 − Φ(z)`: what p-value this look asks for.
    pub nominal_alpha: f64,
    /// Level spent so far, this look included.
    pub spent: f64,
    /// More information than planned: the bound is the last one, the level no longer guaranteed.
    pub overrun: bool,
}

/// A one-sided group-sequential test in progress. Holds its state between looks, so a new look costs
/// the same however many there were: under a millisecond at ordinary spacing.
#[derive(Debug, Clone)]
pub struct GroupSequential {
    alpha: f64,
    spending: Spending,
    looks: Vec<Look>,
    walk: Walk,
}

impl GroupSequential {
    /// A test of one-sided level `alpha`.
    ///
    /// # Errors
    /// `alpha` outside 0..½, or a power that is not above 0.
    pub fn new(alpha: f64, spending: Spending) -> Result<Self, MethodError> {
        if !(alpha > 0.0 && alpha < 0.5) {
            return Err(MethodError::OutOfRange {
                what: "a one-sided level",
                value: alpha,
                range: "between 0 and 0.5, exclusive",
            });
        }
        if let Spending::Power(rho) = spending {
            check_positive("the power of a spending function", rho)?;
        }
        Ok(Self {
            alpha,
            spending,
            looks: Vec::new(),
            walk: Walk::new(0.0),
        })
    }

    /// A test with all its looks made at the given fractions.
    ///
    /// # Errors
    /// As [`GroupSequential::new`] and [`GroupSequential::look`].
    pub fn planned(alpha: f64, spending: Spending, fractions: &[f64]) -> Result<Self, MethodError> {
        let mut test = Self::new(alpha, spending)?;
        for &t in fractions {
            test.look(t)?;
        }
        Ok(test)
    }

    /// The looks so far.
    #[must_use]
    pub fn looks(&self) -> &[Look] {
        &self.looks
    }

    /// The bound for a look at information fraction `t`. Above 1 the rest is spent once; after that,
    /// and for a `t` hardly above (or below) the last, the last bound is used again and nothing is
    /// spent.
    ///
    /// # Errors
    /// A `t` that is not above 0 and finite.
    pub fn look(&mut self, t: f64) -> Result<Look, MethodError> {
        let spent = self.spending.spent(self.alpha, t);
        self.look_spending(t, spent)
    }

    /// A last look before all planned information is there, for reasons that do not come from the
    /// results: spends all that is left. There must be no look after it.
    ///
    /// # Errors
    /// As [`GroupSequential::look`].
    pub fn final_look(&mut self, t: f64) -> Result<Look, MethodError> {
        self.look_spending(t, self.alpha)
    }

    fn look_spending(&mut self, t: f64, spent: f64) -> Result<Look, MethodError> {
        check_positive("an information fraction", t)?;
        let overrun = t > 1.0 + 1e-9;
        let t = t.min(1.0);
        if let Some(last) = self.looks.last()
            && t < last.t + SMALLEST_STEP
        {
            let again = Look { overrun, ..*last };
            self.looks.push(again);
            return Ok(again);
        }
        let before = self.looks.last().map_or(0.0, |l| l.spent);
        let increment = spent - before;
        let stage = self.walk.advance(t);
        let root_t = t.sqrt();
        let excess = |z: f64| {
            let exit = stage.exit_above(z * root_t);
            libm::log(exit.max(f64::MIN_POSITIVE)) - libm::log(increment)
        };
        let z = if increment <= 0.0 || excess(LARGEST_BOUND) >= 0.0 {
            LARGEST_BOUND
        } else {
            root::brent(excess, -LARGEST_BOUND, LARGEST_BOUND)?
        };
        self.walk.close(stage, z * root_t);
        let look = Look {
            t,
            z,
            nominal_alpha: normal_sf(z),
            spent: spent.max(before),
            overrun,
        };
        self.looks.push(look);
        Ok(look)
    }

    /// Estimate, interval and p-value for a test that stopped at its last look (by crossing or by
    /// reaching the end), under the stagewise ordering (Fairbanks, Madsen 1982; Tsiatis, Rosner, Mehta
    /// 1984). The naive estimate of a test that stopped early is too large; the median of this one is
    /// right.
    ///
    /// `effect` is the effect at the last look, in the direction of the test.
    ///
    /// # Errors
    /// No look yet, or a confidence outside 0..1.
    pub fn at_stop(&self, effect: &Effect, confidence: f64) -> Result<AtStop, MethodError> {
        check_count("looks", 1, self.looks.len() as u64)?;
        check_open_unit("a confidence level", confidence)?;
        check_finite("an effect", effect.z())?;
        let distinct = self.distinct_looks();
        let (last, earlier) = distinct
            .split_last()
            .ok_or(MethodError::NoConvergence { what: "the looks" })?;
        let score = effect.z() * last.0.sqrt();
        let stages: Vec<(f64, f64)> = earlier.to_vec();
        // P(an outcome at least as extreme) rises with the drift.
        let tail = |drift: f64| {
            let mut walk = Walk::new(drift);
            let mut sum = 0.0;
            for &(t, z) in &stages {
                let stage = walk.advance(t);
                sum += stage.exit_above(z * t.sqrt());
                walk.close(stage, z * t.sqrt());
            }
            sum + walk.advance(last.0).exit_above(score)
        };
        let scale = effect.se * last.0.sqrt();
        let centre = score / last.0;
        let spread = 12.0 / distinct[0].0.sqrt();
        let solve = |p: f64| {
            root::brent(|drift| tail(drift) - p, centre - spread, centre + spread)
                .map(|drift| drift * scale)
        };
        let half = 0.5 * (1.0 - confidence);
        Ok(AtStop {
            median_unbiased: solve(0.5)?,
            interval: Interval {
                low: solve(half)?,
                high: solve(1.0 - half)?,
            },
            p_one_sided: tail(0.0),
            naive: effect.delta,
        })
    }

    fn distinct_looks(&self) -> Vec<(f64, f64)> {
        let mut distinct: Vec<(f64, f64)> = Vec::new();
        for look in &self.looks {
            if distinct
                .last()
                .is_none_or(|l| look.t >= l.0 + SMALLEST_STEP)
            {
                distinct.push((look.t, look.z));
            }
        }
        distinct
    }
}

/// What a stopped test estimates.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct AtStop {
    /// As often too large as too small.
    pub median_unbiased: f64,
    /// Interval with its stated coverage in spite of the stopping rule.
    pub interval: Interval,
    /// One-sided p-value of "no effect" under the stopping rule.
    pub p_one_sided: f64,
    /// The ordinary estimate, biased away from zero after an early stop.
    pub naive: f64,
}

/// Probability of stopping at each look, for a test with bounds `looks` (pairs of t and z) when the
/// expected z-statistic at t = 1 is `drift`. The sum is the power.
///
/// # Errors
/// Fractions that are not rising within 0..=1.
pub fn stopping_probabilities(looks: &[(f64, f64)], drift: f64) -> Result<Vec<f64>, MethodError> {
    check_finite("a drift", drift)?;
    let mut walk = Walk::new(drift);
    let mut last = 0.0;
    let mut exits = Vec::with_capacity(looks.len());
    for &(t, z) in looks {
        if !(t >= last + SMALLEST_STEP && t <= 1.0 + 1e-9) {
            return Err(MethodError::OutOfRange {
                what: "an information fraction",
                value: t,
                range: "rising from look to look, at most 1",
            });
        }
        check_finite("a bound", z)?;
        let stage = walk.advance(t);
        exits.push(stage.exit_above(z * t.sqrt()));
        walk.close(stage, z * t.sqrt());
        last = t;
    }
    Ok(exits)
}

/// By how much the planned number of units must grow so that a group-sequential test with these looks
/// keeps the power of a single look.
///
/// # Errors
/// As [`GroupSequential::planned`]; a power outside 0..1.
pub fn inflation(
    alpha: f64,
    spending: Spending,
    fractions: &[f64],
    power: f64,
) -> Result<f64, MethodError> {
    check_open_unit("power", power)?;
    let test = GroupSequential::planned(alpha, spending, fractions)?;
    let looks = test.distinct_looks();
    check_count("looks", 1, looks.len() as u64)?;
    let fixed = normal_upper_quantile(alpha) + normal_upper_quantile(1.0 - power);
    let miss = |drift: f64| {
        stopping_probabilities(&looks, drift).map_or(f64::NAN, |p| p.iter().sum::<f64>() - power)
    };
    let drift = root::brent(miss, fixed.min(0.0), fixed.abs() * 4.0 + 4.0)?;
    Ok((drift / fixed) * (drift / fixed))
}

/// The bound of the crudest correction: level α split evenly over a number of looks fixed in advance.
///
/// # Errors
/// No looks, or `alpha` outside 0..1.
pub fn bonferroni_bound(alpha: f64, looks: u64) -> Result<f64, MethodError> {
    check_count("looks", 1, looks)?;
    check_open_unit("a level", alpha)?;
    Ok(normal_upper_quantile(alpha / count(looks)))
}
