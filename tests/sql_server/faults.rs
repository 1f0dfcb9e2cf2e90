//! Promise: no fault of the server causes a call to hang or to be reported incorrectly. A real
//! server cannot produce these faults on demand, so the tests use only the fake server.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use fjord::catalogue::QueueName;
use fjord::config::procedures::{DatabaseConfig, MssqlEncryption};
use fjord::config::tls::ClientTlsConfig;
use fjord::config::{Config, ProceduresConfig, Sources};
use fjord::lifecycle::{Cancel, Tasks};
use fjord::procedures::databases::{self, Databases};
use fjord::procedures::{BackendErrorKind, SentErrorKind, ServerErrorClass};
use tds_protocol::prelogin::EncryptionLevel;

use super::{ProcedureCaller, int, sent_error, unsent_error};
use crate::support::certs::Certs;
use crate::support::eventually::{SOON, TICK, eventually, eventually_some};
use crate::support::mssql_server::{SqlServer, fake_server};
use crate::support::tds::FakeSqlServer;

const SHORT: Duration = Duration::from_millis(300);

#[tokio::test]
async fn a_call_is_not_retried_after_its_connection_is_lost() {
    let server = fake_server().await;
    let caller = ProcedureCaller::new(&server);
    assert_eq!(sent_error(caller.call("drops", &[]).await), SentErrorKind::Lost);
    assert_eq!(server.state().runs("fjord_test.drops"), 1);
    assert!(caller.call("nothing", &[]).await.is_ok());
}

#[tokio::test]
async fn a_repeatable_call_is_retried_once_after_its_connection_is_lost() {
    let server = fake_server().await;
    let caller = ProcedureCaller { may_repeat: true, ..ProcedureCaller::new(&server) };
    assert_eq!(sent_error(caller.call("drops", &[]).await), SentErrorKind::Lost);
    assert_eq!(server.state().runs("fjord_test.drops"), 2);
    // The server becomes unreachable after the first attempt, which may have been executed.
    server.state().goes_away_on_drop.store(true, Ordering::Release);
    assert_eq!(sent_error(caller.call("drops", &[]).await), SentErrorKind::Lost);
    assert_eq!(server.state().runs("fjord_test.drops"), 3);
}

#[tokio::test]
async fn a_connection_lost_while_idle_does_not_fail_a_call() {
    let server = fake_server().await;
    let caller = ProcedureCaller::new(&server);
    caller.call("nothing", &[]).await.expect("the call succeeds");
    server.state().close_connections();
    eventually(SOON, TICK, || server.state().connections.load(Ordering::Acquire) == 0).await;
    assert!(caller.call("nothing", &[]).await.is_ok());
}

#[tokio::test]
async fn an_answer_truncated_at_any_byte_is_an_error_and_not_a_panic() {
    let server = fake_server().await;
    let caller = ProcedureCaller::new(&server);
    for at in 0..70 {
        let error = sent_error(caller.call("cuts", &[int("at", at)]).await);
        let is_known = matches!(error, SentErrorKind::Lost | SentErrorKind::Undecodable(_));
        assert!(is_known, "{at}: {error}");
    }
    let error = sent_error(caller.call("babbles", &[]).await);
    assert!(matches!(error, SentErrorKind::Undecodable(_)), "{error}");
    assert!(caller.call("nothing", &[]).await.is_ok());
}

#[tokio::test]
async fn a_server_that_ignores_a_cancel_does_not_block_the_call() {
    let mut server = fake_server().await;
    server.config.cancel_timeout = SHORT;
    let caller = ProcedureCaller::new(&server);
    let error = sent_error(caller.call_within(SHORT, &Cancel::new(), "stalls", &[]).await);
    assert_eq!(error, SentErrorKind::TimedOut);
    eventually(SOON, TICK, || server.state().connections.load(Ordering::Acquire) == 0).await;
}

#[tokio::test]
async fn a_fatal_error_closes_the_connection() {
    let server = fake_server().await;
    let caller = ProcedureCaller::new(&server);
    let before = caller.call("process", &[]).await.expect("the call succeeds");
    let error = sent_error(caller.call("raises", &[int("number", 823), int("class", 24)]).await);
    assert_eq!(error, SentErrorKind::Lost);
    let after = caller.call("process", &[]).await.expect("the call succeeds");
    assert_ne!(before.cell(), after.cell());
}

#[tokio::test]
async fn each_error_number_has_its_class() {
    let server = fake_server().await;
    let caller = ProcedureCaller::new(&server);
    for (number, class) in [
        (2601, ServerErrorClass::Conflict),
        (547, ServerErrorClass::Conflict),
        (41302, ServerErrorClass::SnapshotConflict),
        (241, ServerErrorClass::BadValue),
        (242, ServerErrorClass::BadValue),
        (515, ServerErrorClass::BadValue),
        (9420, ServerErrorClass::BadValue),
        (245, ServerErrorClass::BadValue),
        (8114, ServerErrorClass::BadValue),
        (8115, ServerErrorClass::BadValue),
        (8152, ServerErrorClass::BadValue),
        (2628, ServerErrorClass::BadValue),
        (220, ServerErrorClass::BadValue),
        (201, ServerErrorClass::Mismatch),
        (2812, ServerErrorClass::Mismatch),
        (229, ServerErrorClass::Permission),
        (1222, ServerErrorClass::Transient),
        (33_557_097, ServerErrorClass::Other),
    ] {
        let error =
            sent_error(caller.call("raises", &[int("number", number), int("class", 16)]).await);
        let number = u32::try_from(number).expect("a number");
        assert_eq!(error, SentErrorKind::Server { number, class });
    }
    let logins = server.state().logins.lock().expect("not poisoned").len();
    assert_eq!(logins, 1, "a plain error costs no connection");
}

#[tokio::test]
async fn a_column_of_a_clr_type_is_an_error_that_names_a_way_out() {
    let server = fake_server().await;
    let caller = ProcedureCaller::new(&server);
    let SentErrorKind::Undecodable(reason) = sent_error(caller.call("shape", &[]).await) else {
        panic!("another error")
    };
    assert!(reason.contains("'v' has a CLR type") && reason.contains(".ToString()"), "{reason}");
    caller.call("nothing", &[]).await.expect("another connection");
}

#[tokio::test]
async fn a_refused_login_is_not_retried_at_once() {
    let server = fake_server().await;
    server.state().login_error.store(18456, Ordering::Release);
    let caller = ProcedureCaller::new(&server);
    for _ in 0..20 {
        assert_eq!(unsent_error(caller.call("nothing", &[]).await), BackendErrorKind::Unavailable);
        assert!(caller.backend.ping().await.is_err());
    }
    assert_eq!(server.state().attempts.load(Ordering::Acquire), 1);
}

#[tokio::test]
async fn all_calls_succeed_after_a_server_is_reachable_again() {
    let mut server = fake_server().await;
    server.config.connections_max = 64;
    let caller = ProcedureCaller::new(&server);
    server.state().refuses_connections.store(true, Ordering::Release);
    assert_eq!(unsent_error(caller.call("nothing", &[]).await), BackendErrorKind::Unavailable);
    server.state().refuses_connections.store(false, Ordering::Release);
    eventually_some("an answer", SOON, async || caller.backend.ping().await.ok()).await;
    let tasks = Tasks::new();
    let calls: Vec<_> = (0..64)
        .map(|_| {
            let caller = caller.clone();
            tasks.spawn(async move { caller.call("nothing", &[]).await.is_ok() })
        })
        .collect();
    for call in calls {
        assert!(call.await.expect("no panic"));
    }
}

#[tokio::test]
async fn a_redirect_is_followed_and_a_loop_is_an_error() {
    let server = fake_server().await;
    let other = FakeSqlServer::start().await;
    // The other server has its own certificate authority.
    let config = fjord::config::procedures::MssqlConfig {
        encryption: MssqlEncryption::TrustAny,
        read_only: true,
        ..server.config.clone()
    };
    *server.state().redirect.lock().expect("not poisoned") = Some(other.address);
    let server = SqlServer { config, ..server };
    assert!(ProcedureCaller::new(&server).call("nothing", &[]).await.is_ok());
    let logins = other.state.logins.lock().expect("not poisoned").clone();
    let login = logins.first().expect("a login");
    assert_eq!((login.user.as_str(), login.application.as_str()), ("fjord", "fjord"));
    assert!(login.is_read_only);
    // The other server now redirects to itself.
    *other.state.redirect.lock().expect("not poisoned") = Some(other.address);
    let error = unsent_error(ProcedureCaller::new(&server).call("nothing", &[]).await);
    assert_eq!(error, BackendErrorKind::Unavailable);
}

#[tokio::test]
async fn a_new_authority_is_used_from_the_next_connection_on() {
    let mut server = fake_server().await;
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("authority.pem");
    let stranger = Certs::new(&directory.path().join("stranger"));
    std::fs::copy(&stranger.ca, &file).expect("the file can be copied");
    let right = server.fake.as_ref().expect("this is the fake server").ca.clone();
    let ca = Some(file.clone());
    server.config.encryption = MssqlEncryption::Required(ClientTlsConfig { ca, identity: None });
    let caller = ProcedureCaller::new(&server);
    assert_eq!(unsent_error(caller.call("nothing", &[]).await), BackendErrorKind::Unavailable);
    // An invalid file is ignored.
    std::fs::write(&file, "no certificate").expect("the file can be written");
    assert!(caller.backend.ping().await.is_err());
    std::fs::copy(right, &file).expect("the file can be copied");
    eventually_some("an answer", SOON, async || caller.backend.ping().await.ok()).await;
    assert!(caller.call("nothing", &[]).await.is_ok());
}

#[tokio::test]
async fn read_only_queues_have_their_own_connections() {
    let server = fake_server().await;
    let directory = tempfile::tempdir().expect("a temporary directory");
    let sets = ["read.application_intent=read-only", "write.concurrency=2"];
    let sources = Sources {
        directory: Some(directory.path().to_owned()),
        sets: sets.map(|set| format!("worker.queues.{set}")).into(),
        ..Sources::default()
    };
    let config = Config::load(&sources).expect("the configuration is valid").config;
    let procedures = ProceduresConfig {
        databases: [("default".to_owned(), DatabaseConfig::Mssql(server.config.clone().into()))]
            .into(),
    };
    let tasks = Tasks::new();
    let databases = Databases::open(&databases::configs(&procedures, &config.worker))
        .expect("both databases can be opened");
    databases.monitor(&tasks);
    for name in ["read", "write"] {
        let queue = QueueName::new(name).expect("a name");
        let limits = config.worker.queue(&queue).expect("a queue");
        let backend = Arc::clone(&databases.get(limits).expect("a database").backend);
        assert!(
            ProcedureCaller { backend, queue, ..ProcedureCaller::new(&server) }
                .call("nothing", &[])
                .await
                .is_ok(),
            "{name}"
        );
    }
    let logins = server.state().logins.lock().expect("not poisoned").clone();
    for is_read_only in [true, false] {
        assert!(logins.iter().any(|login| login.is_read_only == is_read_only), "{is_read_only}");
    }
    databases.close().await;
}

#[tokio::test]
async fn an_unknown_authority_and_an_unencrypted_server_are_refused() {
    let mut server = fake_server().await;
    let directory = tempfile::tempdir().expect("a temporary directory");
    let ca = Some(Certs::new(directory.path()).ca.clone());
    let right = server.config.clone();
    server.config.encryption = MssqlEncryption::Required(ClientTlsConfig { ca, identity: None });
    let error = unsent_error(ProcedureCaller::new(&server).call("nothing", &[]).await);
    assert_eq!(error, BackendErrorKind::Unavailable);
    server.config = right.clone();
    server.config.certificate_name = Some("elsewhere.example".to_owned());
    let error = unsent_error(ProcedureCaller::new(&server).call("nothing", &[]).await);
    assert_eq!(error, BackendErrorKind::Unavailable);
    assert_eq!(server.state().attempts.load(Ordering::Acquire), 0, "no password was sent");
    server.config.certificate_name = Some("localhost".to_owned());
    assert!(ProcedureCaller::new(&server).call("nothing", &[]).await.is_ok());
    server.config = right;
    *server.state().encryption.lock().expect("not poisoned") = EncryptionLevel::NotSupported;
    let error = unsent_error(ProcedureCaller::new(&server).call("nothing", &[]).await);
    assert_eq!(error, BackendErrorKind::Unavailable);
}

#[tokio::test]
async fn a_ping_succeeds_while_calls_use_all_connections() {
    let mut server = fake_server().await;
    server.config.connect_timeout = Duration::from_secs(1);
    server.state().login_ms.store(700, Ordering::Release);
    let caller = ProcedureCaller::new(&server);
    let tasks = Tasks::new();
    let calls: Vec<_> = (0..8)
        .map(|_| {
            let caller = caller.clone();
            tasks.spawn(async move { caller.call("slow", &[int("ms", 1500)]).await })
        })
        .collect();
    eventually(SOON, TICK, || server.state().connects.load(Ordering::Acquire) > 0).await;
    // The ping waits behind eight calls, none of which ends within the ping's time limit,
    // `connect_timeout`.
    let answer = caller.backend.ping().await;
    assert!(answer.is_ok(), "{answer:?}");
    for call in calls {
        assert!(call.await.expect("no panic").is_ok());
    }
}
