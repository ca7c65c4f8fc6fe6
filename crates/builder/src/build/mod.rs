//! `refrain build`: vectors become a sealed bundle.
//!
//! From a [`Model`] or a [`VectorSet`]: build the graph, calibrate its default `ef_search` on one
//! half of a sample of queries, measure recall on the other half, keep golden queries with their
//! exact answers, and seal it all with the items and the fold-in model.
//!
//! The same input, options and `create_time` give the same bytes, whatever the thread count.

mod checkpoint;
mod graph;
mod quality;
mod vectors;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rayon::ThreadPoolBuildError;
use refrain_bundle::bundle::{
    CALIBRATION_FILE, Draft, GOLDEN_FILE, INDEX_FILE, ITEMS_FILE, MODEL_FILE, NewModel, NewScenes,
    SCENES_FILE, SealError, write_golden, write_model, write_scenes,
};
use refrain_bundle::manifest::{IndexInfo, ModelInfo};
use refrain_bundle::section::{OpenMode, WriteError};
use refrain_bundle::{
    BundleWriter, FileDigest, Item, Manifest, SectionFile, write_items, write_sections,
};
use refrain_index::{BatchError, BuildParams, Hints, Index, Progress};
use refrain_kernels::Metric;
use serde_json::json;

pub use self::checkpoint::discard as discard_checkpoints;
pub use self::graph::Earlier;
pub use self::quality::{EvaluateError, IndexEvaluation, PoolSize, evaluate_index};
pub use self::vectors::{MAX_DIM, VectorSet, VectorsError};

use self::graph::Linked;
use self::quality::{Calibration, Queries};
use crate::cluster::SceneFile;
use crate::model::Model;

/// How to build.
#[derive(Debug, Clone)]
pub struct BuildOptions {
    /// What makes two vectors close.
    pub metric: Metric,
    /// Links of a node.
    pub m: usize,
    /// Pool size while building; `None`: as suits the number of items ([`BuildParams::suited_beam`]).
    pub ef_construction: Option<usize>,
    /// Threads; 0 for one a core. Has no influence on the result.
    pub threads: usize,
    /// Seed of the graph's levels and of the sample of queries.
    pub seed: u64,
    /// The bundle's time of creation, part of its version id. See [`create_time`].
    pub create_time: Timestamp,
    /// A bundle whose graph to start from: items that hardly moved keep their links. When the
    /// outcome finds 0.005 less than the last of its line that was linked in full, everything is
    /// linked anew.
    pub reuse: Option<Arc<Earlier>>,
    /// Where the graph is kept while it is linked, and how often: a build that was killed goes on from
    /// there. It stays until [discarded](discard_checkpoints).
    pub checkpoints: Option<(PathBuf, Duration)>,
    /// The version this one succeeds.
    pub parent: Option<String>,
    /// The scenes of the items, for caps and features of ranking and for the parts of an evaluation.
    pub scenes: Option<Arc<SceneFile>>,
    /// The command line, for the manifest.
    pub command: String,
}

impl BuildOptions {
    /// The defaults of `refrain build`: inner product, m 16, `ef_construction` as suits the number of items.
    pub fn new(create_time: Timestamp) -> Self {
        Self {
            metric: Metric::InnerProduct,
            m: 16,
            ef_construction: None,
            threads: 0,
            seed: 42,
            create_time,
            reuse: None,
            checkpoints: None,
            parent: None,
            scenes: None,
            command: "refrain build".into(),
        }
    }
}

/// What to build from.
#[derive(Debug, Clone, Copy)]
pub enum Source<'a> {
    /// A trained model: its item factors, asked for by its users.
    Model(&'a Model),
    /// Vectors from elsewhere: no users, no fold-in; items ask for their like.
    Vectors(&'a VectorSet),
}

/// A bundle was not built; nothing was left at its place.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// There is nothing to build from.
    #[error("there are no items to build an index from")]
    NoItems,
    /// The input has more of something than a bundle counts.
    #[error("{what} is {got}, more than a bundle holds")]
    TooLarge {
        /// What: "the number of items".
        what: &'static str,
        /// How much it is.
        got: usize,
    },
    /// The counts of a model disagree.
    #[error("the model has {got} {what} where {expected} are due")]
    Inconsistent {
        /// Of what.
        what: &'static str,
        /// How many there must be.
        expected: usize,
        /// How many there are.
        got: usize,
    },
    /// The graph was not built.
    #[error(transparent)]
    Index(#[from] refrain_index::BuildError),
    /// The bundle whose graph to start from cannot be used.
    #[error("cannot start from {}: {reason}", bundle.display())]
    Reuse {
        /// The bundle.
        bundle: PathBuf,
        /// Why.
        reason: String,
    },
    /// A checkpoint cannot be kept; the message has the path.
    #[error("cannot keep a checkpoint: {0}")]
    Checkpoint(std::io::Error),
    /// The graph that was just written does not open.
    #[error("the index does not open after writing: {0}")]
    Reopen(#[from] refrain_index::OpenError),
    /// The section file that was just written does not open.
    #[error(transparent)]
    Sections(#[from] refrain_bundle::OpenError),
    /// Scenes of other items, or of vectors of another dimension.
    #[error("the scenes are not of these items: {reason}")]
    Scenes {
        /// Why.
        reason: String,
    },
    /// A query was refused.
    #[error("a calibration query was refused: {0}")]
    Search(#[from] BatchError),
    /// The bundle was not sealed.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// No threads.
    #[error("cannot start threads: {0}")]
    Threads(#[from] ThreadPoolBuildError),
    /// `SOURCE_DATE_EPOCH` is set but is no time.
    #[error("SOURCE_DATE_EPOCH is {value:?}, expected whole seconds since 1970")]
    SourceDateEpoch {
        /// Its value.
        value: String,
    },
}

/// The time to give a bundle: `SOURCE_DATE_EPOCH` (seconds since 1970) when it is set, so that a
/// build can be repeated byte for byte; else now.
///
/// # Errors
/// [`BuildError::SourceDateEpoch`] when the variable is set to something else.
pub fn create_time() -> Result<Timestamp, BuildError> {
    let Some(value) = std::env::var_os("SOURCE_DATE_EPOCH") else {
        return Ok(Timestamp::now());
    };
    source_date_epoch(&value.to_string_lossy())
}

/// Builds a bundle at `out`, which must not exist. Returns its manifest.
///
/// # Errors
/// See [`BuildError`]; `out` does not exist then.
pub fn build(
    source: Source<'_>,
    out: &Path,
    options: &BuildOptions,
    progress: &dyn Progress,
) -> Result<Manifest, BuildError> {
    let input = Input::new(source)?;
    let writer = BundleWriter::create(out)?;
    let threads = match options.threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        given => given,
    };
    let params = BuildParams {
        metric: options.metric,
        m: options.m,
        ef_construction: options.ef_construction,
        seed: options.seed,
        threads,
    };
    let queries = Queries::sample(input.askers, input.dim, options.seed, input.shaping());
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(options.threads)
        .build()?;
    let Linked {
        sections,
        stats,
        reuse,
        asked,
    } = graph::link(&input, &params, options, &queries, &pool, progress)?;
    let mut index_path = None;
    let write_index = || {
        writer.add(INDEX_FILE, |path| {
            let sections: Vec<(&str, &[u8], bool)> = sections
                .iter()
                .map(|section| (section.name, &*section.bytes, section.hot))
                .collect();
            index_path = Some(path.to_owned());
            write_sections(path, &sections)
        })
    };
    let write_others = || {
        writer.add(ITEMS_FILE, |path| input.write_items(path))?;
        input.write_model(&writer, options.threads)
    };
    let (index, model) = pool.join(write_index, write_others);
    index?;
    let model = model?;
    drop(sections);

    // From here on the index is the one on disk: what is measured is what will be served.
    let file = SectionFile::open(&index_path.unwrap_or_default(), OpenMode::Map)?;
    let index = Index::open(&|name| file.section(name))?;
    let Calibration {
        ef_search,
        recall,
        points,
        golden,
    } = pool.install(|| quality::calibrate(&index, &queries, asked))?;
    writer.add(GOLDEN_FILE, |path| {
        let quality::Answers {
            k,
            ordinals,
            scores,
        } = &golden;
        write_golden(path, input.dim_u32, *k, queries.golden(), ordinals, scores)
    })?;
    // What scores mean was fitted on inner products.
    if options.metric == Metric::InnerProduct {
        input.write_calibration(&writer)?;
    }
    let scenes = match &options.scenes {
        Some(scenes) => Some(input.write_scenes(&writer, scenes)?),
        None => None,
    };
    let mut report = json!({
        "model": input.report(),
        "index": {
            "k": quality::K,
            "asked_by": input.asked_by,
            "calibration_queries": queries.calibration_len(),
            "held_out_queries": queries.held_out_len(),
            "target_recall": quality::TARGET_RECALL,
            "recall_at_10": recall,
            "reuse": reuse,
            "graph": {
                "links_an_item": (stats.mean_degree * 100.0).round() / 100.0,
                "copies": stats.copies,
                "attached": stats.repaired,
                "links_answers_lacked": stats.shaped,
            },
        },
    });
    if let Some(scenes) = scenes {
        report["scenes"] = scenes;
    }
    let manifest = writer.seal(Draft {
        parent: options.parent.clone(),
        create_time: options.create_time,
        items: input.items,
        users: input.users,
        dim: input.dim_u32,
        metric: options.metric.to_string(),
        data_watermark: input.watermark(),
        exclusion_watermark: input.exclusion_watermark(),
        index: IndexInfo {
            m: count(options.m, "m")?,
            ef_construction: count(index.params().ef_construction, "ef_construction")?,
            ef_search,
            recall_at_10: recall.map(|recall| recall.mean),
            calibration: points,
        },
        model,
        command: options.command.clone(),
        seed: options.seed,
        report,
    })?;
    Ok(manifest)
}

/// Either source as arrays.
struct Input<'a> {
    source: Source<'a>,
    /// Row after row, one an item.
    vectors: &'a [f32],
    /// The vectors that queries are drawn from.
    askers: &'a [f32],
    /// Who asks, for the report.
    asked_by: &'static str,
    dim: usize,
    dim_u32: u32,
    items: u32,
    users: u64,
}

impl<'a> Input<'a> {
    fn new(source: Source<'a>) -> Result<Self, BuildError> {
        let (vectors, askers, asked_by, dim, items, users) = match source {
            Source::Model(model) => {
                let (items, users, rank) = (model.items.len(), model.users.len(), model.info.rank);
                expect("item factors", items * rank, model.item_factors.len())?;
                expect("user factors", users * rank, model.user_factors.len())?;
                expect("counts of listeners", items, model.item_listeners.len())?;
                expect("attributes", items, model.item_attributes().count())?;
                (
                    &model.item_factors,
                    &model.user_factors,
                    "users",
                    rank,
                    items,
                    users,
                )
            }
            Source::Vectors(set) => {
                expect("values", set.ids.len() * set.dim, set.values.len())?;
                (&set.values, &set.values, "items", set.dim, set.ids.len(), 0)
            }
        };
        if items == 0 || dim == 0 {
            return Err(BuildError::NoItems);
        }
        Ok(Self {
            source,
            vectors,
            askers,
            asked_by,
            dim,
            dim_u32: count(dim, "the number of dimensions")?,
            items: count(items, "the number of items")?,
            users: users as u64,
        })
    }

    /// How many of those who ask are to shape the graph. Items do that in any case.
    fn shaping(&self) -> usize {
        match self.source {
            Source::Model(_) => Hints::most_users(self.items as usize),
            Source::Vectors(_) => 0,
        }
    }

    /// Of the items, in the order of their vectors.
    fn ids(&self) -> Box<dyn Iterator<Item = &str> + '_> {
        match self.source {
            Source::Model(model) => Box::new(model.items.iter()),
            Source::Vectors(set) => Box::new(set.ids.iter().map(String::as_str)),
        }
    }

    fn write_items(&self, path: &Path) -> Result<FileDigest, WriteError> {
        let model = match self.source {
            Source::Vectors(set) => {
                let item = |id| Item {
                    id,
                    ..Item::default()
                };
                let items: Vec<Item<'_>> = set.ids.iter().map(|id| item(id)).collect();
                return write_items(path, &items);
            }
            Source::Model(model) => model,
        };
        let tags: Vec<Vec<&str>> = model
            .item_attributes()
            .map(|attributes| attributes.tags.iter().map(String::as_str).collect())
            .collect();
        let rows = model
            .items
            .iter()
            .zip(model.item_attributes())
            .zip(&tags)
            .zip(&model.item_listeners);
        let items: Vec<Item<'_>> = rows
            .map(|(((id, attributes), tags), &listeners)| Item {
                id,
                title: &attributes.title,
                artist: Some(&*attributes.artist).filter(|artist| !artist.is_empty()),
                tags,
                release_time: attributes.release_time_s,
                popularity: listeners as f32,
                duration_ms: attributes.duration_ms,
                blocked: attributes.blocked,
            })
            .collect();
        write_items(path, &items)
    }

    fn write_model(
        &self,
        writer: &BundleWriter,
        threads: usize,
    ) -> Result<Option<ModelInfo>, SealError> {
        let Source::Model(model) = self.source else {
            return Ok(None);
        };
        let gram = refrain_als::gram(self.vectors, self.dim, threads);
        // What folds items in: users whose vectors nobody keeps still say how crowded the space is.
        let user_gram = refrain_als::gram(self.askers, self.dim, threads);
        let hyper = &model.info.hyper;
        let (rank, items) = (self.dim_u32, self.items);
        writer.add(MODEL_FILE, |path| {
            write_model(
                path,
                &NewModel {
                    rank,
                    items,
                    gram: &gram,
                    factors: self.vectors,
                    user_gram: Some(&user_gram),
                    hyper,
                },
            )
        })?;
        Ok(Some(ModelInfo {
            rank,
            hyper: hyper.clone(),
        }))
    }

    fn write_calibration(&self, writer: &BundleWriter) -> Result<(), SealError> {
        let Source::Model(model) = self.source else {
            return Ok(());
        };
        let Some(calibration) = &model.info.calibration else {
            return Ok(());
        };
        let bytes = calibration.to_bytes().map_err(std::io::Error::from)?;
        writer.add(CALIBRATION_FILE, |path| {
            fs_err::write(path, &bytes)?;
            fs_err::File::open(path)?.sync_all()?;
            Ok(FileDigest::of(&bytes))
        })
    }

    /// Adds the scenes; returns what the report says of them.
    fn write_scenes(
        &self,
        writer: &BundleWriter,
        scenes: &SceneFile,
    ) -> Result<serde_json::Value, BuildError> {
        let of = scenes.of_items(self.ids());
        let placed = of.iter().flatten().count();
        if placed == 0 {
            let reason = format!("none of their {} items is there", scenes.of.len());
            return Err(BuildError::Scenes { reason });
        }
        let rules = &scenes.rules;
        if !rules.thresholds.is_empty() && rules.dim != self.dim_u32 {
            let reason = format!(
                "their rules place vectors of {} values, these have {}",
                rules.dim, self.dim_u32
            );
            return Err(BuildError::Scenes { reason });
        }
        writer.add(SCENES_FILE, |path| {
            write_scenes(
                path,
                &NewScenes {
                    paths: &scenes.paths,
                    labels: &scenes.labels,
                    of: &of,
                    rules,
                },
            )
        })?;
        Ok(json!({
            "scenes": scenes.paths.len(),
            "items_placed": placed,
            "items_elsewhere": scenes.of.len() - placed,
            "rules": rules.thresholds.len(),
        }))
    }

    fn watermark(&self) -> Option<Timestamp> {
        let Source::Model(model) = self.source else {
            return None;
        };
        Timestamp::from_microsecond(model.info.watermark_us?).ok()
    }

    fn exclusion_watermark(&self) -> Option<Timestamp> {
        let Source::Model(model) = self.source else {
            return None;
        };
        Timestamp::from_microsecond(model.info.exclusion_watermark_us?).ok()
    }

    fn report(&self) -> serde_json::Value {
        match self.source {
            Source::Model(model) => model.info.report.clone(),
            Source::Vectors(_) => serde_json::Value::Null,
        }
    }
}

fn source_date_epoch(value: &str) -> Result<Timestamp, BuildError> {
    let time = value
        .parse()
        .ok()
        .and_then(|seconds| Timestamp::from_second(seconds).ok());
    time.ok_or_else(|| BuildError::SourceDateEpoch {
        value: value.to_owned(),
    })
}

fn expect(what: &'static str, expected: usize, got: usize) -> Result<(), BuildError> {
    if expected == got {
        Ok(())
    } else {
        Err(BuildError::Inconsistent {
            what,
            expected,
            got,
        })
    }
}

fn count(got: usize, what: &'static str) -> Result<u32, BuildError> {
    u32::try_from(got).map_err(|_| BuildError::TooLarge { what, got })
}

#[cfg(test)]
mod tests;
