//! Variants and experiments follow their file and journal while the server runs.
//!
//! A change is read and checked as a whole, then swapped in with one pointer: a request has the policy
//! before or the one after, never parts of both. One that is refused changes nothing; the log says
//! why and on which line, and the gauge `policy_current` falls to 0. The same thread looks at the
//! rollouts, since what they decide takes effect the same way: a line of the journal, then a reload.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use refrain_engine::{Policy, Version};
use refrain_experiments::digest_of;

use crate::config::{Config, ConfigError};
use crate::metrics::Metrics;
use crate::rollout::Keeper;
use crate::versions::Versions;

/// Looks at the files, and swaps the policy.
#[derive(Debug)]
pub(crate) struct Reloader {
    /// As the server was started.
    started: Config,
    policy: Arc<ArcSwap<Policy>>,
    metrics: Arc<Metrics>,
    versions: Arc<Versions<Version>>,
    keeper: Keeper,
    /// Digests of the texts that were looked at last.
    seen: Option<[String; 2]>,
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
        keeper.follow(&config);
        let mut reloader = Self {
            interval: Duration::from_millis(config.experiments.assignment.reload_interval_ms),
            started: config,
            policy,
            metrics: Arc::clone(metrics),
            versions,
            keeper,
            seen: None,
        };
        reloader.seen = reloader.texts().ok();
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
            Ok(Some((config, policy))) => {
                let digest = policy.digest().to_owned();
                self.policy.store(Arc::new(policy));
                self.keeper.follow(&config);
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
    fn fresh(&mut self) -> Result<Option<(Config, Policy)>, ConfigError> {
        let texts = self.texts()?;
        if self.seen.as_ref() == Some(&texts) {
            return Ok(None);
        }
        // Remembered before it is judged: what is refused is told of once.
        self.seen = Some(texts);
        let Some(file) = self.started.file.clone() else {
            // Without a file only the journal can change.
            let policy = self.started.check().map_err(|problem| ConfigError::Value {
                origin: "the configuration".into(),
                line: None,
                problem,
            })?;
            return Ok(Some((self.started.clone(), policy)));
        };
        let config = Config::load(&file)?;
        let as_started = Config {
            variants: self.started.variants.clone(),
            experiments: self.started.experiments.clone(),
            ..config.clone()
        };
        if as_started != self.started {
            tracing::warn!("settings other than variants and experiments follow with a restart");
        }
        match config.check() {
            Ok(policy) => Ok(Some((config, policy))),
            Err(problem) => Err(ConfigError::Value {
                origin: file,
                line: None,
                problem,
            }),
        }
    }

    /// Digests of configuration and journal.
    fn texts(&self) -> Result<[String; 2], ConfigError> {
        let read = |source| ConfigError::Read { source };
        let text = match &self.started.file {
            Some(file) => fs_err::read_to_string(file).map_err(read)?,
            None => String::new(),
        };
        let journal = match self.started.journal() {
            // One that is not there yet is empty.
            Some(journal) => fs_err::read_to_string(journal.path()).unwrap_or_default(),
            None => String::new(),
        };
        Ok([digest_of(&text), digest_of(&journal)])
    }
}
