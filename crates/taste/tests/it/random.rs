//! Random histories over few values, so that rules overlap, tie and contradict each other.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use refrain_taste::{Action, Effect, Event, EventKind, Profile, Rule, Scope, Weights};

/// Instant at which random profiles are resolved: among the expiry times.
pub(crate) const NOW: i64 = 6;

/// Items of the catalogue; histories name some beyond.
pub(crate) const ITEMS: u32 = 9;

pub(crate) fn kind() -> impl Strategy<Value = EventKind> {
    proptest::sample::select(&EventKind::ALL)
}

fn event() -> impl Strategy<Value = Event> {
    let name =
        |prefix: &'static str, count: u32| (0..count).prop_map(move |n| format!("{prefix}{n}"));
    (
        (-2..12i64, name("i", ITEMS + 2), kind(), 1..4u32),
        (
            option::of(0..300_000i64),
            option::of(name("c", 3)),
            option::of(name("s", 3)),
        ),
    )
        .prop_map(
            |((time_us, item, kind, count), (played_ms, context, session))| Event {
                event_id: String::new(),
                item,
                time_us,
                kind,
                played_ms,
                context,
                session,
                count,
            },
        )
}

/// Up to `most` events with different ids, in any order.
pub(crate) fn events(most: usize) -> impl Strategy<Value = Vec<Event>> {
    vec(event(), 0..=most)
        .prop_map(|mut events| {
            for (n, event) in events.iter_mut().enumerate() {
                event.event_id = format!("e{n}");
            }
            events
        })
        .prop_shuffle()
}

pub(crate) fn scope() -> impl Strategy<Value = Scope> {
    prop_oneof![
        (0..ITEMS + 2).prop_map(|n| Scope::Item(format!("i{n}"))),
        (0..3).prop_map(|n| Scope::Context(format!("c{n}"))),
        (0..3).prop_map(|n| Scope::Session(format!("s{n}"))),
        (0..4).prop_map(|n| Scope::Artist(format!("a{n}"))),
        (0..4).prop_map(|n| Scope::Tag(format!("t{n}"))),
        (option::of(-3..8i64), option::of(1..8i64)).prop_map(|(start_us, length)| Scope::Window {
            start_us,
            end_us: length.map(|length| start_us.unwrap_or(2) + length),
        }),
    ]
}

fn rule(graded: bool) -> impl Strategy<Value = Rule> {
    let effect = proptest::sample::select(&[Effect::Learn, Effect::Serve, Effect::Both]);
    // Sums of products of these with the default weights are exact, so that an oracle may add in
    // another order.
    let strength = proptest::sample::select(&[1.0f32, 0.0, 0.25, 0.5]);
    let expire = option::weighted(0.3, 1..12i64);
    (scope(), strength, effect, any::<bool>(), -3..3i64, expire).prop_map(
        move |(scope, strength, effect, include, create_time_us, expire_time_us)| {
            let action = if include {
                Action::Include
            } else {
                Action::Exclude
            };
            let partial = graded && !include && effect == Effect::Learn;
            Rule {
                rule_id: String::new(),
                scope,
                strength: if partial { strength } else { 1.0 },
                effect,
                action,
                create_time_us,
                expire_time_us: expire_time_us.map(|after| create_time_us + after),
                note: String::new(),
            }
        },
    )
}

/// Up to `most` valid rules with different ids, in any order; all of strength 1 unless `graded`.
pub(crate) fn rules(most: usize, graded: bool) -> impl Strategy<Value = Vec<Rule>> {
    vec(rule(graded), 0..=most)
        .prop_map(|mut rules| {
            for (n, rule) in rules.iter_mut().enumerate() {
                rule.rule_id = format!("r{n}");
            }
            rules
        })
        .prop_shuffle()
}

pub(crate) fn profile(graded: bool) -> impl Strategy<Value = Profile> {
    (events(40), rules(12, graded)).prop_map(|(events, rules)| Profile::new(1, events, rules))
}

/// Weights whose sums depend on the order of summation.
pub(crate) fn weights() -> impl Strategy<Value = Weights> {
    vec(0.001..1_000.0f64, EventKind::ALL.len()).prop_map(|values| {
        EventKind::ALL
            .into_iter()
            .zip(values)
            .fold(Weights::default(), |weights, (kind, value)| {
                let value = match kind {
                    EventKind::Skip | EventKind::Hide => -value,
                    EventKind::Unlike => 0.0,
                    _ => value,
                };
                weights.with(kind, value).unwrap()
            })
    })
}
