//! What a score means: a monotone map from similarity to the probability of a listen.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::corruption::{Corruption, Mismatch};

/// The calibration's file in a bundle; absent when nothing was held out to fit it on.
pub const CALIBRATION_FILE: &str = "calibration.json";

/// Longest file that is read.
const MAX_BYTES: u64 = 1 << 20;
/// Most knots of a map.
pub const MAX_KNOTS: usize = 4_096;

/// A monotone map from score to probability, linear between its knots and level outside of them, and how
/// far it can be trusted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calibration {
    /// How it was fitted: `isotonic` or `platt`.
    pub method: String,
    /// Of what the probability is, in words.
    pub event: String,
    /// Scores, strictly ascending, and the probability at each, not falling, 0 to 1.
    pub knots: Vec<(f32, f32)>,
    /// Listeners that it was fitted on, and others that it was judged by.
    pub users: (u64, u64),
    /// Expected calibration error on the latter: mean distance between what was said and what happened.
    pub ece: f64,
    /// The same when every score is taken to mean the overall rate.
    pub ece_of_rate: f64,
    /// Brier score on the latter.
    pub brier: f64,
    /// The reliability plot: mean stated probability, observed rate and number of pairs of each bin.
    pub reliability: Vec<(f64, f64, u64)>,
}

impl Calibration {
    /// The probability that a score stands for, 0 to 1. A score that is not a number means the least.
    #[must_use]
    pub fn confidence(&self, score: f32) -> f32 {
        let after = self.knots.partition_point(|knot| knot.0 <= score);
        let (Some(&first), Some(&last)) = (self.knots.first(), self.knots.last()) else {
            return 0.0;
        };
        if after == 0 {
            return first.1;
        }
        let (Some(&(x0, p0)), Some(&(x1, p1))) = (self.knots.get(after - 1), self.knots.get(after))
        else {
            return last.1;
        };
        p0 + (score - x0) / (x1 - x0) * (p1 - p0)
    }

    /// The map as the bytes of its file.
    ///
    /// # Errors
    /// It does not serialize.
    pub fn to_bytes(&self) -> serde_json::Result<Vec<u8>> {
        serde_json::to_vec_pretty(self)
    }

    /// Reads a map and checks it.
    ///
    /// # Errors
    /// [`Corruption`] when it is no map.
    pub fn read(path: &Path) -> Result<Self, Corruption> {
        use std::io::Read as _;
        let broken = |rule: &'static str, got: u64| Corruption {
            file: path.to_owned(),
            section: "calibration".into(),
            offset: 0,
            mismatch: Mismatch::Rule { rule, got },
        };
        let mut bytes = Vec::new();
        let read = fs_err::File::open(path)
            .and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes));
        if read.is_err() || bytes.len() as u64 > MAX_BYTES {
            return Err(broken(
                "a calibration is a file of at most 1 MiB",
                bytes.len() as u64,
            ));
        }
        let map: Self = serde_json::from_slice(&bytes).map_err(|error| {
            broken(
                "a calibration is JSON of known fields",
                error.column() as u64,
            )
        })?;
        match map.problem() {
            Some((rule, at)) => Err(broken(rule, at as u64)),
            None => Ok(map),
        }
    }

    /// The first knot that breaks a rule.
    fn problem(&self) -> Option<(&'static str, usize)> {
        if !(1..=MAX_KNOTS).contains(&self.knots.len()) {
            return Some(("a calibration has 1 to 4096 knots", self.knots.len()));
        }
        let bad = |knot: &(f32, f32)| !(knot.0.is_finite() && (0.0..=1.0).contains(&knot.1));
        if let Some(at) = self.knots.iter().position(bad) {
            return Some(("scores are finite and probabilities 0 to 1", at));
        }
        let falls = |pair: &[(f32, f32)]| !(pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1);
        let at = self.knots.windows(2).position(falls)?;
        Some(("scores ascend and probabilities do not fall", at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn map(knots: Vec<(f32, f32)>) -> Calibration {
        Calibration {
            method: "isotonic".into(),
            event: "a listen".into(),
            knots,
            users: (1, 1),
            ece: 0.0,
            ece_of_rate: 0.0,
            brier: 0.0,
            reliability: Vec::new(),
        }
    }

    #[test]
    fn is_linear_between_knots_and_level_outside() {
        let map = map(vec![(0.0, 0.1), (1.0, 0.2), (3.0, 0.6)]);
        for (score, expected) in [
            (-1.0, 0.1),
            (0.0, 0.1),
            (0.5, 0.15),
            (1.0, 0.2),
            (2.0, 0.4),
            (3.0, 0.6),
            (9.0, 0.6),
            (f32::NAN, 0.1),
        ] {
            let got = map.confidence(score);
            assert!((got - expected).abs() < 1e-6, "{score}: {got}");
        }
    }

    #[test]
    fn what_is_no_map_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(CALIBRATION_FILE);
        let read = |knots: Vec<(f32, f32)>| {
            fs_err::write(&path, map(knots).to_bytes().unwrap()).unwrap();
            Calibration::read(&path)
        };
        assert_eq!(read(vec![(0.0, 0.5)]).unwrap(), map(vec![(0.0, 0.5)]));
        for knots in [
            vec![],
            vec![(0.0, 1.5)],
            vec![(0.0, 0.5), (0.0, 0.6)],
            vec![(0.0, 0.5), (1.0, 0.4)],
        ] {
            let error = read(knots).unwrap_err().to_string();
            assert!(error.contains("calibration"), "{error}");
        }
        fs_err::write(&path, b"{").unwrap();
        assert!(Calibration::read(&path).is_err());
        assert!(Calibration::read(&dir.path().join("none")).is_err());
    }

    proptest! {
        #[test]
        fn never_falls_and_stays_a_probability(
            mut knots in prop::collection::vec((-1e6f32..1e6, 0.0f32..=1.0), 1..20),
            mut scores in prop::collection::vec(any::<f32>(), 2..20),
        ) {
            knots.sort_by(|a, b| a.0.total_cmp(&b.0));
            knots.dedup_by(|a, b| a.0 == b.0);
            let mut most = 0.0f32;
            for knot in &mut knots {
                most = most.max(knot.1);
                knot.1 = most;
            }
            let map = map(knots);
            prop_assert_eq!(map.problem(), None);
            scores.retain(|score| !score.is_nan());
            scores.sort_by(f32::total_cmp);
            let said: Vec<f32> = scores.iter().map(|&score| map.confidence(score)).collect();
            prop_assert!(said.iter().all(|p| (-1e-6..=1.000_001).contains(p)));
            prop_assert!(said.windows(2).all(|pair| pair[0] <= pair[1] + 1e-5), "{said:?}");
        }

        #[test]
        fn any_bytes_are_a_map_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join(CALIBRATION_FILE);
            fs_err::write(&path, bytes).unwrap();
            let _ = Calibration::read(&path);
        }
    }
}
