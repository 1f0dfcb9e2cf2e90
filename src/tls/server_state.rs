//! The TLS state of a listener: a rustls configuration that is rebuilt at every reload.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{
    ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, SupportedProtocolVersion, version};

use crate::config::tls::{ClientAuth, ServerTlsConfig};
use crate::file_version::FileVersion;
use crate::telemetry::{self, names as metric_names};

use super::server_files::server_versions;
use super::{TlsError, TlsErrorKind, TlsErrors, names, pem, provider};

/// The name of HTTP/2 in ALPN (RFC 9113 §3.1).
pub(super) const HTTP2: &[u8] = b"h2";
/// The protocols offered in ALPN, in order of preference.
const PROTOCOLS: [&[u8]; 2] = [HTTP2, b"http/1.1"];

/// The result of reading the files once.
#[derive(Debug)]
pub(super) struct ServerTlsState {
    pub(super) files: ServerTlsConfig,
    /// The versions of the files before they were read.
    pub(super) versions: Vec<Option<FileVersion>>,
    pub(super) config: Arc<ServerConfig>,
    /// Verifies client certificates. `None` if the listener does not request them.
    pub(super) client_verifier: Option<Arc<dyn ClientCertVerifier>>,
    /// The generation of the files. Each reload starts a new generation.
    pub(super) generation: u64,
}

impl ServerTlsState {
    /// Reads all files, checks that they fit together, and reports when the certificates expire.
    pub(super) fn load(files: &ServerTlsConfig, generation: u64) -> Result<Self, TlsErrors> {
        let file_versions = server_versions(files);
        let mut errors = TlsErrors::default();
        let certificates = errors.add(CertificateResolver::load(files));
        let client_verifier = errors.add(client_verifier(&files.client_auth)).flatten();
        let (resolver, expiries) = errors.or(certificates)?;
        let first = expiries.first().map_or(Path::new(""), |(file, _)| file.as_path());
        let unusable = |error| TlsError::caused_by(first, TlsErrorKind::Unusable, error);
        let versions: &[&SupportedProtocolVersion] =
            if files.tls12 { &[&version::TLS13, &version::TLS12] } else { &[&version::TLS13] };
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(versions)
            .map_err(unusable)?
            .with_client_cert_verifier(
                client_verifier.clone().unwrap_or_else(WebPkiClientVerifier::no_client_auth),
            )
            .with_cert_resolver(Arc::new(resolver));
        config.alpn_protocols = PROTOCOLS.iter().map(|name| name.to_vec()).collect();
        // Requests in early data could be replayed (RFC 8446 §8).
        config.max_early_data_size = 0;
        match files.client_auth {
            // Each reload creates new ticket keys, and rustls replaces them every 6 h. A ticket is
            // therefore valid for at most 12 h.
            ClientAuth::Off => config.ticketer = Ticketer::new().map_err(unusable)?,
            // Resumption does not verify the client's certificate, so a session could outlive the
            // certificate.
            ClientAuth::Optional { .. } | ClientAuth::Required { .. } => {
                config.session_storage = Arc::new(NoServerSessionStorage {});
                config.send_tls13_tickets = 0;
            }
        }
        report(&expiries);
        let (files, config) = (files.clone(), Arc::new(config));
        Ok(Self { files, versions: file_versions, config, client_verifier, generation })
    }
}

/// Sets the metric for the expiry of each certificate.
fn report(expiries: &[(PathBuf, i64)]) {
    for (file, expiry) in expiries {
        // The label is the whole path, because several directories may contain a `tls.crt`.
        let name = file.to_string_lossy().into_owned();
        #[expect(clippy::cast_precision_loss, reason = "seconds up to 2^53 are exact")]
        telemetry::gauge(&metric_names::TLS_CERTIFICATE_EXPIRY, &[(metric_names::FILE, name)])
            .set(*expiry as f64);
    }
}

fn client_verifier(
    client_auth: &ClientAuth,
) -> Result<Option<Arc<dyn ClientCertVerifier>>, TlsError> {
    let (ca, is_optional) = match client_auth {
        ClientAuth::Off => return Ok(None),
        ClientAuth::Optional { ca } => (ca, true),
        ClientAuth::Required { ca } => (ca, false),
    };
    let roots = Arc::new(pem::roots(ca)?);
    let builder = WebPkiClientVerifier::builder_with_provider(roots, provider());
    let builder = if is_optional { builder.allow_unauthenticated() } else { builder };
    let verifier = builder.build();
    let verifier =
        verifier.map_err(|error| TlsError::caused_by(ca, TlsErrorKind::Unusable, error))?;
    Ok(Some(verifier))
}

/// Selects the certificate for the server name in the client's request.
#[derive(Debug)]
struct CertificateResolver {
    /// The keys, by DNS name in lower case, including wildcard names. A name can have keys of
    /// several types.
    by_name: HashMap<String, Vec<Arc<CertifiedKey>>>,
    /// All certified keys, in configuration order. The first is used for unknown names.
    all: Vec<Arc<CertifiedKey>>,
}

impl CertificateResolver {
    /// Loads the certificates. Returns the resolver and the expiry of each file in seconds since
    /// 1970.
    fn load(files: &ServerTlsConfig) -> Result<(Self, Vec<(PathBuf, i64)>), TlsErrors> {
        let mut resolver = Self { by_name: HashMap::new(), all: Vec::new() };
        let mut expiries = Vec::new();
        let mut errors = TlsErrors::default();
        for pair in &files.certificates {
            let Some(key) = errors.add(pem::identity(pair)) else { continue };
            if let Some(leaf) = key.cert.first() {
                // `pem::identity` has already parsed the certificate.
                let expiry = names::expiry(leaf).unwrap_or_default();
                expiries.push((pair.certificate.clone(), expiry));
                for name in names::dns_names(leaf) {
                    resolver.by_name.entry(name).or_default().push(Arc::clone(&key));
                }
            }
            resolver.all.push(key);
        }
        if files.certificates.is_empty() {
            let setting = Path::new("gateway.tls.certificates");
            return Err(TlsError::new(setting, TlsErrorKind::NoneConfigured).into());
        }
        errors.or(Some((resolver, expiries)))
    }

    fn keys_for(&self, name: &str) -> Option<&Vec<Arc<CertifiedKey>>> {
        let name = name.to_ascii_lowercase();
        self.by_name.get(&name).or_else(|| {
            // A wildcard matches exactly one label (RFC 9525 §6.3).
            let (_, parent) = name.split_once('.')?;
            self.by_name.get(&format!("*.{parent}"))
        })
    }
}

impl ResolvesServerCert for CertificateResolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let candidates = hello.server_name().and_then(|name| self.keys_for(name));
        let is_supported =
            |key: &&Arc<CertifiedKey>| key.key.choose_scheme(hello.signature_schemes()).is_some();
        let named = candidates.and_then(|keys| keys.iter().find(is_supported));
        // If the client supports none of the keys, a key is returned anyway. rustls then sends
        // `handshake_failure` instead of `access_denied` (RFC 8446 §4.4.2.2).
        named.or_else(|| self.all.iter().find(is_supported)).or(self.all.first()).cloned()
    }
}
