//! What both stores' writers take from their queues.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::store::{Done, StoreError, Write};

/// A write that waits for its writer.
pub(crate) struct Pending {
    pub(crate) write: Write,
    pub(crate) done: Done,
    /// What it was counted as by [`admit`].
    pub(crate) cost: usize,
}

/// Counts a write in among those and their events that wait, or refuses it when that is too much.
pub(crate) fn admit(
    waiting: &AtomicUsize,
    write: &Write,
    most: usize,
) -> Result<usize, StoreError> {
    let cost = match write {
        Write::Append { events, .. } => 1 + events.len(),
        Write::CreateRule { .. } | Write::DeleteRule { .. } | Write::Erase { .. } => 1,
    };
    let before = waiting.fetch_add(cost, Ordering::Relaxed);
    if before.saturating_add(cost) > most {
        waiting.fetch_sub(cost, Ordering::Relaxed);
        return Err(StoreError::Busy);
    }
    Ok(cost)
}
