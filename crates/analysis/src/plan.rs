//! What an experiment set out to show, as its owner declared it: `[experiment.NAME]` of the TOML
//! that the server runs, read for its design, metrics and policies.
//!
//! The analysis reads the server's own table, or one of the same shape with the analysis' further keys.
//! Keys that only the server needs are left to it; what stands in a metric, design or policy table is
//! checked here to the last key.

use std::collections::BTreeSet;
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
    /// Arms in the order of the file; the first is the control.
    pub arms: Vec<Arm>,
    /// How often one may look, and how sure one wants to be.
    pub design: Design,
    /// What is measured, in the order of the file.
    pub metrics: Vec<Metric>,
    /// Columns of the exposure log by which effects are also shown.
    pub segments: Vec<String>,
    /// What is done with bots, outliers and late data: fixed before anybody sees an effect.
    pub policy: Policy,
    /// xxh3-128 of the experiment's own part of the file.
    pub digest: String,
}

/// What kind of question an experiment asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Is the treatment better?
    Ab,
    /// Does the treatment hurt anything? No claim of success is made.
    Rollout,
    /// Computed and never shown: lists and cost are compared, listeners are not.
    Shadow,
    /// Two rankings in one list.
    Interleave,
    /// A frozen control group beside everything that shipped.
    Holdout,
}

/// An arm and its share of the experiment's units.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Arm {
    /// As the exposure log writes it in `variant`.
    pub name: String,
    /// Share of the units, all arms adding up to 1.
    pub share: f64,
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
const MAX_METRICS: usize = 64;
const MAX_ARMS: usize = 32;
const MAX_SEGMENTS: usize = 4;

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
        Ok(plan)
    }

    /// Reads a plan that need not know its size yet: [`crate::planner`] finds it.
    ///
    /// # Errors
    /// As [`Plan::from_toml`].
    pub fn draft(text: &str, name: Option<&str>) -> Result<Self, PlanError> {
        let file: raw::File = toml::from_str(text).map_err(|source| PlanError::Parse {
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
        let digest =
            xxhash_rust::xxh3::xxh3_128(toml::to_string(raw).unwrap_or_default().as_bytes());
        let raw: raw::Experiment =
            raw.clone()
                .try_into()
                .map_err(|source: toml::de::Error| PlanError::Field {
                    place: format!("experiment.{name}"),
                    problem: source.message().to_owned(),
                })?;
        raw.check(name, format!("{digest:032x}"))
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
    /// For people: `day 7 to 14`, `open`.
    #[must_use]
    pub fn describe(self) -> String {
        match self {
            Self::Closed { from_us, to_us } => {
                format!("{} to {} after first exposure", span(from_us), span(to_us))
            }
            Self::Open => "everything since first exposure (open)".to_owned(),
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

/// `7d`, `36h`, `90m`, `30s`, `0` in microseconds.
fn parse_duration(text: &str) -> Option<i64> {
    let text = text.trim();
    if text == "0" {
        return Some(0);
    }
    let at = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, unit) = text.split_at(at);
    let scale = match unit.trim() {
        "d" => DAY_US,
        "h" => 3_600_000_000,
        "m" | "min" => 60_000_000,
        "s" => 1_000_000,
        "us" | "µs" => 1,
        _ => return None,
    };
    let whole: i64 = number.parse().ok()?;
    whole.checked_mul(scale).filter(|us| *us <= 3_660 * DAY_US)
}

fn write_duration<S: serde::Serializer>(us: &i64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&span(*us))
}

fn read_duration<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_duration(&text).ok_or_else(|| {
        serde::de::Error::custom(format_args!(
            "`{text}` is no length of time such as `1d` or `6h`"
        ))
    })
}

mod raw {
    //! The tables as they stand in the file.

    use std::collections::BTreeMap;

    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize)]
    pub(super) struct File {
        #[serde(default)]
        pub(super) experiment: BTreeMap<String, toml::Table>,
    }

    #[derive(Deserialize)]
    pub(super) struct Experiment {
        #[serde(default = "ab")]
        kind: Kind,
        epoch: u32,
        #[serde(default)]
        owner: String,
        #[serde(default)]
        question: String,
        #[serde(default)]
        decision: String,
        #[serde(default, rename = "arm")]
        arms: Vec<RawArm>,
        #[serde(default)]
        design: RawDesign,
        #[serde(default, rename = "metric")]
        metrics: Vec<RawMetric>,
        #[serde(default)]
        segments: Vec<String>,
        #[serde(default)]
        policy: Policy,
    }

    fn ab() -> Kind {
        Kind::Ab
    }

    #[derive(Deserialize)]
    struct RawArm {
        name: String,
        weight: f64,
    }

    #[derive(Deserialize, Default)]
    #[serde(deny_unknown_fields)]
    struct RawDesign {
        method: Option<Method>,
        spending: Option<String>,
        alpha: Option<f64>,
        power: Option<f64>,
        alpha_deterioration: Option<f64>,
        alpha_quality: Option<f64>,
        alpha_srm: Option<f64>,
        max_units: Option<u64>,
        looks: Option<u32>,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct RawMetric {
        name: String,
        role: Role,
        #[serde(rename = "type", default = "mean")]
        kind: String,
        #[serde(default = "up")]
        direction: Direction,
        source: Option<String>,
        event: Option<String>,
        denominator: Option<String>,
        window: Option<String>,
        missing: Option<Missing>,
        #[serde(alias = "margin_abs")]
        margin: Option<f64>,
        margin_rel: Option<f64>,
        #[serde(alias = "mde_abs")]
        mde: Option<f64>,
        mde_rel: Option<f64>,
        covariate: Option<String>,
        cap: Option<f64>,
    }

    fn mean() -> String {
        "mean".to_owned()
    }

    fn up() -> Direction {
        Direction::Up
    }

    impl Experiment {
        pub(super) fn check(self, name: &str, digest: String) -> Result<Plan, PlanError> {
            let root = format!("experiment.{name}");
            let wrong = |field: &str, problem: String| PlanError::Field {
                place: format!("{root}.{field}"),
                problem,
            };
            if self.arms.len() < 2 || self.arms.len() > MAX_ARMS {
                return Err(wrong(
                    "arm",
                    format!(
                        "{} given; an experiment compares 2 to {MAX_ARMS}",
                        self.arms.len()
                    ),
                ));
            }
            let mut names = BTreeSet::new();
            let mut total = 0.0;
            for arm in &self.arms {
                if arm.name.is_empty() || !names.insert(arm.name.as_str()) {
                    return Err(wrong(
                        "arm",
                        format!("arm `{}` is empty or there twice", arm.name),
                    ));
                }
                if !(arm.weight.is_finite() && arm.weight > 0.0) {
                    return Err(wrong(
                        "arm",
                        format!(
                            "weight {} of `{}` is not a finite number above 0",
                            arm.weight, arm.name
                        ),
                    ));
                }
                total += arm.weight;
            }
            let arms = self
                .arms
                .iter()
                .map(|arm| Arm {
                    name: arm.name.clone(),
                    share: arm.weight / total,
                })
                .collect();
            if self.metrics.is_empty() {
                return Err(wrong(
                    "metric",
                    "none given; say what is to be measured".to_owned(),
                ));
            }
            if self.metrics.len() > MAX_METRICS {
                return Err(wrong(
                    "metric",
                    format!("{} given, at most {MAX_METRICS}", self.metrics.len()),
                ));
            }
            let mut seen = BTreeSet::new();
            let mut metrics = Vec::with_capacity(self.metrics.len());
            for (at, metric) in self.metrics.into_iter().enumerate() {
                let place = format!("{root}.metric[{at}]");
                let metric = metric.check(&place)?;
                if !seen.insert(metric.name.clone()) {
                    return Err(PlanError::Field {
                        place,
                        problem: format!("there is another metric `{}`", metric.name),
                    });
                }
                metrics.push(metric);
            }
            if self.kind == Kind::Ab && !metrics.iter().any(|m| m.role == Role::Success) {
                return Err(wrong(
                    "metric",
                    "an `ab` experiment needs a metric with role = \"success\"; \
                    use kind = \"rollout\" if it should only do no harm"
                        .to_owned(),
                ));
            }
            if self.segments.len() > MAX_SEGMENTS {
                return Err(wrong(
                    "segments",
                    format!("{} given, at most {MAX_SEGMENTS}", self.segments.len()),
                ));
            }
            if !(0.0..=1.0).contains(&self.policy.max_multi_arm)
                || self.policy.max_exposures_per_day == 0
            {
                return Err(wrong(
                    "policy",
                    "max_multi_arm is a share of 0 to 1, max_exposures_per_day at least 1"
                        .to_owned(),
                ));
            }
            Ok(Plan {
                experiment: name.to_owned(),
                epoch: self.epoch,
                kind: self.kind,
                owner: self.owner,
                question: self.question,
                decision: self.decision,
                arms,
                design: self.design.check(&format!("{root}.design"))?,
                metrics,
                segments: self.segments,
                policy: self.policy,
                digest,
            })
        }
    }

    impl RawDesign {
        fn check(self, place: &str) -> Result<Design, PlanError> {
            let wrong = |field: &str, problem: String| PlanError::Field {
                place: format!("{place}.{field}"),
                problem,
            };
            let base = Design::default();
            let level = |field: &str, given: Option<f64>, default: f64, max: f64| {
                let value = given.unwrap_or(default);
                if value.is_finite() && value > 0.0 && value < max {
                    Ok(value)
                } else {
                    Err(wrong(field, format!("{value} is not between 0 and {max}")))
                }
            };
            let spending = match self.spending.as_deref() {
                None => base.spending,
                Some("obf") => SpendingRule::Obf,
                Some("pocock") => SpendingRule::Pocock,
                Some(text) => text
                    .strip_prefix("power(")
                    .and_then(|t| t.strip_suffix(')'))
                    .and_then(|rho| rho.trim().parse::<f64>().ok())
                    .filter(|rho| rho.is_finite() && *rho > 0.0 && *rho <= 20.0)
                    .map(SpendingRule::Power)
                    .ok_or_else(|| {
                        wrong(
                            "spending",
                            format!("`{text}` is none of obf, pocock, power(RHO)"),
                        )
                    })?,
            };
            let design = Design {
                method: self.method.unwrap_or(base.method),
                spending,
                alpha: level("alpha", self.alpha, base.alpha, 0.5)?,
                power: level("power", self.power, base.power, 1.0)?,
                alpha_deterioration: level(
                    "alpha_deterioration",
                    self.alpha_deterioration,
                    base.alpha_deterioration,
                    0.5,
                )?,
                alpha_quality: level("alpha_quality", self.alpha_quality, base.alpha_quality, 0.5)?,
                alpha_srm: level("alpha_srm", self.alpha_srm, base.alpha_srm, 0.5)?,
                max_units: self.max_units,
                looks: self.looks.unwrap_or(1),
            };
            if design.max_units == Some(0) {
                return Err(wrong("max_units", "0 units tell nothing".to_owned()));
            }
            if design.looks == 0 || design.looks > 1_000 {
                return Err(wrong(
                    "looks",
                    format!("{} is not between 1 and 1000", design.looks),
                ));
            }
            Ok(design)
        }
    }

    impl RawMetric {
        fn check(self, place: &str) -> Result<Metric, PlanError> {
            let name = self.name.clone();
            let wrong = |field: &str, problem: String| PlanError::Field {
                place: format!("{place} ({name}).{field}"),
                problem,
            };
            if self.name.trim().is_empty() || self.name.len() > 64 {
                return Err(wrong("name", "is not 1 to 64 bytes".to_owned()));
            }
            let kind = match self.kind.as_str() {
                "mean" => MetricType::Mean,
                "proportion" => MetricType::Proportion,
                "ratio" => MetricType::Ratio,
                text => text.strip_prefix("quantile(").and_then(|t| t.strip_suffix(')'))
                    .and_then(|p| p.trim().parse::<f64>().ok())
                    .filter(|p| *p > 0.0 && *p < 1.0)
                    .map(MetricType::Quantile)
                    .ok_or_else(|| wrong("type", format!(
                        "`{text}` is none of mean, proportion, ratio, quantile(P) with P between 0 and 1")))?,
            };
            let source = |text: &str, field: &str| match text {
                "exposure.latency_us" => Ok(Source::Exposure(ExposureValue::Latency)),
                "exposure.empty" => Ok(Source::Exposure(ExposureValue::Empty)),
                "exposure.degraded" => Ok(Source::Exposure(ExposureValue::Degraded)),
                "exposure.count" => Ok(Source::Exposure(ExposureValue::Count)),
                text if text.starts_with("exposure.") => Err(wrong(
                    field,
                    format!(
                        "`{text}` is none of exposure.latency_us, exposure.empty, exposure.degraded, exposure.count"
                    ),
                )),
                "" => Err(wrong(field, "is empty".to_owned())),
                event => Ok(Source::Event(event.to_owned())),
            };
            let value = match (&self.source, &self.event) {
                (Some(_), Some(_)) => {
                    return Err(wrong(
                        "source",
                        "and event say the same thing twice".to_owned(),
                    ));
                }
                (Some(text), None) | (None, Some(text)) => source(text, "source")?,
                (None, None) if self.name.starts_with("latency") => {
                    Source::Exposure(ExposureValue::Latency)
                }
                (None, None) => source(&self.name, "source")?,
            };
            let denominator = match (&self.denominator, kind) {
                (Some(text), MetricType::Ratio) => Some(source(text, "denominator")?),
                (None, MetricType::Ratio) => {
                    return Err(wrong(
                        "denominator",
                        "is missing: a ratio has one".to_owned(),
                    ));
                }
                (Some(_), _) => {
                    return Err(wrong(
                        "denominator",
                        "belongs to type = \"ratio\"".to_owned(),
                    ));
                }
                (None, _) => None,
            };
            let window = match self.window.as_deref() {
                None if matches!(value, Source::Exposure(_)) => Window::Open,
                None => return Err(wrong("window", "is missing: `closed(0d,7d)` counts units that had a whole week, \
                    `open` counts what there is and only describes".to_owned())),
                Some("open") => Window::Open,
                Some(text) => parse_window(text).ok_or_else(|| wrong("window", format!(
                    "`{text}` is neither `open` nor `closed(FROM,TO)` such as `closed(7d,14d)`")))?,
            };
            let distance = |field: &str, absolute: Option<f64>, relative: Option<f64>| {
                let chosen = match (absolute, relative) {
                    (Some(_), Some(_)) => {
                        return Err(wrong(
                            field,
                            format!("give {field} or {field}_rel, not both"),
                        ));
                    }
                    (Some(value), None) => Some(Margin::Absolute(value)),
                    (None, Some(value)) => Some(Margin::Relative(value)),
                    (None, None) => None,
                };
                match chosen {
                    Some(Margin::Absolute(v) | Margin::Relative(v))
                        if !(v.is_finite() && v > 0.0) =>
                    {
                        Err(wrong(field, format!("{v} is not a finite number above 0")))
                    }
                    other => Ok(other),
                }
            };
            let margin = distance("margin", self.margin, self.margin_rel)?;
            let mde = distance("mde", self.mde, self.mde_rel)?;
            let missing = self.missing.unwrap_or(match (kind, &value) {
                (MetricType::Proportion, _) => Missing::Zero,
                _ => Missing::Exclude,
            });
            if self.cap.is_some_and(|cap| !cap.is_finite()) {
                return Err(wrong("cap", "is not a finite number".to_owned()));
            }
            if self.covariate.is_some() && matches!(kind, MetricType::Quantile(_)) {
                return Err(wrong("covariate", "cannot adjust a quantile".to_owned()));
            }
            Ok(Metric {
                name: self.name,
                role: self.role,
                kind,
                direction: self.direction,
                source: value,
                denominator,
                window,
                missing,
                margin,
                mde,
                covariate: self.covariate,
                cap: self.cap,
            })
        }
    }

    fn parse_window(text: &str) -> Option<Window> {
        let inner = text.strip_prefix("closed(")?.strip_suffix(')')?;
        let (from, to) = match inner.split_once(',') {
            Some((from, to)) => (parse_duration(from)?, parse_duration(to)?),
            None => (0, parse_duration(inner)?),
        };
        (from < to).then_some(Window::Closed {
            from_us: from,
            to_us: to,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
[layer.ranking]
epoch = 1
[experiment.blend]
kind = "ab"
layer = "ranking"
epoch = 3
allocation_bp = 1000
design = { method = "gst", spending = "power(2)", alpha = 0.05, power = 0.8, max_units = 5000 }
segments = ["surface"]
policy = { settle = "1d" }
[[experiment.blend.arm]]
name = "control"
weight = 1
params = { "blend.alpha" = 0.0 }
[[experiment.blend.arm]]
name = "blend03"
weight = 3
[[experiment.blend.metric]]
name = "minutes_w2"
event = "listen_minutes"
role = "success"
window = "closed(7d,14d)"
[[experiment.blend.metric]]
name = "latency_p99"
role = "guardrail"
type = "quantile(0.99)"
direction = "down"
margin_rel = 0.03
"#;

    #[test]
    fn the_file_of_the_server_is_the_plan() {
        let plan = Plan::from_toml(GOOD, None).expect("good");
        assert_eq!(plan.epoch, 3);
        assert_eq!(plan.arms[1].share, 0.75);
        assert_eq!(plan.policy.settle, DAY_US);
        assert_eq!(
            plan.metrics[0].window,
            Window::Closed {
                from_us: 7 * DAY_US,
                to_us: 14 * DAY_US
            }
        );
        assert_eq!(
            plan.metrics[1].source,
            Source::Exposure(ExposureValue::Latency)
        );
        assert_eq!(plan.metrics[1].margin, Some(Margin::Relative(0.03)));
        assert_eq!(plan.digest.len(), 32);
    }

    #[test]
    fn every_mistake_is_named_with_its_place() {
        for (from, to, says) in [
            (
                "closed(7d,14d)",
                "closed(14d,7d)",
                "metric[0] (minutes_w2).window",
            ),
            ("closed(7d,14d)", "week", "window"),
            ("max_units = 5000", "max_units = 0", "design.max_units"),
            (", max_units = 5000", "", "refrain experiment plan"),
            ("alpha = 0.05", "alpha = 1.5", "design.alpha"),
            ("power(2)", "power(-1)", "design.spending"),
            ("role = \"success\"", "role = \"sucess\"", "sucess"),
            (
                "role = \"success\"",
                "role = \"scan\"",
                "needs a metric with role",
            ),
            ("quantile(0.99)", "quantile(1.2)", "type"),
            ("margin_rel = 0.03", "margin_rel = -1", "margin"),
            ("margin_rel = 0.03", "margin_real = 1", "margin_real"),
            ("weight = 3", "weight = nan", "weight"),
            ("name = \"blend03\"", "name = \"control\"", "there twice"),
            ("settle = \"1d\"", "settle = \"soon\"", "soon"),
        ] {
            let text = GOOD.replace(from, to);
            assert_ne!(text, GOOD, "{from}");
            let error = Plan::from_toml(&text, Some("blend"))
                .expect_err(to)
                .to_string();
            assert!(error.contains(says), "{to}: {error}");
        }
        let error = Plan::from_toml(GOOD, Some("bland"))
            .expect_err("unknown")
            .to_string();
        assert!(error.contains("blend"), "{error}");
    }
}
