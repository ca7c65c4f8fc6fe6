//! A metric of one treatment against the control.

use super::Evidence;
use super::document::{ArmValue, CovariateResult};
use super::words;
use crate::log::scan::Words;
use crate::methods::effect::{ArmEstimate, Comparison, Effect};
use crate::methods::moments::{Moments, Summary, count};
use crate::methods::{
    MethodError, cuped, interleaving, longitudinal, mean, proportion, quantile, ratio, segments,
};
use crate::plan::{Kind, Metric, MetricType, Plan, Window};
use crate::units::Statistics;
use crate::units::histogram::RELATIVE_ERROR;
use crate::units::statistics::{Attribute, Of};

/// Strata whose units were dealt out with the same weights.
#[derive(Debug, Clone)]
pub(super) struct Stretch {
    pub(super) shares: Vec<f64>,
    pub(super) strata: Vec<u16>,
    pub(super) units: Vec<u64>,
}

/// The stretches of an experiment: one, unless its weights changed on the way.
#[expect(clippy::cast_possible_truncation, reason = "shares to six digits")]
pub(super) fn stretches(plan: &Plan, statistics: &Statistics, words: &Words) -> Vec<Stretch> {
    let mut found: Vec<Stretch> = Vec::new();
    let mut strata = statistics.strata();
    let text = |stratum: &u16| {
        words
            .weights
            .get(usize::from(*stratum))
            .map_or("", String::as_str)
    };
    strata.sort_by(|a, b| text(a).cmp(text(b)));
    let rounded = |shares: &[f64]| {
        shares
            .iter()
            .map(|s| (s * 1e6).round() as i64)
            .collect::<Vec<_>>()
    };
    for stratum in strata {
        let weights: Vec<f64> = text(&stratum)
            .split(' ')
            .filter_map(|w| w.parse().ok())
            .collect();
        let total: f64 = weights.iter().sum();
        let fits = weights.len() == plan.arms.len()
            && weights.iter().all(|w| w.is_finite() && *w >= 0.0)
            && total > 0.0;
        let shares: Vec<f64> = if fits {
            weights.iter().map(|w| w / total).collect()
        } else {
            plan.arms.iter().map(|arm| arm.share).collect()
        };
        let units = statistics.units_of(Attribute::Stratum, u32::from(stratum));
        match found
            .iter_mut()
            .find(|known| rounded(&known.shares) == rounded(&shares))
        {
            Some(known) => {
                known.strata.push(stratum);
                for (sum, units) in known.units.iter_mut().zip(&units) {
                    *sum += units;
                }
            }
            None => found.push(Stretch {
                shares,
                strata: vec![stratum],
                units,
            }),
        }
    }
    found
}

/// An effect and where it came from.
#[derive(Debug, Clone)]
pub(super) struct Estimated {
    pub(super) comparison: Comparison,
    pub(super) effect: Effect,
    /// Without covariate and strata.
    pub(super) raw: Option<Effect>,
    pub(super) covariate: Option<CovariateResult>,
    /// P-value of a covariate that differs between the arms.
    pub(super) moved: Option<f64>,
    /// Stretches left out because one of them lacks an arm.
    pub(super) left_out: usize,
    pub(super) test: String,
    /// Of a metric measured every day: information so far over what these units will have carried at
    /// the end.
    pub(super) share: Option<f64>,
}

/// Estimates the effect of `arm` on a metric among some units.
pub(super) fn estimate(
    evidence: &Evidence<'_>,
    stretches: &[Stretch],
    at: usize,
    arm: usize,
    of: Of,
) -> Result<Estimated, MethodError> {
    let metric = &evidence.plan.metrics[at];
    if let MetricType::Quantile(q) = metric.kind {
        let comparison = Comparison::new(
            quantile_of(evidence, at, 0, q)?,
            quantile_of(evidence, at, arm, q)?,
        )?;
        return Ok(Estimated {
            effect: comparison.normal(),
            raw: None,
            covariate: None,
            moved: None,
            left_out: 0,
            test: "quantile, units as clusters".to_owned(),
            share: None,
            comparison,
        });
    }
    if evidence.plan.kind == Kind::Interleave {
        return interleaved(evidence, stretches, at, of);
    }
    if let (Window::Daily { days }, Of::All) = (metric.window, of) {
        return daily(evidence, stretches, at, arm, u64::from(days));
    }
    let plain = matches!(of, Of::All | Of::Completed(_));
    let moments = |arm: usize, strata: &[u16]| evidence.statistics.moments(at, arm, strata, of);
    let all = strata_of(stretches);
    let empty = || MethodError::TooFew {
        what: "complete units of an arm",
        needed: 2,
        got: 0,
    };
    let (control, treatment) = (
        moments(0, &all).ok_or_else(empty)?,
        moments(arm, &all).ok_or_else(empty)?,
    );
    let covariate = metric.covariate.as_ref().filter(|_| plain);
    let raw = compare(metric, &control, &treatment, false)?;
    let mut moved = None;
    let lacking = covariate.and_then(|_| lacking(metric, &control, &treatment));
    let mut one = |control: &Moments,
                   treatment: &Moments|
     -> Result<(Comparison, Option<f64>), MethodError> {
        if covariate.is_none() || lacking.is_some() {
            return Ok((compare(metric, control, treatment, false)?.0, None));
        }
        match compare(metric, control, treatment, true) {
            Ok(adjusted) => Ok(adjusted),
            Err(MethodError::CovariateMoved { p }) => {
                moved = Some(p);
                Ok((compare(metric, control, treatment, false)?.0, None))
            }
            Err(MethodError::Singular { .. } | MethodError::NoVariance { .. }) => {
                Ok((compare(metric, control, treatment, false)?.0, None))
            }
            Err(other) => Err(other),
        }
    };
    let mut parts = Vec::new();
    if stretches.len() > 1 {
        for stretch in stretches {
            let pair = (moments(0, &stretch.strata), moments(arm, &stretch.strata));
            let (Some(control), Some(treatment)) = pair else {
                continue;
            };
            match one(&control, &treatment) {
                Ok((comparison, saved)) => parts.push((control.n + treatment.n, comparison, saved)),
                Err(MethodError::TooFew { .. } | MethodError::NoVariance { .. }) => {}
                Err(other) => return Err(other),
            }
        }
    }
    let left_out = if stretches.len() > 1 {
        stretches.len() - parts.len()
    } else {
        0
    };
    let (comparison, saved, effect) = if stretches.len() > 1 && !parts.is_empty() {
        let comparison = weighted(&parts)?;
        let saved = parts.iter().filter_map(|part| part.2).next_back();
        (comparison, saved, comparison.normal())
    } else {
        let (comparison, saved) = one(&control, &treatment)?;
        (comparison, saved, comparison.effect())
    };
    let mut test = match (metric.kind, effect.df) {
        (MetricType::Ratio, _) => "ratio by delta method".to_owned(),
        (MetricType::Proportion, _) => "difference of shares".to_owned(),
        (_, Some(df)) => format!("Welch's t, df {df:.1}"),
        _ => "difference of means, z".to_owned(),
    };
    if saved.is_some() {
        test.push_str(", CUPED");
    }
    if stretches.len() > 1 {
        test.push_str(", by stretch of weights");
    }
    Ok(Estimated {
        comparison,
        effect,
        raw: Some(raw.0.effect()),
        covariate: covariate.map(|name| CovariateResult {
            name: name.clone(),
            variance_reduction: saved.unwrap_or(0.0),
            used: saved.is_some(),
            reason: match (saved, lacking, moved) {
                (Some(_), _, _) => None,
                (None, Some(why), _) => Some(why.to_owned()),
                (None, None, Some(p)) => {
                    Some(format!("differs between the arms, p = {}", words::p(p)))
                }
                (None, None, None) => Some(NOT_APART.to_owned()),
            },
        }),
        moved,
        left_out,
        test,
        share: None,
    })
}

/// Of a covariate that the regression cannot tell from having none at all.
const NOT_APART: &str = "says nothing beside which units have it";

/// Why a covariate cannot help: its columns are its value and 1 for a unit without it.
fn lacking(metric: &Metric, control: &Moments, treatment: &Moments) -> Option<&'static str> {
    let column = if metric.kind == MetricType::Ratio {
        2
    } else {
        1
    };
    let both = |is: &dyn Fn(&Moments) -> bool| is(control) && is(treatment);
    if both(&|arm| arm.mean(column + 1) == 1.0) {
        Some("no unit has it from before its first exposure")
    } else if both(&|arm| arm.variance(column) <= 0.0 && arm.variance(column + 1) <= 0.0) {
        Some("it is the same for every unit")
    } else {
        None
    }
}

/// Which of two arms listeners prefer in lists that both drafted: share of answers won, ties half.
fn interleaved(
    evidence: &Evidence<'_>,
    stretches: &[Stretch],
    at: usize,
    of: Of,
) -> Result<Estimated, MethodError> {
    let strata = strata_of(stretches);
    let preferences = evidence
        .statistics
        .moments(at, 0, &strata, of)
        .map_or_else(Summary::none, |moments| moments.summary(0));
    let effect = interleaving::by_user(&preferences)?;
    // Half the variance each: the two shares add up to 1, so only their difference has an error.
    let share = |value: f64| ArmEstimate {
        n: preferences.n,
        value,
        variance: 0.5 * effect.se * effect.se,
    };
    Ok(Estimated {
        comparison: Comparison::new(
            share(0.5 * (1.0 - effect.delta)),
            share(0.5 * (1.0 + effect.delta)),
        )?,
        effect,
        raw: None,
        covariate: None,
        moved: None,
        left_out: 0,
        test: "preference a listener, one-sample t".to_owned(),
        share: None,
    })
}

/// A metric measured every day, by generalised least squares; stretches of weights as for others.
fn daily(
    evidence: &Evidence<'_>,
    stretches: &[Stretch],
    at: usize,
    arm: usize,
    days: u64,
) -> Result<Estimated, MethodError> {
    let empty = || MethodError::TooFew {
        what: "units of an arm with a whole day",
        needed: 2,
        got: 0,
    };
    let measured = |arm: usize, strata: &[u16]| evidence.statistics.measured(at, arm, strata);
    let all = strata_of(stretches);
    let whole = longitudinal::analyse(
        &measured(0, &all).ok_or_else(empty)?,
        &measured(arm, &all).ok_or_else(empty)?,
        days,
    )?;
    let mut parts = Vec::new();
    let mut share = 0.0;
    if stretches.len() > 1 {
        for stretch in stretches {
            let pair = (measured(0, &stretch.strata), measured(arm, &stretch.strata));
            let (Some(control), Some(treatment)) = pair else {
                continue;
            };
            match longitudinal::analyse(&control, &treatment, days) {
                Ok(found) => {
                    let units = control.n() + treatment.n();
                    share += found.share * count(units);
                    parts.push((units, found.comparison, None));
                }
                // A stretch too short to be measured twice has no weight yet.
                Err(
                    MethodError::TooFew { .. }
                    | MethodError::NoVariance { .. }
                    | MethodError::NotApplicable { .. },
                ) => {}
                Err(other) => return Err(other),
            }
        }
    }
    let (comparison, effect, share) = if parts.is_empty() {
        (whole.comparison, whole.comparison.effect(), whole.share)
    } else {
        let comparison = weighted(&parts)?;
        let units: u64 = parts.iter().map(|part| part.0).sum();
        (comparison, comparison.normal(), share / count(units))
    };
    let mut test = "days within units, generalised least squares".to_owned();
    if stretches.len() > 1 {
        test.push_str(", by stretch of weights");
    }
    Ok(Estimated {
        comparison,
        effect,
        raw: Some(whole.comparison.effect()),
        covariate: None,
        moved: None,
        left_out: if stretches.len() > 1 {
            stretches.len() - parts.len()
        } else {
            0
        },
        test,
        share: Some(share),
    })
}

fn strata_of(stretches: &[Stretch]) -> Vec<u16> {
    stretches
        .iter()
        .flat_map(|s| s.strata.iter().copied())
        .collect()
}

fn compare(
    metric: &Metric,
    control: &Moments,
    treatment: &Moments,
    adjust: bool,
) -> Result<(Comparison, Option<f64>), MethodError> {
    match (metric.kind, adjust) {
        (MetricType::Ratio, false) => Ok((
            ratio::compare(&control.pair(0, 1), &treatment.pair(0, 1))?,
            None,
        )),
        (MetricType::Ratio, true) => {
            let adjusted = cuped::compare_ratio(control, treatment)?;
            Ok((adjusted.comparison, Some(adjusted.variance_reduction)))
        }
        (_, true) => {
            let adjusted = cuped::compare(control, treatment)?;
            Ok((adjusted.comparison, Some(adjusted.variance_reduction)))
        }
        (MetricType::Proportion, false) => {
            let share = |moments: &Moments| proportion::Share::from_summary(&moments.summary(0));
            Ok((
                proportion::compare(share(control)?, share(treatment)?)?,
                None,
            ))
        }
        (_, false) => Ok((
            mean::compare(&control.summary(0), &treatment.summary(0))?,
            None,
        )),
    }
}

/// Each stretch compared in itself, weighted by its units: what changed weights cannot confound.
fn weighted(parts: &[(u64, Comparison, Option<f64>)]) -> Result<Comparison, MethodError> {
    let strata: Vec<Comparison> = parts.iter().map(|part| part.1).collect();
    let units: Vec<u64> = parts.iter().map(|part| part.0).collect();
    segments::stratified(&strata, &units)
}

/// A quantile over all values of an arm, its error clustered by unit.
fn quantile_of(
    evidence: &Evidence<'_>,
    at: usize,
    arm: usize,
    q: f64,
) -> Result<ArmEstimate, MethodError> {
    let key = (
        u16::try_from(at).unwrap_or(u16::MAX),
        u16::try_from(arm).unwrap_or(u16::MAX),
    );
    let empty = MethodError::TooFew {
        what: "values of an arm",
        needed: 2,
        got: 0,
    };
    let (Some(histogram), Some(units)) = (
        evidence.statistics.events.get(&key),
        evidence.quantiles.get(&key),
    ) else {
        return Err(empty);
    };
    let ranks = histogram.sorted();
    let inflation = quantile::inflation(units, q, ranks.n())?;
    let found = quantile::of_ranks(q, ranks.n(), inflation, 0.95, RELATIVE_ERROR, |rank| {
        ranks.at_rank(rank)
    })?;
    Ok(quantile::arm(&found, units.n))
}

/// A metric measured every day, in one arm.
fn measured_arm(
    evidence: &Evidence<'_>,
    strata: &[u16],
    at: usize,
    arm: usize,
) -> Option<ArmEstimate> {
    let units = evidence.statistics.measured(at, arm, strata)?;
    longitudinal::Units::components(&[&units])
        .ok()
        .map(|components| units.arm(&components))
}

/// A metric in every arm.
pub(super) fn arms(
    evidence: &Evidence<'_>,
    stretches: &[Stretch],
    at: usize,
    hidden: bool,
) -> Vec<ArmValue> {
    let all = strata_of(stretches);
    let metric = &evidence.plan.metrics[at];
    let drafted = (evidence.plan.kind == Kind::Interleave)
        .then(|| interleaved(evidence, stretches, at, Of::All).ok())
        .flatten();
    let number = |counts: &std::collections::BTreeMap<(u16, u16), u64>, arm: usize| {
        let key = (
            u16::try_from(at).unwrap_or(u16::MAX),
            u16::try_from(arm).unwrap_or(u16::MAX),
        );
        counts.get(&key).copied().unwrap_or(0)
    };
    evidence
        .plan
        .arms
        .iter()
        .enumerate()
        .map(|(arm, declared)| {
            // Both arms of an interleaved list have the same listeners.
            let of = if evidence.plan.kind == Kind::Interleave {
                0
            } else {
                arm
            };
            let moments = evidence.statistics.moments(at, of, &all, Of::All);
            let estimate =
                moments
                    .as_ref()
                    .filter(|m| m.n >= 2)
                    .and_then(|moments| match metric.kind {
                        _ if evidence.plan.kind == Kind::Interleave => {
                            drafted.as_ref().map(|found| match arm {
                                0 => found.comparison.control,
                                _ => found.comparison.treatment,
                            })
                        }
                        _ if matches!(metric.window, Window::Daily { .. }) => {
                            measured_arm(evidence, &all, at, arm)
                        }
                        MetricType::Ratio => ratio::arm(&moments.pair(0, 1)).ok(),
                        MetricType::Quantile(q) => quantile_of(evidence, at, arm, q).ok(),
                        _ => Some(mean::arm(&moments.summary(0))),
                    });
            ArmValue {
                arm: declared.name.clone(),
                units: moments.map_or(0, |m| m.n),
                immature: number(&evidence.statistics.immature, arm),
                missing: number(&evidence.statistics.missing, arm),
                value: estimate.filter(|_| !hidden).map(|e| e.value),
                se: estimate.filter(|_| !hidden).map(|e| e.variance.sqrt()),
            }
        })
        .collect()
}
