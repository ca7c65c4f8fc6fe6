//! Strings by number, and numbers by string, mapped.

use xxhash_rust::xxh3::xxh3_64;

use crate::column::Column;
use crate::section::{OpenError, SectionFile, SectionSpec, SectionWriter, WriteError};

/// Strings by number: one array of bytes and where each string begins. O(1) to open.
///
/// Sections `<name>.offsets` (`u64`, one more than there are strings) and `<name>.bytes`.
#[derive(Debug, Clone)]
pub struct StringTable {
    offsets: Column<u64>,
    bytes: Column<u8>,
}

impl StringTable {
    /// The table `name` of `file`.
    ///
    /// # Errors
    /// [`OpenError::MissingSection`], or [`OpenError::Corrupt`] when the sections have wrong shapes.
    pub fn open(file: &SectionFile, name: &str) -> Result<Self, OpenError> {
        let offsets_name = format!("{name}.offsets");
        let offsets = file.column::<u64>(&offsets_name)?;
        let bytes = file.column::<u8>(&format!("{name}.bytes"))?;
        let end = offsets.as_slice().last().copied();
        if end != Some(bytes.len() as u64) || u32::try_from(offsets.len()).is_err() {
            let rule = "offsets end where the bytes do";
            return Err(file
                .broken(&offsets_name, 0, rule, end.unwrap_or_default())
                .into());
        }
        Ok(Self { offsets, bytes })
    }

    /// The number of strings.
    pub fn len(&self) -> u32 {
        u32::try_from(self.offsets.len().saturating_sub(1)).unwrap_or(u32::MAX)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of all strings together: 0 where there are none, or only empty ones.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// String number `ordinal`; `None` when there is none or its bytes are damaged.
    pub fn get(&self, ordinal: u32) -> Option<&str> {
        std::str::from_utf8(self.bytes_of(ordinal)?).ok()
    }

    fn bytes_of(&self, ordinal: u32) -> Option<&[u8]> {
        let ordinal = ordinal as usize;
        let start = usize::try_from(self.offsets.get(ordinal)?).ok()?;
        let end = usize::try_from(self.offsets.get(ordinal.checked_add(1)?)?).ok()?;
        self.bytes.as_slice().get(start..end)
    }

    /// Adds `strings` to a file as table `name`.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub fn write<'s>(
        writer: &mut SectionWriter<'_>,
        name: &str,
        strings: impl IntoIterator<Item = &'s str>,
    ) -> Result<(), WriteError> {
        let mut offsets = vec![0u64];
        let mut bytes = Vec::new();
        for string in strings {
            bytes.extend_from_slice(string.as_bytes());
            offsets.push(bytes.len() as u64);
        }
        writer.add_array(&format!("{name}.offsets"), &offsets)?;
        writer.add(SectionSpec::new(&format!("{name}.bytes")), &bytes)
    }
}

/// A string table whose strings are distinct, with the way back: O(1) expected, bounded always.
///
/// Beside the sections of [`StringTable`], `<name>.slots`: an open-addressing hash table of a power
/// of two slots, at most half full. The low bits of a string's xxh3-64 choose its first slot, the
/// high 32 bits are kept as a fingerprint, and a lookup ends at an empty slot or after
/// `MAX_PROBES`, so that damaged slots cannot make it run on.
#[derive(Debug, Clone)]
pub struct Dictionary {
    strings: StringTable,
    slots: Column<Slot>,
}

/// Slots that a lookup visits at most. The writer grows the table until every string lies within.
const MAX_PROBES: usize = 256;

/// Lookups that wait for memory together: about as many as a core has misses in flight.
const TOGETHER: usize = 16;

/// A fingerprint, and an ordinal + 1; all zero is an empty slot.
type Slot = [u32; 2];

impl Dictionary {
    /// The dictionary `name` of `file`.
    ///
    /// # Errors
    /// As [`StringTable::open`].
    pub fn open(file: &SectionFile, name: &str) -> Result<Self, OpenError> {
        let strings = StringTable::open(file, name)?;
        let slots_name = format!("{name}.slots");
        let slots = file.column::<Slot>(&slots_name)?;
        if !slots.len().is_power_of_two() {
            let rule = "a dictionary has a power of two slots";
            return Err(file.broken(&slots_name, 0, rule, slots.len() as u64).into());
        }
        Ok(Self { strings, slots })
    }

    /// The strings by number.
    pub fn strings(&self) -> &StringTable {
        &self.strings
    }

    /// The number of `string`, if it is in the dictionary.
    pub fn ordinal(&self, string: &str) -> Option<u32> {
        let hash = xxh3_64(string.as_bytes());
        let slots = self.slots.as_slice();
        for at in probes(hash, slots.len()) {
            let [found, entry] = *slots.get(at)?;
            let ordinal = entry.checked_sub(1)?;
            if found == fingerprint(hash) && self.strings.get(ordinal) == Some(string) {
                return Some(ordinal);
            }
        }
        None
    }

    /// The numbers of those of `strings` that are in the dictionary, in the order given, added to `out`. What
    /// [`ordinal`](Self::ordinal) gives for each, in a fraction of the time where they are many and the
    /// dictionary is larger than the processor's cache: lookups wait for memory together.
    pub fn ordinals<'s>(&self, mut strings: impl Iterator<Item = &'s str>, out: &mut Vec<u32>) {
        let slots = self.slots.as_slice();
        let mut together = Vec::with_capacity(TOGETHER);
        let mut hashes = [0_u64; TOGETHER];
        let mut candidates = [None; TOGETHER];
        let mut bytes = [None; TOGETHER];
        loop {
            together.clear();
            together.extend(strings.by_ref().take(TOGETHER));
            let strings = together.as_slice();
            if strings.is_empty() {
                return;
            }
            // Each step does for all what does not depend on each other, so that the processor overlaps it.
            for (hash, string) in hashes.iter_mut().zip(strings) {
                *hash = xxh3_64(string.as_bytes());
            }
            for (candidate, &hash) in candidates.iter_mut().zip(&hashes).take(strings.len()) {
                *candidate = probes(hash, slots.len())
                    .map_while(|at| slots.get(at).filter(|[_, entry]| *entry > 0))
                    .find(|[found, _]| *found == fingerprint(hash))
                    .map(|[_, entry]| entry - 1);
            }
            for (bytes, candidate) in bytes.iter_mut().zip(candidates) {
                *bytes = candidate.and_then(|ordinal| self.strings.bytes_of(ordinal));
            }
            for ((string, candidate), bytes) in strings.iter().zip(candidates).zip(bytes) {
                match candidate {
                    None => {}
                    Some(ordinal) if bytes == Some(string.as_bytes()) => out.push(ordinal),
                    // Another string of the same fingerprint, or damage.
                    Some(_) => out.extend(self.ordinal(string)),
                }
            }
        }
    }

    /// Adds `strings`, which must be distinct, to a file as dictionary `name`.
    ///
    /// # Errors
    /// [`WriteError::Duplicate`] with both places of a string that occurs twice; see [`WriteError`].
    pub fn write(
        writer: &mut SectionWriter<'_>,
        name: &str,
        strings: &[&str],
    ) -> Result<(), WriteError> {
        StringTable::write(writer, name, strings.iter().copied())?;
        writer.add_array(&format!("{name}.slots"), &slots_of(strings)?)
    }
}

fn fingerprint(hash: u64) -> u32 {
    u32::try_from(hash >> 32).unwrap_or_default()
}

/// The slots to visit for a hash, in order.
fn probes(hash: u64, slots: usize) -> impl Iterator<Item = usize> {
    let mask = (slots as u64).wrapping_sub(1);
    let steps = 0..slots.min(MAX_PROBES) as u64;
    // Below `slots`, so it always fits.
    steps.map(move |step| usize::try_from(hash.wrapping_add(step) & mask).unwrap_or_default())
}

fn slots_of(strings: &[&str]) -> Result<Vec<Slot>, WriteError> {
    let mut capacity = (strings.len() * 2).next_power_of_two();
    // Half full, a run of 256 needs about 10^20 strings; more than a few rounds is an attack.
    for _ in 0..8 {
        if let Some(slots) = try_slots(strings, capacity)? {
            return Ok(slots);
        }
        capacity *= 2;
    }
    Err(WriteError::Collisions {
        strings: strings.len(),
    })
}

fn try_slots(strings: &[&str], capacity: usize) -> Result<Option<Vec<Slot>>, WriteError> {
    let mut slots: Vec<Slot> = vec![[0, 0]; capacity];
    'strings: for (at, string) in strings.iter().enumerate() {
        let hash = xxh3_64(string.as_bytes());
        let entry = u32::try_from(at + 1).map_err(|_| WriteError::TooMany { what: "strings" })?;
        for probe in probes(hash, capacity) {
            let [found, there] = slots[probe];
            let Some(first) = there.checked_sub(1) else {
                slots[probe] = [fingerprint(hash), entry];
                continue 'strings;
            };
            if found == fingerprint(hash) && strings[first as usize] == *string {
                let (string, first) = ((*string).to_owned(), first as usize);
                return Err(WriteError::Duplicate {
                    string,
                    first,
                    second: at,
                });
            }
        }
        return Ok(None);
    }
    Ok(Some(slots))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::section::OpenMode;
    use proptest::prelude::*;

    fn round_trip(strings: &[&str]) -> Result<Dictionary, WriteError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        SectionWriter::write(&path, |writer| Dictionary::write(writer, "ids", strings))?;
        let file = SectionFile::open(&path, OpenMode::Map).unwrap();
        Ok(Dictionary::open(&file, "ids").unwrap())
    }

    #[test]
    fn duplicates_are_named_with_both_places() {
        let error = round_trip(&["a", "b", "c", "b"]).unwrap_err();
        assert!(
            matches!(&error, WriteError::Duplicate { string, first: 1, second: 3 } if string == "b"),
            "{error}"
        );
    }

    #[test]
    fn an_empty_dictionary_has_nothing() {
        let dictionary = round_trip(&[]).unwrap();
        assert!(dictionary.strings().is_empty());
        assert_eq!(dictionary.ordinal(""), None);
        assert_eq!(dictionary.strings().get(0), None);
        assert_eq!(dictionary.strings().get(u32::MAX), None);
    }

    proptest! {
        #[test]
        fn every_string_is_found_at_its_place(
            strings in prop::collection::hash_set(".{0,12}", 0..300),
            other in ".{0,12}",
        ) {
            let list: Vec<&str> = strings.iter().map(String::as_str).collect();
            let dictionary = round_trip(&list).unwrap();
            for (ordinal, string) in (0u32..).zip(&list) {
                prop_assert_eq!(dictionary.ordinal(string), Some(ordinal));
                prop_assert_eq!(dictionary.strings().get(ordinal), Some(*string));
            }
            prop_assert_eq!(dictionary.ordinal(&other).is_some(), strings.contains(&other));
            // Many at a time are each as alone, whatever is not there and what comes twice.
            let asked: Vec<&str> =
                list.iter().rev().flat_map(|one| [*one, &other, "none of them", *one]).collect();
            let mut together = vec![7];
            dictionary.ordinals(asked.iter().copied(), &mut together);
            let alone = asked.iter().filter_map(|one| dictionary.ordinal(one));
            prop_assert_eq!(together, [7].into_iter().chain(alone).collect::<Vec<_>>());
        }
    }
}
