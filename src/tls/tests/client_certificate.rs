//! Tests client certificates after the handshake.

use rustls::pki_types::UnixTime;

use super::*;

const HOUR: Duration = Duration::from_hours(1);

fn optional(ca: &TestCa) -> ClientAuth {
    ClientAuth::Optional { ca: ca.path("ca.pem") }
}

/// Returns a server and the certificate of a client that has connected to it.
async fn connected(
    test_ca: &TestCa,
    identity: CertificateFiles,
    client_auth: ClientAuth,
) -> (ServerTls, ClientCertificate) {
    let ours = server(vec![test_ca.certificate("a", &["a.test"])]);
    let tls = ServerTls::load(&ServerTlsConfig { client_auth, ..ours }).unwrap();
    let handshake = connect(&tls, test_ca.client(Some(identity)), "a.test").await;
    let certificate = handshake.server.unwrap().certificate.unwrap();
    assert_eq!(certificate.check(), Ok(()));
    (tls, certificate)
}

/// Returns the time that is `time` after now.
fn later(time: Duration) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(UnixTime::now().as_secs()) + time)
}

#[tokio::test]
async fn a_certificate_is_accepted_as_long_as_its_authority_is() {
    let (test_ca, other) = (TestCa::new(), TestCa::new());
    let identity = test_ca.certificate("client", &["client.test"]);
    let (tls, certificate) = connected(&test_ca, identity, optional(&test_ca)).await;
    assert!(tls.reload(None));
    assert_eq!(certificate.check(), Ok(()), "the same files");

    let ca = fs::read(test_ca.path("ca.pem")).unwrap();
    fs::write(test_ca.path("ca.pem"), other.ca.pem()).unwrap();
    assert_eq!(certificate.check(), Ok(()), "the files were not read again yet");
    assert!(tls.reload(None));
    for _ in 0..2 {
        assert_eq!(
            certificate.check(),
            Err(ClientCertificateError::Untrusted),
            "another authority"
        );
    }
    fs::write(test_ca.path("ca.pem"), "rubbish").unwrap();
    assert!(!tls.reload(None));
    assert_eq!(
        certificate.check(),
        Err(ClientCertificateError::Untrusted),
        "invalid files are not used"
    );
    fs::write(test_ca.path("ca.pem"), [other.ca.pem().as_bytes(), &ca].concat()).unwrap();
    assert!(tls.reload(None));
    assert_eq!(certificate.check(), Ok(()), "the old authority is back");

    for wanted in [ClientAuth::Off, optional(&other)] {
        let files = ServerTlsConfig { client_auth: wanted.clone(), ..tls.files() };
        assert!(tls.reload(Some(&files)));
        assert_eq!(certificate.check(), Err(ClientCertificateError::Untrusted), "{wanted:?}");
    }
}

#[tokio::test]
async fn a_certificate_expires_without_a_reload() {
    let test_ca = TestCa::new();
    let mut params = CertificateParams::new(vec!["client.test".to_owned()]).unwrap();
    params.not_after = date_time_ymd(1970, 1, 1) + Duration::from_secs(later(HOUR).as_secs());
    let identity = test_ca.write("client", &params);
    let (_tls, certificate) = connected(&test_ca, identity, optional(&test_ca)).await;
    for (time, expected) in [
        (HOUR / 2, Ok(())),
        (HOUR + SECOND, Err(ClientCertificateError::Expired)),
        (2 * HOUR, Err(ClientCertificateError::Expired)),
    ] {
        assert_eq!(certificate.check_at(later(time)), expected, "{time:?}");
    }
}

#[tokio::test]
async fn an_expired_issuer_matters_and_an_unrelated_certificate_does_not() {
    let test_ca = TestCa::new();
    let in_an_hour = date_time_ymd(1970, 1, 1) + Duration::from_secs(later(HOUR).as_secs());
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(rcgen::DnType::CommonName, "between");
    params.not_after = in_an_hour;
    let key = KeyPair::generate().unwrap();
    let intermediate = params.signed_by(&key, &test_ca.ca).unwrap().pem();
    let intermediate_issuer = rcgen::Issuer::new(params, key);

    let with_unrelated = test_ca.certificate("beside", &["client.test"]);
    let pem = fs::read_to_string(&with_unrelated.certificate).unwrap() + &intermediate;
    fs::write(&with_unrelated.certificate, pem).unwrap();
    let with_issuer = test_ca.files("below");
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["client.test".to_owned()]).unwrap();
    let leaf = params.signed_by(&key, &intermediate_issuer).unwrap().pem();
    fs::write(&with_issuer.certificate, leaf + &intermediate).unwrap();
    fs::write(&with_issuer.key, key.serialize_pem()).unwrap();

    for (identity, expected) in
        [(with_unrelated, Ok(())), (with_issuer, Err(ClientCertificateError::Expired))]
    {
        let case = format!("{identity:?}");
        let (_tls, certificate) = connected(&test_ca, identity, optional(&test_ca)).await;
        assert_eq!(certificate.check_at(later(HOUR / 2)), Ok(()), "{case}");
        assert_eq!(certificate.check_at(later(2 * HOUR)), expected, "{case}");
    }
}
