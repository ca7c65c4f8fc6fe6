//! What a request may ask for beyond what the engine and the profile store bound themselves.
//! `GetServing` publishes all of it, so that clients adapt.

use std::time::Duration;

use refrain::v1;
use refrain_engine::Limits as Engine;
use refrain_taste::{MAX_EVENTS_PER_APPEND, MAX_ID_BYTES, MAX_RULES_PER_USER};
use serde::Deserialize;

/// Longest surface or context label, in bytes.
pub(crate) const MAX_LABEL_BYTES: usize = 64;
/// Results when a request does not say how many.
pub(crate) const DEFAULT_PAGE_SIZE: u32 = 20;
/// Most entries in a page of a list.
pub(crate) const MAX_LIST_SIZE: u32 = 1_000;
/// Entries in a page of a list when a request does not say how many.
pub(crate) const DEFAULT_LIST_SIZE: u32 = 100;
/// Most context labels of a request.
pub(crate) const MAX_CONTEXT_LABELS: usize = 16;
/// Most variants in one comparison.
pub(crate) const MAX_VARIANTS: usize = 16;
/// How long a read waits for the profile revision that it demands.
pub(crate) const REVISION_WAIT: Duration = Duration::from_millis(50);
/// Share of the time left that the engine may search for; the rest is for the way back.
pub(crate) const SEARCH_SHARE: f64 = 0.8;

/// The limits that an operator may move: section `[limits]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Limits {
    /// Largest message either way, in bytes. 1 KiB to 64 MiB; default 4 MiB.
    pub max_message_bytes: usize,
    /// Requests in flight; the next one is refused with UNAVAILABLE. 1 to 65,536; default 512.
    pub max_in_flight: usize,
    /// Requests in flight on one connection. 1 to 65,536; default 256.
    pub max_streams_per_connection: u32,
    /// Deadline of a request that brings none, in milliseconds. 1 to `max_deadline_ms`; default 1,000.
    pub default_deadline_ms: u64,
    /// Longest deadline of a unary request, in milliseconds; a longer one is INVALID_ARGUMENT.
    /// 1 to 600,000; default 30,000.
    pub max_deadline_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_message_bytes: 4 << 20,
            max_in_flight: 512,
            max_streams_per_connection: 256,
            default_deadline_ms: 1_000,
            max_deadline_ms: 30_000,
        }
    }
}

impl Limits {
    /// The first value out of range: its key and what is allowed.
    pub(crate) fn out_of_range(&self) -> Option<(&'static str, &'static str)> {
        let message = 1 << 10..=64 << 20;
        let streams = 1..=65_536;
        let default_deadline = 1..=self.max_deadline_ms;
        [
            (
                message.contains(&self.max_message_bytes),
                ("max_message_bytes", "1024 to 67108864"),
            ),
            (
                (1..=65_536).contains(&self.max_in_flight),
                ("max_in_flight", "1 to 65536"),
            ),
            (
                streams.contains(&self.max_streams_per_connection),
                ("max_streams_per_connection", "1 to 65536"),
            ),
            (
                (1..=600_000).contains(&self.max_deadline_ms),
                ("max_deadline_ms", "1 to 600000"),
            ),
            (
                default_deadline.contains(&self.default_deadline_ms),
                ("default_deadline_ms", "1 to max_deadline_ms"),
            ),
        ]
        .into_iter()
        .find_map(|(ok, complaint)| (!ok).then_some(complaint))
    }

    /// As `GetServing` tells them.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the constants are far below u32::MAX"
    )]
    pub(crate) fn to_wire(&self) -> v1::Limits {
        v1::Limits {
            max_message_bytes: self.max_message_bytes as u64,
            max_page_size: Engine::K as u32,
            max_id_bytes: MAX_ID_BYTES as u32,
            max_seeds: Engine::SEEDS as u32,
            max_events: MAX_EVENTS_PER_APPEND as u32,
            max_filter_ids: Engine::FILTER_ITEMS as u32,
            max_exclusions: MAX_RULES_PER_USER,
            default_deadline_ms: self.default_deadline_ms,
            max_deadline_ms: self.max_deadline_ms,
        }
    }
}
