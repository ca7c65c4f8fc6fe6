//! Monitored rollouts: what the requests of both arms came to, and what follows from it.
//!
//! Every answer of a rollout's arm is counted in memory, in groups of units ([`Live`]). The thread that
//! follows the configuration looks at the counts as often as the rollout asks for ([`Keeper`]): when a
//! guardrail broke it steps back, when a step is over and safe it goes to the next. Both are lines of
//! the journal, written before they take effect, so a restart and every other reader know them; after a
//! step back only a person goes on, and then it is counted anew. Counts and looks survive a restart in a file beside the journal.
//!
//! Each server counts the requests that it answered. Where several share a journal, each looks at its
//! own, and the first whose guardrail breaks steps back for all.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use refrain_experiments::{
    Action, Assignment, Config as ExperimentsConfig, ExperimentConfig, GROUPS, Journal, Kind,
    Monitor, Reading, Reason, RolloutCounts, RolloutState, Standing, Tip, Verdict, cell_of,
    group_of, hash64,
};
use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::journal_file::{JournalFile, JournalFileError, Signature};
use crate::metrics::Metrics;

/// Who signs what the server does by itself.
const SIGNATURE: &str = "refrain serve";

/// The counts of all rollouts.
#[derive(Debug, Default)]
pub(crate) struct Live(Mutex<HashMap<String, Counts>>);

#[derive(Debug)]
struct Counts {
    epoch: u32,
    /// Name of the arm that the other is compared with.
    control: String,
    seen: RolloutCounts,
}

/// How a request ended, as far as a rollout cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Answered {
        empty: bool,
        degraded: bool,
    },
    /// By the server's fault.
    Failed,
    /// By the caller's: says nothing about the arm.
    Refused,
}

/// A request on its way. Dropped without a word, by a panic, it has failed.
#[derive(Debug)]
pub(crate) struct Watched<'a> {
    live: &'a Live,
    /// Experiment, epoch and arm of each rollout.
    of: Vec<(&'a str, u32, &'a str)>,
    /// Hash of the unit.
    unit: u64,
    start: Instant,
    fate: Fate,
}

impl Live {
    /// Watches a request of a unit. What is in no rollout is not counted, and costs nothing.
    pub(crate) fn watch<'a: 'b, 'b>(
        &'a self,
        assignments: impl Iterator<Item = &'b Assignment<'a>>,
        unit: &str,
    ) -> Watched<'a> {
        let counted = assignments.filter(|assignment| {
            assignment.kind == Some(Kind::Rollout)
                && matches!(assignment.reason, Reason::Split | Reason::External)
        });
        let of: Vec<_> = counted
            .filter_map(|a| Some((a.experiment?, a.experiment_epoch, a.arm?)))
            .collect();
        let unit = if of.is_empty() {
            0
        } else {
            hash64(unit.as_bytes())
        };
        Watched {
            live: self,
            of,
            unit,
            start: Instant::now(),
            fate: Fate::Failed,
        }
    }

    /// Counts for the rollouts of a configuration from now on. One that is new, or has another epoch,
    /// begins where `remembered` says.
    fn follow(&self, experiments: &ExperimentsConfig, remembered: &Remembered) {
        let mut live = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        live.retain(|name, counts| {
            experiments
                .experiment(name)
                .is_some_and(|e| e.kind == Kind::Rollout && e.epoch == counts.epoch)
        });
        for (name, experiment) in &experiments.experiment.0 {
            let Some(control) = experiment.arms.first() else {
                continue;
            };
            if experiment.kind == Kind::Rollout && !live.contains_key(name) {
                let counts = Counts {
                    epoch: experiment.epoch,
                    control: control.name.clone(),
                    seen: remembered.counts(name, experiment.epoch),
                };
                live.insert(name.clone(), counts);
            }
        }
    }

    fn counts(&self, experiment: &str) -> Option<RolloutCounts> {
        let live = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Some(live.get(experiment)?.seen.clone())
    }

    /// Counts an experiment from nothing.
    fn restart(&self, experiment: &str) {
        let mut live = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(counts) = live.get_mut(experiment) {
            counts.seen = RolloutCounts::default();
        }
    }
}

impl Watched<'_> {
    pub(crate) fn ended(mut self, fate: Fate) {
        self.fate = fate;
    }
}

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        if self.of.is_empty() || self.fate == Fate::Refused {
            return;
        }
        let took = u32::try_from(self.start.elapsed().as_micros()).unwrap_or(u32::MAX);
        let mut live = self.live.0.lock().unwrap_or_else(PoisonError::into_inner);
        for &(experiment, epoch, arm) in &self.of {
            let counts = live.get_mut(experiment);
            if let Some(counts) = counts.filter(|counts| counts.epoch == epoch) {
                counts.add(arm, self.unit, self.fate, took);
            }
        }
    }
}

impl Counts {
    fn add(&mut self, arm: &str, unit: u64, fate: Fate, took: u32) {
        let treatment = usize::from(self.control != arm);
        let RolloutCounts { arms, units } = &mut self.seen;
        let arm = arms.get_mut(treatment);
        let Some(group) = arm.and_then(|arm| arm.get_mut(group_of(unit))) else {
            return;
        };
        units.see(treatment, unit);
        group.requests += 1;
        match fate {
            Fate::Answered { empty, degraded } => {
                group.empty += u64::from(empty);
                group.degraded += u64::from(degraded);
                if let Some(cell) = group.latency.get_mut(cell_of(took)) {
                    *cell = cell.saturating_add(1);
                }
            }
            Fate::Failed | Fate::Refused => group.errors += 1,
        }
    }
}

/// What is remembered of every rollout, by name.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Remembered(BTreeMap<String, Memory>);

#[derive(Debug, Serialize, Deserialize)]
struct Memory {
    epoch: u32,
    state: RolloutState,
}

impl Remembered {
    fn state(&self, name: &str, epoch: u32) -> RolloutState {
        let memory = self.0.get(name).filter(|memory| memory.epoch == epoch);
        memory.map_or_else(RolloutState::default, |memory| memory.state.clone())
    }

    fn counts(&self, name: &str, epoch: u32) -> RolloutCounts {
        let counts = self.state(name, epoch).counts;
        if counts.arms.iter().all(|arm| arm.len() == GROUPS) {
            counts
        } else {
            RolloutCounts::default()
        }
    }
}

/// Keeps the rollouts of a configuration: looks, and writes what follows.
#[derive(Debug)]
pub(crate) struct Keeper {
    live: Arc<Live>,
    metrics: Arc<Metrics>,
    journal: Option<JournalFile>,
    rollouts: Vec<Rollout>,
}

#[derive(Debug)]
struct Rollout {
    name: String,
    epoch: u32,
    monitor: Monitor,
    next_look: Instant,
    /// What was last told of it, so that it is told once.
    told: Option<Verdict>,
}

impl Keeper {
    pub(crate) fn new(live: Arc<Live>, metrics: Arc<Metrics>) -> Self {
        Self {
            live,
            metrics,
            journal: None,
            rollouts: Vec::new(),
        }
    }

    /// Keeps the rollouts of this configuration from now on; its journal was read as far as `tip`.
    pub(crate) fn follow(&mut self, config: &Config, tip: Option<&Tip>) {
        self.journal = config.journal().map(|file| file.after(tip));
        let remembered = self.remembered();
        self.live.follow(&config.experiments, &remembered);
        let mut before = std::mem::take(&mut self.rollouts);
        for (name, experiment) in &config.experiments.experiment.0 {
            if experiment.kind != Kind::Rollout {
                continue;
            }
            let same = before
                .iter()
                .position(|old| old.name == *name && old.epoch == experiment.epoch);
            let (state, next_look) = match same.map(|at| before.swap_remove(at)) {
                Some(old) => (old.monitor.state().clone(), Some(old.next_look)),
                None => (remembered.state(name, experiment.epoch), None),
            };
            if let Some(rollout) = Rollout::new(name, experiment, state, next_look) {
                self.rollouts.push(rollout);
            } else {
                tracing::warn!(
                    experiment = name,
                    "this rollout has no guardrail that the server measures: it stands until a person ramps it"
                );
            }
        }
    }

    /// Looks at the rollouts whose time has come. Whether the journal has a new line. Blocks.
    pub(crate) fn look(&mut self, digest: &str, version: &str) -> bool {
        let Some(journal) = self.journal.clone() else {
            return false;
        };
        let now = Instant::now();
        if self.rollouts.iter().all(|rollout| rollout.next_look > now) {
            return false;
        }
        let ledger = match journal.read() {
            Ok(journal) => journal,
            Err(error) => {
                tracing::error!(%error, "rollouts cannot be looked at");
                return false;
            }
        };
        let mut written = false;
        for rollout in &mut self.rollouts {
            if rollout.next_look > now {
                continue;
            }
            rollout.next_look = now + Duration::from_secs(rollout.monitor.look_every());
            let (Some(counts), Some(holding)) = (
                self.live.counts(&rollout.name),
                ledger.ledger().holding(&rollout.name),
            ) else {
                continue;
            };
            if holding.epoch != rollout.epoch {
                continue;
            }
            if !holding.held && holding.step_backs != rollout.monitor.state().step_backs {
                // A person ramped it after it was stepped back.
                self.live.restart(&rollout.name);
                rollout.monitor.restart(holding.step_backs);
                continue;
            }
            let lasted = Timestamp::now().duration_since(holding.since).as_secs();
            let standing = Standing {
                share_bp: holding.share_bp(),
                step_seconds: u64::try_from(lasted).unwrap_or(0),
                held: holding.held,
            };
            let (verdict, readings) = rollout.monitor.look(&counts, standing);
            self.metrics.rollout_looks.inc();
            let signed = Signed {
                journal: &journal,
                digest,
                version,
            };
            let from_bp = standing.share_bp;
            written |= rollout.follow(verdict, &readings, from_bp, &signed, &self.metrics);
        }
        if let Err(error) = self.remember() {
            tracing::warn!(%error, "the state of the rollouts could not be written; a restart begins to count anew");
        }
        written
    }

    fn memory(&self) -> Option<PathBuf> {
        let journal = self.journal.as_ref()?;
        let mut path = journal.path().as_os_str().to_owned();
        path.push(".rollouts.json");
        Some(path.into())
    }

    fn remembered(&self) -> Remembered {
        let Some(path) = self.memory() else {
            return Remembered::default();
        };
        let read = fs_err::read(&path)
            .and_then(|bytes| serde_json::from_slice(&bytes).map_err(std::io::Error::other));
        match read {
            Ok(remembered) => remembered,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Remembered::default(),
            Err(error) => {
                tracing::warn!(%error, "what was remembered of the rollouts cannot be used: they are counted anew");
                Remembered::default()
            }
        }
    }

    /// Appears whole or not at all.
    fn remember(&self) -> std::io::Result<()> {
        let Some(path) = self.memory() else {
            return Ok(());
        };
        let memories = self.rollouts.iter().map(|rollout| {
            let memory = Memory {
                epoch: rollout.epoch,
                state: rollout.monitor.state().clone(),
            };
            (rollout.name.clone(), memory)
        });
        let bytes = serde_json::to_vec(&Remembered(memories.collect()))?;
        let mut temporary = path.clone().into_os_string();
        temporary.push(".tmp");
        let temporary = PathBuf::from(temporary);
        let mut file = fs_err::File::create(&temporary)?;
        std::io::Write::write_all(&mut file, &bytes)?;
        file.sync_all()?;
        fs_err::rename(&temporary, &path)
    }
}

/// What stands below a line of the journal.
struct Signed<'a> {
    journal: &'a JournalFile,
    digest: &'a str,
    version: &'a str,
}

impl Rollout {
    fn new(
        name: &str,
        experiment: &ExperimentConfig,
        state: RolloutState,
        next_look: Option<Instant>,
    ) -> Option<Self> {
        let monitor = Monitor::new(experiment, state)?;
        let every = Duration::from_secs(monitor.look_every());
        Some(Self {
            name: name.to_owned(),
            epoch: experiment.epoch,
            next_look: next_look.unwrap_or_else(|| Instant::now() + every),
            monitor,
            told: None,
        })
    }

    /// Does what a look decided. Whether the journal has a new line.
    fn follow(
        &mut self,
        verdict: Verdict,
        readings: &[Reading],
        from_bp: u32,
        signed: &Signed<'_>,
        metrics: &Metrics,
    ) -> bool {
        let (name, said) = (&self.name, say(readings));
        let done = match &verdict {
            Verdict::StepBack { to_bp, guardrail } => {
                let reason = format!("guardrail {guardrail} broke: {said}");
                let done = signed.write(name, from_bp, &reason, |_| Action::StepBack {
                    experiment: name.clone(),
                    from_bp,
                    to_bp: *to_bp,
                    guardrail: guardrail.clone(),
                    version: signed.version.to_owned(),
                });
                if matches!(done, Ok(true)) {
                    metrics.rollout_step_backs.inc();
                    tracing::error!(
                        experiment = name,
                        guardrail,
                        from_bp,
                        to_bp,
                        said,
                        "rollout stepped back"
                    );
                }
                done
            }
            Verdict::Advance { to_bp } => {
                let reason = format!("step over, guardrails held: {said}");
                let done = signed.write(name, from_bp, &reason, |journal| Action::Ramp {
                    experiment: name.clone(),
                    from_bp,
                    to_bp: *to_bp,
                    seed: journal.next_seed(name),
                });
                if matches!(done, Ok(true)) {
                    tracing::info!(experiment = name, from_bp, to_bp, said, "rollout advanced");
                }
                done
            }
            Verdict::Uneven if self.told.as_ref() != Some(&verdict) => {
                let ratio = self.monitor.ratio();
                tracing::error!(
                    experiment = name,
                    control = ratio.control,
                    treatment = ratio.treatment,
                    evidence = ratio.log_e,
                    bound = ratio.bound,
                    "rollout does not advance: the arms do not have the shares of listeners that their weights say"
                );
                Ok(false)
            }
            Verdict::Complete | Verdict::Hold if self.told.as_ref() != Some(&verdict) => {
                tracing::info!(
                    experiment = name,
                    share_bp = from_bp,
                    said,
                    ?verdict,
                    "rollout"
                );
                Ok(false)
            }
            _ => Ok(false),
        };
        self.told = Some(verdict);
        done.unwrap_or_else(|error| {
            tracing::error!(experiment = self.name, %error, "the rollout cannot be moved");
            false
        })
    }
}

impl Signed<'_> {
    /// Writes a line, unless somebody moved the share since it was looked at.
    fn write(
        &self,
        experiment: &str,
        from_bp: u32,
        reason: &str,
        action: impl FnOnce(&Journal) -> Action,
    ) -> Result<bool, JournalFileError> {
        enum No {
            Moved,
            Refused(JournalFileError),
        }
        impl From<JournalFileError> for No {
            fn from(error: JournalFileError) -> Self {
                Self::Refused(error)
            }
        }
        let signature = Signature {
            by: SIGNATURE,
            reason,
            config_digest: self.digest,
        };
        let written = self.journal.append(signature, |journal| {
            let holding = journal.ledger().holding(experiment);
            match holding.map(|holding| holding.share_bp()) {
                Some(share) if share == from_bp => Ok(action(journal)),
                _ => Err(No::Moved),
            }
        });
        match written {
            Ok(_) => Ok(true),
            Err(No::Moved) => Ok(false),
            Err(No::Refused(error)) => Err(error),
        }
    }
}

/// The readings of a look in a line.
fn say(readings: &[Reading]) -> String {
    let said = readings.iter().map(|reading| {
        format!(
            "{} {:.4} against {:.4} of control (harm z {:.2}, bound {:.2})",
            reading.guardrail, reading.treatment, reading.control, reading.z_harm, reading.bound
        )
    });
    said.collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests;
