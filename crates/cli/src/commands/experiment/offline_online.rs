//! `refrain experiment offline-online`: have offline metrics foretold experiments?

use std::path::PathBuf;

use refrain_analysis::past::{self, Foretelling, Question};
use refrain_analysis::{archive as store, report};

use super::analyze;
use crate::failure::{Exit, Failure};
use crate::output::{self, Column, Output};

/// How well offline metrics have foretold experiments, over the archive of decisions
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The archive is what `refrain experiment archive --offline NAME=CHANGE` writes. Each pair of an offline and
an online metric is shown with Pearson's, Spearman's and Kendall's correlation, its slope weighted by
precision, and whether the offline change predicts an experiment better than the mean of the others.

Examples:
  refrain experiment offline-online archive.jsonl
  refrain experiment offline-online archive.jsonl --offline ndcg --online minutes_week2 --out foretold.html
  refrain experiment offline-online archive.jsonl --relative --json

Exit codes: 0 done, 2 bad input, 3 no pair has the four experiments that it takes.")]
pub(crate) struct Args {
    /// The archive
    #[arg(value_name = "ARCHIVE")]
    archive: PathBuf,
    /// Only this offline metric
    #[arg(long, value_name = "NAME")]
    offline: Option<String>,
    /// Only this online metric
    #[arg(long, value_name = "METRIC")]
    online: Option<String>,
    /// Online effects as shares of the control: for metrics whose level differs between experiments
    #[arg(long)]
    relative: bool,
    /// Also write one self-contained HTML page
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Runs `refrain experiment offline-online`.
pub(crate) fn run(args: &Args, output: &Output) -> anyhow::Result<Exit> {
    let text =
        fs_err::read_to_string(&args.archive).map_err(|error| analyze::bad_input(error.into()))?;
    let entries = store::read(&text).map_err(|error| {
        Failure::usage(format!("{} is no sound archive", args.archive.display()))
            .next("restore it from a backup; `refrain experiment archive` writes it")
            .because(error.to_string())
    })?;
    let found = past::ask(
        &entries,
        &Question {
            offline: args.offline.clone(),
            online: args.online.clone(),
            relative: args.relative,
        },
    );
    if let Some(path) = &args.out {
        analyze::write(path, report::past_html(&found, &command(args)).as_bytes())?;
        output.note(format_args!("page in {}", path.display()));
    }
    output.result(&found, |output| print(&found, output));
    Ok(if found.pairs.iter().any(|pair| pair.agreement.is_some()) {
        Exit::Done
    } else {
        Exit::Refused
    })
}

fn command(args: &Args) -> String {
    let mut command = format!(
        "refrain experiment offline-online {}",
        args.archive.display()
    );
    for (flag, value) in [("--offline", &args.offline), ("--online", &args.online)] {
        if let Some(value) = value {
            command.push_str(&format!(" {flag} {value}"));
        }
    }
    if args.relative {
        command.push_str(" --relative");
    }
    command
}

fn print(found: &Foretelling, output: &Output) {
    let mut table = output::table(&[
        Column::Text("offline"),
        Column::Text("online"),
        Column::Number("n"),
        Column::Number("pearson"),
        Column::Text("95 %"),
        Column::Number("p"),
        Column::Number("spearman"),
        Column::Number("kendall"),
        Column::Number("weighted"),
        Column::Number("no noise"),
        Column::Number("slope"),
        Column::Number("same sign"),
    ]);
    let mut remarks = Vec::new();
    for pair in &found.pairs {
        let name = format!("{} and {}", pair.offline, pair.online);
        match &pair.agreement {
            Some(a) => {
                table.add_row([
                    output::clip(&pair.offline, 24),
                    output::clip(&pair.online, 32),
                    output::count(a.n),
                    format!("{:.3}", a.pearson.value),
                    format!(
                        "{:.2} … {:.2}",
                        a.pearson_interval.low, a.pearson_interval.high
                    ),
                    format!("{:.2e}", a.pearson.p),
                    format!("{:.3}", a.spearman.value),
                    format!("{:.3}", a.kendall.value),
                    format!("{:.3}", a.weighted),
                    a.noise_corrected
                        .map_or_else(String::new, |r| format!("{r:.3}")),
                    format!("{:.4}", a.slope),
                    format!("{:.0} %", 100.0 * a.sign_agreement),
                ]);
            }
            None => remarks.push(format!(
                "{name}: {}",
                pair.why_not.as_deref().unwrap_or("nothing can be said")
            )),
        }
        remarks.extend(
            pair.warnings
                .iter()
                .map(|warning| format!("{name}: {warning}")),
        );
    }
    if table.row_iter().next().is_some() {
        output.table(&table);
    }
    if found.pairs.is_empty() {
        output.line("no archived experiment has both an offline change and an effect");
    }
    for remark in &remarks {
        output.line(format_args!("note: {remark}"));
    }
    for line in &found.left_out {
        output.line(format_args!("left out: {line}"));
    }
    output.line(
        "only variants that looked good offline were ever tested: that weakens every correlation here",
    );
}
