//! How much one event of each kind says: configuration.

use serde::{Deserialize, Serialize};

use crate::event::EventKind;

/// Largest magnitude of a weight.
pub const MAX_WEIGHT: f64 = 1_000.0;

/// Signed strength of one event of each kind, before rules.
///
/// Positive is evidence for an item, negative against it, 0 ignores the kind; fold-in turns the sum
/// per item into a confidence. `play`, `complete`, `like` and `save` are 0 to [`MAX_WEIGHT`], `skip`
/// and `hide` -[`MAX_WEIGHT`] to 0. An unlike has no weight: it cancels likes.
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
            return Err(InvalidWeight {
                kind,
                weight,
                min,
                max,
            });
        }
        *slot = weight;
        Ok(self)
    }
}

/// A weight that makes no sense for its kind.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[error("{kind}: weight {weight} is outside {min} to {max}")]
pub struct InvalidWeight {
    /// The kind.
    pub kind: EventKind,
    /// The weight.
    pub weight: f64,
    /// The smallest allowed.
    pub min: f64,
    /// The largest allowed.
    pub max: f64,
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
            })
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
    fn bad_weights_are_refused_by_name() {
        for (text, complaint) in [
            (r#"{"play": -1}"#, "play: weight -1 is outside 0 to 1000"),
            (r#"{"hide": 1}"#, "hide: weight 1 is outside -1000 to 0"),
            (r#"{"like": 1e9}"#, "like: weight 1000000000 is outside"),
            (r#"{"unlike": 0}"#, "unknown field `unlike`"),
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
