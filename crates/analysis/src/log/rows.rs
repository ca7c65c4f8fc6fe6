//! The rows of a batch to records, each checked on the way.

use arrow_array::{Array, RecordBatch};
use arrow_schema::ArrowError;
use rustc_hash::FxHashMap;

use super::columns::{Columns, bytes_at, key_at};
use super::error::LogError;
use super::files::{ASSIGNED, LogFile};
use super::holdout::{HOLDOUTS, Holdouts, Standing};
use super::items::{ITEMS, Items};
use super::record::{self, Record};
use super::scan::{Part, Shared};
use super::symbols::{
    Class, MAX_CLASSES, MAX_SYMBOLS, NO_ARM, Symbols, hash_bytes, id_hash, unit_hash,
};
use crate::plan::{INTERLEAVED, Kind, Plan};

/// Records a partition's buffer holds before it is handed over.
const BUFFER: usize = 1024;
/// Earliest and latest instants that can be meant: 1990 to 2200.
const TIME_US: std::ops::Range<i64> = 631_152_000_000_000..7_258_118_400_000_000;

/// What one row group needs while it is read.
pub(super) struct Reader<'a, 'b> {
    pub(super) shared: &'a Shared<'b>,
    pub(super) file: &'a LogFile,
    pub(super) group: usize,
    pub(super) part: Part,
    pub(super) buffers: Vec<Vec<Record>>,
    pub(super) local: FxHashMap<Class, u32>,
    pub(super) last: Option<(Class, u32)>,
    pub(super) row: usize,
}

impl Reader<'_, '_> {
    pub(super) fn exposures(&mut self, batch: &RecordBatch) -> Result<(), LogError> {
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
            ("ranking_variant", &shared.rankings),
        ] {
            worded.push((columns.words(name).map_err(arrow)?, symbols, name));
        }
        let versions = worded.len();
        for (name, symbols) in plan.segments.iter().zip(&shared.segments) {
            worded.push((columns.words(name).map_err(arrow)?, symbols, name));
        }
        // Each word of a dictionary is looked at once a batch, not once a row.
        let ours: Vec<bool> = strings(&experiments)
            .map(|name| name == plan.experiment)
            .collect();
        let named: Vec<bool> = strings(&experiments).map(|name| !name.is_empty()).collect();
        let arms: Vec<Option<u32>> = strings(&variants).map(|name| arm_of(plan, name)).collect();
        let served_arms: Option<Vec<Option<u32>>> = served
            .as_ref()
            .map(|served| strings(served).map(|name| arm_of(plan, name)).collect());
        let items = if plan.kind == Kind::Interleave {
            let items = Items::of(batch).map_err(arrow)?;
            Some(self.must(items, ITEMS)?)
        } else {
            None
        };
        let holdouts = if plan.kind == Kind::Holdout {
            let words = self.must(columns.words(HOLDOUTS).map_err(arrow)?, HOLDOUTS)?;
            let holdouts = Holdouts::new(plan, words);
            for (name, epoch) in holdouts.known() {
                self.note(name.to_owned(), epoch);
            }
            Some(holdouts)
        } else {
            None
        };
        // Whoever is on a side of a holdout was drawn, whatever else happened to the request.
        let counted: Vec<bool> = strings(&reasons)
            .map(|reason| match plan.kind {
                Kind::Holdout => reason != "FORCED",
                _ => ASSIGNED.contains(&reason),
            })
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
            let mut side = None;
            if let Some(holdouts) = &holdouts {
                match holdouts.row(row) {
                    Standing::Arm(arm) => side = Some(arm),
                    Standing::OtherEpoch => {
                        self.part.counts.other_epochs += 1;
                        continue;
                    }
                    Standing::HeldElsewhere => {
                        self.part.counts.held_elsewhere += 1;
                        continue;
                    }
                    Standing::Outside => {
                        self.part.counts.other_experiments += 1;
                        continue;
                    }
                }
            } else {
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
                _ if side.is_some() => side.unwrap_or_default(),
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
            let served = match (&served, &served_arms) {
                // Whoever is held out is in no experiment; what the others got is what they are to be
                // compared with.
                _ if side.is_some() => {
                    let taken = key_at(&experiments, row).is_some_and(|key| named[key]);
                    if arm == 0 && taken { NO_ARM } else { arm }
                }
                (Some(words), Some(arms)) => {
                    key_at(words, row).map_or(arm, |key| arms[key].unwrap_or(NO_ARM))
                }
                _ => arm,
            };
            let weights = match &weights {
                // Those of the experiment of this request, not of the holdout.
                _ if side.is_some() => none_weights,
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
                *segment = word(versions + at);
            }
            let class = Class {
                arm,
                served,
                weights,
                digest,
                index_version: word(0),
                model_version: word(1),
                ranking: word(2),
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
            let exposure = id_hash(id);
            self.push(Record {
                unit,
                kind: record::EXPOSURE,
                code,
                ts,
                value: exposure,
                extra,
            })?;
            for (place, shown) in (0_u32..).zip(items.iter().flat_map(|items| items.row(row))) {
                let (Some(item), Some(team)) = (shown.item, shown.team) else {
                    continue;
                };
                let team = match team {
                    0 => 0,
                    1 => 1,
                    other => {
                        let problem = format!("has team {other}, which is neither 0 nor 1");
                        return Err(self.value(row, ITEMS, &problem));
                    }
                };
                self.put(Record {
                    unit,
                    kind: record::ITEM,
                    code: (place << 1) | team,
                    ts,
                    value: exposure,
                    extra: id_hash(item.as_bytes()),
                })?;
            }
        }
        Ok(())
    }

    pub(super) fn outcomes(&mut self, batch: &RecordBatch) -> Result<(), LogError> {
        let columns = Columns(batch);
        let arrow = |error| self.arrow(error);
        let units = self.must(columns.text("unit_id").map_err(arrow)?, "unit_id")?;
        let times = self.must(columns.times("ts").map_err(arrow)?, "ts")?;
        let events = self.must(columns.words("event").map_err(arrow)?, "event")?;
        let values = self.must(columns.numbers("value").map_err(arrow)?, "value")?;
        let ids = columns.bytes("outcome_id");
        let credits = if self.shared.plan.kind == Kind::Interleave {
            let exposures = columns.bytes("exposure_id");
            let items = columns.text("item").map_err(arrow)?;
            Some((
                self.must(exposures, "exposure_id")?,
                self.must(items, "item")?,
            ))
        } else {
            None
        };
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
            if let Some((exposures, items)) = &credits {
                let exposure = bytes_at(exposures, row);
                match exposure.filter(|_| items.is_valid(row) && value > 0.0) {
                    Some(exposure) => self.push(Record {
                        unit,
                        kind: record::CREDIT,
                        code,
                        ts,
                        value: id_hash(exposure),
                        extra: id_hash(items.value(row).as_bytes()),
                    })?,
                    None => self.part.counts.uncredited += 1,
                }
                continue;
            }
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

    pub(super) fn covariates(&mut self, batch: &RecordBatch) -> Result<(), LogError> {
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
            found: self.file.column_names(),
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
            source: refrain_tables::told(error),
        }
    }
}

/// The arm of a name in the log.
fn arm_of(plan: &Plan, name: &str) -> Option<u32> {
    if plan.kind == Kind::Interleave {
        return (name == INTERLEAVED).then_some(0);
    }
    plan.arms
        .iter()
        .zip(0..)
        .find(|(arm, _)| arm.name == name)
        .map(|(_, at)| at)
}

/// The distinct words of a dictionary, null as empty.
pub(super) fn strings(
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
