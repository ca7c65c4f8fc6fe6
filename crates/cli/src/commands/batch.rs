//! `refrain batch`: recommendations for many listeners or seeds, in process.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use refrain_builder::batch::{self, Job};
use refrain_builder::ingest::{Exclusions, UserListens};
use refrain_bundle::OpenMode;
use refrain_engine::{Policy, Seen, Version};
use refrain_taste::{Profile, ProfileStore, RedbStore, StoreOptions, Weights};
use serde_json::json;

use super::train;
use crate::failure::{Exit, Failure};
use crate::ingest::{self, ReadArgs, SortArgs};
use crate::output::{self, Output};

/// Recommend to many at once: Parquet of users or seeds in, Parquet of recommendations out
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  refrain batch bundle/ --input users.parquet --profiles profiles.redb --out recommendations.parquet
  refrain batch bundle/ --input users.parquet --listens plays.csv.gz --exclusions rules.csv --out r.parquet
  refrain batch bundle/ --input seeds.parquet -k 50 --variant plain --out r.parquet

The input has a column of users (user, user_id) or of lists of seed items (seeds, items). The answers are
those of a server with the same bundle, configuration, profiles and instant, bit for bit: it is the same
engine. --profiles is the profile store of a server that is stopped, or a copy. Finished blocks are kept
beside the output until it is complete: run a killed job again and it goes on, to the same bytes.")]
pub(crate) struct Args {
    /// The bundle that answers
    #[arg(value_name = "BUNDLE")]
    bundle: PathBuf,
    /// Parquet file of users or seeds
    #[arg(long, value_name = "FILE")]
    input: PathBuf,
    /// Parquet file for the recommendations; must not exist
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Profile store with the listeners' events and rules
    #[arg(long, value_name = "FILE", conflicts_with_all = ["listens", "exclusions"])]
    profiles: Option<PathBuf>,
    /// Files of listens to make profiles of instead
    #[arg(long, value_name = "FILE", num_args = 1..)]
    listens: Vec<PathBuf>,
    /// Files of what listeners excluded from their taste profiles
    #[arg(long, value_name = "FILE", num_args = 1.., requires = "listens")]
    exclusions: Vec<PathBuf>,
    /// The server's configuration: variants, experiments, weights [default: the built-in one]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Variant for everybody, instead of the one assigned
    #[arg(long, value_name = "NAME")]
    variant: Option<String>,
    /// Surface that variants are assigned for
    #[arg(long, value_name = "NAME", default_value = "home")]
    surface: String,
    /// Items a row
    #[arg(short = 'k', long = "count", value_name = "N", default_value_t = 20,
          value_parser = clap::value_parser!(u16).range(1..=1_000))]
    k: u16,
    /// Let heard items come back
    #[arg(long)]
    allow_seen: bool,
    /// The instant to answer at [default: now]
    #[arg(long, value_name = "INSTANT", value_parser = crate::parse::instant)]
    at: Option<jiff::Timestamp>,
    /// Threads; the result is the same with any number [default: one a core]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    #[command(flatten)]
    read: ReadArgs,
    #[command(flatten)]
    sort: SortArgs,
}

/// Runs `refrain batch`.
pub(crate) fn run(args: &Args, output: &Output) -> anyhow::Result<Exit> {
    let started = Instant::now();
    train::refuse_existing(&args.out)?;
    let (policy, weights) = configuration(args)?;
    let version = Version::open(&args.bundle, OpenMode::Map).with_context(|| {
        Failure::new(format!("cannot open the bundle {}", args.bundle.display()))
    })?;
    let source = Source::open(args, output)?;
    let job = Job {
        version: &version,
        policy: &policy,
        surface: &args.surface,
        variant: args.variant.as_deref(),
        weights: &weights,
        profiles: &|user| source.profile(user),
        k: args.k.into(),
        seen: if args.allow_seen {
            Seen::Allow
        } else {
            Seen::Exclude
        },
        now_us: args.at.map(jiff::Timestamp::as_microsecond),
        threads: train::threads(args.threads),
    };
    let report = {
        let bar = output.progress("recommend");
        batch::run(&job, &args.input, &args.out, &|done, total| {
            bar.set(done, total)
        })
        .with_context(|| {
            Failure::new("the batch is not complete")
                .next("run it again: finished blocks are kept beside the output")
        })?
    };
    let took = started.elapsed();
    let document = json!({
        "out": args.out,
        "version": version.id(),
        "report": report,
        "seconds": took.as_secs_f64(),
    });
    output.result(&document, |output| {
        output.line(format_args!(
            "{} recommendations for {} rows in {}, in {}",
            output::count(report.items),
            output::count(report.rows),
            args.out.display(),
            output::duration(took)
        ));
        if report.popular + report.short > 0 {
            output.line(format_args!(
                "{} rows answered by popularity, {} with fewer items than asked for",
                output::count(report.popular),
                output::count(report.short)
            ));
        }
        if report.resumed_blocks > 0 {
            output.line(format_args!(
                "{} blocks were there from an earlier run",
                output::count(report.resumed_blocks)
            ));
        }
    });
    Ok(Exit::Done)
}

fn configuration(args: &Args) -> anyhow::Result<(Policy, Weights)> {
    let Some(path) = &args.config else {
        return Ok((Policy::built_in()?, Weights::default()));
    };
    let cannot = || Failure::usage(format!("cannot use the configuration {}", path.display()));
    let config = refrain_server::Config::load(path).with_context(cannot)?;
    let policy = Policy::new(config.variants.clone(), &config.experiments).with_context(cannot)?;
    Ok((policy, config.profiles.weights))
}

/// Where profiles come from.
enum Source {
    Store(RedbStore),
    Log {
        log: Box<UserListens>,
        exclusions: Exclusions,
    },
    /// Seeds need none.
    Nobody,
}

impl Source {
    fn open(args: &Args, output: &Output) -> anyhow::Result<Self> {
        if let Some(path) = &args.profiles {
            if !path.exists() {
                return Err(
                    Failure::new(format!("{}: there is no profile store", path.display())).error(),
                );
            }
            let store = RedbStore::open(path, &StoreOptions::default()).with_context(|| {
                Failure::new(format!("cannot open the profile store {}", path.display()))
                    .next("is a server running on it? stop it, or give a copy")
            })?;
            return Ok(Self::Store(store));
        }
        if args.listens.is_empty() {
            return Ok(Self::Nobody);
        }
        let sort = (&args.sort, args.sort.room(Some(&args.out)));
        let log = ingest::sorted(&args.listens, &args.read.options()?, true, sort, output)?;
        let log = log
            .by_user()
            .with_context(|| Failure::new("cannot read the listens again"))?;
        let exclusions = if args.exclusions.is_empty() {
            Exclusions::default()
        } else {
            ingest::exclusions(&args.exclusions, &args.read.items_options(&[])?, output)?
        };
        Ok(Self::Log {
            log: Box::new(log),
            exclusions,
        })
    }

    fn profile(&self, user: &str) -> Result<Arc<Profile>, String> {
        match self {
            Self::Store(store) => store.profile(user).map_err(|error| error.to_string()),
            Self::Nobody => Err("no --profiles and no --listens were given".to_owned()),
            Self::Log { log, exclusions } => {
                let known = log.log().users().ordinal(user);
                let events = known.map(|user| log.events(user)).transpose();
                let events = events.map_err(|error| error.to_string())?;
                let rules = exclusions.of(user).to_vec();
                Ok(Arc::new(Profile::new(1, events.unwrap_or_default(), rules)))
            }
        }
    }
}
