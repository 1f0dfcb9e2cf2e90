//! TLS of a listener: several certificates by server name, client certificates, and a snapshot that reloads.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{
    ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, SupportedProtocolVersion, version};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::config::tls::{ClientCertificates, ServerTlsConfig};

use super::{TlsError, TlsErrorKind, names, pem, provider};

/// What a client may speak inside TLS, the better one first.
const PROTOCOLS: [&[u8]; 2] = [HTTP2, b"http/1.1"];
/// HTTP/2's protocol name (RFC 9113 §3.1).
const HTTP2: &[u8] = b"h2";

/// A listener's TLS. Cheap to clone; all clones see a reload.
#[derive(Clone, Debug)]
pub struct ServerTls {
    files: Arc<ServerTlsConfig>,
    current: Arc<ArcSwap<ServerConfig>>,
}

/// A connection after its handshake.
#[derive(Debug)]
pub struct Accepted<IO> {
    /// The plain side.
    pub stream: TlsStream<IO>,
    /// Whether HTTP/2 was agreed on; else it is HTTP/1.1.
    pub is_http2: bool,
    /// The names in the client's certificate, when it showed one that was believed.
    pub certificate_names: Arc<[String]>,
}

/// What one reading of the files gave.
pub(super) struct Loaded {
    config: ServerConfig,
    /// The end of each certificate, by its file.
    expiries: Vec<(PathBuf, i64)>,
}

impl ServerTls {
    /// Reads every file and checks that they fit each other.
    ///
    /// # Errors
    /// `TlsError` names the first file that cannot be used, and what was expected of it.
    pub fn load(config: &ServerTlsConfig) -> Result<Self, TlsError> {
        let loaded = Loaded::read(config)?;
        loaded.report();
        let current = Arc::new(ArcSwap::from_pointee(loaded.config));
        Ok(Self { files: Arc::new(config.clone()), current })
    }

    /// The configuration for the next handshake.
    #[must_use]
    pub fn current(&self) -> Arc<ServerConfig> {
        self.current.load_full()
    }

    /// The files this was made from.
    #[must_use]
    pub fn files(&self) -> &ServerTlsConfig {
        &self.files
    }

    /// Takes what a new reading gave; connections that are open keep what they have.
    pub(super) fn take(&self, loaded: Loaded) {
        loaded.report();
        self.current.store(Arc::new(loaded.config));
    }

    /// Does the handshake. Safe to drop: the connection is closed then. The caller sets the deadline.
    ///
    /// # Errors
    /// What the handshake failed of; the client was told by an alert.
    pub async fn accept<IO>(&self, io: IO) -> io::Result<Accepted<IO>>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let stream = TlsAcceptor::from(self.current()).accept(io).await?;
        let (_, session) = stream.get_ref();
        let is_http2 = session.alpn_protocol() == Some(HTTP2);
        let certificate_names = session
            .peer_certificates()
            .and_then(<[_]>::first)
            .map(names::client_names)
            .unwrap_or_default()
            .into();
        Ok(Accepted { stream, is_http2, certificate_names })
    }
}

impl Loaded {
    pub(super) fn read(files: &ServerTlsConfig) -> Result<Self, TlsError> {
        let (resolver, expiries) = ByName::read(files)?;
        let first = expiries.first().map_or(Path::new(""), |(file, _)| file.as_path());
        let unusable = |error| TlsError::caused_by(first, TlsErrorKind::Unusable, error);
        let versions: &[&SupportedProtocolVersion] =
            if files.tls12 { &[&version::TLS13, &version::TLS12] } else { &[&version::TLS13] };
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(versions)
            .map_err(unusable)?
            .with_client_cert_verifier(client_verifier(&files.client_certificates)?)
            .with_cert_resolver(Arc::new(resolver));
        config.alpn_protocols = PROTOCOLS.iter().map(|name| name.to_vec()).collect();
        // A request in early data can be replayed by whoever saw it (RFC 8446 §8).
        config.max_early_data_size = 0;
        match files.client_certificates {
            // New keys at each reload, and rotated in between: a ticket lives some hours at most.
            ClientCertificates::Off => config.ticketer = Ticketer::new().map_err(unusable)?,
            // A resumed session is not checked again: it would outlive the client's certificate.
            ClientCertificates::Optional { .. } | ClientCertificates::Required { .. } => {
                config.session_storage = Arc::new(NoServerSessionStorage {});
                config.send_tls13_tickets = 0;
            }
        }
        Ok(Self { config, expiries })
    }

    fn report(&self) {
        use crate::telemetry::{self, names};
        for (file, end) in &self.expiries {
            // The whole path: two directories may each have a tls.crt.
            let name = file.to_string_lossy().into_owned();
            #[expect(clippy::cast_precision_loss, reason = "seconds are exact up to 2^53")]
            telemetry::gauge(&names::TLS_CERTIFICATE_EXPIRY, &[(names::FILE, name)])
                .set(*end as f64);
        }
    }
}

fn client_verifier(wanted: &ClientCertificates) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let (ca, is_optional) = match wanted {
        ClientCertificates::Off => return Ok(WebPkiClientVerifier::no_client_auth()),
        ClientCertificates::Optional { ca } => (ca, true),
        ClientCertificates::Required { ca } => (ca, false),
    };
    let roots = Arc::new(pem::roots(ca)?);
    let builder = WebPkiClientVerifier::builder_with_provider(roots, provider());
    let builder = if is_optional { builder.allow_unauthenticated() } else { builder };
    builder.build().map_err(|error| TlsError::caused_by(ca, TlsErrorKind::Unusable, error))
}

/// Chooses a certificate by the name that the client asks for.
#[derive(Debug)]
struct ByName {
    /// By DNS name in lower case, `*.` kept; several where one name has keys of several kinds.
    by_name: HashMap<String, Vec<Arc<CertifiedKey>>>,
    /// In the order of the configuration; the first serves every other name.
    all: Vec<Arc<CertifiedKey>>,
}

impl ByName {
    fn read(files: &ServerTlsConfig) -> Result<(Self, Vec<(PathBuf, i64)>), TlsError> {
        let mut resolver = Self { by_name: HashMap::new(), all: Vec::new() };
        let mut expiries = Vec::new();
        for pair in &files.certificates {
            let key = pem::identity(pair)?;
            if let Some(leaf) = key.cert.first() {
                let end = names::expiry(leaf).map_err(|error| {
                    TlsError::caused_by(&pair.certificate, TlsErrorKind::BadCertificate, error)
                })?;
                expiries.push((pair.certificate.clone(), end));
                for name in names::dns_names(leaf) {
                    resolver.by_name.entry(name).or_default().push(Arc::clone(&key));
                }
            }
            resolver.all.push(key);
        }
        if resolver.all.is_empty() {
            let place = Path::new("gateway.tls.certificates");
            return Err(TlsError::new(place, TlsErrorKind::NoneConfigured));
        }
        Ok((resolver, expiries))
    }

    fn named(&self, name: &str) -> Option<&Vec<Arc<CertifiedKey>>> {
        let name = name.to_ascii_lowercase();
        self.by_name.get(&name).or_else(|| {
            // A wildcard stands for exactly one label (RFC 9525 §6.3).
            let (_, parent) = name.split_once('.')?;
            self.by_name.get(&format!("*.{parent}"))
        })
    }
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let candidates = hello.server_name().and_then(|name| self.named(name));
        let fits =
            |key: &&Arc<CertifiedKey>| key.key.choose_scheme(hello.signature_schemes()).is_some();
        let named = candidates.and_then(|keys| keys.iter().find(fits));
        // Where none fits the client is told that there is nothing in common; without any it would be told that it may
        // not enter (RFC 8446 §4.4.2.2).
        named.or_else(|| self.all.iter().find(fits)).or(self.all.first()).cloned()
    }
}
