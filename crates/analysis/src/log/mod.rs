//! The exposure and outcome log: Parquet in, one record a row out, in one pass over all cores and in
//! bounded memory.
//!
//! [`LogFiles`] finds the files and checks their columns before a row is read. `scan::scan` decodes
//! row groups in parallel, keeps the rows of one experiment epoch, and deals them to partitions by a
//! hash of the unit, so that all of a unit ends up in one place; what does not fit the memory budget
//! waits in unlinked temporary files (`spill`). Units, arms and events are numbers from here on.

pub(crate) mod columns;
mod error;
pub(crate) mod files;
pub(crate) mod group;
pub(crate) mod holdout;
pub(crate) mod items;
mod options;
pub(crate) mod record;
mod rows;
pub(crate) mod scan;
pub(crate) mod spill;
pub(crate) mod symbols;

pub use error::LogError;
pub use files::LogFiles;
pub use options::{ReadOptions, RowCounts};
