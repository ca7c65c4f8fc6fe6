//! The effect by day, by age and by segment.

use super::Evidence;
use super::document::{
    AgeEffect, DayEffect, InterleavingResult, Novelty, PeriodEffect, SegmentResult, SegmentValue,
    SessionsResult, UptakeResult,
};
use super::estimate::{Stretch, estimate};
use super::words;
use crate::methods::always_valid::ConfidenceSequence;
use crate::methods::interleaving::by_session;
use crate::methods::{iv, mean};
use crate::plan::{Kind, MetricType};
use crate::units::fold::AGES;
use crate::units::statistics::{Attribute, Of};

/// Level of the band around the cumulative effect.
const BAND_ALPHA: f64 = 0.05;
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

/// Day 1, week 1 and week 2, and the effect on each day since first exposure.
pub(super) fn by_age(evidence: &Evidence<'_>, at: usize, arm: usize) -> Option<Novelty> {
    let strata = evidence.statistics.strata();
    let effect = |of| {
        let moments = |arm| evidence.statistics.moments(at, arm, &strata, of);
        let (control, treatment) = (moments(0)?, moments(arm)?);
        let effect = mean::compare(&control.summary(0), &treatment.summary(0))
            .ok()?
            .normal();
        Some((control.n + treatment.n, effect))
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
    let days: Vec<AgeEffect> = (0..u16::try_from(AGES).unwrap_or(0))
        .filter_map(|day| {
            let (_, effect) = effect(Of::Age(day))?;
            Some(AgeEffect {
                day,
                delta: effect.delta,
                se: effect.se,
            })
        })
        .collect();
    let slope = (days.len() == AGES).then(|| wls(&days)).flatten();
    let paired = effect(Of::WeekTwoMinusOne).map(|(_, effect)| effect);
    Some(Novelty {
        periods,
        days,
        slope: slope.map(|s| s.0),
        slope_se: slope.map(|s| s.1),
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

/// Slope of the effect on ln(1 + day), weighted by known variances, and its standard error.
fn wls(days: &[AgeEffect]) -> Option<(f64, f64)> {
    let mut s = [0.0; 5];
    for day in days {
        let w = 1.0 / (day.se * day.se);
        let x = f64::from(day.day).ln_1p();
        for (sum, term) in s
            .iter_mut()
            .zip([w, w * x, w * x * x, w * day.delta, w * x * day.delta])
        {
            *sum += term;
        }
    }
    let [w, x, xx, y, xy] = s;
    let determinant = w * xx - x * x;
    (determinant > 0.0).then(|| ((w * xy - x * y) / determinant, (w / determinant).sqrt()))
}

/// Effects in the declared segments.
pub(super) fn segments(
    evidence: &Evidence<'_>,
    stretches: &[Stretch],
    at: usize,
    arm: usize,
) -> Vec<SegmentResult> {
    let statistics = evidence.statistics;
    // Values of quantiles are not kept apart by segment.
    if matches!(evidence.plan.metrics[at].kind, MetricType::Quantile(_)) {
        return Vec::new();
    }
    let mut results = Vec::new();
    for (index, segment) in (0_u16..).zip(&evidence.plan.segments) {
        let names = evidence.words.segments.get(usize::from(index));
        let mut values: Vec<SegmentValue> = statistics
            .values_of(Attribute::Segment(index))
            .into_iter()
            .filter_map(|value| {
                let estimated =
                    estimate(evidence, stretches, at, arm, Of::Segment(index, value)).ok()?;
                let units = [
                    estimated.comparison.control.n,
                    estimated.comparison.treatment.n,
                ];
                if units[0].min(units[1]) < FEWEST_UNITS {
                    return None;
                }
                let name = names
                    .and_then(|names| names.get(value as usize))
                    .cloned()
                    .unwrap_or_default();
                Some(SegmentValue {
                    value: if name.is_empty() {
                        "(none)".to_owned()
                    } else {
                        name
                    },
                    units,
                    delta: estimated.effect.delta,
                    se: estimated.effect.se,
                    interval: estimated.effect.interval(0.95).ok()?,
                })
            })
            .collect();
        values.sort_by(|a, b| a.value.cmp(&b.value));
        if values.is_empty() {
            continue;
        }
        let (heterogeneity_p, i_squared) = heterogeneity(&values);
        results.push(SegmentResult {
            segment: segment.clone(),
            heterogeneity_p,
            i_squared,
            values,
        });
    }
    results
}

/// Cochran's Q and I².
#[expect(clippy::cast_precision_loss, reason = "a count of segments")]
fn heterogeneity(values: &[SegmentValue]) -> (Option<f64>, Option<f64>) {
    if values.len() < 2 {
        return (None, None);
    }
    let weight = |v: &SegmentValue| 1.0 / (v.se * v.se);
    let total: f64 = values.iter().map(weight).sum();
    let pooled = values.iter().map(|v| weight(v) * v.delta).sum::<f64>() / total;
    let q: f64 = values
        .iter()
        .map(|v| weight(v) * (v.delta - pooled).powi(2))
        .sum();
    let df = (values.len() - 1) as f64;
    let i_squared = if q > 0.0 {
        ((q - df) / q).max(0.0)
    } else {
        0.0
    };
    (
        Some(crate::methods::special::chi_square_sf(q, df)),
        Some(i_squared),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// E13 of the reference numbers.
    #[test]
    fn novelty_slope() {
        let effects = [
            0.9, 0.72, 0.6, 0.5, 0.45, 0.4, 0.37, 0.33, 0.31, 0.3, 0.29, 0.28, 0.27, 0.27,
        ];
        let days: Vec<AgeEffect> = (0..)
            .zip(effects)
            .map(|(day, delta)| AgeEffect {
                day,
                delta,
                se: 0.05,
            })
            .collect();
        let (slope, se) = wls(&days).expect("varies");
        assert!((slope + 0.245_382).abs() < 5e-7, "{slope}");
        assert!((se - 0.017_914).abs() < 5e-7, "{se}");
    }
}
