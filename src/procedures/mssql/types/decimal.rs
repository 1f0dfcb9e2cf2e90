//! Decimal numbers as text and as scaled integers: no digit goes through a double.

use std::fmt::Write as _;

/// The most digits of `decimal`.
const DIGITS_MAX: usize = 38;

/// What to do with digits beyond the scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Excess {
    /// They must be zero: nothing is lost.
    Refuse,
    /// Half away from zero, as SQL Server does: the number came from a double anyway.
    Round,
}

/// Reads a number (JSON's form, a sign allowed) as an integer scaled by `scale` with at most `precision` digits.
pub(super) fn parse(text: &str, precision: u8, scale: u8, excess: Excess) -> Option<i128> {
    let (negative, text) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let all = whole.bytes().chain(fraction.bytes());
    if !all.clone().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let zeros = all.clone().take_while(|digit| *digit == b'0').count();
    // How many of the digits after the leading zeros stand before the scaled point.
    let kept = i64::try_from(whole.len()).ok()? - i64::try_from(zeros).ok()?
        + i64::from(exponent)
        + i64::from(scale);
    let mut digits = all.skip(zeros);
    if digits.clone().next().is_none() {
        return Some(0);
    }
    if kept > i64::try_from(DIGITS_MAX).ok()? {
        return None;
    }
    let mut value: i128 = 0;
    for _ in 0..kept.max(0) {
        value = value * 10 + i128::from(digits.next().unwrap_or(b'0') - b'0');
    }
    // Before the first digit there are only zeros: nothing to round by.
    let next = if kept < 0 { Some(b'0') } else { digits.next() };
    match excess {
        Excess::Refuse => {
            if next.is_some_and(|digit| digit != b'0') || digits.any(|digit| digit != b'0') {
                return None;
            }
        }
        Excess::Round => {
            if next.is_some_and(|digit| digit >= b'5') {
                value += 1;
            }
        }
    }
    let limit = 10_i128.checked_pow(u32::from(precision))?;
    (value < limit).then_some(if negative { -value } else { value })
}

/// Writes a scaled integer as a number, with every digit of its scale.
pub(super) fn write(value: i128, scale: u8, into: &mut String) {
    if value < 0 {
        into.push('-');
    }
    let digits = value.unsigned_abs();
    let result = match 10_u128.checked_pow(u32::from(scale)) {
        Some(unit) if scale > 0 => {
            let (whole, fraction) = (digits / unit, digits % unit);
            write!(into, "{whole}.{fraction:0width$}", width = usize::from(scale))
        }
        _ => write!(into, "{digits}"),
    };
    debug_assert!(result.is_ok(), "writing to a string does not fail");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exact(text: &str, precision: u8, scale: u8) -> Option<i128> {
        parse(text, precision, scale, Excess::Refuse)
    }

    #[test]
    fn a_number_keeps_every_digit_or_is_refused() {
        assert_eq!(exact("12.34", 5, 2), Some(1234));
        assert_eq!(exact("-12.340", 5, 2), Some(-1234));
        assert_eq!(exact("12.345", 5, 2), None);
        assert_eq!(exact("0.00001", 5, 2), None);
        assert_eq!(exact("0.000", 5, 2), Some(0));
        assert_eq!(exact("999.99", 5, 2), Some(99999));
        assert_eq!(exact("1000", 5, 2), None);
        assert_eq!(exact("1e3", 6, 2), Some(100_000));
        assert_eq!(exact("1.5E-1", 6, 2), Some(15));
        assert_eq!(exact("1e400000", 38, 0), None);
        assert_eq!(
            exact("99999999999999999999999999999999999999", 38, 0),
            Some(10_i128.pow(38) - 1)
        );
        for bad in ["", "-", ".", "1.2.3", "0x10", "1e", "NaN", "１"] {
            assert_eq!(exact(bad, 38, 0), None, "{bad}");
        }
    }

    #[test]
    fn a_double_is_rounded_half_away_from_zero() {
        assert_eq!(parse("0.30000000000000004", 5, 2, Excess::Round), Some(30));
        assert_eq!(parse("-0.005", 5, 2, Excess::Round), Some(-1));
        assert_eq!(parse("0.0049", 5, 2, Excess::Round), Some(0));
    }

    #[test]
    fn a_scaled_integer_is_written_with_its_scale() {
        for (value, scale, text) in [
            (1234, 2, "12.34"),
            (-5, 3, "-0.005"),
            (0, 0, "0"),
            (7, 0, "7"),
            (10_i128.pow(38) - 1, 38, "0.99999999999999999999999999999999999999"),
        ] {
            let mut written = String::new();
            write(value, scale, &mut written);
            assert_eq!(written, text);
        }
    }
}
