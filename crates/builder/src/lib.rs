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

pub mod build;
pub mod dictionary;
pub mod evaluation;
pub mod freshen;
pub mod generate;
pub mod ingest;
pub mod model;
pub mod train;

pub use dictionary::Dictionary;
