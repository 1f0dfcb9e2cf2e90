//! TLS of a listener: several certificates by server name, client certificates, and a snapshot that reloads.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
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

use super::client_certificate::ClientCertificate;
use super::{TlsError, TlsErrorKind, names, pem, provider};

/// What a client may speak inside TLS, the better one first.
const PROTOCOLS: [&[u8]; 2] = [HTTP2, b"http/1.1"];
/// HTTP/2's protocol name (RFC 9113 §3.1).
const HTTP2: &[u8] = b"h2";

/// A listener's TLS. Cheap to clone; all clones see a reload.
#[derive(Clone, Debug)]
pub struct ServerTls {
    current: Arc<ArcSwap<Current>>,
    /// Held from the reading of the files until what they gave is in use.
    reading: Arc<Mutex<()>>,
}

/// What the last reading of the files gave.
#[derive(Debug)]
pub(super) struct Current {
    files: ServerTlsConfig,
    config: Arc<ServerConfig>,
    /// Who says which client certificates are believed; nobody where none is asked for.
    pub(super) client_verifier: Option<Arc<dyn ClientCertVerifier>>,
    /// The number of the reading.
    pub(super) generation: u64,
}

/// A connection after its handshake.
#[derive(Debug)]
pub struct Accepted<IO> {
    /// The plain side.
    pub stream: TlsStream<IO>,
    /// Whether HTTP/2 was agreed on; else it is HTTP/1.1.
    pub is_http2: bool,
    /// The client's certificate, when it showed one that was believed.
    pub certificate: Option<ClientCertificate>,
}

/// Who is asked for a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asks {
    /// No client.
    Nobody,
    /// A client may show one.
    WhoHasOne,
    /// Without one a connection is refused.
    Everybody,
}

/// Validated TLS files, not yet in use. Holds the reload lock until taken or dropped.
#[derive(Debug)]
#[must_use = "they are not in use before they are taken"]
pub struct NewFiles<'a> {
    tls: &'a ServerTls,
    current: Arc<Current>,
    _reading: MutexGuard<'a, ()>,
}

impl NewFiles<'_> {
    pub(super) fn store(self) {
        self.tls.current.store(self.current);
    }
}

/// What one reading of the files gave.
struct Loaded {
    config: ServerConfig,
    client_verifier: Option<Arc<dyn ClientCertVerifier>>,
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
        let current = Arc::new(ArcSwap::from_pointee(loaded.into_current(config, 0)));
        Ok(Self { current, reading: Arc::default() })
    }

    /// The configuration for the next handshake.
    #[must_use]
    pub fn current(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.load().config)
    }

    /// The files that were read last.
    #[must_use]
    pub fn files(&self) -> ServerTlsConfig {
        self.current.load().files.clone()
    }

    /// Longest handshake.
    #[must_use]
    pub fn handshake_timeout(&self) -> Duration {
        self.current.load().files.handshake_timeout
    }

    pub(super) fn loaded(&self) -> Guard<Arc<Current>> {
        self.current.load()
    }

    /// Reads these files, or those from before. Connections that are open keep what they have when it is taken, but for the
    /// client's certificate: see `ClientCertificate::check`.
    pub(super) fn read(&self, files: Option<&ServerTlsConfig>) -> Result<NewFiles<'_>, TlsError> {
        // A signal and the watch may come at once: what was read last has to be what is used.
        let reading = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.current.load_full();
        let files = files.unwrap_or(&before.files);
        let current = Loaded::read(files)?.into_current(files, before.generation + 1);
        Ok(NewFiles { tls: self, current: Arc::new(current), _reading: reading })
    }

    /// Whether clients have to show a certificate now, may, or are not asked.
    #[must_use]
    pub fn asks(&self) -> Asks {
        match self.current.load().files.client_certificates {
            ClientCertificates::Off => Asks::Nobody,
            ClientCertificates::Optional { .. } => Asks::WhoHasOne,
            ClientCertificates::Required { .. } => Asks::Everybody,
        }
    }

    /// Does the handshake. Safe to drop: the connection is closed then. The caller sets the deadline.
    ///
    /// # Errors
    /// What the handshake failed of; the client was told by an alert.
    pub async fn accept<IO>(&self, io: IO) -> io::Result<Accepted<IO>>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let current = self.current.load_full();
        let generation = current.generation;
        let stream = TlsAcceptor::from(Arc::clone(&current.config)).accept(io).await?;
        let (_, session) = stream.get_ref();
        let is_http2 = session.alpn_protocol() == Some(HTTP2);
        let chain = session.peer_certificates();
        let certificate = chain.and_then(|chain| ClientCertificate::new(chain, self, generation));
        Ok(Accepted { stream, is_http2, certificate })
    }
}

impl Loaded {
    fn read(files: &ServerTlsConfig) -> Result<Self, TlsError> {
        let (resolver, expiries) = ByName::read(files)?;
        let first = expiries.first().map_or(Path::new(""), |(file, _)| file.as_path());
        let unusable = |error| TlsError::caused_by(first, TlsErrorKind::Unusable, error);
        let versions: &[&SupportedProtocolVersion] =
            if files.tls12 { &[&version::TLS13, &version::TLS12] } else { &[&version::TLS13] };
        let client_verifier = client_verifier(&files.client_certificates)?;
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(versions)
            .map_err(unusable)?
            .with_client_cert_verifier(
                client_verifier.clone().unwrap_or_else(WebPkiClientVerifier::no_client_auth),
            )
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
        Ok(Self { config, client_verifier, expiries })
    }

    fn into_current(self, files: &ServerTlsConfig, generation: u64) -> Current {
        self.report();
        let (config, client_verifier) = (Arc::new(self.config), self.client_verifier);
        Current { files: files.clone(), config, client_verifier, generation }
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

fn client_verifier(
    wanted: &ClientCertificates,
) -> Result<Option<Arc<dyn ClientCertVerifier>>, TlsError> {
    let (ca, is_optional) = match wanted {
        ClientCertificates::Off => return Ok(None),
        ClientCertificates::Optional { ca } => (ca, true),
        ClientCertificates::Required { ca } => (ca, false),
    };
    let roots = Arc::new(pem::roots(ca)?);
    let builder = WebPkiClientVerifier::builder_with_provider(roots, provider());
    let builder = if is_optional { builder.allow_unauthenticated() } else { builder };
    let built = builder.build();
    let built = built.map_err(|error| TlsError::caused_by(ca, TlsErrorKind::Unusable, error))?;
    Ok(Some(built))
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
