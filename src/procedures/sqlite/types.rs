//! Converts values between the catalogue's types, `SQLite`'s storage classes and JSON.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, Datelike, SubsecRound};
use rusqlite::types::{Value as SqlValue, ValueRef};

use crate::catalogue::{ParameterType, ParameterValue};
use crate::procedures::{Argument, OwnedCell};

use super::decimal;

/// The number of fractional digits of a `datetime2`.
const TIME_DIGITS: u16 = 7;
/// The last year that SQL Server and RFC 3339 can express.
const YEAR_MAX: i32 = 9999;

/// A column type that `SQLite`'s storage classes cannot express, if the column specifies one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ColumnHint {
    /// No hint: the stored value determines the type.
    Stored,
    /// An exact number, with this number of fractional digits if it is declared.
    Decimal(Option<usize>),
    /// A boolean.
    Boolean,
}

/// The maximum number of fractional digits, as in SQL Server.
const SCALE_MAX: usize = 38;
/// The number of fractional digits of `money`.
const MONEY_SCALE: usize = 4;

/// Returns a column's plain name and its hint, which is a suffix of the name (`price:decimal`,
/// `price:decimal(9, 2)`) or follows from the declared type (`DECIMAL…`).
pub(super) fn column(name: &str, declared: Option<&str>) -> (String, ColumnHint) {
    if let Some((plain, hint)) = name.rsplit_once(':') {
        match hint {
            "boolean" => return (plain.to_owned(), ColumnHint::Boolean),
            "decimal" => return (plain.to_owned(), ColumnHint::Decimal(None)),
            _ if hint.starts_with("decimal(") && hint.ends_with(')') => {
                return (plain.to_owned(), ColumnHint::Decimal(scale(hint)));
            }
            _ => {}
        }
    }
    let declared = declared.unwrap_or_default();
    let word: String = declared
        .chars()
        .take_while(char::is_ascii_alphabetic)
        .map(|letter| letter.to_ascii_uppercase())
        .collect();
    let hint = match word.as_str() {
        "DECIMAL" | "NUMERIC" => ColumnHint::Decimal(scale(declared)),
        "MONEY" | "SMALLMONEY" => ColumnHint::Decimal(Some(MONEY_SCALE)),
        "BOOLEAN" | "BOOL" | "BIT" => ColumnHint::Boolean,
        _ => ColumnHint::Stored,
    };
    (name.to_owned(), hint)
}

/// Returns the scale of `…(precision, scale)`. If only the precision is given, the scale is 0.
fn scale(declared: &str) -> Option<usize> {
    let (_, arguments) = declared.split_once('(')?;
    let (arguments, _) = arguments.split_once(')')?;
    let mut numbers = arguments.split(',').map(|number| number.trim().parse().ok());
    numbers.next()??;
    let scale = numbers.next().unwrap_or(Some(0))?;
    (scale <= SCALE_MAX && numbers.next().is_none()).then_some(scale)
}

/// Converts a value in a result set, or an output.
///
/// # Errors
/// Returns the reason why the value cannot be converted.
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
        (_, ValueRef::Real(number)) if !number.is_finite() => {
            Err("a number is not finite".to_owned())
        }
        (ColumnHint::Decimal(Some(scale)), ValueRef::Integer(number)) => {
            Ok(OwnedCell::Number(decimal::with_scale(&number.to_string(), scale)))
        }
        // Rust prints the shortest digits that identify the double, without an exponent.
        (ColumnHint::Decimal(Some(scale)), ValueRef::Real(number)) => {
            Ok(OwnedCell::Number(decimal::with_scale(&number.to_string(), scale)))
        }
        (_, ValueRef::Integer(number)) => Ok(OwnedCell::Int(number)),
        (_, ValueRef::Real(number)) => Ok(OwnedCell::Float(number)),
        (ColumnHint::Decimal(scale), ValueRef::Text(bytes)) => {
            let number = decimal::json_number(&text(bytes)?);
            let number = number.ok_or_else(|| "a decimal is not a number".to_owned())?;
            Ok(OwnedCell::Number(match scale {
                Some(scale) => decimal::with_scale(&number, scale),
                None => number,
            }))
        }
        (ColumnHint::Decimal(_), ValueRef::Blob(_)) => Err("a decimal is not a number".to_owned()),
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

/// Converts an argument to the value to bind.
pub(super) fn bind(argument: &Argument) -> SqlValue {
    match &argument.value {
        ParameterValue::Null => SqlValue::Null,
        ParameterValue::Boolean(value) => SqlValue::Integer((*value).into()),
        ParameterValue::Integer(value) => SqlValue::Integer(*value),
        ParameterValue::Number(value) => SqlValue::Real(*value),
        ParameterValue::Text(text) if argument.kind == ParameterType::Datetime => {
            SqlValue::Text(utc(text))
        }
        ParameterValue::Decimal(text) | ParameterValue::Text(text) | ParameterValue::Json(text) => {
            SqlValue::Text(text.to_string())
        }
        ParameterValue::Binary(bytes) => SqlValue::Blob(bytes.to_vec()),
        ParameterValue::Table(rows) => SqlValue::Text(table_json(&argument.columns, rows)),
    }
}

/// Converts a table to a JSON array of objects, for `json_each(@rows)`.
fn table_json(columns: &[(Arc<str>, ParameterType)], rows: &[Vec<ParameterValue<'_>>]) -> String {
    let objects: Vec<String> = rows
        .iter()
        .map(|row| {
            let members: Vec<String> = columns
                .iter()
                .zip(row)
                .map(|((name, kind), value)| format!("{}:{}", quoted(name), json(value, *kind)))
                .collect();
            format!("{{{}}}", members.join(","))
        })
        .collect();
    format!("[{}]", objects.join(","))
}

/// Converts an RFC 3339 date and time to UTC, as SQL Server stores it in a `datetime2`: with up to
/// seven fractional digits, rounded, but not into the year 10000. Other text is not changed.
fn utc(text: &str) -> String {
    let Ok(moment) = DateTime::parse_from_rfc3339(text) else { return text.to_owned() };
    let moment = moment.to_utc().naive_utc();
    let mut rounded = moment.round_subsecs(TIME_DIGITS);
    if rounded.year() > YEAR_MAX {
        rounded = moment.trunc_subsecs(TIME_DIGITS);
    }
    let fraction = rounded.format("%.f").to_string();
    format!("{}{}Z", rounded.format("%Y-%m-%dT%H:%M:%S"), fraction.trim_end_matches('0'))
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn json(value: &ParameterValue<'_>, kind: ParameterType) -> String {
    match value {
        ParameterValue::Text(text) if kind == ParameterType::Datetime => quoted(&utc(text)),
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
    fn a_date_and_time_is_converted_to_utc() {
        for (given, expected) in [
            ("2026-01-02T03:04:05+02:00", "2026-01-02T01:04:05Z"),
            ("2026-01-01T00:30:00.500-11:30", "2026-01-01T12:00:00.5Z"),
            ("2026-12-31T23:59:59.99999996Z", "2027-01-01T00:00:00Z"),
            ("2026-01-02T03:04:05.123456789Z", "2026-01-02T03:04:05.1234568Z"),
            ("9999-12-31T23:59:59.99999996Z", "9999-12-31T23:59:59.9999999Z"),
            ("2026-01-02T03:04:05", "2026-01-02T03:04:05"),
            ("soon", "soon"),
        ] {
            assert_eq!(utc(given), expected);
        }
    }

    #[test]
    fn a_hint_is_in_the_name_or_in_the_declared_type() {
        let cases = [
            ("price:decimal", None, "price", ColumnHint::Decimal(None)),
            ("price:decimal(9, 2)", None, "price", ColumnHint::Decimal(Some(2))),
            ("price", Some("numeric(9)"), "price", ColumnHint::Decimal(Some(0))),
            ("price", Some("DECIMAL"), "price", ColumnHint::Decimal(None)),
            ("price", Some("DECIMAL(9, 99)"), "price", ColumnHint::Decimal(None)),
            ("price", Some("MONEY"), "price", ColumnHint::Decimal(Some(4))),
            ("alive:boolean", Some("TEXT"), "alive", ColumnHint::Boolean),
            ("a:b", None, "a:b", ColumnHint::Stored),
            ("price", Some("DECIMAL TEXT (9, 2)"), "price", ColumnHint::Decimal(Some(2))),
            ("alive", Some("boolean"), "alive", ColumnHint::Boolean),
            ("alive", Some("BOOLEAN_TEXT"), "alive", ColumnHint::Boolean),
            ("name", Some("TEXT"), "name", ColumnHint::Stored),
        ];
        for (name, declared, plain, hint) in cases {
            assert_eq!(column(name, declared), (plain.to_owned(), hint), "{name}");
        }
    }
}
