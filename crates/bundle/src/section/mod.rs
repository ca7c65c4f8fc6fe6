//! The section file: named arrays of bytes in one file, mapped, aligned and checksummed.
//!
//! A header and a table of at most [`MAX_SECTIONS`] entries take the first 8 KiB; the sections
//! follow, each on a 64-byte boundary (a large hot one on 2 MiB), and last of all one crc32c for
//! every MiB of every section. `docs/format.md` §2 has the fields.
//!
//! - [`write_sections`] and [`SectionWriter`] write; the file appears whole or not at all.
//! - [`SectionFile::open`] checks the header and the table, O(1); [`SectionFile::verify`] all of it.
//! - [`SectionFile::section`] hands out slices of the map, which stay valid as long as they are held.
//!
//! Invariants relied upon: a file in its place is never written again, so a map never changes; a
//! table that passed [`SectionFile::open`] only describes ranges within the file.

mod layout;
mod read;
mod write;

pub use layout::{FORMAT_MAJOR, FORMAT_MINOR, MAX_SECTIONS};
pub use read::{OpenError, OpenMode, SectionFile, SectionInfo};
pub use write::{SectionSpec, SectionWriter, WriteError, write_sections};

#[cfg(test)]
mod tests;
