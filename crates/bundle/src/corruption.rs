//! What is wrong with a file, and exactly where.

use std::fmt;
use std::path::PathBuf;

/// Bytes that are not what they must be: which file, which part of it, where, and what was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {section} at offset {offset}: {mismatch}", file.display())]
pub struct Corruption {
    /// The file.
    pub file: PathBuf,
    /// The section, or `header`, `table`, `padding`, `file` for what is no section.
    pub section: String,
    /// Byte offset within the file of the first byte in doubt.
    pub offset: u64,
    /// What was expected there and what was found.
    pub mismatch: Mismatch,
}

/// The difference between what a file holds and what it must hold.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mismatch {
    /// A checksum over the bytes from the offset on does not agree.
    Checksum {
        /// The checksum that the file or manifest states.
        expected: u64,
        /// The checksum of the bytes as they are.
        got: u64,
    },
    /// The digest of a whole file does not agree with the manifest.
    Digest {
        /// The digest that the manifest states.
        expected: String,
        /// The digest of the bytes as they are.
        got: String,
    },
    /// The file, or a part of it, has another length than stated.
    Length {
        /// Length in bytes that is stated.
        expected: u64,
        /// Length in bytes as it is.
        got: u64,
    },
    /// A value breaks a rule of the format.
    Rule {
        /// The rule, as a clause: "section names are unique".
        rule: &'static str,
        /// The value found.
        got: u64,
    },
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Mismatch::Checksum { expected, got } => {
                write!(
                    f,
                    "checksum mismatch: expected {expected:#010x}, got {got:#010x}"
                )
            }
            Mismatch::Digest { expected, got } => {
                write!(f, "digest mismatch: expected {expected}, got {got}")
            }
            Mismatch::Length { expected, got } => {
                write!(f, "length mismatch: expected {expected} bytes, got {got}")
            }
            Mismatch::Rule { rule, got } => write!(f, "{rule}, got {got}"),
        }
    }
}
