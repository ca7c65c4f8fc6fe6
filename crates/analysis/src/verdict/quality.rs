//! Can the data be trusted? Asked before any effect is looked at.

mod ratio;
mod reference;
mod sameness;

use super::document::{Check, Status};
use super::estimate::{Stretch, estimate};
use super::words;
use super::{Evidence, Input};
use crate::methods::moments::count;
use crate::methods::special::chi_square_sf;
use crate::methods::{mean, srm};
use crate::plan::{Kind, Metric, MetricType, Missing, Source};
use crate::units::statistics::{Attribute, Of};
use crate::units::table::in_table;
use ratio::{expected, sample_ratio, sample_ratio_by_segment};

/// The checks, and the sequential p-value of the sample ratio for later looks.
pub(super) struct Findings {
    pub(super) checks: Vec<Check>,
    pub(super) srm_p: Option<f64>,
}

impl Findings {
    pub(super) fn failed(&self) -> bool {
        self.checks.iter().any(|check| check.status == Status::Fail)
    }
}

/// Share of an arm's answers that are not its own from which on that is told.
const SERVED_WARN: f64 = 0.01;

/// Asks everything.
pub(super) fn ask(evidence: &Evidence<'_>, stretches: &[Stretch]) -> Findings {
    let mut checks = Vec::new();
    if evidence.plan.kind == Kind::Interleave {
        // One list for everybody: there are no arms to fall out of balance.
        let srm_p = draft(evidence, &mut checks);
        losses(
            evidence,
            stretches,
            evidence.plan.design.alpha_quality,
            &mut checks,
        );
        configuration(evidence, &[], &mut checks);
        return Findings { checks, srm_p };
    }
    let srm_p = sample_ratio(evidence, stretches, &mut checks);
    sample_ratio_by_segment(evidence, stretches, &mut checks);
    let level = evidence.plan.design.alpha_quality / tests(evidence);
    units_by_arm(evidence, stretches, level, &mut checks);
    balance(evidence, stretches, level, &mut checks);
    for (at, metric) in evidence.plan.metrics.iter().enumerate() {
        // What a table of units cannot hold is not missing from it.
        if matches!(evidence.input, Input::Log { .. }) || in_table(metric) {
            missing(evidence, at, metric, level, &mut checks);
        }
    }
    sameness::sameness(evidence, stretches, level, &mut checks);
    reference::reference(evidence, evidence.plan.design.alpha_quality, &mut checks);
    losses(evidence, stretches, level, &mut checks);
    served(evidence, &mut checks);
    configuration(evidence, stretches, &mut checks);
    Findings { checks, srm_p }
}

/// How many tests share the quality level: two over arms, losses, covariates, missing values, metrics
/// that must be the same.
#[expect(clippy::cast_precision_loss, reason = "at most some dozens")]
fn tests(evidence: &Evidence<'_>) -> f64 {
    let metrics = &evidence.plan.metrics;
    let covariates = metrics.iter().filter(|m| m.covariate.is_some()).count();
    let missing = metrics
        .iter()
        .filter(|m| m.missing == Missing::Exclude)
        .count();
    (3 + covariates + missing + sameness::tests(evidence)) as f64
}

/// Of interleaved lists: does each arm pick first as often as the other, and do events name items?
fn draft(evidence: &Evidence<'_>, checks: &mut Vec<Check>) -> Option<f64> {
    let (plan, statistics) = (evidence.plan, evidence.statistics);
    let picks = statistics.first_picks;
    let mut check = Check {
        id: "srm".to_owned(),
        name: "Fair draft".to_owned(),
        status: Status::Skipped,
        finding: "no list has an item that one of the arms alone brought: nothing to prefer"
            .to_owned(),
        p: None,
        threshold: None,
        hints: Vec::new(),
    };
    let mut sequential = None;
    if let (Ok(once), Ok(always)) = (
        srm::fixed(&picks, &[0.5, 0.5]),
        srm::sequential(&picks, &[0.5, 0.5]),
    ) {
        let earlier = evidence
            .looks
            .looks
            .iter()
            .filter_map(|look| look.srm_p)
            .fold(1.0, f64::min);
        let now = (-always.ln_e).exp().min(1.0).min(earlier);
        sequential = Some(now);
        let (p, threshold) = if evidence.looks.looks.is_empty() {
            (once.p, plan.design.alpha_srm)
        } else {
            (now, srm::SEQUENTIAL_ALPHA)
        };
        let failed = p < threshold;
        check.status = status(failed, false);
        check.finding = format!(
            "the first item that one arm alone brought was of `{}` in {} lists, of `{}` in {}; a fair coin decides (p = {})",
            plan.arms[0].name,
            words::count(picks[0]),
            plan.arms[1].name,
            words::count(picks[1]),
            words::p(p)
        );
        check.p = Some(p);
        check.threshold = Some(threshold);
        if failed {
            check.hints.push(
                "lists of one arm are lost, or the draft does not toss its coin: what stands higher is chosen more, whoever brought it"
                    .to_owned(),
            );
        }
    }
    checks.push(check);
    for (at, metric) in (0_u16..).zip(&plan.metrics) {
        let sessions = statistics.sessions.get(&at).copied().unwrap_or_default();
        let Source::Event(event) = &metric.source else {
            continue;
        };
        if sessions.ties >= 200 && sessions.a + sessions.b == 0 {
            checks.push(Check {
                id: format!("instrumentation:{}", metric.name),
                name: format!("Instrumentation of {}", metric.name),
                status: Status::Fail,
                finding: format!(
                    "in {} lists not one event `{event}` names an item that a team brought",
                    words::count(sessions.ties)
                ),
                p: None,
                threshold: None,
                hints: vec![
                    "report outcomes with the exposure_id of the answer and the item".to_owned(),
                ],
            });
        }
    }
    sequential
}

/// Units in several arms, and bots: their share, and whether the arms differ in it.
#[expect(
    clippy::cast_precision_loss,
    reason = "counts of units are far below 2^53"
)]
fn units_by_arm(
    evidence: &Evidence<'_>,
    stretches: &[Stretch],
    level: f64,
    checks: &mut Vec<Check>,
) {
    let (plan, statistics) = (evidence.plan, evidence.statistics);
    let all = statistics.units_of(Attribute::All, 0);
    let total: u64 = all.iter().sum();
    let several = statistics.units_of(Attribute::MultiArm, 0);
    let share = several.iter().sum::<u64>() as f64 / total.max(1) as f64;
    let differ = differs(&several, &all);
    let failed = share > plan.policy.max_multi_arm || differ.is_some_and(|p| p < level);
    checks.push(Check {
        id: "multi_arm".to_owned(),
        name: "Units in several arms".to_owned(),
        status: status(failed, several.iter().any(|n| *n > 0)),
        finding: format!(
            "{} of {} units ({}) were seen in more than one arm and are left out{}",
            words::count(several.iter().sum()),
            words::count(total),
            words::percent(share),
            between(plan, &several, differ),
        ),
        p: differ,
        threshold: Some(level),
        hints: if failed {
            vec![format!(
                "at most {} are tolerated. A unit must keep its arm: was the unit's id, the layer's epoch \
                 or the arms' weights changed while it ran?",
                words::percent(plan.policy.max_multi_arm)
            )]
        } else {
            Vec::new()
        },
    });
    let bots = statistics.units_of(Attribute::Bot, 0);
    let differ = differs(&bots, &all);
    let failed = differ.is_some_and(|p| p < level);
    checks.push(Check {
        id: "bots".to_owned(),
        name: "Bots".to_owned(),
        status: status(failed, false),
        finding: format!(
            "{} of {} units ({}) are bots by flag or by more than {} exposures a day and are left out{}",
            words::count(bots.iter().sum()),
            words::count(total),
            words::percent(bots.iter().sum::<u64>() as f64 / total.max(1) as f64),
            words::count(u64::from(plan.policy.max_exposures_per_day)),
            between(plan, &bots, differ),
        ),
        p: differ,
        threshold: Some(level),
        hints: if failed {
            vec!["the arms differ in bots: one of them attracts, creates or fails to stop automated \
                  traffic, or the rule is not the same for all arms".to_owned()]
        } else {
            Vec::new()
        },
    });
    let _ = stretches;
}

/// P-value of "all arms have the same share of these".
fn differs(some: &[u64], all: &[u64]) -> Option<f64> {
    let rest: Vec<u64> = all
        .iter()
        .zip(some)
        .map(|(all, some)| all - some.min(all))
        .collect();
    homogeneity(some, &rest)
}

/// Pearson's chi-square of a 2 x arms table; absent where an expected count is below 5.
#[expect(
    clippy::cast_precision_loss,
    reason = "counts of units are far below 2^53"
)]
fn homogeneity(some: &[u64], rest: &[u64]) -> Option<f64> {
    let (a, b) = (
        some.iter().sum::<u64>() as f64,
        rest.iter().sum::<u64>() as f64,
    );
    let total = a + b;
    let mut chi_square = 0.0;
    for (some, rest) in some.iter().zip(rest) {
        let column = (some + rest) as f64;
        for (seen, row) in [(*some as f64, a), (*rest as f64, b)] {
            let expected = column * row / total;
            if expected.is_nan() || expected < 5.0 {
                return None;
            }
            chi_square += (seen - expected).powi(2) / expected;
        }
    }
    Some(chi_square_sf(chi_square, some.len() as f64 - 1.0))
}

fn between(plan: &crate::Plan, counts: &[u64], p: Option<f64>) -> String {
    if counts.iter().all(|count| *count == 0) {
        return String::new();
    }
    let test = p.map_or(String::new(), |p| {
        format!("; the same in all arms: p = {}", words::p(p))
    });
    format!(" ({}{test})", by_arm(plan, counts))
}

/// `control 100, blend03 90`.
fn by_arm(plan: &crate::Plan, counts: &[u64]) -> String {
    let counts: Vec<String> = plan
        .arms
        .iter()
        .zip(counts)
        .map(|(arm, units)| format!("{} {}", arm.name, words::count(*units)))
        .collect();
    counts.join(", ")
}

fn status(failed: bool, warn: bool) -> Status {
    match (failed, warn) {
        (true, _) => Status::Fail,
        (false, true) => Status::Warn,
        (false, false) => Status::Pass,
    }
}

/// Covariates were measured before: the arms must agree in them.
fn balance(evidence: &Evidence<'_>, stretches: &[Stretch], level: f64, checks: &mut Vec<Check>) {
    let plan = evidence.plan;
    let strata: Vec<u16> = stretches
        .iter()
        .flat_map(|s| s.strata.iter().copied())
        .collect();
    let mut seen = Vec::new();
    for (at, metric) in plan.metrics.iter().enumerate() {
        let Some(name) = &metric.covariate else {
            continue;
        };
        if seen.contains(&name) {
            continue;
        }
        seen.push(name);
        let column = if metric.kind == MetricType::Ratio {
            2
        } else {
            1
        };
        let mut worst: Option<(f64, usize)> = None;
        for arm in 1..plan.arms.len() {
            let moments = |arm| evidence.statistics.moments(at, arm, &strata, Of::All);
            let (Some(control), Some(treatment)) = (moments(0), moments(arm)) else {
                continue;
            };
            let Ok(comparison) =
                mean::compare(&control.summary(column), &treatment.summary(column))
            else {
                continue;
            };
            let p = comparison.effect().p_two_sided();
            if worst.is_none_or(|(least, _)| p < least) {
                worst = Some((p, arm));
            }
        }
        let failed = worst.is_some_and(|(p, _)| p < level);
        checks.push(Check {
            id: format!("balance:{name}"),
            name: format!("Balance of {name}"),
            status: if worst.is_none() { Status::Skipped } else { status(failed, false) },
            finding: match worst {
                Some((p, arm)) => format!(
                    "measured before the experiment, control and `{}` {} (p = {})",
                    plan.arms[arm].name,
                    if failed { "differ" } else { "agree" },
                    words::p(p)
                ),
                None => "no unit has it, or it does not vary: not tested, not used".to_owned(),
            },
            p: worst.map(|(p, _)| p),
            threshold: Some(level),
            hints: if failed {
                vec!["what was measured before the experiment cannot be its effect: units are not randomly \
                      split, or the covariate was not measured before".to_owned()]
            } else {
                Vec::new()
            },
        });
    }
}

/// Units without a value: is it the arm that keeps them from having one? And does anything arrive?
fn missing(
    evidence: &Evidence<'_>,
    at: usize,
    metric: &Metric,
    level: f64,
    checks: &mut Vec<Check>,
) {
    let (plan, statistics) = (evidence.plan, evidence.statistics);
    let strata = statistics.strata();
    let arms = plan.arms.len();
    let known: Vec<u64> = (0..arms)
        .map(|arm| {
            statistics
                .moments(at, arm, &strata, Of::All)
                .map_or(0, |m| m.n)
        })
        .collect();
    let missing: Vec<u64> = (0..arms)
        .map(|arm| {
            let key = (
                u16::try_from(at).unwrap_or(u16::MAX),
                u16::try_from(arm).unwrap_or(u16::MAX),
            );
            statistics.missing.get(&key).copied().unwrap_or(0)
        })
        .collect();
    let mature: Vec<u64> = known.iter().zip(&missing).map(|(a, b)| a + b).collect();
    // Half a dozen units may well have done nothing yet.
    let silent = mature.iter().sum::<u64>() >= 100
        && (0..arms).any(|arm| {
            mature[arm] >= 50
                && statistics
                    .tally(at, arm, &strata, Of::All)
                    .is_none_or(|tally| tally.sum(0) == 0.0 && known_is_silent(metric, &tally))
        });
    if silent {
        let source = match &metric.source {
            Source::Event(event) => format!("event `{event}`"),
            Source::Exposure(_) => "column of the exposures".to_owned(),
        };
        checks.push(Check {
            id: format!("instrumentation:{}", metric.name),
            name: format!("Instrumentation of {}", metric.name),
            status: Status::Fail,
            finding: format!(
                "an arm has no {source} in the metric's window, although its units are complete"
            ),
            p: None,
            threshold: None,
            hints: vec!["is the event sent by this arm's code, and under this name?".to_owned()],
        });
    }
    if metric.missing != Missing::Exclude || missing.iter().all(|n| *n == 0) {
        return;
    }
    let p = homogeneity(&missing, &known);
    let failed = p.is_some_and(|p| p < level);
    checks.push(Check {
        id: format!("missing:{}", metric.name),
        name: format!("Missing values of {}", metric.name),
        status: status(failed, false),
        finding: format!(
            "{} complete units have no value and are left out{}",
            words::count(missing.iter().sum()),
            between(plan, &missing, p)
        ),
        p,
        threshold: Some(level),
        hints: if failed {
            vec!["the arm decides who has a value, so those who have one cannot be compared: count the \
                  others as 0 (missing = \"zero\"), or find out why values are lost".to_owned()]
        } else {
            Vec::new()
        },
    });
}

fn known_is_silent(metric: &Metric, tally: &crate::methods::moments::Tally) -> bool {
    // A proportion of 0 in one arm is possible; a mean of exactly 0 over all units is a missing event.
    match metric.kind {
        MetricType::Ratio => tally.sum(1) == 0.0,
        MetricType::Proportion => tally.n() >= 1000,
        MetricType::Mean | MetricType::Quantile(_) => matches!(metric.source, Source::Event(_)),
    }
}

/// Rows that writers dropped: from one arm more than from another?
fn losses(evidence: &Evidence<'_>, stretches: &[Stretch], level: f64, checks: &mut Vec<Check>) {
    let plan = evidence.plan;
    let dropped: Vec<u64> = plan
        .arms
        .iter()
        .map(|arm| evidence.dropped.get(&arm.name).copied().unwrap_or(0))
        .collect();
    // The writers count by experiment and arm, not by the sides of a holdout.
    let sides = plan.kind == Kind::Holdout;
    let total: u64 = if sides {
        evidence.dropped.values().sum()
    } else {
        dropped.iter().sum()
    };
    if matches!(evidence.input, Input::Units { .. }) {
        return;
    }
    let p = (total >= 10 && !sides)
        .then(|| srm::fixed(&dropped, &expected(stretches, plan.arms.len())).ok())
        .flatten()
        .map(|test| test.p);
    let failed = p.is_some_and(|p| p < level);
    checks.push(Check {
        id: "loss".to_owned(),
        name: "Lost exposures".to_owned(),
        status: status(failed, total > 0),
        finding: if total == 0 {
            "the writers of the log report no lost exposure".to_owned()
        } else {
            format!(
                "the writers of the log dropped {} exposures{}",
                words::count(total),
                if sides {
                    " of all units; how many were of either side of the holdout they do not say"
                        .to_owned()
                } else {
                    between(plan, &dropped, p)
                }
            )
        },
        p,
        threshold: Some(level),
        hints: if failed {
            vec!["loss that depends on the arm is a sample-ratio mismatch in the making".to_owned()]
        } else {
            Vec::new()
        },
    });
}

/// Did units get what they were assigned?
fn served(evidence: &Evidence<'_>, checks: &mut Vec<Check>) {
    let operation = &evidence.statistics.operation;
    if operation.iter().all(|arm| arm.requests == 0) {
        return;
    }
    let shares: Vec<f64> = operation
        .iter()
        .map(|arm| count(arm.served_other) / count(arm.requests.max(1)))
        .collect();
    let by_arm: Vec<String> = evidence
        .plan
        .arms
        .iter()
        .zip(&shares)
        .map(|(arm, share)| format!("{} {}", arm.name, words::percent(*share)))
        .collect();
    let much = shares.iter().any(|share| *share > SERVED_WARN);
    checks.push(Check {
        id: "served".to_owned(),
        name: "Served as assigned".to_owned(),
        status: status(false, much),
        finding: if shares.iter().all(|share| *share == 0.0) {
            "every answer is of the arm that was assigned".to_owned()
        } else {
            format!(
                "another arm, or none, was served in this share of the answers: {}",
                by_arm.join(", ")
            )
        },
        p: None,
        threshold: Some(SERVED_WARN),
        hints: if much {
            vec![
                "arms are compared as assigned, so this dilutes the effect: find out what falls back, and see the effect on \
                 those whom it reached"
                    .to_owned(),
            ]
        } else {
            Vec::new()
        },
    });
}

/// The beginnings of the digests, as many as help.
fn digest_names(evidence: &Evidence<'_>) -> Vec<String> {
    let mut names: Vec<&String> = evidence
        .words
        .digests
        .iter()
        .filter(|d| !d.is_empty())
        .collect();
    names.sort();
    let more = names.len().saturating_sub(4);
    let shown = names.iter().take(4);
    let mut shown: Vec<String> = shown
        .map(|name| name.get(..12).unwrap_or(name).to_owned())
        .collect();
    if more > 0 {
        shown.push(format!("{more} more"));
    }
    shown
}

/// Did weights or configuration change, and does that turn an effect around?
fn configuration(evidence: &Evidence<'_>, stretches: &[Stretch], checks: &mut Vec<Check>) {
    let plan = evidence.plan;
    let digests = evidence
        .words
        .digests
        .iter()
        .filter(|digest| !digest.is_empty())
        .count();
    // What a holdout is to measure is that the configuration changes.
    if digests > 1 && plan.kind != Kind::Holdout {
        checks.push(Check {
            id: "config".to_owned(),
            name: "Configuration".to_owned(),
            status: Status::Warn,
            finding: format!(
                "{digests} different configurations were in force ({})",
                words::list(&digest_names(evidence))
            ),
            p: None,
            threshold: None,
            hints: vec![
                "an edit that changes what an arm serves starts a new experiment: raise its epoch"
                    .to_owned(),
            ],
        });
    }
    if stretches.len() < 2 {
        return;
    }
    let shares: Vec<String> = stretches
        .iter()
        .map(|s| {
            s.shares
                .iter()
                .map(|share| words::percent(*share))
                .collect::<Vec<_>>()
                .join(" / ")
        })
        .collect();
    checks.push(Check {
        id: "ramp".to_owned(),
        name: "Weights changed".to_owned(),
        status: Status::Warn,
        finding: format!(
            "the arms' shares were {}: each stretch is compared in itself, and the stretches are then weighted by their units",
            shares.join(", then ")
        ),
        p: None,
        threshold: None,
        hints: vec!["pooled means of stretches with different weights compare different times (Simpson's paradox); \
             ramp the allocation, not the weights".to_owned()],
    });
    for (at, metric) in plan.metrics.iter().enumerate() {
        for arm in 1..plan.arms.len() {
            let Ok(estimated) = estimate(evidence, stretches, at, arm, Of::All) else {
                continue;
            };
            let Some(raw) = estimated.raw else { continue };
            let gap = (raw.delta - estimated.effect.delta).abs();
            if gap > 3.0 * estimated.effect.se
                || (raw.delta * estimated.effect.delta < 0.0 && gap > estimated.effect.se)
            {
                checks.push(Check {
                    id: format!("simpson:{}", metric.name),
                    name: format!("Simpson's paradox in {}", metric.name),
                    status: Status::Warn,
                    finding: format!(
                        "pooled over the stretches, `{}` would seem to change it by {}; within the stretches the change is {}. \
                         The second is what randomisation supports and what is judged",
                        plan.arms[arm].name,
                        words::signed(raw.delta, raw.se),
                        words::signed(estimated.effect.delta, estimated.effect.se),
                    ),
                    p: None,
                    threshold: None,
                    hints: Vec::new(),
                });
            }
        }
    }
}
