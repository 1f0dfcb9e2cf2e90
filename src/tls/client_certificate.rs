//! Client certificates of open connections. A certificate remains valid for as long as a new
//! handshake would accept it.

use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use rustls::CertificateError;
use rustls::pki_types::{CertificateDer, UnixTime};

use super::names;
use super::server_state::ServerTlsState;

/// A client's certificate and its chain, as verified by the handshake.
#[derive(Debug)]
pub struct ClientCertificate {
    names: Arc<[String]>,
    /// The chain in the order in which the client sent it, leaf first.
    chain: Vec<CertificateDer<'static>>,
    tls: Arc<ArcSwap<ServerTlsState>>,
    last_check: Mutex<CertificateCheck>,
}

/// The reason why a certificate is no longer accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientCertificateError {
    /// The certificate, or an intermediate certificate in its chain, has expired.
    Expired,
    /// The certificate was not signed by any of the current authorities.
    Untrusted,
}

/// The result of a verification and the time until which it is valid.
#[derive(Clone, Copy, Debug)]
struct CertificateCheck {
    /// The generation of the TLS files that contained the authorities. Each reload starts a new
    /// generation.
    generation: u64,
    /// The Unix time in seconds at which the next certificate in the chain expires.
    until: i64,
    result: Result<(), ClientCertificateError>,
}

impl ClientCertificate {
    /// Wraps a chain that was verified against the TLS files of this generation.
    pub(super) fn new(
        chain: &[CertificateDer<'_>],
        tls: Arc<ArcSwap<ServerTlsState>>,
        generation: u64,
    ) -> Option<Self> {
        let names = names::client_names(chain.first()?).into();
        let chain: Vec<_> =
            chain.iter().map(|certificate| certificate.clone().into_owned()).collect();
        let until = next_expiry(&chain, UnixTime::now());
        let last_check = Mutex::new(CertificateCheck { generation, until, result: Ok(()) });
        Some(Self { names, chain, tls, last_check })
    }

    /// Returns the names in the certificate.
    #[must_use]
    pub fn names(&self) -> &Arc<[String]> {
        &self.names
    }

    /// Checks that a new handshake would accept the certificate now. The certificate is verified
    /// again only after a reload, or after a certificate in its chain has expired.
    ///
    /// # Errors
    /// Returns `ClientCertificateError` if the certificate is no longer accepted.
    pub fn check(&self) -> Result<(), ClientCertificateError> {
        self.check_at(UnixTime::now())
    }

    pub(super) fn check_at(&self, now: UnixTime) -> Result<(), ClientCertificateError> {
        let current = self.tls.load();
        let mut check = self.last_check.lock().unwrap_or_else(PoisonError::into_inner);
        if check.generation != current.generation || seconds(now) > check.until {
            let verified = match (&current.client_verifier, self.chain.split_first()) {
                (Some(verifier), Some((leaf, intermediates))) => {
                    let result = verifier.verify_client_cert(leaf, intermediates, now);
                    result.map(drop).map_err(|e| reason(&e))
                }
                // Client certificates are off, so there is no CA to verify against.
                _ => Err(ClientCertificateError::Untrusted),
            };
            *check = CertificateCheck {
                generation: current.generation,
                until: next_expiry(&self.chain, now),
                result: verified,
            };
        }
        check.result
    }
}

fn reason(error: &rustls::Error) -> ClientCertificateError {
    match error {
        rustls::Error::InvalidCertificate(
            CertificateError::Expired | CertificateError::ExpiredContext { .. },
        ) => ClientCertificateError::Expired,
        _ => ClientCertificateError::Untrusted,
    }
}

/// Returns the time at which the next certificate in a chain expires. Certificates that have
/// already expired are ignored. Clients may send certificates that their chain does not need, so
/// the verifier decides whether an expired one matters.
fn next_expiry(chain: &[CertificateDer<'_>], now: UnixTime) -> i64 {
    let expiries = chain.iter().filter_map(|certificate| names::expiry(certificate).ok());
    expiries.filter(|expiry| *expiry >= seconds(now)).min().unwrap_or(i64::MAX)
}

fn seconds(time: UnixTime) -> i64 {
    i64::try_from(time.as_secs()).unwrap_or(i64::MAX)
}
