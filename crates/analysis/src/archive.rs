//! The archive of finished experiments: one JSON line each, chained, so that an edit shows.
//!
//! Each line carries the checksum of the line before it. That finds accidents and quiet corrections; it
//! is no signature against somebody who rewrites the whole file.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What was decided about an experiment, and what was known then.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Name of the experiment.
    pub experiment: String,
    /// Its epoch.
    pub epoch: u32,
    /// Digest of the plan.
    pub plan: String,
    /// End of the data, UTC.
    pub cutoff: String,
    /// What the tool recommended.
    pub recommendation: String,
    /// What the owner decided: `ship`, `keep`, `stop`, `repeat`.
    pub decision: String,
    /// Who decided.
    pub by: String,
    /// Why; required where the decision is not the recommended one.
    pub reason: String,
    /// When it was written down, UTC.
    pub at: String,
    /// Effects of the treatments.
    pub effects: Vec<Effect>,
    /// Changes of offline metrics, treatment against control, by name; `ARM:NAME` where there are
    /// several treatments.
    pub offline: BTreeMap<String, f64>,
    /// Their standard errors, where known.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub offline_se: BTreeMap<String, f64>,
    /// Checksum of the line before; empty for the first.
    pub previous: String,
}

/// An effect as it was known at the decision.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Effect {
    /// The metric.
    pub metric: String,
    /// The treatment.
    pub arm: String,
    /// Treatment minus control.
    pub delta: f64,
    /// Its standard error.
    pub se: f64,
    /// Relative lift, where the control is not 0.
    pub relative: Option<f64>,
}

/// Why an archive or an entry is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ArchiveError {
    /// A line that is no entry.
    #[error("line {line}: {problem}")]
    Line {
        /// Which, from 1.
        line: usize,
        /// What is wrong.
        problem: String,
    },
    /// A line whose predecessor is not what it was.
    #[error("line {line}: the line before it was changed or removed after this one was written")]
    Chain {
        /// Which, from 1.
        line: usize,
    },
    /// A decision against the recommendation without a reason.
    #[error("the recommendation is {recommendation}, the decision is `{decision}`: say why")]
    Reason {
        /// What the tool recommended.
        recommendation: String,
        /// What was decided.
        decision: String,
    },
    /// The same look at the same experiment is there already.
    #[error(
        "line {line} already holds the decision on {experiment}, epoch {epoch}, up to {cutoff}"
    )]
    Twice {
        /// Where.
        line: usize,
        /// Which experiment.
        experiment: String,
        /// Its epoch.
        epoch: u32,
        /// End of the data.
        cutoff: String,
    },
}

/// Reads an archive and checks its chain.
///
/// # Errors
/// [`ArchiveError`], with the line.
pub fn read(text: &str) -> Result<Vec<Entry>, ArchiveError> {
    let mut entries = Vec::new();
    let mut previous = String::new();
    for (at, line) in text.lines().enumerate() {
        let entry: Entry = serde_json::from_str(line).map_err(|error| ArchiveError::Line {
            line: at + 1,
            problem: error.to_string(),
        })?;
        if entry.previous != previous {
            return Err(ArchiveError::Chain { line: at + 1 });
        }
        previous = checksum(line);
        entries.push(entry);
    }
    Ok(entries)
}

/// The archive with one more entry, whose `previous` is set here.
///
/// # Errors
/// [`ArchiveError`]: a broken chain, a decision without its reason, or an entry that is there already.
pub fn append(text: &str, mut entry: Entry) -> Result<String, ArchiveError> {
    let entries = read(text)?;
    if !follows(&entry.recommendation, &entry.decision) && entry.reason.trim().is_empty() {
        return Err(ArchiveError::Reason {
            recommendation: entry.recommendation,
            decision: entry.decision,
        });
    }
    let twin = |old: &Entry| {
        (&old.experiment, old.epoch, &old.cutoff, &old.decision)
            == (
                &entry.experiment,
                entry.epoch,
                &entry.cutoff,
                &entry.decision,
            )
    };
    if let Some(at) = entries.iter().position(twin) {
        return Err(ArchiveError::Twice {
            line: at + 1,
            experiment: entry.experiment,
            epoch: entry.epoch,
            cutoff: entry.cutoff,
        });
    }
    entry.previous = text.lines().next_back().map(checksum).unwrap_or_default();
    let line = serde_json::to_string(&entry).map_err(|error| ArchiveError::Line {
        line: entries.len() + 1,
        problem: error.to_string(),
    })?;
    let mut whole = text.trim_end_matches('\n').to_owned();
    if !whole.is_empty() {
        whole.push('\n');
    }
    whole.push_str(&line);
    whole.push('\n');
    Ok(whole)
}

/// Whether a decision is the recommended one.
#[must_use]
pub fn follows(recommendation: &str, decision: &str) -> bool {
    match recommendation {
        "SHIP" | "ADVANCE" => decision == "ship",
        "STOP_HARM" => decision == "stop",
        "NO_SHIP" => decision == "keep",
        "INVALID" => decision == "repeat",
        _ => false,
    }
}

fn checksum(line: &str) -> String {
    format!("{:032x}", xxhash_rust::xxh3::xxh3_128(line.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, decision: &str, reason: &str) -> Entry {
        Entry {
            experiment: name.to_owned(),
            epoch: 1,
            plan: "d".to_owned(),
            cutoff: "2026-11-25 00:00:00 UTC".to_owned(),
            recommendation: "SHIP".to_owned(),
            decision: decision.to_owned(),
            by: "maria".to_owned(),
            reason: reason.to_owned(),
            at: "2026-11-25 00:00:00 UTC".to_owned(),
            effects: vec![Effect {
                metric: "m".to_owned(),
                arm: "t".to_owned(),
                delta: 1.0,
                se: 0.5,
                relative: None,
            }],
            offline: [("ndcg".to_owned(), 0.01)].into(),
            offline_se: BTreeMap::new(),
            previous: String::new(),
        }
    }

    #[test]
    fn an_edit_of_any_line_breaks_the_chain() {
        let mut text = String::new();
        for name in ["a", "b", "c"] {
            text = append(&text, entry(name, "ship", "")).expect("appended");
        }
        assert_eq!(read(&text).expect("whole").len(), 3);
        let edited = text.replacen("\"delta\":1.0", "\"delta\":9.0", 1);
        assert_eq!(read(&edited), Err(ArchiveError::Chain { line: 2 }));
        let removed: String = text
            .lines()
            .skip(1)
            .map(|line| format!("{line}\n"))
            .collect();
        assert_eq!(read(&removed), Err(ArchiveError::Chain { line: 1 }));
        assert!(matches!(
            read("{}\n"),
            Err(ArchiveError::Line { line: 1, .. })
        ));
    }

    #[test]
    fn a_decision_against_the_recommendation_needs_a_reason() {
        assert!(matches!(
            append("", entry("a", "keep", " ")),
            Err(ArchiveError::Reason { .. })
        ));
        let text = append("", entry("a", "keep", "too dear to run")).expect("with a reason");
        assert!(matches!(
            append(&text, entry("a", "keep", "again")),
            Err(ArchiveError::Twice { line: 1, .. })
        ));
    }
}
