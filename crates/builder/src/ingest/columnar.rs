//! Parquet: columns of any usual physical type to rows.

use std::fs::File;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int64Type, TimestampMicrosecondType};
use arrow_array::{Array, ArrayRef, LargeStringArray};
use arrow_schema::{ArrowError, DataType, TimeUnit};
use parquet::arrow::ProjectionMask;
use parquet::errors::ParquetError;
use refrain_tables::told;

use super::error::IngestError;
use super::fields::{self, FieldSpec, Kind};
use super::report::FileReport;
use super::table::{MAX_FIELDS, Row, Rows, TOGETHER};
use super::value::Value;

/// Rows decoded at once.
const BATCH_ROWS: usize = 8192;

/// Reads a Parquet file to its end. Only the columns that are used are decoded.
pub(crate) fn read(
    file: File,
    table: &'static [FieldSpec],
    rows: &mut Rows<'_>,
) -> Result<FileReport, IngestError> {
    let path = rows.path.to_owned();
    let broken = |row: u64, source: ParquetError| IngestError::Parquet {
        path: path.clone(),
        row: row + 1,
        source,
    };
    let builder = refrain_tables::open(file).map_err(|source| broken(0, source))?;
    let schema = builder.schema().clone();
    let names: Vec<String> = schema
        .fields()
        .iter()
        .map(|field| field.name().clone())
        .collect();
    let columns = fields::resolve(rows.path, table, &names, rows.options)?;
    let kinds: Vec<Option<DataType>> = table
        .iter()
        .zip(&columns)
        .map(|(spec, column)| {
            let Some(column) = *column else {
                return Ok(None);
            };
            let found = schema.field(column).data_type();
            canonical(spec.kind, found)
                .map(Some)
                .ok_or_else(|| IngestError::ColumnType {
                    path: path.clone(),
                    column: names[column].clone(),
                    found: found.to_string(),
                    field: spec.field,
                })
        })
        .collect::<Result<_, IngestError>>()?;
    rows.begin(&columns)?;

    // Batches hold the projected columns in file order.
    let mut projected: Vec<usize> = columns.iter().copied().flatten().collect();
    projected.sort_unstable();
    projected.dedup();
    let mask = ProjectionMask::roots(builder.parquet_schema(), projected.iter().copied());
    let builder = builder.with_projection(mask).with_batch_size(BATCH_ROWS);
    let batches = refrain_tables::batches(builder).map_err(|source| broken(0, source))?;

    let mut row = 0u64;
    for batch in batches {
        let batch = batch.map_err(|source| broken(row, source))?;
        let mut arrays: Vec<Option<Decoded>> = Vec::with_capacity(table.len());
        for ((spec, column), kind) in table.iter().zip(&columns).zip(&kinds) {
            arrays.push(match (column, kind) {
                (Some(column), Some(kind)) => {
                    let at = projected.partition_point(|projected| projected < column);
                    let decoded = Decoded::new(batch.column(at), kind, spec.kind);
                    Some(decoded.map_err(|error| broken(row, told(error)))?)
                }
                _ => None,
            });
        }
        let mut together = Vec::with_capacity(TOGETHER);
        for index in 0..batch.num_rows() {
            row += 1;
            let mut values = [Value::Missing; MAX_FIELDS];
            for (value, array) in values.iter_mut().zip(&arrays) {
                if let Some(array) = array {
                    *value = array.value(index);
                }
            }
            together.push(Row { line: row, values });
            if together.len() == TOGETHER {
                rows.take_all(&mut together, table.len())?;
            }
        }
        rows.take_all(&mut together, table.len())?;
    }
    if row == 0 {
        return Err(IngestError::Empty { path });
    }
    Ok(rows.file("parquet".to_owned(), table, &columns, &|column| {
        names[column].clone()
    }))
}

/// The type a column is cast to, `None` if it cannot be read as this kind.
fn canonical(kind: Kind, found: &DataType) -> Option<DataType> {
    let values = match found {
        DataType::Dictionary(_, values) => values.as_ref(),
        DataType::RunEndEncoded(_, values) => values.data_type(),
        other => other,
    };
    let text = matches!(
        values,
        DataType::Utf8
            | DataType::LargeUtf8
            | DataType::Utf8View
            | DataType::Binary
            | DataType::LargeBinary
            | DataType::BinaryView
    );
    let time = matches!(
        values,
        DataType::Timestamp(..) | DataType::Date32 | DataType::Date64
    );
    let number = values.is_numeric();
    match kind {
        Kind::Text => match values {
            DataType::List(item) | DataType::LargeList(item) if is_utf8(item.data_type()) => {
                Some(found.clone())
            }
            // Ids that went through a table with gaps are often floats; whole ones are ids.
            values if values.is_floating() => Some(DataType::Float64),
            DataType::Boolean => Some(DataType::LargeUtf8),
            _ => (text || values.is_integer()).then_some(DataType::LargeUtf8),
        },
        Kind::Number if text => Some(DataType::LargeUtf8),
        Kind::Number => number.then_some(DataType::Float64),
        Kind::Time if text => Some(DataType::LargeUtf8),
        Kind::Time if time => Some(DataType::Timestamp(TimeUnit::Microsecond, None)),
        Kind::Time if values.is_integer() => Some(DataType::Int64),
        Kind::Time => number.then_some(DataType::Float64),
    }
}

fn is_utf8(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View
    )
}

/// A column of a batch, cast to one of a few types.
enum Decoded {
    Text(LargeStringArray),
    Integer(arrow_array::Int64Array),
    Float(arrow_array::Float64Array),
    /// Floats as text: whole ones are written without a point.
    FloatId(Vec<Option<String>>),
    Time(arrow_array::TimestampMicrosecondArray),
}

impl Decoded {
    fn new(array: &ArrayRef, canonical: &DataType, kind: Kind) -> Result<Self, ArrowError> {
        if let DataType::List(_) | DataType::LargeList(_) = canonical {
            return joined(array).map(Self::Text);
        }
        // A value that does not fit becomes null and its row is reported as bad.
        let cast = arrow_cast::cast(array, canonical)?;
        Ok(match canonical {
            DataType::Int64 => Self::Integer(cast.as_primitive::<Int64Type>().clone()),
            DataType::Float64 if kind == Kind::Text => {
                let floats = cast.as_primitive::<Float64Type>();
                Self::FloatId(
                    floats
                        .iter()
                        .map(|id| id.map(|id| id.to_string()))
                        .collect(),
                )
            }
            DataType::Float64 => Self::Float(cast.as_primitive::<Float64Type>().clone()),
            DataType::Timestamp(..) => {
                Self::Time(cast.as_primitive::<TimestampMicrosecondType>().clone())
            }
            _ => Self::Text(cast.as_string::<i64>().clone()),
        })
    }

    fn value(&self, row: usize) -> Value<'_> {
        match self {
            Self::Text(array) if array.is_valid(row) => Value::Text(array.value(row).as_bytes()),
            Self::Integer(array) if array.is_valid(row) => Value::Integer(array.value(row)),
            Self::Float(array) if array.is_valid(row) => Value::Float(array.value(row)),
            Self::Time(array) if array.is_valid(row) => Value::TimeUs(array.value(row)),
            Self::FloatId(ids) => ids[row]
                .as_ref()
                .map_or(Value::Missing, |id| Value::Text(id.as_bytes())),
            Self::Text(_) | Self::Integer(_) | Self::Float(_) | Self::Time(_) => Value::Missing,
        }
    }
}

/// Lists of strings as one string each, joined by `|` as tags are in text.
fn joined(array: &ArrayRef) -> Result<LargeStringArray, ArrowError> {
    let wide = match array.data_type() {
        DataType::List(item) | DataType::LargeList(item) => {
            let item = item.as_ref().clone().with_data_type(DataType::LargeUtf8);
            arrow_cast::cast(array, &DataType::LargeList(item.into()))?
        }
        _ => arrow_cast::cast(array, array.data_type())?,
    };
    let lists = wide.as_list::<i64>();
    let join = |list: ArrayRef| {
        list.as_string::<i64>()
            .iter()
            .flatten()
            .collect::<Vec<_>>()
            .join("|")
    };
    Ok(lists.iter().map(|list| list.map(join)).collect())
}
