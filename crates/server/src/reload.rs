//! Variants and experiments follow their file and journal while the server runs.
//!
//! A change is read and checked as a whole, then swapped in with one pointer: a request has the policy
//! before or the one after, never parts of both. One that is refused changes nothing; the log says
//! why and on which line, and the gauge `policy_current` falls to 0. A file that is being written is not
//! taken for what it will be: a change is read twice, and one that is empty, or lost the tables in whose
//! place defaults would step, is refused. So does a journal that does not go on
//! from where it was read last: one that is gone, cut or replaced would take every experiment its units,
//! and its chain verifies all the same. The same thread looks at the
//! rollouts, since what they decide takes effect the same way: a line of the journal, then a reload.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use refrain_engine::{Policy, Version};
use refrain_experiments::{Journal, Tip, digest_of};

use crate::config::{Config, ConfigError, Problem, tables_of};
use crate::metrics::Metrics;
use crate::rollout::Keeper;
use crate::versions::Versions;

/// How long a change must stand before it is looked at: whoever rewrites a file in place is done then, or
/// the next look finds another text.
const SETTLED: Duration = Duration::from_millis(20);

/// A configuration that holds, and what follows from it.
struct Checked {
    config: Config,
    policy: Policy,
    /// How far its journal was read.
    tip: Option<Tip>,
}

/// Looks at the files, and swaps the policy.
#[derive(Debug)]
pub(crate) struct Reloader {
    /// As the server was started.
    started: Config,
    policy: Arc<ArcSwap<Policy>>,
    metrics: Arc<Metrics>,
    versions: Arc<Versions<Version>>,
    keeper: Keeper,
    /// The journal that is followed, and how far it was read.
    journal: Option<(PathBuf, Tip)>,
    /// Digests of the texts that were looked at last.
    seen: Option<[String; 2]>,
    /// The tables of the file in force.
    tables: Vec<&'static str>,
    interval: Duration,
}

impl Reloader {
    pub(crate) fn new(
        config: Config,
        policy: Arc<ArcSwap<Policy>>,
        metrics: &Arc<Metrics>,
        versions: Arc<Versions<Version>>,
        mut keeper: Keeper,
    ) -> Self {
        metrics.policy_current.set(1);
        // It was read for the policy in force, a moment ago.
        let journal = config.journal().and_then(|file| {
            let read = file.read().ok()?;
            Some((file.path().to_owned(), read.tip()))
        });
        keeper.follow(&config, journal.as_ref().map(|(_, tip)| tip));
        let mut reloader = Self {
            interval: Duration::from_millis(config.experiments.assignment.reload_interval_ms),
            started: config,
            policy,
            metrics: Arc::clone(metrics),
            versions,
            keeper,
            journal,
            seen: None,
            tables: Vec::new(),
        };
        if let Ok(texts) = reloader.texts() {
            reloader.tables = tables_of(&texts[0]);
            reloader.seen = Some(digests(&texts));
        }
        reloader
    }

    /// Looks until it is aborted.
    pub(crate) async fn run(mut self) {
        loop {
            tokio::time::sleep(self.interval).await;
            let looked = tokio::task::spawn_blocking(move || {
                self.look();
                if self.look_at_rollouts() {
                    self.look();
                }
                self
            });
            match looked.await {
                Ok(reloader) => self = reloader,
                Err(error) => {
                    tracing::error!(%error, "the configuration is not looked at any more");
                    return;
                }
            }
        }
    }

    fn look(&mut self) {
        match self.fresh() {
            Ok(None) => {}
            Ok(Some(Checked {
                config,
                policy,
                tip,
            })) => {
                let digest = policy.digest().to_owned();
                for label in &self.versions.table().labels {
                    let serving = label.serving.as_ref().map(|serving| &serving.version);
                    let mapped = serving.into_iter().chain(&label.previous);
                    mapped.for_each(|version| policy.prepare(version));
                }
                self.policy.store(Arc::new(policy));
                self.keeper.follow(&config, tip.as_ref());
                let path = config.journal().map(|file| file.path().to_owned());
                self.journal = path.zip(tip);
                self.metrics.policy_current.set(1);
                self.metrics.policy_reloads.inc();
                tracing::info!(digest, "variants and experiments reloaded");
            }
            Err(error) => {
                self.metrics.policy_current.set(0);
                tracing::error!(%error, "the configuration is refused, the one before stays in force");
            }
        }
    }

    /// Whether the journal has a new line.
    fn look_at_rollouts(&mut self) -> bool {
        let table = self.versions.table();
        let serving = table
            .labels
            .first()
            .and_then(|label| label.serving.as_ref());
        let version = serving.map_or("", |serving| serving.version.id());
        let policy = self.policy.load();
        self.keeper.look(policy.digest(), version)
    }

    /// What is on disk, when it changed since the last look.
    fn fresh(&mut self) -> Result<Option<Checked>, ConfigError> {
        let texts = self.texts()?;
        if self.seen.as_ref() == Some(&digests(&texts)) {
            return Ok(None);
        }
        std::thread::sleep(SETTLED);
        if self.texts()? != texts {
            return Ok(None);
        }
        // Remembered before it is judged: what is refused is told of once.
        self.seen = Some(digests(&texts));
        let [text, _] = texts;
        let Some(file) = &self.started.file else {
            // Without a file only the journal can change.
            let (policy, tip) =
                self.check(&self.started)
                    .map_err(|problem| ConfigError::Value {
                        origin: "the configuration".into(),
                        line: None,
                        problem,
                    })?;
            let config = self.started.clone();
            return Ok(Some(Checked {
                config,
                policy,
                tip,
            }));
        };
        let tables = tables_of(&text);
        let lost = self.tables.iter().filter(|table| !tables.contains(table));
        let lost: Vec<_> = lost.copied().collect();
        if !lost.is_empty() {
            return Err(ConfigError::in_file(file, Problem::Lost { tables: lost }));
        }
        let config = Config {
            file: Some(file.clone()),
            ..Config::from_toml(&text, file)?
        };
        let (policy, tip) = self
            .check(&config)
            .map_err(|problem| ConfigError::in_file(file, problem))?;
        let as_started = Config {
            variants: self.started.variants.clone(),
            experiments: self.started.experiments.clone(),
            ..config.clone()
        };
        if as_started != self.started {
            tracing::warn!("settings other than variants and experiments follow with a restart");
        }
        self.tables = tables;
        Ok(Some(Checked {
            config,
            policy,
            tip,
        }))
    }

    /// A configuration against its journal, which goes on from where it was read last.
    fn check(&self, config: &Config) -> Result<(Policy, Option<Tip>), Problem> {
        let Some(file) = config.journal() else {
            return Ok((config.policy(&Journal::default())?, None));
        };
        // Another journal than before is somebody's decision in the configuration.
        let known = self.journal.as_ref();
        let known = known.filter(|(path, _)| path == file.path());
        let journal = file.after(known.map(|(_, tip)| tip)).read()?;
        Ok((config.policy(&journal)?, Some(journal.tip())))
    }

    /// Configuration and journal.
    fn texts(&self) -> Result<[String; 2], ConfigError> {
        let read = |source| ConfigError::Read { source };
        let text = match &self.started.file {
            Some(file) => fs_err::read_to_string(file).map_err(read)?,
            None => String::new(),
        };
        let followed = self.journal.as_ref().map(|(path, _)| path.clone());
        let started = self.started.journal();
        let journal = match followed.or_else(|| Some(started?.path().to_owned())) {
            // One that is not there, yet or any more, is empty here; whether it may be is judged later.
            Some(path) => fs_err::read_to_string(path).unwrap_or_default(),
            None => String::new(),
        };
        Ok([text, journal])
    }
}

fn digests(texts: &[String; 2]) -> [String; 2] {
    texts.each_ref().map(|text| digest_of(text))
}
