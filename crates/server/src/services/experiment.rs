//! `ExperimentService`: who gets which variant, and how variants differ.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use refrain::v1;
use refrain::v1::experiment_service_server::ExperimentService;
use refrain_engine::{Answer, Policy, Version, moved};
use refrain_ranking::{PERSISTENCE, Variant, overlap, rank_biased_overlap};
use tonic::{Request, Response, Status};

use super::recommendation::{Question, Ranker};
use super::{Handler, State, call_of, offload};
use crate::limits::{MAX_LABEL_BYTES, MAX_VARIANTS};
use crate::refusal::{Refusal, Resource};
use crate::validate::Check;
use crate::wire;

#[tonic::async_trait]
impl ExperimentService for Handler {
    async fn list_experiments(
        &self,
        request: Request<v1::ListExperimentsRequest>,
    ) -> Result<Response<v1::ListExperimentsResponse>, Status> {
        let wanted = request.into_inner().layer;
        let mut check = Check::default();
        check.text("layer", &wanted, MAX_LABEL_BYTES);
        check.finish()?;
        let policy = self.0.policy.load();
        let experiments = policy.experiments();
        let in_layer = |layer: &str| wanted.is_empty() || layer == wanted;
        let layers: Vec<_> = experiments
            .layers()
            .filter(|layer| in_layer(layer.name))
            .map(|layer| v1::ExperimentLayer {
                name: layer.name.to_owned(),
                epoch: layer.epoch,
                free_bp: layer.free_bp,
            })
            .collect();
        if layers.is_empty() && !wanted.is_empty() {
            let (kind, name) = (Resource::Layer, wanted);
            return Err(Refusal::NotFound { kind, name }.into());
        }
        let listed = experiments.list().filter(|one| in_layer(one.layer));
        Ok(Response::new(v1::ListExperimentsResponse {
            experiments: listed.map(wire::experiment).collect(),
            layers,
            enabled: experiments.is_enabled(),
            config_digest: policy.digest().to_owned(),
        }))
    }

    async fn assign(
        &self,
        request: Request<v1::AssignRequest>,
    ) -> Result<Response<v1::AssignResponse>, Status> {
        let request = request.into_inner();
        let mut check = Check::default();
        check.id("unit_id", &request.unit_id);
        check.text("surface", &request.surface, MAX_LABEL_BYTES);
        wire::check_attributes(&mut check, "attributes", &request.attributes);
        check.finish()?;
        let policy = self.0.policy.load();
        let (surface, unit) = (&request.surface, &request.unit_id);
        let choice = policy
            .choose_with(surface, unit, None, &request.attributes)
            .map_err(|unknown| Refusal::NotFound {
                kind: Resource::Variant,
                name: unknown.name,
            })?;
        Ok(Response::new(v1::AssignResponse {
            assignment: Some(wire::assignment(&choice.assignment)),
            further: choice.further.iter().map(wire::assignment).collect(),
            config_digest: policy.digest().to_owned(),
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
        let policy = self.policy.load();
        let variants = named(&policy, names)?;
        let version = self.versions.select(question.wanted())?;
        let mut compared: Vec<v1::VariantResult> = Vec::with_capacity(variants.len());
        let (mut unresolved_seeds, mut profile) = (Vec::new(), None);
        let mut first: Option<(Answer, &Variant)> = None;
        for variant in variants {
            let start = Instant::now();
            let (mut answer, degraded) = self
                .answer(question, &version, Ranker::One(variant), true)
                .map_err(|refusal| refusal.within("request"))?;
            let elapsed_us = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX);
            unresolved_seeds = std::mem::take(&mut answer.unresolved);
            profile = answer.profile.as_ref().map(wire::profile_use);
            let (base, base_variant) = match &first {
                Some((base, base_variant)) => (base, *base_variant),
                None => (&answer, variant),
            };
            let ordinals = |answer: &Answer| -> Vec<u32> {
                answer.items.iter().map(|item| item.ordinal).collect()
            };
            let (was, is) = (ordinals(base), ordinals(&answer));
            let moves = moved(&version, (base, base_variant), (&answer, variant));
            let artists = artists(&version, &answer);
            compared.push(v1::VariantResult {
                variant: variant.name.clone(),
                degraded,
                overlap: overlap(&was, &is),
                rank_biased_overlap: rank_biased_overlap(&was, &is, PERSISTENCE),
                distinct_artists: u32::try_from(artists.len()).unwrap_or(u32::MAX),
                elapsed_us,
                results: wire::results(&version, &answer),
                moves: moves
                    .iter()
                    .map(|step| wire::moved(&version, step))
                    .collect(),
                missing_features: answer.missing.iter().map(wire::missing).collect(),
                artists,
                scenes: scenes(&version, &answer),
            });
            if first.is_none() {
                first = Some((answer, variant));
            }
        }
        Ok(v1::CompareVariantsResponse {
            variants: compared,
            served_by: Some(self.served_by(&policy, &version, question.revision())),
            unresolved_seeds,
            profile,
        })
    }
}

/// The variants of these names; of none, all that are declared, as many as may be compared.
fn named<'a>(policy: &'a Policy, names: &[String]) -> Result<Vec<&'a Variant>, Refusal> {
    let variants = policy.variants();
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

/// The artists of a list with how many items each has.
fn artists(version: &Version, answer: &Answer) -> Vec<v1::GroupCount> {
    let items = version.items();
    mix(
        answer,
        |item| items.artist(item),
        |artist| (items.artist_name(artist), ""),
    )
}

/// The scenes of a list, where the version knows any.
fn scenes(version: &Version, answer: &Answer) -> Vec<v1::GroupCount> {
    mix(
        answer,
        |item| version.scene(item),
        |scene| version.scene_name(scene).unwrap_or_default(),
    )
}

/// The groups of a list with how many items each has, most first, then by name. `named`: name and label.
fn mix<'a>(
    answer: &Answer,
    group: impl Fn(u32) -> Option<u32>,
    named: impl Fn(u32) -> (&'a str, &'a str),
) -> Vec<v1::GroupCount> {
    let mut counts: BTreeMap<u32, u32> = BTreeMap::new();
    for group in answer.items.iter().filter_map(|item| group(item.ordinal)) {
        *counts.entry(group).or_default() += 1;
    }
    let counted = counts.into_iter().map(|(group, items)| {
        let (name, label) = named(group);
        v1::GroupCount {
            name: name.to_owned(),
            items,
            label: label.to_owned(),
        }
    });
    let mut mix: Vec<_> = counted.collect();
    mix.sort_by(|a, b| b.items.cmp(&a.items).then_with(|| a.name.cmp(&b.name)));
    mix
}
