//! Two variants in one list: team-draft interleaving.

use refrain_ranking::{Team, Variant, draft};
use refrain_taste::Weights;
use rustc_hash::FxHashMap;

use crate::answer::Answer;
use crate::recommend::{Scratch, recommend};
use crate::request::{Request, RequestError};
use crate::retrieve::joined;
use crate::version::Version;

/// Answers a request under both variants and drafts one list of the two, with the team of each item.
///
/// Both lists come from one version, one profile and one instant, so nothing but the ranking differs.
/// The coins are a pure function of [`Request::seed`]. Each list keeps to the caps of its variant; a
/// cap per artist that the request itself brings holds for the drafted list. No propensities are
/// stated: how probable an item was depends on both lists and the coins.
///
/// # Errors
/// As [`recommend`].
pub fn interleave(
    version: &Version,
    request: &Request<'_>,
    variants: [&Variant; 2],
    weights: &Weights,
    scratch: &mut Scratch,
) -> Result<Answer, RequestError> {
    let [first, second] = variants;
    let mut answer = recommend(version, request, first, weights, scratch)?;
    let other = recommend(version, request, second, weights, scratch)?;
    let ordinals =
        |answer: &Answer| -> Vec<u32> { answer.items.iter().map(|item| item.ordinal).collect() };
    let (a, b) = (ordinals(&answer), ordinals(&other));
    let cap = request.max_per_artist.filter(|&cap| cap > 0);
    let mut counts: FxHashMap<u32, u32> = FxHashMap::default();
    let mut fits = |ordinal: u32| {
        let (Some(cap), Some(artist)) = (cap, version.items().artist(ordinal)) else {
            return true;
        };
        let count = counts.entry(artist).or_insert(0);
        *count += 1;
        *count <= cap
    };
    let mut drafted = Vec::with_capacity(request.k);
    draft(&a, &b, request.k, request.seed, &mut fits, &mut drafted);
    let items = drafted.iter().filter_map(|pick| {
        let from = match pick.team {
            None | Some(Team::First) => &answer,
            Some(Team::Second) => &other,
        };
        let mut item = *from.items.get(pick.position)?;
        (item.team, item.propensity, item.explored) = (pick.team, None, false);
        Some(item)
    });
    let items = items.collect();
    answer.items = items;
    answer.slate_logprob = None;
    answer.trace = None;
    answer.search = joined(answer.search, other.search);
    for reason in other.degraded {
        answer.degrade(reason);
    }
    for missing in other.missing {
        if !answer.missing.contains(&missing) {
            answer.missing.push(missing);
        }
    }
    Ok(answer)
}
