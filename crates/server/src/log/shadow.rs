//! Comparisons in the dark as columns.

use std::sync::Arc;

use arrow_array::{
    ArrayRef, Date32Array, FixedSizeBinaryArray, Float64Array, RecordBatch, StringArray,
    UInt32Array, UInt64Array,
};
use arrow_schema::{ArrowError, SchemaRef};
use refrain_experiments::record::ShadowRecord;
use refrain_experiments::schema::{SHADOW_SCHEMA, shadow_schema};

use super::exposure::{ids, instants};
use super::{Table, day_of};

impl Table for ShadowRecord {
    const FOLDER: &'static str = "shadow";
    const SCHEMA: &'static str = SHADOW_SCHEMA;

    fn schema() -> SchemaRef {
        Arc::new(shadow_schema())
    }

    fn batch(rows: &[Self], writer: &str) -> Result<RecordBatch, ArrowError> {
        let optional = |of: fn(&Self) -> Option<&str>| -> ArrayRef {
            Arc::new(rows.iter().map(of).collect::<StringArray>())
        };
        let text = |of: fn(&Self) -> &str| -> ArrayRef {
            Arc::new(StringArray::from_iter_values(rows.iter().map(of)))
        };
        let count = |of: fn(&Self) -> u32| -> ArrayRef {
            Arc::new(UInt32Array::from_iter_values(rows.iter().map(of)))
        };
        let long = |of: fn(&Self) -> u64| -> ArrayRef {
            Arc::new(UInt64Array::from_iter_values(rows.iter().map(of)))
        };
        let real = |of: fn(&Self) -> f64| -> ArrayRef {
            Arc::new(Float64Array::from_iter_values(rows.iter().map(of)))
        };
        let columns: Vec<ArrayRef> = vec![
            ids(rows.iter().map(|row| row.exposure_id))?,
            instants(rows.iter().map(|row| row.ts_us)),
            Arc::new(Date32Array::from_iter_values(
                rows.iter().map(|row| day_of(row.ts_us)),
            )),
            text(|row| &row.unit_id),
            optional(|row| row.request_id.as_deref()),
            text(|row| &row.surface),
            text(|row| &row.experiment),
            count(|row| row.exp_epoch),
            Arc::new(FixedSizeBinaryArray::try_from_iter(
                rows.iter().map(|row| row.config_digest),
            )?),
            text(|row| &row.arm),
            text(|row| &row.ranking_variant),
            text(|row| &row.served_variant),
            text(|row| &row.index_version),
            count(|row| row.k),
            real(|row| row.overlap),
            real(|row| row.rbo),
            count(|row| row.latency_us),
            count(|row| row.served_latency_us),
            long(|row| row.ids_hash),
            optional(|row| row.error.as_deref()),
            Arc::new(StringArray::from_iter_values(rows.iter().map(|_| writer))),
            long(|row| row.seq),
        ];
        RecordBatch::try_new(Self::schema(), columns)
    }

    fn stamp(&mut self, seq: u64) {
        self.seq = seq;
    }

    fn arm(&self) -> (&str, &str) {
        (&self.experiment, &self.arm)
    }

    fn ts_us(&self) -> i64 {
        self.ts_us
    }
}
