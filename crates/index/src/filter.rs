//! Which items may come back: sets of ordinals and the filter made of them.

mod set;
mod table;

pub use set::OrdinalSet;

/// Which items may be in an answer. The default lets everything through.
///
/// What is filtered out still routes the walk; it only never comes back. Several exclusion sets
/// need not be merged (a listener's own beside those shared by everybody).
#[derive(Clone, Copy, Debug, Default)]
pub struct Filter<'a> {
    /// Items in any of these do not come back.
    pub exclude: &'a [&'a OrdinalSet],
    /// If given, only its items come back.
    pub allow: Option<&'a OrdinalSet>,
}

impl Filter<'_> {
    /// Whether nothing can be filtered out.
    pub fn is_open(&self) -> bool {
        self.allow.is_none() && self.exclude.iter().all(|set| set.is_empty())
    }

    /// Whether an item may come back.
    #[inline]
    pub fn allows(&self, ordinal: u32) -> bool {
        self.allow.is_none_or(|set| set.contains(ordinal)) && !self.excludes(ordinal)
    }

    #[inline]
    pub(crate) fn excludes(&self, ordinal: u32) -> bool {
        self.exclude.iter().any(|set| set.contains(ordinal))
    }

    /// Which of up to 64 ordinals may come back: bit `i` for the `i`-th. Several at once take less
    /// time than one after another: their memory comes in parallel.
    #[inline]
    pub fn mask(&self, ordinals: &[u32]) -> u64 {
        let all = self.allow.map_or(u64::MAX, |set| set.mask(ordinals));
        let excluded = self.exclude.iter().map(|set| set.mask(ordinals));
        let open = u64::MAX.checked_shr(u32::try_from(64 - ordinals.len().min(64)).unwrap_or(64));
        all & open.unwrap_or(0) & !excluded.fold(0, |any, mask| any | mask)
    }

    /// How many items it shuts out, at most; `None` where an allow-list shuts out all others.
    pub(crate) fn excluded_at_most(&self) -> Option<usize> {
        let excluded = self.exclude.iter().map(|set| set.len()).sum();
        self.allow.is_none().then_some(excluded)
    }

    /// How many of `n` items are likely to pass: exact for one set alone, else as though the sets
    /// had nothing to do with each other. Only predicts costs.
    pub(crate) fn expected(&self, n: usize) -> usize {
        let start = self.allow.map_or(n, |set| set.len().min(n));
        self.exclude.iter().fold(start, |left, set| {
            let kept = n.saturating_sub(set.len());
            // Both factors are below 2^31.
            left * kept / n.max(1)
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_mask_says_what_single_questions_say(
            exclude in prop::collection::vec(prop::collection::vec(0_u32..300, 0..80), 0..3),
            allow in prop::option::of(prop::collection::vec(0_u32..300, 0..300)),
            asked in prop::collection::vec(0_u32..400, 0..65),
        ) {
            let sets: Vec<OrdinalSet> = exclude.iter().map(|ids| OrdinalSet::from_ordinals(ids)).collect();
            let exclude: Vec<&OrdinalSet> = sets.iter().collect();
            let allow: Option<OrdinalSet> = allow.map(|ids| OrdinalSet::from_ordinals(&ids));
            let filter = Filter { exclude: &exclude, allow: allow.as_ref() };
            let expected = asked.iter().enumerate();
            let expected = expected.map(|(at, one)| u64::from(filter.allows(*one)) << at);
            prop_assert_eq!(filter.mask(&asked), expected.fold(0, |all, bit| all | bit));
        }
    }

    #[test]
    fn expected_counts() {
        let (a, b): (OrdinalSet, OrdinalSet) = ((0..50).collect(), (50..60).collect());
        let filter = Filter {
            exclude: &[&a, &b],
            allow: None,
        };
        assert_eq!(filter.expected(100), 45);
        assert_eq!(filter.excluded_at_most(), Some(60));
        let allowing = Filter {
            allow: Some(&a),
            ..filter
        };
        assert_eq!(allowing.excluded_at_most(), None);
        assert_eq!(Filter::default().expected(0), 0);
        assert!(Filter::default().is_open());
        assert!(filter.allows(60) && !filter.allows(55));
    }
}
