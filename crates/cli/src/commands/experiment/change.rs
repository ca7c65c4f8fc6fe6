//! `refrain experiment allocate`, `ramp`, `stop` and `journal`: what changes who is in an experiment,
//! and the record of it.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use refrain_experiments::{
    Action, BASIS_POINTS, ExperimentConfig, Finding, Journal, Kind, Traffic, arms_digest, events,
    preflight, traffic,
};
use refrain_server::{Config, JournalFile, Signature};
use serde_json::{Value, json};

use super::edit;
use crate::failure::{Exit, Failure};
use crate::output::{self, Column, Output};

/// Which experiment of which configuration, by whom and why
#[derive(Debug, clap::Args)]
struct Target {
    /// The configuration file; its `[assignment] journal` records the change
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The experiment
    #[arg(value_name = "EXPERIMENT")]
    experiment: String,
    /// Why; kept in the journal
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
    /// Who; kept in the journal
    #[arg(long, value_name = "NAME", env = "USER", default_value = "unknown")]
    by: String,
    /// Say what would be done, and write nothing
    #[arg(long)]
    dry_run: bool,
}

/// Give an experiment its first units, after the pre-flight; exit 3 when it must not start
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  refrain experiment allocate refrain.toml rank-blend --units-per-day 40000 --days 28 --events exposures/
  refrain experiment allocate refrain.toml rank-blend --units-per-day 40000 --events-unknown-ok
  refrain experiment allocate refrain.toml careful-blend --reason 'starts with release 9.1'

An experiment with success metrics needs to know its traffic, and that the events of its metrics arrive;
what it goes without is written into the journal. A rollout starts at its first step. After arms or weights changed, raise `epoch` in the file and
allocate again: its units are dealt to the arms anew.")]
pub(super) struct AllocateArgs {
    #[command(flatten)]
    target: Target,
    /// Seed of the draw; by default it follows from the journal
    #[arg(long, value_name = "TEXT")]
    seed: Option<String>,
    /// Listeners a day in the layer, to compare with what the design needs
    #[arg(long, value_name = "N")]
    units_per_day: Option<f64>,
    /// Days that the experiment may run
    #[arg(long, value_name = "N", default_value_t = 14.0)]
    days: f64,
    /// Start although the traffic does not reach the sample; recorded in the journal
    #[arg(long)]
    underpowered_ok: bool,
    /// Start without saying what the traffic is, or how many listeners the answer takes; recorded in the
    /// journal
    #[arg(long)]
    traffic_unknown_ok: bool,
    /// Log directory of a server that was asked a replay: the events of every metric must be in it
    #[arg(long, value_name = "DIR")]
    events: Option<PathBuf>,
    /// Start without having looked whether the events of the metrics arrive; recorded in the journal
    #[arg(long, conflicts_with = "events")]
    events_unknown_ok: bool,
}

impl AllocateArgs {
    /// What is lacking, and what was agreed to go without.
    fn preflight(&self, experiment: &ExperimentConfig) -> anyhow::Result<[Vec<Finding>; 2]> {
        let name = &self.target.experiment;
        let seen = match &self.events {
            Some(log) => Some(
                refrain_server::seen_events(log)
                    .with_context(|| Failure::new("cannot read the outcomes of the replay"))?,
            ),
            None => None,
        };
        let expected = self.units_per_day.map(|units_per_day| Traffic {
            units_per_day,
            days: self.days,
        });
        let mut lacking = preflight(name, experiment);
        lacking.extend(traffic(name, experiment, expected));
        lacking.extend(events(name, experiment, seen.as_ref()));
        let agreed = |finding: &Finding| match finding.code {
            "underpowered" => self.underpowered_ok,
            "traffic_unknown" | "sample_unknown" => self.traffic_unknown_ok,
            "events_unknown" => self.events_unknown_ok,
            _ => false,
        };
        let (waived, lacking) = lacking.into_iter().partition(agreed);
        Ok([lacking, waived])
    }
}

/// Change the share of an experiment; units that stay keep their arm, nobody else moves
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  refrain experiment ramp refrain.toml rank-blend --to 2000
  refrain experiment ramp refrain.toml rank-blend --to 500 --reason 'support is short-handed'

The journal decides; `allocation_bp` in the file is brought in line with it.")]
pub(super) struct RampArgs {
    #[command(flatten)]
    target: Target,
    /// The new share of the layer, in basis points: 10000 is everybody
    #[arg(long, value_name = "BP")]
    to: u32,
}

/// End an experiment; its units rest for the layer's `cooldown_days`
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  refrain experiment stop refrain.toml rank-blend --reason 'shipped: blend 0.3'")]
pub(super) struct StopArgs {
    #[command(flatten)]
    target: Target,
}

/// Verify the journal of a configuration and print it
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  refrain experiment journal refrain.toml
  refrain experiment journal refrain.toml rank-blend --json")]
pub(super) struct JournalArgs {
    /// The configuration file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Entries of this experiment only
    #[arg(value_name = "EXPERIMENT")]
    experiment: Option<String>,
}

/// Runs `refrain experiment allocate`.
pub(super) fn allocate(args: &AllocateArgs, output: &Output) -> anyhow::Result<Exit> {
    let bench = Bench::open(&args.target)?;
    let (name, experiment) = (&args.target.experiment, &bench.experiment);
    if experiment.kind == Kind::Shadow {
        return Err(
            Failure::refused(format!("`{name}` is a shadow: it takes no units"))
                .next("its `allocation_bp` in the file is in force as it stands")
                .error(),
        );
    }
    let [lacking, agreed] = args.preflight(experiment)?;
    if !lacking.is_empty() {
        return Err(refused(name, &lacking));
    }
    for finding in &agreed {
        output.note(format_args!("waived: {}", line(finding)));
    }
    let waived = agreed.iter().map(|finding| finding.code.to_owned());
    let waived: Vec<String> = waived.collect();
    bench.change(output, "allocate", |journal| {
        let digest = arms_digest(experiment);
        if let Some(holding) = journal.ledger().holding(name)
            && experiment.epoch > holding.epoch
        {
            return Ok(Action::Epoch {
                experiment: name.clone(),
                epoch: experiment.epoch,
                arms_digest: digest,
                waived,
            });
        }
        let first_step = experiment
            .rollout
            .as_ref()
            .and_then(|rollout| rollout.steps_bp.first());
        let bp = match (experiment.kind, first_step) {
            (Kind::Rollout, Some(&step)) => step,
            _ => experiment.allocation_bp,
        };
        let layer_epoch = bench.config.experiments.layer.get(&experiment.layer);
        Ok(Action::Allocate {
            experiment: name.clone(),
            epoch: experiment.epoch,
            arms_digest: digest,
            layer: experiment.layer.clone(),
            layer_epoch: layer_epoch.map_or(1, |layer| layer.epoch),
            bp,
            seed: args.seed.clone().unwrap_or_else(|| journal.next_seed(name)),
            waived,
        })
    })
}

/// Runs `refrain experiment ramp`.
pub(super) fn ramp(args: &RampArgs, output: &Output) -> anyhow::Result<Exit> {
    let bench = Bench::open(&args.target)?;
    let name = &args.target.experiment;
    bench.change(output, "ramp", |journal| {
        Ok(Action::Ramp {
            experiment: name.clone(),
            from_bp: share(journal, name),
            to_bp: args.to,
            seed: journal.next_seed(name),
        })
    })
}

/// Runs `refrain experiment stop`.
pub(super) fn stop(args: &StopArgs, output: &Output) -> anyhow::Result<Exit> {
    let bench = Bench::open(&args.target)?;
    let layer = bench.config.experiments.layer.get(&bench.experiment.layer);
    let days = layer.map_or(0, |layer| layer.cooldown_days);
    bench.change(output, "stop", |_| {
        let rest = jiff::SignedDuration::from_hours(24 * i64::from(days));
        let cooldown_until = match days {
            0 => None,
            _ => Some(jiff::Timestamp::now().checked_add(rest)?),
        };
        Ok(Action::Stop {
            experiment: args.target.experiment.clone(),
            cooldown_until,
        })
    })
}

/// Runs `refrain experiment journal`.
pub(super) fn journal(args: &JournalArgs, output: &Output) -> anyhow::Result<Exit> {
    let config = read(&args.file)?;
    let file = journal_of(&config, &args.file)?;
    let journal = verified(&file)?;
    let wanted = |entry: &&refrain_experiments::Entry| {
        let experiment = args.experiment.as_ref();
        experiment.is_none_or(|name| entry.action.experiment() == name)
    };
    let entries: Vec<_> = journal.entries().iter().filter(wanted).collect();
    let document = json!({
        "journal": file.path(),
        "verified": true,
        "digest": journal.digest(),
        "entries": entries,
    });
    output.result(&document, |output| {
        let mut table = output::table(&[
            Column::Number("#"),
            Column::Text("time"),
            Column::Text("by"),
            Column::Text("experiment"),
            Column::Text("what"),
            Column::Text("why"),
        ]);
        for entry in &entries {
            table.add_row([
                entry.seq.to_string(),
                format!("{:.0}", entry.time),
                output::clip(&entry.by, 20),
                output::clip(entry.action.experiment(), 30),
                said(&entry.action),
                output::clip(&entry.reason, 50),
            ]);
        }
        output.table(&table);
        output.line(format_args!(
            "{} verifies: {} entries, digest {}",
            file.path().display(),
            journal.entries().len(),
            journal.digest()
        ));
    });
    Ok(Exit::Done)
}

/// What a change works with.
struct Bench<'a> {
    target: &'a Target,
    config: Config,
    experiment: ExperimentConfig,
    journal: JournalFile,
}

impl<'a> Bench<'a> {
    fn open(target: &'a Target) -> anyhow::Result<Self> {
        let config = read(&target.file)?;
        let journal = journal_of(&config, &target.file)?;
        let experiment = config.experiments.experiment(&target.experiment).cloned();
        let Some(experiment) = experiment else {
            let known = config.experiments.experiment.0.iter();
            let known: Vec<&str> = known.map(|(name, _)| name.as_str()).collect();
            return Err(Failure::usage(format!(
                "{} declares no experiment `{}`",
                target.file.display(),
                target.experiment
            ))
            .next(format!("it declares: {}", known.join(", ")))
            .error());
        };
        Ok(Self {
            target,
            config,
            experiment,
            journal,
        })
    }

    /// Writes what `decide` says into the journal, if servers would take it, and brings the file in
    /// line.
    fn change(
        &self,
        output: &Output,
        verb: &str,
        decide: impl FnOnce(&Journal) -> anyhow::Result<Action>,
    ) -> anyhow::Result<Exit> {
        let name = &self.target.experiment;
        let before = verified(&self.journal)?;
        let action = decide(&before)?;
        let refuse = |source: anyhow::Error| {
            source.context(Failure::refused(format!("cannot {verb} `{name}`")))
        };
        let mut after = before.clone();
        let (by, reason) = (self.target.by.as_str(), self.target.reason.as_str());
        after
            .append(action.clone(), jiff::Timestamp::now(), by, reason, "")
            .map_err(|error| refuse(error.into()))?;
        let policy = self
            .config
            .policy(&after)
            .map_err(|problem| refuse(problem.into()))?;
        if !self.target.dry_run {
            let signature = Signature {
                by,
                reason,
                config_digest: policy.digest(),
            };
            // Between the look and the lock another may have written: then the draw is not what was
            // checked, so it is refused instead of guessed.
            let expected = before.digest();
            let decided = |journal: &Journal| {
                if journal.digest() == expected {
                    return Ok(action.clone());
                }
                Err(Failure::new("the journal changed meanwhile")
                    .next("run the command again")
                    .error())
            };
            after = self
                .journal
                .append(signature, |journal| decided(journal).map_err(Changed))
                .map_err(|Changed(error)| error)?;
            let shown = share(&after, name);
            if !matches!(action, Action::Stop { .. }) {
                edit::set_allocation(&self.target.file, name, shown)?;
            }
        }
        self.report(output, &action, &before, &after);
        Ok(Exit::Done)
    }

    fn report(&self, output: &Output, action: &Action, before: &Journal, after: &Journal) {
        let name = &self.target.experiment;
        let layer = &self.experiment.layer;
        let now = jiff::Timestamp::now();
        let document = json!({
            "experiment": name,
            "layer": layer,
            "from_bp": share(before, name),
            "to_bp": share(after, name),
            "free_bp": after.ledger().free_bp(layer, now),
            "cooling_bp": after.ledger().cooling_bp(layer, now),
            "written": !self.target.dry_run,
            "journal": self.journal.path(),
            "journal_digest": after.digest(),
        });
        output.result(&document, |output| {
            output.line(format_args!(
                "{name}: {}{}; layer {layer} has {} of {BASIS_POINTS} basis points free{}",
                said(action),
                if self.target.dry_run {
                    " (not written)"
                } else {
                    ""
                },
                after.ledger().free_bp(layer, now),
                match after.ledger().cooling_bp(layer, now) {
                    0 => String::new(),
                    cooling => format!(", {cooling} cool down"),
                }
            ));
        });
    }
}

/// Lets the errors of a command pass through the journal's.
struct Changed(anyhow::Error);

impl From<refrain_server::JournalFileError> for Changed {
    fn from(error: refrain_server::JournalFileError) -> Self {
        Self(error.into())
    }
}

/// Reads a configuration apart from its journal.
pub(super) fn read(file: &Path) -> anyhow::Result<Config> {
    Config::read(file).map_err(|error| {
        let failure = match &error {
            refrain_server::ConfigError::Read { .. } => {
                Failure::new("cannot read the configuration")
            }
            _ => Failure::refused(format!("{} does not hold", file.display()))
                .next("`refrain config` prints one that does"),
        };
        anyhow::Error::new(error).context(failure)
    })
}

pub(super) fn journal_of(config: &Config, file: &Path) -> anyhow::Result<JournalFile> {
    config.journal().ok_or_else(|| {
        Failure::usage(format!("{} names no journal", file.display()))
            .next("add [assignment] journal = \"experiments.jsonl\" to it")
            .error()
    })
}

/// A journal that does not verify is a check that said no.
pub(super) fn verified(file: &JournalFile) -> anyhow::Result<Journal> {
    file.read().map_err(|error| {
        let failure = match &error {
            refrain_server::JournalFileError::Broken { .. } => {
                Failure::refused("the journal does not verify")
            }
            _ => Failure::new("cannot read the journal"),
        };
        anyhow::Error::new(error).context(failure)
    })
}

fn refused(name: &str, findings: &[Finding]) -> anyhow::Error {
    let lines: Vec<String> = findings.iter().map(line).collect();
    let next = match findings.first().map(|finding| finding.code) {
        Some("event_unseen") => {
            "have whoever measures it report it through FeedbackService.ReportOutcomes"
        }
        Some("events_unknown") => {
            "ask a server a replay and give its log with --events, or go without: --events-unknown-ok"
        }
        Some("traffic_unknown") => {
            "say --units-per-day and --days, or go without: --traffic-unknown-ok"
        }
        Some("underpowered") => "or start all the same: --underpowered-ok",
        _ => "docs/experiments.md says what each field is for",
    };
    Failure::refused(format!("`{name}` must not start: {}", lines.join("; ")))
        .next(next)
        .error()
}

/// A finding in one line.
pub(super) fn line(finding: &Finding) -> String {
    format!("{} {}", finding.place, finding.problem)
}

fn share(journal: &Journal, name: &str) -> u32 {
    let holding = journal.ledger().holding(name);
    holding.map_or(0, refrain_experiments::Holding::share_bp)
}

/// An action in a few words.
pub(super) fn said(action: &Action) -> String {
    match action {
        Action::Allocate { bp, waived, .. } => format!("allocated {bp} bp{}", without(waived)),
        Action::Ramp { from_bp, to_bp, .. } => format!("ramped {from_bp} → {to_bp} bp"),
        Action::StepBack {
            from_bp,
            to_bp,
            guardrail,
            ..
        } => format!("stepped back {from_bp} → {to_bp} bp: {guardrail}"),
        Action::Epoch { epoch, waived, .. } => {
            format!("dealt anew, epoch {epoch}{}", without(waived))
        }
        Action::Stop { .. } => "stopped".to_owned(),
        _ => String::new(),
    }
}

/// What was agreed to go without.
fn without(waived: &[String]) -> String {
    if waived.is_empty() {
        String::new()
    } else {
        format!(", waived: {}", waived.join(", "))
    }
}

/// The journal's state of every experiment, for `check`.
pub(super) fn holdings(config: &Config, journal: &Journal) -> Vec<Value> {
    let all = config.experiments.experiment.0.iter();
    all.map(|(name, experiment)| {
        let held = share(journal, name);
        json!({
            "name": name,
            "declared_bp": experiment.allocation_bp,
            "held_bp": held,
            "held_back": journal.ledger().holding(name).is_some_and(|holding| holding.held),
        })
    })
    .collect()
}
