//! A monitored rollout: two arms of equal weight inside a growing share, guardrails only.
//!
//! Requests of one unit are alike, so they are counted in [`GROUPS`] groups of units, and the spread
//! over groups is the error of an arm's rate (the delta method for a ratio of sums, by group instead
//! of by unit: bounded memory, and right whatever a unit's requests have in common). Harm is tested
//! one-sided at every look with a group-sequential bound.
//!
//! A rollout may stand for as long as its owner likes, and such a bound holds for the requests that were
//! planned. So its life is cut into *windows* of `max_requests` each. A window has requests and looks of
//! its own and a part of the error rate, `1 / ((w + 1) (w + 2))` of it in window `w` from 0 on: the parts
//! add up to 1. The part is split evenly over the guardrails. So a harmless rollout is stepped back with at
//! most the stated probability over its whole life.
//!
//! After a step back the rollout stands until a person ramps it; then a new window begins, and units are
//! counted anew. While the arms do not have the shares of units that their weights say ([`Units`]),
//! it does not advance: what is compared is not what was randomised.

use serde::{Deserialize, Serialize};

use crate::config::{ExperimentConfig, OnBreach, OnInconclusive, Role, RolloutConfig, seconds};
use crate::looks::{Looks, Spending};
use crate::preflight::{LIVE_METRICS, latency_quantile};
use crate::units::{SampleRatio, Units};

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
type ArmCounts = [GroupCounts];

impl GroupCounts {
    /// What came after `before`.
    fn since(&self, before: &Self) -> Self {
        let latency = self.latency.iter().zip(&before.latency);
        Self {
            requests: self.requests.saturating_sub(before.requests),
            errors: self.errors.saturating_sub(before.errors),
            empty: self.empty.saturating_sub(before.empty),
            degraded: self.degraded.saturating_sub(before.degraded),
            latency: latency
                .map(|(now, then)| now.saturating_sub(*then))
                .collect(),
        }
    }
}

/// What happened to the requests of both arms, and whose they were.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RolloutCounts {
    /// Control and treatment, [`GROUPS`] groups each.
    pub arms: [Vec<GroupCounts>; 2],
    /// Their distinct units.
    #[serde(default)]
    pub units: Units,
}

impl Default for RolloutCounts {
    fn default() -> Self {
        Self {
            arms: std::array::from_fn(|_| vec![GroupCounts::default(); GROUPS]),
            units: Units::default(),
        }
    }
}

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
#[serde(default)]
pub struct RolloutState {
    /// The window, from 0.
    pub window: u32,
    /// Information fractions at which looks were made in the window.
    pub looks: Vec<f64>,
    /// Counts since the rollout started, or since a person let it go on after a step back.
    pub counts: RolloutCounts,
    /// What of them was there before the window.
    pub before: [Vec<GroupCounts>; 2],
    /// Whether the window before ended with every guardrail within its margin.
    pub safe: bool,
    /// Step backs after which a person let it go on.
    pub step_backs: u32,
}

/// Where a rollout stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Its share, in basis points.
    pub share_bp: u32,
    /// How long it has had that share.
    pub step_seconds: u64,
    /// Whether it was stepped back and a person must decide.
    pub held: bool,
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
    /// Stays where it is: the arms do not have the shares of units that they should, see
    /// [`Monitor::ratio`].
    Uneven,
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
    /// Share of units that control should have.
    control_share: f64,
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
        let weight = |arm: usize| experiment.arms.get(arm).map_or(1.0, |arm| arm.weight);
        let mut looks = looks_of(config.alpha, guardrails.len(), state.window);
        for &t in &state.looks {
            looks.look(t);
        }
        Some(Self {
            config,
            guardrails,
            control_share: weight(0) / (weight(0) + weight(1)),
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

    /// Units of both arms at the last look.
    #[must_use]
    pub fn ratio(&self) -> SampleRatio {
        self.state.counts.units.ratio(self.control_share)
    }

    /// A person lets it go on after `step_backs` step backs: nothing of what was counted before counts,
    /// except for the error rate that it cost.
    pub fn restart(&mut self, step_backs: u32) {
        self.state.counts = RolloutCounts::default();
        self.next_window(false);
        self.state.step_backs = step_backs;
    }

    fn next_window(&mut self, safe: bool) {
        self.state.window = self.state.window.saturating_add(1);
        self.state.looks.clear();
        self.state.before.clone_from(&self.state.counts.arms);
        self.state.safe = safe;
        self.looks = looks_of(self.config.alpha, self.guardrails.len(), self.state.window);
    }

    /// Looks at what was counted since the rollout started, or since [`restart`](Self::restart).
    pub fn look(&mut self, counts: &RolloutCounts, at: Standing) -> (Verdict, Vec<Reading>) {
        self.state.counts.clone_from(counts);
        let [control, treatment] = self.window();
        let requests = |arm: &ArmCounts| arm.iter().map(|group| group.requests).sum::<u64>();
        let (n_control, n_treatment) = (requests(&control), requests(&treatment));
        let least = self.config.min_requests.max(1);
        if at.held || at.share_bp == 0 || n_control.min(n_treatment) < least {
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
            .map(|guardrail| guardrail.read(&control, &treatment, bound))
            .collect();
        let verdict = self.judge(&readings, at);
        // Harm is not forgotten before it is written down.
        if t >= 1.0 && !matches!(verdict, Verdict::StepBack { .. }) {
            self.next_window(is_safe(&readings));
        }
        (verdict, readings)
    }

    /// Counts of the window.
    fn window(&self) -> [Vec<GroupCounts>; 2] {
        std::array::from_fn(|arm| {
            let before = &self.state.before[arm];
            let now = self.state.counts.arms[arm].iter().enumerate();
            now.map(|(at, now)| match before.get(at) {
                Some(before) => now.since(before),
                None => now.clone(),
            })
            .collect()
        })
    }

    fn judge(&self, readings: &[Reading], at: Standing) -> Verdict {
        let steps = &self.config.steps_bp;
        if let Some(broken) = readings.iter().find(|r| r.z_harm >= r.bound) {
            let before = steps.iter().rev().find(|&&step| step < at.share_bp);
            let to_bp = match self.config.on_breach {
                OnBreach::Zero => 0,
                OnBreach::Previous => before.copied().unwrap_or(0),
            };
            return Verdict::StepBack {
                to_bp,
                guardrail: broken.guardrail.clone(),
            };
        }
        if self.ratio().is_off() {
            return Verdict::Uneven;
        }
        if at.step_seconds < seconds(&self.config.min_hold).unwrap_or(u64::MAX) {
            return Verdict::Wait;
        }
        let Some(&next) = steps.iter().find(|&&step| step > at.share_bp) else {
            return Verdict::Complete;
        };
        // A window that has just begun has not lost what the one before has shown.
        let safe = self.state.safe || is_safe(readings);
        if safe || self.config.on_inconclusive == OnInconclusive::Advance {
            return Verdict::Advance { to_bp: next };
        }
        Verdict::Hold
    }
}

/// The test of a window, its error rate split over guardrails.
#[expect(clippy::cast_precision_loss, reason = "at most 64 guardrails")]
fn looks_of(alpha: f64, guardrails: usize, window: u32) -> Looks {
    let (window, guardrails) = (f64::from(window), guardrails.max(1) as f64);
    let part = alpha / ((window + 1.0) * (window + 2.0)) / guardrails;
    Looks::new(part, Spending::Power(2.0))
}

fn is_safe(readings: &[Reading]) -> bool {
    readings.iter().all(|r| r.z_safe >= r.bound)
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
        counts: RolloutCounts,
    }

    impl Traffic {
        fn new(seed: u64) -> Self {
            Self {
                random: Uniform(seed),
                counts: RolloutCounts::default(),
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
                let hash = self
                    .random
                    .next()
                    .to_bits()
                    .wrapping_mul(0x9e37_79b9_7f4a_7c15);
                self.counts.units.see(arm, hash);
                // Twice the rate for half of the units, none for the others.
                let rate = if self.random.next() < 0.5 {
                    2.0 * errors[arm]
                } else {
                    0.0
                };
                for _ in 0..10 {
                    let counts = &mut self.counts.arms[arm][group];
                    counts.requests += 1;
                    counts.errors += u64::from(self.random.next() < rate);
                    let latency = -1_000.0 * slower[arm] * (1.0 - self.random.next()).ln();
                    counts.latency[cell_of(latency as u32)] += 1;
                }
            }
        }
    }

    fn at(share_bp: u32, step_seconds: u64) -> Standing {
        Standing {
            share_bp,
            step_seconds,
            held: false,
        }
    }

    #[test]
    fn thirty_percent_more_errors_are_stepped_back_at_the_first_look() {
        for seed in 0..100 {
            let mut traffic = Traffic::new(seed);
            traffic.units(200, [0.01, 0.31], [1.0, 1.0]);
            let (verdict, readings) = monitor(TEXT).look(&traffic.counts, at(1_000, 60));
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
        let (verdict, _) = monitor(TEXT).look(&traffic.counts, at(100, 60));
        let expected = Verdict::StepBack {
            to_bp: 0,
            guardrail: "latency_p99".to_owned(),
        };
        assert_eq!(verdict, expected);
    }

    /// 1,000 harmless rollouts that go on for ten times `max_requests`, with five looks at the first
    /// window and two at each later one: at most the stated 5 % are stepped back, within three standard
    /// errors of the simulation.
    #[test]
    fn harmless_rollouts_are_stepped_back_at_most_at_the_stated_rate() {
        let text = TEXT.replace("max_requests = 20000", "max_requests = 2000");
        let mut stepped_back = [0_u32; 10];
        for seed in 0..1_000 {
            let mut traffic = Traffic::new(1_000_003 * (seed + 1));
            let mut monitor = monitor(&text);
            'life: for (window, stepped_back) in (0..).zip(&mut stepped_back) {
                for units in [&[40; 5][..], &[100; 2]][usize::from(window > 0)] {
                    assert_eq!(monitor.state().window, window);
                    traffic.units(*units, [0.05, 0.05], [1.0, 1.0]);
                    let (verdict, _) = monitor.look(&traffic.counts, at(1_000, 60));
                    assert_ne!(verdict, Verdict::Uneven);
                    if matches!(verdict, Verdict::StepBack { .. }) {
                        *stepped_back += 1;
                        break 'life;
                    }
                }
            }
        }
        let sum: u32 = stepped_back.iter().sum();
        println!("{sum} of 1000 harmless rollouts were stepped back, by window {stepped_back:?}");
        assert!(sum <= 70, "{stepped_back:?}");
    }

    /// What appears late is found late, and as surely.
    #[test]
    fn harm_is_found_in_a_later_window() {
        let text = TEXT
            .replace("max_requests = 20000", "max_requests = 4000")
            .replace("alpha = 0.05", "alpha = 0.0005");
        for seed in 0..20 {
            let (mut traffic, mut monitor) = (Traffic::new(77 + seed), monitor(&text));
            for window in 0..5 {
                assert_eq!(monitor.state().window, window);
                traffic.units(400, [0.01, 0.01], [1.0, 1.0]);
                let (verdict, readings) = monitor.look(&traffic.counts, at(1_000, 60));
                assert_eq!(verdict, Verdict::Wait, "{readings:?}");
            }
            traffic.units(200, [0.01, 0.31], [1.0, 1.0]);
            let (verdict, readings) = monitor.look(&traffic.counts, at(1_000, 60));
            assert!(matches!(verdict, Verdict::StepBack { .. }), "{readings:?}");
            // Asked again because nobody could write it down: it is still there.
            assert_eq!(monitor.look(&traffic.counts, at(1_000, 60)).0, verdict);
        }
    }

    #[test]
    fn a_safe_rollout_advances_when_its_hold_is_over() {
        let mut traffic = Traffic::new(3);
        traffic.units(1_800, [0.001, 0.001], [1.0, 0.5]);
        let look = |at| monitor(TEXT).look(&traffic.counts, at).0;
        assert_eq!(look(at(100, 599)), Verdict::Wait);
        assert_eq!(look(at(100, 600)), Verdict::Advance { to_bp: 1_000 });
        assert_eq!(look(at(10_000, 600)), Verdict::Complete);
        let held = Standing {
            held: true,
            ..at(100, 600)
        };
        assert_eq!(look(held), Verdict::Wait);
        assert_eq!(look(at(0, 600)), Verdict::Wait);
    }

    /// A window that was safe to its end vouches for the step while the next one fills.
    #[test]
    fn what_a_window_has_shown_outlives_it() {
        let (mut traffic, mut monitor) = (Traffic::new(3), monitor(TEXT));
        traffic.units(2_000, [0.001, 0.001], [1.0, 0.5]);
        assert_eq!(monitor.look(&traffic.counts, at(100, 599)).0, Verdict::Wait);
        assert!(monitor.state().safe && monitor.state().window == 1);
        traffic.units(60, [0.001, 0.001], [1.0, 1.0]);
        let (verdict, readings) = monitor.look(&traffic.counts, at(100, 600));
        assert!(!is_safe(&readings), "too few to say: {readings:?}");
        assert_eq!(verdict, Verdict::Advance { to_bp: 1_000 });
    }

    #[test]
    fn arms_without_their_share_of_units_do_not_advance() {
        let mut traffic = Traffic::new(3);
        traffic.units(1_800, [0.001, 0.001], [1.0, 0.5]);
        let mut lossy = traffic.counts.clone();
        lossy.units = Units::default();
        for unit in 0..1_800_u64 {
            // Four of treatment to five of control.
            let hash = unit.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            lossy.units.see(usize::from(unit % 9 < 4), hash);
        }
        let weighed = TEXT.replace("name = \"control\"", "name = \"control\"\nweight = 1.25");
        for (text, expected) in [
            (TEXT, Verdict::Uneven),
            (weighed.as_str(), Verdict::Advance { to_bp: 1_000 }),
        ] {
            let mut monitor = monitor(text);
            let (verdict, _) = monitor.look(&lossy, at(100, 600));
            assert_eq!(verdict, expected, "{:?}", monitor.ratio());
        }
        // Harm goes first.
        let mut harmful = Traffic::new(5);
        harmful.units(200, [0.01, 0.31], [1.0, 1.0]);
        lossy.arms = harmful.counts.arms;
        let (verdict, _) = monitor(TEXT).look(&lossy, at(100, 600));
        assert!(matches!(verdict, Verdict::StepBack { .. }));
    }

    #[test]
    fn a_person_who_lets_it_go_on_begins_a_window() {
        let (mut traffic, mut monitor) = (Traffic::new(5), monitor(TEXT));
        traffic.units(200, [0.01, 0.31], [1.0, 1.0]);
        let (verdict, readings) = monitor.look(&traffic.counts, at(1_000, 60));
        assert!(matches!(verdict, Verdict::StepBack { .. }));
        monitor.restart(1);
        let state = monitor.state();
        assert_eq!((state.window, state.step_backs), (1, 1));
        assert_eq!(state.counts, RolloutCounts::default());
        // What was mended is not stepped back for what it was, and costs a stricter bound.
        let mut traffic = Traffic::new(6);
        traffic.units(200, [0.01, 0.01], [1.0, 1.0]);
        let (verdict, after) = monitor.look(&traffic.counts, at(1_000, 60));
        assert_eq!(verdict, Verdict::Wait);
        assert!(after[0].bound > readings[0].bound, "{after:?} {readings:?}");
    }

    #[test]
    fn what_is_inconclusive_does_as_it_was_told() {
        let mut traffic = Traffic::new(5);
        traffic.units(100, [0.02, 0.02], [1.0, 1.0]);
        let look = |text: &str| monitor(text).look(&traffic.counts, at(100, 600)).0;
        assert_eq!(look(TEXT), Verdict::Hold);
        let advance = TEXT.replace("\"hold\"", "\"advance\"");
        assert_eq!(look(&advance), Verdict::Advance { to_bp: 1_000 });
        let zero = TEXT.replace("\"hold\"", "\"hold\", on_breach = \"zero\"");
        let mut traffic = Traffic::new(5);
        traffic.units(200, [0.01, 0.31], [1.0, 1.0]);
        let (verdict, _) = monitor(&zero).look(&traffic.counts, at(1_000, 0));
        assert!(matches!(verdict, Verdict::StepBack { to_bp: 0, .. }));
    }

    #[test]
    fn a_restart_goes_on_with_the_spent_error_rate() {
        let text = TEXT.replace("max_requests = 20000", "max_requests = 3000");
        let (mut traffic, mut through) = (Traffic::new(9), monitor(&text));
        let mut bounds = Vec::new();
        for _ in 0..5 {
            traffic.units(100, [0.05, 0.05], [1.0, 1.0]);
            let (_, readings) = through.look(&traffic.counts, at(100, 0));
            bounds.push(readings[0].bound);
        }
        assert_eq!(
            (through.state().window, through.state().looks.len()),
            (1, 2)
        );
        let written = serde_json::to_string(through.state()).expect("serialises");
        let state: RolloutState = serde_json::from_str(&written).expect("reads");
        assert_eq!(&state, through.state());
        let experiment: ExperimentConfig = toml::from_str(&text).expect("valid");
        let mut after = Monitor::new(&experiment, state).expect("has guardrails");
        let (_, readings) = after.look(&traffic.counts, at(100, 0));
        assert_eq!(readings[0].bound.to_bits(), bounds[4].to_bits());
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
