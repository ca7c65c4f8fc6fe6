//! A listening log by listener, and its rows as events of the wire.

use std::collections::HashMap;

use refrain::v1 as pb;
use refrain_builder::ingest::{Listen, Log, plays};

use crate::wire;

/// The rows of a log, listener by listener, each in the order of the log.
#[derive(Debug)]
pub(crate) struct ByUser {
    /// Where each user's rows begin in `rows`, and the end.
    starts: Vec<usize>,
    rows: Vec<u32>,
}

impl ByUser {
    /// Sorts the rows of a log by user. O(rows + users).
    pub(crate) fn new(log: &Log) -> Self {
        let mut starts = vec![0_usize; log.users.len() + 1];
        for &user in &log.user {
            starts[user as usize + 1] += 1;
        }
        for user in 1..starts.len() {
            starts[user] += starts[user - 1];
        }
        let mut next = starts.clone();
        let mut rows = vec![0_u32; log.len()];
        for (row, &user) in (0_u32..).zip(&log.user) {
            let at = &mut next[user as usize];
            rows[*at] = row;
            *at += 1;
        }
        Self { starts, rows }
    }

    /// The rows of a user.
    pub(crate) fn rows(&self, user: u32) -> &[u32] {
        let user = user as usize;
        match (self.starts.get(user), self.starts.get(user + 1)) {
            (Some(&from), Some(&to)) => self.rows.get(from..to).unwrap_or_default(),
            _ => &[],
        }
    }
}

/// One row of a log.
pub(crate) fn listen(log: &Log, row: u32) -> Listen {
    let row = row as usize;
    let known = |column: &Option<Vec<u32>>| {
        column
            .as_ref()
            .map(|column| column[row])
            .filter(|&ordinal| ordinal != Log::NONE)
    };
    Listen {
        user: log.user[row],
        item: log.item[row],
        count: log.count[row],
        time_us: log.time_us.as_ref().map(|times| times[row]),
        context: known(&log.context),
        session: known(&log.session),
    }
}

/// A row as an event. `unknown_time` is when it happened in a log without times.
pub(crate) fn event(log: &Log, row: u32, unknown_time: jiff::Timestamp) -> pb::Event {
    let listen = listen(log, row);
    let name = |ordinal: Option<u32>, names: &refrain_builder::Dictionary| {
        ordinal
            .and_then(|ordinal| names.get(ordinal))
            .unwrap_or_default()
            .to_owned()
    };
    let at = listen
        .time_us
        .and_then(|us| jiff::Timestamp::from_microsecond(us).ok());
    pb::Event {
        event_id: String::new(),
        item_id: name(Some(listen.item), &log.items),
        event_time: Some(wire::wire_instant(at.unwrap_or(unknown_time))),
        kind: pb::EventKind::Play.into(),
        played_ms: None,
        context: name(listen.context, &log.contexts),
        session_id: name(listen.session, &log.sessions),
        count: Some(plays(listen.count)),
        private: false,
    }
}

/// Rows of one listener as events. Rows that say the same (plays of a day, plays without times) would be
/// one event to the server, which knows an event by its content: here they become one that counts them.
pub(crate) fn events(log: &Log, rows: &[u32], unknown_time: jiff::Timestamp) -> Vec<pb::Event> {
    let mut events: Vec<(pb::Event, f32)> = Vec::with_capacity(rows.len());
    let mut known: HashMap<_, usize> = HashMap::with_capacity(rows.len());
    for &row in rows {
        let told = listen(log, row);
        let at = *known
            .entry((told.item, told.time_us, told.context, told.session))
            .or_insert(events.len());
        match events.get_mut(at) {
            Some((_, count)) => *count += told.count,
            None => events.push((event(log, row, unknown_time), told.count)),
        }
    }
    let counted = events.into_iter().map(|(event, count)| pb::Event {
        count: Some(plays(count)),
        ..event
    });
    counted.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_found_by_user_in_their_order() {
        let mut log = Log::default();
        for (user, item) in [("b", "x"), ("a", "y"), ("b", "z"), ("c", "x"), ("b", "x")] {
            log.user.push(log.users.insert(user).expect("room"));
            log.item.push(log.items.insert(item).expect("room"));
            log.count.push(1.0);
        }
        let by_user = ByUser::new(&log);
        assert_eq!(by_user.rows(0), [0, 2, 4]);
        assert_eq!(by_user.rows(1), [1]);
        assert_eq!(by_user.rows(2), [3]);
        assert!(by_user.rows(3).is_empty());
        assert_eq!(event(&log, 2, jiff::Timestamp::UNIX_EPOCH).item_id, "z");
    }

    #[test]
    fn rows_that_say_the_same_are_counted_in_one_event() {
        let mut log = Log::default();
        for (user, item) in [("a", "x"), ("a", "y"), ("a", "x"), ("a", "x")] {
            log.user.push(log.users.insert(user).expect("room"));
            log.item.push(log.items.insert(item).expect("room"));
            log.count.push(2.0);
        }
        let events = events(&log, &[0, 1, 2, 3], jiff::Timestamp::UNIX_EPOCH);
        let counts: Vec<_> = events.iter().map(|e| (&*e.item_id, e.count)).collect();
        assert_eq!(counts, [("x", Some(6)), ("y", Some(2))]);
    }
}
