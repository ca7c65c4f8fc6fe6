//! Do the arms have the units that they were promised, overall and in every segment? And if not, where?

use super::super::document::{Check, Status};
use super::super::estimate::Stretch;
use super::super::staleness::own_builds;
use super::super::{Evidence, words};
use super::{by_arm, status};
use crate::methods::moments::count;
use crate::methods::special::chi_square_sf;
use crate::methods::srm;
use crate::units::statistics::Attribute;

/// A sample ratio less likely than this is told even where it does not fail.
const SRM_WARN: f64 = 0.01;

/// Pearson's test of counts against expected counts that were added up over stretches.
fn over_stretches(stretches: &[Stretch]) -> (f64, f64) {
    let mut chi_square = 0.0;
    let mut df = 0.0;
    for stretch in stretches {
        if let Ok(test) = srm::fixed(&stretch.units, &stretch.shares) {
            chi_square += test.chi_square;
            #[expect(clippy::cast_precision_loss, reason = "a count of arms")]
            {
                df += test.df as f64;
            }
        }
    }
    (chi_square, df)
}

pub(super) fn sample_ratio(
    evidence: &Evidence<'_>,
    stretches: &[Stretch],
    checks: &mut Vec<Check>,
) -> Option<f64> {
    let plan = evidence.plan;
    let units = evidence.statistics.units_of(Attribute::All, 0);
    let mut check = Check {
        id: "srm".to_owned(),
        name: "Sample ratio".to_owned(),
        status: Status::Pass,
        finding: String::new(),
        p: None,
        threshold: None,
        hints: Vec::new(),
    };
    if let Some(empty) = units.iter().position(|units| *units == 0) {
        check.status = Status::Fail;
        check.finding = format!("arm `{}` has no units at all", plan.arms[empty].name);
        check
            .hints
            .push("is the arm served, and does it log its exposures under this name?".to_owned());
        checks.push(check);
        return None;
    }
    let (chi_square, df) = over_stretches(stretches);
    let p = chi_square_sf(chi_square, df);
    let ln_e: f64 = stretches
        .iter()
        .filter_map(|s| srm::sequential(&s.units, &s.shares).ok())
        .map(|test| test.ln_e)
        .sum();
    let now = (-ln_e).exp().min(1.0);
    let earlier = evidence
        .looks
        .looks
        .iter()
        .filter_map(|look| look.srm_p)
        .fold(1.0, f64::min);
    let sequential = now.min(earlier);
    let expected = expected(stretches, plan.arms.len());
    let expected: Vec<String> = expected.iter().map(|e| format!("{e:.0}")).collect();
    // The first look has the sharper test to itself; later ones must stay honest over all of them.
    let first = evidence.looks.looks.is_empty();
    let (p, threshold, test) = if first {
        (
            p,
            plan.design.alpha_srm,
            format!("chi-square {chi_square:.2}"),
        )
    } else {
        (
            sequential,
            srm::SEQUENTIAL_ALPHA,
            "valid over all looks".to_owned(),
        )
    };
    check.p = Some(p);
    check.threshold = Some(threshold);
    check.status = if p < threshold {
        Status::Fail
    } else if first && p < SRM_WARN {
        Status::Warn
    } else {
        Status::Pass
    };
    check.finding = format!(
        "{}; expected {} ({test}, p = {})",
        by_arm(plan, &units),
        expected.join(", "),
        words::p(p)
    );
    if check.status != Status::Pass {
        check.hints = suspects(evidence, stretches);
    }
    checks.push(check);
    Some(sequential)
}

/// Units that each arm should have.
#[expect(
    clippy::cast_precision_loss,
    reason = "counts of units are far below 2^53"
)]
pub(super) fn expected(stretches: &[Stretch], arms: usize) -> Vec<f64> {
    (0..arms)
        .map(|arm| {
            stretches
                .iter()
                .map(|s| {
                    s.units.iter().sum::<u64>() as f64 * s.shares.get(arm).copied().unwrap_or(0.0)
                })
                .sum()
        })
        .collect()
}

/// Units by arm in each value of an attribute.
fn cells(
    evidence: &Evidence<'_>,
    attribute: &str,
    of: Attribute,
    name: &dyn Fn(u32) -> String,
) -> Vec<srm::Cell> {
    let values = evidence.statistics.values_of(of);
    // An attribute with one value cannot tell it from all.
    if values.len() < 2 {
        return Vec::new();
    }
    values
        .into_iter()
        .map(|value| srm::Cell {
            attribute: attribute.to_owned(),
            value: name(value),
            counts: evidence.statistics.units_of(of, value),
        })
        .collect()
}

/// Those of the declared segments and of the index versions.
fn segment_cells(evidence: &Evidence<'_>) -> Vec<srm::Cell> {
    let named = |names: Option<&Vec<String>>, value: u32| {
        names
            .and_then(|names| names.get(value as usize))
            .cloned()
            .unwrap_or_default()
    };
    let mut found = Vec::new();
    for (at, segment) in (0..).zip(&evidence.plan.segments) {
        let names = evidence.words.segments.get(usize::from(at));
        let name = |value: u32| named(names, value);
        found.extend(cells(evidence, segment, Attribute::Segment(at), &name));
    }
    // Where arms serve builds of their own, a version has the units of one arm by design.
    if own_builds(evidence) {
        return found;
    }
    let versions = Some(&evidence.words.index_versions);
    let name = |value: u32| named(versions, value);
    let of_versions = cells(evidence, "index version", Attribute::IndexVersion, &name);
    found.extend(of_versions);
    found
}

/// The sample ratio in each segment, whatever it is overall: losses in one may be made up for by gains in
/// another. The level is shared by all segments, however many there are.
pub(super) fn sample_ratio_by_segment(
    evidence: &Evidence<'_>,
    stretches: &[Stretch],
    checks: &mut Vec<Check>,
) {
    let plan = evidence.plan;
    let cells = segment_cells(evidence);
    if cells.is_empty() {
        return;
    }
    let mut check = Check {
        id: "srm_segments".to_owned(),
        name: "Sample ratio by segment".to_owned(),
        status: Status::Skipped,
        finding: "the weights changed, and a segment may have grown in one stretch of weights more than in another"
            .to_owned(),
        p: None,
        threshold: None,
        hints: Vec::new(),
    };
    let [stretch] = stretches else {
        checks.push(check);
        return;
    };
    let tested = srm::search_cause(&cells, &stretch.shares).unwrap_or_default();
    let Some(worst) = tested.first() else {
        "no segment has five expected units in each arm".clone_into(&mut check.finding);
        checks.push(check);
        return;
    };
    // As for the whole: the sharper test at a first look, later the one that holds over all looks.
    let first = evidence.looks.looks.is_empty();
    let (p, threshold) = if first {
        (worst.p_adjusted, plan.design.alpha_srm)
    } else {
        let trials = count(tested.len() as u64);
        let least = tested
            .iter()
            .filter_map(|suspect| srm::sequential(&suspect.cell.counts, &stretch.shares).ok())
            .map(|test| test.p)
            .fold(1.0, f64::min);
        ((least * trials).min(1.0), srm::SEQUENTIAL_ALPHA)
    };
    let failed = p < threshold;
    check.status = status(failed, first && p < SRM_WARN);
    check.finding = format!(
        "of {} segments and versions, {} = `{}` is furthest from the plan: {} (p = {}, corrected for their number)",
        tested.len(),
        worst.cell.attribute,
        worst.cell.value,
        by_arm(plan, &worst.cell.counts),
        words::p(p)
    );
    check.p = Some(p);
    check.threshold = Some(threshold);
    if check.status != Status::Pass {
        check.hints.push(
            "units of this segment are lost, moved or found in one arm more than in another: look at what is special \
             in how it is assigned and logged"
                .to_owned(),
        );
    }
    checks.push(check);
}

/// Where the mismatch sits, most suspicious first.
fn suspects(evidence: &Evidence<'_>, stretches: &[Stretch]) -> Vec<String> {
    let plan = evidence.plan;
    let mut cells = segment_cells(evidence);
    let day = |day: u32| words::date(i64::from(day.cast_signed()));
    cells.extend(self::cells(
        evidence,
        "day of first exposure",
        Attribute::Day,
        &day,
    ));
    let total = expected(stretches, plan.arms.len());
    let mut hints: Vec<String> = srm::search_cause(&cells, &total)
        .unwrap_or_default()
        .into_iter()
        .filter(|suspect| suspect.p_adjusted < 0.01)
        .take(3)
        .map(|suspect| {
            let excess: Vec<String> = plan
                .arms
                .iter()
                .zip(&suspect.excess)
                .map(|(arm, excess)| format!("{} {}", arm.name, words::signed(*excess, 10.0)))
                .collect();
            let alone = if suspect.p_without > 0.01 {
                "; without it the rest is in balance"
            } else {
                ""
            };
            format!(
                "{} = `{}`: {} against plan (p = {}){alone}",
                suspect.cell.attribute,
                suspect.cell.value,
                excess.join(", "),
                words::p(suspect.p_adjusted),
            )
        })
        .collect();
    if hints.is_empty() {
        hints.push(
            "no segment, version or day stands out: look for loss that depends on the arm (crashes, \
             redirects, time-outs before the exposure is logged), for bots, and for an assignment that \
             is decided in one place and logged in another"
                .to_owned(),
        );
    }
    hints
}
