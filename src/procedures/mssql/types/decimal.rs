//! Converts JSON numbers to and from SQL decimals and money. The conversion is exact, because it does not use doubles.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::ops::RangeInclusive;

use tiberius::ColumnData;
use tiberius::numeric::Numeric;

use crate::catalogue::ParameterValue;

/// The maximum number of digits of `money` and of `smallmoney`.
pub(super) const MONEY_DIGITS: u8 = 19;
pub(super) const SMALLMONEY_DIGITS: u8 = 10;
/// The decimal places of `money` and `smallmoney`.
pub(super) const MONEY_SCALE: u8 = 4;
/// The maximum number of digits in a `decimal`.
const DIGITS_MAX: usize = 38;

/// The treatment of digits beyond the scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ExcessDigits {
    /// Refuse the number unless these digits are zero.
    Refuse,
    /// Round half away from zero, as SQL Server does. Used for numbers that were doubles.
    Round,
}

/// Converts a JSON value to a `decimal`.
pub(super) fn encode<'a>(
    value: &ParameterValue<'_>,
    precision: u8,
    scale: u8,
) -> Option<ColumnData<'a>> {
    let (text, excess) = digits(value)?;
    let scaled = parse(&text, precision, scale, excess)?;
    (scale <= Numeric::MAX_NUMERIC_SCALE)
        .then(|| ColumnData::Numeric(Some(Numeric::new_with_scale(scaled, scale))))
}

/// Returns a `decimal` in a form in which the driver can send it as a parameter. For a parameter, the driver counts the
/// zero before the decimal point as a digit. This is one digit too many if 38 digits follow. Such a number is sent as
/// text, which the server converts.
pub(super) fn as_parameter(number: Numeric) -> ColumnData<'static> {
    if number.scale() < Numeric::MAX_NUMERIC_SCALE {
        return ColumnData::Numeric(Some(number));
    }
    if number.value() % 10 == 0 {
        let shorter = Numeric::new_with_scale(number.value() / 10, number.scale() - 1);
        return ColumnData::Numeric(Some(shorter));
    }
    let mut text = String::new();
    write(number.value(), number.scale(), &mut text);
    ColumnData::String(Some(text.into()))
}

/// Converts a JSON value to `money`, which has 64 bits.
pub(super) fn encode_money<'a>(value: &ParameterValue<'_>) -> Option<ColumnData<'a>> {
    encode_in_range(value, MONEY_DIGITS, i128::from(i64::MIN)..=i128::from(i64::MAX))
}

/// Converts a JSON value to `smallmoney`, which has 32 bits.
pub(super) fn encode_smallmoney<'a>(value: &ParameterValue<'_>) -> Option<ColumnData<'a>> {
    encode_in_range(value, SMALLMONEY_DIGITS, i128::from(i32::MIN)..=i128::from(i32::MAX))
}

fn encode_in_range<'a>(
    value: &ParameterValue<'_>,
    precision: u8,
    range: RangeInclusive<i128>,
) -> Option<ColumnData<'a>> {
    let (text, excess) = digits(value)?;
    let scaled = parse(&text, precision, MONEY_SCALE, excess)?;
    range
        .contains(&scaled)
        .then(|| ColumnData::Numeric(Some(Numeric::new_with_scale(scaled, MONEY_SCALE))))
}

/// Returns a number or boolean as text, and the treatment of its excess digits.
pub(super) fn digits<'a>(value: &'a ParameterValue<'_>) -> Option<(Cow<'a, str>, ExcessDigits)> {
    match value {
        ParameterValue::Boolean(bit) => {
            Some((Cow::Borrowed(if *bit { "1" } else { "0" }), ExcessDigits::Refuse))
        }
        ParameterValue::Integer(number) => {
            Some((Cow::Owned(number.to_string()), ExcessDigits::Refuse))
        }
        ParameterValue::Number(number) => {
            Some((Cow::Owned(number.to_string()), ExcessDigits::Round))
        }
        ParameterValue::Decimal(text) | ParameterValue::Text(text) => {
            Some((Cow::Borrowed(text), ExcessDigits::Refuse))
        }
        _ => None,
    }
}

/// Parses a decimal number, with an optional sign and exponent, as an integer. The integer has at most `precision`
/// digits, `scale` of which are after the decimal point.
pub(super) fn parse(text: &str, precision: u8, scale: u8, excess: ExcessDigits) -> Option<i128> {
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
    // The number of digits between the leading zeros and the shifted decimal point.
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
    // The first digit beyond the scale. It is zero if it precedes the first significant digit.
    let next = if kept < 0 { Some(b'0') } else { digits.next() };
    match excess {
        ExcessDigits::Refuse => {
            if next.is_some_and(|digit| digit != b'0') || digits.any(|digit| digit != b'0') {
                return None;
            }
        }
        ExcessDigits::Round => {
            if next.is_some_and(|digit| digit >= b'5') {
                value += 1;
            }
        }
    }
    let limit = 10_i128.checked_pow(u32::from(precision))?;
    (value < limit).then_some(if negative { -value } else { value })
}

/// The reason, if any, why a number in text form cannot be stored in a type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NumberProblem {
    /// The number fits.
    None,
    /// The text is not a number.
    NotANumber,
    /// The number has too many digits after the decimal point.
    ExcessDigits,
    /// The number has too many digits before the decimal point.
    OutOfRange,
}

/// Returns the reason why `parse` refuses a text.
pub(super) fn problem(text: &str, precision: u8, scale: u8) -> NumberProblem {
    let fits = |excess| parse(text, precision, scale, excess).is_some();
    if fits(ExcessDigits::Refuse) {
        NumberProblem::None
    } else if fits(ExcessDigits::Round) {
        NumberProblem::ExcessDigits
    } else if is_number(text) {
        NumberProblem::OutOfRange
    } else {
        NumberProblem::NotANumber
    }
}

/// Returns whether a text is a number of any size.
pub(super) fn is_number(text: &str) -> bool {
    // `inf` and `NaN` begin with a letter, so checking for a digit excludes them.
    text.trim_start_matches(['+', '-']).starts_with(|c: char| c.is_ascii_digit() || c == '.')
        && text.parse::<f64>().is_ok()
}

/// Writes a scaled integer as a decimal number with `scale` decimal places.
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
        parse(text, precision, scale, ExcessDigits::Refuse)
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
    fn a_parameter_has_at_most_38_digits() {
        let parameter = |value, scale| as_parameter(Numeric::new_with_scale(value, scale));
        for scale in [0, 37] {
            let number = Numeric::new_with_scale(-7, scale);
            assert_eq!(parameter(-7, scale), ColumnData::Numeric(Some(number)));
        }
        let shorter = Numeric::new_with_scale(-12, 37);
        assert_eq!(parameter(-120, 38), ColumnData::Numeric(Some(shorter)));
        let text = "-0.00000000000000000000000000000000000123";
        assert_eq!(parameter(-123, 38), ColumnData::String(Some(text.into())));
    }

    #[test]
    fn a_double_is_rounded_half_away_from_zero() {
        assert_eq!(parse("0.30000000000000004", 5, 2, ExcessDigits::Round), Some(30));
        assert_eq!(parse("-0.005", 5, 2, ExcessDigits::Round), Some(-1));
        assert_eq!(parse("0.0049", 5, 2, ExcessDigits::Round), Some(0));
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
