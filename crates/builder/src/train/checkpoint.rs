//! What a killed training goes on from: the factors after an iteration.
//!
//! A checkpoint is a section file, checksummed like everything else, that appears whole or not at all. It
//! belongs to one log, one setting and one start; one of another is passed over, a damaged one too:
//! training from the beginning is always right.

use std::path::{Path, PathBuf};

use refrain_als::{Factors, Hyper, Interactions};
use refrain_bundle::{OpenMode, SectionFile, SectionWriter};

use super::{Stage, TrainJobError};
use crate::evaluation::hash;

/// The files of a training's checkpoints.
pub const FILES: [&str; 4] = [
    "all.rfs",
    "all.tmp",
    "training-part.rfs",
    "training-part.tmp",
];

/// The checkpoints of one part of a training.
pub(super) struct Checkpoints<'a> {
    pub(super) dir: &'a Path,
    pub(super) stage: Stage,
    pub(super) digest: u64,
}

/// What a checkpoint holds.
pub(super) struct Saved {
    pub(super) iteration: usize,
    pub(super) users: Vec<f32>,
    pub(super) items: Vec<f32>,
}

impl Checkpoints<'_> {
    /// What was saved of this training, which has factors of the shape of `like`; none if nothing was.
    pub(super) fn load(&self, like: &Factors) -> Result<Option<Saved>, TrainJobError> {
        fs_err::create_dir_all(self.dir).map_err(TrainJobError::Checkpoint)?;
        Ok(self.read(like))
    }

    fn read(&self, like: &Factors) -> Option<Saved> {
        let file = SectionFile::open(&self.path(), OpenMode::Map).ok()?;
        file.verify().ok()?;
        let head = file.column::<u64>("head").ok()?;
        let &[digest, iteration] = head.as_slice() else {
            return None;
        };
        let values = |name: &str, len: usize| {
            let values = file.column::<f32>(name).ok()?;
            (values.as_slice().len() == len).then(|| values.as_slice().to_vec())
        };
        (digest == self.digest).then_some(())?;
        Some(Saved {
            iteration: usize::try_from(iteration).ok()?,
            users: values("users", like.users.len())?,
            items: values("items", like.items.len())?,
        })
    }

    pub(super) fn save(&self, iteration: usize, factors: &Factors) -> Result<(), TrainJobError> {
        let (path, staging) = (self.path(), self.path().with_extension("tmp"));
        SectionWriter::write(&staging, |file| {
            file.add_array("head", &[self.digest, iteration as u64])?;
            file.add_array("users", &factors.users)?;
            file.add_array("items", &factors.items)
        })
        .map_err(|error| TrainJobError::Checkpoint(std::io::Error::other(error)))?;
        fs_err::File::open(&staging)
            .and_then(|file| file.sync_all())
            .and_then(|()| fs_err::rename(&staging, &path))
            .and_then(|()| fs_err::File::open(self.dir)?.sync_all())
            .map_err(TrainJobError::Checkpoint)
    }

    fn path(&self) -> PathBuf {
        self.dir.join(match self.stage {
            Stage::FitAll => FILES[0],
            _ => FILES[2],
        })
    }
}

/// Of everything that the factors depend on, the program's version among it.
pub(super) fn digest(data: &Interactions, hyper: &Hyper, parent: Option<&[f32]>) -> u64 {
    let mut sum = hash(1, data.users(), data.items());
    let text = format!("{} {hyper:?}", env!("CARGO_PKG_VERSION"));
    for byte in text.bytes() {
        sum = hash(sum, u32::from(byte), 1);
    }
    for user in 0..data.users() {
        let (items, strengths) = data.user(user);
        for (&item, strength) in items.iter().zip(strengths) {
            sum = hash(sum, item, strength.to_bits());
        }
        sum = hash(sum, user, 2);
    }
    for value in parent.into_iter().flatten() {
        sum = hash(sum, value.to_bits(), 3);
    }
    sum
}
