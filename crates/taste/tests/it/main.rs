//! What the crate promises, from outside.

#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking, in its helpers too"
)]

mod algebra;
mod catalogue;
mod conformance;
mod crash;
mod examples;
mod opening;
mod postgres;
mod random;
mod store;
