//! The items of a version: ids, attributes, postings and the order by popularity, all mapped.
//!
//! `items.rfs` is a section file of columns, one value an item, and of lists (`offsets` and
//! `values`). Opening checks only that the shapes agree, so it is O(1). Every accessor is total: an
//! ordinal that does not exist, or bytes that are damaged, give nothing; a list never yields an
//! ordinal that is not there.
//!
//! An item's number, its *ordinal*, is its row in the index.

mod lists;
mod strings;
mod write;

use bytemuck::AnyBitPattern;
use serde::{Deserialize, Serialize};

pub use self::lists::Ordinals;
pub use self::strings::{Dictionary, StringTable};
pub(crate) use self::write::add_items;
pub use self::write::{Item, MAX_ID_BYTES, MAX_TAGS, MAX_TEXT_BYTES, write_items};

use self::lists::Lists;
use crate::column::Column;
use crate::corruption::Corruption;
use crate::section::{OpenError, SectionFile};

/// The mapped items of a version. Clones share the map.
#[derive(Debug, Clone)]
pub struct Items {
    file: SectionFile,
    len: u32,
    ids: Dictionary,
    titles: StringTable,
    artists: Dictionary,
    tags: Dictionary,
    artist: Column<u32>,
    artist_items: Lists,
    item_tags: Lists,
    tag_items: Lists,
    release_time: Column<i64>,
    duration_ms: Column<u32>,
    popularity: Column<f32>,
    blocked: Column<u8>,
    by_popularity: Column<u32>,
}

impl Items {
    /// The items in `file`, as [`write_items`] wrote them. O(1).
    ///
    /// # Errors
    /// [`OpenError`] when a section is missing, unknown and required, or of the wrong shape.
    pub fn open(file: &SectionFile) -> Result<Self, OpenError> {
        file.require_known(SECTIONS)?;
        Self::open_among_others(file)
    }

    /// [`open`](Self::open) in a file that holds more than items; its reader knows the rest.
    pub(crate) fn open_among_others(file: &SectionFile) -> Result<Self, OpenError> {
        let Params {
            items,
            artists,
            tags,
        } = file.record("params", PARAMS_VERSION)?;
        let this = Self {
            file: file.clone(),
            len: items,
            ids: Dictionary::open(file, "ids")?,
            titles: StringTable::open(file, "titles")?,
            artists: Dictionary::open(file, "artists")?,
            tags: Dictionary::open(file, "tags")?,
            artist: column(file, "artist", items.into())?,
            artist_items: Lists::open(file, "artist_items", artists, items)?,
            item_tags: Lists::open(file, "item_tags", items, tags)?,
            tag_items: Lists::open(file, "tag_items", tags, items)?,
            release_time: column(file, "release_time", items.into())?,
            duration_ms: column(file, "duration_ms", items.into())?,
            popularity: column(file, "popularity", items.into())?,
            blocked: column(file, "blocked", u64::from(items).div_ceil(8))?,
            by_popularity: column(file, "by_popularity", items.into())?,
        };
        for (name, table, len) in [
            ("ids.offsets", this.ids.strings(), items),
            ("titles.offsets", &this.titles, items),
            ("artists.offsets", this.artists.strings(), artists),
            ("tags.offsets", this.tags.strings(), tags),
        ] {
            if table.len() != len {
                return Err(file.broken(name, 0, WRONG_COUNT, table.len().into()).into());
            }
        }
        Ok(this)
    }

    /// The number of items.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The id of an item.
    pub fn id(&self, ordinal: u32) -> Option<&str> {
        self.ids.strings().get(ordinal)
    }

    /// The item with that id.
    pub fn ordinal(&self, id: &str) -> Option<u32> {
        self.ids.ordinal(id)
    }

    /// The items that there are of many ids, in the order given, added to `out`: see
    /// [`Dictionary::ordinals`].
    pub fn ordinals<'s>(&self, ids: impl Iterator<Item = &'s str>, out: &mut Vec<u32>) {
        self.ids.ordinals(ids, out);
    }

    /// The columns behind [`artist`](Self::artist), [`release_time`](Self::release_time) and
    /// [`popularity`](Self::popularity), one value an item, as they lie: for who reads about many items and asks
    /// for their memory beforehand.
    pub fn columns(&self) -> (&[u32], &[i64], &[f32]) {
        (
            self.artist.as_slice(),
            self.release_time.as_slice(),
            self.popularity.as_slice(),
        )
    }

    /// The title of an item; empty when it has none.
    pub fn title(&self, ordinal: u32) -> &str {
        self.titles.get(ordinal).unwrap_or_default()
    }

    /// The artist of an item, as a number below [`artists`](Self::artists).
    pub fn artist(&self, ordinal: u32) -> Option<u32> {
        self.artist
            .get(ordinal as usize)
            .filter(|&artist| artist < self.artists())
    }

    /// The number of artists.
    pub fn artists(&self) -> u32 {
        self.artists.strings().len()
    }

    /// The name of an artist; empty when there is no such artist.
    pub fn artist_name(&self, artist: u32) -> &str {
        self.artists.strings().get(artist).unwrap_or_default()
    }

    /// The artist of that name.
    pub fn artist_ordinal(&self, name: &str) -> Option<u32> {
        self.artists.ordinal(name)
    }

    /// The items of an artist, ascending.
    pub fn items_of_artist(&self, artist: u32) -> Ordinals<'_> {
        self.artist_items.get(artist)
    }

    /// The tags of an item, ascending, as numbers below [`tag_count`](Self::tag_count).
    pub fn tags(&self, ordinal: u32) -> Ordinals<'_> {
        self.item_tags.get(ordinal)
    }

    /// The number of tags.
    pub fn tag_count(&self) -> u32 {
        self.tags.strings().len()
    }

    /// The name of a tag; empty when there is no such tag.
    pub fn tag_name(&self, tag: u32) -> &str {
        self.tags.strings().get(tag).unwrap_or_default()
    }

    /// The tag of that name.
    pub fn tag_ordinal(&self, name: &str) -> Option<u32> {
        self.tags.ordinal(name)
    }

    /// The items with a tag, ascending.
    pub fn items_with_tag(&self, tag: u32) -> Ordinals<'_> {
        self.tag_items.get(tag)
    }

    /// When an item was released, in seconds since 1970-01-01 UTC.
    pub fn release_time(&self, ordinal: u32) -> Option<i64> {
        self.release_time
            .get(ordinal as usize)
            .filter(|&time| time != NO_TIME)
    }

    /// How long an item plays, in milliseconds.
    pub fn duration_ms(&self, ordinal: u32) -> Option<u32> {
        self.duration_ms
            .get(ordinal as usize)
            .filter(|&duration| duration != NONE)
    }

    /// How popular an item was in the training log: its distinct listeners, 0 or more, not scaled.
    /// Divide by [`max_popularity`](Self::max_popularity) for a share of the most popular.
    pub fn popularity(&self, ordinal: u32) -> f32 {
        let popularity = self.popularity.get(ordinal as usize).unwrap_or_default();
        if popularity.is_finite() {
            popularity.max(0.0)
        } else {
            0.0
        }
    }

    /// The popularity of the most popular item; 0 when there is none. O(1).
    pub fn max_popularity(&self) -> f32 {
        self.by_popularity()
            .next()
            .map_or(0.0, |ordinal| self.popularity(ordinal))
    }

    /// Whether an item must never be shown (taken down).
    pub fn blocked(&self, ordinal: u32) -> bool {
        let byte = self.blocked.get(ordinal as usize / 8).unwrap_or_default();
        byte >> (ordinal % 8) & 1 == 1
    }

    /// All items, most popular first, equally popular ones by ordinal.
    pub fn by_popularity(&self) -> Ordinals<'_> {
        Ordinals::new(self.by_popularity.as_slice(), self.len)
    }

    /// Checks that all of it agrees: O(n). Checksums find damage; this finds a writer's mistakes.
    ///
    /// # Errors
    /// The first rule that is broken, with section and offset.
    pub fn check(&self) -> Result<(), Corruption> {
        let mut seen = vec![false; self.len as usize];
        let mut before = None;
        for (at, &ordinal) in self.by_popularity.as_slice().iter().enumerate() {
            let broken = |rule| {
                Err(self
                    .file
                    .broken("by_popularity", at as u64 * 4, rule, ordinal.into()))
            };
            match seen.get_mut(ordinal as usize) {
                Some(seen) if !*seen => *seen = true,
                _ => return broken("the order by popularity holds every item once"),
            }
            let key = (self.popularity(ordinal), std::cmp::Reverse(ordinal));
            if before.is_some_and(|before| before < key) {
                return broken("the order by popularity descends, ties by ordinal");
            }
            before = Some(key);
        }
        for ordinal in 0..self.len {
            let broken = |section, rule, width: u64, got: u32| {
                Err(self
                    .file
                    .broken(section, u64::from(ordinal) * width, rule, got.into()))
            };
            let id = self
                .id(ordinal)
                .filter(|id| (1..=MAX_ID_BYTES).contains(&id.len()));
            if id.and_then(|id| self.ordinal(id)) != Some(ordinal) {
                return broken(
                    "ids.offsets",
                    "ids are distinct UTF-8 of 1 to 128 bytes",
                    8,
                    ordinal,
                );
            }
            if self.titles.get(ordinal).is_none() {
                return broken("titles.offsets", "titles are UTF-8", 8, ordinal);
            }
            let popularity = self.popularity.get(ordinal as usize);
            if !popularity.is_some_and(|p| p.is_finite() && p >= 0.0) {
                return broken(
                    "popularity",
                    "popularity is finite and not negative",
                    4,
                    ordinal,
                );
            }
        }
        self.artist_items.check(&self.file)?;
        self.item_tags.check(&self.file)?;
        self.tag_items.check(&self.file)?;
        self.check_postings()
    }

    /// Lists and their inverses: all of one are in the other, and both have as many. Walks along the
    /// long lists and looks into the short ones, so it is linear.
    fn check_postings(&self) -> Result<(), Corruption> {
        for artist in 0..self.artists() {
            if self
                .items_of_artist(artist)
                .any(|item| self.artist(item) != Some(artist))
            {
                let rule = "the items of an artist are by that artist";
                return Err(self
                    .file
                    .broken("artist_items.values", 0, rule, artist.into()));
            }
        }
        let by_someone = self
            .artist
            .as_slice()
            .iter()
            .filter(|&&artist| artist != NONE)
            .count();
        if by_someone != self.artist_items.total() {
            let rule = "every item is among its artist's";
            return Err(self.file.broken("artist", 0, rule, by_someone as u64));
        }
        for tag in 0..self.tag_count() {
            if self
                .items_with_tag(tag)
                .any(|item| !self.tags(item).contains(tag))
            {
                let rule = "the items with a tag have that tag";
                return Err(self.file.broken("tag_items.values", 0, rule, tag.into()));
            }
        }
        let tagged = self.item_tags.total();
        if tagged != self.tag_items.total() {
            let rule = "every item is among its tags'";
            return Err(self.file.broken("item_tags.values", 0, rule, tagged as u64));
        }
        Ok(())
    }
}

/// The counts that the shapes of all sections follow from.
#[derive(Debug, Serialize, Deserialize)]
struct Params {
    items: u32,
    artists: u32,
    tags: u32,
}

const PARAMS_VERSION: u8 = 1;
/// No artist, no duration.
const NONE: u32 = u32::MAX;
/// No release time.
const NO_TIME: i64 = i64::MIN;
const WRONG_COUNT: &str = "sections hold one value for each item, artist or tag";

pub(crate) const SECTIONS: &[&str] = &[
    "params",
    "ids.offsets",
    "ids.bytes",
    "ids.slots",
    "titles.offsets",
    "titles.bytes",
    "artists.offsets",
    "artists.bytes",
    "artists.slots",
    "tags.offsets",
    "tags.bytes",
    "tags.slots",
    "artist",
    "artist_items.offsets",
    "artist_items.values",
    "item_tags.offsets",
    "item_tags.values",
    "tag_items.offsets",
    "tag_items.values",
    "release_time",
    "duration_ms",
    "popularity",
    "blocked",
    "by_popularity",
];

fn column<T: AnyBitPattern>(
    file: &SectionFile,
    name: &str,
    len: u64,
) -> Result<Column<T>, OpenError> {
    let column = file.column::<T>(name)?;
    if column.len() as u64 != len {
        return Err(file
            .broken(name, 0, WRONG_COUNT, column.len() as u64)
            .into());
    }
    Ok(column)
}

#[cfg(test)]
mod tests;
