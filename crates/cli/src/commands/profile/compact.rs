//! `refrain profile compact`: the file of the embedded store, written anew.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use refrain_taste::{CompactOptions, RedbStore};
use serde_json::json;

use crate::failure::{Exit, Failure};
use crate::output::{self, Output};
use crate::parse;

/// Write the file of the embedded profile store anew, so that nothing of what was erased or dropped
/// remains in it
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  refrain profile compact profiles.redb
  refrain profile compact profiles.redb --older-than 730d

The server that uses the file must be stopped. The new file takes the place of the old one when it is
whole and on disk.")]
pub(super) struct Args {
    /// The file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Also drop events older than this, but for those by which SERVE rules know their items
    #[arg(long, value_name = "TIME", value_parser = parse::duration)]
    older_than: Option<Duration>,
}

/// Runs `refrain profile compact`.
pub(super) fn run(args: &Args, output: &Output) -> anyhow::Result<Exit> {
    let started = Instant::now();
    let drop_before_us = args.older_than.map(|age| {
        let age_us = i64::try_from(age.as_micros()).unwrap_or(i64::MAX);
        Timestamp::now().as_microsecond().saturating_sub(age_us)
    });
    let report =
        RedbStore::compact(&args.file, &CompactOptions { drop_before_us }).map_err(|error| {
            anyhow::Error::new(error).context(
                Failure::new("the store was not compacted and is as it was")
                    .next("stop the server that has it open"),
            )
        })?;
    let document = json!({
        "file": args.file,
        "users": report.users,
        "events": report.events,
        "rules": report.rules,
        "dropped": report.dropped,
        "bytes_before": report.bytes_before,
        "bytes_after": report.bytes_after,
    });
    output.result(&document, |output| {
        output.line(format_args!(
            "{} listeners, {} events and {} rules written anew, {} old events dropped: {} -> {}, in {}",
            output::count(report.users),
            output::count(report.events),
            output::count(report.rules),
            output::count(report.dropped),
            output::bytes(report.bytes_before),
            output::bytes(report.bytes_after),
            output::duration(started.elapsed()),
        ));
    });
    Ok(Exit::Done)
}
