//! Writing a generated log to files, as the reader reads them.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch, StringArray, TimestampMicrosecondArray, UInt32Array};
use parquet::arrow::ArrowWriter;

use super::Generated;

/// How to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Format {
    /// Comma separated, with a header.
    Csv,
    /// Parquet with timestamps, compressed by Snappy.
    Parquet,
}

/// Where a log was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// user_id, track_id, played_at (ms), context, session_id.
    pub listens: PathBuf,
    /// track_id, title, artist, tags, release_time (s), duration_ms.
    pub items: PathBuf,
}

/// Why a log could not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The source names the path.
    #[error("cannot write: {source}")]
    Io {
        /// What the system said.
        source: io::Error,
    },
    /// The Parquet writer failed.
    #[error("{}: {source}", path.display())]
    Parquet {
        /// The file.
        path: PathBuf,
        /// What the writer said.
        source: parquet::errors::ParquetError,
    },
}

impl Generated {
    /// Writes `listens` and `items` into a directory, which is created; each file appears whole or
    /// not at all, in place of one of the same name.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn write(&self, directory: &Path, format: Format) -> Result<Written, WriteError> {
        let extension = match format {
            Format::Csv => "csv",
            Format::Parquet => "parquet",
        };
        fs_err::create_dir_all(directory).map_err(io_error)?;
        let written = Written {
            listens: directory.join(format!("listens.{extension}")),
            items: directory.join(format!("items.{extension}")),
        };
        match format {
            Format::Csv => {
                whole(&written.listens, |file| {
                    self.listens_csv(file).map_err(io_error)
                })?;
                whole(&written.items, |file| {
                    self.items_csv(file).map_err(io_error)
                })?;
            }
            Format::Parquet => {
                let listens = self.listens_batch();
                whole(&written.listens, |file| {
                    parquet(&written.listens, file, listens)
                })?;
                let items = self.items_batch();
                whole(&written.items, |file| parquet(&written.items, file, items))?;
            }
        }
        Ok(written)
    }

    fn listens_csv(&self, file: &mut dyn Write) -> io::Result<()> {
        let mut csv = csv::Writer::from_writer(file);
        csv.write_record(["user_id", "track_id", "played_at", "context", "session_id"])?;
        let log = &self.log;
        for listen in log.listens() {
            let time_ms = listen.time_us.unwrap_or_default() / 1000;
            csv.write_record([
                log.users.get(listen.user).unwrap_or_default(),
                log.items.get(listen.item).unwrap_or_default(),
                &time_ms.to_string(),
                listen
                    .context
                    .and_then(|context| log.contexts.get(context))
                    .unwrap_or_default(),
                listen
                    .session
                    .and_then(|session| log.sessions.get(session))
                    .unwrap_or_default(),
            ])?;
        }
        csv.flush()
    }

    fn items_csv(&self, file: &mut dyn Write) -> io::Result<()> {
        let mut csv = csv::Writer::from_writer(file);
        csv.write_record([
            "track_id",
            "title",
            "artist",
            "tags",
            "release_time",
            "duration_ms",
        ])?;
        for (id, item) in self.items.iter() {
            csv.write_record([
                id,
                &item.title,
                &item.artist,
                &item.tags.join("|"),
                &item
                    .release_time_s
                    .map_or(String::new(), |time| time.to_string()),
                &item
                    .duration_ms
                    .map_or(String::new(), |duration| duration.to_string()),
            ])?;
        }
        csv.flush()
    }

    fn listens_batch(&self) -> Vec<(&'static str, ArrayRef)> {
        let log = &self.log;
        let users: StringArray = log
            .listens()
            .map(|listen| log.users.get(listen.user))
            .collect();
        let items: StringArray = log
            .listens()
            .map(|listen| log.items.get(listen.item))
            .collect();
        let times: TimestampMicrosecondArray = log.listens().map(|listen| listen.time_us).collect();
        let contexts: StringArray = log
            .listens()
            .map(|listen| listen.context.and_then(|context| log.contexts.get(context)))
            .collect();
        let sessions: StringArray = log
            .listens()
            .map(|listen| listen.session.and_then(|session| log.sessions.get(session)))
            .collect();
        vec![
            ("user_id", Arc::new(users)),
            ("track_id", Arc::new(items)),
            ("played_at", Arc::new(times)),
            ("context", Arc::new(contexts)),
            ("session_id", Arc::new(sessions)),
        ]
    }

    fn items_batch(&self) -> Vec<(&'static str, ArrayRef)> {
        let text = |of: &dyn Fn(&str, &crate::ingest::Attributes) -> String| -> ArrayRef {
            Arc::new(
                self.items
                    .iter()
                    .map(|(id, item)| Some(of(id, item)))
                    .collect::<StringArray>(),
            )
        };
        let releases: TimestampMicrosecondArray = self
            .items
            .iter()
            .map(|(_, item)| item.release_time_s.map(|time| time * 1_000_000))
            .collect();
        let durations: UInt32Array = self
            .items
            .iter()
            .map(|(_, item)| item.duration_ms)
            .collect();
        vec![
            ("track_id", text(&|id, _| id.to_owned())),
            ("title", text(&|_, item| item.title.clone())),
            ("artist", text(&|_, item| item.artist.clone())),
            ("tags", text(&|_, item| item.tags.join("|"))),
            ("release_time", Arc::new(releases)),
            ("duration_ms", Arc::new(durations)),
        ]
    }
}

fn parquet(
    path: &Path,
    file: &mut (dyn Write + Send),
    columns: Vec<(&'static str, ArrayRef)>,
) -> Result<(), WriteError> {
    let error = |source| WriteError::Parquet {
        path: path.to_owned(),
        source,
    };
    let batch = RecordBatch::try_from_iter_with_nullable(
        columns
            .into_iter()
            .map(|(name, column)| (name, column, true)),
    )
    .map_err(|source| error(source.into()))?;
    let properties = parquet::file::properties::WriterProperties::builder()
        .set_compression(parquet::basic::Compression::SNAPPY)
        .build();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties)).map_err(error)?;
    writer.write(&batch).map_err(error)?;
    writer.close().map_err(error)?;
    Ok(())
}

/// Writes to a name beside `path` and renames once all is on disk.
fn whole(
    path: &Path,
    write: impl FnOnce(&mut io::BufWriter<fs_err::File>) -> Result<(), WriteError>,
) -> Result<(), WriteError> {
    let mut staged = path.as_os_str().to_owned();
    staged.push(format!(".{}.partial", std::process::id()));
    let staged = PathBuf::from(staged);
    let outcome = fs_err::File::create(&staged)
        .map_err(io_error)
        .and_then(|file| {
            let mut file = io::BufWriter::with_capacity(1 << 16, file);
            write(&mut file)?;
            let file = file
                .into_inner()
                .map_err(|error| io_error(error.into_error()))?;
            file.sync_all().map_err(io_error)?;
            fs_err::rename(&staged, path).map_err(io_error)
        });
    if outcome.is_err() {
        // The first failure is the one to report; what is left behind has a telling name.
        let _ = fs_err::remove_file(&staged);
    }
    outcome
}

fn io_error(source: io::Error) -> WriteError {
    WriteError::Io { source }
}
