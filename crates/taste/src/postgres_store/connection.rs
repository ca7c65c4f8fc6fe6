//! Connections: prepared once, used again, dropped when they break.
//!
//! A pool of our own because prepared statements live and die with their connection.

use std::collections::HashMap;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use postgres::{Client, NoTls, Statement};

use super::records::{PgError, decode_user};
use crate::codec;
use crate::profile::Profile;

/// What every session is set to: a lost server does not hold a thread for ever, and what is acknowledged is
/// durable also where the database defaults to less.
const SETTINGS: &str = "
    SET statement_timeout = '10s';
    SET lock_timeout = '5s';
    SET idle_in_transaction_session_timeout = '30s';
    SELECT set_config('synchronous_commit', 'on', false)
        WHERE current_setting('synchronous_commit') IN ('off', 'local');
";

/// Listeners in one page of all.
const PAGE: i64 = 1_000;

/// One connection with its prepared statements.
pub(super) struct Connection {
    pub(super) client: Client,
    prepared: HashMap<&'static str, Statement>,
}

impl Connection {
    pub(super) fn open(config: &postgres::Config) -> Result<Self, postgres::Error> {
        let mut client = config.connect(NoTls)?;
        client.batch_execute(SETTINGS)?;
        Ok(Self {
            client,
            prepared: HashMap::new(),
        })
    }

    /// A statement, prepared at its first use on this connection.
    pub(super) fn prepare(&mut self, sql: &'static str) -> Result<Statement, postgres::Error> {
        if let Some(statement) = self.prepared.get(sql) {
            return Ok(statement.clone());
        }
        let statement = self.client.prepare(sql)?;
        self.prepared.insert(sql, statement.clone());
        Ok(statement)
    }

    /// A listener's profile: three tables in one statement, so of one snapshot and in one round trip.
    pub(super) fn profile(&mut self, user: &str) -> Result<Profile, PgError> {
        let statement = self.prepare(
            "SELECT 0, ''::bytea, record FROM refrain_user WHERE user_id = $1
             UNION ALL SELECT 1, event_id, record FROM refrain_event WHERE user_id = $1
             UNION ALL SELECT 2, rule_id, record FROM refrain_rule WHERE user_id = $1",
        )?;
        let rows = self.client.query(&statement, &[&user.as_bytes()])?;
        let mut record = codec::UserRecord::default();
        let (mut events, mut rules) = (Vec::new(), Vec::new());
        for row in &rows {
            let table: i32 = row.try_get(0)?;
            let (id, bytes): (&[u8], &[u8]) = (row.try_get(1)?, row.try_get(2)?);
            let id = PgError::text(id)?;
            match table {
                0 => record = decode_user(user, bytes)?,
                1 => events.push(
                    codec::decode_event(id, bytes)
                        .map_err(|source| PgError::corrupt("event", user, id, source))?,
                ),
                _ => rules.push(
                    codec::decode_rule(id, bytes)
                        .map_err(|source| PgError::corrupt("rule", user, id, source))?,
                ),
            }
        }
        PgError::counted("event", user, record.events, events.len())?;
        PgError::counted("rule", user, record.rules, rules.len())?;
        if record.revision == 0 {
            return Ok(Profile::default());
        }
        Ok(Profile::new(record.revision, events, rules))
    }

    /// Revision of a listener's profile; 0 where there is none.
    pub(super) fn revision(&mut self, user: &str) -> Result<u64, PgError> {
        let statement = self.prepare("SELECT revision FROM refrain_user WHERE user_id = $1")?;
        let row = self.client.query_opt(&statement, &[&user.as_bytes()])?;
        let revision: i64 = row.map_or(Ok(0), |row| row.try_get(0))?;
        Ok(u64::try_from(revision).unwrap_or_default())
    }

    /// How many records of a listener there are in all tables, unless the profile is of a later revision.
    pub(super) fn residue(&mut self, user: &str, erased: u64) -> Result<u64, PgError> {
        let statement = self.prepare(
            "SELECT CASE
                 WHEN EXISTS (SELECT FROM refrain_user WHERE user_id = $1 AND revision > $2) THEN 0
                 ELSE (SELECT count(*) FROM refrain_user WHERE user_id = $1)
                    + (SELECT count(*) FROM refrain_event WHERE user_id = $1)
                    + (SELECT count(*) FROM refrain_rule WHERE user_id = $1)
             END",
        )?;
        let erased = i64::try_from(erased).unwrap_or(i64::MAX);
        let row = self
            .client
            .query_one(&statement, &[&user.as_bytes(), &erased])?;
        let found: i64 = row.try_get(0)?;
        Ok(u64::try_from(found).unwrap_or_default())
    }

    /// The next listeners after one, in the order of their ids.
    pub(super) fn users_after(&mut self, last: &[u8]) -> Result<Vec<String>, PgError> {
        let statement = self.prepare(
            "SELECT user_id FROM refrain_user WHERE user_id > $1 ORDER BY user_id LIMIT $2",
        )?;
        let rows = self.client.query(&statement, &[&last, &PAGE])?;
        rows.iter()
            .map(|row| Ok(PgError::text(row.try_get(0)?)?.to_owned()))
            .collect()
    }
}

/// At most so many connections, made when they are needed.
pub(super) struct Pool {
    config: postgres::Config,
    timeout: Duration,
    state: Mutex<State>,
    freed: Condvar,
}

struct State {
    idle: Vec<Connection>,
    /// How many more may be made.
    room: usize,
}

impl Pool {
    pub(super) fn new(config: postgres::Config, most: usize, timeout: Duration) -> Self {
        Self {
            config,
            timeout,
            state: Mutex::new(State {
                idle: Vec::new(),
                room: most,
            }),
            freed: Condvar::new(),
        }
    }

    /// An idle connection, a new one, or after a wait the next that becomes idle.
    pub(super) fn take(&self) -> Result<Connection, PgError> {
        let until = Instant::now() + self.timeout;
        let mut state = self.state();
        loop {
            if let Some(connection) = state.idle.pop() {
                return Ok(connection);
            }
            if state.room > 0 {
                state.room -= 1;
                drop(state);
                return Connection::open(&self.config).map_err(|error| {
                    self.make_room();
                    error.into()
                });
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(PgError::Exhausted);
            }
            (state, _) = self
                .freed
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    pub(super) fn give_back(&self, connection: Connection) {
        self.state().idle.push(connection);
        self.freed.notify_one();
    }

    /// Lets go of a connection that broke, and of all that are idle: what broke it broke them most likely.
    pub(super) fn drop_broken(&self, connection: Connection) {
        drop(connection);
        self.close();
        self.make_room();
        self.freed.notify_all();
    }

    /// Lets go of all that are idle.
    pub(super) fn close(&self) {
        let idle = {
            let mut state = self.state();
            state.room += state.idle.len();
            std::mem::take(&mut state.idle)
        };
        drop(idle);
    }

    fn make_room(&self) {
        self.state().room += 1;
        self.freed.notify_one();
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
