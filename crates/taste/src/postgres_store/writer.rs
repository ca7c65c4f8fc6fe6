//! A writer thread: group commit on PostgreSQL.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;

use super::Shared;
use super::connection::Connection;
use super::records::{PgError, Transaction};
use crate::apply;
use crate::queue::Pending;
use crate::store::{Receipt, StoreError, Write};

/// Writes until the queue is closed and empty.
pub(super) fn run(shared: &Shared, queue: &Receiver<Pending>) {
    let mut connection = None;
    while let Ok(first) = queue.recv() {
        // While one batch commits the next one gathers, so nothing is gained by waiting for more.
        let more = queue.try_iter().take(shared.options.max_batch.max(1) - 1);
        let batch: Vec<Pending> = std::iter::once(first).chain(more).collect();
        write_batch(shared, &mut connection, batch);
    }
}

/// Makes a batch durable, then tells everyone.
fn write_batch(shared: &Shared, connection: &mut Option<Connection>, batch: Vec<Pending>) {
    let results = attempt(shared, connection, &batch);
    // Before the acknowledgements, and after a failure too: what failed to commit may still be there.
    for pending in &batch {
        match &pending.write {
            Write::Erase { user } => shared.forget_erased(user),
            write => shared.forget(write.user()),
        }
    }
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

/// Applies a batch in one transaction. A connection that turns out to be gone before the commit is
/// replaced once: until then nothing can have happened. One that goes during the commit is an error, for
/// whether it happened is not known; whoever repeats a write finds out.
fn attempt(
    shared: &Shared,
    slot: &mut Option<Connection>,
    batch: &[Pending],
) -> Result<Vec<Result<Receipt, StoreError>>, StoreError> {
    let mut retried = false;
    loop {
        let mut connection = match slot.take() {
            Some(connection) => connection,
            None => open(shared).map_err(|error| error.at(&shared.place))?,
        };
        match transact(shared, &mut connection, batch) {
            Ok(results) => {
                *slot = Some(connection);
                return Ok(results);
            }
            // A broken transaction is rolled back by the end of its connection.
            Err(Failure::Before(error)) if error.is_disconnection() && !retried => retried = true,
            Err(Failure::Before(error) | Failure::Commit(error)) => {
                return Err(error.at(&shared.place));
            }
        }
    }
}

fn open(shared: &Shared) -> Result<Connection, PgError> {
    let mut connection = Connection::open(&shared.config)?;
    let row = connection
        .client
        .query_one("SELECT pg_backend_pid()", &[])?;
    shared.own().insert(row.try_get(0)?);
    Ok(connection)
}

enum Failure {
    /// Nothing was changed.
    Before(PgError),
    /// It may have been.
    Commit(PgError),
}

fn transact(
    shared: &Shared,
    connection: &mut Connection,
    batch: &[Pending],
) -> Result<Vec<Result<Receipt, StoreError>>, Failure> {
    let results = apply_all(shared, connection, batch).map_err(Failure::Before)?;
    let commit = connection.client.batch_execute("COMMIT");
    commit.map_err(|error| Failure::Commit(error.into()))?;
    Ok(results)
}

fn apply_all(
    shared: &Shared,
    connection: &mut Connection,
    batch: &[Pending],
) -> Result<Vec<Result<Receipt, StoreError>>, PgError> {
    connection
        .client
        .batch_execute("BEGIN ISOLATION LEVEL READ COMMITTED")?;
    let mut transaction = Transaction { connection };
    let users: Vec<&str> = batch.iter().map(|pending| pending.write.user()).collect();
    transaction.lock(&users)?;
    let mut results = Vec::with_capacity(batch.len());
    let mut news = Vec::new();
    for pending in batch {
        let most = shared.options.max_events_per_user;
        let result = match apply::apply(&mut transaction, &pending.write, most) {
            Ok(receipt) => {
                news.push(told(&pending.write));
                Ok(receipt)
            }
            Err(error) if error.is_refusal() => Err(error.at(&shared.place)),
            Err(error) => return Err(error),
        };
        results.push(result);
    }
    news.sort_unstable();
    news.dedup();
    transaction.notify(&shared.channel, &news)?;
    Ok(results)
}

/// What others are told of a write: what happened, and to whom.
fn told(write: &Write) -> String {
    let kind = match write {
        Write::Erase { .. } => 'e',
        Write::Append { .. } | Write::CreateRule { .. } | Write::DeleteRule { .. } => 'c',
    };
    let hex = write.user().bytes().map(|byte| format!("{byte:02x}"));
    std::iter::once(kind.to_string()).chain(hex).collect()
}

/// Keeps the listener of a notification readable: the other side of [`told`].
pub(super) fn understood(news: &str) -> Option<(bool, String)> {
    let (kind, hex) = news.split_at_checked(1)?;
    let bytes = (0..hex.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(hex.get(at..at + 2)?, 16).ok())
        .collect::<Option<Vec<u8>>>()?;
    Some((kind == "e", String::from_utf8(bytes).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn news_are_understood() {
        for user in ["u", "u\0", "é\u{10ffff}"] {
            let user = user.to_owned();
            let erase = Write::Erase { user: user.clone() };
            assert_eq!(understood(&told(&erase)), Some((true, user.clone())));
            let delete = Write::DeleteRule {
                user: user.clone(),
                rule_id: "r".to_owned(),
                allow_missing: true,
            };
            assert_eq!(understood(&told(&delete)), Some((false, user)));
        }
        for noise in ["", "c0", "czz", "é", "cff"] {
            assert_eq!(understood(noise), None, "{noise}");
        }
    }
}
