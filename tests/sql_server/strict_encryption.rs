//! Promise: with strict encryption, nothing is sent before TLS is established, and the server's
//! certificate is verified.

use std::sync::atomic::Ordering;

use fjord::config::procedures::MssqlEncryption;
use fjord::config::tls::ClientTlsConfig;
use fjord::procedures::{BackendErrorKind, OwnedCell};
use tds_protocol::prelogin::EncryptionLevel;

use super::{ProcedureCaller, int, text, unsent_error};
use crate::support::certs::Certs;
use crate::support::mssql_server::{SqlServer, fake_server};

/// Starts the fake server. It is configured for strict encryption, and its authority is in a file.
async fn strict_server(is_strict: bool) -> SqlServer {
    let mut server = fake_server().await;
    let fake = server.fake.as_ref().expect("the fake server");
    fake.state.is_strict.store(is_strict, Ordering::Release);
    let ca = Some(fake.ca.clone());
    server.config.encryption = MssqlEncryption::Strict(ClientTlsConfig { ca, identity: None });
    server
}

#[tokio::test]
async fn calls_are_made_over_strict_encryption() {
    let server = strict_server(true).await;
    // The server's setting for encryption inside TDS has no effect.
    for level in [EncryptionLevel::NotSupported, EncryptionLevel::On] {
        let state = &server.fake.as_ref().expect("the fake server").state;
        *state.encryption.lock().expect("not poisoned") = level;
        let caller = ProcedureCaller::new(&server);
        let long = "ä".repeat(100_000);
        let answer = caller.call("echo_nvarchar_max", &[text("v", &long)]).await.expect("a text");
        assert_eq!(*answer.cell(), OwnedCell::Text(long));
        for _ in 0..3 {
            let answer = caller.call("returns", &[int("status", 7)]).await.expect("a status");
            assert_eq!(answer.result.return_status, 7);
        }
    }
}

#[tokio::test]
async fn another_authority_is_refused() {
    let mut server = strict_server(true).await;
    let directory = tempfile::tempdir().expect("a directory");
    let ca = Some(Certs::new(directory.path()).ca.clone());
    server.config.encryption = MssqlEncryption::Strict(ClientTlsConfig { ca, identity: None });
    let error = unsent_error(ProcedureCaller::new(&server).call("nothing", &[]).await);
    assert_eq!(error, BackendErrorKind::Unavailable);
    let state = &server.fake.as_ref().expect("the fake server").state;
    assert_eq!(state.attempts.load(Ordering::Acquire), 0);
}

#[tokio::test]
async fn both_sides_must_agree_on_strict_encryption() {
    let server = strict_server(false).await;
    let error = unsent_error(ProcedureCaller::new(&server).call("nothing", &[]).await);
    assert_eq!(error, BackendErrorKind::Unavailable);
    let mut server = fake_server().await;
    let state = &server.fake.as_ref().expect("the fake server").state;
    state.is_strict.store(true, Ordering::Release);
    server.config.connect_timeout = std::time::Duration::from_secs(1);
    let error = unsent_error(ProcedureCaller::new(&server).call("nothing", &[]).await);
    assert_eq!(error, BackendErrorKind::Unavailable);
}
