//! Outcomes as columns.

use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_array::builder::FixedSizeBinaryBuilder;
use arrow_schema::{ArrowError, SchemaRef};
use refrain_experiments::record::Outcome;
use refrain_experiments::schema::{OUTCOME_SCHEMA, outcome_schema};

use super::Table;
use super::columns::{Columns, id_bytes};

impl Table for Outcome {
    const FOLDER: &'static str = "outcomes";
    const SCHEMA: &'static str = OUTCOME_SCHEMA;

    fn schema() -> SchemaRef {
        Arc::new(outcome_schema())
    }

    fn batch(rows: &[Self], writer: &str) -> Result<RecordBatch, ArrowError> {
        let columns = Columns(rows);
        let mut exposures = FixedSizeBinaryBuilder::new(16);
        for row in rows {
            match row.exposure_id {
                Some(id) => exposures.append_value(id_bytes(id))?,
                None => exposures.append_null(),
            }
        }
        let columns = vec![
            columns.id(|row| row.outcome_id)?,
            columns.instant(),
            columns.text(|row| &row.unit_id),
            columns.optional_text(|row| row.request_id.as_deref()),
            Arc::new(exposures.finish()),
            columns.text(|row| &row.event),
            columns.optional_text(|row| row.item.as_deref()),
            columns.real(|row| row.value),
            columns.optional_text(|row| row.source.as_deref()),
            columns.all(writer),
            columns.long(|row| row.seq),
        ];
        RecordBatch::try_new(Self::schema(), columns)
    }

    fn stamp(&mut self, seq: u64) {
        self.seq = seq;
    }

    fn arm(&self) -> (&str, &str) {
        ("", &self.event)
    }

    fn ts_us(&self) -> i64 {
        self.ts_us
    }
}
