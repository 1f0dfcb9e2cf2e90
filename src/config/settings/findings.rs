//! What reading the settings found out: every key with its value and layer, every error, every warning.

use crate::config::error::ConfigError;

/// A key that fjord knows, with what holds for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The key with its section.
    pub key: String,
    /// Its value as TOML, secrets redacted; nothing when it is not set.
    pub value: Option<String>,
    /// Where the value is from.
    pub origin: Origin,
}

/// Where a value is from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Built in.
    Default,
    /// A file, a variable, a flag.
    Layer(String),
}

/// A key that nobody asked for.
#[derive(Debug)]
pub(super) struct Unknown {
    pub(super) place: String,
    pub(super) table: String,
    pub(super) name: String,
}

/// Everything that was found out.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    pub(crate) errors: Vec<ConfigError>,
    pub(crate) warnings: Vec<String>,
    pub(crate) entries: Vec<Entry>,
    pub(super) tables: Vec<String>,
    pub(super) unknown: Vec<Unknown>,
}

/// From this likeness on a known key is offered in place of an unknown one.
const LIKENESS_MIN: f64 = 0.8;

impl Findings {
    /// Says that a value does not go with another one. It stands where the first key's value is from.
    pub(crate) fn error(&mut self, key: &str, directory: &str, expected: String) {
        let place = self.place(key, directory);
        self.errors.push(ConfigError::at_key(place, key, expected));
    }

    /// Says something about a value that does not stop the start.
    pub(crate) fn warn(&mut self, key: &str, directory: &str, text: &str) {
        let place = self.place(key, directory);
        self.warnings.push(ConfigError::at_key(place, key, text).to_string());
    }

    fn place(&self, key: &str, directory: &str) -> String {
        match self.entries.iter().find(|entry| entry.key == key).map(|entry| &entry.origin) {
            Some(Origin::Layer(name)) => name.clone(),
            _ => directory.to_owned(),
        }
    }

    /// Turns the keys nobody asked for into errors. Only now all known ones are there to suggest.
    pub(crate) fn judge_unknown(&mut self) {
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
            self.errors.push(ConfigError::at_key(unknown.place, key, expected));
        }
    }

    /// The known key that was probably meant: one like it in the same table, or the same one in another.
    fn closest(&self, unknown: &Unknown) -> Option<&str> {
        let known = self.entries.iter().map(|entry| &entry.key).chain(&self.tables);
        let split = known.filter(|key| !key.is_empty()).map(|key| {
            let (table, name) = key.rsplit_once('.').unwrap_or(("", key));
            (key.as_str(), table, name)
        });
        let alike = |name: &str| strsim::jaro_winkler(name, &unknown.name);
        let here = split
            .clone()
            .filter(|(_, table, name)| *table == unknown.table && alike(name) >= LIKENESS_MIN)
            .max_by(|(_, _, a), (_, _, b)| alike(a).total_cmp(&alike(b)));
        let elsewhere = || split.clone().find(|(_, _, name)| *name == unknown.name);
        here.or_else(elsewhere).map(|(key, _, _)| key)
    }
}
