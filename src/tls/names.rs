//! Reads the names and the expiry of certificates.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use rustls::pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;

use crate::config::auth::san;

use super::{TlsError, TlsErrorKind};

/// The maximum number of names that are read from a client's certificate. The client controls how
/// many names its certificate contains.
const CLIENT_NAMES_MAX: usize = 64;

/// The error for a certificate that cannot be parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an X.509 certificate")]
pub(super) struct NotX509;

fn parse<'a>(certificate: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, NotX509> {
    X509Certificate::from_der(certificate).map(|(_, parsed)| parsed).map_err(|_| NotX509)
}

/// Returns the time at which the certificate expires, in seconds since 1970.
pub(super) fn expiry(certificate: &CertificateDer<'_>) -> Result<i64, NotX509> {
    Ok(parse(certificate)?.validity().not_after.timestamp())
}

/// Returns the length in bits of a certificate's RSA key, or `None` if the key has another type.
pub(super) fn rsa_bits(certificate: &CertificateDer<'static>) -> Option<usize> {
    match parse(certificate).ok()?.public_key().parsed() {
        Ok(PublicKey::RSA(key)) => Some(key.key_size()),
        _ => None,
    }
}

pub(super) fn check_not_expired(
    certificate: &CertificateDer<'_>,
    file: &Path,
) -> Result<(), TlsError> {
    let parsed = parse(certificate)
        .map_err(|error| TlsError::caused_by(file, TlsErrorKind::BadCertificate, error))?;
    let end = parsed.validity().not_after;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    if end.timestamp() < i64::try_from(now).unwrap_or(i64::MAX) {
        return Err(TlsError::new(file, TlsErrorKind::Expired(end.to_string())));
    }
    Ok(())
}

/// Returns the DNS names of a certificate in lower case. They are used to select the server
/// certificate.
pub(super) fn dns_names(certificate: &CertificateDer<'_>) -> Vec<String> {
    alternative_names(certificate, usize::MAX, |name| match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        _ => None,
    })
}

/// Returns the names that a client's certificate proves: its URIs, DNS names and e-mail addresses,
/// each prefixed with its kind. The subject's CN proves nothing, because CAs are not required to
/// validate it.
///
/// Names of different kinds are never equal. An authority that is constrained to the DNS names of
/// one domain can still put any URI into a certificate.
pub(super) fn client_names(certificate: &CertificateDer<'_>) -> Vec<String> {
    alternative_names(certificate, CLIENT_NAMES_MAX, |name| match name {
        GeneralName::URI(name) => san::canonical(san::SanKind::Uri, name),
        GeneralName::DNSName(name) => san::canonical(san::SanKind::Dns, name),
        GeneralName::RFC822Name(name) => san::canonical(san::SanKind::Email, name),
        _ => None,
    })
}

fn alternative_names(
    certificate: &CertificateDer<'_>,
    names_max: usize,
    pick: impl Fn(&GeneralName<'_>) -> Option<String>,
) -> Vec<String> {
    let Ok(parsed) = parse(certificate) else { return Vec::new() };
    match parsed.subject_alternative_name() {
        Ok(Some(extension)) => {
            extension.value.general_names.iter().filter_map(pick).take(names_max).collect()
        }
        _ => Vec::new(),
    }
}
