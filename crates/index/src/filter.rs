//! Which items may come back: sets of ordinals and the filter made of them.

use std::mem;

/// A set of item ordinals: an open-addressed table or a bitmap, whichever is smaller.
///
/// Membership takes constant time (one or two cache lines), which is what a walk asks of it.
#[derive(Clone, Debug, Default)]
pub struct OrdinalSet {
    repr: Repr,
    len: usize,
    /// The largest ordinal ever inserted: what a bitmap would have to cover.
    largest: u32,
}

impl OrdinalSet {
    /// The empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many ordinals are in the set.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing is in the set.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether an ordinal is in the set.
    #[inline]
    pub fn contains(&self, ordinal: u32) -> bool {
        match &self.repr {
            Repr::Table(table) => table.contains(ordinal),
            Repr::Bitmap(words) => words
                .get(ordinal as usize / 64)
                .is_some_and(|word| word >> (ordinal % 64) & 1 == 1),
        }
    }

    /// Adds an ordinal; says whether it is new. [`u32::MAX`] is no ordinal and is never added.
    pub fn insert(&mut self, ordinal: u32) -> bool {
        if ordinal == NONE {
            return false;
        }
        self.largest = self.largest.max(ordinal);
        let words = self.largest as usize / 64 + 1;
        let table_bytes = Table::slots_for(self.len + 1) * 4;
        match &self.repr {
            Repr::Table(_) if table_bytes > words * 8 => {
                let mut bitmap = vec![0_u64; words];
                for old in self.iter() {
                    bitmap[old as usize / 64] |= 1 << (old % 64);
                }
                self.repr = Repr::Bitmap(bitmap);
            }
            // A far outlier: the factor keeps the two from alternating.
            Repr::Bitmap(_) if table_bytes * 4 < words * 8 => {
                let mut table = Table::default();
                for (len, old) in self.iter().enumerate() {
                    table.insert(old, len);
                }
                self.repr = Repr::Table(table);
            }
            _ => {}
        }
        let new = match &mut self.repr {
            Repr::Table(table) => table.insert(ordinal, self.len),
            Repr::Bitmap(bitmap) => {
                if bitmap.len() < words {
                    bitmap.resize(words, 0);
                }
                let word = &mut bitmap[ordinal as usize / 64];
                let bit = 1 << (ordinal % 64);
                mem::replace(word, *word | bit) & bit == 0
            }
        };
        self.len += usize::from(new);
        new
    }

    /// Takes an ordinal out; says whether it was there.
    pub fn remove(&mut self, ordinal: u32) -> bool {
        let old = match &mut self.repr {
            Repr::Table(table) => table.remove(ordinal),
            Repr::Bitmap(bitmap) => bitmap.get_mut(ordinal as usize / 64).is_some_and(|word| {
                let bit = 1 << (ordinal % 64);
                mem::replace(word, *word & !bit) & bit != 0
            }),
        };
        self.len -= usize::from(old);
        old
    }

    /// The ordinals, each once, in no promised order.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        let (table, bitmap) = match &self.repr {
            Repr::Table(table) => (Some(table), &[][..]),
            Repr::Bitmap(bitmap) => (None, &bitmap[..]),
        };
        let bits = (0_u32..)
            .step_by(64)
            .zip(bitmap)
            .flat_map(|(first, &word)| {
                let mut left = word;
                std::iter::from_fn(move || {
                    let bit = left.trailing_zeros();
                    left &= left.wrapping_sub(1);
                    (bit < 64).then_some(first + bit)
                })
            });
        table.into_iter().flat_map(Table::iter).chain(bits)
    }
}

impl FromIterator<u32> for OrdinalSet {
    fn from_iter<I: IntoIterator<Item = u32>>(ordinals: I) -> Self {
        let mut set = Self::new();
        set.extend(ordinals);
        set
    }
}

impl Extend<u32> for OrdinalSet {
    fn extend<I: IntoIterator<Item = u32>>(&mut self, ordinals: I) {
        for ordinal in ordinals {
            self.insert(ordinal);
        }
    }
}

/// Equal when the same ordinals are in both, however they are held.
impl PartialEq for OrdinalSet {
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len && self.iter().all(|ordinal| other.contains(ordinal))
    }
}

impl Eq for OrdinalSet {}

/// Which items may be in an answer. The default lets everything through.
///
/// What is filtered out still routes the walk; it only never comes back. Several exclusion sets
/// need not be merged (a listener's own beside those shared by everybody).
#[derive(Clone, Copy, Debug, Default)]
pub struct Filter<'a> {
    /// Items in any of these do not come back.
    pub exclude: &'a [&'a OrdinalSet],
    /// If given, only its items come back.
    pub allow: Option<&'a OrdinalSet>,
}

impl Filter<'_> {
    /// Whether nothing can be filtered out.
    pub fn is_open(&self) -> bool {
        self.allow.is_none() && self.exclude.iter().all(|set| set.is_empty())
    }

    /// Whether an item may come back.
    #[inline]
    pub fn allows(&self, ordinal: u32) -> bool {
        self.allow.is_none_or(|set| set.contains(ordinal)) && !self.excludes(ordinal)
    }

    #[inline]
    pub(crate) fn excludes(&self, ordinal: u32) -> bool {
        self.exclude.iter().any(|set| set.contains(ordinal))
    }

    /// How many of `n` items are likely to pass: exact for one set alone, else as though the sets
    /// had nothing to do with each other. Only predicts costs.
    pub(crate) fn expected(&self, n: usize) -> usize {
        let start = self.allow.map_or(n, |set| set.len().min(n));
        self.exclude.iter().fold(start, |left, set| {
            let kept = n.saturating_sub(set.len());
            // Both factors are below 2^31.
            left * kept / n.max(1)
        })
    }
}

#[derive(Clone, Debug)]
enum Repr {
    Table(Table),
    Bitmap(Vec<u64>),
}

impl Default for Repr {
    fn default() -> Self {
        Self::Table(Table::default())
    }
}

/// Marks a free slot; ordinals end before it.
const NONE: u32 = u32::MAX;

/// Linear probing over a power of two of slots, at most half full.
#[derive(Clone, Debug, Default)]
struct Table {
    slots: Vec<u32>,
}

impl Table {
    fn slots_for(len: usize) -> usize {
        (len * 2).next_power_of_two().max(8)
    }

    fn home(&self, ordinal: u32) -> usize {
        // Fibonacci hashing; the high bits of the product are the mixed ones.
        (ordinal.wrapping_mul(0x9E37_79B9) >> 7) as usize & (self.slots.len() - 1)
    }

    /// The slot that holds the ordinal, or the free one where it would go.
    fn find(&self, ordinal: u32) -> usize {
        let mut slot = self.home(ordinal);
        while self.slots[slot] != ordinal && self.slots[slot] != NONE {
            slot = (slot + 1) & (self.slots.len() - 1);
        }
        slot
    }

    #[inline]
    fn contains(&self, ordinal: u32) -> bool {
        !self.slots.is_empty() && ordinal != NONE && self.slots[self.find(ordinal)] == ordinal
    }

    fn insert(&mut self, ordinal: u32, len: usize) -> bool {
        let wanted = Self::slots_for(len + 1);
        if wanted > self.slots.len() {
            let old = mem::replace(&mut self.slots, vec![NONE; wanted]);
            for ordinal in old.into_iter().filter(|slot| *slot != NONE) {
                let slot = self.find(ordinal);
                self.slots[slot] = ordinal;
            }
        }
        let slot = self.find(ordinal);
        mem::replace(&mut self.slots[slot], ordinal) == NONE
    }

    /// Removal that leaves no tombstone: what follows in the run moves up when it may.
    fn remove(&mut self, ordinal: u32) -> bool {
        if !self.contains(ordinal) {
            return false;
        }
        let mask = self.slots.len() - 1;
        let mut hole = self.find(ordinal);
        let mut next = (hole + 1) & mask;
        while self.slots[next] != NONE {
            let home = self.home(self.slots[next]);
            if next.wrapping_sub(home) & mask >= next.wrapping_sub(hole) & mask {
                self.slots[hole] = self.slots[next];
                hole = next;
            }
            next = (next + 1) & mask;
        }
        self.slots[hole] = NONE;
        true
    }

    fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.slots.iter().copied().filter(|slot| *slot != NONE)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn behaves_like_a_set(
            steps in prop::collection::vec((any::<bool>(), 0_u32..600), 0..800),
            scale in prop::sample::select(vec![1_u32, 97, 1_000_003]),
        ) {
            let mut set = OrdinalSet::new();
            let mut model = BTreeSet::new();
            for (add, value) in steps {
                let value = value * scale;
                if add {
                    prop_assert_eq!(set.insert(value), model.insert(value));
                } else {
                    prop_assert_eq!(set.remove(value), model.remove(&value));
                }
                prop_assert_eq!(set.len(), model.len());
            }
            let mut listed: Vec<u32> = set.iter().collect();
            listed.sort_unstable();
            prop_assert_eq!(&listed, &model.iter().copied().collect::<Vec<_>>());
            for value in (0..600).map(|value| value * scale) {
                prop_assert_eq!(set.contains(value), model.contains(&value));
            }
            prop_assert_eq!(&set, &listed.iter().rev().copied().collect());
        }
    }

    #[test]
    fn dense_sets_become_bitmaps() {
        let set: OrdinalSet = (0..1000).collect();
        assert!(matches!(set.repr, Repr::Bitmap(_)));
        let sparse: OrdinalSet = (0..10).map(|i| i * 1_000_000).collect();
        assert!(matches!(sparse.repr, Repr::Table(_)));
    }

    #[test]
    fn the_sentinel_is_no_member() {
        let mut set = OrdinalSet::new();
        assert!(!set.insert(u32::MAX));
        assert!(!set.contains(u32::MAX));
        assert!(!set.remove(u32::MAX));
    }

    #[test]
    fn expected_counts() {
        let (a, b): (OrdinalSet, OrdinalSet) = ((0..50).collect(), (50..60).collect());
        let filter = Filter {
            exclude: &[&a, &b],
            allow: None,
        };
        assert_eq!(filter.expected(100), 45);
        assert_eq!(Filter::default().expected(0), 0);
        assert!(Filter::default().is_open());
        assert!(filter.allows(60) && !filter.allows(55));
    }
}
