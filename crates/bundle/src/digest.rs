//! Digests of whole files.

use std::fmt;
use std::io::{self, Read};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use xxhash_rust::xxh3::Xxh3;

/// XXH3-128 of a sequence of bytes; written `xxh3-128:` and 32 hexadecimal digits.
///
/// It finds accidents, not forgeries: a store that strangers can write to needs signatures.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(u128);

/// The length and digest of a file, as the manifest states them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileDigest {
    /// Length in bytes.
    pub bytes: u64,
    /// Digest of all of them.
    pub digest: Digest,
}

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(xxhash_rust::xxh3::xxh3_128(bytes))
    }

    /// The first `n` hexadecimal digits, at most 32.
    pub fn short(self, n: usize) -> String {
        let mut hex = format!("{:032x}", self.0);
        hex.truncate(n);
        hex
    }
}

impl FileDigest {
    /// The length and digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self {
            bytes: bytes.len() as u64,
            digest: Digest::of(bytes),
        }
    }

    /// The length and digest of what is left in `source`, read in pieces.
    pub(crate) fn read(source: &mut impl Read) -> io::Result<Self> {
        let mut hasher = Hasher::default();
        hasher.read(source)?;
        Ok(hasher.finish())
    }
}

/// A digest of bytes that arrive in pieces.
#[derive(Clone, Default)]
pub struct Hasher {
    state: Xxh3,
    bytes: u64,
}

impl Hasher {
    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.state.update(bytes);
        self.bytes += bytes.len() as u64;
    }

    /// Takes what is left in `source`, in pieces of a megabyte.
    ///
    /// # Errors
    /// Those of reading; what came before is taken.
    pub fn read(&mut self, source: &mut impl Read) -> io::Result<()> {
        let mut buffer = vec![0; 1 << 20];
        loop {
            match source.read(&mut buffer)? {
                0 => return Ok(()),
                n => self.update(&buffer[..n]),
            }
        }
    }

    /// The length and digest of all so far.
    #[must_use]
    pub fn finish(&self) -> FileDigest {
        FileDigest {
            bytes: self.bytes,
            digest: Digest(self.state.digest128()),
        }
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.finish(), f)
    }
}

const PREFIX: &str = "xxh3-128:";

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{:032x}", self.0)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not `xxh3-128:` and 32 hexadecimal digits.
#[derive(Debug, thiserror::Error)]
#[error("a digest is \"xxh3-128:\" and 32 hexadecimal digits, got {0:?}")]
pub struct ParseDigestError(String);

impl FromStr for Digest {
    type Err = ParseDigestError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.strip_prefix(PREFIX)
            .filter(|hex| hex.len() == 32 && hex.bytes().all(|b| b.is_ascii_hexdigit()))
            .and_then(|hex| u128::from_str_radix(hex, 16).ok())
            .map(Self)
            .ok_or_else(|| ParseDigestError(text.chars().take(64).collect()))
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_back() {
        let digest = Digest::of(b"refrain");
        assert_eq!(digest.to_string().parse::<Digest>().unwrap(), digest);
        for bad in [
            "",
            "xxh3-128:",
            "xxh3-128:+1234567890123456789012345678901",
            "md5:00",
        ] {
            assert!(bad.parse::<Digest>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn pieces_hash_like_the_whole() {
        let bytes: Vec<u8> = (0..10_000u32).flat_map(u32::to_le_bytes).collect();
        let mut hasher = Hasher::default();
        for piece in bytes.chunks(777) {
            hasher.update(piece);
        }
        assert_eq!(hasher.finish(), FileDigest::of(&bytes));
    }
}
