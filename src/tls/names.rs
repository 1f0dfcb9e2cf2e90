//! What a certificate says of itself: its names and its end.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use rustls::pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

use crate::config::auth::san;

use super::{TlsError, TlsErrorKind};

/// Most names of a client certificate that are looked at.
const NAMES_MAX: usize = 64;

/// The certificate cannot be understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an X.509 certificate")]
pub(super) struct NotX509;

fn parse<'a>(certificate: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, NotX509> {
    X509Certificate::from_der(certificate).map(|(_, parsed)| parsed).map_err(|_| NotX509)
}

/// When the certificate ends, in seconds since 1970.
pub(super) fn expiry(certificate: &CertificateDer<'_>) -> Result<i64, NotX509> {
    Ok(parse(certificate)?.validity().not_after.timestamp())
}

/// Refuses a certificate that has ended.
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

/// The DNS names of a certificate, in lower case: what it is chosen by.
pub(super) fn dns_names(certificate: &CertificateDer<'_>) -> Vec<String> {
    alternative_names(certificate, |name| match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        _ => None,
    })
}

/// The names that a client's certificate proves: SAN URI, DNS and e-mail, each with its kind. The subject's CN proves
/// nothing: no CA is bound to what is in there.
///
/// Kinds never mix: an authority that may issue for the DNS names of one domain only may still put any URI into a certificate.
pub(super) fn client_names(certificate: &CertificateDer<'_>) -> Vec<String> {
    alternative_names(certificate, |name| match name {
        GeneralName::URI(name) => san::parse(san::Kind::Uri, name),
        GeneralName::DNSName(name) => san::parse(san::Kind::Dns, name),
        GeneralName::RFC822Name(name) => san::parse(san::Kind::Email, name),
        _ => None,
    })
}

fn alternative_names(
    certificate: &CertificateDer<'_>,
    pick: impl Fn(&GeneralName<'_>) -> Option<String>,
) -> Vec<String> {
    let Ok(parsed) = parse(certificate) else { return Vec::new() };
    match parsed.subject_alternative_name() {
        Ok(Some(extension)) => {
            extension.value.general_names.iter().filter_map(pick).take(NAMES_MAX).collect()
        }
        _ => Vec::new(),
    }
}
