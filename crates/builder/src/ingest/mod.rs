//! Reading listening logs, item attributes, id lists and exclusions.
//!
//! A file is told by its content, never by its name: Parquet, or delimited text, plain or
//! compressed by gzip (of several members too) or zstd. Text is sniffed for its delimiter, quotes,
//! header and layout; columns are found by their usual names, or by what [`ReadOptions`] says.
//!
//! ```text
//! source (decompress) -> sniff + delimited ─┐
//!                     -> columnar (Parquet) ─┴─> table (rows, bad rows) -> listens (in columns, or sorted) | items | ids
//! ```
//!
//! Sorted listens can be kept, so that a log that has grown is read from where it ended (`kept`).
//!
//! Limits: lines of 1 MiB ([`ReadOptions::max_line_bytes`]), ids of [`MAX_ID_BYTES`], names of
//! [`MAX_NAME_BYTES`], counts of [`MAX_COUNT`], times of the years 1900 to 2199, [`MAX_TAGS`] tags
//! an item, [`crate::dictionary::MAX_STRINGS`] ids a dictionary.

mod columnar;
mod delimited;
mod error;
mod exclusions;
mod fields;
mod items;
mod kept;
mod listens;
mod log;
mod options;
mod read_items;
mod records;
mod report;
mod sniff;
mod sorted;
mod source;
mod table;
mod value;

#[cfg(test)]
mod tests;

pub use error::{ColumnList, IngestError};
pub use exclusions::{ExclusionReport, Exclusions, read_exclusions};
pub use items::{Attributes, Items};
pub use kept::read_kept;
pub use listens::{read_listens, read_sorted};
pub use log::{Listen, Log};
pub use options::{ColumnRef, Delimiter, Field, MappingError, ReadOptions};
pub use read_items::{MAX_TAGS, read_ids, read_items};
pub use records::Room;
pub(crate) use records::Sequence;
pub use report::{BadRow, FileReport, ReadReport};
pub(crate) use sorted::for_each_user;
#[cfg(test)]
pub(crate) use sorted::sorted;
pub use sorted::{SortedLog, UserListens, plays};
pub use table::ProgressFn;
pub use value::{MAX_COUNT, MAX_ID_BYTES, MAX_NAME_BYTES};
