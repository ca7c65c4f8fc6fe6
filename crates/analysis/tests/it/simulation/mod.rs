//! Error rates and power by Monte Carlo, against the published or independently simulated ones.
//!
//! The suite runs a reduced number of repetitions with bands that are wider in proportion; with
//! `REFRAIN_FULL_SIMULATION=1` it runs the full number of the reference. Seeds are fixed.

mod decisions;
mod estimators;
mod panels;
mod peeking;

use refrain_analysis::methods::special::normal_quantile;

use crate::support::SplitMix;

/// Repetitions: the reference's number, or a share of it.
pub(crate) fn repetitions(full: u32, reduced: u32) -> u32 {
    if self::full() { full } else { reduced }
}

fn full() -> bool {
    std::env::var_os("REFRAIN_FULL_SIMULATION").is_some()
}

/// A standard normal draw.
pub(crate) fn normal(random: &mut SplitMix) -> f64 {
    // Never 0 or 1.
    normal_quantile(random.uniform() + 0.5 / 9_007_199_254_740_992.0)
}

/// Counts of things that happen in a share of repetitions.
#[derive(Default)]
pub(crate) struct Rate {
    hits: u32,
    of: u32,
}

impl Rate {
    pub(crate) fn add(&mut self, hit: bool) {
        self.hits += u32::from(hit);
        self.of += 1;
    }

    pub(crate) fn value(&self) -> f64 {
        f64::from(self.hits) / f64::from(self.of)
    }

    /// Within `tolerance` of `expected`; at reduced size plus three standard errors of this run.
    #[track_caller]
    pub(crate) fn near(&self, name: &str, expected: f64, tolerance: f64) {
        let more = if full() {
            0.0
        } else {
            3.0 * (expected * (1.0 - expected) / f64::from(self.of)).sqrt()
        };
        let got = self.value();
        eprintln!(
            "{name}: {got:.4}, expected {expected} (± {tolerance} ± {more:.4}) in {}",
            self.of
        );
        assert!(
            (got - expected).abs() <= tolerance + more,
            "{name}: {got} in {} runs, expected {expected} ± {tolerance} ± {more}",
            self.of
        );
    }

    /// Within three standard errors of the difference from a rate that was itself found in so many runs.
    #[track_caller]
    pub(crate) fn like(&self, name: &str, expected: f64, runs: u32) {
        let variance = expected * (1.0 - expected);
        let error = (variance / f64::from(self.of) + variance / f64::from(runs)).sqrt();
        let got = self.value();
        eprintln!(
            "{name}: {got:.4}, expected {expected} ± 3 × {error:.4} in {}",
            self.of
        );
        assert!(
            (got - expected).abs() <= 3.0 * error,
            "{name}: {got} in {} runs, expected {expected} ± 3 × {error}",
            self.of
        );
    }

    /// Between two values; at reduced size plus three standard errors of this run.
    #[track_caller]
    pub(crate) fn between(&self, name: &str, low: f64, high: f64) {
        self.near(name, 0.5 * (low + high), 0.5 * (high - low));
    }
}
