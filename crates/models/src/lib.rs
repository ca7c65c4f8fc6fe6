//! Models that re-rank, from files in ONNX: linear ones and ensembles of trees, of one number a candidate.
//!
//! [`load`] reads what trainers write for such models: one of the operators `LinearRegressor`,
//! `LinearClassifier`, `TreeEnsembleRegressor` and `TreeEnsembleClassifier` of the domain `ai.onnx.ml`, with
//! `Scaler` before it and `Normalizer` and `ZipMap` after it. Of two classes it gives the probability of the
//! second. Anything else is refused by name: a network is no re-ranker of this size.
//!
//! Everything is checked when it is read: indices, widths, that trees are trees. What is computed then needs no
//! check, follows one order, and gives the same bits on every processor.

mod forest;
mod graph;
mod linear;
mod onnx;

use std::fmt::Write as _;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use refrain_ranking::Loaded;
use sha2::{Digest as _, Sha256};

pub use graph::OnnxModel;

/// Largest file, in bytes.
pub const MAX_BYTES: u64 = 16 << 20;

/// Why a file is no model.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// It cannot be read.
    #[error("{0}")]
    Read(#[from] std::io::Error),
    /// It is larger than [`MAX_BYTES`].
    #[error("the file has more than {MAX_BYTES} bytes")]
    TooLarge,
    /// It is not ONNX, or cut short.
    #[error("not a model in ONNX: {0}")]
    Decode(#[from] prost::DecodeError),
    /// It has no graph, or one of another shape.
    #[error("{0}")]
    Graph(String),
    /// An operator that is not known here.
    #[error("node {node}: operator {operator} is none of {}", graph::KNOWN)]
    Operator {
        /// Its position in the graph, from 0.
        node: usize,
        /// Its name.
        operator: String,
    },
    /// What an operator says of itself cannot be.
    #[error("node {node} ({operator}), {attribute}: {problem}")]
    Attribute {
        /// Its position in the graph, from 0.
        node: usize,
        /// Its name.
        operator: String,
        /// The attribute.
        attribute: &'static str,
        /// What is wrong.
        problem: String,
    },
    /// It takes another number of inputs.
    #[error("the model takes {takes} inputs, model_features names {given}")]
    Width {
        /// As the file says.
        takes: usize,
        /// As the variant says.
        given: usize,
    },
}

/// Reads a model that takes `width` features.
///
/// # Errors
/// [`ModelError`]: what is wrong with the file, and where.
pub fn load(file: &Path, width: usize) -> Result<Loaded, ModelError> {
    let mut bytes = Vec::new();
    let mut reader = fs_err::File::open(file)?.take(MAX_BYTES + 1);
    reader.read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(ModelError::TooLarge);
    }
    let model = OnnxModel::read(&bytes, width)?;
    let mut digest = String::new();
    for byte in Sha256::digest(&bytes) {
        // Writing to a text cannot fail.
        let _ = write!(digest, "{byte:02x}");
    }
    Ok(Loaded {
        digest,
        model: Arc::new(model),
    })
}

#[cfg(test)]
mod tests;
