//! Checks of what came over the wire. Every complaint carries the path of its field; all complaints of
//! a request are told at once.

use std::fmt::Display;

use prost_types::Timestamp;
use refrain_taste::MAX_ID_BYTES;

use crate::refusal::{Refusal, Violation};

/// A number of complaints is enough: a request with a million bad events gets no longer answer than one
/// with a few.
const MAX_VIOLATIONS: usize = 32;

/// Collects what is wrong with a request.
#[derive(Debug, Default)]
pub(crate) struct Check {
    violations: Vec<Violation>,
}

impl Check {
    /// Adds a complaint.
    pub(crate) fn complain(&mut self, field: impl Display, description: impl Display) {
        if self.violations.len() < MAX_VIOLATIONS {
            self.violations.push(Violation {
                field: field.to_string(),
                description: description.to_string(),
            });
        }
    }

    /// Whether there is no complaint.
    pub(crate) fn is_clean(&self) -> bool {
        self.violations.is_empty()
    }

    /// Adds the complaints of another.
    pub(crate) fn append(&mut self, other: Self) {
        for Violation { field, description } in other.violations {
            self.complain(field, description);
        }
    }

    /// The refusal, if anything is wrong.
    pub(crate) fn finish(self) -> Result<(), Refusal> {
        if self.is_clean() {
            Ok(())
        } else {
            Err(Refusal::Invalid(self.violations))
        }
    }

    /// An id: 1 to [`MAX_ID_BYTES`] bytes.
    pub(crate) fn id(&mut self, field: impl Display, id: &str) {
        if id.is_empty() {
            self.complain(field, "is empty");
        } else {
            self.text(field, id, MAX_ID_BYTES);
        }
    }

    /// An id that may be absent.
    pub(crate) fn optional_id(&mut self, field: impl Display, id: &str) {
        self.text(field, id, MAX_ID_BYTES);
    }

    /// Text of at most `max` bytes.
    pub(crate) fn text(&mut self, field: impl Display, text: &str, max: usize) {
        if text.len() > max {
            self.complain(
                field,
                format_args!("is {} bytes, at most {max} are allowed", text.len()),
            );
        }
    }

    /// A list of at most `max` entries.
    pub(crate) fn at_most(&mut self, field: impl Display, len: usize, max: usize) -> bool {
        if len > max {
            self.complain(
                field,
                format_args!("has {len} entries, at most {max} are allowed"),
            );
        }
        len <= max
    }

    /// An optional number within `1..=max`, or its default.
    pub(crate) fn size(&mut self, field: &str, value: Option<u32>, default: u32, max: u32) -> u32 {
        match value {
            None => default,
            Some(value) => {
                if !(1..=max).contains(&value) {
                    self.complain(field, format_args!("is {value}, must be 1 to {max}"));
                }
                value
            }
        }
    }

    /// A timestamp in microseconds since 1970, within the years 1 to 9999 as protobuf has it.
    pub(crate) fn time(&mut self, field: impl Display, time: &Timestamp) -> i64 {
        /// 0001-01-01 and 9999-12-31, the range of `google.protobuf.Timestamp`.
        const SECONDS: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;
        if !SECONDS.contains(&time.seconds) || !(0..1_000_000_000).contains(&time.nanos) {
            self.complain(
                field,
                format_args!(
                    "is {} s {} ns, outside the years 1 to 9999",
                    time.seconds, time.nanos
                ),
            );
            return 0;
        }
        time.seconds * 1_000_000 + i64::from(time.nanos / 1_000)
    }
}

/// The value of a wire enum; `None`, after a complaint that names the number, for an unknown one.
pub(crate) fn known<E: TryFrom<i32>>(
    check: &mut Check,
    field: impl Display,
    value: i32,
) -> Option<E> {
    let known = E::try_from(value).ok();
    if known.is_none() {
        check.complain(
            field,
            format_args!("is {value}, which this server does not know"),
        );
    }
    known
}

/// Microseconds since 1970 as a wire timestamp.
#[expect(
    clippy::cast_possible_truncation,
    reason = "a remainder below 1e9 fits"
)]
pub(crate) fn timestamp(us: i64) -> Timestamp {
    Timestamp {
        seconds: us.div_euclid(1_000_000),
        nanos: (us.rem_euclid(1_000_000) * 1_000) as i32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaints(run: impl FnOnce(&mut Check)) -> Vec<String> {
        let mut check = Check::default();
        run(&mut check);
        match check.finish() {
            Ok(()) => Vec::new(),
            Err(Refusal::Invalid(violations)) => violations
                .into_iter()
                .map(|v| format!("{}: {}", v.field, v.description))
                .collect(),
            Err(other) => panic!("{other:?}"),
        }
    }

    #[test]
    fn ids_are_bounded() {
        assert_eq!(complaints(|c| c.id("user_id", "")), ["user_id: is empty"]);
        assert!(complaints(|c| c.id("user_id", &"x".repeat(128))).is_empty());
        assert_eq!(
            complaints(|c| c.id("user_id", &"é".repeat(65))),
            ["user_id: is 130 bytes, at most 128 are allowed"]
        );
        assert!(complaints(|c| c.optional_id("request_id", "")).is_empty());
    }

    #[test]
    fn sizes_are_bounded() {
        let mut check = Check::default();
        assert_eq!(check.size("page_size", None, 20, 1_000), 20);
        assert_eq!(check.size("page_size", Some(1_000), 20, 1_000), 1_000);
        assert!(check.finish().is_ok());
        assert_eq!(
            complaints(|c| _ = c.size("page_size", Some(0), 20, 1_000)),
            ["page_size: is 0, must be 1 to 1000"]
        );
        assert_eq!(
            complaints(|c| _ = c.size("page_size", Some(1_001), 20, 1_000)),
            ["page_size: is 1001, must be 1 to 1000"]
        );
    }

    #[test]
    fn times_round_trip_and_are_bounded() {
        for us in [0, -1, 1, 1_700_000_000_123_456, -62_135_596_800_000_000] {
            let mut check = Check::default();
            assert_eq!(check.time("event_time", &timestamp(us)), us);
            assert!(check.finish().is_ok());
        }
        for time in [
            Timestamp {
                seconds: i64::MAX,
                nanos: 0,
            },
            Timestamp {
                seconds: i64::MIN,
                nanos: 0,
            },
            Timestamp {
                seconds: 0,
                nanos: -1,
            },
            Timestamp {
                seconds: 0,
                nanos: 1_000_000_000,
            },
        ] {
            assert_eq!(
                complaints(|c| _ = c.time("event_time", &time)).len(),
                1,
                "{time:?}"
            );
        }
    }

    #[test]
    fn complaints_are_bounded() {
        let many =
            complaints(|c| (0..1_000).for_each(|i| c.complain(format_args!("f[{i}]"), "bad")));
        assert_eq!(many.len(), MAX_VIOLATIONS);
    }
}
