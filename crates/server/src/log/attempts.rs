//! How many rows a writer was asked to write, in a file: what is left of it after a crash says how
//! many were lost.

use std::cell::Cell;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// Threads count in slots of their own, so that they do not wait for each other.
const SLOTS: usize = 64;

#[derive(Debug)]
pub(super) struct Attempts {
    file: fs_err::File,
    slots: Vec<Mutex<u64>>,
}

impl Attempts {
    /// All of the file is there before the first count: a full disk cannot stop it later.
    pub(super) fn create(path: &Path) -> std::io::Result<Self> {
        let file = fs_err::File::create(path)?;
        file.file().write_all_at(&[0; SLOTS * 8], 0)?;
        file.sync_all()?;
        let slots = (0..SLOTS).map(|_| Mutex::new(0)).collect();
        Ok(Self { file, slots })
    }

    /// Counts rows. The write goes to memory that the system keeps when the process dies.
    pub(super) fn count(&self, rows: u64) {
        let slot = slot();
        let Some(count) = self.slots.get(slot) else {
            return;
        };
        let mut count = count.lock().unwrap_or_else(PoisonError::into_inner);
        *count += rows;
        // A count that cannot be written is only lost with the process.
        let _ = self
            .file
            .file()
            .write_all_at(&count.to_le_bytes(), 8 * slot as u64);
    }

    pub(super) fn total(&self) -> u64 {
        let read = |slot: &Mutex<u64>| *slot.lock().unwrap_or_else(PoisonError::into_inner);
        self.slots.iter().map(read).sum()
    }

    /// What a writer that is gone had counted.
    pub(super) fn read(path: &Path) -> std::io::Result<u64> {
        let bytes = fs_err::read(path)?;
        let (slots, _) = bytes.as_chunks::<8>();
        let total = slots.iter().map(|slot| u64::from_le_bytes(*slot));
        Ok(total.fold(0, u64::saturating_add))
    }
}

fn slot() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static SLOT: Cell<Option<usize>> = const { Cell::new(None) };
    }
    SLOT.with(|slot| {
        slot.get().unwrap_or_else(|| {
            let mine = NEXT.fetch_add(1, Ordering::Relaxed) % SLOTS;
            slot.set(Some(mine));
            mine
        })
    })
}
