//! Writing a section file.

use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::Duration;

use bytemuck::NoUninit;
use serde::Serialize;
use xxhash_rust::xxh3::xxh3_64;

use super::layout::{
    self, BLOCK_LEN, CHECKSUMS, ENDIAN_TAG, ENTRY_LEN, Entry, FLAG_HOT, FLAG_OPTIONAL,
    FORMAT_MAJOR, FORMAT_MINOR, Header, MAX_SECTIONS, PREFIX_LEN, TABLE_LEN,
};
use crate::both::both;
use crate::digest::FileDigest;
use crate::{durable, record};

/// A section to be written.
#[derive(Debug, Clone, Copy)]
pub struct SectionSpec<'a> {
    /// 1 to 32 of `a-z 0-9 _ - .`, starting with a letter; unique in its file.
    pub name: &'a str,
    /// Bytes of one element, for a person who inspects the file; the length is a multiple of it.
    pub element_len: u32,
    /// Touched by every query: starts on a 2 MiB boundary when it has 16 MiB or more.
    pub hot: bool,
    /// A reader that does not know the name may ignore the section instead of refusing the file.
    pub optional: bool,
}

impl<'a> SectionSpec<'a> {
    /// A required section of single bytes, not hot.
    pub fn new(name: &'a str) -> Self {
        Self {
            name,
            element_len: 1,
            hot: false,
            optional: false,
        }
    }

    /// The same with elements of `size_of::<T>()` bytes.
    #[must_use]
    pub fn of<T>(self) -> Self {
        let element_len = u32::try_from(size_of::<T>()).unwrap_or(1).max(1);
        Self {
            element_len,
            ..self
        }
    }
}

/// A section file could not be written; nothing was left behind.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The system refused (disk full, no permission, no such directory): the message has the path.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A name that the format does not allow.
    #[error(
        "section name {name:?} is not 1 to 32 of a-z, 0-9, '_', '-', '.', starting with a letter"
    )]
    BadName {
        /// The name.
        name: String,
    },
    /// A name given twice, or that of the checksums.
    #[error("section {name:?} is there already")]
    DuplicateName {
        /// The name.
        name: String,
    },
    /// More sections than the table holds.
    #[error("a file holds at most {} sections", MAX_SECTIONS - 1)]
    TooManySections,
    /// A length that is no multiple of the element's.
    #[error("section {name:?} of {len} bytes does not hold whole elements of {element_len} bytes")]
    PartialElement {
        /// The section.
        name: String,
        /// Its length in bytes.
        len: u64,
        /// Bytes of an element.
        element_len: u32,
    },
    /// A string that occurs twice where it must not, an item id for one.
    #[error("{string:?} occurs twice: as number {first} and as number {second}")]
    Duplicate {
        /// The string.
        string: String,
        /// Where it was first, from 0.
        first: usize,
        /// Where it was again.
        second: usize,
    },
    /// A value that breaks a rule of the format.
    #[error("{what} number {at}: {rule}")]
    BadValue {
        /// What kind of thing it is: "item".
        what: &'static str,
        /// Which one, from 0.
        at: usize,
        /// The rule it breaks.
        rule: &'static str,
    },
    /// More than 2^32 - 2 of something.
    #[error("there are more {what} than 4294967294")]
    TooMany {
        /// Of what.
        what: &'static str,
    },
    /// No hash table of reasonable size holds the strings.
    #[error("{strings} strings collide in the hash table beyond what chance explains")]
    Collisions {
        /// How many strings there are.
        strings: usize,
    },
    /// A metadata record does not encode.
    #[error("cannot encode the record of section {section:?}: {reason}")]
    Record {
        /// The section.
        section: String,
        /// Why.
        reason: String,
    },
}

/// Writes `sections` (name, bytes, hot) to a new file at `path`, durably and atomically: it is
/// written under a temporary name, synced and renamed. Returns the length and digest of the file.
///
/// # Errors
/// See [`WriteError`]; `path` is then as it was.
pub fn write_sections(
    path: &Path,
    sections: &[(&str, &[u8], bool)],
) -> Result<FileDigest, WriteError> {
    SectionWriter::write(path, |writer| {
        sections.iter().try_for_each(|&(name, bytes, hot)| {
            writer.add(
                SectionSpec {
                    hot,
                    ..SectionSpec::new(name)
                },
                bytes,
            )
        })
    })
}

/// Writes sections one after another, so that no more than one need be in memory.
pub struct SectionWriter<'a> {
    out: BufWriter<&'a mut dyn WriteSeek>,
    position: u64,
    entries: Vec<Entry>,
    /// One crc32c a block, little-endian, in the order of the table.
    checksums: Vec<u8>,
}

impl SectionWriter<'_> {
    /// Writes a new file at `path` with the sections that `fill` adds, as [`write_sections`] does.
    ///
    /// # Errors
    /// Those of `fill` and of writing; `path` is then as it was.
    pub fn write<E: From<WriteError> + From<io::Error>>(
        path: &Path,
        fill: impl FnOnce(&mut SectionWriter<'_>) -> Result<(), E>,
    ) -> Result<FileDigest, E> {
        durable::replace(path, |file| {
            Self::fill(file, fill)?;
            // Read back: the digest is of what the system holds, not of what we meant to write. It goes to the
            // disk meanwhile.
            file.seek(SeekFrom::Start(0))?;
            let same = file.try_clone()?;
            let (synced, digest) = both(|| same.sync_all(), || FileDigest::read(file));
            synced?;
            Ok(digest?)
        })
    }

    /// As [`write`](Self::write), for a file that can be made again and that is [verified](super::SectionFile::verify)
    /// before it is believed: it appears whole or not at all to whoever looks, but nobody waits for the disk, and after a
    /// power cut it may be damaged. It is not read back either.
    ///
    /// # Errors
    /// Those of [`write`](Self::write).
    pub fn write_cache<E: From<WriteError> + From<io::Error>>(
        path: &Path,
        fill: impl FnOnce(&mut SectionWriter<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        durable::replace_unsynced(path, |file| Self::fill(file, fill))
    }

    fn fill<E: From<WriteError> + From<io::Error>>(
        file: &mut dyn WriteSeek,
        fill: impl FnOnce(&mut SectionWriter<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut writer = SectionWriter::new(file)?;
        fill(&mut writer)?;
        Ok(writer.finish()?)
    }

    /// Removes the file at `path`, where it is there, and what killed processes left of writing it.
    ///
    /// # Errors
    /// The system refuses.
    pub fn remove(path: &Path) -> io::Result<()> {
        durable::remove(path)
    }

    /// Removes what killed processes left of writing the file at `path`: who has written nothing for so long.
    ///
    /// # Errors
    /// The system refuses.
    pub fn remove_left(path: &Path, silent: Duration) -> io::Result<()> {
        durable::remove_left(path, silent)
    }

    /// Adds a section.
    ///
    /// # Errors
    /// See [`WriteError`]. After an error the file must be given up.
    pub fn add(&mut self, spec: SectionSpec<'_>, bytes: &[u8]) -> Result<(), WriteError> {
        self.check_new(&spec)?;
        let first_checksum = self.next_checksum();
        bytes
            .chunks(BLOCK_BYTES)
            .for_each(|block| self.add_checksum(block));
        self.append(spec, bytes, first_checksum)
    }

    /// Adds a section, not hot, whose bytes need not be in memory together: each call of `more` appends some to an empty
    /// buffer, of any length, the last one none.
    ///
    /// # Errors
    /// As [`add`](Self::add), and those of `more`.
    pub fn add_pieces<E: From<WriteError>>(
        &mut self,
        spec: SectionSpec<'_>,
        mut more: impl FnMut(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        self.check_new(&spec)?;
        let spec = SectionSpec { hot: false, ..spec };
        let first_checksum = self.next_checksum();
        // An empty section begins here; its end moves as bytes come.
        self.append(spec, &[], first_checksum)?;
        let mut block: Vec<u8> = Vec::with_capacity(BLOCK_BYTES);
        let mut piece = Vec::new();
        loop {
            piece.clear();
            more(&mut piece)?;
            let mut rest = piece.as_slice();
            while let Some((fits, beyond)) = rest.split_at_checked(BLOCK_BYTES - block.len()) {
                block.extend_from_slice(fits);
                self.extend(&block)?;
                block.clear();
                rest = beyond;
            }
            block.extend_from_slice(rest);
            if piece.is_empty() {
                break;
            }
        }
        if !block.is_empty() {
            self.extend(&block)?;
        }
        let len = self.entries.last().map_or(0, |entry| entry.len);
        Ok(check_elements(&spec, len)?)
    }

    /// Adds a required section of numbers, not hot.
    ///
    /// # Errors
    /// As [`add`](Self::add).
    pub fn add_array<T: NoUninit>(&mut self, name: &str, values: &[T]) -> Result<(), WriteError> {
        self.add(
            SectionSpec::new(name).of::<T>(),
            bytemuck::cast_slice(values),
        )
    }

    /// Adds a small metadata record.
    pub(crate) fn add_record<T: Serialize>(
        &mut self,
        name: &str,
        version: u8,
        value: &T,
    ) -> Result<(), WriteError> {
        let bytes = record::encode(version, value).map_err(|error| WriteError::Record {
            section: name.to_owned(),
            reason: error.to_string(),
        })?;
        self.add(SectionSpec::new(name), &bytes)
    }
}

/// What a section file can be written to: a file, or memory in a test.
trait WriteSeek: Write + Seek {}
impl<T: Write + Seek> WriteSeek for T {}

const BLOCK_BYTES: usize = 1 << 20;
const _: () = assert!(BLOCK_BYTES as u64 == BLOCK_LEN);

impl<'a> SectionWriter<'a> {
    fn new(out: &'a mut dyn WriteSeek) -> io::Result<Self> {
        let mut out = BufWriter::with_capacity(BLOCK_BYTES, out);
        // Header and table are known last; until they are there, the file has no magic.
        out.write_all(&[0; PREFIX_LEN])?;
        Ok(Self {
            out,
            position: PREFIX_LEN as u64,
            entries: Vec::new(),
            checksums: Vec::new(),
        })
    }

    fn check_new(&self, spec: &SectionSpec<'_>) -> Result<(), WriteError> {
        if spec.name == CHECKSUMS || self.entries.iter().any(|entry| entry.name == spec.name) {
            return Err(WriteError::DuplicateName {
                name: spec.name.to_owned(),
            });
        }
        if self.entries.len() + 1 >= MAX_SECTIONS {
            return Err(WriteError::TooManySections);
        }
        Ok(())
    }

    fn next_checksum(&self) -> u64 {
        (self.checksums.len() / size_of::<u32>()) as u64
    }

    fn add_checksum(&mut self, block: &[u8]) {
        self.checksums
            .extend_from_slice(&crc32c::crc32c(block).to_le_bytes());
    }

    /// Makes the last section longer by a block.
    fn extend(&mut self, block: &[u8]) -> Result<(), WriteError> {
        self.add_checksum(block);
        self.out.write_all(block)?;
        self.position += block.len() as u64;
        if let Some(entry) = self.entries.last_mut() {
            entry.len += block.len() as u64;
        }
        Ok(())
    }

    fn append(
        &mut self,
        spec: SectionSpec<'_>,
        bytes: &[u8],
        first_checksum: u64,
    ) -> Result<(), WriteError> {
        let SectionSpec {
            name,
            element_len,
            hot,
            optional,
        } = spec;
        let len = bytes.len() as u64;
        if !layout::is_name(name) {
            return Err(WriteError::BadName {
                name: name.to_owned(),
            });
        }
        check_elements(&spec, len)?;
        let offset = layout::aligned(self.position, hot, len);
        io::copy(
            &mut io::repeat(0).take(offset - self.position),
            &mut self.out,
        )?;
        self.out.write_all(bytes)?;
        self.position = offset + len;
        let flags = if hot { FLAG_HOT } else { 0 } | if optional { FLAG_OPTIONAL } else { 0 };
        let name = name.to_owned();
        self.entries.push(Entry {
            name,
            flags,
            element_len,
            offset,
            len,
            first_checksum,
        });
        Ok(())
    }

    fn finish(mut self) -> Result<(), WriteError> {
        let checksums = std::mem::take(&mut self.checksums);
        // The checksums of the checksums would be their own: the header has one instead.
        self.append(SectionSpec::new(CHECKSUMS).of::<u32>(), &checksums, 0)?;
        let mut table = [0; TABLE_LEN];
        for (slot, entry) in table.chunks_exact_mut(ENTRY_LEN).zip(&self.entries) {
            entry.encode_into(slot);
        }
        let header = Header {
            major: FORMAT_MAJOR,
            minor: FORMAT_MINOR,
            endian: ENDIAN_TAG,
            incompat: 0,
            compat: 0,
            file_len: self.position,
            section_count: self.entries.len() as u64,
            block_len: BLOCK_LEN,
            table_checksum: xxh3_64(&table),
            checksums_checksum: xxh3_64(&checksums),
        };
        self.out.seek(SeekFrom::Start(0))?;
        self.out.write_all(&header.encode())?;
        self.out.write_all(&table)?;
        self.out.flush()?;
        Ok(())
    }
}

fn check_elements(spec: &SectionSpec<'_>, len: u64) -> Result<(), WriteError> {
    let element_len = spec.element_len;
    if element_len == 0 || !len.is_multiple_of(u64::from(element_len)) {
        return Err(WriteError::PartialElement {
            name: spec.name.to_owned(),
            len,
            element_len,
        });
    }
    Ok(())
}

impl std::fmt::Debug for SectionWriter<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<&str> = self.entries.iter().map(|entry| &*entry.name).collect();
        f.debug_struct("SectionWriter")
            .field("position", &self.position)
            .field("sections", &names)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A device with room for so many bytes.
    struct Full {
        room: u64,
        inner: io::Cursor<Vec<u8>>,
    }

    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.inner.position() + bytes.len() as u64 > self.room {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.inner.write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            self.inner.flush()
        }
    }

    impl Seek for Full {
        fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
            self.inner.seek(to)
        }
    }

    fn write_to(out: &mut dyn WriteSeek, bytes: &[u8]) -> Result<(), WriteError> {
        let mut writer = SectionWriter::new(out)?;
        writer.add(SectionSpec::new("a"), bytes)?;
        writer.finish()
    }

    #[test]
    fn a_full_disk_is_an_error_and_the_header_comes_last() {
        let bytes = vec![7; 3 * BLOCK_BYTES];
        for room in [0, 100, PREFIX_LEN as u64 + 5, 3 * BLOCK_LEN] {
            let mut device = Full {
                room,
                inner: io::Cursor::default(),
            };
            let error = write_to(&mut device, &bytes).unwrap_err();
            assert!(
                matches!(&error, WriteError::Io(e) if e.kind() == io::ErrorKind::StorageFull),
                "{error}"
            );
            let written = device.inner.into_inner();
            assert!(
                written.iter().take(PREFIX_LEN).all(|&b| b == 0),
                "no magic yet"
            );
        }
    }

    #[test]
    fn wrong_specs_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let write = |sections: &[(&str, &[u8], bool)]| write_sections(&path, sections).unwrap_err();
        assert!(matches!(write(&[("A", b"", false)]), WriteError::BadName { name } if name == "A"));
        let twice = write(&[("a", b"1", false), ("a", b"2", false)]);
        assert!(matches!(twice, WriteError::DuplicateName { name } if name == "a"));
        assert!(matches!(
            write(&[(CHECKSUMS, b"", false)]),
            WriteError::DuplicateName { .. }
        ));
        let names: Vec<String> = (0..MAX_SECTIONS).map(|i| format!("s{i}")).collect();
        let many: Vec<(&str, &[u8], bool)> =
            names.iter().map(|n| (&**n, &b""[..], false)).collect();
        assert!(matches!(write(&many), WriteError::TooManySections));
        assert!(write_sections(&path, &many[1..]).is_ok(), "one less fits");
        let partial = SectionWriter::write(&path, |writer| {
            writer.add(SectionSpec::new("x").of::<u64>(), b"1234567")
        });
        assert!(matches!(
            partial,
            Err(WriteError::PartialElement {
                len: 7,
                element_len: 8,
                ..
            })
        ));
    }
}
