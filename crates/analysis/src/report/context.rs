//! What stands beside the decision and does not make it: who won interleaved lists, the effect on those
//! who took something up, what another policy would have earned, and the lists themselves.

use std::fmt::Write as _;

use super::esc;
use super::help::help;
use crate::methods::effect::{ConfidenceSet, Interval};
use crate::verdict::Analysis;
use crate::verdict::document::{ItemShare, ListComparison, OffPolicyMetric};
use crate::verdict::words::{self, rounded, signed};

/// Which arm's items were chosen.
pub(super) fn interleaving(page: &mut String, analysis: &Analysis) {
    let Some(found) = &analysis.interleaving else {
        return;
    };
    let _ = write!(
        page,
        "<h2>Interleaved lists</h2><p>Both arms drafted one list; an event counts for the arm that brought the item. \
         {} began with an item of <b>{}</b>, {} with one of <b>{}</b>.</p>\
         <div class=\"scroll\"><table><thead><tr><th>Metric</th><th class=\"n\">Lists</th><th class=\"n\">Won by {}</th>\
         <th class=\"n\">Won by {}</th><th class=\"n\">Neither</th><th class=\"n\">Preference</th><th class=\"n\">Sign test p</th></tr></thead><tbody>",
        words::count(found.first_picks[0]),
        esc(&found.arms[0]),
        words::count(found.first_picks[1]),
        esc(&found.arms[1]),
        esc(&found.arms[0]),
        esc(&found.arms[1]),
    );
    for metric in &found.metrics {
        let (Some(won), Some(ties)) = (metric.won, metric.ties) else {
            let _ = write!(
                page,
                "<tr><td><b>{}</b></td><td class=\"n\">{}</td><td colspan=\"5\">hidden</td></tr>",
                esc(&metric.metric),
                words::count(metric.sessions)
            );
            continue;
        };
        let _ = write!(
            page,
            "<tr><td><b>{}</b></td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td>\
             <td class=\"n\">{}</td><td class=\"n\">{}</td></tr>",
            esc(&metric.metric),
            words::count(metric.sessions),
            words::count(won[0]),
            words::count(won[1]),
            words::count(ties),
            metric
                .delta
                .map_or_else(|| "–".to_owned(), |delta| signed(delta, 0.01)),
            metric.sign_test_p.map_or_else(|| "–".to_owned(), words::p),
        );
    }
    page.push_str("</tbody></table></div>");
    page.push_str(&help(&[
        "Metric",
        "Lists",
        "Won by, Neither",
        "Preference",
        "Sign test p",
        "Fair draft",
    ]));
}

/// The effect on those who took up what was offered.
pub(super) fn uptake(page: &mut String, analysis: &Analysis) {
    let mut rows = String::new();
    let mut of = "";
    for metric in &analysis.metrics {
        for comparison in &metric.comparisons {
            let Some(uptake) = &comparison.uptake else {
                continue;
            };
            of = &uptake.of;
            let _ = write!(
                rows,
                "<tr><td><b>{}</b></td><td>{}</td><td class=\"n\">{} → {}</td><td class=\"n\">{}</td><td class=\"n\">{} ± {}</td>\
                 <td class=\"n\">{}</td><td class=\"n\">{:.1}{}</td></tr>",
                esc(&metric.name),
                esc(&comparison.arm),
                words::percent(uptake.control),
                words::percent(uptake.treatment),
                signed(uptake.intention_to_treat, comparison.se),
                signed(uptake.late, uptake.late_se),
                rounded(1.96 * uptake.late_se, uptake.late_se),
                set(&uptake.anderson_rubin, uptake.late_se),
                uptake.first_stage_f,
                if uptake.weak {
                    "<small>weak</small>"
                } else {
                    ""
                },
            );
        }
    }
    if rows.is_empty() {
        return;
    }
    let _ = write!(
        page,
        "<h2>The effect on those whom it reached</h2><p>Not everybody got what they were assigned ({}). The decision compares units \
         as assigned; this is what the change does to those whom the assignment moved.</p>\
         <div class=\"scroll\"><table><thead><tr><th>Metric</th><th>Arm</th><th class=\"n\">Uptake</th><th class=\"n\">As assigned</th>\
         <th class=\"n\">On those moved</th><th class=\"n\">Safe interval</th><th class=\"n\">F</th></tr></thead><tbody>{rows}</tbody></table></div>",
        esc(of)
    );
    page.push_str(&help(&[
        "Uptake",
        "As assigned",
        "On those moved",
        "Safe interval",
        "F",
    ]));
}

/// What the age of an index does.
pub(super) fn staleness(page: &mut String, analysis: &Analysis) {
    let Some(found) = &analysis.staleness else {
        return;
    };
    page.push_str(
        "<h2>Does it get stale?</h2><p>The arms served builds of different age. If they differ in nothing else, this is what a day \
         of age does.</p><div class=\"scroll\"><table><thead><tr><th>Arm</th><th>Built</th><th class=\"n\">Age</th></tr></thead><tbody>",
    );
    for arm in &found.arms {
        let _ = write!(
            page,
            "<tr><td><b>{}</b></td><td>{}</td><td class=\"n\">{:.1} d</td></tr>",
            esc(&arm.arm),
            esc(&arm.built),
            arm.age_days
        );
    }
    page.push_str(
        "</tbody></table></div><div class=\"scroll\"><table><thead><tr><th>Metric</th><th>Arm</th><th class=\"n\">Older by</th>\
         <th class=\"n\">Effect</th><th class=\"n\">95 % interval</th><th class=\"n\">For a day of age</th></tr></thead><tbody>",
    );
    for metric in &found.metrics {
        for (at, effect) in metric.effects.iter().enumerate() {
            let slope = match &metric.per_day {
                Some(slope) if at == 0 => format!(
                    "{}<small>{} to {}</small>",
                    signed(slope.delta, slope.se),
                    signed(slope.interval.low, slope.se),
                    signed(slope.interval.high, slope.se)
                ),
                _ => String::new(),
            };
            let _ = write!(
                page,
                "<tr><td><b>{}</b></td><td>{}</td><td class=\"n\">{} d</td><td class=\"n\">{}</td><td class=\"n\">{} to {}</td><td class=\"n\">{slope}</td></tr>",
                esc(&metric.metric),
                esc(&effect.arm),
                signed(effect.older_days, 1.0),
                signed(effect.delta, effect.se),
                signed(effect.interval.low, effect.se),
                signed(effect.interval.high, effect.se),
            );
        }
    }
    page.push_str("</tbody></table></div>");
    page.push_str(&help(&["Built, Age", "Older by", "For a day of age"]));
}

fn set(set: &ConfidenceSet, se: f64) -> String {
    let ends = |i: &Interval| format!("{} to {}", signed(i.low, se), signed(i.high, se));
    match set {
        ConfidenceSet::Interval(i) => ends(i),
        ConfidenceSet::Outside(i) => format!("all but {}", ends(i)),
        _ => "unbounded".to_owned(),
    }
}

/// What another policy would have earned.
pub(super) fn off_policy(page: &mut String, analysis: &Analysis) {
    let Some(found) = &analysis.off_policy else {
        return;
    };
    let _ = write!(
        page,
        "<h2>What another policy would have earned</h2><p>Probabilities of the other policy from <code>{}</code>; {} answers of this \
         experiment are named there, {} of them were drawn at random with known probabilities and count.</p>",
        esc(&found.target),
        words::count(found.slates),
        words::count(found.sampled),
    );
    for metric in &found.metrics {
        off_policy_metric(page, metric);
    }
    page.push_str(&help(&[
        "Estimator",
        "An answer",
        "95 % interval",
        "Effective answers",
        "Mean weight",
    ]));
}

fn off_policy_metric(page: &mut String, metric: &OffPolicyMetric) {
    let _ = write!(page, "<h3>{}</h3>", esc(&metric.metric));
    if let Some(why) = &metric.refused {
        let _ = write!(
            page,
            "<p class=\"status warn\" style=\"white-space:normal\">! Not estimated: {}.</p>",
            esc(why)
        );
    }
    if let Some(d) = &metric.diagnostics {
        let _ = write!(
            page,
            "<p>Effective answers {:.0} of {}; mean weight {:.3} (z {:.2}), largest {:.1}; {} of the answers the policy would never give.</p>",
            d.effective_rows,
            words::count(d.rows),
            d.mean_weight,
            d.mean_weight_z,
            d.max_weight,
            words::percent(d.unsupported)
        );
    }
    if metric.values.is_empty() {
        return;
    }
    page.push_str("<div class=\"scroll\"><table><thead><tr><th>Estimator</th><th class=\"n\">An answer</th><th class=\"n\">95 % interval</th></tr></thead><tbody>");
    if let Some(logged) = metric.logged {
        let se = metric.values[0].se;
        let _ = write!(
            page,
            "<tr><td>as it was</td><td class=\"n\">{}</td><td></td></tr>",
            rounded(logged, se)
        );
    }
    for value in &metric.values {
        let _ = write!(
            page,
            "<tr><td>{}</td><td class=\"n\">{}</td><td class=\"n\">{} to {}</td></tr>",
            value.estimator,
            rounded(value.value, value.se),
            rounded(value.interval.low, value.se),
            rounded(value.interval.high, value.se)
        );
    }
    page.push_str("</tbody></table></div>");
}

/// The lists of the arms beside each other.
pub(super) fn lists(page: &mut String, analysis: &Analysis) {
    let Some(found) = &analysis.lists else {
        return;
    };
    let total: u64 = found.lists.iter().sum();
    let _ = write!(
        page,
        "<h2>Lists</h2><p>{} lists{}. They say how the arms differ, and not which is better.</p>\
         <div class=\"scroll\"><table><thead><tr><th>Arm</th><th class=\"n\">Lists</th><th class=\"n\">Length</th><th class=\"n\">Items</th>\
         <th class=\"n\">Coverage</th><th class=\"n\">Gini</th></tr></thead><tbody>",
        words::count(total),
        if found.sampled {
            ", the first of each row group of the log"
        } else {
            ""
        }
    );
    for (arm, lists) in found.arms.iter().zip(&found.lists) {
        let _ = write!(
            page,
            "<tr><td>{}</td><td class=\"n\">{}</td><td class=\"n\">{:.1}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{:.3}</td></tr>",
            esc(&arm.arm),
            words::count(*lists),
            arm.length,
            words::count(arm.items),
            words::percent(arm.coverage),
            arm.gini
        );
    }
    page.push_str("</tbody></table></div>");
    for comparison in &found.comparisons {
        compared(page, comparison);
    }
    if !found.shadows.is_empty() {
        page.push_str("<h3>In the dark: both lists for the same request</h3><div class=\"scroll\"><table><thead><tr><th>Arm</th>\
            <th class=\"n\">Requests</th><th class=\"n\">Overlap</th><th class=\"n\">RBO</th><th class=\"n\">Time</th><th class=\"n\">Failed</th><th class=\"n\">Dropped</th></tr></thead><tbody>");
        for shadow in &found.shadows {
            let _ = write!(
                page,
                "<tr><td>{}</td><td class=\"n\">{}</td><td class=\"n\">{} ± {}</td><td class=\"n\">{:.3}</td><td class=\"n\">× {:.2}</td><td class=\"n\">{}</td><td class=\"n\">{}</td></tr>",
                esc(&shadow.arm),
                words::count(shadow.lists),
                words::percent(shadow.overlap),
                words::percent(1.96 * shadow.overlap_se),
                shadow.rank_biased_overlap,
                shadow.latency_ratio,
                words::count(shadow.errors),
                words::count(shadow.dropped)
            );
        }
        page.push_str("</tbody></table></div>");
    }
    page.push_str(&help(&[
        "Lists",
        "Length, Items",
        "Coverage",
        "Gini",
        "Overlap",
        "RBO",
        "Time, Failed, Dropped",
        "Shown more, Shown less",
    ]));
}

fn compared(page: &mut String, comparison: &ListComparison) {
    let _ = write!(
        page,
        "<h3>{} against the control</h3>",
        esc(&comparison.arm)
    );
    if let (Some(overlap), Some(rbo)) = (comparison.overlap, comparison.rank_biased_overlap) {
        let _ = write!(
            page,
            "<p>For {} seeds that both arms were asked for: overlap {}, RBO {rbo:.3}.</p>",
            words::count(comparison.seeds),
            words::percent(overlap)
        );
    }
    let change = |shares: &[ItemShare]| {
        let mut rows = String::new();
        for share in shares {
            let _ = write!(
                rows,
                "<tr><td>{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td></tr>",
                esc(&share.item),
                words::percent(share.control),
                words::percent(share.treatment)
            );
        }
        rows
    };
    for (title, shares) in [
        ("Shown more", &comparison.added),
        ("Shown less", &comparison.removed),
    ] {
        if shares.is_empty() {
            continue;
        }
        let _ = write!(
            page,
            "<div class=\"scroll\"><table><thead><tr><th>{title}</th><th class=\"n\">Control</th><th class=\"n\">{}</th></tr></thead><tbody>{}</tbody></table></div>",
            esc(&comparison.arm),
            change(shares)
        );
    }
    for example in &comparison.examples {
        let _ = write!(
            page,
            "<p>Seed <code>{}</code>, chosen by its hash.<br>Control: {}<br>{}: {}</p>",
            esc(&example.seed),
            esc(&example.control.join(", ")),
            esc(&comparison.arm),
            esc(&example.treatment.join(", "))
        );
    }
}
