//! The configuration as it is written in TOML.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

use crate::error::ConfigError;
use crate::intake::{Admitted, UnitSet};
use crate::targeting::AttributeType;

/// The surface that answers for surfaces which are not declared.
pub const DEFAULT_SURFACE: &str = "default";

/// What a server runs without a configuration: all listeners split in halves between the variants
/// `plain` and `balanced`.
pub const DEFAULT_TOML: &str = r#"[layer.ranking]
epoch = 1

[surface.default]
layer = "ranking"
variant = "plain"

[surface.home]
layer = "ranking"
variant = "plain"

[experiment.balanced-ranking]
kind = "ab"
layer = "ranking"
epoch = 1
owner = "whoever runs this server"
question = "Do listeners stay longer when popularity and freshness weigh in and artists are capped?"
decision = "Serve `balanced` to everybody, or keep `plain`"
allocation_bp = 10000

[[experiment.balanced-ranking.arm]]
name = "control"
weight = 0.5
variant = "plain"

[[experiment.balanced-ranking.arm]]
name = "balanced"
weight = 0.5
variant = "balanced"

[[experiment.balanced-ranking.metric]]
name = "listen_minutes"
role = "success"
type = "mean"
direction = "up"
window = "closed(7d,14d)"
mde_rel = 0.02

[[experiment.balanced-ranking.metric]]
name = "skips"
role = "guardrail"
type = "mean"
direction = "down"
window = "closed(0d,7d)"
margin_rel = 0.05
"#;

/// Layers, surfaces and experiments as declared. [`Experiments::new`](crate::Experiments::new)
/// checks what concerns more than one of them.
#[derive(Debug, Clone, Default, PartialEq, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Config {
    /// `[assignment]`.
    pub assignment: AssignmentConfig,
    /// `[attribute.NAME]`.
    pub attribute: BTreeMap<String, AttributeConfig>,
    /// `[holdout.NAME]`.
    pub holdout: BTreeMap<String, HoldoutConfig>,
    /// `[layer.NAME]`.
    pub layer: BTreeMap<String, LayerConfig>,
    /// `[surface.NAME]`.
    pub surface: BTreeMap<String, SurfaceConfig>,
    /// `[experiment.NAME]`, in the order of the file.
    pub experiment: Ordered<ExperimentConfig>,
}

impl Config {
    /// Reads a text that holds nothing but these tables.
    ///
    /// # Errors
    /// [`ConfigError::Parse`], with line and column, for what is not TOML, an unknown field, a value
    /// of the wrong type or something missing.
    pub fn from_toml(text: &str) -> Result<Self, ConfigError> {
        toml::from_str(text).map_err(|source| ConfigError::Parse {
            source: Box::new(source),
        })
    }

    /// Gives the experiments whose intake is closed their units: `load` reads a file that the configuration
    /// names.
    ///
    /// # Errors
    /// [`ConfigError::Value`], with the place of the experiment and what `load` says.
    pub fn load_intakes(
        &mut self,
        load: &mut dyn FnMut(&str) -> Result<UnitSet, String>,
    ) -> Result<(), ConfigError> {
        for (name, experiment) in &mut self.experiment.0 {
            if let Some(admitted) = &mut experiment.admitted {
                let units = load(&admitted.file).map_err(|problem| ConfigError::Value {
                    place: format!("experiment.{name}.admitted"),
                    problem,
                })?;
                admitted.units = Some(Arc::new(units));
            }
        }
        Ok(())
    }

    /// An experiment by name.
    #[must_use]
    pub fn experiment(&self, name: &str) -> Option<&ExperimentConfig> {
        let mut all = self.experiment.0.iter();
        all.find(|(other, _)| other == name)
            .map(|(_, experiment)| experiment)
    }
}

/// `[assignment]`: what concerns all experiments.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct AssignmentConfig {
    /// The kill switch: `false` gives everybody the variant of the surface.
    pub enabled: bool,
    /// The journal that says what experiments hold, a path relative to the configuration. Without
    /// one, experiments draw their `allocation_bp` in the order of the file.
    pub journal: Option<String>,
    /// How often a server looks whether the configuration or the journal changed, in milliseconds:
    /// 10 to 600,000.
    pub reload_interval_ms: u64,
}

impl Default for AssignmentConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            journal: None,
            reload_interval_ms: 1000,
        }
    }
}

/// `[attribute.NAME]`: something that a request says of itself.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttributeConfig {
    /// How its values compare.
    #[serde(rename = "type")]
    pub kind: AttributeType,
    /// Whether a variant can change it. Such an attribute cannot choose who is in an experiment.
    #[serde(default)]
    pub post_treatment: bool,
}

/// `[holdout.NAME]`: units that no experiment touches, to see what a whole quarter was worth.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HoldoutConfig {
    /// Part of the hash key: a new epoch, such as a new quarter, draws other units.
    pub epoch: u32,
    /// Share of all units, in basis points: 0 to 5,000, so that a slice of equal size is left to
    /// compare with.
    pub share_bp: u32,
}

/// `[layer.NAME]`: experiments that exclude each other.
#[derive(Debug, Clone, PartialEq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LayerConfig {
    /// Part of the hash key: a new epoch shuffles all units of the layer.
    pub epoch: u32,
    /// How finely the layer is cut: 10,000 or 1,000,000. Allocations are whole basis points, so both
    /// assign alike, and refining a layer later moves nobody.
    #[serde(default = "default_buckets")]
    pub buckets: u32,
    /// How long the units of a stopped experiment rest before another gets them, in days.
    #[serde(default)]
    pub cooldown_days: u32,
    /// Parameters that this layer's experiments set, and no other layer's: callers read them through
    /// OpenFeature as the flag `layer.parameter`.
    #[serde(default)]
    pub params: BTreeMap<String, ParamConfig>,
}

impl Default for LayerConfig {
    fn default() -> Self {
        Self {
            epoch: 1,
            buckets: default_buckets(),
            cooldown_days: 0,
            params: BTreeMap::new(),
        }
    }
}

/// A parameter that arms may set.
#[derive(Debug, Clone, PartialEq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ParamConfig {
    /// Value of those in no experiment that sets it; its type is the parameter's.
    pub default: ParamValue,
    /// Smallest value, of a number.
    pub min: Option<f64>,
    /// Largest value, of a number.
    pub max: Option<f64>,
    /// What it is measured in.
    #[serde(default)]
    pub unit: String,
}

/// A value of a parameter.
#[derive(Debug, Clone, PartialEq, serde::Deserialize, serde::Serialize)]
#[serde(untagged)]
pub enum ParamValue {
    /// On or off.
    Bool(bool),
    /// A whole number.
    Integer(i64),
    /// A number.
    Number(f64),
    /// A text.
    Text(String),
}

/// `[surface.NAME]`: a place where recommendations are shown.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SurfaceConfig {
    /// The layer whose experiments run here, or several.
    pub layer: LayerNames,
    /// Variant of units that are in no experiment.
    pub variant: String,
    /// Variant of units that are held out, frozen for the quarter. Absent: `variant`.
    #[serde(default)]
    pub holdout_variant: Option<String>,
}

/// The layers of a surface: `layer = "ranking"` or `layer = ["ranking", "popularity"]`. A unit is in one
/// experiment of each at most. The arms of the first name variants; those of the others set parameters
/// of whatever variant ranks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerNames(pub Vec<String>);

impl From<&str> for LayerNames {
    fn from(layer: &str) -> Self {
        Self(vec![layer.to_owned()])
    }
}

impl<'de> Deserialize<'de> for LayerNames {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Names;

        impl<'de> Visitor<'de> for Names {
            type Value = LayerNames;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a layer, or a list of names")
            }

            fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<LayerNames, E> {
                Ok(LayerNames::from(name))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut names: A) -> Result<LayerNames, A::Error> {
                let mut all = Vec::new();
                while let Some(name) = names.next_element()? {
                    all.push(name);
                }
                Ok(LayerNames(all))
            }
        }

        deserializer.deserialize_any(Names)
    }
}

/// What an experiment does with its units.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Kind {
    /// Splits them over arms, to decide by success metrics.
    Ab,
    /// Splits them over arms, watches guardrails only, and grows or steps back by itself.
    Rollout,
    /// Computes an arm beside what is served, compares, and never shows it.
    Shadow,
    /// Shows them one list drafted by two arms in turn.
    Interleave,
}

impl Kind {
    /// As it is written in a file.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ab => "ab",
            Self::Rollout => "rollout",
            Self::Shadow => "shadow",
            Self::Interleave => "interleave",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// `[experiment.NAME]`.
#[derive(Debug, Clone, PartialEq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct ExperimentConfig {
    /// What it does with its units.
    pub kind: Kind,
    /// Layer whose units it takes.
    pub layer: String,
    /// Part of the hash key: a new epoch deals the units to the arms anew. Needed whenever arms or
    /// weights change.
    pub epoch: u32,
    /// Share of the layer, in basis points: 0 to 10,000. With a journal, the share that `allocate`
    /// and `ramp` bring it to. A shadow takes no units from others: it is computed for this share.
    pub allocation_bp: u32,
    /// What is randomised.
    #[serde(default)]
    pub unit: Unit,
    /// Who deals its units to the arms.
    #[serde(default)]
    pub assigner: Assigner,
    /// Who answers for it.
    #[serde(default)]
    pub owner: String,
    /// What it is to find out.
    #[serde(default)]
    pub question: String,
    /// What will be done with the result.
    #[serde(default)]
    pub decision: String,
    /// Condition on declared attributes of the request; see [`Targeting`](crate::Targeting).
    #[serde(default)]
    pub targeting: Option<String>,
    /// `true` serves the surface's variant to all of its units, old and new, for as long as it stands;
    /// their buckets and arms stay theirs.
    #[serde(default)]
    pub paused: bool,
    /// Closes the intake: a file of the units that go on, one a line, relative to the configuration.
    /// Nobody else gets in, whatever bucket they are in.
    #[serde(default)]
    pub admitted: Option<Admitted>,
    /// `[[experiment.NAME.arm]]`, at least two; of a shadow, at least one; of interleaving, two.
    #[serde(default, rename = "arm")]
    pub arms: Vec<ArmConfig>,
    /// `[[experiment.NAME.force]]`: units that get an arm whatever the hash says, never analysed.
    #[serde(default)]
    pub force: Vec<ForceConfig>,
    /// `[[experiment.NAME.metric]]`.
    #[serde(default, rename = "metric")]
    pub metrics: Vec<MetricConfig>,
    /// How it is going to be analysed.
    #[serde(default)]
    pub design: Option<DesignConfig>,
    /// How a rollout proceeds.
    #[serde(default)]
    pub rollout: Option<RolloutConfig>,
}

/// Who deals the units of an experiment to its arms.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Assigner {
    /// The hash of the unit.
    #[default]
    Hash,
    /// The caller, who says with each request which arm another system gave the unit.
    External,
}

/// What is randomised.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Unit {
    /// Listeners.
    #[default]
    User,
}

/// `[[experiment.NAME.arm]]`.
#[derive(Debug, Clone, PartialEq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArmConfig {
    /// Unique within the experiment.
    pub name: String,
    /// Share of the experiment's units relative to the other arms: finite, greater than 0.
    #[serde(default = "one")]
    pub weight: f64,
    /// Ranking variant that its units get. Absent: the one that they would get without the experiment,
    /// with the arm's parameters.
    #[serde(default)]
    pub variant: Option<String>,
    /// Values of the layer's parameters.
    #[serde(default)]
    pub params: BTreeMap<String, ParamValue>,
}

/// `[[experiment.NAME.force]]`.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForceConfig {
    /// The unit.
    pub unit: String,
    /// The arm that it gets.
    pub arm: String,
}

/// `[[experiment.NAME.metric]]`.
#[derive(Debug, Clone, PartialEq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MetricConfig {
    /// Its name; of an outcome, the event.
    pub name: String,
    /// `success`, `guardrail` or `quality`.
    #[serde(default)]
    pub role: Option<Role>,
    /// `mean`, `proportion`, `ratio(DENOMINATOR)` or `quantile(Q)`.
    #[serde(default, rename = "type")]
    pub kind: Option<String>,
    /// Which way is better.
    #[serde(default)]
    pub direction: Option<Direction>,
    /// Which part of a unit's life counts: `closed(7d,14d)`, `open(14d)` or `open`.
    #[serde(default)]
    pub window: Option<String>,
    /// Smallest relative effect worth finding, of a success metric.
    #[serde(default)]
    pub mde_rel: Option<f64>,
    /// Largest loss that is acceptable relative to control, of a guardrail.
    #[serde(default)]
    pub margin_rel: Option<f64>,
    /// The same in the metric's own unit.
    #[serde(default)]
    pub margin_abs: Option<f64>,
    /// Name of the covariate known before exposure.
    #[serde(default)]
    pub covariate: Option<String>,
}

/// What a metric is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Role {
    /// To improve.
    Success,
    /// Not to get worse by more than its margin.
    Guardrail,
    /// To be watched for harm.
    Scan,
    /// To show that the experiment itself is sound.
    Quality,
}

/// Which way a metric is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// More is better.
    Up,
    /// Less is better.
    Down,
}

/// `experiment.NAME.design`.
#[derive(Debug, Clone, PartialEq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DesignConfig {
    /// `gst`, `always_valid`, `msprt`, `fixed`, `bonferroni` or `fixed_power`.
    #[serde(default)]
    pub method: Option<String>,
    /// `power(RHO)`, `obf` or `pocock`.
    #[serde(default)]
    pub spending: Option<String>,
    /// Error rate, one-sided.
    #[serde(default)]
    pub alpha: Option<f64>,
    /// Power at the smallest effect worth finding.
    #[serde(default)]
    pub power: Option<f64>,
    /// Units that the plan needs, over all arms.
    #[serde(default)]
    pub max_units: Option<u64>,
}

/// `experiment.NAME.rollout`.
#[derive(Debug, Clone, PartialEq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RolloutConfig {
    /// Shares to go through, in basis points, rising.
    #[serde(default = "default_steps")]
    pub steps_bp: Vec<u32>,
    /// How long a step lasts at least: a number and `s`, `m`, `h` or `d`.
    #[serde(default = "default_hold")]
    pub min_hold: String,
    /// How often the guardrails are looked at: a number and `s`, `m`, `h` or `d`.
    #[serde(default = "default_look")]
    pub look_every: String,
    /// Probability that a harmless rollout is stepped back, over all guardrails and looks and however
    /// long it runs.
    #[serde(default = "default_alpha")]
    pub alpha: f64,
    /// Requests of both arms in a window: over the first one half of the error rate is spent, over the
    /// next ones a sixth, a twelfth and so on, each on its own requests.
    #[serde(default = "default_max_requests")]
    pub max_requests: u64,
    /// Fewest requests of each arm before a first look.
    #[serde(default = "default_min_requests")]
    pub min_requests: u64,
    /// What happens when neither harm nor safety is shown by the end of a step.
    pub on_inconclusive: OnInconclusive,
    /// Where a broken guardrail brings it.
    #[serde(default)]
    pub on_breach: OnBreach,
}

/// What happens when neither harm nor safety is shown by the end of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnInconclusive {
    /// Stays at the step.
    Hold,
    /// Goes on.
    Advance,
}

/// Where a broken guardrail brings a rollout.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnBreach {
    /// To the step before; from the first step, to nothing.
    #[default]
    Previous,
    /// To nothing.
    Zero,
}

fn one() -> f64 {
    1.0
}

fn default_steps() -> Vec<u32> {
    vec![100, 500, 1000, 2500, 5000, 10_000]
}

fn default_hold() -> String {
    "1d".to_owned()
}

fn default_look() -> String {
    "1m".to_owned()
}

fn default_alpha() -> f64 {
    0.05
}

fn default_max_requests() -> u64 {
    1_000_000
}

fn default_min_requests() -> u64 {
    200
}

/// Seconds of a number and `s`, `m`, `h` or `d`.
#[must_use]
pub fn seconds(text: &str) -> Option<u64> {
    let unit = match text.chars().next_back()? {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        _ => return None,
    };
    let digits = &text[..text.len() - 1];
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse::<u64>().ok()?.checked_mul(unit)
}

/// A table whose entries keep the order of the file.
#[derive(Debug, Clone, PartialEq)]
pub struct Ordered<T>(pub Vec<(String, T)>);

impl<T> Default for Ordered<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

fn default_buckets() -> u32 {
    10_000
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Ordered<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Entries<T> {
            type Value = Ordered<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries: Vec<(String, T)> = Vec::new();
                while let Some((name, value)) = map.next_entry::<String, T>()? {
                    // TOML has no duplicate keys, other formats may.
                    if entries.iter().any(|(other, _)| *other == name) {
                        return Err(A::Error::custom(format_args!("duplicate entry `{name}`")));
                    }
                    entries.push((name, value));
                }
                Ok(Ordered(entries))
            }
        }

        deserializer.deserialize_map(Entries(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn experiments_keep_the_order_of_the_file() {
        let entry = |name: &str| {
            format!("[experiment.{name}]\nkind = 'ab'\nlayer = 'l'\nepoch = 1\nallocation_bp = 1\n")
        };
        let text = ["zebra", "apple", "mango"].map(entry).concat();
        let config = Config::from_toml(&text).expect("valid");
        let names: Vec<_> = config
            .experiment
            .0
            .iter()
            .map(|(name, _)| name.as_str())
            .collect();
        assert_eq!(names, ["zebra", "apple", "mango"]);
    }

    #[test]
    fn an_unknown_field_is_named_with_its_line() {
        let text = "[layer.ranking]\nepoch = 1\nbukets = 10000\n";
        let message = Config::from_toml(text).expect_err("misspelt").to_string();
        assert!(
            message.contains("line 3") && message.contains("bukets"),
            "{message}"
        );
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[\\[\\]a-z.=\"0-9\n ]{0,200}|.{0,200}") {
            let _ = Config::from_toml(&text);
        }
    }
}
