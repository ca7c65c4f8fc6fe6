//! Bulk import: the same appends in large transactions.

use std::cell::Cell;

use super::Shared;
use super::writer::transact;
use crate::apply::append;
use crate::event::Event;
use crate::invalid::{InvalidField, Place};
use crate::store::StoreError;

/// Events per transaction: some 10 MB, so that a sync is rare and other writes still get their turn.
const EVENTS_PER_TRANSACTION: usize = 50_000;

/// What an import did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ImportReport {
    /// Listeners seen, counted again each time they come.
    pub users: u64,
    /// Events that were new.
    pub appended: u64,
    /// Events that were there already.
    pub duplicates: u64,
    /// Oldest events that had to go because a profile is full.
    pub dropped: u64,
    /// Transactions made durable.
    pub transactions: u64,
}

impl ImportReport {
    fn add(&mut self, other: &Self) {
        self.users += other.users;
        self.appended += other.appended;
        self.duplicates += other.duplicates;
        self.dropped += other.dropped;
        self.transactions += other.transactions;
    }
}

/// Why an import ended early. What earlier transactions made durable stays.
#[derive(Debug, thiserror::Error)]
#[error("listener {position} of the import ({user:?}) was not taken")]
pub struct ImportError {
    /// Position of the listener in what was given, from 0.
    pub position: u64,
    /// The listener.
    pub user: String,
    /// What was done before.
    pub done: ImportReport,
    /// Why.
    pub source: StoreError,
}

pub(super) fn import<I>(shared: &Shared, profiles: I) -> Result<ImportReport, ImportError>
where
    I: IntoIterator<Item = (String, Vec<Event>)>,
{
    let mut done = ImportReport::default();
    let mut profiles = profiles.into_iter();
    loop {
        let mut batch = Vec::new();
        let mut events = 0;
        while events < EVENTS_PER_TRANSACTION
            && let Some(profile) = profiles.next()
        {
            events += profile.1.len();
            batch.push(profile);
        }
        if batch.is_empty() {
            return Ok(done);
        }
        let first = done.users;
        import_batch(shared, &batch, &mut done).map_err(|(at, source)| ImportError {
            position: first + at as u64,
            user: batch
                .get(at)
                .map(|(user, _)| user.clone())
                .unwrap_or_default(),
            done,
            source,
        })?;
    }
}

/// Takes a batch of listeners in one transaction, all or none; adds to `done` what was done, or
/// tells which listener could not be taken.
fn import_batch(
    shared: &Shared,
    batch: &[(String, Vec<Event>)],
    done: &mut ImportReport,
) -> Result<(), (usize, StoreError)> {
    for (at, (user, events)) in batch.iter().enumerate() {
        validate(user, events).map_err(|invalid| (at, invalid.into()))?;
    }
    let at = Cell::new(0);
    let max_events = shared.options.max_events_per_user;
    let report = shared.with_database(|database| {
        transact(database, shared, |tables| {
            let mut report = ImportReport {
                transactions: 1,
                ..ImportReport::default()
            };
            for (position, (user, events)) in batch.iter().enumerate() {
                at.set(position);
                let receipt = append(tables, user, events, max_events)?;
                report.add(&ImportReport {
                    users: 1,
                    appended: receipt.appended.into(),
                    duplicates: receipt.duplicates.into(),
                    dropped: receipt.dropped.into(),
                    transactions: 0,
                });
            }
            Ok(report)
        })
    });
    shared.forget(batch.iter().map(|(user, _)| user.as_str()));
    done.add(&report.map_err(|error| (at.get(), error))?);
    Ok(())
}

fn validate(user: &str, events: &[Event]) -> Result<(), InvalidField> {
    Place::Write.id("user_id", user)?;
    events
        .iter()
        .enumerate()
        .try_for_each(|(at, event)| event.validate(at))
}
