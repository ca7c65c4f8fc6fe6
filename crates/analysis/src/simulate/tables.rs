//! The three tables of a simulated log, written a row group at a time.

use std::path::Path;
use std::sync::Arc;

use arrow_array::builder::{
    BooleanBuilder, FixedSizeBinaryBuilder, Float32Builder, Float64Builder, Int8Builder,
    ListBuilder, StringBuilder, StructBuilder, TimestampMicrosecondBuilder, UInt16Builder,
    UInt32Builder,
};
use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::{DataType, Field, Fields};
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;

use super::lists::Item;

/// Where a unit stands in a holdout, and the experiment that it is in all the same.
#[derive(Clone, Copy)]
pub(super) struct Side<'a> {
    pub(super) holdout: &'a str,
    pub(super) held: bool,
    pub(super) experiment: Option<&'a str>,
}

#[derive(Clone, Copy)]
pub(super) struct Exposure<'a> {
    pub(super) side: Option<Side<'a>>,
    pub(super) id: (u64, u64),
    pub(super) ts: i64,
    pub(super) unit: &'a str,
    pub(super) surface: &'a str,
    pub(super) experiment: &'a str,
    pub(super) variant: &'a str,
    pub(super) weights: &'a [f64],
    pub(super) prob: f64,
    pub(super) latency_us: f64,
    pub(super) empty: bool,
    pub(super) served: &'a str,
    pub(super) seed: Option<&'a str>,
    pub(super) items: &'a [Item],
}

#[derive(Clone, Copy)]
pub(super) struct Outcome<'a> {
    pub(super) unit: &'a str,
    pub(super) ts: i64,
    pub(super) event: &'a str,
    pub(super) value: f64,
    /// The exposure and the item that it names.
    pub(super) item: Option<((u64, u64), &'a str)>,
}

/// The three tables, written a row group at a time.
pub(super) struct Tables {
    exposures: Table<Exposures>,
    outcomes: Table<Outcomes>,
    covariates: Table<Covariates>,
}

impl Tables {
    pub(super) fn new(
        folder: &Path,
        rows: usize,
        lists: bool,
        holdout: bool,
    ) -> Result<Self, ParquetError> {
        let table = |name: &str| {
            let folder = folder.join(name);
            fs_err::create_dir_all(&folder)?;
            Ok::<_, ParquetError>(folder.join("simulated-0.parquet"))
        };
        let mut tables = Self {
            exposures: Table::new(table("exposures")?, rows),
            outcomes: Table::new(table("outcomes")?, rows),
            covariates: Table::new(table("covariates")?, rows),
        };
        tables.exposures.columns.lists = lists;
        tables.exposures.columns.holdout = holdout;
        tables.outcomes.columns.lists = lists;
        Ok(tables)
    }

    pub(super) fn exposure(&mut self, exposure: &Exposure<'_>) -> Result<(), ParquetError> {
        self.exposures.columns.push(exposure)?;
        self.exposures.row()
    }

    pub(super) fn outcome(&mut self, outcome: &Outcome<'_>) -> Result<(), ParquetError> {
        let columns = &mut self.outcomes.columns;
        columns.ts.append_value(outcome.ts);
        columns.unit.append_value(outcome.unit);
        columns.event.append_value(outcome.event);
        columns.value.append_value(outcome.value);
        match outcome.item {
            Some((exposure, item)) => {
                columns.exposure.append_value(exposure_id(exposure))?;
                columns.item.append_value(item);
            }
            None => {
                columns.exposure.append_null();
                columns.item.append_null();
            }
        }
        self.outcomes.row()
    }

    pub(super) fn covariate(
        &mut self,
        unit: &str,
        as_of: i64,
        name: &str,
        value: f64,
    ) -> Result<(), ParquetError> {
        let columns = &mut self.covariates.columns;
        columns.unit.append_value(unit);
        columns.as_of.append_value(as_of);
        columns.name.append_value(name);
        columns.value.append_value(value);
        self.covariates.row()
    }

    pub(super) fn finish(self) -> Result<[u64; 3], ParquetError> {
        Ok([
            self.exposures.finish()?,
            self.outcomes.finish()?,
            self.covariates.finish()?,
        ])
    }
}

trait Columns: Default {
    fn batch(&mut self) -> Result<RecordBatch, ParquetError>;
}

struct Table<C> {
    columns: C,
    pending: usize,
    rows: u64,
    rows_per_group: usize,
    path: std::path::PathBuf,
    writer: Option<ArrowWriter<std::fs::File>>,
}

impl<C: Columns> Table<C> {
    fn new(path: std::path::PathBuf, rows_per_group: usize) -> Self {
        Self {
            columns: C::default(),
            pending: 0,
            rows: 0,
            rows_per_group: rows_per_group.max(1),
            path,
            writer: None,
        }
    }

    fn row(&mut self) -> Result<(), ParquetError> {
        self.pending += 1;
        self.rows += 1;
        if self.pending >= self.rows_per_group {
            self.flush()
        } else {
            Ok(())
        }
    }

    fn flush(&mut self) -> Result<(), ParquetError> {
        let batch = self.columns.batch()?;
        self.pending = 0;
        let writer = match &mut self.writer {
            Some(writer) => writer,
            none => {
                let file = fs_err::File::create(&self.path)?.into_parts().0;
                let properties = WriterProperties::builder()
                    .set_compression(Compression::SNAPPY)
                    .build();
                none.insert(ArrowWriter::try_new(
                    file,
                    batch.schema(),
                    Some(properties),
                )?)
            }
        };
        writer.write(&batch)?;
        writer.flush()
    }

    fn finish(mut self) -> Result<u64, ParquetError> {
        if self.pending > 0 || self.writer.is_none() {
            self.flush()?;
        }
        if let Some(writer) = self.writer {
            writer.close()?;
        }
        Ok(self.rows)
    }
}

struct Exposures {
    id: FixedSizeBinaryBuilder,
    ts: TimestampMicrosecondBuilder,
    unit: StringBuilder,
    surface: StringBuilder,
    experiment: StringBuilder,
    epoch: UInt32Builder,
    variant: StringBuilder,
    served: StringBuilder,
    reason: StringBuilder,
    weights: ListBuilder<Float32Builder>,
    prob: Float64Builder,
    index: StringBuilder,
    latency: UInt32Builder,
    degraded: UInt16Builder,
    empty: BooleanBuilder,
    forced: BooleanBuilder,
    bot: BooleanBuilder,
    holdout: bool,
    holdouts: StringBuilder,
    lists: bool,
    seed: StringBuilder,
    items: ListBuilder<StructBuilder>,
    ranking: StringBuilder,
}

impl Default for Exposures {
    fn default() -> Self {
        Self {
            id: FixedSizeBinaryBuilder::new(16),
            ts: TimestampMicrosecondBuilder::new().with_timezone("UTC"),
            unit: StringBuilder::new(),
            surface: StringBuilder::new(),
            experiment: StringBuilder::new(),
            epoch: UInt32Builder::new(),
            variant: StringBuilder::new(),
            served: StringBuilder::new(),
            reason: StringBuilder::new(),
            weights: ListBuilder::new(Float32Builder::new()),
            prob: Float64Builder::new(),
            index: StringBuilder::new(),
            latency: UInt32Builder::new(),
            degraded: UInt16Builder::new(),
            empty: BooleanBuilder::new(),
            forced: BooleanBuilder::new(),
            bot: BooleanBuilder::new(),
            holdout: false,
            holdouts: StringBuilder::new(),
            lists: false,
            seed: StringBuilder::new(),
            ranking: StringBuilder::new(),
            items: ListBuilder::new(StructBuilder::from_fields(item_fields(), 0)),
        }
    }
}

impl Exposures {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "weights, and a latency in range"
    )]
    fn push(&mut self, exposure: &Exposure<'_>) -> Result<(), ParquetError> {
        self.id.append_value(exposure_id(exposure.id))?;
        self.ts.append_value(exposure.ts);
        self.unit.append_value(exposure.unit);
        self.surface.append_value(exposure.surface);
        let [experiment, variant, served, reason] = match exposure.side {
            None => [
                exposure.experiment,
                exposure.variant,
                exposure.served,
                "SPLIT",
            ],
            Some(Side {
                experiment: Some(experiment),
                ..
            }) => [experiment, "shipped", "shipped", "SPLIT"],
            Some(Side { held: true, .. }) => ["", "", "", "HOLDOUT"],
            Some(_) => ["", "", "", "DEFAULT"],
        };
        self.experiment.append_value(experiment);
        self.epoch.append_value(u32::from(!experiment.is_empty()));
        self.variant.append_value(variant);
        self.served.append_value(served);
        self.reason.append_value(reason);
        if let Some(side) = exposure.side {
            let group = if side.held { "held" } else { "slice" };
            self.holdouts
                .append_value(format!("{}|1|{group}", side.holdout));
        }
        // None where no experiment decided.
        for weight in exposure.weights.iter().filter(|_| !experiment.is_empty()) {
            self.weights.values().append_value(*weight as f32);
        }
        self.weights.append(true);
        self.prob.append_value(exposure.prob);
        self.index.append_value("v12");
        self.latency
            .append_value(exposure.latency_us.clamp(1.0, 4e9) as u32);
        self.degraded.append_value(0);
        self.empty.append_value(exposure.empty);
        self.forced.append_value(false);
        self.bot.append_value(false);
        if self.lists {
            self.seed.append_option(exposure.seed);
            for item in exposure.items {
                self.item(item)?;
            }
            self.items.append(true);
            self.ranking.append_value(exposure.served);
        }
        Ok(())
    }
}

impl Exposures {
    fn item(&mut self, item: &Item) -> Result<(), ParquetError> {
        let row = self.items.values();
        let wrong = || ParquetError::General("the fields of an item".to_owned());
        row.field_builder::<StringBuilder>(0)
            .ok_or_else(wrong)?
            .append_value(&item.item);
        row.field_builder::<Int8Builder>(1)
            .ok_or_else(wrong)?
            .append_option(item.team);
        row.field_builder::<Float64Builder>(2)
            .ok_or_else(wrong)?
            .append_option(item.propensity);
        row.append(true);
        Ok(())
    }
}

impl Columns for Exposures {
    fn batch(&mut self) -> Result<RecordBatch, ParquetError> {
        let mut columns: Vec<(&str, ArrayRef)> = vec![
            ("exposure_id", Arc::new(self.id.finish())),
            ("ts", Arc::new(self.ts.finish())),
            ("unit_id", Arc::new(self.unit.finish())),
            ("surface", Arc::new(self.surface.finish())),
            ("experiment", Arc::new(self.experiment.finish())),
            ("exp_epoch", Arc::new(self.epoch.finish())),
            ("variant", Arc::new(self.variant.finish())),
            ("served_variant", Arc::new(self.served.finish())),
            ("reason", Arc::new(self.reason.finish())),
            ("weights", Arc::new(self.weights.finish())),
            ("assign_prob", Arc::new(self.prob.finish())),
            ("index_version", Arc::new(self.index.finish())),
            ("latency_us", Arc::new(self.latency.finish())),
            ("degraded", Arc::new(self.degraded.finish())),
            ("empty", Arc::new(self.empty.finish())),
            ("forced", Arc::new(self.forced.finish())),
            ("bot_flag", Arc::new(self.bot.finish())),
        ];
        if self.holdout {
            columns.push(("holdouts", Arc::new(self.holdouts.finish())));
        }
        if self.lists {
            columns.push(("seed_ids_hash", Arc::new(self.seed.finish())));
            columns.push(("items", Arc::new(self.items.finish())));
            columns.push(("ranking_variant", Arc::new(self.ranking.finish())));
        }
        batch(columns)
    }
}

struct Outcomes {
    ts: TimestampMicrosecondBuilder,
    unit: StringBuilder,
    event: StringBuilder,
    value: Float64Builder,
    lists: bool,
    exposure: FixedSizeBinaryBuilder,
    item: StringBuilder,
}

impl Default for Outcomes {
    fn default() -> Self {
        Self {
            ts: TimestampMicrosecondBuilder::new().with_timezone("UTC"),
            unit: StringBuilder::new(),
            event: StringBuilder::new(),
            value: Float64Builder::new(),
            lists: false,
            exposure: FixedSizeBinaryBuilder::new(16),
            item: StringBuilder::new(),
        }
    }
}

impl Columns for Outcomes {
    fn batch(&mut self) -> Result<RecordBatch, ParquetError> {
        let (exposure, item) = (self.exposure.finish(), self.item.finish());
        let mut columns: Vec<(&str, ArrayRef)> = vec![
            ("ts", Arc::new(self.ts.finish())),
            ("unit_id", Arc::new(self.unit.finish())),
            ("event", Arc::new(self.event.finish())),
            ("value", Arc::new(self.value.finish())),
        ];
        if self.lists {
            columns.push(("exposure_id", Arc::new(exposure)));
            columns.push(("item", Arc::new(item)));
        }
        batch(columns)
    }
}

struct Covariates {
    unit: StringBuilder,
    as_of: TimestampMicrosecondBuilder,
    name: StringBuilder,
    value: Float64Builder,
}

impl Default for Covariates {
    fn default() -> Self {
        Self {
            unit: StringBuilder::new(),
            as_of: TimestampMicrosecondBuilder::new().with_timezone("UTC"),
            name: StringBuilder::new(),
            value: Float64Builder::new(),
        }
    }
}

impl Columns for Covariates {
    fn batch(&mut self) -> Result<RecordBatch, ParquetError> {
        batch(vec![
            ("unit_id", Arc::new(self.unit.finish())),
            ("as_of", Arc::new(self.as_of.finish())),
            ("name", Arc::new(self.name.finish())),
            ("value", Arc::new(self.value.finish())),
        ])
    }
}

/// A batch in which only what may be absent is nullable, whether or not it is.
fn batch(columns: Vec<(&str, ArrayRef)>) -> Result<RecordBatch, ParquetError> {
    let of_list = columns.iter().any(|(name, _)| *name == "item");
    Ok(RecordBatch::try_from_iter_with_nullable(
        columns.into_iter().map(|(name, column)| {
            let absent = matches!(name, "item" | "seed_ids_hash");
            (name, column, absent || (of_list && name == "exposure_id"))
        }),
    )?)
}

fn exposure_id((unit, request): (u64, u64)) -> [u8; 16] {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&unit.to_le_bytes());
    id[8..].copy_from_slice(&request.to_le_bytes());
    id
}

fn item_fields() -> Fields {
    Fields::from(vec![
        Field::new("item", DataType::Utf8, true),
        Field::new("team", DataType::Int8, true),
        Field::new("propensity", DataType::Float64, true),
    ])
}
