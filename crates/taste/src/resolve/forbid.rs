//! SERVE: the set of items that rules forbid to show.

use std::collections::{HashMap, HashSet};

use super::ruling::{Age, Rulings, newest};
use super::{Catalogue, EventDecision};
use crate::event::Event;
use crate::profile::Profile;
use crate::rule::Action;

/// Items that must not be shown, by ordinal.
///
/// Scopes are compiled from the least to the most specific, within a scope from the oldest to the
/// newest rule: an exclusion puts items in, an inclusion takes them out, the last word stays.
pub(super) fn forbidden(
    profile: &Profile,
    now_us: i64,
    catalogue: &dyn Catalogue,
    decisions: &[EventDecision],
) -> Vec<u32> {
    let rules = &profile.rules;
    let rulings = Rulings::new(rules, |rule| rule.in_force(now_us) && rule.effect.serves());
    if rulings.is_empty() {
        return Vec::new();
    }
    let mut set = OrdinalSet::new(catalogue.items());
    let mut apply = |age: Age, ordinal: u32| {
        // Validated rules of effect SERVE have strength 1; of those that nobody validated, one that
        // leaves anything at all is taken at its word: excluded.
        let rule = &rules[rulings.rule(age)];
        match rule.action {
            Action::Exclude if rule.keeps() < 1.0 => set.insert(ordinal),
            Action::Exclude | Action::Include => set.remove(ordinal),
        }
    };
    let of_events = |age_of: &dyn Fn(&Event) -> Option<Age>| {
        let mut hits: Vec<(Age, u32)> = profile
            .events
            .iter()
            .zip(decisions)
            .filter_map(|(event, decision)| Some((age_of(event)?, decision.ordinal?)))
            .collect();
        hits.sort_unstable();
        hits.dedup();
        hits
    };

    if !rulings.windows.is_empty() {
        for (age, ordinal) in of_events(&|event| rulings.windows.at(event.time_us)) {
            apply(age, ordinal);
        }
    }
    for (tag, age) in oldest_first(&rulings.tags) {
        catalogue.for_each_with_tag(tag, &mut |ordinal| apply(age, ordinal));
    }
    for (artist, age) in oldest_first(&rulings.artists) {
        catalogue.for_each_of_artist(artist, &mut |ordinal| apply(age, ordinal));
    }
    if !rulings.sessions.is_empty() {
        let session = |event: &Event| newest(&rulings.sessions, event.session.as_deref());
        for (age, ordinal) in of_events(&session) {
            apply(age, ordinal);
        }
    }
    if !rulings.contexts.is_empty() {
        let context = |event: &Event| newest(&rulings.contexts, event.context.as_deref());
        for (age, ordinal) in of_events(&context) {
            apply(age, ordinal);
        }
    }
    for (item, age) in oldest_first(&rulings.items) {
        if let Some(ordinal) = catalogue.ordinal(item) {
            apply(age, ordinal);
        }
    }
    set.into_sorted()
}

fn oldest_first<'a>(ages: &HashMap<&'a str, Age>) -> Vec<(&'a str, Age)> {
    let mut values: Vec<_> = ages.iter().map(|(&value, &age)| (value, age)).collect();
    values.sort_unstable_by_key(|&(_, age)| age);
    values
}

/// A set of ordinals: hashed while small, a bitmap once that is smaller and faster.
enum OrdinalSet {
    Sparse {
        set: HashSet<u32>,
        most: usize,
        items: u32,
    },
    Dense {
        words: Vec<u64>,
    },
}

impl OrdinalSet {
    fn new(items: u32) -> Self {
        // A hashed ordinal takes some 8 bytes: past a 64th of the items the bitmap is smaller.
        let most = (items / 64).max(64) as usize;
        Self::Sparse {
            set: HashSet::new(),
            most,
            items,
        }
    }

    fn insert(&mut self, ordinal: u32) {
        match self {
            Self::Sparse { set, most, items } => {
                set.insert(ordinal);
                if set.len() > *most {
                    let mut words = vec![0; (*items as usize).div_ceil(64)];
                    for &ordinal in &*set {
                        write_bit(&mut words, ordinal, true);
                    }
                    *self = Self::Dense { words };
                }
            }
            Self::Dense { words } => write_bit(words, ordinal, true),
        }
    }

    fn remove(&mut self, ordinal: u32) {
        match self {
            Self::Sparse { set, .. } => {
                set.remove(&ordinal);
            }
            Self::Dense { words } => write_bit(words, ordinal, false),
        }
    }

    fn into_sorted(self) -> Vec<u32> {
        match self {
            Self::Sparse { set, .. } => {
                let mut ordinals: Vec<u32> = set.into_iter().collect();
                ordinals.sort_unstable();
                ordinals
            }
            Self::Dense { words } => {
                let mut ordinals = Vec::new();
                for (base, mut word) in (0u32..).step_by(64).zip(words) {
                    while word != 0 {
                        ordinals.push(base + word.trailing_zeros());
                        word &= word - 1;
                    }
                }
                ordinals
            }
        }
    }
}

/// Sets or clears a bit. An ordinal that the catalogue does not have is no item to forbid.
fn write_bit(words: &mut [u64], ordinal: u32, to: bool) {
    let bit = 1 << (ordinal % 64);
    if let Some(word) = words.get_mut(ordinal as usize / 64) {
        if to {
            *word |= bit;
        } else {
            *word &= !bit;
        }
    }
}
