//! Items that are equal: one of them is linked, the others hang behind it.
//!
//! Linked like any other, copies fill each other's rows: a hundred listeners with the same one
//! track become an island. (Of the 351,058 taste vectors of globo-clicks 83,343 have a copy.)

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};

use rayon::prelude::*;

use super::{Coded, Draft};
use crate::{layout::EMPTY, walk::count};

/// Which items are copies.
pub(super) struct Copies {
    /// `(first, copy)`, by first, then by copy; a first is no copy itself.
    pairs: Vec<(u32, u32)>,
    copied: Vec<bool>,
}

impl Copies {
    /// Finds items that are coded alike, to the last byte.
    pub(super) fn find(coded: &Coded) -> Self {
        let n = coded.scales.len();
        let hasher = BuildHasherDefault::<DefaultHasher>::default();
        let mut hashed: Vec<(u64, u32)> = (0..count(n))
            .into_par_iter()
            .map(|item| (hasher.hash_one(coded.bytes(item)), item))
            .collect();
        hashed.par_sort_unstable();
        let mut pairs = Vec::new();
        for alike in hashed
            .chunk_by(|a, b| a.0 == b.0)
            .filter(|alike| alike.len() > 1)
        {
            // Hashes may collide: the firsts of this hash, nearly always one.
            let mut firsts: Vec<u32> = Vec::new();
            for (_, item) in alike {
                let bytes = coded.bytes(*item);
                match firsts.iter().find(|first| coded.bytes(**first) == bytes) {
                    Some(first) => pairs.push((*first, *item)),
                    None => firsts.push(*item),
                }
            }
        }
        pairs.sort_unstable();
        let mut copied = vec![false; n];
        for (_, copy) in &pairs {
            copied[*copy as usize] = true;
        }
        Self { pairs, copied }
    }

    /// As if all of `n` items were different.
    #[cfg(test)]
    pub(super) fn none(n: usize) -> Self {
        Self {
            pairs: Vec::new(),
            copied: vec![false; n],
        }
    }

    /// Whether an item is a copy of another.
    pub(super) fn contains(&self, item: u32) -> bool {
        self.copied[item as usize]
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.pairs.len()
    }

    /// Hangs every copy behind its first: the first leads to the first copy, each copy to the
    /// next, and back to the first. They score alike, so a walk that comes by takes as many as it
    /// has room for.
    pub(super) fn chain(&self, draft: &mut Draft) {
        for group in self.pairs.chunk_by(|a, b| a.0 == b.0) {
            let first = group[0].0;
            let row = draft.row_mut(0, first);
            let free = row.iter().position(|link| *link == EMPTY);
            row[free.unwrap_or(row.len() - 1)] = group[0].1;
            for (at, (_, copy)) in group.iter().enumerate() {
                let row = draft.row_mut(0, *copy);
                row.fill(EMPTY);
                row[0] = first;
                if let Some((_, next)) = group.get(at + 1) {
                    row[1] = *next;
                }
            }
        }
    }
}
