//! The page on how offline metrics foretold experiments.

use std::fmt::Write as _;

use super::help::help;
use super::plots::figure;
use super::svg::{Chart, Curve, Look, Point};
use super::{close, esc, open, sentence};
use crate::past::{Foretelling, Pair};
use crate::verdict::words;

/// The page. `command` is what makes it again.
#[must_use]
pub fn html(found: &Foretelling, command: &str) -> String {
    let mut page = String::with_capacity(32 << 10);
    open(&mut page, "Offline metrics against experiments");
    let _ = write!(
        page,
        "<p class=\"kicker\">{} archived decisions</p><h1>Have offline metrics foretold experiments?</h1>",
        words::count(found.entries)
    );
    page.push_str(
        "<p>Only variants that looked good offline were ever tested. That narrows the offline range and weakens \
         every correlation here: a weak one does not prove an offline metric useless.</p>",
    );
    for pair in &found.pairs {
        section(&mut page, pair, found.relative);
    }
    if found.pairs.is_empty() {
        page.push_str("<p class=\"status warn\">! No archived experiment has both an offline change and an effect.</p>");
    } else {
        page.push_str(&help(&[
            "Experiments",
            "Correlation",
            "Ranks",
            "Weighted",
            "Without noise",
            "Slope",
            "Same sign",
            "Prediction error",
        ]));
    }
    if !found.left_out.is_empty() {
        page.push_str("<h2>Left out</h2><ul>");
        for line in &found.left_out {
            let _ = write!(page, "<li>{}</li>", esc(&sentence(line)));
        }
        page.push_str("</ul>");
    }
    let _ = write!(
        page,
        "<h2>How this was made</h2><dl class=\"facts\"><dt>Version</dt><dd>refrain {}, {}</dd><dt>Again</dt><dd><code>{}</code></dd></dl>",
        env!("CARGO_PKG_VERSION"),
        found.schema,
        esc(command)
    );
    close(&mut page);
    page
}

fn section(page: &mut String, pair: &Pair, relative: bool) {
    let title = format!("{} and {}", pair.offline, pair.online);
    let _ = write!(page, "<h2>{}</h2>", esc(&title));
    for warning in pair.warnings.iter().chain(&pair.why_not) {
        let _ = write!(
            page,
            "<p class=\"status warn\" style=\"white-space:normal\">! {}</p>",
            esc(&sentence(warning))
        );
    }
    page.push_str(&figure(
        &scatter(&title, pair, relative),
        &format!(
            "Each dot is an experiment: change of {} before, effect on {} after, both with 95 % intervals where known.",
            pair.offline, pair.online
        ),
    ));
    let Some(a) = &pair.agreement else {
        return;
    };
    let _ = write!(
        page,
        "<div class=\"scroll\"><table><thead><tr><th class=\"n\">Experiments</th><th class=\"n\">Correlation</th><th class=\"n\">Ranks</th>\
         <th class=\"n\">Weighted</th><th class=\"n\">Without noise</th><th class=\"n\">Slope</th><th class=\"n\">Same sign</th>\
         <th class=\"n\">Prediction error</th></tr></thead><tbody><tr><td class=\"n\">{}</td>\
         <td class=\"n\">{:.2}<small>{:.2} to {:.2}<br>p {}</small></td><td class=\"n\">{:.2}<small>Kendall {:.2}<br>p {}</small></td>\
         <td class=\"n\">{:.2}</td><td class=\"n\">{}</td><td class=\"n\">{:.3}</td><td class=\"n\">{}</td>\
         <td class=\"n\">{}<small>{} by the mean alone</small></td></tr></tbody></table></div>",
        words::count(a.n),
        a.pearson.value,
        a.pearson_interval.low,
        a.pearson_interval.high,
        words::p(a.pearson.p),
        a.spearman.value,
        a.kendall.value,
        words::p(a.spearman.p),
        a.weighted,
        a.noise_corrected
            .map_or_else(|| "unknown".to_owned(), |r| format!("{r:.2}")),
        a.slope,
        words::percent(a.sign_agreement),
        words::rounded(a.leave_one_out_rmse, a.leave_one_out_rmse),
        words::rounded(a.leave_one_out_baseline, a.leave_one_out_rmse),
    );
}

fn scatter(title: &str, pair: &Pair, relative: bool) -> String {
    let dots = pair
        .points
        .iter()
        .map(|p| Point {
            x: p.offline,
            y: p.online,
            band: Some((p.online - 1.96 * p.se, p.online + 1.96 * p.se)),
            across: p
                .offline_se
                .map(|se| (p.offline - 1.96 * se, p.offline + 1.96 * se)),
        })
        .collect();
    let mut curves = Vec::new();
    if let Some(agreement) = &pair.agreement {
        let ends = pair.points.iter().map(|p| p.offline);
        let (low, high) = (
            ends.clone().fold(f64::INFINITY, f64::min),
            ends.fold(f64::NEG_INFINITY, f64::max),
        );
        curves.push(Curve {
            name: "least squares, weighted by precision".to_owned(),
            look: Look::Line,
            points: [low, high]
                .into_iter()
                .map(|x| Point::bare(x, agreement.intercept + agreement.slope * x))
                .collect(),
        });
    }
    curves.push(Curve {
        name: "experiments".to_owned(),
        look: Look::Dots,
        points: dots,
    });
    Chart {
        title,
        x_name: &format!("change of {} offline", pair.offline),
        y_name: &format!("effect on {} online", pair.online),
        curves,
        ticks: Vec::new(),
        zero: true,
        percent: relative,
        half: false,
    }
    .draw()
}
