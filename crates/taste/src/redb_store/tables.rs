//! The tables of a store and what one write does to them.
//!
//! `users`: listener → revision and counts. `events`, `rules`: (listener, id) → record, so that an
//! id is unique within its listener by construction and a profile is one range of each table.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::Path;
use std::sync::Arc;

use redb::{
    ReadOnlyTable, ReadTransaction, ReadableTable, Table, TableDefinition, WriteTransaction,
};

use crate::codec::{self, DecodeError, UserRecord};
use crate::event::{Event, EventKind};
use crate::profile::Profile;
use crate::rule::{Rule, Scope};
use crate::store::{MAX_RULES_PER_USER, Receipt, StoreError, Write};

/// Marks a redb file as a profile store, and of which format.
pub(super) const FORMAT: TableDefinition<'_, &str, u64> =
    TableDefinition::new("refrain.profiles.format");
pub(super) const FORMAT_KEY: &str = "format";
pub(super) const FORMAT_VERSION: u64 = 1;

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
    changed: bool,
}

impl<'t> Tables<'t> {
    pub(super) fn open(transaction: &'t WriteTransaction) -> Result<Self, redb::Error> {
        Ok(Self {
            users: transaction.open_table(USERS)?,
            events: transaction.open_table(EVENTS)?,
            rules: transaction.open_table(RULES)?,
            changed: false,
        })
    }

    /// Whether any write has changed anything.
    pub(super) fn changed(&self) -> bool {
        self.changed
    }

    /// Applies a validated write. Everything that can refuse it is checked before the first change,
    /// so after a refusal the transaction can go on; after a failure of the storage it cannot.
    pub(super) fn apply(&mut self, write: &Write, max_events: u32) -> Result<Receipt, TableError> {
        match write {
            Write::Append { user, events } => self.append(user, events, max_events),
            Write::CreateRule { user, rule } => self.create_rule(user, rule),
            Write::DeleteRule {
                user,
                rule_id,
                allow_missing,
            } => self.delete_rule(user, rule_id, *allow_missing),
        }
    }

    /// Adds events, of which any number may be there already.
    pub(super) fn append(
        &mut self,
        user: &str,
        events: &[Event],
        max_events: u32,
    ) -> Result<Receipt, TableError> {
        let mut record = read_user(&self.users, user)?;
        let mut fresh: HashMap<&str, &Event> = HashMap::with_capacity(events.len());
        let mut duplicates = 0;
        for (position, event) in events.iter().enumerate() {
            let id = event.event_id.as_str();
            let same = match fresh.get(id) {
                Some(&earlier) => Some(earlier == event),
                None => match self.events.get((user, id)).map_err(redb::Error::from)? {
                    Some(stored) => {
                        let stored = codec::decode_event(id, stored.value())
                            .map_err(|source| TableError::corrupt("event", user, id, source))?;
                        Some(stored == *event)
                    }
                    None => None,
                },
            };
            match same {
                None => {
                    fresh.insert(id, event);
                }
                Some(true) => duplicates += 1,
                Some(false) => {
                    let event_id = id.to_owned();
                    return Err(StoreError::EventConflict { event_id, position }.into());
                }
            }
        }
        if fresh.is_empty() {
            return Ok(Receipt {
                revision: record.revision,
                duplicates,
                ..Receipt::default()
            });
        }
        let appended = u32::try_from(fresh.len()).unwrap_or(u32::MAX);
        let total = record.events.saturating_add(appended);
        let victims = match total > max_events {
            true => self.oldest(user, &record, &fresh, total - kept_when_full(max_events))?,
            false => Vec::new(),
        };
        let dropped = u32::try_from(victims.len()).unwrap_or(u32::MAX);

        for event in fresh.values() {
            let value = codec::encode_event(event);
            self.events
                .insert((user, event.event_id.as_str()), value.as_slice())
                .map_err(redb::Error::from)?;
        }
        for victim in &victims {
            self.events
                .remove((user, victim.as_str()))
                .map_err(redb::Error::from)?;
        }
        record.events = total - dropped;
        record.dropped += u64::from(dropped);
        let revision = self.advance(user, record)?;
        Ok(Receipt {
            revision,
            appended,
            duplicates,
            dropped,
            rule: None,
        })
    }

    /// Ids of the `count` events that a full profile gives up first, stored and fresh alike.
    fn oldest(
        &self,
        user: &str,
        record: &UserRecord,
        fresh: &HashMap<&str, &Event>,
        count: u32,
    ) -> Result<Vec<String>, TableError> {
        let mut all = read_all(
            &self.events,
            "event",
            user,
            record.events,
            codec::decode_event,
        )?;
        all.extend(fresh.values().map(|&event| event.clone()));
        let rules = read_all(&self.rules, "rule", user, record.rules, codec::decode_rule)?;
        let witnesses = Witnesses::of(&rules);
        // At one time an unlike goes after the like it may cancel, so that no like comes back.
        all.sort_unstable_by(|a, b| {
            let key = |event: &Event| {
                (
                    witnesses.has(event),
                    event.kind.is_explicit(),
                    event.time_us,
                    event.kind == EventKind::Unlike,
                )
            };
            key(a)
                .cmp(&key(b))
                .then_with(|| a.event_id.cmp(&b.event_id))
        });
        all.truncate(count as usize);
        Ok(all.into_iter().map(|event| event.event_id).collect())
    }

    fn create_rule(&mut self, user: &str, rule: &Rule) -> Result<Receipt, TableError> {
        let mut record = read_user(&self.users, user)?;
        let id = rule.rule_id.as_str();
        if let Some(stored) = self.rules.get((user, id)).map_err(redb::Error::from)? {
            let stored = codec::decode_rule(id, stored.value())
                .map_err(|source| TableError::corrupt("rule", user, id, source))?;
            if !stored.same_content(rule) {
                return Err(StoreError::RuleConflict {
                    rule_id: id.to_owned(),
                }
                .into());
            }
            let revision = record.revision;
            return Ok(Receipt {
                revision,
                rule: Some(stored),
                ..Receipt::default()
            });
        }
        if record.rules >= MAX_RULES_PER_USER {
            return Err(StoreError::TooManyRules {
                limit: MAX_RULES_PER_USER,
            }
            .into());
        }
        let value = codec::encode_rule(rule);
        self.rules
            .insert((user, id), value.as_slice())
            .map_err(redb::Error::from)?;
        record.rules += 1;
        let revision = self.advance(user, record)?;
        Ok(Receipt {
            revision,
            rule: Some(rule.clone()),
            ..Receipt::default()
        })
    }

    fn delete_rule(
        &mut self,
        user: &str,
        rule_id: &str,
        allow_missing: bool,
    ) -> Result<Receipt, TableError> {
        let mut record = read_user(&self.users, user)?;
        let existed = self
            .rules
            .remove((user, rule_id))
            .map_err(redb::Error::from)?
            .is_some();
        let revision = match (existed, allow_missing) {
            (true, _) => {
                record.rules = record.rules.saturating_sub(1);
                self.advance(user, record)?
            }
            (false, true) => record.revision,
            (false, false) => {
                return Err(StoreError::NoSuchRule {
                    rule_id: rule_id.to_owned(),
                }
                .into());
            }
        };
        Ok(Receipt {
            revision,
            ..Receipt::default()
        })
    }

    /// Stores a changed listener under the next revision.
    fn advance(&mut self, user: &str, mut record: UserRecord) -> Result<u64, TableError> {
        self.changed = true;
        record.revision += 1;
        let value = record.encode(user);
        self.users
            .insert(user, value.as_slice())
            .map_err(redb::Error::from)?;
        Ok(record.revision)
    }
}

/// How many events a profile keeps when it has to drop some.
fn kept_when_full(max_events: u32) -> u32 {
    max_events - max_events / 16
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

/// Events by which rules of effect SERVE know what they forbid: without its event, an item heard in a
/// context, session or window that must not be shown could be shown again.
#[derive(Default)]
struct Witnesses<'a> {
    contexts: HashSet<&'a str>,
    sessions: HashSet<&'a str>,
    windows: Vec<(Option<i64>, Option<i64>)>,
}

impl<'a> Witnesses<'a> {
    fn of(rules: &'a [Rule]) -> Self {
        let mut witnesses = Self::default();
        for rule in rules.iter().filter(|rule| rule.effect.serves()) {
            match &rule.scope {
                Scope::Context(context) => drop(witnesses.contexts.insert(context)),
                Scope::Session(session) => drop(witnesses.sessions.insert(session)),
                Scope::Window { start_us, end_us } => witnesses.windows.push((*start_us, *end_us)),
                Scope::Item(_) | Scope::Artist(_) | Scope::Tag(_) => {}
            }
        }
        witnesses
    }

    fn has(&self, event: &Event) -> bool {
        let named = |names: &HashSet<&str>, name: &Option<String>| {
            name.as_deref().is_some_and(|name| names.contains(name))
        };
        named(&self.contexts, &event.context)
            || named(&self.sessions, &event.session)
            || self.windows.iter().any(|&(start_us, end_us)| {
                start_us.is_none_or(|start| start <= event.time_us)
                    && end_us.is_none_or(|end| event.time_us < end)
            })
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
