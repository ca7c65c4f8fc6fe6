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
/// A few or many ordinals, near together or far apart: tables and bitmaps, also beside each other.
fn ordinals() -> impl Strategy<Value = Vec<u32>> {
    let scales = prop::sample::select(vec![1_u32, 3, 50, 5000]);
    (prop::collection::vec(0_u32..2000, 0..600), scales)
        .prop_map(|(ids, scale)| ids.into_iter().map(|one| one * scale).collect())
}

fn set(ids: &[u32]) -> OrdinalSet {
    OrdinalSet::from_ordinals(ids)
}

fn combined(a: &OrdinalSet, b: &OrdinalSet, with: fn(&mut OrdinalSet, &OrdinalSet)) -> OrdinalSet {
    let mut out = a.clone();
    with(&mut out, b);
    out
}

fn listed(set: &OrdinalSet) -> Vec<u32> {
    let mut out: Vec<u32> = set.iter().collect();
    out.sort_unstable();
    out
}

proptest! {
    #[test]
    fn a_list_in_any_order_is_the_set(mut ids in ordinals(), none in any::<bool>()) {
        let model: BTreeSet<u32> = ids.iter().copied().collect();
        if none {
            ids.push(u32::MAX);
        }
        let made = set(&ids);
        prop_assert_eq!(made.len(), model.len());
        prop_assert_eq!(listed(&made), model.iter().copied().collect::<Vec<_>>());
        ids.sort_unstable();
        prop_assert_eq!(&set(&ids), &made);
        let mut grown = OrdinalSet::new();
        grown.extend(ids.iter().copied());
        prop_assert_eq!(&grown, &made);
        // Neither form takes more than four times what the smaller would.
        let least = (2 * made.len().max(4) * 4).min(words_to(made.largest) * 8);
        prop_assert!(made.bytes() <= 4 * least.max(32), "{} {}", made.bytes(), least);
    }

    #[test]
    fn operations_are_those_of_sets(a in ordinals(), b in ordinals(), more in 0_u32..10_000) {
        let (one, two) = (set(&a), set(&b));
        let (a, b): (BTreeSet<u32>, BTreeSet<u32>) = (a.into_iter().collect(), b.into_iter().collect());
        let union = combined(&one, &two, OrdinalSet::union_with);
        prop_assert_eq!(listed(&union), a.union(&b).copied().collect::<Vec<_>>());
        let both = combined(&one, &two, OrdinalSet::intersect_with);
        prop_assert_eq!(listed(&both), a.intersection(&b).copied().collect::<Vec<_>>());
        let rest = combined(&one, &two, OrdinalSet::subtract);
        prop_assert_eq!(listed(&rest), a.difference(&b).copied().collect::<Vec<_>>());
        // What came of it goes on working.
        for mut out in [union, both, rest] {
            let len = out.len();
            prop_assert_eq!(len, out.iter().count());
            let new = !out.contains(more);
            prop_assert_eq!(out.insert(more), new);
            prop_assert!(out.contains(more) && out.len() == len + usize::from(new));
            prop_assert!(out.remove(more) && !out.contains(more));
        }
    }

    #[test]
    fn the_laws_hold(a in ordinals(), b in ordinals(), c in ordinals()) {
        let (a, b, c) = (set(&a), set(&b), set(&c));
        let or = |a: &OrdinalSet, b: &OrdinalSet| combined(a, b, OrdinalSet::union_with);
        let and = |a: &OrdinalSet, b: &OrdinalSet| combined(a, b, OrdinalSet::intersect_with);
        let less = |a: &OrdinalSet, b: &OrdinalSet| combined(a, b, OrdinalSet::subtract);
        prop_assert_eq!(or(&a, &b), or(&b, &a));
        prop_assert_eq!(and(&a, &b), and(&b, &a));
        prop_assert_eq!(or(&or(&a, &b), &c), or(&a, &or(&b, &c)));
        prop_assert_eq!(and(&and(&a, &b), &c), and(&a, &and(&b, &c)));
        prop_assert_eq!(and(&a, &or(&b, &c)), or(&and(&a, &b), &and(&a, &c)));
        // De Morgan, within `a`.
        prop_assert_eq!(less(&a, &or(&b, &c)), and(&less(&a, &b), &less(&a, &c)));
        prop_assert_eq!(less(&a, &and(&b, &c)), or(&less(&a, &b), &less(&a, &c)));
        prop_assert_eq!(or(&less(&a, &b), &and(&a, &b)), a);
    }

    #[test]
    fn a_mask_asks_for_each(ids in ordinals(), asked in prop::collection::vec(0_u32..100_000, 0..80)) {
        let set = set(&ids);
        let asked: Vec<u32> = asked.into_iter().chain(ids.iter().copied().take(20)).rev().collect();
        let expected = asked.iter().take(64).enumerate();
        let expected = expected.map(|(at, one)| u64::from(set.contains(*one)) << at);
        prop_assert_eq!(set.mask(&asked), expected.fold(0, |mask, bit| mask | bit));
    }
}
