//! The page on how large an experiment must be.

use std::fmt::Write as _;

use super::help::help;
use super::plots::figure;
use super::svg::{Chart, Curve, Look, Point};
use super::{close, esc, open, rounded, sentence};
use crate::sizing::{MetricSize, Point as At, Size};
use crate::verdict::words;

/// The page. `command` is what makes it again.
#[must_use]
pub fn html(size: &Size, command: &str) -> String {
    let mut page = String::with_capacity(32 << 10);
    open(&mut page, &format!("{} · size", size.experiment));
    let title = if size.question.is_empty() {
        &size.experiment
    } else {
        &size.question
    };
    let _ = write!(
        page,
        "<p class=\"kicker\">Size of experiment {}</p><h1>{}</h1>",
        esc(&size.experiment),
        esc(title)
    );
    answer(&mut page, size);
    table(&mut page, size);
    page.push_str("<h2>Curves</h2>");
    for metric in &size.metrics {
        curves(&mut page, size, metric);
    }
    page.push_str(&help(&[
        "Effect it can see",
        "Effect that matters",
        "Power",
    ]));
    let _ = write!(
        page,
        "<h2>How this was made</h2><dl class=\"facts\"><dt>Version</dt><dd>refrain {}, {}</dd><dt>Plan</dt><dd><code>{}</code></dd>\
         <dt>Again</dt><dd><code>{}</code></dd></dl>",
        env!("CARGO_PKG_VERSION"),
        size.schema,
        esc(&size.digest),
        esc(command)
    );
    close(&mut page);
    page
}

fn answer(page: &mut String, size: &Size) {
    let arms: Vec<String> = size
        .arms
        .iter()
        .map(|arm| format!("{} in `{}`", words::count(arm.units), arm.arm))
        .collect();
    let _ = write!(
        page,
        "<section class=\"verdict wait\"><span class=\"word\">{} units</span><p class=\"headline\">{}.</p><ul><li>{}</li>",
        words::count(size.units),
        esc(&words::list(&arms)),
        esc(&sentence(&format!(
            "`{}` needs the most of {} metric{} that decide{}",
            size.hungriest,
            size.metrics.len(),
            if size.metrics.len() == 1 { "" } else { "s" },
            if size.metrics.len() == 1 { "s" } else { "" },
        )))
    );
    if let Some(duration) = size.duration {
        let _ = write!(
            page,
            "<li>{:.1} days until all have come, at {} units a day of which the experiment gets {}; {:.1} days until the last window is over.</li>",
            duration.intake_days,
            rounded(
                duration.traffic.units_per_day,
                duration.traffic.units_per_day
            ),
            words::percent(duration.traffic.allocation),
            duration.days
        );
    }
    let _ = write!(
        page,
        "<li>{}, sized for {} look{}; risk of a false ship {}, of missing what matters {}.</li></ul>\
         <h3>What this rests on</h3><ul><li>The baselines are those of the listeners that will come, and their variance does not change with the treatment.</li>\
         <li>Each test is planned for {} power, so that all that must succeed together do so with {}.</li></ul></section>",
        esc(&sentence(&size.design.method.to_string())).trim_end_matches('.'),
        size.looks,
        if size.looks == 1 { "" } else { "s" },
        words::percent(size.design.alpha),
        words::percent(1.0 - size.design.power),
        words::percent(size.levels.power),
        words::percent(size.design.power),
    );
}

fn table(page: &mut String, size: &Size) {
    page.push_str(
        "<h2>Metrics</h2><div class=\"scroll\"><table><thead><tr><th>Metric</th><th>Test</th><th class=\"n\">Baseline</th><th class=\"n\">Deviation</th>\
         <th class=\"n\">To detect</th><th class=\"n\">Level</th><th class=\"n\">Looks cost</th><th class=\"n\">Needs</th><th class=\"n\">Sees</th><th class=\"n\">Power</th></tr></thead><tbody>",
    );
    for m in &size.metrics {
        let _ = write!(
            page,
            "<tr><td><b>{}</b>{}</td><td>{}<small>{}</small></td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}<small>{}</small></td>\
             <td class=\"n\">{}</td><td class=\"n\">× {:.2}</td><td class=\"n\">{}</td><td class=\"n\">{}<small>{}</small></td><td class=\"n\">{}</td></tr>",
            esc(&m.name),
            if m.baseline.variance_reduction > 0.0 {
                format!(
                    "<small>covariate removes {} of the variance</small>",
                    words::percent(m.baseline.variance_reduction)
                )
            } else {
                String::new()
            },
            m.test,
            m.role,
            rounded(m.baseline.value, m.effect),
            rounded(m.baseline.sd, m.baseline.sd),
            rounded(m.effect, m.effect),
            relative(m, m.effect),
            words::percent(m.alpha),
            m.inflation,
            words::count(m.units),
            rounded(m.detectable, m.effect),
            relative(m, m.detectable),
            words::percent(m.achieved_power),
        );
    }
    for left in &size.left_out {
        let _ = write!(
            page,
            "<tr><td><b>{}</b></td><td colspan=\"9\">not sized: {}</td></tr>",
            esc(&left.metric),
            esc(&left.why)
        );
    }
    page.push_str("</tbody></table></div>");
    page.push_str(&help(&[
        "Metric",
        "Test",
        "Baseline",
        "Deviation",
        "To detect",
        "Level",
        "Looks cost",
        "Needs",
        "Sees",
    ]));
}

fn relative(m: &MetricSize, value: f64) -> String {
    if m.baseline.value == 0.0 {
        return String::new();
    }
    words::percent(value / m.baseline.value.abs())
}

fn curves(page: &mut String, size: &Size, metric: &MetricSize) {
    let _ = write!(page, "<h3>{}</h3><div class=\"pair\">", esc(&metric.name));
    let thousands = size.units >= 20_000;
    let scale = if thousands { 1e-3 } else { 1.0 };
    let units = if thousands {
        "units of all arms, thousands"
    } else {
        "units of all arms"
    };
    page.push_str(&seen(
        metric,
        &metric.curve,
        scale,
        units,
        "number of units",
    ));
    page.push_str(&power(metric, &metric.curve, scale, units));
    if size.duration.is_some() {
        page.push_str(&seen(
            metric,
            &metric.by_week,
            1.0,
            "weeks of intake",
            "weeks of intake",
        ));
        page.push_str(&seen(
            metric,
            &metric.by_allocation,
            100.0,
            "share of the traffic, %",
            "share of the traffic, in the same time",
        ));
    }
    page.push_str("</div>");
}

/// What can be seen, against what matters.
fn seen(metric: &MetricSize, curve: &[At], scale: f64, x_name: &str, over: &str) -> String {
    let relative = metric.baseline.value != 0.0;
    let share = if relative {
        1.0 / metric.baseline.value.abs()
    } else {
        1.0
    };
    let (what, matters) = match metric.role {
        "success" => ("smallest effect seen", "effect that matters"),
        _ => ("smallest margin proved", "margin"),
    };
    // What a handful of units would see dwarfs the rest.
    let shown: Vec<&At> = curve
        .iter()
        .filter(|p| p.detectable < 4.0 * metric.effect)
        .collect();
    let line = |y: &dyn Fn(&At) -> f64| {
        shown
            .iter()
            .map(|p| Point::bare(p.at * scale, y(p)))
            .collect()
    };
    let title = format!("{}: {what} by {over}", metric.name);
    let picture = Chart {
        title: &title,
        x_name,
        y_name: if relative {
            "relative to the baseline"
        } else {
            "in the metric's unit"
        },
        curves: vec![
            Curve {
                name: what.to_owned(),
                look: Look::Line,
                points: line(&|p| p.detectable * share),
            },
            Curve {
                name: matters.to_owned(),
                look: Look::Bound,
                points: line(&|_| metric.effect * share),
            },
        ],
        ticks: Vec::new(),
        zero: true,
        percent: relative,
        half: true,
    }
    .draw();
    figure(
        &picture,
        &format!("{title}, with {} power.", words::percent(metric.power)),
    )
}

fn power(metric: &MetricSize, curve: &[At], scale: f64, x_name: &str) -> String {
    let title = format!("{}: power by number of units", metric.name);
    let picture = Chart {
        title: &title,
        x_name,
        y_name: "power",
        curves: vec![
            Curve {
                name: "power".to_owned(),
                look: Look::Line,
                points: curve
                    .iter()
                    .map(|p| Point::bare(p.at * scale, p.power))
                    .collect(),
            },
            Curve {
                name: "planned".to_owned(),
                look: Look::Bound,
                points: curve
                    .iter()
                    .map(|p| Point::bare(p.at * scale, metric.power))
                    .collect(),
            },
        ],
        ticks: Vec::new(),
        zero: true,
        percent: true,
        half: true,
    }
    .draw();
    figure(
        &picture,
        &format!(
            "{title}, for {}.",
            if metric.role == "success" {
                "the effect that matters"
            } else {
                "the margin"
            }
        ),
    )
}
