//! A set of item ordinals.

use std::mem;

use super::table::{NONE, Table};

/// A set of item ordinals: an open-addressed table or a bitmap, whichever is smaller. Made once and
/// asked often: a listener's exclusions, an attribute shared by all requests.
///
/// Membership takes constant time (one or two cache lines), which is what a walk asks of it; ten
/// ordinals take 128 bytes, a million of ten million 1.25 MB. Sets that are both bitmaps are combined
/// 64 ordinals at a time.
#[derive(Clone, Debug, Default)]
pub struct OrdinalSet {
    repr: Repr,
    len: usize,
    /// No smaller than the largest ordinal: what a bitmap would have to cover.
    largest: u32,
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

impl OrdinalSet {
    /// The empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// The set of these, in any order, repeated or not; [`u32::MAX`] is no ordinal and is left out.
    /// O(ordinals), and O(largest / 64) where they are dense enough for a bitmap: about a
    /// nanosecond an ordinal.
    pub fn from_ordinals(ordinals: &[u32]) -> Self {
        let real = |ordinal: u32| if ordinal == NONE { 0 } else { ordinal };
        let largest = ordinals.iter().fold(0, |most, one| most.max(real(*one)));
        let words = words_to(largest);
        if Table::slots_for(ordinals.len()) * 4 <= words * 8 {
            let mut table = Table::with_room(ordinals.len());
            let mut len = 0;
            for &ordinal in ordinals {
                if ordinal != NONE {
                    len += usize::from(table.insert(ordinal, len));
                }
            }
            let repr = Repr::Table(table);
            return Self { repr, len, largest };
        }
        let mut bitmap = vec![0_u64; words];
        for &ordinal in ordinals {
            if ordinal != NONE {
                bitmap[ordinal as usize / 64] |= 1 << (ordinal % 64);
            }
        }
        Self::from_bitmap(bitmap, largest)
    }

    fn from_bitmap(bitmap: Vec<u64>, largest: u32) -> Self {
        let len = bitmap.iter().map(|word| word.count_ones() as usize).sum();
        let repr = Repr::Bitmap(bitmap);
        Self { repr, len, largest }
    }

    /// How many ordinals are in the set.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing is in the set.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes it takes in memory, beside itself.
    pub fn bytes(&self) -> usize {
        match &self.repr {
            Repr::Table(table) => table.bytes(),
            Repr::Bitmap(bitmap) => bitmap.len() * size_of::<u64>(),
        }
    }

    /// Whether an ordinal is in the set.
    #[inline]
    pub fn contains(&self, ordinal: u32) -> bool {
        match &self.repr {
            Repr::Table(table) => table.contains(ordinal),
            Repr::Bitmap(words) => bit(words, ordinal) == 1,
        }
    }

    /// Which of up to 64 ordinals are in the set: bit `i` for the `i`-th.
    #[inline]
    pub fn mask(&self, ordinals: &[u32]) -> u64 {
        let ordinals = &ordinals[..ordinals.len().min(64)];
        match &self.repr {
            _ if self.len == 0 => 0,
            Repr::Table(table) => gather(ordinals, |one| u64::from(table.contains(one))),
            Repr::Bitmap(words) => gather(ordinals, |one| bit(words, one)),
        }
    }

    /// Adds an ordinal; says whether it is new. [`u32::MAX`] is no ordinal and is never added.
    pub fn insert(&mut self, ordinal: u32) -> bool {
        if ordinal == NONE {
            return false;
        }
        self.largest = self.largest.max(ordinal);
        let words = words_to(self.largest);
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
                let mut table = Table::with_room(self.len + 1);
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

    /// Adds what is in the other.
    pub fn union_with(&mut self, other: &Self) {
        match (&mut self.repr, &other.repr) {
            (Repr::Bitmap(mine), Repr::Bitmap(theirs)) => {
                if mine.len() < theirs.len() {
                    mine.resize(theirs.len(), 0);
                }
                mine.iter_mut().zip(theirs).for_each(|(a, b)| *a |= b);
                let largest = self.largest.max(other.largest);
                *self = Self::from_bitmap(mem::take(mine), largest);
            }
            (Repr::Table(_), Repr::Bitmap(_)) => {
                let mut union = other.clone();
                union.extend(self.iter());
                *self = union;
            }
            (_, Repr::Table(_)) => self.extend(other.iter()),
        }
    }

    /// Keeps what is in the other, too.
    pub fn intersect_with(&mut self, other: &Self) {
        match (&mut self.repr, &other.repr) {
            (Repr::Bitmap(mine), Repr::Bitmap(theirs)) => {
                mine.truncate(theirs.len());
                mine.iter_mut().zip(theirs).for_each(|(a, b)| *a &= b);
                let largest = self.largest.min(other.largest);
                *self = Self::from_bitmap(mem::take(mine), largest);
            }
            // The table is the smaller of the two.
            (Repr::Bitmap(_), Repr::Table(_)) => *self = other.filtered(|one| self.contains(one)),
            (Repr::Table(_), _) => *self = self.filtered(|one| other.contains(one)),
        }
    }

    /// Takes out what is in the other.
    pub fn subtract(&mut self, other: &Self) {
        match (&mut self.repr, &other.repr) {
            (Repr::Bitmap(mine), Repr::Bitmap(theirs)) => {
                mine.iter_mut().zip(theirs).for_each(|(a, b)| *a &= !b);
                *self = Self::from_bitmap(mem::take(mine), self.largest);
            }
            (Repr::Table(_), _) => *self = self.filtered(|one| !other.contains(one)),
            (Repr::Bitmap(_), Repr::Table(_)) => {
                for ordinal in other.iter() {
                    self.remove(ordinal);
                }
            }
        }
    }

    fn filtered(&self, keep: impl Fn(u32) -> bool) -> Self {
        let kept: Vec<u32> = self.iter().filter(|one| keep(*one)).collect();
        Self::from_ordinals(&kept)
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
        let ordinals: Vec<u32> = ordinals.into_iter().collect();
        Self::from_ordinals(&ordinals)
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

/// Words of a bitmap up to an ordinal.
fn words_to(largest: u32) -> usize {
    largest as usize / 64 + 1
}

#[inline(always)]
fn bit(words: &[u64], ordinal: u32) -> u64 {
    let word = words.get(ordinal as usize / 64).copied().unwrap_or(0);
    word >> (ordinal % 64) & 1
}

#[inline(always)]
fn gather(ordinals: &[u32], of: impl Fn(u32) -> u64) -> u64 {
    let bits = ordinals.iter().enumerate();
    bits.fold(0, |mask, (at, ordinal)| mask | of(*ordinal) << at)
}

#[cfg(test)]
mod tests;
