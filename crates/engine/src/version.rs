//! One mapped bundle, ready to answer.

use std::borrow::Cow;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use refrain_als::{FoldIn, FoldInError, Hyper};
use refrain_bundle::bundle::OpenError as BundleOpenError;
use refrain_bundle::{
    Bundle, DeltaFile, Digest, Manifest, OpenMode, VerifyError as BundleVerifyError, VerifyReport,
};
use refrain_index::{
    Filter, Index, OpenError as IndexOpenError, OrdinalSet, Scratch, SearchError, SearchParams,
    StructureError,
};
use refrain_kernels::Metric;
use refrain_taste::Catalogue;

use crate::debiased;
use crate::delta::{Delta, DeltaError, Onto, VersionItems};
use crate::filter::{Compiled, CompiledFilters};
use crate::request::ItemFilter;

/// One mapped bundle, index, items and fold-in model, which belong together, and the deltas applied to
/// it. Share it by `Arc`; requests in flight finish on the version and delta they began with.
#[derive(Debug)]
pub struct Version {
    base: Arc<Base>,
    delta: Option<Delta>,
    filters: CompiledFilters,
    /// Of the rows of the deltas.
    weights: debiased::OfDelta,
}

/// What does not change while deltas come.
#[derive(Debug)]
struct Base {
    id: Arc<str>,
    bundle: Bundle,
    index: Index,
    fold_in: Option<FoldIn>,
    blocked: OrdinalSet,
    weights: debiased::OfBase,
}

impl Version {
    /// Maps the bundle at `dir` and checks that its parts fit together. Reads manifest, headers, the
    /// Gram matrix and one bit an item; neither vectors nor graph. [`verify`](Self::verify) and
    /// [`warm`](Self::warm) read those.
    ///
    /// # Errors
    /// [`OpenError`] when the bundle, its index or its model cannot be opened or do not fit together.
    pub fn open(dir: &Path, mode: OpenMode) -> Result<Self, OpenError> {
        let bundle = Bundle::open(dir, mode)?;
        let sections = bundle.index_sections();
        let index =
            Index::open(&|name| sections.section(name)).map_err(|source| OpenError::Index {
                path: sections.path().to_owned(),
                source,
            })?;
        let mismatch = |what, index: String, manifest: String| {
            Err(OpenError::Mismatch {
                path: dir.to_owned(),
                what,
                index,
                manifest,
            })
        };
        let manifest = bundle.manifest();
        if index.len() as u64 != u64::from(manifest.items) {
            return mismatch("items", index.len().to_string(), manifest.items.to_string());
        }
        if index.dim() as u64 != u64::from(manifest.dim) {
            return mismatch("dim", index.dim().to_string(), manifest.dim.to_string());
        }
        if Metric::from_str(&manifest.metric).ok() != Some(index.metric()) {
            return mismatch(
                "metric",
                index.metric().to_string(),
                manifest.metric.clone(),
            );
        }
        let fold_in = fold_in(&bundle, &index)?;
        let items = bundle.items();
        let blocked = (0..items.len())
            .filter(|&ordinal| items.blocked(ordinal))
            .collect();
        let base = Base {
            id: Arc::from(bundle.version()),
            bundle,
            index,
            fold_in,
            blocked,
            weights: debiased::OfBase::default(),
        };
        Ok(Self {
            base: Arc::new(base),
            delta: None,
            filters: CompiledFilters::default(),
            weights: debiased::OfDelta::default(),
        })
    }

    /// This version with more deltas: verified files, in order, the first following the last one that
    /// was applied. The base is shared, this version stays as it is. O(items of all deltas).
    ///
    /// # Errors
    /// [`DeltaError`] when a file is of another version, or does not come next.
    pub fn with_deltas(&self, files: &[DeltaFile]) -> Result<Self, DeltaError> {
        let Base {
            id,
            bundle,
            index,
            blocked,
            ..
        } = &*self.base;
        let onto = Onto {
            version: id,
            items: bundle.items(),
            blocked,
            metric: index.metric(),
            dim: bundle.manifest().dim,
            model: bundle.model(),
            scenes: bundle.scenes(),
        };
        Ok(Self {
            base: Arc::clone(&self.base),
            delta: Delta::fold(onto, self.delta.as_ref(), files)?,
            filters: CompiledFilters::default(),
            weights: debiased::OfDelta::default(),
        })
    }

    /// A request's filter as sets of this version's ordinals.
    pub(crate) fn compiled(&self, filter: Option<&Arc<ItemFilter>>) -> Arc<Compiled> {
        filter.map_or_else(Arc::default, |filter| {
            self.filters.get(filter, self.items())
        })
    }

    pub(crate) fn kept_weights(&self) -> (&debiased::OfBase, &debiased::OfDelta) {
        (&self.base.weights, &self.weights)
    }

    /// Number of the last delta applied; 0 is the base alone.
    #[must_use]
    pub fn delta(&self) -> u64 {
        self.delta.as_ref().map_or(0, |delta| delta.number)
    }

    /// Digest of the last delta applied; `None` is the base alone.
    #[must_use]
    pub fn delta_digest(&self) -> Option<Digest> {
        self.delta.as_ref().map(|delta| delta.digest)
    }

    /// Items that deltas hold: new ones, and those that replace items of the base.
    #[must_use]
    pub fn delta_items(&self) -> u32 {
        let len = self.delta.as_ref().map_or(0, |delta| delta.vectors.len());
        u32::try_from(len).unwrap_or(u32::MAX)
    }

    /// Bytes of the deltas' files.
    #[must_use]
    pub fn delta_bytes(&self) -> u64 {
        self.delta.as_ref().map_or(0, |delta| delta.bytes)
    }

    /// Whether an item is of a delta: new since the version was built, or changed.
    #[must_use]
    pub fn is_of_delta(&self, ordinal: u32) -> bool {
        self.delta
            .as_ref()
            .is_some_and(|delta| delta.holds(ordinal))
    }

    /// The vector of an item, as it is searched: of unit length for cosine.
    #[must_use]
    pub fn vector(&self, ordinal: u32) -> Option<Cow<'_, [f32]>> {
        match self.delta.as_ref().filter(|delta| delta.holds(ordinal)) {
            Some(delta) => delta.vectors.vector(ordinal).map(Cow::Borrowed),
            None => self.base.index.vector(ordinal).map(Cow::Owned),
        }
    }

    /// The factors of an item, which listeners are folded in with; its vector where there is no model.
    #[must_use]
    pub fn factor(&self, ordinal: u32) -> Option<Cow<'_, [f32]>> {
        if let Some(delta) = self.delta.as_ref().filter(|delta| delta.holds(ordinal)) {
            return delta.factor(ordinal).map(Cow::Borrowed);
        }
        let Some((fold_in, factors)) = self.model() else {
            return self.vector(ordinal);
        };
        let start = ordinal as usize * fold_in.rank();
        let factor = factors.get(start..start + fold_in.rank());
        factor.map(Cow::Borrowed)
    }

    /// Reads everything and checks it: checksums, attributes, and the structure of the graph. O(n).
    ///
    /// # Errors
    /// The first damage, with file, section and offset.
    pub fn verify(&self) -> Result<VerifyReport, VerifyError> {
        let report = self.base.bundle.verify()?;
        self.base
            .index
            .check()
            .map_err(|source| VerifyError::Index {
                path: self.base.bundle.index_sections().path().to_owned(),
                source,
            })?;
        Ok(report)
    }

    /// Asks the golden queries and compares: the expected items must have the expected scores, bit
    /// for bit, and the graph must find its stated share of them. Brings the pages that queries need
    /// into memory on the way.
    ///
    /// # Errors
    /// [`WarmError`] with the query that was answered otherwise: this version must not serve.
    pub fn warm(&self) -> Result<Warmth, WarmError> {
        let golden = self.base.bundle.golden();
        let mut scratch = Scratch::new();
        let mut hits = Vec::new();
        let (mut found, mut expected) = (0, 0);
        for (query, (vector, ordinals, scores)) in golden.iter().enumerate() {
            let refused = |source| WarmError::Refused { query, source };
            // Scores just these: the way the answer was made, without reading all vectors again.
            let allow: OrdinalSet = ordinals.iter().copied().collect();
            let filter = Filter {
                exclude: &[],
                allow: Some(&allow),
            };
            let k = ordinals.len();
            self.base
                .index
                .search_exact(vector, k, &filter, &mut scratch, &mut hits)
                .map_err(refused)?;
            let same = hits.len() == k
                && hits
                    .iter()
                    .zip(ordinals.iter().zip(scores))
                    .all(|(hit, (&ordinal, score))| {
                        hit.ordinal == ordinal && hit.score.to_bits() == score.to_bits()
                    });
            if !same {
                return Err(WarmError::OtherScores { query });
            }
            let params = SearchParams {
                ef_search: self.ef_search(),
                ..SearchParams::default()
            };
            self.base
                .index
                .search(vector, k, &params, &mut scratch, &mut hits)
                .map_err(refused)?;
            found += hits
                .iter()
                .filter(|hit| allow.contains(hit.ordinal))
                .count();
            expected += k;
        }
        let recall = if expected == 0 {
            1.0
        } else {
            found as f64 / expected as f64
        };
        let stated = self.manifest().index.recall_at_10;
        if let Some(stated) = stated
            && recall < stated - RECALL_SLACK
        {
            return Err(WarmError::Recall { recall, stated });
        }
        Ok(Warmth {
            queries: golden.len(),
            recall,
        })
    }

    /// Id of the version.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.base.id
    }

    /// Where its bundle is.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.base.bundle.dir()
    }

    /// What it was made from and how.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        self.base.bundle.manifest()
    }

    /// Its items, those of deltas included.
    #[must_use]
    pub fn items(&self) -> VersionItems<'_> {
        VersionItems::new(self.base.bundle.items(), self.delta.as_ref())
    }

    /// The bundle at its base.
    #[must_use]
    pub fn bundle(&self) -> &Bundle {
        &self.base.bundle
    }

    /// The index of the base alone: it knows nothing of deltas.
    #[must_use]
    pub fn index(&self) -> &Index {
        &self.base.index
    }

    /// Its items as the exclusion algebra sees them.
    #[must_use]
    pub fn catalogue(&self) -> VersionCatalogue<'_> {
        VersionCatalogue {
            items: self.items(),
        }
    }

    /// Whether it can fold listeners in. A version made from bare vectors cannot: a listener's query
    /// is then the weighted mean of their items' vectors.
    #[must_use]
    pub fn has_model(&self) -> bool {
        self.base.fold_in.is_some()
    }

    /// Candidate-list width that the version was calibrated for.
    #[must_use]
    pub fn ef_search(&self) -> usize {
        self.manifest().index.ef_search as usize
    }

    /// Candidate-list width that finds a share of the exact top 10, by the calibration of the
    /// version: the narrowest that reached it, else the widest that was tried. Where nothing was
    /// calibrated, the default.
    #[must_use]
    pub fn ef_search_for(&self, recall: f64) -> usize {
        let points = &self.manifest().index.calibration;
        let reaching = points.iter().filter(|point| point.recall >= recall);
        let narrowest = reaching.map(|point| point.ef_search).min();
        let widest = points.iter().map(|point| point.ef_search).max();
        narrowest
            .or(widest)
            .map_or_else(|| self.ef_search(), |ef_search| ef_search as usize)
    }

    /// Scene of an item, as a number of [`Bundle::scenes`]: as the bundle says, and for an item of a delta as
    /// the bundle's rules place it.
    #[must_use]
    pub fn scene(&self, ordinal: u32) -> Option<u32> {
        match self.delta.as_ref().filter(|delta| delta.holds(ordinal)) {
            Some(delta) => delta.scene(ordinal),
            None => self.base.bundle.scenes()?.of(ordinal),
        }
    }

    /// Where a scene is in the hierarchy (`2.1`), and what people may call it: empty when nobody said.
    #[must_use]
    pub fn scene_name(&self, scene: u32) -> Option<(&str, &str)> {
        let scenes = self.base.bundle.scenes()?;
        Some((scenes.path(scene)?, scenes.label(scene)))
    }

    /// Whether the version knows scenes.
    #[must_use]
    pub fn has_scenes(&self) -> bool {
        self.base.bundle.scenes().is_some()
    }

    /// Calibrated probability, 0 to 1, that a listener plays an item of that similarity to their
    /// vector; `None` where nothing was held out to fit that on.
    #[must_use]
    pub fn confidence(&self, similarity: f32) -> Option<f32> {
        let calibration = self.base.bundle.calibration()?;
        Some(calibration.confidence(similarity))
    }

    pub(crate) fn shared_id(&self) -> &Arc<str> {
        &self.base.id
    }

    /// Items that must never be shown.
    pub(crate) fn blocked(&self) -> &OrdinalSet {
        self.delta
            .as_ref()
            .map_or(&self.base.blocked, |delta| &delta.blocked)
    }

    pub(crate) fn folded(&self) -> Option<&Delta> {
        self.delta.as_ref()
    }

    /// The fold-in model and the factors of the base that it solves against.
    pub(crate) fn model(&self) -> Option<(&FoldIn, &[f32])> {
        let factors = self.base.bundle.model()?.factors();
        Some((self.base.fold_in.as_ref()?, factors))
    }
}

/// How far below the stated recall the golden queries may stay, since they are few. A damaged graph
/// is far below.
const RECALL_SLACK: f64 = 0.1;

fn fold_in(bundle: &Bundle, index: &Index) -> Result<Option<FoldIn>, OpenError> {
    let Some(model) = bundle.model() else {
        return Ok(None);
    };
    let path = || bundle.dir().to_owned();
    let (rank, items) = (model.rank(), index.len());
    if rank != index.dim() {
        let (index, manifest) = (index.dim().to_string(), rank.to_string());
        return Err(OpenError::Mismatch {
            path: path(),
            what: "rank",
            index,
            manifest,
        });
    }
    let hyper: Hyper =
        serde_json::from_value(model.hyper().clone()).map_err(|source| OpenError::Hyper {
            path: path(),
            source: Arc::new(source),
        })?;
    FoldIn::new(rank, items, model.gram().to_vec(), &hyper)
        .map(Some)
        .map_err(|source| OpenError::Model {
            path: path(),
            source,
        })
}

/// What the golden queries found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Warmth {
    /// How many were asked.
    pub queries: usize,
    /// Share of the expected items that the graph found, 0 to 1.
    pub recall: f64,
}

/// A version could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The bundle is not one, or damaged.
    #[error(transparent)]
    Bundle(#[from] BundleOpenError),
    /// The index in it is not one, or damaged.
    #[error("{}: {source}", path.display())]
    Index {
        /// The index's file.
        path: std::path::PathBuf,
        /// What is wrong.
        source: IndexOpenError,
    },
    /// Parts that do not belong together.
    #[error("{}: {what} is {index} in the index and {manifest} elsewhere", path.display())]
    Mismatch {
        /// The bundle's directory.
        path: std::path::PathBuf,
        /// What differs.
        what: &'static str,
        /// In the index.
        index: String,
        /// In the manifest or model.
        manifest: String,
    },
    /// Hyper-parameters that this program does not know.
    #[error("{}: hyper-parameters of the model: {source}", path.display())]
    Hyper {
        /// The bundle's directory.
        path: std::path::PathBuf,
        /// What is wrong.
        source: Arc<serde_json::Error>,
    },
    /// A model that cannot fold in.
    #[error("{}: model: {source}", path.display())]
    Model {
        /// The bundle's directory.
        path: std::path::PathBuf,
        /// What is wrong.
        source: FoldInError,
    },
}

/// A version is damaged.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// A file of the bundle.
    #[error(transparent)]
    Bundle(#[from] BundleVerifyError),
    /// The structure of the index.
    #[error("{}: {source}", path.display())]
    Index {
        /// The index's file.
        path: std::path::PathBuf,
        /// What is wrong.
        source: StructureError,
    },
}

/// A version answers its golden queries otherwise than it should.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum WarmError {
    /// The index refused a query.
    #[error("golden query {query}: {source}")]
    Refused {
        /// Which, from 0.
        query: usize,
        /// Why.
        source: SearchError,
    },
    /// Expected items have other scores, or another order.
    #[error(
        "golden query {query}: expected items have other scores than when the version was built"
    )]
    OtherScores {
        /// Which, from 0.
        query: usize,
    },
    /// The graph finds much less than when it was built.
    #[error("the graph finds {recall:.3} of the golden answers, {stated:.3} is stated")]
    Recall {
        /// Share that it finds.
        recall: f64,
        /// Share that the manifest states.
        stated: f64,
    },
}

/// A version's items as the exclusion algebra sees them.
#[derive(Debug, Clone, Copy)]
pub struct VersionCatalogue<'a> {
    items: VersionItems<'a>,
}

impl Catalogue for VersionCatalogue<'_> {
    fn items(&self) -> u32 {
        self.items.len()
    }

    fn ordinal(&self, item: &str) -> Option<u32> {
        self.items.ordinal(item)
    }

    fn artist_of(&self, ordinal: u32) -> Option<&str> {
        Some(self.items.artist_name(self.items.artist(ordinal)?))
    }

    fn for_each_tag(&self, ordinal: u32, f: &mut dyn FnMut(&str)) {
        for tag in self.items.tags(ordinal) {
            f(self.items.tag_name(tag));
        }
    }

    fn for_each_of_artist(&self, artist: &str, f: &mut dyn FnMut(u32)) {
        if let Some(artist) = self.items.artist_ordinal(artist) {
            self.items.items_of_artist(artist).for_each(f);
        }
    }

    fn for_each_with_tag(&self, tag: &str, f: &mut dyn FnMut(u32)) {
        if let Some(tag) = self.items.tag_ordinal(tag) {
            self.items.items_with_tag(tag).for_each(f);
        }
    }
}
