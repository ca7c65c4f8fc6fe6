//! `refrain experiment report`: the page to show to others.

use std::path::PathBuf;

use serde_json::json;

use super::analyze::{self, Subject};
use crate::failure::Exit;
use crate::output::Output;

/// Analyse an experiment and write the report, one self-contained HTML page
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The page needs nothing from elsewhere: no scripts, no fonts, no network. It prints, and reads without
colour.

Examples:
  refrain experiment report --config refrain.toml --log /var/log/refrain --looks blend.looks.json --out blend.html

Exit codes: 0 done, 2 bad input, 3 a quality check failed, 4 harm; the page is written in each case
but bad input.")]
pub(crate) struct Args {
    #[command(flatten)]
    subject: Subject,
    /// Where the page goes
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// Runs `refrain experiment report`.
pub(crate) fn run(args: &Args, output: &Output) -> anyhow::Result<Exit> {
    let (analysis, _) = args.subject.look(output)?;
    let page = refrain_analysis::report::html(&analysis, &args.subject.command());
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
