//! The k-core of a log: what is left when users and items with too few partners are dropped, again and
//! again, until none is.

use std::io;

use refrain_als::MAX_STRENGTH;

use super::TrainJobError;
use crate::evaluation::{Reading, Sorted};
use crate::ingest::{Listen, SortedLog};

/// Marks a user or item that is dropped.
const DROPPED: u32 = u32::MAX;

/// The listens of a log that are kept, with ordinals of their own, and what there is to know of them.
pub(super) struct Core {
    /// Log ordinal of each kept user, ascending.
    pub(super) users: Vec<u32>,
    /// Log ordinal of each kept item, ascending.
    pub(super) items: Vec<u32>,
    /// Listens that are kept.
    pub(super) listens: usize,
    /// Their distinct pairs.
    pub(super) pairs: usize,
    /// Distinct users of each kept item.
    pub(super) item_listeners: Vec<u32>,
    /// Plays of each kept item.
    pub(super) item_plays: Vec<f64>,
    /// The first and the last time, if the log has times.
    pub(super) times_us: Option<(i64, i64)>,
    /// Place of each of the log's users among the kept, or [`DROPPED`].
    new_user: Vec<u32>,
    new_item: Vec<u32>,
}

/// Keeps users with at least `min_user_items` distinct items and items with at least `min_item_users`
/// distinct users, counting only what is itself kept. Users and items without a listen go in any case.
///
/// `O(n)` for `n` sorted listens, each pair in memory only where there is something to drop: every round
/// but the last drops something, and each pair is dropped once.
///
/// # Errors
/// Pairs with too many plays, or listens that cannot be read.
pub(super) fn k_core(
    log: &SortedLog,
    min_user_items: u32,
    min_item_users: u32,
) -> Result<Core, TrainJobError> {
    if min_user_items <= 1 && min_item_users <= 1 {
        // Whoever has a listen is kept, which nearly always is everyone: rules may have taken somebody's last one.
        let (core, found) = kept(log, &Degrees::all(log, 1))?;
        return match found.are_all_some() {
            true => Ok(core),
            false => Ok(kept(log, &found)?.0),
        };
    }
    let mut degrees;
    let mut pairs = Vec::new();
    for listen in log.listens()? {
        let listen = listen?;
        let pair = (listen.user, listen.item);
        if pairs.last() != Some(&pair) {
            pairs.push(pair);
        }
    }
    loop {
        degrees = Degrees::all(log, 0);
        for &(user, item) in &pairs {
            degrees.users[user as usize] += 1;
            degrees.items[item as usize] += 1;
        }
        let before = pairs.len();
        pairs.retain(|&(user, item)| {
            degrees.users[user as usize] >= min_user_items
                && degrees.items[item as usize] >= min_item_users
        });
        if pairs.len() == before {
            break;
        }
    }
    drop(pairs);
    Ok(kept(log, &degrees)?.0)
}

/// How many partners users and items have.
struct Degrees {
    users: Vec<u32>,
    items: Vec<u32>,
}

impl Degrees {
    fn all(log: &SortedLog, partners: u32) -> Self {
        Self {
            users: vec![partners; log.users().len()],
            items: vec![partners; log.items().len()],
        }
    }

    fn are_all_some(&self) -> bool {
        self.users
            .iter()
            .chain(&self.items)
            .all(|&degree| degree > 0)
    }
}

/// The listens of users and items that have partners, and how many they have among one another.
fn kept(log: &SortedLog, degrees: &Degrees) -> Result<(Core, Degrees), TrainJobError> {
    let (users, new_user) = renumber(&degrees.users);
    let (items, new_item) = renumber(&degrees.items);
    let mut core = Core {
        listens: 0,
        pairs: 0,
        item_listeners: vec![0; items.len()],
        item_plays: vec![0.0; items.len()],
        times_us: None,
        users,
        items,
        new_user,
        new_item,
    };
    let mut found = Degrees::all(log, 0);
    let mut last = (DROPPED, DROPPED);
    let mut plays = 0.0;
    let (mut listens, mut pairs, mut times_us) = (0, 0, None);
    let (mut item_listeners, mut item_plays) = (
        std::mem::take(&mut core.item_listeners),
        std::mem::take(&mut core.item_plays),
    );
    for listen in core.read(log)? {
        let listen = listen?;
        listens += 1;
        let item = listen.item as usize;
        if last != (listen.user, listen.item) {
            last = (listen.user, listen.item);
            plays = 0.0;
            pairs += 1;
            item_listeners[item] += 1;
            found.users[core.users[listen.user as usize] as usize] += 1;
        }
        plays += f64::from(listen.count);
        if plays > f64::from(MAX_STRENGTH) {
            let id = |id: Option<&str>| id.unwrap_or_default().to_owned();
            return Err(TrainJobError::TooManyPlays {
                user: id(log.users().get(core.users[listen.user as usize])),
                item: id(log.items().get(core.items[item])),
                plays,
            });
        }
        item_plays[item] += f64::from(listen.count);
        if let Some(time) = listen.time_us {
            let (first, last) = times_us.unwrap_or((time, time));
            times_us = Some((time.min(first), time.max(last)));
        }
    }
    for (&item, &listeners) in core.items.iter().zip(&item_listeners) {
        found.items[item as usize] = listeners;
    }
    let core = Core {
        listens,
        pairs,
        item_listeners,
        item_plays,
        times_us,
        ..core
    };
    Ok((core, found))
}

impl Core {
    /// The kept listens of the log, ascending by their new ordinals.
    fn read<'a>(&'a self, log: &'a SortedLog) -> io::Result<Reading<'a>> {
        if self.users.len() == self.new_user.len() && self.items.len() == self.new_item.len() {
            return log.listens();
        }
        let listens = log.listens()?.filter_map(|listen| {
            let renumbered = listen.map(|listen| Listen {
                user: self.new_user[listen.user as usize],
                item: self.new_item[listen.item as usize],
                ..listen
            });
            match renumbered {
                Ok(listen) if listen.user == DROPPED || listen.item == DROPPED => None,
                other => Some(other),
            }
        });
        Ok(Box::new(listens))
    }

    /// Hands the kept listens of the log to `f`.
    pub(super) fn with_sorted<T>(&self, log: &SortedLog, f: impl FnOnce(&Sorted<'_>) -> T) -> T {
        f(&Sorted {
            users: count(&self.users),
            items: count(&self.items),
            listens: self.listens,
            pairs: self.pairs,
            times_us: self.times_us,
            read: &|| self.read(log),
        })
    }
}

/// The ordinals with partners, and for every ordinal its place among them.
fn renumber(degrees: &[u32]) -> (Vec<u32>, Vec<u32>) {
    let kept: Vec<u32> = (0..)
        .zip(degrees)
        .filter(|&(_, &degree)| degree > 0)
        .map(|(old, _)| old)
        .collect();
    let mut new = vec![DROPPED; degrees.len()];
    for (place, &old) in (0..).zip(&kept) {
        new[old as usize] = place;
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
    use crate::ingest::{Log, Room};

    fn log(pairs: &[(u32, u32)]) -> SortedLog {
        let names = |n: u32| (0..n).map(|i| i.to_string()).collect::<Dictionary>();
        let log = Log {
            users: names(6),
            items: names(6),
            user: pairs.iter().map(|pair| pair.0).collect(),
            item: pairs.iter().map(|pair| pair.1).collect(),
            count: (1..=pairs.len())
                .map(|n| f32::from(u8::try_from(n).unwrap()))
                .collect(),
            time_us: Some((0..).take(pairs.len()).collect()),
            ..Log::default()
        };
        SortedLog::of(&log, &Room::default()).unwrap()
    }

    fn rows(core: &Core, log: &SortedLog) -> Vec<(u32, u32, f32, Option<i64>)> {
        let listens = core.read(log).unwrap().map(Result::unwrap);
        listens
            .map(|at| (at.user, at.item, at.count, at.time_us))
            .collect()
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
        let log = log(&pairs);
        let core = k_core(&log, 2, 2).unwrap();
        let expected = [
            (0, 0, 1.0, Some(0)),
            (0, 0, 8.0, Some(7)),
            (0, 1, 2.0, Some(1)),
            (1, 0, 3.0, Some(2)),
            (1, 1, 4.0, Some(3)),
        ];
        assert_eq!(rows(&core, &log), expected);
        assert_eq!((core.listens, core.pairs), (5, 4));
        assert_eq!(core.times_us, Some((0, 7)));
        assert_eq!(core.item_listeners, [2, 2]);
        assert_eq!(core.item_plays, [12.0, 6.0]);
        assert_eq!((core.users, core.items), (vec![1, 2], vec![1, 2]));
    }

    #[test]
    fn a_core_of_one_drops_only_what_has_no_listen() {
        let log = log(&[(1, 5), (3, 0)]);
        let core = k_core(&log, 0, 1).unwrap();
        assert_eq!(
            rows(&core, &log),
            [(0, 1, 1.0, Some(0)), (1, 0, 2.0, Some(1))]
        );
        assert_eq!((core.users, core.items), (vec![1, 3], vec![0, 5]));
    }

    #[test]
    fn an_impossible_core_is_empty() {
        let core = k_core(&log(&[(1, 5), (3, 0)]), 3, 1).unwrap();
        assert!(core.users.is_empty() && core.listens == 0);
    }
}
