//! `refrain plan`: what an index will take and find, before it is built.

use std::path::PathBuf;
use std::time::Duration;

use refrain_builder::build::VectorSet;
use refrain_builder::model::Model;
use refrain_builder::plan::{self, Plan};
use refrain_index::BuildParams;
use refrain_kernels::Metric;
use serde_json::json;

use super::train;
use crate::failure::{Exit, Failure};
use crate::output::{self, Column, Output};

/// Say what an index will take and find, before it is built
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  refrain plan --items 10000000 --dim 64
  refrain plan --model model/
  refrain plan --vectors embeddings.npy --metric cosine --m 24

Bytes follow from the layout. Time and recall are measured on two samples of the vectors and drawn on to
the whole; without vectors they are not told.")]
pub(crate) struct Args {
    /// Model that `refrain train` made
    #[arg(long, value_name = "MODEL", conflicts_with_all = ["vectors", "items", "dim"])]
    model: Option<PathBuf>,
    /// Vectors: .npy or .fvecs
    #[arg(long, value_name = "FILE", conflicts_with_all = ["items", "dim"])]
    vectors: Option<PathBuf>,
    /// Number of items
    #[arg(long, value_name = "N", requires = "dim", required_unless_present_any = ["model", "vectors"])]
    items: Option<u32>,
    /// Values of a vector
    #[arg(long, value_name = "N", requires = "items",
          value_parser = clap::value_parser!(u32).range(1..=32_768))]
    dim: Option<u32>,
    /// What makes two vectors close: ip, cosine or l2
    #[arg(long, value_name = "METRIC", default_value = "ip")]
    metric: Metric,
    /// Links of a node
    #[arg(long, value_name = "N", default_value_t = 16,
          value_parser = clap::value_parser!(u16).range(2..=256))]
    m: u16,
    /// Pool size while building [default: 80; by ip 40 to 80, as suits the number of items]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    ef_construction: Option<u32>,
    /// Threads [default: one a core]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
}

/// Runs `refrain plan`.
pub(crate) fn run(args: &Args, output: &Output) -> anyhow::Result<Exit> {
    let params = BuildParams {
        metric: args.metric,
        m: args.m.into(),
        ef_construction: args.ef_construction.map(|width| width as usize),
        threads: train::threads(args.threads),
        ..BuildParams::default()
    };
    let measured = |vectors: &[f32], askers: &[f32], dim| -> anyhow::Result<Plan> {
        let bar = output.progress("build samples");
        let step = |done: usize, total: usize| bar.set(done as u64, total as u64);
        Ok(plan::by_samples(vectors, askers, dim, &params, &step)?)
    };
    let plan = match (&args.model, &args.vectors) {
        (Some(dir), _) => {
            let model = Model::load(dir).map_err(|error| {
                let what = Failure::new(format!("cannot load the model {}", dir.display()))
                    .next("give a directory that `refrain train` made");
                anyhow::Error::new(error).context(what)
            })?;
            measured(&model.item_factors, &model.user_factors, model.info.rank)?
        }
        (None, Some(file)) => {
            let set = VectorSet::read(file, None).map_err(|error| {
                anyhow::Error::new(error).context(Failure::new("cannot read the vectors"))
            })?;
            measured(&set.values, &set.values, set.dim)?
        }
        (None, None) => {
            let (items, dim) = (args.items.unwrap_or(0), args.dim.unwrap_or(1));
            plan::by_size(items as usize, dim as usize, &params)
        }
    };
    output.result(
        &json!({ "plan": plan, "threads": params.threads }),
        |output| {
            print(&plan, output);
        },
    );
    Ok(Exit::Done)
}

fn print(plan: &Plan, output: &Output) {
    output.line(format_args!(
        "{} x {}: index of {}, {:.0} bytes an item",
        output::count(plan.items as u64),
        plan.dim,
        output::bytes(plan.index_bytes),
        plan.bytes_per_item
    ));
    if let Some(seconds) = plan.build_seconds {
        let samples: Vec<String> = plan
            .samples
            .iter()
            .map(|items| output::count(*items as u64))
            .collect();
        output.line(format_args!(
            "build: about {} on this machine, by samples of {} items",
            output::duration(Duration::from_secs_f64(seconds)),
            samples.join(" and ")
        ));
        let mut table = output::table(&[
            Column::Number("ef_search"),
            Column::Number("recall@10, expected"),
        ]);
        for point in &plan.recall {
            table.add_row([
                point.ef_search.to_string(),
                format!("{:.3}", point.recall_at_10),
            ]);
        }
        output.table(&table);
    }
    let mut table = output::table(&[
        Column::Number("may come back"),
        Column::Text("given by"),
        Column::Text("a search"),
    ]);
    for filtered in &plan.strategies {
        table.add_row([
            format!("{} %", filtered.allowed * 100.0),
            match (filtered.listed, filtered.allowed < 1.0) {
                (true, _) => "an allow-list",
                (false, true) => "what is excluded",
                (false, false) => "no filter",
            }
            .to_owned(),
            match filtered.walk {
                true => "walks the graph",
                false => "scores all that is allowed",
            }
            .to_owned(),
        ]);
    }
    output.table(&table);
}
