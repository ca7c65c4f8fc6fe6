//! Writing a model so that it appears whole or not at all, and reading it back with suspicion.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use refrain_bundle::{
    Corruption, FileDigest, OpenError, OpenMode, SectionFile, SectionSpec, SectionWriter,
    StringTable, WriteError, both,
};
use serde::{Deserialize, Serialize};

use super::{Model, ModelInfo, Parent};
use crate::Dictionary;
use crate::ingest::{Attributes, MAX_ID_BYTES, MAX_NAME_BYTES, MAX_TAGS};

/// The readable half.
const INFO_FILE: &str = "model.json";
/// The bulk.
const SECTIONS_FILE: &str = "model.rfs";
const FORMAT: u32 = 1;
/// More than any report needs; a file above it is not ours.
const MAX_INFO_BYTES: u64 = 16 << 20;
const NO_TIME: i64 = i64::MIN;
const NO_DURATION: u32 = u32::MAX;

/// `model.json`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    format: u32,
    sections: FileDigest,
    model: ModelInfo,
}

/// Why a model was not saved; the directory is then as it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SaveError {
    /// The directory holds something else.
    #[error("{}: is there already and is not a model; give another directory", path.display())]
    NotAModel {
        /// What was to be replaced.
        path: PathBuf,
    },
    /// Parts of the model disagree: a bug of whoever made it.
    #[error("the model is not consistent: {0}")]
    Inconsistent(#[from] ShapeError),
    /// A file could not be written; the source names it.
    #[error("cannot write the model: {0}")]
    Io(#[from] io::Error),
    /// The section file could not be written.
    #[error("cannot write the model: {0}")]
    Sections(#[from] WriteError),
    /// The description could not be written as JSON.
    #[error("cannot write the model's description: {0}")]
    Info(#[from] serde_json::Error),
}

/// Why a model was not loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// A file could not be read; the source names it.
    #[error("cannot read the model: {0}")]
    Io(#[from] io::Error),
    /// The description is too long to be one.
    #[error("{}: is {bytes} bytes long, at most {MAX_INFO_BYTES} are allowed", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
        /// Its length.
        bytes: u64,
    },
    /// The description is not what `save` writes.
    #[error("{}: {source}", path.display())]
    Info {
        /// The file.
        path: PathBuf,
        /// Names line and column.
        source: serde_json::Error,
    },
    /// A model of another version of this program.
    #[error("{}: format {found}; this version reads format {FORMAT}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What it says.
        found: u32,
    },
    /// The section file is not the one the description was written with.
    #[error("{}: is not the file that {INFO_FILE} describes", path.display())]
    Mixed {
        /// The file.
        path: PathBuf,
    },
    /// The section file could not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The section file is damaged.
    #[error(transparent)]
    Corrupt(#[from] Corruption),
    /// A string that cannot be one.
    #[error("{}: section '{section}': string {at} {problem}", path.display())]
    Text {
        /// The file.
        path: PathBuf,
        /// The section.
        section: &'static str,
        /// Which string, from 0.
        at: u32,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// Sections that disagree.
    #[error("{}: {source}", path.display())]
    Shape {
        /// The file.
        path: PathBuf,
        /// Names the section.
        source: ShapeError,
    },
}

/// Parts of a model that disagree.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ShapeError {
    /// A section of a wrong length.
    #[error("section '{section}' has {found} values, expected {expected}")]
    Length {
        /// The section.
        section: &'static str,
        /// How many there are.
        found: usize,
        /// How many there must be.
        expected: usize,
    },
    /// A value that cannot be.
    #[error("section '{section}': value {at} is {problem}")]
    Value {
        /// The section.
        section: &'static str,
        /// Which one, from 0.
        at: usize,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A rank of 0.
    #[error("the rank is 0")]
    Rank,
}

impl Model {
    /// Writes the model as directory `dir`. It is staged beside it and renamed; a model that is
    /// there already is replaced, anything else is left alone.
    ///
    /// # Errors
    /// [`SaveError`]; then nothing of the new model is left behind.
    pub fn save(&self, dir: &Path) -> Result<(), SaveError> {
        self.check()?;
        let replaced = occupied(dir)?;
        let parent = match dir.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        fs_err::create_dir_all(parent)?;
        let staging = Staging::beside(dir, "tmp")?;
        let sections = self.write_sections(&staging.0.join(SECTIONS_FILE))?;
        let document = Document {
            format: FORMAT,
            sections,
            model: self.info.clone(),
        };
        let mut info = fs_err::File::create(staging.0.join(INFO_FILE))?;
        info.write_all(&serde_json::to_vec_pretty(&document)?)?;
        info.write_all(b"\n")?;
        info.sync_all()?;
        fs_err::File::open(&staging.0)?.sync_all()?;
        // A directory cannot replace another in one step: the old one steps aside first.
        let aside = replaced.then(|| Staging::beside(dir, "old")).transpose()?;
        if let Some(aside) = &aside {
            fs_err::rename(dir, &aside.0)?;
        }
        if let Err(error) = fs_err::rename(&staging.0, dir) {
            if let Some(aside) = &aside {
                fs_err::rename(&aside.0, dir)?;
            }
            return Err(error.into());
        }
        fs_err::File::open(parent)?.sync_all()?;
        Ok(())
    }

    /// Reads a model and checks all of it: digests, lengths, ordinals, finite factors, strings.
    ///
    /// # Errors
    /// [`LoadError`] names the file and section.
    pub fn load(dir: &Path) -> Result<Self, LoadError> {
        load(dir, |reader, info| {
            let model = reader.model(info)?;
            reader.shape(model.check())?;
            Ok(model)
        })
    }

    /// Whether the parts agree.
    fn check(&self) -> Result<(), ShapeError> {
        let (items, users, rank) = (self.items.len(), self.users.len(), self.info.rank);
        check_factors(
            rank,
            (items, &self.item_factors),
            (users, &self.user_factors),
        )?;
        length("item_listeners", self.item_listeners.len(), items)?;
        length("item_plays", self.item_plays.len(), items)?;
        length("attributes", self.item_attributes().count(), items)?;
        let counts = |plays: &f64| plays.is_finite() && *plays >= 0.0;
        all("item_plays", &self.item_plays, "not a count", counts)?;
        let known = |&(user, item): &(u32, u32)| (user as usize) < users && (item as usize) < items;
        all("held_out", &self.held_out, "out of range", known)
    }

    fn write_sections(&self, path: &Path) -> Result<FileDigest, WriteError> {
        let of = |of: fn(&Attributes) -> &str| self.item_attributes().map(of);
        let mut tags = Dictionary::new();
        let mut tag_ends = Vec::with_capacity(self.items.len());
        let mut tag_ordinals = Vec::new();
        for item in self.item_attributes() {
            for tag in &item.tags {
                let full = WriteError::TooMany { what: "tags" };
                tag_ordinals.push(tags.insert(tag).ok_or(full)?);
            }
            tag_ends.push(tag_ordinals.len() as u64);
        }
        let releases: Vec<i64> = self
            .item_attributes()
            .map(|item| item.release_time_s.unwrap_or(NO_TIME))
            .collect();
        let durations: Vec<u32> = self
            .item_attributes()
            .map(|item| item.duration_ms.unwrap_or(NO_DURATION))
            .collect();
        let blocked: Vec<u8> = self
            .item_attributes()
            .map(|item| item.blocked.into())
            .collect();
        let held_out: Vec<u32> = self
            .held_out
            .iter()
            .flat_map(|&(user, item)| [user, item])
            .collect();
        SectionWriter::write(path, |file| {
            StringTable::write(file, "items", self.items.iter())?;
            StringTable::write(file, "users", self.users.iter())?;
            file.add_array("item_factors", &self.item_factors)?;
            file.add_array("user_factors", &self.user_factors)?;
            file.add_array("item_listeners", &self.item_listeners)?;
            file.add_array("item_plays", &self.item_plays)?;
            StringTable::write(file, "titles", of(|item| &item.title))?;
            StringTable::write(file, "artists", of(|item| &item.artist))?;
            StringTable::write(file, "tags", tags.iter())?;
            file.add_array("tag_ends", &tag_ends)?;
            file.add_array("tag_ordinals", &tag_ordinals)?;
            file.add_array("release_times", &releases)?;
            file.add_array("durations", &durations)?;
            file.add(SectionSpec::new("blocked"), &blocked)?;
            file.add_array("held_out", &held_out)
        })
    }
}

impl Parent {
    /// What of a model another one is trained from; checks that the file is whole, lengths, finite factors and ids.
    ///
    /// # Errors
    /// [`LoadError`] names the file and section.
    pub fn load(dir: &Path) -> Result<Self, LoadError> {
        load(dir, |reader, info| {
            let parent = reader.parent(info.rank)?;
            reader.shape(check_factors(
                parent.rank,
                (parent.items.len(), parent.item_factors()),
                (parent.users.len(), parent.user_factors()),
            ))?;
            Ok(parent)
        })
    }
}

/// Reads what is wanted of a model, while its file is compared with what was written.
fn load<T>(
    dir: &Path,
    read: impl FnOnce(&Reader<'_>, ModelInfo) -> Result<T, LoadError>,
) -> Result<T, LoadError> {
    let path = dir.join(INFO_FILE);
    let bytes = fs_err::metadata(&path)?.len();
    if bytes > MAX_INFO_BYTES {
        return Err(LoadError::TooLong { path, bytes });
    }
    let text = fs_err::read(&path)?;
    let bad = |source| LoadError::Info {
        path: path.clone(),
        source,
    };
    // The format comes first: another one may have other fields.
    let any: serde_json::Value = serde_json::from_slice(&text).map_err(bad)?;
    if let Some(found) = any.get("format").and_then(serde_json::Value::as_u64)
        && found != u64::from(FORMAT)
    {
        let found = u32::try_from(found).unwrap_or(u32::MAX);
        return Err(LoadError::Format { path, found });
    }
    let document: Document = serde_json::from_slice(&text).map_err(bad)?;

    let path = dir.join(SECTIONS_FILE);
    let file = SectionFile::open(&path, OpenMode::Map)?;
    let reader = Reader {
        file: &file,
        path: &path,
    };
    // What is read meanwhile is believed only if every byte is what was written.
    let (sound, wanted) = both(
        || reader.check(&document.sections),
        || read(&reader, document.model),
    );
    sound?;
    wanted
}

/// Whether factors are finite, and as many as there must be.
fn check_factors(
    rank: usize,
    (items, item_factors): (usize, &[f32]),
    (users, user_factors): (usize, &[f32]),
) -> Result<(), ShapeError> {
    if rank == 0 {
        return Err(ShapeError::Rank);
    }
    let check = |section, rows: usize, factors: &[f32]| {
        length(section, factors.len(), rows.saturating_mul(rank))?;
        all(section, factors, "not finite", |value| value.is_finite())
    };
    let (users, items) = both(
        || check("user_factors", users, user_factors),
        || check("item_factors", items, item_factors),
    );
    items.and(users)
}

/// Whether `dir` holds a model that may be replaced. An empty directory may be, too.
fn occupied(dir: &Path) -> Result<bool, SaveError> {
    let entries = match fs_err::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            return Err(SaveError::NotAModel {
                path: dir.to_owned(),
            });
        }
        Err(error) => return Err(error.into()),
    };
    for entry in entries {
        let name = entry?.file_name();
        if name != INFO_FILE && name != SECTIONS_FILE {
            return Err(SaveError::NotAModel {
                path: dir.to_owned(),
            });
        }
    }
    Ok(true)
}

/// A directory with a name of its own beside another, removed on drop wherever it still is.
struct Staging(PathBuf);

impl Staging {
    fn beside(dir: &Path, what: &str) -> Result<Self, io::Error> {
        let mut name = std::ffi::OsString::from(".");
        name.push(dir.file_name().unwrap_or_else(|| "model".as_ref()));
        name.push(format!(".{what}-{}", std::process::id()));
        let staging = Self(dir.with_file_name(name));
        if what == "tmp" {
            // Left by a process of the same number that was killed.
            match fs_err::remove_dir_all(&staging.0) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => fs_err::create_dir(&staging.0)?,
            }
        }
        Ok(staging)
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // Nothing can be done about a failure here, and the name tells what it is.
        let _ = fs_err::remove_dir_all(&self.0);
    }
}

fn length(section: &'static str, found: usize, expected: usize) -> Result<(), ShapeError> {
    if found == expected {
        return Ok(());
    }
    Err(ShapeError::Length {
        section,
        found,
        expected,
    })
}

fn all<T>(
    section: &'static str,
    values: &[T],
    problem: &'static str,
    holds: impl Fn(&T) -> bool,
) -> Result<(), ShapeError> {
    // To stop at the first would be to look at one at a time.
    const AT_A_TIME: usize = 1024;
    let all_hold = |values: &[T]| values.iter().fold(true, |all, value| all & holds(value));
    for (values, start) in values.chunks(AT_A_TIME).zip((0..).step_by(AT_A_TIME)) {
        if all_hold(values) {
            continue;
        }
        let at = values.iter().position(|value| !holds(value));
        let at = start + at.unwrap_or_default();
        return Err(ShapeError::Value {
            section,
            at,
            problem,
        });
    }
    Ok(())
}

/// Reads the sections of a file that was verified against its checksums.
struct Reader<'a> {
    file: &'a SectionFile,
    path: &'a Path,
}

impl Reader<'_> {
    /// Whether the file is whole, and the one that was meant.
    fn check(&self, meant: &FileDigest) -> Result<(), LoadError> {
        self.file.verify()?;
        if self.file.file_len() != meant.bytes || self.file.digest() != meant.digest {
            let path = self.path.to_owned();
            return Err(LoadError::Mixed { path });
        }
        Ok(())
    }

    fn model(&self, info: ModelInfo) -> Result<Model, LoadError> {
        // Who asks for what lies anywhere waits: two tables wait at once.
        let (users, items) = both(
            || {
                let factors = self.column("user_factors")?;
                Ok::<_, LoadError>((self.dictionary("users")?, factors))
            },
            || self.items(),
        );
        let (items, attributes, item_factors) = items?;
        let (users, user_factors) = users?;
        let held_out = self.column::<u32>("held_out")?;
        let (pairs, rest) = held_out.as_chunks::<2>();
        self.shape(length(
            "held_out",
            held_out.len() - rest.len(),
            held_out.len(),
        ))?;
        Ok(Model {
            attributes,
            items,
            users,
            item_factors,
            user_factors,
            item_listeners: self.column("item_listeners")?,
            item_plays: self.column("item_plays")?,
            held_out: pairs.iter().map(|&[user, item]| (user, item)).collect(),
            info,
        })
    }

    fn items(&self) -> Result<(Dictionary, Vec<Attributes>, Vec<f32>), LoadError> {
        let items = self.dictionary("items")?;
        let attributes = self.attributes(items.len())?;
        Ok((items, attributes, self.column("item_factors")?))
    }

    fn parent(&self, rank: usize) -> Result<Parent, LoadError> {
        // Who asks for what lies anywhere waits: two tables wait at once.
        let (users, items) = both(|| self.dictionary("users"), || self.dictionary("items"));
        Ok(Parent {
            rank,
            items: items?,
            users: users?,
            item_factors: self.file.column("item_factors")?,
            user_factors: self.file.column("user_factors")?,
        })
    }

    fn attributes(&self, items: usize) -> Result<Vec<Attributes>, LoadError> {
        let table = |section| StringTable::open(self.file, section);
        let (titles, artists, tags) = (table("titles")?, table("artists")?, table("tags")?);
        let tag_ends = self.file.column::<u64>("tag_ends")?;
        let tag_ordinals = self.file.column::<u32>("tag_ordinals")?;
        let releases = self.file.column::<i64>("release_times")?;
        let durations = self.file.column::<u32>("durations")?;
        let blocked = self.file.column::<u8>("blocked")?;
        for (section, found) in [
            ("titles", titles.len() as usize),
            ("artists", artists.len() as usize),
            ("tag_ends", tag_ends.len()),
            ("release_times", releases.len()),
            ("durations", durations.len()),
            ("blocked", blocked.len()),
        ] {
            self.shape(length(section, found, items))?;
        }
        let (tag_ends, tag_ordinals) = (tag_ends.as_slice(), tag_ordinals.as_slice());
        let (releases, durations) = (releases.as_slice(), durations.as_slice());
        let blocked = blocked.as_slice();
        let flag = |value: &u8| *value <= 1;
        self.shape(all("blocked", blocked, "neither 0 nor 1", flag))?;
        let nothing_known = [titles.bytes(), artists.bytes(), tag_ordinals.len()] == [0; 3]
            && releases.iter().all(|time| *time == NO_TIME)
            && durations.iter().all(|duration| *duration == NO_DURATION)
            && blocked.iter().all(|flag| *flag == 0);
        if nothing_known {
            return Ok(Vec::new());
        }

        let mut start = 0usize;
        let rows = (0..titles.len()).zip(0..items);
        rows.map(|(number, at)| {
            let value = |section, problem| ShapeError::Value {
                section,
                at,
                problem,
            };
            let end = usize::try_from(tag_ends[at]).unwrap_or(usize::MAX);
            let ordinals = tag_ordinals
                .get(start..end)
                .filter(|tags| tags.len() <= MAX_TAGS);
            let ordinals =
                self.shape(ordinals.ok_or(value("tag_ends", "out of order or range")))?;
            start = end;
            let name = |&ordinal: &u32| {
                if ordinal >= tags.len() {
                    return self.shape(Err(value("tag_ordinals", "out of range")));
                }
                self.string(&tags, "tags", ordinal, MAX_NAME_BYTES)
                    .map(str::to_owned)
            };
            let named = |table, section| {
                self.string(table, section, number, MAX_NAME_BYTES)
                    .map(str::to_owned)
            };
            Ok(Attributes {
                title: named(&titles, "titles")?,
                artist: named(&artists, "artists")?,
                tags: ordinals.iter().map(name).collect::<Result<_, _>>()?,
                release_time_s: Some(releases[at]).filter(|&time| time != NO_TIME),
                duration_ms: Some(durations[at]).filter(|&duration| duration != NO_DURATION),
                blocked: blocked[at] == 1,
            })
        })
        .collect()
    }

    fn dictionary(&self, section: &'static str) -> Result<Dictionary, LoadError> {
        let table = StringTable::open(self.file, section)?;
        let mut dictionary = Dictionary::with_capacity(table.len() as usize);
        for at in 0..table.len() {
            let string = self.string(&table, section, at, MAX_ID_BYTES)?;
            let problem = if string.is_empty() {
                "is empty"
            } else if dictionary.insert(string) != Some(at) {
                "is there twice"
            } else {
                continue;
            };
            return Err(self.text(section, at, problem));
        }
        Ok(dictionary)
    }

    fn string<'a>(
        &self,
        table: &'a StringTable,
        section: &'static str,
        at: u32,
        limit: usize,
    ) -> Result<&'a str, LoadError> {
        match table.get(at) {
            None => Err(self.text(section, at, "is not valid UTF-8")),
            Some(string) if string.len() > limit => Err(self.text(section, at, "is too long")),
            Some(string) => Ok(string),
        }
    }

    fn column<T: bytemuck::AnyBitPattern>(&self, section: &str) -> Result<Vec<T>, LoadError> {
        Ok(self.file.column::<T>(section)?.as_slice().to_vec())
    }

    fn text(&self, section: &'static str, at: u32, problem: &'static str) -> LoadError {
        LoadError::Text {
            path: self.path.to_owned(),
            section,
            at,
            problem,
        }
    }

    fn shape<T>(&self, checked: Result<T, ShapeError>) -> Result<T, LoadError> {
        checked.map_err(|source| LoadError::Shape {
            path: self.path.to_owned(),
            source,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::ModelCounts;

    fn model() -> Model {
        let attributes = |title: &str, tags: &[&str], blocked: bool| Attributes {
            title: title.to_owned(),
            artist: "Ann".to_owned(),
            tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
            release_time_s: blocked.then_some(-5),
            duration_ms: blocked.then_some(7),
            blocked,
        };
        Model {
            info: ModelInfo {
                rank: 2,
                hyper: serde_json::json!({"rank": 2}),
                command: "refrain train".to_owned(),
                seed: 9,
                watermark_us: Some(1_507_174_845_020_000),
                exclusion_watermark_us: Some(1_507_174_845_020_001),
                counts: ModelCounts {
                    users: 2,
                    items: 3,
                    events: 4,
                    plays: 5.5,
                },
                report: serde_json::json!({"recall": 0.25}),
                calibration: None,
            },
            items: ["x", "y", "ž"].into_iter().collect(),
            users: ["a", "b"].into_iter().collect(),
            item_factors: vec![0.0, -1.5, 2.0, 3.0, 4.0, f32::MIN_POSITIVE],
            user_factors: vec![1.0, 2.0, 3.0, 4.0],
            item_listeners: vec![2, 1, 0],
            item_plays: vec![3.0, 2.5, 0.0],
            attributes: vec![
                attributes("One", &["t", "u"], false),
                Attributes::default(),
                attributes("", &["u"], true),
            ],
            held_out: vec![(0, 2), (1, 0)],
        }
    }

    #[test]
    fn comes_back_as_it_was_and_replaces_only_models() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("deep/model");
        let mut expected = model();
        expected.save(&dir).unwrap();
        assert_eq!(Model::load(&dir).unwrap(), expected);
        let parent = Parent::load(&dir).unwrap();
        assert_eq!((parent.rank(), parent.items().get(2)), (2, Some("ž")));
        assert_eq!(parent.users().get(1), Some("b"));
        assert_eq!(parent.item_factors(), expected.item_factors);
        assert_eq!(parent.user_factors(), expected.user_factors);
        // Of items that nothing is known of nothing is held, and the file is the same.
        let blank = Model {
            attributes: vec![Attributes::default(); 3],
            ..expected.clone()
        };
        blank.save(&dir).unwrap();
        let bytes = fs_err::read(dir.join(SECTIONS_FILE)).unwrap();
        let unknown = Model::load(&dir).unwrap();
        assert!(unknown.attributes.is_empty());
        assert!(unknown.item_attributes().eq(&blank.attributes));
        unknown.save(&dir).unwrap();
        assert_eq!(fs_err::read(dir.join(SECTIONS_FILE)).unwrap(), bytes);
        expected.info.seed = 10;
        expected.save(&dir).unwrap();
        assert_eq!(Model::load(&dir).unwrap().info.seed, 10);
        let left: Vec<_> = fs_err::read_dir(root.path().join("deep"))
            .unwrap()
            .collect();
        assert_eq!(left.len(), 1, "staging directories are gone: {left:?}");

        fs_err::write(dir.join("notes.txt"), "mine").unwrap();
        assert!(matches!(
            expected.save(&dir),
            Err(SaveError::NotAModel { .. })
        ));
        assert!(dir.join("notes.txt").exists() && Model::load(&dir).is_ok());
        let file = root.path().join("file");
        fs_err::write(&file, "mine").unwrap();
        assert!(matches!(
            expected.save(&file),
            Err(SaveError::NotAModel { .. })
        ));
    }

    #[test]
    fn inconsistent_models_are_neither_saved_nor_loaded() {
        let dir = tempfile::tempdir().unwrap();
        let check = |break_it: &dyn Fn(&mut Model), part: &str| {
            let mut broken = model();
            break_it(&mut broken);
            let path = dir.path().join("broken");
            let message = broken.save(&path).unwrap_err().to_string();
            assert!(message.contains(part) && !path.exists(), "{message}");
        };
        check(
            &|m| m.item_factors[3] = f32::NAN,
            "'item_factors': value 3 is not finite",
        );
        check(
            &|m| m.user_factors.truncate(3),
            "'user_factors' has 3 values, expected 4",
        );
        check(
            &|m| m.held_out.push((2, 0)),
            "'held_out': value 2 is out of range",
        );
        check(
            &|m| m.item_plays[0] = -1.0,
            "'item_plays': value 0 is not a count",
        );
        check(
            &|m| m.attributes.truncate(2),
            "'attributes' has 2 values, expected 3",
        );
        check(&|m| m.info.rank = 0, "the rank is 0");

        // A file whose checksums are right may still say what cannot be.
        let path = dir.path().join("forged");
        fs_err::create_dir(&path).unwrap();
        let mut forged = model();
        forged.item_factors[0] = f32::INFINITY;
        let sections = forged.write_sections(&path.join(SECTIONS_FILE)).unwrap();
        let document = Document {
            format: FORMAT,
            sections,
            model: forged.info,
        };
        fs_err::write(path.join(INFO_FILE), serde_json::to_vec(&document).unwrap()).unwrap();
        let refused = [Model::load(&path).map(drop), Parent::load(&path).map(drop)];
        for message in refused.map(|refused| refused.unwrap_err().to_string()) {
            assert!(
                message.contains("model.rfs: section 'item_factors': value 0"),
                "{message}"
            );
        }
    }

    #[test]
    fn mixed_and_foreign_files_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (dir.path().join("one"), dir.path().join("two"));
        model().save(&one).unwrap();
        let mut other = model();
        other.item_plays[0] = 4.0;
        other.save(&two).unwrap();
        fs_err::copy(two.join(SECTIONS_FILE), one.join(SECTIONS_FILE)).unwrap();
        assert!(matches!(Model::load(&one), Err(LoadError::Mixed { .. })));
        let info = fs_err::read_to_string(two.join(INFO_FILE)).unwrap();
        let newer = info.replacen("\"format\": 1", "\"format\": 2", 1);
        fs_err::write(two.join(INFO_FILE), newer).unwrap();
        assert!(matches!(
            Model::load(&two),
            Err(LoadError::Format { found: 2, .. })
        ));
        let message = Model::load(&dir.path().join("none"))
            .unwrap_err()
            .to_string();
        assert!(message.contains("model.json"), "{message}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn any_flipped_or_missing_byte_is_found(
            file in prop::sample::select(vec![INFO_FILE, SECTIONS_FILE]),
            at in any::<prop::sample::Index>(),
            flip in 1u8..,
            cut in any::<bool>(),
        ) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("model");
            let expected = model();
            expected.save(&path).unwrap();
            let mut bytes = fs_err::read(path.join(file)).unwrap();
            let at = at.index(bytes.len());
            if cut { bytes.truncate(at) } else { bytes[at] ^= flip }
            fs_err::write(path.join(file), bytes).unwrap();
            match Model::load(&path) {
                Err(_) => {}
                // JSON may change in spaces or into another valid description; the bulk may not.
                Ok(got) => {
                    prop_assert_eq!(file, INFO_FILE);
                    prop_assert_eq!(got.item_factors, expected.item_factors.clone());
                }
            }
            if let Ok(got) = Parent::load(&path) {
                prop_assert_eq!(file, INFO_FILE);
                prop_assert_eq!(got.item_factors(), expected.item_factors);
            }
        }
    }
}
