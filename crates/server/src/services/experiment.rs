//! `ExperimentService`: who gets which variant, and how variants differ.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use refrain::v1;
use refrain::v1::experiment_service_server::ExperimentService;
use refrain_engine::Version;
use refrain_ranking::Variant;
use tonic::{Request, Response, Status};

use super::recommendation::Question;
use super::{Handler, State, call_of, offload};
use crate::limits::{MAX_LABEL_BYTES, MAX_VARIANTS};
use crate::refusal::{Refusal, Resource};
use crate::validate::Check;
use crate::wire;

/// How far down the lists the comparison looks: each rank counts this share of the one above.
const PERSISTENCE: f64 = 0.9;

#[tonic::async_trait]
impl ExperimentService for Handler {
    async fn assign(
        &self,
        request: Request<v1::AssignRequest>,
    ) -> Result<Response<v1::AssignResponse>, Status> {
        let request = request.into_inner();
        let mut check = Check::default();
        check.id("unit_id", &request.unit_id);
        check.text("surface", &request.surface, MAX_LABEL_BYTES);
        check.finish()?;
        let assignment = self
            .0
            .policy
            .experiments()
            .assign(&request.surface, &request.unit_id);
        Ok(Response::new(v1::AssignResponse {
            assignment: Some(wire::assignment(&assignment)),
            config_digest: self.0.policy.digest().to_owned(),
        }))
    }

    async fn compare_variants(
        &self,
        request: Request<v1::CompareVariantsRequest>,
    ) -> Result<Response<v1::CompareVariantsResponse>, Status> {
        let call = call_of(&request)?;
        let request = request.into_inner();
        let mut check = Check::default();
        check.at_most("variants", request.variants.len(), MAX_VARIANTS);
        if request.request.is_none() {
            check.complain("request", "is not set");
        }
        check.finish()?;
        let asked = request.request.unwrap_or_default();
        let question = self
            .question(asked, call)
            .await
            .map_err(|refusal| refusal.within("request"))?;
        let state = Arc::clone(&self.0);
        let compare = move || state.compare(&question, &request.variants);
        Ok(Response::new(offload(compare).await?))
    }
}

impl State {
    /// The same question to several variants, of one version and one profile.
    fn compare(
        &self,
        question: &Question,
        names: &[String],
    ) -> Result<v1::CompareVariantsResponse, Refusal> {
        let variants = self.named(names)?;
        let version = self.versions.select(question.wanted())?;
        let mut compared: Vec<v1::VariantResult> = Vec::with_capacity(variants.len());
        let (mut unresolved_seeds, mut profile) = (Vec::new(), None);
        for variant in variants {
            let start = Instant::now();
            let (answer, degraded) = self
                .answer(question, &version, variant)
                .map_err(|refusal| refusal.within("request"))?;
            let elapsed_us = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX);
            let results = wire::results(&version, &answer);
            let first = compared.first().map_or(&results, |first| &first.results);
            let (overlap, rank_biased_overlap) = (
                overlap(first, &results),
                rank_biased_overlap(first, &results),
            );
            compared.push(v1::VariantResult {
                variant: variant.name.clone(),
                degraded,
                overlap,
                rank_biased_overlap,
                distinct_artists: distinct_artists(
                    &version,
                    answer.items.iter().map(|item| item.ordinal),
                ),
                elapsed_us,
                results,
            });
            unresolved_seeds = answer.unresolved;
            profile = answer.profile.as_ref().map(wire::profile_use);
        }
        Ok(v1::CompareVariantsResponse {
            variants: compared,
            served_by: Some(self.served_by(&version, question.revision())),
            unresolved_seeds,
            profile,
        })
    }

    /// The variants of these names; of none, all that are declared, as many as may be compared.
    fn named(&self, names: &[String]) -> Result<Vec<&Variant>, Refusal> {
        let variants = self.policy.variants();
        if names.is_empty() {
            return Ok(variants.iter().take(MAX_VARIANTS).collect());
        }
        let unknown = |name: &String| Refusal::NotFound {
            kind: Resource::Variant,
            name: name.clone(),
        };
        names
            .iter()
            .map(|name| variants.get(name).ok_or_else(|| unknown(name)))
            .collect()
    }
}

/// Share of the first list's items that are in the second, 0 to 1; of an empty list, all.
fn overlap(first: &[v1::Result], second: &[v1::Result]) -> f64 {
    if first.is_empty() {
        return 1.0;
    }
    let there: HashSet<&str> = second
        .iter()
        .map(|result| result.item_id.as_str())
        .collect();
    let common = first
        .iter()
        .filter(|result| there.contains(result.item_id.as_str()))
        .count();
    common as f64 / first.len() as f64
}

/// Rank-biased overlap of two lists without repetitions, extrapolated beyond their ends, 0 to 1
/// (Webber, Moffat and Zobel, "A similarity measure for indefinite rankings", 2010, equation 32).
/// Two empty lists agree. O(length).
fn rank_biased_overlap(first: &[v1::Result], second: &[v1::Result]) -> f64 {
    let (short, long) = if first.len() <= second.len() {
        (first, second)
    } else {
        (second, first)
    };
    let (s, l) = (short.len(), long.len());
    if s == 0 {
        return if l == 0 { 1.0 } else { 0.0 };
    }
    let mut seen: HashSet<&str> = HashSet::with_capacity(2 * l);
    // Items in common down to a depth, and the sums of the equation over the depths.
    let (mut common, mut at_short) = (0_usize, 0_usize);
    let (mut agreed, mut extended, mut weight) = (0.0, 0.0, 1.0);
    for depth in 1..=l {
        weight *= PERSISTENCE;
        for list in [short, long] {
            if let Some(result) = list.get(depth - 1)
                && !seen.insert(&result.item_id)
            {
                common += 1;
            }
        }
        agreed += common as f64 / depth as f64 * weight;
        if depth == s {
            at_short = common;
        }
        if depth > s {
            let beyond = at_short as f64 * (depth - s) as f64 / (s * depth) as f64;
            extended += beyond * weight;
        }
    }
    let rest = (common - at_short) as f64 / l as f64 + at_short as f64 / s as f64;
    (1.0 - PERSISTENCE) / PERSISTENCE * (agreed + extended) + rest * weight
}

fn distinct_artists(version: &Version, ordinals: impl Iterator<Item = u32>) -> u32 {
    let artists: HashSet<u32> = ordinals
        .filter_map(|ordinal| version.items().artist(ordinal))
        .collect();
    u32::try_from(artists.len()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(items: &str) -> Vec<v1::Result> {
        items
            .chars()
            .map(|item| v1::Result {
                item_id: item.into(),
                ..Default::default()
            })
            .collect()
    }

    fn close(a: f64, b: f64) {
        assert!((a - b).abs() < 1e-12, "{a} is not {b}");
    }

    #[test]
    fn overlap_is_the_share_of_the_first_list() {
        close(overlap(&list("abcd"), &list("dcxy")), 0.5);
        close(overlap(&list("ab"), &list("")), 0.0);
        close(overlap(&list(""), &list("ab")), 1.0);
    }

    #[test]
    fn rank_biased_overlap_is_the_published_one() {
        // abc and abd to depth 3 at persistence 0.9: 0.73 when extrapolated.
        close(rank_biased_overlap(&list("abc"), &list("abd")), 0.73);
        close(
            rank_biased_overlap(&list("abcdefghij"), &list("abcdefghij")),
            1.0,
        );
        close(rank_biased_overlap(&list("abc"), &list("xyz")), 0.0);
        close(rank_biased_overlap(&list(""), &list("")), 1.0);
        close(rank_biased_overlap(&list(""), &list("a")), 0.0);
    }

    #[test]
    fn lists_of_different_lengths_extrapolate_from_the_shorter() {
        // A list and its beginning agree as far as anybody can tell.
        close(rank_biased_overlap(&list("abcdef"), &list("abc")), 1.0);
        let (a, b) = (list("axbycz"), list("abc"));
        close(rank_biased_overlap(&a, &b), rank_biased_overlap(&b, &a));
        assert!(rank_biased_overlap(&a, &b) < 1.0);
    }
}
