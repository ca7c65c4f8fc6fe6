//! What comes back.

use refrain_index::SearchStats;
use refrain_ranking::{Feature, Team};
use refrain_taste::Taste;

use crate::trace::Trace;
use crate::version::Version;

/// Items in order, and what there is to say about them.
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
    /// Natural logarithm of the probability of the whole list. `None`: nothing was drawn, or the
    /// probability is not known.
    pub slate_logprob: Option<f64>,
    /// Features of the variant that no candidate had: they counted as 0.
    pub missing: Vec<Missing>,
    /// What ranking knew of every candidate, when the request asks for it.
    pub trace: Option<Trace>,
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
    /// Score under the variant, finite; larger is better. From the fallback: popularity, 0 to 1.
    pub score: f32,
    /// Similarity to the query under the metric of the index; 0 from the popularity fallback, which
    /// has no query.
    pub similarity: f32,
    /// Where it came from.
    pub source: Source,
    /// Probability with which this item stands in this place, given those before it. `None`: the
    /// place was not drawn.
    pub propensity: Option<f64>,
    /// The place was drawn, and the item is not the one that would have stood here otherwise.
    pub explored: bool,
    /// Whose item it is in an interleaved list. `None`: not interleaved, or both lists begin with it.
    pub team: Option<Team>,
}

impl Scored {
    /// In a place that was not drawn.
    pub(crate) fn new(ordinal: u32, score: f32, similarity: f32, source: Source) -> Self {
        Self {
            ordinal,
            score,
            similarity,
            source,
            propensity: None,
            explored: false,
            team: None,
        }
    }
}

/// A feature that the variant names and no candidate had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Missing {
    /// The feature.
    pub feature: Feature,
    /// Why.
    pub absence: Absence,
}

/// Why a feature is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Absence {
    /// The version carries nothing to compute it from.
    Version,
    /// Nothing is known of the listener, or the request is for no listener.
    Listener,
    /// Nobody has read the variant's model.
    Model,
}

/// Where an item came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Source {
    /// The nearest-neighbour graph.
    Ann,
    /// Exact search over the allowed items.
    Exact,
    /// A delta: the item is newer than the base, or changed since.
    Delta,
    /// The popularity fallback.
    Popular,
    /// The variant pinned it as a fallback.
    Pinned,
}

impl Source {
    /// A number for logs; never given to another source.
    #[must_use]
    pub fn as_u8(self) -> u8 {
        match self {
            Self::Ann => 1,
            Self::Exact => 2,
            Self::Popular => 3,
            Self::Pinned => 4,
            Self::Delta => 5,
        }
    }
}

impl Source {
    /// Where a search found an item.
    pub(crate) fn of(version: &Version, ordinal: u32, stats: SearchStats) -> Self {
        if version.is_of_delta(ordinal) {
            Self::Delta
        } else if stats.exact {
            Self::Exact
        } else {
            Self::Ann
        }
    }
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
    /// The profile store was away: answered from what was last read of the listener.
    ProfileUnavailable,
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
    /// Vectors that were searched with: one for each interest where the variant asks for several and the
    /// profile has them, else 1; 0 when there was nothing to search with.
    pub interests: u32,
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
            interests: u32::from(searchable),
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
