//! Hyper-parameters: what they mean, which values they may take, and their defaults.

use crate::interactions::{Interactions, Meaning};
use serde::{Deserialize, Serialize};

/// Largest rank accepted: a row's normal equations then take 1 MiB, and stay in the cache.
pub const MAX_RANK: usize = 512;

/// Largest number of iterations accepted.
const MAX_ITERATIONS: usize = 1_000;

/// How a strength (play count, summed event weight) becomes a confidence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Confidence {
    /// `c(r) = α r`: a tenth listen counts as much as the first.
    Linear,
    /// `c(r) = α ln(1 + r)`: listens count, but the thousandth hardly.
    Log,
}

/// Hyper-parameters of [`train`](crate::train()) and [`FoldIn`](crate::FoldIn). The symbols are
/// those of the crate's documentation.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hyper {
    /// Number of latent dimensions `d`, 1 to [`MAX_RANK`].
    pub rank: usize,
    /// Passes over items and users, 1 to 1,000.
    pub iterations: usize,
    /// Scale `α` of the confidence, finite and positive.
    pub alpha: f32,
    /// Shape of the confidence.
    pub confidence: Confidence,
    /// Weight `w0` of every pair, observed or not; finite, not negative.
    pub unobserved_weight: f32,
    /// Regularisation `λ`, finite and positive: what makes every system positive definite.
    pub regularization: f32,
    /// Exponent `ν` of the frequency scaling, 0 to 2: 0 regularises every row alike, 1 in
    /// proportion to its number of observations.
    pub frequency_exponent: f32,
    /// Seed of the initial user factors.
    pub seed: u64,
}

/// A compromise, by a coarse search over some twenty settings: Recall@20 and NDCG@20 on random hold-outs
/// of two Last.fm play-count logs and on the validation part of a log of check-ins, confidences
/// [scaled](Hyper::scaled_to) to a mean of 1. Each log alone has a better setting.
///
/// So are the iterations: of the three logs the check-ins are best after 5 (Recall@20 0.151, 0.149 after
/// 10), one Last.fm log does not care, and the other still gains (0.285 after 4, 0.296 after 6, 0.300
/// after 10, likewise for other seeds).
impl Default for Hyper {
    fn default() -> Self {
        Self {
            rank: 64,
            iterations: 10,
            alpha: 1.0,
            confidence: Confidence::Log,
            unobserved_weight: 0.01,
            regularization: 0.15,
            frequency_exponent: 0.5,
            seed: 42,
        }
    }
}

/// A hyper-parameter out of its range.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[error("{field} is {value}, but must be {expected}")]
#[non_exhaustive]
pub struct HyperError {
    /// Name of the field of [`Hyper`].
    pub field: &'static str,
    /// Its value.
    pub value: f64,
    /// The range in words.
    pub expected: &'static str,
}

impl Hyper {
    /// Checks every field against its range.
    ///
    /// # Errors
    /// The first field that is out of range, in the order of declaration.
    pub fn validate(&self) -> Result<(), HyperError> {
        let check = |ok: bool, field, value: f64, expected| {
            if ok {
                Ok(())
            } else {
                Err(HyperError {
                    field,
                    value,
                    expected,
                })
            }
        };
        check(
            (1..=MAX_RANK).contains(&self.rank),
            "rank",
            self.rank as f64,
            "from 1 to 512",
        )?;
        check(
            (1..=MAX_ITERATIONS).contains(&self.iterations),
            "iterations",
            self.iterations as f64,
            "from 1 to 1000",
        )?;
        let positive = |x: f32| x.is_finite() && x > 0.0;
        check(
            positive(self.alpha),
            "alpha",
            self.alpha.into(),
            "finite and positive",
        )?;
        check(
            self.unobserved_weight.is_finite() && self.unobserved_weight >= 0.0,
            "unobserved_weight",
            self.unobserved_weight.into(),
            "finite and not negative",
        )?;
        check(
            positive(self.regularization),
            "regularization",
            self.regularization.into(),
            "finite and positive",
        )?;
        check(
            (0.0..=2.0).contains(&self.frequency_exponent),
            "frequency_exponent",
            self.frequency_exponent.into(),
            "from 0 to 2",
        )
    }

    /// The same with `alpha` divided by what makes [`Hyper::alpha`] the mean confidence of `data`.
    ///
    /// Play counts of one log are in the thousands and of another always 1. Scaled, one choice of
    /// `unobserved_weight` and `regularization` means the same on both. Fold-in needs the scaled
    /// values: keep what this returns with the factors. Without interactions nothing changes.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "rounding to f32 is the point"
    )]
    pub fn scaled_to(&self, data: &Interactions) -> Self {
        let unit = Self {
            alpha: 1.0,
            ..*self
        };
        let meaning = Meaning::new(data, &unit);
        let confidences = meaning.of(data);
        let sum: f64 = (0..data.users())
            .flat_map(|user| confidences.row(user).1)
            .map(f64::from)
            .sum();
        if data.is_empty() || sum <= 0.0 {
            return *self;
        }
        Self {
            alpha: (f64::from(self.alpha) * data.len() as f64 / sum) as f32,
            ..*self
        }
    }

    /// Confidence `c` of a strength of at least 0.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "rounding to f32 is the point"
    )]
    pub fn confidence(&self, strength: f32) -> f32 {
        match self.confidence {
            Confidence::Linear => self.alpha * strength,
            // In double precision, so that the rounding of a platform's logarithm does not show.
            Confidence::Log => self.alpha * f64::from(strength).ln_1p() as f32,
        }
    }

    /// Regularisation `λ (n + w0 m)^ν` of a row with `observed` observations among `others` rows of
    /// the other side.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "rounding to f32 is the point"
    )]
    pub(crate) fn ridge(&self, observed: usize, others: usize) -> f32 {
        let frequency = observed as f64 + f64::from(self.unobserved_weight) * others as f64;
        let scale = frequency.powf(f64::from(self.frequency_exponent));
        (f64::from(self.regularization) * scale) as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_field_that_is_out_of_range() {
        type Spoil = fn(&mut Hyper);
        let cases: [(&str, Spoil); 12] = [
            ("rank", |h| h.rank = 0),
            ("rank", |h| h.rank = 513),
            ("iterations", |h| h.iterations = 0),
            ("iterations", |h| h.iterations = 1001),
            ("alpha", |h| h.alpha = 0.0),
            ("alpha", |h| h.alpha = f32::NAN),
            ("unobserved_weight", |h| h.unobserved_weight = -0.1),
            ("unobserved_weight", |h| h.unobserved_weight = f32::INFINITY),
            ("regularization", |h| h.regularization = 0.0),
            ("regularization", |h| h.regularization = f32::INFINITY),
            ("frequency_exponent", |h| h.frequency_exponent = 2.5),
            ("frequency_exponent", |h| h.frequency_exponent = f32::NAN),
        ];
        for (field, spoil) in cases {
            let mut hyper = Hyper::default();
            spoil(&mut hyper);
            assert_eq!(hyper.validate().unwrap_err().field, field);
        }
        Hyper::default().validate().unwrap();
    }

    #[test]
    fn scaled_confidences_have_the_stated_mean() {
        let triplets = vec![(0, 0, 1.0), (0, 1, 300.0), (1, 1, 22_244.0)];
        let data = Interactions::from_triplets(2, 2, triplets).unwrap();
        for confidence in [Confidence::Linear, Confidence::Log] {
            let hyper = Hyper {
                alpha: 2.5,
                confidence,
                ..Hyper::default()
            }
            .scaled_to(&data);
            let mean = [1.0, 300.0, 22_244.0]
                .map(|r| hyper.confidence(r))
                .iter()
                .sum::<f32>()
                / 3.0;
            assert!((mean - 2.5).abs() < 1e-5, "{mean}");
        }
        let empty = Interactions::from_triplets(2, 2, vec![]).unwrap();
        assert_eq!(Hyper::default().scaled_to(&empty), Hyper::default());
    }

    #[test]
    fn survives_json_and_refuses_what_it_does_not_know() {
        let hyper = Hyper {
            confidence: Confidence::Linear,
            ..Hyper::default()
        };
        let json = serde_json::to_string(&hyper).unwrap();
        assert_eq!(serde_json::from_str::<Hyper>(&json).unwrap(), hyper);
        let extended = json.replacen('{', "{\"momentum\":1,", 1);
        assert!(serde_json::from_str::<Hyper>(&extended).is_err());
    }
}
