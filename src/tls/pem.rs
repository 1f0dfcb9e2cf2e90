//! Reads PEM files of limited size.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use crate::config::tls::CertificateFiles;

use super::{TlsError, TlsErrorKind, names, provider};

/// The maximum size of a file in bytes. A bundle of all public CAs is a quarter of this size.
pub(super) const FILE_BYTES_MAX: u64 = 1024 * 1024;

fn read(file: &Path) -> Result<Vec<u8>, TlsError> {
    let unreadable = |error| TlsError::caused_by(file, TlsErrorKind::Unreadable, error);
    let mut bytes = Vec::new();
    let opened = File::open(file).map_err(unreadable)?;
    opened.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(TlsError::new(file, TlsErrorKind::TooLarge));
    }
    Ok(bytes)
}

/// Reads the certificates of a file, in order. There must be at least one.
pub(super) fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&read(file)?)
        .collect::<Result<_, _>>()
        // The parser's error may quote a line, which would log a key placed in the wrong file.
        .map_err(|_| TlsError::new(file, TlsErrorKind::NoCertificate))?;
    if certificates.is_empty() {
        return Err(TlsError::new(file, TlsErrorKind::NoCertificate));
    }
    Ok(certificates)
}

fn key(file: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let bytes = read(file)?;
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|_| TlsError::new(file, TlsErrorKind::NoKey))
}

/// Reads a chain and its key, which must be valid and match. The leaf must not have expired.
pub(super) fn identity(files: &CertificateFiles) -> Result<Arc<CertifiedKey>, TlsError> {
    let chain = certificates(&files.certificate)?;
    for certificate in &chain {
        names::expiry(certificate)
            .map_err(|_| TlsError::new(&files.certificate, TlsErrorKind::BadCertificate))?;
    }
    if let Some(leaf) = chain.first() {
        names::check_not_expired(leaf, &files.certificate)?;
    }
    let certified =
        CertifiedKey::from_der(chain, key(&files.key)?, &provider()).map_err(|error| {
            let kind = match error {
                rustls::Error::InconsistentKeys(_) => {
                    TlsErrorKind::KeyMismatch { certificate: files.certificate.clone() }
                }
                rustls::Error::InvalidCertificate(_) => TlsErrorKind::BadCertificate,
                _ => TlsErrorKind::BadKey,
            };
            TlsError::caused_by(&files.key, kind, error)
        })?;
    Ok(Arc::new(certified))
}

/// Reads the CA certificates of a file. There must be at least one.
pub(super) fn roots(file: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(file)? {
        roots
            .add(certificate)
            .map_err(|error| TlsError::caused_by(file, TlsErrorKind::BadCertificate, error))?;
    }
    Ok(roots)
}
