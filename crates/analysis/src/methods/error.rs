//! The one error of this module tree.

use super::effect::finite;

/// Why a method refuses its input. `what` names the offending quantity in words a reader of a report
/// understands.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum MethodError {
    /// Not enough rows, units, clusters, looks.
    #[error("{what}: needs at least {needed}, got {got}")]
    TooFew {
        /// What there is too little of.
        what: &'static str,
        /// The smallest number that works.
        needed: u64,
        /// The number given.
        got: u64,
    },
    /// NaN or an infinity.
    #[error("{what} is not a finite number")]
    NotFinite {
        /// Which input.
        what: &'static str,
    },
    /// A standard error of zero: every z would be infinite or undefined.
    #[error("{what} does not vary, so its error cannot be estimated")]
    NoVariance {
        /// Which quantity.
        what: &'static str,
    },
    /// A number outside the range in which the method means something.
    #[error("{what} is {value}, must be {range}")]
    OutOfRange {
        /// Which input.
        what: &'static str,
        /// Its value.
        value: f64,
        /// The permitted range in words.
        range: &'static str,
    },
    /// Two inputs that must have the same length.
    #[error("{what}: {left} against {right}")]
    Mismatch {
        /// Which inputs.
        what: &'static str,
        /// Length of the first.
        left: usize,
        /// Length of the second.
        right: usize,
    },
    /// Columns that are linear combinations of each other.
    #[error("{what}: the columns are linearly dependent")]
    Singular {
        /// Which regression.
        what: &'static str,
    },
    /// A root or an integral that was not found; a defect if it ever happens with valid input.
    #[error("{what} did not converge")]
    NoConvergence {
        /// Which computation.
        what: &'static str,
    },
    /// The method does not apply to such data; using it would mislead.
    #[error("{reason}")]
    NotApplicable {
        /// Why, and what to use instead.
        reason: &'static str,
    },
    /// A pre-exposure covariate differs between the arms, so it cannot be pre-exposure or the arms
    /// were not randomised.
    #[error(
        "the covariate differs between the arms (p = {p:e}): it is not pre-exposure, or randomisation failed"
    )]
    CovariateMoved {
        /// Two-sided p-value of the balance test.
        p: f64,
    },
}

/// `value`, if finite.
pub(super) fn check_finite(what: &'static str, value: f64) -> Result<f64, MethodError> {
    finite(value).ok_or(MethodError::NotFinite { what })
}

/// `value`, if strictly between 0 and 1.
pub(super) fn check_open_unit(what: &'static str, value: f64) -> Result<f64, MethodError> {
    if value > 0.0 && value < 1.0 {
        return Ok(value);
    }
    Err(MethodError::OutOfRange {
        what,
        value,
        range: "between 0 and 1, exclusive",
    })
}

/// `value`, if finite and above zero.
pub(super) fn check_positive(what: &'static str, value: f64) -> Result<f64, MethodError> {
    if value > 0.0 && value.is_finite() {
        return Ok(value);
    }
    Err(MethodError::OutOfRange {
        what,
        value,
        range: "finite and above 0",
    })
}

/// Two lengths that must agree.
pub(super) fn check_lengths(
    what: &'static str,
    left: usize,
    right: usize,
) -> Result<(), MethodError> {
    if left == right {
        return Ok(());
    }
    Err(MethodError::Mismatch { what, left, right })
}

/// At least `needed` of something.
pub(super) fn check_count(what: &'static str, needed: u64, got: u64) -> Result<(), MethodError> {
    if got >= needed {
        return Ok(());
    }
    Err(MethodError::TooFew { what, needed, got })
}
