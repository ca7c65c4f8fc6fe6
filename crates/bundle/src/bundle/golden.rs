//! Queries with their exact answers: what a server asks itself before it serves.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::column::Column;
use crate::corruption::Corruption;
use crate::digest::FileDigest;
use crate::section::{OpenError, SectionFile, SectionWriter, WriteError};

/// Golden queries, mapped: `len` vectors of `dim` values and, for each, the `k` best items of exact
/// search with their scores, best first.
#[derive(Debug, Clone)]
pub struct Golden {
    dim: usize,
    k: usize,
    queries: Column<f32>,
    ordinals: Column<u32>,
    scores: Column<f32>,
}

impl Golden {
    /// The golden queries in `file`. O(1).
    ///
    /// # Errors
    /// [`OpenError`] when a section is missing, unknown or of the wrong shape.
    pub fn open(file: &SectionFile) -> Result<Self, OpenError> {
        file.require_known(&["params", "queries", "ordinals", "scores"])?;
        let Params {
            queries: count,
            dim,
            k,
        } = file.record("params", PARAMS_VERSION)?;
        let queries = file.column::<f32>("queries")?;
        let ordinals = file.column::<u32>("ordinals")?;
        let scores = file.column::<f32>("scores")?;
        for (name, len, width) in [
            ("queries", queries.len(), dim),
            ("ordinals", ordinals.len(), k),
            ("scores", scores.len(), k),
        ] {
            if len as u64 != u64::from(count) * u64::from(width) {
                let rule = "there is one row a query";
                return Err(file.broken(name, 0, rule, len as u64).into());
            }
        }
        Ok(Self {
            dim: dim as usize,
            k: k as usize,
            queries,
            ordinals,
            scores,
        })
    }

    /// The number of queries.
    pub fn len(&self) -> usize {
        self.queries.len().checked_div(self.dim).unwrap_or_default()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Values of a query.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Answers of a query: 10, or fewer when there are fewer items.
    pub fn k(&self) -> usize {
        self.k
    }

    /// All queries, row after row of [`dim`](Self::dim) values.
    pub fn queries(&self) -> &[f32] {
        self.queries.as_slice()
    }

    /// The expected items, row after row of [`k`](Self::k) ordinals, best first.
    pub fn ordinals(&self) -> &[u32] {
        self.ordinals.as_slice()
    }

    /// The expected scores, like [`ordinals`](Self::ordinals). Larger is better.
    pub fn scores(&self) -> &[f32] {
        self.scores.as_slice()
    }

    /// Each query with its expected ordinals and scores.
    pub fn iter(&self) -> impl Iterator<Item = (&[f32], &[u32], &[f32])> + '_ {
        // `max(1)`: without answers or values there are no rows to cut.
        let answers = self.ordinals().chunks_exact(self.k.max(1));
        let scores = self.scores().chunks_exact(self.k.max(1));
        let queries = self.queries().chunks_exact(self.dim.max(1));
        queries
            .zip(answers.zip(scores))
            .map(|(query, (answer, scores))| (query, answer, scores))
    }

    /// Checks every value: O(n).
    pub(crate) fn check(&self, file: &SectionFile, items: u32) -> Result<(), Corruption> {
        for (name, values) in [("queries", self.queries()), ("scores", self.scores())] {
            if let Some(at) = values.iter().position(|value| !value.is_finite()) {
                return Err(file.broken(name, at as u64 * 4, "values are finite", at as u64));
            }
        }
        match self.ordinals().iter().position(|&ordinal| ordinal >= items) {
            None => Ok(()),
            Some(at) => {
                let rule = "golden answers are items of the bundle";
                Err(file.broken("ordinals", at as u64 * 4, rule, at as u64))
            }
        }
    }
}

/// Writes golden queries to a new file: rows of `dim` values, rows of `k` ordinals and scores.
///
/// # Errors
/// [`WriteError::BadValue`] when the lengths do not agree; see [`WriteError`].
pub fn write_golden(
    path: &Path,
    dim: u32,
    k: u32,
    queries: &[f32],
    ordinals: &[u32],
    scores: &[f32],
) -> Result<FileDigest, WriteError> {
    let count = queries.len() / (dim as usize).max(1);
    let rows = |len: usize, width: u32| count.checked_mul(width as usize) == Some(len);
    if dim == 0 || !rows(queries.len(), dim) || !rows(ordinals.len(), k) || !rows(scores.len(), k) {
        let rule = "queries, ordinals and scores have as many rows";
        return Err(WriteError::BadValue {
            what: "golden query",
            at: count,
            rule,
        });
    }
    let count = u32::try_from(count).map_err(|_| WriteError::TooMany {
        what: "golden queries",
    })?;
    SectionWriter::write(path, |writer| {
        writer.add_record(
            "params",
            PARAMS_VERSION,
            &Params {
                queries: count,
                dim,
                k,
            },
        )?;
        writer.add_array("queries", queries)?;
        writer.add_array("ordinals", ordinals)?;
        writer.add_array("scores", scores)
    })
}

#[derive(Serialize, Deserialize)]
struct Params {
    queries: u32,
    dim: u32,
    k: u32,
}

const PARAMS_VERSION: u8 = 1;
