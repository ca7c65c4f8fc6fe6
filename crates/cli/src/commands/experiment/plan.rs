//! `refrain experiment plan`: how many units, for how long, and how small an effect.

use std::collections::BTreeMap;
use std::path::PathBuf;

use refrain_analysis::sizing::{self, Baseline, Question, Size, Traffic};
use refrain_analysis::{Plan, report};

use super::analyze;
use crate::failure::{Exit, Failure};
use crate::output::{self, Column, Output};

/// How many units an experiment needs, how long that takes, and how small an effect it will show
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Each metric that decides is planned at the level and power that the verdict will use; the experiment
needs as many units as its hungriest metric. The effect to detect is the metric's mde or mde_rel, for a
guardrail its margin or margin_rel.

What is known of the metrics comes from an analysis of earlier data with the same metrics (--from), or
from --baseline: the value without the treatment and the standard deviation of one listener (for a
proportion the share is enough).

Examples:
  refrain experiment plan --config refrain.toml --baseline minutes_week2=41.2,96 --baseline saved=0.18
  refrain experiment analyze --config last.toml --log log/ --json >last.json
  refrain experiment plan --config refrain.toml --from last.json --units-per-day 50000 --allocation 0.1 --out plan.html
  refrain experiment plan --config refrain.toml --from last.json --units-per-day 50000 --days 28

Exit codes: 0 done, 2 bad input, 3 the units needed do not come within --days.")]
pub(crate) struct Args {
    /// Configuration that declares the experiment; its design may lack max_units
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Name of the experiment; may be left out where the file has only one
    #[arg(long, value_name = "NAME")]
    experiment: Option<String>,
    /// Baselines from an analysis, as `experiment analyze --json` printed it
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
    /// A metric without the treatment: its value and the standard deviation of one unit; repeat
    #[arg(long, value_name = "METRIC=VALUE[,SD]", value_parser = baseline)]
    baseline: Vec<Given>,
    /// Share of a metric's variance that its covariate takes away, such as minutes_week2=0.4; repeat
    #[arg(long, value_name = "METRIC=SHARE", value_parser = saved)]
    variance_reduction: Vec<(String, f64)>,
    /// New units a day that reach the surface
    #[arg(long, value_name = "N")]
    units_per_day: Option<f64>,
    /// Share of the traffic that the experiment gets
    #[arg(long, value_name = "X", default_value_t = 1.0)]
    allocation: f64,
    /// Days that there are, the last window included; with fewer than needed, exit 3
    #[arg(long, value_name = "N", requires = "units_per_day")]
    days: Option<f64>,
    /// Looks that will be made, evenly spaced; a group-sequential design pays for them
    #[arg(long, value_name = "N", default_value_t = sizing::LOOKS)]
    looks: u32,
    /// Also write one self-contained HTML page with the curves
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

#[derive(Debug, Clone, PartialEq)]
struct Given {
    metric: String,
    value: f64,
    sd: Option<f64>,
}

fn baseline(text: &str) -> Result<Given, String> {
    let (metric, numbers) = text
        .rsplit_once('=')
        .ok_or("METRIC=VALUE,SD, such as minutes_week2=41.2,96")?;
    let (value, sd) = match numbers.split_once(',') {
        Some((value, sd)) => (number(value)?, Some(number(sd)?)),
        None => (number(numbers)?, None),
    };
    if sd.is_some_and(|sd| sd <= 0.0) {
        return Err("a standard deviation is above 0".to_owned());
    }
    Ok(Given {
        metric: metric.trim().to_owned(),
        value,
        sd,
    })
}

fn saved(text: &str) -> Result<(String, f64), String> {
    let (metric, share) = text
        .rsplit_once('=')
        .ok_or("METRIC=SHARE, such as minutes_week2=0.4")?;
    let share = number(share)?;
    if !(0.0..1.0).contains(&share) {
        return Err(format!("{share} is not from 0 to below 1"));
    }
    Ok((metric.trim().to_owned(), share))
}

fn number(text: &str) -> Result<f64, String> {
    let parsed: Result<f64, _> = text.trim().parse();
    parsed
        .ok()
        .filter(|number| number.is_finite())
        .ok_or_else(|| format!("`{text}` is no finite number"))
}

/// Runs `refrain experiment plan`.
pub(crate) fn run(args: &Args, output: &Output) -> anyhow::Result<Exit> {
    let text =
        fs_err::read_to_string(&args.config).map_err(|error| analyze::bad_input(error.into()))?;
    let plan = Plan::draft(&text, args.experiment.as_deref()).map_err(|error| {
        Failure::usage(format!(
            "{} declares no experiment that can be planned",
            args.config.display()
        ))
        .next("docs/analysis.md has a whole example")
        .because(error.to_string())
    })?;
    let question = Question {
        baselines: baselines(args, &plan)?,
        traffic: args.units_per_day.map(|units_per_day| Traffic {
            units_per_day,
            allocation: args.allocation,
        }),
        looks: args.looks,
    };
    let size = sizing::size(&plan, &question).map_err(|error| {
        Failure::usage("the experiment cannot be sized")
            .next("`refrain experiment plan --help` says where each number comes from")
            .because(error.to_string())
    })?;
    if let Some(path) = &args.out {
        analyze::write(path, report::size_html(&size, &command(args)).as_bytes())?;
        output.note(format_args!("page in {}", path.display()));
    }
    output.result(&size, |output| print(&size, output));
    let late = args
        .days
        .zip(size.duration)
        .filter(|(days, duration)| duration.days > *days);
    if let Some((days, duration)) = late {
        output.note(format_args!(
            "it takes {:.1} days and there are {days}: allocate more, accept a larger effect, add a covariate, or \
             narrow the listeners to those whom the change touches",
            duration.days
        ));
        return Ok(Exit::Refused);
    }
    Ok(Exit::Done)
}

fn baselines(args: &Args, plan: &Plan) -> anyhow::Result<BTreeMap<String, Baseline>> {
    let mut known = BTreeMap::new();
    if let Some(path) = &args.from {
        let text =
            fs_err::read_to_string(path).map_err(|error| analyze::bad_input(error.into()))?;
        let document: serde_json::Value = serde_json::from_str(&text).map_err(|error| {
            Failure::usage(format!("{} is no analysis", path.display()))
                .next("give what `refrain experiment analyze --json` printed")
                .because(error.to_string())
        })?;
        known = sizing::baselines(&document);
        if known.is_empty() {
            return Err(Failure::usage(format!("{} holds no values of metrics", path.display()))
                .next("give an analysis that shows effects; INVALID and fixed designs before their end hide them")
                .error());
        }
        // It may know more than this plan has.
        known.retain(|name, _| plan.metrics.iter().any(|metric| metric.name == *name));
    }
    for given in &args.baseline {
        let proportion = plan.metrics.iter().any(|metric| {
            metric.name == given.metric
                && matches!(metric.kind, refrain_analysis::plan::MetricType::Proportion)
        });
        let baseline = match given.sd {
            Some(sd) => Baseline {
                value: given.value,
                sd,
                variance_reduction: 0.0,
            },
            None if proportion => Baseline::share(given.value),
            None => {
                return Err(Failure::usage(format!(
                    "--baseline {}={} lacks the standard deviation of one unit",
                    given.metric, given.value
                ))
                .next(format!(
                    "--baseline {}={},SD; only a proportion does without",
                    given.metric, given.value
                ))
                .error());
            }
        };
        known.insert(given.metric.clone(), baseline);
    }
    for (metric, share) in &args.variance_reduction {
        let Some(baseline) = known.get_mut(metric) else {
            return Err(Failure::usage(format!(
                "--variance-reduction {metric}: there is no baseline of it"
            ))
            .next("give --baseline or --from")
            .error());
        };
        baseline.variance_reduction = *share;
    }
    Ok(known)
}

fn command(args: &Args) -> String {
    let mut command = format!("refrain experiment plan --config {}", args.config.display());
    let mut add = |text: String| {
        command.push(' ');
        command.push_str(&text);
    };
    if let Some(name) = &args.experiment {
        add(format!("--experiment {name}"));
    }
    if let Some(from) = &args.from {
        add(format!("--from {}", from.display()));
    }
    for given in &args.baseline {
        let sd = given.sd.map_or_else(String::new, |sd| format!(",{sd}"));
        add(format!("--baseline {}={}{sd}", given.metric, given.value));
    }
    for (metric, share) in &args.variance_reduction {
        add(format!("--variance-reduction {metric}={share}"));
    }
    if let Some(units) = args.units_per_day {
        add(format!(
            "--units-per-day {units} --allocation {}",
            args.allocation
        ));
    }
    if args.looks != sizing::LOOKS {
        add(format!("--looks {}", args.looks));
    }
    command
}

fn print(size: &Size, output: &Output) {
    let arms: Vec<String> = size
        .arms
        .iter()
        .map(|arm| format!("{} {}", arm.arm, output::count(arm.units)))
        .collect();
    output.line(format_args!(
        "{} units: {}; {} needs the most",
        output::count(size.units),
        arms.join(", "),
        size.hungriest
    ));
    if let Some(duration) = size.duration {
        output.line(format_args!(
            "{:.1} days until all have come, {:.1} until the last window is over",
            duration.intake_days, duration.days
        ));
    }
    let mut table = output::table(&[
        Column::Text("metric"),
        Column::Text("test"),
        Column::Number("baseline"),
        Column::Number("deviation"),
        Column::Number("to detect"),
        Column::Number("level"),
        Column::Number("power"),
        Column::Number("looks cost"),
        Column::Number("units"),
        Column::Number("sees"),
    ]);
    for metric in &size.metrics {
        table.add_row([
            output::clip(&metric.name, 32),
            metric.test.to_owned(),
            report::rounded(metric.baseline.value, metric.effect),
            report::rounded(metric.baseline.sd, metric.baseline.sd),
            report::rounded(metric.effect, metric.effect),
            format!("{:.4}", metric.alpha),
            format!("{:.4}", metric.power),
            format!("× {:.3}", metric.inflation),
            output::count(metric.units),
            report::rounded(metric.detectable, metric.effect),
        ]);
    }
    output.table(&table);
    for left in &size.left_out {
        output.line(format_args!("not sized: {} {}", left.metric, left.why));
    }
    output.line(format_args!("in the design: max_units = {}", size.units));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn baselines_are_read_or_refused() {
        let given = |metric: &str, value: f64, sd: Option<f64>| {
            Ok(Given {
                metric: metric.to_owned(),
                value,
                sd,
            })
        };
        assert_eq!(baseline("saved=0.18"), given("saved", 0.18, None));
        assert_eq!(baseline("m=41.2, 96"), given("m", 41.2, Some(96.0)));
        for wrong in ["m", "m=", "m=x", "m=1,", "m=1,0", "m=1,-2", "m=inf"] {
            assert!(baseline(wrong).is_err(), "{wrong}");
        }
        assert_eq!(saved("m=0.4"), Ok(("m".to_owned(), 0.4)));
        for wrong in ["m", "m=1", "m=-0.1", "m=nan"] {
            assert!(saved(wrong).is_err(), "{wrong}");
        }
    }
}
