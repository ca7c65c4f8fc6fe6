//! Users or seeds, block by block.

use std::path::{Path, PathBuf};

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_schema::{DataType, Schema};
use parquet::arrow::ProjectionMask;
use refrain_bundle::items::MAX_ID_BYTES;
use refrain_tables::Batches;

use super::BatchError;

/// Usual names of the columns.
const USERS: [&str; 4] = ["user", "user_id", "userid", "id"];
const SEEDS: [&str; 4] = ["seeds", "items", "item_ids", "seed_ids"];

/// Most rows decoded at once.
const BATCH_ROWS: usize = 2_048;

/// Whom a row is for.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Asker {
    User(String),
    Seeds(Vec<String>),
}

pub(super) struct Input {
    path: PathBuf,
    batches: Batches,
    total: u64,
    read: u64,
    waiting: Vec<Asker>,
}

impl Input {
    pub(super) fn open(path: &Path) -> Result<Self, BatchError> {
        let bad = |problem: String| BatchError::Row {
            file: path.to_owned(),
            row: 0,
            problem,
        };
        let file = fs_err::File::open(path)?.into_parts().0;
        let builder = refrain_tables::open(file).map_err(|error| bad(error.to_string()))?;
        let column = column(builder.schema()).map_err(bad)?;
        let total = builder.metadata().file_metadata().num_rows();
        let mask = ProjectionMask::roots(builder.parquet_schema(), [column]);
        let builder = builder.with_projection(mask).with_batch_size(BATCH_ROWS);
        let batches = refrain_tables::batches(builder).map_err(|error| bad(error.to_string()))?;
        Ok(Self {
            path: path.to_owned(),
            batches,
            total: u64::try_from(total).unwrap_or_default(),
            read: 0,
            waiting: Vec::new(),
        })
    }

    /// Rows that the file says it has.
    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// The next rows, `most` of them unless the file ends.
    pub(super) fn next_block(&mut self, most: usize) -> Result<Option<Vec<Asker>>, BatchError> {
        while self.waiting.len() < most {
            let Some(batch) = self.batches.next() else {
                break;
            };
            let bad = |row: u64, problem: String| BatchError::Row {
                file: self.path.clone(),
                row,
                problem,
            };
            let batch = batch.map_err(|error| bad(self.read + 1, error.to_string()))?;
            let askers = askers(&batch)
                .map_err(|(row, problem)| bad(self.read + row as u64 + 1, problem))?;
            self.read += askers.len() as u64;
            self.waiting.extend(askers);
        }
        let rest = self.waiting.split_off(most.min(self.waiting.len()));
        let block = std::mem::replace(&mut self.waiting, rest);
        Ok((!block.is_empty()).then_some(block))
    }
}

fn askers(batch: &RecordBatch) -> Result<Vec<Asker>, (usize, String)> {
    let column = batch.column(0);
    let whole = |error: arrow_schema::ArrowError| (0, error.to_string());
    if is_list(column.data_type()) {
        let lists = arrow_cast::cast(column, &list_of_text()).map_err(whole)?;
        let lists = lists.as_list::<i64>();
        return (0..lists.len())
            .map(|row| {
                if lists.is_null(row) {
                    return Err((row, "the seeds are missing".to_owned()));
                }
                texts(&lists.value(row))
                    .map(Asker::Seeds)
                    .map_err(|(_, problem)| (row, problem))
            })
            .collect();
    }
    let users = arrow_cast::cast(column, &DataType::LargeUtf8).map_err(whole)?;
    Ok(texts(&users)?.into_iter().map(Asker::User).collect())
}

fn texts(column: &ArrayRef) -> Result<Vec<String>, (usize, String)> {
    let texts = column.as_string::<i64>();
    (0..texts.len())
        .map(|row| {
            if texts.is_null(row) {
                return Err((row, "an id is missing".to_owned()));
            }
            let id = texts.value(row);
            if !(1..=MAX_ID_BYTES).contains(&id.len()) {
                return Err((row, format!("an id has 1 to {MAX_ID_BYTES} bytes")));
            }
            Ok(id.to_owned())
        })
        .collect()
}

fn list_of_text() -> DataType {
    DataType::LargeList(std::sync::Arc::new(arrow_schema::Field::new(
        "item",
        DataType::LargeUtf8,
        true,
    )))
}

fn is_list(kind: &DataType) -> bool {
    matches!(kind, DataType::List(_) | DataType::LargeList(_))
}

/// The column of users, else the column of seeds, else the only column.
fn column(schema: &Schema) -> Result<usize, String> {
    let fields = schema.fields();
    let is_id = |kind: &DataType| {
        kind.is_integer()
            || matches!(
                kind,
                DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View
            )
    };
    let named = |names: &[&str], fits: &dyn Fn(&DataType) -> bool| {
        names.iter().find_map(|name| {
            fields.iter().position(|field| {
                field.name().eq_ignore_ascii_case(name) && fits(field.data_type())
            })
        })
    };
    let only = (fields.len() == 1
        && (is_id(fields[0].data_type()) || is_list(fields[0].data_type())))
    .then_some(0);
    named(&USERS, &is_id)
        .or_else(|| named(&SEEDS, &is_list))
        .or(only)
        .ok_or_else(|| {
            let there: Vec<&str> = fields.iter().map(|field| field.name().as_str()).collect();
            format!("no column of users ({USERS:?}) or lists of seeds ({SEEDS:?}) among {there:?}")
        })
}
