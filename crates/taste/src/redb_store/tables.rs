//! The tables of a store and what one write does to them.
//!
//! `users`: listener → revision and counts. `events`, `rules`: (listener, id) → record, so that an
//! id is unique within its listener by construction and a profile is one range of each table.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use redb::{
    ReadOnlyTable, ReadTransaction, ReadableTable, Table, TableDefinition, WriteTransaction,
};

use crate::apply::Records;
use crate::codec::{self, DecodeError, UserRecord};
use crate::event::Event;
use crate::profile::Profile;
use crate::rule::Rule;
use crate::store::StoreError;

/// Marks a redb file as a profile store, and of which format.
pub(super) const FORMAT: TableDefinition<'_, &str, u64> =
    TableDefinition::new("refrain.profiles.format");
pub(super) const FORMAT_KEY: &str = "format";
pub(super) const FORMAT_VERSION: u64 = 1;
/// The largest revision that an erased profile had.
const FLOOR_KEY: &str = "floor";

type Key = (&'static str, &'static str);

const USERS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("users");
const EVENTS: TableDefinition<'_, Key, &[u8]> = TableDefinition::new("events");
const RULES: TableDefinition<'_, Key, &[u8]> = TableDefinition::new("rules");

/// The profile of a listener in a snapshot.
pub(super) fn read_profile(snapshot: &ReadTransaction, user: &str) -> Result<Profile, TableError> {
    let users: ReadOnlyTable<_, _> = snapshot.open_table(USERS).map_err(redb::Error::from)?;
    let record = read_user(&users, user)?;
    if record.revision == 0 {
        return Ok(Profile::default());
    }
    let events = snapshot.open_table(EVENTS).map_err(redb::Error::from)?;
    let rules = snapshot.open_table(RULES).map_err(redb::Error::from)?;
    let events = read_all(&events, "event", user, record.events, codec::decode_event)?;
    let rules = read_all(&rules, "rule", user, record.rules, codec::decode_rule)?;
    Ok(Profile::new(record.revision, events, rules))
}

/// The tables within a write transaction.
pub(super) struct Tables<'t> {
    users: Table<'t, &'static str, &'static [u8]>,
    events: Table<'t, Key, &'static [u8]>,
    rules: Table<'t, Key, &'static [u8]>,
    format: Table<'t, &'static str, u64>,
    changed: bool,
}

impl<'t> Tables<'t> {
    pub(super) fn open(transaction: &'t WriteTransaction) -> Result<Self, redb::Error> {
        Ok(Self {
            users: transaction.open_table(USERS)?,
            events: transaction.open_table(EVENTS)?,
            rules: transaction.open_table(RULES)?,
            format: transaction.open_table(FORMAT)?,
            changed: false,
        })
    }

    /// Whether any write has changed anything.
    pub(super) fn changed(&self) -> bool {
        self.changed
    }
}

impl Records for Tables<'_> {
    type Error = TableError;

    fn user(&mut self, user: &str) -> Result<UserRecord, TableError> {
        read_user(&self.users, user)
    }

    fn put_user(&mut self, user: &str, record: &UserRecord) -> Result<(), TableError> {
        self.changed = true;
        let value = record.encode(user);
        self.users
            .insert(user, value.as_slice())
            .map_err(redb::Error::from)?;
        Ok(())
    }

    fn events_of(
        &mut self,
        user: &str,
        events: &[Event],
    ) -> Result<HashMap<String, Event>, TableError> {
        let mut stored = HashMap::new();
        for event in events {
            let id = event.event_id.as_str();
            if let Some(value) = self.events.get((user, id)).map_err(redb::Error::from)? {
                let event = codec::decode_event(id, value.value())
                    .map_err(|source| TableError::corrupt("event", user, id, source))?;
                stored.insert(id.to_owned(), event);
            }
        }
        Ok(stored)
    }

    fn all_events(&mut self, user: &str, expected: u32) -> Result<Vec<Event>, TableError> {
        read_all(&self.events, "event", user, expected, codec::decode_event)
    }

    fn change_events(
        &mut self,
        user: &str,
        fresh: &[&Event],
        gone: &[String],
    ) -> Result<(), TableError> {
        self.changed = true;
        for event in fresh {
            let value = codec::encode_event(event);
            self.events
                .insert((user, event.event_id.as_str()), value.as_slice())
                .map_err(redb::Error::from)?;
        }
        for id in gone {
            self.events
                .remove((user, id.as_str()))
                .map_err(redb::Error::from)?;
        }
        Ok(())
    }

    fn rule(&mut self, user: &str, rule_id: &str) -> Result<Option<Rule>, TableError> {
        let value = self.rules.get((user, rule_id)).map_err(redb::Error::from)?;
        value
            .map(|value| codec::decode_rule(rule_id, value.value()))
            .transpose()
            .map_err(|source| TableError::corrupt("rule", user, rule_id, source))
    }

    fn all_rules(&mut self, user: &str, expected: u32) -> Result<Vec<Rule>, TableError> {
        read_all(&self.rules, "rule", user, expected, codec::decode_rule)
    }

    fn put_rule(&mut self, user: &str, rule: &Rule) -> Result<(), TableError> {
        self.changed = true;
        let value = codec::encode_rule(rule);
        self.rules
            .insert((user, rule.rule_id.as_str()), value.as_slice())
            .map_err(redb::Error::from)?;
        Ok(())
    }

    fn remove_rule(&mut self, user: &str, rule_id: &str) -> Result<bool, TableError> {
        let removed = self
            .rules
            .remove((user, rule_id))
            .map_err(redb::Error::from)?
            .is_some();
        self.changed |= removed;
        Ok(removed)
    }

    fn remove_all(&mut self, user: &str) -> Result<(), TableError> {
        self.changed = true;
        self.users.remove(user).map_err(redb::Error::from)?;
        for table in [&mut self.events, &mut self.rules] {
            let ids = ids_of(table, user)?;
            for id in ids {
                table
                    .remove((user, id.as_str()))
                    .map_err(redb::Error::from)?;
            }
        }
        Ok(())
    }

    fn floor(&mut self) -> Result<u64, TableError> {
        let floor = self.format.get(FLOOR_KEY).map_err(redb::Error::from)?;
        Ok(floor.map_or(0, |floor| floor.value()))
    }

    fn raise_floor(&mut self, to: u64) -> Result<(), TableError> {
        self.changed = true;
        self.format
            .insert(FLOOR_KEY, to)
            .map_err(redb::Error::from)?;
        Ok(())
    }
}

/// The user record of a listener in a snapshot.
pub(super) fn user_record(
    snapshot: &ReadTransaction,
    user: &str,
) -> Result<UserRecord, TableError> {
    let users: ReadOnlyTable<_, _> = snapshot.open_table(USERS).map_err(redb::Error::from)?;
    read_user(&users, user)
}

/// The largest revision that an erased profile had, in a snapshot.
pub(super) fn floor(snapshot: &ReadTransaction) -> Result<u64, TableError> {
    let format = snapshot.open_table(FORMAT).map_err(redb::Error::from)?;
    let floor = format.get(FLOOR_KEY).map_err(redb::Error::from)?;
    Ok(floor.map_or(0, |floor| floor.value()))
}

/// How many records of a listener a snapshot has, in all tables, unless the profile is of a later revision. One that
/// cannot be read counts.
pub(super) fn residue(
    snapshot: &ReadTransaction,
    user: &str,
    erased: u64,
) -> Result<u64, TableError> {
    let users: ReadOnlyTable<_, _> = snapshot.open_table(USERS).map_err(redb::Error::from)?;
    if read_user(&users, user).is_ok_and(|record| record.revision > erased) {
        return Ok(0);
    }
    let user_record = users.get(user).map_err(redb::Error::from)?.is_some();
    let mut found = u64::from(user_record);
    for table in [EVENTS, RULES] {
        let table = snapshot.open_table(table).map_err(redb::Error::from)?;
        found += ids_of(&table, user)?.len() as u64;
    }
    Ok(found)
}

/// Every listener of a snapshot, in the order of their ids.
pub(super) fn users(snapshot: &ReadTransaction) -> Result<Vec<String>, TableError> {
    let users: ReadOnlyTable<_, _> = snapshot.open_table(USERS).map_err(redb::Error::from)?;
    let mut ids = Vec::new();
    for entry in users.iter().map_err(redb::Error::from)? {
        let (id, _) = entry.map_err(redb::Error::from)?;
        ids.push(id.value().to_owned());
    }
    Ok(ids)
}

/// Ids of a listener's records in one table, readable or not.
fn ids_of(
    table: &impl ReadableTable<Key, &'static [u8]>,
    user: &str,
) -> Result<Vec<String>, TableError> {
    let mut ids = Vec::new();
    for entry in table.range((user, "")..).map_err(redb::Error::from)? {
        let (key, _) = entry.map_err(redb::Error::from)?;
        let (owner, id) = key.value();
        if owner != user {
            break;
        }
        ids.push(id.to_owned());
    }
    Ok(ids)
}

fn read_user(
    users: &impl ReadableTable<&'static str, &'static [u8]>,
    user: &str,
) -> Result<UserRecord, TableError> {
    match users.get(user).map_err(redb::Error::from)? {
        Some(value) => UserRecord::decode(user, value.value())
            .map_err(|source| TableError::corrupt("user", user, "", source)),
        None => Ok(UserRecord::default()),
    }
}

/// All records of a listener in one table; as many as their user record says.
fn read_all<T>(
    table: &impl ReadableTable<Key, &'static [u8]>,
    kind: &'static str,
    user: &str,
    expected: u32,
    decode: impl Fn(&str, &[u8]) -> Result<T, DecodeError>,
) -> Result<Vec<T>, TableError> {
    // The empty id sorts before every other, and no record has it.
    let range = table.range((user, "")..).map_err(redb::Error::from)?;
    let mut records = Vec::with_capacity(expected.min(1 << 16) as usize);
    for entry in range {
        let (key, value) = entry.map_err(redb::Error::from)?;
        let (owner, id) = key.value();
        if owner != user {
            break;
        }
        let record = decode(id, value.value())
            .map_err(|source| TableError::corrupt(kind, user, id, source))?;
        records.push(record);
    }
    if records.len() != expected as usize {
        let found = records.len();
        let source = WrongCount {
            kind,
            expected,
            found,
        };
        return Err(TableError::corrupt("user", user, "", source));
    }
    Ok(records)
}

/// A listener's records are not as many as their user record says.
#[derive(Debug, Clone, thiserror::Error)]
#[error("it counts {expected} {kind} records, there are {found}")]
struct WrongCount {
    kind: &'static str,
    expected: u32,
    found: usize,
}

/// Why a read or write of the tables failed.
#[derive(Debug)]
pub(super) enum TableError {
    /// The storage failed; the transaction is lost.
    Storage(redb::Error),
    /// The storage failed in the commit: whether it is durable is not known.
    Commit(redb::Error),
    /// A record is damaged.
    Corrupt {
        table: &'static str,
        key: String,
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// The write is refused.
    Refused(StoreError),
}

impl TableError {
    fn corrupt<E>(table: &'static str, user: &str, id: &str, source: E) -> Self
    where
        E: std::error::Error + Send + Sync + 'static,
    {
        let key = if id.is_empty() {
            user.to_owned()
        } else {
            format!("{user}/{id}")
        };
        Self::Corrupt {
            table,
            key,
            source: Arc::new(source),
        }
    }

    /// Whether the storage failed, rather than refused one write.
    pub(super) fn is_storage_failure(&self) -> bool {
        matches!(self, Self::Storage(_) | Self::Commit(_))
    }

    /// Whether storage failed earlier, so that redb refuses to go on with this handle and nothing
    /// was tried.
    pub(super) fn is_earlier_failure(&self) -> bool {
        matches!(
            self,
            Self::Storage(redb::Error::PreviousIo | redb::Error::DatabaseClosed)
        )
    }

    /// As an error of the store at a path.
    pub(super) fn at(self, path: &Path) -> StoreError {
        let path = path.to_owned();
        match self {
            Self::Refused(error) => error,
            Self::Corrupt { table, key, source } => StoreError::Corrupt {
                path,
                table,
                key,
                source,
            },
            Self::Storage(source) | Self::Commit(source) => {
                let full = matches!(&source, redb::Error::Io(error) if is_full(error.kind()));
                let source = Arc::new(source);
                match full {
                    true => StoreError::Full { path, source },
                    false => StoreError::Io { path, source },
                }
            }
        }
    }
}

fn is_full(kind: io::ErrorKind) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(kind, StorageFull | QuotaExceeded | FileTooLarge)
}

impl From<redb::Error> for TableError {
    fn from(error: redb::Error) -> Self {
        Self::Storage(error)
    }
}

impl From<StoreError> for TableError {
    fn from(error: StoreError) -> Self {
        Self::Refused(error)
    }
}
