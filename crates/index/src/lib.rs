//! Hierarchical navigable small world graphs (Malkov & Yashunin, 2018): deterministic parallel
//! build, search, filters, exact search.
//!
//! [`build`] makes the sections of an index from vectors; [`Index::open`] views them, wherever
//! their bytes lie, without copying or reading through; [`Index::search`] answers. Nothing here
//! opens a file, and nothing knows what an item is.

mod batch;
mod browse;
mod build;
mod cap;
mod check;
mod codes;
mod deadline;
mod debias;
mod delta;
mod detour;
mod exact;
mod filter;
mod front;
mod heads;
mod index;
mod layout;
#[cfg(test)]
mod made;
mod nibbles;
mod pool;
mod scratch;
mod search;
mod space;
mod walk;

pub use batch::BatchError;
pub use browse::Browse;
pub use build::{
    BuildError, BuildParams, BuildStats, BuiltIndex, Checkpoints, Hints, Parent, Progress, Saved,
    Saving, Section, build, build_from, build_resumable,
};
pub use cap::{Cap, Groups};
pub use check::{Problem, StructureError};
pub use deadline::Deadline;
pub use debias::{Debias, DebiasError};
pub use delta::{Delta, DeltaError, DeltaScratch, merge, merge_capped};
pub use filter::{Filter, OrdinalSet};
pub use index::{Index, IndexParams, OpenError};
pub use layout::{MAX_DIM, MAX_ITEMS, MAX_M, MIN_M, expected_bytes};
pub use scratch::Scratch;
pub use search::{Hit, SearchError, SearchParams, SearchStats, Strategy, strategy};
