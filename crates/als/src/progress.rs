//! How far a training is.

use std::sync::atomic::{AtomicU64, Ordering};

/// Told how far a long job is.
pub trait Progress: Sync {
    /// `done` of `total` units of work are finished. Called from several threads; the last call has
    /// `done == total`, earlier ones may arrive out of order.
    fn advance(&self, done: u64, total: u64);
}

/// No one is told.
impl Progress for () {
    fn advance(&self, _done: u64, _total: u64) {}
}

/// Solved rows of all threads.
pub(crate) struct Counter<'a> {
    done: AtomicU64,
    total: u64,
    progress: &'a dyn Progress,
}

impl<'a> Counter<'a> {
    pub(crate) fn new(progress: &'a dyn Progress, done: u64, total: u64) -> Self {
        Self {
            done: AtomicU64::new(done),
            total,
            progress,
        }
    }

    pub(crate) fn add(&self, rows: usize) {
        let done = self.done.fetch_add(rows as u64, Ordering::Relaxed) + rows as u64;
        self.progress.advance(done, self.total);
    }
}
