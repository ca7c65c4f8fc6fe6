//! What a read found: files, columns, rows dropped and rows that were bad.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

/// Counts of one call of a reader, over all its files.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct ReadReport {
    /// What each file turned out to be.
    pub files: Vec<FileReport>,
    /// Rows read, headers and blank lines not counted.
    pub rows: u64,
    /// Those of them that were read before, and kept.
    #[serde(skip)]
    pub rows_before: u64,
    /// Rows with a count of 0: no listen, and nothing wrong.
    pub zero_counts: u64,
    /// Rows that could not be read.
    pub bad_rows: u64,
    /// The first bad rows, at most [`ReadReport::MAX_NAMED`].
    pub first_bad: Vec<BadRow>,
}

impl ReadReport {
    /// How many bad rows are kept with their place and problem.
    pub const MAX_NAMED: usize = 10;
}

/// What one file turned out to be.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FileReport {
    /// As it was given.
    pub path: PathBuf,
    /// For instance `gzip, tab separated`.
    pub format: String,
    /// Which column was read as what: (field, name of the column or its position).
    pub columns: Vec<(&'static str, String)>,
    /// Rows read from it.
    pub rows: u64,
}

/// A row that could not be read.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BadRow {
    /// The file it is in.
    pub path: PathBuf,
    /// 1-based line, or 1-based row of a Parquet file.
    pub line: u64,
    /// What is wrong with it.
    pub problem: String,
}

impl fmt::Display for BadRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path.display(), self.line, self.problem)
    }
}
