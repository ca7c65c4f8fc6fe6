//! `refrain experiment simulate`: a log whose truth is known, to rehearse an analysis.

use std::path::PathBuf;

use anyhow::Context as _;
use refrain_analysis::simulate::{self, Faults, Lists, Show, World};
use serde_json::json;

use super::analyze;
use crate::failure::{Exit, Failure};
use crate::output::{self, Output};

/// Write a simulated log and its plan, to rehearse an analysis before launch
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Writes exposures/, outcomes/, covariates/ and plan.toml. The truth is what you ask for, so you can see
whether a design finds it, and what a fault in logging looks like.

Examples:
  refrain experiment simulate --out rehearsal --units 20000 --lift 0.03
  refrain experiment simulate --out broken --lose-treatment 0.3
  refrain experiment simulate --out quarter --holdout 2026q4 --lift 0.05
  refrain experiment simulate --out drafted --lists drafted --preference 0.2
  refrain experiment analyze --config rehearsal/plan.toml --log rehearsal --report rehearsal.html")]
pub(crate) struct Args {
    /// Folder that is made; it must not be there
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Units of all arms
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    units: u64,
    /// Days over which they arrive
    #[arg(long, value_name = "N", default_value_t = 14, value_parser = clap::value_parser!(u32).range(1..=3650))]
    days: u32,
    /// Further visits a day of an average unit
    #[arg(long, value_name = "X", default_value_t = 0.5)]
    visits: f64,
    /// True relative change of minutes listened
    #[arg(
        long,
        value_name = "X",
        default_value_t = 0.0,
        allow_negative_numbers = true
    )]
    lift: f64,
    /// Further change on the first days, which fades
    #[arg(
        long,
        value_name = "X",
        default_value_t = 0.0,
        allow_negative_numbers = true
    )]
    novelty: f64,
    /// True relative change of latency
    #[arg(
        long,
        value_name = "X",
        default_value_t = 0.0,
        allow_negative_numbers = true
    )]
    slowdown: f64,
    /// Share of the treatment's units on one surface whose exposures are lost: a sample-ratio mismatch
    #[arg(long, value_name = "X", default_value_t = 0.0)]
    lose_treatment: f64,
    /// Share of the treatment's units that are bots
    #[arg(long, value_name = "X", default_value_t = 0.0)]
    treatment_bots: f64,
    /// Share of units seen in both arms
    #[arg(long, value_name = "X", default_value_t = 0.0)]
    switchers: f64,
    /// The treatment's weight rises half way, while listening falls for everyone
    #[arg(long)]
    ramp: bool,
    /// Share of the treatment's answers that fall back to what the control serves
    #[arg(long, value_name = "X", default_value_t = 0.0)]
    fallback: f64,
    /// Units held out of everything that ships, against a slice of the rest, instead of an experiment: the
    /// lift is what was shipped. The plan is of kind `holdout`
    #[arg(long, value_name = "NAME", conflicts_with_all = ["ramp", "lists", "fallback"])]
    holdout: Option<String>,
    /// Write the lists, too: each arm's own, one that both draft (an interleaved experiment), or drawn
    /// at random with their probabilities
    #[arg(long, value_name = "HOW", value_enum)]
    lists: Option<How>,
    /// With drafted lists: how much more often the treatment's items are chosen
    #[arg(
        long,
        value_name = "X",
        default_value_t = 0.0,
        allow_negative_numbers = true
    )]
    preference: f64,
    /// The design, as in the plan
    #[arg(long, value_name = "TOML")]
    design: Option<String>,
    /// Same seed, same bytes
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum How {
    Ranked,
    Drafted,
    Drawn,
}

/// Runs `refrain experiment simulate`.
pub(crate) fn run(args: &Args, output: &Output) -> anyhow::Result<Exit> {
    for (flag, value) in [
        ("--visits", args.visits),
        ("--lift", args.lift),
        ("--novelty", args.novelty),
        ("--slowdown", args.slowdown),
        ("--preference", args.preference),
    ] {
        if !value.is_finite() || !(-0.99..=100.0).contains(&value) {
            return Err(
                Failure::usage(format!("{flag} {value} is not between -0.99 and 100")).error(),
            );
        }
    }
    if args.out.exists() {
        return Err(
            Failure::usage(format!("{} is there already", args.out.display()))
                .next("name a folder that is not")
                .error(),
        );
    }
    let mut world = World::new(args.seed, args.units);
    world.days = args.days;
    world.visits = args.visits.max(0.0);
    world.lift = args.lift;
    world.novelty = args.novelty;
    world.slowdown = args.slowdown;
    world.faults = Faults {
        lose_treatment: args.lose_treatment,
        treatment_bots: args.treatment_bots,
        switchers: args.switchers,
        ramp: args.ramp,
        retries: 0.01,
        fallback: args.fallback,
    };
    if let Some(name) = &args.holdout {
        if name.is_empty() || name.contains(['|', '"', '\\']) || name.chars().any(char::is_control)
        {
            return Err(
                Failure::usage(format!("--holdout {name:?} is no name of a holdout")).error(),
            );
        }
        world.holdout = Some(name.clone());
        world.experiment = "worth".to_owned();
    }
    world.lists = args.lists.map(|how| Lists {
        length: 10,
        show: match how {
            How::Ranked => Show::Ranked,
            How::Drafted => Show::Drafted {
                preference: args.preference,
            },
            How::Drawn => Show::Drawn,
        },
    });
    let design = args.design.clone().unwrap_or_else(|| {
        format!("{{ method = \"gst\", spending = \"power(2)\", alpha = 0.05, power = 0.8, max_units = {} }}", args.units.max(1))
    });
    let plan = simulate::plan_toml(&world, &design);
    refrain_analysis::Plan::from_toml(&plan, None)
        .map_err(|error| Failure::usage("--design is no design").because(error.to_string()))?;
    // Whole or not at all.
    let parent = args
        .out
        .parent()
        .filter(|p| !p.as_os_str().is_empty())
        .map_or_else(|| PathBuf::from("."), PathBuf::from);
    let folder = tempfile::Builder::new()
        .prefix(".refrain-")
        .tempdir_in(&parent)
        .with_context(|| Failure::new(format!("cannot write in {}", parent.display())))?;
    let rows = world
        .write(folder.path())
        .with_context(|| Failure::new(format!("cannot write in {}", parent.display())))?;
    analyze::write(&folder.path().join("plan.toml"), plan.as_bytes())?;
    fs_err::rename(folder.keep(), &args.out)?;
    let document = json!({ "out": args.out, "exposures": rows[0], "outcomes": rows[1], "covariates": rows[2] });
    output.result(&document, |output| {
        output.line(format_args!(
            "{} exposures, {} outcomes and {} covariates of {} units in {}",
            output::count(rows[0]),
            output::count(rows[1]),
            output::count(rows[2]),
            output::count(args.units),
            args.out.display()
        ));
    });
    Ok(Exit::Done)
}
