//! Finds every error that would prevent a role from starting. `fjord check` and both roles use the same functions.

use std::fmt;
use std::path::Path;

use crate::catalogue::{Catalogue, CatalogueError};
use crate::cli::Role;
use crate::config::messaging::TransportConfig;
use crate::config::{Config, ConfigError, LoadedConfig, Sources};
use crate::tls::{self, TlsErrors};

/// An error that prevents a role from starting. It is displayed on one line and never contains a secret.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum StartError {
    /// An error in the configuration or in a file named in it.
    Config(ConfigError),
    /// An error in the catalogue.
    Catalogue(CatalogueError),
}

/// A function that prepares a role except for its listeners and connections, and returns the catalogue. `main` passes
/// it to `fjord check`, because shared code must not refer to a role.
pub type PrepareFunction =
    fn(Role, &LoadedConfig) -> Result<std::sync::Arc<Catalogue>, Vec<StartError>>;

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(error) => error.fmt(f),
            Self::Catalogue(error) => error.fmt(f),
        }
    }
}

impl From<ConfigError> for StartError {
    fn from(error: ConfigError) -> Self {
        Self::Config(error)
    }
}

impl From<CatalogueError> for StartError {
    fn from(error: CatalogueError) -> Self {
        Self::Catalogue(error)
    }
}

impl StartError {
    /// Creates an error about a configuration key. `locate` adds the layer that sets the key.
    pub fn at_key(key: impl Into<String>, expected: impl Into<String>) -> Self {
        Self::Config(ConfigError::at_key("", key, expected))
    }

    /// Creates the errors for TLS files. `locate` adds the keys that name the files.
    #[must_use]
    pub fn from_tls(TlsErrors(errors): &TlsErrors) -> Vec<Self> {
        let one = |error: &tls::TlsError| {
            ConfigError::at_location(error.file.display().to_string(), error.kind.to_string())
        };
        errors.iter().map(|error| Self::Config(one(error))).collect()
    }

    /// Adds the layer to an error. If the error is about a file, also adds the key that names the file.
    #[must_use]
    pub fn locate(self, loaded: &LoadedConfig) -> Self {
        match self {
            Self::Config(error) => Self::Config(loaded.locate(error)),
            Self::Catalogue(_) => self,
        }
    }

    /// Creates an authentication error from a line of the form `key: expected`.
    #[must_use]
    pub fn from_line(line: &str) -> Self {
        let (key, expected) = line.split_once(": ").unwrap_or(("", line));
        Self::at_key(key, expected)
    }
}

/// Checks the files for connections that are made by libraries. The libraries read these files only when they connect.
#[must_use]
pub fn client_file_errors(config: &Config) -> Vec<StartError> {
    let TransportConfig::Nats(nats) = &config.messaging.transport;
    let traces = config.traces.as_ref().and_then(|traces| traces.tls.as_ref());
    let checked = nats.tls.iter().chain(traces).map(tls::check_files);
    checked.filter_map(Result::err).flat_map(|errors| StartError::from_tls(&errors)).collect()
}

/// Reads the configuration and prepares everything that depends on it.
///
/// # Errors
/// Returns all errors.
pub fn load<T>(
    sources: &Sources,
    prepare: impl Fn(&LoadedConfig) -> Result<T, Vec<StartError>>,
) -> Result<(LoadedConfig, T), Vec<StartError>> {
    match Config::load(sources) {
        Ok(loaded) => match prepare(&loaded) {
            Ok(prepared) => Ok((loaded, prepared)),
            Err(errors) => Err(located(errors, &loaded)),
        },
        Err(_) => Err(all_errors(sources, prepare)),
    }
}

/// Adds layers and keys to errors and sorts the errors.
#[must_use]
pub fn located(errors: Vec<StartError>, loaded: &LoadedConfig) -> Vec<StartError> {
    let mut errors: Vec<StartError> =
        errors.into_iter().map(|error| error.locate(loaded)).collect();
    errors.sort();
    errors.dedup();
    errors
}

/// Returns all errors in a configuration that `Config::load` rejects. They include the errors that a role finds in the
/// catalogue and in the files named in the configuration. Errors that could be a consequence of others are omitted.
pub fn all_errors<T>(
    sources: &Sources,
    prepare: impl FnOnce(&LoadedConfig) -> Result<T, Vec<StartError>>,
) -> Vec<StartError> {
    let (loaded, errors) = Config::load_with_errors(sources);
    let has_catalogue_error = errors.iter().any(|error| error.key.starts_with("catalogue"));
    let more = loaded.and_then(|loaded| {
        let directory = sources.directory();
        let is_missing = |file: &str| !directory.is_dir() && Path::new(file).starts_with(directory);
        let is_independent = |error: &StartError| match error {
            StartError::Catalogue(error) => !has_catalogue_error && !is_missing(&error.file),
            StartError::Config(error) => loaded.files.iter().any(|file| {
                let is_about =
                    file.path.as_os_str() == error.location.as_str() || file.key == error.key;
                is_about && !errors.iter().any(|other| other.key == file.key)
            }),
        };
        let mut found = prepare(&loaded).err()?;
        found.retain(is_independent);
        Some(found.into_iter().map(|error| error.locate(&loaded)).collect::<Vec<_>>())
    });
    let errors = errors.iter().cloned().map(StartError::Config);
    let mut all: Vec<StartError> = errors.chain(more.unwrap_or_default()).collect();
    all.sort();
    all.dedup();
    all
}
