//! Performs the first step of a start: reads every file that the configuration names. `fjord check`
//! performs only this step.

use crate::cli::Role;
use crate::config::LoadedConfig;
use crate::free_memory;
use crate::roles;
use crate::roles::gateway::active_config::ActiveConfig;
use crate::start_check::{self, StartError};
use crate::telemetry::traces::PreparedTraces;
use crate::tls::{ServerTls, TlsErrors};

/// The parts of a gateway that depend on files.
#[derive(Debug)]
pub struct PreparedGateway {
    /// The part of the configuration that requests depend on.
    pub active_config: ActiveConfig,
    /// The TLS settings of the public listener.
    pub tls: Option<ServerTls>,
    /// The export of traces.
    pub traces: PreparedTraces,
}

/// Reads every file that a gateway needs. Binds no address and connects to nothing.
///
/// # Errors
/// All errors found.
pub fn prepare(loaded: &LoadedConfig) -> Result<PreparedGateway, Vec<StartError>> {
    let config = &loaded.config;
    let tls = config.gateway.tls.as_ref().map(ServerTls::load).transpose();
    let (active_config, tls, traces) = with_tls(loaded, tls)?;
    Ok(PreparedGateway { active_config, tls, traces })
}

/// Reads every file that a gateway needs, except those of its public listener. `tls` is the result
/// of reading the listener's files. The errors in `tls` are returned together with the others.
pub(super) fn with_tls<T>(
    loaded: &LoadedConfig,
    tls: Result<T, TlsErrors>,
) -> Result<(ActiveConfig, T, PreparedTraces), Vec<StartError>> {
    let config = &loaded.config;
    let mut errors = start_check::client_file_errors(config);
    let tls = tls.map_err(|found| errors.extend(StartError::from_tls(&found)));
    let active_config = free_memory::run_in_own_thread(|| ActiveConfig::load(config));
    let active_config = active_config.map_err(|found| errors.extend(found));
    match (active_config, tls) {
        (Ok(active_config), Ok(tls)) if errors.is_empty() => {
            Ok((active_config, tls, roles::prepare_traces(config, Role::Gateway)?))
        }
        _ => Err(errors),
    }
}
