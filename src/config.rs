//! The configuration as it was checked: what every part of fjord is made from.

use std::path::PathBuf;

use crate::cli::Role;

pub mod admin;
pub mod auth;
pub mod catalogue;
pub mod duration;
pub mod error;
pub mod gateway;
pub mod layers;
pub mod lifecycle;
pub mod limits;
pub mod log;
pub mod messaging;
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
pub use settings::{Entry, Origin};
pub use traces::TracesConfig;
pub use worker::WorkerConfig;

use settings::{Settings, Table};

/// Everything, checked. Made only from settings that have no error.
#[derive(Clone, Debug)]
pub struct Config {
    /// The role this process runs, when one was chosen.
    pub role: Option<Role>,
    /// Where the layers were read from.
    pub directory: PathBuf,
    /// The catalogue's place and what endpoints inherit.
    pub catalogue: CatalogueConfig,
    /// The message bus.
    pub messaging: MessagingConfig,
    /// The public side.
    pub gateway: GatewayConfig,
    /// The queues that this worker serves.
    pub worker: WorkerConfig,
    /// Where procedures run.
    pub procedures: ProceduresConfig,
    /// How callers prove who they are.
    pub auth: AuthConfig,
    /// The admin listener.
    pub admin: AdminConfig,
    /// Logs.
    pub log: LogConfig,
    /// Traces that are exported; `None` where no endpoint is configured.
    pub traces: Option<TracesConfig>,
    /// Start, drain, end.
    pub lifecycle: LifecycleConfig,
}

/// A configuration without an error, and what is to be said about it.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// Every key with its value and where it is from, secrets redacted.
    pub entries: Vec<Entry>,
    /// What is allowed and still deserves a line in the log at start.
    pub warnings: Vec<String>,
}

impl Config {
    /// Reads and checks every layer. With a role the sections that it needs have to be complete, and the files that
    /// they name readable; the others are read too, but what they name is not looked at.
    ///
    /// # Errors
    /// Every error there is, sorted by place and key.
    pub fn load(sources: &Sources) -> Result<Loaded, Vec<ConfigError>> {
        let mut errors = Vec::new();
        let figment = sources.merge(&mut errors);
        let directory = sources.directory();
        let settings = Settings::new(figment, directory, sources.credentials(), errors);
        let config = settings.read(|table| read(table, sources));
        let mut findings = settings.into_findings();
        findings.judge_unknown();
        if let Some(config) = &config {
            relations::check(config, &mut findings);
        }
        findings.errors.sort();
        findings.errors.dedup();
        match config {
            Some(config) if findings.errors.is_empty() => {
                Ok(Loaded { config, entries: findings.entries, warnings: findings.warnings })
            }
            _ => Err(findings.errors),
        }
    }
}

fn read(table: &mut Table<'_>, sources: &Sources) -> Option<Config> {
    let role = sources.role;
    let section = |table: &mut Table<'_>, of: &[Role]| {
        let looks = if sources.is_for_bus {
            of.len() == Role::ALL.len()
        } else {
            role.is_some_and(|role| of.contains(&role))
        };
        if !looks {
            table.ignore_files();
        }
    };
    let both = Role::ALL;
    let messaging = table.table("messaging", |table| {
        section(table, &both);
        MessagingConfig::read(table, role)
    });
    let mut catalogue = table.table("catalogue", CatalogueConfig::read);
    let gateway = table.table("gateway", |table| {
        section(table, &[Role::Gateway]);
        GatewayConfig::read(table, role)
    });
    catalogue.buffered_bytes_per_client_max = gateway.http.buffered_bytes_per_client_max;
    let worker = table.table("worker", |table| WorkerConfig::read(table, role));
    let procedures = table.table("procedures", |table| {
        section(table, &[Role::Worker]);
        ProceduresConfig::read(table)
    });
    let auth = table.table("auth", |table| {
        section(table, &[Role::Gateway]);
        AuthConfig::read(table)
    });
    let admin = table.table("admin", |table| AdminConfig::read(table, role));
    let log = table.table("log", LogConfig::read);
    let traces = table.table("traces", |table| {
        if role.is_none() || sources.is_for_bus {
            table.ignore_files();
        }
        TracesConfig::read(table)
    });
    let lifecycle = table.table("lifecycle", LifecycleConfig::read);
    Some(Config {
        role,
        directory: sources.directory().to_owned(),
        catalogue,
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
