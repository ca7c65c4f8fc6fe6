//! Columns of a batch by name, in one physical type each.

use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int32Type, Int64Type, TimestampMicrosecondType};
use arrow_array::{
    Array, ArrayRef, BooleanArray, DictionaryArray, Float64Array, Int64Array, ListArray,
    RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow_cast::CastOptions;
use arrow_schema::{ArrowError, DataType, TimeUnit};

/// A batch whose columns are asked for by name.
pub(crate) struct Columns<'a>(pub(crate) &'a RecordBatch);

impl Columns<'_> {
    fn get(&self, name: &str, to: &DataType) -> Result<Option<ArrayRef>, ArrowError> {
        let Some(array) = self.0.column_by_name(name) else {
            return Ok(None);
        };
        if array.data_type() == to {
            return Ok(Some(array.clone()));
        }
        let strict = CastOptions {
            safe: false,
            ..CastOptions::default()
        };
        arrow_cast::cast_with_options(array, to, &strict).map(Some)
    }

    /// Text of which each value is looked at once.
    pub(crate) fn words(
        &self,
        name: &str,
    ) -> Result<Option<DictionaryArray<Int32Type>>, ArrowError> {
        let to = DataType::Dictionary(DataType::Int32.into(), DataType::Utf8.into());
        Ok(self
            .get(name, &to)?
            .map(|array| array.as_dictionary::<Int32Type>().clone()))
    }

    /// Text that differs from row to row.
    pub(crate) fn text(&self, name: &str) -> Result<Option<StringArray>, ArrowError> {
        Ok(self
            .get(name, &DataType::Utf8)?
            .map(|array| array.as_string::<i32>().clone()))
    }

    /// Instants in microseconds. Without a zone they are UTC; with one, the instant counts.
    pub(crate) fn times(
        &self,
        name: &str,
    ) -> Result<Option<TimestampMicrosecondArray>, ArrowError> {
        let Some(array) = self.0.column_by_name(name) else {
            return Ok(None);
        };
        let zone = match array.data_type() {
            DataType::Timestamp(_, zone) => zone.clone(),
            _ => None,
        };
        let to = DataType::Timestamp(TimeUnit::Microsecond, zone);
        Ok(self
            .get(name, &to)?
            .map(|array| array.as_primitive::<TimestampMicrosecondType>().clone()))
    }

    pub(crate) fn integers(&self, name: &str) -> Result<Option<Int64Array>, ArrowError> {
        Ok(self
            .get(name, &DataType::Int64)?
            .map(|array| array.as_primitive::<Int64Type>().clone()))
    }

    pub(crate) fn numbers(&self, name: &str) -> Result<Option<Float64Array>, ArrowError> {
        Ok(self
            .get(name, &DataType::Float64)?
            .map(|array| array.as_primitive::<Float64Type>().clone()))
    }

    pub(crate) fn flags(&self, name: &str) -> Option<BooleanArray> {
        self.0
            .column_by_name(name)
            .map(|array| array.as_boolean().clone())
    }

    /// Bytes of each row.
    pub(crate) fn bytes(&self, name: &str) -> Option<ArrayRef> {
        self.0.column_by_name(name).cloned()
    }

    pub(crate) fn lists(&self, name: &str) -> Option<ListArray> {
        self.0
            .column_by_name(name)
            .and_then(|array| array.as_list_opt::<i32>())
            .cloned()
    }
}

/// The bytes at a row of a binary column, `None` for null.
pub(crate) fn bytes_at(array: &ArrayRef, row: usize) -> Option<&[u8]> {
    if array.is_null(row) {
        return None;
    }
    if let Some(array) = array.as_fixed_size_binary_opt() {
        return Some(array.value(row));
    }
    array.as_binary_opt::<i32>().map(|array| array.value(row))
}

/// The word at a row, `None` for null.
pub(crate) fn key_at(array: &DictionaryArray<Int32Type>, row: usize) -> Option<usize> {
    if array.keys().is_null(row) {
        return None;
    }
    usize::try_from(array.keys().value(row)).ok()
}
