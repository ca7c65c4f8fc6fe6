//! Which experiment of a layer owns which basis point.

use crate::hash::{KeyPrefix, bucket};

/// Basis points of a layer. Ownership is kept at this grain whatever the layer's bucket count.
pub(crate) const BASIS_POINTS: u32 = 10_000;

/// Owner of each basis point of one layer.
#[derive(Debug, Clone)]
pub(crate) struct Ledger {
    owners: Box<[u16]>,
}

impl Ledger {
    pub(crate) fn new() -> Self {
        Self {
            owners: vec![NOBODY; BASIS_POINTS as usize].into(),
        }
    }

    /// Owner of the basis point, if it has one. O(1).
    pub(crate) fn owner(&self, basis_point: u32) -> Option<u16> {
        self.owners
            .get(basis_point as usize)
            .copied()
            .filter(|&owner| owner != NOBODY)
    }

    /// Gives `owner` the first `count` free basis points of the order that `seed` draws, or all that
    /// are free. A larger `count` gives a superset, since the order does not depend on it.
    /// O([`BASIS_POINTS`]).
    pub(crate) fn draw(&mut self, owner: u16, count: u32, seed: &str) {
        let mut left = count;
        for basis_point in shuffled(seed) {
            if left == 0 {
                return;
            }
            if let Some(free) = self.owners.get_mut(basis_point as usize)
                && *free == NOBODY
            {
                *free = owner;
                left -= 1;
            }
        }
    }
}

const NOBODY: u16 = u16::MAX;

/// All basis points in the order drawn by `seed`: Fisher-Yates from the front, the randomness of
/// step `i` being the hash of `D:<seed>|<i>`, so that any language that has the hash has the order.
fn shuffled(seed: &str) -> impl Iterator<Item = u32> {
    let key = KeyPrefix::new(format!("D:{seed}|").as_bytes());
    let mut order: Vec<u32> = (0..BASIS_POINTS).collect();
    (0..BASIS_POINTS).map(move |i| {
        let pick = i + bucket(key.hash64(i.to_string().as_bytes()), BASIS_POINTS - i);
        order.swap(i as usize, pick as usize);
        order[i as usize]
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_order_is_a_permutation_that_depends_on_the_seed() {
        let order: Vec<u32> = shuffled("ranking:1:a").collect();
        let mut sorted = order.clone();
        sorted.sort_unstable();
        assert!(sorted.iter().copied().eq(0..BASIS_POINTS));
        assert!(!shuffled("ranking:1:b").eq(order.iter().copied()));
        assert!(shuffled("ranking:1:a").eq(order));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        /// Raising the allocation of experiment `which` adds to it, and leaves those above alone.
        #[test]
        fn ramping_keeps_what_it_had(
            mut shares in prop::collection::vec(0_u32..1500, 2..6),
            which: prop::sample::Index,
            more in 0_u32..2000,
        ) {
            let which = which.index(shares.len());
            let before = allocate(&shares);
            shares[which] += more;
            let after = allocate(&shares);
            for basis_point in 0..BASIS_POINTS {
                let (was, is) = (before.owner(basis_point), after.owner(basis_point));
                let kept = |owner: u16| usize::from(owner) <= which;
                prop_assert!(!was.is_some_and(kept) || is == was, "{basis_point}: {was:?} {is:?}");
            }
            for (owner, &share) in shares.iter().enumerate() {
                let owned = (0..BASIS_POINTS)
                    .filter(|&b| after.owner(b).map(usize::from) == Some(owner))
                    .count();
                prop_assert_eq!(owned, share as usize);
            }
        }
    }

    fn allocate(shares: &[u32]) -> Ledger {
        let mut ledger = Ledger::new();
        for (owner, &share) in (0_u16..).zip(shares) {
            ledger.draw(owner, share, &format!("ranking:1:x{owner}"));
        }
        ledger
    }
}
