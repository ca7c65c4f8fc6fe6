//! `refrain build`: from a model, or vectors from elsewhere, to a sealed bundle.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use refrain_builder::build::{self, BuildError, BuildOptions, Earlier, Source, VectorSet};
use refrain_builder::cluster::SceneFile;
use refrain_builder::model::Model;
use refrain_bundle::{Manifest, both};
use refrain_kernels::Metric;
use serde_json::json;

use super::train;
use crate::failure::{Exit, Failure};
use crate::output::{self, Column, Output, Progress};

/// Build an index and seal it as a bundle
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  refrain build --model model/ --out bundle/
  refrain build --vectors embeddings.npy --ids ids.txt --metric cosine --out bundle/
  refrain build --model model/ --m 24 --ef-construction 400 --out bundle/
  refrain build --model tonight/ --reuse yesterday-bundle/ --out bundle/
  refrain build --model large/ --checkpoints large-build/ --out bundle/
  refrain build --model model/ --scenes scenes.parquet --out bundle/

The same input, options and SOURCE_DATE_EPOCH give the same bytes, whatever the number of threads.")]
pub(crate) struct Args {
    /// Model that `refrain train` made
    #[arg(long, value_name = "MODEL", required_unless_present = "vectors",
          conflicts_with_all = ["vectors", "ids"])]
    model: Option<PathBuf>,
    /// Vectors: .npy or .fvecs
    #[arg(long, value_name = "FILE")]
    vectors: Option<PathBuf>,
    /// Ids of the vectors, one a line [default: 0, 1, 2, …]
    #[arg(long, value_name = "FILE")]
    ids: Option<PathBuf>,
    /// Directory for the bundle; must not exist
    #[arg(long, value_name = "BUNDLE")]
    out: PathBuf,
    /// What makes two vectors close: ip, cosine or l2
    #[arg(long, value_name = "METRIC", default_value = "ip")]
    metric: Metric,
    /// Links of a node
    #[arg(long, value_name = "N", default_value_t = 16)]
    m: usize,
    /// Pool size while building [default: 80; by ip 40 to 80, as suits the number of items]
    #[arg(long, value_name = "N")]
    ef_construction: Option<usize>,
    /// Threads; the result is the same with any number [default: one a core]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Seed of the graph and of the sample of queries
    #[arg(long, value_name = "N", default_value_t = 42)]
    seed: u64,
    /// Bundle whose graph to start from: items that hardly moved keep their links
    #[arg(long, value_name = "BUNDLE")]
    reuse: Option<PathBuf>,
    /// Scenes of the items: what `refrain cluster` wrote, or any Parquet file with item_id and scene
    #[arg(long, value_name = "FILE")]
    scenes: Option<PathBuf>,
    /// Directory for checkpoints: a build that was killed goes on from there; removed when done
    #[arg(long, value_name = "DIR")]
    checkpoints: Option<PathBuf>,
    /// Seconds between two checkpoints
    #[arg(long, value_name = "N", default_value_t = 60, requires = "checkpoints")]
    checkpoint_seconds: u64,
    /// Version that this one succeeds
    #[arg(long, value_name = "VERSION")]
    parent: Option<String>,
}

/// Runs `refrain build`.
pub(crate) fn run(args: &Args, output: &Output) -> anyhow::Result<Exit> {
    let started = Instant::now();
    train::refuse_existing(&args.out)?;
    let scenes = args.scenes.as_deref().map(|file| {
        SceneFile::read(file).map_err(|error| {
            anyhow::Error::new(error).context(Failure::new("cannot read the scenes"))
        })
    });
    let scenes = scenes.transpose()?;
    let mut options = BuildOptions {
        metric: args.metric,
        m: args.m,
        ef_construction: args.ef_construction,
        threads: train::threads(args.threads),
        seed: args.seed,
        checkpoints: args.checkpoints.clone().map(|dir| {
            let every = Duration::from_secs(args.checkpoint_seconds);
            (dir, every)
        }),
        parent: args.parent.clone(),
        scenes: scenes.map(Arc::new),
        command: train::command_line(),
        ..BuildOptions::new(build::create_time()?)
    };
    // The bundle whose graph to start from is looked through while what to build from is read.
    let earlier = || args.reuse.as_deref().map(Earlier::open).transpose();
    let (earlier, read) = both(earlier, || Input::read(args));
    let input = read?;
    options.reuse = earlier.map_err(cannot_build)?.map(Arc::new);
    let manifest = seal(input.source(), &args.out, &options, output)?;
    if let Some(checkpoints) = &args.checkpoints {
        build::discard_checkpoints(checkpoints);
    }
    let took = started.elapsed();
    let document = json!({
        "bundle": args.out,
        "version": manifest.version,
        "items": manifest.items,
        "dim": manifest.dim,
        "metric": manifest.metric,
        "bytes": size(&manifest),
        "index": manifest.index,
        "manifest": manifest,
        "seconds": took.as_secs_f64(),
    });
    output.result(&document, |output| {
        print_index(&manifest, output);
        output.line(format_args!(
            "{} in {}: {}, in {}",
            manifest.version,
            args.out.display(),
            output::bytes(size(&manifest)),
            output::duration(took)
        ));
        output.line(format_args!(
            "next: refrain publish {} --store URL",
            args.out.display()
        ));
    });
    Ok(Exit::Done)
}

/// What to build from.
enum Input {
    Model(Box<Model>),
    Vectors(VectorSet),
}

impl Input {
    fn read(args: &Args) -> anyhow::Result<Self> {
        match (&args.model, &args.vectors) {
            (Some(dir), _) => Model::load(dir)
                .map(|model| Self::Model(Box::new(model)))
                .with_context(|| {
                    Failure::new(format!("cannot load the model {}", dir.display()))
                        .next("give a directory that `refrain train` made")
                }),
            (None, Some(vectors)) => VectorSet::read(vectors, args.ids.as_deref())
                .map(Self::Vectors)
                .context(Failure::new("cannot read the vectors")),
            (None, None) => Err(Failure::usage("built from what?")
                .next("--model or --vectors")
                .error()),
        }
    }

    fn source(&self) -> Source<'_> {
        match self {
            Self::Model(model) => Source::Model(model),
            Self::Vectors(set) => Source::Vectors(set),
        }
    }
}

/// Builds with a progress bar.
pub(crate) fn seal(
    source: Source<'_>,
    out: &Path,
    options: &BuildOptions,
    output: &Output,
) -> anyhow::Result<Manifest> {
    struct Bar(Progress);
    impl refrain_index::Progress for Bar {
        fn advance(&self, done: u64, total: u64) {
            self.0.set(done, total);
        }
    }
    let bar = Bar(output.progress("link items"));
    build::build(source, out, options, &bar).map_err(cannot_build)
}

fn cannot_build(error: BuildError) -> anyhow::Error {
    anyhow::Error::new(error).context(Failure::new("cannot build"))
}

/// Prints what was built, and how much of the exact answer it finds.
pub(crate) fn print_index(manifest: &Manifest, output: &Output) {
    output.line(format_args!(
        "{} x {} by {}, m {}, ef_construction {}",
        output::count(manifest.items),
        manifest.dim,
        manifest.metric,
        manifest.index.m,
        manifest.index.ef_construction
    ));
    let reuse = &manifest.report["index"]["reuse"];
    if let (Some(version), Some(linked)) = (reuse["version"].as_str(), reuse["linked"].as_u64()) {
        if reuse["refused"] == true {
            output.line(format_args!(
                "linked anew: the graph of {version} found too little of these vectors"
            ));
        } else {
            output.line(format_args!(
                "the graph is that of {version}, {} linked anew",
                output::count(linked)
            ));
        }
    }
    if manifest.index.calibration.is_empty() {
        return;
    }
    let mut table = output::table(&[
        Column::Number("ef_search"),
        Column::Number("recall@10"),
        Column::Text(""),
    ]);
    for point in &manifest.index.calibration {
        let chosen = point.ef_search == manifest.index.ef_search;
        table.add_row([
            point.ef_search.to_string(),
            format!("{:.4}", point.recall),
            if chosen {
                "chosen".to_owned()
            } else {
                String::new()
            },
        ]);
    }
    output.table(&table);
    if let Some(recall) = manifest.index.recall_at_10 {
        output.line(format_args!(
            "recall@10 {recall:.4} against exact search, on queries that did not choose ef_search"
        ));
    }
}

/// Bytes of all files.
pub(crate) fn size(manifest: &Manifest) -> u64 {
    manifest.files.values().map(|file| file.bytes).sum()
}
