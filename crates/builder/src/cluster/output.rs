//! The scene of every item as Parquet, and the hierarchy as JSON.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::builder::StringBuilder;
use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_schema::{DataType, Field, Schema};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use refrain_bundle::bundle::{MAX_SCENES, SceneRules};
use refrain_bundle::items::MAX_ID_BYTES;
use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};

use super::{ClusterOptions, Hierarchy, Nearness, Scene, Split};
use crate::files::{WholeFile, write_whole};

/// Key of the scenes and rules in the file's metadata.
const SCENES: &str = "refrain.scenes";
/// Items written, or read, at a time.
const BATCH_ROWS: usize = 8_192;
/// Longest path or label in bytes, as a bundle holds them.
const MAX_TEXT_BYTES: usize = 1_024;
const FORMAT: u32 = 1;

/// The hierarchy, for programs and people. The same for the same input, options and seed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClusterReport {
    /// Version of this layout.
    pub format: u32,
    /// Items.
    pub items: u64,
    /// Items that have a scene.
    pub placed: u64,
    /// How vectors were compared.
    pub by: Nearness,
    /// How it was asked for.
    pub options: ClusterOptions,
    /// Share of the items that the rules place where they are, 0 to 1.
    pub fidelity: f64,
    /// How the catalogue falls apart.
    pub split: Option<Split>,
    /// All scenes, parents before their children.
    pub scenes: Vec<Scene>,
}

impl ClusterReport {
    /// Of what [`super::cluster`] found.
    #[must_use]
    pub fn new(found: &Hierarchy, split: Option<Split>, options: &ClusterOptions) -> Self {
        Self {
            format: FORMAT,
            items: found.of.len() as u64,
            placed: found.of.iter().flatten().count() as u64,
            by: found.by,
            options: *options,
            fidelity: found.fidelity,
            split,
            scenes: found.scenes.clone(),
        }
    }
}

/// Writes the report as JSON, whole or not at all.
///
/// # Errors
/// The message has the path.
pub fn write_report(path: &Path, report: &ClusterReport) -> io::Result<()> {
    let mut bytes = serde_json::to_vec_pretty(report).map_err(io::Error::from)?;
    bytes.push(b'\n');
    write_whole(path, &bytes)
}

/// What the metadata of a file of scenes says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Metadata {
    format: u32,
    paths: Vec<String>,
    labels: Vec<String>,
    rules: SceneRules,
}

/// Scenes of items, as a file has them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SceneFile {
    /// Path of each scene.
    pub paths: Vec<String>,
    /// What people may call it; empty for none.
    pub labels: Vec<String>,
    /// The scene of each item by id; items without one are not here.
    pub of: FxHashMap<String, u32>,
    /// How to place further items; empty when the file does not say.
    pub rules: SceneRules,
}

/// A file of scenes that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SceneFileError {
    /// The file cannot be read or written; the message has the path.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It is not a file of scenes.
    #[error("{}: {problem}", file.display())]
    Format {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A row that cannot be.
    #[error("{}: row {row}: {problem}", file.display())]
    Row {
        /// The file.
        file: PathBuf,
        /// Row, from 1.
        row: u64,
        /// What is wrong.
        problem: String,
    },
}

/// Writes the scene of every item: columns `item_id`, `scene` (its path), `top` (the path's first part) and
/// `label`, the last three null for an item without a scene; scenes and rules in the metadata. Whole or not
/// at all.
///
/// # Errors
/// The file cannot be written.
pub fn write_scene_file(
    path: &Path,
    ids: &[&str],
    of: &[Option<u32>],
    paths: &[String],
    labels: &[String],
    rules: &SceneRules,
) -> Result<(), SceneFileError> {
    let bad = |error: ParquetError| SceneFileError::Format {
        file: path.to_owned(),
        problem: error.to_string(),
    };
    let metadata = Metadata {
        format: FORMAT,
        paths: paths.to_vec(),
        labels: labels.to_vec(),
        rules: rules.clone(),
    };
    let metadata = serde_json::to_string(&metadata).map_err(io::Error::from)?;
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_created_by("refrain cluster".to_owned())
        .set_key_value_metadata(Some(vec![KeyValue::new(SCENES.to_owned(), metadata)]))
        .build();
    let field = |name: &str, nullable| Field::new(name, DataType::Utf8, nullable);
    let schema = Arc::new(Schema::new(vec![
        field("item_id", false),
        field("scene", true),
        field("top", true),
        field("label", true),
    ]));
    let file = WholeFile::create(path)?;
    let mut writer =
        ArrowWriter::try_new(file.handle()?, Arc::clone(&schema), Some(properties)).map_err(bad)?;
    for (ids, of) in ids.chunks(BATCH_ROWS).zip(of.chunks(BATCH_ROWS)) {
        let mut columns: [StringBuilder; 4] = Default::default();
        for (id, of) in ids.iter().zip(of) {
            let scene = of.and_then(|of| Some((paths.get(of as usize)?, labels.get(of as usize)?)));
            let top = scene.map(|(path, _)| path.split('.').next().unwrap_or_default());
            columns[0].append_value(id);
            columns[1].append_option(scene.map(|(path, _)| path));
            columns[2].append_option(top);
            columns[3].append_option(scene.map(|(_, label)| label));
        }
        let columns = columns.map(|mut column| Arc::new(column.finish()) as ArrayRef);
        let batch = RecordBatch::try_new(Arc::clone(&schema), columns.to_vec())
            .map_err(|error| bad(error.into()))?;
        writer.write(&batch).map_err(bad)?;
    }
    writer.close().map_err(bad)?;
    file.keep()?;
    Ok(())
}

impl SceneFile {
    /// Reads a Parquet file with columns `item_id` and `scene`, and perhaps `label`: what
    /// [`write_scene_file`] wrote, or any other with one row an item. Rows without a scene are passed over.
    ///
    /// # Errors
    /// [`SceneFileError`] names the row.
    pub fn read(path: &Path) -> Result<Self, SceneFileError> {
        let bad = |problem: String| SceneFileError::Format {
            file: path.to_owned(),
            problem,
        };
        let file = fs_err::File::open(path)?.into_parts().0;
        let builder = refrain_tables::open(file).map_err(|error| bad(error.to_string()))?;
        let metadata = builder.metadata().file_metadata().key_value_metadata();
        let said = metadata
            .into_iter()
            .flatten()
            .find(|pair| pair.key == SCENES)
            .and_then(|pair| pair.value.as_deref());
        let mut this = Self::default();
        let mut known = FxHashMap::default();
        let closed = said.is_some();
        if let Some(said) = said {
            let Metadata {
                format,
                paths,
                labels,
                rules,
            } = serde_json::from_str(said).map_err(|error| bad(format!("{SCENES}: {error}")))?;
            if format != FORMAT {
                return Err(bad(format!("{SCENES}: format {format}, not {FORMAT}")));
            }
            known = paths.iter().cloned().zip(0u32..).collect();
            if known.len() != paths.len() || labels.len() != paths.len() {
                return Err(bad(format!("{SCENES}: a scene has one path and one label")));
            }
            let count = u32::try_from(paths.len()).unwrap_or(u32::MAX);
            if let Some((rule, problem)) = rules.problem(count) {
                return Err(bad(format!("{SCENES}: rule {rule}: {problem}")));
            }
            (this.paths, this.labels, this.rules) = (paths, labels, rules);
        }
        let column = |name: &str| {
            let mut fields = builder.schema().fields().iter();
            fields.position(|field| field.name().eq_ignore_ascii_case(name))
        };
        let missing = |name: &str| bad(format!("there is no column {name:?}"));
        let id = column("item_id").ok_or_else(|| missing("item_id"))?;
        let scene = column("scene").ok_or_else(|| missing("scene"))?;
        let label = column("label");
        let batches = refrain_tables::batches(builder.with_batch_size(BATCH_ROWS))
            .map_err(|error| bad(error.to_string()))?;
        let mut row = 0u64;
        for batch in batches {
            let batch = batch.map_err(|error| bad(error.to_string()))?;
            let text = |at: usize| {
                arrow_cast::cast(batch.column(at), &DataType::LargeUtf8)
                    .map_err(|error| bad(error.to_string()))
            };
            let (ids, scenes) = (text(id)?, text(scene)?);
            let labels = label.map(text).transpose()?;
            for at in 0..batch.num_rows() {
                row += 1;
                let text = |column: &ArrayRef| {
                    let column = column.as_string::<i64>();
                    (!column.is_null(at)).then(|| column.value(at).to_owned())
                };
                let label = labels.as_ref().and_then(text).unwrap_or_default();
                this.add(text(&ids), text(&scenes), label, closed, &mut known)
                    .map_err(|problem| SceneFileError::Row {
                        file: path.to_owned(),
                        row,
                        problem,
                    })?;
            }
        }
        Ok(this)
    }

    fn add(
        &mut self,
        id: Option<String>,
        scene: Option<String>,
        label: String,
        closed: bool,
        known: &mut FxHashMap<String, u32>,
    ) -> Result<(), String> {
        let id = id.ok_or("the id is missing")?;
        if !(1..=MAX_ID_BYTES).contains(&id.len()) {
            return Err(format!("an id has 1 to {MAX_ID_BYTES} bytes"));
        }
        let Some(path) = scene else { return Ok(()) };
        let number = match known.get(&path) {
            Some(&number) => number,
            None if closed => return Err(format!("scene {path:?} is none of the file's scenes")),
            None => {
                let long = |text: &str| text.len() > MAX_TEXT_BYTES;
                if path.is_empty() || long(&path) || long(&label) {
                    return Err(format!(
                        "a scene has 1 to {MAX_TEXT_BYTES} bytes, a label at most as many"
                    ));
                }
                if self.paths.len() == MAX_SCENES {
                    return Err(format!("more than {MAX_SCENES} different scenes"));
                }
                let number = u32::try_from(self.paths.len()).unwrap_or(u32::MAX);
                known.insert(path.clone(), number);
                self.paths.push(path);
                self.labels.push(label);
                number
            }
        };
        if self.of.contains_key(&id) {
            return Err(format!("item {id:?} has a scene already"));
        }
        self.of.insert(id, number);
        Ok(())
    }

    /// The scene of each item of a catalogue, in its order.
    #[must_use]
    pub fn of_items<'s>(&self, ids: impl Iterator<Item = &'s str>) -> Vec<Option<u32>> {
        ids.map(|id| self.of.get(id).copied()).collect()
    }
}
