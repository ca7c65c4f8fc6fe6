//! Each metric of each treatment: estimated, held against the bounds of this look, put into words.

use super::account;
use super::document::{
    Analysis, LookResult, MetricComparison, MetricResult, RelativeResult, SCHEMA,
};
use super::estimate::{self, Estimated, Stretch, estimate};
use super::monitor::{Look, LookMetric, Monitor, Verge, Watched};
use super::rule::{Facts, verdict};
use super::{Evidence, quality, say, series, staleness, vitals, words};
use crate::methods::MethodError;
use crate::methods::decision::{
    self, Direction as Way, Judgement, Levels, Margin as Slack, RiskPlan, Role as Part,
};
use crate::methods::effect::{Comparison, ConfidenceSet};
use crate::methods::fixed_power::cautious_se;
use crate::methods::moments::count;
use crate::methods::special::{normal_sf, normal_upper_quantile};
use crate::plan::{Direction, Kind, Margin, Method, Metric, MetricType, Plan, Role, Window};

/// An effect this many times the one that matters is more likely a defect (Twyman's law).
const TWYMAN_MDE: f64 = 5.0;
/// So is one this many standard errors from zero.
const TWYMAN_Z: f64 = 8.0;
/// A standard error this small against the values is what rounding leaves of none at all.
const ROUNDING: f64 = 1e-12;

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
        if metric.role == Role::Quality {
            // Asked among the checks, before any effect.
            metrics.push(result(metric));
            continue;
        }
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
                    looked,
                    state,
                }) => {
                    let units = comparison_units(evidence, &stretches, at);
                    let decides = metric.role.decides() && judgement.is_some();
                    if let Some(t) = information
                        && metric.role.decides()
                    {
                        informations.push(t);
                    }
                    look.metrics.insert(key, looked);
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
                    if metric.role.decides() {
                        waiting.push(format!("{}: {error}", metric.name));
                    }
                }
            }
        }
        metrics.push(MetricResult {
            comparisons,
            policies: series::policies(evidence, &stretches, at),
            notes: one.notes,
            ..result(metric)
        });
    }
    if hidden.is_some() {
        for metric in &mut metrics {
            metric.comparisons.clear();
            metric.policies.clear();
        }
        // What was not shown was not seen.
        look.metrics.values_mut().for_each(LookMetric::hide);
        // It would tell the effect.
        findings
            .checks
            .retain(|check| !check.id.starts_with("simpson:"));
    }
    for (at, metric) in metrics.iter_mut().enumerate() {
        metric.arms = estimate::arms(evidence, &stretches, at, hidden.is_some());
    }
    let information = informations.iter().copied().reduce(f64::min);
    let hide = hidden.is_some();
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
    let mut looks: Vec<LookResult> = evidence
        .looks
        .looks
        .iter()
        .map(account::look_result)
        .collect();
    looks.push(account::look_result(&look));
    if hide {
        let metrics = looks.iter_mut().flat_map(|look| look.metrics.values_mut());
        metrics.for_each(LookMetric::hide);
    }
    let staleness = if hide {
        None
    } else {
        staleness::study(evidence, &metrics)
    };
    let analysis = Analysis {
        schema: SCHEMA,
        version: env!("CARGO_PKG_VERSION"),
        plan: plan.clone(),
        observed: account::observed(evidence, &stretches),
        verdict,
        quality: findings.checks,
        metrics,
        interleaving: series::interleaving(evidence, hide),
        off_policy: None,
        lists: None,
        staleness,
        operation: account::operation(evidence, hide),
        looks,
        data: account::data(evidence),
        vitals: vitals::vitals(evidence),
    };
    (analysis, look)
}

/// A metric of which nothing is known yet but what the plan says.
fn result(metric: &Metric) -> MetricResult {
    MetricResult {
        name: metric.name.clone(),
        role: role_name(metric.role),
        kind: kind_name(metric),
        direction: match metric.direction {
            Direction::Up => "up",
            Direction::Down => "down",
        },
        window: metric.window.describe(),
        arms: Vec::new(),
        comparisons: Vec::new(),
        policies: Vec::new(),
        descriptive: metric.window == Window::Open,
        notes: Vec::new(),
    }
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
        scanned: number(plan.metrics.len() - plan.with_role(Role::Quality).count()),
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
    looked: LookMetric,
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
        let size = control
            .abs()
            .max(estimated.comparison.treatment.value.abs());
        if estimated.effect.se <= ROUNDING * size {
            return Err(MethodError::NoVariance { what: "the metric" });
        }
        let margin = metric.margin.map(|margin| margin.absolute(control));
        let mde = metric.mde.map(|mde| mde.absolute(control));
        let units = comparison_units(self.evidence, self.stretches, self.at);
        let units = count(units) * estimated.share.unwrap_or(1.0);
        let smaller = estimated
            .comparison
            .control
            .n
            .min(estimated.comparison.treatment.n);
        let matters = match metric.role {
            Role::Success => mde,
            Role::Guardrail => margin,
            Role::Scan | Role::Quality => None,
        };
        let levels = self.monitor.levels();
        let level = match (metric.role, margin) {
            (Role::Success, _) => levels.success,
            (Role::Guardrail, Some(_)) => levels.guardrail,
            _ => levels.deterioration,
        };
        let progress = match (plan.design.method, matters) {
            (Method::FixedPower, Some(matters)) => Some(self.monitor.progress(
                cautious(metric, &estimated),
                matters,
                level,
            )?),
            _ => None,
        };
        let information = match plan.design.method {
            Method::FixedPower => progress.map(|progress| progress.information),
            _ => self.monitor.information(units),
        };
        let key = format!("{} / {}", metric.name, plan.arms[arm].name);
        let watched = Watched {
            key: &key,
            level,
            units,
            smallest_arm: smaller,
            effect: estimated.effect,
            matters,
            progress,
        };
        let undecided = |information, state| Compared {
            comparison: self.result(arm, &estimated, None, None, information, margin, mde),
            judgement: None,
            information,
            looked: LookMetric {
                t: information.unwrap_or(0.0),
                ..LookMetric::default()
            },
            state,
        };
        if metric.window == Window::Open {
            return Ok(undecided(None, State::Descriptive));
        }
        let bounds = match self.monitor.bounds(&watched)? {
            Verge::Judge(bounds) => bounds,
            Verge::Hidden(reason) => return Ok(undecided(information, State::Hidden(reason))),
            Verge::TooEarly(reason) => return Ok(undecided(information, State::TooEarly(reason))),
        };
        let role = match (metric.role, metric.margin) {
            (Role::Success, _) => Part::Success,
            (Role::Guardrail, margin) => Part::Guardrail(margin.map(|margin| match margin {
                Margin::Absolute(m) => Slack::Absolute(m),
                Margin::Relative(m) => Slack::Relative(m),
            })),
            (Role::Scan | Role::Quality, _) => Part::Scan,
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
            let stopped = self.monitor.at_stop(&watched, metric.direction.sign());
            let (estimate, interval) = stopped.ok().flatten().unzip();
            comparison.median_unbiased = estimate;
            comparison.stagewise = interval;
        }
        let z = judgement.z_margin.unwrap_or(judgement.z);
        let deterioration = metric.role != Role::Success && margin.is_none();
        let towards = if deterioration { -z } else { z };
        let looked =
            self.monitor
                .remember(&watched, information.unwrap_or(0.0), [z, towards], bound)?;
        comparison.p_all_looks = looked.p;
        Ok(Compared {
            comparison,
            judgement: Some(judgement),
            information,
            looked,
            state: State::Judged,
        })
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "what one row of the result is made of"
    )]
    fn result(
        &self,
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
            .ok()
            .filter(|_| plan.kind != Kind::Interleave);
        let (outcome, words) = outcome(metric, judgement);
        let good = metric.direction.sign() * effect.z();
        let twyman = mde
            .is_some_and(|mde| effect.delta.abs() > TWYMAN_MDE * mde && effect.z().abs() > 2.0)
            || effect.z().abs() > TWYMAN_Z;
        let power = 1.0 - self.monitor.levels().power;
        let segments = series::segments(self.evidence, self.stretches, self.at, arm, effect.delta);
        let cautions = say::cautions(metric, &plan.arms[arm].name, twyman, &segments);
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
                    delta_method: relative.delta_method,
                    fieller: relative.fieller,
                }
            }),
            z: judgement.map_or(good, |j| j.z),
            bound,
            p: judgement.map_or_else(|| normal_sf(good), |j| j.p),
            p_all_looks: None,
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
            uptake: series::uptake(self.evidence, self.stretches, self.at, arm),
            unadjusted: estimated.raw.map(|raw| raw.delta),
            twyman,
            cautions,
            median_unbiased: None,
            stagewise: None,
            segments,
            by_day: series::by_day(self.evidence, self.stretches, self.at, arm),
            by_age: series::by_age(self.evidence, self.stretches, self.at, arm),
        }
    }
}

/// The standard error to stop by: no smaller than the planned deviation of a unit makes it.
fn cautious(metric: &Metric, estimated: &Estimated) -> f64 {
    let Comparison { control, treatment } = estimated.comparison;
    metric.sd.map_or(estimated.effect.se, |sd| {
        cautious_se(
            [control, treatment].map(|arm| sd * sd / count(arm.n)),
            [control.variance, treatment.variance],
        )
    })
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
        Role::Quality => "quality",
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
