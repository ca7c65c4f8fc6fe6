//! The exclusion algebra: a profile's events and rules become a taste.
//!
//! Pure functions of the profile, the instant, the catalogue and the weights. Two independent
//! questions are answered by the same precedence (most specific scope, then newest):
//!
//! * LEARN, per event: how much of its weight remains. A strength-1 exclusion leaves none, and the
//!   event is skipped, not added as zero: the sums are those of a profile that never held it.
//! * SERVE, per item: whether it may be shown. An item takes part in a context, session or window
//!   when any of its events does.

mod forbid;
mod ruling;

use crate::event::{Event, EventKind};
use crate::profile::Profile;
use crate::weights::{DAY_US, Weights};
use refrain_als::MAX_STRENGTH;
use ruling::{ByText, Rulings};

/// What a version knows about items. Ordinals are dense, below [`items`](Self::items).
pub trait Catalogue {
    /// Number of items.
    fn items(&self) -> u32;
    /// Ordinal of an item, when the version has it.
    fn ordinal(&self, item: &str) -> Option<u32>;
    /// Artist of an item.
    fn artist_of(&self, ordinal: u32) -> Option<&str>;
    /// Calls `f` with every tag of an item.
    fn for_each_tag(&self, ordinal: u32, f: &mut dyn FnMut(&str));
    /// Calls `f` with every item of an artist.
    fn for_each_of_artist(&self, artist: &str, f: &mut dyn FnMut(u32));
    /// Calls `f` with every item that has a tag.
    fn for_each_with_tag(&self, tag: &str, f: &mut dyn FnMut(u32));
}

/// What a profile means to one version at one instant.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Taste {
    /// Signed strength per item, by ordinal: what fold-in solves for. Weights are summed in `f64` in
    /// canonical order of the events, rounded once and held within what fold-in accepts; items that
    /// sum to 0 are left out.
    pub evidence: Vec<(u32, f32)>,
    /// Items of all events, by ordinal, without repetition: what the listener has met already. A
    /// fact of the history, so LEARN rules do not change it.
    pub heard: Vec<u32>,
    /// Items that SERVE rules forbid to show, by ordinal, without repetition.
    pub forbidden: Vec<u32>,
    /// Events that shape the evidence.
    pub events_used: u32,
    /// Events that LEARN rules keep out entirely.
    pub events_excluded: u32,
    /// Events that would count, but whose item the version does not know.
    pub events_unknown: u32,
    /// When a rule in force expires next, or weights decay next, in microseconds of Unix time: a taste
    /// may be kept until then. Absent: for as long as the profile has this revision.
    pub valid_until_us: Option<i64>,
}

/// What the rules made of one event.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EventDecision {
    /// Signed weight with which the event shapes the evidence; 0 when it does not.
    pub weight: f64,
    /// Share of its weight that rules left, 0 to 1.
    pub kept: f64,
    /// The LEARN rule that decided, as its position in [`Profile::rules`].
    pub rule: Option<usize>,
    /// The item, when the version knows it.
    pub ordinal: Option<u32>,
}

impl EventDecision {
    /// Whether a rule keeps the event out entirely.
    pub fn is_excluded(&self) -> bool {
        self.kept == 0.0
    }
}

/// Turns a profile into a taste at an instant.
///
/// O(E log E + R log R) for E events and R rules, plus the items of artists and tags under SERVE
/// rules. The order of the profile's events and rules does not matter.
pub fn resolve(
    profile: &Profile,
    now_us: i64,
    catalogue: &dyn Catalogue,
    weights: &Weights,
) -> Taste {
    let order = canonical_order(&profile.events);
    let decisions = decide_in(&order, profile, now_us, catalogue, weights);

    let mut taste = Taste {
        forbidden: forbid::forbidden(profile, now_us, catalogue, &decisions),
        valid_until_us: valid_until(profile, now_us, weights),
        ..Taste::default()
    };
    taste.heard = decisions
        .iter()
        .filter_map(|decision| decision.ordinal)
        .collect();
    taste.heard.sort_unstable();
    taste.heard.dedup();

    let mut contributions = Vec::with_capacity(order.len());
    for &at in &order {
        let decision = &decisions[at];
        match decision.ordinal {
            _ if decision.is_excluded() => taste.events_excluded += 1,
            None => taste.events_unknown += 1,
            Some(ordinal) if decision.weight != 0.0 => {
                taste.events_used += 1;
                contributions.push((ordinal, decision.weight));
            }
            Some(_) => {}
        }
    }
    taste.evidence = sum_by_item(contributions);
    taste
}

/// Tells for every event of the profile, in the profile's order, what the LEARN rules made of it.
///
/// The weights are those that [`resolve`] sums.
pub fn decide(
    profile: &Profile,
    now_us: i64,
    catalogue: &dyn Catalogue,
    weights: &Weights,
) -> Vec<EventDecision> {
    decide_in(
        &canonical_order(&profile.events),
        profile,
        now_us,
        catalogue,
        weights,
    )
}

/// The SERVE rule that decides whether an item may be shown, as its position in [`Profile::rules`]: an
/// exclusion forbids it, a carve-out lets it pass. `None`: no rule in force covers it.
pub fn serving_rule(
    profile: &Profile,
    now_us: i64,
    catalogue: &dyn Catalogue,
    item: &str,
) -> Option<usize> {
    forbid::deciding_rule(profile, now_us, catalogue, item)
}

/// Positions of the events in canonical order. Linear for a profile from a store.
fn canonical_order(events: &[Event]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..events.len()).collect();
    order.sort_by(|&a, &b| events[a].cmp(&events[b]));
    order
}

fn decide_in(
    order: &[usize],
    profile: &Profile,
    now_us: i64,
    catalogue: &dyn Catalogue,
    weights: &Weights,
) -> Vec<EventDecision> {
    let rules = &profile.rules;
    let rulings = Rulings::new(rules, |rule| rule.in_force(now_us) && rule.effect.learns());
    let aging = weights.aging(now_us);
    let mut decisions: Vec<EventDecision> = profile
        .events
        .iter()
        .map(|event| {
            let ordinal = catalogue.ordinal(&event.item);
            let rule = rulings.of_event(event, ordinal, catalogue);
            let kept = rule.map_or(1.0, |rule| rules[rule].keeps());
            let known = if ordinal.is_some() { 1.0 } else { 0.0 };
            let weight = weights.of(event.kind)
                * f64::from(event.count)
                * kept
                * known
                * aging.keeps(event.kind, event.time_us);
            EventDecision {
                weight,
                kept,
                rule,
                ordinal,
            }
        })
        .collect();
    cancel_likes(order, &profile.events, &mut decisions);
    decisions
}

/// Takes the weight of likes that an unlike at or after their time cancels.
///
/// An unlike that rules keep to a share `k` leaves `1 - k` of the likes before it: none of them when
/// no rule touches it, all of them when it is excluded, as if it had never been.
fn cancel_likes(order: &[usize], events: &[Event], decisions: &mut [EventDecision]) {
    let mut left: ByText<'_, f64> = ByText::default();
    for moment in order
        .chunk_by(|&a, &b| events[a].time_us == events[b].time_us)
        .rev()
    {
        for &at in moment
            .iter()
            .filter(|&&at| events[at].kind == EventKind::Unlike)
        {
            *left.entry(&events[at].item).or_insert(1.0) *= 1.0 - decisions[at].kept;
        }
        if left.is_empty() {
            continue;
        }
        for &at in moment
            .iter()
            .filter(|&&at| events[at].kind == EventKind::Like)
        {
            if let Some(left) = left.get(events[at].item.as_str()) {
                decisions[at].weight *= left;
            }
        }
    }
}

/// Sums weights per item in the order given, in `f64`, and rounds once.
fn sum_by_item(mut contributions: Vec<(u32, f64)>) -> Vec<(u32, f32)> {
    // Stable: within an item the canonical order of the events remains.
    contributions.sort_by_key(|&(ordinal, _)| ordinal);
    contributions
        .chunk_by(|a, b| a.0 == b.0)
        .filter_map(|of_item| {
            let sum: f64 = of_item.iter().map(|&(_, weight)| weight).sum();
            #[expect(clippy::cast_possible_truncation, reason = "rounding to f32 is meant")]
            let strength = (sum as f32).clamp(-MAX_STRENGTH, MAX_STRENGTH);
            (strength != 0.0).then(|| (of_item[0].0, strength))
        })
        .collect()
}

/// When the next rule expires, or the day ends at which weights decay.
fn valid_until(profile: &Profile, now_us: i64, weights: &Weights) -> Option<i64> {
    let in_force = profile.rules.iter().filter(|rule| rule.in_force(now_us));
    let expiry = in_force.filter_map(|rule| rule.expire_time_us).min();
    let decays = weights.decay() && !profile.events.is_empty();
    let midnight = decays.then(|| (now_us.div_euclid(DAY_US) + 1).saturating_mul(DAY_US));
    expiry.into_iter().chain(midnight).min()
}
