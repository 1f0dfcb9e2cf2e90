//! Parses and formats durations and sizes with units, as used in the configuration and the
//! catalogue: `"250ms"`, `"1MiB"`.

use std::time::Duration;

/// The syntax that `parse_duration` accepts, for error messages.
pub const DURATION_EXPECTED: &str =
    "a whole number with its unit, ms, s, m, h or d, e.g. \"250ms\" or \"2s\"";
/// The syntax that `parse_bytes` accepts, for error messages.
pub const BYTES_EXPECTED: &str =
    "a number of bytes, or a whole number with its unit, B, KiB, MiB or GiB, e.g. \"1MiB\"";

/// Parses a duration: a whole number and a unit (`ms`, `s`, `m`, `h`, `d`), without a space.
///
/// ```
/// use std::time::Duration;
/// use fjord::units::parse_duration;
/// assert_eq!(parse_duration("250ms"), Some(Duration::from_millis(250)));
/// assert_eq!(parse_duration("250"), None);
/// ```
#[must_use]
pub fn parse_duration(text: &str) -> Option<Duration> {
    let (number, unit) = split_unit(text)?;
    let factor: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.checked_mul(factor).map(Duration::from_millis)
}

/// Formats a duration in the largest unit that represents it exactly. Fractions of a millisecond
/// are dropped. `parse_duration` can parse the result.
#[must_use]
pub fn format_duration(duration: Duration) -> String {
    let milliseconds = duration.as_millis();
    let units = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s")];
    units
        .into_iter()
        .find(|(factor, _)| milliseconds > 0 && milliseconds.is_multiple_of(*factor))
        .map_or_else(
            || format!("{milliseconds}ms"),
            |(factor, unit)| format!("{}{unit}", milliseconds / factor),
        )
}

/// Parses a size in bytes: a whole number with an optional unit (`B`, `KiB`, `MiB`, `GiB`).
#[must_use]
pub fn parse_bytes(text: &str) -> Option<usize> {
    let (number, unit) = split_unit(text)?;
    let factor: u64 = match unit {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    number.checked_mul(factor).and_then(|bytes| usize::try_from(bytes).ok())
}

fn split_unit(text: &str) -> Option<(u64, &str)> {
    let end = text.bytes().take_while(u8::is_ascii_digit).count();
    let (digits, unit) = text.split_at_checked(end)?;
    Some((digits.parse().ok()?, unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_a_number_and_a_unit() {
        let check = |text, milliseconds: Option<u64>| {
            assert_eq!(parse_duration(text), milliseconds.map(Duration::from_millis), "{text:?}");
        };
        check("250ms", Some(250));
        check("2s", Some(2_000));
        check("5m", Some(300_000));
        check("1h", Some(3_600_000));
        check("30d", Some(2_592_000_000));
        check("0s", Some(0));
        for wrong in
            ["", "2", "s", "2 s", " 2s", "-2s", "+2s", "1.5s", "2S", "2sec", "2s3", "ümlaut"]
        {
            check(wrong, None);
        }
        check("18446744073709551615d", None);
        check("18446744073709551616ms", None);
    }

    #[test]
    fn a_formatted_duration_parses_to_the_same_value() {
        for milliseconds in [0, 1, 250, 1_000, 1_500, 60_000, 90_000, 3_600_000, 86_400_000] {
            let duration = Duration::from_millis(milliseconds);
            assert_eq!(parse_duration(&format_duration(duration)), Some(duration));
        }
    }

    #[test]
    fn a_size_is_a_number_and_an_optional_binary_unit() {
        let check = |text, bytes| assert_eq!(parse_bytes(text), bytes, "{text:?}");
        check("0", Some(0));
        check("65536", Some(65_536));
        check("10B", Some(10));
        check("64KiB", Some(65_536));
        check("1MiB", Some(1_048_576));
        check("2GiB", Some(2_147_483_648));
        for wrong in ["", "MiB", "1MB", "1 MiB", "-1", "1.5MiB", "99999999999GiB"] {
            check(wrong, None);
        }
    }
}
