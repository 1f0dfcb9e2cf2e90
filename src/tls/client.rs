//! TLS for connections to servers: NATS, SQL Server and the trace collector.

use std::path::Path;

use rustls::{ClientConfig, RootCertStore};

use crate::config::tls::ClientTlsConfig;

use super::{TlsError, TlsErrorKind, TlsErrors, pem, provider};

/// Replaces the file name in errors about the system's certificates.
const SYSTEM: &str = "the system's CA certificates";

/// Creates a client configuration. It always verifies the certificate and the name of the server.
///
/// # Errors
/// Returns `TlsErrors` if files are missing, cannot be parsed or do not match each other.
pub fn client_config(config: &ClientTlsConfig) -> Result<ClientConfig, TlsErrors> {
    let mut errors = TlsErrors::default();
    let roots = match &config.ca {
        Some(file) => pem::roots(file),
        None => system_roots(),
    };
    let roots = errors.add(roots);
    let identity = config.identity.as_ref().and_then(|files| errors.add(pem::identity(files)));
    let roots = errors.or(roots)?;
    let file = config.ca.as_deref().unwrap_or(Path::new(SYSTEM));
    let unusable = |file: &Path, error| TlsError::caused_by(file, TlsErrorKind::Unusable, error);
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable(file, error))?
        .with_root_certificates(roots);
    let Some(identity) = identity else {
        return Ok(builder.with_no_client_auth());
    };
    let resolver = rustls::sign::SingleCertAndKey::from(identity);
    Ok(builder.with_client_cert_resolver(std::sync::Arc::new(resolver)))
}

/// Checks the files of a configuration for connections that a library makes.
///
/// # Errors
/// Returns `TlsErrors` if `client_config` could not use the files.
pub fn check_files(config: &ClientTlsConfig) -> Result<(), TlsErrors> {
    let mut errors = TlsErrors::default();
    config.ca.as_ref().and_then(|file| errors.add(pem::roots(file)));
    config.identity.as_ref().and_then(|files| errors.add(pem::identity(files)));
    errors.or(Some(()))
}

/// Loads the system's CA certificates. Certificates that cannot be parsed are skipped.
fn system_roots() -> Result<RootCertStore, TlsError> {
    let loaded = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (added, ignored) = roots.add_parsable_certificates(loaded.certs);
    for error in &loaded.errors {
        tracing::warn!(%error, "some of the system's CA certificates cannot be read");
    }
    tracing::debug!(added, ignored, "loaded the system's CA certificates");
    if roots.is_empty() {
        return Err(TlsError::new(Path::new(SYSTEM), TlsErrorKind::NoRoots));
    }
    Ok(roots)
}
