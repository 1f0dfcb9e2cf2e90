//! The two roles. They share the code in `src` and communicate only through NATS.

use std::sync::Arc;

use crate::catalogue::Catalogue;
use crate::cli::Role;
use crate::config::{LoadedConfig, LogConfig, Sources, TracesConfig};
use crate::lifecycle::Tasks;
use crate::start_check::{self, StartError};
use crate::telemetry::traces::{self, Exporter};
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
/// All errors with which a start of the role would fail, apart from addresses that cannot be bound.
pub fn check(role: Role, loaded: &LoadedConfig) -> Result<Arc<Catalogue>, Vec<StartError>> {
    prepare(role, loaded).map(|prepared| match prepared {
        PreparedRole::Gateway(prepared) => prepared.active_config.catalogue,
        PreparedRole::Worker(prepared) => prepared.catalogue,
    })
}

/// Runs a role until a signal ends it.
///
/// # Errors
/// `RunError` if the role cannot start.
pub async fn run(role: Role, loaded: LoadedConfig, sources: Sources) -> Result<(), RunError> {
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    exposition::install(role);
    let prepared = prepare(role, &loaded)
        .map_err(|errors| RunError::Config(start_check::located(errors, &loaded)))?;
    let exporter = match &loaded.config.traces {
        Some(config) => Some(start_traces(config, role).map_err(|error| {
            RunError::Config(vec![StartError::at_key("traces", error).locate(&loaded)])
        })?),
        None => None,
    };
    let _detached = Tasks::new().spawn_background(conditions::watch());
    let config = loaded.config;
    let result = match prepared {
        PreparedRole::Gateway(prepared) => {
            Box::pin(gateway::run::run(config, *prepared, sources)).await
        }
        PreparedRole::Worker(prepared) => {
            Box::pin(worker::run::run(config, *prepared, sources)).await
        }
    };
    if let Some(exporter) = exporter {
        exporter.flush().await;
    }
    result
}

fn start_traces(config: &TracesConfig, role: Role) -> Result<Exporter, String> {
    let tls = config.tls.as_ref().map(tls::client_config).transpose();
    let tls = tls.map_err(|error| format!("traces.tls: {error}"))?;
    traces::start(config, role, tls)
}
