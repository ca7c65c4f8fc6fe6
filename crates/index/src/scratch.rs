//! The memory of a search, kept between searches.

use std::{cmp::Reverse, collections::BinaryHeap};

use crate::pool::{Pool, Ranked};

/// What a search needs besides the index; reuse it, and searches stop allocating.
///
/// One thread uses a scratch at a time. It fits any index, and grows to the largest it has met:
/// about one byte an item plus a few kilobytes.
#[derive(Debug, Default)]
pub struct Scratch {
    pub(crate) visited: Visited,
    pub(crate) pool: Pool,
    pub(crate) results: Pool,
    pub(crate) frontier: BinaryHeap<Reverse<Ranked>>,
    pub(crate) block: Block,
    pub(crate) query: Vec<f32>,
}

impl Scratch {
    /// An empty scratch; the first searches fill it.
    pub fn new() -> Self {
        Self::default()
    }
}

/// Positions on their way to being scored, and their scores.
#[derive(Debug, Default)]
pub(crate) struct Block {
    /// Positions within the layer.
    pub(crate) positions: Vec<u32>,
    /// Their ordinals, where the two differ.
    pub(crate) ordinals: Vec<u32>,
    pub(crate) scores: Vec<f32>,
}

/// A set that is emptied in constant time: who carries the current stamp is in it.
#[derive(Debug, Default)]
pub(crate) struct Visited {
    stamps: Vec<u8>,
    current: u8,
}

impl Visited {
    /// Empties the set and lets it hold positions below `len`.
    pub(crate) fn reset(&mut self, len: usize) {
        if self.stamps.len() < len {
            self.stamps.resize(len, 0);
        }
        self.current = self.current.wrapping_add(1);
        if self.current == 0 {
            self.stamps.fill(0);
            self.current = 1;
        }
    }

    /// Whether the position is within bounds and new; it is a member from now on.
    #[inline]
    pub(crate) fn insert(&mut self, position: u32) -> bool {
        let stamp = self.stamps.get_mut(position as usize);
        stamp.is_some_and(|stamp| std::mem::replace(stamp, self.current) != self.current)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_survive_their_own_overflow() {
        let mut visited = Visited::default();
        for round in 0..1000 {
            visited.reset(8 + round % 3);
            assert!(visited.insert(7));
            assert!(!visited.insert(7));
            assert!(visited.insert(0));
            assert!(!visited.insert(u32::MAX));
        }
    }
}
