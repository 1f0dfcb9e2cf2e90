//! Converts OUTPUT parameters into the values of response headers.

use std::fmt::Write as _;
use std::time::SystemTime;

use chrono::{DateTime, NaiveDateTime, Utc};

use crate::catalogue::Endpoint;
use crate::catalogue::names::eq_ignore_case;
use crate::catalogue::response_header::{ResponseHeader, is_opaque_tag};
use crate::procedures::{Cell, ProcedureResult};

/// The error for an OUTPUT parameter that is not a valid value for its header. It does not contain
/// the value, which can be confidential.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the OUTPUT parameter @{parameter} is not a valid value for the header {}: {expected}", .header.as_str())]
pub(super) struct InvalidHeaderValue {
    header: ResponseHeader,
    parameter: String,
    expected: &'static str,
}

/// Returns the headers that the endpoint declares. A header whose OUTPUT parameter is NULL is omitted.
///
/// # Errors
/// `InvalidHeaderValue` for the first value that is not valid for its header.
pub(super) fn response_headers(
    endpoint: &Endpoint,
    result: &ProcedureResult,
) -> Result<Vec<(ResponseHeader, String)>, InvalidHeaderValue> {
    let mut headers = Vec::with_capacity(endpoint.headers.len());
    for (header, parameter) in &endpoint.headers {
        let mut outputs = result.outputs.iter();
        let output = outputs.find(|(name, _)| eq_ignore_case(name, parameter));
        let cell = output.map_or(Cell::Null, |(_, cell)| cell.as_cell());
        let invalid = |expected| InvalidHeaderValue {
            header: *header,
            parameter: parameter.to_string(),
            expected,
        };
        let Some(value) = text(*header, cell).map_err(invalid)? else { continue };
        header.check(&value).map_err(invalid)?;
        headers.push((*header, value));
    }
    Ok(headers)
}

/// Converts a value to the text of a header, or to `None` for NULL.
fn text(header: ResponseHeader, cell: Cell<'_>) -> Result<Option<String>, &'static str> {
    let text = match (header, cell) {
        (_, Cell::Null) => return Ok(None),
        (ResponseHeader::ETag, Cell::Int(number)) => format!("\"{number}\""),
        (ResponseHeader::ETag, Cell::Number(digits)) => format!("\"{digits}\""),
        (ResponseHeader::ETag, Cell::Text(text)) if !text.is_empty() && is_opaque_tag(text) => {
            format!("\"{text}\"")
        }
        (ResponseHeader::ETag, Cell::Binary(bytes)) if !bytes.is_empty() => {
            let mut tag = String::from("\"");
            for byte in bytes {
                write!(tag, "{byte:02x}").map_err(|_| "expected fewer bytes")?;
            }
            tag.push('"');
            tag
        }
        (ResponseHeader::XTotalCount, Cell::Int(number)) => number.to_string(),
        (ResponseHeader::XTotalCount, Cell::Number(digits)) => digits.to_owned(),
        (ResponseHeader::LastModified, Cell::Text(text)) => http_date(text)?,
        (_, Cell::Text(text)) => text.to_owned(),
        _ => return Err("expected text"),
    };
    Ok(Some(text))
}

/// Converts a time to an HTTP date. A time in the future becomes the current time (RFC 9110 §8.8.2.1).
fn http_date(text: &str) -> Result<String, &'static str> {
    let utc = || {
        let naive = NaiveDateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.f");
        Some(naive.ok()?.and_utc())
    };
    let time = if let Ok(time) = httpdate::parse_http_date(text) {
        time
    } else {
        let time: Option<DateTime<Utc>> =
            DateTime::parse_from_rfc3339(text).map(Into::into).ok().or_else(utc);
        let time = time.ok_or("expected a date and time, such as datetimeoffset or datetime2")?;
        // Years before 1970 have no HTTP date that every recipient can read.
        SystemTime::from(time).max(SystemTime::UNIX_EPOCH)
    };
    // The library panics beyond the year 9999.
    Ok(httpdate::fmt_http_date(time.min(SystemTime::now())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(header: ResponseHeader, cell: Cell<'_>) -> Option<String> {
        text(header, cell).unwrap_or_else(|expected| panic!("{expected}"))
    }

    #[test]
    fn a_version_of_any_type_becomes_an_entity_tag() {
        for (cell, tag) in [
            (Cell::Int(7), "\"7\""),
            (Cell::Number("7.50"), "\"7.50\""),
            (Cell::Binary(&[0, 0, 0x07, 0xd1]), "\"000007d1\""),
            (Cell::Text("v7"), "\"v7\""),
            (Cell::Text("\"v7\""), "\"v7\""),
            (Cell::Text("W/\"v7\""), "W/\"v7\""),
        ] {
            assert_eq!(value(ResponseHeader::ETag, cell).as_deref(), Some(tag));
        }
        assert_eq!(value(ResponseHeader::ETag, Cell::Null), None);
        assert!(text(ResponseHeader::ETag, Cell::Bool(true)).is_err());
        assert!(text(ResponseHeader::Location, Cell::Int(1)).is_err());
    }

    #[test]
    fn a_time_becomes_an_http_date() {
        for time in [
            "1994-11-06T08:49:37Z",
            "1994-11-06T10:49:37.999+02:00",
            "1994-11-06T08:49:37.5",
            "Sun, 06 Nov 1994 08:49:37 GMT",
        ] {
            let date = value(ResponseHeader::LastModified, Cell::Text(time));
            assert_eq!(date.as_deref(), Some("Sun, 06 Nov 1994 08:49:37 GMT"), "{time}");
        }
        let now = httpdate::fmt_http_date(SystemTime::now());
        let future =
            value(ResponseHeader::LastModified, Cell::Text("9999-12-31T23:59:59Z")).unwrap();
        assert_eq!(future.get(..16), now.get(..16), "{future} {now}");
        let past = value(ResponseHeader::LastModified, Cell::Text("0001-01-01T00:00:00Z"));
        assert_eq!(past.as_deref(), Some("Thu, 01 Jan 1970 00:00:00 GMT"));
        assert!(text(ResponseHeader::LastModified, Cell::Text("yesterday")).is_err());
    }
}
