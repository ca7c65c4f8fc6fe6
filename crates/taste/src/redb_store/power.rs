//! Power cuts: what was written since the last sync is on the disk in part, in any order, torn.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use redb::{Database, StorageBackend};

use super::open::{claim, classify};
use super::{RedbStore, StoreOptions};
use crate::event::{Event, EventKind};
use crate::store::{ProfileStore, Write};

/// What a disk writes whole or not at all.
const SECTOR: usize = 512;

/// A disk in memory that knows what a power cut may leave of it.
#[derive(Debug, Default)]
struct Disk {
    /// What is there while the power is on.
    now: Vec<u8>,
    /// What is there for sure after a cut.
    synced: Vec<u8>,
    /// Writes since then: where, and what.
    loose: Vec<(usize, Vec<u8>)>,
    /// The cuts are counted: writes of a handle from before one go nowhere.
    cuts: u64,
}

impl Disk {
    /// Cuts the power: of the loose writes each sector is there or not.
    fn cut(&mut self, random: &mut impl FnMut() -> u64) {
        let mut left = std::mem::take(&mut self.synced);
        for (offset, data) in std::mem::take(&mut self.loose) {
            for (at, sector) in (offset..).step_by(SECTOR).zip(data.chunks(SECTOR)) {
                if random().is_multiple_of(2) {
                    continue;
                }
                if left.len() < at + sector.len() {
                    left.resize(at + sector.len(), 0);
                }
                left[at..at + sector.len()].copy_from_slice(sector);
            }
        }
        self.now.clone_from(&left);
        self.synced = left;
        self.cuts += 1;
    }
}

/// An open file on the disk.
#[derive(Debug)]
struct Handle {
    disk: Arc<Mutex<Disk>>,
    cuts: u64,
}

impl Handle {
    fn disk(&self) -> io::Result<MutexGuard<'_, Disk>> {
        let disk = self.disk.lock().unwrap();
        match disk.cuts == self.cuts {
            true => Ok(disk),
            false => Err(io::Error::other("the power is off")),
        }
    }
}

impl StorageBackend for Handle {
    fn len(&self) -> io::Result<u64> {
        Ok(self.disk()?.now.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let disk = self.disk()?;
        let from = usize::try_from(offset).unwrap();
        let there = disk.now.get(from..from + out.len());
        out.copy_from_slice(there.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut disk = self.disk()?;
        let len = usize::try_from(len).unwrap();
        disk.now.resize(len, 0);
        // Kept simple and hard: the length is there at once, what is in it is not.
        disk.synced.resize(len, 0);
        disk.loose
            .retain(|(offset, data)| offset + data.len() <= len);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut disk = self.disk()?;
        let Disk {
            now, synced, loose, ..
        } = &mut *disk;
        synced.clone_from(now);
        loose.clear();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut disk = self.disk()?;
        let at = usize::try_from(offset).unwrap();
        disk.now[at..at + data.len()].copy_from_slice(data);
        disk.loose.push((at, data.to_vec()));
        Ok(())
    }
}

fn open(disk: &Arc<Mutex<Disk>>) -> RedbStore {
    let disk = Arc::clone(disk);
    let open = move || {
        let handle = Handle {
            cuts: disk.lock().unwrap().cuts,
            disk: Arc::clone(&disk),
        };
        let path = Path::new("disk");
        let database = Database::builder()
            .create_with_backend(handle)
            .map_err(|error| classify(error, path))?;
        claim(&database, path)?;
        Ok(database)
    };
    RedbStore::start("disk".into(), &StoreOptions::default(), Box::new(open)).unwrap()
}

fn append(user: usize, n: u64) -> Write {
    let event = |half: u64| Event {
        event_id: format!("{n}-{half}"),
        item: format!("i{}", n % 50),
        time_us: 0,
        kind: EventKind::Play,
        played_ms: None,
        context: Some("c".repeat(1 + usize::try_from(n % 100).unwrap())),
        session: None,
        count: 1,
    };
    Write::Append {
        user: format!("u{user}"),
        events: (0..1 + n % 20).map(event).collect(),
    }
}

/// Writers run, the power is cut at any moment, the store is opened on what is left: everything that was
/// acknowledged is there, whole; nothing is there by half; nothing comes twice when it is repeated.
#[test]
fn power_cuts_with_torn_pages_lose_nothing_that_was_acknowledged() {
    const USERS: usize = 3;
    let mut state = 7u64;
    let mut random = move || {
        // SplitMix64 (Steele, Lea and Flood, 2014).
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    let disk = Arc::new(Mutex::new(Disk::default()));
    drop(open(&disk));
    // Acknowledged writes of each user.
    let mut acknowledged = [0u64; USERS];
    for cut in 0..60 {
        let store = open(&disk);
        for (user, acknowledged) in acknowledged.iter_mut().enumerate() {
            let profile = store.profile(&format!("u{user}")).unwrap();
            let at_least = *acknowledged;
            assert!(
                profile.revision >= at_least,
                "cut {cut}: {user} lost a write"
            );
            let events: u64 = (0..profile.revision).map(|n| 1 + n % 20).sum();
            assert_eq!(
                profile.events.len() as u64,
                events,
                "cut {cut}: a write by half"
            );
            // What was in flight may have made it: repeated, it is no second one.
            if profile.revision > at_least {
                let receipt = store.write(append(user, at_least)).unwrap();
                assert_eq!((receipt.revision, receipt.appended), (profile.revision, 0));
            }
            *acknowledged = profile.revision;
        }
        // At most one write of a user is in flight when the power goes.
        let until = usize::try_from(random() % 12).unwrap();
        let store = &store;
        let mut in_flight = Vec::new();
        for user in (0..USERS).cycle().take(until) {
            let next = acknowledged[user];
            store.write(append(user, next)).unwrap();
            acknowledged[user] += 1;
        }
        for (user, &next) in acknowledged.iter().enumerate() {
            let (outcome, wait) = std::sync::mpsc::channel();
            let write = append(user, next);
            let done = move |result: Result<_, _>| outcome.send(result.is_ok()).unwrap();
            store.submit(write, Box::new(done));
            in_flight.push((user, wait));
        }
        for _ in 0..random() % 2_000 {
            std::hint::spin_loop();
        }
        disk.lock().unwrap().cut(&mut random);
        for (user, wait) in in_flight {
            if wait.recv().unwrap() {
                acknowledged[user] += 1;
            }
        }
    }
    assert!(acknowledged.iter().sum::<u64>() > 200, "{acknowledged:?}");
}
