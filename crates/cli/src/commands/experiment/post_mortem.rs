//! `refrain experiment post-mortem`: what is known of a rollout that was stepped back, as the page on
//! which people write what is not.

use std::fmt::Write as _;
use std::path::PathBuf;

use refrain_experiments::{Action, Entry, ExperimentConfig, Journal};
use serde_json::{Value, json};

use super::{analyze, change};
use crate::failure::{Exit, Failure};
use crate::output::{self, Output};

/// Begin the post-mortem of a rollout that was stepped back: Markdown with what the journal knows
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Times, shares, versions and the numbers of the guardrail come from the journal, the rest from the
configuration. What only people know is left open.

Examples:
  refrain experiment post-mortem refrain.toml careful-blend --out post-mortem.md
  refrain experiment post-mortem refrain.toml careful-blend --json

Exit codes: 0 done, 3 the journal has no step back of this experiment.")]
pub(super) struct Args {
    /// The configuration file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The experiment
    #[arg(value_name = "EXPERIMENT")]
    experiment: String,
    /// Where the page goes; by default to stdout
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Runs `refrain experiment post-mortem`.
pub(super) fn run(args: &Args, output: &Output) -> anyhow::Result<Exit> {
    let config = change::read(&args.file)?;
    let journal = change::verified(&change::journal_of(&config, &args.file)?)?;
    let name = &args.experiment;
    let Some(breach) = Breach::last(&journal, name) else {
        return Err(
            Failure::refused(format!("the journal has no step back of `{name}`"))
                .next("`refrain experiment journal FILE` shows what was done")
                .error(),
        );
    };
    // It may have been taken out of the file since.
    let declared = config.experiments.experiment(name);
    let page = breach.page(name, declared);
    if let Some(out) = &args.out {
        analyze::write(out, page.as_bytes())?;
    }
    let document = breach.document(name, &page, args.out.as_ref());
    output.result(&document, |output| match &args.out {
        Some(out) => output.line(format_args!("post-mortem in {}", out.display())),
        None => output.line(page.trim_end()),
    });
    Ok(Exit::Done)
}

/// The last step back of an experiment, with what stands around it.
struct Breach<'a> {
    /// Everything that was done to the experiment.
    entries: Vec<&'a Entry>,
    entry: &'a Entry,
    guardrail: &'a str,
    from_bp: u32,
    to_bp: u32,
    version: &'a str,
    /// When the share that broke came into force.
    since: Option<&'a Entry>,
}

impl<'a> Breach<'a> {
    fn last(journal: &'a Journal, name: &str) -> Option<Self> {
        let all = journal.entries().iter();
        let entries: Vec<_> = all.filter(|e| e.action.experiment() == name).collect();
        let at = entries
            .iter()
            .rposition(|entry| matches!(entry.action, Action::StepBack { .. }))?;
        let entry = *entries.get(at)?;
        let Action::StepBack {
            from_bp,
            to_bp,
            guardrail,
            version,
            ..
        } = &entry.action
        else {
            return None;
        };
        Some(Self {
            since: at
                .checked_sub(1)
                .and_then(|before| entries.get(before).copied()),
            entries,
            entry,
            guardrail,
            from_bp: *from_bp,
            to_bp: *to_bp,
            version,
        })
    }

    /// How long the share stood, in seconds.
    fn stood(&self) -> Option<i64> {
        let since = self.since?.time;
        Some(self.entry.time.duration_since(since).as_secs())
    }

    /// The readings of the look, one each.
    fn readings(&self) -> Vec<&str> {
        let said = self.entry.reason.split_once(": ");
        let readings = said.map_or(self.entry.reason.as_str(), |(_, readings)| readings);
        readings.split("; ").filter(|one| !one.is_empty()).collect()
    }

    fn document(&self, name: &str, page: &str, out: Option<&PathBuf>) -> Value {
        json!({
            "experiment": name,
            "time": self.entry.time.to_string(),
            "by": self.entry.by,
            "guardrail": self.guardrail,
            "from_bp": self.from_bp,
            "to_bp": self.to_bp,
            "stood_seconds": self.stood(),
            "version": self.version,
            "config_digest": self.entry.config_digest,
            "readings": self.readings(),
            "journal_line": self.entry.seq,
            "page": page,
            "out": out,
        })
    }

    fn page(&self, name: &str, declared: Option<&ExperimentConfig>) -> String {
        let Self {
            entry,
            guardrail,
            from_bp,
            to_bp,
            version,
            ..
        } = self;
        let open = "*to be written*";
        let stood = self.stood().map_or_else(
            || "an unknown time".to_owned(),
            |seconds| output::duration(std::time::Duration::from_secs(seconds.unsigned_abs())),
        );
        let mut page = String::new();
        let mut put = |text: std::fmt::Arguments<'_>| {
            // To a string: cannot fail.
            let _ = page.write_fmt(text);
            page.push('\n');
        };
        put(format_args!(
            "# Post-mortem: {name}, {}\n",
            entry.time.strftime("%Y-%m-%d")
        ));
        put(format_args!(
            "`{guardrail}` broke; `{}` took the rollout from {from_bp} to {to_bp} basis points at {}, after \
             {stood} at {from_bp}.\n",
            entry.by, entry.time
        ));
        put(format_args!("## Facts\n"));
        put(format_args!("| | |\n|---|---|"));
        put(format_args!("| version served | {} |", cell(version)));
        put(format_args!(
            "| configuration in force | `{}` |",
            cell(&entry.config_digest)
        ));
        put(format_args!(
            "| line of the journal | {} (`{}` above it) |",
            entry.seq, entry.prev
        ));
        if let Some(declared) = declared {
            put(format_args!("| owner | {} |", cell(&declared.owner)));
            put(format_args!("| question | {} |", cell(&declared.question)));
            put(format_args!("| decision | {} |", cell(&declared.decision)));
            for arm in &declared.arms {
                let variant = arm.variant.as_deref().unwrap_or("that of the surface");
                put(format_args!(
                    "| arm `{}` | {} |",
                    cell(&arm.name),
                    cell(variant)
                ));
            }
            for metric in declared
                .metrics
                .iter()
                .filter(|metric| metric.name == *guardrail)
            {
                let margin = metric.margin_abs.map(|margin| format!("{margin} absolute"));
                let relative = metric.margin_rel.map(|margin| format!("{margin} relative"));
                let margin = margin.or(relative).unwrap_or_default();
                put(format_args!("| margin of `{guardrail}` | {margin} |"));
            }
        }
        put(format_args!("\nThe look that stopped it:\n"));
        for reading in self.readings() {
            put(format_args!("- {reading}"));
        }
        put(format_args!("\n## What was done, when\n"));
        put(format_args!(
            "| time | by | what | reason |\n|---|---|---|---|"
        ));
        for other in &self.entries {
            let what = change::said(&other.action);
            let (by, reason) = (cell(&other.by), cell(&other.reason));
            put(format_args!(
                "| {} | {by} | {what} | {reason} |",
                other.time
            ));
        }
        for (title, asks) in [
            (
                "Impact",
                "Who saw what, for how long? `refrain experiment analyze` has the exposures of the arm.",
            ),
            (
                "Cause",
                "What did the treatment do, and why did nothing before this step show it?",
            ),
            (
                "What went well, what did not",
                "Detection, the step back, who was told.",
            ),
            (
                "Actions",
                "What will be different, by whom, until when. After a step back only a person goes on.",
            ),
        ] {
            put(format_args!("\n## {title}\n\n{asks}\n\n{open}"));
        }
        page
    }
}

/// A text that ends no cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use refrain_experiments::Config;

    use super::*;

    const CONFIG: &str = r#"
[experiment.careful]
kind = "rollout"
layer = "ranking"
epoch = 1
allocation_bp = 500
owner = "team-home"
question = "Does `balanced` harm?"
decision = "Serve it, or go back"
rollout = { on_inconclusive = "hold" }
arm = [{ name = "control", variant = "plain" }, { name = "treatment", variant = "balanced" }]
[[experiment.careful.metric]]
name = "error_rate"
role = "guardrail"
direction = "down"
margin_abs = 0.001
"#;

    fn journal() -> Journal {
        let mut journal = Journal::default();
        let experiment = || "careful".to_owned();
        let actions = [
            (
                "anna",
                "release 9.1 | home",
                Action::Allocate {
                    experiment: experiment(),
                    epoch: 1,
                    arms_digest: String::new(),
                    layer: "ranking".to_owned(),
                    layer_epoch: 1,
                    bp: 100,
                    seed: "s".to_owned(),
                    waived: Vec::new(),
                },
            ),
            (
                "refrain serve",
                "step over, guardrails held: error_rate 0.0100 against 0.0100 of control (harm z 0.00, bound 2.51)",
                Action::Ramp {
                    experiment: experiment(),
                    from_bp: 100,
                    to_bp: 500,
                    seed: "t".to_owned(),
                },
            ),
            (
                "refrain serve",
                "guardrail error_rate broke: error_rate 0.3125 against 0.0125 of control (harm z 9.81, bound 2.51); \
                 empty_rate 0.0000 against 0.0000 of control (harm z 0.00, bound 2.51)",
                Action::StepBack {
                    experiment: experiment(),
                    from_bp: 500,
                    to_bp: 100,
                    guardrail: "error_rate".to_owned(),
                    version: "v-2026-11-28".to_owned(),
                },
            ),
        ];
        for (hour, (by, reason, action)) in (0..).zip(actions) {
            let time =
                jiff::Timestamp::from_second(1_790_000_000 + 3_600 * hour).expect("in range");
            journal
                .append(action, time, by, reason, "d1g35t")
                .expect("fits");
        }
        journal
    }

    #[test]
    fn the_page_has_the_times_versions_and_numbers_of_the_journal() {
        let (journal, config) = (journal(), Config::from_toml(CONFIG).expect("well-formed"));
        let breach = Breach::last(&journal, "careful").expect("stepped back");
        let page = breach.page("careful", config.experiment("careful"));
        for fact in [
            "# Post-mortem: careful, 2026-09-21\n",
            "`error_rate` broke; `refrain serve` took the rollout from 500 to 100 basis points at \
             2026-09-21T16:13:20Z, after 1 h",
            "| version served | v-2026-11-28 |",
            "| configuration in force | `d1g35t` |",
            "| line of the journal | 3 (`",
            "| owner | team-home |",
            "| arm `treatment` | balanced |",
            "| margin of `error_rate` | 0.001 absolute |",
            "\n- error_rate 0.3125 against 0.0125 of control (harm z 9.81, bound 2.51)\n- empty_rate 0.0000",
            "| 2026-09-21T14:13:20Z | anna | allocated 100 bp | release 9.1 \\| home |",
            "| 2026-09-21T15:13:20Z | refrain serve | ramped 100 → 500 bp |",
            "\n## Cause\n",
        ] {
            assert!(page.contains(fact), "{fact}\n{page}");
        }
        let document = breach.document("careful", &page, None);
        assert_eq!(
            (&document["stood_seconds"], &document["version"]),
            (&json!(3_600), &json!("v-2026-11-28"))
        );
        assert_eq!(document["readings"].as_array().map(Vec::len), Some(2));
    }

    #[test]
    fn what_was_never_stepped_back_has_none() {
        assert!(Breach::last(&journal(), "other").is_none());
        assert!(Breach::last(&Journal::default(), "careful").is_none());
    }
}
