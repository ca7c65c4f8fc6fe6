//! Models that re-rank: what a variant says of one, and what one does.
//!
//! How a file becomes a model is no business of this crate: whoever reads the configuration brings it, by
//! [`Variants::load_models`](crate::Variants::load_models).

use std::fmt;
use std::sync::Arc;

use crate::feature::Feature;

/// A learned function of a candidate's features.
pub trait Model: fmt::Debug + Send + Sync {
    /// Puts one value for each row of features into `out`; rows lie one after the other. A row's value depends
    /// on that row alone, and is the same on every machine.
    fn predict(&self, rows: &[f32], out: &mut Vec<f32>);
}

/// A model, and what tells it from others.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// Digest of its file.
    pub digest: String,
    /// The model.
    pub model: Arc<dyn Model>,
}

/// The model of a variant: `model` and `model_features`. Its value for a candidate is the feature `model`.
#[derive(Debug, Clone)]
pub struct Reranker {
    /// The file, as the variant names it.
    pub file: String,
    /// What it is asked about: each is one input, in this order.
    pub features: Vec<Feature>,
    /// What the file holds; `None` until it is read.
    pub loaded: Option<Loaded>,
    /// Where the variant names it, from 1.
    pub(crate) line: usize,
}

impl Reranker {
    /// Digest of the file; empty until it is read.
    #[must_use]
    pub fn digest(&self) -> &str {
        self.loaded.as_ref().map_or("", |loaded| &loaded.digest)
    }
}

/// The same file, asked the same.
impl PartialEq for Reranker {
    fn eq(&self, other: &Self) -> bool {
        (&self.file, &self.features, self.digest())
            == (&other.file, &other.features, other.digest())
    }
}
