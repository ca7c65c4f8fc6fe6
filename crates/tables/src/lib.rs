//! Parquet, read with care: damage is an error, never a panic.
//!
//! The reader takes much of what a footer or a page says at its word, and panics where it is not so: a
//! chunk that begins before its file, a page of references to a dictionary that never came. Files come
//! from outside, so whoever reads one does it here: [`open`] or [`footer`], then [`batches`].

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};

use arrow_array::RecordBatch;
use arrow_schema::ArrowError;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader,
    ParquetRecordBatchReaderBuilder,
};
use parquet::errors::ParquetError;

/// Opens a file: footer and schema are read, nothing of its rows.
///
/// # Errors
/// It is no Parquet, or a column says that it begins or ends where no byte of a file can be.
pub fn open(file: File) -> Result<ParquetRecordBatchReaderBuilder<File>, ParquetError> {
    let metadata = footer(&file, ArrowReaderOptions::new())?;
    Ok(ParquetRecordBatchReaderBuilder::new_with_metadata(
        file, metadata,
    ))
}

/// The footer of a file, to be read more than once or with columns of other types.
///
/// # Errors
/// Those of [`open`], and a schema in `options` that the file cannot be read by.
pub fn footer(
    file: &File,
    options: ArrowReaderOptions,
) -> Result<ArrowReaderMetadata, ParquetError> {
    let footer = guarded(|| ArrowReaderMetadata::load(file, options))?;
    let groups = footer.metadata().row_groups();
    for column in groups.iter().flat_map(|group| group.columns()) {
        let start = column
            .dictionary_page_offset()
            .unwrap_or_else(|| column.data_page_offset());
        if start < 0 || column.compressed_size() < 0 {
            let path = column.column_path().string();
            let size = column.compressed_size();
            return Err(ParquetError::General(format!(
                "column {path}: a chunk of {size} bytes at offset {start}"
            )));
        }
    }
    Ok(footer)
}

/// The rows of a file, batch by batch.
///
/// # Errors
/// Those of the first page that is read.
pub fn batches(builder: ParquetRecordBatchReaderBuilder<File>) -> Result<Batches, ParquetError> {
    let reader = guarded(|| builder.build())?;
    Ok(Batches {
        reader: Some(reader),
    })
}

/// What [`batches`] gives. Ends after its first error: a reader that has failed is in no known state.
#[expect(missing_debug_implementations, reason = "the reader has none")]
pub struct Batches {
    reader: Option<ParquetRecordBatchReader>,
}

impl Iterator for Batches {
    type Item = Result<RecordBatch, ParquetError>;

    fn next(&mut self) -> Option<Self::Item> {
        let reader = self.reader.as_mut()?;
        let next = guarded(|| reader.next().transpose().map_err(told)).transpose();
        if !matches!(next, Some(Ok(_))) {
            self.reader = None;
        }
        next
    }
}

/// What Arrow says of a Parquet file, without saying twice who says it.
#[must_use]
pub fn told(error: ArrowError) -> ParquetError {
    match error {
        ArrowError::ParquetError(message) => ParquetError::General(message),
        other => ParquetError::ArrowError(other.to_string()),
    }
}

/// What was in the making when `work` panics is dropped with it, so nothing half-done is seen.
fn guarded<T>(work: impl FnOnce() -> Result<T, ParquetError>) -> Result<T, ParquetError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        let text = "the file is damaged: it cannot be decoded";
        Err(ParquetError::General(text.to_owned()))
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::{ArrayRef, Int32Array, StringArray};
    use parquet::arrow::ArrowWriter;
    use proptest::prelude::*;

    use super::*;

    fn table() -> Vec<u8> {
        let names: ArrayRef = Arc::new(StringArray::from_iter_values(
            (0..40).map(|at| format!("name {}", at % 3)),
        ));
        let numbers: ArrayRef = Arc::new(Int32Array::from_iter_values(0..40));
        let batch = RecordBatch::try_from_iter([("name", names), ("number", numbers)]).unwrap();
        let mut bytes = Vec::new();
        let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        bytes
    }

    /// Rows that could be read, or what is wrong.
    fn rows(bytes: &[u8]) -> Result<usize, ParquetError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("table.parquet");
        fs_err::write(&path, bytes).unwrap();
        let file = fs_err::File::open(&path).unwrap().into_parts().0;
        let read = batches(open(file)?)?;
        let mut rows = 0;
        for batch in read {
            rows += batch?.num_rows();
        }
        Ok(rows)
    }

    #[test]
    fn every_byte_set_to_every_extreme_is_rows_or_an_error() {
        let whole = table();
        assert_eq!(rows(&whole).unwrap(), 40);
        let mut refused = 0;
        for at in 0..whole.len() {
            for value in [0, 0x7f, 0x80, 0xd3, 0xff] {
                let mut bytes = whole.clone();
                bytes[at] = value;
                refused += u32::from(rows(&bytes).is_err());
            }
        }
        assert!(refused > 1_000, "{refused}");
    }

    #[test]
    fn a_panic_of_the_decoder_is_an_error_and_the_end() {
        let error = guarded(|| -> Result<(), ParquetError> { panic!("no dictionary") });
        assert!(error.unwrap_err().to_string().contains("damaged"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        #[test]
        fn a_file_cut_and_changed_anywhere_is_rows_or_an_error(
            cut in any::<prop::sample::Index>(),
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
            whole in any::<bool>(),
        ) {
            let mut bytes = table();
            for (at, value) in changes {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            if !whole {
                bytes.truncate(cut.index(bytes.len()));
            }
            let _ = rows(&bytes);
        }
    }
}
