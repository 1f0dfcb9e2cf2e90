//! The validated configuration.

use std::path::PathBuf;

use crate::catalogue::openapi::ApiInfo;
use crate::cli::Role;

pub mod admin;
pub mod auth;
pub mod catalogue;
pub mod error;
pub mod gateway;
mod hosts;
pub mod layers;
pub mod lifecycle;
pub mod limits;
pub mod log;
pub mod messaging;
mod openapi;
pub mod procedures;
mod relations;
pub mod secret;
pub mod settings;
pub mod tls;
pub mod traces;
pub mod worker;

pub use admin::AdminConfig;
pub use auth::AuthConfig;
pub use catalogue::CatalogueConfig;
pub use error::ConfigError;
pub use gateway::GatewayConfig;
pub use layers::Sources;
pub use lifecycle::LifecycleConfig;
pub use log::LogConfig;
pub use messaging::MessagingConfig;
pub use procedures::ProceduresConfig;
pub use secret::Secret;
pub use settings::{ConfiguredFile, SettingEntry, SettingOrigin};
pub use traces::TracesConfig;
pub use worker::{DEFAULT_POOL, WorkerConfig};

use messaging::TransportConfig;
use settings::{Settings, SettingsDiagnostics, SettingsTable};

/// The whole configuration. `Config::load` returns it only if no setting has an error.
#[derive(Clone, Debug)]
pub struct Config {
    /// The role that this process runs, if one was selected.
    pub role: Option<Role>,
    /// The configuration directory.
    pub directory: PathBuf,
    /// The catalogue directory and the endpoint defaults.
    pub catalogue: CatalogueConfig,
    /// The general part of the `OpenAPI` document.
    pub openapi: ApiInfo,
    /// The connection to NATS.
    pub messaging: MessagingConfig,
    /// The public listener and its request handling.
    pub gateway: GatewayConfig,
    /// The queues that a worker serves.
    pub worker: WorkerConfig,
    /// The databases.
    pub procedures: ProceduresConfig,
    /// Authentication of callers.
    pub auth: AuthConfig,
    /// The admin listener.
    pub admin: AdminConfig,
    /// The log.
    pub log: LogConfig,
    /// The export of traces. `None` if `traces.endpoint` is not set.
    pub traces: Option<TracesConfig>,
    /// The durations of the drain phases.
    pub lifecycle: LifecycleConfig,
}

impl Config {
    /// Returns the keys and sections whose values differ in a reloaded configuration but whose new values take effect
    /// only after a restart.
    #[must_use]
    pub fn fixed_differences(&self, other: &Self) -> Vec<&'static str> {
        let (messaging, new) = (&self.messaging, &other.messaging);
        let (TransportConfig::Nats(nats), TransportConfig::Nats(new_nats)) =
            (&messaging.transport, &new.transport);
        let differences = [
            ("messaging.prefix", messaging.prefix != new.prefix),
            ("messaging.service_api", messaging.service_api != new.service_api),
            ("messaging.nats.inbox_prefix", nats.inbox_prefix != new_nats.inbox_prefix),
            ("messaging.nats.commands_max", nats.commands_max != new_nats.commands_max),
            (
                "messaging.nats.reconnect_delay_max",
                nats.reconnect_delay_max != new_nats.reconnect_delay_max,
            ),
            ("gateway.listen", self.gateway.listen != other.gateway.listen),
            ("gateway.tls", self.gateway.tls.is_some() != other.gateway.tls.is_some()),
            ("worker.pool", self.worker.pool != other.worker.pool),
            ("admin", self.admin != other.admin),
            ("log.format", self.log.format != other.log.format),
        ];
        differences.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key).collect()
    }
}

/// A valid configuration with its warnings.
#[derive(Clone, Debug)]
pub struct LoadedConfig {
    /// The configuration.
    pub config: Config,
    /// Every key with its value and origin. Secrets are redacted.
    pub entries: Vec<SettingEntry>,
    /// Warnings about settings that are allowed but questionable. They are logged at startup.
    pub warnings: Vec<ConfigError>,
    /// The files that are named in settings and read by this process.
    pub files: Vec<ConfiguredFile>,
}

impl LoadedConfig {
    /// Completes an error that was found after the configuration had been read. Adds the key and the layer to an error
    /// about a file, and the layer to an error about a key.
    #[must_use]
    pub fn locate(&self, error: ConfigError) -> ConfigError {
        let names_file = |file: &&ConfiguredFile| file.path.as_os_str() == error.location.as_str();
        let named: Vec<&ConfiguredFile> = self.files.iter().filter(names_file).collect();
        if let Some(first) = named.first() {
            let mut keys: Vec<&str> = named.iter().map(|file| file.key.as_str()).collect();
            keys.dedup();
            let expected = format!("{}: {}", error.location, error.message);
            return ConfigError::at_key(first.location.clone(), keys.join(", "), expected);
        }
        if !error.location.is_empty() {
            return error;
        }
        let location = match self.entries.iter().find(|entry| entry.key == error.key) {
            Some(SettingEntry { origin: SettingOrigin::Layer(name), .. }) => name.clone(),
            _ => self.config.directory.display().to_string(),
        };
        ConfigError { location, ..error }
    }
}

impl Config {
    /// Reads and merges all layers, and validates the result.
    ///
    /// If a role is selected, its sections must be complete, and the files named in them must be readable. Other
    /// sections are validated too, but the files named in them are not opened.
    ///
    /// # Errors
    /// Returns all errors, sorted by location and key.
    pub fn load(sources: &Sources) -> Result<LoadedConfig, Vec<ConfigError>> {
        match Self::load_with_errors(sources) {
            (Some(loaded), errors) if errors.is_empty() => Ok(loaded),
            (_, errors) => Err(errors),
        }
    }

    /// Returns the sections that contain keys in any layer. Unreadable layers are ignored.
    #[must_use]
    pub fn sections(sources: &Sources) -> Vec<String> {
        let figment = sources.merge(&mut Vec::new());
        let values = figment.find_value("").ok().and_then(figment::value::Value::into_dict);
        let sections = values.unwrap_or_default().into_iter();
        let has_keys =
            |value: &figment::value::Value| value.as_dict().is_some_and(|dict| !dict.is_empty());
        sections.filter(|(_, value)| has_keys(value)).map(|(name, _)| name).collect()
    }

    /// Reads the configuration like `load`, but returns it even if it has errors. Invalid settings are then replaced by
    /// their defaults, so the configuration is suitable only for finding further errors.
    #[must_use]
    pub fn load_with_errors(sources: &Sources) -> (Option<LoadedConfig>, Vec<ConfigError>) {
        let mut errors = Vec::new();
        let figment = sources.merge(&mut errors);
        let directory = sources.directory();
        let settings = Settings::new(figment, directory, sources.credentials(), errors);
        let config = settings.read(|table| read(table, sources));
        let mut diagnostics = settings.into_diagnostics();
        diagnostics.report_unknown_and_missing_keys();
        if let Some(config) = &config {
            relations::check(config, &mut diagnostics);
        }
        diagnostics.errors.sort();
        diagnostics.errors.dedup();
        let SettingsDiagnostics { errors, entries, warnings, files, .. } = diagnostics;
        let errors =
            if errors.is_empty() { errors } else { explain_missing_directory(sources, errors) };
        (config.map(|config| LoadedConfig { config, entries, warnings, files }), errors)
    }
}

/// Removes the errors that are caused only by a missing directory. If the missing directory is the default one, adds a
/// hint that another directory can be chosen.
fn explain_missing_directory(sources: &Sources, mut errors: Vec<ConfigError>) -> Vec<ConfigError> {
    let directory = sources.directory();
    if directory.is_dir() {
        return errors;
    }
    let location = directory.display().to_string();
    if sources.directory.is_some() {
        errors.retain(|error| error.location != location || error.key.is_empty());
    } else {
        let hint = "is not a directory: --config or FJORD_CONFIG names another one";
        errors.insert(0, ConfigError::at_location(location, hint));
    }
    errors
}

fn read(table: &mut SettingsTable<'_>, sources: &Sources) -> Option<Config> {
    let role = sources.role;
    // A role's settings may exist only in the environment of the role's systemd unit, which is not visible to a
    // command.
    let running = role.filter(|_| !sources.may_be_incomplete);
    // Files are checked only if this process uses the section that names them.
    let used_by = |table: &mut SettingsTable<'_>, roles: &[Role]| {
        let is_used = if sources.only_nats_files {
            roles.len() == Role::ALL.len()
        } else {
            role.is_some_and(|role| roles.contains(&role))
        };
        if !is_used {
            table.ignore_files();
        }
    };
    let messaging = table.table("messaging", |table| {
        used_by(table, &Role::ALL);
        MessagingConfig::read(table, role)
    });
    let mut catalogue = table.table("catalogue", CatalogueConfig::read);
    let openapi = table.table("openapi", openapi::read);
    let gateway = table.table("gateway", |table| {
        used_by(table, &[Role::Gateway]);
        GatewayConfig::read(table, running)
    });
    catalogue.defaults.body_bytes_ceiling = gateway.http.body_bytes_ceiling();
    let worker = table.table("worker", |table| WorkerConfig::read(table, running));
    let procedures = table.table("procedures", |table| {
        used_by(table, &[Role::Worker]);
        ProceduresConfig::read(table)
    });
    let auth = table.table("auth", |table| {
        used_by(table, &[Role::Gateway]);
        AuthConfig::read(table)
    });
    let admin = table.table("admin", |table| AdminConfig::read(table, role));
    let log = table.table("log", LogConfig::read);
    let traces = table.table("traces", |table| {
        if role.is_none() || sources.only_nats_files {
            table.ignore_files();
        }
        TracesConfig::read(table)
    });
    let lifecycle = table.table("lifecycle", LifecycleConfig::read);
    Some(Config {
        role,
        directory: sources.directory().to_owned(),
        catalogue,
        openapi,
        messaging: messaging?,
        gateway,
        worker,
        procedures,
        auth,
        admin,
        log,
        traces,
        lifecycle,
    })
}

#[cfg(test)]
pub(crate) mod tests;
