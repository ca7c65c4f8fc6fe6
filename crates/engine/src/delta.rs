//! The deltas of a version folded into one, and the items of base and deltas seen as one.
//!
//! A new item gets the next ordinal after those before it, in the order of the deltas. An item that a
//! delta changes keeps its ordinal: what is known of a listener stays true, and ties are broken as
//! before. Its row in the base is *masked*: the base is searched without it. A tombstone is a block: the
//! item is known, speaks for the taste of those who heard it, and is never shown.

use std::sync::Arc;

use refrain_bundle::bundle::{Model, Scenes};
use refrain_bundle::{DeltaFile, Digest, Items, Ordinals};
use refrain_index::{Delta as Vectors, DeltaError as VectorsError, OrdinalSet};
use refrain_kernels::{Metric, prefetch_at};
use rustc_hash::FxHashMap;

use crate::names::NameList;

/// Deltas 1 to `number` of a version, folded. Immutable: the next delta makes another.
#[derive(Debug, Clone)]
pub(crate) struct Delta {
    /// Number of the last delta in it.
    pub(crate) number: u64,
    /// Its digest.
    pub(crate) digest: Digest,
    /// Bytes of the files together.
    pub(crate) bytes: u64,
    /// Items of the base: new ones are numbered from here on.
    base: u32,
    /// Rows of items of the base that changed, by ordinal.
    changed: FxHashMap<u32, u32>,
    /// Rows of new items, by id.
    new_ids: FxHashMap<Arc<str>, u32>,
    /// Of changed items in the order in which they first changed, then none; new ones by ordinal.
    changed_rows: Vec<Arc<Row>>,
    new_rows: Vec<Arc<Row>>,
    /// Ordinals of the base whose rows there do not count any more.
    pub(crate) masked: OrdinalSet,
    /// All items that must not be shown, of the base, too.
    pub(crate) blocked: Arc<OrdinalSet>,
    /// The vectors to be searched.
    pub(crate) vectors: Vectors,
    artists: NewNames,
    tags: NewNames,
    /// Ordinals by falling popularity, ties by ordinal.
    by_popularity: Vec<u32>,
}

/// One item.
#[derive(Debug, Clone)]
struct Row {
    id: Arc<str>,
    ordinal: u32,
    title: Box<str>,
    artist: Option<u32>,
    tags: Box<[u32]>,
    release_time: Option<i64>,
    duration_ms: Option<u32>,
    popularity: f32,
    /// By the rules of the base's scenes; where there are none, what a changed item had.
    scene: Option<u32>,
    vector: Box<[f32]>,
    /// Absent where the vector is the factor row.
    factor: Option<Box<[f32]>>,
}

/// Names that the base does not have, numbered after its own, and the items under every name.
#[derive(Debug, Clone, Default)]
struct NewNames {
    base: u32,
    names: Vec<Arc<str>>,
    by_name: FxHashMap<Arc<str>, u32>,
    items: FxHashMap<u32, Vec<u32>>,
}

/// A delta that does not belong on this version, or at this place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DeltaError {
    /// It is of another version.
    #[error("{path}: a delta of version {found}, not of {expected}")]
    OtherVersion {
        /// The file.
        path: String,
        /// The version that it is of.
        found: String,
        /// The version that it was to be applied to.
        expected: String,
    },
    /// It is not the next one.
    #[error("{path}: delta number {found} where number {expected} is due")]
    OutOfOrder {
        /// The file.
        path: String,
        /// Its number.
        found: u64,
        /// The number that is due.
        expected: u64,
    },
    /// It was made on another delta than the one before it here.
    #[error("{path}: made on another delta number {before} than the one applied here")]
    OtherParent {
        /// The file.
        path: String,
        /// Number of the delta before.
        before: u64,
    },
    /// Its vectors or factors have another width than those of the version.
    #[error("{path}: its {what} have {found} values, those of the version {expected}")]
    Width {
        /// The file.
        path: String,
        /// `vectors` or `factors`.
        what: &'static str,
        /// Values of its rows.
        found: u32,
        /// Values of the version's.
        expected: u32,
    },
    /// The version would have more items than a version has.
    #[error("{path}: with it the version would have more than 2147483647 items")]
    TooManyItems {
        /// The file.
        path: String,
    },
    /// Its vectors cannot be searched.
    #[error("{path}: {source}")]
    Vectors {
        /// The file.
        path: String,
        /// Why.
        source: VectorsError,
    },
}

/// What of a version a delta is folded onto.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Onto<'a> {
    pub(crate) version: &'a str,
    pub(crate) items: &'a Items,
    pub(crate) blocked: &'a OrdinalSet,
    pub(crate) metric: Metric,
    pub(crate) dim: u32,
    pub(crate) model: Option<&'a Model>,
    pub(crate) scenes: Option<&'a Scenes>,
}

impl Delta {
    /// Folds verified files, which follow one another, onto a version and what was folded before.
    /// O(items of all deltas).
    pub(crate) fn fold(
        onto: Onto<'_>,
        before: Option<&Self>,
        files: &[DeltaFile],
    ) -> Result<Option<Self>, DeltaError> {
        let base = onto.items.len();
        let mut this = before.cloned();
        for file in files {
            check(onto, this.as_ref(), file)?;
            let next = this.get_or_insert_with(|| Self {
                number: 0,
                digest: file.digest(),
                bytes: 0,
                base,
                changed: FxHashMap::default(),
                new_ids: FxHashMap::default(),
                changed_rows: Vec::new(),
                new_rows: Vec::new(),
                masked: OrdinalSet::new(),
                blocked: Arc::new(onto.blocked.clone()),
                vectors: no_vectors(onto),
                artists: NewNames::after(onto.items.artists()),
                tags: NewNames::after(onto.items.tag_count()),
                by_popularity: Vec::new(),
            });
            next.add(onto, file)?;
        }
        if let Some(this) = this.as_mut().filter(|_| !files.is_empty()) {
            this.finish(onto, files)?;
        }
        Ok(this)
    }

    fn add(&mut self, onto: Onto<'_>, file: &DeltaFile) -> Result<(), DeltaError> {
        let items = file.items();
        let (dim, rank) = (onto.dim as usize, file.info().rank as usize);
        for at in 0..items.len() {
            let Some(id) = items.id(at) else { continue };
            let in_base = onto.items.ordinal(id);
            let known = in_base.or_else(|| self.new_ids.get(id).map(|row| self.base + row));
            let ordinal = match known {
                Some(ordinal) => ordinal,
                None => u32::try_from(self.new_rows.len())
                    .ok()
                    .and_then(|new| self.base.checked_add(new))
                    .filter(|&ordinal| ordinal < 1 << 31)
                    .ok_or_else(|| DeltaError::TooManyItems { path: path(file) })?,
            };
            let slice = |values: &[f32], width: usize| -> Box<[f32]> {
                let start = at as usize * width;
                values.get(start..start + width).unwrap_or_default().into()
            };
            let artist = items.artist(at).map(|artist| {
                let name = items.artist_name(artist);
                onto.items
                    .artist_ordinal(name)
                    .unwrap_or_else(|| self.artists.number(name))
            });
            let tags = items.tags(at).map(|tag| {
                let name = items.tag_name(tag);
                onto.items
                    .tag_ordinal(name)
                    .unwrap_or_else(|| self.tags.number(name))
            });
            let mut tags: Vec<u32> = tags.collect();
            tags.sort_unstable();
            let vector = slice(file.vectors(), dim);
            let factor = file.factors().map(|factors| slice(factors, rank));
            let scene = onto.scenes.and_then(|scenes| {
                let placed = scenes.rules().scene(factor.as_deref().unwrap_or(&vector));
                placed.or_else(|| scenes.of(ordinal))
            });
            let row = Arc::new(Row {
                id: Arc::from(id),
                ordinal,
                title: items.title(at).into(),
                artist,
                tags: tags.into(),
                release_time: items.release_time(at),
                duration_ms: items.duration_ms(at),
                popularity: items.popularity(at),
                scene,
                vector,
                factor,
            });
            self.put(row);
            let blocked = Arc::make_mut(&mut self.blocked);
            if items.blocked(at) {
                blocked.insert(ordinal);
            } else {
                blocked.remove(ordinal);
            }
        }
        for id in file.tombstones() {
            let known = onto.items.ordinal(id);
            let known = known.or_else(|| self.new_ids.get(id).map(|row| self.base + row));
            if let Some(ordinal) = known {
                Arc::make_mut(&mut self.blocked).insert(ordinal);
            }
        }
        self.number = file.info().number;
        self.digest = file.digest();
        self.bytes = self.bytes.saturating_add(file.bytes());
        Ok(())
    }

    fn put(&mut self, row: Arc<Row>) {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "below 2^31, as the ordinals are"
        )]
        let next = |rows: &Vec<Arc<Row>>| rows.len() as u32;
        let (rows, at) = if row.ordinal < self.base {
            self.masked.insert(row.ordinal);
            let next = next(&self.changed_rows);
            let at = *self.changed.entry(row.ordinal).or_insert(next);
            (&mut self.changed_rows, at)
        } else {
            let at = row.ordinal - self.base;
            if at == next(&self.new_rows) {
                self.new_ids.insert(Arc::clone(&row.id), at);
            }
            (&mut self.new_rows, at)
        };
        match rows.get_mut(at as usize) {
            Some(old) => *old = row,
            None => rows.push(row),
        }
    }

    /// What follows from the rows: vectors in order, postings, the order by popularity.
    fn finish(&mut self, onto: Onto<'_>, files: &[DeltaFile]) -> Result<(), DeltaError> {
        let mut rows: Vec<&Arc<Row>> = self.changed_rows.iter().chain(&self.new_rows).collect();
        rows.sort_unstable_by_key(|row| row.ordinal);
        let ordinals = rows.iter().map(|row| row.ordinal).collect();
        let vectors = rows
            .iter()
            .flat_map(|row| row.vector.iter().copied())
            .collect();
        self.artists.items.clear();
        self.tags.items.clear();
        for row in &rows {
            if let Some(artist) = row.artist {
                self.artists
                    .items
                    .entry(artist)
                    .or_default()
                    .push(row.ordinal);
            }
            for &tag in &row.tags {
                self.tags.items.entry(tag).or_default().push(row.ordinal);
            }
        }
        // Stable: ties stay in the order of their ordinals.
        rows.sort_by(|a, b| b.popularity.total_cmp(&a.popularity));
        self.by_popularity = rows.iter().map(|row| row.ordinal).collect();
        self.vectors =
            Vectors::new(onto.metric, onto.dim as usize, ordinals, vectors).map_err(|source| {
                DeltaError::Vectors {
                    path: files.last().map(path).unwrap_or_default(),
                    source,
                }
            })?;
        Ok(())
    }

    fn row(&self, ordinal: u32) -> Option<&Row> {
        let row = match ordinal.checked_sub(self.base) {
            Some(new) => self.new_rows.get(new as usize),
            None => self.changed_rows.get(*self.changed.get(&ordinal)? as usize),
        };
        row.map(|row| &**row)
    }

    /// Whether the item is of a delta: new or changed.
    pub(crate) fn holds(&self, ordinal: u32) -> bool {
        ordinal >= self.base || self.changed.contains_key(&ordinal)
    }

    /// The factor row of an item that a delta holds.
    pub(crate) fn factor(&self, ordinal: u32) -> Option<&[f32]> {
        let row = self.row(ordinal)?;
        Some(row.factor.as_deref().unwrap_or(&row.vector))
    }

    /// The scene of an item that a delta holds.
    pub(crate) fn scene(&self, ordinal: u32) -> Option<u32> {
        self.row(ordinal)?.scene
    }

    fn len(&self) -> u32 {
        u32::try_from(self.new_rows.len()).unwrap_or(u32::MAX)
    }
}

/// That the file comes next on this version.
fn check(onto: Onto<'_>, before: Option<&Delta>, file: &DeltaFile) -> Result<(), DeltaError> {
    let info = file.info();
    if info.version != onto.version {
        return Err(DeltaError::OtherVersion {
            path: path(file),
            found: info.version.clone(),
            expected: onto.version.to_owned(),
        });
    }
    let number = before.map_or(0, |before| before.number);
    if info.number != number + 1 {
        return Err(DeltaError::OutOfOrder {
            path: path(file),
            found: info.number,
            expected: number + 1,
        });
    }
    if info.parent != before.map(|before| before.digest) {
        return Err(DeltaError::OtherParent {
            path: path(file),
            before: number,
        });
    }
    let rank = onto
        .model
        .map_or(0, |model| u32::try_from(model.rank()).unwrap_or(u32::MAX));
    for (what, found, expected) in [
        ("vectors", info.dim, onto.dim),
        ("factors", info.rank, rank),
    ] {
        if found != expected {
            return Err(DeltaError::Width {
                path: path(file),
                what,
                found,
                expected,
            });
        }
    }
    Ok(())
}

fn path(file: &DeltaFile) -> String {
    file.path().display().to_string()
}

fn no_vectors(onto: Onto<'_>) -> Vectors {
    match Vectors::new(onto.metric, onto.dim as usize, Vec::new(), Vec::new()) {
        Ok(none) => none,
        Err(error) => unreachable!("no rows have no values: {error}"),
    }
}

impl NewNames {
    fn after(base: u32) -> Self {
        Self {
            base,
            ..Self::default()
        }
    }

    /// The number of a name that the base does not have; a new one for a new name.
    fn number(&mut self, name: &str) -> u32 {
        if let Some(&number) = self.by_name.get(name) {
            return number;
        }
        let new = u32::try_from(self.names.len()).unwrap_or(u32::MAX);
        let number = self.base.saturating_add(new);
        let name: Arc<str> = Arc::from(name);
        self.names.push(Arc::clone(&name));
        self.by_name.insert(name, number);
        number
    }

    fn name(&self, number: u32) -> &str {
        let new = number.checked_sub(self.base);
        new.and_then(|new| self.names.get(new as usize))
            .map_or("", |name| name)
    }

    fn items(&self, number: u32) -> &[u32] {
        self.items.get(&number).map_or(&[], Vec::as_slice)
    }
}

/// The items of a version as its deltas have made them; see [`Items`] for what each method gives.
/// Without deltas it is those of the base.
#[derive(Debug, Clone, Copy)]
pub struct VersionItems<'a> {
    base: &'a Items,
    delta: Option<&'a Delta>,
}

impl<'a> VersionItems<'a> {
    pub(crate) fn new(base: &'a Items, delta: Option<&'a Delta>) -> Self {
        Self { base, delta }
    }

    /// The number of items, those of deltas and those taken down included.
    #[must_use]
    pub fn len(self) -> u32 {
        self.base.len() + self.delta.map_or(0, Delta::len)
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// The id of an item.
    #[must_use]
    pub fn id(self, ordinal: u32) -> Option<&'a str> {
        match self.row(ordinal) {
            Some(row) => Some(&row.id),
            None => self.base.id(ordinal),
        }
    }

    /// The item with that id.
    #[must_use]
    pub fn ordinal(self, id: &str) -> Option<u32> {
        self.base.ordinal(id).or_else(|| {
            let delta = self.delta?;
            delta.new_ids.get(id).map(|row| delta.base + row)
        })
    }

    /// The items that there are of many ids, in no order.
    pub(crate) fn ordinals(self, ids: &NameList) -> Vec<u32> {
        let mut found = Vec::with_capacity(ids.len());
        self.base.ordinals(ids.iter(), &mut found);
        if let Some(delta) = self.delta
            && found.len() < ids.len()
            && !delta.new_ids.is_empty()
        {
            let new = ids.iter().filter_map(|id| delta.new_ids.get(id));
            found.extend(new.map(|row| delta.base + row));
        }
        found
    }

    /// The title of an item; empty when it has none.
    #[must_use]
    pub fn title(self, ordinal: u32) -> &'a str {
        match self.row(ordinal) {
            Some(row) => &row.title,
            None => self.base.title(ordinal),
        }
    }

    /// The artist of an item, as a number below [`artists`](Self::artists).
    #[must_use]
    pub fn artist(self, ordinal: u32) -> Option<u32> {
        match self.row(ordinal) {
            Some(row) => row.artist,
            None => self.base.artist(ordinal),
        }
    }

    /// The number of artists.
    #[must_use]
    pub fn artists(self) -> u32 {
        let new = self.delta.map_or(0, |delta| delta.artists.names.len());
        self.base
            .artists()
            .saturating_add(u32::try_from(new).unwrap_or(u32::MAX))
    }

    /// The name of an artist; empty when there is no such artist.
    #[must_use]
    pub fn artist_name(self, artist: u32) -> &'a str {
        match self.delta.filter(|delta| artist >= delta.artists.base) {
            Some(delta) => delta.artists.name(artist),
            None => self.base.artist_name(artist),
        }
    }

    /// The artist of that name.
    #[must_use]
    pub fn artist_ordinal(self, name: &str) -> Option<u32> {
        let new = || self.delta?.artists.by_name.get(name).copied();
        self.base.artist_ordinal(name).or_else(new)
    }

    /// The items of an artist: those of the base ascending, then those of deltas ascending.
    #[must_use]
    pub fn items_of_artist(self, artist: u32) -> ItemsUnder<'a> {
        ItemsUnder {
            base: self.base.items_of_artist(artist),
            delta: self.delta,
            more: self
                .delta
                .map_or(&[][..], |delta| delta.artists.items(artist))
                .iter(),
        }
    }

    /// The tags of an item, ascending, as numbers below [`tag_count`](Self::tag_count).
    pub fn tags(self, ordinal: u32) -> impl Iterator<Item = u32> + 'a {
        let row = self.row(ordinal);
        let base = row.is_none().then(|| self.base.tags(ordinal));
        let own = row.map_or(&[][..], |row| &row.tags);
        base.into_iter().flatten().chain(own.iter().copied())
    }

    /// The number of tags.
    #[must_use]
    pub fn tag_count(self) -> u32 {
        let new = self.delta.map_or(0, |delta| delta.tags.names.len());
        self.base
            .tag_count()
            .saturating_add(u32::try_from(new).unwrap_or(u32::MAX))
    }

    /// The name of a tag; empty when there is no such tag.
    #[must_use]
    pub fn tag_name(self, tag: u32) -> &'a str {
        match self.delta.filter(|delta| tag >= delta.tags.base) {
            Some(delta) => delta.tags.name(tag),
            None => self.base.tag_name(tag),
        }
    }

    /// The tag of that name.
    #[must_use]
    pub fn tag_ordinal(self, name: &str) -> Option<u32> {
        let new = || self.delta?.tags.by_name.get(name).copied();
        self.base.tag_ordinal(name).or_else(new)
    }

    /// The items with a tag: those of the base ascending, then those of deltas ascending.
    #[must_use]
    pub fn items_with_tag(self, tag: u32) -> ItemsUnder<'a> {
        ItemsUnder {
            base: self.base.items_with_tag(tag),
            delta: self.delta,
            more: self
                .delta
                .map_or(&[][..], |delta| delta.tags.items(tag))
                .iter(),
        }
    }

    /// When an item was released, in seconds since 1970-01-01 UTC.
    #[must_use]
    pub fn release_time(self, ordinal: u32) -> Option<i64> {
        match self.row(ordinal) {
            Some(row) => row.release_time,
            None => self.base.release_time(ordinal),
        }
    }

    /// How long an item plays, in milliseconds.
    #[must_use]
    pub fn duration_ms(self, ordinal: u32) -> Option<u32> {
        match self.row(ordinal) {
            Some(row) => row.duration_ms,
            None => self.base.duration_ms(ordinal),
        }
    }

    /// How popular an item is: distinct listeners, 0 or more, not scaled.
    #[must_use]
    pub fn popularity(self, ordinal: u32) -> f32 {
        match self.row(ordinal) {
            Some(row) => row.popularity,
            None => self.base.popularity(ordinal),
        }
    }

    /// The popularity of the most popular item; 0 when there is none.
    #[must_use]
    pub fn max_popularity(self) -> f32 {
        self.by_popularity()
            .next()
            .map_or(0.0, |ordinal| self.popularity(ordinal))
    }

    /// Whether an item must never be shown (blocked, or taken down by a delta).
    #[must_use]
    pub fn blocked(self, ordinal: u32) -> bool {
        match self.delta {
            Some(delta) => delta.blocked.contains(ordinal),
            None => self.base.blocked(ordinal),
        }
    }

    /// All items, most popular first, equally popular ones by ordinal.
    #[must_use]
    pub fn by_popularity(self) -> ByPopularity<'a> {
        ByPopularity {
            items: self,
            base: self.base.by_popularity(),
            next: None,
            more: self.delta.map_or(&[][..], |delta| &delta.by_popularity),
        }
    }

    /// Asks for the memory of what ranking reads about items, of all of them at once: one after the other, each
    /// value would be waited for. Changes nothing but time.
    pub(crate) fn bring_near(self, ordinals: impl Iterator<Item = u32>) {
        let (artists, release_times, popularity) = self.base.columns();
        for at in ordinals.map(|ordinal| ordinal as usize) {
            prefetch_at(artists, at);
            prefetch_at(release_times, at);
            prefetch_at(popularity, at);
        }
    }

    fn row(self, ordinal: u32) -> Option<&'a Row> {
        self.delta?.row(ordinal)
    }
}

/// Items of an artist or with a tag.
#[derive(Debug, Clone)]
pub struct ItemsUnder<'a> {
    base: Ordinals<'a>,
    delta: Option<&'a Delta>,
    more: std::slice::Iter<'a, u32>,
}

impl Iterator for ItemsUnder<'_> {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        // What a delta holds is listed by the delta, or not at all any more.
        let delta = self.delta;
        self.base
            .find(|&ordinal| delta.is_none_or(|delta| !delta.holds(ordinal)))
            .or_else(|| self.more.next().copied())
    }
}

/// Items by falling popularity.
#[derive(Debug, Clone)]
pub struct ByPopularity<'a> {
    items: VersionItems<'a>,
    base: Ordinals<'a>,
    /// The next of the base.
    next: Option<u32>,
    more: &'a [u32],
}

impl Iterator for ByPopularity<'_> {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        let Some(delta) = self.items.delta else {
            return self.base.next();
        };
        if self.next.is_none() {
            self.next = self.base.find(|&ordinal| !delta.holds(ordinal));
        }
        let key = |ordinal: u32| (self.items.popularity(ordinal), std::cmp::Reverse(ordinal));
        match (self.next, self.more.split_first()) {
            (Some(base), Some((&first, rest))) if key(first) > key(base) => {
                self.more = rest;
                Some(first)
            }
            (None, Some((&first, rest))) => {
                self.more = rest;
                Some(first)
            }
            (Some(_), _) => self.next.take(),
            (None, None) => None,
        }
    }
}
