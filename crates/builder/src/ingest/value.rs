//! Single values: ids, counts and times, and what can be wrong with a row.

use jiff::Timestamp;
use jiff::civil::{Date, DateTime};
use jiff::tz::Offset;

use super::error::Excerpt;
use super::options::Field;

/// The longest id in bytes, as in a bundle.
pub const MAX_ID_BYTES: usize = 128;
/// The longest title, artist or tag in bytes.
pub const MAX_NAME_BYTES: usize = 1024;
/// The largest count of one row.
pub const MAX_COUNT: f64 = 1e9;

/// 1900-01-01 and 2200-01-01: what is outside is a mistake.
const TIME_RANGE_S: std::ops::Range<i64> = -2_208_988_800..7_258_118_400;

/// One value of a row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Value<'a> {
    /// No such column, or a null.
    Missing,
    /// Bytes that are not known to be UTF-8.
    Text(&'a [u8]),
    Integer(i64),
    Float(f64),
    TimeUs(i64),
}

/// Why a row is bad.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub(crate) enum Problem {
    #[error("the {0} is empty")]
    Empty(Field),
    #[error("the {field} is {bytes} bytes long, at most {limit} are allowed")]
    TooLong {
        field: Field,
        bytes: usize,
        limit: usize,
    },
    #[error("the {field} {value} is not valid UTF-8")]
    Encoding { field: Field, value: String },
    #[error("the {field} {value} has a control character")]
    Control { field: Field, value: String },
    #[error("the {field} {value} is not a number")]
    NotANumber { field: Field, value: String },
    #[error("the {field} {value} is negative")]
    Negative { field: Field, value: f64 },
    #[error("the {field} {value} is larger than {limit}")]
    TooLarge {
        field: Field,
        value: f64,
        limit: f64,
    },
    #[error("the {field} {value} is neither a number nor a date")]
    NotATime { field: Field, value: String },
    #[error("the {field} {value} is outside the years 1900 to 2199")]
    TimeRange { field: Field, value: String },
    #[error("the {field} {value} is not one of {allowed}")]
    NotOneOf {
        field: Field,
        value: String,
        allowed: &'static str,
    },
    #[error("the row has {found} columns, expected {expected}")]
    Width { found: usize, expected: usize },
    #[error("a user without items is not a row: expected 'user item item …'")]
    Alone,
}

/// Text that is fit to be an id or a name: trimmed, not empty, no control characters.
pub(crate) fn text(field: Field, bytes: &[u8], limit: usize) -> Result<&str, Problem> {
    let bytes = bytes.trim_ascii();
    if bytes.is_empty() {
        return Err(Problem::Empty(field));
    }
    if bytes.len() > limit {
        return Err(Problem::TooLong {
            field,
            bytes: bytes.len(),
            limit,
        });
    }
    let text = std::str::from_utf8(bytes).map_err(|_| Problem::Encoding {
        field,
        value: excerpt(bytes),
    })?;
    if text.chars().any(char::is_control) {
        return Err(Problem::Control {
            field,
            value: excerpt(bytes),
        });
    }
    Ok(text)
}

/// A finite number, not negative.
pub(crate) fn number(field: Field, value: Value<'_>, limit: f64) -> Result<f64, Problem> {
    let number = match value {
        Value::Missing => return Err(Problem::Empty(field)),
        #[expect(
            clippy::cast_precision_loss,
            reason = "beyond 2^53 it exceeds every limit"
        )]
        Value::Integer(integer) => integer as f64,
        Value::Float(float) => float,
        #[expect(clippy::cast_precision_loss, reason = "as above")]
        Value::TimeUs(us) => us as f64,
        Value::Text(bytes) => {
            let trimmed = bytes.trim_ascii();
            if trimmed.is_empty() {
                return Err(Problem::Empty(field));
            }
            parse_number(trimmed).ok_or_else(|| Problem::NotANumber {
                field,
                value: excerpt(trimmed),
            })?
        }
    };
    if number.is_nan() {
        return Err(Problem::NotANumber {
            field,
            value: "NaN".to_owned(),
        });
    }
    if number < 0.0 {
        return Err(Problem::Negative {
            field,
            value: number,
        });
    }
    if number > limit {
        return Err(Problem::TooLarge {
            field,
            value: number,
            limit,
        });
    }
    Ok(number)
}

/// Microseconds since 1970 UTC: a number (seconds, ms, µs or ns, told by its magnitude), RFC 3339
/// or `YYYY-MM-DD[ HH:MM[:SS[.f]]]`, which is taken as UTC.
pub(crate) fn time_us(field: Field, value: Value<'_>) -> Result<i64, Problem> {
    let (us, shown): (Option<i64>, &dyn Fn() -> String) = match value {
        Value::Missing => return Err(Problem::Empty(field)),
        Value::TimeUs(us) => (Some(us), &move || format!("{us} µs")),
        Value::Integer(integer) => match calendar_us(field, integer) {
            Some(us) => (Some(us), &move || integer.to_string()),
            None => (integer_us(integer), &move || integer.to_string()),
        },
        Value::Float(float) => (float_us(float), &move || float.to_string()),
        Value::Text(bytes) => {
            let bytes = bytes.trim_ascii();
            if bytes.is_empty() {
                return Err(Problem::Empty(field));
            }
            let us = parse_time(field, bytes).ok_or_else(|| Problem::NotATime {
                field,
                value: excerpt(bytes),
            })?;
            (us, &move || excerpt(bytes))
        }
    };
    us.filter(|us| TIME_RANGE_S.contains(&us.div_euclid(1_000_000)))
        .ok_or_else(|| Problem::TimeRange {
            field,
            value: shown(),
        })
}

/// Whether text can be read as a count.
pub(crate) fn looks_like_number(bytes: &[u8]) -> bool {
    parse_number(bytes.trim_ascii()).is_some()
}

/// Whether text can only be a time: a date, or a number no count reaches.
pub(crate) fn looks_like_time(bytes: &[u8]) -> bool {
    const SMALLEST_TIME: f64 = 1e8; // 1973
    let bytes = bytes.trim_ascii();
    match parse_number(bytes) {
        Some(number) => number.abs() >= SMALLEST_TIME,
        None => parse_time(Field::Time, bytes).flatten().is_some(),
    }
}

pub(crate) fn excerpt(bytes: &[u8]) -> String {
    Excerpt(bytes).to_string()
}

/// A decimal number; words such as `inf` and `nan`, which `f64` reads, are none.
fn parse_number(bytes: &[u8]) -> Option<f64> {
    let starts_well = bytes.first()?.is_ascii_digit() || matches!(bytes[0], b'-' | b'+' | b'.');
    let plain =
        |byte: &u8| byte.is_ascii_digit() || matches!(byte, b'-' | b'+' | b'.' | b'e' | b'E');
    if !starts_well || !bytes.iter().all(plain) {
        return None;
    }
    std::str::from_utf8(bytes).ok()?.parse().ok()
}

/// `None` when this is no time at all, `Some(None)` when it is one that cannot be represented.
fn parse_time(field: Field, bytes: &[u8]) -> Option<Option<i64>> {
    let text = std::str::from_utf8(bytes).ok()?;
    if let Ok(integer) = text.parse::<i64>() {
        if let Some(us) = calendar_us(field, integer) {
            return Some(Some(us));
        }
        return Some(integer_us(integer));
    }
    if let Some(float) = parse_number(bytes) {
        return Some(float_us(float));
    }
    if let Ok(timestamp) = text.parse::<Timestamp>() {
        return Some(Some(timestamp.as_microsecond()));
    }
    let utc = |civil: DateTime| {
        Some(
            Offset::UTC
                .to_timestamp(civil)
                .ok()
                .map(Timestamp::as_microsecond),
        )
    };
    match (text.parse::<DateTime>(), text.parse::<Date>()) {
        (Ok(civil), _) => utc(civil),
        (Err(_), Ok(date)) => utc(date.to_datetime(jiff::civil::Time::midnight())),
        (Err(_), Err(_)) => None,
    }
}

/// A number that is a date to people: `20261122` everywhere, and the year `1997` of a release. As seconds
/// both would be days of 1970 that no log means.
fn calendar_us(field: Field, integer: i64) -> Option<i64> {
    const YEARS: std::ops::RangeInclusive<i64> = 1900..=2199;
    let (year, month, day) = if field == Field::ReleaseTime && YEARS.contains(&integer) {
        (integer, 1, 1)
    } else {
        (integer / 10_000, integer / 100 % 100, integer % 100)
    };
    if !YEARS.contains(&year) {
        return None;
    }
    let date = Date::new(
        i16::try_from(year).ok()?,
        i8::try_from(month).ok()?,
        i8::try_from(day).ok()?,
    );
    let midnight = date.ok()?.to_datetime(jiff::civil::Time::midnight());
    let at = Offset::UTC.to_timestamp(midnight).ok()?;
    Some(at.as_microsecond())
}

/// Seconds up to 1e11 (the year 5138), milliseconds up to 1e14, microseconds up to 1e17.
fn integer_us(integer: i64) -> Option<i64> {
    match integer.unsigned_abs() {
        size if size < 100_000_000_000 => integer.checked_mul(1_000_000),
        size if size < 100_000_000_000_000 => integer.checked_mul(1_000),
        size if size < 100_000_000_000_000_000 => Some(integer),
        _ => Some(integer.div_euclid(1_000)),
    }
}

fn float_us(float: f64) -> Option<i64> {
    let us = match float.abs() {
        size if size < 1e11 => float * 1e6,
        size if size < 1e14 => float * 1e3,
        size if size < 1e17 => float,
        _ => float / 1e3,
    };
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the range was checked just before"
    )]
    (us.abs() < 9e18).then(|| us.round() as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_time(text: &str, expected: Result<i64, &str>) {
        let got = time_us(Field::Time, Value::Text(text.as_bytes()));
        let got = got.map_err(|problem| problem.to_string());
        match expected {
            Ok(us) => assert_eq!(got, Ok(us), "{text}"),
            Err(part) => assert!(got.clone().unwrap_err().contains(part), "{text}: {got:?}"),
        }
    }

    #[test]
    fn times_of_every_unit_and_form() {
        let us = 1_507_174_845_020_000;
        check_time("1507174845", Ok(1_507_174_845_000_000));
        check_time("1507174845.02", Ok(us));
        check_time("1507174845020", Ok(us));
        check_time("1507174845020000", Ok(us));
        check_time("1507174845020000123", Ok(us));
        check_time("2017-10-05T03:40:45.02Z", Ok(us));
        check_time("2017-10-05T05:40:45.02+02:00", Ok(us));
        check_time("2017-10-05 03:40:45.02", Ok(us));
        check_time(" 2017-10-05 03:40:45 ", Ok(1_507_174_845_000_000));
        check_time("2017-10-05", Ok(1_507_161_600_000_000));
        check_time("20171005", Ok(1_507_161_600_000_000));
        check_time("20171305", Ok(20_171_305_000_000));
        check_time("1997", Ok(1_997_000_000));
        let release = |value| time_us(Field::ReleaseTime, value).map_err(|e| e.to_string());
        assert_eq!(release(Value::Text(b"1997")), Ok(852_076_800_000_000));
        assert_eq!(release(Value::Integer(1997)), Ok(852_076_800_000_000));
        check_time("0", Ok(0));
        check_time("-1", Ok(-1_000_000));
        check_time("", Err("is empty"));
        check_time("yesterday", Err("neither a number nor a date"));
        check_time("2017-13-05", Err("neither a number nor a date"));
        check_time("99999999999", Err("outside the years"));
        check_time("-9223372036854775808", Err("outside the years"));
        check_time("1e300", Err("outside the years"));
        check_time("1850-01-01", Err("outside the years"));
    }

    #[track_caller]
    fn check_count(value: Value<'_>, expected: Result<f64, &str>) {
        let got = number(Field::Count, value, MAX_COUNT).map_err(|problem| problem.to_string());
        match expected {
            Ok(count) => assert_eq!(got, Ok(count)),
            Err(part) => assert!(got.clone().unwrap_err().contains(part), "{got:?}"),
        }
    }

    #[test]
    fn counts() {
        check_count(Value::Text(b"22244"), Ok(22_244.0));
        check_count(Value::Text(b" 4.5 "), Ok(4.5));
        check_count(Value::Text(b"1e3"), Ok(1_000.0));
        check_count(Value::Text(b"0"), Ok(0.0));
        check_count(Value::Integer(3), Ok(3.0));
        check_count(Value::Text(b"-1"), Err("is negative"));
        check_count(Value::Text(b"nan"), Err("not a number"));
        check_count(Value::Text(b"inf"), Err("not a number"));
        check_count(Value::Text(b"1e999"), Err("larger than"));
        check_count(Value::Text(b""), Err("is empty"));
        check_count(Value::Text(b"\xff"), Err("not a number"));
        check_count(Value::Float(f64::NAN), Err("not a number"));
        check_count(Value::Integer(i64::MIN), Err("is negative"));
    }

    #[test]
    fn ids() {
        let id = |bytes| text(Field::User, bytes, MAX_ID_BYTES).map_err(|p| p.to_string());
        assert_eq!(id(b" u1 "), Ok("u1"));
        assert_eq!(id("Sigur Rós".as_bytes()), Ok("Sigur Rós"));
        assert!(id(b"").unwrap_err().contains("empty"));
        assert!(id(&[b'x'; 129]).unwrap_err().contains("129 bytes long"));
        assert_eq!(id(&[b'x'; 128]).unwrap().len(), 128);
        assert!(id(b"a\0b").unwrap_err().contains("control character"));
        assert!(id(b"a\xffb").unwrap_err().contains("not valid UTF-8"));
    }
}
