//! What does it cost to build an index less often? Arms that serve builds of different age, each with its
//! age and its effect.
//!
//! The age is that of the build which a unit met first: ids of versions carry their time
//! (`v20261122T194500Z-…`); where they do not, the plan says when an arm's index was built.

use super::Evidence;
use super::document::{AgedArm, AgedEffect, AgedMetric, MetricResult, Slope, StalenessResult};
use super::words;
use crate::methods::effect::Effect;
use crate::methods::novelty;

const DAY_US: f64 = 86_400e6;
/// Confidence of the intervals.
const CONFIDENCE: f64 = 0.95;

/// Whether two arms have no index version in common: which build one meets is then what the arms differ in.
pub(super) fn own_builds(evidence: &Evidence<'_>) -> bool {
    let versions = |arm: usize| {
        let of = evidence.statistics.firsts.keys();
        of.filter(|(_, of)| usize::from(*of) == arm)
            .map(|(version, _)| *version)
            .collect::<Vec<u32>>()
    };
    let arms: Vec<Vec<u32>> = (0..evidence.plan.arms.len())
        .map(versions)
        .filter(|versions| !versions.is_empty())
        .collect();
    arms.iter().any(|one| {
        arms.iter()
            .any(|other| one.iter().all(|version| !other.contains(version)))
    })
}

/// The study; `None` where no two arms had builds of their own.
pub(super) fn study(evidence: &Evidence<'_>, metrics: &[MetricResult]) -> Option<StalenessResult> {
    let plan = evidence.plan;
    let arms: Vec<Option<Aged>> = (0..plan.arms.len())
        .map(|arm| aged(evidence, arm))
        .collect();
    let known: Vec<&Aged> = arms.iter().flatten().collect();
    let apart = known.iter().any(|one| {
        known
            .iter()
            .any(|other| one.builds.iter().all(|build| !other.builds.contains(build)))
    });
    let control = arms.first()?.as_ref()?;
    if !apart {
        return None;
    }
    let metrics = metrics.iter().filter_map(|metric| {
        let effects: Vec<AgedEffect> = metric
            .comparisons
            .iter()
            .filter_map(|comparison| {
                let at = plan
                    .arms
                    .iter()
                    .position(|arm| arm.name == comparison.arm)?;
                let effect = Effect::new(comparison.delta, comparison.se, None).ok()?;
                Some(AgedEffect {
                    arm: comparison.arm.clone(),
                    older_days: arms[at].as_ref()?.age_days - control.age_days,
                    delta: comparison.delta,
                    se: comparison.se,
                    interval: effect.interval(CONFIDENCE).ok()?,
                })
            })
            .collect();
        (!effects.is_empty()).then(|| AgedMetric {
            metric: metric.name.clone(),
            per_day: slope(&arms, metric),
            effects,
        })
    });
    let metrics: Vec<AgedMetric> = metrics.collect();
    Some(StalenessResult {
        arms: plan
            .arms
            .iter()
            .zip(&arms)
            .filter_map(|(arm, aged)| {
                let aged = aged.as_ref()?;
                Some(AgedArm {
                    arm: arm.name.clone(),
                    built: aged.built(),
                    age_days: aged.age_days,
                })
            })
            .collect(),
        metrics,
    })
}

/// The builds that an arm's units met first.
struct Aged {
    /// In microseconds since 1970, in order.
    builds: Vec<i64>,
    /// Mean over units, at first exposure.
    age_days: f64,
}

impl Aged {
    fn built(&self) -> String {
        match self.builds.as_slice() {
            [] => String::new(),
            [one] => words::instant(*one),
            [first, .., last] => {
                format!("{} to {}", words::instant(*first), words::instant(*last))
            }
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "days")]
fn aged(evidence: &Evidence<'_>, arm: usize) -> Option<Aged> {
    let declared = evidence.plan.arms[arm].built_us;
    let (mut units, mut age_us) = (0_u64, 0_i128);
    let mut builds = Vec::new();
    for ((version, of), (n, firsts)) in &evidence.statistics.firsts {
        if usize::from(*of) != arm {
            continue;
        }
        let name = evidence.words.index_versions.get(*version as usize)?;
        let built = declared.or_else(|| built_us(name))?;
        units += n;
        age_us += firsts - i128::from(built) * i128::from(*n);
        builds.push(built);
    }
    builds.sort_unstable();
    builds.dedup();
    (units > 0).then(|| Aged {
        builds,
        age_days: age_us as f64 / units as f64 / DAY_US,
    })
}

/// The line through the arms' values by age: arms are independent of each other, effects are not.
fn slope(arms: &[Option<Aged>], metric: &MetricResult) -> Option<Slope> {
    let (mut ages, mut values) = (Vec::new(), Vec::new());
    for (aged, arm) in arms.iter().zip(&metric.arms) {
        if let (Some(aged), Some(value), Some(se)) = (aged, arm.value, arm.se)
            && se > 0.0
        {
            ages.push(aged.age_days);
            values.push(Effect::new(value, se, None).ok()?);
        }
    }
    let line = novelty::line(&ages, &values).ok()?;
    Some(Slope {
        delta: line.slope.delta,
        se: line.slope.se,
        interval: line.slope.interval(CONFIDENCE).ok()?,
    })
}

/// When a version was built, by its id: `v20261122T194500Z-1a2b3c4d`.
fn built_us(version: &str) -> Option<i64> {
    let stamp = version.strip_prefix('v')?.get(..16)?;
    let (date, time) = stamp.strip_suffix('Z')?.split_once('T')?;
    let part = |text: &str, at: std::ops::Range<usize>| text.get(at).map(str::to_owned);
    let day = words::day(&format!(
        "{}-{}-{}",
        part(date, 0..4)?,
        part(date, 4..6)?,
        part(date, 6..8)?
    ))?;
    let number = |at: std::ops::Range<usize>| time.get(at)?.parse::<u32>().ok().map(i64::from);
    let (hour, minute, second) = (number(0..2)?, number(2..4)?, number(4..6)?);
    (hour < 24 && minute < 60 && second < 60)
        .then_some(day * 86_400_000_000 + (hour * 3_600 + minute * 60 + second) * 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_says_when_it_was_built() {
        assert_eq!(built_us("v19700102T000001Z-1a2b3c4d"), Some(86_401_000_000));
        let built = built_us("v20261122T194500Z-1a2b3c4d").expect("a time");
        assert_eq!(words::instant(built), "2026-11-22 19:45:00 UTC");
        for other in [
            "v12",
            "",
            "v20261322T194500Z-1a2b3c4d",
            "v20261122T254500Z-x",
            "vé20261122T1945",
        ] {
            assert_eq!(built_us(other), None, "{other}");
        }
    }
}
