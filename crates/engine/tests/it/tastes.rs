//! Exclusions through the engine: exact, immediate, reversible; and the cache never stale.

use std::sync::Arc;

use proptest::prelude::*;
use refrain_engine::{
    Request, RequestError, Scratch, Seen, SolvedTaste, Subject, TasteCache, Tier, fold_in,
};
use refrain_kernels::Metric;
use refrain_taste::{Action, Effect, Event, EventKind, Profile, Rule, Scope, Weights};

use crate::fixture::{
    Blueprint, ITEMS, NOW_US, Random, answer, id, music, music_version, ordinals, plain, play,
};

fn solve(profile: &Profile) -> SolvedTaste {
    let (version, weights) = (music_version(), Weights::default());
    fold_in(version, profile, NOW_US, &weights, &mut Scratch::default()).expect("sound factors")
}

fn bits(solved: &SolvedTaste) -> Vec<u32> {
    solved.vector.iter().map(|value| value.to_bits()).collect()
}

fn learn(scope: Scope) -> Rule {
    Rule {
        rule_id: "rule".to_owned(),
        scope,
        strength: 1.0,
        effect: Effect::Learn,
        action: Action::Exclude,
        create_time_us: NOW_US - 1,
        expire_time_us: None,
        note: String::new(),
    }
}

/// A listening history of plays, skips and likes in four contexts and three sessions.
fn history(seed: u64, len: i64) -> Vec<Event> {
    let mut random = Random(seed);
    (0..len)
        .map(|n| {
            let item = random.below(ITEMS + 20); // some are not in the version
            let context = format!("context {}", random.below(4));
            Event {
                kind: match random.below(8) {
                    0 => EventKind::Skip,
                    1 => EventKind::Like,
                    2 => EventKind::Complete,
                    _ => EventKind::Play,
                },
                session: Some(format!("session {}", n % 3)),
                count: 1 + random.below(5),
                ..play(n, &id(item), &context)
            }
        })
        .collect()
}

/// Whether a rule of that scope covers an event, from the names alone.
fn covers(scope: &Scope, event: &Event) -> bool {
    let attributes = || {
        let ordinal: usize = event.item.strip_prefix("item ")?.parse().ok()?;
        music().items.get(ordinal)
    };
    match scope {
        Scope::Item(item) => event.item == *item,
        Scope::Context(context) => event.context.as_ref() == Some(context),
        Scope::Session(session) => event.session.as_ref() == Some(session),
        Scope::Artist(artist) => attributes().is_some_and(|i| i.artist.as_ref() == Some(artist)),
        Scope::Tag(tag) => attributes().is_some_and(|i| i.tags.contains(tag)),
        Scope::Window { start_us, end_us } => {
            start_us.is_none_or(|start| start <= event.time_us)
                && end_us.is_none_or(|end| event.time_us < end)
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// A profile with an exclusion is, bit for bit, the profile that never had the events, in vector
    /// and list; and taking the exclusion back gives what there was before.
    #[test]
    fn an_exclusion_is_as_if_it_had_never_been_heard(
        seed: u64,
        len in 0_i64..60,
        scope in prop_oneof![
            (0..4).prop_map(|n| Scope::Context(format!("context {n}"))),
            (0..3).prop_map(|n| Scope::Session(format!("session {n}"))),
            (0..3).prop_map(|n| Scope::Artist(format!("artist {n}"))),
            (0..4).prop_map(|n| Scope::Tag(format!("scene {n}"))),
            (0..ITEMS).prop_map(|n| Scope::Item(id(n))),
            (0_i64..60).prop_map(|n| Scope::Window {
                start_us: None,
                end_us: Some(play(n, "", "").time_us),
            }),
        ],
    ) {
        let events = history(seed, len);
        let before = Profile::new(1, events.clone(), Vec::new());
        let excluded = Profile::new(2, events.clone(), vec![learn(scope.clone())]);
        let undone = Profile::new(3, events.clone(), Vec::new());
        let remaining = events.into_iter().filter(|event| !covers(&scope, event)).collect();
        let never = Profile::new(4, remaining, Vec::new());

        let list = |profile: &Profile, seen| {
            let mut request = Request::new(Subject::Profile { profile }, 20, NOW_US);
            request.seen = seen;
            answer(music_version(), &request, &plain()).items
        };
        prop_assert_eq!(bits(&solve(&excluded)), bits(&solve(&never)));
        prop_assert_eq!(&solve(&excluded).taste.evidence, &solve(&never).taste.evidence);
        prop_assert_eq!(list(&excluded, Seen::Allow), list(&never, Seen::Allow));

        prop_assert_eq!(bits(&solve(&undone)), bits(&solve(&before)));
        prop_assert_eq!(list(&undone, Seen::Exclude), list(&before, Seen::Exclude));
    }

    /// A taste solved before answers as the profile itself does.
    #[test]
    fn a_solved_taste_answers_as_its_profile(seed: u64, len in 0_i64..40) {
        let profile = Profile::new(9, history(seed, len), vec![learn(Scope::Tag("scene 1".into()))]);
        let solved = solve(&profile);
        let now = Request::new(Subject::Profile { profile: &profile }, 15, NOW_US);
        let kept = Request { subject: Subject::Solved(&solved), ..now };
        let version = music_version();
        prop_assert_eq!(answer(version, &now, &plain()), answer(version, &kept, &plain()));
    }
}

#[test]
fn excluding_a_context_changes_the_answer() {
    // Twelve plays of one scene by day, twelve of another to fall asleep.
    let events = (0..24)
        .map(|n| {
            let (scene, context) = if n % 2 == 0 { (1, "day") } else { (2, "sleep") };
            let item = u32::try_from(n / 2 * 4 + scene).expect("small");
            play(n, &id(item), context)
        })
        .collect();
    let mut profile = Profile::new(1, events, Vec::new());
    let list = |profile: &Profile| {
        let request = Request::new(Subject::Profile { profile }, 30, NOW_US);
        ordinals(&answer(music_version(), &request, &plain()))
    };
    let asleep = |list: &[u32]| list.iter().filter(|&&ordinal| ordinal % 4 == 2).count();
    let before = list(&profile);
    profile.rules.push(learn(Scope::Context("sleep".into())));
    let after = list(&profile);
    assert!(asleep(&after) < asleep(&before), "{before:?} {after:?}");
    assert_eq!(solve(&profile).profile_use().events_excluded, 12);
}

#[test]
fn tiers_follow_how_much_counts() {
    let tier = |events: Vec<Event>| {
        solve(&Profile::new(1, events, Vec::new()))
            .profile_use()
            .tier
    };
    let plays = |n: i64| -> Vec<Event> {
        (0..n)
            .map(|n| play(n, &id(u32::try_from(n).expect("small") + 1), "c"))
            .collect()
    };
    assert_eq!(tier(plays(0)), Tier::Cold);
    assert_eq!(tier(plays(1)), Tier::Warm);
    assert_eq!(tier(plays(2)), Tier::Warm);
    assert_eq!(tier(plays(3)), Tier::Hot);
    assert_eq!(tier(vec![play(0, "not in the version", "c")]), Tier::Cold);
    let skip = Event {
        kind: EventKind::Skip,
        ..play(0, "item 1", "c")
    };
    assert_eq!(tier(vec![skip]), Tier::Cold);
}

/// Without a model the vector is the mean of what was heard, and exclusions are as exact.
#[test]
fn a_version_without_model_averages() {
    let blueprint = Blueprint {
        metric: Metric::L2,
        model: None,
        ..music().clone()
    };
    let version = blueprint.open();
    assert!(!version.has_model());
    let events = vec![
        play(0, "item 1", "a"),
        play(1, "item 2", "b"),
        play(2, "item 3", "sleep"),
    ];
    let profile = Profile::new(1, events, vec![learn(Scope::Context("sleep".into()))]);
    let weights = Weights::default();
    let solved = fold_in(
        &version,
        &profile,
        NOW_US,
        &weights,
        &mut Scratch::default(),
    );
    let rows: Vec<_> = (0..3)
        .map(|ordinal| version.vector(ordinal).expect("an item"))
        .collect();
    let mean: Vec<f32> = rows[1]
        .iter()
        .zip(rows[2].iter())
        .map(|(&a, &b)| ((f64::from(a) + f64::from(b)) / 2.0) as f32)
        .collect();
    assert_eq!(solved.expect("sound").vector, mean);
    let request = Request::new(Subject::Profile { profile: &profile }, 5, NOW_US);
    assert_eq!(answer(&version, &request, &plain()).items.len(), 5);
}

#[test]
fn the_cache_is_never_stale() {
    let version = music_version();
    let cache = TasteCache::new(1 << 20, Weights::default());
    let mut scratch = Scratch::default();
    let mut get = |user: &str, profile: &Profile, now_us: i64| {
        cache
            .get_or_solve(version, user, profile, now_us, &mut scratch)
            .expect("sound factors")
    };
    let events = history(3, 20);
    let mut rule = learn(Scope::Context("context 1".into()));
    rule.expire_time_us = Some(NOW_US + 100);
    let first = Profile::new(1, events.clone(), vec![rule]);
    let solved = get("anna", &first, NOW_US);
    assert!(
        Arc::ptr_eq(&solved, &get("anna", &first, NOW_US + 99)),
        "kept while the rule holds"
    );
    let expired = get("anna", &first, NOW_US + 100);
    assert!(expired.taste.events_excluded == 0 && solved.taste.events_excluded > 0);
    assert_eq!(
        get("anna", &first, NOW_US).taste,
        solved.taste,
        "an earlier instant"
    );

    let second = Profile::new(2, events.clone(), Vec::new());
    assert_eq!(get("anna", &second, NOW_US).revision(), 2);
    assert_eq!(
        get("anna", &first, NOW_US).taste,
        solved.taste,
        "an older revision"
    );
    assert_eq!(
        get("bert", &second, NOW_US).taste,
        get("anna", &second, NOW_US).taste
    );

    let inline = Profile::new(0, events, Vec::new());
    let held = cache.len();
    get("carl", &inline, NOW_US);
    assert_eq!(cache.len(), held, "profiles without revision are not kept");
}

#[test]
fn the_cache_keeps_versions_apart_and_within_its_bound() {
    let other = Blueprint {
        metric: Metric::Cosine,
        ..music().clone()
    }
    .open();
    let cache = TasteCache::new(1 << 16, Weights::default());
    let mut scratch = Scratch::default();
    for n in 0..500 {
        let profile = Profile::new(1, history(n, 20), Vec::new());
        for version in [music_version(), &other] {
            let user = format!("user {n}");
            let solved = cache.get_or_solve(version, &user, &profile, NOW_US, &mut scratch);
            assert_eq!(solved.expect("sound factors").version(), version.id());
        }
    }
    assert!((1..500).contains(&cache.len()), "{}", cache.len());

    let solved = solve(&Profile::new(1, history(1, 20), Vec::new()));
    let request = Request::new(Subject::Solved(&solved), 5, NOW_US);
    let refused = refrain_engine::recommend(
        &other,
        &request,
        &plain(),
        &Weights::default(),
        &mut scratch,
    );
    assert!(
        matches!(refused, Err(RequestError::OtherVersion { .. })),
        "{refused:?}"
    );
}
