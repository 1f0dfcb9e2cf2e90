//! The two roles. They share the code in `src` and communicate only through NATS.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::catalogue::Catalogue;
use crate::cli::Role;
use crate::config::tls::ClientTlsConfig;
use crate::config::{Config, LoadedConfig, LogConfig, Sources};
use crate::lifecycle::{Signals, Tasks};
use crate::messaging::{self, SettingsState, Transport};
use crate::start_check::{self, StartError};
use crate::telemetry::traces::{self, PreparedTraces};
use crate::telemetry::{conditions, counter, exposition, logs, names};
use crate::tls;

pub mod gateway;
pub mod local;
pub mod worker;

/// How long the settings of the connection to NATS may take to apply before their reload counts as failed.
const NATS_SETTINGS_LIMIT: Duration = Duration::from_secs(30);

/// The reason why a role cannot start.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Errors in the configuration, one line each.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Config(Vec<StartError>),
    /// A system operation failed.
    #[error("{what}")]
    System {
        /// The operation.
        what: String,
        /// The cause of the failure.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl RunError {
    fn system(
        what: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::System { what: what.into(), source: source.into() }
    }
}

/// Applies the log filter after a reload.
fn apply_log_filter(config: &LogConfig) {
    if let Err(error) = logs::set_filter(&config.filter) {
        tracing::error!(%error, filter = config.filter, "cannot change the log filter");
    }
}

/// Logs and counts a reload that has changed nothing.
fn reload_failed(errors: &[StartError]) {
    for error in errors {
        tracing::error!(%error, "the new configuration is invalid; the previous one stays in use");
    }
    count_reload("failed");
}

/// Logs a reload whose changes have been applied, and counts it once the connection to NATS uses its settings. If it does not
/// in time, the reload counts as failed.
fn reload_applied(transport: &Arc<dyn Transport>, tasks: &Tasks) {
    tracing::info!("configuration reloaded");
    if *transport.settings().borrow() != SettingsState::Pending {
        return count_reload("ok");
    }
    let transport = Arc::clone(transport);
    let _detached = tasks.spawn_background(async move {
        let deadline = Instant::now() + NATS_SETTINGS_LIMIT;
        // The transport logs why it does not use the settings.
        let applied = messaging::settings_applied(&*transport, deadline).await;
        count_reload(if applied.is_ok() { "ok" } else { "failed" });
    });
}

fn count_reload(result: &str) {
    counter(&names::CONFIG_RELOADS, &[(names::RESULT, result.to_owned())]).increment(1);
}

/// Warns about changed settings that a reload does not apply.
fn warn_about_restart(old: &Config, new: &Config) {
    let changed = old.fixed_differences(new);
    if !changed.is_empty() {
        let settings = changed.join(", ");
        tracing::warn!(settings, "settings have changed that take effect after a restart");
    }
}

/// The parts of a role that depend on files.
#[derive(Debug)]
enum PreparedRole {
    Gateway(Box<gateway::prepare::PreparedGateway>),
    Worker(Box<worker::prepare::PreparedWorker>),
}

fn prepare(role: Role, loaded: &LoadedConfig) -> Result<PreparedRole, Vec<StartError>> {
    match role {
        Role::Gateway => {
            gateway::prepare::prepare(loaded).map(|one| PreparedRole::Gateway(Box::new(one)))
        }
        Role::Worker => {
            worker::prepare::prepare(loaded).map(|one| PreparedRole::Worker(Box::new(one)))
        }
    }
}

/// Performs the first step of a start, which reads every file, and returns the catalogue. Needs a tokio runtime.
///
/// # Errors
/// All errors that would prevent the role from starting, apart from addresses that cannot be bound.
pub fn check(role: Role, loaded: &LoadedConfig) -> Result<Arc<Catalogue>, Vec<StartError>> {
    prepare(role, loaded).map(|prepared| match prepared {
        PreparedRole::Gateway(prepared) => prepared.active_config.catalogue,
        PreparedRole::Worker(prepared) => prepared.catalogue,
    })
}

/// Runs a role until one of `signals` stops it. Signals that arrive during the start take effect
/// after it.
///
/// # Errors
/// `RunError` if the role cannot start.
pub async fn run(
    role: Role,
    loaded: LoadedConfig,
    sources: Sources,
    signals: Signals,
) -> Result<(), RunError> {
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    exposition::install(role);
    let prepared = prepare(role, &loaded)
        .map_err(|errors| RunError::Config(start_check::located(errors, &loaded)))?;
    let _detached = Tasks::new().spawn_background(conditions::watch());
    let config = loaded.config;
    let result = match prepared {
        PreparedRole::Gateway(prepared) => {
            Box::pin(gateway::run::run(config, *prepared, sources, signals)).await
        }
        PreparedRole::Worker(prepared) => {
            Box::pin(worker::run::run(config, *prepared, sources, signals)).await
        }
    };
    traces::flush().await;
    result
}

/// Prepares the export of traces that a configuration asks for. Call this last: the roles check the same TLS files, and report
/// all errors in them.
fn prepare_traces(config: &Config, role: Role) -> Result<PreparedTraces, Vec<StartError>> {
    let client = |files: &ClientTlsConfig| {
        tls::client_config(files).map_err(|error| format!("traces.tls: {error}"))
    };
    traces::prepare(config.traces.as_ref(), role, client)
        .map_err(|error| vec![StartError::at_key("traces", error)])
}
