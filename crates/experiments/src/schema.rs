//! The logs as tables: what the server writes is what the analysis reads.
//!
//! One home for the column names and types of exposures, outcomes, covariates and shadow comparisons;
//! [`record`](crate::record) has the rows. Readers find columns by name and ignore those that they do
//! not know, so a column may be added without a new schema number; one that changes meaning needs it.

use std::sync::Arc;

use arrow_schema::{DataType, Field, Fields, Schema, TimeUnit};

/// Key of the Parquet metadata that holds the name and number of the schema.
pub const SCHEMA_KEY: &str = "refrain.schema";
/// Key of the Parquet metadata that names the writer.
pub const WRITER_KEY: &str = "refrain.writer";
/// Key of the Parquet metadata with the rows that the writer dropped since its last file, as JSON
/// `{"EXPERIMENT": {"ARM": n}}`.
pub const DROPPED_KEY: &str = "refrain.dropped";
/// Key of the Parquet metadata with the requests that failed by the server's fault since the writer's last
/// file, and so have no row, as JSON `{"EXPERIMENT": {"ARM": n}}`.
pub const FAILED_KEY: &str = "refrain.failed";

/// Value of [`SCHEMA_KEY`] in files of exposures.
pub const EXPOSURE_SCHEMA: &str = "exposure/1";
/// Value of [`SCHEMA_KEY`] in files of outcomes.
pub const OUTCOME_SCHEMA: &str = "outcome/1";
/// Value of [`SCHEMA_KEY`] in files of shadow comparisons. In 1, lists that failed or were dropped had no row.
pub const SHADOW_SCHEMA: &str = "shadow/2";

/// One row per served request.
#[must_use]
pub fn exposure_schema() -> Schema {
    Schema::new(vec![
        id("exposure_id"),
        instant("ts"),
        required("day", DataType::Date32),
        text("unit_id"),
        text("unit_kind"),
        optional("request_id", DataType::Utf8),
        optional("surface", DataType::Utf8),
        optional("seed_kind", DataType::Utf8),
        optional("seed_ids_hash", DataType::Utf8),
        text("layer"),
        required("layer_epoch", DataType::UInt32),
        text("experiment"),
        required("exp_epoch", DataType::UInt32),
        text("kind"),
        required("config_digest", DataType::FixedSizeBinary(32)),
        text("variant"),
        optional("served_variant", DataType::Utf8),
        text("ranking_variant"),
        text("reason"),
        optional("holdout", DataType::Utf8),
        optional("holdouts", DataType::Utf8),
        required("bucket", DataType::UInt32),
        required("alloc_bp", DataType::UInt32),
        required("weights", list(DataType::Float32)),
        optional("assign_prob", DataType::Float64),
        optional("index_version", DataType::Utf8),
        required("delta", DataType::UInt64),
        optional("model_version", DataType::Utf8),
        optional("profile_rev", DataType::Utf8),
        required("items", list(DataType::Struct(item_fields()))),
        optional("slate_logprob", DataType::Float64),
        required("latency_us", DataType::UInt32),
        required("degraded", DataType::UInt16),
        required("empty", DataType::Boolean),
        required("forced", DataType::Boolean),
        required("bot_flag", DataType::Boolean),
        text("writer"),
        required("seq", DataType::UInt64),
    ])
}

/// The fields of one entry of `items`.
#[must_use]
pub fn item_fields() -> Fields {
    Fields::from(vec![
        required("id", DataType::UInt64),
        text("item"),
        required("pos", DataType::UInt16),
        required("score", DataType::Float32),
        required("source", DataType::UInt8),
        optional("team", DataType::Int8),
        optional("propensity", DataType::Float64),
        required("explored", DataType::Boolean),
    ])
}

/// One row per reported outcome.
#[must_use]
pub fn outcome_schema() -> Schema {
    Schema::new(vec![
        id("outcome_id"),
        instant("ts"),
        text("unit_id"),
        optional("request_id", DataType::Utf8),
        optional("exposure_id", DataType::FixedSizeBinary(16)),
        text("event"),
        optional("item", DataType::Utf8),
        required("value", DataType::Float64),
        optional("source", DataType::Utf8),
        text("writer"),
        required("seq", DataType::UInt64),
    ])
}

/// One row per unit and named value that was known before the experiment: the covariates of CUPED.
#[must_use]
pub fn covariate_schema() -> Schema {
    Schema::new(vec![
        text("unit_id"),
        instant("as_of"),
        text("name"),
        required("value", DataType::Float64),
    ])
}

/// One row per variant that was to be computed in the dark beside a served answer.
#[must_use]
pub fn shadow_schema() -> Schema {
    Schema::new(vec![
        id("exposure_id"),
        instant("ts"),
        required("day", DataType::Date32),
        text("unit_id"),
        optional("request_id", DataType::Utf8),
        optional("surface", DataType::Utf8),
        text("experiment"),
        required("exp_epoch", DataType::UInt32),
        required("config_digest", DataType::FixedSizeBinary(32)),
        text("arm"),
        text("ranking_variant"),
        text("served_variant"),
        optional("index_version", DataType::Utf8),
        required("k", DataType::UInt32),
        optional("overlap", DataType::Float64),
        optional("rbo", DataType::Float64),
        optional("latency_us", DataType::UInt32),
        required("served_latency_us", DataType::UInt32),
        optional("ids_hash", DataType::UInt64),
        optional("error", DataType::Utf8),
        text("writer"),
        required("seq", DataType::UInt64),
    ])
}

fn required(name: &str, kind: DataType) -> Field {
    Field::new(name, kind, false)
}

fn optional(name: &str, kind: DataType) -> Field {
    Field::new(name, kind, true)
}

fn text(name: &str) -> Field {
    required(name, DataType::Utf8)
}

fn id(name: &str) -> Field {
    required(name, DataType::FixedSizeBinary(16))
}

fn instant(name: &str) -> Field {
    required(
        name,
        DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
    )
}

fn list(kind: DataType) -> DataType {
    DataType::List(Arc::new(Field::new("item", kind, false)))
}
