//! Strings stored once, addressed by dense `u32` ordinals in order of first appearance.

use std::fmt;
use std::hash::{BuildHasher, RandomState};

/// A set of distinct strings and their ordinals.
///
/// All text lives in one buffer, so a million ids cost their bytes plus about 20 each. Lookup is
/// an open-addressing table of ordinals over that buffer: no string is kept twice. The hasher is
/// keyed at random because ids come from outside; ordinals depend only on insertion order.
#[derive(Clone, Default)]
pub struct Dictionary {
    text: String,
    /// End of string `i` in `text`; its start is the end of the one before.
    ends: Vec<usize>,
    /// `ordinal + 1`, or 0 for a free slot. The length is a power of two, or zero.
    slots: Vec<u32>,
    hasher: RandomState,
}

/// The most strings one dictionary holds: ordinals are `u32` and the last two values are spare.
pub const MAX_STRINGS: usize = u32::MAX as usize - 2;

impl Dictionary {
    /// An empty dictionary.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many strings there are; ordinals are `0..len`.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is no string at all.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The string with this ordinal.
    pub fn get(&self, ordinal: u32) -> Option<&str> {
        let index = ordinal as usize;
        let end = *self.ends.get(index)?;
        self.text.get(self.start(index)..end)
    }

    /// The ordinal of a string, if it is known. O(1).
    pub fn ordinal(&self, string: &str) -> Option<u32> {
        self.ordinal_of_bytes(string.as_bytes())
    }

    /// The ordinal of a string given as bytes that are not known to be UTF-8.
    pub(crate) fn ordinal_of_bytes(&self, bytes: &[u8]) -> Option<u32> {
        let slot = self.slot(bytes)?;
        self.slots[slot].checked_sub(1)
    }

    /// The ordinal of a string, which is added if it is new. `None` when the dictionary holds
    /// [`MAX_STRINGS`] already. Amortised O(1).
    pub fn insert(&mut self, string: &str) -> Option<u32> {
        if self.ends.len() * 8 >= self.slots.len() * 7 {
            self.grow();
        }
        let slot = self.slot(string.as_bytes())?;
        if let Some(ordinal) = self.slots[slot].checked_sub(1) {
            return Some(ordinal);
        }
        if self.ends.len() >= MAX_STRINGS {
            return None;
        }
        let ordinal = u32::try_from(self.ends.len()).ok()?;
        self.text.push_str(string);
        self.ends.push(self.text.len());
        self.slots[slot] = ordinal + 1;
        Some(ordinal)
    }

    /// The strings in order of their ordinals.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &str> {
        (0..self.ends.len()).map(|index| &self.text[self.start(index)..self.ends[index]])
    }

    fn start(&self, index: usize) -> usize {
        index.checked_sub(1).map_or(0, |before| self.ends[before])
    }

    /// Where `bytes` is, or the free slot where it belongs; `None` if there are no slots yet.
    fn slot(&self, bytes: &[u8]) -> Option<usize> {
        let mask = self.slots.len().checked_sub(1)?;
        let mut slot = self.home(bytes, mask);
        loop {
            let Some(ordinal) = self.slots[slot].checked_sub(1) else {
                return Some(slot);
            };
            let index = ordinal as usize;
            if &self.text.as_bytes()[self.start(index)..self.ends[index]] == bytes {
                return Some(slot);
            }
            slot = (slot + 1) & mask;
        }
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "any bits of the hash will do"
    )]
    fn home(&self, bytes: &[u8], mask: usize) -> usize {
        self.hasher.hash_one(bytes) as usize & mask
    }

    fn grow(&mut self) {
        let slots = (self.slots.len() * 2).max(16);
        let mask = slots - 1;
        self.slots = vec![0; slots];
        for index in 0..self.ends.len() {
            let bytes = &self.text.as_bytes()[self.start(index)..self.ends[index]];
            let mut slot = self.home(bytes, mask);
            while self.slots[slot] != 0 {
                slot = (slot + 1) & mask;
            }
            // `insert` keeps the number of strings below MAX_STRINGS, so this always fits.
            self.slots[slot] = u32::try_from(index + 1).unwrap_or(u32::MAX);
        }
    }
}

impl<S: AsRef<str>> FromIterator<S> for Dictionary {
    /// Collects the distinct strings in order of first appearance.
    fn from_iter<I: IntoIterator<Item = S>>(strings: I) -> Self {
        let mut dictionary = Self::new();
        for string in strings {
            dictionary.insert(string.as_ref());
        }
        dictionary
    }
}

impl PartialEq for Dictionary {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text && self.ends == other.ends
    }
}

impl Eq for Dictionary {}

impl fmt::Debug for Dictionary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dictionary")
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn agrees_with_a_hash_map(strings in prop::collection::vec("[a-c]{0,3}", 0..300)) {
            let mut dictionary = Dictionary::new();
            let mut model: HashMap<String, u32> = HashMap::new();
            for string in &strings {
                let next = u32::try_from(model.len()).unwrap();
                let expected = *model.entry(string.clone()).or_insert(next);
                prop_assert_eq!(dictionary.insert(string), Some(expected));
            }
            prop_assert_eq!(dictionary.len(), model.len());
            for (string, ordinal) in &model {
                prop_assert_eq!(dictionary.ordinal(string), Some(*ordinal));
                prop_assert_eq!(dictionary.get(*ordinal), Some(string.as_str()));
            }
            prop_assert_eq!(dictionary.ordinal("not there"), None);
            prop_assert_eq!(dictionary.get(u32::try_from(model.len()).unwrap()), None);
            let again: Dictionary = dictionary.iter().collect();
            prop_assert_eq!(again, dictionary);
        }
    }
}
