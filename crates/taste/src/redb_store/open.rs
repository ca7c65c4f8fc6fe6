//! Opening: options, the checks of a file, the errors.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::{Database, DatabaseError, ReadableDatabase, StorageError, TableHandle};

use super::tables::{FORMAT, FORMAT_KEY, FORMAT_VERSION, Tables};
use crate::store::StoreError;

/// How a store is run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreOptions {
    /// Memory for cached profiles, in bytes.
    pub cache_bytes: u64,
    /// Memory for cached pages of the file, in bytes.
    pub page_cache_bytes: usize,
    /// Writes and their events that may wait; more are refused as busy. At least 1,001, so that the
    /// largest append fits.
    pub max_waiting: usize,
    /// Writes that may share a transaction, at least 1.
    pub max_batch: usize,
    /// Events that a profile may hold, 1 to 1,000,000. When an append exceeds it, the profile is cut
    /// to 15/16 of it, so that a full profile is not cut again at every append: first the oldest
    /// plays, completes and skips go, then the oldest likes, unlikes, saves and hides.
    pub max_events_per_user: u32,
    /// Whether every commit also saves what makes opening after a crash instant. Costs a second
    /// sync per commit; without it a crash is followed by a read of the whole file.
    pub quick_repair: bool,
    /// Whether opening verifies the checksum of every page, which reads the whole file; without it
    /// damage shows when a record is read. After a crash opening does it anyway.
    pub verify_on_open: bool,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            cache_bytes: 256 << 20,
            page_cache_bytes: 256 << 20,
            max_waiting: 65_536,
            max_batch: 1_024,
            max_events_per_user: 10_000,
            quick_repair: false,
            verify_on_open: false,
        }
    }
}

impl StoreOptions {
    pub(super) fn validate(&self) -> Result<(), InvalidOption> {
        let check = |option, value: u64, min, max| match (min..=max).contains(&value) {
            true => Ok(()),
            false => Err(InvalidOption {
                option,
                value,
                min,
                max,
            }),
        };
        check("max_waiting", self.max_waiting as u64, 1_001, 1 << 32)?;
        check("max_batch", self.max_batch as u64, 1, 1 << 20)?;
        check(
            "max_events_per_user",
            u64::from(self.max_events_per_user),
            1,
            1_000_000,
        )
    }
}

/// An option out of its bounds.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{option}: {value} is outside {min} to {max}")]
pub struct InvalidOption {
    /// The option.
    pub option: &'static str,
    /// Its value.
    pub value: u64,
    /// The smallest allowed.
    pub min: u64,
    /// The largest allowed.
    pub max: u64,
}

/// Why a store was not opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenStoreError {
    /// An option is out of its bounds.
    #[error(transparent)]
    Option(#[from] InvalidOption),
    /// The file is open already, by this or another process.
    #[error("{path}: the profile store is in use by another process")]
    Locked {
        /// The file.
        path: PathBuf,
    },
    /// The file exists and is something else. It was not changed.
    #[error("{path}: this file is not a profile store")]
    NotAStore {
        /// The file.
        path: PathBuf,
    },
    /// The file was written by a later version of the program.
    #[error("{path}: profile store of format {format}, this program knows up to {FORMAT_VERSION}")]
    Format {
        /// The file.
        path: PathBuf,
        /// The format of the file.
        format: u64,
    },
    /// The file is damaged.
    #[error("{path}: the profile store is damaged: {detail}")]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What was found.
        detail: String,
    },
    /// The file cannot be read, written or made.
    #[error("{path}: cannot open the profile store")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The database refused for another reason.
    #[error("{path}: cannot open the profile store")]
    Database {
        /// The file.
        path: PathBuf,
        /// What it said.
        source: Box<redb::Error>,
    },
}

impl OpenStoreError {
    /// As an error of the operation during which a store had to be opened again.
    pub(super) fn after_opening(self, path: &Path) -> StoreError {
        StoreError::Io {
            path: path.to_owned(),
            source: Arc::new(self),
        }
    }
}

/// Opens the file, or creates it where nothing is.
pub(super) fn open(path: &Path, options: &StoreOptions) -> Result<Database, OpenStoreError> {
    let io_error = |source| OpenStoreError::Io {
        path: path.to_owned(),
        source,
    };
    match fs_err::metadata(path) {
        Ok(found) if found.len() > 0 => {}
        Ok(_) => create(path, options)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => create(path, options)?,
        Err(error) => return Err(io_error(error)),
    }
    open_file(path, path, options)
}

/// Makes an empty store appear whole: a crash while redb writes the first pages of a file leaves
/// one that nothing opens.
fn create(path: &Path, options: &StoreOptions) -> Result<(), OpenStoreError> {
    let mut staging = path.as_os_str().to_owned();
    staging.push(".creating");
    let staging = Path::new(&staging);
    let io_error = |source| OpenStoreError::Io {
        path: path.to_owned(),
        source,
    };
    match open_file(staging, path, options) {
        // Left by a crash; who is at it now would hold its lock.
        Err(OpenStoreError::NotAStore { .. } | OpenStoreError::Corrupt { .. }) => {
            fs_err::remove_file(staging).map_err(io_error)?;
            drop(open_file(staging, path, options)?);
        }
        made => drop(made?),
    }
    fs_err::rename(staging, path).map_err(io_error)?;
    sync_directory(path).map_err(io_error)
}

/// Opens a file; errors speak of `path`.
fn open_file(file: &Path, path: &Path, options: &StoreOptions) -> Result<Database, OpenStoreError> {
    let open = || {
        let database = Database::builder()
            .set_cache_size(options.page_cache_bytes)
            .set_check_integrity_on_open(options.verify_on_open)
            .create(file)
            .map_err(|error| classify(error, path))?;
        claim(&database, path)?;
        Ok(database)
    };
    contain(open).unwrap_or_else(|detail| {
        Err(OpenStoreError::Corrupt {
            path: path.to_owned(),
            detail,
        })
    })
}

/// Runs an operation of redb, which panics on some pages that it did not write; what it said then is
/// the error.
pub(super) fn contain<T>(operation: impl FnOnce() -> T) -> Result<T, String> {
    // What the operation has touched is not used again: the caller drops the handle.
    catch_unwind(AssertUnwindSafe(operation)).map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
            .unwrap_or_else(|| "the database panicked".to_owned())
    })
}

/// Checks that the database is a profile store of a known format, or makes it one when it is new.
pub(super) fn claim(database: &Database, path: &Path) -> Result<(), OpenStoreError> {
    let wrap = |error: redb::Error| failure(error, path);
    let read = database.begin_read().map_err(|error| wrap(error.into()))?;
    let tables: Vec<String> = read
        .list_tables()
        .map_err(|error| wrap(error.into()))?
        .map(|table| table.name().to_owned())
        .collect();
    if tables.iter().any(|name| name == FORMAT.name()) {
        let format = || -> Result<Option<u64>, redb::Error> {
            Ok(read
                .open_table(FORMAT)?
                .get(FORMAT_KEY)?
                .map(|format| format.value()))
        };
        return match format() {
            Ok(Some(FORMAT_VERSION)) => Ok(()),
            Ok(Some(format)) => Err(OpenStoreError::Format {
                path: path.to_owned(),
                format,
            }),
            Ok(None) | Err(redb::Error::TableTypeMismatch { .. }) => {
                Err(OpenStoreError::NotAStore {
                    path: path.to_owned(),
                })
            }
            Err(error) => Err(wrap(error)),
        };
    }
    if !tables.is_empty() {
        return Err(OpenStoreError::NotAStore {
            path: path.to_owned(),
        });
    }
    // One transaction makes all tables and the mark, so that no crash leaves a part of them.
    let create = || -> Result<(), redb::Error> {
        let write = database.begin_write()?;
        drop(Tables::open(&write)?);
        write
            .open_table(FORMAT)?
            .insert(FORMAT_KEY, FORMAT_VERSION)?;
        write.commit()?;
        Ok(())
    };
    create().map_err(wrap)
}

/// Makes the entry of a new file durable: a synced file that no directory names is lost.
pub(super) fn sync_directory(path: &Path) -> io::Result<()> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    fs_err::File::open(directory)?.sync_all()
}

pub(super) fn classify(error: DatabaseError, path: &Path) -> OpenStoreError {
    match error {
        DatabaseError::DatabaseAlreadyOpen => OpenStoreError::Locked {
            path: path.to_owned(),
        },
        DatabaseError::Storage(StorageError::Io(source))
            if source.kind() == io::ErrorKind::InvalidData =>
        {
            OpenStoreError::NotAStore {
                path: path.to_owned(),
            }
        }
        error => failure(error.into(), path),
    }
}

pub(super) fn failure(error: redb::Error, path: &Path) -> OpenStoreError {
    let path = path.to_owned();
    match error {
        redb::Error::Corrupted(detail) => OpenStoreError::Corrupt { path, detail },
        redb::Error::Io(source) => OpenStoreError::Io { path, source },
        error => OpenStoreError::Database {
            path,
            source: Box::new(error),
        },
    }
}
