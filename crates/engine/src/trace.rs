//! Why a list is as it is, and why two lists differ.

use refrain_ranking::{Candidate, Feature, RankScratch, Variant};
use rustc_hash::FxHashMap;

use crate::answer::{Answer, Source};
use crate::features::Features;
use crate::version::Version;

/// What ranking knew of every candidate, by score, best first.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct Trace {
    /// One for each candidate; its position is its rank by score alone.
    pub candidates: Vec<Traced>,
}

/// One candidate.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Traced {
    /// The item.
    pub ordinal: u32,
    /// Its score.
    pub score: f32,
    /// What each feature of the score does to it: the score less what it would be were that feature
    /// 0. For a sum these add up to the score but for its constant.
    pub contributions: Vec<(Feature, f32)>,
}

impl Trace {
    pub(crate) fn new(
        variant: &Variant,
        features: &Features<'_>,
        candidates: &[Candidate],
        ranked: &RankScratch,
    ) -> Self {
        let by_ordinal: FxHashMap<u32, &Candidate> = candidates
            .iter()
            .map(|candidate| (candidate.ordinal, candidate))
            .collect();
        let traced = |(ordinal, score): (u32, f32)| {
            let candidate = by_ordinal.get(&ordinal);
            let contributions = candidate.map_or_else(Vec::new, |candidate| {
                variant
                    .score
                    .contributions(&|feature| features.of(feature, candidate))
            });
            Traced {
                ordinal,
                score,
                contributions,
            }
        };
        Self {
            candidates: ranked.by_score().map(traced).collect(),
        }
    }
}

/// An item that two lists place differently.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Moved {
    /// The item.
    pub ordinal: u32,
    /// Its position in the first list, from 0; `None`: it is not there.
    pub from: Option<usize>,
    /// Its position in the second list, from 0; `None`: it is not there.
    pub to: Option<usize>,
    /// Why.
    pub why: Why,
}

/// Why an item moved.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Why {
    /// The scores put it there. The feature whose contribution changed most, and by how much.
    Score {
        /// The feature; `None`: no feature changed its contribution, others changed theirs.
        feature: Option<Feature>,
        /// Contribution to the second score less that to the first.
        change: f32,
    },
    /// A cap per artist kept it, or others, out.
    ArtistCap,
    /// A cap per scene kept it, or others, out.
    SceneCap,
    /// Spreading preferred what resembles the rest less.
    Spread,
    /// It was drawn, or lost a draw.
    Drawn,
    /// Only one of the two retrieved it.
    Retrieval,
    /// One of the two answered with its fallback.
    Fallback,
    /// Others moved.
    Others,
}

/// The items that two answers to one request place differently, in the order of the second list, then
/// those that left. Both must come from `version`, with their traces.
#[must_use]
pub fn moved(
    version: &Version,
    first: (&Answer, &Variant),
    second: (&Answer, &Variant),
) -> Vec<Moved> {
    let (a, b) = (Side::new(version, first), Side::new(version, second));
    let mut moves = Vec::new();
    let there = second.0.items.iter().map(|item| item.ordinal);
    let gone = first.0.items.iter().map(|item| item.ordinal);
    let gone = gone.filter(|ordinal| !b.places.contains_key(ordinal));
    for ordinal in there.chain(gone) {
        let (from, to) = (
            a.places.get(&ordinal).copied(),
            b.places.get(&ordinal).copied(),
        );
        if from != to {
            let why = why(&a, &b, ordinal, from, to);
            moves.push(Moved {
                ordinal,
                from,
                to,
                why,
            });
        }
    }
    moves
}

/// One answer, looked up by item.
struct Side<'a> {
    version: &'a Version,
    answer: &'a Answer,
    variant: &'a Variant,
    places: FxHashMap<u32, usize>,
    ranks: FxHashMap<u32, usize>,
}

impl<'a> Side<'a> {
    fn new(version: &'a Version, (answer, variant): (&'a Answer, &'a Variant)) -> Self {
        let numbered = |ordinals: &mut dyn Iterator<Item = u32>| {
            ordinals.enumerate().map(|(at, item)| (item, at)).collect()
        };
        let candidates = answer.trace.as_ref().map_or(&[][..], |t| &t.candidates);
        Self {
            version,
            answer,
            variant,
            places: numbered(&mut answer.items.iter().map(|item| item.ordinal)),
            ranks: numbered(&mut candidates.iter().map(|candidate| candidate.ordinal)),
        }
    }

    fn is_fallback(&self) -> bool {
        let first = self.answer.items.first();
        first.is_some_and(|item| matches!(item.source, Source::Popular | Source::Pinned))
    }

    /// What keeps an item from the place that its score gives it, or gives it another's.
    fn shaped(&self, ordinal: u32) -> Option<Why> {
        let at = self.places.get(&ordinal);
        if at.is_some_and(|&at| self.answer.items.get(at).is_some_and(|item| item.explored)) {
            return Some(Why::Drawn);
        }
        let full = |cap: Option<u32>, group: &dyn Fn(u32) -> Option<u32>| {
            let (Some(cap), Some(of)) = (cap, group(ordinal)) else {
                return false;
            };
            let in_group = |item: &&crate::answer::Scored| group(item.ordinal) == Some(of);
            self.answer.items.iter().filter(in_group).count() >= cap as usize
        };
        let caps = self.variant.caps;
        let capped = at.is_none();
        if capped && full(caps.artist, &|item| self.version.items().artist(item)) {
            return Some(Why::ArtistCap);
        }
        if capped && full(caps.scene, &|item| self.version.scene(item)) {
            return Some(Why::SceneCap);
        }
        if self.variant.exploration.is_some() {
            return Some(Why::Drawn);
        }
        if self.variant.mmr.is_some() {
            return Some(Why::Spread);
        }
        match (caps.artist, caps.scene) {
            (Some(_), _) => Some(Why::ArtistCap),
            (None, Some(_)) => Some(Why::SceneCap),
            (None, None) => None,
        }
    }
}

fn why(a: &Side<'_>, b: &Side<'_>, ordinal: u32, from: Option<usize>, to: Option<usize>) -> Why {
    if a.is_fallback() != b.is_fallback() {
        return Why::Fallback;
    }
    let (Some(&rank_a), Some(&rank_b)) = (a.ranks.get(&ordinal), b.ranks.get(&ordinal)) else {
        return Why::Retrieval;
    };
    // Where scores alone would have put it.
    let by_score =
        |rank: usize, side: &Side<'_>| Some(rank).filter(|&rank| rank < side.answer.items.len());
    if to != by_score(rank_b, b)
        && let Some(why) = b.shaped(ordinal)
    {
        return why;
    }
    if from != by_score(rank_a, a)
        && let Some(why) = a.shaped(ordinal)
    {
        return why;
    }
    if rank_a == rank_b {
        return Why::Others;
    }
    let contributions = |side: &Side<'_>, rank: usize| {
        let trace = side.answer.trace.as_ref();
        trace
            .and_then(|trace| trace.candidates.get(rank))
            .map_or_else(Vec::new, |candidate| candidate.contributions.clone())
    };
    let (before, after) = (contributions(a, rank_a), contributions(b, rank_b));
    let of = |list: &[(Feature, f32)], feature: Feature| {
        let found = list.iter().find(|(name, _)| *name == feature);
        found.map_or(0.0, |(_, value)| *value)
    };
    let features = Feature::ALL.into_iter();
    let changes = features.map(|feature| (feature, of(&after, feature) - of(&before, feature)));
    let most = changes
        .filter(|(_, change)| *change != 0.0)
        .max_by(|(_, x), (_, y)| x.abs().total_cmp(&y.abs()));
    Why::Score {
        feature: most.map(|(feature, _)| feature),
        change: most.map_or(0.0, |(_, change)| change),
    }
}
