//! Collects diagnostics of the settings: errors, warnings, and every key's value and origin.

use crate::config::error::ConfigError;

/// A key of the configuration with its effective value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingEntry {
    /// The key with its section.
    pub key: String,
    /// The value as TOML, with secrets redacted; `None` if the key is not set.
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
    pub(crate) warnings: Vec<String>,
    pub(crate) entries: Vec<SettingEntry>,
    pub(super) tables: Vec<String>,
    pub(super) unknown: Vec<UnknownKey>,
}

/// The minimum similarity of a known key that is suggested for an unknown one.
const SIMILARITY_MIN: f64 = 0.8;

impl SettingsDiagnostics {
    /// Records an error about a key, at the location of its value.
    pub(crate) fn error(&mut self, key: &str, directory: &str, expected: String) {
        let location = self.location(key, directory);
        self.errors.push(ConfigError::at_key(location, key, expected));
    }

    /// Records a warning about a key, at the location of its value.
    pub(crate) fn warn(&mut self, key: &str, directory: &str, text: &str) {
        let location = self.location(key, directory);
        self.warnings.push(ConfigError::at_key(location, key, text).to_string());
    }

    fn location(&self, key: &str, directory: &str) -> String {
        match self.entries.iter().find(|entry| entry.key == key).map(|entry| &entry.origin) {
            Some(SettingOrigin::Layer(name)) => name.clone(),
            _ => directory.to_owned(),
        }
    }

    /// Turns unknown keys into errors. Must be called after all sections have been read, so that
    /// every known key can be suggested.
    pub(crate) fn report_unknown_keys(&mut self) {
        for unknown in std::mem::take(&mut self.unknown) {
            let key = if unknown.table.is_empty() {
                unknown.name.clone()
            } else {
                format!("{}.{}", unknown.table, unknown.name)
            };
            let expected = match self.closest(&unknown) {
                Some(known) => format!("is not a key: did you mean {known}?"),
                None => "is not a key".to_owned(),
            };
            self.errors.push(ConfigError::at_key(unknown.location, key, expected));
        }
    }

    /// Returns the key probably intended: a similar one in the same table, or the same in another.
    fn closest(&self, unknown: &UnknownKey) -> Option<&str> {
        let known = self.entries.iter().map(|entry| &entry.key).chain(&self.tables);
        let candidates = known.filter(|key| !key.is_empty()).map(|key| {
            let (table, name) = key.rsplit_once('.').unwrap_or(("", key));
            (key.as_str(), table, name)
        });
        let similarity = |name: &str| strsim::jaro_winkler(name, &unknown.name);
        let here = candidates
            .clone()
            .filter(|(_, table, name)| {
                *table == unknown.table && similarity(name) >= SIMILARITY_MIN
            })
            .max_by(|(_, _, a), (_, _, b)| similarity(a).total_cmp(&similarity(b)));
        let elsewhere = || candidates.clone().find(|(_, _, name)| *name == unknown.name);
        here.or_else(elsewhere).map(|(key, _, _)| key)
    }
}
