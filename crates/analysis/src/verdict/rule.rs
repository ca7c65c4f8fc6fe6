//! The decision rule over all metrics of all treatments.

use super::document::{ArmVerdict, Check, MetricResult, Status, Verdict};
use super::estimate::Stretch;
use super::{Evidence, say};
use crate::methods::decision::{self, Inputs, Judgement, Levels, Recommendation};
use crate::plan::{Kind, Metric, Role, Window};

/// What the rule decides on.
pub(super) struct Facts<'a> {
    pub(super) evidence: &'a Evidence<'a>,
    pub(super) checks: &'a [Check],
    pub(super) judged: &'a [Vec<(usize, Judgement)>],
    pub(super) metrics: &'a [MetricResult],
    pub(super) hidden: Option<String>,
    pub(super) waiting: Vec<String>,
    pub(super) information: Option<f64>,
    pub(super) power: Option<f64>,
    pub(super) levels: Levels,
    pub(super) stretches: &'a [Stretch],
    pub(super) looks: usize,
}

pub(super) fn verdict(facts: &Facts<'_>) -> Verdict {
    let invalid = facts
        .checks
        .iter()
        .any(|check| check.status == Status::Fail);
    let ended = facts.evidence.last || facts.information.is_some_and(|t| t >= 1.0 - 1e-9);
    let arms: Vec<ArmVerdict> = facts
        .judged
        .iter()
        .enumerate()
        .map(|(at, judged)| arm_verdict(facts, at + 1, judged, invalid, ended))
        .collect();
    // The gravest word of any arm speaks for the experiment, but one arm that ships is a ship.
    let order = [
        "INVALID",
        "STOP_HARM",
        "SHIP",
        "ADVANCE",
        "KEEP_RUNNING",
        "NO_SHIP",
    ];
    let recommendation = if invalid {
        "INVALID"
    } else if arms.len() > 1
        && arms
            .iter()
            .any(|a| matches!(a.recommendation, "SHIP" | "ADVANCE"))
    {
        arms.iter()
            .map(|a| a.recommendation)
            .find(|r| matches!(*r, "SHIP" | "ADVANCE"))
            .unwrap_or("SHIP")
    } else {
        order
            .into_iter()
            .find(|word| arms.iter().any(|arm| arm.recommendation == *word))
            .unwrap_or("KEEP_RUNNING")
    };
    let mut verdict = Verdict {
        recommendation,
        headline: String::new(),
        reasons: Vec::new(),
        assumptions: say::assumptions(facts),
        next: Vec::new(),
        arms,
        effects_hidden: facts.hidden.clone(),
        information: facts.information,
    };
    say::say(facts, ended, &mut verdict);
    verdict
}

fn arm_verdict(
    facts: &Facts<'_>,
    arm: usize,
    judged: &[(usize, Judgement)],
    invalid: bool,
    ended: bool,
) -> ArmVerdict {
    let plan = facts.evidence.plan;
    let names = |keep: &dyn Fn(&Metric, &Judgement) -> bool| -> Vec<String> {
        judged
            .iter()
            .filter(|(at, judgement)| keep(&plan.metrics[*at], judgement))
            .map(|(at, _)| plan.metrics[*at].name.clone())
            .collect()
    };
    let hide = invalid || facts.hidden.is_some();
    let judgements: Vec<Judgement> = judged.iter().map(|(_, judgement)| *judgement).collect();
    // A metric that could not be judged yet must not be missed by the rule: it keeps running.
    let complete = plan.metrics.iter().enumerate().all(|(at, metric)| {
        !metric.role.decides()
            || metric.window == Window::Open
            || judged.iter().any(|(judged, _)| *judged == at)
    });
    let decided = decision::decide(
        &judgements,
        &Inputs {
            quality_failed: invalid,
            information: if ended {
                1.0
            } else {
                facts.information.unwrap_or(0.0).min(1.0 - 1e-9)
            },
            achieved_power: facts.power,
            planned_power: facts.levels.power,
        },
    );
    let recommendation = match decided {
        Recommendation::Invalid => "INVALID",
        _ if facts.hidden.is_some() => "KEEP_RUNNING",
        Recommendation::StopHarm => "STOP_HARM",
        Recommendation::Ship if !complete => "KEEP_RUNNING",
        Recommendation::Ship if matches!(plan.kind, Kind::Rollout | Kind::Interleave) => "ADVANCE",
        Recommendation::Ship => "SHIP",
        Recommendation::KeepRunning => "KEEP_RUNNING",
        Recommendation::NoShipPowered | Recommendation::NoShipInconclusive => "NO_SHIP",
    };
    let shown = |names: Vec<String>| if hide { Vec::new() } else { names };
    ArmVerdict {
        arm: plan.arms[arm].name.clone(),
        recommendation,
        improved: shown(names(&|metric, j| {
            metric.role == Role::Success && j.superior
        })),
        within_margin: shown(names(&|_, j| j.noninferior == Some(true))),
        not_within_margin: shown(names(&|_, j| j.noninferior == Some(false))),
        harmed: shown(names(&|_, j| j.deteriorated)),
    }
}
