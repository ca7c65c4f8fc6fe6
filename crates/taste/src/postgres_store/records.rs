//! The records of a store within one transaction of PostgreSQL, and what can go wrong with them.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use postgres::types::ToSql;
use postgres::{Row, Statement};

use super::connection::Connection;
use crate::apply::Records;
use crate::codec::{self, DecodeError, UserRecord};
use crate::event::Event;
use crate::rule::Rule;
use crate::store::StoreError;

/// A transaction on a connection. The caller began it, and ends it.
pub(super) struct Transaction<'c> {
    pub(super) connection: &'c mut Connection,
}

type Parameters<'p> = &'p [&'p (dyn ToSql + Sync)];

impl Transaction<'_> {
    fn query(&mut self, sql: &'static str, with: Parameters<'_>) -> Result<Vec<Row>, PgError> {
        let statement: Statement = self.connection.prepare(sql)?;
        Ok(self.connection.client.query(&statement, with)?)
    }

    fn execute(&mut self, sql: &'static str, with: Parameters<'_>) -> Result<u64, PgError> {
        let statement: Statement = self.connection.prepare(sql)?;
        Ok(self.connection.client.execute(&statement, with)?)
    }

    /// Locks listeners against the writers of all replicas until the transaction ends. In one order
    /// everywhere, so that no two wait for each other.
    pub(super) fn lock(&mut self, users: &[&str]) -> Result<(), PgError> {
        let mut keys: Vec<i64> = users.iter().map(|user| lock_key(user)).collect();
        keys.sort_unstable();
        keys.dedup();
        self.execute(
            "SELECT pg_advisory_xact_lock(key) FROM unnest($1::bigint[]) AS keys (key)",
            &[&keys],
        )?;
        Ok(())
    }

    /// Tells all replicas of changes when the transaction commits.
    pub(super) fn notify(&mut self, channel: &str, news: &[String]) -> Result<(), PgError> {
        self.execute(
            "SELECT pg_notify($1, news) FROM unnest($2::text[]) AS all_news (news)",
            &[&channel, &news],
        )?;
        Ok(())
    }
}

impl Records for Transaction<'_> {
    type Error = PgError;

    fn user(&mut self, user: &str) -> Result<UserRecord, PgError> {
        let rows = self.query(
            "SELECT record FROM refrain_user WHERE user_id = $1",
            &[&user.as_bytes()],
        )?;
        match rows.first() {
            Some(row) => decode_user(user, row.try_get(0)?),
            None => Ok(UserRecord::default()),
        }
    }

    fn put_user(&mut self, user: &str, record: &UserRecord) -> Result<(), PgError> {
        let revision = i64::try_from(record.revision).unwrap_or(i64::MAX);
        self.execute(
            "INSERT INTO refrain_user VALUES ($1, $2, $3)
             ON CONFLICT (user_id) DO UPDATE SET revision = $2, record = $3",
            &[&user.as_bytes(), &revision, &record.encode(user)],
        )?;
        Ok(())
    }

    fn events_of(
        &mut self,
        user: &str,
        events: &[Event],
    ) -> Result<HashMap<String, Event>, PgError> {
        let ids: Vec<&[u8]> = events
            .iter()
            .map(|event| event.event_id.as_bytes())
            .collect();
        let rows = self.query(
            "SELECT event_id, record FROM refrain_event
             WHERE user_id = $1 AND event_id = ANY($2::bytea[])",
            &[&user.as_bytes(), &ids],
        )?;
        let events = rows.iter().map(|row| {
            let event = event_of(user, row)?;
            Ok((event.event_id.clone(), event))
        });
        events.collect()
    }

    fn all_events(&mut self, user: &str, expected: u32) -> Result<Vec<Event>, PgError> {
        let rows = self.query(
            "SELECT event_id, record FROM refrain_event WHERE user_id = $1",
            &[&user.as_bytes()],
        )?;
        PgError::counted("event", user, expected, rows.len())?;
        rows.iter().map(|row| event_of(user, row)).collect()
    }

    fn change_events(
        &mut self,
        user: &str,
        fresh: &[&Event],
        gone: &[String],
    ) -> Result<(), PgError> {
        let ids: Vec<&[u8]> = fresh
            .iter()
            .map(|event| event.event_id.as_bytes())
            .collect();
        let records: Vec<Vec<u8>> = fresh
            .iter()
            .map(|event| codec::encode_event(event))
            .collect();
        self.execute(
            "INSERT INTO refrain_event
             SELECT $1, id, record FROM unnest($2::bytea[], $3::bytea[]) AS fresh (id, record)",
            &[&user.as_bytes(), &ids, &records],
        )?;
        if !gone.is_empty() {
            let gone: Vec<&[u8]> = gone.iter().map(|id| id.as_bytes()).collect();
            self.execute(
                "DELETE FROM refrain_event WHERE user_id = $1 AND event_id = ANY($2::bytea[])",
                &[&user.as_bytes(), &gone],
            )?;
        }
        Ok(())
    }

    fn rule(&mut self, user: &str, rule_id: &str) -> Result<Option<Rule>, PgError> {
        let rows = self.query(
            "SELECT rule_id, record FROM refrain_rule WHERE user_id = $1 AND rule_id = $2",
            &[&user.as_bytes(), &rule_id.as_bytes()],
        )?;
        rows.first().map(|row| rule_of(user, row)).transpose()
    }

    fn all_rules(&mut self, user: &str, expected: u32) -> Result<Vec<Rule>, PgError> {
        let rows = self.query(
            "SELECT rule_id, record FROM refrain_rule WHERE user_id = $1",
            &[&user.as_bytes()],
        )?;
        PgError::counted("rule", user, expected, rows.len())?;
        rows.iter().map(|row| rule_of(user, row)).collect()
    }

    fn put_rule(&mut self, user: &str, rule: &Rule) -> Result<(), PgError> {
        let record = codec::encode_rule(rule);
        self.execute(
            "INSERT INTO refrain_rule VALUES ($1, $2, $3)",
            &[&user.as_bytes(), &rule.rule_id.as_bytes(), &record],
        )?;
        Ok(())
    }

    fn remove_rule(&mut self, user: &str, rule_id: &str) -> Result<bool, PgError> {
        let removed = self.execute(
            "DELETE FROM refrain_rule WHERE user_id = $1 AND rule_id = $2",
            &[&user.as_bytes(), &rule_id.as_bytes()],
        )?;
        Ok(removed > 0)
    }

    fn remove_all(&mut self, user: &str) -> Result<(), PgError> {
        for sql in [
            "DELETE FROM refrain_user WHERE user_id = $1",
            "DELETE FROM refrain_event WHERE user_id = $1",
            "DELETE FROM refrain_rule WHERE user_id = $1",
        ] {
            self.execute(sql, &[&user.as_bytes()])?;
        }
        Ok(())
    }

    fn floor(&mut self) -> Result<u64, PgError> {
        let rows = self.query("SELECT value FROM refrain_number WHERE name = 'floor'", &[])?;
        let floor: i64 = rows.first().map_or(Ok(0), |row| row.try_get(0))?;
        Ok(u64::try_from(floor).unwrap_or_default())
    }

    fn raise_floor(&mut self, to: u64) -> Result<(), PgError> {
        let to = i64::try_from(to).unwrap_or(i64::MAX);
        self.execute(
            "UPDATE refrain_number SET value = greatest(value, $1) WHERE name = 'floor'",
            &[&to],
        )?;
        Ok(())
    }
}

pub(super) fn decode_user(user: &str, bytes: &[u8]) -> Result<UserRecord, PgError> {
    UserRecord::decode(user, bytes).map_err(|source| PgError::corrupt("user", user, "", source))
}

fn event_of(user: &str, row: &Row) -> Result<Event, PgError> {
    let id = PgError::text(row.try_get(0)?)?;
    codec::decode_event(id, row.try_get(1)?)
        .map_err(|source| PgError::corrupt("event", user, id, source))
}

fn rule_of(user: &str, row: &Row) -> Result<Rule, PgError> {
    let id = PgError::text(row.try_get(0)?)?;
    codec::decode_rule(id, row.try_get(1)?)
        .map_err(|source| PgError::corrupt("rule", user, id, source))
}

/// Key of a listener's lock: FNV-1a (Fowler, Noll and Vo), the same in every process. Two listeners of one
/// key wait for each other now and then, no more.
fn lock_key(user: &str) -> i64 {
    let hash = user.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    hash.cast_signed()
}

/// Why a read or write failed.
#[derive(Debug)]
pub(super) enum PgError {
    /// The server refused, failed or is gone.
    Database(postgres::Error),
    /// No connection became free in time.
    Exhausted,
    /// A record is damaged.
    Corrupt {
        table: &'static str,
        key: String,
        detail: String,
    },
    /// The write is refused.
    Refused(StoreError),
}

impl PgError {
    pub(super) fn corrupt(table: &'static str, user: &str, id: &str, source: DecodeError) -> Self {
        let key = match id {
            "" => user.to_owned(),
            id => format!("{user}/{id}"),
        };
        Self::Corrupt {
            table,
            key,
            detail: source.to_string(),
        }
    }

    /// An id, which was UTF-8 when it was stored.
    pub(super) fn text(bytes: &[u8]) -> Result<&str, Self> {
        std::str::from_utf8(bytes).map_err(|error| Self::Corrupt {
            table: "id",
            key: format!("{bytes:?}"),
            detail: error.to_string(),
        })
    }

    /// Checks that a listener has as many records as their user record says.
    pub(super) fn counted(
        kind: &'static str,
        user: &str,
        expected: u32,
        found: usize,
    ) -> Result<(), Self> {
        if expected as usize == found {
            return Ok(());
        }
        Err(Self::Corrupt {
            table: "user",
            key: user.to_owned(),
            detail: format!("it counts {expected} {kind} records, there are {found}"),
        })
    }

    /// Whether the connection is as good as before: only this question was refused.
    pub(super) fn is_refusal(&self) -> bool {
        matches!(self, Self::Corrupt { .. } | Self::Refused(_))
    }

    /// Whether the connection is gone, rather than the question wrong.
    pub(super) fn is_disconnection(&self) -> bool {
        use postgres::error::SqlState;
        match self {
            Self::Database(error) => {
                let ended = [
                    SqlState::ADMIN_SHUTDOWN,
                    SqlState::CRASH_SHUTDOWN,
                    SqlState::CANNOT_CONNECT_NOW,
                    SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT,
                ];
                error.is_closed() || error.code().is_none_or(|code| ended.contains(code))
            }
            Self::Exhausted | Self::Corrupt { .. } | Self::Refused(_) => false,
        }
    }

    /// As an error of the store at a place.
    pub(super) fn at(self, place: &Path) -> StoreError {
        let path = place.to_owned();
        match self {
            Self::Refused(error) => error,
            Self::Exhausted => StoreError::Busy,
            Self::Corrupt { table, key, detail } => StoreError::Corrupt {
                path,
                table,
                key,
                source: Arc::from(Box::<dyn std::error::Error + Send + Sync>::from(detail)),
            },
            Self::Database(error) => {
                let full = error.code() == Some(&postgres::error::SqlState::DISK_FULL);
                let source = Arc::new(error);
                match full {
                    true => StoreError::Full { path, source },
                    false => StoreError::Io { path, source },
                }
            }
        }
    }
}

impl From<postgres::Error> for PgError {
    fn from(error: postgres::Error) -> Self {
        Self::Database(error)
    }
}

impl From<StoreError> for PgError {
    fn from(error: StoreError) -> Self {
        Self::Refused(error)
    }
}
