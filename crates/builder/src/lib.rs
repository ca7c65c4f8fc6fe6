//! Offline jobs: ingest, generate, train, evaluate, build.
//!
//! A listen flows one way through this crate:
//!
//! ```text
//! files --ingest--> Log --train--> Model --build--> bundle
//!                    ^
//! preset --generate--+
//! ```
//!
//! Everything a file can get wrong is found in [`ingest`]; from [`ingest::Log`] on, ordinals are
//! in range, counts are finite and positive and ids are valid.

pub mod batch;
pub mod build;
pub mod calibrate;
mod checkpoint;
pub mod cluster;
pub mod dictionary;
pub mod evaluation;
pub mod files;
pub mod freshen;
pub mod gate;
pub mod generate;
pub mod import;
pub mod ingest;
pub mod model;
pub mod page;
pub mod plan;
pub mod train;
pub mod tune;

pub use dictionary::Dictionary;
