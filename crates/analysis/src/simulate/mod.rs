//! Logs whose truth is known: an honest simulator that writes the same Parquet as the server, for tests
//! of the whole tool, for rehearsing an analysis before launch, and for trying designs.
//!
//! Everything is a pure function of the [`World`] and its seed. Units arrive uniformly over
//! [`World::days`]; each has a propensity that lasts (so a covariate from before helps), visits on some
//! days, and listens when it visits. [`World::faults`] plants what goes wrong in practice.

mod lists;
mod tables;

use std::path::Path;

use parquet::errors::ParquetError;

pub use lists::{CANDIDATES, Lists, Show, quality};

use lists::Shown;
use tables::{Exposure, Outcome, Side, Tables};

/// First instant of every simulated experiment: 2026-01-05 00:00 UTC, a Monday.
pub const START_US: i64 = 1_767_571_200_000_000;
const DAY_US: i64 = 86_400_000_000;

/// What is simulated.
#[derive(Debug, Clone)]
pub struct World {
    /// Same seed, same bytes.
    pub seed: u64,
    /// Name of the experiment; epoch 1.
    pub experiment: String,
    /// Names and shares of the arms, the control first. Shares add up to 1.
    pub arms: Vec<(String, f64)>,
    /// Units of all arms.
    pub units: u64,
    /// Days over which they arrive.
    pub days: u32,
    /// Days for which outcomes go on after that.
    pub tail_days: u32,
    /// Mean visits a day of an average unit, at least 0.
    pub visits: f64,
    /// Relative change of minutes listened in the first treatment.
    pub lift: f64,
    /// Extra relative change on the first day, fading by e every two days: novelty.
    pub novelty: f64,
    /// Relative change of latency in the first treatment.
    pub slowdown: f64,
    /// A holdout of this name beside everything that ships, its epoch 1: the control is the units held out, the
    /// treatment the slice of the rest, half of which is in an experiment.
    pub holdout: Option<String>,
    /// Lists, item by item, and what is chosen of them; none are written where this is `None`.
    pub lists: Option<Lists>,
    /// What goes wrong.
    pub faults: Faults,
    /// Rows a file and row group.
    pub rows_per_group: usize,
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Faults {
    /// Share of the treatment's units whose exposures are lost on the surface `search`.
    pub lose_treatment: f64,
    /// Bots in the treatment: share of its units that make 2,000 requests on a day.
    pub treatment_bots: f64,
    /// Share of units that are seen in both arms.
    pub switchers: f64,
    /// Weights change half way (the treatment from 10 % to 50 %), while listening halves for everyone.
    pub ramp: bool,
    /// Share of requests that are logged twice.
    pub retries: f64,
    /// Share of the treatment's requests that fall back to what the control serves.
    pub fallback: f64,
}

impl World {
    /// An A/A world of two equal arms.
    #[must_use]
    pub fn new(seed: u64, units: u64) -> Self {
        Self {
            seed,
            experiment: "blend".to_owned(),
            arms: vec![("control".to_owned(), 0.5), ("blend03".to_owned(), 0.5)],
            units,
            days: 14,
            tail_days: 14,
            visits: 0.5,
            lift: 0.0,
            novelty: 0.0,
            slowdown: 0.0,
            holdout: None,
            lists: None,
            faults: Faults::default(),
            rows_per_group: 100_000,
        }
    }

    /// Writes `exposures`, `outcomes` and `covariates` under a folder and says how many rows of each.
    ///
    /// # Errors
    /// A folder or file that cannot be written.
    pub fn write(&self, folder: &Path) -> Result<[u64; 3], ParquetError> {
        let mut tables = Tables::new(
            folder,
            self.rows_per_group,
            self.lists.is_some(),
            self.holdout.is_some(),
        )?;
        for unit in 0..self.units {
            self.unit(unit, &mut tables)?;
        }
        tables.finish()
    }

    fn interleaved(&self) -> bool {
        self.lists
            .as_ref()
            .is_some_and(|lists| matches!(lists.show, Show::Drafted { .. }))
    }

    fn unit(&self, number: u64, tables: &mut Tables) -> Result<(), ParquetError> {
        let mut rng = Rng::new(self.seed, number);
        let id = format!("u{:x}-{number}", self.seed);
        let arrival = rng.unit();
        let late = arrival >= 0.5;
        let ramped = self.faults.ramp && !late;
        let shares: Vec<f64> = if ramped {
            vec![0.9, 0.1]
        } else {
            self.arms.iter().map(|arm| arm.1).collect()
        };
        let mut draw = rng.unit();
        let mut arm = shares.len() - 1;
        for (at, share) in shares.iter().enumerate() {
            if draw < *share {
                arm = at;
                break;
            }
            draw -= share;
        }
        #[expect(clippy::cast_possible_truncation, reason = "microseconds of some days")]
        let first_us = START_US + (arrival * f64::from(self.days) * DAY_US as f64) as i64;
        let end_us = START_US + i64::from(self.days + self.tail_days) * DAY_US;
        // Log-normal appetite: what a unit did before predicts what it will do.
        let appetite = (0.6 * rng.normal()).exp();
        let surface = ["home", "search", "radio"][rng.below(3)];
        let lost = arm > 0 && surface == "search" && rng.chance(self.faults.lose_treatment);
        let bot = arm > 0 && rng.chance(self.faults.treatment_bots);
        let switcher = rng.chance(self.faults.switchers);
        tables.covariate(
            &id,
            first_us - DAY_US,
            "minutes_before",
            20.0 * appetite * (0.3 * rng.normal()).exp(),
        )?;
        let mut listed = Rng::new(self.seed ^ 0x6c69_7374, number);
        let season = if self.faults.ramp && late { 0.5 } else { 1.0 };
        let mut request = 0_u64;
        let mut day = 0_i64;
        loop {
            let mut at = first_us + day * DAY_US;
            if at >= end_us {
                break;
            }
            let visits = if day == 0 {
                1 + rng.poisson(self.visits * appetite)
            } else {
                rng.poisson(self.visits * appetite)
            };
            let visits = if bot && day == 0 { 2_000 } else { visits };
            #[expect(clippy::cast_precision_loss, reason = "a number of days")]
            let fading = self.novelty * (-(day as f64) / 2.0).exp();
            let effect = if arm == 1 {
                1.0 + self.lift + fading
            } else {
                1.0
            };
            for visit in 0..visits {
                // The first visit is the first exposure; others come later that day.
                if visit > 0 || day > 0 {
                    #[expect(clippy::cast_possible_truncation, reason = "within a day")]
                    let later = (rng.unit() * 0.9 * DAY_US as f64) as i64;
                    at = first_us + day * DAY_US + later;
                }
                if at >= end_us {
                    continue;
                }
                request += 1;
                let latency = 2_000.0
                    * (0.5 * rng.normal()).exp()
                    * if arm == 1 { 1.0 + self.slowdown } else { 1.0 };
                let shown = if switcher && request.is_multiple_of(2) {
                    self.arms.len() - 1 - arm
                } else {
                    arm
                };
                // A stream of its own: whether lists are written changes nothing else.
                let fell_back = shown > 0 && listed.chance(self.faults.fallback);
                let list = self
                    .lists
                    .as_ref()
                    .map_or_else(Shown::default, |lists| lists.draw(shown, &mut listed));
                let interleaved = self.interleaved();
                let side = self.holdout.as_deref().map(|name| Side {
                    holdout: name,
                    held: shown == 0,
                    // An experiment's units and those of none are in the slice alike.
                    experiment: (shown > 0 && number.is_multiple_of(2)).then_some("meanwhile"),
                });
                let exposure = Exposure {
                    side,
                    id: (number, request),
                    ts: at,
                    unit: &id,
                    surface,
                    experiment: &self.experiment,
                    variant: match interleaved {
                        true => crate::plan::INTERLEAVED,
                        false => &self.arms[shown].0,
                    },
                    served: match (fell_back, interleaved) {
                        (true, _) => "fallback",
                        (false, true) => crate::plan::INTERLEAVED,
                        (false, false) => &self.arms[shown].0,
                    },
                    weights: &shares,
                    prob: if interleaved { 1.0 } else { shares[shown] },
                    seed: list.seed.as_deref(),
                    items: &list.items,
                    latency_us: latency,
                    empty: rng.chance(0.002),
                };
                if !lost {
                    tables.exposure(&exposure)?;
                    if rng.chance(self.faults.retries) {
                        tables.exposure(&Exposure {
                            ts: at + 1_000,
                            ..exposure
                        })?;
                    }
                }
                let effect = if fell_back { 1.0 } else { effect };
                let minutes = 6.0 * season * effect * appetite * (0.8 * rng.normal()).exp();
                let after = at + 60_000_000;
                let happened = |event, value| Outcome {
                    unit: &id,
                    ts: after,
                    event,
                    value,
                    item: None,
                };
                tables.outcome(&happened("listen_minutes", minutes))?;
                if rng.chance(0.3) {
                    tables.outcome(&happened("save", 1.0))?;
                }
                let plays = 1.0 + f64::from(u32::try_from(rng.below(6)).unwrap_or(0));
                tables.outcome(&happened("play", plays))?;
                for at in &list.chosen {
                    tables.outcome(&Outcome {
                        item: Some(((number, request), &list.items[*at].item)),
                        ..happened("choose", 1.0)
                    })?;
                }
            }
            day += 1;
        }
        Ok(())
    }
}

/// The plan that fits a [`World`], with a design of the given TOML inline table.
#[must_use]
pub fn plan_toml(world: &World, design: &str) -> String {
    use std::fmt::Write as _;
    let name = &world.experiment;
    let kind = match (&world.holdout, world.interleaved()) {
        (Some(_), _) => "holdout",
        (None, true) => "interleave",
        (None, false) => "ab",
    };
    let [question, decision] = match &world.holdout {
        Some(_) => [
            "Does what the quarter shipped lengthen listening?",
            "How much of the next quarter goes into ranking",
        ],
        None => [
            "Does blending in content lengthen listening?",
            "Ship the blend on all surfaces, or keep the control",
        ],
    };
    let mut text = format!(
        "[experiment.{name}]\nkind = \"{kind}\"\nlayer = \"ranking\"\nepoch = 1\nowner = \"team-home\"\n\
         question = \"{question}\"\ndecision = \"{decision}\"\n\
         allocation_bp = 10000\nsegments = [\"surface\"]\ndesign = {design}\n"
    );
    if let Some(holdout) = &world.holdout {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "holdout = \"{holdout}\"");
    }
    // A holdout has arms of its own.
    let arms = world.arms.iter().filter(|_| world.holdout.is_none());
    for (arm, share) in arms {
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "[[experiment.{name}.arm]]\nname = \"{arm}\"\nweight = {share}\n"
        );
    }
    if !world.interleaved() {
        text.push_str(&METRICS.replace("NAME", name));
    }
    if world.lists.is_some() {
        let role = if world.interleaved() {
            "success\"\nmde = 0.05"
        } else {
            "scan\"\nmissing = \"zero\""
        };
        let _ = write!(
            text,
            "[[experiment.{name}.metric]]\nname = \"chosen\"\nevent = \"choose\"\nwindow = \"closed(0d,7d)\"\nrole = \"{role}\n"
        );
    }
    text
}

const METRICS: &str = r#"
[[experiment.NAME.metric]]
name = "minutes_week1"
event = "listen_minutes"
role = "success"
window = "closed(0d,7d)"
missing = "zero"
mde_rel = 0.05
covariate = "minutes_before"
[[experiment.NAME.metric]]
name = "saved"
event = "save"
type = "proportion"
role = "guardrail"
window = "closed(0d,7d)"
margin_rel = 0.1
[[experiment.NAME.metric]]
name = "minutes_per_play"
event = "listen_minutes"
denominator = "play"
type = "ratio"
role = "scan"
window = "closed(0d,7d)"
[[experiment.NAME.metric]]
name = "latency_p95"
source = "exposure.latency_us"
type = "quantile(0.95)"
direction = "down"
role = "guardrail"
window = "closed(0d,1d)"
margin_rel = 0.1
"#;

/// splitmix64: one stream a unit.
struct Rng(u64);

impl Rng {
    fn new(seed: u64, stream: u64) -> Self {
        let mut rng = Self(seed ^ stream.wrapping_mul(0xd1b5_4a32_d192_ed03));
        rng.0 = rng.next();
        rng
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    #[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn chance(&mut self, p: f64) -> bool {
        p > 0.0 && self.unit() < p
    }

    #[expect(clippy::cast_possible_truncation, reason = "less than the bound")]
    fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.next()) * bound as u128) >> 64) as usize
    }

    /// Box and Muller.
    fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.unit()).cos()
    }

    /// Knuth's product of uniforms, for small means.
    fn poisson(&mut self, mean: f64) -> u64 {
        let limit = (-mean.min(30.0)).exp();
        let mut product = self.unit();
        let mut count = 0;
        while product > limit {
            product *= self.unit();
            count += 1;
        }
        count
    }
}
