//! What a killed training goes on from: the factors after an iteration.

use std::path::Path;

use refrain_als::{Factors, Hyper, Interactions};

use super::fit::Known;
use super::{Stage, TrainJobError};
use crate::checkpoint::{self, Place};
use crate::evaluation::hash;

const ALL: &str = "all.rfs";
const TRAINING_PART: &str = "training-part.rfs";

/// Removes the checkpoints of a training that is done from `dir`, and `dir` when it is then empty.
pub fn discard(dir: &Path) {
    checkpoint::discard(dir, &[ALL, TRAINING_PART]);
}

/// The checkpoints of one part of a training.
pub(super) struct Checkpoints(Place);

/// What a checkpoint holds.
pub(super) struct Saved {
    pub(super) iteration: usize,
    pub(super) users: Vec<f32>,
    pub(super) items: Vec<f32>,
}

impl Checkpoints {
    pub(super) fn new(dir: &Path, stage: Stage, digest: u64) -> Result<Self, TrainJobError> {
        let name = match stage {
            Stage::FitAll => ALL,
            _ => TRAINING_PART,
        };
        let place = Place::new(dir, name, digest).map_err(TrainJobError::Checkpoint)?;
        Ok(Self(place))
    }

    /// What was saved of this training, which has factors of the shape of `like`; none if nothing was.
    pub(super) fn load(&self, like: &Factors) -> Option<Saved> {
        let (file, iteration) = self.0.load()?;
        let values = |name: &str, len: usize| {
            let values = file.column::<f32>(name).ok()?;
            (values.as_slice().len() == len).then(|| values.as_slice().to_vec())
        };
        Some(Saved {
            iteration: usize::try_from(iteration).ok()?,
            users: values("users", like.users.len())?,
            items: values("items", like.items.len())?,
        })
    }

    pub(super) fn save(&self, iteration: usize, factors: &Factors) -> Result<(), TrainJobError> {
        let columns = self.0.save(iteration as u64, |file| {
            file.add_array("users", &factors.users)?;
            file.add_array("items", &factors.items)
        });
        columns.map_err(TrainJobError::Checkpoint)
    }
}

/// Of everything that the factors depend on.
pub(super) fn digest(data: &Interactions, hyper: &Hyper, parent: Option<&Known<'_>>) -> u64 {
    let sum = checkpoint::digest(&format!("{hyper:?}"));
    let mut sum = hash(sum, data.users(), data.items());
    for user in 0..data.users() {
        let (items, strengths) = data.user(user);
        for (&item, strength) in items.iter().zip(strengths.iter()) {
            sum = hash(sum, item, strength.to_bits());
        }
        sum = hash(sum, user, 2);
    }
    for row in parent.into_iter().flat_map(Known::all) {
        for value in row.unwrap_or_default() {
            sum = hash(sum, value.to_bits(), 3);
        }
        sum = hash(sum, u32::from(row.is_some()), 4);
    }
    let has_exclusions = parent.is_some_and(|parent| parent.has_exclusions);
    hash(sum, u32::from(has_exclusions), 5)
}
