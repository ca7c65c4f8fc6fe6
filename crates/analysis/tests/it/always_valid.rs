//! Confidence sequences and mSPRT against reference numbers.

use refrain_analysis::methods::always_valid::{ConfidenceSequence, msprt, msprt_multiplier};
use refrain_analysis::methods::effect::Effect;
use refrain_analysis::methods::mean;
use refrain_analysis::methods::moments::Summary;

use crate::support::close;

fn effect() -> Effect {
    let c = Summary::from_sums(3407, 1396.87, 52377.9767).expect("valid");
    let t = Summary::from_sums(3461, 2422.7, 134_698.29).expect("valid");
    mean::compare(&c, &t).expect("valid").effect()
}

const UNITS: u64 = 3407 + 3461;

#[test]
fn confidence_sequence() {
    let effect = effect();
    let cs = ConfidenceSequence::two_sided(0.05, 5000).expect("valid");
    close(cs.scale(), 0.039840067, 5e-10);
    close(cs.multiplier(UNITS) * effect.se, 0.379410096, 5e-10);
    close(cs.multiplier(UNITS) / 1.959_963_984_540_054, 1.551326, 5e-7);
    close(cs.evidence(&effect, UNITS).p, 0.290744559, 5e-8);
    let larger = Effect {
        delta: 0.5,
        ..effect
    };
    close(cs.evidence(&larger, UNITS).p, 0.002209670, 5e-10);
    let other = ConfidenceSequence::two_sided(0.05, 10_000).expect("valid");
    close(other.multiplier(UNITS) * effect.se, 0.380475185, 5e-10);
    close(other.evidence(&effect, UNITS).p, 0.259290721, 5e-8);
}

/// The interval excludes zero exactly when the p-value is below α.
#[test]
fn interval_and_p_value_agree() {
    let cs = ConfidenceSequence::two_sided(0.05, 5000).expect("valid");
    let edge = cs.multiplier(UNITS);
    let at = |z: f64| {
        cs.evidence(&Effect::new(z, 1.0, None).expect("valid"), UNITS)
            .p
    };
    close(at(edge), 0.05, 1e-12);
    assert!(at(edge * 1.001) < 0.05 && at(edge * 0.999) > 0.05);
}

/// The same in one direction: the bound is crossed exactly when the p-value falls below α, and bad news
/// is no evidence.
#[test]
fn one_sided_bound_and_p_value_agree() {
    for alpha in [0.01, 0.05, 0.2] {
        let cs = ConfidenceSequence::one_sided(alpha, 5000).expect("valid");
        let p = |z: f64| {
            let effect = Effect::new(z, 1.0, None).expect("valid");
            cs.evidence(&effect, UNITS).p
        };
        close(p(cs.multiplier(UNITS)), alpha, 1e-12);
        assert_eq!((p(0.0), p(-9.0)), (1.0, 1.0));
        assert!(p(60.0) < 1e-300, "far out it does not overflow");
    }
}

#[test]
fn a_one_sided_sequence_is_tighter() {
    let one = ConfidenceSequence::one_sided(0.05, 5000).expect("valid");
    let two = ConfidenceSequence::two_sided(0.05, 5000).expect("valid");
    let ten = ConfidenceSequence::two_sided(0.10, 5000).expect("valid");
    assert!(one.multiplier(UNITS) < two.multiplier(UNITS));
    // Tuned at twice the level, and never tighter than the two-sided sequence of that level.
    assert_eq!(one.scale(), ten.scale());
    assert!(one.multiplier(UNITS) > ten.multiplier(UNITS));
    assert!(ConfidenceSequence::one_sided(0.5, 100).is_err());
    assert!(ConfidenceSequence::two_sided(0.05, 0).is_err());
}

#[test]
fn mixture_sprt() {
    let effect = effect();
    let found = msprt(&effect, 0.2).expect("valid");
    close(libm::exp(found.ln_e), 3.697747893, 5e-8);
    close(found.p, 0.270434878, 5e-9);
    let larger = Effect {
        delta: 0.5,
        ..effect
    };
    let found = msprt(&larger, 0.2).expect("valid");
    close(libm::exp(found.ln_e), 171.102713746, 5e-6);
    close(found.p, 0.005844443, 5e-10);
    let edge = msprt_multiplier(effect.se, 0.2, 0.05).expect("valid");
    let at = Effect {
        delta: edge * effect.se,
        ..effect
    };
    close(msprt(&at, 0.2).expect("valid").p, 0.05, 1e-12);
    assert!(msprt(&effect, 0.0).is_err());
}
