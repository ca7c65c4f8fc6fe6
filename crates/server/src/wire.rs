//! Between the messages of the wire and the types of the crates below.
//!
//! What comes in is checked as far as the wire goes (presence, known enum values, times); ranges and
//! lengths are checked by the crate that owns them. What goes out is only put into another shape.

use std::collections::HashMap;

use refrain::v1;
use refrain_bundle::{Label, VersionInfo};
use refrain_engine::{
    Absence, Answer, Degraded, Fallback, Missing, MissingSeeds, Moved, ProfileUse, RequestError,
    SearchStats, Seed, Seen, Source, Tier, Version, Why,
};
use refrain_experiments::{Assignment, Listed, Reason, hash128};
use refrain_taste::{Action, Effect, Event, EventKind, Rule, Scope};

use crate::limits::{MAX_CONTEXT_LABELS, MAX_LABEL_BYTES};
use crate::refusal::{Refusal, Resource};
use crate::validate::{Check, known, timestamp};

/// The events of a request as the profile store takes them. Those without a time happened now, those
/// without an id get one that is made of their content. A private one is checked like any other, and
/// `None`: nothing of it goes any further.
pub(crate) fn events(
    check: &mut Check,
    path: &str,
    events: Vec<v1::Event>,
    now_us: i64,
) -> Vec<Option<Event>> {
    events
        .into_iter()
        .enumerate()
        .map(|(at, event)| {
            let private = event.private;
            let event = self::event(check, path, at, event, now_us);
            if private && let Err(invalid) = event.validate(at) {
                check.complain(invalid.field, invalid.problem);
            }
            (!private).then_some(event)
        })
        .collect()
}

fn event(check: &mut Check, path: &str, at: usize, event: v1::Event, now_us: i64) -> Event {
    let kind = match known(check, format_args!("{path}[{at}].kind"), event.kind) {
        Some(v1::EventKind::Unspecified) => {
            check.complain(format_args!("{path}[{at}].kind"), "is not set");
            EventKind::Play
        }
        // Of an unknown kind nothing is taken: the check refuses the request.
        Some(v1::EventKind::Play) | None => EventKind::Play,
        Some(v1::EventKind::Complete) => EventKind::Complete,
        Some(v1::EventKind::Skip) => EventKind::Skip,
        Some(v1::EventKind::Like) => EventKind::Like,
        Some(v1::EventKind::Unlike) => EventKind::Unlike,
        Some(v1::EventKind::Save) => EventKind::Save,
        Some(v1::EventKind::Hide) => EventKind::Hide,
    };
    let time_us = event.event_time.map_or(now_us, |time| {
        check.time(format_args!("{path}[{at}].event_time"), &time)
    });
    let mut event = Event {
        time_us,
        event_id: event.event_id,
        item: event.item_id,
        kind,
        played_ms: event.played_ms,
        context: some(event.context),
        session: some(event.session_id),
        count: event.count.unwrap_or(1),
    };
    if event.event_id.is_empty() {
        event.event_id = content_id(&event);
    }
    event
}

/// An id that the same content always gets: 128 bits of it.
fn content_id(event: &Event) -> String {
    let Event {
        time_us,
        event_id: _,
        item,
        kind,
        played_ms,
        context,
        session,
        count,
    } = event;
    // Debug of a text is quoted and escaped, so that no two contents read alike.
    let content =
        format!("{time_us} {kind} {played_ms:?} {count} {item:?} {context:?} {session:?}");
    format!("e{:032x}", hash128(content.as_bytes()))
}

/// An event as it was given.
pub(crate) fn event_to_wire(event: &Event) -> v1::Event {
    v1::Event {
        event_id: event.event_id.clone(),
        item_id: event.item.clone(),
        event_time: Some(timestamp(event.time_us)),
        kind: match event.kind {
            EventKind::Play => v1::EventKind::Play,
            EventKind::Complete => v1::EventKind::Complete,
            EventKind::Skip => v1::EventKind::Skip,
            EventKind::Like => v1::EventKind::Like,
            EventKind::Unlike => v1::EventKind::Unlike,
            EventKind::Save => v1::EventKind::Save,
            EventKind::Hide => v1::EventKind::Hide,
        }
        .into(),
        played_ms: event.played_ms,
        context: event.context.clone().unwrap_or_default(),
        session_id: event.session.clone().unwrap_or_default(),
        count: Some(event.count),
        private: false,
    }
}

/// A rule to be made now. `fresh_id` names one that brings no id.
pub(crate) fn rule(
    check: &mut Check,
    exclusion: Option<v1::Exclusion>,
    now_us: i64,
    fresh_id: impl FnOnce() -> String,
) -> Option<Rule> {
    let Some(exclusion) = exclusion else {
        check.complain("exclusion", "is not set");
        return None;
    };
    let effect = match known(check, "exclusion.effect", exclusion.effect) {
        Some(v1::ExclusionEffect::Unspecified | v1::ExclusionEffect::Learn) | None => Effect::Learn,
        Some(v1::ExclusionEffect::Serve) => Effect::Serve,
        Some(v1::ExclusionEffect::Both) => Effect::Both,
    };
    let action = match known(check, "exclusion.action", exclusion.action) {
        Some(v1::ExclusionAction::Unspecified | v1::ExclusionAction::Exclude) | None => {
            Action::Exclude
        }
        Some(v1::ExclusionAction::Include) => Action::Include,
    };
    let expire_time_us = exclusion
        .expire_time
        .map(|time| check.time("exclusion.expire_time", &time));
    let Some(scope) = exclusion.scope.and_then(|scope| scope.scope) else {
        check.complain("exclusion.scope", "is not set");
        return None;
    };
    let rule_id = if exclusion.rule_id.is_empty() {
        fresh_id()
    } else {
        exclusion.rule_id
    };
    Some(Rule {
        rule_id,
        scope: self::scope(check, scope),
        strength: exclusion.strength.unwrap_or(1.0),
        effect,
        action,
        create_time_us: now_us,
        expire_time_us,
        note: exclusion.note,
    })
}

fn scope(check: &mut Check, scope: v1::exclusion_scope::Scope) -> Scope {
    use v1::exclusion_scope::Scope as Wire;
    match scope {
        Wire::ItemId(id) => Scope::Item(id),
        Wire::Context(context) => Scope::Context(context),
        Wire::Artist(artist) => Scope::Artist(artist),
        Wire::Tag(tag) => Scope::Tag(tag),
        Wire::SessionId(id) => Scope::Session(id),
        Wire::Window(window) => Scope::Window {
            start_us: window
                .start_time
                .map(|time| check.time("exclusion.scope.window.start_time", &time)),
            end_us: window
                .end_time
                .map(|time| check.time("exclusion.scope.window.end_time", &time)),
        },
    }
}

/// A rule as it is stored.
pub(crate) fn rule_to_wire(rule: &Rule) -> v1::Exclusion {
    use v1::exclusion_scope::Scope as Wire;
    let scope = match &rule.scope {
        Scope::Item(id) => Wire::ItemId(id.clone()),
        Scope::Context(context) => Wire::Context(context.clone()),
        Scope::Artist(artist) => Wire::Artist(artist.clone()),
        Scope::Tag(tag) => Wire::Tag(tag.clone()),
        Scope::Session(id) => Wire::SessionId(id.clone()),
        Scope::Window { start_us, end_us } => Wire::Window(v1::TimeWindow {
            start_time: start_us.map(timestamp),
            end_time: end_us.map(timestamp),
        }),
    };
    v1::Exclusion {
        rule_id: rule.rule_id.clone(),
        scope: Some(v1::ExclusionScope { scope: Some(scope) }),
        strength: Some(rule.strength),
        effect: match rule.effect {
            Effect::Learn => v1::ExclusionEffect::Learn,
            Effect::Serve => v1::ExclusionEffect::Serve,
            Effect::Both => v1::ExclusionEffect::Both,
        }
        .into(),
        action: match rule.action {
            Action::Exclude => v1::ExclusionAction::Exclude,
            Action::Include => v1::ExclusionAction::Include,
        }
        .into(),
        expire_time: rule.expire_time_us.map(timestamp),
        create_time: Some(timestamp(rule.create_time_us)),
        note: rule.note.clone(),
    }
}

/// Checks the parts of a recommendation request that no crate below sees.
pub(crate) fn check_recommend(check: &mut Check, request: &v1::RecommendRequest) {
    use v1::recommend_request::Subject;
    check.optional_id("request_id", &request.request_id);
    match &request.subject {
        None => check.complain("subject", "is not set"),
        Some(Subject::UserId(id)) => check.id("user_id", id),
        Some(Subject::Seeds(seeds)) => check_seeds(check, seeds),
        Some(Subject::Profile(_) | Subject::Vector(_)) => {}
    }
    if let Some(ranking) = &request.ranking {
        check.text("ranking.surface", &ranking.surface, MAX_LABEL_BYTES);
        check_attributes(check, "ranking.external_arms", &ranking.external_arms);
        check.text(
            "ranking.variant_override",
            &ranking.variant_override,
            MAX_LABEL_BYTES,
        );
    }
    if check.at_most("context", request.context.len(), MAX_CONTEXT_LABELS) {
        for (key, value) in &request.context {
            check.text("context", key, MAX_LABEL_BYTES);
            check.text(format_args!("context[{key:?}]"), value, MAX_LABEL_BYTES);
        }
    }
    known::<v1::SeenPolicy>(check, "seen_policy", request.seen_policy);
    known::<v1::Fallback>(check, "fallback", request.fallback);
    check_search(check, request.search.as_ref());
}

fn check_seeds(check: &mut Check, seeds: &v1::Seeds) {
    known::<v1::MissingSeedPolicy>(
        check,
        "seeds.missing_seed_policy",
        seeds.missing_seed_policy,
    );
    for (side, given) in [("positive", &seeds.positive), ("negative", &seeds.negative)] {
        for (at, seed) in given.iter().enumerate() {
            match &seed.seed {
                None => check.complain(format_args!("seeds.{side}[{at}].seed"), "is not set"),
                Some(v1::seed::Seed::ItemId(id)) => {
                    check.id(format_args!("seeds.{side}[{at}].item_id"), id);
                }
                Some(v1::seed::Seed::Vector(_)) => {}
            }
        }
    }
}

/// Checks the time budget of a search.
pub(crate) fn check_search(check: &mut Check, search: Option<&v1::SearchParams>) {
    if let Some(budget) = search.and_then(|search| search.time_budget.as_ref())
        && (budget.seconds < 0 || !(0..1_000_000_000).contains(&budget.nanos))
    {
        check.complain("search.time_budget", "is negative or not normalised");
    }
}

/// The seeds of a request, as the engine takes them. One without content was refused by the check.
pub(crate) fn seeds(seeds: &[v1::Seed]) -> Vec<Seed<'_>> {
    fn seed(seed: &v1::Seed) -> Option<Seed<'_>> {
        let weight = seed.weight.unwrap_or(1.0);
        Some(match seed.seed.as_ref()? {
            v1::seed::Seed::ItemId(id) => Seed::Item { id, weight },
            v1::seed::Seed::Vector(vector) => Seed::Vector {
                values: &vector.values,
                weight,
            },
        })
    }
    seeds.iter().filter_map(seed).collect()
}

/// What happens to what was heard. Unknown values were refused by the check.
pub(crate) fn seen(policy: i32) -> Seen {
    match v1::SeenPolicy::try_from(policy) {
        Ok(v1::SeenPolicy::Allow) => Seen::Allow,
        Ok(v1::SeenPolicy::Exclude | v1::SeenPolicy::Unspecified) | Err(_) => Seen::Exclude,
    }
}

/// What to answer when there is nothing to search with.
pub(crate) fn fallback(fallback: i32) -> Fallback {
    match v1::Fallback::try_from(fallback) {
        Ok(v1::Fallback::None) => Fallback::None,
        Ok(v1::Fallback::Popular | v1::Fallback::Unspecified) | Err(_) => Fallback::Popular,
    }
}

/// What to do with unknown seeds.
pub(crate) fn missing_seeds(policy: i32) -> MissingSeeds {
    match v1::MissingSeedPolicy::try_from(policy) {
        Ok(v1::MissingSeedPolicy::Fail) => MissingSeeds::Fail,
        Ok(v1::MissingSeedPolicy::Skip | v1::MissingSeedPolicy::Unspecified) | Err(_) => {
            MissingSeeds::Skip
        }
    }
}

/// The items of an answer, with what the version has to say about them.
pub(crate) fn results(version: &Version, answer: &Answer) -> Vec<v1::Result> {
    let items = version.items();
    answer
        .items
        .iter()
        .map(|item| v1::Result {
            item_id: items.id(item.ordinal).unwrap_or_default().to_owned(),
            score: item.score,
            similarity: item.similarity,
            source: match item.source {
                Source::Ann => v1::ResultSource::Ann,
                Source::Exact => v1::ResultSource::Exact,
                Source::Popular => v1::ResultSource::Popular,
                Source::Pinned => v1::ResultSource::Pinned,
                Source::Delta => v1::ResultSource::Delta,
                _ => v1::ResultSource::Unspecified,
            }
            .into(),
            title: items.title(item.ordinal).to_owned(),
            artist: items
                .artist(item.ordinal)
                .map_or_else(String::new, |artist| items.artist_name(artist).to_owned()),
        })
        .collect()
}

/// Why a feature counted as 0, for people.
pub(crate) fn missing(missing: &Missing) -> String {
    let why = match missing.absence {
        Absence::Version => "this version carries nothing to compute it from",
        Absence::Listener => "nothing is known of the listener",
        Absence::Model => "the model was not read",
        _ => "for a reason unknown to this server",
    };
    format!("{}: {why}", missing.feature)
}

/// An item that two lists place differently.
pub(crate) fn moved(version: &Version, step: &Moved) -> v1::Move {
    let place = |at: Option<usize>| {
        at.map_or(0, |at| {
            u32::try_from(at).map_or(u32::MAX, |at| at.saturating_add(1))
        })
    };
    let (feature, change) = match step.why {
        Why::Score { feature, change } => {
            let name = feature.map_or("", |feature| feature.as_str());
            (name.to_owned(), change)
        }
        _ => (String::new(), 0.0),
    };
    v1::Move {
        item_id: version
            .items()
            .id(step.ordinal)
            .unwrap_or_default()
            .to_owned(),
        from: place(step.from),
        to: place(step.to),
        reason: match step.why {
            Why::Score { .. } => v1::MoveReason::Score,
            Why::ArtistCap => v1::MoveReason::ArtistCap,
            Why::SceneCap => v1::MoveReason::SceneCap,
            Why::Spread => v1::MoveReason::Spread,
            Why::Drawn => v1::MoveReason::Drawn,
            Why::Retrieval => v1::MoveReason::Retrieval,
            Why::Fallback => v1::MoveReason::Fallback,
            Why::Others => v1::MoveReason::Others,
            _ => v1::MoveReason::Unspecified,
        }
        .into(),
        feature,
        change,
    }
}

/// A reason of the engine.
pub(crate) fn degraded(reason: Degraded) -> v1::DegradedReason {
    match reason {
        Degraded::TimeBudget => v1::DegradedReason::TimeBudget,
        Degraded::FallbackUsed => v1::DegradedReason::FallbackUsed,
        Degraded::FewerThanAsked => v1::DegradedReason::FewerThanAsked,
        Degraded::FeatureMissing => v1::DegradedReason::FeatureMissing,
        Degraded::ProfileUnavailable => v1::DegradedReason::ProfileUnavailable,
        _ => v1::DegradedReason::Unspecified,
    }
}

/// What a search spent.
pub(crate) fn search_stats(stats: &SearchStats) -> v1::SearchStats {
    v1::SearchStats {
        hops: stats.hops,
        distance_comps: stats.distance_comps,
        exact: stats.exact,
    }
}

/// What was read of a listener.
pub(crate) fn profile_use(profile: &ProfileUse) -> v1::ProfileUse {
    v1::ProfileUse {
        revision: profile.revision,
        events_used: profile.events_used,
        events_excluded: profile.events_excluded,
        events_unknown: profile.events_unknown,
        interests: profile.interests,
        tier: match profile.tier {
            Tier::Cold => v1::ProfileTier::Cold,
            Tier::Warm => v1::ProfileTier::Warm,
            Tier::Hot => v1::ProfileTier::Hot,
            _ => v1::ProfileTier::Unspecified,
        }
        .into(),
    }
}

/// An experiment in force.
pub(crate) fn experiment(listed: Listed<'_>) -> v1::Experiment {
    let arms = listed.arms.into_iter();
    v1::Experiment {
        name: listed.name.to_owned(),
        layer: listed.layer.to_owned(),
        epoch: listed.epoch,
        kind: listed.kind.as_str().to_owned(),
        allocation_bp: listed.allocation_bp,
        paused: listed.paused,
        targeted: listed.targeted,
        admitted_units: listed.admitted.map(|units| units as u64),
        arms: arms
            .map(|(name, variant, probability)| v1::ExperimentArm {
                name: name.to_owned(),
                variant: variant.to_owned(),
                probability,
            })
            .collect(),
    }
}

/// An assignment and what explains it.
pub(crate) fn assignment(assignment: &Assignment<'_>) -> v1::Assignment {
    v1::Assignment {
        layer: assignment.layer.to_owned(),
        layer_epoch: assignment.layer_epoch,
        bucket: assignment.bucket,
        experiment: assignment.experiment.unwrap_or_default().to_owned(),
        experiment_epoch: assignment.experiment_epoch,
        arm: assignment.arm.unwrap_or_default().to_owned(),
        grid: assignment.grid,
        variant: assignment.variant.to_owned(),
        reason: match assignment.reason {
            Reason::Split => v1::AssignmentReason::Split,
            Reason::Default => v1::AssignmentReason::Default,
            Reason::Forced => v1::AssignmentReason::Forced,
            Reason::Holdout => v1::AssignmentReason::Holdout,
            Reason::Targeting => v1::AssignmentReason::Targeting,
            Reason::Paused => v1::AssignmentReason::Paused,
            Reason::External => v1::AssignmentReason::External,
            _ => v1::AssignmentReason::Unspecified,
        }
        .into(),
        probability: assignment.probability,
        kind: assignment.kind.map_or("", |kind| kind.as_str()).to_owned(),
        allocation_bp: assignment.allocation_bp,
        contenders: assignment
            .contenders
            .map_or_else(Vec::new, |two| two.map(str::to_owned).to_vec()),
        passed_over: assignment.passed_over.unwrap_or_default().to_owned(),
    }
}

/// What a request says of itself is short and not much.
pub(crate) fn check_attributes(
    check: &mut Check,
    field: &str,
    attributes: &HashMap<String, String>,
) {
    check.at_most(field, attributes.len(), MAX_CONTEXT_LABELS);
    for (name, value) in attributes {
        check.text(format_args!("{field}.key"), name, MAX_LABEL_BYTES);
        check.text(format_args!("{field}[{name}]"), value, MAX_LABEL_BYTES);
    }
}

/// A label of the store.
pub(crate) fn label(label: &Label) -> v1::Label {
    v1::Label {
        name: label.name.clone(),
        version: label.version.clone(),
        previous: label.previous.clone().unwrap_or_default(),
        etag: label.etag.clone(),
        update_time: Some(timestamp(label.update_time.as_microsecond())),
    }
}

/// A version of the store, with the labels that point at it.
pub(crate) fn version(info: &VersionInfo, labels: &[Label]) -> v1::Version {
    let manifest = &info.manifest;
    v1::Version {
        version: manifest.version.clone(),
        parent: manifest.parent.clone().unwrap_or_default(),
        create_time: Some(timestamp(manifest.create_time.as_microsecond())),
        items: u64::from(manifest.items),
        dim: manifest.dim,
        metric: manifest.metric.clone(),
        bytes: info.bytes,
        labels: labels
            .iter()
            .filter(|label| label.version == manifest.version)
            .map(|label| label.name.clone())
            .collect(),
    }
}

impl From<RequestError> for Refusal {
    fn from(error: RequestError) -> Self {
        match error {
            RequestError::Field { path, problem } => Self::field(path, problem),
            RequestError::UnknownItem { id, .. } => Self::NotFound {
                kind: Resource::Item,
                name: id,
            },
            RequestError::FoldIn(_) => Self::DataLoss {
                message: error.to_string(),
                place: Vec::new(),
            },
            // Queries and tastes are checked before, so these are bugs.
            RequestError::OtherVersion { .. } | RequestError::Search(_) => Self::Internal {
                message: error.to_string(),
            },
            _ => Self::Internal {
                message: error.to_string(),
            },
        }
    }
}

fn some(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}
