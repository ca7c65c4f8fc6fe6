//! Reading any of our tables from any file: rows go to a sink, bad rows are counted.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::error::IngestError;
use super::fields::{self, FieldSpec};
use super::options::{Field, ReadOptions};
use super::report::{BadRow, FileReport, ReadReport};
use super::source::{self, Source};
use super::value::{Problem, Value};
use super::{columnar, delimited};

/// Called now and then with (bytes read, bytes in all), counted on disk.
pub type ProgressFn<'a> = &'a dyn Fn(u64, u64);

/// Takes the rows of a table.
pub(crate) trait Sink {
    /// Called once a file, before its rows: which fields of the table it has.
    fn begin(&mut self, path: &Path, present: &[bool]) -> Result<(), IngestError>;

    /// Takes a row, with one value a field of the table.
    fn row(&mut self, values: &[Value<'_>]) -> Result<(), Refused>;

    /// Called before rows that come together, so that what they ask for may be fetched together.
    fn look_ahead(&mut self, _rows: &[Row<'_>]) {}
}

/// A row on its way to the sink.
pub(crate) struct Row<'a> {
    /// Where it is in its file, from 1.
    pub(crate) line: u64,
    /// One value a field of the table, then missing ones.
    pub(crate) values: [Value<'a>; MAX_FIELDS],
}

/// The most fields a table has; checked below for every table.
pub(crate) const MAX_FIELDS: usize = 8;
const _: () = assert!(
    fields::LISTENS.len() <= MAX_FIELDS
        && fields::ITEMS.len() <= MAX_FIELDS
        && fields::IDS.len() <= MAX_FIELDS
        && fields::EXCLUSIONS.len() <= MAX_FIELDS
);

/// Rows that a reader hands over together.
pub(crate) const TOGETHER: usize = 64;

/// Why a sink did not take a row.
#[derive(Debug)]
pub(crate) enum Refused {
    /// It says that nothing was played.
    Zero,
    /// It is wrong.
    Bad(Problem),
    /// There are more distinct values than ordinals.
    Full(Field),
    /// There is no more room in memory, and it cannot be written to a file.
    Spill(std::io::Error),
}

impl From<Problem> for Refused {
    fn from(problem: Problem) -> Self {
        Self::Bad(problem)
    }
}

/// Reads every file in turn. Fails once all was read when more rows were bad than allowed, so
/// that the message can name several of them.
pub(crate) fn read(
    paths: &[PathBuf],
    table: &'static [FieldSpec],
    options: &ReadOptions,
    progress: ProgressFn<'_>,
    sink: &mut dyn Sink,
) -> Result<ReadReport, IngestError> {
    let read = read_after(Before::default(), paths, table, options, progress, sink)?;
    Ok(read.report)
}

/// What an earlier read of the same files came to, whose rows the sink has.
#[derive(Debug, Default)]
pub(crate) struct Before {
    /// The first files, whole but for the tail of the last.
    pub(crate) report: ReadReport,
    /// Where the last of these is read on from; `None`: it has not grown.
    pub(crate) tail: Option<Tail>,
}

/// Where a file of text had its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tail {
    pub(crate) bytes: u64,
    pub(crate) lines: u64,
}

/// What was read.
#[derive(Debug)]
pub(crate) struct Reading {
    pub(crate) report: ReadReport,
    /// How each file that was read ended, in order.
    pub(crate) ends: Vec<FileEnd>,
}

/// How a file ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FileEnd {
    pub(crate) bytes: u64,
    /// Of plain text, which may grow.
    pub(crate) text: Option<TextEnd>,
}

/// How plain text ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TextEnd {
    pub(crate) lines: u64,
    /// Whether the last line was ended.
    pub(crate) whole: bool,
    /// What it was recognised as.
    pub(crate) dialect: String,
}

/// Reads on, as [`read`] does.
pub(crate) fn read_after(
    before: Before,
    paths: &[PathBuf],
    table: &'static [FieldSpec],
    options: &ReadOptions,
    progress: ProgressFn<'_>,
    sink: &mut dyn Sink,
) -> Result<Reading, IngestError> {
    if paths.is_empty() {
        return Err(IngestError::NoFiles);
    }
    let mut lens = Vec::with_capacity(paths.len());
    for path in paths {
        let metadata = fs_err::metadata(path).map_err(|source| IngestError::Open { source })?;
        lens.push(metadata.len());
    }
    let total = lens.iter().sum();
    let bytes_read = Arc::new(AtomicU64::new(0));
    let Before { mut report, tail } = before;
    let mut resumed = tail.and_then(|tail| Some((tail, report.files.pop()?.rows)));
    let mut ends = Vec::new();
    let first = report.files.len().min(paths.len());
    let mut before: u64 = lens[..first].iter().sum();
    for (path, len) in paths.iter().zip(&lens).skip(first) {
        progress(before, total);
        bytes_read.store(before, Ordering::Relaxed);
        let source = source::open(path, &bytes_read)?;
        let on_disk = || progress(bytes_read.load(Ordering::Relaxed).min(total), total);
        let (tail, read) = resumed.take().unzip();
        let mut rows = Rows {
            path,
            options,
            sink: &mut *sink,
            report: &mut report,
            on_disk: &on_disk,
            read: read.unwrap_or_default(),
        };
        let (file, text) = match source {
            Source::Text(text) => delimited::read(text, tail, table, &mut rows)?,
            Source::Parquet(file) => (columnar::read(file, table, &mut rows)?, None),
        };
        report.files.push(file);
        let bytes = match text {
            Some(_) => bytes_read.load(Ordering::Relaxed) - before,
            None => *len,
        };
        ends.push(FileEnd { bytes, text });
        before += len;
    }
    progress(total, total);
    within_limit(&report, options)?;
    Ok(Reading { report, ends })
}

/// What the readers of the formats hand their rows to.
pub(crate) struct Rows<'a> {
    pub(crate) path: &'a Path,
    pub(crate) options: &'a ReadOptions,
    sink: &'a mut dyn Sink,
    report: &'a mut ReadReport,
    on_disk: &'a dyn Fn(),
    read: u64,
}

impl Rows<'_> {
    /// Whether no row came of this file yet.
    pub(crate) fn is_empty(&self) -> bool {
        self.read == 0
    }

    /// Announces which fields there are.
    pub(crate) fn begin(&mut self, columns: &[Option<usize>]) -> Result<(), IngestError> {
        let present: Vec<bool> = columns.iter().map(Option::is_some).collect();
        self.sink.begin(self.path, &present)
    }

    /// Hands over rows of so many fields, and empties `rows`.
    pub(crate) fn take_all(
        &mut self,
        rows: &mut Vec<Row<'_>>,
        fields: usize,
    ) -> Result<(), IngestError> {
        self.sink.look_ahead(rows);
        let mut rows = rows.drain(..);
        rows.try_for_each(|row| self.take(row.line, &row.values[..fields]))
    }

    /// Hands over a row.
    pub(crate) fn take(&mut self, line: u64, values: &[Value<'_>]) -> Result<(), IngestError> {
        self.count();
        match self.sink.row(values) {
            Ok(()) => Ok(()),
            Err(Refused::Zero) => {
                self.report.zero_counts += 1;
                Ok(())
            }
            Err(Refused::Bad(problem)) => self.note(line, &problem),
            Err(Refused::Full(field)) => Err(IngestError::TooManyIds {
                path: self.path.to_owned(),
                line,
                field,
            }),
            Err(Refused::Spill(source)) => Err(IngestError::Spill { source }),
        }
    }

    /// Reports a row whose columns could not be told apart.
    pub(crate) fn bad(&mut self, line: u64, problem: &Problem) -> Result<(), IngestError> {
        self.count();
        self.note(line, problem)
    }

    /// The report of this file.
    pub(crate) fn file(
        &self,
        format: String,
        table: &[FieldSpec],
        columns: &[Option<usize>],
        name: &dyn Fn(usize) -> String,
    ) -> FileReport {
        let columns = table
            .iter()
            .zip(columns)
            .filter_map(|(spec, column)| column.map(|column| (spec.field.as_str(), name(column))));
        let columns = columns.collect();
        FileReport {
            path: self.path.to_owned(),
            format,
            columns,
            rows: self.read,
        }
    }

    fn count(&mut self) {
        self.read += 1;
        self.report.rows += 1;
        if self.read.is_multiple_of(1 << 15) {
            (self.on_disk)();
        }
    }

    fn note(&mut self, line: u64, problem: &Problem) -> Result<(), IngestError> {
        /// Past the limit we go on to name several, but not through a file that is all wrong.
        const SPARE: u64 = 1000;
        self.report.bad_rows += 1;
        if self.report.first_bad.len() < ReadReport::MAX_NAMED {
            self.report.first_bad.push(BadRow {
                path: self.path.to_owned(),
                line,
                problem: problem.to_string(),
            });
        }
        if self.report.bad_rows > self.options.max_bad_rows.saturating_add(SPARE) {
            return within_limit(self.report, self.options);
        }
        Ok(())
    }
}

fn within_limit(report: &ReadReport, options: &ReadOptions) -> Result<(), IngestError> {
    if report.bad_rows <= options.max_bad_rows {
        return Ok(());
    }
    Err(IngestError::BadRows {
        bad_rows: report.bad_rows,
        rows: report.rows,
        limit: options.max_bad_rows,
        first: report.first_bad.clone(),
    })
}
