//! The verdict in sentences that an owner can repeat.

use super::document::{Check, SegmentResult, Status, Verdict};
use super::monitor::READ;
use super::rule::Facts;
use super::words;
use crate::plan::{Kind, Method, Metric, Role, Window};

/// Headline, reasons and what to do next.
pub(super) fn say(facts: &Facts<'_>, ended: bool, verdict: &mut Verdict) {
    let plan = facts.evidence.plan;
    let failed: Vec<&Check> = facts
        .checks
        .iter()
        .filter(|c| c.status == Status::Fail)
        .collect();
    let chosen = verdict
        .arms
        .iter()
        .find(|arm| arm.recommendation == verdict.recommendation);
    let arm = chosen.map_or_else(String::new, |arm| arm.arm.clone());
    let planned = plan.design.max_units.map_or(String::new(), |max| {
        format!(" of the {} planned units", words::count(max))
    });
    match verdict.recommendation {
        "INVALID" => {
            let names: Vec<String> = failed.iter().map(|c| c.name.to_lowercase()).collect();
            verdict.headline = format!(
                "The data cannot be trusted ({}), so no effect is shown.",
                words::list(&names)
            );
            for check in &failed {
                verdict
                    .reasons
                    .push(format!("{}: {}.", check.name, check.finding));
                verdict.next.extend(check.hints.iter().cloned());
            }
            verdict.next.push(
                "mend the cause and start a new epoch; units of this one are not a fair comparison"
                    .to_owned(),
            );
        }
        "STOP_HARM" if plan.kind == Kind::Interleave => {
            let harmed = chosen.map_or_else(Vec::new, |arm| arm.harmed.clone());
            verdict.headline = format!(
                "Listeners prefer the items of the control to those of `{arm}` ({}): stop it.",
                words::list(&harmed)
            );
            verdict
                .next
                .push("stop the experiment; write down what was learned".to_owned());
        }
        "STOP_HARM" if plan.kind == Kind::Holdout => {
            let harmed = chosen.map_or_else(Vec::new, |arm| arm.harmed.clone());
            verdict.headline = format!(
                "What was shipped beside this holdout makes {} worse.",
                words::list(&harmed)
            );
            verdict.next.push(
                "look for the change that did it among the archived experiments of the time, and take it back"
                    .to_owned(),
            );
        }
        "STOP_HARM" => {
            let harmed = chosen.map_or_else(Vec::new, |arm| arm.harmed.clone());
            verdict.headline = format!("`{arm}` makes {} worse: stop it.", words::list(&harmed));
            verdict
                .next
                .push("roll the arm back now; write down what was learned".to_owned());
        }
        "SHIP" if plan.kind == Kind::Holdout => {
            let improved = chosen.map_or_else(Vec::new, |arm| arm.improved.clone());
            verdict.headline = format!(
                "There is evidence that what was shipped beside this holdout improves {}: keep it.",
                words::list(&improved)
            );
            verdict.next.push(
                "end the holdout, so that its units get what the others have; draw others with a new epoch"
                    .to_owned(),
            );
        }
        "SHIP" => {
            let improved = chosen.map_or_else(Vec::new, |arm| arm.improved.clone());
            let guarded = chosen.map_or_else(Vec::new, |arm| arm.within_margin.clone());
            let guards = if guarded.is_empty() {
                String::new()
            } else {
                format!(", and {} stayed within margin", words::list(&guarded))
            };
            verdict.headline = format!(
                "There is evidence that `{arm}` improves {}{guards}.",
                words::list(&improved)
            );
            verdict.next.push(if ended {
                "decide, write the decision into the journal, and archive this analysis".to_owned()
            } else {
                "you may stop now. An estimate from an early stop is too large on average: expect less in production".to_owned()
            });
        }
        "ADVANCE" if plan.kind == Kind::Interleave => {
            let improved = chosen.map_or_else(Vec::new, |arm| arm.improved.clone());
            verdict.headline = format!(
                "Listeners prefer the items of `{arm}` ({}): it is worth an A/B experiment.",
                words::list(&improved)
            );
            verdict.next.push(
                "run an A/B experiment before shipping: interleaving says which items are chosen, and nothing about retention, latency or whole lists"
                    .to_owned(),
            );
        }
        "ADVANCE" => {
            let guarded = chosen.map_or_else(Vec::new, |arm| arm.within_margin.clone());
            verdict.headline = format!(
                "`{arm}` stayed within margin on {}: go on to the next step of the rollout.",
                words::list(&guarded)
            );
        }
        "NO_SHIP" if plan.kind == Kind::Holdout => {
            let powered = facts.power.is_some_and(|power| power >= facts.levels.power);
            verdict.headline = if powered {
                "No evidence that what was shipped beside this holdout improves anything, in a holdout large enough to have seen what matters."
            } else {
                "No evidence that what was shipped beside this holdout improves anything, and too little information to have seen what matters: inconclusive, not \"no effect\"."
            }
            .to_owned();
            verdict.next.push(
                "ask what each change had promised (`refrain experiment offline-online` over the archive); end the holdout, or hold out more units"
                    .to_owned(),
            );
        }
        "NO_SHIP" => {
            let powered = facts.power.is_some_and(|power| power >= facts.levels.power);
            let unproven: Vec<String> = verdict
                .arms
                .iter()
                .flat_map(|arm| arm.not_within_margin.clone())
                .collect();
            let improved = verdict.arms.iter().any(|arm| !arm.improved.is_empty());
            verdict.headline = match (improved, unproven.is_empty(), powered) {
                (true, false, _) => format!("There is improvement, but {} is not shown to be within margin.", words::list(&unproven)),
                (_, _, true) => "No evidence of improvement, in an experiment large enough to have seen what matters.".to_owned(),
                _ => "No evidence of improvement, and too little information to have seen what matters: inconclusive, not \"no effect\".".to_owned(),
            };
            verdict.next.push("keep the control; a smaller question or a less noisy metric may be worth another experiment".to_owned());
        }
        _ => {
            verdict.headline = match (&facts.hidden, verdict.information) {
                (Some(reason), _) if reason == READ => {
                    "This design was read at an earlier look, and that reading stands.".to_owned()
                }
                (Some(_), _) => {
                    "Keep running: effects stay hidden until the design allows a look.".to_owned()
                }
                (None, Some(t)) if !ended => format!(
                    "Keep running: {}{planned} are complete, and no boundary is crossed.",
                    words::percent(t)
                ),
                _ => "Keep running: no boundary is crossed yet.".to_owned(),
            };
            if let (Some(t), Some(max)) = (verdict.information, plan.design.max_units)
                && let Some((first, _)) = facts.evidence.statistics.first_us
            {
                verdict
                    .next
                    .extend(forecast(t, max, first, facts.evidence.cutoff_us));
            }
        }
    }
    if verdict.recommendation != "INVALID" {
        reasons(facts, verdict);
    }
    for check in facts.checks.iter().filter(|c| c.status == Status::Warn) {
        verdict.reasons.push(format!(
            "Note, {}: {}.",
            check.name.to_lowercase(),
            check.finding
        ));
    }
}

/// When the planned information will be there, if units keep coming as they did.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "a forecast in days"
)]
fn forecast(t: f64, max: u64, first_us: i64, now_us: i64) -> Option<String> {
    if t >= 1.0 {
        return None;
    }
    if t <= 0.0 {
        return Some(
            "no unit is complete for the slowest metric yet: wait for its window".to_owned(),
        );
    }
    let days = (now_us - first_us) as f64 / 86_400e6;
    let left = (days / t * (1.0 - t)).ceil();
    (left < 3650.0).then(|| {
        format!(
            "at this rate the planned {} units are complete in about {left:.0} days, around {}",
            words::count(max),
            words::date(now_us / 86_400_000_000 + left as i64)
        )
    })
}

fn reasons(facts: &Facts<'_>, verdict: &mut Verdict) {
    for metric in facts.metrics {
        for comparison in &metric.comparisons {
            if metric.role == "scan" && comparison.outcome != "harm" {
                continue;
            }
            let relative = comparison.relative.as_ref().map_or(String::new(), |r| {
                format!(" ({})", words::signed_percent(r.lift))
            });
            let margin = comparison
                .margin
                .filter(|_| metric.role == "guardrail")
                .map_or(String::new(), |margin| {
                    format!("; margin {}", words::rounded(margin, comparison.se))
                });
            verdict.reasons.push(format!(
                "{} ({}), `{}`: {}; effect {}{relative}, interval {} to {}{margin}.",
                metric.name,
                metric.role,
                comparison.arm,
                comparison.words,
                words::signed(comparison.delta, comparison.se),
                words::signed(comparison.interval.low, comparison.se),
                words::signed(comparison.interval.high, comparison.se),
            ));
        }
    }
    for metric in facts.metrics {
        for caution in metric.comparisons.iter().flat_map(|c| &c.cautions) {
            verdict
                .reasons
                .push(format!("Note, {}: {caution}.", metric.name));
        }
    }
    if let Some(reason) = &facts.hidden {
        verdict
            .reasons
            .push(format!("Effects are hidden: {reason}."));
    }
    for waiting in &facts.waiting {
        verdict.reasons.push(format!("Not judged yet, {waiting}."));
    }
}

/// What to mind before an effect is believed.
pub(super) fn cautions(
    metric: &Metric,
    arm: &str,
    twyman: bool,
    segments: &[SegmentResult],
) -> Vec<String> {
    let mut cautions = Vec::new();
    if twyman {
        cautions.push(format!(
            "the effect of `{arm}` is larger than is believable: by Twyman's law look for a defect in logging or \
             assignment before celebrating"
        ));
    }
    for segment in segments.iter().filter(|segment| segment.simpson) {
        cautions.push(format!(
            "the effect of `{arm}` over everybody points the other way than in every value of `{}` (Simpson's \
             paradox): the arms have different shares of its values, so {} cannot be compared as a whole until \
             the cause is found",
            segment.segment, metric.name
        ));
    }
    cautions
}

pub(super) fn assumptions(facts: &Facts<'_>) -> Vec<String> {
    let plan = facts.evidence.plan;
    let design = &plan.design;
    let mut all = vec![format!(
        "{} design at {} one-sided: {} a success metric, {} a guardrail, {} a deterioration test; look {}",
        design.method,
        words::percent(design.alpha),
        words::percent(facts.levels.success),
        words::percent(facts.levels.guardrail),
        words::percent(facts.levels.deterioration),
        facts.looks,
    )];
    all.push(
        if plan.kind == Kind::Holdout {
            "units do not influence each other; held units got what the surfaces' holdout variant says all the time, and the others, of whom the slice is a random part, what was shipped meanwhile"
        } else if plan.kind == Kind::Interleave {
            "listeners do not influence each other; an item is chosen for what it is and where it stands, whoever drafted it; an event counts for the team of the item that it names"
        } else {
            "units do not influence each other, and a unit is counted in the arm of its first exposure"
        }
        .to_owned(),
    );
    if design.method == Method::Gst && facts.information.is_some_and(|t| t > 1.0 + 1e-9) {
        all.push("there are more units than planned: overrun, the error rate is not guaranteed beyond the plan".to_owned());
    }
    if design.method == Method::Bonferroni && facts.looks > design.looks as usize {
        all.push(format!(
            "look {} of {} planned: the error rate is not guaranteed",
            facts.looks, design.looks
        ));
    }
    let bare: Vec<String> = plan
        .with_role(Role::Guardrail)
        .filter(|metric| metric.margin.is_none())
        .map(|metric| metric.name.clone())
        .collect();
    if !bare.is_empty() {
        all.push(format!(
            "{} has no margin: it is scanned for harm, which cannot prove safety",
            words::list(&bare)
        ));
    }
    let open: Vec<String> = plan
        .metrics
        .iter()
        .filter(|m| m.window == Window::Open)
        .map(|m| m.name.clone())
        .collect();
    if !open.is_empty() {
        all.push(format!("{} has an open window without an end: it keeps growing within units, so it is described and not judged (open(14d) would be)", words::list(&open)));
    }
    let daily: Vec<String> = plan
        .metrics
        .iter()
        .filter(|m| matches!(m.window, Window::Daily { .. }))
        .map(|m| m.name.clone())
        .collect();
    if !daily.is_empty() {
        all.push(format!(
            "{} is measured again every day: whole days count, a day without the event as 0, units by the information they have so far, and the effect is taken to be the same at every age",
            words::list(&daily)
        ));
    }
    if !plan.left_out.is_empty() {
        all.push(format!(
            "{} is left to the server: a request that failed leaves no exposure (its share of each arm stands under Operation)",
            words::list(&plan.left_out)
        ));
    }
    if facts.stretches.len() > 1 {
        all.push(
            "weights changed: effects are averages over stretches of equal weights".to_owned(),
        );
    }
    all
}
