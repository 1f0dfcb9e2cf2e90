//! Tests handshakes between fjord's client and server configurations, with generated certificates.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, GeneralSubtree, IsCa, KeyPair,
    NameConstraints, SanType, date_time_ymd,
};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, version};
use tempfile::TempDir;
use tokio::io::DuplexStream;
use tokio_rustls::TlsConnector;

use super::*;
use crate::config::tls::{CertificateFiles, ClientAuth, ClientTlsConfig, ServerTlsConfig};
use crate::lifecycle::Cancel;

mod client_certificate;

const SECOND: Duration = Duration::from_secs(1);

/// A CA and a directory for the certificates that it signs.
struct TestCa {
    directory: TempDir,
    ca: CertifiedIssuer<'static, KeyPair>,
}

impl TestCa {
    fn new() -> Self {
        Self::with_constraints(None)
    }

    fn with_constraints(name_constraints: Option<NameConstraints>) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.name_constraints = name_constraints;
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let test_ca = Self { directory: TempDir::new().unwrap(), ca };
        fs::write(test_ca.path("ca.pem"), test_ca.ca.pem()).unwrap();
        test_ca
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn files(&self, name: &str) -> CertificateFiles {
        CertificateFiles {
            certificate: self.path(&format!("{name}.pem")),
            key: self.path(&format!("{name}.key")),
        }
    }

    /// Writes `<name>.pem` and `<name>.key`.
    fn certificate(&self, name: &str, names: &[&str]) -> CertificateFiles {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        self.write(name, &CertificateParams::new(names).unwrap())
    }

    fn write(&self, name: &str, params: &CertificateParams) -> CertificateFiles {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.ca).unwrap();
        let files = self.files(name);
        fs::write(&files.certificate, certificate.pem()).unwrap();
        fs::write(&files.key, key.serialize_pem()).unwrap();
        files
    }

    fn expired(&self, name: &str) -> CertificateFiles {
        let mut params = CertificateParams::new(vec!["a.test".to_owned()]).unwrap();
        params.not_before = date_time_ymd(2001, 1, 1);
        params.not_after = date_time_ymd(2002, 1, 1);
        self.write(name, &params)
    }

    fn client(&self, identity: Option<CertificateFiles>) -> ClientConfig {
        client_config(&ClientTlsConfig { ca: Some(self.path("ca.pem")), identity }).unwrap()
    }

    /// Creates a client configuration for a single TLS version.
    fn client_of(&self, version: &'static rustls::SupportedProtocolVersion) -> ClientConfig {
        ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(pem::roots(&self.path("ca.pem")).unwrap())
            .with_no_client_auth()
    }
}

fn server(certificates: Vec<CertificateFiles>) -> ServerTlsConfig {
    ServerTlsConfig {
        certificates,
        client_auth: ClientAuth::Off,
        tls12: true,
        handshake_timeout: SECOND,
    }
}

struct Handshake {
    server: io::Result<AcceptedTls<DuplexStream>>,
    client: io::Result<tokio_rustls::client::TlsStream<DuplexStream>>,
}

async fn connect(server: &ServerTls, client: ClientConfig, name: &str) -> Handshake {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let connector = TlsConnector::from(Arc::new(client));
    let (server, client) = tokio::join!(server.accept(near), connector.connect(name, far));
    Handshake { server, client }
}

impl Handshake {
    /// Returns the DNS names of the certificate that the server sent.
    fn server_names(&self) -> Vec<String> {
        let (_, session) = self.client.as_ref().unwrap().get_ref();
        names::dns_names(&session.peer_certificates().unwrap()[0])
    }
}

#[tokio::test]
async fn tls_1_3_is_always_supported_and_1_2_only_if_allowed() {
    let test_ca = TestCa::new();
    let config = server(vec![test_ca.certificate("a", &["a.test"])]);
    for (tls12, version, is_spoken) in [
        (true, &version::TLS12, true),
        (true, &version::TLS13, true),
        (false, &version::TLS12, false),
        (false, &version::TLS13, true),
    ] {
        let tls = ServerTls::load(&ServerTlsConfig { tls12, ..config.clone() }).unwrap();
        let handshake = connect(&tls, test_ca.client_of(version), "a.test").await;
        assert_eq!(handshake.client.is_ok(), is_spoken, "tls12 = {tls12}, {version:?}");
    }
}

#[tokio::test]
async fn a_certificate_is_selected_by_server_name() {
    let test_ca = TestCa::new();
    let tls = ServerTls::load(&server(vec![
        test_ca.certificate("a", &["a.test", "other.test"]),
        test_ca.certificate("b", &["B.test"]),
        test_ca.certificate("w", &["*.w.test"]),
    ]))
    .unwrap();
    for (name, expected) in [
        ("a.test", "a.test"),
        ("b.TEST", "b.test"),
        ("x.w.test", "*.w.test"),
        ("other.test", "a.test"),
    ] {
        let handshake = connect(&tls, test_ca.client(None), name).await;
        assert_eq!(handshake.server_names()[0], expected, "{name}");
    }
    let many: Vec<String> = (0..100).map(|number| format!("n{number}.test")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let certificates = vec![test_ca.certificate("a", &["a.test"]), test_ca.certificate("m", &many)];
    let with_many = ServerTls::load(&server(certificates)).unwrap();
    let last = connect(&with_many, test_ca.client(None), "n99.test").await;
    assert_eq!(last.server_names(), many);
    let unknown = connect(&tls, test_ca.client(None), "unknown.test").await;
    let refusal = format!("{:?}", unknown.client.unwrap_err());
    assert!(refusal.contains("a.test"), "the first certificate is still used: {refusal}");
}

#[tokio::test]
async fn http2_is_negotiated_if_the_client_offers_it() {
    let test_ca = TestCa::new();
    let tls = ServerTls::load(&server(vec![test_ca.certificate("a", &["a.test"])])).unwrap();
    for (offered, is_http2) in
        [(vec!["h2", "http/1.1"], true), (vec!["http/1.1"], false), (vec![], false)]
    {
        let mut client = test_ca.client(None);
        client.alpn_protocols = offered.iter().map(|name| name.as_bytes().to_vec()).collect();
        let handshake = connect(&tls, client, "a.test").await;
        assert_eq!(handshake.server.unwrap().is_http2, is_http2, "{offered:?}");
    }
    let mut client = test_ca.client(None);
    client.alpn_protocols = vec![b"spdy/3".to_vec()];
    assert!(connect(&tls, client, "a.test").await.server.is_err());
}

#[tokio::test]
async fn client_certificates_are_off_optional_or_required() {
    let (test_ca, stranger) = (TestCa::new(), TestCa::new());
    let ours = server(vec![test_ca.certificate("a", &["a.test"])]);
    let ca = test_ca.path("ca.pem");
    let mut params = CertificateParams::new(vec!["client.test".to_owned()]).unwrap();
    params.subject_alt_names.push(SanType::URI("spiffe://fjord/client".try_into().unwrap()));
    params.subject_alt_names.push(SanType::Rfc822Name("it@client.test".try_into().unwrap()));
    let known = test_ca.write("client", &params);
    let unknown = stranger.certificate("client", &["client.test"]);
    let all = ["dns:client.test", "uri:spiffe://fjord/client", "email:it@client.test"];
    let (optional, required) =
        (ClientAuth::Optional { ca: ca.clone() }, ClientAuth::Required { ca });

    for (wanted, identity, names) in [
        (ClientAuth::Off, None, Some(&[][..])),
        (ClientAuth::Off, Some(&known), Some(&[][..])),
        (optional.clone(), None, Some(&[][..])),
        (optional.clone(), Some(&known), Some(&all[..])),
        (optional, Some(&unknown), None),
        (required.clone(), None, None),
        (required.clone(), Some(&known), Some(&all[..])),
        (required, Some(&unknown), None),
    ] {
        let case = format!("{wanted:?} {identity:?}");
        let config = ServerTlsConfig { client_auth: wanted, ..ours.clone() };
        let tls = ServerTls::load(&config).unwrap();
        let handshake = connect(&tls, test_ca.client(identity.cloned()), "a.test").await;
        let seen = handshake.server.ok().map(|accepted| {
            accepted.certificate.map(|shown| shown.names().to_vec()).unwrap_or_default()
        });
        let expected = names.map(|names| names.iter().map(ToString::to_string).collect());
        assert_eq!(seen, expected, "{case}");
    }
}

#[tokio::test]
async fn name_constraints_of_one_kind_do_not_permit_names_of_another() {
    let constraints = NameConstraints {
        permitted_subtrees: vec![GeneralSubtree::DnsName("partner.example".to_owned())],
        excluded_subtrees: Vec::new(),
    };
    let (test_ca, partner) = (TestCa::new(), TestCa::with_constraints(Some(constraints)));
    let ours = server(vec![test_ca.certificate("a", &["a.test"])]);
    let client_auth = ClientAuth::Required { ca: partner.path("ca.pem") };
    let tls = ServerTls::load(&ServerTlsConfig { client_auth, ..ours }).unwrap();
    let uri = |text: &str| vec![SanType::URI(text.try_into().unwrap())];
    let dns = |text: &str| vec![SanType::DnsName(text.try_into().unwrap())];
    for (names, expected) in [
        (dns("shop.partner.example"), Some("dns:shop.partner.example")),
        (dns("clinic.example.com"), None),
        // Constraints on DNS names do not apply to URIs. The kind prefix distinguishes the two.
        (uri("clinic.example.com"), Some("uri:clinic.example.com")),
    ] {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.subject_alt_names = names;
        let identity = partner.write("client", &params);
        let handshake = connect(&tls, test_ca.client(Some(identity)), "a.test").await;
        let seen = handshake.server.ok().and_then(|accepted| accepted.certificate);
        let seen = seen.map(|certificate| certificate.names().join(","));
        assert_eq!(seen.as_deref(), expected);
    }
}

#[tokio::test]
async fn an_invalid_new_file_keeps_the_old_one() {
    let test_ca = TestCa::new();
    let files = test_ca.certificate("a", &["a.test", "old.test"]);
    let tls = ServerTls::load(&server(vec![files.clone()])).unwrap();
    let good_key = fs::read(&files.key).unwrap();

    let other = test_ca.certificate("other", &["a.test"]);
    let expired = test_ca.expired("expired");
    for (what, certificate, key) in [
        ("a key of another certificate", files.certificate.clone(), other.key),
        ("no key", files.certificate.clone(), files.certificate.clone()),
        ("an expired certificate", expired.certificate, expired.key),
        ("no certificate", files.key.clone(), files.key.clone()),
    ] {
        let before = fs::read(&files.certificate).unwrap();
        let (new_certificate, new_key) = (fs::read(certificate).unwrap(), fs::read(key).unwrap());
        fs::write(&files.certificate, new_certificate).unwrap();
        fs::write(&files.key, new_key).unwrap();
        assert!(!tls.reload(None), "{what} was taken");
        let handshake = connect(&tls, test_ca.client(None), "a.test").await;
        assert_eq!(handshake.server_names(), ["a.test", "old.test"], "{what}");
        fs::write(&files.certificate, before).unwrap();
        fs::write(&files.key, &good_key).unwrap();
    }

    test_ca.certificate("a", &["a.test", "new.test"]);
    assert!(tls.reload(None));
    let handshake = connect(&tls, test_ca.client(None), "a.test").await;
    assert_eq!(handshake.server_names(), ["a.test", "new.test"]);
}

#[tokio::test]
async fn changed_files_are_reloaded() {
    let test_ca = TestCa::new();
    let files = test_ca.certificate("a", &["a.test", "old.test"]);
    let tls = ServerTls::load(&server(vec![files])).unwrap();
    let before = tls.current();
    let stop = Cancel::new();
    // This change happens before the watch starts.
    test_ca.certificate("a", &["a.test", "new.test"]);
    let noticed = async {
        let mut ticks = tokio::time::interval(Duration::from_millis(2));
        while Arc::ptr_eq(&tls.current(), &before) {
            ticks.tick().await;
        }
        stop.cancel();
    };
    let watching = tls.clone().watch(Duration::from_millis(5), stop.clone());
    let both = async { tokio::join!(watching, noticed) };
    tokio::time::timeout(10 * SECOND, both).await.expect("the change is noticed in time");
    let handshake = connect(&tls, test_ca.client(None), "a.test").await;
    assert_eq!(handshake.server_names(), ["a.test", "new.test"]);
}

#[tokio::test]
async fn a_session_is_resumed_unless_clients_send_certificates() {
    let test_ca = TestCa::new();
    let off = server(vec![test_ca.certificate("a", &["a.test"])]);
    let required = ServerTlsConfig {
        client_auth: ClientAuth::Required { ca: test_ca.path("ca.pem") },
        ..off.clone()
    };
    let identity = test_ca.certificate("client", &["client.test"]);
    for (config, is_resumed) in [(off, true), (required, false)] {
        let tls = ServerTls::load(&config).unwrap();
        let client = test_ca.client(Some(identity.clone()));
        let mut kinds = Vec::new();
        for _ in 0..2 {
            let handshake = connect(&tls, client.clone(), "a.test").await;
            kinds.push(exchange(handshake).await);
        }
        let expected = rustls::HandshakeKind::Resumed;
        assert_eq!(kinds[1] == expected, is_resumed, "{:?} {kinds:?}", config.client_auth);
    }
}

/// Sends a byte to the client. The client reads the session tickets before this byte.
async fn exchange(handshake: Handshake) -> rustls::HandshakeKind {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let (mut server, mut client) = (handshake.server.unwrap().stream, handshake.client.unwrap());
    server.write_all(b"x").await.unwrap();
    server.flush().await.unwrap();
    client.read_u8().await.unwrap();
    client.get_ref().1.handshake_kind().unwrap()
}

#[test]
fn an_error_names_the_file_but_never_its_contents() {
    let test_ca = TestCa::new();
    let good = test_ca.certificate("good", &["a.test"]);
    let other = test_ca.certificate("other", &["a.test"]);
    let expired = test_ca.expired("expired");
    let garbled = test_ca.path("garbled.pem");
    fs::write(&garbled, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
    let secret = test_ca.path("secret.pem");
    fs::write(&secret, "-----BEGIN PRIVATE KEY\nsquirrel\n").unwrap();
    let missing = test_ca.path("missing.pem");
    let pair = |certificate: &PathBuf, key: &PathBuf| {
        server(vec![CertificateFiles { certificate: certificate.clone(), key: key.clone() }])
    };
    for (config, file, words) in [
        (pair(&missing, &good.key), "missing.pem", "cannot be read"),
        (
            pair(&good.key, &good.key),
            "good.key",
            "found a private key: are the certificate and the key swapped?",
        ),
        (pair(&garbled, &good.key), "garbled.pem", "expected X.509 certificates"),
        (
            pair(&good.certificate, &good.certificate),
            "good.pem",
            "found a certificate: are the certificate and the key swapped?",
        ),
        (pair(&good.certificate, &secret), "secret.pem", "expected one PEM private key"),
        (pair(&secret, &good.key), "secret.pem", "expected PEM certificates"),
        (pair(&good.certificate, &other.key), "other.key", "does not belong to the certificate"),
        (
            pair(&expired.certificate, &expired.key),
            "expired.pem",
            "expired on Jan  1 00:00:00 2002",
        ),
        (server(Vec::new()), "gateway.tls.certificates", "expected at least one certificate"),
    ] {
        let error = ServerTls::load(&config).unwrap_err();
        let text = error.to_string();
        assert!(text.contains(file) && text.contains(words), "{text}: lacks {file} or {words}");
        let all = format!("{error:?}");
        assert!(!all.contains("squirrel") && !all.contains("115, 113, 117"), "{all}");
    }
}

#[test]
fn a_client_needs_a_readable_ca() {
    let test_ca = TestCa::new();
    let missing = test_ca.path("missing.pem");
    let config = ClientTlsConfig { ca: Some(missing.clone()), identity: None };
    let TlsErrors(errors) = client_config(&config).unwrap_err();
    let [error] = &errors[..] else { panic!("{errors:?}") };
    assert_eq!((&error.file, &error.kind), (&missing, &TlsErrorKind::Unreadable));
}
