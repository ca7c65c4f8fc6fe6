//! The report: one HTML page that needs nothing from elsewhere, and is a view of [`Analysis`].
//!
//! It leads with the verdict and its reasons; then whether the data can be trusted, each metric in its
//! role, time, operation, segments, power, and how it was made. Numbers are rounded by their error,
//! intervals come before p-values, nothing is sorted by significance, and signs and shapes say what
//! colours say. The wording is fixed: "evidence of improvement", "within margin", "no evidence" — never
//! "no effect".

mod context;
mod help;
mod panel;
mod past;
mod plots;
mod size;
mod svg;

use std::fmt::Write as _;

use crate::archive::Entry;
use crate::methods::effect::{ConfidenceSet, Interval};
use crate::methods::moments::count;
use crate::plan::{Design, Kind, Margin, Method, Plan, Role, SpendingRule};
use crate::verdict::Analysis;
use crate::verdict::document::{MetricComparison, MetricResult, RelativeResult, Status};
use crate::verdict::{Input, words};

pub use panel::html as panel_html;
pub use past::html as past_html;
pub use size::html as size_html;

pub use crate::verdict::words::{rounded, signed, signed_percent};
use help::help;

const STYLE: &str = include_str!("style.css");

/// The page. `command` is what makes the analysis again.
#[must_use]
pub fn html(analysis: &Analysis, command: &str) -> String {
    decided_html(analysis, command, &[])
}

/// The page with what an archive says of the owner's decisions.
#[must_use]
pub fn decided_html(analysis: &Analysis, command: &str, archive: &[Entry]) -> String {
    let plan = &analysis.plan;
    let mut page = String::with_capacity(64 << 10);
    let title = if plan.question.is_empty() {
        &plan.experiment
    } else {
        &plan.question
    };
    open(
        &mut page,
        &format!(
            "{} · {}",
            plan.experiment,
            analysis.verdict.recommendation.replace('_', " ")
        ),
    );
    let _ = write!(
        page,
        "<p class=\"kicker\">Experiment {} · epoch {} · data up to {}</p><h1>{}</h1>",
        esc(&plan.experiment),
        plan.epoch,
        esc(&analysis.observed.cutoff),
        esc(title),
    );
    header(&mut page, analysis);
    verdict(&mut page, analysis, archive);
    if analysis.verdict.effects_hidden.is_none() {
        metrics(&mut page, analysis);
        time(&mut page, analysis);
        segments(&mut page, analysis);
        policies(&mut page, analysis);
        context::uptake(&mut page, analysis);
        context::staleness(&mut page, analysis);
    }
    context::interleaving(&mut page, analysis);
    validity(&mut page, analysis);
    operation(&mut page, analysis);
    context::lists(&mut page, analysis);
    power(&mut page, analysis);
    context::off_policy(&mut page, analysis);
    data(&mut page, analysis);
    methods(&mut page, analysis, command);
    close(&mut page);
    page
}

/// The start of a page.
fn open(page: &mut String, title: &str) {
    let _ = write!(
        page,
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>{}</title><style>{STYLE}</style></head><body><main>\n",
        esc(title),
    );
}

fn close(page: &mut String) {
    page.push_str("</main></body></html>\n");
}

fn header(page: &mut String, analysis: &Analysis) {
    let (plan, observed) = (&analysis.plan, &analysis.observed);
    let dates = match (&observed.first_exposure, &observed.last_exposure) {
        (Some(first), Some(last)) => {
            format!("first exposures from {} to {}", esc(first), esc(last))
        }
        _ => String::new(),
    };
    let kind = match plan.kind {
        Kind::Ab => "A/B experiment".to_owned(),
        Kind::Rollout => "monitored rollout: guardrails only, no claim of success".to_owned(),
        Kind::Interleave => "interleaving: both arms draft one list".to_owned(),
        Kind::Holdout => format!(
            "holdout {}: units that no experiment touches against an equally large random slice of the rest. The \
             difference is what everything is worth that was shipped meanwhile",
            plan.holdout.as_deref().unwrap_or_default()
        ),
    };
    let facts = [
        ("Decision at stake", esc(&plan.decision)),
        ("Owner", esc(&plan.owner)),
        ("Kind", esc(&kind)),
        ("Ran", dates),
        (
            "Model versions served",
            esc(&observed.model_versions.join(", ")),
        ),
        ("Configurations in force", code(&observed.config_digests)),
        (
            "Plan",
            format!("frozen as <code>{}</code>", esc(&plan.digest)),
        ),
        (
            "Journal",
            plan.journal.as_ref().map_or_else(String::new, |path| {
                format!("<a href=\"{0}\">{0}</a>", esc(path))
            }),
        ),
        ("Vital signs", vital_signs(analysis)),
    ];
    page.push_str("<dl class=\"facts\">");
    for (name, value) in facts.iter().filter(|(_, value)| !value.is_empty()) {
        let _ = write!(page, "<dt>{}</dt><dd>{value}</dd>", esc(name));
    }
    page.push_str("</dl>");
    arms(page, analysis);
    let lacking: Vec<&str> = [
        ("a question", plan.question.is_empty()),
        ("a decision", plan.decision.is_empty()),
        ("an owner", plan.owner.is_empty()),
    ]
    .into_iter()
    .filter_map(|(what, lacks)| lacks.then_some(what))
    .collect();
    if !lacking.is_empty() {
        let _ = write!(
            page,
            "<p class=\"status warn\">! This plan lacks {}.</p>",
            words::list(&lacking)
        );
    }
}

/// What each arm changes, and what it was served.
fn arms(page: &mut String, analysis: &Analysis) {
    let (plan, observed) = (&analysis.plan, &analysis.observed);
    page.push_str(
        "<div class=\"scroll\"><table><thead><tr><th>Arm</th><th>Changes</th><th>Served as</th><th>Index versions</th>\
         <th class=\"n\">Share</th><th class=\"n\">Units</th></tr></thead><tbody>",
    );
    for (at, arm) in plan.arms.iter().enumerate() {
        let served = observed.arms.get(at);
        let [rankings, indexes] = match served {
            Some(served) => {
                [&served.ranking_variants, &served.index_versions].map(|names| some(names))
            }
            None => [String::new(), String::new()],
        };
        let changes = match plan.kind {
            Kind::Holdout if at == 0 => "nothing: as the holdout's variant is".to_owned(),
            Kind::Holdout => "whatever was shipped".to_owned(),
            _ => arm.changes(),
        };
        // One list, and the same listeners.
        let numbers = if plan.kind == Kind::Interleave {
            [dash(), dash()]
        } else {
            let units = observed.units.get(at).copied().unwrap_or(0);
            [words::percent(arm.share), words::count(units)]
        };
        let _ = write!(
            page,
            "<tr><td><b>{}</b></td><td>{}</td><td>{}</td><td>{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td></tr>",
            esc(&arm.name),
            if changes.is_empty() {
                "not stated".to_owned()
            } else {
                esc(&changes)
            },
            esc(&rankings),
            esc(&indexes),
            numbers[0],
            numbers[1],
        );
    }
    page.push_str("</tbody></table></div>");
}

/// Names, the first of them; dash for none.
fn some(names: &[String]) -> String {
    const SHOWN: usize = 6;
    let more = names.len().saturating_sub(SHOWN);
    let shown = names
        .iter()
        .take(SHOWN)
        .cloned()
        .collect::<Vec<_>>()
        .join(", ");
    match (names.is_empty(), more) {
        (true, _) => dash(),
        (false, 0) => shown,
        (false, _) => format!("{shown} and {more} more"),
    }
}

fn vital_signs(analysis: &Analysis) -> String {
    let signs: Vec<String> = analysis
        .vitals
        .signs
        .iter()
        .map(|sign| {
            let mark = if sign.fine { "✓" } else { "!" };
            format!("{mark} {}: {}", sign.sign, esc(&sign.value))
        })
        .collect();
    format!("<b>{}</b> ({})", analysis.vitals.label, signs.join("; "))
}

fn code(texts: &[String]) -> String {
    const SHOWN: usize = 8;
    let more = texts.len().saturating_sub(SHOWN);
    let mut shown: Vec<String> = texts
        .iter()
        .take(SHOWN)
        .map(|text| format!("<code>{}</code>", esc(text.get(..12).unwrap_or(text))))
        .collect();
    if more > 0 {
        shown.push(format!("{more} more"));
    }
    shown.join(", ")
}

fn verdict(page: &mut String, analysis: &Analysis, archive: &[Entry]) {
    let verdict = &analysis.verdict;
    let (class, sign) = match verdict.recommendation {
        "SHIP" | "ADVANCE" => ("good", "✓"),
        "STOP_HARM" | "INVALID" => ("bad", "✕"),
        _ => ("wait", "…"),
    };
    let _ = write!(
        page,
        "<section class=\"verdict {class}\"><span class=\"word\">{sign} {}</span><p class=\"headline\">{}</p>",
        esc(&verdict.recommendation.replace('_', " ")),
        esc(&verdict.headline),
    );
    for (name, lines) in [
        ("Why", &verdict.reasons),
        ("What to do next", &verdict.next),
        ("What this rests on", &verdict.assumptions),
    ] {
        if lines.is_empty() {
            continue;
        }
        let _ = write!(page, "<h3>{name}</h3><ul>");
        for line in lines {
            let _ = write!(page, "<li>{}</li>", esc(&sentence(line)));
        }
        page.push_str("</ul>");
    }
    decisions(page, analysis, archive);
    page.push_str("</section>");
}

/// What the owner made of the recommendation, of this look or another.
fn decisions(page: &mut String, analysis: &Analysis, archive: &[Entry]) {
    let plan = &analysis.plan;
    let mut told = false;
    for entry in archive
        .iter()
        .filter(|entry| entry.experiment == plan.experiment && entry.epoch == plan.epoch)
    {
        told = true;
        let _ = write!(
            page,
            "<p class=\"decision\"><b>Decided: {}.</b> By {}, {}; the recommendation on data up to {} was {}.{}</p>",
            esc(&entry.decision),
            esc(&entry.by),
            esc(&entry.at),
            esc(&entry.cutoff),
            esc(&entry.recommendation.replace('_', " ")),
            if entry.reason.is_empty() {
                String::new()
            } else {
                format!(" {}", esc(&sentence(&entry.reason)))
            }
        );
    }
    if !told {
        page.push_str("<p class=\"decision\">This is a recommendation. What the owner decided, and why, belongs in the journal: \
            <code>refrain experiment archive --decision</code>.</p>");
    }
}

/// With a capital letter and a full stop.
fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    // A name keeps its own letters.
    let name = text
        .split_whitespace()
        .next()
        .is_some_and(|word| word.contains(['_', ':', '/']));
    let mut sentence: String = match letters.next() {
        Some(first) if !name => first.to_uppercase().chain(letters).collect(),
        _ => text.to_owned(),
    };
    if !sentence.ends_with(['.', '!', '?']) {
        sentence.push('.');
    }
    sentence
}

fn metrics(page: &mut String, analysis: &Analysis) {
    page.push_str("<h2>Metrics</h2>");
    page.push_str(&plots::forest(analysis));
    for (role, title) in [
        (Role::Success, "Success metrics: should improve"),
        (
            Role::Guardrail,
            "Guardrails: must not get worse by the margin",
        ),
        (Role::Scan, "Scanned: only watched for harm"),
    ] {
        let name = crate::verdict::role_name(role);
        let of_role: Vec<&MetricResult> =
            analysis.metrics.iter().filter(|m| m.role == name).collect();
        if of_role.is_empty() {
            continue;
        }
        let _ = write!(
            page,
            "<h3>{title}</h3><div class=\"scroll\"><table><thead><tr><th>Metric</th><th>Arm</th>\
            <th class=\"n\">Control</th><th class=\"n\">Effect</th><th class=\"n\">Interval</th><th class=\"n\">Relative</th>\
            <th class=\"n\">z / asks</th><th class=\"n\">p</th><th class=\"n\">Units</th><th>Reading</th></tr></thead><tbody>"
        );
        for metric in &of_role {
            if metric.comparisons.is_empty() {
                let _ = write!(
                    page,
                    "<tr><td><b>{}</b><small>{}</small></td><td colspan=\"9\">not compared</td></tr>",
                    esc(&metric.name),
                    esc(&metric.notes.join("; "))
                );
            }
            for comparison in &metric.comparisons {
                row(page, metric, comparison, analysis.plan.kind);
            }
        }
        page.push_str("</tbody></table></div>");
    }
    page.push_str(&help(&[
        "Metric",
        "Arm",
        "Control",
        "Effect",
        "Interval",
        "Relative",
        "z / asks",
        "p",
        "Units",
        "Margin",
        "Covariate",
        "Reading",
    ]));
}

fn row(page: &mut String, metric: &MetricResult, comparison: &MetricComparison, kind: Kind) {
    let se = comparison.se;
    let control = metric
        .arms
        .first()
        .and_then(|arm| arm.value)
        .map_or_else(String::new, |v| rounded(v, se));
    let mut effect = signed(comparison.delta, se);
    if let Some(corrected) = comparison.median_unbiased {
        let _ = write!(effect, "<small>stopped: {}", signed(corrected, se));
        if let Some(interval) = comparison.stagewise {
            let _ = write!(
                effect,
                "<br>{} to {}",
                signed(interval.low, se),
                signed(interval.high, se)
            );
        }
        effect.push_str("</small>");
    }
    let relative = comparison
        .relative
        .as_ref()
        .map_or_else(String::new, relative_lift);
    let mut details = vec![format!(
        "{}, {} is good, {}",
        metric.kind, metric.direction, metric.window
    )];
    details.push(comparison.test.clone());
    if let Some(margin) = comparison.margin {
        details.push(format!("margin {}", rounded(margin, se)));
    }
    if let Some(covariate) = &comparison.covariate {
        details.push(if covariate.used {
            format!(
                "covariate {} removed {} of the variance",
                covariate.name,
                words::percent(covariate.variance_reduction)
            )
        } else {
            let why = covariate.reason.as_deref().unwrap_or_default();
            format!("covariate {} not used: {why}", covariate.name)
        });
    }
    let missing: u64 = metric.arms.iter().map(|arm| arm.missing).sum();
    let young: u64 = metric.arms.iter().map(|arm| arm.immature).sum();
    let mut units = words::count(metric.units(kind));
    if young > 0 {
        let _ = write!(units, "<small>{} too young</small>", words::count(young));
    }
    if missing > 0 {
        let _ = write!(
            units,
            "<small>{} without value</small>",
            words::count(missing)
        );
    }
    let sign = match comparison.outcome {
        "improvement" | "within_margin" => "✓ ",
        "harm" => "✕ ",
        _ => "",
    };
    let class = match comparison.outcome {
        "improvement" | "within_margin" => "pass",
        "harm" => "fail",
        _ => "",
    };
    let notes: String = comparison
        .cautions
        .iter()
        .chain(&metric.notes)
        .map(|note| format!("<small>{}</small>", esc(&sentence(note))))
        .collect();
    let _ = write!(
        page,
        "<tr><td><b>{}</b><small>{}</small></td><td>{}</td><td class=\"n\">{control}</td><td class=\"n\">{}</td>\
         <td class=\"n\">{} to {}<small>{}</small></td><td class=\"n\">{relative}</td><td class=\"n\">{:.2}<small>asks {}</small></td>\
         <td class=\"n\">{}{}</td><td class=\"n\">{units}</td><td><span class=\"reading status {class}\" style=\"white-space:normal\">{sign}{}</span>{notes}</td></tr>",
        esc(&metric.name),
        esc(&details.join("; ")),
        esc(&comparison.arm),
        effect,
        signed(comparison.interval.low, se),
        signed(comparison.interval.high, se),
        match comparison.bound {
            Some(_) => format!(
                "at {} se each side",
                rounded(comparison.bound.unwrap_or(0.0), 0.1)
            ),
            None => "95 %, not judged".to_owned(),
        },
        comparison.z_tested(metric.role),
        comparison
            .bound
            .map_or_else(|| "nothing".to_owned(), |bound| format!("{bound:.2}")),
        words::p(comparison.p),
        comparison.p_all_looks.map_or_else(String::new, |p| format!(
            "<small>all looks {}</small>",
            words::p(p)
        )),
        esc(comparison.words),
    );
}

/// A lift with its interval; where the control is close to zero, with both of its intervals.
fn relative_lift(relative: &RelativeResult) -> String {
    let ends = |i: &Interval| format!("{} to {}", signed_percent(i.low), signed_percent(i.high));
    let delta_method = ends(&relative.delta_method);
    let intervals = if relative.method == "Fieller" {
        let fieller = match &relative.fieller {
            ConfidenceSet::Interval(interval) => ends(interval),
            ConfidenceSet::Outside(interval) => format!("all but {}", ends(interval)),
            _ => "unbounded".to_owned(),
        };
        format!("{fieller}<br>Fieller<br>{delta_method}<br>delta method")
    } else {
        format!("{delta_method}<br>delta method")
    };
    format!(
        "{}<small>{intervals}</small>",
        signed_percent(relative.lift)
    )
}

fn time(page: &mut String, analysis: &Analysis) {
    let mut body = String::new();
    for metric in analysis.metrics.iter().filter(|m| m.role == "success") {
        for comparison in &metric.comparisons {
            body.push_str(&plots::by_day(metric, comparison));
        }
    }
    let boundary = plots::boundary(analysis);
    let mut pair = boundary;
    for metric in analysis.metrics.iter().filter(|m| m.role == "success") {
        for comparison in &metric.comparisons {
            pair.push_str(&plots::by_age(metric, comparison));
        }
    }
    if !pair.is_empty() {
        let _ = write!(body, "<div class=\"pair\">{pair}</div>");
    }
    body.push_str(&looks(analysis));
    body.push_str(&novelty(analysis));
    if !body.is_empty() {
        let _ = write!(page, "<h2>Over time</h2>{body}");
        page.push_str(&help(&[
            "Cumulative effect",
            "Boundary",
            "Look",
            "Information",
            "Nominal α",
            "Spent α",
            "Novelty",
            "Day 1, Week 1, Week 2",
            "Week 2 − week 1",
        ]));
    }
}

/// What each look asked for, and what it has cost.
fn looks(analysis: &Analysis) -> String {
    let plan = &analysis.plan;
    let levels = crate::verdict::levels(plan);
    let mut rows = String::new();
    for (number, look) in (1..).zip(&analysis.looks) {
        for metric in plan.metrics.iter().filter(|m| m.role.decides()) {
            for arm in &plan.arms[1..] {
                let key = format!("{} / {}", metric.name, arm.name);
                let Some(found) = look.metrics.get(&key) else {
                    continue;
                };
                let (Some(z), Some(bound)) = (found.z, found.bound) else {
                    continue;
                };
                let level = match (metric.role, metric.margin) {
                    (Role::Success, _) => levels.success,
                    (_, Some(_)) => levels.guardrail,
                    _ => levels.deterioration,
                };
                let _ = write!(
                    rows,
                    "<tr><td>{number}<small>{}</small></td><td><b>{}</b></td><td>{}</td><td class=\"n\">{}</td>\
                     <td class=\"n\">{z:.2}<small>asks {bound:.2}</small></td><td class=\"n\">{}</td><td class=\"n\">{}</td></tr>",
                    esc(look.cutoff.get(..10).unwrap_or(&look.cutoff)),
                    esc(&metric.name),
                    esc(&arm.name),
                    if found.t > 0.0 {
                        words::percent(found.t)
                    } else {
                        "no planned end".to_owned()
                    },
                    found.nominal.map_or_else(|| "–".to_owned(), words::p),
                    found.spent.map_or_else(
                        || "–".to_owned(),
                        |spent| format!("{}<small>of {}</small>", words::p(spent), words::p(level))
                    ),
                );
            }
        }
    }
    if rows.is_empty() {
        return rows;
    }
    format!(
        "<h3>What each look asked for, {}</h3><div class=\"scroll\"><table><thead><tr><th>Look</th><th>Metric</th><th>Arm</th>\
        <th class=\"n\">Information</th><th class=\"n\">z / asks</th><th class=\"n\">Nominal α</th><th class=\"n\">Spent α</th></tr></thead>\
        <tbody>{rows}</tbody></table></div>",
        esc(&paid(&plan.design))
    )
}

/// Which correction pays for the looks.
fn paid(design: &Design) -> String {
    match design.method {
        Method::Gst => match design.spending {
            SpendingRule::Power(rho) => format!("{}, spending α t^{rho}", design.method),
            SpendingRule::Obf => format!("{}, O'Brien-Fleming-like spending", design.method),
            SpendingRule::Pocock => format!("{}, Pocock-like spending", design.method),
        },
        Method::Bonferroni => format!("{}, α by {}", design.method, design.looks),
        method => method.to_string(),
    }
}

fn novelty(analysis: &Analysis) -> String {
    let mut rows = String::new();
    for metric in &analysis.metrics {
        for comparison in &metric.comparisons {
            let Some(novelty) = &comparison.by_age else {
                continue;
            };
            let cell = |name: &str| {
                novelty
                    .periods
                    .iter()
                    .find(|p| p.period == name)
                    .map_or_else(
                        || "<td class=\"n\">units too young</td>".to_owned(),
                        |p| {
                            format!(
                                "<td class=\"n\">{} ± {}<small>{} units</small></td>",
                                signed(p.delta, p.se),
                                rounded(1.96 * p.se, p.se),
                                words::count(p.units)
                            )
                        },
                    )
            };
            let change = match (novelty.week_two_minus_one, novelty.week_two_minus_one_se) {
                (Some(change), Some(se)) => {
                    format!("{} ± {}", signed(change, se), rounded(1.96 * se, se))
                }
                _ => "not yet known".to_owned(),
            };
            let _ = write!(
                rows,
                "<tr><td><b>{}</b></td><td>{}</td>{}{}{}<td class=\"n\">{change}</td></tr>",
                esc(&metric.name),
                esc(&comparison.arm),
                cell("day 1"),
                cell("week 1"),
                cell("week 2")
            );
        }
    }
    if rows.is_empty() {
        return rows;
    }
    format!(
        "<h3>Does it last? Effect a day by age of the unit; the change is that of the same units</h3><div class=\"scroll\"><table><thead><tr><th>Metric</th><th>Arm</th>\
        <th class=\"n\">Day 1</th><th class=\"n\">Week 1</th><th class=\"n\">Week 2</th><th class=\"n\">Week 2 − week 1</th></tr></thead><tbody>{rows}</tbody></table></div>"
    )
}

fn segments(page: &mut String, analysis: &Analysis) {
    let mut body = String::new();
    for metric in analysis.metrics.iter().filter(|m| m.role != "scan") {
        for comparison in &metric.comparisons {
            for segment in &comparison.segments {
                body.push_str(&plots::segment(metric, comparison, segment));
            }
        }
    }
    if !body.is_empty() {
        let _ = write!(page, "<h2>Segments</h2>{body}");
        page.push_str(&help(&["Heterogeneity", "Segments", "Explored"]));
    }
}

/// Whom to give which arm.
fn policies(page: &mut String, analysis: &Analysis) {
    let mut rows = String::new();
    for metric in &analysis.metrics {
        for policy in &metric.policies {
            let choices: Vec<String> = policy
                .choices
                .iter()
                .map(|choice| {
                    let least = if choice.fell_back {
                        " (too few to choose)"
                    } else {
                        ""
                    };
                    format!("{} → {}{least}", choice.value, choice.arm)
                })
                .collect();
            let se = if policy.gain_se > 0.0 {
                policy.gain_se
            } else {
                policy.se
            };
            let _ = write!(
                rows,
                "<tr><td><b>{}</b></td><td>{}</td><td>{}</td><td class=\"n\">{}<small>{} to {}</small></td>\
                 <td class=\"n\">{}<small>{}</small></td><td class=\"n\">{}<small>{} to {}</small></td><td class=\"n\">{}<small>chose on {}</small></td>\
                 <td><span class=\"reading\">{}</span></td></tr>",
                esc(&metric.name),
                esc(&policy.segment),
                esc(&choices.join("; ")),
                rounded(policy.value, policy.se),
                rounded(policy.interval.low, policy.se),
                rounded(policy.interval.high, policy.se),
                rounded(policy.single, policy.se),
                esc(&policy.best_single_arm),
                signed(policy.gain, se),
                signed(policy.gain_interval.low, se),
                signed(policy.gain_interval.high, se),
                words::count(policy.units[1]),
                words::count(policy.units[0]),
                esc(policy.words),
            );
        }
    }
    if rows.is_empty() {
        return;
    }
    let _ = write!(
        page,
        "<h2>Another arm for each segment?</h2><p>One half of the units chose the best arm of each value, the other half says what that \
         is worth. It decides nothing: what looks good here wants an experiment of its own.</p>\
         <div class=\"scroll\"><table><thead><tr><th>Metric</th><th>Segment</th><th>Who gets what</th><th class=\"n\">Chosen</th>\
         <th class=\"n\">One arm</th><th class=\"n\">Gain</th><th class=\"n\">Units</th><th>Reading</th></tr></thead><tbody>{rows}</tbody></table></div>"
    );
    page.push_str(&help(&[
        "Segment",
        "Who gets what",
        "Chosen, One arm",
        "Gain",
    ]));
}

fn validity(page: &mut String, analysis: &Analysis) {
    page.push_str("<h2>Can the data be trusted?</h2><div class=\"scroll\"><table><thead><tr><th>Check</th><th>Result</th><th>Finding</th></tr></thead><tbody>");
    for check in &analysis.quality {
        let (class, word) = match check.status {
            Status::Pass => ("pass", "✓ passed"),
            Status::Warn => ("warn", "! note"),
            Status::Fail => ("fail", "✕ failed"),
            Status::Skipped => ("", "not asked"),
        };
        let hints: String = check
            .hints
            .iter()
            .map(|hint| format!("<small>{}</small>", esc(&sentence(hint))))
            .collect();
        let _ = write!(
            page,
            "<tr><td><b>{}</b></td><td class=\"status {class}\">{word}</td><td>{}{hints}</td></tr>",
            esc(&check.name),
            esc(&sentence(&check.finding))
        );
    }
    page.push_str("</tbody></table></div>");
    page.push_str(&plots::intake(analysis));
    page.push_str(&help(&[
        "Check, Result, Finding",
        "Sample ratio",
        "Units in several arms",
        "Bots",
        "Balance",
        "Sameness",
        "A/A reference",
        "Lost exposures",
    ]));
}

fn operation(page: &mut String, analysis: &Analysis) {
    if analysis.operation.is_empty() {
        return;
    }
    if analysis.verdict.effects_hidden.is_some() {
        let mut rows = String::new();
        for arm in &analysis.operation {
            let _ = write!(
                rows,
                "<tr><td>{}</td><td class=\"n\">{}</td></tr>",
                esc(&arm.arm),
                words::percent(arm.served_other)
            );
        }
        let _ = write!(
            page,
            "<h2>Operation</h2><p>Requests, latency, empty and degraded answers of each arm are hidden with the effects: metrics count them.</p>\
             <div class=\"scroll\"><table><thead><tr><th>Arm</th><th class=\"n\">Served otherwise</th></tr></thead><tbody>{rows}</tbody></table></div>"
        );
        page.push_str(&help(&["Served otherwise"]));
        return;
    }
    page.push_str("<h2>Operation</h2><div class=\"scroll\"><table><thead><tr><th>Arm</th><th class=\"n\">Requests</th><th class=\"n\">Latency 50 %</th>\
        <th class=\"n\">95 %</th><th class=\"n\">99 %</th><th class=\"n\">Cost of a request</th><th class=\"n\">Errors</th><th class=\"n\">Empty</th><th class=\"n\">Degraded</th><th class=\"n\">Served otherwise</th></tr></thead><tbody>");
    let control = analysis.plan.arms.first().map(|arm| &arm.name);
    for arm in &analysis.operation {
        let latency = arm.latency_ms.map_or_else(
            || "<td class=\"n\">–</td>".repeat(3),
            |quantiles| {
                quantiles
                    .iter()
                    .map(|ms| format!("<td class=\"n\">{ms:.1} ms</td>"))
                    .collect()
            },
        );
        let cost = arm.cost_ms.map_or_else(dash, |ms| {
            let ratio = arm.cost_ratio.filter(|_| Some(&arm.arm) != control);
            let against = ratio.map_or_else(String::new, |ratio| {
                format!("<small>{} of control</small>", signed_percent(ratio - 1.0))
            });
            format!("{ms:.2} ms{against}")
        });
        let _ = write!(
            page,
            "<tr><td>{}</td><td class=\"n\">{}</td>{latency}<td class=\"n\">{cost}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td></tr>",
            esc(&arm.arm),
            arm.requests.map_or_else(dash, words::count),
            arm.errors.map_or_else(dash, words::percent),
            arm.empty.map_or_else(dash, words::percent),
            arm.degraded.map_or_else(dash, words::percent),
            words::percent(arm.served_other)
        );
    }
    page.push_str("</tbody></table></div>");
    page.push_str(&help(&[
        "Requests",
        "Latency 50 %, 95 %, 99 %",
        "Cost of a request",
        "Errors",
        "Empty, Degraded",
        "Served otherwise",
    ]));
}

fn dash() -> String {
    "–".to_owned()
}

/// What there is, and below it what was planned.
fn against(found: String, planned: Option<String>) -> String {
    planned.map_or(found.clone(), |planned| {
        format!("{found}<small>planned {planned}</small>")
    })
}

/// How far units of the control lie apart, and how far they were planned to.
fn deviation(plan: &Plan, metric: &MetricResult) -> String {
    let control = metric.arms.first();
    let Some((se, units)) = control.and_then(|arm| Some((arm.se?, arm.units))) else {
        return dash();
    };
    let found = se * count(units).sqrt();
    let planned = plan
        .metrics
        .iter()
        .find(|planned| planned.name == metric.name);
    let planned = planned.and_then(|planned| planned.sd);
    against(
        rounded(found, 0.01 * found),
        planned.map(|sd| rounded(sd, 0.01 * sd)),
    )
}

fn power(page: &mut String, analysis: &Analysis) {
    let plan = &analysis.plan;
    let mut rows = String::new();
    for metric in &analysis.metrics {
        for comparison in &metric.comparisons {
            let Some(detectable) = comparison.detectable else {
                continue;
            };
            let _ = write!(
                rows,
                "<tr><td><b>{}</b></td><td>{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td></tr>",
                esc(&metric.name),
                esc(&comparison.arm),
                against(
                    words::count(metric.units(plan.kind)),
                    plan.design.max_units.map(words::count)
                ),
                deviation(plan, metric),
                comparison
                    .information
                    .map_or_else(|| "no planned end".to_owned(), words::percent),
                comparison.mde.map_or_else(
                    || "not declared".to_owned(),
                    |mde| rounded(mde, comparison.se)
                ),
                rounded(detectable, comparison.se),
                comparison
                    .achieved_power
                    .map_or_else(|| "–".to_owned(), words::percent)
            );
        }
    }
    if rows.is_empty() {
        return;
    }
    let _ = write!(
        page,
        "<h2>Was it large enough?</h2><div class=\"scroll\"><table><thead><tr><th>Metric</th><th>Arm</th><th class=\"n\">Units</th><th class=\"n\">Deviation</th>\
        <th class=\"n\">Information</th><th class=\"n\">Effect that matters</th><th class=\"n\">Effect it can see</th><th class=\"n\">Power for what matters</th></tr></thead><tbody>{rows}</tbody></table></div>"
    );
    page.push_str(&help(&[
        "Deviation",
        "Information",
        "Effect that matters",
        "Effect it can see",
        "Power for what matters",
    ]));
}

fn data(page: &mut String, analysis: &Analysis) {
    page.push_str("<h2>Data and policies, fixed before any effect was seen</h2>");
    let _ = write!(
        page,
        "<p>{}</p>",
        esc(&match &analysis.data.input {
            Input::Log { files, rows, .. } => format!(
                "{} exposures in {} files ({} of this experiment), {} outcomes in {} files, {} covariates in {} files.",
                words::count(rows.exposures),
                files[0],
                words::count(rows.analysed),
                words::count(rows.outcomes),
                files[1],
                words::count(rows.covariates),
                files[2]
            ),
            Input::Units { rows } => format!(
                "A table of {} units. Quantiles, daily curves and latency need the log itself and are not here.",
                words::count(*rows)
            ),
        })
    );
    page.push_str("<div class=\"scroll\"><table><thead><tr><th>About</th><th>Rule</th><th class=\"n\">Applied</th></tr></thead><tbody>");
    for policy in &analysis.data.policies {
        let _ = write!(
            page,
            "<tr><td>{}</td><td>{}</td><td class=\"n\">{}</td></tr>",
            esc(policy.about),
            esc(&sentence(&policy.rule)),
            words::count(policy.applied)
        );
    }
    page.push_str("</tbody></table></div>");
    page.push_str(&help(&["About, Rule, Applied"]));
}

fn methods(page: &mut String, analysis: &Analysis, command: &str) {
    let plan = &analysis.plan;
    page.push_str("<h2>How this was made</h2><dl class=\"facts\">");
    let mut seen = Vec::new();
    for comparison in analysis.metrics.iter().flat_map(|m| &m.comparisons) {
        if !seen.contains(&comparison.test) {
            seen.push(comparison.test.clone());
        }
    }
    let margins: Vec<String> = plan
        .metrics
        .iter()
        .filter_map(|metric| {
            metric.margin.map(|margin| match margin {
                Margin::Absolute(value) => format!("{} {value}", metric.name),
                Margin::Relative(share) => {
                    format!("{} {} of control", metric.name, words::percent(share))
                }
            })
        })
        .collect();
    for (name, value) in [
        (
            "Design",
            format!(
                "{}, one-sided {}, power {}{}",
                paid(&plan.design),
                words::percent(plan.design.alpha),
                words::percent(plan.design.power),
                plan.design
                    .max_units
                    .map_or_else(String::new, |max| format!(", {} units", words::count(max)))
            ),
        ),
        ("Tests", seen.join("; ")),
        ("Margins", margins.join("; ")),
        (
            "Version",
            format!("refrain {}, {}", analysis.version, analysis.schema),
        ),
    ] {
        if !value.is_empty() {
            let _ = write!(page, "<dt>{name}</dt><dd>{}</dd>", esc(&value));
        }
    }
    let _ = write!(
        page,
        "<dt>Again</dt><dd><code>{}</code></dd></dl>",
        esc(command)
    );
    page.push_str("<h3>Words</h3>");
    page.push_str(&help(&[
        "Changes",
        "Served as",
        "Index versions",
        "Share",
        "Vital signs",
        "Unit",
        "Epoch",
        "Design words",
        "No evidence",
        "Recommendation",
    ]));
    page.push_str("<footer>No scripts, no fonts and no pictures from elsewhere: this page can be mailed, archived and printed. \
        Times are UTC.</footer>");
}

/// Text that is only text.
fn esc(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            c if c.is_control() && c != '\n' => safe.push('\u{fffd}'),
            c => safe.push(c),
        }
    }
    safe
}
