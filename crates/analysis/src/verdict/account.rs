//! What was running, what was read, and what was left out under which policy.

use std::collections::BTreeSet;

use super::document::{
    Data, DayUnits, LookResult, Observed, OperationResult, Period, Policy, ServedArm,
};
use super::estimate::Stretch;
use super::monitor::Look;
use super::{Evidence, Input, words};
use crate::plan::{Kind, span};
use crate::units::statistics::{Attribute, Operation};

pub(super) fn observed(evidence: &Evidence<'_>, stretches: &[Stretch]) -> Observed {
    let statistics = evidence.statistics;
    let named = |names: &[String]| {
        let mut names: Vec<String> = names
            .iter()
            .filter(|name| !name.is_empty())
            .cloned()
            .collect();
        names.sort();
        names
    };
    let day = |value: u32| i64::from(value.cast_signed());
    let mut days = statistics.values_of(Attribute::Day);
    days.sort_by_key(|value| day(*value));
    Observed {
        first_exposure: statistics.first_us.map(|(first, _)| words::instant(first)),
        last_exposure: statistics.first_us.map(|(_, last)| words::instant(last)),
        cutoff: words::instant(evidence.cutoff_us),
        cutoff_us: evidence.cutoff_us,
        config_digests: named(&evidence.words.digests),
        index_versions: named(&evidence.words.index_versions),
        model_versions: named(&evidence.words.model_versions),
        arms: served(evidence),
        units: statistics.units_of(Attribute::All, 0),
        units_by_day: days
            .into_iter()
            .map(|value| DayUnits {
                day: words::date(day(value)),
                units: statistics.units_of(Attribute::Day, value),
            })
            .collect(),
        periods: if stretches.len() > 1 {
            stretches
                .iter()
                .map(|s| Period {
                    shares: s.shares.clone(),
                    units: s.units.clone(),
                })
                .collect()
        } else {
            Vec::new()
        },
    }
}

/// What the exposures say of each arm; a table of units has the index version of first exposures only.
fn served(evidence: &Evidence<'_>) -> Vec<ServedArm> {
    let words = evidence.words;
    let name = |names: &[String], at: u32| -> Option<String> {
        let name = names.get(usize::try_from(at).ok()?)?;
        (!name.is_empty()).then(|| name.clone())
    };
    let mut served = Vec::with_capacity(evidence.plan.arms.len());
    for (number, arm) in (0_u32..).zip(&evidence.plan.arms) {
        let classes = || evidence.classes.iter().filter(|class| class.arm == number);
        let rankings: BTreeSet<String> = classes()
            .filter_map(|class| name(&words.rankings, class.ranking))
            .collect();
        let mut indexes: BTreeSet<String> = classes()
            .filter_map(|class| name(&words.index_versions, class.index_version))
            .collect();
        if evidence.classes.is_empty() {
            let firsts = evidence.statistics.firsts.keys();
            indexes = firsts
                .filter(|(_, of)| u32::from(*of) == number)
                .filter_map(|(version, _)| name(&words.index_versions, *version))
                .collect();
        }
        served.push(ServedArm {
            arm: arm.name.clone(),
            ranking_variants: rankings.into_iter().collect(),
            index_versions: indexes.into_iter().collect(),
        });
    }
    served
}

/// Share of an arm's requests that failed. A table of units does not know it; the writers count neither by the
/// sides of a holdout nor by the teams of a draft.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
fn errors(evidence: &Evidence<'_>, arm: &str, answered: u64) -> Option<f64> {
    let log = matches!(evidence.input, Input::Log { .. });
    let failed = evidence.failed.get(arm).copied().unwrap_or(0);
    let counted = log && !matches!(evidence.plan.kind, Kind::Holdout | Kind::Interleave);
    counted.then(|| failed as f64 / (failed + answered).max(1) as f64)
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
pub(super) fn operation(evidence: &Evidence<'_>, hide: bool) -> Vec<OperationResult> {
    let cost = |operation: &Operation| {
        let answers = operation.latency.n();
        (!hide && answers > 0).then(|| operation.latency_us as f64 / answers as f64 / 1000.0)
    };
    let control = evidence.statistics.operation.first().and_then(cost);
    evidence
        .plan
        .arms
        .iter()
        .zip(&evidence.statistics.operation)
        .filter(|(_, operation)| operation.requests > 0)
        .map(|(arm, operation)| {
            let share = |count: u64| count as f64 / operation.requests as f64;
            let latencies = operation.latency.sorted();
            let ms = |q| latencies.quantile(q) / 1000.0;
            OperationResult {
                arm: arm.name.clone(),
                requests: (!hide).then_some(operation.requests),
                latency_ms: (!hide && operation.latency.n() > 0)
                    .then(|| [ms(0.5), ms(0.95), ms(0.99)]),
                cost_ms: cost(operation),
                cost_ratio: cost(operation)
                    .zip(control.filter(|control| *control > 0.0))
                    .map(|(cost, control)| cost / control),
                errors: errors(evidence, &arm.name, operation.requests).filter(|_| !hide),
                empty: (!hide).then(|| share(operation.empty)),
                degraded: (!hide).then(|| share(operation.degraded)),
                served_other: share(operation.served_other),
            }
        })
        .collect()
}

pub(super) fn look_result(look: &Look) -> LookResult {
    LookResult {
        cutoff: words::instant(look.cutoff_us),
        units: look.units,
        metrics: look.metrics.clone(),
        srm_p: look.srm_p,
    }
}

pub(super) fn data(evidence: &Evidence<'_>) -> Data {
    let (plan, statistics) = (evidence.plan, evidence.statistics);
    let left = statistics.leftovers;
    let total = |attribute| statistics.units_of(attribute, 0).iter().sum::<u64>();
    let mut policies = vec![
        Policy {
            about: "units in several arms",
            rule: "left out of every arm; counted in the sample ratio by their first exposure"
                .to_owned(),
            applied: total(Attribute::MultiArm),
        },
        Policy {
            about: "bots",
            rule: format!(
                "left out of every arm alike: more than {} exposures on a UTC day{}",
                words::count(u64::from(plan.policy.max_exposures_per_day)),
                if plan.policy.drop_flagged {
                    ", or flagged by the server"
                } else {
                    ""
                }
            ),
            applied: total(Attribute::Bot),
        },
    ];
    if let Input::Log { rows, .. } = &evidence.input {
        let mut add = |about: &'static str, rule: &str, applied: u64| {
            policies.push(Policy {
                about,
                rule: rule.to_owned(),
                applied,
            });
        };
        add(
            "repeated exposures",
            "an exposure id counts once, at its first time",
            left.duplicate_exposures,
        );
        add(
            "repeated outcomes",
            "an outcome id counts once; outcomes without ids are taken as distinct",
            left.duplicate_outcomes,
        );
        add(
            "outcomes before exposure",
            "left out: they cannot be an effect",
            left.outcomes_before_exposure,
        );
        add(
            "outcomes of units that were never exposed",
            "left out: nobody knows their arm",
            left.outcomes_of_strangers,
        );
        add(
            "late covariates",
            "measured at or after first exposure: not used",
            left.late_covariates,
        );
        add(
            "forced exposures",
            "an allow-list chose the arm: never analysed",
            rows.forced,
        );
        if plan.kind == Kind::Holdout {
            add(
                "held by another holdout",
                "left out on both sides alike: such a unit does not live like its side of this one",
                rows.held_elsewhere,
            );
        } else {
            add(
                "other reasons",
                "not a random split (holdout, targeting, paused, shadow): not analysed",
                rows.other_reasons.values().sum(),
            );
        }
        add(
            "rows after the cut-off",
            "not read: the analysis is as of the cut-off",
            rows.after_cutoff,
        );
        if plan.kind == Kind::Interleave {
            add(
                "events that name no item",
                "an interleaved list credits the team of the item that an event names, with its exposure: others are left out",
                rows.uncredited,
            );
        }
        add(
            "values that are no number",
            "dropped, as asked; without --bad-values drop they are an error",
            rows.bad_values,
        );
    }
    policies.push(Policy {
        about: "late data",
        rule: format!(
            "a unit is complete {} after the end of a metric's window; outcomes that arrive later for a closed window are counted when the analysis is run again",
            span(plan.policy.settle)
        ),
        applied: statistics.immature.values().sum(),
    });
    policies.push(Policy {
        about: "missing values",
        rule: "a complete unit without an event counts as 0 only if the metric says so (missing = \"zero\", and every proportion); else it is left out, and the arms are compared in that".to_owned(),
        applied: statistics.missing.values().sum(),
    });
    for metric in &plan.metrics {
        if let Some(cap) = metric.cap {
            policies.push(Policy {
                about: "outliers",
                rule: format!(
                    "{}: a unit's value is at most {cap}, in every arm",
                    metric.name
                ),
                applied: 0,
            });
        }
    }
    policies.push(Policy {
        about: "time zones",
        rule: "instants count; a column without a zone is UTC, and days are UTC days".to_owned(),
        applied: 0,
    });
    Data {
        input: evidence.input.clone(),
        leftovers: left,
        policies,
    }
}
