//! A throw-away certificate authority that issues valid and invalid certificates.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use chrono::Datelike;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, date_time_ymd,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// A certificate authority that writes certificates as PEM files into one directory.
#[derive(Debug)]
pub(crate) struct Certs {
    directory: PathBuf,
    issuer: Issuer<'static, KeyPair>,
    /// The authority's own certificate.
    pub(crate) ca: PathBuf,
    /// The certificate of servers on 127.0.0.1, `::1` and localhost.
    pub(crate) server: PemFiles,
    /// The certificate of a client named `fjord-test`.
    pub(crate) client: PemFiles,
}

/// The PEM files of a certificate and its private key.
#[derive(Clone, Debug)]
pub(crate) struct PemFiles {
    pub(crate) certificate: PathBuf,
    /// The private key (PKCS #8).
    pub(crate) key: PathBuf,
}

/// The contents of a leaf certificate.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Leaf<'a> {
    pub(crate) dns: &'a [&'a str],
    pub(crate) addresses: &'a [&'a str],
    /// URIs, as in a workload identity.
    pub(crate) uris: &'a [&'a str],
    pub(crate) is_expired: bool,
    /// The remaining lifetime of a certificate that expires during a test.
    pub(crate) lifetime: Option<Duration>,
}

impl Leaf<'static> {
    /// A valid certificate for this machine.
    pub(crate) const LOCAL: Self = Self {
        dns: &["localhost"],
        addresses: &["127.0.0.1", "::1"],
        uris: &[],
        is_expired: false,
        lifetime: None,
    };
    /// An expired certificate for this machine.
    pub(crate) const EXPIRED: Self = Self { is_expired: true, ..Self::LOCAL };
    /// A certificate for another machine.
    pub(crate) const ELSEWHERE: Self =
        Self { dns: &["elsewhere.example"], addresses: &["192.0.2.1"], ..Self::LOCAL };
}

impl Certs {
    /// Creates an authority and the directory for its files.
    pub(crate) fn new(directory: &Path) -> Self {
        fs::create_dir_all(directory).expect("the directory can be created");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, "fjord throwaway authority");
        set_validity(&mut params, false);
        let key = KeyPair::generate().expect("the key can be generated");
        let certificate = params.self_signed(&key).expect("the CA certificate can be signed");
        let ca = directory.join("ca.pem");
        fs::write(&ca, certificate.pem()).expect("the file can be written");
        let issuer = Issuer::new(params, key);
        let server = sign(&issuer, directory, "server", Leaf::LOCAL);
        let client = Leaf { dns: &["fjord-test"], addresses: &[], ..Leaf::LOCAL };
        let client = sign(&issuer, directory, "client", client);
        Self { directory: directory.to_owned(), issuer, ca, server, client }
    }

    /// Returns the TLS configuration of a server that is not fjord.
    pub(crate) fn server_tls(
        &self,
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> rustls::ServerConfig {
        let chain = CertificateDer::pem_file_iter(&self.server.certificate).expect("a file");
        let chain = chain.collect::<Result<Vec<_>, _>>().expect("the file contains certificates");
        let key = PrivateKeyDer::from_pem_file(&self.server.key).expect("the key can be generated");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .expect("the TLS versions are supported")
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .expect("the key belongs to the certificate")
    }

    /// Issues a certificate into `<name>.pem` and `<name>.key`, replacing existing files.
    pub(crate) fn issue(&self, name: &str, leaf: Leaf<'_>) -> PemFiles {
        sign(&self.issuer, &self.directory, name, leaf)
    }
}

fn sign(issuer: &Issuer<'_, KeyPair>, directory: &Path, name: &str, leaf: Leaf<'_>) -> PemFiles {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    for dns in leaf.dns {
        params
            .subject_alt_names
            .push(SanType::DnsName((*dns).try_into().expect("the name is ASCII")));
    }
    for address in leaf.addresses {
        params.subject_alt_names.push(SanType::IpAddress(address.parse().expect("an IP address")));
    }
    for uri in leaf.uris {
        params.subject_alt_names.push(SanType::URI((*uri).try_into().expect("the name is ASCII")));
    }
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    // NATS servers in a cluster use the same certificate both as a server and as a client.
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    set_validity(&mut params, leaf.is_expired);
    if let Some(lifetime) = leaf.lifetime {
        let now = u64::try_from(chrono::Utc::now().timestamp())
            .expect("the clock is set to a time after 1970");
        params.not_after = date_time_ymd(1970, 1, 1) + Duration::from_secs(now) + lifetime;
    }
    let key = KeyPair::generate().expect("the key can be generated");
    let certificate = params.signed_by(&key, issuer).expect("the certificate can be signed");
    let files = PemFiles {
        certificate: directory.join(format!("{name}.pem")),
        key: directory.join(format!("{name}.key")),
    };
    fs::write(&files.certificate, certificate.pem()).expect("the file can be written");
    fs::write(&files.key, key.serialize_pem()).expect("the file can be written");
    fs::set_permissions(&files.key, Permissions::from_mode(0o600))
        .expect("the permissions of the key file can be changed");
    files
}

fn set_validity(params: &mut CertificateParams, is_expired: bool) {
    let year = chrono::Utc::now().year();
    let (from, to) = if is_expired { (year - 3, year - 1) } else { (year - 1, year + 2) };
    params.not_before = date_time_ymd(from, 1, 1);
    params.not_after = date_time_ymd(to, 1, 1);
}
