//! Distinct units of two arms in bounded memory, and whether the arms have the shares that they should.
//!
//! Units are sampled by their hash, which is independent of the one that chooses arms: at level `l`
//! those whose hash begins with `l` zero bits (Wegman's adaptive sampling). The level rises when there
//! are too many, and what is kept is then exactly what it would be had the level been there from the
//! start. So the sample counts units, not requests, however often each of them asks.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// Most units that are remembered, of both arms together: 64 KiB.
const KEPT: usize = 8_192;
/// Probability that sound arms are ever said to be off.
const ALPHA: f64 = 0.001;
/// Weight of the prior in units an arm; so many units must be seen before much can be said.
const PRIOR: f64 = 100.0;

/// Distinct units of control and treatment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Units {
    level: u32,
    arms: [BTreeSet<u64>; 2],
}

/// Units of both arms beside what their weights say.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct SampleRatio {
    /// Distinct units of control in the sample.
    pub control: u64,
    /// Distinct units of treatment in the sample.
    pub treatment: u64,
    /// Logarithm of the evidence against the declared weights (Lindon and Malek, "Anytime-valid
    /// inference for multinomial count data", 2022).
    pub log_e: f64,
    /// At or above this, the arms are off.
    pub bound: f64,
}

impl SampleRatio {
    /// Whether the arms do not have the shares of units that they should: what is compared is not
    /// what was randomised.
    #[must_use]
    pub fn is_off(&self) -> bool {
        self.log_e >= self.bound
    }
}

impl Units {
    /// Sees a unit of an arm (0 control, 1 treatment) by its hash. O(log of those remembered).
    pub fn see(&mut self, arm: usize, hash: u64) {
        if hash.leading_zeros() < self.level {
            return;
        }
        if let Some(seen) = self.arms.get_mut(arm) {
            seen.insert(hash);
        }
        while self.arms.iter().map(BTreeSet::len).sum::<usize>() > KEPT {
            self.level += 1;
            for seen in &mut self.arms {
                seen.retain(|hash| hash.leading_zeros() >= self.level);
            }
        }
    }

    /// The sample beside `control_share`, the share that control should have. Valid at any time and
    /// however often it is asked: an e-value a level, and the error rate split over levels.
    #[must_use]
    pub fn ratio(&self, control_share: f64) -> SampleRatio {
        let [control, treatment] = self.arms.each_ref().map(|seen| seen.len() as u64);
        let levels = f64::from(self.level + 1) * f64::from(self.level + 2);
        SampleRatio {
            control,
            treatment,
            log_e: log_evidence([control, treatment], [control_share, 1.0 - control_share]),
            bound: (levels / ALPHA).ln(),
        }
    }
}

/// Bayes factor of a Dirichlet prior around `shares` against exactly those.
fn log_evidence(counts: [u64; 2], shares: [f64; 2]) -> f64 {
    let prior = PRIOR * 2.0;
    #[expect(clippy::cast_precision_loss, reason = "counts")]
    let counts = counts.map(|n| n as f64);
    let mut log_e = libm::lgamma(prior) - libm::lgamma(prior + counts[0] + counts[1]);
    for (n, share) in counts.into_iter().zip(shares) {
        let a = prior * share;
        log_e += libm::lgamma(a + n) - libm::lgamma(a) - n * share.ln();
    }
    log_e
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::hash64;

    /// The values of an independent implementation (`reference/experiments.md` 2.5).
    #[test]
    fn evidence_has_the_published_values() {
        for (counts, expected) in [([821_588, 815_482], 6.879_465), ([5_200, 4_800], 5.878_780)] {
            let got = log_evidence(counts, [0.5, 0.5]);
            assert!((got - expected).abs() < 1e-6, "{counts:?}: {got}");
        }
    }

    fn seen(units: u32, keep: impl Fn(usize, u64) -> bool) -> Units {
        let mut sample = Units::default();
        for unit in 0..units {
            let arm = usize::from(hash64(format!("E:r:1|u{unit}").as_bytes()) >> 63 == 1);
            let hash = hash64(format!("u{unit}").as_bytes());
            if keep(arm, hash) {
                // However often they come.
                for _ in 0..1 + unit % 3 {
                    sample.see(arm, hash);
                }
            }
        }
        sample
    }

    #[test]
    fn the_sample_is_bounded_and_does_not_depend_on_its_history() {
        let sample = seen(100_000, |_, _| true);
        let kept: usize = sample.arms.iter().map(BTreeSet::len).sum();
        assert!((KEPT / 3..=KEPT).contains(&kept), "{kept}");
        assert_eq!(sample.level, 4);
        let mut backwards = Units::default();
        for unit in (0..100_000).rev() {
            let arm = usize::from(hash64(format!("E:r:1|u{unit}").as_bytes()) >> 63 == 1);
            backwards.see(arm, hash64(format!("u{unit}").as_bytes()));
        }
        assert_eq!(sample, backwards);
        let text = serde_json::to_string(&sample).expect("serialises");
        assert_eq!(serde_json::from_str::<Units>(&text).expect("reads"), sample);
    }

    #[test]
    fn lost_units_of_one_arm_are_found_and_all_of_them_are_not() {
        assert!(!seen(100_000, |_, _| true).ratio(0.5).is_off());
        assert!(!seen(20, |_, _| true).ratio(0.5).is_off());
        // A fifth of treatment never arrives; the hash says who, in bits that the sample does not use.
        let lossy = seen(20_000, |arm, hash| arm == 0 || hash % 5 > 0);
        let ratio = lossy.ratio(0.5);
        assert!(ratio.is_off(), "{ratio:?}");
        // The same counts are right where the weights say so.
        assert!(!lossy.ratio(5.0 / 9.0).is_off());
    }

    /// Looked at after every 50 units, 200 sound rollouts of 3,000 to 30,000 units: none is off.
    #[test]
    fn sound_arms_are_not_off_however_often_they_are_looked_at() {
        let mut off = 0;
        for run in 0..200_u32 {
            let mut sample = Units::default();
            let mut ever = false;
            for unit in 0..if run < 20 { 30_000 } else { 3_000 } {
                let key = format!("{run}:{unit}");
                let arm = usize::from(hash64(format!("E:r:1|{key}").as_bytes()) >> 63 == 1);
                sample.see(arm, hash64(key.as_bytes()));
                ever |= unit % 50 == 0 && sample.ratio(0.5).is_off();
            }
            off += u32::from(ever);
        }
        // One is expected in five such tests.
        assert!(off <= 2, "{off}");
    }
}
