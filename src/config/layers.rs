//! Merges the layers into one tree that records the source layer of each value. From lowest to highest precedence:
//!
//! built-in defaults → `fjord.{toml,json}` → `<role>.{toml,json}` → `conf.d/*` in name order →
//! environment → `--set`

use std::ffi::OsString;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};

use super::error::ConfigError;
use super::limits;
use crate::catalogue::TextPosition;
use crate::cli::Role;

mod text;

use text::DuplicateKey;

/// The default configuration directory.
pub const DIRECTORY_DEFAULT: &str = "/etc/fjord";
/// The prefix of environment variables that contain settings. Their names also contain a double underscore.
const VARIABLE_PREFIX: &str = "FJORD_";
/// The variable that systemd sets to the unit's credentials directory (`LoadCredential=`).
const CREDENTIALS_VARIABLE: &str = "CREDENTIALS_DIRECTORY";

/// The byte order mark at the start of a file. It is ignored.
const BYTE_ORDER_MARK: char = '\u{feff}';

/// The sources of the layers.
#[derive(Clone, Default)]
pub struct Sources {
    /// The configuration directory, if one was given. It must exist. The default directory need not exist.
    pub directory: Option<PathBuf>,
    /// The role whose file is read and whose sections must be complete.
    pub role: Option<Role>,
    /// The environment variables.
    pub environment: Vec<(OsString, OsString)>,
    /// The `key=value` argument of each `--set`, in command-line order.
    pub sets: Vec<String>,
    /// Whether to check only the files named in `[messaging]`. Files named in other sections need not exist.
    pub only_nats_files: bool,
    /// Whether the role's sections may lack required settings because the process does not run the role.
    pub may_be_incomplete: bool,
}

/// `Debug` is not derived, because the environment and `--set` may contain secrets.
impl std::fmt::Debug for Sources {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sources")
            .field("directory", &self.directory)
            .field("role", &self.role)
            .finish_non_exhaustive()
    }
}

impl Sources {
    /// Returns the configuration directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.as_deref().unwrap_or(Path::new(DIRECTORY_DEFAULT))
    }

    /// Returns whether a role has its own file.
    #[must_use]
    pub fn has_role_file(&self, role: Role) -> bool {
        let exists = |extension: &str| {
            self.directory().join(format!("{}.{extension}", role.as_str())).exists()
        };
        exists("toml") || exists("json")
    }

    /// Returns the layer files that currently exist.
    #[must_use]
    pub fn layer_files(&self) -> Vec<PathBuf> {
        self.files(&mut Vec::new())
    }

    /// Returns systemd's credentials directory.
    pub(super) fn credentials(&self) -> Option<PathBuf> {
        let (_, value) = self.environment.iter().find(|(name, _)| name == CREDENTIALS_VARIABLE)?;
        Some(PathBuf::from(value))
    }

    /// Merges all layers. If a layer cannot be read, records an error and merges the others.
    pub(super) fn merge(&self, errors: &mut Vec<ConfigError>) -> Figment {
        let mut figment = Figment::new();
        let files = self.files(errors);
        let layers = files.iter().map(|path| file_layer(path));
        let layers = layers.chain(self.environment_layers()).chain(self.set_layers());
        for layer in layers {
            match layer {
                Ok(layer) => {
                    let name = &layer.name;
                    let error = |DuplicateKey { key, line }: &DuplicateKey| {
                        let expected = format!("given more than once, again at line {line}");
                        let position = Some(TextPosition { line: *line, column: None });
                        ConfigError { position, ..ConfigError::at_key(name, key, expected) }
                    };
                    errors.extend(layer.duplicates.iter().map(error));
                    figment = figment.merge(layer);
                }
                Err(error) => errors.push(error),
            }
        }
        figment
    }

    /// Returns the files that exist, from lowest to highest precedence.
    fn files(&self, errors: &mut Vec<ConfigError>) -> Vec<PathBuf> {
        let directory = self.directory();
        if self.directory.is_some() && !directory.is_dir() {
            errors.push(ConfigError::at_location(
                directory.display().to_string(),
                "expected a directory",
            ));
            return Vec::new();
        }
        let mut files = Vec::new();
        for stem in std::iter::once("fjord").chain(self.role.map(Role::as_str)) {
            let both = ["toml", "json"].map(|end| directory.join(format!("{stem}.{end}")));
            let present: Vec<PathBuf> = both.into_iter().filter(|path| path.exists()).collect();
            if let [toml, _json] = present.as_slice() {
                let expected = format!("expected one of {stem}.toml and {stem}.json, found both");
                errors.push(ConfigError::at_location(toml.display().to_string(), expected));
            }
            files.extend(present);
        }
        files.extend(fragments(&directory.join("conf.d"), errors));
        files
    }

    fn environment_layers(&self) -> impl Iterator<Item = Result<Layer, ConfigError>> {
        let mut variables: Vec<_> = self
            .environment
            .iter()
            .filter_map(|(name, value)| {
                let name = name.to_str()?;
                let key = name.strip_prefix(VARIABLE_PREFIX).filter(|key| key.contains("__"))?;
                Some((name, key, value))
            })
            .collect();
        variables.sort();
        variables.into_iter().map(|(name, key, value)| {
            let value =
                value.to_str().ok_or_else(|| ConfigError::at_location(name, "expected UTF-8"))?;
            let path: Vec<String> = key.split("__").map(str::to_ascii_lowercase).collect();
            Ok(Layer::from_text(name.to_owned(), &path, value))
        })
    }

    fn set_layers(&self) -> impl Iterator<Item = Result<Layer, ConfigError>> {
        self.sets.iter().map(|set| {
            // The error does not contain the flag's value, which may be secret.
            let invalid = || ConfigError::at_location("--set", "expected section.key=value");
            let (key, value) = text::split_assignment(set).ok_or_else(invalid)?;
            let path = text::split_key(key).filter(|path| path.len() > 1).ok_or_else(invalid)?;
            Ok(Layer::from_text("--set".to_owned(), &path, value))
        })
    }
}

/// Returns the TOML and JSON files in `conf.d`, sorted by name. Other files are ignored, such as backups left by
/// editors and rpm.
fn fragments(directory: &Path, errors: &mut Vec<ConfigError>) -> Vec<PathBuf> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Vec::new(),
        Err(error) => {
            errors.push(ConfigError::at_location(
                directory.display().to_string(),
                io_error_message(&error),
            ));
            return Vec::new();
        }
    };
    let mut files: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            path.extension().is_some_and(|extension| extension == "toml" || extension == "json")
        })
        .filter(|path| {
            !path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
        })
        .collect();
    files.sort();
    files
}

fn file_layer(path: &Path) -> Result<Layer, ConfigError> {
    let name = path.display().to_string();
    let invalid = |expected: String| ConfigError::at_location(name.clone(), expected);
    let malformed =
        |(expected, position)| ConfigError { position: Some(position), ..invalid(expected) };
    let text = read_text(path, limits::CONFIG_FILE_BYTES_MAX).map_err(invalid)?;
    if path.extension().is_some_and(|extension| extension == "json") {
        let (values, duplicates) = text::parse_json(&text).map_err(malformed)?;
        return Ok(Layer { name, values, duplicates });
    }
    let values = text::parse_toml(&text).map_err(malformed)?;
    Ok(Layer { name, values, duplicates: Vec::new() })
}

/// Reads a text file of at most `bytes_max` bytes. Removes the byte order mark that Windows editors write.
pub(super) fn read_text(path: &Path, bytes_max: u64) -> Result<String, String> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(bytes_max + 1).read_to_end(&mut bytes));
    read.map_err(|error| io_error_message(&error))?;
    if bytes.len() as u64 > bytes_max {
        return Err(format!("expected at most {bytes_max} bytes"));
    }
    let mut text = String::from_utf8(bytes).map_err(|_| "expected UTF-8".to_owned())?;
    if text.starts_with(BYTE_ORDER_MARK) {
        text.drain(..BYTE_ORDER_MARK.len_utf8());
    }
    Ok(text)
}

/// Returns a message that explains why a file cannot be read.
pub(super) fn io_error_message(error: &std::io::Error) -> String {
    match error.kind() {
        ErrorKind::NotFound => "no such file".to_owned(),
        ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => format!("cannot be read: {error}"),
    }
}

/// A layer and its name, which appears in errors and in `fjord config`.
struct Layer {
    name: String,
    values: Dict,
    /// The keys that occur more than once in JSON.
    duplicates: Vec<DuplicateKey>,
}

impl Layer {
    /// Creates a layer with a single key. The text is converted later, according to the key's type.
    fn from_text(name: String, path: &[String], text: &str) -> Self {
        let prefix = path.join(".");
        let mut path = path.iter().rev();
        let Some(last) = path.next() else {
            return Self { name, values: Dict::new(), duplicates: Vec::new() };
        };
        let (value, mut duplicates) = text::parse_value(text);
        for duplicate in &mut duplicates {
            duplicate.key = format!("{prefix}.{}", duplicate.key);
        }
        let mut values = Dict::from([(last.clone(), value)]);
        for key in path {
            values = Dict::from([(key.clone(), Value::from(values))]);
        }
        Self { name, values, duplicates }
    }
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.name.clone())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Map::from([(Profile::Default, self.values.clone())]))
    }
}
