//! Errors in a catalogue, each with its file, endpoint and key.

use std::fmt;

/// The position of an error in a text, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TextPosition {
    /// The line.
    pub line: usize,
    /// The column in bytes, if it is known.
    pub column: Option<usize>,
}

impl From<&serde_json::Error> for TextPosition {
    fn from(error: &serde_json::Error) -> Self {
        Self { line: error.line(), column: Some(error.column()) }
    }
}

/// One error in a catalogue.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CatalogueError {
    /// The file that contains the error, or the catalogue's directory.
    pub file: String,
    /// The endpoint's id, or `None` if the error concerns the whole file.
    pub endpoint: Option<String>,
    /// The key, with its levels separated by dots, or an empty string if the error concerns the whole endpoint.
    pub key: String,
    /// A message that describes the problem and states what was expected.
    pub expected: String,
    /// The position in the file, if it does not follow from the key.
    pub position: Option<TextPosition>,
}

impl fmt::Display for CatalogueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.file)?;
        if let Some(endpoint) = &self.endpoint {
            write!(f, "endpoint {endpoint:?}: ")?;
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.expected)
    }
}

impl std::error::Error for CatalogueError {}

/// Collects the errors about one endpoint.
#[derive(Debug)]
pub(super) struct EndpointErrors<'a> {
    pub(super) file: &'a str,
    pub(super) endpoint: Option<&'a str>,
    pub(super) list: &'a mut Vec<CatalogueError>,
    /// The absent keys that are suggested for unknown ones.
    pub(super) suggested: Vec<String>,
}

impl<'a> EndpointErrors<'a> {
    /// Creates a collector that appends to a list.
    pub(super) fn new(
        file: &'a str,
        endpoint: Option<&'a str>,
        list: &'a mut Vec<CatalogueError>,
    ) -> Self {
        Self { file, endpoint, list, suggested: Vec::new() }
    }

    pub(super) fn add(&mut self, key: impl Into<String>, expected: impl Into<String>) {
        self.list.push(CatalogueError {
            file: self.file.to_owned(),
            endpoint: self.endpoint.map(ToOwned::to_owned),
            key: key.into(),
            expected: expected.into(),
            position: None,
        });
    }

    /// Adds an error about the whole file.
    pub(super) fn add_at(&mut self, position: TextPosition, expected: impl Into<String>) {
        self.add("", expected);
        if let Some(error) = self.list.last_mut() {
            error.position = Some(position);
        }
    }

    /// Returns whether a key is absent because of another error: its value could not be read, or it is misspelt and an error
    /// suggests the correct spelling.
    pub(super) fn is_absence_explained(&self, key: &str) -> bool {
        let is_own = |error: &&CatalogueError| {
            error.file == self.file && error.endpoint.as_deref() == self.endpoint
        };
        // The errors of this endpoint are the last ones in the list.
        self.suggested.iter().any(|suggested| suggested == key)
            || self.list.iter().rev().take_while(is_own).any(|error| error.key == key)
    }

    /// Adds an error for a missing key, unless another error explains its absence.
    pub(super) fn add_missing(&mut self, key: impl Into<String>, expected: &str) {
        let key = key.into();
        if !self.is_absence_explained(&key) {
            self.add(key, format!("missing: {expected}"));
        }
    }
}
