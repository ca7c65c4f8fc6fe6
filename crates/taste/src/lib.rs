//! Taste profiles: events, the exclusion algebra, the durable profile store.
