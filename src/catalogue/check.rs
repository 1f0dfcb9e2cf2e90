//! Checks what was sent against a parameter's type and constraints. Gateway and worker use the same code.

use std::borrow::Cow;
use std::cmp::Ordering;

use bytes::Bytes;
use memchr::memchr;
use serde_json::value::RawValue;

use super::findings::{Findings, Spot};
use super::parameter::{Parameter, ParameterType};
use super::value::Value;

pub mod decimal;
pub mod json;
pub mod scalar;

/// A checked value that borrows from the request wherever it can.
#[derive(Clone, Debug, PartialEq)]
pub enum Checked<'a> {
    /// JSON `null`.
    Null,
    /// A boolean.
    Boolean(bool),
    /// `int32` or `int64`.
    Integer(i64),
    /// `number`: finite.
    Number(f64),
    /// `decimal` in plain notation.
    Decimal(Cow<'a, str>),
    /// Text in its canonical form.
    Text(Cow<'a, str>),
    /// Bytes.
    Binary(Bytes),
    /// JSON text as it was sent.
    Json(Cow<'a, str>),
    /// Rows with a value for each declared column.
    Table(Vec<Vec<Checked<'a>>>),
}

impl Checked<'_> {
    /// The same value, on its own.
    #[must_use]
    pub fn into_value(self) -> Value {
        match self {
            Self::Null => Value::Null,
            Self::Boolean(value) => Value::Boolean(value),
            Self::Integer(value) => Value::Integer(value),
            Self::Number(value) => Value::Number(value),
            Self::Decimal(text) => Value::Decimal(text.into_owned()),
            Self::Text(text) => Value::Text(text.into_owned()),
            Self::Binary(bytes) => Value::Binary(bytes),
            Self::Json(text) => Value::Json(text.into_owned()),
            Self::Table(rows) => Value::Table(
                rows.into_iter()
                    .map(|row| row.into_iter().map(Checked::into_value).collect())
                    .collect(),
            ),
        }
    }
}

impl<'a> From<&'a Value> for Checked<'a> {
    fn from(value: &'a Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Boolean(value) => Self::Boolean(*value),
            Value::Integer(value) => Self::Integer(*value),
            Value::Number(value) => Self::Number(*value),
            Value::Decimal(text) => Self::Decimal(Cow::Borrowed(text)),
            Value::Text(text) => Self::Text(Cow::Borrowed(text)),
            Value::Binary(bytes) => Self::Binary(bytes.clone()),
            Value::Json(text) => Self::Json(Cow::Borrowed(text)),
            Value::Table(rows) => {
                Self::Table(rows.iter().map(|row| row.iter().map(Self::from).collect()).collect())
            }
        }
    }
}

/// What a request has for one parameter.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Slot<'a> {
    /// Nothing.
    #[default]
    Absent,
    /// Something that does not fit; it was reported.
    Refused,
    /// A value.
    Given(Checked<'a>),
}

impl<'a> From<Option<Checked<'a>>> for Slot<'a> {
    fn from(checked: Option<Checked<'a>>) -> Self {
        checked.map_or(Self::Refused, Self::Given)
    }
}

/// What a value of a type looks like, for messages.
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
            "expected a date and time with its offset (RFC 3339), e.g. 2024-02-29T12:00:00Z"
        }
        ParameterType::Binary => "expected bytes as base64 with padding",
        ParameterType::Json => "expected JSON",
        ParameterType::Table => "expected an array of objects",
    }
}

/// Checks text from outside a body: a path segment, a query parameter, a header, a claim.
/// What is wrong goes to `findings`; then there is no value.
pub fn from_text<'a>(
    parameter: &Parameter,
    text: Cow<'a, str>,
    spot: Spot<'_>,
    findings: &mut Findings,
) -> Option<Checked<'a>> {
    match parameter.kind {
        ParameterType::Int32
        | ParameterType::Int64
        | ParameterType::Number
        | ParameterType::Decimal => number(parameter, &text, spot, findings),
        ParameterType::Boolean => match &*text {
            "true" => Some(Checked::Boolean(true)),
            "false" => Some(Checked::Boolean(false)),
            _ => wrong_type(parameter, spot, findings),
        },
        ParameterType::Json => json::text(parameter, text, spot, findings),
        ParameterType::Table => wrong_type(parameter, spot, findings),
        _ => words(parameter, text, spot, findings),
    }
}

/// Checks a member of a JSON object. What is wrong goes to `findings`; then there is no value.
pub fn from_raw<'a>(
    parameter: &Parameter,
    raw: &'a RawValue,
    spot: Spot<'_>,
    findings: &mut Findings,
) -> Option<Checked<'a>> {
    let text = raw.get();
    if text == "null" {
        if parameter.required {
            findings.add(spot, "must not be null");
            return None;
        }
        return Some(Checked::Null);
    }
    match (parameter.kind, text.as_bytes().first()?) {
        (ParameterType::Json, _) => json::text(parameter, Cow::Borrowed(text), spot, findings),
        (ParameterType::Table, b'[') => json::table(parameter, text, spot, findings),
        (ParameterType::Boolean, b't') => Some(Checked::Boolean(true)),
        (ParameterType::Boolean, b'f') => Some(Checked::Boolean(false)),
        (
            ParameterType::Int32
            | ParameterType::Int64
            | ParameterType::Number
            | ParameterType::Decimal,
            b'-' | b'0'..=b'9',
        ) => number(parameter, &Cow::Borrowed(text), spot, findings),
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
                findings.add(spot, json::LONE_SURROGATE);
                return None;
            };
            words(parameter, text, spot, findings)
        }
        _ => wrong_type(parameter, spot, findings),
    }
}

fn wrong_type<'a>(
    parameter: &Parameter,
    spot: Spot<'_>,
    findings: &mut Findings,
) -> Option<Checked<'a>> {
    findings.add(spot, expected(parameter.kind));
    None
}

/// Numbers of every kind: the text decides, so that bounds are compared with every digit.
fn number<'a>(
    parameter: &Parameter,
    text: &Cow<'a, str>,
    spot: Spot<'_>,
    findings: &mut Findings,
) -> Option<Checked<'a>> {
    let checked = match parameter.kind {
        ParameterType::Int32 | ParameterType::Int64 => {
            integer(parameter.kind, text).map(Checked::Integer)
        }
        ParameterType::Number if decimal::is_number(text) => {
            text.parse().ok().filter(|number: &f64| number.is_finite()).map(Checked::Number)
        }
        ParameterType::Decimal => match text {
            Cow::Borrowed(text) => decimal::plain(text).map(Checked::Decimal),
            Cow::Owned(text) => {
                decimal::plain(text).map(|plain| Checked::Decimal(Cow::Owned(plain.into_owned())))
            }
        },
        _ => None,
    };
    let Some(checked) = checked else {
        return wrong_type(parameter, spot, findings);
    };
    let rules = &parameter.constraints;
    let mut kept = true;
    if let Some(minimum) = &rules.minimum
        && decimal::compare(text, &minimum.0) == Some(Ordering::Less)
    {
        findings.add(spot, format!("expected at least {}", minimum.0));
        kept = false;
    }
    if let Some(maximum) = &rules.maximum
        && decimal::compare(text, &maximum.0) == Some(Ordering::Greater)
    {
        findings.add(spot, format!("expected at most {}", maximum.0));
        kept = false;
    }
    kept &= is_allowed(parameter, &checked, spot, findings);
    kept.then_some(checked)
}

/// A whole number written as one: no fraction, no exponent, no leading zero.
fn integer(kind: ParameterType, text: &str) -> Option<i64> {
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

/// Types that are text: brings it into its canonical form, then looks at the constraints.
fn words<'a>(
    parameter: &Parameter,
    text: Cow<'a, str>,
    spot: Spot<'_>,
    findings: &mut Findings,
) -> Option<Checked<'a>> {
    let rules = &parameter.constraints;
    let mut kept = true;
    let checked = match parameter.kind {
        ParameterType::String => {
            if memchr(0, text.as_bytes()).is_some() {
                findings.add(spot, json::NUL);
                return None;
            }
            if rules.length_min.is_some() || rules.length_max.is_some() {
                kept = has_length(parameter, text.chars().count(), "characters", spot, findings);
            }
            if let Some(pattern) = &rules.pattern
                && !pattern.is_match(&text)
            {
                findings.add(spot, format!("expected text that matches {pattern}"));
                kept = false;
            }
            Checked::Text(text)
        }
        ParameterType::Binary => match scalar::binary(&text) {
            Some(bytes) => {
                kept = has_length(parameter, bytes.len(), "bytes", spot, findings);
                Checked::Binary(bytes)
            }
            None => return wrong_type(parameter, spot, findings),
        },
        kind => match canonical(kind, text) {
            Some(text) => Checked::Text(text),
            None => return wrong_type(parameter, spot, findings),
        },
    };
    kept &= is_allowed(parameter, &checked, spot, findings);
    kept.then_some(checked)
}

fn canonical(kind: ParameterType, text: Cow<'_, str>) -> Option<Cow<'_, str>> {
    fn form(kind: ParameterType, text: &str) -> Option<Cow<'_, str>> {
        match kind {
            ParameterType::Uuid => scalar::uuid(text),
            ParameterType::Date => scalar::is_date(text).then_some(Cow::Borrowed(text)),
            ParameterType::Time => scalar::is_time(text).then_some(Cow::Borrowed(text)),
            ParameterType::Datetime => scalar::datetime(text),
            _ => None,
        }
    }
    match text {
        Cow::Borrowed(text) => form(kind, text),
        Cow::Owned(text) => form(kind, &text).map(|form| Cow::Owned(form.into_owned())),
    }
}

fn has_length(
    parameter: &Parameter,
    length: usize,
    unit: &str,
    spot: Spot<'_>,
    findings: &mut Findings,
) -> bool {
    let rules = &parameter.constraints;
    if let Some(fewest) = rules.length_min.filter(|fewest| length < *fewest) {
        findings.add(spot, format!("expected at least {fewest} {unit}"));
        return false;
    }
    if let Some(most) = rules.length_max.filter(|most| length > *most) {
        findings.add(spot, format!("expected at most {most} {unit}"));
        return false;
    }
    true
}

fn is_allowed(
    parameter: &Parameter,
    checked: &Checked<'_>,
    spot: Spot<'_>,
    findings: &mut Findings,
) -> bool {
    let Some(allowed) = &parameter.constraints.allowed else {
        return true;
    };
    if allowed.iter().any(|value| is_same(value, checked)) {
        return true;
    }
    let mut listed = String::from("expected one of ");
    for (at, value) in allowed.iter().enumerate() {
        if at > 0 {
            listed.push_str(", ");
        }
        match value {
            Value::Integer(number) => listed.push_str(&number.to_string()),
            Value::Number(number) => listed.push_str(&number.to_string()),
            Value::Text(text) | Value::Decimal(text) => listed.push_str(text),
            _ => {}
        }
    }
    findings.add(spot, listed);
    false
}

fn is_same(value: &Value, checked: &Checked<'_>) -> bool {
    match (value, checked) {
        (Value::Text(left), Checked::Text(right)) => left == right,
        (Value::Integer(left), Checked::Integer(right)) => left == right,
        (Value::Number(left), Checked::Number(right)) => {
            left.partial_cmp(right) == Some(Ordering::Equal)
        }
        (Value::Decimal(left), Checked::Decimal(right)) => {
            decimal::compare(left, right) == Some(Ordering::Equal)
        }
        _ => false,
    }
}
