//! The effect by day, by age and by segment, and which arm for which segment.

use super::Evidence;
use super::document::{
    AgeEffect, DayEffect, InterleavingResult, Novelty, PeriodEffect, PolicyChoice, PolicyResult,
    SegmentResult, SegmentValue, SessionsResult, ShrunkEffect, UptakeResult,
};
use super::estimate::{Stretch, estimate};
use super::words;
use crate::methods::always_valid::ConfidenceSequence;
use crate::methods::effect::{Effect, Interval};
use crate::methods::interleaving::by_session;
use crate::methods::moments::{Summary, Tally};
use crate::methods::{iv, mean, multiplicity, novelty, policy, segments};
use crate::plan::{Kind, MetricType};
use crate::units::fold::AGES;
use crate::units::statistics::{Attribute, Of};

/// Level of the band around the cumulative effect.
const BAND_ALPHA: f64 = 0.05;
/// Of what stands beside the decision, and is not corrected for looks.
const CONFIDENCE: f64 = 0.95;
/// Segments smaller than this are not shown: their interval says nothing.
const FEWEST_UNITS: u64 = 20;

/// The cumulative effect at the end of each day on which units became complete, without covariate and
/// strata, in a band that holds at all days together.
pub(super) fn by_day(
    evidence: &Evidence<'_>,
    stretches: &[Stretch],
    at: usize,
    arm: usize,
) -> Vec<DayEffect> {
    let metric = &evidence.plan.metrics[at];
    let days = evidence.statistics.completion_days(at);
    if days.len() < 2 || stretches.len() > 1 || days.len() > 1000 {
        return Vec::new();
    }
    let strata: Vec<u16> = stretches
        .iter()
        .flat_map(|s| s.strata.iter().copied())
        .collect();
    let tuned = evidence.plan.design.max_units.unwrap_or(10_000);
    let Ok(band) = ConfidenceSequence::two_sided(BAND_ALPHA, tuned) else {
        return Vec::new();
    };
    let mut sums = [None, None];
    let mut effects = Vec::with_capacity(days.len());
    for day in days {
        for (sum, arm) in sums.iter_mut().zip([0, arm]) {
            let Some(tally) = evidence
                .statistics
                .tally(at, arm, &strata, Of::Completed(day))
            else {
                continue;
            };
            match sum {
                None => *sum = Some(tally),
                Some(sum) => {
                    if sum.merge(&tally).is_err() {
                        return Vec::new();
                    }
                }
            }
        }
        let [Some(control), Some(treatment)] = &sums else {
            continue;
        };
        let (control, treatment) = (control.moments(), treatment.moments());
        let units = control.n + treatment.n;
        let comparison = match metric.kind {
            MetricType::Ratio => {
                crate::methods::ratio::compare(&control.pair(0, 1), &treatment.pair(0, 1))
            }
            _ => mean::compare(&control.summary(0), &treatment.summary(0)),
        };
        if let Ok(comparison) = comparison
            && control.n.min(treatment.n) >= FEWEST_UNITS
        {
            let effect = comparison.normal();
            effects.push(DayEffect {
                day: words::date(i64::from(day)),
                units,
                delta: effect.delta,
                interval: band.interval(&effect, units),
            });
        }
    }
    effects
}

/// Day 1, week 1 and week 2, and the effect on each day since first exposure. Stretches of weights are
/// compared in themselves: units that are old came early, and pooled a ramp would look like an effect of age.
pub(super) fn by_age(
    evidence: &Evidence<'_>,
    stretches: &[Stretch],
    at: usize,
    arm: usize,
) -> Option<Novelty> {
    let effect = |of| {
        let (mut comparisons, mut units) = (Vec::new(), Vec::new());
        for stretch in stretches {
            let moments = |arm| {
                let moments = evidence.statistics.moments(at, arm, &stretch.strata, of)?;
                Some(moments.summary(0))
            };
            if let (Some(control), Some(treatment)) = (moments(0), moments(arm))
                && let Ok(comparison) = mean::compare(&control, &treatment)
            {
                units.push(control.n + treatment.n);
                comparisons.push(comparison);
            }
        }
        let comparison = segments::stratified(&comparisons, &units).ok()?;
        Some((units.iter().sum::<u64>(), comparison.normal()))
    };
    let periods: Vec<PeriodEffect> = ["day 1", "week 1", "week 2"]
        .into_iter()
        .zip(0..)
        .filter_map(|(period, index)| {
            let (units, effect) = effect(Of::Period(index))?;
            Some(PeriodEffect {
                period,
                units,
                delta: effect.delta,
                se: effect.se,
            })
        })
        .collect();
    if periods.len() < 2 {
        return None;
    }
    let (days, effects): (Vec<u16>, Vec<Effect>) = (0..u16::try_from(AGES).unwrap_or(0))
        .filter_map(|day| Some((day, effect(Of::Age(day))?.1)))
        .unzip();
    let trend = (days.len() == AGES)
        .then(|| {
            let days: Vec<u32> = days.iter().copied().map(u32::from).collect();
            novelty::trend(&days, &effects).ok()
        })
        .flatten();
    let paired = effect(Of::WeekTwoMinusOne).map(|(_, effect)| effect);
    Some(Novelty {
        periods,
        days: days
            .into_iter()
            .zip(&effects)
            .map(|(day, effect)| AgeEffect {
                day,
                delta: effect.delta,
                se: effect.se,
            })
            .collect(),
        intercept: trend.map(|t| t.intercept.delta),
        slope: trend.map(|t| t.slope.delta),
        slope_se: trend.map(|t| t.slope.se),
        week_two_minus_one: paired.map(|e| e.delta),
        week_two_minus_one_se: paired.map(|e| e.se),
    })
}

/// The effect on those who took up what their arm offers, beside the effect of the offer.
pub(super) fn uptake(
    evidence: &Evidence<'_>,
    stretches: &[Stretch],
    at: usize,
    arm: usize,
) -> Option<UptakeResult> {
    // Stretches of other weights have other shares of takers: pooled they would confound.
    if stretches.len() != 1 {
        return None;
    }
    let of = Of::Uptake(u16::try_from(arm).ok()?);
    let strata = &stretches[0].strata;
    let pair = |arm| {
        let moments = evidence.statistics.moments(at, arm, strata, of)?;
        Some(moments.pair(0, 1))
    };
    let (control, treatment) = (pair(0)?, pair(arm)?);
    let found = iv::encouragement(&control, &treatment, 0.95).ok()?;
    Some(UptakeResult {
        of: evidence.plan.uptake.as_ref().map_or_else(
            || "served the assigned arm".to_owned(),
            |event| format!("event `{event}`"),
        ),
        control: control.denominator.mean,
        treatment: treatment.denominator.mean,
        intention_to_treat: found.intention_to_treat.delta,
        late: found.late.delta,
        late_se: found.late.se,
        first_stage_f: found.f,
        weak: found.weak,
        anderson_rubin: found.anderson_rubin,
    })
}

/// Sessions of an interleaved experiment, by metric.
pub(super) fn interleaving(evidence: &Evidence<'_>, hidden: bool) -> Option<InterleavingResult> {
    let plan = evidence.plan;
    if plan.kind != Kind::Interleave {
        return None;
    }
    let names = [plan.arms[0].name.clone(), plan.arms[1].name.clone()];
    let metrics = plan.metrics.iter().zip(0..).map(|(metric, at)| {
        let sessions = evidence
            .statistics
            .sessions
            .get(&at)
            .copied()
            .unwrap_or_default();
        let preference = by_session(&sessions).ok();
        SessionsResult {
            metric: metric.name.clone(),
            sessions: sessions.a + sessions.b + sessions.ties,
            won: (!hidden).then_some([sessions.a, sessions.b]),
            ties: (!hidden).then_some(sessions.ties),
            // The method counts in favour of the first.
            delta: preference.filter(|_| !hidden).map(|p| -p.delta),
            sign_test_p: preference.filter(|_| !hidden).map(|p| p.p_sign),
        }
    });
    Some(InterleavingResult {
        arms: names,
        first_picks: evidence.statistics.first_picks,
        metrics: metrics.collect(),
    })
}

/// Effects in the segments of the plan. `overall`: the effect over everybody.
pub(super) fn segments(
    evidence: &Evidence<'_>,
    stretches: &[Stretch],
    at: usize,
    arm: usize,
    overall: f64,
) -> Vec<SegmentResult> {
    // Values of quantiles are not kept apart by segment.
    if matches!(evidence.plan.metrics[at].kind, MetricType::Quantile(_)) {
        return Vec::new();
    }
    let mut results: Vec<SegmentResult> = Vec::new();
    for (index, segment) in (0_u16..).zip(&evidence.plan.segments) {
        let mut found: Vec<(String, [u64; 2], Effect)> = evidence
            .statistics
            .values_of(Attribute::Segment(index))
            .into_iter()
            .filter_map(|value| {
                let estimated =
                    estimate(evidence, stretches, at, arm, Of::Segment(index, value)).ok()?;
                let units = [
                    estimated.comparison.control.n,
                    estimated.comparison.treatment.n,
                ];
                (units[0].min(units[1]) >= FEWEST_UNITS)
                    .then(|| (value_name(evidence, index, value), units, estimated.effect))
            })
            .collect();
        found.sort_by(|a, b| a.0.cmp(&b.0));
        if found.is_empty() {
            continue;
        }
        let effects: Vec<Effect> = found.iter().map(|(_, _, effect)| *effect).collect();
        let test = segments::heterogeneity(&effects).ok();
        let values = found
            .into_iter()
            .enumerate()
            .filter_map(|(at, (value, units, effect))| {
                let shrunk = test.as_ref().and_then(|test| test.shrunk.get(at));
                Some(SegmentValue {
                    value,
                    units,
                    delta: effect.delta,
                    se: effect.se,
                    interval: effect.interval(CONFIDENCE).ok()?,
                    p: effect.p_two_sided(),
                    // Corrected below, when all columns are there.
                    p_holm: 1.0,
                    p_hommel: 1.0,
                    p_bh: 1.0,
                    shrunk: shrunk.and_then(|shrunk| {
                        Some(ShrunkEffect {
                            delta: shrunk.delta,
                            se: shrunk.se,
                            interval: shrunk.interval(CONFIDENCE).ok()?,
                        })
                    }),
                })
            })
            .collect();
        results.push(SegmentResult {
            segment: segment.clone(),
            confirmatory: usize::from(index) < evidence.plan.confirmatory,
            q: test.as_ref().map(|t| t.q),
            heterogeneity_p: test.as_ref().map(|t| t.p),
            i_squared: test.as_ref().map(|t| t.i_squared),
            tau_squared: test.as_ref().map(|t| t.tau_squared),
            pooled: test.as_ref().map(|t| t.pooled.delta),
            pooled_se: test.as_ref().map(|t| t.pooled.se),
            simpson: effects.len() > 1 && segments::is_simpson(overall, &effects),
            values,
        });
    }
    for confirmatory in [true, false] {
        correct(&mut results, confirmatory);
    }
    results
}

/// Corrects the p-values of all columns of one kind for their number.
fn correct(results: &mut [SegmentResult], confirmatory: bool) {
    let mut values: Vec<&mut SegmentValue> = results
        .iter_mut()
        .filter(|result| result.confirmatory == confirmatory)
        .flat_map(|result| &mut result.values)
        .collect();
    let p: Vec<f64> = values.iter().map(|value| value.p).collect();
    let (holm, hommel, bh) = (
        multiplicity::holm(&p),
        multiplicity::hommel(&p),
        multiplicity::benjamini_hochberg(&p),
    );
    for (at, value) in values.iter_mut().enumerate() {
        value.p_holm = holm[at];
        value.p_hommel = hommel[at];
        value.p_bh = bh[at];
    }
}

fn value_name(evidence: &Evidence<'_>, segment: u16, value: u32) -> String {
    let names = evidence.words.segments.get(usize::from(segment));
    match names.and_then(|names| names.get(value as usize)) {
        Some(name) if !name.is_empty() => name.clone(),
        _ => "(none)".to_owned(),
    }
}

/// Whom to give which arm: chosen on one half of the units, valued on the other.
pub(super) fn policies(
    evidence: &Evidence<'_>,
    stretches: &[Stretch],
    at: usize,
) -> Vec<PolicyResult> {
    // Stretches of other weights are other times: pooled they would confound.
    let [stretch] = stretches else {
        return Vec::new();
    };
    (0_u16..)
        .zip(&evidence.plan.segments)
        .filter_map(|(index, segment)| policy(evidence, stretch, at, index, segment))
        .collect()
}

fn policy(
    evidence: &Evidence<'_>,
    stretch: &Stretch,
    at: usize,
    index: u16,
    column: &str,
) -> Option<PolicyResult> {
    let arms = &evidence.plan.arms;
    let sign = evidence.plan.metrics[at].direction.sign();
    let statistics = evidence.statistics;
    let part = |name: String, tallies: &[Vec<Tally>; 2]| {
        let [learn, evaluate] = tallies.each_ref().map(|half| {
            half.iter()
                .map(|tally| {
                    let summary = tally.moments().summary(0);
                    Summary {
                        mean: sign * summary.mean,
                        ..summary
                    }
                })
                .collect()
        });
        policy::Segment {
            name,
            learn,
            evaluate,
        }
    };
    let mut parts = Vec::new();
    let none = || vec![Tally::new(1); arms.len()];
    let (mut rest, mut together) = ([none(), none()], Vec::new());
    for value in statistics.values_of(Attribute::Segment(index)) {
        let half = |learns| {
            (0..arms.len())
                .map(|arm| {
                    statistics
                        .tally(at, arm, &stretch.strata, Of::Half(index, value, learns))
                        .unwrap_or_else(|| Tally::new(1))
                })
                .collect::<Vec<Tally>>()
        };
        let tallies = [half(true), half(false)];
        let name = value_name(evidence, index, value);
        if tallies.iter().flatten().all(|t| t.n() >= FEWEST_UNITS) {
            parts.push(part(name, &tallies));
        } else {
            // Too few to choose for: all such values get one arm.
            for (sums, tallies) in rest.iter_mut().zip(&tallies) {
                for (sum, tally) in sums.iter_mut().zip(tallies) {
                    sum.merge(tally).ok()?;
                }
            }
            together.push(name);
        }
    }
    parts.sort_by(|a, b| a.name.cmp(&b.name));
    if rest.iter().flatten().all(|tally| tally.n() >= 2) {
        together.sort();
        parts.push(part(together.join(", "), &rest));
    }
    if parts.len() < 2 {
        return None;
    }
    let found = policy::by_segment(&parts, FEWEST_UNITS, CONFIDENCE).ok()?;
    let units = [
        parts.iter().flat_map(|part| &part.learn).map(|a| a.n).sum(),
        parts
            .iter()
            .flat_map(|part| &part.evaluate)
            .map(|a| a.n)
            .sum(),
    ];
    let ends = |interval: Interval| Interval {
        low: (sign * interval.low).min(sign * interval.high),
        high: (sign * interval.low).max(sign * interval.high),
    };
    let gain = if found.gain.se > 0.0 {
        found.gain.interval(CONFIDENCE).ok()?
    } else {
        Interval {
            low: 0.0,
            high: 0.0,
        }
    };
    Some(PolicyResult {
        segment: column.to_owned(),
        choices: found
            .choices
            .into_iter()
            .map(|choice| PolicyChoice {
                value: choice.name,
                arm: arms[choice.arm].name.clone(),
                fell_back: choice.fell_back,
            })
            .collect(),
        best_single_arm: arms[found.best_single_arm].name.clone(),
        units,
        value: sign * found.value.delta,
        se: found.value.se,
        interval: ends(found.interval),
        single: sign * found.single_value.delta,
        gain: sign * found.gain.delta,
        gain_se: found.gain.se,
        gain_interval: ends(gain),
        words: if found.gain.se == 0.0 {
            "the same arm for everybody"
        } else if gain.low > 0.0 {
            "evidence that choosing by segment is better"
        } else {
            "no evidence that choosing by segment is better"
        },
    })
}
