//! What a killed job goes on from: a section file, checksummed like everything else, that appears whole or
//! not at all.
//!
//! It belongs to one input, one setting and one version of the program. One of another is passed over, a
//! damaged one too: to begin again is always right.

use std::io;
use std::path::{Path, PathBuf};

use refrain_bundle::{OpenMode, SectionFile, SectionWriter, WriteError};

use crate::evaluation::hash;

/// The place of one job's checkpoint.
#[derive(Debug)]
pub(crate) struct Place {
    path: PathBuf,
    digest: u64,
}

impl Place {
    /// In `dir`, which is made: the file `name`. `digest` is of everything that the job's outcome depends on,
    /// [begun](digest) here.
    ///
    /// # Errors
    /// The directory cannot be made.
    pub(crate) fn new(dir: &Path, name: &str, digest: u64) -> io::Result<Self> {
        fs_err::create_dir_all(dir)?;
        Ok(Self {
            path: dir.join(name),
            digest,
        })
    }

    /// The checkpoint and how far the job was; none where there is none of this job.
    pub(crate) fn load(&self) -> Option<(SectionFile, u64)> {
        let file = SectionFile::open(&self.path, OpenMode::Map).ok()?;
        file.verify().ok()?;
        let head = file.column::<u64>("head").ok()?;
        match head.as_slice() {
            &[digest, done] if digest == self.digest => Some((file, done)),
            _ => None,
        }
    }

    /// Keeps a checkpoint in place of the last one: how far the job is, and what `columns` adds.
    ///
    /// # Errors
    /// It cannot be written; the last one is still there.
    pub(crate) fn save(
        &self,
        done: u64,
        columns: impl FnOnce(&mut SectionWriter<'_>) -> Result<(), WriteError>,
    ) -> io::Result<()> {
        SectionWriter::write(&self.path, |file| {
            file.add_array("head", &[self.digest, done])?;
            columns(file)
        })
        .map(drop)
        .map_err(|error: WriteError| io::Error::other(error))
    }
}

/// Removes the checkpoints `names` of what is done, with what killed runs left of writing them, and `dir`
/// when nothing else is in it. What cannot be removed stays: the job is done all the same.
pub(crate) fn discard(dir: &Path, names: &[&str]) {
    for name in names {
        drop(SectionWriter::remove(&dir.join(name)));
    }
    drop(fs_err::remove_dir(dir));
}

/// Begins a digest: of the program's version and of settings as text.
pub(crate) fn digest(settings: &str) -> u64 {
    let version = env!("CARGO_PKG_VERSION").bytes();
    version
        .chain(settings.bytes())
        .fold(1, |sum, byte| hash(sum, u32::from(byte), 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(place: &Place) -> Option<(u64, Vec<u32>)> {
        let (file, done) = place.load()?;
        let values = file.column::<u32>("values").ok()?;
        Some((done, values.as_slice().to_vec()))
    }

    #[test]
    fn what_was_kept_last_comes_back_to_its_own_job_alone() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().join("not/there/yet");
        let place = Place::new(&home, "job", digest("a")).unwrap();
        assert_eq!(values(&place), None);
        for done in [3, 7] {
            place
                .save(done, |file| file.add_array("values", &[1u32, 2, 3]))
                .unwrap();
        }
        assert_eq!(values(&place), Some((7, vec![1, 2, 3])));
        let other = Place::new(&home, "job", digest("b")).unwrap();
        assert_eq!(values(&other), None, "another job's");
        fs_err::write(home.join(".job.tmp-1-2-3"), b"of a run that was killed").unwrap();
        fs_err::write(home.join("note"), b"somebody's").unwrap();
        discard(&home, &["job"]);
        assert_eq!(fs_err::read_dir(&home).unwrap().count(), 1);
        fs_err::remove_file(home.join("note")).unwrap();
        discard(&home, &["job"]);
        assert!(!home.exists());
    }

    #[test]
    fn a_damaged_one_is_passed_over_wherever_the_damage_is() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::new(dir.path(), "job", digest("a")).unwrap();
        place
            .save(7, |file| file.add_array("values", &[1u32, 2, 3]))
            .unwrap();
        let path = dir.path().join("job");
        let whole = fs_err::read(&path).unwrap();
        let kept = values(&place);
        for at in (0..whole.len()).step_by(1 + whole.len() / 700) {
            let mut flipped = whole.clone();
            flipped[at] ^= 0x10;
            fs_err::write(&path, &flipped).unwrap();
            let found = values(&place);
            assert!(found.is_none() || found == kept, "byte {at}: {found:?}");
            fs_err::write(&path, &whole[..at]).unwrap();
            assert_eq!(values(&place), None, "cut at {at}");
        }
        fs_err::write(&path, &whole).unwrap();
        assert_eq!(values(&place), kept);
    }

    #[test]
    fn one_that_cannot_be_kept_leaves_the_last() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::new(dir.path(), "job", digest("a")).unwrap();
        place
            .save(7, |file| file.add_array("values", &[1u32]))
            .unwrap();
        let failed = place.save(8, |file| {
            file.add_array("values", &[2u32])?;
            file.add_array("head", &[2u32])
        });
        assert!(failed.is_err());
        assert_eq!(fs_err::read_dir(dir.path()).unwrap().count(), 1);
        assert_eq!(values(&place), Some((7, vec![1])));
    }
}
