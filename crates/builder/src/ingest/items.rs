//! What is known about items besides who listened to them.

use crate::Dictionary;

/// Attributes of one item; everything but its id may be missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attributes {
    /// Name for people; empty when unknown.
    pub title: String,
    /// Artist, by name or id; empty when unknown.
    pub artist: String,
    /// Genres, moods, scenes; distinct, in the order they were given.
    pub tags: Vec<String>,
    /// Seconds since 1970 UTC.
    pub release_time_s: Option<i64>,
    /// Length in milliseconds.
    pub duration_ms: Option<u32>,
    /// Never to be recommended.
    pub blocked: bool,
}

impl Attributes {
    /// Of an item that nothing is known of.
    pub const UNKNOWN: Self = Self {
        title: String::new(),
        artist: String::new(),
        tags: Vec::new(),
        release_time_s: None,
        duration_ms: None,
        blocked: false,
    };
}

impl Default for Attributes {
    fn default() -> Self {
        Self::UNKNOWN
    }
}

/// Items with attributes, in order of first appearance.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Items {
    ids: Dictionary,
    attributes: Vec<Attributes>,
}

impl Items {
    /// How many items are described.
    pub fn len(&self) -> usize {
        self.attributes.len()
    }

    /// Whether no item is described.
    pub fn is_empty(&self) -> bool {
        self.attributes.is_empty()
    }

    /// The attributes of an item, by its id.
    pub fn get(&self, id: &str) -> Option<&Attributes> {
        self.attributes.get(self.ids.ordinal(id)? as usize)
    }

    /// The attributes of an item, to be filled in; new items start empty. `None` when there are
    /// more than [`crate::dictionary::MAX_STRINGS`].
    pub fn entry(&mut self, id: &str) -> Option<&mut Attributes> {
        let ordinal = self.ids.insert(id)? as usize;
        if ordinal == self.attributes.len() {
            self.attributes.push(Attributes::default());
        }
        self.attributes.get_mut(ordinal)
    }

    /// Ids and attributes in order of first appearance.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Attributes)> {
        self.ids.iter().zip(&self.attributes)
    }

    /// The attributes of these items, which are distinct, in their order; none at all where nothing is known of any of them.
    pub fn of(mut self, ids: &Dictionary) -> Vec<Attributes> {
        let own: Vec<Option<usize>> = ids
            .iter()
            .map(|id| self.ids.ordinal(id).map(|at| at as usize))
            .collect();
        let known = |at: &usize| self.attributes[*at] != Attributes::UNKNOWN;
        if !own.iter().flatten().any(known) {
            return Vec::new();
        }
        let mut taken = |at: usize| std::mem::take(&mut self.attributes[at]);
        let rows = own.into_iter().map(|at| at.map(&mut taken));
        rows.map(Option::unwrap_or_default).collect()
    }

    /// Fills what this leaves open from `other`; what is known here stays.
    pub fn merge(&mut self, other: &Items) {
        for (id, theirs) in other.iter() {
            let Some(ours) = self.entry(id) else { return };
            if ours.title.is_empty() {
                ours.title.clone_from(&theirs.title);
            }
            if ours.artist.is_empty() {
                ours.artist.clone_from(&theirs.artist);
            }
            for tag in &theirs.tags {
                if !ours.tags.contains(tag) {
                    ours.tags.push(tag.clone());
                }
            }
            ours.release_time_s = ours.release_time_s.or(theirs.release_time_s);
            ours.duration_ms = ours.duration_ms.or(theirs.duration_ms);
            ours.blocked |= theirs.blocked;
        }
    }
}
