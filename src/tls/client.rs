//! TLS for connections to servers: NATS, SQL Server, the trace collector.

use std::path::Path;

use rustls::{ClientConfig, RootCertStore};

use crate::config::tls::ClientTlsConfig;

use super::{TlsError, TlsErrorKind, pem, provider};

/// The text that replaces the file name in errors about the system's certificates.
const SYSTEM: &str = "the system's CA certificates";

/// Creates a client configuration. It always verifies the certificate and the name of the server.
///
/// # Errors
/// Returns `TlsError` if a file is missing, cannot be parsed or does not match the others.
pub fn client_config(config: &ClientTlsConfig) -> Result<ClientConfig, TlsError> {
    let roots = match &config.ca {
        Some(file) => pem::roots(file)?,
        None => system_roots()?,
    };
    let file = config.ca.as_deref().unwrap_or(Path::new(SYSTEM));
    let unusable = |file: &Path, error| TlsError::caused_by(file, TlsErrorKind::Unusable, error);
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable(file, error))?
        .with_root_certificates(roots);
    let Some(files) = &config.identity else {
        return Ok(builder.with_no_client_auth());
    };
    let identity = pem::identity(files)?;
    let resolver = rustls::sign::SingleCertAndKey::from(identity);
    Ok(builder.with_client_cert_resolver(std::sync::Arc::new(resolver)))
}

/// Loads the system's CA certificates. Those that cannot be parsed are skipped.
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
