//! One pass over the row groups of all files, on all cores.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow_array::{Array, RecordBatch};
use arrow_schema::ArrowError;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::errors::ParquetError;
use rayon::prelude::*;
use rustc_hash::FxHashMap;

use super::columns::{Columns, bytes_at, key_at};
use super::error::LogError;
use super::files::{COVARIATES, EXPOSURES, LogFile, LogFiles, Needed, OUTCOMES};
use super::record::{self, Record};
use super::spill::Partitions;
use super::symbols::{
    Class, Classes, MAX_CLASSES, MAX_SYMBOLS, Symbols, hash_bytes, id_hash, unit_hash,
};
use crate::plan::Plan;

const BATCH_ROWS: usize = 16_384;
/// Records a partition's buffer holds before it is handed over.
const BUFFER: usize = 1024;
/// Earliest and latest instants that can be meant: 1990 to 2200.
const TIME_US: std::ops::Range<i64> = 631_152_000_000_000..7_258_118_400_000_000;

/// How a log is read.
#[derive(Debug, Clone)]
pub struct ReadOptions {
    /// Threads, at least 1.
    pub threads: usize,
    /// Bytes of records held in memory; more goes to temporary files.
    pub memory_bytes: usize,
    /// Where temporary files go.
    pub temp_folder: PathBuf,
    /// Rows at or after this instant (microseconds) are not read: as if it were then.
    pub until_us: Option<i64>,
    /// What to do with an outcome or covariate whose value is null, NaN or infinite: count and drop
    /// it, or fail and say where it is.
    pub drop_bad_values: bool,
}

impl Default for ReadOptions {
    fn default() -> Self {
        Self {
            threads: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            memory_bytes: 768 << 20,
            temp_folder: std::env::temp_dir(),
            until_us: None,
            drop_bad_values: false,
        }
    }
}

/// What became of the rows of a log.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct RowCounts {
    /// Rows of the exposure files.
    pub exposures: u64,
    /// Of them, of this experiment epoch and to be analysed.
    pub analysed: u64,
    /// Of other experiments or none.
    pub other_experiments: u64,
    /// Of this experiment in another epoch.
    pub other_epochs: u64,
    /// Forced by an allow-list: never analysed.
    pub forced: u64,
    /// Logged for another reason than a random split, by reason.
    pub other_reasons: BTreeMap<String, u64>,
    /// At or after the cut-off.
    pub after_cutoff: u64,
    /// Rows of the outcome files.
    pub outcomes: u64,
    /// Of events that no metric uses.
    pub other_events: u64,
    /// Rows of the covariate files.
    pub covariates: u64,
    /// Values that are no number, dropped because that was asked for.
    pub bad_values: u64,
}

impl RowCounts {
    fn merge(&mut self, other: Self) {
        self.exposures += other.exposures;
        self.analysed += other.analysed;
        self.other_experiments += other.other_experiments;
        self.other_epochs += other.other_epochs;
        self.forced += other.forced;
        self.after_cutoff += other.after_cutoff;
        self.outcomes += other.outcomes;
        self.other_events += other.other_events;
        self.covariates += other.covariates;
        self.bad_values += other.bad_values;
        for (reason, count) in other.other_reasons {
            *self.other_reasons.entry(reason).or_insert(0) += count;
        }
    }
}

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
            experiment: plan.experiment.clone(),
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

struct Shared<'a> {
    plan: &'a Plan,
    events: FxHashMap<String, u32>,
    covariates: FxHashMap<String, u32>,
    options: &'a ReadOptions,
    partitions: Partitions,
    classes: Classes,
    weights: Symbols,
    digests: Symbols,
    index_versions: Symbols,
    model_versions: Symbols,
    segments: Vec<Symbols>,
    /// Experiments and epochs met, for the message that none was the right one.
    seen: Mutex<BTreeMap<(String, i64), ()>>,
    done: AtomicU64,
}

#[derive(Default)]
struct Part {
    counts: RowCounts,
    span: Option<(i64, i64)>,
}

/// What one row group needs while it is read.
struct Reader<'a, 'b> {
    shared: &'a Shared<'b>,
    file: &'a LogFile,
    group: usize,
    part: Part,
    buffers: Vec<Vec<Record>>,
    local: FxHashMap<Class, u32>,
    last: Option<(Class, u32)>,
    row: usize,
}

fn read_group(
    shared: &Shared<'_>,
    file: &LogFile,
    group: usize,
    table: Table,
) -> Result<Part, LogError> {
    let broken = |source| LogError::Parquet {
        path: file.path.clone(),
        row_group: Some(group),
        source,
    };
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
    // The reader of Parquet checks a lot, but not all, of what a damaged page can claim.
    let outcome = catch_unwind(AssertUnwindSafe(|| -> Result<(), LogError> {
        let handle = fs_err::File::open(&file.path)?;
        let names = || {
            let segments: &[String] = if table == Table::Exposures {
                &shared.plan.segments
            } else {
                &[]
            };
            table
                .needed()
                .iter()
                .map(|needed| needed.name)
                .chain(segments.iter().map(String::as_str))
        };
        let schema = file.metadata.schema();
        let roots = (0..schema.fields().len())
            .filter(|&at| names().any(|name| name == schema.field(at).name()));
        let mask = ProjectionMask::roots(file.metadata.parquet_schema(), roots);
        let batches = ParquetRecordBatchReaderBuilder::new_with_metadata(
            handle.into_parts().0,
            file.metadata.clone(),
        )
        .with_row_groups(vec![group])
        .with_projection(mask)
        .with_batch_size(BATCH_ROWS)
        .build()
        .map_err(broken)?;
        for batch in batches {
            let batch = batch.map_err(|error| broken(into_parquet(error)))?;
            match table {
                Table::Exposures => reader.exposures(&batch)?,
                Table::Outcomes => reader.outcomes(&batch)?,
                Table::Covariates => reader.covariates(&batch)?,
            }
            reader.row += batch.num_rows();
            shared
                .done
                .fetch_add(batch.num_rows() as u64, Ordering::Relaxed);
        }
        Ok(())
    }));
    match outcome {
        Ok(result) => result?,
        Err(_) => {
            return Err(broken(ParquetError::General(format!(
                "a page after row {} is damaged",
                reader.row
            ))));
        }
    }
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

fn into_parquet(error: ArrowError) -> ParquetError {
    match error {
        ArrowError::ParquetError(message) => ParquetError::General(message),
        other => ParquetError::ArrowError(other.to_string()),
    }
}

impl Reader<'_, '_> {
    fn exposures(&mut self, batch: &RecordBatch) -> Result<(), LogError> {
        let columns = Columns(batch);
        let (shared, plan) = (self.shared, self.shared.plan);
        let arrow = |error| self.arrow(error);
        let units = self.must(columns.text("unit_id").map_err(arrow)?, "unit_id")?;
        let times = self.must(columns.times("ts").map_err(arrow)?, "ts")?;
        let ids = self.must(columns.bytes("exposure_id"), "exposure_id")?;
        let experiments = self.must(columns.words("experiment").map_err(arrow)?, "experiment")?;
        let epochs = self.must(columns.integers("exp_epoch").map_err(arrow)?, "exp_epoch")?;
        let variants = self.must(columns.words("variant").map_err(arrow)?, "variant")?;
        let reasons = self.must(columns.words("reason").map_err(arrow)?, "reason")?;
        let served = columns.words("served_variant").map_err(arrow)?;
        let forced = columns.flags("forced");
        let bots = columns.flags("bot_flag");
        let empty = columns.flags("empty");
        let degraded = columns.integers("degraded").map_err(arrow)?;
        let latency = columns.integers("latency_us").map_err(arrow)?;
        let weights = columns.lists("weights");
        let digests = columns.bytes("config_digest");
        let mut worded: Vec<(_, &Symbols, &str)> = Vec::new();
        for (name, symbols) in [
            ("index_version", &shared.index_versions),
            ("model_version", &shared.model_versions),
        ] {
            worded.push((columns.words(name).map_err(arrow)?, symbols, name));
        }
        for (name, symbols) in plan.segments.iter().zip(&shared.segments) {
            worded.push((columns.words(name).map_err(arrow)?, symbols, name));
        }
        // Each word of a dictionary is looked at once a batch, not once a row.
        let ours: Vec<bool> = strings(&experiments)
            .map(|name| name == plan.experiment)
            .collect();
        let arms: Vec<Option<u32>> = strings(&variants)
            .map(|name| {
                plan.arms
                    .iter()
                    .zip(0..)
                    .find(|(arm, _)| arm.name == name)
                    .map(|(_, at)| at)
            })
            .collect();
        let served_arms: Option<Vec<Option<u32>>> = served.as_ref().map(|served| {
            strings(served)
                .map(|name| {
                    plan.arms
                        .iter()
                        .zip(0..)
                        .find(|(arm, _)| arm.name == name)
                        .map(|(_, at)| at)
                })
                .collect()
        });
        let counted: Vec<bool> = strings(&reasons)
            .map(|reason| matches!(reason, "SPLIT" | "DEGRADED"))
            .collect();
        let mut symbols = Vec::with_capacity(worded.len());
        for (words, table, name) in &worded {
            symbols.push(match words {
                Some(words) => strings(words)
                    .map(|word| table.intern(word))
                    .collect::<Option<Vec<u32>>>()
                    .ok_or_else(|| self.too_many(format!("values of `{name}`"), MAX_SYMBOLS))?,
                None => Vec::new(),
            });
        }
        let unknown = worded
            .iter()
            .map(|(_, table, name)| {
                table
                    .intern("")
                    .ok_or_else(|| self.too_many(format!("values of `{name}`"), MAX_SYMBOLS))
            })
            .collect::<Result<Vec<u32>, LogError>>()?;
        let mut known_weights: Option<(Vec<u32>, u32)> = None;
        let mut known_digest: Option<(Vec<u8>, u32)> = None;
        let none_weights = shared.weights.intern("").unwrap_or(0);
        let none_digest = shared.digests.intern("").unwrap_or(0);
        let mut bits: Vec<u32> = Vec::new();

        self.part.counts.exposures += batch.num_rows() as u64;
        for row in 0..batch.num_rows() {
            let Some(experiment) = key_at(&experiments, row) else {
                self.part.counts.other_experiments += 1;
                continue;
            };
            let epoch = if epochs.is_valid(row) {
                epochs.value(row)
            } else {
                -1
            };
            if !ours.get(experiment).copied().unwrap_or(false) {
                self.part.counts.other_experiments += 1;
                if row == 0 {
                    let name = strings(&experiments)
                        .nth(experiment)
                        .unwrap_or_default()
                        .to_owned();
                    self.note(name, epoch);
                }
                continue;
            }
            if epoch != i64::from(plan.epoch) {
                self.part.counts.other_epochs += 1;
                if row == 0 || self.part.counts.other_epochs == 1 {
                    self.note(plan.experiment.clone(), epoch);
                }
                continue;
            }
            if forced
                .as_ref()
                .is_some_and(|flags| flags.is_valid(row) && flags.value(row))
            {
                self.part.counts.forced += 1;
                continue;
            }
            let reason =
                key_at(&reasons, row).ok_or_else(|| self.value(row, "reason", "is null"))?;
            if !counted.get(reason).copied().unwrap_or(false) {
                let name = strings(&reasons).nth(reason).unwrap_or_default();
                let count = self
                    .part
                    .counts
                    .other_reasons
                    .entry(name.to_owned())
                    .or_insert(0);
                *count += 1;
                continue;
            }
            let ts = self.time(&times, row, "ts")?;
            if shared.options.until_us.is_some_and(|until| ts >= until) {
                self.part.counts.after_cutoff += 1;
                continue;
            }
            let unit = self.unit(&units, row)?;
            let id =
                bytes_at(&ids, row).ok_or_else(|| self.value(row, "exposure_id", "is null"))?;
            let arm = match key_at(&variants, row) {
                Some(key) => arms[key].ok_or_else(|| {
                    let name = strings(&variants).nth(key).unwrap_or_default();
                    self.value(
                        row,
                        "variant",
                        &format!("names arm `{name}`, which the plan does not have"),
                    )
                })?,
                None => return Err(self.value(row, "variant", "is null")),
            };
            let served_other = match (&served, &served_arms) {
                (Some(words), Some(arms)) => {
                    key_at(words, row).is_some_and(|key| arms[key] != Some(arm))
                }
                _ => false,
            };
            let weights = match &weights {
                Some(lists) if lists.is_valid(row) => {
                    bits.clear();
                    floats(lists, row, &mut bits);
                    match &known_weights {
                        Some((known, symbol)) if *known == bits => *symbol,
                        _ => {
                            let text: Vec<String> = bits
                                .iter()
                                .map(|bits| f32::from_bits(*bits).to_string())
                                .collect();
                            let symbol =
                                shared.weights.intern(&text.join(" ")).ok_or_else(|| {
                                    self.too_many("arm weights".to_owned(), MAX_SYMBOLS)
                                })?;
                            known_weights = Some((bits.clone(), symbol));
                            symbol
                        }
                    }
                }
                _ => none_weights,
            };
            let digest = match digests.as_ref().and_then(|digests| bytes_at(digests, row)) {
                Some(bytes) => match &known_digest {
                    Some((known, symbol)) if known == bytes => *symbol,
                    _ => {
                        let symbol = shared.digests.intern(&hex(bytes)).ok_or_else(|| {
                            self.too_many("configurations".to_owned(), MAX_SYMBOLS)
                        })?;
                        known_digest = Some((bytes.to_vec(), symbol));
                        symbol
                    }
                },
                None => none_digest,
            };
            let word = |at: usize| match &worded[at].0 {
                Some(words) => key_at(words, row).map_or(unknown[at], |key| symbols[at][key]),
                None => unknown[at],
            };
            let mut segments = [0; 4];
            for (at, segment) in segments.iter_mut().enumerate().take(plan.segments.len()) {
                *segment = word(2 + at);
            }
            let class = Class {
                arm,
                served_other,
                weights,
                digest,
                index_version: word(0),
                model_version: word(1),
                segments,
            };
            let code = self.class(class)?;
            let mut extra = 0;
            if let Some(latency) = latency.as_ref().filter(|latency| latency.is_valid(row)) {
                extra = u64::from(u32::try_from(latency.value(row)).map_err(|_| {
                    self.value(row, "latency_us", "is not between 0 and 4294967295")
                })?) | record::TIMED;
            }
            for (flags, bit) in [(&empty, record::EMPTY), (&bots, record::BOT)] {
                if flags
                    .as_ref()
                    .is_some_and(|flags| flags.is_valid(row) && flags.value(row))
                {
                    extra |= bit;
                }
            }
            if degraded
                .as_ref()
                .is_some_and(|bits| bits.is_valid(row) && bits.value(row) != 0)
            {
                extra |= record::DEGRADED;
            }
            self.part.counts.analysed += 1;
            self.push(Record {
                unit,
                kind: record::EXPOSURE,
                code,
                ts,
                value: id_hash(id),
                extra,
            })?;
        }
        Ok(())
    }

    fn outcomes(&mut self, batch: &RecordBatch) -> Result<(), LogError> {
        let columns = Columns(batch);
        let arrow = |error| self.arrow(error);
        let units = self.must(columns.text("unit_id").map_err(arrow)?, "unit_id")?;
        let times = self.must(columns.times("ts").map_err(arrow)?, "ts")?;
        let events = self.must(columns.words("event").map_err(arrow)?, "event")?;
        let values = self.must(columns.numbers("value").map_err(arrow)?, "value")?;
        let ids = columns.bytes("outcome_id");
        let codes: Vec<Option<u32>> = strings(&events)
            .map(|name| self.shared.events.get(name).copied())
            .collect();
        self.part.counts.outcomes += batch.num_rows() as u64;
        for row in 0..batch.num_rows() {
            let key = key_at(&events, row).ok_or_else(|| self.value(row, "event", "is null"))?;
            let Some(code) = codes[key] else {
                self.part.counts.other_events += 1;
                continue;
            };
            let ts = self.time(&times, row, "ts")?;
            if self
                .shared
                .options
                .until_us
                .is_some_and(|until| ts >= until)
            {
                self.part.counts.after_cutoff += 1;
                continue;
            }
            let unit = self.unit(&units, row)?;
            let Some(value) = self.number(&values, row)? else {
                continue;
            };
            let extra = ids
                .as_ref()
                .and_then(|ids| bytes_at(ids, row))
                .map_or(0, id_hash);
            self.push(Record {
                unit,
                kind: record::OUTCOME,
                code,
                ts,
                value: value.to_bits(),
                extra,
            })?;
        }
        Ok(())
    }

    fn covariates(&mut self, batch: &RecordBatch) -> Result<(), LogError> {
        let columns = Columns(batch);
        let arrow = |error| self.arrow(error);
        let units = self.must(columns.text("unit_id").map_err(arrow)?, "unit_id")?;
        let times = self.must(columns.times("as_of").map_err(arrow)?, "as_of")?;
        let names = self.must(columns.words("name").map_err(arrow)?, "name")?;
        let values = self.must(columns.numbers("value").map_err(arrow)?, "value")?;
        let codes: Vec<Option<u32>> = strings(&names)
            .map(|name| self.shared.covariates.get(name).copied())
            .collect();
        self.part.counts.covariates += batch.num_rows() as u64;
        for row in 0..batch.num_rows() {
            let key = key_at(&names, row).ok_or_else(|| self.value(row, "name", "is null"))?;
            let Some(code) = codes[key] else { continue };
            let ts = self.time(&times, row, "as_of")?;
            let unit = self.unit(&units, row)?;
            let Some(value) = self.number(&values, row)? else {
                continue;
            };
            let bits = value.to_bits();
            // No span: what was measured before the experiment does not say how long it ran.
            let record = Record {
                unit,
                kind: record::COVARIATE,
                code,
                ts,
                value: bits,
                extra: 0,
            };
            self.put(record)?;
        }
        Ok(())
    }

    fn push(&mut self, record: Record) -> Result<(), LogError> {
        let ts = record.ts;
        self.part.span = Some(
            self.part
                .span
                .map_or((ts, ts), |(a, b)| (a.min(ts), b.max(ts))),
        );
        self.put(record)
    }

    fn put(&mut self, record: Record) -> Result<(), LogError> {
        let at = self.shared.partitions.of(record.unit);
        let buffer = &mut self.buffers[at];
        buffer.push(record);
        if buffer.len() >= BUFFER {
            self.shared.partitions.append(at, buffer)?;
        }
        Ok(())
    }

    fn class(&mut self, class: Class) -> Result<u32, LogError> {
        if let Some((last, code)) = &self.last
            && *last == class
        {
            return Ok(*code);
        }
        let code = match self.local.get(&class) {
            Some(&code) => code,
            None => {
                let code = self.shared.classes.intern(&class).ok_or_else(|| {
                    self.too_many(
                        "combinations of arm, segment and version".to_owned(),
                        MAX_CLASSES,
                    )
                })?;
                self.local.insert(class.clone(), code);
                code
            }
        };
        self.last = Some((class, code));
        Ok(code)
    }

    fn number(
        &mut self,
        values: &arrow_array::Float64Array,
        row: usize,
    ) -> Result<Option<f64>, LogError> {
        let problem = if values.is_null(row) {
            "is null".to_owned()
        } else if !values.value(row).is_finite() {
            format!("is {}", values.value(row))
        } else if values.value(row).abs() > 1e100 {
            format!("is {:e}, beyond 1e100", values.value(row))
        } else {
            return Ok(Some(values.value(row)));
        };
        if self.shared.options.drop_bad_values {
            self.part.counts.bad_values += 1;
            return Ok(None);
        }
        Err(self.value(row, "value", &problem))
    }

    fn unit(&self, units: &arrow_array::StringArray, row: usize) -> Result<[u64; 2], LogError> {
        if units.is_null(row) {
            return Err(self.value(row, "unit_id", "is null"));
        }
        match units.value(row) {
            "" => Err(self.value(row, "unit_id", "is empty")),
            id => Ok(unit_hash(id)),
        }
    }

    fn time(
        &self,
        times: &arrow_array::TimestampMicrosecondArray,
        row: usize,
        column: &str,
    ) -> Result<i64, LogError> {
        if times.is_null(row) {
            return Err(self.value(row, column, "is null"));
        }
        let ts = times.value(row);
        if TIME_US.contains(&ts) {
            return Ok(ts);
        }
        Err(self.value(
            row,
            column,
            "is not between 1990 and 2200: wrong unit of time?",
        ))
    }

    fn note(&self, experiment: String, epoch: i64) {
        let mut seen = self
            .shared
            .seen
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if seen.len() < 64 {
            seen.insert((experiment, epoch), ());
        }
    }

    fn must<T>(&self, column: Option<T>, name: &str) -> Result<T, LogError> {
        column.ok_or_else(|| LogError::MissingColumn {
            path: self.file.path.clone(),
            column: name.to_owned(),
            found: String::new(),
        })
    }

    fn value(&self, row: usize, column: &str, problem: &str) -> LogError {
        LogError::Value {
            path: self.file.path.clone(),
            row_group: self.group,
            row: self.row + row + 1,
            column: column.to_owned(),
            problem: problem.to_owned(),
        }
    }

    fn too_many(&self, what: String, max: usize) -> LogError {
        LogError::TooMany {
            path: self.file.path.clone(),
            row_group: self.group,
            what,
            max,
        }
    }

    fn arrow(&self, error: ArrowError) -> LogError {
        LogError::Parquet {
            path: self.file.path.clone(),
            row_group: Some(self.group),
            source: into_parquet(error),
        }
    }
}

/// The distinct words of a dictionary, null as empty.
fn strings(
    words: &arrow_array::DictionaryArray<arrow_array::types::Int32Type>,
) -> impl Iterator<Item = &str> {
    use arrow_array::cast::AsArray as _;
    words
        .values()
        .as_string::<i32>()
        .iter()
        .map(Option::unwrap_or_default)
}

/// Bits of the floats of a list, as f32.
fn floats(lists: &arrow_array::ListArray, row: usize, into: &mut Vec<u32>) {
    use arrow_array::cast::AsArray as _;
    use arrow_array::types::{Float32Type, Float64Type};
    let offsets = lists.value_offsets();
    let range =
        usize::try_from(offsets[row]).unwrap_or(0)..usize::try_from(offsets[row + 1]).unwrap_or(0);
    if let Some(values) = lists.values().as_primitive_opt::<Float32Type>() {
        into.extend(values.values()[range].iter().map(|value| value.to_bits()));
    } else if let Some(values) = lists.values().as_primitive_opt::<Float64Type>() {
        #[expect(clippy::cast_possible_truncation, reason = "weights to seven digits")]
        into.extend(
            values.values()[range]
                .iter()
                .map(|value| (*value as f32).to_bits()),
        );
    }
}

fn hex(bytes: &[u8]) -> String {
    if bytes.len() > 64 {
        return format!("{:016x}", hash_bytes(bytes));
    }
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
