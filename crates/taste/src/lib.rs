//! Taste profiles: what a listener did, what of it may shape or reappear in their recommendations,
//! and where both are kept.
//!
//! Two halves that know nothing of each other's insides:
//!
//! * The algebra is pure. A [`Profile`] holds [`Event`]s and [`Rule`]s; [`resolve`] turns them into
//!   a [`Taste`]: weighted evidence to fold in, items already met, items that must not be shown.
//!   [`decide`] tells event by event what the rules made of it. Rules never destroy events, so an
//!   exclusion is retroactive and its undo is exact: at strength 1 the evidence equals, bit for bit,
//!   that of a profile which never held the excluded events.
//! * A [`ProfileStore`] keeps profiles durably: a write is acknowledged after it is on disk, and whoever
//!   reads after the acknowledgement sees it. [`RedbStore`] is the embedded one, [`PostgresStore`] the one
//!   that replicas share; both pass one conformance suite.

mod apply;
mod codec;
mod event;
mod invalid;
mod postgres_store;
mod profile;
mod queue;
mod redb_store;
mod resolve;
mod rule;
mod store;
mod weights;

pub use event::{Event, EventKind, MAX_COUNT, MAX_PLAYED_MS, UnknownKind};
pub use invalid::{InvalidField, MAX_ID_BYTES, MAX_TIME_US, MIN_TIME_US, Problem};
pub use postgres_store::{OpenPostgresError, PostgresOptions, PostgresStore};
pub use profile::Profile;
pub use redb_store::{
    CompactOptions, CompactReport, ImportError, ImportReport, InvalidOption, OpenStoreError,
    RedbStore, StoreOptions,
};
pub use resolve::{Catalogue, EventDecision, Taste, decide, resolve, serving_rule};
pub use rule::{Action, Effect, MAX_NOTE_BYTES, Rule, Scope};
pub use store::{
    Done, Erased, MAX_EVENTS_PER_APPEND, MAX_RULES_PER_USER, ProfileStore, Receipt, StoreError,
    Write,
};
pub use weights::{HALF_LIFE_DAYS, InvalidWeight, MAX_WEIGHT, Weights};
