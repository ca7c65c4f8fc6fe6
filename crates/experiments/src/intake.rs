//! A closed intake: the units that an experiment has, when it admits no more.
//!
//! Assignment has no memory, so who was inside is told by a file: one unit a line, as
//! `refrain experiment units` writes it from the log. How a file is read is no business of this crate.

use std::collections::HashSet;
use std::fmt;
use std::hash::{BuildHasherDefault, Hasher};
use std::io::BufRead;
use std::sync::Arc;

use serde::{Deserialize, Deserializer};
use sha2::{Digest as _, Sha256};

use crate::error::Limits;
use crate::hash::hash128;

/// `admitted = "FILE"` of an experiment.
#[derive(Clone, PartialEq)]
pub struct Admitted {
    /// The file, as the configuration names it.
    pub file: String,
    /// Its units; absent before [`Config::load_intakes`](crate::Config::load_intakes).
    pub units: Option<Arc<UnitSet>>,
}

impl fmt::Debug for Admitted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = self.units.as_ref().map(|units| units.len());
        write!(f, "Admitted({:?}, units: {units:?})", self.file)
    }
}

impl<'de> Deserialize<'de> for Admitted {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let file = String::deserialize(deserializer)?;
        if file.is_empty() {
            return Err(serde::de::Error::custom("names no file"));
        }
        Ok(Self { file, units: None })
    }
}

/// A set of units, by their 128-bit hashes: 17 to 34 bytes each.
#[derive(Clone, PartialEq)]
pub struct UnitSet {
    hashes: HashSet<u128, BuildHasherDefault<Itself>>,
    digest: [u8; 32],
}

impl UnitSet {
    /// Reads a text with one unit a line; empty lines are passed over. O(bytes), and one line in memory.
    ///
    /// # Errors
    /// Says on which line: what is not UTF-8, a line longer than a unit may be, or more than
    /// [`Limits::ADMITTED`] units; or the reader fails.
    pub fn read(mut text: impl BufRead) -> std::io::Result<Self> {
        let mut hashes = HashSet::default();
        let mut line = Vec::new();
        for number in 1_u64.. {
            line.clear();
            // One byte more than a line may have with its end tells that it is too long.
            let longest = Limits::UNIT_BYTES as u64 + 3;
            let wrong = |problem: String| {
                let message = format!("line {number}: {problem}");
                std::io::Error::new(std::io::ErrorKind::InvalidData, message)
            };
            if std::io::Read::take(&mut text, longest).read_until(b'\n', &mut line)? == 0 {
                break;
            }
            let unit = line.strip_suffix(b"\n").unwrap_or(&line);
            let unit = unit.strip_suffix(b"\r").unwrap_or(unit);
            if unit.is_empty() {
                continue;
            }
            if unit.len() > Limits::UNIT_BYTES {
                let most = Limits::UNIT_BYTES;
                return Err(wrong(format!("no unit has more than {most} bytes")));
            }
            let unit = std::str::from_utf8(unit).map_err(|error| wrong(error.to_string()))?;
            hashes.insert(hash128(unit.as_bytes()));
            if hashes.len() > Limits::ADMITTED {
                return Err(wrong(format!("more than {} units", Limits::ADMITTED)));
            }
        }
        let mut sorted: Vec<u128> = hashes.iter().copied().collect();
        sorted.sort_unstable();
        let mut digest = Sha256::new();
        for hash in sorted {
            digest.update(hash.to_le_bytes());
        }
        Ok(Self {
            hashes,
            digest: digest.finalize().into(),
        })
    }

    /// Whether a unit is in it. O(1).
    #[must_use]
    pub fn contains(&self, unit: &str) -> bool {
        self.hashes.contains(&hash128(unit.as_bytes()))
    }

    /// How many units it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.hashes.len()
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }

    /// SHA-256 of its hashes, in order: the same for the same units, however they were written down.
    pub(crate) fn digest(&self) -> [u8; 32] {
        self.digest
    }
}

impl fmt::Debug for UnitSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UnitSet({})", self.len())
    }
}

/// What is hashed well already.
#[derive(Default)]
struct Itself(u64);

impl Hasher for Itself {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        // Not used for what the set holds; any function is right.
        for &byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(byte);
        }
    }

    fn write_u128(&mut self, hash: u128) {
        #[expect(clippy::cast_possible_truncation, reason = "half of a hash is one")]
        let half = hash as u64;
        self.0 = half;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &[u8]) -> Result<UnitSet, String> {
        UnitSet::read(text).map_err(|error| error.to_string())
    }

    #[test]
    fn a_line_is_a_unit() {
        let set = read(b"alice\r\n\nbob bob\n# not a comment\nalice").expect("valid");
        assert_eq!((set.len(), set.is_empty()), (3, false));
        for unit in ["alice", "bob bob", "# not a comment"] {
            assert!(set.contains(unit), "{unit}");
        }
        assert!(!set.contains("bob") && !set.contains(""));
        assert!(read(b"").expect("valid").is_empty());
    }

    #[test]
    fn what_is_no_unit_is_told_with_its_line() {
        let long = format!("a\n{}\n", "x".repeat(Limits::UNIT_BYTES + 1));
        for (text, says) in [
            (&b"a\nb\xff\n"[..], "line 2: invalid utf-8"),
            (long.as_bytes(), "line 2: no unit has more than 128 bytes"),
        ] {
            let error = read(text).expect_err(says);
            assert!(error.starts_with(says), "{error}");
        }
        let longest = format!("{}\r\nb", "x".repeat(Limits::UNIT_BYTES));
        assert_eq!(read(longest.as_bytes()).expect("valid").len(), 2);
    }

    proptest! {
        #[test]
        fn order_and_repetition_do_not_matter(units in prop::collection::vec("[^\r\n]{1,12}", 0..40)) {
            let there = read(units.join("\n").as_bytes()).expect("valid");
            let mut back = units.clone();
            back.reverse();
            back.extend(units.clone());
            let again = read(back.join("\r\n").as_bytes()).expect("valid");
            prop_assert_eq!(there.digest(), again.digest());
            prop_assert!(units.iter().all(|unit| there.contains(unit)));
            prop_assert!(!there.contains("thirteen bytes and more"));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            if let Ok(set) = read(&bytes) {
                let text = String::from_utf8(bytes).expect("it was read");
                let lines = text.lines().filter(|line| !line.is_empty());
                for line in lines {
                    prop_assert!(set.contains(line));
                }
            }
        }
    }
}
