//! SERVE: the set of items that rules forbid to show.

use super::ruling::{Age, ByText, Rulings, newest};
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
            Action::Exclude => set.write(ordinal, rule.keeps() < 1.0),
            Action::Include => set.write(ordinal, false),
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

/// The SERVE rule that decides on one item, as its position in the profile: the most specific scope,
/// then the newest. [`forbidden`] forbids the item when that is an exclusion. O(R log R + E).
pub(super) fn deciding_rule(
    profile: &Profile,
    now_us: i64,
    catalogue: &dyn Catalogue,
    item: &str,
) -> Option<usize> {
    let rulings = Rulings::new(&profile.rules, |rule| {
        rule.in_force(now_us) && rule.effect.serves()
    });
    let of_events = |age_of: &dyn Fn(&Event) -> Option<Age>| {
        let events = profile.events.iter().filter(|event| event.item == item);
        events.filter_map(age_of).max()
    };
    newest(&rulings.items, Some(item))
        .or_else(|| of_events(&|event| newest(&rulings.contexts, event.context.as_deref())))
        .or_else(|| of_events(&|event| newest(&rulings.sessions, event.session.as_deref())))
        .or_else(|| rulings.of_attributes(catalogue.ordinal(item)?, catalogue))
        .or_else(|| of_events(&|event| rulings.windows.at(event.time_us)))
        .map(|age| rulings.rule(age))
}

fn oldest_first<'a>(ages: &ByText<'a, Age>) -> Vec<(&'a str, Age)> {
    let mut values: Vec<_> = ages.iter().map(|(&value, &age)| (value, age)).collect();
    values.sort_unstable_by_key(|&(_, age)| age);
    values
}

/// A set of ordinals that is written often and read once, at the end.
enum OrdinalSet {
    /// Few writes: kept in order, the last one for an ordinal counts.
    Log {
        writes: Vec<(u32, bool)>,
        most: usize,
        items: u32,
    },
    /// Many: a bit an item.
    Bitmap { words: Vec<u64> },
}

impl OrdinalSet {
    fn new(items: u32) -> Self {
        // Sorting n writes and clearing and reading the bits of 1,024 n items take about as long.
        let most = (items / 1_024).max(64) as usize;
        Self::Log {
            writes: Vec::new(),
            most,
            items,
        }
    }

    fn write(&mut self, ordinal: u32, member: bool) {
        match self {
            Self::Bitmap { words } => write_bit(words, ordinal, member),
            Self::Log { writes, most, .. } if writes.len() < *most => {
                writes.push((ordinal, member));
            }
            Self::Log { writes, items, .. } => {
                let mut words = vec![0; (*items as usize).div_ceil(64)];
                for &(ordinal, member) in &*writes {
                    write_bit(&mut words, ordinal, member);
                }
                write_bit(&mut words, ordinal, member);
                *self = Self::Bitmap { words };
            }
        }
    }

    fn into_sorted(self) -> Vec<u32> {
        let mut ordinals = Vec::new();
        match self {
            Self::Log { mut writes, .. } => {
                // Stable: the writes of one ordinal stay in order.
                writes.sort_by_key(|&(ordinal, _)| ordinal);
                let last = writes
                    .chunk_by(|a, b| a.0 == b.0)
                    .filter_map(|same| same.last());
                ordinals.extend(
                    last.filter(|&&(_, member)| member)
                        .map(|&(ordinal, _)| ordinal),
                );
            }
            Self::Bitmap { words } => {
                for (base, mut word) in (0u32..).step_by(64).zip(words) {
                    while word != 0 {
                        ordinals.push(base + word.trailing_zeros());
                        word &= word - 1;
                    }
                }
            }
        }
        ordinals
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
