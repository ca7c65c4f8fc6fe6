//! The statistical methods, one family a file. Nothing here reads files, clocks or entropy: the same
//! input gives the same bits.
//!
//! # How the parts fit
//! 1. Units are folded into a [`moments::Tally`], which merges exactly, so neither the order of rows
//!    nor the number of threads shows in any digit; it yields [`moments::Moments`].
//! 2. An *estimator* turns two arms into a [`effect::Comparison`] or a bare [`effect::Effect`]:
//!    [`mean`], [`proportion`], [`ratio`], [`cuped`], [`quantile`], [`longitudinal`], [`did`], [`iv`].
//! 3. A *monitor* says how many standard errors are enough: [`effect::critical`] for a single look,
//!    [`sequential::GroupSequential`] for planned peeking, [`always_valid`] for peeking at will,
//!    [`fixed_power`] for stopping on precision.
//! 4. [`decision`] judges each metric in its role and combines the judgements; [`srm`] guards the
//!    door.
//!
//! Effects are always treatment minus control.

pub mod always_valid;
pub mod cuped;
pub mod decision;
pub mod did;
pub mod effect;
pub mod error;
pub mod fixed_power;
pub mod interleaving;
pub mod iv;
pub mod linear;
pub mod longitudinal;
pub mod mean;
pub mod moments;
pub mod multiplicity;
pub mod novelty;
pub mod off_policy;
pub mod offline_online;
pub mod policy;
pub mod power;
pub mod proportion;
pub mod quantile;
pub mod ratio;
pub mod segments;
pub mod sequential;
pub mod special;
pub mod srm;

mod double;
mod exact_sum;
mod integrate;
mod matrix;
mod random;
mod root;

pub use error::MethodError;
