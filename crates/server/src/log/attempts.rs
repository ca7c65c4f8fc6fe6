//! How many rows a writer was asked to write, in a file: what is left of it after a crash says how
//! many were lost.

use std::cell::Cell;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use refrain_bundle::Counters;

/// Threads count in slots of their own, so that they do not wait for each other.
const SLOTS: usize = 64;

#[derive(Debug)]
pub(super) struct Attempts(Counters);

impl Attempts {
    pub(super) fn create(path: &Path) -> std::io::Result<Self> {
        Counters::create(path, SLOTS).map(Self)
    }

    pub(super) fn count(&self, rows: u64) {
        self.0.add(slot(), rows);
    }

    pub(super) fn total(&self) -> u64 {
        self.0.total()
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
