//! `refrain evaluate`: how good a bundle is, its index against exact search and its answers against
//! what listeners went on to hear; and the gate that says whether it may meet listeners.

mod page;

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context as _;
use refrain_builder::build::{IndexEvaluation, evaluate_index};
use refrain_builder::evaluation::Quality;
use refrain_builder::evaluation::offline::{
    Listening, OfflineOptions, OfflineReport, evaluate_offline,
};
use refrain_builder::files::write_whole;
use refrain_builder::gate::{DEFAULT_TOML, Forced, Gate, GateReport, Subject, Verdict, check};
use refrain_builder::ingest::Exclusions;
use refrain_bundle::bundle::seal_gate_report;
use refrain_bundle::{Bundle, OpenMode};
use refrain_engine::Version;
use refrain_ranking::{Variant, Variants};
use serde_json::json;

use super::train;
use crate::failure::{Exit, Failure};
use crate::ingest::{self, ReadArgs, SortArgs};
use crate::output::{self, Column, Output};

/// Measure a bundle: recall of its index, its answers against held-out listens, and a gate
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  refrain evaluate bundle/
  refrain evaluate bundle/ --ef-search 32,64,128,256 --min-recall 0.95
  refrain evaluate bundle/ --listens before.csv --held-out after.csv --html report.html
  refrain evaluate bundle/ --listens before.csv --held-out after.csv --champion stable/ --gate gate.toml
  refrain evaluate --print-gate > gate.toml

With --held-out, every listener's profile is made of --listens and --exclusions, the bundle recommends
as a server would, and what was heard later is the truth. With --gate, every check prints its threshold,
what was measured and its verdict, the report is sealed in the bundle, and exit 3 says that a check
failed. --force lets it pass all the same and leaves its reason in the bundle for all to see.")]
pub(crate) struct Args {
    /// The bundle
    #[arg(value_name = "BUNDLE", required_unless_present = "print_gate")]
    bundle: Option<PathBuf>,
    /// Files of listens that came later
    #[arg(long, value_name = "FILE", num_args = 1.., requires = "listens")]
    held_out: Vec<PathBuf>,
    /// Files of listens that the profiles are made of
    #[arg(long, value_name = "FILE", num_args = 1.., requires = "held_out")]
    listens: Vec<PathBuf>,
    /// Files of what listeners excluded from their taste profiles
    #[arg(long, value_name = "FILE", num_args = 1.., requires = "listens")]
    exclusions: Vec<PathBuf>,
    /// The bundle that this one would replace: compared listener by listener
    #[arg(long, value_name = "BUNDLE")]
    champion: Option<PathBuf>,
    /// Thresholds to check: a file, or `default`
    #[arg(long, value_name = "FILE")]
    gate: Option<PathBuf>,
    /// Let a bundle pass that the gate stops; the reason is sealed in the bundle
    #[arg(long, value_name = "REASON", requires = "gate")]
    force: Option<String>,
    /// Print the default gate, with comments
    #[arg(long)]
    print_gate: bool,
    /// Write the report as one self-contained page
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Answers compared with exact search on golden queries
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
    /// Resamples of the bootstrap
    #[arg(long, value_name = "N", default_value_t = 1_000,
          value_parser = clap::value_parser!(u32).range(100..=100_000))]
    resamples: u32,
    /// Seed of the sample, of chance and of the bootstrap
    #[arg(long, value_name = "N", default_value_t = 42)]
    seed: u64,
    /// The instant to ask at [default: now]
    #[arg(long, value_name = "INSTANT", value_parser = crate::parse::instant)]
    at: Option<jiff::Timestamp>,
    /// Threads; the result is the same with any number [default: one a core]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    #[command(flatten)]
    sort: SortArgs,
    #[command(flatten)]
    read: ReadArgs,
}

/// Runs `refrain evaluate`.
pub(crate) fn run(args: &Args, output: &Output) -> anyhow::Result<Exit> {
    let started = Instant::now();
    let Some(path) = args.bundle.as_deref().filter(|_| !args.print_gate) else {
        output.document(&json!({ "gate": DEFAULT_TOML }));
        if !output.is_json() {
            output.line(DEFAULT_TOML.trim_end());
        }
        return Ok(Exit::Done);
    };
    if let Some(least) = args.min_recall.filter(|least| !(0.0..=1.0).contains(least)) {
        return Err(Failure::usage(format!("--min-recall {least}: expected 0 to 1")).error());
    }
    let gate = args.gate.as_deref().map(read_gate).transpose()?;
    let threads = train::threads(args.threads);
    let bundle = Bundle::open(path, OpenMode::Map).with_context(|| cannot_open(path))?;
    let index = {
        let _progress = output.progress("search exactly and by the graph");
        match evaluate_index(&bundle, args.k.into(), &args.ef_search, threads) {
            // Without golden queries there is still a gate to ask.
            Err(refrain_builder::build::EvaluateError::NoQueries { .. }) if gate.is_some() => None,
            other => Some(other?),
        }
    };
    let version = Version::open(path, OpenMode::Map).with_context(|| cannot_open(path))?;
    let champion = args.champion.as_deref().map(|champion| {
        Version::open(champion, OpenMode::Map).with_context(|| cannot_open(champion))
    });
    let champion = champion.transpose()?;
    let offline = judge(args, &version, champion.as_ref(), threads, output)?;
    let gated = gate.map(|gate| {
        let golden = index.as_ref().and_then(|index| {
            let of = |point: &&refrain_builder::build::PoolSize| {
                point.ef_search == index.default_ef_search
            };
            Some(index.pool_sizes.iter().find(of)?.recall_lower_95)
        });
        let subject = Subject {
            version: &version,
            champion: champion.as_ref(),
            offline: offline.as_ref(),
            golden_recall: golden,
        };
        let mut report = check(&gate, subject);
        report.forced = args
            .force
            .as_ref()
            .filter(|_| !report.passed)
            .map(|reason| Forced {
                reason: output::clip(reason, 1_000),
                by: super::store::actor(),
            });
        report
    });
    if let Some(report) = &gated {
        seal_gate_report(path, &serde_json::to_value(report)?)
            .with_context(|| Failure::new("cannot seal the gate's report in the bundle"))?;
    }
    if let Some(file) = &args.html {
        let page = page::page(&version, index.as_ref(), offline.as_ref(), gated.as_ref());
        write_whole(file, page.as_bytes())
            .with_context(|| Failure::new(format!("cannot write {}", file.display())))?;
    }
    let best = index
        .iter()
        .flat_map(|index| &index.pool_sizes)
        .map(|point| point.recall)
        .fold(0.0, f64::max);
    let enough = args.min_recall.is_none_or(|least| best >= least);
    let passed = enough
        && gated
            .as_ref()
            .is_none_or(|gate| gate.passed || gate.forced.is_some());
    let document = json!({
        "bundle": path,
        "version": bundle.version(),
        "index": index,
        "held_out": offline,
        "trained": bundle.manifest().report.get("model"),
        "min_recall": args.min_recall,
        "gate": gated,
        "html": args.html,
        "passed": passed,
        "seconds": started.elapsed().as_secs_f64(),
    });
    output.result(&document, |output| {
        if let Some(index) = &index {
            print_index(index, output);
        }
        if let Some(offline) = &offline {
            print_offline(offline, output);
        }
        if let Some(gate) = &gated {
            print_gate(gate, output);
        }
        if let Some(file) = &args.html {
            output.line(format_args!("page: {}", file.display()));
        }
    });
    if let (false, Some(least)) = (enough, args.min_recall) {
        output.note(format_args!(
            "check failed: recall {best:.4} is below {least}"
        ));
    }
    if let Some(gate) = gated.as_ref().filter(|gate| !gate.passed) {
        let failed: Vec<&str> = gate.failed().collect();
        output.note(format_args!("the gate says no: {}", failed.join(", ")));
        if let Some(forced) = &gate.forced {
            output.note(format_args!(
                "FORCED by {}: {}; the bundle carries this mark",
                forced.by, forced.reason
            ));
        }
    }
    Ok(if passed { Exit::Done } else { Exit::Refused })
}

fn cannot_open(path: &Path) -> Failure {
    Failure::new(format!("cannot open the bundle {}", path.display()))
}

fn read_gate(path: &Path) -> anyhow::Result<Gate> {
    let gate = if path == Path::new("default") {
        Gate::parse(DEFAULT_TOML, "the default gate")
    } else {
        Gate::read(path)
    };
    gate.with_context(|| {
        Failure::usage("cannot use the gate").next("refrain evaluate --print-gate prints one")
    })
}

/// Judges the bundle by the listens, when there are any.
fn judge(
    args: &Args,
    version: &Version,
    champion: Option<&Version>,
    threads: usize,
    output: &Output,
) -> anyhow::Result<Option<OfflineReport>> {
    if args.held_out.is_empty() {
        return Ok(None);
    }
    let read = args.read.options()?;
    let room = || args.sort.room(args.html.as_deref());
    let again = || Failure::new("cannot read the listens again");
    // Rules ask for the labels of what was heard before; what came later is only asked for.
    let history = ingest::sorted(&args.listens, &read, true, (&args.sort, room()), output)?;
    let history = history.by_user().with_context(again)?;
    let later = ingest::sorted_once(&args.held_out, &read, false, room(), output)?;
    let exclusions = if args.exclusions.is_empty() {
        Exclusions::default()
    } else {
        ingest::exclusions(&args.exclusions, &args.read.items_options(&[])?, output)?
    };
    let options = OfflineOptions {
        max_users: args.max_users,
        seed: args.seed,
        resamples: args.resamples as usize,
        threads,
        now_us: args
            .at
            .unwrap_or_else(jiff::Timestamp::now)
            .as_microsecond(),
    };
    let listening = Listening {
        history: &history,
        later: &later,
        exclusions: &exclusions,
    };
    let bar = output.progress("recommend for held-out listeners");
    let report = evaluate_offline(
        version,
        champion,
        &plain()?,
        listening,
        &options,
        &|done, total| {
            bar.set(done as u64, total as u64);
        },
    );
    report.map(Some).map_err(|error| {
        anyhow::Error::new(error).context(
            Failure::new("cannot judge the bundle by these listens").next(
                "are --listens and --held-out of the same listeners, and of the bundle's items?",
            ),
        )
    })
}

/// The variant that weighs similarity alone: what is judged is the model.
fn plain() -> anyhow::Result<Variant> {
    let variants = Variants::from_toml(refrain_ranking::DEFAULT_TOML)?;
    let plain = variants.get(refrain_ranking::DEFAULT_VARIANT);
    plain
        .cloned()
        .ok_or_else(|| anyhow::anyhow!("the default variant is not declared"))
}

fn print_offline(report: &OfflineReport, output: &Output) {
    output.line(format_args!("judged: {}", report.protocol));
    let mut rows: Vec<(&str, &Quality)> = vec![("bundle", &report.model)];
    rows.extend(
        report
            .champion
            .as_ref()
            .map(|champion| ("champion", champion)),
    );
    rows.push(("popularity", &report.popularity));
    rows.push(("chance", &report.chance));
    let mut table = output::table(&[
        Column::Text("on held-out listens, at 20"),
        Column::Number("Recall"),
        Column::Number("NDCG"),
        Column::Number("MAP"),
        Column::Number("MRR"),
        Column::Number("hit rate"),
        Column::Number("coverage"),
        Column::Number("Gini"),
        Column::Number("novelty, bits"),
        Column::Number("distance in list"),
    ]);
    for (name, quality) in rows {
        table.add_row([
            name.to_owned(),
            format!("{:.4}", quality.recall_at_20),
            format!("{:.4}", quality.ndcg_at_20),
            format!("{:.4}", quality.map_at_20),
            format!("{:.4}", quality.mrr_at_20),
            format!("{:.4}", quality.hit_rate_at_20),
            format!("{:.1} %", quality.coverage_at_20 * 100.0),
            format!("{:.4}", quality.gini_at_20),
            format!("{:.2}", quality.novelty_bits_at_20),
            quality
                .intra_list_distance_at_20
                .map_or_else(|| "-".to_owned(), |distance| format!("{distance:.3}")),
        ]);
    }
    output.table(&table);
    if !report.against_champion.is_empty() {
        let mut table = output::table(&[
            Column::Text("against the champion"),
            Column::Number("difference"),
            Column::Number("95 % interval"),
            Column::Number("relative"),
        ]);
        for (name, paired) in &report.against_champion {
            table.add_row([
                name.clone(),
                format!("{:+.4}", paired.difference),
                format!("{:+.4} to {:+.4}", paired.low_95, paired.high_95),
                format!("{:+.2} %", paired.relative() * 100.0),
            ]);
        }
        output.table(&table);
    }
    let mut table = output::table(&[
        Column::Text("segment"),
        Column::Number("listeners"),
        Column::Number("Recall"),
        Column::Number("NDCG"),
        Column::Number("popularity's NDCG"),
        Column::Number("against champion"),
    ]);
    for segment in &report.segments {
        let against = segment.against_champion.get("ndcg_at_20").map(|paired| {
            format!(
                "{:+.4} ({:+.4} to {:+.4})",
                paired.difference, paired.low_95, paired.high_95
            )
        });
        table.add_row([
            segment.name.clone(),
            output::count(segment.users as u64),
            format!("{:.4}", segment.model.recall),
            format!("{:.4}", segment.model.ndcg),
            format!("{:.4}", segment.popularity.ndcg),
            against.unwrap_or_else(|| "-".to_owned()),
        ]);
    }
    output.table(&table);
    let recall = &report.index_recall;
    output.line(format_args!(
        "index against exact search for {} listeners, their exclusions and heard items applied: recall@10 \
         {:.4}, at least {:.4} (95 %)",
        output::count(recall.queries as u64),
        recall.mean,
        recall.lower_95
    ));
    output.line(format_args!(
        "mean listeners of what is recommended: {:.1}; of what was heard: {:.1}",
        report.popularity_of_recommended, report.popularity_of_heard
    ));
    output.line(train::verdict(&report.model, &report.popularity));
}

fn print_gate(report: &GateReport, output: &Output) {
    let mut table = output::table(&[
        Column::Text("check"),
        Column::Text("threshold"),
        Column::Text("measured"),
        Column::Text("verdict"),
    ]);
    for check in &report.checks {
        let verdict = match check.verdict {
            Verdict::Passed => "passed",
            Verdict::Failed => "FAILED",
            Verdict::Skipped => "skipped",
        };
        table.add_row([
            check.name.clone(),
            check.threshold.clone(),
            output::clip(&check.value, 120),
            verdict.to_owned(),
        ]);
    }
    output.table(&table);
    output.line(match (report.passed, &report.forced) {
        (true, _) => "gate: passed; the report is sealed in the bundle".to_owned(),
        (false, None) => "gate: FAILED; the report is sealed in the bundle".to_owned(),
        (false, Some(forced)) => {
            let Forced { reason, by } = forced;
            format!("gate: FAILED and FORCED by {by}: {reason}; the mark is sealed in the bundle")
        }
    });
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
