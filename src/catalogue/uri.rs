//! Validates and decodes the paths and queries of requests.
//!
//! Text that two programs could interpret differently is rejected instead of normalized, because attackers use such
//! differences to bypass access rules.

use std::borrow::Cow;

use memchr::memchr;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// The characters that are encoded in a URL: all characters except the unreserved ones (RFC 3986 §2.3).
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Checks that a path or query is visible ASCII and that each `%` begins an encoded octet (RFC 3986 §2.1).
///
/// # Errors
/// Returns a message that states what was expected.
pub fn check_encoding(text: &str) -> Result<(), &'static str> {
    // The loop has no early return, so that the compiler vectorizes it.
    if !text.bytes().fold(true, |all, b| all & b.is_ascii_graphic()) {
        return Err("expected visible ASCII in the URI, with all other characters percent-encoded");
    }
    if memchr(b'%', text.as_bytes()).is_none() {
        return Ok(());
    }
    let is_octet = |rest: &str| rest.bytes().take(2).filter(u8::is_ascii_hexdigit).count() == 2;
    if !text.split('%').skip(1).all(is_octet) {
        return Err("expected two hexadecimal digits after every % in the URI");
    }
    Ok(())
}

/// Decodes the path of a request once. If the result still looks encoded, it is not decoded again.
///
/// # Errors
/// Returns a message that states what was expected. Paths must start with `/`. Segments must be UTF-8, must not be dot
/// segments, and must not contain a slash, a backslash or a control character. Only the last segment may be empty.
pub fn decode_path(path: &str) -> Result<Cow<'_, str>, &'static str> {
    const NOT_UTF8: &str = "the path is not UTF-8 once decoded";
    check_encoding(path)?;
    if !path.starts_with('/') {
        return Err("expected a path that starts with /");
    }
    let is_encoded = memchr(b'%', path.as_bytes()).is_some();
    if !is_encoded && memchr(b'\\', path.as_bytes()).is_none() {
        check_segments(path)?;
        return Ok(Cow::Borrowed(path));
    }
    for segment in path.split('/') {
        let decoded = percent_decode(segment).ok_or(NOT_UTF8)?;
        if decoded.chars().any(|c| matches!(c, '/' | '\\') || c.is_control()) {
            return Err(
                "the path has a slash, a backslash or a control character inside a segment",
            );
        }
    }
    let decoded = percent_decode(path).ok_or(NOT_UTF8)?;
    check_segments(&decoded)?;
    Ok(decoded)
}

/// Checks that no segment of a decoded path is a dot segment (RFC 3986 §5.2.4), and that no segment except the last one
/// is empty.
///
/// # Errors
/// Returns a message that describes the problem.
pub fn check_segments(path: &str) -> Result<(), &'static str> {
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        if segment.is_empty() && segments.peek().is_some() {
            return Err("the path has an empty segment");
        }
        if segment == "." || segment == ".." {
            return Err("the path has a dot segment");
        }
    }
    Ok(())
}

/// Decodes a name or a value of a query once. `+` is decoded to a space.
///
/// # Errors
/// Returns a message that states what was expected.
pub fn decode_query(text: &str) -> Result<Cow<'_, str>, &'static str> {
    check_encoding(text)?;
    let is_encoded = memchr(b'%', text.as_bytes()).is_some();
    if memchr(b'+', text.as_bytes()).is_none() && !is_encoded {
        return Ok(Cow::Borrowed(text));
    }
    let spaced = text.replace('+', " ");
    let decoded = percent_decode(&spaced).ok_or("expected UTF-8 once decoded")?;
    if decoded.contains('\0') {
        return Err("must not contain U+0000");
    }
    Ok(Cow::Owned(decoded.into_owned()))
}

/// Encodes a segment of a path, or a name or a value of a query.
#[must_use]
pub fn encode(text: &str) -> String {
    utf8_percent_encode(text, RESERVED).to_string()
}

/// Decodes percent-encoding once. Returns `None` if the result is not UTF-8.
fn percent_decode(text: &str) -> Option<Cow<'_, str>> {
    percent_decode_str(text).decode_utf8().ok()
}
