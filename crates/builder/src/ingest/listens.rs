//! Listening logs: rows to columns of ordinals.

use std::path::{Path, PathBuf};

use super::error::IngestError;
use super::fields;
use super::log::{Listen, Log};
use super::options::{Field, ReadOptions};
use super::records::{Records, Room, Sorter, sorter};
use super::sorted::SortedLog;
use super::table::{self, Before, ProgressFn, Reading, Refused, Row, Sink};
use super::value::{self, MAX_COUNT, MAX_ID_BYTES, MAX_NAME_BYTES, Value};
use crate::Dictionary;

/// Reads listening logs, several files as one, in the order given.
///
/// A file is delimited text (plain, gzip or zstd) or Parquet, recognised by its content; see
/// [`ReadOptions`] for what can be said about it. A user and an item are required; counts, times,
/// contexts, sessions, artists and titles are read where they are. A row with a count of 0 is
/// counted in the report and dropped.
///
/// O(bytes) time; memory is that of the [`Log`] plus about a megabyte.
///
/// # Errors
/// [`IngestError`] names the file and, where there is one, the line or row.
pub fn read_listens(
    paths: &[PathBuf],
    options: &ReadOptions,
    progress: ProgressFn<'_>,
) -> Result<Log, IngestError> {
    let mut sink = Listens::default();
    sink.read(paths, options, progress)?;
    Ok(sink.log)
}

/// As [`read_listens`], but sorted, in bounded memory: the ids, and of the listens what `room` allows.
/// Contexts and sessions are kept if they are `labelled`: rules of exclusion ask for them.
///
/// # Errors
/// Those of [`read_listens`], and a file for what does not fit that cannot be written.
pub fn read_sorted(
    paths: &[PathBuf],
    options: &ReadOptions,
    labelled: bool,
    room: Room,
    progress: ProgressFn<'_>,
) -> Result<SortedLog, IngestError> {
    let mut sink = Listens::to_sort(labelled, room);
    sink.read(paths, options, progress)?;
    let (names, records) = sink.into_sorted()?;
    Ok(SortedLog::new(names, records))
}

/// Takes rows to the columns of a log, or to be sorted.
#[derive(Default)]
pub(crate) struct Listens {
    log: Log,
    sorted: Option<Sorted>,
    kept: u64,
    files: usize,
    /// Of the last row that was kept: a log often has one user's rows together.
    last_user: u32,
    ahead: Ahead,
}

/// What the ids of the rows that come next may be. Only a guess: rows may come that were not announced.
#[derive(Default)]
struct Ahead {
    users: Vec<u32>,
    items: Vec<u32>,
    at: usize,
}

struct Sorted {
    labelled: bool,
    room: Room,
    /// From the first file on, which says whether there are times.
    sorter: Option<Box<dyn Sorter>>,
}

impl Listens {
    /// For listens that are sorted.
    pub(crate) fn to_sort(labelled: bool, room: Room) -> Self {
        Self {
            sorted: Some(Sorted {
                labelled,
                room,
                sorter: None,
            }),
            ..Self::default()
        }
    }

    /// The same after listens that were sorted before, with or without times, whose names these are.
    pub(crate) fn to_sort_on(names: Log, times: bool, labelled: bool, room: Room) -> Self {
        let sorter = sorter(times, labelled, &room);
        Self {
            log: names,
            files: 1,
            kept: 1,
            sorted: Some(Sorted {
                labelled,
                room,
                sorter: Some(sorter),
            }),
            ..Self::default()
        }
    }

    /// The names, and the listens that were read, sorted.
    pub(crate) fn into_sorted(self) -> Result<(Log, Box<dyn Records>), IngestError> {
        let sorter = self.sorted.and_then(|sorted| sorted.sorter);
        let records = sorter.ok_or(IngestError::NoFiles)?.finish();
        let records = records.map_err(|source| IngestError::Spill { source })?;
        Ok((self.log, records))
    }

    fn read(
        &mut self,
        paths: &[PathBuf],
        options: &ReadOptions,
        progress: ProgressFn<'_>,
    ) -> Result<(), IngestError> {
        self.log.report = self
            .read_after(Before::default(), paths, options, progress)?
            .report;
        Ok(())
    }

    /// Reads the files after what was read of them before.
    pub(crate) fn read_after(
        &mut self,
        before: Before,
        paths: &[PathBuf],
        options: &ReadOptions,
        progress: ProgressFn<'_>,
    ) -> Result<Reading, IngestError> {
        let reading = table::read_after(before, paths, fields::LISTENS, options, progress, self)?;
        let report = &reading.report;
        if let (0, Some(first)) = (self.kept, paths.first()) {
            return Err(IngestError::NoListens {
                path: first.clone(),
                rows: report.rows,
                zero_counts: report.zero_counts,
                bad_rows: report.bad_rows,
            });
        }
        Ok(reading)
    }
}

impl Sink for Listens {
    fn begin(&mut self, path: &Path, present: &[bool]) -> Result<(), IngestError> {
        let has = |wanted| {
            fields::LISTENS
                .iter()
                .zip(present)
                .any(|(spec, &here)| here && spec.field == wanted)
        };
        let log = &mut self.log;
        if self.files == 0 {
            log.time_us = has(Field::Time).then(Vec::new);
            if let Some(sorted) = &mut self.sorted {
                let sorter = sorter(has(Field::Time), sorted.labelled, &sorted.room);
                sorted.sorter = Some(sorter);
            }
        } else if log.time_us.is_some() != has(Field::Time) {
            return Err(IngestError::MixedTimes {
                path: path.to_owned(),
                has: has(Field::Time),
            });
        }
        let before = log.user.len();
        for (field, column) in [
            (Field::Context, &mut log.context),
            (Field::Session, &mut log.session),
        ] {
            if has(field) && column.is_none() {
                *column = Some(vec![Log::NONE; before]);
            }
        }
        self.files += 1;
        Ok(())
    }

    fn look_ahead(&mut self, rows: &[Row<'_>]) {
        let ids = |slot: usize| {
            rows.iter().map(move |row| match row.values[slot] {
                Value::Text(bytes) => bytes,
                _ => b"",
            })
        };
        self.log.users.guess(ids(0), &mut self.ahead.users);
        self.log.items.guess(ids(1), &mut self.ahead.items);
        self.ahead.at = 0;
    }

    fn row(&mut self, values: &[Value<'_>]) -> Result<(), Refused> {
        // In the order of `fields::LISTENS`. Everything is checked before anything is kept.
        let &[user, item, count, time, context, session, artist, title] = values else {
            return Err(Refused::Bad(value::Problem::Width {
                found: values.len(),
                expected: fields::LISTENS.len(),
            }));
        };
        let guess = |guesses: &[u32]| guesses.get(self.ahead.at).copied();
        let (guessed_user, guessed_item) = (guess(&self.ahead.users), guess(&self.ahead.items));
        self.ahead.at += 1;
        let log = &mut self.log;
        let count = match count {
            Value::Missing => 1.0,
            given => value::number(Field::Count, given, MAX_COUNT)?,
        };
        #[expect(clippy::cast_possible_truncation, reason = "counts are rounded to f32")]
        let count = count as f32;
        let time = match &log.time_us {
            Some(_) => Some(value::time_us(Field::Time, time)?),
            None => None,
        };
        let user = Id::guessed(&log.users, user, guessed_user)
            .or_else(|| Id::guessed(&log.users, user, Some(self.last_user)))
            .map_or_else(|| Id::known(&log.users, Field::User, user), Ok)?;
        let item = Id::guessed(&log.items, item, guessed_item)
            .map_or_else(|| Id::known(&log.items, Field::Item, item), Ok)?;
        let context = Id::optional(&log.contexts, Field::Context, context)?;
        let session = Id::optional(&log.sessions, Field::Session, session)?;
        let artist = name(Field::Artist, artist)?;
        let title = name(Field::Title, title)?;
        if count == 0.0 {
            return Err(Refused::Zero);
        }

        let user = user.keep(&mut log.users, Field::User)?;
        if artist.is_some() || title.is_some() {
            let id = item.text(&log.items);
            let known = log.described.entry(id).ok_or(Refused::Full(Field::Item))?;
            for (known, given) in [(&mut known.artist, artist), (&mut known.title, title)] {
                if let (true, Some(given)) = (known.is_empty(), given) {
                    given.clone_into(known);
                }
            }
        }
        let item = item.keep(&mut log.items, Field::Item)?;
        let labelled = self.sorted.as_ref().is_none_or(|sorted| sorted.labelled);
        let label = |label: Option<Id<'_>>, names, field| match label {
            Some(label) if labelled => label.keep(names, field).map(Some),
            _ => Ok(None),
        };
        let listen = Listen {
            user,
            item,
            count,
            time_us: time,
            context: label(context, &mut log.contexts, Field::Context)?,
            session: label(session, &mut log.sessions, Field::Session)?,
        };
        self.kept += 1;
        self.last_user = user;
        match self
            .sorted
            .as_mut()
            .and_then(|sorted| sorted.sorter.as_mut())
        {
            Some(sorter) => sorter.push(listen).map_err(Refused::Spill),
            None => {
                log.push(listen);
                Ok(())
            }
        }
    }
}

/// A checked id: known already, or fit to be added.
enum Id<'a> {
    Known(u32),
    New(&'a str),
}

impl<'a> Id<'a> {
    /// The id that was guessed, if that is what is given.
    fn guessed(dictionary: &Dictionary, value: Value<'a>, guess: Option<u32>) -> Option<Self> {
        let Value::Text(bytes) = value else {
            return None;
        };
        let guess = guess?;
        let known = dictionary.get(guess)?;
        (known.as_bytes() == bytes).then_some(Self::Known(guess))
    }

    /// Most ids were seen before, and need no second look.
    fn known(
        dictionary: &Dictionary,
        field: Field,
        value: Value<'a>,
    ) -> Result<Self, value::Problem> {
        let Value::Text(bytes) = value else {
            return Err(value::Problem::Empty(field));
        };
        match dictionary.ordinal_of_bytes(bytes) {
            Some(ordinal) => Ok(Self::Known(ordinal)),
            None => value::text(field, bytes, MAX_ID_BYTES).map(Self::New),
        }
    }

    fn optional(
        dictionary: &Dictionary,
        field: Field,
        value: Value<'a>,
    ) -> Result<Option<Self>, value::Problem> {
        match value {
            Value::Text(bytes) if !bytes.trim_ascii().is_empty() => {
                Self::known(dictionary, field, value).map(Some)
            }
            _ => Ok(None),
        }
    }

    fn text<'b>(&self, dictionary: &'b Dictionary) -> &'b str
    where
        'a: 'b,
    {
        match self {
            Self::Known(ordinal) => dictionary.get(*ordinal).unwrap_or_default(),
            Self::New(text) => text,
        }
    }

    fn keep(self, dictionary: &mut Dictionary, field: Field) -> Result<u32, Refused> {
        match self {
            Self::Known(ordinal) => Ok(ordinal),
            Self::New(text) => dictionary.insert(text).ok_or(Refused::Full(field)),
        }
    }
}

/// A name for people, `None` where it is missing or empty.
pub(super) fn name(field: Field, value: Value<'_>) -> Result<Option<&str>, value::Problem> {
    match value {
        Value::Text(bytes) if !bytes.trim_ascii().is_empty() => {
            value::text(field, bytes, MAX_NAME_BYTES).map(Some)
        }
        _ => Ok(None),
    }
}
