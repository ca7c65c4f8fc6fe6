//! The engine on small synthetic versions, which the tests build themselves.

#![expect(
    clippy::cast_possible_truncation,
    reason = "expected values are rounded to f32"
)]

mod debias;
mod deltas;
mod fixture;
mod guarantees;
mod interests;
mod policies;
mod requests;
mod retrieval;
mod shaping;
mod tastes;
mod versions;
