//! What is wrong with a catalogue: every error, with its file, endpoint and key.

use std::fmt;

/// One error of a catalogue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CatalogueError {
    /// The file, or the directory.
    pub file: String,
    /// The endpoint's id; `None` when the file itself is wrong.
    pub endpoint: Option<String>,
    /// The key, with a dot between levels; empty when the endpoint as a whole is wrong.
    pub key: String,
    /// What is wrong, and what was expected.
    pub expected: String,
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

/// Gathers the errors of one endpoint.
#[derive(Debug)]
pub(super) struct EndpointErrors<'a> {
    pub(super) file: &'a str,
    pub(super) endpoint: Option<&'a str>,
    pub(super) list: &'a mut Vec<CatalogueError>,
}

impl EndpointErrors<'_> {
    /// Adds one.
    pub(super) fn add(&mut self, key: impl Into<String>, expected: impl Into<String>) {
        self.list.push(CatalogueError {
            file: self.file.to_owned(),
            endpoint: self.endpoint.map(ToOwned::to_owned),
            key: key.into(),
            expected: expected.into(),
        });
    }

    /// Adds that a key is missing, unless it is there and could not be read.
    pub(super) fn add_missing(&mut self, key: impl Into<String>, expected: &str) {
        let key = key.into();
        let told = |error: &&CatalogueError| error.endpoint.as_deref() == self.endpoint;
        // Errors of one endpoint stand together at the end.
        if !self.list.iter().rev().take_while(told).any(|error| error.key == key) {
            self.add(key, format!("missing: {expected}"));
        }
    }
}
