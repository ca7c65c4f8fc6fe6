//! Vital signs of a report, for whoever finds it later: who answers for it, what it is about, whether it is
//! fresh, who may see it. A report that lacks what every report must have is of low quality, whatever its
//! numbers.

use super::Evidence;
use super::document::{Vital, Vitals};
use crate::plan::span;

const HOUR_US: i64 = 3_600_000_000;

pub(super) fn vitals(evidence: &Evidence<'_>) -> Vitals {
    let plan = evidence.plan;
    let text = |value: &str, lacks: &str| match value.trim() {
        "" => (lacks.to_owned(), false),
        there => (there.to_owned(), true),
    };
    let described = if plan.question.trim().is_empty() || plan.decision.trim().is_empty() {
        ("no question or no decision".to_owned(), false)
    } else {
        ("question and decision".to_owned(), true)
    };
    let (refresh, fresh) = refresh(evidence);
    let signs = [
        ("owner", text(&plan.owner, "nobody"), true),
        ("description", described, true),
        // Without a cadence nothing is late, and nothing is known to be fresh.
        (
            "refresh",
            (refresh, fresh == Some(true)),
            fresh == Some(false),
        ),
        ("access", text(&plan.access, "not stated"), false),
    ];
    let label = if signs.iter().any(|(_, (_, fine), must)| *must && !fine) {
        "low"
    } else if signs.iter().all(|(_, (_, fine), _)| *fine) {
        "golden"
    } else {
        "high"
    };
    Vitals {
        label,
        signs: signs
            .into_iter()
            .map(|(sign, (value, fine), _)| Vital { sign, value, fine })
            .collect(),
    }
}

/// How old the data are against twice the cadence; `None` where that is not known.
fn refresh(evidence: &Evidence<'_>) -> (String, Option<bool>) {
    let Some(cadence) = evidence.plan.cadence else {
        return ("no cadence stated".to_owned(), None);
    };
    let every = span(cadence);
    let Some(now) = evidence.now_us else {
        return (format!("every {every}"), None);
    };
    let age = now.saturating_sub(evidence.cutoff_us).max(0);
    // To the hour: a report made again has the same words.
    let old = span((age / HOUR_US).saturating_mul(HOUR_US));
    (
        format!("every {every}, data {old} old"),
        Some(age <= cadence.saturating_mul(2)),
    )
}
