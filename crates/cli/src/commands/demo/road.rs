//! From a listening log to a published version.

use std::path::Path;

use anyhow::Context as _;
use refrain_als::Hyper;
use refrain_builder::build::{self, BuildOptions, Source, evaluate_index};
use refrain_builder::generate::{self, Format, Preset};
use refrain_builder::ingest::{Items, Log, ReadOptions, Room, SortedLog};
use refrain_builder::model::Model;
use refrain_builder::train::{TrainOptions, TrainReport};
use refrain_bundle::{Bundle, Manifest, OpenMode, Store};

use super::steps::Steps;
use super::{Args, LEAST_RECALL};
use crate::commands::{build as build_command, store, train, verify};
use crate::failure::Failure;
use crate::ingest;
use crate::output;

/// What the road led to.
#[derive(Debug)]
pub(super) struct Road {
    /// Where the log came from.
    pub(super) source: String,
    pub(super) log: Log,
    /// Users who play the sleep playlist, most active first; only of a generated log.
    pub(super) sleepers: Vec<String>,
    pub(super) model: Model,
    pub(super) report: TrainReport,
    pub(super) manifest: Manifest,
    /// Recall over the golden queries, for a bundle without held-out ones.
    pub(super) golden_recall: f64,
}

impl Road {
    /// recall@10 of the index against exact search: over queries that did not choose `ef_search`
    /// where there are any.
    pub(super) fn recall(&self) -> f64 {
        self.manifest
            .index
            .recall_at_10
            .unwrap_or(self.golden_recall)
    }
}

/// Log, model, bundle, gate, store.
pub(super) fn travel(args: &Args, dir: &Path, steps: &mut Steps<'_>) -> anyhow::Result<Road> {
    let Listened {
        source,
        log,
        items,
        sleepers,
    } = listen(args, dir, steps)?;
    let threads = train::threads(args.threads);
    let seed = args.seed.unwrap_or(Hyper::default().seed);

    steps.begin(
        "train",
        "learn listeners and items from the log, judge by what is held out",
    );
    let options = TrainOptions {
        hyper: Hyper {
            seed,
            ..Hyper::default()
        },
        threads,
        command: train::command_line(),
        ..TrainOptions::default()
    };
    let sorted = SortedLog::of(&log, &Room::default())
        .context(Failure::new("cannot sort the listening log"))?;
    let (model, report) = train::fit(sorted, &items, &options, steps.output)?;
    model.save(&dir.join("model"))?;
    train::print_report(&report, steps.output);
    steps.end();

    steps.begin(
        "build",
        "link the items into an index and seal it as a bundle",
    );
    let bundle_dir = dir.join("bundle");
    let options = BuildOptions {
        threads,
        seed,
        command: train::command_line(),
        ..BuildOptions::new(build::create_time()?)
    };
    let manifest = build_command::seal(Source::Model(&model), &bundle_dir, &options, steps.output)?;
    build_command::print_index(&manifest, steps.output);
    steps.end();

    steps.begin(
        "gate",
        "check every byte and link, and the index against exact search",
    );
    let (_, files, bytes) = verify::check(&bundle_dir)?;
    steps.say(format_args!(
        "{files} files, {}, all whole",
        output::bytes(bytes)
    ));
    let bundle = Bundle::open(&bundle_dir, OpenMode::Map)?;
    let golden = evaluate_index(&bundle, 10, &[], threads)?;
    let golden_recall = golden.pool_sizes.first().map_or(0.0, |point| point.recall);
    let road = Road {
        source,
        log,
        sleepers,
        model,
        report,
        manifest,
        golden_recall,
    };
    let (recall, verdict) = (
        road.recall(),
        if road.recall() >= LEAST_RECALL {
            "passes"
        } else {
            "fails"
        },
    );
    steps.say(format_args!(
        "recall@10 {recall:.4} at ef_search {}, at least {LEAST_RECALL} is asked: {verdict}",
        road.manifest.index.ef_search
    ));
    steps.end();

    steps.begin(
        "publish",
        "copy the bundle into a store, verified, and label it stable",
    );
    let store = Store::open(&dir.join("store").display().to_string())?;
    let published = store.publish(&bundle_dir, Some("stable"), None, &store::actor())?;
    steps.say(format_args!("stable points at {}", published.version));
    steps.end();
    Ok(road)
}

/// A log, and what is known of its items.
struct Listened {
    source: String,
    log: Log,
    items: Items,
    sleepers: Vec<String>,
}

fn listen(args: &Args, dir: &Path, steps: &mut Steps<'_>) -> anyhow::Result<Listened> {
    let listened = if args.listens.is_empty() {
        steps.begin(
            "generate",
            "a listening log with scenes, artists, sessions and playlists",
        );
        let mut preset = Preset::named("demo")?;
        preset.seed = args.seed.unwrap_or(preset.seed);
        let generated = generate::generate(&preset)?;
        let written = generated
            .write(&dir.join("log"), Format::Csv)
            .context(Failure::new("cannot write the generated log"))?;
        steps.end();
        steps.begin("read", "read it back, as a log of yours would be");
        let read = ReadOptions::default();
        Listened {
            source: format!("generated: preset {}, seed {}", preset.name, preset.seed),
            log: ingest::listens(&[written.listens], &read, steps.output)?,
            items: ingest::items(&[written.items], &read, steps.output)?,
            sleepers: generated.sleepers,
        }
    } else {
        steps.begin("read", "read the listening log");
        let read = args.read.options()?;
        let read_items = args.read.items_options(&args.map_items)?;
        let names: Vec<String> = args
            .listens
            .iter()
            .map(|path| path.display().to_string())
            .collect();
        Listened {
            source: names.join(", "),
            log: ingest::listens(&args.listens, &read, steps.output)?,
            items: ingest::items(&args.items, &read_items, steps.output)?,
            sleepers: Vec::new(),
        }
    };
    let log = &listened.log;
    steps.say(format_args!(
        "{} listens of {} users, {} items{}",
        output::count(log.len() as u64),
        output::count(log.users.len() as u64),
        output::count(log.items.len() as u64),
        if log.time_us.is_some() {
            ""
        } else {
            ", without times"
        },
    ));
    steps.end();
    Ok(listened)
}
