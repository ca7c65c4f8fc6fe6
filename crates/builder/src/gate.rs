//! What a bundle must be before it meets listeners: thresholds in `gate.toml`, one verdict a check.
//!
//! A gate says no on the first kind of harm that it finds and on every other: all checks run, each states
//! its threshold, what was measured and its verdict. A check that cannot be made (no champion, no listens)
//! is listed as skipped, never as passed.

mod checks;

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::evaluation::offline::OfflineReport;

pub use checks::{Subject, check};

/// The thresholds in force when there is no `gate.toml`, with comments.
pub const DEFAULT_TOML: &str = include_str!("gate/gate.toml");

/// Thresholds. A section that is absent checks nothing.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gate {
    /// Of the index.
    pub recall: Option<RecallGate>,
    /// Of the recommendations.
    pub quality: Option<QualityGate>,
    /// Of the difference to the champion.
    pub drift: Option<DriftGate>,
    /// Of the bytes.
    pub size: Option<SizeGate>,
    /// Of the time to open.
    pub load: Option<LoadGate>,
}

/// Thresholds of the index.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecallGate {
    /// Least recall@10, lower end of a one-sided 95 % interval, 0 to 1.
    pub min: f64,
}

/// Thresholds of the recommendations.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QualityGate {
    /// Largest relative loss against the champion over all listeners, 0 to 1.
    pub max_loss: f64,
    /// Largest relative loss of a segment that may be certain.
    pub max_segment_loss: Option<f64>,
    /// Least NDCG@20 as a multiple of popularity's.
    pub min_times_popularity: Option<f64>,
}

/// Thresholds of the difference to the champion.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DriftGate {
    /// Largest relative change of the number of items.
    pub max_item_change: Option<f64>,
    /// Largest share of the champion's items that may be missing.
    pub max_missing_items: Option<f64>,
    /// Least mean share of the first 20 in common.
    pub min_overlap: Option<f64>,
    /// Largest ratio of the mean popularity of what is recommended.
    pub max_popularity_ratio: Option<f64>,
    /// Largest ratio of mean norms, either way.
    pub max_norm_ratio: Option<f64>,
}

/// Thresholds of the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SizeGate {
    /// Most bytes of all files together.
    pub max_bytes: u64,
}

/// Thresholds of the time to open.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoadGate {
    /// Most milliseconds to open and warm.
    pub max_ms: f64,
}

/// What a check found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Within the threshold.
    Passed,
    /// Not within the threshold.
    Failed,
    /// Could not be made.
    Skipped,
}

/// One check.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Check {
    /// What is checked: `recall`, `quality.ndcg_at_20`, `drift.missing_items` …
    pub name: String,
    /// The threshold, in words.
    pub threshold: String,
    /// What was measured, in words.
    pub value: String,
    /// The verdict.
    pub verdict: Verdict,
}

/// Who let a bundle pass that the gate stopped, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forced {
    /// The reason given.
    pub reason: String,
    /// The user of the machine.
    pub by: String,
}

/// What a gate found: sealed in the bundle.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GateReport {
    /// Whether no check failed.
    pub passed: bool,
    /// Set when a failed gate was overruled: the mark that stays visible.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forced: Option<Forced>,
    /// The checks, in a fixed order.
    pub checks: Vec<Check>,
    /// The champion compared with.
    pub champion: Option<String>,
    /// The measurements behind the checks, where listens were given.
    pub offline: Option<OfflineReport>,
}

/// A gate's file is not what it must be.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GateError {
    /// The file cannot be read; the message has the path.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The file is no gate; the source names line and column.
    #[error("{file}: {source}")]
    Toml {
        /// The file.
        file: String,
        /// Why.
        source: Box<toml::de::Error>,
    },
    /// A threshold out of its range.
    #[error("{file}: {field} is {value}, but must be {expected}")]
    Range {
        /// The file.
        file: String,
        /// The field's path.
        field: &'static str,
        /// Its value.
        value: f64,
        /// The range in words.
        expected: &'static str,
    },
}

impl Gate {
    /// Reads a `gate.toml`, of at most 1 MiB.
    ///
    /// # Errors
    /// See [`GateError`].
    pub fn read(path: &Path) -> Result<Self, GateError> {
        use std::io::Read as _;
        let mut text = String::new();
        fs_err::File::open(path)?
            .take(1 << 20)
            .read_to_string(&mut text)?;
        Self::parse(&text, &path.display().to_string())
    }

    /// Reads the text of a `gate.toml`; `file` is what errors call it.
    ///
    /// # Errors
    /// See [`GateError`].
    pub fn parse(text: &str, file: &str) -> Result<Self, GateError> {
        let gate: Self = toml::from_str(text).map_err(|source| GateError::Toml {
            file: file.to_owned(),
            source: Box::new(source),
        })?;
        gate.validate()
            .map_err(|(field, value, expected)| GateError::Range {
                file: file.to_owned(),
                field,
                value,
                expected,
            })?;
        Ok(gate)
    }

    fn validate(&self) -> Result<(), (&'static str, f64, &'static str)> {
        let share = |field, value: Option<f64>| match value {
            Some(value) if !(0.0..=1.0).contains(&value) => Err((field, value, "from 0 to 1")),
            _ => Ok(()),
        };
        let at_least = |field, value: Option<f64>, least: f64, expected| match value {
            Some(value) if !(value >= least && value.is_finite()) => Err((field, value, expected)),
            _ => Ok(()),
        };
        share("recall.min", self.recall.map(|recall| recall.min))?;
        if let Some(quality) = self.quality {
            share("quality.max_loss", Some(quality.max_loss))?;
            share("quality.max_segment_loss", quality.max_segment_loss)?;
            let least = quality.min_times_popularity;
            at_least(
                "quality.min_times_popularity",
                least,
                0.0,
                "finite and not negative",
            )?;
        }
        if let Some(drift) = self.drift {
            at_least(
                "drift.max_item_change",
                drift.max_item_change,
                0.0,
                "finite and not negative",
            )?;
            share("drift.max_missing_items", drift.max_missing_items)?;
            share("drift.min_overlap", drift.min_overlap)?;
            let ratio = "finite and at least 1";
            at_least(
                "drift.max_popularity_ratio",
                drift.max_popularity_ratio,
                1.0,
                ratio,
            )?;
            at_least("drift.max_norm_ratio", drift.max_norm_ratio, 1.0, ratio)?;
        }
        let most = self.load.map(|load| load.max_ms);
        at_least("load.max_ms", most, 0.0, "finite and not negative")
    }
}

impl GateReport {
    /// The names of the checks that failed.
    pub fn failed(&self) -> impl Iterator<Item = &str> {
        self.checks
            .iter()
            .filter(|check| check.verdict == Verdict::Failed)
            .map(|check| check.name.as_str())
    }
}

#[cfg(test)]
mod tests;
