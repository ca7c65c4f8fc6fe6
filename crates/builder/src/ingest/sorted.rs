//! A listening log sorted by user and item: ids in memory, listens wherever there is room.

use std::collections::HashMap;
use std::io;
use std::ops::Range;

use refrain_taste::{Event, EventKind};

use super::exclusions::{ExclusionReport, Exclusions, LogCatalogue, decide_rows};
use super::items::Items;
use super::log::{Listen, Log};
use super::records::{Records, Room, Sequence, sorter};
use super::report::ReadReport;
use crate::Dictionary;

/// What training reads of a log, as often as it needs to. One user's listens are in memory at a time.
#[expect(missing_debug_implementations, reason = "most of it is elsewhere")]
pub struct SortedLog {
    /// The log without its rows.
    names: Log,
    records: Box<dyn Records>,
}

impl SortedLog {
    pub(super) fn new(names: Log, records: Box<dyn Records>) -> Self {
        Self { names, records }
    }

    /// Sorts a log that is in memory.
    ///
    /// # Errors
    /// A file for what is beyond `room` that cannot be written.
    pub fn of(log: &Log, room: &Room) -> io::Result<Self> {
        let mut sorter = sorter(log.time_us.is_some(), false, room);
        for listen in log.listens() {
            sorter.push(listen)?;
        }
        let names = Log {
            users: log.users.clone(),
            items: log.items.clone(),
            time_us: log.time_us.as_ref().map(|_| Vec::new()),
            described: log.described.clone(),
            excluded_until_us: log.excluded_until_us,
            has_exclusions: log.has_exclusions,
            report: log.report.clone(),
            ..Log::default()
        };
        Ok(Self::new(names, sorter.finish()?))
    }

    /// How many listens there are.
    pub fn len(&self) -> u64 {
        self.records.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether listens have times.
    pub fn has_times(&self) -> bool {
        self.names.time_us.is_some()
    }

    /// Whether rules took listens out, or weakened any.
    pub(crate) fn has_exclusions(&self) -> bool {
        self.names.has_exclusions
    }

    /// User ids, in order of first appearance.
    pub fn users(&self) -> &Dictionary {
        &self.names.users
    }

    /// Item ids, in order of first appearance.
    pub fn items(&self) -> &Dictionary {
        &self.names.items
    }

    /// What the log itself says about items.
    pub fn described(&self) -> &Items {
        &self.names.described
    }

    /// What was read, dropped and found bad.
    pub fn report(&self) -> &ReadReport {
        &self.names.report
    }

    /// The listens, ascending by user and item.
    pub fn listens(&self) -> io::Result<Box<dyn Iterator<Item = io::Result<Listen>> + '_>> {
        self.records.iter()
    }

    /// Those at some of the places, `0..len`, as far as there are such.
    pub(crate) fn part(&self, places: Range<u64>) -> io::Result<Sequence<'_>> {
        self.records.part(places)
    }

    /// Cuts the listens into at most so many parts, about alike, and no user's into two. `O(parts log n)`.
    ///
    /// # Errors
    /// The listens cannot be read.
    pub(crate) fn parts(&self, most: usize) -> io::Result<Vec<Range<u64>>> {
        let user = |place: u64| -> io::Result<Option<u32>> {
            let listen = self.part(place..place.saturating_add(1))?.next();
            Ok(listen.transpose()?.map(|listen| listen.user))
        };
        let most = most.max(1) as u64;
        let (mut parts, mut start) = (Vec::new(), 0);
        for part in 1..=most {
            let (mut low, mut high) = ((self.len() / most * part).max(start), self.len());
            if part == most {
                low = high;
            }
            // The end of the listens of the user who is cut.
            let cut = low.checked_sub(1).map(user).transpose()?.flatten();
            while low < high {
                let middle = low + (high - low) / 2;
                match user(middle)? == cut {
                    true => low = middle + 1,
                    false => high = middle,
                }
            }
            parts.push(start..low);
            start = low;
        }
        parts.retain(|part| !part.is_empty());
        Ok(parts)
    }

    /// The same, to be read user by user. O(listens) once, and 8 bytes a user.
    ///
    /// # Errors
    /// The listens cannot be read.
    pub fn by_user(self) -> io::Result<UserListens> {
        let mut starts = vec![0; self.users().len() + 1];
        for listen in self.listens()? {
            starts[listen?.user as usize + 1] += 1;
        }
        let mut sum = 0;
        for start in &mut starts {
            sum += *start;
            *start = sum;
        }
        Ok(UserListens { log: self, starts })
    }

    /// Lets go of the listens and keeps the rest.
    pub(crate) fn into_names(self) -> Log {
        self.names
    }

    /// The same log of the listens that `choose` keeps of each user's, without labels, sorted in `room`.
    ///
    /// # Errors
    /// A file for what is beyond `room` that cannot be written, or read.
    pub(crate) fn filtered(
        &self,
        room: &Room,
        choose: impl FnMut(&[Listen], Keep<'_>) -> io::Result<()>,
    ) -> io::Result<Self> {
        let records = self.records_of(room, choose)?;
        let names = Log {
            contexts: Dictionary::default(),
            sessions: Dictionary::default(),
            ..self.names.clone()
        };
        Ok(Self::new(names, records))
    }

    fn records_of(
        &self,
        room: &Room,
        mut choose: impl FnMut(&[Listen], Keep<'_>) -> io::Result<()>,
    ) -> io::Result<Box<dyn Records>> {
        let mut kept = sorter(self.has_times(), false, room);
        for_each_user(self.listens()?, &mut Vec::new(), |_, listens| {
            choose(listens, &mut |listen| kept.push(listen))
        })?;
        kept.finish()
    }

    /// Takes excluded listens out, and scales the count of those a weaker rule covers by `1 - strength`. `items` tells
    /// artists and tags. Ids stay, even of users and items without a listen left; the log keeps the watermark of the
    /// rules. It must have been read with its labels, which are let go of here. O(listens × log of those of a user).
    ///
    /// # Errors
    /// A file for what is beyond `room` that cannot be written, or read.
    pub fn exclude(
        &mut self,
        exclusions: &Exclusions,
        items: &Items,
        room: &Room,
    ) -> io::Result<ExclusionReport> {
        let mut report = ExclusionReport::of(exclusions, &self.names.users);
        let catalogue = LogCatalogue::new(&self.names.items, items);
        let kept = self.records_of(room, |listens, keep| {
            let user = listens
                .first()
                .and_then(|listen| self.names.users.get(listen.user));
            let rules = exclusions.of(user.unwrap_or_default());
            let decided = decide_rows(&self.names, &catalogue, rules, listens);
            for (listen, share) in listens.iter().zip(decided) {
                let count = report.weigh(listen.count, share);
                if count > 0.0 {
                    keep(Listen { count, ..*listen })?;
                }
            }
            Ok(())
        })?;
        self.records = kept;
        (self.names.contexts, self.names.sessions) = Default::default();
        self.names.excluded_until_us = exclusions.watermark_us();
        self.names.has_exclusions = report.listens_excluded + report.listens_weakened > 0;
        Ok(report)
    }
}

/// A sorted log that is read user by user, in any order and from any thread.
#[expect(missing_debug_implementations, reason = "most of it is elsewhere")]
pub struct UserListens {
    log: SortedLog,
    /// Where each user's listens begin, and the end of all.
    starts: Vec<u64>,
}

impl UserListens {
    /// The log that is read.
    pub fn log(&self) -> &SortedLog {
        &self.log
    }

    /// The listens of a user, ascending by item; none of one who is not known.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn of(&self, user: u32) -> io::Result<Vec<Listen>> {
        let user = user as usize;
        match self.starts.get(user..).unwrap_or_default() {
            &[from, to, ..] => self.log.records.part(from..to)?.collect(),
            _ => Ok(Vec::new()),
        }
    }

    /// The listens of a user as the events of a profile: those that say the same are one event that counts them, as a
    /// server has it. None of one who is not known.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn events(&self, user: u32) -> io::Result<Vec<Event>> {
        let Log {
            items,
            contexts,
            sessions,
            ..
        } = &self.log.names;
        let listens = self.of(user)?;
        let mut events: Vec<(Event, f32)> = Vec::with_capacity(listens.len());
        let mut known: HashMap<_, usize> = HashMap::with_capacity(listens.len());
        let name = |ordinal: Option<u32>, names: &Dictionary| {
            ordinal
                .and_then(|ordinal| names.get(ordinal))
                .map(str::to_owned)
        };
        for told in listens {
            let at = *known
                .entry((told.item, told.time_us, told.context, told.session))
                .or_insert(events.len());
            if let Some((_, count)) = events.get_mut(at) {
                *count += told.count;
                continue;
            }
            let event = Event {
                time_us: told.time_us.unwrap_or_default(),
                event_id: at.to_string(),
                item: name(Some(told.item), items).unwrap_or_default(),
                kind: EventKind::Play,
                played_ms: None,
                context: name(told.context, contexts),
                session: name(told.session, sessions),
                count: 1,
            };
            events.push((event, told.count));
        }
        let counted = events.into_iter().map(|(event, count)| Event {
            count: plays(count),
            ..event
        });
        Ok(counted.collect())
    }
}

/// How many plays a count stands for: whole, at least 1 and at most what an event may say.
#[must_use]
pub fn plays(count: f32) -> u32 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "clamped to what an event may say"
    )]
    let plays = count.round().clamp(1.0, 1e9) as u32;
    plays
}

/// Takes a listen that is kept.
pub(crate) type Keep<'a> = &'a mut dyn FnMut(Listen) -> io::Result<()>;

/// Calls `f` with each user and their listens, which are collected in `buffer`.
pub(crate) fn for_each_user<E: From<io::Error>>(
    listens: impl Iterator<Item = io::Result<Listen>>,
    buffer: &mut Vec<Listen>,
    mut f: impl FnMut(u32, &[Listen]) -> Result<(), E>,
) -> Result<(), E> {
    buffer.clear();
    for listen in listens {
        let listen = listen?;
        if let Some(last) = buffer.last()
            && last.user != listen.user
        {
            f(last.user, buffer)?;
            buffer.clear();
        }
        buffer.push(listen);
    }
    match buffer.last() {
        Some(last) => f(last.user, buffer),
        None => Ok(()),
    }
}

/// A small log, sorted in memory.
#[cfg(test)]
pub(crate) fn sorted(log: &Log) -> SortedLog {
    SortedLog::of(log, &Room::default()).unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_read_in_any_order() {
        for bytes in [100, 1 << 20] {
            let mut log = Log::default();
            for (user, item) in [("b", "x"), ("a", "y"), ("b", "z"), ("c", "x"), ("b", "x")] {
                let user = log.users.insert(user).unwrap();
                let item = log.items.insert(item).unwrap();
                log.push(Listen {
                    user,
                    item,
                    count: 1.0,
                    time_us: None,
                    context: None,
                    session: None,
                });
            }
            // One who has no listen.
            log.users.insert("d");
            let room = Room {
                bytes,
                ..Room::default()
            };
            let users = SortedLog::of(&log, &room).unwrap().by_user().unwrap();
            let items = |user: u32| -> Vec<u32> {
                let listens = users.of(user).unwrap();
                listens.iter().map(|listen| listen.item).collect()
            };
            assert_eq!(items(2), [0]);
            assert_eq!(items(0), [0, 0, 2]);
            assert_eq!(items(1), [1]);
            // One without listens, nobody, and the number that no user has.
            assert!(items(3).is_empty() && items(4).is_empty() && items(u32::MAX).is_empty());

            let told = |user| -> Vec<(String, u32)> {
                let events = users.events(user).unwrap().into_iter();
                events.map(|event| (event.item, event.count)).collect()
            };
            assert_eq!(told(0), [("x".to_owned(), 2), ("z".to_owned(), 1)]);
            assert!(told(3).is_empty() && told(u32::MAX).is_empty());
        }
    }

    #[test]
    fn plays_are_whole_and_within_limits() {
        assert_eq!(plays(0.2), 1);
        assert_eq!(plays(3.6), 4);
        assert_eq!(plays(f32::MAX), 1_000_000_000);
    }
}
