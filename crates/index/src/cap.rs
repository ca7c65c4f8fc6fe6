//! At most so many items of a group in an answer.

use std::fmt::Debug;

/// Which group an item is of: an artist, say.
pub trait Groups: Debug + Sync {
    /// The group; `None`: of none, and so without a cap.
    fn group(&self, ordinal: u32) -> Option<u32>;
}

/// At most `most` items of a group may be in an answer: the best of it, and in their place the best of others.
///
/// The search keeps to it while it walks: what a full group has more of routes, and does not crowd out
/// others. An answer is what all items, best first, come to when those of full groups are passed over.
#[derive(Clone, Copy, Debug)]
pub struct Cap<'a> {
    /// At least 1; 0 is taken as 1.
    pub most: u32,
    /// Which group an item is of.
    pub groups: &'a dyn Groups,
}

impl Cap<'_> {
    pub(crate) fn most(&self) -> u32 {
        self.most.max(1)
    }

    /// How many of a group a walk keeps: it scores by less than all bytes, so one may come out best that was
    /// next to it.
    pub(crate) fn walked(&self) -> u32 {
        self.most().saturating_add(1)
    }

    /// How many a walk has to keep in all to end with `k`, were it of full groups alone.
    pub(crate) fn width(&self, k: usize) -> usize {
        k.saturating_add(k.div_ceil(self.most() as usize))
    }
}

#[cfg(test)]
mod tests;
