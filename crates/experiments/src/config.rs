//! The configuration as it is written in TOML.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};

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
question = "Do listeners stay longer when popularity and freshness weigh in and artists are capped?"
allocation_bp = 10000

[[experiment.balanced-ranking.arm]]
name = "control"
weight = 0.5
variant = "plain"

[[experiment.balanced-ranking.arm]]
name = "balanced"
weight = 0.5
variant = "balanced"
"#;

/// Layers, surfaces and experiments as declared. [`Experiments::new`](crate::Experiments::new)
/// checks what concerns more than one of them.
#[derive(Debug, Clone, Default, PartialEq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Config {
    /// `[layer.NAME]`.
    #[serde(default)]
    pub layer: BTreeMap<String, LayerConfig>,
    /// `[surface.NAME]`.
    #[serde(default)]
    pub surface: BTreeMap<String, SurfaceConfig>,
    /// `[experiment.NAME]`, in the order of the file.
    #[serde(default)]
    pub experiment: Ordered<ExperimentConfig>,
}

impl Config {
    /// Puts a configuration together, for programs whose own file holds the three tables.
    #[must_use]
    pub fn new(
        layer: BTreeMap<String, LayerConfig>,
        surface: BTreeMap<String, SurfaceConfig>,
        experiment: Ordered<ExperimentConfig>,
    ) -> Self {
        Self {
            layer,
            surface,
            experiment,
        }
    }

    /// Reads a text that holds nothing but the three tables.
    ///
    /// # Errors
    /// [`ConfigError::Parse`], with line and column, for what is not TOML, an unknown field, a value
    /// of the wrong type or something missing.
    pub fn from_toml(text: &str) -> Result<Self, ConfigError> {
        toml::from_str(text).map_err(|source| ConfigError::Parse {
            source: Box::new(source),
        })
    }
}

/// `[layer.NAME]`: experiments that exclude each other.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LayerConfig {
    /// Part of the hash key: a new epoch shuffles all units of the layer.
    pub epoch: u32,
    /// How finely the layer is cut: 10,000 or 1,000,000. Allocations are whole basis points, so both
    /// assign alike, and refining a layer later moves nobody.
    #[serde(default = "default_buckets")]
    pub buckets: u32,
}

/// `[surface.NAME]`: a place where recommendations are shown.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SurfaceConfig {
    /// Layer whose experiments run here.
    pub layer: String,
    /// Variant of units that are in no experiment.
    pub variant: String,
}

/// `[experiment.NAME]`.
#[derive(Debug, Clone, PartialEq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExperimentConfig {
    /// `ab`, the one kind that is served.
    pub kind: String,
    /// Layer whose units it takes.
    pub layer: String,
    /// Part of the hash key: a new epoch deals the units to the arms anew. Needed whenever arms or
    /// weights change.
    pub epoch: u32,
    /// Share of the layer, in basis points: 0 to 10,000.
    pub allocation_bp: u32,
    /// Who answers for it.
    #[serde(default)]
    pub owner: String,
    /// What it is to find out.
    #[serde(default)]
    pub question: String,
    /// What will be done with the result.
    #[serde(default)]
    pub decision: String,
    /// `[[experiment.NAME.arm]]`, at least two.
    #[serde(default, rename = "arm")]
    pub arms: Vec<ArmConfig>,
}

/// `[[experiment.NAME.arm]]`.
#[derive(Debug, Clone, PartialEq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArmConfig {
    /// Unique within the experiment.
    pub name: String,
    /// Share of the experiment's units relative to the other arms: finite, greater than 0.
    pub weight: f64,
    /// Ranking variant that its units get.
    pub variant: String,
}

/// A table whose entries keep the order of the file.
#[derive(Debug, Clone, PartialEq)]
pub struct Ordered<T>(pub Vec<(String, T)>);

impl<T> Default for Ordered<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

/// How much a configuration may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits;

impl Limits {
    /// Most layers.
    pub const LAYERS: usize = 64;
    /// Most surfaces.
    pub const SURFACES: usize = 1024;
    /// Most experiments.
    pub const EXPERIMENTS: usize = 1024;
    /// Most arms of an experiment.
    pub const ARMS: usize = 32;
    /// Longest name, in bytes.
    pub const NAME_BYTES: usize = 64;
}

/// Why a configuration is refused. `place` is the path of the field in the file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// Not TOML, or not of this shape; the source says on which line.
    #[error("{source}")]
    Parse {
        /// What the reader of TOML says.
        source: Box<toml::de::Error>,
    },
    /// A name that could not be part of a hash key.
    #[error("{place}: name {name:?} is not 1 to {max} bytes without `|` and control characters", max = Limits::NAME_BYTES)]
    Name {
        /// Which name.
        place: String,
        /// The name.
        name: String,
    },
    /// More of something than is allowed.
    #[error("{place}: {count} are too many, at most {max} are allowed")]
    TooMany {
        /// Of what.
        place: String,
        /// How many there are.
        count: usize,
        /// How many may be.
        max: usize,
    },
    /// A kind of experiment that is not served.
    #[error("experiment.{experiment}.kind: `{kind}` is not supported; supported: `ab`")]
    Kind {
        /// The experiment.
        experiment: String,
        /// Its kind.
        kind: String,
    },
    /// A bucket count other than the two that there are.
    #[error("layer.{layer}.buckets: {buckets} is neither 10000 nor 1000000")]
    Buckets {
        /// The layer.
        layer: String,
        /// Its buckets.
        buckets: u32,
    },
    /// A reference to a layer that is not declared.
    #[error("{place}: layer `{layer}` is not declared; declared: {known}")]
    UnknownLayer {
        /// Where it is referred to.
        place: String,
        /// The layer.
        layer: String,
        /// Those that are.
        known: String,
    },
    /// A reference to a ranking variant that is not declared.
    #[error("{place}: variant `{variant}` is not declared; declared: {known}")]
    UnknownVariant {
        /// Where it is referred to.
        place: String,
        /// The variant.
        variant: String,
        /// Those that are.
        known: String,
    },
    /// No surface answers for undeclared ones.
    #[error("surface.{surface} is missing: it answers for surfaces that are not declared", surface = DEFAULT_SURFACE)]
    NoDefaultSurface,
    /// An allocation above the whole layer.
    #[error(
        "experiment.{experiment}.allocation_bp: {allocation_bp} is more than 10000 basis points"
    )]
    AllocationRange {
        /// The experiment.
        experiment: String,
        /// Its allocation.
        allocation_bp: u32,
    },
    /// The experiments of a layer want more than the layer has.
    #[error("layer.{layer}: allocations add up to {total_bp} of 10000 basis points ({sum}); {over} too many", over = total_bp - 10_000)]
    OverAllocated {
        /// The layer.
        layer: String,
        /// What they want.
        total_bp: u64,
        /// Each experiment with its share.
        sum: String,
    },
    /// An experiment without a comparison.
    #[error("experiment.{experiment}.arm: {count} given, an experiment compares at least 2")]
    TooFewArms {
        /// The experiment.
        experiment: String,
        /// How many it has.
        count: usize,
    },
    /// Two arms of one name.
    #[error("{place}: there is another arm `{arm}`")]
    DuplicateArm {
        /// The second of them.
        place: String,
        /// The name.
        arm: String,
    },
    /// A weight that is no share.
    #[error("{place}: weight {weight} is not a finite number greater than 0")]
    Weight {
        /// Which weight.
        place: String,
        /// The weight.
        weight: f64,
    },
    /// An arm so small beside the others that no unit would get it.
    #[error(
        "{place}: weight {weight} is less than a millionth of the experiment, no unit would get this arm"
    )]
    ArmTooSmall {
        /// Which weight.
        place: String,
        /// The weight.
        weight: f64,
    },
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
