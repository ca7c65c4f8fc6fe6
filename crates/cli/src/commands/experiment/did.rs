//! `refrain experiment did`: a change that could not be randomised by listener.

use std::path::PathBuf;

use refrain_analysis::panel::{self, Differences};
use refrain_analysis::report;

use super::analyze;
use crate::failure::{Exit, Failure};
use crate::output::{self, Column, Output};

/// Difference-in-differences: a change by market or catalogue, which could not be randomised by listener
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The panel is CSV or Parquet with a row for every unit and period: unit, period (dates or whole numbers),
value, and treated_from, the period in which the unit's change starts (empty for never). All changed units
start together; waves are analysed one by one against units that never changed.

It rests on what cannot be tested: that changed and unchanged units would have moved alike. Where listeners
can be randomised, randomise them.

Examples:
  refrain experiment did markets.csv
  refrain experiment did markets.parquet --title 'New catalogue in the north' --out north.html
  refrain experiment did markets.csv --json

Exit codes: 0 done, 2 bad input, 3 a made-up start before the real one finds an effect, too.")]
pub(crate) struct Args {
    /// The panel
    #[arg(value_name = "PANEL")]
    panel: PathBuf,
    /// What was changed, for the page
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "Did the change move its units?"
    )]
    title: String,
    /// Also write one self-contained HTML page
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Runs `refrain experiment did`.
pub(crate) fn run(args: &Args, output: &Output) -> anyhow::Result<Exit> {
    let found = panel::analyze(&args.panel).map_err(|error| {
        anyhow::Error::new(error).context(
            Failure::usage("the panel cannot be analysed")
                .next("`refrain experiment did --help` says what a panel has"),
        )
    })?;
    if let Some(path) = &args.out {
        let command = format!("refrain experiment did {}", args.panel.display());
        analyze::write(
            path,
            report::panel_html(&found, &args.title, &command).as_bytes(),
        )?;
        output.note(format_args!("page in {}", path.display()));
    }
    output.result(&found, |output| print(&found, output));
    let moved_before = found
        .report
        .placebo
        .is_some_and(|placebo| placebo.p_two_sided < 0.05);
    Ok(if moved_before {
        Exit::Refused
    } else {
        Exit::Done
    })
}

fn print(found: &Differences, output: &Output) {
    output.line(&found.headline);
    let report = &found.report;
    let mut table = output::table(&[
        Column::Text("method"),
        Column::Number("effect"),
        Column::Number("error"),
        Column::Number("p"),
    ]);
    let mut row = |name: &str, error: Option<f64>, p: f64| {
        table.add_row([
            name.to_owned(),
            report::signed(found.report.delta, found.report.clustered.se),
            error.map_or_else(String::new, |se| report::rounded(se, se)),
            format!("{p:.4}"),
        ]);
    };
    row("permutation", None, report.permutation.p_two_sided);
    row(
        "clustered by unit",
        Some(report.clustered.se),
        report.clustered.p_two_sided(),
    );
    if let Some(changes) = &report.unit_changes {
        row(
            "one change a unit",
            Some(changes.welch.se),
            changes.welch.p_two_sided(),
        );
    }
    output.table(&table);
    for warning in &found.warnings {
        output.line(format_args!("note: {warning}"));
    }
}
