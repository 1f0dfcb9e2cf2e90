//! Reads PEM files of limited size.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{InconsistentKeys, RootCertStore};

use crate::config::tls::CertificateFiles;

use super::{TlsError, TlsErrorKind, TlsErrors, names, provider};

/// The maximum size of a file in bytes. This is four times the size of a bundle of all public CAs.
pub(super) const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// The byte order mark of UTF-8, which Windows editors write. It is ignored.
const UTF8_MARK: &[u8] = b"\xef\xbb\xbf";
/// The byte order marks of UTF-16.
const UTF16_MARKS: [&[u8]; 2] = [b"\xff\xfe", b"\xfe\xff"];
/// The first byte of a DER certificate, a DER key or a PKCS #12 archive: the tag of a SEQUENCE.
const DER_SEQUENCE: u8 = 0x30;
/// The minimum length of an RSA key in bits.
const RSA_BITS_MIN: usize = 2048;

/// Reads a file of PEM text.
fn read(file: &Path) -> Result<Vec<u8>, TlsError> {
    let unreadable = |error| TlsError::caused_by(file, TlsErrorKind::Unreadable, error);
    let mut bytes = Vec::new();
    let opened = File::open(file).map_err(unreadable)?;
    opened.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(TlsError::new(file, TlsErrorKind::TooLarge));
    }
    if bytes.starts_with(UTF8_MARK) {
        bytes.drain(..UTF8_MARK.len());
    }
    let kind = match bytes.trim_ascii_start().first() {
        None => TlsErrorKind::Empty,
        Some(&DER_SEQUENCE) if !contains(&bytes, "-----BEGIN ") => TlsErrorKind::Binary,
        Some(_) if UTF16_MARKS.iter().any(|mark| bytes.starts_with(mark)) => TlsErrorKind::Utf16,
        Some(_) => return Ok(bytes),
    };
    Err(TlsError::new(file, kind))
}

fn contains(bytes: &[u8], text: &str) -> bool {
    memchr::memmem::find(bytes, text.as_bytes()).is_some()
}

/// Reads the certificates in a file, in order. There must be at least one.
pub(super) fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let bytes = read(file)?;
    // The parser's error may quote a line. If a key was placed in the wrong file, the line would
    // expose it in the log.
    let certificates: Vec<_> =
        CertificateDer::pem_slice_iter(&bytes).collect::<Result<_, _>>().unwrap_or_default();
    if certificates.is_empty() {
        let is_key = contains(&bytes, "PRIVATE KEY-----");
        let kind =
            if is_key { TlsErrorKind::KeyAsCertificate } else { TlsErrorKind::NoCertificate };
        return Err(TlsError::new(file, kind));
    }
    Ok(certificates)
}

fn key(file: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let bytes = read(file)?;
    // PKCS #8 encryption, and the older encryption of PKCS #1 and SEC1 keys (RFC 1421 §4.6.1.1).
    if contains(&bytes, "BEGIN ENCRYPTED PRIVATE KEY") || contains(&bytes, "Proc-Type: 4,ENCRYPTED")
    {
        return Err(TlsError::new(file, TlsErrorKind::EncryptedKey));
    }
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|_| {
        let is_certificate = contains(&bytes, "BEGIN CERTIFICATE-----");
        let kind =
            if is_certificate { TlsErrorKind::CertificateAsKey } else { TlsErrorKind::NoKey };
        TlsError::new(file, kind)
    })
}

/// Reads a certificate chain and its key. Both must be valid and match each other, and the leaf
/// must not have expired.
///
/// # Errors
/// Returns all errors in both files.
pub(super) fn identity(files: &CertificateFiles) -> Result<Arc<CertifiedKey>, TlsErrors> {
    let mut errors = TlsErrors::default();
    let chain = errors.add(valid_chain(&files.certificate));
    let key = errors.add(key(&files.key));
    let (Some(chain), Some(key)) = (chain, key) else { return Err(errors) };
    let key = provider().key_provider.load_private_key(key).map_err(|error| {
        let bits = chain.first().and_then(names::rsa_bits).filter(|bits| *bits < RSA_BITS_MIN);
        let kind = bits.map_or(TlsErrorKind::BadKey, |bits| TlsErrorKind::ShortKey { bits });
        TlsError::caused_by(&files.key, kind, error)
    })?;
    let certified = CertifiedKey::new(chain, key);
    match certified.keys_match() {
        // `Unknown` means that the keys could not be compared. It does not mean that they differ.
        Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => {
            Ok(Arc::new(certified))
        }
        Err(rustls::Error::InconsistentKeys(_)) => Err(mismatch(files, &certified).into()),
        Err(error) => {
            let kind = TlsErrorKind::BadCertificate;
            Err(TlsError::caused_by(&files.certificate, kind, error).into())
        }
    }
}

/// Returns the error for a key that does not belong to the first certificate.
fn mismatch(files: &CertificateFiles, certified: &CertifiedKey) -> TlsError {
    let is_own = |certificate: &CertificateDer<'static>| {
        let alone = vec![certificate.clone()];
        CertifiedKey::new(alone, Arc::clone(&certified.key)).keys_match().is_ok()
    };
    let certificate = files.certificate.clone();
    match certified.cert.iter().position(is_own) {
        Some(index) => {
            TlsError::new(&certificate, TlsErrorKind::LeafNotFirst { number: index + 1 })
        }
        None => TlsError::new(&files.key, TlsErrorKind::KeyMismatch { certificate }),
    }
}

/// Reads a chain of X.509 certificates. The first one must not have expired.
fn valid_chain(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let chain = certificates(file)?;
    if chain.iter().any(|certificate| names::expiry(certificate).is_err()) {
        return Err(TlsError::new(file, TlsErrorKind::BadCertificate));
    }
    if let Some(leaf) = chain.first() {
        names::check_not_expired(leaf, file)?;
    }
    Ok(chain)
}

/// Reads the CA certificates in a file. There must be at least one.
pub(super) fn roots(file: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(file)? {
        roots
            .add(certificate)
            .map_err(|error| TlsError::caused_by(file, TlsErrorKind::BadCertificate, error))?;
    }
    Ok(roots)
}
