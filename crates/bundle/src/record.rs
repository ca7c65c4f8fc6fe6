//! Small metadata records: bincode behind a version, a length, a limit and a checksum.
//!
//! Layout, little-endian: version `u8`, three zero bytes, payload length `u32`, payload, crc32c
//! `u32` of all that goes before. The payload is bincode 2's `legacy` configuration (fixed-width
//! integers, `u64` lengths), which bincode 1.x and its successors read too. Anything large is a
//! section of its own, not a record.

use bincode::config;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Longest payload in bytes.
const LIMIT: usize = 1 << 20;
const HEAD: usize = 8;
const TAIL: usize = 4;

/// A record could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum RecordError {
    #[error("a record of {len} bytes is over the limit of {LIMIT}")]
    TooLong { len: usize },
    #[error("a record of {len} bytes is too short or states another length")]
    Length { len: usize },
    #[error("record checksum: expected {expected:#010x}, got {got:#010x}")]
    Checksum { expected: u32, got: u32 },
    #[error("record version {found} is not supported, only {supported}")]
    Version { found: u8, supported: u8 },
    #[error("record does not encode: {0}")]
    Encode(#[from] bincode::error::EncodeError),
    #[error("record does not decode: {0}")]
    Decode(#[from] bincode::error::DecodeError),
}

/// The bytes of a record.
pub(crate) fn encode<T: Serialize>(version: u8, value: &T) -> Result<Vec<u8>, RecordError> {
    let payload = bincode::serde::encode_to_vec(value, config::legacy())?;
    let len = payload.len();
    let stated = u32::try_from(len).ok().filter(|_| len <= LIMIT);
    let stated = stated.ok_or(RecordError::TooLong { len })?;
    let mut bytes = Vec::with_capacity(HEAD + len + TAIL);
    bytes.extend_from_slice(&[version, 0, 0, 0]);
    bytes.extend_from_slice(&stated.to_le_bytes());
    bytes.extend_from_slice(&payload);
    bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
    Ok(bytes)
}

/// The value of a record of that version.
pub(crate) fn decode<T: DeserializeOwned>(version: u8, bytes: &[u8]) -> Result<T, RecordError> {
    let len = bytes.len();
    if len > HEAD + LIMIT + TAIL {
        return Err(RecordError::TooLong { len });
    }
    let (covered, tail) = bytes
        .split_last_chunk::<TAIL>()
        .ok_or(RecordError::Length { len })?;
    let expected = u32::from_le_bytes(*tail);
    let got = crc32c::crc32c(covered);
    if expected != got {
        return Err(RecordError::Checksum { expected, got });
    }
    let (head, payload) = covered
        .split_first_chunk::<HEAD>()
        .ok_or(RecordError::Length { len })?;
    let [found, .., a, b, c, d] = *head;
    if found != version {
        return Err(RecordError::Version {
            found,
            supported: version,
        });
    }
    if u32::from_le_bytes([a, b, c, d]) as usize != payload.len() {
        return Err(RecordError::Length { len });
    }
    let config = config::legacy().with_limit::<LIMIT>();
    let (value, read) = bincode::serde::decode_from_slice(payload, config)?;
    if read == payload.len() {
        Ok(value)
    } else {
        Err(RecordError::Length { len })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Value = (u32, Option<String>, Vec<u64>);

    #[test]
    fn legacy_encoding_is_bincode_1s() {
        // bincode 1.3: u32 LE, option tag u8, u64 LE length, bytes, u64 LE length, elements.
        let bytes = encode(3, &(7u32, Some("ab"), [9u64].as_slice())).unwrap();
        let mut expected = vec![
            3, 0, 0, 0, 31, 0, 0, 0, 7, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0, 0, 0,
        ];
        expected.extend(b"ab");
        expected.extend([1, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(bytes[..bytes.len() - TAIL], expected);
        assert!(matches!(
            decode::<Value>(4, &bytes),
            Err(RecordError::Version { found: 3, .. })
        ));
        assert!(matches!(
            encode(1, &vec![0u8; LIMIT]),
            Err(RecordError::TooLong { .. })
        ));
    }

    proptest! {
        #[test]
        fn round_trip_and_every_flip_is_found(
            value in any::<Value>(),
            at in any::<prop::sample::Index>(),
            bit in 0..8u8,
        ) {
            let mut bytes = encode(1, &value).unwrap();
            prop_assert_eq!(decode::<Value>(1, &bytes).unwrap(), value);
            let at = at.index(bytes.len());
            prop_assert!(decode::<Value>(1, &bytes[..at]).is_err());
            bytes[at] ^= 1 << bit;
            prop_assert!(decode::<Value>(1, &bytes).is_err());
        }

        #[test]
        fn hostile_payloads_are_errors_or_values(mut payload in prop::collection::vec(any::<u8>(), 0..200)) {
            // A right checksum over arbitrary bytes: lengths may claim exabytes.
            let mut bytes = vec![1, 0, 0, 0];
            bytes.extend(u32::try_from(payload.len()).unwrap().to_le_bytes());
            bytes.append(&mut payload);
            bytes.extend(crc32c::crc32c(&bytes).to_le_bytes());
            let _ = decode::<Value>(1, &bytes);
        }
    }
}
