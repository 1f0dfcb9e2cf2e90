//! What no server does on demand: dropped connections, late answers, refused logins. Against the endpoint alone.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use fjord::catalogue::{ParameterType, ParameterValue, QueueName};
use fjord::config::procedures::{DatabaseConfig, MssqlEncryption};
use fjord::config::tls::ClientTlsConfig;
use fjord::config::{Config, ProceduresConfig, Sources};
use fjord::lifecycle::{Cancel, Tasks};
use fjord::procedures::databases::{Databases, places};
use fjord::procedures::{
    BackendErrorKind, Need, OwnedCell, SentErrorKind, ServerErrorClass, Transaction,
};
use tds_protocol::prelogin::EncryptionLevel;

use super::{Caller, given, int, kind, name, unsent};
use crate::support::certs::Certs;
use crate::support::eventually::{SOON, TICK, eventually, eventually_some};
use crate::support::mssql_server::{Server, endpoint};
use crate::support::tds::{Endpoint, State};

const SHORT: Duration = Duration::from_millis(300);

fn state(server: &Server) -> &State {
    &server.endpoint.as_ref().expect("the endpoint").state
}

#[tokio::test]
async fn a_connection_lost_in_the_call_is_not_tried_again() {
    let server = endpoint().await;
    let caller = Caller::of(&server);
    assert_eq!(kind(caller.call("drops", &[]).await), SentErrorKind::Lost);
    assert_eq!(state(&server).runs("fjord_test.drops"), 1);
    assert!(caller.call("nothing", &[]).await.is_ok());
}

#[tokio::test]
async fn a_connection_lost_in_a_call_that_may_repeat_is_tried_once_more() {
    let server = endpoint().await;
    let caller = Caller { may_repeat: true, ..Caller::of(&server) };
    assert_eq!(kind(caller.call("drops", &[]).await), SentErrorKind::Lost);
    assert_eq!(state(&server).runs("fjord_test.drops"), 2);
    // The server is gone after the first try: that it may have run is not forgotten.
    state(&server).drops_and_leaves.store(true, Ordering::Release);
    assert_eq!(kind(caller.call("drops", &[]).await), SentErrorKind::Lost);
    assert_eq!(state(&server).runs("fjord_test.drops"), 3);
}

#[tokio::test]
async fn a_connection_lost_while_idle_is_never_noticed_by_a_caller() {
    let server = endpoint().await;
    let caller = Caller::of(&server);
    caller.call("nothing", &[]).await.expect("a connection");
    state(&server).hang_up();
    eventually(SOON, TICK, || state(&server).sessions.load(Ordering::Acquire) == 0).await;
    assert!(caller.call("nothing", &[]).await.is_ok());
}

#[tokio::test]
async fn an_answer_cut_at_any_byte_is_lost_and_never_a_panic() {
    let server = endpoint().await;
    let caller = Caller::of(&server);
    for at in 0..70 {
        let error = kind(caller.call("cuts", &[int("at", at)]).await);
        let is_known = matches!(error, SentErrorKind::Lost | SentErrorKind::Undecodable(_));
        assert!(is_known, "{at}: {error}");
    }
    let error = kind(caller.call("babbles", &[]).await);
    assert!(matches!(error, SentErrorKind::Undecodable(_)), "{error}");
    assert!(caller.call("nothing", &[]).await.is_ok());
}

#[tokio::test]
async fn a_server_that_ignores_the_cancel_holds_nobody() {
    let mut server = endpoint().await;
    server.config.cancel_timeout = SHORT;
    let caller = Caller::of(&server);
    let error = kind(caller.call_within(SHORT, &Cancel::new(), "stalls", &[]).await);
    assert_eq!(error, SentErrorKind::TimedOut);
    eventually(SOON, TICK, || state(&server).sessions.load(Ordering::Acquire) == 0).await;
}

#[tokio::test]
async fn a_fatal_error_ends_the_connection() {
    let server = endpoint().await;
    let caller = Caller::of(&server);
    let before = caller.call("process", &[]).await.expect("an id");
    let error = kind(caller.call("raises", &[int("number", 823), int("class", 24)]).await);
    assert_eq!(error, SentErrorKind::Lost);
    let after = caller.call("process", &[]).await.expect("an id");
    assert_ne!(before.cell(), after.cell());
}

#[tokio::test]
async fn every_number_has_its_class() {
    let server = endpoint().await;
    let caller = Caller::of(&server);
    for (number, class) in [
        (2601, ServerErrorClass::Conflict),
        (547, ServerErrorClass::Conflict),
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
        let error = kind(caller.call("raises", &[int("number", number), int("class", 16)]).await);
        let number = u32::try_from(number).expect("a number");
        assert_eq!(error, SentErrorKind::Server { number, class });
    }
    let logins = state(&server).logins.lock().expect("not poisoned").len();
    assert_eq!(logins, 1, "a plain error costs no connection");
}

#[tokio::test]
async fn a_changed_signature_is_read_again() {
    for number in [201, 8144, 8145, 2812] {
        let server = endpoint().await;
        state(&server).changed_error.store(number, Ordering::Release);
        let caller = Caller::of(&server);
        assert!(caller.call("changed", &[int("old", 1)]).await.is_ok());
        state(&server).is_changed.store(true, Ordering::Release);
        // The error may come from inside, so the call is not sent again. The next one knows better.
        let error = kind(caller.call("changed", &[int("old", 1)]).await);
        let class = ServerErrorClass::Mismatch;
        assert_eq!(error, SentErrorKind::Server { number, class });
        assert_eq!(state(&server).runs("fjord_test.changed"), 2);
        let error = unsent(caller.call("changed", &[int("old", 1)]).await).to_string();
        assert!(error.contains("@old") && error.contains("@new"), "{number}: {error}");
        assert!(caller.call("changed", &[int("new", 1)]).await.is_ok(), "{number}");
    }
}

#[tokio::test]
async fn a_changed_signature_costs_a_call_that_may_repeat_nothing() {
    for number in [201, 8144, 8145, 2812] {
        let server = endpoint().await;
        state(&server).changed_error.store(number, Ordering::Release);
        let caller = Caller { may_repeat: true, ..Caller::of(&server) };
        assert!(caller.call("changed", &[int("old", 1)]).await.is_ok());
        state(&server).is_changed.store(true, Ordering::Release);
        let error = kind(caller.call("changed", &[int("old", 1)]).await);
        assert!(matches!(error, SentErrorKind::Mismatch { .. }), "{number}: {error}");
        let error = error.to_string();
        assert!(error.contains("@old") && error.contains("@new"), "{number}: {error}");
    }
}

#[tokio::test]
async fn a_type_without_a_form_in_json_comes_as_its_bytes() {
    let server = endpoint().await;
    let answer = Caller::of(&server).call("shape", &[]).await.expect("bytes");
    assert_eq!(*answer.cell(), OwnedCell::Binary(vec![1, 2, 3]));
}

#[tokio::test]
async fn a_server_without_the_parameters_view_is_asked_elsewhere() {
    let server = endpoint().await;
    state(&server).lacks_parameters_view.store(true, Ordering::Release);
    let answer = Caller::of(&server).call("returns", &[int("status", 4)]).await.expect("a call");
    assert_eq!(answer.outcome.return_status, 4);
}

#[tokio::test]
async fn a_server_that_refuses_untyped_nulls_gets_a_statement_from_the_first_call_on() {
    let server = endpoint().await;
    state(&server).is_babelfish.store(true, Ordering::Release);
    state(&server).refuses_untyped_null.store(true, Ordering::Release);
    let caller = Caller::of(&server);
    let arguments = [given("a", ParameterValue::Null), given("b", ParameterValue::Null)];
    for _ in 0..2 {
        let answer = caller.call("defaults", &arguments).await.expect("NULLs");
        assert_eq!(answer.sets, [[[OwnedCell::Null, OwnedCell::Null]]]);
    }
    assert_eq!(state(&server).statements.load(Ordering::Acquire), 2);
    assert_eq!(state(&server).runs("fjord_test.defaults"), 2);
}

#[tokio::test]
async fn a_refused_login_is_not_tried_over_and_over() {
    let server = endpoint().await;
    state(&server).login_error.store(18456, Ordering::Release);
    let caller = Caller::of(&server);
    for _ in 0..20 {
        assert_eq!(unsent(caller.call("nothing", &[]).await), BackendErrorKind::Unavailable);
        assert!(caller.backend.ping().await.is_err());
    }
    assert_eq!(state(&server).attempts.load(Ordering::Acquire), 1);
}

#[tokio::test]
async fn a_server_that_comes_back_is_found_again_without_a_rush() {
    let mut server = endpoint().await;
    server.config.connections_max = 64;
    let caller = Caller::of(&server);
    state(&server).is_away.store(true, Ordering::Release);
    assert_eq!(unsent(caller.call("nothing", &[]).await), BackendErrorKind::Unavailable);
    state(&server).is_away.store(false, Ordering::Release);
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
async fn the_server_may_send_us_elsewhere() {
    let server = endpoint().await;
    let other = Endpoint::start().await;
    // The other one has an authority of its own.
    let config = fjord::config::procedures::MssqlConfig {
        encryption: MssqlEncryption::TrustAny,
        read_only: true,
        ..server.config.clone()
    };
    *state(&server).redirect.lock().expect("not poisoned") = Some(other.address);
    let server = Server { config, ..server };
    assert!(Caller::of(&server).call("nothing", &[]).await.is_ok());
    let logins = other.state.logins.lock().expect("not poisoned").clone();
    let login = logins.first().expect("a login");
    assert_eq!((login.user.as_str(), login.application.as_str()), ("fjord", "fjord"));
    assert!(login.is_read_only);
    // One that sends us back to itself is left.
    *other.state.redirect.lock().expect("not poisoned") = Some(other.address);
    let error = unsent(Caller::of(&server).call("nothing", &[]).await);
    assert_eq!(error, BackendErrorKind::Unavailable);
}

#[tokio::test]
async fn a_new_authority_is_believed_from_the_next_connection_on() {
    let mut server = endpoint().await;
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("authority.pem");
    let stranger = Certs::new(&directory.path().join("stranger"));
    std::fs::copy(&stranger.ca, &file).expect("a file");
    let right = server.endpoint.as_ref().expect("the endpoint").ca.clone();
    let ca = Some(file.clone());
    server.config.encryption = MssqlEncryption::Required(ClientTlsConfig { ca, identity: None });
    let caller = Caller::of(&server);
    assert_eq!(unsent(caller.call("nothing", &[]).await), BackendErrorKind::Unavailable);
    // What cannot be used changes nothing.
    std::fs::write(&file, "no certificate").expect("a file");
    assert!(caller.backend.ping().await.is_err());
    std::fs::copy(right, &file).expect("a file");
    eventually_some("an answer", SOON, async || caller.backend.ping().await.ok()).await;
    assert!(caller.call("nothing", &[]).await.is_ok());
}

#[tokio::test]
async fn queues_that_only_read_have_connections_of_their_own() {
    let server = endpoint().await;
    let directory = tempfile::tempdir().expect("a directory");
    let sets = ["read.application_intent=read-only", "write.concurrency=2"];
    let sources = Sources {
        directory: Some(directory.path().to_owned()),
        sets: sets.map(|set| format!("worker.queues.{set}")).into(),
        ..Sources::default()
    };
    let config = Config::load(&sources).expect("a configuration").config;
    let procedures = ProceduresConfig {
        databases: [("default".to_owned(), DatabaseConfig::Mssql(server.config.clone()))].into(),
    };
    let tasks = Tasks::new();
    let databases = Databases::open(&places(&procedures, &config.worker), &tasks).expect("both");
    for name in ["read", "write"] {
        let queue = QueueName::new(name).expect("a name");
        let limits = config.worker.queue(&queue).expect("a queue");
        let backend = Arc::clone(&databases.get(limits).expect("a database").backend);
        assert!(
            Caller { backend, queue, may_repeat: false, transaction: Transaction::None }
                .call("nothing", &[])
                .await
                .is_ok(),
            "{name}"
        );
    }
    let logins = state(&server).logins.lock().expect("not poisoned").clone();
    for is_read_only in [true, false] {
        assert!(logins.iter().any(|login| login.is_read_only == is_read_only), "{is_read_only}");
    }
    databases.close().await;
}

#[tokio::test]
async fn an_unknown_authority_and_a_plain_server_are_refused() {
    let mut server = endpoint().await;
    let directory = tempfile::tempdir().expect("a directory");
    let ca = Some(Certs::new(directory.path()).ca.clone());
    let right = server.config.clone();
    server.config.encryption = MssqlEncryption::Required(ClientTlsConfig { ca, identity: None });
    let error = unsent(Caller::of(&server).call("nothing", &[]).await);
    assert_eq!(error, BackendErrorKind::Unavailable);
    server.config = right.clone();
    server.config.certificate_name = Some("elsewhere.example".to_owned());
    let error = unsent(Caller::of(&server).call("nothing", &[]).await);
    assert_eq!(error, BackendErrorKind::Unavailable);
    assert_eq!(state(&server).attempts.load(Ordering::Acquire), 0, "no password was sent");
    server.config.certificate_name = Some("localhost".to_owned());
    assert!(Caller::of(&server).call("nothing", &[]).await.is_ok());
    server.config = right;
    *state(&server).encryption.lock().expect("not poisoned") = EncryptionLevel::NotSupported;
    let error = unsent(Caller::of(&server).call("nothing", &[]).await);
    assert_eq!(error, BackendErrorKind::Unavailable);
}

#[tokio::test]
async fn a_procedure_that_somebody_alters_keeps_no_other_waiting() {
    const MANY: usize = 40;
    let mut server = endpoint().await;
    server.config.connect_timeout = Duration::from_millis(300);
    let state = &server.endpoint.as_ref().expect("the endpoint").state;
    state.locked.lock().expect("not poisoned").push("fjord_test.numbered_7".to_owned());
    let caller = Caller::of(&server);
    let need = |number| Need {
        queue: caller.queue.clone(),
        procedure: name(&format!("numbered_{number}")),
        arguments: vec![("ms".into(), ParameterType::Int32)],
        outputs: vec!["total".to_owned()],
    };
    let needs: Vec<Need> = (0..MANY).map(need).collect();
    let found = caller.verify_all(&needs).await;
    assert_eq!(found.len(), MANY);
    for (place, fits) in found {
        match fits {
            Err(error) if place == 7 => assert_eq!(error.kind, BackendErrorKind::Unavailable),
            fits => assert!(fits.is_ok(), "{place}: {fits:?}"),
        }
    }
    state.locked.lock().expect("not poisoned").clear();
    assert!(caller.verify(need(7)).await.is_ok());
}

#[tokio::test]
async fn a_database_whose_connections_are_all_waited_for_is_there() {
    let mut server = endpoint().await;
    server.config.connect_timeout = Duration::from_secs(1);
    state(&server).login_ms.store(700, Ordering::Release);
    let caller = Caller::of(&server);
    let tasks = Tasks::new();
    let calls: Vec<_> = (0..8)
        .map(|_| {
            let caller = caller.clone();
            tasks.spawn(async move { caller.call("slow", &[int("ms", 1500)]).await })
        })
        .collect();
    eventually(SOON, TICK, || state(&server).connects.load(Ordering::Acquire) > 0).await;
    // It stands behind eight calls, and none of them ends before its time is over.
    let answer = caller.backend.ping().await;
    assert!(answer.is_ok(), "{answer:?}");
    for call in calls {
        assert!(call.await.expect("no panic").is_ok());
    }
}

#[tokio::test]
async fn long_calls_of_some_queues_keep_no_other_from_being_looked_at() {
    let mut server = endpoint().await;
    server.config.connect_timeout = Duration::from_millis(500);
    server.config.connections_max = 1;
    let caller = Caller::of(&server);
    let running = caller.clone();
    let call = Tasks::new().spawn(async move { running.call("slow", &[int("ms", 1500)]).await });
    eventually(SOON, TICK, || state(&server).runs("fjord_test.slow") == 1).await;
    let need = Need {
        queue: caller.queue.clone(),
        procedure: name("nothing"),
        arguments: Vec::new(),
        outputs: Vec::new(),
    };
    let fits = caller.verify(need).await;
    assert!(fits.is_ok(), "{fits:?}");
    assert!(call.await.expect("no panic").is_ok());
}
