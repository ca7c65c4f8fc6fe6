//! Messages of the wire as JSON documents: the field names of `proto/`, enum values as their short
//! names in lower case, instants in RFC 3339. Absent optional fields are left out or `null`.

use prost_types::Timestamp as WireTimestamp;
use refrain::v1::{self as pb};
use serde_json::{Value, json};

/// An instant of the wire; out-of-range ones have none.
pub(crate) fn instant(at: Option<&WireTimestamp>) -> Option<jiff::Timestamp> {
    at.and_then(|at| jiff::Timestamp::new(at.seconds, at.nanos).ok())
}

/// An instant of the wire in RFC 3339.
fn text(at: Option<&WireTimestamp>) -> Option<String> {
    instant(at).map(|at| at.to_string())
}

/// An instant for the wire.
pub(crate) fn wire_instant(at: jiff::Timestamp) -> WireTimestamp {
    // Before 1970 jiff counts nanoseconds down and the wire up.
    let micros = at.as_microsecond();
    let nanos = i32::try_from(micros.rem_euclid(1_000_000) * 1_000).unwrap_or_default();
    WireTimestamp {
        seconds: micros.div_euclid(1_000_000),
        nanos,
    }
}

/// The short name of an enum value: `RESULT_SOURCE_ANN` of `RESULT_SOURCE_` is `ann`.
pub(crate) fn short(name: &str, prefix: &str) -> String {
    name.strip_prefix(prefix)
        .unwrap_or(name)
        .to_ascii_lowercase()
}

/// Where a result came from, in a word.
pub(crate) fn source(result: &pb::Result) -> String {
    short(result.source().as_str_name(), "RESULT_SOURCE_")
}

/// Why an answer is less than it could be, in words.
pub(crate) fn degraded(reasons: &[i32]) -> Vec<String> {
    reasons
        .iter()
        .map(|&reason| match pb::DegradedReason::try_from(reason) {
            Ok(reason) => short(reason.as_str_name(), "DEGRADED_REASON_"),
            Err(_) => format!("reason_{reason}"),
        })
        .collect()
}

/// What an event was, in a word.
pub(crate) fn kind(event: &pb::Event) -> String {
    short(event.kind().as_str_name(), "EVENT_KIND_")
}

/// Results, best first.
pub(crate) fn results(results: &[pb::Result]) -> Value {
    results
        .iter()
        .enumerate()
        .map(|(at, result)| {
            json!({
                "rank": at + 1,
                "item_id": result.item_id,
                "title": result.title,
                "artist": result.artist,
                "score": result.score,
                "similarity": result.similarity,
                "source": source(result),
            })
        })
        .collect()
}

/// Who answered.
pub(crate) fn served_by(by: Option<&pb::ServedBy>) -> Value {
    by.map_or(Value::Null, |by| {
        json!({
            "version": by.version,
            "delta": by.delta,
            "model_version": by.model_version,
            "variant": by.variant,
            "experiment": by.experiment,
            "arm": by.arm,
            "profile_revision": by.profile_revision,
            "config_digest": by.config_digest,
        })
    })
}

/// What was read of the listener.
pub(crate) fn profile_use(profile: Option<&pb::ProfileUse>) -> Value {
    profile.map_or(Value::Null, |profile| {
        json!({
            "revision": profile.revision,
            "events_used": profile.events_used,
            "events_excluded": profile.events_excluded,
            "events_unknown": profile.events_unknown,
            "tier": tier(profile.tier()),
            "interests": profile.interests,
        })
    })
}

/// How much there is of a profile, in a word.
pub(crate) fn tier(tier: pb::ProfileTier) -> String {
    short(tier.as_str_name(), "PROFILE_TIER_")
}

/// What the search spent.
pub(crate) fn search(stats: Option<&pb::SearchStats>) -> Value {
    stats.map_or(Value::Null, |stats| {
        json!({
            "hops": stats.hops,
            "distance_comps": stats.distance_comps,
            "exact": stats.exact,
        })
    })
}

/// Recommendations.
pub(crate) fn recommendations(answer: &pb::RecommendResponse) -> Value {
    json!({
        "results": results(&answer.results),
        "exposure_id": answer.exposure_id,
        "served_by": served_by(answer.served_by.as_ref()),
        "profile": profile_use(answer.profile.as_ref()),
        "degraded": degraded(&answer.degraded),
        "unresolved_seeds": answer.unresolved_seeds,
        "forced": answer.forced,
        "search": search(answer.search.as_ref()),
    })
}

/// Neighbours.
pub(crate) fn neighbours(answer: &pb::SimilarResponse) -> Value {
    json!({
        "results": results(&answer.results),
        "served_by": served_by(answer.served_by.as_ref()),
        "degraded": degraded(&answer.degraded),
        "search": search(answer.search.as_ref()),
    })
}

/// A rule.
pub(crate) fn exclusion(rule: &pb::Exclusion) -> Value {
    json!({
        "rule_id": rule.rule_id,
        "scope": scope(rule.scope.as_ref()),
        "strength": rule.strength.unwrap_or(1.0),
        "effect": effect(rule),
        "action": short(rule.action().as_str_name(), "EXCLUSION_ACTION_"),
        "expire_time": text(rule.expire_time.as_ref()),
        "create_time": text(rule.create_time.as_ref()),
        "note": rule.note,
    })
}

/// What a rule does, in a word.
pub(crate) fn effect(rule: &pb::Exclusion) -> String {
    short(rule.effect().as_str_name(), "EXCLUSION_EFFECT_")
}

fn scope(scope: Option<&pb::ExclusionScope>) -> Value {
    use pb::exclusion_scope::Scope;
    match scope.and_then(|scope| scope.scope.as_ref()) {
        None => Value::Null,
        Some(Scope::ItemId(id)) => json!({ "item_id": id }),
        Some(Scope::Context(context)) => json!({ "context": context }),
        Some(Scope::Artist(artist)) => json!({ "artist": artist }),
        Some(Scope::Tag(tag)) => json!({ "tag": tag }),
        Some(Scope::SessionId(session)) => json!({ "session_id": session }),
        Some(Scope::Window(window)) => json!({ "window": {
            "start_time": text(window.start_time.as_ref()),
            "end_time": text(window.end_time.as_ref()),
        }}),
    }
}

/// What a rule covers, for people.
pub(crate) fn scope_text(rule: &pb::Exclusion) -> String {
    use pb::exclusion_scope::Scope;
    match rule.scope.as_ref().and_then(|scope| scope.scope.as_ref()) {
        None => "nothing".to_owned(),
        Some(Scope::ItemId(id)) => format!("item {id}"),
        Some(Scope::Context(context)) => format!("context {context}"),
        Some(Scope::Artist(artist)) => format!("artist {artist}"),
        Some(Scope::Tag(tag)) => format!("tag {tag}"),
        Some(Scope::SessionId(session)) => format!("session {session}"),
        Some(Scope::Window(window)) => {
            let end = |at: Option<&WireTimestamp>| text(at).unwrap_or_else(|| "…".to_owned());
            format!(
                "heard from {} until {}",
                end(window.start_time.as_ref()),
                end(window.end_time.as_ref())
            )
        }
    }
}

/// A profile.
pub(crate) fn profile(user: &str, profile: &pb::GetProfileResponse) -> Value {
    json!({
        "user_id": user,
        "profile_revision": profile.profile_revision,
        "events": profile.events,
        "items": profile.items,
        "events_excluded": profile.events_excluded,
        "exclusions": profile.exclusions,
        "newest_events": profile.newest_events.iter().map(profile_event).collect::<Vec<_>>(),
        "vector": profile.vector.as_ref().map(|vector| json!({
            "values": vector.values,
            "model_version": vector.model_version,
        })),
    })
}

fn profile_event(entry: &pb::ProfileEvent) -> Value {
    let mut value = entry.event.as_ref().map_or_else(|| json!({}), event);
    value["weight"] = json!(entry.weight);
    value["rule_id"] = json!(entry.rule_id);
    value
}

/// An event.
pub(crate) fn event(event: &pb::Event) -> Value {
    json!({
        "event_id": event.event_id,
        "item_id": event.item_id,
        "event_time": text(event.event_time.as_ref()),
        "kind": kind(event),
        "played_ms": event.played_ms,
        "context": event.context,
        "session_id": event.session_id,
        "count": event.count.unwrap_or(1),
    })
}

/// An event as [`event`] writes it.
pub(crate) fn event_from(value: &Value) -> Result<pb::Event, String> {
    let kind = required(value, "kind")?;
    let name = format!("EVENT_KIND_{}", kind.to_ascii_uppercase());
    let kind = pb::EventKind::from_str_name(&name).ok_or(format!("kind {kind:?} is not known"))?;
    let count = match &value["count"] {
        Value::Null => None,
        count => Some(whole(count).ok_or(format!("count {count} is no count"))?),
    };
    Ok(pb::Event {
        event_id: required(value, "event_id")?.to_owned(),
        item_id: required(value, "item_id")?.to_owned(),
        event_time: instant_from(value, "event_time")?,
        kind: kind.into(),
        played_ms: value["played_ms"].as_i64(),
        context: string(value, "context"),
        session_id: string(value, "session_id"),
        count,
        private: false,
    })
}

/// A rule as [`exclusion`] writes it.
pub(crate) fn exclusion_from(value: &Value) -> Result<pb::Exclusion, String> {
    use pb::exclusion_scope::Scope;
    let scope = &value["scope"];
    let one = |key: &str| scope[key].as_str().map(str::to_owned);
    let covered = if let Some(id) = one("item_id") {
        Scope::ItemId(id)
    } else if let Some(context) = one("context") {
        Scope::Context(context)
    } else if let Some(artist) = one("artist") {
        Scope::Artist(artist)
    } else if let Some(tag) = one("tag") {
        Scope::Tag(tag)
    } else if let Some(session) = one("session_id") {
        Scope::SessionId(session)
    } else if scope["window"].is_object() {
        Scope::Window(pb::TimeWindow {
            start_time: instant_from(&scope["window"], "start_time")?,
            end_time: instant_from(&scope["window"], "end_time")?,
        })
    } else {
        return Err(format!("scope {scope} is not known"));
    };
    let effect = format!(
        "EXCLUSION_EFFECT_{}",
        required(value, "effect")?.to_ascii_uppercase()
    );
    let action = format!(
        "EXCLUSION_ACTION_{}",
        required(value, "action")?.to_ascii_uppercase()
    );
    let unknown = |name: &str| format!("{name} is not known");
    #[expect(clippy::cast_possible_truncation, reason = "was a float before")]
    let strength = value["strength"].as_f64().map(|strength| strength as f32);
    Ok(pb::Exclusion {
        rule_id: required(value, "rule_id")?.to_owned(),
        scope: Some(pb::ExclusionScope {
            scope: Some(covered),
        }),
        strength,
        effect: pb::ExclusionEffect::from_str_name(&effect)
            .ok_or_else(|| unknown(&effect))?
            .into(),
        action: pb::ExclusionAction::from_str_name(&action)
            .ok_or_else(|| unknown(&action))?
            .into(),
        expire_time: instant_from(value, "expire_time")?,
        create_time: None,
        note: string(value, "note"),
    })
}

fn required<'a>(value: &'a Value, key: &str) -> Result<&'a str, String> {
    value[key].as_str().ok_or(format!("{key} is missing"))
}

fn string(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_default().to_owned()
}

fn whole(value: &Value) -> Option<u32> {
    u32::try_from(value.as_u64()?).ok()
}

fn instant_from(value: &Value, key: &str) -> Result<Option<WireTimestamp>, String> {
    let Some(text) = value[key].as_str() else {
        return Ok(None);
    };
    let at: jiff::Timestamp = text
        .parse()
        .map_err(|error| format!("{key} {text:?}: {error}"))?;
    Ok(Some(wire_instant(at)))
}

/// What a rule would change.
pub(crate) fn preview(answer: &pb::PreviewExclusionResponse) -> Value {
    json!({
        "events_changed": answer.events_changed,
        "events_excluded": answer.events_excluded,
        "minutes": answer.minutes,
        "items_forbidden": answer.items_forbidden,
        "items_released": answer.items_released,
        "overlap": answer.overlap,
        "before": results(&answer.before),
        "after": results(&answer.after),
        "profile_before": profile_use(answer.profile_before.as_ref()),
        "profile_after": profile_use(answer.profile_after.as_ref()),
        "served_by": served_by(answer.served_by.as_ref()),
    })
}

/// The assignments in the layers of a surface, the first layer's first.
pub(crate) fn assignments(answer: &pb::AssignResponse) -> impl Iterator<Item = &pb::Assignment> {
    answer.assignment.iter().chain(&answer.further)
}

/// An assignment.
pub(crate) fn assignment(
    unit: &str,
    surface: &str,
    assignment: &pb::Assignment,
    answer: &pb::AssignResponse,
) -> Value {
    json!({
        "unit_id": unit,
        "surface": surface,
        "layer": assignment.layer,
        "layer_epoch": assignment.layer_epoch,
        "bucket": assignment.bucket,
        "experiment": assignment.experiment,
        "experiment_epoch": assignment.experiment_epoch,
        "arm": assignment.arm,
        "grid": assignment.grid,
        "variant": assignment.variant,
        "reason": short(assignment.reason().as_str_name(), "ASSIGNMENT_REASON_"),
        "probability": assignment.probability,
        "config_digest": answer.config_digest,
    })
}

/// What is in force.
pub(crate) fn experiments(answer: &pb::ListExperimentsResponse) -> Value {
    let arm = |arm: &pb::ExperimentArm| {
        json!({
            "name": arm.name,
            "variant": arm.variant,
            "probability": arm.probability,
        })
    };
    let experiment = |one: &pb::Experiment| {
        json!({
            "name": one.name,
            "layer": one.layer,
            "epoch": one.epoch,
            "kind": one.kind,
            "allocation_bp": one.allocation_bp,
            "paused": one.paused,
            "targeted": one.targeted,
            "admitted_units": one.admitted_units,
            "arms": one.arms.iter().map(arm).collect::<Vec<_>>(),
        })
    };
    let layer = |layer: &pb::ExperimentLayer| {
        json!({
            "name": layer.name,
            "epoch": layer.epoch,
            "free_bp": layer.free_bp,
        })
    };
    json!({
        "experiments": answer.experiments.iter().map(experiment).collect::<Vec<_>>(),
        "layers": answer.layers.iter().map(layer).collect::<Vec<_>>(),
        "enabled": answer.enabled,
        "config_digest": answer.config_digest,
    })
}

/// The groups of a list.
fn mix(groups: &[pb::GroupCount]) -> Value {
    let group = |group: &pb::GroupCount| {
        json!({
            "name": group.name,
            "items": group.items,
            "label": group.label,
        })
    };
    groups.iter().map(group).collect()
}

/// Why an item moved, in a word.
pub(crate) fn move_reason(step: &pb::Move) -> String {
    short(step.reason().as_str_name(), "MOVE_REASON_")
}

/// Variants side by side.
pub(crate) fn comparison(answer: &pb::CompareVariantsResponse) -> Value {
    let variants: Vec<Value> = answer
        .variants
        .iter()
        .map(|variant| {
            json!({
                "variant": variant.variant,
                "results": results(&variant.results),
                "degraded": degraded(&variant.degraded),
                "overlap": variant.overlap,
                "rank_biased_overlap": variant.rank_biased_overlap,
                "distinct_artists": variant.distinct_artists,
                "elapsed_us": variant.elapsed_us,
                "moves": variant.moves.iter().map(|step| json!({
                    "item_id": step.item_id,
                    "from": step.from,
                    "to": step.to,
                    "reason": move_reason(step),
                    "feature": step.feature,
                    "change": step.change,
                })).collect::<Vec<_>>(),
                "missing_features": variant.missing_features,
                "artists": mix(&variant.artists),
                "scenes": mix(&variant.scenes),
            })
        })
        .collect();
    json!({
        "variants": variants,
        "served_by": served_by(answer.served_by.as_ref()),
        "unresolved_seeds": answer.unresolved_seeds,
        "profile": profile_use(answer.profile.as_ref()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_survive_the_wire_on_both_sides_of_1970() {
        for text in [
            "2026-11-22T19:45:00.5Z",
            "1969-12-31T23:59:59.25Z",
            "1970-01-01T00:00:00Z",
        ] {
            let at: jiff::Timestamp = text.parse().expect("valid");
            let wire = wire_instant(at);
            assert!((0..1_000_000_000).contains(&wire.nanos), "{text}: {wire:?}");
            assert_eq!(instant(Some(&wire)), Some(at), "{text}");
        }
    }

    #[test]
    fn what_is_exported_can_be_loaded() {
        use pb::exclusion_scope::Scope;
        let at = |text: &str| Some(wire_instant(text.parse().expect("valid")));
        let original = pb::Event {
            event_id: "e\u{0}1".to_owned(),
            item_id: "i".to_owned(),
            event_time: at("1969-01-01T00:00:00.000001Z"),
            kind: pb::EventKind::Unlike.into(),
            played_ms: Some(7),
            context: "c".to_owned(),
            session_id: String::new(),
            count: Some(3),
            private: false,
        };
        assert_eq!(event_from(&event(&original)), Ok(original));
        let scopes = [
            Scope::ItemId("i".to_owned()),
            Scope::Context("c".to_owned()),
            Scope::Artist("a".to_owned()),
            Scope::Tag("t".to_owned()),
            Scope::SessionId("s".to_owned()),
            Scope::Window(pb::TimeWindow {
                start_time: None,
                end_time: at("2026-01-01T00:00:00Z"),
            }),
        ];
        for scope in scopes {
            let rule = pb::Exclusion {
                rule_id: "r".to_owned(),
                scope: Some(pb::ExclusionScope { scope: Some(scope) }),
                strength: Some(0.3),
                effect: pb::ExclusionEffect::Learn.into(),
                action: pb::ExclusionAction::Exclude.into(),
                expire_time: at("2030-01-01T00:00:00Z"),
                create_time: None,
                note: "n".to_owned(),
            };
            assert_eq!(exclusion_from(&exclusion(&rule)), Ok(rule));
        }
        for bad in [
            json!({}),
            json!({"kind": "no"}),
            json!({"kind": "play", "event_id": 3}),
        ] {
            assert!(
                event_from(&bad).is_err() && exclusion_from(&bad).is_err(),
                "{bad}"
            );
        }
    }

    #[test]
    fn enum_names_are_short() {
        let result = pb::Result {
            source: pb::ResultSource::Ann.into(),
            ..Default::default()
        };
        assert_eq!(source(&result), "ann");
        assert_eq!(degraded(&[4, 99]), ["fallback_used", "reason_99"]);
    }
}
