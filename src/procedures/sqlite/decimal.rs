//! Decimal numbers as text, so that no digit is lost.

/// Converts decimal text to a JSON number, without a plus sign or leading zeros. No digit is lost.
pub(super) fn json_number(text: &str) -> Option<String> {
    let (sign, unsigned) = match text.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", text.strip_prefix('+').unwrap_or(text)),
    };
    let (whole, fraction) = match unsigned.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (unsigned, None),
    };
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    let empty = whole.is_empty() && fraction.is_none_or(str::is_empty);
    if empty || !digits(whole) || !fraction.is_none_or(digits) {
        return None;
    }
    let whole = match whole.trim_start_matches('0') {
        "" => "0",
        rest => rest,
    };
    Some(match fraction {
        Some(fraction) if !fraction.is_empty() => format!("{sign}{whole}.{fraction}"),
        _ => format!("{sign}{whole}"),
    })
}

/// Rounds a JSON number without an exponent to this number of fractional digits, half away from
/// zero, and pads it with zeros. SQL Server does the same when it stores a decimal.
pub(super) fn with_scale(number: &str, scale: usize) -> String {
    let (sign, unsigned) = match number.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", number),
    };
    let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
    let rounds_up = fraction.as_bytes().get(scale).is_some_and(|digit| *digit >= b'5');
    let mut digits: Vec<u8> = whole.bytes().chain(fraction.bytes().take(scale)).collect();
    digits.resize(whole.len() + scale, b'0');
    if rounds_up {
        let carries = digits.iter_mut().rev().all(|digit| {
            *digit = if *digit == b'9' { b'0' } else { *digit + 1 };
            *digit == b'0'
        });
        if carries {
            digits.insert(0, b'1');
        }
    }
    let is_zero = digits.iter().all(|digit| *digit == b'0');
    let sign = if is_zero { "" } else { sign };
    let digits = String::from_utf8_lossy(&digits);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    let point = if fraction.is_empty() { "" } else { "." };
    format!("{sign}{whole}{point}{fraction}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decimal_keeps_every_digit() {
        let cases = [
            ("12.50", Some("12.50")),
            ("-0012345678901234567890.10", Some("-12345678901234567890.10")),
            ("+.5", Some("0.5")),
            ("7.", Some("7")),
            ("000", Some("0")),
            ("1e5", None),
            ("", None),
            (".", None),
            ("-", None),
            ("1,5", None),
        ];
        for (text, expected) in cases {
            assert_eq!(json_number(text).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn a_decimal_is_rounded_half_away_from_zero_and_gets_its_zeros() {
        for (number, scale, expected) in [
            ("1.5", 2, "1.50"),
            ("7", 2, "7.00"),
            ("1.005", 2, "1.01"),
            ("-1.005", 2, "-1.01"),
            ("1.004", 2, "1.00"),
            ("9.995", 2, "10.00"),
            ("0.5", 0, "1"),
            ("12345678901234567890.125", 2, "12345678901234567890.13"),
            ("-0.001", 2, "0.00"),
            ("0", 0, "0"),
        ] {
            assert_eq!(with_scale(number, scale), expected, "{number}");
        }
    }
}
