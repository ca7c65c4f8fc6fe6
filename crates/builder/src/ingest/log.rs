//! The listening log in memory: columns of ordinals over dictionaries.

use super::items::Items;
use super::report::ReadReport;
use crate::Dictionary;

/// Listens, one entry a column each, in the order they were read.
///
/// Every ordinal is in range of its dictionary, every count is finite and positive, and every
/// column that is there has [`Log::len`] entries. A listen costs 12 bytes, plus 8 for a time and
/// 4 each for a context and a session.
#[derive(Debug, Clone, Default)]
pub struct Log {
    /// User ids, in order of first appearance.
    pub users: Dictionary,
    /// Item ids, in order of first appearance.
    pub items: Dictionary,
    /// Names of contexts (playlists, albums, stations).
    pub contexts: Dictionary,
    /// Session ids.
    pub sessions: Dictionary,
    /// User ordinal of each listen.
    pub user: Vec<u32>,
    /// Item ordinal of each listen.
    pub item: Vec<u32>,
    /// How often it was played, > 0; 1 where the log has single events.
    pub count: Vec<f32>,
    /// When, in microseconds since 1970 UTC; `None` when the log has no times.
    pub time_us: Option<Vec<i64>>,
    /// Context ordinal or [`Log::NONE`]; `None` when the log has no contexts.
    pub context: Option<Vec<u32>>,
    /// Session ordinal or [`Log::NONE`]; `None` when the log has no sessions.
    pub session: Option<Vec<u32>>,
    /// What the log itself says about items (artist, title columns); often empty.
    pub described: Items,
    /// Up to when the rules are complete that took listens out, in microseconds since 1970 UTC; `None` when
    /// none did, or their files do not say. [`super::SortedLog::exclude`] sets it.
    pub excluded_until_us: Option<i64>,
    /// Whether rules took listens out, or weakened any. [`super::SortedLog::exclude`] sets it, too.
    pub has_exclusions: bool,
    /// What was read, dropped and found bad.
    pub report: ReadReport,
}

/// One listen of a [`Log`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Listen {
    /// User ordinal.
    pub user: u32,
    /// Item ordinal.
    pub item: u32,
    /// Plays, > 0.
    pub count: f32,
    /// Microseconds since 1970 UTC.
    pub time_us: Option<i64>,
    /// Context ordinal.
    pub context: Option<u32>,
    /// Session ordinal.
    pub session: Option<u32>,
}

impl Log {
    /// Marks a listen without a context or session in those columns.
    pub const NONE: u32 = u32::MAX;

    /// How many listens (rows, not plays) there are.
    pub fn len(&self) -> usize {
        self.user.len()
    }

    /// Whether there is no listen at all.
    pub fn is_empty(&self) -> bool {
        self.user.is_empty()
    }

    /// The listens in the order they were read.
    pub fn listens(&self) -> impl ExactSizeIterator<Item = Listen> + '_ {
        (0..self.len()).map(|row| self.listen(row))
    }

    /// The time of the newest listen: what a model trained on this log knows about.
    pub fn watermark_us(&self) -> Option<i64> {
        self.time_us.as_ref()?.iter().copied().max()
    }

    /// All plays: the sum of the counts.
    pub fn plays(&self) -> f64 {
        self.count.iter().map(|&count| f64::from(count)).sum()
    }

    /// Whether two logs hold the same listens, ids and order included, however they were stored.
    pub fn same_listens(&self, other: &Self) -> bool {
        self.users == other.users
            && self.items == other.items
            && self.contexts == other.contexts
            && self.sessions == other.sessions
            && self.user == other.user
            && self.item == other.item
            && self.count == other.count
            && self.time_us == other.time_us
            && self.context == other.context
            && self.session == other.session
            && self.described == other.described
    }

    /// Adds a listen to the columns that there are.
    pub(crate) fn push(&mut self, listen: Listen) {
        self.user.push(listen.user);
        self.item.push(listen.item);
        self.count.push(listen.count);
        if let (Some(times), Some(time)) = (&mut self.time_us, listen.time_us) {
            times.push(time);
        }
        for (column, label) in [
            (&mut self.context, listen.context),
            (&mut self.session, listen.session),
        ] {
            if let Some(column) = column {
                column.push(label.unwrap_or(Self::NONE));
            }
        }
    }

    /// Listen number `row`, which must be below [`Log::len`].
    pub(crate) fn listen(&self, row: usize) -> Listen {
        let known = |column: &Option<Vec<u32>>| {
            column
                .as_ref()
                .map(|column| column[row])
                .filter(|&ordinal| ordinal != Self::NONE)
        };
        Listen {
            user: self.user[row],
            item: self.item[row],
            count: self.count[row],
            time_us: self.time_us.as_ref().map(|column| column[row]),
            context: known(&self.context),
            session: known(&self.session),
        }
    }
}
