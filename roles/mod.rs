//! The two roles. They share the code in `src` and communicate only through NATS.

use crate::cli::Role;
use crate::config::{LoadedConfig, LogConfig, Sources, TracesConfig};
use crate::lifecycle::Tasks;
use crate::telemetry::traces::{self, Exporter};
use crate::telemetry::{conditions, exposition, logs};
use crate::tls;

pub mod gateway;
pub mod worker;

/// The error with which a role fails to start.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Errors in the configuration, one line each.
    #[error("{}", .0.join("\n"))]
    Config(Vec<String>),
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

/// Runs a role until a signal ends it.
///
/// # Errors
/// `RunError` if the role cannot start.
pub async fn run(role: Role, loaded: LoadedConfig, sources: Sources) -> Result<(), RunError> {
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    exposition::install(role);
    let exporter = match &loaded.config.traces {
        Some(config) => {
            Some(start_traces(config, role).map_err(|error| RunError::Config(vec![error]))?)
        }
        None => None,
    };
    let _detached = Tasks::new().spawn_background(conditions::watch());
    let result = match role {
        Role::Gateway => Box::pin(gateway::run::run(loaded.config, sources)).await,
        Role::Worker => Box::pin(worker::run::run(loaded.config, sources)).await,
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
