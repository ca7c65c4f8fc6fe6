//! The page on a change that could not be randomised.

use std::fmt::Write as _;

use super::help::help;
use super::plots::figure;
use super::svg::{Chart, Curve, Look, Point};
use super::{close, esc, open, sentence};
use crate::methods::did::Recommended;
use crate::methods::effect::Effect;
use crate::panel::Differences;
use crate::verdict::words;

/// The page. `title` is what was changed; `command` is what makes it again.
#[must_use]
pub fn html(found: &Differences, title: &str, command: &str) -> String {
    let mut page = String::with_capacity(32 << 10);
    open(&mut page, title);
    let _ = write!(
        page,
        "<p class=\"kicker\">Difference-in-differences · {} treated and {} untreated units · {} periods, treated from {}</p><h1>{}</h1>\
         <section class=\"verdict wait\"><p class=\"headline\">{}</p></section>",
        words::count(found.treated.len() as u64),
        words::count(found.untreated.len() as u64),
        words::count(found.periods.len() as u64),
        esc(&found.treated_from),
        esc(title),
        esc(&found.headline),
    );
    for warning in &found.warnings {
        let _ = write!(
            page,
            "<p class=\"status warn\" style=\"white-space:normal\">! {}</p>",
            esc(&sentence(warning))
        );
    }
    page.push_str(&figure(
        &lines(found),
        &format!(
            "Mean of the treated and of the untreated units. Up to {} they should move alike: that is what the effect rests on.",
            found.treated_from
        ),
    ));
    page.push_str(&help(&["Parallel trends"]));
    page.push_str("<h2>The effect, by every accepted error</h2><div class=\"scroll\"><table><thead><tr><th>Method</th><th class=\"n\">Effect</th>\
        <th class=\"n\">Error</th><th class=\"n\">p</th><th>Reading</th></tr></thead><tbody>");
    let report = &found.report;
    let mut rows = vec![
        (
            "Permutation of which units were treated",
            None,
            report.permutation.p_two_sided,
            if report.permutation.exact {
                "all splits"
            } else {
                "drawn splits"
            },
        ),
        method("Clustered by unit", &report.clustered, "for many units"),
    ];
    if let Some(changes) = &report.unit_changes {
        rows.push(method(
            "One change a unit, Welch",
            &changes.welch,
            "safe, and weak",
        ));
    }
    rows.push(method(
        "Two-way fixed effects, rows as if independent",
        &report.two_way,
        "too small an error: for comparison with other tools only",
    ));
    let recommended = match report.recommended {
        Recommended::Permutation => 0,
        Recommended::Clustered => 1,
    };
    for (at, (name, effect, p, reading)) in rows.into_iter().enumerate() {
        let _ = write!(
            page,
            "<tr><td>{}{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td>{}</td></tr>",
            esc(name),
            if at == recommended {
                " <b>(decides)</b>"
            } else {
                ""
            },
            words::signed(report.delta, report.clustered.se),
            effect.map_or_else(|| "–".to_owned(), |se: f64| words::rounded(se, se)),
            words::p(p),
            esc(reading)
        );
    }
    page.push_str("</tbody></table></div>");
    page.push_str(&help(&[
        "Method",
        "Permutation",
        "Clustered",
        "Effect",
        "Error",
        "p",
        "Reading",
    ]));
    let _ = write!(
        page,
        "<h2>How this was made</h2><dl class=\"facts\"><dt>Treated</dt><dd>{}</dd><dt>Untreated</dt><dd>{}</dd>\
         <dt>Interval</dt><dd>{} to {} at 95 %, clustered by unit</dd><dt>Version</dt><dd>refrain {}, {}</dd><dt>Again</dt><dd><code>{}</code></dd></dl>",
        esc(&some(&found.treated)),
        esc(&some(&found.untreated)),
        words::signed(found.interval.low, report.clustered.se),
        words::signed(found.interval.high, report.clustered.se),
        env!("CARGO_PKG_VERSION"),
        found.schema,
        esc(command)
    );
    close(&mut page);
    page
}

fn method(
    name: &'static str,
    effect: &Effect,
    reading: &'static str,
) -> (&'static str, Option<f64>, f64, &'static str) {
    (name, Some(effect.se), effect.p_two_sided(), reading)
}

fn some(names: &[String]) -> String {
    const MOST: usize = 12;
    let shown = names.iter().take(MOST).cloned().collect::<Vec<_>>();
    match names.len().checked_sub(MOST) {
        Some(more) if more > 0 => format!("{} and {more} more", shown.join(", ")),
        _ => words::list(&shown),
    }
}

fn lines(found: &Differences) -> String {
    let points = |values: &[f64]| {
        (0_u32..)
            .zip(values)
            .map(|(at, value)| Point::bare(f64::from(at), *value))
            .collect()
    };
    Chart {
        title: "Treated and untreated units by period",
        x_name: "period",
        y_name: "mean of the units",
        curves: vec![
            Curve {
                name: "treated".to_owned(),
                look: Look::Line,
                points: points(&found.treated_means),
            },
            Curve {
                name: "untreated".to_owned(),
                look: Look::Second,
                points: points(&found.untreated_means),
            },
        ],
        ticks: (0_u32..)
            .zip(&found.periods)
            .map(|(at, period)| (f64::from(at), period.clone()))
            .collect(),
        zero: false,
        percent: false,
        half: false,
    }
    .draw()
}
