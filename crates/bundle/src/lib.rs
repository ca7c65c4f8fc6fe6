//! What a version is on disk: section files, checksums, the manifest, the memory map; the store and its labels.
//!
//! A *bundle* is one immutable directory that holds everything one version needs to answer: the
//! index, the items, the fold-in model, golden queries with their expected answers, and a manifest
//! that lists them all. Its bulk data lives in *section files* (see [`section`]), which are mapped
//! and shared as [`bytes::Bytes`], so that a reader needs neither a copy nor `unsafe`.
//!
//! Opening is O(1): a header, a table and a manifest are checked and nothing else is read. What the
//! bytes say is therefore never trusted by the views of this crate: a flipped bit yields a wrong
//! answer at worst, never a fault or an ordinal out of range, and `verify` finds and names it.
//!
//! `docs/format.md` describes every byte.

// Sections are plain little-endian arrays and are read where they lie.
#[cfg(target_endian = "big")]
compile_error!(
    "refrain's files are little-endian and are read in place: big-endian hosts are not supported"
);

mod both;
pub mod bundle;
mod column;
mod corruption;
pub mod delta;
mod digest;
mod durable;
pub mod items;
pub mod manifest;
mod map;
mod record;
pub mod section;
pub mod store;
mod time;

pub use both::both;
pub use bundle::{Bundle, BundleWriter, Golden, Model, VerifyError, VerifyReport};
pub use column::Column;
pub use corruption::{Corruption, Mismatch};
pub use delta::{DeltaFile, DeltaInfo, NewDelta, write_delta};
pub use digest::{Digest, FileDigest, Hasher};
pub use items::{Dictionary, Item, Items, Ordinals, StringTable, write_items};
pub use manifest::{Manifest, ManifestError};
pub use map::Counters;
pub use section::{
    OpenError, OpenMode, SectionFile, SectionSpec, SectionWriter, WriteError, write_sections,
};
pub use store::{
    Collected, DeltaPublished, Keep, Label, PublishDeltaError, PublishError, Published, Store,
    StoreError, VersionInfo,
};
