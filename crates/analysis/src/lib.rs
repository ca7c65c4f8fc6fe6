//! From exposures and outcomes to a verdict that an experiment's owner can trust.
//!
//! [`methods`] holds the statistics: pure functions of small summaries, no files, no clock, no
//! randomness that is not seeded.

pub mod methods;
