//! Spreading, drawing, interleaving and explaining, on a real version.

use std::collections::HashSet;
use std::sync::Arc;

use refrain_engine::{
    Absence, Degraded, ItemFilter, Request, Scratch, Source, Subject, Why, interleave, moved,
};
use refrain_ranking::{Feature, Team};
use refrain_taste::{Profile, Weights};

use crate::fixture::{NOW_US, answer, id, music_version, ordinals, plain, play, variant};

fn listener() -> Profile {
    let events = (0..12)
        .map(|n: u32| play(n.into(), &id(1 + 4 * n), "a playlist"))
        .collect();
    Profile::new(1, events, Vec::new())
}

#[test]
fn drawn_lists_follow_the_seed_and_state_their_probability() {
    let (version, profile) = (music_version(), listener());
    let curious = variant("score = 'similarity'\n[variant.v.exploration]\ntemperature = 0.1");
    let ask = |seed| Request {
        seed,
        ..Request::new(Subject::Profile { profile: &profile }, 10, NOW_US)
    };
    let (one, same) = (
        answer(version, &ask(7), &curious),
        answer(version, &ask(7), &curious),
    );
    assert_eq!(one, same);
    let lists: HashSet<Vec<u32>> = (0..20)
        .map(|seed| ordinals(&answer(version, &ask(seed), &curious)))
        .collect();
    assert!(lists.len() > 10, "{} different lists", lists.len());
    let product: f64 = one
        .items
        .iter()
        .map(|item| item.propensity.expect("drawn").ln())
        .sum();
    let stated = one.slate_logprob.expect("drawn");
    assert!((stated - product).abs() < 1e-9, "{stated} is not {product}");
    let fixed = answer(version, &ask(7), &plain());
    assert_eq!(fixed.slate_logprob, None);
    assert!(
        fixed
            .items
            .iter()
            .all(|item| item.propensity.is_none() && !item.explored && item.team.is_none())
    );
    // A cap that uses the candidates up changes nothing about it: the second round is certain.
    let capped = variant(
        "score = 'similarity'\ncandidates = 12\nmax_per_artist = 1\n\
         [variant.v.exploration]\ntemperature = 0.1",
    );
    let capped = answer(version, &ask(3), &capped);
    assert_eq!(capped.items.len(), 10);
    assert!(capped.slate_logprob.is_some());
}

#[test]
fn spreading_lowers_resemblance_within_the_list() {
    let (version, profile) = (music_version(), listener());
    let request = Request::new(Subject::Profile { profile: &profile }, 10, NOW_US);
    let mean_cosine = |list: &[u32]| {
        let vector = |ordinal| version.index().vector(ordinal).expect("an item");
        let dot = |a: &[f32], b: &[f32]| -> f32 { a.iter().zip(b).map(|(x, y)| x * y).sum() };
        // Items that nobody heard have no direction: they are like nothing.
        let cosine = |a: &[f32], b: &[f32]| {
            let norms = (dot(a, a) * dot(b, b)).sqrt();
            if norms > 0.0 { dot(a, b) / norms } else { 0.0 }
        };
        let mut sum = 0.0;
        for (i, &a) in list.iter().enumerate() {
            for &b in &list[..i] {
                sum += cosine(&vector(a), &vector(b));
            }
        }
        sum / (list.len() * (list.len() - 1) / 2) as f32
    };
    let mut before = f32::INFINITY;
    // The fixture's scenes are tight: only a strong preference leaves them.
    for lambda in ["1.0", "0.1"] {
        let spread = variant(&format!("score = 'similarity'\nmmr_lambda = {lambda}"));
        let found = ordinals(&answer(version, &request, &spread));
        assert_eq!(found.len(), 10);
        let cosine = mean_cosine(&found);
        assert!(cosine < before, "lambda {lambda}: {cosine} after {before}");
        before = cosine;
        if lambda == "1.0" {
            assert_eq!(found, ordinals(&answer(version, &request, &plain())));
        }
    }
}

#[test]
fn features_come_from_version_and_listener_or_are_named_as_missing() {
    let (version, profile) = (music_version(), listener());
    let request = Request::new(Subject::Profile { profile: &profile }, 50, NOW_US);
    let items = version.items();
    // The strongest artist of the evidence has affinity 1, one never heard 0.
    let by_artist = variant("score = 'artist_affinity'");
    let found = answer(version, &request, &by_artist);
    assert_eq!(found.missing, []);
    let heard: HashSet<_> = (0..12_u32)
        .filter_map(|n| items.artist(1 + 4 * n))
        .collect();
    for item in &found.items {
        let known = items
            .artist(item.ordinal)
            .is_some_and(|a| heard.contains(&a));
        assert_eq!(item.score > 0.0, known, "{item:?}");
        assert!((0.0..=1.0).contains(&item.score));
    }
    // By novelty, what few listen to comes first.
    let found = answer(version, &request, &variant("score = 'novelty'"));
    let listens: Vec<f32> = found
        .items
        .iter()
        .map(|item| items.popularity(item.ordinal))
        .collect();
    assert!(listens.is_sorted(), "{listens:?}");

    let all = variant(
        "score = 'similarity + confidence + scene_match + artist_affinity'\nmax_per_scene = 2",
    );
    let query = version.index().vector(3).expect("an item").to_vec();
    let bare = Request::new(Subject::Vector(&query), 5, NOW_US);
    let found = answer(version, &bare, &all);
    let missing: Vec<_> = found
        .missing
        .iter()
        .map(|m| (m.feature, m.absence))
        .collect();
    assert!(
        missing.contains(&(Feature::ArtistAffinity, Absence::Listener)),
        "{missing:?}"
    );
    if version.confidence(0.5).is_none() {
        assert!(
            missing.contains(&(Feature::Confidence, Absence::Version)),
            "{missing:?}"
        );
    }
    assert_eq!(found.items.len(), 5);
    assert!(found.degraded.contains(&Degraded::FeatureMissing));
}

#[test]
fn pinned_items_answer_first_when_there_is_nothing_to_search_with() {
    let version = music_version();
    let nobody = Profile::default();
    // Item 29 is blocked, and nobody knows the last.
    let pinned = variant(
        "score = 'similarity'\npinned = ['item 100', 'item 29', 'item 7', 'item 100', 'nothing']",
    );
    let mut request = Request::new(Subject::Profile { profile: &nobody }, 5, NOW_US);
    let found = answer(version, &request, &pinned);
    assert_eq!(ordinals(&found), [100, 7, 1, 2, 3]);
    let sources: Vec<_> = found.items.iter().map(|item| item.source).collect();
    assert_eq!(
        sources[..3],
        [Source::Pinned, Source::Pinned, Source::Popular]
    );
    let filter = Arc::new(ItemFilter {
        exclude_items: ["item 7"].into_iter().collect(),
        ..ItemFilter::default()
    });
    request.filter = Some(&filter);
    assert_eq!(
        ordinals(&answer(version, &request, &pinned)),
        [100, 1, 2, 3, 4]
    );
}

#[test]
fn interleaving_drafts_from_both_lists_of_one_version() {
    let (version, profile) = (music_version(), listener());
    let (a, b) = (plain(), variant("score = 'similarity + 0.5 * popularity'"));
    let weights = Weights::default();
    let mut first = 0;
    for seed in 0..40 {
        let request = Request {
            seed,
            ..Request::new(Subject::Profile { profile: &profile }, 10, NOW_US)
        };
        let mut scratch = Scratch::default();
        let drafted =
            interleave(version, &request, [&a, &b], &weights, &mut scratch).expect("valid");
        let again = interleave(version, &request, [&a, &b], &weights, &mut scratch).expect("valid");
        assert_eq!(drafted, again);
        let (of_a, of_b) = (answer(version, &request, &a), answer(version, &request, &b));
        assert_eq!(drafted.items.len(), 10);
        assert_eq!(ordinals(&drafted).iter().collect::<HashSet<_>>().len(), 10);
        let same = ordinals(&of_a)
            .iter()
            .zip(&ordinals(&of_b))
            .take_while(|(x, y)| x == y)
            .count();
        for (place, item) in drafted.items.iter().enumerate() {
            let list = match item.team {
                None => {
                    assert!(place < same);
                    &of_a
                }
                Some(Team::First) => &of_a,
                Some(Team::Second) => &of_b,
            };
            let own = list.items.iter().find(|own| own.ordinal == item.ordinal);
            assert_eq!(own.expect("drafted from it").score, item.score);
        }
        first +=
            usize::from(drafted.items.get(same).and_then(|item| item.team) == Some(Team::First));
    }
    assert!((8..=32).contains(&first), "{first} of 40 coins");
    // A cap of the request holds for the whole list, and it is as long as ever.
    let request = Request {
        max_per_artist: Some(1),
        ..Request::new(Subject::Profile { profile: &profile }, 20, NOW_US)
    };
    let mut scratch = Scratch::default();
    let drafted = interleave(version, &request, [&a, &b], &weights, &mut scratch).expect("valid");
    let artists: Vec<_> = drafted
        .items
        .iter()
        .filter_map(|item| version.items().artist(item.ordinal))
        .collect();
    assert_eq!(artists.iter().collect::<HashSet<_>>().len(), artists.len());
    assert_eq!(drafted.items.len(), 20);
}

#[test]
fn every_move_has_its_reason() {
    let (version, profile) = (music_version(), listener());
    let request = Request {
        trace: true,
        ..Request::new(Subject::Profile { profile: &profile }, 10, NOW_US)
    };
    let base = variant("score = 'similarity'\nmax_per_artist = 1000");
    let first = answer(version, &request, &base);
    let reasons = |lines: &str| {
        let other = variant(lines);
        let second = answer(version, &request, &other);
        let moves = moved(version, (&first, &base), (&second, &other));
        let differ = first
            .items
            .iter()
            .zip(&second.items)
            .filter(|(a, b)| a.ordinal != b.ordinal)
            .count();
        assert!(moves.len() >= differ);
        for step in &moves {
            let at = |list: &[u32]| list.iter().position(|&item| item == step.ordinal);
            assert_eq!(
                (step.from, step.to),
                (at(&ordinals(&first)), at(&ordinals(&second)))
            );
        }
        moves.into_iter().map(|step| step.why).collect::<Vec<_>>()
    };
    assert_eq!(reasons("score = 'similarity'\nmax_per_artist = 1000"), []);
    let blended = reasons("score = 'similarity + 0.5 * popularity'");
    let by_popularity = |why: &Why| matches!(why, Why::Score { feature: Some(Feature::Popularity), change } if *change > 0.0);
    assert!(blended.iter().any(by_popularity), "{blended:?}");
    assert!(!blended.contains(&Why::ArtistCap));
    let capped = reasons("score = 'similarity'\nmax_per_artist = 1");
    assert!(
        !capped.is_empty() && capped.iter().all(|why| *why == Why::ArtistCap),
        "{capped:?}"
    );
    let spread = reasons("score = 'similarity'\nmmr_lambda = 0.3");
    assert!(spread.contains(&Why::Spread), "{spread:?}");
    let drawn = reasons("score = 'similarity'\n[variant.v.exploration]\ntemperature = 1.0");
    assert!(
        drawn.iter().all(|why| matches!(why, Why::Drawn)),
        "{drawn:?}"
    );
    let few = reasons("score = 'popularity'\ncandidates = 10");
    assert!(
        few.iter()
            .any(|why| matches!(why, Why::Retrieval | Why::Score { .. })),
        "{few:?}"
    );
}
