//! The certificate that a client has shown: believed for as long as a new handshake would believe it.

use std::sync::{Arc, Mutex, PoisonError};

use rustls::CertificateError;
use rustls::pki_types::{CertificateDer, UnixTime};

use super::names;
use super::server::ServerTls;

/// A client's certificate with its chain, believed when the handshake was done.
#[derive(Debug)]
pub struct ClientCertificate {
    names: Arc<[String]>,
    /// As the client sent it, the leaf first.
    chain: Vec<CertificateDer<'static>>,
    tls: ServerTls,
    checked: Mutex<Checked>,
}

/// Why a certificate is not believed any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Distrust {
    /// Its time, or that of an authority between it and the root, is over.
    Expired,
    /// No authority of those that are believed now has signed it.
    Untrusted,
}

/// What the last check came to, and when it has to be done again.
#[derive(Clone, Copy, Debug)]
struct Checked {
    /// Which reading of the files it was done with.
    generation: u64,
    /// The last second at which nothing of the chain has ended since.
    until: i64,
    result: Result<(), Distrust>,
}

impl ClientCertificate {
    /// A chain that the files of this reading have just been found to believe.
    pub(super) fn new(
        chain: &[CertificateDer<'_>],
        tls: &ServerTls,
        generation: u64,
    ) -> Option<Self> {
        let names = names::client_names(chain.first()?).into();
        let chain: Vec<_> = chain.iter().map(|each| each.clone().into_owned()).collect();
        let until = next_end(&chain, UnixTime::now());
        let checked = Mutex::new(Checked { generation, until, result: Ok(()) });
        Some(Self { names, chain, tls: tls.clone(), checked })
    }

    /// The names in it.
    #[must_use]
    pub fn names(&self) -> &Arc<[String]> {
        &self.names
    }

    /// Whether a new handshake would believe it now. It is verified again only after the files were read again, or when a
    /// certificate of its chain has ended.
    ///
    /// # Errors
    /// `Distrust` says why not.
    pub fn check(&self) -> Result<(), Distrust> {
        self.check_at(UnixTime::now())
    }

    pub(super) fn check_at(&self, now: UnixTime) -> Result<(), Distrust> {
        let current = self.tls.loaded();
        let mut checked = self.checked.lock().unwrap_or_else(PoisonError::into_inner);
        if checked.generation != current.generation || seconds(now) > checked.until {
            let verified = match (&current.client_verifier, self.chain.split_first()) {
                (Some(verifier), Some((leaf, above))) => {
                    verifier.verify_client_cert(leaf, above, now).map(drop).map_err(|e| why(&e))
                }
                // Client certificates are off: there is no CA to verify against.
                _ => Err(Distrust::Untrusted),
            };
            *checked = Checked {
                generation: current.generation,
                until: next_end(&self.chain, now),
                result: verified,
            };
        }
        checked.result
    }
}

fn why(error: &rustls::Error) -> Distrust {
    match error {
        rustls::Error::InvalidCertificate(
            CertificateError::Expired | CertificateError::ExpiredContext { .. },
        ) => Distrust::Expired,
        _ => Distrust::Untrusted,
    }
}

/// The next end of a certificate. Clients may send some that their chain does not need: whether one that ended matters is
/// for the verifier to say.
fn next_end(chain: &[CertificateDer<'_>], now: UnixTime) -> i64 {
    let ends = chain.iter().filter_map(|certificate| names::expiry(certificate).ok());
    ends.filter(|end| *end >= seconds(now)).min().unwrap_or(i64::MAX)
}

fn seconds(time: UnixTime) -> i64 {
    i64::try_from(time.as_secs()).unwrap_or(i64::MAX)
}
