//! Parquet: a column of ids, a column of vectors.

use std::collections::HashMap;
use std::fmt::Display;
use std::path::{Path, PathBuf};

use arrow_array::cast::AsArray;
use arrow_array::types::{Float32Type, Int64Type};
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_schema::{DataType, Schema};
use refrain_bundle::items::MAX_ID_BYTES;
use rustc_hash::FxHashMap;

use super::ImportError;
use crate::build::{MAX_DIM, VectorSet};

/// Usual names of the column of ids, in order of preference.
const IDS: [&str; 8] = [
    "id", "item_id", "user_id", "item", "user", "track_id", "track", "key",
];
/// Usual names of the column of vectors.
const VECTORS: [&str; 6] = [
    "features",
    "factors",
    "vector",
    "embedding",
    "values",
    "vec",
];

const BATCH_ROWS: usize = 4_096;

/// Reads the files as one. `names` gives ids to numbers.
pub(super) fn read(
    files: &[PathBuf],
    names: Option<&HashMap<i64, String>>,
) -> Result<VectorSet, ImportError> {
    let mut rows = Rows {
        set: VectorSet::default(),
        known: FxHashMap::default(),
        names,
    };
    for file in files {
        rows.file(file)?;
    }
    Ok(rows.set)
}

struct Rows<'a> {
    set: VectorSet,
    /// Which file and row an id was in.
    known: FxHashMap<String, u64>,
    names: Option<&'a HashMap<i64, String>>,
}

impl Rows<'_> {
    fn file(&mut self, path: &Path) -> Result<(), ImportError> {
        let bad = |row: u64, problem: &dyn Display| ImportError::Row {
            file: path.to_owned(),
            row,
            problem: problem.to_string(),
        };
        let file = fs_err::File::open(path)?.into_parts().0;
        let builder = refrain_tables::open(file).map_err(|error| bad(0, &error))?;
        let (id, vector) = columns(builder.schema()).map_err(|problem| bad(0, &problem))?;
        let batches = refrain_tables::batches(builder.with_batch_size(BATCH_ROWS))
            .map_err(|error| bad(0, &error))?;
        let mut before = 0u64;
        for batch in batches {
            let batch = batch.map_err(|error| bad(before, &error))?;
            self.batch(&batch, id, vector)
                .map_err(|(row, problem)| bad(before + row as u64 + 1, &problem))?;
            before += batch.num_rows() as u64;
        }
        Ok(())
    }

    fn batch(
        &mut self,
        batch: &RecordBatch,
        id: usize,
        vector: usize,
    ) -> Result<(), (usize, String)> {
        let ids = self.ids(batch.column(id))?;
        let whole = |problem: &dyn Display| (0, problem.to_string());
        let vectors = batch.column(vector);
        let lists: Box<dyn Fn(usize) -> ArrayRef> = match vectors.data_type() {
            DataType::List(_) => {
                let lists = vectors.as_list::<i32>().clone();
                Box::new(move |row| lists.value(row))
            }
            DataType::LargeList(_) => {
                let lists = vectors.as_list::<i64>().clone();
                Box::new(move |row| lists.value(row))
            }
            DataType::FixedSizeList(_, _) => {
                let lists = vectors.as_fixed_size_list().clone();
                Box::new(move |row| lists.value(row))
            }
            other => {
                return Err(whole(&format!(
                    "a column of vectors is a list, not {other}"
                )));
            }
        };
        for (row, id) in ids.into_iter().enumerate() {
            if vectors.is_null(row) {
                return Err((row, "the vector is missing".to_owned()));
            }
            let values = lists(row);
            if values.null_count() > 0 {
                return Err((row, "a value of the vector is missing".to_owned()));
            }
            let values = arrow_cast::cast(&values, &DataType::Float32)
                .map_err(|error| (row, error.to_string()))?;
            let values = values.as_primitive::<Float32Type>().values();
            if self.set.dim == 0 {
                if !(1..=MAX_DIM).contains(&values.len()) {
                    let problem =
                        format!("vectors have 1 to {MAX_DIM} values, not {}", values.len());
                    return Err((row, problem));
                }
                self.set.dim = values.len();
            }
            if values.len() != self.set.dim {
                let (got, expected) = (values.len(), self.set.dim);
                return Err((
                    row,
                    format!("{got} values, where the first vector has {expected}"),
                ));
            }
            if let Some(at) = values.iter().position(|value| !value.is_finite()) {
                return Err((row, format!("value {at} is {}, not finite", values[at])));
            }
            let place = self.set.ids.len() as u64 + 1;
            if let Some(first) = self.known.insert(id.clone(), place) {
                return Err((row, format!("id {id:?} was in row {first} of all already")));
            }
            self.set.values.extend_from_slice(values);
            self.set.ids.push(id);
        }
        Ok(())
    }

    fn ids(&self, column: &ArrayRef) -> Result<Vec<String>, (usize, String)> {
        let present = |row: usize| {
            if column.is_null(row) {
                return Err((row, "the id is missing".to_owned()));
            }
            Ok(())
        };
        let whole = |error: &dyn Display| (0, error.to_string());
        if column.data_type().is_integer() {
            let numbers =
                arrow_cast::cast(column, &DataType::Int64).map_err(|error| whole(&error))?;
            let numbers = numbers.as_primitive::<Int64Type>().clone();
            return (0..numbers.len())
                .map(|row| {
                    present(row)?;
                    let number = numbers.value(row);
                    match self.names {
                        None => Ok(number.to_string()),
                        Some(names) => names
                            .get(&number)
                            .cloned()
                            .ok_or_else(|| (row, format!("number {number} has no name"))),
                    }
                })
                .collect();
        }
        let texts =
            arrow_cast::cast(column, &DataType::LargeUtf8).map_err(|error| whole(&error))?;
        let texts = texts.as_string::<i64>().clone();
        (0..texts.len())
            .map(|row| {
                present(row)?;
                let id = texts.value(row);
                if !(1..=MAX_ID_BYTES).contains(&id.len()) {
                    return Err((row, format!("an id has 1 to {MAX_ID_BYTES} bytes")));
                }
                Ok(id.to_owned())
            })
            .collect()
    }
}

/// The columns of ids and vectors: by usual names, else the only ones of their kind.
fn columns(schema: &Schema) -> Result<(usize, usize), String> {
    let is_list = |kind: &DataType| {
        matches!(
            kind,
            DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(_, _)
        )
    };
    let is_id = |kind: &DataType| {
        kind.is_integer()
            || matches!(
                kind,
                DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View
            )
    };
    let find = |names: &[&str], fits: &dyn Fn(&DataType) -> bool, what: &str| {
        let fields = schema.fields();
        let fitting: Vec<usize> = (0..fields.len())
            .filter(|&at| fits(fields[at].data_type()))
            .collect();
        let named = names.iter().find_map(|name| {
            fitting
                .iter()
                .copied()
                .find(|&at| fields[at].name().eq_ignore_ascii_case(name))
        });
        match (named, fitting.as_slice()) {
            (Some(at), _) | (None, &[at]) => Ok(at),
            (None, _) => {
                let there: Vec<&str> = fields.iter().map(|field| field.name().as_str()).collect();
                Err(format!(
                    "no column of {what} among {there:?}; it is called one of {names:?}"
                ))
            }
        }
    };
    Ok((
        find(&IDS, &is_id, "ids")?,
        find(&VECTORS, &is_list, "vectors")?,
    ))
}
