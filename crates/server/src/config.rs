//! The configuration: built-in defaults, then a file, then what the command line sets.
//!
//! Everything is read and checked before a port is bound or a file is opened. [`DEFAULT_TOML`] is the
//! file with every setting at its default and a word on each.

use std::collections::BTreeMap;
use std::io::BufReader;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use refrain_engine::{Policy, PolicyError};
use refrain_experiments::{
    AssignmentConfig, AttributeConfig, Config as ExperimentsConfig, DEFAULT_SURFACE,
    ExperimentConfig, HoldoutConfig, Journal, Kind, LayerConfig, Ordered, SurfaceConfig, UnitSet,
    line_of,
};
use refrain_ranking::{
    DEFAULT_TOML as DEFAULT_VARIANTS, ParameterTables, VariantTables, Variants, VariantsError,
};
use refrain_taste::{PostgresOptions, StoreOptions, Weights};
use serde::{Deserialize, Deserializer};

use crate::journal_file::{JournalFile, JournalFileError};
use crate::limits::Limits;
use crate::log::LogConfig as ExposuresConfig;
use crate::shadow::ShadowConfig;

/// The configuration file with every setting at its default.
pub const DEFAULT_TOML: &str = include_str!("default.toml");

/// Shapes, types and bounds of the configuration as a JSON Schema, draft 2020-12.
pub const CONFIG_SCHEMA: &str = include_str!("config.schema.json");

/// Most labels that one server watches.
const MAX_LABELS: usize = 16;

/// All settings of a server.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Config {
    /// `[server]`.
    pub server: ServerConfig,
    /// `[store]`.
    pub store: StoreConfig,
    /// `[profiles]`.
    pub profiles: ProfilesConfig,
    /// `[limits]`.
    pub limits: Limits,
    /// `[shadow]`.
    pub shadow: ShadowConfig,
    /// `[exposures]`.
    pub exposures: ExposuresConfig,
    /// `[log]`.
    pub log: LogConfig,
    /// `[variant.*]` and `[parameter.*]`.
    pub variants: Variants,
    /// `[assignment]`, `[attribute.*]`, `[holdout.*]`, `[layer.*]`, `[surface.*]` and
    /// `[experiment.*]`.
    pub experiments: ExperimentsConfig,
    /// The file that it was read from: what it refers to lies relative to it, and a server watches
    /// it.
    pub file: Option<PathBuf>,
}

/// `[server]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct ServerConfig {
    /// Where the gRPC services listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Where `/metrics`, `/healthz` and `/readyz` listen; `None` (`"off"` in a file): nowhere.
    #[serde(deserialize_with = "address_or_off")]
    pub admin_listen: Option<SocketAddr>,
    /// Labels to serve, 1 to 16; the first answers requests that name none.
    pub labels: Vec<String>,
    /// How often the store is asked where the labels point, in milliseconds: 10 to 600,000.
    pub poll_interval_ms: u64,
    /// How long the server still answers after the signal, while its health already says NOT_SERVING, in
    /// milliseconds: 0 to 600,000.
    pub drain_grace_ms: u64,
    /// How long requests in flight may take to finish after that, in milliseconds: 0 to 600,000.
    pub drain_timeout_ms: u64,
    /// Threads that answer requests, at most 1,024; 0: one a processor.
    pub threads: usize,
    /// Most bytes of index files mapped at once; 0: what memory there is.
    pub max_mapped_bytes: u64,
}

/// `[store]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct StoreConfig {
    /// `s3://`, `gs://` or `az://` and bucket, `file:///absolute/path`, or a plain path. Must be set
    /// before a server starts.
    pub url: Option<String>,
    /// Where versions of an object store are kept on this machine; `None`: `$REFRAIN_CACHE`, else the
    /// user's cache directory. Of one server alone: it removes what it does not serve.
    pub cache: Option<PathBuf>,
    /// How the files of a version are opened.
    pub open: Open,
}

/// How the files of a version are opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Open {
    /// Mapped; pages come when they are first touched.
    #[default]
    Map,
    /// Mapped, and read through at once.
    Populate,
    /// Copied into large pages of this process.
    Copy,
}

/// `[profiles]`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct ProfilesConfig {
    /// The file of the embedded store; unused where `url` is set.
    pub path: PathBuf,
    /// `postgres://user:password@host/database`: profiles that replicas share.
    pub url: Option<String>,
    /// Connections to PostgreSQL for reads, 1 to 1,000; three more write and listen.
    pub connections: usize,
    /// Whether every read asks PostgreSQL for the revision.
    pub always_check: bool,
    /// Memory for cached profiles, in bytes.
    pub cache_bytes: u64,
    /// Memory for solved tastes, in bytes.
    pub taste_cache_bytes: u64,
    /// Events that a listener may have, 1 to 1,000,000.
    pub max_events_per_user: u32,
    /// What one event of a kind says.
    pub weights: Weights,
}

/// `[log]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct LogConfig {
    /// A level, or a filter by target: `info,refrain_server=debug`.
    pub filter: String,
    /// How lines look.
    pub format: LogFormat,
}

/// How lines of the log look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

impl Config {
    /// Reads a configuration; what it leaves out keeps its default. `origin` names the text in errors.
    ///
    /// # Errors
    /// [`ConfigError`], with file, line and setting.
    pub fn from_toml(text: &str, origin: &Path) -> Result<Self, ConfigError> {
        let parse = |source| ConfigError::Parse {
            origin: origin.to_owned(),
            source: Box::new(source),
        };
        let file: File = toml::from_str(text).map_err(parse)?;
        let mut config = file.into_config(text).map_err(|error| match error {
            Problem::BuiltIn(source) => parse(*source),
            problem => ConfigError::value(text, origin, problem),
        })?;
        let folder = origin.parent().unwrap_or(Path::new(""));
        let models = config.variants.load_models(&mut |file, width| {
            refrain_models::load(&folder.join(file), width).map_err(|error| error.to_string())
        });
        models.map_err(|error| ConfigError::value(text, origin, Problem::Variants(error)))?;
        let intakes = config.experiments.load_intakes(&mut |file| {
            let file = fs_err::File::open(folder.join(file)).map_err(|error| error.to_string())?;
            let path = file.path().display().to_string();
            UnitSet::read(BufReader::new(file)).map_err(|error| format!("{path}: {error}"))
        });
        intakes.map_err(|error| {
            let problem = Problem::Policy(PolicyError::Experiments(error));
            ConfigError::value(text, origin, problem)
        })?;
        // What the journal says is not known here: it needs the file system.
        let checked = config.policy(&Journal::default());
        checked.map_err(|problem| ConfigError::value(text, origin, problem))?;
        Ok(config)
    }

    /// Reads the configuration in a file, apart from what its journal says.
    ///
    /// # Errors
    /// As [`from_toml`](Self::from_toml), or the file cannot be read.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = fs_err::read_to_string(path).map_err(|source| ConfigError::Read { source })?;
        let config = Self::from_toml(&text, path)?;
        Ok(Self {
            file: Some(path.to_owned()),
            ..config
        })
    }

    /// Reads the configuration in a file, and checks it against its journal.
    ///
    /// # Errors
    /// As [`read`](Self::read), or the journal does not verify or does not agree with the file.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let config = Self::read(path)?;
        match config.check() {
            Ok(_) => Ok(config),
            Err(problem) => Err(ConfigError::in_file(path, problem)),
        }
    }

    /// The journal that `assignment.journal` names, beside the file of the configuration.
    #[must_use]
    pub fn journal(&self) -> Option<JournalFile> {
        let name = self.experiments.assignment.journal.as_ref()?;
        let folder = self.file.as_deref().and_then(Path::parent);
        Some(JournalFile::new(folder.unwrap_or(Path::new("")).join(name)))
    }

    /// Checks what the reader of TOML cannot: everything once more, in case it was set by hand, and
    /// that experiments refer to what is declared.
    pub(crate) fn check(&self) -> Result<Policy, Problem> {
        let journal = match self.journal() {
            Some(file) => file.read()?,
            None => Journal::default(),
        };
        self.policy(&journal)
    }

    /// What is in force with a journal.
    ///
    /// # Errors
    /// The first thing that is not allowed.
    pub fn policy(&self, journal: &Journal) -> Result<Policy, Problem> {
        if let Some((key, allowed)) = self.server.out_of_range() {
            return Err(Problem::Range {
                key: format!("server.{key}"),
                allowed,
            });
        }
        if let Some((key, allowed)) = self.limits.out_of_range() {
            return Err(Problem::Range {
                key: format!("limits.{key}"),
                allowed,
            });
        }
        if let Some((key, allowed)) = self.shadow.out_of_range() {
            return Err(Problem::Range {
                key: format!("shadow.{key}"),
                allowed,
            });
        }
        if let Some(variant) = &self.shadow.variant
            && self.variants.get(variant).is_none()
        {
            let variant = variant.clone();
            return Err(Problem::ShadowVariant { variant });
        }
        if let Some((key, allowed)) = self.exposures.out_of_range() {
            return Err(Problem::Range {
                key: format!("exposures.{key}"),
                allowed,
            });
        }
        if !(1..=1_000_000).contains(&self.profiles.max_events_per_user) {
            let key = "profiles.max_events_per_user".to_owned();
            return Err(Problem::Range {
                key,
                allowed: "1 to 1000000",
            });
        }
        if !(1..=1_000).contains(&self.profiles.connections) {
            return Err(Problem::Range {
                key: "profiles.connections".to_owned(),
                allowed: "1 to 1000",
            });
        }
        let reload = self.experiments.assignment.reload_interval_ms;
        if !(10..=600_000).contains(&reload) {
            return Err(Problem::Range {
                key: "assignment.reload_interval_ms".to_owned(),
                allowed: "10 to 600000",
            });
        }
        self.check_labels()?;
        self.check_contenders()?;
        self.check_rollouts()?;
        let variants = self.variants.clone();
        let policy = match self.experiments.assignment.journal {
            Some(_) => Policy::with_ledger(variants, &self.experiments, journal.ledger()),
            None => Policy::new(variants, &self.experiments),
        };
        policy.map_err(Problem::Policy)
    }

    /// A server moves a rollout by lines of the journal.
    fn check_rollouts(&self) -> Result<(), Problem> {
        if self.experiments.assignment.journal.is_some() {
            return Ok(());
        }
        let mut experiments = self.experiments.experiment.0.iter();
        match experiments.find(|(_, experiment)| experiment.kind == Kind::Rollout) {
            Some((experiment, _)) => Err(Problem::Rollout {
                experiment: experiment.clone(),
            }),
            None => Ok(()),
        }
    }

    /// Lists that are drafted into one must come from one version.
    fn check_contenders(&self) -> Result<(), Problem> {
        for (name, experiment) in &self.experiments.experiment.0 {
            if experiment.kind != Kind::Interleave {
                continue;
            }
            let variants = experiment.arms.iter();
            let variants = variants.filter_map(|arm| self.variants.get(arm.variant.as_deref()?));
            let labels: Vec<_> = variants.map(|variant| &variant.labels).collect();
            if labels.iter().any(|other| Some(other) != labels.first()) {
                return Err(Problem::Contenders {
                    experiment: name.clone(),
                });
            }
        }
        Ok(())
    }

    fn check_labels(&self) -> Result<(), Problem> {
        let labels = &self.server.labels;
        for (index, label) in labels.iter().enumerate() {
            if !is_label(label) {
                return Err(Problem::Label {
                    label: label.clone(),
                });
            }
            if labels.iter().take(index).any(|before| before == label) {
                return Err(Problem::LabelTwice {
                    label: label.clone(),
                });
            }
        }
        // A variant that retrieves from a label which nobody watches could never answer.
        for variant in self.variants.iter() {
            if let Some(label) = variant.labels.iter().find(|label| !labels.contains(label)) {
                let (variant, label) = (variant.name.clone(), label.clone());
                return Err(Problem::VariantLabel { variant, label });
            }
        }
        Ok(())
    }
}

impl Default for Config {
    fn default() -> Self {
        // An empty file has all the defaults; that it parses is held by a test.
        match toml::from_str::<File>("").map(|file| file.into_config("")) {
            Ok(Ok(config)) => config,
            other => unreachable!("the built-in configuration does not parse: {other:?}"),
        }
    }
}

impl ServerConfig {
    fn out_of_range(&self) -> Option<(&'static str, &'static str)> {
        [
            (
                (1..=MAX_LABELS).contains(&self.labels.len()),
                ("labels", "1 to 16 labels"),
            ),
            (
                (10..=600_000).contains(&self.poll_interval_ms),
                ("poll_interval_ms", "10 to 600000"),
            ),
            (
                self.drain_grace_ms <= 600_000,
                ("drain_grace_ms", "0 to 600000"),
            ),
            (
                self.drain_timeout_ms <= 600_000,
                ("drain_timeout_ms", "0 to 600000"),
            ),
            (self.threads <= 1_024, ("threads", "0 to 1024")),
        ]
        .into_iter()
        .find_map(|(ok, complaint)| (!ok).then_some(complaint))
    }

    pub(crate) fn poll_interval(&self) -> Duration {
        Duration::from_millis(self.poll_interval_ms)
    }

    pub(crate) fn drain_grace(&self) -> Duration {
        Duration::from_millis(self.drain_grace_ms)
    }

    pub(crate) fn drain_timeout(&self) -> Duration {
        Duration::from_millis(self.drain_timeout_ms)
    }
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 7700)),
            admin_listen: Some(SocketAddr::from(([127, 0, 0, 1], 7701))),
            labels: vec!["stable".to_owned()],
            poll_interval_ms: 500,
            drain_grace_ms: 500,
            drain_timeout_ms: 10_000,
            threads: 0,
            max_mapped_bytes: 0,
        }
    }
}

impl ProfilesConfig {
    pub(crate) fn store_options(&self) -> StoreOptions {
        StoreOptions {
            cache_bytes: self.cache_bytes,
            max_events_per_user: self.max_events_per_user,
            ..StoreOptions::default()
        }
    }

    pub(crate) fn postgres_options(&self) -> PostgresOptions {
        PostgresOptions {
            cache_bytes: self.cache_bytes,
            connections: self.connections,
            max_events_per_user: self.max_events_per_user,
            always_check: self.always_check,
            ..PostgresOptions::default()
        }
    }
}

impl Default for ProfilesConfig {
    fn default() -> Self {
        Self {
            path: PathBuf::from("profiles.redb"),
            url: None,
            connections: 8,
            always_check: false,
            cache_bytes: 256 << 20,
            taste_cache_bytes: 256 << 20,
            max_events_per_user: 10_000,
            weights: Weights::default(),
        }
    }
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            filter: "info".to_owned(),
            format: LogFormat::Text,
        }
    }
}

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read; the source names it.
    #[error("cannot read the configuration: {source}")]
    Read {
        /// What the system said.
        source: std::io::Error,
    },
    /// Not TOML, an unknown setting, or a value of the wrong kind; the source has the line.
    #[error("{}: {source}", origin.display())]
    Parse {
        /// The file.
        origin: PathBuf,
        /// What is wrong, and where.
        source: Box<toml::de::Error>,
    },
    /// A value that is not allowed.
    #[error("{}{}: {problem}", origin.display(), line.map_or_else(String::new, |line| format!(":{line}")))]
    Value {
        /// The file.
        origin: PathBuf,
        /// The line, if it is known.
        line: Option<usize>,
        /// What is wrong.
        problem: Problem,
    },
}

impl ConfigError {
    /// With the line of a file that was read before.
    pub(crate) fn in_file(path: &Path, problem: Problem) -> Self {
        let text = fs_err::read_to_string(path).unwrap_or_default();
        Self::value(&text, path, problem)
    }

    fn value(text: &str, origin: &Path, problem: Problem) -> Self {
        let place = match &problem {
            Problem::Policy(PolicyError::Experiments(error)) => error.place(),
            // Says its line itself.
            Problem::Variants(_) => None,
            other => {
                let message = other.to_string();
                message.find(": ").map(|end| message[..end].to_owned())
            }
        };
        Self::Value {
            origin: origin.to_owned(),
            line: place.and_then(|place| line_of(text, &place)),
            problem,
        }
    }
}

/// A value that is not allowed, whichever way it was set.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// A number, or the length of a list, out of its range.
    #[error("{key} is out of range: {allowed}")]
    Range {
        /// The setting.
        key: String,
        /// What is allowed.
        allowed: &'static str,
    },
    /// A label that no store could have.
    #[error(
        "server.labels: {label:?} is not 1 to 64 of a-z, 0-9, '_', '-', starting with a letter"
    )]
    Label {
        /// The label.
        label: String,
    },
    /// The same label again.
    #[error("server.labels: {label:?} is there twice")]
    LabelTwice {
        /// The label.
        label: String,
    },
    /// A variant of a label that is not served.
    #[error("variant.{variant}.label: {label:?} is not among server.labels")]
    VariantLabel {
        /// The variant.
        variant: String,
        /// Its label.
        label: String,
    },
    /// A rollout that could not be stepped back.
    #[error(
        "experiment.{experiment}.kind: a rollout needs `journal` in [assignment]: the server steps it \
         back and forth there"
    )]
    Rollout {
        /// The experiment.
        experiment: String,
    },
    /// Two variants that would draft one list of two versions.
    #[error(
        "experiment.{experiment}.arm: the variants of an interleaved list must have the same labels"
    )]
    Contenders {
        /// The experiment.
        experiment: String,
    },
    /// Variants and experiments that do not fit together.
    #[error(transparent)]
    Policy(PolicyError),
    /// A variant for the dark that is not declared.
    #[error("shadow.variant: {variant:?} is not declared")]
    ShadowVariant {
        /// The variant.
        variant: String,
    },
    /// Variants or parameters that are not allowed.
    #[error(transparent)]
    Variants(VariantsError),
    /// A file that a running server follows lost what defaults would stand in for: it may be half-written.
    #[error(
        "no [{}] any more, though the file in force has: it is empty or half-written, and defaults would stand \
         in; a restart takes it as it is", tables.join("], [")
    )]
    Lost {
        /// The tables.
        tables: Vec<&'static str>,
    },
    /// The built-in configuration does not parse, which a test rules out.
    #[error(transparent)]
    BuiltIn(Box<toml::de::Error>),
    /// The journal cannot be used.
    #[error("assignment.journal: {0}")]
    Journal(#[from] JournalFileError),
    /// There is no store to serve from.
    #[error("store.url is not set: where are versions published?")]
    NoStore,
}

/// The file as written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default, deserialize_with = "server_in_range")]
    server: ServerConfig,
    #[serde(default)]
    store: StoreConfig,
    #[serde(default)]
    profiles: ProfilesConfig,
    #[serde(default, deserialize_with = "limits_in_range")]
    limits: Limits,
    #[serde(default)]
    shadow: ShadowConfig,
    #[serde(default)]
    exposures: ExposuresConfig,
    #[serde(default)]
    log: LogConfig,
    variant: Option<VariantTables>,
    #[serde(default)]
    parameter: ParameterTables,
    #[serde(default)]
    assignment: AssignmentConfig,
    #[serde(default)]
    attribute: BTreeMap<String, AttributeConfig>,
    #[serde(default)]
    holdout: BTreeMap<String, HoldoutConfig>,
    #[serde(default)]
    layer: BTreeMap<String, LayerConfig>,
    #[serde(default)]
    surface: BTreeMap<String, SurfaceConfig>,
    #[serde(default)]
    experiment: Ordered<ExperimentConfig>,
}

impl File {
    /// `text` is what it was read from: it finds the lines of what is wrong.
    fn into_config(self, text: &str) -> Result<Config, Problem> {
        let own_variants = self.variant.is_some();
        let variants = match self.variant {
            Some(variants) => Variants::new(variants, &self.parameter, text),
            None => Variants::from_toml(DEFAULT_VARIANTS),
        };
        let variants = variants.map_err(Problem::Variants)?;
        let declared =
            !(self.layer.is_empty() && self.surface.is_empty() && self.experiment.0.is_empty());
        let mut experiments = if declared {
            let mut own = ExperimentsConfig::default();
            (own.layer, own.surface, own.experiment) = (self.layer, self.surface, self.experiment);
            own
        } else if own_variants {
            everyone_gets_the_default(&variants)
        } else {
            toml::from_str(refrain_experiments::DEFAULT_TOML)
                .map_err(|source| Problem::BuiltIn(Box::new(source)))?
        };
        experiments.assignment = self.assignment;
        experiments.attribute = self.attribute;
        experiments.holdout = self.holdout;
        Ok(Config {
            file: None,
            server: self.server,
            store: self.store,
            profiles: self.profiles,
            limits: self.limits,
            shadow: self.shadow,
            exposures: self.exposures,
            log: self.log,
            variants,
            experiments,
        })
    }
}

/// The tables of a text that defaults stand in for where they are missing. Of one that is no TOML: all, since its
/// reader has more to say.
pub(crate) fn tables_of(text: &str) -> Vec<&'static str> {
    let all = ["variant", "layer", "surface", "assignment"].into_iter();
    match text.parse::<toml::Table>() {
        Ok(table) => all.filter(|name| table.contains_key(*name)).collect(),
        Err(_) => all.collect(),
    }
}

/// What a file with variants of its own and no experiments means.
fn everyone_gets_the_default(variants: &Variants) -> ExperimentsConfig {
    let layer = "ranking".to_owned();
    let variant = variants
        .default_variant()
        .map_or_else(String::new, |variant| variant.name.clone());
    let mut config = ExperimentsConfig::default();
    config.layer = BTreeMap::from([(layer.clone(), LayerConfig::default())]);
    let surface = SurfaceConfig {
        layer: layer.as_str().into(),
        variant,
        holdout_variant: None,
    };
    config.surface = BTreeMap::from([(DEFAULT_SURFACE.to_owned(), surface)]);
    config
}

/// As the store has it: a letter, then letters, digits, `_` and `-`; 64 at most.
fn is_label(label: &str) -> bool {
    (1..=64).contains(&label.len())
        && label.starts_with(|first: char| first.is_ascii_lowercase())
        && label
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-')
}

fn address_or_off<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<SocketAddr>, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text == "off" {
        return Ok(None);
    }
    let expected = || format!("{text:?} is neither an address such as 127.0.0.1:7701 nor \"off\"");
    text.parse()
        .map(Some)
        .map_err(|_| serde::de::Error::custom(expected()))
}

/// Checked while it is read, so that the reader adds the line of the table.
fn server_in_range<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ServerConfig, D::Error> {
    let server = ServerConfig::deserialize(deserializer)?;
    refuse_out_of_range(server.out_of_range()).map(|()| server)
}

fn limits_in_range<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Limits, D::Error> {
    let limits = Limits::deserialize(deserializer)?;
    refuse_out_of_range(limits.out_of_range()).map(|()| limits)
}

fn refuse_out_of_range<E: serde::de::Error>(found: Option<(&str, &str)>) -> Result<(), E> {
    match found {
        Some((key, allowed)) => Err(E::custom(format_args!("{key} is out of range: {allowed}"))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Config, String> {
        Config::from_toml(text, Path::new("refrain.toml")).map_err(|error| error.to_string())
    }

    #[test]
    fn the_default_file_says_what_the_defaults_are() {
        let config = read(DEFAULT_TOML).expect("valid");
        assert_eq!(config, Config::default());
        assert_eq!(config, read("").expect("valid"));
        assert!(config.check().is_ok());
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        for (text, complaints) in [
            ("[server]\nlissten = '127.0.0.1:1'\n", ["line 2", "lissten"]),
            (
                "[server]\nlisten = 'localhost'\n",
                ["line 2", "socket address"],
            ),
            (
                "\n[server]\nadmin_listen = 'no'\n",
                ["line 3", "neither an address"],
            ),
            (
                "[limits]\nmax_in_flight = 0\n",
                ["line 1", "max_in_flight is out of range: 1 to 65536"],
            ),
            (
                "[limits]\nmax_in_flight = -1\n",
                ["line 2", "max_in_flight"],
            ),
            (
                "[limits]\ndefault_deadline_ms = 40000\n",
                ["line 1", "1 to max_deadline_ms"],
            ),
            (
                "[server]\npoll_interval_ms = 1\n",
                ["line 1", "10 to 600000"],
            ),
            ("[server]\nlabels = []\n", ["line 1", "1 to 16 labels"]),
            ("[profiles.weights]\nhide = 3\n", ["line 1", "hide"]),
            (
                "[variant.v]\nscore = '1'\nmmr_lambda = 2\n",
                ["line 3", "variant.v.mmr_lambda: 2 is not in 0 to 1"],
            ),
            ("[log]\nformat = 'xml'\n", ["line 2", "xml"]),
            ("[store]\nurl = 3\n", ["line 2", "string"]),
            ("listen = '127.0.0.1:1'\n", ["line 1", "listen"]),
            ("[server\n", ["line 1", "refrain.toml"]),
        ] {
            let error = read(text).expect_err(text);
            for complaint in complaints {
                assert!(error.contains(complaint), "{text}: {error}");
            }
        }
    }

    #[test]
    fn what_belongs_together_is_checked_together() {
        for (text, complaint) in [
            (
                "[server]\nlabels = ['stable', 'stable']\n",
                "\"stable\" is there twice",
            ),
            ("[server]\nlabels = ['../up']\n", "\"../up\" is not"),
            (
                "[variant.x]\nscore = 'similarity'\nlabel = 'canary'\n",
                "\"canary\" is not among server.labels",
            ),
            (
                "[layer.l]\nepoch = 1\n[surface.default]\nlayer = 'l'\nvariant = 'no'\n",
                "variant `no` is not declared",
            ),
            (
                "[shadow]\nqueue = 0\n",
                "shadow.queue is out of range: 1 to 65536",
            ),
            (
                "[shadow]\nvariant = 'no'\n",
                "shadow.variant: \"no\" is not declared",
            ),
            (
                "[profiles]\nmax_events_per_user = 0\n",
                "profiles.max_events_per_user is out of range",
            ),
        ] {
            let error = read(text).expect_err(text);
            assert!(error.contains(complaint), "{text}: {error}");
        }
    }

    #[test]
    fn own_variants_without_experiments_serve_their_default() {
        let config = read("[variant.mine]\nscore = '2 * similarity'\n").expect("valid");
        let policy = config.check().expect("valid");
        let choice = policy.choose("home", "u1", None).expect("declared");
        assert_eq!(
            (choice.variant.name.as_str(), choice.assignment.experiment),
            ("mine", None)
        );
    }

    #[test]
    fn the_admin_listener_can_be_off() {
        assert_eq!(
            read("[server]\nadmin_listen = 'off'\n")
                .expect("valid")
                .server
                .admin_listen,
            None
        );
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = Config::load(Path::new("/no/such/refrain.toml"))
            .expect_err("missing")
            .to_string();
        assert!(error.contains("/no/such/refrain.toml"), "{error}");
    }

    /// The schema names just the fields and the words that the reader takes: its own complaint lists them.
    #[test]
    fn the_schema_names_what_is_read() {
        let schema: serde_json::Value = serde_json::from_str(CONFIG_SCHEMA).expect("JSON");
        let experiment = "[experiment.e]\nkind = 'ab'\nlayer = 'l'\nepoch = 1\nallocation_bp = 1\n";
        let nested = |table: &str| format!("{experiment}[[experiment.e.{table}]]\n");
        let variant = "[variant.v]\nscore = 'similarity'\n";
        let words = |text: &str, place: &str| (text.to_owned(), format!("/$defs/{place}"));
        let fields = |text: &str, place: &str| {
            let (text, place) = words(text, place);
            (format!("{text}zzz = 1\n"), format!("{place}/properties"))
        };
        let plain = [
            "server",
            "store",
            "profiles",
            "limits",
            "shadow",
            "exposures",
            "log",
            "assignment",
        ];
        let named = [
            "parameter",
            "attribute",
            "holdout",
            "layer",
            "surface",
            "experiment",
        ];
        let mut places: Vec<(String, String)> = vec![
            ("zzz = 1\n".to_owned(), "/properties".to_owned()),
            fields("[profiles.weights]\n", "weights"),
            fields(variant, "variant"),
            fields(
                &format!("{variant}[variant.v.exploration]\n"),
                "exploration",
            ),
            fields(
                "[layer.l]\nepoch = 1\n[layer.l.params.p]\n",
                "layer_parameter",
            ),
            fields(&nested("arm"), "arm"),
            fields(&nested("force"), "force"),
            fields(&nested("metric"), "metric"),
            fields(&format!("{experiment}[experiment.e.design]\n"), "design"),
            fields(&format!("{experiment}[experiment.e.rollout]\n"), "rollout"),
            words("[store]\nopen = 'zzz'", "store/properties/open/enum"),
            words("[log]\nformat = 'zzz'", "log/properties/format/enum"),
            words(
                "[attribute.a]\ntype = 'zzz'",
                "attribute/properties/type/enum",
            ),
            words(
                "[experiment.e]\nkind = 'zzz'",
                "experiment/properties/kind/enum",
            ),
            words(
                "[experiment.e]\nunit = 'zzz'",
                "experiment/properties/unit/enum",
            ),
            words(
                "[experiment.e]\nassigner = 'zzz'",
                "experiment/properties/assigner/enum",
            ),
            words(
                &format!("{}role = 'zzz'", nested("metric")),
                "metric/properties/role/enum",
            ),
            words(
                &format!("{}direction = 'zzz'", nested("metric")),
                "metric/properties/direction/enum",
            ),
            words(
                "[experiment.e.rollout]\non_inconclusive = 'zzz'",
                "rollout/properties/on_inconclusive/enum",
            ),
            words(
                "[experiment.e.rollout]\non_breach = 'zzz'",
                "rollout/properties/on_breach/enum",
            ),
        ];
        places.extend(plain.map(|table| fields(&format!("[{table}]\n"), table)));
        places.extend(named.map(|table| fields(&format!("[{table}.x]\n"), table)));
        for (text, place) in places {
            let complaint = Config::from_toml(&text, Path::new("c.toml"));
            let complaint = complaint.expect_err(&text).to_string();
            let (_, expected) = complaint.split_once("expected ").expect("lists them");
            let expected: std::collections::BTreeSet<&str> =
                expected.split('`').skip(1).step_by(2).collect();
            let known: std::collections::BTreeSet<&str> = match schema.pointer(&place) {
                Some(serde_json::Value::Object(properties)) => {
                    properties.keys().map(String::as_str).collect()
                }
                Some(serde_json::Value::Array(words)) => {
                    words.iter().filter_map(serde_json::Value::as_str).collect()
                }
                other => panic!("{place}: {other:?}"),
            };
            assert_eq!(known, expected, "{place}");
        }
    }
}
