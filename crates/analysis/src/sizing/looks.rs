//! What looking costs.

use crate::methods::always_valid::{ConfidenceSequence, msprt_multiplier};
use crate::methods::special::normal_upper_quantile;
use crate::methods::{MethodError, sequential};
use crate::plan::{Design, Method, SpendingRule};

/// By what the number of units must grow so that a test with these looks keeps the power of one look.
///
/// Group-sequential: exact, for evenly spaced looks. Bonferroni: the level divided by the planned looks.
/// Always-valid and mixture SPRT: as if the decision fell at the planned size; it may come earlier, so this
/// is the worst case. Fixed and fixed-power designs pay nothing.
///
/// # Errors
/// Levels or power outside 0..1.
pub fn inflation(design: &Design, alpha: f64, power: f64, looks: u32) -> Result<f64, MethodError> {
    let one = normal_upper_quantile(alpha) + normal_upper_quantile(1.0 - power);
    let with = |bound: f64| ((bound + normal_upper_quantile(1.0 - power)) / one).powi(2);
    match design.method {
        Method::Gst if looks > 1 => {
            let fractions: Vec<f64> = (1..=looks)
                .map(|k| f64::from(k) / f64::from(looks))
                .collect();
            let spending = match design.spending {
                SpendingRule::Power(rho) => sequential::Spending::Power(rho),
                SpendingRule::Obf => sequential::Spending::OBrienFleming,
                SpendingRule::Pocock => sequential::Spending::Pocock,
            };
            sequential::inflation(alpha, spending, &fractions, power)
        }
        Method::Bonferroni => Ok(with(sequential::bonferroni_bound(
            alpha,
            u64::from(design.looks),
        )?)),
        Method::AlwaysValid => {
            // At the size it is tuned for, the bound does not depend on that size.
            const ANY: u64 = 1_000_000;
            Ok(with(
                ConfidenceSequence::one_sided(alpha, ANY)?.multiplier(ANY),
            ))
        }
        Method::Msprt => {
            // The bound depends on the effect that matters over its error, and that on the bound.
            let reach = normal_upper_quantile(1.0 - power);
            let mut bound = normal_upper_quantile(alpha);
            for _ in 0..50 {
                bound = msprt_multiplier(1.0, bound + reach, 2.0 * alpha)?;
            }
            Ok(with(bound))
        }
        Method::Gst | Method::Fixed | Method::FixedPower => Ok(1.0),
    }
}

pub(super) fn looks_paid(design: &Design, looks: u32) -> u32 {
    match design.method {
        Method::Gst => looks,
        Method::Bonferroni => design.looks,
        _ => 1,
    }
}
