//! Reads the merged layers key by key.
//!
//! Serde stops at the first error, but operators need to see all errors. Each section therefore reads its keys from a
//! `SettingsTable`. The table returns values or defaults and records errors, origins and unknown keys.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use figment::Figment;
use figment::value::{Dict, Value};

use super::error::ConfigError;
use super::limits::Limit;

mod diagnostics;
mod secrets;
mod value;

pub(super) use diagnostics::SettingsDiagnostics;
pub use diagnostics::{ConfiguredFile, SettingEntry, SettingOrigin};
pub(super) use value::{ByteCount, SettingValue};

/// The merged layers, and the diagnostics collected while reading them.
pub(super) struct Settings {
    figment: Figment,
    values: Dict,
    diagnostics: RefCell<SettingsDiagnostics>,
    directory: PathBuf,
    credentials: Option<PathBuf>,
}

impl Settings {
    /// Creates settings from the merged layers and the errors that occurred while reading them.
    pub(super) fn new(
        figment: Figment,
        directory: &Path,
        credentials: Option<PathBuf>,
        errors: Vec<ConfigError>,
    ) -> Self {
        // This cannot fail because all layers have already been parsed.
        let values = figment.find_value("").ok().and_then(Value::into_dict).unwrap_or_default();
        let diagnostics = SettingsDiagnostics { errors, ..SettingsDiagnostics::default() };
        let diagnostics = RefCell::new(diagnostics);
        Self { figment, values, diagnostics, directory: directory.to_owned(), credentials }
    }

    /// Calls `read` with the root table, which contains all sections.
    pub(super) fn read<R>(&self, read: impl FnOnce(&mut SettingsTable<'_>) -> R) -> R {
        let mut table = SettingsTable {
            settings: self,
            key: String::new(),
            values: Some(&self.values),
            known: Vec::new(),
            checks_files: true,
        };
        let result = read(&mut table);
        table.record_unknown_keys();
        result
    }

    pub(super) fn into_diagnostics(self) -> SettingsDiagnostics {
        self.diagnostics.into_inner()
    }

    fn origin(&self, value: &Value) -> SettingOrigin {
        let metadata = self.figment.get_metadata(value.tag());
        metadata.map_or(SettingOrigin::Default, |metadata| {
            SettingOrigin::Layer(metadata.name.to_string())
        })
    }
}

/// One table of the settings, from which a section reads its keys.
pub(super) struct SettingsTable<'a> {
    settings: &'a Settings,
    /// The full key of the table itself.
    key: String,
    values: Option<&'a Dict>,
    /// The keys that the section has looked up so far.
    known: Vec<String>,
    checks_files: bool,
}

impl<'a> SettingsTable<'a> {
    /// Returns the value of a key, or `None` if it is unset or invalid.
    pub(super) fn get<T: SettingValue>(&mut self, name: &str) -> Option<T> {
        let value = self.lookup(name);
        let result = value.and_then(|value| self.convert(name, value));
        self.record(name, result.as_ref().map(T::to_toml), value);
        result
    }

    /// Returns the value of a key, or its default.
    pub(super) fn get_or<T: SettingValue>(&mut self, name: &str, default: T) -> T {
        let value = self.lookup(name);
        let result = value.and_then(|value| self.convert(name, value)).unwrap_or(default);
        self.record(name, Some(result.to_toml()), value);
        result
    }

    /// Returns the value of a required key. If it is missing, records an error and returns an empty value.
    pub(super) fn get_required<T: SettingValue + Default>(&mut self, name: &str) -> T {
        self.require(name, T::EXPECTED);
        self.get(name).unwrap_or_default()
    }

    /// Records an error if a key is not set.
    pub(super) fn require(&mut self, name: &str, expected: &str) {
        if !self.has(name) {
            self.error(name, format!("is missing: expected {expected}"));
        }
    }

    /// Returns the value of a key within its limits, or its default.
    pub(super) fn get_limited<T: SettingValue + PartialOrd + Copy>(
        &mut self,
        name: &str,
        limit: Limit<T>,
    ) -> T {
        let value: T = self.get_or(name, limit.default);
        if value < limit.floor || value > limit.ceiling {
            let (floor, ceiling) = (limit.floor.to_toml(), limit.ceiling.to_toml());
            let expected = format!("expected {floor} to {ceiling}, found {}", value.to_toml());
            self.error(name, expected);
            return limit.default;
        }
        value
    }

    /// Returns a size in bytes within its limits, or its default.
    pub(super) fn get_bytes(&mut self, name: &str, limit: Limit<usize>) -> usize {
        self.get_limited(name, limit.map(ByteCount)).0
    }

    /// Returns the choice selected by a keyword. If the keyword is unknown, records an error and returns `None`.
    pub(super) fn get_choice<T: Copy>(
        &mut self,
        name: &str,
        choices: &[(&str, T)],
        default: &str,
    ) -> Option<T> {
        let keyword: String = self.get_or(name, default.to_owned());
        let choice = choices.iter().find(|(each, _)| *each == keyword).map(|(_, choice)| *choice);
        if choice.is_none() {
            let keywords: Vec<&str> = choices.iter().map(|(keyword, _)| *keyword).collect();
            self.error(name, format!("expected one of {}", keywords.join(", ")));
        }
        choice
    }

    /// Reads a nested table, or an empty one if it is absent.
    pub(super) fn table<R>(
        &mut self,
        name: &str,
        read: impl FnOnce(&mut SettingsTable<'_>) -> R,
    ) -> R {
        let values = self.lookup(name).and_then(|value| self.as_dict(name, value));
        self.read_table(name, values, read)
    }

    /// Reads a nested table, or returns `None` if it is absent.
    pub(super) fn optional_table<R>(
        &mut self,
        name: &str,
        read: impl FnOnce(&mut SettingsTable<'_>) -> R,
    ) -> Option<R> {
        let value = self.lookup(name)?;
        let values = self.as_dict(name, value)?;
        Some(self.read_table(name, Some(values), read))
    }

    /// Reads a table whose keys are names chosen by the operator and whose values are tables.
    pub(super) fn named_tables<R>(
        &mut self,
        name: &str,
        mut read: impl FnMut(&str, &mut SettingsTable<'_>) -> R,
    ) -> BTreeMap<String, R> {
        self.table(name, |table| {
            let read = table.names().into_iter().filter_map(|name| {
                let result = table.optional_table(&name, |each| read(&name, each))?;
                Some((name, result))
            });
            read.collect()
        })
    }

    /// Reads this table, whose keys are names chosen by the operator and whose values are tables.
    /// Records one error with the message `expected` if any value is not a table.
    pub(super) fn entries_as_tables<R>(
        &mut self,
        expected: &str,
        mut read: impl FnMut(&mut SettingsTable<'_>) -> R,
    ) -> BTreeMap<String, R> {
        let (tables, others): (Vec<_>, Vec<_>) =
            self.names().into_iter().partition(|name| self.has_table(name));
        if let Some(first) = others.first() {
            self.error(first, expected.to_owned());
        }
        // The other keys must not be reported as unknown in addition.
        self.known.extend(others);
        let read = tables
            .into_iter()
            .filter_map(|name| self.optional_table(&name, &mut read).map(|each| (name, each)));
        read.collect()
    }

    /// Reads a table whose keys are names chosen by the operator and whose values are strings.
    pub(super) fn named_texts(&mut self, name: &str) -> BTreeMap<String, String> {
        self.table(name, |table| {
            let names = table.names().into_iter();
            names.filter_map(|name| table.get(&name).map(|text| (name, text))).collect()
        })
    }

    /// Reads a list of tables.
    pub(super) fn list_of_tables<R>(
        &mut self,
        name: &str,
        mut read: impl FnMut(&mut SettingsTable<'_>) -> R,
    ) -> Vec<R> {
        let Some(value) = self.lookup(name) else {
            return Vec::new();
        };
        let Some(items) = value.as_array() else {
            self.error(name, "expected a list of tables".to_owned());
            return Vec::new();
        };
        let items = items.iter().enumerate().filter_map(|(index, item)| {
            let name = format!("{name}[{index}]");
            let values = self.as_dict(&name, item)?;
            Some(self.read_table(&name, Some(values), &mut read))
        });
        items.collect()
    }

    /// Disables the checks of files named in this table, because this process does not use them.
    pub(super) fn ignore_files(&mut self) -> &mut Self {
        self.checks_files = false;
        self
    }

    /// Returns whether a key of this table is set in some layer.
    pub(super) fn has(&self, name: &str) -> bool {
        self.values.is_some_and(|values| values.contains_key(name))
    }

    /// Returns whether the value of a key is a table.
    pub(super) fn has_table(&self, name: &str) -> bool {
        self.inner_dict(name).is_some()
    }

    /// Records an error about a key, or about the whole table if the name is empty.
    /// The error is dropped if the key is not set because its name is misspelt.
    pub(super) fn error(&self, name: &str, expected: String) {
        let error = ConfigError::at_key(self.location(name), self.full_key(name), expected);
        let is_set = if name.is_empty() { self.values.is_some() } else { self.has(name) };
        let mut diagnostics = self.settings.diagnostics.borrow_mut();
        let list = if is_set { &mut diagnostics.errors } else { &mut diagnostics.missing };
        list.push(error);
    }

    /// Returns whether a key in a nested table is set in some layer.
    pub(super) fn has_inside(&self, table: &str, name: &str) -> bool {
        self.inner_dict(table).is_some_and(|values| values.contains_key(name))
    }

    /// Records an error about a key in a nested table, or about the whole nested table if `name` is empty.
    pub(super) fn error_inside(&self, table: &str, name: &str, expected: String) {
        let inner = SettingsTable {
            settings: self.settings,
            key: self.full_key(table),
            values: self.inner_dict(table),
            known: Vec::new(),
            checks_files: self.checks_files,
        };
        inner.error(name, expected);
    }

    /// Records a warning about a key. Warnings do not prevent startup.
    pub(super) fn warn(&self, name: &str, text: &str) {
        let warning = ConfigError::at_key(self.location(name), self.full_key(name), text);
        self.settings.diagnostics.borrow_mut().warnings.push(warning);
    }

    fn names(&self) -> Vec<String> {
        self.values.into_iter().flat_map(Dict::keys).cloned().collect()
    }

    fn inner_dict(&self, table: &str) -> Option<&'a Dict> {
        self.values.and_then(|values| values.get(table)).and_then(Value::as_dict)
    }

    fn lookup(&mut self, name: &str) -> Option<&'a Value> {
        self.known.push(name.to_owned());
        self.values?.get(name)
    }

    fn convert<T: SettingValue>(&self, name: &str, value: &Value) -> Option<T> {
        let converted = T::from_value(value);
        if converted.is_none() {
            let found = value::description(value);
            self.error(name, format!("expected {}, found {found}", T::EXPECTED));
        }
        converted
    }

    fn as_dict(&self, name: &str, value: &'a Value) -> Option<&'a Dict> {
        let values = value.as_dict();
        if values.is_none() {
            self.error(name, format!("expected a table, found {}", value::description(value)));
        }
        values
    }

    fn read_table<R>(
        &self,
        name: &str,
        values: Option<&Dict>,
        read: impl FnOnce(&mut SettingsTable<'_>) -> R,
    ) -> R {
        let mut table = SettingsTable {
            settings: self.settings,
            key: self.full_key(name),
            values,
            known: Vec::new(),
            checks_files: self.checks_files,
        };
        let result = read(&mut table);
        table.record_unknown_keys();
        result
    }

    /// Records a key so that `fjord config` can show it and misspelt keys can be matched to it.
    fn record(&self, name: &str, value: Option<String>, written: Option<&Value>) {
        let origin = written.map_or(SettingOrigin::Default, |value| self.settings.origin(value));
        let entry = SettingEntry { key: self.full_key(name), value, origin };
        self.settings.diagnostics.borrow_mut().entries.push(entry);
    }

    fn record_unknown_keys(&self) {
        let mut diagnostics = self.settings.diagnostics.borrow_mut();
        let is_set = self.values.is_some();
        diagnostics.tables.push(diagnostics::KnownTable { key: self.key.clone(), is_set });
        for (name, value) in self.values.into_iter().flatten() {
            if !self.known.contains(name) {
                diagnostics.unknown.push(diagnostics::UnknownKey {
                    location: self.location_of(value),
                    table: self.key.clone(),
                    name: name.clone(),
                });
            }
        }
    }

    /// Returns the full key of a name in this table, or of the table itself if `name` is empty.
    fn full_key(&self, name: &str) -> String {
        if name.is_empty() {
            return self.key.clone();
        }
        let is_bare = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '[' | ']');
        let quote = if name.chars().all(is_bare) { "" } else { "\"" };
        let dot = if self.key.is_empty() { "" } else { "." };
        format!("{}{dot}{quote}{name}{quote}", self.key)
    }

    /// Returns the layer that sets a key, or the configuration directory if the key is not set.
    fn location(&self, name: &str) -> String {
        let value = self.values.and_then(|values| {
            if name.is_empty() { values.values().next() } else { values.get(name) }
        });
        value.map_or_else(
            || self.settings.directory.display().to_string(),
            |value| self.location_of(value),
        )
    }

    /// Returns the name of the layer from which a value comes. For a table, which can be merged from several layers,
    /// returns the layer of its first value.
    fn location_of(&self, value: &Value) -> String {
        if let Some(first) = value.as_dict().and_then(|dict| dict.values().next()) {
            return self.location_of(first);
        }
        match self.settings.origin(value) {
            SettingOrigin::Layer(name) => name,
            SettingOrigin::Default => self.settings.directory.display().to_string(),
        }
    }
}
