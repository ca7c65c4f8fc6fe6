//! The decision rule over all metrics, and what it has to say.

use std::collections::BTreeMap;

use super::document::{
    Analysis, ArmVerdict, Check, Data, DayUnits, LookResult, LookedMetric, MetricComparison,
    MetricResult, Observed, OperationResult, Period, Policy, RelativeResult, SCHEMA, Status,
    Verdict,
};
use super::estimate::{self, Estimated, Stretch, estimate, value_at};
use super::monitor::{Look, LookMetric, Monitor, Verge};
use super::{Evidence, Input, quality, series, words};
use crate::methods::MethodError;
use crate::methods::decision::{
    self, Direction as Way, Inputs, Judgement, Levels, Margin as Slack, Recommendation, RiskPlan,
    Role as Part,
};
use crate::methods::effect::ConfidenceSet;
use crate::methods::special::{normal_sf, normal_upper_quantile};
use crate::plan::{Direction, Kind, Margin, Method, Metric, MetricType, Plan, Role, Window, span};
use crate::units::statistics::Attribute;

/// An effect this many times the one that matters is more likely a defect (Twyman's law).
const TWYMAN_MDE: f64 = 5.0;
/// So is one this many standard errors from zero.
const TWYMAN_Z: f64 = 8.0;

pub(super) fn reach(evidence: &Evidence<'_>) -> (Analysis, Look) {
    let plan = evidence.plan;
    let stretches = estimate::stretches(plan, evidence.statistics, evidence.words);
    let mut findings = quality::ask(evidence, &stretches);
    let monitor = Monitor::new(&plan.design, levels(plan), evidence.looks, evidence.last);
    let mut look = Look {
        cutoff_us: evidence.cutoff_us,
        srm_p: findings.srm_p,
        ..Look::default()
    };
    let invalid = findings.failed();
    let mut judged: Vec<Vec<(usize, Judgement)>> = vec![Vec::new(); plan.treatments()];
    let mut metrics = Vec::with_capacity(plan.metrics.len());
    let mut hidden: Option<String> = invalid.then(|| {
        "a quality check failed: effects computed from these data would mislead".to_owned()
    });
    let mut waiting: Vec<String> = Vec::new();
    let mut informations: Vec<f64> = Vec::new();
    let mut powers: Vec<f64> = Vec::new();
    for (at, metric) in plan.metrics.iter().enumerate() {
        let mut one = One {
            evidence,
            stretches: &stretches,
            monitor: &monitor,
            at,
            metric,
            notes: Vec::new(),
        };
        let mut comparisons = Vec::new();
        for arm in 1..plan.arms.len() {
            let outcome = one.compare(arm);
            let key = format!("{} / {}", metric.name, plan.arms[arm].name);
            match outcome {
                Ok(Compared {
                    comparison,
                    judgement,
                    information,
                    state,
                }) => {
                    let units = comparison_units(evidence, &stretches, at);
                    let decides = metric.role != Role::Scan && judgement.is_some();
                    if let Some(t) = information {
                        let (z, bound) = match state {
                            State::Judged => (
                                judgement.as_ref().map(|j| j.z_margin.unwrap_or(j.z)),
                                comparison.bound,
                            ),
                            _ => (None, None),
                        };
                        let (z, bound) = if invalid { (None, None) } else { (z, bound) };
                        look.metrics.insert(key, LookMetric { t, z, bound });
                        if decides || metric.role != Role::Scan {
                            informations.push(t);
                        }
                    } else {
                        look.metrics.insert(key, LookMetric::default());
                    }
                    if decides {
                        look.units = if look.units == 0 {
                            units
                        } else {
                            look.units.min(units)
                        };
                    }
                    match state {
                        State::Hidden(reason) => {
                            hidden.get_or_insert_with(|| reason.to_owned());
                        }
                        State::TooEarly(reason) => {
                            waiting.push(format!("{}: {reason}", metric.name));
                        }
                        State::Judged => {
                            if metric.role == Role::Success {
                                powers.extend(comparison.achieved_power);
                            }
                            if let Some(judgement) = judgement {
                                judged[arm - 1].push((at, judgement));
                            }
                            comparisons.push(comparison);
                        }
                        State::Descriptive => comparisons.push(comparison),
                    }
                }
                Err(error) => {
                    one.notes.push(format!(
                        "`{}` is not compared: {error}",
                        plan.arms[arm].name
                    ));
                    if metric.role != Role::Scan {
                        waiting.push(format!("{}: {error}", metric.name));
                    }
                }
            }
        }
        let notes = one.notes;
        metrics.push(MetricResult {
            name: metric.name.clone(),
            role: role_name(metric.role),
            kind: kind_name(metric),
            direction: match metric.direction {
                Direction::Up => "up",
                Direction::Down => "down",
            },
            window: metric.window.describe(),
            arms: Vec::new(),
            comparisons,
            descriptive: metric.window == Window::Open,
            notes,
        });
    }
    if hidden.is_some() {
        for metric in &mut metrics {
            metric.comparisons.clear();
        }
        // It would tell the effect.
        findings
            .checks
            .retain(|check| !check.id.starts_with("simpson:"));
    }
    for (at, metric) in metrics.iter_mut().enumerate() {
        metric.arms = estimate::arms(evidence, &stretches, at, hidden.is_some());
    }
    let information = informations.iter().copied().reduce(f64::min);
    let verdict = verdict(&Facts {
        evidence,
        checks: &findings.checks,
        judged: &judged,
        metrics: &metrics,
        hidden,
        waiting,
        information,
        power: powers.iter().copied().reduce(f64::max),
        levels: *monitor.levels(),
        stretches: &stretches,
        looks: monitor.earlier() + 1,
    });
    let mut looks: Vec<LookResult> = evidence.looks.looks.iter().map(look_result).collect();
    looks.push(look_result(&look));
    let analysis = Analysis {
        schema: SCHEMA,
        version: env!("CARGO_PKG_VERSION"),
        plan: plan.clone(),
        observed: observed(evidence, &stretches),
        verdict,
        quality: findings.checks,
        metrics,
        operation: operation(evidence),
        looks,
        data: data(evidence),
    };
    (analysis, look)
}

/// One-sided levels of all tests (E7: alpha over success metrics and treatments, guardrails not split).
pub(crate) fn levels(plan: &Plan) -> Levels {
    let design = &plan.design;
    let number = |n: usize| n as u64;
    let risks = RiskPlan {
        alpha: design.alpha,
        beta: 1.0 - design.power,
        alpha_deterioration: design.alpha_deterioration,
        alpha_quality: design.alpha_quality,
        treatments: number(plan.treatments()),
        successes: number(plan.with_role(Role::Success).count()),
        guardrails: number(
            plan.with_role(Role::Guardrail)
                .filter(|m| m.margin.is_some())
                .count(),
        ),
        scanned: number(plan.metrics.len()),
        checks: 1,
    };
    #[expect(clippy::cast_precision_loss, reason = "small counts")]
    risks.levels().unwrap_or_else(|_| {
        // Nothing to decide (only scans), or a power so high that no share of beta is left for the
        // other tests: the levels of the tests stand all the same.
        let arms = plan.treatments().max(1) as f64;
        Levels {
            success: design.alpha / (risks.successes.max(1) as f64 * arms),
            guardrail: design.alpha / arms,
            deterioration: design.alpha_deterioration / (risks.scanned.max(1) as f64 * arms),
            quality: design.alpha_quality,
            power: design.power,
        }
    })
}

/// A metric under way.
struct One<'a> {
    evidence: &'a Evidence<'a>,
    stretches: &'a [Stretch],
    monitor: &'a Monitor<'a>,
    at: usize,
    metric: &'a Metric,
    notes: Vec<String>,
}

struct Compared {
    comparison: MetricComparison,
    judgement: Option<Judgement>,
    information: Option<f64>,
    state: State,
}

enum State {
    Judged,
    Descriptive,
    Hidden(&'static str),
    TooEarly(&'static str),
}

impl One<'_> {
    fn compare(&mut self, arm: usize) -> Result<Compared, MethodError> {
        let (plan, metric) = (self.evidence.plan, self.metric);
        let estimated = estimate(
            self.evidence,
            self.stretches,
            self.at,
            arm,
            crate::units::statistics::Of::All,
        )?;
        if let Some(p) = estimated.moved {
            self.notes.push(format!(
                "covariate {} differs between the arms (p = {}) and was not used",
                metric.covariate.as_deref().unwrap_or_default(),
                words::p(p)
            ));
        }
        if estimated.left_out > 0 {
            self.notes.push(format!(
                "{} stretches of weights lack an arm and were left out",
                estimated.left_out
            ));
        }
        let control = estimated.comparison.control.value;
        let margin = metric.margin.map(|margin| margin.absolute(control));
        let mde = metric.mde.map(|mde| mde.absolute(control));
        let units = comparison_units(self.evidence, self.stretches, self.at);
        let smaller = estimated
            .comparison
            .control
            .n
            .min(estimated.comparison.treatment.n);
        let matters = match metric.role {
            Role::Success => mde,
            Role::Guardrail => margin,
            Role::Scan => None,
        };
        let level = match metric.role {
            Role::Success => self.monitor.levels().success,
            Role::Guardrail => self.monitor.levels().guardrail,
            Role::Scan => self.monitor.levels().deterioration,
        };
        let information = match plan.design.method {
            Method::FixedPower => {
                matters.map(|m| self.monitor.precision(&estimated.effect, m, level))
            }
            _ => self.monitor.information(units),
        };
        let key = format!("{} / {}", metric.name, plan.arms[arm].name);
        if metric.window == Window::Open {
            let comparison = self.result(arm, &estimated, None, None, information, margin, mde);
            return Ok(Compared {
                comparison,
                judgement: None,
                information: None,
                state: State::Descriptive,
            });
        }
        let bounds = match self
            .monitor
            .bounds(&key, units, smaller, &estimated.effect, matters)?
        {
            Verge::Judge(bounds) => bounds,
            Verge::Hidden(reason) => {
                let comparison = self.result(arm, &estimated, None, None, information, margin, mde);
                return Ok(Compared {
                    comparison,
                    judgement: None,
                    information,
                    state: State::Hidden(reason),
                });
            }
            Verge::TooEarly(reason) => {
                let comparison = self.result(arm, &estimated, None, None, information, margin, mde);
                return Ok(Compared {
                    comparison,
                    judgement: None,
                    information,
                    state: State::TooEarly(reason),
                });
            }
        };
        let role = match (metric.role, metric.margin) {
            (Role::Success, _) => Part::Success,
            (Role::Guardrail, margin) => Part::Guardrail(margin.map(|margin| match margin {
                Margin::Absolute(m) => Slack::Absolute(m),
                Margin::Relative(m) => Slack::Relative(m),
            })),
            (Role::Scan, _) => Part::Scan,
        };
        let way = match metric.direction {
            Direction::Up => Way::Up,
            Direction::Down => Way::Down,
        };
        let judgement = decision::judge(role, way, &estimated.effect, control, &bounds)?;
        let bound = match (metric.role, margin) {
            (Role::Success, _) => bounds.success,
            (Role::Guardrail, Some(_)) => bounds.guardrail,
            _ => bounds.deterioration,
        };
        let mut comparison = self.result(
            arm,
            &estimated,
            Some(&judgement),
            Some(bound),
            information,
            margin,
            mde,
        );
        if judgement.superior {
            // Context: where it cannot be solved for, the verdict stands without it.
            comparison.median_unbiased = self
                .monitor
                .median_unbiased(&key, units, &estimated.effect, metric.direction.sign())
                .unwrap_or(None);
        }
        Ok(Compared {
            comparison,
            judgement: Some(judgement),
            information,
            state: State::Judged,
        })
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "what one row of the result is made of"
    )]
    fn result(
        &mut self,
        arm: usize,
        estimated: &Estimated,
        judgement: Option<&Judgement>,
        bound: Option<f64>,
        information: Option<f64>,
        margin: Option<f64>,
        mde: Option<f64>,
    ) -> MetricComparison {
        let (plan, metric, effect) = (self.evidence.plan, self.metric, &estimated.effect);
        // Without a test of its own: an ordinary interval.
        let multiplier = bound.unwrap_or(normal_upper_quantile(0.025));
        let confidence = 1.0 - 2.0 * normal_sf(multiplier);
        let relative = estimated
            .comparison
            .relative(confidence.clamp(1e-9, 1.0 - 1e-12))
            .ok();
        let (outcome, words) = outcome(metric, judgement);
        let good = metric.direction.sign() * effect.z();
        let twyman = mde
            .is_some_and(|mde| effect.delta.abs() > TWYMAN_MDE * mde && effect.z().abs() > 2.0)
            || effect.z().abs() > TWYMAN_Z;
        if twyman {
            self.notes.push(format!(
                "the effect of `{}` is larger than is believable: by Twyman's law look for a defect in \
                 logging or assignment before celebrating",
                plan.arms[arm].name
            ));
        }
        let power = 1.0 - self.monitor.levels().power;
        let segments = series::segments(self.evidence, self.stretches, self.at, arm);
        MetricComparison {
            arm: plan.arms[arm].name.clone(),
            outcome,
            words,
            delta: effect.delta,
            se: effect.se,
            interval: effect.interval_at(multiplier),
            confidence,
            relative: relative.map(|relative| {
                let (interval, method) = if relative.denominator_is_weak {
                    match relative.fieller {
                        ConfidenceSet::Interval(interval) => (Some(interval), "Fieller"),
                        _ => (None, "Fieller"),
                    }
                } else {
                    (Some(relative.delta_method), "delta method")
                };
                RelativeResult {
                    lift: relative.lift.delta,
                    interval,
                    method,
                }
            }),
            z: judgement.map_or(good, |j| j.z),
            bound,
            p: judgement.map_or_else(|| normal_sf(good), |j| j.p),
            test: estimated.test.clone(),
            margin,
            mde,
            information,
            achieved_power: mde
                .zip(bound)
                .filter(|_| metric.role == Role::Success)
                .map(|(mde, bound)| normal_sf(bound - mde / effect.se)),
            detectable: bound.map(|bound| (bound + normal_upper_quantile(power)) * effect.se),
            covariate: estimated.covariate.clone(),
            unadjusted: estimated.raw.map(|raw| raw.delta),
            twyman,
            median_unbiased: None,
            segments,
            by_day: series::by_day(self.evidence, self.stretches, self.at, arm),
            by_age: series::by_age(self.evidence, self.at, arm),
        }
    }
}

/// Units of all arms that are complete for a metric.
fn comparison_units(evidence: &Evidence<'_>, stretches: &[Stretch], at: usize) -> u64 {
    let strata: Vec<u16> = stretches
        .iter()
        .flat_map(|s| s.strata.iter().copied())
        .collect();
    (0..evidence.plan.arms.len())
        .filter_map(|arm| {
            evidence
                .statistics
                .moments(at, arm, &strata, crate::units::statistics::Of::All)
        })
        .map(|moments| moments.n)
        .sum()
}

fn outcome(metric: &Metric, judgement: Option<&Judgement>) -> (&'static str, &'static str) {
    let Some(judgement) = judgement else {
        return ("descriptive", "described, not judged");
    };
    if judgement.deteriorated {
        return ("harm", "evidence of harm");
    }
    match (metric.role, judgement.noninferior) {
        (Role::Success, _) if judgement.superior => ("improvement", "evidence of improvement"),
        (Role::Guardrail, Some(true)) => ("within_margin", "within margin"),
        (Role::Guardrail, Some(false)) => ("not_within_margin", "not shown to be within margin"),
        (Role::Success, _) => ("no_evidence", "no evidence"),
        _ => ("no_evidence", "no evidence of harm"),
    }
}

pub(crate) fn role_name(role: Role) -> &'static str {
    match role {
        Role::Success => "success",
        Role::Guardrail => "guardrail",
        Role::Scan => "scan",
    }
}

fn kind_name(metric: &Metric) -> String {
    match metric.kind {
        MetricType::Mean => "mean".to_owned(),
        MetricType::Proportion => "proportion".to_owned(),
        MetricType::Ratio => "ratio".to_owned(),
        MetricType::Quantile(q) => format!("quantile {q}"),
    }
}

struct Facts<'a> {
    evidence: &'a Evidence<'a>,
    checks: &'a [Check],
    judged: &'a [Vec<(usize, Judgement)>],
    metrics: &'a [MetricResult],
    hidden: Option<String>,
    waiting: Vec<String>,
    information: Option<f64>,
    power: Option<f64>,
    levels: Levels,
    stretches: &'a [Stretch],
    looks: usize,
}

fn verdict(facts: &Facts<'_>) -> Verdict {
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
        assumptions: assumptions(facts),
        next: Vec::new(),
        arms,
        effects_hidden: facts.hidden.clone(),
        information: facts.information,
    };
    say(facts, ended, &mut verdict);
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
        metric.role == Role::Scan
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
        Recommendation::Ship if plan.kind == Kind::Rollout => "ADVANCE",
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

/// Headline, reasons and what to do next.
fn say(facts: &Facts<'_>, ended: bool, verdict: &mut Verdict) {
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
        "STOP_HARM" => {
            let harmed = chosen.map_or_else(Vec::new, |arm| arm.harmed.clone());
            verdict.headline = format!("`{arm}` makes {} worse: stop it.", words::list(&harmed));
            verdict
                .next
                .push("roll the arm back now; write down what was learned".to_owned());
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
        "ADVANCE" => {
            let guarded = chosen.map_or_else(Vec::new, |arm| arm.within_margin.clone());
            verdict.headline = format!(
                "`{arm}` stayed within margin on {}: go on to the next step of the rollout.",
                words::list(&guarded)
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
    if let Some(reason) = &facts.hidden {
        verdict
            .reasons
            .push(format!("Effects are hidden: {reason}."));
    }
    for waiting in &facts.waiting {
        verdict.reasons.push(format!("Not judged yet, {waiting}."));
    }
}

fn assumptions(facts: &Facts<'_>) -> Vec<String> {
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
        "units do not influence each other, and a unit is counted in the arm of its first exposure"
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
        all.push(format!("{} has an open window: it keeps growing within units, so it is described and not judged", words::list(&open)));
    }
    if facts.stretches.len() > 1 {
        all.push(
            "weights changed: effects are averages over stretches of equal weights".to_owned(),
        );
    }
    all
}

fn observed(evidence: &Evidence<'_>, stretches: &[Stretch]) -> Observed {
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

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
fn operation(evidence: &Evidence<'_>) -> Vec<OperationResult> {
    evidence
        .plan
        .arms
        .iter()
        .zip(&evidence.statistics.operation)
        .filter(|(_, operation)| operation.requests > 0)
        .map(|(arm, operation)| {
            let share = |count: u64| count as f64 / operation.requests as f64;
            let cells = operation.latency.sorted();
            let ms = |q| value_at(&cells, &operation.latency, q) / 1000.0;
            OperationResult {
                arm: arm.name.clone(),
                requests: operation.requests,
                latency_ms: (operation.latency.n() > 0).then(|| [ms(0.5), ms(0.95), ms(0.99)]),
                empty: share(operation.empty),
                degraded: share(operation.degraded),
                served_other: share(operation.served_other),
            }
        })
        .collect()
}

fn look_result(look: &Look) -> LookResult {
    let metrics: BTreeMap<String, LookedMetric> = look
        .metrics
        .iter()
        .map(|(key, metric)| {
            (
                key.clone(),
                LookedMetric {
                    t: metric.t,
                    z: metric.z,
                    bound: metric.bound,
                },
            )
        })
        .collect();
    LookResult {
        cutoff: words::instant(look.cutoff_us),
        units: look.units,
        metrics,
        srm_p: look.srm_p,
    }
}

fn data(evidence: &Evidence<'_>) -> Data {
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
        add(
            "other reasons",
            "not a random split (holdout, targeting, paused, shadow): not analysed",
            rows.other_reasons.values().sum(),
        );
        add(
            "rows after the cut-off",
            "not read: the analysis is as of the cut-off",
            rows.after_cutoff,
        );
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
