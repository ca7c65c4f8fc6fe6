//! Recommending: retrieve, rank, and keep to what is allowed.

use std::sync::Arc;

use refrain_als::FoldInScratch;
use refrain_index::{Deadline, Filter, Hit, OrdinalSet, SearchStats};
use refrain_ranking::{
    Candidate, Caps, Feature, RankScratch, Ranked, Shape, Variant, Width, complete, rank,
};
use refrain_taste::Weights;
use rustc_hash::FxHashMap;

use crate::answer::{Absence, Answer, Degraded, Missing, Scored, Source};
use crate::debiased::Debiased;
use crate::features::Features;
use crate::filter::Allowed;
use crate::popular::popular;
use crate::query::{from_seeds, is_zero, searchable};
use crate::request::{Fallback, Request, RequestError, Seed, Seen, Subject};
use crate::resemblance::{Cosines, Gathered};
use crate::retrieve::{Params, SearchScratch, joined};
use crate::solve::fold_in;
use crate::trace::Trace;
use crate::version::Version;

/// Memory that requests use again. One thread uses it at a time; it fits any version.
#[derive(Debug, Default)]
pub struct Scratch {
    pub(crate) search: SearchScratch,
    pub(crate) hits: Vec<Hit>,
    pub(crate) fold_in: FoldInScratch,
    query: Vec<f32>,
    candidates: Vec<Candidate>,
    rank: RankScratch,
    ranked: Vec<Ranked>,
    gathered: Gathered,
}

/// Answers a request under a variant.
///
/// For a listener of several interests, where the variant asks for them, candidates are retrieved for each,
/// and their similarity is that to the best one.
///
/// Retrieves the variant's number of candidates, scores them and makes a list of them: spread, drawn
/// and capped as the variant says. Where caps use the candidates up, more are retrieved from the
/// artists that have room left, until `k` are found or nothing is left. `weights` say how much events count; they matter for
/// [`Subject::Profile`] only.
///
/// # Errors
/// [`RequestError`] when the request is not valid, or a seed is missing that must not.
pub fn recommend(
    version: &Version,
    request: &Request<'_>,
    variant: &Variant,
    weights: &Weights,
    scratch: &mut Scratch,
) -> Result<Answer, RequestError> {
    request.check(version)?;
    let solved;
    let mut answer = Answer::default();
    let mut query = std::mem::take(&mut scratch.query);
    query.clear();
    let nobody = OrdinalSet::new();
    let mut seeds = OrdinalSet::new();
    let mut taste = None;
    let mut liked = Vec::new();
    let mut any = true;
    match request.subject {
        Subject::Vector(values) => query.extend_from_slice(values),
        Subject::Seeds { positive, negative } => {
            let found = from_seeds(
                version,
                positive,
                negative,
                request.missing_seeds,
                &mut query,
            )?;
            answer.unresolved = found.unresolved;
            (seeds, any) = (found.ordinals, found.any);
            liked.extend(positive.iter().filter_map(|seed| match *seed {
                Seed::Item { id, weight } => Some((version.items().ordinal(id)?, weight)),
                Seed::Vector { .. } => None,
            }));
        }
        Subject::Profile { profile } => {
            solved = fold_in(version, profile, request.now_us, weights, scratch)?;
            taste = Some(&solved);
        }
        Subject::Solved(solved) => taste = Some(solved),
    }
    if let Some(taste) = taste {
        query.extend_from_slice(&taste.vector);
        // No evidence is no direction, whatever the metric makes of the zero vector.
        any = !is_zero(&query);
        answer.profile = Some(taste.profile_use());
    }

    let compiled = version.compiled(request.filter);
    let heard = taste.map_or(&seeds, |taste| taste.heard());
    let exclude = [
        version.blocked(),
        &compiled.exclude,
        taste.map_or(&nobody, |taste| taste.forbidden()),
        if request.seen == Seen::Exclude {
            heard
        } else {
            &nobody
        },
    ];
    let recommendation = Recommendation {
        version,
        request,
        variant,
        allowed: Allowed::new(&exclude, compiled.allow.as_ref()),
        evidence: taste.map_or(&liked, |taste| &taste.taste.evidence),
        caps: Caps {
            artist: request
                .max_per_artist
                .or(variant.caps.artist)
                .filter(|&cap| cap > 0),
            scene: variant.caps.scene,
        },
        debias: version.debiased(variant.debias),
    };
    if any && searchable(version.index().metric(), &query) {
        let interests = match taste {
            Some(taste) if variant.interests > 1 => {
                taste.interests(version, variant.interests, &mut scratch.fold_in)?
            }
            _ => Arc::default(),
        };
        let mut queries: Vec<&[f32]> = interests.iter().map(|one| &*one.vector).collect();
        if queries.is_empty() {
            queries.push(&query);
        }
        if let Some(profile) = &mut answer.profile {
            profile.interests = u32::try_from(queries.len()).unwrap_or(u32::MAX);
        }
        recommendation.search(&queries, scratch, &mut answer)?;
    } else if request.fallback == Fallback::Popular {
        let Recommendation { allowed, caps, .. } = &recommendation;
        popular(
            version,
            variant,
            allowed,
            request.k,
            caps.artist,
            &mut answer.items,
        );
        answer.degrade(Degraded::FallbackUsed);
    }
    scratch.query = query;

    let before = answer.items.len();
    answer
        .items
        .retain(|item| recommendation.allowed.contains(item.ordinal));
    debug_assert_eq!(
        answer.items.len(),
        before,
        "a path returned what is not allowed"
    );
    if answer.items.len() < request.k {
        answer.degrade(Degraded::FewerThanAsked);
    }
    Ok(answer)
}

/// Rounds of asking for more candidates before all that are left are scored. Each leaves out the
/// artists that the rounds before filled, so more than a few are needed only where each of many
/// artists has more items than there are candidates.
const ROUNDS: usize = 6;

/// Items scored at a time when all are, between two looks at the clock.
const BLOCK: usize = 256;

/// A request with everything decided but the items.
struct Recommendation<'a> {
    version: &'a Version,
    request: &'a Request<'a>,
    variant: &'a Variant,
    allowed: Allowed<'a>,
    /// What the listener is known to like and not to.
    evidence: &'a [(u32, f32)],
    caps: Caps,
    /// Where the variant takes popularity out of similarities.
    debias: Option<Debiased>,
}

impl Recommendation<'_> {
    fn search(
        &self,
        queries: &[&[f32]],
        scratch: &mut Scratch,
        answer: &mut Answer,
    ) -> Result<(), RequestError> {
        let Self {
            variant, request, ..
        } = self;
        let k = request.k;
        let shape = Shape {
            k,
            caps: self.caps,
            mmr: variant.mmr,
            exploration: variant.exploration,
            seed: request.seed,
        };
        // Similarity alone ranks as retrieval does, which keeps to a cap per artist itself: more could not
        // change anything, but for whoever asks what became of those that the cap left out.
        let as_retrieved = shape.caps.scene.is_none()
            && (shape.caps.artist.is_none() || !request.trace)
            && shape.mmr.is_none()
            && shape.exploration.is_none()
            && variant.score.is_feature(Feature::Similarity);
        let per_artist = shape.caps.artist.filter(|_| as_retrieved);
        let wanted = if as_retrieved {
            k
        } else {
            variant.candidates.max(k)
        };
        let features = Features::new(self.version, variant, self.evidence, request.now_us);
        let two_caps = self.caps.artist.is_some() && self.caps.scene.is_some();
        let mut full = OrdinalSet::new();
        let mut stats = exact();
        let mut log_probability = None;
        // Candidates that the model has seen.
        let mut judged = 0;
        scratch.candidates.clear();
        for round in 0.. {
            let left = if round < ROUNDS {
                let (round, more) = self.retrieve(queries, (wanted, per_artist), &full, scratch)?;
                stats = joined(stats, round);
                more
            } else {
                // Items of full artists may have to be exchanged for others when scenes are capped.
                let leave_out = if two_caps { &OrdinalSet::new() } else { &full };
                stats = joined(stats, self.retrieve_all(queries, leave_out, scratch)?);
                false
            };
            if let Some(deadline) = request.deadline {
                deadline.give_way();
            }
            if let Some(model) = &variant.model {
                features.ask(model, &mut scratch.candidates[judged..]);
                judged = scratch.candidates.len();
            }
            log_probability = self.rank(&shape, &features, scratch);
            if scratch.ranked.len() >= k || !left || stats.truncated {
                // Whether there was a round before depended on what was drawn, under two caps alone:
                // else every list that cannot be added to is equally long.
                if two_caps && round > 0 {
                    log_probability = None;
                }
                break;
            }
            self.fill_up(&scratch.ranked, &mut full);
        }
        if two_caps
            && scratch.ranked.len() < k
            && complete(&shape, &mut scratch.rank, &mut scratch.ranked)
        {
            log_probability = None;
        }

        let drawn = log_probability.is_some();
        answer
            .items
            .extend(scratch.ranked.iter().map(|ranked| Scored {
                propensity: ranked.propensity.filter(|_| drawn),
                explored: ranked.explored && drawn,
                ..Scored::new(
                    ranked.ordinal,
                    ranked.score,
                    ranked.similarity,
                    Source::of(self.version, ranked.ordinal, stats),
                )
            }));
        answer.slate_logprob = log_probability;
        answer.search = stats;
        if request.trace {
            let Scratch {
                candidates, rank, ..
            } = scratch;
            answer.trace = Some(Trace::new(variant, &features, candidates, rank));
        }
        if stats.truncated {
            answer.degrade(Degraded::TimeBudget);
        }
        if !scratch.candidates.is_empty() {
            answer.missing = features.missing(variant);
            if self.caps.scene.is_some() && !self.version.has_scenes() {
                answer.missing.push(Missing {
                    feature: Feature::SceneMatch,
                    absence: Absence::Version,
                });
            }
            answer.missing.dedup();
            if !answer.missing.is_empty() {
                answer.degrade(Degraded::FeatureMissing);
            }
        }
        Ok(())
    }

    /// Adds the nearest `wanted` allowed items that are not in `full`, at most so many of an artist, to the
    /// candidates, of each query; whether there may be more.
    fn retrieve(
        &self,
        queries: &[&[f32]],
        (wanted, per_artist): (usize, Option<u32>),
        full: &OrdinalSet,
        scratch: &mut Scratch,
    ) -> Result<(SearchStats, bool), RequestError> {
        let allowed = self.allowed.filter();
        let mut exclude = Vec::with_capacity(allowed.exclude.len() + 2);
        exclude.extend_from_slice(allowed.exclude);
        exclude.push(full);
        // What a round before brought must not come again.
        let known: OrdinalSet;
        if !scratch.candidates.is_empty() {
            known = ordinals(&scratch.candidates);
            exclude.push(&known);
        }
        let filter = Filter {
            exclude: &exclude,
            allow: allowed.allow,
        };
        let (mut stats, mut more) = (exact(), false);
        let mut found = OrdinalSet::new();
        for query in queries {
            stats = joined(
                stats,
                self.nearest(query, (wanted, per_artist), filter, scratch)?,
            );
            let Scratch {
                hits, candidates, ..
            } = &mut *scratch;
            more |= hits.len() >= wanted;
            let items = self.version.items();
            items.bring_near(hits.iter().map(|hit| hit.ordinal));
            if let [_] = queries {
                let hits = hits.iter();
                candidates.extend(hits.map(|hit| self.candidate(hit.ordinal, hit.score)));
            } else {
                found.extend(hits.iter().map(|hit| hit.ordinal));
            }
        }
        // What one query brought, another may be nearer to without having brought it.
        if queries.len() > 1 && !found.is_empty() {
            self.score(queries, &found, scratch)?;
        }
        Ok((stats, more))
    }

    /// Puts the nearest `wanted` items that a filter lets pass, at most so many of an artist, into
    /// `scratch.hits`.
    fn nearest(
        &self,
        query: &[f32],
        (wanted, per_artist): (usize, Option<u32>),
        filter: Filter<'_>,
        scratch: &mut Scratch,
    ) -> Result<SearchStats, RequestError> {
        let Scratch { search, hits, .. } = scratch;
        let deadline = self.request.deadline;
        let asked = self.request.ef_search.map(Width::Ef);
        let asked = asked.or(self.request.recall.map(Width::Recall));
        let ef_search = match asked.or(self.variant.width) {
            Some(Width::Ef(ef_search)) => ef_search,
            Some(Width::Recall(recall)) => self.version.ef_search_for(recall),
            None => self.version.ef_search(),
        };
        let params = Params {
            ef_search,
            exact: self.request.exact,
            filter,
            deadline,
            debias: self.debias.as_ref(),
            per_artist,
        };
        Ok(self.version.search(query, wanted, &params, search, hits)?)
    }

    /// Makes items candidates, each with its similarity to the best of the queries. O(queries · items · dim).
    fn score(
        &self,
        queries: &[&[f32]],
        items: &OrdinalSet,
        scratch: &mut Scratch,
    ) -> Result<SearchStats, RequestError> {
        let params = Params {
            ef_search: 1,
            exact: true,
            filter: Filter {
                exclude: &[],
                allow: Some(items),
            },
            deadline: None,
            debias: self.debias.as_ref(),
            per_artist: None,
        };
        let mut stats = exact();
        let mut best: FxHashMap<u32, f32> = FxHashMap::default();
        let Scratch {
            search,
            hits,
            candidates,
            ..
        } = scratch;
        for query in queries {
            let all = items.len();
            let spent = self.version.search(query, all, &params, search, hits)?;
            stats = joined(stats, spent);
            for hit in hits.iter() {
                let best = best.entry(hit.ordinal).or_insert(hit.score);
                *best = best.max(hit.score);
            }
        }
        // In the order of the last list, which holds all: not in that of a table.
        let scored = hits
            .iter()
            .filter_map(|hit| Some((hit.ordinal, *best.get(&hit.ordinal)?)));
        candidates.extend(scored.map(|(ordinal, score)| self.candidate(ordinal, score)));
        Ok(stats)
    }

    /// Makes all other allowed items that are not in `full` candidates: the last resort, O(n · dim).
    /// Block by block, so that the deadline is kept.
    fn retrieve_all(
        &self,
        queries: &[&[f32]],
        full: &OrdinalSet,
        scratch: &mut Scratch,
    ) -> Result<SearchStats, RequestError> {
        let known = ordinals(&scratch.candidates);
        let new = |&ordinal: &u32| {
            self.allowed.contains(ordinal) && !known.contains(ordinal) && !full.contains(ordinal)
        };
        let mut left = (0..self.version.items().len()).filter(new);
        let mut stats = exact();
        loop {
            let block: OrdinalSet = left.by_ref().take(BLOCK).collect();
            if block.is_empty() {
                return Ok(stats);
            }
            if self.request.deadline.is_some_and(Deadline::has_passed) {
                stats.truncated = true;
                return Ok(stats);
            }
            stats = joined(stats, self.score(queries, &block, scratch)?);
        }
    }

    fn candidate(&self, ordinal: u32, similarity: f32) -> Candidate {
        // Reading artist and scene of every candidate is worth it only where something asks.
        let by_artist = self.caps.artist.is_some() || Features::by_artist(self.variant);
        let by_scene = self.caps.scene.is_some() || Features::by_scene(self.variant);
        Candidate {
            ordinal,
            similarity,
            artist: by_artist
                .then(|| self.version.items().artist(ordinal))
                .flatten(),
            scene: by_scene.then(|| self.version.scene(ordinal)).flatten(),
            model: None,
        }
    }

    /// Makes the list of the candidates so far; the logarithm of its probability where it was drawn.
    fn rank(&self, shape: &Shape, features: &Features<'_>, scratch: &mut Scratch) -> Option<f64> {
        let Scratch {
            candidates,
            rank: memory,
            ranked,
            gathered,
            ..
        } = scratch;
        let mut cosines = Cosines {
            version: self.version,
            memory: gathered,
        };
        let outcome = rank(
            &self.variant.score,
            candidates,
            &|feature, candidate| features.of(feature, candidate),
            shape,
            &mut cosines,
            memory,
            ranked,
        );
        outcome.log_probability
    }

    /// Adds all items of the artists that have no room left in the list.
    fn fill_up(&self, list: &[Ranked], full: &mut OrdinalSet) {
        let Some(cap) = self.caps.artist else { return };
        let items = self.version.items();
        let mut counts: FxHashMap<u32, u32> = FxHashMap::default();
        for artist in list
            .iter()
            .filter_map(|ranked| items.artist(ranked.ordinal))
        {
            let count = counts.entry(artist).or_insert(0);
            *count += 1;
            if *count == cap {
                full.extend(items.items_of_artist(artist));
            }
        }
    }
}

fn ordinals(candidates: &[Candidate]) -> OrdinalSet {
    candidates
        .iter()
        .map(|candidate| candidate.ordinal)
        .collect()
}

fn exact() -> SearchStats {
    SearchStats {
        exact: true,
        ..SearchStats::default()
    }
}
