//! Always-valid inference: look whenever you like, as often as you like, with no plan.
//!
//! Pays for that freedom with wider intervals (about 1.5 times at the sample size tuned for), so
//! [`super::sequential`] is the better choice where the final number of units is known.

use serde::{Deserialize, Serialize};

use super::effect::{Effect, Interval};
use super::error::{MethodError, check_count, check_open_unit, check_positive};
use super::moments::count;

/// An asymptotic confidence sequence of the Gaussian mixture (Waudby-Smith, Arbour, Sinha, Kennedy,
/// Ramdas 2021): all intervals together cover the effect with probability 1 − α.
///
/// With N the units of both arms and se the ordinary standard error, half width
/// `se √N √(2 (N r² + 1) ln(√(N r² + 1) / α) / (N r)²)`. Asymptotic: start after some hundred units;
/// units must arrive once and keep their value.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ConfidenceSequence {
    alpha: f64,
    one_sided: bool,
    r: f64,
}

impl ConfidenceSequence {
    /// Two-sided sequence of level 1 − `alpha`, narrowest near `tuned_units` units of both arms.
    ///
    /// # Errors
    /// `alpha` outside 0..1, no tuned units.
    pub fn two_sided(alpha: f64, tuned_units: u64) -> Result<Self, MethodError> {
        Self::new(alpha, tuned_units, false)
    }

    /// One-sided sequence (a bound on one side) of level 1 − `alpha`, `alpha` below ½.
    ///
    /// # Errors
    /// As [`ConfidenceSequence::two_sided`].
    pub fn one_sided(alpha: f64, tuned_units: u64) -> Result<Self, MethodError> {
        Self::new(alpha, tuned_units, true)
    }

    fn new(alpha: f64, tuned_units: u64, one_sided: bool) -> Result<Self, MethodError> {
        check_open_unit("a level", alpha)?;
        check_count("the units tuned for", 1, tuned_units)?;
        let tuning = if one_sided {
            check_open_unit("twice a one-sided level", 2.0 * alpha)?
        } else {
            alpha
        };
        let log = -2.0 * libm::log(tuning);
        let r = ((log + libm::log1p(log)) / count(tuned_units)).sqrt();
        Ok(Self {
            alpha,
            one_sided,
            r,
        })
    }

    /// The mixture's scale, r.
    #[must_use]
    pub fn scale(&self) -> f64 {
        self.r
    }

    /// How many standard errors the look with `units` units (both arms) asks for: comparable with the
    /// bound of a group-sequential look.
    #[must_use]
    pub fn multiplier(&self, units: u64) -> f64 {
        let n = count(units.max(1));
        let nr = n * self.r * self.r;
        let log = if self.one_sided {
            libm::log1p((nr + 1.0).sqrt() / (2.0 * self.alpha))
        } else {
            libm::log((nr + 1.0).sqrt() / self.alpha)
        };
        (2.0 * (nr + 1.0) * log / nr).sqrt()
    }

    /// The interval at this look. One-sided: only the end in question is to be used.
    #[must_use]
    pub fn interval(&self, effect: &Effect, units: u64) -> Interval {
        effect.interval_at(self.multiplier(units))
    }

    /// The evidence at this look: `exp(r² N δ² / (2 se² (N r² + 1))) / √(N r² + 1)`, two-sided. One-sided:
    /// for an effect above 0, by inverting [`ConfidenceSequence::multiplier`].
    #[must_use]
    pub fn evidence(&self, effect: &Effect, units: u64) -> Evidence {
        let nr = count(units.max(1)) * self.r * self.r;
        let z = effect.z();
        let exponent = nr * z * z / (2.0 * (nr + 1.0));
        let mixed = 0.5 * libm::log1p(nr);
        Evidence::from_ln(match (self.one_sided, z > 0.0) {
            (false, _) => exponent - mixed,
            (true, true) => {
                exponent + libm::log1p(-libm::exp(-exponent)) + std::f64::consts::LN_2 - mixed
            }
            (true, false) => f64::NEG_INFINITY,
        })
    }
}

/// Strength of evidence against "no effect" that may be read at any look.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// Logarithm of the e-value (for mSPRT, of the likelihood ratio).
    pub ln_e: f64,
    /// `min(1, 1/e)`. Over looks, report the smallest so far.
    pub p: f64,
}

impl Evidence {
    fn from_ln(ln_e: f64) -> Self {
        Self {
            ln_e,
            p: libm::exp(-ln_e).min(1.0),
        }
    }
}

/// Mixture sequential probability ratio test (Robbins 1970; Johari, Koomen, Pekelis, Walsh 2017): the
/// effect under the alternative is N(0, `tau`²).
///
/// `L = √(V / (V + τ²)) exp(τ² δ² / (2 V (V + τ²)))`, two-sided; reject when L ≥ 1/α. Best when τ is
/// about the size of effects seen in such experiments; valid for any fixed τ.
///
/// # Errors
/// A `tau` that is not above 0 and finite.
pub fn msprt(effect: &Effect, tau: f64) -> Result<Evidence, MethodError> {
    check_positive("the deviation of effects (tau)", tau)?;
    let v = effect.se * effect.se;
    let total = v + tau * tau;
    let log =
        0.5 * libm::log(v / total) + tau * tau * effect.delta * effect.delta / (2.0 * v * total);
    Ok(Evidence::from_ln(log))
}

/// How many standard errors [`msprt`] asks for at this look for a two-sided level `alpha`; for a one-sided
/// level, in one direction only, give twice that.
///
/// # Errors
/// As [`msprt`]; `alpha` outside 0..1.
pub fn msprt_multiplier(se: f64, tau: f64, alpha: f64) -> Result<f64, MethodError> {
    check_positive("a standard error", se)?;
    check_positive("the deviation of effects (tau)", tau)?;
    check_open_unit("a level", alpha)?;
    let v = se * se;
    let total = v + tau * tau;
    let log = 0.5 * libm::log(total / v) - libm::log(alpha);
    Ok((2.0 * total / (tau * tau) * log).sqrt())
}
