//! Item attributes and lists of ids.

use std::path::{Path, PathBuf};

use super::error::IngestError;
use super::fields;
use super::items::Items;
use super::listens::name;
use super::options::{Field, ReadOptions};
use super::report::ReadReport;
use super::table::{self, ProgressFn, Refused, Sink};
use super::value::{self, MAX_ID_BYTES, Problem, Value};
use crate::Dictionary;

/// The longest item that is believed, in milliseconds (about 49 days).
const MAX_DURATION_MS: f64 = u32::MAX as f64;
/// The most tags of one item.
pub const MAX_TAGS: usize = 256;

/// Reads item attributes: an id and, where they are, title, artist, tags (`a|b`, or a row each),
/// release time, duration in milliseconds and whether the item is blocked.
///
/// The first title, artist, time and duration of an item win; tags add up; blocked stays blocked.
///
/// # Errors
/// [`IngestError`], as for listens.
pub fn read_items(
    paths: &[PathBuf],
    options: &ReadOptions,
    progress: ProgressFn<'_>,
) -> Result<(Items, ReadReport), IngestError> {
    let mut sink = ItemRows::default();
    let report = table::read(paths, fields::ITEMS, options, progress, &mut sink)?;
    Ok((sink.items, report))
}

/// Reads a list of distinct ids, in order of first appearance.
///
/// # Errors
/// [`IngestError`], as for listens.
pub fn read_ids(
    paths: &[PathBuf],
    options: &ReadOptions,
    progress: ProgressFn<'_>,
) -> Result<(Dictionary, ReadReport), IngestError> {
    let mut sink = IdRows::default();
    let report = table::read(paths, fields::IDS, options, progress, &mut sink)?;
    Ok((sink.ids, report))
}

#[derive(Default)]
struct ItemRows {
    items: Items,
}

impl Sink for ItemRows {
    fn begin(&mut self, _: &Path, _: &[bool]) -> Result<(), IngestError> {
        Ok(())
    }

    fn row(&mut self, values: &[Value<'_>]) -> Result<(), Refused> {
        // In the order of `fields::ITEMS`.
        let &[id, title, artist, tags, release_time, duration, blocked] = values else {
            let expected = fields::ITEMS.len();
            return Err(Problem::Width {
                found: values.len(),
                expected,
            }
            .into());
        };
        let id = required_id(id)?;
        let title = name(Field::Title, title)?;
        let artist = name(Field::Artist, artist)?;
        let mut new_tags = Vec::new();
        if let Value::Text(bytes) = tags {
            for tag in bytes.split(|&byte| byte == b'|') {
                new_tags.extend(name(Field::Tags, Value::Text(tag))?);
            }
        }
        let release_time_s = match release_time {
            value if is_empty(value) => None,
            value => Some(value::time_us(Field::ReleaseTime, value)?.div_euclid(1_000_000)),
        };
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "number() keeps it within 0..=u32::MAX"
        )]
        let duration_ms = match duration {
            value if is_empty(value) => None,
            value => Some(value::number(Field::Duration, value, MAX_DURATION_MS)? as u32),
        };
        let blocked = flag(Field::Blocked, blocked)?;

        let item = self.items.entry(id).ok_or(Refused::Full(Field::Item))?;
        for (known, given) in [(&mut item.title, title), (&mut item.artist, artist)] {
            if let (true, Some(given)) = (known.is_empty(), given) {
                given.clone_into(known);
            }
        }
        for tag in new_tags {
            if !item.tags.iter().any(|known| known == tag) {
                if item.tags.len() == MAX_TAGS {
                    #[expect(clippy::cast_precision_loss, reason = "a few hundred")]
                    let limit = MAX_TAGS as f64;
                    let value = limit + 1.0;
                    return Err(Problem::TooLarge {
                        field: Field::Tags,
                        value,
                        limit,
                    }
                    .into());
                }
                item.tags.push(tag.to_owned());
            }
        }
        item.release_time_s = item.release_time_s.or(release_time_s);
        item.duration_ms = item.duration_ms.or(duration_ms);
        item.blocked |= blocked;
        Ok(())
    }
}

#[derive(Default)]
struct IdRows {
    ids: Dictionary,
}

impl Sink for IdRows {
    fn begin(&mut self, _: &Path, _: &[bool]) -> Result<(), IngestError> {
        Ok(())
    }

    fn row(&mut self, values: &[Value<'_>]) -> Result<(), Refused> {
        let id = required_id(values.first().copied().unwrap_or(Value::Missing))?;
        self.ids
            .insert(id)
            .map(|_| ())
            .ok_or(Refused::Full(Field::Item))
    }
}

fn required_id(value: Value<'_>) -> Result<&str, Problem> {
    match value {
        Value::Text(bytes) => value::text(Field::Item, bytes, MAX_ID_BYTES),
        _ => Err(Problem::Empty(Field::Item)),
    }
}

fn is_empty(value: Value<'_>) -> bool {
    match value {
        Value::Missing => true,
        Value::Text(bytes) => bytes.trim_ascii().is_empty(),
        Value::Integer(_) | Value::Float(_) | Value::TimeUs(_) => false,
    }
}

fn flag(field: Field, value: Value<'_>) -> Result<bool, Problem> {
    let Value::Text(bytes) = value else {
        return Ok(false);
    };
    match bytes.trim_ascii().to_ascii_lowercase().as_slice() {
        b"" | b"0" | b"false" | b"no" | b"f" | b"n" => Ok(false),
        b"1" | b"true" | b"yes" | b"t" | b"y" => Ok(true),
        _ => Err(Problem::NotOneOf {
            field,
            value: value::excerpt(bytes),
            allowed: "true, false, yes, no, 1, 0",
        }),
    }
}
