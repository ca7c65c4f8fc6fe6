//! Everything that the verdict needs to know of the units, as sums that merge exactly.

use std::collections::BTreeMap;

use rustc_hash::FxHashMap;

use super::fold::{AGES, Leftovers, Sink};
use super::histogram::Histogram;
use super::{UnitRow, Value};
use crate::log::record::{self, Record};
use crate::log::symbols::Class;
use crate::methods::interleaving::Sessions;
use crate::methods::longitudinal::Units;
use crate::methods::moments::{Moments, Tally};
use crate::methods::policy::learns;
use crate::plan::{Kind, MetricType, Plan, Role, Window};

/// A cell of sums: a metric, an arm, and which of its units.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Cell {
    pub(crate) metric: u16,
    pub(crate) arm: u16,
    /// Weights that were in force at first exposure.
    pub(crate) stratum: u16,
    pub(crate) of: Of,
}

/// Which units, or which part of their value, a cell sums.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Of {
    /// All: columns `[y, (d), (x, unknown x)]`.
    All,
    /// Those that became complete on a UTC day (days since 1970): columns as for all.
    Completed(i32),
    /// Those whose first exposure has this value of a declared segment: columns `[y, (d)]`.
    Segment(u16, u32),
    /// The same, of an honest split: those that learn which arm is best for this value, and those that value
    /// the choice.
    Half(u16, u32, bool),
    /// Those of the control in one half by a hash, to hold the control against itself: columns `[y, (d)]`.
    Reference(bool),
    /// Value on one day since first exposure, of units old enough for all of them: `[y]`.
    Age(u16),
    /// Day 1, week 1 and week 2, units old enough each: `[y]`.
    Period(u16),
    /// Week 2 minus week 1, by unit: `[y]`.
    WeekTwoMinusOne,
    /// All, with what they took up of this treatment: `[y, uptake]`.
    Uptake(u16),
    /// Those of a metric measured every day that have so many days: `[mean of a day, sum of squares
    /// within]`.
    Measured(u16),
}

/// Why units are counted: which attribute of the first exposure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Attribute {
    All,
    /// Weights in force.
    Stratum,
    Day,
    IndexVersion,
    Segment(u16),
    /// Seen in several arms.
    MultiArm,
    Bot,
}

/// What it is that units take up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Uptake {
    /// The share of a unit's answers in which the treatment was served.
    Served,
    /// 1 for a unit with the plan's uptake event before the metric's window is over.
    Event,
}

/// Requests of an arm.
#[derive(Debug, Clone, Default)]
pub(crate) struct Operation {
    pub(crate) requests: u64,
    pub(crate) empty: u64,
    pub(crate) degraded: u64,
    pub(crate) served_other: u64,
    pub(crate) latency: Histogram,
    /// Sum of the latencies: exact, so that it merges to the same bits.
    pub(crate) latency_us: u64,
}

/// Sums over units; merges in any order to the same bits.
#[derive(Debug)]
pub struct Statistics {
    arms: usize,
    cutoff_us: i64,
    shapes: Vec<Shape>,
    weeks: bool,
    pub(crate) cells: FxHashMap<Cell, Tally>,
    pub(crate) units: FxHashMap<(Attribute, u32, u16), u64>,
    /// Mature units without a value, by metric and arm.
    pub(crate) missing: BTreeMap<(u16, u16), u64>,
    /// Units too young, by metric and arm.
    pub(crate) immature: BTreeMap<(u16, u16), u64>,
    pub(crate) operation: Vec<Operation>,
    /// Values of quantile metrics, by metric and arm.
    pub(crate) events: BTreeMap<(u16, u16), Histogram>,
    pub(crate) leftovers: Leftovers,
    pub(crate) first_us: Option<(i64, i64)>,
    /// Units and the sum of their first exposures, by index version and arm.
    pub(crate) firsts: BTreeMap<(u32, u16), (u64, i128)>,
    /// Of an interleaved experiment: sessions by metric, and answers by whose item came first.
    pub(crate) sessions: BTreeMap<u16, Sessions>,
    pub(crate) first_picks: [u64; 2],
    uptake: Option<Uptake>,
    pending: Vec<(usize, f64)>,
    pending_operation: Operation,
    pending_latency: Vec<u32>,
    /// Whether the unit that comes next learns; unknown in a table of units.
    pending_learns: Option<bool>,
    /// Values a unit could not add, because they are not finite.
    pub(crate) refused: u64,
}

#[derive(Debug, Clone, Copy)]
struct Shape {
    ratio: bool,
    quantile: bool,
    covariate: bool,
    segments: usize,
    /// End of the window plus what is waited for; `None` while the window is open.
    complete_after_us: Option<i64>,
    /// End of the window, if it has one.
    final_us: Option<i64>,
    periods: bool,
    /// Segments are kept by halves, to choose arms by them.
    halves: bool,
    /// The control is kept by halves, to be held against itself.
    reference: bool,
}

/// Of the honest split: no seed that deals out arms.
const SPLIT_SEED: u64 = 0x706f_6c69_6379;

const DAY_US: i64 = super::fold::DAY_US;
/// Latest day of the completion curve, since 1970: in the year 2260.
const MAX_DAYS: i64 = 106_000;

impl Statistics {
    pub(crate) fn new(plan: &Plan, cutoff_us: i64) -> Self {
        let shapes = plan
            .metrics
            .iter()
            .map(|metric| Shape {
                ratio: metric.kind == MetricType::Ratio,
                quantile: matches!(metric.kind, MetricType::Quantile(_)),
                covariate: metric.covariate.is_some(),
                segments: plan.segments.len(),
                complete_after_us: match metric.window {
                    Window::Closed { to_us, .. } => Some(to_us + plan.policy.settle),
                    Window::Open | Window::Daily { .. } => None,
                },
                final_us: metric.window.ages_us().map(|(_, final_us)| final_us),
                periods: plan.kind != Kind::Interleave
                    && matches!(metric.kind, MetricType::Mean | MetricType::Proportion)
                    && matches!(metric.source, crate::plan::Source::Event(_))
                    && metric.window != Window::Open,
                halves: plan.kind == Kind::Ab
                    && metric.role == Role::Success
                    && matches!(metric.kind, MetricType::Mean | MetricType::Proportion)
                    && metric.window != Window::Open,
                reference: plan.kind != Kind::Interleave
                    && metric.role.decides()
                    && !matches!(metric.kind, MetricType::Quantile(_))
                    && metric.window != Window::Open,
            })
            .collect();
        Self {
            arms: plan.arms.len(),
            cutoff_us,
            shapes,
            weeks: true,
            cells: FxHashMap::default(),
            units: FxHashMap::default(),
            missing: BTreeMap::new(),
            immature: BTreeMap::new(),
            operation: vec![Operation::default(); plan.arms.len()],
            events: BTreeMap::new(),
            leftovers: Leftovers::default(),
            first_us: None,
            firsts: BTreeMap::new(),
            sessions: BTreeMap::new(),
            first_picks: [0; 2],
            uptake: None,
            pending: Vec::new(),
            pending_operation: Operation::default(),
            pending_latency: Vec::new(),
            pending_learns: None,
            refused: 0,
        }
    }

    /// Keeps what units took up beside their values.
    pub(crate) fn with_uptake(mut self, uptake: Option<Uptake>) -> Self {
        self.uptake = uptake;
        self
    }

    /// Without the daily curves, for a table that does not have them.
    pub(crate) fn without_days(mut self) -> Self {
        self.weeks = false;
        self
    }

    /// Adds a unit.
    pub(crate) fn add(&mut self, row: &UnitRow, daily: &[[f64; AGES]]) {
        let Ok(arm) = u16::try_from(row.class.arm) else {
            return;
        };
        self.first_us = Some(
            self.first_us
                .map_or((row.first_us, row.first_us), |(a, b)| {
                    (a.min(row.first_us), b.max(row.first_us))
                }),
        );
        let day = i32::try_from(row.first_us.div_euclid(DAY_US)).unwrap_or(0);
        for (attribute, value) in [
            (Attribute::All, 0),
            (Attribute::Stratum, row.class.weights),
            (Attribute::Day, day.cast_unsigned()),
            (Attribute::IndexVersion, row.class.index_version),
        ] {
            self.count(attribute, value, arm);
        }
        let segments = self.shapes.first().map_or(0, |shape| shape.segments);
        for (at, &value) in (0..).zip(row.class.segments.iter().take(segments)) {
            self.count(Attribute::Segment(at), value, arm);
        }
        if row.multi_arm {
            self.count(Attribute::MultiArm, 0, arm);
        }
        if row.bot {
            self.count(Attribute::Bot, 0, arm);
        }
        let learns = self.pending_learns.take();
        if row.multi_arm || row.bot {
            self.pending.clear();
            self.pending_latency.clear();
            self.pending_operation = Operation::default();
            return;
        }
        let firsts = self
            .firsts
            .entry((row.class.index_version, arm))
            .or_default();
        firsts.0 += 1;
        firsts.1 += i128::from(row.first_us);
        let pending = std::mem::take(&mut self.pending_operation);
        if let Some(operation) = self.operation.get_mut(usize::from(arm)) {
            operation.merge(&pending);
            for latency in self.pending_latency.drain(..) {
                operation.latency.add(f64::from(latency));
                operation.latency_us += u64::from(latency);
            }
        }
        for (metric, value) in self.pending.drain(..) {
            let key = (u16::try_from(metric).unwrap_or(u16::MAX), arm);
            self.events.entry(key).or_default().add(value);
        }
        for (at, sessions) in (0..).zip(&row.sessions) {
            self.sessions.entry(at).or_default().merge(sessions);
        }
        for (sum, picks) in self.first_picks.iter_mut().zip(row.first_picks) {
            *sum += picks;
        }
        let stratum = u16::try_from(row.class.weights).unwrap_or(u16::MAX);
        for (metric, value) in row.values.iter().enumerate() {
            self.metric(metric, arm, stratum, row, *value, learns);
            if self.weeks && self.shapes[metric].periods {
                self.days(metric, arm, stratum, row.first_us, daily.get(metric));
            }
        }
    }

    fn metric(
        &mut self,
        metric: usize,
        arm: u16,
        stratum: u16,
        row: &UnitRow,
        value: Value,
        learns: Option<bool>,
    ) {
        let shape = self.shapes[metric];
        let at = u16::try_from(metric).unwrap_or(u16::MAX);
        let (y, d, x) = match value {
            Value::Immature => return *self.immature.entry((at, arm)).or_insert(0) += 1,
            Value::Missing => return *self.missing.entry((at, arm)).or_insert(0) += 1,
            Value::Known { y, d, x } => (y, d, x),
            // Counted, and described by segment, as the mean of a day.
            Value::Daily { days, mean, within } => {
                let cell = Cell {
                    metric: at,
                    arm,
                    stratum,
                    of: Of::Measured(days),
                };
                self.push(cell, &[mean, within]);
                (mean, 0.0, None)
            }
        };
        if !shape.ratio && !shape.quantile {
            self.taken_up(metric, arm, stratum, row, y);
        }
        let mut columns = [y, d, 0.0, 0.0];
        let plain = if shape.ratio { 2 } else { 1 };
        let mut width = plain;
        if shape.covariate {
            columns[width] = x.unwrap_or(0.0);
            columns[width + 1] = if x.is_none() { 1.0 } else { 0.0 };
            width += 2;
        }
        let cell = |of| Cell {
            metric: at,
            arm,
            stratum,
            of,
        };
        // Where units are summed by the day they became complete, `finish` makes the whole of that.
        let of = match shape.complete_after_us {
            Some(after) if !shape.quantile && self.weeks => {
                let day = row
                    .first_us
                    .saturating_add(after)
                    .div_euclid(DAY_US)
                    .clamp(0, MAX_DAYS);
                Of::Completed(i32::try_from(day).unwrap_or(0))
            }
            _ => Of::All,
        };
        self.push(cell(of), &columns[..width]);
        if let Some(half) = learns.filter(|_| shape.reference && arm == 0) {
            self.push(cell(Of::Reference(half)), &columns[..plain]);
        }
        if !shape.quantile {
            for (segment, &value) in (0..).zip(row.class.segments.iter().take(shape.segments)) {
                let of = match learns.filter(|_| shape.halves) {
                    Some(learns) => Of::Half(segment, value, learns),
                    None => Of::Segment(segment, value),
                };
                self.push(cell(of), &columns[..plain]);
            }
        }
    }

    /// A unit of the control says what goes on without each treatment.
    fn taken_up(&mut self, metric: usize, arm: u16, stratum: u16, row: &UnitRow, y: f64) {
        let Some(uptake) = self.uptake else { return };
        let arms = u16::try_from(self.arms).unwrap_or(u16::MAX);
        for treatment in 1..arms {
            if arm != 0 && arm != treatment {
                continue;
            }
            let d = match uptake {
                Uptake::Event => {
                    let over = self.shapes[metric].final_us.unwrap_or(i64::MAX);
                    f64::from(u8::from(row.uptake_us.is_some_and(|age| age < over)))
                }
                Uptake::Served => {
                    let times = row.served.0.get(usize::from(treatment)).copied();
                    f64::from(times.unwrap_or(0)) / f64::from(row.served.1.max(1))
                }
            };
            let cell = Cell {
                metric: u16::try_from(metric).unwrap_or(u16::MAX),
                arm,
                stratum,
                of: Of::Uptake(treatment),
            };
            self.push(cell, &[y, d]);
        }
    }

    fn days(
        &mut self,
        metric: usize,
        arm: u16,
        stratum: u16,
        first_us: i64,
        days: Option<&[f64; AGES]>,
    ) {
        let Some(days) = days else { return };
        let at = u16::try_from(metric).unwrap_or(u16::MAX);
        let cell = |of| Cell {
            metric: at,
            arm,
            stratum,
            of,
        };
        let age = (self.cutoff_us - first_us) / DAY_US;
        let sum = |range: std::ops::Range<usize>| days[range].iter().sum::<f64>();
        if age >= 1 {
            self.push(cell(Of::Period(0)), &[sum(0..1)]);
        }
        if age >= 7 {
            self.push(cell(Of::Period(1)), &[sum(0..7) / 7.0]);
        }
        if age >= 14 {
            self.push(cell(Of::Period(2)), &[sum(7..14) / 7.0]);
            self.push(cell(Of::WeekTwoMinusOne), &[(sum(7..14) - sum(0..7)) / 7.0]);
            for (day, value) in (0..).zip(days) {
                self.push(cell(Of::Age(day)), &[*value]);
            }
        }
    }

    fn push(&mut self, cell: Cell, columns: &[f64]) {
        let tally = self
            .cells
            .entry(cell)
            .or_insert_with(|| Tally::new(columns.len()));
        self.refused += u64::from(tally.push(columns).is_err());
    }

    fn count(&mut self, attribute: Attribute, value: u32, arm: u16) {
        *self.units.entry((attribute, value, arm)).or_insert(0) += 1;
    }

    /// Adds up what was kept apart by day and by half. Once, at the end.
    pub(crate) fn finish(&mut self) {
        let mut wholes: FxHashMap<Cell, Tally> = FxHashMap::default();
        for (cell, tally) in &self.cells {
            let of = match cell.of {
                Of::Completed(_) => Of::All,
                Of::Half(segment, value, _) => Of::Segment(segment, value),
                _ => continue,
            };
            match wholes.entry(Cell { of, ..*cell }) {
                std::collections::hash_map::Entry::Occupied(mut whole) => {
                    self.refused += u64::from(whole.get_mut().merge(tally).is_err());
                }
                std::collections::hash_map::Entry::Vacant(free) => {
                    free.insert(tally.clone());
                }
            }
        }
        self.cells.extend(wholes);
    }

    /// Units by arm of one value of an attribute.
    pub(crate) fn units_of(&self, attribute: Attribute, value: u32) -> Vec<u64> {
        (0..self.arms)
            .map(|arm| {
                let arm = u16::try_from(arm).unwrap_or(u16::MAX);
                self.units
                    .get(&(attribute, value, arm))
                    .copied()
                    .unwrap_or(0)
            })
            .collect()
    }

    /// Values of an attribute that units have, in order.
    pub(crate) fn values_of(&self, attribute: Attribute) -> Vec<u32> {
        let mut values: Vec<u32> = self
            .units
            .keys()
            .filter(|(of, _, _)| *of == attribute)
            .map(|(_, value, _)| *value)
            .collect();
        values.sort_unstable();
        values.dedup();
        values
    }

    /// Moments of a metric's cell over some strata together; `None` without units.
    pub(crate) fn moments(
        &self,
        metric: usize,
        arm: usize,
        strata: &[u16],
        of: Of,
    ) -> Option<Moments> {
        self.tally(metric, arm, strata, of)
            .map(|tally| tally.moments())
    }

    /// Sums of a metric's cell over some strata together; `None` without units.
    pub(crate) fn tally(&self, metric: usize, arm: usize, strata: &[u16], of: Of) -> Option<Tally> {
        let mut sum: Option<Tally> = None;
        for &stratum in strata {
            let cell = Cell {
                metric: u16::try_from(metric).ok()?,
                arm: u16::try_from(arm).ok()?,
                stratum,
                of,
            };
            let Some(tally) = self.cells.get(&cell) else {
                continue;
            };
            match &mut sum {
                Some(sum) => sum.merge(tally).ok()?,
                None => sum = Some(tally.clone()),
            }
        }
        sum
    }

    /// Strata that have units, in order.
    pub(crate) fn strata(&self) -> Vec<u16> {
        self.values_of(Attribute::Stratum)
            .into_iter()
            .filter_map(|stratum| u16::try_from(stratum).ok())
            .collect()
    }

    /// Units of a metric measured every day, by their number of days; `None` without units.
    pub(crate) fn measured(&self, metric: usize, arm: usize, strata: &[u16]) -> Option<Units> {
        let mut days: Vec<u16> = self
            .cells
            .keys()
            .filter(|cell| usize::from(cell.metric) == metric && usize::from(cell.arm) == arm)
            .filter_map(|cell| match cell.of {
                Of::Measured(days) => Some(days),
                _ => None,
            })
            .collect();
        days.sort_unstable();
        days.dedup();
        let mut units = Units::default();
        for days in days {
            if let Some(moments) = self.moments(metric, arm, strata, Of::Measured(days)) {
                units.add_class(u64::from(days), &moments).ok()?;
            }
        }
        (units.n() > 0).then_some(units)
    }

    /// Days on which units became complete, for one metric.
    pub(crate) fn completion_days(&self, metric: usize) -> Vec<i32> {
        let mut days: Vec<i32> = self
            .cells
            .keys()
            .filter(|cell| usize::from(cell.metric) == metric)
            .filter_map(|cell| match cell.of {
                Of::Completed(day) => Some(day),
                _ => None,
            })
            .collect();
        days.sort_unstable();
        days.dedup();
        days
    }
}

impl Operation {
    pub(crate) fn merge(&mut self, other: &Self) {
        self.requests += other.requests;
        self.empty += other.empty;
        self.degraded += other.degraded;
        self.served_other += other.served_other;
        self.latency.merge(&other.latency);
        self.latency_us += other.latency_us;
    }
}

impl Sink for Statistics {
    fn unit(&mut self, row: &UnitRow, daily: &[[f64; AGES]]) {
        self.add(row, daily);
    }

    fn event(&mut self, metric: usize, value: f64) {
        self.pending.push((metric, value));
    }

    fn exposure(&mut self, class: &Class, exposure: &Record) {
        self.pending_learns = Some(learns(exposure.unit[1], SPLIT_SEED));
        let operation = &mut self.pending_operation;
        operation.requests += 1;
        operation.empty += u64::from(exposure.extra & record::EMPTY != 0);
        operation.degraded += u64::from(exposure.extra & record::DEGRADED != 0);
        operation.served_other += u64::from(class.served_other());
        if exposure.extra & record::TIMED != 0 {
            self.pending_latency.push(exposure.latency_us());
        }
    }

    fn leftovers(&mut self, leftovers: &Leftovers) {
        self.leftovers.merge(leftovers);
    }

    fn merge(&mut self, other: Self) {
        for (cell, tally) in other.cells {
            match self.cells.entry(cell) {
                std::collections::hash_map::Entry::Occupied(mut mine) => {
                    // Cells of one name have one shape.
                    self.refused += u64::from(mine.get_mut().merge(&tally).is_err());
                }
                std::collections::hash_map::Entry::Vacant(free) => {
                    free.insert(tally);
                }
            }
        }
        for (key, count) in other.units {
            *self.units.entry(key).or_insert(0) += count;
        }
        for (key, (n, sum)) in other.firsts {
            let firsts = self.firsts.entry(key).or_default();
            firsts.0 += n;
            firsts.1 += sum;
        }
        for (key, count) in other.missing {
            *self.missing.entry(key).or_insert(0) += count;
        }
        for (key, count) in other.immature {
            *self.immature.entry(key).or_insert(0) += count;
        }
        for (mine, theirs) in self.operation.iter_mut().zip(&other.operation) {
            mine.merge(theirs);
        }
        for (key, histogram) in other.events {
            self.events.entry(key).or_default().merge(&histogram);
        }
        self.leftovers.merge(&other.leftovers);
        for (metric, sessions) in other.sessions {
            self.sessions.entry(metric).or_default().merge(&sessions);
        }
        for (sum, picks) in self.first_picks.iter_mut().zip(other.first_picks) {
            *sum += picks;
        }
        self.refused += other.refused;
        self.first_us = match (self.first_us, other.first_us) {
            (Some(a), Some(b)) => Some((a.0.min(b.0), a.1.max(b.1))),
            (a, b) => a.or(b),
        };
    }
}
