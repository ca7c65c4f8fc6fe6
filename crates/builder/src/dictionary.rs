//! Strings stored once, addressed by dense `u32` ordinals in order of first appearance.

use std::fmt;
use std::hash::BuildHasher;

use foldhash::quality::RandomState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use refrain_kernels::prefetch;

/// A set of distinct strings and their ordinals.
///
/// All text lives in one buffer, so a million ids cost their bytes plus about 20 each. Lookup is
/// a table of ordinals over that buffer: no string is kept twice. The hasher is
/// keyed at random because ids come from outside; ordinals depend only on insertion order.
#[derive(Clone, Default)]
pub struct Dictionary {
    text: String,
    /// End of string `i` in `text`; its start is the end of the one before.
    ends: Vec<usize>,
    ordinals: HashTable<u32>,
    hasher: RandomState,
}

/// The most strings one dictionary holds: ordinals are `u32` and the last two values are spare.
pub const MAX_STRINGS: usize = u32::MAX as usize - 2;

impl Dictionary {
    /// An empty dictionary.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty dictionary with room for so many strings.
    pub(crate) fn with_capacity(strings: usize) -> Self {
        Self {
            ends: Vec::with_capacity(strings),
            ordinals: HashTable::with_capacity(strings),
            ..Self::default()
        }
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
        let known = (ordinal as usize) < self.ends.len();
        known.then(|| &self.text[range(&self.ends, ordinal)])
    }

    /// The ordinal of a string, if it is known. O(1).
    pub fn ordinal(&self, string: &str) -> Option<u32> {
        self.ordinal_of_bytes(string.as_bytes())
    }

    /// The ordinal of a string given as bytes that are not known to be UTF-8.
    pub(crate) fn ordinal_of_bytes(&self, bytes: &[u8]) -> Option<u32> {
        self.find(self.hasher.hash_one(bytes), bytes)
    }

    /// Likely ordinals of several strings; [`Dictionary::get`] tells whether they are. Each would wait for memory
    /// three times: together they wait for it at once, and the strings that are guessed are on their way.
    pub(crate) fn guess<'a>(
        &self,
        strings: impl IntoIterator<Item = &'a [u8]>,
        guesses: &mut Vec<u32>,
    ) {
        guesses.clear();
        let mut before = None;
        for string in strings {
            // One user's rows are often together.
            if let (true, Some(&again)) = (before == Some(string), guesses.last()) {
                guesses.push(again);
                continue;
            }
            before = Some(string);
            let hash = self.hasher.hash_one(string);
            // The first of a like hash, mostly the only one.
            let first = self.ordinals.find(hash, |_| true);
            guesses.push(first.copied().unwrap_or(u32::MAX));
        }
        for &mut guess in guesses {
            if (guess as usize) < self.ends.len() {
                prefetch(self.bytes(guess));
            }
        }
    }

    fn find(&self, hash: u64, bytes: &[u8]) -> Option<u32> {
        let found = self.ordinals.find(hash, |&at| self.bytes(at) == bytes);
        found.copied()
    }

    /// The ordinal of a string, which is added if it is new. `None` when the dictionary holds
    /// [`MAX_STRINGS`] already. Amortised O(1).
    pub fn insert(&mut self, string: &str) -> Option<u32> {
        let Self {
            text,
            ends,
            ordinals,
            hasher,
        } = self;
        let is = |&at: &u32| bytes(text, ends, at) == string.as_bytes();
        let hash_of = |&at: &u32| hasher.hash_one(bytes(text, ends, at));
        let ordinal = ends.len();
        match ordinals.entry(hasher.hash_one(string.as_bytes()), is, hash_of) {
            Entry::Occupied(known) => return Some(*known.get()),
            Entry::Vacant(_) if ordinal >= MAX_STRINGS => return None,
            Entry::Vacant(place) => place.insert(u32::try_from(ordinal).ok()?),
        };
        text.push_str(string);
        ends.push(text.len());
        u32::try_from(ordinal).ok()
    }

    /// The strings in order of their ordinals.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &str> {
        let mut start = 0;
        self.ends.iter().map(move |&end| {
            let string = &self.text[start..end];
            start = end;
            string
        })
    }

    fn bytes(&self, ordinal: u32) -> &[u8] {
        bytes(&self.text, &self.ends, ordinal)
    }
}

/// The string with this ordinal, which there is.
fn bytes<'a>(text: &'a str, ends: &[usize], ordinal: u32) -> &'a [u8] {
    &text.as_bytes()[range(ends, ordinal)]
}

fn range(ends: &[usize], ordinal: u32) -> std::ops::Range<usize> {
    let index = ordinal as usize;
    index.checked_sub(1).map_or(0, |before| ends[before])..ends[index]
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
            let mut guesses = Vec::new();
            dictionary.guess(strings.iter().map(|string| string.as_bytes()), &mut guesses);
            prop_assert_eq!(guesses.len(), strings.len());
            prop_assert!(guesses.iter().all(|guess| dictionary.get(*guess).is_some()));
            let again: Dictionary = dictionary.iter().collect();
            prop_assert_eq!(again, dictionary);
        }
    }
}
