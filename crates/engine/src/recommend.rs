//! Recommending: retrieve, rank, and keep to what is allowed.

use std::cell::Cell;
use std::time::Instant;

use refrain_als::FoldInScratch;
use refrain_index::{Filter, Hit, OrdinalSet, Scratch as SearchScratch, SearchParams, SearchStats};
use refrain_ranking::{
    Candidate, Feature, RankScratch, Ranked, Variant, freshness, popularity, rank,
};
use refrain_taste::Weights;
use rustc_hash::FxHashMap;

use crate::answer::{Answer, Degraded, Scored, Source};
use crate::filter::{Allowed, Compiled};
use crate::popular::popular;
use crate::query::{from_seeds, is_zero, searchable};
use crate::request::{Fallback, Request, RequestError, Seen, Subject};
use crate::solve::fold_in;
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
}

/// Answers a request under a variant.
///
/// Retrieves the variant's number of candidates, scores and orders them, and caps artists. Where the
/// cap uses the candidates up, more are retrieved from the artists that have room left, until `k` are
/// found or nothing is left. `weights` say how much events count; they matter for
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

    let compiled = Compiled::new(&request.filter, version.items());
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
        cap: request
            .max_per_artist
            .or(variant.max_per_artist)
            .filter(|&cap| cap > 0),
    };
    if any && searchable(version.index().metric(), &query) {
        recommendation.search(&query, scratch, &mut answer)?;
    } else if request.fallback == Fallback::Popular {
        let Recommendation { allowed, cap, .. } = &recommendation;
        popular(version, allowed, request.k, *cap, &mut answer.items);
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
    cap: Option<u32>,
}

impl Recommendation<'_> {
    fn search(
        &self,
        query: &[f32],
        scratch: &mut Scratch,
        answer: &mut Answer,
    ) -> Result<(), RequestError> {
        let k = self.request.k;
        // Similarity alone ranks as retrieval does: without a cap, more could not change anything.
        let as_retrieved = self.cap.is_none() && self.variant.score.is_feature(Feature::Similarity);
        let wanted = if as_retrieved {
            k
        } else {
            self.variant.candidates.max(k)
        };
        let mut full = OrdinalSet::new();
        let mut stats = exact();
        let mut missing = MissingFeatures::default();
        scratch.candidates.clear();
        for round in 0.. {
            let left = if round < ROUNDS {
                let round = self.retrieve(query, wanted, &full, scratch)?;
                stats = joined(stats, round);
                scratch.hits.len() >= wanted
            } else {
                stats = joined(stats, self.retrieve_all(query, &full, scratch)?);
                false
            };
            missing = self.rank(scratch);
            if scratch.ranked.len() >= k || !left || stats.truncated {
                break;
            }
            self.fill_up(&scratch.ranked, &mut full);
        }

        let source = if stats.exact {
            Source::Exact
        } else {
            Source::Ann
        };
        answer.items.extend(scratch.ranked.iter().map(|ranked| {
            let Ranked {
                ordinal,
                score,
                similarity,
            } = *ranked;
            Scored {
                ordinal,
                score,
                similarity,
                source,
            }
        }));
        answer.search = stats;
        if stats.truncated {
            answer.degrade(Degraded::TimeBudget);
        }
        if missing.any(self.variant) && !scratch.candidates.is_empty() {
            answer.degrade(Degraded::FeatureMissing);
        }
        Ok(())
    }

    /// Adds the nearest `wanted` allowed items that are not in `full` to the candidates.
    fn retrieve(
        &self,
        query: &[f32],
        wanted: usize,
        full: &OrdinalSet,
        scratch: &mut Scratch,
    ) -> Result<SearchStats, RequestError> {
        let index = self.version.index();
        let Scratch {
            search,
            hits,
            candidates,
            ..
        } = scratch;
        let allowed = self.allowed.filter();
        let mut exclude = Vec::with_capacity(allowed.exclude.len() + 2);
        exclude.extend_from_slice(allowed.exclude);
        exclude.push(full);
        // What a round before brought must not come again.
        let known: OrdinalSet;
        if !candidates.is_empty() {
            known = ordinals(candidates);
            exclude.push(&known);
        }
        let filter = Filter {
            exclude: &exclude,
            allow: allowed.allow,
        };
        let stats = if self.request.exact {
            index.search_exact_within(
                query,
                wanted,
                &filter,
                self.request.deadline,
                search,
                hits,
            )?
        } else {
            let widths = [self.request.ef_search, self.variant.ef_search];
            let ef_search = widths.into_iter().flatten().next();
            let ef_search = ef_search.unwrap_or_else(|| self.version.ef_search());
            let params = SearchParams {
                ef_search,
                filter,
                deadline: self.request.deadline,
            };
            index.search(query, wanted, &params, search, hits)?
        };
        candidates.extend(
            hits.iter()
                .map(|hit| self.candidate(hit.ordinal, hit.score)),
        );
        Ok(stats)
    }

    /// Makes all other allowed items that are not in `full` candidates: the last resort, O(n · dim).
    /// Block by block, so that the deadline is kept.
    fn retrieve_all(
        &self,
        query: &[f32],
        full: &OrdinalSet,
        scratch: &mut Scratch,
    ) -> Result<SearchStats, RequestError> {
        let Scratch {
            search,
            hits,
            candidates,
            ..
        } = scratch;
        let known = ordinals(candidates);
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
            if self
                .request
                .deadline
                .is_some_and(|deadline| Instant::now() >= deadline)
            {
                stats.truncated = true;
                return Ok(stats);
            }
            let filter = Filter {
                exclude: &[],
                allow: Some(&block),
            };
            let index = self.version.index();
            stats = joined(
                stats,
                index.search_exact(query, BLOCK, &filter, search, hits)?,
            );
            candidates.extend(
                hits.iter()
                    .map(|hit| self.candidate(hit.ordinal, hit.score)),
            );
        }
    }

    fn candidate(&self, ordinal: u32, similarity: f32) -> Candidate {
        // Reading the artist of every candidate is worth it only under a cap.
        let artist = self.cap.and_then(|_| self.version.items().artist(ordinal));
        Candidate {
            ordinal,
            similarity,
            artist,
        }
    }

    fn rank(&self, scratch: &mut Scratch) -> MissingFeatures {
        let items = self.version.items();
        let most = items.max_popularity();
        let half_life = self.variant.freshness_half_life_days;
        let missing = MissingFeatures {
            popularity: most == 0.0,
            ..MissingFeatures::default()
        };
        let feature = |feature: Feature, candidate: &Candidate| match feature {
            Feature::Similarity => candidate.similarity,
            Feature::Popularity => popularity(items.popularity(candidate.ordinal), most),
            Feature::Freshness => items
                .release_time(candidate.ordinal)
                .map_or(0.0, |released| {
                    missing.freshness.set(false);
                    freshness(age_days(released, self.request.now_us), half_life)
                }),
            // A feature that this engine does not know is missing in every version.
            _ => 0.0,
        };
        let Scratch {
            candidates,
            rank: memory,
            ranked,
            ..
        } = scratch;
        rank(
            &self.variant.score,
            candidates,
            &feature,
            self.request.k,
            self.cap,
            memory,
            ranked,
        );
        missing
    }

    /// Adds all items of the artists that have no room left in the list.
    fn fill_up(&self, list: &[Ranked], full: &mut OrdinalSet) {
        let Some(cap) = self.cap else { return };
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

/// Features that no candidate has had so far.
struct MissingFeatures {
    popularity: bool,
    freshness: Cell<bool>,
}

impl Default for MissingFeatures {
    fn default() -> Self {
        Self {
            popularity: false,
            freshness: Cell::new(true),
        }
    }
}

impl MissingFeatures {
    fn any(&self, variant: &Variant) -> bool {
        variant
            .score
            .features()
            .iter()
            .any(|feature| match feature {
                Feature::Similarity => false,
                Feature::Popularity => self.popularity,
                Feature::Freshness => self.freshness.get(),
                _ => true,
            })
    }
}

fn age_days(released_s: i64, now_us: i64) -> f64 {
    (now_us as f64 / 1e6 - released_s as f64) / 86_400.0
}

fn exact() -> SearchStats {
    SearchStats {
        exact: true,
        ..SearchStats::default()
    }
}

/// Two searches as one: exact when both were, truncated when either was.
fn joined(a: SearchStats, b: SearchStats) -> SearchStats {
    SearchStats {
        hops: a.hops.saturating_add(b.hops),
        distance_comps: a.distance_comps.saturating_add(b.distance_comps),
        exact: a.exact && b.exact,
        truncated: a.truncated || b.truncated,
    }
}
