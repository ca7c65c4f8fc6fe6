//! A change that could not be randomised by listener: a table of units (markets, catalogues, surfaces)
//! by period, and difference-in-differences on it.
//!
//! The table is CSV or Parquet with columns `unit`, `period` (whole numbers, or dates such as
//! `2026-11-28`), `value`, and `treated_from` (the period in which the unit's treatment starts; empty for
//! never). Every unit must have a value in every period; `treated_from` is the same in all rows of a unit.
//! What can be said, and by which test, is [`crate::methods::did`]'s.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use arrow_array::Array as _;
use arrow_array::cast::AsArray as _;
use arrow_array::types::Float64Type;
use arrow_schema::DataType;
use serde::Serialize;

use crate::methods::MethodError;
use crate::methods::did::{Panel, Recommended, Report};
use crate::methods::effect::Interval;
use crate::verdict::words;

/// Version of [`Differences`] as a document.
pub const SCHEMA: &str = "refrain.did/1";

const COLUMNS: [&str; 4] = ["unit", "period", "value", "treated_from"];

/// Why a panel is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PanelError {
    /// The system says no.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// Neither CSV nor Parquet, or damaged.
    #[error("{path}: {problem}", path = path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the reader says.
        problem: String,
    },
    /// A column that must be there.
    #[error("{path}: column `{column}` is missing; it has {found}", path = path.display())]
    MissingColumn {
        /// The file.
        path: PathBuf,
        /// The column.
        column: &'static str,
        /// Those that are there.
        found: String,
    },
    /// A value that cannot be meant.
    #[error("{path}, row {row}: `{column}` {problem}", path = path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// The row, from 1, without the head.
        row: u64,
        /// The column.
        column: &'static str,
        /// What is wrong.
        problem: String,
    },
    /// A unit without a value in a period.
    #[error("unit `{unit}` has no value in period {period}: every unit needs one in every period")]
    Gap {
        /// The unit.
        unit: String,
        /// The period.
        period: String,
    },
    /// The method refuses it.
    #[error(transparent)]
    Method(#[from] MethodError),
}

/// A row of the table.
#[derive(Debug, Clone)]
struct Row {
    unit: String,
    period: String,
    value: f64,
    treated_from: Option<String>,
}

/// Difference-in-differences of a panel.
#[derive(Debug, Clone, Serialize)]
pub struct Differences {
    /// Version of this document.
    pub schema: &'static str,
    /// What happened, in a sentence.
    pub headline: String,
    /// What must be known before it is believed.
    pub warnings: Vec<String>,
    /// Treated units.
    pub treated: Vec<String>,
    /// Untreated units.
    pub untreated: Vec<String>,
    /// Periods in order.
    pub periods: Vec<String>,
    /// First treated period.
    pub treated_from: String,
    /// Mean of the treated units in each period.
    pub treated_means: Vec<f64>,
    /// Mean of the untreated units in each period.
    pub untreated_means: Vec<f64>,
    /// P-value of the recommended test, two-sided.
    pub p: f64,
    /// Interval of the effect at 95 %, clustered by unit.
    pub interval: Interval,
    /// The effect by every accepted method.
    pub report: Report,
}

/// Reads a panel and analyses it.
///
/// # Errors
/// [`PanelError`], with file and row.
pub fn analyze(path: &Path) -> Result<Differences, PanelError> {
    let rows = read(path)?;
    let order = periods(path, &rows)?;
    let place: BTreeMap<&str, usize> = order
        .iter()
        .enumerate()
        .map(|(at, period)| (period.as_str(), at))
        .collect();
    let mut units: BTreeMap<&str, (Vec<Option<f64>>, Option<&str>)> = BTreeMap::new();
    for (number, row) in (1..).zip(&rows) {
        let wrong = |column, problem| PanelError::Value {
            path: path.to_owned(),
            row: number,
            column,
            problem,
        };
        let start = row.treated_from.as_deref();
        let (values, known) = units
            .entry(&row.unit)
            .or_insert_with(|| (vec![None; order.len()], start));
        if *known != start {
            let problem = format!(
                "is {} here and {} in an earlier row of unit `{}`",
                start.unwrap_or("empty"),
                known.unwrap_or("empty"),
                row.unit
            );
            return Err(wrong("treated_from", problem));
        }
        if values[place[row.period.as_str()]]
            .replace(row.value)
            .is_some()
        {
            let problem = format!("{} of unit `{}` is there twice", row.period, row.unit);
            return Err(wrong("period", problem));
        }
    }
    let mut outcomes = Vec::with_capacity(units.len());
    let mut adoption = Vec::with_capacity(units.len());
    let (mut treated, mut untreated) = (Vec::new(), Vec::new());
    for (unit, (values, start)) in &units {
        let mut series = Vec::with_capacity(order.len());
        for (value, period) in values.iter().zip(&order) {
            series.push(value.ok_or_else(|| PanelError::Gap {
                unit: (*unit).to_owned(),
                period: period.clone(),
            })?);
        }
        outcomes.push(series);
        // A start after the last period is a unit that is not treated in the panel.
        let start = start.and_then(|start| place.get(start).copied());
        adoption.push(start);
        let group = if start.is_some() {
            &mut treated
        } else {
            &mut untreated
        };
        group.push((*unit).to_owned());
    }
    let means = |of_treated: bool| -> Vec<f64> {
        let group: Vec<&Vec<f64>> = outcomes
            .iter()
            .zip(&adoption)
            .filter(|(_, start)| start.is_some() == of_treated)
            .map(|(series, _)| series)
            .collect();
        (0..order.len())
            .map(|at| {
                group.iter().map(|series| series[at]).sum::<f64>()
                    / crate::methods::moments::length(group.len()).max(1.0)
            })
            .collect()
    };
    let (treated_means, untreated_means) = (means(true), means(false));
    let report = Panel::new(outcomes, &adoption)?.analyse()?;
    let first = adoption.iter().flatten().min().copied().unwrap_or(0);
    let (p, test) = match report.recommended {
        Recommended::Permutation => (report.permutation.p_two_sided, "permutation of units"),
        Recommended::Clustered => (report.clustered.p_two_sided(), "errors clustered by unit"),
    };
    let interval = report.clustered.interval(0.95)?;
    let headline = format!(
        "{} that the change moved the treated units: {} ({test}, p = {}).",
        if p < 0.05 { "Evidence" } else { "No evidence" },
        words::signed(report.delta, report.clustered.se),
        words::p(p)
    );
    Ok(Differences {
        schema: SCHEMA,
        headline,
        warnings: warnings(&report, treated.len()),
        treated_from: order[first].clone(),
        treated,
        untreated,
        periods: order,
        treated_means,
        untreated_means,
        p,
        interval,
        report,
    })
}

fn warnings(report: &Report, treated: usize) -> Vec<String> {
    let mut warnings = Vec::new();
    match report.placebo {
        Some(placebo) if placebo.p_two_sided < 0.05 => warnings.push(format!(
            "a made-up start before the real one finds an effect, too ({}, p = {}): treated and untreated units did \
             not move alike before, so they cannot be expected to have moved alike after",
            words::signed(placebo.delta, report.clustered.se),
            words::p(placebo.p_two_sided)
        )),
        Some(_) => {}
        None => warnings.push(
            "there is one period before the change: whether the units moved alike before cannot be seen"
                .to_owned(),
        ),
    }
    if report.permutation.smallest_two_sided > 0.05 {
        warnings.push(format!(
            "with so few units no permutation can give a p below {}: the clustered error is used, and with few \
             clusters it is too small",
            words::p(report.permutation.smallest_two_sided)
        ));
    }
    if treated == 1 {
        warnings.push(
            "one treated unit: whatever else happened to it then is counted as the effect"
                .to_owned(),
        );
    }
    warnings
}

/// Periods in order: by number where all are whole numbers, else as dates, which sort as text.
fn periods(path: &Path, rows: &[Row]) -> Result<Vec<String>, PanelError> {
    let distinct: BTreeSet<&str> = rows.iter().map(|row| row.period.as_str()).collect();
    let mut numbers: Vec<(i64, &str)> = distinct
        .iter()
        .filter_map(|period| period.parse().ok().map(|number| (number, *period)))
        .collect();
    if numbers.len() == distinct.len() {
        numbers.sort_unstable();
        return Ok(numbers
            .into_iter()
            .map(|(_, period)| period.to_owned())
            .collect());
    }
    for (number, row) in (1..).zip(rows) {
        if !is_date(&row.period) {
            return Err(PanelError::Value {
                path: path.to_owned(),
                row: number,
                column: "period",
                problem: format!(
                    "`{}` is no date such as 2026-11-28; periods are all dates or all whole numbers",
                    row.period
                ),
            });
        }
    }
    Ok(distinct.into_iter().map(str::to_owned).collect())
}

fn is_date(text: &str) -> bool {
    text.len() >= 10
        && text
            .bytes()
            .take(10)
            .enumerate()
            .all(|(at, byte)| match at {
                4 | 7 => byte == b'-',
                _ => byte.is_ascii_digit(),
            })
}

fn read(path: &Path) -> Result<Vec<Row>, PanelError> {
    let bytes = fs_err::read(path)?;
    let rows = if bytes.starts_with(b"PAR1") {
        read_parquet(path)?
    } else {
        read_csv(path, &bytes)?
    };
    let raw = |number: u64, column, problem: String| PanelError::Value {
        path: path.to_owned(),
        row: number,
        column,
        problem,
    };
    for (number, row) in (1..).zip(&rows) {
        if row.unit.is_empty() {
            return Err(raw(number, "unit", "is empty".to_owned()));
        }
        if !row.value.is_finite() {
            return Err(raw(number, "value", format!("is {}", row.value)));
        }
    }
    Ok(rows)
}

fn read_csv(path: &Path, bytes: &[u8]) -> Result<Vec<Row>, PanelError> {
    let unreadable = |error: csv::Error| PanelError::Unreadable {
        path: path.to_owned(),
        problem: error.to_string(),
    };
    let mut reader = csv::Reader::from_reader(bytes);
    let head = reader.headers().map_err(unreadable)?.clone();
    let at = |column: &'static str| {
        head.iter()
            .position(|name| name.trim() == column)
            .ok_or_else(|| PanelError::MissingColumn {
                path: path.to_owned(),
                column,
                found: head.iter().collect::<Vec<_>>().join(", "),
            })
    };
    let places = [
        at(COLUMNS[0])?,
        at(COLUMNS[1])?,
        at(COLUMNS[2])?,
        at(COLUMNS[3])?,
    ];
    let mut rows = Vec::new();
    for (number, record) in (1..).zip(reader.records()) {
        let record = record.map_err(unreadable)?;
        let cell = |column: usize| record.get(places[column]).unwrap_or_default().trim();
        let value = cell(2).parse().map_err(|_| PanelError::Value {
            path: path.to_owned(),
            row: number,
            column: "value",
            problem: format!("`{}` is no number", cell(2)),
        })?;
        rows.push(Row {
            unit: cell(0).to_owned(),
            period: cell(1).to_owned(),
            value,
            treated_from: (!cell(3).is_empty()).then(|| cell(3).to_owned()),
        });
    }
    Ok(rows)
}

fn read_parquet(path: &Path) -> Result<Vec<Row>, PanelError> {
    let unreadable = |problem: String| PanelError::Unreadable {
        path: path.to_owned(),
        problem,
    };
    let file = fs_err::File::open(path)?.into_parts().0;
    let reader = refrain_tables::open(file)
        .and_then(refrain_tables::batches)
        .map_err(|error| unreadable(error.to_string()))?;
    let mut rows = Vec::new();
    for (at, batch) in reader.enumerate() {
        let batch = batch.map_err(|error| unreadable(format!("batch {at}: {error}")))?;
        let column = |name: &'static str, to: &DataType| {
            let array = batch
                .column_by_name(name)
                .ok_or_else(|| PanelError::MissingColumn {
                    path: path.to_owned(),
                    column: name,
                    found: batch
                        .schema()
                        .fields()
                        .iter()
                        .map(|field| field.name().as_str())
                        .collect::<Vec<_>>()
                        .join(", "),
                })?;
            let strict = arrow_cast::CastOptions {
                safe: false,
                ..Default::default()
            };
            arrow_cast::cast_with_options(array, to, &strict)
                .map_err(|error| unreadable(format!("column `{name}`: {error}")))
        };
        let text = |name| -> Result<arrow_array::StringArray, PanelError> {
            Ok(column(name, &DataType::Utf8)?.as_string::<i32>().clone())
        };
        let (units, times, starts) = (text(COLUMNS[0])?, text(COLUMNS[1])?, text(COLUMNS[3])?);
        let values = column(COLUMNS[2], &DataType::Float64)?;
        let values = values.as_primitive::<Float64Type>();
        for row in 0..batch.num_rows() {
            for (name, array) in [("unit", &units), ("period", &times)] {
                if array.is_null(row) {
                    return Err(PanelError::Value {
                        path: path.to_owned(),
                        row: rows.len() as u64 + 1,
                        column: name,
                        problem: "is null".to_owned(),
                    });
                }
            }
            rows.push(Row {
                unit: units.value(row).to_owned(),
                period: times.value(row).to_owned(),
                value: if values.is_null(row) {
                    f64::NAN
                } else {
                    values.value(row)
                },
                treated_from: starts.is_valid(row).then(|| starts.value(row).to_owned()),
            });
        }
    }
    Ok(rows)
}
