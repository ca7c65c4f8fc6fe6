//! All records of a unit to one row.

use rustc_hash::{FxHashMap, FxHashSet};

use super::{UnitRow, Value};
use crate::log::record::{self, Record};
use crate::log::symbols::Class;
use crate::methods::interleaving::Sessions;
use crate::plan::{ExposureValue, Kind, MetricType, Missing, Plan, Source, Window};

pub(crate) const DAY_US: i64 = 86_400_000_000;
/// Days since first exposure that the novelty curve looks at.
pub(crate) const AGES: usize = 14;

/// Which codes feed which metrics.
#[derive(Debug)]
pub(crate) struct Uses {
    /// Event names in the order of their codes.
    pub(crate) events: Vec<String>,
    /// Covariate names in the order of their codes.
    pub(crate) covariates: Vec<String>,
    by_event: Vec<Vec<Use>>,
    by_exposure: Vec<(ExposureValue, Use)>,
    covariate_of: Vec<Option<u32>>,
    /// Metrics whose daily values are kept.
    daily: Vec<bool>,
    /// Code of the event by which units take up what their arm offers.
    uptake: Option<u32>,
}

#[derive(Debug, Clone, Copy)]
struct Use {
    metric: usize,
    denominator: bool,
}

impl Uses {
    /// Of a plan.
    pub(crate) fn new(plan: &Plan) -> Self {
        let mut uses = Self {
            events: Vec::new(),
            covariates: Vec::new(),
            by_event: Vec::new(),
            by_exposure: Vec::new(),
            covariate_of: Vec::new(),
            daily: Vec::new(),
            uptake: None,
        };
        for (metric, declared) in plan.metrics.iter().enumerate() {
            uses.add(
                &declared.source,
                Use {
                    metric,
                    denominator: false,
                },
            );
            if let Some(source) = &declared.denominator {
                uses.add(
                    source,
                    Use {
                        metric,
                        denominator: true,
                    },
                );
            }
            let covariate = declared
                .covariate
                .as_ref()
                .map(|name| code(&mut uses.covariates, name));
            uses.covariate_of.push(covariate);
            uses.daily.push(
                matches!(declared.kind, MetricType::Mean | MetricType::Proportion)
                    && matches!(declared.source, Source::Event(_)),
            );
        }
        if let Some(event) = &plan.uptake {
            uses.uptake = Some(code(&mut uses.events, event));
            uses.by_event.resize(uses.events.len(), Vec::new());
        }
        uses
    }

    fn add(&mut self, source: &Source, by: Use) {
        match source {
            Source::Event(name) => {
                let at = code(&mut self.events, name) as usize;
                self.by_event.resize(self.events.len(), Vec::new());
                self.by_event[at].push(by);
            }
            Source::Exposure(value) => self.by_exposure.push((*value, by)),
        }
    }
}

fn code(names: &mut Vec<String>, name: &str) -> u32 {
    let at = names
        .iter()
        .position(|known| known == name)
        .unwrap_or_else(|| {
            names.push(name.to_owned());
            names.len() - 1
        });
    u32::try_from(at).unwrap_or(u32::MAX)
}

/// Something that is told about every unit.
pub(crate) trait Sink {
    /// A unit; `daily` holds a metric's value on each day since first exposure where it is kept.
    fn unit(&mut self, row: &UnitRow, daily: &[[f64; AGES]]);
    /// A value that a quantile metric counts, of the unit that comes next.
    fn event(&mut self, metric: usize, value: f64);
    /// A distinct exposure of the unit that comes next.
    fn exposure(&mut self, class: &Class, record: &Record);
    /// What did not become part of a unit.
    fn leftovers(&mut self, leftovers: &Leftovers);
    /// Takes over what another has gathered.
    fn merge(&mut self, other: Self)
    where
        Self: Sized;
}

/// Records that no unit uses, and why.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Leftovers {
    /// Exposures whose id was there before: retries.
    pub duplicate_exposures: u64,
    /// Outcomes whose id was there before.
    pub duplicate_outcomes: u64,
    /// Outcomes before the unit's first exposure.
    pub outcomes_before_exposure: u64,
    /// Outcomes of units that were never exposed.
    pub outcomes_of_strangers: u64,
    /// Covariates measured at or after first exposure.
    pub late_covariates: u64,
}

impl Leftovers {
    pub(crate) fn merge(&mut self, other: &Self) {
        self.duplicate_exposures += other.duplicate_exposures;
        self.duplicate_outcomes += other.duplicate_outcomes;
        self.outcomes_before_exposure += other.outcomes_before_exposure;
        self.outcomes_of_strangers += other.outcomes_of_strangers;
        self.late_covariates += other.late_covariates;
    }
}

/// What folding needs to know.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fold<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) uses: &'a Uses,
    pub(crate) classes: &'a [Class],
    /// Now, as far as the data goes.
    pub(crate) cutoff_us: i64,
}

impl Fold<'_> {
    /// Folds the sorted records of a partition, unit by unit.
    pub(crate) fn partition(&self, records: &[Record], sink: &mut dyn Sink) {
        let mut leftovers = Leftovers::default();
        let mut scratch = Scratch::new(self.plan.metrics.len());
        for unit in records.chunk_by(|a, b| a.unit == b.unit) {
            self.unit(unit, &mut scratch, &mut leftovers, sink);
        }
        sink.leftovers(&leftovers);
    }

    fn unit(
        &self,
        records: &[Record],
        scratch: &mut Scratch,
        leftovers: &mut Leftovers,
        sink: &mut dyn Sink,
    ) {
        let exposures = records.partition_point(|r| r.kind == record::EXPOSURE);
        let (exposures, rest) = records.split_at(exposures);
        let (outcomes, rest) = rest.split_at(rest.partition_point(|r| r.kind == record::OUTCOME));
        let (covariates, drafted) =
            rest.split_at(rest.partition_point(|r| r.kind == record::COVARIATE));
        let Some(first) = exposures.first() else {
            let credits = drafted.iter().filter(|r| r.kind == record::CREDIT).count();
            leftovers.outcomes_of_strangers += (outcomes.len() + credits) as u64;
            return;
        };
        scratch.clear();
        let class = &self.classes[first.code as usize];
        let mut row = UnitRow {
            class: class.clone(),
            first_us: first.ts,
            multi_arm: false,
            bot: false,
            values: Vec::new(),
            served: (vec![0; self.plan.arms.len()], 0),
            uptake_us: None,
            sessions: Vec::new(),
            first_picks: [0; 2],
        };
        for metric in &self.plan.metrics {
            let settled_us = self
                .cutoff_us
                .saturating_sub(self.plan.policy.settle)
                .saturating_sub(first.ts);
            scratch.mature.push(
                metric
                    .window
                    .ages_us()
                    .is_none_or(|(known_us, _)| known_us <= settled_us),
            );
            scratch.whole_days.push(match metric.window {
                Window::Daily { days } => {
                    usize::try_from(settled_us / DAY_US).map_or(0, |age| age.min(usize::from(days)))
                }
                _ => 0,
            });
        }
        let mut day = (i64::MIN, 0_u32);
        for exposure in exposures {
            if exposures.len() > 1 && !scratch.ids.insert((exposure.value, 0)) {
                leftovers.duplicate_exposures += 1;
                continue;
            }
            let of = &self.classes[exposure.code as usize];
            row.served.1 += 1;
            if let Some(times) = row.served.0.get_mut(of.served as usize) {
                *times += 1;
            }
            row.multi_arm |= of.arm != class.arm;
            row.bot |= self.plan.policy.drop_flagged && exposure.extra & record::BOT != 0;
            let today = exposure.ts.div_euclid(DAY_US);
            day = if day.0 == today {
                (today, day.1 + 1)
            } else {
                (today, 1)
            };
            row.bot |= day.1 > self.plan.policy.max_exposures_per_day;
            sink.exposure(of, exposure);
            for &(what, by) in &self.uses.by_exposure {
                let value = match what {
                    ExposureValue::Latency if exposure.extra & record::TIMED == 0 => continue,
                    ExposureValue::Latency => f64::from(exposure.latency_us()),
                    ExposureValue::Empty => flag(exposure.extra & record::EMPTY),
                    ExposureValue::Degraded => flag(exposure.extra & record::DEGRADED),
                    ExposureValue::Count => 1.0,
                };
                self.take(by, exposure.ts - first.ts, value, scratch, sink);
            }
        }
        scratch.ids.clear();
        for outcome in outcomes {
            if outcome.extra != 0 && !scratch.ids.insert((outcome.extra, outcome.code)) {
                leftovers.duplicate_outcomes += 1;
                continue;
            }
            let age = outcome.ts - first.ts;
            if age < 0 {
                leftovers.outcomes_before_exposure += 1;
                continue;
            }
            if self.uses.uptake == Some(outcome.code) && outcome.number() != 0.0 {
                // Sorted by time.
                row.uptake_us.get_or_insert(age);
            }
            for &by in &self.uses.by_event[outcome.code as usize] {
                self.take(by, age, outcome.number(), scratch, sink);
            }
        }
        for covariate in covariates {
            if covariate.ts >= first.ts {
                leftovers.late_covariates += 1;
                continue;
            }
            // Sorted by time: the last before first exposure stays.
            for (metric, code) in self.uses.covariate_of.iter().enumerate() {
                if *code == Some(covariate.code) {
                    scratch.x[metric] = Some(covariate.number());
                }
            }
        }
        if self.plan.kind == Kind::Interleave {
            self.sessions(exposures, drafted, scratch, &mut row, leftovers);
            sink.unit(&row, &scratch.daily);
            return;
        }
        for (at, metric) in self.plan.metrics.iter().enumerate() {
            let [y, d] = scratch.sums[at];
            let seen = scratch.seen[at];
            row.values.push(if !scratch.mature[at] {
                Value::Immature
            } else if !seen && metric.missing == Missing::Exclude {
                Value::Missing
            } else if let Window::Daily { .. } = metric.window {
                scratch.measurements(at, metric.cap)
            } else {
                let y = if metric.kind == MetricType::Proportion {
                    flag(u64::from(y != 0.0))
                } else {
                    y
                };
                let y = metric.cap.map_or(y, |cap| y.min(cap));
                Value::Known {
                    y,
                    d,
                    x: scratch.x[at],
                }
            });
        }
        sink.unit(&row, &scratch.daily);
    }

    /// Who won each answer of a unit, and so what it prefers: the mean over its answers in a metric's
    /// window of +1 where the second arm's items got more credit, −1 where the first arm's did, else 0.
    fn sessions(
        &self,
        exposures: &[Record],
        drafted: &[Record],
        scratch: &Scratch,
        row: &mut UnitRow,
        leftovers: &mut Leftovers,
    ) {
        let (items, credits) =
            drafted.split_at(drafted.partition_point(|r| r.kind == record::ITEM));
        // Copies of an exposure have the same items: the first counts.
        let mut answers: Vec<(u64, i64)> = Vec::with_capacity(exposures.len());
        let mut places: FxHashMap<u64, usize> = FxHashMap::default();
        for exposure in exposures {
            places.entry(exposure.value).or_insert_with(|| {
                answers.push((exposure.value, exposure.ts - row.first_us));
                answers.len() - 1
            });
        }
        let mut teams: FxHashMap<(u64, u64), usize> = FxHashMap::default();
        let mut first: Vec<Option<u32>> = vec![None; answers.len()];
        for item in items {
            teams.insert((item.value, item.extra), (item.code & 1) as usize);
            if let Some(&at) = places.get(&item.value) {
                // The place is in the upper bits.
                first[at] = Some(first[at].map_or(item.code, |known| known.min(item.code)));
            }
        }
        for code in first.into_iter().flatten() {
            row.first_picks[(code & 1) as usize] += 1;
        }
        let metrics = self.plan.metrics.len();
        let mut won = vec![[0_u64; 2]; answers.len() * metrics];
        let mut once: FxHashSet<(u64, u64, u32)> = FxHashSet::default();
        for credit in credits {
            let Some(&at) = places.get(&credit.value) else {
                leftovers.outcomes_of_strangers += 1;
                continue;
            };
            if !once.insert((credit.value, credit.extra, credit.code)) {
                leftovers.duplicate_outcomes += 1;
                continue;
            }
            let Some(&team) = teams.get(&(credit.value, credit.extra)) else {
                // Of the common beginning: of no team.
                continue;
            };
            for by in &self.uses.by_event[credit.code as usize] {
                won[at * metrics + by.metric][team] += 1;
            }
        }
        for (metric, declared) in self.plan.metrics.iter().enumerate() {
            let mut sessions = Sessions::default();
            for (at, (_, age)) in answers.iter().enumerate() {
                let inside = match declared.window {
                    Window::Closed { from_us, to_us } => (from_us..to_us).contains(age),
                    Window::Open | Window::Daily { .. } => true,
                };
                if inside {
                    let [a, b] = won[at * metrics + metric];
                    sessions.add(a, b);
                }
            }
            row.values
                .push(match (scratch.mature[metric], sessions.preference()) {
                    (false, _) => Value::Immature,
                    (true, None) => Value::Missing,
                    (true, Some(y)) => Value::Known { y, d: 0.0, x: None },
                });
            if !scratch.mature[metric] {
                sessions = Sessions::default();
            }
            row.sessions.push(sessions);
        }
    }

    fn take(&self, by: Use, age: i64, value: f64, scratch: &mut Scratch, sink: &mut dyn Sink) {
        let metric = &self.plan.metrics[by.metric];
        if let Window::Closed { from_us, to_us } = metric.window {
            if !by.denominator && self.uses.daily[by.metric] {
                daily(metric.kind, age, value, &mut scratch.daily[by.metric]);
            }
            if age < from_us || age >= to_us || !scratch.mature[by.metric] {
                return;
            }
        }
        if let Window::Daily { .. } = metric.window {
            if self.uses.daily[by.metric] {
                daily(metric.kind, age, value, &mut scratch.daily[by.metric]);
            }
            let days = scratch.whole_days[by.metric];
            let by_day = &mut scratch.by_day[by.metric];
            by_day.resize(days, 0.0);
            daily(metric.kind, age, value, by_day);
            scratch.seen[by.metric] = true;
            return;
        }
        let sums = &mut scratch.sums[by.metric];
        if by.denominator {
            sums[1] += value;
            // A ratio exists where its denominator does.
            scratch.seen[by.metric] = true;
            return;
        }
        match metric.kind {
            MetricType::Proportion => {
                if value != 0.0 {
                    sums[0] = 1.0;
                }
            }
            MetricType::Quantile(_) => {
                sink.event(by.metric, value);
                sums[0] += 1.0;
            }
            MetricType::Mean | MetricType::Ratio => sums[0] += value,
        }
        scratch.seen[by.metric] |= metric.kind != MetricType::Ratio;
    }
}

fn daily(kind: MetricType, age: i64, value: f64, days: &mut [f64]) {
    let Some(day) = usize::try_from(age / DAY_US)
        .ok()
        .and_then(|day| days.get_mut(day))
    else {
        return;
    };
    match kind {
        MetricType::Proportion => {
            if value != 0.0 {
                *day = 1.0;
            }
        }
        _ => *day += value,
    }
}

fn flag(bits: u64) -> f64 {
    if bits == 0 { 0.0 } else { 1.0 }
}

/// What is written over for every unit.
struct Scratch {
    sums: Vec<[f64; 2]>,
    seen: Vec<bool>,
    mature: Vec<bool>,
    x: Vec<Option<f64>>,
    daily: Vec<[f64; AGES]>,
    /// Of metrics measured every day: whole days of age that are over, and the value of each.
    whole_days: Vec<usize>,
    by_day: Vec<Vec<f64>>,
    ids: FxHashSet<(u64, u32)>,
}

impl Scratch {
    fn new(metrics: usize) -> Self {
        Self {
            sums: vec![[0.0; 2]; metrics],
            seen: vec![false; metrics],
            mature: Vec::with_capacity(metrics),
            x: vec![None; metrics],
            daily: vec![[0.0; AGES]; metrics],
            whole_days: Vec::with_capacity(metrics),
            by_day: vec![Vec::new(); metrics],
            ids: FxHashSet::default(),
        }
    }

    fn clear(&mut self) {
        self.sums.fill([0.0; 2]);
        self.seen.fill(false);
        self.mature.clear();
        self.x.fill(None);
        self.daily.fill([0.0; AGES]);
        self.whole_days.clear();
        for days in &mut self.by_day {
            days.clear();
        }
        self.ids.clear();
    }

    /// The days of a metric measured every day; those without an event are 0.
    #[expect(clippy::cast_precision_loss, reason = "days of a year")]
    fn measurements(&mut self, metric: usize, cap: Option<f64>) -> Value {
        let days = self.whole_days[metric];
        let by_day = &mut self.by_day[metric];
        by_day.resize(days, 0.0);
        if let Some(cap) = cap {
            for value in &mut *by_day {
                *value = value.min(cap);
            }
        }
        let mean = by_day.iter().sum::<f64>() / days.max(1) as f64;
        Value::Daily {
            days: u16::try_from(days).unwrap_or(u16::MAX),
            mean,
            within: by_day.iter().map(|v| (v - mean) * (v - mean)).sum(),
        }
    }
}
