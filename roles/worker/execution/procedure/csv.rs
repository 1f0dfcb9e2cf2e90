//! Writes rows as CSV (RFC 4180): lines that consist of comma-separated fields and end with CR LF.
//!
//! Values are written unchanged. A program that opens the file may evaluate text that begins with
//! `=`. However, adding a character to prevent this would change the value for every other reader.

use memchr::memchr3;

use crate::procedures::{Cell, SinkError};

use super::json;

/// The end of a line.
const LINE_END: &[u8] = b"\r\n";

/// Writes the line with the names of the columns.
pub(super) fn write_header(out: &mut Vec<u8>, names: &[String]) {
    for (index, name) in names.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_text(out, name);
    }
    out.extend_from_slice(LINE_END);
}

/// Writes the line of a row.
pub(super) fn write_row(out: &mut Vec<u8>, cells: &[Cell<'_>]) -> Result<(), SinkError> {
    for (index, cell) in cells.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_field(out, *cell)?;
    }
    out.extend_from_slice(LINE_END);
    Ok(())
}

fn write_field(out: &mut Vec<u8>, cell: Cell<'_>) -> Result<(), SinkError> {
    match cell {
        Cell::Null => Ok(()),
        Cell::Text(text) | Cell::Json(text) => {
            write_text(out, text);
            Ok(())
        }
        // Base64 contains no character that has a meaning in CSV.
        Cell::Binary(bytes) => json::write_base64(out, bytes),
        Cell::Bool(_) | Cell::Int(_) | Cell::Float(_) | Cell::Number(_) => json::write(out, cell),
    }
}

/// Writes text, in quotes if necessary. Empty text is quoted, because NULL is an empty field
/// without quotes.
fn write_text(out: &mut Vec<u8>, text: &str) {
    let bytes = text.as_bytes();
    let is_plain = !bytes.is_empty()
        && memchr3(b',', b'"', b'\n', bytes).is_none()
        && memchr::memchr(b'\r', bytes).is_none();
    if is_plain {
        return out.extend_from_slice(bytes);
    }
    out.push(b'"');
    for (index, part) in text.split('"').enumerate() {
        if index > 0 {
            out.extend_from_slice(b"\"\"");
        }
        out.extend_from_slice(part.as_bytes());
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_quoted_when_they_must_be() {
        let cells = [
            Cell::Null,
            Cell::Text(""),
            Cell::Text("plain text"),
            Cell::Text("a,b"),
            Cell::Text("say \"x\""),
            Cell::Text("two\r\nlines"),
            Cell::Text("=1+1"),
            Cell::Json("{\"a\":1}"),
            Cell::Number("12345678901234567890.10"),
            Cell::Int(-1),
            Cell::Bool(true),
            Cell::Float(0.5),
            Cell::Binary(b"abc"),
        ];
        let mut out = Vec::new();
        write_row(&mut out, &cells).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            ",\"\",plain text,\"a,b\",\"say \"\"x\"\"\",\"two\r\nlines\",=1+1,\"{\"\"a\"\":1}\",\
             12345678901234567890.10,-1,true,0.5,YWJj\r\n"
        );
        assert_eq!(write_row(&mut Vec::new(), &[Cell::Float(f64::NAN)]), Err(SinkError::Shape));
    }
}
