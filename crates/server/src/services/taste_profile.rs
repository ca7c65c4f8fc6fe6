//! `TasteProfileService`: writes are durable when they are answered, and the next read sees them.

use std::collections::HashSet;
use std::future::Future;
use std::sync::Arc;

use refrain::v1;
use refrain::v1::taste_profile_service_server::TasteProfileService;
use refrain_engine::{Scratch, Version};
use refrain_taste::{Event, EventDecision, Profile, Receipt, Rule, Write, decide};
use tonic::{Request, Response, Status, Streaming};

use super::recommendation::wanted;
use super::stream::{self, Answers};
use super::{Handler, State, call_of, offload};
use crate::limits::{DEFAULT_LIST_SIZE, MAX_LIST_SIZE};
use crate::refusal::Refusal;
use crate::validate::Check;
use crate::wire;

#[tonic::async_trait]
impl TasteProfileService for Handler {
    async fn append_events(
        &self,
        request: Request<v1::AppendEventsRequest>,
    ) -> Result<Response<v1::AppendEventsResponse>, Status> {
        let append = self.0.append(request.into_inner())?;
        Ok(Response::new(append.await?))
    }

    type StreamEventsStream = Answers<v1::StreamEventsResponse>;

    async fn stream_events(
        &self,
        request: Request<Streaming<v1::StreamEventsRequest>>,
    ) -> Result<Response<Self::StreamEventsStream>, Status> {
        let answers = stream::events(Arc::clone(&self.0), request.into_inner());
        Ok(Response::new(answers))
    }

    async fn preview_exclusion(
        &self,
        request: Request<v1::PreviewExclusionRequest>,
    ) -> Result<Response<v1::PreviewExclusionResponse>, Status> {
        let call = call_of(&request)?;
        Ok(Response::new(
            self.preview(request.into_inner(), call).await?,
        ))
    }

    type ExportProfileStream = Answers<v1::ExportProfileResponse>;

    async fn export_profile(
        &self,
        request: Request<v1::ExportProfileRequest>,
    ) -> Result<Response<Self::ExportProfileStream>, Status> {
        Ok(Response::new(self.export(request.into_inner()).await?))
    }

    type ExportExclusionsStream = Answers<v1::ExportExclusionsResponse>;

    async fn export_exclusions(
        &self,
        _: Request<v1::ExportExclusionsRequest>,
    ) -> Result<Response<Self::ExportExclusionsStream>, Status> {
        Ok(Response::new(self.export_rules()))
    }

    async fn delete_profile(
        &self,
        request: Request<v1::DeleteProfileRequest>,
    ) -> Result<Response<v1::DeleteProfileResponse>, Status> {
        Ok(Response::new(self.erase(request.into_inner()).await?))
    }

    async fn create_exclusion(
        &self,
        request: Request<v1::CreateExclusionRequest>,
    ) -> Result<Response<v1::CreateExclusionResponse>, Status> {
        let request = request.into_inner();
        let mut check = Check::default();
        let now_us = crate::clock::now_us();
        let fresh_id = || format!("r{}", self.0.names.next());
        let rule = wire::rule(&mut check, request.exclusion, now_us, fresh_id);
        check.finish()?;
        let Some(rule) = rule else {
            return Err(Refusal::field("exclusion", "is not set").into());
        };
        let given = rule.clone();
        let write = Write::CreateRule {
            user: request.user_id,
            rule,
        };
        let receipt = self.0.profiles.write(write).await?;
        Ok(Response::new(v1::CreateExclusionResponse {
            exclusion: Some(wire::rule_to_wire(&receipt.rule.unwrap_or(given))),
            profile_revision: receipt.revision,
        }))
    }

    async fn delete_exclusion(
        &self,
        request: Request<v1::DeleteExclusionRequest>,
    ) -> Result<Response<v1::DeleteExclusionResponse>, Status> {
        let v1::DeleteExclusionRequest {
            user_id,
            rule_id,
            allow_missing,
        } = request.into_inner();
        let write = Write::DeleteRule {
            user: user_id,
            rule_id,
            allow_missing,
        };
        let receipt = self.0.profiles.write(write).await?;
        Ok(Response::new(v1::DeleteExclusionResponse {
            profile_revision: receipt.revision,
        }))
    }

    async fn list_exclusions(
        &self,
        request: Request<v1::ListExclusionsRequest>,
    ) -> Result<Response<v1::ListExclusionsResponse>, Status> {
        let request = request.into_inner();
        let mut check = Check::default();
        check.id("user_id", &request.user_id);
        let size = check.size(
            "page_size",
            request.page_size,
            DEFAULT_LIST_SIZE,
            MAX_LIST_SIZE,
        );
        let after = PageToken::parse(&mut check, &request.page_token);
        check.finish()?;
        let profile = self.0.profiles.read(&request.user_id).await?;
        let rules = &profile.rules;
        let first = after.map_or(0, |after| {
            rules.partition_point(|rule| !after.is_before(rule))
        });
        let left = rules.get(first..).unwrap_or_default();
        let page = left.get(..size as usize).unwrap_or(left);
        let more = page.len() < left.len();
        Ok(Response::new(v1::ListExclusionsResponse {
            exclusions: page.iter().map(wire::rule_to_wire).collect(),
            next_page_token: page
                .last()
                .filter(|_| more)
                .map(PageToken::of)
                .unwrap_or_default(),
            profile_revision: profile.revision,
        }))
    }

    async fn get_profile(
        &self,
        request: Request<v1::GetProfileRequest>,
    ) -> Result<Response<v1::GetProfileResponse>, Status> {
        let call = call_of(&request)?;
        let request = request.into_inner();
        let mut check = Check::default();
        check.id("user_id", &request.user_id);
        let newest = request.max_events.unwrap_or(0);
        if newest > MAX_LIST_SIZE {
            let allowed = format_args!("is {newest}, must be 0 to {MAX_LIST_SIZE}");
            check.complain("max_events", allowed);
        }
        check.finish()?;
        let (user, revision) = (&request.user_id, request.min_profile_revision);
        let profile = match revision {
            0 => self.0.profiles.read(user).await?,
            _ => {
                self.0
                    .profiles
                    .read_at_least(user, revision, call.deadline)
                    .await?
            }
        };
        let version = self.0.versions.select(wanted(request.index.as_ref()))?;
        let state = Arc::clone(&self.0);
        let describe = move || describe(&state, &version, &profile, newest, request.include_vector);
        Ok(Response::new(offload(describe).await?))
    }
}

impl State {
    /// Checks an append and hands it over; the future is done once it is durable.
    pub(super) fn append(
        &self,
        request: v1::AppendEventsRequest,
    ) -> Result<impl Future<Output = Result<v1::AppendEventsResponse, Refusal>> + use<>, Refusal>
    {
        let mut check = Check::default();
        let now_us = crate::clock::now_us();
        // The store checks how many there may be; before that, none of them is looked at twice.
        let given = wire::events(&mut check, "events", request.events, now_us);
        check.finish()?;
        let id = |event: &Option<Event>| {
            let id = event.as_ref().map(|event| event.event_id.clone());
            id.unwrap_or_default()
        };
        let event_ids = given.iter().map(id).collect();
        let asked = given.len();
        let events: Vec<Event> = given.into_iter().flatten().collect();
        let private_skipped = u32::try_from(asked - events.len()).unwrap_or(u32::MAX);
        let user = request.user_id;
        // Where all were private there is nothing to write, and a revision all the same.
        let nothing = events.is_empty() && private_skipped > 0;
        let write = (!nothing).then(|| {
            let user = user.clone();
            self.profiles.submit(Write::Append { user, events })
        });
        let profiles = self.profiles.clone();
        Ok(async move {
            let receipt = match write {
                Some(write) => write.await?,
                None => Receipt {
                    revision: profiles.read(&user).await?.revision,
                    ..Receipt::default()
                },
            };
            Ok(v1::AppendEventsResponse {
                profile_revision: receipt.revision,
                appended: receipt.appended,
                duplicates: receipt.duplicates,
                event_ids,
                dropped: receipt.dropped,
                private_skipped,
            })
        })
    }
}

/// A profile as a version sees it.
fn describe(
    state: &State,
    version: &Version,
    profile: &Profile,
    newest: u32,
    with_vector: bool,
) -> Result<v1::GetProfileResponse, Refusal> {
    let now_us = crate::clock::now_us();
    let weights = state.tastes.weights();
    let decisions = decide(profile, now_us, &version.catalogue(), weights);
    let decided = || profile.events.iter().zip(&decisions);
    let items: HashSet<&str> = profile
        .events
        .iter()
        .map(|event| event.item.as_str())
        .collect();
    let in_force = profile
        .rules
        .iter()
        .filter(|rule| rule.in_force(now_us))
        .count();
    let vector = if with_vector {
        let mut scratch = Scratch::default();
        let solved = refrain_engine::fold_in(version, profile, now_us, weights, &mut scratch)
            .map_err(refrain_engine::RequestError::FoldIn)?;
        // Nothing to fold in leaves no direction.
        let directed = solved.vector.iter().any(|&value| value != 0.0);
        directed.then(|| v1::Vector {
            values: solved.vector,
            model_version: version.id().to_owned(),
        })
    } else {
        None
    };
    Ok(v1::GetProfileResponse {
        profile_revision: profile.revision,
        events: profile.events.len() as u64,
        items: items.len() as u64,
        events_excluded: decisions
            .iter()
            .filter(|decision| decision.is_excluded())
            .count() as u64,
        exclusions: u32::try_from(in_force).unwrap_or(u32::MAX),
        newest_events: decided()
            .rev()
            .take(newest as usize)
            .map(|(event, decision)| v1::ProfileEvent {
                event: Some(wire::event_to_wire(event)),
                weight: decision.weight,
                rule_id: rule_of(profile, decision)
                    .map_or_else(String::new, |rule| rule.rule_id.clone()),
            })
            .collect(),
        vector,
    })
}

fn rule_of<'a>(profile: &'a Profile, decision: &EventDecision) -> Option<&'a Rule> {
    profile.rules.get(decision.rule?)
}

/// Where a page of rules ended: the creation time and id of its last rule. Rules that come or go
/// meanwhile neither repeat nor hide others.
struct PageToken<'a> {
    create_time_us: i64,
    rule_id: &'a str,
}

impl<'a> PageToken<'a> {
    fn of(rule: &Rule) -> String {
        format!("{}:{}", rule.create_time_us, rule.rule_id)
    }

    fn parse(check: &mut Check, token: &'a str) -> Option<Self> {
        if token.is_empty() {
            return None;
        }
        let parsed = token.split_once(':').and_then(|(time, rule_id)| {
            Some(Self {
                create_time_us: time.parse().ok()?,
                rule_id,
            })
        });
        if parsed.is_none() {
            check.complain("page_token", "is not a token of this method");
        }
        parsed
    }

    /// Whether the rule comes on a later page.
    fn is_before(&self, rule: &Rule) -> bool {
        (self.create_time_us, self.rule_id) < (rule.create_time_us, rule.rule_id.as_str())
    }
}
