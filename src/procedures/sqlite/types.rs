//! Converts values between the catalogue's types, `SQLite`'s storage classes and JSON.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rusqlite::types::{Value as SqlValue, ValueRef};

use crate::catalogue::ParameterValue;
use crate::procedures::{Argument, OwnedCell};

/// A column type that `SQLite`'s storage classes cannot express, if the column specifies one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ColumnHint {
    /// No hint: the stored value determines the type.
    Stored,
    /// An exact number.
    Decimal,
    /// A boolean.
    Boolean,
}

/// Returns a column's plain name and its hint, which is a suffix of the name (`price:decimal`) or
/// follows from the declared type (`DECIMAL…`).
pub(super) fn column(name: &str, declared: Option<&str>) -> (String, ColumnHint) {
    if let Some((plain, hint)) = name.rsplit_once(':') {
        match hint {
            "decimal" => return (plain.to_owned(), ColumnHint::Decimal),
            "boolean" => return (plain.to_owned(), ColumnHint::Boolean),
            _ => {}
        }
    }
    let word: String = declared
        .unwrap_or_default()
        .chars()
        .take_while(char::is_ascii_alphabetic)
        .map(|letter| letter.to_ascii_uppercase())
        .collect();
    let hint = match word.as_str() {
        "DECIMAL" | "NUMERIC" | "MONEY" => ColumnHint::Decimal,
        "BOOLEAN" | "BOOL" | "BIT" => ColumnHint::Boolean,
        _ => ColumnHint::Stored,
    };
    (name.to_owned(), hint)
}

/// Converts a value of a result set or an output.
///
/// # Errors
/// Returns the reason that the value cannot be converted.
pub(super) fn cell(value: ValueRef<'_>, hint: ColumnHint) -> Result<OwnedCell, String> {
    let text = |bytes: &[u8]| {
        str::from_utf8(bytes).map(ToOwned::to_owned).map_err(|_| "text is not UTF-8".to_owned())
    };
    match (hint, value) {
        (_, ValueRef::Null) => Ok(OwnedCell::Null),
        (ColumnHint::Boolean, ValueRef::Integer(number @ (0 | 1))) => {
            Ok(OwnedCell::Bool(number == 1))
        }
        (ColumnHint::Boolean, _) => Err("a boolean is neither 0 nor 1".to_owned()),
        (_, ValueRef::Integer(number)) => Ok(OwnedCell::Int(number)),
        (_, ValueRef::Real(number)) if !number.is_finite() => {
            Err("a number is not finite".to_owned())
        }
        (_, ValueRef::Real(number)) => Ok(OwnedCell::Float(number)),
        (ColumnHint::Decimal, ValueRef::Text(bytes)) => json_number(&text(bytes)?)
            .map(OwnedCell::Number)
            .ok_or_else(|| "a decimal is not a number".to_owned()),
        (ColumnHint::Decimal, ValueRef::Blob(_)) => Err("a decimal is not a number".to_owned()),
        (ColumnHint::Stored, ValueRef::Text(bytes)) => Ok(OwnedCell::Text(text(bytes)?)),
        (ColumnHint::Stored, ValueRef::Blob(bytes)) => Ok(OwnedCell::Binary(bytes.to_vec())),
    }
}

/// Copies a value into a variable for later statements.
pub(super) fn owned(value: ValueRef<'_>) -> SqlValue {
    match value {
        ValueRef::Null => SqlValue::Null,
        ValueRef::Integer(number) => SqlValue::Integer(number),
        ValueRef::Real(number) => SqlValue::Real(number),
        ValueRef::Text(bytes) => SqlValue::Text(String::from_utf8_lossy(bytes).into_owned()),
        ValueRef::Blob(bytes) => SqlValue::Blob(bytes.to_vec()),
    }
}

/// Converts decimal text to a JSON number, without a plus sign and leading zeros. Loses no digit.
fn json_number(text: &str) -> Option<String> {
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

/// Converts an argument to the value to bind.
pub(super) fn bind(argument: &Argument) -> SqlValue {
    match &argument.value {
        ParameterValue::Null => SqlValue::Null,
        ParameterValue::Boolean(value) => SqlValue::Integer((*value).into()),
        ParameterValue::Integer(value) => SqlValue::Integer(*value),
        ParameterValue::Number(value) => SqlValue::Real(*value),
        ParameterValue::Decimal(text) | ParameterValue::Text(text) | ParameterValue::Json(text) => {
            SqlValue::Text(text.to_string())
        }
        ParameterValue::Binary(bytes) => SqlValue::Blob(bytes.to_vec()),
        ParameterValue::Table(rows) => {
            let names: Vec<&Arc<str>> = argument.columns.iter().map(|(name, _)| name).collect();
            SqlValue::Text(table_json(&names, rows))
        }
    }
}

/// Converts a table to a JSON array of objects, for `json_each(@rows)`.
fn table_json(names: &[&Arc<str>], rows: &[Vec<ParameterValue<'_>>]) -> String {
    let objects: Vec<String> = rows
        .iter()
        .map(|row| {
            let members: Vec<String> = names
                .iter()
                .zip(row)
                .map(|(name, value)| format!("{}:{}", quoted(name), json(value)))
                .collect();
            format!("{{{}}}", members.join(","))
        })
        .collect();
    format!("[{}]", objects.join(","))
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn json(value: &ParameterValue<'_>) -> String {
    match value {
        // A table cannot contain tables.
        ParameterValue::Null | ParameterValue::Table(_) => "null".to_owned(),
        ParameterValue::Boolean(value) => value.to_string(),
        ParameterValue::Integer(value) => value.to_string(),
        ParameterValue::Number(value) => serde_json::Value::from(*value).to_string(),
        // Decimals are text, because SQLite reads a JSON number with a fraction as a double.
        ParameterValue::Decimal(text) | ParameterValue::Text(text) => quoted(text),
        ParameterValue::Binary(bytes) => quoted(&STANDARD.encode(bytes)),
        ParameterValue::Json(text) => text.to_string(),
    }
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
    fn a_hint_is_in_the_name_or_in_the_declared_type() {
        let cases = [
            ("price:decimal", None, "price", ColumnHint::Decimal),
            ("alive:boolean", Some("TEXT"), "alive", ColumnHint::Boolean),
            ("a:b", None, "a:b", ColumnHint::Stored),
            ("price", Some("DECIMAL TEXT (9, 2)"), "price", ColumnHint::Decimal),
            ("alive", Some("boolean"), "alive", ColumnHint::Boolean),
            ("alive", Some("BOOLEAN_TEXT"), "alive", ColumnHint::Boolean),
            ("name", Some("TEXT"), "name", ColumnHint::Stored),
        ];
        for (name, declared, plain, hint) in cases {
            assert_eq!(column(name, declared), (plain.to_owned(), hint), "{name}");
        }
    }
}
