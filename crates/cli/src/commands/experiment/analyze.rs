//! `refrain experiment analyze`: a log and a plan to a verdict.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use refrain_analysis::{Analysis, AnalyzeError, Look, Looks, Options, Plan};

use crate::failure::{Exit, Failure};
use crate::output::{self, Column, Output};

/// Analyse an experiment: the verdict with its reasons
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The plan is the [experiment.NAME] table of a TOML file: arms, design, metrics (docs/analysis.md).
The log is a folder with exposures/, outcomes/ and covariates/ in Parquet.

A group-sequential design pays for every look. --looks FILE remembers them; without it this is taken
for the only look there is.

Examples:
  refrain experiment analyze --config refrain.toml --log /var/log/refrain --looks blend.looks.json
  refrain experiment analyze --config refrain.toml --log log/ --report blend.html --json >blend.json
  refrain experiment analyze --config refrain.toml --units units.parquet
  refrain experiment analyze --config refrain.toml --log log/ --off-policy bolder.parquet

Exit codes: 0 done, 2 bad input, 3 a quality check failed (INVALID: no effect is shown), 4 harm.")]
pub(crate) struct Args {
    #[command(flatten)]
    pub(super) subject: Subject,
    /// Also write the report, one self-contained HTML page
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

/// What is analysed, and how it is read.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Subject {
    /// Configuration that declares the experiment
    #[arg(long, value_name = "FILE")]
    pub(super) config: PathBuf,
    /// Name of the experiment; may be left out where the file has only one
    #[arg(long, value_name = "NAME")]
    pub(super) experiment: Option<String>,
    /// Folder of the exposure and outcome log
    #[arg(long, value_name = "DIR", required_unless_present = "units")]
    pub(super) log: Option<PathBuf>,
    /// Table with one row a unit instead of a log, made by the statement of `experiment sql`
    #[arg(long, value_name = "FILE", conflicts_with = "log")]
    pub(super) units: Option<PathBuf>,
    /// Look as if it were this instant: rows at or after it are not read (RFC 3339 or a UTC date)
    #[arg(long, value_name = "TIME")]
    pub(super) until: Option<String>,
    /// File that remembers the looks at this experiment; this one is added
    #[arg(long, value_name = "FILE")]
    pub(super) looks: Option<PathBuf>,
    /// This is the last look, for a reason that does not come from the results: spend all that is left
    #[arg(long)]
    pub(super) last: bool,
    /// Also say what another policy would have earned with the log's drawn answers: a Parquet table of its
    /// probabilities (exposure_id, item, probability; docs/analysis.md)
    #[arg(long, value_name = "FILE", conflicts_with = "units")]
    off_policy: Option<PathBuf>,
    /// What becomes of outcomes and covariates that are no number
    #[arg(long, value_name = "HOW", value_enum, default_value_t = BadValues::Fail)]
    bad_values: BadValues,
    /// Threads [default: all]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// MiB of rows held in memory; more waits in temporary files
    #[arg(long, value_name = "MIB", default_value_t = 768)]
    memory: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum BadValues {
    Fail,
    Drop,
}

/// Runs `refrain experiment analyze`.
pub(crate) fn run(args: &Args, output: &Output) -> anyhow::Result<Exit> {
    let (analysis, _) = args.subject.look(output)?;
    if let Some(path) = &args.report {
        write(
            path,
            refrain_analysis::report::html(&analysis, &args.subject.command()).as_bytes(),
        )?;
        output.note(format_args!("report in {}", path.display()));
    }
    output.result(&analysis, |output| print(&analysis, output));
    Ok(exit(&analysis))
}

impl Subject {
    /// The plan.
    pub(super) fn plan(&self) -> anyhow::Result<Plan> {
        read_plan(&self.config, self.experiment.as_deref())
    }

    /// Analyses, and remembers the look.
    pub(super) fn look(&self, output: &Output) -> anyhow::Result<(Analysis, Look)> {
        let plan = self.plan()?;
        let mut looks = self.earlier(&plan)?;
        let mut options = Options {
            looks: Some(looks.clone()),
            last: self.last,
            off_policy: self.off_policy.clone(),
            ..Options::default()
        };
        options.read.drop_bad_values = self.bad_values == BadValues::Drop;
        options.read.memory_bytes = self.memory.saturating_mul(1 << 20);
        if let Some(threads) = self.threads {
            options.read.threads = threads.max(1);
        }
        options.now_us = Some(jiff::Timestamp::now().as_microsecond());
        options.read.until_us = self.until.as_deref().map(instant).transpose()?;
        let result = match (&self.units, &self.log) {
            (Some(units), _) => refrain_analysis::from_units(units, &plan, &options),
            (None, Some(log)) => {
                let progress = output.progress("reading the log");
                refrain_analysis::from_log(log, &plan, &options, &|done, total| {
                    progress.set(done, total)
                })
            }
            (None, None) => return Err(Failure::usage("give --log or --units").error()),
        };
        let (analysis, look) = result.map_err(refused)?;
        if let Some(path) = &self.looks {
            // The same cut-off again is the same look.
            looks
                .looks
                .retain(|earlier| earlier.cutoff_us != look.cutoff_us);
            looks.looks.push(look.clone());
            let mut text = serde_json::to_vec_pretty(&looks)?;
            text.push(b'\n');
            write(path, &text)?;
        }
        Ok((analysis, look))
    }

    fn earlier(&self, plan: &Plan) -> anyhow::Result<Looks> {
        let Some(path) = self.looks.as_ref().filter(|path| path.exists()) else {
            return Ok(Looks::new(plan));
        };
        let text = fs_err::read(path).map_err(|error| bad_input(error.into()))?;
        serde_json::from_slice(&text).map_err(|error| {
            Failure::usage(format!("{} is no list of looks", path.display()))
                .next("restore it from a backup: a design that forgets its looks loses its error rate")
                .because(error.to_string())
        })
    }

    /// The command that makes this analysis again.
    pub(super) fn command(&self) -> String {
        let mut words = vec!["refrain experiment analyze".to_owned()];
        let mut add =
            |flag: &str, value: &dyn std::fmt::Display| words.push(format!("{flag} {value}"));
        add("--config", &self.config.display());
        if let Some(name) = &self.experiment {
            add("--experiment", name);
        }
        if let Some(log) = &self.log {
            add("--log", &log.display());
        }
        if let Some(units) = &self.units {
            add("--units", &units.display());
        }
        if let Some(until) = &self.until {
            add("--until", until);
        }
        if let Some(looks) = &self.looks {
            add("--looks", &looks.display());
        }
        if let Some(target) = &self.off_policy {
            add("--off-policy", &target.display());
        }
        if self.last {
            words.push("--last".to_owned());
        }
        if self.bad_values == BadValues::Drop {
            words.push("--bad-values drop".to_owned());
        }
        words.join(" ")
    }
}

/// Reads an experiment's plan.
pub(super) fn read_plan(config: &Path, experiment: Option<&str>) -> anyhow::Result<Plan> {
    let text = fs_err::read_to_string(config).map_err(|error| bad_input(error.into()))?;
    Plan::from_toml(&text, experiment).map_err(|error| {
        Failure::usage(format!(
            "{} declares no experiment that can be analysed",
            config.display()
        ))
        .next("docs/analysis.md has a whole example")
        .because(error.to_string())
    })
}

/// Wrong input exits with 2.
pub(super) fn bad_input(error: anyhow::Error) -> anyhow::Error {
    error.context(Failure::usage("the input cannot be read"))
}

fn refused(error: AnalyzeError) -> anyhow::Error {
    let next = match &error {
        AnalyzeError::Looks(_) => {
            "docs/analysis.md says what a look is; use another --looks file for another experiment"
        }
        AnalyzeError::Units(_) => {
            "`refrain experiment sql` prints the statement that makes the table"
        }
        _ => "docs/analysis.md lists the columns and the policies for what is missing or wrong",
    };
    anyhow::Error::new(error)
        .context(Failure::usage("the experiment cannot be analysed").next(next))
}

/// RFC 3339, or a UTC date.
pub(super) fn instant(text: &str) -> anyhow::Result<i64> {
    let parsed = text.parse::<jiff::Timestamp>().ok().or_else(|| {
        let date: jiff::civil::Date = text.parse().ok()?;
        date.to_zoned(jiff::tz::TimeZone::UTC)
            .ok()
            .map(|zoned| zoned.timestamp())
    });
    parsed.map(jiff::Timestamp::as_microsecond).ok_or_else(|| {
        Failure::usage(format!(
            "`{text}` is neither an instant such as 2026-11-25T12:00:00Z nor a date"
        ))
        .error()
    })
}

/// A file appears whole or not at all.
pub(super) fn write(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    use std::io::Write as _;
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let save = || -> anyhow::Result<()> {
        let mut file = tempfile::Builder::new()
            .prefix(".refrain-")
            .tempfile_in(folder)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        Ok(())
    };
    save().with_context(|| Failure::new(format!("cannot write {}", path.display())))
}

/// How an analysis ends the program.
pub(super) fn exit(analysis: &Analysis) -> Exit {
    match analysis.verdict.recommendation {
        "INVALID" => Exit::Refused,
        "STOP_HARM" => Exit::Harm,
        _ => Exit::Done,
    }
}

/// What each arm changes, and what it was served.
fn arms(analysis: &Analysis, output: &Output) {
    let some = |names: &[String]| {
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        output::clip(&names.join(", "), 48)
    };
    for (arm, served) in analysis.plan.arms.iter().zip(&analysis.observed.arms) {
        let facts = [
            ("changes", output::clip(&arm.changes(), 48)),
            ("served as", some(&served.ranking_variants)),
            ("index", some(&served.index_versions)),
        ];
        let told: Vec<String> = facts
            .into_iter()
            .filter(|(_, what)| !what.is_empty())
            .map(|(about, what)| format!("{about} {what}"))
            .collect();
        if !told.is_empty() {
            output.line(format_args!(
                "arm {}: {}",
                output::clip(&arm.name, 24),
                told.join("; ")
            ));
        }
    }
}

/// For people.
pub(super) fn print(analysis: &Analysis, output: &Output) {
    let verdict = &analysis.verdict;
    output.line(format_args!(
        "{}  {}",
        verdict.recommendation.replace('_', " "),
        verdict.headline
    ));
    arms(analysis, output);
    let mut table = output::table(&[
        Column::Text("metric"),
        Column::Text("role"),
        Column::Text("arm"),
        Column::Number("control"),
        Column::Number("effect"),
        Column::Number("relative"),
        Column::Number("interval"),
        Column::Number("z"),
        Column::Number("asks"),
        Column::Number("units"),
        Column::Text("reading"),
    ]);
    for metric in &analysis.metrics {
        for comparison in &metric.comparisons {
            let number = |value: f64| refrain_analysis::report::signed(value, comparison.se);
            let control = metric.arms.first().and_then(|arm| arm.value);
            table.add_row([
                output::clip(&metric.name, 32),
                metric.role.to_owned(),
                output::clip(&comparison.arm, 24),
                control.map_or_else(String::new, |v| {
                    refrain_analysis::report::rounded(v, comparison.se)
                }),
                number(comparison.delta),
                comparison.relative.as_ref().map_or_else(String::new, |r| {
                    refrain_analysis::report::signed_percent(r.lift)
                }),
                format!(
                    "{} … {}",
                    number(comparison.interval.low),
                    number(comparison.interval.high)
                ),
                format!("{:.2}", comparison.z_tested(metric.role)),
                comparison
                    .bound
                    .map_or_else(String::new, |bound| format!("{bound:.2}")),
                output::count(metric.units(analysis.plan.kind)),
                comparison.words.to_owned(),
            ]);
        }
    }
    if table.row_iter().next().is_some() {
        output.table(&table);
    }
    for check in &analysis.quality {
        use refrain_analysis::verdict::document::Status;
        let word = match check.status {
            Status::Pass | Status::Skipped => continue,
            Status::Warn => "note",
            Status::Fail => "FAILED",
        };
        output.line(format_args!("{word}: {}: {}", check.name, check.finding));
        for hint in &check.hints {
            output.line(format_args!("      {hint}"));
        }
    }
    for next in &verdict.next {
        output.line(format_args!("next: {next}"));
    }
}
