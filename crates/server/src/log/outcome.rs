//! Outcomes as columns.

use std::sync::Arc;

use arrow_array::builder::FixedSizeBinaryBuilder;
use arrow_array::{ArrayRef, Float64Array, RecordBatch, StringArray, UInt64Array};
use arrow_schema::{ArrowError, SchemaRef};
use refrain_experiments::record::Outcome;
use refrain_experiments::schema::{OUTCOME_SCHEMA, outcome_schema};

use super::Table;
use super::exposure::{ids, instants};

impl Table for Outcome {
    const FOLDER: &'static str = "outcomes";
    const SCHEMA: &'static str = OUTCOME_SCHEMA;

    fn schema() -> SchemaRef {
        Arc::new(outcome_schema())
    }

    fn batch(rows: &[Self], writer: &str) -> Result<RecordBatch, ArrowError> {
        let optional = |of: fn(&Self) -> Option<&str>| -> ArrayRef {
            Arc::new(rows.iter().map(of).collect::<StringArray>())
        };
        let text = |of: fn(&Self) -> &str| -> ArrayRef {
            Arc::new(StringArray::from_iter_values(rows.iter().map(of)))
        };
        let mut exposures = FixedSizeBinaryBuilder::new(16);
        for row in rows {
            match row.exposure_id {
                Some(id) => {
                    let mut bytes = id.to_le_bytes();
                    bytes.reverse();
                    exposures.append_value(bytes)?;
                }
                None => exposures.append_null(),
            }
        }
        let columns: Vec<ArrayRef> = vec![
            ids(rows.iter().map(|row| row.outcome_id))?,
            instants(rows.iter().map(|row| row.ts_us)),
            text(|row| &row.unit_id),
            optional(|row| row.request_id.as_deref()),
            Arc::new(exposures.finish()),
            text(|row| &row.event),
            optional(|row| row.item.as_deref()),
            Arc::new(Float64Array::from_iter_values(
                rows.iter().map(|row| row.value),
            )),
            optional(|row| row.source.as_deref()),
            Arc::new(StringArray::from_iter_values(rows.iter().map(|_| writer))),
            Arc::new(UInt64Array::from_iter_values(
                rows.iter().map(|row| row.seq),
            )),
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
