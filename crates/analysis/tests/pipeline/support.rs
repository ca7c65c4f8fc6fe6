//! A simulated experiment, analysed.

use std::path::{Path, PathBuf};

use arrow_array::{ArrayRef, RecordBatch};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::file::metadata::KeyValue;
use refrain_analysis::simulate::{self, World};
use refrain_analysis::verdict::document::{Check, MetricComparison, Status};
use refrain_analysis::{Analysis, Look, Looks, Options, Plan};
use tempfile::TempDir;

pub(crate) const GST: &str = r#"{ method = "gst", max_units = 4000, alpha = 0.05 }"#;
pub(crate) const FIXED: &str = r#"{ method = "fixed", max_units = 100, alpha = 0.05 }"#;

/// A log on disk and its plan.
pub(crate) struct Case {
    pub(crate) folder: TempDir,
    pub(crate) plan: Plan,
}

impl Case {
    pub(crate) fn new(world: &World, design: &str) -> Self {
        let folder = tempfile::tempdir().expect("temporary folder");
        world.write(folder.path()).expect("written");
        let plan = Plan::from_toml(&simulate::plan_toml(world, design), None).expect("valid plan");
        Self { folder, plan }
    }

    pub(crate) fn analyze(&self) -> Analysis {
        self.look(&Options::default()).0
    }

    pub(crate) fn look(&self, options: &Options) -> (Analysis, Look) {
        refrain_analysis::from_log(self.folder.path(), &self.plan, options, &|_, _| ())
            .expect("analysed")
    }

    /// Looks at several days (since the start), as an owner would.
    pub(crate) fn looks(&self, days: &[i64]) -> Vec<Analysis> {
        let mut looks = Looks::new(&self.plan);
        days.iter()
            .map(|day| {
                let mut options = Options {
                    looks: Some(looks.clone()),
                    ..Options::default()
                };
                options.read.until_us = Some(simulate::START_US + day * 86_400_000_000);
                options.read.threads = 1;
                let (analysis, look) = self.look(&options);
                looks.looks.push(look);
                analysis
            })
            .collect()
    }
}

pub(crate) fn check<'a>(analysis: &'a Analysis, id: &str) -> &'a Check {
    analysis
        .quality
        .iter()
        .find(|check| check.id == id)
        .unwrap_or_else(|| panic!("no check {id} among {:?}", ids(analysis)))
}

pub(crate) fn ids(analysis: &Analysis) -> Vec<(&str, Status)> {
    analysis
        .quality
        .iter()
        .map(|check| (check.id.as_str(), check.status))
        .collect()
}

pub(crate) fn comparison<'a>(analysis: &'a Analysis, metric: &str) -> &'a MetricComparison {
    let result = analysis
        .metrics
        .iter()
        .find(|m| m.name == metric)
        .expect("metric");
    result
        .comparisons
        .first()
        .unwrap_or_else(|| panic!("{metric}: {:?}", result.notes))
}

/// The file of a table.
pub(crate) fn table(case: &Case, name: &str) -> PathBuf {
    case.folder.path().join(name).join("simulated-0.parquet")
}

/// Rewrites a table, batch by batch of 400 rows, one row group each.
pub(crate) fn rewrite(path: &Path, change: impl FnMut(usize, RecordBatch) -> RecordBatch) {
    rewrite_with(path, None, change);
}

/// The same, with a note in the footer.
pub(crate) fn rewrite_with(
    path: &Path,
    note: Option<KeyValue>,
    mut change: impl FnMut(usize, RecordBatch) -> RecordBatch,
) {
    let file = fs_err::File::open(path).expect("there").into_parts().0;
    let reader = ParquetRecordBatchReaderBuilder::try_new(file)
        .and_then(|builder| builder.with_batch_size(400).build())
        .expect("readable");
    let batches: Vec<RecordBatch> = reader
        .enumerate()
        .map(|(at, batch)| change(at, batch.expect("readable")))
        .collect();
    let file = fs_err::File::create(path).expect("writable").into_parts().0;
    let mut writer = ArrowWriter::try_new(file, batches[0].schema(), None).expect("writer");
    for batch in batches {
        writer.write(&batch).expect("written");
        writer.flush().expect("written");
    }
    if let Some(note) = note {
        writer.append_key_value_metadata(note);
    }
    writer.close().expect("closed");
}

/// A batch with another column of this name.
pub(crate) fn with_column(batch: &RecordBatch, name: &str, column: ArrayRef) -> RecordBatch {
    RecordBatch::try_from_iter(
        batch
            .schema()
            .fields()
            .iter()
            .enumerate()
            .map(|(at, field)| {
                let of = if field.name() == name {
                    column.clone()
                } else {
                    batch.column(at).clone()
                };
                (field.name().clone(), of)
            }),
    )
    .expect("same length")
}

/// A batch with one column more.
pub(crate) fn and_column(batch: &RecordBatch, name: &str, column: ArrayRef) -> RecordBatch {
    let schema = batch.schema();
    let columns = schema
        .fields()
        .iter()
        .zip(batch.columns())
        .map(|(field, column)| (field.name().as_str(), column.clone()));
    RecordBatch::try_from_iter(columns.chain([(name, column)])).expect("same length")
}

/// A batch without a column.
pub(crate) fn without_column(batch: &RecordBatch, name: &str) -> RecordBatch {
    RecordBatch::try_from_iter(
        batch
            .schema()
            .fields()
            .iter()
            .enumerate()
            .filter(|(_, field)| field.name() != name)
            .map(|(at, field)| (field.name().clone(), batch.column(at).clone())),
    )
    .expect("same length")
}
