//! What was shown, item by item: the lists of the arms beside each other (`lists`), and what another
//! policy would have earned with the answers that were drawn at random (`off_policy`).
//!
//! Both read the column `items` of the exposures in a pass of their own, after the verdict: neither
//! decides anything.

pub(crate) mod lists;
pub mod off_policy;

use arrow_array::cast::AsArray as _;
use arrow_array::types::Int32Type;
use arrow_array::{Array as _, BooleanArray, DictionaryArray, Int64Array, RecordBatch};
use arrow_schema::ArrowError;
use parquet::errors::ParquetError;

use crate::log::LogError;
use crate::log::columns::{Columns, key_at};
use crate::log::files::{ASSIGNED, LogFile};
use crate::log::holdout::{HOLDOUTS, Holdouts, Standing};
use crate::plan::{INTERLEAVED, Kind, Plan};

/// Columns that say whether an exposure is one of the experiment's, and of which arm.
pub(crate) const BELONGS: [&str; 7] = [
    "experiment",
    "exp_epoch",
    "variant",
    "reason",
    "forced",
    "bot_flag",
    HOLDOUTS,
];

/// Which rows of a batch of exposures are an experiment's.
pub(crate) struct Belongs<'a> {
    plan: &'a Plan,
    experiments: DictionaryArray<Int32Type>,
    epochs: Int64Array,
    variants: DictionaryArray<Int32Type>,
    reasons: DictionaryArray<Int32Type>,
    forced: Option<BooleanArray>,
    bots: Option<BooleanArray>,
    holdouts: Option<Holdouts>,
}

impl<'a> Belongs<'a> {
    pub(crate) fn new(
        plan: &'a Plan,
        place: &Place<'_>,
        batch: &RecordBatch,
    ) -> Result<Self, LogError> {
        let columns = Columns(batch);
        let words = |name: &str| place.column(columns.words(name), name);
        Ok(Self {
            plan,
            experiments: words("experiment")?,
            epochs: place.column(columns.integers("exp_epoch"), "exp_epoch")?,
            variants: words("variant")?,
            reasons: words("reason")?,
            forced: columns.flags("forced"),
            bots: columns.flags("bot_flag"),
            holdouts: match plan.kind {
                Kind::Holdout => Some(Holdouts::new(plan, words(HOLDOUTS)?)),
                _ => None,
            },
        })
    }

    /// The arm of a row; `None` where the row is not to be analysed.
    pub(crate) fn arm(&self, row: usize) -> Option<usize> {
        let plan = self.plan;
        let flagged = |flags: &Option<BooleanArray>| {
            flags
                .as_ref()
                .is_some_and(|flags| flags.is_valid(row) && flags.value(row))
        };
        let passed = !(flagged(&self.forced) || plan.policy.drop_flagged && flagged(&self.bots));
        if let Some(holdouts) = &self.holdouts {
            return match holdouts.row(row) {
                Standing::Arm(arm) if passed => usize::try_from(arm).ok(),
                _ => None,
            };
        }
        if word(&self.experiments, row)? != plan.experiment
            || !self.epochs.is_valid(row)
            || self.epochs.value(row) != i64::from(plan.epoch)
            || !ASSIGNED.contains(&word(&self.reasons, row)?)
            || !passed
        {
            return None;
        }
        let name = word(&self.variants, row)?;
        if plan.kind == Kind::Interleave {
            return (name == INTERLEAVED).then_some(0);
        }
        plan.arms.iter().position(|arm| arm.name == name)
    }
}

/// The word of a row.
pub(crate) fn word(words: &DictionaryArray<Int32Type>, row: usize) -> Option<&str> {
    let key = key_at(words, row)?;
    let values = words.values().as_string::<i32>();
    values.is_valid(key).then(|| values.value(key))
}

/// Where a batch stands, for errors.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) file: &'a LogFile,
    pub(crate) group: usize,
    /// Rows of the group before the batch.
    pub(crate) row: usize,
}

impl Place<'_> {
    /// A column that must be there.
    pub(crate) fn column<T>(
        &self,
        column: Result<Option<T>, ArrowError>,
        name: &str,
    ) -> Result<T, LogError> {
        column
            .map_err(|error| LogError::Parquet {
                path: self.file.path.clone(),
                row_group: Some(self.group),
                source: ParquetError::ArrowError(error.to_string()),
            })?
            .ok_or_else(|| LogError::MissingColumn {
                path: self.file.path.clone(),
                column: name.to_owned(),
                found: self.file.column_names(),
            })
    }

    /// A value that cannot be meant.
    pub(crate) fn value(&self, row: usize, column: &str, problem: String) -> LogError {
        LogError::Value {
            path: self.file.path.clone(),
            row_group: self.group,
            row: self.row + row + 1,
            column: column.to_owned(),
            problem,
        }
    }
}

/// All row groups of some files, in order.
pub(crate) fn groups(files: &[LogFile]) -> Vec<(&LogFile, usize)> {
    files
        .iter()
        .flat_map(|file| (0..file.row_groups()).map(move |group| (file, group)))
        .collect()
}
