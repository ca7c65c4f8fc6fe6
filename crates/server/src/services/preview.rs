//! `PreviewExclusion`: what a rule would change.

use std::collections::HashSet;
use std::sync::Arc;

use refrain::v1;
use refrain_engine::{
    Answer, Request as EngineRequest, SolvedTaste, Subject, Version, fold_in, recommend,
};
use refrain_taste::{EventDecision, Profile, decide};

use super::recommendation::{choose_for, page_size, wanted, with_scratch};
use super::{Handler, State, offload};
use crate::limits::MAX_LABEL_BYTES;
use crate::refusal::{Refusal, Resource};
use crate::stack::Call;
use crate::validate::Check;
use crate::wire;

impl Handler {
    pub(super) async fn preview(
        &self,
        mut request: v1::PreviewExclusionRequest,
        call: Call,
    ) -> Result<v1::PreviewExclusionResponse, Refusal> {
        let mut check = Check::default();
        let now_us = crate::clock::now_us();
        check.id("user_id", &request.user_id);
        check.text("surface", &request.surface, MAX_LABEL_BYTES);
        let fresh_id = || format!("r{}", self.0.names.next());
        let rule = wire::rule(&mut check, request.exclusion.take(), now_us, fresh_id);
        if let Some(Err(invalid)) = rule.as_ref().map(refrain_taste::Rule::validate) {
            check.complain(invalid.field, invalid.problem);
        }
        check.finish()?;
        let Some(rule) = rule else {
            return Err(Refusal::field("exclusion", "is not set"));
        };
        let (user, revision) = (&request.user_id, request.min_profile_revision);
        let profile = match revision {
            0 => self.0.profiles.read(user).await?,
            _ => {
                let profiles = &self.0.profiles;
                profiles
                    .read_at_least(user, revision, call.deadline)
                    .await?
            }
        };
        let mut with_rule = Profile::clone(&profile);
        if with_rule
            .rules
            .iter()
            .any(|made| made.rule_id == rule.rule_id)
        {
            return Err(Refusal::AlreadyExists {
                kind: Resource::Rule,
                name: rule.rule_id,
            });
        }
        with_rule.rules.push(rule);
        let version = self.0.versions.select(wanted(request.index.as_ref()))?;
        let state = Arc::clone(&self.0);
        offload(move || {
            let asked = Asked {
                version: &version,
                request: &request,
                now_us,
                call,
            };
            state.compare_profiles(&asked, &profile, &with_rule)
        })
        .await
    }
}

struct Asked<'a> {
    version: &'a Version,
    request: &'a v1::PreviewExclusionRequest,
    now_us: i64,
    call: Call,
}

impl State {
    fn compare_profiles(
        &self,
        asked: &Asked<'_>,
        now: &Profile,
        then: &Profile,
    ) -> Result<v1::PreviewExclusionResponse, Refusal> {
        let Asked {
            version, request, ..
        } = *asked;
        let decisions = |profile| {
            decide(
                profile,
                asked.now_us,
                &version.catalogue(),
                self.tastes.weights(),
            )
        };
        let change = Change::between(now, &decisions(now), &decisions(then));
        let (before, taste_before) = self.answer_as(asked, now)?;
        let (after, taste_after) = self.answer_as(asked, then)?;
        let forbidden = |taste: &SolvedTaste| -> HashSet<u32> {
            taste.taste.forbidden.iter().copied().collect()
        };
        let (was, is) = (forbidden(&taste_before), forbidden(&taste_after));
        let shown: HashSet<u32> = after.items.iter().map(|item| item.ordinal).collect();
        let kept = before
            .items
            .iter()
            .filter(|item| shown.contains(&item.ordinal));
        let overlap = match before.items.len() {
            0 => 1.0,
            all => kept.count() as f64 / all as f64,
        };
        let policy = self.policy.load();
        let choice = choose_for(&policy, &request.surface, &request.user_id)?;
        Ok(v1::PreviewExclusionResponse {
            events_changed: change.changed,
            events_excluded: change.excluded,
            minutes: change.minutes,
            items_forbidden: is.difference(&was).count() as u64,
            items_released: was.difference(&is).count() as u64,
            before: wire::results(version, &before),
            after: wire::results(version, &after),
            overlap,
            profile_before: before.profile.as_ref().map(wire::profile_use),
            profile_after: after.profile.as_ref().map(wire::profile_use),
            served_by: Some(v1::ServedBy {
                variant: choice.variant.name.clone(),
                experiment: choice.assignment.experiment.unwrap_or_default().to_owned(),
                arm: choice.assignment.arm.unwrap_or_default().to_owned(),
                ..self.served_by(&policy, version, now.revision)
            }),
        })
    }

    /// What the listener would be answered with a profile.
    fn answer_as(
        &self,
        asked: &Asked<'_>,
        profile: &Profile,
    ) -> Result<(Answer, SolvedTaste), Refusal> {
        let policy = self.policy.load();
        let choice = choose_for(&policy, &asked.request.surface, &asked.request.user_id)?;
        let weights = self.tastes.weights();
        with_scratch(|scratch| {
            let solved = fold_in(asked.version, profile, asked.now_us, weights, scratch)
                .map_err(refrain_engine::RequestError::FoldIn)?;
            let request = EngineRequest {
                deadline: Some(asked.call.deadline.into()),
                ..EngineRequest::new(
                    Subject::Solved(&solved),
                    page_size(asked.request.page_size),
                    asked.now_us,
                )
            };
            let answer = recommend(asked.version, &request, choice.variant, weights, scratch)?;
            Ok((answer, solved))
        })
    }
}

/// What a rule does to the events of a profile.
#[derive(Debug, Default)]
struct Change {
    changed: u64,
    excluded: u64,
    minutes: f64,
}

impl Change {
    fn between(profile: &Profile, now: &[EventDecision], then: &[EventDecision]) -> Self {
        let mut change = Self::default();
        for (event, (now, then)) in profile.events.iter().zip(now.iter().zip(then)) {
            // Of an item that the version does not know the weight is 0 either way.
            let same = now.weight.to_bits() == then.weight.to_bits();
            if same && now.kept.to_bits() == then.kept.to_bits() {
                continue;
            }
            change.changed += 1;
            change.excluded += u64::from(!now.is_excluded() && then.is_excluded());
            let played = event.played_ms.unwrap_or_default() as f64 / 60_000.0;
            change.minutes += played * f64::from(event.count);
        }
        change
    }
}
