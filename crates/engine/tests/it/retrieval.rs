//! What a listener excluded, or has heard, is nearest to them: however much of it there is, the best of the
//! rest come back, exactly as many as asked for.
//!
//! `REFRAIN_RETRIEVAL_ITEMS` makes the catalogue larger, 12,000 by default; a million is for when it matters.

use std::collections::HashSet;
use std::sync::Arc;

use refrain_engine::{Degraded, ItemFilter, NameList, Request, Subject, Version};
use refrain_kernels::{Metric, oracle};
use refrain_taste::{Action, Effect, Profile, Rule, Scope};

use crate::fixture::{Blueprint, NOW_US, NewItem, Random, answer, id, ordinals, plain, play, rows};

const DIM: usize = 16;
const LISTENERS: usize = 16;
const K: usize = 20;

/// How many of the nearest items carry a tag of their own: what a rule can exclude, or a request allow.
fn sizes(items: usize) -> Vec<usize> {
    let all = [10, 1_000, 5_000, 100_000, 1_000_000];
    let mut sizes: Vec<usize> = all.into_iter().filter(|&size| size < items).collect();
    sizes.extend([items / 2, items - 50]);
    sizes
}

struct Place {
    version: Version,
    vectors: Vec<f32>,
    /// Items by their similarity to the centre of all listeners, nearest first.
    near: Vec<u32>,
}

impl Place {
    /// Clusters of vectors, all listeners about one point; every item is tagged by how near to it it is.
    fn new(items: usize) -> Self {
        let mut random = Random(11);
        let mut uniform = move || (random.next() >> 40) as f32 / (1_u32 << 23) as f32 - 1.0;
        let centres: Vec<f32> = (0..50 * DIM).map(|_| uniform()).collect();
        let vectors: Vec<f32> = (0..items * DIM)
            .map(|at| centres[(at / DIM % 50) * DIM + at % DIM] + 0.5 * uniform())
            .collect();
        let centre = &centres[..DIM];
        let near = oracle::top_k(Metric::InnerProduct, centre, &vectors, DIM, items);
        let mut tagged = vec![NewItem::default(); items];
        for size in sizes(items) {
            for &ordinal in &near[..size] {
                tagged[ordinal as usize]
                    .tags
                    .push(format!("nearest {size}"));
            }
        }
        for &ordinal in &near[items - 50..] {
            tagged[ordinal as usize].tags.push("furthest 50".into());
        }
        let blueprint = Blueprint {
            metric: Metric::InnerProduct,
            dim: DIM,
            vectors,
            items: tagged,
            model: None,
            golden_error: 0.0,
        };
        let version = blueprint.open();
        let vectors = rows(&version);
        Self {
            version,
            vectors,
            near,
        }
    }

    /// Listeners of a few of the nearest items each.
    fn listeners(&self, rules: &[Rule]) -> Vec<Profile> {
        let mut random = Random(5);
        let listener = |_| {
            let events = (0..6).map(|n| {
                let item = self.near[random.below(300) as usize];
                play(n, &id(item), "day")
            });
            Profile::new(1, events.collect(), rules.to_vec())
        };
        (0..LISTENERS).map(listener).collect()
    }

    /// Asks for every listener: exactly as many as there are, nothing forbidden, in order; the recall.
    fn recall(
        &self,
        rules: &[Rule],
        filter: Option<&Arc<ItemFilter>>,
        allowed: &dyn Fn(u32) -> bool,
    ) -> f64 {
        let mut found = 0;
        let mut wanted = 0;
        for profile in &self.listeners(rules) {
            let heard: HashSet<&str> = profile.events.iter().map(|event| &*event.item).collect();
            let mut request = Request::new(Subject::Profile { profile }, K, NOW_US);
            request.filter = filter;
            let list = answer(&self.version, &request, &plain());
            request.exact = true;
            let exact = answer(&self.version, &request, &plain());
            // The truth by an oracle: all items, what is allowed of them, the best.
            let mut query = [0.0_f64; DIM];
            for event in &profile.events {
                let ordinal = self.version.items().ordinal(&event.item).expect("there");
                let row = &self.vectors[ordinal as usize * DIM..][..DIM];
                query
                    .iter_mut()
                    .zip(row)
                    .for_each(|(sum, value)| *sum += f64::from(*value));
            }
            let query: Vec<f32> = query.iter().map(|sum| (sum / 6.0) as f32).collect();
            let items = self.vectors.len() / DIM;
            let best = oracle::top_k(Metric::InnerProduct, &query, &self.vectors, DIM, items);
            let may = |ordinal: &u32| allowed(*ordinal) && !heard.contains(&*id(*ordinal));
            let truth: Vec<u32> = best.into_iter().filter(may).take(K).collect();
            // Scores that differ by less than rounding come in either order.
            let score = |ordinal: u32| {
                let row = &self.vectors[ordinal as usize * DIM..][..DIM];
                oracle::score(Metric::InnerProduct, &query, row)
            };
            let exact = ordinals(&exact);
            assert_eq!(exact.len(), truth.len());
            for (got, true_one) in exact.iter().zip(&truth) {
                let gap = (score(*got) - score(*true_one)).abs();
                assert!(gap < 1e-4, "exact search is exact: {got} {true_one} {gap}");
            }
            let got = ordinals(&list);
            assert_eq!(got.len(), truth.len(), "exactly k, or all that there are");
            assert_eq!(
                list.degraded.contains(&Degraded::FewerThanAsked),
                got.len() < K
            );
            assert!(got.iter().all(may), "nothing that is forbidden");
            assert!(list.items.is_sorted_by(|a, b| a.score >= b.score));
            wanted += truth.len();
            found += truth.iter().filter(|ordinal| got.contains(ordinal)).count();
        }
        found as f64 / wanted as f64
    }
}

fn without(tag: &str) -> Rule {
    Rule {
        rule_id: tag.to_owned(),
        scope: Scope::Tag(tag.to_owned()),
        strength: 1.0,
        effect: Effect::Serve,
        action: Action::Exclude,
        create_time_us: 1,
        expire_time_us: None,
        note: String::new(),
    }
}

#[test]
fn the_best_of_what_is_left_come_back_however_much_is_excluded() {
    let items = std::env::var("REFRAIN_RETRIEVAL_ITEMS")
        .map_or(12_000, |items| items.parse().expect("a number"));
    let place = Place::new(items);
    let say = |what: &str, recall: f64| {
        eprintln!("{what}: recall@{K} {recall:.4}");
        assert!(recall >= 0.95, "{what}: {recall}");
    };
    say("nothing excluded", place.recall(&[], None, &|_| true));
    for size in sizes(items) {
        let tag = format!("nearest {size}");
        let gone: HashSet<u32> = place.near[..size].iter().copied().collect();
        let allowed = |ordinal: u32| !gone.contains(&ordinal);
        let by_rule = place.recall(&[without(&tag)], None, &allowed);
        say(&format!("the nearest {size} excluded by a rule"), by_rule);
        // As ids in the request, as far as a request takes them.
        if size <= 10_000 {
            let near = place.near[..size].iter();
            let ids: NameList = near.map(|&ordinal| id(ordinal)).collect();
            let filter = Arc::new(ItemFilter {
                exclude_items: ids,
                ..ItemFilter::default()
            });
            let by_request = place.recall(&[], Some(&filter), &allowed);
            assert!(
                (by_request - by_rule).abs() < 1e-9,
                "{by_request} {by_rule}"
            );
        }
    }
    let few: NameList = ["furthest 50"].into_iter().collect();
    let filter = Arc::new(ItemFilter {
        any_tags: few,
        ..ItemFilter::default()
    });
    let far: HashSet<u32> = place.near[items - 50..].iter().copied().collect();
    let recall = place.recall(&[], Some(&filter), &|ordinal| far.contains(&ordinal));
    say("only the furthest 50 allowed", recall);
    assert!(recall > 0.9999, "so few are searched exactly: {recall}");
}
