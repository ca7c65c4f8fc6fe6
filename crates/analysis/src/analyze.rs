//! The whole way: a log, or a table of units, to a verdict.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use crate::log::record::Record;
use crate::log::scan::{self, Scanned};
use crate::log::spill::Partitions;
use crate::log::symbols::Class;
use crate::log::{LogError, LogFiles, ReadOptions};
use crate::methods::moments::Tally;
use crate::plan::{Kind, MetricType, Plan};
use crate::shown::{lists, off_policy};
use crate::units::fold::{AGES, Fold, Leftovers, Sink, Uses};
use crate::units::histogram::{Histogram, RELATIVE_ERROR};
use crate::units::statistics::Uptake;
use crate::units::{QuantileSums, Statistics, UnitRow, UnitsError, table};
use crate::verdict::{Analysis, Evidence, Input, Look, Looks};

/// Why there is no analysis.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AnalyzeError {
    /// The log.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The table of units.
    #[error(transparent)]
    Units(#[from] UnitsError),
    /// An interleaved experiment of which only a table of units is given.
    #[error(
        "an interleaved experiment is judged by the items of its log: give the log, not a table of units"
    )]
    NeedsLog,
    /// The looks before.
    #[error(transparent)]
    Looks(#[from] crate::verdict::LooksError),
}

/// How to analyse.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// How to read.
    pub read: ReadOptions,
    /// Looks made before; `None` if this is the first.
    pub looks: Option<Looks>,
    /// A table of another policy's probabilities, to be valued on the drawn answers of the log
    /// ([`off_policy`]).
    pub off_policy: Option<PathBuf>,
    /// This is the last look, whatever the information: spend all that is left.
    pub last: bool,
    /// When it is, in microseconds since 1970: whether the analysis is as fresh as [`Plan::cadence`] asks.
    pub now_us: Option<i64>,
}

/// Analyses a log: a folder with `exposures`, `outcomes` and `covariates`.
///
/// One pass over the log; memory is bounded by [`ReadOptions::memory_bytes`] plus about 100 MB a thread,
/// whatever the number of rows. The same log gives the same bytes at any number of threads. `progress`
/// is told rows done of all.
///
/// # Errors
/// [`AnalyzeError`], with file, row group and row.
pub fn from_log(
    root: &Path,
    plan: &Plan,
    options: &Options,
    progress: &(dyn Fn(u64, u64) + Sync),
) -> Result<(Analysis, Look), AnalyzeError> {
    let files = LogFiles::open(root, &plan.segments)?;
    let uses = Uses::new(plan);
    let Scanned {
        partitions,
        counts,
        classes,
        words,
        span_us,
    } = scan::scan(
        &files,
        plan,
        &uses.events,
        &uses.covariates,
        &options.read,
        progress,
    )?;
    let cutoff_us = options
        .read
        .until_us
        .unwrap_or_else(|| span_us.map_or(0, |span| span.1));
    let looks = earlier(plan, options, cutoff_us)?;
    let fold = Fold {
        plan,
        uses: &uses,
        classes: &classes,
        cutoff_us,
    };
    let pool = scan::pool(options.read.threads)?;
    let uptake = if plan.uptake.is_some() {
        Some(Uptake::Event)
    } else {
        // Where everybody got what they were assigned there is nothing to tell apart.
        classes
            .iter()
            .any(Class::served_other)
            .then_some(Uptake::Served)
    };
    let uptake = uptake.filter(|_| !matches!(plan.kind, Kind::Interleave | Kind::Holdout));
    let mut statistics = gather(&pool, &partitions, &fold, || {
        Statistics::new(plan, cutoff_us).with_uptake(uptake)
    })
    .map_err(LogError::Io)?;
    statistics.finish();
    // Whether a value lies below its arm's quantile is known once all values are: units are folded again.
    let thresholds = Thresholds::new(plan, &statistics);
    let quantiles: QuantileSums = if thresholds.0.is_empty() {
        QuantileSums::new()
    } else {
        let make = || Below {
            thresholds: &thresholds,
            pending: Vec::new(),
            tallies: BTreeMap::new(),
        };
        let below = gather(&pool, &partitions, &fold, make).map_err(LogError::Io)?;
        below
            .tallies
            .iter()
            .map(|(key, tally)| (*key, tally.moments()))
            .collect()
    };
    let evidence = Evidence {
        plan,
        statistics: &statistics,
        words: &words,
        classes: &classes,
        cutoff_us,
        now_us: options.now_us,
        dropped: files.dropped(plan),
        failed: files.failed(plan),
        input: Input::Log {
            files: files.counts(),
            rows: counts,
            spilled_bytes: partitions.spilled(),
        },
        looks: &looks,
        last: options.last,
        quantiles: &quantiles,
    };
    let (mut analysis, look) = crate::verdict::reach(&evidence);
    analysis.lists = lists::look(root, &files, plan, &options.read)?;
    if let Some(target) = &options.off_policy
        && analysis.verdict.effects_hidden.is_none()
    {
        analysis.off_policy = Some(off_policy::estimate(root, target, plan, &options.read)?);
    }
    Ok((analysis, look))
}

/// Analyses a table with one row a unit, as the statements of [`crate::sql`] make it.
///
/// What needs the events themselves is not there: quantile metrics, daily and novelty curves, latency.
/// Memory is bounded as for a log; [`ReadOptions::until_us`] must be the table's own cut-off, if given.
///
/// # Errors
/// [`AnalyzeError`], with file, row group and row.
pub fn from_units(
    path: &Path,
    plan: &Plan,
    options: &Options,
) -> Result<(Analysis, Look), AnalyzeError> {
    if plan.kind == Kind::Interleave {
        return Err(AnalyzeError::NeedsLog);
    }
    let read = table::read(path, plan, &options.read)?;
    let cutoff_us = read.cutoff_us;
    let looks = earlier(plan, options, cutoff_us)?;
    let quantiles = QuantileSums::new();
    let evidence = Evidence {
        plan,
        statistics: &read.statistics,
        words: &read.words,
        classes: &[],
        cutoff_us,
        now_us: options.now_us,
        dropped: Default::default(),
        failed: Default::default(),
        input: Input::Units { rows: read.rows },
        looks: &looks,
        last: options.last,
        quantiles: &quantiles,
    };
    Ok(crate::verdict::reach(&evidence))
}

fn earlier(plan: &Plan, options: &Options, cutoff_us: i64) -> Result<Looks, AnalyzeError> {
    Ok(match &options.looks {
        Some(looks) => looks.before(plan, cutoff_us)?,
        None => Looks::new(plan),
    })
}

/// Folds every partition into a sink of its thread, and the sinks into one.
fn gather<S: Sink + Send>(
    pool: &rayon::ThreadPool,
    partitions: &Partitions,
    fold: &Fold<'_>,
    make: impl Fn() -> S + Sync + Send,
) -> std::io::Result<S> {
    let whole = pool.install(|| {
        (0..partitions.len())
            .into_par_iter()
            .with_max_len(1)
            .try_fold(&make, |mut sink, at| {
                fold.partition(&partitions.sorted(at)?, &mut sink);
                Ok::<S, std::io::Error>(sink)
            })
            .try_reduce_with(|mut one, other| {
                one.merge(other);
                Ok(one)
            })
    });
    whole.unwrap_or_else(|| Ok(make()))
}

/// The quantile of each arm, by metric.
struct Thresholds(Vec<(usize, Vec<f64>)>);

impl Thresholds {
    fn new(plan: &Plan, statistics: &Statistics) -> Self {
        let key = |at: usize| u16::try_from(at).unwrap_or(u16::MAX);
        let none = Histogram::default();
        let of = |at: usize, q: f64| {
            (0..plan.arms.len())
                .map(|arm| {
                    let histogram = statistics.events.get(&(key(at), key(arm))).unwrap_or(&none);
                    histogram.sorted().quantile(q)
                })
                .collect()
        };
        Self(
            plan.metrics
                .iter()
                .enumerate()
                .filter_map(|(at, metric)| match metric.kind {
                    MetricType::Quantile(q) => Some((at, of(at, q))),
                    _ => None,
                })
                .collect(),
        )
    }
}

/// Counts each unit's values at or below its arm's quantile.
struct Below<'a> {
    thresholds: &'a Thresholds,
    pending: Vec<(usize, f64)>,
    tallies: BTreeMap<(u16, u16), Tally>,
}

impl Sink for Below<'_> {
    fn unit(&mut self, row: &UnitRow, _: &[[f64; AGES]]) {
        let values = std::mem::take(&mut self.pending);
        if row.multi_arm || row.bot {
            return;
        }
        for (metric, arms) in &self.thresholds.0 {
            let Some(threshold) = arms.get(row.class.arm as usize) else {
                continue;
            };
            let (mut below, mut all) = (0.0, 0.0);
            for (_, value) in values.iter().filter(|(of, _)| of == metric) {
                all += 1.0;
                // A cell of the histogram is the finest that is known of the threshold.
                if *value <= threshold * (1.0 + RELATIVE_ERROR) {
                    below += 1.0;
                }
            }
            if all > 0.0 {
                let key = (
                    u16::try_from(*metric).unwrap_or(u16::MAX),
                    u16::try_from(row.class.arm).unwrap_or(u16::MAX),
                );
                // Counts are finite.
                drop(
                    self.tallies
                        .entry(key)
                        .or_insert_with(|| Tally::new(2))
                        .push(&[below, all]),
                );
            }
        }
    }

    fn event(&mut self, metric: usize, value: f64) {
        self.pending.push((metric, value));
    }

    fn exposure(&mut self, _: &Class, _: &Record) {}

    fn leftovers(&mut self, _: &Leftovers) {}

    fn merge(&mut self, other: Self) {
        for (key, tally) in other.tallies {
            match self.tallies.entry(key) {
                Entry::Vacant(free) => {
                    free.insert(tally);
                }
                Entry::Occupied(mut mine) => drop(mine.get_mut().merge(&tally)),
            }
        }
    }
}
