//! The embedded profile store: one redb file.
//!
//! Writes queue up for one writer thread, which takes all that wait, applies them in one
//! transaction, makes it durable with one fsync and then acknowledges each (group commit): the more
//! callers, the more writes share a sync. Reads run beside it on snapshots and are cached.
//!
//! A cached profile is never older than what was acknowledged. A reader that misses claims the
//! user's place in the cache before it takes its snapshot; the writer, between commit and
//! acknowledgement, removes the user, claimed or filled. A profile read before the commit thus finds
//! its claim gone and stays out of the cache, and one claimed later is read after the commit.

mod compact;
#[cfg(test)]
mod faults;
mod import;
mod open;
#[cfg(test)]
mod power;
mod tables;
mod writer;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, PoisonError, RwLock, mpsc};
use std::thread::JoinHandle;

use quick_cache::sync::{Cache, GuardResult};
use redb::{Database, ReadTransaction, ReadableDatabase};

use crate::invalid::Place;
use crate::profile::{Profile, ProfileBytes};
use crate::queue::{Pending, admit};
use crate::store::{Done, ProfileStore, StoreError, Write};
pub use compact::{CompactOptions, CompactReport};
pub use import::{ImportError, ImportReport};
pub use open::{InvalidOption, OpenStoreError, StoreOptions};
use tables::TableError;

/// Profiles in one redb file of this machine; see [`ProfileStore`] for what it guarantees.
///
/// One process has the file open at a time. Dropping the store makes durable what is queued, then
/// closes the file.
#[derive(Debug)]
pub struct RedbStore {
    shared: Arc<Shared>,
    queue: Option<mpsc::Sender<Pending>>,
    writer: Option<JoinHandle<()>>,
}

impl RedbStore {
    /// Opens a store, or creates it where nothing is. After a crash the file is repaired first,
    /// which reads all of it.
    ///
    /// # Errors
    /// The file is open elsewhere, is not a profile store, is damaged or of a later format, or
    /// cannot be read or written; an option is out of its bounds.
    pub fn open(path: &Path, options: &StoreOptions) -> Result<Self, OpenStoreError> {
        options.validate()?;
        let path = path.to_owned();
        let reopen = options.clone();
        Self::start(
            path.clone(),
            options,
            Box::new(move || open::open(&path, &reopen)),
        )
    }

    /// Writes the file of a store anew, so that its free space holds nothing of what was erased or
    /// dropped. Nobody may have it open; the new file takes the place of the old one when it is whole and
    /// on disk. O(records).
    ///
    /// # Errors
    /// As [`open`](Self::open); the store is then as it was.
    pub fn compact(path: &Path, options: &CompactOptions) -> Result<CompactReport, OpenStoreError> {
        compact::compact(path, options)
    }

    /// Starts on a database that `open` yields, now and again after storage has failed.
    fn start(path: PathBuf, options: &StoreOptions, open: Open) -> Result<Self, OpenStoreError> {
        let database = open()?;
        let shared = Arc::new(Shared {
            handle: RwLock::new(Handle {
                database: Some(database),
                generation: 0,
            }),
            open,
            cache: Cache::with_weighter(
                usize::try_from(options.cache_bytes / 4096).unwrap_or(usize::MAX),
                options.cache_bytes,
                ProfileBytes,
            ),
            waiting: AtomicUsize::new(0),
            path,
            options: options.clone(),
        });
        let (queue, pending) = mpsc::channel();
        let writer = std::thread::Builder::new()
            .name("profile-writer".to_owned())
            .spawn({
                let shared = Arc::clone(&shared);
                move || writer::run(&shared, &pending)
            })
            .map_err(|source| OpenStoreError::Io {
                path: shared.path.clone(),
                source,
            })?;
        Ok(Self {
            shared,
            queue: Some(queue),
            writer: Some(writer),
        })
    }

    /// Adds the events of many listeners in large transactions: for a log that a crash may as well
    /// import again. See [`ImportReport`] for what is counted.
    ///
    /// Events are unique by id as in any append, so importing again changes nothing. Each
    /// transaction is durable and takes turns with other writes. O(events).
    ///
    /// # Errors
    /// The position of the first listener whose events cannot be taken and why; what came in earlier
    /// transactions stays.
    pub fn import<I>(&self, profiles: I) -> Result<ImportReport, ImportError>
    where
        I: IntoIterator<Item = (String, Vec<crate::Event>)>,
    {
        import::import(&self.shared, profiles)
    }
}

impl ProfileStore for RedbStore {
    fn profile(&self, user: &str) -> Result<Arc<Profile>, StoreError> {
        Place::Write.id("user_id", user)?;
        match self.shared.cache.get_value_or_guard(user, None) {
            GuardResult::Value(profile) => Ok(profile),
            GuardResult::Guard(claim) => {
                let profile = Arc::new(self.shared.read(user)?);
                // Refused when a write took the claim away: then what was read may be old news.
                let _ = claim.insert(Arc::clone(&profile));
                Ok(profile)
            }
            // Without a time limit there is none to exceed.
            GuardResult::Timeout => self.shared.read(user).map(Arc::new),
        }
    }

    fn cached(&self, user: &str) -> Option<Arc<Profile>> {
        self.shared.cache.get(user)
    }

    fn residue(&self, user: &str, erased: u64) -> Result<u64, StoreError> {
        Place::Write.id("user_id", user)?;
        self.shared
            .with_snapshot(|snapshot| tables::residue(snapshot, user, erased))
    }

    fn for_each(
        &self,
        visit: &mut dyn FnMut(&str, &Profile) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        // Listeners one by one: a snapshot that lives long keeps every page that changes meanwhile.
        for user in self.shared.with_snapshot(tables::users)? {
            let profile = self.shared.read(&user)?;
            if profile.revision > 0 && visit(&user, &profile).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn submit(&self, write: Write, done: Done) {
        let refusal = match (write.validate(), &self.queue) {
            (Err(invalid), _) => Err(StoreError::Invalid(invalid)),
            (Ok(()), None) => Err(StoreError::Closed),
            (Ok(()), Some(queue)) => match admit(
                &self.shared.waiting,
                &write,
                self.shared.options.max_waiting,
            ) {
                Err(busy) => Err(busy),
                Ok(cost) => {
                    let pending = Pending { write, done, cost };
                    return match queue.send(pending) {
                        Ok(()) => {}
                        Err(mpsc::SendError(pending)) => (pending.done)(Err(StoreError::Closed)),
                    };
                }
            },
        };
        done(refusal);
    }
}

impl Drop for RedbStore {
    fn drop(&mut self) {
        // The writer ends when it has emptied the queue and nobody can fill it any more.
        drop(self.queue.take());
        if let Some(writer) = self.writer.take()
            // A completion may own the last reference: a thread cannot wait for itself.
            && writer.thread().id() != std::thread::current().id()
        {
            // It catches panics of completions and has none of its own to pass on.
            let _ = writer.join();
        }
    }
}

/// Opens the database, now and after a failure.
type Open = Box<dyn Fn() -> Result<Database, OpenStoreError> + Send + Sync>;

/// What readers and the writer share.
struct Shared {
    handle: RwLock<Handle>,
    open: Open,
    cache: Cache<String, Arc<Profile>, ProfileBytes>,
    /// Writes and their events that wait.
    waiting: AtomicUsize,
    path: PathBuf,
    options: StoreOptions,
}

/// The open database, the `generation`-th since the start.
struct Handle {
    /// Absent while storage that failed cannot be opened again.
    database: Option<Database>,
    generation: u64,
}

impl Handle {
    /// Closes the database, which writes: on pages that it did not write redb panics here, too.
    fn close(&mut self) {
        if let Some(database) = self.database.take() {
            // Everything acknowledged is durable already, so there is nothing to report.
            let _ = open::contain(|| drop(database));
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.close();
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("path", &self.path)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl Shared {
    fn read(&self, user: &str) -> Result<Profile, StoreError> {
        self.with_snapshot(|snapshot| tables::read_profile(snapshot, user))
    }

    /// Runs a read on a snapshot of its own.
    fn with_snapshot<T>(
        &self,
        read: impl Fn(&ReadTransaction) -> Result<T, TableError>,
    ) -> Result<T, StoreError> {
        self.with_database(|database| read(&database.begin_read().map_err(redb::Error::from)?))
    }

    /// Runs an operation on the database.
    ///
    /// redb refuses everything on a handle whose storage has failed once, so after a failure the
    /// file is closed and opened again: at once, and if that fails too, before the next operation.
    fn with_database<T>(
        &self,
        operation: impl Fn(&Database) -> Result<T, TableError>,
    ) -> Result<T, StoreError> {
        let mut retried = false;
        loop {
            let handle = self.handle.read().unwrap_or_else(PoisonError::into_inner);
            let generation = handle.generation;
            let result = match &handle.database {
                Some(database) => open::contain(|| operation(database)).unwrap_or_else(|detail| {
                    Err(TableError::Storage(redb::Error::Corrupted(detail)))
                }),
                None => Err(TableError::Storage(redb::Error::PreviousIo)),
            };
            drop(handle);
            let error = match result {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            let reopened = match error.is_storage_failure() {
                true => self.reopen(generation),
                false => Ok(()),
            };
            if retried || !error.is_earlier_failure() {
                return Err(error.at(&self.path));
            }
            reopened.map_err(|error| error.after_opening(&self.path))?;
            retried = true;
        }
    }

    /// Closes the database of a generation and opens it again, unless somebody has.
    fn reopen(&self, generation: u64) -> Result<(), OpenStoreError> {
        let mut handle = self.handle.write().unwrap_or_else(PoisonError::into_inner);
        if handle.generation == generation {
            // Closed first: the file is locked by whoever has it open.
            handle.close();
            handle.database = Some((self.open)()?);
            handle.generation += 1;
        }
        Ok(())
    }

    /// Forgets cached profiles and the claims of reads under way.
    fn forget<'a>(&self, users: impl Iterator<Item = &'a str>) {
        for user in users {
            self.cache.remove(user);
        }
    }
}
