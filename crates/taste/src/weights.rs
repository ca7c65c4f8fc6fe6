//! How much one event of each kind says, and for how long: configuration.

use serde::{Deserialize, Serialize};

use crate::event::EventKind;

/// Largest magnitude of a weight.
pub const MAX_WEIGHT: f64 = 1_000.0;

/// Shortest and longest half-life, in days; 0 stands for none.
pub const HALF_LIFE_DAYS: std::ops::RangeInclusive<f64> = 0.1..=100_000.0;

/// A day, in microseconds.
pub(crate) const DAY_US: i64 = 86_400_000_000;

/// Signed strength of one event of each kind, before rules.
///
/// Positive is evidence for an item, negative against it, 0 ignores the kind; fold-in turns the sum
/// per item into a confidence. `play`, `complete`, `like` and `save` are 0 to [`MAX_WEIGHT`], `skip`
/// and `hide` -[`MAX_WEIGHT`] to 0. An unlike has no weight: it cancels likes.
///
/// With a half-life, what an event says halves in so many days: `half_life_days` for what was listened to
/// (`play`, `complete`, `skip`), `explicit_half_life_days` for what was said (`like`, `save`, `hide`). Ages
/// are whole days of UTC, so that a taste changes at midnight and not with every look; an event from the
/// future is of today.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Table", into = "Table")]
pub struct Weights(Table);

impl Weights {
    /// Weight of one event of a kind.
    pub const fn of(&self, kind: EventKind) -> f64 {
        match kind {
            EventKind::Play => self.0.play,
            EventKind::Complete => self.0.complete,
            EventKind::Skip => self.0.skip,
            EventKind::Like => self.0.like,
            EventKind::Unlike => 0.0,
            EventKind::Save => self.0.save,
            EventKind::Hide => self.0.hide,
        }
    }

    /// The same weights but for one kind.
    ///
    /// # Errors
    /// The weight is not finite, beyond [`MAX_WEIGHT`], of the wrong sign for the kind, or not 0 for
    /// an unlike.
    pub fn with(mut self, kind: EventKind, weight: f64) -> Result<Self, InvalidWeight> {
        let mut unlike = 0.0;
        let slot = match kind {
            EventKind::Play => &mut self.0.play,
            EventKind::Complete => &mut self.0.complete,
            EventKind::Skip => &mut self.0.skip,
            EventKind::Like => &mut self.0.like,
            EventKind::Unlike => &mut unlike,
            EventKind::Save => &mut self.0.save,
            EventKind::Hide => &mut self.0.hide,
        };
        let (min, max) = match kind {
            EventKind::Play | EventKind::Complete | EventKind::Like | EventKind::Save => {
                (0.0, MAX_WEIGHT)
            }
            EventKind::Skip | EventKind::Hide => (-MAX_WEIGHT, 0.0),
            EventKind::Unlike => (0.0, 0.0),
        };
        if !(min..=max).contains(&weight) {
            return Err(InvalidWeight::Weight {
                kind,
                weight,
                min,
                max,
            });
        }
        *slot = weight;
        Ok(self)
    }

    /// The same with other half-lives in days, of listens and of what was said; 0: no decay.
    ///
    /// # Errors
    /// One is neither 0 nor within [`HALF_LIFE_DAYS`].
    pub fn with_half_lives(mut self, listens: f64, said: f64) -> Result<Self, InvalidWeight> {
        for (field, days) in [
            ("half_life_days", listens),
            ("explicit_half_life_days", said),
        ] {
            if days != 0.0 && !HALF_LIFE_DAYS.contains(&days) {
                return Err(InvalidWeight::HalfLife { field, days });
            }
        }
        self.0.half_life_days = listens;
        self.0.explicit_half_life_days = said;
        Ok(self)
    }

    /// Whether the same events weigh less tomorrow.
    pub fn decay(&self) -> bool {
        self.0.half_life_days != 0.0 || self.0.explicit_half_life_days != 0.0
    }

    /// What is left of an event's weight at an instant.
    pub(crate) fn aging(&self, now_us: i64) -> Aging {
        Aging {
            listens: daily(self.0.half_life_days),
            said: daily(self.0.explicit_half_life_days),
            today: now_us.div_euclid(DAY_US),
        }
    }
}

/// What one day leaves of a weight: `2^(-1 / half_life)`, to 40 bits, so that the last bits of a
/// platform's `exp2` do not show.
fn daily(half_life: f64) -> f64 {
    const UNIT: f64 = (1u64 << 40) as f64;
    match half_life {
        0.0 => 1.0,
        days => ((-days.recip()).exp2() * UNIT).round() / UNIT,
    }
}

/// The decay of weights as of one day.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Aging {
    listens: f64,
    said: f64,
    today: i64,
}

impl Aging {
    /// Share of its weight that an event keeps, 0 to 1. O(log age).
    pub(crate) fn keeps(&self, kind: EventKind, time_us: i64) -> f64 {
        let mut base = if kind.is_explicit() {
            self.said
        } else {
            self.listens
        };
        let mut days = (self.today - time_us.div_euclid(DAY_US)).max(0);
        let mut share = 1.0;
        if base == 1.0 {
            return share;
        }
        // By squaring, whose order of multiplications is fixed.
        while days > 0 && base > 0.0 {
            if days % 2 == 1 {
                share *= base;
            }
            base *= base;
            days /= 2;
        }
        if days > 0 { 0.0 } else { share }
    }
}

/// A weight that makes no sense for its kind, or a half-life that makes none.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum InvalidWeight {
    /// A weight out of its range.
    #[error("{kind}: weight {weight} is outside {min} to {max}")]
    Weight {
        /// The kind.
        kind: EventKind,
        /// The weight.
        weight: f64,
        /// The smallest allowed.
        min: f64,
        /// The largest allowed.
        max: f64,
    },
    /// A half-life out of its range.
    #[error("{field}: {days} days is neither 0 (no decay) nor 0.1 to 100000")]
    HalfLife {
        /// Which.
        field: &'static str,
        /// Its value.
        days: f64,
    },
}

/// The weights as they are written in a file; absent kinds keep their default.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Table {
    play: f64,
    complete: f64,
    skip: f64,
    like: f64,
    save: f64,
    hide: f64,
    half_life_days: f64,
    explicit_half_life_days: f64,
}

impl Default for Table {
    fn default() -> Self {
        // A play is the unit, so that imported play counts keep their meaning. What a listener says
        // outweighs a handful of listens; a skip is weak, many are not.
        Self {
            play: 1.0,
            complete: 1.5,
            skip: -0.5,
            like: 5.0,
            save: 4.0,
            hide: -5.0,
            half_life_days: 0.0,
            explicit_half_life_days: 0.0,
        }
    }
}

impl TryFrom<Table> for Weights {
    type Error = InvalidWeight;

    fn try_from(table: Table) -> Result<Self, InvalidWeight> {
        let written = Self(table);
        EventKind::ALL
            .into_iter()
            .try_fold(Self::default(), |weights, kind| {
                weights.with(kind, written.of(kind))
            })?
            .with_half_lives(table.half_life_days, table.explicit_half_life_days)
    }
}

impl From<Weights> for Table {
    fn from(weights: Weights) -> Self {
        weights.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_changes_only_what_it_names() {
        let weights: Weights = serde_json::from_str(r#"{"skip": -2, "like": 0}"#).unwrap();
        let expected = Weights::default()
            .with(EventKind::Skip, -2.0)
            .and_then(|w| w.with(EventKind::Like, 0.0))
            .unwrap();
        assert_eq!(weights, expected);
        let text = serde_json::to_string(&weights).unwrap();
        assert_eq!(serde_json::from_str::<Weights>(&text).unwrap(), weights);
    }

    #[test]
    fn a_half_life_halves() {
        let weights = Weights::default().with_half_lives(30.0, 0.0).unwrap();
        let aging = weights.aging(100 * DAY_US + 5);
        let keeps = |kind, day: i64| aging.keeps(kind, day * DAY_US);
        assert_eq!(keeps(EventKind::Play, 100), 1.0);
        assert_eq!(keeps(EventKind::Play, 101), 1.0, "from the future");
        assert!((keeps(EventKind::Skip, 70) - 0.5).abs() < 1e-9);
        assert!((keeps(EventKind::Complete, 10) - 0.125).abs() < 1e-9);
        assert_eq!(keeps(EventKind::Like, -100_000), 1.0);
        assert!(weights.decay() && !Weights::default().decay());
        let extreme = Weights::default().with_half_lives(0.1, 100_000.0).unwrap();
        let aging = extreme.aging(crate::MAX_TIME_US);
        assert_eq!(aging.keeps(EventKind::Play, crate::MIN_TIME_US), 0.0);
        assert!(aging.keeps(EventKind::Save, crate::MIN_TIME_US) > 0.0);
    }

    #[test]
    fn bad_weights_are_refused_by_name() {
        for (text, complaint) in [
            (r#"{"play": -1}"#, "play: weight -1 is outside 0 to 1000"),
            (r#"{"hide": 1}"#, "hide: weight 1 is outside -1000 to 0"),
            (r#"{"like": 1e9}"#, "like: weight 1000000000 is outside"),
            (r#"{"unlike": 0}"#, "unknown field `unlike`"),
            (
                r#"{"half_life_days": -1}"#,
                "half_life_days: -1 days is neither 0",
            ),
            (
                r#"{"explicit_half_life_days": 0.01}"#,
                "explicit_half_life_days: 0.01 days is neither 0",
            ),
        ] {
            let error = serde_json::from_str::<Weights>(text)
                .unwrap_err()
                .to_string();
            assert!(error.contains(complaint), "{text}: {error}");
        }
        for weight in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            for kind in EventKind::ALL {
                assert!(
                    Weights::default().with(kind, weight).is_err(),
                    "{kind} {weight}"
                );
            }
        }
    }
}
