//! `refrain evaluate`: how good a bundle is, its index against exact search and its answers against
//! what listeners went on to hear.

use std::path::PathBuf;
use std::time::Instant;

use refrain_builder::build::{IndexEvaluation, evaluate_index};
use refrain_builder::evaluation::{LIST_LENGTH, Quality, measure};
use refrain_builder::ingest::Log;
use refrain_bundle::{Bundle, OpenMode};
use refrain_engine::{Request, Scratch, Seen, Subject, Version};
use refrain_ranking::{Variant, Variants};
use refrain_taste::{Event, EventKind, Profile, Weights};
use serde_json::{Value, json};

use super::train;
use crate::failure::{Exit, Failure};
use crate::ingest::{self, ReadArgs};
use crate::listens::{self, ByUser};
use crate::output::{self, Column, Output};

/// Measure a bundle: recall of its index, and its answers against held-out listens
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  refrain evaluate bundle/
  refrain evaluate bundle/ --ef-search 32,64,128,256 --min-recall 0.95
  refrain evaluate bundle/ --listens before.csv --held-out after.csv

With --held-out, every listener's profile is made of --listens, the bundle recommends as a server
would, and what was heard later is the truth. With --min-recall, exit 3 when the index finds less.")]
pub(crate) struct Args {
    /// The bundle
    #[arg(value_name = "BUNDLE")]
    bundle: PathBuf,
    /// Files of listens that came later
    #[arg(long, value_name = "FILE", num_args = 1.., requires = "listens")]
    held_out: Vec<PathBuf>,
    /// Files of listens that the profiles are made of
    #[arg(long, value_name = "FILE", num_args = 1.., requires = "held_out")]
    listens: Vec<PathBuf>,
    /// Answers compared with exact search
    #[arg(short = 'k', long = "count", value_name = "N", default_value_t = 10,
          value_parser = clap::value_parser!(u16).range(1..=100))]
    k: u16,
    /// Pool sizes to measure [default: the bundle's own]
    #[arg(long, value_name = "N,…", value_delimiter = ',',
          value_parser = clap::value_parser!(u32).range(1..=10_000))]
    ef_search: Vec<u32>,
    /// Recall that the index must have; less is exit 3
    #[arg(long, value_name = "0..1")]
    min_recall: Option<f64>,
    /// Judge a sample of this many listeners when there are more
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    max_users: usize,
    /// Threads [default: one a core]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    #[command(flatten)]
    read: ReadArgs,
}

/// Runs `refrain evaluate`.
pub(crate) fn run(args: &Args, output: &Output) -> anyhow::Result<Exit> {
    let started = Instant::now();
    if let Some(least) = args.min_recall.filter(|least| !(0.0..=1.0).contains(least)) {
        return Err(Failure::usage(format!("--min-recall {least}: expected 0 to 1")).error());
    }
    let threads = train::threads(args.threads);
    let open = |error: anyhow::Error| {
        error.context(Failure::new(format!(
            "cannot open the bundle {}",
            args.bundle.display()
        )))
    };
    let bundle = Bundle::open(&args.bundle, OpenMode::Map).map_err(|error| open(error.into()))?;
    let index = {
        let _progress = output.progress("search exactly and by the graph");
        evaluate_index(&bundle, args.k.into(), &args.ef_search, threads)?
    };
    let held_out = if args.held_out.is_empty() {
        None
    } else {
        let version =
            Version::open(&args.bundle, OpenMode::Map).map_err(|error| open(error.into()))?;
        let read = args.read.options()?;
        let history = ingest::listens(&args.listens, &read, output)?;
        let later = ingest::listens(&args.held_out, &read, output)?;
        let _progress = output.progress("recommend for held-out listeners");
        Some(judge(&version, &history, &later, args.max_users, threads)?)
    };
    let best = index
        .pool_sizes
        .iter()
        .map(|point| point.recall)
        .fold(0.0, f64::max);
    let passed = args.min_recall.is_none_or(|least| best >= least);
    let document = json!({
        "bundle": args.bundle,
        "version": bundle.version(),
        "index": index,
        "held_out": held_out.as_ref().map(Judged::document),
        "trained": bundle.manifest().report.get("model"),
        "min_recall": args.min_recall,
        "passed": passed,
        "seconds": started.elapsed().as_secs_f64(),
    });
    output.result(&document, |output| {
        print_index(&index, output);
        if let Some(judged) = &held_out {
            output.line(format_args!(
                "{} of {} listeners judged",
                output::count(judged.users as u64),
                output::count(judged.eligible as u64)
            ));
            let rows = [
                ("bundle", &judged.model),
                ("popularity", &judged.popularity),
            ];
            train::print_quality(&rows, output);
            output.line(train::verdict(&judged.model, &judged.popularity));
        }
    });
    if let (false, Some(least)) = (passed, args.min_recall) {
        output.note(format_args!(
            "check failed: recall {best:.4} is below {least}"
        ));
        return Ok(Exit::Refused);
    }
    Ok(Exit::Done)
}

/// Prints recall by pool size.
pub(crate) fn print_index(index: &IndexEvaluation, output: &Output) {
    let mut table = output::table(&[
        Column::Number("ef_search"),
        Column::Number("recall"),
        Column::Number("at least (95 %)"),
        Column::Number("vectors scored"),
        Column::Number("hops"),
    ]);
    for point in &index.pool_sizes {
        table.add_row([
            point.ef_search.to_string(),
            format!("{:.4}", point.recall),
            format!("{:.4}", point.recall_lower_95),
            format!("{:.0}", point.distance_comps),
            format!("{:.0}", point.hops),
        ]);
    }
    output.line(format_args!(
        "index against exact search, recall@{} of {} golden queries:",
        index.k,
        output::count(index.queries as u64)
    ));
    output.table(&table);
}

/// How the bundle's answers did.
#[derive(Debug)]
struct Judged {
    users: usize,
    eligible: usize,
    model: Quality,
    popularity: Quality,
}

impl Judged {
    fn document(&self) -> Value {
        json!({
            "users": self.users,
            "users_eligible": self.eligible,
            "model": self.model,
            "popularity": self.popularity,
        })
    }
}

/// One listener to judge by: what they heard before, and what of the version they heard later.
struct Case {
    profile: Profile,
    /// (0, item ordinal), sorted, as [`measure`] takes them.
    truth: Vec<(u32, u32)>,
}

/// Recommends for every listener who heard something new later.
fn judge(
    version: &Version,
    history: &Log,
    later: &Log,
    max_users: usize,
    threads: usize,
) -> anyhow::Result<Judged> {
    let (before, after) = (ByUser::new(history), ByUser::new(later));
    let mut eligible: Vec<(u32, Vec<(u32, u32)>)> = Vec::new();
    for (user, id) in (0_u32..).zip(later.users.iter()) {
        let Some(same) = history.users.ordinal(id) else {
            continue;
        };
        let heard: Vec<u32> = before
            .rows(same)
            .iter()
            .filter_map(|&row| known(version, history, row))
            .collect();
        let mut truth: Vec<(u32, u32)> = after
            .rows(user)
            .iter()
            .filter_map(|&row| known(version, later, row))
            .filter(|item| !heard.contains(item))
            .map(|item| (0, item))
            .collect();
        truth.sort_unstable();
        truth.dedup();
        if !truth.is_empty() {
            eligible.push((same, truth));
        }
    }
    if eligible.is_empty() {
        return Err(Failure::new("nobody heard anything later that is new to them")
            .next("are --listens and --held-out of the same listeners, and of the bundle's items?")
            .error());
    }
    let total = eligible.len();
    // Evenly spaced, so that the sample is the same each time.
    let step = total.div_ceil(max_users.max(1));
    let sample: Vec<_> = eligible.into_iter().step_by(step).collect();
    let cases: Vec<Case> = sample
        .into_iter()
        .map(|(user, truth)| Case {
            profile: profile(history, before.rows(user)),
            truth,
        })
        .collect();
    let variant = plain()?;
    let share = cases.len().div_ceil(threads);
    let lists: Vec<(Vec<u32>, Vec<u32>)> = std::thread::scope(|scope| {
        let workers: Vec<_> = cases
            .chunks(share)
            .map(|cases| scope.spawn(|| answer(version, cases, &variant)))
            .collect();
        let mut lists = Vec::with_capacity(cases.len());
        for worker in workers {
            let part = worker
                .join()
                .map_err(|_| anyhow::anyhow!("a thread panicked"))??;
            lists.extend(part);
        }
        anyhow::Ok(lists)
    })?;
    let (ranked, popular): (Vec<_>, Vec<_>) = lists.into_iter().unzip();
    let tests: Vec<&[(u32, u32)]> = cases.iter().map(|case| case.truth.as_slice()).collect();
    let catalogue = version.items().len() as usize;
    Ok(Judged {
        users: cases.len(),
        eligible: total,
        model: measure(&ranked, &tests, LIST_LENGTH, catalogue),
        popularity: measure(&popular, &tests, LIST_LENGTH, catalogue),
    })
}

/// The lists of the version and of popularity for each case.
fn answer(
    version: &Version,
    cases: &[Case],
    variant: &Variant,
) -> anyhow::Result<Vec<(Vec<u32>, Vec<u32>)>> {
    let mut scratch = Scratch::default();
    let now_us = jiff::Timestamp::now().as_microsecond();
    let weights = Weights::default();
    let mut lists = Vec::with_capacity(cases.len());
    for case in cases {
        let subject = Subject::Profile {
            profile: &case.profile,
        };
        let request = Request {
            seen: Seen::Exclude,
            ..Request::new(subject, LIST_LENGTH, now_us)
        };
        let answer = refrain_engine::recommend(version, &request, variant, &weights, &mut scratch)?;
        let list = answer.items.iter().map(|item| item.ordinal).collect();
        let mut heard: Vec<u32> = case
            .profile
            .events
            .iter()
            .filter_map(|event| version.items().ordinal(&event.item))
            .collect();
        heard.sort_unstable();
        let popular = version
            .items()
            .by_popularity()
            .filter(|item| heard.binary_search(item).is_err() && !version.items().blocked(*item))
            .take(LIST_LENGTH)
            .collect();
        lists.push((list, popular));
    }
    Ok(lists)
}

/// The variant that weighs similarity alone: what is judged is the model.
fn plain() -> anyhow::Result<Variant> {
    let variants = Variants::from_toml(refrain_ranking::DEFAULT_TOML)?;
    let plain = variants.get(refrain_ranking::DEFAULT_VARIANT);
    plain
        .cloned()
        .ok_or_else(|| anyhow::anyhow!("the default variant is not declared"))
}

fn known(version: &Version, log: &Log, row: u32) -> Option<u32> {
    version
        .items()
        .ordinal(log.items.get(log.item[row as usize])?)
}

fn profile(log: &Log, rows: &[u32]) -> Profile {
    let events = rows
        .iter()
        .map(|&row| {
            let listen = listens::listen(log, row);
            Event {
                time_us: listen.time_us.unwrap_or_default(),
                event_id: row.to_string(),
                item: log.items.get(listen.item).unwrap_or_default().to_owned(),
                kind: EventKind::Play,
                played_ms: None,
                context: None,
                session: None,
                count: listens::plays(listen.count),
            }
        })
        .collect();
    Profile::new(1, events, Vec::new())
}
