//! The order of results, and the sorted pool a walk keeps.

/// A scored position as one integer: smaller is better, ties by position. The lowest bit marks
/// what the walk has expanded.
///
/// Holding score and position together makes every comparison one instruction, and the order
/// total: equal answers at any thread count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ranked(u64);

impl Ranked {
    /// `position` is below 2^31. NaN (an overflow met its opposite) ranks with the worst.
    #[inline]
    pub(crate) fn new(score: f32, position: u32) -> Self {
        // Adding zero turns -0 into 0, which it must tie with.
        let score = if score.is_nan() {
            f32::NEG_INFINITY
        } else {
            score + 0.0
        };
        let bits = score.to_bits();
        let ascending = if bits >> 31 == 1 {
            !bits
        } else {
            bits | 1 << 31
        };
        Self(u64::from(!ascending) << 32 | u64::from(position) << 1)
    }

    /// Worse than anything.
    pub(crate) const WORST: Self = Self(u64::MAX);

    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "the low half, on purpose")]
    pub(crate) fn position(self) -> u32 {
        self.0 as u32 >> 1
    }

    #[inline]
    pub(crate) fn score(self) -> f32 {
        let ascending = !((self.0 >> 32) as u32);
        let bits = if ascending >> 31 == 1 {
            ascending & !(1 << 31)
        } else {
            !ascending
        };
        f32::from_bits(bits)
    }

    /// The same score at another position, not expanded.
    pub(crate) fn at(self, position: u32) -> Self {
        Self::new(self.score(), position)
    }

    #[inline]
    fn expanded(self) -> bool {
        self.0 & 1 == 1
    }
}

/// The best `capacity` seen so far, sorted, best first.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    items: Vec<Ranked>,
    /// Of which group each is, where groups are capped; else empty.
    groups: Vec<u32>,
    capacity: usize,
    /// Everything before it is expanded.
    cursor: usize,
}

/// Of no group; no artist has this number (there are fewer than items, of which there are below 2^31).
const NO_GROUP: u32 = u32::MAX;

impl Pool {
    /// Empties the pool; keeps its memory.
    pub(crate) fn reset(&mut self, capacity: usize) {
        self.items.clear();
        self.groups.clear();
        self.items.reserve(capacity);
        self.capacity = capacity;
        self.cursor = 0;
    }

    /// How many it holds at most.
    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    /// From now on it holds so many, if that is more.
    #[inline(always)]
    pub(crate) fn widen(&mut self, capacity: usize) {
        self.capacity = self.capacity.max(capacity);
    }

    /// What a newcomer must be better than.
    #[inline]
    pub(crate) fn bar(&self) -> Ranked {
        if self.items.len() < self.capacity {
            Ranked::WORST
        } else {
            self.items.last().copied().unwrap_or(Ranked(0))
        }
    }

    /// A newcomer of a smaller score is not taken.
    #[inline(always)]
    pub(crate) fn bar_score(&self) -> f32 {
        if self.items.len() < self.capacity {
            f32::NEG_INFINITY
        } else {
            self.items.last().map_or(f32::INFINITY, |last| last.score())
        }
    }

    /// Takes the newcomer in if it is better than the bar; the worst gives way when full.
    /// O(log capacity) comparisons and one move of memory.
    #[inline(never)]
    pub(crate) fn insert(&mut self, item: Ranked) {
        if item >= self.bar() {
            return;
        }
        let at = self.items.partition_point(|other| *other < item);
        if self.items.len() == self.capacity {
            self.items.pop();
        }
        self.items.insert(at, item);
        self.cursor = self.cursor.min(at);
    }

    /// As [`Pool::insert`] of an item of a group, of which at most `most` are kept: the worst of a full
    /// group gives way to a better one of it. `None`: of no group. O(capacity).
    ///
    /// All that is put into a pool comes this way, or none.
    #[inline(never)]
    pub(crate) fn insert_capped(&mut self, item: Ranked, group: Option<u32>, most: u32) {
        if item >= self.bar() {
            return;
        }
        let group = group.unwrap_or(NO_GROUP);
        if group != NO_GROUP {
            let of_group = self.groups.iter().enumerate();
            let mut of_group = of_group.filter(|(_, other)| **other == group);
            // Sorted: the last one that there is room for is the worst.
            if let Some((worst, _)) = of_group.nth(most as usize - 1) {
                if self.items[worst] < item {
                    return;
                }
                self.items.remove(worst);
                self.groups.remove(worst);
            }
        }
        let at = self.items.partition_point(|other| *other < item);
        if self.items.len() == self.capacity {
            self.items.pop();
            self.groups.pop();
        }
        self.items.insert(at, item);
        self.groups.insert(at, group);
        self.cursor = self.cursor.min(at);
    }

    /// The best that has not been expanded, now marked as such.
    #[inline]
    pub(crate) fn expand(&mut self) -> Option<u32> {
        let rest = &self.items[self.cursor..];
        let at = self.cursor + rest.iter().position(|item| !item.expanded())?;
        self.items[at].0 |= 1;
        self.cursor = at + 1;
        Some(self.items[at].position())
    }

    /// The best that has not been expanded.
    #[inline(always)]
    pub(crate) fn next(&self) -> Option<u32> {
        let rest = self.items.get(self.cursor..)?;
        rest.iter()
            .find(|item| !item.expanded())
            .map(|item| item.position())
    }

    /// Leaves only what `stays` is true of. Not for groups.
    pub(crate) fn retain(&mut self, stays: impl Fn(u32) -> bool) {
        debug_assert!(
            self.groups.is_empty(),
            "positions would no longer be those of their groups"
        );
        self.items.retain(|item| stays(item.position()));
        self.cursor = 0;
    }

    /// The score of rank `k`, from 1; `None` if there are not that many.
    #[inline]
    pub(crate) fn score_at(&self, k: usize) -> Option<Ranked> {
        self.items.get(k.checked_sub(1)?).copied()
    }

    pub(crate) fn items(&self) -> &[Ranked] {
        &self.items
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn order_is_score_then_position(
            a in any::<f32>(), b in any::<f32>(), i in 0_u32..1 << 31, j in 0_u32..1 << 31,
        ) {
            let plain = |x: f32| if x.is_nan() { f32::NEG_INFINITY } else { x + 0.0 };
            let expected = plain(b).total_cmp(&plain(a)).then(i.cmp(&j));
            let (left, right) = (Ranked::new(a, i), Ranked::new(b, j));
            prop_assert_eq!(left.cmp(&right), expected);
            prop_assert_eq!(left.position(), i);
            prop_assert_eq!(left.score().to_bits(), plain(a).to_bits());
            prop_assert!(left < Ranked::WORST);
        }

        #[test]
        fn a_pool_keeps_the_best(
            scores in prop::collection::vec(-5_i8..5, 0..100), capacity in 0_usize..20,
        ) {
            let all: Vec<Ranked> =
                scores.iter().zip(0..).map(|(s, i)| Ranked::new(f32::from(*s), i)).collect();
            let mut pool = Pool::default();
            pool.reset(capacity);
            let mut expanded = Vec::new();
            for chunk in all.chunks(7) {
                chunk.iter().for_each(|item| pool.insert(*item));
                let open = pool.items().iter().find(|item| !item.expanded());
                let best = open.map(|item| item.position());
                prop_assert_eq!(pool.expand(), best);
                expanded.extend(best);
            }
            let mut sorted = all;
            sorted.sort_unstable();
            let kept: Vec<u32> = pool.items().iter().map(|item| item.position()).collect();
            let best: Vec<u32> = sorted.iter().take(capacity).map(|i| i.position()).collect();
            prop_assert_eq!(kept, best);
            let mut once = expanded.clone();
            once.sort_unstable();
            once.dedup();
            prop_assert_eq!(once.len(), expanded.len());
        }
    }
}
