//! Validates dates, times, UUIDs and base64, and converts them to their canonical form.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use chrono::NaiveDate;

/// The maximum number of digits in a fraction of a second.
const FRACTION_DIGITS_MAX: usize = 9;
/// The largest offset from UTC that SQL Server's `datetimeoffset` can store, in minutes.
const OFFSET_MINUTES_MAX: u32 = 14 * 60;
const MINUTES_PER_DAY: u32 = 24 * 60;

/// Returns whether a string is an existing date `YYYY-MM-DD` in the years 0001 to 9999.
#[must_use]
pub fn is_date(text: &str) -> bool {
    read_date(text).is_some_and(str::is_empty)
}

/// Returns whether a string is a time `HH:MM:SS`, optionally with a fraction of up to nine digits. Leap seconds are invalid,
/// because SQL Server cannot store them.
#[must_use]
pub fn is_time(text: &str) -> bool {
    read_time(text).is_some_and(str::is_empty)
}

/// Returns an RFC 3339 date and time with `T` and `Z` in upper case. Returns `None` if the string is invalid, or if its
/// year in UTC is not between 0001 and 9999.
#[must_use]
pub fn datetime(text: &str) -> Option<Cow<'_, str>> {
    let rest = read_date(text)?;
    let rest = rest.strip_prefix(['T', 't'])?;
    let offset = read_time(rest)?;
    if offset != "Z" && offset != "z" {
        let rest = offset.strip_prefix(['+', '-'])?;
        let (hours, rest) = read_number(rest, 2)?;
        let (minutes, rest) = read_number(rest.strip_prefix(':')?, 2)?;
        let minutes_of_offset = hours * 60 + minutes;
        if !rest.is_empty() || minutes > 59 || minutes_of_offset > OFFSET_MINUTES_MAX {
            return None;
        }
        if !has_year_in_utc(text, offset.starts_with('-'), minutes_of_offset) {
            return None;
        }
    }
    if text.contains(['t', 'z']) {
        return Some(Cow::Owned(text.to_ascii_uppercase()));
    }
    Some(Cow::Borrowed(text))
}

/// Returns whether the year of a valid date and time also lies between 0001 and 9999 in UTC.
fn has_year_in_utc(text: &str, is_west: bool, minutes_of_offset: u32) -> bool {
    let minutes = || {
        let (hours, rest) = read_number(text.get(11..)?, 2)?;
        Some(hours * 60 + read_number(rest.strip_prefix(':')?, 2)?.0)
    };
    let minutes = minutes().unwrap_or_default();
    match text.get(..10) {
        Some("9999-12-31") if is_west => minutes + minutes_of_offset < MINUTES_PER_DAY,
        Some("0001-01-01") if !is_west => minutes >= minutes_of_offset,
        _ => true,
    }
}

/// Returns a UUID in lower case, or `None` if the string is not a UUID.
#[must_use]
pub fn uuid(text: &str) -> Option<Cow<'_, str>> {
    let well_formed = text.len() == 36
        && text.bytes().enumerate().all(|(at, b)| match at {
            8 | 13 | 18 | 23 => b == b'-',
            _ => b.is_ascii_hexdigit(),
        });
    if !well_formed {
        return None;
    }
    if text.bytes().any(|b| b.is_ascii_uppercase()) {
        return Some(Cow::Owned(text.to_ascii_lowercase()));
    }
    Some(Cow::Borrowed(text))
}

/// Decodes base64 (RFC 4648 §4, with padding).
#[must_use]
pub fn binary(text: &str) -> Option<Bytes> {
    STANDARD.decode(text).ok().map(Bytes::from)
}

/// Parses a number of exactly `digits` digits, and returns it with the rest of the text.
fn read_number(text: &str, digits: usize) -> Option<(u32, &str)> {
    let (number, rest) = text.split_at_checked(digits)?;
    number.bytes().all(|b| b.is_ascii_digit()).then_some(())?;
    Some((number.parse().ok()?, rest))
}

fn read_date(text: &str) -> Option<&str> {
    let (year, rest) = read_number(text, 4)?;
    let (month, rest) = read_number(rest.strip_prefix('-')?, 2)?;
    let (day, rest) = read_number(rest.strip_prefix('-')?, 2)?;
    let year = i32::try_from(year).ok().filter(|year| *year > 0)?;
    NaiveDate::from_ymd_opt(year, month, day).map(|_| rest)
}

fn read_time(text: &str) -> Option<&str> {
    let (hour, rest) = read_number(text, 2)?;
    let (minute, rest) = read_number(rest.strip_prefix(':')?, 2)?;
    let (second, rest) = read_number(rest.strip_prefix(':')?, 2)?;
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let Some(fraction) = rest.strip_prefix('.') else {
        return Some(rest);
    };
    let digits = fraction.bytes().take_while(u8::is_ascii_digit).count();
    (1..=FRACTION_DIGITS_MAX).contains(&digits).then_some(())?;
    fraction.get(digits..)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_days_of_the_calendar_are_dates() {
        for good in ["2024-02-29", "0001-01-01", "9999-12-31"] {
            assert!(is_date(good), "{good}");
        }
        for bad in [
            "",
            "2023-02-29",
            "2024-13-01",
            "2024-00-10",
            "0000-01-01",
            "2024-1-1",
            "20240101",
            "2024-01-01T00:00:00Z",
            "+024-01-01",
            "2024/01/01",
            "２024-01-01",
        ] {
            assert!(!is_date(bad), "{bad}");
        }
    }

    #[test]
    fn only_times_of_day_are_times() {
        for good in ["00:00:00", "23:59:59", "12:30:00.5", "12:30:00.123456789"] {
            assert!(is_time(good), "{good}");
        }
        for bad in [
            "24:00:00",
            "12:60:00",
            "12:30:60",
            "12:30",
            "12:30:00.",
            "12:30:00.1234567890",
            "1:2:3",
        ] {
            assert!(!is_time(bad), "{bad}");
        }
    }

    #[test]
    fn a_datetime_gets_its_canonical_form() {
        let check = |text, expected: Option<&str>| {
            assert_eq!(datetime(text).as_deref(), expected, "{text}");
        };
        check("2024-02-29T12:00:00Z", Some("2024-02-29T12:00:00Z"));
        check("2024-02-29t12:00:00.25z", Some("2024-02-29T12:00:00.25Z"));
        check("2024-02-29T12:00:00+14:00", Some("2024-02-29T12:00:00+14:00"));
        check("2024-02-29T12:00:00-00:30", Some("2024-02-29T12:00:00-00:30"));
        check("9999-12-31T22:59:59.9-01:00", Some("9999-12-31T22:59:59.9-01:00"));
        check("0001-01-01T01:00:00+01:00", Some("0001-01-01T01:00:00+01:00"));
        for bad in [
            "9999-12-31T23:00:00-01:00",
            "0001-01-01T00:59:59+01:00",
            "2024-02-29T12:00:00",
            "2024-02-29 12:00:00Z",
            "2024-02-30T12:00:00Z",
            "2024-02-29T12:00:00+14:01",
            "2024-02-29T12:00:00+0100",
            "2024-02-29T12:00:00Z ",
            "2024-02-29T12:00:00+01:60",
        ] {
            check(bad, None);
        }
    }

    #[test]
    fn a_uuid_has_hyphens_and_becomes_lower_case() {
        let lower = "6f9619ff-8b86-d011-b42d-00cf4fc964ff";
        assert_eq!(uuid(&lower.to_ascii_uppercase()).as_deref(), Some(lower));
        assert_eq!(uuid(lower).as_deref(), Some(lower));
        for bad in [
            "",
            "6f9619ff8b86d011b42d00cf4fc964ff",
            "{6f9619ff-8b86-d011-b42d-00cf4fc964ff}",
            "6f9619ff-8b86-d011-b42d-00cf4fc964fg",
        ] {
            assert_eq!(uuid(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".{0,40}", near in "[0-9T:.Zz+ -]{0,40}") {
            for text in [text, near] {
                let known = is_date(&text) || is_time(&text) || datetime(&text).is_some();
                prop_assert!(!known || uuid(&text).is_none());
                prop_assert!(binary(&text).is_none_or(|bytes| bytes.len() <= text.len()));
            }
        }
    }
}
