//! Before the start: how many units, for how long, and how small an effect they will show.
//!
//! Every metric that decides is planned at the level and the power that the verdict will use
//! ([`crate::methods::decision::RiskPlan`]), so size and verdict cannot disagree. The experiment
//! needs as many units as its hungriest metric.
//!
//! What it rests on: baselines are those of the listeners that will come, they come at a steady rate,
//! and their variance does not change with the treatment. Of a metric
//! measured every day (`open(14d)`) the baseline is that of a unit's mean over all its days. Not for metrics whose
//! window is `open` without an end, which decide nothing.

mod document;
mod looks;
mod question;
#[cfg(test)]
mod tests;

use crate::methods::MethodError;
use crate::methods::power::{Target, Units};
use crate::plan::{Metric, Plan, Role, Window};
use crate::verdict::{levels, role_name};

pub use document::{ArmUnits, Duration, LeftOut, MetricSize, Point, Size};
pub use looks::inflation;
pub use question::{Baseline, Question, SizingError, Traffic, baselines};

use looks::looks_paid;
use question::check;

/// Version of [`Size`] as a document.
pub const SCHEMA: &str = "refrain.size/1";

/// Looks a group-sequential design is sized for, unless told otherwise.
pub const LOOKS: u32 = 5;

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
/// [`SizingError`].
pub fn size(plan: &Plan, question: &Question) -> Result<Size, SizingError> {
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
            Role::Quality => {
                skip("is a check of the data: no arm can change it");
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
        let named = |source| SizingError::Metric {
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
        return Err(SizingError::NoBaseline {
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
        return Err(SizingError::Nothing {
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
        .filter(|m| m.role.decides())
        .filter_map(|m| m.window.ages_us().map(|(_, final_us)| days(final_us)))
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
