//! The writer thread: group commit.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;

use redb::{Database, Durability};

use super::Shared;
use super::tables::{TableError, Tables};
use crate::apply;
use crate::queue::Pending;
use crate::store::{Receipt, StoreError, Write};

/// Writes until the queue is closed and empty.
pub(super) fn run(shared: &Shared, queue: &Receiver<Pending>) {
    while let Ok(first) = queue.recv() {
        // While one batch syncs the next one gathers, so nothing is gained by waiting for more.
        let more = queue.try_iter().take(shared.options.max_batch - 1);
        let batch: Vec<Pending> = std::iter::once(first).chain(more).collect();
        write_batch(shared, batch);
    }
}

/// Makes a batch durable, then tells everyone.
fn write_batch(shared: &Shared, batch: Vec<Pending>) {
    let results = shared.with_database(|database| {
        transact(database, shared, |tables| {
            batch
                .iter()
                .map(|pending| apply(tables, &pending.write, shared))
                .collect()
        })
    });
    // Before the acknowledgements, and after a failure too: what failed to sync may still be there.
    shared.forget(batch.iter().map(|pending| pending.write.user()));
    let mut results = results.map(Vec::into_iter);
    for Pending { done, cost, .. } in batch {
        shared.waiting.fetch_sub(cost, Ordering::Relaxed);
        let result = match &mut results {
            Ok(results) => results.next().unwrap_or(Err(StoreError::Closed)),
            Err(error) => Err(error.clone()),
        };
        // A completion that panics is its owner's loss alone.
        let _ = catch_unwind(AssertUnwindSafe(|| done(result)));
    }
}

/// Applies one write of a batch. The inner error refuses this write alone, the outer one ends the
/// batch.
fn apply(
    tables: &mut Tables<'_>,
    write: &Write,
    shared: &Shared,
) -> Result<Result<Receipt, StoreError>, TableError> {
    match apply::apply(tables, write, shared.options.max_events_per_user) {
        Ok(receipt) => Ok(Ok(receipt)),
        Err(error) if error.is_storage_failure() => Err(error),
        Err(error) => Ok(Err(error.at(&shared.path))),
    }
}

/// Runs changes in one transaction, which is on disk when this returns. Without a change there is
/// nothing to sync.
pub(super) fn transact<T>(
    database: &Database,
    shared: &Shared,
    change: impl FnOnce(&mut Tables<'_>) -> Result<T, TableError>,
) -> Result<T, TableError> {
    let mut transaction = database.begin_write().map_err(redb::Error::from)?;
    transaction
        .set_durability(Durability::Immediate)
        .map_err(redb::Error::from)?;
    transaction.set_quick_repair(shared.options.quick_repair);
    let mut tables = Tables::open(&transaction)?;
    let result = change(&mut tables)?;
    let changed = tables.changed();
    drop(tables);
    if changed {
        transaction
            .commit()
            .map_err(|error| TableError::Commit(error.into()))?;
    } else {
        transaction.abort().map_err(redb::Error::from)?;
    }
    Ok(result)
}
