//! Parses, compares and rewrites numbers in text form, so that no digit is lost.

use std::borrow::Cow;
use std::cmp::Ordering;

/// The maximum number of digits in a `decimal`: SQL Server's maximum precision.
pub const DECIMAL_DIGITS_MAX: usize = 38;

/// The parts of a number that follows JSON's grammar.
#[derive(Clone, Copy, Debug)]
struct DecimalParts<'a> {
    negative: bool,
    whole: &'a str,
    fraction: &'a str,
    exponent: i64,
}

fn split(text: &str) -> Option<DecimalParts<'_>> {
    let (negative, rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (mantissa, exponent) = match rest.split_once(['e', 'E']) {
        None => (rest, 0),
        Some((mantissa, exponent)) => (mantissa, parse_exponent(exponent)?),
    };
    let (whole, fraction) = match mantissa.split_once('.') {
        None => (mantissa, ""),
        Some((_, "")) => return None,
        Some(parts) => parts,
    };
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    let leading_zero = whole.len() > 1 && whole.starts_with('0');
    if whole.is_empty() || leading_zero || !digits(whole) || !digits(fraction) {
        return None;
    }
    Some(DecimalParts { negative, whole, fraction, exponent })
}

fn parse_exponent(text: &str) -> Option<i64> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, text.get(1..)?),
        b'+' => (false, text.get(1..)?),
        _ => (false, text),
    };
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    // The exponent is clamped. The number remains very large or very small, and its exact value does not matter.
    let magnitude = digits.parse().unwrap_or(i64::MAX / 4).min(i64::MAX / 4);
    Some(if negative { -magnitude } else { magnitude })
}

impl DecimalParts<'_> {
    fn digits(&self) -> impl Iterator<Item = u8> {
        self.whole.bytes().chain(self.fraction.bytes())
    }

    fn is_zero(&self) -> bool {
        self.digits().all(|b| b == b'0')
    }

    /// Returns the decimal exponent of the first nonzero digit, plus one.
    fn magnitude(&self) -> i64 {
        let zeros = self.digits().take_while(|b| *b == b'0').count();
        let whole = i64::try_from(self.whole.len()).unwrap_or(i64::MAX / 4);
        whole - i64::try_from(zeros).unwrap_or(i64::MAX / 4) + self.exponent
    }

    fn compare_magnitudes(&self, other: &Self) -> Ordering {
        let significant = |parts: &Self| parts.digits().skip_while(|b| *b == b'0').count();
        let longest = significant(self).max(significant(other));
        let padded = |parts: Self| {
            let leading = parts.digits().take_while(|b| *b == b'0').count();
            (leading..leading + longest).map(move |at| {
                let digit = match at.checked_sub(parts.whole.len()) {
                    None => parts.whole.as_bytes().get(at),
                    Some(at) => parts.fraction.as_bytes().get(at),
                };
                digit.copied().unwrap_or(b'0')
            })
        };
        self.magnitude().cmp(&other.magnitude()).then_with(|| padded(*self).cmp(padded(*other)))
    }
}

/// Returns whether a string is a number according to JSON's grammar.
#[must_use]
pub fn is_number(text: &str) -> bool {
    split(text).is_some()
}

/// Compares two numbers of any length exactly. Returns `None` if one of the texts is not a number.
#[must_use]
pub fn compare(left: &str, right: &str) -> Option<Ordering> {
    let (left, right) = (split(left)?, split(right)?);
    Some(match (left.is_zero(), right.is_zero()) {
        (true, true) => Ordering::Equal,
        (true, false) => {
            if right.negative {
                Ordering::Greater
            } else {
                Ordering::Less
            }
        }
        (false, true) => {
            if left.negative {
                Ordering::Less
            } else {
                Ordering::Greater
            }
        }
        (false, false) => match (left.negative, right.negative) {
            (false, false) => left.compare_magnitudes(&right),
            (true, true) => right.compare_magnitudes(&left),
            (true, false) => Ordering::Less,
            (false, true) => Ordering::Greater,
        },
    })
}

/// Returns whether a number is an integer multiple of another number. The calculation is exact. Returns `None` if one
/// of the texts is not a number, or has more digits than 128 bits can hold.
#[must_use]
pub fn is_multiple(number: &str, of: &str) -> Option<bool> {
    let ((number, exponent), (of, of_exponent)) = (scaled(split(number)?)?, scaled(split(of)?)?);
    if number == 0 || of == 0 {
        return Some(number == 0);
    }
    let exponent = exponent - of_exponent;
    if exponent < 0 {
        // `number` does not end with a zero, so it is not a multiple of `of` times a power of ten.
        return Some(false);
    }
    let mut rest = number % of;
    for _ in 0..exponent {
        if rest == 0 {
            break;
        }
        rest = rest.checked_mul(10)? % of;
    }
    Some(rest == 0)
}

/// Returns the absolute value of a number as an integer that does not end with a zero, and its decimal exponent.
fn scaled(parts: DecimalParts<'_>) -> Option<(u128, i64)> {
    let digits = parts.digits().map(|digit| u128::from(digit - b'0'));
    let mut integer = digits
        .into_iter()
        .try_fold(0_u128, |all, digit| all.checked_mul(10)?.checked_add(digit))?;
    let mut exponent = parts.exponent - i64::try_from(parts.fraction.len()).ok()?;
    while integer != 0 && integer % 10 == 0 {
        (integer, exponent) = (integer / 10, exponent + 1);
    }
    Some((integer, exponent))
}

/// Returns whether a number has at most 38 digits. The zero in `0.5` does not count.
fn fits(whole: &str, fraction: &str) -> bool {
    let is_counted = whole != "0" || fraction.is_empty();
    usize::from(is_counted) * whole.len() + fraction.len() <= DECIMAL_DIGITS_MAX
}

/// Returns a decimal without an exponent and with all its digits. Returns `None` if the string is not a number, or if
/// its mantissa or the result has more than 38 digits. Also returns `None` if the number is not 0 and its exponent is
/// not between -38 and 38.
#[must_use]
pub fn without_exponent(text: &str) -> Option<Cow<'_, str>> {
    let parts = split(text)?;
    if parts.exponent == 0 && !text.contains(['e', 'E']) {
        return fits(parts.whole, parts.fraction).then_some(Cow::Borrowed(text));
    }
    if !fits(parts.whole, parts.fraction) {
        return None;
    }
    let limit = i64::try_from(DECIMAL_DIGITS_MAX).ok()?;
    if parts.exponent.abs() > limit {
        let zero = if parts.negative { "-0" } else { "0" };
        return parts.is_zero().then_some(Cow::Borrowed(zero));
    }
    let point = i64::try_from(parts.whole.len()).ok()? + parts.exponent;
    let mut whole = String::new();
    let mut fraction = String::new();
    for _ in point..0 {
        fraction.push('0');
    }
    for (at, digit) in (0..).zip(parts.digits()) {
        if at < point { whole.push(char::from(digit)) } else { fraction.push(char::from(digit)) }
    }
    while i64::try_from(whole.len()).ok()? < point {
        whole.push('0');
    }
    let whole = whole.trim_start_matches('0');
    let whole = if whole.is_empty() { "0" } else { whole };
    if !fits(whole, &fraction) {
        return None;
    }
    let sign = if parts.negative { "-" } else { "" };
    let dot = if fraction.is_empty() { "" } else { "." };
    Some(Cow::Owned(format!("{sign}{whole}{dot}{fraction}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_json_numbers_are_accepted() {
        for good in ["0", "-0", "1", "10", "0.5", "1.50", "-3.25e+7", "1E5", "1e-400"] {
            assert!(is_number(good), "{good:?}");
        }
        for bad in [
            "", "-", "+1", "01", ".5", "1.", "1.e5", "1e", "1e+", "0x1", "NaN", "Infinity", "1 ",
            "1,5", "--1", "1e5e5", "1.2.3", "١",
        ] {
            assert!(!is_number(bad), "{bad:?}");
        }
    }

    #[test]
    fn comparisons_use_every_digit() {
        let check = |left, right, order| {
            assert_eq!(compare(left, right), Some(order), "{left} {right}");
            assert_eq!(compare(right, left), Some(order.reverse()), "{right} {left}");
        };
        check("9007199254740993", "9007199254740992", Ordering::Greater);
        check("0.1", "0.10000000000000000000000000000000001", Ordering::Less);
        check("1.50", "1.5", Ordering::Equal);
        check("-0", "0.000", Ordering::Equal);
        check("0e999999999999999999999", "0", Ordering::Equal);
        check("1e2", "100", Ordering::Equal);
        check("0.01e4", "100", Ordering::Equal);
        check("-5", "-4.999", Ordering::Less);
        check("-1", "1", Ordering::Less);
        check("1e99999999999999999999", "9", Ordering::Greater);
        check("1e-99999999999999999999", "0", Ordering::Greater);
        check("0.0001", "0.01", Ordering::Less);
    }

    #[test]
    fn multiples_are_exact() {
        for (number, of, expected) in [
            ("19.99", "0.01", Some(true)),
            ("19.995", "0.01", Some(false)),
            ("-0.3", "0.1", Some(true)),
            ("0", "7", Some(true)),
            ("1e300", "0.01", Some(true)),
            ("1e300", "7", Some(false)),
            ("1e-300", "1", Some(false)),
            ("1.5e-7", "5e-8", Some(true)),
            ("120", "30", Some(true)),
            ("100", "30", Some(false)),
            ("1", "1e400", Some(false)),
            ("x", "1", None),
        ] {
            assert_eq!(is_multiple(number, of), expected, "{number} {of}");
        }
    }

    #[test]
    fn a_decimal_without_its_exponent_keeps_all_digits() {
        let check = |text, expected: Option<&str>| {
            assert_eq!(without_exponent(text).as_deref(), expected, "{text}");
        };
        check("12.50", Some("12.50"));
        check("-0.01", Some("-0.01"));
        check("1e3", Some("1000"));
        check("1.25e1", Some("12.5"));
        check("1.25e2", Some("125"));
        check("1.25e-3", Some("0.00125"));
        check("-5E-1", Some("-0.5"));
        check("0e5", Some("0"));
        check(
            "99999999999999999999999999999999999999",
            Some("99999999999999999999999999999999999999"),
        );
        check("999999999999999999999999999999999999999", None);
        check("1e38", None);
        check("1e-38", Some("0.00000000000000000000000000000000000001"));
        check("1e-39", None);
        check("0e39", Some("0"));
        check("-0.0e-99", Some("-0"));
        check("0.999999999999999999999999999999999999999", None);
        let all_behind_the_point = "-0.99999999999999999999999999999999999999";
        check(all_behind_the_point, Some(all_behind_the_point));
        check("10.0000000000000000000000000000000000001", None);
        check("1e-9999999", None);
        check("abc", None);
    }

    proptest! {
        #[test]
        fn integers_compare_as_integers(left: i64, right: i64) {
            prop_assert_eq!(compare(&left.to_string(), &right.to_string()), Some(left.cmp(&right)));
        }

        #[test]
        fn a_decimal_without_its_exponent_is_the_same_number(whole in -99_999i64..99_999, digits in 0usize..6, exponent in -12i32..12) {
            let text = format!("{whole}.{:0>1$}e{exponent}", 7, digits + 1);
            let plain = without_exponent(&text).unwrap();
            prop_assert_eq!(compare(&plain, &text), Some(Ordering::Equal));
            prop_assert!(!plain.contains('e'));
        }

        #[test]
        fn no_text_panics(left in ".{0,30}", right in "[-+0-9.eE]{0,30}") {
            let (order, _) = (compare(&left, &right), without_exponent(&right));
            prop_assert!(order.is_none() || is_number(&left));
            prop_assert!(without_exponent(&left).is_none() || is_number(&left));
        }
    }
}
