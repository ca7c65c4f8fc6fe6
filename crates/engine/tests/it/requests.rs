//! What may be asked, seeds, and the reasons that an answer gives.

use std::sync::Arc;
use std::time::Instant;

use refrain_engine::{
    Degraded, ItemFilter, MissingSeeds, Request, Scratch, Seed, Seen, Similar, SimilarTo, Source,
    Subject, recommend, similar,
};
use refrain_kernels::oracle;
use refrain_taste::Weights;

use crate::fixture::{
    Blueprint, NOW_US, answer, music, music_version, ordinals, plain, rows, variant,
};

fn refusal(request: &Request<'_>) -> String {
    let (version, weights) = (music_version(), Weights::default());
    recommend(
        version,
        request,
        &plain(),
        &weights,
        &mut Scratch::default(),
    )
    .expect_err("not valid")
    .to_string()
}

#[test]
fn refusals_name_the_field() {
    let vector = [1.0; 16];
    let good = Request::new(Subject::Vector(&vector), 10, NOW_US);
    let ten_thousand = Arc::new(ItemFilter {
        exclude_items: vec!["x"; 10_001].into_iter().collect(),
        ..ItemFilter::default()
    });
    let many_tags = Arc::new(ItemFilter {
        any_tags: vec!["x"; 65].into_iter().collect(),
        ..ItemFilter::default()
    });
    let mut nan = vector;
    nan[3] = f32::NAN;
    let seed = |weight| Seed::Item {
        id: "item 1",
        weight,
    };
    let many = vec![seed(1.0); 257];
    let negative = [seed(1.0), seed(-2.0)];
    let infinite = [seed(f32::INFINITY)];
    let not_a_number = [Seed::Vector {
        values: &nan,
        weight: 1.0,
    }];
    let subject = |subject| Request { subject, ..good };
    let cases = [
        (Request { k: 0, ..good }, "page_size: 0 is not in 1 to 1000"),
        (
            Request { k: 1001, ..good },
            "page_size: 1001 is not in 1 to 1000",
        ),
        (
            Request {
                ef_search: Some(0),
                ..good
            },
            "search.ef_search: 0 is not in 1 to 10000",
        ),
        (
            Request {
                ef_search: Some(10_001),
                ..good
            },
            "search.ef_search: 10001",
        ),
        (
            Request {
                filter: Some(&ten_thousand),
                ..good
            },
            "filter.exclude_item_ids: 10001 entries, at most 10000 are allowed",
        ),
        (
            Request {
                filter: Some(&many_tags),
                ..good
            },
            "filter.any_tags: 65 entries, at most 64",
        ),
        (
            subject(Subject::Vector(&vector[..15])),
            "vector.values: 15 values, the version has 16",
        ),
        (
            subject(Subject::Vector(&nan)),
            "vector.values[3]: the number is not finite",
        ),
        (
            subject(Subject::Seeds {
                positive: &[],
                negative: &[],
            }),
            "seeds: at least one is needed",
        ),
        (
            subject(Subject::Seeds {
                positive: &many,
                negative: &[],
            }),
            "seeds: 257 entries, at most",
        ),
        (
            subject(Subject::Seeds {
                positive: &many[..1],
                negative: &negative,
            }),
            "seeds.negative[1].weight: weight -2 is not a finite number greater than 0",
        ),
        (
            subject(Subject::Seeds {
                positive: &infinite,
                negative: &[],
            }),
            "seeds.positive[0].weight: weight inf",
        ),
        (
            subject(Subject::Seeds {
                positive: &not_a_number,
                negative: &[],
            }),
            "seeds.positive[0].vector.values[3]: the number is not finite",
        ),
    ];
    for (request, expected) in cases {
        let message = refusal(&request);
        assert!(message.contains(expected), "{message:?} lacks {expected:?}");
    }
    let unknown = Similar::new(SimilarTo::Item("nothing"), 10);
    let message = similar(music_version(), &unknown, &mut Scratch::default());
    let message = message.expect_err("unknown").to_string();
    assert_eq!(message, "item_id: item \"nothing\" is not in this version");
}

#[test]
fn seeds_attract_and_repel() {
    let version = music_version();
    let vector = |ordinal| version.index().vector(ordinal).expect("an item");
    let near = [
        Seed::Item {
            id: "item 1",
            weight: 3.0,
        },
        Seed::Vector {
            values: &vector(5),
            weight: 1.0,
        },
    ];
    let far = [Seed::Item {
        id: "item 2",
        weight: 0.5,
    }];
    let subject = Subject::Seeds {
        positive: &near,
        negative: &far,
    };
    let mut request = Request::new(subject, 10, NOW_US);
    request.exact = true;
    let found = answer(version, &request, &plain());

    let query: Vec<f32> = (0..16)
        .map(|i| {
            let [one, five, two] = [1, 5, 2].map(|ordinal| f64::from(vector(ordinal)[i]));
            ((3.0 * one + five) / 4.0 - two) as f32
        })
        .collect();
    let expected: Vec<u32> =
        oracle::top_k(version.index().metric(), &query, &rows(version), 16, 400)
            .into_iter()
            // Seeds that are items do not come back; the item of the seed vector may.
            .filter(|&ordinal| ordinal % 29 != 0 && ordinal != 1 && ordinal != 2)
            .take(10)
            .collect();
    assert_eq!(ordinals(&found), expected);

    request.seen = Seen::Allow;
    request.k = 1000;
    let found = answer(version, &request, &plain());
    assert!([1, 2].iter().all(|seed| ordinals(&found).contains(seed)));
}

#[test]
fn unknown_seeds_are_skipped_and_named() {
    let version = music_version();
    let seeds = ["item 1", "gone", "item 2", "lost"].map(|id| Seed::Item { id, weight: 1.0 });
    let with = |positive| {
        Request::new(
            Subject::Seeds {
                positive,
                negative: &[],
            },
            5,
            NOW_US,
        )
    };
    let found = answer(version, &with(&seeds), &plain());
    assert_eq!(
        (found.unresolved.as_slice(), found.degraded.as_slice()),
        (&["gone".to_owned(), "lost".to_owned()][..], &[][..])
    );
    let known = [seeds[0], seeds[2]];
    assert_eq!(found.items, answer(version, &with(&known), &plain()).items);

    let unknown = [seeds[1], seeds[3]];
    let found = answer(version, &with(&unknown), &plain());
    assert_eq!(found.degraded, [Degraded::FallbackUsed]);
    assert!(
        found
            .items
            .iter()
            .all(|item| item.source == Source::Popular)
    );

    let strict = Request {
        missing_seeds: MissingSeeds::Fail,
        ..with(&seeds)
    };
    let expected = "seeds.positive[1].item_id: item \"gone\" is not in this version";
    assert_eq!(refusal(&strict), expected);
}

#[test]
fn a_passed_deadline_is_said() {
    let version = music_version();
    let vector = version.index().vector(1).expect("an item");
    let mut request = Request::new(Subject::Vector(&vector), 10, NOW_US);
    request.deadline = Some(Instant::now().into());
    let found = answer(version, &request, &plain());
    assert!(found.degraded.contains(&Degraded::TimeBudget), "{found:?}");
    assert!(found.search.truncated);
}

#[test]
fn a_missing_feature_is_said() {
    let mut blueprint = Blueprint {
        model: None,
        ..music().clone()
    };
    blueprint
        .items
        .iter_mut()
        .for_each(|item| item.release_time = None);
    let version = blueprint.open();
    let request = Request::new(Subject::Vector(&[1.0; 16]), 10, NOW_US);
    let fresh = variant("score = 'similarity + freshness'");
    let with = answer(&version, &request, &fresh);
    let without = answer(&version, &request, &variant("score = 'similarity + 0'"));
    assert_eq!(with.degraded, [Degraded::FeatureMissing]);
    assert_eq!((with.items, without.degraded.len()), (without.items, 0));
    assert_eq!(answer(music_version(), &request, &fresh).degraded, []);
}

/// A variant orders by its expression over the documented features.
#[test]
fn a_variant_scores_by_its_features() {
    let version = music_version();
    let vector = version.index().vector(1).expect("known");
    let request = Request::new(Subject::Vector(&vector), 20, NOW_US);
    let fresh = variant("score = 'freshness'\ncandidates = 400\nfreshness_half_life_days = 100");
    let found = answer(version, &request, &fresh);
    for item in &found.items {
        let released = music().items[item.ordinal as usize].release_time;
        let age = released.map(|released| (NOW_US / 1_000_000 - released) as f64 / 86_400.0);
        let expected = age.map_or(0.0, |age| (-age / 100.0).exp2()) as f32;
        assert_eq!(item.score, expected, "{}", item.ordinal);
    }
    let popular = variant("score = 'popularity'\ncandidates = 400");
    assert_eq!(
        ordinals(&answer(version, &request, &popular))[..4],
        [1, 2, 3, 4]
    );
}
