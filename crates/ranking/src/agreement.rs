//! How far two lists agree.

use std::hash::Hash;

use rustc_hash::FxHashSet;

/// Persistence of [`rank_biased_overlap`] wherever nobody says otherwise: each rank counts this
/// share of the one above.
pub const PERSISTENCE: f64 = 0.9;

/// Share of the first list's items that are in the second, 0 to 1; of an empty list, all. O(length).
pub fn overlap<T: Eq + Hash>(first: &[T], second: &[T]) -> f64 {
    if first.is_empty() {
        return 1.0;
    }
    let there: FxHashSet<&T> = second.iter().collect();
    let common = first.iter().filter(|item| there.contains(item)).count();
    common as f64 / first.len() as f64
}

/// Rank-biased overlap of two lists without repetitions, extrapolated beyond their ends, 0 to 1
/// (Webber, Moffat and Zobel, "A similarity measure for indefinite rankings", 2010, equation 32).
/// Two empty lists agree. O(length).
pub fn rank_biased_overlap<T: Eq + Hash>(first: &[T], second: &[T], persistence: f64) -> f64 {
    let (short, long) = if first.len() <= second.len() {
        (first, second)
    } else {
        (second, first)
    };
    let (s, l) = (short.len(), long.len());
    if s == 0 {
        return if l == 0 { 1.0 } else { 0.0 };
    }
    let mut seen: FxHashSet<&T> = FxHashSet::default();
    // Items in common down to a depth, and the sums of the equation over the depths.
    let (mut common, mut at_short) = (0_usize, 0_usize);
    let (mut agreed, mut extended, mut weight) = (0.0, 0.0, 1.0);
    for depth in 1..=l {
        weight *= persistence;
        for list in [short, long] {
            if let Some(item) = list.get(depth - 1)
                && !seen.insert(item)
            {
                common += 1;
            }
        }
        agreed += common as f64 / depth as f64 * weight;
        if depth == s {
            at_short = common;
        }
        if depth > s {
            let beyond = at_short as f64 * (depth - s) as f64 / (s * depth) as f64;
            extended += beyond * weight;
        }
    }
    let rest = (common - at_short) as f64 / l as f64 + at_short as f64 / s as f64;
    (1.0 - persistence) / persistence * (agreed + extended) + rest * weight
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(items: &str) -> Vec<char> {
        items.chars().collect()
    }

    fn close(a: f64, b: f64) {
        assert!((a - b).abs() < 1e-12, "{a} is not {b}");
    }

    fn rbo(a: &str, b: &str) -> f64 {
        rank_biased_overlap(&list(a), &list(b), PERSISTENCE)
    }

    #[test]
    fn overlap_is_the_share_of_the_first_list() {
        close(overlap(&list("abcd"), &list("dcxy")), 0.5);
        close(overlap(&list("ab"), &list("")), 0.0);
        close(overlap(&list(""), &list("ab")), 1.0);
    }

    #[test]
    fn rank_biased_overlap_is_the_published_one() {
        // abc and abd to depth 3 at persistence 0.9: 0.73 when extrapolated.
        close(rbo("abc", "abd"), 0.73);
        close(rbo("abcdefghij", "abcdefghij"), 1.0);
        close(rbo("abc", "xyz"), 0.0);
        close(rbo("", ""), 1.0);
        close(rbo("", "a"), 0.0);
    }

    #[test]
    fn lists_of_different_lengths_extrapolate_from_the_shorter() {
        // A list and its beginning agree as far as anybody can tell.
        close(rbo("abcdef", "abc"), 1.0);
        close(rbo("axbycz", "abc"), rbo("abc", "axbycz"));
        assert!(rbo("axbycz", "abc") < 1.0);
    }
}
