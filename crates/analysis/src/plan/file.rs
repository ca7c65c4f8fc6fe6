//! The tables as they stand in the file, and what is checked when they are read.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::{
    Arm, DAY_US, Design, Direction, ExposureValue, HOLDOUT_ARMS, Kind, Margin, Method, Metric,
    MetricType, Missing, Plan, PlanError, Policy, Role, Source, SpendingRule, Window,
};

const MAX_METRICS: usize = 64;
const MAX_ARMS: usize = 32;
const MAX_SEGMENTS: usize = 4;
/// Days that an open metric may be measured on.
const MAX_DAYS: u16 = 366;

#[derive(Deserialize)]
pub(super) struct File {
    #[serde(default)]
    pub(super) experiment: BTreeMap<String, toml::Table>,
    #[serde(default)]
    pub(super) assignment: Assignment,
}

/// What the report tells of the server's own tables.
#[derive(Deserialize, Default)]
pub(super) struct Assignment {
    pub(super) journal: Option<String>,
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
    cadence: Option<String>,
    #[serde(default)]
    access: String,
    holdout: Option<String>,
    #[serde(default, rename = "arm")]
    arms: Vec<RawArm>,
    #[serde(default)]
    design: RawDesign,
    #[serde(default, rename = "metric")]
    metrics: Vec<RawMetric>,
    #[serde(default)]
    segments: Vec<String>,
    #[serde(default)]
    explore: Vec<String>,
    uptake: Option<String>,
    #[serde(default)]
    policy: Policy,
}

fn ab() -> Kind {
    Kind::Ab
}

#[derive(Deserialize)]
struct RawArm {
    name: String,
    #[serde(default = "one")]
    weight: f64,
    #[serde(default)]
    variant: String,
    #[serde(default)]
    params: BTreeMap<String, toml::Value>,
    built: Option<String>,
}

/// As the server has it.
fn one() -> f64 {
    1.0
}

impl RawArm {
    fn of(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            weight: one(),
            variant: String::new(),
            params: BTreeMap::new(),
            built: None,
        }
    }
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
    #[serde(rename = "type")]
    kind: Option<String>,
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
    sd: Option<f64>,
}

fn up() -> Direction {
    Direction::Up
}

impl Experiment {
    pub(super) fn check(mut self, name: &str, digest: String) -> Result<Plan, PlanError> {
        let root = format!("experiment.{name}");
        let wrong = |field: &str, problem: String| PlanError::Field {
            place: format!("{root}.{field}"),
            problem,
        };
        let holdout = match (self.kind, self.holdout.take()) {
            (Kind::Holdout, holdout) => {
                if !self.arms.is_empty() {
                    return Err(wrong(
                        "arm",
                        "a holdout has two of its own, `held` and `slice`, of equal size: leave them out"
                            .to_owned(),
                    ));
                }
                self.arms = HOLDOUT_ARMS.map(RawArm::of).into();
                Some(holdout.unwrap_or_else(|| name.to_owned()))
            }
            (_, Some(_)) => {
                return Err(wrong("holdout", "belongs to kind = \"holdout\"".to_owned()));
            }
            (_, None) => None,
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
        let mut arms = Vec::with_capacity(self.arms.len());
        for (at, arm) in self.arms.into_iter().enumerate() {
            let built_us = match arm.built.as_deref() {
                None => None,
                Some(text) => Some(instant(text).ok_or_else(|| {
                    wrong(
                        &format!("arm[{at}].built"),
                        format!("`{text}` is neither a UTC date such as 2026-11-22 nor an instant such as 2026-11-22T19:45:00Z"),
                    )
                })?),
            };
            arms.push(Arm {
                name: arm.name,
                share: arm.weight / total,
                variant: arm.variant,
                params: arm.params,
                built_us,
            });
        }
        let cadence = match self.cadence.as_deref() {
            None => None,
            Some(text) => Some(parse_duration(text).filter(|us| *us > 0).ok_or_else(|| {
                wrong(
                    "cadence",
                    format!("`{text}` is no length of time such as `1d` or `6h`"),
                )
            })?),
        };
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
        let mut left_out = Vec::new();
        for (at, mut metric) in self.metrics.into_iter().enumerate() {
            let place = format!("{root}.metric[{at}]");
            if metric.of_failures() {
                left_out.push(metric.name);
                continue;
            }
            metric.as_the_server_measures_it(self.kind);
            let metric = metric.check(&place)?;
            if !seen.insert(metric.name.clone()) {
                return Err(PlanError::Field {
                    place,
                    problem: format!("there is another metric `{}`", metric.name),
                });
            }
            metrics.push(metric);
        }
        if !metrics.iter().any(|m| m.role == Role::Success) {
            let problem = match self.kind {
                Kind::Ab => {
                    "an `ab` experiment needs a metric with role = \"success\"; \
                     use kind = \"rollout\" if it should only do no harm"
                }
                Kind::Holdout => {
                    "a holdout needs a metric with role = \"success\": what was shipped is to be worth \
                     something by it"
                }
                Kind::Rollout | Kind::Interleave => "",
            };
            if !problem.is_empty() {
                return Err(wrong("metric", problem.to_owned()));
            }
        }
        if self.kind == Kind::Interleave {
            if arms.len() != 2 {
                return Err(wrong(
                    "arm",
                    "two arms draft an interleaved list".to_owned(),
                ));
            }
            if let Some(at) = metrics.iter().position(|metric| {
                !matches!(metric.kind, MetricType::Mean | MetricType::Proportion)
                    || matches!(metric.source, Source::Exposure(_))
                    || matches!(metric.window, Window::Daily { .. })
                    || metric.covariate.is_some()
            }) {
                return Err(wrong(
                    &format!("metric[{at}] ({})", metrics[at].name),
                    "an interleaved list is judged by events on its items: type mean or proportion, a \
                     closed window, no covariate"
                        .to_owned(),
                ));
            }
        }
        if self.kind == Kind::Interleave
            && let Some(at) = metrics.iter().position(|m| m.role == Role::Quality)
        {
            return Err(wrong(
                &format!("metric[{at}] ({}).role", metrics[at].name),
                "is \"quality\", but everybody gets the one interleaved list: there are no arms to be the same"
                    .to_owned(),
            ));
        }
        if self.uptake.as_deref() == Some("") {
            return Err(wrong("uptake", "is empty; name an event".to_owned()));
        }
        let confirmatory = self.segments.len();
        let mut segments = self.segments;
        segments.extend(self.explore);
        if segments.len() > MAX_SEGMENTS {
            return Err(wrong(
                "segments",
                format!(
                    "{} given, `explore` included; at most {MAX_SEGMENTS}",
                    segments.len()
                ),
            ));
        }
        if let Some(twice) = segments
            .iter()
            .enumerate()
            .find_map(|(at, name)| segments[..at].contains(name).then_some(name))
        {
            return Err(wrong(
                "segments",
                format!("`{twice}` is there twice, `explore` included"),
            ));
        }
        if !(0.0..=1.0).contains(&self.policy.max_multi_arm)
            || self.policy.max_exposures_per_day == 0
        {
            return Err(wrong(
                "policy",
                "max_multi_arm is a share of 0 to 1, max_exposures_per_day at least 1".to_owned(),
            ));
        }
        Ok(Plan {
            experiment: name.to_owned(),
            epoch: self.epoch,
            kind: self.kind,
            owner: self.owner,
            question: self.question,
            decision: self.decision,
            journal: None,
            cadence,
            access: self.access,
            holdout,
            arms,
            design: self.design.check(&format!("{root}.design"), self.kind)?,
            metrics,
            left_out,
            segments,
            confirmatory,
            uptake: self.uptake,
            policy: self.policy,
            digest,
        })
    }
}

impl RawDesign {
    fn check(self, place: &str, kind: Kind) -> Result<Design, PlanError> {
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
            // A rollout goes on for as long as nothing happens: it has no planned end.
            method: self.method.unwrap_or(match kind {
                Kind::Rollout if self.max_units.is_none() => Method::AlwaysValid,
                _ => base.method,
            }),
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
    /// Whether the plan says where the values come from.
    fn has_source(&self) -> bool {
        self.source.is_some() || self.event.is_some()
    }

    /// A guardrail of the server that no log can have: a request that failed leaves no exposure.
    fn of_failures(&self) -> bool {
        self.name == "error_rate" && !self.has_source() && self.window.is_none()
    }

    /// The names of the server's own guardrails say what they are.
    fn as_the_server_measures_it(&mut self, kind: Kind) {
        if self.has_source() {
            return;
        }
        let rate = match self.name.as_str() {
            "empty_rate" => Some("exposure.empty"),
            "degraded_rate" => Some("exposure.degraded"),
            _ => None,
        };
        let percentile = self
            .name
            .strip_prefix("latency_p")
            .filter(|digits| (2..=3).contains(&digits.len()))
            .filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()));
        match (rate, percentile) {
            (Some(source), _) => {
                self.source = Some(source.to_owned());
                if self.kind.is_none() {
                    self.kind = Some("ratio".to_owned());
                    self.denominator = Some("exposure.count".to_owned());
                }
            }
            (None, Some(digits)) if self.kind.is_none() => {
                self.kind = Some(format!("quantile(0.{digits})"));
            }
            (None, Some(_)) => {}
            (None, None) => return,
        }
        // What goes on growing within units is only described; a rollout is to be judged.
        if kind == Kind::Rollout && self.window.is_none() {
            self.window = Some("closed(0d,1d)".to_owned());
        }
    }

    fn check(self, place: &str) -> Result<Metric, PlanError> {
        let name = self.name.clone();
        let wrong = |field: &str, problem: String| PlanError::Field {
            place: format!("{place} ({name}).{field}"),
            problem,
        };
        if self.name.trim().is_empty() || self.name.len() > 64 {
            return Err(wrong("name", "is not 1 to 64 bytes".to_owned()));
        }
        let kind = match self.kind.as_deref().unwrap_or("mean") {
            "mean" => MetricType::Mean,
            "proportion" => MetricType::Proportion,
            "ratio" => MetricType::Ratio,
            // As the server spells it.
            text if ratio_of(text).is_some() => MetricType::Ratio,
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
        let inside = self.kind.as_deref().and_then(ratio_of).map(str::to_owned);
        if inside.is_some() && self.denominator.is_some() {
            return Err(wrong(
                "denominator",
                "and the one in the type say the same thing twice".to_owned(),
            ));
        }
        let denominator = match (&self.denominator.or(inside), kind) {
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
            None => {
                return Err(wrong(
                    "window",
                    "is missing: `closed(0d,7d)` counts units that had a whole week, `open(14d)` counts \
                     each whole day of a unit's age up to 14, `open` counts what there is and only describes"
                        .to_owned(),
                ));
            }
            Some("open") => Window::Open,
            Some(text) => parse_window(text).ok_or_else(|| {
                wrong(
                    "window",
                    format!(
                        "`{text}` is none of `closed(FROM,TO)` such as `closed(7d,14d)`, `open(DAYS)` such \
                         as `open(14d)` with 2 to 366 days, and `open`"
                    ),
                )
            })?,
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
                Some(Margin::Absolute(v) | Margin::Relative(v)) if !(v.is_finite() && v > 0.0) => {
                    Err(wrong(field, format!("{v} is not a finite number above 0")))
                }
                other => Ok(other),
            }
        };
        let margin = distance("margin", self.margin, self.margin_rel)?;
        let mde = distance("mde", self.mde, self.mde_rel)?;
        if self.role == Role::Quality {
            for (field, given) in [("margin", margin), ("mde", mde)] {
                if given.is_some() {
                    return Err(wrong(
                        field,
                        "belongs to what an arm may change; a metric of role quality must not differ at all"
                            .to_owned(),
                    ));
                }
            }
        }
        let missing = self.missing.unwrap_or(match (kind, &value) {
            (MetricType::Proportion, _) => Missing::Zero,
            _ if matches!(window, Window::Daily { .. }) => Missing::Zero,
            _ => Missing::Exclude,
        });
        if self.cap.is_some_and(|cap| !cap.is_finite()) {
            return Err(wrong("cap", "is not a finite number".to_owned()));
        }
        if self.sd.is_some_and(|sd| !(sd.is_finite() && sd > 0.0)) {
            return Err(wrong("sd", "is not a finite number above 0".to_owned()));
        }
        if self.covariate.is_some() && matches!(kind, MetricType::Quantile(_)) {
            return Err(wrong("covariate", "cannot adjust a quantile".to_owned()));
        }
        if let Window::Daily { .. } = window {
            if !matches!(kind, MetricType::Mean | MetricType::Proportion)
                || matches!(value, Source::Exposure(_))
            {
                return Err(wrong(
                    "window",
                    "`open(DAYS)` is for a mean or a proportion of an event".to_owned(),
                ));
            }
            if missing == Missing::Exclude {
                return Err(wrong(
                    "missing",
                    "is \"exclude\", but in `open(DAYS)` a day without the event is a measurement of 0"
                        .to_owned(),
                ));
            }
            if self.covariate.is_some() {
                return Err(wrong(
                    "covariate",
                    "cannot adjust a metric of `open(DAYS)`; give it a closed window".to_owned(),
                ));
            }
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
            sd: self.sd,
        })
    }
}

/// `EVENT` of `ratio(EVENT)`.
fn ratio_of(text: &str) -> Option<&str> {
    let event = text.strip_prefix("ratio(")?.strip_suffix(')')?.trim();
    (!event.is_empty()).then_some(event)
}

fn parse_window(text: &str) -> Option<Window> {
    if let Some(inner) = text.strip_prefix("open(") {
        let us = parse_duration(inner.strip_suffix(')')?)?;
        let days = u16::try_from(us / DAY_US).ok()?;
        return (us % DAY_US == 0 && (2..=MAX_DAYS).contains(&days))
            .then_some(Window::Daily { days });
    }
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

/// A UTC date, or an instant of RFC 3339 in UTC to the second, in microseconds since 1970.
fn instant(text: &str) -> Option<i64> {
    let (date, time) = match text.split_once('T') {
        Some((date, time)) => (date, time.strip_suffix('Z')?),
        None => (text, "00:00:00"),
    };
    let day = crate::verdict::words::day(date)?;
    let mut parts = time.split(':');
    let mut next = |below: i64| {
        let part = parts.next()?;
        let number: i64 = part.parse().ok()?;
        (part.len() == 2 && (0..below).contains(&number)).then_some(number)
    };
    let (hour, minute, second) = (next(24)?, next(60)?, next(60)?);
    parts
        .next()
        .is_none()
        .then_some(day * DAY_US + (hour * 3_600 + minute * 60 + second) * 1_000_000)
}

/// `7d`, `36h`, `90m`, `30s`, `0` in microseconds.
pub(super) fn parse_duration(text: &str) -> Option<i64> {
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
