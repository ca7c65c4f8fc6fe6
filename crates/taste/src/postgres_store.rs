//! The shared profile store: PostgreSQL, for replicas that serve the same listeners.
//!
//! Writes queue up for a few writer threads, told apart by listener, each with a connection of its own: a
//! thread takes all that wait, applies them in one transaction and acknowledges each after the commit. A
//! listener is locked by an advisory lock while a transaction writes to them, so that the writers of all
//! replicas take turns.
//!
//! # What a replica remembers
//! Profiles are cached as long as the replica hears of changes: every commit notifies, and a thread listens.
//! While it does not (the server restarts, the network is gone) nothing is read from the cache, and when it
//! does again, the cache is empty. A replica can still be behind by the time a notification takes; who has
//! the revision of a write gives it and never reads anything older, on any replica, and with
//! [`always_check`](PostgresOptions::always_check) nobody does.
//!
//! A read claims the listener's place in the cache before it asks; a notification removes the claim. So what
//! was asked before a commit is not kept after it.

mod connection;
mod listener;
mod records;
mod schema;
mod writer;

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use quick_cache::sync::{Cache, GuardResult};

use crate::invalid::Place;
use crate::profile::{Profile, ProfileBytes};
use crate::queue::{Pending, admit};
use crate::store::{Done, ProfileStore, StoreError, Write};
use connection::{Connection, Pool};
use records::PgError;

/// Writer threads. One commits while another reads; commits that notify take turns in PostgreSQL anyway.
const WRITERS: usize = 2;

/// How a store on PostgreSQL is run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostgresOptions {
    /// Memory for cached profiles, in bytes.
    pub cache_bytes: u64,
    /// Connections for reads, 1 to 1,000. Two more write, one listens.
    pub connections: usize,
    /// How long a connection may take to be made or to become free.
    pub timeout: Duration,
    /// Writes and their events that may wait; more are refused as busy. At least 1,001.
    pub max_waiting: usize,
    /// Writes that may share a transaction, at least 1.
    pub max_batch: usize,
    /// Events that a profile may hold, 1 to 1,000,000, as in the embedded store.
    pub max_events_per_user: u32,
    /// Whether every read asks for the revision, one round trip: then it is never behind a write that was
    /// acknowledged anywhere, also without naming its revision.
    pub always_check: bool,
}

impl Default for PostgresOptions {
    fn default() -> Self {
        Self {
            cache_bytes: 256 << 20,
            connections: 8,
            timeout: Duration::from_secs(2),
            max_waiting: 65_536,
            max_batch: 1_024,
            max_events_per_user: 10_000,
            always_check: false,
        }
    }
}

/// Why a store on PostgreSQL was not opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenPostgresError {
    /// The URL is not one.
    #[error("the URL of the profile store is not one of PostgreSQL")]
    Url {
        /// What is wrong.
        source: Box<postgres::Error>,
    },
    /// The server cannot be reached or refuses.
    #[error("{place}: PostgreSQL cannot be used")]
    Connect {
        /// Host and database.
        place: String,
        /// What it said.
        source: Box<postgres::Error>,
    },
    /// The tables were made by a later version of the program.
    #[error("{place}: tables of version {version}, this program knows up to {known}")]
    Version {
        /// Host and database.
        place: String,
        /// Version of the tables.
        version: i32,
        /// The latest that is known.
        known: i32,
    },
    /// A thread could not be started.
    #[error("cannot start a thread")]
    Thread {
        /// What the system said.
        source: std::io::Error,
    },
}

/// Profiles in a PostgreSQL database; see [`ProfileStore`] for what it guarantees.
///
/// Any number of processes may share it. The tables are made, and brought up to date, on opening; they live
/// in the first schema of the connection's search path. Dropping the store makes durable what is queued.
#[derive(Debug)]
pub struct PostgresStore {
    shared: Arc<Shared>,
    lanes: Vec<mpsc::Sender<Pending>>,
    threads: Vec<JoinHandle<()>>,
}

impl PostgresStore {
    /// Opens the store at `postgres://user:password@host:port/database` and brings its tables up to date.
    /// Connections are not encrypted: use a local socket, a private network or a proxy.
    ///
    /// # Errors
    /// [`OpenPostgresError`]; the password is in none.
    pub fn open(url: &str, options: &PostgresOptions) -> Result<Self, OpenPostgresError> {
        let mut config: postgres::Config =
            url.parse().map_err(|source| OpenPostgresError::Url {
                source: Box::new(source),
            })?;
        config
            .application_name("refrain")
            .connect_timeout(options.timeout)
            .keepalives_idle(Duration::from_secs(5))
            .tcp_user_timeout(Duration::from_secs(10));
        let place = place(&config);
        let channel = schema::migrate(&config, &place)?;
        let shared = Arc::new(Shared {
            pool: Pool::new(
                config.clone(),
                options.connections.clamp(1, 1_000),
                options.timeout,
            ),
            config,
            place: PathBuf::from(place),
            channel,
            cache: cache(options.cache_bytes),
            known: cache(options.cache_bytes),
            listening: AtomicBool::new(false),
            epoch: AtomicU64::new(0),
            stopping: AtomicBool::new(false),
            own: Mutex::new(HashSet::new()),
            waiting: AtomicUsize::new(0),
            erased: OnceLock::new(),
            options: options.clone(),
        });
        let mut store = Self {
            shared: Arc::clone(&shared),
            lanes: Vec::new(),
            threads: Vec::new(),
        };
        let thread = |name: &str, run: Box<dyn FnOnce() + Send>| {
            std::thread::Builder::new()
                .name(name.to_owned())
                .spawn(run)
                .map_err(|source| OpenPostgresError::Thread { source })
        };
        for _ in 0..WRITERS {
            let (lane, queue) = mpsc::channel();
            let shared = Arc::clone(&shared);
            let run = move || writer::run(&shared, &queue);
            store.threads.push(thread("profile-writer", Box::new(run))?);
            store.lanes.push(lane);
        }
        // Ends by itself: it may be waiting for news, and nothing waits for it.
        thread("profile-listener", Box::new(move || listener::run(&shared)))?;
        Ok(store)
    }

    /// Has `forget` called with every listener that another process erases, so that nothing that was made
    /// of them is kept. Once; later calls do nothing.
    pub fn on_erasure(&self, forget: impl Fn(&str) + Send + Sync + 'static) {
        let _ = self.shared.erased.set(Box::new(forget));
    }

    /// Whether the store hears of changes that others make.
    pub fn is_listening(&self) -> bool {
        self.shared.listening.load(Ordering::Acquire)
    }
}

impl ProfileStore for PostgresStore {
    fn profile(&self, user: &str) -> Result<Arc<Profile>, StoreError> {
        Place::Write.id("user_id", user)?;
        let shared = &*self.shared;
        if !shared.listening.load(Ordering::Acquire) {
            return shared.read(user);
        }
        match shared.cache.get_value_or_guard(user, None) {
            GuardResult::Value(profile) if !shared.options.always_check => Ok(profile),
            GuardResult::Value(profile) => match shared.revision(user)? {
                revision if revision == profile.revision => Ok(profile),
                _ => shared.refresh(user),
            },
            GuardResult::Guard(claim) => shared.read_for(user, claim),
            // Without a time limit there is none to exceed.
            GuardResult::Timeout => shared.read(user),
        }
    }

    fn cached(&self, user: &str) -> Option<Arc<Profile>> {
        let shared = &*self.shared;
        if shared.options.always_check || !shared.listening.load(Ordering::Acquire) {
            return None;
        }
        shared.cache.get(user)
    }

    fn profile_since(&self, user: &str, revision: u64) -> Result<Arc<Profile>, StoreError> {
        let profile = self.profile(user)?;
        if profile.revision >= revision {
            return Ok(profile);
        }
        // Cached before the write that is meant, and the news of it is still on its way.
        self.shared.refresh(user)
    }

    fn last_known(&self, user: &str) -> Option<Arc<Profile>> {
        self.shared.known.get(user)
    }

    fn residue(&self, user: &str, erased: u64) -> Result<u64, StoreError> {
        Place::Write.id("user_id", user)?;
        self.shared
            .ask(|connection| connection.residue(user, erased))
    }

    fn for_each(
        &self,
        visit: &mut dyn FnMut(&str, &Profile) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        let mut last: Vec<u8> = Vec::new();
        loop {
            let users = self
                .shared
                .ask(|connection| connection.users_after(&last))?;
            let Some(end) = users.last() else {
                return Ok(());
            };
            last = end.as_bytes().to_vec();
            for user in &users {
                let profile = self.shared.ask(|connection| connection.profile(user))?;
                if profile.revision > 0 && visit(user, &profile).is_break() {
                    return Ok(());
                }
            }
        }
    }

    fn submit(&self, write: Write, done: Done) {
        let lane = self
            .lanes
            .get(lane_of(write.user(), self.lanes.len().max(1)));
        let refusal = match (write.validate(), lane) {
            (Err(invalid), _) => Err(StoreError::Invalid(invalid)),
            (Ok(()), None) => Err(StoreError::Closed),
            (Ok(()), Some(lane)) => {
                let most = self.shared.options.max_waiting;
                match admit(&self.shared.waiting, &write, most) {
                    Err(busy) => Err(busy),
                    Ok(cost) => {
                        let pending = Pending { write, done, cost };
                        return match lane.send(pending) {
                            Ok(()) => {}
                            Err(mpsc::SendError(pending)) => {
                                (pending.done)(Err(StoreError::Closed));
                            }
                        };
                    }
                }
            }
        };
        done(refusal);
    }
}

impl Drop for PostgresStore {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::Release);
        // The writers end when they have emptied their queues and nobody can fill them any more.
        self.lanes.clear();
        for thread in self.threads.drain(..) {
            // A completion may own the last reference: a thread cannot wait for itself.
            if thread.thread().id() != std::thread::current().id() {
                let _ = thread.join();
            }
        }
        // A connection waits for its own end, which a thread that runs asynchronous work may not.
        let shared = Arc::clone(&self.shared);
        let closing = std::thread::Builder::new()
            .name("profile-closer".to_owned())
            .spawn(move || shared.pool.close());
        if let Ok(closing) = closing {
            let _ = closing.join();
        }
    }
}

type Claim<'a> = quick_cache::sync::PlaceholderGuard<
    'a,
    String,
    Arc<Profile>,
    ProfileBytes,
    quick_cache::DefaultHashBuilder,
    quick_cache::sync::DefaultLifecycle<String, Arc<Profile>>,
>;

/// Called with a listener who was erased elsewhere.
type Forget = Box<dyn Fn(&str) + Send + Sync>;

/// What readers, writers and the listener share.
struct Shared {
    pool: Pool,
    config: postgres::Config,
    /// Host and database, for errors.
    place: PathBuf,
    /// Where changes are told.
    channel: String,
    cache: Cache<String, Arc<Profile>, ProfileBytes>,
    /// What was last read of listeners, changed since or not.
    known: Cache<String, Arc<Profile>, ProfileBytes>,
    listening: AtomicBool,
    /// Grows with every gap in what is heard.
    epoch: AtomicU64,
    stopping: AtomicBool,
    /// Backends of our own writers: what they tell is known.
    own: Mutex<HashSet<i32>>,
    waiting: AtomicUsize,
    erased: OnceLock<Forget>,
    options: PostgresOptions,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("place", &self.place)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl Shared {
    fn read(&self, user: &str) -> Result<Arc<Profile>, StoreError> {
        let profile = Arc::new(self.ask(|connection| connection.profile(user))?);
        if profile.revision > 0 {
            self.known.insert(user.to_owned(), Arc::clone(&profile));
        }
        Ok(profile)
    }

    /// Reads past the cache, and puts what was read there.
    fn refresh(&self, user: &str) -> Result<Arc<Profile>, StoreError> {
        self.cache.remove(user);
        match self.cache.get_value_or_guard(user, None) {
            // Read by somebody else since.
            GuardResult::Value(profile) => Ok(profile),
            GuardResult::Guard(claim) => self.read_for(user, claim),
            GuardResult::Timeout => self.read(user),
        }
    }

    /// Reads for a claimed place in the cache.
    fn read_for(&self, user: &str, claim: Claim<'_>) -> Result<Arc<Profile>, StoreError> {
        let epoch = self.epoch.load(Ordering::Acquire);
        let profile = self.read(user)?;
        // Refused when a change took the claim away: what was read may be old news.
        let _ = claim.insert(Arc::clone(&profile));
        // Read before a gap in the news: what happened in the gap would never be heard of. A gap that
        // begins after this look empties the cache after it, too.
        if self.epoch.load(Ordering::Acquire) != epoch {
            self.cache.remove(user);
        }
        Ok(profile)
    }

    fn revision(&self, user: &str) -> Result<u64, StoreError> {
        self.ask(|connection| connection.revision(user))
    }

    /// Asks on a connection of the pool. One that the server has closed meanwhile is replaced once.
    fn ask<T>(
        &self,
        question: impl Fn(&mut Connection) -> Result<T, PgError>,
    ) -> Result<T, StoreError> {
        let mut retried = false;
        loop {
            let mut connection = self.pool.take().map_err(|error| error.at(&self.place))?;
            let answer = question(&mut connection);
            match answer {
                Ok(answer) => {
                    self.pool.give_back(connection);
                    return Ok(answer);
                }
                Err(error) if error.is_refusal() => {
                    self.pool.give_back(connection);
                    return Err(error.at(&self.place));
                }
                Err(error) => {
                    self.pool.drop_broken(connection);
                    if retried || !error.is_disconnection() {
                        return Err(error.at(&self.place));
                    }
                    retried = true;
                }
            }
        }
    }

    /// Begins anew: what was read before now may have changed unheard.
    fn forget_all(&self) {
        self.epoch.fetch_add(1, Ordering::AcqRel);
        self.cache.clear();
    }

    /// Forgets what is cached of a listener, and the claims of reads under way.
    fn forget(&self, user: &str) {
        self.cache.remove(user);
    }

    /// Forgets all there ever was of a listener.
    fn forget_erased(&self, user: &str) {
        self.cache.remove(user);
        self.known.remove(user);
    }

    fn own(&self) -> std::sync::MutexGuard<'_, HashSet<i32>> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn cache(bytes: u64) -> Cache<String, Arc<Profile>, ProfileBytes> {
    let estimate = usize::try_from(bytes / 4096).unwrap_or(usize::MAX);
    Cache::with_weighter(estimate, bytes, ProfileBytes)
}

/// Host and database: what may be shown of a URL.
fn place(config: &postgres::Config) -> String {
    let hosts: Vec<String> = config
        .get_hosts()
        .iter()
        .map(|host| match host {
            postgres::config::Host::Tcp(name) => name.clone(),
            postgres::config::Host::Unix(path) => path.display().to_string(),
        })
        .collect();
    format!(
        "postgres://{}/{}",
        hosts.join(","),
        config.get_dbname().unwrap_or_default()
    )
}

/// The writer of a listener: always the same, so that their writes keep their order.
fn lane_of(user: &str, lanes: usize) -> usize {
    crc32c::crc32c(user.as_bytes()) as usize % lanes
}
