//! What must be known of an experiment before it starts: an experiment whose answer nobody waits
//! for, or which cannot have one, is refused while it is still cheap.

use std::collections::BTreeSet;

use crate::config::{Config, ExperimentConfig, Kind, MetricConfig, Role, seconds};

/// Something that an experiment lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// Stable name for programs.
    pub code: &'static str,
    /// Path of the field.
    pub place: String,
    /// What is missing, and what it is for.
    pub problem: String,
}

/// Metrics that the server itself measures; a rollout's guardrails are among them, or a latency
/// quantile such as `latency_p99`.
pub const LIVE_METRICS: [&str; 3] = ["error_rate", "empty_rate", "degraded_rate"];

/// What an experiment lacks before it may start. Empty: nothing.
#[must_use]
pub fn preflight(name: &str, experiment: &ExperimentConfig) -> Vec<Finding> {
    let mut findings = Findings {
        place: format!("experiment.{name}"),
        found: Vec::new(),
    };
    let texts = [
        (
            "question",
            "question_missing",
            &experiment.question,
            "what it is to find out",
        ),
        (
            "decision",
            "decision_missing",
            &experiment.decision,
            "what will be done with the result",
        ),
        (
            "owner",
            "owner_missing",
            &experiment.owner,
            "who answers for it",
        ),
    ];
    for (field, code, text, what) in texts {
        if text.trim().is_empty() {
            findings.add(code, format!(".{field}"), format!("is missing: {what}"));
        }
    }
    let mut names = BTreeSet::new();
    for (i, metric) in experiment.metrics.iter().enumerate() {
        let place = format!(".metric[{i}]");
        if !names.insert(&metric.name) {
            findings.add(
                "metric_twice",
                format!("{place}.name"),
                "is there twice".to_owned(),
            );
        }
        check_metric(&mut findings, &place, metric, is_live(&metric.name));
    }
    let has = |role: Role| experiment.metrics.iter().any(|m| m.role == Some(role));
    match experiment.kind {
        Kind::Ab | Kind::Interleave if !has(Role::Success) => findings.add(
            "success_metric_missing",
            String::new(),
            "has no metric with role \"success\": what would make it a success?".to_owned(),
        ),
        Kind::Rollout => {
            let live = |m: &MetricConfig| m.role == Some(Role::Guardrail) && is_live(&m.name);
            if !experiment.metrics.iter().any(live) {
                let known = LIVE_METRICS.join(", ");
                findings.add(
                    "guardrail_missing",
                    String::new(),
                    format!(
                        "has no guardrail that the server measures: one of {known} or latency_p50 to latency_p999"
                    ),
                );
            }
            if has(Role::Success) {
                let problem =
                    "a rollout looks at guardrails only; to claim success, use kind \"ab\"";
                findings.add("rollout_with_success", String::new(), problem.to_owned());
            }
        }
        _ => {}
    }
    if let Some(design) = &experiment.design {
        let share = |value: Option<f64>| value.is_none_or(|v| v > 0.0 && v < 1.0);
        if !share(design.alpha) || !share(design.power) {
            let problem = "alpha and power are between 0 and 1".to_owned();
            findings.add("design_range", ".design".to_owned(), problem);
        }
        let methods = [
            "gst",
            "always_valid",
            "msprt",
            "fixed",
            "bonferroni",
            "fixed_power",
        ];
        if let Some(method) = &design.method
            && !methods.contains(&method.as_str())
        {
            let problem = format!("`{method}` is none of {}", methods.join(", "));
            findings.add("design_method", ".design.method".to_owned(), problem);
        }
    }
    findings.found
}

/// Traffic of a whole layer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Traffic {
    /// Units a day.
    pub units_per_day: f64,
    /// How long an experiment may run.
    pub days: f64,
}

/// Whether the expected traffic reaches the sample that the design needs, in the units of the design.
/// An experiment whose success metrics decide must know both; a rollout that declares no sample needs
/// none. Codes `sample_unknown`, `traffic_unknown`, `underpowered`.
#[must_use]
pub fn traffic(
    name: &str,
    experiment: &ExperimentConfig,
    traffic: Option<Traffic>,
) -> Option<Finding> {
    let finding = |code, problem| {
        Some(Finding {
            code,
            place: format!("experiment.{name}.design.max_units"),
            problem,
        })
    };
    let decides = matches!(experiment.kind, Kind::Ab | Kind::Interleave);
    let design = experiment.design.as_ref();
    let Some(needed) = design.and_then(|design| design.max_units) else {
        let problem = "is missing: how many units the answer takes; `refrain experiment plan` says";
        return decides
            .then(|| finding("sample_unknown", problem.to_owned()))
            .flatten();
    };
    let Some(Traffic {
        units_per_day,
        days,
    }) = traffic
    else {
        let problem = format!("{needed} units are needed, and how many will come is not said");
        return finding("traffic_unknown", problem);
    };
    let expected = units_per_day * days * f64::from(experiment.allocation_bp) / 10_000.0;
    #[expect(clippy::cast_precision_loss, reason = "compared with an estimate")]
    let short = expected < needed as f64;
    short
        .then(|| {
            let problem = format!(
                "{needed} units are needed, {expected:.0} are to be expected ({units_per_day:.0} a day of \
                 the layer, for {days} days, of which it has {} of 10000); run longer, take more, or look \
                 for a larger effect",
                experiment.allocation_bp
            );
            finding("underpowered", problem)
        })
        .flatten()
}

/// Whether the events that the metrics are made of, numerators and denominators, were `seen` to arrive.
/// Metrics that the server measures itself need none. Codes `events_unknown`, `event_unseen`.
#[must_use]
pub fn events(
    name: &str,
    experiment: &ExperimentConfig,
    seen: Option<&BTreeSet<String>>,
) -> Vec<Finding> {
    let needed: Vec<(String, &str)> = experiment
        .metrics
        .iter()
        .enumerate()
        .filter(|(_, metric)| !is_live(&metric.name))
        .flat_map(|(i, metric)| {
            let place = format!("experiment.{name}.metric[{i}]");
            let denominator = metric.kind.as_deref().and_then(denominator);
            let denominator = denominator.map(|event| (format!("{place}.type"), event));
            let numerator = (format!("{place}.name"), metric.name.as_str());
            std::iter::once(numerator).chain(denominator)
        })
        .collect();
    let Some(seen) = seen else {
        let events: BTreeSet<&str> = needed.iter().map(|(_, event)| *event).collect();
        let finding = || Finding {
            code: "events_unknown",
            place: format!("experiment.{name}.metric"),
            problem: format!(
                "whether these events arrive was not looked at: {}",
                events.iter().copied().collect::<Vec<_>>().join(", ")
            ),
        };
        return (!events.is_empty()).then(finding).into_iter().collect();
    };
    needed
        .into_iter()
        .filter(|(_, event)| !seen.contains(*event))
        .map(|(place, event)| Finding {
            code: "event_unseen",
            place,
            problem: format!("no outcome `{event}` arrived in the replay"),
        })
        .collect()
}

/// Findings of all experiments of a configuration, in the order of the file.
#[must_use]
pub fn preflight_all(config: &Config) -> Vec<Finding> {
    let all = config.experiment.0.iter();
    all.flat_map(|(name, experiment)| preflight(name, experiment))
        .collect()
}

/// The quantile that a name such as `latency_p99` or `latency_p999` means.
#[must_use]
pub fn latency_quantile(name: &str) -> Option<f64> {
    let digits = name.strip_prefix("latency_p")?;
    if !(2..=4).contains(&digits.len()) || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let quantile: f64 = format!("0.{digits}").parse().ok()?;
    (quantile > 0.0).then_some(quantile)
}

/// Whether the server measures it.
fn is_live(name: &str) -> bool {
    LIVE_METRICS.contains(&name) || latency_quantile(name).is_some()
}

/// `EVENT` of `ratio(EVENT)`.
fn denominator(kind: &str) -> Option<&str> {
    let event = kind.strip_prefix("ratio(")?.strip_suffix(')')?.trim();
    (!event.is_empty()).then_some(event)
}

struct Findings {
    place: String,
    found: Vec<Finding>,
}

impl Findings {
    fn add(&mut self, code: &'static str, field: String, problem: String) {
        let place = format!("{}{field}", self.place);
        self.found.push(Finding {
            code,
            place,
            problem,
        });
    }
}

fn check_metric(findings: &mut Findings, place: &str, metric: &MetricConfig, live: bool) {
    if metric.role.is_none() {
        let problem = "is missing: success, guardrail, scan or quality".to_owned();
        findings.add("role_missing", format!("{place}.role"), problem);
    }
    if metric.direction.is_none() {
        let problem = "is missing: up or down".to_owned();
        findings.add("direction_missing", format!("{place}.direction"), problem);
    }
    match &metric.kind {
        None if !live => {
            let problem = "is missing: mean, proportion, ratio(EVENT) or quantile(Q)".to_owned();
            findings.add("type_missing", format!("{place}.type"), problem);
        }
        Some(kind) if !is_metric_type(kind) => {
            let problem =
                format!("`{kind}` is none of mean, proportion, ratio(EVENT), quantile(Q)");
            findings.add("type_unknown", format!("{place}.type"), problem);
        }
        _ => {}
    }
    // What the server measures has no window: it counts requests as they come.
    match &metric.window {
        None if !live => {
            let problem =
                "is missing: closed(FROM,TO), such as closed(7d,14d), open(14d) or open".to_owned();
            findings.add("window_missing", format!("{place}.window"), problem);
        }
        Some(window) if !is_window(window) => {
            let problem = format!(
                "`{window}` is none of closed(FROM,TO) with FROM before TO, open(DAYS) such as open(14d), open"
            );
            findings.add("window_unknown", format!("{place}.window"), problem);
        }
        _ => {}
    }
    let margin = metric.margin_rel.or(metric.margin_abs);
    if metric.role == Some(Role::Guardrail) && margin.is_none() {
        let problem =
            "is missing: without margin_rel or margin_abs a guardrail cannot show that it held";
        findings.add(
            "margin_missing",
            format!("{place}.margin_rel"),
            problem.to_owned(),
        );
    }
    if metric.role == Some(Role::Quality) && margin.or(metric.mde_rel).is_some() {
        let problem = "is \"quality\": such a metric must not differ at all, so it has no margin and no effect \
                       that matters";
        findings.add(
            "quality_margin",
            format!("{place}.role"),
            problem.to_owned(),
        );
    }
    let positive = |value: Option<f64>| value.is_none_or(|value| value.is_finite() && value >= 0.0);
    if !positive(metric.margin_rel) || !positive(metric.margin_abs) || !positive(metric.mde_rel) {
        let problem = "margins and effects are numbers from 0".to_owned();
        findings.add("metric_range", place.to_owned(), problem);
    }
    if metric.role == Some(Role::Success) && metric.mde_rel.is_none() {
        let problem = "is missing: the smallest relative effect worth finding".to_owned();
        findings.add("mde_missing", format!("{place}.mde_rel"), problem);
    }
}

fn is_metric_type(kind: &str) -> bool {
    let quantile = |kind: &str| {
        let inside = kind.strip_prefix("quantile(")?.strip_suffix(')')?;
        inside.trim().parse::<f64>().ok()
    };
    matches!(kind, "mean" | "proportion")
        || denominator(kind).is_some()
        || quantile(kind).is_some_and(|q| q > 0.0 && q < 1.0)
}

fn is_window(window: &str) -> bool {
    if window == "open" {
        return true;
    }
    if let Some(days) = window.strip_prefix("open(") {
        // Whole days: each is one measurement.
        let days = days
            .strip_suffix(')')
            .and_then(|days| days.strip_suffix('d'))
            .and_then(|days| days.parse::<u16>().ok());
        return days.is_some_and(|days| (2..=366).contains(&days));
    }
    let inside = window
        .strip_prefix("closed(")
        .and_then(|rest| rest.strip_suffix(')'));
    inside
        .and_then(|inside| inside.split_once(','))
        .and_then(|(from, to)| Some((seconds(from.trim())?, seconds(to.trim())?)))
        .is_some_and(|(from, to)| from < to)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: &str = r#"
kind = "ab"
layer = "ranking"
epoch = 1
allocation_bp = 1000
question = "q"
decision = "d"
owner = "o"
design = { method = "gst", alpha = 0.05, power = 0.8, max_units = 10000 }
[[arm]]
name = "control"
variant = "plain"
[[arm]]
name = "treatment"
variant = "plain"
[[metric]]
name = "listen_minutes"
role = "success"
type = "mean"
direction = "up"
window = "closed(7d,14d)"
mde_rel = 0.01
[[metric]]
name = "latency_p99"
role = "guardrail"
direction = "down"
margin_rel = 0.03
"#;

    fn codes(text: &str) -> Vec<&'static str> {
        let experiment: ExperimentConfig = toml::from_str(text).expect(text);
        preflight("e", &experiment)
            .iter()
            .map(|finding| finding.code)
            .collect()
    }

    #[test]
    fn each_missing_field_has_its_own_code() {
        assert_eq!(codes(FULL), Vec::<&str>::new());
        let daily = FULL.replace("closed(7d,14d)", "open(14d)");
        assert_eq!(codes(&daily), Vec::<&str>::new());
        for (gone, code) in [
            ("question = \"q\"", "question_missing"),
            ("decision = \"d\"", "decision_missing"),
            ("owner = \"o\"", "owner_missing"),
            ("type = \"mean\"", "type_missing"),
            ("window = \"closed(7d,14d)\"", "window_missing"),
            ("mde_rel = 0.01", "mde_missing"),
            ("margin_rel = 0.03", "margin_missing"),
            ("direction = \"down\"", "direction_missing"),
        ] {
            assert_eq!(codes(&FULL.replacen(gone, "", 1)), [code], "{gone}");
        }
        let without_role = FULL.replacen("role = \"success\"", "", 1);
        assert_eq!(
            codes(&without_role),
            ["role_missing", "success_metric_missing"]
        );
        for (was, is, code) in [
            ("closed(7d,14d)", "closed(14d,7d)", "window_unknown"),
            ("closed(7d,14d)", "open(36h)", "window_unknown"),
            ("\"mean\"", "\"median\"", "type_unknown"),
            ("\"gst\"", "\"peek\"", "design_method"),
            ("alpha = 0.05", "alpha = 5", "design_range"),
            ("margin_rel = 0.03", "margin_rel = -1", "metric_range"),
            ("latency_p99", "listen_minutes", "metric_twice"),
            ("\"guardrail\"", "\"quality\"", "quality_margin"),
        ] {
            assert!(codes(&FULL.replacen(was, is, 1)).contains(&code), "{code}");
        }
    }

    #[test]
    fn a_rollout_has_live_guardrails_and_no_success() {
        let rollout = FULL.replace("\"ab\"", "\"rollout\"").replace(
            "design =",
            "rollout = { on_inconclusive = \"hold\" }\ndesign =",
        );
        assert_eq!(codes(&rollout), ["rollout_with_success"]);
        let scanned = rollout.replace("\"success\"", "\"scan\"");
        assert_eq!(codes(&scanned), Vec::<&str>::new());
        assert_eq!(
            codes(&scanned.replace("latency_p99", "latency")),
            ["type_missing", "window_missing", "guardrail_missing"]
        );
    }

    #[test]
    fn traffic_is_compared_with_what_the_design_needs() {
        let experiment: ExperimentConfig = toml::from_str(FULL).expect("valid");
        let of = |experiment: &ExperimentConfig, days: f64| {
            let given = Traffic {
                units_per_day: 10_000.0,
                days,
            };
            traffic("e", experiment, Some(given))
        };
        assert_eq!(of(&experiment, 10.0), None);
        let finding = of(&experiment, 9.9).expect("short");
        assert!(
            finding.problem.contains("10000 units are needed, 9900 are"),
            "{finding:?}"
        );
        let code = |finding: Option<Finding>| finding.map(|finding| finding.code);
        assert_eq!(
            code(traffic("e", &experiment, None)),
            Some("traffic_unknown")
        );
        let undesigned: ExperimentConfig =
            toml::from_str(&FULL.replace(", max_units = 10000", "")).expect("valid");
        assert_eq!(code(of(&undesigned, 10.0)), Some("sample_unknown"));
        let rollout = ExperimentConfig {
            kind: Kind::Rollout,
            ..undesigned
        };
        assert_eq!(traffic("e", &rollout, None), None);
    }

    #[test]
    fn a_metric_whose_event_never_arrives_is_named() {
        let text = FULL.replace("\"mean\"", "\"ratio( sessions )\"");
        let experiment: ExperimentConfig = toml::from_str(&text).expect("valid");
        let found = |seen: Option<&[&str]>| -> Vec<(&str, String)> {
            let seen = seen.map(|seen| seen.iter().map(|&event| event.to_owned()).collect());
            let found = events("e", &experiment, seen.as_ref()).into_iter();
            found.map(|finding| (finding.code, finding.place)).collect()
        };
        let unseen = |place: &str| ("event_unseen", format!("experiment.e.metric[0].{place}"));
        assert_eq!(found(Some(&["click"])), [unseen("name"), unseen("type")]);
        assert_eq!(found(Some(&["listen_minutes"])), [unseen("type")]);
        assert_eq!(found(Some(&["sessions"])), [unseen("name")]);
        assert_eq!(found(Some(&["sessions", "listen_minutes"])), []);
        assert_eq!(
            found(None),
            [("events_unknown", "experiment.e.metric".to_owned())]
        );
        // What the server measures needs no event.
        let live = ExperimentConfig {
            metrics: experiment.metrics[1..].to_vec(),
            ..experiment.clone()
        };
        assert_eq!(events("e", &live, None), []);
    }

    #[test]
    fn latency_quantiles_have_names() {
        assert_eq!(latency_quantile("latency_p99"), Some(0.99));
        assert_eq!(latency_quantile("latency_p999"), Some(0.999));
        for name in [
            "latency_p9",
            "latency_p",
            "latency",
            "latency_pxx",
            "latency_p00",
        ] {
            assert_eq!(latency_quantile(name), None, "{name}");
        }
    }
}
