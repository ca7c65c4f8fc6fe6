//! What comes back.

use refrain_index::SearchStats;
use refrain_taste::Taste;

/// Items, best first, and what there is to say about them.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct Answer {
    /// Best first; ties by ordinal.
    pub items: Vec<Scored>,
    /// Why the answer is less than it could be, each reason once.
    pub degraded: Vec<Degraded>,
    /// Seeds that the version does not know, in the order given.
    pub unresolved: Vec<String>,
    /// What was read of the listener, when a profile was.
    pub profile: Option<ProfileUse>,
    /// What the search spent.
    pub search: SearchStats,
}

impl Answer {
    pub(crate) fn degrade(&mut self, reason: Degraded) {
        if !self.degraded.contains(&reason) {
            self.degraded.push(reason);
        }
    }
}

/// One item of an answer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scored {
    /// The item.
    pub ordinal: u32,
    /// Score under the variant, finite; larger is better. From the popularity fallback: popularity,
    /// 0 to 1.
    pub score: f32,
    /// Similarity to the query under the metric of the index; 0 from the popularity fallback, which
    /// has no query.
    pub similarity: f32,
    /// Where it came from.
    pub source: Source,
}

/// Where an item came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Source {
    /// The nearest-neighbour graph.
    Ann,
    /// Exact search over the allowed items.
    Exact,
    /// The popularity fallback.
    Popular,
}

/// Why an answer is less than it could be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Degraded {
    /// The time budget ended the search early.
    TimeBudget,
    /// There was nothing to search with: answered by popularity.
    FallbackUsed,
    /// Fewer items than asked for are allowed, or were found in time.
    FewerThanAsked,
    /// No candidate has a feature that the variant names: it counted as 0.
    FeatureMissing,
}

/// What was read of a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProfileUse {
    /// Revision of the profile.
    pub revision: u64,
    /// Events that shaped the query.
    pub events_used: u32,
    /// Events that rules of effect LEARN kept out.
    pub events_excluded: u32,
    /// Events of items that the version does not know.
    pub events_unknown: u32,
    /// How much there is to go by.
    pub tier: Tier,
}

impl ProfileUse {
    /// `searchable`: the profile has a direction to search in.
    pub(crate) fn new(revision: u64, taste: &Taste, searchable: bool) -> Self {
        let tier = match taste.evidence.len() {
            _ if !searchable => Tier::Cold,
            0..3 => Tier::Warm,
            _ => Tier::Hot,
        };
        let Taste {
            events_used,
            events_excluded,
            events_unknown,
            ..
        } = *taste;
        Self {
            revision,
            events_used,
            events_excluded,
            events_unknown,
            tier,
        }
    }
}

/// How much of a profile there is to go by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Tier {
    /// Nothing counts, or only evidence against items: popularity answers.
    Cold,
    /// One or two different items count.
    Warm,
    /// Three or more different items count.
    Hot,
}
