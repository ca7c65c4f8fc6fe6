//! Where the bytes of a section file are. `docs/format.md` §2 is this module in prose.

use xxhash_rust::xxh3::xxh3_64;

/// Major version of the section file; a reader refuses any other.
pub const FORMAT_MAJOR: u16 = 1;
/// Minor version; a reader takes any.
pub const FORMAT_MINOR: u16 = 0;
/// Sections a file can hold, the checksums among them.
pub const MAX_SECTIONS: usize = 64;

/// Like PNG's: the high bit shows a channel that strips it, CR LF and LF one that converts line
/// ends, 0x1A stops a DOS `type`.
pub(super) const MAGIC: [u8; 16] = *b"\x89RFRN\r\n\x1a\nSECTION";
/// Reads differently when bytes are swapped.
pub(super) const ENDIAN_TAG: u32 = 0x0102_0304;
/// Feature bits that a reader must know. None are defined yet.
pub(super) const KNOWN_INCOMPAT: u64 = 0;

pub(super) const HEADER_LEN: usize = 4096;
pub(super) const ENTRY_LEN: usize = 64;
pub(super) const TABLE_LEN: usize = MAX_SECTIONS * ENTRY_LEN;
/// Where sections begin: right after the header and the (fixed) table.
pub(super) const PREFIX_LEN: usize = HEADER_LEN + TABLE_LEN;
pub(super) const NAME_LEN: usize = 32;

/// Each section starts on a cache line.
pub(super) const ALIGN: u64 = 64;
/// A hot section starts on a huge page …
pub(super) const HOT_ALIGN: u64 = 2 << 20;
/// … if it has at least this length, so that the gap before it is no eighth of it.
pub(super) const HOT_LEN: u64 = 8 * HOT_ALIGN;
/// One checksum covers this many bytes of one section, the last of a section what is left.
pub(super) const BLOCK_LEN: u64 = 1 << 20;

/// The section that holds the checksums of all others.
pub(super) const CHECKSUMS: &str = "checksums";

pub(super) const FLAG_OPTIONAL: u32 = 1;
pub(super) const FLAG_HOT: u32 = 2;
pub(super) const KNOWN_FLAGS: u32 = FLAG_OPTIONAL | FLAG_HOT;

const HEADER_CHECKSUM_AT: usize = HEADER_LEN - 8;

/// The fields of the header, in the order in which they are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) major: u16,
    pub(super) minor: u16,
    pub(super) endian: u32,
    pub(super) incompat: u64,
    pub(super) compat: u64,
    pub(super) file_len: u64,
    pub(super) section_count: u64,
    pub(super) block_len: u64,
    pub(super) table_checksum: u64,
    pub(super) checksums_checksum: u64,
}

/// One entry of the table, in the order in which it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) flags: u32,
    pub(super) element_len: u32,
    pub(super) offset: u64,
    pub(super) len: u64,
    pub(super) first_checksum: u64,
}

impl Header {
    pub(super) fn encode(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        let mut out = Put {
            bytes: &mut bytes,
            at: 0,
        };
        out.put(&MAGIC);
        out.put(&self.major.to_le_bytes());
        out.put(&self.minor.to_le_bytes());
        out.put(&self.endian.to_le_bytes());
        out.put(&self.incompat.to_le_bytes());
        out.put(&self.compat.to_le_bytes());
        out.put(&self.file_len.to_le_bytes());
        out.put(&self.section_count.to_le_bytes());
        out.put(&self.block_len.to_le_bytes());
        out.put(&self.table_checksum.to_le_bytes());
        out.put(&self.checksums_checksum.to_le_bytes());
        let checksum = xxh3_64(&bytes[..HEADER_CHECKSUM_AT]);
        bytes[HEADER_CHECKSUM_AT..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// The fields, whatever they are; the caller judges them.
    pub(super) fn decode(bytes: &[u8]) -> Self {
        let mut fields = Take(bytes.get(MAGIC.len()..).unwrap_or_default());
        Self {
            major: u16::from_le_bytes(fields.take()),
            minor: u16::from_le_bytes(fields.take()),
            endian: u32::from_le_bytes(fields.take()),
            incompat: u64::from_le_bytes(fields.take()),
            compat: u64::from_le_bytes(fields.take()),
            file_len: u64::from_le_bytes(fields.take()),
            section_count: u64::from_le_bytes(fields.take()),
            block_len: u64::from_le_bytes(fields.take()),
            table_checksum: u64::from_le_bytes(fields.take()),
            checksums_checksum: u64::from_le_bytes(fields.take()),
        }
    }

    /// The header's own checksum: as stored, and as its bytes give it.
    pub(super) fn checksums(bytes: &[u8; HEADER_LEN]) -> (u64, u64) {
        let stored = u64::from_le_bytes(Take(&bytes[HEADER_CHECKSUM_AT..]).take());
        (stored, xxh3_64(&bytes[..HEADER_CHECKSUM_AT]))
    }
}

impl Entry {
    /// Writes the entry to the first [`ENTRY_LEN`] bytes of `slot`.
    pub(super) fn encode_into(&self, slot: &mut [u8]) {
        let mut out = Put { bytes: slot, at: 0 };
        let mut name = [0; NAME_LEN];
        name[..self.name.len()].copy_from_slice(self.name.as_bytes());
        out.put(&name);
        out.put(&self.flags.to_le_bytes());
        out.put(&self.element_len.to_le_bytes());
        out.put(&self.offset.to_le_bytes());
        out.put(&self.len.to_le_bytes());
        out.put(&self.first_checksum.to_le_bytes());
    }

    /// The entry, or `None` when its name breaks the rule of [`is_name`].
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut fields = Take(bytes);
        let name: [u8; NAME_LEN] = fields.take();
        let len = name.iter().position(|&b| b == 0).unwrap_or(NAME_LEN);
        let (name, rest) = name.split_at(len);
        let name = std::str::from_utf8(name)
            .ok()
            .filter(|name| is_name(name))?;
        if rest.iter().any(|&b| b != 0) {
            return None;
        }
        Some(Self {
            name: name.to_owned(),
            flags: u32::from_le_bytes(fields.take()),
            element_len: u32::from_le_bytes(fields.take()),
            offset: u64::from_le_bytes(fields.take()),
            len: u64::from_le_bytes(fields.take()),
            first_checksum: u64::from_le_bytes(fields.take()),
        })
    }
}

/// Where a section of this kind and length begins when the file so far ends at `position`.
pub(super) fn aligned(position: u64, hot: bool, len: u64) -> u64 {
    let align = if hot && len >= HOT_LEN {
        HOT_ALIGN
    } else {
        ALIGN
    };
    position.next_multiple_of(align)
}

/// Section names: 1 to 32 of `a-z`, `0-9`, `_`, `-`, `.`, starting with a letter.
pub(super) fn is_name(name: &str) -> bool {
    (1..=NAME_LEN).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name
            .bytes()
            .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'.'))
}

/// Checksums that a section of this length has.
pub(super) fn block_count(len: u64) -> u64 {
    len.div_ceil(BLOCK_LEN)
}

/// Fields written one after another.
struct Put<'a> {
    bytes: &'a mut [u8],
    at: usize,
}

impl Put<'_> {
    fn put(&mut self, field: &[u8]) {
        self.bytes[self.at..self.at + field.len()].copy_from_slice(field);
        self.at += field.len();
    }
}

/// Fields read one after another; zeros where the bytes have ended.
struct Take<'a>(&'a [u8]);

impl Take<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        match self.0.split_first_chunk::<N>() {
            Some((field, rest)) => {
                self.0 = rest;
                *field
            }
            None => [0; N],
        }
    }
}

const _: () = {
    assert!((PREFIX_LEN as u64).is_multiple_of(ALIGN));
    assert!(NAME_LEN + 4 + 4 + 8 + 8 + 8 == ENTRY_LEN);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_and_entry_round_trip() {
        let header = Header {
            major: 1,
            minor: 7,
            endian: ENDIAN_TAG,
            incompat: 3,
            compat: 4,
            file_len: 5,
            section_count: 6,
            block_len: 8,
            table_checksum: 9,
            checksums_checksum: 10,
        };
        let bytes = header.encode();
        assert_eq!(Header::decode(&bytes), header);
        let (stored, got) = Header::checksums(&bytes);
        assert_eq!(stored, got);

        let entry = Entry {
            name: "a".repeat(NAME_LEN),
            flags: 1,
            element_len: 2,
            offset: 3,
            len: 4,
            first_checksum: 5,
        };
        let mut table = [0; TABLE_LEN];
        entry.encode_into(&mut table[63 * ENTRY_LEN..]);
        assert_eq!(Entry::decode(&table[63 * ENTRY_LEN..]), Some(entry));
        assert_eq!(
            Entry::decode(&table[..ENTRY_LEN]),
            None,
            "an empty name is none"
        );
    }

    #[test]
    fn names() {
        for good in ["a", "ids.offsets", "graph0", "user-vectors_2"] {
            assert!(is_name(good), "{good}");
        }
        for bad in ["", "0a", ".a", "A", "a b", "ä", &"a".repeat(33)] {
            assert!(!is_name(bad), "{bad}");
        }
    }
}
