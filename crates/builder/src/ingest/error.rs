//! Everything that stops a read, each with its place.

use std::fmt;
use std::io;
use std::path::PathBuf;

use super::options::{ColumnRef, Field};
use super::report::BadRow;

/// Why files could not be read. Nothing is kept of a read that failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IngestError {
    /// No file was named.
    #[error("no file to read")]
    NoFiles,
    /// A file could not be opened; the source names it.
    #[error("cannot open: {source}")]
    Open {
        /// Names the path.
        source: io::Error,
    },
    /// A file could not be read to its end.
    #[error("{}:{line}: cannot read on: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The line where it happened.
        line: u64,
        /// What the system said.
        source: io::Error,
    },
    /// Listens beyond what memory was allowed could not be kept in a file.
    #[error("cannot keep listens in a temporary file: {source}")]
    Spill {
        /// What the system said.
        source: io::Error,
    },
    /// Listens could not be kept for the next time.
    #[error("cannot keep listens in {}: {source}", dir.display())]
    Keep {
        /// Where.
        dir: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A thread could not be started.
    #[error("cannot start a thread: {source}")]
    Threads {
        /// What the system said.
        source: io::Error,
    },
    /// Compressed data stops before its end.
    #[error("{}:{line}: the {compression} data is truncated", path.display())]
    Truncated {
        /// The file.
        path: PathBuf,
        /// The first line that is not whole.
        line: u64,
        /// `gzip` or `zstd`.
        compression: &'static str,
    },
    /// Compressed data that does not decompress.
    #[error("{}:{line}: the {compression} data is corrupt: {source}", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// The first line that is not whole.
        line: u64,
        /// `gzip` or `zstd`.
        compression: &'static str,
        /// What the decoder said.
        source: io::Error,
    },
    /// A file format that is recognised but not read.
    #[error("{}: is {what}; give delimited text (plain, gzip or zstd) or Parquet", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// A file without any row.
    #[error("{}: is empty", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// Files were read and no usable row was in them.
    #[error(
        "{}: no listen in it: {rows} rows, {zero_counts} with count 0, {bad_rows} bad",
        path.display()
    )]
    NoListens {
        /// The first file.
        path: PathBuf,
        /// Rows read.
        rows: u64,
        /// Rows dropped for a count of 0.
        zero_counts: u64,
        /// Rows that were bad (and tolerated).
        bad_rows: u64,
    },
    /// A line, or a quoted field over several lines, that is longer than the limit.
    #[error("{}:{line}: the line is longer than {limit} bytes", path.display())]
    LineTooLong {
        /// The file.
        path: PathBuf,
        /// Where it begins.
        line: u64,
        /// [`super::ReadOptions::max_line_bytes`].
        limit: usize,
    },
    /// A quote that is never closed.
    #[error("{}:{line}: the quote opened in this line is never closed", path.display())]
    UnclosedQuote {
        /// The file.
        path: PathBuf,
        /// Where the record begins.
        line: u64,
    },
    /// No delimiter splits the lines.
    #[error(
        "{}: cannot tell the columns apart: tried tab, comma, semicolon, bar and space; \
         name one with --delimiter",
        path.display()
    )]
    Delimiter {
        /// The file.
        path: PathBuf,
    },
    /// A required column was not found by any of its usual names.
    #[error(
        "{}: no column for the {field}; the columns are {found}; \
         name it with --column {field}=NAME or --column {field}=POSITION",
        path.display()
    )]
    MissingColumn {
        /// The file.
        path: PathBuf,
        /// What was looked for.
        field: Field,
        /// What there is.
        found: ColumnList,
    },
    /// A column that was asked for is not there.
    #[error(
        "{}: --column {field}={wanted}: there is no such column; the columns are {found}",
        path.display()
    )]
    UnknownColumn {
        /// The file.
        path: PathBuf,
        /// The field it was to be.
        field: Field,
        /// The column asked for.
        wanted: ColumnRef,
        /// What there is.
        found: ColumnList,
    },
    /// A Parquet column of a type that cannot be read as the field.
    #[error("{}: column '{column}' of type {found} cannot be read as the {field}", path.display())]
    ColumnType {
        /// The file.
        path: PathBuf,
        /// The column.
        column: String,
        /// Its type.
        found: String,
        /// What it was to be.
        field: Field,
    },
    /// Some files have times and others do not.
    #[error(
        "{}: {} times, unlike the files before it; \
         read them apart, or leave the column out with --column time=none",
        path.display(),
        if *has { "has" } else { "has no" }
    )]
    MixedTimes {
        /// The file that differs from the first.
        path: PathBuf,
        /// Whether this one has times.
        has: bool,
    },
    /// More bad rows than allowed.
    #[error(
        "{bad_rows} bad rows of {rows}, {limit} allowed (--max-bad-rows); {}",
        first_of(first)
    )]
    BadRows {
        /// How many were bad.
        bad_rows: u64,
        /// How many were read.
        rows: u64,
        /// [`super::ReadOptions::max_bad_rows`].
        limit: u64,
        /// The first of them.
        first: Vec<BadRow>,
    },
    /// More distinct ids than ordinals.
    #[error("{}:{line}: more than {} distinct values of the {field}", path.display(),
        crate::dictionary::MAX_STRINGS)]
    TooManyIds {
        /// The file.
        path: PathBuf,
        /// Where the limit was reached.
        line: u64,
        /// Which field.
        field: Field,
    },
    /// A Parquet file that cannot be read.
    #[error("{}: row {row}: {source}", path.display())]
    Parquet {
        /// The file.
        path: PathBuf,
        /// The first row that could not be read, 1-based.
        row: u64,
        /// What the reader said.
        source: parquet::errors::ParquetError,
    },
    /// A column mapping file that cannot be read.
    #[error("{}: {source}", path.display())]
    Mapping {
        /// The file.
        path: PathBuf,
        /// Names the line and the key.
        source: toml::de::Error,
    },
}

/// The columns of a file, for messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnList(pub Vec<String>);

impl fmt::Display for ColumnList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 40;
        for (index, name) in self.0.iter().take(SHOWN).enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{}", Excerpt(name.as_bytes()))?;
        }
        if self.0.len() > SHOWN {
            write!(f, " and {} more", self.0.len() - SHOWN)?;
        }
        Ok(())
    }
}

/// A short, printable piece of untrusted bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Excerpt<'a>(pub(crate) &'a [u8]);

impl fmt::Display for Excerpt<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 48;
        let shown = &self.0[..self.0.len().min(SHOWN)];
        let dots = if self.0.len() > SHOWN { "…" } else { "" };
        write!(
            f,
            "'{}{dots}'",
            String::from_utf8_lossy(shown).escape_debug()
        )
    }
}

fn first_of(rows: &[BadRow]) -> String {
    let named: Vec<String> = rows.iter().take(3).map(ToString::to_string).collect();
    format!("first: {}", named.join("; "))
}
