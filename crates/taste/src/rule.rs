//! Exclusion rules: what a listener takes out of their taste profile.

use crate::invalid::{InvalidField, Place, Problem};

/// Longest [`Rule::note`], in bytes.
pub const MAX_NOTE_BYTES: usize = 256;

/// What a rule covers.
///
/// Item, context, session and window are facts of an event. Artist and tag are attributes of its
/// item in the version that answers, so events of items that the version does not know are covered
/// by neither.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// One item.
    Item(String),
    /// One playlist, album or station.
    Context(String),
    /// One listening session.
    Session(String),
    /// All items of an artist.
    Artist(String),
    /// All items with a tag.
    Tag(String),
    /// A half-open window of event time; an absent bound is no bound.
    Window {
        /// First instant inside, in microseconds of Unix time.
        start_us: Option<i64>,
        /// First instant after.
        end_us: Option<i64>,
    },
}

impl Scope {
    /// Rank in precedence, 0 (window) to 5 (item): the most specific scope wins.
    pub const fn specificity(&self) -> u8 {
        match self {
            Self::Window { .. } => 0,
            Self::Tag(_) => 1,
            Self::Artist(_) => 2,
            Self::Session(_) => 3,
            Self::Context(_) => 4,
            Self::Item(_) => 5,
        }
    }
}

/// What a rule does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Effect {
    /// The covered events do not shape the profile ("exclude from your taste profile").
    Learn,
    /// The covered items are never shown. For a context, session or window: the items of the
    /// covered events.
    Serve,
    /// Both.
    Both,
}

impl Effect {
    /// Whether the rule decides what shapes the profile.
    pub const fn learns(self) -> bool {
        matches!(self, Self::Learn | Self::Both)
    }

    /// Whether the rule decides what is shown.
    pub const fn serves(self) -> bool {
        matches!(self, Self::Serve | Self::Both)
    }
}

/// Whether a rule excludes or carves out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// What the scope covers is excluded.
    Exclude,
    /// What the scope covers stays included, although a less specific or older rule excludes it.
    Include,
}

/// An exclusion, or a carve-out from one. Unique by `rule_id` within the listener.
///
/// Precedence: the most specific scope wins (item, context, session, artist, tag, window), then the
/// newest creation, then the greater id. Effects are decided separately: a rule of effect LEARN
/// never outranks one of effect SERVE.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// 1 to [`MAX_ID_BYTES`](crate::MAX_ID_BYTES) bytes.
    pub rule_id: String,
    /// What it covers.
    pub scope: Scope,
    /// How much, 0 (not at all) to 1 (entirely): covered events weigh `1 - strength` of what they
    /// would. Other than 1 only for action Exclude with effect Learn.
    pub strength: f32,
    /// What it does.
    pub effect: Effect,
    /// Whether it excludes or carves out.
    pub action: Action,
    /// When it was made, in microseconds of Unix time.
    pub create_time_us: i64,
    /// First instant at which it no longer holds. Absent: it holds until deleted.
    pub expire_time_us: Option<i64>,
    /// A word for people, at most [`MAX_NOTE_BYTES`] bytes.
    pub note: String,
}

impl Rule {
    /// Whether the rule holds at an instant.
    pub fn in_force(&self, now_us: i64) -> bool {
        self.expire_time_us
            .is_none_or(|expire_us| now_us < expire_us)
    }

    /// Share of a covered event's weight that remains, 0 to 1.
    pub(crate) fn keeps(&self) -> f64 {
        match self.action {
            Action::Exclude => 1.0 - f64::from(self.strength),
            Action::Include => 1.0,
        }
    }

    /// Canonical order: oldest first.
    pub(crate) fn age_key(&self) -> (i64, &str) {
        (self.create_time_us, &self.rule_id)
    }

    /// Whether a retry of a creation means the same rule: all but the creation time, which the
    /// server sets anew at every try.
    pub(crate) fn same_content(&self, other: &Self) -> bool {
        let Self {
            rule_id,
            scope,
            strength,
            effect,
            action,
            create_time_us: _,
            expire_time_us,
            note,
        } = self;
        *rule_id == other.rule_id
            && *scope == other.scope
            && strength.to_bits() == other.strength.to_bits()
            && *effect == other.effect
            && *action == other.action
            && *expire_time_us == other.expire_time_us
            && *note == other.note
    }

    /// Checks every field against its limits.
    ///
    /// # Errors
    /// The first field that is out of its limits.
    pub fn validate(&self) -> Result<(), InvalidField> {
        let place = Place::Rule;
        place.id("rule_id", &self.rule_id)?;
        match &self.scope {
            Scope::Item(id) => place.id("scope.item_id", id)?,
            Scope::Context(id) => place.id("scope.context", id)?,
            Scope::Session(id) => place.id("scope.session_id", id)?,
            Scope::Artist(id) => place.id("scope.artist", id)?,
            Scope::Tag(id) => place.id("scope.tag", id)?,
            Scope::Window { start_us, end_us } => {
                if let Some(start_us) = *start_us {
                    place.time("scope.window.start_time", start_us)?;
                }
                if let Some(end_us) = *end_us {
                    place.time("scope.window.end_time", end_us)?;
                }
                if let (Some(start_us), Some(end_us)) = (*start_us, *end_us)
                    && start_us >= end_us
                {
                    let problem = Problem::EmptyWindow { start_us, end_us };
                    return Err(place.error("scope.window", problem));
                }
            }
        }
        let value = self.strength;
        if !(0.0..=1.0).contains(&value) {
            return Err(place.error("strength", Problem::NotAStrength { value }));
        }
        let graded = self.action == Action::Exclude && self.effect == Effect::Learn;
        if !graded && value.to_bits() != 1.0f32.to_bits() {
            return Err(place.error("strength", Problem::MustBeOne { value }));
        }
        place.time("create_time", self.create_time_us)?;
        if let Some(expire_time_us) = self.expire_time_us {
            place.time("expire_time", expire_time_us)?;
            let create_time_us = self.create_time_us;
            if expire_time_us <= create_time_us {
                let problem = Problem::ExpiresBeforeCreation {
                    create_time_us,
                    expire_time_us,
                };
                return Err(place.error("expire_time", problem));
            }
        }
        place.at_most("note", &self.note, MAX_NOTE_BYTES)
    }
}
