//! The two roles. They share the code in `src` and communicate only through NATS.

use std::sync::Arc;

use crate::catalogue::Catalogue;
use crate::cli::Role;
use crate::config::{LoadedConfig, LogConfig, Sources, TracesConfig};
use crate::lifecycle::{Signals, Tasks};
use crate::start_check::{self, StartError};
use crate::telemetry::traces::{self, SpanClient};
use crate::telemetry::{conditions, exposition, logs};
use crate::tls;

pub mod gateway;
pub mod local;
pub mod worker;

/// The error with which a role fails to start.
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

/// Logs why a reload is refused.
fn log_invalid_reload(errors: &[StartError]) {
    for error in errors {
        tracing::error!(%error, "the new configuration is invalid; the previous one stays in use");
    }
}

/// The parts of a process that depend on files.
#[derive(Debug)]
struct PreparedProcess {
    role: PreparedRole,
    /// The client that exports traces, if the configuration names a collector.
    traces: Option<SpanClient>,
}

/// The parts of a role that depend on files.
#[derive(Debug)]
enum PreparedRole {
    Gateway(Box<gateway::prepare::PreparedGateway>),
    Worker(Box<worker::prepare::PreparedWorker>),
}

fn prepare(role: Role, loaded: &LoadedConfig) -> Result<PreparedProcess, Vec<StartError>> {
    let role = match role {
        Role::Gateway => PreparedRole::Gateway(Box::new(gateway::prepare::prepare(loaded)?)),
        Role::Worker => PreparedRole::Worker(Box::new(worker::prepare::prepare(loaded)?)),
    };
    // Last, because the roles check the same TLS files, and report all errors in them.
    let traces = loaded.config.traces.as_ref().map(span_client).transpose();
    let traces = traces.map_err(|error| vec![StartError::at_key("traces", error)])?;
    Ok(PreparedProcess { role, traces })
}

fn span_client(config: &TracesConfig) -> Result<SpanClient, String> {
    let tls = config.tls.as_ref().map(tls::client_config).transpose();
    SpanClient::new(config, tls.map_err(|error| error.to_string())?)
}

/// Performs the first step of a start, which reads every file, and returns the catalogue. Needs a tokio runtime.
///
/// # Errors
/// All errors with which a start of the role would fail, apart from addresses that cannot be bound.
pub fn check(role: Role, loaded: &LoadedConfig) -> Result<Arc<Catalogue>, Vec<StartError>> {
    prepare(role, loaded).map(|prepared| match prepared.role {
        PreparedRole::Gateway(prepared) => prepared.active_config.catalogue,
        PreparedRole::Worker(prepared) => prepared.catalogue,
    })
}

/// Runs a role until one of `signals` ends it. Signals that arrive during the start take effect after it.
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
    let exporter = loaded.config.traces.as_ref().zip(prepared.traces);
    let exporter = exporter.map(|(config, client)| traces::start(config, role, client));
    let _detached = Tasks::new().spawn_background(conditions::watch());
    let config = loaded.config;
    let result = match prepared.role {
        PreparedRole::Gateway(prepared) => {
            Box::pin(gateway::run::run(config, *prepared, sources, signals)).await
        }
        PreparedRole::Worker(prepared) => {
            Box::pin(worker::run::run(config, *prepared, sources, signals)).await
        }
    };
    if let Some(exporter) = exporter {
        exporter.flush().await;
    }
    result
}
