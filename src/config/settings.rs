//! What was written: the merged layers, read key by key.
//!
//! Serde stops at the first thing that is wrong; an operator wants to hear of all. So every section asks a `Table`
//! for each of its keys: the value or its default comes back, and what is wrong, where the value is from and which
//! keys nobody asked for is gathered on the way.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use figment::Figment;
use figment::value::{Dict, Value};

use super::error::ConfigError;
use super::limits::Limit;

mod findings;
mod kinds;
mod secrets;

pub(super) use findings::Findings;
pub use findings::{Entry, Origin};
pub(super) use kinds::{Bytes, Kind};

/// The merged layers and what was found out while reading them.
pub(super) struct Settings {
    figment: Figment,
    values: Dict,
    findings: RefCell<Findings>,
    directory: PathBuf,
    credentials: Option<PathBuf>,
}

impl Settings {
    /// What was merged, with the errors of files that could not be read.
    pub(super) fn new(
        figment: Figment,
        directory: &Path,
        credentials: Option<PathBuf>,
        errors: Vec<ConfigError>,
    ) -> Self {
        // Merging cannot fail: every layer was parsed before it was given to figment.
        let values = figment.find_value("").ok().and_then(Value::into_dict).unwrap_or_default();
        let findings = RefCell::new(Findings { errors, ..Findings::default() });
        Self { figment, values, findings, directory: directory.to_owned(), credentials }
    }

    /// Reads everything. A section whose files this process does not use is read without looking at them.
    pub(super) fn read<R>(&self, read: impl FnOnce(&mut Table<'_>) -> R) -> R {
        let mut table = Table {
            settings: self,
            key: String::new(),
            values: Some(&self.values),
            asked: Vec::new(),
            looks_at_files: true,
        };
        let result = read(&mut table);
        table.report_unknown();
        result
    }

    /// What was found out.
    pub(super) fn into_findings(self) -> Findings {
        self.findings.into_inner()
    }

    fn origin(&self, value: &Value) -> Origin {
        let metadata = self.figment.get_metadata(value.tag());
        metadata.map_or(Origin::Default, |metadata| Origin::Layer(metadata.name.to_string()))
    }
}

/// One table of the tree while its section reads it.
pub(super) struct Table<'a> {
    settings: &'a Settings,
    key: String,
    values: Option<&'a Dict>,
    asked: Vec<String>,
    looks_at_files: bool,
}

impl<'a> Table<'a> {
    /// The value of a key, or nothing: not set, or an error that is now known.
    pub(super) fn get<T: Kind>(&mut self, name: &str) -> Option<T> {
        let value = self.take(name);
        let result = value.and_then(|value| self.convert(name, value));
        self.note(name, result.as_ref().map(T::show), value);
        result
    }

    /// The value of a key, or its default.
    pub(super) fn get_or<T: Kind>(&mut self, name: &str, default: T) -> T {
        let value = self.take(name);
        let result = value.and_then(|value| self.convert(name, value)).unwrap_or(default);
        self.note(name, Some(result.show()), value);
        result
    }

    /// The value of a key that has to be set. Without it the rest is read on with an empty one.
    pub(super) fn need<T: Kind + Default>(&mut self, name: &str) -> T {
        self.require(name, T::EXPECTED);
        self.get(name).unwrap_or_default()
    }

    /// Says that a key is missing, unless it is set.
    pub(super) fn require(&mut self, name: &str, expected: &str) {
        if !self.has(name) {
            self.error(name, format!("is missing: expected {expected}"));
        }
    }

    /// A value with a default and bounds.
    pub(super) fn limited<T: Kind + PartialOrd + Copy>(
        &mut self,
        name: &str,
        limit: Limit<T>,
    ) -> T {
        let value: T = self.get_or(name, limit.default);
        if value < limit.floor || value > limit.ceiling {
            let (floor, ceiling, found) = (limit.floor.show(), limit.ceiling.show(), value.show());
            self.error(name, format!("expected {floor} to {ceiling}, found {found}"));
            return limit.default;
        }
        value
    }

    /// A size with a default and bounds.
    pub(super) fn bytes(&mut self, name: &str, limit: Limit<usize>) -> usize {
        self.limited(name, limit.map(Bytes)).0
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(
        &mut self,
        name: &str,
        words: &[(&str, T)],
        default: &str,
    ) -> Option<T> {
        let word: String = self.get_or(name, default.to_owned());
        let found = words.iter().find(|(each, _)| *each == word).map(|(_, choice)| *choice);
        if found.is_none() {
            let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            self.error(name, format!("expected one of {}", words.join(", ")));
        }
        found
    }

    /// A table below this one, read whether it is there or not.
    pub(super) fn table<R>(&mut self, name: &str, read: impl FnOnce(&mut Table<'_>) -> R) -> R {
        let values = self.take(name).and_then(|value| self.as_dict(name, value));
        self.below(name, values, read)
    }

    /// A table below this one, when it is there.
    pub(super) fn optional_table<R>(
        &mut self,
        name: &str,
        read: impl FnOnce(&mut Table<'_>) -> R,
    ) -> Option<R> {
        let value = self.take(name)?;
        let values = self.as_dict(name, value)?;
        Some(self.below(name, Some(values), read))
    }

    /// A table whose keys are names that the operator gives, each with a table.
    pub(super) fn named_tables<R>(
        &mut self,
        name: &str,
        mut read: impl FnMut(&str, &mut Table<'_>) -> R,
    ) -> BTreeMap<String, R> {
        self.table(name, |table| {
            let labels: Vec<String> =
                table.values.into_iter().flat_map(Dict::keys).cloned().collect();
            let read = labels.into_iter().filter_map(|label| {
                table.optional_table(&label, |each| read(&label, each)).map(|each| (label, each))
            });
            read.collect()
        })
    }

    /// This table's own keys as names that the operator gives, each with a table. Where one is no table, `expected` says
    /// once what to write.
    pub(super) fn own_named_tables<R>(
        &mut self,
        expected: &str,
        mut read: impl FnMut(&mut Table<'_>) -> R,
    ) -> BTreeMap<String, R> {
        let names: Vec<String> = self.values.into_iter().flat_map(Dict::keys).cloned().collect();
        let (tables, others): (Vec<_>, Vec<_>) =
            names.into_iter().partition(|name| self.has_table(name));
        if let Some(first) = others.first() {
            self.error(first, expected.to_owned());
        }
        // Known, so that none is an error of its own.
        self.asked.extend(others);
        let read = tables
            .into_iter()
            .filter_map(|name| self.optional_table(&name, &mut read).map(|each| (name, each)));
        read.collect()
    }

    /// A table whose keys are names that the operator gives, each with a text.
    pub(super) fn named_texts(&mut self, name: &str) -> BTreeMap<String, String> {
        self.table(name, |table| {
            let labels: Vec<String> =
                table.values.into_iter().flat_map(Dict::keys).cloned().collect();
            labels
                .into_iter()
                .filter_map(|label| table.get(&label).map(|text| (label, text)))
                .collect()
        })
    }

    /// A list of tables.
    pub(super) fn list_of_tables<R>(
        &mut self,
        name: &str,
        mut read: impl FnMut(&mut Table<'_>) -> R,
    ) -> Vec<R> {
        let Some(value) = self.take(name) else {
            return Vec::new();
        };
        let Some(items) = value.as_array() else {
            self.error(name, "expected a list of tables".to_owned());
            return Vec::new();
        };
        let items = items.iter().enumerate().filter_map(|(at, item)| {
            let name = format!("{name}[{at}]");
            let values = self.as_dict(&name, item)?;
            Some(self.below(&name, Some(values), &mut read))
        });
        items.collect()
    }

    /// Reads on without looking at files: this process does not use the section.
    pub(super) fn ignore_files(&mut self) -> &mut Self {
        self.looks_at_files = false;
        self
    }

    /// Whether a key of this table is set in some layer.
    pub(super) fn has(&self, name: &str) -> bool {
        self.values.is_some_and(|values| values.contains_key(name))
    }

    /// Whether a key of this table is a table itself.
    pub(super) fn has_table(&self, name: &str) -> bool {
        self.values
            .and_then(|values| values.get(name))
            .is_some_and(|value| value.as_dict().is_some())
    }

    /// Says that a key is wrong. It stands where its value is from.
    pub(super) fn error(&self, name: &str, expected: String) {
        let place = self.place(name);
        let error = ConfigError::at_key(place, self.path(name), expected);
        self.settings.findings.borrow_mut().errors.push(error);
    }

    /// Whether a key of a table below this one is set in some layer.
    pub(super) fn has_below(&self, table: &str, name: &str) -> bool {
        self.dict_below(table).is_some_and(|values| values.contains_key(name))
    }

    /// Says that a key of a table below this one is wrong; of an empty name, the table.
    pub(super) fn error_below(&self, table: &str, name: &str, expected: String) {
        let below = Table {
            settings: self.settings,
            key: self.path(table),
            values: self.dict_below(table),
            asked: Vec::new(),
            looks_at_files: self.looks_at_files,
        };
        below.error(name, expected);
    }

    fn dict_below(&self, table: &str) -> Option<&'a Dict> {
        self.values.and_then(|values| values.get(table)).and_then(Value::as_dict)
    }

    /// Says something that does not stop the start.
    pub(super) fn warn(&self, name: &str, text: &str) {
        let warning = ConfigError::at_key(self.place(name), self.path(name), text).to_string();
        self.settings.findings.borrow_mut().warnings.push(warning);
    }

    fn take(&mut self, name: &str) -> Option<&'a Value> {
        self.asked.push(name.to_owned());
        self.values?.get(name)
    }

    fn convert<T: Kind>(&self, name: &str, value: &Value) -> Option<T> {
        let converted = T::read(value);
        if converted.is_none() {
            self.error(name, format!("expected {}, found {}", T::EXPECTED, kinds::what(value)));
        }
        converted
    }

    fn as_dict(&self, name: &str, value: &'a Value) -> Option<&'a Dict> {
        let values = value.as_dict();
        if values.is_none() {
            self.error(name, format!("expected a table, found {}", kinds::what(value)));
        }
        values
    }

    fn below<R>(
        &self,
        name: &str,
        values: Option<&Dict>,
        read: impl FnOnce(&mut Table<'_>) -> R,
    ) -> R {
        let mut table = Table {
            settings: self.settings,
            key: self.path(name),
            values,
            asked: Vec::new(),
            looks_at_files: self.looks_at_files,
        };
        let result = read(&mut table);
        table.report_unknown();
        result
    }

    /// Remembers a key for `fjord config` and for the suggestions to unknown ones.
    fn note(&self, name: &str, value: Option<String>, found: Option<&Value>) {
        let origin = found.map_or(Origin::Default, |value| self.settings.origin(value));
        let entry = Entry { key: self.path(name), value, origin };
        self.settings.findings.borrow_mut().entries.push(entry);
    }

    fn report_unknown(&self) {
        let mut findings = self.settings.findings.borrow_mut();
        findings.tables.push(self.key.clone());
        for (name, value) in self.values.into_iter().flatten() {
            if !self.asked.contains(name) {
                findings.unknown.push(findings::Unknown {
                    place: self.place_of(value),
                    table: self.key.clone(),
                    name: name.clone(),
                });
            }
        }
    }

    /// The whole key of a name in this table; of an empty name, the table's own.
    fn path(&self, name: &str) -> String {
        if name.is_empty() {
            return self.key.clone();
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '[' | ']');
        let quote = if name.chars().all(plain) { "" } else { "\"" };
        let dot = if self.key.is_empty() { "" } else { "." };
        format!("{}{dot}{quote}{name}{quote}", self.key)
    }

    fn place(&self, name: &str) -> String {
        let value = self.values.and_then(|values| {
            if name.is_empty() { values.values().next() } else { values.get(name) }
        });
        value.map_or_else(
            || self.settings.directory.display().to_string(),
            |value| self.place_of(value),
        )
    }

    /// The layer a value is from; of a table: of the first value in it, since several layers may have joined in it.
    fn place_of(&self, value: &Value) -> String {
        if let Some(first) = value.as_dict().and_then(|dict| dict.values().next()) {
            return self.place_of(first);
        }
        match self.settings.origin(value) {
            Origin::Layer(name) => name,
            Origin::Default => self.settings.directory.display().to_string(),
        }
    }
}
