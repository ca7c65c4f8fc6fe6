use std::collections::{BTreeMap, HashMap};

use proptest::prelude::*;

use super::*;

fn candidate(ordinal: u32, similarity: f32, artist: Option<u32>) -> Candidate {
    Candidate {
        ordinal,
        similarity,
        artist,
        scene: None,
        model: None,
    }
}

fn list(text: &str, candidates: &[Candidate], shape: &Shape) -> (Vec<Ranked>, Outcome) {
    list_with(text, candidates, shape, &mut Grid::default())
}

fn list_with(
    text: &str,
    candidates: &[Candidate],
    shape: &Shape,
    resemblance: &mut dyn Resemblance,
) -> (Vec<Ranked>, Outcome) {
    let expression = Expression::parse(text).expect("valid");
    let mut out = Vec::new();
    let feature = |_: Feature, candidate: &Candidate| candidate.similarity;
    let mut scratch = RankScratch::default();
    let outcome = rank(
        &expression,
        candidates,
        &feature,
        shape,
        resemblance,
        &mut scratch,
        &mut out,
    );
    if complete(shape, &mut scratch, &mut out) {
        return (
            out,
            Outcome {
                log_probability: None,
            },
        );
    }
    (out, outcome)
}

fn capped(k: usize, artist: Option<u32>) -> Shape {
    Shape {
        k,
        caps: Caps {
            artist,
            scene: None,
        },
        ..Shape::default()
    }
}

/// Items resemble each other by their ordinals: cosine 1 for equal remainders modulo 3, else -0.5
/// for odd and 0.25 for even sums.
#[derive(Default)]
struct Grid {
    items: Vec<u32>,
}

impl Grid {
    fn cosine(a: u32, b: u32) -> f32 {
        if a % 3 == b % 3 {
            1.0
        } else if (a + b) % 2 == 1 {
            -0.5
        } else {
            0.25
        }
    }
}

impl Resemblance for Grid {
    fn prepare(&mut self, ordinals: &mut dyn Iterator<Item = u32>) {
        self.items = ordinals.collect();
    }

    fn cosines(&mut self, of: usize, out: &mut [f32]) {
        for (out, &item) in out.iter_mut().zip(&self.items) {
            *out = Self::cosine(self.items[of], item);
        }
    }
}

#[test]
fn a_cap_skips_to_the_next_artist() {
    let candidates = [
        candidate(5, 0.9, Some(1)),
        candidate(3, 0.8, Some(1)),
        candidate(7, 0.7, Some(1)),
        candidate(1, 0.6, None),
    ];
    let ordinals = |cap, k| -> Vec<u32> {
        let (list, _) = list("similarity", &candidates, &capped(k, cap));
        list.iter().map(|r| r.ordinal).collect()
    };
    assert_eq!(ordinals(None, 10), [5, 3, 7, 1]);
    assert_eq!(ordinals(Some(2), 10), [5, 3, 1]);
    assert_eq!(ordinals(Some(1), 10), [5, 1]);
    assert_eq!(ordinals(Some(2), 2), [5, 3]);
    assert_eq!(ordinals(None, 0), []);
}

#[test]
fn scores_that_are_not_finite_go_last() {
    let candidates =
        [(2, 0.0), (1, -0.0), (0, 4.0)].map(|(ordinal, s)| candidate(ordinal, s, None));
    let (list, _) = list("1 / similarity", &candidates, &capped(3, None));
    assert_eq!(
        list.iter().map(|r| r.ordinal).collect::<Vec<_>>(),
        [0, 1, 2]
    );
    assert!(list.iter().all(|r| r.score.is_finite()));
}

/// Carbonell and Goldstein's rule, written out naively: at each place the largest marginal relevance.
#[test]
fn spreading_is_marginal_relevance() {
    let candidates: Vec<_> = (0..12)
        .map(|i| candidate(i, 1.0 - 0.03 * i as f32, None))
        .collect();
    for lambda in [0.0_f32, 0.3, 0.7, 1.0] {
        let shape = Shape {
            k: 12,
            mmr: Some(Mmr { lambda, pool: 8 }),
            ..Shape::default()
        };
        let (found, _) = list("similarity", &candidates, &shape);
        let mut left: Vec<u32> = (0..8).collect();
        let mut expected: Vec<u32> = Vec::new();
        while !left.is_empty() {
            let value = |&item: &u32| {
                let relevance = 1.0 - item as f32 / 7.0;
                let resembles = expected
                    .iter()
                    .map(|&other| Grid::cosine(item, other))
                    .fold(0.0_f32, f32::max);
                lambda * relevance - (1.0 - lambda) * resembles
            };
            let best = left
                .iter()
                .copied()
                .reduce(|a, b| if value(&b) > value(&a) + 1e-6 { b } else { a })
                .expect("some");
            left.retain(|&item| item != best);
            expected.push(best);
        }
        expected.extend(8..12);
        let found: Vec<u32> = found.iter().map(|r| r.ordinal).collect();
        assert_eq!(found, expected, "lambda {lambda}");
    }
}

/// Plackett–Luce by enumeration: the probability of every list, item by item.
fn enumerate(
    weights: &[(u32, f64, Option<u32>)],
    k: usize,
    cap: Option<u32>,
) -> BTreeMap<Vec<u32>, f64> {
    fn go(
        weights: &[(u32, f64, Option<u32>)],
        k: usize,
        cap: Option<u32>,
        prefix: &mut Vec<u32>,
        p: f64,
        out: &mut BTreeMap<Vec<u32>, f64>,
    ) {
        let count = |artist: Option<u32>| {
            let of = |item: &u32| weights.iter().find(|(i, _, _)| i == item).and_then(|w| w.2);
            prefix.iter().filter(|item| of(item) == artist).count()
        };
        let fits = |&&(item, _, artist): &&(u32, f64, Option<u32>)| {
            !prefix.contains(&item)
                && (artist.is_none() || cap.is_none_or(|cap| count(artist) < cap as usize))
        };
        let open: Vec<_> = weights.iter().filter(fits).copied().collect();
        if prefix.len() == k || open.is_empty() {
            out.insert(prefix.clone(), p);
            return;
        }
        let total: f64 = open.iter().map(|(_, w, _)| w).sum();
        for (item, weight, _) in open {
            prefix.push(item);
            go(weights, k, cap, prefix, p * weight / total, out);
            prefix.pop();
        }
    }
    let mut out = BTreeMap::new();
    go(weights, k, cap, &mut Vec::new(), 1.0, &mut out);
    out
}

const SLATES: u32 = 200_000;

/// Sampled lists occur as often as the propensities say: every list, every item at every place, and
/// importance weights of mean one; each within 4 standard errors. With and without a cap.
#[test]
fn propensities_are_true() {
    let n = SLATES;
    let temperature = 0.5;
    let items: Vec<_> = (0..6_u32)
        .map(|i| {
            candidate(
                i * 7 + 1,
                [0.9, 0.7, 0.65, 0.4, 0.1, -0.8][i as usize],
                (i < 5).then_some(i % 2),
            )
        })
        .collect();
    for (k, cap) in [(3, None), (3, Some(1)), (6, Some(2))] {
        let weights: Vec<_> = items
            .iter()
            .map(|c| {
                (
                    c.ordinal,
                    (f64::from(c.similarity) / temperature).exp(),
                    c.artist,
                )
            })
            .collect();
        let truth = enumerate(&weights, k, cap);
        assert!((truth.values().sum::<f64>() - 1.0).abs() < 1e-12);
        let mut seen: BTreeMap<Vec<u32>, u32> = BTreeMap::new();
        let mut weight_sum = (0.0, 0.0);
        for seed in 0..n {
            let shape = Shape {
                exploration: Some(Exploration {
                    temperature,
                    pool: 100,
                }),
                seed: u64::from(seed),
                ..capped(k, cap)
            };
            let (list, outcome) = list("similarity", &items, &shape);
            let slate: Vec<u32> = list.iter().map(|r| r.ordinal).collect();
            let p = truth[&slate];
            let stated = outcome.log_probability.expect("sampled").exp();
            assert!((stated - p).abs() < 1e-12, "{slate:?}: {stated} is not {p}");
            let product: f64 = list
                .iter()
                .map(|r| r.propensity.expect("sampled"))
                .product();
            assert!((product - p).abs() < 1e-12);
            // The uniform policy on the lists that can occur, by importance.
            let w = 1.0 / (truth.len() as f64 * stated);
            weight_sum = (weight_sum.0 + w, weight_sum.1 + w * w);
            *seen.entry(slate).or_insert(0) += 1;
        }
        let runs = f64::from(n);
        let within = |what: &str, count: f64, p: f64| {
            let error = (p * (1.0 - p) / runs).sqrt();
            let z = (count / runs - p) / error.max(1e-12);
            assert!(
                z.abs() < 4.5 || (count / runs - p).abs() < 1e-9,
                "{what}: {count} of {runs}, expected {p}: z {z}"
            );
            z
        };
        let mut worst = 0.0_f64;
        let mut beyond = 0;
        for (slate, &p) in &truth {
            let count = f64::from(seen.get(slate).copied().unwrap_or(0));
            let z = within(&format!("{slate:?}"), count, p);
            beyond += u32::from(z.abs() > 4.0);
            worst = worst.max(z.abs());
        }
        for place in 0..k {
            for item in &items {
                let at = |slate: &[u32]| slate.get(place) == Some(&item.ordinal);
                let p: f64 = truth.iter().filter(|(s, _)| at(s)).map(|(_, p)| p).sum();
                let count: u32 = seen.iter().filter(|(s, _)| at(s)).map(|(_, c)| c).sum();
                let z = within(&format!("{} at {place}", item.ordinal), f64::from(count), p);
                beyond += u32::from(z.abs() > 4.0);
                worst = worst.max(z.abs());
            }
        }
        let mean = weight_sum.0 / runs;
        let error = ((weight_sum.1 / runs - mean * mean) / runs).sqrt();
        println!(
            "k {k}, cap {cap:?}: {} lists, {n} draws, worst |z| {worst:.2}, mean weight {mean:.5} +- {error:.5}",
            truth.len()
        );
        assert_eq!(beyond, 0, "beyond 4 standard errors");
        assert!((mean - 1.0).abs() < 4.0 * error, "{mean} +- {error}");
    }
}

/// The same with spreading, where values change from place to place.
#[test]
fn propensities_are_true_when_lists_are_spread() {
    let n = SLATES;
    let (temperature, lambda) = (0.3, 0.6_f32);
    let items: Vec<_> = (0..5_u32)
        .map(|i| candidate(i, 1.0 - 0.2 * i as f32, Some(i / 2)))
        .collect();
    let shape = |seed| Shape {
        mmr: Some(Mmr { lambda, pool: 100 }),
        exploration: Some(Exploration {
            temperature,
            pool: 100,
        }),
        seed,
        ..capped(3, Some(1))
    };
    let mut seen: HashMap<Vec<u32>, (u32, f64)> = HashMap::new();
    for seed in 0..n {
        let (list, outcome) = list("similarity", &items, &shape(u64::from(seed)));
        let slate = list.iter().map(|r| r.ordinal).collect();
        let p = outcome.log_probability.expect("sampled").exp();
        // By hand, in double precision.
        let mut expected = 1.0;
        let mut before: Vec<u32> = Vec::new();
        for ranked in &list {
            let value = |item: u32| {
                let resembles = before
                    .iter()
                    .map(|&other| Grid::cosine(item, other))
                    .fold(0.0, f32::max);
                f64::from(lambda) * (1.0 - f64::from(item) / 4.0)
                    - f64::from(1.0 - lambda) * f64::from(resembles)
            };
            let open = (0..5_u32).filter(|i| before.iter().all(|b| b / 2 != i / 2));
            let total: f64 = open.map(|i| (value(i) / temperature).exp()).sum();
            expected *= (value(ranked.ordinal) / temperature).exp() / total;
            before.push(ranked.ordinal);
        }
        assert!((p - expected).abs() < 1e-5, "{p} is not {expected}");
        seen.entry(slate).or_insert((0, p)).0 += 1;
    }
    let total: f64 = seen.values().map(|(_, p)| p).sum();
    assert!(total > 0.999 && total < 1.000_01, "{total}");
    let runs = f64::from(n);
    let worst = seen
        .values()
        .map(|&(count, p)| (f64::from(count) / runs - p) / (p * (1.0 - p) / runs).sqrt())
        .fold(0.0_f64, |worst, z| worst.max(z.abs()));
    println!("{} lists, {n} draws, worst |z| {worst:.2}", seen.len());
    assert!(worst < 4.0, "{worst}");
}

/// At a vanishing temperature, and with huge scores, sampling is ranking, and nothing overflows.
#[test]
fn extreme_scores_have_finite_propensities() {
    let items =
        [(1, f32::MAX), (2, 1.0), (3, 0.0), (4, f32::MIN)].map(|(i, s)| candidate(i, s, None));
    for temperature in [1e-6, 1e6] {
        let shape = Shape {
            exploration: Some(Exploration {
                temperature,
                pool: 10,
            }),
            ..capped(4, None)
        };
        let (list, outcome) = list("similarity", &items, &shape);
        assert!(outcome.log_probability.expect("sampled").is_finite());
        assert_eq!(list[0].ordinal, 1);
        assert!(
            list.iter()
                .all(|r| (0.0..=1.0).contains(&r.propensity.expect("sampled")))
        );
    }
}

#[test]
fn beyond_the_pool_nothing_is_random() {
    let items: Vec<_> = (0..10)
        .map(|i| candidate(i, 1.0 - 0.1 * i as f32, None))
        .collect();
    let mut moved = false;
    for seed in 0..20 {
        let shape = Shape {
            exploration: Some(Exploration {
                temperature: 1.0,
                pool: 4,
            }),
            seed,
            ..capped(6, None)
        };
        let (list, _) = list("similarity", &items, &shape);
        let ordinals: Vec<u32> = list.iter().map(|r| r.ordinal).collect();
        assert_eq!(ordinals[4..], [4, 5]);
        assert!(list[..4].iter().all(|r| r.propensity.is_some()));
        assert!(
            list[4..]
                .iter()
                .all(|r| r.propensity.is_none() && !r.explored)
        );
        // The last of the pool has no choice.
        assert_eq!((list[3].propensity, list[3].explored), (Some(1.0), false));
        moved |= list[0].explored;
        assert_eq!(list[0].explored, ordinals[0] != 0);
    }
    assert!(moved);
}

proptest! {
    /// Whatever shapes the list: as many as the caps allow, up to k; none twice; no cap broken; the
    /// same for candidates in any order.
    #[test]
    fn a_list_is_as_long_as_it_can_be(
        items in prop::collection::vec(
            (-3_i8..3, prop::option::of(0_u32..4), prop::option::of(0_u32..3)), 0..60),
        k in 0_usize..40,
        cap in prop::option::of(1_u32..4),
        scene_cap in prop::option::of(1_u32..4),
        mmr in prop::option::of((0.0_f32..=1.0, 1_usize..70)),
        exploration in prop::option::of((0.01_f64..10.0, 1_usize..70)),
        seed: u64,
        shift in 0_usize..60,
    ) {
        let mut candidates: Vec<_> = (0_u32..)
            .zip(&items)
            .map(|(ordinal, &(similarity, artist, scene))| {
                Candidate { ordinal, similarity: f32::from(similarity), artist, scene, model: None }
            })
            .collect();
        let caps = Caps { artist: cap, scene: scene_cap };
        let shape = Shape {
            k,
            caps,
            mmr: mmr.map(|(lambda, pool)| Mmr { lambda, pool }),
            exploration: exploration.map(|(temperature, pool)| Exploration { temperature, pool }),
            seed,
        };
        let (found, outcome) = list("similarity", &candidates, &shape);
        if shape.mmr.is_none() && shape.exploration.is_none() {
            let in_order = |pair: &[Ranked]| {
                pair[0].score > pair[1].score
                    || pair[0].score == pair[1].score && pair[0].ordinal < pair[1].ordinal
            };
            prop_assert!(found.windows(2).all(in_order));
        }
        let mut seen = std::collections::HashSet::new();
        let (mut artists, mut scenes) = (HashMap::new(), HashMap::new());
        for ranked in &found {
            prop_assert!(seen.insert(ranked.ordinal));
            let (_, artist, scene) = items[ranked.ordinal as usize];
            *artists.entry(artist).or_insert(0) += 1;
            *scenes.entry(scene).or_insert(0) += 1;
        }
        for (counts, cap) in [(artists, cap), (scenes, scene_cap)] {
            for (of, count) in counts {
                prop_assert!(of.is_none() || cap.is_none_or(|cap| count <= cap));
            }
        }
        prop_assert_eq!(found.len(), feasible(&items, caps).min(k));
        if let Some(log) = outcome.log_probability {
            let product: f64 = found.iter().filter_map(|r| r.propensity).map(f64::ln).sum();
            prop_assert!(log <= 0.0 && (log - product).abs() < 1e-6, "{} {}", log, product);
        }

        let middle = shift.min(candidates.len());
        candidates.rotate_left(middle);
        prop_assert_eq!(list("similarity", &candidates, &shape).0, found);
    }
}

/// The largest number of items within both caps, as a maximum flow from artists to scenes, found
/// one unit at a time on matrices.
fn feasible(items: &[(i8, Option<u32>, Option<u32>)], caps: Caps) -> usize {
    // Nodes: source 0, sink 1, then artists and scenes; an item without one has its own.
    let mut capacity: HashMap<(usize, usize), i64> = HashMap::new();
    let mut nodes: HashMap<(bool, Option<u32>, usize), usize> = HashMap::new();
    for (i, &(_, artist, scene)) in items.iter().enumerate() {
        let mut node = |side, of: Option<u32>| {
            let next = nodes.len() + 2;
            *nodes
                .entry((side, of, if of.is_none() { i } else { 0 }))
                .or_insert(next)
        };
        let (a, s) = (node(false, artist), node(true, scene));
        let cap = |of: Option<u32>, cap: Option<u32>| match (of, cap) {
            (Some(_), Some(cap)) => i64::from(cap),
            _ => 1_000,
        };
        capacity.insert((0, a), cap(artist, caps.artist));
        capacity.insert((s, 1), cap(scene, caps.scene));
        *capacity.entry((a, s)).or_insert(0) += 1;
    }
    let n = nodes.len() + 2;
    let mut flow = 0;
    loop {
        let mut from = vec![usize::MAX; n];
        let mut stack = vec![0];
        from[0] = 0;
        while let Some(node) = stack.pop() {
            for (next, from) in from.iter_mut().enumerate() {
                if *from == usize::MAX && capacity.get(&(node, next)).is_some_and(|&c| c > 0) {
                    *from = node;
                    stack.push(next);
                }
            }
        }
        if from[1] == usize::MAX {
            return flow;
        }
        let mut node = 1;
        while node != 0 {
            let before = from[node];
            *capacity.entry((before, node)).or_insert(0) -= 1;
            *capacity.entry((node, before)).or_insert(0) += 1;
            node = before;
        }
        flow += 1;
    }
}
