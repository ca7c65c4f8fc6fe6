//! The plots of the report: which numbers go into which picture.

use super::svg::{self, Chart, Curve, Look, Point, Row};
use super::{esc, signed_percent};
use crate::verdict::Analysis;
use crate::verdict::document::{MetricComparison, MetricResult, SegmentResult};
use crate::verdict::words;

/// All metrics on one scale: relative to the control.
pub(super) fn forest(analysis: &Analysis) -> String {
    let several = analysis.plan.arms.len() > 2;
    let mut rows = Vec::new();
    for metric in &analysis.metrics {
        let Some(control) = metric
            .arms
            .first()
            .and_then(|arm| arm.value)
            .filter(|v| *v != 0.0)
        else {
            continue;
        };
        for comparison in &metric.comparisons {
            let share = |value: f64| value / control.abs();
            let sign = if metric.direction == "down" {
                1.0
            } else {
                -1.0
            };
            rows.push(Row {
                label: if several {
                    format!("{} · {}", metric.name, comparison.arm)
                } else {
                    metric.name.clone()
                },
                value: share(comparison.delta),
                low: share(comparison.interval.low),
                high: share(comparison.interval.high),
                margin: comparison
                    .margin
                    .filter(|_| metric.role == "guardrail")
                    .map(|m| sign * share(m)),
                note: format!(
                    "{}  {}",
                    signed_percent(share(comparison.delta)),
                    comparison.words
                ),
                filled: matches!(comparison.outcome, "improvement" | "within_margin" | "harm"),
            });
        }
    }
    let picture = svg::forest("Effect of each metric relative to the control", &rows, true);
    figure(
        &picture,
        "Effect relative to the control, with the interval of each metric's own test. Filled: decided at this look. \
        Dashed: the margin of a guardrail. For metrics in which less is better, left is good.",
    )
}

/// The cumulative effect in its always-valid band.
pub(super) fn by_day(metric: &MetricResult, comparison: &MetricComparison) -> String {
    let points: Vec<Point> = (0_u32..)
        .zip(&comparison.by_day)
        .map(|(at, day)| Point {
            x: f64::from(at),
            y: day.delta,
            band: Some((day.interval.low, day.interval.high)),
            across: None,
        })
        .collect();
    // The first days' bands dwarf the rest.
    let last = comparison
        .by_day
        .last()
        .map_or(1.0, |day| day.interval.high - day.interval.low);
    let points: Vec<Point> = points
        .into_iter()
        .filter(|p| p.band.is_none_or(|(low, high)| high - low < 12.0 * last))
        .collect();
    let ticks = (0_u32..)
        .zip(&comparison.by_day)
        .filter(|(at, _)| points.iter().any(|p| (p.x - f64::from(*at)).abs() < 0.5))
        .map(|(at, day)| {
            (
                f64::from(at),
                day.day.get(5..).unwrap_or(&day.day).to_owned(),
            )
        })
        .collect();
    let title = format!("Cumulative effect of {} on {}", comparison.arm, metric.name);
    let picture = Chart {
        title: &title,
        x_name: "day on which units became complete (UTC)",
        y_name: "effect so far",
        curves: vec![Curve {
            name: String::new(),
            look: Look::Line,
            points,
        }],
        ticks,
        zero: true,
        percent: false,
        half: false,
    }
    .draw();
    figure(
        &picture,
        &format!("{title}. The band is a 95 % confidence sequence: it may be read on every day."),
    )
}

/// z and bound at each look.
pub(super) fn boundary(analysis: &Analysis) -> String {
    let mut html = String::new();
    for metric in analysis.metrics.iter().filter(|m| m.role == "success") {
        for comparison in &metric.comparisons {
            let key = format!("{} / {}", metric.name, comparison.arm);
            let looks: Vec<_> = analysis
                .looks
                .iter()
                .filter_map(|look| look.metrics.get(&key))
                .filter(|look| look.t > 0.0)
                .collect();
            if looks.len() < 2 {
                continue;
            }
            let of = |pick: &dyn Fn(&crate::verdict::LookMetric) -> Option<f64>| {
                looks
                    .iter()
                    .filter_map(|look| {
                        pick(look).map(|y| Point {
                            x: (look.t * 100.0).min(100.0),
                            y,
                            band: None,
                            across: None,
                        })
                    })
                    .collect::<Vec<_>>()
            };
            let title = format!("Looks at {}", metric.name);
            let picture = Chart {
                title: &title,
                x_name: "information, %",
                y_name: "standard errors (z)",
                curves: vec![
                    Curve {
                        name: "asked for".to_owned(),
                        look: Look::Bound,
                        points: of(&|look| look.bound),
                    },
                    Curve {
                        name: "found".to_owned(),
                        look: Look::Dots,
                        points: of(&|look| look.z),
                    },
                ],
                ticks: Vec::new(),
                zero: true,
                percent: false,
                half: true,
            }
            .draw();
            html.push_str(&figure(
                &picture,
                &format!("{title}: what each asked for, and what it found."),
            ));
        }
    }
    html
}

/// The effect on each day of a unit's life.
pub(super) fn by_age(metric: &MetricResult, comparison: &MetricComparison) -> String {
    let Some(novelty) = &comparison.by_age else {
        return String::new();
    };
    let points: Vec<Point> = novelty
        .days
        .iter()
        .map(|day| Point {
            x: f64::from(day.day),
            y: day.delta,
            band: Some((day.delta - 1.96 * day.se, day.delta + 1.96 * day.se)),
            across: None,
        })
        .collect();
    let title = format!("{} by days since first exposure", metric.name);
    let picture = Chart {
        title: &title,
        x_name: "days since first exposure",
        y_name: "effect on that day",
        curves: vec![Curve {
            name: String::new(),
            look: Look::Dots,
            points,
        }],
        ticks: Vec::new(),
        zero: true,
        percent: false,
        half: true,
    }
    .draw();
    let slope = match (novelty.slope, novelty.slope_se) {
        (Some(slope), Some(se)) if slope.abs() > 2.0 * se => format!(
            " It changes by {} for each unit of ln(1 + day): {}.",
            words::signed(slope, se),
            if slope * comparison.delta < 0.0 {
                "the effect wears off"
            } else {
                "the effect grows"
            }
        ),
        (Some(_), Some(_)) => " No evidence that it changes with age.".to_owned(),
        _ => String::new(),
    };
    figure(
        &picture,
        &format!("Effect on {title}, 95 % intervals.{slope}"),
    )
}

/// A segment column. What was only explored is drawn in towards the average.
pub(super) fn segment(
    metric: &MetricResult,
    comparison: &MetricComparison,
    segment: &SegmentResult,
) -> String {
    let mut rows: Vec<Row> = segment
        .values
        .iter()
        .take(24)
        .map(|value| {
            let shrunk = value.shrunk.filter(|_| !segment.confirmatory);
            let (delta, interval) =
                shrunk.map_or((value.delta, value.interval), |s| (s.delta, s.interval));
            let p = value.corrected(segment.confirmatory);
            Row {
                label: value.value.clone(),
                value: delta,
                low: interval.low,
                high: interval.high,
                margin: None,
                note: format!(
                    "{}  {} units  p {}",
                    words::signed(delta, value.se),
                    words::count(value.units.iter().sum()),
                    words::p(p)
                ),
                filled: p < 0.05,
            }
        })
        .collect();
    rows.insert(
        0,
        Row {
            label: "all".to_owned(),
            value: comparison.delta,
            low: comparison.delta - 1.96 * comparison.se,
            high: comparison.delta + 1.96 * comparison.se,
            margin: None,
            note: words::signed(comparison.delta, comparison.se),
            filled: true,
        },
    );
    let title = format!("{} by {}", metric.name, segment.segment);
    let picture = svg::forest(&title, &rows, false);
    let kind = if segment.confirmatory {
        "declared: p by Holm"
    } else {
        "explored: drawn towards the average, p as a false discovery rate"
    };
    let test = match (
        segment.heterogeneity_p,
        segment.i_squared,
        segment.tau_squared,
    ) {
        (Some(p), Some(i), Some(tau)) => format!(
            " {} that the effect differs between them (p = {}, {} of the variation is not chance, deviation of effects {}).",
            if p < 0.05 { "Evidence" } else { "No evidence" },
            words::p(p),
            words::percent(i),
            words::rounded(tau.sqrt(), comparison.se)
        ),
        _ => String::new(),
    };
    let simpson = if segment.simpson {
        " Over everybody the effect points the other way than in every value: Simpson's paradox."
    } else {
        ""
    };
    figure(
        &picture,
        &format!(
            "{title}, {} against control ({kind}).{test}{simpson}",
            comparison.arm
        ),
    )
}

/// Units by day and arm.
pub(super) fn intake(analysis: &Analysis) -> String {
    let days = &analysis.observed.units_by_day;
    if days.len() < 2
        || analysis.plan.arms.len() > 2
        || analysis.plan.kind == crate::plan::Kind::Interleave
    {
        return String::new();
    }
    let ticks = (0_u32..)
        .zip(days)
        .map(|(at, day)| {
            (
                f64::from(at),
                day.day.get(5..).unwrap_or(&day.day).to_owned(),
            )
        })
        .collect();
    let curves = analysis
        .plan
        .arms
        .iter()
        .enumerate()
        .map(|(arm, declared)| Curve {
            name: declared.name.clone(),
            look: if arm == 0 { Look::Second } else { Look::Line },
            points: (0_u32..)
                .zip(days)
                .map(|(at, day)| {
                    #[expect(
                        clippy::cast_precision_loss,
                        reason = "counts of units are far below 2^53"
                    )]
                    let units = day.units.get(arm).copied().unwrap_or(0) as f64;
                    Point {
                        x: f64::from(at),
                        y: units,
                        band: None,
                        across: None,
                    }
                })
                .collect(),
        })
        .collect();
    let picture = Chart {
        title: "New units by day",
        x_name: "day of first exposure (UTC)",
        y_name: "new units",
        curves,
        ticks,
        zero: true,
        percent: false,
        half: false,
    }
    .draw();
    figure(
        &picture,
        "New units by day and arm. The arms should keep their ratio on every day.",
    )
}

pub(super) fn figure(picture: &str, caption: &str) -> String {
    if picture.is_empty() {
        return String::new();
    }
    format!(
        "<figure>{picture}<figcaption>{}</figcaption></figure>",
        esc(caption)
    )
}
