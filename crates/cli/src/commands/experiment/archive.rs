//! `refrain experiment archive`: what was decided, and what was known then.

use std::path::PathBuf;

use refrain_analysis::archive::{self, Effect, Entry};
use serde_json::json;

use super::analyze;
use crate::failure::{Exit, Failure};
use crate::output::Output;

/// Write a decision into the archive of experiments
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The archive is a file of JSON lines, each with a checksum of the line before: an edit shows. A decision
against the recommendation needs a reason.

Changes of offline metrics (treatment against control, from `refrain evaluate`) let
`refrain experiment offline-online` tell how well they foretell experiments. Where there are several
treatments, say which: --offline ARM:NAME=CHANGE.

Examples:
  refrain experiment archive blend.json --to archive.jsonl --decision ship --by maria --offline ndcg=0.004,0.001
  refrain experiment archive blend.json --to archive.jsonl --decision keep --by maria --reason \"too slow on old phones\"")]
pub(crate) struct Args {
    /// The analysis, as `experiment analyze --json` printed it
    #[arg(value_name = "ANALYSIS")]
    analysis: PathBuf,
    /// The archive; made if it is not there
    #[arg(long, value_name = "FILE")]
    to: PathBuf,
    /// What the owner decided
    #[arg(long, value_enum)]
    decision: Decision,
    /// Who decided
    #[arg(long, value_name = "NAME")]
    by: String,
    /// Why
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
    /// Change of an offline metric, such as ndcg=0.004, with its standard error if known; repeat
    #[arg(long, value_name = "NAME=CHANGE[,SE]", value_parser = offline)]
    offline: Vec<Change>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Decision {
    /// Ship the treatment
    Ship,
    /// Keep the control
    Keep,
    /// Stopped because of harm
    Stop,
    /// Run it again: nothing can be concluded
    Repeat,
}

impl Decision {
    fn name(self) -> &'static str {
        match self {
            Self::Ship => "ship",
            Self::Keep => "keep",
            Self::Stop => "stop",
            Self::Repeat => "repeat",
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
struct Change {
    name: String,
    change: f64,
    se: Option<f64>,
}

fn offline(text: &str) -> Result<Change, String> {
    let (name, numbers) = text
        .split_once('=')
        .ok_or("NAME=CHANGE, such as ndcg=0.004")?;
    let number = |text: &str| {
        let parsed: Result<f64, _> = text.trim().parse();
        parsed
            .ok()
            .filter(|number| number.is_finite())
            .ok_or_else(|| format!("`{text}` is no finite number"))
    };
    let (change, se) = match numbers.split_once(',') {
        Some((change, se)) => (number(change)?, Some(number(se)?)),
        None => (number(numbers)?, None),
    };
    if name.trim().is_empty() {
        return Err("the name before `=` is empty".to_owned());
    }
    if se.is_some_and(|se| se <= 0.0) {
        return Err("a standard error is above 0".to_owned());
    }
    Ok(Change {
        name: name.trim().to_owned(),
        change,
        se,
    })
}

/// Runs `refrain experiment archive`.
pub(crate) fn run(args: &Args, output: &Output) -> anyhow::Result<Exit> {
    let text =
        fs_err::read_to_string(&args.analysis).map_err(|error| analyze::bad_input(error.into()))?;
    let analysis: serde_json::Value = serde_json::from_str(&text).map_err(|error| {
        Failure::usage(format!("{} is no analysis", args.analysis.display()))
            .next("give what `refrain experiment analyze --json` printed")
            .because(error.to_string())
    })?;
    let entry = entry(args, &analysis)?;
    let before = if args.to.exists() {
        fs_err::read_to_string(&args.to).map_err(|error| analyze::bad_input(error.into()))?
    } else {
        String::new()
    };
    let after = archive::append(&before, entry.clone()).map_err(|error| {
        Failure::usage(format!(
            "the decision is not archived in {}",
            args.to.display()
        ))
        .next("give --reason, or restore the archive from a backup if its chain is broken")
        .because(error.to_string())
    })?;
    analyze::write(&args.to, after.as_bytes())?;
    let lines = after.lines().count();
    output.result(
        &json!({ "archive": args.to, "line": lines, "entry": entry }),
        |output| {
            output.line(format_args!(
                "{} of {} ({}): archived as line {lines} of {}",
                entry.decision,
                entry.experiment,
                entry.recommendation,
                args.to.display()
            ));
        },
    );
    Ok(Exit::Done)
}

fn entry(args: &Args, analysis: &serde_json::Value) -> anyhow::Result<Entry> {
    let schema = analysis["schema"].as_str().unwrap_or_default();
    if schema != refrain_analysis::verdict::document::SCHEMA {
        return Err(Failure::usage(format!(
            "{} is no analysis of this version",
            args.analysis.display()
        ))
        .next("give what `refrain experiment analyze --json` printed")
        .error());
    }
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let mut effects = Vec::new();
    for metric in analysis["metrics"].as_array().into_iter().flatten() {
        for comparison in metric["comparisons"].as_array().into_iter().flatten() {
            if let (Some(delta), Some(se)) =
                (comparison["delta"].as_f64(), comparison["se"].as_f64())
            {
                effects.push(Effect {
                    metric: text(&metric["name"]),
                    arm: text(&comparison["arm"]),
                    delta,
                    se,
                    relative: comparison["relative"]["lift"].as_f64(),
                });
            }
        }
    }
    Ok(Entry {
        experiment: text(&analysis["plan"]["experiment"]),
        epoch: analysis["plan"]["epoch"]
            .as_u64()
            .and_then(|epoch| u32::try_from(epoch).ok())
            .unwrap_or(0),
        plan: text(&analysis["plan"]["digest"]),
        cutoff: text(&analysis["observed"]["cutoff"]),
        recommendation: text(&analysis["verdict"]["recommendation"]),
        decision: args.decision.name().to_owned(),
        by: args.by.clone(),
        reason: args.reason.clone(),
        at: jiff::Timestamp::now()
            .strftime("%Y-%m-%d %H:%M:%S UTC")
            .to_string(),
        effects,
        offline: args
            .offline
            .iter()
            .map(|o| (o.name.clone(), o.change))
            .collect(),
        offline_se: args
            .offline
            .iter()
            .filter_map(|o| o.se.map(|se| (o.name.clone(), se)))
            .collect(),
        previous: String::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offline_changes_are_read_or_refused() {
        let change = |name: &str, change: f64, se: Option<f64>| {
            Ok(Change {
                name: name.to_owned(),
                change,
                se,
            })
        };
        assert_eq!(offline("ndcg@10=0.004"), change("ndcg@10", 0.004, None));
        assert_eq!(
            offline("b:ndcg=-0.004, 0.001"),
            change("b:ndcg", -0.004, Some(0.001))
        );
        for wrong in [
            "ndcg",
            "=1",
            "ndcg=",
            "ndcg=nan",
            "ndcg=1,",
            "ndcg=1,0",
            "ndcg=1,-1",
        ] {
            assert!(offline(wrong).is_err(), "{wrong}");
        }
    }
}
