//! Factors from elsewhere: any trainer's output becomes a model.
//!
//! Read are NumPy arrays and `.fvecs` with ids one a line, Parquet files and directories of them with a
//! column of ids and one of vectors, and the directory that Spark MLlib's `ALSModel.save` writes
//! (`metadata`, `itemFactors`, `userFactors`). What a file is, is told by its content.

mod parquet_factors;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use refrain_als::{Hyper, HyperError, MAX_RANK};
use rustc_hash::FxHashSet;

use crate::Dictionary;
use crate::build::{VectorSet, VectorsError};
use crate::ingest::{Items, Log};
use crate::model::{Model, ModelCounts, ModelInfo};

/// Factors of one side, and where their ids are if not beside them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FactorFiles {
    /// A file, or a directory of Parquet files.
    pub factors: PathBuf,
    /// For arrays, ids one a line. For Parquet, `number,id` lines that name the numbers it has.
    pub ids: Option<PathBuf>,
}

/// What to import.
#[derive(Debug, Clone)]
pub struct Import<'a> {
    /// Factors of the items.
    pub items: FactorFiles,
    /// Factors of the users: who asks when the index is built and judged. Without them items ask.
    pub users: Option<FactorFiles>,
    /// Listens to count popularity from.
    pub listens: Option<&'a Log>,
    /// Attributes of the items.
    pub attributes: &'a Items,
    /// Hyper-parameters for fold-in: the rank is taken from the factors.
    pub hyper: Hyper,
    /// The command line, for the record.
    pub command: String,
}

/// Why factors were not imported.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// A file cannot be read; the message has the path.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// An array cannot be read.
    #[error(transparent)]
    Vectors(#[from] VectorsError),
    /// A Parquet file is damaged, or not what it must be.
    #[error("{}: row {row}: {problem}", file.display())]
    Row {
        /// The file.
        file: PathBuf,
        /// Row, from 1; 0 for what concerns the whole file.
        row: u64,
        /// What is wrong.
        problem: String,
    },
    /// A directory without anything to import.
    #[error("{}: {rule}", dir.display())]
    Layout {
        /// The directory.
        dir: PathBuf,
        /// What must be there.
        rule: &'static str,
    },
    /// A line of a file of names.
    #[error("{}: line {line}: {problem}", file.display())]
    Name {
        /// The file.
        file: PathBuf,
        /// Line, from 1.
        line: usize,
        /// What is wrong.
        problem: String,
    },
    /// Sides of different rank.
    #[error("items have rank {items} and users {users}: they are not of one model")]
    Ranks {
        /// Rank of the items.
        items: usize,
        /// Rank of the users.
        users: usize,
    },
    /// A rank that cannot be served.
    #[error("{}: rank {rank}, but at most {MAX_RANK} can be folded in", file.display())]
    Rank {
        /// The file.
        file: PathBuf,
        /// The rank.
        rank: usize,
    },
    /// There is nothing.
    #[error("{}: there are no factors", file.display())]
    Empty {
        /// The file or directory.
        file: PathBuf,
    },
    /// Hyper-parameters out of range.
    #[error(transparent)]
    Hyper(#[from] HyperError),
    /// The hyper-parameters cannot be written as JSON.
    #[error("the hyper-parameters cannot be written as json: {0}")]
    Json(#[from] serde_json::Error),
}

/// The sides of a model that Spark MLlib saved at `dir`.
///
/// # Errors
/// [`ImportError::Layout`] when it is not such a directory.
pub fn spark(dir: &Path) -> Result<(PathBuf, PathBuf), ImportError> {
    let (items, users) = (dir.join("itemFactors"), dir.join("userFactors"));
    if items.is_dir() && users.is_dir() {
        return Ok((items, users));
    }
    let rule = "not a saved ALSModel: it has directories itemFactors and userFactors";
    Err(ImportError::Layout {
        dir: dir.to_owned(),
        rule,
    })
}

/// Reads the factors of one side.
///
/// # Errors
/// See [`ImportError`].
pub fn read_factors(files: &FactorFiles) -> Result<VectorSet, ImportError> {
    let parts = parts(&files.factors)?;
    let set = match parts {
        None => VectorSet::read(&files.factors, files.ids.as_deref())?,
        Some(parts) => {
            let names = files.ids.as_deref().map(read_names).transpose()?;
            parquet_factors::read(&parts, names.as_ref())?
        }
    };
    if set.ids.is_empty() {
        return Err(ImportError::Empty {
            file: files.factors.clone(),
        });
    }
    if set.dim > MAX_RANK {
        return Err(ImportError::Rank {
            file: files.factors.clone(),
            rank: set.dim,
        });
    }
    Ok(set)
}

/// The Parquet files behind a path, in the order of their names; none if it is no Parquet.
fn parts(path: &Path) -> Result<Option<Vec<PathBuf>>, ImportError> {
    if path.is_dir() {
        let mut parts = Vec::new();
        for entry in fs_err::read_dir(path)? {
            let entry = entry?.path();
            // `_SUCCESS`, `.part-….crc` and the like are not data.
            let name = entry
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            if entry.is_file() && !name.starts_with(['_', '.']) {
                parts.push(entry);
            }
        }
        parts.sort();
        if parts.is_empty() {
            return Err(ImportError::Layout {
                dir: path.to_owned(),
                rule: "a directory of factors holds Parquet files",
            });
        }
        return Ok(Some(parts));
    }
    use std::io::Read as _;
    let mut magic = Vec::new();
    fs_err::File::open(path)?.take(4).read_to_end(&mut magic)?;
    Ok((magic == b"PAR1").then(|| vec![path.to_owned()]))
}

/// `number,id` lines.
fn read_names(file: &Path) -> Result<HashMap<i64, String>, ImportError> {
    let text = fs_err::read_to_string(file)?;
    let mut names = HashMap::new();
    for (at, line) in text.lines().enumerate() {
        let bad = |problem: &str| ImportError::Name {
            file: file.to_owned(),
            line: at + 1,
            problem: problem.to_owned(),
        };
        let (number, id) = line
            .split_once([',', '\t'])
            .ok_or_else(|| bad("expected a number, a comma and an id"))?;
        let Ok(number) = number.trim().parse::<i64>() else {
            // A header.
            if at == 0 {
                continue;
            }
            return Err(bad("expected a whole number before the comma"));
        };
        if names.insert(number, id.trim().to_owned()).is_some() {
            return Err(bad("the number was on a line before"));
        }
    }
    Ok(names)
}

/// Makes a model of factors from elsewhere.
///
/// Popularity comes from the listens; without them every item has one listener, so that none is cold.
///
/// # Errors
/// See [`ImportError`].
pub fn import(import: &Import<'_>) -> Result<Model, ImportError> {
    let items = read_factors(&import.items)?;
    let users = import
        .users
        .as_ref()
        .map(read_factors)
        .transpose()?
        .unwrap_or_default();
    let rank = items.dim;
    if !users.ids.is_empty() && users.dim != rank {
        return Err(ImportError::Ranks {
            items: rank,
            users: users.dim,
        });
    }
    let hyper = Hyper {
        rank,
        ..import.hyper
    };
    hyper.validate()?;
    let item_ids: Dictionary = items.ids.iter().collect();
    let user_ids: Dictionary = users.ids.iter().collect();
    let n = item_ids.len();
    let (mut listeners, mut plays) = (vec![1; n], vec![1.0; n]);
    if let Some(log) = import.listens {
        (listeners, plays) = popularity(&item_ids, log);
    }
    let attributes = import.attributes.clone().of(&item_ids);
    Ok(Model {
        info: ModelInfo {
            rank,
            hyper: serde_json::to_value(hyper)?,
            command: import.command.clone(),
            seed: hyper.seed,
            watermark_us: import.listens.and_then(Log::watermark_us),
            exclusion_watermark_us: None,
            counts: ModelCounts {
                users: user_ids.len() as u64,
                items: n as u64,
                events: import.listens.map_or(0, |log| log.len() as u64),
                plays: plays.iter().sum(),
            },
            report: serde_json::json!({ "imported": true }),
            calibration: None,
        },
        items: item_ids,
        users: user_ids,
        item_factors: items.values,
        user_factors: users.values,
        item_listeners: listeners,
        item_plays: plays,
        attributes,
        held_out: Vec::new(),
    })
}

/// Distinct listeners and plays of each item.
fn popularity(items: &Dictionary, log: &Log) -> (Vec<u32>, Vec<f64>) {
    let mut listeners = vec![0u32; items.len()];
    let mut plays = vec![0.0; items.len()];
    let known: Vec<Option<u32>> = log.items.iter().map(|id| items.ordinal(id)).collect();
    let mut pairs: FxHashSet<(u32, u32)> = FxHashSet::default();
    for listen in log.listens() {
        let Some(item) = known[listen.item as usize] else {
            continue;
        };
        plays[item as usize] += f64::from(listen.count);
        if pairs.insert((listen.user, item)) {
            listeners[item as usize] += 1;
        }
    }
    (listeners, plays)
}

#[cfg(test)]
mod tests;
