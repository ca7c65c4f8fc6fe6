//! The A/A reference: the control against itself, where nothing can differ but by chance.

use super::super::document::Check;
use super::super::{Evidence, words};
use super::status;
use crate::methods::{mean, ratio};
use crate::plan::MetricType;
use crate::units::statistics::Of;

/// Units a half from which on normal theory is asked.
const MIN_UNITS: u64 = 50;

/// Compares two halves of the control's units, dealt by a hash that has nothing to do with the arms, in each
/// deciding metric. They differ too much with probability `level` at most, over all metrics.
/// Told and not decided on: if noise is larger than the standard errors say, every interval of the
/// report is too narrow.
pub(super) fn reference(evidence: &Evidence<'_>, level: f64, checks: &mut Vec<Check>) {
    let strata = evidence.statistics.strata();
    let mut found: Vec<(&str, f64)> = Vec::new();
    for (at, metric) in evidence.plan.metrics.iter().enumerate() {
        let half = |which| {
            let half = evidence
                .statistics
                .moments(at, 0, &strata, Of::Reference(which));
            half.filter(|half| half.n >= MIN_UNITS)
        };
        let (Some(one), Some(other)) = (half(false), half(true)) else {
            continue;
        };
        let compared = match metric.kind {
            MetricType::Ratio => ratio::compare(&one.pair(0, 1), &other.pair(0, 1)),
            _ => mean::compare(&one.summary(0), &other.summary(0)),
        };
        // Where nothing varies there is no test; the metric itself says so.
        if let Ok(compared) = compared {
            found.push((&metric.name, compared.effect().p_two_sided()));
        }
    }
    checks.extend(check(&found, level));
}

/// What the p-values of the metrics come to together; nothing where there are none.
fn check(found: &[(&str, f64)], level: f64) -> Option<Check> {
    let least = found.iter().map(|(_, p)| *p).reduce(f64::min)?;
    #[expect(clippy::cast_precision_loss, reason = "at most some dozens")]
    let threshold = level / found.len() as f64;
    let far = least < threshold;
    let each: Vec<String> = found
        .iter()
        .map(|(name, p)| format!("{name} p = {}", words::p(*p)))
        .collect();
    Some(Check {
        id: "aa".to_owned(),
        name: "A/A reference".to_owned(),
        status: status(false, far),
        finding: format!(
            "two halves of the control, dealt by a hash, {}: {}",
            if far {
                "differ more than chance explains"
            } else {
                "agree as far as chance lets them"
            },
            each.join(", ")
        ),
        p: Some(least),
        threshold: Some(threshold),
        hints: if far {
            vec![
                "units are not independent of each other, or a few of them make up the metric: think of a cap, \
                 and of what is one listener under several ids"
                    .to_owned(),
            ]
        } else {
            Vec::new()
        },
    })
}

#[cfg(test)]
mod tests {
    use super::super::super::document::Status;
    use super::*;

    #[test]
    fn the_level_is_shared_and_a_difference_is_told() {
        assert!(check(&[], 0.001).is_none());
        let of = |p: f64| check(&[("minutes", 0.4), ("saved", p)], 0.001).expect("asked");
        let (apart, near) = (of(0.000_49), of(0.000_51));
        assert_eq!((apart.status, apart.hints.len()), (Status::Warn, 1));
        assert_eq!((near.status, near.hints.len()), (Status::Pass, 0));
        assert_eq!((near.p, near.threshold), (Some(0.000_51), Some(0.000_5)));
        assert!(apart.finding.contains("differ more than chance explains"));
        assert!(
            apart.finding.contains("minutes p = 0.40"),
            "{}",
            apart.finding
        );
    }
}
