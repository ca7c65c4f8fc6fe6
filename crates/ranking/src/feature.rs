//! The facts about a candidate that a scoring expression may name.

use std::fmt;
use std::str::FromStr;

/// A named number about a candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Feature {
    /// Similarity to the query under the metric of the index: inner product, cosine in -1 to 1, or
    /// negated squared distance (at most 0).
    Similarity,
    /// How much the item is listened to, 0 to 1: see [`popularity`].
    Popularity,
    /// How new the item is, 0 to 1: see [`freshness`]. 0 where the release time is not known.
    Freshness,
    /// How much of the listener's evidence is for the item's artist, 0 to 1: that artist's positive
    /// evidence as a share of the strongest artist's.
    ArtistAffinity,
    /// How few listen to the item, 0 to 1: see [`novelty`].
    Novelty,
    /// Calibrated probability that the listener plays the item, 0 to 1.
    Confidence,
    /// How much of the listener's evidence lies in the item's scene, 0 to 1: that scene's positive
    /// evidence as a share of the strongest scene's.
    SceneMatch,
    /// A numeric column of the items, as stored.
    Item(Column),
    /// What the variant's model makes of the features that it is asked about.
    Model,
}

/// A numeric column of the items of a version. 0 where an item has no value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Column {
    /// How long it plays, in milliseconds.
    DurationMs,
    /// Distinct listeners in the training log.
    Listeners,
    /// When it was released, in days since 1970-01-01 UTC.
    ReleaseDay,
}

impl Feature {
    /// All features.
    pub const ALL: [Self; 11] = [
        Self::Similarity,
        Self::Popularity,
        Self::Freshness,
        Self::ArtistAffinity,
        Self::Novelty,
        Self::Confidence,
        Self::SceneMatch,
        Self::Item(Column::DurationMs),
        Self::Item(Column::Listeners),
        Self::Item(Column::ReleaseDay),
        Self::Model,
    ];

    /// Name in an expression.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Similarity => "similarity",
            Self::Popularity => "popularity",
            Self::Freshness => "freshness",
            Self::ArtistAffinity => "artist_affinity",
            Self::Novelty => "novelty",
            Self::Confidence => "confidence",
            Self::SceneMatch => "scene_match",
            Self::Item(Column::DurationMs) => "item.duration_ms",
            Self::Item(Column::Listeners) => "item.listeners",
            Self::Item(Column::ReleaseDay) => "item.release_day",
            Self::Model => "model",
        }
    }
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Feature {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        Self::ALL
            .into_iter()
            .find(|feature| feature.as_str() == name)
            .ok_or(())
    }
}

/// [`Feature::Popularity`] of an item with `listens` where the most popular item has
/// `most_listens`: `ln(1 + listens) / ln(1 + most_listens)`, 0 to 1. On a logarithmic scale because
/// listens follow a power law: linearly, all but a handful of items would be 0.
#[must_use]
pub fn popularity(listens: f32, most_listens: f32) -> f32 {
    let share = listens.max(0.0).ln_1p() / most_listens.max(0.0).ln_1p();
    if share.is_finite() {
        share.clamp(0.0, 1.0)
    } else {
        0.0
    }
}

/// [`Feature::Freshness`] of an item of an age: `2^(-age / half_life)`, 1 for an item that is not
/// out yet.
#[must_use]
#[expect(
    clippy::cast_possible_truncation,
    reason = "a score needs no more than f32"
)]
pub fn freshness(age_days: f64, half_life_days: f64) -> f32 {
    let share = (-age_days.max(0.0) / half_life_days).exp2();
    if share.is_finite() { share as f32 } else { 0.0 }
}

/// [`Feature::Novelty`] of an item with `listens` among `listeners` listeners: its self-information
/// `-log2(listens / listeners)` as a share of that of an item with one listen, 0 to 1 (Vargas and
/// Castells, "Rank and relevance in novelty and diversity metrics", 2011). An item that nobody has
/// listened to counts as one with one listen.
#[must_use]
pub fn novelty(listens: f32, listeners: u64) -> f32 {
    if listeners < 2 {
        return 0.0;
    }
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a score needs no more than f32"
    )]
    let share = 1.0 - (f64::from(listens.max(1.0)).ln() / (listeners as f64).ln()) as f32;
    if share.is_finite() {
        share.clamp(0.0, 1.0)
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn features_have_the_documented_values() {
        assert_eq!(popularity(0.0, 1000.0), 0.0);
        assert_eq!(popularity(1000.0, 1000.0), 1.0);
        assert!((popularity(30.622_776, 999.0) - 0.5).abs() < 1e-6);
        assert_eq!(popularity(0.0, 0.0), 0.0);
        assert_eq!(freshness(-3.0, 30.0), 1.0);
        assert_eq!(freshness(60.0, 30.0), 0.25);
        assert_eq!((novelty(0.0, 1024), novelty(1.0, 1024)), (1.0, 1.0));
        assert_eq!(novelty(32.0, 1024), 0.5);
        assert_eq!((novelty(1024.0, 1024), novelty(5000.0, 1024)), (0.0, 0.0));
        assert_eq!(novelty(3.0, 0), 0.0);
    }

    #[test]
    fn names_round_trip() {
        for feature in Feature::ALL {
            assert_eq!(feature.as_str().parse(), Ok(feature));
        }
    }

    proptest! {
        #[test]
        fn ranges_hold_for_any_input(a: f32, b: f32, age: f64, half_life: f64, n: u64) {
            prop_assert!((0.0..=1.0).contains(&novelty(a, n)));
            prop_assert!((0.0..=1.0).contains(&popularity(a, b)));
            prop_assert!((0.0..=1.0).contains(&freshness(age, half_life.abs())));
        }
    }
}
