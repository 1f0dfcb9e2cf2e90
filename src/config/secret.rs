//! A type for secrets that cannot be printed by accident.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::layers::read_text;
use super::limits;

/// A secret. `Debug` hides it, and there is no `Display`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Arc<SecretText>);

#[derive(PartialEq, Eq)]
struct SecretText {
    text: String,
    /// The file from which the secret was read, if any.
    file: Option<PathBuf>,
}

impl Secret {
    /// Creates a secret that was not read from a file.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(Arc::new(SecretText { text, file: None }))
    }

    /// Creates a secret from a file's contents. Removes the line break that editors and `echo` add.
    #[must_use]
    pub fn from_file(path: &Path, text: &str) -> Self {
        let text = text.strip_suffix('\n').unwrap_or(text);
        let text = text.strip_suffix('\r').unwrap_or(text).to_owned();
        Self(Arc::new(SecretText { text, file: Some(path.to_owned()) }))
    }

    /// Returns the file from which the secret was read. Its contents may have changed since then.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        self.0.file.as_deref()
    }

    /// Reads the secret from its file again. If the secret did not come from a file, returns a
    /// copy. Blocks the thread.
    ///
    /// # Errors
    /// Returns a message that names the file if it cannot be read or is empty.
    pub fn read_again(&self) -> Result<Self, String> {
        let Some(path) = self.file() else { return Ok(self.clone()) };
        let text = read_text(path, limits::SECRET_FILE_BYTES_MAX);
        let text = text.map_err(|error| format!("{}: {error}", path.display()))?;
        let secret = Self::from_file(path, &text);
        if secret.expose().is_empty() {
            return Err(format!("{}: expected a secret, found an empty file", path.display()));
        }
        Ok(secret)
    }

    /// Returns the secret as plain text. Call this only where the plain text is needed.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0.text
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}
