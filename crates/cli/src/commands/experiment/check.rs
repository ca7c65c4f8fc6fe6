//! `refrain experiment check`: do the variants, layers and experiments of a configuration hold?

use refrain_experiments::{Finding, Journal, Kind, preflight_all};
use refrain_server::{Config, ConfigError};
use serde_json::{Value, json};

use super::{CheckArgs, change};
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
    let journal = match config.journal() {
        Some(file) => Some(change::verified(&file)?),
        None => None,
    };
    let findings = preflight_all(&config.experiments);
    let document = json!({
        "file": args.file,
        "ok": findings.is_empty(),
        "findings": findings.iter().map(|finding| json!({
            "code": finding.code,
            "place": finding.place,
            "problem": finding.problem,
        })).collect::<Vec<_>>(),
        "layers": layers(&config, journal.as_ref()),
        "journal": journal.as_ref().map(|journal| json!({
            "digest": journal.digest(),
            "entries": journal.entries().len(),
            "experiments": change::holdings(&config, journal),
        })),
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
            "layer": surface.layer.0.join(", "),
            "variant": surface.variant,
        })).collect::<Vec<_>>(),
        "experiments": experiments(&config),
    });
    output.result(&document, |output| {
        print(&config, args, journal.as_ref(), &findings, output);
    });
    Ok(if findings.is_empty() {
        Exit::Done
    } else {
        Exit::Refused
    })
}

/// The allocation budget of every layer.
fn layers(config: &Config, journal: Option<&Journal>) -> Vec<Value> {
    let now = jiff::Timestamp::now();
    let layer = |(name, layer): (&String, &refrain_experiments::LayerConfig)| {
        let (held, cooling) = budget(config, journal, name, now);
        json!({
            "name": name,
            "epoch": layer.epoch,
            "held_bp": held,
            "cooling_bp": cooling,
            "free_bp": 10_000_u32.saturating_sub(held + cooling),
        })
    };
    config.experiments.layer.iter().map(layer).collect()
}

/// What is held of a layer, and what rests, in basis points.
fn budget(
    config: &Config,
    journal: Option<&Journal>,
    layer: &str,
    now: jiff::Timestamp,
) -> (u32, u32) {
    if let Some(journal) = journal {
        let (free, cooling) = (
            journal.ledger().free_bp(layer, now),
            journal.ledger().cooling_bp(layer, now),
        );
        return (10_000_u32.saturating_sub(free + cooling), cooling);
    }
    let all = config.experiments.experiment.0.iter();
    let held = all
        .filter(|(_, e)| e.layer == layer && e.kind != Kind::Shadow)
        .map(|(_, e)| e.allocation_bp)
        .sum();
    (held, 0)
}

fn experiments(config: &Config) -> Vec<Value> {
    let document = |(name, experiment): &(String, refrain_experiments::ExperimentConfig)| {
        json!({
            "name": name,
            "kind": experiment.kind.as_str(),
            "layer": experiment.layer,
            "epoch": experiment.epoch,
            "allocation_bp": experiment.allocation_bp,
            "admitted_units": experiment.admitted.as_ref().and_then(|admitted| Some(admitted.units.as_ref()?.len())),
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

fn print(
    config: &Config,
    args: &CheckArgs,
    journal: Option<&Journal>,
    findings: &[Finding],
    output: &Output,
) {
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
            .map(|arm| {
                let variant = arm.variant.as_deref().unwrap_or("-");
                format!("{} = {variant} ({})", arm.name, arm.weight)
            })
            .collect();
        table.add_row([
            format!("{name}:{}", experiment.epoch),
            experiment.kind.to_string(),
            experiment.layer.clone(),
            traffic(name, experiment.allocation_bp, journal),
            arms.join(", "),
        ]);
    }
    output.table(&table);
    let now = jiff::Timestamp::now();
    for layer in config.experiments.layer.keys() {
        let (held, cooling) = budget(config, journal, layer, now);
        output.line(format_args!(
            "layer {layer}: {held} of 10000 basis points held, {cooling} cool down, {} free",
            10_000_u32.saturating_sub(held + cooling)
        ));
    }
    for finding in findings {
        output.line(format_args!(
            "not ready: {} [{}]",
            change::line(finding),
            finding.code
        ));
    }
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

/// The share in force, and what the file says where that differs.
fn traffic(name: &str, declared_bp: u32, journal: Option<&Journal>) -> String {
    let percent = |bp: u32| format!("{:.2} %", f64::from(bp) / 100.0);
    let Some(journal) = journal else {
        return percent(declared_bp);
    };
    let holding = journal.ledger().holding(name);
    match holding.map(refrain_experiments::Holding::share_bp) {
        None => format!("not allocated, {} declared", percent(declared_bp)),
        Some(held) if held == declared_bp => percent(held),
        Some(held) => format!("{}, {} declared", percent(held), percent(declared_bp)),
    }
}
