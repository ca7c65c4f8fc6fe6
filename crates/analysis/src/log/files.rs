//! Which files make a log, and whether they have the columns that are needed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use arrow_schema::{DataType, Field, Schema};
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use refrain_experiments::schema::{DROPPED_KEY, FAILED_KEY};
use std::sync::Arc;

use crate::plan::Plan;

use super::error::LogError;
use super::holdout::HOLDOUTS;

/// Counts by experiment and arm.
type ByArm = BTreeMap<String, BTreeMap<String, u64>>;

/// The files of a log, each with its footer read and its columns checked.
#[derive(Debug)]
pub struct LogFiles {
    pub(crate) exposures: Vec<LogFile>,
    pub(crate) outcomes: Vec<LogFile>,
    pub(crate) covariates: Vec<LogFile>,
}

/// One Parquet file.
#[derive(Debug, Clone)]
pub(crate) struct LogFile {
    pub(crate) path: PathBuf,
    pub(crate) metadata: ArrowReaderMetadata,
    /// Rows that its writer dropped.
    dropped: ByArm,
    /// Requests that failed meanwhile.
    failed: ByArm,
}

/// A column that a table must or may have.
pub(crate) struct Needed {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) required: bool,
}

/// What a column is read as.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    Time,
    Integer,
    Number,
    Flag,
    Bytes,
    Floats,
}

impl Needed {
    pub(crate) const fn required(name: &'static str, kind: Kind) -> Self {
        Self {
            name,
            kind,
            required: true,
        }
    }

    pub(crate) const fn optional(name: &'static str, kind: Kind) -> Self {
        Self {
            name,
            kind,
            required: false,
        }
    }
}

/// Reasons of rows whose arm was assigned: drawn here, drawn but answered by less than it asked for, or given with the
/// request by whoever assigns.
pub(crate) const ASSIGNED: [&str; 3] = ["SPLIT", "DEGRADED", "EXTERNAL"];

pub(crate) const EXPOSURES: &[Needed] = &[
    Needed::required("exposure_id", Kind::Bytes),
    Needed::required("ts", Kind::Time),
    Needed::required("unit_id", Kind::Text),
    Needed::required("experiment", Kind::Text),
    Needed::required("exp_epoch", Kind::Integer),
    Needed::required("variant", Kind::Text),
    Needed::required("reason", Kind::Text),
    Needed::optional("served_variant", Kind::Text),
    Needed::optional("forced", Kind::Flag),
    Needed::optional("bot_flag", Kind::Flag),
    Needed::optional("empty", Kind::Flag),
    Needed::optional("degraded", Kind::Integer),
    Needed::optional("latency_us", Kind::Integer),
    Needed::optional("weights", Kind::Floats),
    Needed::optional("config_digest", Kind::Bytes),
    Needed::optional("index_version", Kind::Text),
    Needed::optional("model_version", Kind::Text),
    Needed::optional("ranking_variant", Kind::Text),
    // Read for a holdout.
    Needed::optional(HOLDOUTS, Kind::Text),
];

pub(crate) const OUTCOMES: &[Needed] = &[
    Needed::required("ts", Kind::Time),
    Needed::required("unit_id", Kind::Text),
    Needed::required("event", Kind::Text),
    Needed::required("value", Kind::Number),
    Needed::optional("outcome_id", Kind::Bytes),
    // Read where lists are judged item by item.
    Needed::optional("exposure_id", Kind::Bytes),
    Needed::optional("item", Kind::Text),
];

pub(crate) const COVARIATES: &[Needed] = &[
    Needed::required("unit_id", Kind::Text),
    Needed::required("as_of", Kind::Time),
    Needed::required("name", Kind::Text),
    Needed::required("value", Kind::Number),
];

pub(crate) const SHADOWS: &[Needed] = &[
    Needed::required("ts", Kind::Time),
    Needed::required("unit_id", Kind::Text),
    Needed::required("ranking_variant", Kind::Text),
    Needed::required("served_variant", Kind::Text),
    Needed::required("overlap", Kind::Number),
    Needed::required("rbo", Kind::Number),
    Needed::required("latency_us", Kind::Integer),
    Needed::required("served_latency_us", Kind::Integer),
    Needed::optional("error", Kind::Text),
];

impl LogFiles {
    /// Finds `exposures`, `outcomes` and `covariates` under a folder, at any depth, in the order of
    /// their paths. Names that begin with `.` or `_` or end in `.tmp` or `.partial` are still being
    /// written, and skipped. Reads every footer.
    ///
    /// # Errors
    /// [`LogError`]: no exposures, a file that is no whole Parquet file, a column that is missing or
    /// has the wrong type.
    pub fn open(root: &Path, segments: &[String]) -> Result<Self, LogError> {
        let files = Self {
            exposures: open_all(root, "exposures", EXPOSURES, segments)?,
            outcomes: open_all(root, "outcomes", OUTCOMES, &[])?,
            covariates: open_all(root, "covariates", COVARIATES, &[])?,
        };
        if files.exposures.is_empty() {
            return Err(LogError::NoExposures {
                path: root.to_owned(),
            });
        }
        Ok(files)
    }

    /// The files of another table of the log; none is no error.
    ///
    /// # Errors
    /// As [`LogFiles::open`].
    pub(crate) fn table(
        root: &Path,
        name: &str,
        needed: &[Needed],
    ) -> Result<Vec<LogFile>, LogError> {
        open_all(root, name, needed, &[])
    }

    /// Rows of all files together.
    #[must_use]
    pub fn rows(&self) -> u64 {
        [&self.exposures, &self.outcomes, &self.covariates]
            .into_iter()
            .flatten()
            .map(LogFile::rows)
            .sum()
    }

    /// How many files there are of exposures, outcomes and covariates.
    #[must_use]
    pub fn counts(&self) -> [usize; 3] {
        [
            self.exposures.len(),
            self.outcomes.len(),
            self.covariates.len(),
        ]
    }

    /// Rows that writers say they dropped, by arm of an experiment. Those of a holdout may be of any
    /// experiment, or of none.
    pub(crate) fn dropped(&self, plan: &Plan) -> BTreeMap<String, u64> {
        let any = plan.kind == crate::plan::Kind::Holdout;
        self.by_arm(
            |file| &file.dropped,
            |experiment| any || experiment == plan.experiment,
        )
    }

    /// Requests that writers say failed, by arm of an experiment.
    pub(crate) fn failed(&self, plan: &Plan) -> BTreeMap<String, u64> {
        self.by_arm(
            |file| &file.failed,
            |experiment| experiment == plan.experiment,
        )
    }

    fn by_arm(
        &self,
        counts: impl Fn(&LogFile) -> &ByArm,
        of: impl Fn(&str) -> bool,
    ) -> BTreeMap<String, u64> {
        let mut sum = BTreeMap::new();
        let all = self.exposures.iter().flat_map(counts);
        for (_, arms) in all.filter(|(experiment, _)| of(experiment)) {
            for (arm, count) in arms {
                *sum.entry(arm.clone()).or_insert(0) += count;
            }
        }
        sum
    }
}

impl LogFile {
    pub(crate) fn open(
        path: PathBuf,
        needed: &[Needed],
        segments: &[String],
    ) -> Result<Self, LogError> {
        let broken = |source| LogError::Parquet {
            path: path.clone(),
            row_group: None,
            source,
        };
        let file = fs_err::File::open(&path)?;
        let plain =
            refrain_tables::footer(file.file(), ArrowReaderOptions::new()).map_err(broken)?;
        let schema = plain.schema();
        for column in needed {
            check(&path, schema, column.name, column.kind, column.required)?;
        }
        for segment in segments {
            check(&path, schema, segment, Kind::Text, true)?;
        }
        let told = |key: &str| -> ByArm {
            let pairs = plain.metadata().file_metadata().key_value_metadata();
            pairs
                .into_iter()
                .flatten()
                .find(|pair| pair.key == key)
                .and_then(|pair| pair.value.as_deref())
                .and_then(|value| serde_json::from_str(value).ok())
                .unwrap_or_default()
        };
        let (dropped, failed) = (told(DROPPED_KEY), told(FAILED_KEY));
        // Low-cardinality text comes as a dictionary: each value is looked at once a batch.
        let wanted = Schema::new(
            schema
                .fields()
                .iter()
                .map(|field| Arc::new(as_dictionary(field, needed, segments)))
                .collect::<Vec<_>>(),
        );
        let metadata = refrain_tables::footer(
            file.file(),
            ArrowReaderOptions::new().with_schema(Arc::new(wanted)),
        )
        .unwrap_or(plain);
        Ok(Self {
            path,
            metadata,
            dropped,
            failed,
        })
    }

    pub(crate) fn rows(&self) -> u64 {
        u64::try_from(self.metadata.metadata().file_metadata().num_rows()).unwrap_or(0)
    }

    pub(crate) fn has_column(&self, name: &str) -> bool {
        self.metadata.schema().field_with_name(name).is_ok()
    }

    /// For the message that one is missing.
    pub(crate) fn column_names(&self) -> String {
        names(self.metadata.schema())
    }

    pub(crate) fn row_groups(&self) -> usize {
        self.metadata.metadata().num_row_groups()
    }
}

fn as_dictionary(field: &Field, needed: &[Needed], segments: &[String]) -> Field {
    let few = !matches!(field.name().as_str(), "unit_id" | "item")
        && (segments.contains(field.name())
            || needed
                .iter()
                .any(|n| n.name == field.name() && n.kind == Kind::Text));
    if few && *field.data_type() == DataType::Utf8 {
        let dictionary = DataType::Dictionary(DataType::Int32.into(), DataType::Utf8.into());
        field.clone().with_data_type(dictionary)
    } else {
        field.clone()
    }
}

/// Whether a column is there and can be read as `kind`.
pub(crate) fn check(
    path: &Path,
    schema: &Schema,
    name: &str,
    kind: Kind,
    required: bool,
) -> Result<(), LogError> {
    let Ok(field) = schema.field_with_name(name) else {
        if !required {
            return Ok(());
        }
        return Err(LogError::MissingColumn {
            path: path.to_owned(),
            column: name.to_owned(),
            found: names(schema),
        });
    };
    let found = field.data_type();
    let values = match found {
        DataType::Dictionary(_, values) => values.as_ref(),
        other => other,
    };
    let fits = match kind {
        Kind::Text => matches!(
            values,
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View
        ),
        Kind::Time => matches!(found, DataType::Timestamp(..)),
        Kind::Integer => found.is_integer(),
        Kind::Number => found.is_numeric(),
        Kind::Flag => *found == DataType::Boolean,
        Kind::Bytes => matches!(found, DataType::FixedSizeBinary(_) | DataType::Binary),
        Kind::Floats => matches!(found, DataType::List(item) if item.data_type().is_floating()),
    };
    if fits {
        return Ok(());
    }
    Err(LogError::ColumnType {
        path: path.to_owned(),
        column: name.to_owned(),
        found: found.to_string(),
        wanted: match kind {
            Kind::Text => "text (Utf8, plain or dictionary)",
            Kind::Time => "a timestamp",
            Kind::Integer => "a whole number",
            Kind::Number => "a number",
            Kind::Flag => "a boolean",
            Kind::Bytes => "bytes (FixedSizeBinary)",
            Kind::Floats => "a list of floats",
        },
    })
}

fn names(schema: &Schema) -> String {
    let names: Vec<&str> = schema
        .fields()
        .iter()
        .map(|f| f.name().as_str())
        .take(40)
        .collect();
    names.join(", ")
}

/// All files of a table, in the order of their paths.
fn open_all(
    root: &Path,
    name: &str,
    needed: &[Needed],
    segments: &[String],
) -> Result<Vec<LogFile>, LogError> {
    let mut paths = Vec::new();
    let folder = root.join(name);
    if folder.is_dir() {
        find(&folder, &mut paths)?;
    }
    paths.sort();
    paths
        .into_iter()
        .map(|path| LogFile::open(path, needed, segments))
        .collect()
}

fn find(folder: &Path, paths: &mut Vec<PathBuf>) -> Result<(), LogError> {
    for entry in fs_err::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with(['.', '_']) {
            continue;
        }
        if path.is_dir() {
            find(&path, paths)?;
        } else if name.ends_with(".parquet") {
            paths.push(path);
        }
    }
    Ok(())
}
