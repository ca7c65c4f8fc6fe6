//! The numbers about a candidate that a variant's score names, from the version and the listener.

use std::cell::Cell;

use refrain_ranking::{
    Candidate, Column, Feature, Reranker, Variant, freshness, novelty, popularity,
};
use rustc_hash::FxHashMap;

use crate::answer::{Absence, Missing};
use crate::version::Version;

/// Computes features for one request. O(evidence) to make, O(1) a feature.
pub(crate) struct Features<'a> {
    version: &'a Version,
    now_us: i64,
    half_life_days: f64,
    /// Of the variant: what similarities have popularity taken out of them by.
    debias: f64,
    most_popular: f32,
    artists: Affinity,
    scenes: Affinity,
    /// One bit a feature that any candidate has had.
    present: Cell<u32>,
}

impl<'a> Features<'a> {
    /// `evidence`: what the listener is known to like and not to, by ordinal.
    pub(crate) fn new(
        version: &'a Version,
        variant: &Variant,
        evidence: &[(u32, f32)],
        now_us: i64,
    ) -> Self {
        let named = |feature| variant.needs(feature);
        let items = version.items();
        let affinity = |wanted: bool, group: &dyn Fn(u32) -> Option<u32>| {
            if wanted {
                Affinity::new(evidence, group)
            } else {
                Affinity::default()
            }
        };
        Self {
            version,
            now_us,
            half_life_days: variant.freshness_half_life_days,
            debias: variant.debias,
            most_popular: items.max_popularity(),
            artists: affinity(named(Feature::ArtistAffinity), &|item| items.artist(item)),
            scenes: affinity(named(Feature::SceneMatch), &|item| version.scene(item)),
            present: Cell::new(0),
        }
    }

    /// Whether the score needs the artists of candidates.
    pub(crate) fn by_artist(variant: &Variant) -> bool {
        variant.needs(Feature::ArtistAffinity)
    }

    /// Whether the score needs the scenes of candidates.
    pub(crate) fn by_scene(variant: &Variant) -> bool {
        variant.needs(Feature::SceneMatch)
    }

    /// The value for a candidate; 0 where it has none.
    pub(crate) fn of(&self, feature: Feature, candidate: &Candidate) -> f32 {
        match self.known(feature, candidate) {
            Some(value) => {
                self.present.set(self.present.get() | bit(feature));
                value
            }
            None => 0.0,
        }
    }

    /// Asks the variant's model about candidates, all at once.
    pub(crate) fn ask(&self, reranker: &Reranker, candidates: &mut [Candidate]) {
        let Some(loaded) = &reranker.loaded else {
            return;
        };
        let mut rows = Vec::with_capacity(candidates.len() * reranker.features.len());
        for candidate in &*candidates {
            let values = reranker.features.iter();
            rows.extend(values.map(|&feature| self.of(feature, candidate)));
        }
        let mut values = Vec::with_capacity(candidates.len());
        loaded.model.predict(&rows, &mut values);
        for (candidate, value) in candidates.iter_mut().zip(values) {
            candidate.model = Some(value);
        }
    }

    fn known(&self, feature: Feature, candidate: &Candidate) -> Option<f32> {
        let items = self.version.items();
        let ordinal = candidate.ordinal;
        match feature {
            Feature::Similarity => Some(candidate.similarity),
            Feature::Popularity => (self.most_popular > 0.0)
                .then(|| popularity(items.popularity(ordinal), self.most_popular)),
            Feature::Novelty => {
                let listeners = self.version.manifest().users;
                (listeners > 1).then(|| novelty(items.popularity(ordinal), listeners))
            }
            Feature::Freshness => items.release_time(ordinal).map(|released_s| {
                let age_days = (self.now_us as f64 / 1e6 - released_s as f64) / DAY_S;
                freshness(age_days, self.half_life_days)
            }),
            Feature::ArtistAffinity => self.artists.of(candidate.artist),
            Feature::SceneMatch => self.scenes.of(candidate.scene),
            // Calibrated on inner products as they are.
            Feature::Confidence => {
                let similarity = candidate.similarity;
                let plain = self.version.undebiased(ordinal, similarity, self.debias);
                self.version.confidence(plain)
            }
            #[expect(
                clippy::cast_precision_loss,
                clippy::cast_possible_truncation,
                reason = "a score needs no more than f32"
            )]
            Feature::Item(column) => match column {
                Column::DurationMs => items.duration_ms(ordinal).map(|ms| ms as f32),
                Column::Listeners => (self.most_popular > 0.0).then(|| items.popularity(ordinal)),
                Column::ReleaseDay => items
                    .release_time(ordinal)
                    .map(|released_s| (released_s as f64 / DAY_S) as f32),
                _ => None,
            },
            Feature::Model => candidate.model,
            // A feature that this engine does not know is missing in every version.
            _ => None,
        }
    }

    /// The features that the variant needs and no candidate has had.
    pub(crate) fn missing(&self, variant: &Variant) -> Vec<Missing> {
        Feature::ALL
            .into_iter()
            .filter(|&feature| variant.needs(feature))
            .filter(|&feature| self.present.get() & bit(feature) == 0)
            .map(|feature| Missing {
                feature,
                absence: match feature {
                    Feature::ArtistAffinity if self.version.items().artists() > 0 => {
                        Absence::Listener
                    }
                    Feature::SceneMatch if self.version.has_scenes() => Absence::Listener,
                    Feature::Model => Absence::Model,
                    _ => Absence::Version,
                },
            })
            .collect()
    }
}

const DAY_S: f64 = 86_400.0;

fn bit(feature: Feature) -> u32 {
    let at = Feature::ALL.iter().position(|&other| other == feature);
    at.map_or(0, |at| 1 << at)
}

/// How much of the positive evidence is for each group of items, as a share of the largest.
#[derive(Default)]
struct Affinity {
    strengths: FxHashMap<u32, f64>,
    most: f64,
}

impl Affinity {
    fn new(evidence: &[(u32, f32)], group: &dyn Fn(u32) -> Option<u32>) -> Self {
        let mut strengths: FxHashMap<u32, f64> = FxHashMap::default();
        for &(item, strength) in evidence.iter().filter(|(_, strength)| *strength > 0.0) {
            if let Some(group) = group(item) {
                *strengths.entry(group).or_insert(0.0) += f64::from(strength);
            }
        }
        let most = strengths.values().copied().fold(0.0, f64::max);
        Self { strengths, most }
    }

    fn of(&self, group: Option<u32>) -> Option<f32> {
        if self.strengths.is_empty() {
            return None;
        }
        let strength = self.strengths.get(&group?).copied().unwrap_or(0.0);
        #[expect(clippy::cast_possible_truncation, reason = "0 to 1")]
        let share = (strength / self.most) as f32;
        Some(share)
    }
}
