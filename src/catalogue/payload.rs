//! The payload of a request from a gateway to a worker: a JSON object of validated parameters by name.

use std::io::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

use super::endpoint::Endpoint;
use super::parameter::Parameter;
use super::validate::json;
use super::value::{ParameterValue, ReceivedValue};
use super::violations::{JsonPointer, Location, NOT_UTF8, REQUIRED, Violations};
use crate::problem::Violation;

/// The initial capacity of a payload's buffer in bytes. It is enough for an ordinary request.
const CAPACITY: usize = 256;

/// Writes the payload, which consists of the valid values and the defaults of all other parameters.
#[must_use]
pub fn write(endpoint: &Endpoint, values: &[ReceivedValue<'_>]) -> Bytes {
    let mut out = Vec::with_capacity(CAPACITY);
    let mut separator = b'{';
    for (parameter, value) in endpoint.parameters.iter().zip(values) {
        let value = match value {
            ReceivedValue::Valid(value) => value,
            ReceivedValue::Absent | ReceivedValue::Invalid => match &parameter.default {
                Some(default) => default,
                None => continue,
            },
        };
        out.push(separator);
        separator = b',';
        write_text(&parameter.name, &mut out);
        out.push(b':');
        write_value(&parameter.columns, value, &mut out);
    }
    if separator == b'{' {
        out.push(separator);
    }
    out.push(b'}');
    out.into()
}

/// Writes one value. Numbers keep every digit, text is escaped, and JSON is copied unchanged.
fn write_value(columns: &[Parameter], value: &ParameterValue<'_>, out: &mut Vec<u8>) {
    match value {
        ParameterValue::Null => out.extend_from_slice(b"null"),
        ParameterValue::Boolean(true) => out.extend_from_slice(b"true"),
        ParameterValue::Boolean(false) => out.extend_from_slice(b"false"),
        ParameterValue::Integer(number) => write_json(number, out),
        ParameterValue::Number(number) => write_json(number, out),
        ParameterValue::Decimal(text) | ParameterValue::Json(text) => {
            out.extend_from_slice(text.as_bytes());
        }
        ParameterValue::Text(text) => write_text(text, out),
        ParameterValue::Binary(bytes) => {
            out.push(b'"');
            out.extend_from_slice(STANDARD.encode(bytes).as_bytes());
            out.push(b'"');
        }
        ParameterValue::Table(rows) => {
            out.push(b'[');
            for (index, row) in rows.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write_row(columns, row, out);
            }
            out.push(b']');
        }
    }
}

fn write_row(columns: &[Parameter], row: &[ParameterValue<'_>], out: &mut Vec<u8>) {
    out.push(b'{');
    for (index, (column, value)) in columns.iter().zip(row).enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_text(&column.name, out);
        out.push(b':');
        write_value(&[], value, out);
    }
    out.push(b'}');
}

fn write_text(text: &str, out: &mut Vec<u8>) {
    // Most text needs no escapes and is copied as a whole. The search has no early return, so that the compiler vectorizes it.
    let is_plain = |b: u8| b >= 0x20 && b != b'"' && b != b'\\';
    if text.bytes().fold(true, |all, b| all & is_plain(b)) {
        out.push(b'"');
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
    } else {
        write_json(text, out);
    }
}

fn write_json(value: &(impl serde::Serialize + ?Sized), out: &mut Vec<u8>) {
    // Serializing a number or a text into a vector cannot fail.
    let written = serde_json::to_writer(out.by_ref(), value);
    debug_assert!(written.is_ok(), "numbers and strings can be serialized");
}

/// Reads and validates a payload in a worker. The content is not trusted, because the sender might not be a gateway.
///
/// Returns each value with the index of its parameter. Defaults replace absent values.
///
/// # Errors
/// Returns all violations, each with its JSON Pointer into the payload.
pub fn read(
    endpoint: &Endpoint,
    payload: &[u8],
) -> Result<Vec<(usize, ParameterValue<'static>)>, Vec<Violation>> {
    let root = JsonPointer::ROOT;
    let mut violations = Violations::default();
    let parameters = &endpoint.parameters;
    let mut received = vec![ReceivedValue::Absent; parameters.len()];
    match std::str::from_utf8(payload) {
        Ok(text) => {
            json::read_object(text, parameters, None, &root, (&mut received, &mut violations));
        }
        Err(_) => violations.add(Location::Json(&root), NOT_UTF8),
    }
    let mut values = Vec::with_capacity(parameters.len());
    for (index, (parameter, value)) in parameters.iter().zip(received).enumerate() {
        match value {
            ReceivedValue::Valid(value) => values.push((index, value.into_owned())),
            ReceivedValue::Invalid => {}
            ReceivedValue::Absent if parameter.required => {
                violations.add(Location::Json(&root.key(&parameter.name)), REQUIRED);
            }
            ReceivedValue::Absent => {
                if let Some(default) = &parameter.default {
                    values.push((index, default.clone()));
                }
            }
        }
    }
    if violations.is_empty() { Ok(values) } else { Err(violations.into_vec()) }
}

/// Converts a value to JSON for the `OpenAPI` document. Decimals are rounded to doubles.
pub(super) fn to_json(value: &ParameterValue<'_>) -> Option<serde_json::Value> {
    let mut out = Vec::new();
    write_value(&[], value, &mut out);
    serde_json::from_slice(&out).ok()
}
