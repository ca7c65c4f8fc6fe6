//! A listener's profile: their events and rules as of one revision.

use std::sync::Arc;

use quick_cache::Weighter;

use crate::event::Event;
use crate::rule::Rule;

/// A listener's events and rules as of one revision.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Profile {
    /// Grows by one with every write that changes something; 0 for a listener never written.
    pub revision: u64,
    /// In canonical order: time, then event id.
    pub events: Vec<Event>,
    /// Oldest first: creation time, then rule id.
    pub rules: Vec<Rule>,
}

impl Profile {
    /// A profile from events and rules in any order.
    pub fn new(revision: u64, mut events: Vec<Event>, mut rules: Vec<Rule>) -> Self {
        events.sort_unstable();
        rules.sort_by(|a, b| a.age_key().cmp(&b.age_key()));
        Self {
            revision,
            events,
            rules,
        }
    }

    /// Approximate bytes in memory, for the bound of a cache.
    pub(crate) fn bytes(&self) -> u64 {
        let text = |text: &Option<String>| text.as_ref().map_or(0, String::capacity);
        let events: usize = self
            .events
            .iter()
            .map(|e| {
                e.event_id.capacity() + e.item.capacity() + text(&e.context) + text(&e.session)
            })
            .sum();
        // A rule's scope text is bounded by the id limit; the note and id are what varies.
        let rules: usize = self
            .rules
            .iter()
            .map(|r| r.rule_id.capacity() + r.note.capacity() + 64)
            .sum();
        let fixed = size_of::<Self>()
            + self.events.capacity() * size_of::<Event>()
            + self.rules.capacity() * size_of::<Rule>();
        (fixed + events + rules) as u64
    }
}

/// Weighs cached profiles by their memory.
#[derive(Debug, Clone)]
pub(crate) struct ProfileBytes;

impl Weighter<String, Arc<Profile>> for ProfileBytes {
    fn weight(&self, user: &String, profile: &Arc<Profile>) -> u64 {
        profile.bytes() + user.len() as u64
    }
}
