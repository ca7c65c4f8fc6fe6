//! A delta: one numbered, immutable file that adds to a published version.
//!
//! A section file (`docs/format.md`). It holds whole items, new ones and those that changed, with their
//! attributes and vectors, and the ids of items that were taken down. Deltas of a version are numbered
//! from 1 without a gap, and each names the digest of the one before it: who has applied number `n` has
//! applied these very bytes from 1 on, so replicas at the same number answer alike.
//!
//! The bytes are a function of what is in it: no time, no name of a machine.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::column::Column;
use crate::corruption::Corruption;
use crate::digest::{Digest, FileDigest};
use crate::items::{self, Item, Items, MAX_ID_BYTES, StringTable};
use crate::manifest::is_version_id;
use crate::section::{OpenError, OpenMode, SectionFile, SectionWriter, WriteError};

/// Most items, and most tombstones, of one delta: more is worth a build.
pub const MAX_DELTA_ITEMS: usize = 1 << 20;

/// What a delta is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeltaInfo {
    /// The version that it adds to.
    pub version: String,
    /// 1 for the first delta of a version, and so on without a gap.
    pub number: u64,
    /// Digest of the delta before; `None` for the first.
    pub parent: Option<Digest>,
    /// Values of a vector.
    pub dim: u32,
    /// Values of a factor row; 0 where the vectors are the factors, or there is no model.
    pub rank: u32,
    /// Items that are new or replace others.
    pub items: u32,
    /// Items that must not be shown any more.
    pub tombstones: u32,
    /// The command that made it.
    pub command: String,
}

/// A delta to be written.
#[derive(Debug, Clone, Copy)]
pub struct NewDelta<'a> {
    /// The version that it adds to.
    pub version: &'a str,
    /// Its number, 1 or more.
    pub number: u64,
    /// Digest of the delta before; `None` for number 1.
    pub parent: Option<Digest>,
    /// Values of a vector.
    pub dim: u32,
    /// New items and items that replace others: all of an item, also what did not change.
    pub items: &'a [Item<'a>],
    /// `items x dim` values, as the index keeps its own: of unit length for cosine.
    pub vectors: &'a [f32],
    /// `items x rank` values where the version keeps factors beside its vectors.
    pub factors: Option<(u32, &'a [f32])>,
    /// Ids to be taken down; none that is among the items.
    pub tombstones: &'a [&'a str],
    /// The command that made it.
    pub command: &'a str,
}

/// Writes a delta to a new file, durably and atomically. The same delta gives the same bytes.
///
/// # Errors
/// [`WriteError::BadValue`] names what breaks a rule; see [`WriteError`].
pub fn write_delta(path: &Path, delta: &NewDelta<'_>) -> Result<FileDigest, WriteError> {
    let bad = |what, at, rule| Err(WriteError::BadValue { what, at, rule });
    if delta.items.len() > MAX_DELTA_ITEMS || delta.tombstones.len() > MAX_DELTA_ITEMS {
        let rule = "a delta holds at most 1048576 items and as many tombstones: build a version";
        return bad("delta", delta.items.len(), rule);
    }
    if !is_version_id(delta.version)
        || delta.number == 0
        || (delta.number == 1) != delta.parent.is_none()
    {
        return bad("delta", 0, "it names its version, number and parent");
    }
    let (dim, rank) = (delta.dim, delta.factors.map_or(0, |(rank, _)| rank));
    let is = |values: &[f32], width: u32| values.len() == delta.items.len() * width as usize;
    if dim == 0
        || !is(delta.vectors, dim)
        || !delta
            .factors
            .is_none_or(|(rank, values)| rank > 0 && is(values, rank))
    {
        return bad(
            "delta",
            0,
            "it has one vector, and one row of factors, an item",
        );
    }
    let values = [
        (delta.vectors, dim),
        (delta.factors.map_or(&[][..], |(_, f)| f), rank),
    ];
    for (values, width) in values {
        if let Some(at) = values.iter().position(|value| !value.is_finite()) {
            return bad("vector", at / (width as usize).max(1), "values are finite");
        }
    }
    let mut ids: Vec<&str> = delta.items.iter().map(|item| item.id).collect();
    ids.extend(delta.tombstones);
    ids.sort_unstable();
    if ids.windows(2).any(|pair| pair[0] == pair[1]) {
        return bad(
            "delta",
            0,
            "no id comes twice, be it as item or as tombstone",
        );
    }
    let is_id = |id: &&str| (1..=MAX_ID_BYTES).contains(&id.len());
    if let Some(at) = delta.tombstones.iter().position(|id| !is_id(id)) {
        return bad("tombstone", at, "an id has 1 to 128 bytes");
    }
    let count = |len: usize| u32::try_from(len).map_err(|_| WriteError::TooMany { what: "items" });
    let info = DeltaInfo {
        version: delta.version.to_owned(),
        number: delta.number,
        parent: delta.parent,
        dim,
        rank,
        items: count(delta.items.len())?,
        tombstones: count(delta.tombstones.len())?,
        command: delta.command.to_owned(),
    };
    SectionWriter::write(path, |writer| {
        writer.add_record(DELTA, DELTA_VERSION, &info)?;
        items::add_items(writer, delta.items)?;
        writer.add_array(VECTORS, delta.vectors)?;
        if let Some((_, factors)) = delta.factors {
            writer.add_array(FACTORS, factors)?;
        }
        StringTable::write(writer, TOMBSTONES, delta.tombstones.iter().copied())
    })
}

/// A delta, mapped.
#[derive(Debug, Clone)]
pub struct DeltaFile {
    file: SectionFile,
    info: DeltaInfo,
    items: Items,
    vectors: Column<f32>,
    factors: Option<Column<f32>>,
    tombstones: StringTable,
}

impl DeltaFile {
    /// Maps the delta at `path` and checks that its parts have the shapes that they must have.
    /// [`verify`](Self::verify) checks all the rest; a delta must not be used before.
    ///
    /// # Errors
    /// [`OpenError`] when it is none, damaged, or of a newer version of the format.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let file = SectionFile::open(path, OpenMode::Map)?;
        let known: Vec<&str> = items::SECTIONS.iter().chain(SECTIONS).copied().collect();
        file.require_known(&known)?;
        let info: DeltaInfo = file.record(DELTA, DELTA_VERSION)?;
        let broken = |rule, got| Err(file.broken(DELTA, 0, rule, got).into());
        if !is_version_id(&info.version) {
            return broken("a delta names its version", 0);
        }
        if info.number == 0 || (info.number == 1) != info.parent.is_none() {
            return broken("a delta but the first names the one before it", info.number);
        }
        if info.dim == 0 {
            return broken("vectors have at least one value", 0);
        }
        let items = Items::open_among_others(&file)?;
        if items.len() != info.items {
            return broken(
                "the delta has as many items as it states",
                items.len().into(),
            );
        }
        let column = |name, width: u32| {
            let column = file.column::<f32>(name)?;
            if column.len() as u64 != u64::from(info.items) * u64::from(width) {
                let rule = "there is one row an item";
                return Err(OpenError::from(file.broken(
                    name,
                    0,
                    rule,
                    column.len() as u64,
                )));
            }
            Ok(column)
        };
        let vectors = column(VECTORS, info.dim)?;
        let factors = match info.rank {
            0 => None,
            rank => Some(column(FACTORS, rank)?),
        };
        let tombstones = StringTable::open(&file, TOMBSTONES)?;
        if tombstones.len() != info.tombstones {
            let rule = "the delta has as many tombstones as it states";
            return broken(rule, tombstones.len().into());
        }
        Ok(Self {
            info,
            items,
            vectors,
            factors,
            tombstones,
            file,
        })
    }

    /// What it is.
    pub fn info(&self) -> &DeltaInfo {
        &self.info
    }

    /// Its items, by their place in this delta.
    pub fn items(&self) -> &Items {
        &self.items
    }

    /// The vectors of the items, row after row.
    pub fn vectors(&self) -> &[f32] {
        self.vectors.as_slice()
    }

    /// The factors of the items, where the version keeps them beside its vectors.
    pub fn factors(&self) -> Option<&[f32]> {
        self.factors.as_ref().map(Column::as_slice)
    }

    /// The ids of items that were taken down. Of a delta that was not verified, only those that can be
    /// read.
    pub fn tombstones(&self) -> impl Iterator<Item = &str> {
        (0..self.tombstones.len()).filter_map(|at| self.tombstones.get(at))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// Length of the file in bytes.
    pub fn bytes(&self) -> u64 {
        self.file.file_len()
    }

    /// Digest of the file: the next delta names it.
    pub fn digest(&self) -> Digest {
        self.file.digest()
    }

    /// Reads all of it and checks it: block checksums, then that items, vectors and tombstones keep the
    /// rules.
    ///
    /// # Errors
    /// The first damage, with section and offset.
    pub fn verify(&self) -> Result<(), Corruption> {
        self.file.verify()?;
        self.items.check()?;
        let rows = [
            (VECTORS, self.vectors()),
            (FACTORS, self.factors().unwrap_or_default()),
        ];
        for (name, values) in rows {
            if let Some(at) = values.iter().position(|value| !value.is_finite()) {
                let rule = "values are finite";
                return Err(self.file.broken(name, at as u64 * 4, rule, at as u64));
            }
        }
        for at in 0..self.tombstones.len() {
            let id = self.tombstones.get(at);
            let id = id.filter(|id| (1..=MAX_ID_BYTES).contains(&id.len()));
            if id.is_none_or(|id| self.items.ordinal(id).is_some()) {
                let rule = "tombstones are UTF-8 of 1 to 128 bytes and none of the items";
                return Err(self.file.broken(
                    "tombstones.offsets",
                    u64::from(at) * 8,
                    rule,
                    at.into(),
                ));
            }
        }
        Ok(())
    }
}

const DELTA: &str = "delta";
const DELTA_VERSION: u8 = 1;
const VECTORS: &str = "vectors";
const FACTORS: &str = "factors";
const TOMBSTONES: &str = "tombstones";
const SECTIONS: &[&str] = &[
    DELTA,
    VECTORS,
    FACTORS,
    "tombstones.offsets",
    "tombstones.bytes",
];

#[cfg(test)]
mod tests;
