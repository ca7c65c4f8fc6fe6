//! `RecommendationService`, and the answering that `CompareVariants` shares with it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use refrain::v1;
use refrain::v1::index_selector::Target;
use refrain::v1::recommend_request::Subject as WireSubject;
use refrain::v1::recommendation_service_server::RecommendationService;
use refrain_engine::{
    Answer, Choice, Deadline, Degraded, ItemFilter, Policy, Request as EngineRequest, RequestError,
    Scratch, Similar, SimilarTo, Subject, Version, interleave, recommend, similar,
};
use refrain_experiments::record::Exposure;
use refrain_experiments::{Assignment, Attributes, Reason, hash64, hash128};
use refrain_ranking::Variant;
use refrain_taste::{Profile, Weights};
use tonic::{Request, Response, Status, Streaming};

use super::dark::Served;
use super::stream::{self, Answers};
use super::{Handler, State, call_of, exposure, offload};
use crate::evaluation::evaluated;
use crate::limits::{DEFAULT_PAGE_SIZE, SEARCH_SHARE};
use crate::log::{Log, Pending};
use crate::refusal::{Precondition, Refusal, Resource};
use crate::rollout::Fate;
use crate::stack::Call;
use crate::validate::Check;
use crate::versions::Wanted;
use crate::wire;

/// Events above which folding a profile in takes longer than a request should hold its thread.
const MANY_EVENTS: usize = 1_000;

#[tonic::async_trait]
impl RecommendationService for Handler {
    async fn recommend(
        &self,
        request: Request<v1::RecommendRequest>,
    ) -> Result<Response<v1::RecommendResponse>, Status> {
        let call = call_of(&request)?;
        let (answer, exposure) = self.recommend(request.into_inner(), call).await?;
        let mut response = Response::new(answer);
        if let Some(exposure) = exposure {
            response.extensions_mut().insert(exposure);
        }
        Ok(response)
    }

    async fn similar(
        &self,
        request: Request<v1::SimilarRequest>,
    ) -> Result<Response<v1::SimilarResponse>, Status> {
        let call = call_of(&request)?;
        let request = request.into_inner();
        if request.search.as_ref().is_some_and(|search| search.exact) {
            let state = Arc::clone(&self.0);
            return Ok(Response::new(
                offload(move || state.similar(&request, call)).await?,
            ));
        }
        Ok(Response::new(self.0.similar(&request, call)?))
    }

    async fn explain(
        &self,
        request: Request<v1::ExplainRequest>,
    ) -> Result<Response<v1::ExplainResponse>, Status> {
        let call = call_of(&request)?;
        Ok(Response::new(
            self.explained(request.into_inner(), call).await?,
        ))
    }

    type StreamRecommendStream = Answers<v1::StreamRecommendResponse>;

    async fn stream_recommend(
        &self,
        request: Request<Streaming<v1::StreamRecommendRequest>>,
    ) -> Result<Response<Self::StreamRecommendStream>, Status> {
        let answers = stream::recommend(self.clone(), request.into_inner());
        Ok(Response::new(answers))
    }
}

impl Handler {
    async fn recommend(
        &self,
        request: v1::RecommendRequest,
        call: Call,
    ) -> Result<(v1::RecommendResponse, Option<Pending>), Refusal> {
        let question = Arc::new(self.question(request, call).await?);
        let state = Arc::clone(&self.0);
        if question.is_heavy() {
            return offload(move || state.recommend(&question)).await;
        }
        state.recommend(&question)
    }

    /// Checks a request and reads what it needs of the profile store.
    pub(super) async fn question(
        &self,
        mut request: v1::RecommendRequest,
        call: Call,
    ) -> Result<Question, Refusal> {
        let now_us = crate::clock::now_us();
        let mut check = Check::default();
        wire::check_recommend(&mut check, &request);
        let filter = self.0.filters.read(&mut check, &request.filter);
        let inline = match &mut request.subject {
            Some(WireSubject::Profile(profile)) => {
                let events = std::mem::take(&mut profile.events);
                let most = refrain_taste::MAX_EVENTS_PER_APPEND;
                if check.at_most("profile.events", events.len(), most) {
                    let events = wire::events(&mut check, "profile.events", events, now_us);
                    Some(events.into_iter().flatten().collect::<Vec<_>>())
                } else {
                    None
                }
            }
            _ => None,
        };
        if let Some(events) = &inline {
            for (at, event) in events.iter().enumerate() {
                if let Err(invalid) = event.validate(at) {
                    check.complain(format_args!("profile.{}", invalid.field), invalid.problem);
                }
            }
        }
        check.finish()?;
        let listener = match (inline, &request.subject) {
            (Some(events), _) => Listener::Inline(Profile::new(0, events, Vec::new())),
            (None, Some(WireSubject::UserId(user))) => self.listener(user, &request, call).await?,
            (None, _) => Listener::None,
        };
        let seed = match request.request_id.as_str() {
            "" => hash64(self.0.names.next().as_bytes()),
            given => hash64(format!("R:{given}").as_bytes()),
        };
        Ok(Question {
            request,
            filter,
            listener,
            now_us,
            call,
            seed,
        })
    }

    async fn listener(
        &self,
        user: &str,
        request: &v1::RecommendRequest,
        call: Call,
    ) -> Result<Listener, Refusal> {
        let wants = request.consistency.unwrap_or_default();
        let read = match wants.min_profile_revision {
            0 => self.0.profiles.read(user).await,
            revision => {
                self.0
                    .profiles
                    .read_at_least(user, revision, call.deadline)
                    .await
            }
        };
        // A profile that cannot be read is a refusal, not a general answer: whom the listener banned is not
        // known then, and what is popular may be by just them. A caller who can live with the rules that
        // were last read says so.
        match read {
            Err(refusal) if wants.allow_stale && refusal.is_store_away() => {
                match self.0.profiles.last_known(user) {
                    Some(profile) => Ok(Listener::Remembered(profile)),
                    None => Err(refusal),
                }
            }
            read => read.map(Listener::Stored),
        }
    }
}

/// A checked request with all that it takes to answer it.
pub(super) struct Question {
    pub(super) request: v1::RecommendRequest,
    filter: Option<Arc<ItemFilter>>,
    listener: Listener,
    now_us: i64,
    call: Call,
    /// Decides what is drawn for it: the same request id draws the same.
    seed: u64,
}

enum Listener {
    /// The request is not for one.
    None,
    /// As the profile store has them.
    Stored(Arc<Profile>),
    /// As the profile store had them when it was last read; it is away.
    Remembered(Arc<Profile>),
    /// As the caller has them.
    Inline(Profile),
}

impl Question {
    /// Whether answering takes longer than a request should hold its thread.
    fn is_heavy(&self) -> bool {
        let events = match &self.listener {
            Listener::Stored(profile) | Listener::Remembered(profile) => profile.events.len(),
            Listener::Inline(profile) => profile.events.len(),
            Listener::None => 0,
        };
        events > MANY_EVENTS
            || self
                .request
                .search
                .as_ref()
                .is_some_and(|search| search.exact)
    }

    /// The version that the request names.
    pub(super) fn wanted(&self) -> Wanted<'_> {
        wanted(self.request.index.as_ref())
    }

    /// Revision of the profile that was read from the store; 0 for none.
    pub(super) fn revision(&self) -> u64 {
        match &self.listener {
            Listener::Stored(profile) | Listener::Remembered(profile) => profile.revision,
            Listener::None | Listener::Inline(_) => 0,
        }
    }

    /// The listener's profile, when the request is for one.
    pub(super) fn profile(&self) -> Option<&Profile> {
        match &self.listener {
            Listener::None => None,
            Listener::Stored(profile) | Listener::Remembered(profile) => Some(profile),
            Listener::Inline(profile) => Some(profile),
        }
    }

    /// When its search has to end.
    pub(super) fn until(&self) -> Deadline {
        let search = self.request.search.unwrap_or_default();
        search_deadline(self.call, &search)
    }

    /// What the engine is asked, but for the subject.
    pub(super) fn ask(&self, until: Deadline) -> EngineRequest<'_> {
        static NOBODY: Profile = Profile {
            revision: 0,
            events: Vec::new(),
            rules: Vec::new(),
        };
        let request = &self.request;
        let search = request.search.unwrap_or_default();
        EngineRequest {
            filter: self.filter.as_ref(),
            seen: wire::seen(request.seen_policy),
            max_per_artist: request
                .diversity
                .and_then(|diversity| diversity.max_per_artist),
            ef_search: search.ef_search.map(|ef_search| ef_search as usize),
            recall: search.recall,
            exact: search.exact,
            deadline: Some(until),
            fallback: wire::fallback(request.fallback),
            seed: self.seed,
            // Stands for no listener: replaced by whom or what the request names.
            ..EngineRequest::new(
                Subject::Profile { profile: &NOBODY },
                page_size(request.page_size),
                self.now_us,
            )
        }
    }

    /// The listener who is assigned, when the request is for one.
    pub(super) fn unit(&self) -> Option<&str> {
        match &self.request.subject {
            Some(WireSubject::UserId(user)) => Some(user),
            _ => None,
        }
    }

    fn said(&self) -> Said<'_> {
        let ranking = self.request.ranking.as_ref();
        Said {
            context: &self.request.context,
            arms: ranking.map(|ranking| &ranking.external_arms),
        }
    }

    pub(super) fn seed(&self) -> u64 {
        self.seed
    }

    pub(super) fn surface(&self) -> &str {
        self.request
            .ranking
            .as_ref()
            .map_or("", |ranking| &ranking.surface)
    }
}

/// The variant that ranks: the one that the request names, else the listener's. A subject that is
/// no listener is not randomised, it gets what the surface gives to those in no experiment.
pub(super) fn choose<'a>(policy: &'a Policy, question: &Question) -> Result<Choice<'a>, Refusal> {
    let ranking = question.request.ranking.as_ref();
    let named = ranking
        .map(|ranking| ranking.variant_override.as_str())
        .filter(|name| !name.is_empty());
    let surface = question.surface();
    let choice = match (question.unit(), named) {
        (Some(user), _) => {
            let said = question.said();
            check_external_arms(policy, said.arms)?;
            policy.choose_with(surface, user, named, &said)
        }
        (None, Some(_)) => policy.choose(surface, "", named),
        (None, None) => policy.unassigned(surface),
    };
    choice.map_err(|unknown| Refusal::NotFound {
        kind: Resource::Variant,
        name: unknown.name,
    })
}

/// An arm that another system gave a listener is one that is declared. An experiment that is not in
/// force is passed over: it may have been stopped while callers still know it.
fn check_external_arms(
    policy: &Policy,
    given: Option<&HashMap<String, String>>,
) -> Result<(), Refusal> {
    for (experiment, arm) in given.into_iter().flatten() {
        let experiments = policy.experiments();
        if experiments.list().all(|listed| listed.name != experiment) {
            continue;
        }
        let problem = match experiments.external_arms(experiment) {
            Some(arms) if arms.contains(&arm.as_str()) => continue,
            Some(arms) => format!("there is no arm {arm:?}; there are {}", arms.join(", ")),
            None => {
                "the experiment deals its arms by itself: `assigner` is not \"external\"".to_owned()
            }
        };
        let field = format!("ranking.external_arms[{experiment}]");
        return Err(Refusal::field(field, problem));
    }
    Ok(())
}

/// What a request says of itself, and where others put its listener.
pub(super) struct Said<'a> {
    context: &'a HashMap<String, String>,
    arms: Option<&'a HashMap<String, String>>,
}

impl Attributes for Said<'_> {
    fn get(&self, name: &str) -> Option<&str> {
        self.context.get(name).map(String::as_str)
    }

    fn arm_of(&self, experiment: &str) -> Option<&str> {
        self.arms?.get(experiment).map(String::as_str)
    }
}

/// The variant that a listener gets on a surface.
pub(super) fn choose_for<'a>(
    policy: &'a Policy,
    surface: &str,
    user: &str,
) -> Result<Choice<'a>, Refusal> {
    let choice = policy.choose(surface, user, None);
    choice.map_err(|unknown| Refusal::NotFound {
        kind: Resource::Variant,
        name: unknown.name,
    })
}

/// A request on its way. Dropped by a panic, or after it failed, it is told to the log: it leaves no
/// exposure, and an arm that fails must not look like one that nobody was sent to.
struct Unanswered<'a> {
    log: &'a Log<Exposure>,
    choice: &'a Choice<'a>,
    told: bool,
}

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        if self.told {
            let analysed = self.choice.assignments();
            let analysed =
                analysed.filter(|a| matches!(a.reason, Reason::Split | Reason::External));
            self.log
                .failed(analysed.filter_map(|a| Some((a.experiment?, a.arm?))));
        }
    }
}

/// What makes the list: one variant, or two that draft it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Ranker<'a> {
    One(&'a Variant),
    Two([&'a Variant; 2]),
}

impl<'a> Ranker<'a> {
    /// As a choice says.
    fn of(choice: &Choice<'a>) -> Self {
        match choice.contender {
            Some(second) => Self::Two([choice.variant, second]),
            None => Self::One(choice.variant),
        }
    }

    fn rank(
        self,
        version: &Version,
        ask: &EngineRequest<'_>,
        weights: &Weights,
        scratch: &mut Scratch,
    ) -> Result<Answer, RequestError> {
        match self {
            Self::One(variant) => recommend(version, ask, variant, weights, scratch),
            Self::Two(variants) => interleave(version, ask, variants, weights, scratch),
        }
    }
}

impl State {
    /// An answer, and the exposure that it becomes when it is sent.
    fn recommend(
        self: &Arc<Self>,
        question: &Arc<Question>,
    ) -> Result<(v1::RecommendResponse, Option<Pending>), Refusal> {
        let policy = self.policy.load();
        let choice = choose(&policy, question)?;
        if let Some(unit) = question.unit() {
            for assignment in choice.assignments() {
                evaluated("variant", unit, assignment, policy.digest());
            }
        }
        let watched = self
            .live
            .watch(choice.assignments(), question.unit().unwrap_or_default());
        let mut unanswered = self.logs.as_ref().map(|logs| Unanswered {
            log: &logs.exposures,
            choice: &choice,
            told: true,
        });
        let outcome = self.recommend_as(question, &policy, &choice);
        if let Some(unanswered) = &mut unanswered {
            unanswered.told = matches!(&outcome, Err(refusal) if refusal.is_failure());
        }
        watched.ended(match &outcome {
            Ok((response, _)) => Fate::Answered {
                empty: response.results.is_empty(),
                degraded: !response.degraded.is_empty(),
            },
            Err(refusal) if refusal.is_failure() => Fate::Failed,
            Err(_) => Fate::Refused,
        });
        outcome
    }

    fn recommend_as(
        self: &Arc<Self>,
        question: &Arc<Question>,
        policy: &Arc<Policy>,
        choice: &Choice<'_>,
    ) -> Result<(v1::RecommendResponse, Option<Pending>), Refusal> {
        let start = Instant::now();
        let version = self.version(question, choice.variant)?;
        let ranker = Ranker::of(choice);
        let (answer, degraded) = self.answer(question, &version, ranker, false)?;
        let (drawn, slate_logprob) = (answer.items.clone(), answer.slate_logprob);
        let mut response = self.response(policy, question, choice, &version, answer, degraded);
        self.name_exposures(&question.request.request_id, choice, &mut response);
        let exposure = self.logs.as_ref().map(|logs| {
            let mut rows = exposure::rows(question, choice, &response, &drawn);
            for row in &mut rows {
                row.slate_logprob = slate_logprob;
            }
            Pending::new(&logs.exposures, rows)
        });
        let served = Served {
            items: drawn.iter().map(|item| item.ordinal).collect(),
            took: start.elapsed(),
            exposure_id: &response.exposure_id,
            variant: &choice.variant.name,
        };
        self.shadow(policy, question, &version, &served);
        Ok((response, exposure))
    }

    /// The same from a given version, whatever the request or its variant names. Nothing is shown yet:
    /// it is no exposure, and nothing is computed in the dark for it.
    pub(super) fn recommend_from(
        &self,
        question: &Question,
        version: &Version,
    ) -> Result<v1::RecommendResponse, Refusal> {
        let policy = self.policy.load();
        let choice = choose(&policy, question)?;
        let ranker = Ranker::of(&choice);
        let (answer, degraded) = self.answer(question, version, ranker, false)?;
        Ok(self.response(&policy, question, &choice, version, answer, degraded))
    }

    /// An answer as it is told, but for the exposure.
    fn response(
        &self,
        policy: &Policy,
        question: &Question,
        choice: &Choice<'_>,
        version: &Version,
        answer: Answer,
        degraded: Vec<i32>,
    ) -> v1::RecommendResponse {
        v1::RecommendResponse {
            results: wire::results(version, &answer),
            exposure_id: String::new(),
            served_by: Some(v1::ServedBy {
                variant: choice.variant.name.clone(),
                experiment: choice.assignment.experiment.unwrap_or_default().to_owned(),
                arm: choice.assignment.arm.unwrap_or_default().to_owned(),
                further: choice.further.iter().filter_map(further).collect(),
                ..self.served_by(policy, version, question.revision())
            }),
            profile: answer.profile.as_ref().map(wire::profile_use),
            degraded,
            search: Some(wire::search_stats(&answer.search)),
            unresolved_seeds: answer.unresolved,
            forced: choice.assignment.reason == Reason::Forced,
        }
    }

    /// The version that the request names, else the first of the variant's labels that serves.
    pub(super) fn version(
        &self,
        question: &Question,
        variant: &Variant,
    ) -> Result<Arc<Version>, Refusal> {
        if !matches!(question.wanted(), Wanted::Default) || variant.labels.is_empty() {
            return self.versions.select(question.wanted());
        }
        let mut refusal = None;
        for label in &variant.labels {
            match self.versions.select(Wanted::Label(label)) {
                Ok(version) => return Ok(version),
                Err(refused) => refusal = refusal.or(Some(refused)),
            }
        }
        match refusal {
            Some(refused) => Err(refused),
            None => self.versions.select(Wanted::Default),
        }
    }

    /// What is answered from a version, and why it is less than it could be. Counted.
    pub(super) fn answer(
        &self,
        question: &Question,
        version: &Version,
        ranker: Ranker<'_>,
        trace: bool,
    ) -> Result<(Answer, Vec<i32>), Refusal> {
        let answer = self.compute(question, version, ranker, question.until(), trace)?;
        let degraded = self.degraded(&answer);
        self.produced(&answer)?;
        Ok((answer, degraded))
    }

    /// What is answered from a version, by searching until `until` at most.
    pub(super) fn compute(
        &self,
        question: &Question,
        version: &Version,
        ranker: Ranker<'_>,
        until: Deadline,
        trace: bool,
    ) -> Result<Answer, Refusal> {
        let request = &question.request;
        for vector in vectors(&request.subject) {
            check_model(vector, version)?;
        }
        let ask = EngineRequest {
            trace,
            ..question.ask(until)
        };
        let weights = self.tastes.weights();
        let mut answer = with_scratch(|scratch| match (&question.listener, &request.subject) {
            (
                Listener::Stored(profile) | Listener::Remembered(profile),
                Some(WireSubject::UserId(user)),
            ) => {
                let now_us = question.now_us;
                let solved = self
                    .tastes
                    .get_or_solve(version, user, profile, now_us, scratch)?;
                let ask = EngineRequest {
                    subject: Subject::Solved(&solved),
                    ..ask
                };
                ranker.rank(version, &ask, weights, scratch)
            }
            (Listener::Inline(profile), _) => {
                let ask = EngineRequest {
                    subject: Subject::Profile { profile },
                    ..ask
                };
                ranker.rank(version, &ask, weights, scratch)
            }
            (_, Some(WireSubject::Seeds(seeds))) => {
                let (positive, negative) =
                    (wire::seeds(&seeds.positive), wire::seeds(&seeds.negative));
                let ask = EngineRequest {
                    subject: Subject::Seeds {
                        positive: &positive,
                        negative: &negative,
                    },
                    missing_seeds: wire::missing_seeds(seeds.missing_seed_policy),
                    ..ask
                };
                ranker.rank(version, &ask, weights, scratch)
            }
            (_, Some(WireSubject::Vector(vector))) => {
                let ask = EngineRequest {
                    subject: Subject::Vector(&vector.values),
                    ..ask
                };
                ranker.rank(version, &ask, weights, scratch)
            }
            (Listener::None | Listener::Stored(_) | Listener::Remembered(_), _) => {
                ranker.rank(version, &ask, weights, scratch)
            }
        })?;
        if matches!(question.listener, Listener::Remembered(_)) {
            answer.degraded.push(Degraded::ProfileUnavailable);
        }
        Ok(answer)
    }

    fn similar(
        &self,
        request: &v1::SimilarRequest,
        call: Call,
    ) -> Result<v1::SimilarResponse, Refusal> {
        use v1::similar_request::Query;
        let mut check = Check::default();
        check.optional_id("request_id", &request.request_id);
        match &request.query {
            None => check.complain("query", "is not set"),
            Some(Query::ItemId(id)) => check.id("item_id", id),
            Some(Query::Vector(_)) => {}
        }
        let filter = self.filters.read(&mut check, &request.filter);
        wire::check_search(&mut check, request.search.as_ref());
        check.finish()?;

        let version = self.versions.select(wanted(request.index.as_ref()))?;
        let to = match &request.query {
            Some(Query::Vector(vector)) => {
                check_model(vector, &version)?;
                SimilarTo::Vector(&vector.values)
            }
            Some(Query::ItemId(id)) => SimilarTo::Item(id),
            None => SimilarTo::Item(""),
        };
        let search = request.search.unwrap_or_default();
        let ask = Similar {
            filter: filter.as_ref(),
            ef_search: search.ef_search.map(|ef_search| ef_search as usize),
            recall: search.recall,
            exact: search.exact,
            deadline: Some(search_deadline(call, &search)),
            ..Similar::new(to, page_size(request.page_size))
        };
        let answer = with_scratch(|scratch| similar(&version, &ask, scratch))?;
        self.produced(&answer)?;
        Ok(v1::SimilarResponse {
            results: wire::results(&version, &answer),
            served_by: Some(self.served_by(&self.policy.load(), &version, 0)),
            degraded: self.degraded(&answer),
            search: Some(wire::search_stats(&answer.search)),
        })
    }

    /// Who answers, but for the variant.
    pub(super) fn served_by(
        &self,
        policy: &Policy,
        version: &Version,
        profile_revision: u64,
    ) -> v1::ServedBy {
        v1::ServedBy {
            version: version.id().to_owned(),
            delta: version.delta(),
            model_version: version.id().to_owned(),
            profile_revision,
            config_digest: policy.digest().to_owned(),
            ..v1::ServedBy::default()
        }
    }

    /// The same request id and variant have the same exposure, so that a retry is not counted twice.
    fn name_exposures(
        &self,
        request_id: &str,
        choice: &Choice<'_>,
        response: &mut v1::RecommendResponse,
    ) {
        let made;
        let request_id = match request_id {
            "" => {
                made = self.names.next();
                &made
            }
            given => given,
        };
        // No name of an experiment holds a '|', and only values of parameters follow one in that of a variant.
        let exposure_id = |experiment: &str| {
            let key = format!("X:{experiment}|{}|{request_id}", choice.variant.name);
            format!("{:032x}", hash128(key.as_bytes()))
        };
        response.exposure_id = exposure_id(choice.assignment.experiment.unwrap_or_default());
        let served_by = response.served_by.iter_mut();
        for further in served_by.flat_map(|served_by| &mut served_by.further) {
            further.exposure_id = exposure_id(&further.experiment);
        }
    }

    /// Counts what an answer spent, and why it is less than it could be.
    fn degraded(&self, answer: &Answer) -> Vec<i32> {
        self.metrics
            .search_hops
            .observe(f64::from(answer.search.hops));
        self.metrics
            .search_distances
            .observe(f64::from(answer.search.distance_comps));
        let reasons = answer.degraded.iter().map(|&reason| wire::degraded(reason));
        reasons
            .inspect(|&reason| self.metrics.degraded(reason))
            .map(Into::into)
            .collect()
    }

    /// An answer that time ended before there was anything in it is none.
    fn produced(&self, answer: &Answer) -> Result<(), Refusal> {
        if answer.search.truncated && answer.items.is_empty() {
            return Err(Refusal::DeadlineExceeded);
        }
        Ok(())
    }
}

/// The experiment of another layer that takes part in an answer, but for its exposure.
fn further(assignment: &Assignment<'_>) -> Option<v1::FurtherArm> {
    Some(v1::FurtherArm {
        experiment: assignment.experiment?.to_owned(),
        arm: assignment.arm.unwrap_or_default().to_owned(),
        exposure_id: String::new(),
    })
}

/// Runs with the scratch memory of this thread.
pub(super) fn with_scratch<T>(run: impl FnOnce(&mut Scratch) -> T) -> T {
    thread_local! {
        static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch::default());
    }
    SCRATCH.with_borrow_mut(run)
}

/// The version that a selector names.
pub(super) fn wanted(selector: Option<&v1::IndexSelector>) -> Wanted<'_> {
    match selector.and_then(|selector| selector.target.as_ref()) {
        None => Wanted::Default,
        Some(Target::Label(label)) => Wanted::Label(label),
        Some(Target::Version(version)) => Wanted::Version(version),
    }
}

/// The vectors that a subject brings.
fn vectors(subject: &Option<WireSubject>) -> impl Iterator<Item = &v1::Vector> {
    let (own, seeds) = match subject {
        Some(WireSubject::Vector(vector)) => (Some(vector), None),
        Some(WireSubject::Seeds(seeds)) => (None, Some(seeds)),
        Some(WireSubject::UserId(_) | WireSubject::Profile(_)) | None => (None, None),
    };
    let of_seeds = seeds
        .into_iter()
        .flat_map(|seeds| seeds.positive.iter().chain(&seeds.negative));
    own.into_iter()
        .chain(of_seeds.filter_map(|seed| match &seed.seed {
            Some(v1::seed::Seed::Vector(vector)) => Some(vector),
            Some(v1::seed::Seed::ItemId(_)) | None => None,
        }))
}

/// A vector means something only in the embedding space that it came from.
fn check_model(vector: &v1::Vector, version: &Version) -> Result<(), Refusal> {
    if vector.model_version.is_empty() || vector.model_version == version.id() {
        return Ok(());
    }
    Err(Refusal::Precondition {
        reason: Precondition::ModelVersionMismatch,
        subject: vector.model_version.clone(),
        message: format!(
            "the vector belongs to version {:?}, version {:?} answers",
            vector.model_version,
            version.id()
        ),
    })
}

/// When a search has to end: a share of the time that is left, or what the request allows.
fn search_deadline(call: Call, search: &v1::SearchParams) -> Deadline {
    let now = Instant::now();
    let share = call
        .deadline
        .saturating_duration_since(now)
        .mul_f64(SEARCH_SHARE);
    let budget = search.time_budget.as_ref().map(|budget| {
        let seconds = u64::try_from(budget.seconds).unwrap_or(0);
        Duration::from_secs(seconds)
            + Duration::from_nanos(u64::try_from(budget.nanos).unwrap_or(0))
    });
    Deadline::from(now + budget.map_or(share, |budget| budget.min(share)))
}

pub(super) fn page_size(asked: Option<u32>) -> usize {
    asked.unwrap_or(DEFAULT_PAGE_SIZE) as usize
}
