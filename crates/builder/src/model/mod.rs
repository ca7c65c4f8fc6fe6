//! A trained model: what `train` writes and `build` reads.
//!
//! On disk a model is a directory of two files: `model.json`, small and readable, and `model.rfs`,
//! a section file of [`refrain_bundle`] with the factors, ids and attributes. `model.json` is
//! written last and holds the digest of the other, so that the two cannot be mixed up.

mod parent;
mod storage;

pub use parent::Parent;
pub use storage::{LoadError, SaveError};

use refrain_bundle::bundle::Calibration;
use serde::{Deserialize, Serialize};

use crate::Dictionary;
use crate::ingest::Attributes;

/// Factors, ids and everything else `build` needs, in memory.
///
/// Ordinals of items and users are the rows of their factors.
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    /// What describes it for people and for the bundle's manifest (`model.json`).
    pub info: ModelInfo,
    /// Item ids by ordinal.
    pub items: Dictionary,
    /// User ids by ordinal.
    pub users: Dictionary,
    /// `items * rank` values, row-major.
    pub item_factors: Vec<f32>,
    /// `users * rank` values, row-major.
    pub user_factors: Vec<f32>,
    /// Distinct users who listened to each item: what popularity means.
    pub item_listeners: Vec<u32>,
    /// Plays of each item (sum of counts).
    pub item_plays: Vec<f64>,
    /// Attributes of each item; none at all where nothing is known of any. See [`Model::item_attributes`].
    pub attributes: Vec<Attributes>,
    /// Held-out pairs (user ordinal, item ordinal), sorted; empty when nothing was held out.
    pub held_out: Vec<(u32, u32)>,
}

impl Model {
    /// Attributes of each item, whether anything is known or not.
    pub fn item_attributes(&self) -> impl Iterator<Item = &Attributes> + Clone {
        static UNKNOWN: Attributes = Attributes::UNKNOWN;
        let unknown = match self.attributes.is_empty() {
            true => self.items.len(),
            false => 0,
        };
        std::iter::repeat_n(&UNKNOWN, unknown).chain(&self.attributes)
    }
}

/// The part of a model that is small and readable.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelInfo {
    /// Factors of one item or user.
    pub rank: usize,
    /// `refrain_als::Hyper` as JSON.
    pub hyper: serde_json::Value,
    /// The command line that trained it.
    pub command: String,
    /// Seed of the training.
    pub seed: u64,
    /// Time of the newest event it learned from, microseconds since 1970 UTC.
    pub watermark_us: Option<i64>,
    /// Up to when the exclusions it was trained without are complete, microseconds since 1970 UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exclusion_watermark_us: Option<i64>,
    /// What it was trained on.
    pub counts: ModelCounts,
    /// The held-out report, as `train` printed it.
    pub report: serde_json::Value,
    /// What a score means, fitted on held-out listens; absent when there were too few.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calibration: Option<Calibration>,
}

/// What a model was trained on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelCounts {
    /// Users with factors.
    pub users: u64,
    /// Items with factors.
    pub items: u64,
    /// Listens (rows) learned from.
    pub events: u64,
    /// Plays (sum of counts) learned from.
    pub plays: f64,
}
