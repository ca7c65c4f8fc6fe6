//! The order of results, and the sorted pool a walk keeps.

use refrain_kernels::codes::{SORTED, Scalar, Simd};

/// A scored position as one integer: smaller is better, ties by position. The lowest bit marks
/// what the walk has expanded.
///
/// Holding score and position together makes every comparison one instruction, and the order
/// total: equal answers at any thread count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(transparent)]
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
    /// The first `len` of them; then [`Ranked::WORST`], to the end of a register that holds the last place.
    items: Vec<Ranked>,
    len: usize,
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
        self.len = 0;
        self.capacity = 0;
        self.cursor = 0;
        self.widen(capacity);
    }

    /// How many it holds at most.
    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    /// From now on it holds so many, if that is more.
    #[inline(always)]
    pub(crate) fn widen(&mut self, capacity: usize) {
        if capacity > self.capacity {
            self.capacity = capacity;
            let whole = capacity.next_multiple_of(SORTED);
            self.items.resize(whole, Ranked::WORST);
        }
    }

    fn is_full(&self) -> bool {
        self.len == self.capacity
    }

    /// What a newcomer must be better than.
    #[inline(always)]
    pub(crate) fn bar(&self) -> Ranked {
        // While there is room, nothing is at the last place.
        let last = self.capacity.checked_sub(1);
        last.map_or(Ranked(0), |last| self.items[last])
    }

    /// A newcomer of a smaller score is not taken.
    #[inline(always)]
    pub(crate) fn bar_score(&self) -> f32 {
        if !self.is_full() {
            return f32::NEG_INFINITY;
        }
        self.items()
            .last()
            .map_or(f32::INFINITY, |last| last.score())
    }

    /// Takes the newcomer in if it is better than the bar; the worst gives way when full. One pass over what is worse.
    #[inline(always)]
    pub(crate) fn insert(&mut self, simd: impl Simd, item: Ranked) {
        if item >= self.bar() {
            return;
        }
        self.len = (self.len + 1).min(self.capacity);
        let whole = self.len.next_multiple_of(SORTED);
        let limit = self.capacity.min(whole);
        let items = &mut self.items[..whole];
        let at = simd.insert(bytemuck::cast_slice_mut(items), limit, item.0);
        self.cursor = self.cursor.min(at);
    }

    /// Takes in the best of many, which are put in another order, where nothing is in it.
    pub(crate) fn fill(&mut self, many: &mut [Ranked]) {
        debug_assert!(self.items().is_empty(), "what is in it would be lost");
        let best = match many.len() > self.capacity {
            true => many.select_nth_unstable(self.capacity).0,
            false => many,
        };
        best.sort_unstable();
        self.items[..best.len()].copy_from_slice(best);
        self.len = best.len();
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
                self.items[worst..self.len].rotate_left(1);
                self.len -= 1;
                self.items[self.len] = Ranked::WORST;
                self.groups.remove(worst);
            }
        }
        let at = self.items().partition_point(|other| *other < item);
        if self.is_full() {
            self.groups.pop();
        }
        self.groups.insert(at, group);
        self.insert(Scalar, item);
    }

    /// The best that has not been expanded, now marked as such.
    #[inline]
    pub(crate) fn expand(&mut self) -> Option<u32> {
        let rest = &self.items[self.cursor..self.len];
        let at = self.cursor + rest.iter().position(|item| !item.expanded())?;
        self.items[at].0 |= 1;
        self.cursor = at + 1;
        Some(self.items[at].position())
    }

    /// The best that has not been expanded.
    #[inline(always)]
    pub(crate) fn next(&self) -> Option<u32> {
        let rest = self.items.get(self.cursor..self.len)?;
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
        let mut kept = 0;
        for at in 0..self.len {
            let item = self.items[at];
            self.items[kept] = item;
            kept += usize::from(stays(item.position()));
        }
        self.items[kept..self.len].fill(Ranked::WORST);
        self.len = kept;
        self.cursor = 0;
    }

    /// The score of rank `k`, from 1; `None` if there are not that many.
    #[inline]
    pub(crate) fn score_at(&self, k: usize) -> Option<Ranked> {
        self.items().get(k.checked_sub(1)?).copied()
    }

    #[inline(always)]
    pub(crate) fn items(&self) -> &[Ranked] {
        &self.items[..self.len]
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
            // What was in it before leaves no trace, nor does it matter when it grew.
            pool.reset(30);
            (0..30).for_each(|at| pool.insert(Scalar, Ranked::new(9.0, at)));
            pool.reset(capacity / 2);
            pool.widen(capacity);
            let mut expanded = Vec::new();
            for chunk in all.chunks(7) {
                chunk.iter().for_each(|item| pool.insert(Scalar, *item));
                let open = pool.items().iter().find(|item| !item.expanded());
                let best = open.map(|item| item.position());
                prop_assert_eq!(pool.expand(), best);
                expanded.extend(best);
            }
            let mut sorted = all.clone();
            sorted.sort_unstable();
            let kept: Vec<u32> = pool.items().iter().map(|item| item.position()).collect();
            let best: Vec<u32> = sorted.iter().take(capacity).map(|i| i.position()).collect();
            prop_assert_eq!(&kept, &best);
            let mut filled = Pool::default();
            filled.reset(capacity);
            filled.fill(&mut all.clone());
            prop_assert_eq!(filled.items(), &sorted[..best.len()]);
            prop_assert_eq!(filled.bar().position(), pool.bar().position());
            let mut once = expanded.clone();
            once.sort_unstable();
            once.dedup();
            prop_assert_eq!(once.len(), expanded.len());
            prop_assert_eq!(pool.score_at(capacity + 1), None);
            let odd = |position: u32| position % 2 == 1;
            let left: Vec<u32> = kept.into_iter().filter(|at| odd(*at)).collect();
            pool.retain(odd);
            let stayed = |pool: &Pool| pool.items().iter().map(|item| item.position()).collect::<Vec<_>>();
            prop_assert_eq!(stayed(&pool), left.clone());
            // There is room again where some went.
            let before = left.len();
            pool.insert(Scalar, Ranked::new(-9.0, 1_000));
            prop_assert_eq!(stayed(&pool).len(), (before + 1).min(capacity));
        }
    }
}
