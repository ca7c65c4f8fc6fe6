//! Does the effect differ between segments? Test first, look at single segments after.

use serde::{Deserialize, Serialize};

use super::effect::{ArmEstimate, Comparison, Effect};
use super::error::{MethodError, check_count};
use super::moments::count;
use super::special::chi_square_sf;

/// Effects of several segments put together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Heterogeneity {
    /// Average weighted by precision, assuming one effect for all.
    pub pooled: Effect,
    /// Cochran's Q.
    pub q: f64,
    /// P-value of "the same effect in all segments" (interaction).
    pub p: f64,
    /// Share of the spread that is not noise, 0..1 (Higgins, Thompson 2002).
    pub i_squared: f64,
    /// Variance of true effects between segments (DerSimonian, Laird 1986), 0 or more.
    pub tau_squared: f64,
    /// Average when effects differ, with the larger error that this means.
    pub random_effects: Effect,
    /// Each segment's effect drawn towards the average as far as its noise suggests: what to show for
    /// segments that were not declared in advance.
    pub shrunk: Vec<Effect>,
}

/// Cochran's test and the spread of effects over two or more segments with independent units.
///
/// Only segments declared before the start confirm anything; others explore, to be shown shrunk and
/// with their p-values corrected ([`super::multiplicity`]). Q has little power with few segments.
///
/// # Errors
/// Fewer than two segments.
pub fn heterogeneity(segments: &[Effect]) -> Result<Heterogeneity, MethodError> {
    check_count("segments", 2, segments.len() as u64)?;
    let weighted = |extra: f64| {
        let weights: Vec<f64> = segments
            .iter()
            .map(|e| 1.0 / (e.se * e.se + extra))
            .collect();
        let total: f64 = weights.iter().sum();
        let sum: f64 = weights.iter().zip(segments).map(|(w, e)| w * e.delta).sum();
        let squares: f64 = weights.iter().map(|w| w * w).sum();
        (sum / total, total, squares)
    };
    let (mean, total, squares) = weighted(0.0);
    let q: f64 = segments
        .iter()
        .map(|e| {
            let z = (e.delta - mean) / e.se;
            z * z
        })
        .sum();
    let df = count(segments.len() as u64 - 1);
    let tau_squared = ((q - df) / (total - squares / total)).max(0.0);
    let (random, random_total, _) = weighted(tau_squared);
    let shrunk = segments
        .iter()
        .map(|e| {
            // With no spread at all, every segment is the average.
            let noise = e.se * e.se;
            let keep = tau_squared / (tau_squared + noise);
            let delta = random + keep * (e.delta - random);
            let own = 1.0 - keep;
            let se = (keep * noise + own * own / random_total).sqrt();
            Effect::new(delta, se, None)
        })
        .collect::<Result<_, _>>()?;
    Ok(Heterogeneity {
        pooled: Effect::new(mean, total.recip().sqrt(), None)?,
        q,
        p: chi_square_sf(q, df),
        i_squared: if q > 0.0 {
            ((q - df) / q).max(0.0)
        } else {
            0.0
        },
        tau_squared,
        random_effects: Effect::new(random, random_total.recip().sqrt(), None)?,
        shrunk,
    })
}

/// Simpson's paradox: the effect over everybody points the other way than in every single segment. Then
/// the arms do not have the same mix of segments: allocation changed over time, or units were lost.
#[must_use]
pub fn is_simpson(overall: f64, segments: &[Effect]) -> bool {
    !segments.is_empty() && overall != 0.0 && segments.iter().all(|e| e.delta * overall < 0.0)
}

/// Comparisons averaged over strata by their share of units: what to use where the mix of arms differs
/// from stratum to stratum, as after a ramp with changed weights (one stratum a period of constant
/// weights).
///
/// # Errors
/// No strata, different lengths, no units, no variance in any stratum.
pub fn stratified(strata: &[Comparison], units: &[u64]) -> Result<Comparison, MethodError> {
    check_count("strata", 1, strata.len() as u64)?;
    super::error::check_lengths("strata and their units", strata.len(), units.len())?;
    let total = count(units.iter().sum());
    super::error::check_positive("units", total)?;
    let mut sums = [ArmEstimate {
        n: 0,
        value: 0.0,
        variance: 0.0,
    }; 2];
    for (stratum, &units) in strata.iter().zip(units) {
        let share = count(units) / total;
        for (sum, arm) in sums.iter_mut().zip([stratum.control, stratum.treatment]) {
            sum.n += arm.n;
            sum.value += share * arm.value;
            sum.variance += share * share * arm.variance;
        }
    }
    Comparison::new(sums[0], sums[1])
}
