//! What the crate promises, from outside.

mod algebra;
mod catalogue;
mod conformance;
mod crash;
mod examples;
mod opening;
mod random;
mod store;
