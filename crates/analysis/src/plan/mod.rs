//! What an experiment set out to show, as its owner declared it: `[experiment.NAME]` of the TOML
//! that the server runs, read for its design, metrics and policies.
//!
//! The analysis reads the server's own table, or one of the same shape with the analysis' further keys.
//! Keys that only the server needs are left to it; what stands in a metric, design or policy table is
//! checked here to the last key.

mod file;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// One experiment with everything that the analysis must know before it sees an outcome.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Plan {
    /// Name of the experiment.
    pub experiment: String,
    /// Its epoch; exposures of other epochs are not read.
    pub epoch: u32,
    /// What kind of question it is.
    pub kind: Kind,
    /// Who answers for it.
    pub owner: String,
    /// What it is to find out.
    pub question: String,
    /// What will be done with the result.
    pub decision: String,
    /// The journal of the server's configuration, where this is that file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub journal: Option<String>,
    /// How often this analysis is to be made anew, in microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cadence: Option<i64>,
    /// Who may see the report.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub access: String,
    /// Of [`Kind::Holdout`]: name of the holdout, whose epoch is [`Plan::epoch`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub holdout: Option<String>,
    /// Arms in the order of the file; the first is the control.
    pub arms: Vec<Arm>,
    /// How often one may look, and how sure one wants to be.
    pub design: Design,
    /// What is measured, in the order of the file.
    pub metrics: Vec<Metric>,
    /// Guardrails that no log can have, and that are watched where requests are answered.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<String>,
    /// Columns of the exposure log by which effects are also shown: first those in which a difference was
    /// expected, then those that are only explored.
    pub segments: Vec<String>,
    /// How many of [`Plan::segments`] were declared to confirm something.
    pub confirmatory: usize,
    /// An event by which a unit takes up what its arm offers: the effect on those who did is shown
    /// beside the effect of the offer. Without one, being served the assigned arm is what is taken up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uptake: Option<String>,
    /// What is done with bots, outliers and late data: fixed before anybody sees an effect.
    pub policy: Policy,
    /// xxh3-128 of the experiment's own part of the file.
    pub digest: String,
}

/// What the log writes in `variant` where two arms draft one list.
pub const INTERLEAVED: &str = "interleaved";

/// What the log calls the two sides of a holdout.
pub(crate) const HOLDOUT_ARMS: [&str; 2] = ["held", "slice"];

/// What kind of question an experiment asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Is the treatment better?
    Ab,
    /// Does the treatment hurt anything? No claim of success is made.
    Rollout,
    /// Two rankings in one list.
    Interleave,
    /// What was everything worth that shipped meanwhile? Units held out of all experiments against an
    /// equally large random slice of the rest.
    Holdout,
}

/// An arm, its share of the experiment's units, and what it changes.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Arm {
    /// As the exposure log writes it in `variant`.
    pub name: String,
    /// Share of the units, all arms adding up to 1.
    pub share: f64,
    /// The ranking variant that the arm names.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub variant: String,
    /// Parameters that the arm sets.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub params: BTreeMap<String, toml::Value>,
    /// When its index was built, in microseconds since 1970, where the plan says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub built_us: Option<i64>,
}

impl Arm {
    /// What it changes, as people read it: `balanced, alpha = 0.3`.
    #[must_use]
    pub fn changes(&self) -> String {
        let params = self
            .params
            .iter()
            .map(|(name, value)| format!("{name} = {value}"));
        let variant = (!self.variant.is_empty()).then(|| self.variant.clone());
        variant
            .into_iter()
            .chain(params)
            .collect::<Vec<_>>()
            .join(", ")
    }
}

/// How often one may look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// Group-sequential with an alpha-spending function: look whenever you like, the looks are paid
    /// from one budget. Needs `max_units`.
    Gst,
    /// A confidence sequence: valid at every moment at once, for ever.
    AlwaysValid,
    /// The mixture sequential probability ratio test: valid at every moment at once as well, and sharpest
    /// for effects of about the size that matters (`mde`, `margin`).
    Msprt,
    /// One look at the planned size.
    Fixed,
    /// A planned number of looks, the level divided by it.
    Bonferroni,
    /// Stop when the estimate is precise enough to have the planned power; effects stay hidden until
    /// then.
    FixedPower,
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gst => "group-sequential",
            Self::AlwaysValid => "always-valid",
            Self::Msprt => "mixture SPRT",
            Self::Fixed => "fixed sample",
            Self::Bonferroni => "Bonferroni looks",
            Self::FixedPower => "fixed power",
        })
    }
}

/// How the error budget is spent over the looks of a group-sequential design.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SpendingRule {
    /// `alpha t^rho`.
    Power(f64),
    /// O'Brien-Fleming-like: almost nothing early.
    Obf,
    /// Pocock-like: nearly the same bound at every look.
    Pocock,
}

/// Levels and size.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Design {
    /// How looks are paid for.
    pub method: Method,
    /// For [`Method::Gst`].
    pub spending: SpendingRule,
    /// Chance of a false ship that the owner accepts, in one direction. 0 to 0.5.
    pub alpha: f64,
    /// Chance to see an effect of the size that matters. 0 to 1.
    pub power: f64,
    /// Level of the deterioration tests, over all metrics.
    pub alpha_deterioration: f64,
    /// Level of the quality tests other than the sample ratio, over all of them.
    pub alpha_quality: f64,
    /// Level at which the sample ratio makes an experiment invalid.
    pub alpha_srm: f64,
    /// Units of all arms together at which information is complete.
    pub max_units: Option<u64>,
    /// Planned looks of [`Method::Bonferroni`].
    pub looks: u32,
}

impl Default for Design {
    fn default() -> Self {
        Self {
            method: Method::Gst,
            spending: SpendingRule::Power(2.0),
            alpha: 0.05,
            power: 0.8,
            alpha_deterioration: 0.01,
            alpha_quality: 0.001,
            alpha_srm: 0.001,
            max_units: None,
            looks: 1,
        }
    }
}

/// What a metric is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// What the change should improve.
    Success,
    /// What it must not hurt, by more than the margin where one is given.
    Guardrail,
    /// Only watched for harm.
    Scan,
    /// No arm can change it: a difference, either way, makes the experiment invalid.
    Quality,
}

impl Role {
    /// Whether the verdict waits for such a metric; others are only watched, or asked before it.
    #[must_use]
    pub fn decides(self) -> bool {
        matches!(self, Self::Success | Self::Guardrail)
    }
}

/// Which way is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// More is better.
    Up,
    /// Less is better.
    Down,
}

impl Direction {
    /// +1 for up, -1 for down.
    #[must_use]
    pub fn sign(self) -> f64 {
        match self {
            Self::Up => 1.0,
            Self::Down => -1.0,
        }
    }
}

/// How a unit's events become the metric.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MetricType {
    /// Mean over units of the sum of the unit's values.
    Mean,
    /// Share of units with at least one event (of a value other than 0).
    Proportion,
    /// Sum of one thing over sum of another, by the delta method.
    Ratio,
    /// Quantile over all values, clustered by unit. In (0, 1).
    Quantile(f64),
}

/// Which of a unit's outcomes count, by age since its first exposure.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Window {
    /// From the first age up to but without the second, in microseconds; a unit counts once it is
    /// older than that.
    Closed {
        /// Start.
        from_us: i64,
        /// End.
        to_us: i64,
    },
    /// Everything so far. The unit's measurement goes on, so the effect is descriptive.
    Open,
    /// Each whole day of a unit's age, up to so many, is one measurement: the metric grows within units
    /// and is judged all the same, by generalised least squares on information
    /// ([`crate::methods::longitudinal`]).
    Daily {
        /// Days after which a unit has been measured fully.
        days: u16,
    },
}

/// Where the values come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// Outcomes with this event name.
    Event(String),
    /// A column of the exposures: one value each.
    Exposure(ExposureValue),
}

/// A number that every exposure carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ExposureValue {
    /// `latency_us`.
    Latency,
    /// 1 where nothing was returned.
    Empty,
    /// 1 where the answer was degraded.
    Degraded,
    /// 1.
    Count,
}

/// What becomes of a unit without any event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Missing {
    /// It counts as 0.
    Zero,
    /// It is left out, and a test asks whether the arms differ in that.
    Exclude,
}

/// A metric as declared.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Metric {
    /// Unique within the experiment.
    pub name: String,
    /// What it is for.
    pub role: Role,
    /// How it is computed.
    pub kind: MetricType,
    /// Which way is good.
    pub direction: Direction,
    /// Values, or the numerator of a ratio.
    pub source: Source,
    /// Denominator of a ratio.
    pub denominator: Option<Source>,
    /// Which outcomes count.
    pub window: Window,
    /// Without any event.
    pub missing: Missing,
    /// Largest harm that is still acceptable.
    pub margin: Option<Margin>,
    /// Smallest effect that matters.
    pub mde: Option<Margin>,
    /// Name of a covariate that was measured before the first exposure.
    pub covariate: Option<String>,
    /// A unit's value is at most this.
    pub cap: Option<f64>,
    /// Standard deviation of one unit as planned: [`Method::FixedPower`] does not stop on a smaller one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sd: Option<f64>,
}

/// A distance, in the metric's own unit or relative to the control.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Margin {
    /// In the metric's unit.
    Absolute(f64),
    /// As a share of the control's value.
    Relative(f64),
}

impl Margin {
    /// In the metric's unit, given the control's value.
    #[must_use]
    pub fn absolute(self, control: f64) -> f64 {
        match self {
            Self::Absolute(value) => value,
            Self::Relative(share) => share * control.abs(),
        }
    }
}

/// What is done with units that are no listeners, and when data counts as complete.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// A unit with more exposures than this on one UTC day is a bot. The same for all arms.
    pub max_exposures_per_day: u32,
    /// Whether units that the server flagged as bots are left out.
    pub drop_flagged: bool,
    /// How long after a window's end its outcomes may still arrive: `1d`, `6h`.
    #[serde(serialize_with = "write_duration", deserialize_with = "read_duration")]
    pub settle: i64,
    /// Share of units seen in two arms above which the experiment is invalid.
    pub max_multi_arm: f64,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            max_exposures_per_day: 1_000,
            drop_flagged: true,
            settle: 0,
            max_multi_arm: 0.001,
        }
    }
}

/// Why a plan is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// Not TOML, or not of this shape.
    #[error("{source}")]
    Parse {
        /// What the reader of TOML says.
        source: Box<toml::de::Error>,
    },
    /// The file has no such experiment.
    #[error("experiment `{name}` is not declared; declared: {known}")]
    UnknownExperiment {
        /// The name.
        name: String,
        /// Those that are.
        known: String,
    },
    /// An experiment without anybody to judge it by.
    #[error(
        "experiment `{name}` is of kind \"shadow\": its arms are computed beside what is served and never shown, \
         so no listener can tell which is better and there is no verdict. How its lists and times differ stands \
         in the section Lists of the report on an `ab` experiment with the same variants, and in the log under shadow/"
    )]
    Shadow {
        /// The experiment.
        name: String,
    },
    /// A value that cannot be meant.
    #[error("{place}: {problem}")]
    Field {
        /// Path of the field in the file.
        place: String,
        /// What is wrong and what would be right.
        problem: String,
    },
}

const DAY_US: i64 = 86_400_000_000;

impl Plan {
    /// Reads `[experiment.NAME]`; without a name, the only experiment of the file.
    ///
    /// # Errors
    /// [`PlanError`], with line and column or the path of the field.
    pub fn from_toml(text: &str, name: Option<&str>) -> Result<Self, PlanError> {
        let plan = Self::draft(text, name)?;
        let design = &plan.design;
        if design.max_units.is_none() && matches!(design.method, Method::Gst | Method::Fixed) {
            return Err(PlanError::Field {
                place: format!("experiment.{}.design.max_units", plan.experiment),
                problem: "is missing: this design says how many units it needs; \
                    `refrain experiment plan` computes it, or use method = \"always_valid\""
                    .to_owned(),
            });
        }
        plan.knows_what_matters()?;
        Ok(plan)
    }

    /// A design that stops on precision, or that looks for effects of a size, must know that size: without
    /// it every look at a metric would be judged as if it were the only one.
    fn knows_what_matters(&self) -> Result<(), PlanError> {
        let needs = match self.design.method {
            Method::FixedPower => "stops when the effect that matters can be seen",
            Method::Msprt => "looks for effects of about the size that matters",
            _ => return Ok(()),
        };
        let place = |at: usize, field: &str| {
            let name = &self.metrics[at].name;
            format!(
                "experiment.{}.metric[{at}] ({name}).{field}",
                self.experiment
            )
        };
        let method = self.design.method;
        let lacks = |at: usize, field: &str| PlanError::Field {
            place: place(at, field),
            problem: format!("is missing: a {method} design {needs}; give {field} or {field}_rel"),
        };
        for (at, metric) in self.metrics.iter().enumerate() {
            if metric.role == Role::Success && metric.mde.is_none() {
                return Err(lacks(at, "mde"));
            }
        }
        if self.with_role(Role::Success).next().is_some()
            || self.with_role(Role::Guardrail).any(|m| m.margin.is_some())
        {
            return Ok(());
        }
        let guardrail = self.metrics.iter().position(|m| m.role == Role::Guardrail);
        Err(guardrail.map_or_else(
            || PlanError::Field {
                place: format!("experiment.{}.design.method", self.experiment),
                problem: format!(
                    "a {method} design {needs}, and no metric is declared that decides: add one with role \
                     success or guardrail"
                ),
            },
            |at| lacks(at, "margin"),
        ))
    }

    /// Reads a plan that need not know its size yet: [`crate::sizing`] finds it.
    ///
    /// # Errors
    /// As [`Plan::from_toml`].
    pub fn draft(text: &str, name: Option<&str>) -> Result<Self, PlanError> {
        let file: file::File = toml::from_str(text).map_err(|source| PlanError::Parse {
            source: Box::new(source),
        })?;
        let known = || {
            let names: Vec<&str> = file.experiment.keys().map(String::as_str).collect();
            if names.is_empty() {
                "none".to_owned()
            } else {
                names.join(", ")
            }
        };
        let name = match name {
            Some(name) => name,
            None if file.experiment.len() == 1 => file.experiment.keys().next().map_or("", |n| n),
            None => {
                return Err(PlanError::UnknownExperiment {
                    name: String::new(),
                    known: known(),
                });
            }
        };
        let Some(raw) = file.experiment.get(name) else {
            return Err(PlanError::UnknownExperiment {
                name: name.to_owned(),
                known: known(),
            });
        };
        if raw.get("kind").and_then(toml::Value::as_str) == Some("shadow") {
            return Err(PlanError::Shadow {
                name: name.to_owned(),
            });
        }
        let digest =
            xxhash_rust::xxh3::xxh3_128(toml::to_string(raw).unwrap_or_default().as_bytes());
        let raw: file::Experiment =
            raw.clone()
                .try_into()
                .map_err(|source: toml::de::Error| PlanError::Field {
                    place: format!("experiment.{name}"),
                    problem: source.message().to_owned(),
                })?;
        let journal = file.assignment.journal;
        raw.check(name, format!("{digest:032x}"))
            .map(|plan| Self { journal, ..plan })
    }

    /// Number of treatment arms: all but the control.
    #[must_use]
    pub fn treatments(&self) -> usize {
        self.arms.len().saturating_sub(1)
    }

    /// Metrics of a role.
    pub fn with_role(&self, role: Role) -> impl Iterator<Item = &Metric> {
        self.metrics
            .iter()
            .filter(move |metric| metric.role == role)
    }
}

impl Window {
    /// Age from which on a unit can have a value, and age at which it is final; `None` where it never
    /// is.
    #[must_use]
    pub(crate) fn ages_us(self) -> Option<(i64, i64)> {
        match self {
            Self::Closed { to_us, .. } => Some((to_us, to_us)),
            Self::Daily { days } => Some((DAY_US, i64::from(days) * DAY_US)),
            Self::Open => None,
        }
    }

    /// For people: `day 7 to 14`, `open`.
    #[must_use]
    pub fn describe(self) -> String {
        match self {
            Self::Closed { from_us, to_us } => {
                format!("{} to {} after first exposure", span(from_us), span(to_us))
            }
            Self::Open => "everything since first exposure (open)".to_owned(),
            Self::Daily { days } => {
                format!("each of the first {days} days after first exposure (open)")
            }
        }
    }
}

/// A length of time in its largest whole unit: `7 d`, `12 h`, `90 s`.
#[must_use]
pub fn span(us: i64) -> String {
    for (unit, name) in [
        (DAY_US, "d"),
        (3_600_000_000, "h"),
        (60_000_000, "min"),
        (1_000_000, "s"),
    ] {
        if us % unit == 0 && (us != 0 || name == "d") {
            return format!("{} {name}", us / unit);
        }
    }
    format!("{us} µs")
}

fn write_duration<S: serde::Serializer>(us: &i64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&span(*us))
}

fn read_duration<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    let text = String::deserialize(deserializer)?;
    file::parse_duration(&text).ok_or_else(|| {
        serde::de::Error::custom(format_args!(
            "`{text}` is no length of time such as `1d` or `6h`"
        ))
    })
}
