//! Whether one version is better than another for the same users: the paired bootstrap.

use serde::{Deserialize, Serialize};

use super::hash;

/// The difference between two scores of the same users.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Paired {
    /// Users compared.
    pub users: usize,
    /// Mean of the version judged.
    pub ours: f64,
    /// Mean of the version compared with.
    pub theirs: f64,
    /// Mean difference, `ours - theirs`.
    pub difference: f64,
    /// Two-sided 95 % interval of the difference: percentiles of resampled means.
    pub low_95: f64,
    /// Its upper end.
    pub high_95: f64,
}

impl Paired {
    /// The difference as a share of what the other version has; 0 where that has nothing.
    #[must_use]
    pub fn relative(&self) -> f64 {
        self.share(self.difference)
    }

    /// The lower end likewise.
    #[must_use]
    pub fn relative_low(&self) -> f64 {
        self.share(self.low_95)
    }

    fn share(&self, difference: f64) -> f64 {
        if self.theirs > 0.0 {
            difference / self.theirs
        } else {
            0.0
        }
    }
}

/// Resamples users with replacement `resamples` times (Efron and Tibshirani, "An Introduction to the
/// Bootstrap", §13.3). `ours[i]` and `theirs[i]` belong to one user. The same for the same seed;
/// `O(users × resamples)`.
///
/// None for nobody.
#[must_use]
pub fn paired(ours: &[f64], theirs: &[f64], resamples: usize, seed: u64) -> Option<Paired> {
    let differences: Vec<f64> = ours.iter().zip(theirs).map(|(a, b)| a - b).collect();
    let users = differences.len();
    if users == 0 {
        return None;
    }
    let n = users as f64;
    let mut means: Vec<f64> = (0u32..)
        .take(resamples.max(1))
        .map(|round| {
            let mut state = hash(seed, round, 0);
            let sum: f64 = (0..users)
                .map(|_| {
                    state = state
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1_442_695_040_888_963_407);
                    // Multiply-shift of the upper half, which has the better bits.
                    let at = ((state >> 32) as usize * users) >> 32;
                    differences[at]
                })
                .sum();
            sum / n
        })
        .collect();
    means.sort_by(f64::total_cmp);
    let percentile = |share: f64| {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a share of a count is a count"
        )]
        let at = (share * (means.len() - 1) as f64).round() as usize;
        means[at]
    };
    Some(Paired {
        users,
        ours: ours.iter().sum::<f64>() / n,
        theirs: theirs.iter().sum::<f64>() / n,
        difference: differences.iter().sum::<f64>() / n,
        low_95: percentile(0.025),
        high_95: percentile(0.975),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Uniform on 0 to 1.
    fn uniform(seed: u64, at: u32) -> f64 {
        (hash(seed, at, 1) >> 11) as f64 / (1u64 << 53) as f64
    }

    #[test]
    fn the_interval_is_as_wide_as_the_normal_one() {
        let theirs: Vec<f64> = (0..400).map(|at| uniform(1, at)).collect();
        let ours: Vec<f64> = (0..400)
            .map(|at| theirs[at as usize] + uniform(2, at) - 0.4)
            .collect();
        let found = paired(&ours, &theirs, 2_000, 7).unwrap();
        assert_eq!(found, paired(&ours, &theirs, 2_000, 7).unwrap());
        assert!((found.difference - 0.1).abs() < 0.04, "{found:?}");
        let differences: Vec<f64> = ours.iter().zip(&theirs).map(|(a, b)| a - b).collect();
        let mean = found.difference;
        let variance = differences.iter().map(|d| (d - mean).powi(2)).sum::<f64>() / 399.0;
        let half = 1.96 * (variance / 400.0).sqrt();
        assert!(
            (found.high_95 - found.low_95 - 2.0 * half).abs() < 0.1 * half,
            "{found:?}"
        );
        assert!(found.low_95 < mean && mean < found.high_95);
    }

    /// Of many comparisons of a version with its equal about one in twenty is called different.
    #[test]
    fn covers_no_difference_as_often_as_it_says() {
        let missed = (0..300)
            .filter(|&run| {
                let noise = |side| (0..150).map(move |at| uniform(100 + 2 * run + side, at));
                let (a, b): (Vec<_>, Vec<_>) = (noise(0).collect(), noise(1).collect());
                let found = paired(&a, &b, 400, run).unwrap();
                found.low_95 > 0.0 || found.high_95 < 0.0
            })
            .count();
        assert!((4..=32).contains(&missed), "{missed} of 300");
    }

    #[test]
    fn nobody_is_no_comparison() {
        assert_eq!(paired(&[], &[], 10, 1), None);
        let found = paired(&[0.5], &[0.0], 10, 1).unwrap();
        assert_eq!(
            (found.low_95, found.high_95, found.relative()),
            (0.5, 0.5, 0.0)
        );
    }
}
