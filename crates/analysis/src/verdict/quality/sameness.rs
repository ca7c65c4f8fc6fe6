//! Metrics of role quality: no arm can change them, so a difference says that the data are wrong.

use super::super::document::{Check, Status};
use super::super::estimate::{Stretch, estimate};
use super::super::{Evidence, Input, words};
use super::status;
use crate::methods::MethodError;
use crate::methods::always_valid::ConfidenceSequence;
use crate::plan::{Metric, Role};
use crate::units::statistics::Of;
use crate::units::table::in_table;

/// Units from which on a look after the first is judged: a confidence sequence is asymptotic.
const MIN_UNITS: u64 = 200;

/// How many tests it takes: each of these metrics in each treatment.
pub(super) fn tests(evidence: &Evidence<'_>) -> usize {
    evidence.plan.with_role(Role::Quality).count() * evidence.plan.treatments()
}

/// Holds each treatment against the control, in both directions, at `level` a test. The first look
/// asks an ordinary test; further ones the confidence sequence that may be looked at at any time.
pub(super) fn sameness(
    evidence: &Evidence<'_>,
    stretches: &[Stretch],
    level: f64,
    checks: &mut Vec<Check>,
) {
    for (at, metric) in evidence.plan.metrics.iter().enumerate() {
        if metric.role == Role::Quality {
            checks.push(same(evidence, stretches, at, metric, level));
        }
    }
}

fn same(
    evidence: &Evidence<'_>,
    stretches: &[Stretch],
    at: usize,
    metric: &Metric,
    level: f64,
) -> Check {
    let plan = evidence.plan;
    let mut check = Check {
        id: format!("same:{}", metric.name),
        name: format!("Sameness of {}", metric.name),
        status: Status::Skipped,
        finding: String::new(),
        p: None,
        threshold: Some(level),
        hints: Vec::new(),
    };
    if matches!(evidence.input, Input::Units { .. }) && !in_table(metric) {
        "a table of units does not hold it".clone_into(&mut check.finding);
        return check;
    }
    let mut findings = Vec::with_capacity(plan.treatments());
    for arm in 1..plan.arms.len() {
        let name = &plan.arms[arm].name;
        let estimated = match estimate(evidence, stretches, at, arm, Of::All) {
            Ok(estimated) => estimated,
            Err(error) => {
                let apart = constant(evidence, at, arm);
                let apart = apart.filter(|_| matches!(error, MethodError::NoVariance { .. }));
                if let Some([control, treatment]) = apart {
                    check.p = Some(0.0);
                    findings.push(format!(
                        "it never varies, and is {control} in control and {treatment} in `{name}`"
                    ));
                } else {
                    findings.push(format!("`{name}` is not compared: {error}"));
                }
                continue;
            }
        };
        let (effect, comparison) = (estimated.effect, &estimated.comparison);
        let units = comparison.control.n + comparison.treatment.n;
        let p = if evidence.looks.looks.is_empty() {
            effect.p_two_sided()
        } else if units < MIN_UNITS {
            findings.push(format!(
                "`{name}`: {} units are too few to look again",
                words::count(units)
            ));
            continue;
        } else {
            let tuned = plan.design.max_units.unwrap_or(units);
            match ConfidenceSequence::two_sided(level, tuned) {
                Ok(sequence) => sequence.evidence(&effect, units).p,
                Err(error) => {
                    findings.push(format!("`{name}` is not compared: {error}"));
                    continue;
                }
            }
        };
        let relative = effect.delta / comparison.control.value.abs();
        let share = if relative.is_finite() && comparison.control.value != 0.0 {
            format!(" ({})", words::signed_percent(relative))
        } else {
            String::new()
        };
        findings.push(format!(
            "control and `{name}` {} by {}{share} (p = {})",
            if p < level {
                "differ"
            } else {
                "are the same; apart"
            },
            words::signed(effect.delta, effect.se),
            words::p(p)
        ));
        if check.p.is_none_or(|least| p < least) {
            check.p = Some(p);
        }
    }
    check.finding = findings.join("; ");
    if let Some(p) = check.p {
        let failed = p < level;
        check.status = status(failed, false);
        if failed {
            check.hints.push(
                "the plan says that no arm can change this metric: look for a difference in logging, in who is \
                 counted, or in how units are dealt to the arms; or the metric should have another role"
                    .to_owned(),
            );
        }
    }
    check
}

/// The two values of a metric that is the same for all units of the control, and another for all of the
/// treatment: no test is needed.
fn constant(evidence: &Evidence<'_>, at: usize, arm: usize) -> Option<[f64; 2]> {
    let strata = evidence.statistics.strata();
    let value = |arm| {
        let moments = evidence.statistics.moments(at, arm, &strata, Of::All)?;
        Some(moments.summary(0).mean)
    };
    let [control, treatment] = [value(0)?, value(arm)?];
    #[expect(clippy::float_cmp, reason = "sums of equal values are exact")]
    let apart = control != treatment;
    apart.then_some([control, treatment])
}
