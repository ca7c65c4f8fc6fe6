//! The whole tool on simulated logs whose truth is known, and on logs that are wrong.

mod aa;
mod bad_input;
mod context;
mod cookie_cats;
mod kinds;
mod monitors;
mod page;
mod panel;
mod reference;
mod support;
mod units;
mod verdicts;
