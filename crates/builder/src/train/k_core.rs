//! The k-core of a log: what is left when users and items with too few partners are dropped, again and
//! again, until none is.

use crate::evaluation::Listens;
use crate::ingest::Log;

/// The listens of a log that are kept, with ordinals of their own.
pub(super) struct Core {
    pub(super) listens: Listens,
    /// Log ordinal of each kept user, ascending.
    pub(super) users: Vec<u32>,
    /// Log ordinal of each kept item, ascending.
    pub(super) items: Vec<u32>,
}

/// Keeps users with at least `min_user_items` distinct items and items with at least `min_item_users`
/// distinct users, counting only what is itself kept. Users and items without a listen go in any case.
///
/// `O(n log n)` for `n` listens: every round but the last drops something, and each pair is dropped once.
pub(super) fn k_core(log: &Log, min_user_items: u32, min_item_users: u32) -> Core {
    if min_user_items <= 1 && min_item_users <= 1 {
        // Whoever has a listen is kept: there is nothing to count pairs for.
        let (mut users, mut items) = (vec![0u32; log.users.len()], vec![0u32; log.items.len()]);
        log.user.iter().for_each(|&user| users[user as usize] = 1);
        log.item.iter().for_each(|&item| items[item as usize] = 1);
        return kept(log, &users, &items);
    }
    let mut pairs: Vec<(u32, u32)> = log
        .user
        .iter()
        .copied()
        .zip(log.item.iter().copied())
        .collect();
    pairs.sort_unstable();
    pairs.dedup();
    let (user_degrees, item_degrees) = loop {
        let mut user_degrees = vec![0u32; log.users.len()];
        let mut item_degrees = vec![0u32; log.items.len()];
        for &(user, item) in &pairs {
            user_degrees[user as usize] += 1;
            item_degrees[item as usize] += 1;
        }
        let before = pairs.len();
        pairs.retain(|&(user, item)| {
            user_degrees[user as usize] >= min_user_items
                && item_degrees[item as usize] >= min_item_users
        });
        if pairs.len() == before {
            break (user_degrees, item_degrees);
        }
    };
    kept(log, &user_degrees, &item_degrees)
}

/// The listens of users and items that have partners.
fn kept(log: &Log, user_degrees: &[u32], item_degrees: &[u32]) -> Core {
    let (users, new_user) = renumber(user_degrees);
    let (items, new_item) = renumber(item_degrees);
    let mut listens = Listens {
        users: count(&users),
        items: count(&items),
        time_us: log.time_us.as_ref().map(|_| Vec::new()),
        ..Listens::default()
    };
    for listen in log.listens() {
        let (Some(user), Some(item)) = (
            new_user[listen.user as usize],
            new_item[listen.item as usize],
        ) else {
            continue;
        };
        listens.user.push(user);
        listens.item.push(item);
        listens.count.push(listen.count);
        if let (Some(times), Some(time)) = (&mut listens.time_us, listen.time_us) {
            times.push(time);
        }
    }
    Core {
        listens,
        users,
        items,
    }
}

/// The ordinals with partners, and for every ordinal its place among them.
fn renumber(degrees: &[u32]) -> (Vec<u32>, Vec<Option<u32>>) {
    let kept: Vec<u32> = (0..)
        .zip(degrees)
        .filter(|&(_, &degree)| degree > 0)
        .map(|(old, _)| old)
        .collect();
    let mut new = vec![None; degrees.len()];
    for (place, &old) in (0..).zip(&kept) {
        new[old as usize] = Some(place);
    }
    (kept, new)
}

/// Ordinals are `u32`, so their number fits one.
fn count(ordinals: &[u32]) -> u32 {
    u32::try_from(ordinals.len()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Dictionary;

    fn log(pairs: &[(u32, u32)]) -> Log {
        let names = |n: u32| (0..n).map(|i| i.to_string()).collect::<Dictionary>();
        Log {
            users: names(6),
            items: names(6),
            user: pairs.iter().map(|pair| pair.0).collect(),
            item: pairs.iter().map(|pair| pair.1).collect(),
            count: (1..=pairs.len())
                .map(|n| f32::from(u8::try_from(n).unwrap()))
                .collect(),
            time_us: Some((0..).take(pairs.len()).collect()),
            ..Log::default()
        }
    }

    #[test]
    fn drops_in_rounds_until_nothing_is_left_to_drop() {
        // Users 1, 2 and items 1, 2 are a square. Item 3 has two users only while user 4 counts, and
        // user 4 leans on item 5, which nobody else has.
        let pairs = [
            (1, 1),
            (1, 2),
            (2, 1),
            (2, 2),
            (2, 3),
            (4, 3),
            (4, 5),
            (1, 1),
        ];
        let core = k_core(&log(&pairs), 2, 2);
        assert_eq!((core.users, core.items), (vec![1, 2], vec![1, 2]));
        assert_eq!(core.listens.user, [0, 0, 1, 1, 0]);
        assert_eq!(core.listens.item, [0, 1, 0, 1, 0]);
        assert_eq!(core.listens.count, [1.0, 2.0, 3.0, 4.0, 8.0]);
        assert_eq!(core.listens.time_us, Some(vec![0, 1, 2, 3, 7]));
    }

    #[test]
    fn a_core_of_one_drops_only_what_has_no_listen() {
        let core = k_core(&log(&[(1, 5), (3, 0)]), 0, 1);
        assert_eq!((core.users, core.items), (vec![1, 3], vec![0, 5]));
        assert_eq!(core.listens.item, [1, 0]);
    }

    #[test]
    fn an_impossible_core_is_empty() {
        let core = k_core(&log(&[(1, 5), (3, 0)]), 3, 1);
        assert!(core.users.is_empty() && core.listens.user.is_empty());
    }
}
