//! A table with one row a unit, made by a warehouse from the same log (see [`crate::sql`]).

use std::path::{Path, PathBuf};

use arrow_array::cast::AsArray as _;
use arrow_array::types::{Float64Type, TimestampMicrosecondType};
use arrow_array::{
    Array as _, BooleanArray, Float64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow_schema::{DataType, TimeUnit};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::errors::ParquetError;

use super::{Statistics, UnitRow, Value};
use crate::log::scan::Words;
use crate::log::symbols::{Class, Symbols};
use crate::plan::{Metric, MetricType, Missing, Plan, Window};

/// Why a table of units is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UnitsError {
    /// The system says no.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// Not Parquet, cut short, or damaged.
    #[error("{path}, batch {batch}: {source}", path = path.display())]
    Parquet {
        /// The file.
        path: PathBuf,
        /// The batch of rows, from 0.
        batch: usize,
        /// What the reader says.
        source: ParquetError,
    },
    /// A column that must be there.
    #[error(
        "{path}: column `{column}` is missing; `refrain experiment sql` prints the statement that makes \
         this table for this plan", path = path.display()
    )]
    MissingColumn {
        /// The file.
        path: PathBuf,
        /// The column.
        column: String,
    },
    /// A column of a type that cannot be read.
    #[error("{path}: column `{column}` is {found}, must be {wanted}", path = path.display())]
    ColumnType {
        /// The file.
        path: PathBuf,
        /// The column.
        column: String,
        /// Its type.
        found: String,
        /// The type it must have.
        wanted: &'static str,
    },
    /// A value that cannot be meant.
    #[error("{path}, row {row}: `{column}` {problem}", path = path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// The row, from 1.
        row: u64,
        /// The column.
        column: String,
        /// What is wrong.
        problem: String,
    },
}

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

/// Reads a table of units. The cut-off is that of the table (column `cutoff`), unless given.
pub(crate) fn read(path: &Path, plan: &Plan, until_us: Option<i64>) -> Result<Read, UnitsError> {
    let broken = |batch: usize, source: ParquetError| UnitsError::Parquet {
        path: path.to_owned(),
        batch,
        source,
    };
    let file = fs_err::File::open(path)?.into_parts().0;
    let reader = ParquetRecordBatchReaderBuilder::try_new(file)
        .and_then(|builder| builder.with_batch_size(16_384).build())
        .map_err(|source| broken(0, source))?;
    let mut statistics: Option<Statistics> = None;
    let symbols: Vec<Symbols> = (0..3 + plan.segments.len())
        .map(|_| Symbols::default())
        .collect();
    let mut rows = 0_u64;
    let mut cutoff_us = until_us;
    for (at, batch) in reader.enumerate() {
        let batch =
            batch.map_err(|error| broken(at, ParquetError::ArrowError(error.to_string())))?;
        let table = Table {
            path,
            batch: &batch,
            rows,
        };
        if cutoff_us.is_none() && batch.num_rows() > 0 {
            cutoff_us = Some(table.times("cutoff")?.value(0));
        }
        let cutoff = cutoff_us.unwrap_or(0);
        let statistics =
            statistics.get_or_insert_with(|| Statistics::new(plan, cutoff).without_days());
        table.add(plan, &symbols, cutoff, statistics)?;
        rows += batch.num_rows() as u64;
    }
    let mut names = symbols.into_iter().map(Symbols::into_names);
    let words = Words {
        weights: names.next().unwrap_or_default(),
        index_versions: names.next().unwrap_or_default(),
        model_versions: names.next().unwrap_or_default(),
        digests: Vec::new(),
        segments: names.collect(),
    };
    let cutoff_us = cutoff_us.unwrap_or(0);
    let statistics = statistics.unwrap_or_else(|| Statistics::new(plan, cutoff_us).without_days());
    Ok(Read {
        statistics,
        words,
        cutoff_us,
        rows,
    })
}

struct Table<'a> {
    path: &'a Path,
    batch: &'a RecordBatch,
    rows: u64,
}

impl Table<'_> {
    fn add(
        &self,
        plan: &Plan,
        symbols: &[Symbols],
        cutoff_us: i64,
        into: &mut Statistics,
    ) -> Result<(), UnitsError> {
        let arms = self.text("arm")?;
        let first = self.times("first_ts")?;
        let weights = self.text("weights")?;
        let versions = self.text("index_version")?;
        let several = self.flags("multi_arm")?;
        let bots = self.flags("bot")?;
        let segments = (0..plan.segments.len())
            .map(|at| self.text(&format!("segment_{at}")))
            .collect::<Result<Vec<_>, _>>()?;
        let mut metrics = Vec::with_capacity(plan.metrics.len());
        for (at, metric) in plan.metrics.iter().enumerate() {
            if !in_table(metric) {
                metrics.push(None);
                continue;
            }
            let d = match metric.kind {
                MetricType::Ratio => Some(self.numbers(&format!("m{at}_d"))?),
                _ => None,
            };
            let x = match metric.covariate {
                Some(_) => Some(self.numbers(&format!("m{at}_x"))?),
                None => None,
            };
            metrics.push(Some((self.numbers(&format!("m{at}_y"))?, d, x)));
        }
        let days = [[0.0; super::fold::AGES]; 0];
        for row in 0..self.batch.num_rows() {
            let name = if arms.is_null(row) {
                ""
            } else {
                arms.value(row)
            };
            let arm = (0..)
                .zip(&plan.arms)
                .find(|(_, arm)| arm.name == name)
                .map(|(at, _)| at);
            let arm = arm.ok_or_else(|| {
                self.value(
                    row,
                    "arm",
                    format!("names arm `{name}`, which the plan does not have"),
                )
            })?;
            if first.is_null(row) {
                return Err(self.value(row, "first_ts", "is null".to_owned()));
            }
            let first_us = first.value(row);
            let word = |column: &StringArray, table: &Symbols, name: &str| {
                let text = if column.is_null(row) {
                    ""
                } else {
                    column.value(row)
                };
                table.intern(text).ok_or_else(|| {
                    self.value(row, name, "has too many different values".to_owned())
                })
            };
            let mut of = [0; 4];
            for (at, column) in segments.iter().enumerate() {
                of[at] = word(column, &symbols[3 + at], "segment")?;
            }
            let class = Class {
                arm,
                served: arm,
                weights: word(&weights, &symbols[0], "weights")?,
                digest: 0,
                index_version: word(&versions, &symbols[1], "index_version")?,
                model_version: 0,
                segments: of,
            };
            let mut values = Vec::with_capacity(metrics.len());
            for (metric, columns) in plan.metrics.iter().zip(&metrics) {
                let mature = metric.window.ages_us().is_none_or(|(known_us, _)| {
                    first_us
                        .saturating_add(known_us)
                        .saturating_add(plan.policy.settle)
                        <= cutoff_us
                });
                let Some((y, d, x)) = columns else {
                    values.push(Value::Missing);
                    continue;
                };
                let number =
                    |column: &Float64Array| column.is_valid(row).then(|| column.value(row));
                values.push(match (mature, number(y), d.as_ref().map(number)) {
                    (false, _, _) => Value::Immature,
                    (true, y, Some(d)) if d.is_some() || metric.missing == Missing::Zero => {
                        Value::Known {
                            y: y.unwrap_or(0.0),
                            d: d.unwrap_or(0.0),
                            x: x.as_ref().and_then(number),
                        }
                    }
                    (true, Some(y), None) => Value::Known {
                        y,
                        d: 0.0,
                        x: x.as_ref().and_then(number),
                    },
                    (true, None, None) if metric.missing == Missing::Zero => Value::Known {
                        y: 0.0,
                        d: 0.0,
                        x: x.as_ref().and_then(number),
                    },
                    _ => Value::Missing,
                });
                if let Some(Value::Known { y, d, x }) = values.last()
                    && !(y.is_finite() && d.is_finite() && x.is_none_or(f64::is_finite))
                {
                    return Err(self.value(row, &metric.name, "is not a finite number".to_owned()));
                }
                if let (Some(Value::Known { y, .. }), Some(cap)) = (values.last_mut(), metric.cap) {
                    *y = y.min(cap);
                }
            }
            let flag = |column: &BooleanArray| column.is_valid(row) && column.value(row);
            let unit = UnitRow {
                class,
                first_us,
                multi_arm: flag(&several),
                bot: flag(&bots),
                values,
                served: (Vec::new(), 0),
                uptake_us: None,
                sessions: Vec::new(),
                first_picks: [0; 2],
            };
            into.add(&unit, &days);
        }
        Ok(())
    }

    fn column(
        &self,
        name: &str,
        to: &DataType,
        wanted: &'static str,
    ) -> Result<arrow_array::ArrayRef, UnitsError> {
        let Some(array) = self.batch.column_by_name(name) else {
            return Err(UnitsError::MissingColumn {
                path: self.path.to_owned(),
                column: name.to_owned(),
            });
        };
        let strict = arrow_cast::CastOptions {
            safe: false,
            ..Default::default()
        };
        arrow_cast::cast_with_options(array, to, &strict).map_err(|_| UnitsError::ColumnType {
            path: self.path.to_owned(),
            column: name.to_owned(),
            found: array.data_type().to_string(),
            wanted,
        })
    }

    fn text(&self, name: &str) -> Result<StringArray, UnitsError> {
        Ok(self
            .column(name, &DataType::Utf8, "text")?
            .as_string::<i32>()
            .clone())
    }

    fn numbers(&self, name: &str) -> Result<Float64Array, UnitsError> {
        Ok(self
            .column(name, &DataType::Float64, "a number")?
            .as_primitive::<Float64Type>()
            .clone())
    }

    fn flags(&self, name: &str) -> Result<BooleanArray, UnitsError> {
        Ok(self
            .column(name, &DataType::Boolean, "a boolean")?
            .as_boolean()
            .clone())
    }

    fn times(&self, name: &str) -> Result<TimestampMicrosecondArray, UnitsError> {
        let zone = match self
            .batch
            .column_by_name(name)
            .map(|array| array.data_type())
        {
            Some(DataType::Timestamp(_, zone)) => zone.clone(),
            Some(other) => {
                return Err(UnitsError::ColumnType {
                    path: self.path.to_owned(),
                    column: name.to_owned(),
                    found: other.to_string(),
                    wanted: "a timestamp",
                });
            }
            None => None,
        };
        let to = DataType::Timestamp(TimeUnit::Microsecond, zone);
        Ok(self
            .column(name, &to, "a timestamp")?
            .as_primitive::<TimestampMicrosecondType>()
            .clone())
    }

    fn value(&self, row: usize, column: &str, problem: String) -> UnitsError {
        UnitsError::Value {
            path: self.path.to_owned(),
            row: self.rows + row as u64 + 1,
            column: column.to_owned(),
            problem,
        }
    }
}
