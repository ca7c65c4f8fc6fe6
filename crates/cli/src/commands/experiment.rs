//! `refrain experiment`: declare, check, start, ramp, stop, ask who gets what, and read what was found.

use std::path::PathBuf;

use refrain::v1 as pb;
use refrain::v1::experiment_service_client::ExperimentServiceClient;

use crate::client::{Client, Connection};
use crate::failure::Exit;
use crate::output::{self, Column, Output};
use crate::wire;

pub(crate) mod analyze;
mod archive;
mod change;
mod check;
mod did;
mod edit;
mod offline_online;
mod plan;
mod post_mortem;
mod readout;
mod report;
mod simulate;
mod sql;
mod units;

/// Experiments: check, allocate, ramp, stop, who gets what, and verdicts
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  refrain experiment check refrain.toml
  refrain experiment allocate refrain.toml rank-blend
  refrain experiment ramp refrain.toml rank-blend --to 2000
  refrain experiment stop refrain.toml rank-blend --reason 'shipped'
  refrain experiment journal refrain.toml
  refrain experiment list
  refrain experiment assign alice --surface home
  refrain experiment plan --config refrain.toml --baseline minutes_week2=41.2,96
  refrain experiment analyze --config refrain.toml --log log/ --looks blend.looks.json
  refrain experiment report --config refrain.toml --log log/ --out blend.html

Environment: REFRAIN_ADDR")]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    Check(CheckArgs),
    Allocate(change::AllocateArgs),
    Ramp(change::RampArgs),
    Stop(change::StopArgs),
    Journal(change::JournalArgs),
    PostMortem(post_mortem::Args),
    List(ListArgs),
    Assign(AssignArgs),
    Plan(plan::Args),
    Analyze(analyze::Args),
    Report(report::Args),
    Readout(readout::Args),
    Archive(archive::Args),
    Did(did::Args),
    OfflineOnline(offline_online::Args),
    Sql(sql::Args),
    Simulate(simulate::Args),
    Units(units::Args),
}

/// The experiments that a server has in force, and what is free of each layer
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  refrain experiment list
  refrain experiment list --layer ranking --json")]
struct ListArgs {
    /// Only those of this layer
    #[arg(long, value_name = "NAME", default_value = "")]
    layer: String,
    #[command(flatten)]
    connection: Connection,
}

/// Which variant a unit gets on a surface, and why; counts as no exposure
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  refrain experiment assign alice
  refrain experiment assign alice bob carol --surface home --json
  refrain experiment assign alice --attribute country=SE")]
struct AssignArgs {
    /// The units that are randomised: listeners
    #[arg(value_name = "UNIT", required = true)]
    units: Vec<String>,
    /// Where the recommendations are shown; selects the layer
    #[arg(long, value_name = "NAME", default_value = "")]
    surface: String,
    /// What the request says of itself, for targeting; repeat
    #[arg(long, value_name = "NAME=VALUE", value_parser = attribute)]
    attribute: Vec<(String, String)>,
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
        Action::List(args) => list(args, output),
        Action::Assign(args) => assign(args, output),
        Action::Check(args) => check::run(args, output),
        Action::Allocate(args) => change::allocate(args, output),
        Action::Ramp(args) => change::ramp(args, output),
        Action::Stop(args) => change::stop(args, output),
        Action::Journal(args) => change::journal(args, output),
        Action::PostMortem(args) => post_mortem::run(args, output),
        Action::Plan(args) => plan::run(args, output),
        Action::Analyze(args) => analyze::run(args, output),
        Action::Report(args) => report::run(args, output),
        Action::Readout(args) => readout::run(args, output),
        Action::Archive(args) => archive::run(args, output),
        Action::Did(args) => did::run(args, output),
        Action::OfflineOnline(args) => offline_online::run(args, output),
        Action::Sql(args) => sql::run(args, output),
        Action::Simulate(args) => simulate::run(args, output),
        Action::Units(args) => units::run(args, output),
    }
}

fn attribute(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("is not NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

fn list(args: &ListArgs, output: &Output) -> anyhow::Result<Exit> {
    let answer = args.connection.run(async |client: Client| {
        let mut service = ExperimentServiceClient::new(client.channel.clone());
        let layer = args.layer.clone();
        let request = client.request(pb::ListExperimentsRequest { layer });
        client.answer("list", service.list_experiments(request).await)
    })?;
    output.result(&wire::experiments(&answer), |output| {
        let mut table = output::table(&[
            Column::Text("experiment"),
            Column::Text("kind"),
            Column::Text("layer"),
            Column::Number("epoch"),
            Column::Number("share"),
            Column::Text("arms"),
            Column::Text(""),
        ]);
        let percent = |basis_points: u32| format!("{:.2} %", f64::from(basis_points) / 100.0);
        for one in &answer.experiments {
            let arms = one.arms.iter();
            let arms = arms.map(|arm| format!("{} {:.0} %", arm.name, arm.probability * 100.0));
            let closed = one.admitted_units;
            let closed = closed.map(|units| format!("closed: {} go on", output::count(units)));
            let notes = [(one.paused, "paused"), (one.targeted, "targeted")];
            let notes = notes.iter().filter(|(is, _)| *is);
            let notes = notes.map(|(_, note)| (*note).to_owned()).chain(closed);
            table.add_row([
                one.name.clone(),
                one.kind.clone(),
                one.layer.clone(),
                one.epoch.to_string(),
                percent(one.allocation_bp),
                arms.collect::<Vec<_>>().join(", "),
                notes.collect::<Vec<_>>().join(", "),
            ]);
        }
        output.table(&table);
        for layer in &answer.layers {
            output.line(format_args!(
                "{} of layer {} (epoch {}) is free",
                percent(layer.free_bp),
                layer.name,
                layer.epoch
            ));
        }
        if !answer.enabled {
            output.line(format_args!(
                "nobody is assigned: [assignment] enabled is false"
            ));
        }
    });
    Ok(Exit::Done)
}

fn assign(args: &AssignArgs, output: &Output) -> anyhow::Result<Exit> {
    let answers = args.connection.run(async |client: Client| {
        let mut service = ExperimentServiceClient::new(client.channel.clone());
        let mut answers = Vec::with_capacity(args.units.len());
        for unit in &args.units {
            let request = pb::AssignRequest {
                unit_id: unit.clone(),
                surface: args.surface.clone(),
                attributes: args.attribute.iter().cloned().collect(),
            };
            let answer = service.assign(client.request(request)).await;
            answers.push(client.answer("assign", answer)?);
        }
        Ok(answers)
    })?;
    let named = || args.units.iter().zip(&answers);
    let documents: Vec<_> = named()
        .flat_map(|(unit, answer)| {
            let all = wire::assignments(answer);
            all.map(move |one| wire::assignment(unit, &args.surface, one, answer))
        })
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
        let all = named().flat_map(|(unit, answer)| {
            let all = wire::assignments(answer);
            all.map(move |assignment| (unit, assignment))
        });
        for (unit, assignment) in all {
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
