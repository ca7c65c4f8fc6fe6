//! `refrain generate`: a listening log that nobody listened to.

use std::path::PathBuf;
use std::time::Instant;

use refrain_builder::generate::{self, Format, Preset};
use serde_json::json;

use crate::failure::{Exit, Failure};
use crate::output::{self, Output};

/// Write a generated listening log: scenes, artists, sessions, playlists; the same for a seed
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  refrain generate --preset small --out log/
  refrain generate --preset demo --seed 7 --format parquet --out log/
  refrain generate --preset-file mine.toml --out log/

Writes listens and items into the directory, as `refrain train` reads them.")]
pub(crate) struct Args {
    /// A preset that comes with the program: small or demo
    #[arg(
        long,
        value_name = "NAME",
        default_value = "demo",
        conflicts_with = "preset_file"
    )]
    preset: String,
    /// A preset of your own
    #[arg(long, value_name = "FILE")]
    preset_file: Option<PathBuf>,
    /// Seed [default: the preset's]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// How to write
    #[arg(long, value_enum, default_value_t = FormatArg::Csv)]
    format: FormatArg,
    /// Directory to write into
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// How to write.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum FormatArg {
    Csv,
    Parquet,
}

/// Runs `refrain generate`.
pub(crate) fn run(args: &Args, output: &Output) -> anyhow::Result<Exit> {
    let started = Instant::now();
    let mut preset = match &args.preset_file {
        Some(path) => Preset::from_toml(&fs_err::read_to_string(path)?).map_err(|error| {
            let what = format!("{} is no preset", path.display());
            anyhow::Error::new(error).context(Failure::new(what))
        })?,
        None => Preset::named(&args.preset).map_err(|error| {
            anyhow::Error::new(error).context(Failure::usage(format!("--preset {}", args.preset)))
        })?,
    };
    preset.seed = args.seed.unwrap_or(preset.seed);
    let extension = match args.format {
        FormatArg::Csv => "csv",
        FormatArg::Parquet => "parquet",
    };
    for name in ["listens", "items"] {
        super::train::refuse_existing(&args.out.join(format!("{name}.{extension}")))?;
    }
    let generated = generate::generate(&preset)?;
    let format = match args.format {
        FormatArg::Csv => Format::Csv,
        FormatArg::Parquet => Format::Parquet,
    };
    let written = generated.write(&args.out, format)?;
    let log = &generated.log;
    let took = started.elapsed();
    let document = json!({
        "listens": written.listens,
        "items": written.items,
        "preset": preset.name,
        "seed": preset.seed,
        "counts": {
            "users": log.users.len(),
            "items": generated.items.len(),
            "events": log.len(),
            "contexts": log.contexts.len(),
        },
        "seconds": took.as_secs_f64(),
    });
    output.result(&document, |output| {
        output.line(format_args!(
            "{} listens of {} users, {} items, in {}",
            output::count(log.len() as u64),
            output::count(log.users.len() as u64),
            output::count(generated.items.len() as u64),
            output::duration(took)
        ));
        output.line(format_args!("  {}", written.listens.display()));
        output.line(format_args!("  {}", written.items.display()));
    });
    Ok(Exit::Done)
}
