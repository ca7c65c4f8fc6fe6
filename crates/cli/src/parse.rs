//! Values of flags: durations, instants, vectors, weighted seeds.

use std::time::Duration;

use jiff::Timestamp;

/// A duration like `500ms`, `10s`, `2m`, `12h`, `30d`; more than zero.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let at = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    let seconds = match unit.trim() {
        "ms" => 0.001,
        "s" | "" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3_600.0,
        "d" => 86_400.0,
        other => return Err(format!("unknown unit {other:?}: use ms, s, m, h or d")),
    };
    let number: f64 = number
        .parse()
        .map_err(|_| "expected a number and a unit, like 10s")?;
    match Duration::try_from_secs_f64(number * seconds) {
        Ok(time) if !time.is_zero() => Ok(time),
        _ => Err("expected a duration above zero that fits a clock".to_owned()),
    }
}

/// An instant: RFC 3339, a date (its midnight in UTC), or seconds since 1970.
pub(crate) fn instant(text: &str) -> Result<Timestamp, String> {
    if let Ok(at) = text.parse::<Timestamp>() {
        return Ok(at);
    }
    if let Ok(date) = text.parse::<jiff::civil::Date>()
        && let Ok(midnight) = date.to_zoned(jiff::tz::TimeZone::UTC)
    {
        return Ok(midnight.timestamp());
    }
    if let Ok(seconds) = text.parse::<i64>()
        && let Ok(at) = Timestamp::from_second(seconds)
    {
        return Ok(at);
    }
    Err("expected an instant like 2026-11-22T19:45:00Z, 2026-11-22 or 1795376700".to_owned())
}

/// An instant, or a duration from now.
pub(crate) fn expiry(text: &str) -> Result<Timestamp, String> {
    // Bare digits are an instant: "1795376700" is not a duration of 56 years.
    if text.bytes().all(|b| b.is_ascii_digit()) {
        return instant(text);
    }
    match duration(text) {
        Ok(time) => jiff::SignedDuration::try_from(time)
            .ok()
            .and_then(|time| Timestamp::now().checked_add(time).ok())
            .ok_or_else(|| "too far in the future".to_owned()),
        Err(_) => instant(text)
            .map_err(|_| "expected a duration like 30d or an instant like 2026-12-31".to_owned()),
    }
}

/// A dense vector: finite numbers separated by commas, spaces or both; brackets are allowed.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct VectorArg(pub(crate) Vec<f32>);

/// Reads a [`VectorArg`].
pub(crate) fn vector(text: &str) -> Result<VectorArg, String> {
    let inner = text.trim().trim_start_matches('[').trim_end_matches(']');
    let mut values = Vec::new();
    for part in inner.split([',', ' ']).filter(|part| !part.is_empty()) {
        match part.parse::<f32>() {
            Ok(value) if value.is_finite() => values.push(value),
            _ => {
                return Err(format!(
                    "component {} is not a finite number: {part:?}",
                    values.len()
                ));
            }
        }
    }
    if values.is_empty() {
        Err("no components".to_owned())
    } else {
        Ok(VectorArg(values))
    }
}

/// An item with a weight above zero: `ITEM` or `ITEM=2.5`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SeedArg {
    /// The item.
    pub(crate) item: String,
    /// Its weight, when one is given.
    pub(crate) weight: Option<f32>,
}

/// Reads a [`SeedArg`]. What follows the last `=` is a weight only when it is a number, so that ids
/// may hold the sign.
pub(crate) fn seed(text: &str) -> Result<SeedArg, String> {
    if let Some((item, weight)) = text.rsplit_once('=')
        && let Ok(weight) = weight.parse::<f32>()
    {
        return if weight.is_finite() && weight > 0.0 && !item.is_empty() {
            Ok(SeedArg {
                item: item.to_owned(),
                weight: Some(weight),
            })
        } else {
            Err("the weight of a seed is finite and above zero".to_owned())
        };
    }
    if text.is_empty() {
        return Err("an item id has at least one character".to_owned());
    }
    Ok(SeedArg {
        item: text.to_owned(),
        weight: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        assert_eq!(duration("10s"), Ok(Duration::from_secs(10)));
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("1.5m"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("30d"), Ok(Duration::from_secs(30 * 86_400)));
        for bad in [
            "",
            "s",
            "0s",
            "-1s",
            "1y",
            "1e400s",
            "99999999999999999999d",
        ] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn instants() {
        let at = "2026-11-22T00:00:00Z".parse::<Timestamp>().expect("valid");
        assert_eq!(instant("2026-11-22"), Ok(at));
        assert_eq!(instant("2026-11-22T01:00:00+01:00"), Ok(at));
        assert_eq!(instant(&at.as_second().to_string()), Ok(at));
        assert_eq!(expiry("2026-11-22"), Ok(at));
        assert!(expiry("30d").is_ok_and(|then| then > Timestamp::now()));
        for bad in ["", "yesterday", "2026-13-01", "99999999999999999999"] {
            assert!(instant(bad).is_err(), "{bad}");
            assert!(expiry(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn vectors_are_finite_and_name_the_component() {
        assert_eq!(
            vector("[0.5, -1,2e-1]"),
            Ok(VectorArg(vec![0.5, -1.0, 0.2]))
        );
        assert_eq!(vector("1 2 3"), Ok(VectorArg(vec![1.0, 2.0, 3.0])));
        assert!(vector("1,NaN").is_err_and(|error| error.contains("component 1")));
        assert!(vector("1,1e39").is_err());
        assert!(vector("[]").is_err());
    }

    #[test]
    fn seeds_keep_equal_signs_in_ids() {
        let seed_of = |item: &str, weight| {
            Ok(SeedArg {
                item: item.to_owned(),
                weight,
            })
        };
        assert_eq!(seed("track:1"), seed_of("track:1", None));
        assert_eq!(seed("track:1=2.5"), seed_of("track:1", Some(2.5)));
        assert_eq!(seed("k=v"), seed_of("k=v", None));
        assert!(seed("track:1=0").is_err());
        assert!(seed("track:1=inf").is_err());
        assert!(seed("").is_err());
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_a_value_or_an_error(text in "\\PC{0,40}|[-0-9.eE=,:TZ\\[\\] dhms]{0,24}") {
            let _ = duration(&text);
            let _ = instant(&text);
            let _ = expiry(&text);
            if let Ok(VectorArg(values)) = vector(&text) {
                proptest::prop_assert!(!values.is_empty());
                proptest::prop_assert!(values.iter().all(|value| value.is_finite()));
            }
            if let Ok(seed) = seed(&text) {
                proptest::prop_assert!(!seed.item.is_empty());
                proptest::prop_assert!(seed.weight.is_none_or(|weight| weight > 0.0));
            }
        }
    }
}
