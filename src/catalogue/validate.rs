//! Validates the values of a request against the types and constraints of their parameters. The gateway and the worker use
//! the same code.

use std::borrow::Cow;
use std::cmp::Ordering;

use memchr::memchr;
use serde_json::value::RawValue;

use super::parameter::{Parameter, ParameterType};
use super::value::ParameterValue;
use super::violations::{Location, Violations};

mod any_json;
pub mod decimal;
pub mod json;
pub mod scalar;
mod wrong_text;

/// Returns the detail of a violation for a value of the wrong type.
#[must_use]
pub fn expected(kind: ParameterType) -> &'static str {
    match kind {
        ParameterType::String => "expected text",
        ParameterType::Int32 => "expected a whole number from -2147483648 to 2147483647",
        ParameterType::Int64 => {
            "expected a whole number from -9223372036854775808 to 9223372036854775807"
        }
        ParameterType::Number => "expected a number",
        ParameterType::Decimal => "expected a number of at most 38 digits",
        ParameterType::Boolean => "expected true or false",
        ParameterType::Uuid => "expected a UUID, e.g. 6f9619ff-8b86-d011-b42d-00cf4fc964ff",
        ParameterType::Date => "expected a date, YYYY-MM-DD",
        ParameterType::Time => "expected a time of day, HH:MM:SS or HH:MM:SS.fraction",
        ParameterType::Datetime => {
            "expected a date and time with an offset (RFC 3339), e.g. 2024-02-29T12:00:00Z"
        }
        ParameterType::Binary => "expected bytes as base64 with padding",
        ParameterType::Json => "expected JSON",
        ParameterType::Table => "expected an array of objects",
    }
}

/// Validates a value that is given as text: a path segment, a query parameter, a header, a claim or a context value.
///
/// Returns `None` for an invalid value, after recording its violations.
pub fn from_text<'a>(
    parameter: &Parameter,
    text: Cow<'a, str>,
    location: Location<'_>,
    violations: &mut Violations,
) -> Option<ParameterValue<'a>> {
    if text.is_empty() && !has_empty_value(parameter.kind) {
        violations.add(location, wrong_text::empty(parameter));
        return None;
    }
    match parameter.kind {
        ParameterType::Int32
        | ParameterType::Int64
        | ParameterType::Number
        | ParameterType::Decimal => number(parameter, &text, location, violations),
        ParameterType::Boolean => match &*text {
            "true" => Some(ParameterValue::Boolean(true)),
            "false" => Some(ParameterValue::Boolean(false)),
            _ => wrong_type(parameter, location, violations),
        },
        ParameterType::Json => any_json::validate(parameter, text, location, violations),
        ParameterType::Table => wrong_type(parameter, location, violations),
        _ => textual(parameter, text, location, violations),
    }
}

/// Validates a member of a JSON object.
///
/// Returns `None` for an invalid value, after recording its violations.
pub fn from_json<'a>(
    parameter: &Parameter,
    raw: &'a RawValue,
    location: Location<'_>,
    violations: &mut Violations,
) -> Option<ParameterValue<'a>> {
    let text = raw.get();
    if text == "null" {
        if parameter.required {
            violations.add(location, "must not be null");
            return None;
        }
        return Some(ParameterValue::Null);
    }
    match (parameter.kind, text.as_bytes().first()?) {
        (ParameterType::Json, _) => {
            any_json::validate(parameter, Cow::Borrowed(text), location, violations)
        }
        (ParameterType::Table, b'[') => json::read_table(parameter, text, location, violations),
        (ParameterType::Boolean, b't') => Some(ParameterValue::Boolean(true)),
        (ParameterType::Boolean, b'f') => Some(ParameterValue::Boolean(false)),
        (
            ParameterType::Int32
            | ParameterType::Int64
            | ParameterType::Number
            | ParameterType::Decimal,
            b'-' | b'0'..=b'9',
        ) => number(parameter, &Cow::Borrowed(text), location, violations),
        (
            ParameterType::String
            | ParameterType::Uuid
            | ParameterType::Date
            | ParameterType::Time
            | ParameterType::Datetime
            | ParameterType::Binary,
            b'"',
        ) => {
            let Some(text) = json::unescape(text) else {
                violations.add(location, json::LONE_SURROGATE);
                return None;
            };
            textual(parameter, text, location, violations)
        }
        _ => wrong_type(parameter, location, violations),
    }
}

/// Returns whether an empty text is a value of a type.
fn has_empty_value(kind: ParameterType) -> bool {
    matches!(kind, ParameterType::String | ParameterType::Binary)
}

/// Records that a text is not a value of the parameter's type.
fn wrong_text<'a>(
    parameter: &Parameter,
    text: &str,
    location: Location<'_>,
    violations: &mut Violations,
) -> Option<ParameterValue<'a>> {
    violations.add(location, wrong_text::detail(parameter, text, location));
    None
}

fn wrong_type<'a>(
    parameter: &Parameter,
    location: Location<'_>,
    violations: &mut Violations,
) -> Option<ParameterValue<'a>> {
    violations.add(location, expected(parameter.kind));
    None
}

/// Validates a number of any type. The bounds are compared with its text, so that no digit is lost.
fn number<'a>(
    parameter: &Parameter,
    text: &Cow<'a, str>,
    location: Location<'_>,
    violations: &mut Violations,
) -> Option<ParameterValue<'a>> {
    let value = match parameter.kind {
        ParameterType::Int32 | ParameterType::Int64 => {
            integer(parameter.kind, text).map(ParameterValue::Integer)
        }
        ParameterType::Number if decimal::is_number(text) => {
            text.parse().ok().filter(|number: &f64| number.is_finite()).map(ParameterValue::Number)
        }
        ParameterType::Decimal => match text {
            Cow::Borrowed(text) => decimal::without_exponent(text).map(ParameterValue::Decimal),
            Cow::Owned(text) => decimal::without_exponent(text)
                .map(|plain| ParameterValue::Decimal(Cow::Owned(plain.into_owned()))),
        },
        _ => None,
    };
    let Some(value) = value else {
        return wrong_text(parameter, text, location, violations);
    };
    let constraints = &parameter.constraints;
    let mut is_valid = true;
    if let Some(minimum) = &constraints.minimum
        && decimal::compare(text, &minimum.0) == Some(Ordering::Less)
    {
        violations.add(location, format!("expected at least {}", minimum.0));
        is_valid = false;
    }
    if let Some(maximum) = &constraints.maximum
        && decimal::compare(text, &maximum.0) == Some(Ordering::Greater)
    {
        violations.add(location, format!("expected at most {}", maximum.0));
        is_valid = false;
    }
    is_valid &= is_allowed(parameter, &value, location, violations);
    is_valid.then_some(value)
}

/// Parses a whole number. As in JSON Schema, the number can be written with a fraction of zeros or with an exponent,
/// such as `1.0` or `1e3`.
fn integer(kind: ParameterType, text: &str) -> Option<i64> {
    if text.contains(['.', 'e', 'E']) {
        let plain = decimal::without_exponent(text)?;
        let (whole, fraction) = plain.split_once('.').unwrap_or((&plain, ""));
        let is_whole = fraction.bytes().all(|b| b == b'0');
        return if is_whole { integer(kind, whole) } else { None };
    }
    let digits = text.strip_prefix('-').unwrap_or(text);
    if !digits.starts_with(|c: char| c.is_ascii_digit())
        || (digits.len() > 1 && digits.starts_with('0'))
    {
        return None;
    }
    let number: i64 = text.parse().ok()?;
    let fits = kind == ParameterType::Int64 || i32::try_from(number).is_ok();
    fits.then_some(number)
}

/// Validates a value of a type that JSON represents as a string, and converts it to its canonical form.
fn textual<'a>(
    parameter: &Parameter,
    text: Cow<'a, str>,
    location: Location<'_>,
    violations: &mut Violations,
) -> Option<ParameterValue<'a>> {
    let constraints = &parameter.constraints;
    let mut is_valid = true;
    let value = match parameter.kind {
        ParameterType::String => {
            if memchr(0, text.as_bytes()).is_some() {
                violations.add(location, json::NUL);
                return None;
            }
            if constraints.length_min.is_some() || constraints.length_max.is_some() {
                let length = text.chars().count();
                is_valid = has_length(parameter, length, "characters", location, violations);
            }
            if let Some(pattern) = &constraints.pattern
                && !pattern.is_match(&text)
            {
                violations.add(location, format!("expected text that matches {pattern}"));
                is_valid = false;
            }
            ParameterValue::Text(text)
        }
        ParameterType::Binary => match scalar::binary(&text) {
            Some(bytes) => {
                is_valid = has_length(parameter, bytes.len(), "bytes", location, violations);
                ParameterValue::Binary(bytes)
            }
            None => return wrong_text(parameter, &text, location, violations),
        },
        kind => match canonical(kind, text) {
            Ok(text) => ParameterValue::Text(text),
            Err(text) => return wrong_text(parameter, &text, location, violations),
        },
    };
    is_valid &= is_allowed(parameter, &value, location, violations);
    is_valid.then_some(value)
}

/// Returns the canonical form of a text, or the text itself as the error if it is invalid.
fn canonical(kind: ParameterType, text: Cow<'_, str>) -> Result<Cow<'_, str>, Cow<'_, str>> {
    fn canonical_str(kind: ParameterType, text: &str) -> Option<Cow<'_, str>> {
        match kind {
            ParameterType::Uuid => scalar::uuid(text),
            ParameterType::Date => scalar::is_date(text).then_some(Cow::Borrowed(text)),
            ParameterType::Time => scalar::is_time(text).then_some(Cow::Borrowed(text)),
            ParameterType::Datetime => scalar::datetime(text),
            _ => None,
        }
    }
    match text {
        Cow::Borrowed(text) => canonical_str(kind, text).ok_or(Cow::Borrowed(text)),
        Cow::Owned(text) => {
            let canonical = canonical_str(kind, &text).map(Cow::into_owned);
            canonical.map(Cow::Owned).ok_or(Cow::Owned(text))
        }
    }
}

fn has_length(
    parameter: &Parameter,
    length: usize,
    unit: &str,
    location: Location<'_>,
    violations: &mut Violations,
) -> bool {
    let constraints = &parameter.constraints;
    if let Some(min) = constraints.length_min.filter(|min| length < *min) {
        violations.add(location, format!("expected at least {min} {unit}"));
        return false;
    }
    if let Some(max) = constraints.length_max.filter(|max| length > *max) {
        violations.add(location, format!("expected at most {max} {unit}"));
        return false;
    }
    true
}

fn is_allowed(
    parameter: &Parameter,
    value: &ParameterValue<'_>,
    location: Location<'_>,
    violations: &mut Violations,
) -> bool {
    let Some(allowed) = &parameter.constraints.allowed else {
        return true;
    };
    if allowed.iter().any(|candidate| is_equal(candidate, value)) {
        return true;
    }
    let mut detail = String::from("expected one of ");
    for (index, candidate) in allowed.iter().enumerate() {
        if index > 0 {
            detail.push_str(", ");
        }
        match candidate {
            ParameterValue::Integer(number) => detail.push_str(&number.to_string()),
            ParameterValue::Number(number) => detail.push_str(&number.to_string()),
            ParameterValue::Text(text) | ParameterValue::Decimal(text) => detail.push_str(text),
            _ => {}
        }
    }
    violations.add(location, detail);
    false
}

fn is_equal(left: &ParameterValue<'_>, right: &ParameterValue<'_>) -> bool {
    match (left, right) {
        (ParameterValue::Text(left), ParameterValue::Text(right)) => left == right,
        (ParameterValue::Integer(left), ParameterValue::Integer(right)) => left == right,
        (ParameterValue::Number(left), ParameterValue::Number(right)) => {
            left.partial_cmp(right) == Some(Ordering::Equal)
        }
        (ParameterValue::Decimal(left), ParameterValue::Decimal(right)) => {
            decimal::compare(left, right) == Some(Ordering::Equal)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_integer_can_have_a_fraction_of_zeros_or_an_exponent() {
        use ParameterType::{Int32, Int64};
        for (kind, text, expected) in [
            (Int32, "1.0", Some(1)),
            (Int32, "-12.000", Some(-12)),
            (Int32, "1.5e1", Some(15)),
            (Int32, "100E-2", Some(1)),
            (Int32, "-0.0", Some(0)),
            (Int64, "9223372036854775807.0", Some(i64::MAX)),
            (Int64, "9.223372036854775808e18", None),
            (Int32, "2147483648.0", None),
            (Int32, "1.5", None),
            (Int32, "1e-1", None),
            (Int32, "1e400", None),
            (Int32, "1.", None),
            (Int32, ".0", None),
            (Int32, "01.0", None),
            (Int32, "e1", None),
        ] {
            assert_eq!(integer(kind, text), expected, "{text}");
        }
    }
}
