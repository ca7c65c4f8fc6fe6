//! What every estimator returns and every monitor reads: an effect with its standard error.

use serde::{Deserialize, Serialize};

use super::error::{MethodError, check_count, check_finite, check_open_unit};
use super::moments::count;
use super::special::{
    normal_sf, normal_two_sided, normal_upper_quantile, t_sf, t_two_sided, t_upper_quantile,
};

/// With fewer units in an arm, Student's t replaces the normal distribution.
pub const SMALL_ARM: u64 = 1000;

/// Treatment minus control (or any estimate) and its standard error.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Effect {
    /// The estimate, in units of the metric.
    pub delta: f64,
    /// Its standard error, above 0.
    pub se: f64,
    /// Degrees of freedom of its t distribution; `None` for normal theory.
    pub df: Option<f64>,
}

impl Effect {
    /// An estimate with its standard error.
    ///
    /// # Errors
    /// A number that is not finite, or a standard error that is not above 0.
    pub fn new(delta: f64, se: f64, df: Option<f64>) -> Result<Self, MethodError> {
        check_finite("an effect", delta)?;
        check_finite("a standard error", se)?;
        if se <= 0.0 {
            return Err(MethodError::NoVariance { what: "an effect" });
        }
        if let Some(df) = df
            && (df.is_nan() || df <= 0.0)
        {
            return Err(MethodError::OutOfRange {
                what: "degrees of freedom",
                value: df,
                range: "above 0",
            });
        }
        Ok(Self { delta, se, df })
    }

    /// Estimate over standard error.
    #[must_use]
    pub fn z(&self) -> f64 {
        self.delta / self.se
    }

    /// Two-sided p-value of "no difference".
    #[must_use]
    pub fn p_two_sided(&self) -> f64 {
        match self.df {
            Some(df) => t_two_sided(self.z(), df),
            None => normal_two_sided(self.z()),
        }
    }

    /// One-sided p-value of H0 "at most `floor`" against "above `floor`". Superiority: `floor` 0.
    /// Non-inferiority with margin m > 0: `floor` −m. For the other direction, [`Effect::flipped`].
    #[must_use]
    pub fn p_above(&self, floor: f64) -> f64 {
        let z = (self.delta - floor) / self.se;
        match self.df {
            Some(df) => t_sf(z, df),
            None => normal_sf(z),
        }
    }

    /// The same effect with its sign turned, for metrics where down is good.
    #[must_use]
    pub fn flipped(&self) -> Self {
        Self {
            delta: -self.delta,
            ..*self
        }
    }

    /// Two-sided interval of the given confidence, such as 0.95.
    ///
    /// # Errors
    /// A confidence outside 0..1.
    pub fn interval(&self, confidence: f64) -> Result<Interval, MethodError> {
        check_open_unit("a confidence level", confidence)?;
        Ok(self.interval_at(critical(0.5 * (1.0 - confidence), self.df)))
    }

    /// Interval of `multiplier` standard errors on each side: the repeated interval of a sequential
    /// look, with the look's bound as multiplier.
    #[must_use]
    pub fn interval_at(&self, multiplier: f64) -> Interval {
        Interval {
            low: self.delta - multiplier * self.se,
            high: self.delta + multiplier * self.se,
        }
    }
}

/// How many standard errors a one-sided test of level `alpha` at a single look asks for.
#[must_use]
pub fn critical(alpha: f64, df: Option<f64>) -> f64 {
    match df {
        Some(df) => t_upper_quantile(alpha, df),
        None => normal_upper_quantile(alpha),
    }
}

/// A closed interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

impl Interval {
    /// Whether `value` lies inside, ends included.
    #[must_use]
    pub fn contains(&self, value: f64) -> bool {
        (self.low..=self.high).contains(&value)
    }

    /// Distance of the ends.
    #[must_use]
    pub fn width(&self) -> f64 {
        self.high - self.low
    }
}

/// What inverting a test of a ratio can give: not always an interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConfidenceSet {
    /// The usual case.
    Interval(Interval),
    /// Everything *outside* this interval: the denominator may well be 0, with the sign of the ratio
    /// unknown.
    Outside(Interval),
    /// Any value at all: the data say nothing about the ratio.
    Everything,
    /// No value: possible only for sets that test the model itself (over-identified).
    Empty,
}

impl ConfidenceSet {
    /// All x with `a x² + b x + c ≤ 0`.
    #[must_use]
    pub fn of_quadratic(a: f64, b: f64, c: f64) -> Self {
        let discriminant = b * b - 4.0 * a * c;
        if discriminant < 0.0 {
            return if a > 0.0 {
                Self::Empty
            } else {
                Self::Everything
            };
        }
        if a == 0.0 {
            // A half line: as near to it as this type comes is to make no claim.
            return Self::Everything;
        }
        // The root of larger magnitude first, the other from the product: no cancellation.
        let q = -0.5 * (b + discriminant.sqrt().copysign(b));
        let (x, y) = if q == 0.0 { (0.0, 0.0) } else { (q / a, c / q) };
        let roots = Interval {
            low: x.min(y),
            high: x.max(y),
        };
        if a > 0.0 {
            Self::Interval(roots)
        } else {
            Self::Outside(roots)
        }
    }

    /// Whether `value` is in the set.
    #[must_use]
    pub fn contains(&self, value: f64) -> bool {
        match self {
            Self::Interval(i) => i.contains(value),
            Self::Outside(i) => value <= i.low || value >= i.high,
            Self::Everything => true,
            Self::Empty => false,
        }
    }

    /// Whether the set is a bounded interval.
    #[must_use]
    pub fn is_bounded(&self) -> bool {
        matches!(self, Self::Interval(_) | Self::Empty)
    }
}

/// One arm's estimate: a mean, a share, a ratio.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ArmEstimate {
    /// Units.
    pub n: u64,
    /// The estimate.
    pub value: f64,
    /// Sampling variance of the estimate (not of a unit).
    pub variance: f64,
}

/// Two independent arms.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// The arm compared with.
    pub control: ArmEstimate,
    /// The arm in question.
    pub treatment: ArmEstimate,
}

impl Comparison {
    /// Two arms that can be compared.
    ///
    /// # Errors
    /// An arm of fewer than two units, an estimate that is not finite, or no variance in either arm.
    pub fn new(control: ArmEstimate, treatment: ArmEstimate) -> Result<Self, MethodError> {
        for (arm, what) in [
            (control, "units of the control arm"),
            (treatment, "units of the treatment arm"),
        ] {
            check_count(what, 2, arm.n)?;
            check_finite("an arm's estimate", arm.value)?;
            check_finite("an arm's variance", arm.variance)?;
        }
        if control.variance + treatment.variance <= 0.0 {
            return Err(MethodError::NoVariance { what: "the metric" });
        }
        Ok(Self { control, treatment })
    }

    /// The effect: normal theory, or Welch's t if an arm has fewer than [`SMALL_ARM`] units.
    #[must_use]
    pub fn effect(&self) -> Effect {
        if self.control.n.min(self.treatment.n) < SMALL_ARM {
            self.welch()
        } else {
            self.normal()
        }
    }

    /// The effect under normal theory.
    #[must_use]
    pub fn normal(&self) -> Effect {
        Effect {
            delta: self.treatment.value - self.control.value,
            se: (self.control.variance + self.treatment.variance).sqrt(),
            df: None,
        }
    }

    /// The effect with Welch's degrees of freedom (Welch 1947, Satterthwaite).
    #[must_use]
    pub fn welch(&self) -> Effect {
        let (c, t) = (self.control, self.treatment);
        let sum = c.variance + t.variance;
        let df = sum * sum
            / (c.variance * c.variance / count(c.n - 1) + t.variance * t.variance / count(t.n - 1));
        Effect {
            df: Some(df),
            ..self.normal()
        }
    }

    /// The relative lift `treatment / control − 1`.
    ///
    /// Delta method: `Var r = V_t/m_c² + V_c m_t²/m_c⁴`, good while the control's mean is many
    /// standard errors from 0. Fieller (1954): the set of ratios that a test of
    /// `m_t − r m_c = 0` does not reject, exact under normality whatever the denominator. Print both
    /// where they disagree, which is what [`Relative::denominator_is_weak`] announces.
    ///
    /// # Errors
    /// A control mean of 0, or a confidence outside 0..1.
    pub fn relative(&self, confidence: f64) -> Result<Relative, MethodError> {
        check_open_unit("a confidence level", confidence)?;
        let (c, t) = (self.control, self.treatment);
        if c.value == 0.0 {
            return Err(MethodError::OutOfRange {
                what: "the control's mean",
                value: 0.0,
                range: "other than 0 for a relative lift",
            });
        }
        let ratio = t.value / c.value;
        let lift = Effect::new(
            ratio - 1.0,
            (t.variance + c.variance * ratio * ratio).sqrt() / c.value.abs(),
            None,
        )?;
        let z = normal_upper_quantile(0.5 * (1.0 - confidence));
        // In r = lift: (m_t − (1 + r) m_c)² ≤ z² (V_t + (1 + r)² V_c), as a quadratic in 1 + r.
        let set = ConfidenceSet::of_quadratic(
            c.value * c.value - z * z * c.variance,
            -2.0 * c.value * t.value,
            t.value * t.value - z * z * t.variance,
        );
        let shift = |i: Interval| Interval {
            low: i.low - 1.0,
            high: i.high - 1.0,
        };
        let fieller = match set {
            ConfidenceSet::Interval(i) => ConfidenceSet::Interval(shift(i)),
            ConfidenceSet::Outside(i) => ConfidenceSet::Outside(shift(i)),
            other => other,
        };
        Ok(Relative {
            lift,
            delta_method: lift.interval(confidence)?,
            fieller,
            denominator_is_weak: c.value.abs() < 10.0 * c.variance.sqrt(),
        })
    }
}

/// A relative lift with both of its intervals.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Relative {
    /// `treatment / control − 1` and its delta-method standard error.
    pub lift: Effect,
    /// Symmetric interval of the delta method.
    pub delta_method: Interval,
    /// Fieller's set.
    pub fieller: ConfidenceSet,
    /// The control's mean is within ten standard errors of 0: read Fieller's set.
    pub denominator_is_weak: bool,
}

/// The value, if finite.
pub(super) fn finite(value: f64) -> Option<f64> {
    value.is_finite().then_some(value)
}
