//! The first step of a start: reads every file of the configuration. `fjord check` performs only this step.

use crate::config::LoadedConfig;
use crate::roles::gateway::active_config::ActiveConfig;
use crate::start_check::{self, StartError};
use crate::tls::{ServerTls, TlsErrors};

/// The parts of a gateway that depend on files.
#[derive(Debug)]
pub struct PreparedGateway {
    /// The part of the configuration that requests depend on.
    pub active_config: ActiveConfig,
    /// TLS of the public listener.
    pub tls: Option<ServerTls>,
}

/// Reads every file of a gateway. Binds no address and connects to nothing.
///
/// # Errors
/// All errors.
pub fn prepare(loaded: &LoadedConfig) -> Result<PreparedGateway, Vec<StartError>> {
    let config = &loaded.config;
    let tls = config.gateway.tls.as_ref().map(ServerTls::load).transpose();
    let (active_config, tls) = with_tls(loaded, tls)?;
    Ok(PreparedGateway { active_config, tls })
}

/// Reads every file of a gateway except those of its public listener, and adds their result.
pub(super) fn with_tls<T>(
    loaded: &LoadedConfig,
    tls: Result<T, TlsErrors>,
) -> Result<(ActiveConfig, T), Vec<StartError>> {
    let config = &loaded.config;
    let mut errors = start_check::client_file_errors(config);
    let tls = tls.map_err(|found| errors.extend(StartError::from_tls(&found)));
    let active_config = ActiveConfig::load(config).map_err(|found| errors.extend(found));
    match (active_config, tls) {
        (Ok(active_config), Ok(tls)) if errors.is_empty() => Ok((active_config, tls)),
        _ => Err(errors),
    }
}
