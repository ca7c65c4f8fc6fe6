//! A row of the log as it travels: 48 bytes, whatever it was.

use bytemuck::{Pod, Zeroable};

/// A row. Sorting brings the rows of a unit together, exposures first, each kind in the
/// order of time, and equal rows side by side, whatever order they came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct Record {
    /// xxh3-128 of the unit's id.
    pub(crate) unit: [u64; 2],
    /// [`EXPOSURE`], [`OUTCOME`], [`COVARIATE`], [`ITEM`] or [`CREDIT`].
    pub(crate) kind: u32,
    /// Class of an exposure, event of an outcome, name of a covariate.
    pub(crate) code: u32,
    /// Microseconds since 1970, UTC.
    pub(crate) ts: i64,
    /// Id of an exposure; bits of an outcome's or covariate's value.
    pub(crate) value: u64,
    /// Latency and flags of an exposure; id of an outcome or 0.
    pub(crate) extra: u64,
}

pub(crate) const EXPOSURE: u32 = 0;
pub(crate) const OUTCOME: u32 = 1;
pub(crate) const COVARIATE: u32 = 2;

/// Of an interleaved list: an item that a team drafted (`value` the exposure, `extra` the item, `code`
/// `place << 1 | team`), and an event that names one (`code` the event). A list that is judged by its
/// items has these instead of outcomes.
pub(crate) const ITEM: u32 = 3;
pub(crate) const CREDIT: u32 = 4;

/// Bits above the latency of an exposure's `extra`.
pub(crate) const EMPTY: u64 = 1 << 32;
pub(crate) const DEGRADED: u64 = 1 << 33;
pub(crate) const BOT: u64 = 1 << 34;
/// The file has a latency column.
pub(crate) const TIMED: u64 = 1 << 35;

impl Ord for Record {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        // Codes come last: they are dealt out in the order in which threads meet the names.
        let key = |r: &Self| (r.unit, r.kind, r.ts, r.value, r.extra, r.code);
        key(self).cmp(&key(other))
    }
}

impl PartialOrd for Record {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Record {
    /// Latency of an exposure in microseconds.
    #[expect(clippy::cast_possible_truncation, reason = "the low half")]
    pub(crate) fn latency_us(&self) -> u32 {
        self.extra as u32
    }

    /// Value of an outcome or covariate.
    pub(crate) fn number(&self) -> f64 {
        f64::from_bits(self.value)
    }
}

/// The 128 bits that stand for a unit's id.
#[expect(clippy::cast_possible_truncation, reason = "both halves are kept")]
pub(crate) fn unit_hash(id: &str) -> [u64; 2] {
    let hash = xxhash_rust::xxh3::xxh3_128(id.as_bytes());
    [(hash >> 64) as u64, hash as u64]
}
