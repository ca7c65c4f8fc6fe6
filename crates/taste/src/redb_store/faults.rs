//! Storage that fails: a full disk, a sync that does not.

use std::fmt;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use redb::backends::FileBackend;
use redb::{Database, StorageBackend};

use super::open::{claim, classify};
use super::{RedbStore, StoreOptions};
use crate::event::{Event, EventKind};
use crate::store::{ProfileStore, StoreError, Write};

/// What is wrong with the disk at the moment.
#[derive(Debug)]
struct Faults {
    /// Bytes that the disk has.
    capacity: AtomicU64,
    sync_fails: AtomicBool,
    /// Whether the file cannot even be opened again.
    open_fails: AtomicBool,
}

/// A file on a disk with faults.
struct FaultyFile {
    file: FileBackend,
    faults: Arc<Faults>,
}

impl fmt::Debug for FaultyFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.faults.fmt(f)
    }
}

impl FaultyFile {
    fn fits(&self, end: u64) -> io::Result<()> {
        match end <= self.faults.capacity.load(Ordering::Relaxed) {
            true => Ok(()),
            false => Err(ErrorKind::StorageFull.into()),
        }
    }
}

impl StorageBackend for FaultyFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.fits(len)?;
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        match self.faults.sync_fails.load(Ordering::Relaxed) {
            true => Err(io::Error::other("the sync failed")),
            false => self.file.sync_data(),
        }
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let end = offset + data.len() as u64;
        if let Err(full) = self.fits(end) {
            // Half of it is on the disk before the error, as it is with a real one.
            self.file.write(offset, &data[..data.len() / 2])?;
            return Err(full);
        }
        self.file.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }
}

fn open(path: &Path) -> (RedbStore, Arc<Faults>) {
    let faults = Arc::new(Faults {
        capacity: AtomicU64::new(u64::MAX),
        sync_fails: AtomicBool::new(false),
        open_fails: AtomicBool::new(false),
    });
    // Nothing is cached, so that every read meets the disk.
    let options = StoreOptions {
        cache_bytes: 0,
        page_cache_bytes: 0,
        ..StoreOptions::default()
    };
    let open = {
        let (path, faults) = (path.to_owned(), Arc::clone(&faults));
        move || {
            if faults.open_fails.load(Ordering::Relaxed) {
                let source = io::Error::other("the disk is gone");
                return Err(super::OpenStoreError::Io {
                    path: path.clone(),
                    source,
                });
            }
            let mut file = fs_err::OpenOptions::new();
            file.read(true).write(true).create(true);
            let file = file.open(&path).unwrap().into_parts().0;
            let file = FileBackend::new(file).map_err(|error| classify(error, &path))?;
            let database = Database::builder()
                .set_cache_size(0)
                .create_with_backend(FaultyFile {
                    file,
                    faults: Arc::clone(&faults),
                })
                .map_err(|error| classify(error, &path))?;
            claim(&database, &path)?;
            Ok(database)
        }
    };
    (
        RedbStore::start(path.to_owned(), &options, Box::new(open)).unwrap(),
        faults,
    )
}

fn append(n: u64) -> Write {
    let event = |half: u64| Event {
        event_id: format!("{n}-{half}"),
        item: "i".repeat(128),
        time_us: 0,
        kind: EventKind::Play,
        played_ms: None,
        context: Some("c".repeat(128)),
        session: None,
        count: 1,
    };
    Write::Append {
        user: "u".to_owned(),
        events: (0..100).map(event).collect(),
    }
}

#[test]
fn a_full_disk_refuses_writes_and_goes_on_reading() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("profiles.redb");
    let (store, faults) = open(&path);
    let mut acknowledged = 0;
    for round in 0..3 {
        store.write(append(acknowledged)).unwrap();
        acknowledged += 1;
        let used = fs_err::metadata(&path).unwrap().len();
        faults.capacity.store(used, Ordering::Relaxed);
        let refusal = loop {
            match store.write(append(acknowledged)) {
                Ok(_) => acknowledged += 1,
                Err(error) => break error,
            }
            assert!(
                acknowledged < 10_000,
                "round {round}: the disk never filled"
            );
        };
        assert!(matches!(refusal, StoreError::Full { .. }), "{refusal:?}");
        assert!(refusal.to_string().contains("profiles.redb"), "{refusal}");
        for _ in 0..3 {
            let profile = store.profile("u").unwrap();
            assert_eq!(
                profile.revision, acknowledged,
                "what was refused is not there"
            );
            assert_eq!(profile.events.len() as u64, 100 * acknowledged);
        }
        faults.capacity.store(u64::MAX, Ordering::Relaxed);
    }
    assert_eq!(
        store.write(append(acknowledged)).unwrap().revision,
        acknowledged + 1
    );
    drop(store);
    let store = RedbStore::open(&path, &StoreOptions::default()).unwrap();
    assert_eq!(store.profile("u").unwrap().revision, acknowledged + 1);
}

#[test]
fn a_failed_sync_is_not_acknowledged() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("profiles.redb");
    let (store, faults) = open(&path);
    store.write(append(0)).unwrap();
    faults.sync_fails.store(true, Ordering::Relaxed);
    let error = store.write(append(1)).unwrap_err();
    assert!(matches!(error, StoreError::Io { .. }), "{error:?}");
    faults.sync_fails.store(false, Ordering::Relaxed);
    // Whether it became durable is open; that a retry makes it so exactly once is not.
    let before = store.profile("u").unwrap().revision;
    assert!((1..=2).contains(&before));
    assert_eq!(store.write(append(1)).unwrap().revision, 2);
    assert_eq!(store.profile("u").unwrap().events.len(), 200);
}

#[test]
fn a_disk_that_comes_back_is_used_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("profiles.redb");
    let (store, faults) = open(&path);
    store.write(append(0)).unwrap();
    faults.sync_fails.store(true, Ordering::Relaxed);
    faults.open_fails.store(true, Ordering::Relaxed);
    assert!(matches!(store.write(append(1)), Err(StoreError::Io { .. })));
    assert!(matches!(store.profile("u"), Err(StoreError::Io { .. })));
    assert!(matches!(store.write(append(1)), Err(StoreError::Io { .. })));
    faults.sync_fails.store(false, Ordering::Relaxed);
    faults.open_fails.store(false, Ordering::Relaxed);
    assert_eq!(store.profile("u").unwrap().events.len() % 100, 0);
    store.write(append(1)).unwrap();
    assert_eq!(store.profile("u").unwrap().revision, 2);
}
