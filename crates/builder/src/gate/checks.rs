//! The checks, in the order of the report.

use std::collections::BTreeSet;
use std::time::Duration;

use refrain_engine::{OpenMode, Version};

use super::{Check, DriftGate, Gate, GateReport, QualityGate, Verdict};
use crate::evaluation::offline::OfflineReport;

/// The metrics that the gate holds against the champion's.
const HELD: [&str; 2] = ["recall_at_20", "ndcg_at_20"];

/// A segment of fewer listeners says nothing.
const MIN_SEGMENT_USERS: usize = 30;

/// What is checked.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// The version.
    pub version: &'a Version,
    /// The version it would replace.
    pub champion: Option<&'a Version>,
    /// How it did on held-out listens.
    pub offline: Option<&'a OfflineReport>,
    /// Recall of its index on golden queries, lower end, for want of listens.
    pub golden_recall: Option<f64>,
}

/// Runs every check. Reads the whole bundle: `O(bytes)`.
#[must_use]
pub fn check(gate: &Gate, subject: Subject<'_>) -> GateReport {
    let mut checks = Vec::new();
    structure(subject.version, &mut checks);
    policy(subject, &mut checks);
    recall(gate, subject, &mut checks);
    if let Some(quality) = gate.quality {
        self::quality(quality, subject, &mut checks);
    }
    if let Some(drift) = gate.drift {
        self::drift(drift, subject, &mut checks);
    }
    size_and_load(gate, subject.version, &mut checks);
    GateReport {
        passed: checks.iter().all(|check| check.verdict != Verdict::Failed),
        forced: None,
        checks,
        champion: subject.champion.map(|champion| champion.id().to_owned()),
        offline: subject.offline.cloned(),
    }
}

fn verdict(
    name: &str,
    threshold: impl Into<String>,
    value: impl Into<String>,
    passed: bool,
) -> Check {
    Check {
        name: name.to_owned(),
        threshold: threshold.into(),
        value: value.into(),
        verdict: if passed {
            Verdict::Passed
        } else {
            Verdict::Failed
        },
    }
}

fn skipped(name: &str, threshold: impl Into<String>, why: &str) -> Check {
    Check {
        name: name.to_owned(),
        threshold: threshold.into(),
        value: why.to_owned(),
        verdict: Verdict::Skipped,
    }
}

fn structure(version: &Version, checks: &mut Vec<Check>) {
    let (value, sound) = match version.verify() {
        Ok(_) => ("sound".to_owned(), true),
        Err(error) => (error.to_string(), false),
    };
    let expected = "files, checksums, graph and attributes agree";
    checks.push(verdict("structure", expected, value, sound));

    let items = version.items();
    let (mut not_finite, mut zero, mut first) = (0usize, 0usize, None);
    for ordinal in 0..items.len() {
        let vector = version.index().vector(ordinal).unwrap_or_default();
        let factor = version.factor(ordinal).unwrap_or_default();
        let broken = |row: &[f32]| row.is_empty() || row.iter().any(|value| !value.is_finite());
        if broken(&vector) || broken(&factor) {
            not_finite += 1;
            first = first.or(Some(ordinal));
        } else if items.popularity(ordinal) > 0.0 && factor.iter().all(|value| *value == 0.0) {
            zero += 1;
        }
    }
    let value = match first.and_then(|ordinal| items.id(ordinal)) {
        Some(id) => format!("{not_finite}, the first of item {id:?}"),
        None => not_finite.to_string(),
    };
    let passed = not_finite == 0;
    checks.push(verdict("structure.not_finite_vectors", "0", value, passed));
    let share = zero as f64 / f64::from(items.len().max(1));
    let value = format!("{zero} ({:.2} %)", share * 100.0);
    let expected = "at most 1 % of items that have listeners";
    checks.push(verdict(
        "structure.zero_vectors",
        expected,
        value,
        share <= 0.01,
    ));
    let ids: BTreeSet<&str> = (0..items.len())
        .filter_map(|ordinal| items.id(ordinal))
        .collect();
    let twice = items.len() as usize - ids.len();
    checks.push(verdict(
        "structure.ids_twice",
        "0",
        twice.to_string(),
        twice == 0,
    ));
}

fn policy(subject: Subject<'_>, checks: &mut Vec<Check>) {
    let name = "policy.forbidden_shown";
    let expected = "0 blocked or excluded items recommended";
    checks.push(match subject.offline {
        Some(offline) => {
            let shown = offline.forbidden_shown;
            verdict(name, expected, shown.to_string(), shown == 0)
        }
        None => skipped(name, expected, "no listens were given"),
    });
}

fn recall(gate: &Gate, subject: Subject<'_>, checks: &mut Vec<Check>) {
    let Some(recall) = gate.recall else { return };
    let expected = format!("at least {}, lower end of a 95 % interval", recall.min);
    let found = subject.offline.map(|offline| offline.index_recall);
    checks.push(match (found, subject.golden_recall) {
        (Some(found), _) => {
            let value = format!(
                "{:.4} (mean {:.4} of {} listeners, exclusions and heard items applied)",
                found.lower_95, found.mean, found.queries
            );
            verdict("recall", expected, value, found.lower_95 >= recall.min)
        }
        (None, Some(lower)) => {
            let value = format!("{lower:.4} (golden queries)");
            verdict("recall", expected, value, lower >= recall.min)
        }
        (None, None) => skipped("recall", expected, "no listens and no golden queries"),
    });
}

fn quality(gate: QualityGate, subject: Subject<'_>, checks: &mut Vec<Check>) {
    let percent = |share: f64| format!("{:+.2} %", share * 100.0);
    if let Some(times) = gate.min_times_popularity {
        let expected = format!("NDCG@20 at least {times} times popularity's");
        checks.push(match subject.offline {
            Some(offline) => {
                let (ours, theirs) = (offline.model.ndcg_at_20, offline.popularity.ndcg_at_20);
                let value = format!("{ours:.4} against {theirs:.4}");
                verdict(
                    "quality.popularity",
                    expected,
                    value,
                    ours >= times * theirs,
                )
            }
            None => skipped("quality.popularity", expected, "no listens were given"),
        });
    }
    let against = subject.offline.filter(|offline| offline.champion.is_some());
    for metric in HELD {
        let name = format!("quality.{metric}");
        let expected = format!("at most {} % below the champion", gate.max_loss * 100.0);
        let found = against.and_then(|offline| offline.against_champion.get(metric));
        checks.push(match found {
            Some(found) => {
                let value = format!(
                    "{} ({:.4} against {:.4}, difference {:+.4} to {:+.4}, {} listeners)",
                    percent(found.relative()),
                    found.ours,
                    found.theirs,
                    found.low_95,
                    found.high_95,
                    found.users
                );
                verdict(&name, expected, value, found.relative() >= -gate.max_loss)
            }
            None => skipped(&name, expected, "no champion or no listens were given"),
        });
    }
    let Some(most) = gate.max_segment_loss else {
        return;
    };
    for segment in against.iter().flat_map(|offline| &offline.segments) {
        let Some(found) = segment.against_champion.get("ndcg_at_20") else {
            continue;
        };
        let name = format!("quality.segment[{}]", segment.name);
        let expected = format!(
            "not certainly more than {} % below the champion",
            most * 100.0
        );
        if segment.users < MIN_SEGMENT_USERS {
            let why = format!("only {} listeners", segment.users);
            checks.push(skipped(&name, expected, &why));
            continue;
        }
        let value = format!(
            "{} ({:.4} against {:.4}, difference {:+.4} to {:+.4}, {} listeners)",
            percent(found.relative()),
            found.ours,
            found.theirs,
            found.low_95,
            found.high_95,
            found.users
        );
        let passed = found.high_95 >= -most * found.theirs;
        checks.push(verdict(&name, expected, value, passed));
    }
}

fn drift(gate: DriftGate, subject: Subject<'_>, checks: &mut Vec<Check>) {
    let no_champion = "no champion was given";
    let ours = subject.version.items();
    let theirs = subject.champion.map(Version::items);
    if let Some(most) = gate.max_item_change {
        let expected = format!("at most {} % more or fewer than the champion", most * 100.0);
        checks.push(match theirs {
            Some(theirs) => {
                let change = f64::from(ours.len()) / f64::from(theirs.len().max(1)) - 1.0;
                let value = format!(
                    "{} against {}: {:+.2} %",
                    ours.len(),
                    theirs.len(),
                    change * 100.0
                );
                verdict("drift.items", expected, value, change.abs() <= most)
            }
            None => skipped("drift.items", expected, no_champion),
        });
    }
    if let Some(most) = gate.max_missing_items {
        let expected = format!("at most {} % of the champion's", most * 100.0);
        checks.push(match theirs {
            Some(theirs) => {
                let missing = (0..theirs.len())
                    .filter(|&at| theirs.id(at).is_none_or(|id| ours.ordinal(id).is_none()))
                    .count();
                let share = missing as f64 / f64::from(theirs.len().max(1));
                let value = format!("{missing} items missing: {:.2} %", share * 100.0);
                verdict("drift.missing_items", expected, value, share <= most)
            }
            None => skipped("drift.missing_items", expected, no_champion),
        });
    }
    let offline = subject.offline;
    let needed = "no champion or no listens were given";
    if let Some(least) = gate.min_overlap {
        let expected = format!("at least {least} of the first 20 in common with the champion");
        checks.push(
            match offline.and_then(|offline| offline.overlap_with_champion) {
                Some(overlap) => verdict(
                    "drift.overlap",
                    expected,
                    format!("{overlap:.4}"),
                    overlap >= least,
                ),
                None => skipped("drift.overlap", expected, needed),
            },
        );
    }
    if let Some(most) = gate.max_popularity_ratio {
        let expected =
            format!("recommended items at most {most} times as popular as the champion's");
        let found = offline.and_then(|offline| {
            Some((
                offline.popularity_of_recommended,
                offline.popularity_of_champion?,
            ))
        });
        checks.push(match found {
            Some((ours, theirs)) => {
                let ratio = ours / theirs.max(f64::MIN_POSITIVE);
                let value = format!("{ratio:.3} (mean listeners {ours:.1} against {theirs:.1})");
                verdict("drift.popularity_bias", expected, value, ratio <= most)
            }
            None => skipped("drift.popularity_bias", expected, needed),
        });
    }
    if let Some(most) = gate.max_norm_ratio {
        let expected = format!("mean norm within a factor of {most} of the champion's");
        checks.push(match subject.champion {
            Some(champion) => {
                let (ours, theirs) = (mean_norm(subject.version), mean_norm(champion));
                let ratio = ours / theirs;
                let value = format!("{ratio:.3} ({ours:.4} against {theirs:.4})");
                let passed = ratio <= most && ratio >= most.recip();
                verdict("drift.norms", expected, value, passed)
            }
            None => skipped("drift.norms", expected, no_champion),
        });
    }
}

fn mean_norm(version: &Version) -> f64 {
    let index = version.index();
    let ordinals = 0..version.bundle().items().len();
    let norms = ordinals.filter_map(|ordinal| {
        let vector = index.vector(ordinal)?;
        let square: f64 = vector.iter().map(|&value| f64::from(value).powi(2)).sum();
        Some(square.sqrt())
    });
    norms.sum::<f64>() / index.len().max(1) as f64
}

fn size_and_load(gate: &Gate, version: &Version, checks: &mut Vec<Check>) {
    if let Some(size) = gate.size {
        let bytes: u64 = version
            .manifest()
            .files
            .values()
            .map(|file| file.bytes)
            .sum();
        let expected = format!("at most {} bytes", size.max_bytes);
        checks.push(verdict(
            "size",
            expected,
            bytes.to_string(),
            bytes <= size.max_bytes,
        ));
    }
    if let Some(load) = gate.load {
        let expected = format!("at most {} ms to open and warm", load.max_ms);
        let started = std::time::Instant::now();
        let opened = Version::open(version.dir(), OpenMode::Map)
            .map_err(|error| error.to_string())
            .and_then(|version| version.warm().map_err(|error| error.to_string()));
        let took: Duration = started.elapsed();
        let (value, passed) = match opened {
            Ok(_) => (
                format!("{:.1} ms", took.as_secs_f64() * 1e3),
                took.as_secs_f64() * 1e3 <= load.max_ms,
            ),
            Err(error) => (error, false),
        };
        checks.push(verdict("load", expected, value, passed));
    }
}
