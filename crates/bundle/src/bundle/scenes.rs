//! Scenes: which cluster of the catalogue an item belongs to, and the rules that place an item which was
//! not there when the clusters were made.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::column::Column;
use crate::corruption::Corruption;
use crate::digest::FileDigest;
use crate::items::StringTable;
use crate::section::{OpenError, SectionFile, SectionWriter, WriteError};

/// The scenes' file in a bundle; absent when nobody gave any.
pub const SCENES_FILE: &str = "scenes.rfs";

/// No scene.
const NONE: u32 = u32::MAX;
/// A branch with this bit leads to a scene, another to a rule.
const LEADS_TO_SCENE: u32 = 1 << 31;
/// Most scenes: of a hierarchy, all of its levels.
pub const MAX_SCENES: usize = 1 << 20;
/// Longest path or label of a scene in bytes.
const MAX_TEXT_BYTES: usize = 1_024;

/// A binary decision tree that places vectors: at each rule a weighted sum of the vector's values is
/// compared with a threshold. Rule 0 comes first; every branch leads to a later rule or to a scene.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SceneRules {
    /// Values of a vector.
    pub dim: u32,
    /// Whether vectors are brought to unit length first.
    pub by_direction: bool,
    /// `rules * dim` values, row-major.
    pub weights: Vec<f32>,
    /// One a rule.
    pub thresholds: Vec<f32>,
    /// Where each rule leads: when the sum is at most the threshold, and when it is more.
    pub branches: Vec<[Branch; 2]>,
}

/// Where a rule leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Branch {
    /// On to a rule.
    Rule(u32),
    /// To a scene.
    Scene(u32),
}

impl Branch {
    fn from_word(word: u32) -> Self {
        match word & LEADS_TO_SCENE {
            0 => Self::Rule(word),
            _ => Self::Scene(word ^ LEADS_TO_SCENE),
        }
    }

    fn word(self) -> u32 {
        match self {
            Self::Rule(rule) => rule,
            Self::Scene(scene) => scene | LEADS_TO_SCENE,
        }
    }
}

impl SceneRules {
    /// The scene that a vector belongs to. `O(depth dim)`.
    ///
    /// None without rules, for a vector of another dimension, and for one that is zero or not finite.
    #[must_use]
    pub fn scene(&self, vector: &[f32]) -> Option<u32> {
        let dim = self.dim as usize;
        if self.thresholds.is_empty() || vector.len() != dim {
            return None;
        }
        let square: f64 = vector.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
        if !(square > 0.0 && square.is_finite()) {
            return None;
        }
        let scale = if self.by_direction {
            square.sqrt().recip()
        } else {
            1.0
        };
        let mut rule = 0;
        // Branches lead forwards, so this ends.
        loop {
            let weights = self.weights.get(rule * dim..(rule + 1) * dim)?;
            let sum: f64 = weights
                .iter()
                .zip(vector)
                .map(|(&w, &x)| f64::from(w) * f64::from(x))
                .sum();
            let above = sum * scale > f64::from(*self.thresholds.get(rule)?);
            match self.branches.get(rule)?[usize::from(above)] {
                Branch::Scene(scene) => return Some(scene),
                Branch::Rule(next) if next as usize > rule => rule = next as usize,
                Branch::Rule(_) => return None,
            }
        }
    }

    /// The first rule that cannot be: its number, and what it breaks. `scenes` is how many there are.
    #[must_use]
    pub fn problem(&self, scenes: u32) -> Option<(usize, &'static str)> {
        let rules = self.thresholds.len();
        let values = rules.checked_mul(self.dim as usize);
        if values != Some(self.weights.len()) || self.branches.len() != rules {
            return Some((
                rules,
                "rules have a threshold, two branches and a weight for each value",
            ));
        }
        if let Some(at) = self.weights.iter().position(|weight| !weight.is_finite()) {
            return Some((at / (self.dim as usize).max(1), "weights are finite"));
        }
        if let Some(at) = self.thresholds.iter().position(|value| !value.is_finite()) {
            return Some((at, "thresholds are finite"));
        }
        let bad = |rule: usize, branch: &Branch| match *branch {
            Branch::Scene(scene) => scene >= scenes,
            Branch::Rule(next) => next as usize <= rule || next as usize >= rules,
        };
        let mut numbered = self.branches.iter().enumerate();
        let (at, _) = numbered.find(|(at, both)| both.iter().any(|one| bad(*at, one)))?;
        Some((at, "a branch leads to a later rule or to a scene"))
    }
}

/// What is written about scenes.
#[derive(Debug, Clone, Copy)]
pub struct NewScenes<'a> {
    /// Path of each scene, parents before their children: `2`, `2.1`, `2.1.3`.
    pub paths: &'a [String],
    /// What people may call it; empty for none.
    pub labels: &'a [String],
    /// For each item the number of its scene.
    pub of: &'a [Option<u32>],
    /// How to place further items; empty when nobody knows.
    pub rules: &'a SceneRules,
}

/// The scenes of a version, the column of the items mapped.
#[derive(Debug, Clone)]
pub struct Scenes {
    of: Column<u32>,
    paths: StringTable,
    labels: StringTable,
    rules: SceneRules,
}

impl Scenes {
    /// The scenes in `file`. O(1) in the number of items.
    ///
    /// # Errors
    /// [`OpenError`] when a section is missing, unknown or of the wrong shape, or a rule cannot be.
    pub fn open(file: &SectionFile) -> Result<Self, OpenError> {
        file.require_known(SECTIONS)?;
        let Params {
            items,
            scenes,
            dim,
            by_direction,
            rules,
        } = file.record("params", PARAMS_VERSION)?;
        let rule = "there is a scene for each item, and a path and a label for each scene";
        let of = file.column::<u32>("scene")?;
        if of.len() as u64 != u64::from(items) {
            return Err(file.broken("scene", 0, rule, of.len() as u64).into());
        }
        let table = |name: &'static str| {
            let table = StringTable::open(file, name)?;
            match table.len() == scenes && table.len() as usize <= MAX_SCENES {
                true => Ok(table),
                false => {
                    let got = table.len().into();
                    Err(OpenError::from(file.broken("params", 0, rule, got)))
                }
            }
        };
        let (paths, labels) = (table("paths")?, table("labels")?);
        let branches = file.column::<[u32; 2]>("branches")?;
        let rules_found = SceneRules {
            dim,
            by_direction,
            weights: file.column::<f32>("weights")?.as_slice().to_vec(),
            thresholds: file.column::<f32>("thresholds")?.as_slice().to_vec(),
            branches: branches
                .as_slice()
                .iter()
                .map(|both| both.map(Branch::from_word))
                .collect(),
        };
        if rules_found.thresholds.len() as u64 != u64::from(rules) {
            let got = rules_found.thresholds.len() as u64;
            return Err(file.broken("thresholds", 0, rule, got).into());
        }
        if let Some((at, rule)) = rules_found.problem(scenes) {
            return Err(file
                .broken("branches", at as u64 * 8, rule, at as u64)
                .into());
        }
        Ok(Self {
            of,
            paths,
            labels,
            rules: rules_found,
        })
    }

    /// How many scenes there are, on all levels.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.paths.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Items that are said something of.
    #[must_use]
    pub fn items(&self) -> u32 {
        u32::try_from(self.of.len()).unwrap_or(u32::MAX)
    }

    /// The scene of an item of the base, the narrowest that it belongs to.
    #[must_use]
    pub fn of(&self, ordinal: u32) -> Option<u32> {
        let scene = self.of.get(ordinal as usize)?;
        (scene < self.len()).then_some(scene)
    }

    /// Where a scene is in the hierarchy: `2.1` is the first part of the second scene.
    #[must_use]
    pub fn path(&self, scene: u32) -> Option<&str> {
        self.paths.get(scene)
    }

    /// What people may call it; empty when nobody said.
    #[must_use]
    pub fn label(&self, scene: u32) -> &str {
        self.labels.get(scene).unwrap_or_default()
    }

    /// How further items are placed.
    #[must_use]
    pub fn rules(&self) -> &SceneRules {
        &self.rules
    }

    /// Checks every value: O(n).
    pub(crate) fn check(&self, file: &SectionFile) -> Result<(), Corruption> {
        let bad = |&scene: &u32| scene != NONE && scene >= self.len();
        if let Some(at) = self.of.as_slice().iter().position(bad) {
            let rule = "the scene of an item is one of the scenes";
            return Err(file.broken("scene", at as u64 * 4, rule, at as u64));
        }
        for scene in 0..self.len() {
            let texts = [
                ("paths.offsets", &self.paths),
                ("labels.offsets", &self.labels),
            ];
            for (section, table) in texts {
                if table
                    .get(scene)
                    .is_none_or(|text| text.len() > MAX_TEXT_BYTES)
                {
                    let rule = "paths and labels are UTF-8 of at most 1024 bytes";
                    return Err(file.broken(section, u64::from(scene) * 8, rule, scene.into()));
                }
            }
        }
        Ok(())
    }
}

/// Writes scenes to a new file.
///
/// # Errors
/// [`WriteError::BadValue`] for what would not be read again; see [`WriteError`].
pub fn write_scenes(path: &Path, scenes: &NewScenes<'_>) -> Result<FileDigest, WriteError> {
    let too_many = |what| WriteError::TooMany { what };
    let count = u32::try_from(scenes.paths.len())
        .ok()
        .filter(|&count| count as usize <= MAX_SCENES)
        .ok_or(too_many("scenes"))?;
    let items = u32::try_from(scenes.of.len()).map_err(|_| too_many("items"))?;
    let bad = |what, at, rule| Err(WriteError::BadValue { what, at, rule });
    if scenes.labels.len() != scenes.paths.len() {
        return bad(
            "scene",
            scenes.labels.len(),
            "there is a label for each scene",
        );
    }
    let long = |text: &String| text.len() > MAX_TEXT_BYTES;
    let mut texts = scenes.paths.iter().zip(scenes.labels);
    if let Some(at) = texts.position(|(path, label)| path.is_empty() || long(path) || long(label)) {
        return bad(
            "scene",
            at,
            "a path has 1 to 1024 bytes, a label at most 1024",
        );
    }
    let outside = |scene: &Option<u32>| scene.is_some_and(|scene| scene >= count);
    if let Some(at) = scenes.of.iter().position(outside) {
        return bad("item", at, "the scene of an item is one of the scenes");
    }
    let rules = scenes.rules;
    if let Some((at, rule)) = rules.problem(count) {
        return bad("rule", at, rule);
    }
    let of: Vec<u32> = scenes.of.iter().map(|of| of.unwrap_or(NONE)).collect();
    let branches: Vec<[u32; 2]> = rules
        .branches
        .iter()
        .map(|both| both.map(Branch::word))
        .collect();
    let params = Params {
        items,
        scenes: count,
        dim: rules.dim,
        by_direction: rules.by_direction,
        rules: u32::try_from(rules.thresholds.len()).map_err(|_| too_many("rules"))?,
    };
    SectionWriter::write(path, |file| {
        file.add_record("params", PARAMS_VERSION, &params)?;
        file.add_array("scene", &of)?;
        StringTable::write(file, "paths", scenes.paths.iter().map(String::as_str))?;
        StringTable::write(file, "labels", scenes.labels.iter().map(String::as_str))?;
        file.add_array("weights", &rules.weights)?;
        file.add_array("thresholds", &rules.thresholds)?;
        file.add_array("branches", &branches)
    })
}

/// The counts that the shapes of all sections follow from.
#[derive(Debug, Serialize, Deserialize)]
struct Params {
    items: u32,
    scenes: u32,
    dim: u32,
    by_direction: bool,
    rules: u32,
}

const PARAMS_VERSION: u8 = 1;

const SECTIONS: &[&str] = &[
    "params",
    "scene",
    "paths.offsets",
    "paths.bytes",
    "labels.offsets",
    "labels.bytes",
    "weights",
    "thresholds",
    "branches",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::section::OpenMode;
    use proptest::prelude::*;

    fn rules() -> SceneRules {
        SceneRules {
            dim: 2,
            by_direction: true,
            weights: vec![1.0, 0.0, 0.0, 1.0],
            thresholds: vec![0.0, 0.5],
            branches: vec![
                [Branch::Scene(0), Branch::Rule(1)],
                [Branch::Scene(1), Branch::Scene(2)],
            ],
        }
    }

    fn texts(of: &[&str]) -> Vec<String> {
        of.iter().map(|&text| text.to_owned()).collect()
    }

    #[test]
    fn come_back_as_they_were_and_place_vectors() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(SCENES_FILE);
        let (paths, labels) = (texts(&["1", "2", "2.1"]), texts(&["calm", "", "lärm"]));
        let new = NewScenes {
            paths: &paths,
            labels: &labels,
            of: &[Some(0), None, Some(2)],
            rules: &rules(),
        };
        write_scenes(&path, &new).unwrap();
        let file = SectionFile::open(&path, OpenMode::Map).unwrap();
        let scenes = Scenes::open(&file).unwrap();
        scenes.check(&file).unwrap();
        let of: Vec<_> = (0..4).map(|item| scenes.of(item)).collect();
        assert_eq!(of, [Some(0), None, Some(2), None]);
        assert_eq!((scenes.path(2), scenes.label(2)), (Some("2.1"), "lärm"));
        assert_eq!((scenes.len(), scenes.items()), (3, 3));
        assert_eq!(scenes.rules(), &rules());
        for (vector, scene) in [
            ([-1.0, 9.0], Some(0)),
            ([5.0, 1.0], Some(1)),
            ([5.0, 50.0], Some(2)),
            ([0.0, 0.0], None),
            ([f32::NAN, 0.0], None),
        ] {
            assert_eq!(scenes.rules().scene(&vector), scene, "{vector:?}");
        }
        assert_eq!(scenes.rules().scene(&[1.0]), None);
        assert_eq!(SceneRules::default().scene(&[]), None);
    }

    #[test]
    fn what_could_not_be_read_again_is_not_written() {
        let dir = tempfile::tempdir().unwrap();
        let write = |paths: &[&str], of: &[Option<u32>], rules: &SceneRules| {
            let paths = texts(paths);
            let labels = vec![String::new(); paths.len()];
            let new = NewScenes {
                paths: &paths,
                labels: &labels,
                of,
                rules,
            };
            write_scenes(&dir.path().join("s"), &new).map_err(|error| error.to_string())
        };
        let none = SceneRules::default();
        assert!(
            write(&["1"], &[Some(1)], &none)
                .unwrap_err()
                .contains("one of the scenes")
        );
        assert!(
            write(&[""], &[], &none)
                .unwrap_err()
                .contains("1 to 1024 bytes")
        );
        assert!(
            write(&["1"], &[], &rules())
                .unwrap_err()
                .contains("later rule")
        );
        let loops = SceneRules {
            branches: vec![[Branch::Rule(0); 2]; 2],
            ..rules()
        };
        assert!(
            write(&["1", "2", "3"], &[], &loops)
                .unwrap_err()
                .contains("later rule")
        );
        let infinite = SceneRules {
            thresholds: vec![f32::INFINITY, 0.0],
            ..rules()
        };
        assert!(
            write(&["1", "2", "3"], &[], &infinite)
                .unwrap_err()
                .contains("finite")
        );
        write(&["1", "2", "3"], &[], &rules()).unwrap();
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        #[test]
        fn a_flipped_byte_never_faults_and_verification_finds_it(
            at in any::<prop::sample::Index>(),
            flip in 1u8..,
        ) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join(SCENES_FILE);
            let paths = texts(&["1", "2", "3"]);
            let new = NewScenes {
                paths: &paths,
                labels: &paths,
                of: &[Some(0), None, Some(2)],
                rules: &rules(),
            };
            write_scenes(&path, &new).unwrap();
            let mut bytes = fs_err::read(&path).unwrap();
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            fs_err::write(&path, bytes).unwrap();
            let Ok(file) = SectionFile::open(&path, OpenMode::Map) else { return Ok(()) };
            if let Ok(scenes) = Scenes::open(&file) {
                for item in 0..4 {
                    prop_assert!(scenes.of(item).is_none_or(|scene| scene < scenes.len()));
                }
                let _ = (scenes.rules().scene(&[1.0, 2.0]), scenes.path(9), scenes.check(&file));
            }
            prop_assert!(file.verify().is_err());
        }
    }
}
