//! A/A experiments through the whole tool, log to verdict: nothing differs, so nothing may ship more
//! often than the design allows, however often it is looked at.
//!
//! `REFRAIN_AA_EXPERIMENTS=10000 cargo test --release -p refrain-analysis --test pipeline aa:: -- --nocapture`
//! runs the full number and prints the rates; `0..2500`, `2500..5000` … are its parts.

use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use refrain_analysis::plan::{Margin, Window};
use refrain_analysis::simulate::{self, Lists, Show, World};
use refrain_analysis::verdict::document::Status;
use refrain_analysis::{Looks, Options, Plan};

const ALPHA: f64 = 0.05;
const UNITS: u64 = 500;

const DAILY: &str = "measured daily";
const MSPRT: &str = "mixture SPRT";
const FIXED_POWER: &str = "fixed power";
const DESIGNS: [(&str, &str); 7] = [
    ("group-sequential", r#"{ method = "gst", max_units = 500 }"#),
    (
        "always-valid",
        r#"{ method = "always_valid", max_units = 500 }"#,
    ),
    ("fixed", r#"{ method = "fixed", max_units = 500 }"#),
    (
        "bonferroni",
        r#"{ method = "bonferroni", max_units = 500, looks = 4 }"#,
    ),
    (MSPRT, r#"{ method = "msprt", max_units = 500 }"#),
    (FIXED_POWER, r#"{ method = "fixed_power" }"#),
    (DAILY, r#"{ method = "gst", max_units = 500 }"#),
];
/// Days at which an owner looks; the last has all units.
const LOOKS: [i64; 4] = [11, 14, 17, 28];

/// Seeds: a number of them, or a part of a longer run.
fn experiments() -> Range<u64> {
    let Ok(asked) = std::env::var("REFRAIN_AA_EXPERIMENTS") else {
        return 0..150;
    };
    let (first, end) = asked.split_once("..").unwrap_or(("0", &asked));
    let number = |text: &str| {
        text.parse()
            .expect("REFRAIN_AA_EXPERIMENTS is N or FIRST..END")
    };
    number(first)..number(end)
}

/// Threads of their own: an analysis waits for its pool, and a worker of another pool that waits takes up
/// the next experiment on top, until its stack is full.
fn on_all_cores<T: Send>(seeds: Range<u64>, one: impl Fn(u64) -> T + Sync) -> Vec<T> {
    let next = AtomicU64::new(seeds.start);
    let work = || {
        let mut done = Vec::new();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return done;
            }
            done.push(one(seed));
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers
            .into_iter()
            .flat_map(|worker| worker.join().expect("no panic"))
            .collect()
    })
}

/// Whether a design takes part: all do, or those that `REFRAIN_AA_DESIGNS` names (`NAME,NAME`).
fn is_asked(name: &str) -> bool {
    let asked = std::env::var("REFRAIN_AA_DESIGNS");
    asked.map_or(true, |asked| asked.split(',').any(|one| one == name))
}

#[derive(Debug, Clone, Copy, Default)]
struct Tally {
    shipped: u64,
    harmed: u64,
    invalid: u64,
    srm: u64,
    /// Effects were shown at some look.
    revealed: u64,
}

#[test]
fn nothing_ships_more_often_than_promised() {
    let seeds = experiments();
    let count = seeds.end - seeds.start;
    let tallies: Vec<[Tally; DESIGNS.len()]> = on_all_cores(seeds, one);
    #[expect(clippy::cast_precision_loss, reason = "some thousands")]
    let (n, rate) = (count as f64, |k: u64| k as f64 / count as f64);
    let bound = |p: f64| p + 2.0 * (p * (1.0 - p) / n).sqrt() + 0.5 / n;
    for (at, (name, _)) in DESIGNS.iter().enumerate() {
        if !is_asked(name) {
            continue;
        }
        let sum = tallies
            .iter()
            .map(|t| t[at])
            .fold(Tally::default(), |a, b| Tally {
                shipped: a.shipped + b.shipped,
                harmed: a.harmed + b.harmed,
                invalid: a.invalid + b.invalid,
                srm: a.srm + b.srm,
                revealed: a.revealed + b.revealed,
            });
        println!(
            "{name:18} of {count} A/A: ships {} = {:.4} (at most {:.4}), stops for harm {:.4}, sample-ratio alarms {:.4}, invalid {:.4}, effects shown {:.4}",
            sum.shipped,
            rate(sum.shipped),
            bound(ALPHA),
            rate(sum.harmed),
            rate(sum.srm),
            rate(sum.invalid),
            rate(sum.revealed)
        );
        // A design that never looks never errs.
        assert!(rate(sum.revealed) > 0.9, "{name}: {sum:?}");
        assert!(rate(sum.shipped) <= bound(ALPHA), "{name}: {sum:?}");
        // Deterioration: 1 % over both metrics.
        assert!(rate(sum.harmed) <= bound(0.01), "{name}: {sum:?}");
        // 0.001 at the first look, and the always-valid test's 0.01 (far below it here) at later ones.
        let alarms = if *name == "fixed" { 0.001 } else { 0.011 };
        assert!(rate(sum.srm) <= bound(alarms), "{name}: {sum:?}");
    }
}

fn one(seed: u64) -> [Tally; DESIGNS.len()] {
    let mut world = World::new(0xa_a000 + seed, UNITS);
    world.visits = 0.15;
    let folder = tempfile::tempdir().expect("temporary folder");
    world.write(folder.path()).expect("written");
    DESIGNS.map(|(name, design)| {
        if !is_asked(name) {
            return Tally::default();
        }
        let text = simulate::plan_toml(&world, design);
        let mut plan = Plan::from_toml(&text, None).expect("valid plan");
        // One success metric and one that is only scanned: guardrails would only hide false ships.
        plan.metrics
            .retain(|metric| matches!(metric.name.as_str(), "minutes_week1" | "minutes_per_play"));
        if name == DAILY {
            // An open metric: all days of a unit's first two weeks, as far as they are over.
            plan.metrics[0].window = Window::Daily { days: 14 };
            plan.metrics[0].covariate = None;
        }
        if matches!(name, FIXED_POWER | MSPRT) {
            // An effect that so few units can see: precise enough at the second look or the third.
            plan.metrics[0].mde = Some(Margin::Relative(0.4));
        }
        let days: &[i64] = if name == "fixed" { &LOOKS[3..] } else { &LOOKS };
        look_at(folder.path(), &plan, days)
    })
}

/// Looks on these days until there is a decision.
fn look_at(log: &Path, plan: &Plan, days: &[i64]) -> Tally {
    let mut looks = Looks::new(plan);
    let mut tally = Tally::default();
    for day in days {
        let mut options = Options {
            looks: Some(looks.clone()),
            ..Options::default()
        };
        options.read.until_us = Some(simulate::START_US + day * 86_400_000_000);
        options.read.threads = 1;
        let (analysis, look) =
            refrain_analysis::from_log(log, plan, &options, &|_, _| ()).expect("analysed");
        looks.looks.push(look);
        if analysis
            .quality
            .iter()
            .any(|check| check.id == "srm" && check.status == Status::Fail)
        {
            tally.srm = 1;
        }
        if !analysis.metrics[0].comparisons.is_empty() {
            tally.revealed = 1;
        }
        match analysis.verdict.recommendation {
            "SHIP" | "ADVANCE" => tally.shipped = 1,
            "STOP_HARM" => tally.harmed = 1,
            "INVALID" => tally.invalid = 1,
            _ => continue,
        }
        break;
    }
    tally
}

/// Two rankers that are equally good draft one list.
#[test]
fn nothing_is_preferred_more_often_than_promised() {
    let seeds = experiments();
    let count = seeds.end - seeds.start;
    let tallies: Vec<Tally> = on_all_cores(seeds, drafted);
    let sum = |of: fn(&Tally) -> u64| tallies.iter().map(of).sum::<u64>();
    #[expect(clippy::cast_precision_loss, reason = "some thousands")]
    let (n, rate) = (count as f64, |k: u64| k as f64 / count as f64);
    let bound = |p: f64| p + 2.0 * (p * (1.0 - p) / n).sqrt() + 0.5 / n;
    let (advanced, harmed, unfair) = (
        rate(sum(|t| t.shipped)),
        rate(sum(|t| t.harmed)),
        rate(sum(|t| t.srm)),
    );
    println!(
        "interleaved        of {count} A/A: advances {advanced:.4} (at most {:.4}), stops for harm {harmed:.4}, unfair drafts {unfair:.4}",
        bound(ALPHA)
    );
    assert!(advanced <= bound(ALPHA), "{advanced}");
    assert!(harmed <= bound(0.01), "{harmed}");
    assert!(unfair <= bound(0.011), "{unfair}");
}

fn drafted(seed: u64) -> Tally {
    let mut world = World::new(0xd_a000 + seed, 250);
    world.visits = 0.15;
    world.lists = Some(Lists {
        length: 6,
        show: Show::Drafted { preference: 0.0 },
    });
    let folder = tempfile::tempdir().expect("temporary folder");
    world.write(folder.path()).expect("written");
    let text = simulate::plan_toml(&world, r#"{ method = "gst", max_units = 250 }"#);
    let plan = Plan::from_toml(&text, None).expect("valid plan");
    look_at(folder.path(), &plan, &LOOKS)
}
