//! Part files, and the one that they become.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::builder::{Float32Builder, StringBuilder, UInt16Builder, UInt64Builder};
use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::{DataType, Field, Schema};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use refrain_engine::Source;

use super::{BatchError, Recommended};
use crate::files::WholeFile;

/// Key of the counts in a part's metadata.
const COUNTS: &str = "refrain.counts";

/// What the rows of a part came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) items: u64,
    pub(super) short: u64,
    pub(super) popular: u64,
}

impl Counts {
    pub(super) fn of(answers: &[Vec<Recommended>], k: usize) -> Self {
        let count = |holds: &dyn Fn(&&Vec<Recommended>) -> bool| {
            answers.iter().filter(holds).count() as u64
        };
        Self {
            items: answers.iter().map(|answer| answer.len() as u64).sum(),
            short: count(&|answer| answer.len() < k),
            popular: count(&|answer| {
                answer
                    .first()
                    .is_some_and(|item| item.source == source(Source::Popular))
            }),
        }
    }
}

/// A source in a word.
pub(super) fn source(source: Source) -> &'static str {
    match source {
        Source::Ann => "ann",
        Source::Exact => "exact",
        Source::Popular => "popular",
        Source::Pinned => "pinned",
        Source::Delta => "delta",
        _ => "other",
    }
}

fn schema() -> Arc<Schema> {
    let field = |name: &str, kind, nullable| Field::new(name, kind, nullable);
    Arc::new(Schema::new(vec![
        field("row", DataType::UInt64, false),
        field("user", DataType::Utf8, true),
        field("rank", DataType::UInt16, false),
        field("item", DataType::Utf8, false),
        field("score", DataType::Float32, false),
        field("similarity", DataType::Float32, false),
        field("source", DataType::Utf8, false),
        field("variant", DataType::Utf8, false),
    ]))
}

fn properties() -> parquet::file::properties::WriterPropertiesBuilder {
    WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_created_by("refrain batch".to_owned())
}

pub(super) fn write_part(
    path: &Path,
    items: impl Iterator<Item = Recommended>,
    counts: Counts,
) -> Result<(), BatchError> {
    let bad = |error: ParquetError| failure(path, error);
    let file = WholeFile::create(path)?;
    let Counts {
        items: n,
        short,
        popular,
    } = counts;
    let counts = KeyValue::new(COUNTS.to_owned(), format!("{n} {short} {popular}"));
    let properties = properties()
        .set_key_value_metadata(Some(vec![counts]))
        .build();
    let mut writer =
        ArrowWriter::try_new(file.handle()?, schema(), Some(properties)).map_err(bad)?;
    writer
        .write(&columns(items).map_err(|error| bad(error.into()))?)
        .map_err(bad)?;
    writer.close().map_err(bad)?;
    file.keep()?;
    Ok(())
}

fn columns(
    items: impl Iterator<Item = Recommended>,
) -> Result<RecordBatch, arrow_schema::ArrowError> {
    let mut row = UInt64Builder::new();
    let mut user = StringBuilder::new();
    let mut rank = UInt16Builder::new();
    let mut item = StringBuilder::new();
    let (mut score, mut similarity) = (Float32Builder::new(), Float32Builder::new());
    let (mut source, mut variant) = (StringBuilder::new(), StringBuilder::new());
    for of in items {
        row.append_value(of.row);
        user.append_option(of.user);
        rank.append_value(of.rank);
        item.append_value(of.item);
        score.append_value(of.score);
        similarity.append_value(of.similarity);
        source.append_value(of.source);
        variant.append_value(of.variant);
    }
    let columns: Vec<ArrayRef> = vec![
        Arc::new(row.finish()),
        Arc::new(user.finish()),
        Arc::new(rank.finish()),
        Arc::new(item.finish()),
        Arc::new(score.finish()),
        Arc::new(similarity.finish()),
        Arc::new(source.finish()),
        Arc::new(variant.finish()),
    ];
    RecordBatch::try_new(schema(), columns)
}

/// The counts of a finished part; none if it is not there or not whole.
pub(super) fn counts(part: &Path) -> Option<Counts> {
    let file = fs_err::File::open(part).ok()?.into_parts().0;
    let builder = refrain_tables::open(file).ok()?;
    let metadata = builder.metadata().file_metadata();
    let said = metadata
        .key_value_metadata()?
        .iter()
        .find(|pair| pair.key == COUNTS)?;
    let numbers: Vec<u64> = said
        .value
        .as_ref()?
        .split(' ')
        .map(|number| number.parse().ok())
        .collect::<Option<_>>()?;
    let &[items, short, popular] = numbers.as_slice() else {
        return None;
    };
    let rows = u64::try_from(metadata.num_rows()).ok()?;
    (rows == items).then_some(Counts {
        items,
        short,
        popular,
    })
}

/// Puts parts together, a row group each.
pub(super) fn join(parts: &[PathBuf], out: &Path) -> Result<(), BatchError> {
    let bad = |error: ParquetError| failure(out, error);
    let file = WholeFile::create(out)?;
    let mut writer =
        ArrowWriter::try_new(file.handle()?, schema(), Some(properties().build())).map_err(bad)?;
    for part in parts {
        let input = fs_err::File::open(part)?.into_parts().0;
        let batches = refrain_tables::open(input)
            .and_then(refrain_tables::batches)
            .map_err(|error| failure(part, error))?;
        for batch in batches {
            let batch = batch.map_err(|error| failure(part, error))?;
            writer.write(&batch).map_err(bad)?;
        }
        writer.flush().map_err(bad)?;
    }
    writer.close().map_err(bad)?;
    file.keep()?;
    Ok(())
}

fn failure(path: &Path, error: ParquetError) -> BatchError {
    BatchError::Row {
        file: path.to_owned(),
        row: 0,
        problem: error.to_string(),
    }
}
