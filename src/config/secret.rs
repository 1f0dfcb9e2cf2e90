//! A text that never shows itself.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A secret. Its `Debug` says nothing about it, and it has no `Display`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Arc<Kept>);

#[derive(PartialEq, Eq)]
struct Kept {
    text: String,
    /// Where it was read.
    file: Option<PathBuf>,
}

impl Secret {
    /// Wraps a secret.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(Arc::new(Kept { text, file: None }))
    }

    /// A secret as it stands in a file. Editors and `echo` end a file with a line break that is no part of it.
    #[must_use]
    pub fn in_file(path: &Path, text: &str) -> Self {
        let text = text.strip_suffix('\n').unwrap_or(text);
        let text = text.strip_suffix('\r').unwrap_or(text).to_owned();
        Self(Arc::new(Kept { text, file: Some(path.to_owned()) }))
    }

    /// The file that it was read from: it may have another one by now.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        self.0.file.as_deref()
    }

    /// The secret itself: only for the call that needs it.
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
