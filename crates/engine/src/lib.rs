//! One in-process recommender: bundle, taste, ranking and experiments make an answer.
//!
//! [`Version`] is one mapped bundle, ready to answer. [`recommend`] answers for a listener, for
//! seeds or for a vector; [`similar`] for an item. [`fold_in`] makes a listener's profile into what a
//! search needs, and [`TasteCache`] keeps that. [`Policy`] says which ranking variant a listener
//! gets. Everything is synchronous and knows nothing of a wire, so that a server, a gate and a batch
//! job give the same answers. [`interleave`] drafts one list of two variants, and [`moved`] says why
//! two lists differ.
//!
//! # What every answer keeps to
//! On every path (graph, exact search, popularity) an answer holds no item that the version blocks,
//! that a SERVE rule of the listener forbids, that the request filters out, or, unless the request
//! allows it, that the listener has heard or gave as a seed. It holds exactly `k` items whenever that
//! many are allowed, also under a cap per artist, unless the time budget ends first, which it says.
//! The same version, delta, request and instant give the same answer.
//!
//! # Deltas
//! A [`Version`] is a base and the deltas applied to it ([`Version::with_deltas`]). Every path sees both
//! as one catalogue ([`VersionItems`]) and one index, whose answers are merged by score, then ordinal.

mod answer;
mod debiased;
mod delta;
mod explain;
mod features;
mod filter;
mod interests;
mod interleave;
mod names;
mod policy;
mod popular;
mod query;
mod recommend;
mod request;
mod resemblance;
mod retrieve;
mod similar;
mod solve;
mod taste_cache;
mod trace;
mod version;

pub use answer::{Absence, Answer, Degraded, Missing, ProfileUse, Scored, Source, Tier};
pub use delta::{ByPopularity, DeltaError, ItemsUnder, VersionItems};
pub use explain::{Contribution, Explanation, Outcome, explain};
pub use interleave::interleave;
pub use names::NameList;
pub use policy::{Choice, Policy, PolicyError, UnknownVariant};
pub use recommend::{Scratch, recommend};
pub use refrain_bundle::OpenMode;
pub use refrain_index::{Deadline, SearchStats};
pub use request::{
    Fallback, ItemFilter, Limits, MissingSeeds, Problem, Request, RequestError, Seed, Seen,
    Similar, SimilarTo, Subject,
};
pub use similar::similar;
pub use solve::{FoldError, SolvedTaste, fold_in};
pub use taste_cache::TasteCache;
pub use trace::{Moved, Trace, Traced, Why, moved};
pub use version::{OpenError, VerifyError, Version, VersionCatalogue, WarmError, Warmth};
