//! `Explain`: why an item is, or is not, in an answer.

use std::sync::Arc;

use refrain::v1;
use refrain::v1::recommend_request::Subject as WireSubject;
use refrain_engine::{Explanation, Outcome, explain};
use refrain_taste::Profile;

use super::recommendation::{Question, choose, with_scratch};
use super::{Handler, State, offload};
use crate::limits::{DEFAULT_PAGE_SIZE, MAX_LIST_SIZE};
use crate::refusal::Refusal;
use crate::stack::Call;
use crate::validate::Check;
use crate::wire;

impl Handler {
    pub(super) async fn explained(
        &self,
        request: v1::ExplainRequest,
        call: Call,
    ) -> Result<v1::ExplainResponse, Refusal> {
        let mut check = Check::default();
        check.id("item_id", &request.item_id);
        let most = check.size(
            "max_contributions",
            request.max_contributions,
            DEFAULT_PAGE_SIZE,
            MAX_LIST_SIZE,
        );
        let asked = request.request.unwrap_or_default();
        let listener = matches!(
            asked.subject,
            Some(WireSubject::UserId(_) | WireSubject::Profile(_))
        );
        if !listener {
            let only = "is not `user_id` or `profile`: only a listener's scores have causes";
            check.complain("request.subject", only);
        }
        check.finish()?;
        let question = self.question(asked, call).await;
        let question = question.map_err(|refusal| refusal.within("request"))?;
        let state = Arc::clone(&self.0);
        let item = request.item_id;
        offload(move || state.explain(&question, &item, most as usize)).await
    }
}

impl State {
    fn explain(
        &self,
        question: &Question,
        item: &str,
        most: usize,
    ) -> Result<v1::ExplainResponse, Refusal> {
        let policy = self.policy.load();
        let choice = choose(&policy, question)?;
        let version = self.version(question, choice.variant)?;
        let nobody = Profile::default();
        let profile = question.profile().unwrap_or(&nobody);
        let request = question.ask(question.until());
        let weights = self.tastes.weights();
        let found = with_scratch(|scratch| {
            explain(
                &version,
                profile,
                item,
                &request,
                choice.variant,
                weights,
                scratch,
            )
        })?;
        let place = |at: usize| u32::try_from(at + 1).unwrap_or(u32::MAX);
        Ok(v1::ExplainResponse {
            served_by: Some(v1::ServedBy {
                variant: choice.variant.name.clone(),
                experiment: choice.assignment.experiment.unwrap_or_default().to_owned(),
                arm: choice.assignment.arm.unwrap_or_default().to_owned(),
                ..self.served_by(&policy, &version, question.revision())
            }),
            profile: found.answer.profile.as_ref().map(wire::profile_use),
            outcome: outcome(found.outcome).into(),
            rule: found
                .rule
                .and_then(|rule| profile.rules.get(rule))
                .map(wire::rule_to_wire),
            position: found.position.map(place),
            score: found.score.map(|(score, _)| score),
            similarity: found.score.map(|(_, similarity)| similarity),
            last_score: found.answer.items.last().map(|item| item.score),
            explained: found.explained,
            contributions: contributions(&found, profile, most),
            contributions_total: u32::try_from(found.contributions.len()).unwrap_or(u32::MAX),
        })
    }
}

fn contributions(found: &Explanation, profile: &Profile, most: usize) -> Vec<v1::Contribution> {
    let largest = found.contributions.iter().take(most);
    largest
        .map(|one| v1::Contribution {
            event: profile.events.get(one.event).map(wire::event_to_wire),
            contribution: one.share,
            weight: one.weight,
            rule_id: one
                .rule
                .and_then(|rule| profile.rules.get(rule))
                .map_or_else(String::new, |rule| rule.rule_id.clone()),
        })
        .collect()
}

fn outcome(outcome: Outcome) -> v1::ExplainOutcome {
    match outcome {
        Outcome::Shown => v1::ExplainOutcome::Shown,
        Outcome::Unknown => v1::ExplainOutcome::Unknown,
        Outcome::Blocked => v1::ExplainOutcome::Blocked,
        Outcome::Excluded => v1::ExplainOutcome::Excluded,
        Outcome::Heard => v1::ExplainOutcome::Heard,
        Outcome::Filtered => v1::ExplainOutcome::Filtered,
        Outcome::NotRetrieved => v1::ExplainOutcome::NotRetrieved,
        Outcome::Outranked => v1::ExplainOutcome::Outranked,
        Outcome::ArtistFull => v1::ExplainOutcome::ArtistFull,
        Outcome::Fallback => v1::ExplainOutcome::Fallback,
        _ => v1::ExplainOutcome::Unspecified,
    }
}
