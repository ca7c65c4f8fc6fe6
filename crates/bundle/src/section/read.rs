//! Opening and verifying a section file.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytemuck::AnyBitPattern;
use bytes::Bytes;
use serde::de::DeserializeOwned;
use xxhash_rust::xxh3::xxh3_64;

use super::layout::{
    self, ALIGN, BLOCK_LEN, CHECKSUMS, ENDIAN_TAG, ENTRY_LEN, Entry, FLAG_HOT, FLAG_OPTIONAL,
    FORMAT_MAJOR, HEADER_LEN, Header, KNOWN_FLAGS, KNOWN_INCOMPAT, MAGIC, MAX_SECTIONS, PREFIX_LEN,
};
use crate::column::Column;
use crate::corruption::{Corruption, Mismatch};
use crate::digest::Digest;
use crate::{map, record};

/// How the bytes of a file come into memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum OpenMode {
    /// Mapped; pages are read when first touched. Opening is O(1).
    #[default]
    Map,
    /// Mapped, and all pages read before `open` returns: no page fault meets a query.
    Populate,
    /// Copied into memory of its own, in large pages where the system grants them: fewer misses of
    /// the address cache than with the small pages of a mapped file, for memory that no other
    /// process shares and that cannot be dropped and read again.
    Copy,
}

/// A section file could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The system refused: the message has the path.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The file does not begin like a section file.
    #[error("{}: not a section file", file.display())]
    NotASectionFile {
        /// The file.
        file: PathBuf,
    },
    /// Written by a version of the format that this build does not read.
    #[error("{}: section format {found} is not supported, only {FORMAT_MAJOR}", file.display())]
    Version {
        /// The file.
        file: PathBuf,
        /// Its major version.
        found: u16,
    },
    /// The file needs features that this build does not have.
    #[error("{}: needs unknown features {bits:#x}", file.display())]
    Features {
        /// The file.
        file: PathBuf,
        /// The unknown incompat bits.
        bits: u64,
    },
    /// A section that must be understood is not known to this reader.
    #[error("{}: required section {section:?} is unknown; a newer version wrote it", file.display())]
    UnknownSection {
        /// The file.
        file: PathBuf,
        /// The section.
        section: String,
    },
    /// A section that the reader needs is not there.
    #[error("{}: section {section:?} is missing", file.display())]
    MissingSection {
        /// The file.
        file: PathBuf,
        /// The section.
        section: String,
    },
    /// A metadata record cannot be read.
    #[error("{}: {section}: {reason}", file.display())]
    Record {
        /// The file.
        file: PathBuf,
        /// The section that holds the record.
        section: String,
        /// Why it cannot be read: damage, or another version.
        reason: String,
    },
    /// Header, table or a small section is damaged.
    #[error(transparent)]
    Corrupt(#[from] Corruption),
}

/// A mapped section file. Clones share the map.
#[derive(Debug, Clone)]
pub struct SectionFile {
    inner: Arc<Inner>,
}

/// One line of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SectionInfo {
    /// Its name.
    pub name: String,
    /// Where it begins in the file.
    pub offset: u64,
    /// Its length in bytes.
    pub len: u64,
    /// Bytes of one element.
    pub element_len: u32,
    /// Whether every query touches it.
    pub hot: bool,
    /// Whether a reader that does not know it may ignore it.
    pub optional: bool,
}

impl SectionFile {
    /// Maps `path` and checks header and table: O(1), whatever the file's size.
    ///
    /// A truncated or extended file and any damage to header or table is found here; damage to a
    /// section is found by [`verify`](Self::verify), and until then gives wrong bytes, no more.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(path: &Path, mode: OpenMode) -> Result<Self, OpenError> {
        let on_disk = fs_err::metadata(path)?.len();
        if on_disk == 0 {
            return Err(OpenError::NotASectionFile {
                file: path.to_owned(),
            });
        }
        Self::parse(path, map::map(path, mode)?)
    }

    /// The bytes of a section, shared with the map; `None` when there is no such section.
    pub fn section(&self, name: &str) -> Option<Bytes> {
        let entry = self
            .inner
            .sections
            .iter()
            .find(|entry| entry.name == name)?;
        Some(self.slice(entry))
    }

    /// A section that must be there, as an array of `T`.
    ///
    /// # Errors
    /// [`OpenError::MissingSection`]; [`OpenError::Corrupt`] when it does not hold whole elements.
    pub fn column<T: AnyBitPattern>(&self, name: &str) -> Result<Column<T>, OpenError> {
        let bytes = self.section(name).ok_or_else(|| self.missing(name))?;
        let len = bytes.len() as u64;
        Column::new(bytes).ok_or_else(|| {
            self.broken(name, 0, "sections hold whole aligned elements", len)
                .into()
        })
    }

    /// A small metadata record.
    pub(crate) fn record<T: DeserializeOwned>(
        &self,
        name: &str,
        version: u8,
    ) -> Result<T, OpenError> {
        let bytes = self.section(name).ok_or_else(|| self.missing(name))?;
        record::decode(version, &bytes).map_err(|error| OpenError::Record {
            file: self.path().to_owned(),
            section: name.to_owned(),
            reason: error.to_string(),
        })
    }

    /// The table, in file order, without the checksums.
    pub fn sections(&self) -> impl Iterator<Item = SectionInfo> + '_ {
        self.inner.sections.iter().map(|entry| SectionInfo {
            name: entry.name.clone(),
            offset: entry.offset,
            len: entry.len,
            element_len: entry.element_len,
            hot: entry.flags & FLAG_HOT != 0,
            optional: entry.flags & FLAG_OPTIONAL != 0,
        })
    }

    /// Refuses the file when it has a required section that is not among `known`.
    ///
    /// # Errors
    /// [`OpenError::UnknownSection`].
    pub fn require_known(&self, known: &[&str]) -> Result<(), OpenError> {
        let required = |entry: &&Entry| entry.flags & FLAG_OPTIONAL == 0;
        match self
            .inner
            .sections
            .iter()
            .filter(required)
            .find(|e| !known.contains(&&*e.name))
        {
            None => Ok(()),
            Some(entry) => Err(OpenError::UnknownSection {
                file: self.path().to_owned(),
                section: entry.name.clone(),
            }),
        }
    }

    /// Reads the whole file and checks every byte of it: sections against their checksums, the gaps
    /// between them against zero. Header and table were checked when it was opened.
    ///
    /// # Errors
    /// The first damage in file order, with section and offset.
    pub fn verify(&self) -> Result<(), Corruption> {
        let checksums = self.slice(&self.inner.checksums);
        let got = xxh3_64(&checksums);
        if got != self.inner.checksums_checksum {
            let mismatch = Mismatch::Checksum {
                expected: self.inner.checksums_checksum,
                got,
            };
            return Err(self.corruption(CHECKSUMS, self.inner.checksums.offset, mismatch));
        }
        let (checksums, _) = checksums.as_chunks::<4>();
        let mut checksums = checksums.iter().map(|bytes| u32::from_le_bytes(*bytes));
        self.verify_padding()?;
        for entry in &self.inner.sections {
            let mut offset = entry.offset;
            for block in self.slice(entry).chunks(BLOCK_BYTES) {
                let expected = checksums.next().map(u64::from).unwrap_or_default();
                let got = u64::from(crc32c::crc32c(block));
                if got != expected {
                    let mismatch = Mismatch::Checksum { expected, got };
                    return Err(self.corruption(&entry.name, offset, mismatch));
                }
                offset += BLOCK_LEN;
            }
        }
        Ok(())
    }

    /// The path it was opened at.
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// The length of the file in bytes.
    pub fn file_len(&self) -> u64 {
        self.inner.bytes.len() as u64
    }

    /// The digest of the whole file: reads all of it.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.inner.bytes)
    }

    /// A [`Corruption`] of this file: `rule` is broken by the value `got`, `at` bytes into `section`.
    pub fn broken(&self, section: &str, at: u64, rule: &'static str, got: u64) -> Corruption {
        let base = self
            .inner
            .sections
            .iter()
            .find(|entry| entry.name == section);
        let offset = base.map_or(0, |entry| entry.offset) + at;
        self.corruption(section, offset, Mismatch::Rule { rule, got })
    }

    /// [`OpenError::MissingSection`] of this file.
    pub fn missing(&self, section: &str) -> OpenError {
        OpenError::MissingSection {
            file: self.path().to_owned(),
            section: section.to_owned(),
        }
    }
}

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    bytes: Bytes,
    sections: Vec<Entry>,
    checksums: Entry,
    checksums_checksum: u64,
}

const BLOCK_BYTES: usize = 1 << 20;
const _: () = assert!(BLOCK_BYTES as u64 == BLOCK_LEN);

impl SectionFile {
    fn parse(path: &Path, bytes: Bytes) -> Result<Self, OpenError> {
        let file = || path.to_owned();
        let corrupt = |section: &str, offset: usize, mismatch| Corruption {
            file: file(),
            section: section.to_owned(),
            offset: offset as u64,
            mismatch,
        };
        if !bytes.starts_with(&MAGIC) {
            return Err(OpenError::NotASectionFile { file: file() });
        }
        let got = bytes.len() as u64;
        let Some((header_bytes, rest)) = bytes.split_first_chunk::<HEADER_LEN>() else {
            let mismatch = Mismatch::Length {
                expected: PREFIX_LEN as u64,
                got,
            };
            return Err(corrupt("header", bytes.len(), mismatch).into());
        };
        let (expected, actual) = Header::checksums(header_bytes);
        let header = Header::decode(header_bytes);
        // Before the checksum: a later format may keep it elsewhere.
        if header.major != FORMAT_MAJOR && expected == actual {
            return Err(OpenError::Version {
                file: file(),
                found: header.major,
            });
        }
        if expected != actual {
            let mismatch = Mismatch::Checksum {
                expected,
                got: actual,
            };
            return Err(corrupt("header", 0, mismatch).into());
        }
        if header.incompat & !KNOWN_INCOMPAT != 0 {
            let bits = header.incompat & !KNOWN_INCOMPAT;
            return Err(OpenError::Features { file: file(), bits });
        }
        if header.endian != ENDIAN_TAG || header.block_len != BLOCK_LEN {
            let rule = "files are little-endian with blocks of 1 MiB";
            let mismatch = Mismatch::Rule {
                rule,
                got: header.block_len,
            };
            return Err(corrupt("header", 0, mismatch).into());
        }
        if header.file_len != got {
            let mismatch = Mismatch::Length {
                expected: header.file_len,
                got,
            };
            return Err(corrupt("file", bytes.len(), mismatch).into());
        }
        let Some(table) = rest.get(..PREFIX_LEN - HEADER_LEN) else {
            let mismatch = Mismatch::Length {
                expected: PREFIX_LEN as u64,
                got,
            };
            return Err(corrupt("table", bytes.len(), mismatch).into());
        };
        let actual = xxh3_64(table);
        if actual != header.table_checksum {
            let mismatch = Mismatch::Checksum {
                expected: header.table_checksum,
                got: actual,
            };
            return Err(corrupt("table", HEADER_LEN, mismatch).into());
        }
        let (sections, checksums) = parse_table(table, header.section_count, header.file_len)
            .map_err(|(index, rule)| {
                let got = index as u64;
                corrupt(
                    "table",
                    HEADER_LEN + index * ENTRY_LEN,
                    Mismatch::Rule { rule, got },
                )
            })?;
        let checksums_checksum = header.checksums_checksum;
        let inner = Inner {
            path: file(),
            bytes,
            sections,
            checksums,
            checksums_checksum,
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    fn slice(&self, entry: &Entry) -> Bytes {
        // `parse_table` has checked that the range lies within the file; were it not so, empty.
        let range = usize::try_from(entry.offset)
            .ok()
            .zip(usize::try_from(entry.len).ok());
        let range = range.and_then(|(at, len)| Some(at..at.checked_add(len)?));
        let inside = range.filter(|range| range.end <= self.inner.bytes.len());
        inside.map_or_else(Bytes::new, |range| self.inner.bytes.slice(range))
    }

    fn verify_padding(&self) -> Result<(), Corruption> {
        let mut end = PREFIX_LEN;
        for entry in self.inner.sections.iter().chain([&self.inner.checksums]) {
            let (Ok(start), Ok(len)) = (usize::try_from(entry.offset), usize::try_from(entry.len))
            else {
                continue;
            };
            let gap = self.inner.bytes.get(end..start).unwrap_or_default();
            if let Some(at) = gap.iter().position(|&byte| byte != 0) {
                let rule = "the gap before a section is zero";
                let mismatch = Mismatch::Rule {
                    rule,
                    got: u64::from(gap[at]),
                };
                return Err(self.corruption("padding", (end + at) as u64, mismatch));
            }
            end = start + len;
        }
        Ok(())
    }

    fn corruption(&self, section: &str, offset: u64, mismatch: Mismatch) -> Corruption {
        Corruption {
            file: self.path().to_owned(),
            section: section.to_owned(),
            offset,
            mismatch,
        }
    }
}

/// The sections and the checksums' own entry, or the index of a bad entry and the rule it breaks.
///
/// The table's checksum agrees already; this guards against a writer that lies.
fn parse_table(
    table: &[u8],
    count: u64,
    file_len: u64,
) -> Result<(Vec<Entry>, Entry), (usize, &'static str)> {
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    if !(1..=MAX_SECTIONS).contains(&count) {
        return Err((0, "a file has 1 to 64 sections"));
    }
    let mut entries: Vec<Entry> = Vec::with_capacity(count);
    let mut end = PREFIX_LEN as u64;
    let mut checksums = 0;
    for (index, bytes) in table.chunks_exact(ENTRY_LEN).take(count).enumerate() {
        let check = |holds: bool, rule| if holds { Ok(()) } else { Err((index, rule)) };
        let entry = Entry::decode(bytes).ok_or((index, "names are 1 to 32 of a-z 0-9 _ - ."))?;
        let last = index + 1 == count;
        check(
            entries.iter().all(|e| e.name != entry.name),
            "names are unique",
        )?;
        check(
            (entry.name == CHECKSUMS) == last,
            "the checksums are the last section",
        )?;
        check(entry.flags & !KNOWN_FLAGS == 0, "flags are known")?;
        check(entry.offset >= end, "sections do not overlap")?;
        check(entry.offset.is_multiple_of(ALIGN), "sections are aligned")?;
        let next = entry
            .offset
            .checked_add(entry.len)
            .filter(|&next| next <= file_len);
        end = next.ok_or((index, "sections lie within the file"))?;
        let whole = entry.element_len != 0 && entry.len.is_multiple_of(entry.element_len.into());
        check(whole, "sections hold whole elements")?;
        if last {
            check(
                entry.len == checksums * 4 && end == file_len,
                "there is a checksum a block",
            )?;
        } else {
            check(
                entry.first_checksum == checksums,
                "checksums are in the order of the table",
            )?;
            checksums += layout::block_count(entry.len);
        }
        entries.push(entry);
    }
    match entries.pop() {
        Some(last) if entries.len() + 1 == count => Ok((entries, last)),
        _ => Err((0, "the table has as many entries as the header says")),
    }
}
