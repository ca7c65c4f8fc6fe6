//! Listeners of several tastes: retrieved for each, never shaped by what they excluded.

use refrain_engine::{
    Answer, Outcome, Request, Scratch, Seen, Subject, explain, fold_in, recommend,
};
use refrain_ranking::Variant;
use refrain_taste::{Action, Effect, Event, Profile, Rule, Scope, Weights};

use crate::fixture::{NOW_US, answer, id, music_version, plain, play, variant};

/// Plays of the most popular items of a scene (items alike modulo 4) after the first.
fn scene(scene: u32, items: u32, context: &str) -> Vec<Event> {
    let ordinals = (1..=items).map(|at| at * 4 + scene);
    ordinals
        .map(|ordinal| play(i64::from(ordinal), &id(ordinal), context))
        .collect()
}

fn profile(events: impl IntoIterator<Item = Vec<Event>>, rules: Vec<Rule>) -> Profile {
    Profile::new(1, events.into_iter().flatten().collect(), rules)
}

fn of_two(variant: &str) -> Variant {
    crate::fixture::variant(&format!("score = 'similarity'\ninterests = 2\n{variant}"))
}

fn ask<'a>(profile: &'a Profile, k: usize) -> Request<'a> {
    let mut request = Request::new(Subject::Profile { profile }, k, NOW_US);
    request.seen = Seen::Allow;
    request
}

fn searched_with(answer: &Answer) -> u32 {
    answer.profile.expect("a profile").interests
}

fn bits(answer: &Answer) -> Vec<(u32, u32, u32)> {
    let bits = answer.items.iter().map(|item| {
        let (score, similarity) = (item.score.to_bits(), item.similarity.to_bits());
        (item.ordinal, score, similarity)
    });
    bits.collect()
}

/// One vector lies between two tastes; two lie nearer to what each of them likes.
#[test]
fn items_are_nearer_to_their_own_taste_than_to_the_middle() {
    let version = music_version();
    let both = profile([scene(0, 12, "day"), scene(2, 12, "night")], Vec::new());
    // Items of the scene that were not listened to; of those that were, either vector knows already.
    let near = |answer: &Answer, scene: u32| {
        let of_scene = |ordinal: u32| ordinal % 4 == scene && ordinal > 12 * 4 + scene;
        let items = answer.items.iter().filter(|item| of_scene(item.ordinal));
        let nearest: Vec<f32> = items.map(|item| item.similarity).take(10).collect();
        assert_eq!(nearest.len(), 10);
        nearest.iter().sum::<f32>()
    };
    let whole = answer(version, &ask(&both, 200), &plain());
    let apart = answer(version, &ask(&both, 200), &of_two(""));
    assert_eq!((searched_with(&whole), searched_with(&apart)), (1, 2));
    for scene in [0, 2] {
        let (own, middle) = (near(&apart, scene), near(&whole, scene));
        assert!(own > middle, "scene {scene}: {own}, {middle} by one vector");
    }
    // Nobody else than the two was listened to.
    assert!(
        apart
            .items
            .iter()
            .take(50)
            .all(|item| item.ordinal % 2 == 0),
        "{:?}",
        apart.items
    );
}

/// The similarity of every item is that to its best interest, whichever search brought it: what Explain
/// computes from the events of that interest alone.
#[test]
fn an_item_is_as_near_as_to_its_best_interest() {
    let version = music_version();
    let both = profile([scene(0, 12, "day"), scene(2, 8, "night")], Vec::new());
    let (weights, scratch) = (Weights::default(), &mut Scratch::default());
    for exact in [false, true] {
        for k in [5, 40] {
            let mut request = ask(&both, k);
            request.exact = exact;
            let list = answer(version, &request, &of_two("candidates = 40"));
            assert_eq!(list.items.len(), k);
            assert!(list.items.is_sorted_by(|a, b| a.similarity >= b.similarity));
            for shown in &list.items {
                let item = id(shown.ordinal);
                let nobody = Profile::default();
                let request = Request {
                    subject: Subject::Profile { profile: &nobody },
                    ..request
                };
                let told = explain(
                    version,
                    &both,
                    &item,
                    &request,
                    &of_two(""),
                    &weights,
                    scratch,
                );
                let told = told.expect("explained");
                assert_eq!(told.outcome, Outcome::Shown);
                assert_eq!(told.score, Some((shown.score, shown.similarity)), "{item}");
                let gap = (told.explained - f64::from(shown.similarity)).abs();
                assert!(gap < 1e-4, "{item}: {gap}");
                // One interest's events cause it, not both's.
                let scenes = told.contributions.iter().map(|one| {
                    let ordinal = both.events[one.event].item.strip_prefix("item ");
                    ordinal
                        .and_then(|number| number.parse::<u32>().ok())
                        .map(|number| number % 4)
                });
                let mut scenes: Vec<_> = scenes.collect();
                scenes.dedup();
                scenes.sort_unstable();
                scenes.dedup();
                assert_eq!(scenes.len(), 1, "{item}: {scenes:?}");
            }
        }
    }
}

#[test]
fn what_is_excluded_shapes_no_interest() {
    let version = music_version();
    let day = || [scene(0, 9, "day"), scene(1, 7, "day")];
    let never = profile(day(), Vec::new());
    let rule = |context: &str| Rule {
        rule_id: "r".to_owned(),
        scope: Scope::Context(context.to_owned()),
        strength: 1.0,
        effect: Effect::Learn,
        action: Action::Exclude,
        create_time_us: 1,
        expire_time_us: None,
        note: String::new(),
    };
    let night = || day().into_iter().chain([scene(2, 30, "night")]);
    let (with, without) = (
        profile(night(), vec![rule("night")]),
        profile(night(), Vec::new()),
    );
    // In any order of arrival.
    let mut shuffled = with.clone();
    shuffled.events.reverse();
    let of_three =
        variant("score = 'similarity + 0.1 * popularity'\ninterests = 3\nmax_per_artist = 2");
    for variant in [of_two(""), of_three] {
        let list = |profile: &Profile| bits(&answer(version, &ask(profile, 30), &variant));
        assert_eq!(list(&with), list(&never), "bit for bit");
        assert_eq!(list(&shuffled), list(&never));
        assert_ne!(list(&without), list(&never));
    }
}

/// What makes no two interests is answered as by the whole profile, and says so.
#[test]
fn few_items_and_one_taste_are_one_interest() {
    let version = music_version();
    for items in 1..6 {
        let few = profile([scene(0, items, "day")], Vec::new());
        let apart = answer(version, &ask(&few, 20), &of_two(""));
        assert_eq!(searched_with(&apart), 1);
        assert_eq!(
            bits(&apart),
            bits(&answer(version, &ask(&few, 20), &plain()))
        );
    }
    let nobody = profile([Vec::new()], Vec::new());
    assert_eq!(
        searched_with(&answer(version, &ask(&nobody, 20), &of_two(""))),
        0
    );
}

/// Solved once and kept, or anew with used memory, at one number of interests after another: the same.
#[test]
fn kept_interests_are_the_same() {
    let version = music_version();
    let both = profile(
        [scene(0, 12, "day"), scene(2, 8, "night"), scene(3, 5, "")],
        Vec::new(),
    );
    let (weights, scratch) = (Weights::default(), &mut Scratch::default());
    let solved = fold_in(version, &both, NOW_US, &weights, scratch).expect("solved");
    for interests in [2, 3, 8, 2, 1, 8] {
        let variant = variant(&format!("score = 'similarity'\ninterests = {interests}"));
        let mut request = ask(&both, 30);
        let anew = answer(version, &request, &variant);
        request.subject = Subject::Solved(&solved);
        for _ in 0..2 {
            let kept = recommend(version, &request, &variant, &weights, scratch).expect("answered");
            assert_eq!(bits(&kept), bits(&anew));
            assert_eq!(searched_with(&kept), searched_with(&anew));
        }
        assert!(searched_with(&anew) <= interests);
    }
}
