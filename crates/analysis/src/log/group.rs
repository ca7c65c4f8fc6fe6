//! One row group of one file, batch by batch.

use arrow_array::RecordBatch;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::errors::ParquetError;

use super::error::LogError;
use super::files::LogFile;

const BATCH_ROWS: usize = 16_384;

/// Reads the `wanted` columns of a row group, at most `limit` rows; `each` is told a batch and the rows
/// before it.
///
/// # Errors
/// What `each` says, or that the file cannot be read, with file and row group.
pub(crate) fn batches(
    file: &LogFile,
    group: usize,
    wanted: impl Fn(&str) -> bool,
    limit: Option<usize>,
    each: &mut dyn FnMut(&RecordBatch, usize) -> Result<(), LogError>,
) -> Result<(), LogError> {
    let broken = |source| LogError::Parquet {
        path: file.path.clone(),
        row_group: Some(group),
        source,
    };
    let handle = fs_err::File::open(&file.path)?;
    let schema = file.metadata.schema();
    let roots = (0..schema.fields().len()).filter(|&at| wanted(schema.field(at).name()));
    let mask = ProjectionMask::roots(file.metadata.parquet_schema(), roots);
    let mut builder = ParquetRecordBatchReaderBuilder::new_with_metadata(
        handle.into_parts().0,
        file.metadata.clone(),
    )
    .with_row_groups(vec![group])
    .with_projection(mask)
    .with_batch_size(BATCH_ROWS);
    if let Some(limit) = limit {
        builder = builder.with_limit(limit);
    }
    let mut row = 0;
    for batch in refrain_tables::batches(builder).map_err(broken)? {
        let batch = batch.map_err(|error| broken(after(row, &error)))?;
        each(&batch, row)?;
        row += batch.num_rows();
    }
    Ok(())
}

fn after(row: usize, error: &ParquetError) -> ParquetError {
    ParquetError::General(format!("after row {row}: {error}"))
}
