//! Scoring candidates and making a list of them: order, diversity, exploration, caps.

use crate::caps::{Caps, Kin, Room, augment};
use crate::expression::Expression;
use crate::feature::Feature;
use crate::pick::{Picks, Pool};

/// An item that retrieval brought.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Candidate {
    /// The item.
    pub ordinal: u32,
    /// Similarity to the query under the metric of the index.
    pub similarity: f32,
    /// Its artist; items without one are not capped by artist.
    pub artist: Option<u32>,
    /// Its scene; items without one are not capped by scene.
    pub scene: Option<u32>,
    /// What the variant's model makes of it.
    pub model: Option<f32>,
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
    /// Probability with which this item stands here, given the items before it. `None`: the place
    /// was not randomised.
    pub propensity: Option<f64>,
    /// The place was randomised, and the item is not the one that would have stood here without.
    pub explored: bool,
}

/// What makes a list of scored candidates.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Shape {
    /// How many items.
    pub k: usize,
    /// How many of one artist and one scene.
    pub caps: Caps,
    /// Spread by maximal marginal relevance.
    pub mmr: Option<Mmr>,
    /// Sample instead of taking the best.
    pub exploration: Option<Exploration>,
    /// Decides what is sampled.
    pub seed: u64,
}

/// Maximal marginal relevance (Carbonell and Goldstein 1998): each place goes to the item with the
/// largest `lambda · relevance - (1 - lambda) · resemblance`, relevance being the score scaled to 0
/// to 1 over the pool, and resemblance the largest cosine to an item placed before, at least 0.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Mmr {
    /// 0 to 1; 1 ranks by score alone.
    pub lambda: f32,
    /// So many of the best-scored candidates are spread; the others follow by score.
    pub pool: usize,
}

/// Plackett–Luce sampling (Plackett 1975, Luce 1959): each place goes to an item with a probability
/// in proportion to `exp(value / temperature)` among the items of the pool that are left and fit the
/// caps. The value is the score; with [`Mmr`], the marginal relevance.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Exploration {
    /// In units of the value, greater than 0: the larger, the more even.
    pub temperature: f64,
    /// So many of the best-scored candidates are sampled from; the others follow by score.
    pub pool: usize,
}

/// How much items resemble each other, for [`Mmr`].
pub trait Resemblance {
    /// Names the items that are spread, once a list.
    fn prepare(&mut self, ordinals: &mut dyn Iterator<Item = u32>);
    /// Cosine of the item at position `of` with every item named: `out` has a place for each.
    fn cosines(&mut self, of: usize, out: &mut [f32]);
}

/// For lists that are not spread.
#[derive(Debug, Clone, Copy)]
pub struct NoResemblance;

impl Resemblance for NoResemblance {
    fn prepare(&mut self, _: &mut dyn Iterator<Item = u32>) {}

    fn cosines(&mut self, _: usize, out: &mut [f32]) {
        out.fill(0.0);
    }
}

/// Memory that ranking uses again from call to call.
#[derive(Debug, Default)]
pub struct RankScratch {
    pub(crate) scored: Vec<Entry>,
    room: Room,
    picks: Picks,
    list: Vec<usize>,
    in_list: Vec<bool>,
    values: Vec<f32>,
}

impl RankScratch {
    /// All candidates of the last call by score, best first: item and score.
    pub fn by_score(&self) -> impl ExactSizeIterator<Item = (u32, f32)> + '_ {
        self.scored.iter().map(|entry| (entry.ordinal, entry.score))
    }
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry {
    pub(crate) ordinal: u32,
    pub(crate) score: f32,
    similarity: f32,
    pub(crate) kin: Kin,
}

/// What is known of a list.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Outcome {
    /// Natural logarithm of the probability of the whole list. `None`: nothing was randomised, or
    /// the probability is not known (see [`complete`]).
    pub log_probability: Option<f64>,
}

/// Scores `candidates` and puts a list of at most `shape.k` of them into `out`.
///
/// By score the order is total: score descending, then ordinal ascending. A score that is not finite
/// counts as the lowest there is. `feature` answers for every feature that the expression names. The
/// candidates of the pool come first, as [`Mmr`] and [`Exploration`] choose them, then the others by
/// score; nobody goes beyond the caps. The list depends on the set of candidates, not on their order.
///
/// When `out` ends up shorter than `k`, no other candidate may be added: bring more candidates, and
/// when there are none under two caps, [`complete`] the list.
///
/// O(n log n) for n candidates, and O(k · pool) more for spreading; allocates nothing once `scratch`
/// is warm.
pub fn rank(
    score: &Expression,
    candidates: &[Candidate],
    feature: &dyn Fn(Feature, &Candidate) -> f32,
    shape: &Shape,
    resemblance: &mut dyn Resemblance,
    scratch: &mut RankScratch,
    out: &mut Vec<Ranked>,
) -> Outcome {
    let RankScratch {
        scored,
        room,
        picks,
        list,
        in_list,
        values,
    } = scratch;
    score.eval_all(candidates, feature, values);
    scored.clear();
    scored.extend(
        candidates
            .iter()
            .zip(values.iter())
            .map(|(candidate, &value)| Entry {
                ordinal: candidate.ordinal,
                score: sortable(value),
                similarity: candidate.similarity,
                kin: Kin {
                    artist: candidate.artist,
                    scene: candidate.scene,
                },
            }),
    );
    scored.sort_unstable_by(|a, b| b.score.total_cmp(&a.score).then(a.ordinal.cmp(&b.ordinal)));

    list.clear();
    picks.clear();
    room.clear(shape.caps);
    let pooled = match (shape.exploration, shape.mmr) {
        (Some(exploration), _) => exploration.pool,
        (None, Some(mmr)) => mmr.pool,
        (None, None) => 0,
    }
    .min(scored.len());
    if pooled > 0 {
        let pool = Pool {
            entries: scored.get(..pooled).unwrap_or_default(),
            shape,
        };
        pool.pick(resemblance, room, picks, list);
    }
    for (at, entry) in scored.iter().enumerate().skip(pooled) {
        if list.len() >= shape.k {
            break;
        }
        if room.fits(entry.kin) {
            room.take(entry.kin);
            list.push(at);
        }
    }
    in_list.clear();
    out.clear();
    out.extend(list.iter().enumerate().filter_map(|(place, &at)| {
        let entry = scored.get(at)?;
        let pick = picks.at(place);
        Some(Ranked {
            ordinal: entry.ordinal,
            score: entry.score,
            similarity: entry.similarity,
            propensity: pick.map(|pick| pick.propensity),
            explored: pick.is_some_and(|pick| pick.explored),
        })
    }));
    Outcome {
        log_probability: picks.log_probability(),
    }
}

/// Makes the list of the last [`rank`] as long as its caps allow, up to `shape.k`.
///
/// Under one cap every list that cannot be added to is already as long as any. Under two it may not
/// be: then the fewest items are exchanged that make room for one more, again and again, and the list
/// is put in order of score. How probable such a list was is not known: it has no propensities.
/// Returns whether anything changed. O(k · n).
pub fn complete(shape: &Shape, scratch: &mut RankScratch, out: &mut Vec<Ranked>) -> bool {
    if !shape.caps.conflict() || out.len() >= shape.k {
        return false;
    }
    let RankScratch {
        scored,
        list,
        in_list,
        ..
    } = scratch;
    in_list.clear();
    in_list.resize(scored.len(), false);
    for &at in list.iter() {
        if let Some(is) = in_list.get_mut(at) {
            *is = true;
        }
    }
    let kin: Vec<Kin> = scored.iter().map(|entry| entry.kin).collect();
    augment(&kin, shape.caps, in_list, shape.k);
    let before = out.len();
    if in_list.iter().filter(|&&is| is).count() == before {
        return false;
    }
    list.clear();
    list.extend((0..in_list.len()).filter(|&at| in_list.get(at) == Some(&true)));
    out.clear();
    out.extend(
        list.iter()
            .filter_map(|&at| scored.get(at))
            .map(|entry| Ranked {
                ordinal: entry.ordinal,
                score: entry.score,
                similarity: entry.similarity,
                propensity: None,
                explored: false,
            }),
    );
    true
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
mod tests;
