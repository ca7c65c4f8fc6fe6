//! A table with one row a unit, made by a warehouse from the same log (see [`crate::sql`]).

use std::path::{Path, PathBuf};

use arrow_array::{
    Array as _, BooleanArray, Float64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};

use super::{Statistics, UnitRow, Value};
use crate::log::columns::Columns;
use crate::log::files::{self, Kind, LogFile, Needed};
use crate::log::group::batches;
use crate::log::record::{self, Record, unit_hash};
use crate::log::scan::Words;
use crate::log::spill::Partitions;
use crate::log::symbols::{Class, Symbols};
use crate::log::{LogError, ReadOptions};
use crate::plan::{Metric, MetricType, Missing, Plan, Window};
use crate::shown::Place;
use crate::verdict::words;

/// Why a table of units is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UnitsError {
    /// The file, a column or a value, with file, row group and row.
    #[error(transparent)]
    File(#[from] LogError),
    /// The system says no.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// A table without rows.
    #[error("{path}: the table has no units", path = path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// Made as of another instant than is asked for.
    #[error(
        "{path}: the table is as of {table}, not {asked}: a table has what its statement was asked for \
         (`refrain experiment sql --until`)", path = path.display()
    )]
    Cutoff {
        /// The file.
        path: PathBuf,
        /// Its cut-off.
        table: String,
        /// The one asked for.
        asked: String,
    },
}

/// Columns of every table; segments and metrics have theirs beside them.
const COLUMNS: &[Needed] = &[
    Needed::required("unit_id", Kind::Text),
    Needed::required("arm", Kind::Text),
    Needed::required("first_ts", Kind::Time),
    Needed::required("cutoff", Kind::Time),
    Needed::required("weights", Kind::Text),
    Needed::required("index_version", Kind::Text),
    Needed::required("multi_arm", Kind::Flag),
    Needed::required("bot", Kind::Flag),
];
/// Units whose hashes wait in one buffer.
const BUFFER: usize = 1024;

/// Whether a table of units can hold a metric: one value a unit.
pub(crate) fn in_table(metric: &Metric) -> bool {
    !matches!(metric.kind, MetricType::Quantile(_))
        && !matches!(metric.window, Window::Daily { .. })
}

/// A table, added up.
pub(crate) struct Read {
    pub(crate) statistics: Statistics,
    pub(crate) words: Words,
    pub(crate) cutoff_us: i64,
    pub(crate) rows: u64,
}

/// Reads a table of units, row group by row group. The cut-off is that of the table (column `cutoff`).
///
/// That no unit is there twice is found as a log's units are brought together: hashes of the ids, dealt
/// out to partitions that wait in memory up to [`ReadOptions::memory_bytes`], then in temporary files.
pub(crate) fn read(path: &Path, plan: &Plan, options: &ReadOptions) -> Result<Read, UnitsError> {
    let segments: Vec<String> = (0..plan.segments.len())
        .map(|at| format!("segment_{at}"))
        .collect();
    let file = LogFile::open(path.to_owned(), COLUMNS, &segments)?;
    let schema = file.metadata.schema();
    let measured: Vec<Option<Named>> = (0..)
        .zip(&plan.metrics)
        .map(|(at, metric)| in_table(metric).then(|| Named::new(at, metric)))
        .collect();
    for name in measured.iter().flatten().flat_map(Named::all) {
        files::check(path, schema, name, Kind::Number, true)?;
    }
    let wanted = |name: &str| {
        COLUMNS.iter().any(|column| column.name == name)
            || segments.iter().any(|segment| segment == name)
            || measured
                .iter()
                .flatten()
                .flat_map(Named::all)
                .any(|n| n == name)
    };
    let symbols: Vec<Symbols> = (0..2 + segments.len())
        .map(|_| Symbols::default())
        .collect();
    let mut once = Once::new(file.rows(), options);
    let mut sums: Option<(Statistics, i64)> = None;
    let mut rows = 0;
    for group in 0..file.row_groups() {
        batches(&file, group, wanted, None, &mut |batch, row| {
            let place = Place {
                file: &file,
                group,
                row,
            };
            let table = Table::new(plan, &place, batch, &segments, &measured)?;
            if batch.num_rows() > 0 && sums.is_none() {
                let cutoff_us = table.instant(&table.cutoff, "cutoff", 0)?;
                sums = Some((Statistics::new(plan, cutoff_us).without_days(), cutoff_us));
            }
            if let Some((statistics, cutoff_us)) = &mut sums {
                for at in 0..batch.num_rows() {
                    once.add(group, row + at, table.unit(at)?)?;
                    statistics.add(&table.row(plan, &symbols, *cutoff_us, at)?, &[]);
                }
            }
            rows += batch.num_rows() as u64;
            Ok(())
        })?;
    }
    let Some((statistics, cutoff_us)) = sums else {
        return Err(UnitsError::Empty {
            path: path.to_owned(),
        });
    };
    if let Some(asked) = options.until_us.filter(|asked| *asked != cutoff_us) {
        return Err(UnitsError::Cutoff {
            path: path.to_owned(),
            table: words::instant(cutoff_us),
            asked: words::instant(asked),
        });
    }
    if let Some([first, again]) = once.twice()? {
        return Err(UnitsError::File(LogError::Value {
            path: path.to_owned(),
            row_group: again.0,
            row: again.1 + 1,
            column: "unit_id".to_owned(),
            problem: format!(
                "is the unit of row group {}, row {} again: a table has one row a unit",
                first.0,
                first.1 + 1
            ),
        }));
    }
    let mut names = symbols.into_iter().map(Symbols::into_names);
    let words = Words {
        weights: names.next().unwrap_or_default(),
        index_versions: names.next().unwrap_or_default(),
        segments: names.collect(),
        ..Words::default()
    };
    Ok(Read {
        statistics,
        words,
        cutoff_us,
        rows,
    })
}

/// The columns of a metric.
struct Named {
    y: String,
    d: Option<String>,
    x: Option<String>,
}

impl Named {
    fn new(at: usize, metric: &Metric) -> Self {
        let ratio = metric.kind == MetricType::Ratio;
        Self {
            y: format!("m{at}_y"),
            d: ratio.then(|| format!("m{at}_d")),
            x: metric.covariate.is_some().then(|| format!("m{at}_x")),
        }
    }

    fn all(&self) -> impl Iterator<Item = &str> {
        [Some(&self.y), self.d.as_ref(), self.x.as_ref()]
            .into_iter()
            .flatten()
            .map(String::as_str)
    }
}

/// A row group and a row in it, both from 0.
type Spot = (usize, usize);

/// Finds units that are there twice.
struct Once {
    partitions: Partitions,
    buffers: Vec<Vec<Record>>,
}

impl Once {
    fn new(rows: u64, options: &ReadOptions) -> Self {
        let partitions = Partitions::new(rows, options.memory_bytes, options.temp_folder.clone());
        Self {
            buffers: vec![Vec::new(); partitions.len()],
            partitions,
        }
    }

    fn add(&mut self, group: usize, row: usize, unit: [u64; 2]) -> std::io::Result<()> {
        let at = self.partitions.of(unit);
        let buffer = &mut self.buffers[at];
        // Sorted by unit, then by place.
        buffer.push(Record {
            unit,
            kind: record::EXPOSURE,
            code: 0,
            ts: i64::try_from(group).unwrap_or(i64::MAX),
            value: row as u64,
            extra: 0,
        });
        if buffer.len() >= BUFFER {
            self.partitions.append(at, buffer)?;
        }
        Ok(())
    }

    /// The earliest row whose unit was there before, after that unit's first row.
    fn twice(mut self) -> std::io::Result<Option<[Spot; 2]>> {
        let spot = |record: &Record| {
            let whole = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
            (whole(record.ts.unsigned_abs()), whole(record.value))
        };
        let mut earliest: Option<[Spot; 2]> = None;
        for (at, buffer) in self.buffers.iter_mut().enumerate() {
            self.partitions.append(at, buffer)?;
            for same in self
                .partitions
                .sorted(at)?
                .chunk_by(|a, b| a.unit == b.unit)
            {
                if let [first, again, ..] = same
                    && earliest.is_none_or(|[_, known]| spot(again) < known)
                {
                    earliest = Some([spot(first), spot(again)]);
                }
            }
        }
        Ok(earliest)
    }
}

/// The columns of a batch.
struct Table<'a> {
    place: &'a Place<'a>,
    units: StringArray,
    arms: StringArray,
    first: TimestampMicrosecondArray,
    cutoff: TimestampMicrosecondArray,
    weights: StringArray,
    versions: StringArray,
    several: BooleanArray,
    bots: BooleanArray,
    segments: Vec<(&'a str, StringArray)>,
    metrics: Vec<Option<Measured<'a>>>,
}

struct Measured<'a> {
    names: &'a Named,
    y: Float64Array,
    d: Option<Float64Array>,
    x: Option<Float64Array>,
}

impl<'a> Table<'a> {
    fn new(
        plan: &Plan,
        place: &'a Place<'a>,
        batch: &RecordBatch,
        segments: &'a [String],
        measured: &'a [Option<Named>],
    ) -> Result<Self, LogError> {
        let columns = Columns(batch);
        let text = |name: &str| place.column(columns.text(name), name);
        let times = |name: &str| place.column(columns.times(name), name);
        let flags = |name: &str| place.column(Ok(columns.flags(name)), name);
        let numbers = |name: &String| place.column(columns.numbers(name), name);
        let mut metrics = Vec::with_capacity(plan.metrics.len());
        for names in measured {
            metrics.push(match names {
                Some(names) => Some(Measured {
                    names,
                    y: numbers(&names.y)?,
                    d: names.d.as_ref().map(numbers).transpose()?,
                    x: names.x.as_ref().map(numbers).transpose()?,
                }),
                None => None,
            });
        }
        Ok(Self {
            place,
            units: text("unit_id")?,
            arms: text("arm")?,
            first: times("first_ts")?,
            cutoff: times("cutoff")?,
            weights: text("weights")?,
            versions: text("index_version")?,
            several: flags("multi_arm")?,
            bots: flags("bot")?,
            segments: segments
                .iter()
                .map(|name| Ok((name.as_str(), text(name)?)))
                .collect::<Result<_, LogError>>()?,
            metrics,
        })
    }

    fn unit(&self, row: usize) -> Result<[u64; 2], LogError> {
        let problem = |problem: &str| self.place.value(row, "unit_id", problem.to_owned());
        if self.units.is_null(row) {
            return Err(problem("is null"));
        }
        match self.units.value(row) {
            "" => Err(problem("is empty")),
            id => Ok(unit_hash(id)),
        }
    }

    fn instant(
        &self,
        times: &TimestampMicrosecondArray,
        name: &str,
        row: usize,
    ) -> Result<i64, LogError> {
        if times.is_null(row) {
            return Err(self.place.value(row, name, "is null".to_owned()));
        }
        Ok(times.value(row))
    }

    fn row(
        &self,
        plan: &Plan,
        symbols: &[Symbols],
        cutoff_us: i64,
        row: usize,
    ) -> Result<UnitRow, LogError> {
        let name = or_empty(&self.arms, row);
        let arm = (0..)
            .zip(&plan.arms)
            .find(|(_, arm)| arm.name == name)
            .map(|(at, _)| at)
            .ok_or_else(|| {
                let problem = format!("names arm `{name}`, which the plan does not have");
                self.place.value(row, "arm", problem)
            })?;
        let first_us = self.instant(&self.first, "first_ts", row)?;
        let cutoff = self.instant(&self.cutoff, "cutoff", row)?;
        if cutoff != cutoff_us {
            let problem = format!(
                "is {}, but {} in the first row: a table is as of one instant",
                words::instant(cutoff),
                words::instant(cutoff_us)
            );
            return Err(self.place.value(row, "cutoff", problem));
        }
        let word = |column: &StringArray, at: usize, name: &str| {
            symbols[at].intern(or_empty(column, row)).ok_or_else(|| {
                self.place
                    .value(row, name, "has too many different values".to_owned())
            })
        };
        let mut segments = [0; 4];
        for (at, (name, column)) in self.segments.iter().enumerate() {
            segments[at] = word(column, 2 + at, name)?;
        }
        let mut values = Vec::with_capacity(self.metrics.len());
        for (metric, columns) in plan.metrics.iter().zip(&self.metrics) {
            let mature = metric.window.ages_us().is_none_or(|(known_us, _)| {
                first_us
                    .saturating_add(known_us)
                    .saturating_add(plan.policy.settle)
                    <= cutoff_us
            });
            values.push(match columns {
                Some(columns) => columns.value(self.place, metric, mature, row)?,
                None => Value::Missing,
            });
        }
        let flag = |column: &BooleanArray| column.is_valid(row) && column.value(row);
        Ok(UnitRow {
            class: Class {
                arm,
                served: arm,
                weights: word(&self.weights, 0, "weights")?,
                digest: 0,
                index_version: word(&self.versions, 1, "index_version")?,
                model_version: 0,
                ranking: 0,
                segments,
            },
            first_us,
            multi_arm: flag(&self.several),
            bot: flag(&self.bots),
            values,
            served: (Vec::new(), 0),
            uptake_us: None,
            sessions: Vec::new(),
            first_picks: [0; 2],
        })
    }
}

impl Measured<'_> {
    /// What a row says of a metric; null is "nothing happened".
    fn value(
        &self,
        place: &Place<'_>,
        metric: &Metric,
        mature: bool,
        row: usize,
    ) -> Result<Value, LogError> {
        let number = |name: &str, column: &Float64Array| {
            if column.is_null(row) {
                return Ok(None);
            }
            let value = column.value(row);
            if value.is_finite() && value.abs() <= 1e100 {
                return Ok(Some(value));
            }
            let problem = format!("is {value}, no value of metric `{}`", metric.name);
            Err(place.value(row, name, problem))
        };
        let given = |name: &Option<String>, column: &Option<Float64Array>| match (name, column) {
            (Some(name), Some(column)) => number(name, column),
            _ => Ok(None),
        };
        let y = number(&self.names.y, &self.y)?;
        let d = given(&self.names.d, &self.d)?;
        let x = given(&self.names.x, &self.x)?;
        if metric.kind == MetricType::Proportion && y.is_some_and(|y| y != 0.0 && y != 1.0) {
            let problem = format!(
                "is {}; a unit has a proportion (`{}`) or not: 1 or 0",
                y.unwrap_or_default(),
                metric.name
            );
            return Err(place.value(row, &self.names.y, problem));
        }
        if !mature {
            return Ok(Value::Immature);
        }
        // A ratio exists where its denominator does.
        let there = if metric.kind == MetricType::Ratio {
            d.is_some()
        } else {
            y.is_some()
        };
        if !there && metric.missing == Missing::Exclude {
            return Ok(Value::Missing);
        }
        let y = y.unwrap_or(0.0);
        Ok(Value::Known {
            y: metric.cap.map_or(y, |cap| y.min(cap)),
            d: d.unwrap_or(0.0),
            x,
        })
    }
}

fn or_empty(column: &StringArray, row: usize) -> &str {
    if column.is_null(row) {
        ""
    } else {
        column.value(row)
    }
}
