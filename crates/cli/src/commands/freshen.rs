//! `refrain freshen`: new items, changes and takedowns on a published version, in seconds.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Context as _;
use refrain_builder::build::VectorSet;
use refrain_builder::freshen::{Fresh, FreshenError, FreshenReport, freshen};
use refrain_builder::ingest;
use refrain_bundle::{PublishDeltaError, Store};
use refrain_engine::{OpenMode, Version};
use serde_json::json;

use super::store::{StoreArgs, actor, failure};
use super::train;
use crate::failure::{Exit, Failure};
use crate::ingest::{ReadArgs, SortArgs};
use crate::output::{self, Output};

/// How often it starts over when someone else publishes a delta at the same time.
const ATTEMPTS: usize = 5;
/// Ids named of a long list.
const NAMED: usize = 5;

/// Add new items, changes and takedowns to a published version; servers have them in seconds
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  refrain freshen --listens today.csv --items new-items.csv --store file:///srv/refrain
  refrain freshen --vectors new.npy --ids new.txt --label canary
  refrain freshen --remove takedowns.txt
  refrain freshen --remove-item t0815 --remove-item t0816

Items of --listens that the version does not know are folded in from their first listens; give the
listens of their listeners, too: what those like is what says where the item belongs. What is given of
a known item replaces what is known, and what is not given stays. Freshening again with the same input
changes nothing. The next build takes all of it in; build when deltas exceed some 5 % of the items.

Environment: REFRAIN_STORE")]
pub(crate) struct Args {
    #[command(flatten)]
    store: StoreArgs,
    /// Label whose version is freshened
    #[arg(long, value_name = "LABEL", default_value = "stable")]
    label: String,
    /// Version to freshen instead
    #[arg(long, value_name = "VERSION", conflicts_with = "label")]
    version: Option<String>,
    /// Listens: new items in them are folded in
    #[arg(long, value_name = "FILE", num_args = 1..)]
    listens: Vec<PathBuf>,
    /// What listeners excluded: those listens do not count
    #[arg(long, value_name = "FILE", num_args = 1.., requires = "listens")]
    exclusions: Vec<PathBuf>,
    /// Vectors of new or known items: .npy or .fvecs
    #[arg(long, value_name = "FILE", requires = "ids")]
    vectors: Option<PathBuf>,
    /// Ids of the vectors, one a line
    #[arg(long, value_name = "FILE", requires = "vectors")]
    ids: Option<PathBuf>,
    /// Attributes of new or known items
    #[arg(long, value_name = "FILE", num_args = 1..)]
    items: Vec<PathBuf>,
    /// Ids of items to be shown no more, one a row
    #[arg(long, value_name = "FILE", num_args = 1..)]
    remove: Vec<PathBuf>,
    /// Id of an item to be shown no more; repeat
    #[arg(long, value_name = "ID")]
    remove_item: Vec<String>,
    /// Ids of items that were taken down or blocked and may be shown again, one a row
    #[arg(long, value_name = "FILE", num_args = 1..)]
    restore: Vec<PathBuf>,
    /// Say what would be published, and publish nothing
    #[arg(long)]
    dry_run: bool,
    /// Threads; the result is the same with any number [default: one a core]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    #[command(flatten)]
    sort: SortArgs,
    #[command(flatten)]
    read: ReadArgs,
    /// Read this field of an item from that column: a name, a position from 1, or none; repeat
    #[arg(long, value_name = "FIELD=COLUMN", help_heading = "Reading files")]
    map_items: Vec<String>,
}

/// Runs `refrain freshen`.
pub(crate) fn run(args: &Args, output: &Output) -> anyhow::Result<Exit> {
    let started = Instant::now();
    let inputs = Inputs::read(args, output)?;
    let store = args.store.open()?;
    let id = match &args.version {
        Some(version) => version.clone(),
        None => {
            let label = store.label(&args.label);
            let label = label.map_err(|error| failure("cannot read the label", error))?;
            label
                .ok_or_else(|| {
                    Failure::new(format!("there is no label {}", args.label))
                        .next("`refrain versions` lists labels; publish a version first")
                        .error()
                })?
                .version
        }
    };
    let base = open(&store, &id)?;
    let work = tempfile::tempdir()?;
    let mut attempt = 0;
    let (report, delta, items) = loop {
        attempt += 1;
        let files = store
            .deltas(&id, 0)
            .map_err(|error| failure("cannot read the deltas", error))?;
        let version = base.with_deltas(&files).map_err(|error| {
            anyhow::Error::new(error).context(Failure::new("the deltas of the version do not fit"))
        })?;
        let out = work.path().join(format!("delta-{attempt}.rfs"));
        let report = {
            let _progress = output.progress("work out what is new");
            freshen(&version, inputs.fresh(), &out, train::threads(args.threads))
                .map_err(refused)?
        };
        let items = version.items().len();
        if report.delta.is_none() || args.dry_run {
            break (report, version.delta(), items);
        }
        let published = {
            let _progress = output.progress("publish");
            store.publish_delta(&out, &actor())
        };
        match published {
            Ok(published) => break (report, published.number, items),
            Err(PublishDeltaError::Taken { number, .. }) if attempt < ATTEMPTS => {
                output.line(format_args!(
                    "someone else published delta {number} first: on top of that one now"
                ));
            }
            Err(error) => {
                let next = "nothing was published; look with `refrain versions`, then repeat";
                let what = Failure::new("cannot publish the delta").next(next);
                return Err(anyhow::Error::new(error).context(what));
            }
        }
    };
    let took = started.elapsed();
    let published = report.delta.is_some() && !args.dry_run;
    let document = json!({
        "version": id,
        "delta": delta,
        "published": published,
        "dry_run": args.dry_run,
        "digest": report.delta.as_ref().map(|(_, file)| file.digest.to_string()),
        "bytes": report.delta.as_ref().map(|(_, file)| file.bytes),
        "new": report.new_given + report.new_folded,
        "new_folded_in": report.new_folded,
        "changed": report.changed,
        "removed": report.removed,
        "restored": report.restored,
        "unchanged": report.unchanged,
        "without_listeners": report.without_listeners,
        "without_vector": report.without_vector,
        "unknown": report.unknown,
        "seconds": took.as_secs_f64(),
    });
    output.result(&document, |output| {
        print(&report, output);
        if published {
            let file = report.delta.map_or(0, |(_, file)| file.bytes);
            output.line(format_args!(
                "delta {delta} on {id}: {}, in {}; servers have it within their poll interval",
                output::bytes(file),
                output::duration(took)
            ));
        } else if report.delta.is_some() {
            output.line("nothing was published: this was a dry run");
        } else {
            output.line(format_args!(
                "nothing to say: {id} with delta {delta} has all of it"
            ));
        }
        let of_deltas = report.new_given + report.new_folded + report.changed;
        if of_deltas as u64 * 20 > u64::from(items) {
            output.note("deltas are more than 5 % of the items: it is time to build");
        }
    });
    Ok(Exit::Done)
}

fn print(report: &FreshenReport, output: &Output) {
    output.line(format_args!(
        "{} new ({} folded in from listens), {} changed, {} taken down, {} restored, {} so already",
        output::count(count(report.new_given + report.new_folded)),
        output::count(count(report.new_folded)),
        output::count(count(report.changed)),
        output::count(count(report.removed)),
        output::count(count(report.restored)),
        output::count(count(report.unchanged)),
    ));
    for (what, ids) in [
        (
            "new, but none of their listeners has heard anything known",
            &report.without_listeners,
        ),
        (
            "neither known nor with a vector or a listen",
            &report.without_vector,
        ),
        ("to be removed or restored, but unknown", &report.unknown),
    ] {
        if ids.is_empty() {
            continue;
        }
        let named: Vec<String> = ids
            .iter()
            .take(NAMED)
            .map(|id| output::clip(id, 40))
            .collect();
        let more = if ids.len() > NAMED { ", …" } else { "" };
        output.note(format_args!(
            "{} left out, {what}: {}{more}",
            output::count(count(ids.len())),
            named.join(", ")
        ));
    }
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// Everything that was given, read.
struct Inputs {
    vectors: Option<VectorSet>,
    listens: Option<ingest::SortedLog>,
    items: ingest::Items,
    remove: Vec<String>,
    restore: Vec<String>,
}

impl Inputs {
    fn read(args: &Args, output: &Output) -> anyhow::Result<Self> {
        let of_items = args.read.items_options(&args.map_items)?;
        let vectors = args.vectors.as_deref().map(|file| {
            VectorSet::read(file, args.ids.as_deref()).map_err(|error| {
                anyhow::Error::new(error).context(Failure::new("cannot read the vectors"))
            })
        });
        let vectors = vectors.transpose()?;
        let items = crate::ingest::items(&args.items, &of_items, output)?;
        let mut listens = None;
        if !args.listens.is_empty() {
            let room = args.sort.room(None);
            let read = args.read.options()?;
            // Rules ask for labels, and nothing else does.
            let labelled = !args.exclusions.is_empty();
            let sort = (&args.sort, room.clone());
            let mut log = crate::ingest::sorted(&args.listens, &read, labelled, sort, output)?;
            if labelled {
                let plain = args.read.items_options(&[])?;
                let exclusions = crate::ingest::exclusions(&args.exclusions, &plain, output)?;
                let mut described = log.described().clone();
                described.merge(&items);
                log.exclude(&exclusions, &described, &room)
                    .with_context(|| Failure::new("cannot read the listens again"))?;
            }
            listens = Some(log);
        }
        let mut remove = ids(&args.remove, &of_items)?;
        remove.extend(args.remove_item.iter().cloned());
        let restore = ids(&args.restore, &of_items)?;
        let nothing = vectors.is_none() && listens.is_none() && items.is_empty();
        if nothing && remove.is_empty() && restore.is_empty() {
            return Err(Failure::usage("what is new?")
                .next("--listens, --vectors, --items, --remove, --remove-item or --restore")
                .error());
        }
        Ok(Self {
            vectors,
            listens,
            items,
            remove,
            restore,
        })
    }

    fn fresh(&self) -> Fresh<'_> {
        Fresh {
            vectors: self.vectors.as_ref(),
            listens: self.listens.as_ref(),
            items: Some(&self.items),
            remove: &self.remove,
            restore: &self.restore,
        }
    }
}

fn ids(paths: &[PathBuf], options: &ingest::ReadOptions) -> anyhow::Result<Vec<String>> {
    if paths.is_empty() {
        return Ok(Vec::new());
    }
    let (ids, _) = ingest::read_ids(paths, options, &|_, _| {})
        .map_err(|error| anyhow::Error::new(error).context(Failure::new("cannot read the ids")))?;
    Ok(ids.iter().map(str::to_owned).collect())
}

fn open(store: &Store, id: &str) -> anyhow::Result<Version> {
    let path = store
        .path(id)
        .map_err(|error| failure("cannot read the version", error))?;
    Version::open(&path, OpenMode::Map).map_err(|error| {
        let what = Failure::new(format!("cannot open {id}"))
            .next("`refrain verify` says what is wrong with it");
        anyhow::Error::new(error).context(what)
    })
}

fn refused(error: FreshenError) -> anyhow::Error {
    let what = Failure::new("cannot make the delta").next("nothing was published");
    anyhow::Error::new(error).context(what)
}
