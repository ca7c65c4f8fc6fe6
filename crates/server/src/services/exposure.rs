//! What an answer becomes in the log.

use refrain::v1;
use refrain::v1::recommend_request::Subject;
use refrain_engine::{Choice, Scored};
use refrain_experiments::record::{Decision, Exposure, ShownItem};
use refrain_experiments::{Assignment, Reason, hash128};

use super::recommendation::Question;

/// The exposures of an answer, but for the time that it took: one for the first layer of its surface, one
/// for each experiment of another. `drawn` has the same items as the answer.
pub(super) fn rows(
    question: &Question,
    choice: &Choice<'_>,
    response: &v1::RecommendResponse,
    drawn: &[Scored],
) -> Vec<Exposure> {
    let first = row(question, choice, response, drawn);
    let served_by = response.served_by.iter();
    let further = served_by.flat_map(|served_by| &served_by.further);
    let inside = choice.further.iter().filter(|a| a.experiment.is_some());
    let more: Vec<_> = inside
        .zip(further)
        .map(|(assignment, further)| {
            let fell_back = fell_back(response);
            Exposure {
                exposure_id: u128::from_str_radix(&further.exposure_id, 16).unwrap_or(0),
                served_variant: served_arm(assignment, fell_back),
                decision: Decision {
                    config_digest: first.decision.config_digest,
                    ..decision(assignment, "", fell_back)
                },
                ..first.clone()
            }
        })
        .collect();
    std::iter::once(first).chain(more).collect()
}

fn fell_back(response: &v1::RecommendResponse) -> bool {
    let fallback = i32::from(v1::DegradedReason::FallbackUsed);
    response.degraded.contains(&fallback)
}

/// Name of the arm that was served, when one was.
fn served_arm(assignment: &Assignment<'_>, fell_back: bool) -> Option<String> {
    match assignment.arm {
        Some(_) if fell_back => Some("fallback".to_owned()),
        arm => arm.map(str::to_owned),
    }
}

fn row(
    question: &Question,
    choice: &Choice<'_>,
    response: &v1::RecommendResponse,
    drawn: &[Scored],
) -> Exposure {
    let request = &question.request;
    let nothing = v1::ServedBy::default();
    let served_by = response.served_by.as_ref().unwrap_or(&nothing);
    let (seed_kind, unit, seeds) = match &request.subject {
        Some(Subject::UserId(user)) => ("user", user.as_str(), None),
        Some(Subject::Profile(_)) => ("profile", "", None),
        Some(Subject::Seeds(seeds)) => ("seeds", "", Some(hash_of(seeds))),
        Some(Subject::Vector(_)) | None => ("vector", "", None),
    };
    let fell_back = fell_back(response);
    Exposure {
        exposure_id: u128::from_str_radix(&response.exposure_id, 16).unwrap_or(0),
        ts_us: crate::clock::now_us(),
        unit_id: unit.to_owned(),
        request_id: (!request.request_id.is_empty()).then(|| request.request_id.clone()),
        surface: question.surface().to_owned(),
        seed_kind,
        seed_ids_hash: seeds,
        served_variant: served_arm(&choice.assignment, fell_back),
        decision: decision(&choice.assignment, &served_by.config_digest, fell_back),
        ranking_variant: served_by.variant.clone(),
        index_version: served_by.version.clone(),
        delta: served_by.delta,
        model_version: served_by.model_version.clone(),
        profile_rev: (served_by.profile_revision > 0).then_some(served_by.profile_revision),
        items: response.results.iter().zip(drawn).map(shown).collect(),
        slate_logprob: None,
        latency_us: 0,
        degraded: response.degraded.iter().fold(0, |flags, &reason| {
            let bit = u32::try_from(reason - 1).ok();
            flags | bit.and_then(|bit| 1_u16.checked_shl(bit)).unwrap_or(0)
        }),
        bot: request.context.get(BOT).is_some_and(|is| is == "true"),
        seq: 0,
    }
}

/// The label of a request that no listener made.
const BOT: &str = "bot";

fn decision(a: &Assignment<'_>, digest: &str, fell_back: bool) -> Decision {
    let split = a.reason == Reason::Split;
    Decision {
        layer: a.layer.to_owned(),
        layer_epoch: a.layer_epoch,
        experiment: a.experiment.unwrap_or_default().to_owned(),
        exp_epoch: a.experiment_epoch,
        kind: a.kind.map_or("", |kind| kind.as_str()),
        arm: a.arm.unwrap_or_default().to_owned(),
        reason: match a.reason {
            Reason::Split if fell_back => "DEGRADED",
            reason => reason.as_str(),
        },
        holdout: a.holdout.map(|group| group.as_str()),
        holdouts: a.holdouts.to_string(),
        bucket: a.bucket,
        alloc_bp: a.allocation_bp,
        weights: a.weights.to_vec(),
        assign_prob: split.then_some(a.probability),
        config_digest: bytes_of(digest),
    }
}

fn shown<'a>((result, drawn): (&'a v1::Result, &Scored)) -> (&'a str, ShownItem) {
    let shown = ShownItem {
        score: result.score,
        source: u8::try_from(result.source).unwrap_or(0),
        team: drawn.team.and_then(|team| i8::try_from(team.index()).ok()),
        propensity: drawn.propensity,
        explored: drawn.explored,
    };
    (&result.item_id, shown)
}

/// Of the seeds in any order.
fn hash_of(seeds: &v1::Seeds) -> String {
    let mut ids: Vec<String> = [("+", &seeds.positive), ("-", &seeds.negative)]
        .into_iter()
        .flat_map(|(sign, seeds)| {
            seeds
                .iter()
                .map(move |seed| format!("{sign}{:?}", seed.seed))
        })
        .collect();
    ids.sort_unstable();
    format!("{:032x}", hash128(ids.join("|").as_bytes()))
}

/// The bytes of 64 hexadecimal digits.
pub(super) fn bytes_of(digest: &str) -> [u8; 32] {
    let mut bytes = [0; 32];
    let digit = |&letter: &u8| match letter {
        b'0'..=b'9' => letter - b'0',
        b'a'..=b'f' => letter - b'a' + 10,
        _ => 0,
    };
    let (pairs, _) = digest.as_bytes().as_chunks();
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = digit(high) << 4 | digit(low);
    }
    bytes
}
