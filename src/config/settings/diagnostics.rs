//! Collects diagnostics about the settings: errors, warnings, and the value and origin of every
//! key.

use std::path::PathBuf;

use crate::config::error::ConfigError;
use crate::spelling::closest;

/// A configuration key and its effective value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingEntry {
    /// The key with its section.
    pub key: String,
    /// The value as TOML, with secrets redacted. `None` if the key is not set.
    pub value: Option<String>,
    /// The origin of the value.
    pub origin: SettingOrigin,
}

/// The origin of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SettingOrigin {
    /// The built-in default.
    Default,
    /// A layer, by the name of its file, variable or flag.
    Layer(String),
}

/// A file that is named in a setting and read by this process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfiguredFile {
    /// The path of the file.
    pub path: PathBuf,
    /// The key with its section.
    pub key: String,
    /// The layer that sets the key.
    pub location: String,
}

/// A table that a section has looked up.
#[derive(Debug)]
pub(super) struct KnownTable {
    pub(super) key: String,
    /// Whether some layer sets the table.
    pub(super) is_set: bool,
}

/// A key that no section has looked up.
#[derive(Debug)]
pub(super) struct UnknownKey {
    pub(super) location: String,
    pub(super) table: String,
    pub(super) name: String,
}

/// The diagnostics for one configuration.
#[derive(Debug, Default)]
pub(crate) struct SettingsDiagnostics {
    pub(crate) errors: Vec<ConfigError>,
    pub(crate) warnings: Vec<ConfigError>,
    pub(crate) entries: Vec<SettingEntry>,
    pub(crate) files: Vec<ConfiguredFile>,
    /// The errors about keys and tables that are not set.
    pub(super) missing: Vec<ConfigError>,
    pub(super) tables: Vec<KnownTable>,
    pub(super) unknown: Vec<UnknownKey>,
}

impl SettingsDiagnostics {
    /// Records an error about a key, at the location of its value.
    pub(crate) fn error(&mut self, key: &str, directory: &str, expected: String) {
        let location = self.location(key, directory);
        self.errors.push(ConfigError::at_key(location, key, expected));
    }

    /// Records a warning about a key, at the location of its value.
    pub(crate) fn warn(&mut self, key: &str, directory: &str, text: &str) {
        let location = self.location(key, directory);
        self.warnings.push(ConfigError::at_key(location, key, text));
    }

    fn location(&self, key: &str, directory: &str) -> String {
        match self.entries.iter().find(|entry| entry.key == key).map(|entry| &entry.origin) {
            Some(SettingOrigin::Layer(name)) => name.clone(),
            _ => directory.to_owned(),
        }
    }

    /// Turns unknown and missing keys into errors. Must be called after all sections have been read,
    /// so that every known key can be suggested. If a key or table that is not set is suggested for an
    /// unknown one, it is not reported as missing, nor is anything in it.
    pub(crate) fn report_unknown_and_missing_keys(&mut self) {
        let mut suggested = Vec::new();
        for unknown in std::mem::take(&mut self.unknown) {
            let key = if unknown.table.is_empty() {
                unknown.name.clone()
            } else {
                format!("{}.{}", unknown.table, unknown.name)
            };
            let expected = match self.closest(&unknown) {
                Some(known) => {
                    if !self.is_set(known) {
                        suggested.push(known.to_owned());
                    }
                    format!("is not a key: did you mean {known}?")
                }
                None => "is not a key".to_owned(),
            };
            self.errors.push(ConfigError::at_key(unknown.location, key, expected));
        }
        // Everything in a table is missing if the name of the table is misspelt.
        let is_within = |key: &str, table: &String| {
            key.strip_prefix(&**table).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        let mut missing = std::mem::take(&mut self.missing);
        missing.retain(|error| !suggested.iter().any(|table| is_within(&error.key, table)));
        self.errors.append(&mut missing);
    }

    /// Returns whether some layer sets a known key or table.
    fn is_set(&self, known: &str) -> bool {
        let is_layer = |origin: &SettingOrigin| matches!(origin, SettingOrigin::Layer(_));
        self.tables.iter().any(|table| table.is_set && table.key == known)
            || self.entries.iter().any(|entry| entry.key == known && is_layer(&entry.origin))
    }

    /// Returns the key that was probably intended: a similar key in the same table, or the same key
    /// in another table.
    fn closest(&self, unknown: &UnknownKey) -> Option<&str> {
        let tables = self.tables.iter().map(|table| &table.key);
        let known = self.entries.iter().map(|entry| &entry.key).chain(tables);
        let candidates = known.filter(|key| !key.is_empty()).map(|key| {
            let (table, name) = key.rsplit_once('.').unwrap_or(("", key));
            (key.as_str(), table, name)
        });
        let here = || candidates.clone().filter(|(_, table, _)| *table == unknown.table);
        let similar = closest(&unknown.name, here().map(|(_, _, name)| name));
        let here = similar.and_then(|similar| here().find(|(_, _, name)| *name == similar));
        let elsewhere = || candidates.clone().find(|(_, _, name)| *name == unknown.name);
        here.or_else(elsewhere).map(|(key, _, _)| key)
    }
}
