//! `refrain experiment report`: the page to show to others.

use std::path::{Path, PathBuf};

use refrain_analysis::archive::{self, Entry};
use serde_json::json;

use super::analyze::{self, Subject};
use crate::failure::{Exit, Failure};
use crate::output::Output;

/// Analyse an experiment and write the report, one self-contained HTML page
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The page needs nothing from elsewhere: no scripts, no fonts, no network. It prints, and reads without
colour.

Examples:
  refrain experiment report --config refrain.toml --log /var/log/refrain --looks blend.looks.json --out blend.html
  refrain experiment report --config refrain.toml --log log/ --archive archive.jsonl --out blend.html

Exit codes: 0 done, 2 bad input, 3 a quality check failed, 4 harm; the page is written in each case
but bad input.")]
pub(crate) struct Args {
    #[command(flatten)]
    subject: Subject,
    /// Archive that holds what the owner decided, to be told on the page
    #[arg(long, value_name = "FILE")]
    archive: Option<PathBuf>,
    /// Where the page goes
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

fn read(path: &Path) -> anyhow::Result<Vec<Entry>> {
    let text = fs_err::read_to_string(path).map_err(|error| analyze::bad_input(error.into()))?;
    archive::read(&text).map_err(|error| {
        Failure::usage(format!("{} is no sound archive", path.display()))
            .next("restore it from a backup")
            .because(error.to_string())
    })
}

/// Runs `refrain experiment report`.
pub(crate) fn run(args: &Args, output: &Output) -> anyhow::Result<Exit> {
    let archive = match &args.archive {
        Some(path) => read(path)?,
        None => Vec::new(),
    };
    let (analysis, _) = args.subject.look(output)?;
    let command = args.subject.command();
    let page = refrain_analysis::report::decided_html(&analysis, &command, &archive);
    analyze::write(&args.out, page.as_bytes())?;
    let document = json!({
        "report": args.out,
        "recommendation": analysis.verdict.recommendation,
        "headline": analysis.verdict.headline,
    });
    output.result(&document, |output| {
        output.line(format_args!(
            "{}  {}",
            analysis.verdict.recommendation.replace('_', " "),
            analysis.verdict.headline
        ));
        output.line(format_args!("report in {}", args.out.display()));
    });
    Ok(analyze::exit(&analysis))
}
