//! `refrain experiment`: which variant a listener gets and why, and whether a configuration holds.

use std::path::PathBuf;

use refrain::v1 as pb;
use refrain::v1::experiment_service_client::ExperimentServiceClient;

use crate::client::{Client, Connection};
use crate::failure::Exit;
use crate::output::{self, Column, Output};
use crate::wire;

mod check;

/// Experiments: assignments, and checks of a configuration
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  refrain experiment assign alice --surface home
  refrain experiment check refrain.toml

Environment: REFRAIN_ADDR")]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    Assign(AssignArgs),
    Check(CheckArgs),
}

/// Which variant a unit gets on a surface, and why; counts as no exposure
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  refrain experiment assign alice
  refrain experiment assign alice bob carol --surface home --json")]
struct AssignArgs {
    /// The units that are randomised: listeners
    #[arg(value_name = "UNIT", required = true)]
    units: Vec<String>,
    /// Where the recommendations are shown; selects the layer
    #[arg(long, value_name = "NAME", default_value = "")]
    surface: String,
    #[command(flatten)]
    connection: Connection,
}

/// Check variants, layers and experiments of a server's configuration; exit 3 when they do not hold
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  refrain experiment check refrain.toml
  refrain config > refrain.toml && refrain experiment check refrain.toml --json")]
pub(crate) struct CheckArgs {
    /// The configuration file
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
}

/// Runs `refrain experiment`.
pub(crate) fn run(args: &Args, output: &Output) -> anyhow::Result<Exit> {
    match &args.action {
        Action::Assign(args) => assign(args, output),
        Action::Check(args) => check::run(args, output),
    }
}

fn assign(args: &AssignArgs, output: &Output) -> anyhow::Result<Exit> {
    let answers = args.connection.run(async |client: Client| {
        let mut service = ExperimentServiceClient::new(client.channel.clone());
        let mut answers = Vec::with_capacity(args.units.len());
        for unit in &args.units {
            let request = pb::AssignRequest {
                unit_id: unit.clone(),
                surface: args.surface.clone(),
            };
            let answer = service.assign(client.request(request)).await;
            answers.push(client.answer("assign", answer)?);
        }
        Ok(answers)
    })?;
    let named = || args.units.iter().zip(&answers);
    let documents: Vec<_> = named()
        .map(|(unit, answer)| wire::assignment(unit, &args.surface, answer))
        .collect();
    output.result(&serde_json::json!({ "assignments": documents }), |output| {
        let mut table = output::table(&[
            Column::Text("unit"),
            Column::Text("variant"),
            Column::Text("because"),
            Column::Text("layer"),
            Column::Number("bucket"),
            Column::Text("experiment"),
            Column::Text("arm"),
            Column::Number("grid"),
            Column::Number("probability"),
        ]);
        for (unit, answer) in named() {
            let assignment = answer.assignment.clone().unwrap_or_default();
            table.add_row([
                output::clip(unit, 40),
                assignment.variant.clone(),
                wire::short(assignment.reason().as_str_name(), "ASSIGNMENT_REASON_"),
                format!("{}:{}", assignment.layer, assignment.layer_epoch),
                output::count(assignment.bucket),
                assignment.experiment.clone(),
                assignment.arm.clone(),
                output::count(assignment.grid),
                format!("{:.3}", assignment.probability),
            ]);
        }
        output.table(&table);
    });
    Ok(Exit::Done)
}
