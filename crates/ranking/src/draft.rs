//! Team-draft interleaving of two lists (Radlinski, Kurup and Joachims, "How does clickthrough data
//! reflect retrieval quality?", 2008).

use crate::random::mix;

/// Which of two lists an item was drafted from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Team {
    /// The first.
    First,
    /// The second.
    Second,
}

impl Team {
    /// 0 for the first, 1 for the second: how logs and the wire count teams.
    #[must_use]
    pub fn index(self) -> usize {
        match self {
            Self::First => 0,
            Self::Second => 1,
        }
    }
}

/// A drafted item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drafted {
    /// Whose item it is; `None` in the beginning that both lists share, which speaks for neither.
    pub team: Option<Team>,
    /// Its position in that team's list; in the shared beginning, in both.
    pub position: usize,
}

/// Drafts at most `k` items of two lists, each without repetitions.
///
/// What both lists begin with comes first and belongs to no team. Then in each round a fair coin
/// says who picks first, and each team takes its best item that is not taken yet. A team that has
/// none left passes. The coin of round `r` is a pure function of `seed` and `r`. `fits` is asked
/// before an item is taken and may refuse it for good, for a cap that holds for the whole list; an
/// item that it lets in is taken. O(n) for lists of n items, and a set of those taken.
pub fn draft(
    first: &[u32],
    second: &[u32],
    k: usize,
    seed: u64,
    fits: &mut dyn FnMut(u32) -> bool,
    out: &mut Vec<Drafted>,
) {
    out.clear();
    let mut taken = rustc_hash::FxHashSet::default();
    let same = first.iter().zip(second).take_while(|(a, b)| a == b).count();
    for (position, &item) in first.iter().enumerate().take(same) {
        if out.len() == k {
            return;
        }
        if fits(item) && taken.insert(item) {
            out.push(Drafted {
                team: None,
                position,
            });
        }
    }
    let lists = [first, second];
    let mut next = [same, same];
    let mut round = 0_u64;
    loop {
        // Another name space than that of items, which sampling draws from.
        let second_first = mix(seed, COINS | round) >> 63 == 1;
        let order = if second_first {
            [Team::Second, Team::First]
        } else {
            [Team::First, Team::Second]
        };
        let before = out.len();
        for team in order {
            if out.len() == k {
                return;
            }
            let (Some(list), Some(next)) = (lists.get(team.index()), next.get_mut(team.index()))
            else {
                return;
            };
            while let Some(&item) = list.get(*next) {
                let position = *next;
                *next += 1;
                if !taken.contains(&item) && fits(item) {
                    taken.insert(item);
                    out.push(Drafted {
                        team: Some(team),
                        position,
                    });
                    break;
                }
            }
        }
        if out.len() == before {
            return;
        }
        round += 1;
    }
}

const COINS: u64 = 1 << 63;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn drafted(first: &[u32], second: &[u32], k: usize, seed: u64) -> Vec<(u32, Option<Team>)> {
        let mut out = Vec::new();
        draft(first, second, k, seed, &mut |_| true, &mut out);
        out.iter()
            .map(|drafted| {
                let list = if drafted.team == Some(Team::Second) {
                    second
                } else {
                    first
                };
                (list[drafted.position], drafted.team)
            })
            .collect()
    }

    #[test]
    fn a_shared_beginning_has_no_team() {
        let list = drafted(&[1, 2, 3, 4], &[1, 2, 5, 3], 4, 9);
        assert_eq!(list[..2], [(1, None), (2, None)]);
        assert!(list[2..].iter().all(|(_, team)| team.is_some()), "{list:?}");
        let same = drafted(&[1, 2, 3], &[1, 2, 3], 3, 9);
        assert!(same.iter().all(|(_, team)| team.is_none()));
    }

    /// Which beginnings of the lists are drafted, and by whom, follows from the coins alone.
    #[test]
    fn both_coins_occur_and_decide() {
        let lists: Vec<_> = (0..64)
            .map(|seed| drafted(&[1, 2], &[3, 4], 2, seed))
            .collect();
        let (one, two) = (Some(Team::First), Some(Team::Second));
        assert!(lists.iter().any(|list| *list == [(1, one), (3, two)]));
        assert!(lists.iter().any(|list| *list == [(3, two), (1, one)]));
        assert!(
            lists
                .iter()
                .all(|list| *list == [(1, one), (3, two)] || *list == [(3, two), (1, one)])
        );
    }

    /// Two rankers of equal quality, their lists random orders of the same items, with clicks on
    /// any item and with clicks on the first alone (`experiments.md` E18).
    #[test]
    fn equal_rankers_win_equally_often() {
        let sessions = 100_000;
        let shuffled = |seed: u64| {
            let mut items: Vec<u32> = (0..20).collect();
            items.sort_by_key(|&item| mix(seed, item.into()));
            items
        };
        for first_only in [false, true] {
            let (mut wins, mut ties, mut most) = ([0_u32; 2], 0_u32, 0);
            for session in 0..sessions {
                let (a, b) = (shuffled(4 * session), shuffled(4 * session + 1));
                let list = drafted(&a, &b, 10, 4 * session + 2);
                assert_eq!(list.len(), 10);
                let mut credit = [0_i32; 2];
                for (place, (_, team)) in list.iter().enumerate() {
                    let clicked = if first_only {
                        place == 0
                    } else {
                        mix(4 * session + 3, place as u64) >> 62 == 0
                    };
                    if let (true, Some(team)) = (clicked, team) {
                        credit[team.index()] += 1;
                    }
                }
                let sizes = [Team::First, Team::Second]
                    .map(|team| list.iter().filter(|(_, of)| *of == Some(team)).count());
                most = most.max(sizes[0].abs_diff(sizes[1]));
                match credit[0].cmp(&credit[1]) {
                    std::cmp::Ordering::Greater => wins[0] += 1,
                    std::cmp::Ordering::Less => wins[1] += 1,
                    std::cmp::Ordering::Equal => ties += 1,
                }
            }
            let n = f64::from(wins[0] + wins[1] + ties);
            let delta = (f64::from(wins[0]) + f64::from(ties) / 2.0) / n - 0.5;
            let error = (f64::from(wins[0] + wins[1]) / n / 4.0 / n).sqrt();
            println!(
                "first only {first_only}: wins {wins:?}, ties {ties}, delta {delta:.6}, 3 SE {:.6}",
                3.0 * error
            );
            assert!(
                delta.abs() < 3.0 * error,
                "{wins:?} of {n}: {delta} +- {error}"
            );
            // Teams draft alternately: the sizes differ by one at most, and by a shared item more.
            assert!(most <= 2, "{most}");
        }
    }

    proptest! {
        /// As many items as both lists have together, up to k; none twice; in the order of its own
        /// list; and refusals are kept to.
        #[test]
        fn a_draft_is_fair_play(
            a in prop::collection::vec(0_u32..30, 0..20),
            b in prop::collection::vec(0_u32..30, 0..20),
            k in 0_usize..40,
            seed: u64,
            refused in 0_u32..30,
        ) {
            let unique = |list: Vec<u32>| {
                let mut seen = std::collections::HashSet::new();
                list.into_iter().filter(|&item| seen.insert(item)).collect::<Vec<_>>()
            };
            let (a, b) = (unique(a), unique(b));
            let mut out = Vec::new();
            draft(&a, &b, k, seed, &mut |item| item != refused, &mut out);
            let items: Vec<u32> = out
                .iter()
                .map(|d| if d.team == Some(Team::Second) { b[d.position] } else { a[d.position] })
                .collect();
            let union: std::collections::HashSet<_> =
                a.iter().chain(&b).filter(|&&item| item != refused).collect();
            prop_assert_eq!(items.len(), union.len().min(k));
            prop_assert_eq!(items.iter().collect::<std::collections::HashSet<_>>().len(), items.len());
            for team in [Team::First, Team::Second] {
                let positions: Vec<_> = out
                    .iter()
                    .filter(|d| d.team == Some(team))
                    .map(|d| d.position)
                    .collect();
                prop_assert!(positions.is_sorted());
            }
        }
    }
}
