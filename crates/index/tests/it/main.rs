//! What an index promises: against the naive oracle, for degenerate input, when damaged.

mod answers;
mod common;
mod damage;
mod degenerate;
mod filters;
mod plan;
mod reuse;
