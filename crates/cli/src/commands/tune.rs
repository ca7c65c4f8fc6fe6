//! `refrain tune`: hyper-parameters, searched on validation listens only.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context as _;
use refrain_als::{Confidence, Interactions};
use refrain_builder::Dictionary;
use refrain_builder::evaluation::{
    EvaluateOptions, Evaluation, HoldOut, Quality, evaluate, split, without,
};
use refrain_builder::files::write_whole;
use refrain_builder::ingest::{Items, Room, SortedLog};
use refrain_builder::tune::{self, Goal, Trial, TuneOptions, TuneReport};
use serde_json::json;

use super::train;
use crate::failure::{Exit, Failure};
use crate::ingest::{self, ReadArgs, SortArgs};
use crate::output::{self, Column, Output};

/// Search hyper-parameters on validation listens, and judge the best once on test listens
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  refrain tune --listens plays.csv.gz --out hyper.json
  refrain train --listens plays.csv.gz --hyper hyper.json --out model/
  refrain tune --listens train.txt --valid valid.txt --test test.txt --rank 64,256 --trials 40

Without --valid, listens are held out of the log twice: a part for the test, then a part of the rest
to search on. The test listens take no part in the search: the best setting is trained once on all
but them, and judged by them once.")]
pub(crate) struct Args {
    /// Files of listens to learn from
    #[arg(long, value_name = "FILE", required = true, num_args = 1..)]
    listens: Vec<PathBuf>,
    /// Files of listens to search on [default: held out of --listens]
    #[arg(long, value_name = "FILE", num_args = 1..)]
    valid: Vec<PathBuf>,
    /// Files of listens to judge the best setting by [default: held out of --listens]
    #[arg(long, value_name = "FILE", num_args = 1.., requires = "valid")]
    test: Vec<PathBuf>,
    /// Share of the listens held out for the test, and of the rest for the search
    #[arg(
        long,
        value_name = "SHARE",
        default_value_t = 0.2,
        conflicts_with = "valid"
    )]
    hold_out_share: f64,
    /// Files of what listeners excluded from their taste profiles
    #[arg(long, value_name = "FILE", num_args = 1..)]
    exclusions: Vec<PathBuf>,
    /// Where to write the best setting, for `refrain train --hyper`; must not exist
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// What to maximise
    #[arg(long, value_enum, default_value_t = GoalArg::Ndcg)]
    goal: GoalArg,
    /// Settings to try
    #[arg(long, value_name = "N", default_value_t = 30,
          value_parser = clap::value_parser!(u32).range(1..=10_000))]
    trials: u32,
    /// Latent dimensions; with two, the first half of the trials has the first, the rest the second
    #[arg(long, value_name = "N[,N]", value_delimiter = ',', num_args = 1..=2,
          default_values_t = [64_usize])]
    rank: Vec<usize>,
    /// Iterations that a trial may take
    #[arg(long, value_name = "N", default_value_t = TuneOptions::default().max_iterations)]
    max_iterations: usize,
    /// Judge each trial by a sample of this many users when there are more
    #[arg(long, value_name = "N", default_value_t = TuneOptions::default().max_users)]
    max_users: usize,
    /// Seed of the search, the factors and the samples
    #[arg(long, value_name = "N", default_value_t = 42)]
    seed: u64,
    /// Threads; the result is the same with any number [default: one a core]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    #[command(flatten)]
    sort: SortArgs,
    #[command(flatten)]
    read: ReadArgs,
}

/// What to maximise.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum GoalArg {
    /// NDCG@20
    Ndcg,
    /// Recall@20
    Recall,
}

/// The listens of a search, in one set of ordinals.
struct Parts {
    train: Interactions,
    valid: Vec<(u32, u32)>,
    /// All but the test.
    history: Interactions,
    test: Vec<(u32, u32)>,
    protocol: String,
}

/// Runs `refrain tune`.
pub(crate) fn run(args: &Args, output: &Output) -> anyhow::Result<Exit> {
    let started = Instant::now();
    let options = options(args)?;
    if let Some(out) = &args.out {
        train::refuse_existing(out)?;
    }
    let parts = read(args, output)?;
    let report = {
        let bar = output.progress("search");
        tune::tune(
            &parts.train,
            &parts.valid,
            &options,
            &mut |done, total, last| {
                bar.set(done as u64, total as u64);
                if let Some(trial) = last {
                    output.note(trial_line(trial, options.goal));
                }
            },
        )
        .context(Failure::new("cannot tune"))?
    };
    let test = judge(&parts, &report, &options)?;
    if let Some(out) = &args.out {
        write(out, &report)?;
    }
    let protocol = format!(
        "{}; {} trials, seed {}, {} of {} users judged in each; the best trained on all but the test \
         listens and judged by them once",
        parts.protocol,
        report.trials.len(),
        report.seed,
        report.users,
        report.users_eligible
    );
    let document = json!({
        "protocol": protocol,
        "best": report.best,
        "search": report,
        "test": test,
        "out": args.out,
        "seconds": started.elapsed().as_secs_f64(),
    });
    output.result(&document, |output| {
        output.line(format_args!("protocol: {protocol}"));
        print_best(&report, output);
        train::print_quality(
            &[
                ("best, on the search's listens", &report.best_quality),
                ("popularity, likewise", &report.popularity),
            ],
            output,
        );
        if let Some(test) = &test {
            let rows: [(&str, &Quality); 2] = [
                ("best, on test listens", &test.model),
                ("popularity, likewise", &test.popularity),
            ];
            train::print_quality(&rows, output);
            output.line(train::verdict(&test.model, &test.popularity));
        }
        if let Some(out) = &args.out {
            output.line(format_args!(
                "next: refrain train --listens … --hyper {} --out MODEL",
                out.display()
            ));
        }
        output.line(format_args!("in {}", output::duration(started.elapsed())));
    });
    Ok(Exit::Done)
}

fn options(args: &Args) -> anyhow::Result<TuneOptions> {
    let (Some(&first), Some(&last)) = (args.rank.first(), args.rank.last()) else {
        return Err(Failure::usage("--rank: expected one or two numbers").error());
    };
    for rank in [first, last] {
        if !(1..=refrain_als::MAX_RANK).contains(&rank) {
            let most = refrain_als::MAX_RANK;
            return Err(Failure::usage(format!("--rank {rank}: expected 1 to {most}")).error());
        }
    }
    if !(1..=1_000).contains(&args.max_iterations) {
        return Err(Failure::usage("--max-iterations: expected 1 to 1000").error());
    }
    let share = args.hold_out_share;
    if !(share > 0.0 && share < 0.9) {
        return Err(Failure::usage(format!(
            "--hold-out-share {share}: expected a number above 0 and below 0.9"
        ))
        .error());
    }
    Ok(TuneOptions {
        goal: match args.goal {
            GoalArg::Ndcg => Goal::Ndcg,
            GoalArg::Recall => Goal::Recall,
        },
        trials: args.trials as usize,
        ranks: (first, last),
        max_iterations: args.max_iterations,
        confidences: vec![Confidence::Log, Confidence::Linear],
        seed: args.seed,
        max_users: args.max_users.max(1),
        threads: train::threads(args.threads),
    })
}

fn read(args: &Args, output: &Output) -> anyhow::Result<Parts> {
    let read = args.read.options()?;
    let room = args.sort.room(args.out.as_deref());
    let labelled = !args.exclusions.is_empty();
    let mut log = ingest::sorted(
        &args.listens,
        &read,
        labelled,
        (&args.sort, room.clone()),
        output,
    )?;
    if labelled {
        let read = args.read.items_options(&[])?;
        let exclusions = ingest::exclusions(&args.exclusions, &read, output)?;
        train::exclude(&mut log, &exclusions, &Items::default(), &room, output)?;
    }
    if args.valid.is_empty() {
        return divide(&log, args.hold_out_share, args.seed, &room);
    }
    let mut joint = Joint::default();
    let train = joint.triplets(&log)?;
    drop(log);
    let mut others = |paths: &[PathBuf]| {
        if paths.is_empty() {
            return Ok(Vec::new());
        }
        joint.triplets(&ingest::sorted(
            paths,
            &read,
            false,
            (&args.sort, room.clone()),
            output,
        )?)
    };
    let (valid, test) = (others(&args.valid)?, others(&args.test)?);
    let (users, items) = joint.sizes()?;
    let all = [train.as_slice(), valid.as_slice()].concat();
    Ok(Parts {
        train: Interactions::from_triplets(users, items, train)?,
        valid: pairs(&valid),
        history: Interactions::from_triplets(users, items, all)?,
        test: pairs(&test),
        protocol: "searched on the files of --valid, with what of --listens".to_owned(),
    })
}

/// Holds out twice.
fn divide(log: &SortedLog, share: f64, seed: u64, room: &Room) -> anyhow::Result<Parts> {
    let hold_out = match HoldOut::for_log(log.has_times(), seed) {
        HoldOut::Random { seed, .. } => HoldOut::Random { share, seed },
        _ => HoldOut::Since { share },
    };
    let inner_hold_out = match hold_out {
        HoldOut::Random { share, seed } => HoldOut::Random {
            share,
            seed: seed.wrapping_add(1),
        },
        other => other,
    };
    let outer = split(log, hold_out)?;
    let inner = split(&without(log, hold_out, room)?, inner_hold_out)?;
    Ok(Parts {
        train: inner.train,
        valid: inner.held_out,
        history: outer.train,
        test: outer.held_out,
        protocol: format!("test: {hold_out}; search: of the rest, {inner_hold_out}"),
    })
}

fn judge(
    parts: &Parts,
    report: &TuneReport,
    options: &TuneOptions,
) -> anyhow::Result<Option<Evaluation>> {
    if parts.test.is_empty() {
        return Ok(None);
    }
    let hyper = report.best.scaled_to(&parts.history);
    let factors = refrain_als::train(&parts.history, &hyper, options.threads, &())?;
    let evaluate_options = EvaluateOptions {
        max_users: usize::MAX,
        seed: options.seed,
        threads: options.threads,
    };
    let evaluation = evaluate(&parts.history, &parts.test, &factors, &evaluate_options)?;
    Ok(Some(evaluation))
}

/// Several logs in one set of ordinals.
#[derive(Default)]
struct Joint {
    users: Dictionary,
    items: Dictionary,
}

impl Joint {
    /// The distinct pairs of a log with their plays.
    fn triplets(&mut self, log: &SortedLog) -> anyhow::Result<Vec<(u32, u32, f32)>> {
        let full = || Failure::new("more ids than a dictionary holds").error();
        let map = |known: &mut Dictionary, from: &Dictionary| {
            from.iter()
                .map(|id| known.insert(id).ok_or_else(full))
                .collect::<anyhow::Result<Vec<u32>>>()
        };
        let users = map(&mut self.users, log.users())?;
        let items = map(&mut self.items, log.items())?;
        let mut triplets: Vec<(u32, u32, f32)> = Vec::new();
        for listen in log.listens()? {
            let listen = listen?;
            let (user, item) = (users[listen.user as usize], items[listen.item as usize]);
            match triplets.last_mut() {
                Some((u, i, plays)) if (*u, *i) == (user, item) => *plays += listen.count,
                _ => triplets.push((user, item, listen.count)),
            }
        }
        Ok(triplets)
    }

    fn sizes(&self) -> anyhow::Result<(u32, u32)> {
        Ok((
            u32::try_from(self.users.len())?,
            u32::try_from(self.items.len())?,
        ))
    }
}

fn pairs(triplets: &[(u32, u32, f32)]) -> Vec<(u32, u32)> {
    let mut pairs: Vec<_> = triplets
        .iter()
        .map(|&(user, item, _)| (user, item))
        .collect();
    pairs.sort_unstable();
    pairs.dedup();
    pairs
}

fn write(out: &Path, report: &TuneReport) -> anyhow::Result<()> {
    let mut bytes = serde_json::to_vec_pretty(&report.best)?;
    bytes.push(b'\n');
    write_whole(out, &bytes)
        .with_context(|| Failure::new(format!("cannot write {}", out.display())))
}

fn trial_line(trial: &Trial, goal: Goal) -> String {
    let Trial { hyper, quality, .. } = trial;
    format!(
        "rank {}, {} iterations, {:?}, unobserved {}, regularization {}, exponent {}: {:.4}",
        hyper.rank,
        hyper.iterations,
        hyper.confidence,
        hyper.unobserved_weight,
        hyper.regularization,
        hyper.frequency_exponent,
        goal.of(quality)
    )
}

fn print_best(report: &TuneReport, output: &Output) {
    let mut table = output::table(&[Column::Text("best"), Column::Number("value")]);
    let best = &report.best;
    let confidence = match best.confidence {
        Confidence::Log => "log",
        Confidence::Linear => "linear",
    };
    for (name, value) in [
        ("--rank", best.rank.to_string()),
        ("--iterations", best.iterations.to_string()),
        ("--confidence", confidence.to_owned()),
        ("--unobserved-weight", best.unobserved_weight.to_string()),
        ("--regularization", best.regularization.to_string()),
        ("--frequency-exponent", best.frequency_exponent.to_string()),
    ] {
        table.add_row([name.to_owned(), value]);
    }
    output.table(&table);
}
