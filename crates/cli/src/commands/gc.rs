//! `refrain gc`: remove what no label needs.

use jiff::SignedDuration;
use refrain_bundle::{Collected, Keep};
use serde_json::json;

use super::store::{StoreArgs, actor, failure};
use crate::failure::Exit;
use crate::output::{self, Output};

/// Remove versions that no label needs, and what publications that died left behind
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  refrain gc --store file:///srv/refrain --dry-run
  refrain gc --store file:///srv/refrain --keep 5
  refrain gc --keep 0 --younger-than-minutes 0

What a label points at, and what it would roll back to, always stays; so do the newest others, and what
was published within the last hour. Safe beside publishers and running servers.

Environment: REFRAIN_STORE")]
pub(crate) struct Args {
    #[command(flatten)]
    store: StoreArgs,
    /// So many of the newest other versions stay
    #[arg(long, value_name = "N", default_value_t = 2)]
    keep: usize,
    /// What was published, or begun, within so many minutes stays
    #[arg(long, value_name = "MINUTES", default_value_t = 60)]
    younger_than_minutes: u32,
    /// Say what would go, and remove nothing
    #[arg(long)]
    dry_run: bool,
}

/// Runs `refrain gc`.
pub(crate) fn run(args: &Args, output: &Output) -> anyhow::Result<Exit> {
    let keep = Keep {
        newest: args.keep,
        younger_than: SignedDuration::from_mins(args.younger_than_minutes.into()),
    };
    let collected = {
        let _progress = output.progress("collect");
        args.store
            .open()?
            .collect(keep, args.dry_run, &actor())
            .map_err(|error| failure("cannot collect", error))?
    };
    let Collected {
        versions,
        kept,
        leavings,
        bytes,
    } = &collected;
    let document = json!({
        "dry_run": args.dry_run,
        "versions": versions,
        "kept": kept,
        "leavings": leavings,
        "bytes": bytes,
    });
    output.result(&document, |output| {
        let verb = if args.dry_run { "would go" } else { "went" };
        for (version, why) in kept {
            output.line(format_args!("{version} stays: {why}"));
        }
        for version in versions {
            output.line(format_args!("{version} {verb}"));
        }
        output.line(format_args!(
            "{} versions and {} leavings {verb}, {}",
            versions.len(),
            leavings.len(),
            output::bytes(*bytes)
        ));
    });
    Ok(Exit::Done)
}
