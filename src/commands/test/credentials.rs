//! The credential that the arguments name, for a gateway. It is read from a file, because other users can see arguments.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use http::header::AUTHORIZATION;
use http::{HeaderName, HeaderValue};

use crate::cli::TestArguments;

/// The maximum size of a file with a credential, in bytes.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// Returns the header with the credential, if the arguments name one.
///
/// # Errors
/// A message that names the file.
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
    let mut text = String::new();
    let opened = File::open(file).map_err(failed)?;
    opened.take(FILE_BYTES_MAX).read_to_string(&mut text).map_err(failed)?;
    let text = text.trim();
    if text.is_empty() || text.contains(char::is_whitespace) {
        return Err("expected a token or an API key, and nothing else".to_owned());
    }
    Ok(text.to_owned())
}
