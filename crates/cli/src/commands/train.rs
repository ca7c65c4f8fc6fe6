//! `refrain train`: from a listening log to a model, and how good it is.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use anyhow::Context as _;
use refrain_als::{Confidence, Hyper};
use refrain_builder::evaluation::SplitCounts;
use refrain_builder::evaluation::{HoldOut, Quality};
use refrain_builder::ingest::{ExclusionReport, Exclusions, Items, Room, SortedLog};
use refrain_builder::model::{Model, Parent};
use refrain_builder::train::{self, EvaluationPlan, Stage, TrainOptions, TrainReport, Trainer};
use refrain_bundle::both;
use serde_json::json;

use crate::failure::{Exit, Failure};
use crate::ingest::{self, ReadArgs, SortArgs};
use crate::output::{self, Column, Output, Progress};

/// Learn a model of listeners and items from a listening log
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  refrain train --listens plays.csv.gz --out model/
  refrain train --listens 2026-*.parquet --items tracks.csv --out model/ --rank 128
  refrain train --listens log.tsv --map user=uid --map item=4 --min-user-items 5 --out model/

Reads delimited text (plain, gzip, zstd) or Parquet, recognised by content. Says how well the model
finds listens that were held out, beside recommending what is popular.")]
pub(crate) struct Args {
    /// Files of listens; repeat, or several
    #[arg(long, value_name = "FILE", required = true, num_args = 1..)]
    listens: Vec<PathBuf>,
    /// Files that say more about items: title, artist, tags, release time
    #[arg(long, value_name = "FILE", num_args = 1..)]
    items: Vec<PathBuf>,
    /// As --map, for the files of --items: a column by name or position; repeat
    #[arg(long, value_name = "FIELD=COLUMN", requires = "items")]
    map_items: Vec<String>,
    /// Files of what listeners excluded from their taste profiles: user, scope, value, strength
    #[arg(long, value_name = "FILE", num_args = 1..)]
    exclusions: Vec<PathBuf>,
    /// Directory for the model; must not exist
    #[arg(long, value_name = "MODEL")]
    out: PathBuf,
    /// What learns
    #[arg(long, value_enum, default_value_t = TrainerArg::Als)]
    trainer: TrainerArg,
    /// Start from this model, whose vectors the new ones are turned to lie near
    #[arg(long, value_name = "MODEL")]
    parent: Option<PathBuf>,
    /// Directory for checkpoints: a training that was killed goes on from there; removed when done
    #[arg(long, value_name = "DIR")]
    checkpoints: Option<PathBuf>,
    /// Give items of --items that nobody has heard a vector from their artist and tags
    #[arg(long, requires = "items")]
    cold_items: bool,
    #[command(flatten)]
    hyper: HyperArgs,
    #[command(flatten)]
    judge: JudgeArgs,
    /// Only users with so many different items
    #[arg(long, value_name = "N", default_value_t = 1)]
    min_user_items: u32,
    /// Only items with so many different users
    #[arg(long, value_name = "N", default_value_t = 1)]
    min_item_users: u32,
    /// Threads; the result is the same with any number [default: one a core]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    #[command(flatten)]
    sort: SortArgs,
    #[command(flatten)]
    read: ReadArgs,
}

/// Hyper-parameters of the factorisation.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Hyper-parameters")]
struct HyperArgs {
    /// Latent dimensions
    #[arg(long, value_name = "N", default_value_t = Hyper::default().rank)]
    rank: usize,
    /// Take all hyper-parameters but the seed from a file, as `refrain tune` writes it
    #[arg(long = "hyper", value_name = "FILE", conflicts_with_all = ["rank", "alpha", "confidence",
          "unobserved_weight", "regularization", "frequency_exponent"])]
    file: Option<PathBuf>,
    /// Passes over items and users; with --parent at most so many [default: 10, with --parent 3]
    #[arg(long, value_name = "N")]
    iterations: Option<usize>,
    /// Confidence in a listen
    #[arg(long, value_name = "X", default_value_t = Hyper::default().alpha)]
    alpha: f32,
    /// Take alpha as it is, instead of as the mean confidence over the log
    #[arg(long)]
    absolute_alpha: bool,
    /// How confidence grows with listens
    #[arg(long, value_enum, default_value_t = ConfidenceArg::Log)]
    confidence: ConfidenceArg,
    /// Weight of every pair, listened to or not
    #[arg(long, value_name = "X", default_value_t = Hyper::default().unobserved_weight)]
    unobserved_weight: f32,
    /// Regularisation
    #[arg(long, value_name = "X", default_value_t = Hyper::default().regularization)]
    regularization: f32,
    /// How regularisation grows with the number of observations, 0 to 2
    #[arg(long, value_name = "X", default_value_t = Hyper::default().frequency_exponent)]
    frequency_exponent: f32,
    /// Seed of the initial factors and of random hold-outs
    #[arg(long, value_name = "N", default_value_t = Hyper::default().seed)]
    seed: u64,
}

/// What learns.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum TrainerArg {
    /// Implicit alternating least squares
    Als,
    /// Counting listeners: the baseline, served like any other model
    Popularity,
}

/// How confidence grows with listens.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum ConfidenceArg {
    /// Like their logarithm
    Log,
    /// In proportion
    Linear,
}

/// Whether and how the model is judged.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Held-out report")]
struct JudgeArgs {
    /// Which listens are held out to judge the model
    #[arg(long, value_enum, default_value_t = HoldOutArg::Auto)]
    hold_out: HoldOutArg,
    /// Share of the listens that is held out, above 0 and below 1
    #[arg(long, value_name = "SHARE", default_value_t = 0.2)]
    hold_out_share: f64,
    /// Judge a sample of this many users when there are more
    #[arg(long, value_name = "N", default_value_t = TrainOptions::default().max_evaluated_users)]
    max_evaluated_users: usize,
    /// Keep the model that was judged, instead of learning once more from all listens
    #[arg(long)]
    no_refit: bool,
}

/// Which listens are held out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum HoldOutArg {
    /// Since for logs with times, random for logs without
    Auto,
    /// The last of each user
    Last,
    /// The last of the whole log: one moment divides it
    Since,
    /// Random items of each user
    Random,
    /// None: no report
    None,
}

/// Runs `refrain train`.
pub(crate) fn run(args: &Args, output: &Output) -> anyhow::Result<Exit> {
    let started = Instant::now();
    let mut options = options(args)?;
    refuse_existing(&args.out)?;
    // What is no model is told at once. The parent is read while the log is: neither waits for the other.
    if let Some(path) = args.parent.as_deref().filter(|path| !path.is_dir()) {
        load_parent(path)?;
    }
    let parent = || args.parent.as_deref().map(load_parent).transpose();
    let (parent, heard) = both(parent, || Heard::read(args, output));
    let Heard {
        log,
        items,
        excluded,
    } = heard?;
    options.parent = parent?.map(Arc::new);
    let read = log.report().clone();
    let (model, report) = fit(log, &items, &options, output)?;
    model.save(&args.out)?;
    if let Some(checkpoints) = &args.checkpoints {
        train::discard_checkpoints(checkpoints);
    }
    let took = started.elapsed();
    let document = json!({
        "model_dir": args.out,
        "model": report.model,
        "popularity": report.popularity,
        "counts": model.info.counts,
        "report": report,
        "hyper": model.info.hyper,
        "read": read,
        "exclusions": excluded.as_ref().map(|report| json!({
            "rules": report.rules,
            "unknown_users": report.unknown_users,
            "listens_excluded": report.listens_excluded,
            "listens_weakened": report.listens_weakened,
        })),
        "seconds": took.as_secs_f64(),
    });
    output.result(&document, |output| {
        print_report(&report, output);
        output.line(format_args!(
            "model of {} items and {} users in {}, in {}",
            output::count(model.items.len() as u64),
            output::count(model.users.len() as u64),
            args.out.display(),
            output::duration(took)
        ));
        output.line(format_args!(
            "next: refrain build --model {} --out BUNDLE",
            args.out.display()
        ));
    });
    Ok(Exit::Done)
}

/// What to learn from.
struct Heard {
    log: SortedLog,
    items: Items,
    /// What was taken out of the log, if anything was to be.
    excluded: Option<ExclusionReport>,
}

impl Heard {
    fn read(args: &Args, output: &Output) -> anyhow::Result<Self> {
        let read = args.read.options()?;
        let read_items = args.read.items_options(&args.map_items)?;
        let room = args.sort.room(Some(&args.out));
        let labelled = !args.exclusions.is_empty();
        let sort = (&args.sort, room.clone());
        let mut log = ingest::sorted(&args.listens, &read, labelled, sort, output)?;
        let items = ingest::items(&args.items, &read_items, output)?;
        let mut excluded = None;
        if labelled {
            let read = args.read.items_options(&[])?;
            let exclusions = ingest::exclusions(&args.exclusions, &read, output)?;
            excluded = Some(exclude(&mut log, &exclusions, &items, &room, output)?);
        }
        Ok(Self {
            log,
            items,
            excluded,
        })
    }
}

/// Takes out of the log, which was read with its labels, what listeners excluded.
pub(crate) fn exclude(
    log: &mut SortedLog,
    exclusions: &Exclusions,
    items: &Items,
    room: &Room,
    output: &Output,
) -> anyhow::Result<ExclusionReport> {
    let mut described = items.clone();
    described.merge(log.described());
    let report = log
        .exclude(exclusions, &described, room)
        .context(Failure::new("cannot keep listens in a temporary file"))?;
    tell_excluded(&report, output);
    Ok(report)
}

fn tell_excluded(report: &ExclusionReport, output: &Output) {
    output.line(format_args!(
        "{} exclusions take out {} listens and weaken {}",
        output::count(report.rules),
        output::count(report.listens_excluded),
        output::count(report.listens_weakened)
    ));
}

/// Passes that are enough when a parent is started from.
const WARM_ITERATIONS: usize = 3;

impl HyperArgs {
    fn hyper(&self, warm: bool) -> anyhow::Result<Hyper> {
        let given = match &self.file {
            Some(path) => read_hyper(path)?,
            None => Hyper {
                rank: self.rank,
                iterations: Hyper::default().iterations,
                alpha: self.alpha,
                confidence: match self.confidence {
                    ConfidenceArg::Log => Confidence::Log,
                    ConfidenceArg::Linear => Confidence::Linear,
                },
                unobserved_weight: self.unobserved_weight,
                regularization: self.regularization,
                frequency_exponent: self.frequency_exponent,
                seed: self.seed,
            },
        };
        let passes = if warm {
            WARM_ITERATIONS
        } else {
            given.iterations
        };
        Ok(Hyper {
            iterations: self.iterations.unwrap_or(passes),
            seed: self.seed,
            ..given
        })
    }
}

/// Reads what `refrain tune` wrote.
fn read_hyper(path: &Path) -> anyhow::Result<Hyper> {
    use std::io::Read as _;
    let cannot = || {
        Failure::usage(format!("cannot use {}", path.display()))
            .next("`refrain tune --out` writes such a file")
    };
    let mut text = String::new();
    fs_err::File::open(path)
        .and_then(|file| file.take(1 << 16).read_to_string(&mut text))
        .with_context(cannot)?;
    serde_json::from_str(&text).with_context(cannot)
}

fn load_parent(path: &Path) -> anyhow::Result<Parent> {
    Parent::load(path)
        .with_context(|| Failure::new(format!("cannot use the parent {}", path.display())))
}

/// But for the parent.
fn options(args: &Args) -> anyhow::Result<TrainOptions> {
    let hyper = args.hyper.hyper(args.parent.is_some())?;
    hyper.validate().map_err(|error| {
        anyhow::Error::new(error).context(Failure::usage("hyper-parameters out of range"))
    })?;
    let share = args.judge.hold_out_share;
    if !(share > 0.0 && share < 1.0) {
        return Err(Failure::usage(format!(
            "--hold-out-share {share}: expected a number above 0 and below 1"
        ))
        .error());
    }
    let by = |hold_out| EvaluationPlan::By(hold_out);
    Ok(TrainOptions {
        hyper,
        scale_confidence: !args.hyper.absolute_alpha,
        evaluation: match args.judge.hold_out {
            HoldOutArg::Auto => EvaluationPlan::Auto,
            HoldOutArg::None => EvaluationPlan::Skip,
            HoldOutArg::Last => by(HoldOut::Last { share }),
            HoldOutArg::Since => by(HoldOut::Since { share }),
            HoldOutArg::Random => by(HoldOut::Random {
                share,
                seed: hyper.seed,
            }),
        },
        max_evaluated_users: args.judge.max_evaluated_users,
        refit_on_all: !args.judge.no_refit,
        min_user_items: args.min_user_items,
        min_item_users: args.min_item_users,
        threads: threads(args.threads),
        command: command_line(),
        trainer: match args.trainer {
            TrainerArg::Als => Trainer::Als,
            TrainerArg::Popularity => Trainer::Popularity,
        },
        parent: None,
        checkpoints: args.checkpoints.clone(),
        cold_items: args.cold_items,
    })
}

/// Trains with a progress bar.
pub(crate) fn fit(
    log: SortedLog,
    items: &Items,
    options: &TrainOptions,
    output: &Output,
) -> anyhow::Result<(Model, TrainReport)> {
    let bar: Mutex<Option<(Stage, Progress)>> = Mutex::new(None);
    let trained = train::train(log, items, options, &|stage, done, total| {
        let mut bar = bar
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if bar.as_ref().is_none_or(|(shown, _)| *shown != stage) {
            *bar = None;
            *bar = Some((stage, output.progress(stage_name(stage))));
        }
        if let Some((_, progress)) = &*bar {
            progress.set(done, total);
        }
    });
    drop(bar);
    trained.map_err(|error| anyhow::Error::new(error).context(Failure::new("cannot train")))
}

fn stage_name(stage: Stage) -> &'static str {
    match stage {
        Stage::FitTrainingPart => "train on what is not held out",
        Stage::Evaluate => "judge by what was held out",
        Stage::FitAll => "train on all listens",
        _ => "train",
    }
}

/// Prints how the model did on held-out listens, beside popularity, and which of the two wins.
pub(crate) fn print_report(report: &TrainReport, output: &Output) {
    let (Some(model), Some(popularity)) = (&report.model, &report.popularity) else {
        output.line(format_args!("no held-out report: {}", report.protocol));
        return;
    };
    output.line(format_args!("held out: {}", report.protocol));
    print_quality(&[("model", model), ("popularity", popularity)], output);
    output.line(verdict(model, popularity));
    if let Some(cold) = &report.cold {
        output.line(format_args!(
            "{} items that nobody has heard got vectors from artist and tags, which explain {:.1} % of the \
             variance of held-out items' vectors",
            output::count(cold.items as u64),
            cold.explained * 100.0
        ));
    }
    if let Some(out_of_reach) = report.counts.split.and_then(out_of_reach) {
        output.line(out_of_reach);
    }
}

/// Prints qualities side by side.
pub(crate) fn print_quality(rows: &[(&str, &Quality)], output: &Output) {
    let mut table = output::table(&[
        Column::Text("on held-out listens"),
        Column::Number("Recall@20"),
        Column::Number("NDCG@20"),
        Column::Number("MAP@20"),
        Column::Number("coverage"),
    ]);
    for (name, quality) in rows {
        table.add_row([
            (*name).to_owned(),
            format!("{:.4}", quality.recall_at_20),
            format!("{:.4}", quality.ndcg_at_20),
            format!("{:.4}", quality.map_at_20),
            format!("{:.1} %", quality.coverage_at_20 * 100.0),
        ]);
    }
    output.table(&table);
}

/// Which of the two wins, in a sentence.
pub(crate) fn verdict(model: &Quality, popularity: &Quality) -> String {
    let ratio = |ours: f64, theirs: f64| {
        if theirs > 0.0 {
            format!("{:.2}x", ours / theirs)
        } else {
            "with".to_owned()
        }
    };
    let recall = ratio(model.recall_at_20, popularity.recall_at_20);
    let ndcg = ratio(model.ndcg_at_20, popularity.ndcg_at_20);
    match (
        model.recall_at_20 > popularity.recall_at_20,
        model.ndcg_at_20 > popularity.ndcg_at_20,
    ) {
        (true, true) => {
            format!("the model beats popularity: {recall} its recall, {ndcg} its NDCG")
        }
        (false, false) => format!(
            "popularity is not beaten: the model has {recall} its recall and {ndcg} its NDCG; \
             on such a log recommend what is popular"
        ),
        _ => format!("a draw: the model has {recall} the recall of popularity and {ndcg} its NDCG"),
    }
}

/// What no model learned from the training part could have found, when it is more than a tenth.
fn out_of_reach(split: SplitCounts) -> Option<String> {
    let new = split.dropped_unknown_items + split.dropped_unknown_users;
    let all = split.held_out_pairs + new;
    (new * 10 > all).then(|| {
        format!(
            "{} of {} held-out listens, by listener and item, are not counted: the training part \
             does not have the item or the listener, so nothing learned from it could find them",
            output::count(new as u64),
            output::count(all as u64)
        )
    })
}

/// So many threads as asked for, or one a core.
pub(crate) fn threads(asked: Option<usize>) -> usize {
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    asked.filter(|threads| *threads > 0).unwrap_or_else(cores)
}

/// The command line of this process, for the record of what made a model or bundle.
pub(crate) fn command_line() -> String {
    let arguments = std::env::args_os().skip(1);
    recorded(arguments.map(|argument| output::clip(&argument.to_string_lossy(), 4_096)))
}

/// Leaves out what does not change the outcome, so that the record does not either.
fn recorded(arguments: impl Iterator<Item = String>) -> String {
    let mut words = vec!["refrain".to_owned()];
    let mut value_follows = false;
    for word in arguments {
        if std::mem::take(&mut value_follows) || word == "--json" {
            continue;
        }
        let flag = word.split('=').next().unwrap_or_default();
        if !WITHOUT_EFFECT.contains(&flag) {
            words.push(word);
        } else if flag == word {
            value_follows = true;
        }
    }
    words.join(" ")
}

/// Flags whose value does not change the outcome.
const WITHOUT_EFFECT: [&str; 5] = [
    "--threads",
    "--memory",
    "--out",
    "--checkpoints",
    "--checkpoint-seconds",
];

/// Output appears whole or not at all, and never over something else.
pub(crate) fn refuse_existing(out: &Path) -> anyhow::Result<()> {
    if out.symlink_metadata().is_ok() {
        return Err(Failure::new(format!("{} is there already", out.display()))
            .next("give another --out, or remove it first")
            .error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_change_the_outcome_is_not_recorded() {
        let words = "build --model m --threads 2 --json --out=b --seed 7 --out b --threads=3 -x";
        let recorded = recorded(words.split(' ').map(str::to_owned));
        assert_eq!(recorded, "refrain build --model m --seed 7 -x");
    }

    #[test]
    fn the_verdict_is_honest_both_ways() {
        let quality = |recall_at_20, ndcg_at_20| Quality {
            recall_at_20,
            ndcg_at_20,
            ..Quality::default()
        };
        let better = verdict(&quality(0.3, 0.2), &quality(0.1, 0.1));
        assert_eq!(
            better,
            "the model beats popularity: 3.00x its recall, 2.00x its NDCG"
        );
        assert!(verdict(&quality(0.1, 0.1), &quality(0.2, 0.2)).starts_with("popularity is not"));
        assert!(verdict(&quality(0.3, 0.1), &quality(0.2, 0.2)).starts_with("a draw"));
        assert!(verdict(&quality(0.1, 0.1), &quality(0.0, 0.0)).starts_with("the model beats"));
    }
}
