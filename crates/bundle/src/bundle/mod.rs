//! One version: a directory of section files and a manifest, mapped as one.
//!
//! | file | holds |
//! |---|---|
//! | `manifest.json` | [`Manifest`]: written last; what it does not list does not exist |
//! | `index.rfs` | the index, in the sections that the index defines |
//! | `items.rfs` | [`Items`] |
//! | `golden.rfs` | [`Golden`]: queries and their exact answers |
//! | `calibration.json` | [`Calibration`]: what a score means; absent when nothing was held out |
//! | `model.rfs` | [`Model`]: what fold-in needs; absent when vectors came from elsewhere |
//! | `scenes.rfs` | [`Scenes`]: clusters of the catalogue; absent when none were given |
//!
//! [`BundleWriter`] makes one, [`Bundle`] reads one.

mod calibration;
mod gate;
mod golden;
mod model;
mod scenes;
mod write;

use std::io;
use std::path::{Path, PathBuf};

pub use self::calibration::{CALIBRATION_FILE, Calibration, MAX_KNOTS};
pub use self::gate::seal_gate_report;
pub use self::golden::{Golden, write_golden};
pub use self::model::{Model, NewModel, write_model};
pub use self::scenes::{
    Branch, MAX_SCENES, NewScenes, SCENES_FILE, SceneRules, Scenes, write_scenes,
};
pub use self::write::{BundleWriter, Draft, SealError};

use crate::corruption::{Corruption, Mismatch};
use crate::digest::FileDigest;
use crate::items::Items;
use crate::manifest::{Manifest, ManifestError};
use crate::section::{self, OpenMode, SectionFile};

/// The index's sections.
pub const INDEX_FILE: &str = "index.rfs";
/// The items.
pub const ITEMS_FILE: &str = "items.rfs";
/// The golden queries.
pub const GOLDEN_FILE: &str = "golden.rfs";
/// The fold-in model.
pub const MODEL_FILE: &str = "model.rfs";

/// A mapped bundle. Clones share the maps.
#[derive(Debug, Clone)]
pub struct Bundle {
    dir: PathBuf,
    manifest: Manifest,
    index: SectionFile,
    items: Items,
    items_file: SectionFile,
    golden: Golden,
    golden_file: SectionFile,
    model: Option<(Model, SectionFile)>,
    calibration: Option<Calibration>,
    scenes: Option<(Scenes, SectionFile)>,
}

/// A bundle could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The manifest is missing, damaged or of another format.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// A section file cannot be opened.
    #[error(transparent)]
    Section(#[from] section::OpenError),
    /// The manifest does not list a file that every bundle has.
    #[error("{}: the manifest does not list {name}", dir.display())]
    NotListed {
        /// The bundle's directory.
        dir: PathBuf,
        /// The file.
        name: &'static str,
    },
    /// The parts do not agree with one another.
    #[error(transparent)]
    Corrupt(#[from] Corruption),
}

/// A bundle is not what its manifest says.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// A file that is listed cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Damage, with its place.
    #[error(transparent)]
    Corrupt(#[from] Corruption),
}

/// What [`Bundle::verify`] read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VerifyReport {
    /// Files.
    pub files: usize,
    /// Their bytes together.
    pub bytes: u64,
}

impl Bundle {
    /// Maps the bundle at `dir`: O(1) in its size. Checks the manifest, the length of every file it
    /// lists, and header and table of each section file; [`verify`](Self::verify) checks the rest.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(dir: &Path, mode: OpenMode) -> Result<Self, OpenError> {
        let manifest = Manifest::read(dir)?;
        for (name, stated) in &manifest.files {
            let file = dir.join(name);
            let got = fs_err::metadata(&file)
                .map_err(section::OpenError::Io)?
                .len();
            if got != stated.bytes {
                let mismatch = Mismatch::Length {
                    expected: stated.bytes,
                    got,
                };
                let offset = got.min(stated.bytes);
                return Err(Corruption {
                    file,
                    section: "file".into(),
                    offset,
                    mismatch,
                }
                .into());
            }
        }
        let listed = |name| manifest.files.contains_key(name);
        let open = |name: &'static str| {
            if !listed(name) {
                return Err(OpenError::NotListed {
                    dir: dir.to_owned(),
                    name,
                });
            }
            Ok(SectionFile::open(&dir.join(name), mode)?)
        };
        let index = open(INDEX_FILE)?;
        let items_file = open(ITEMS_FILE)?;
        let golden_file = open(GOLDEN_FILE)?;
        let items = Items::open(&items_file)?;
        let golden = Golden::open(&golden_file)?;
        let model = match &manifest.model {
            None => None,
            Some(_) => {
                let file = open(MODEL_FILE)?;
                Some((Model::open(&file)?, file))
            }
        };
        let calibration = listed(CALIBRATION_FILE)
            .then(|| Calibration::read(&dir.join(CALIBRATION_FILE)))
            .transpose()?;
        let scenes = match listed(SCENES_FILE) {
            false => None,
            true => {
                let file = open(SCENES_FILE)?;
                Some((Scenes::open(&file)?, file))
            }
        };
        let bundle = Self {
            dir: dir.to_owned(),
            manifest,
            index,
            items,
            items_file,
            golden,
            golden_file,
            model,
            calibration,
            scenes,
        };
        bundle.check_agreement()?;
        Ok(bundle)
    }

    /// Where it is.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The version's id.
    pub fn version(&self) -> &str {
        &self.manifest.version
    }

    /// The manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The file with the index's sections.
    pub fn index_sections(&self) -> &SectionFile {
        &self.index
    }

    /// The items.
    pub fn items(&self) -> &Items {
        &self.items
    }

    /// The golden queries.
    pub fn golden(&self) -> &Golden {
        &self.golden
    }

    /// The fold-in model; `None` when the vectors came without one.
    pub fn model(&self) -> Option<&Model> {
        self.model.as_ref().map(|(model, _)| model)
    }

    /// What a score means; `None` when nothing was held out to fit it on.
    pub fn calibration(&self) -> Option<&Calibration> {
        self.calibration.as_ref()
    }

    /// The scenes; `None` when none were given.
    pub fn scenes(&self) -> Option<&Scenes> {
        self.scenes.as_ref().map(|(scenes, _)| scenes)
    }

    /// Reads every file and checks all of it: block checksums, whole-file digests, and that items,
    /// postings and golden answers agree. Does not look into the index, whose `check` does.
    ///
    /// # Errors
    /// The first damage, with file, section and offset.
    pub fn verify(&self) -> Result<VerifyReport, VerifyError> {
        let maps = [&self.index, &self.items_file, &self.golden_file];
        let maps = maps
            .into_iter()
            .chain(self.model.iter().map(|(_, file)| file))
            .chain(self.scenes.iter().map(|(_, file)| file));
        // Block checksums first: they say where, a digest only says that.
        for map in maps.clone() {
            map.verify()?;
        }
        let mut bytes = 0;
        for (name, stated) in &self.manifest.files {
            let file = self.dir.join(name);
            let got = match maps.clone().find(|map| map.path() == file) {
                Some(map) => map.digest(),
                None => FileDigest::read(&mut fs_err::File::open(&file)?)?.digest,
            };
            if got != stated.digest {
                let (expected, got) = (stated.digest.to_string(), got.to_string());
                let mismatch = Mismatch::Digest { expected, got };
                return Err(Corruption {
                    file,
                    section: "file".into(),
                    offset: 0,
                    mismatch,
                }
                .into());
            }
            bytes += stated.bytes;
        }
        self.items.check()?;
        self.golden.check(&self.golden_file, self.items.len())?;
        if let Some((model, file)) = &self.model {
            model.check(file)?;
        }
        if let Some((scenes, file)) = &self.scenes {
            scenes.check(file)?;
        }
        Ok(VerifyReport {
            files: self.manifest.files.len(),
            bytes,
        })
    }

    /// Counts that several files state must be one and the same.
    fn check_agreement(&self) -> Result<(), Corruption> {
        let Manifest { items, dim, .. } = self.manifest;
        let rule = "items, dimensions and rank agree with the manifest";
        if self.items.len() != items {
            return Err(self
                .items_file
                .broken("params", 0, rule, self.items.len().into()));
        }
        if self.golden.dim() != dim as usize {
            return Err(self
                .golden_file
                .broken("params", 0, rule, self.golden.dim() as u64));
        }
        if let (Some((model, file)), Some(info)) = (&self.model, &self.manifest.model) {
            let rank = model.rank() as u64;
            if rank != u64::from(info.rank) {
                return Err(file.broken("params", 0, rule, rank));
            }
            if model.items() != items {
                return Err(file.broken("params", 0, rule, model.items().into()));
            }
        }
        if let Some((scenes, file)) = &self.scenes {
            let rules = scenes.rules();
            if scenes.items() != items {
                return Err(file.broken("params", 0, rule, scenes.items().into()));
            }
            if !rules.thresholds.is_empty() && rules.dim != dim {
                return Err(file.broken("params", 0, rule, rules.dim.into()));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests;
