//! `refrain cluster`: the tracks of a model or bundle fall into a hierarchy of scenes.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context as _;
use refrain_builder::cluster::{
    ClusterOptions, ClusterReport, Nearness, Scene, SceneFile, Tracks, cluster, place,
    write_report, write_scene_file,
};
use refrain_builder::files::write_whole;
use refrain_builder::model::Model;
use refrain_builder::page::Page;
use refrain_bundle::{OpenMode, manifest::MANIFEST};
use refrain_engine::Version;
use serde_json::json;

use super::train;
use crate::failure::{Exit, Failure};
use crate::output::{self, Column, Output};

/// Scenes that are printed.
const PRINTED: usize = 40;

/// Find the scenes of a catalogue: which tracks belong together, and what they have in common
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  refrain cluster model/ --out scenes.parquet
  refrain cluster bundle/ --out scenes.parquet --report scenes.json --html scenes.html
  refrain cluster model/ --threshold 200 --max-levels 3 --out scenes.parquet
  refrain build --model model/ --scenes scenes.parquet --out bundle/
  refrain cluster tomorrow/ --apply scenes.parquet --out tomorrow.parquet

Scenes with more than --threshold tracks are reduced to their principal axes and split by k-means, and so
are their parts, as long as the parts stand apart better than those of a cloud without clusters would. The
output has the columns item_id, scene (2.1 is the largest part of the second largest scene), top (2) and
label (its distinguishing tags, or artists); a track that was never learned has no scene. The file also
holds the decision tree that places further tracks: --apply uses it, and so does a bundle that is built
with --scenes, for tracks that `refrain freshen` adds. Variants may then cap what they show of a scene
(max_per_scene) and weigh scene_match, and `refrain evaluate` judges each scene apart.")]
pub(crate) struct Args {
    /// Directory that `refrain train`, `import` or `build` made
    #[arg(value_name = "MODEL|BUNDLE")]
    source: PathBuf,
    /// Parquet file for the scene of every track
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Write the hierarchy as JSON
    #[arg(long, value_name = "FILE", conflicts_with = "apply")]
    report: Option<PathBuf>,
    /// Write the hierarchy as one self-contained page
    #[arg(long, value_name = "FILE", conflicts_with = "apply")]
    html: Option<PathBuf>,
    /// Place the tracks in the scenes of this file instead of finding scenes
    #[arg(long, value_name = "FILE")]
    apply: Option<PathBuf>,
    /// Split scenes with more tracks than this
    #[arg(long, value_name = "N", default_value_t = ClusterOptions::default().threshold)]
    threshold: usize,
    /// Tracks of a scene at least
    #[arg(long, value_name = "N", default_value_t = ClusterOptions::default().min_items)]
    min_items: usize,
    /// Parts that a scene is split into, at most
    #[arg(long, value_name = "N", default_value_t = ClusterOptions::default().max_parts)]
    max_parts: usize,
    /// Levels of the hierarchy, at most
    #[arg(long, value_name = "N", default_value_t = ClusterOptions::default().max_levels)]
    max_levels: usize,
    /// Runs of k-means, of which the best counts
    #[arg(long, value_name = "N", default_value_t = ClusterOptions::default().restarts)]
    restarts: usize,
    /// How much the silhouette of a split must exceed that of a cloud; -2 splits all that is large
    #[arg(long, value_name = "X", default_value_t = ClusterOptions::default().min_gain,
          allow_negative_numbers = true)]
    min_gain: f64,
    /// What makes tracks alike: direction or position of their vectors [default: position for
    /// bundles by l2, else direction]
    #[arg(long, value_name = "WHAT", value_parser = nearness)]
    by: Option<Nearness>,
    /// Seed; the same seed finds the same scenes
    #[arg(long, value_name = "N", default_value_t = ClusterOptions::default().seed)]
    seed: u64,
    /// Threads; the result is the same with any number [default: one a core]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
}

fn nearness(text: &str) -> Result<Nearness, String> {
    match text {
        "direction" => Ok(Nearness::Direction),
        "position" => Ok(Nearness::Position),
        _ => Err("expected direction or position".to_owned()),
    }
}

/// Runs `refrain cluster`.
pub(crate) fn run(args: &Args, output: &Output) -> anyhow::Result<Exit> {
    let cannot = || {
        Failure::new(format!("cannot open {}", args.source.display()))
            .next("give a directory that `refrain train`, `import` or `build` made")
    };
    if args.source.join(MANIFEST).exists() {
        let version = Version::open(&args.source, OpenMode::Map).with_context(cannot)?;
        let tracks = Tracks::of_bundle(version.bundle(), version.index());
        return find(args, &tracks, output);
    }
    let model = Model::load(&args.source).with_context(cannot)?;
    find(args, &Tracks::of_model(&model), output)
}

fn find(args: &Args, tracks: &Tracks<'_>, output: &Output) -> anyhow::Result<Exit> {
    let started = Instant::now();
    let threads = train::threads(args.threads);
    if let Some(file) = &args.apply {
        return apply(args, file, tracks, output);
    }
    let options = ClusterOptions {
        threshold: args.threshold,
        min_items: args.min_items,
        max_parts: args.max_parts,
        max_levels: args.max_levels,
        restarts: args.restarts,
        min_gain: args.min_gain,
        by: args.by,
        seed: args.seed,
        threads,
    };
    let (found, split) = {
        let bar = output.progress("find scenes");
        cluster(tracks, &options, &|done, total| bar.set(done, total)).map_err(|error| {
            let usage = matches!(error, refrain_builder::cluster::ClusterError::Option { .. });
            let what = match usage {
                true => Failure::usage("cannot cluster like this"),
                false => Failure::new("cannot cluster these tracks"),
            };
            anyhow::Error::new(error).context(what)
        })?
    };
    let report = ClusterReport::new(&found, split, &options);
    let of = |of: fn(&Scene) -> &String| found.scenes.iter().map(of).cloned().collect::<Vec<_>>();
    let (paths, labels) = (of(|scene| &scene.path), of(|scene| &scene.label));
    // The file that other commands take comes last: when it is there, all of it is.
    if let Some(file) = &args.report {
        write_report(file, &report).with_context(|| cannot_write(file))?;
    }
    if let Some(file) = &args.html {
        write_whole(file, page(&report, &args.source).as_bytes())
            .with_context(|| cannot_write(file))?;
    }
    write_scene_file(
        &args.out,
        &tracks.ids,
        &found.of,
        &paths,
        &labels,
        &found.rules,
    )
    .with_context(|| cannot_write(&args.out))?;
    let took = started.elapsed();
    let document = json!({
        "source": args.source,
        "out": args.out,
        "report": args.report,
        "html": args.html,
        "hierarchy": report,
        "seconds": took.as_secs_f64(),
    });
    output.result(&document, |output| {
        print(&report, output);
        output.line(format_args!(
            "{} of {} tracks in {} scenes ({} of them without parts) in {}; the decision tree places \
             {:.1} % where they are; in {}",
            output::count(report.placed),
            output::count(report.items),
            report.scenes.len(),
            report.scenes.iter().filter(|scene| scene.split.is_none()).count(),
            args.out.display(),
            report.fidelity * 100.0,
            output::duration(took)
        ));
        output.line(format_args!(
            "next: refrain build --model MODEL --scenes {} --out BUNDLE",
            args.out.display()
        ));
    });
    Ok(Exit::Done)
}

/// Places the tracks in the scenes of a file.
fn apply(args: &Args, file: &Path, tracks: &Tracks<'_>, output: &Output) -> anyhow::Result<Exit> {
    let started = Instant::now();
    let cannot = || Failure::new(format!("cannot place tracks by {}", file.display()));
    let scenes = SceneFile::read(file).with_context(cannot)?;
    if scenes.rules.thresholds.is_empty() {
        return Err(Failure::new(format!(
            "{} has scenes, but no rules to place tracks by",
            file.display()
        ))
        .next("give a file that `refrain cluster` wrote")
        .error());
    }
    let of = {
        let _progress = output.progress("place tracks");
        place(tracks, &scenes.rules, train::threads(args.threads)).with_context(cannot)?
    };
    write_scene_file(
        &args.out,
        &tracks.ids,
        &of,
        &scenes.paths,
        &scenes.labels,
        &scenes.rules,
    )
    .with_context(|| cannot_write(&args.out))?;
    let placed = of.iter().flatten().count();
    let known = |id: &str| scenes.of.contains_key(id);
    let new = tracks.ids.iter().filter(|id| !known(id)).count();
    let document = json!({
        "source": args.source,
        "out": args.out,
        "applied": file,
        "items": tracks.ids.len(),
        "placed": placed,
        "new": new,
        "seconds": started.elapsed().as_secs_f64(),
    });
    output.result(&document, |output| {
        output.line(format_args!(
            "{} of {} tracks placed in the scenes of {}, {} of them new, in {}",
            output::count(placed as u64),
            output::count(tracks.ids.len() as u64),
            file.display(),
            output::count(new as u64),
            output::duration(started.elapsed())
        ));
    });
    Ok(Exit::Done)
}

fn cannot_write(path: &Path) -> Failure {
    Failure::new(format!("cannot write {}", path.display()))
}

/// What is said of a scene: its tags and artists with their shares.
fn told(scene: &Scene) -> String {
    let names: Vec<String> = scene
        .tags
        .iter()
        .chain(&scene.artists)
        .take(4)
        .map(|one| format!("{} {:.0} %", one.name, one.share * 100.0))
        .collect();
    names.join(", ")
}

fn print(report: &ClusterReport, output: &Output) {
    let mut table = output::table(&[
        Column::Text("scene"),
        Column::Number("tracks"),
        Column::Number("parts"),
        Column::Text("more of it than elsewhere"),
    ]);
    for scene in report.scenes.iter().take(PRINTED) {
        let parts = scene.split.as_ref().map(|split| split.parts.to_string());
        table.add_row([
            scene.path.clone(),
            output::count(scene.items),
            parts.unwrap_or_default(),
            output::clip(&told(scene), 60),
        ]);
    }
    output.table(&table);
    if report.scenes.len() > PRINTED {
        let more = report.scenes.len() - PRINTED;
        output.line(format_args!(
            "… and {more} more: --report or --html has all"
        ));
    }
}

fn page(report: &ClusterReport, source: &Path) -> String {
    let mut page = Page::new("Refrain: scenes");
    page.text(&format!(
        "{} of {} tracks of {} in {} scenes. The decision tree places {:.1} % of them where they are.",
        output::count(report.placed),
        output::count(report.items),
        source.display(),
        report.scenes.len(),
        report.fidelity * 100.0
    ));
    let top: Vec<(String, f64)> = report
        .scenes
        .iter()
        .filter(|scene| scene.parent.is_none())
        .map(|scene| {
            let name = format!("{} {}", scene.path, output::clip(&scene.label, 24));
            (name, scene.items as f64 / report.placed.max(1) as f64)
        })
        .collect();
    page.bars("Share of the tracks, scenes of the first level", &top);
    page.heading("All scenes");
    let rows = report.scenes.iter().map(|scene| {
        let split = scene.split.as_ref();
        let gain = split.and_then(|split| {
            let gains = split.candidates.iter().map(|one| one.gain());
            gains.reduce(f64::max)
        });
        [
            format!("{} {}", scene.path, scene.label),
            output::count(scene.items),
            split.map_or_else(
                || scene.whole.clone(),
                |split| format!("{} parts", split.parts),
            ),
            gain.map_or_else(|| "-".to_owned(), |gain| format!("{gain:.3}")),
            told(scene),
        ]
    });
    page.table(
        &[
            "scene",
            "tracks",
            "split",
            "gain over a cloud",
            "more of it than elsewhere",
        ],
        rows,
    );
    page.finish()
}
