//! Have offline metrics foretold experiments? Over the archive of what was decided.
//!
//! Each pair of an offline metric and an online one is asked: every archived experiment that has both is
//! a point. What the correlations mean, and what they cannot, is in [`crate::methods::offline_online`].

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::archive::Entry;
use crate::methods::offline_online::{self, Agreement, Experiment, FEW_EXPERIMENTS};

/// Version of [`Foretelling`] as a document.
pub const SCHEMA: &str = "refrain.offline-online/1";

/// What is asked of the archive.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Question {
    /// Only this offline metric.
    pub offline: Option<String>,
    /// Only this online metric.
    pub online: Option<String>,
    /// Online effects as shares of the control instead of the metric's unit: for metrics whose level
    /// differs between experiments.
    pub relative: bool,
}

/// How offline metrics and online effects went together.
#[derive(Debug, Clone, Serialize)]
pub struct Foretelling {
    /// Version of this document.
    pub schema: &'static str,
    /// Entries of the archive.
    pub entries: u64,
    /// Whether online effects are relative.
    pub relative: bool,
    /// By offline and online metric.
    pub pairs: Vec<Pair>,
    /// Entries that give no point, and why.
    pub left_out: Vec<String>,
}

/// An offline metric against an online one.
#[derive(Debug, Clone, Serialize)]
pub struct Pair {
    /// The offline metric.
    pub offline: String,
    /// The online metric.
    pub online: String,
    /// Its points, oldest first.
    pub points: Vec<Past>,
    /// What they say together; absent with too few or without variance.
    pub agreement: Option<Agreement>,
    /// Why it is absent.
    pub why_not: Option<String>,
    /// What weakens it.
    pub warnings: Vec<String>,
}

/// A past experiment.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Past {
    /// Its name.
    pub experiment: String,
    /// Its epoch.
    pub epoch: u32,
    /// The treatment.
    pub arm: String,
    /// Change of the offline metric.
    pub offline: f64,
    /// Its standard error, where known.
    pub offline_se: Option<f64>,
    /// Effect measured online.
    pub online: f64,
    /// Its standard error.
    pub se: f64,
}

/// Asks the archive. Of several entries of one experiment and epoch the last counts. O(pairs ·
/// experiments²).
#[must_use]
pub fn ask(entries: &[Entry], question: &Question) -> Foretelling {
    let mut last: BTreeMap<(&str, u32), usize> = BTreeMap::new();
    for (at, entry) in entries.iter().enumerate() {
        last.insert((&entry.experiment, entry.epoch), at);
    }
    let counting: BTreeSet<usize> = last.into_values().collect();
    let mut left_out = Vec::new();
    let mut pairs: BTreeMap<(String, String), Vec<Past>> = BTreeMap::new();
    for (at, entry) in entries.iter().enumerate() {
        let name = format!(
            "line {}: {}, epoch {}",
            at + 1,
            entry.experiment,
            entry.epoch
        );
        if !counting.contains(&at) {
            left_out.push(format!("{name}: a later line has the same experiment"));
            continue;
        }
        if entry.offline.is_empty() {
            left_out.push(format!("{name}: no offline change was archived with it"));
            continue;
        }
        if entry.effects.is_empty() {
            left_out.push(format!(
                "{name}: it has no effects ({})",
                entry.recommendation
            ));
            continue;
        }
        let arms: BTreeSet<&str> = entry.effects.iter().map(|e| e.arm.as_str()).collect();
        for (key, &change) in &entry.offline {
            let (arm, offline) = match key.split_once(':') {
                Some((arm, offline)) if arms.contains(arm) => (Some(arm), offline),
                _ => (None, key.as_str()),
            };
            if arm.is_none() && arms.len() > 1 {
                left_out.push(format!(
                    "{name}: it has {} treatments, and `{key}` does not say of which; archive `ARM:{key}`",
                    arms.len()
                ));
                continue;
            }
            if question
                .offline
                .as_deref()
                .is_some_and(|only| only != offline)
            {
                continue;
            }
            for effect in &entry.effects {
                let other = arm.is_some_and(|arm| arm != effect.arm);
                if other
                    || question
                        .online
                        .as_deref()
                        .is_some_and(|only| only != effect.metric)
                {
                    continue;
                }
                let scale = if question.relative {
                    match effect.relative {
                        Some(lift) if effect.delta != 0.0 => lift / effect.delta,
                        _ => {
                            left_out
                                .push(format!("{name}: {} has no relative effect", effect.metric));
                            continue;
                        }
                    }
                } else {
                    1.0
                };
                pairs
                    .entry((offline.to_owned(), effect.metric.clone()))
                    .or_default()
                    .push(Past {
                        experiment: entry.experiment.clone(),
                        epoch: entry.epoch,
                        arm: effect.arm.clone(),
                        offline: change,
                        offline_se: entry.offline_se.get(key).copied(),
                        online: effect.delta * scale,
                        se: effect.se * scale.abs(),
                    });
            }
        }
    }
    Foretelling {
        schema: SCHEMA,
        entries: entries.len() as u64,
        relative: question.relative,
        pairs: pairs
            .into_iter()
            .map(|((offline, online), points)| pair(offline, online, points))
            .collect(),
        left_out,
    }
}

fn pair(offline: String, online: String, points: Vec<Past>) -> Pair {
    let experiments: Vec<Experiment> = points
        .iter()
        .map(|p| Experiment {
            offline: p.offline,
            online: p.online,
            se: p.se,
        })
        .collect();
    let (agreement, why_not) = match offline_online::agreement(&experiments, 0.95) {
        Ok(agreement) => (Some(agreement), None),
        Err(error) => (None, Some(error.to_string())),
    };
    let mut warnings = Vec::new();
    if let Some(agreement) = &agreement {
        if agreement.few {
            warnings.push(format!(
                "{} experiments: with fewer than {FEW_EXPERIMENTS} this is an anecdote",
                agreement.n
            ));
        }
        if agreement.noise_corrected.is_none() {
            warnings.push(
                "noise alone explains how the online effects differ: nothing can be foretold about \
                 differences that were not measured"
                    .to_owned(),
            );
        } else if agreement.noise_corrected_raw.is_some_and(|r| r.abs() > 1.0) {
            warnings.push(
                "the correlation without noise came out above 1 and is capped: too few experiments"
                    .to_owned(),
            );
        }
        if agreement.leave_one_out_rmse >= agreement.leave_one_out_baseline {
            warnings.push(
                "a line through the others predicts an experiment no better than their mean"
                    .to_owned(),
            );
        }
    }
    Pair {
        offline,
        online,
        points,
        agreement,
        why_not,
        warnings,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::Effect;

    fn entry(name: &str, offline: &[(&str, f64)], effects: &[(&str, f64, f64)]) -> Entry {
        Entry {
            experiment: name.to_owned(),
            epoch: 1,
            plan: String::new(),
            cutoff: String::new(),
            recommendation: "NO_SHIP".to_owned(),
            decision: "keep".to_owned(),
            by: "maria".to_owned(),
            reason: String::new(),
            at: String::new(),
            effects: effects
                .iter()
                .map(|&(arm, delta, se)| Effect {
                    metric: "minutes".to_owned(),
                    arm: arm.to_owned(),
                    delta,
                    se,
                    relative: Some(delta / 10.0),
                })
                .collect(),
            offline: offline.iter().map(|&(k, v)| (k.to_owned(), v)).collect(),
            offline_se: BTreeMap::new(),
            previous: String::new(),
        }
    }

    fn eight() -> Vec<Entry> {
        let off = [0.010, 0.004, -0.006, 0.020, 0.001, 0.013, -0.002, 0.008];
        let ab = [0.006, 0.001, -0.004, 0.009, 0.002, 0.004, -0.003, 0.007];
        let se = [0.002, 0.002, 0.003, 0.002, 0.002, 0.003, 0.002, 0.002];
        (0..8)
            .map(|i| {
                entry(
                    &format!("e{i}"),
                    &[("ndcg", off[i])],
                    &[("t", ab[i], se[i])],
                )
            })
            .collect()
    }

    /// The reference of E16, through the archive.
    #[test]
    fn the_archive_gives_the_reference() {
        let found = ask(&eight(), &Question::default());
        assert_eq!(found.pairs.len(), 1);
        let pair = &found.pairs[0];
        let agreement = pair.agreement.expect("eight experiments");
        assert!((agreement.pearson.value - 0.913_782).abs() < 1e-6);
        assert!((agreement.spearman.value - 0.880_952).abs() < 1e-6);
        assert!((agreement.kendall.value - 0.714_286).abs() < 1e-6);
        assert!((agreement.slope - 0.510_359).abs() < 1e-6);
        assert_eq!(
            pair.warnings.len(),
            2,
            "few, and capped: {:?}",
            pair.warnings
        );
        let relative = ask(
            &eight(),
            &Question {
                relative: true,
                ..Question::default()
            },
        );
        let scaled = relative.pairs[0].agreement.expect("eight experiments");
        assert!((scaled.slope - agreement.slope / 10.0).abs() < 1e-12);
        assert!((scaled.pearson.value - agreement.pearson.value).abs() < 1e-12);
    }

    #[test]
    fn what_gives_no_point_is_said() {
        let mut entries = eight();
        entries.push(entry("none", &[], &[("t", 1.0, 1.0)]));
        entries.push(entry("invalid", &[("ndcg", 1.0)], &[]));
        entries.push(entry(
            "two",
            &[("ndcg", 1.0)],
            &[("t", 1.0, 1.0), ("u", 1.0, 1.0)],
        ));
        entries.push(entry("e0", &[("ndcg", 0.5)], &[("t", 0.1, 0.1)]));
        let found = ask(&entries, &Question::default());
        assert_eq!(found.left_out.len(), 4, "{:?}", found.left_out);
        assert!(found.left_out[0].contains("line 1") && found.left_out[3].contains("ARM:ndcg"));
        let of_e0: Vec<f64> = found.pairs[0]
            .points
            .iter()
            .filter(|p| p.experiment == "e0")
            .map(|p| p.offline)
            .collect();
        assert_eq!(of_e0, [0.5], "the last line counts");
        // By arm.
        let two = entry(
            "two",
            &[("t:ndcg", 0.25), ("u:ndcg", -0.25)],
            &[("t", 1.0, 1.0), ("u", -1.0, 1.0)],
        );
        let found = ask(&[two], &Question::default());
        assert_eq!(found.pairs[0].points.len(), 2);
        assert!(
            found.pairs[0]
                .points
                .iter()
                .all(|p| p.offline * 4.0 == p.online)
        );
        assert!(
            found.pairs[0]
                .why_not
                .as_ref()
                .is_some_and(|why| why.contains('4'))
        );
        let none = ask(
            &eight(),
            &Question {
                online: Some("skips".to_owned()),
                ..Question::default()
            },
        );
        assert!(none.pairs.is_empty());
    }
}
