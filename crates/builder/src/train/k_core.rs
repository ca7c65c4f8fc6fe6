//! The k-core of a log: what is left when users and items with too few partners are dropped, again and
//! again, until none is.

use std::io;
use std::ops::Range;

use rayon::prelude::*;
use refrain_als::MAX_STRENGTH;

use super::TrainJobError;
use crate::evaluation::{Part, Sorted};
use crate::ingest::{Listen, Sequence, SortedLog};

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
    /// The same in parts.
    parts: Vec<Part>,
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
/// `O(n)` for `n` sorted listens, which are counted in the current pool; each pair is in memory only where there is
/// something to drop: every round but the last drops something, and each pair is dropped once.
///
/// # Errors
/// Pairs with too many plays, or listens that cannot be read.
pub(super) fn k_core(
    log: &SortedLog,
    min_user_items: u32,
    min_item_users: u32,
) -> Result<Core, TrainJobError> {
    let parts = log.parts(rayon::current_num_threads().min(most_parts(log)))?;
    if min_user_items <= 1 && min_item_users <= 1 {
        // Whoever has a listen is kept, which nearly always is everyone: rules may have taken somebody's last one.
        let (core, found) = kept(log, &Degrees::all(log, 1), &parts)?;
        return match found.are_all_some() {
            true => Ok(core),
            false => Ok(kept(log, &found, &parts)?.0),
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
    Ok(kept(log, &degrees, &parts)?.0)
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

/// Parts whose counts together take no more than four bytes a listen, at least one.
fn most_parts(log: &SortedLog) -> usize {
    let each = log.users().len() * size_of::<u32>()
        + log.items().len() * (size_of::<u32>() + size_of::<Plays>());
    let most = log.len().saturating_mul(4) / (each as u64).max(1);
    usize::try_from(most).unwrap_or(usize::MAX).max(1)
}

/// The listens of users and items that have partners, and how many they have among one another; the parts are counted
/// in the current pool.
fn kept(
    log: &SortedLog,
    degrees: &Degrees,
    parts: &[Range<u64>],
) -> Result<(Core, Degrees), TrainJobError> {
    let (users, new_user) = renumber(&degrees.users);
    let (items, new_item) = renumber(&degrees.items);
    let mut core = Core {
        listens: 0,
        parts: Vec::new(),
        item_listeners: vec![0; items.len()],
        item_plays: Vec::new(),
        times_us: None,
        users,
        items,
        new_user,
        new_item,
    };
    let counted = parts.par_iter().map(|part| core.count(log, part.clone()));
    let counted: Vec<Result<Counted, TrainJobError>> = counted.collect();
    // The first error of all, whichever thread was first.
    let counted: Vec<Counted> = counted.into_iter().collect::<Result<_, _>>()?;
    let mut found = Degrees::all(log, 0);
    let mut item_plays = vec![Plays::default(); core.items.len()];
    for (part, places) in counted.iter().zip(parts) {
        core.listens += part.listens;
        core.parts.push(Part {
            places: places.clone(),
            pairs: part.pairs,
        });
        for (&user, &items) in core.users.iter().zip(&part.user_items) {
            found.users[user as usize] += items;
        }
        for (all, &listeners) in core.item_listeners.iter_mut().zip(&part.item_listeners) {
            *all += listeners;
        }
        for (all, &plays) in item_plays.iter_mut().zip(&part.item_plays) {
            all.0 += plays.0;
        }
        if let Some(times) = part.times_us {
            core.times_us = Some(span(core.times_us, times));
        }
    }
    for (&item, &listeners) in core.items.iter().zip(&core.item_listeners) {
        found.items[item as usize] = listeners;
    }
    core.item_plays = item_plays.into_iter().map(Plays::value).collect();
    Ok((core, found))
}

/// What there is to know of a part of the listens; users and items by their new ordinals.
struct Counted {
    listens: usize,
    pairs: usize,
    /// Distinct items of each user.
    user_items: Vec<u32>,
    /// Distinct users of each item.
    item_listeners: Vec<u32>,
    item_plays: Vec<Plays>,
    times_us: Option<(i64, i64)>,
}

/// A sum of plays, in units of 2⁻⁶⁴: the same in any order, so in any number of parts.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Plays(u128);

impl Plays {
    /// Adds a count up to [`MAX_STRENGTH`], less what is below a unit; counts have no sign.
    fn add(&mut self, count: f32) {
        /// The exponent of a count whose last digit is a unit.
        const UNIT: u32 = 127 + 23 - 64;
        let (exponent, digits) = (count.to_bits() >> 23, count.to_bits() & 0x7f_ffff);
        let digits = u128::from(digits | 0x80_0000);
        self.0 += match exponent.checked_sub(UNIT) {
            Some(places) => digits << places.min(80),
            None => digits >> (UNIT - exponent),
        };
    }

    fn value(self) -> f64 {
        self.0 as f64 / 2_f64.powi(64)
    }
}

/// What holds all of both.
fn span(all: Option<(i64, i64)>, (first, last): (i64, i64)) -> (i64, i64) {
    all.map_or((first, last), |all| (all.0.min(first), all.1.max(last)))
}

impl Core {
    /// Counts the kept listens at some places.
    fn count(&self, log: &SortedLog, places: Range<u64>) -> Result<Counted, TrainJobError> {
        let mut counted = Counted {
            listens: 0,
            pairs: 0,
            user_items: vec![0; self.users.len()],
            item_listeners: vec![0; self.items.len()],
            item_plays: vec![Plays::default(); self.items.len()],
            times_us: None,
        };
        let mut last = (DROPPED, DROPPED);
        let mut plays = 0.0;
        for listen in self.read(log, places)? {
            let listen = listen?;
            counted.listens += 1;
            let (user, item) = (listen.user as usize, listen.item as usize);
            if last != (listen.user, listen.item) {
                last = (listen.user, listen.item);
                plays = 0.0;
                counted.pairs += 1;
                counted.item_listeners[item] += 1;
                counted.user_items[user] += 1;
            }
            plays += f64::from(listen.count);
            if plays > f64::from(MAX_STRENGTH) {
                let id = |id: Option<&str>| id.unwrap_or_default().to_owned();
                return Err(TrainJobError::TooManyPlays {
                    user: id(log.users().get(self.users[user])),
                    item: id(log.items().get(self.items[item])),
                    plays,
                });
            }
            counted.item_plays[item].add(listen.count);
            if let Some(time) = listen.time_us {
                counted.times_us = Some(span(counted.times_us, (time, time)));
            }
        }
        Ok(counted)
    }

    /// The kept ones of the log's listens at some places, ascending by their new ordinals.
    fn read<'a>(&'a self, log: &'a SortedLog, places: Range<u64>) -> io::Result<Sequence<'a>> {
        if self.users.len() == self.new_user.len() && self.items.len() == self.new_item.len() {
            return log.part(places);
        }
        let listens = log.part(places)?.filter_map(|listen| {
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
            parts: &self.parts,
            times_us: self.times_us,
            read: &|places| self.read(log, places),
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
        SortedLog::of(&log_of(pairs), &Room::default()).unwrap()
    }

    fn log_of(pairs: &[(u32, u32)]) -> Log {
        let names = |n: u32| (0..n).map(|i| i.to_string()).collect::<Dictionary>();
        Log {
            users: names(6),
            items: names(6),
            user: pairs.iter().map(|pair| pair.0).collect(),
            item: pairs.iter().map(|pair| pair.1).collect(),
            count: (1u16..).take(pairs.len()).map(f32::from).collect(),
            time_us: Some((0..).take(pairs.len()).collect()),
            ..Log::default()
        }
    }

    fn rows(core: &Core, log: &SortedLog) -> Vec<(u32, u32, f32, Option<i64>)> {
        let listens = core.read(log, 0..log.len()).unwrap().map(Result::unwrap);
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
        assert_eq!(
            (core.listens, core.parts.iter().map(|part| part.pairs).sum()),
            (5, 4usize)
        );
        assert_eq!(core.times_us, Some((0, 7)));
        assert_eq!(core.item_listeners, [2, 2]);
        assert_eq!(core.item_plays, [12.0, 6.0]);
        assert_eq!((core.users, core.items), (vec![1, 2], vec![1, 2]));
    }

    /// What is cut for threads is put together as it was, to the last bit of a sum.
    #[test]
    fn any_number_of_threads_finds_the_same() {
        let pairs: Vec<(u32, u32)> = (0..300u32).map(|at| (at * at % 6, at * 7 % 5)).collect();
        let mut log = log_of(&pairs);
        for (at, count) in (1u16..).zip(log.count.iter_mut()) {
            *count = f32::from(at) / 3.0 + 1e-4;
        }
        for room in [64, 1 << 20] {
            let room = Room {
                bytes: room,
                ..Room::default()
            };
            let log = SortedLog::of(&log, &room).unwrap();
            let mut found = Vec::new();
            for threads in [1, 2, 3, 5, 40] {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
                let pool = pool.build().unwrap();
                let core = pool.install(|| k_core(&log, 1, 1)).unwrap();
                // There are four users.
                assert!(core.parts.len() <= threads.min(4));
                assert!(core.parts.len() >= threads.min(2));
                let starts = core.parts.iter().map(|part| part.places.start);
                let users: Vec<u32> = starts
                    .map(|place| {
                        log.part(place..place + 1)
                            .unwrap()
                            .next()
                            .unwrap()
                            .unwrap()
                            .user
                    })
                    .collect();
                assert!(users.is_sorted_by(|a, b| a < b), "{users:?}");
                let all = core.with_sorted(&log, |listens| listens.interactions());
                let all = all.unwrap();
                let plays: Vec<u64> = core
                    .item_plays
                    .iter()
                    .map(|plays| plays.to_bits())
                    .collect();
                let pairs: usize = core.parts.iter().map(|part| part.pairs).sum();
                assert_eq!(pairs, all.len());
                found.push((core.listens, core.item_listeners, plays, core.times_us, all));
            }
            assert!(found.iter().all(|one| *one == found[0]));
            let plays: f64 = found[0].2.iter().map(|plays| f64::from_bits(*plays)).sum();
            let given: f64 = log
                .listens()
                .unwrap()
                .map(|at| f64::from(at.unwrap().count))
                .sum();
            assert!((plays - given).abs() < 1e-9 * given, "{plays} of {given}");
        }
    }

    /// Many threads do not make much memory: their counts are a part of what the listens take.
    #[test]
    fn no_more_parts_than_the_listens_are_worth() {
        let long: Vec<(u32, u32)> = (0..3_600u32).map(|at| (at % 6, at / 6 % 6)).collect();
        assert_eq!(most_parts(&log(&long)), 100);
        assert_eq!(most_parts(&log(&long[..72])), 2);
        assert_eq!(most_parts(&log(&long[..3])), 1);
    }

    #[test]
    fn plays_add_up_exactly() {
        for count in [1.0, 0.1, 1.5e-3, 123_456_790.0, 1e9, 3e-12] {
            let mut plays = Plays::default();
            (0..3).for_each(|_| plays.add(count));
            let exact = f64::from(count) * 3.0;
            assert!((plays.value() - exact).abs() <= 2_f64.powi(-62), "{count}");
        }
        let mut tiny = Plays::default();
        tiny.add(f32::MIN_POSITIVE);
        assert_eq!(tiny, Plays::default());
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
