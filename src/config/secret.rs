//! A type for secrets that cannot be printed by accident.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A secret. `Debug` hides it, and there is no `Display`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Arc<SecretText>);

#[derive(PartialEq, Eq)]
struct SecretText {
    text: String,
    /// The file that the secret was read from, if any.
    file: Option<PathBuf>,
}

impl Secret {
    /// Creates a secret that was not read from a file.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(Arc::new(SecretText { text, file: None }))
    }

    /// Creates a secret from a file's contents without the line break that editors and `echo` add.
    #[must_use]
    pub fn from_file(path: &Path, text: &str) -> Self {
        let text = text.strip_suffix('\n').unwrap_or(text);
        let text = text.strip_suffix('\r').unwrap_or(text).to_owned();
        Self(Arc::new(SecretText { text, file: Some(path.to_owned()) }))
    }

    /// Returns the file that the secret was read from. Its contents may have changed since.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        self.0.file.as_deref()
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
