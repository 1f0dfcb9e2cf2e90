//! The layers of the configuration, lowest to highest, merged into one tree that knows where each value is from.
//!
//! built-in defaults → `fjord.{toml,json}` → `<role>.{toml,json}` → `conf.d/*` in name order → environment → `--set`

use std::ffi::OsString;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};

use super::error::ConfigError;
use super::limits;
use crate::cli::Role;

mod text;

/// Where the configuration is read from when nothing else is said.
pub const DIRECTORY_DEFAULT: &str = "/etc/fjord";
/// Variables that start so and have a double underscore further on are configuration.
const VARIABLE_PREFIX: &str = "FJORD_";
/// Where systemd puts the credentials of a unit (`LoadCredential=`).
const CREDENTIALS_VARIABLE: &str = "CREDENTIALS_DIRECTORY";

/// Where the layers come from.
#[derive(Clone, Default)]
pub struct Sources {
    /// The configuration directory. One that was asked for has to exist; the default one may be missing.
    pub directory: Option<PathBuf>,
    /// The role whose file is read and whose sections have to be complete.
    pub role: Option<Role>,
    /// The environment.
    pub environment: Vec<(OsString, OsString)>,
    /// `key=value` of each `--set`, in order.
    pub sets: Vec<String>,
    /// Whether a command wants to speak over the bus: then files that other sections name are not looked at.
    pub is_for_bus: bool,
}

/// Not derived: the environment and `--set` may carry secrets.
impl std::fmt::Debug for Sources {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sources")
            .field("directory", &self.directory)
            .field("role", &self.role)
            .finish_non_exhaustive()
    }
}

impl Sources {
    /// The configuration directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.as_deref().unwrap_or(Path::new(DIRECTORY_DEFAULT))
    }

    /// Whether a role has a file of its own.
    #[must_use]
    pub fn has_file_of(&self, role: Role) -> bool {
        let exists = |end: &str| self.directory().join(format!("{}.{end}", role.as_str())).exists();
        exists("toml") || exists("json")
    }

    /// Where systemd put our credentials.
    pub(super) fn credentials(&self) -> Option<PathBuf> {
        let (_, value) = self.environment.iter().find(|(name, _)| name == CREDENTIALS_VARIABLE)?;
        Some(PathBuf::from(value))
    }

    /// All layers in one tree. What cannot be read is an error, and the others are read all the same.
    pub(super) fn merge(&self, errors: &mut Vec<ConfigError>) -> Figment {
        let mut figment = Figment::new();
        let files = self.files(errors);
        let layers = files.iter().map(|path| file_layer(path));
        let layers = layers.chain(self.environment_layers()).chain(self.set_layers());
        for layer in layers {
            match layer {
                Ok(layer) => figment = figment.merge(layer),
                Err(error) => errors.push(error),
            }
        }
        figment
    }

    /// The files there are, lowest first.
    fn files(&self, errors: &mut Vec<ConfigError>) -> Vec<PathBuf> {
        let directory = self.directory();
        if self.directory.is_some() && !directory.is_dir() {
            errors.push(ConfigError::in_source(
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
                let expected = format!("{stem}.json stands beside it: keep one of the two");
                errors.push(ConfigError::in_source(toml.display().to_string(), expected));
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
                value.to_str().ok_or_else(|| ConfigError::in_source(name, "expected UTF-8"))?;
            let path: Vec<String> = key.split("__").map(str::to_ascii_lowercase).collect();
            Ok(Layer::of_text(name.to_owned(), &path, value))
        })
    }

    fn set_layers(&self) -> impl Iterator<Item = Result<Layer, ConfigError>> {
        self.sets.iter().map(|set| {
            // Of a flag that cannot be read nothing is repeated: it may hold a secret.
            let wrong = || ConfigError::in_source("--set", "expected section.key=value");
            let (key, value) = text::split_assignment(set).ok_or_else(wrong)?;
            let path = text::split_key(key).filter(|path| path.len() > 1).ok_or_else(wrong)?;
            Ok(Layer::of_text("--set".to_owned(), &path, value))
        })
    }
}

/// The files of `conf.d` that are configuration, in name order. Others, such as an editor's or rpm's copies, are not.
fn fragments(directory: &Path, errors: &mut Vec<ConfigError>) -> Vec<PathBuf> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Vec::new(),
        Err(error) => {
            errors.push(ConfigError::in_source(directory.display().to_string(), reason(&error)));
            return Vec::new();
        }
    };
    let mut files: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|end| end == "toml" || end == "json"))
        .filter(|path| {
            !path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
        })
        .collect();
    files.sort();
    files
}

fn file_layer(path: &Path) -> Result<Layer, ConfigError> {
    let place = path.display().to_string();
    let wrong = |expected: String| ConfigError::in_source(place.clone(), expected);
    let text = read_text(path, limits::CONFIG_FILE_BYTES_MAX).map_err(wrong)?;
    let values = if path.extension().is_some_and(|end| end == "json") {
        text::parse_json(&text)
    } else {
        text::parse_toml(&text)
    };
    Ok(Layer { values: values.map_err(wrong)?, name: place })
}

/// Reads a whole text file, at most so many bytes.
pub(super) fn read_text(path: &Path, bytes_max: u64) -> Result<String, String> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(bytes_max + 1).read_to_end(&mut bytes));
    read.map_err(|error| reason(&error))?;
    if bytes.len() as u64 > bytes_max {
        return Err(format!("expected at most {bytes_max} bytes"));
    }
    String::from_utf8(bytes).map_err(|_| "expected UTF-8".to_owned())
}

/// Why a file cannot be read, in words.
pub(super) fn reason(error: &std::io::Error) -> String {
    match error.kind() {
        ErrorKind::NotFound => "there is no such file".to_owned(),
        ErrorKind::PermissionDenied => "this user may not read it".to_owned(),
        _ => format!("cannot be read: {error}"),
    }
}

/// One layer under the name that errors and `fjord config` call it by.
struct Layer {
    name: String,
    values: Dict,
}

impl Layer {
    /// A layer of a single key, from a text whose type the key decides later.
    fn of_text(name: String, path: &[String], text: &str) -> Self {
        let mut path = path.iter().rev();
        let Some(last) = path.next() else {
            return Self { name, values: Dict::new() };
        };
        let mut values = Dict::from([(last.clone(), text::parse_value(text))]);
        for key in path {
            values = Dict::from([(key.clone(), Value::from(values))]);
        }
        Self { name, values }
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
