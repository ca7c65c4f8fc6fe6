//! A set of few ordinals: open addressing.

use std::mem;

/// Marks a free slot; ordinals end before it.
pub(super) const NONE: u32 = u32::MAX;

/// Linear probing over a power of two of slots, at most half full.
#[derive(Clone, Debug, Default)]
pub(super) struct Table {
    slots: Vec<u32>,
}

impl Table {
    pub(super) fn slots_for(len: usize) -> usize {
        (len * 2).next_power_of_two().max(8)
    }

    fn home(&self, ordinal: u32) -> usize {
        // Fibonacci hashing; the high bits of the product are the mixed ones.
        (ordinal.wrapping_mul(0x9E37_79B9) >> 7) as usize & (self.slots.len() - 1)
    }

    /// A table with room for `len` ordinals.
    pub(super) fn with_room(len: usize) -> Self {
        Self {
            slots: vec![NONE; Self::slots_for(len)],
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.slots.len() * size_of::<u32>()
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
    pub(super) fn contains(&self, ordinal: u32) -> bool {
        !self.slots.is_empty() && ordinal != NONE && self.slots[self.find(ordinal)] == ordinal
    }

    pub(super) fn insert(&mut self, ordinal: u32, len: usize) -> bool {
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
    pub(super) fn remove(&mut self, ordinal: u32) -> bool {
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

    pub(super) fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.slots.iter().copied().filter(|slot| *slot != NONE)
    }
}
