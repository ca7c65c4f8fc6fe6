//! Delimited text: lines to rows.
//!
//! Lines are split here, bounded by `max_line_bytes`, so that memory is bounded and every problem
//! has its line; fields are split by `csv_core`, which also joins a quoted field over lines. A thread of its own
//! reads, decompresses and splits, some records ahead of who looks up what they say.

use std::io::{BufRead, Read};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use csv_core::{ReadRecordResult, Terminator};

use super::error::IngestError;
use super::fields::{self, FieldSpec};
use super::report::FileReport;
use super::sniff::{self, Dialect, Layout};
use super::source::{Compression, Text};
use super::table::{MAX_FIELDS, Row, Rows, TOGETHER, Tail, TextEnd};
use super::value::{Problem, Value};

/// Reads text to its end, from its beginning or from where it ended before; and how it ended, if it may grow.
pub(crate) fn read(
    mut text: Text,
    tail: Option<Tail>,
    table: &'static [FieldSpec],
    rows: &mut Rows<'_>,
) -> Result<(FileReport, Option<TextEnd>), IngestError> {
    let dialect = sniff::sniff(
        rows.path,
        &text.sample,
        text.sample_is_all,
        table,
        rows.options,
    )?;
    let format = format(text.compression, &dialect);
    let may_grow = text.compression == Compression::None;
    let mut names = None;
    if let Some(tail) = tail {
        if let Layout::Columns { header: true, .. } = dialect.layout {
            names = first_names(&text, &dialect, rows)?;
        }
        text.read_on(rows.path, tail.bytes)?;
    }
    let mut splitter = Splitter::new(text, &dialect, rows);
    splitter.lines = tail.map_or(0, |tail| tail.lines);
    let (full, batches) = sync_channel(AHEAD);
    let (spent, empty) = sync_channel(AHEAD + 1);
    thread::scope(|scope| {
        let splitting = thread::Builder::new()
            .name("split".into())
            .spawn_scoped(scope, move || {
                splitter.run(&full, &empty);
                (splitter.lines, splitter.whole)
            })
            .map_err(|source| IngestError::Threads { source })?;
        let mut records = Records {
            batches,
            spent,
            batch: Batch::default(),
            at: 0,
        };
        let file = match &dialect.layout {
            Layout::Columns { header, usual } => {
                if *header && names.is_none() {
                    let first = records.next()?.map(|record| record.lossy());
                    names = Some(first.ok_or_else(|| nothing_in(rows))?);
                }
                let file = columns(&mut records, table, rows, (&dialect, format), names, usual)?;
                // Nothing need have come since, but something must be there.
                if rows.is_empty() {
                    return Err(nothing_in(rows));
                }
                file
            }
            Layout::Adjacency => adjacency(&mut records, table, rows, format)?,
        };
        drop(records);
        let (lines, whole) = splitting
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let end = TextEnd {
            lines,
            whole,
            dialect: format!("{dialect:?}"),
        };
        Ok((file, may_grow.then_some(end)))
    })
}

/// The names of the columns, from the sample.
fn first_names(
    text: &Text,
    dialect: &Dialect,
    rows: &Rows<'_>,
) -> Result<Option<Vec<String>>, IngestError> {
    let sample = Text::of_sample(text.sample.clone());
    let mut batch = Batch::default();
    Splitter::new(sample, dialect, rows).next(&mut batch)?;
    Ok(batch.get(0).map(|record| record.lossy()))
}

fn nothing_in(rows: &Rows<'_>) -> IngestError {
    IngestError::Empty {
        path: rows.path.to_owned(),
    }
}

fn columns(
    records: &mut Records,
    table: &'static [FieldSpec],
    rows: &mut Rows<'_>,
    (dialect, format): (&Dialect, String),
    names: Option<Vec<String>>,
    usual: &[(super::options::Field, usize)],
) -> Result<FileReport, IngestError> {
    let mut width = dialect.width;
    let (names, columns) = if let Some(names) = names {
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

    while let Some(batch) = records.rest()? {
        let mut together = Vec::with_capacity(TOGETHER);
        for record in batch {
            if record.len() != width {
                rows.take_all(&mut together, table.len())?;
                let problem = Problem::Width {
                    found: record.len(),
                    expected: width,
                };
                rows.bad(record.line, &problem)?;
                continue;
            }
            let mut values = [Value::Missing; MAX_FIELDS];
            for (value, column) in values.iter_mut().zip(&columns) {
                if let Some(bytes) = column.and_then(|column| record.get(column)) {
                    *value = Value::Text(bytes);
                }
            }
            let line = record.line;
            together.push(Row { line, values });
            if together.len() == TOGETHER {
                rows.take_all(&mut together, table.len())?;
            }
        }
        rows.take_all(&mut together, table.len())?;
    }
    Ok(rows.file(format, table, &columns, &|column| {
        names.get(column).cloned().unwrap_or_default()
    }))
}

fn adjacency(
    records: &mut Records,
    table: &'static [FieldSpec],
    rows: &mut Rows<'_>,
    format: String,
) -> Result<FileReport, IngestError> {
    let columns: Vec<Option<usize>> = (0..table.len())
        .map(|slot| (slot < 2).then_some(slot))
        .collect();
    rows.begin(&columns)?;
    while let Some(record) = records.next()? {
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
    Ok(rows.file(format, table, &columns, &|column| {
        if column == 0 {
            "first".to_owned()
        } else {
            "rest".to_owned()
        }
    }))
}

/// The format of a file, for people.
fn format(compression: Compression, dialect: &Dialect) -> String {
    let layout = match dialect.layout {
        Layout::Columns { header: true, .. } => "with header",
        Layout::Columns { header: false, .. } => "without header",
        Layout::Adjacency => "a user and items a line",
    };
    format!(
        "{}, {} separated, {layout}",
        compression.name(),
        dialect.delimiter
    )
}

/// Batches that wait at most.
const AHEAD: usize = 2;

/// Bytes of records that make a batch.
const BATCH_BYTES: usize = 64 << 10;

/// Records on their way from one thread to the other.
#[derive(Default)]
struct Batch {
    /// Unescaped fields of all records, one after the other.
    output: Vec<u8>,
    /// Where they end, from the start of their record.
    ends: Vec<usize>,
    /// Of each record its line, and where its bytes and its fields end.
    records: Vec<(u64, usize, usize)>,
}

impl Batch {
    fn clear(&mut self) {
        self.output.clear();
        self.ends.clear();
        self.records.clear();
    }

    fn get(&self, at: usize) -> Option<Record<'_>> {
        let &(line, bytes, fields) = self.records.get(at)?;
        let before = at
            .checked_sub(1)
            .and_then(|before| self.records.get(before));
        let (from, first) = before.map_or((0, 0), |&(_, bytes, fields)| (bytes, fields));
        Some(Record {
            line,
            output: &self.output[from..bytes],
            ends: &self.ends[first..fields],
        })
    }
}

/// The records of a file, in order.
struct Records {
    batches: Receiver<Result<Batch, IngestError>>,
    /// Takes back what was read.
    spent: SyncSender<Batch>,
    batch: Batch,
    at: usize,
}

impl Records {
    /// The next record, blank lines left out.
    fn next(&mut self) -> Result<Option<Record<'_>>, IngestError> {
        if !self.more()? {
            return Ok(None);
        }
        self.at += 1;
        Ok(self.batch.get(self.at - 1))
    }

    /// The next records, as many as are there; none at the end.
    fn rest(&mut self) -> Result<Option<impl Iterator<Item = Record<'_>>>, IngestError> {
        if !self.more()? {
            return Ok(None);
        }
        let from = std::mem::replace(&mut self.at, self.batch.records.len());
        Ok(Some((from..self.at).filter_map(|at| self.batch.get(at))))
    }

    /// Whether there is a record at `at`.
    fn more(&mut self) -> Result<bool, IngestError> {
        while self.at == self.batch.records.len() {
            // The other thread has ended, and says no more, when the text has.
            let Ok(batch) = self.batches.recv() else {
                return Ok(false);
            };
            let spent = std::mem::replace(&mut self.batch, batch?);
            self.at = 0;
            // It may have read its last batch by now.
            drop(self.spent.try_send(spent));
        }
        Ok(true)
    }
}

/// Splits text into records.
struct Splitter {
    reader: Box<dyn BufRead + Send>,
    path: PathBuf,
    compression: Compression,
    parser: csv_core::Reader,
    squeeze: bool,
    limit: usize,
    /// Lines read so far.
    lines: u64,
    /// Whether the last of them was ended.
    whole: bool,
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

impl Splitter {
    fn new(text: Text, dialect: &Dialect, rows: &Rows<'_>) -> Self {
        let parser = csv_core::ReaderBuilder::new()
            .delimiter(dialect.delimiter.byte())
            .quoting(dialect.quotes)
            .terminator(Terminator::Any(b'\n'))
            .build();
        Self {
            reader: text.reader,
            path: rows.path.to_owned(),
            compression: text.compression,
            parser,
            squeeze: dialect.squeezes(),
            limit: rows.options.max_line_bytes,
            lines: 0,
            whole: true,
            line: Vec::new(),
            output: vec![0; 256],
            ends: vec![0; 16],
        }
    }

    /// Sends all records, then the error that ended them, if one did; or until nobody listens.
    fn run(&mut self, full: &SyncSender<Result<Batch, IngestError>>, empty: &Receiver<Batch>) {
        loop {
            let mut batch = empty.try_recv().unwrap_or_default();
            batch.clear();
            let more = loop {
                match self.next(&mut batch) {
                    Ok(true) if batch.output.len() < BATCH_BYTES => {}
                    other => break other,
                }
            };
            let nobody = !batch.records.is_empty() && full.send(Ok(batch)).is_err();
            match more {
                Ok(true) if !nobody => {}
                Err(error) if !nobody => {
                    // Whoever left no longer asks how it ended.
                    drop(full.send(Err(error)));
                    return;
                }
                _ => return,
            }
        }
    }

    /// Adds the next record to the batch, blank lines left out; false at the end.
    fn next(&mut self, batch: &mut Batch) -> Result<bool, IngestError> {
        loop {
            if !self.read_line(self.limit)? {
                return Ok(false);
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
                    let path = &self.path.clone();
                    let unclosed = || IngestError::UnclosedQuote {
                        path: path.clone(),
                        line: start,
                    };
                    let left = self.limit.checked_sub(bytes).ok_or_else(unclosed)?;
                    match self.read_line(left) {
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
        batch.output.extend_from_slice(&self.output[..written]);
        batch.ends.extend_from_slice(&self.ends[..fields]);
        let ends = (batch.output.len(), batch.ends.len());
        batch.records.push((start, ends.0, ends.1));
        Ok(true)
    }

    /// Reads one line into `self.line`, ending in `\n` whatever it ended in. False at the end.
    fn read_line(&mut self, limit: usize) -> Result<bool, IngestError> {
        self.line.clear();
        let line = self.lines + 1;
        let most = limit as u64 + 2; // CRLF
        let outcome = self
            .reader
            .by_ref()
            .take(most)
            .read_until(b'\n', &mut self.line);
        if let Err(source) = outcome {
            return Err(self.broken(line, source));
        }
        if self.line.is_empty() {
            return Ok(false);
        }
        self.whole = self.line.ends_with(b"\n");
        if self.whole {
            self.line.pop();
        }
        if self.line.ends_with(b"\r") {
            self.line.pop();
        }
        if self.line.len() > limit {
            let limit = self.limit;
            return Err(IngestError::LineTooLong {
                path: self.path.clone(),
                line,
                limit,
            });
        }
        self.line.push(b'\n');
        self.lines = line;
        Ok(true)
    }

    fn broken(&self, line: u64, source: std::io::Error) -> IngestError {
        let path = self.path.clone();
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
