//! Scoring, ordering and spreading a list of candidates.

use rustc_hash::FxHashMap;

use crate::expression::Expression;
use crate::feature::Feature;

/// An item that retrieval brought.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Candidate {
    /// The item.
    pub ordinal: u32,
    /// Similarity to the query under the metric of the index.
    pub similarity: f32,
    /// Its artist; items without one are never capped.
    pub artist: Option<u32>,
}

/// A candidate in its place.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ranked {
    /// The item.
    pub ordinal: u32,
    /// Score under the variant, finite; larger is better.
    pub score: f32,
    /// Similarity to the query.
    pub similarity: f32,
}

/// Memory that ranking uses again from call to call.
#[derive(Debug, Default)]
pub struct RankScratch {
    scored: Vec<(Ranked, Option<u32>)>,
    taken: FxHashMap<u32, u32>,
}

/// Orders `candidates` by their score and puts the best `k` into `out`, at most `max_per_artist` of
/// one artist.
///
/// The order is total: score descending, then ordinal ascending. A score that is not finite counts
/// as the lowest there is. `feature` answers for every feature that the expression names. When `out`
/// ends up shorter than `k`, no other candidate may be added: bring more candidates.
/// O(n log n) for n candidates; allocates nothing once `scratch` is warm.
pub fn rank(
    score: &Expression,
    candidates: &[Candidate],
    feature: &dyn Fn(Feature, &Candidate) -> f32,
    k: usize,
    max_per_artist: Option<u32>,
    scratch: &mut RankScratch,
    out: &mut Vec<Ranked>,
) {
    let RankScratch { scored, taken } = scratch;
    scored.clear();
    scored.extend(candidates.iter().map(|candidate| {
        let score = sortable(score.eval(&|name| feature(name, candidate)));
        let Candidate {
            ordinal,
            similarity,
            artist,
        } = *candidate;
        (
            Ranked {
                ordinal,
                score,
                similarity,
            },
            artist,
        )
    }));
    scored.sort_unstable_by(|(a, _), (b, _)| {
        b.score.total_cmp(&a.score).then(a.ordinal.cmp(&b.ordinal))
    });

    out.clear();
    taken.clear();
    let mut within_cap = |artist: &Option<u32>| {
        let (Some(artist), Some(cap)) = (artist, max_per_artist) else {
            return true;
        };
        let count = taken.entry(*artist).or_insert(0);
        *count += 1;
        *count <= cap
    };
    out.extend(
        scored
            .iter()
            .filter(|(_, artist)| within_cap(artist))
            .map(|&(ranked, _)| ranked)
            .take(k),
    );
}

/// Not-a-number and infinities go last; the two zeros are one.
fn sortable(score: f32) -> f32 {
    if score.is_finite() {
        score + 0.0
    } else {
        f32::MIN
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_cap_skips_to_the_next_artist() {
        let candidates = [
            (5, 0.9, Some(1)),
            (3, 0.8, Some(1)),
            (7, 0.7, Some(1)),
            (1, 0.6, None),
        ]
        .map(|(ordinal, similarity, artist)| Candidate {
            ordinal,
            similarity,
            artist,
        });
        let ordinals = |cap, k| -> Vec<u32> {
            ranked("similarity", &candidates, k, cap)
                .iter()
                .map(|r| r.ordinal)
                .collect()
        };
        assert_eq!(ordinals(None, 10), [5, 3, 7, 1]);
        assert_eq!(ordinals(Some(2), 10), [5, 3, 1]);
        assert_eq!(ordinals(Some(1), 10), [5, 1]);
        assert_eq!(ordinals(Some(2), 2), [5, 3]);
        assert_eq!(ordinals(None, 0), []);
    }

    #[test]
    fn scores_that_are_not_finite_go_last() {
        let candidates = [(2, 0.0), (1, -0.0), (0, 4.0)].map(|(ordinal, similarity)| Candidate {
            ordinal,
            similarity,
            artist: None,
        });
        let list = ranked("1 / similarity", &candidates, 3, None);
        assert_eq!(
            list.iter().map(|r| r.ordinal).collect::<Vec<_>>(),
            [0, 1, 2]
        );
        assert!(list.iter().all(|r| r.score.is_finite()));
    }

    proptest! {
        #[test]
        fn order_is_total_and_caps_hold(
            items in prop::collection::vec((-3_i8..3, prop::option::of(0_u32..4)), 0..60),
            k in 0_usize..40,
            cap in prop::option::of(1_u32..4),
            shift in 0_usize..60,
        ) {
            let mut candidates: Vec<_> = (0_u32..)
                .zip(&items)
                .map(|(ordinal, &(similarity, artist))| {
                    Candidate { ordinal, similarity: f32::from(similarity), artist }
                })
                .collect();
            let list = ranked("similarity", &candidates, k, cap);
            let in_order = |pair: &[Ranked]| {
                pair[0].score > pair[1].score
                    || pair[0].score == pair[1].score && pair[0].ordinal < pair[1].ordinal
            };
            prop_assert!(list.windows(2).all(in_order));
            let mut counts = HashMap::new();
            for ranked in &list {
                *counts.entry(items[ranked.ordinal as usize].1).or_insert(0) += 1;
            }
            for (artist, count) in counts {
                prop_assert!(artist.is_none() || cap.is_none_or(|cap| count <= cap));
            }
            let possible: usize = (0..4)
                .map(|artist| items.iter().filter(|item| item.1 == Some(artist)).count())
                .map(|n| cap.map_or(n, |cap| n.min(cap as usize)))
                .sum::<usize>() + items.iter().filter(|item| item.1.is_none()).count();
            prop_assert_eq!(list.len(), possible.min(k));

            let middle = shift.min(candidates.len());
            candidates.rotate_left(middle);
            prop_assert_eq!(ranked("similarity", &candidates, k, cap), list);
        }
    }

    fn ranked(text: &str, candidates: &[Candidate], k: usize, cap: Option<u32>) -> Vec<Ranked> {
        let expression = Expression::parse(text).expect("valid");
        let mut out = Vec::new();
        let feature = |_: Feature, candidate: &Candidate| candidate.similarity;
        rank(
            &expression,
            candidates,
            &feature,
            k,
            cap,
            &mut RankScratch::default(),
            &mut out,
        );
        out
    }
}
