//! The `refrain` command line: from a listening log to served recommendations, and a person's client
//! to a running server.
//!
//! Every command prints tables for people or, with `--json`, one document for programs (module
//! `output`), and exits with 0 when it did what was asked, 1 when it could not, 2 when it was asked
//! wrongly, 3 when a gate or check said no, 4 when an experiment does harm (module `failure`).

use std::process::ExitCode;

use clap::Parser as _;
use clap::error::ErrorKind;

use crate::commands::Command;
use crate::failure::{Exit, Failure};
use crate::output::Output;

mod client;
mod commands;
mod failure;
mod ingest;
mod listens;
mod output;
mod parse;
mod wire;

/// A nearest-neighbour recommendation index server.
///
/// Learns items and listeners from listening logs, serves what to hear next over gRPC, and honours
/// what a listener excluded from their taste profile.
#[derive(Debug, clap::Parser)]
#[command(
    name = "refrain",
    version,
    max_term_width = 100,
    after_help = "\
Start here:
  refrain demo --once                     the whole road on this machine, in under a minute
  refrain demo --listens plays.csv.gz     the same on your own listening log, then stay up

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 a gate or check said no, 4 harm found."
)]
struct Cli {
    /// Print one JSON document to standard output; everything else goes to standard error
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error).into(),
    };
    let output = Output::new(cli.json);
    let exit = cli
        .command
        .run(&output)
        .unwrap_or_else(|error| failure::report(&output, &error));
    finish(&output, exit).into()
}

/// Prints what clap has to say: help and version to standard output, errors to standard error and,
/// for programs, as a document.
fn usage(error: &clap::Error) -> Exit {
    if matches!(
        error.kind(),
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
    ) {
        // Help piped into a pager that was closed is no failure.
        drop(error.print());
        return Exit::Done;
    }
    drop(error.print());
    let output = Output::new(std::env::args_os().any(|arg| arg == "--json"));
    let text = error.render().to_string();
    let message = text
        .strip_prefix("error: ")
        .unwrap_or(&text)
        .lines()
        .next()
        .unwrap_or_default();
    output.document(&serde_json::json!({ "error": {
        "message": message,
        "causes": [],
        "next": "see --help",
        "exit": Exit::Usage.code(),
    }}));
    finish(&output, Exit::Usage)
}

/// A result that did not reach its reader is a failure, unless the reader went away on purpose.
fn finish(output: &Output, exit: Exit) -> Exit {
    match output.finish() {
        Ok(()) => exit,
        Err(error) => {
            let error =
                anyhow::Error::new(error).context(Failure::new("cannot write standard output"));
            failure::report(output, &error)
        }
    }
}
