//! The credential for a gateway. It is read from a file named in the arguments, because other users can see arguments.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use http::header::AUTHORIZATION;
use http::{HeaderName, HeaderValue};

use crate::cli::TestArguments;

/// The maximum size in bytes of a credential file.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// Returns the header that contains the credential, if the arguments name one.
///
/// # Errors
/// Returns a message that names the file.
pub(super) fn header(
    arguments: &TestArguments,
) -> Result<Option<(HeaderName, HeaderValue)>, String> {
    let (scheme, file) = match (&arguments.token_file, &arguments.api_key_file) {
        (Some(file), _) => ("Bearer", file),
        (None, Some(file)) => ("ApiKey", file),
        (None, None) => return Ok(None),
    };
    let text = read(file).map_err(|error| format!("{}: {error}", file.display()))?;
    let value = HeaderValue::try_from(format!("{scheme} {text}"));
    let mut value = value.map_err(|_| {
        format!("{}: expected one line of visible ASCII characters", file.display())
    })?;
    value.set_sensitive(true);
    Ok(Some((AUTHORIZATION, value)))
}

fn read(file: &Path) -> Result<String, String> {
    let failed = |error: std::io::Error| format!("cannot be read: {error}");
    let mut text = Vec::new();
    let opened = File::open(file).map_err(failed)?;
    opened.take(FILE_BYTES_MAX + 1).read_to_end(&mut text).map_err(failed)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(format!("expected at most {} KiB", FILE_BYTES_MAX >> 10));
    }
    let text = text.trim_ascii();
    if text.is_empty() || text.iter().any(u8::is_ascii_whitespace) {
        return Err("expected a token or an API key, and nothing else".to_owned());
    }
    let text = std::str::from_utf8(text).ok();
    let text = text.filter(|text| text.bytes().all(|byte| byte.is_ascii_graphic()));
    text.map(ToOwned::to_owned).ok_or_else(|| "expected visible ASCII characters".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_is_one_word_of_ascii_characters() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("token");
        let found = |bytes: &[u8]| {
            std::fs::write(&file, bytes).unwrap();
            read(&file)
        };
        assert_eq!(found(b" a.b-c_1\r\n").as_deref(), Ok("a.b-c_1"));
        let limit = usize::try_from(FILE_BYTES_MAX).unwrap();
        assert!(found("x".repeat(limit).as_bytes()).is_ok());
        for (bytes, part) in [
            (&b"\n"[..], "expected a token or an API key"),
            (b"a b", "expected a token or an API key"),
            ("\u{e4}".as_bytes(), "expected visible ASCII characters"),
            (b"a\xff", "expected visible ASCII characters"),
            (b"a\x1b", "expected visible ASCII characters"),
            ("x".repeat(limit + 1).as_bytes(), "expected at most 64 KiB"),
        ] {
            let error = found(bytes).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }
}
