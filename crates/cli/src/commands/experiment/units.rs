//! `refrain experiment units`: who is in an experiment, as the file that closes its intake.

use std::path::PathBuf;

use anyhow::Context as _;
use serde_json::json;

use super::{analyze, change};
use crate::failure::{Exit, Failure};
use crate::output::{self, Output};

/// Write the units that an experiment has so far: with `admitted` they go on, and nobody else gets in
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Reads the finished files of the log of exposures: listeners who were dealt to an arm of the experiment in its
present epoch, one a line, sorted. Rows that a server has not closed a file of yet are not among them; close
it, or wait for `exposures.roll_seconds`. Then set `admitted = \"FILE\"` in [experiment.NAME].

Examples:
  refrain experiment units refrain.toml rank-blend --log exposures/ --out rank-blend.units")]
pub(super) struct Args {
    /// The configuration file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The experiment
    #[arg(value_name = "EXPERIMENT")]
    experiment: String,
    /// Directory of the log: `exposures.path` of the server
    #[arg(long, value_name = "DIR")]
    log: PathBuf,
    /// Where the units go
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// Runs `refrain experiment units`.
pub(super) fn run(args: &Args, output: &Output) -> anyhow::Result<Exit> {
    let config = change::read(&args.file)?;
    let name = &args.experiment;
    let Some(experiment) = config.experiments.experiment(name) else {
        return Err(
            Failure::new(format!("experiment `{name}` is not declared in the file"))
                .next("`refrain experiment check FILE` lists those that are")
                .error(),
        );
    };
    let epoch = experiment.epoch;
    let units = refrain_server::seen_units(&args.log, name, epoch).with_context(|| {
        Failure::new(format!("cannot read the log {}", args.log.display()))
            .next("--log is the directory that `exposures.path` names")
    })?;
    if let Some(unit) = units.iter().find(|unit| unit.contains(['\n', '\r'])) {
        return Err(Failure::refused(format!(
            "the unit {unit:?} has a line break in it, and such a file has one unit a line"
        ))
        .error());
    }
    let mut text = String::new();
    for unit in &units {
        text.push_str(unit);
        text.push('\n');
    }
    analyze::write(&args.out, text.as_bytes())?;
    let document = json!({
        "experiment": name,
        "epoch": epoch,
        "units": units.len(),
        "out": args.out,
    });
    output.result(&document, |output| {
        output.line(format_args!(
            "{} units of {name} (epoch {epoch}) in {}",
            output::count(units.len() as u64),
            args.out.display()
        ));
    });
    Ok(Exit::Done)
}
