//! The payload between gateway and worker: one JSON object of checked parameters, by name.

use std::io::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

use super::check::{Checked, Slot, json};
use super::endpoint::Endpoint;
use super::findings::{Findings, Pointer, Spot};
use super::parameter::Parameter;
use super::value::Value;
use crate::problem::Violation;

/// Room for the payload of an ordinary request.
const CAPACITY: usize = 256;

/// Writes the payload: what was given, and the default of what was not.
#[must_use]
pub fn write(endpoint: &Endpoint, slots: &[Slot<'_>]) -> Bytes {
    let mut out = Vec::with_capacity(CAPACITY);
    write_members(&endpoint.parameters, slots, &mut out);
    out.into()
}

fn write_members(parameters: &[Parameter], slots: &[Slot<'_>], out: &mut Vec<u8>) {
    let mut separator = b'{';
    for (parameter, slot) in parameters.iter().zip(slots) {
        let from_default;
        let value = match slot {
            Slot::Given(value) => value,
            Slot::Absent | Slot::Refused => match &parameter.default {
                Some(default) => {
                    from_default = Checked::from(default);
                    &from_default
                }
                None => continue,
            },
        };
        out.push(separator);
        separator = b',';
        write_text(&parameter.name, out);
        out.push(b':');
        write_value(&parameter.columns, value, out);
    }
    if separator == b'{' {
        out.push(separator);
    }
    out.push(b'}');
}

/// Writes one value: numbers with every digit, text escaped, JSON as it was.
fn write_value(columns: &[Parameter], value: &Checked<'_>, out: &mut Vec<u8>) {
    match value {
        Checked::Null => out.extend_from_slice(b"null"),
        Checked::Boolean(true) => out.extend_from_slice(b"true"),
        Checked::Boolean(false) => out.extend_from_slice(b"false"),
        Checked::Integer(number) => write_json(number, out),
        Checked::Number(number) => write_json(number, out),
        Checked::Decimal(text) | Checked::Json(text) => out.extend_from_slice(text.as_bytes()),
        Checked::Text(text) => write_text(text, out),
        Checked::Binary(bytes) => {
            out.push(b'"');
            out.extend_from_slice(STANDARD.encode(bytes).as_bytes());
            out.push(b'"');
        }
        Checked::Table(rows) => {
            out.push(b'[');
            for (at, row) in rows.iter().enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                write_row(columns, row, out);
            }
            out.push(b']');
        }
    }
}

fn write_row(columns: &[Parameter], row: &[Checked<'_>], out: &mut Vec<u8>) {
    out.push(b'{');
    for (at, (column, value)) in columns.iter().zip(row).enumerate() {
        if at > 0 {
            out.push(b',');
        }
        write_text(&column.name, out);
        out.push(b':');
        write_value(&[], value, out);
    }
    out.push(b'}');
}

fn write_text(text: &str, out: &mut Vec<u8>) {
    // Most text needs no escape, and is then copied at once. Without a way out on the first byte that does the compiler
    // looks at many at once.
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
    // Numbers and text have a JSON form, and a vector takes every byte.
    let written = serde_json::to_writer(out.by_ref(), value);
    debug_assert!(written.is_ok(), "a number or a text");
}

/// Reads a payload on the worker's side, with nothing taken on trust: the sender may not be a gateway.
///
/// Each value comes with the index of its parameter. A default stands for what is absent.
///
/// # Errors
/// All violations, each with its JSON Pointer into the payload.
pub fn read(endpoint: &Endpoint, payload: &[u8]) -> Result<Vec<(usize, Value)>, Vec<Violation>> {
    let mut findings = Findings::default();
    let parameters = &endpoint.parameters;
    let mut slots = vec![Slot::Absent; parameters.len()];
    match std::str::from_utf8(payload) {
        Ok(text) => {
            json::object(text, parameters, None, &Pointer::ROOT, (&mut slots, &mut findings));
        }
        Err(_) => findings.add(Spot::At(&Pointer::ROOT), json::NOT_UTF8),
    }
    let mut values = Vec::with_capacity(parameters.len());
    for (index, (parameter, slot)) in parameters.iter().zip(slots).enumerate() {
        match slot {
            Slot::Given(value) => values.push((index, value.into_value())),
            Slot::Refused => {}
            Slot::Absent if parameter.required => {
                findings.add(Spot::At(&Pointer::ROOT.key(&parameter.name)), json::REQUIRED);
            }
            Slot::Absent => {
                if let Some(default) = &parameter.default {
                    values.push((index, default.clone()));
                }
            }
        }
    }
    if findings.is_empty() { Ok(values) } else { Err(findings.into_violations()) }
}

/// A value as JSON, for documents about the endpoint. A decimal loses digits that a double has not.
pub(super) fn to_json(value: &Value) -> Option<serde_json::Value> {
    let mut out = Vec::new();
    write_value(&[], &Checked::from(value), &mut out);
    serde_json::from_slice(&out).ok()
}
