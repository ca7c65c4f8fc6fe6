//! `refrain freshen`: what is new since a version was built becomes a delta on it.
//!
//! New items come with vectors, or are folded in from their first listens; known ones get other vectors
//! or attributes; takedowns stop an item from being shown, returns let it be shown again. All of it is
//! resolved against the version as it is, deltas included, so a delta holds whole items and says only
//! what changes: freshening twice with the same input makes one delta. The same version and the same
//! input give the same bytes.

mod fold;

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::io;
use std::path::Path;

use refrain_bundle::{FileDigest, Item, NewDelta, WriteError, write_delta};
use refrain_engine::Version;
use refrain_index::Delta;

pub use self::fold::FoldError;

use crate::build::VectorSet;
use crate::ingest::{Attributes, Items, SortedLog};

/// What is new.
#[expect(missing_debug_implementations, reason = "most of it is elsewhere")]
#[derive(Clone, Copy, Default)]
pub struct Fresh<'a> {
    /// Vectors of new or known items.
    pub vectors: Option<&'a VectorSet>,
    /// Listens. Items that the version does not know are folded in from them; of known ones they say
    /// what their listeners like.
    pub listens: Option<&'a SortedLog>,
    /// Attributes. What is given replaces what is known; what is empty changes nothing.
    pub items: Option<&'a Items>,
    /// Items to be shown no more.
    pub remove: &'a [String],
    /// Items that were taken down, or blocked, and may be shown again.
    pub restore: &'a [String],
}

/// What came of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FreshenReport {
    /// Number of the delta, and its file; `None` when there was nothing to say.
    pub delta: Option<(u64, FileDigest)>,
    /// New items with given vectors.
    pub new_given: usize,
    /// New items folded in from listens.
    pub new_folded: usize,
    /// Known items whose vectors or attributes changed.
    pub changed: usize,
    /// Items taken down.
    pub removed: usize,
    /// Items that may be shown again.
    pub restored: usize,
    /// Asked for, and so already.
    pub unchanged: usize,
    /// New items left out because none of their listeners has listened to anything that is known.
    pub without_listeners: Vec<String>,
    /// Items with attributes, but neither known nor with a vector or a listen.
    pub without_vector: Vec<String>,
    /// Ids to be removed or restored that nobody knows.
    pub unknown: Vec<String>,
}

/// No delta was made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FreshenError {
    /// Vectors of another length than the version's.
    #[error("the vectors have {found} values, those of version {version} have {expected}")]
    Dimension {
        /// The version.
        version: String,
        /// Its dimension.
        expected: usize,
        /// Values given.
        found: usize,
    },
    /// A vector of zeros, which is like nothing.
    #[error("the vector of {id:?} is zero: it would be like nothing")]
    ZeroVector {
        /// The item.
        id: String,
    },
    /// One item both to be removed and to be restored.
    #[error("{id:?} is both to be removed and to be restored")]
    Both {
        /// The item.
        id: String,
    },
    /// Listens that cannot be folded in.
    #[error(transparent)]
    Fold(#[from] FoldError),
    /// The delta could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The system refused: the message has the path.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Writes the delta that brings `fresh` to `version` to a new file at `out`, unless there is nothing to
/// say. `version` has all deltas that are published on it: the new one comes after them.
///
/// # Errors
/// [`FreshenError`]; nothing is left at `out` then.
pub fn freshen(
    version: &Version,
    fresh: Fresh<'_>,
    out: &Path,
    threads: usize,
) -> Result<FreshenReport, FreshenError> {
    let mut report = FreshenReport::default();
    let mut drafts = Drafts::new(version);
    if let Some(set) = fresh.vectors {
        given(version, set, &mut drafts, &mut report)?;
    }
    if let Some(log) = fresh.listens {
        fold::first_listens(version, log, threads, &mut drafts, &mut report)?;
    }
    if let Some(items) = fresh.items {
        for (id, attributes) in items.iter() {
            match drafts.of(id) {
                Some(draft) => draft.take(attributes),
                None => report.without_vector.push(id.to_owned()),
            }
        }
    }
    let tombstones = shown_or_not(version, fresh, &mut drafts, &mut report)?;
    let (upserts, unchanged) = drafts.changed(version);
    report.unchanged += unchanged;
    let known = |draft: &&&Draft| version.items().ordinal(&draft.id).is_some();
    report.changed = upserts.iter().filter(known).count() - report.restored;
    if upserts.is_empty() && tombstones.is_empty() {
        return Ok(report);
    }
    let digest = write(version, &upserts, &tombstones, out)?;
    report.delta = Some((version.delta() + 1, digest));
    Ok(report)
}

/// Vectors as they were given.
fn given(
    version: &Version,
    set: &VectorSet,
    drafts: &mut Drafts<'_>,
    report: &mut FreshenReport,
) -> Result<(), FreshenError> {
    let dim = version.index().dim();
    if set.dim != dim {
        return Err(FreshenError::Dimension {
            version: version.id().to_owned(),
            expected: dim,
            found: set.dim,
        });
    }
    for (id, values) in set.ids.iter().zip(set.values.chunks(dim)) {
        if version.index().metric() != refrain_kernels::Metric::L2
            && values.iter().all(|&value| value == 0.0)
        {
            return Err(FreshenError::ZeroVector { id: id.clone() });
        }
        if version.items().ordinal(id).is_none() {
            report.new_given += 1;
        }
        drafts.put(id).place(version, values);
    }
    Ok(())
}

/// Takedowns and returns: ids of tombstones; an item that changes otherwise, too, carries its own.
fn shown_or_not(
    version: &Version,
    fresh: Fresh<'_>,
    drafts: &mut Drafts<'_>,
    report: &mut FreshenReport,
) -> Result<Vec<String>, FreshenError> {
    let removed: HashSet<&str> = fresh.remove.iter().map(String::as_str).collect();
    let blocked = |id: &str| {
        let ordinal = version.items().ordinal(id);
        ordinal.is_some_and(|ordinal| version.items().blocked(ordinal))
    };
    for id in fresh.restore {
        if removed.contains(id.as_str()) {
            return Err(FreshenError::Both { id: id.clone() });
        }
        match drafts.of(id) {
            None => report.unknown.push(id.clone()),
            Some(_) if !blocked(id) => report.unchanged += 1,
            Some(draft) => {
                draft.blocked = false;
                report.restored += 1;
            }
        }
    }
    let mut tombstones = Vec::new();
    let mut told = HashSet::new();
    for id in fresh.remove {
        if !told.insert(id.as_str()) {
            continue;
        }
        if let Some(draft) = drafts.begun(id) {
            report.removed += usize::from(!draft.blocked);
            draft.blocked = true;
        } else if version.items().ordinal(id).is_none() {
            report.unknown.push(id.clone());
        } else if blocked(id) {
            report.unchanged += 1;
        } else {
            report.removed += 1;
            tombstones.push(id.clone());
        }
    }
    Ok(tombstones)
}

/// Items in the making, in the order in which they were first named.
struct Drafts<'a> {
    version: &'a Version,
    drafts: Vec<Draft>,
    by_id: HashMap<String, usize>,
}

/// One item in the making.
#[derive(Debug, Clone, PartialEq)]
struct Draft {
    id: String,
    title: String,
    artist: Option<String>,
    tags: Vec<String>,
    release_time: Option<i64>,
    duration_ms: Option<u32>,
    popularity: f32,
    blocked: bool,
    /// As the index keeps it; empty for a new item until it is placed.
    vector: Vec<f32>,
    factor: Option<Vec<f32>>,
}

impl<'a> Drafts<'a> {
    fn new(version: &'a Version) -> Self {
        Self {
            version,
            drafts: Vec::new(),
            by_id: HashMap::new(),
        }
    }

    /// The draft of an item, begun with what is known of it, or with nothing but its id.
    fn put(&mut self, id: &str) -> &mut Draft {
        let next = self.drafts.len();
        let at = *self.by_id.entry(id.to_owned()).or_insert(next);
        if at == next {
            self.drafts.push(Draft::of(self.version, id));
        }
        &mut self.drafts[at]
    }

    /// The draft of an item that is known or begun.
    fn of(&mut self, id: &str) -> Option<&mut Draft> {
        let known = self.by_id.contains_key(id) || self.version.items().ordinal(id).is_some();
        known.then(|| self.put(id))
    }

    fn begun(&mut self, id: &str) -> Option<&mut Draft> {
        self.drafts.get_mut(*self.by_id.get(id)?)
    }

    /// Those that differ from what is known, and how many do not.
    fn changed(&self, version: &Version) -> (Vec<&Draft>, usize) {
        let differs = |draft: &&Draft| {
            version.items().ordinal(&draft.id).is_none() || **draft != Draft::of(version, &draft.id)
        };
        let changed: Vec<&Draft> = self.drafts.iter().filter(differs).collect();
        let unchanged = self.drafts.len() - changed.len();
        (changed, unchanged)
    }
}

impl Draft {
    /// An item as the version has it.
    fn of(version: &Version, id: &str) -> Self {
        let items = version.items();
        let ordinal = items.ordinal(id).unwrap_or(u32::MAX);
        let artist = items
            .artist(ordinal)
            .map(|artist| items.artist_name(artist).to_owned());
        let tags = items
            .tags(ordinal)
            .map(|tag| items.tag_name(tag).to_owned());
        let mut tags: Vec<String> = tags.collect();
        tags.sort_unstable();
        let factor = has_factors(version)
            .then(|| version.factor(ordinal))
            .flatten();
        Self {
            id: id.to_owned(),
            title: items.title(ordinal).to_owned(),
            artist,
            tags,
            release_time: items.release_time(ordinal),
            duration_ms: items.duration_ms(ordinal),
            popularity: items.popularity(ordinal),
            blocked: items.blocked(ordinal),
            vector: version
                .vector(ordinal)
                .map_or_else(Vec::new, Cow::into_owned),
            factor: factor.map(Cow::into_owned),
        }
    }

    /// Gives it a vector, which is its factor row, too.
    fn place(&mut self, version: &Version, values: &[f32]) {
        self.vector = values.to_vec();
        Delta::unit(version.index().metric(), &mut self.vector);
        self.factor = has_factors(version).then(|| values.to_vec());
    }

    /// Takes what is given.
    fn take(&mut self, given: &Attributes) {
        if !given.title.is_empty() {
            self.title.clone_from(&given.title);
        }
        if !given.artist.is_empty() {
            self.artist = Some(given.artist.clone());
        }
        if !given.tags.is_empty() {
            self.tags.clone_from(&given.tags);
            self.tags.sort_unstable();
        }
        self.release_time = given.release_time_s.or(self.release_time);
        self.duration_ms = given.duration_ms.or(self.duration_ms);
        self.blocked |= given.blocked;
    }
}

/// Whether the version keeps factors beside its vectors.
fn has_factors(version: &Version) -> bool {
    version.bundle().model().is_some()
}

fn write(
    version: &Version,
    upserts: &[&Draft],
    tombstones: &[String],
    out: &Path,
) -> Result<FileDigest, FreshenError> {
    let tags: Vec<Vec<&str>> = upserts
        .iter()
        .map(|draft| draft.tags.iter().map(String::as_str).collect())
        .collect();
    let items: Vec<Item<'_>> = upserts
        .iter()
        .zip(&tags)
        .map(|(draft, tags)| Item {
            id: &draft.id,
            title: &draft.title,
            artist: draft.artist.as_deref(),
            tags,
            release_time: draft.release_time,
            popularity: draft.popularity,
            duration_ms: draft.duration_ms,
            blocked: draft.blocked,
        })
        .collect();
    let vectors: Vec<f32> = upserts
        .iter()
        .flat_map(|draft| draft.vector.iter().copied())
        .collect();
    let factors: Vec<f32> = upserts
        .iter()
        .flat_map(|draft| draft.factor.iter().flatten().copied())
        .collect();
    let gone: Vec<&str> = tombstones.iter().map(String::as_str).collect();
    let manifest = version.manifest();
    let rank = manifest
        .model
        .as_ref()
        .map_or(manifest.dim, |model| model.rank);
    let delta = NewDelta {
        version: version.id(),
        number: version.delta() + 1,
        parent: version.delta_digest(),
        dim: manifest.dim,
        items: &items,
        vectors: &vectors,
        factors: has_factors(version).then_some((rank, factors.as_slice())),
        tombstones: &gone,
        command: "refrain freshen",
    };
    Ok(write_delta(out, &delta)?)
}

#[cfg(test)]
mod tests;
