//! Before the start: how many units, for how long, and how small an effect they will show.
//!
//! Every metric that decides is planned at the level and the power that the verdict will use
//! ([`crate::methods::decision::RiskPlan`]), so planner and verdict cannot disagree. The experiment
//! needs as many units as its hungriest metric.
//!
//! What it rests on: baselines are those of the listeners that will come, they come at a steady rate,
//! and their variance does not change with the treatment. Not for metrics with an open window, which
//! decide nothing.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::methods::always_valid::ConfidenceSequence;
use crate::methods::decision::Levels;
use crate::methods::power::{Target, Units};
use crate::methods::special::normal_upper_quantile;
use crate::methods::{MethodError, sequential};
use crate::plan::{Design, Method, Metric, MetricType, Plan, Role, SpendingRule, Window};
use crate::verdict::{levels, role_name};

/// Version of [`Size`] as a document.
pub const SCHEMA: &str = "refrain.size/1";

/// Looks a group-sequential design is sized for, unless told otherwise.
pub const LOOKS: u32 = 5;

/// What is known of a metric before the start.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Baseline {
    /// Its value without the treatment.
    pub value: f64,
    /// Standard deviation of one unit: the standard error of the value is `sd / √units`. For a ratio,
    /// of the linearised value; for a quantile, of its clustered estimate.
    pub sd: f64,
    /// Share of the variance that the covariate takes away, 0 to below 1.
    pub variance_reduction: f64,
}

impl Baseline {
    /// Of a proportion.
    #[must_use]
    pub fn share(share: f64) -> Self {
        Self {
            value: share,
            sd: (share * (1.0 - share)).max(0.0).sqrt(),
            variance_reduction: 0.0,
        }
    }
}

/// Units that come.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Traffic {
    /// New units a day that reach the surface.
    pub units_per_day: f64,
    /// Share of them that the experiment gets, above 0 and up to 1.
    pub allocation: f64,
}

/// What is asked of the planner.
#[derive(Debug, Clone, PartialEq)]
pub struct Question {
    /// By metric.
    pub baselines: BTreeMap<String, Baseline>,
    /// Units that come, if known.
    pub traffic: Option<Traffic>,
    /// Looks that will be made, evenly spaced; for the group-sequential design.
    pub looks: u32,
}

/// How large an experiment must be.
#[derive(Debug, Clone, Serialize)]
pub struct Size {
    /// Version of this document.
    pub schema: &'static str,
    /// The experiment.
    pub experiment: String,
    /// What it is to find out.
    pub question: String,
    /// Digest of the plan.
    pub digest: String,
    /// How looks are paid for.
    pub design: Design,
    /// Looks it is sized for.
    pub looks: u32,
    /// One-sided levels of the single tests, and the power that each needs.
    pub levels: Levels,
    /// Units of all arms together: `max_units` of the design.
    pub units: u64,
    /// By arm.
    pub arms: Vec<ArmUnits>,
    /// The metric that needs the most.
    pub hungriest: String,
    /// How long it takes, if the traffic is known.
    pub duration: Option<Duration>,
    /// Metrics that decide.
    pub metrics: Vec<MetricSize>,
    /// Metrics that were not sized, and why.
    pub left_out: Vec<LeftOut>,
}

/// Units of one arm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ArmUnits {
    /// The arm.
    pub arm: String,
    /// Its units.
    pub units: u64,
}

/// How long an experiment runs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Duration {
    /// The traffic it was computed from.
    pub traffic: Traffic,
    /// Days until the last unit has come.
    pub intake_days: f64,
    /// Days until the last unit's longest window is over and its outcomes have arrived.
    pub days: f64,
}

/// A metric that decides.
#[derive(Debug, Clone, Serialize)]
pub struct MetricSize {
    /// Its name.
    pub name: String,
    /// `success` or `guardrail`.
    pub role: &'static str,
    /// `superiority` or `non-inferiority`.
    pub test: &'static str,
    /// What is known of it.
    pub baseline: Baseline,
    /// One-sided level of its test.
    pub alpha: f64,
    /// Power of its test.
    pub power: f64,
    /// Factor on the number of units that the looks cost.
    pub inflation: f64,
    /// The effect to detect, or the margin to prove, in the metric's unit.
    pub effect: f64,
    /// Units of all arms that it needs.
    pub units: u64,
    /// Smallest effect (or margin) seen with the planned power by the units of the whole experiment.
    pub detectable: f64,
    /// Power for its own effect with the units of the whole experiment.
    pub achieved_power: f64,
    /// Over numbers of units.
    pub curve: Vec<Point>,
    /// Over weeks of intake, if the traffic is known.
    pub by_week: Vec<Point>,
    /// Over the share of the traffic, at the duration found, if the traffic is known.
    pub by_allocation: Vec<Point>,
}

/// A point of a curve.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Point {
    /// Where: units, weeks or a share.
    pub at: f64,
    /// Units of all arms there.
    pub units: u64,
    /// Smallest effect seen by them with the planned power.
    pub detectable: f64,
    /// Power for the metric's own effect.
    pub power: f64,
}

/// A metric that was not sized.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LeftOut {
    /// Its name.
    pub metric: String,
    /// Why.
    pub why: String,
}

/// Why a size cannot be found.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PlannerError {
    /// A baseline of a metric that the plan does not have.
    #[error("there is no metric `{name}` in the plan; it has {known}")]
    Unknown {
        /// As given.
        name: String,
        /// Those of the plan.
        known: String,
    },
    /// Metrics that decide and of which nothing is known.
    #[error(
        "nothing is known of {metrics}: how large they are without the treatment, and how much they vary"
    )]
    NoBaseline {
        /// Their names.
        metrics: String,
    },
    /// Nothing decides.
    #[error("no metric can be sized: {why}")]
    Nothing {
        /// Why not, for each metric.
        why: String,
    },
    /// Numbers that do not fit a metric.
    #[error("metric `{metric}`: {source}")]
    Metric {
        /// The metric.
        metric: String,
        /// What is wrong.
        source: MethodError,
    },
    /// Traffic that cannot be meant.
    #[error("{what} is {value}, not {range}")]
    Traffic {
        /// Which number.
        what: &'static str,
        /// As given.
        value: f64,
        /// What would be right.
        range: &'static str,
    },
}

const DAY_US: f64 = 86_400_000_000.0;
/// Weeks of the curve.
const WEEKS: u32 = 12;

/// Finds the size of an experiment.
///
/// A metric's test needs `(1/q_c + 1/q_t) (z_{1−α} + z_power)² σ² (1 − ρ) / effect²` units
/// ([`Target::units`]) times what its looks cost; the experiment needs the largest over metrics and
/// treatments.
///
/// # Errors
/// [`PlannerError`].
pub fn size(plan: &Plan, question: &Question) -> Result<Size, PlannerError> {
    check(plan, question)?;
    let levels = levels(plan);
    let mut left_out = Vec::new();
    let mut unknown = Vec::new();
    let mut sized: Vec<(&Metric, Baseline, f64, Target, u64)> = Vec::new();
    for metric in &plan.metrics {
        let mut skip = |why: &str| {
            left_out.push(LeftOut {
                metric: metric.name.clone(),
                why: why.to_owned(),
            });
        };
        let slack = match metric.role {
            Role::Success => metric.mde,
            Role::Guardrail => metric.margin,
            Role::Scan => {
                skip("is only scanned for harm");
                continue;
            }
        };
        let Some(slack) = slack else {
            skip(match metric.role {
                Role::Success => "has no mde or mde_rel: the smallest effect that matters",
                _ => "has no margin or margin_rel: without one it is only scanned for harm",
            });
            continue;
        };
        if metric.window == Window::Open {
            skip("has an open window, and is described only: give it a closed one");
            continue;
        }
        let Some(baseline) = question.baselines.get(&metric.name).copied() else {
            unknown.push(metric.name.as_str());
            continue;
        };
        let named = |source| PlannerError::Metric {
            metric: metric.name.clone(),
            source,
        };
        let alpha = match metric.role {
            Role::Success => levels.success,
            _ => levels.guardrail,
        };
        let effect = slack.absolute(baseline.value);
        let mut target = Target::new(baseline.sd * baseline.sd, effect, alpha, levels.power);
        target.variance_reduction = baseline.variance_reduction;
        target.inflation =
            inflation(&plan.design, alpha, levels.power, question.looks).map_err(named)?;
        let units = needed(plan, &target).map_err(named)?;
        sized.push((metric, baseline, effect, target, units));
    }
    if !unknown.is_empty() {
        return Err(PlannerError::NoBaseline {
            metrics: crate::verdict::words::list(&unknown),
        });
    }
    let Some((hungriest, units)) = sized
        .iter()
        .map(|(metric, _, _, _, units)| (metric.name.clone(), *units))
        .reduce(|a, b| if b.1 > a.1 { b } else { a })
    else {
        let why: Vec<String> = left_out
            .iter()
            .map(|l| format!("`{}` {}", l.metric, l.why))
            .collect();
        return Err(PlannerError::Nothing {
            why: why.join("; "),
        });
    };
    let duration = question
        .traffic
        .map(|traffic| duration(plan, traffic, units));
    let metrics = sized
        .into_iter()
        .map(|(metric, baseline, effect, target, own)| {
            let point = |at: f64, total: f64| point(plan, &target, at, total);
            let whole = point(as_f64(units), as_f64(units));
            let from = as_f64(units.min(own)) / 4.0;
            let steps = (as_f64(units) * 2.0 / from).ln() / 40.0;
            let curve = (0..=40)
                .map(|step| from * (steps * f64::from(step)).exp())
                .map(|total| point(total, total));
            let coming = |share: f64, days: f64| {
                duration.map_or(0.0, |d| d.traffic.units_per_day * share * days)
            };
            let weeks = (1..=WEEKS).map(|week| {
                let allocation = duration.map_or(0.0, |d| d.traffic.allocation);
                point(f64::from(week), coming(allocation, 7.0 * f64::from(week)))
            });
            let shares = (1..=20).map(|step| {
                let share = f64::from(step) / 20.0;
                point(
                    share,
                    coming(share, duration.map_or(0.0, |d| d.intake_days)),
                )
            });
            MetricSize {
                name: metric.name.clone(),
                role: role_name(metric.role),
                test: if metric.role == Role::Success {
                    "superiority"
                } else {
                    "non-inferiority"
                },
                baseline,
                alpha: target.alpha,
                power: target.power,
                inflation: target.inflation,
                effect,
                units: own,
                detectable: whole.map_or(f64::NAN, |p| p.detectable),
                achieved_power: whole.map_or(f64::NAN, |p| p.power),
                curve: curve.flatten().collect(),
                by_week: weeks.flatten().collect(),
                by_allocation: shares.flatten().collect(),
            }
        })
        .collect();
    Ok(Size {
        schema: SCHEMA,
        experiment: plan.experiment.clone(),
        question: plan.question.clone(),
        digest: plan.digest.clone(),
        design: plan.design.clone(),
        looks: looks_paid(&plan.design, question.looks),
        levels,
        units,
        arms: plan
            .arms
            .iter()
            .map(|arm| ArmUnits {
                arm: arm.name.clone(),
                units: whole(as_f64(units) * arm.share),
            })
            .collect(),
        hungriest,
        duration,
        metrics,
        left_out,
    })
}

/// What may be known of an experiment's metrics from an analysis of earlier data: the document that
/// `experiment analyze --json` prints, of the same metrics. Values of the control, and what the
/// covariate saved.
#[must_use]
pub fn baselines(analysis: &serde_json::Value) -> BTreeMap<String, Baseline> {
    let mut found = BTreeMap::new();
    for metric in analysis["metrics"].as_array().into_iter().flatten() {
        let control = &metric["arms"][0];
        if let (Some(name), Some(value), Some(se), Some(units)) = (
            metric["name"].as_str(),
            control["value"].as_f64(),
            control["se"].as_f64(),
            control["units"].as_f64(),
        ) {
            let covariate = &metric["comparisons"][0]["covariate"];
            let saved = covariate["variance_reduction"]
                .as_f64()
                .filter(|_| covariate["used"].as_bool() == Some(true));
            found.insert(
                name.to_owned(),
                Baseline {
                    value,
                    sd: se * units.sqrt(),
                    variance_reduction: saved.unwrap_or(0.0).clamp(0.0, 0.999),
                },
            );
        }
    }
    found
}

/// By what the number of units must grow so that a test with these looks keeps the power of one look.
///
/// Group-sequential: exact, for evenly spaced looks. Bonferroni: the level divided by the planned looks.
/// Always-valid: as if the decision fell at the planned size; it may come earlier, so this is the worst
/// case. Fixed and fixed-power designs pay nothing.
///
/// # Errors
/// Levels or power outside 0..1.
pub fn inflation(design: &Design, alpha: f64, power: f64, looks: u32) -> Result<f64, MethodError> {
    let one = normal_upper_quantile(alpha) + normal_upper_quantile(1.0 - power);
    let with = |bound: f64| ((bound + normal_upper_quantile(1.0 - power)) / one).powi(2);
    match design.method {
        Method::Gst if looks > 1 => {
            let fractions: Vec<f64> = (1..=looks)
                .map(|k| f64::from(k) / f64::from(looks))
                .collect();
            let spending = match design.spending {
                SpendingRule::Power(rho) => sequential::Spending::Power(rho),
                SpendingRule::Obf => sequential::Spending::OBrienFleming,
                SpendingRule::Pocock => sequential::Spending::Pocock,
            };
            sequential::inflation(alpha, spending, &fractions, power)
        }
        Method::Bonferroni => Ok(with(sequential::bonferroni_bound(
            alpha,
            u64::from(design.looks),
        )?)),
        Method::AlwaysValid => {
            // At the size it is tuned for, the bound does not depend on that size.
            const ANY: u64 = 1_000_000;
            Ok(with(
                ConfidenceSequence::one_sided(alpha, ANY)?.multiplier(ANY),
            ))
        }
        Method::Gst | Method::Fixed | Method::FixedPower => Ok(1.0),
    }
}

fn looks_paid(design: &Design, looks: u32) -> u32 {
    match design.method {
        Method::Gst => looks,
        Method::Bonferroni => design.looks,
        _ => 1,
    }
}

fn check(plan: &Plan, question: &Question) -> Result<(), PlannerError> {
    for (name, baseline) in &question.baselines {
        let Some(metric) = plan.metrics.iter().find(|m| m.name == *name) else {
            let names: Vec<&str> = plan.metrics.iter().map(|m| m.name.as_str()).collect();
            return Err(PlannerError::Unknown {
                name: name.clone(),
                known: crate::verdict::words::list(&names),
            });
        };
        let share =
            !matches!(metric.kind, MetricType::Proportion) || (0.0..=1.0).contains(&baseline.value);
        if !baseline.value.is_finite() || !share {
            return Err(PlannerError::Metric {
                metric: name.clone(),
                source: MethodError::OutOfRange {
                    what: "the baseline",
                    value: baseline.value,
                    range: if share {
                        "a finite number"
                    } else {
                        "a share from 0 to 1"
                    },
                },
            });
        }
    }
    let wrong = |what, value, range| Err(PlannerError::Traffic { what, value, range });
    if let Some(traffic) = question.traffic {
        if !(traffic.units_per_day > 0.0 && traffic.units_per_day <= 1e12) {
            return wrong(
                "the number of units a day",
                traffic.units_per_day,
                "above 0 and at most 1e12",
            );
        }
        if !(traffic.allocation > 0.0 && traffic.allocation <= 1.0) {
            return wrong(
                "the allocation",
                traffic.allocation,
                "above 0 and at most 1",
            );
        }
    }
    if question.looks == 0 || question.looks > 200 {
        return wrong(
            "the number of looks",
            f64::from(question.looks),
            "from 1 to 200",
        );
    }
    Ok(())
}

/// Units of all arms for one metric: the largest over treatments.
fn needed(plan: &Plan, target: &Target) -> Result<u64, MethodError> {
    let control = plan.arms[0].share;
    let mut most = 0;
    for arm in &plan.arms[1..] {
        let units = target.units([control, arm.share])?;
        most = most
            .max(whole(as_f64(units.control) / control))
            .max(whole(as_f64(units.treatment) / arm.share));
    }
    Ok(most)
}

/// At so many units of all arms: the least favourable treatment.
fn point(plan: &Plan, target: &Target, at: f64, total: f64) -> Option<Point> {
    let smallest = plan.arms[1..]
        .iter()
        .map(|arm| arm.share)
        .fold(1.0, f64::min);
    let units = Units {
        control: whole(total * plan.arms[0].share),
        treatment: whole(total * smallest),
    };
    if total < 2.0 || units.control == 0 || units.treatment == 0 {
        return None;
    }
    Some(Point {
        at,
        units: whole(total),
        detectable: target.minimum_detectable(&units).ok()?,
        power: target.power_at(&units).ok()?,
    })
}

fn duration(plan: &Plan, traffic: Traffic, units: u64) -> Duration {
    let intake_days = as_f64(units) / (traffic.units_per_day * traffic.allocation);
    #[expect(clippy::cast_precision_loss, reason = "microseconds of some years")]
    let days = |us: i64| us as f64 / DAY_US;
    let window = plan
        .metrics
        .iter()
        .filter(|m| m.role != Role::Scan)
        .filter_map(|m| match m.window {
            Window::Closed { to_us, .. } => Some(days(to_us)),
            Window::Open => None,
        })
        .fold(0.0, f64::max);
    Duration {
        traffic,
        intake_days,
        days: intake_days + window + days(plan.policy.settle),
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "counts of units are far below 2^53"
)]
fn as_f64(units: u64) -> f64 {
    units as f64
}

/// Rounded up; a rounding error above a whole number is none.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "saturates: more units than there are people is an answer"
)]
fn whole(units: f64) -> u64 {
    (units * (1.0 - 1e-12)).ceil().max(0.0) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const DRAFT: &str = r#"
[experiment.blend]
epoch = 1
design = { method = "fixed", alpha = 0.05, power = 0.8 }
[[experiment.blend.arm]]
name = "control"
weight = 1
[[experiment.blend.arm]]
name = "blend03"
weight = 1
[[experiment.blend.metric]]
name = "a"
role = "success"
window = "closed(7d,14d)"
mde_rel = 0.01
[[experiment.blend.metric]]
name = "b"
role = "success"
window = "closed(0d,1d)"
mde_rel = 0.01
"#;

    fn plan(method: &str, guardrails: usize) -> Plan {
        let mut text = DRAFT.replace("\"fixed\"", &format!("\"{method}\""));
        for at in 0..guardrails {
            text.push_str(&format!(
                "[[experiment.blend.metric]]\nname = \"g{at}\"\nrole = \"guardrail\"\nwindow = \"closed(0d,7d)\"\nmargin_rel = 0.01\n"
            ));
        }
        Plan::draft(&text, None).expect("a draft")
    }

    fn question(plan: &Plan) -> Question {
        let baseline = Baseline {
            value: 0.5,
            sd: 0.5,
            variance_reduction: 0.0,
        };
        Question {
            baselines: plan
                .metrics
                .iter()
                .map(|m| (m.name.clone(), baseline))
                .collect(),
            traffic: None,
            looks: LOOKS,
        }
    }

    /// Two success metrics and four guardrails, as spotify-confidence sizes them (E8).
    #[test]
    fn the_size_is_that_of_the_reference() {
        let mut plan = plan("fixed", 4);
        plan.design.alpha_deterioration = 0.0;
        plan.design.alpha_quality = 0.0;
        let found = size(&plan, &question(&plan)).expect("sized");
        assert!((found.levels.success - 0.025).abs() < 1e-12);
        assert!((found.levels.power - 0.96).abs() < 1e-12);
        assert_eq!(found.units, 550_758);
        assert_eq!(found.arms.iter().map(|a| a.units).sum::<u64>(), 550_758);
    }

    #[test]
    fn looks_cost_units_and_covariates_save_them() {
        let units = |method: &str, saved: f64| {
            let plan = plan(method, 1);
            let mut question = question(&plan);
            for baseline in question.baselines.values_mut() {
                baseline.variance_reduction = saved;
            }
            size(&plan, &question).expect("sized").units
        };
        let (fixed, gst, always) = (
            units("fixed", 0.0),
            units("gst", 0.0),
            units("always_valid", 0.0),
        );
        assert!(fixed < gst && gst < fixed * 13 / 10, "{fixed} {gst}");
        assert!(gst < always, "{gst} {always}");
        let ratio = as_f64(units("fixed", 0.75)) / as_f64(fixed);
        assert!((ratio - 0.25).abs() < 1e-4, "{ratio}");
    }

    #[test]
    fn curves_meet_the_size_and_traffic_makes_it_days() {
        let plan = plan("gst", 1);
        let mut question = question(&plan);
        question.traffic = Some(Traffic {
            units_per_day: 50_000.0,
            allocation: 0.2,
        });
        let found = size(&plan, &question).expect("sized");
        let duration = found.duration.expect("traffic is known");
        assert!((duration.intake_days - as_f64(found.units) / 10_000.0).abs() < 1e-9);
        assert!(
            (duration.days - duration.intake_days - 14.0).abs() < 1e-9,
            "the longest window"
        );
        for metric in &found.metrics {
            assert!(metric.achieved_power >= metric.power - 1e-9, "{metric:?}");
            assert!(
                metric.detectable <= metric.effect * (1.0 + 1e-9),
                "{metric:?}"
            );
            for curve in [&metric.curve, &metric.by_week, &metric.by_allocation] {
                assert!(curve.len() >= 12);
                assert!(
                    curve
                        .windows(2)
                        .all(|p| p[0].detectable >= p[1].detectable && p[0].power <= p[1].power)
                );
            }
        }
        let hungriest = found
            .metrics
            .iter()
            .find(|m| m.name == found.hungriest)
            .expect("there");
        assert_eq!(hungriest.units, found.units);
        assert!((hungriest.achieved_power - hungriest.power).abs() < 1e-3);
    }

    #[test]
    fn unequal_arms_need_the_share_of_the_smallest() {
        let text = DRAFT.replacen(
            "weight = 1\n[[experiment.blend.metric]]",
            "weight = 3\n[[experiment.blend.metric]]",
            1,
        );
        let uneven = Plan::draft(&text, None).expect("a draft");
        assert_eq!(uneven.arms[1].share, 0.75);
        let (even, uneven) = (
            size(&plan("fixed", 0), &question(&plan("fixed", 0))).expect("sized"),
            size(&uneven, &question(&uneven)).expect("sized"),
        );
        // 1/q_c + 1/q_t: 4 for halves, 16/3 for quarters.
        let ratio = as_f64(uneven.units) / as_f64(even.units);
        assert!((ratio - 4.0 / 3.0).abs() < 1e-4, "{ratio}");
    }

    #[test]
    fn what_cannot_be_sized_is_said() {
        let plan = plan("gst", 0);
        let mut question = question(&plan);
        question.baselines.remove("b");
        assert_eq!(
            size(&plan, &question)
                .expect_err("nothing known")
                .to_string(),
            "nothing is known of b: how large they are without the treatment, and how much they vary"
        );
        question
            .baselines
            .insert("c".to_owned(), Baseline::share(0.5));
        assert!(matches!(
            size(&plan, &question),
            Err(PlannerError::Unknown { .. })
        ));
        let mut nothing = self::question(&plan);
        nothing.baselines.values_mut().for_each(|b| b.sd = 0.0);
        assert!(matches!(
            size(&plan, &nothing),
            Err(PlannerError::Metric { .. })
        ));
        for (per_day, allocation) in [(0.0, 0.5), (f64::NAN, 0.5), (10.0, 0.0), (10.0, 1.5)] {
            let mut wrong = self::question(&plan);
            wrong.traffic = Some(Traffic {
                units_per_day: per_day,
                allocation,
            });
            assert!(matches!(
                size(&plan, &wrong),
                Err(PlannerError::Traffic { .. })
            ));
        }
    }
}
