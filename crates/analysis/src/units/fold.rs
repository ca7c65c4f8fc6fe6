//! All records of a unit to one row.

use rustc_hash::FxHashSet;

use super::{UnitRow, Value};
use crate::log::record::{self, Record};
use crate::log::symbols::Class;
use crate::plan::{ExposureValue, MetricType, Missing, Plan, Source, Window};

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
        let (outcomes, covariates) =
            rest.split_at(rest.partition_point(|r| r.kind == record::OUTCOME));
        let Some(first) = exposures.first() else {
            leftovers.outcomes_of_strangers += outcomes.len() as u64;
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
        };
        for metric in &self.plan.metrics {
            scratch.mature.push(match metric.window {
                Window::Closed { to_us, .. } => {
                    first
                        .ts
                        .saturating_add(to_us)
                        .saturating_add(self.plan.policy.settle)
                        <= self.cutoff_us
                }
                Window::Open => true,
            });
        }
        let mut day = (i64::MIN, 0_u32);
        for exposure in exposures {
            if exposures.len() > 1 && !scratch.ids.insert((exposure.value, 0)) {
                leftovers.duplicate_exposures += 1;
                continue;
            }
            let of = &self.classes[exposure.code as usize];
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
        for (at, metric) in self.plan.metrics.iter().enumerate() {
            let [y, d] = scratch.sums[at];
            let seen = scratch.seen[at];
            row.values.push(if !scratch.mature[at] {
                Value::Immature
            } else if !seen && metric.missing == Missing::Exclude {
                Value::Missing
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

fn daily(kind: MetricType, age: i64, value: f64, days: &mut [f64; AGES]) {
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
            ids: FxHashSet::default(),
        }
    }

    fn clear(&mut self) {
        self.sums.fill([0.0; 2]);
        self.seen.fill(false);
        self.mature.clear();
        self.x.fill(None);
        self.daily.fill([0.0; AGES]);
        self.ids.clear();
    }
}
