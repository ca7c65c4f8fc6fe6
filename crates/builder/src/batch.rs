//! Recommendations for many, as Parquet: the server's engine in process, so the same answers bit for bit.
//!
//! Input rows are users (whose profiles the caller has) or lists of seeds. They are answered in blocks;
//! each finished block is a part file beside the output, so a job that was killed goes on with the blocks
//! that are missing, and memory holds one block. At the end the parts become one file, in the order of the
//! input: the same bytes at any number of threads, stopped in between or not.

mod input;
mod output;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rayon::prelude::*;
use refrain_bundle::Digest;
use refrain_engine::{
    FoldError, Policy, Request, RequestError, Scratch, Seed, Seen, Subject, UnknownVariant,
    Version, fold_in,
};
use refrain_taste::{Profile, Weights};
use serde::{Deserialize, Serialize};

use crate::files::write_whole;
use input::{Asker, Input};

/// Input rows answered between two part files.
pub const BLOCK_ROWS: usize = 8_192;

/// Where profiles come from: by user id; a user that is not known has an empty one.
pub type Profiles<'a> = &'a (dyn Fn(&str) -> Result<Arc<Profile>, String> + Sync);

/// What to answer.
#[derive(Clone, Copy)]
pub struct Job<'a> {
    /// Who answers.
    pub version: &'a Version,
    /// Which variant a user gets.
    pub policy: &'a Policy,
    /// Surface that the assignment is for.
    pub surface: &'a str,
    /// Variant for everybody, instead of the one assigned.
    pub variant: Option<&'a str>,
    /// How much events count.
    pub weights: &'a Weights,
    /// Profiles of users.
    pub profiles: Profiles<'a>,
    /// Items a row.
    pub k: usize,
    /// Whether heard items may come back.
    pub seen: Seen,
    /// The instant of the requests; of a job that goes on, that of its first run unless given.
    pub now_us: Option<i64>,
    /// Threads; 0 for one a core.
    pub threads: usize,
}

impl std::fmt::Debug for Job<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Job")
            .field("version", &self.version.id())
            .finish_non_exhaustive()
    }
}

/// What a job did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct BatchReport {
    /// Input rows.
    pub rows: u64,
    /// Recommended items.
    pub items: u64,
    /// Rows with fewer items than asked for.
    pub short: u64,
    /// Rows answered by popularity, for want of anything to go by.
    pub popular: u64,
    /// Blocks that an earlier run had finished.
    pub resumed_blocks: u64,
    /// The instant of the requests.
    pub now_us: i64,
}

/// Why a job failed. What is finished is kept: run it again to go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BatchError {
    /// A file cannot be read or written; the message has the path.
    #[error(transparent)]
    Io(#[from] std::io::Error),
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
    /// A variant that is not declared.
    #[error(transparent)]
    Variant(#[from] UnknownVariant),
    /// A row cannot be answered.
    #[error("row {row}: {source}")]
    Request {
        /// Row, from 1.
        row: u64,
        /// Why.
        source: RequestError,
    },
    /// A profile cannot be folded in: the bundle is damaged.
    #[error("row {row}: {source}")]
    Fold {
        /// Row, from 1.
        row: u64,
        /// Why.
        source: FoldError,
    },
    /// A profile cannot be read.
    #[error("row {row}: cannot read the profile of {user:?}: {problem}")]
    Profile {
        /// Row, from 1.
        row: u64,
        /// Whose.
        user: String,
        /// Why.
        problem: String,
    },
    /// The record of the job cannot be written.
    #[error("cannot write the record of the job: {0}")]
    Json(#[from] serde_json::Error),
    /// No threads.
    #[error("cannot start threads: {0}")]
    Threads(#[from] rayon::ThreadPoolBuildError),
}

/// What makes two runs the same job.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Record {
    version: String,
    policy: String,
    surface: String,
    variant: Option<String>,
    k: usize,
    seen: bool,
    input: (u64, String),
    now_us: i64,
}

/// One answered item.
#[derive(Debug, Clone, PartialEq)]
struct Recommended {
    row: u64,
    user: Option<String>,
    rank: u16,
    item: String,
    score: f32,
    similarity: f32,
    source: &'static str,
    variant: String,
}

/// Answers every row of `input` into `out`, which is replaced at the end. `progress` hears of rows.
///
/// Memory: one block of rows and its answers, beside the mapped version.
///
/// # Errors
/// See [`BatchError`]; finished blocks stay in `.NAME.parts` beside `out`.
pub fn run(
    job: &Job<'_>,
    input: &Path,
    out: &Path,
    progress: &(dyn Fn(u64, u64) + Sync),
) -> Result<BatchReport, BatchError> {
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(job.threads)
        .build()?;
    let mut rows = Input::open(input)?;
    let total = rows.total();
    let parts = parts_dir(out)?;
    let (now_us, resumed) = begin(job, input, &parts)?;
    let mut report = BatchReport {
        rows: 0,
        items: 0,
        short: 0,
        popular: 0,
        resumed_blocks: 0,
        now_us,
    };
    let mut files = Vec::new();
    while let Some(block) = rows.next_block(BLOCK_ROWS)? {
        let part = parts.join(format!("part-{:06}.parquet", files.len()));
        let first = report.rows;
        report.rows += block.len() as u64;
        let counts = match resumed.then(|| output::counts(&part)).flatten() {
            Some(counts) => {
                report.resumed_blocks += 1;
                counts
            }
            None => {
                let answered: Vec<Vec<Recommended>> = pool.install(|| {
                    block
                        .par_iter()
                        .enumerate()
                        .map_init(Scratch::default, |scratch, (at, asker)| {
                            let answer = answer(job, now_us, first + at as u64, asker, scratch);
                            progress(first + at as u64 + 1, total);
                            answer
                        })
                        .collect::<Result<_, BatchError>>()
                })?;
                let counts = output::Counts::of(&answered, job.k);
                output::write_part(&part, answered.into_iter().flatten(), counts)?;
                counts
            }
        };
        report.items += counts.items;
        report.short += counts.short;
        report.popular += counts.popular;
        progress(report.rows, total);
        files.push(part);
    }
    output::join(&files, out)?;
    fs_err::remove_dir_all(&parts)?;
    Ok(report)
}

/// The record of the job, new or that of the run before; and whether its parts may be used.
fn begin(job: &Job<'_>, input: &Path, parts: &Path) -> Result<(i64, bool), BatchError> {
    let path = parts.join("job.json");
    let before: Option<Record> = fs_err::read(&path)
        .ok()
        .and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let now = || jiff::Timestamp::now().as_microsecond();
    let now_us = job
        .now_us
        .or(before.as_ref().map(|record| record.now_us))
        .unwrap_or_else(now);
    let record = Record {
        version: job.version.id().to_owned(),
        policy: job.policy.digest().to_owned(),
        surface: job.surface.to_owned(),
        variant: job.variant.map(str::to_owned),
        k: job.k,
        seen: job.seen == Seen::Allow,
        input: fingerprint(input)?,
        now_us,
    };
    if before.as_ref() == Some(&record) {
        return Ok((now_us, true));
    }
    // Parts of another job must not be taken for ours.
    if parts.exists() {
        fs_err::remove_dir_all(parts)?;
    }
    fs_err::create_dir_all(parts)?;
    let now_us = job.now_us.unwrap_or_else(now);
    write_whole(
        &path,
        &serde_json::to_vec_pretty(&Record { now_us, ..record })?,
    )?;
    Ok((now_us, false))
}

/// Length and chained digest of a file, read in pieces.
fn fingerprint(path: &Path) -> std::io::Result<(u64, String)> {
    use std::io::Read as _;
    let mut file = fs_err::File::open(path)?;
    let (mut bytes, mut sum) = (0u64, Digest::of(b"").to_string());
    loop {
        let mut piece = sum.clone().into_bytes();
        let before = piece.len();
        file.by_ref().take(1 << 20).read_to_end(&mut piece)?;
        if piece.len() == before {
            return Ok((bytes, sum));
        }
        bytes += (piece.len() - before) as u64;
        sum = Digest::of(&piece).to_string();
    }
}

fn parts_dir(out: &Path) -> Result<PathBuf, BatchError> {
    let name = out.file_name().ok_or_else(|| {
        let text = format!("{}: is not the name of a file", out.display());
        std::io::Error::new(std::io::ErrorKind::InvalidInput, text)
    })?;
    let mut parts = std::ffi::OsString::from(".");
    parts.push(name);
    parts.push(".parts");
    Ok(out.with_file_name(parts))
}

fn answer(
    job: &Job<'_>,
    now_us: i64,
    row: u64,
    asker: &Asker,
    scratch: &mut Scratch,
) -> Result<Vec<Recommended>, BatchError> {
    let (version, row_1) = (job.version, row + 1);
    let refused = |source| BatchError::Request { row: row_1, source };
    let (user, answer, variant) = match asker {
        Asker::User(user) => {
            let choice = job.policy.choose(job.surface, user, job.variant)?;
            let profile = (job.profiles)(user).map_err(|problem| BatchError::Profile {
                row: row_1,
                user: user.clone(),
                problem,
            })?;
            let solved = fold_in(version, &profile, now_us, job.weights, scratch)
                .map_err(|source| BatchError::Fold { row: row_1, source })?;
            let request = Request {
                seen: job.seen,
                seed: row,
                ..Request::new(Subject::Solved(&solved), job.k, now_us)
            };
            let answer =
                refrain_engine::recommend(version, &request, choice.variant, job.weights, scratch);
            (Some(user.clone()), answer.map_err(refused)?, choice.variant)
        }
        Asker::Seeds(seeds) => {
            let choice = match job.variant {
                Some(_) => job.policy.choose(job.surface, "", job.variant)?,
                None => job.policy.unassigned(job.surface)?,
            };
            let positive: Vec<Seed<'_>> = seeds
                .iter()
                .map(|id| Seed::Item { id, weight: 1.0 })
                .collect();
            let subject = Subject::Seeds {
                positive: &positive,
                negative: &[],
            };
            let request = Request {
                seen: job.seen,
                seed: row,
                ..Request::new(subject, job.k, now_us)
            };
            let answer =
                refrain_engine::recommend(version, &request, choice.variant, job.weights, scratch);
            (None, answer.map_err(refused)?, choice.variant)
        }
    };
    Ok((1u16..)
        .zip(&answer.items)
        .map(|(rank, item)| Recommended {
            row,
            user: user.clone(),
            rank,
            item: version
                .items()
                .id(item.ordinal)
                .unwrap_or_default()
                .to_owned(),
            score: item.score,
            similarity: item.similarity,
            source: output::source(item.source),
            variant: variant.name.clone(),
        })
        .collect())
}

#[cfg(test)]
mod tests;
