//! Metrics measured again and again on the same unit.
//!
//! Ordinary sequential tests assume that a unit's value is final when it enters. Where it keeps growing
//! or being measured, looks at sample counts reject too often ("peeking problem 2.0", Schultzberg,
//! Ankargren 2023). Two ways out: count a unit only when its window is over (the default of a plan), or estimate by generalised least squares and look at *information* ([`analyse`]).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::effect::{ArmEstimate, Comparison};
use super::error::{MethodError, check_count, check_finite, check_positive};
use super::moments::{Moments, count};

/// Variances of the random-intercept model `y_ij = μ + u_i + e_ij`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Components {
    /// Variance of `u`: between units, 0 or more.
    pub between: f64,
    /// Variance of `e`: within a unit, above 0.
    pub within: f64,
}

impl Components {
    /// Information that a unit with so many measurements carries about its arm's mean:
    /// `1 / (σ_u² + σ_e² / n)`.
    #[must_use]
    pub fn weight(&self, measurements: u64) -> f64 {
        1.0 / (self.between + self.within / count(measurements.max(1)))
    }
}

/// Units of one arm, by their number of measurements: sufficient for every choice of [`Components`],
/// and mergeable. Memory grows with the number of distinct counts only.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Units {
    classes: BTreeMap<u64, Class>,
}

/// Units with the same number of measurements: sums of their means, and of squares within.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
struct Class {
    units: u64,
    mean: f64,
    /// Centred sum of squares of the units' means.
    spread: f64,
    /// Sum of squares within units.
    within: f64,
}

impl Units {
    /// Adds a unit by the number, mean and centred sum of squares of its measurements so far.
    ///
    /// # Errors
    /// No measurements, numbers that are not finite, a negative sum of squares.
    pub fn add(
        &mut self,
        measurements: u64,
        mean: f64,
        sum_of_squares: f64,
    ) -> Result<(), MethodError> {
        check_count("measurements of a unit", 1, measurements)?;
        check_finite("a unit's mean", mean)?;
        check_finite("a unit's sum of squares", sum_of_squares)?;
        if sum_of_squares < 0.0 {
            return Err(MethodError::OutOfRange {
                what: "a unit's sum of squares",
                value: sum_of_squares,
                range: "0 or more",
            });
        }
        self.classes
            .entry(measurements)
            .or_default()
            .absorb(&Class {
                units: 1,
                mean,
                spread: 0.0,
                within: sum_of_squares,
            });
        Ok(())
    }

    /// Adds units that all have the same number of measurements: the moments of `[mean, sum of squares
    /// within]` over them.
    ///
    /// # Errors
    /// No measurements, or moments of another shape.
    pub fn add_class(&mut self, measurements: u64, moments: &Moments) -> Result<(), MethodError> {
        check_count("measurements of a unit", 1, measurements)?;
        if moments.columns() != 2 {
            return Err(MethodError::Mismatch {
                what: "columns of a class of units",
                left: moments.columns(),
                right: 2,
            });
        }
        let means = moments.summary(0);
        let spread = if means.n > 1 {
            means.variance * count(means.n - 1)
        } else {
            0.0
        };
        self.classes
            .entry(measurements)
            .or_default()
            .absorb(&Class {
                units: means.n,
                mean: means.mean,
                spread,
                within: moments.mean(1) * count(means.n),
            });
        Ok(())
    }

    /// Adds a unit by its measurements.
    ///
    /// # Errors
    /// As [`Units::add`].
    pub fn add_measurements(&mut self, values: &[f64]) -> Result<(), MethodError> {
        let n = values.len() as u64;
        check_count("measurements of a unit", 1, n)?;
        let mean = values.iter().sum::<f64>() / count(n);
        self.add(
            n,
            mean,
            values.iter().map(|v| (v - mean) * (v - mean)).sum(),
        )
    }

    /// Adds all units of another arm's part. Rounds (Chan's formula): merge in a fixed order.
    pub fn merge(&mut self, other: &Self) {
        for (&n, class) in &other.classes {
            self.classes.entry(n).or_default().absorb(class);
        }
    }

    /// Number of units.
    #[must_use]
    pub fn n(&self) -> u64 {
        self.classes.values().map(|c| c.units).sum()
    }

    /// `(Σ w, Σ w ȳ)`.
    fn weighted(&self, components: &Components) -> (f64, f64) {
        let mut sums = (0.0, 0.0);
        for (&n, class) in &self.classes {
            let weight = components.weight(n) * count(class.units);
            sums.0 += weight;
            sums.1 += weight * class.mean;
        }
        sums
    }

    /// Both components from both arms, each arm with its own mean: the analysis-of-variance estimator
    /// (Searle, Casella, McCulloch 1992, §3.6), cut at 0 between units.
    ///
    /// # Errors
    /// No unit with two measurements, too few units, no spread within units.
    pub fn components(arms: &[&Self]) -> Result<Components, MethodError> {
        let (mut within, mut df_within) = (0.0, 0.0);
        let (mut between, mut df_between, mut effective) = (0.0, 0.0, 0.0);
        for arm in arms {
            let total: f64 = arm.rows().map(|(n, c)| n * count(c.units)).sum();
            if total == 0.0 {
                continue;
            }
            let squares: f64 = arm.rows().map(|(n, c)| n * n * count(c.units)).sum();
            let mean = arm
                .rows()
                .map(|(n, c)| n * count(c.units) * c.mean)
                .sum::<f64>()
                / total;
            for (n, class) in arm.rows() {
                within += class.within;
                df_within += (n - 1.0) * count(class.units);
                let shift = class.mean - mean;
                between += n * (class.spread + count(class.units) * shift * shift);
            }
            df_between += count(arm.n()) - 1.0;
            effective += total - squares / total;
        }
        if df_within < 1.0 || df_between < 1.0 {
            return Err(MethodError::NotApplicable {
                reason: "variance within units needs units with two measurements or more: use closed \
                         windows until there are some",
            });
        }
        let within = check_positive("the variance within units", within / df_within)?;
        Ok(Components {
            between: ((between - df_between * within) / effective).max(0.0),
            within,
        })
    }

    /// Generalised least squares of the arms' means: weights `w_i = 1 / (σ_u² + σ_e² / n_i)`.
    ///
    /// The information, `1 / (1/Σw_t + 1/Σw_c)` ([`information`]), over that of the design is the
    /// fraction for [`super::sequential`]. Assumes that a unit's measurements share one level and are
    /// otherwise independent, and the same effect at every age (else use closed windows).
    ///
    /// # Errors
    /// As [`Comparison::new`].
    pub fn compare(
        control: &Self,
        treatment: &Self,
        components: &Components,
    ) -> Result<Comparison, MethodError> {
        check_positive("the variance within units", components.within)?;
        let arm = |units: &Self| {
            let (weight, sum) = units.weighted(components);
            ArmEstimate {
                n: units.n(),
                value: sum / weight,
                variance: 1.0 / weight,
            }
        };
        Comparison::new(arm(control), arm(treatment))
    }

    /// Variance of the weighted mean without trust in the model (Liang, Zeger 1986, units as clusters):
    /// `n/(n−1) Σ w_i² (ȳ_i − μ̂)² / (Σ w_i)²`.
    fn robust_variance(&self, components: &Components) -> f64 {
        let (weight, sum) = self.weighted(components);
        let (n, mean) = (count(self.n()), sum / weight);
        let squares: f64 = self
            .classes
            .iter()
            .map(|(&n, class)| {
                let w = components.weight(n);
                let shift = class.mean - mean;
                w * w * (class.spread + count(class.units) * shift * shift)
            })
            .sum();
        squares / (weight * weight) * n / (n - 1.0)
    }

    /// The arm's mean by generalised least squares, its variance by units as clusters.
    #[must_use]
    pub fn arm(&self, components: &Components) -> ArmEstimate {
        let (weight, sum) = self.weighted(components);
        ArmEstimate {
            n: self.n(),
            value: sum / weight,
            variance: self.robust_variance(components),
        }
    }

    /// Information that all units together will carry once each has so many measurements.
    fn complete(&self, measurements: u64, components: &Components) -> f64 {
        count(self.n()) * components.weight(measurements)
    }

    fn rows(&self) -> impl Iterator<Item = (f64, &Class)> {
        self.classes.iter().map(|(&n, class)| (count(n), class))
    }
}

impl Class {
    fn absorb(&mut self, other: &Self) {
        let units = self.units + other.units;
        if units == 0 {
            return;
        }
        let difference = other.mean - self.mean;
        let share = count(other.units) / count(units);
        self.spread += other.spread + difference * difference * count(self.units) * share;
        self.mean += difference * share;
        self.within += other.within;
        self.units = units;
    }
}

/// An open metric of two arms at one look.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Longitudinal {
    /// Means of both arms by generalised least squares, with cluster-robust variances.
    pub comparison: Comparison,
    /// Estimated variances of the model.
    pub components: Components,
    /// Information so far over what the same units will have carried when each has all its
    /// measurements, 0..=1. Times the share of the planned units that have come: the fraction for
    /// [`super::sequential`].
    pub share: f64,
}

/// Compares two arms whose units are measured again and again, each up to `measurements` times.
///
/// `δ̂ = Σ w ȳ / Σ w` of the treatment less that of the control, `w_i = 1 / (σ_u² + σ_e² / n_i)` with
/// [`Units::components`]; its variance by units as clusters, so that days that depend on each other and
/// effects of age that both arms share cost efficiency and not validity (Liang, Zeger 1986). Information
/// `I = 1 / (1/Σ w_t + 1/Σ w_c)`; its share depends on the ratio of the components and on counts alone.
/// With efficient weights increments of `I δ̂` are independent (Scharfstein, Tsiatis, Robins 1997), which
/// is what group-sequential bounds rest on.
///
/// Not where the treatment changes *whether* a unit is measured, nor with an effect that changes with
/// age: `δ̂` then mixes ages by how many units have reached them; use a closed window.
///
/// # Errors
/// No unit with two measurements yet, fewer than two units in an arm, no spread.
pub fn analyse(
    control: &Units,
    treatment: &Units,
    measurements: u64,
) -> Result<Longitudinal, MethodError> {
    let components = Units::components(&[control, treatment])?;
    let model = Units::compare(control, treatment, &components)?;
    let complete = 1.0
        / (1.0 / control.complete(measurements, &components)
            + 1.0 / treatment.complete(measurements, &components));
    Ok(Longitudinal {
        comparison: Comparison::new(control.arm(&components), treatment.arm(&components))?,
        components,
        share: information(&model) / complete,
    })
}

/// Information of a comparison: the inverse of the variance of its effect.
#[must_use]
pub fn information(comparison: &Comparison) -> f64 {
    1.0 / (comparison.control.variance + comparison.treatment.variance)
}
