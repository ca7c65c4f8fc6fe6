//! `refrain experiment readout`: a look at the live log, again and again.

use std::time::Duration;

use serde_json::json;

use super::analyze::{self, Subject};
use crate::failure::{Exit, Failure};
use crate::output::Output;

/// Look at a running experiment; with --watch, look again and again until the verdict is final
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Each look is one look of the design, and is remembered in --looks. A group-sequential design pays for
it, so look about as often as a decision could follow: daily rather than every minute. A look at the same
data is not paid twice.

Examples:
  refrain experiment readout --config refrain.toml --log /var/log/refrain --looks blend.looks.json
  refrain experiment readout --config refrain.toml --log /var/log/refrain --looks blend.looks.json --watch --every 24h

Exit codes: 0 done, 2 bad input, 3 a quality check failed, 4 harm.")]
pub(crate) struct Args {
    #[command(flatten)]
    subject: Subject,
    /// Go on looking until the verdict is to ship, to stop or that nothing was found
    #[arg(long)]
    watch: bool,
    /// Time between looks: 30s, 15m, 6h, 1d
    #[arg(long, value_name = "TIME", default_value = "1d", value_parser = period)]
    every: Duration,
    /// At most this many looks
    #[arg(long, value_name = "N", default_value_t = u32::MAX, hide_default_value = true)]
    max_looks: u32,
}

fn period(text: &str) -> Result<Duration, String> {
    let at = text
        .find(|c: char| !c.is_ascii_digit())
        .ok_or("a number and a unit, such as 6h")?;
    let (number, unit) = text.split_at(at);
    let number: u64 = number
        .parse()
        .map_err(|_| "a whole number and a unit, such as 6h")?;
    let seconds = match unit {
        "s" => 1,
        "m" | "min" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err("the unit is s, m, h or d".to_owned()),
    };
    match number
        .checked_mul(seconds)
        .filter(|s| (1..=366 * 86_400).contains(s))
    {
        Some(seconds) => Ok(Duration::from_secs(seconds)),
        None => Err("between 1s and 366d".to_owned()),
    }
}

/// Runs `refrain experiment readout`.
pub(crate) fn run(args: &Args, output: &Output) -> anyhow::Result<Exit> {
    if args.subject.looks.is_none() {
        return Err(Failure::usage("a readout needs --looks FILE")
            .next("name a file that keeps this experiment's looks; it is made at the first")
            .error());
    }
    let mut number = 0_u32;
    loop {
        let (analysis, look) = args.subject.look(output)?;
        number += 1;
        let word = analysis.verdict.recommendation;
        let over = word != "KEEP_RUNNING" || !args.watch || number >= args.max_looks;
        output.note(format_args!(
            "look {} at data up to {}: {}",
            analysis.looks.len(),
            analysis.observed.cutoff,
            word.replace('_', " ")
        ));
        if over {
            let document = json!({ "looks": number, "look": look, "analysis": analysis });
            output.result(&document, |output| analyze::print(&analysis, output));
            return Ok(analyze::exit(&analysis));
        }
        std::thread::sleep(args.every);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periods_are_read_or_refused() {
        assert_eq!(period("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(period("6h"), Ok(Duration::from_secs(21_600)));
        for wrong in ["", "6", "h", "6w", "0s", "9999999999999999999d", "-1h"] {
            assert!(period(wrong).is_err(), "{wrong}");
        }
    }
}
