//! Writes the values of a row as JSON.

use std::io::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::procedures::{Cell, SinkError};

/// Writes one value. Numbers keep all their digits.
pub(super) fn write(out: &mut Vec<u8>, cell: Cell<'_>) -> Result<(), SinkError> {
    match cell {
        Cell::Null => out.extend_from_slice(b"null"),
        Cell::Bool(true) => out.extend_from_slice(b"true"),
        Cell::Bool(false) => out.extend_from_slice(b"false"),
        Cell::Int(number) => write_integer(out, number)?,
        // JSON has neither NaN nor infinity.
        Cell::Float(number) if !number.is_finite() => return Err(SinkError::Shape),
        Cell::Float(number) => encode(out, &number)?,
        Cell::Number(text) | Cell::Json(text) => out.extend_from_slice(text.as_bytes()),
        Cell::Text(text) => write_text(out, text)?,
        Cell::Binary(bytes) => {
            out.push(b'"');
            write_base64(out, bytes)?;
            out.push(b'"');
        }
    }
    Ok(())
}

/// Writes bytes in base64, without quotes.
pub(super) fn write_base64(out: &mut Vec<u8>, bytes: &[u8]) -> Result<(), SinkError> {
    let start = out.len();
    let length = base64::encoded_len(bytes.len(), true).ok_or(SinkError::TooLarge)?;
    out.resize(start + length, 0);
    let into = out.get_mut(start..).unwrap_or_default();
    STANDARD.encode_slice(bytes, into).map_err(|_| SinkError::Shape)?;
    Ok(())
}

/// Writes text as a JSON string.
pub(super) fn write_text(out: &mut Vec<u8>, text: &str) -> Result<(), SinkError> {
    encode(out, text)
}

/// Writes an integer.
pub(super) fn write_integer(
    out: &mut Vec<u8>,
    number: impl std::fmt::Display,
) -> Result<(), SinkError> {
    write!(out, "{number}").map_err(|_| SinkError::Shape)
}

fn encode(out: &mut Vec<u8>, value: &(impl serde::Serialize + ?Sized)) -> Result<(), SinkError> {
    serde_json::to_writer(out, value).map_err(|_| SinkError::Shape)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cell_is_written_as_exact_json() {
        let cases: [(Cell<'_>, &str); 12] = [
            (Cell::Null, "null"),
            (Cell::Bool(true), "true"),
            (Cell::Bool(false), "false"),
            (Cell::Int(i64::MIN), "-9223372036854775808"),
            (Cell::Float(0.1), "0.1"),
            (Cell::Float(-1e300), "-1e+300"),
            (Cell::Number("12345678901234567890.10"), "12345678901234567890.10"),
            (Cell::Text("a\"\\\n\u{1}ä"), "\"a\\\"\\\\\\n\\u0001ä\""),
            (Cell::Text(""), "\"\""),
            (Cell::Binary(b""), "\"\""),
            (Cell::Binary(b"\0\xff"), "\"AP8=\""),
            (Cell::Binary(b"abc"), "\"YWJj\""),
        ];
        for (cell, expected) in cases {
            let mut out = Vec::new();
            write(&mut out, cell).unwrap();
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
        assert_eq!(write(&mut Vec::new(), Cell::Float(f64::NAN)), Err(SinkError::Shape));
        assert_eq!(write(&mut Vec::new(), Cell::Float(f64::INFINITY)), Err(SinkError::Shape));
    }
}
