//! Comparisons in the dark as columns.

use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_schema::{ArrowError, SchemaRef};
use refrain_experiments::record::ShadowRecord;
use refrain_experiments::schema::{SHADOW_SCHEMA, shadow_schema};

use super::Table;
use super::columns::Columns;

impl Table for ShadowRecord {
    const FOLDER: &'static str = "shadow";
    const SCHEMA: &'static str = SHADOW_SCHEMA;

    fn schema() -> SchemaRef {
        Arc::new(shadow_schema())
    }

    fn batch(rows: &[Self], writer: &str) -> Result<RecordBatch, ArrowError> {
        let columns = Columns(rows);
        let columns = vec![
            columns.id(|row| row.exposure_id)?,
            columns.instant(),
            columns.day(),
            columns.text(|row| &row.unit_id),
            columns.optional_text(|row| row.request_id.as_deref()),
            columns.text(|row| &row.surface),
            columns.text(|row| &row.experiment),
            columns.count(|row| row.exp_epoch),
            columns.bytes(|row| row.config_digest)?,
            columns.text(|row| &row.arm),
            columns.text(|row| &row.ranking_variant),
            columns.text(|row| &row.served_variant),
            columns.text(|row| &row.index_version),
            columns.count(|row| row.k),
            columns.optional_real(|row| row.overlap),
            columns.optional_real(|row| row.rbo),
            columns.optional_count(|row| row.latency_us),
            columns.count(|row| row.served_latency_us),
            columns.optional_long(|row| row.ids_hash),
            columns.optional_text(|row| row.error.as_deref()),
            columns.all(writer),
            columns.long(|row| row.seq),
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
