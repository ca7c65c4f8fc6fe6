//! The memory of a search, kept between searches.

use std::{cmp::Reverse, collections::BinaryHeap, ops::Range};

use refrain_kernels::{
    Lines,
    codes::{SLACK, Simd, WIDE},
};

use crate::{
    codes::CodeQuery,
    front,
    layout::MAX_M,
    nibbles::NibbleQuery,
    pool::{Pool, Ranked},
};

/// What a search needs besides the index; reuse it, and searches stop allocating.
///
/// One thread uses a scratch at a time. It fits any index, and grows to the largest it has met:
/// about one byte an item plus some 30 kilobytes.
#[derive(Debug, Default)]
pub struct Scratch {
    pub(crate) visited: Visited,
    pub(crate) pool: Pool,
    pub(crate) results: Pool,
    pub(crate) frontier: BinaryHeap<Reverse<Ranked>>,
    pub(crate) block: Box<Block>,
    pub(crate) head: front::Memory,
    /// Scores of a sample of all items, where a walk has taken one.
    pub(crate) sample: Vec<f32>,
    /// The query as given, or of unit length.
    pub(crate) query: Lines<f32>,
    pub(crate) coded: CodeQuery,
    pub(crate) nibbles: NibbleQuery,
    /// All dimensions of the query, where less is walked.
    pub(crate) whole: CodeQuery,
    /// A vector being decoded.
    pub(crate) row: Lines<f32>,
}

impl Scratch {
    /// An empty scratch; the first searches fill it.
    pub fn new() -> Self {
        Self::default()
    }
}

/// Most positions scored at once: a row of the widest degree.
pub(crate) const BLOCK: usize = 2 * MAX_M;

/// Positions on their way to being scored, and their scores.
#[derive(Debug)]
#[repr(align(64))] // registers of scores lie in one cache line
pub(crate) struct Block {
    pub(crate) positions: [u32; BLOCK],
    /// Their places, where the two differ.
    pub(crate) places: [u32; BLOCK],
    pub(crate) scores: [f32; BLOCK],
    /// Their steps, where they lie one after another.
    pub(crate) steps: [f32; BLOCK],
}

/// Which of the next [`WIDE`] slots of a range have a score that is not below the bar; there is one for each of as many
/// slots. Told of many at once, it takes no branch for each, which would be as good as random.
#[inline(always)]
pub(crate) fn not_below(simd: impl Simd, scores: &[f32], slots: Range<usize>, bar: f32) -> Slots {
    let within = u32::MAX >> (32 - slots.len().clamp(1, WIDE));
    let mask = match scores[slots.start..].first_chunk() {
        Some(scores) => simd.not_below(scores, bar) & within,
        None => 0, // never: scores are some more than slots, or a multiple of that
    };
    Slots {
        first: slots.start,
        mask,
    }
}

/// Some slots, in order.
#[derive(Debug)]
pub(crate) struct Slots {
    first: usize,
    /// Bit `i` for the `i`-th from the first.
    mask: u32,
}

impl Iterator for Slots {
    type Item = usize;

    #[inline(always)]
    fn next(&mut self) -> Option<usize> {
        let slot = self.first + self.mask.trailing_zeros() as usize;
        let some = self.mask != 0;
        self.mask &= self.mask.wrapping_sub(1);
        some.then_some(slot)
    }
}

impl Default for Block {
    fn default() -> Self {
        Self {
            positions: [0; BLOCK],
            places: [0; BLOCK],
            scores: [0.0; BLOCK],
            steps: [0.0; BLOCK],
        }
    }
}

/// A set that is emptied in constant time: who carries the current stamp is in it.
#[derive(Debug, Default)]
pub(crate) struct Visited {
    /// Of each position, and some that are of none.
    stamps: Vec<u8>,
    len: usize,
    current: u8,
}

impl Visited {
    /// Empties the set and lets it hold positions below `len`.
    pub(crate) fn reset(&mut self, len: usize) {
        self.len = len;
        if self.stamps.len() < len + SLACK {
            self.stamps.resize(len + SLACK, 0);
        }
        self.current = self.current.wrapping_add(1);
        if self.current == 0 {
            self.stamps.fill(0);
            self.current = 1;
        }
    }

    /// Makes the first `len` positions members.
    pub(crate) fn mark(&mut self, len: usize) {
        self.stamps[..len].fill(self.current);
    }

    /// The set as the walk takes it.
    #[inline(always)]
    pub(crate) fn marks(&mut self, len: usize) -> Marks<'_> {
        Marks {
            stamps: &mut self.stamps[..len + SLACK],
            current: self.current,
        }
    }

    /// Whether the position is within bounds and new; it is a member from now on.
    pub(crate) fn insert(&mut self, position: u32) -> bool {
        let stamp = self.stamps[..self.len].get_mut(position as usize);
        stamp.is_some_and(|stamp| std::mem::replace(stamp, self.current) != self.current)
    }
}

/// The set, borrowed for one walk.
#[derive(Debug)]
pub(crate) struct Marks<'a> {
    stamps: &'a mut [u8],
    current: u8,
}

impl Marks<'_> {
    /// Asks for the memory that tells whether a link is new.
    #[inline(always)]
    pub(crate) fn prefetch(&self, link: u32) {
        refrain_kernels::prefetch_at(self.stamps, link as usize);
    }

    /// Puts what is new among `links` into `new`, and returns how many that are. Ends at the first
    /// link that is none. Those left out are members from now on as well. Links are not alike, as those of a sound row are
    /// not; in a damaged one, an item may come back twice.
    #[inline(always)]
    pub(crate) fn unseen(
        &mut self,
        simd: impl Simd,
        links: &[u32],
        new: &mut [u32; BLOCK],
    ) -> usize {
        let links = &links[..links.len().min(BLOCK)];
        simd.unseen(links, self.stamps, self.current, new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::walk::count;

    #[test]
    fn stamps_survive_their_own_overflow() {
        let mut visited = Visited::default();
        for round in 0..1000 {
            let len = 8 + round % 3;
            visited.reset(len);
            assert!(!visited.insert(count(len)), "what was larger before");
            assert!(visited.insert(7));
            assert!(!visited.insert(7));
            assert!(visited.insert(0));
            assert!(!visited.insert(u32::MAX));
        }
    }
}
