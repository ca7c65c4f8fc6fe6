//! Writing the items of a version.

use std::collections::HashMap;
use std::path::Path;

use super::lists::Lists;
use super::strings::{Dictionary, StringTable};
use super::{NO_TIME, NONE, PARAMS_VERSION, Params};
use crate::digest::FileDigest;
use crate::section::{SectionWriter, WriteError};

/// Longest item id in bytes.
pub const MAX_ID_BYTES: usize = 128;
/// Longest title, artist or tag in bytes.
pub const MAX_TEXT_BYTES: usize = 1024;
/// Most tags an item can have.
pub const MAX_TAGS: usize = 256;

/// One item, for writing.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Item<'a> {
    /// 1 to [`MAX_ID_BYTES`] bytes, distinct.
    pub id: &'a str,
    /// Up to [`MAX_TEXT_BYTES`]; empty for none.
    pub title: &'a str,
    /// 1 to [`MAX_TEXT_BYTES`].
    pub artist: Option<&'a str>,
    /// Up to [`MAX_TAGS`], each of 1 to [`MAX_TEXT_BYTES`]; repeated ones count once.
    pub tags: &'a [&'a str],
    /// Seconds since 1970-01-01 UTC.
    pub release_time: Option<i64>,
    /// Distinct listeners in the training log: finite, 0 or more.
    pub popularity: f32,
    /// Milliseconds, below 2^32 - 1.
    pub duration_ms: Option<u32>,
    /// Must never be shown.
    pub blocked: bool,
}

/// Writes `items`, in the order of their ordinals, to a new file at `path`. O(n log n).
///
/// # Errors
/// [`WriteError::Duplicate`] and [`WriteError::BadValue`] name the item; see [`WriteError`].
pub fn write_items(path: &Path, items: &[Item<'_>]) -> Result<FileDigest, WriteError> {
    SectionWriter::write(path, |writer| add_items(writer, items))
}

/// Adds the sections of `items` to a file.
pub(crate) fn add_items(
    writer: &mut SectionWriter<'_>,
    items: &[Item<'_>],
) -> Result<(), WriteError> {
    let len = u32::try_from(items.len())
        .ok()
        .filter(|&len| len < NONE)
        .ok_or(WriteError::TooMany { what: "items" })?;
    for (at, item) in items.iter().enumerate() {
        check(item).map_err(|rule| WriteError::BadValue {
            what: "item",
            at,
            rule,
        })?;
    }
    let mut artists = Postings::default();
    let mut tags = Postings::default();
    let mut artist = Vec::with_capacity(items.len());
    let mut item_tags = Vec::with_capacity(items.len());
    let mut blocked = vec![0u8; items.len().div_ceil(8)];
    for (ordinal, item) in (0..len).zip(items) {
        artist.push(item.artist.map_or(NONE, |name| artists.add(name, ordinal)));
        let mut own: Vec<u32> = item
            .tags
            .iter()
            .map(|name| tags.add(name, ordinal))
            .collect();
        own.sort_unstable();
        own.dedup();
        item_tags.push(own);
        blocked[ordinal as usize / 8] |= u8::from(item.blocked) << (ordinal % 8);
    }
    // -0.0 + 0.0 is 0.0: the two are equal but sort differently.
    let popularity: Vec<f32> = items.iter().map(|item| item.popularity + 0.0).collect();
    let mut by_popularity: Vec<u32> = (0..len).collect();
    // Stable: equally popular items stay in the order of their ordinals.
    by_popularity.sort_by(|&a, &b| {
        let of = |ordinal: u32| popularity[ordinal as usize];
        of(b).total_cmp(&of(a))
    });
    let counts = Params {
        items: len,
        artists: artists.len()?,
        tags: tags.len()?,
    };
    let ids: Vec<&str> = items.iter().map(|item| item.id).collect();
    let release_time: Vec<i64> = items
        .iter()
        .map(|item| item.release_time.unwrap_or(NO_TIME))
        .collect();
    let duration_ms: Vec<u32> = items
        .iter()
        .map(|item| item.duration_ms.unwrap_or(NONE))
        .collect();

    writer.add_record("params", PARAMS_VERSION, &counts)?;
    Dictionary::write(writer, "ids", &ids)?;
    StringTable::write(writer, "titles", items.iter().map(|item| item.title))?;
    Dictionary::write(writer, "artists", &artists.names)?;
    Dictionary::write(writer, "tags", &tags.names)?;
    writer.add_array("artist", &artist)?;
    Lists::write(writer, "artist_items", &artists.items)?;
    Lists::write(writer, "item_tags", &item_tags)?;
    Lists::write(writer, "tag_items", &tags.items)?;
    writer.add_array("release_time", &release_time)?;
    writer.add_array("duration_ms", &duration_ms)?;
    writer.add_array("popularity", &popularity)?;
    writer.add_array("blocked", &blocked)?;
    writer.add_array("by_popularity", &by_popularity)
}

fn check(item: &Item<'_>) -> Result<(), &'static str> {
    let text = |text: &str| (1..=MAX_TEXT_BYTES).contains(&text.len());
    if !(1..=MAX_ID_BYTES).contains(&item.id.len()) {
        return Err("an id has 1 to 128 bytes");
    }
    if item.title.len() > MAX_TEXT_BYTES {
        return Err("a title has at most 1024 bytes");
    }
    if !item.artist.is_none_or(text) {
        return Err("an artist has 1 to 1024 bytes");
    }
    if item.tags.len() > MAX_TAGS || !item.tags.iter().all(|tag| text(tag)) {
        return Err("an item has at most 256 tags of 1 to 1024 bytes");
    }
    if !item.popularity.is_finite() || item.popularity < 0.0 {
        return Err("popularity is finite and not negative");
    }
    if item.duration_ms == Some(NONE) || item.release_time == Some(NO_TIME) {
        return Err("the largest duration and the earliest release time stand for none");
    }
    Ok(())
}

/// Names in the order of their first appearance, and the items of each.
#[derive(Default)]
struct Postings<'a> {
    by_name: HashMap<&'a str, u32>,
    names: Vec<&'a str>,
    items: Vec<Vec<u32>>,
}

impl<'a> Postings<'a> {
    fn add(&mut self, name: &'a str, item: u32) -> u32 {
        let next = u32::try_from(self.names.len()).unwrap_or(NONE);
        let number = *self.by_name.entry(name).or_insert(next);
        if number == next {
            self.names.push(name);
            self.items.push(Vec::new());
        }
        if let Some(items) = self.items.get_mut(number as usize)
            && items.last() != Some(&item)
        {
            items.push(item);
        }
        number
    }

    fn len(&self) -> Result<u32, WriteError> {
        u32::try_from(self.names.len())
            .ok()
            .filter(|&len| len < NONE)
            .ok_or(WriteError::TooMany {
                what: "artists or tags",
            })
    }
}
