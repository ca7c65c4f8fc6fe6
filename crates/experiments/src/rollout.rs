//! A monitored rollout: two arms of equal weight inside a growing share, guardrails only.
//!
//! Requests of one unit are alike, so they are counted in [`GROUPS`] groups of units, and the spread
//! over groups is the error of an arm's rate (the delta method for a ratio of sums, by group instead
//! of by unit: bounded memory, and right whatever a unit's requests have in common). Harm is tested
//! one-sided at every look with a group-sequential bound; the error rate is split evenly over the
//! guardrails, so a harmless rollout is stepped back with at most the stated probability over its
//! whole life. After a step back the rollout stands until a person ramps it.

use serde::{Deserialize, Serialize};

use crate::config::{ExperimentConfig, OnBreach, OnInconclusive, Role, RolloutConfig, seconds};
use crate::looks::{Looks, Spending};
use crate::preflight::{LIVE_METRICS, latency_quantile};

/// Groups of units in which requests are counted.
pub const GROUPS: usize = 64;
/// Cells of a latency histogram: a factor of 1.1 apart, from 10 µs to 13 s.
pub const CELLS: usize = 148;

/// The cell of a latency, in microseconds.
#[must_use]
pub fn cell_of(latency_us: u32) -> usize {
    let cell = (f64::from(latency_us.max(1)) / 10.0).ln() / 1.1_f64.ln();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "clamped to the cells"
    )]
    let cell = cell.ceil().clamp(0.0, (CELLS - 1) as f64) as usize;
    cell
}

/// The group of a unit, by any hash of it.
#[must_use]
pub fn group_of(hash: u64) -> usize {
    // The high bits choose arms and buckets: the low ones are independent of both.
    usize::try_from(hash % GROUPS as u64).unwrap_or(0)
}

/// What happened to the requests of one group of one arm.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GroupCounts {
    /// Requests.
    pub requests: u64,
    /// Of those, failed.
    pub errors: u64,
    /// Answered with an empty list.
    pub empty: u64,
    /// Answered with less than could be.
    pub degraded: u64,
    /// Latency histogram, [`CELLS`] cells.
    pub latency: Vec<u32>,
}

impl Default for GroupCounts {
    fn default() -> Self {
        Self {
            requests: 0,
            errors: 0,
            empty: 0,
            degraded: 0,
            latency: vec![0; CELLS],
        }
    }
}

/// What happened to the requests of one arm: [`GROUPS`] groups.
pub type ArmCounts = [GroupCounts];

/// What a guardrail measures.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Measure {
    Errors,
    Empty,
    Degraded,
    /// Requests slower than this quantile of control.
    Latency(f64),
}

#[derive(Debug, Clone, PartialEq)]
struct Guardrail {
    name: String,
    measure: Measure,
    margin_rel: f64,
    margin_abs: f64,
}

/// What is remembered of a rollout between looks; survives a restart.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RolloutState {
    /// Information fractions at which looks were made.
    pub looks: Vec<f64>,
    /// Counts of control and treatment since the rollout started.
    pub counts: Vec<Vec<GroupCounts>>,
}

/// One guardrail at one look.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Reading {
    /// The guardrail.
    pub guardrail: String,
    /// Rate of control.
    pub control: f64,
    /// Rate of treatment.
    pub treatment: f64,
    /// Standard errors of harm: at or above `bound`, treatment is worse.
    pub z_harm: f64,
    /// Standard errors within the margin: at or above `bound`, treatment is safe.
    pub z_safe: f64,
    /// The bound at this look.
    pub bound: f64,
}

/// What a look decides.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Verdict {
    /// Too early to say anything.
    Wait,
    /// Stays where it is: neither harm nor safety is shown.
    Hold,
    /// To the next step.
    Advance {
        /// The share to go to, in basis points.
        to_bp: u32,
    },
    /// A guardrail broke.
    StepBack {
        /// The share to go back to, in basis points.
        to_bp: u32,
        /// The guardrail.
        guardrail: String,
    },
    /// All steps are done.
    Complete,
}

/// The tests of one rollout.
#[derive(Debug, Clone)]
pub struct Monitor {
    config: RolloutConfig,
    guardrails: Vec<Guardrail>,
    looks: Looks,
    state: RolloutState,
}

impl Monitor {
    /// A rollout's monitor, going on from `state`. `None` when the experiment has no rollout or no
    /// guardrail that is measured live.
    #[must_use]
    pub fn new(experiment: &ExperimentConfig, state: RolloutState) -> Option<Self> {
        let config = experiment.rollout.clone()?;
        let guardrails: Vec<Guardrail> = experiment
            .metrics
            .iter()
            .filter(|metric| metric.role == Some(Role::Guardrail))
            .filter_map(|metric| {
                let measure = measure_of(&metric.name)?;
                Some(Guardrail {
                    name: metric.name.clone(),
                    measure,
                    margin_rel: metric.margin_rel.unwrap_or(0.0),
                    margin_abs: metric.margin_abs.unwrap_or(0.0),
                })
            })
            .collect();
        if guardrails.is_empty() {
            return None;
        }
        #[expect(clippy::cast_precision_loss, reason = "at most 64 metrics")]
        let alpha = config.alpha / guardrails.len() as f64;
        let mut looks = Looks::new(alpha, Spending::Power(2.0));
        for &t in &state.looks {
            looks.look(t);
        }
        Some(Self {
            config,
            guardrails,
            looks,
            state,
        })
    }

    /// What is remembered.
    #[must_use]
    pub fn state(&self) -> &RolloutState {
        &self.state
    }

    /// Seconds between two looks.
    #[must_use]
    pub fn look_every(&self) -> u64 {
        seconds(&self.config.look_every).unwrap_or(60).max(1)
    }

    /// Looks at what was counted since the rollout started. `share_bp` is where it stands, `held` says
    /// that a person must decide, `step_seconds` how long the step has lasted.
    pub fn look(
        &mut self,
        control: &ArmCounts,
        treatment: &ArmCounts,
        share_bp: u32,
        step_seconds: u64,
        held: bool,
    ) -> (Verdict, Vec<Reading>) {
        self.state.counts = vec![control.to_vec(), treatment.to_vec()];
        let requests = |arm: &ArmCounts| arm.iter().map(|group| group.requests).sum::<u64>();
        let (n_control, n_treatment) = (requests(control), requests(treatment));
        if held || share_bp == 0 || n_control.min(n_treatment) < self.config.min_requests.max(1) {
            return (Verdict::Wait, Vec::new());
        }
        #[expect(clippy::cast_precision_loss, reason = "counts")]
        let t = ((n_control + n_treatment) as f64 / self.config.max_requests as f64).min(1.0);
        let bound = self.looks.look(t);
        if self.state.looks.last().is_none_or(|&last| t > last) {
            self.state.looks.push(t);
        }
        let readings: Vec<Reading> = self
            .guardrails
            .iter()
            .map(|guardrail| guardrail.read(control, treatment, bound))
            .collect();
        (self.judge(&readings, share_bp, step_seconds), readings)
    }

    fn judge(&self, readings: &[Reading], share_bp: u32, step_seconds: u64) -> Verdict {
        let steps = &self.config.steps_bp;
        if let Some(broken) = readings.iter().find(|r| r.z_harm >= r.bound) {
            let before = steps.iter().rev().find(|&&step| step < share_bp);
            let to_bp = match self.config.on_breach {
                OnBreach::Zero => 0,
                OnBreach::Previous => before.copied().unwrap_or(0),
            };
            return Verdict::StepBack {
                to_bp,
                guardrail: broken.guardrail.clone(),
            };
        }
        if step_seconds < seconds(&self.config.min_hold).unwrap_or(u64::MAX) {
            return Verdict::Wait;
        }
        let Some(&next) = steps.iter().find(|&&step| step > share_bp) else {
            return Verdict::Complete;
        };
        let safe = readings.iter().all(|r| r.z_safe >= r.bound);
        if safe || self.config.on_inconclusive == OnInconclusive::Advance {
            return Verdict::Advance { to_bp: next };
        }
        Verdict::Hold
    }
}

impl Guardrail {
    fn read(&self, control: &ArmCounts, treatment: &ArmCounts, bound: f64) -> Reading {
        let harm = |cell: usize| {
            let (c, t) = (
                Sums::of(self.measure, control, cell),
                Sums::of(self.measure, treatment, cell),
            );
            (c, t)
        };
        let (cell, safe_cell) = match self.measure {
            Measure::Latency(quantile) => {
                let at = quantile_cell(control, quantile);
                let slack = ((1.0 + self.margin_rel).ln() / 1.1_f64.ln())
                    .round()
                    .max(0.0);
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "a small count of cells"
                )]
                let slack = slack as usize;
                (at, (at + slack).min(CELLS - 1))
            }
            _ => (0, 0),
        };
        let (c, t) = harm(cell);
        let z_harm = z_of(&c, &t, 0.0);
        let z_safe = match self.measure {
            // Treatment's requests beyond control's quantile and margin, against control's beyond
            // its quantile.
            Measure::Latency(_) => {
                let beyond = Sums::of(self.measure, treatment, safe_cell);
                -z_of(&c, &beyond, 0.0)
            }
            _ => {
                let margin = self.margin_abs.max(self.margin_rel * c.rate());
                -z_of(&c, &t, margin)
            }
        };
        Reading {
            guardrail: self.name.clone(),
            control: c.rate(),
            treatment: t.rate(),
            z_harm,
            z_safe,
            bound,
        }
    }
}

/// Requests and bad ones, by group.
struct Sums(Vec<(f64, f64)>);

impl Sums {
    #[expect(clippy::cast_precision_loss, reason = "counts")]
    fn of(measure: Measure, arm: &ArmCounts, cell: usize) -> Self {
        let bad = |group: &GroupCounts| match measure {
            Measure::Errors => group.errors,
            Measure::Empty => group.empty,
            Measure::Degraded => group.degraded,
            Measure::Latency(_) => group
                .latency
                .iter()
                .skip(cell + 1)
                .map(|&n| u64::from(n))
                .sum(),
        };
        let sums = arm.iter().map(|g| (g.requests as f64, bad(g) as f64));
        Self(sums.collect())
    }

    fn totals(&self) -> (f64, f64) {
        let add = |a: (f64, f64), b: &(f64, f64)| (a.0 + b.0, a.1 + b.1);
        self.0.iter().fold((0.0, 0.0), add)
    }

    fn rate(&self) -> f64 {
        let (n, bad) = self.totals();
        if n > 0.0 { bad / n } else { 0.0 }
    }

    /// Variance of the rate around `rate`, over groups.
    #[expect(clippy::cast_precision_loss, reason = "64 groups")]
    fn variance(&self, rate: f64) -> f64 {
        let (n, _) = self.totals();
        let groups = self.0.iter().filter(|group| group.0 > 0.0).count() as f64;
        if n <= 0.0 || groups < 2.0 {
            return f64::INFINITY;
        }
        let squares: f64 = self.0.iter().map(|(n, bad)| (bad - rate * n).powi(2)).sum();
        squares / (n * n) * groups / (groups - 1.0)
    }
}

/// Standard errors by which treatment's rate is above control's and `margin`.
fn z_of(control: &Sums, treatment: &Sums, margin: f64) -> f64 {
    let ((n_c, bad_c), (n_t, bad_t)) = (control.totals(), treatment.totals());
    let delta = treatment.rate() - control.rate() - margin;
    let pooled = (bad_c + bad_t) / (n_c + n_t);
    // The larger of three: by groups under the hypothesis that both arms are alike and without it, and
    // what independent requests would have, so that few bad ones in few groups do not look certain.
    let by_groups = |c: f64, t: f64| control.variance(c) + treatment.variance(t);
    let independent = pooled * (1.0 - pooled) * (1.0 / n_c + 1.0 / n_t);
    let variance = by_groups(pooled, pooled)
        .max(by_groups(control.rate(), treatment.rate()))
        .max(independent);
    if variance > 0.0 && variance.is_finite() {
        delta / variance.sqrt()
    } else if delta < 0.0 && variance == 0.0 {
        // No bad request in either arm: as safe as the margin is wide.
        f64::NEG_INFINITY
    } else {
        0.0
    }
}

/// The first cell that has at least `quantile` of the requests in it and below.
fn quantile_cell(arm: &ArmCounts, quantile: f64) -> usize {
    let mut cells = vec![0_u64; CELLS];
    for group in arm {
        for (sum, &n) in cells.iter_mut().zip(&group.latency) {
            *sum += u64::from(n);
        }
    }
    let total: u64 = cells.iter().sum();
    let mut below = 0;
    for (at, n) in cells.iter().enumerate() {
        below += n;
        #[expect(clippy::cast_precision_loss, reason = "counts")]
        if below as f64 >= quantile * total as f64 {
            return at;
        }
    }
    CELLS - 1
}

fn measure_of(name: &str) -> Option<Measure> {
    let [errors, empty, degraded] = LIVE_METRICS;
    match name {
        name if name == errors => Some(Measure::Errors),
        name if name == empty => Some(Measure::Empty),
        name if name == degraded => Some(Measure::Degraded),
        name => latency_quantile(name).map(Measure::Latency),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
kind = "rollout"
layer = "ranking"
epoch = 1
allocation_bp = 10000
rollout = { on_inconclusive = "hold", steps_bp = [100, 1000, 10000], min_hold = "10m", max_requests = 20000, alpha = 0.05 }
[[arm]]
name = "control"
variant = "plain"
[[arm]]
name = "treatment"
variant = "balanced"
[[metric]]
name = "error_rate"
role = "guardrail"
direction = "down"
margin_abs = 0.02
[[metric]]
name = "latency_p99"
role = "guardrail"
direction = "down"
margin_rel = 0.1
"#;

    fn monitor(text: &str) -> Monitor {
        let experiment: ExperimentConfig = toml::from_str(text).expect("valid");
        Monitor::new(&experiment, RolloutState::default()).expect("has live guardrails")
    }

    /// SplitMix64 (Steele, Lea and Flood, 2014), as a uniform.
    struct Uniform(u64);

    impl Uniform {
        fn next(&mut self) -> f64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.0;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
        }
    }

    /// Units that ask ten times each and differ in how often they fail: requests are not independent.
    struct Traffic {
        random: Uniform,
        arms: [Vec<GroupCounts>; 2],
    }

    impl Traffic {
        fn new(seed: u64) -> Self {
            Self {
                random: Uniform(seed),
                arms: std::array::from_fn(|_| vec![GroupCounts::default(); GROUPS]),
            }
        }

        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "small and positive"
        )]
        fn units(&mut self, units: usize, errors: [f64; 2], slower: [f64; 2]) {
            for _ in 0..units {
                let arm = usize::from(self.random.next() < 0.5);
                let group = (self.random.next() * GROUPS as f64) as usize;
                // Twice the rate for half of the units, none for the others.
                let rate = if self.random.next() < 0.5 {
                    2.0 * errors[arm]
                } else {
                    0.0
                };
                for _ in 0..10 {
                    let counts = &mut self.arms[arm][group];
                    counts.requests += 1;
                    counts.errors += u64::from(self.random.next() < rate);
                    let latency = -1_000.0 * slower[arm] * (1.0 - self.random.next()).ln();
                    counts.latency[cell_of(latency as u32)] += 1;
                }
            }
        }
    }

    #[test]
    fn thirty_percent_more_errors_are_stepped_back_at_the_first_look() {
        for seed in 0..100 {
            let mut traffic = Traffic::new(seed);
            traffic.units(200, [0.01, 0.31], [1.0, 1.0]);
            let [control, treatment] = &traffic.arms;
            let (verdict, readings) = monitor(TEXT).look(control, treatment, 1_000, 60, false);
            let expected = Verdict::StepBack {
                to_bp: 100,
                guardrail: "error_rate".to_owned(),
            };
            assert_eq!(verdict, expected, "{seed}: {readings:?}");
        }
    }

    #[test]
    fn twice_the_latency_is_stepped_back() {
        let mut traffic = Traffic::new(7);
        traffic.units(400, [0.01, 0.01], [1.0, 2.0]);
        let [control, treatment] = &traffic.arms;
        let (verdict, _) = monitor(TEXT).look(control, treatment, 100, 60, false);
        let expected = Verdict::StepBack {
            to_bp: 0,
            guardrail: "latency_p99".to_owned(),
        };
        assert_eq!(verdict, expected);
    }

    /// 1,000 harmless rollouts of five looks: at most the stated 5 % are stepped back, within three
    /// standard errors of the simulation.
    #[test]
    fn harmless_rollouts_are_stepped_back_at_most_at_the_stated_rate() {
        let text = TEXT.replace("max_requests = 20000", "max_requests = 5000");
        let mut stepped_back = 0;
        for seed in 0..1_000 {
            let mut traffic = Traffic::new(1_000_003 * (seed + 1));
            let mut monitor = monitor(&text);
            for _ in 0..5 {
                traffic.units(100, [0.05, 0.05], [1.0, 1.0]);
                let [control, treatment] = &traffic.arms;
                let (verdict, _) = monitor.look(control, treatment, 1_000, 60, false);
                if matches!(verdict, Verdict::StepBack { .. }) {
                    stepped_back += 1;
                    break;
                }
            }
        }
        println!("{stepped_back} of 1000 harmless rollouts were stepped back");
        assert!(stepped_back <= 70, "{stepped_back}");
    }

    #[test]
    fn a_safe_rollout_advances_when_its_hold_is_over() {
        let mut traffic = Traffic::new(3);
        traffic.units(1_800, [0.001, 0.001], [1.0, 0.5]);
        let [control, treatment] = &traffic.arms;
        let look = |share, seconds, held| {
            monitor(TEXT)
                .look(control, treatment, share, seconds, held)
                .0
        };
        assert_eq!(look(100, 599, false), Verdict::Wait);
        assert_eq!(look(100, 600, false), Verdict::Advance { to_bp: 1_000 });
        assert_eq!(look(10_000, 600, false), Verdict::Complete);
        assert_eq!(look(100, 600, true), Verdict::Wait);
        assert_eq!(look(0, 600, false), Verdict::Wait);
    }

    #[test]
    fn what_is_inconclusive_does_as_it_was_told() {
        let mut traffic = Traffic::new(5);
        traffic.units(100, [0.02, 0.02], [1.0, 1.0]);
        let [control, treatment] = &traffic.arms;
        let look = |text: &str| monitor(text).look(control, treatment, 100, 600, false).0;
        assert_eq!(look(TEXT), Verdict::Hold);
        let advance = TEXT.replace("\"hold\"", "\"advance\"");
        assert_eq!(look(&advance), Verdict::Advance { to_bp: 1_000 });
        let zero = TEXT.replace("\"hold\"", "\"hold\", on_breach = \"zero\"");
        let mut traffic = Traffic::new(5);
        traffic.units(200, [0.01, 0.31], [1.0, 1.0]);
        let [control, treatment] = &traffic.arms;
        let (verdict, _) = monitor(&zero).look(control, treatment, 1_000, 0, false);
        assert!(matches!(verdict, Verdict::StepBack { to_bp: 0, .. }));
    }

    #[test]
    fn a_restart_goes_on_with_the_spent_error_rate() {
        let mut traffic = Traffic::new(9);
        let mut through = monitor(TEXT);
        let mut bounds = Vec::new();
        for _ in 0..3 {
            traffic.units(100, [0.05, 0.05], [1.0, 1.0]);
            let [control, treatment] = &traffic.arms;
            let (_, readings) = through.look(control, treatment, 100, 0, false);
            bounds.push(readings[0].bound);
        }
        let text = serde_json::to_string(through.state()).expect("serialises");
        let state: RolloutState = serde_json::from_str(&text).expect("reads");
        assert_eq!(state.counts[0], traffic.arms[0]);
        let experiment: ExperimentConfig = toml::from_str(TEXT).expect("valid");
        let mut after = Monitor::new(&experiment, state).expect("has guardrails");
        let [control, treatment] = &traffic.arms;
        let (_, readings) = after.look(control, treatment, 100, 0, false);
        assert_eq!(readings[0].bound.to_bits(), bounds[2].to_bits());
    }

    #[test]
    fn cells_hold_latencies_in_order() {
        assert_eq!(
            (cell_of(0), cell_of(10), cell_of(u32::MAX)),
            (0, 0, CELLS - 1)
        );
        let cells: Vec<usize> = (1..60_000).map(cell_of).collect();
        assert!(cells.is_sorted());
    }
}
