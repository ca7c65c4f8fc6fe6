//! What every answer keeps to, whatever the path: nothing forbidden, exactly k, one order.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use proptest::prelude::*;
use refrain_engine::{
    Answer, Degraded, Fallback, ItemFilter, NameList, Request, Scratch, Seed, Seen, Similar,
    SimilarTo, Source, Subject, Version, recommend, similar,
};
use refrain_kernels::{Metric, oracle};
use refrain_ranking::Variant;
use refrain_taste::{Action, Effect, Profile, Rule, Scope, Weights};

use crate::fixture::{
    Blueprint, ITEMS, NOW_US, NewItem, answer, id, music, music_version, ordinals, plain, play,
    rows, variant,
};

/// A request in a form that proptest can make.
#[derive(Debug, Clone)]
struct Case {
    heard: Vec<u32>,
    served: Vec<Scope>,
    subject: u8,
    exclude: Vec<u32>,
    exclude_artist: bool,
    allow: Option<Vec<u32>>,
    any_tag: bool,
    not_tag: bool,
    seen: bool,
    cap: Option<u32>,
    exact: bool,
    k: usize,
    variant: usize,
}

fn cases() -> impl Strategy<Value = Case> {
    let item = || 0..ITEMS;
    let scope = prop_oneof![
        item().prop_map(|i| Scope::Item(id(i))),
        (0..40).prop_map(|a| Scope::Artist(format!("artist {a}"))),
        (0..5).prop_map(|m| Scope::Tag(format!("mood {m}"))),
        Just(Scope::Context("sleep".to_owned())),
    ];
    let lists = (
        prop::collection::vec(item(), 0..12),
        prop::collection::vec(scope, 0..4),
        // Long ones are remembered, compiled.
        prop_oneof![
            3 => prop::collection::vec(item(), 0..60),
            1 => prop::collection::vec(item(), 120..300),
        ],
        prop::option::weighted(0.3, prop::collection::vec(item(), 0..60)),
    );
    let flags = (
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
    );
    let k = prop_oneof![3 => 1_usize..40, 1 => 300_usize..=1000];
    (
        lists,
        flags,
        0_u8..4,
        prop::option::of(0_u32..4),
        k,
        0_usize..10,
    )
        .prop_map(
            |((heard, served, exclude, allow), flags, subject, cap, k, variant)| {
                let (exclude_artist, any_tag, not_tag, seen, exact) = flags;
                Case {
                    heard,
                    served,
                    subject,
                    exclude,
                    exclude_artist,
                    allow,
                    any_tag,
                    not_tag,
                    seen,
                    cap,
                    exact,
                    k,
                    variant,
                }
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// For any request: no item that is not allowed, none twice, no artist beyond the cap, exactly
    /// as many as can be, in order; and the same again with memory that other requests have used.
    #[test]
    fn answers_keep_to_what_is_allowed(case in cases()) {
        let version = music_version();
        let variants = [
            plain(),
            variant("score = 'similarity'\ncandidates = 5\nmax_per_artist = 1"),
            variant("score = 'similarity + 0.15 * popularity + 0.1 * freshness'\nmax_per_artist = 2"),
            variant("score = '-similarity / popularity'\ncandidates = 30"),
            variant("score = 'similarity'\ncandidates = 20\nmax_per_artist = 1\nmmr_lambda = 0.5\nmmr_pool = 15"),
            variant("score = 'similarity'\nmax_per_artist = 2\n[variant.v.exploration]\ntemperature = 0.2\npool = 30"),
            variant("score = 'similarity'\ninterests = 2"),
            variant("score = 'similarity + 0.1 * popularity'\ninterests = 4\ncandidates = 30\nmax_per_artist = 1"),
            variant("score = 'similarity'\ndebias = 0.6\ninterests = 2\ncandidates = 40\nmax_per_artist = 2"),
            variant("score = 'artist_affinity + novelty'\nmmr_lambda = 0.6\n[variant.v.exploration]\ntemperature = 0.2"),
        ];
        let variant = &variants[case.variant];
        let mut owned = Owned::new(&case);
        // A listener without events is a case of its own: popularity answers.
        if case.subject == 1 {
            owned.profile.events.clear();
        }
        let list = |given: bool, names: &[&str]| names.iter().filter(|_| given).collect::<NameList>();
        let (exclude_items, allow_items): (NameList, NameList) =
            (owned.exclude.iter().collect(), owned.allow.iter().collect());
        let exclude_artists = list(case.exclude_artist, &["artist 0", "nobody"]);
        let any_tags = list(case.any_tag, &["scene 1", "scene 2", "none"]);
        let not_tags = list(case.not_tag, &["mood 3"]);
        let seeds: Vec<String> = case.heard.iter().map(|&i| id(i)).collect();
        let seeds: Vec<Seed<'_>> = seeds.iter().map(|id| Seed::Item { id, weight: 1.0 }).collect();
        let vector = version.index().vector(3).expect("an item");
        let subject = match case.subject {
            0 | 1 => Subject::Profile { profile: &owned.profile },
            2 if !seeds.is_empty() => Subject::Seeds { positive: &seeds, negative: &[] },
            _ => Subject::Vector(&vector),
        };
        let mut request = Request::new(subject, case.k, NOW_US);
        let filter = Arc::new(ItemFilter {
            exclude_items,
            exclude_artists,
            allow_items,
            any_tags,
            not_tags,
        });
        request.filter = Some(&filter);
        request.seen = if case.seen { Seen::Allow } else { Seen::Exclude };
        request.max_per_artist = case.cap;
        request.exact = case.exact;

        let mut scratch = Scratch::default();
        let weights = Weights::default();
        let first = recommend(version, &request, variant, &weights, &mut scratch).expect("valid");
        let again = recommend(version, &request, variant, &weights, &mut scratch).expect("valid");
        prop_assert_eq!(&first, &again);

        let allowed: Vec<u32> =
            (0..ITEMS).filter(|&o| is_allowed(version, &case, &request, &owned.profile, o)).collect();
        let cap = match case.cap.or(variant.caps.artist) {
            Some(0) | None => usize::MAX,
            Some(cap) => cap as usize,
        };
        let by_score = variant.mmr.is_none() && variant.exploration.is_none();
        check(version, &first, &allowed, cap, case.k, by_score)?;
    }
}

/// What a case refers to, owned.
struct Owned {
    profile: Profile,
    exclude: Vec<String>,
    allow: Vec<String>,
}

impl Owned {
    fn new(case: &Case) -> Self {
        let events = (0..)
            .zip(&case.heard)
            .map(|(n, &i)| play(n, &id(i), if n % 2 == 0 { "sleep" } else { "day" }))
            .collect();
        let rules = (0..)
            .zip(&case.served)
            .map(|(n, scope)| serve(n, scope.clone()))
            .collect();
        Self {
            profile: Profile::new(1, events, rules),
            exclude: case.exclude.iter().map(|&i| id(i)).collect(),
            allow: case.allow.iter().flatten().map(|&i| id(i)).collect(),
        }
    }
}

fn serve(n: i64, scope: Scope) -> Rule {
    Rule {
        rule_id: format!("r{n}"),
        scope,
        strength: 1.0,
        effect: Effect::Serve,
        action: Action::Exclude,
        create_time_us: n,
        expire_time_us: None,
        note: String::new(),
    }
}

/// The definition, from names: what a reader of the documentation would work out by hand.
fn is_allowed(
    version: &Version,
    case: &Case,
    request: &Request<'_>,
    profile: &Profile,
    ordinal: u32,
) -> bool {
    let item = &music().items[ordinal as usize];
    let name = id(ordinal);
    let has = |tag: &str| item.tags.iter().any(|t| t == tag);
    let reads_profile = matches!(request.subject, Subject::Profile { .. });
    let given = matches!(request.subject, Subject::Seeds { .. }) && case.heard.contains(&ordinal);
    let heard = reads_profile && profile.events.iter().any(|event| event.item == name);
    let forbidden = reads_profile
        && case.served.iter().any(|scope| match scope {
            Scope::Item(item) => *item == name,
            Scope::Artist(artist) => item.artist.as_ref() == Some(artist),
            Scope::Tag(tag) => has(tag),
            Scope::Context(context) => profile
                .events
                .iter()
                .any(|event| event.item == name && event.context.as_ref() == Some(context)),
            _ => unreachable!("not in cases"),
        });
    let filter = request.filter.expect("set");
    let artist = item.artist.as_deref();
    assert_eq!(version.items().blocked(ordinal), item.blocked);
    !item.blocked
        && !forbidden
        && (request.seen == Seen::Allow || !heard && !given)
        && !filter.exclude_items.iter().any(|other| other == name)
        && !artist.is_some_and(|artist| filter.exclude_artists.iter().any(|other| other == artist))
        && (filter.allow_items.is_empty() || filter.allow_items.iter().any(|other| other == name))
        && (filter.any_tags.is_empty() || filter.any_tags.iter().any(has))
        && !filter.not_tags.iter().any(has)
}

fn check(
    version: &Version,
    answer: &Answer,
    allowed: &[u32],
    cap: usize,
    k: usize,
    by_score: bool,
) -> Result<(), TestCaseError> {
    let artist = |&ordinal: &u32| version.items().artist(ordinal);
    let found = ordinals(answer);
    prop_assert!(
        found.iter().all(|ordinal| allowed.contains(ordinal)),
        "not allowed: {found:?}"
    );
    prop_assert_eq!(found.iter().collect::<HashSet<_>>().len(), found.len());
    let mut possible: HashMap<_, usize> = HashMap::new();
    for ordinal in allowed {
        *possible.entry(artist(ordinal)).or_default() += 1;
    }
    let mut counts: HashMap<_, usize> = HashMap::new();
    for ordinal in &found {
        *counts.entry(artist(ordinal)).or_default() += 1;
    }
    prop_assert!(
        counts
            .iter()
            .all(|(artist, &n)| artist.is_none() || n <= cap)
    );
    let possible: usize = possible
        .iter()
        .map(|(artist, &n)| if artist.is_some() { n.min(cap) } else { n })
        .sum();
    prop_assert_eq!(found.len(), possible.min(k));
    prop_assert_eq!(
        answer.degraded.contains(&Degraded::FewerThanAsked),
        possible < k
    );
    let sorted = answer
        .items
        .is_sorted_by(|a, b| a.score > b.score || a.score == b.score && a.ordinal < b.ordinal);
    let popular = answer
        .items
        .iter()
        .all(|item| item.source == Source::Popular);
    prop_assert!(sorted || popular || !by_score);
    prop_assert!(answer.items.iter().all(|item| item.score.is_finite()));
    Ok(())
}

/// Exact answers under `plain` are the oracle's, for every metric.
#[test]
fn exact_answers_are_those_of_the_oracle() {
    for metric in Metric::ALL {
        let blueprint = Blueprint {
            metric,
            ..music().clone()
        };
        let version = blueprint.open();
        let rows = rows(&version);
        // Items that nobody heard have no direction to search in.
        let heard = |query: &&[f32]| query.iter().any(|&value| value != 0.0);
        for query in blueprint
            .vectors
            .chunks(blueprint.dim)
            .filter(heard)
            .step_by(17)
        {
            let mut request = Request::new(Subject::Vector(query), 10, NOW_US);
            request.exact = true;
            let found = answer(&version, &request, &plain());
            // Stored vectors are of unit length but for what coding lost: they are not scaled again.
            let by = match metric {
                Metric::Cosine => Metric::InnerProduct,
                other => other,
            };
            let expected = oracle::top_k(by, query, &rows, blueprint.dim, ITEMS as usize);
            let expected: Vec<u32> = expected
                .into_iter()
                .filter(|&ordinal| !version.items().blocked(ordinal))
                .take(10)
                .collect();
            assert_eq!(ordinals(&found), expected, "{metric}");
            assert!(found.items.iter().all(|item| item.source == Source::Exact));
            assert_eq!(found.degraded, []);
        }
    }
}

/// Where each of many artists has more near items than there are candidates, and each may come
/// once, every round of retrieval finds one artist: the list is filled all the same.
#[test]
fn a_cap_is_filled_when_artists_crowd_out_each_other() {
    let (artists, each, dim) = (12_u32, 30_u32, 16);
    let mut vectors = Vec::new();
    let mut items = Vec::new();
    for artist in 0..artists {
        for track in 0..each {
            // Artists lie on rays, the first nearest to the query, each tightly together.
            let mut vector = vec![0.0; dim];
            vector[0] = 1.0 - 0.05 * artist as f32;
            vector[1 + artist as usize] = 0.001 * (track + 1) as f32;
            vectors.extend(vector);
            items.push(NewItem {
                artist: Some(format!("artist {artist}")),
                popularity: 1.0,
                ..NewItem::default()
            });
        }
    }
    let metric = Metric::InnerProduct;
    let blueprint = Blueprint {
        metric,
        dim,
        vectors,
        items,
        model: None,
        golden_error: 0.0,
    };
    let version = blueprint.open();
    let mut query = vec![0.0; dim];
    query[0] = 1.0;
    for exact in [false, true] {
        let mut request = Request::new(Subject::Vector(&query), artists as usize, NOW_US);
        request.max_per_artist = Some(1);
        request.exact = exact;
        let narrow = variant("score = 'similarity'\ncandidates = 12");
        let found = answer(&version, &request, &narrow);
        let by: Vec<_> = found
            .items
            .iter()
            .map(|item| version.items().artist(item.ordinal))
            .collect();
        assert_eq!(
            by.iter().collect::<HashSet<_>>().len(),
            artists as usize,
            "{by:?}"
        );
        assert_eq!(found.degraded, []);
        let first: Vec<u32> = (0..artists).map(|artist| artist * each).collect();
        assert_eq!(ordinals(&found), first);
    }
}

#[test]
fn nothing_to_search_with_is_answered_by_popularity() {
    let version = music_version();
    let profile = Profile::default();
    let mut request = Request::new(Subject::Profile { profile: &profile }, 5, NOW_US);
    let found = answer(version, &request, &plain());
    // Popularity falls with the ordinal, and ordinal 0 is blocked.
    assert_eq!(ordinals(&found), [1, 2, 3, 4, 5]);
    assert!(
        found
            .items
            .iter()
            .all(|item| item.source == Source::Popular)
    );
    assert_eq!(found.degraded, [Degraded::FallbackUsed]);

    request.fallback = Fallback::None;
    let found = answer(version, &request, &plain());
    assert_eq!(
        (found.items.len(), found.degraded),
        (0, vec![Degraded::FewerThanAsked])
    );
}

#[test]
fn neighbours_leave_out_the_item_itself_and_what_is_filtered() {
    let version = music_version();
    let mut request = Similar::new(SimilarTo::Item("item 8"), 1000);
    let filter = Arc::new(ItemFilter {
        not_tags: ["scene 0"].into_iter().collect(),
        ..ItemFilter::default()
    });
    request.filter = Some(&filter);
    let found = similar(version, &request, &mut Scratch::default()).expect("known");
    let expected: HashSet<u32> = (0..ITEMS).filter(|o| o % 29 != 0 && o % 4 != 0).collect();
    assert_eq!(
        ordinals(&found).into_iter().collect::<HashSet<_>>(),
        expected
    );
    assert_eq!(found.degraded, [Degraded::FewerThanAsked]);

    let request = Similar::new(SimilarTo::Item("item 9"), 1000);
    let found = similar(version, &request, &mut Scratch::default()).expect("known");
    assert!(
        !ordinals(&found).contains(&9) && found.items.len() == 385,
        "{}",
        found.items.len()
    );
    let vector = version.index().vector(9).expect("known");
    let request = Similar::new(SimilarTo::Vector(&vector), 1000);
    let found = similar(version, &request, &mut Scratch::default()).expect("known");
    assert!(ordinals(&found).contains(&9) && found.items.len() == 386);
}

/// More candidates than there are items, and an empty version, are no special cases.
#[test]
fn an_empty_version_answers_with_nothing() {
    let blueprint = Blueprint {
        metric: Metric::Cosine,
        dim: 3,
        vectors: Vec::new(),
        items: Vec::new(),
        model: None,
        golden_error: 0.0,
    };
    let version = blueprint.open();
    let variants: [Variant; 2] = [plain(), variant("score = 'popularity'\nmax_per_artist = 1")];
    for variant in &variants {
        let request = Request::new(Subject::Vector(&[1.0, 0.0, 0.0]), 10, NOW_US);
        let found = answer(&version, &request, variant);
        assert_eq!(
            (found.items.len(), found.degraded),
            (0, vec![Degraded::FewerThanAsked])
        );
    }
}
