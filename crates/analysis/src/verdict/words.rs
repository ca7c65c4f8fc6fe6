//! Numbers and instants as people read them.

/// UTC, to the second.
pub(crate) fn instant(us: i64) -> String {
    let (days, rest) = (
        us.div_euclid(86_400_000_000),
        us.rem_euclid(86_400_000_000) / 1_000_000,
    );
    format!(
        "{} {:02}:{:02}:{:02} UTC",
        date(days),
        rest / 3600,
        rest / 60 % 60,
        rest % 60
    )
}

/// The civil date of a day since 1970-01-01 (Hinnant, "chrono-compatible low-level date algorithms").
pub(crate) fn date(days: i64) -> String {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

/// The day of a date as [`date`] writes it; `None` where it is none of the calendar.
pub(crate) fn day(text: &str) -> Option<i64> {
    if text.len() != "2026-11-25".len() {
        return None;
    }
    let mut parts = text.splitn(3, '-');
    let mut next = || parts.next()?.parse::<i64>().ok();
    let (year, month, day) = (next()?, next()?, next()?);
    let (year, month_from_march) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    let found = era * 146_097 + day_of_era - 719_468;
    (date(found) == text).then_some(found)
}

/// `17,632`.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1.82 %`, with as many digits as matter.
pub(crate) fn percent(share: f64) -> String {
    let value = share * 100.0;
    if !value.is_finite() {
        return "unbounded".to_owned();
    }
    let digits = match value.abs() {
        v if v >= 100.0 => 0,
        v if v >= 10.0 => 1,
        v if v >= 0.1 || v == 0.0 => 2,
        v if v >= 0.001 => 4,
        _ => 6,
    };
    format!("{value:.digits$} %")
}

/// A p-value: `0.0316`, `1.8e-6`.
pub(crate) fn p(value: f64) -> String {
    match value {
        v if v < 1e-300 => "below 1e-300".to_owned(),
        v if v < 0.001 => format!("{v:.1e}"),
        v => format!("{v:.4}"),
    }
}

/// A number rounded to what its error lets one know: two digits of the error.
#[must_use]
pub fn rounded(value: f64, error: f64) -> String {
    if !value.is_finite() {
        return "unbounded".to_owned();
    }
    let scale = if error > 0.0 && error.is_finite() {
        error
    } else {
        value.abs() * 0.001
    };
    if scale <= 0.0 {
        return "0".to_owned();
    }
    #[expect(clippy::cast_possible_truncation, reason = "a decimal exponent")]
    let digits = 1 - scale.log10().floor() as i32;
    if value.abs() >= 1e15 || digits > 12 {
        return format!("{value:.3e}");
    }
    let digits = usize::try_from(digits.max(0)).unwrap_or(0);
    let text = format!("{value:.digits$}");
    // -0.00 is 0.00.
    match text.strip_prefix('-') {
        Some(rest) if rest.chars().all(|c| matches!(c, '0' | '.')) => rest.to_owned(),
        _ => text,
    }
}

/// The same with a sign in front.
#[must_use]
pub fn signed(value: f64, error: f64) -> String {
    let text = rounded(value, error);
    if text.starts_with('-') {
        text.replacen('-', "−", 1)
    } else if text.chars().all(|c| matches!(c, '0' | '.')) || !value.is_finite() {
        text
    } else {
        format!("+{text}")
    }
}

/// A share with a sign in front.
#[must_use]
pub fn signed_percent(share: f64) -> String {
    let text = percent(share);
    match text.strip_prefix('-') {
        Some(rest) => format!("−{rest}"),
        None if share > 0.0 => format!("+{text}"),
        None => text,
    }
}

/// `a, b and c`.
pub(crate) fn list<S: AsRef<str>>(names: &[S]) -> String {
    match names {
        [] => String::new(),
        [one] => one.as_ref().to_owned(),
        [rest @ .., last] => {
            let rest: Vec<&str> = rest.iter().map(AsRef::as_ref).collect();
            format!("{} and {}", rest.join(", "), last.as_ref())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (days, text) in [
            (0, "1970-01-01"),
            (-1, "1969-12-31"),
            (11_016, "2000-02-29"),
            (20_782, "2026-11-25"),
            (47_540, "2100-02-28"),
            (47_541, "2100-03-01"),
        ] {
            assert_eq!(date(days), text);
            assert_eq!(day(text), Some(days));
        }
        for none in [
            "2026-02-29",
            "2026-13-01",
            "2026-1-1",
            "yesterday",
            "",
            "2026-11-25T00",
        ] {
            assert_eq!(day(none), None, "{none}");
        }
        assert_eq!(
            instant(20_782 * 86_400_000_000 + 3_661_000_000),
            "2026-11-25 01:01:01 UTC"
        );
    }

    #[test]
    fn numbers_show_what_is_known_of_them() {
        assert_eq!(rounded(1234.567, 12.0), "1235");
        assert_eq!(rounded(0.012_345, 0.000_2), "0.01235");
        assert_eq!(rounded(-0.0001, 0.1), "0.00");
        assert_eq!(signed(0.25, 0.01), "+0.250");
        assert_eq!(signed(-0.25, 0.1), "−0.25");
        assert_eq!(percent(0.0182), "1.82 %");
        assert_eq!(signed_percent(-0.12), "−12.0 %");
        assert_eq!(p(0.008_61), "0.0086");
        assert_eq!(p(1.8e-6), "1.8e-6");
        assert_eq!(list(&["a", "b", "c"]), "a, b and c");
        assert_eq!(count(1_234_567), "1,234,567");
    }
}
