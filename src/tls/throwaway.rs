//! A throw-away certificate authority for `fjord dev`. The authority's own key is never written to a file.

use std::error::Error as StdError;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, date_time_ymd,
};

use crate::config::tls::CertificateFiles;
use crate::new_file;

/// The names for which the server certificate is valid.
const SERVER_NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];
/// The DNS name in the client certificate.
const CLIENT_NAME: &str = "fjord-dev";
/// How long the certificates are valid.
const LIFETIME: Duration = Duration::from_hours(24 * 90);
/// How far in the past the validity period begins. This is needed because the clocks of virtual machines can differ.
const BACKDATED: Duration = Duration::from_hours(24);

/// An error while creating certificates or writing their files.
#[derive(Debug, thiserror::Error)]
#[error("{}: cannot create throw-away certificates", directory.display())]
pub struct ThrowawayError {
    /// The directory that contains the files.
    pub directory: PathBuf,
    /// The cause.
    #[source]
    pub source: Box<dyn StdError + Send + Sync>,
}

/// The PEM files of an authority and of the two certificates that it issues.
#[derive(Clone, Debug)]
pub struct ThrowawayCertificates {
    /// The certificate of the authority.
    pub ca: PathBuf,
    /// The certificate of servers on localhost, with its key.
    pub server: CertificateFiles,
    /// The certificate of clients, with its key.
    pub client: CertificateFiles,
}

impl ThrowawayCertificates {
    /// Creates an authority, issues both certificates, and writes `ca.pem`, `server.pem`, `server.key`, `client.pem`
    /// and `client.key` to a directory. Only the owner can read the keys. An existing file is an error.
    ///
    /// # Errors
    /// Returns `ThrowawayError` if a key cannot be generated or a file cannot be created.
    pub fn create(directory: &Path) -> Result<Self, ThrowawayError> {
        let failed = |source| ThrowawayError { directory: directory.to_owned(), source };
        create(directory).map_err(failed)
    }
}

fn create(directory: &Path) -> Result<ThrowawayCertificates, Box<dyn StdError + Send + Sync>> {
    let mut params = parameters("fjord dev: throw-away authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    let ca = directory.join("ca.pem");
    new_file::create(&ca, &certificate.pem(), 0o644)?;
    let issuer = Issuer::new(params, key);
    let names = SERVER_NAMES.map(|name| match name.parse() {
        Ok(address) => Ok(SanType::IpAddress(address)),
        Err(_) => name.try_into().map(SanType::DnsName),
    });
    let names = names.into_iter().collect::<Result<Vec<_>, _>>()?;
    let server = issue(&issuer, directory, "server", names)?;
    let names = vec![SanType::DnsName(CLIENT_NAME.try_into()?)];
    let client = issue(&issuer, directory, "client", names)?;
    Ok(ThrowawayCertificates { ca, server, client })
}

/// Issues a certificate that servers and clients can use.
fn issue(
    issuer: &Issuer<'_, KeyPair>,
    directory: &Path,
    name: &str,
    names: Vec<SanType>,
) -> Result<CertificateFiles, Box<dyn StdError + Send + Sync>> {
    let mut params = parameters(name);
    params.subject_alt_names = names;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, issuer)?;
    let files = CertificateFiles {
        certificate: directory.join(format!("{name}.pem")),
        key: directory.join(format!("{name}.key")),
    };
    new_file::create(&files.certificate, &certificate.pem(), 0o644)?;
    new_file::create(&files.key, &key.serialize_pem(), new_file::PRIVATE)?;
    Ok(files)
}

fn parameters(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let epoch = date_time_ymd(1970, 1, 1);
    params.not_before = epoch + now.saturating_sub(BACKDATED);
    params.not_after = epoch + now + LIFETIME;
    params
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::tls::pem;

    #[test]
    fn the_files_are_valid_and_the_keys_are_private() {
        let directory = tempfile::tempdir().unwrap();
        let files = ThrowawayCertificates::create(directory.path()).unwrap();
        pem::roots(&files.ca).unwrap();
        for pair in [&files.server, &files.client] {
            pem::identity(pair).unwrap();
            let mode = std::fs::metadata(&pair.key).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{}", pair.key.display());
        }
        let error = ThrowawayCertificates::create(directory.path()).unwrap_err();
        assert!(error.to_string().contains("throw-away"), "{error}");
    }
}
