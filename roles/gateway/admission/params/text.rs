//! Percent-encoding, read strictly.

use std::borrow::Cow;

/// Undoes percent-encoding once. `judge` can refuse a decoded byte; NUL always is, and what is no UTF-8.
///
/// # Errors
/// What was expected.
pub fn percent_decode(
    text: &str,
    judge: &dyn Fn(u8) -> Result<(), &'static str>,
) -> Result<String, &'static str> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let (Some(high), Some(low)) = (bytes.next().and_then(hex), bytes.next().and_then(hex))
        else {
            return Err("expected two hexadecimal digits after each '%'");
        };
        let byte = high << 4 | low;
        if byte == 0 {
            return Err("must not contain U+0000");
        }
        judge(byte)?;
        decoded.push(byte);
    }
    String::from_utf8(decoded).map_err(|_| "expected UTF-8 once decoded")
}

fn hex(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

/// Decodes a name or a value of a query, where `+` is a space.
///
/// # Errors
/// What was expected.
pub fn query_decode(text: &str) -> Result<Cow<'_, str>, &'static str> {
    if !text.is_ascii() {
        return Err("expected bytes outside ASCII to be percent-encoded");
    }
    let text = if text.contains('+') { Cow::Owned(text.replace('+', " ")) } else { text.into() };
    if text.contains('%') {
        return percent_decode(&text, &|_| Ok(())).map(Cow::Owned);
    }
    Ok(text)
}
