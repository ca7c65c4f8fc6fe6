//! Delimited text: lines to rows.
//!
//! Lines are split here, bounded by `max_line_bytes`, so that memory is bounded and every problem
//! has its line; fields are split by `csv_core`, which also joins a quoted field over lines.

use std::io::{BufRead, Read};

use csv_core::{ReadRecordResult, Terminator};

use super::error::IngestError;
use super::fields::{self, FieldSpec};
use super::report::FileReport;
use super::sniff::{self, Dialect, Layout};
use super::source::{Compression, Text};
use super::table::Rows;
use super::value::{Problem, Value};

/// Reads text to its end.
pub(crate) fn read(
    text: Text,
    table: &'static [FieldSpec],
    rows: &mut Rows<'_>,
) -> Result<FileReport, IngestError> {
    let dialect = sniff::sniff(
        rows.path,
        &text.sample,
        text.sample_is_all,
        table,
        rows.options,
    )?;
    let mut records = Records::new(text, &dialect, rows);
    match &dialect.layout {
        Layout::Columns { header, usual } => {
            columns(&mut records, table, rows, &dialect, *header, usual)
        }
        Layout::Adjacency => adjacency(&mut records, table, rows, &dialect),
    }
}

fn columns(
    records: &mut Records,
    table: &'static [FieldSpec],
    rows: &mut Rows<'_>,
    dialect: &Dialect,
    header: bool,
    usual: &[(super::options::Field, usize)],
) -> Result<FileReport, IngestError> {
    let mut width = dialect.width;
    let (names, columns) = if header {
        let names: Vec<String> = match records.next(rows)? {
            Some(record) => record.lossy(),
            None => {
                return Err(IngestError::Empty {
                    path: rows.path.to_owned(),
                });
            }
        };
        width = names.len();
        let columns = fields::resolve(rows.path, table, &names, rows.options)?;
        (names, columns)
    } else {
        let columns = fields::resolve_positions(rows.path, table, width, rows.options, usual)?;
        (
            (1..=width).map(|position| position.to_string()).collect(),
            columns,
        )
    };
    rows.begin(&columns)?;

    let mut any = false;
    while let Some(record) = records.next(rows)? {
        any = true;
        if record.len() != width {
            let problem = Problem::Width {
                found: record.len(),
                expected: width,
            };
            rows.bad(record.line, &problem)?;
            continue;
        }
        let mut row = [Value::Missing; MAX_FIELDS];
        for (value, column) in row.iter_mut().zip(&columns) {
            if let Some(bytes) = column.and_then(|column| record.get(column)) {
                *value = Value::Text(bytes);
            }
        }
        rows.take(record.line, &row[..table.len()])?;
    }
    if !any {
        return Err(IngestError::Empty {
            path: rows.path.to_owned(),
        });
    }
    Ok(
        rows.file(records.format(dialect), table, &columns, &|column| {
            names.get(column).cloned().unwrap_or_default()
        }),
    )
}

fn adjacency(
    records: &mut Records,
    table: &'static [FieldSpec],
    rows: &mut Rows<'_>,
    dialect: &Dialect,
) -> Result<FileReport, IngestError> {
    let columns: Vec<Option<usize>> = (0..table.len())
        .map(|slot| (slot < 2).then_some(slot))
        .collect();
    rows.begin(&columns)?;
    while let Some(record) = records.next(rows)? {
        let mut fields = (0..record.len()).filter_map(|column| record.get(column));
        let Some(user) = fields.next() else { continue };
        let mut row = [Value::Missing; MAX_FIELDS];
        row[0] = Value::Text(user);
        let mut alone = true;
        for item in fields {
            alone = false;
            row[1] = Value::Text(item);
            rows.take(record.line, &row[..table.len()])?;
        }
        if alone {
            rows.bad(record.line, &Problem::Alone)?;
        }
    }
    Ok(
        rows.file(records.format(dialect), table, &columns, &|column| {
            if column == 0 {
                "first".to_owned()
            } else {
                "rest".to_owned()
            }
        }),
    )
}

/// The most fields a table has; checked below for every table.
const MAX_FIELDS: usize = 8;
const _: () = assert!(
    fields::LISTENS.len() <= MAX_FIELDS
        && fields::ITEMS.len() <= MAX_FIELDS
        && fields::IDS.len() <= MAX_FIELDS
        && fields::EXCLUSIONS.len() <= MAX_FIELDS
);

/// Splits text into records.
struct Records {
    reader: Box<dyn BufRead>,
    compression: Compression,
    parser: csv_core::Reader,
    squeeze: bool,
    limit: usize,
    /// Lines read so far.
    lines: u64,
    line: Vec<u8>,
    /// Unescaped fields of the current record, one after the other.
    output: Vec<u8>,
    /// Where they end.
    ends: Vec<usize>,
}

/// One record.
struct Record<'a> {
    /// The line where it begins, 1-based.
    line: u64,
    output: &'a [u8],
    ends: &'a [usize],
}

impl<'a> Record<'a> {
    fn len(&self) -> usize {
        self.ends.len()
    }

    fn get(&self, column: usize) -> Option<&'a [u8]> {
        let end = *self.ends.get(column)?;
        let start = column.checked_sub(1).map_or(0, |before| self.ends[before]);
        self.output.get(start..end)
    }

    fn lossy(&self) -> Vec<String> {
        let fields = (0..self.len()).filter_map(|column| self.get(column));
        fields
            .map(|bytes| String::from_utf8_lossy(bytes).trim().to_owned())
            .collect()
    }
}

impl Records {
    fn new(text: Text, dialect: &Dialect, rows: &Rows<'_>) -> Self {
        let parser = csv_core::ReaderBuilder::new()
            .delimiter(dialect.delimiter.byte())
            .quoting(dialect.quotes)
            .terminator(Terminator::Any(b'\n'))
            .build();
        Self {
            reader: text.reader,
            compression: text.compression,
            parser,
            squeeze: dialect.squeezes(),
            limit: rows.options.max_line_bytes,
            lines: 0,
            line: Vec::new(),
            output: vec![0; 256],
            ends: vec![0; 16],
        }
    }

    fn format(&self, dialect: &Dialect) -> String {
        let layout = match dialect.layout {
            Layout::Columns { header: true, .. } => "with header",
            Layout::Columns { header: false, .. } => "without header",
            Layout::Adjacency => "a user and items a line",
        };
        format!(
            "{}, {} separated, {layout}",
            self.compression.name(),
            dialect.delimiter
        )
    }

    /// The next record, blank lines left out.
    fn next(&mut self, rows: &Rows<'_>) -> Result<Option<Record<'_>>, IngestError> {
        loop {
            if !self.read_line(rows, self.limit)? {
                return Ok(None);
            }
            if !self.line.trim_ascii().is_empty() {
                break;
            }
        }
        let start = self.lines;
        let (mut written, mut fields, mut bytes) = (0, 0, self.line.len());
        let mut from = 0;
        loop {
            let (result, read, wrote, ended) = self.parser.read_record(
                &self.line[from..],
                &mut self.output[written..],
                &mut self.ends[fields..],
            );
            from += read;
            written += wrote;
            fields += ended;
            match result {
                ReadRecordResult::OutputFull => self.output.resize(self.output.len() * 2, 0),
                ReadRecordResult::OutputEndsFull => self.ends.resize(self.ends.len() * 2, 0),
                ReadRecordResult::Record => break,
                // The line is used up inside quotes: the record goes on in the next line.
                ReadRecordResult::InputEmpty | ReadRecordResult::End => {
                    let unclosed = || IngestError::UnclosedQuote {
                        path: rows.path.to_owned(),
                        line: start,
                    };
                    let left = self.limit.checked_sub(bytes).ok_or_else(unclosed)?;
                    match self.read_line(rows, left) {
                        Ok(true) => {}
                        Ok(false) | Err(IngestError::LineTooLong { .. }) => return Err(unclosed()),
                        Err(error) => return Err(error),
                    }
                    bytes += self.line.len();
                    from = 0;
                }
            }
        }
        if self.squeeze {
            fields = squeeze(&mut self.ends[..fields]);
        }
        let (output, ends) = (&self.output[..written], &self.ends[..fields]);
        Ok(Some(Record {
            line: start,
            output,
            ends,
        }))
    }

    /// Reads one line into `self.line`, ending in `\n` whatever it ended in. False at the end.
    fn read_line(&mut self, rows: &Rows<'_>, limit: usize) -> Result<bool, IngestError> {
        self.line.clear();
        let line = self.lines + 1;
        let most = limit as u64 + 2; // CRLF
        let outcome = self
            .reader
            .by_ref()
            .take(most)
            .read_until(b'\n', &mut self.line);
        if let Err(source) = outcome {
            return Err(self.broken(rows, line, source));
        }
        if self.line.is_empty() {
            return Ok(false);
        }
        if self.line.ends_with(b"\n") {
            self.line.pop();
        }
        if self.line.ends_with(b"\r") {
            self.line.pop();
        }
        if self.line.len() > limit {
            let limit = rows.options.max_line_bytes;
            return Err(IngestError::LineTooLong {
                path: rows.path.to_owned(),
                line,
                limit,
            });
        }
        self.line.push(b'\n');
        self.lines = line;
        Ok(true)
    }

    fn broken(&self, rows: &Rows<'_>, line: u64, source: std::io::Error) -> IngestError {
        let path = rows.path.to_owned();
        let compression = self.compression.name();
        match (self.compression, source.kind()) {
            (Compression::None, _) => IngestError::Read { path, line, source },
            (_, std::io::ErrorKind::UnexpectedEof) => IngestError::Truncated {
                path,
                line,
                compression,
            },
            _ => IngestError::Corrupt {
                path,
                line,
                compression,
                source,
            },
        }
    }
}

/// Drops empty fields, which repeated spaces leave, and says how many are left.
fn squeeze(ends: &mut [usize]) -> usize {
    let (mut kept, mut last) = (0, 0);
    for index in 0..ends.len() {
        if ends[index] > last {
            last = ends[index];
            ends[kept] = last;
            kept += 1;
        }
    }
    kept
}
