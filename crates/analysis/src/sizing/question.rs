//! What is known before the start, and what of it cannot be.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::methods::MethodError;
use crate::plan::{MetricType, Plan};

/// What is known of a metric before the start.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Baseline {
    /// Its value without the treatment.
    pub value: f64,
    /// Standard deviation of one unit: the standard error of the value is `sd / √units`. For a ratio,
    /// of the linearised value; for a quantile, of its clustered estimate.
    pub sd: f64,
    /// Share of the variance that the covariate takes away, 0 to below 1.
    pub variance_reduction: f64,
}

impl Baseline {
    /// Of a proportion.
    #[must_use]
    pub fn share(share: f64) -> Self {
        Self {
            value: share,
            sd: (share * (1.0 - share)).max(0.0).sqrt(),
            variance_reduction: 0.0,
        }
    }
}

/// Units that come.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Traffic {
    /// New units a day that reach the surface.
    pub units_per_day: f64,
    /// Share of them that the experiment gets, above 0 and up to 1.
    pub allocation: f64,
}

/// What is asked.
#[derive(Debug, Clone, PartialEq)]
pub struct Question {
    /// By metric.
    pub baselines: BTreeMap<String, Baseline>,
    /// Units that come, if known.
    pub traffic: Option<Traffic>,
    /// Looks that will be made, evenly spaced; for the group-sequential design.
    pub looks: u32,
}

/// Why a size cannot be found.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SizingError {
    /// A baseline of a metric that the plan does not have.
    #[error("there is no metric `{name}` in the plan; it has {known}")]
    Unknown {
        /// As given.
        name: String,
        /// Those of the plan.
        known: String,
    },
    /// Metrics that decide and of which nothing is known.
    #[error(
        "nothing is known of {metrics}: how large they are without the treatment, and how much they vary"
    )]
    NoBaseline {
        /// Their names.
        metrics: String,
    },
    /// Nothing decides.
    #[error("no metric can be sized: {why}")]
    Nothing {
        /// Why not, for each metric.
        why: String,
    },
    /// Numbers that do not fit a metric.
    #[error("metric `{metric}`: {source}")]
    Metric {
        /// The metric.
        metric: String,
        /// What is wrong.
        source: MethodError,
    },
    /// Traffic that cannot be meant.
    #[error("{what} is {value}, not {range}")]
    Traffic {
        /// Which number.
        what: &'static str,
        /// As given.
        value: f64,
        /// What would be right.
        range: &'static str,
    },
}

/// What may be known of an experiment's metrics from an analysis of earlier data: the document that
/// `experiment analyze --json` prints, of the same metrics. Values of the control, and what the
/// covariate saved.
#[must_use]
pub fn baselines(analysis: &serde_json::Value) -> BTreeMap<String, Baseline> {
    let mut found = BTreeMap::new();
    for metric in analysis["metrics"].as_array().into_iter().flatten() {
        let control = &metric["arms"][0];
        if let (Some(name), Some(value), Some(se), Some(units)) = (
            metric["name"].as_str(),
            control["value"].as_f64(),
            control["se"].as_f64(),
            control["units"].as_f64(),
        ) {
            let covariate = &metric["comparisons"][0]["covariate"];
            let saved = covariate["variance_reduction"]
                .as_f64()
                .filter(|_| covariate["used"].as_bool() == Some(true));
            found.insert(
                name.to_owned(),
                Baseline {
                    value,
                    sd: se * units.sqrt(),
                    variance_reduction: saved.unwrap_or(0.0).clamp(0.0, 0.999),
                },
            );
        }
    }
    found
}

pub(super) fn check(plan: &Plan, question: &Question) -> Result<(), SizingError> {
    for (name, baseline) in &question.baselines {
        let Some(metric) = plan.metrics.iter().find(|m| m.name == *name) else {
            let names: Vec<&str> = plan.metrics.iter().map(|m| m.name.as_str()).collect();
            return Err(SizingError::Unknown {
                name: name.clone(),
                known: crate::verdict::words::list(&names),
            });
        };
        let share =
            !matches!(metric.kind, MetricType::Proportion) || (0.0..=1.0).contains(&baseline.value);
        if !baseline.value.is_finite() || !share {
            return Err(SizingError::Metric {
                metric: name.clone(),
                source: MethodError::OutOfRange {
                    what: "the baseline",
                    value: baseline.value,
                    range: if share {
                        "a finite number"
                    } else {
                        "a share from 0 to 1"
                    },
                },
            });
        }
    }
    let wrong = |what, value, range| Err(SizingError::Traffic { what, value, range });
    if let Some(traffic) = question.traffic {
        if !(traffic.units_per_day > 0.0 && traffic.units_per_day <= 1e12) {
            return wrong(
                "the number of units a day",
                traffic.units_per_day,
                "above 0 and at most 1e12",
            );
        }
        if !(traffic.allocation > 0.0 && traffic.allocation <= 1.0) {
            return wrong(
                "the allocation",
                traffic.allocation,
                "above 0 and at most 1",
            );
        }
    }
    if question.looks == 0 || question.looks > 200 {
        return wrong(
            "the number of looks",
            f64::from(question.looks),
            "from 1 to 200",
        );
    }
    Ok(())
}
