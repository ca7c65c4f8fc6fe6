//! What can be wrong with a log, with the place.

use std::path::PathBuf;

use parquet::errors::ParquetError;

/// Why a log is refused. Places are a file, its row group and the row within the row group, all from 0
/// for row groups (as Parquet tools count them) and from 1 for rows.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// A folder without exposures.
    #[error("{path}: no exposure files (`exposures/**/*.parquet`)", path = path.display())]
    NoExposures {
        /// The folder.
        path: PathBuf,
    },
    /// Exposure files without one row of this experiment epoch.
    #[error(
        "no exposure of {what} `{experiment}`, epoch {epoch}, among {rows} rows; the log has: {known}"
    )]
    NoRows {
        /// Whether it is an experiment or a holdout.
        what: &'static str,
        /// The experiment.
        experiment: String,
        /// Its epoch.
        epoch: u32,
        /// Rows read.
        rows: u64,
        /// Experiments and epochs that the log has.
        known: String,
    },
    /// The system says no.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// Not Parquet, cut short, or damaged.
    #[error("{path}{place}: {source}", path = path.display(), place = place(*row_group))]
    Parquet {
        /// The file.
        path: PathBuf,
        /// The row group, where the footer could be read.
        row_group: Option<usize>,
        /// What the reader says.
        source: ParquetError,
    },
    /// A column that must be there.
    #[error("{path}: column `{column}` is missing; it has {found}", path = path.display())]
    MissingColumn {
        /// The file.
        path: PathBuf,
        /// The column.
        column: String,
        /// Those that are there.
        found: String,
    },
    /// A column of a type that cannot be read.
    #[error("{path}: column `{column}` is {found}, must be {wanted}", path = path.display())]
    ColumnType {
        /// The file.
        path: PathBuf,
        /// The column.
        column: String,
        /// Its type.
        found: String,
        /// The type it must have.
        wanted: &'static str,
    },
    /// A value that cannot be meant.
    #[error("{path}, row group {row_group}, row {row}: `{column}` {problem}", path = path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// The row group.
        row_group: usize,
        /// The row within it, from 1.
        row: usize,
        /// The column.
        column: String,
        /// What is wrong.
        problem: String,
    },
    /// More distinct values than are kept.
    #[error("{path}, row group {row_group}: more than {max} {what}", path = path.display())]
    TooMany {
        /// The file.
        path: PathBuf,
        /// The row group.
        row_group: usize,
        /// Of what.
        what: String,
        /// The limit.
        max: usize,
    },
}

fn place(row_group: Option<usize>) -> String {
    match row_group {
        Some(row_group) => format!(", row group {row_group}"),
        None => ", footer".to_owned(),
    }
}
