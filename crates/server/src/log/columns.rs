//! Rows as columns, of whichever log.

use std::sync::Arc;

use arrow_array::{
    ArrayRef, BooleanArray, Date32Array, FixedSizeBinaryArray, Float64Array, StringArray,
    TimestampMicrosecondArray, UInt32Array, UInt64Array,
};
use arrow_schema::ArrowError;

use super::{Table, day_of};

/// Rows, to be read column by column.
pub(super) struct Columns<'a, T>(pub(super) &'a [T]);

impl<T: Table> Columns<'_, T> {
    pub(super) fn text(&self, of: fn(&T) -> &str) -> ArrayRef {
        Arc::new(StringArray::from_iter_values(self.0.iter().map(of)))
    }

    pub(super) fn optional_text(&self, of: fn(&T) -> Option<&str>) -> ArrayRef {
        Arc::new(self.0.iter().map(of).collect::<StringArray>())
    }

    pub(super) fn count(&self, of: fn(&T) -> u32) -> ArrayRef {
        Arc::new(UInt32Array::from_iter_values(self.0.iter().map(of)))
    }

    pub(super) fn optional_count(&self, of: fn(&T) -> Option<u32>) -> ArrayRef {
        Arc::new(self.0.iter().map(of).collect::<UInt32Array>())
    }

    pub(super) fn optional_long(&self, of: fn(&T) -> Option<u64>) -> ArrayRef {
        Arc::new(self.0.iter().map(of).collect::<UInt64Array>())
    }

    pub(super) fn long(&self, of: fn(&T) -> u64) -> ArrayRef {
        Arc::new(UInt64Array::from_iter_values(self.0.iter().map(of)))
    }

    pub(super) fn real(&self, of: fn(&T) -> f64) -> ArrayRef {
        Arc::new(Float64Array::from_iter_values(self.0.iter().map(of)))
    }

    pub(super) fn optional_real(&self, of: fn(&T) -> Option<f64>) -> ArrayRef {
        Arc::new(self.0.iter().map(of).collect::<Float64Array>())
    }

    pub(super) fn flag(&self, of: fn(&T) -> bool) -> ArrayRef {
        let flags = self.0.iter().map(|row| Some(of(row)));
        Arc::new(flags.collect::<BooleanArray>())
    }

    pub(super) fn id(&self, of: fn(&T) -> u128) -> Result<ArrayRef, ArrowError> {
        self.bytes(|row| id_bytes(of(row)))
    }

    pub(super) fn bytes<const N: usize>(
        &self,
        of: impl Fn(&T) -> [u8; N],
    ) -> Result<ArrayRef, ArrowError> {
        let bytes = FixedSizeBinaryArray::try_from_iter(self.0.iter().map(of))?;
        Ok(Arc::new(bytes))
    }

    pub(super) fn instant(&self) -> ArrayRef {
        let times = self.0.iter().map(Table::ts_us);
        Arc::new(TimestampMicrosecondArray::from_iter_values(times).with_timezone("UTC"))
    }

    pub(super) fn day(&self) -> ArrayRef {
        let days = self.0.iter().map(|row| day_of(row.ts_us()));
        Arc::new(Date32Array::from_iter_values(days))
    }

    /// The same for all rows.
    pub(super) fn all(&self, value: &str) -> ArrayRef {
        Arc::new(StringArray::from_iter_values(self.0.iter().map(|_| value)))
    }
}

/// An id as the hexadecimal digits of the wire read, from the left.
pub(super) fn id_bytes(id: u128) -> [u8; 16] {
    let mut bytes = id.to_le_bytes();
    bytes.reverse();
    bytes
}
