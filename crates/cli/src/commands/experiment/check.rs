//! `refrain experiment check`: do the variants, layers and experiments of a configuration hold?

use refrain_server::{Config, ConfigError};
use serde_json::{Value, json};

use super::CheckArgs;
use crate::failure::{Exit, Failure};
use crate::output::{self, Column, Output};

/// Runs `refrain experiment check`.
pub(super) fn run(args: &CheckArgs, output: &Output) -> anyhow::Result<Exit> {
    let config = Config::load(&args.file).map_err(|error| {
        let what = format!("{} does not hold", args.file.display());
        let failure = match &error {
            ConfigError::Read { .. } => Failure::new("cannot read the configuration"),
            _ => Failure::refused(what).next("`refrain config` prints one that does"),
        };
        anyhow::Error::new(error).context(failure)
    })?;
    let document = json!({
        "file": args.file,
        "ok": true,
        "variants": config.variants.iter().map(|variant| json!({
            "name": variant.name,
            "labels": variant.labels,
            "candidates": variant.candidates,
            "score": variant.score.to_string(),
            "max_per_artist": variant.caps.artist,
            "max_per_scene": variant.caps.scene,
            "mmr_lambda": variant.mmr.map(|mmr| mmr.lambda),
            "temperature": variant.exploration.map(|exploration| exploration.temperature),
        })).collect::<Vec<_>>(),
        "surfaces": config.experiments.surface.iter().map(|(name, surface)| json!({
            "name": name,
            "layer": surface.layer,
            "variant": surface.variant,
        })).collect::<Vec<_>>(),
        "experiments": experiments(&config),
    });
    output.result(&document, |output| print(&config, args, output));
    Ok(Exit::Done)
}

fn experiments(config: &Config) -> Vec<Value> {
    let document = |(name, experiment): &(String, refrain_experiments::ExperimentConfig)| {
        json!({
            "name": name,
            "kind": experiment.kind,
            "layer": experiment.layer,
            "epoch": experiment.epoch,
            "allocation_bp": experiment.allocation_bp,
            "arms": experiment.arms.iter().map(|arm| json!({
                "name": arm.name,
                "weight": arm.weight,
                "variant": arm.variant,
            })).collect::<Vec<_>>(),
        })
    };
    config
        .experiments
        .experiment
        .0
        .iter()
        .map(document)
        .collect()
}

fn print(config: &Config, args: &CheckArgs, output: &Output) {
    let mut table = output::table(&[
        Column::Text("experiment"),
        Column::Text("kind"),
        Column::Text("layer"),
        Column::Number("traffic"),
        Column::Text("arms"),
    ]);
    for (name, experiment) in &config.experiments.experiment.0 {
        let arms: Vec<String> = experiment
            .arms
            .iter()
            .map(|arm| format!("{} = {} ({})", arm.name, arm.variant, arm.weight))
            .collect();
        table.add_row([
            format!("{name}:{}", experiment.epoch),
            experiment.kind.clone(),
            experiment.layer.clone(),
            format!("{:.2} %", f64::from(experiment.allocation_bp) / 100.0),
            arms.join(", "),
        ]);
    }
    output.table(&table);
    let names: Vec<&str> = config
        .variants
        .iter()
        .map(|variant| variant.name.as_str())
        .collect();
    output.line(format_args!(
        "{} holds: {} variants ({}), {} surfaces, {} experiments",
        args.file.display(),
        names.len(),
        names.join(", "),
        config.experiments.surface.len(),
        config.experiments.experiment.0.len()
    ));
}
