//! `refrain experiment sql`: the statement by which a warehouse makes the table of units.

use std::path::PathBuf;

use refrain_analysis::sql::{self, Dialect, Tables};
use serde_json::json;

use super::analyze;
use crate::failure::Exit;
use crate::output::Output;

/// Print the SQL that makes the table of units in a warehouse
#[derive(Debug, clap::Args)]
#[command(after_help = "\
For logs too large for one machine: run the statement where the log lies, save the result as Parquet, and
analyse it with `refrain experiment analyze --units`. The verdict is the same as that of the log itself;
quantiles, daily curves and latency need the log and are left out.

Examples:
  refrain experiment sql --config refrain.toml --dialect bigquery --exposures logs.exposures --outcomes logs.outcomes --covariates logs.covariates
  refrain experiment sql --config refrain.toml --dialect duckdb --exposures \"read_parquet('log/exposures/**/*.parquet')\" --outcomes \"read_parquet('log/outcomes/**/*.parquet')\"")]
pub(crate) struct Args {
    /// Configuration that declares the experiment
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Name of the experiment; may be left out where the file has only one
    #[arg(long, value_name = "NAME")]
    experiment: Option<String>,
    /// Whose SQL
    #[arg(long, value_enum)]
    dialect: Flavour,
    /// Table of the exposures
    #[arg(long, value_name = "TABLE", default_value = "exposures")]
    exposures: String,
    /// Table of the outcomes
    #[arg(long, value_name = "TABLE", default_value = "outcomes")]
    outcomes: String,
    /// Table of the covariates
    #[arg(long, value_name = "TABLE", default_value = "unit_covariates")]
    covariates: String,
    /// The outcomes have an outcome_id; repeated ones count once
    #[arg(long)]
    outcome_ids: bool,
    /// As of this instant (RFC 3339 or a UTC date)
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Flavour {
    Spark,
    Bigquery,
    Trino,
    Duckdb,
}

/// Runs `refrain experiment sql`.
pub(crate) fn run(args: &Args, output: &Output) -> anyhow::Result<Exit> {
    let plan = analyze::read_plan(&args.config, args.experiment.as_deref())?;
    let dialect = match args.dialect {
        Flavour::Spark => Dialect::Spark,
        Flavour::Bigquery => Dialect::BigQuery,
        Flavour::Trino => Dialect::Trino,
        Flavour::Duckdb => Dialect::DuckDb,
    };
    let tables = Tables {
        exposures: args.exposures.clone(),
        outcomes: args.outcomes.clone(),
        covariates: args.covariates.clone(),
        outcome_ids: args.outcome_ids,
        until_us: args.until.as_deref().map(analyze::instant).transpose()?,
    };
    let statement = sql::units(&plan, dialect, &tables);
    output.result(&json!({ "sql": statement }), |output| {
        output.line(statement.trim_end())
    });
    Ok(Exit::Done)
}
