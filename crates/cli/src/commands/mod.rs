//! The commands, one module each.

mod batch;
mod bench;
mod build;
mod cluster;
mod compare;
mod demo;
mod evaluate;
mod exclude;
mod experiment;
mod explain;
mod freshen;
mod gc;
mod generate;
mod health;
mod import;
mod plan;
mod profile;
mod recommend;
mod serve;
mod store;
mod train;
mod tune;
mod verify;

use crate::failure::Exit;
use crate::output::Output;

/// What can be asked for.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    Demo(demo::Args),
    Generate(generate::Args),
    Train(train::Args),
    Tune(tune::Args),
    Import(import::Args),
    Plan(plan::Args),
    Build(build::Args),
    Evaluate(evaluate::Args),
    Cluster(cluster::Args),
    Verify(verify::VerifyArgs),
    Inspect(verify::InspectArgs),
    Publish(store::PublishArgs),
    Versions(store::VersionsArgs),
    Promote(store::PromoteArgs),
    Rollback(store::RollbackArgs),
    Freshen(freshen::Args),
    Gc(gc::Args),
    Serve(serve::Args),
    Config(serve::ConfigArgs),
    Health(health::Args),
    Recommend(recommend::RecommendArgs),
    Similar(recommend::SimilarArgs),
    Exclude(exclude::Args),
    Explain(explain::Args),
    Profile(profile::Args),
    Compare(compare::Args),
    Experiment(experiment::Args),
    Batch(batch::Args),
    Bench(bench::Args),
}

impl Command {
    /// Does it.
    pub(crate) fn run(&self, output: &Output) -> anyhow::Result<Exit> {
        match self {
            Self::Demo(args) => demo::run(args, output),
            Self::Generate(args) => generate::run(args, output),
            Self::Train(args) => train::run(args, output),
            Self::Tune(args) => tune::run(args, output),
            Self::Import(args) => import::run(args, output),
            Self::Plan(args) => plan::run(args, output),
            Self::Build(args) => build::run(args, output),
            Self::Evaluate(args) => evaluate::run(args, output),
            Self::Cluster(args) => cluster::run(args, output),
            Self::Verify(args) => verify::verify(args, output),
            Self::Inspect(args) => verify::inspect(args, output),
            Self::Publish(args) => store::publish(args, output),
            Self::Versions(args) => store::versions(args, output),
            Self::Promote(args) => store::promote(args, output),
            Self::Rollback(args) => store::rollback(args, output),
            Self::Freshen(args) => freshen::run(args, output),
            Self::Gc(args) => gc::run(args, output),
            Self::Serve(args) => serve::run(args, output),
            Self::Config(args) => serve::print_config(args, output),
            Self::Health(args) => health::run(args, output),
            Self::Recommend(args) => recommend::recommend(args, output),
            Self::Similar(args) => recommend::similar(args, output),
            Self::Exclude(args) => exclude::run(args, output),
            Self::Explain(args) => explain::run(args, output),
            Self::Profile(args) => profile::run(args, output),
            Self::Compare(args) => compare::run(args, output),
            Self::Experiment(args) => experiment::run(args, output),
            Self::Batch(args) => batch::run(args, output),
            Self::Bench(args) => bench::run(args, output),
        }
    }
}
