//! One pass over the row groups of all files, on all cores.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use rayon::prelude::*;
use rustc_hash::FxHashMap;

use super::error::LogError;
use super::files::{COVARIATES, EXPOSURES, LogFile, LogFiles, Needed, OUTCOMES};
use super::group::batches;
use super::holdout::HOLDOUTS;
use super::items::ITEMS;
use super::options::{ReadOptions, RowCounts};
use super::rows::Reader;
use super::spill::Partitions;
use super::symbols::{Class, Classes, Symbols};
use crate::plan::{Kind, Plan};

/// A log as numbers.
pub(crate) struct Scanned {
    pub(crate) partitions: Partitions,
    pub(crate) counts: RowCounts,
    pub(crate) classes: Vec<Class>,
    pub(crate) words: Words,
    /// First and last instant among analysed exposures and outcomes.
    pub(crate) span_us: Option<(i64, i64)>,
}

/// The names behind a [`Class`]'s numbers.
#[derive(Debug, Default)]
pub(crate) struct Words {
    pub(crate) weights: Vec<String>,
    pub(crate) digests: Vec<String>,
    pub(crate) index_versions: Vec<String>,
    pub(crate) model_versions: Vec<String>,
    pub(crate) rankings: Vec<String>,
    pub(crate) segments: Vec<Vec<String>>,
}

/// Reads a log. `events` and `covariates` are what the plan asks for; a code is an index into them.
/// `progress` is told rows done of all.
///
/// # Errors
/// [`LogError`], with file, row group and row.
pub(crate) fn scan(
    files: &LogFiles,
    plan: &Plan,
    events: &[String],
    covariates: &[String],
    options: &ReadOptions,
    progress: &(dyn Fn(u64, u64) + Sync),
) -> Result<Scanned, LogError> {
    let total = files.rows();
    let shared = Shared {
        plan,
        events: numbered(events),
        covariates: numbered(covariates),
        options,
        partitions: Partitions::new(total, options.memory_bytes, options.temp_folder.clone()),
        classes: Classes::default(),
        weights: Symbols::default(),
        digests: Symbols::default(),
        index_versions: Symbols::default(),
        model_versions: Symbols::default(),
        rankings: Symbols::default(),
        segments: plan.segments.iter().map(|_| Symbols::default()).collect(),
        seen: Mutex::default(),
        done: AtomicU64::new(0),
    };
    let tables = [
        (&files.exposures, Table::Exposures),
        (&files.outcomes, Table::Outcomes),
        (&files.covariates, Table::Covariates),
    ];
    let tasks: Vec<(&LogFile, usize, Table)> = tables
        .into_iter()
        .flat_map(|(files, table)| files.iter().map(move |file| (file, table)))
        .flat_map(|(file, table)| (0..file.row_groups()).map(move |group| (file, group, table)))
        .collect();
    let pool = pool(options.threads)?;
    let results: Vec<Result<Part, LogError>> = pool.install(|| {
        tasks
            .par_iter()
            .with_max_len(1)
            .map(|&(file, group, table)| {
                let part = read_group(&shared, file, group, table);
                progress(shared.done.load(Ordering::Relaxed), total);
                part
            })
            .collect()
    });
    let mut counts = RowCounts::default();
    let mut span: Option<(i64, i64)> = None;
    for part in results {
        let part = part?;
        counts.merge(part.counts);
        span = match (span, part.span) {
            (Some(a), Some(b)) => Some((a.0.min(b.0), a.1.max(b.1))),
            (a, b) => a.or(b),
        };
    }
    if counts.analysed == 0 {
        let seen = shared
            .seen
            .into_inner()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let known: Vec<String> = seen
            .keys()
            .map(|(name, epoch)| format!("`{name}` epoch {epoch}"))
            .take(20)
            .collect();
        return Err(LogError::NoRows {
            what: match plan.kind {
                Kind::Holdout => "holdout",
                _ => "experiment",
            },
            experiment: plan.holdout.as_ref().unwrap_or(&plan.experiment).clone(),
            epoch: plan.epoch,
            rows: counts.exposures,
            known: if known.is_empty() {
                "no rows".to_owned()
            } else {
                known.join(", ")
            },
        });
    }
    Ok(Scanned {
        partitions: shared.partitions,
        counts,
        classes: shared.classes.into_classes(),
        words: Words {
            weights: shared.weights.into_names(),
            digests: shared.digests.into_names(),
            index_versions: shared.index_versions.into_names(),
            model_versions: shared.model_versions.into_names(),
            rankings: shared.rankings.into_names(),
            segments: shared
                .segments
                .into_iter()
                .map(Symbols::into_names)
                .collect(),
        },
        span_us: span,
    })
}

/// A pool of our own threads.
pub(crate) fn pool(threads: usize) -> Result<rayon::ThreadPool, LogError> {
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads.max(1))
        .build()
        .map_err(|error| LogError::Io(std::io::Error::other(error)))
}

fn numbered(names: &[String]) -> FxHashMap<String, u32> {
    names.iter().cloned().zip(0..).collect()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Table {
    Exposures,
    Outcomes,
    Covariates,
}

impl Table {
    fn needed(self) -> &'static [Needed] {
        match self {
            Self::Exposures => EXPOSURES,
            Self::Outcomes => OUTCOMES,
            Self::Covariates => COVARIATES,
        }
    }
}

pub(super) struct Shared<'a> {
    pub(super) plan: &'a Plan,
    pub(super) events: FxHashMap<String, u32>,
    pub(super) covariates: FxHashMap<String, u32>,
    pub(super) options: &'a ReadOptions,
    pub(super) partitions: Partitions,
    pub(super) classes: Classes,
    pub(super) weights: Symbols,
    pub(super) digests: Symbols,
    pub(super) index_versions: Symbols,
    pub(super) model_versions: Symbols,
    pub(super) rankings: Symbols,
    pub(super) segments: Vec<Symbols>,
    /// Experiments and epochs met, for the message that none was the right one.
    pub(super) seen: Mutex<BTreeMap<(String, i64), ()>>,
    pub(super) done: AtomicU64,
}

#[derive(Default)]
pub(super) struct Part {
    pub(super) counts: RowCounts,
    pub(super) span: Option<(i64, i64)>,
}

fn read_group(
    shared: &Shared<'_>,
    file: &LogFile,
    group: usize,
    table: Table,
) -> Result<Part, LogError> {
    let mut reader = Reader {
        shared,
        file,
        group,
        part: Part::default(),
        buffers: vec![Vec::new(); shared.partitions.len()],
        local: FxHashMap::default(),
        last: None,
        row: 0,
    };
    // An interleaved list is judged by its items.
    let drafted = shared.plan.kind == Kind::Interleave;
    let segments: &[String] = if table == Table::Exposures {
        &shared.plan.segments
    } else {
        &[]
    };
    let wanted = |name: &str| match (table, name) {
        (Table::Exposures, ITEMS) | (Table::Outcomes, "exposure_id" | "item") => drafted,
        (Table::Exposures, HOLDOUTS) => shared.plan.kind == Kind::Holdout,
        _ => {
            table.needed().iter().any(|needed| needed.name == name)
                || segments.iter().any(|segment| segment == name)
        }
    };
    batches(file, group, wanted, None, &mut |batch, row| {
        reader.row = row;
        match table {
            Table::Exposures => reader.exposures(batch)?,
            Table::Outcomes => reader.outcomes(batch)?,
            Table::Covariates => reader.covariates(batch)?,
        }
        shared
            .done
            .fetch_add(batch.num_rows() as u64, Ordering::Relaxed);
        Ok(())
    })?;
    let Reader {
        part, mut buffers, ..
    } = reader;
    for (at, buffer) in buffers
        .iter_mut()
        .enumerate()
        .filter(|(_, buffer)| !buffer.is_empty())
    {
        shared.partitions.append(at, buffer)?;
    }
    Ok(part)
}
