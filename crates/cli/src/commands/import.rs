//! `refrain import`: factors from another trainer become a model.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Context as _;
use refrain_als::Hyper;
use refrain_builder::import::{self, FactorFiles, Import};
use serde_json::json;

use super::train;
use crate::failure::{Exit, Failure};
use crate::ingest::{self, ReadArgs};
use crate::output::{self, Output};

/// Make a model of factors that another trainer learned
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  refrain import --spark als-model/ --out model/
  refrain import --item-factors items.npy --item-ids items.txt --user-factors users.npy --out model/
  refrain import --item-factors items.parquet --listens plays.csv.gz --items tracks.csv --out model/

Read are .npy and .fvecs (ids one a line), Parquet files or directories of them with a column of ids and
a column of vectors, and what Spark MLlib's ALSModel.save wrote. For Parquet with numbers, --item-ids is
a file of `number,id` lines. The hyper-parameters are those of the trainer that made the factors: fold-in
solves listeners' vectors by them. Spark's implicit ALS is --unobserved-weight 1, its alpha, and a
regularisation that it scales by the number of observations, which a constant can only come near to.")]
pub(crate) struct Args {
    /// A directory that Spark MLlib's ALSModel.save wrote
    #[arg(long, value_name = "DIR", conflicts_with_all = ["item_factors", "user_factors"],
          required_unless_present = "item_factors")]
    spark: Option<PathBuf>,
    /// Factors of the items
    #[arg(long, value_name = "FILE")]
    item_factors: Option<PathBuf>,
    /// Ids of the items
    #[arg(long, value_name = "FILE")]
    item_ids: Option<PathBuf>,
    /// Factors of the users
    #[arg(long, value_name = "FILE")]
    user_factors: Option<PathBuf>,
    /// Ids of the users
    #[arg(long, value_name = "FILE")]
    user_ids: Option<PathBuf>,
    /// Files of listens, to count popularity from
    #[arg(long, value_name = "FILE", num_args = 1..)]
    listens: Vec<PathBuf>,
    /// Files that say more about items: title, artist, tags, release time
    #[arg(long, value_name = "FILE", num_args = 1..)]
    items: Vec<PathBuf>,
    /// As --map, for the files of --items: a column by name or position; repeat
    #[arg(long, value_name = "FIELD=COLUMN", requires = "items")]
    map_items: Vec<String>,
    /// Directory for the model; must not exist
    #[arg(long, value_name = "MODEL")]
    out: PathBuf,
    /// Confidence in a listen
    #[arg(long, value_name = "X", default_value_t = Hyper::default().alpha)]
    alpha: f32,
    /// Weight of every pair, listened to or not
    #[arg(long, value_name = "X", default_value_t = Hyper::default().unobserved_weight)]
    unobserved_weight: f32,
    /// Regularisation
    #[arg(long, value_name = "X", default_value_t = Hyper::default().regularization)]
    regularization: f32,
    /// How regularisation grows with the number of observations, 0 to 2
    #[arg(long, value_name = "X", default_value_t = Hyper::default().frequency_exponent)]
    frequency_exponent: f32,
    #[command(flatten)]
    read: ReadArgs,
}

/// Runs `refrain import`.
pub(crate) fn run(args: &Args, output: &Output) -> anyhow::Result<Exit> {
    let started = Instant::now();
    train::refuse_existing(&args.out)?;
    let cannot = || Failure::new("cannot import the factors");
    let (items, users) = match (&args.spark, &args.item_factors) {
        (Some(dir), _) => {
            let (items, users) = import::spark(dir).with_context(cannot)?;
            (items, Some(users))
        }
        (None, Some(items)) => (items.clone(), args.user_factors.clone()),
        (None, None) => return Err(Failure::usage("give --spark or --item-factors").error()),
    };
    let log = if args.listens.is_empty() {
        None
    } else {
        Some(ingest::listens(
            &args.listens,
            &args.read.options()?,
            output,
        )?)
    };
    let attributes = ingest::items(
        &args.items,
        &args.read.items_options(&args.map_items)?,
        output,
    )?;
    let model = {
        let _progress = output.progress("read factors");
        import::import(&Import {
            items: FactorFiles {
                factors: items,
                ids: args.item_ids.clone(),
            },
            users: users.map(|factors| FactorFiles {
                factors,
                ids: args.user_ids.clone(),
            }),
            listens: log.as_ref(),
            attributes: &attributes,
            hyper: Hyper {
                alpha: args.alpha,
                unobserved_weight: args.unobserved_weight,
                regularization: args.regularization,
                frequency_exponent: args.frequency_exponent,
                ..Hyper::default()
            },
            command: train::command_line(),
        })
        .with_context(cannot)?
    };
    model.save(&args.out)?;
    let document = json!({
        "model_dir": args.out,
        "rank": model.info.rank,
        "counts": model.info.counts,
        "hyper": model.info.hyper,
        "seconds": started.elapsed().as_secs_f64(),
    });
    output.result(&document, |output| {
        output.line(format_args!(
            "model of {} items and {} users of rank {} in {}, in {}",
            output::count(model.items.len() as u64),
            output::count(model.users.len() as u64),
            model.info.rank,
            args.out.display(),
            output::duration(started.elapsed())
        ));
        output.line(format_args!(
            "next: refrain build --model {} --out BUNDLE",
            args.out.display()
        ));
    });
    Ok(Exit::Done)
}
