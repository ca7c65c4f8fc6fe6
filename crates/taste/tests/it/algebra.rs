//! The algebra against a naive reading of its definition, and the identities it promises.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use refrain_taste::{
    Action, Catalogue, Event, EventKind, Profile, Rule, Scope, Taste, Weights, decide, resolve,
    serving_rule,
};

use crate::catalogue::{Small, tags_of};
use crate::random::{self, ITEMS, NOW};

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn resolves_as_the_definition_reads(profile in random::profile(true)) {
        let catalogue = Small::new(ITEMS);
        let weights = Weights::default();
        let oracle = Oracle { profile: &profile, catalogue: &catalogue };
        prop_assert_eq!(resolve(&profile, NOW, &catalogue, &weights), oracle.taste(&weights));
    }

    #[test]
    fn decides_as_the_definition_reads(profile in random::profile(true)) {
        let catalogue = Small::new(ITEMS);
        let oracle = Oracle { profile: &profile, catalogue: &catalogue };
        let decisions = decide(&profile, NOW, &catalogue, &Weights::default());
        for (event, decision) in profile.events.iter().zip(decisions) {
            let winner = decision.rule.map(|rule| &profile.rules[rule]);
            prop_assert_eq!(winner, oracle.learn_rule(event), "{:?}", event);
            prop_assert_eq!(decision.kept, oracle.kept(event));
            prop_assert_eq!(decision.weight, oracle.weight(event, &Weights::default()));
        }
    }

    #[test]
    fn the_rule_that_forbids_is_told(profile in random::profile(true)) {
        let catalogue = Small::new(ITEMS);
        let taste = resolve(&profile, NOW, &catalogue, &Weights::default());
        for ordinal in 0..ITEMS {
            let rule = serving_rule(&profile, NOW, &catalogue, &format!("i{ordinal}"));
            let rule = rule.map(|at| &profile.rules[at]);
            let forbids = rule.is_some_and(|rule| rule.action == Action::Exclude);
            prop_assert_eq!(forbids, taste.forbidden.contains(&ordinal), "{}: {:?}", ordinal, rule);
            prop_assert!(rule.is_none_or(|rule| rule.effect.serves() && rule.in_force(NOW)));
        }
    }

    #[test]
    fn order_of_arrival_does_not_matter(
        (profile, events, rules) in random::profile(true).prop_flat_map(|profile| {
            let (events, rules) = (profile.events.clone(), profile.rules.clone());
            (Just(profile), Just(events).prop_shuffle(), Just(rules).prop_shuffle())
        }),
        weights in random::weights(),
    ) {
        let catalogue = Small::new(ITEMS);
        let shuffled = Profile { revision: 1, events, rules };
        let expected = resolve(&profile, NOW, &catalogue, &weights);
        prop_assert!(same_bits(&resolve(&shuffled, NOW, &catalogue, &weights), &expected));

        let of = |profile: &Profile| -> BTreeMap<String, (u64, Option<String>)> {
            let decisions = decide(profile, NOW, &catalogue, &weights);
            let rule_id = |rule: Option<usize>| Some(profile.rules[rule?].rule_id.clone());
            profile.events.iter().zip(decisions).map(|(event, decision)| {
                (event.event_id.clone(), (decision.weight.to_bits(), rule_id(decision.rule)))
            }).collect()
        };
        prop_assert_eq!(of(&profile), of(&shuffled));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// The promise of the product: excluded is as if it had never been, bit for bit.
    #[test]
    fn excluded_events_might_as_well_never_have_been(
        profile in random::profile(false),
        weights in random::weights(),
    ) {
        let catalogue = Small::new(ITEMS);
        let with_rules = resolve(&profile, NOW, &catalogue, &weights);
        let decisions = decide(&profile, NOW, &catalogue, &weights);
        let remaining = profile.events.iter().zip(&decisions)
            .filter(|(_, decision)| !decision.is_excluded())
            .map(|(event, _)| event.clone())
            .collect();
        let never = resolve(&Profile::new(1, remaining, vec![]), NOW, &catalogue, &weights);
        prop_assert_eq!(bits(&with_rules), bits(&never));
    }

    /// The same beside rules of any strength, which stay in force.
    #[test]
    fn excluded_events_leave_no_trace_beside_graded_rules(
        profile in random::profile(true),
        weights in random::weights(),
    ) {
        let catalogue = Small::new(ITEMS);
        let with_all = resolve(&profile, NOW, &catalogue, &weights);
        let decisions = decide(&profile, NOW, &catalogue, &weights);
        let remaining = profile.events.iter().zip(&decisions)
            .filter(|(_, decision)| !decision.is_excluded())
            .map(|(event, _)| event.clone())
            .collect();
        let without = Profile::new(1, remaining, profile.rules.clone());
        let without = resolve(&without, NOW, &catalogue, &weights);
        prop_assert_eq!(bits(&with_all), bits(&without));
    }

    /// A rule that has expired is as good as deleted, and until the time it names a taste holds.
    #[test]
    fn a_taste_holds_until_the_time_it_names(
        profile in random::profile(true),
        weights in random::weights(),
        now in -4..12i64,
    ) {
        let catalogue = Small::new(ITEMS);
        let taste = resolve(&profile, now, &catalogue, &weights);
        let mut in_force = profile.clone();
        in_force.rules.retain(|rule| rule.expire_time_us.is_none_or(|expire| now < expire));
        prop_assert!(same_bits(&resolve(&in_force, now, &catalogue, &weights), &taste));

        let last = taste.valid_until_us.map_or(1_000, |until| until - 1);
        prop_assert!(last >= now);
        prop_assert!(same_bits(&resolve(&profile, last, &catalogue, &weights), &taste));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// The same promise where weights decay: histories and rules over days, at any instant.
    #[test]
    fn excluded_events_leave_no_trace_where_weights_decay(
        profile in random::profile(true),
        weights in random::weights(),
        half_lives in (0.1..50.0f64, 0.1..5_000.0f64),
        hour in -40..400i64,
    ) {
        const HOUR: i64 = 3_600_000_000;
        let catalogue = Small::new(ITEMS);
        let weights = weights.with_half_lives(half_lives.0, half_lives.1).unwrap();
        let mut profile = profile;
        for event in &mut profile.events {
            event.time_us *= 24 * HOUR;
        }
        for rule in &mut profile.rules {
            rule.create_time_us *= 24 * HOUR;
            rule.expire_time_us = rule.expire_time_us.map(|at| at * 24 * HOUR);
            if let Scope::Window { start_us, end_us } = &mut rule.scope {
                *start_us = start_us.map(|at| at * 24 * HOUR);
                *end_us = end_us.map(|at| at * 24 * HOUR);
            }
        }
        let now = hour * HOUR;
        let with_rules = resolve(&profile, now, &catalogue, &weights);
        let decisions = decide(&profile, now, &catalogue, &weights);
        let remaining: Vec<Event> = profile.events.iter().zip(&decisions)
            .filter(|(_, decision)| !decision.is_excluded())
            .map(|(event, _)| event.clone())
            .collect();
        let without = Profile::new(1, remaining, profile.rules.clone());
        prop_assert_eq!(bits(&with_rules), bits(&resolve(&without, now, &catalogue, &weights)));
        // What is kept until the time it names is what would be computed then.
        if let Some(until) = with_rules.valid_until_us {
            prop_assert!(until > now);
            prop_assert!(same_bits(&resolve(&profile, until - 1, &catalogue, &weights), &with_rules));
        } else {
            prop_assert!(profile.events.is_empty());
        }
    }
}

#[test]
fn large_profiles_and_hostile_counts_stay_within_bounds() {
    // Enough items and rules that the forbidden set becomes a bitmap.
    let catalogue = Small::new(20_000);
    let weights = Weights::default();
    let event = |n: u32| Event {
        event_id: format!("e{n:06}"),
        item: format!("i{}", n % 1_000),
        time_us: i64::from(n),
        kind: EventKind::Like,
        played_ms: None,
        context: Some(format!("c{}", n % 100)),
        session: None,
        count: refrain_taste::MAX_COUNT,
    };
    let rule = |n: u32, scope: Scope, action: Action| Rule {
        rule_id: format!("r{n:06}"),
        scope,
        strength: 1.0,
        effect: refrain_taste::Effect::Both,
        action,
        create_time_us: i64::from(n),
        expire_time_us: None,
        note: String::new(),
    };
    let mut rules = vec![
        rule(0, Scope::Tag("t2".to_owned()), Action::Exclude),
        rule(1, Scope::Tag("t0".to_owned()), Action::Include),
        rule(2, Scope::Artist("a1".to_owned()), Action::Exclude),
    ];
    rules.extend((3..1_003).map(|n| {
        let action = if n % 2 == 0 {
            Action::Include
        } else {
            Action::Exclude
        };
        rule(n, Scope::Item(format!("i{}", n * 7 % 20_000)), action)
    }));
    let profile = Profile::new(1, (0..100_000).map(event).collect(), rules);
    let taste = resolve(&profile, NOW, &catalogue, &weights);

    let oracle = Oracle {
        profile: &profile,
        catalogue: &catalogue,
    };
    assert_eq!(taste.forbidden, oracle.forbidden_without_events());
    assert!(taste.forbidden.len() > 20_000 / 64, "the bitmap took over");
    assert!(!taste.evidence.is_empty());
    for &(_, strength) in &taste.evidence {
        assert!(strength.is_finite() && strength <= 1e9, "{strength}");
    }
}

fn same_bits(a: &Taste, b: &Taste) -> bool {
    bits(a) == bits(b) && a == b
}

fn bits(taste: &Taste) -> Vec<(u32, u32)> {
    taste
        .evidence
        .iter()
        .map(|&(item, strength)| (item, strength.to_bits()))
        .collect()
}

/// The definition, read word by word: every rule against every event and item.
struct Oracle<'a> {
    profile: &'a Profile,
    catalogue: &'a Small,
}

impl Oracle<'_> {
    fn taste(&self, weights: &Weights) -> Taste {
        let events = &self.profile.events;
        let mut sums: BTreeMap<u32, f64> = BTreeMap::new();
        let mut taste = Taste::default();
        for event in events {
            let weight = self.weight(event, weights);
            match self.catalogue.ordinal(&event.item) {
                _ if self.kept(event) == 0.0 => taste.events_excluded += 1,
                None => taste.events_unknown += 1,
                Some(_) if weight == 0.0 => {}
                Some(item) => {
                    taste.events_used += 1;
                    *sums.entry(item).or_default() += weight;
                }
            }
        }
        #[expect(
            clippy::cast_possible_truncation,
            reason = "rounding to f32 is the definition"
        )]
        let rounded = sums.into_iter().map(|(item, sum)| (item, sum as f32));
        taste.evidence = rounded.filter(|&(_, strength)| strength != 0.0).collect();
        let known = events
            .iter()
            .filter_map(|event| self.catalogue.ordinal(&event.item));
        taste.heard = known.collect::<BTreeSet<u32>>().into_iter().collect();
        taste.forbidden = (0..self.catalogue.items())
            .filter(|&item| self.forbids(item))
            .collect();
        taste.valid_until_us = self.in_force().filter_map(|rule| rule.expire_time_us).min();
        taste
    }

    fn in_force(&self) -> impl Iterator<Item = &Rule> {
        self.profile
            .rules
            .iter()
            .filter(|rule| rule.expire_time_us.is_none_or(|end| NOW < end))
    }

    fn weight(&self, event: &Event, weights: &Weights) -> f64 {
        if self.catalogue.ordinal(&event.item).is_none() {
            return 0.0;
        }
        let mut weight = weights.of(event.kind) * f64::from(event.count) * self.kept(event);
        if event.kind == EventKind::Like {
            for unlike in &self.profile.events {
                let cancels = unlike.kind == EventKind::Unlike
                    && unlike.item == event.item
                    && unlike.time_us >= event.time_us;
                if cancels {
                    weight *= 1.0 - self.kept(unlike);
                }
            }
        }
        weight
    }

    fn kept(&self, event: &Event) -> f64 {
        match self.learn_rule(event) {
            Some(rule) if rule.action == Action::Exclude => 1.0 - f64::from(rule.strength),
            _ => 1.0,
        }
    }

    fn learn_rule(&self, event: &Event) -> Option<&Rule> {
        let covering = self.in_force().filter(|rule| rule.effect.learns());
        winner(covering.filter(|rule| self.covers_event(&rule.scope, event)))
    }

    fn forbids(&self, item: u32) -> bool {
        let of_item = |event: &&Event| self.catalogue.ordinal(&event.item) == Some(item);
        let covers = |scope: &Scope| {
            self.covers_item(scope, item)
                || self
                    .profile
                    .events
                    .iter()
                    .filter(of_item)
                    .any(|e| self.covers_event(scope, e))
        };
        let covering = self.in_force().filter(|rule| rule.effect.serves());
        winner(covering.filter(|rule| covers(&rule.scope)))
            .is_some_and(|rule| rule.action == Action::Exclude)
    }

    fn forbidden_without_events(&self) -> Vec<u32> {
        let bare = Profile {
            events: Vec::new(),
            ..self.profile.clone()
        };
        let bare = Oracle {
            profile: &bare,
            catalogue: self.catalogue,
        };
        (0..self.catalogue.items())
            .filter(|&item| bare.forbids(item))
            .collect()
    }

    fn covers_item(&self, scope: &Scope, item: u32) -> bool {
        match scope {
            Scope::Item(id) => self.catalogue.ordinal(id) == Some(item),
            Scope::Artist(artist) => self.catalogue.artist_of(item) == Some(artist),
            Scope::Tag(tag) => tags_of(item).contains(&tag.as_str()),
            Scope::Context(_) | Scope::Session(_) | Scope::Window { .. } => false,
        }
    }

    fn covers_event(&self, scope: &Scope, event: &Event) -> bool {
        match scope {
            Scope::Item(id) => event.item == *id,
            Scope::Context(context) => event.context.as_ref() == Some(context),
            Scope::Session(session) => event.session.as_ref() == Some(session),
            Scope::Artist(_) | Scope::Tag(_) => self
                .catalogue
                .ordinal(&event.item)
                .is_some_and(|item| self.covers_item(scope, item)),
            Scope::Window { start_us, end_us } => {
                start_us.is_none_or(|start| event.time_us >= start)
                    && end_us.is_none_or(|end| event.time_us < end)
            }
        }
    }
}

/// Most specific scope, then newest, then the greater id.
fn winner<'a>(rules: impl Iterator<Item = &'a Rule>) -> Option<&'a Rule> {
    let rank = |scope: &Scope| match scope {
        Scope::Item(_) => 6,
        Scope::Context(_) => 5,
        Scope::Session(_) => 4,
        Scope::Artist(_) => 3,
        Scope::Tag(_) => 2,
        Scope::Window { .. } => 1,
    };
    rules.max_by_key(|rule| (rank(&rule.scope), rule.create_time_us, rule.rule_id.clone()))
}
