//! Exposures as columns, and an exposure on its way to the log.

use std::sync::Arc;

use arrow_array::builder::{
    BooleanBuilder, Float32Builder, Float64Builder, Int8Builder, ListBuilder, StringBuilder,
    StructBuilder, UInt8Builder, UInt16Builder, UInt64Builder,
};
use arrow_array::{ArrayRef, RecordBatch, StringArray, UInt16Array};
use arrow_schema::{ArrowError, Field, SchemaRef};
use refrain_experiments::hash64;
use refrain_experiments::record::Exposure;
use refrain_experiments::schema::{EXPOSURE_SCHEMA, exposure_schema, item_fields};

use super::columns::Columns;
use super::{Log, Table};

/// The exposures of an answer, which become such when it is sent. Travels as an extension of the response: who
/// hands the body to the transport records it then. Only one of its clones does.
#[derive(Clone)]
pub(crate) struct Pending {
    log: Arc<Log<Exposure>>,
    exposures: Arc<std::sync::Mutex<Vec<Exposure>>>,
}

impl Pending {
    pub(crate) fn new(log: &Arc<Log<Exposure>>, exposures: Vec<Exposure>) -> Self {
        Self {
            log: Arc::clone(log),
            exposures: Arc::new(std::sync::Mutex::new(exposures)),
        }
    }

    /// The answer has been handed over.
    pub(crate) fn sent(&self, latency_us: u32) {
        let taken = match self.exposures.lock() {
            Ok(mut exposures) => std::mem::take(&mut *exposures),
            Err(_) => Vec::new(),
        };
        for mut exposure in taken {
            exposure.latency_us = latency_us;
            self.log.record(exposure);
        }
    }
}

impl Table for Exposure {
    const FOLDER: &'static str = "exposures";
    const SCHEMA: &'static str = EXPOSURE_SCHEMA;

    fn schema() -> SchemaRef {
        Arc::new(exposure_schema())
    }

    fn batch(rows: &[Self], writer: &str) -> Result<RecordBatch, ArrowError> {
        let columns = Columns(rows);
        let revisions = rows
            .iter()
            .map(|row| row.profile_rev.map(|rev| rev.to_string()));
        let columns = vec![
            columns.id(|row| row.exposure_id)?,
            columns.instant(),
            columns.day(),
            columns.text(|row| &row.unit_id),
            columns.all("user"),
            columns.optional_text(|row| row.request_id.as_deref()),
            columns.text(|row| &row.surface),
            columns.text(|row| row.seed_kind),
            columns.optional_text(|row| row.seed_ids_hash.as_deref()),
            columns.text(|row| &row.decision.layer),
            columns.count(|row| row.decision.layer_epoch),
            columns.text(|row| &row.decision.experiment),
            columns.count(|row| row.decision.exp_epoch),
            columns.text(|row| row.decision.kind),
            columns.bytes(|row| row.decision.config_digest)?,
            columns.text(|row| &row.decision.arm),
            columns.optional_text(|row| row.served_variant.as_deref()),
            columns.text(|row| &row.ranking_variant),
            columns.text(|row| row.decision.reason),
            columns.optional_text(|row| row.decision.holdout),
            columns.optional_text(|row| {
                let holdouts = row.decision.holdouts.as_str();
                (!holdouts.is_empty()).then_some(holdouts)
            }),
            columns.count(|row| row.decision.bucket),
            columns.count(|row| row.decision.alloc_bp),
            weights(rows),
            columns.optional_real(|row| row.decision.assign_prob),
            columns.text(|row| &row.index_version),
            columns.long(|row| row.delta),
            columns.text(|row| &row.model_version),
            Arc::new(revisions.collect::<StringArray>()),
            items(rows),
            columns.optional_real(|row| row.slate_logprob),
            columns.count(|row| row.latency_us),
            Arc::new(UInt16Array::from_iter_values(
                rows.iter().map(|row| row.degraded),
            )),
            columns.flag(|row| row.items.is_empty()),
            columns.flag(|row| row.decision.reason == "FORCED"),
            columns.flag(|row| row.bot),
            columns.all(writer),
            columns.long(|row| row.seq),
        ];
        RecordBatch::try_new(Self::schema(), columns)
    }

    fn stamp(&mut self, seq: u64) {
        self.seq = seq;
    }

    fn arm(&self) -> (&str, &str) {
        (&self.decision.experiment, &self.decision.arm)
    }

    fn ts_us(&self) -> i64 {
        self.ts_us
    }
}

fn weights(rows: &[Exposure]) -> ArrayRef {
    let field = Field::new("item", arrow_schema::DataType::Float32, false);
    let mut list = ListBuilder::new(Float32Builder::new()).with_field(field);
    for row in rows {
        list.values().append_slice(&row.decision.weights);
        list.append(true);
    }
    Arc::new(list.finish())
}

fn items(rows: &[Exposure]) -> ArrayRef {
    let fields = item_fields();
    let field = Field::new(
        "item",
        arrow_schema::DataType::Struct(fields.clone()),
        false,
    );
    let shown = StructBuilder::new(
        fields,
        vec![
            Box::new(UInt64Builder::new()),
            Box::new(StringBuilder::new()),
            Box::new(UInt16Builder::new()),
            Box::new(Float32Builder::new()),
            Box::new(UInt8Builder::new()),
            Box::new(Int8Builder::new()),
            Box::new(Float64Builder::new()),
            Box::new(BooleanBuilder::new()),
        ],
    );
    let mut list = ListBuilder::new(shown).with_field(field);
    for row in rows {
        for (at, (id, item)) in row.items.iter().enumerate() {
            let shown = list.values();
            let position = u16::try_from(at).unwrap_or(u16::MAX);
            macro_rules! put {
                ($at:expr, $builder:ty, $append:ident, $value:expr) => {
                    if let Some(builder) = shown.field_builder::<$builder>($at) {
                        builder.$append($value);
                    }
                };
            }
            put!(0, UInt64Builder, append_value, hash64(id.as_bytes()));
            put!(1, StringBuilder, append_value, id);
            put!(2, UInt16Builder, append_value, position);
            put!(3, Float32Builder, append_value, item.score);
            put!(4, UInt8Builder, append_value, item.source);
            put!(5, Int8Builder, append_option, item.team);
            put!(6, Float64Builder, append_option, item.propensity);
            put!(7, BooleanBuilder, append_value, item.explored);
            shown.append(true);
        }
        list.append(true);
    }
    Arc::new(list.finish())
}
