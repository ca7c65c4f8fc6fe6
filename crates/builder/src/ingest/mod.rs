//! Reading listening logs, item attributes, id lists and exclusions.

mod items;
mod log;
mod report;

pub use items::{Attributes, Items};
pub use log::{Listen, Log};
pub use report::{BadRow, FileReport, ReadReport};
