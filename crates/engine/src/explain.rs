//! Why an item is, or is not, in an answer.

use std::sync::Arc;

use refrain_taste::{Event, EventDecision, Profile, Weights, decide, serving_rule};

use crate::answer::{Answer, Degraded};
use crate::interests::best;
use crate::query::searchable;
use crate::recommend::{Scratch, recommend};
use crate::request::{Fallback, ItemFilter, Request, RequestError, Seen, Subject};
use crate::solve::{SolvedTaste, fold_in, rows};
use crate::version::Version;
use refrain_kernels::Metric;
use refrain_ranking::Variant;

/// Where the way of an item through a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Outcome {
    /// It is in the answer.
    Shown,
    /// The version does not know it.
    Unknown,
    /// The version blocks it for everybody.
    Blocked,
    /// A SERVE rule of the listener forbids it.
    Excluded,
    /// The listener has heard it, and the request does not allow that.
    Heard,
    /// The request rules it out.
    Filtered,
    /// It was no candidate, though its score would do.
    NotRetrieved,
    /// Others have better scores.
    Outranked,
    /// The answer has as many items of its artist as allowed.
    ArtistFull,
    /// There is nothing to search with, and others are more popular.
    Fallback,
}

/// What one event brings to the similarity of an item.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Contribution {
    /// Position in [`Profile::events`].
    pub event: usize,
    /// Its share.
    pub share: f64,
    /// Weight with which it shapes the profile.
    pub weight: f64,
    /// The LEARN rule that decided on it, as its position in [`Profile::rules`].
    pub rule: Option<usize>,
}

/// Why an item is, or is not, in an answer.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Explanation {
    /// Where its way ended.
    pub outcome: Outcome,
    /// The SERVE rule that decided on it, as its position in [`Profile::rules`].
    pub rule: Option<usize>,
    /// Place in the answer, from 0.
    pub position: Option<usize>,
    /// Score under the variant and similarity to the query, where there is a query.
    pub score: Option<(f32, f32)>,
    /// What each event with a share other than 0 brings, largest first; ties by time.
    pub contributions: Vec<Contribution>,
    /// Sum of the shares: the similarity but for rounding where the metric is `ip` or `cosine`, the
    /// inner product where it is `l2`.
    pub explained: f64,
    /// The answer that was explained.
    pub answer: Answer,
}

/// Explains what `request` makes of `item` for a listener: answers the request, then looks at every stage
/// in turn. The subject of the request is ignored: `profile` is the listener.
///
/// Of a listener of several interests, the one that the item is nearest to is split: its events alone bring
/// anything. The shares are exact for the model that folds the listener in: the similarity is linear in what each
/// item of the profile brings (Hu, Koren and Volinsky, 2008, §5), and an item's share is split over its
/// events by weight. O(an answer + evidence · rank² + rank³).
///
/// # Errors
/// As [`recommend`].
pub fn explain(
    version: &Version,
    profile: &Profile,
    item: &str,
    request: &Request<'_>,
    variant: &Variant,
    weights: &Weights,
    scratch: &mut Scratch,
) -> Result<Explanation, RequestError> {
    let solved = fold_in(version, profile, request.now_us, weights, scratch)?;
    let request = Request {
        subject: Subject::Solved(&solved),
        ..*request
    };
    let answer = recommend(version, &request, variant, weights, scratch)?;
    let Some(ordinal) = version.items().ordinal(item) else {
        return Ok(Explanation {
            outcome: Outcome::Unknown,
            rule: None,
            position: None,
            score: None,
            contributions: Vec::new(),
            explained: 0.0,
            answer,
        });
    };
    let interests = match variant.interests {
        0 | 1 => Arc::default(),
        most => solved.interests(version, most, &mut scratch.fold_in)?,
    };
    let target = version.vector(ordinal);
    let interest = target
        .as_ref()
        .and_then(|target| best(&interests, version.index().metric(), target));
    let side = match interest {
        Some(interest) => Side {
            evidence: interest.evidence(&solved.taste),
            vector: &interest.vector,
        },
        None => Side {
            evidence: solved.taste.evidence.clone(),
            vector: &solved.vector,
        },
    };
    let weight = version.weight(ordinal, variant.debias);
    let contributions = contributions(
        version,
        profile,
        &side,
        (ordinal, weight),
        &request,
        weights,
    )?;
    let position = answer.items.iter().position(|item| item.ordinal == ordinal);
    let score = score(
        version, &solved, &side, ordinal, &request, variant, weights, scratch,
    )?;
    let outcome = match position {
        Some(_) => Outcome::Shown,
        None => why_not(version, &solved, ordinal, &request, variant, &answer, score),
    };
    Ok(Explanation {
        outcome,
        rule: serving_rule(profile, request.now_us, &version.catalogue(), item),
        position,
        score,
        explained: contributions.iter().map(|one| one.share).sum(),
        contributions,
        answer,
    })
}

/// Which stage an allowed or forbidden item that is not in the answer ended at.
fn why_not(
    version: &Version,
    solved: &SolvedTaste,
    ordinal: u32,
    request: &Request<'_>,
    variant: &Variant,
    answer: &Answer,
    score: Option<(f32, f32)>,
) -> Outcome {
    if version.blocked().contains(ordinal) {
        return Outcome::Blocked;
    }
    if solved.forbidden().contains(ordinal) {
        return Outcome::Excluded;
    }
    let compiled = version.compiled(request.filter);
    let let_in = compiled
        .allow
        .as_ref()
        .is_none_or(|allow| allow.contains(ordinal));
    if compiled.exclude.contains(ordinal) || !let_in {
        return Outcome::Filtered;
    }
    if request.seen == Seen::Exclude && solved.heard().contains(ordinal) {
        return Outcome::Heard;
    }
    if answer.degraded.contains(&Degraded::FallbackUsed) || score.is_none() {
        return Outcome::Fallback;
    }
    let items = version.items();
    let cap = request.max_per_artist.or(variant.caps.artist);
    if let (Some(cap @ 1..), Some(artist)) = (cap, items.artist(ordinal)) {
        let of_artist = |&&item: &&crate::Scored| items.artist(item.ordinal) == Some(artist);
        if answer.items.iter().filter(of_artist).count() >= cap as usize {
            return Outcome::ArtistFull;
        }
    }
    let last = answer.items.last().map(|item| item.score);
    match (score, last) {
        (Some((score, _)), Some(last)) if score <= last && answer.items.len() >= request.k => {
            Outcome::Outranked
        }
        _ => Outcome::NotRetrieved,
    }
}

/// What of a profile an item was found by: its interest, or the whole.
struct Side<'a> {
    evidence: Vec<(u32, f32)>,
    vector: &'a [f32],
}

/// Score and similarity of one item, whatever forbids it: it alone is asked for.
#[expect(
    clippy::too_many_arguments,
    reason = "those of a request, and the item"
)]
fn score(
    version: &Version,
    solved: &SolvedTaste,
    side: &Side<'_>,
    ordinal: u32,
    request: &Request<'_>,
    variant: &Variant,
    weights: &Weights,
    scratch: &mut Scratch,
) -> Result<Option<(f32, f32)>, RequestError> {
    let Some(id) = version.items().id(ordinal) else {
        return Ok(None);
    };
    if version.blocked().contains(ordinal) || !searchable(version.index().metric(), &solved.vector)
    {
        return Ok(None);
    }
    let only = Arc::new(ItemFilter {
        allow_items: [id].into_iter().collect(),
        ..ItemFilter::default()
    });
    // What a rule forbids is asked for as by a vector, which no rule of the listener applies to.
    let subject = match solved.forbidden().contains(ordinal) {
        true => Subject::Vector(side.vector),
        false => Subject::Solved(solved),
    };
    let request = Request {
        subject,
        k: 1,
        filter: Some(&only),
        seen: Seen::Allow,
        exact: true,
        fallback: Fallback::None,
        deadline: None,
        ..*request
    };
    let answer = recommend(version, &request, variant, weights, scratch)?;
    Ok(answer
        .items
        .first()
        .filter(|item| item.ordinal == ordinal)
        .map(|item| (item.score, item.similarity)))
}

/// Splits the similarity of an item, weighted, over the events of a profile.
fn contributions(
    version: &Version,
    profile: &Profile,
    side: &Side<'_>,
    (ordinal, weight): (u32, f32),
    request: &Request<'_>,
    weights: &Weights,
) -> Result<Vec<Contribution>, RequestError> {
    let Some(target) = version.vector(ordinal) else {
        return Ok(Vec::new());
    };
    let evidence = &side.evidence;
    let scale = match version.index().metric() {
        Metric::Cosine => (norm(side.vector) * norm(&target)).recip(),
        _ => f64::from(weight),
    };
    if !scale.is_finite() {
        return Ok(Vec::new());
    }
    let shares = match version.model() {
        Some((fold_in, _)) => {
            let (rows, strengths) = rows(version, evidence);
            fold_in.contributions(&rows, &strengths, &target)?
        }
        None => shares_of_mean(version, evidence, &target),
    };
    let catalogue = version.catalogue();
    let decisions = decide(profile, request.now_us, &catalogue, weights);
    // What an item brings is split over its events by their weight.
    let place = |decision: &EventDecision| {
        let item = decision.ordinal?;
        evidence
            .binary_search_by_key(&item, |&(ordinal, _)| ordinal)
            .ok()
    };
    let mut totals = vec![0.0; evidence.len()];
    for decision in &decisions {
        if let Some(place) = place(decision) {
            totals[place] += decision.weight;
        }
    }
    let mut contributions: Vec<Contribution> = Vec::new();
    for (at, decision) in decisions.iter().enumerate() {
        let Some(place) = place(decision) else {
            continue;
        };
        let share = shares[place] * scale * decision.weight / totals[place];
        if share != 0.0 && share.is_finite() {
            contributions.push(Contribution {
                event: at,
                share,
                weight: decision.weight,
                rule: decision.rule,
            });
        }
    }
    let time = |one: &Contribution| -> Option<&Event> { profile.events.get(one.event) };
    contributions.sort_by(|a, b| {
        b.share
            .abs()
            .total_cmp(&a.share.abs())
            .then_with(|| time(a).cmp(&time(b)))
    });
    Ok(contributions)
}

/// Shares where the listener is the weighted mean of their items: as [`fold_in`] makes it.
fn shares_of_mean(version: &Version, evidence: &[(u32, f32)], target: &[f32]) -> Vec<f64> {
    let total = |side: fn(f32) -> bool| -> f64 {
        let of_side = evidence.iter().filter(|(_, strength)| side(*strength));
        of_side.map(|(_, strength)| f64::from(strength.abs())).sum()
    };
    let (near, far) = (
        total(|strength| strength > 0.0),
        total(|strength| strength < 0.0),
    );
    evidence
        .iter()
        .map(|&(ordinal, strength)| {
            let along: f64 = version.vector(ordinal).map_or(0.0, |values| {
                let products = values.iter().zip(target);
                products.map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
            });
            // A negative strength makes a negative share by itself.
            let side = if strength > 0.0 { near } else { far };
            along * f64::from(strength) / side
        })
        .collect()
}

fn norm(values: &[f32]) -> f64 {
    let squares = values.iter().map(|&value| f64::from(value).powi(2));
    squares.sum::<f64>().sqrt()
}
