//! The journal of experiments on disk: appended under a lock, whole lines only, durable before it
//! counts.

use std::io::{Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use refrain_experiments::{Action, Journal, JournalError, LedgerError, Tip};

/// Largest journal, in bytes: some hundred thousand entries.
const MAX_BYTES: u64 = 64 << 20;

/// Where a journal lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalFile {
    path: PathBuf,
    /// How far it was read before: it must go on from there.
    tip: Option<Tip>,
}

/// What is to be written of an action, beside the action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signature<'a> {
    /// Who does it.
    pub by: &'a str,
    /// Why.
    pub reason: &'a str,
    /// Digest of the configuration in force.
    pub config_digest: &'a str,
}

/// Why a journal cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JournalFileError {
    /// It cannot be read or written; the source names it.
    #[error("{source}")]
    Io {
        /// What the system said.
        #[from]
        source: std::io::Error,
    },
    /// It is larger than any journal should be.
    #[error("{}: {bytes} bytes are more than {MAX_BYTES}; archive it and begin another", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// It was there when it was read before, with so many lines.
    #[error(
        "{}: is gone, and {lines} lines were read from it before; restore it from a backup: assignments \
         follow from it", path.display()
    )]
    Gone {
        /// The file.
        path: PathBuf,
        /// How many lines it had.
        lines: usize,
    },
    /// It is not what was written.
    #[error("{}: {source}; restore it from a backup: assignments follow from it", path.display())]
    Broken {
        /// The file.
        path: PathBuf,
        /// Where, and what.
        source: JournalError,
    },
    /// The action cannot be done.
    #[error("{0}")]
    Refused(#[from] LedgerError),
}

impl JournalFile {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, tip: None }
    }

    /// The same file, which must go on from where a reading ended: one that is gone, shorter or another
    /// is refused, since the chain of what is there cannot show it.
    pub(crate) fn after(self, tip: Option<&Tip>) -> Self {
        let tip = tip.filter(|tip| tip.lines() > 0).cloned();
        Self { tip, ..self }
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads and verifies it. One that does not exist is empty.
    ///
    /// # Errors
    /// It cannot be read, or does not verify.
    pub fn read(&self) -> Result<Journal, JournalFileError> {
        let mut file = match fs_err::File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return self.gone().map_or_else(|| Ok(Journal::default()), Err);
            }
            Err(error) => return Err(error.into()),
        };
        self.parse(&mut file)
    }

    /// Does what `decide` makes of the journal as it is, and writes it. Two writers take turns; when
    /// this returns, the entry is on disk.
    ///
    /// # Errors
    /// As [`read`](Self::read), what `decide` says, or the action cannot be done. Then nothing was
    /// written.
    pub fn append<E: From<JournalFileError>>(
        &self,
        signature: Signature<'_>,
        decide: impl FnOnce(&Journal) -> Result<Action, E>,
    ) -> Result<Journal, E> {
        let mut file = self.open()?;
        // Released when the file is closed.
        file.file().lock().map_err(JournalFileError::from)?;
        let mut journal = self.parse(&mut file)?;
        let whole = journal.whole_bytes() as u64;
        let action = decide(&journal)?;
        let line = journal
            .append(
                action,
                Timestamp::now(),
                signature.by,
                signature.reason,
                signature.config_digest,
            )
            .map_err(JournalFileError::from)?;
        self.write(&mut file, whole, &line)
            .map_err(JournalFileError::from)?;
        Ok(journal)
    }

    fn gone(&self) -> Option<JournalFileError> {
        self.tip.as_ref().map(|tip| JournalFileError::Gone {
            path: self.path.clone(),
            lines: tip.lines(),
        })
    }

    fn open(&self) -> Result<fs_err::File, JournalFileError> {
        let new = !self.path.exists();
        if new && let Some(gone) = self.gone() {
            return Err(gone);
        }
        let file = fs_err::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&self.path)?;
        if new && let Some(folder) = self.path.parent() {
            let folder = if folder.as_os_str().is_empty() {
                Path::new(".")
            } else {
                folder
            };
            fs_err::File::open(folder)?.sync_all()?;
        }
        Ok(file)
    }

    /// What is behind the whole lines was never acknowledged: a writer died. The next line takes its
    /// place.
    fn write(&self, file: &mut fs_err::File, whole: u64, line: &str) -> std::io::Result<()> {
        file.set_len(whole)?;
        file.seek(std::io::SeekFrom::Start(whole))?;
        let written = file
            .write_all(line.as_bytes())
            .and_then(|()| file.sync_all());
        if written.is_err() {
            // A full disk: leave what was there.
            let _ = file.set_len(whole);
        }
        written
    }

    fn parse(&self, file: &mut fs_err::File) -> Result<Journal, JournalFileError> {
        let bytes = file.metadata()?.len();
        if bytes > MAX_BYTES {
            return Err(JournalFileError::TooLarge {
                path: self.path.clone(),
                bytes,
            });
        }
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        let journal = Journal::parse(&text).and_then(|journal| {
            self.tip
                .as_ref()
                .map_or(Ok(()), |tip| journal.extends(tip))?;
            Ok(journal)
        });
        journal.map_err(|source| JournalFileError::Broken {
            path: self.path.clone(),
            source,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signature() -> Signature<'static> {
        Signature {
            by: "anna",
            reason: "a test",
            config_digest: "d",
        }
    }

    fn allocate(name: &str, bp: u32) -> Action {
        Action::Allocate {
            experiment: name.to_owned(),
            epoch: 1,
            arms_digest: String::new(),
            layer: "l".to_owned(),
            layer_epoch: 1,
            bp,
            seed: name.to_owned(),
            waived: Vec::new(),
        }
    }

    #[test]
    fn writers_take_turns_and_the_chain_verifies() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = JournalFile::new(folder.path().join("experiments.jsonl"));
        assert_eq!(file.read().expect("empty"), Journal::default());
        std::thread::scope(|scope| {
            for writer in 0..4 {
                let file = &file;
                scope.spawn(move || {
                    for i in 0..10 {
                        let name = format!("{writer}-{i}");
                        let done = file.append(signature(), |_| {
                            Ok::<_, JournalFileError>(allocate(&name, 100))
                        });
                        done.expect("fits");
                    }
                });
            }
        });
        let journal = file.read().expect("verifies");
        assert_eq!(journal.entries().len(), 40);
        let error = file
            .append(signature(), |_| {
                Ok::<_, JournalFileError>(allocate("x", 6_001))
            })
            .expect_err("6000 are left");
        assert!(
            error.to_string().contains("6000 basis points free"),
            "{error}"
        );
        assert_eq!(file.read().expect("verifies"), journal);
    }

    #[test]
    fn a_journal_that_was_read_must_go_on_from_there() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = JournalFile::new(folder.path().join("experiments.jsonl"));
        let append = |file: &JournalFile, name: &str| {
            file.append(signature(), |_| {
                Ok::<_, JournalFileError>(allocate(name, 1))
            })
        };
        append(&file, "a").expect("fits");
        let tip = append(&file, "b").expect("fits").tip();
        let text = fs_err::read_to_string(file.path()).expect("readable");
        let follower = file.clone().after(Some(&tip));
        let longer = append(&follower, "c").expect("goes on from there");
        assert_eq!(follower.read().expect("goes on from there"), longer);

        let cut = text.split_inclusive('\n').next().expect("a line");
        fs_err::write(file.path(), cut).expect("writable");
        assert!(file.read().is_ok(), "the chain does not show it");
        for error in [
            follower.read().expect_err("shorter"),
            append(&follower, "d").expect_err("shorter"),
        ] {
            let error = error.to_string();
            assert!(
                error.contains("line 2 is gone: it has 1 lines and had 2"),
                "{error}"
            );
        }
        fs_err::remove_file(file.path()).expect("there");
        for error in [
            follower.read().expect_err("gone"),
            append(&follower, "d").expect_err("gone"),
        ] {
            let error = error.to_string();
            assert!(error.contains("is gone, and 2 lines were read"), "{error}");
        }
        assert!(!file.path().exists(), "what is gone is not begun anew");
        assert_eq!(file.read().expect("empty"), Journal::default());
    }

    #[test]
    fn a_torn_line_gives_way_to_the_next() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = JournalFile::new(folder.path().join("experiments.jsonl"));
        let append = |name: &str| {
            file.append(signature(), |_| {
                Ok::<_, JournalFileError>(allocate(name, 1))
            })
            .expect("fits")
        };
        append("a");
        let mut text = fs_err::read_to_string(file.path()).expect("readable");
        text += "{\"seq\":2,\"time\":\"a very long line that was never finished, longer than the next one is going to be";
        fs_err::write(file.path(), &text).expect("writable");
        let journal = append("b");
        assert_eq!(file.read().expect("verifies"), journal);
        assert_eq!(journal.entries().len(), 2);
    }
}
