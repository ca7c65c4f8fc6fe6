//! The graph of a bundle: linked anew, or started from the graph of an earlier bundle.

use std::path::Path;

use rayon::ThreadPool;
use refrain_bundle::Bundle;
use refrain_bundle::section::OpenMode;
use refrain_index::{
    BuildParams, BuildStats, Checkpoints, Hints, Index, Parent, Progress, Section, build_resumable,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::checkpoint::Checkpoint;
use super::quality::{Asked, Queries, TARGET_RECALL};
use super::{BuildError, BuildOptions, Input};

/// How much less recall a reused graph may have than the last one that was linked in full. Not than
/// its parent: what a hundred generations lose a little each, the parent of each has lost as well.
const MARGIN: f64 = 0.005;

/// A graph, and what became of the parent it was to start from.
pub(super) struct Linked {
    pub(super) sections: Vec<Section>,
    pub(super) stats: BuildStats,
    /// For the report; null where no parent was given.
    pub(super) reuse: Value,
    /// What it answered, where it was asked.
    pub(super) asked: Option<Asked>,
}

/// Links the items of `input`.
pub(super) fn link(
    input: &Input<'_>,
    params: &BuildParams,
    options: &BuildOptions,
    queries: &Queries,
    pool: &ThreadPool,
    progress: &dyn Progress,
) -> Result<Linked, BuildError> {
    let mut told = Value::Null;
    if let Some(earlier) = &options.reuse {
        let checkpoint = checkpoint(input, params, options, Some(earlier.bundle.version()))?;
        let users = queries.shaping();
        let built = earlier.build(input, users, params, (progress, &*checkpoint))?;
        let stats = built.stats();
        let sections = built.into_sections();
        let reference = earlier.reference();
        let index = open(&sections)?;
        let asked = pool.install(|| Asked::at(&index, queries, reference.ef_search))?;
        let recall = asked.as_ref().map(Asked::recall);
        let floor = reference.recall_at_10 - MARGIN;
        told = json!({
            "version": earlier.bundle.version(),
            "linked": stats.linked,
            "recall_at_10": recall,
            "reference": reference,
            "refused": recall.is_some_and(|recall| recall.mean < floor),
        });
        if told["refused"] == false {
            return Ok(Linked {
                sections,
                stats,
                reuse: told,
                asked,
            });
        }
    }
    let checkpoint = checkpoint(input, params, options, None)?;
    let (vectors, dim) = (input.vectors, input.dim);
    let hints = Hints {
        parent: None,
        users: queries.shaping(),
    };
    let built = build_resumable(vectors, dim, params, hints, progress, &*checkpoint)?;
    Ok(Linked {
        stats: built.stats(),
        sections: built.into_sections(),
        reuse: told,
        asked: None,
    })
}

/// Where this graph is kept while it is linked.
fn checkpoint(
    input: &Input<'_>,
    params: &BuildParams,
    options: &BuildOptions,
    parent: Option<&str>,
) -> Result<Box<dyn Checkpoints>, BuildError> {
    let Some((dir, every)) = &options.checkpoints else {
        return Ok(Box::new(()));
    };
    let checkpoint = Checkpoint::new(dir, *every, input, params, parent);
    Ok(Box::new(checkpoint.map_err(BuildError::Checkpoint)?))
}

/// What a reused graph is measured against.
#[derive(Serialize, Deserialize)]
struct Reference {
    version: String,
    ef_search: u32,
    recall_at_10: f64,
}

/// A bundle whose graph another one is started from.
#[derive(Debug)]
pub struct Earlier {
    bundle: Bundle,
    index: Index,
}

impl Earlier {
    /// Opens and checks it: a damaged graph would be carried on from version to version. `O(links)`.
    ///
    /// # Errors
    /// [`BuildError::Reuse`].
    pub fn open(dir: &Path) -> Result<Self, BuildError> {
        let unusable = |reason: String| BuildError::Reuse {
            bundle: dir.to_owned(),
            reason,
        };
        let bundle =
            Bundle::open(dir, OpenMode::Map).map_err(|error| unusable(error.to_string()))?;
        let file = bundle.index_sections();
        let index = Index::open(&|name| file.section(name));
        let index = index.map_err(|error| unusable(error.to_string()))?;
        index.check().map_err(|error| unusable(error.to_string()))?;
        Ok(Self { bundle, index })
    }

    fn build(
        &self,
        input: &Input<'_>,
        users: &[f32],
        params: &BuildParams,
        (progress, checkpoints): (&dyn Progress, &dyn Checkpoints),
    ) -> Result<refrain_index::BuiltIndex, BuildError> {
        let ids = input.ids();
        let origin: Vec<Option<u32>> = ids.map(|id| self.bundle.items().ordinal(id)).collect();
        let parent = Parent {
            index: &self.index,
            origin: &origin,
        };
        let hints = Hints {
            parent: Some(parent),
            users,
        };
        let (vectors, dim) = (input.vectors, input.dim);
        let built = build_resumable(vectors, dim, params, hints, progress, checkpoints)?;
        Ok(built)
    }

    /// What the last bundle of its line that was linked in full was measured with.
    fn reference(&self) -> Reference {
        let manifest = self.bundle.manifest();
        let reuse = &manifest.report["index"]["reuse"];
        let carried = Reference::deserialize(&reuse["reference"]).ok();
        carried
            .filter(|_| reuse["refused"] == false)
            .unwrap_or_else(|| Reference {
                version: manifest.version.clone(),
                ef_search: manifest.index.ef_search,
                recall_at_10: manifest.index.recall_at_10.unwrap_or(TARGET_RECALL),
            })
    }
}

fn open(sections: &[Section]) -> Result<Index, refrain_index::OpenError> {
    Index::open(&|name| {
        let found = sections.iter().find(|section| section.name == name);
        found.map(|section| section.bytes.clone())
    })
}
