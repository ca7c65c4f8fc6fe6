//! Compaction: the store written anew, so that free space holds nothing of what is gone.
//!
//! redb marks the pages of removed records as free and uses them again some time; until then their old
//! bytes are in the file. A new file holds live records only.

use std::path::{Path, PathBuf};

use redb::{Database, Durability, ReadTransaction, ReadableDatabase};

use super::open::{
    OpenStoreError, StoreOptions, claim, classify, contain, failure, sync_directory,
};
use super::tables::{TableError, Tables, floor, read_profile, users};
use crate::apply::{Records, Witnesses};
use crate::codec::UserRecord;
use crate::event::Event;

/// Records in one transaction of a compaction.
const RECORDS_PER_TRANSACTION: u64 = 50_000;

/// What a compaction leaves out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CompactOptions {
    /// Events before this instant, in microseconds of Unix time, but for those by which SERVE rules know
    /// their items. The profile of a listener who loses any goes to the next revision.
    pub drop_before_us: Option<i64>,
}

/// What a compaction did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CompactReport {
    /// Listeners.
    pub users: u64,
    /// Events kept.
    pub events: u64,
    /// Rules kept.
    pub rules: u64,
    /// Events left out.
    pub dropped: u64,
    /// Size of the file before.
    pub bytes_before: u64,
    /// Size of the file after.
    pub bytes_after: u64,
}

/// Writes the store at `path` anew. Nobody may have it open. The old file stays until the new one is
/// whole and on disk.
pub(super) fn compact(
    path: &Path,
    options: &CompactOptions,
) -> Result<CompactReport, OpenStoreError> {
    let io_error = |source| OpenStoreError::Io {
        path: path.to_owned(),
        source,
    };
    let bytes_before = fs_err::metadata(path).map_err(io_error)?.len();
    let mut staging = path.as_os_str().to_owned();
    staging.push(".compacting");
    let staging = PathBuf::from(staging);
    match fs_err::remove_file(&staging) {
        // Left by a crash.
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(io_error(error)),
    }
    let copied = contain(|| {
        // Held while the new file takes the place of the old: nobody opens it meanwhile.
        let old = super::open::open(path, &StoreOptions::default())?;
        let mut report = copy(&old, path, &staging, options)?;
        fs_err::rename(&staging, path).map_err(io_error)?;
        sync_directory(path).map_err(io_error)?;
        report.bytes_before = bytes_before;
        report.bytes_after = fs_err::metadata(path).map_err(io_error)?.len();
        Ok(report)
    });
    let done = copied.unwrap_or_else(|detail| {
        Err(OpenStoreError::Corrupt {
            path: path.to_owned(),
            detail,
        })
    });
    if done.is_err() {
        // The first failure is the one to tell.
        let _ = fs_err::remove_file(&staging);
    }
    done
}

fn copy(
    old: &Database,
    path: &Path,
    staging: &Path,
    options: &CompactOptions,
) -> Result<CompactReport, OpenStoreError> {
    let wrap = |error: TableError| match error {
        TableError::Storage(error) | TableError::Commit(error) => failure(error, path),
        refused => OpenStoreError::Corrupt {
            path: path.to_owned(),
            detail: crate::store::told(&refused.at(path)),
        },
    };
    let new = Database::builder()
        .create(staging)
        .map_err(|error| classify(error, path))?;
    claim(&new, path)?;
    let snapshot = old
        .begin_read()
        .map_err(|error| failure(error.into(), path))?;
    let everyone = users(&snapshot).map_err(wrap)?;
    let mut left = everyone.iter().peekable();
    let mut report = CompactReport::default();
    let mut first = true;
    while first || left.peek().is_some() {
        let mut batch = || -> Result<(), TableError> {
            let mut write = new.begin_write().map_err(redb::Error::from)?;
            write
                .set_durability(Durability::Immediate)
                .map_err(redb::Error::from)?;
            let mut tables = Tables::open(&write)?;
            if first {
                tables.raise_floor(floor(&snapshot)?)?;
            }
            let mut records = 0;
            while records < RECORDS_PER_TRANSACTION
                && let Some(user) = left.next()
            {
                records += copy_user(&snapshot, &mut tables, user, options, &mut report)?;
            }
            drop(tables);
            write
                .commit()
                .map_err(|error| TableError::Commit(error.into()))
        };
        batch().map_err(wrap)?;
        first = false;
    }
    Ok(report)
}

/// Copies a listener; the number of their records.
fn copy_user(
    snapshot: &ReadTransaction,
    tables: &mut Tables<'_>,
    user: &str,
    options: &CompactOptions,
    report: &mut CompactReport,
) -> Result<u64, TableError> {
    let profile = read_profile(snapshot, user)?;
    let old: UserRecord = super::tables::user_record(snapshot, user)?;
    let witnesses = Witnesses::of(&profile.rules);
    let stays = |event: &&Event| {
        options
            .drop_before_us
            .is_none_or(|before| event.time_us >= before || witnesses.has(event))
    };
    let events: Vec<&Event> = profile.events.iter().filter(stays).collect();
    let dropped = profile.events.len() - events.len();
    tables.change_events(user, &events, &[])?;
    for rule in &profile.rules {
        tables.put_rule(user, rule)?;
    }
    let count = |len: usize| u32::try_from(len).unwrap_or(u32::MAX);
    let record = UserRecord {
        revision: old.revision + u64::from(dropped > 0),
        events: count(events.len()),
        rules: count(profile.rules.len()),
        dropped: old.dropped + dropped as u64,
    };
    tables.put_user(user, &record)?;
    report.users += 1;
    report.events += events.len() as u64;
    report.rules += profile.rules.len() as u64;
    report.dropped += dropped as u64;
    Ok(1 + (events.len() + profile.rules.len()) as u64)
}
