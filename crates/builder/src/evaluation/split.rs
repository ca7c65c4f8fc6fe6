//! Taking listens away from a log, to ask a model for them later.

use std::io;
use std::ops::Range;

use rayon::prelude::*;
use refrain_als::{Interactions, InteractionsError, Rows};
use serde::{Deserialize, Serialize};

use crate::Dictionary;
use crate::ingest::{Listen, Room, Sequence, SortedLog, for_each_user};

/// Users with fewer distinct items (random) or listens (last) keep all of them for training.
const MIN_LISTENS: usize = 5;

/// Which listens are held out.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "protocol")]
pub enum HoldOut {
    /// The last `share` (at least one) of the listens of each user with five or more. Every such user is
    /// judged, but a model may have learned from what others did later.
    Last {
        /// Above 0, below 1.
        share: f64,
    },
    /// The last `share` of all listens: one moment divides the log, nothing after it is learned from.
    Since {
        /// Above 0, below 1.
        share: f64,
    },
    /// A random `share` (at least one) of the items of each user with five or more: for logs without
    /// times.
    Random {
        /// Above 0, below 1.
        share: f64,
        /// Seed of the choice.
        seed: u64,
    },
}

/// A log in two parts.
#[derive(Debug, Clone, PartialEq)]
pub struct Split {
    /// What a model may learn from.
    pub train: Interactions,
    /// Held-out (user, item) pairs, sorted and distinct; of users and items in training, and never a pair
    /// of training.
    pub held_out: Vec<(u32, u32)>,
    /// What went where.
    pub counts: SplitCounts,
}

/// Sizes of the parts of a [`Split`], and what could not be used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitCounts {
    /// Distinct user–item pairs to learn from.
    pub train_pairs: usize,
    /// Held-out pairs that are asked for.
    pub held_out_pairs: usize,
    /// Held-out pairs dropped because the user has the item in training, too.
    pub dropped_repeats: usize,
    /// Held-out pairs dropped because nobody has the item in training.
    pub dropped_unknown_items: usize,
    /// Held-out pairs dropped because the user has nothing in training.
    pub dropped_unknown_users: usize,
}

/// Why a log cannot be split.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SplitError {
    /// A share outside of its range.
    #[error("the share to hold out is {share}, but must be above 0 and below 1")]
    Share {
        /// The share.
        share: f64,
    },
    /// A protocol that needs times, on a log that has none.
    #[error("listens cannot be held out by time: the log has no times")]
    NoTimes,
    /// Strengths that cannot be trained on.
    #[error(transparent)]
    Interactions(#[from] InteractionsError),
    /// Listens that were put into a file cannot be read again.
    #[error("cannot read listens from a temporary file: {0}")]
    Read(#[from] io::Error),
}

/// Listens ascending by user and item, to be read as often as needed.
pub(crate) struct Sorted<'a> {
    /// Number of users.
    pub(crate) users: u32,
    /// Number of items.
    pub(crate) items: u32,
    /// Number of listens.
    pub(crate) listens: usize,
    /// All of them, in parts.
    pub(crate) parts: &'a [Part],
    /// The first and the last time, if the log has times.
    pub(crate) times_us: Option<(i64, i64)>,
    /// Reads those at some places; from any thread.
    pub(crate) read: &'a (dyn Fn(Range<u64>) -> io::Result<Sequence<'a>> + Sync),
}

/// Listens that are read together: all of some users, after those of the part before.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    pub(crate) places: Range<u64>,
    /// Number of distinct pairs.
    pub(crate) pairs: usize,
}

/// Splits a log. `O(n log n)` for `n` listens, with one user's in memory at a time; the same split for the same log.
///
/// # Errors
/// A share out of range, no times where the protocol needs them, plays that are too many, or listens that cannot be
/// read.
pub fn split(log: &SortedLog, hold_out: HoldOut) -> Result<Split, SplitError> {
    with_sorted(log, |listens| listens.split(hold_out))
}

/// The log without what a protocol holds out, sorted in `room`.
///
/// # Errors
/// Those of [`split`], and a file for what is beyond `room` that cannot be written.
pub fn without(log: &SortedLog, hold_out: HoldOut, room: &Room) -> Result<SortedLog, SplitError> {
    let mut hold = with_sorted(log, |listens| listens.holder(hold_out))?;
    let mut held = Vec::new();
    log.filtered(room, |listens, keep| {
        held.clear();
        held.resize(listens.len(), false);
        hold(listens, &mut held);
        for (listen, _) in listens.iter().zip(&held).filter(|(_, held)| !**held) {
            keep(*listen)?;
        }
        Ok(())
    })
    .map_err(SplitError::Read)
}

/// Counts the listens of a log, and hands them to `f`.
fn with_sorted<T>(
    log: &SortedLog,
    f: impl FnOnce(&Sorted<'_>) -> Result<T, SplitError>,
) -> Result<T, SplitError> {
    let (mut listens, mut pairs, mut times_us, mut last) = (0, 0, None, None);
    for listen in log.listens()? {
        let listen = listen?;
        listens += 1;
        let pair = Some((listen.user, listen.item));
        pairs += usize::from(pair != last);
        last = pair;
        if let Some(time) = listen.time_us {
            let (first, last) = times_us.unwrap_or((time, time));
            times_us = Some((time.min(first), time.max(last)));
        }
    }
    let count = |ids: &Dictionary| u32::try_from(ids.len()).unwrap_or(u32::MAX);
    f(&Sorted {
        users: count(log.users()),
        items: count(log.items()),
        listens,
        parts: &[Part {
            places: 0..log.len(),
            pairs,
        }],
        times_us: times_us.or_else(|| log.has_times().then_some((0, 0))),
        read: &|places| log.part(places),
    })
}

impl Sorted<'_> {
    /// All listens as interactions: the plays of equal pairs are added. The parts are read in the current pool.
    pub(crate) fn interactions(&self) -> Result<Interactions, SplitError> {
        let all = self.pairs();
        let parts = self.parts.par_iter().enumerate().map(|(at, part)| {
            // The others are appended to the first.
            let room = if at == 0 { all } else { part.pairs };
            self.rows_without(&part.places, room, |_, _| {})
        });
        let parts: Vec<Result<Rows, SplitError>> = parts.collect();
        let mut rows = Rows::new(self.users, self.items, 0);
        for (at, part) in parts.into_iter().enumerate() {
            match at {
                0 => rows = part?,
                _ => rows.append(part?),
            }
        }
        Ok(rows.finish())
    }

    /// Number of distinct pairs.
    fn pairs(&self) -> usize {
        self.parts.iter().map(|part| part.pairs).sum()
    }

    /// Those of the listens at some places, with room for so many pairs; `hold` flags the listens of a user that are
    /// left out; all flags are down before.
    fn rows_without(
        &self,
        places: &Range<u64>,
        pairs: usize,
        mut hold: impl FnMut(&[Listen], &mut [bool]),
    ) -> Result<Rows, SplitError> {
        let mut rows = Rows::new(self.users, self.items, pairs);
        let (mut held, mut strengths) = (Vec::new(), Vec::new());
        for_each_user(
            (self.read)(places.clone())?,
            &mut Vec::new(),
            |user, listens| {
                held.clear();
                held.resize(listens.len(), false);
                hold(listens, &mut held);
                let mut flags = held.iter();
                for pair in listens.chunk_by(|a, b| a.item == b.item) {
                    strengths.clear();
                    let kept = pair.iter().zip(&mut flags).filter(|(_, held)| !**held);
                    strengths.extend(kept.map(|(listen, _)| listen.count));
                    if !strengths.is_empty() {
                        rows.push(user, pair[0].item, &mut strengths)?;
                    }
                }
                Ok::<(), SplitError>(())
            },
        )?;
        Ok(rows)
    }

    fn places(&self) -> Range<u64> {
        let ends = self.parts.first().zip(self.parts.last());
        ends.map_or(0..0, |(first, last)| first.places.start..last.places.end)
    }

    /// Splits a log, with one user's listens in memory at a time.
    pub(crate) fn split(&self, hold_out: HoldOut) -> Result<Split, SplitError> {
        let mut hold = self.holder(hold_out)?;
        let mut pairs = Vec::new();
        let train = self.rows_without(&self.places(), self.pairs(), |listens, held| {
            hold(listens, held);
            let of_pair = |(listen, _): (&Listen, _)| (listen.user, listen.item);
            let flagged = listens.iter().zip(held.iter()).filter(|(_, held)| **held);
            pairs.extend(flagged.map(of_pair));
        })?;
        pairs.dedup();
        Ok(Split::of(train.finish(), pairs))
    }

    /// What flags those of a user's listens that a protocol holds out; all flags are down before.
    fn holder(
        &self,
        hold_out: HoldOut,
    ) -> Result<impl FnMut(&[Listen], &mut [bool]) + use<>, SplitError> {
        let share = checked(hold_out)?;
        let times = self.times_us.ok_or(SplitError::NoTimes);
        let cut = match hold_out {
            HoldOut::Since { .. } => self.moment(times?, share)?,
            HoldOut::Last { .. } => times.map(|_| None)?,
            HoldOut::Random { .. } => None,
        };
        let mut order = Vec::new();
        Ok(move |listens: &[Listen], held: &mut [bool]| {
            let item = |at: usize| listens[at].item;
            let time = |at: usize| listens[at].time_us.unwrap_or_default();
            order.clear();
            order.extend(0..listens.len());
            match hold_out {
                HoldOut::Since { .. } => {
                    for (held, at) in held.iter_mut().zip(0..) {
                        *held = cut.is_some_and(|cut| time(at) >= cut);
                    }
                }
                HoldOut::Last { .. } => hold_last(&mut order, share, item, time, held),
                HoldOut::Random { seed, .. } => {
                    hold_random(
                        &mut order,
                        share,
                        |at| mix(seed, listens[at].user, item(at)),
                        item,
                        held,
                    );
                }
            }
        })
    }

    /// The time from which on the last `share` of the listens were, by counting: every reading narrows it down
    /// to a small part of what it was.
    fn moment(&self, times: (i64, i64), share: f64) -> io::Result<Option<i64>> {
        const PARTS: usize = 1 << 16;
        let held = part_of(self.listens, share);
        if held == 0 {
            return Ok(None);
        }
        let mut before = (self.listens - held) as u64;
        let (mut first, mut last) = times;
        while first < last {
            let width = (last - first) / PARTS as i64 + 1;
            let mut counts = vec![0u64; PARTS];
            for listen in (self.read)(self.places())? {
                let time = listen?.time_us.unwrap_or_default();
                if (first..=last).contains(&time) {
                    let part = usize::try_from((time - first) / width).unwrap_or(0);
                    counts[part] += 1;
                }
            }
            for count in counts {
                if before < count {
                    break;
                }
                before -= count;
                first += width;
            }
            last = last.min(first + width - 1);
        }
        Ok(Some(first))
    }
}

impl Split {
    /// Of held-out pairs, sorted and distinct, those that can be asked for.
    fn of(train: Interactions, mut pairs: Vec<(u32, u32)>) -> Self {
        let listeners = super::listeners(&train);
        let mut counts = SplitCounts {
            train_pairs: train.len(),
            ..SplitCounts::default()
        };
        pairs.retain(|&(user, item)| {
            let seen = train.user(user).0;
            let (count, keep) = if seen.is_empty() {
                (&mut counts.dropped_unknown_users, false)
            } else if listeners[item as usize] == 0 {
                (&mut counts.dropped_unknown_items, false)
            } else if seen.binary_search(&item).is_ok() {
                (&mut counts.dropped_repeats, false)
            } else {
                (&mut counts.held_out_pairs, true)
            };
            *count += 1;
            keep
        });
        Self {
            train,
            held_out: pairs,
            counts,
        }
    }
}

impl HoldOut {
    /// The protocol for a log: one moment divides a log with times, for what others do later must not
    /// teach; a log without is divided at random. A fifth of the listens is held out.
    #[must_use]
    pub fn for_log(has_times: bool, seed: u64) -> Self {
        if has_times {
            Self::Since { share: 0.2 }
        } else {
            Self::Random { share: 0.2, seed }
        }
    }

    fn share(self) -> f64 {
        match self {
            Self::Last { share } | Self::Since { share } | Self::Random { share, .. } => share,
        }
    }
}

/// For people: the protocol in one sentence.
impl std::fmt::Display for HoldOut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let percent = self.share() * 100.0;
        match self {
            Self::Last { .. } => write!(f, "the last {percent} % of each user's listens held out"),
            Self::Since { .. } => write!(f, "the last {percent} % of all listens held out"),
            Self::Random { seed, .. } => {
                write!(
                    f,
                    "{percent} % of each user's items held out at random (seed {seed})"
                )
            }
        }
    }
}

/// The share of a protocol.
fn checked(hold_out: HoldOut) -> Result<f64, SplitError> {
    let share = hold_out.share();
    if share > 0.0 && share < 1.0 {
        Ok(share)
    } else {
        Err(SplitError::Share { share })
    }
}

/// Flags the last of one user's `rows`.
fn hold_last(
    rows: &mut [usize],
    share: f64,
    item: impl Fn(usize) -> u32,
    time: impl Fn(usize) -> i64,
    held: &mut [bool],
) {
    // Equal times by item, so that the order of the log's rows does not matter.
    rows.sort_unstable_by_key(|&row| (time(row), item(row), row));
    for &row in &rows[rows.len() - held_of(rows.len(), share)..] {
        held[row] = true;
    }
}

/// Flags random ones of one user's `rows`: the pairs whose `hash` is smallest.
fn hold_random(
    rows: &mut [usize],
    share: f64,
    hash: impl Fn(usize) -> u64,
    item: impl Fn(usize) -> u32,
    held: &mut [bool],
) {
    // Pairs are drawn, not rows: all listens of a pair go the same way.
    rows.sort_by_cached_key(|&row| (hash(row), item(row)));
    let pairs = || rows.chunk_by(|&a, &b| item(a) == item(b));
    for &row in pairs().take(held_of(pairs().count(), share)).flatten() {
        held[row] = true;
    }
}

/// How many of a user's `count` are held out.
fn held_of(count: usize, share: f64) -> usize {
    if count < MIN_LISTENS {
        0
    } else {
        part_of(count, share).clamp(1, count - 1)
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a share of a count is a count; the share is between 0 and 1"
)]
fn part_of(count: usize, share: f64) -> usize {
    (count as f64 * share) as usize
}

/// A hash of two ordinals: the finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014), twice.
pub(crate) fn mix(seed: u64, a: u32, b: u32) -> u64 {
    let finalise = |mut z: u64| {
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    let pair = u64::from(a) << 32 | u64::from(b);
    finalise(
        finalise(seed.wrapping_add(0x9e37_79b9_7f4a_7c15))
            ^ pair.wrapping_add(0x9e37_79b9_7f4a_7c15),
    )
}

#[cfg(test)]
mod oracle;

#[cfg(test)]
mod tests {
    use super::oracle::{Listens, held_rows, split};
    use super::*;
    use crate::ingest::Log;
    use proptest::prelude::*;

    fn listens(rows: &[(u32, u32, i64)]) -> Listens {
        Listens {
            users: 8,
            items: 12,
            user: rows.iter().map(|row| row.0).collect(),
            item: rows.iter().map(|row| row.1).collect(),
            count: vec![1.0; rows.len()],
            time_us: Some(rows.iter().map(|row| row.2).collect()),
        }
    }

    #[test]
    fn last_takes_the_newest_listens_of_each_user() {
        // User 0: items 0..5 with 4 the newest; user 1 too few; user 2 makes item 4 known.
        let rows = [
            (0, 4, 90),
            (0, 0, 10),
            (0, 1, 20),
            (0, 2, 30),
            (0, 3, 40),
            (1, 5, 99),
            (1, 6, 98),
            (2, 4, 1),
        ];
        let split = split(&listens(&rows), HoldOut::Last { share: 0.2 }).unwrap();
        assert_eq!(split.held_out, [(0, 4)]);
        assert_eq!(split.train.len(), 7);
    }

    #[test]
    fn since_drops_and_counts_what_training_does_not_know() {
        let rows = [
            (0, 0, 1),
            (0, 1, 2),
            (1, 1, 3),
            (1, 2, 4),
            (2, 0, 5),
            (2, 3, 6),
            // Held out: a repeat, a new item, a new user, and one that counts.
            (0, 0, 7),
            (0, 9, 8),
            (5, 0, 9),
            (1, 0, 10),
        ];
        let split = split(&listens(&rows), HoldOut::Since { share: 0.4 }).unwrap();
        assert_eq!(split.held_out, [(1, 0)]);
        let expected = SplitCounts {
            train_pairs: 6,
            held_out_pairs: 1,
            dropped_repeats: 1,
            dropped_unknown_items: 1,
            dropped_unknown_users: 1,
        };
        assert_eq!(split.counts, expected);
    }

    #[test]
    fn refuses_a_bad_share_and_missing_times() {
        let timeless = Listens {
            time_us: None,
            ..listens(&[(0, 0, 0)])
        };
        for share in [0.0, 1.0, -1.0, f64::NAN] {
            let hold_out = HoldOut::Random { share, seed: 1 };
            assert!(matches!(
                split(&timeless, hold_out),
                Err(SplitError::Share { .. })
            ));
        }
        for hold_out in [HoldOut::Last { share: 0.2 }, HoldOut::Since { share: 0.2 }] {
            assert!(matches!(
                split(&timeless, hold_out),
                Err(SplitError::NoTimes)
            ));
        }
        let hold_out = HoldOut::Random {
            share: 0.2,
            seed: 1,
        };
        assert!(
            split(&Listens::default(), hold_out)
                .unwrap()
                .held_out
                .is_empty()
        );
    }

    proptest! {
        /// Nothing held out is learned, nothing is lost, and the order of the rows does not matter.
        #[test]
        fn parts_are_disjoint_and_whole(
            rows in prop::collection::vec((0u32..8, 0u32..12, (0i64..30).prop_map(|at| at * at * 7_919)), 0..150),
            which in 0u8..3,
            share in 0.05f64..0.9,
            seed in any::<u64>(),
        ) {
            let hold_out = match which {
                0 => HoldOut::Last { share },
                1 => HoldOut::Since { share },
                _ => HoldOut::Random { share, seed },
            };
            let parts = split(&listens(&rows), hold_out).unwrap();
            prop_assert!(parts.held_out.is_sorted());
            for &(user, item) in &parts.held_out {
                prop_assert!(parts.train.user(user).0.binary_search(&item).is_err());
                prop_assert!(rows.iter().any(|row| (row.0, row.1) == (user, item)));
            }
            let counts = parts.counts;
            let dropped = counts.dropped_unknown_items + counts.dropped_unknown_users;
            let whole = listens(&rows).interactions().unwrap().len();
            prop_assert_eq!(parts.train.len() + parts.held_out.len() + dropped, whole);
            let mut sorted: Vec<Listen> = rows
                .iter()
                .map(|&(user, item, time)| Listen {
                    user,
                    item,
                    count: 1.0,
                    time_us: Some(time),
                    context: None,
                    session: None,
                })
                .collect();
            sorted.sort_unstable_by_key(|listen| (listen.user, listen.item, listen.time_us));
            let times = || rows.iter().map(|row| row.2);
            let streamed = Sorted {
                users: 8,
                items: 12,
                listens: rows.len(),
                parts: &[Part {
                    places: 0..sorted.len() as u64,
                    pairs: whole,
                }],
                times_us: Some((times().min().unwrap_or(0), times().max().unwrap_or(0))),
                read: &|places| {
                    let at = |place: u64| usize::try_from(place).unwrap();
                    let part = &sorted[at(places.start)..at(places.end)];
                    Ok(Box::new(part.iter().copied().map(Ok)))
                },
            };
            prop_assert_eq!(&streamed.split(hold_out).unwrap(), &parts);
            prop_assert_eq!(
                streamed.interactions().unwrap(),
                listens(&rows).interactions().unwrap()
            );
            // The same of a log, which keeps nearly nothing in memory; and what is left of it.
            let names = |n: u32| (0..n).map(|at| at.to_string()).collect();
            let column = |of: fn(&(u32, u32, i64)) -> u32| rows.iter().map(of).collect();
            let log = Log {
                users: names(8),
                items: names(12),
                user: column(|row| row.0),
                item: column(|row| row.1),
                count: vec![1.0; rows.len()],
                time_us: Some(times().collect()),
                ..Log::default()
            };
            let room = Room { bytes: 100, ..Room::default() };
            let log = SortedLog::of(&log, &room).unwrap();
            prop_assert_eq!(&super::split(&log, hold_out).unwrap(), &parts);
            let held = held_rows(&listens(&rows), hold_out).unwrap();
            let kept = rows.iter().zip(held).filter(|(_, held)| !held);
            let mut kept: Vec<_> = kept.map(|(row, _)| *row).collect();
            kept.sort_unstable();
            let left = without(&log, hold_out, &room).unwrap();
            let mut left: Vec<_> = left
                .listens()
                .unwrap()
                .map(|listen| listen.map(|at| (at.user, at.item, at.time_us.unwrap_or_default())))
                .collect::<Result<_, _>>()
                .unwrap();
            left.sort_unstable();
            prop_assert_eq!(left, kept);
            let mut reversed = rows;
            reversed.reverse();
            prop_assert_eq!(split(&listens(&reversed), hold_out).unwrap(), parts);
        }
    }
}
